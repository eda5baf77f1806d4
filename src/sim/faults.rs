//! What goes wrong in the world, and how it ends.

use super::hits::{Hit, Hits};
use super::member::{Death, Life, Member, SlowMail};
use super::plan::{Fault, LinkFault, MemberFault, Off, Way};
use super::process::Item;
use super::world::World;
use crate::io::Output;
use crate::stdx::Rng;
use crate::types::{Duration, ShardId, Time};

/// What a member says then.
const EPOCH_ENDS: &str = "the epoch ends: taking over anew";
const STATE_TAKEN: &str = "the log of a shard begins anew behind another member's state";

impl World {
    /// Everything that has gone wrong.
    pub fn hits(&self) -> Hits {
        let mut hits = self.hits;
        self.members.iter().for_each(|member| hits += member.files.disk.hits);
        hits += self.links.hits;
        hits
    }

    /// The member that began to lead last, if it is up.
    pub fn leader(&self) -> Option<usize> {
        let last = self.history.known.reigns.last()?;
        Some(last.member).filter(|member| self.is_up(*member))
    }

    /// A death that was drawn meets a process.
    pub(super) fn count_death(&mut self, at: usize, death: Death) {
        let life = &self.members[at].life;
        let in_turn = matches!(life, Life::Up(process) if process.is_in_turn());
        self.hits.count(match (death, life, in_turn) {
            (Death::Kill, Life::Up(_), false) => Hit::Kill,
            (Death::Kill, Life::Up(_), true) => Hit::KillInTurn,
            (Death::Kill, ..) => Hit::KillInStart,
            (Death::PowerLoss, Life::Down { .. }, _) => Hit::PowerLossWhileDown,
            (Death::PowerLoss, Life::Up(_), false) => Hit::PowerLoss,
            (Death::PowerLoss, Life::Up(_), true) => Hit::PowerLossInTurn,
            (Death::PowerLoss, ..) => Hit::PowerLossInStart,
        });
    }

    pub(super) fn count_output(&mut self, at: usize, output: &Output) {
        match output {
            Output::Log(_) | Output::Bulk { .. } => {
                if self.members[at].slow_disk_until != Time::NEVER {
                    self.hits.count(Hit::SlowDisk);
                }
                if self.members[at].hung_until != Time::NEVER {
                    self.hits.count(Hit::HungDisk);
                }
            }
            Output::LogLine(line) if line.message == EPOCH_ENDS => self.hits.count(Hit::EpochEnd),
            Output::LogLine(line) if line.message == STATE_TAKEN => {
                let moment = self.history.moment(self.now);
                self.history.took_states.entry(at).or_insert(moment);
            }
            _ => {}
        }
    }

    pub(super) fn end_faults(&mut self) {
        self.members.iter_mut().for_each(|member| member.end_faults(self.now));
    }

    /// Ends everything that goes wrong.
    pub fn calm(&mut self) {
        let now = self.now;
        self.members.iter_mut().for_each(|member| member.calm(now));
        self.links.calm();
        for client in &mut self.clients {
            client.stalled_until = now;
        }
    }

    pub fn fault(&mut self, fault: Fault, rng: Rng) {
        self.trace.line(self.now, || format!("{fault:?}"));
        match fault {
            Fault::Member(member, fault) => self.fault_of_member(member, fault, rng),
            Fault::Leader(fault) => {
                if let Some(leader) = self.leader() {
                    self.hits.count(Hit::LeaderStruck);
                    self.fault_of_member(leader, fault, rng);
                }
            }
            Fault::Cut { off, way, span } => self.cut(off, way, span, rng),
            Fault::Link { from, to, fault } => self.fault_of_link(from, to, fault),
            Fault::Jump(span) => {
                self.now = self.now + span;
                if self.members.iter().any(Member::is_up) {
                    self.hits.count(Hit::Jump);
                }
            }
            Fault::Stall { client, span } => self.clients[client].stalled_until = self.now + span,
            Fault::Disconnect { client } => {
                if self.clients[client].session.is_some() {
                    self.hits.count(Hit::Disconnect);
                }
                self.disconnect(client);
            }
        }
    }

    fn fault_of_member(&mut self, at: usize, fault: MemberFault, mut rng: Rng) {
        let now = self.now;
        let member = &mut self.members[at];
        match fault {
            MemberFault::Kill { steps } => self.doom(at, steps, Death::Kill),
            MemberFault::PowerLoss { steps } => self.doom(at, steps, Death::PowerLoss),
            MemberFault::Stop => {
                if let Some(process) = member.process_mut() {
                    process.tell_to_end(now);
                    self.hits.count(Hit::Stopped);
                }
            }
            MemberFault::SlowDisk(longest, span) => member.slow_disk(longest, now + span),
            MemberFault::HungDisk(span) if member.disk_goes() => member.hang_disk(now + span),
            MemberFault::DeadDisk(span) if member.disk_goes() && member.is_up() => {
                member.kill_disk(now + span);
            }
            MemberFault::HungDisk(_) | MemberFault::DeadDisk(_) => {}
            MemberFault::FullDisk(span) => {
                member.overfill_disk(now + span);
                self.note_full_disk();
            }
            MemberFault::FailedSteps(steps) => member.files.failing_steps = steps,
            MemberFault::UnreadableStart => member.unreadable = true,
            MemberFault::Pause(_)
            | MemberFault::Freeze(_)
            | MemberFault::Depose
            | MemberFault::SlowMail(..) => self.fault_in_process(at, fault, &mut rng),
        }
    }

    fn fault_of_link(&mut self, from: usize, to: usize, fault: LinkFault) {
        let now = self.now;
        match fault {
            LinkFault::BreakOne => self.links.break_some(now, from, to),
            LinkFault::BreakAll => self.links.break_between(now, from, to),
            LinkFault::Stall(span) => self.links.stall(from, to, now + span),
            LinkFault::StallBothWays(span) => {
                self.links.stall(from, to, now + span);
                self.links.stall(to, from, now + span);
            }
            LinkFault::Delay(longest, span) => self.links.delay(from, to, longest, now + span),
        }
    }

    /// Cuts some members off from the others. Their connections last until somebody ends them, or break now.
    fn cut(&mut self, off: Off, way: Way, span: Duration, mut rng: Rng) {
        let members = self.members.len();
        let mut is_off: Vec<bool> = vec![false; members];
        match off {
            Off::Places(places) => {
                is_off.iter_mut().enumerate().for_each(|(at, off)| *off = places >> at & 1 == 1);
                self.hits.count(Hit::MembersCutOff);
            }
            Off::Leader { with } => {
                let Some(leader) = self.leader() else { return };
                let first = rng.below(members as u64) as usize;
                let others = (first..first + members).map(|at| at % members).filter(|at| *at != leader);
                others.take(with).chain([leader]).for_each(|at| is_off[at] = true);
                self.hits.count(Hit::LeaderCutOff);
            }
        }
        let breaks = rng.chance(1, 3);
        let ways = (0..members).flat_map(|from| (0..members).map(move |to| (from, to)));
        for (from, to) in ways.filter(|(from, to)| is_off[*from] != is_off[*to]) {
            let is_cut = match way {
                Way::Both => true,
                Way::In => is_off[to],
                Way::Out => is_off[from],
            };
            if is_cut {
                self.links.stall(from, to, self.now + span);
            }
            if breaks && from < to {
                self.links.break_between(self.now, from, to);
            }
        }
    }

    fn doom(&mut self, at: usize, steps: u64, death: Death) {
        let member = &mut self.members[at];
        match &member.life {
            Life::Up(_) if member.dying.is_none() => member.dying = Some((steps, death)),
            Life::Up(_) => {}
            // During a start.
            Life::Starting(_) | Life::Clearing(_) => {
                self.count_death(at, death);
                self.die(at, death);
            }
            Life::Down { .. } if death == Death::PowerLoss => {
                member.has_power = false;
                let files = &mut member.files;
                files.disk.power_loss(&mut files.rng);
                self.count_death(at, death);
            }
            Life::Down { .. } | Life::Vacant | Life::Gone => {}
        }
    }

    /// Mail from one reactor of a member to another takes up to so long until that ends.
    pub fn slow_mail_between(&mut self, member: usize, from: usize, to: usize, longest: Duration) {
        self.members[member].slow_mail = Some(SlowMail { from, to, longest, until: Time::NEVER });
    }

    pub fn end_slow_mail(&mut self) {
        self.members.iter_mut().for_each(|member| member.slow_mail = None);
    }

    fn fault_in_process(&mut self, at: usize, fault: MemberFault, rng: &mut Rng) {
        let now = self.now;
        let member = &mut self.members[at];
        let Some(process) = member.process_mut() else { return };
        let seats = process.seats.len();
        let from = rng.below(seats as u64) as usize;
        match fault {
            MemberFault::Pause(span) => process.seats[from].paused_until = now + span,
            MemberFault::Freeze(span) => {
                process.seats.iter_mut().for_each(|seat| seat.paused_until = now + span);
                self.hits.count(Hit::Freeze);
            }
            MemberFault::SlowMail(longest, span) => {
                let to = (from + 1 + rng.below(seats.max(2) as u64 - 1) as usize) % seats;
                member.slow_mail = Some(SlowMail { from, to, longest, until: now + span });
            }
            MemberFault::Depose => {
                let shard = ShardId(rng.below(self.shape.shards as u64 + 1) as u32);
                let owner = crate::router::reactor_of(shard, seats as u16);
                process.deliver(usize::from(owner.0), now, Item::Deposed(shard));
            }
            _ => unreachable!("the caller has sorted them"),
        }
    }

    /// Others fill all disks to their last bytes, until they are emptied.
    pub fn fill_disks(&mut self) {
        self.note_full_disk();
        self.members.iter_mut().for_each(|member| member.files.disk.fill());
    }

    pub fn empty_disks(&mut self) {
        self.members.iter_mut().for_each(Member::empty_disk);
    }

    fn note_full_disk(&mut self) {
        let moment = self.history.moment(self.now);
        self.history.known.full_since.get_or_insert(moment);
    }
}
