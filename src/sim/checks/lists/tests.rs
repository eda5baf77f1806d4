//! Lists that show what the members never were are refused, and no others.

use super::*;
use crate::api::Error;
use crate::sim::boot::Identity;
use crate::sim::history::Known;

/// What clients of members 0 to 2, who founded a cluster, were told.
struct Told(History);

const NEW: u64 = 70;
const URL: &str = "http://new:1";

impl Told {
    fn new() -> Told {
        let members = (0..3).map(Identity::of).collect();
        Told(History::of(Known { members, ..Known::default() }))
    }

    /// A call to a member, and its number; it is answered later, or never.
    fn asks(&mut self, member: usize, method: Method, request: &impl Message) -> usize {
        self.0.invoke(Time(0), 0, member, method, request.encode_to_vec().into());
        self.0.ops.len() - 1
    }

    fn answers(&mut self, call: usize, answer: Result<&[proto::Member], Error>) {
        let returned = self.0.moment(Time(0));
        let op = &mut self.0.ops[call];
        op.returned = Some(returned);
        let members = |members: &[proto::Member]| members.to_vec();
        match (answer, op.method) {
            (Ok(all), Method::MemberAdd) => {
                let reply = proto::MemberAddResponse { members: members(all), ..Default::default() };
                op.messages.push(reply.encode_to_vec().into());
            }
            (Ok(all), _) => {
                let reply = proto::MemberListResponse { members: members(all), ..Default::default() };
                op.messages.push(reply.encode_to_vec().into());
            }
            (Err(error), _) => op.status = (error.code() as u8, error.to_string()),
        }
    }

    fn adds(&mut self, is_learner: bool) -> usize {
        let request = proto::MemberAddRequest { peer_urls: vec![URL.into()], is_learner };
        self.asks(0, Method::MemberAdd, &request)
    }

    fn removes(&mut self, id: u64) -> usize {
        self.asks(0, Method::MemberRemove, &proto::MemberRemoveRequest { id })
    }

    fn promotes(&mut self, id: u64) -> usize {
        self.asks(0, Method::MemberPromote, &proto::MemberPromoteRequest { id })
    }

    fn lists(&mut self, member: usize, linearizable: bool, members: &[proto::Member]) {
        let call = self.asks(member, Method::MemberList, &proto::MemberListRequest { linearizable });
        self.answers(call, Ok(members));
    }

    #[track_caller]
    fn holds(&self) {
        if let Err(failure) = check(&self.0) {
            panic!("{failure:?}");
        }
    }

    /// The call cannot have been told what it was.
    #[track_caller]
    fn fails_at(&self, call: usize) {
        let failure = check(&self.0).expect_err("that could not have been");
        assert!(failure.what.contains(&format!("call {call} ")), "{}", failure.what);
    }
}

fn one(id: u64, url: &str, is_learner: bool) -> proto::Member {
    proto::Member { id, peer_urls: vec![url.into()], is_learner, ..Default::default() }
}

fn founders() -> Vec<proto::Member> {
    (0..3).map(Identity::of).map(|of| one(of.id.0, &of.peer_url, false)).collect()
}

fn with_new(is_learner: bool) -> Vec<proto::Member> {
    founders().into_iter().chain([one(NEW, URL, is_learner)]).collect()
}

#[test]
fn a_change_is_in_effect_from_some_moment_of_its_call_on() {
    let mut told = Told::new();
    told.lists(1, true, &founders());
    let add = told.adds(true);
    told.lists(1, true, &founders());
    told.lists(1, true, &with_new(true));
    told.answers(add, Ok(&with_new(true)));
    told.lists(2, false, &founders());
    let promotion = told.promotes(NEW);
    told.answers(promotion, Ok(&with_new(false)));
    told.lists(2, true, &with_new(false));
    told.holds();
    told.lists(0, true, &with_new(true));
    told.fails_at(7);
}

#[test]
fn what_was_shown_to_all_is_not_taken_back() {
    let mut told = Told::new();
    let add = told.adds(false);
    told.lists(1, true, &with_new(false));
    told.lists(2, true, &founders());
    told.answers(add, Ok(&with_new(false)));
    told.fails_at(2);
}

#[test]
fn what_a_member_has_shown_it_does_not_take_back() {
    let mut told = Told::new();
    let add = told.adds(false);
    told.answers(add, Ok(&with_new(false)));
    told.lists(1, false, &with_new(false));
    told.lists(2, false, &founders());
    told.holds();
    told.lists(1, false, &founders());
    told.fails_at(3);
}

#[test]
fn half_a_change_is_none() {
    let mut told = Told::new();
    let add = told.adds(false);
    told.lists(1, false, &with_new(true));
    told.answers(add, Ok(&with_new(false)));
    told.fails_at(1);
}

#[test]
fn nobody_comes_or_goes_unasked() {
    let mut told = Told::new();
    told.lists(1, false, &founders()[..2]);
    told.fails_at(0);
    let mut told = Told::new();
    told.lists(1, true, &with_new(false));
    told.fails_at(0);
}

#[test]
fn a_change_without_an_outcome_may_be_made_whenever_or_never() {
    let gone = founders()[2].id;
    let mut told = Told::new();
    told.removes(gone);
    told.lists(1, true, &founders());
    told.holds();
    told.lists(1, true, &founders()[..2]);
    told.holds();
    told.lists(1, true, &founders());
    told.fails_at(3);
}

#[test]
fn what_was_refused_is_not_made() {
    let gone = founders()[2].id;
    let mut told = Told::new();
    let removal = told.removes(gone);
    told.answers(removal, Err(Error::Unhealthy));
    told.lists(1, true, &founders());
    told.holds();
    told.lists(1, true, &founders()[..2]);
    told.fails_at(2);
}

#[test]
fn what_was_answered_was_made() {
    let gone = founders()[2].id;
    let mut told = Told::new();
    let removal = told.removes(gone);
    told.answers(removal, Ok(&founders()[..2]));
    told.holds();
    told.lists(1, true, &founders());
    told.fails_at(1);
    // Nor does an answer show the members as they were before.
    let mut told = Told::new();
    let removal = told.removes(gone);
    told.answers(removal, Ok(&founders()));
    told.fails_at(0);
}

#[test]
fn who_was_removed_never_comes_back() {
    let mut told = Told::new();
    let add = told.adds(false);
    told.answers(add, Ok(&with_new(false)));
    let removal = told.removes(NEW);
    told.answers(removal, Ok(&founders()));
    told.holds();
    let again = told.adds(false);
    told.answers(again, Ok(&with_new(false)));
    told.fails_at(2);
}

#[test]
fn two_changes_at_once_are_made_one_after_the_other() {
    let gone = founders()[2].id;
    let mut told = Told::new();
    let (add, removal) = (told.adds(false), told.removes(gone));
    let both: Vec<_> = with_new(false).into_iter().filter(|of| of.id != gone).collect();
    told.lists(1, true, &with_new(false));
    told.answers(removal, Ok(&both));
    told.answers(add, Ok(&both));
    told.holds();
    // One order excludes the other.
    told.lists(1, false, &founders()[..2]);
    told.fails_at(3);
}
