//! The conformance suite h2spec against the server's end of HTTP/2 on a loopback socket.
//!
//! It needs the program, which `tools/fetch-etcd` builds too:
//! `H2SPEC=/path/to/h2spec cargo test --test h2spec -- --ignored`.

use braid::http2::{Connection, Http2Config, Http2Event};
use braid::types::Time;
use std::process::Stdio;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const NOW: Time = Time::from_ms(1);

/// Answers every request with a page, as h2spec expects of a web server.
async fn serve(mut socket: TcpStream) {
    let mut server = Connection::new(&Http2Config::default(), NOW);
    let (mut input, mut output) = (vec![0; 16 << 10], vec![]);
    loop {
        server.take_output(&mut output);
        if socket.write_all(&output).await.is_err() {
            return;
        }
        output.clear();
        let Ok(n @ 1..) = socket.read(&mut input).await else { return };
        let mut rest = &input[..n];
        loop {
            let (stream, len, end) = match server.receive(NOW, &mut rest) {
                Ok(None) => break,
                Err(_) => {
                    server.take_output(&mut output);
                    // The other end may be gone already; then there is nobody to tell.
                    let _ = socket.write_all(&output).await;
                    let _ = socket.shutdown().await;
                    return;
                }
                Ok(Some(Http2Event::Headers { stream, end, .. })) => (stream, 0, end),
                Ok(Some(Http2Event::Data { stream, bytes, end })) => (stream, bytes.len(), end),
                Ok(Some(Http2Event::Trailers { stream, .. })) => (stream, 0, true),
                Ok(Some(_)) => continue,
            };
            server.consumed(stream, len);
            if end {
                let fields: [(&[u8], &[u8]); 1] = [(b"content-type", b"text/plain")];
                server.send_head(stream, 200, &fields, false);
                server.send_data(stream, b"hello", true);
            }
        }
    }
}

#[test]
#[ignore = "needs the program h2spec: H2SPEC=PATH cargo test --test h2spec -- --ignored"]
#[allow(clippy::disallowed_methods)] // the environment says where the suite is
fn h2spec_finds_nothing() {
    let program = std::env::var("H2SPEC").expect("the variable H2SPEC names the program h2spec");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port of loopback");
        let port = listener.local_addr().expect("it is bound").port().to_string();
        let mut suite = std::process::Command::new(program)
            .args(["-h", "127.0.0.1", "-p", &port, "--strict", "-o", "2"])
            .stdin(Stdio::null())
            .spawn()
            .expect("H2SPEC names a program");
        let status = loop {
            let more = tokio::time::timeout(std::time::Duration::from_millis(100), listener.accept()).await;
            if let Ok(Ok((socket, _))) = more {
                tokio::spawn(serve(socket));
            }
            if let Some(status) = suite.try_wait().expect("the suite is our child") {
                break status;
            }
        };
        assert!(status.success(), "h2spec failed: its report is above");
    });
}
