//! HTTP/1 on the client port: probes, scrapers and `curl`.
//!
//! Only what those need: a request line, headers, and a body that is read and dropped. Requests may be
//! pipelined; each is complete or not there. Malformed ones get the answers of Go's server, and the
//! connection closes.

#[cfg(test)]
mod tests;

use crate::limits::{HTTP1_BODY_BYTES_MAX, HTTP1_HEAD_BYTES_MAX, HTTP1_HEADERS_MAX};
use crate::stdx::civil;
use crate::types::ClusterId;

/// What etcd says to browsers, sorted as Go's server sorts headers.
const CROSS_ORIGIN: [(&str, &str); 3] = [
    ("Access-Control-Allow-Headers", "accept, content-type, authorization"),
    ("Access-Control-Allow-Methods", "POST, GET, OPTIONS, PUT, DELETE"),
    ("Access-Control-Allow-Origin", "*"),
];
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Which protocol a connection begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sniffed {
    Http2,
    Http1,
    /// All bytes so far are the beginning of HTTP/2's preface.
    NeedMore,
}

/// Judges the first bytes of a connection; HTTP/2's preface stays with its reader.
pub fn sniff(bytes: &[u8]) -> Sniffed {
    let compared = bytes.len().min(PREFACE.len());
    if bytes[..compared] != PREFACE[..compared] {
        Sniffed::Http1
    } else if compared == PREFACE.len() {
        Sniffed::Http2
    } else {
        Sniffed::NeedMore
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpMethod {
    Get,
    Head,
    Post,
    Other(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http1Request {
    pub method: HttpMethod,
    /// Percent-decoded, without the query.
    pub path: String,
    /// The parameters in the order given, decoded; pairs Go would not accept are left out.
    pub query: Vec<(String, String)>,
    /// Whether the client may send another request on this connection.
    pub keep_alive: bool,
}

impl Http1Request {
    /// The first value of a query parameter.
    pub fn first(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// All values of a query parameter.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.query.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Reads the request at the front of `bytes` and how many bytes it takes, its body among them.
///
/// None: more bytes are needed; they are never more than `HTTP1_HEAD_BYTES_MAX + HTTP1_BODY_BYTES_MAX`. An
/// error is the answer to send before closing the connection.
pub fn parse(bytes: &[u8]) -> Result<Option<(Http1Request, usize)>, Http1Response> {
    let mut headers = [httparse::EMPTY_HEADER; HTTP1_HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    let head = match parsed.parse(&bytes[..bytes.len().min(HTTP1_HEAD_BYTES_MAX)]) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) if bytes.len() < HTTP1_HEAD_BYTES_MAX => return Ok(None),
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Err(refusal(431, "431 Request Header Fields Too Large"));
        }
        Err(_) => return Err(refusal(400, "400 Bad Request")),
    };
    let one_dot_one = parsed.version == Some(1);
    let framing = framing(parsed.headers, one_dot_one)?;
    let total = head + framing.body_bytes;
    if bytes.len() < total {
        return Ok(None);
    }
    let target = parsed.path.unwrap_or_default();
    let (path, query) = target_parts(target).ok_or_else(|| refusal(400, "400 Bad Request"))?;
    let method = match parsed.method.unwrap_or_default() {
        "GET" => HttpMethod::Get,
        "HEAD" => HttpMethod::Head,
        "POST" => HttpMethod::Post,
        other => HttpMethod::Other(other.to_owned()),
    };
    Ok(Some((Http1Request { method, path, query, keep_alive: framing.keep_alive }, total)))
}

struct Framing {
    body_bytes: usize,
    keep_alive: bool,
}

fn framing(headers: &[httparse::Header], one_dot_one: bool) -> Result<Framing, Http1Response> {
    let (mut hosts, mut length, mut keep_alive) = (0, None, one_dot_one);
    for header in headers {
        let is = |name| header.name.eq_ignore_ascii_case(name);
        if is("host") {
            hosts += 1;
        } else if is("transfer-encoding") {
            return Err(refusal(501, "501 Not Implemented: Unsupported transfer encoding"));
        } else if is("content-length") {
            let digits = header.value.trim_ascii();
            let read =
                if digits.iter().all(u8::is_ascii_digit) { std::str::from_utf8(digits).ok() } else { None };
            let read: Option<u64> = read.and_then(|digits| digits.parse().ok());
            if read.is_none() || length.is_some_and(|other| Some(other) != read) {
                return Err(refusal(400, "400 Bad Request"));
            }
            length = read;
        } else if is("connection") {
            for word in header.value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                if word.eq_ignore_ascii_case(b"close") {
                    keep_alive = false;
                } else if word.eq_ignore_ascii_case(b"keep-alive") && !one_dot_one {
                    keep_alive = true;
                }
            }
        }
    }
    if hosts == 0 && one_dot_one {
        return Err(refusal(400, "400 Bad Request: missing required Host header"));
    }
    if hosts > 1 {
        return Err(refusal(400, "400 Bad Request: too many Host headers"));
    }
    let length = length.unwrap_or(0);
    if length > HTTP1_BODY_BYTES_MAX as u64 {
        return Err(refusal(413, "413 Request Entity Too Large"));
    }
    Ok(Framing { body_bytes: length as usize, keep_alive })
}

/// Path and query of `/path?query` or `http://host/path?query`.
fn target_parts(target: &str) -> Option<(String, Vec<(String, String)>)> {
    let local = match target.strip_prefix("http://").or_else(|| target.strip_prefix("https://")) {
        Some(rest) => rest.find(['/', '?']).map_or("/", |at| &rest[at..]),
        None if target.starts_with('/') || target == "*" => target,
        None => return None,
    };
    let (path, query) = local.split_once('?').unwrap_or((local, ""));
    let pairs = query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')).filter_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((decoded(key, true)?, decoded(value, true)?))
    });
    Some((decoded(path, false)?, pairs.collect()))
}

/// Undoes percent-encoding, and in queries `+` for a space. None where a `%` is not followed by two digits.
fn decoded(text: &str, in_query: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                (high << 4 | low) as u8
            }
            b'+' if in_query => b' ',
            byte => byte,
        });
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentType {
    Text,
    Json,
    /// Prometheus' text format.
    Metrics,
}

impl ContentType {
    fn value(self) -> &'static str {
        match self {
            ContentType::Text => "text/plain; charset=utf-8",
            ContentType::Json => "application/json",
            ContentType::Metrics => "text/plain; version=0.0.4; charset=utf-8; escaping=underscores",
        }
    }
}

/// Whom a port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Clients, among them browsers: etcd lets pages of every origin see every answer (CORS).
    Everyone,
    /// Probes and scrapers.
    Scrapers,
    /// Members and those who run them.
    Members,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http1Response {
    pub status: u16,
    /// The type of the body; `None` where there is none.
    pub content_type: Option<ContentType>,
    /// `X-Content-Type-Options: nosniff`, which Go's server puts on errors.
    pub nosniff: bool,
    /// The header `Allow` of a 405.
    pub allow: Option<&'static str>,
    /// The header `X-Etcd-Cluster-Id`.
    pub cluster: Option<ClusterId>,
    pub body: Vec<u8>,
}

impl Http1Response {
    pub fn ok(content_type: ContentType, body: Vec<u8>) -> Http1Response {
        Http1Response { content_type: Some(content_type), body, ..Http1Response::empty() }
    }

    pub fn empty() -> Http1Response {
        Http1Response {
            status: 200,
            content_type: None,
            nosniff: false,
            allow: None,
            cluster: None,
            body: vec![],
        }
    }

    /// A response as `http.Error` of Go words it: the text and a line feed.
    pub fn error(status: u16, text: &str) -> Http1Response {
        let body = format!("{text}\n").into_bytes();
        Http1Response { status, nosniff: true, ..Http1Response::ok(ContentType::Text, body) }
    }

    pub fn not_found() -> Http1Response {
        Http1Response::error(404, "404 page not found")
    }

    pub fn only_get() -> Http1Response {
        Http1Response { allow: Some("GET"), ..Http1Response::error(405, "Method Not Allowed") }
    }

    /// Appends the answer to a request; `keep_alive` as the request had it, false where the server wants to
    /// close. `wall_secs`: the time, in seconds since 1970, where it is known.
    pub fn write(
        &self,
        out: &mut Vec<u8>,
        method: &HttpMethod,
        keep_alive: bool,
        audience: Audience,
        wall_secs: Option<u64>,
    ) {
        self.write_head(out, keep_alive, audience, wall_secs);
        if *method != HttpMethod::Head {
            out.extend_from_slice(&self.body);
        }
    }

    /// Appends the answer to something that was no request; the connection closes after it. It says nothing
    /// of origins, as Go's server gives it before etcd sees anything.
    pub fn write_refusal(&self, out: &mut Vec<u8>) {
        self.write_head(out, false, Audience::Scrapers, None);
        out.extend_from_slice(&self.body);
    }

    fn write_head(&self, out: &mut Vec<u8>, keep_alive: bool, audience: Audience, wall_secs: Option<u64>) {
        let mut line = |parts: [&str; 3]| {
            parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
            out.extend_from_slice(b"\r\n");
        };
        line(["HTTP/1.1 ", &self.status.to_string(), &format!(" {}", reason(self.status))]);
        if audience == Audience::Everyone {
            for (name, value) in CROSS_ORIGIN {
                line([name, ": ", value]);
            }
        }
        if let Some(allow) = self.allow {
            line(["Allow", ": ", allow]);
        }
        if let Some(content_type) = self.content_type {
            line(["Content-Type", ": ", content_type.value()]);
        }
        if self.nosniff {
            line(["X-Content-Type-Options", ": ", "nosniff"]);
        }
        if let Some(cluster) = self.cluster {
            line(["X-Etcd-Cluster-Id", ": ", &format!("{:x}", cluster.0)]);
        }
        if let Some(secs) = wall_secs {
            line(["Date", ": ", &date(secs)]);
        }
        line(["Content-Length", ": ", &self.body.len().to_string()]);
        if !keep_alive {
            line(["Connection", ": ", "close"]);
        }
        line(["", "", ""]);
    }
}

/// Formats a date as RFC 9110 section 5.6.7 has it: `Sun, 06 Nov 1994 08:49:37 GMT`.
fn date(secs: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let days = secs / 86_400;
    let (year, month, day) = civil(days);
    let (name, month) = (DAYS[(days % 7) as usize], MONTHS[month as usize - 1]);
    let (hour, minute, second) = (secs / 3_600 % 24, secs / 60 % 60, secs % 60);
    format!("{name}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

fn refusal(status: u16, text: &str) -> Http1Response {
    let body = text.as_bytes().to_vec();
    Http1Response { status, ..Http1Response::ok(ContentType::Text, body) }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Request Entity Too Large",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        other => panic!("the server gives no answer with status {other}"),
    }
}
