//! Our client against our server: two ends, a wire of bytes between them.

use super::*;
use crate::http2::client::Client;
use crate::stdx::Rng;

/// A server that answers a request with its own bytes, in messages of at most `piece` bytes.
fn echo(server: &mut Connection, bytes: &[u8], bodies: &mut Vec<(StreamId, Vec<u8>)>, piece: usize) {
    let mut rest = bytes;
    loop {
        let event = server.receive(NOW, &mut rest).expect("our client makes no mistakes");
        let (stream, part, end) = match event {
            None => return,
            Some(Http2Event::Data { stream, bytes, end }) => (stream, bytes.to_vec(), end),
            Some(Http2Event::Reset { stream, .. }) => {
                bodies.retain(|(other, _)| *other != stream);
                continue;
            }
            Some(_) => continue,
        };
        server.consumed(stream, part.len());
        if !bodies.iter().any(|(other, _)| *other == stream) {
            bodies.push((stream, vec![]));
        }
        let place = bodies.iter().position(|(other, _)| *other == stream).unwrap();
        bodies[place].1.extend(part);
        if end {
            let (_, body) = bodies.remove(place);
            if body.len() <= piece {
                server.reply(stream, body.len(), |out| out.extend_from_slice(&body));
            } else {
                server.send_grpc_head(stream);
                body.chunks(piece).all(|part| server.send_message(stream, part));
                server.send_trailers(stream, 5, "naïve 100 %\n");
            }
        }
    }
}

/// A stream, its body so far, its status once that has come.
type Answer = (StreamId, Vec<u8>, Option<u8>);

fn take_answers(client: &mut Client, mut bytes: &[u8], answers: &mut Vec<Answer>) {
    while let Some(event) = client.receive(NOW, &mut bytes).expect("our server makes no mistakes") {
        match event {
            Http2Event::Headers { stream, head, .. } => {
                assert_eq!(head.status(), Some(200));
                answers.push((stream, vec![], head.grpc_status()));
            }
            Http2Event::Data { stream, bytes, .. } => {
                let answer = answers.iter_mut().find(|(other, ..)| *other == stream).unwrap();
                answer.1.extend_from_slice(bytes);
            }
            Http2Event::Trailers { stream, head } => {
                let answer = answers.iter_mut().find(|(other, ..)| *other == stream).unwrap();
                answer.2 = head.grpc_status();
                if answer.2 == Some(5) {
                    let message = head.get(FieldName::GrpcMessage).unwrap();
                    assert_eq!(grpc::percent_decoded(message), "naïve 100 %\n");
                }
            }
            event => panic!("{event:?}"),
        }
    }
}

#[test]
fn requests_of_all_sizes_come_back_through_small_windows_and_odd_cuts() {
    for seed in 0..12 {
        let mut rng = Rng::new(seed);
        let window = *rng.pick(&[1, 100, 5000, 65_535, 1 << 20]);
        let config = Http2Config::default().with_window(window);
        let client_window = *rng.pick(&[7, 3000, 1 << 20]);
        let mut client_config = Http2Config::default().with_window(client_window);
        client_config.bounds.connection_window_bytes = 65_535;
        let mut server = Connection::new(&config, NOW);
        let mut client = Client::new(&client_config, "localhost", NOW);
        let (mut bodies, mut asked) = (vec![], vec![]);
        let mut answers = vec![];
        let (mut up, mut down) = (vec![], vec![]);
        let small = window.min(client_window) < 1000;
        for turn in 0..4000 {
            if turn < 60 && rng.chance(2, 3) {
                let len = if small { rng.below(300) } else { rng.below(40_000) } as usize;
                let body: Vec<u8> = (0..len).map(|place| (place as u64 ^ seed ^ turn) as u8).collect();
                let fields: [(&[u8], &[u8]); 1] = [(b"x-turn", &[b'a' + (turn % 5) as u8])];
                let fields = if rng.chance(1, 2) { &fields[..] } else { &[] };
                let stream = client.request("/pkg.Service/Echo", fields).expect("the limit is far");
                client.send_data(stream, &body, true);
                asked.push((stream, body));
            }
            client.take_output(&mut up);
            let cut = rng.below(up.len() as u64 + 1) as usize;
            let now: Vec<u8> = up.drain(..cut).collect();
            echo(&mut server, &now, &mut bodies, 2000);
            server.take_output(&mut down);
            let cut = rng.below(down.len() as u64 + 1) as usize;
            let now: Vec<u8> = down.drain(..cut).collect();
            take_answers(&mut client, &now, &mut answers);
            if turn > 60 && answers.len() == asked.len() && client.streams_len() == 0 {
                break;
            }
        }
        assert_eq!(
            (server.streams_len(), client.streams_len(), answers.len()),
            (0, 0, asked.len()),
            "seed {seed}"
        );
        assert_eq!((server.pending_bytes(), client.pending_bytes()), (0, 0));
        for (stream, coded, status) in &answers {
            let (_, body) = asked.iter().find(|(other, _)| other == stream).unwrap();
            let (mut messages, mut rest, mut whole) = (grpc::Messages::default(), &coded[..], vec![]);
            while let Some(message) = messages.read(&mut rest, 2000).unwrap() {
                whole.extend_from_slice(message.bytes);
            }
            assert!(messages.is_complete() && whole == *body, "seed {seed}");
            assert_eq!(*status, Some(if body.len() <= 2000 { 0 } else { 5 }));
        }
    }
}

#[test]
fn a_warm_request_and_its_answer_are_few_bytes() {
    let (mut server, mut client) =
        (Connection::new(&Http2Config::default(), NOW), Client::new(&Http2Config::default(), "h", NOW));
    let (mut up, mut down, mut bodies) = (vec![], vec![], vec![]);
    for round in 0..4 {
        client.call("/etcdserverpb.KV/Put", &[], b"message").expect("the limit is far");
        client.take_output(&mut up);
        if round == 3 {
            assert_eq!(up.len(), 9 + 6 + 9 + 5 + 7, "head of six indices, one DATA");
        }
        echo(&mut server, &std::mem::take(&mut up), &mut bodies, 100);
        server.take_output(&mut down);
        if round == 3 {
            assert_eq!(down.len(), 9 + 2 + 9 + 5 + 12 + 9 + 2, "head of two indices, DATA, trailers of two");
        }
        let mut rest = &down[..];
        while client.receive(NOW, &mut rest).unwrap().is_some() {}
        down.clear();
        assert_eq!(client.streams_len(), 0);
    }
}

#[test]
fn a_client_minds_the_servers_limit_of_streams_and_its_goaway() {
    let config = Http2Config { streams_max: 2, ..Http2Config::default() };
    let (mut server, mut client) =
        (Connection::new(&config, NOW), Client::new(&Http2Config::default(), "h", NOW));
    let mut down = vec![];
    server.take_output(&mut down);
    while client.receive(NOW, &mut &down[..]).unwrap().is_some() {}
    let first = client.request("/a", &[]).unwrap();
    assert!(client.request("/b", &[]).is_some() && client.request("/c", &[]).is_none());
    client.reset(first, ErrorCode::Cancel);
    assert!(client.request("/d", &[]).is_some());
    let goaway = frame_of(kind::GOAWAY, 0, 0, &[0, 0, 0, 9, 0, 0, 0, 0]);
    let mut rest = &goaway[..];
    assert!(matches!(client.receive(NOW, &mut rest), Ok(Some(Http2Event::GoAway { last: 9, code: 0 }))));
    assert!(client.request("/e", &[]).is_none());
}
