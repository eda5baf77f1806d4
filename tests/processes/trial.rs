//! One trial: a cluster under load, faults one after the other, calm, and the judgement.

use super::copy::copy;
use super::disk::Disk;
use super::load::Load;
use super::members::{Members, until};
use super::network::Network;
use braid::sim::history::{History, Op};
use braid::sim::{Failure, check};
use braid::stdx::Rng;
use braid::types::MemberId;
use braid::wire::Method;
use braid::wire::proto::{self, Message};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Nothing goes wrong before: what was never written cannot be lost.
const CALLS_BEFORE: usize = 150;

/// What goes wrong, at some time and for some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9`, of whoever leads or of another one.
    Kill,
    KillAll,
    /// Whoever leads is stopped for a while, and goes on.
    Pause,
    /// Packets between a member and all others are dropped for a while.
    CutOff,
    /// What it sends to others is.
    Mute,
    /// What others send to it is.
    Deaf,
    /// One after the other is ended by a signal and started again.
    Restart,
    /// A member's disk is full for a while.
    FullDisk,
    /// A member's disk fails: it ends, and is started again once the disk is well.
    FailingDisk,
    /// A copy of a running member's directory is started beside it, which the others refuse.
    Copy,
    /// A new member takes the place of another one.
    Replace,
    /// The same, and somebody is killed meanwhile.
    ReplaceAndKill,
}

/// What a trial is made of.
pub struct Setup<'a> {
    pub program: &'a Path,
    /// An empty directory for data and logs.
    pub root: &'a Path,
    pub members: usize,
    /// How many may join.
    pub spares: usize,
    pub network: Option<&'a Network>,
    /// The first member's data are on it.
    pub disk: Option<&'a Disk>,
    /// Clients compact history and list members as well.
    pub controls: bool,
    pub seed: u64,
}

pub struct Trial<'a> {
    pub members: Members,
    pub load: Load,
    network: Option<&'a Network>,
    disk: Option<&'a Disk>,
    rng: Rng,
    root: PathBuf,
}

/// What a trial has come to, where everything holds.
pub struct Judged {
    pub history: History,
    /// Clients from this number on are observers.
    pub observers: usize,
    /// The newest.
    pub revision: i64,
}

impl Judged {
    /// Calls that were answered, of all.
    pub fn answered(&self) -> (usize, usize) {
        let ops = &self.history.ops;
        (ops.iter().filter(|op| op.returned.is_some()).count(), ops.len())
    }
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((answered, calls), revision) = (self.answered(), self.revision);
        let unknown = self.history.ops.iter().filter(|op| op.is_unknown()).count();
        let streams = self.history.streams.iter().filter(|stream| stream.client < self.observers).count();
        write!(
            f,
            "{answered} of {calls} calls were answered, {unknown} have no known outcome; {streams} streams of \
             watches; {revision} revisions"
        )
    }
}

impl<'a> Trial<'a> {
    /// Errors say what never came to be.
    pub fn begin(setup: &Setup<'a>) -> Result<Trial<'a>, String> {
        let mut rng = Rng::new(setup.seed);
        let mut members = Members::new(
            setup.program,
            setup.root,
            (setup.members, setup.spares),
            &["--shards=4"],
            setup.network,
        );
        if let Some(disk) = setup.disk {
            members.member_mut(0).keep_data_in(disk.directory());
        }
        // The last one comes when the others serve already, as where they are started by hand.
        let (last, others) = (setup.members - 1, 0..setup.members - 1);
        others.for_each(|at| members.start(at));
        members.await_leader()?;
        members.start(last);
        members.await_all()?;
        let load = Load::begin(&members, setup.controls, setup.disk.is_some(), &mut rng)?;
        let root = setup.root.to_owned();
        let trial = Trial { members, load, network: setup.network, disk: setup.disk, rng, root };
        trial.load.await_answers(&trial.members.places(), Method::Put)?;
        trial.load.await_calls(CALLS_BEFORE)?;
        Ok(trial)
    }

    /// Time in which nothing new goes wrong.
    pub fn pass(&mut self, most_ms: u64) {
        std::thread::sleep(Duration::from_millis(self.rng.below(most_ms + 1)));
    }

    /// The member that leads in three of four cases, else any.
    fn draw(&mut self) -> usize {
        let any = *self.rng.pick(&self.members.places());
        if self.rng.chance(3, 4) { self.members.leader().unwrap_or(any) } else { any }
    }

    /// Has something go wrong, and makes it good again.
    pub fn strike(&mut self, fault: Fault) -> Result<(), String> {
        match fault {
            Fault::Kill => {
                let at = self.draw();
                self.members.member_mut(at).kill();
                self.pass(2500);
                self.members.start(at);
                self.pass(1500);
            }
            Fault::KillAll => {
                for at in self.members.places() {
                    self.members.member_mut(at).kill();
                    self.pass(20);
                }
                self.members.start_all();
                self.members.await_leader()?;
                self.pass(1000);
            }
            Fault::Pause => {
                let at = self.members.await_leader()?;
                self.members.member_mut(at).pause();
                self.pass(4000);
                self.members.member_mut(at).go_on();
                self.pass(1000);
            }
            Fault::CutOff => self.part(true, true),
            Fault::Mute => self.part(true, false),
            Fault::Deaf => self.part(false, true),
            Fault::Restart => {
                for at in self.members.places() {
                    self.members.member_mut(at).terminate()?;
                    self.members.start(at);
                    self.members.await_all()?;
                }
            }
            Fault::FullDisk => self.fill_disk(),
            Fault::FailingDisk => self.fail_disk()?,
            Fault::Copy => self.start_a_copy()?,
            Fault::Replace => self.replace(false)?,
            Fault::ReplaceAndKill => self.replace(true)?,
        }
        Ok(())
    }

    /// Drops what a member sends to all others, or what they send to it.
    fn part(&mut self, to: bool, from: bool) {
        let Some(network) = self.network else { panic!("there is no network to part") };
        let one = self.draw();
        let others = self.members.places().into_iter().filter(|other| *other != one);
        let pairs = others.flat_map(|other| [(to, one, other), (from, other, one)]);
        let pairs: Vec<(usize, usize)> =
            pairs.filter(|(cuts, ..)| *cuts).map(|(_, from, to)| (from, to)).collect();
        pairs.iter().for_each(|(from, to)| network.cut(*from, *to));
        self.pass(5000);
        pairs.iter().for_each(|(from, to)| network.mend(*from, *to));
        self.pass(1500);
    }

    fn start_a_copy(&mut self) -> Result<(), String> {
        // Of two members the one with the greater id dials: nobody would hear of another one's copy.
        let places = self.members.places().into_iter();
        let one = places.max_by_key(|at| self.load.member(*at)).expect("there are members");
        let copied = self.root.join("copied");
        // Of one moment: what is written while files are copied one after the other is refused at the start.
        self.members.member_mut(one).pause();
        let made = copy(&self.members.member(one).directory, &copied, &|_| true);
        self.members.member_mut(one).go_on();
        made.expect("there is room for two");
        let member = self.members.member(one);
        let mut process = member.start_beside(&copied);
        let refused = format!("member {:x} runs already, in another process", self.load.member(one).0);
        let others: Vec<usize> = self.members.places().into_iter().filter(|other| *other != one).collect();
        let said = until(
            || format!("nobody says that {refused}; {}", self.members.last_words()),
            || others.iter().any(|other| self.members.member(*other).log().contains(&refused)),
        );
        // It may have ended by itself.
        let _ = process.kill();
        let _ = process.wait();
        std::fs::remove_dir_all(&copied).expect("nobody uses it any more");
        self.pass(1000);
        said
    }

    /// Adds a member, has it started, and removes another one.
    fn replace(&mut self, kills: bool) -> Result<(), String> {
        let Some(new) = self.members.spare() else {
            self.pass(500);
            return Ok(());
        };
        let url = self.members.member(new).peer_url.clone();
        let add = proto::MemberAddRequest { peer_urls: vec![url.clone()], is_learner: false };
        let is_new = |member: &&proto::Member| member.peer_urls.contains(&url);
        let list = self.have_changed(Method::MemberAdd, &add.encode_to_vec(), |list| {
            list.iter().any(|member| is_new(&member))
        })?;
        let id = list.iter().find(is_new).expect("it is listed").id;
        self.load.joined(new, MemberId(id));
        let name = |member: &proto::Member| match is_new(&member) {
            true => self.members.member(new).name.clone(),
            false => member.name.clone(),
        };
        let started: Vec<(String, String)> =
            list.iter().map(|member| (name(member), member.peer_urls[0].clone())).collect();
        self.members.join(&started);
        if kills {
            self.strike(Fault::Kill)?;
        }
        let member = self.members.member(new);
        until(
            || format!("{} does not serve; {}", member.name, self.members.last_words()),
            || member.serves(),
        )?;
        let mut old = self.draw();
        if old == new {
            old = *self.members.places().first().expect("there are members");
        }
        let id = self.load.member(old).0;
        let remove = proto::MemberRemoveRequest { id }.encode_to_vec();
        self.have_changed(Method::MemberRemove, &remove, |list| list.iter().all(|member| member.id != id))?;
        self.members.retire(old)?;
        self.pass(1000);
        Ok(())
    }

    /// Has the operator ask for a change of the members, of one after the other, until one lists that it is made.
    fn have_changed(
        &self,
        method: Method,
        request: &[u8],
        is_made: impl Fn(&[proto::Member]) -> bool,
    ) -> Result<Vec<proto::Member>, String> {
        let (mut asked, mut said, mut list) =
            (self.members.places().into_iter().cycle(), String::new(), vec![]);
        let lists = proto::MemberListRequest { linearizable: true }.encode_to_vec();
        let mut turns = 0;
        until(
            || format!("{method:?} does not come to be; {}", self.members.last_words()),
            || {
                let at = asked.next().expect("there are members");
                turns += 1;
                if turns % 2 == 1
                    && let Err(words) = self.load.operate(at, method, request)
                {
                    said = words;
                }
                let listed = self.load.operate(at, Method::MemberList, &lists);
                if let Some(of) = listed.ok().and_then(|of| proto::MemberListResponse::decode(of).ok()) {
                    list = of.members;
                }
                is_made(&list)
            },
        )
        .map_err(|why| format!("{why}; it was told last: {said}"))?;
        Ok(list)
    }

    fn fill_disk(&mut self) {
        let Some(disk) = self.disk else { panic!("there is no disk to fill") };
        let now = self.load.now();
        let mut history = self.load.history();
        let full_since = history.moment(now);
        history.known.full_since.get_or_insert(full_since);
        drop(history);
        disk.fill();
        self.pass(3000);
        disk.empty();
        // A member that has no room may end, and is started again once it has.
        self.members.start_those_down();
        self.pass(1000);
    }

    fn fail_disk(&mut self) -> Result<(), String> {
        let Some(disk) = self.disk else { panic!("there is no disk to fail") };
        disk.fail();
        // It has the first member's data.
        let member = self.members.member_mut(0);
        until(|| "a member whose disk fails goes on".to_owned(), || !member.is_up())?;
        disk.mend()?;
        self.pass(1000);
        self.members.start(0);
        self.pass(1000);
        Ok(())
    }

    /// Lets calm come, and judges all that was seen.
    pub fn end(mut self) -> Result<Judged, String> {
        self.members.start_those_down();
        self.members.await_leader()?;
        self.members.await_all()?;
        let members = self.members.places();
        self.load.await_answers(&members, Method::Put)?;
        let revision = self.load.rest()?;
        self.load.await_observers(&members, revision)?;
        self.load.await_watches(revision)?;
        let now = self.load.now();
        let mut history = self.load.history();
        let moment = history.moment(now);
        history.quiet = Some((moment, revision));
        let from = history.next();
        drop(history);
        self.load.hash(&members, revision)?;
        let observers = self.load.observers();
        let history = self.load.end();
        let judged = agree(&history.ops[from..]).and_then(|()| check(&history, observers));
        if let Err(Failure { check, what }) = judged {
            let kept = self.root.join("history.txt");
            let lines: Vec<String> = history.ops.iter().enumerate().map(|(at, op)| show(at, op)).collect();
            let kept = match std::fs::write(&kept, lines.join("\n")) {
                Ok(()) => format!("; all calls are in {}", kept.display()),
                Err(_) => String::new(),
            };
            return Err(format!("{check}: {what}{kept}"));
        }
        Ok(Judged { history, observers, revision })
    }
}

/// A call in one line.
fn show(at: usize, op: &Op) -> String {
    let returned = op.returned.map(|returned| returned.time.0 / 1000);
    format!(
        "call {at} of client {} to m{}, {} to {returned:?} µs: {:?}, revision {:?}, {:?}: {}",
        op.client,
        op.member,
        op.invoked.time.0 / 1000,
        op.method,
        op.revision(),
        op.status,
        String::from_utf8_lossy(&op.request).escape_debug()
    )
}

/// All members have one hash of one revision.
fn agree(ops: &[Op]) -> Result<(), Failure> {
    let hashes = ops.iter().filter(|op| op.method == Method::HashKv && op.is_ok());
    let mut hashes = hashes.filter_map(|op| proto::HashKvResponse::decode(op.messages[0].clone()).ok());
    let Some(first) = hashes.next() else { return Err(Failure::new("hash", "no member has any")) };
    let is_other = |hash: &proto::HashKvResponse| {
        (hash.hash, hash.hash_revision, hash.compact_revision)
            != (first.hash, first.hash_revision, first.compact_revision)
    };
    match hashes.find(is_other) {
        None => Ok(()),
        Some(other) => Err(Failure::new("hash", format!("one has {first:?}, another {other:?}"))),
    }
}
