use super::*;
use crate::stdx::Rng;

fn whole(text: &str) -> Http1Request {
    let (request, used) = parse(text.as_bytes()).expect("well formed").expect("complete");
    assert_eq!(used, text.len());
    request
}

fn refused(text: &str) -> (u16, String) {
    let response = parse(text.as_bytes()).expect_err(text);
    (response.status, String::from_utf8(response.body).unwrap())
}

#[test]
fn protocols_are_told_apart_by_their_first_bytes() {
    assert_eq!(sniff(PREFACE), Sniffed::Http2);
    assert_eq!(sniff(&[PREFACE, b"more"].concat()), Sniffed::Http2);
    for cut in 0..PREFACE.len() {
        assert_eq!(sniff(&PREFACE[..cut]), Sniffed::NeedMore);
    }
    assert_eq!(sniff(b"G"), Sniffed::Http1);
    assert_eq!(sniff(b"PRI * HTTP/1.1\r\n"), Sniffed::Http1);
    assert_eq!(sniff(b"PUT / HTTP/1.1\r\n"), Sniffed::Http1);
}

#[test]
fn a_request_is_read_with_its_query() {
    let request = whole(
        "GET /he%61lth?exclude=NOSPACE&exclude=a+b&x&bad=%zz&y;z=1&serializable=true HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    assert_eq!(
        (&request.method, request.path.as_str(), request.keep_alive),
        (&HttpMethod::Get, "/health", true)
    );
    assert_eq!(request.all("exclude").collect::<Vec<_>>(), ["NOSPACE", "a b"]);
    assert_eq!((request.first("x"), request.first("bad")), (Some(""), None));
    assert_eq!(request.first("serializable"), Some("true"));
    assert_eq!(whole("GET http://host:1/version HTTP/1.1\r\nHost: a\r\n\r\n").path, "/version");
    assert_eq!(whole("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").method, HttpMethod::Other("OPTIONS".into()));
}

#[test]
fn connections_live_as_the_version_and_the_header_say() {
    let keeps = |text: &str| whole(text).keep_alive;
    assert!(keeps("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert!(!keeps("GET / HTTP/1.1\r\nHost: a\r\nConnection: foo, Close\r\n\r\n"));
    assert!(!keeps("GET / HTTP/1.0\r\n\r\n"));
    assert!(keeps("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
}

#[test]
fn pipelined_requests_come_one_after_the_other_with_their_bodies_dropped() {
    let first = "POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
    let both = format!("{first}GET /version HTTP/1.1\r\nHost: a\r\n\r\n");
    let (request, used) = parse(both.as_bytes()).unwrap().unwrap();
    assert_eq!((request.method, used), (HttpMethod::Post, first.len()));
    assert_eq!(whole(&both[used..]).path, "/version");
    for cut in 0..first.len() {
        assert_eq!(parse(&first.as_bytes()[..cut]), Ok(None));
    }
}

#[test]
fn what_is_no_request_is_refused() {
    assert_eq!(refused("GET\r\n\r\n").0, 400);
    assert_eq!(refused("\x16\x03\x01\x02\x00").0, 400);
    assert_eq!(refused("GET / HTTP/1.1\r\n\r\n").1, "400 Bad Request: missing required Host header");
    assert_eq!(refused("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").0, 400);
    assert_eq!(refused("GET health HTTP/1.1\r\nHost: a\r\n\r\n").0, 400);
    assert_eq!(refused("GET /%4 HTTP/1.1\r\nHost: a\r\n\r\n").0, 400);
    assert_eq!(refused("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n").0, 400);
    assert_eq!(refused("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n").0, 400);
    assert_eq!(refused("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").0, 501);
    assert_eq!(refused("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n").0, 413);
    let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(HTTP1_HEAD_BYTES_MAX));
    assert_eq!(refused(&long).0, 431);
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HTTP1_HEADERS_MAX + 1));
    assert_eq!(refused(&many).0, 431);
}

#[test]
fn a_request_may_have_the_headers_that_proxies_send() {
    let hundred: String = (0..120).map(|n| format!("X-Forwarded-{n}: {}\r\n", "a".repeat(400))).collect();
    let request = format!("GET /health HTTP/1.1\r\nHost: a\r\n{hundred}\r\n");
    assert!(request.len() > 48 << 10);
    assert_eq!(whole(&request).path, "/health");
}

fn written(response: &Http1Response, method: HttpMethod, keep_alive: bool) -> String {
    let mut out = vec![];
    response.write(&mut out, &method, keep_alive, Audience::Scrapers, None);
    String::from_utf8(out).unwrap()
}

#[test]
fn answers_are_written_as_go_writes_them() {
    let ok = Http1Response::ok(ContentType::Json, b"{}".to_vec());
    let text = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n";
    assert_eq!(written(&ok, HttpMethod::Get, true), format!("{text}{{}}"));
    assert_eq!(written(&ok, HttpMethod::Head, true), text);
    assert_eq!(
        written(&Http1Response::only_get(), HttpMethod::Post, false),
        "HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\nContent-Type: text/plain; charset=utf-8\r\n\
         X-Content-Type-Options: nosniff\r\nContent-Length: 19\r\nConnection: close\r\n\r\nMethod Not Allowed\n"
    );
    let mut out = vec![];
    let options = HttpMethod::Other("OPTIONS".into());
    Http1Response::empty().write(&mut out, &options, true, Audience::Everyone, Some(951_782_400));
    let recorded = "HTTP/1.1 200 OK\r\n\
         Access-Control-Allow-Headers: accept, content-type, authorization\r\n\
         Access-Control-Allow-Methods: POST, GET, OPTIONS, PUT, DELETE\r\n\
         Access-Control-Allow-Origin: *\r\n\
         Date: Tue, 29 Feb 2000 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(String::from_utf8(out).unwrap(), recorded);
    let mut out = vec![];
    parse(b"nonsense\r\n\r\n").unwrap_err().write_refusal(&mut out);
    assert!(out.starts_with(b"HTTP/1.1 400 Bad Request\r\n") && out.ends_with(b"400 Bad Request"));
}

#[test]
fn damaged_requests_never_panic() {
    let mut rng = Rng::new(4);
    let (mut read, mut partial, mut refused) = (0, 0, 0);
    let good = b"POST /readyz?verbose&exclude=%41 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc";
    for _ in 0..30_000 {
        let mut bytes = good.to_vec();
        for _ in 0..=rng.below(4) {
            let at = rng.below(bytes.len() as u64 + 1) as usize;
            match rng.below(4) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, rng.next_u64() as u8),
                2 if at < bytes.len() => bytes[at] = rng.next_u64() as u8,
                _ => bytes.extend_from_within(at..),
            }
        }
        match parse(&bytes) {
            Ok(Some((_, used))) => {
                assert!(used <= bytes.len());
                read += 1;
            }
            Ok(None) => partial += 1,
            Err(response) => {
                assert!(response.status >= 400);
                refused += 1;
            }
        }
        sniff(&bytes);
    }
    assert!(read > 100 && partial > 100 && refused > 100, "{read} {partial} {refused}");
}
