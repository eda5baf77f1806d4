//! Connections that go where their requests do.

use super::*;

const THERE: ReactorId = ReactorId(1);

impl Wire {
    /// One put, which goes to a reactor, from its request to its answer.
    fn put_at(&mut self, reactor: ReactorId) {
        let stream = self.client.call(PUT, &[(b"client-api-version", b"3.7.1")], &put()).unwrap();
        let rpc = rpc_of(&self.run());
        self.front.asks_of(rpc, reactor);
        self.front.answer(self.now, rpc, Term(3), &put_reply());
        self.run();
        assert_eq!(self.status(stream), Some((0, "")));
    }

    /// The connection comes to another front, under another name.
    fn arrive(&mut self, mut front: Front) {
        let (to, state) = self.moved.take().expect("it has moved");
        self.conn = ConnId { reactor: to, slot: 5, generation: 9 };
        front.moved(self.conn, state);
        self.front = front;
    }
}

#[test]
fn a_connection_goes_where_its_requests_do_and_goes_on_there() {
    let mut wire = Wire::new();
    wire.put_at(CONN.reactor);
    assert!(wire.moved.is_none(), "it is where its requests go");
    wire.put_at(THERE);
    assert_eq!(wire.moved.as_ref().map(|(to, _)| *to), Some(THERE));
    let mut asks = vec![];
    assert_eq!(wire.front.open(), 0, "it is nobody's");
    wire.front.receive(wire.now, wire.conn, b"what comes too late", &mut asks);
    wire.front.closed(wire.conn, &mut asks);
    assert!(asks.is_empty());
    wire.arrive(front());
    // The header block refers to what the client has sent before the move.
    (0..3).for_each(|_| wire.put_at(THERE));
    assert!(wire.moved.is_none());
    assert_eq!((wire.front.open(), wire.front.counters.of(Method::Put).started), (1, 3));
    for put in 0..8 {
        assert!(wire.moved.is_none(), "after {put} puts elsewhere");
        wire.put_at(CONN.reactor);
    }
    assert!(wire.moved.is_some(), "the way back takes longer");
}

#[test]
fn what_is_under_way_keeps_a_connection_where_it_is() {
    let mut wire = Wire::new();
    let (_, watch) = wire.open_watch();
    (0..20).for_each(|_| wire.put_at(THERE));
    assert!(wire.moved.is_none(), "a stream is open");
    wire.front.end(watch, Ok(()));
    wire.run();
    assert!(wire.moved.is_some(), "the last stream has ended");
}

#[test]
fn a_connection_that_is_sent_back_goes_on() {
    let mut wire = Wire::new();
    wire.put_at(THERE);
    let (_, state) = wire.moved.take().unwrap();
    wire.front.moved(CONN, state);
    assert_eq!(wire.front.open(), 1);
    (0..7).for_each(|_| wire.put_at(THERE));
    assert!(wire.moved.is_none(), "it asks again later");
    wire.put_at(THERE);
    assert!(wire.moved.is_some());
}

#[test]
fn nothing_moves_to_or_from_a_front_that_stops() {
    let mut wire = Wire::new();
    wire.put_at(THERE);
    let mut stopping = front();
    stopping.stop();
    wire.arrive(stopping);
    wire.run();
    assert!(wire.closed, "it has nothing under way");
    let mut wire = Wire::new();
    let stream = wire.client.call(PUT, &[], &put()).unwrap();
    let rpc = rpc_of(&wire.run());
    wire.front.asks_of(rpc, THERE);
    wire.front.stop();
    wire.front.answer(wire.now, rpc, Term(3), &put_reply());
    wire.run();
    assert_eq!((wire.status(stream), wire.closed), (Some((0, "")), true));
    assert!(wire.moved.is_none());
}
