//! The exact forms of a Watch stream, as etcd 3.7 gives them.

use super::reply::{NO_WATCHER, event_bytes};
use super::tests::bounds;
use super::*;
use crate::api::{WatchReply, WatchRequest};
use crate::stdx::Rng;
use crate::types::{Blob, Duration, LeaseId, Sub, Time};

const SHARDS: [ShardId; 2] = [ShardId(1), ShardId(2)];
const INTERVAL: Duration = Duration::from_ms(1000);

/// A stream over two shards without hubs: the test says what they send.
struct StreamClient {
    stream: WatchStream,
    watermarks: Watermarks,
    settled: u64,
    compacted: u64,
    now: Time,
    ids: u64,
    actions: Vec<Action>,
}

fn client(settled: u64) -> StreamClient {
    let stream = WatchStream::new(ReactorId(3), INTERVAL, 1000, bounds(), Rng::new(7));
    let (watermarks, now) = (Watermarks::default(), Time(0));
    StreamClient { stream, watermarks, settled, compacted: 0, now, ids: 0, actions: Vec::new() }
}

impl StreamClient {
    fn view(&self) -> View<'_> {
        let (settled, compacted) = (Revision(self.settled), Revision(self.compacted));
        View { now: self.now, settled, compacted, watermarks: &self.watermarks }
    }

    fn send(&mut self, request: WatchRequest, permitted: Result<(), AuthError>) -> Vec<WatchReply> {
        self.ids += 1;
        let (id, mut actions) = (SubscriptionId(self.ids), Vec::new());
        let view = View {
            now: self.now,
            settled: Revision(self.settled),
            compacted: Revision(self.compacted),
            watermarks: &self.watermarks,
        };
        let shards_of = |range: &KeyRange| match range {
            KeyRange::One(_) => vec![SHARDS[0]],
            _ => SHARDS.to_vec(),
        };
        self.stream.request(request, id, permitted, shards_of, view, &mut actions);
        self.actions.extend(actions);
        self.poll()
    }

    /// What comes next is watched by all shards at once.
    fn create(&mut self, create: WatchCreate) -> Vec<WatchReply> {
        let mut replies = self.send(WatchRequest::Create(create), Ok(()));
        let (id, settled) = (SubscriptionId(self.ids), Revision(self.settled));
        let joined = |action: &Action| match action {
            Action::Subscribe { shard, subscription: of } if of.id == id && of.from > settled => Some(*shard),
            _ => None,
        };
        let joined: Vec<ShardId> = self.actions.iter().filter_map(joined).collect();
        for shard in joined {
            self.batch(shard.0 as usize - 1, self.ids, Vec::new(), self.settled, true);
        }
        replies.extend(self.poll());
        replies
    }

    fn cancel(&mut self, watch_id: i64) -> Vec<WatchReply> {
        self.send(WatchRequest::Cancel { watch_id }, Ok(()))
    }

    fn poll(&mut self) -> Vec<WatchReply> {
        let (mut replies, mut actions) = (Vec::new(), Vec::new());
        loop {
            let (settled, compacted) = (Revision(self.settled), Revision(self.compacted));
            let view = View { now: self.now, settled, compacted, watermarks: &self.watermarks };
            match self.stream.poll(usize::MAX, view, &mut actions) {
                Some(reply) => replies.push(reply),
                None if self.stream.is_unfinished() => {}
                None => break,
            }
        }
        self.actions.extend(actions);
        replies
    }

    fn batch(&mut self, shard: usize, id: u64, events: Vec<Delivery>, upto: u64, in_step: bool) {
        let (id, reader, upto) = (SubscriptionId(id), ReactorId(3), Revision(upto));
        let message = HubMessage::Batch(EventBatch { id, reader, events, upto, in_step });
        self.stream.hub_message(SHARDS[shard], message, &mut self.actions);
    }

    fn raise_watermarks(&mut self, upto: u64) -> Vec<WatchReply> {
        self.settled = self.settled.max(upto);
        SHARDS.iter().for_each(|shard| self.watermarks.raise(*shard, Revision(upto)));
        self.poll()
    }

    /// Makes a watcher in step over both shards, from now on.
    fn watcher(&mut self, create: WatchCreate) -> u64 {
        let shards = if create.range_end.is_empty() { 1 } else { 2 };
        assert_eq!(self.create(create).len(), 1);
        (0..shards).for_each(|shard| self.batch(shard, self.ids, Vec::new(), self.settled, true));
        assert_eq!(self.poll(), []);
        self.ids
    }
}

fn one(key: &'static str) -> WatchCreate {
    WatchCreate { key: Bytes::from_static(key.as_bytes()), ..WatchCreate::default() }
}

fn all() -> WatchCreate {
    WatchCreate { range_end: Bytes::from_static(b"\0"), ..WatchCreate::default() }
}

fn put(main: u64, sub: u32, key: &str) -> Delivery {
    let kv = KeyValue {
        key: Blob::new(key.as_bytes()),
        value: Blob::new(&[b'v'; 300]),
        create_revision: Revision(main),
        mod_revision: Revision(main),
        version: 1,
        lease: LeaseId::NONE,
    };
    let event = WatchEvent { event: Event::Put(kv), prev_kv: None };
    (At { main: Revision(main), sub: Sub(sub) }, Arc::new(event))
}

/// Id, header, and the (revision, key) of each event.
fn brief(replies: &[WatchReply]) -> Vec<(i64, u64, Vec<String>)> {
    let name = |event: &WatchEvent| {
        format!("{}@{}", String::from_utf8_lossy(event.event.key()), event.event.revision())
    };
    replies
        .iter()
        .map(|reply| (reply.watch_id, reply.revision.0, reply.events.iter().map(name).collect()))
        .collect()
}

fn created(watch_id: i64, revision: u64) -> WatchReply {
    WatchReply { revision: Revision(revision), watch_id, created: true, ..WatchReply::default() }
}

fn refused(cancel_reason: &'static str, revision: u64) -> WatchReply {
    WatchReply { canceled: true, cancel_reason, ..created(NO_WATCHER, revision) }
}

#[test]
fn ids_count_from_0_and_skip_those_in_use() {
    let mut client = client(5);
    let chosen = |watch_id| WatchCreate { watch_id, ..one("k") };
    assert_eq!(client.create(chosen(0)), [created(0, 5)]);
    assert_eq!(client.create(chosen(1)), [created(1, 5)]);
    assert_eq!(client.create(chosen(0)), [created(2, 5)]);
    assert_eq!(client.create(chosen(-7)), [created(-7, 5)]);
    let duplicate = "mvcc: duplicate watch ID provided on the WatchStream";
    assert_eq!(client.create(chosen(2)), [refused(duplicate, 5)]);
    assert_eq!(client.cancel(1).len(), 1);
    assert_eq!(client.create(chosen(1)), [created(1, 5)], "free again");
    assert_eq!(client.create(chosen(0)), [created(3, 5)]);
}

#[test]
fn a_watch_that_cannot_be_is_created_and_canceled_under_no_id() {
    let mut client = client(5);
    let negative = WatchCreate { start_revision: -1, ..one("k") };
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    assert_eq!(client.create(negative.clone()), [refused(compacted, 5)]);
    let empty = "mvcc: watcher range is empty";
    for (key, end) in [("b", "a"), ("a", "a"), ("b", "\x01")] {
        let range = WatchCreate { range_end: Bytes::from_static(end.as_bytes()), ..one(key) };
        assert_eq!(client.create(range), [refused(empty, 5)]);
    }
    for (refusal, text) in [
        (
            AuthError::PermissionDenied,
            "rpc error: code = PermissionDenied desc = etcdserver: permission denied",
        ),
        (
            AuthError::InvalidAuthToken,
            "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token",
        ),
        (
            AuthError::AuthOldRevision,
            "rpc error: code = InvalidArgument desc = etcdserver: revision of auth store is old",
        ),
        (AuthError::UserEmpty, "rpc error: code = InvalidArgument desc = etcdserver: user name is empty"),
    ] {
        let request = WatchRequest::Create(WatchCreate { watch_id: 4, ..one("k") });
        assert_eq!(client.send(request, Err(refusal)), [refused(text, 5)]);
    }
    let both = client.send(WatchRequest::Create(negative), Err(AuthError::PermissionDenied));
    assert_eq!(both, [refused(compacted, 5)], "the start is checked first");
    assert!(client.actions.is_empty(), "nothing was subscribed");
    assert_eq!(client.create(WatchCreate { watch_id: 4, ..one("k") }), [created(4, 5)], "the stream goes on");
}

#[test]
fn a_watch_from_now_begins_behind_the_created_header() {
    let mut client = client(5);
    client.create(one("k"));
    client.create(WatchCreate { start_revision: 3, ..all() });
    client.create(WatchCreate { start_revision: 99, range_end: Bytes::from_static(b"\0"), ..one("k") });
    let subscribed: Vec<_> = client
        .actions
        .iter()
        .map(|action| match action {
            Action::Subscribe { shard, subscription } => (shard.0, subscription.id.0, subscription.from.0),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(subscribed, [(1, 1, 6), (1, 2, 3), (2, 2, 3), (1, 3, 99), (2, 3, 99)]);
    let Action::Subscribe { subscription, .. } = &client.actions[1] else { panic!("checked above") };
    assert_eq!(subscription.range, KeyRange::From(Bytes::from_static(b"\0")), "an empty key is the smallest");
}

#[test]
fn a_compacted_start_is_created_and_then_canceled_without_a_reason() {
    let mut client = client(9);
    client.compacted = 6;
    let gone = |watch_id| WatchReply {
        watch_id,
        canceled: true,
        compact_revision: Revision(6),
        ..WatchReply::default()
    };
    let from = |start_revision| WatchCreate { start_revision, ..one("k") };
    assert_eq!(client.create(from(5)), [created(0, 9), gone(0)]);
    assert_eq!(client.create(from(6)), [created(1, 9)], "the compacted revision itself is there");
    let message =
        HubMessage::Compacted { id: SubscriptionId(2), reader: ReactorId(3), revision: Revision(6) };
    client.stream.hub_message(SHARDS[0], message, &mut client.actions);
    assert_eq!(client.poll(), [gone(1)]);
    // To etcd both are there until the client cancels them.
    assert_eq!(client.create(from(0)), [created(2, 9)]);
    let canceled = WatchReply { revision: Revision(9), watch_id: 1, canceled: true, ..WatchReply::default() };
    assert_eq!(client.cancel(1), [canceled]);
    assert_eq!(client.cancel(1), []);
}

/// etcd registers a watch before it answers. One that is answered sooner is ended by a compaction that
/// overtakes its subscription, though all that its client was promised is still to come.
#[test]
fn a_watch_from_now_is_answered_when_all_shards_have_it_and_begins_behind_what_was_compacted() {
    let mut client = client(5);
    assert_eq!(client.send(WatchRequest::Create(all()), Ok(())), []);
    client.settled = 9;
    client.batch(0, 1, vec![put(6, 0, "a"), put(8, 0, "b")], 9, true);
    assert_eq!(client.poll(), []);
    let (id, reader, revision) = (SubscriptionId(1), ReactorId(3), Revision(8));
    let late = HubMessage::Compacted { id, reader, revision };
    client.actions.clear();
    client.stream.hub_message(SHARDS[1], late, &mut client.actions);
    let [Action::Renew { shard, subscription }] = &client.actions[..] else { panic!("{:?}", client.actions) };
    assert_eq!((*shard, subscription.id, subscription.from), (SHARDS[1], id, revision));
    assert_eq!(client.poll(), []);
    client.batch(1, 1, vec![put(9, 0, "x")], 9, true);
    let shown = [(0, 7, vec![]), (0, 9, vec!["b@8".into(), "x@9".into()])];
    assert_eq!(brief(&client.poll()), shown);
    // One that is told of is ended.
    client.stream.hub_message(
        SHARDS[1],
        HubMessage::Compacted { id, reader, revision: Revision(11) },
        &mut vec![],
    );
    assert!(client.poll()[0].canceled);
    // So is one that has named its beginning, as if it had come after the compaction.
    client.settled = 10;
    assert_eq!(client.send(WatchRequest::Create(WatchCreate { start_revision: 11, ..all() }), Ok(())), []);
    client.settled = 12;
    let late = HubMessage::Compacted { id: SubscriptionId(2), reader, revision: Revision(12) };
    client.stream.hub_message(SHARDS[0], late, &mut vec![]);
    let [begun, ended] = &client.poll()[..] else { panic!("created and canceled") };
    assert_eq!((begun, ended.compact_revision), (&created(1, 12), Revision(12)));
}

#[test]
fn what_a_shard_has_lost_is_dropped_and_its_credit_lent_once() {
    let mut client = client(5);
    assert_eq!(client.send(WatchRequest::Create(all()), Ok(())), []);
    client.settled = 9;
    let (id, reader, revision) = (SubscriptionId(1), ReactorId(3), Revision(8));
    client.batch(0, 1, vec![put(6, 0, "a"), put(7, 0, "b")], 7, false);
    client.actions.clear();
    client.stream.hub_message(SHARDS[0], HubMessage::Compacted { id, reader, revision }, &mut client.actions);
    assert!(matches!(&client.actions[..], [Action::Renew { .. }]), "{:?}", client.actions);
    assert_eq!(client.stream.stats().events, 0);
    client.batch(0, 1, vec![put(8, 0, "c")], 9, true);
    client.batch(1, 1, vec![], 9, true);
    assert_eq!(brief(&client.poll()), [(0, 7, vec![]), (0, 8, vec!["c@8".into()])]);
}

#[test]
fn a_cancel_is_answered_once_and_ends_the_subscriptions() {
    let mut client = client(5);
    assert_eq!(client.cancel(0), []);
    let id = client.watcher(all());
    client.batch(0, id, vec![put(6, 0, "a")], 6, true);
    client.actions.clear();
    let canceled = WatchReply { revision: Revision(5), watch_id: 0, canceled: true, ..WatchReply::default() };
    assert_eq!(client.cancel(0), [canceled]);
    assert_eq!((client.cancel(0), client.raise_watermarks(6)), (vec![], vec![]));
    let ended = |action: &Action| matches!(action, Action::Unsubscribe { id: of, .. } if of.0 == id);
    assert!(client.actions.len() == 2 && client.actions.iter().all(ended));
    client.batch(1, id, vec![put(7, 0, "x")], 7, true);
    assert_eq!(client.raise_watermarks(7), [], "late messages are ignored");
    assert_eq!(client.send(WatchRequest::Empty, Ok(())), []);
}

#[test]
fn events_of_several_shards_merge_up_to_the_lowest_position() {
    let mut client = client(5);
    let id = client.watcher(all());
    client.settled = 9;
    client.batch(0, id, vec![put(6, 1, "a"), put(8, 0, "b")], 8, true);
    assert!(client.poll().is_empty() && client.stream.waits_for_watermarks());
    client.batch(1, id, vec![put(6, 0, "x"), put(6, 2, "y")], 7, true);
    assert_eq!(brief(&client.poll()), [(0, 6, ["x@6", "a@6", "y@6"].map(String::from).to_vec())]);
    assert_eq!(brief(&client.raise_watermarks(8)), [(0, 8, vec!["b@8".into()])]);
    client.batch(0, id, Vec::new(), 8, false);
    client.batch(1, id, vec![put(9, 0, "x")], 9, true);
    assert_eq!(client.raise_watermarks(20), [], "a feed behind does not go by marks");
    client.batch(0, id, vec![put(9, 1, "a")], 10, false);
    assert_eq!(brief(&client.poll()), [(0, 20, vec!["x@9".into(), "a@9".into()])], "catching up: current");
}

#[test]
fn a_large_revision_is_cut_only_where_asked_for() {
    let many = || (0..7).map(|sub| put(6, sub, "a")).collect::<Vec<_>>();
    let bytes = event_bytes(&many()[0].1);
    assert!((310..330).contains(&bytes), "{bytes}");
    for (fragment, parts) in
        [(false, vec![(7, false)]), (true, vec![(2, true), (2, true), (2, true), (1, false)])]
    {
        let mut client = client(5);
        let id = client.watcher(WatchCreate { fragment, ..one("a") });
        client.batch(0, id, many(), 6, true);
        let replies = client.poll();
        let sizes: Vec<_> = replies.iter().map(|reply| (reply.events.len(), reply.fragment)).collect();
        assert_eq!(sizes, parts);
        assert!(replies.iter().all(|reply| reply.revision == Revision(6) && reply.watch_id == 0));
    }
}

#[test]
fn manual_progress_waits_for_what_it_promises() {
    let mut client = client(5);
    let progress = |client: &mut StreamClient| brief(&client.send(WatchRequest::Progress, Ok(())));
    let report = |revision| vec![(NO_WATCHER, revision, Vec::new())];
    assert_eq!(progress(&mut client), [], "nobody watches");
    let a = client.watcher(all());
    let b = client.watcher(one("k"));
    client.watermarks.raise(SHARDS[0], Revision(5));
    client.watermarks.raise(SHARDS[1], Revision(5));
    assert_eq!(progress(&mut client), report(5));
    client.settled = 7;
    assert_eq!(progress(&mut client), []);
    client.batch(0, a, vec![put(7, 0, "k"), put(8, 0, "k")], 8, true);
    client.batch(0, b, vec![put(7, 0, "k"), put(8, 0, "k")], 8, true);
    let behind = |revision| vec![format!("k@{revision}")];
    assert_eq!(brief(&client.poll()), [(1, 7, behind(7))], "nothing above 7 may pass");
    let rest = [(0, 7, behind(7)), (NO_WATCHER, 7, Vec::new()), (1, 8, behind(8)), (0, 8, behind(8))];
    let mut got = brief(&client.raise_watermarks(8));
    got[2..].sort_by_key(|(id, ..)| std::cmp::Reverse(*id));
    assert_eq!(got, rest);
    client.batch(0, b, Vec::new(), 8, false);
    assert_eq!(progress(&mut client), [], "one is behind: dropped");
    client.batch(0, b, Vec::new(), 8, true);
    assert_eq!(client.raise_watermarks(9), [], "and stays dropped");
    assert_eq!(progress(&mut client), report(9));
    client.create(WatchCreate { start_revision: 12, ..one("z") });
    client.batch(0, client.ids, Vec::new(), 9, true);
    assert_eq!(progress(&mut client), [], "one has not begun");
    client.raise_watermarks(12);
    assert_eq!(progress(&mut client), report(12));
}

#[test]
fn progress_is_notified_once_an_interval_without_events() {
    let mut client = client(5);
    let notify = WatchCreate { progress_notify: true, ..one("k") };
    let id = client.watcher(notify.clone());
    client.watcher(one("k"));
    let tenth = INTERVAL.0 / 10;
    let due = client.stream.wake_at();
    assert!(due.0 >= INTERVAL.0 && due.0 <= INTERVAL.0 + tenth, "up to a tenth of jitter");
    client.raise_watermarks(6);
    client.now = Time(due.0 - 1);
    assert_eq!(client.poll(), []);
    client.now = due;
    assert_eq!(brief(&client.poll()), [(0, 6, vec![])]);
    assert_eq!(client.poll(), []);
    client.batch(0, id, vec![put(7, 0, "k")], 7, true);
    assert_eq!(brief(&client.raise_watermarks(7)), [(0, 7, vec!["k@7".into()])]);
    client.now = client.stream.wake_at();
    assert_eq!(client.poll(), [], "the interval had an event");
    client.batch(0, id, Vec::new(), 7, false);
    client.now = client.stream.wake_at();
    assert_eq!(client.poll(), [], "behind");
    client.batch(0, id, Vec::new(), 7, true);
    client.now = client.stream.wake_at();
    assert_eq!(brief(&client.raise_watermarks(8)), [(0, 8, vec![])]);
    client.cancel(0);
    assert_eq!(client.stream.wake_at(), Time::NEVER);
    assert_eq!(client.create(WatchCreate { start_revision: 12, ..notify }).len(), 1);
    client.batch(0, client.ids, Vec::new(), 8, true);
    client.now = client.stream.wake_at();
    assert_eq!(client.raise_watermarks(10), [], "not below its start");
    assert_eq!(client.view().settled, Revision(10));
    assert_eq!(brief(&client.raise_watermarks(12)), [(2, 12, vec![])]);
}

#[test]
fn credit_goes_back_as_the_client_reads() {
    let mut client = client(5);
    let id = client.watcher(one("k"));
    client.actions.clear();
    let cost = cost_bytes(&put(6, 0, "k").1);
    let count = limits::WATCH_CREDIT_BYTES_MAX / cost;
    client.batch(0, id, (0..count as u64).map(|n| put(6 + n, 0, "k")).collect(), 10_000, true);
    assert!(client.actions.is_empty());
    let replies = client.poll();
    let longest = replies.iter().map(|reply| reply.events.len()).max();
    assert!(longest <= Some(limits::WATCH_REPLY_REVISIONS_MAX));
    let back: usize = client
        .actions
        .iter()
        .map(|action| match action {
            Action::Credit { shard: ShardId(1), id: SubscriptionId(1), bytes } => *bytes,
            other => panic!("{other:?}"),
        })
        .sum();
    assert!(back > limits::WATCH_CREDIT_BYTES_MAX / 2 && back <= limits::WATCH_CREDIT_BYTES_MAX);
}

#[test]
fn a_client_that_only_asks_is_not_read_for_ever() {
    let mut client = client(5);
    let request = || WatchRequest::Create(one("k"));
    while !client.stream.is_full() {
        client.ids += 1;
        let watermarks = client.watermarks.clone();
        let view = View {
            now: client.now,
            settled: Revision(5),
            compacted: Revision::NONE,
            watermarks: &watermarks,
        };
        let id = SubscriptionId(client.ids);
        client.stream.request(request(), id, Ok(()), |_| vec![SHARDS[0]], view, &mut client.actions);
    }
    assert_eq!(client.ids as usize, limits::WATCH_ANSWERS_MAX);
    (1..=client.ids).for_each(|id| client.batch(0, id, Vec::new(), 5, true));
    assert_eq!(client.poll().len(), limits::WATCH_ANSWERS_MAX);
    assert!(!client.stream.is_full());
    client.actions.clear();
    client.stream.close(&mut client.actions);
    assert_eq!(client.actions.len(), limits::WATCH_ANSWERS_MAX, "no subscription outlives the stream");
}
