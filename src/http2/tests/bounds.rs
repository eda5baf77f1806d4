//! Floods, and what a connection keeps.

use super::*;
use crate::limits::*;
use crate::types::Duration;

/// Feeds the same frame until the connection ends, at most `most` times.
fn flood(bench: &mut Bench, most: u32, mut frame: impl FnMut(u32) -> Vec<u8>) -> u32 {
    for round in 0..most {
        if let Err(fault) = bench.feed(&frame(round)) {
            assert_eq!(fault.code, ErrorCode::EnhanceYourCalm, "{}", fault.why);
            return round;
        }
    }
    panic!("the flood was let through");
}

const CANCEL: [u8; 4] = [0, 0, 0, 8];

#[test]
fn rapid_reset_ends_the_connection() {
    let all = [Http2Bounds::PRODUCTION, Http2Bounds::TINY];
    for (end, bounds) in [0, flag::END_STREAM].into_iter().flat_map(|end| all.map(|bounds| (end, bounds))) {
        let mut bench = Bench::with(&Http2Config { bounds, ..Http2Config::default() });
        let block = bench.request_block(&[]);
        bench.feed(&frame_of(kind::HEADERS, flag::END_HEADERS, 1, &block)).unwrap();
        let block = bench.request_block(&[]);
        let rounds = flood(&mut bench, bounds.resets_burst + 1, |round| {
            let number = 3 + 2 * round;
            let mut bytes = frame_of(kind::HEADERS, flag::END_HEADERS | end, number, &block);
            bytes.extend(frame_of(kind::RST_STREAM, 0, number, &CANCEL));
            bytes
        });
        assert_eq!(rounds, bounds.resets_burst);
    }
}

/// Each renewal of a lease by itself is a stream of the Go client that ends so.
#[test]
fn streams_that_were_answered_may_be_reset_without_end() {
    let mut bench = Bench::new();
    for number in (1..).step_by(2).take(3 * HTTP2_RESETS_BURST as usize) {
        let stream = bench.open(number, false);
        bench.server.send_grpc_head(stream);
        bench.server.send_message(stream, b"renewed");
        assert_eq!(bench.feed_frame(kind::RST_STREAM, 0, number, &CANCEL), Ok(vec![Seen::Reset(number, 8)]));
        bench.frames();
    }
}

#[test]
fn a_client_may_give_up_all_that_it_has_waited_for() {
    let mut bench = Bench::new();
    let mut numbers = (1..).step_by(2);
    for _ in 0..3 {
        let wave: Vec<u32> = numbers.by_ref().take(HTTP2_STREAMS_DEFAULT as usize).collect();
        for number in &wave {
            bench.open(*number, true);
        }
        bench.now = bench.now + Duration::from_ms(HTTP2_RAPID_RESET_MS);
        for number in wave {
            let seen = bench.feed_frame(kind::RST_STREAM, 0, number, &CANCEL);
            assert_eq!(seen, Ok(vec![Seen::Reset(number, 8)]));
        }
    }
    // Requests that it had only begun are as many as may be open.
    for number in numbers.by_ref().take(HTTP2_STREAMS_DEFAULT as usize) {
        bench.open(number, false);
        bench.feed_frame(kind::RST_STREAM, 0, number, &CANCEL).unwrap();
    }
    let number = numbers.next().unwrap();
    bench.open(number, false);
    let fault = bench.feed_frame(kind::RST_STREAM, 0, number, &CANCEL).expect_err("that is one too many");
    assert_eq!(fault.why, "too_many_resets");
}

#[test]
fn honest_resets_spread_in_time_pass_and_leave_nothing() {
    let mut bench = Bench::new();
    let block = bench.request_block(&[]);
    bench.feed(&frame_of(kind::HEADERS, flag::END_HEADERS, 1, &block)).unwrap();
    let block = bench.request_block(&[]);
    for round in 0..10_000u32 {
        bench.now = bench.now + Duration::from_ms(5);
        let number = 3 + 2 * round;
        bench.feed(&frame_of(kind::HEADERS, flag::END_HEADERS, number, &block)).unwrap();
        let stream = *bench.streams.last().unwrap();
        bench.server.send_grpc_head(stream);
        bench.server.send_data(stream, &[0; 100], false);
        bench.feed(&frame_of(kind::RST_STREAM, 0, number, &[0, 0, 0, 8])).unwrap();
        bench.frames();
    }
    assert_eq!((bench.server.streams_len(), bench.server.pending_bytes()), (1, 0));
    assert!(bench.server.waiting.len() < 64, "{}", bench.server.waiting.len());
    assert!(bench.server.streams.row_len() < 128, "{}", bench.server.streams.row_len());
}

#[test]
fn floods_of_cheap_frames_end_the_connection() {
    let settings = flood(&mut Bench::new(), 1000, |_| frame_of(kind::SETTINGS, 0, 0, b""));
    assert!(settings <= HTTP2_SETTINGS_BURST);
    flood(&mut Bench::new(), 2000, |_| frame_of(kind::PRIORITY, 0, 1, &[0; 5]));
    flood(&mut Bench::new(), 2000, |_| frame_of(kind::PING, flag::ACK, 0, &[0; 8]));
    flood(&mut Bench::new(), 2000, |_| frame_of(0x99, 0, 1, b""));
    let mut bench = Bench::new();
    bench.open(1, false);
    flood(&mut bench, 2000, |_| frame_of(kind::DATA, 0, 1, b""));
}

#[test]
fn a_header_block_has_a_largest_size_and_number_of_frames() {
    let mut bench = Bench::new();
    bench.feed_frame(kind::HEADERS, 0, 1, b"").unwrap();
    let rounds = flood(&mut bench, 100, |_| frame_of(kind::CONTINUATION, 0, 1, b""));
    assert!(rounds < HTTP2_BLOCK_FRAMES_MAX);
    let mut bench = Bench::new();
    bench.feed_frame(kind::HEADERS, 0, 1, b"").unwrap();
    flood(&mut bench, 100, |_| frame_of(kind::CONTINUATION, 0, 1, &[0; 16_384]));
}

#[test]
fn a_header_bomb_costs_its_stream_and_is_not_kept() {
    let mut bench = Bench::new();
    let value = "x".repeat(3500);
    let block = bench.request_block(&[("x-bomb", &value)]);
    bench.feed_frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &block).unwrap();
    // Each octet of this block stands for 3,500.
    let mut bomb = bench.request_block(&[]);
    let index = bench.block(&[("x-bomb", &value)]);
    assert_eq!(index.len(), 1);
    bomb.extend(index.repeat(10_000));
    bench.expect_reset(ErrorCode::FrameSize, kind::HEADERS, flag::END_HEADERS, 3, &bomb);
    assert!(bench.server.scratch.kept_bytes() < HTTP2_HEADER_LIST_BYTES_MAX + 4096);
    bench.open(5, true);
}

#[test]
fn a_client_may_ping_every_five_seconds_while_a_stream_is_open() {
    let ping = frame_of(kind::PING, 0, 0, &[0; 8]);
    let mut bench = Bench::new();
    bench.open(1, false);
    for _ in 0..20 {
        bench.now = bench.now + Duration::from_ms(5001);
        assert_eq!(bench.feed(&ping), Ok(vec![]));
    }
    for _ in 0..2 {
        assert_eq!(bench.feed(&ping), Ok(vec![]), "two strikes pass");
    }
    bench.frames();
    assert_eq!(bench.feed(&ping).expect_err("the third does not").why, "too_many_pings");
    let frames = bench.frames();
    let (_, goaway) = frames.last().unwrap();
    assert_eq!(goaway[..8], [0, 0, 0, 1, 0, 0, 0, 11]);
    assert_eq!(&goaway[8..], b"too_many_pings");
}

#[test]
fn without_a_stream_pings_are_strikes_and_sent_data_forgives_them() {
    let ping = frame_of(kind::PING, 0, 0, &[0; 8]);
    let mut bench = Bench::new();
    for _ in 0..3 {
        bench.now = bench.now + Duration::from_secs(60);
        assert_eq!(bench.feed(&ping), Ok(vec![]), "the first is free, two are strikes");
    }
    for round in 0..5 {
        let stream = bench.open(1 + 2 * round, true);
        bench.server.reply(stream, 0, |_| ());
        for _ in 0..3 {
            assert_eq!(bench.feed(&ping), Ok(vec![]), "the answer forgave");
        }
    }
    assert_eq!(bench.feed(&ping).expect_err("a third strike in a row").why, "too_many_pings");
}

/// grpc-go pings with each window's worth of what it receives, to find how wide the window should be.
#[test]
fn an_answer_of_many_windows_forgives_with_each() {
    let ping = frame_of(kind::PING, 0, 0, &[0; 8]);
    let mut bench = Bench::new();
    let stream = bench.open(1, true);
    bench.server.reply(stream, 40 << 14, |out| out.resize(out.len() + (40 << 14), 0));
    for _ in 0..30 {
        assert_eq!(bench.feed(&ping), Ok(vec![]), "a window has been sent since the last");
        for number in [0, 1] {
            let more = frame_of(kind::WINDOW_UPDATE, 0, number, &(1u32 << 14).to_be_bytes());
            assert_eq!(bench.feed(&more), Ok(vec![]));
        }
    }
}

#[test]
fn a_silent_client_is_pinged_and_then_given_up() {
    let mut bench = Bench::new();
    let hours = Duration::from_secs(7200);
    assert_eq!(bench.server.wake_at(), NOW + hours);
    assert_eq!(bench.server.on_time(NOW + Duration::from_secs(7199)), Ok(()));
    assert!(bench.frames().is_empty());
    bench.server.on_time(NOW + hours).unwrap();
    assert_eq!(bench.sent(), [(kind::PING, 0, 0, 8)]);
    bench.now = NOW + hours + Duration::from_secs(19);
    bench.feed_frame(kind::PING, flag::ACK, 0, &[0; 8]).unwrap();
    let again = bench.now + hours;
    assert_eq!(bench.server.wake_at(), again);
    bench.server.on_time(again).unwrap();
    assert_eq!(bench.server.wake_at(), again + Duration::from_secs(20));
    assert!(bench.server.on_time(again + Duration::from_secs(20)).is_err());
    assert_eq!(bench.server.wake_at(), Time::NEVER);
}

#[test]
fn a_client_that_says_nothing_is_not_waited_for_long() {
    let mut bench = Bench::raw(&Http2Config::default());
    bench.feed(&frame::PREFACE[..10]).unwrap();
    let due = NOW + Duration::from_secs(HTTP2_HANDSHAKE_SECS_MAX);
    assert_eq!(bench.server.wake_at(), due);
    assert!(bench.server.on_time(due).is_err());
}

#[test]
fn a_shutdown_serves_what_has_begun_and_refuses_what_comes_after() {
    let mut bench = Bench::new();
    let first = bench.open(1, true);
    bench.server.shutdown(NOW);
    let frames = bench.frames();
    assert_eq!(be32(&frames[0].1), frame::STREAM_ID_MAX);
    let ping = frames[1].1.clone();
    let second = bench.open(3, true);
    bench.feed_frame(kind::PING, flag::ACK, 0, &ping).unwrap();
    assert_eq!(be32(&bench.frames()[0].1), 3);
    let block = bench.request_block(&[]);
    assert_eq!(bench.feed_frame(kind::HEADERS, flag::END_HEADERS, 5, &block), Ok(vec![]));
    assert_eq!(bench.feed_frame(kind::DATA, flag::END_STREAM, 5, b"x"), Ok(vec![]));
    assert!(!bench.server.is_drained());
    bench.server.reply(first, 0, |_| ());
    bench.server.reply(second, 0, |_| ());
    assert!(bench.server.is_drained());
}

#[test]
fn who_does_not_say_that_it_has_heard_of_the_shutdown_is_not_waited_for_long() {
    let mut bench = Bench::new();
    let first = bench.open(1, true);
    bench.server.shutdown(NOW);
    bench.frames();
    let due = NOW + Duration::from_ms(HTTP2_FAREWELL_MS_MAX);
    assert_eq!(bench.server.wake_at(), due);
    assert!(bench.server.on_time(due).is_ok() && bench.server.is_final());
    assert_eq!(be32(&bench.frames()[0].1), 1);
    bench.server.reply(first, 0, |_| ());
    assert!(bench.server.is_drained());
}

#[test]
fn an_idle_connection_is_small() {
    assert!(size_of::<Connection>() < 2048, "{}", size_of::<Connection>());
    assert!(size_of::<streams::StreamState>() <= 72, "{}", size_of::<streams::StreamState>());
}

#[test]
fn streams_reset_through_the_servers_own_mouth_count_too() {
    // A client can make the server reset its streams by mistakes it chooses (CVE-2025-8671).
    let mut bench = Bench::new();
    bench.open(1, false);
    let block = bench.request_block(&[]);
    let rounds = flood(&mut bench, HTTP2_RESETS_BURST + 1, |round| {
        let number = 3 + 2 * round;
        let mut bytes = frame_of(kind::HEADERS, flag::END_HEADERS, number, &block);
        bytes.extend(frame_of(kind::WINDOW_UPDATE, 0, number, &[0; 4]));
        bytes
    });
    assert_eq!(rounds, HTTP2_RESETS_BURST);
}
