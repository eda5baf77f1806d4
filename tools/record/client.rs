//! Calls over HTTP/2 as gRPC sees them, without a gRPC library: nothing between a script and the wire
//! corrects, retries or refuses.

use bytes::{Buf, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Room for the largest answer of any script, so that flow control never stalls a server.
const WINDOW_BYTES: u32 = 1 << 30;
/// Headers of an HTTP/1.1 answer that are compared.
const HEADERS_SHOWN: [&str; 4] =
    ["content-type", "allow", "access-control-allow-methods", "access-control-allow-origin"];
/// A gRPC message is preceded by a flag and its length.
const PREFIX_LEN: usize = 5;

pub struct Connection {
    sender: SendRequest<Bytes>,
    authority: String,
}

/// One request as it goes out.
pub struct Outgoing {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
}

impl Outgoing {
    /// The headers every gRPC call has.
    pub fn grpc(path: &str) -> Outgoing {
        let headers = [("content-type", "application/grpc"), ("te", "trailers")];
        Outgoing {
            method: "POST".to_string(),
            path: path.to_string(),
            headers: headers.map(|(name, value)| (name.to_string(), value.to_string())).to_vec(),
        }
    }

    /// Sets a header, or removes it when `value` is empty.
    pub fn set(&mut self, name: &str, value: &str) {
        self.headers.retain(|(known, _)| known != name);
        if !value.is_empty() {
            self.headers.push((name.to_string(), value.to_string()));
        }
    }
}

/// What a call yields, piece by piece.
pub enum Part {
    /// A message and its compression flag.
    Message(u8, Bytes),
    End(Box<Ending>),
}

/// How a call ended.
#[derive(Default, Debug)]
pub struct Ending {
    pub head: Option<(u16, HeaderMap)>,
    pub trailers: HeaderMap,
    /// Bytes that are no whole gRPC message: the body of an answer that is not gRPC.
    pub rest: Bytes,
    /// The stream was reset or the connection lost.
    pub broken: Option<String>,
}

pub struct Call {
    send: SendStream<Bytes>,
    waiting: Option<ResponseFuture>,
    body: Option<RecvStream>,
    head: Option<(u16, HeaderMap)>,
    received: BytesMut,
    ended: bool,
}

impl Connection {
    pub async fn open(authority: &str) -> Result<Connection, String> {
        let socket = TcpStream::connect(authority).await.map_err(|error| error.to_string())?;
        socket.set_nodelay(true).map_err(|error| error.to_string())?;
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake(socket)
            .await
            .map_err(|error| error.to_string())?;
        tokio::task::spawn_local(connection);
        Ok(Connection { sender, authority: authority.to_string() })
    }

    pub async fn call(&self, outgoing: &Outgoing) -> Result<Call, String> {
        let mut sender = self.sender.clone().ready().await.map_err(|error| error.to_string())?;
        let mut request = Request::builder()
            .method(outgoing.method.as_str())
            .uri(format!("http://{}{}", self.authority, outgoing.path));
        for (name, value) in &outgoing.headers {
            request = request.header(name, value);
        }
        let request = request.body(()).map_err(|error| error.to_string())?;
        let (response, send) = sender.send_request(request, false).map_err(|error| error.to_string())?;
        Ok(Call {
            send,
            waiting: Some(response),
            body: None,
            head: None,
            received: BytesMut::new(),
            ended: false,
        })
    }
}

/// A message with its gRPC prefix.
pub fn framed(flag: u8, message: &[u8]) -> Bytes {
    let mut frame = Vec::with_capacity(PREFIX_LEN + message.len());
    frame.push(flag);
    frame
        .extend_from_slice(&u32::try_from(message.len()).expect("a script's message is small").to_be_bytes());
    frame.extend_from_slice(message);
    Bytes::from(frame)
}

impl Call {
    /// Sends bytes, as much as the peer takes; a peer that has already answered takes no more.
    pub async fn send(&mut self, mut bytes: Bytes, last: bool) {
        while !bytes.is_empty() {
            self.send.reserve_capacity(bytes.len());
            let granted = std::future::poll_fn(|context| self.send.poll_capacity(context)).await;
            let Some(Ok(granted)) = granted else { return };
            let part = bytes.split_to(granted.min(bytes.len()));
            if self.send.send_data(part, last && bytes.is_empty()).is_err() {
                return;
            }
        }
    }

    /// Ends the client's side.
    pub fn half_close(&mut self) {
        // A stream the server has already ended needs no further word from this side.
        let _ = self.send.send_data(Bytes::new(), true);
    }

    pub fn cancel(&mut self) {
        self.send.send_reset(h2::Reason::CANCEL);
    }

    /// The next part of the answer; may be dropped and asked again. Nothing after the end.
    pub async fn next(&mut self) -> Option<Part> {
        if self.ended {
            return None;
        }
        if let Some(response) = &mut self.waiting {
            let response = response.await;
            self.waiting = None;
            match response {
                Ok(response) => {
                    let (head, body) = response.into_parts();
                    self.head = Some((head.status.as_u16(), head.headers));
                    self.body = Some(body);
                }
                Err(error) => return Some(self.end(HeaderMap::new(), Some(error))),
            }
        }
        loop {
            if let Some((flag, message)) = self.take_message() {
                return Some(Part::Message(flag, message));
            }
            let body = self.body.as_mut().expect("an answer with a head has a body");
            match body.data().await {
                Some(Ok(data)) => {
                    // The window is only bookkeeping here; a refusal shows up as the stream's own error.
                    let _ = body.flow_control().release_capacity(data.len());
                    self.received.extend_from_slice(&data);
                }
                Some(Err(error)) => return Some(self.end(HeaderMap::new(), Some(error))),
                None => {
                    let trailers = body.trailers().await;
                    return Some(match trailers {
                        Ok(trailers) => self.end(trailers.unwrap_or_default(), None),
                        Err(error) => self.end(HeaderMap::new(), Some(error)),
                    });
                }
            }
        }
    }

    fn take_message(&mut self) -> Option<(u8, Bytes)> {
        let is_grpc = self.head.as_ref().is_some_and(|(_, headers)| {
            headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
        });
        if !is_grpc || self.received.len() < PREFIX_LEN {
            return None;
        }
        let length = (&self.received[1..PREFIX_LEN]).get_u32() as usize;
        if self.received.len() < PREFIX_LEN + length {
            return None;
        }
        let flag = self.received[0];
        self.received.advance(PREFIX_LEN);
        Some((flag, self.received.split_to(length).freeze()))
    }

    fn end(&mut self, trailers: HeaderMap, broken: Option<h2::Error>) -> Part {
        self.ended = true;
        Part::End(Box::new(Ending {
            head: self.head.take(),
            trailers,
            rest: std::mem::take(&mut self.received).freeze(),
            broken: broken.map(|error| match error.reason() {
                Some(reason) if error.is_reset() => format!("reset {reason:?}"),
                Some(reason) if error.is_go_away() => format!("goaway {reason:?}"),
                _ => error.to_string(),
            }),
        }))
    }
}

/// Status, content type and body of an HTTP/1.1 request on a connection of its own.
pub async fn http1(authority: &str, method: &str, path: &str, body: &str) -> Result<Vec<String>, String> {
    let mut socket = TcpStream::connect(authority).await.map_err(|error| error.to_string())?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    socket.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
    let mut received = Vec::new();
    socket.read_to_end(&mut received).await.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&received).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").ok_or("an answer without an end of its head")?;
    let mut head = head.lines();
    let status = head.next().unwrap_or_default().split(' ').nth(1).unwrap_or_default().to_string();
    let headers: Vec<(String, &str)> = head
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim()))
        .collect();
    let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && *value == "chunked");
    let body = if chunked { unchunked(body) } else { body.to_string() };
    let mut lines: Vec<String> = headers
        .iter()
        .filter(|(name, _)| HEADERS_SHOWN.contains(&name.as_str()))
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    lines.sort();
    lines.insert(0, format!("status {status}"));
    let mut content: Vec<String> =
        body.lines().map(|line| format!("| {line}").trim_end().to_string()).collect();
    // etcd lists the checks of /readyz in a different order each time.
    if content.iter().any(|line| line.starts_with("| [")) {
        content.sort();
    }
    lines.extend(content);
    Ok(lines)
}

/// A body without its chunk sizes.
fn unchunked(body: &str) -> String {
    let (mut content, mut rest) = (String::new(), body);
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap_or(0);
        let Some(chunk) = after.get(..size) else { break };
        content.push_str(chunk);
        rest = after[size..].trim_start_matches("\r\n");
    }
    content
}
