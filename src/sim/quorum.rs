//! What must hold of several members once only a minority of them is unwell, or one cannot reach the leader: the
//! others serve within a bounded time and are left in peace, and nobody is left without an answer.

use super::hits::Hit;
use super::member::Death;
use super::plan::{Fault, MemberFault, Off, Way};
use super::run::{PATIENCE, Run};
use super::workload::KEYS;
use super::world::Failure;
use crate::api::Error;
use crate::config::AutoCompaction;
use crate::limits::PEER_QUEUED_MESSAGES_MAX;
use crate::stdx::Rng;
use crate::types::Duration;
use crate::wire::Method;
use crate::wire::proto::{self, Message, request_op::Request as Union};
use bytes::Bytes;

/// Longer than anything is looked at here.
const LONG: Duration = Duration::from_secs(600);
/// How long nothing changes where nothing should.
const CALM: Duration = Duration::from_secs(8);
/// How long a member that cannot serve may take to say so: etcd's limit, and some.
const ANSWER: Duration = Duration::from_secs(8);

/// What the minority suffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Malady {
    Dead(Death),
    Frozen,
    CutOff(Way),
    HungDisk,
    /// One reactor stands still.
    HungReactor,
}

const MALADIES: [Malady; 8] = [
    Malady::Dead(Death::Kill),
    Malady::Dead(Death::PowerLoss),
    Malady::Frozen,
    Malady::CutOff(Way::Both),
    Malady::CutOff(Way::In),
    Malady::CutOff(Way::Out),
    Malady::HungDisk,
    Malady::HungReactor,
];

impl Run<'_> {
    /// Nothing goes wrong any more: what was asked is answered, and where there are several members all of them serve
    /// again.
    pub(super) fn recover(&mut self, when: &str) -> Result<(), Failure> {
        self.world.calm();
        self.come_to_rest(when)?;
        let all = self.world.serving.clone();
        if all.len() > 1 { self.serve_again(&all, when) } else { Ok(()) }
    }

    /// How long members may take until all serve. Where nothing is held for who was away, that one is given the
    /// state of each shard, as one that has just come is, one after the other, and on narrow links in many small messages.
    fn patience(&self) -> Duration {
        let shape = &self.plan.shape;
        let is_narrow = shape.bounds.peer.queued_messages_max < PEER_QUEUED_MESSAGES_MAX;
        let is_given = shape.bounds.held_bytes_max == 0 || shape.changes();
        let states = if is_narrow && is_given { shape.shards as u64 } else { 0 };
        Duration(PATIENCE.0 + Duration::from_secs(2 * states).0)
    }

    /// All of these members take writes again, within a bounded time.
    pub(super) fn serve_again(&mut self, members: &[usize], when: &str) -> Result<(), Failure> {
        let until = self.world.now + self.patience();
        for member in members {
            while let Err(why) = self.try_to_write(*member)? {
                if self.world.now > until {
                    let what = format!("{when}, m{member} does not serve: {why}");
                    return Err(Failure::new("liveness", what));
                }
            }
        }
        Ok(())
    }

    /// A write to all shards by a member, and whether it was done or refused for want of space.
    fn try_to_write(&mut self, member: usize) -> Result<Result<(), String>, Failure> {
        self.world.connect_with(0, member);
        let puts = KEYS.map(|key| proto::PutRequest {
            key: Bytes::from(key),
            value: self.mark(),
            ..Default::default()
        });
        let puts = puts.map(|put| proto::RequestOp { request: Some(Union::RequestPut(put)) });
        let txn = proto::TxnRequest { success: puts.to_vec(), ..Default::default() };
        let asked = self.world.now;
        let Some(op) = self.world.call(0, Method::Txn, txn.encode_to_vec().into()) else {
            self.advance(self.world.now + Duration::from_ms(100))?;
            return Ok(Err("it takes no call".into()));
        };
        while self.world.now < asked + PATIENCE {
            self.advance(self.world.now + Duration::from_ms(50))?;
            let answered = &self.world.history.ops[op];
            if answered.is_ok() || answered.status.1 == Error::NoSpace.to_string() {
                return Ok(Ok(()));
            }
            if answered.returned.is_some() || self.world.clients[0].session.is_none() {
                return Ok(Err(format!("{:?}", answered.status)));
            }
        }
        self.world.disconnect(0);
        Ok(Err("it does not answer".into()))
    }

    /// All members have the same history.
    pub(super) fn agree(&mut self, when: &str) -> Result<(), Failure> {
        let serving = self.world.serving.clone();
        let first_of_all = serving[0];
        for member in serving.into_iter().skip(1) {
            let until = self.world.now + PATIENCE;
            loop {
                let first = self.hash(first_of_all, 0)?;
                let other = self.hash_once_there(member, first.hash_revision, when)?;
                let same_compaction = first.compact_revision == other.compact_revision;
                if same_compaction && first.hash == other.hash {
                    break;
                }
                // What members compact by themselves takes effect at each in its time.
                let compacts_itself = self.plan.shape.auto_compaction != AutoCompaction::Off;
                if same_compaction || !compacts_itself || self.world.now > until {
                    let what = format!("{when}: {first:?} at m{first_of_all}, {other:?} at m{member}");
                    return Err(Failure::new("equal state", what));
                }
                self.advance(self.world.now + Duration::from_ms(100))?;
            }
        }
        Ok(())
    }

    /// What a member's history up to a revision comes to, once it has it.
    pub(super) fn hash_once_there(
        &mut self,
        member: usize,
        revision: i64,
        when: &str,
    ) -> Result<proto::HashKvResponse, Failure> {
        let until = self.world.now + self.patience();
        let request = proto::HashKvRequest { revision }.encode_to_vec();
        loop {
            match self.ask_alone(member, Method::HashKv, request.clone())? {
                Ok(hash) => {
                    return Ok(proto::HashKvResponse::decode(hash).expect("the server speaks protobuf"));
                }
                Err(text) if self.world.now > until || text != Error::FutureRevision.to_string() => {
                    let what = format!("{when}, m{member} has no revision {revision}: {text}");
                    return Err(Failure::new("liveness", what));
                }
                Err(_) => self.advance(self.world.now + Duration::from_ms(100))?,
            }
        }
    }

    /// A minority is unwell, the leader among it or not: the others serve again, and their term stands then.
    pub(super) fn outlive_minority(&mut self) -> Result<(), Failure> {
        let serving = self.world.serving.clone();
        if serving.len() < 3 {
            return Ok(()); // of two, each is needed
        }
        if self.plan.shape.changes() {
            // Who has joined serves before it votes, and until then it is no part of a majority.
            self.advance(self.world.now + CALM)?;
        }
        let mut rng = Rng::new(self.plan.seed ^ 0x314_0217);
        let members = serving.len();
        let mut unwell = vec![];
        if rng.chance(1, 2) {
            unwell.extend(self.world.leader());
        }
        let most = 1 + rng.below((members as u64 - 1) / 2) as usize;
        while unwell.len() < most {
            let member = *rng.pick(&serving);
            if !unwell.contains(&member) {
                unwell.push(member);
            }
        }
        let malady = *rng.pick(&MALADIES);
        self.world.trace.line(self.world.now, || format!("{malady:?} befalls {unwell:?}"));
        self.befall(&unwell, malady, &mut rng);
        let well: Vec<usize> = serving.into_iter().filter(|member| !unwell.contains(member)).collect();
        let when = format!("while {unwell:?} suffer {malady:?}");
        self.serve_again(&well, &when)?;
        if matches!(malady, Malady::HungDisk | Malady::HungReactor) {
            // Who leads so may do it for as long as it can.
            self.advance(self.world.now + Duration::from_secs(3))?;
            self.serve_again(&well, &when)?;
        }
        if !self.world.leader().is_some_and(|leader| unwell.contains(&leader)) {
            self.stay_calm(&well, &when)?;
        }
        self.recover("after a minority was unwell")?;
        self.advance(self.world.now + Duration::from_secs(1))?;
        self.agree("after a minority was unwell")
    }

    fn befall(&mut self, unwell: &[usize], malady: Malady, rng: &mut Rng) {
        let world = &mut *self.world;
        let fault = match malady {
            Malady::Frozen => MemberFault::Freeze(LONG),
            Malady::HungDisk => MemberFault::HungDisk(LONG),
            Malady::HungReactor => MemberFault::Pause(LONG),
            Malady::Dead(death) => {
                unwell.iter().for_each(|member| world.die_for_good(*member, death));
                return;
            }
            Malady::CutOff(way) => {
                let places = unwell.iter().map(|member| 1 << member).sum();
                return world.fault(Fault::Cut { off: Off::Places(places), way, span: LONG }, rng.fork());
            }
        };
        for member in unwell {
            world.fault(Fault::Member(*member, fault), rng.fork());
        }
    }

    /// The members go on serving, and no term rises.
    fn stay_calm(&mut self, members: &[usize], when: &str) -> Result<(), Failure> {
        let before = self.world.history.known.reigns.len();
        let term = self.term_at(members[0])?;
        self.advance(self.world.now + CALM)?;
        for member in members {
            if let Err(why) = self.try_to_write(*member)? {
                return Err(Failure::new("liveness", format!("{when}, m{member} serves no longer: {why}")));
            }
        }
        let later = self.term_at(members[0])?;
        let reigns = &self.world.history.known.reigns[before..];
        if later != term || !reigns.is_empty() {
            let what = format!("{when}, term {term} became {later}, and these led anew: {reigns:?}");
            return Err(Failure::new("flapping", what));
        }
        Ok(())
    }

    /// The term that a member shows.
    fn term_at(&mut self, member: usize) -> Result<u64, Failure> {
        let status = self.must(member, Method::Status, vec![])?;
        Ok(super::history::header(&status).map_or(0, |header| header.raft_term))
    }

    /// A member and the leader do not reach each other, and both reach all others: they are served, it is served or
    /// told in time that it is not, and the leader leads on.
    pub(super) fn outlive_the_leaders_absence(&mut self) -> Result<(), Failure> {
        let mut rng = Rng::new(self.plan.seed ^ 0xAB5E_4CE5);
        let Some(leader) = self.world.leader() else { return Ok(()) };
        let serving = self.world.serving.clone();
        let members = serving.len();
        let Some(at) = serving.iter().position(|member| *member == leader) else { return Ok(()) };
        if members < 3 {
            return Ok(()); // who leads two leads nobody then
        }
        let alone = serving[(at + 1 + rng.below(members as u64 - 1) as usize) % members];
        self.world.trace.line(self.world.now, || format!("m{alone} does not reach m{leader}, who leads"));
        self.world.hits.count(Hit::LeaderOutOfReach);
        let until = self.world.now + LONG;
        self.world.links.stall(leader, alone, until);
        self.world.links.stall(alone, leader, until);
        let others: Vec<usize> = serving.into_iter().filter(|member| *member != alone).collect();
        let when = format!("while m{alone} does not reach m{leader}, who leads");
        self.serve_again(&others, &when)?;
        self.ask_the_lonely(alone, false, &when)?;
        self.stay_calm(&others, &when)?;
        self.recover("after all were in reach again")
    }

    /// All members but one are dead: what the last one has is read there, also after it comes back, and of all else
    /// it says that it cannot.
    pub(super) fn outlive_majority(&mut self) -> Result<(), Failure> {
        let mut rng = Rng::new(self.plan.seed ^ 0x1A57_0E0E);
        let last = self.world.draw_member(&mut rng);
        let death = *rng.pick(&[Death::Kill, Death::PowerLoss]);
        self.world.trace.line(self.world.now, || format!("m{last} outlives the others' {death:?}"));
        for member in self.world.serving.clone().into_iter().filter(|member| *member != last) {
            self.world.die_for_good(member, death);
        }
        self.ask_the_lonely(last, true, "where one member is left")?;
        self.world.die(last, death);
        let until = self.world.now + PATIENCE;
        while !self.world.is_up(last) {
            if self.world.now > until {
                return Err(Failure::new("liveness", "the last member does not come back"));
            }
            self.advance(self.world.now + Duration::from_ms(50))?;
        }
        self.ask_the_lonely(last, true, "where the one member that is left has come back")?;
        self.recover("after one member was left")?;
        self.advance(self.world.now + Duration::from_secs(1))?;
        self.agree("after one member was left")
    }

    /// A member that perhaps has no quorum, or surely, answers in time, and reads what it has.
    fn ask_the_lonely(&mut self, member: usize, has_none: bool, when: &str) -> Result<(), Failure> {
        self.world.connect_with(0, member);
        // A failed compare, which no entry backs: it comes before anything is written whose settling it would wait for.
        let never = Some(proto::compare::TargetUnion::Version(i64::MAX));
        let compare = proto::Compare { key: Bytes::from(KEYS[0]), target_union: never, ..Default::default() };
        let deletion = proto::DeleteRangeRequest { key: Bytes::from(KEYS[0]), ..Default::default() };
        let success = vec![proto::RequestOp { request: Some(Union::RequestDeleteRange(deletion)) }];
        let fails = proto::TxnRequest { compare: vec![compare], success, failure: vec![] };
        let fails = self.world.call(0, Method::Txn, fails.encode_to_vec().into());
        // The put's mark is the number of its call.
        let put = proto::PutRequest { key: Bytes::from(KEYS[0]), value: self.mark(), ..Default::default() };
        let range = proto::RangeRequest { key: Bytes::from(KEYS[0]), ..Default::default() };
        let local = proto::RangeRequest { serializable: true, ..range.clone() };
        let asked = [
            (Method::Put, put.encode_to_vec()),
            (Method::Range, local.encode_to_vec()),
            (Method::Range, range.encode_to_vec()),
            (Method::LeaseKeepAlive, proto::LeaseKeepAliveRequest { id: 1_000_000 }.encode_to_vec()),
        ];
        let asked = asked.map(|(method, request)| self.world.call(0, method, request.into()));
        let ops = asked.into_iter().chain([fails]);
        self.advance(self.world.now + ANSWER)?;
        for (at, op) in ops.enumerate() {
            let Some(op) = op.map(|op| &self.world.history.ops[op]) else {
                return Err(Failure::new("liveness", format!("{when}, m{member} takes no call")));
            };
            let wrong = match at {
                _ if op.returned.is_none() => "is not answered in time",
                1 if !op.is_ok() => "fails, and asks for what the member has",
                0 | 2..=4 if has_none && op.is_ok() => "succeeds",
                _ => continue,
            };
            let what = format!("{when}, call {at} ({:?}) {wrong}: {:?}", op.method, op.status);
            return Err(Failure::new("liveness", what));
        }
        Ok(())
    }
}
