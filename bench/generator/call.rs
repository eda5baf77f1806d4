//! One request outside the load, over a connection of its own.

use braid::http2::client::Client;
use braid::http2::grpc::{self, Messages};
use braid::http2::{FieldName, Http2Config, Http2Event};
use braid::types::Time;
use prost::Message;
use std::io::{Error, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const BUFFER_BYTES: usize = 16 << 10;
const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// The answer to one message. Errors are those of the connection, a refusal, and silence for `patience`.
pub fn call<A: Message + Default>(
    to: SocketAddr,
    path: &str,
    request: &impl Message,
    patience: Duration,
) -> Result<A> {
    exchange(to, path, request, patience)
        .map_err(|error| Error::new(error.kind(), format!("{to}: {path}: {error}")))
}

fn exchange<A: Message + Default>(
    to: SocketAddr,
    path: &str,
    request: &impl Message,
    patience: Duration,
) -> Result<A> {
    let mut socket = TcpStream::connect_timeout(&to, patience)?;
    socket.set_read_timeout(Some(patience))?;
    let mut client = Client::new(&Http2Config::default(), &to.to_string(), Time(0));
    client.call(path, &[], &request.encode_to_vec()).expect("a new connection has room for a stream");
    let (mut output, mut buffer) = (Vec::new(), vec![0; BUFFER_BYTES]);
    let (mut messages, mut answer) = (Messages::default(), None);
    loop {
        client.take_output(&mut output);
        socket.write_all(&output)?;
        output.clear();
        let count = socket.read(&mut buffer)?;
        if count == 0 {
            return Err(Error::other("the server closed the connection"));
        }
        let mut bytes = &buffer[..count];
        while let Some(event) =
            client.receive(Time(0), &mut bytes).map_err(|fault| Error::other(fault.why))?
        {
            match event {
                Http2Event::Data { mut bytes, .. } => {
                    let message = messages.read(&mut bytes, MESSAGE_BYTES_MAX);
                    if let Some(message) = message.map_err(|_| Error::other("an answer that is too long"))? {
                        answer = Some(A::decode(message.bytes).map_err(Error::other)?);
                    }
                }
                Http2Event::Headers { head, end: true, .. } | Http2Event::Trailers { head, .. } => {
                    let why = match head.grpc_status() {
                        Some(0) => "status 0 without a message".to_owned(),
                        None => "an answer without grpc-status".to_owned(),
                        Some(code) => {
                            let text = head.get(FieldName::GrpcMessage).unwrap_or_default();
                            format!("status {code}: {}", grpc::percent_decoded(text))
                        }
                    };
                    let answer = answer.filter(|_| head.grpc_status() == Some(0));
                    return answer.ok_or_else(|| Error::other(why));
                }
                Http2Event::Reset { code, .. } => {
                    return Err(Error::other(format!("reset with code {code}")));
                }
                Http2Event::GoAway { code, .. } => {
                    return Err(Error::other(format!("GOAWAY with code {code}")));
                }
                Http2Event::Headers { .. } | Http2Event::Writable { .. } => (),
            }
        }
    }
}
