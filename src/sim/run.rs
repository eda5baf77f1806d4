//! One run: the plan's events, then calm, then what must hold, seen by clients alone.

use super::checks;
use super::history::{Moment, Op, method_of};
use super::hits::{Hit, Tally};
use super::member::Member;
use super::operator::Operators;
use super::plan::{OPERATORS, OpKind, Plan, SLOW_MAIL_MAX, What};
use super::workload::{Asker, Knows};
use super::world::{Failure, World};
use crate::stdx::Rng;
use crate::types::{Duration, MemberId, Time};
use crate::wire::proto::{self, watch_request::RequestUnion};
use bytes::Bytes;

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    pub trace_hash: u64,
    pub lines: Vec<String>,
    pub outcome: Result<Summary, Failure>,
}

/// Figures of a run that held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub calls: usize,
    pub answered: usize,
    pub revisions: i64,
    pub starts: u64,
    /// The files were damaged at the end, and the member said so.
    pub refused: bool,
    /// What went wrong, and the ways that the program went.
    pub tally: Tally,
}

/// Calls of one client at a time.
const OUTSTANDING_MAX: usize = 8;
/// After calm, everything is answered within so long: etcd's own patience, and a takeover's.
pub(super) const PATIENCE: Duration = Duration::from_secs(12);

pub fn run(plan: &Plan, keeps_trace: bool) -> Report {
    let mut world = World::new(plan, keeps_trace);
    let mut run = Run::of(&mut world, plan);
    let outcome = run.whole().map_err(|failure| run.look_for_worse(failure));
    let mut lines = std::mem::take(&mut world.trace.lines);
    if keeps_trace {
        lines.extend(world.members.iter().flat_map(Member::picture));
        lines.extend(world.history.ops.iter().enumerate().map(|(at, op)| show(at, op)));
    }
    Report { trace_hash: world.trace.hash, lines, outcome }
}

/// A call in one line.
fn show(at: usize, op: &Op) -> String {
    let ms = |moment: Moment| moment.time.0 as f64 / 1e6;
    let returned = op.returned.map_or("never".into(), |returned| format!("{:.6}", ms(returned)));
    let outcome = match op.revision() {
        Some(revision) => format!("revision {revision}"),
        None => format!("{:?}", op.status),
    };
    let request = checks::request_of(op);
    let (client, member) = (op.client, op.member);
    format!(
        "call {at} of client {client} to m{member}, {:.6} to {returned}: {outcome}: {request:?}",
        ms(op.invoked)
    )
}

pub(super) struct Run<'a> {
    pub world: &'a mut World,
    pub plan: &'a Plan,
    /// Some observer has every revision up to this one, or what is compacted of it was another's.
    pub observed: i64,
    observers: Vec<Observer>,
    pub operators: Operators,
}

/// A client that watches everything at one member.
#[derive(Clone, Copy, Debug)]
struct Observer {
    member: usize,
    /// It has every revision up to this one, or that is compacted.
    upto: i64,
    stream: Option<usize>,
    /// Responses of the stream that it has read.
    read: usize,
    /// It does not ask before: who learns lets nobody watch.
    again_at: Time,
}

impl<'a> Run<'a> {
    pub fn of(world: &'a mut World, plan: &'a Plan) -> Run<'a> {
        let observer = |member| Observer { member, upto: 1, stream: None, read: 0, again_at: Time(0) };
        let observers = world.places().map(observer).collect();
        let operators = Operators::new(world.clients.len() - OPERATORS, OPERATORS);
        Run { world, plan, observed: 1, observers, operators }
    }

    fn whole(&mut self) -> Result<Summary, Failure> {
        self.go_through_events()?;
        // Mail that was slow may still bring news of a full disk, which no disarming before it ends.
        self.advance(self.world.now + SLOW_MAIL_MAX)?;
        let last = self.probe_all()?;
        self.advance(self.world.now + Duration::from_secs(10))?;
        let moment = self.world.history.moment(self.world.now);
        let shown_upto = last.iter().map(|hash| hash.hash_revision).max();
        self.world.history.quiet = shown_upto.map(|revision| (moment, revision));
        self.probe_together()?;
        self.outlive_changes()?;
        let several = self.world.serving.len() > 1;
        if several {
            self.agree("after calm")?;
            self.outlive_minority()?;
            self.outlive_the_leaders_absence()?;
            self.outlive_majority()?;
            self.go_on_alone()?;
        }
        // What only one member can be asked, or suffers.
        let member = self.world.draw_member(&mut Rng::new(self.plan.seed ^ 0x3E3B));
        self.race(member)?;
        let last = self.hash_all()?;
        self.start_badly(member)?;
        self.world.lose_power();
        self.recover("after the last power loss")?;
        self.probe_again(&last)?;
        self.outlive_leases(member)?;
        self.compact_physically(member)?;
        if !several {
            // Whoever elects writes more than one that is alone, and has kept nothing for it.
            self.outlive_full_disks()?;
        }
        if let Some(quota) = self.plan.shape.quota_bytes {
            self.use_quota_up(member, quota)?;
            self.outlive_leases(member)?;
        }
        // Of two that have lost others, each is needed.
        let hit = match self.world.serving.len() == 2 && self.plan.shape.changes() {
            true => None,
            false => Some(self.outlive_damage(member)?),
        };
        hit.into_iter().for_each(|hit| self.world.hits.count(hit));
        let history = &self.world.history;
        checks::check(history, self.plan.shape.clients)?;
        Ok(Summary {
            calls: history.ops.len(),
            answered: history.ops.iter().filter(|op| op.returned.is_some()).count(),
            revisions: self.observed,
            starts: self.world.starts(),
            refused: hit.is_some_and(|hit| !matches!(hit, Hit::DamageHarmless | Hit::DamageUnknowable)),
            tally: self.world.end(),
        })
    }

    /// A cluster that does not answer may have answered wrongly before, which says more.
    fn look_for_worse(&mut self, failure: Failure) -> Failure {
        let several = self.world.places().len() > 1;
        if !several || !["liveness", "flapping"].contains(&failure.check) {
            return failure;
        }
        self.world.calm();
        // Whatever fails now does so since something has failed before.
        let _ = self.advance(self.world.now + PATIENCE);
        let shown = self.world.history.ops.iter().filter_map(Op::revision).max();
        if shown.is_some_and(|shown| shown > self.observed) {
            return failure; // nobody has seen what was done
        }
        let observers = self.plan.shape.clients;
        checks::check(&self.world.history, observers).err().unwrap_or(failure)
    }

    /// All that the plan has happen, until what it leads to is over.
    pub fn go_through_events(&mut self) -> Result<(), Failure> {
        for event in self.plan.in_order() {
            self.advance(event.at)?;
            let rng = Rng::new(event.salt);
            match &event.what {
                What::Fault(fault) => self.world.fault(*fault, rng),
                What::Ask { client, op } => self.ask(*client, *op, rng),
                What::Change { operator, change } => self.operators.want(*operator, *change, rng),
            }
            self.follow_observers();
            self.operators.follow(self.world);
        }
        self.world.calm();
        self.settle_members()?;
        self.recover("after calm")
    }

    /// Time goes on, with the observers never far behind.
    pub fn advance(&mut self, until: Time) -> Result<(), Failure> {
        while self.world.now < until {
            let next = until.min(self.world.now + Duration::from_ms(50));
            self.world.advance(next)?;
            self.follow_observers();
            self.operators.follow(self.world);
        }
        Ok(())
    }

    fn ask(&mut self, client: usize, kind: OpKind, mut rng: Rng) {
        // Where there are others, clients move on now and then.
        if self.world.places().len() > 1 && rng.chance(1, 12) {
            self.world.disconnect(client);
        }
        // Only who leads can hand over.
        if let Some(leader) = self.world.leader().filter(|_| kind == OpKind::MoveLeader) {
            self.world.connect_with(client, leader);
        }
        self.world.connect(client);
        let world = &mut *self.world;
        let all = world.history.known.members.iter().map(|member| member.id);
        let members: Vec<MemberId> = all.filter(|id| *id != MemberId(0)).collect();
        let one = &world.clients[client];
        let Some(session) = &one.session else { return };
        if one.outstanding() >= OUTSTANDING_MAX {
            return;
        }
        let knows = Knows {
            op: world.history.next(),
            revision: one.revision,
            observed: self.observed,
            leases: &one.leases.clone(),
            value_bytes: self.plan.shape.value_bytes,
            member: world.identity(session.member).id.0,
            members: &members,
        };
        if matches!(kind, OpKind::Watch | OpKind::WatchMore) {
            return self.ask_watch(client, kind, rng, knows);
        }
        let op = knows.op;
        let request = Asker::new(rng.fork(), knows).request(kind);
        if kind == OpKind::Compact && self.observed < 3 {
            return;
        }
        if kind == OpKind::Grant {
            world.clients[client].leases.push(op as i64 + 1);
        }
        world.call(client, method_of(kind), request);
    }

    fn ask_watch(&mut self, client: usize, kind: OpKind, mut rng: Rng, knows: Knows<'_>) {
        let world = &mut *self.world;
        let now = world.now;
        let streams = world.clients[client].streams();
        let create = Asker::new(rng.fork(), knows).watch();
        let more = kind == OpKind::WatchMore && !streams.is_empty();
        let stream = match more {
            true => Some(*rng.pick(&streams)),
            false if streams.len() < 4 => world.clients[client].open_stream(now, &mut world.history),
            false => None,
        };
        let Some(stream) = stream else { return };
        let request = match rng.below(if more { 6 } else { 1 }) {
            0..3 => RequestUnion::CreateRequest(create),
            3 => RequestUnion::ProgressRequest(proto::WatchProgressRequest {}),
            4 => {
                // Numbers that clients choose are small as well.
                let made = world.history.streams[stream].creates.len() as u64 + 1;
                let watch_id = rng.below(made.max(1)) as i64;
                RequestUnion::CancelRequest(proto::WatchCancelRequest { watch_id })
            }
            _ => {
                world.clients[client].reset_stream(now, stream, &mut world.history);
                return world.send_to_server(client);
            }
        };
        world.clients[client].ask(now, stream, request, &mut world.history);
        world.send_to_server(client);
    }

    /// The observers watch everything from where they have got to, whatever happens to their connections.
    fn follow_observers(&mut self) {
        for mut observer in std::mem::take(&mut self.observers) {
            observer.follow(self.world, self.plan.shape.clients + observer.member);
            self.observed = self.observed.max(observer.upto);
            self.observers.push(observer);
        }
    }

    /// Every call is answered in time.
    pub fn come_to_rest(&mut self, when: &str) -> Result<(), Failure> {
        let until = self.world.now + PATIENCE;
        while self.world.now < until {
            self.advance(self.world.now + Duration::from_ms(100))?;
            let outstanding: usize = self.world.clients.iter().map(|client| client.outstanding()).sum();
            if self.world.all_up() && outstanding == 0 {
                return Ok(());
            }
        }
        let late = self.world.history.ops.iter().filter(|op| op.returned.is_none());
        let late: Vec<String> =
            late.map(|op| format!("{:?} of client {} to m{}", op.method, op.client, op.member)).collect();
        let down = self.world.places().filter(|member| !self.world.is_up(*member));
        let down: Vec<usize> = down.filter(|member| !self.world.members[*member].is_away()).collect();
        Err(Failure::new("liveness", format!("{when}, not answered: {late:?}, members down: {down:?}")))
    }
}

impl Observer {
    fn follow(&mut self, world: &mut World, client: usize) {
        let mut compacted = 0;
        if let Some(stream) = self.stream {
            let responses = &world.history.streams[stream].responses;
            for (_, response) in &responses[self.read..] {
                let last = response.events.last().and_then(|event| event.kv.as_ref());
                self.upto = self.upto.max(last.map_or(0, |kv| kv.mod_revision));
                compacted = response.compact_revision.max(compacted);
            }
            self.read = responses.len();
        }
        // What one member has compacted before its observer had it, another's has.
        if compacted > 0 && world.places().len() > 1 {
            self.upto = self.upto.max(compacted - 1);
            world.disconnect(client);
        }
        if self.stream.is_some_and(|stream| world.history.streams[stream].ended.is_none()) {
            return;
        }
        self.stream = None;
        if world.now < self.again_at {
            return;
        }
        if !world.serving.contains(&self.member) {
            self.again_at = world.now + Duration::from_secs(1);
        }
        world.connect_with(client, self.member);
        let now = world.now;
        let Some(stream) = world.clients[client].open_stream(now, &mut world.history) else { return };
        let create = proto::WatchCreateRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            start_revision: self.upto + 1,
            prev_kv: true,
            ..Default::default()
        };
        world.clients[client].ask(now, stream, RequestUnion::CreateRequest(create), &mut world.history);
        world.send_to_server(client);
        (self.stream, self.read) = (Some(stream), 0);
    }
}
