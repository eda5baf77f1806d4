//! Races that drawn events seldom win, run on purpose in a calm world: mail between two reactors is slow, or a
//! client takes nothing, at the moment at which it matters. What the calls are told is judged with all else.

use super::plan::{Fault, MemberFault};
use super::run::{PATIENCE, Run};
use super::workload::KEYS;
use super::world::Failure;
use crate::config::AutoCompaction;
use crate::stdx::Rng;
use crate::types::Duration;
use crate::wire::Method;
use crate::wire::proto::{self, Message, request_op::Request as Union, watch_request::RequestUnion};
use bytes::Bytes;

/// The longest way of mail that is slow: longer than a control entry takes.
const SLOW: Duration = Duration::from_ms(200);
/// How often it is looked whether something can be seen by now.
const LOOK_EVERY: Duration = Duration::from_ms(5);
const LOOKS_MAX: usize = 100;
/// More than a watch's progress is apart, and than a reactor may turn without doing anything.
const NAP: Duration = Duration::from_secs(3);
/// A stream of this window is full soon, where so many watches see every event.
const NARROW_BYTES: u32 = 1000;
const WATCHES: usize = 40;

impl Run<'_> {
    /// Between the reactors of a member, and with a client of it.
    pub(super) fn race(&mut self, member: usize) -> Result<(), Failure> {
        let mut rng = Rng::new(self.plan.seed ^ 0x4ACE);
        self.take_nothing(member)?;
        if self.world.reactors(member) == 1 {
            return Ok(());
        }
        self.use_a_new_lease(member, &mut rng)?;
        self.ask_for_progress(member, &mut rng)?;
        // One that compacts by itself might take what the observer hears of late.
        if self.plan.shape.auto_compaction == AutoCompaction::Off {
            self.compact_under_a_transaction(member, &mut rng)?;
            self.compact_under_a_transaction(member, &mut rng)?;
        }
        Ok(())
    }

    /// A start of a member finds the disk full, and what it says of that is kept; or the power goes again before it
    /// serves.
    pub(super) fn start_badly(&mut self, member: usize) -> Result<(), Failure> {
        let mut rng = Rng::new(self.plan.seed ^ 0xBAD_57A7);
        self.world.lose_power();
        if rng.chance(1, 2) {
            self.world.calm();
            let until = self.world.now + PATIENCE;
            while !self.world.is_up(member) {
                if self.world.now > until {
                    return Err(Failure::new("liveness", "a start neither serves nor ends"));
                }
                self.world.advance(self.world.now + Duration::from_us(10))?;
            }
            let power_loss = MemberFault::PowerLoss { steps: rng.below(100) };
            self.world.fault(Fault::Member(member, power_loss), rng);
            return self.world.advance(self.world.now + Duration::from_ms(100));
        }
        // For longer than it takes to come to where a start gives up.
        let span = Duration::from_us(300_000 + rng.below(60_000));
        self.world.fault(Fault::Member(member, MemberFault::FullDisk(span)), rng);
        self.advance(self.world.now + Duration::from_secs(1))?;
        if self.world.serving.len() > 1 {
            self.serve_again(&[member], "after a start on a full disk")?;
        }
        self.look_at_alarms(member)?;
        self.world.lose_power();
        self.world.calm();
        if self.world.serving.len() > 1 {
            self.serve_again(&[member], "after another power loss")?;
        }
        self.look_at_alarms(member)
    }

    fn look_at_alarms(&mut self, member: usize) -> Result<(), Failure> {
        self.must(member, Method::Alarm, proto::AlarmRequest::default().encode_to_vec())?;
        self.advance(self.world.now + Duration::from_secs(1))
    }

    /// No reactor turns for a client that takes nothing, whatever its watches are due to say.
    fn take_nothing(&mut self, member: usize) -> Result<(), Failure> {
        self.world.disconnect(0);
        self.world.clients[0].window_bytes = NARROW_BYTES;
        self.watch_everything(member, WATCHES)?;
        self.world.clients[0].stalled_until = self.world.now + NAP;
        for key in KEYS.into_iter().take(3) {
            let mut value = self.mark().to_vec();
            value.resize(NARROW_BYTES as usize, b'x');
            let put = proto::PutRequest { key: Bytes::from(key), value: value.into(), ..Default::default() };
            self.ask_of(0, Method::Put, put.encode_to_vec());
        }
        self.advance(self.world.now + NAP)?;
        self.come_to_rest("after a client took nothing")?;
        self.world.disconnect(0);
        self.world.clients[0].window_bytes = self.plan.shape.window_bytes;
        Ok(())
    }

    /// A stream of watches of the first client, which see every event. Gives the stream, if there is room for it.
    fn watch_everything(&mut self, member: usize, watches: usize) -> Result<Option<usize>, Failure> {
        let world = &mut *self.world;
        world.connect_with(0, member);
        let Some(stream) = world.clients[0].open_stream(world.now, &mut world.history) else {
            return Ok(None);
        };
        let all = Bytes::from_static(b"\0");
        for _ in 0..watches {
            let create = proto::WatchCreateRequest {
                key: all.clone(),
                range_end: all.clone(),
                progress_notify: true,
                ..Default::default()
            };
            let create = RequestUnion::CreateRequest(create);
            world.clients[0].ask(world.now, stream, create, &mut world.history);
        }
        world.send_to_server(0);
        self.advance(self.world.now + Duration::from_secs(1))?;
        Ok(Some(stream))
    }

    /// Progress is told no further than events are, though those of one reactor come late.
    fn ask_for_progress(&mut self, member: usize, rng: &mut Rng) -> Result<(), Failure> {
        let Some(stream) = self.watch_everything(member, 1)? else { return Ok(()) };
        let (watcher, other) = self.first_client_and_another(member, rng);
        self.world.slow_mail_between(member, other, watcher, SLOW);
        for (n, key) in KEYS.into_iter().enumerate() {
            let put = proto::PutRequest { key: Bytes::from(key), value: self.mark(), ..Default::default() };
            self.ask_of(n, Method::Put, put.encode_to_vec());
        }
        for _ in 0..8 {
            self.advance(self.world.now + Duration(SLOW.0 / 8))?;
            let world = &mut *self.world;
            let progress = RequestUnion::ProgressRequest(proto::WatchProgressRequest {});
            world.clients[0].ask(world.now, stream, progress, &mut world.history);
            world.send_to_server(0);
        }
        self.end_slow_mail()?;
        self.world.disconnect(0);
        Ok(())
    }

    /// The reactor of the first client's connection with a member, and some other.
    fn first_client_and_another(&mut self, member: usize, rng: &mut Rng) -> (usize, usize) {
        self.world.connect_with(0, member);
        let session = self.world.clients[0].session.as_ref();
        let own = session.map_or(0, |session| usize::from(session.conn.reactor.0));
        let reactors = self.world.reactors(member);
        (own, (own + 1 + rng.below(reactors as u64 - 1) as usize) % reactors)
    }

    /// Whoever was shown a lease can use it, though some reactor hears of its grant late.
    fn use_a_new_lease(&mut self, member: usize, rng: &mut Rng) -> Result<(), Failure> {
        let late = 1 + rng.below(self.world.reactors(member) as u64 - 1) as usize;
        self.world.slow_mail_between(member, 0, late, SLOW);
        let lease = self.world.history.next() as i64 + 1;
        let grant = proto::LeaseGrantRequest { ttl: 9, id: lease };
        self.ask_of(0, Method::LeaseGrant, grant.encode_to_vec());
        let first = self.world.history.next();
        for client in 0..LOOKS_MAX {
            let renewal = proto::LeaseKeepAliveRequest { id: lease };
            self.ask_of(client, Method::LeaseKeepAlive, renewal.encode_to_vec());
            self.advance(self.world.now + LOOK_EVERY)?;
            let answers = self.world.history.ops[first..].iter().flat_map(|op| op.messages.first());
            let mut answers = answers.map(|message| proto::LeaseKeepAliveResponse::decode(message.clone()));
            if answers.any(|answer| answer.is_ok_and(|answer| answer.ttl > 0)) {
                break;
            }
        }
        for (n, key) in KEYS.into_iter().enumerate() {
            let put = self.leased_put(key, lease).encode_to_vec();
            self.ask_of(n, Method::Put, put);
        }
        self.end_slow_mail()
    }

    /// A transaction over all shards reads what a compaction takes: all of it, unless it is told so. What is asked
    /// meanwhile shows whether the transaction came before.
    fn compact_under_a_transaction(&mut self, member: usize, rng: &mut Rng) -> Result<(), Failure> {
        let named = self.write_here_and_there()?;
        let compacted = self.write_here_and_there()?;
        self.await_observer(compacted)?;
        let (coordinator, other) = self.first_client_and_another(member, rng);
        match rng.chance(1, 2) {
            true => self.world.slow_mail_between(member, coordinator, other, SLOW),
            false => self.world.slow_mail_between(member, other, coordinator, SLOW),
        }
        let key = *rng.pick(&KEYS);
        let txn = read_and_put(named, key, self.mark());
        self.ask_of(0, Method::Txn, txn.encode_to_vec());
        // The reactor is asked once per shard, then for what it has, then for its part.
        let rounds = 2 + (self.plan.shape.shards / self.world.reactors(member)) as u64;
        self.advance(self.world.now + Duration(rng.below(rounds * SLOW.0 / 2)))?;
        let compact = proto::CompactionRequest { revision: compacted, physical: false };
        self.ask_of(1, Method::Compact, compact.encode_to_vec());
        for client in 0..8 {
            self.advance(self.world.now + Duration(SLOW.0 / 8))?;
            let alarms = proto::AlarmRequest::default();
            self.ask_of(client, Method::Alarm, alarms.encode_to_vec());
        }
        self.end_slow_mail()
    }

    /// Writes to some keys of all shards. Gives the newest revision that was shown.
    fn write_here_and_there(&mut self) -> Result<i64, Failure> {
        for (n, key) in KEYS.into_iter().enumerate().step_by(2) {
            let put = proto::PutRequest { key: Bytes::from(key), value: self.mark(), ..Default::default() };
            self.ask_of(n, Method::Put, put.encode_to_vec());
        }
        self.come_to_rest("after a few writes")?;
        Ok(self.world.clients.iter().map(|client| client.revision).max().unwrap_or_default())
    }

    fn end_slow_mail(&mut self) -> Result<(), Failure> {
        self.come_to_rest("while mail was slow")?;
        self.world.end_slow_mail();
        self.advance(self.world.now + SLOW)
    }
}

/// A transaction that reads everything as it was at a revision, and writes.
fn read_and_put(named: i64, key: &'static str, value: Bytes) -> proto::TxnRequest {
    let all = Bytes::from_static(b"\0");
    let range =
        proto::RangeRequest { key: all.clone(), range_end: all, revision: named, ..Default::default() };
    let put = proto::PutRequest { key: Bytes::from(key), value, ..Default::default() };
    let ops = [Union::RequestRange(range), Union::RequestPut(put)];
    let success = ops.map(|op| proto::RequestOp { request: Some(op) }).to_vec();
    proto::TxnRequest { success, ..Default::default() }
}
