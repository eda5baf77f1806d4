//! What must hold once nothing goes wrong any more: calls are answered, and in time; what was written is there
//! after one more crash; limits are kept.

use super::member::Death;
use super::run::{PATIENCE, Run};
use super::workload::KEYS;
use super::world::{Failure, World};
use crate::api::Error;
use crate::config::AutoCompaction;
use crate::limits::PEER_QUEUED_MESSAGES_MAX;
use crate::types::Duration;
use crate::wire::Method;
use crate::wire::proto::{self, Message, request_op::Request as Union};
use bytes::Bytes;

/// About how long a reactor rests between two turns.
const AT_ONCE: Duration = Duration::from_us(20);

impl Run<'_> {
    /// One call to a member by a client of its own, which must succeed.
    pub(super) fn must(&mut self, member: usize, method: Method, request: Vec<u8>) -> Result<Bytes, Failure> {
        match self.ask_alone(member, method, request)? {
            Ok(message) => Ok(message),
            Err(status) => Err(Failure::new("liveness", format!("{method:?}: {status}"))),
        }
    }

    /// One call to a member by a client of its own, which must be answered. Nothing goes wrong any more, so no
    /// outcome is unknown; one that is told to come again does.
    pub(super) fn ask_alone(
        &mut self,
        member: usize,
        method: Method,
        request: Vec<u8>,
    ) -> Result<Result<Bytes, String>, Failure> {
        self.ask_in_steps(member, method, request, Duration::from_ms(100))
    }

    /// The answer is looked for so often.
    fn ask_in_steps(
        &mut self,
        member: usize,
        method: Method,
        request: Vec<u8>,
        step: Duration,
    ) -> Result<Result<Bytes, String>, Failure> {
        let (until, request) = (self.world.now + PATIENCE, Bytes::from(request));
        loop {
            self.world.connect_with(0, member);
            if let Some(op) = self.world.call(0, method, request.clone()) {
                let patience = self.world.now + Duration::from_secs(10);
                while world_op_open(self.world, op) && self.world.now < patience {
                    self.advance(self.world.now + step)?;
                }
                let answered = &self.world.history.ops[op];
                if answered.is_ok() {
                    return Ok(Ok(answered.messages[0].clone()));
                }
                if answered.is_unknown() {
                    let what = format!("call {op} ({method:?}) has no outcome: {:?}", answered.status);
                    return Err(Failure::new("liveness", what));
                }
                if !answered.is_refused() {
                    return Ok(Err(answered.status.1.clone()));
                }
            }
            self.advance(self.world.now + Duration::from_ms(100))?;
            if self.world.now > until {
                return Err(Failure::new("liveness", format!("{method:?} does not get through")));
            }
        }
    }

    /// New calls to a member succeed, in every shard.
    pub(super) fn probe(&mut self, member: usize) -> Result<proto::HashKvResponse, Failure> {
        self.disarm(member)?;
        for key in KEYS {
            if !self.put(member, key, 0)? {
                self.make_room(member)?;
                if !self.put(member, key, 0)? {
                    return Err(Failure::new("no space", "there is no room after all was deleted"));
                }
            }
        }
        self.must(member, Method::Range, everything().encode_to_vec())?;
        self.hash(member, 0)
    }

    /// New calls to every member succeed.
    pub(super) fn probe_all(&mut self) -> Result<Vec<proto::HashKvResponse>, Failure> {
        self.world.serving.clone().into_iter().map(|member| self.probe(member)).collect()
    }

    /// Asks a member to disarm whoever has run out of space.
    fn disarm(&mut self, member: usize) -> Result<(), Failure> {
        let ids = self.world.history.known.members.iter().map(|member| member.id.0);
        let ids: Vec<u64> = ids.filter(|id| *id != 0).collect();
        for member_id in ids {
            let disarm = proto::AlarmRequest { action: 2, member_id, alarm: 1 };
            self.must(member, Method::Alarm, disarm.encode_to_vec())?;
        }
        Ok(())
    }

    /// False where there is no space.
    fn put(&mut self, member: usize, key: &'static str, filling: usize) -> Result<bool, Failure> {
        let mut value = super::workload::tag(self.world.history.next()).into_bytes();
        value.resize(value.len() + filling, b'x');
        let put = proto::PutRequest { key: Bytes::from(key), value: value.into(), ..Default::default() };
        match self.ask_alone(member, Method::Put, put.encode_to_vec())? {
            Ok(_) => Ok(true),
            Err(text) if text == Error::NoSpace.to_string() && self.plan.shape.quota_bytes.is_some() => {
                Ok(false)
            }
            Err(text) => Err(Failure::new("liveness", format!("a put: {text}"))),
        }
    }

    /// The quota is used up: what it keeps is deleted and compacted, and the alarm disarmed.
    fn make_room(&mut self, member: usize) -> Result<(), Failure> {
        let proto::RangeRequest { key, range_end, .. } = everything();
        let delete = proto::DeleteRangeRequest { key, range_end, prev_kv: false };
        let deleted = self.must(member, Method::DeleteRange, delete.encode_to_vec())?;
        let revision = super::history::header(&deleted).map_or(0, |header| header.revision);
        self.await_observer(revision)?;
        self.compact(member, revision)?;
        // Each member raises the alarm of its own quota, and one may lag.
        self.advance(self.world.now + Duration::from_secs(1))?;
        self.disarm(member)
    }

    /// True if it was not compacted already.
    fn compact(&mut self, member: usize, revision: i64) -> Result<bool, Failure> {
        let compact = proto::CompactionRequest { revision, physical: true };
        match self.ask_in_steps(member, Method::Compact, compact.encode_to_vec(), AT_ONCE)? {
            Ok(_) => Ok(true),
            Err(text) if text == Error::Compacted.to_string() => Ok(false),
            Err(text) => Err(Failure::new("liveness", format!("a compaction: {text}"))),
        }
    }

    pub(super) fn await_observer(&mut self, revision: i64) -> Result<(), Failure> {
        let until = self.world.now + PATIENCE;
        while self.observed < revision {
            if self.world.now > until {
                let what = format!("the observer is at {} of {revision}", self.observed);
                return Err(Failure::new("watch", what));
            }
            self.advance(self.world.now + Duration::from_ms(10))?;
        }
        Ok(())
    }

    fn status(&mut self, member: usize) -> Result<proto::StatusResponse, Failure> {
        let status = self.ask_in_steps(member, Method::Status, vec![], AT_ONCE)?;
        let status = status.map_err(|why| Failure::new("liveness", format!("Status: {why}")))?;
        Ok(proto::StatusResponse::decode(status).expect("the server speaks protobuf"))
    }

    /// A quota is kept, its alarm outlives the process, and what was deleted makes room.
    pub(super) fn use_quota_up(&mut self, member: usize, quota: u64) -> Result<(), Failure> {
        let mut n = 0;
        while self.put(member, KEYS[n % KEYS.len()], 1500)? {
            n += 1;
            let size = self.status(member)?.db_size_in_use;
            // Each reactor knows of the others to some bytes.
            if size > quota.cast_signed() + 4000 {
                return Err(Failure::new(
                    "no space",
                    format!("{size} bytes are taken, the quota is {quota}"),
                ));
            }
        }
        self.world.lose_power();
        self.recover("after the quota was used up")?;
        if self.put(member, KEYS[0], 0)? {
            return Err(Failure::new("no space", "the alarm is forgotten"));
        }
        self.make_room(member)?;
        self.probe_all().map(|_| ())
    }

    /// A physical compaction has dropped what it drops when it is answered: nothing goes afterwards.
    pub(super) fn compact_physically(&mut self, member: usize) -> Result<(), Failure> {
        let revision = self.hash(member, 0)?.hash_revision;
        self.await_observer(revision)?;
        if !self.compact(member, revision)? {
            return Ok(());
        }
        let at_once = self.status(member)?.db_size_in_use;
        self.advance(self.world.now + Duration::from_secs(2))?;
        let later = self.status(member)?.db_size_in_use;
        if later < at_once {
            let what = format!("of {at_once} bytes {} went after it was answered", at_once - later);
            return Err(Failure::new("compaction", what));
        }
        Ok(())
    }

    /// Disks without a free byte: however often the processes die, the next ones serve what was there, and the
    /// last ones take what makes room. Once there is room they take everything.
    pub(super) fn outlive_full_disks(&mut self) -> Result<(), Failure> {
        if !self.plan.shape.begins_on_a_full_disk() {
            return Ok(());
        }
        let before = self.probe_all()?;
        self.world.fill_disks();
        for death in [Death::Kill, Death::PowerLoss, Death::Kill, Death::Kill, Death::PowerLoss] {
            self.world.all_die(death);
            self.world.calm();
            self.come_to_rest("on a full disk")?;
            for (member, before) in self.world.serving.clone().into_iter().zip(&before) {
                let after = self.hash(member, before.hash_revision)?;
                if after.hash != before.hash {
                    let what =
                        format!("m{member}: {before:?} before {death:?} on a full disk, {after:?} after");
                    return Err(Failure::new("state after a restart", what));
                }
            }
            self.advance(self.world.now + Duration::from_secs(3))?;
        }
        for member in self.world.serving.clone() {
            let delete = proto::DeleteRangeRequest { key: Bytes::from(KEYS[0]), ..Default::default() };
            let deleted = self.must(member, Method::DeleteRange, delete.encode_to_vec())?;
            let revision = super::history::header(&deleted).map_or(0, |header| header.revision);
            self.await_observer(revision)?;
            self.compact(member, revision)?;
        }
        self.world.empty_disks();
        self.advance(self.world.now + Duration::from_secs(10))?;
        self.probe_all().map(|_| ())
    }

    /// Calls of all clients at once, all over the shards, are answered as fast as disk and network allow: no
    /// reactor that others settle for sleeps until something else wakes it. Nobody watches, as that would wake
    /// reactors too.
    pub(super) fn probe_together(&mut self) -> Result<(), Failure> {
        let shape = &self.plan.shape;
        if shape.auto_compaction != AutoCompaction::Off {
            return Ok(()); // the observer has to watch what goes
        }
        let (net, mail) = (shape.net_delay.0, shape.mail_delay.0);
        let disk = shape.members.iter().map(|member| member.disk_latency.0).max().unwrap_or_default();
        // Of several members each step of a call takes a way there and back, and a write at each end.
        let steps = if shape.members.len() > 1 { 6 } else { 1 };
        // What a link has no place for is said again with a heartbeat.
        let narrow = shape.bounds.peer.queued_messages_max < PEER_QUEUED_MESSAGES_MAX;
        // Where nothing is held for who lags for a moment, that one is given the state, in many small messages.
        let gives_states = shape.bounds.held_bytes_max == 0;
        let least_ms = match (narrow, gives_states) {
            (true, true) => 5_000,
            (true, false) => 2_000,
            (false, _) => 20,
        };
        let least = least_ms * 1_000_000;
        let patience = Duration(least + steps * (4 * net + 16 * disk) + 20 * mail);
        for client in 0..self.world.clients.len() {
            self.world.disconnect(client);
        }
        self.world.advance(self.world.now + patience)?;
        let mut lease = 0;
        for round in 0..8 {
            let first = self.world.history.next();
            self.ask_together(round, &mut lease);
            self.world.advance(self.world.now + patience)?;
            for (call, op) in self.world.history.ops.iter().enumerate().skip(first) {
                if op.is_unknown() {
                    let what = format!("call {call} ({:?}) is not answered within {patience:?}", op.method);
                    return Err(Failure::new("liveness", what));
                }
            }
        }
        Ok(())
    }

    /// Every other write is a delete that finds nothing and depends on what is not settled yet. Control entries
    /// wait for what settles as well; and what names a lease waits for its end.
    fn ask_together(&mut self, round: usize, lease: &mut i64) {
        // As many as the ring does not hold, now and then.
        let step = if round % 4 == 3 { 1 } else { 3 };
        for (n, key) in KEYS.iter().enumerate().skip(round % step).step_by(step) {
            let put = proto::PutRequest { key: Bytes::from(*key), value: self.mark(), ..Default::default() };
            let none = proto::DeleteRangeRequest { key: format!("{key}+").into(), ..Default::default() };
            match n % 2 {
                0 => self.ask_of(n, Method::Put, put.encode_to_vec()),
                _ => self.ask_of(n, Method::DeleteRange, none.encode_to_vec()),
            }
        }
        match round % 4 {
            0 => {
                *lease = self.world.history.next() as i64 + 1;
                let grant = proto::LeaseGrantRequest { ttl: 9, id: *lease };
                self.ask_of(round, Method::LeaseGrant, grant.encode_to_vec());
            }
            1 => {
                for n in 0..3 {
                    let put = self.leased_put(KEYS[n * 7], *lease).encode_to_vec();
                    self.ask_of(n, Method::Put, put);
                }
            }
            2 => {
                let revoke = proto::LeaseRevokeRequest { id: *lease };
                self.ask_of(0, Method::LeaseRevoke, revoke.encode_to_vec());
                for n in 0..3 {
                    let put = self.leased_put(KEYS[n * 5], *lease).encode_to_vec();
                    self.ask_of(n, Method::Put, put);
                    let ops = [KEYS[n], KEYS[n + 8]].map(|key| self.leased_put(key, *lease));
                    let ops = ops.map(Union::RequestPut).map(Some);
                    let success = ops.map(|request| proto::RequestOp { request }).to_vec();
                    let txn = proto::TxnRequest { success, ..Default::default() };
                    self.ask_of(n + 1, Method::Txn, txn.encode_to_vec());
                }
                let ask = proto::LeaseTimeToLiveRequest { id: *lease, keys: true };
                self.ask_of(1, Method::LeaseTimeToLive, ask.encode_to_vec());
            }
            _ => {
                let compact = proto::CompactionRequest { revision: self.observed, physical: round > 4 };
                self.ask_of(round, Method::Compact, compact.encode_to_vec());
            }
        }
    }

    /// What tells the next call's put.
    pub(super) fn mark(&self) -> Bytes {
        super::workload::tag(self.world.history.next()).into()
    }

    pub(super) fn leased_put(&self, key: &'static str, lease: i64) -> proto::PutRequest {
        proto::PutRequest { key: Bytes::from(key), value: self.mark(), lease, ..Default::default() }
    }

    /// One call of the client of this number, round and round.
    pub(super) fn ask_of(&mut self, client: usize, method: Method, request: Vec<u8>) {
        let client = client % self.plan.shape.clients;
        self.world.connect(client);
        self.world.call(client, method, request.into());
    }

    /// What a member's history up to a revision comes to; up to its newest for 0.
    pub(super) fn hash(&mut self, member: usize, revision: i64) -> Result<proto::HashKvResponse, Failure> {
        let hash = self.must(member, Method::HashKv, proto::HashKvRequest { revision }.encode_to_vec())?;
        Ok(proto::HashKvResponse::decode(hash).expect("the server speaks protobuf"))
    }

    pub(super) fn hash_all(&mut self) -> Result<Vec<proto::HashKvResponse>, Failure> {
        let serving = self.world.serving.clone();
        let hashes: Vec<_> =
            serving.iter().map(|member| self.hash(*member, 0)).collect::<Result<_, Failure>>()?;
        let newest = hashes.iter().map(|hash| hash.hash_revision).max().unwrap_or_default();
        // Who follows may be behind for a moment, and a compaction that it has not reached takes hold then.
        let there = serving.into_iter().zip(hashes).map(|(member, hash)| match hash.hash_revision < newest {
            true => self.hash_once_there(member, newest, "after all was asked"),
            false => Ok(hash),
        });
        there.collect()
    }

    /// After a crash the state of each member is what it was.
    pub(super) fn probe_again(&mut self, before: &[proto::HashKvResponse]) -> Result<(), Failure> {
        // What members have compacted meanwhile the checks look at.
        let compacts_itself = self.plan.shape.auto_compaction != AutoCompaction::Off;
        for (member, before) in self.world.serving.clone().into_iter().zip(before) {
            let after = self.hash(member, if compacts_itself { 0 } else { before.hash_revision })?;
            let same = (after.hash, after.compact_revision) == (before.hash, before.compact_revision);
            if !same && !compacts_itself {
                let what = format!("m{member}: {before:?} before the power loss, {after:?} after");
                return Err(Failure::new("state after a restart", what));
            }
        }
        self.probe_all().map(|_| ())
    }

    /// Leases that nobody renews end, with their keys.
    pub(super) fn outlive_leases(&mut self, member: usize) -> Result<(), Failure> {
        self.advance(self.world.now + Duration::from_secs(16))?;
        let left = self.must(member, Method::LeaseLeases, vec![])?;
        let left = proto::LeaseLeasesResponse::decode(left).expect("the server speaks protobuf");
        if !left.leases.is_empty() {
            return Err(Failure::new("leases", format!("never end: {:?}", left.leases)));
        }
        let last = self.hash(member, 0)?.hash_revision;
        self.advance(self.world.now + Duration::from_ms(500))?;
        if self.observed < last {
            return Err(Failure::new("watch", format!("the observer is at {} of {last}", self.observed)));
        }
        Ok(())
    }
}

fn everything() -> proto::RangeRequest {
    let all = Bytes::from_static(b"\0");
    proto::RangeRequest { key: all.clone(), range_end: all, ..Default::default() }
}

fn world_op_open(world: &World, op: usize) -> bool {
    world.history.ops[op].returned.is_none() && world.clients[0].session.is_some()
}
