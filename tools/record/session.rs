//! Runs the steps of a transcript against a server.
//!
//! ```text
//! KV.Put key:"a"                       a unary call
//! KV.Put [hasleader=true] key:"a"      with metadata; [show] writes out all headers and trailers
//! times 20 KV.Put key:"k{i}"           twenty calls or up to the first error; the last one's answer
//! merged KV.RangeStream key:"a"        a server stream: the merge of its chunks and whether they keep the rules
//! open w Watch.Watch                   a stream named w
//! send w create_request:{key:"a"}
//! recv w                               what has come since, until the stream is quiet
//! recv w 2                             exactly two messages, where more may come in time
//! recv w by-id                         the same, sorted by watch_id: order among watchers is not promised
//! events w                             only the events, whichever messages brought them
//! half w / cancel w                    end the client's side / reset the stream
//! raw /etcdserverpb.KV/Range hex=0a01  any bytes and headers: flag=1, bytes=unframed, method=GET, name=value
//! http GET /version                    HTTP/1.1
//! sleep 300                            milliseconds
//! kill others                          ends all members but the one that is asked
//! ```

use crate::client::{Call, Connection, Ending, Outgoing, Part, framed, http1};
use crate::message::{contents, encode, number, quoted, show};
use crate::names::Names;
use crate::schema::Schema;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::timeout;

/// A call that has not answered by then is recorded as `timeout`.
const CALL_MAX: Duration = Duration::from_secs(15);
/// A stream that is silent for so long has nothing more to say.
const QUIET: Duration = Duration::from_millis(500);
/// A message that was recorded is waited for up to this time.
const EXPECTED_MAX: Duration = Duration::from_secs(5);
/// What is beyond the recorded messages is taken if it is there already.
const SURPLUS: Duration = Duration::from_millis(20);

const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

struct Stream {
    call: Call,
    request: String,
    reply: String,
}

pub struct Session<'a> {
    schema: &'a Schema,
    names: Names,
    authority: String,
    connection: Connection,
    streams: BTreeMap<String, Stream>,
}

/// A call as a script names it: method, metadata, message.
struct Asked<'a> {
    method: &'a str,
    metadata: Vec<(&'a str, &'a str)>,
    show: bool,
    text: &'a str,
}

fn asked(text: &str) -> Result<Asked<'_>, String> {
    let (method, rest) = text.split_once(' ').unwrap_or((text, ""));
    let mut asked = Asked { method, metadata: Vec::new(), show: false, text: rest.trim_start() };
    if let Some(rest) = asked.text.strip_prefix('[') {
        let (options, rest) = rest.split_once(']').ok_or("metadata without its ]")?;
        asked.text = rest;
        for option in options.split_whitespace() {
            match option.split_once('=') {
                Some(pair) => asked.metadata.push(pair),
                None if option == "show" => asked.show = true,
                None => return Err(format!("unknown option {option}")),
            }
        }
    }
    Ok(asked)
}

impl<'a> Session<'a> {
    pub async fn open(schema: &'a Schema, authority: &str) -> Result<Session<'a>, String> {
        Ok(Session {
            schema,
            names: Names::default(),
            authority: authority.to_string(),
            connection: Connection::open(authority).await?,
            streams: BTreeMap::new(),
        })
    }

    /// The answer to a request. `recorded` is the answer it had before, if one is to be compared: it says how
    /// many messages of a stream to wait for, and nothing else.
    pub async fn run(&mut self, request: &str, recorded: Option<&[String]>) -> Result<Vec<String>, String> {
        let (word, rest) = request.split_once(' ').unwrap_or((request, ""));
        let rest = rest.trim();
        let mut words = rest.split_whitespace();
        let name = words.next().unwrap_or_default();
        match word {
            "times" => self.times(rest).await,
            "merged" => self.merged(rest).await,
            "open" => self.start(name, rest[name.len()..].trim()).await,
            "send" => self.send(name, &rest[name.len()..]).await,
            "recv" => {
                let option = words.next().unwrap_or_default();
                let exactly = option.parse().ok();
                let messages = self.receive(name, recorded, exactly, option == "by-id").await?;
                Ok(messages.into_iter().flatten().collect())
            }
            "events" => self.events(name, recorded).await,
            "half" => self.stream(name).map(|stream| stream.call.half_close()).map(|()| Vec::new()),
            "cancel" => self.stream(name).map(|stream| stream.call.cancel()).map(|()| Vec::new()),
            "raw" => self.raw(name, &rest[name.len()..]).await,
            "http" => {
                let path = words.next().unwrap_or_default();
                let body = rest[rest.find(path).unwrap_or_default() + path.len()..].trim();
                let lines = http1(&self.authority, name, path, body).await?;
                Ok(lines.iter().map(|line| self.names.replace_in(&plain(line))).collect())
            }
            "sleep" => {
                let milliseconds = name.parse().map_err(|_| "sleep wants milliseconds")?;
                tokio::time::sleep(Duration::from_millis(milliseconds)).await;
                Ok(Vec::new())
            }
            _ => self.unary(request, 0).await,
        }
    }

    fn stream(&mut self, name: &str) -> Result<&mut Stream, String> {
        self.streams.get_mut(name).ok_or_else(|| format!("no stream is named {name:?}"))
    }

    fn outgoing(&self, asked: &Asked) -> Result<(Outgoing, String, String), String> {
        let method = self.schema.method(asked.method);
        let method = method.ok_or_else(|| format!("the schema has no method {:?}", asked.method))?;
        let mut outgoing = Outgoing::grpc(&method.path);
        for (name, value) in &asked.metadata {
            outgoing.set(name, self.names.value(value).unwrap_or(value));
        }
        Ok((outgoing, method.request.clone(), method.reply.clone()))
    }

    async fn unary(&mut self, text: &str, index: usize) -> Result<Vec<String>, String> {
        let asked = asked(text)?;
        let (outgoing, request, reply) = self.outgoing(&asked)?;
        let message = encode(self.schema, &mut self.names, &request, asked.text, index)?;
        let mut call = self.connection.call(&outgoing).await?;
        let answer = async {
            call.send(framed(0, &message), true).await;
            let mut parts = Vec::new();
            while let Some(part) = call.next().await {
                parts.push(part);
            }
            parts
        };
        let Ok(parts) = timeout(CALL_MAX, answer).await else { return Ok(vec!["timeout".to_string()]) };
        let mut lines = Vec::new();
        for part in parts {
            match part {
                Part::Message(0, bytes) => lines.extend(show(self.schema, &mut self.names, &reply, &bytes)),
                Part::Message(flag, bytes) => lines.push(format!("flag {flag}: {}", quoted(&bytes))),
                Part::End(ending) => {
                    let end = self.ending(&ending, asked.show);
                    lines.extend(end.into_iter().filter(|line| line != "end OK"));
                }
            }
        }
        if lines.is_empty() {
            lines.push("empty".to_string());
        }
        Ok(lines)
    }

    async fn times(&mut self, rest: &str) -> Result<Vec<String>, String> {
        let (count, text) = rest.split_once(' ').ok_or("times wants a count and a request")?;
        let count = count.parse().map_err(|_| "times wants a count")?;
        let mut lines = Vec::new();
        for index in 1..=count {
            lines = self.unary(text, index).await?;
            if lines.iter().any(|line| line.starts_with("error ")) {
                break;
            }
        }
        Ok(lines)
    }

    /// A range stream. By the rules of protobuf, the chunks written one after another are their merge.
    async fn merged(&mut self, text: &str) -> Result<Vec<String>, String> {
        let asked = asked(text)?;
        let (outgoing, request, _) = self.outgoing(&asked)?;
        let message = encode(self.schema, &mut self.names, &request, asked.text, 0)?;
        let mut call = self.connection.call(&outgoing).await?;
        call.send(framed(0, &message), true).await;
        let (mut chunks, mut end) = (Vec::new(), Vec::new());
        loop {
            match timeout(CALL_MAX, call.next()).await {
                Err(_) => return Ok(vec!["timeout".to_string()]),
                Ok(Some(Part::Message(_, bytes))) => chunks.push(contents(&bytes, 1).concat()),
                Ok(Some(Part::End(ending))) => end = self.ending(&ending, asked.show),
                Ok(None) => break,
            }
        }
        let mut lines = show(self.schema, &mut self.names, "RangeResponse", &chunks.concat());
        let (last, before) = chunks.split_last().map_or((&[][..], &[][..]), |(last, rest)| (&last[..], rest));
        let summed = |chunk: &&Vec<u8>| {
            !contents(chunk, 1).is_empty() || number(chunk, 3) != 0 || number(chunk, 4) != 0
        };
        let kept = !before.iter().any(|chunk| summed(&chunk)) && !contents(last, 1).is_empty();
        if kept {
            lines.push("header, more and count in the last chunk only".to_string());
        } else if !chunks.is_empty() {
            lines.push("header, more or count in the wrong chunk".to_string());
        }
        lines.extend(end.into_iter().filter(|line| line != "end OK"));
        Ok(lines)
    }

    async fn start(&mut self, name: &str, text: &str) -> Result<Vec<String>, String> {
        let asked = asked(text)?;
        let (outgoing, request, reply) = self.outgoing(&asked)?;
        let call = self.connection.call(&outgoing).await?;
        self.streams.insert(name.to_string(), Stream { call, request, reply });
        Ok(Vec::new())
    }

    async fn send(&mut self, name: &str, text: &str) -> Result<Vec<String>, String> {
        let stream = self.streams.get_mut(name).ok_or_else(|| format!("no stream is named {name:?}"))?;
        let message = encode(self.schema, &mut self.names, &stream.request, text, 0)?;
        stream.call.send(framed(0, &message), false).await;
        Ok(Vec::new())
    }

    /// Parts of a stream until it is quiet, or until `wanted` of them are there and no more is waiting.
    async fn parts(&mut self, name: &str, wanted: Option<usize>) -> Result<Vec<Part>, String> {
        let call = &mut self.stream(name)?.call;
        let mut parts = Vec::new();
        loop {
            let patience = match wanted {
                Some(wanted) if parts.len() < wanted => EXPECTED_MAX,
                Some(1..) => SURPLUS,
                _ => QUIET,
            };
            match timeout(patience, call.next()).await {
                Ok(Some(part)) => parts.push(part),
                Ok(None) | Err(_) => return Ok(parts),
            }
        }
    }

    async fn receive(
        &mut self,
        name: &str,
        recorded: Option<&[String]>,
        exactly: Option<usize>,
        by_id: bool,
    ) -> Result<Vec<Vec<String>>, String> {
        let begins =
            |line: &&String| *line == "message" || line.starts_with("end ") || line.starts_with("error ");
        let wanted = exactly.or(recorded.map(|lines| lines.iter().filter(begins).count()));
        let mut parts = self.parts(name, wanted).await?;
        if by_id {
            parts.sort_by_key(|part| match part {
                Part::Message(_, bytes) => number(bytes, 2) as i64,
                Part::End(_) => i64::MAX,
            });
        }
        let reply = self.stream(name)?.reply.clone();
        let mut messages = Vec::new();
        for part in parts {
            messages.push(match part {
                Part::Message(_, bytes) => {
                    let fields = show(self.schema, &mut self.names, &reply, &bytes);
                    let indented = fields.into_iter().map(|line| format!("  {line}"));
                    std::iter::once("message".to_string()).chain(indented).collect()
                }
                Part::End(ending) => self.ending(&ending, false),
            });
        }
        if messages.is_empty() {
            messages.push(vec!["nothing".to_string()]);
        }
        Ok(messages)
    }

    /// Only the events of a watch, in whichever messages they come: those that were recorded are waited for.
    async fn events(&mut self, name: &str, recorded: Option<&[String]>) -> Result<Vec<String>, String> {
        let shown = ["events:", "end ", "error "];
        let mut lines: Vec<String> = Vec::new();
        loop {
            let waits = recorded.is_some_and(|recorded| lines.len() < recorded.len());
            let parts = self.parts(name, waits.then_some(1)).await?;
            if parts.is_empty() {
                return Ok(lines);
            }
            for part in parts {
                let fields = match part {
                    Part::Message(_, bytes) => show(self.schema, &mut self.names, "WatchResponse", &bytes),
                    Part::End(ending) => self.ending(&ending, false),
                };
                let events =
                    fields.into_iter().filter(|line| shown.iter().any(|start| line.starts_with(start)));
                lines.extend(events);
            }
        }
    }

    /// `raw PATH name=value...`; see the essay above.
    async fn raw(&mut self, path: &str, options: &str) -> Result<Vec<String>, String> {
        let mut outgoing = Outgoing::grpc(path);
        let (mut flag, mut body) = (0, None);
        for option in options.split_whitespace() {
            let (name, value) = option.split_once('=').ok_or("raw wants name=value")?;
            match name {
                "method" => outgoing.method = value.to_string(),
                "flag" => flag = value.parse().map_err(|_| "flag wants a number")?,
                "hex" => body = Some(framed(flag, &from_hex(value)?)),
                "bytes" => body = Some(Bytes::from(from_hex(value)?)),
                _ => outgoing.set(name, value),
            }
        }
        let mut call = self.connection.call(&outgoing).await?;
        match body {
            Some(body) => call.send(body, true).await,
            None => call.half_close(),
        }
        let mut lines = Vec::new();
        loop {
            match timeout(CALL_MAX, call.next()).await {
                Err(_) => return Ok(vec!["timeout".to_string()]),
                Ok(Some(Part::Message(flag, bytes))) => match self.schema.reply_at(path) {
                    Some(reply) if flag == 0 => {
                        lines.extend(show(self.schema, &mut self.names, reply, &bytes));
                    }
                    _ => lines.push(format!("message, flag {flag}")),
                },
                Ok(Some(Part::End(ending))) => lines.extend(self.ending(&ending, true)),
                Ok(None) => return Ok(lines),
            }
        }
    }

    /// How a call ended: gRPC's code and text, and whatever of HTTP is not as gRPC has it; with `full` all of it.
    fn ending(&self, ending: &Ending, full: bool) -> Vec<String> {
        let mut lines = Vec::new();
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let mut code = ending.trailers.get("grpc-status");
        let mut reason = ending.trailers.get("grpc-message");
        if let Some((status, headers)) = &ending.head {
            code = code.or_else(|| headers.get("grpc-status"));
            reason = reason.or_else(|| headers.get("grpc-message"));
            let kind = headers.get("content-type").map(text).unwrap_or_default();
            if full || *status != 200 || kind != "application/grpc" {
                lines.push(format!("status {status}"));
                lines.extend(header_lines("header", headers, full));
            }
        }
        if full {
            lines.extend(header_lines("trailer", &ending.trailers, true));
        }
        if !ending.rest.is_empty() {
            lines.push(format!("rest {}", quoted(&ending.rest)));
        }
        if let Some(broken) = &ending.broken {
            lines.push(format!("end {broken}"));
            return lines;
        }
        let Some(code) = code.map(text) else {
            lines.push("end without grpc-status".to_string());
            return lines;
        };
        let name =
            code.parse().ok().and_then(|code: usize| CODES.get(code)).unwrap_or(&code.as_str()).to_string();
        let reason = unpercent(&reason.map(text).unwrap_or_default());
        match (name.as_str(), reason.as_str()) {
            ("OK", "") => lines.push("end OK".to_string()),
            _ => lines.push(format!("error {name} {}", self.names.replace_in(&quoted(reason.as_bytes())))),
        }
        lines
    }
}

/// Headers by name, without the date; only the content type unless `full`.
fn header_lines(place: &str, headers: &http::HeaderMap, full: bool) -> Vec<String> {
    let mut lines: Vec<String> = headers
        .iter()
        .filter(|(name, _)| *name != "date" && (full || *name == "content-type"))
        .map(|(name, value)| format!("{place} {name}: {}", String::from_utf8_lossy(value.as_bytes())))
        .collect();
    lines.sort();
    lines
}

fn from_hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(&String::from_utf8_lossy(pair), 16).map_err(|error| error.to_string()))
        .collect()
}

/// gRPC sends a status text percent-encoded.
fn unpercent(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match digits.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(value) if byte == b'%' => {
                bytes.push(value);
                rest = &after[2..];
            }
            _ => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    plain(&String::from_utf8_lossy(&bytes))
}

/// Go's protobuf library puts a no-break space into its texts in some builds, so that nobody compares them.
fn plain(text: &str) -> String {
    text.replace('\u{a0}', " ")
}
