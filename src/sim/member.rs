//! A member: its process, its disk, its clock, and what goes wrong with them.

use super::boot::{Alone, Joiner, Starting};
use super::disk::{Disk, Health};
use super::files::{Files, Final};
use super::plan::{MemberShape, Shape};
use super::process::Process;
use crate::reactor::AtStart;
use crate::stdx::Rng;
use crate::types::{Duration, Time};
use std::collections::VecDeque;

pub(super) enum Life {
    /// It has never been started, and nobody has begun to.
    Vacant,
    /// It was removed, and is started no more.
    Gone,
    Down {
        until: Time,
    },
    /// What is left of dead logs is being removed, and their marks, in these steps.
    Clearing(VecDeque<AtStart>),
    Starting(Box<Starting>),
    Up(Box<Process>),
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Death {
    Kill,
    PowerLoss,
}

/// Mail from one reactor to another that takes up to so long, until then.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlowMail {
    pub from: usize,
    pub to: usize,
    pub longest: Duration,
    pub until: Time,
}

pub(super) struct Member {
    /// Its place in the world's list.
    pub at: usize,
    pub shape: MemberShape,
    pub life: Life,
    /// Where it is no founder and was added.
    pub joiner: Option<Joiner>,
    pub alone: Alone,
    pub files: Files,
    pub boot_rng: Rng,
    pub starts: u64,
    /// Without it no kernel says that a process is gone.
    pub has_power: bool,
    /// Its process dies after so many more of its steps.
    pub dying: Option<(u64, Death)>,
    /// When what is wrong with the disk ends; never where nothing is.
    pub slow_disk_until: Time,
    pub hung_until: Time,
    pub full_until: Time,
    pub dead_until: Time,
    /// Its process dies after so many steps of its first life.
    pub dies_after: Option<u64>,
    /// Processes that have ended since the member was removed.
    pub leaves: u64,
    /// The next start cannot read something.
    pub unreadable: bool,
    /// Files of logs as they were a while ago.
    pub copies: Vec<(String, Vec<u8>)>,
    pub slow_mail: Option<SlowMail>,
}

const CAPACITY_BYTES: u64 = 64 << 20;

impl Member {
    pub fn new(at: usize, shape: &Shape, rng: &mut Rng) -> Member {
        let life = if at < shape.founders { Life::Down { until: Time(0) } } else { Life::Vacant };
        let shape = shape.members[at];
        let disk = Disk::new(CAPACITY_BYTES, (Duration(0), shape.disk_latency));
        Member {
            at,
            shape,
            life,
            joiner: None,
            alone: Alone::default(),
            files: Files::new(disk, rng.fork()),
            boot_rng: rng.fork(),
            starts: 0,
            has_power: true,
            dying: None,
            slow_disk_until: Time::NEVER,
            hung_until: Time::NEVER,
            full_until: Time::NEVER,
            dead_until: Time::NEVER,
            dies_after: None,
            leaves: 0,
            unreadable: false,
            copies: vec![],
            slow_mail: None,
        }
    }

    pub fn process(&self) -> Option<&Process> {
        if let Life::Up(process) = &self.life { Some(process) } else { None }
    }

    /// How it stands with its reactors.
    pub fn picture(&self) -> Vec<String> {
        let seats = self.process().into_iter().flat_map(|process| &process.seats);
        seats.flat_map(|seat| seat.reactor.picture()).map(|line| format!("m{} {line}", self.at)).collect()
    }

    pub fn process_mut(&mut self) -> Option<&mut Process> {
        if let Life::Up(process) = &mut self.life { Some(process) } else { None }
    }

    pub fn is_up(&self) -> bool {
        self.process().is_some()
    }

    /// Whether it is neither up nor will ever be, as things stand.
    pub fn is_away(&self) -> bool {
        matches!(self.life, Life::Vacant | Life::Gone)
    }

    pub fn is_vacant(&self) -> bool {
        matches!(self.life, Life::Vacant)
    }

    pub fn reactors(&self) -> usize {
        self.process().map_or(0, |process| process.seats.len())
    }

    pub fn wake_at(&self) -> Time {
        let life = match &self.life {
            Life::Down { until } => *until,
            Life::Vacant | Life::Gone | Life::Starting(_) | Life::Clearing(_) => Time::NEVER,
            Life::Up(process) => process.wake_at(),
        };
        let faults = [self.slow_disk_until, self.hung_until, self.full_until, self.dead_until];
        faults.into_iter().chain([life, self.files.wake_at()]).min().expect("there are several")
    }

    /// Takes what its disk has done by now.
    pub fn complete(&mut self, now: Time) -> Result<bool, Final> {
        let process = if let Life::Up(process) = &mut self.life { Some(&mut **process) } else { None };
        self.files.complete(now, process)
    }

    /// The longest way of mail between two reactors, where something makes it longer than it is.
    pub fn longest_mail(&self, from: usize, to: usize, now: Time) -> Option<Duration> {
        let slow = self.slow_mail.filter(|slow| slow.until > now && (slow.from, slow.to) == (from, to));
        slow.map(|slow| slow.longest)
    }
}

/// What goes wrong with it, and how that ends.
impl Member {
    /// Its disk neither hangs nor fails.
    pub fn disk_goes(&self) -> bool {
        self.hung_until == Time::NEVER && self.dead_until == Time::NEVER
    }

    /// When the disk is well again that stops a process; none where it is.
    pub fn well_at(&self) -> Option<Time> {
        [self.dead_until, self.full_until].into_iter().filter(|until| *until != Time::NEVER).max()
    }

    pub fn slow_disk(&mut self, longest: Duration, until: Time) {
        self.slow_disk_until = until;
        self.files.disk.set_latency((Duration(0), longest));
    }

    pub fn hang_disk(&mut self, until: Time) {
        self.hung_until = until;
        self.files.disk.set_health(Health::Hung);
    }

    pub fn kill_disk(&mut self, until: Time) {
        self.dead_until = until;
        self.files.disk.set_health(Health::Dead);
    }

    /// Others take all of the disk, what its files hold included.
    pub fn overfill_disk(&mut self, until: Time) {
        self.full_until = until;
        self.files.disk.set_capacity(0);
    }

    pub fn empty_disk(&mut self) {
        self.files.disk.set_capacity(CAPACITY_BYTES);
    }

    pub fn end_faults(&mut self, now: Time) {
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
            self.empty_disk();
        }
        if self.dead_until <= now {
            self.dead_until = Time::NEVER;
            self.files.disk.set_health(Health::Well);
        }
    }

    /// Ends everything that goes wrong.
    pub fn calm(&mut self, now: Time) {
        for until in
            [&mut self.slow_disk_until, &mut self.hung_until, &mut self.full_until, &mut self.dead_until]
        {
            *until = if *until == Time::NEVER { Time::NEVER } else { now };
        }
        self.end_faults(now);
        self.dying = None;
        self.slow_mail = None;
        self.files.failing_steps = 0;
        match &mut self.life {
            Life::Down { until } => *until = now,
            Life::Up(process) => process.seats.iter_mut().for_each(|seat| seat.paused_until = now),
            Life::Vacant | Life::Gone | Life::Clearing(_) | Life::Starting(_) => {}
        }
    }
}
