//! RFC 9113, section by section: what is a connection error, what a stream error, what passes.

use super::*;
use ErrorCode as E;

const END: u8 = flag::END_STREAM;
const BLOCK: u8 = flag::END_HEADERS;

#[test]
fn s3_4_preface_and_settings_come_first() {
    let mut bench = Bench::raw(&Http2Config::default());
    assert_eq!(bench.feed(b"GET / HTTP/1.1\r\n").expect_err("not HTTP/2").code, E::Protocol);
    let mut bench = Bench::raw(&Http2Config::default());
    assert_eq!(bench.feed(frame::PREFACE), Ok(vec![]));
    bench.expect_fault(E::Protocol, kind::PING, 0, 0, &[0; 8]);
    let mut bench = Bench::raw(&Http2Config::default());
    let first = bench.frames();
    assert_eq!(first[0].0.kind, kind::SETTINGS, "the server's SETTINGS wait for nothing");
    bench.feed(frame::PREFACE).unwrap();
    bench.expect_fault(E::Protocol, kind::SETTINGS, flag::ACK, 0, b"");
}

#[test]
fn s4_2_frames_have_a_largest_size() {
    let mut bench = Bench::new();
    bench.open(1, false);
    let events = bench.feed_frame(kind::DATA, 0, 1, &[7; 16_384]);
    assert_eq!(events, Ok(vec![Seen::Data(1, vec![7; 16_384], false)]));
    bench.expect_fault(E::FrameSize, kind::DATA, 0, 1, &[7; 16_385]);
}

#[test]
fn s4_3_a_broken_header_block_is_a_connection_error() {
    Bench::new().expect_fault(E::Compression, kind::HEADERS, BLOCK, 1, b"\x80");
    let mut bench = Bench::new();
    bench.feed_frame(kind::HEADERS, 0, 1, b"").unwrap();
    bench.expect_fault(E::Protocol, kind::PING, 0, 0, &[0; 8]);
    let mut bench = Bench::new();
    bench.feed_frame(kind::HEADERS, 0, 1, b"").unwrap();
    bench.expect_fault(E::Protocol, kind::CONTINUATION, BLOCK, 3, b"");
    Bench::new().expect_fault(E::Protocol, kind::CONTINUATION, BLOCK, 1, b"");
}

#[test]
fn s4_3_a_block_may_be_cut_anywhere() {
    let mut bench = Bench::new();
    let block = bench.request_block(&[]);
    bench.feed_frame(kind::HEADERS, END, 1, &block[..3]).unwrap();
    bench.feed_frame(kind::CONTINUATION, 0, 1, &block[3..4]).unwrap();
    let events = bench.feed_frame(kind::CONTINUATION, BLOCK, 1, &block[4..]);
    assert_eq!(events, Ok(vec![Seen::Headers(1, "/pkg.Service/Call".into(), true)]));
}

#[test]
fn s5_1_idle_streams_take_headers_and_priority_only() {
    Bench::new().expect_fault(E::Protocol, kind::DATA, 0, 1, b"x");
    Bench::new().expect_fault(E::Protocol, kind::RST_STREAM, 0, 1, &[0; 4]);
    Bench::new().expect_fault(E::Protocol, kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]);
    assert_eq!(Bench::new().feed_frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 3, 0]), Ok(vec![]));
}

#[test]
fn s5_1_half_closed_streams_take_no_body() {
    let mut bench = Bench::new();
    bench.open(1, true);
    bench.expect_reset(E::StreamClosed, kind::DATA, 0, 1, b"x");
    let mut bench = Bench::new();
    bench.open(1, true);
    let block = bench.request_block(&[]);
    bench.expect_reset(E::StreamClosed, kind::HEADERS, BLOCK | END, 1, &block);
    let mut bench = Bench::new();
    bench.open(1, true);
    assert_eq!(bench.feed_frame(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]), Ok(vec![]));
    assert_eq!(bench.feed_frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]), Ok(vec![Seen::Reset(1, 8)]));
}

#[test]
fn s5_1_closed_streams_take_late_frames_but_no_new_request() {
    let mut bench = Bench::new();
    let stream = bench.open(1, true);
    assert!(bench.server.reply(stream, 1, |out| out.push(7)));
    assert!(!bench.server.is_open(stream));
    bench.frames();
    for (kind, payload) in [(kind::WINDOW_UPDATE, [0, 0, 0, 1]), (kind::RST_STREAM, [0, 0, 0, 8])] {
        assert_eq!(bench.feed_frame(kind, 0, 1, &payload), Ok(vec![]), "it crossed the end");
    }
    bench.expect_reset(E::StreamClosed, kind::DATA, END, 1, b"x");
    let mut bench = Bench::new();
    let stream = bench.open(1, true);
    bench.server.reply(stream, 0, |_| ());
    let block = bench.request_block(&[]);
    bench.expect_fault(E::StreamClosed, kind::HEADERS, BLOCK | END, 1, &block);
}

#[test]
fn s5_1_what_crosses_our_reset_is_ignored() {
    let mut bench = Bench::new();
    let stream = bench.open(1, false);
    bench.server.reset(stream, E::Cancel);
    assert_eq!(bench.reset_sent(), Some((1, E::Cancel as u32)));
    assert_eq!(bench.feed_frame(kind::DATA, 0, 1, b"late"), Ok(vec![]));
    // Its trailers still change the table: the next request relies on that.
    let trailers = bench.block(&[("checksum", "abc")]);
    assert_eq!(bench.feed_frame(kind::HEADERS, BLOCK | END, 1, &trailers), Ok(vec![]));
    let block = bench.request_block(&[("checksum", "abc")]);
    assert_eq!(bench.feed_frame(kind::HEADERS, BLOCK | END, 3, &block).unwrap().len(), 1);
    assert!(bench.frames().is_empty());
}

#[test]
fn s5_1_1_numbers_are_odd_and_rise() {
    let block = Bench::new().request_block(&[]);
    Bench::new().expect_fault(E::Protocol, kind::HEADERS, BLOCK | END, 2, &block);
    Bench::new().expect_fault(E::Protocol, kind::HEADERS, BLOCK | END, 0, &block);
    let mut bench = Bench::new();
    bench.open(5, true);
    bench.expect_fault(E::Protocol, kind::HEADERS, BLOCK | END, 3, &block);
}

#[test]
fn s5_1_2_streams_beyond_the_limit_are_refused() {
    let mut bench = Bench::with(&Http2Config { streams_max: 2, ..Http2Config::default() });
    let first = bench.open(1, true);
    bench.open(3, false);
    let block = bench.request_block(&[("new", "entry")]);
    bench.expect_reset(E::RefusedStream, kind::HEADERS, BLOCK | END, 5, &block);
    bench.server.reply(first, 0, |_| ());
    bench.frames();
    let again = bench.request_block(&[("new", "entry")]);
    assert_eq!(
        bench.feed_frame(kind::HEADERS, BLOCK | END, 7, &again).unwrap().len(),
        1,
        "the table was kept"
    );
}

#[test]
fn s5_3_priorities_are_checked_and_ignored() {
    let mut bench = Bench::new();
    let mut payload = vec![0, 0, 0, 9, 255];
    payload.extend(bench.request_block(&[]));
    let events = bench.feed_frame(kind::HEADERS, BLOCK | END | flag::PRIORITY, 1, &payload);
    assert_eq!(events.unwrap().len(), 1);
    payload[3] = 3;
    bench.expect_reset(E::Protocol, kind::HEADERS, BLOCK | END | flag::PRIORITY, 3, &payload);
    let mut bench = Bench::new();
    bench.open(1, false);
    bench.expect_reset(E::Protocol, kind::PRIORITY, 0, 1, &[0, 0, 0, 1, 0]);
    let mut bench = Bench::new();
    bench.open(1, false);
    bench.expect_reset(E::FrameSize, kind::PRIORITY, 0, 1, &[0; 4]);
    bench.expect_fault(E::Protocol, kind::PRIORITY, 0, 0, &[0; 5]);
}

#[test]
fn s5_5_unknown_frames_are_ignored_but_not_inside_a_block() {
    let mut bench = Bench::new();
    assert_eq!(bench.feed_frame(0x42, 0xFF, 7, b"whatever"), Ok(vec![]));
    bench.feed_frame(kind::HEADERS, 0, 1, b"").unwrap();
    bench.expect_fault(E::Protocol, 0x42, 0, 1, b"");
}

#[test]
fn s6_1_padding_is_dropped_and_checked() {
    let mut bench = Bench::new();
    bench.open(1, false);
    let events = bench.feed_frame(kind::DATA, flag::PADDED, 1, b"\x03abc\0\0\0");
    assert_eq!(events, Ok(vec![Seen::Data(1, b"abc".to_vec(), false)]));
    bench.expect_fault(E::Protocol, kind::DATA, flag::PADDED, 1, b"\x04abc");
    let mut bench = Bench::new();
    let mut padded = vec![2];
    padded.extend(bench.request_block(&[]));
    padded.extend([0, 0]);
    assert_eq!(bench.feed_frame(kind::HEADERS, BLOCK | flag::PADDED, 1, &padded).unwrap().len(), 1);
    bench.expect_fault(E::Protocol, kind::HEADERS, BLOCK | flag::PADDED, 3, b"\x09\x82");
    Bench::new().expect_fault(E::Protocol, kind::DATA, 0, 0, b"x");
}

#[test]
fn s6_5_settings_are_checked() {
    let fault = |code, name: u16, value: u32| {
        let mut payload = name.to_be_bytes().to_vec();
        payload.extend(value.to_be_bytes());
        Bench::new().expect_fault(code, kind::SETTINGS, 0, 0, &payload);
    };
    fault(E::Protocol, frame::setting::ENABLE_PUSH, 2);
    fault(E::FlowControl, frame::setting::INITIAL_WINDOW_SIZE, 1 << 31);
    fault(E::Protocol, frame::setting::MAX_FRAME_SIZE, 16_383);
    fault(E::Protocol, frame::setting::MAX_FRAME_SIZE, 1 << 24);
    Bench::new().expect_fault(E::FrameSize, kind::SETTINGS, 0, 0, &[0; 5]);
    Bench::new().expect_fault(E::FrameSize, kind::SETTINGS, flag::ACK, 0, &[0; 6]);
    Bench::new().expect_fault(E::Protocol, kind::SETTINGS, 0, 1, b"");
    let mut bench = Bench::new();
    assert_eq!(bench.feed_frame(kind::SETTINGS, 0, 0, &[0xAA, 0xAA, 1, 2, 3, 4]), Ok(vec![]));
    assert_eq!(bench.sent(), [(kind::SETTINGS, flag::ACK, 0, 0)]);
}

#[test]
fn s6_7_pings_are_answered_with_what_they_carry() {
    let mut bench = Bench::new();
    bench.feed_frame(kind::PING, 0, 0, b"opaque!!").unwrap();
    let frames = bench.frames();
    assert_eq!(
        (frames[0].0.kind, frames[0].0.flags, &frames[0].1[..]),
        (kind::PING, flag::ACK, &b"opaque!!"[..])
    );
    assert_eq!(bench.feed_frame(kind::PING, flag::ACK, 0, &[0; 8]), Ok(vec![]));
    assert!(bench.frames().is_empty());
    Bench::new().expect_fault(E::FrameSize, kind::PING, 0, 0, &[0; 7]);
    Bench::new().expect_fault(E::Protocol, kind::PING, 0, 1, &[0; 8]);
}

#[test]
fn s6_4_6_8_6_9_sizes_and_streams_of_small_frames() {
    let mut bench = Bench::new();
    bench.open(1, false);
    bench.expect_fault(E::FrameSize, kind::RST_STREAM, 0, 1, &[0; 3]);
    Bench::new().expect_fault(E::Protocol, kind::RST_STREAM, 0, 0, &[0; 4]);
    Bench::new().expect_fault(E::Protocol, kind::GOAWAY, 0, 1, &[0; 8]);
    Bench::new().expect_fault(E::FrameSize, kind::GOAWAY, 0, 0, &[0; 7]);
    assert_eq!(Bench::new().feed_frame(kind::GOAWAY, 0, 0, &[0; 8]), Ok(vec![Seen::GoAway(0, 0)]));
    Bench::new().expect_fault(E::FrameSize, kind::WINDOW_UPDATE, 0, 0, &[0; 3]);
    Bench::new().expect_fault(E::Protocol, kind::WINDOW_UPDATE, 0, 0, &[0; 4]);
    Bench::new().expect_fault(E::FlowControl, kind::WINDOW_UPDATE, 0, 0, &[0x7F, 0xFF, 0xFF, 0xFF]);
    let mut bench = Bench::new();
    bench.open(1, false);
    bench.expect_reset(E::Protocol, kind::WINDOW_UPDATE, 0, 1, &[0; 4]);
    bench.open(3, false);
    bench.expect_reset(E::FlowControl, kind::WINDOW_UPDATE, 0, 3, &[0x7F, 0xFF, 0xFF, 0xFF]);
    Bench::new().expect_fault(E::Protocol, kind::PUSH_PROMISE, BLOCK, 1, &[0; 4]);
}

#[test]
fn s8_1_malformed_requests_cost_their_stream() {
    let refused = |fields: &[(&str, &str)]| {
        let mut bench = Bench::new();
        let block = bench.block(fields);
        bench.expect_reset(E::Protocol, kind::HEADERS, BLOCK | END, 1, &block);
    };
    let with = |extra: &[(&'static str, &'static str)]| {
        let mut fields = REQUEST.to_vec();
        fields.extend(extra);
        fields
    };
    let instead = |name: &str, value: &'static str| {
        REQUEST.map(|(known, old)| if known == name { (known, value) } else { (known, old) })
    };
    let without =
        |name: &str| -> Vec<_> { REQUEST.into_iter().filter(|(known, _)| *known != name).collect() };
    for extra in [
        ("X-UPPER", "a"),
        ("connection", "keep-alive"),
        ("te", "trailers, deflate"),
        (":path", "/late"),
        (":unknown", "x"),
        (":status", "200"),
        ("name with blanks", "x"),
        ("value", "line\nbreak"),
        ("content-length", "1"),
        ("content-length", "x"),
        ("", "nameless"),
    ] {
        refused(&with(&[extra]));
    }
    // What a proxy may have passed on, as grpc-go takes it.
    for extra in [
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
    ] {
        let mut bench = Bench::new();
        let block = bench.block(&with(&[extra]));
        let seen = bench.feed_frame(kind::HEADERS, BLOCK | END, 1, &block);
        assert_eq!(seen, Ok(vec![Seen::Headers(1, "/pkg.Service/Call".into(), true)]), "{extra:?}");
    }
    for name in [":method", ":scheme", ":path"] {
        refused(&without(name));
    }
    refused(&instead(":path", ""));
    refused(&instead(":method", "CONNECT"));
    let mut twice = vec![(":method", "POST")];
    twice.extend(REQUEST);
    refused(&twice);
    refused(&with(&[("content-length", "0"), ("content-length", "1")]));
}

#[test]
fn s8_1_well_formed_requests_pass() {
    for extra in
        [("token", " spaced "), ("content-length", "0"), ("te", "trailers"), ("x-tab", "a\tb"), ("x", "")]
    {
        let mut bench = Bench::new();
        let block = bench.request_block(&[extra]);
        assert_eq!(bench.feed_frame(kind::HEADERS, BLOCK | END, 1, &block).unwrap().len(), 1, "{extra:?}");
    }
}

#[test]
fn s8_1_content_length_is_what_data_amounts_to() {
    for (data, end, good) in
        [("abc", true, true), ("ab", true, false), ("abcd", false, false), ("ab", false, true)]
    {
        let mut bench = Bench::new();
        let block = bench.request_block(&[("content-length", "3")]);
        bench.feed_frame(kind::HEADERS, BLOCK, 1, &block).unwrap();
        let flags = if end { END } else { 0 };
        let events = bench.feed_frame(kind::DATA, flags, 1, data.as_bytes());
        let want = match good {
            true => Seen::Data(1, data.as_bytes().to_vec(), end),
            false => Seen::Reset(1, E::Protocol as u32),
        };
        assert_eq!(events, Ok(vec![want]));
    }
}

#[test]
fn s8_1_trailers_end_a_request_and_hold_no_pseudo_fields() {
    let mut bench = Bench::new();
    bench.open(1, false);
    let trailers = bench.block(&[("checksum", "1")]);
    assert_eq!(bench.feed_frame(kind::HEADERS, BLOCK | END, 1, &trailers), Ok(vec![Seen::Trailers(1)]));
    bench.open(3, false);
    let trailers = bench.block(&[("checksum", "1")]);
    bench.expect_reset(E::Protocol, kind::HEADERS, BLOCK, 3, &trailers);
    bench.open(5, false);
    let pseudo = bench.block(&[(":path", "/")]);
    bench.expect_reset(E::Protocol, kind::HEADERS, BLOCK | END, 5, &pseudo);
}

#[test]
fn a_head_tells_what_grpc_and_etcd_look_at() {
    let mut bench = Bench::new();
    let extra = [
        ("grpc-timeout", "5S"),
        ("token", "abc.7"),
        ("hasleader", "true"),
        ("grpc-encoding", "gzip"),
        ("client-api-version", "3.7"),
        ("user-agent", "grpc-go"),
        ("x-custom", "1"),
        ("authorization", "Bearer abc"),
    ];
    // The first time it is decoded; the second it is indices, to be remembered; the third it is remembered.
    for number in [1, 3, 5] {
        let block = bench.request_block(&extra);
        let bytes = frame_of(kind::HEADERS, BLOCK, number, &block);
        let mut rest = &bytes[..];
        let Ok(Some(Http2Event::Headers { head, .. })) = bench.server.receive(NOW, &mut rest) else {
            panic!("no head")
        };
        assert_eq!((head.method(), head.path()), (&b"POST"[..], &b"/pkg.Service/Call"[..]));
        for (name, value) in [
            (FieldName::GrpcTimeout, "5S"),
            (FieldName::Token, "abc.7"),
            (FieldName::HasLeader, "true"),
            (FieldName::GrpcEncoding, "gzip"),
            (FieldName::ClientApiVersion, "3.7"),
            (FieldName::UserAgent, "grpc-go"),
            (FieldName::Authorization, "Bearer abc"),
            (FieldName::ContentType, "application/grpc"),
            (FieldName::Te, "trailers"),
            (FieldName::Authority, "localhost"),
        ] {
            assert_eq!(head.get(name), Some(value.as_bytes()), "{name:?}");
        }
        assert_eq!(head.get(FieldName::GrpcStatus), None);
        assert_eq!(head.others().collect::<Vec<_>>(), [(&b"x-custom"[..], &b"1"[..])]);
    }
}

#[test]
fn a_remembered_block_is_forgotten_when_the_table_changes() {
    let mut bench = Bench::new();
    bench.open(1, true);
    bench.open(3, true);
    bench.open(5, true); // remembered by now
    let other = bench.block(&[(":method", "POST"), (":scheme", "http"), (":path", "/other"), ("a", "b")]);
    let events = bench.feed_frame(kind::HEADERS, BLOCK | END, 7, &other);
    assert_eq!(events, Ok(vec![Seen::Headers(7, "/other".into(), true)]));
    bench.open(9, true); // the same fields, other indices
    // The old indices now mean other fields.
    let again = bench.block(&[(":method", "POST"), (":scheme", "http"), (":path", "/other"), ("a", "b")]);
    let events = bench.feed_frame(kind::HEADERS, BLOCK | END, 11, &again);
    assert_eq!(events, Ok(vec![Seen::Headers(11, "/other".into(), true)]));
}
