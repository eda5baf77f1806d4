//! Requests that require a leader.

use super::*;

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
