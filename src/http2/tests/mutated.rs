//! Streams of bytes that a client might send, cut and changed at random.

use super::*;
use crate::http2::client::Client;
use crate::stdx::Rng;

/// What a client sends who knows nothing of the server: requests, bodies, pings, resets, windows.
fn conversation(rng: &mut Rng) -> Vec<u8> {
    let mut config = Http2Config::default().with_window(65_535);
    config.bounds.connection_window_bytes = 65_535;
    let mut client = Client::new(&config, "localhost", NOW);
    let (mut bytes, mut by_hand) = (vec![], vec![]);
    for _ in 0..rng.below(12) {
        match rng.below(8) {
            0..4 => {
                let fields: [(&[u8], &[u8]); 1] = [(b"grpc-timeout", &[b'0' + rng.below(10) as u8, b'S'])];
                let fields = &fields[..rng.below(2) as usize];
                let stream = client.request("/pkg.Service/Call", fields).unwrap();
                client.send_message(stream, &vec![3; rng.below(200) as usize], rng.chance(3, 4));
                if rng.chance(1, 8) {
                    client.reset(stream, ErrorCode::Cancel);
                }
            }
            4 => by_hand.extend(frame_of(kind::PRIORITY, 0, 1, &[0, 0, 0, 5, 1])),
            5 => by_hand.extend(frame_of(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, rng.next_u64() as u8, 7])),
            6 => by_hand.extend(frame_of(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 9, 9])),
            _ => by_hand.extend(frame_of(kind::PING, 0, 0, &[1; 8])),
        }
        client.take_output(&mut bytes);
        bytes.append(&mut by_hand);
    }
    bytes
}

fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..rng.below(4) {
        if bytes.is_empty() {
            return;
        }
        let at = rng.below(bytes.len() as u64) as usize;
        match rng.below(5) {
            0 => bytes[at] ^= 1 << rng.below(8),
            1 => bytes[at] = rng.next_u64() as u8,
            2 => {
                bytes.remove(at);
            }
            3 => bytes.insert(at, rng.next_u64() as u8),
            _ => {
                let end = (at + rng.below(40) as usize).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
}

/// Feeds the bytes in the given pieces to a server that answers everything, and tells what it saw and sent.
/// DATA counts as a whole however it came.
fn run(pieces: &[&[u8]]) -> (Vec<Seen>, Option<ConnectionError>, Vec<u8>) {
    let mut config = Http2Config { streams_max: 8, ..Http2Config::default() };
    config.bounds.pending_bytes_max = 10_000;
    let mut server = Connection::new(&config, NOW);
    let (mut events, mut output) = (vec![], vec![]);
    for piece in pieces {
        let mut rest = *piece;
        loop {
            let (stream, len, end) = match server.receive(NOW, &mut rest) {
                Err(fault) => {
                    server.take_output(&mut output);
                    assert_eq!(server.streams_len(), 0);
                    return (events, Some(fault), output);
                }
                Ok(None) => break,
                Ok(Some(event)) => {
                    events.push(seen(&event));
                    match event {
                        Http2Event::Headers { stream, end, .. } => (stream, 0, end),
                        Http2Event::Data { stream, bytes, end } => (stream, bytes.len(), end),
                        Http2Event::Trailers { stream, .. } => (stream, 0, true),
                        _ => continue,
                    }
                }
            };
            server.consumed(stream, len);
            if end {
                server.reply(stream, 40, |out| out.extend_from_slice(&[5; 40]));
            }
        }
        assert!(rest.is_empty(), "everything is read");
        assert!(server.partial_frame.len() <= frame::HEAD_BYTES + frame::FRAME_BYTES);
        assert!(server.streams_len() <= 8 && server.pending_bytes() <= 10_000 + 45);
    }
    server.take_output(&mut output);
    (events, None, output)
}

#[test]
fn no_bytes_make_it_panic_and_how_they_are_cut_makes_no_difference() {
    let (mut faults, mut peaceful) = (0, 0);
    for seed in 0..3000 {
        let mut rng = Rng::new(seed);
        let mut bytes = conversation(&mut rng);
        if rng.chance(4, 5) {
            mutate(&mut rng, &mut bytes);
        }
        let (events, fault, output) = run(&[&bytes]);
        frames_of(&output);
        let mut pieces = vec![];
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let most = if rng.chance(1, 2) { 3 } else { 100 };
            let n = 1 + rng.below(most) as usize;
            let (piece, after) = rest.split_at(n.min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        let cut = run(&pieces);
        assert_eq!((&events, &fault), (&cut.0, &cut.1), "seed {seed}");
        assert_eq!(output, cut.2, "seed {seed}");
        match fault {
            Some(_) => faults += 1,
            None => peaceful += events.len(),
        }
    }
    assert!(
        faults > 300 && peaceful > 3000,
        "the mutations hit and the rest gets through: {faults} {peaceful}"
    );
}

#[test]
fn no_bytes_from_a_server_make_the_client_panic() {
    for seed in 0..1500 {
        let mut rng = Rng::new(seed);
        let mut client = Client::new(&Http2Config::default(), "localhost", NOW);
        let mut server = Connection::new(&Http2Config::default(), NOW);
        let (mut up, mut down) = (vec![], vec![]);
        let asked: Vec<_> = (0..4).map(|n| client.call("/a", &[], &[n; 50]).unwrap()).collect();
        client.take_output(&mut up);
        let mut rest = &up[..];
        let mut streams = vec![];
        while let Some(event) = server.receive(NOW, &mut rest).unwrap() {
            if let Http2Event::Data { stream, .. } = event {
                streams.push(stream);
            }
        }
        assert_eq!(streams.len(), asked.len());
        for stream in streams {
            match rng.below(3) {
                0 => server.reply(stream, 100, |out| out.extend_from_slice(&[9; 100])),
                1 => server.send_trailers(stream, 9, "failed"),
                _ => server.send_grpc_head(stream) && server.send_message(stream, b"partial"),
            };
        }
        server.take_output(&mut down);
        mutate(&mut rng, &mut down);
        let mut rest = &down[..];
        while let Ok(Some(_)) = client.receive(NOW, &mut rest) {}
        assert!(client.streams_len() <= 4);
    }
}
