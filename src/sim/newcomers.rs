//! What must hold of members that come and go once nothing goes wrong any more: what operators have begun comes to
//! its end, who was added serves and has what the others have, who was removed ends, and nobody is needed who is not
//! there.

use super::member::Death;
use super::operator::members_of;
use super::plan::OPERATORS;
use super::run::{PATIENCE, Run};
use super::world::Failure;
use crate::api::Error;
use crate::stdx::Rng;
use crate::types::Duration;
use crate::wire::Method;
use crate::wire::proto::{self, Message};

/// How long operators may take to end what they have begun, each in its time.
const ENDS: Duration = Duration::from_secs(120);
/// How long a change may be refused where nothing goes wrong: who has just come counts after etcd's five seconds.
const CHANGES: Duration = Duration::from_secs(25);
/// How long the answer to a change takes at most: etcd's limit of 5 s and two election timeouts, and the way there.
const ANSWER: Duration = Duration::from_ms(7000 + 1000);
const LOOK_EVERY: Duration = Duration::from_ms(100);

/// What a change was told: the members there are then, or why there was none.
type Told = Result<Vec<proto::Member>, String>;

/// A change that was made: it was answered, or one sees that it is in effect.
struct Made {
    list: Vec<proto::Member>,
    for_sure: bool,
}

impl Run<'_> {
    /// Nothing goes wrong any more: operators end what they have begun, and put in order what they have left.
    pub(super) fn settle_members(&mut self) -> Result<(), Failure> {
        if !self.plan.shape.changes() {
            return Ok(());
        }
        let until = self.world.now + ENDS;
        while !self.operators.rest() {
            if self.world.now > until {
                return Err(Failure::new("liveness", "operators do not come to an end"));
            }
            self.advance(self.world.now + LOOK_EVERY)?;
        }
        // They may have killed somebody meanwhile.
        self.world.calm();
        let mut rng = Rng::new(self.plan.seed ^ 0x05E7_71E5);
        let until = self.world.now + ENDS;
        loop {
            let list = self.list_members()?;
            self.world.note_members(&list);
            let Some((place, learns)) = self.find_unready(&list) else { break };
            if self.world.now > until {
                return Err(Failure::new("liveness", format!("m{place} does not become a member: {list:?}")));
            }
            let can_go = self.world.serving.iter().any(|at| *at != place);
            if self.world.members[place].is_vacant() && !(can_go && rng.chance(1, 3)) {
                self.world.start_newcomer(place, &list, Duration(1), None);
                self.come_to_rest("after a newcomer was started")?;
            } else if self.world.members[place].is_vacant() || learns && rng.chance(1, 4) {
                self.change(place, Method::MemberRemove)?;
            } else if learns {
                self.change(place, Method::MemberPromote)?;
            }
        }
        self.part()?;
        let serving = self.world.serving.clone();
        self.serve_again(&serving, "after members have come and gone")
    }

    /// Somebody who is listed and either was never started or learns.
    fn find_unready(&self, list: &[proto::Member]) -> Option<(usize, bool)> {
        let places = list.iter().filter_map(|member| Some((self.world.place_of(member)?, member.is_learner)));
        places.into_iter().find(|(place, learns)| *learns || self.world.members[*place].is_vacant())
    }

    /// Who was removed hears of it, and ends.
    fn part(&mut self) -> Result<(), Failure> {
        let until = self.world.now + PATIENCE;
        loop {
            let is_over = |at: &usize| self.world.members[*at].is_away() || self.world.serving.contains(at);
            let Some(left) = self.world.places().find(|at| !is_over(at)) else { return Ok(()) };
            if self.world.now > until && !self.world.is_told(left) {
                self.world.retire(left);
            } else if self.world.now > until {
                let what = format!("m{left} was removed and does not end, beside {:?}", self.world.serving);
                return Err(Failure::new("liveness", what));
            }
            self.advance(self.world.now + LOOK_EVERY)?;
        }
    }

    /// The members there are, as anybody says who can.
    pub(super) fn list_members(&mut self) -> Result<Vec<proto::Member>, Failure> {
        let until = self.world.now + PATIENCE;
        let request = proto::MemberListRequest { linearizable: true }.encode_to_vec();
        loop {
            let up: Vec<usize> = self.world.places().filter(|at| self.world.is_up(*at)).collect();
            for place in up {
                if let Some(op) = self.ask_once(place, Method::MemberList, &request)?
                    && self.world.history.ops[op].is_ok()
                {
                    return Ok(members_of(Method::MemberList, &self.world.history.ops[op].messages[0]));
                }
            }
            if self.world.now > until {
                return Err(Failure::new("liveness", "nobody lists the members"));
            }
            self.advance(self.world.now + LOOK_EVERY)?;
        }
    }

    /// One call at a member by the last operator, however it ends. Gives its number, if the member takes it.
    fn ask_once(&mut self, place: usize, method: Method, request: &[u8]) -> Result<Option<usize>, Failure> {
        let client = self.world.clients.len() - 1;
        self.world.connect_with(client, place);
        let Some(op) = self.world.call(client, method, request.to_vec().into()) else {
            self.advance(self.world.now + LOOK_EVERY)?;
            return Ok(None);
        };
        self.await_answers(&[(client, op)])?;
        Ok(Some(op))
    }

    /// Each call is answered in time, or its connection ends.
    fn await_answers(&mut self, asked: &[(usize, usize)]) -> Result<(), Failure> {
        let until = self.world.now + ANSWER;
        let is_open = |run: &Run<'_>, (client, op): (usize, usize)| {
            run.world.history.ops[op].returned.is_none() && run.world.clients[client].session.is_some()
        };
        while let Some((_, op)) = asked.iter().copied().find(|asked| is_open(self, *asked)) {
            if self.world.now > until {
                let call = &self.world.history.ops[op];
                let what =
                    format!("call {op} ({:?}) to m{} is not answered in time", call.method, call.member);
                return Err(Failure::new("liveness", what));
            }
            self.advance(self.world.now + Duration::from_ms(10))?;
        }
        Ok(())
    }

    fn request_for(&self, place: usize, method: Method, learns: bool) -> Vec<u8> {
        let identity = self.world.identity(place);
        let id = identity.id.0;
        match method {
            Method::MemberAdd => {
                let peer_urls = vec![identity.peer_url.clone()];
                proto::MemberAddRequest { peer_urls, is_learner: learns }.encode_to_vec()
            }
            // Both have nothing but the id, at the same place.
            _ => proto::MemberRemoveRequest { id }.encode_to_vec(),
        }
    }

    /// A change about the member at a place is made, however often it is to be asked for.
    fn change(&mut self, place: usize, method: Method) -> Result<Made, Failure> {
        let request = self.request_for(place, method, false);
        self.change_by(place, method, &request)
    }

    fn change_by(&mut self, place: usize, method: Method, request: &[u8]) -> Result<Made, Failure> {
        let until = self.world.now + CHANGES;
        loop {
            // Whoever is asked sends it to the leader.
            let others: Vec<usize> = self.world.serving.iter().copied().filter(|at| *at != place).collect();
            let asked = *others.first().unwrap_or(&place);
            let why = match self.ask_for_change(asked, method, request)? {
                Ok(list) => {
                    self.world.note_members(&list);
                    return Ok(Made { list, for_sure: true });
                }
                Err(why) => why,
            };
            // Who leaves may end before it has said that it does.
            let list = self.list_members()?;
            if self.stands(&list, place, method) {
                self.world.note_members(&list);
                return Ok(Made { list, for_sure: false });
            }
            if self.world.now > until {
                let what = format!("{method:?} of m{place} is refused for so long: {why}");
                return Err(Failure::new("liveness", what));
            }
            self.advance(self.world.now + LOOK_EVERY)?;
        }
    }

    /// Whether the member at a place is as a change wants it.
    fn stands(&self, list: &[proto::Member], place: usize, method: Method) -> bool {
        let listed = list.iter().find(|member| self.world.place_of(member) == Some(place));
        match method {
            Method::MemberRemove => listed.is_none(),
            Method::MemberPromote => listed.is_some_and(|member| !member.is_learner),
            _ => listed.is_some(),
        }
    }

    fn ask_for_change(&mut self, asked: usize, method: Method, request: &[u8]) -> Result<Told, Failure> {
        let Some(op) = self.ask_once(asked, method, request)? else {
            return Ok(Err("it takes no call".into()));
        };
        let answered = &self.world.history.ops[op];
        Ok(match answered.is_ok() {
            true => Ok(members_of(method, &answered.messages[0])),
            false => Err(format!("{:?}", answered.status)),
        })
    }
}

/// What is done on purpose in a calm world.
impl Run<'_> {
    /// Members come and go once more, each in one of the ways in which the others could be harmed.
    pub(super) fn outlive_changes(&mut self) -> Result<(), Failure> {
        if !self.plan.shape.changes() {
            return Ok(());
        }
        let mut rng = Rng::new(self.plan.seed ^ 0x00C4_A46E);
        self.keep_the_last()?;
        for _ in 0..2 {
            let free: Vec<usize> = self.world.places().filter(|at| self.is_free(*at)).collect();
            match (free.first().copied(), rng.below(5)) {
                (Some(place), 0) => self.outlive_a_learners_death(place)?,
                (Some(place), 1) => self.await_one_that_never_comes(place, &mut rng)?,
                (Some(place), 2) => self.change_together(place, &mut rng)?,
                _ if self.world.serving.len() > 1 => self.remove_one_for_good(&mut rng)?,
                (Some(place), _) => self.outlive_a_learners_death(place)?,
                (None, _) => {}
            }
            self.part()?;
            let serving = self.world.serving.clone();
            self.serve_again(&serving, "after another change of members")?;
            self.agree("after another change of members")?;
        }
        Ok(())
    }

    /// Whether nobody has ever been added at a place.
    fn is_free(&self, place: usize) -> bool {
        self.world.members[place].is_vacant() && !self.operators.has_asked_for(place)
    }

    /// The last member cannot be removed.
    fn keep_the_last(&mut self) -> Result<(), Failure> {
        let [last] = self.world.serving[..] else { return Ok(()) };
        let request = self.request_for(last, Method::MemberRemove, false);
        let told = self.ask_for_change(last, Method::MemberRemove, &request)?;
        match told {
            Err(why) if why.contains(&Error::NotEnoughStarted.to_string()) => Ok(()),
            other => Err(Failure::new("members", format!("the last member was to be removed: {other:?}"))),
        }
    }

    fn add(&mut self, place: usize, learns: bool) -> Result<Vec<proto::Member>, Failure> {
        self.operators.take_place(place);
        let request = self.request_for(place, Method::MemberAdd, learns);
        Ok(self.change_by(place, Method::MemberAdd, &request)?.list)
    }

    /// A learner that has come is dead, and nobody needs it.
    fn outlive_a_learners_death(&mut self, place: usize) -> Result<(), Failure> {
        let others = self.world.serving.clone();
        let list = self.add(place, true)?;
        self.world.start_newcomer(place, &list, Duration(1), None);
        self.advance(self.world.now + Duration::from_secs(3))?;
        self.serve_again(&others, "with a learner")?;
        self.world.die_for_good(place, Death::Kill);
        self.serve_again(&others, "while the learner is dead")?;
        self.change(place, Method::MemberRemove)?;
        self.world.calm();
        self.come_to_rest("after the learner was removed")
    }

    /// A member that was added and is not started is needed by nobody, before it has come.
    fn await_one_that_never_comes(&mut self, place: usize, rng: &mut Rng) -> Result<(), Failure> {
        let others = self.world.serving.clone();
        let list = self.add(place, false)?;
        self.serve_again(&others, "while one that was added has not come")?;
        self.advance(self.world.now + Duration::from_secs(3))?;
        self.serve_again(&others, "while one that was added does not come")?;
        if rng.chance(1, 2) {
            self.change(place, Method::MemberRemove)?;
            return Ok(());
        }
        self.world.start_newcomer(place, &list, Duration(1), None);
        self.come_to_rest("after the newcomer was started")?;
        self.world.note_members(&list);
        Ok(())
    }

    /// Two operators want something at the same time, and both are answered.
    fn change_together(&mut self, place: usize, rng: &mut Rng) -> Result<(), Failure> {
        self.operators.take_place(place);
        let serving = self.world.serving.clone();
        let renamed = *rng.pick(&serving);
        let identity = self.world.identity(renamed);
        let peer_urls = vec![identity.other_peer_url()];
        let update = proto::MemberUpdateRequest { id: identity.id.0, peer_urls }.encode_to_vec();
        let add = self.request_for(place, Method::MemberAdd, true);
        let first = self.world.clients.len() - OPERATORS;
        let mut asked = vec![];
        for (at, (method, request)) in
            [(Method::MemberAdd, add), (Method::MemberUpdate, update)].into_iter().enumerate()
        {
            let member = *rng.pick(&serving);
            self.world.connect_with(first + at, member);
            asked.extend(self.world.call(first + at, method, request.into()).map(|op| (first + at, op)));
        }
        self.await_answers(&asked)?;
        for (_, op) in &asked {
            let answered = &self.world.history.ops[*op];
            if !answered.is_ok() && !answered.is_unchanged() {
                let what = format!("of two changes at once call {op} failed: {:?}", answered.status);
                return Err(Failure::new("members", what));
            }
        }
        self.settle_members()
    }

    /// A member is removed, perhaps the leader, and its machine goes as soon as that is known.
    fn remove_one_for_good(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let serving = self.world.serving.clone();
        let leader = self.world.leader().filter(|leader| serving.contains(leader) && rng.chance(2, 3));
        let place = leader.unwrap_or_else(|| *rng.pick(&serving));
        let mut for_sure = false;
        if rng.chance(1, 3) {
            // By itself.
            let request = self.request_for(place, Method::MemberRemove, false);
            for_sure = self.ask_for_change(place, Method::MemberRemove, &request)?.is_ok();
        }
        if !for_sure {
            for_sure = self.change(place, Method::MemberRemove)?.for_sure;
        }
        self.world.serving.retain(|at| *at != place);
        if for_sure && rng.chance(2, 3) {
            self.world.wipe(place);
        }
        let left = self.world.serving.clone();
        self.serve_again(&left, "after a member was removed for good")
    }
}
