//! One run: the plan's events, then calm, then what must hold, seen by clients alone.

use super::boot::MEMBER;
use super::checks;
use super::damage::Damage;
use super::history::{Moment, Op, method_of};
use super::hits::{Hit, Hits};
use super::plan::{OpKind, Plan, SLOW_MAIL_MAX, What};
use super::workload::{Asker, KEYS, Knows};
use super::world::{Failure, REFUSED, World};
use crate::stdx::Rng;
use crate::types::{Duration, Time};
use crate::wire::Method;
use crate::wire::proto::{self, Message, watch_request::RequestUnion};
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
    /// What went wrong.
    pub hits: Hits,
}

/// Calls of one client at a time.
const OUTSTANDING_MAX: usize = 8;
/// After calm, everything is answered within so long: etcd's own patience, and a takeover's.
const PATIENCE: Duration = Duration::from_secs(12);
/// No other grant has this number.
const LAST_LEASE: i64 = 1 << 40;

pub fn run(plan: &Plan, keeps_trace: bool) -> Report {
    let mut world = World::new(plan, keeps_trace);
    let outcome = Run { world: &mut world, plan, observed: 1, observer_stream: None }.whole();
    let mut lines = std::mem::take(&mut world.trace.lines);
    if keeps_trace {
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
    format!("call {at} of client {}, {:.6} to {returned}: {outcome}: {request:?}", op.client, ms(op.invoked))
}

struct Run<'a> {
    world: &'a mut World,
    plan: &'a Plan,
    /// The observer has every revision up to this one.
    observed: i64,
    observer_stream: Option<usize>,
}

impl Run<'_> {
    fn whole(&mut self) -> Result<Summary, Failure> {
        for event in self.plan.in_order() {
            self.advance(event.at)?;
            let rng = Rng::new(event.salt);
            match &event.what {
                What::Fault(fault) => self.world.fault(*fault, rng),
                What::Ask { client, op } => self.ask(*client, *op, rng),
            }
            self.follow_observer();
        }
        self.world.calm();
        self.come_to_rest("after calm")?;
        // Mail that was slow may still bring news of a full disk, which no disarming before it ends.
        self.advance(self.world.now + SLOW_MAIL_MAX)?;
        let last = self.probe()?;
        self.advance(self.world.now + Duration::from_secs(10))?;
        let moment = self.world.history.moment(self.world.now);
        self.world.history.quiet = Some((moment, last.hash_revision));
        self.probe_together()?;
        let last = self.hash(0)?;
        self.world.lose_power();
        self.world.calm();
        self.come_to_rest("after the last power loss")?;
        self.probe_again(last)?;
        self.outlive_leases()?;
        let hit = self.outlive_damage()?;
        self.world.hits.count(hit);
        let history = &self.world.history;
        checks::check(history, self.plan.shape.clients)?;
        Ok(Summary {
            calls: history.ops.len(),
            answered: history.ops.iter().filter(|op| op.returned.is_some()).count(),
            revisions: self.observed,
            starts: self.world.starts,
            refused: !matches!(hit, Hit::DamageHarmless | Hit::DamageUnknowable),
            hits: self.world.hits(),
        })
    }

    /// Time goes on, with the observer never far behind.
    fn advance(&mut self, until: Time) -> Result<(), Failure> {
        while self.world.now < until {
            let next = until.min(self.world.now + Duration::from_ms(50));
            self.world.advance(next)?;
            self.follow_observer();
        }
        Ok(())
    }

    fn ask(&mut self, client: usize, kind: OpKind, mut rng: Rng) {
        self.world.connect(client);
        let world = &mut *self.world;
        let now = world.now;
        let one = &world.clients[client];
        if one.link.is_none() || one.outstanding() >= OUTSTANDING_MAX {
            return;
        }
        let knows = Knows {
            op: world.history.next(),
            revision: one.revision,
            observed: self.observed,
            leases: &one.leases.clone(),
            value_bytes: self.plan.shape.value_bytes,
            member: MEMBER.0,
        };
        if matches!(kind, OpKind::Watch | OpKind::WatchMore) {
            return self.ask_watch(client, kind, rng, knows);
        }
        let op = world.history.next();
        let request = Asker::new(rng.fork(), knows).request(kind);
        if kind == OpKind::Compact && self.observed < 3 {
            return;
        }
        if kind == OpKind::Grant {
            world.clients[client].leases.push(op as i64 + 1);
        }
        let method = method_of(kind);
        if world.clients[client].call(method, op, &request) {
            world.history.invoke(now, client, method, request);
            world.send_to_server(client);
        }
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
                let made = world.history.streams[stream].creates.len() as u64;
                let watch_id = rng.below(made.max(1)) as i64;
                RequestUnion::CancelRequest(proto::WatchCancelRequest { watch_id })
            }
            _ => {
                world.clients[client].reset_stream(now, stream, &mut world.history);
                return world.send_to_server(client);
            }
        };
        world.clients[client].ask(stream, request, &mut world.history);
        world.send_to_server(client);
    }

    /// The observer watches everything from where it has got to, whatever happens to its connection.
    fn follow_observer(&mut self) {
        let id = self.plan.shape.clients;
        let world = &mut *self.world;
        for (_, response) in self.observer_stream.iter().flat_map(|at| &world.history.streams[*at].responses)
        {
            let last = response.events.last().and_then(|event| event.kv.as_ref());
            self.observed = self.observed.max(last.map_or(0, |kv| kv.mod_revision));
        }
        if self.observer_stream.is_some_and(|stream| world.history.streams[stream].ended.is_none()) {
            return;
        }
        self.observer_stream = None;
        world.connect(id);
        let now = world.now;
        let Some(stream) = world.clients[id].open_stream(now, &mut world.history) else { return };
        let create = proto::WatchCreateRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            start_revision: self.observed + 1,
            prev_kv: true,
            ..Default::default()
        };
        world.clients[id].ask(stream, RequestUnion::CreateRequest(create), &mut world.history);
        world.send_to_server(id);
        self.observer_stream = Some(stream);
    }

    /// Every call is answered in time.
    fn come_to_rest(&mut self, when: &str) -> Result<(), Failure> {
        let until = self.world.now + PATIENCE;
        while self.world.now < until {
            self.advance(self.world.now + Duration::from_ms(100))?;
            let outstanding: usize = self.world.clients.iter().map(|client| client.outstanding()).sum();
            if self.world.is_up() && outstanding == 0 {
                return Ok(());
            }
        }
        let late = self.world.history.ops.iter().filter(|op| op.returned.is_none());
        let late: Vec<String> = late.map(|op| format!("{:?} of client {}", op.method, op.client)).collect();
        Err(Failure::new("liveness", format!("{when}, not answered: {late:?}, up: {}", self.world.is_up())))
    }

    /// One call by a client of its own, which must succeed.
    fn must(&mut self, method: Method, request: Vec<u8>) -> Result<Bytes, Failure> {
        let until = self.world.now + PATIENCE;
        loop {
            let world = &mut *self.world;
            let now = world.now;
            world.connect(0);
            let op = world.history.next();
            if world.clients[0].call(method, op, &request) {
                world.history.invoke(now, 0, method, request.clone().into());
                world.send_to_server(0);
                let mut left = 100;
                while world_op_open(self.world, op) && left > 0 {
                    self.advance(self.world.now + Duration::from_ms(100))?;
                    left -= 1;
                }
                let answered = &self.world.history.ops[op];
                if answered.is_ok() {
                    return Ok(answered.messages[0].clone());
                }
                if answered.returned.is_some() && !answered.is_unknown() {
                    return Err(Failure::new("liveness", format!("{method:?}: {:?}", answered.status)));
                }
            }
            self.advance(self.world.now + Duration::from_ms(100))?;
            if self.world.now > until {
                return Err(Failure::new("liveness", format!("{method:?} does not get through")));
            }
        }
    }

    /// New calls succeed, in every shard.
    fn probe(&mut self) -> Result<proto::HashKvResponse, Failure> {
        let disarm = proto::AlarmRequest { action: 2, member_id: MEMBER.0, alarm: 1 };
        self.must(Method::Alarm, disarm.encode_to_vec())?;
        for key in KEYS {
            let value = super::workload::tag(self.world.history.next()).into();
            let put = proto::PutRequest { key: Bytes::from(key), value, ..Default::default() };
            self.must(Method::Put, put.encode_to_vec())?;
        }
        let all = proto::RangeRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            ..Default::default()
        };
        self.must(Method::Range, all.encode_to_vec())?;
        self.hash(0)
    }

    /// Writes of all clients at once, all over the shards, are answered as fast as disk and network allow: no
    /// reactor that others settle for sleeps until something else wakes it. Every other one is a delete that
    /// finds nothing and depends on what is not settled yet; nobody watches, as that would wake reactors too.
    fn probe_together(&mut self) -> Result<(), Failure> {
        let shape = &self.plan.shape;
        let (net, disk, mail) = (shape.net_delay.0, shape.disk_latency.0, shape.mail_delay.0);
        let patience = Duration(20_000_000 + 4 * net + 12 * disk + 10 * mail);
        for client in 0..=shape.clients {
            self.world.disconnect(client);
        }
        self.world.advance(self.world.now + patience)?;
        for round in 0..8 {
            let first = self.world.history.next();
            for (n, key) in KEYS.iter().enumerate().skip(round % 3).step_by(3) {
                self.probe_write(n % shape.clients, key, n % 2 == 0);
            }
            self.world.advance(self.world.now + patience)?;
            let late = self.world.history.ops[first..].iter().position(|op| op.returned.is_none());
            if let Some(late) = late {
                let what = format!("call {} is not answered within {patience:?}", first + late);
                return Err(Failure::new("liveness", what));
            }
        }
        Ok(())
    }

    fn probe_write(&mut self, client: usize, key: &'static str, put: bool) {
        let world = &mut *self.world;
        world.connect(client);
        let op = world.history.next();
        let value = super::workload::tag(op).into();
        let (method, request) = if put {
            let put = proto::PutRequest { key: Bytes::from(key), value, ..Default::default() };
            (Method::Put, put.encode_to_vec())
        } else {
            // The same shard, but for the last key of one.
            let nothing = proto::DeleteRangeRequest { key: format!("{key}+").into(), ..Default::default() };
            (Method::DeleteRange, nothing.encode_to_vec())
        };
        if world.clients[client].call(method, op, &request) {
            world.history.invoke(world.now, client, method, request.into());
            world.send_to_server(client);
        }
    }

    fn hash(&mut self, revision: i64) -> Result<proto::HashKvResponse, Failure> {
        let hash = self.must(Method::HashKv, proto::HashKvRequest { revision }.encode_to_vec())?;
        Ok(proto::HashKvResponse::decode(hash).expect("the server speaks protobuf"))
    }

    /// After a crash the state is what it was.
    fn probe_again(&mut self, before: proto::HashKvResponse) -> Result<(), Failure> {
        let after = self.hash(before.hash_revision)?;
        if (after.hash, after.compact_revision) != (before.hash, before.compact_revision) {
            let what = format!("{before:?} before the power loss, {after:?} after");
            return Err(Failure::new("state after a restart", what));
        }
        self.probe().map(|_| ())
    }

    /// Leases that nobody renews end, with their keys.
    fn outlive_leases(&mut self) -> Result<(), Failure> {
        self.advance(self.world.now + Duration::from_secs(16))?;
        let left = self.must(Method::LeaseLeases, vec![])?;
        let left = proto::LeaseLeasesResponse::decode(left).expect("the server speaks protobuf");
        if !left.leases.is_empty() {
            return Err(Failure::new("leases", format!("never end: {:?}", left.leases)));
        }
        let last = self.hash(0)?.hash_revision;
        self.advance(self.world.now + Duration::from_ms(500))?;
        if self.observed < last {
            return Err(Failure::new("watch", format!("the observer is at {} of {last}", self.observed)));
        }
        Ok(())
    }

    /// The files are damaged under a stopped member: it says so, or nothing is lost.
    fn outlive_damage(&mut self) -> Result<Hit, Failure> {
        let damage = self.plan.shape.damage;
        let mut rng = Rng::new(self.plan.seed ^ 0xDA3A);
        self.world.prepare_damage(damage, &mut rng);
        self.probe()?;
        let grant = proto::LeaseGrantRequest { ttl: 600, id: LAST_LEASE };
        self.must(Method::LeaseGrant, grant.encode_to_vec())?;
        let before = self.probe()?;
        if rng.chance(1, 2) {
            self.advance(self.world.now + Duration::from_ms(100))?;
        }
        self.world.trace.line(self.world.now, || format!("{damage:?}"));
        if !self.world.damage(damage, &mut rng) {
            return Ok(Hit::DamageUnknowable);
        }
        self.world.calm();
        match self.come_to_rest("after the damage") {
            Err(Failure { check: REFUSED, .. }) => return Ok(hit_of(damage)),
            other => other?,
        }
        let after = self.hash(before.hash_revision)?;
        if (after.hash, after.compact_revision) != (before.hash, before.compact_revision) {
            return Err(Failure::new("damage", format!("{damage:?}: {before:?} before, {after:?} after")));
        }
        let leases = self.must(Method::LeaseLeases, vec![])?;
        let leases = proto::LeaseLeasesResponse::decode(leases).expect("the server speaks protobuf");
        if !leases.leases.iter().any(|lease| lease.id == LAST_LEASE) {
            return Err(Failure::new("damage", format!("{damage:?}: the last lease is gone")));
        }
        Ok(Hit::DamageHarmless)
    }
}

fn hit_of(damage: Damage) -> Hit {
    match damage {
        Damage::Rot => Hit::Rot,
        Damage::TailLost => Hit::TailLost,
        Damage::WriteLost => Hit::DurableWriteLost,
        Damage::WriteMisdirected => Hit::DurableWriteMisdirected,
        Damage::Exchanged => Hit::FilesExchanged,
        Damage::Truncated => Hit::FileTruncated,
        Damage::Old => Hit::OldFiles,
        Damage::Missing => Hit::FileMissing,
    }
}

fn world_op_open(world: &World, op: usize) -> bool {
    world.history.ops[op].returned.is_none() && world.clients[0].link.is_some()
}
