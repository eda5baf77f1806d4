//! CPU of HTTP/2 for a small unary request: the server's receive and reply, one core.

use braid::http2::client::Client;
use braid::http2::{Connection, Http2Config, Http2Event, grpc};
use braid::types::Time;
use std::hint::black_box;
use std::time::Instant;

const NOW: Time = Time::from_ms(1);
const ROUNDS: usize = 20_000;

struct Run {
    streams: usize,
    message: usize,
    /// A deadline in every request, as grpc-go sends it: a new field each time.
    deadlines: bool,
}

/// Nanoseconds a request at the server and at the client.
#[allow(clippy::disallowed_methods)] // measuring is what this program is for
fn measure(run: &Run) -> (f64, f64) {
    let config = Http2Config::default();
    let (mut server, mut client) =
        (Connection::new(&config, NOW), Client::new(&config, "localhost:2379", NOW));
    let message = vec![7; run.message];
    let (mut up, mut down, mut done) = (Vec::new(), Vec::new(), Vec::new());
    let (mut server_ns, mut client_ns, mut number) = (0, 0, 0u64);
    let rounds = ROUNDS / run.streams.min(100);
    // Each must know the other's windows before the first request.
    client.take_output(&mut up);
    server.take_output(&mut down);
    while server.receive(NOW, &mut &up[..]).is_ok_and(|event| event.is_some()) {}
    while client.receive(NOW, &mut &down[..]).is_ok_and(|event| event.is_some()) {}
    for round in 0..rounds {
        let start = Instant::now();
        for _ in 0..run.streams {
            number += 1;
            let timeout = format!("{}u", 4_000_000 + number % 999_983);
            let fields: [(&[u8], &[u8]); 1] = [(b"grpc-timeout", timeout.as_bytes())];
            let fields = if run.deadlines { &fields[..] } else { &[] };
            client.call("/etcdserverpb.KV/Put", fields, &message).expect("the limit is far");
        }
        up.clear();
        client.take_output(&mut up);
        let sent = start.elapsed();

        let start = Instant::now();
        // As a socket gives it: at most so much at a time.
        for piece in up.chunks(64 << 10) {
            let mut rest = piece;
            while let Some(event) = server.receive(NOW, &mut rest).expect("the client makes no mistakes") {
                match event {
                    Http2Event::Headers { head, .. } => {
                        black_box(head.path());
                    }
                    Http2Event::Data { stream, bytes, end } => {
                        let len = bytes.len();
                        let whole =
                            grpc::Messages::default().read(&mut &bytes[..], 1 << 20).ok().flatten().is_some();
                        black_box(whole);
                        server.consumed(stream, len);
                        if end {
                            done.push(stream);
                        }
                    }
                    event => panic!("{event:?}"),
                }
            }
        }
        for stream in done.drain(..) {
            server.reply(stream, 28, |out| out.extend_from_slice(&[8; 28]));
        }
        down.clear();
        server.take_output(&mut down);
        if round > rounds / 10 {
            server_ns += start.elapsed().as_nanos();
        }

        let start = Instant::now();
        let mut rest = &down[..];
        while client.receive(NOW, &mut rest).expect("the server makes no mistakes").is_some() {}
        if round > rounds / 10 {
            client_ns += (start.elapsed() + sent).as_nanos();
        }
        assert_eq!(client.streams_len(), 0);
    }
    let requests = ((rounds - rounds / 10 - 1) * run.streams) as f64;
    (server_ns as f64 / requests, client_ns as f64 / requests)
}

fn main() {
    println!("streams  message  deadlines  server ns/request  client ns/request");
    for deadlines in [false, true] {
        for (streams, message) in [(1, 64), (16, 64), (64, 64), (64, 300), (1000, 300), (16, 16_000)] {
            let run = Run { streams, message, deadlines };
            let best = (0..5).map(|_| measure(&run)).reduce(|a, b| (a.0.min(b.0), a.1.min(b.1)));
            let (server, client) = best.expect("five runs are some");
            println!("{streams:7}  {message:7}  {deadlines:9}  {server:17.0}  {client:17.0}");
        }
    }
}
