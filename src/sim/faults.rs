//! What goes wrong in the world, and how it ends.

use super::disk::Health;
use super::hits::{Hit, Hits};
use super::plan::Fault;
use super::process::Item;
use super::world::{CAPACITY_BYTES, Death, Life, World};
use crate::io::Output;
use crate::stdx::Rng;
use crate::types::{Duration, ShardId, Time};

/// What the member says then.
const EPOCH_ENDS: &str = "the epoch ends: taking over anew";

impl World {
    /// Everything that has gone wrong.
    pub fn hits(&self) -> Hits {
        let mut hits = self.hits;
        hits += self.files.disk.hits;
        hits
    }

    /// A death that was drawn meets a process.
    pub(super) fn count_death(&mut self, death: Death) {
        let in_turn = matches!(&self.life, Life::Up(process) if process.is_in_turn());
        self.hits.count(match (death, &self.life, in_turn) {
            (Death::Kill, Life::Up(_), false) => Hit::Kill,
            (Death::Kill, Life::Up(_), true) => Hit::KillInTurn,
            (Death::Kill, ..) => Hit::KillInStart,
            (Death::PowerLoss, Life::Down { .. }, _) => Hit::PowerLossWhileDown,
            (Death::PowerLoss, Life::Up(_), false) => Hit::PowerLoss,
            (Death::PowerLoss, Life::Up(_), true) => Hit::PowerLossInTurn,
            (Death::PowerLoss, ..) => Hit::PowerLossInStart,
        });
    }

    pub(super) fn count_output(&mut self, output: &Output) {
        match output {
            Output::Log(_) | Output::Bulk { .. } => {
                if self.slow_disk_until != Time::NEVER {
                    self.hits.count(Hit::SlowDisk);
                }
                if self.hung_until != Time::NEVER {
                    self.hits.count(Hit::HungDisk);
                }
            }
            Output::Notice(notice) if notice.message == EPOCH_ENDS => self.hits.count(Hit::EpochEnd),
            _ => {}
        }
    }

    pub(super) fn end_faults(&mut self) {
        let now = self.now;
        if self.slow_disk_until <= now {
            self.slow_disk_until = Time::NEVER;
            self.files.disk.set_latency((Duration(0), self.shape.disk_latency));
        }
        if self.hung_until <= now {
            self.hung_until = Time::NEVER;
            self.files.disk.set_health(Health::Well);
        }
        if self.full_until <= now {
            self.full_until = Time::NEVER;
            self.files.disk.set_capacity(CAPACITY_BYTES);
        }
        if self.dead_until <= now {
            self.dead_until = Time::NEVER;
            self.files.disk.set_health(Health::Well);
        }
    }

    /// Ends everything that goes wrong.
    pub fn calm(&mut self) {
        let now = self.now;
        for until in
            [&mut self.slow_disk_until, &mut self.hung_until, &mut self.full_until, &mut self.dead_until]
        {
            *until = if *until == Time::NEVER { Time::NEVER } else { now };
        }
        self.end_faults();
        self.dying = None;
        self.end_slow_mail();
        self.files.failing_steps = 0;
        if let Life::Down { until } = &mut self.life {
            *until = now;
        }
        if let Life::Up(process) = &mut self.life {
            for seat in &mut process.seats {
                seat.paused_until = now;
            }
        }
        for client in &mut self.clients {
            client.stalled_until = now;
        }
    }

    pub fn fault(&mut self, fault: Fault, mut rng: Rng) {
        self.trace.line(self.now, || format!("{fault:?}"));
        let now = self.now;
        let well = [self.hung_until, self.dead_until].iter().all(|until| *until == Time::NEVER);
        match fault {
            Fault::Kill { steps } => self.doom(steps, Death::Kill),
            Fault::PowerLoss { steps } => self.doom(steps, Death::PowerLoss),
            Fault::SlowDisk(most, span) => {
                self.slow_disk_until = now + span;
                self.files.disk.set_latency((Duration(0), most));
            }
            Fault::HungDisk(span) if well => {
                self.hung_until = now + span;
                self.files.disk.set_health(Health::Hung);
            }
            Fault::DeadDisk(span) if well && self.is_up() => {
                self.dead_until = now + span;
                self.files.disk.set_health(Health::Dead);
            }
            Fault::HungDisk(_) | Fault::DeadDisk(_) => {}
            Fault::FullDisk(span) => {
                self.full_until = now + span;
                let moment = self.history.moment(now);
                self.history.known.full_since.get_or_insert(moment);
                self.files.disk.set_capacity(0);
            }
            Fault::FailedSteps(steps) => self.files.failing_steps = steps,
            Fault::Jump(span) => {
                self.now = now + span;
                if self.is_up() {
                    self.hits.count(Hit::Jump);
                }
            }
            Fault::UnreadableStart => self.unreadable = true,
            Fault::Stall { client, span } => self.clients[client].stalled_until = now + span,
            Fault::Disconnect { client } => {
                if self.clients[client].link.is_some() {
                    self.hits.count(Hit::Disconnect);
                }
                self.disconnect(client);
            }
            Fault::Pause(_) | Fault::Depose | Fault::SlowMail(..) => self.fault_in_process(fault, &mut rng),
        }
    }

    fn doom(&mut self, steps: u64, death: Death) {
        match &self.life {
            Life::Up(_) if self.dying.is_none() => self.dying = Some((steps, death)),
            Life::Up(_) => {}
            // During a start.
            Life::Starting(_) | Life::Clearing(_) => {
                self.count_death(death);
                self.die(death);
            }
            Life::Down { .. } if death == Death::PowerLoss => {
                self.count_death(death);
                self.files.disk.power_loss(&mut self.files.rng);
            }
            Life::Down { .. } => {}
        }
    }

    /// Mail from one reactor to another takes up to so long until that ends.
    pub fn slow_mail_between(&mut self, from: usize, to: usize, most: Duration) {
        self.slow_mail = Some((from, to, most, Time::NEVER));
    }

    pub fn end_slow_mail(&mut self) {
        self.slow_mail = None;
    }

    fn fault_in_process(&mut self, fault: Fault, rng: &mut Rng) {
        let now = self.now;
        let Life::Up(process) = &mut self.life else { return };
        let seats = process.seats.len();
        let at = rng.below(seats as u64) as usize;
        match fault {
            Fault::Pause(span) => process.seats[at].paused_until = now + span,
            Fault::SlowMail(most, span) => {
                let to = (at + 1 + rng.below(seats.max(2) as u64 - 1) as usize) % seats;
                self.slow_mail = Some((at, to, most, now + span));
            }
            Fault::Depose => {
                let shard = ShardId(rng.below(self.shape.shards as u64 + 1) as u32);
                let owner = crate::router::reactor_of(shard, seats as u16);
                process.deliver(usize::from(owner.0), now, Item::Deposed(shard));
            }
            _ => unreachable!("the caller has sorted them"),
        }
    }

    /// The power goes now, and the member comes back.
    pub fn lose_power(&mut self) {
        self.die(Death::PowerLoss);
    }

    /// Others fill the disk to its last byte, until it is emptied.
    pub fn fill_disk(&mut self) {
        let moment = self.history.moment(self.now);
        self.history.known.full_since.get_or_insert(moment);
        self.files.disk.fill();
    }

    pub fn empty_disk(&mut self) {
        self.files.disk.set_capacity(CAPACITY_BYTES);
    }
}
