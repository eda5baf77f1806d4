//! What only the lead's control shard does: leases that expire, compaction by itself, control entries on
//! their way, and who still has to hear of them.

use super::calls::Asker;
use super::controls::{Asked, Decided};
use super::settings::{AutoCompaction, Settings};
use super::waiters::Waiters;
use super::{Reactor, Stage};
use crate::api::{Answer, CompactRequest, Error, Reply, Request};
use crate::control::founder_raft_ids;
use crate::io::{CallId, Fields, Level, Value};
use crate::lease::{Expiry, Leases};
use crate::record::{Control, MemberRecord};
use crate::stdx::Rng;
use crate::types::{Duration, Epoch, Index, LeaseId, ReactorId, Revision, ShardId, Time};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A control entry that took effect here, until every reactor has it.
#[derive(Debug)]
pub(super) struct Announced {
    pub waiting: Vec<ReactorId>,
    /// What shows it, and the revisions they depend on: the one who asked for it, and who read it since.
    pub answers: Vec<(Revision, CallId, Answer)>,
}

/// A compaction whose history is being dropped.
#[derive(Debug)]
pub(super) struct Compaction {
    pub begun: Time,
    /// Versions dropped so far, as the reactors have said.
    pub dropped: u64,
}

/// A revoke whose reactors have not all said which shards have keys of the lease.
#[derive(Debug)]
pub(super) struct Revoking {
    pub lease: LeaseId,
    pub waiting: Vec<ReactorId>,
    pub shards: Vec<ShardId>,
}

pub(super) struct Leading {
    /// Whether the epoch serves: what takes effect before that was decided in an earlier one.
    pub serves: bool,
    pub expiry: Expiry,
    pub rng: Rng,
    /// Entries proposed whose answer waits for their effect.
    pub proposed: BTreeMap<Index, (CallId, Answer)>,
    /// Entries that took effect and are being made known.
    pub announced: BTreeMap<Index, Announced>,
    /// Requests that wait until what they have seen is settled.
    pub pending: VecDeque<(Revision, Decided)>,
    /// Leases that an entry on its way grants.
    pub granting: BTreeSet<LeaseId>,
    /// Leases being revoked, until their ends take effect.
    pub ending: BTreeSet<LeaseId>,
    /// Requests of a lease that an entry on its way grants or ends.
    pub waiting: Waiters<LeaseId, Asked>,
    pub revoking: BTreeMap<CallId, Revoking>,
    /// Compactions asked for with `physical`, until all reactors have dropped the history.
    pub physical: Vec<(Revision, CallId, Answer)>,
    pub compacted_by: BTreeMap<ReactorId, Revision>,
    pub compaction: Option<Compaction>,
    /// A compaction on its way.
    pub compacting_to: Revision,
    /// Compactions that one on its way goes beyond, by their revision: they are refused when it is durable.
    pub outdone: Waiters<Revision, Asked>,
    /// The alarm of a full disk or quota is on its way, and these calls are refused with it.
    pub raising_no_space: Option<Vec<CallId>>,
    /// A full disk was heard of while no epoch served: the alarm is raised when one does.
    pub no_space_heard: bool,
    auto: Auto,
}

/// etcd's compactor: what revision was seen when.
struct Auto {
    mode: AutoCompaction,
    /// How often the mode that keeps revisions compacts.
    revisions_every: Duration,
    seen: VecDeque<(Time, Revision)>,
    next_look: Time,
    /// Periodic only.
    next_compaction: Time,
    last: Revision,
}

const HOUR: Duration = Duration::from_secs(3600);

impl Leading {
    pub fn new(settings: &Settings, rng: Rng, now: Time) -> Leading {
        Leading {
            serves: false,
            expiry: Expiry::take_over(&Leases::new(settings.election_timeout), now, Duration(0)),
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
            compaction: None,
            compacting_to: Revision::NONE,
            outdone: Waiters::default(),
            raising_no_space: None,
            no_space_heard: false,
            auto: Auto::new(settings.auto_compaction, settings.bounds.auto_compaction_revisions_ms, now),
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
        self.outdone.clear();
        self.raising_no_space = None;
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

    /// The revision to compact to, if it is time.
    fn look(&mut self, now: Time, settled: Revision) -> Option<Revision> {
        if now < self.next_look {
            return None;
        }
        self.next_look = now + self.every()?;
        let target = match self.mode {
            AutoCompaction::Off => None,
            AutoCompaction::Revisions(keep) => settled.0.checked_sub(keep).map(Revision),
            AutoCompaction::Periodic(period) => {
                self.seen.push_back((now, settled));
                if now < self.next_compaction {
                    return None;
                }
                self.next_compaction = now + period.min(HOUR);
                self.one_period_ago(now, period)
            }
        }?;
        if target <= self.last || target == Revision::NONE {
            return None;
        }
        self.last = target;
        Some(target)
    }

    /// The revision seen one period ago; what was seen before it is forgotten.
    fn one_period_ago(&mut self, now: Time, period: Duration) -> Option<Revision> {
        let mut target = None;
        while let Some((_, revision)) = self.seen.pop_front_if(|(at, _)| now.since(*at) >= period) {
            target = Some(revision);
        }
        target
    }
}

impl Reactor {
    /// Serving begins: leases get their full time anew, and the member says who it is.
    pub(super) fn begin_leading(&mut self, epoch: Epoch) {
        let now = self.now;
        let Some(leading) = &mut self.leading else { return };
        leading.end_epoch();
        leading.serves = true;
        leading.expiry = Expiry::take_over(&self.control.leases, now, self.settings.election_timeout);
        self.notice(
            Level::Info,
            "serving",
            [("epoch", epoch.to_string().into()), ("revision", self.settled.wire().into())],
        );
        self.publish_attributes();
        if let Some(leading) = &mut self.leading
            && std::mem::take(&mut leading.no_space_heard)
        {
            self.on_no_space(None);
        }
    }

    fn publish_attributes(&mut self) {
        let settings = self.settings.clone();
        let directory = self.log.store().0;
        let raft_ids = founder_raft_ids(settings.cluster, settings.member, self.reactors);
        let says_all = |known: &MemberRecord| {
            let logs: Vec<u32> = known.raft_ids.iter().map(|of| of.log).collect();
            (&known.name, &known.client_urls, known.directory)
                == (&settings.name, &settings.client_urls, directory)
                && raft_ids.iter().all(|of| logs.contains(&of.log))
        };
        if self.control.member(settings.member).is_some_and(says_all) {
            return;
        }
        self.propose_later(Control::MemberAttributes {
            member: settings.member.0,
            directory,
            name: settings.name.clone(),
            client_urls: settings.client_urls.clone(),
            raft_ids,
        });
    }

    /// The lead's own work of a turn.
    pub(super) fn lead(&mut self) {
        if self.leading.is_none() || self.stage != Stage::Serving {
            return;
        }
        self.propose_pending();
        self.expire_leases();
        let (now, settled) = (self.now, self.settled);
        let Some(leading) = &mut self.leading else { return };
        if let Some(revision) = leading.auto.look(now, settled) {
            let (starting, ..) = self.auto_compaction_words();
            self.notice_auto_compaction(Level::Info, starting, revision, []);
            let request = CompactRequest { revision: revision.wire(), physical: false };
            self.counters.paths.compacted_by_itself += 1;
            self.call(Asker::Compactor(revision, now), Request::Compact(request));
        }
    }

    /// etcd's words for a compaction of its own that begins, is done, and fails.
    fn auto_compaction_words(&self) -> (&'static str, &'static str, &'static str) {
        match self.settings.auto_compaction {
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
        &mut self,
        level: Level,
        message: &'static str,
        revision: Revision,
        more: [(&'static str, Value); N],
    ) {
        let kept = match self.settings.auto_compaction {
            AutoCompaction::Revisions(kept) => Some(("revision-compaction-retention", kept.into())),
            AutoCompaction::Periodic(period) => Some(("compact-period", period.into())),
            AutoCompaction::Off => None,
        };
        let mut fields = Fields::from([("revision", revision.wire().into())]);
        fields.0.extend(kept.into_iter().chain(more));
        self.notice(level, message, fields);
    }

    /// What somebody else has compacted is compacted too.
    pub(super) fn on_compactor_done(&mut self, revision: Revision, begun: Time, answer: &Answer) {
        let (_, completed, failed) = self.auto_compaction_words();
        match answer {
            Ok(_) | Err(Error::Compacted) => {
                let took = self.now.since(begun);
                self.notice_auto_compaction(Level::Info, completed, revision, [("took", took.into())]);
            }
            Err(error) => {
                let error = ("error", error.to_string().into());
                self.notice_auto_compaction(Level::Warn, failed, revision, [error]);
            }
        }
    }

    fn expire_leases(&mut self) {
        let now = self.now;
        let Some(leading) = &mut self.leading else { return };
        if now < leading.expiry.wake_at() {
            return;
        }
        let mut due = vec![];
        leading.expiry.due(now, &mut due);
        for lease in due {
            self.counters.leases_expired += 1;
            self.call(Asker::Expiry(lease), Request::LeaseRevoke(lease));
        }
    }

    pub(super) fn on_expiry_done(&mut self, lease: LeaseId, answer: &Answer) {
        let now = self.now;
        let Some(leading) = &mut self.leading else { return };
        if !matches!(answer, Ok(Reply::LeaseRevoke { .. }) | Err(Error::LeaseNotFound)) {
            leading.expiry.failed(lease, now);
        }
    }

    pub(super) fn leading_wake_at(&self) -> Time {
        let Some(leading) = &self.leading else { return Time::NEVER };
        if self.stage != Stage::Serving {
            return Time::NEVER;
        }
        leading.expiry.wake_at().min(leading.auto.next_look)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periodic_compaction_goes_to_the_revision_of_one_period_ago_once_a_period() {
        let period = Duration::from_secs(100);
        let mut auto = Auto::new(AutoCompaction::Periodic(period), 300_000, Time(0));
        let mut compacted = vec![];
        for second in 0..400 {
            let now = Time::from_ms(second * 1000);
            compacted.extend(auto.look(now, Revision(second + 1)).map(|revision| (second, revision.0)));
        }
        assert_eq!(compacted, [(100, 1), (200, 101), (300, 201)]);
    }

    #[test]
    fn keeping_revisions_compacts_every_five_minutes() {
        let mut auto = Auto::new(AutoCompaction::Revisions(1000), 300_000, Time(0));
        assert_eq!(auto.look(Time::from_ms(299_999), Revision(5000)), None);
        assert_eq!(auto.look(Time::from_ms(300_000), Revision(5000)), Some(Revision(4000)));
        assert_eq!(auto.look(Time::from_ms(600_000), Revision(5000)), None);
        assert_eq!(auto.look(Time::from_ms(900_000), Revision(900)), None);
    }
}
