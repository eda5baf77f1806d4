//! Changes of the members, as clients ask for them: whether one may begin, and when it is done.
//!
//! **The question.** etcd lets several begin at once, and never answers those that raft drops. A leader may be lost in
//! the middle, or be the one that is removed. Who is told what?
//!
//! **The rule.** One change that a client has asked for is under way at a time; the others wait for their turn, in bounded
//! number and time. It is checked when its turn comes, in etcd's order. It begins with an intent in the control log, and
//! is answered when the control state says that it is done, whoever led it to its end. Before its intent is in effect
//! it ends with the epoch, as all that is under way does; from then on its outcome is known, and the client waits for it.
//!
//! **Why not otherwise.** To answer with the intent would let an operator end a process whose vote is still counted.

use super::controls::{Asked, Asking};
use super::{Leader, Turn};
use crate::api::{self, Answer, Code, Error, Member, Reply, Request};
use crate::config::{Url, added_member_id};
use crate::control::founder_raft_ids;
use crate::io::{CallId, CallMail, ControlRequest, Level, Output};
use crate::limits::{MEMBER_HEALTHY_SECS, MEMBERS_MAX};
use crate::record::{ControlEntry, Intent, MemberChange, MemberRecord};
use crate::types::{Duration, MemberId, Time};
use std::collections::{BTreeSet, VecDeque};

#[derive(Debug, Default)]
pub(super) struct MemberChanges {
    waiting: VecDeque<Asked>,
    under_way: Option<Changing>,
    /// What this epoch has decided to be done.
    ended: BTreeSet<(MemberId, MemberChange)>,
    /// That this member, which was to go on alone, is the only one.
    has_said_alone: bool,
}

/// A change that a client waits for.
#[derive(Debug)]
struct Changing {
    by: Asking,
    member: MemberId,
    of: What,
    /// Its intent is in effect.
    has_begun: bool,
}

#[derive(Debug, PartialEq)]
enum What {
    Change(MemberChange),
    Urls(Vec<String>),
}

impl Changing {
    /// Whether the control state has it begun, and done.
    fn stands(&self, turn: &Turn) -> (bool, bool) {
        let (record, change) = (turn.control.member(self.member), turn.control.member_change_of(self.member));
        let is_removed = turn.control.is_removed(self.member);
        match &self.of {
            What::Change(MemberChange::Adding) => {
                let begun = record.is_some() || is_removed;
                (begun, begun && change != Some(MemberChange::Adding))
            }
            What::Change(MemberChange::Promoting) => {
                let begun = is_removed || record.is_some_and(|record| !record.is_learner);
                (begun, begun && change != Some(MemberChange::Promoting))
            }
            What::Change(MemberChange::Removing) => {
                (is_removed || change == Some(MemberChange::Removing), is_removed)
            }
            What::Urls(urls) => {
                let is_so = record.is_some_and(|record| record.peer_urls == *urls);
                (is_so, is_so)
            }
        }
    }

    fn answer(&self, members: Vec<Member>) -> Answer {
        match self.of {
            What::Change(MemberChange::Adding) => {
                let added = members.iter().find(|member| member.id == self.member).cloned();
                added.map(|member| Reply::MemberAdded { member, members }).ok_or(Error::Timeout)
            }
            _ => Ok(Reply::MemberList { members }),
        }
    }
}

impl Leader {
    /// A client asks for a change of the members.
    pub(super) fn ask_member_change(&mut self, turn: &mut Turn, asked: Asked) {
        assert!(!asked.by.own, "clients ask for changes of the members");
        let waiting = &mut self.members.waiting;
        if waiting.len() >= turn.settings.bounds.control_waiting_max {
            turn.counters.paths.refused_control += 1;
            return turn.answer(asked.by.call, Err(Error::TooManyRequests));
        }
        turn.counters.paths.member_change_waited += u64::from(self.members.under_way.is_some());
        waiting.push_back(asked);
    }

    /// The epoch is over. Whoever has seen an intent take effect waits for its end, whoever leads.
    pub(super) fn end_member_changes(&mut self) {
        self.members.waiting.clear();
        self.members.ended.clear();
        self.members.under_way.take_if(|changing| !changing.has_begun);
    }

    /// Follows what is under way, and begins the next change. So many learners are in sync with this leader in all groups.
    pub fn drive_member_changes(&mut self, turn: &mut Turn, in_sync: &BTreeSet<MemberId>) {
        self.follow_member_change(turn);
        if !turn.epoch_state.takes_writes() || *turn.is_to_be_alone {
            return;
        }
        if turn.settings.stands_alone && !std::mem::replace(&mut self.members.has_said_alone, true) {
            assert!(turn.control.member(turn.settings.member).is_some(), "who goes on alone is a member");
            turn.out.push(Output::StandsAlone);
        }
        while self.members.under_way.is_none() && !has_open_change(turn) {
            let Some(asked) = self.members.waiting.pop_front() else { return };
            assert!(turn.epoch_state.leads(), "only who leads begins a change");
            self.begin_member_change(turn, asked, in_sync);
        }
    }

    /// This member is none any more. Who has asked for that is told so.
    pub fn answer_removed(&mut self, turn: &mut Turn) {
        let own = turn.settings.member;
        let is_own = |of: &mut Changing| (of.member, &of.of) == (own, &What::Change(MemberChange::Removing));
        if let Some(changing) = self.members.under_way.take_if(is_own) {
            let mut members = turn.control.members();
            members.retain(|member| member.id != own);
            tell(turn, changing.by.call, Ok(Reply::MemberList { members }));
        }
    }

    /// Nobody waits any longer for these: their calls fail where they were made.
    pub(super) fn drop_late_member_changes(&mut self, now: Time) {
        self.members.waiting.retain(|asked| asked.by.until > now);
    }

    pub(super) fn has_waiting_change(&self) -> bool {
        !self.members.waiting.is_empty()
    }

    /// Whether a change waits that could begin.
    pub fn may_begin_change(&self, turn: &Turn) -> bool {
        let waits = self.has_waiting_change() && turn.epoch_state.takes_writes() && !*turn.is_to_be_alone;
        waits && self.members.under_way.is_none() && !has_open_change(turn)
    }

    fn follow_member_change(&mut self, turn: &mut Turn) {
        let Some(mut changing) = self.members.under_way.take_if(|of| of.by.until > turn.now) else {
            self.members.under_way = None; // Its client has been told that it has timed out.
            return;
        };
        let (has_begun, is_done) = changing.stands(turn);
        assert!(has_begun || !is_done, "what is done has begun: {changing:?}");
        assert!(has_begun || !changing.has_begun, "an intent is not taken back: {changing:?}");
        if is_done {
            let answer = changing.answer(turn.control.members());
            return match turn.epoch_state.leads() {
                true => self.hold_read(turn, changing.by.call, |_| answer),
                false => tell(turn, changing.by.call, answer),
            };
        }
        if has_begun && !std::mem::replace(&mut changing.has_begun, true) {
            turn.send(changing.by.call.reactor, CallMail::Outlives { call: changing.by.call });
        }
        self.members.under_way = Some(changing);
    }

    fn begin_member_change(&mut self, turn: &mut Turn, asked: Asked, in_sync: &BTreeSet<MemberId>) {
        let Asked { by, request: ControlRequest::Client(request) } = asked else {
            unreachable!("clients ask for changes of members")
        };
        assert!(self.members.under_way.is_none(), "one change that clients ask for is under way");
        if by.until <= turn.now {
            return turn.answer(by.call, Err(Error::Timeout));
        }
        match decide(turn, &request, in_sync) {
            Ok((member, of, control)) => {
                self.members.under_way = Some(Changing { by, member, of, has_begun: false });
                self.decide_until(turn, control, None, by.until);
            }
            Err(error) => self.refuse(turn, by.call, error),
        }
    }

    /// Others are lost for ever: that this member is the only one goes before all changes that clients ask for.
    pub(super) fn begin_alone(&mut self, turn: &mut Turn) {
        let member = turn.settings.member;
        if !*turn.is_to_be_alone {
            return;
        }
        if turn.control.member(member).is_none() {
            let own = member.hex();
            return turn.halt(format!(
                "--force-new-cluster: member {own} is none of the cluster that its data are of"
            ));
        }
        self.decide_control(turn, ControlEntry::StandAlone { member: member.0 }, None);
    }

    /// Every group has the peers that a change wants: that is entered.
    pub fn on_peered(&mut self, turn: &mut Turn, member: MemberId, change: MemberChange) {
        let is_under_way = turn.control.member_change_of(member) == Some(change);
        if !turn.epoch_state.leads() || !is_under_way || !self.members.ended.insert((member, change)) {
            return;
        }
        assert!(turn.control.member(member).is_some(), "a change that is under way is that of a member");
        self.decide_control(turn, ControlEntry::IntentDone { member: member.0, change }, None);
    }

    /// A change takes effect where this member leads, or does not.
    pub(super) fn note_member_change(&self, turn: &mut Turn, change: &ControlEntry) {
        let paths = &mut turn.counters.paths;
        let its = ("member-id", "member-peer-urls");
        // What is done has etcd's words and names.
        let (message, (id, of), member) = match change {
            ControlEntry::Intent(Intent::Adding(member)) => ("adding a member", its, member.id()),
            ControlEntry::Intent(Intent::Promoting { member }) => {
                ("promoting a member", its, MemberId(*member))
            }
            ControlEntry::Intent(Intent::Removing { member }) => {
                ("removing a member", its, MemberId(*member))
            }
            ControlEntry::IntentDone { member, change } => {
                let (message, names, count) = match change {
                    MemberChange::Adding => {
                        let names = ("added-peer-id", "added-peer-peer-urls");
                        ("added member", names, &mut paths.member_added)
                    }
                    MemberChange::Promoting => ("promote member", its, &mut paths.member_promoted),
                    MemberChange::Removing => {
                        let names = ("removed-remote-peer-id", "removed-remote-peer-urls");
                        ("removed member", names, &mut paths.member_removed)
                    }
                };
                *count += u64::from(self.serves);
                (message, names, MemberId(*member))
            }
            ControlEntry::MemberUrls { member, .. } => {
                let names = ("updated-remote-peer-id", "updated-remote-peer-urls");
                ("updated member", names, MemberId(*member))
            }
            ControlEntry::StandAlone { member } => ("removed all other members", its, MemberId(*member)),
            _ => return,
        };
        let urls = turn.control.member(member).map(|record| record.peer_urls.join(",")).unwrap_or_default();
        let own = turn.settings.member.hex();
        let fields = [("local-member-id", own.into()), (id, member.hex().into()), (of, urls.into())];
        turn.log_line(Level::Info, message, fields);
    }
}

/// Answers what has outlived its epoch.
fn tell(turn: &mut Turn, call: CallId, answer: Answer) {
    turn.send(call.reactor, CallMail::Changed { call, answer });
}

/// Whether a change is under way behind which others wait. A member that is to vote may take its time until it has all.
fn has_open_change(turn: &Turn) -> bool {
    turn.control.member_changes().any(|(_, change)| change != MemberChange::Promoting)
}

/// What a change comes to, or why it may not be.
fn decide(
    turn: &Turn,
    request: &Request,
    in_sync: &BTreeSet<MemberId>,
) -> Result<(MemberId, What, ControlEntry), Error> {
    match request {
        Request::MemberAdd { peer_urls, is_learner } => {
            let member = decide_adding(turn, peer_urls, *is_learner)?;
            let intent = Intent::Adding(Box::new(member.clone()));
            Ok((member.id(), What::Change(MemberChange::Adding), ControlEntry::Intent(intent)))
        }
        Request::MemberRemove { member } => {
            check_removing(turn, *member)?;
            let intent = Intent::Removing { member: member.0 };
            Ok((*member, What::Change(MemberChange::Removing), ControlEntry::Intent(intent)))
        }
        Request::MemberPromote { member } => {
            check_promoting(turn, *member, in_sync)?;
            let intent = Intent::Promoting { member: member.0 };
            Ok((*member, What::Change(MemberChange::Promoting), ControlEntry::Intent(intent)))
        }
        Request::MemberUpdate { member, peer_urls } => {
            stands(turn, *member).ok_or(Error::MemberNotFound)?;
            let peer_urls = texts(&api::peer_urls(peer_urls)?);
            check_urls(turn, &peer_urls, Some(*member))?;
            let control = ControlEntry::MemberUrls { member: member.0, peer_urls: peer_urls.clone() };
            Ok((*member, What::Urls(peer_urls), control))
        }
        _ => unreachable!("no change of the members: {request:?}"),
    }
}

/// The member as clients know it: one that leaves is none.
fn stands(turn: &Turn, id: MemberId) -> Option<&MemberRecord> {
    turn.control.member(id).filter(|_| !turn.control.leaves(id))
}

/// Those that vote, as clients know them.
fn voters(turn: &Turn) -> Vec<&MemberRecord> {
    let members = turn.control.records().filter(|member| !turn.control.leaves(member.id()));
    members.filter(|member| !member.is_learner).collect()
}

fn is_started(member: &&&MemberRecord) -> bool {
    !member.name.is_empty()
}

/// Whether the member has been connected for as long as etcd asks for.
fn is_healthy(turn: &Turn, id: MemberId) -> bool {
    let healthy = Duration::from_secs(MEMBER_HEALTHY_SECS);
    id == turn.settings.member
        || turn.connected.get(&id).is_some_and(|since| turn.now.since(*since) >= healthy)
}

fn healthy_voters(turn: &Turn) -> usize {
    voters(turn).iter().filter(|member| is_healthy(turn, member.id())).count()
}

fn decide_adding(turn: &Turn, peer_urls: &[String], is_learner: bool) -> Result<MemberRecord, Error> {
    let voters = voters(turn);
    if turn.settings.strict_reconfig_check {
        let (count, started) = (voters.len() + 1, voters.iter().filter(is_started).count());
        let restores = started == 1 && count == 2;
        if !is_learner && !restores && started < count / 2 + 1 {
            return Err(Error::NotEnoughStarted);
        }
        if voters.len() > 1 && healthy_voters(turn) < count / 2 + 1 {
            return Err(Error::Unhealthy);
        }
    }
    let urls = api::peer_urls(peer_urls)?;
    let peer_urls = texts(&urls);
    check_urls(turn, &peer_urls, None)?;
    if turn.control.records().count() >= MEMBERS_MAX {
        let text = format!("braid: a cluster has at most {MEMBERS_MAX} members");
        return Err(Error::Other { code: Code::FailedPrecondition, text });
    }
    let learners = turn.control.records().filter(|member| member.is_learner).count();
    if is_learner && learners >= turn.settings.max_learners {
        return Err(Error::TooManyLearners);
    }
    let is_taken = |id: &MemberId| turn.control.member(*id).is_some() || turn.control.is_removed(*id);
    // An id is that of the second in which it was made.
    let mut ids = (turn.wall_secs..).map(|secs| added_member_id(&urls, secs));
    let id = ids.find(|id| !is_taken(id)).expect("some second's id is free");
    Ok(MemberRecord {
        id: id.0,
        directory: 0,
        raft_ids: founder_raft_ids(turn.settings.cluster, id),
        name: String::new(),
        peer_urls,
        client_urls: vec![],
        is_learner,
    })
}

fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(ToString::to_string).collect()
}

/// No other member has one of these addresses, as text.
fn check_urls(turn: &Turn, peer_urls: &[String], of: Option<MemberId>) -> Result<(), Error> {
    let mut others = turn.control.records().filter(|member| Some(member.id()) != of);
    let is_taken = |member: &MemberRecord| member.peer_urls.iter().any(|url| peer_urls.contains(url));
    if others.any(is_taken) { Err(Error::PeerUrlExists) } else { Ok(()) }
}

fn check_removing(turn: &Turn, id: MemberId) -> Result<(), Error> {
    let voters = voters(turn);
    let is_learner = stands(turn, id).is_some_and(|member| member.is_learner);
    let others: Vec<&&MemberRecord> = voters.iter().filter(|member| member.id() != id).collect();
    if others.is_empty() && !is_learner {
        return Err(Error::NotEnoughStarted); // A cluster has a voter.
    }
    if turn.settings.strict_reconfig_check && !is_learner {
        let started = others.iter().filter(|member| !member.name.is_empty()).count();
        if started < others.len() / 2 + 1 {
            return Err(Error::NotEnoughStarted);
        }
        let is_active = id == turn.settings.member || turn.connected.contains_key(&id);
        if is_active && stands(turn, id).is_some() {
            let left = healthy_voters(turn).saturating_sub(1);
            if left < 1 + (voters.len() - 1) / 2 {
                return Err(Error::Unhealthy);
            }
        }
    }
    stands(turn, id).map(|_| ()).ok_or(Error::MemberNotFound)
}

fn check_promoting(turn: &Turn, id: MemberId, in_sync: &BTreeSet<MemberId>) -> Result<(), Error> {
    let member = stands(turn, id).ok_or(Error::MemberNotFound)?;
    if !member.is_learner {
        return Err(Error::NotLearner);
    }
    if !in_sync.contains(&id) {
        return Err(Error::LearnerNotReady);
    }
    let voters = voters(turn);
    let (count, started) = (voters.len() + 1, voters.iter().filter(is_started).count() + 1);
    if turn.settings.strict_reconfig_check && started < count / 2 + 1 {
        return Err(Error::NotEnoughStarted);
    }
    Ok(())
}
