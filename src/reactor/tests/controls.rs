//! What the control shard's reactor decides, where much waits for it.

use super::*;
use crate::api::{CompactRequest, LeaseGrantRequest, Request};
use crate::io::{ControlRequest, LeaderMail};
use crate::limits::{CONTROL_PENDING_MAX, EMPTY_SHARD_BYTES, LEASE_BYTES};
use crate::types::LeaseId;

const COMPACT: &str = "/etcdserverpb.KV/Compact";

impl Member {
    /// A request to the control shard from a call that nobody waits for at the other reactor.
    fn ask_control(&mut self, number: u64, request: ControlRequest) {
        let call = CallId { reactor: ReactorId(1), number: 1_000_000 + number };
        let epoch = self.reactors[0].turn.epoch();
        let until = self.now + self.reactors[0].turn.settings.request_timeout();
        let mail = Mail { epoch, body: LeaderMail::Control { call, request, until, own: false }.into() };
        self.reactors[0].step(self.now, Input::Mail { from: ReactorId(1), mail });
    }

    fn grant(&mut self, id: i64, ttl: i64) -> Result<(), (u8, String)> {
        let grant = proto::LeaseGrantRequest { ttl, id };
        let reply: Result<proto::LeaseGrantResponse, _> = self.call("/etcdserverpb.Lease/LeaseGrant", &grant);
        reply.map(|_| ())
    }

    fn has_lease(&mut self, id: i64) -> bool {
        let request = proto::LeaseTimeToLiveRequest { id, keys: false };
        let reply: proto::LeaseTimeToLiveResponse =
            self.call("/etcdserverpb.Lease/LeaseTimeToLive", &request).unwrap();
        reply.granted_ttl > 0
    }

    /// A call that is not awaited, when all that can be done for it is.
    fn begin<Q: Message>(&mut self, path: &str, request: &Q) -> http2::StreamId {
        let stream = self.ask(path, request);
        self.run();
        stream
    }

    fn status_of(&self, stream: http2::StreamId) -> Option<u8> {
        self.statuses.iter().find(|(of, ..)| *of == stream.number()).map(|(_, code, _)| *code)
    }
}

fn compact_to(revision: i64) -> proto::CompactionRequest {
    proto::CompactionRequest { revision, physical: false }
}

#[test]
fn renewals_of_an_expired_lease_do_not_keep_it_from_ending() {
    let mut member = Member::new(2, 3);
    member.grant(5, 2).unwrap();
    // Expired, and the lead has not looked yet.
    member.now = member.now + Duration::from_secs(3);
    for number in 0..2 * CONTROL_PENDING_MAX as u64 {
        member.ask_control(number, ControlRequest::KeepAlive(LeaseId(5)));
    }
    member.run();
    assert!(!member.has_lease(5));
    member.grant(6, 60).unwrap();
    member.put("a", "1");
    let _: proto::CompactionResponse = member.call(COMPACT, &compact_to(2)).unwrap();
}

#[test]
fn an_expired_lease_ends_however_much_is_asked_meanwhile() {
    let mut member = Member::new(2, 3);
    member.grant(5, 2).unwrap();
    // What is asked now waits for a write that is not settled.
    member.disk_stands = true;
    let put = proto::PutRequest { key: Bytes::from_static(b"a"), ..Default::default() };
    member.begin("/etcdserverpb.KV/Put", &put);
    for number in 0..CONTROL_PENDING_MAX as u64 {
        let grant = LeaseGrantRequest { id: LeaseId(number as i64 + 10), ttl: 60 };
        member.ask_control(number, ControlRequest::Client(Request::LeaseGrant(grant)));
    }
    member.now = member.now + Duration::from_secs(3);
    member.run();
    member.write_all();
    assert!(!member.has_lease(5) && member.has_lease(10));
}

#[test]
fn what_waits_for_a_lease_is_dropped_when_nobody_waits_for_it_any_more() {
    let mut member = Member::new(2, 3);
    member.grant(5, 60).unwrap();
    member.disk_stands = true;
    let waiting = |member: &Member| member.reactors[0].leader.as_ref().unwrap().waiting_len();
    for number in 0..10 {
        member.ask_control(number, ControlRequest::Client(Request::LeaseRevoke(LeaseId(5))));
    }
    member.run();
    assert_eq!(waiting(&member), 9);
    member.now = member.now + member.reactors[0].turn.settings.request_timeout() + Duration::from_ms(500);
    member.run();
    assert_eq!(waiting(&member), 0);
    member.write_all();
    assert!(!member.has_lease(5));
}

#[test]
fn nobody_hears_of_a_compaction_that_is_not_durable() {
    let mut member = Member::new(2, 3);
    for n in 0..10 {
        member.put("a", &n.to_string());
    }
    member.disk_stands = true;
    let first = member.begin(COMPACT, &compact_to(8));
    let others = [7, 8].map(|revision| member.begin(COMPACT, &compact_to(revision)));
    let request = CompactRequest { revision: 8, physical: true };
    member.ask_control(0, ControlRequest::Client(Request::Compact(request)));
    member.run();
    assert_eq!(others.map(|stream| member.status_of(stream)), [None; 2]);
    member.write_all();
    assert_eq!(member.status_of(first), Some(0));
    assert_eq!(others.map(|stream| member.status_of(stream)), [Some(11); 2]);
}

/// By the formula of the sizes: what shards without keys hold, and so many leases.
fn size_with(shards: u64, leases: u64) -> u64 {
    shards * EMPTY_SHARD_BYTES + leases * LEASE_BYTES
}

#[test]
fn leases_count_against_the_quota_and_raise_its_alarm() {
    // With the control shard.
    let shards = 4;
    let quota_bytes = Some(size_with(shards, 10));
    let mut member = Member::with(1, Settings { quota_bytes, ..settings(3) });
    let full = (8, Error::NoSpace.to_string());
    for id in 1..10 {
        member.grant(id, 60).unwrap();
    }
    assert_eq!(member.grant(10, crate::limits::LEASE_TTL_SECS_MAX + 1), Err(full.clone()));
    assert_eq!(member.reactors[0].turn.control.alarms(AlarmType::None).len(), 1);
    assert_eq!(member.grant(10, 60), Err(full));
    let status = |member: &mut Member| -> proto::StatusResponse {
        member.call("/etcdserverpb.Maintenance/Status", &proto::StatusRequest::default()).unwrap()
    };
    let sizes = |status: proto::StatusResponse| (status.db_size, status.db_size_in_use);
    let bytes = size_with(shards, 9) as i64;
    assert_eq!(sizes(status(&mut member)), (bytes, bytes));
    for id in 1..10 {
        let revoke = proto::LeaseRevokeRequest { id };
        let _: proto::LeaseRevokeResponse = member.call("/etcdserverpb.Lease/LeaseRevoke", &revoke).unwrap();
    }
    let bytes = size_with(shards, 0) as i64;
    assert_eq!(sizes(status(&mut member)), (bytes, bytes));
}

/// A refusal shows the alarm, and a reactor that does not know of it would take the next put.
#[test]
fn an_alarm_keeps_nobody_out_before_every_reactor_knows_of_it() {
    let mut member = Member::new(3, 3);
    member.cut_off = Some((ReactorId(1), vec![]));
    let alarm = proto::AlarmRequest { action: 1, member_id: 7, alarm: 1 };
    let alarm = member.begin("/etcdserverpb.Maintenance/Alarm", &alarm);
    let router = member.reactors[2].turn.router();
    let is_of_2 = |byte: &u8| router.reactor_of(router.shard_of(&[*byte])) == ReactorId(2);
    let key = Bytes::from(vec![(0..=255).find(is_of_2).expect("each has a shard")]);
    let put = member.begin("/etcdserverpb.KV/Put", &proto::PutRequest { key, ..Default::default() });
    assert!(member.reactors[2].turn.control.no_space() && !member.reactors[1].turn.control.no_space());
    assert_eq!([alarm, put].map(|stream| member.status_of(stream)), [None; 2]);
    member.hears_again();
    member.run();
    assert_eq!([alarm, put].map(|stream| member.status_of(stream)), [Some(0), Some(8)]);
}

/// Who is told that a revision is compacted asks another reactor next, which does not know it yet.
#[test]
fn a_compaction_takes_effect_at_all_reactors_at_once() {
    let mut member = Member::new(3, 3);
    for _ in 0..3 {
        let put = proto::PutRequest { key: Bytes::from_static(b"k"), ..Default::default() };
        let _: proto::PutResponse = member.call("/etcdserverpb.KV/Put", &put).unwrap();
    }
    member.cut_off = Some((ReactorId(1), vec![]));
    let compact = member.begin(COMPACT, &proto::CompactionRequest { revision: 4, physical: false });
    let range = proto::RangeRequest { key: Bytes::from_static(b"k"), revision: 3, ..Default::default() };
    let early = member.begin("/etcdserverpb.KV/Range", &range);
    assert_eq!(member.reactors[2].turn.control.compacted(), Revision(4), "it has come");
    assert_eq!([compact, early].map(|stream| member.status_of(stream)), [None, Some(0)]);
    member.hears_again();
    member.run();
    let late = member.begin("/etcdserverpb.KV/Range", &range);
    assert_eq!([compact, late].map(|stream| member.status_of(stream)), [Some(0), Some(11)]);
}

#[test]
fn grants_on_their_way_count_against_the_quota() {
    let quota_bytes = Some(size_with(2, 10));
    let mut member = Member::with(1, Settings { quota_bytes, ..settings(1) });
    member.disk_stands = true;
    for id in 1..=100 {
        member.begin("/etcdserverpb.Lease/LeaseGrant", &proto::LeaseGrantRequest { id, ttl: 60 });
    }
    member.write_all();
    assert_eq!(member.reactors[0].turn.control.leases.len(), 9);
}

#[test]
fn what_names_an_ending_lease_waits_for_its_end() {
    let mut member = Member::new(2, 3);
    member.grant(5, 60).unwrap();
    member.grant(6, 60).unwrap();
    member.disk_stands = true;
    for id in [5, 6] {
        member.begin("/etcdserverpb.Lease/LeaseRevoke", &proto::LeaseRevokeRequest { id });
    }
    let put = |key, lease| proto::PutRequest { key: Bytes::from_static(key), lease, ..Default::default() };
    let op = |lease| {
        move |key| proto::RequestOp { request: Some(proto::request_op::Request::RequestPut(put(key, lease))) }
    };
    let keys: [&[u8]; 2] = [b"/registry/pods/x", b"a"];
    let streams = [5, 6].map(|lease| {
        let txn = proto::TxnRequest { success: keys.map(op(lease)).to_vec(), ..Default::default() };
        let one = member.begin("/etcdserverpb.KV/Put", &put(b"a", lease));
        [one, member.begin("/etcdserverpb.KV/Txn", &txn)]
    });
    let waiting = |member: &Member| -> usize {
        member
            .reactors
            .iter()
            .map(|reactor| reactor.shards.waits_for_leases() + reactor.calls.waits_for_leases())
            .sum()
    };
    assert_eq!(waiting(&member), 4);
    member.write_all();
    assert_eq!(
        streams.as_flattened().iter().map(|of| member.status_of(*of)).collect::<Vec<_>>(),
        [Some(5); 4]
    );
    assert_eq!(waiting(&member), 0);
}

/// Their ends are two parts of one entry, and who waits for the first one's is answered with what the second finds.
#[test]
fn leases_that_end_in_one_entry_leave_nobody_without_an_answer() {
    let mut member = Member::new(2, 3);
    // In two shards of one reactor, so that both take as many turns.
    let router = member.reactors[0].turn.router().clone();
    let in_shard = |shard| (0..=u8::MAX).find(|byte| router.shard_of(&[*byte]) == ShardId(shard)).unwrap();
    assert_eq!(router.reactor_of(ShardId(1)), router.reactor_of(ShardId(3)));
    for (lease, key) in [(5, in_shard(1)), (6, in_shard(3))] {
        member.grant(lease, 60).unwrap();
        let put = proto::PutRequest { key: vec![key].into(), lease, ..Default::default() };
        let _: proto::PutResponse = member.call("/etcdserverpb.KV/Put", &put).unwrap();
    }
    let revokes =
        [5, 5, 6].map(|id| member.ask("/etcdserverpb.Lease/LeaseRevoke", &proto::LeaseRevokeRequest { id }));
    member.run();
    assert_eq!(revokes.map(|of| member.status_of(of)), [Some(0), Some(5), Some(0)]);
}

/// A reactor that is yet to hear that its epoch serves knows no alarm of before the start: were it asked, Status
/// would show none.
#[test]
fn who_does_not_serve_says_nothing_of_alarms() {
    let mut member = Member::new(2, 2);
    assert!(member.reactors.iter().all(|reactor| reactor.alarms_known().is_some()));
    member.reactors[0].step(member.now, Input::Deposed { shard: ShardId::CONTROL });
    assert_eq!(member.reactors[0].alarms_known(), None);
    member.run();
    assert!(member.reactors.iter().all(|reactor| reactor.alarms_known().is_some()), "the next epoch serves");
}
