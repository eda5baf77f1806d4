//! What only the leader does, at its control shard's reactor: leases that expire, compaction by itself, control
//! entries on their way, and who still has to hear of them.
//!
//! It sees neither clients nor shards: what it decides the router hands to the control shard's log, and what takes
//! effect there comes back by [`Leader::follow`].

mod controls;
mod effects;
mod members;
mod revokes;

use super::gate::Needs;
use super::settings::{AutoCompaction, Settings};
use super::turn::{ToPeers, Turn};
use super::waiters::Waiters;
use crate::api::{AlarmType, Answer, CompactRequest, Error, Reply, Request};
use crate::control::founder_raft_ids;
use crate::io::{CallId, CallMail, Fields, LeaderMail, Level, Own, Value};
use crate::lease::{Expiry, Leases};
use crate::peer::PeerMessage;
use crate::record::{ControlEntry, MemberRecord};
use crate::stdx::Rng;
use crate::types::{Duration, Index, LeaseId, MemberId, ReactorId, Revision, ShardId, Time};
pub use controls::Decided;
use controls::{Asked, Asking};
use members::MemberChanges;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A control entry that took effect here, until every reactor has it.
#[derive(Debug, Default)]
struct Announced {
    pub waiting: Vec<ReactorId>,
    /// The answers that show it, with what they need: to whoever asked for it, and to those who read it since.
    pub answers: Vec<(Needs, CallId, Answer)>,
}

/// A compaction whose history is being dropped.
#[derive(Debug)]
struct Compaction {
    pub begun: Time,
    /// Versions dropped so far, as the reactors have said.
    pub dropped: u64,
}

/// A revoke whose reactors have not all said which shards have keys of the lease.
#[derive(Debug)]
struct Revoking {
    pub lease: LeaseId,
    pub waiting: Vec<ReactorId>,
    pub shards: Vec<ShardId>,
}

pub(super) struct Leader {
    /// Whether the epoch serves: what takes effect before that was decided in an earlier one.
    serves: bool,
    expiry: Expiry,
    /// When it last looked for leases that have expired.
    looked_at: Time,
    /// What it waits for before it expires a lease: a round, where it slept.
    expires_after: Option<Needs>,
    rng: Rng,
    /// Entries proposed whose answer waits for their effect.
    proposed: BTreeMap<Index, (CallId, Answer)>,
    /// Entries that took effect and are being made known.
    announced: BTreeMap<Index, Announced>,
    /// Requests that wait until what they have seen is settled.
    pending: VecDeque<(Revision, Decided)>,
    /// Leases that an entry on its way grants.
    granting: BTreeSet<LeaseId>,
    /// Leases being revoked, until their ends take effect.
    ending: BTreeSet<LeaseId>,
    /// Requests of a lease that an entry on its way grants or ends.
    waiting: Waiters<LeaseId, Asked>,
    revoking: BTreeMap<CallId, Revoking>,
    /// Compactions asked for with `physical`, until all reactors have dropped the history.
    physical: Vec<(Revision, CallId, Answer)>,
    compacted_by: BTreeMap<ReactorId, Revision>,
    /// What all of them have dropped.
    dropped: Revision,
    compaction: Option<Compaction>,
    /// A compaction on its way; and the last one that went into the log.
    compacting_to: Revision,
    compaction_proposed: Revision,
    /// Compactions that one on its way goes beyond, by their revision: they are refused when it is durable.
    superseded: Waiters<Revision, Asked>,
    /// The alarm of a full disk or quota is on its way, and these calls are refused with it.
    raising_no_space: Option<Vec<CallId>>,
    /// Alarms, by member and number, that are decided and not in effect: who disarms one means it as well.
    raising: Vec<(u64, u8)>,
    /// A full disk or quota was heard of while this member did not lead: who leads is told, or the alarm is raised when
    /// this one does.
    no_space_heard: bool,
    /// When it is told next; and what was shown here when the quota was last found exceeded.
    raises_at: Time,
    over_quota_at: Revision,
    /// When the member that leads is told next what this one is.
    publishes_at: Time,
    auto: Auto,
    members: MemberChanges,
}

/// etcd's compactor: what revision was seen when.
struct Auto {
    mode: AutoCompaction,
    /// How often the mode that keeps revisions compacts.
    revisions_every: Duration,
    seen: VecDeque<(Time, Revision)>,
    next_look: Time,
    /// When the periodic mode compacts again.
    next_compaction: Time,
    last: Revision,
}

const HOUR: Duration = Duration::from_secs(3600);

impl Leader {
    pub fn new(settings: &Settings, rng: Rng, now: Time) -> Leader {
        Leader {
            serves: false,
            expiry: Expiry::take_over(&Leases::new(settings.election_timeout), now, Duration(0)),
            looked_at: now,
            expires_after: None,
            rng,
            proposed: BTreeMap::new(),
            announced: BTreeMap::new(),
            pending: VecDeque::new(),
            granting: BTreeSet::new(),
            ending: BTreeSet::new(),
            waiting: Waiters::default(),
            revoking: BTreeMap::new(),
            physical: vec![],
            compacted_by: BTreeMap::new(),
            dropped: Revision::NONE,
            compaction: None,
            compacting_to: Revision::NONE,
            compaction_proposed: Revision::NONE,
            superseded: Waiters::default(),
            raising_no_space: None,
            raising: vec![],
            no_space_heard: false,
            raises_at: Time::NEVER,
            over_quota_at: Revision::NONE,
            publishes_at: Time::NEVER,
            auto: Auto::new(settings.auto_compaction, settings.bounds.auto_compaction_revisions_ms, now),
            members: MemberChanges::default(),
        }
    }

    /// The epoch is over: nothing is on its way any more.
    pub fn end_epoch(&mut self) {
        self.serves = false;
        self.proposed.clear();
        self.announced.clear();
        self.pending.clear();
        self.granting.clear();
        self.ending.clear();
        self.waiting.clear();
        self.revoking.clear();
        self.physical.clear();
        self.compacting_to = Revision::NONE;
        self.compaction_proposed = Revision::NONE;
        self.superseded.clear();
        self.raising_no_space = None;
        self.raising.clear();
        self.end_member_changes();
    }
}

impl Auto {
    fn new(mode: AutoCompaction, revisions_ms: u64, now: Time) -> Auto {
        let (next_look, next_compaction) = (Time::NEVER, Time::NEVER);
        let mut auto = Auto {
            mode,
            revisions_every: Duration::from_ms(revisions_ms),
            seen: VecDeque::new(),
            next_look,
            next_compaction,
            last: Revision::NONE,
        };
        if let Some(every) = auto.every() {
            // Periods are measured from a first look at once; kept revisions are counted in a while.
            let at_once = matches!(mode, AutoCompaction::Periodic(_));
            auto.next_look = if at_once { now } else { now + every };
        }
        if let AutoCompaction::Periodic(period) = mode {
            auto.next_compaction = now + period;
        }
        auto
    }

    /// How often the revision is looked at.
    fn every(&self) -> Option<Duration> {
        match self.mode {
            AutoCompaction::Off => None,
            AutoCompaction::Periodic(period) => Some(Duration(period.min(HOUR).0 / 10)),
            AutoCompaction::Revisions(_) => Some(self.revisions_every),
        }
    }

    /// The revision to compact to, if it is time. Every member looks, so that one that begins to lead goes on at once
    /// (etcd's law); only who leads compacts.
    fn look(&mut self, now: Time, settled: Revision, leads: bool) -> Option<Revision> {
        if now < self.next_look {
            return None;
        }
        self.next_look = now + self.every()?;
        let target = match self.mode {
            AutoCompaction::Off => None,
            AutoCompaction::Revisions(keep) => settled.0.checked_sub(keep).map(Revision),
            AutoCompaction::Periodic(period) => {
                self.seen.push_back((now, settled));
                let target = self.one_period_ago(now, period);
                if !leads || now < self.next_compaction {
                    return None;
                }
                self.next_compaction = now + period.min(HOUR);
                target
            }
        }?;
        if !leads || target <= self.last || target == Revision::NONE {
            return None;
        }
        assert!(target <= settled, "only what is settled is compacted: {target}");
        self.last = target;
        Some(target)
    }

    /// The revision seen one period ago; what was seen before it is forgotten.
    fn one_period_ago(&mut self, now: Time, period: Duration) -> Option<Revision> {
        let is_old = |(at, _): &(Time, Revision)| now.since(*at) >= period;
        while self.seen.get(1).is_some_and(is_old) {
            self.seen.pop_front();
        }
        self.seen.front().filter(|seen| is_old(seen)).map(|(_, revision)| *revision)
    }
}

impl Leader {
    pub fn on_mail(&mut self, turn: &mut Turn, from: ReactorId, mail: LeaderMail) {
        match mail {
            LeaderMail::HandOver { .. }
            | LeaderMail::Round { .. }
            | LeaderMail::ControlKnown { .. }
            | LeaderMail::ControlHeld { .. } => unreachable!("these are not the leader's alone"),
            LeaderMail::Control { call, request, until, own } => {
                self.decide_request(turn, Asked { by: Asking { call, own, until }, request });
            }
            LeaderMail::OwnDone { of, answer } => self.on_own_done(turn, of, &answer),
            LeaderMail::RevokingHas { call, shards } => self.on_revoking_has(turn, from, call, shards),
            LeaderMail::EndBareLease { call, lease } => self.end_bare_lease(turn, lease, call),
            LeaderMail::Compacted { revision, dropped, sizes } => {
                self.on_compacted(turn, from, revision, dropped, sizes);
            }
            LeaderMail::Peered { member, change } => self.on_peered(turn, member, change),
            LeaderMail::NoSpace { call } => self.on_no_space(turn, call),
            LeaderMail::KeptOut { call } => self.refuse(turn, call, Error::NoSpace),
        }
    }

    /// Serving begins: leases get their full time anew, and the member says who it is.
    pub fn begin(&mut self, turn: &mut Turn) {
        assert!(turn.epoch_state.leads(), "the leader's work begins when the epoch serves");
        let now = turn.now;
        self.end_epoch();
        self.serves = true;
        self.expiry = Expiry::take_over(&turn.control.leases, now, turn.settings.election_timeout);
        (self.looked_at, self.expires_after) = (now, None);
        let (epoch, revision) = (turn.epoch().to_string(), turn.settled.wire());
        turn.log_line(Level::Info, "serving", [("epoch", epoch.into()), ("revision", revision.into())]);
        turn.counters.paths.intent_carried_on += turn.control.member_changes().count() as u64;
        self.begin_alone(turn);
        self.publish_attributes(turn);
        if std::mem::take(&mut self.no_space_heard) {
            self.on_no_space(turn, None);
        }
    }

    /// What this member is to publish of itself; none where the cluster knows it.
    fn attributes(turn: &Turn) -> Option<ControlEntry> {
        let settings = &turn.settings;
        let says_all = |known: &MemberRecord| {
            (&known.name, &known.client_urls, known.directory)
                == (&settings.name, &settings.client_urls, settings.directory.0)
        };
        let known = turn.control.member(settings.member);
        known.is_none_or(|known| !says_all(known)).then(|| ControlEntry::MemberAttributes {
            member: settings.member.0,
            directory: settings.directory.0,
            name: settings.name.clone(),
            client_urls: settings.client_urls.clone(),
            raft_ids: founder_raft_ids(settings.cluster, settings.member),
        })
    }

    fn publish_attributes(&mut self, turn: &mut Turn) {
        if let Some(attributes) = Leader::attributes(turn) {
            self.decide_control(turn, attributes, None);
        }
    }

    /// Another member publishes what it is.
    pub fn on_attributes(&mut self, turn: &mut Turn, from: MemberId, attributes: ControlEntry) {
        let of = if let ControlEntry::MemberAttributes { member, .. } = attributes { member } else { 0 };
        if turn.epoch_state.leads() && of == from.0 {
            self.decide_control(turn, attributes, None);
        }
    }

    /// Tells the member that leads what this one is, until it is known.
    fn publish_elsewhere(&mut self, turn: &mut Turn) {
        let Some(leader) = turn.epoch_state.follows() else { return };
        if turn.now < self.publishes_at || !turn.control.is_bootstrapped() {
            return;
        }
        self.publishes_at = Time::NEVER;
        if let Some(attributes) = Leader::attributes(turn) {
            self.publishes_at = turn.now + turn.settings.election_timeout;
            turn.tell(ToPeers::One(leader), ShardId::CONTROL, PeerMessage::Attributes(attributes));
        }
    }

    /// Another member leads now: it is told anew what this one is, where it does not know.
    pub fn on_leader_is(&mut self, turn: &Turn) {
        (self.publishes_at, self.raises_at) = (turn.now, turn.now);
    }

    /// Tells the member that leads of this one's full disk or quota, until the alarm stands.
    fn raise_elsewhere(&mut self, turn: &mut Turn) {
        assert!(!turn.epoch_state.leads(), "who leads raises its alarm itself");
        // What a disarmed alarm was raised for may be so still; it counts when more is written (etcd's law).
        if turn.is_over_quota(0) && turn.shown() > self.over_quota_at {
            self.over_quota_at = turn.shown();
            self.hear_no_space(turn);
        }
        // It may have come with another member's state, and who disarms it before the next time to tell means what was
        // heard as well.
        self.no_space_heard &= !turn.control.has_alarm(turn.settings.member, AlarmType::NoSpace);
        let Some(leader) = turn.epoch_state.follows().filter(|_| turn.now >= self.raises_at) else { return };
        self.raises_at = Time::NEVER;
        if self.no_space_heard {
            self.raises_at = turn.now + turn.settings.election_timeout;
            turn.tell(ToPeers::One(leader), ShardId::CONTROL, PeerMessage::NoSpace);
        }
    }

    /// A reactor's disk or the quota is full, while this member does not lead.
    pub(super) fn hear_no_space(&mut self, turn: &Turn) {
        if !std::mem::replace(&mut self.no_space_heard, true) {
            self.raises_at = turn.now;
        }
    }

    /// The lead's own work of a turn.
    pub fn take_turn(&mut self, turn: &mut Turn) {
        if !turn.epoch_state.leads() {
            self.auto.look(turn.now, *turn.settled, false);
            self.publish_elsewhere(turn);
            return self.raise_elsewhere(turn);
        }
        if turn.epoch_state.is_draining() {
            return; // Whoever leads next finds the same to do.
        }
        self.expire_leases(turn);
        let now = turn.now;
        if let Some(revision) = self.auto.look(now, *turn.settled, true) {
            let (starting, ..) = auto_compaction_words(turn);
            notice_auto_compaction(turn, Level::Info, starting, revision, []);
            let request = CompactRequest { revision: revision.wire(), physical: false };
            turn.counters.paths.compacted_by_itself += 1;
            let of = Own::Compactor { revision, begun: now };
            turn.send(turn.id, CallMail::Own { of, request: Request::Compact(request) });
        }
    }

    /// A request of the leader's own has its answer.
    pub fn on_own_done(&mut self, turn: &mut Turn, of: Own, answer: &Answer) {
        match of {
            Own::Expiry(lease) => self.on_expiry_done(turn, lease, answer),
            Own::Compactor { revision, begun } => on_compactor_done(turn, revision, begun, answer),
        }
    }

    fn expire_leases(&mut self, turn: &mut Turn) {
        let now = turn.now;
        self.ask_after_sleep(turn);
        if now < self.expiry_wakes_at(turn) {
            return;
        }
        self.expires_after = None;
        let mut due = vec![];
        self.expiry.due(now, &mut due);
        for lease in due {
            turn.counters.leases_expired += 1;
            let request = Request::LeaseRevoke(lease);
            turn.send(turn.id, CallMail::Own { of: Own::Expiry(lease), request });
        }
    }

    /// A member that slept may have been deposed since: a round comes before it says that a lease has expired (etcd's
    /// law).
    fn ask_after_sleep(&mut self, turn: &mut Turn) {
        let last = std::mem::replace(&mut self.looked_at, turn.now);
        assert!(self.serves, "leases expire while the epoch serves");
        if turn.now.since(last) > turn.settings.election_timeout && !turn.is_alone() {
            turn.counters.paths.expiry_asked_first += 1;
            self.expires_after = Some(turn.unbacked(Revision::NONE));
        }
    }

    fn expiry_wakes_at(&self, turn: &Turn) -> Time {
        let may_expire = self.expires_after.is_none_or(|needs| turn.gate.lets_pass(needs, *turn.settled));
        if may_expire { self.expiry.wake_at() } else { Time::NEVER }
    }

    fn on_expiry_done(&mut self, turn: &mut Turn, lease: LeaseId, answer: &Answer) {
        let now = turn.now;
        if !matches!(answer, Ok(Reply::LeaseRevoke { .. }) | Err(Error::LeaseNotFound)) {
            self.expiry.failed(lease, now);
        }
    }

    pub fn wake_at(&self, turn: &Turn) -> Time {
        if !turn.epoch_state.leads() {
            let may_publish = turn.epoch_state.follows().is_some() && turn.control.is_bootstrapped();
            let publishes_at = if may_publish { self.publishes_at.min(self.raises_at) } else { Time::NEVER };
            return publishes_at.min(self.auto.next_look);
        }
        match turn.epoch_state.is_draining() {
            true => Time::NEVER,
            false => self.expiry_wakes_at(turn).min(self.auto.next_look),
        }
    }
}

/// etcd's words for a compaction of its own that begins, is done, and fails.
fn auto_compaction_words(turn: &Turn) -> (&'static str, &'static str, &'static str) {
    match turn.settings.auto_compaction {
        AutoCompaction::Revisions(_) => (
            "starting auto revision compaction",
            "completed auto revision compaction",
            "failed auto revision compaction",
        ),
        AutoCompaction::Periodic(_) | AutoCompaction::Off => (
            "starting auto periodic compaction",
            "completed auto periodic compaction",
            "failed auto periodic compaction",
        ),
    }
}

fn notice_auto_compaction<const N: usize>(
    turn: &mut Turn,
    level: Level,
    message: &'static str,
    revision: Revision,
    more: [(&'static str, Value); N],
) {
    let kept = match turn.settings.auto_compaction {
        AutoCompaction::Revisions(kept) => Some(("revision-compaction-retention", kept.into())),
        AutoCompaction::Periodic(period) => Some(("compact-period", period.into())),
        AutoCompaction::Off => None,
    };
    let mut fields = Fields::from([("revision", revision.wire().into())]);
    fields.0.extend(kept.into_iter().chain(more));
    turn.log_line(level, message, fields);
}

/// What somebody else has compacted is compacted too.
fn on_compactor_done(turn: &mut Turn, revision: Revision, begun: Time, answer: &Answer) {
    let (_, completed, failed) = auto_compaction_words(turn);
    match answer {
        Ok(_) | Err(Error::Compacted) => {
            let took = turn.now.since(begun);
            notice_auto_compaction(turn, Level::Info, completed, revision, [("took", took.into())]);
        }
        Err(error) => {
            let error = ("error", error.to_string().into());
            notice_auto_compaction(turn, Level::Warn, failed, revision, [error]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_followed_compacts_at_its_own_next_look() {
        let period = Duration::from_secs(100);
        let mut auto = Auto::new(AutoCompaction::Periodic(period), 300_000, Time(0));
        let mut compacted = vec![];
        for second in 0..600 {
            let (now, leads) = (Time::from_ms(second * 1000), second >= 345);
            compacted
                .extend(auto.look(now, Revision(second + 1), leads).map(|revision| (second, revision.0)));
        }
        assert_eq!(compacted, [(350, 251), (450, 351), (550, 451)]);
        assert!(auto.seen.len() <= 11, "{}", auto.seen.len());
    }

    #[test]
    fn periodic_compaction_goes_to_the_revision_of_one_period_ago_once_a_period() {
        let period = Duration::from_secs(100);
        let mut auto = Auto::new(AutoCompaction::Periodic(period), 300_000, Time(0));
        let mut compacted = vec![];
        for second in 0..400 {
            let now = Time::from_ms(second * 1000);
            compacted.extend(auto.look(now, Revision(second + 1), true).map(|revision| (second, revision.0)));
        }
        assert_eq!(compacted, [(100, 1), (200, 101), (300, 201)]);
    }

    #[test]
    fn keeping_revisions_compacts_every_five_minutes() {
        let mut auto = Auto::new(AutoCompaction::Revisions(1000), 300_000, Time(0));
        assert_eq!(auto.look(Time::from_ms(299_999), Revision(5000), true), None);
        assert_eq!(auto.look(Time::from_ms(300_000), Revision(5000), true), Some(Revision(4000)));
        assert_eq!(auto.look(Time::from_ms(600_000), Revision(5000), true), None);
        assert_eq!(auto.look(Time::from_ms(900_000), Revision(900), true), None);
    }
}
