//! What the parts of a reactor share: the time, where the epoch stands, what is settled and decided, and the way
//! out.
//!
//! [`Turn`] is lent to whatever part has the word. A part reads here what the whole reactor goes by, and speaks by
//! [`Turn::send`] alone: to a part of this reactor as to another reactor, so that no part needs to see a second
//! one. Parts count here, hold replies at the gate, take revisions, and mark the leases that are being revoked.
//! Where the epoch stands, what is settled and what is decided is [`ReadOnly`] for them: only the router of
//! messages ([`super::Reactor`]) and the epoch change it.

use super::book::Book;
use super::epoch_state::EpochState;
use super::gate::{Gate, Needs};
use super::pace::{About, Pace};
use super::requests::{has_put, is_write};
use super::settings::{Founder, Settings};
use super::sizes::MemberSizes;
use crate::api::{Answer, Error, Request};
use crate::control::{Control, first_raft_id};
use crate::io::{
    ApplyKind, Body, CallId, CallMail, EpochMail, Fields, LeaderMail, Level, LogLine, Mail, Output,
    ReactorCounters, ShardMail,
};
use crate::peer::PeerMessage;
use crate::record::MemberRecord;
use crate::router::Router;
use crate::sequencer::{Allotment, Generation, Sequencer, ShardSet};
use crate::txn;
use crate::types::{
    ChangeNumber, ClockReading, ConnId, Epoch, LeaseId, MemberId, RaftId, ReactorId, Revision, ShardId,
    StoreId, Term, Time,
};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Deref;
use std::sync::Arc;

/// A value that parts of a reactor read and do not change. Whoever changes it has to name this type, and the test
/// of layers lets nobody do so but the router and the epoch.
pub(super) struct ReadOnly<T> {
    value: T,
}

impl<T> ReadOnly<T> {
    pub fn change(of: &mut ReadOnly<T>) -> &mut T {
        &mut of.value
    }
}

impl<T> Deref for ReadOnly<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// Which of the other members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ToPeers {
    All,
    One(MemberId),
    /// Who has asked on this connection.
    Asker(ConnId),
}

pub(super) struct Turn {
    pub id: ReactorId,
    pub reactors: u16,
    /// A number of the process, and of no other.
    pub boot: u64,
    pub settings: Arc<Settings>,
    pub sequencer: Arc<Sequencer>,
    pub now: Time,
    /// When it began, where it is under way.
    pub began: Option<Time>,
    pub epoch_state: ReadOnly<EpochState>,
    /// Up to where this reactor has taken what is settled into account.
    pub settled: ReadOnly<Revision>,
    pub router: ReadOnly<Option<Router>>,
    pub control: ReadOnly<Control>,
    /// All other members are lost for ever, and the control state does not say so yet.
    pub is_to_be_alone: ReadOnly<bool>,
    /// Of members that the control state does not name yet.
    pub book: Arc<Book>,
    /// Since when each other member is connected, at the first reactor.
    pub connected: BTreeMap<MemberId, Time>,
    /// Unix time in whole seconds, as the world has said it last.
    pub wall_secs: u64,
    /// Up to which change this reactor has it.
    pub changes: ReadOnly<ChangeNumber>,
    /// The compaction that has taken effect here: it waits until its revision is shown, and all reactors have it.
    pub compacted: ReadOnly<Revision>,
    /// Revisions that the sequencer has promised to this reactor.
    pub allotment: Allotment,
    pub sizes: MemberSizes,
    pub counters: ReactorCounters,
    pub pace: Pace,
    pub gate: Gate,
    /// What other members are told with this turn, at the reactors where a shard lives there.
    pub to_peers: Vec<(ToPeers, ShardId, PeerMessage)>,
    /// What the clocks of members that lead, or have led, were last known to show.
    pub leader_clocks: BTreeMap<MemberId, ClockReading>,
    /// Mail to this reactor itself.
    local: VecDeque<Mail>,
    pub out: Vec<Output>,
}

impl Turn {
    pub fn new(
        id: ReactorId,
        reactors: u16,
        boot: u64,
        settings: Arc<Settings>,
        sequencer: Arc<Sequencer>,
        control: Control,
        now: Time,
    ) -> Turn {
        assert!(id.0 < reactors, "reactors are numbered from 0");
        let stands_alone = settings.stands_alone;
        Turn {
            id,
            reactors,
            boot,
            settings,
            sequencer,
            now,
            began: None,
            epoch_state: ReadOnly { value: EpochState::new() },
            settled: ReadOnly { value: Revision::NONE },
            router: ReadOnly { value: None },
            control: ReadOnly { value: control },
            is_to_be_alone: ReadOnly { value: stands_alone },
            book: Arc::new(Book::default()),
            connected: BTreeMap::new(),
            wall_secs: 0,
            changes: ReadOnly { value: ChangeNumber(0) },
            compacted: ReadOnly { value: Revision::NONE },
            allotment: Allotment::new(Generation::NONE),
            sizes: MemberSizes::new(reactors),
            counters: ReactorCounters::default(),
            pace: Pace::default(),
            gate: Gate::default(),
            to_peers: vec![],
            leader_clocks: BTreeMap::new(),
            local: VecDeque::new(),
            out: vec![],
        }
    }

    /// The one value that this member shows: everything up to it is settled, and nothing above it is visible. Where
    /// another member leads, this reactor shows what its own shards have taken over, which is looked at anew with
    /// each input: so nobody is shown less than an answer before has shown, at whatever reactor.
    pub fn shown(&self) -> Revision {
        // What was taken behind a compaction is shown with it.
        let goes_by_settled =
            self.epoch_state.may_follow() || self.epoch_state.may_write() && self.compacts();
        if goes_by_settled { *self.settled } else { self.sequencer.settled() }
    }

    /// Whether a compaction is on its way that has not taken effect here.
    pub fn compacts(&self) -> bool {
        self.control.compacted() > *self.compacted
    }

    /// The term that this member shows: of the control shard's group, whichever reactor was asked before.
    pub fn term(&self) -> Term {
        self.sequencer.term()
    }

    /// What the sequencer has settled, or where another member leads what all shards here cover, though this reactor
    /// may not have heard of it: the truth by which entries are proposed and epochs end.
    pub fn settled_truth(&self) -> Revision {
        self.sequencer.settled()
    }

    /// Whether every reactor of this member has all that this one has of the control state: whoever has seen an entry's
    /// effect at one finds it at any other.
    pub fn is_known_everywhere(&self) -> bool {
        *self.changes <= self.sequencer.changes()
    }

    /// What the clock of a member that leads was last known to show.
    pub fn clock_of(&self, leader: MemberId) -> Option<ClockReading> {
        self.leader_clocks.get(&leader).copied()
    }

    /// Mail that this reactor sends itself takes the same way, through a queue of its own.
    pub fn send(&mut self, to: ReactorId, mail: impl Into<Body>) {
        assert!(to.0 < self.reactors, "mail goes to a reactor of this member: {to} of {}", self.reactors);
        let mail = Mail { epoch: self.epoch(), body: mail.into() };
        if to == self.id {
            self.local.push_back(mail);
        } else {
            self.out.push(Output::Mail { to, mail });
        }
    }

    pub fn send_to_all<M: Into<Body>>(&mut self, mail: impl Fn() -> M) {
        for reactor in 0..self.reactors {
            self.send(ReactorId(reactor), mail());
        }
    }

    /// Says something to other members, to the reactors that have the shard there.
    pub fn tell(&mut self, to: ToPeers, shard: ShardId, message: PeerMessage) {
        self.to_peers.push((to, shard, message));
    }

    /// The member whose peer has this id in Raft groups. Before a cluster has begun its founders are known.
    pub fn member_of(&self, id: RaftId) -> Option<MemberId> {
        let is_its = |founder: &&Founder| first_raft_id(self.settings.cluster, founder.id) == id;
        let founder = || self.settings.founders.iter().find(is_its).map(|founder| founder.id);
        let known = if self.control.is_bootstrapped() { self.control.member_of(id) } else { founder() };
        known.or_else(|| self.book.member_of(self.control.index, id))
    }

    /// The other members, each with its directory and peer URLs. Before a cluster has begun they are its founders. Those
    /// that are lost for ever are none.
    pub fn other_members(&self) -> Vec<(MemberId, StoreId, Vec<String>)> {
        if *self.is_to_be_alone {
            return vec![];
        }
        let founder = |of: &Founder| (of.id, StoreId(0), of.peer_urls.clone());
        let member = |of: &MemberRecord| (of.id(), StoreId(of.directory), of.peer_urls.clone());
        let mut all: Vec<_> = match self.control.is_bootstrapped() {
            true => self.control.records().map(member).collect(),
            false => self.settings.founders.iter().map(founder).collect(),
        };
        for record in self.strangers() {
            match all.iter_mut().find(|(id, ..)| *id == record.id()) {
                // The control state knows where a member is, and nothing of that before the cluster has begun.
                Some(of) if !self.control.is_bootstrapped() => *of = member(record),
                Some(_) => {}
                None => all.push(member(record)),
            }
        }
        all.retain(|(id, ..)| *id != self.settings.member);
        all
    }

    /// Those in the address book that were not removed.
    fn strangers(&self) -> impl Iterator<Item = &MemberRecord> {
        let members = self.book.members(self.control.index).iter();
        members.filter(|member| !self.control.is_removed(member.id()))
    }

    pub fn has_local(&self) -> bool {
        !self.local.is_empty()
    }

    pub fn next_local(&mut self) -> Option<Mail> {
        self.local.pop_front()
    }

    pub fn log_line(&mut self, level: Level, message: &'static str, fields: impl Into<Fields>) {
        self.out.push(Output::LogLine(LogLine { level, message, fields: fields.into() }));
    }

    pub fn halt(&mut self, reason: String) {
        self.out.push(Output::Halt(reason));
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch_state.epoch()
    }

    pub fn router(&self) -> &Router {
        self.router.as_ref().expect("requests are evaluated after the map is known")
    }

    pub fn send_to_owner(&mut self, shard: ShardId, mail: ShardMail) {
        let owner = self.router().reactor_of(shard);
        self.send(owner, mail);
    }

    /// Sends an answer to the reactor whose client waits for it.
    pub fn answer(&mut self, call: CallId, answer: Answer) {
        self.send(call.reactor, CallMail::Answer { call, answer });
    }

    /// Sends an answer as soon as the gate lets it pass.
    pub fn hold(&mut self, needs: Needs, call: CallId, answer: Answer) {
        if self.gate.lets_pass(needs, *self.settled) {
            self.answer(call, answer);
        } else {
            self.gate.hold(needs, call, answer);
        }
    }

    /// A reply that no entry backs shows, and waits for, the newest revision taken.
    pub fn hold_unbacked(&mut self, call: CallId, answer: impl FnOnce(Revision) -> Answer) {
        let current = self.sequencer.counter();
        let needs = self.unbacked(current);
        self.hold(needs, call, answer(current));
    }

    /// What a reply needs that no entry backs, and that shows nothing newer than this revision.
    pub fn unbacked(&mut self, revision: Revision) -> Needs {
        let is_alone = self.is_alone();
        self.gate.unbacked(is_alone, revision)
    }

    /// Whether this member is the only one, and so a majority by itself.
    pub fn is_alone(&self) -> bool {
        let is_one = match self.control.is_bootstrapped() {
            true => self.control.is_of_one(),
            false => self.settings.founders.len() <= 1,
        };
        is_one && self.strangers().all(|member| member.id() == self.settings.member)
    }

    /// `settled` has risen: what waited for it leaves.
    pub fn open_gate(&mut self) {
        while let Some((call, answer)) = self.gate.next(*self.settled) {
            self.answer(call, answer);
        }
    }

    /// A request whose evaluation began then has been evaluated.
    pub fn applied(&mut self, kind: ApplyKind, success: bool, begun: Time, about: About) {
        self.pace.applied(kind, success, begun, about);
    }

    /// Takes a revision. There is none while the ring is full or after the epoch's end.
    pub fn take(&mut self, parts: u16, shards: &[ShardId]) -> Option<Revision> {
        if !self.has_room().unwrap_or(false) {
            return None;
        }
        assert!(self.epoch_state.may_write(), "revisions are taken while the epoch serves");
        assert!(usize::from(parts) >= shards.len(), "each shard that is touched has a part");
        let shards = ShardSet::of(shards.iter().copied());
        let taken = self.sequencer.take(&mut self.allotment, parts, shards).ok();
        assert!(taken.is_none_or(|revision| revision > *self.settled), "what is taken is not settled");
        taken
    }

    /// Whether a revision is promised to this reactor; none after the epoch's end. Revisions are asked for write
    /// by write: what one reactor kept in store the others could not use.
    pub fn has_room(&mut self) -> Option<bool> {
        self.sequencer.reserve(&mut self.allotment, 1).ok()
    }

    /// Some group of this reactor is lost: nothing more is written in this epoch.
    pub fn lose_epoch(&mut self) {
        if self.epoch_state.value.lose() {
            self.send(ReactorId(0), EpochMail::Lost);
        }
    }

    /// From now on nothing at this reactor attaches keys to the lease, which is granted.
    pub fn mark_revoking(&mut self, lease: LeaseId) {
        let marked = self.control.value.leases.mark_revoking(lease);
        assert!(marked == Ok(true), "a lease is revoked once");
    }

    /// Whether a write of this cost would pass the quota. The reactors' shares are as last heard, which is at most
    /// a step of bytes ago.
    pub fn is_over_quota(&self, cost: u64) -> bool {
        self.settings.quota_bytes.is_some_and(|quota| self.sizes.bytes_total() + cost >= quota)
    }

    /// etcd's alarms: nothing is written to a corrupt cluster; over the quota, or while its alarm stands,
    /// nothing that adds is taken.
    pub fn check_alarms(&self, request: &Request) -> Result<(), Error> {
        if self.control.corrupt() && is_write(request) {
            return Err(Error::Corrupt);
        }
        let cost = match request {
            Request::Put(put) => txn::cost_put(put),
            Request::Txn(request) if has_put(request) => txn::cost_txn(request),
            _ => return Ok(()),
        };
        if self.control.no_space() || self.is_over_quota(cost) { Err(Error::NoSpace) } else { Ok(()) }
    }

    /// Refuses a write. Where it is an alarm that refuses it, the answer waits until that stands at every reactor:
    /// whoever was refused finds the alarm, and nobody is let in afterwards (etcd's law).
    pub fn refuse_write(&mut self, call: CallId, error: Error) {
        if error != Error::NoSpace {
            return self.hold_unbacked(call, |_| Err(error));
        }
        self.counters.paths.no_space_refused += 1;
        match self.control.no_space() {
            true => self.send(ReactorId(0), LeaderMail::KeptOut { call }),
            false => self.raise_no_space(Some(call)),
        }
    }

    /// `call` is answered when the alarm stands.
    pub fn raise_no_space(&mut self, call: Option<CallId>) {
        self.send(ReactorId(0), LeaderMail::NoSpace { call });
    }
}
