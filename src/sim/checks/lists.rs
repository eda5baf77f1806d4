//! Who the members are, as clients were told: one history of whole changes, in an order that real time allows.
//!
//! A change that was answered is in effect from some moment on between its call and its answer; one without an
//! outcome from any moment on since its call, or never; one that was refused never. Every list, and every answer to a
//! change, shows the members as they were at some moment: of its call where it is linearizable, else of any before
//! its answer, and no earlier one than the same member has shown before.
//!
//! The order of the changes is searched for. Between two of them the members stand still for some time, which is
//! long enough for the lists that show just these members; the next change is one that may have been made by then.
//! Who was added and removed again leaves the members what they were, so that a list may be of several such times.

use super::is_local;
use crate::sim::history::{History, Moment, Op, is_change};
use crate::sim::operator::members_of;
use crate::sim::world::Failure;
use crate::types::Time;
use crate::wire::Method;
use crate::wire::proto::{self, Message};
use std::collections::BTreeMap;

/// What counts of the members: by their ids, where they are reached and whether they learn.
type Members = BTreeMap<u64, (Vec<String>, bool)>;

#[derive(Clone, Debug)]
enum What {
    Add {
        id: u64,
        peer_urls: Vec<String>,
        learns: bool,
    },
    Remove {
        id: u64,
    },
    Update {
        id: u64,
        peer_urls: Vec<String>,
    },
    Promote {
        id: u64,
    },
    /// All others are lost for ever.
    StandAlone {
        id: u64,
    },
}

struct Change {
    call: usize,
    what: What,
    from: Moment,
    /// None where its outcome is unknown.
    upto: Option<Moment>,
}

/// A list that was shown.
struct Shown {
    call: usize,
    member: usize,
    members: Members,
    /// It is by what the member has itself.
    own: bool,
    asked: Moment,
    upto: Moment,
    /// The change that it answers, by its place among all.
    behind: Option<usize>,
}

/// More than any history takes that could have been.
const STEPS_MAX: usize = 100_000;

pub fn check(history: &History) -> Result<(), Failure> {
    let founders = history.known.members[..history.known.founders()].iter();
    let founded: Members = founders.map(|one| (one.id.0, (vec![one.peer_url.clone()], false))).collect();
    let mut search = Search::of(history);
    let start = State { done: vec![], stands: vec![(founded, Moment::default())], shown: BTreeMap::new() };
    if search.goes_on(&start) {
        return Ok(());
    }
    Err(Failure::new("members", search.best.1))
}

struct Search {
    changes: Vec<Change>,
    shown: Vec<Shown>,
    steps: usize,
    /// How far it came, and what stopped it there.
    best: (usize, String),
}

/// After some changes.
#[derive(Clone)]
struct State {
    /// The changes so far, in their order.
    done: Vec<usize>,
    /// The members at first and after each change, which was made after this moment.
    stands: Vec<(Members, Moment)>,
    /// Of which of these the lists are that are none of a member's own.
    shown: BTreeMap<usize, usize>,
}

impl Search {
    fn of(history: &History) -> Search {
        let ids = ids_of(history);
        let mut changes = vec![];
        let mut shown = vec![];
        for (call, op) in history.ops.iter().enumerate() {
            let mut behind = None;
            let is_open = op.is_ok() || op.is_unknown();
            if let Some(what) = what_of(op, &ids).filter(|_| is_open) {
                behind = Some(changes.len());
                changes.push(Change {
                    call,
                    what,
                    from: op.invoked,
                    upto: op.returned.filter(|_| op.is_ok()),
                });
            }
            let lists = behind.is_some() || op.method == Method::MemberList;
            if let Some(upto) = op.returned.filter(|_| op.is_ok() && lists) {
                let members = members_of(op.method, &op.messages[0]).into_iter();
                let members = members.map(|one| (one.id, (one.peer_urls, one.is_learner))).collect();
                let (asked, own) = (op.invoked, is_local(op));
                shown.push(Shown { call, member: op.member, members, own, asked, upto, behind });
            }
        }
        // Nobody has called for it by the wire, and nobody is told when it is done.
        if let Some((id, from)) = history.known.alone {
            let what = What::StandAlone { id: id.0 };
            changes.push(Change { call: history.ops.len(), what, from, upto: None });
        }
        Search { changes, shown, steps: 0, best: (0, String::new()) }
    }

    /// Whether the rest can have happened after this.
    fn goes_on(&mut self, state: &State) -> bool {
        self.steps += 1;
        if self.ends(state) {
            return true;
        }
        let open = |change: &usize| !state.done.contains(change);
        let left: Vec<usize> = (0..self.changes.len()).filter(open).collect();
        let matching = self.matching(state);
        let limit = self.limit(state, &left, &matching);
        let (_, since) = state.stands.last().expect("the members are founded");
        for at in left {
            let change = &self.changes[at];
            let Some(members) = change.what.make(state) else { continue };
            let soonest = change.from.max(*since);
            let later = matching.iter().map(|list| self.shown[*list].asked).filter(|asked| *asked > soonest);
            let mut moments: Vec<Moment> = later.chain([soonest]).filter(|moment| *moment < limit).collect();
            moments.sort_unstable();
            // The longer the members stand, the more is explained by them.
            for moment in moments.into_iter().rev() {
                let mut next = state.clone();
                next.done.push(at);
                let of_this = matching.iter().filter(|list| self.shown[**list].asked <= moment);
                next.shown.extend(of_this.map(|list| (*list, state.stands.len() - 1)));
                next.stands.push((members.clone(), moment));
                if self.steps > STEPS_MAX {
                    return false;
                }
                if self.goes_on(&next) {
                    return true;
                }
            }
        }
        false
    }

    /// The lists that may be of how the members stand now, and are of no time before.
    fn matching(&self, state: &State) -> Vec<usize> {
        let (members, since) = state.stands.last().expect("the members are founded");
        let may_be = |list: &usize| {
            let shown = &self.shown[*list];
            let is_behind = shown.behind.is_none_or(|change| state.done.contains(&change));
            !shown.own
                && !state.shown.contains_key(list)
                && is_behind
                && shown.members == *members
                && shown.upto > *since
        };
        (0..self.shown.len()).filter(may_be).collect()
    }

    /// Before this the next change is made: what is answered by then is to be true, and what is shown to be explained.
    fn limit(&self, state: &State, left: &[usize], matching: &[usize]) -> Moment {
        let changes = left.iter().filter_map(|at| self.changes[*at].upto);
        let is_open = |list: &usize| {
            !self.shown[*list].own && !state.shown.contains_key(list) && !matching.contains(list)
        };
        let lists = (0..self.shown.len()).filter(is_open).map(|list| self.shown[list].upto);
        changes.chain(lists).min().unwrap_or(Moment { tick: u64::MAX, time: Time::NEVER })
    }

    /// Whether nothing need happen any more.
    fn ends(&mut self, state: &State) -> bool {
        let mut state = state.clone();
        let last = state.stands.len() - 1;
        let matching = self.matching(&state);
        state.shown.extend(matching.into_iter().map(|list| (list, last)));
        let is_missing = |at: &usize| !state.done.contains(at) && self.changes[*at].upto.is_some();
        let missing = (0..self.changes.len()).find(is_missing).map(|at| &self.changes[at]);
        let is_unexplained = |list: &usize| !self.shown[*list].own && !state.shown.contains_key(list);
        let unexplained = (0..self.shown.len()).find(is_unexplained).map(|list| &self.shown[list]);
        let why = match (missing, unexplained) {
            (_, Some(shown)) => {
                format!("nothing explains that call {} shows {:?}", shown.call, shown.members)
            }
            (Some(change), _) => format!("call {} was answered: {:?}", change.call, change.what),
            (None, None) => match self.not_its_own(&state) {
                Some(shown) => format!(
                    "call {} to m{} cannot show {:?} by what it has itself",
                    shown.call, shown.member, shown.members
                ),
                None => return true,
            },
        };
        if self.best.1.is_empty() || state.done.len() > self.best.0 {
            let calls: Vec<usize> = state.done.iter().map(|at| self.changes[*at].call).collect();
            let members = &state.stands[last].0;
            let why = format!("after the changes of the calls {calls:?} there are {members:?}, and {why}");
            self.best = (state.done.len(), why);
        }
        false
    }

    /// A list that is of no time up to its answer, or of one before what the same member had shown.
    fn not_its_own(&self, state: &State) -> Option<&Shown> {
        let mut at_members: BTreeMap<usize, Vec<(Moment, usize)>> = BTreeMap::new();
        let mut shown: Vec<(usize, &Shown)> = self.shown.iter().enumerate().collect();
        shown.sort_by_key(|(_, shown)| shown.asked);
        for (list, shown) in shown {
            let before = at_members.entry(shown.member).or_default();
            let had_shown = before.iter().filter(|(at, _)| *at < shown.asked).map(|(_, number)| *number);
            let least = had_shown.max().unwrap_or(0);
            let mut numbers = least..state.stands.len();
            let is_it = |number: &usize| {
                let (members, since) = &state.stands[*number];
                *members == shown.members && *since < shown.upto
            };
            let number = if shown.own { numbers.find(is_it) } else { state.shown.get(&list).copied() };
            let Some(number) = number else { return Some(shown) };
            before.push((shown.upto, number));
        }
        None
    }
}

impl What {
    /// What becomes of the members; nothing where it does not fit.
    fn make(&self, state: &State) -> Option<Members> {
        let (members, _) = state.stands.last()?;
        let mut made = members.clone();
        match self {
            What::Add { id, peer_urls, learns } => {
                let is_taken =
                    members.values().any(|(urls, _)| urls.iter().any(|url| peer_urls.contains(url)));
                let was_there = state.stands.iter().any(|(before, _)| before.contains_key(id));
                if is_taken || was_there || made.insert(*id, (peer_urls.clone(), *learns)).is_some() {
                    return None;
                }
            }
            What::Remove { id } => {
                made.remove(id)?;
            }
            What::Update { id, peer_urls } => made.get_mut(id)?.0 = peer_urls.clone(),
            What::Promote { id } => {
                let (_, learns) = made.get_mut(id)?;
                if !std::mem::replace(learns, false) {
                    return None;
                }
            }
            What::StandAlone { id } => {
                made.retain(|of, _| of == id);
                made.get_mut(id)?.1 = false;
            }
        }
        Some(made)
    }
}

/// The ids of those who were added, by the URL that they were added with: as an answer tells it, or any list.
fn ids_of(history: &History) -> BTreeMap<String, u64> {
    let mut ids = BTreeMap::new();
    let told = |op: &&Op| op.is_ok() && (is_change(op.method) || op.method == Method::MemberList);
    for op in history.ops.iter().filter(told) {
        for member in members_of(op.method, &op.messages[0]) {
            for url in member.peer_urls {
                ids.entry(url).or_insert(member.id);
            }
        }
    }
    ids
}

/// What a call was to change; nothing where it is no change, or one of a member that nobody ever saw.
fn what_of(op: &Op, ids: &BTreeMap<String, u64>) -> Option<What> {
    const SPEAKS: &str = "the workload sends what can be read";
    let message = op.request.clone();
    match op.method {
        Method::MemberAdd => {
            let proto::MemberAddRequest { peer_urls, is_learner } =
                proto::MemberAddRequest::decode(message).expect(SPEAKS);
            let id = peer_urls.iter().find_map(|url| ids.get(url))?;
            Some(What::Add { id: *id, peer_urls, learns: is_learner })
        }
        Method::MemberRemove => {
            Some(What::Remove { id: proto::MemberRemoveRequest::decode(message).expect(SPEAKS).id })
        }
        Method::MemberPromote => {
            Some(What::Promote { id: proto::MemberPromoteRequest::decode(message).expect(SPEAKS).id })
        }
        Method::MemberUpdate => {
            let proto::MemberUpdateRequest { id, peer_urls } =
                proto::MemberUpdateRequest::decode(message).expect(SPEAKS);
            Some(What::Update { id, peer_urls })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
