//! The headers a call begins with: what grpc-go's server requires of them, and what etcd reads in them.
//!
//! grpc-go answers a call it will not take with one block of headers that ends the stream: an HTTP status,
//! the content type, `grpc-status` and `grpc-message`; then, unless the client has ended its side, it resets
//! the stream with NO_ERROR. The order of the checks is part of the behaviour. `te` it does not look at.

use super::method::Method;
use super::quote::quoted;
use crate::api::{Code, Error};
use crate::types::Duration;

/// The headers of a call that will be taken.
#[derive(Clone, Debug, PartialEq)]
pub struct CallHeaders<'a> {
    pub method: Method,
    /// How long the client waits; none: for ever.
    pub timeout: Option<Duration>,
    pub encoding: ReplyEncoding,
    /// `hasleader: true`: refuse the call while the member knows no leader.
    pub require_leader: bool,
    /// The version that clientv3 says it is of, for metrics.
    pub client_api_version: Option<&'a str>,
    /// The token, from `token` or from `authorization` without its `Bearer `.
    pub token: Option<&'a [u8]>,
}

/// Why a call is not taken.
#[derive(Clone, Debug, PartialEq)]
pub enum CallRefusal {
    /// Answer with headers that end the stream.
    Answer { http_status: u16, encoding: ReplyEncoding, error: Error },
    /// Reset the stream with PROTOCOL_ERROR.
    Reset,
}

/// How the replies of a call are encoded, where that is not the usual way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplyEncoding {
    /// What followed `application/grpc` and a separator in the call's content type; the answer's repeats it.
    pub subtype: Vec<u8>,
    /// Messages may be compressed; those of the answer are.
    pub gzip: bool,
}

impl ReplyEncoding {
    pub fn is_usual(&self) -> bool {
        self.subtype.is_empty() && !self.gzip
    }

    /// The `content-type` of the answer.
    pub fn content_type(&self) -> Vec<u8> {
        let mut value = CONTENT_TYPE.to_vec();
        if !self.subtype.is_empty() {
            value.push(b'+');
            value.extend_from_slice(&self.subtype);
        }
        value
    }
}

const CONTENT_TYPE: &[u8] = b"application/grpc";

/// What follows gRPC's content type. Any subtype passes: grpc-go reads those it does not know as proto.
fn subtype(content_type: &[u8]) -> Option<&[u8]> {
    match content_type.strip_prefix(CONTENT_TYPE)? {
        [] => Some(&[]),
        [b'+' | b';', subtype @ ..] => Some(subtype),
        _ => None,
    }
}

/// Everything read in one pass, before it is judged.
#[derive(Default)]
struct Read<'a> {
    path: &'a [u8],
    http_method: &'a [u8],
    authorities: usize,
    hosts: usize,
    connection: bool,
    subtype: Option<&'a [u8]>,
    refused_content_type: &'a [u8],
    timeout: Option<Duration>,
    malformed: Option<String>,
    encoding: &'a [u8],
    has_leader: Option<&'a [u8]>,
    client_api_version: Option<&'a [u8]>,
    token: Option<&'a [u8]>,
    authorization: Option<&'a [u8]>,
}

/// Reads and judges the headers of a call, pseudo-headers among them, names in lower case.
pub fn head<'a>(
    fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
) -> Result<CallHeaders<'a>, CallRefusal> {
    let mut read = Read::default();
    for (name, value) in fields {
        take(&mut read, name, value);
    }
    judge(read)
}

fn take<'a>(read: &mut Read<'a>, name: &[u8], value: &'a [u8]) {
    match name {
        b":path" => read.path = value,
        b":method" => read.http_method = value,
        b":authority" => read.authorities += 1,
        b"host" => read.hosts += 1,
        b"connection" => read.connection = true,
        b"content-type" => match subtype(value) {
            Some(subtype) => read.subtype = Some(subtype),
            None => read.refused_content_type = value,
        },
        b"grpc-encoding" => read.encoding = value,
        b"grpc-timeout" => match timeout(value) {
            Ok(timeout) => read.timeout = Some(timeout),
            Err(text) => read.malformed = Some(format!("malformed grpc-timeout: {text}")),
        },
        b"hasleader" => drop(read.has_leader.get_or_insert(value)),
        b"client-api-version" => drop(read.client_api_version.get_or_insert(value)),
        b"token" => drop(read.token.get_or_insert(value)),
        b"authorization" => drop(read.authorization.get_or_insert(value)),
        name if name.ends_with(b"-bin") => {
            if let Some(at) = base64_fault(value) {
                let (value, name) = (quoted(value), quoted(name));
                let fault = format!("illegal base64 data at input byte {at}");
                read.malformed = Some(format!("malformed binary metadata {value} in header {name}: {fault}"));
            }
        }
        _ => {}
    }
}

fn judge(read: Read<'_>) -> Result<CallHeaders<'_>, CallRefusal> {
    let subtype = read.subtype.unwrap_or_default().to_vec();
    let encoding = ReplyEncoding { subtype, gzip: read.encoding == b"gzip" };
    let refuse =
        |http_status, error| Err(CallRefusal::Answer { http_status, encoding: encoding.clone(), error });
    let abort = |http_status, code, text| refuse(http_status, Error::Other { code, text });
    if read.authorities > 1 || read.hosts > 1 {
        let text = format!(
            "num values of :authority: {}, num values of host: {}, both must only have 1 value as per HTTP/2 spec",
            read.authorities, read.hosts
        );
        return abort(400, Code::Internal, text);
    }
    if read.connection {
        return Err(CallRefusal::Reset);
    }
    if read.subtype.is_none() {
        let text = format!("invalid gRPC request content-type {}", quoted(read.refused_content_type));
        return abort(415, Code::InvalidArgument, text);
    }
    if let Some(text) = read.malformed {
        return abort(400, Code::Internal, text);
    }
    if read.http_method != b"POST" {
        let method = quoted(read.http_method);
        let text = format!("Received a HEADERS frame with :method {method} which should be POST");
        return abort(405, Code::Internal, text);
    }
    // Time enough for nothing: in Go such a context ends before etcd sees the call.
    if read.timeout.is_some_and(|timeout| timeout < Duration::from_us(1)) {
        return abort(200, Code::DeadlineExceeded, "context deadline exceeded".to_owned());
    }
    let method = match Method::of_path(read.path) {
        Ok(method) => method,
        Err(error) => return refuse(200, error),
    };
    if !matches!(read.encoding, b"" | b"identity" | b"gzip") {
        let encoding = quoted(read.encoding);
        let text = format!("grpc: Decompressor is not installed for grpc-encoding {encoding}");
        return abort(200, Code::Unimplemented, text);
    }
    let client_api_version = match read.client_api_version.map(std::str::from_utf8).transpose() {
        Ok(version) => version,
        Err(_) => return refuse(200, Error::InvalidClientApiVersion),
    };
    Ok(CallHeaders {
        method,
        timeout: read.timeout,
        encoding,
        require_leader: read.has_leader == Some(b"true"),
        client_api_version,
        token: read.token.or(read.authorization.map(without_bearer)),
    })
}

fn without_bearer(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"Bearer ").unwrap_or(value)
}

/// Where Go's decoder finds the first fault in a binary header. One whose length is a multiple of four has
/// padding, another has none.
fn base64_fault(value: &[u8]) -> Option<usize> {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let digits = value.iter().take_while(|byte| is_digit(byte)).count();
    let rest = &value[digits..];
    if !value.len().is_multiple_of(4) {
        let lone = value.len() - 1;
        return if rest.is_empty() { (value.len() % 4 == 1).then_some(lone) } else { Some(digits) };
    }
    match (digits % 4, rest) {
        (_, []) | (3, b"=") | (2, b"==") => None,
        (3, [b'=', ..]) | (2, [b'=', b'=', ..]) => Some(digits.next_multiple_of(4)),
        _ => Some(digits),
    }
}

/// Reads a timeout: up to eight digits and a unit. The error is grpc-go's text.
fn timeout(value: &[u8]) -> Result<Duration, String> {
    const LONGEST: u64 = i64::MAX as u64;
    let shown = || quoted(value);
    let Some((&unit, digits)) = value.split_last().filter(|(_, digits)| !digits.is_empty()) else {
        return Err(format!("transport: timeout string is too short: {}", shown()));
    };
    if value.len() > 9 {
        return Err(format!("transport: timeout string is too long: {}", shown()));
    }
    let unit_ns: u64 = match unit {
        b'H' => 3_600_000_000_000,
        b'M' => 60_000_000_000,
        b'S' => 1_000_000_000,
        b'm' => 1_000_000,
        b'u' => 1_000,
        b'n' => 1,
        _ => return Err(format!("transport: timeout unit is not recognized: {}", shown())),
    };
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(format!("strconv.ParseUint: parsing {}: invalid syntax", quoted(digits)));
    }
    let count = digits.iter().fold(0u64, |count, digit| count * 10 + u64::from(digit - b'0'));
    Ok(Duration(count.saturating_mul(unit_ns).min(LONGEST)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stdx::Rng;

    type Field = (&'static str, &'static str);

    const GOOD: &[Field] = &[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/etcdserverpb.KV/Put"),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];

    fn judge(fields: &[Field]) -> Result<CallHeaders<'static>, CallRefusal> {
        head(fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
    }

    /// The good headers with one replaced or added.
    fn with(name: &'static str, value: &'static str) -> Result<CallHeaders<'static>, CallRefusal> {
        let others = GOOD.iter().copied().filter(|(other, _)| *other != name);
        judge(&others.chain([(name, value)]).collect::<Vec<_>>())
    }

    fn refused(result: Result<CallHeaders, CallRefusal>) -> (u16, Code, String) {
        match result {
            Err(CallRefusal::Answer { http_status, error, .. }) => {
                (http_status, error.code(), error.to_string())
            }
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn etcds_metadata_is_found() {
        let good = judge(GOOD).unwrap();
        assert_eq!((good.method, good.timeout, good.require_leader), (Method::Put, None, false));
        assert_eq!((good.token, good.client_api_version), (None, None));
        assert!(with("hasleader", "true").unwrap().require_leader);
        assert!(!with("hasleader", "1").unwrap().require_leader);
        assert_eq!(with("client-api-version", "3.7").unwrap().client_api_version, Some("3.7"));
        assert_eq!(with("token", "abc").unwrap().token, Some(&b"abc"[..]));
        assert_eq!(with("authorization", "Bearer abc").unwrap().token, Some(&b"abc"[..]));
        assert_eq!(with("authorization", "abc").unwrap().token, Some(&b"abc"[..]));
    }

    #[test]
    fn content_types_pass_as_in_grpc_go() {
        let answered = |value| {
            let encoding = with("content-type", value).unwrap().encoding;
            (String::from_utf8(encoding.content_type()).unwrap(), encoding.is_usual())
        };
        assert_eq!(answered("application/grpc"), ("application/grpc".into(), true));
        assert_eq!(answered("application/grpc+proto"), ("application/grpc+proto".into(), false));
        assert_eq!(answered("application/grpc;charset=x"), ("application/grpc+charset=x".into(), false));
        assert_eq!(answered("application/grpc+"), ("application/grpc".into(), true));
        for value in ["application/json", "application/grpc-web", ""] {
            let text = format!("invalid gRPC request content-type {value:?}");
            assert_eq!(refused(with("content-type", value)), (415, Code::InvalidArgument, text));
        }
    }

    #[test]
    fn refusals_are_grpc_gos() {
        let check = |name, value, status, code, text: &str| {
            assert_eq!(refused(with(name, value)), (status, code, text.to_owned()));
        };
        let text = r#"Received a HEADERS frame with :method "GET" which should be POST"#;
        check(":method", "GET", 405, Code::Internal, text);
        check(":path", "/a/b", 200, Code::Unimplemented, "unknown service a");
        let text = r#"grpc: Decompressor is not installed for grpc-encoding "snappy""#;
        check("grpc-encoding", "snappy", 200, Code::Unimplemented, text);
        check("grpc-timeout", "0n", 200, Code::DeadlineExceeded, "context deadline exceeded");
        check("grpc-timeout", "999n", 200, Code::DeadlineExceeded, "context deadline exceeded");
        let text = r#"malformed grpc-timeout: transport: timeout string is too short: "5""#;
        check("grpc-timeout", "5", 400, Code::Internal, text);
        assert_eq!(with("connection", "close"), Err(CallRefusal::Reset));
        assert!(with("grpc-encoding", "identity").is_ok());
        let twice: Vec<Field> = GOOD.iter().copied().chain([(":authority", "other")]).collect();
        assert_eq!(refused(judge(&twice)).0, 400);
    }

    #[test]
    fn binary_metadata_is_base64_as_go_reads_it() {
        // Recorded from etcd 3.7.1.
        let faults =
            [("Y", 0), ("YQ=a", 2), ("YWE=YWE=", 4), ("YW*", 2), ("=YWE", 0), ("YWEYWE=", 6), ("%%", 0)];
        for (value, at) in faults {
            let text = format!(
                "malformed binary metadata {value:?} in header \"x-bin\": illegal base64 data at input byte {at}"
            );
            assert_eq!(refused(with("x-bin", value)), (400, Code::Internal, text));
        }
        for value in ["", "YQ==", "YQ", "YWE=", "YWE", "YWFh", "+/+/"] {
            assert!(with("x-bin", value).is_ok(), "{value}");
        }
    }

    #[test]
    fn timeouts_read_as_in_grpc_go() {
        assert_eq!(timeout(b"1S"), Ok(Duration::from_secs(1)));
        assert_eq!(timeout(b"250m"), Ok(Duration::from_ms(250)));
        assert_eq!(timeout(b"7u"), Ok(Duration::from_us(7)));
        assert_eq!(timeout(b"2M"), Ok(Duration::from_secs(120)));
        assert_eq!(timeout(b"99999999H"), Ok(Duration(i64::MAX as u64)));
        assert_eq!(
            timeout(b"999999999S"),
            Err(r#"transport: timeout string is too long: "999999999S""#.into())
        );
        assert_eq!(timeout(b"5x"), Err(r#"transport: timeout unit is not recognized: "5x""#.into()));
        assert_eq!(timeout(b"-5S"), Err(r#"strconv.ParseUint: parsing "-5": invalid syntax"#.into()));
        assert!(timeout(b"").is_err() && timeout(b"S").is_err());
    }

    #[test]
    fn no_headers_make_it_panic() {
        let mut rng = Rng::new(5);
        for _ in 0..20_000 {
            let mut fields: Vec<(Vec<u8>, Vec<u8>)> =
                GOOD.iter().map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec())).collect();
            fields.push((b"grpc-timeout".to_vec(), b"12345678S".to_vec()));
            fields.push((b"client-api-version".to_vec(), b"3.7".to_vec()));
            let at = rng.below(fields.len() as u64) as usize;
            let value = &mut fields[at].1;
            let keep = rng.below(value.len() as u64 + 1) as usize;
            value.truncate(keep);
            value.extend((0..rng.below(4)).map(|_| rng.next_u64() as u8));
            let _ = head(fields.iter().map(|(n, v)| (&n[..], &v[..])));
        }
    }
}
