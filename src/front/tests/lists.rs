//! Lists that are too many to hold at once wait; readers that take nothing give their place back.

use super::bounds::{Closed, MIB, OPEN, odd, pairs, range_stream};
use super::*;
use crate::limits::{READER_CHECK_MS, READER_CHECKS_MAX};

/// Limits of which a few lists are too much.
fn small() -> FrontConfig {
    let mut config = config();
    config.bounds.connection_lists_bytes_min = MIB;
    config.bounds.connection_lists_bytes_max = 4 * MIB;
    config.bounds.lists_bytes_max = 16 * MIB;
    config
}

/// A list of about so many bytes.
fn list(bytes: usize) -> RangeReply {
    pairs(bytes >> 16, 1 << 16)
}

/// Turns in which the client reads what there is, and what it asked for is answered.
fn run(client: &mut Closed, numbers: &[u32], reply: &RangeReply) {
    for _ in 0..1000 {
        client.open_windows(numbers, 256 << 10);
        client.take();
        let mut asks = vec![];
        client.front.on_time(Time(0), &mut asks);
        client.serve(asks, reply);
    }
}

#[test]
fn large_lists_at_once_on_one_connection_all_arrive() {
    for gzip in [false, true] {
        let mut client = Closed::new(small(), 64 << 10);
        client.gzip = gzip;
        client.open_windows(&[0], OPEN);
        let numbers: Vec<u32> = odd().take(8).collect();
        numbers.iter().for_each(|number| client.list(*number, &list(3 * MIB)));
        assert_eq!((client.front.waiting.len(), client.front.accounting.held.lists / MIB), (6, 6));
        run(&mut client, &numbers, &list(3 * MIB));
        assert_eq!(client.handled(Method::Range, Code::Ok), 8);
        let least = if gzip { 1000 } else { 3 * MIB };
        assert!(numbers.iter().all(|number| client.seen(*number).1 > least));
        assert_eq!((client.front.waiting.len(), client.front.accounting.held.lists), (0, 0));
    }
}

#[test]
fn large_lists_at_once_of_many_clients_all_arrive() {
    let mut client = Closed::new(small(), OPEN);
    let mut conns = vec![client.conn];
    for _ in 0..16 {
        client.open_windows(&[0], OPEN);
        client.list(1, &list(3 * MIB));
        client.change(OPEN);
        conns.push(client.conn);
    }
    assert_eq!(client.front.waiting.len(), 10, "the others are enough");
    for _ in 0..200 {
        let mut out = vec![];
        client.front.flush(Time(0), &mut out);
        let mut asks = vec![];
        for output in out {
            let Output::Send { conn, bytes } = output else { panic!("{output:?}") };
            client.front.sent(Time(0), conn, bytes.len(), &mut asks);
        }
        client.front.on_time(Time(0), &mut asks);
        client.serve(asks, &list(3 * MIB));
    }
    assert_eq!(client.handled(Method::Range, Code::Ok), 16);
    assert_eq!((client.front.waiting.len(), client.front.accounting.held.lists), (0, 0));
}

/// Turns of which one client's kernel takes what is sent, and no other's.
fn turns(client: &mut Closed, now: Time) -> Vec<Ask> {
    let mut asks = vec![];
    for _ in 0..20 {
        let mut out = vec![];
        client.front.flush(now, &mut out);
        for output in out {
            if let Output::Send { conn, bytes } = output
                && conn == client.conn
            {
                client.front.sent(now, conn, bytes.len(), &mut asks);
            }
        }
    }
    client.front.on_time(now, &mut asks);
    asks
}

/// Five clients hold all that may be held. What others list in small goes on; what they list in large goes on
/// when those have taken nothing for long.
#[test]
fn readers_that_take_nothing_give_their_place_back() {
    // Their windows are closed, or their kernels are full.
    for window in [0, OPEN] {
        let mut config = small();
        (config.bounds.connection_lists_bytes_max, config.bounds.lists_bytes_max) = (8 * MIB, usize::MAX);
        let mut client = Closed::new(config, window);
        let mut silent = vec![];
        for number in 1..=5 {
            client.open_windows(&[0], OPEN);
            odd().take(2).for_each(|number| client.list(number, &list(6 * MIB)));
            for _ in 0..20 {
                client.front.sent(Time(0), client.conn, 0, &mut vec![]);
                client.front.flush(Time(0), &mut vec![]);
            }
            if number == 4 {
                let held = client.front.accounting.held.lists;
                client.front.config.bounds.lists_bytes_max = held + 6 * MIB + MIB / 2;
            }
            silent.push(client.conn);
            client.change(if number < 5 { window } else { OPEN });
        }
        assert_eq!(client.front.waiting.len(), 0);
        assert!(client.front.accounting.held.lists >= client.front.config.bounds.lists_bytes_max);
        client.open_windows(&[0], OPEN);
        let small = list(900 << 10);
        [1, 3, 5].into_iter().for_each(|number| client.list(number, &small));
        for _ in 0..3 {
            let asks = turns(&mut client, Time(0));
            client.serve(asks, &small);
        }
        assert_eq!(client.handled(Method::Range, Code::Ok), 3, "small lists wait for each other alone");
        assert_eq!(client.front.waiting.len(), 0);
        client.list(7, &list(2 * MIB));
        assert_eq!(client.front.waiting.len(), 1);
        let (mut asks, mut seconds) = (vec![], 0);
        while asks.is_empty() {
            seconds += 1;
            let now = Time::from_ms(seconds * READER_CHECK_MS);
            assert!(client.front.wake_at() <= now, "it looks at them in time");
            asks = turns(&mut client, now);
        }
        assert_eq!(seconds, u64::from(READER_CHECKS_MAX) + 1);
        let gone = asks.iter().filter(|ask| matches!(ask, Ask::Gone { rpc } if silent.contains(&rpc.conn)));
        assert_eq!(gone.count(), 10);
        assert_eq!(client.handled(Method::Range, Code::ResourceExhausted), 10);
        assert!(matches!(asks.last(), Some(Ask::Call { rpc, .. }) if rpc.conn == client.conn), "{asks:?}");
        assert_eq!(client.front.accounting.held.lists, 0);
    }
}

#[test]
fn who_reads_slowly_keeps_its_place() {
    let mut client = Closed::new(small(), 0);
    client.open_windows(&[0], OPEN);
    odd().take(3).for_each(|number| client.list(number, &list(3 * MIB)));
    assert_eq!(client.front.waiting.len(), 1);
    for second in 1..4 * u64::from(READER_CHECKS_MAX) {
        if second % 20 == 0 {
            client.open_windows(&[1, 3], 1000);
        }
        client.take();
        let mut asks = vec![];
        client.front.on_time(Time::from_ms(second * READER_CHECK_MS), &mut asks);
        assert_eq!(asks, []);
    }
    // While nobody waits for it, a place is kept for ever.
    let mut reset = vec![];
    http2::frame::put_number(&mut reset, http2::frame::kind::RST_STREAM, 5, 8);
    client.send(&reset);
    for second in 200..1000 {
        client.front.on_time(Time::from_ms(second * READER_CHECK_MS), &mut vec![]);
    }
    assert_eq!(client.front.waiting.len(), 0, "nobody waits for an answer any more");
    assert_eq!(client.handled(Method::Range, Code::ResourceExhausted), 0);
}

#[test]
fn requests_that_wait_are_bounded_and_end_with_their_calls() {
    let mut client = Closed::new(small(), 0);
    odd().take(2).for_each(|number| client.list(number, &list(3 * MIB)));
    let key = vec![b'k'; 900 << 10];
    let request = proto::RangeRequest { key: Bytes::from(key), ..Default::default() }.encode_to_vec();
    let numbers: Vec<u32> = odd().skip(2).take(100).collect();
    for number in &numbers {
        let asks = client.call(*number, super::bounds::RANGE, &request, true);
        client.serve(asks, &list(3 * MIB));
    }
    let waiting = crate::limits::LISTS_WAITING_BYTES_MAX / (901 << 10);
    assert_eq!(client.front.waiting.len(), waiting);
    assert_eq!(client.handled(Method::Range, Code::Unknown), 100 - waiting as u64, "come again");
    let mut reset = vec![];
    for number in &numbers {
        http2::frame::put_number(&mut reset, http2::frame::kind::RST_STREAM, *number, 8);
    }
    client.send(&reset);
    let asks = client.call(999, super::bounds::RANGE, &request, true);
    client.serve(asks, &list(3 * MIB));
    assert_eq!(client.front.waiting.len(), 1, "those that are gone make room");
}

#[test]
fn what_a_stream_holds_for_its_client_counts_and_is_given_back() {
    let mut client = Closed::new(small(), OPEN);
    client.open_windows(&[0], OPEN);
    let stream = range_stream(&mut client, 1);
    client.front.set_held(stream, 5 * MIB);
    assert_eq!(client.front.accounting.held.lists, 5 * MIB);
    let reply = list(2 * MIB);
    let asks = client.call(3, super::bounds::RANGE, b"\x0a\x01k", true);
    let rpc = rpc_of(&asks);
    assert!(client.front.takes(rpc, &reply).is_err());
    client.front.set_held(stream, MIB);
    assert!(client.front.takes(rpc, &reply).is_ok());
    client.front.end(stream, Ok(()));
    assert_eq!(client.front.accounting.held.lists, 0);
}

/// What is still being read counts, and is nobody's fault but ours.
#[test]
fn what_is_gathered_counts_and_no_reader_is_ended_for_it() {
    let mut client = Closed::new(small(), OPEN);
    client.open_windows(&[0], OPEN);
    let gathering = rpc_of(&client.call(1, super::bounds::RANGE, b"\x0a\x01k", true));
    client.front.set_gathered(gathering, 5 * MIB);
    assert_eq!(client.front.accounting.held.lists, 5 * MIB);
    assert!(!client.front.is_in_vain(gathering, MIB), "it does not stand in its own way");
    client.list(3, &list(2 * MIB));
    assert_eq!(client.front.waiting.len(), 1);
    for second in 1..3 * u64::from(READER_CHECKS_MAX) {
        let mut asks = vec![];
        client.front.on_time(Time::from_ms(second * READER_CHECK_MS), &mut asks);
        assert_eq!(asks, []);
    }
    assert_eq!(client.front.take_reader_losses(), []);
    let mut reset = vec![];
    http2::frame::put_number(&mut reset, http2::frame::kind::RST_STREAM, 1, 8);
    client.send(&reset);
    assert_eq!(client.front.accounting.held.lists, 0);
}

/// Whatever the limits, an honest client gets all it asks for.
#[test]
fn the_smallest_limits_that_work_hold_nobody_up_for_ever() {
    let http2 = http2::Http2Config { bounds: crate::limits::Http2Bounds::TINY, ..Default::default() };
    let config = FrontConfig::new(Header::default(), 1 << 20, 128, FrontBounds::TINY, http2);
    let mut client = Closed::new(config, 300);
    client.open_windows(&[0], OPEN);
    let reply = pairs(10, 200);
    // One that is taken, as many as may wait, one more, and a write beside them.
    let numbers: Vec<u32> = odd().take(4).collect();
    numbers.iter().for_each(|number| client.list(*number, &reply));
    assert_eq!((client.front.waiting.len(), client.handled(Method::Range, Code::Ok)), (3, 0));
    client.list(11, &reply);
    assert_eq!(client.handled(Method::Range, Code::Unknown), 1, "one too many comes again");
    let put = rpc_of(&client.call(99, PUT, &put(), true));
    client.front.answer(Time(0), put, Term(1), &put_reply());
    assert_eq!(client.handled(Method::Put, Code::Ok), 1);
    run(&mut client, &numbers, &reply);
    assert_eq!(client.handled(Method::Range, Code::Ok), 4);
    assert!(numbers.iter().all(|number| client.seen(*number).1 > 10 * 200));
    assert_eq!((client.front.accounting.held.lists, client.front.accounting.held.answers), (0, 0));
}
