//! Starts and ends of members.

use super::boot::{self, Joiner};
use super::hits::Hit;
use super::member::{Death, Life};
use super::world::{Failure, REFUSED, World};
use crate::reactor::at_start;
use crate::types::{Duration, Time};

/// Longer than any run.
const FOR_GOOD: Duration = Duration::from_secs(1_000_000);

impl World {
    pub(super) fn clear(&mut self, at: usize) -> Result<bool, Failure> {
        let member = &mut self.members[at];
        member.has_power = true;
        member.life = Life::Clearing(at_start(member.files.disk.files()));
        Ok(true)
    }

    pub(super) fn start(&mut self, at: usize) -> Result<bool, Failure> {
        let (now, shape) = (self.now, &self.shape);
        let member = &mut self.members[at];
        if let Life::Clearing(steps) = &mut member.life {
            let cleared = boot::clear_dead(&mut member.files, now, steps);
            if !cleared.map_err(|why| Failure::new(REFUSED, why))? {
                return Ok(true);
            }
        }
        member.starts += 1;
        let mut reactors = member.shape.reactors;
        if member.shape.resizes && member.starts > 1 {
            reactors = shape.draw_reactors(&mut member.boot_rng);
        }
        self.trace.line(now, || format!("m{at} starts with {reactors} reactors"));
        let key = member.boot_rng.next_u64();
        if std::mem::take(&mut member.unreadable) {
            let files = member.files.disk.files().count() as u64;
            member.files.disk.fail_read(member.boot_rng.below(1 + files));
        }
        let who = (at, member.alone);
        match boot::begin(&mut member.files, now, who, shape, reactors, key) {
            Ok(starting) => {
                member.alone.is_to_be = starting.stands_alone;
                member.life = Life::Starting(Box::new(starting));
            }
            Err(why) => self.refused(at, why)?,
        }
        Ok(true)
    }

    pub(super) fn finish_start(&mut self, at: usize) -> Result<bool, Failure> {
        let member = &mut self.members[at];
        let down = Life::Down { until: self.now };
        let Life::Starting(starting) = std::mem::replace(&mut member.life, down) else { return Ok(false) };
        let who = (at, member.joiner.as_ref());
        match starting.finish(&mut member.files, self.now, who, &self.shape, &mut member.boot_rng) {
            Ok(process) => {
                if member.full_until != Time::NEVER {
                    self.hits.count(Hit::FullStart);
                }
                member.files.disk.end_failing_reads();
                member.life = Life::Up(Box::new(process));
                member.dying = member.dies_after.take().map(|steps| (steps, Death::Kill));
            }
            Err(why) => self.refused(at, why)?,
        }
        Ok(true)
    }

    /// The member does not start. Where that was one error of reading, it is started again.
    fn refused(&mut self, at: usize, why: String) -> Result<(), Failure> {
        let member = &mut self.members[at];
        if !member.files.disk.end_failing_reads() {
            return Err(Failure::new(REFUSED, why));
        }
        self.trace.line(self.now, || format!("m{at} refuses: {why}"));
        self.hits.count(Hit::UnreadableStart);
        member.life = Life::Down { until: self.now + Duration(1_000_000) };
        Ok(())
    }

    /// The process stops by itself, as it must where the disk fails it.
    pub(super) fn halt(&mut self, at: usize, why: &str) -> Result<(), Failure> {
        self.trace.line(self.now, || format!("m{at} halts: {why}"));
        let member = &self.members[at];
        let Some(well_at) = member.well_at() else { return Err(Failure::new("halt", why)) };
        if member.dead_until != Time::NEVER {
            self.hits.count(Hit::DeadDisk);
        }
        self.die(at, Death::Kill);
        self.members[at].life = Life::Down { until: well_at + Duration(1) };
        Ok(())
    }

    /// Notes the ways that the process went, which is no more after this.
    pub(super) fn walk(&mut self, at: usize) {
        if let Some(process) = self.members[at].process() {
            process.seats.iter().for_each(|seat| self.paths.add(&seat.reactor.paths()));
        }
    }

    pub(super) fn die(&mut self, at: usize, death: Death) {
        let mut until = self.now + Duration(self.rng.below(30_000_000));
        // Long enough for the others to elect, now and then.
        if self.shape.members.len() > 1 && self.rng.chance(1, 2) {
            until = self.now + Duration(self.rng.below(4_000_000_000));
        }
        self.die_until(at, death, until);
    }

    fn die_until(&mut self, at: usize, death: Death, mut until: Time) {
        self.trace.line(self.now, || format!("m{at}: {death:?}"));
        self.walk(at);
        let (now, member) = (self.now, &mut self.members[at]);
        member.dying = None;
        member.has_power = death == Death::Kill;
        let files = &mut member.files;
        match death {
            Death::Kill => files.disk.kill(&mut files.rng),
            Death::PowerLoss => files.disk.power_loss(&mut files.rng),
        }
        files.forget();
        if member.dead_until != Time::NEVER {
            until = until.max(member.dead_until + Duration(1));
        }
        member.life = Life::Down { until };
        for client in self.clients.iter_mut().filter(|client| client.is_at(at)) {
            client.disconnected(now, &mut self.history);
        }
        // Of a process that dies its kernel says so; of a machine nobody does until it is back.
        let said_at = if death == Death::Kill { now } else { until };
        self.links.sever(now, at, said_at);
        self.peers.forget(at);
    }

    /// It dies, and does not come back before all is calm.
    pub(super) fn die_for_good(&mut self, at: usize, death: Death) {
        self.die_until(at, death, self.now + FOR_GOOD);
    }

    /// All members die at once, and come back.
    pub(super) fn all_die(&mut self, death: Death) {
        let there: Vec<usize> = self.places().filter(|at| !self.members[*at].is_away()).collect();
        there.into_iter().for_each(|at| self.die(at, death));
    }

    /// The power goes now, everywhere, and all members come back.
    pub fn lose_power(&mut self) {
        self.all_die(Death::PowerLoss);
    }
}

/// Members that come and go.
impl World {
    /// A member that was added is started for the first time, with an empty disk.
    pub(super) fn join(&mut self, at: usize, joiner: Joiner, after: Duration, dies_after: Option<u64>) {
        let member = &mut self.members[at];
        assert!(matches!(member.life, Life::Vacant), "m{at} was started before");
        member.joiner = Some(joiner);
        member.dies_after = dies_after;
        member.life = Life::Down { until: self.now + after };
        self.hits.count(Hit::Joined);
    }

    /// A process says that its member was removed, and ends. Some are started again, and end again.
    pub(super) fn leave(&mut self, at: usize) -> Result<(), Failure> {
        self.trace.line(self.now, || format!("m{at} was removed and ends"));
        let id = self.identity(at).id;
        if !self.history.removals().any(|removed| removed == id) {
            return Err(Failure::new("halt", format!("m{at} ends as if it had been removed")));
        }
        self.die(at, Death::Kill);
        let member = &mut self.members[at];
        member.leaves += 1;
        self.hits.count(if member.leaves == 1 { Hit::Left } else { Hit::LeftAgain });
        if member.leaves > 1 || self.rng.chance(1, 2) {
            self.members[at].life = Life::Gone;
        }
        Ok(())
    }

    /// Whether somebody who is there now was known to the member when it was started first, so that it finds who
    /// says that it was removed.
    pub(super) fn is_told(&self, at: usize) -> bool {
        let knows = |other: &usize| match &self.members[at].joiner {
            Some(joiner) => joiner.members.iter().any(|known| known.id == self.identity(*other).id),
            None => *other < self.shape.founders,
        };
        self.serving.iter().any(knows)
    }

    /// Its operator takes a member away.
    pub(super) fn retire(&mut self, at: usize) {
        self.die_for_good(at, Death::Kill);
        self.members[at].life = Life::Gone;
    }

    /// A member's machine goes for ever, with its disk.
    pub(super) fn wipe(&mut self, at: usize) {
        self.die_for_good(at, Death::PowerLoss);
        self.members[at].life = Life::Gone;
        self.hits.count(Hit::Wiped);
    }
}
