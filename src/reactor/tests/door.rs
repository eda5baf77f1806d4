//! Requests that require a leader, and those that a learner gets.

use super::*;
use crate::checkpoint::ControlState;
use crate::reactor::turn::ReadOnly;
use crate::wire::Method;

const NO_LEADER: Option<(u8, &str)> = Some((14, "etcdserver: no leader"));
const REQUIRES_LEADER: &[(&[u8], &[u8])] = &[(b"hasleader", b"true")];

fn range() -> Vec<u8> {
    proto::RangeRequest { key: Bytes::from_static(b"a"), ..Default::default() }.encode_to_vec()
}

fn create() -> Vec<u8> {
    let create = proto::WatchCreateRequest { key: Bytes::from_static(b"a"), ..Default::default() };
    let create = proto::watch_request::RequestUnion::CreateRequest(create);
    proto::WatchRequest { request_union: Some(create) }.encode_to_vec()
}

fn renewal() -> Vec<u8> {
    proto::LeaseKeepAliveRequest { id: 5 }.encode_to_vec()
}

impl Member {
    /// One request of each kind that asks for a leader: their streams.
    fn ask_requiring_leader(&mut self) -> Vec<http2::StreamId> {
        let put = proto::PutRequest { key: Bytes::from_static(b"a"), ..Default::default() };
        let requests = [
            ("/etcdserverpb.KV/Put", put.encode_to_vec()),
            ("/etcdserverpb.KV/Range", range()),
            ("/etcdserverpb.KV/RangeStream", range()),
            ("/etcdserverpb.Lease/LeaseKeepAlive", renewal()),
            ("/etcdserverpb.Watch/Watch", create()),
            ("/etcdserverpb.Maintenance/Status", vec![]),
            ("/grpc.health.v1.Health/Check", vec![]),
            ("/grpc.health.v1.Health/Watch", vec![]),
        ];
        let streams = requests.map(|(path, message)| {
            let stream = self.client.request(path, REQUIRES_LEADER).expect("streams are free");
            self.client.send_message(stream, &message, path != "/etcdserverpb.Watch/Watch");
            stream
        });
        self.run();
        streams.to_vec()
    }

    /// Streams that are open, with and without the wish for a leader: watches and renewals.
    fn open_streams(&mut self) -> [http2::StreamId; 4] {
        let open = [
            ("/etcdserverpb.Watch/Watch", REQUIRES_LEADER, create()),
            ("/etcdserverpb.Lease/LeaseKeepAlive", REQUIRES_LEADER, renewal()),
            ("/etcdserverpb.Watch/Watch", &[], create()),
            ("/etcdserverpb.Lease/LeaseKeepAlive", &[], renewal()),
        ];
        let streams = open.map(|(path, fields, message)| {
            let stream = self.client.request(path, fields).expect("streams are free");
            self.client.send_message(stream, &message, false);
            stream
        });
        self.run();
        streams
    }

    fn ended_with(&self, stream: http2::StreamId) -> Option<(u8, &str)> {
        let status = self.statuses.iter().find(|(of, ..)| *of == stream.number());
        status.map(|(_, code, text)| (*code, text.as_str()))
    }

    fn answers_of(&self, stream: http2::StreamId) -> usize {
        self.answers.iter().filter(|(of, _)| *of == stream.number()).count()
    }

    fn lose_leader(&mut self) {
        self.disk_stands = true;
        let now = self.now;
        self.reactors[0].step(now, Input::Deposed { shard: ShardId::CONTROL });
        self.run();
    }

    fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
        self.run();
    }
}

fn member_with_a_lease() -> Member {
    let mut member = Member::new(2, 3);
    let grant = proto::LeaseGrantRequest { ttl: 60, id: 5 };
    let _: proto::LeaseGrantResponse = member.call("/etcdserverpb.Lease/LeaseGrant", &grant).unwrap();
    member
}

#[test]
fn what_requires_a_leader_is_refused_while_there_is_none() {
    let mut member = member_without_leader();
    member.wait(member.reactors[0].turn.settings.election_timeout);
    for stream in member.ask_requiring_leader() {
        assert_eq!(member.ended_with(stream), NO_LEADER, "{stream:?}");
    }
    assert!(member.reactors.iter().all(|reactor| reactor.calls.len() == 0), "nothing waits");
    member.write_all();
    for stream in member.ask_requiring_leader() {
        assert!(member.ended_with(stream).is_none_or(|status| status == (0, "")), "{stream:?}");
        assert!(member.answers_of(stream) > 0, "{stream:?}");
    }
}

/// As with etcd, which serves nobody before it has found its leader.
#[test]
fn what_requires_a_leader_waits_for_the_first_one() {
    let mut member = Member::before_its_first_turn(false, 2, settings(3));
    member.disk_stands = true;
    member.run();
    let asked = member.ask_requiring_leader();
    let refused = asked.iter().filter(|stream| member.ended_with(**stream) == NO_LEADER);
    assert_eq!(refused.count(), 0);
    member.write_all();
    for stream in asked {
        assert!(member.answers_of(stream) > 0, "{stream:?}");
    }
}

#[test]
fn open_streams_that_require_a_leader_outlive_a_short_takeover() {
    let mut member = member_with_a_lease();
    let streams = member.open_streams();
    member.lose_leader();
    let patience = member.reactors[0].turn.settings.leader_patience();
    member.wait(Duration(patience.0 - 100_000));
    // A message on a stream that is open is no new stream.
    for stream in [streams[1], streams[3]] {
        member.client.send_message(stream, &renewal(), false);
    }
    member.run();
    member.write_all();
    member.wait(patience);
    member.put("a", "1");
    for stream in streams {
        assert_eq!((member.ended_with(stream), member.answers_of(stream)), (None, 2));
    }
}

/// Whoever is refused asks again at once: a leader that is lost is given the time that etcd takes to notice.
#[test]
fn what_requires_a_leader_waits_for_a_short_takeover() {
    let mut member = member_without_leader();
    let asked = member.ask_requiring_leader();
    let election = member.reactors[0].turn.settings.election_timeout;
    member.wait(Duration(election.0 - 1));
    assert!(asked.iter().all(|stream| member.ended_with(*stream) != NO_LEADER));
    member.write_all();
    for stream in asked {
        assert!(member.ended_with(stream).is_none_or(|status| status == (0, "")), "{stream:?}");
        assert!(member.answers_of(stream) > 0, "{stream:?}");
    }
}

#[test]
fn streams_that_begin_just_after_the_loss_end_with_those_that_were_open() {
    let mut member = member_with_a_lease();
    member.lose_leader();
    let streams = member.open_streams();
    let patience = member.reactors[1].turn.settings.leader_patience();
    member.wait(patience);
    assert_eq!(streams.map(|stream| member.ended_with(stream)), [NO_LEADER, NO_LEADER, None, None]);
}

#[test]
fn open_streams_that_require_a_leader_end_where_none_is_found() {
    let mut member = member_with_a_lease();
    let streams = member.open_streams();
    member.lose_leader();
    let patience = member.reactors[1].turn.settings.leader_patience();
    let wakes = member.reactors[1].wake_at();
    assert!(wakes <= member.now + patience, "the reactor of the client wakes for it: {wakes:?}");
    member.wait(patience);
    assert_eq!(streams.map(|stream| member.ended_with(stream)), [NO_LEADER, NO_LEADER, None, None]);
    member.write_all();
    member.put("a", "1");
    assert_eq!(streams.map(|stream| member.answers_of(stream)), [1, 1, 2, 1]);
}

const NOT_AT_LEARNER: Option<(u8, &str)> = Some((9, "etcdserver: rpc not supported for learner"));
const WATCH: &str = "/etcdserverpb.Watch/Watch";

impl Member {
    /// What each reactor knows of the cluster says that this member learns.
    fn make_learner(&mut self) {
        let state = self.reactors[0].turn.control.to_state();
        self.learn_of_cluster(state);
    }

    /// Each reactor hears of a cluster in which this member learns.
    fn learn_of_cluster(&mut self, mut state: ControlState) {
        state.members.iter_mut().for_each(|member| member.is_learner = true);
        for reactor in &mut self.reactors {
            ReadOnly::change(&mut reactor.turn.control).adopt(&state);
        }
    }

    fn ask_of(&mut self, path: &str, fields: &[(&[u8], &[u8])], message: &[u8]) -> http2::StreamId {
        let stream = self.client.request(path, fields).expect("streams are free");
        self.client.send_message(stream, message, path != WATCH);
        stream
    }
}

fn serializable() -> Vec<u8> {
    let key = Bytes::from_static(b"a");
    proto::RangeRequest { key, serializable: true, ..Default::default() }.encode_to_vec()
}

fn txn_of_serializable() -> Vec<u8> {
    let range =
        proto::RangeRequest { key: Bytes::from_static(b"a"), serializable: true, ..Default::default() };
    let range = proto::RequestOp { request: Some(proto::request_op::Request::RequestRange(range)) };
    proto::TxnRequest { success: vec![range], ..Default::default() }.encode_to_vec()
}

/// As etcd has it, column by column: what else a request is wrong for counts less.
#[test]
fn a_learner_serves_serializable_ranges_and_its_status_alone() {
    let mut member = member_with_a_lease();
    member.put("a", "1");
    member.make_learner();
    let mut refused: Vec<(&str, Vec<u8>)> = vec![
        ("/etcdserverpb.KV/Range", range()),
        ("/etcdserverpb.KV/RangeStream", serializable()),
        ("/etcdserverpb.KV/Txn", txn_of_serializable()),
        ("/etcdserverpb.Lease/LeaseKeepAlive", renewal()),
        (WATCH, create()),
    ];
    let others = Method::ALL.iter().filter(|method| **method != Method::Status);
    refused.extend(others.map(|method| (method.path(), vec![])));
    for (path, message) in refused {
        let stream = member.ask_of(path, &[], &message);
        member.run();
        assert_eq!(member.ended_with(stream), NOT_AT_LEARNER, "{path}");
        assert_eq!(member.answers_of(stream), 0, "{path}");
    }
    let read = member.ask_of("/etcdserverpb.KV/Range", &[], &serializable());
    member.run();
    assert_eq!((member.ended_with(read), member.answers_of(read)), (Some((0, "")), 1));
    let status: proto::StatusResponse =
        member.call("/etcdserverpb.Maintenance/Status", &proto::StatusRequest {}).unwrap();
    assert!(status.is_learner);
    assert!(member.reactors.iter().all(|reactor| reactor.calls.len() == 0), "nothing waits");
}

#[test]
fn a_learner_says_so_before_it_misses_a_leader() {
    let mut member = member_without_leader();
    member.wait(member.reactors[0].turn.settings.election_timeout);
    member.make_learner();
    let put = proto::PutRequest { key: Bytes::from_static(b"a"), ..Default::default() }.encode_to_vec();
    for (path, message) in [("/etcdserverpb.KV/Put", put), (WATCH, create())] {
        let stream = member.ask_of(path, REQUIRES_LEADER, &message);
        member.run();
        assert_eq!(member.ended_with(stream), NOT_AT_LEARNER, "{path}");
    }
}

/// A member that joins knows only then that it is one.
#[test]
fn what_waits_is_refused_where_a_member_turns_out_to_be_a_learner() {
    let cluster = Member::new(2, 3).reactors[0].turn.control.to_state();
    let mut member = Member::before_its_first_turn(false, 2, settings(3));
    member.disk_stands = true;
    member.run();
    let put = proto::PutRequest { key: Bytes::from_static(b"a"), ..Default::default() }.encode_to_vec();
    let refused = [("/etcdserverpb.KV/Range", range()), ("/etcdserverpb.KV/Put", put), (WATCH, create())]
        .map(|(path, message)| member.ask_of(path, &[], &message));
    let read = member.ask_of("/etcdserverpb.KV/Range", &[], &serializable());
    member.run();
    assert!(refused.iter().chain([&read]).all(|stream| member.ended_with(*stream).is_none()), "they wait");
    member.learn_of_cluster(ControlState { index: 0, ..cluster });
    member.write_all();
    for stream in refused {
        assert_eq!((member.ended_with(stream), member.answers_of(stream)), (NOT_AT_LEARNER, 0));
    }
    assert_eq!((member.ended_with(read), member.answers_of(read)), (Some((0, "")), 1));
}

#[test]
fn pages_tell_of_a_learner() {
    let mut member = member_with_a_lease();
    assert!(member.page("/readyz").starts_with("HTTP/1.1 200 "));
    member.make_learner();
    let ready = member.page("/readyz");
    assert!(
        ready.starts_with("HTTP/1.1 503 ")
            && ready.contains("[-]non_learner failed: not supported for learner\n")
    );
    assert!(
        member.page("/health").starts_with("HTTP/1.1 200 ")
            && member.page("/livez").starts_with("HTTP/1.1 200 ")
    );
    assert!(member.page("/metrics").contains("\netcd_server_is_learner 1\n"));
}
