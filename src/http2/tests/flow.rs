//! Windows both ways, queues and budgets.

use super::*;
use crate::limits::{HTTP2_OUTPUT_BYTES, HTTP2_STREAM_PENDING_BYTES, Http2Bounds};

const SMALL: Http2Config = Http2Config {
    streams_max: 100,
    bounds: Http2Bounds {
        stream_window_bytes: 1000,
        connection_window_bytes: 65_535,
        pending_bytes_max: 100_000,
        ..Http2Bounds::PRODUCTION
    },
    keepalive: KeepaliveRules {
        ping_min: crate::types::Duration::from_secs(5),
        without_stream: false,
        interval: None,
        timeout: crate::types::Duration::from_secs(20),
    },
};

fn window_update(bench: &mut Bench, stream: u32, more: u32) -> Vec<Seen> {
    bench.feed_frame(kind::WINDOW_UPDATE, 0, stream, &more.to_be_bytes()).unwrap()
}

fn initial_window(bench: &mut Bench, window: u32) -> Result<Vec<Seen>, ConnectionError> {
    let mut payload = frame::setting::INITIAL_WINDOW_SIZE.to_be_bytes().to_vec();
    payload.extend(window.to_be_bytes());
    bench.feed_frame(kind::SETTINGS, 0, 0, &payload)
}

fn data_len(frames: &[(u8, u8, u32, usize)]) -> usize {
    frames.iter().filter(|frame| frame.0 == kind::DATA).map(|frame| frame.3).sum()
}

#[test]
fn what_exceeds_a_window_is_an_error_of_stream_or_connection() {
    let mut bench = Bench::with(&SMALL);
    bench.open(1, false);
    bench.feed_frame(kind::DATA, 0, 1, &[0; 1000]).unwrap();
    bench.expect_reset(ErrorCode::FlowControl, kind::DATA, 0, 1, &[0; 1]);
    let mut bench = Bench::with(&SMALL.with_window(1 << 20));
    bench.open(1, false);
    for _ in 0..3 {
        bench.feed_frame(kind::DATA, 0, 1, &[0; 16_384]).unwrap();
    }
    bench.expect_fault(ErrorCode::FlowControl, kind::DATA, 0, 1, &[0; 16_384]);
}

#[test]
fn consumed_bytes_and_padding_come_back_in_pieces() {
    let mut bench = Bench::with(&SMALL);
    let stream = bench.open(1, false);
    for _ in 0..300 {
        bench.feed_frame(kind::DATA, flag::PADDED, 1, &[&[99][..], &[0; 900]].concat()).unwrap();
        bench.server.consumed(stream, 801);
    }
    let updates: Vec<_> = bench.frames();
    assert!(updates.iter().all(|(head, _)| head.kind == kind::WINDOW_UPDATE));
    let sum = |stream| -> u32 {
        updates.iter().filter(|(head, _)| head.stream == stream).map(|(_, payload)| be32(payload)).sum()
    };
    let all = 300 * 901;
    assert!((all - 250..=all).contains(&sum(1)), "{}", sum(1));
    assert!((all - 65_535 / 4..=all).contains(&sum(0)), "{}", sum(0));
    assert!(updates.len() <= 300 * 2);
}

#[test]
fn bytes_of_streams_that_closed_are_given_back_to_the_connection() {
    let mut bench = Bench::with(&SMALL);
    for number in (1..2001).step_by(2) {
        let stream = bench.open(number, false);
        bench.feed_frame(kind::DATA, 0, number, &[0; 500]).unwrap();
        bench.server.reset(stream, ErrorCode::Cancel);
        bench.server.consumed(stream, 500);
        bench.feed_frame(kind::DATA, 0, number, &[0; 500]).unwrap();
    }
}

#[test]
fn a_window_smaller_than_the_first_holds_once_the_client_knows() {
    let mut bench = Bench::raw(&SMALL);
    bench.feed(&[&frame::PREFACE[..], &frame_of(kind::SETTINGS, 0, 0, b"")].concat()).unwrap();
    bench.open(1, false);
    assert_eq!(bench.feed_frame(kind::DATA, 0, 1, &[0; 16_000]).unwrap().len(), 1);
    bench.feed_frame(kind::SETTINGS, flag::ACK, 0, b"").unwrap();
    bench.frames();
    bench.expect_reset(ErrorCode::FlowControl, kind::DATA, 0, 1, &[0; 1]);
}

#[test]
fn a_body_waits_for_the_streams_window_and_trailers_wait_for_the_body() {
    let mut bench = Bench::new();
    initial_window(&mut bench, 10).unwrap();
    bench.frames();
    let stream = bench.open(1, true);
    assert!(bench.server.reply(stream, 100, |out| out.extend_from_slice(&[7; 100])));
    assert_eq!(data_len(&bench.sent()), 10);
    assert_eq!(bench.server.pending_bytes(), 95);
    assert_eq!(window_update(&mut bench, 1, 50), []);
    assert_eq!(bench.sent(), [(kind::DATA, 0, 1, 50)]);
    assert_eq!(window_update(&mut bench, 1, 45), []);
    let sent = bench.sent();
    assert_eq!(sent[0], (kind::DATA, 0, 1, 45));
    assert_eq!((sent[1].0, sent[1].1), (kind::HEADERS, flag::END_HEADERS | flag::END_STREAM));
    assert_eq!((bench.server.streams_len(), bench.server.pending_bytes()), (0, 0));
}

#[test]
fn an_initial_window_moves_open_streams_below_zero_and_back() {
    let mut bench = Bench::new();
    let stream = bench.open(1, true);
    bench.server.send_grpc_head(stream);
    bench.server.send_data(stream, &[1; 60_000], false);
    assert_eq!(data_len(&bench.sent()), 60_000);
    initial_window(&mut bench, 10_000).unwrap(); // now 50,000 below zero
    bench.server.send_data(stream, &[2; 100], true);
    assert_eq!(data_len(&bench.sent()), 0);
    window_update(&mut bench, 1, 50_000);
    assert_eq!(data_len(&bench.sent()), 0);
    initial_window(&mut bench, 10_050).unwrap();
    assert_eq!(data_len(&bench.sent()), 50);
    initial_window(&mut bench, 20_000).unwrap();
    let sent = bench.sent();
    assert_eq!(sent.last(), Some(&(kind::DATA, flag::END_STREAM, 1, 50)));
    assert_eq!(bench.server.streams_len(), 0);
}

#[test]
fn a_window_that_settings_overflow_is_a_connection_error() {
    let mut bench = Bench::new();
    bench.open(1, true);
    window_update(&mut bench, 1, 0x7FFF_0000);
    assert_eq!(initial_window(&mut bench, 0x7FFF_FFFF).unwrap_err().code, ErrorCode::FlowControl);
}

#[test]
fn streams_take_turns_at_the_connections_window() {
    let mut bench = Bench::new();
    initial_window(&mut bench, 1 << 20).unwrap();
    for number in [1, 3, 5] {
        let stream = bench.open(number, true);
        bench.server.send_grpc_head(stream);
        bench.server.send_data(stream, &[0; 90_000], true);
    }
    assert_eq!(data_len(&bench.sent()), 65_535);
    window_update(&mut bench, 0, 5 * 16_384);
    let order: Vec<u32> = bench.sent().iter().map(|frame| frame.2).collect();
    assert_eq!(order, [1, 3, 5, 1, 3, 5]);
    window_update(&mut bench, 0, 1 << 20);
    assert_eq!(bench.server.streams_len(), 0);
    assert_eq!(bench.server.pending_bytes(), 0);
}

#[test]
fn a_stream_that_pulls_has_a_budget_and_hears_of_room() {
    let mut bench = Bench::new();
    let stream = bench.open(1, true);
    bench.server.send_grpc_head(stream);
    assert_eq!(bench.server.send_budget(stream), HTTP2_STREAM_PENDING_BYTES);
    bench.server.send_data(stream, &[0; 65_535 + 1000], false);
    assert_eq!(bench.server.send_budget(stream), HTTP2_STREAM_PENDING_BYTES - 1000);
    window_update(&mut bench, 0, 1000);
    assert_eq!(window_update(&mut bench, 1, 999), []);
    assert_eq!(window_update(&mut bench, 1, 1), [Seen::Writable(1)]);
    bench.frames();
    window_update(&mut bench, 0, 1 << 24);
    window_update(&mut bench, 1, 1 << 24);
    bench.server.send_data(stream, &vec![0; HTTP2_OUTPUT_BYTES], false);
    assert_eq!(bench.feed(b""), Ok(vec![]), "nothing has waited, so nobody hears of room");
    assert_eq!(bench.server.send_budget(stream), 0, "the socket is behind");
    bench.frames();
    assert_eq!(bench.server.send_budget(stream), HTTP2_STREAM_PENDING_BYTES);
    bench.server.reset(stream, ErrorCode::Cancel);
    assert_eq!(bench.server.send_budget(stream), 0);
}

#[test]
fn bytes_that_wait_have_a_limit_which_costs_the_stream_that_exceeds_it() {
    let mut bench = Bench::with(&SMALL);
    initial_window(&mut bench, 0).unwrap();
    let first = bench.open(1, true);
    bench.server.send_grpc_head(first);
    assert!(
        bench.server.send_data(first, &[0; 200_000], true),
        "the last message is taken whatever its size"
    );
    let second = bench.open(3, true);
    bench.server.send_grpc_head(second);
    bench.frames();
    assert!(bench.server.send_message(second, &[0; 8000]), "every stream may send a little");
    assert_eq!(bench.server.send_budget(second), 0, "who pulls gets nothing");
    assert!(!bench.server.send_message(second, &[0; 200]));
    assert_eq!(bench.reset_sent(), Some((3, ErrorCode::EnhanceYourCalm as u32)));
    assert!(!bench.server.send_trailers(second, 0, ""), "what is sent on a stream that is gone goes nowhere");
    assert_eq!(bench.feed_frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]), Ok(vec![Seen::Reset(1, 8)]));
    assert_eq!(bench.server.pending_bytes(), 0);
}
