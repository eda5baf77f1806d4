//! Operators: clients that change who the members are, as everybody does it over the wire: one change after the
//! other, or two of them at once. Whoever does not know what became of a change looks at the list of members first.

use super::boot::Joiner;
use super::hits::Hit;
use super::member::Death;
use super::plan::{Change, Start, Then, Who};
use super::world::World;
use crate::api::Error;
use crate::reactor::Founder;
use crate::stdx::Rng;
use crate::types::{Duration, MemberId, Time};
use crate::wire::Method;
use crate::wire::proto::{self, Message};
use std::collections::{BTreeSet, VecDeque};

/// How long an operator waits for an answer, which is longer than a member takes; before it asks again; and tries.
const ANSWER: Duration = Duration::from_secs(9);
const AGAIN: Duration = Duration::from_ms(300);
const TRIES: Duration = Duration::from_secs(25);

/// What is to be true of the member at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    Added {
        place: usize,
        learns: bool,
        start: Start,
    },
    Promoted {
        place: usize,
    },
    /// Asked at the member itself, or anywhere.
    Removed {
        place: usize,
        then: Then,
        at_itself: bool,
    },
    Updated {
        place: usize,
    },
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Ask,
    Asked { op: usize, until: Time },
    Look,
    Looking { op: usize, until: Time },
}

struct Doing {
    goals: VecDeque<Goal>,
    phase: Phase,
    rng: Rng,
    /// When it began to want the first of its goals, and does not do anything before.
    since: Time,
    again_at: Time,
}

struct Operator {
    client: usize,
    wants: VecDeque<(Change, Rng)>,
    doing: Option<Doing>,
}

/// All operators, and what they know of the members.
pub(super) struct Operators {
    each: Vec<Operator>,
    books: Books,
}

#[derive(Default)]
struct Books {
    /// As the last answer listed them; nothing before there was any.
    listed: Vec<proto::Member>,
    /// Places for which somebody has asked, and those that were given another URL.
    asked_for: BTreeSet<usize>,
    updated: BTreeSet<usize>,
}

impl Operators {
    /// With the clients from this number on.
    pub fn new(first: usize, operators: usize) -> Operators {
        let operator = |at| Operator { client: first + at, wants: VecDeque::new(), doing: None };
        Operators { each: (0..operators).map(operator).collect(), books: Books::default() }
    }

    pub fn want(&mut self, operator: usize, change: Change, rng: Rng) {
        self.each[operator].wants.push_back((change, rng));
    }

    /// Whether nobody has anything in mind.
    pub fn rest(&self) -> bool {
        self.each.iter().all(|one| one.wants.is_empty() && one.doing.is_none())
    }

    /// Whether somebody has asked for a member at this place.
    pub fn has_asked_for(&self, place: usize) -> bool {
        self.books.asked_for.contains(&place)
    }

    pub fn take_place(&mut self, place: usize) {
        self.books.asked_for.insert(place);
    }

    /// Takes what was answered, and asks what is next.
    pub fn follow(&mut self, world: &mut World) {
        for at in 0..self.each.len() {
            let others = self.each.iter().enumerate().filter(|(other, _)| *other != at);
            let together = others.filter(|(_, one)| one.waits()).count() > 0;
            self.each[at].follow(world, &mut self.books, together);
        }
    }
}

impl Operator {
    fn waits(&self) -> bool {
        self.doing.as_ref().is_some_and(|doing| matches!(doing.phase, Phase::Asked { .. }))
    }

    fn follow(&mut self, world: &mut World, books: &mut Books, together: bool) {
        if self.doing.is_none() {
            let Some((change, rng)) = self.wants.pop_front() else { return };
            self.doing = books.plan(world, change, rng);
        }
        let Some(doing) = self.doing.as_mut().filter(|doing| doing.again_at <= world.now) else { return };
        let Some(goal) = doing.goals.front().copied() else {
            self.doing = None;
            return;
        };
        match doing.phase {
            Phase::Ask | Phase::Look if world.now > doing.since + TRIES => self.doing = None,
            Phase::Ask => {
                let asked = doing.ask(world, books, self.client, goal);
                if asked && together {
                    world.hits.count(Hit::ChangesTogether);
                }
            }
            Phase::Look => doing.look(world, self.client),
            Phase::Asked { op, until } if world.has_outcome(self.client, op, until) => {
                doing.take_answer(world, books, goal, op);
            }
            Phase::Looking { op, until } if world.has_outcome(self.client, op, until) => {
                doing.take_list(world, books, goal, op);
            }
            Phase::Asked { .. } | Phase::Looking { .. } => {}
        }
    }
}

impl Doing {
    fn ask(&mut self, world: &mut World, books: &Books, client: usize, goal: Goal) -> bool {
        self.again_at = world.now + AGAIN;
        world.disconnect(client);
        match goal {
            Goal::Removed { place, at_itself: true, .. } => world.connect_with(client, place),
            _ => self.connect(world, client),
        }
        let Some((method, request)) = books.request(world, goal) else {
            self.phase = Phase::Look;
            return false;
        };
        let Some(op) = world.call(client, method, request.into()) else {
            return false;
        };
        self.phase = Phase::Asked { op, until: world.now + ANSWER };
        self.again_at = world.now;
        true
    }

    fn look(&mut self, world: &mut World, client: usize) {
        self.again_at = world.now + AGAIN;
        world.disconnect(client);
        self.connect(world, client);
        let request = proto::MemberListRequest { linearizable: true }.encode_to_vec();
        if let Some(op) = world.call(client, Method::MemberList, request.into()) {
            self.phase = Phase::Looking { op, until: world.now + ANSWER };
            self.again_at = world.now;
        }
    }

    fn connect(&mut self, world: &mut World, client: usize) {
        let up: Vec<usize> = world.places().filter(|at| world.is_up(*at)).collect();
        if !up.is_empty() {
            let member = *self.rng.pick(&up);
            world.connect_with(client, member);
        }
    }

    fn take_answer(&mut self, world: &mut World, books: &mut Books, goal: Goal, op: usize) {
        let answered = &world.history.ops[op];
        if answered.is_ok() {
            let list = members_of(answered.method, &answered.messages[0]);
            books.note(world, list);
            self.reach(world, books, goal, true);
            return;
        }
        // Perhaps it was done by what was asked before, or by the other operator.
        let done =
            [Error::PeerUrlExists, Error::MemberNotFound, Error::NotLearner].map(|error| error.to_string());
        let is_open = answered.is_unknown() || done.contains(&answered.status.1);
        self.phase = if is_open { Phase::Look } else { Phase::Ask };
        self.again_at = world.now + AGAIN;
    }

    fn take_list(&mut self, world: &mut World, books: &mut Books, goal: Goal, op: usize) {
        self.again_at = world.now + AGAIN;
        let answered = &world.history.ops[op];
        if !answered.is_ok() {
            self.phase = Phase::Look;
            return;
        }
        let list = members_of(answered.method, &answered.messages[0]);
        books.note(world, list);
        match books.stands(world, goal) {
            Some(true) => self.reach(world, books, goal, false),
            Some(false) => self.phase = Phase::Ask,
            None => self.goals.clear(),
        }
    }

    /// A goal is reached: by an answer that says so, or one sees that it is.
    fn reach(&mut self, world: &mut World, books: &Books, goal: Goal, for_sure: bool) {
        match goal {
            Goal::Added { place, start, .. } => {
                match start {
                    Start::After(after) => books.start(world, place, after, None),
                    Start::AndDies { steps } => books.start(world, place, Duration(1), Some(steps)),
                    Start::Never => {}
                }
                // It catches up meanwhile, or has no time to.
                let pause = *self.rng.pick(&[1, 500, 6000]);
                self.again_at = world.now + Duration::from_ms(self.rng.below(pause));
            }
            // Only who is told that it is done may take the machine away.
            Goal::Removed { place, then, .. } if for_sure && !world.members[place].is_away() => match then {
                Then::Nothing => {}
                Then::Kill => world.die_for_good(place, Death::Kill),
                Then::Wipe => world.wipe(place),
            },
            Goal::Removed { .. } | Goal::Promoted { .. } | Goal::Updated { .. } => {}
        }
        self.goals.pop_front();
        self.phase = Phase::Ask;
        self.since = world.now;
    }
}

impl Books {
    /// How a change is to be made. Nothing where there is nobody that it could concern.
    fn plan(&mut self, world: &World, change: Change, mut rng: Rng) -> Option<Doing> {
        let mut goals = VecDeque::new();
        match change {
            Change::Add { learns, start } => {
                goals.push_back(Goal::Added { place: self.free_place(world)?, learns, start });
            }
            Change::Promote => {
                let learners: Vec<usize> = self.places(world, |member| member.is_learner);
                goals.push_back(Goal::Promoted { place: *learners.first()? });
            }
            Change::Remove { who, then } => goals.push_back(self.removal(world, who, then, &mut rng)?),
            Change::Update => {
                let all = self.places(world, |_| true);
                let places: Vec<usize> = all.into_iter().filter(|at| !self.updated.contains(at)).collect();
                if places.is_empty() {
                    return None;
                }
                let place = *rng.pick(&places);
                self.updated.insert(place);
                goals.push_back(Goal::Updated { place });
            }
            Change::Replace { who, then } => {
                let removal = self.removal(world, who, then, &mut rng)?;
                let (place, learns) = (self.free_place(world)?, rng.chance(1, 2));
                goals.push_back(Goal::Added { place, learns, start: Start::After(Duration(1)) });
                goals.extend(learns.then_some(Goal::Promoted { place }));
                goals.push_back(removal);
            }
        }
        Some(Doing { goals, phase: Phase::Ask, rng, since: world.now, again_at: world.now })
    }

    fn removal(&self, world: &World, who: Who, then: Then, rng: &mut Rng) -> Option<Goal> {
        let all = self.places(world, |_| true);
        let some = |is_meant: &dyn Fn(usize) -> bool| -> Vec<usize> {
            let meant: Vec<usize> = all.iter().copied().filter(|at| is_meant(*at)).collect();
            if meant.is_empty() { all.clone() } else { meant }
        };
        let places = match who {
            Who::Any | Who::Asked => all.clone(),
            Who::Leader => some(&|at| world.leader() == Some(at)),
            Who::Down => some(&|at| !world.is_up(at)),
            Who::Newcomer => some(&|at| at >= world.shape.founders),
        };
        if places.is_empty() {
            return None;
        }
        Some(Goal::Removed { place: *rng.pick(&places), then, at_itself: who == Who::Asked })
    }

    fn free_place(&mut self, world: &World) -> Option<usize> {
        let mut newcomers = world.shape.founders..world.shape.members.len();
        let place = newcomers.find(|at| !self.asked_for.contains(at))?;
        self.asked_for.insert(place);
        Some(place)
    }

    /// The places of the members that are listed, or of the founders where none is known to be.
    fn places(&self, world: &World, is_meant: impl Fn(&proto::Member) -> bool) -> Vec<usize> {
        if self.listed.is_empty() {
            return if is_meant(&proto::Member::default()) { world.serving.clone() } else { vec![] };
        }
        let listed = self.listed.iter().filter(|member| is_meant(member));
        listed.filter_map(|member| world.place_of(member)).collect()
    }

    /// Members are as this list has them. Who was added is known by its URL, and from now on by its id.
    fn note(&mut self, world: &mut World, list: Vec<proto::Member>) {
        world.note_members(&list);
        self.listed = list;
    }

    /// Whether it has come to what is wanted; nothing where it never will.
    fn stands(&self, world: &World, goal: Goal) -> Option<bool> {
        let find = |place| self.listed.iter().find(|member| world.place_of(member) == Some(place));
        match goal {
            Goal::Added { place, .. } => Some(find(place).is_some()),
            Goal::Promoted { place } => Some(!find(place)?.is_learner),
            Goal::Removed { place, .. } => Some(find(place).is_none()),
            Goal::Updated { place } => {
                Some(find(place)?.peer_urls == [world.identity(place).other_peer_url()])
            }
        }
    }

    /// What is asked for a goal, once the member's id is known.
    fn request(&self, world: &World, goal: Goal) -> Option<(Method, Vec<u8>)> {
        let id = |place: usize| Some(world.identity(place).id.0).filter(|id| *id != 0);
        Some(match goal {
            Goal::Added { place, learns, .. } => {
                let peer_urls = vec![world.identity(place).peer_url.clone()];
                let request = proto::MemberAddRequest { peer_urls, is_learner: learns };
                (Method::MemberAdd, request.encode_to_vec())
            }
            Goal::Promoted { place } => {
                (Method::MemberPromote, proto::MemberPromoteRequest { id: id(place)? }.encode_to_vec())
            }
            Goal::Removed { place, .. } => {
                (Method::MemberRemove, proto::MemberRemoveRequest { id: id(place)? }.encode_to_vec())
            }
            Goal::Updated { place } => {
                let peer_urls = vec![world.identity(place).other_peer_url()];
                let request = proto::MemberUpdateRequest { id: id(place)?, peer_urls };
                (Method::MemberUpdate, request.encode_to_vec())
            }
        })
    }

    fn start(&self, world: &mut World, place: usize, after: Duration, dies_after: Option<u64>) {
        world.start_newcomer(place, &self.listed, after, dies_after);
    }
}

/// All members, as an answer about them lists them.
pub(super) fn members_of(method: Method, message: &bytes::Bytes) -> Vec<proto::Member> {
    const SPEAKS: &str = "the server speaks protobuf";
    match method {
        Method::MemberAdd => proto::MemberAddResponse::decode(message.clone()).expect(SPEAKS).members,
        // The others' have the list at the same place.
        _ => proto::MemberListResponse::decode(message.clone()).expect(SPEAKS).members,
    }
}

impl World {
    /// Whether a call has an outcome, or nobody waits for it any longer.
    fn has_outcome(&mut self, client: usize, op: usize, until: Time) -> bool {
        if self.history.ops[op].returned.is_some() || self.clients[client].session.is_none() {
            return true;
        }
        if self.now > until {
            self.disconnect(client);
        }
        self.now > until
    }

    /// The place of a member that is listed.
    pub(super) fn place_of(&self, member: &proto::Member) -> Option<usize> {
        let lists = |at: &usize| member.peer_urls.iter().any(|url| self.identity(*at).listens_at(url));
        self.places().find(lists)
    }

    /// Members are as this list has them.
    pub(super) fn note_members(&mut self, list: &[proto::Member]) {
        let mut serving = vec![];
        for member in list {
            let Some(place) = self.place_of(member) else { continue };
            let known = &mut self.history.known.members[place].id;
            if *known == MemberId(0) {
                *known = MemberId(member.id);
            }
            if !member.is_learner && !self.members[place].is_away() {
                serving.push(place);
            }
        }
        serving.sort_unstable();
        if !serving.is_empty() {
            self.serving = serving;
        }
    }

    /// A member that was added is started as these members are, unless it was already.
    pub(super) fn start_newcomer(
        &mut self,
        place: usize,
        listed: &[proto::Member],
        after: Duration,
        dies_after: Option<u64>,
    ) {
        let id = self.identity(place).id;
        if !self.members[place].is_vacant() || id == MemberId(0) {
            return;
        }
        let founder = |member: &proto::Member| Founder {
            id: MemberId(member.id),
            name: member.name.clone(),
            peer_urls: member.peer_urls.clone(),
        };
        self.join(place, Joiner { id, members: listed.iter().map(founder).collect() }, after, dies_after);
    }
}
