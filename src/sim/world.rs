//! The world of one run: virtual time, the members, the links between them, their clients, and what happens next.

use super::boot::{CLUSTER, Identity};
use super::client::Client;
use super::files::Final;
use super::history::{History, Known, Reign};
use super::hits::{Hit, Hits, Tally};
use super::links::Links;
use super::member::{Death, Life, Member};
use super::peers::Peers;
use super::plan::{OPERATORS, Plan, Shape};
use super::process::{Item, Stepped};
use super::trace::Trace;
use crate::config::AutoCompaction;
use crate::io::{BulkDone, Chunk, Output, Paths};
use crate::stdx::Rng;
use crate::types::{Duration, MemberId, Time};

/// Why a run is red.
#[derive(Clone, Debug)]
pub struct Failure {
    pub check: &'static str,
    pub what: String,
}

impl Failure {
    pub fn new(check: &'static str, what: impl Into<String>) -> Failure {
        Failure { check, what: what.into() }
    }

    /// A member that finds its own data damaged says so before it serves, as one that does not start.
    fn of_halt(why: String) -> Failure {
        let damaged = ["is damaged", "is missing", "makes no sense"].iter().any(|words| why.contains(words));
        Failure::new(if damaged { REFUSED } else { "halt" }, why)
    }
}

/// What a member says that is none any more.
const REMOVED: &str = "the member has been permanently removed from the cluster";

/// The check that fails where a member does not start.
pub(super) const REFUSED: &str = "refused";

pub struct World {
    pub now: Time,
    pub(super) shape: Shape,
    pub(super) members: Vec<Member>,
    /// The places of those that are members of the cluster, vote and were started, as far as is known for sure.
    pub(super) serving: Vec<usize>,
    pub(super) links: Links,
    pub(super) peers: Peers,
    pub clients: Vec<Client>,
    pub history: History,
    pub trace: Trace,
    pub(super) rng: Rng,
    /// Connections of clients so far.
    pub(super) connections: u32,
    /// What went wrong so far, but for what the disks count.
    pub(super) hits: Hits,
    /// The ways that processes went which are no more.
    pub(super) paths: Paths,
    steps: u64,
}

const STEPS_MAX: u64 = 6_000_000;

impl World {
    pub fn new(plan: &Plan, keeps_trace: bool) -> World {
        let mut rng = Rng::new(plan.seed);
        let shape = plan.shape.clone();
        let members: Vec<Member> =
            (0..shape.members.len()).map(|at| Member::new(at, &shape, &mut rng)).collect();
        let mut clients: Vec<Client> =
            (0..shape.clients).map(|id| Client::new(id, shape.window_bytes)).collect();
        // And for each member one that observes.
        clients.extend((0..members.len()).map(|at| Client::new(shape.clients + at, 1 << 20)));
        clients.extend((0..OPERATORS).map(|at| Client::new(shape.clients + members.len() + at, 1 << 20)));
        // Others hear of their ids when they are added.
        let places = 0..members.len();
        let id_of = |at| if at < shape.founders { Identity::of(at).id } else { MemberId(0) };
        let known = Known {
            cluster: CLUSTER,
            members: places.clone().map(|at| Identity { id: id_of(at), ..Identity::of(at) }).collect(),
            newcomers: members.len() - shape.founders,
            compacts_itself: shape.auto_compaction != AutoCompaction::Off,
            refuses: shape.refuses(),
            quota_bytes: shape.quota_bytes,
            ..Known::default()
        };
        World {
            now: Time(0),
            links: Links::new(members.len(), shape.net_delay, Rng::new(plan.seed ^ 0x11_4B5)),
            peers: Peers::default(),
            serving: (0..shape.founders).collect(),
            shape,
            members,
            clients,
            history: History::of(known),
            trace: Trace { keeps: keeps_trace, ..Trace::default() },
            rng,
            connections: 0,
            hits: Hits::default(),
            paths: Paths::default(),
            steps: 0,
        }
    }

    /// The places of the members.
    pub fn places(&self) -> std::ops::Range<usize> {
        0..self.members.len()
    }

    /// Who a member is.
    pub fn identity(&self, member: usize) -> &Identity {
        &self.history.known.members[member]
    }

    /// One of the members. Nothing is drawn where there is only one.
    pub fn draw_member(&self, rng: &mut Rng) -> usize {
        if self.serving.len() == 1 { self.serving[0] } else { *rng.pick(&self.serving) }
    }

    pub fn is_up(&self, member: usize) -> bool {
        self.members[member].is_up()
    }

    /// Whether all are up that can be.
    pub fn all_up(&self) -> bool {
        self.members.iter().all(|member| member.is_up() || member.is_away())
    }

    /// How many reactors a member has, if it is up.
    pub fn reactors(&self, member: usize) -> usize {
        self.members[member].reactors()
    }

    /// Lets everything happen that is due up to a time.
    pub fn advance(&mut self, until: Time) -> Result<(), Failure> {
        loop {
            while self.act()? {}
            let next = self.next_time();
            if next > until {
                self.now = self.now.max(until);
                return Ok(());
            }
            self.now = self.now.max(next);
        }
    }

    fn next_time(&self) -> Time {
        let members = self.members.iter().map(Member::wake_at);
        let clients = self.clients.iter().map(Client::wake_at);
        members
            .chain(clients)
            .chain([self.links.wake_at(), self.peers.wake_at()])
            .min()
            .unwrap_or(Time::NEVER)
    }

    /// One thing that is due now. False where nothing is.
    fn act(&mut self) -> Result<bool, Failure> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(Failure::new("liveness", "the run does not end"));
        }
        self.end_faults();
        for at in self.places() {
            match self.members[at].complete(self.now) {
                Err(Final(why)) => {
                    self.halt(at, &why)?;
                    return Ok(true);
                }
                Ok(true) => return Ok(true),
                Ok(false) => {}
            }
        }
        if self.read_clients() || self.read_links() {
            return Ok(true);
        }
        for at in self.places() {
            if self.live(at)? {
                return Ok(true);
            }
        }
        self.act_in_processes()
    }

    /// A member that is not up comes nearer to it.
    fn live(&mut self, at: usize) -> Result<bool, Failure> {
        let member = &self.members[at];
        match &member.life {
            Life::Down { until } if *until <= self.now => self.clear(at),
            Life::Clearing(_) if !member.files.is_starting() => self.start(at),
            Life::Starting(_) if !member.files.is_starting() => self.finish_start(at),
            _ => Ok(false),
        }
    }

    fn act_in_processes(&mut self) -> Result<bool, Failure> {
        for at in self.places() {
            if let Some((0, death)) = self.members[at].dying {
                self.count_death(at, death);
                self.die(at, death);
                return Ok(true);
            }
        }
        let ended = |member: &&Member| member.process().is_some_and(|process| process.has_ended(self.now));
        if let Some(at) = self.members.iter().find(ended).map(|member| member.at) {
            self.die(at, Death::Kill);
            return Ok(true);
        }
        let mut due = vec![];
        for member in &self.members {
            let reactors = member.process().map_or(vec![], |process| process.due(self.now));
            due.extend(reactors.into_iter().map(|reactor| (member.at, reactor)));
        }
        if due.is_empty() {
            return Ok(false);
        }
        let (at, reactor) = *self.rng.pick(&due);
        self.act_in_process(at, reactor)?;
        Ok(true)
    }

    /// One step of a reactor that is due.
    fn act_in_process(&mut self, at: usize, reactor: usize) -> Result<(), Failure> {
        let member = &mut self.members[at];
        if let Some((steps, _)) = &mut member.dying {
            *steps -= 1;
        }
        let Some(process) = member.process_mut() else { return Ok(()) };
        let stepped = process.step(reactor, self.now, &mut self.rng, &mut self.trace, &mut self.hits);
        for term in std::mem::take(&mut process.reigns) {
            let begun = self.history.moment(self.now);
            self.history.known.reigns.push(Reign { member: at, begun, term });
        }
        match stepped {
            Stepped::Took => Ok(()),
            Stepped::Gave(output) => self.carry_out(at, reactor, output),
            Stepped::Spins(why) => {
                let what = format!("reactor {reactor} of member {at} turns without end: {why}");
                Err(Failure::new("liveness", what))
            }
        }
    }

    /// Does what a reactor of a member wants done.
    fn carry_out(&mut self, at: usize, from: usize, output: Output) -> Result<(), Failure> {
        let now = self.now;
        self.count_output(at, &output);
        let member = &mut self.members[at];
        match output {
            Output::Send { conn, bytes } if self.peers.has(conn) => {
                self.send_to_peer(conn, &[Chunk::Bytes(bytes)]);
            }
            Output::Send { conn, bytes } => self.send_to_client(conn, bytes),
            Output::SendChunks { conn, chunks } => self.send_to_peer(conn, &chunks),
            Output::Dial { dial, url } => self.dial(at, from, dial, &url),
            Output::Move { conn, to, state } => self.move_connection(at, conn, to, state),
            Output::Close { conn } if self.peers.has(conn) => self.close_to_peer(conn),
            Output::Close { conn } => self.close_from_server(conn),
            Output::Mail { to, mail } => {
                let to = usize::from(to.0);
                let longest = member.longest_mail(from, to, now).unwrap_or(self.shape.mail_delay);
                let due = now + Duration(self.rng.below(longest.0 + 1));
                if let Some(process) = member.process_mut() {
                    process.mail(from, to, due, mail);
                }
            }
            Output::Log(command) => {
                if let Err(Final(why)) = member.files.log(now, from, command) {
                    self.halt(at, &why)?;
                }
            }
            Output::Bulk { job, step } => {
                if let Some(done) = member.files.bulk(now, from, job, step) {
                    if matches!(done, BulkDone::Failed(_)) {
                        self.hits.count(Hit::FailedStep);
                    }
                    if let Some(process) = member.process_mut() {
                        process.deliver(from, now, Item::Bulk(job, done));
                    }
                }
            }
            Output::StandsAlone => member.alone.is_to_be = false,
            Output::Haste(_) | Output::LogWaits(_) | Output::LogLine(_) => {}
            Output::Halt(why) if why.contains(REMOVED) => self.leave(at)?,
            // A start that has no room for its first file says so and ends.
            Output::Halt(why) if member.full_until != Time::NEVER => self.halt(at, &why)?,
            Output::Halt(why) => return Err(Failure::of_halt(why)),
        }
        Ok(())
    }

    /// Ends the last processes, and gives what the run met.
    pub fn end(&mut self) -> Tally {
        for at in self.places() {
            self.walk(at);
            self.members[at].life = Life::Down { until: Time::NEVER };
        }
        let clusters = u64::from(self.members.len() > 1);
        let changing = u64::from(self.shape.changes());
        Tally { hits: self.hits(), paths: self.paths, clusters, changing }
    }

    /// Starts of all members.
    pub fn starts(&self) -> u64 {
        self.members.iter().map(|member| member.starts).sum()
    }
}
