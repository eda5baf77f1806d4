//! The `h2` crate as client against our server, over a pipe in memory.

use super::*;
use crate::stdx::Rng;
use std::future::poll_fn;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// What the request's path asks for: `/bytes-of-answer/what`.
fn wanted(path: &[u8]) -> (usize, String) {
    let text = std::str::from_utf8(path).unwrap();
    let (bytes, what) = text[1..].split_once('/').unwrap();
    (bytes.parse().unwrap(), what.to_owned())
}

fn answer(server: &mut Connection, stream: StreamId, len: usize, what: &str, body: u64) {
    let byte = (body % 251) as u8;
    match what {
        "unary" => {
            server.reply(stream, len, |out| out.extend(std::iter::repeat_n(byte, len)));
        }
        "stream" => {
            server.send_grpc_head(stream);
            for piece in vec![byte; len].chunks(1000) {
                server.send_message(stream, piece);
            }
            server.send_trailers(stream, 0, "");
        }
        "refuse" => {
            server.send_trailers(stream, 14, "unavailable: 100 %");
        }
        _ => server.reset(stream, ErrorCode::Cancel),
    }
}

/// Serves one end of the pipe until the client hangs up. Sums what bodies hold and answers at their end.
async fn serve(mut wire: DuplexStream, config: Http2Config, mut rng: Rng) -> Connection {
    let mut server = Connection::new(&config, NOW);
    let (mut input, mut output) = (vec![0; 30_000], vec![]);
    let mut open: Vec<(StreamId, (usize, String), u64)> = vec![];
    loop {
        server.take_output(&mut output);
        if wire.write_all(&output).await.is_err() {
            return server;
        }
        output.clear();
        let most = 1 + rng.below(30_000) as usize;
        let Ok(n) = wire.read(&mut input[..most]).await else { return server };
        if n == 0 {
            return server;
        }
        let mut rest = &input[..n];
        while let Some(event) = server.receive(NOW, &mut rest).expect("h2 makes no mistakes") {
            let done = match event {
                Http2Event::Headers { stream, head, end } => {
                    open.push((stream, wanted(head.path()), 0));
                    end.then_some(stream)
                }
                Http2Event::Data { stream, bytes, end } => {
                    let sum: u64 = bytes.iter().map(|&byte| u64::from(byte)).sum();
                    open.iter_mut().find(|(other, ..)| *other == stream).unwrap().2 += sum;
                    let len = bytes.len();
                    server.consumed(stream, len);
                    end.then_some(stream)
                }
                Http2Event::Trailers { stream, .. } => Some(stream),
                Http2Event::Reset { stream, .. } => {
                    open.retain(|(other, ..)| *other != stream);
                    None
                }
                Http2Event::Writable { .. } | Http2Event::GoAway { .. } => None,
            };
            if let Some(stream) = done {
                let place = open.iter().position(|(other, ..)| *other == stream).unwrap();
                let (_, (len, what), sum) = open.swap_remove(place);
                answer(&mut server, stream, len, &what, sum);
            }
        }
    }
}

async fn ask(send: h2::client::SendRequest<bytes::Bytes>, seed: u64) {
    let mut rng = Rng::new(seed);
    let mut send = send.ready().await.expect("the server lets streams in");
    let what = *rng.pick(&["unary", "unary", "stream", "refuse", "reset", "cancel", "stop"]);
    let len = *rng.pick(&[0, 1, 100, 5000, 70_000]) as usize;
    let shown = if what == "cancel" || what == "stop" { "stream" } else { what };
    let mut request = http::Request::post(format!("http://localhost/{len}/{shown}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("x-seed", seed % 7);
    if rng.chance(1, 3) {
        request = request.header("grpc-timeout", format!("{seed}m"));
    }
    let body_len = *rng.pick(&[0, 10, 3000, 50_000]) as usize;
    let (response, mut body) =
        send.send_request(request.body(()).unwrap(), body_len == 0).expect("it is opened");
    let byte = rng.next_u64() as u8;
    let mut left = body_len;
    while left > 0 {
        body.reserve_capacity(left);
        match poll_fn(|cx| body.poll_capacity(cx)).await {
            Some(Ok(room)) => {
                let n = room.min(left);
                left -= n;
                let trailers = left == 0 && seed.is_multiple_of(2);
                body.send_data(vec![byte; n].into(), left == 0 && !trailers).unwrap();
                if trailers {
                    let mut fields = http::HeaderMap::new();
                    fields.insert("checksum", "1".parse().unwrap());
                    body.send_trailers(fields).unwrap();
                }
            }
            other => panic!("the body stalls: {other:?}"),
        }
        if what == "cancel" {
            body.send_reset(h2::Reason::CANCEL);
            return;
        }
    }
    let response = response.await;
    if what == "reset" {
        assert_eq!(response.expect_err("a reset").reason(), Some(h2::Reason::CANCEL));
        return;
    }
    let response = response.expect("an answer");
    assert_eq!(response.headers()["content-type"], "application/grpc");
    if what == "refuse" {
        assert_eq!(response.headers()["grpc-status"], "14");
        assert_eq!(response.headers()["grpc-message"], "unavailable: 100 %25");
        return;
    }
    let (mut coded, mut body) = (vec![], response.into_body());
    while let Some(piece) = body.data().await {
        let piece = piece.expect("the body goes on");
        body.flow_control().release_capacity(piece.len()).unwrap();
        coded.extend_from_slice(&piece);
        if what == "stop" {
            return; // dropping it resets the stream
        }
    }
    let trailers = body.trailers().await.unwrap().expect("gRPC ends in trailers");
    assert_eq!(
        (&trailers["grpc-status"], &trailers["grpc-message"]),
        (&"0".parse().unwrap(), &"".parse().unwrap())
    );
    let sum = u64::from(byte) * body_len as u64;
    assert!(whole_messages(&coded) == vec![(sum % 251) as u8; len], "{what} {len}");
}

/// The bytes of all messages of a body.
fn whole_messages(mut coded: &[u8]) -> Vec<u8> {
    let (mut messages, mut got) = (grpc::Messages::default(), vec![]);
    while let Some(message) = messages.read(&mut coded, 1 << 20).unwrap() {
        got.extend_from_slice(message.bytes);
    }
    assert!(messages.is_complete(), "a body ends with a message");
    got
}

#[test]
fn h2_gets_what_it_asks_for_through_small_windows_and_many_streams() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for seed in 0..10 {
        runtime.block_on(async move {
            let mut rng = Rng::new(seed);
            let streams_max = *rng.pick(&[1, 5, 100]);
            let bounds = Http2Bounds {
                stream_window_bytes: *rng.pick(&[100, 20_000, 1 << 20]),
                connection_window_bytes: *rng.pick(&[65_535, 1 << 20]),
                ..Http2Bounds::PRODUCTION
            };
            let config = Http2Config { streams_max, bounds, ..Http2Config::default() };
            let (near, far) = tokio::io::duplex(1 + rng.below(20_000) as usize);
            let server = tokio::spawn(serve(far, config, rng.fork()));
            let (send, connection) = h2::client::Builder::new()
                .initial_window_size(*rng.pick(&[1000, 65_535, 1 << 20]))
                .initial_connection_window_size(*rng.pick(&[65_535, 1 << 20]))
                .header_table_size(*rng.pick(&[0, 100, 4096]))
                .max_frame_size(*rng.pick(&[16_384, 100_000]))
                .handshake(near)
                .await
                .unwrap();
            let connection = tokio::spawn(connection);
            let asked: Vec<_> = (0..80).map(|n| tokio::spawn(ask(send.clone(), seed * 1000 + n))).collect();
            for one in asked {
                one.await.unwrap();
            }
            drop(send);
            connection.await.unwrap().unwrap();
            let server = server.await.unwrap();
            assert_eq!((server.streams_len(), server.pending_bytes()), (0, 0), "seed {seed}");
        });
    }
}
