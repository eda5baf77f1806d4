//! Three peers whose messages all arrive: what each call does, and in which order things leave.

use super::*;
use std::collections::VecDeque;

/// Peers 1, 2, … of one group.
pub(super) struct Net {
    pub groups: Vec<Group>,
    /// What is written and not durable, by peer.
    pub writes: Vec<VecDeque<Writes>>,
    pub messages: Vec<Message>,
}

pub(super) fn start(own: u64, voters: &[u64], elections: Elections) -> GroupStart {
    GroupStart { own: id(own), peers: peers(voters, &[]), elections, ..fresh() }
}

impl Net {
    pub fn of(elections: impl Fn(u64) -> Elections) -> Net {
        let voters = [1, 2, 3];
        let groups = voters.map(|own| Group::new(start(own, &voters, elections(own))));
        Net { groups: groups.into(), writes: (0..3).map(|_| VecDeque::new()).collect(), messages: vec![] }
    }

    fn by_owner() -> Net {
        Net::of(|_| Elections::ByOwner)
    }

    pub fn group(&mut self, peer: u64) -> &mut Group {
        &mut self.groups[peer as usize - 1]
    }

    /// The end of a turn at a peer: what it wants written is not durable yet.
    pub fn turn(&mut self, peer: u64) {
        let at = peer as usize - 1;
        self.writes[at].extend(self.groups[at].ready());
        self.messages.extend(self.groups[at].take_messages());
    }

    /// All that a peer has written is durable.
    pub fn durable(&mut self, peer: u64) {
        let at = peer as usize - 1;
        for writes in self.writes[at].drain(..) {
            self.groups[at].persisted(writes.number);
        }
        self.messages.extend(self.groups[at].take_messages());
    }

    pub fn deliver(&mut self, only: impl Fn(&Message) -> bool) {
        for message in std::mem::take(&mut self.messages) {
            if only(&message) {
                self.group(message.to.get()).step(message).unwrap();
            }
        }
    }

    /// Until nothing happens any more, without the peers that are cut off.
    pub fn settle(&mut self, cut_off: &[u64]) {
        for _ in 0..100 {
            for peer in 1..=3 {
                self.turn(peer);
                self.durable(peer);
                self.turn(peer);
                self.durable(peer);
            }
            let is_cut = |id: RaftId| cut_off.contains(&id.get());
            self.deliver(|message| !is_cut(message.from) && !is_cut(message.to));
            if self.groups.iter().all(|group| !group.has_ready()) && self.messages.is_empty() {
                return;
            }
        }
        panic!("the peers do not come to rest");
    }

    pub fn led_by(leader: u64) -> Net {
        let mut net = Net::by_owner();
        assert!(!net.group(leader).campaign(), "votes take their time");
        assert_eq!(net.group(leader).role(), Role::PreCandidate);
        net.settle(&[]);
        assert!(net.group(leader).leads());
        net
    }
}

fn committed(net: &Net) -> Vec<u64> {
    net.groups.iter().map(|group| group.committed().0).collect()
}

#[test]
fn the_owner_elects_and_all_commit() {
    let mut net = Net::led_by(2);
    assert_eq!(net.groups.iter().map(|group| group.leader()).collect::<Vec<_>>(), [Some(id(2)); 3]);
    let at = net.group(2).propose(payload(1)).unwrap();
    assert_eq!(net.group(1).propose(payload(1)), Err(Refused), "a follower forwards nothing");
    net.settle(&[]);
    assert_eq!(net.group(2).committed(), at.index);
    assert!(net.group(1).committed() < at.index, "commits are not sent on their own");
    let far = Position { index: at.index.next(), ..at };
    let other = Position { term: Term(9), ..at };
    assert_eq!([far, other, at, at].map(|at| net.group(1).commit_to(at)), [false, false, true, true]);
    assert!(net.group(2).commit_to(at), "a leader knows it from itself");
    net.group(2).ping();
    net.settle(&[]);
    assert_eq!(committed(&net), [at.index.0; 3]);
    let entries: Vec<_> = (1..=3).map(|peer| net.group(peer).entry(at.index).unwrap()).collect();
    assert!(entries.iter().all(|entry| entry.content == Content::Data(payload(1))), "{entries:?}");
    let progress: Vec<_> = net.group(2).progress().collect();
    assert!(progress.iter().all(|(_, matched, _)| *matched == at.index), "{progress:?}");
    assert_eq!(net.group(1).progress().count(), 0);
}

fn kinds(messages: &[Message]) -> Vec<&'static str> {
    let kind = |message: &Message| match message.body {
        MessageBody::Append { .. } => "append",
        MessageBody::AppendAnswer { .. } => "append answer",
        MessageBody::Vote { .. } => "vote",
        MessageBody::VoteAnswer { .. } => "vote answer",
        MessageBody::Heartbeat { .. } => "heartbeat",
        MessageBody::HeartbeatAnswer { .. } => "heartbeat answer",
        MessageBody::TimeoutNow => "timeout now",
    };
    messages.iter().map(kind).collect()
}

/// A leader's appends leave beside its write; an acknowledgement waits for its Ready and all before; a heartbeat's
/// answer waits for the term alone.
#[test]
fn what_a_message_promises_is_durable_before_it_leaves() {
    let mut net = Net::led_by(1);
    net.group(1).propose(payload(1)).unwrap();
    net.turn(1);
    assert_eq!(kinds(&net.messages), ["append"; 2]);
    let append = net.messages.iter().find(|message| message.to == id(2)).cloned().unwrap();
    net.deliver(|message| message.to == id(2));
    net.turn(2);
    assert!(net.messages.is_empty(), "the entry is not durable");
    // The same once more: a Ready without entries, whose answer acknowledges what the first one writes.
    net.group(2).step(append).unwrap();
    net.group(1).ping();
    net.turn(1);
    net.deliver(|message| message.to == id(2));
    net.turn(2);
    assert_eq!(kinds(&net.messages), ["heartbeat answer"]);
    let first = net.writes[1].pop_front().unwrap().number;
    net.group(2).persisted(first);
    assert_eq!(kinds(&net.group(2).take_messages()), ["append answer"]);
    net.durable(2);
    assert_eq!(kinds(&net.messages), ["heartbeat answer", "append answer"]);
}

/// A voter and a learner: the candidate wins in the call, and its term is told to nobody before it is durable.
#[test]
fn a_term_is_durable_before_a_learner_hears_of_it() {
    let peers = peers(&[1], &[2]);
    let mut group = Group::new(GroupStart { own: id(1), peers, ..fresh() });
    assert!(group.campaign());
    group.propose(payload(1)).unwrap();
    let first = group.ready().unwrap();
    assert!(group.take_messages().is_empty());
    group.propose(payload(2)).unwrap();
    group.ping();
    let second = group.ready().unwrap();
    assert!(group.take_messages().is_empty(), "nor with what a later turn says");
    group.persisted(first.number);
    assert_eq!(kinds(&group.take_messages()), ["append"]);
    group.persisted(second.number);
    assert_eq!(kinds(&group.take_messages()), ["heartbeat"]);
}

#[test]
fn a_round_is_confirmed_by_a_quorum_and_dropped_with_the_term() {
    let round = |number| RoundId { boot: 7, number };
    let mut net = Net::led_by(1);
    assert!(net.group(1).begin_round(round(1)));
    net.turn(1);
    assert_eq!(net.group(1).take_rounds(), []);
    net.settle(&[3]);
    assert_eq!(net.group(1).take_rounds(), [round(1)]);
    assert!(net.group(1).begin_round(round(2)));
    net.settle(&[2, 3]);
    assert_eq!(net.group(1).take_rounds(), []);
    net.group(1).ping();
    net.settle(&[]);
    assert!(net.group(1).begin_round(round(3)));
    net.settle(&[]);
    net.group(2).campaign();
    net.settle(&[]);
    assert!(net.group(2).leads());
    assert_eq!(net.group(1).take_rounds(), [], "what was confirmed and not taken is of another term");
    assert!(!net.group(1).begin_round(round(4)));
}

/// Who was told so with an entry behind the change has it in its log.
#[test]
fn peers_are_sure_once_a_quorum_knows_durably_that_their_change_is_committed() {
    let mut net = Net::led_by(1);
    assert!(net.group(1).propose_peers(ConfChange::Remove(3)));
    net.settle(&[]);
    assert!(!net.group(1).has_pending_change(), "it has taken effect");
    assert!(!net.group(1).peers_are_sure(), "the others have not been told so");
    net.group(1).propose_barrier();
    assert!(net.group(1).has_barrier());
    net.settle(&[2]);
    assert!(!net.group(1).peers_are_sure(), "nobody has the entry but its leader");
    net.group(1).ping();
    net.settle(&[]);
    assert!(net.group(1).peers_are_sure());
    assert!(net.group(1).propose_peers(ConfChange::AddLearner(3)));
    net.settle(&[]);
    assert!(!net.group(1).peers_are_sure(), "of another change nobody knows");
}

#[test]
fn a_lone_voter_confirms_its_rounds_itself() {
    let mut group = Group::new(fresh());
    group.campaign();
    let round = RoundId { boot: 1, number: 1 };
    assert!(!group.begin_round(round), "nothing of the term is committed");
    settle(&mut group);
    assert!(group.begin_round(round));
    assert_eq!(group.take_rounds(), [round]);
}

#[test]
#[should_panic = "no round is begun twice"]
fn no_round_is_used_twice() {
    let mut group = Group::new(fresh());
    group.campaign();
    settle(&mut group);
    let round = RoundId { boot: 1, number: 1 };
    group.begin_round(round);
    group.begin_round(round);
}

#[test]
fn leadership_is_handed_over_or_kept() {
    let mut net = Net::led_by(1);
    assert!(!net.group(2).transfer_leader(id(3)), "only who leads hands over");
    assert!(!net.group(1).transfer_leader(id(9)) && !net.group(1).transfer_leader(id(1)));
    assert!(net.group(1).transfer_leader(id(3)) && net.group(1).is_transferring());
    assert_eq!(net.group(1).propose(payload(1)), Err(Refused));
    net.messages.clear();
    net.settle(&[3]);
    assert!(net.group(1).is_transferring(), "what asked the other to stand was lost");
    net.group(1).abort_transfer();
    net.group(1).propose(payload(1)).unwrap();
    net.group(1).ping();
    net.settle(&[]);
    assert!(net.group(1).transfer_leader(id(3)));
    net.settle(&[]);
    assert!(net.group(3).leads() && !net.group(1).leads());
    net.group(3).propose(payload(2)).unwrap();
    net.settle(&[]);
    let last = net.group(3).last_index();
    assert_eq!(net.group(3).committed(), last);
}

/// Nothing of time in a group that its owner elects: an old leader that nobody told of another finds out with the
/// first message that it sends.
#[test]
fn a_deaf_leader_steps_down_once_it_speaks() {
    let mut net = Net::led_by(1);
    net.group(2).campaign();
    net.settle(&[1]);
    assert!(net.group(1).leads() && net.group(2).leads());
    assert!(net.group(2).term() > net.group(1).term());
    net.group(1).ping();
    net.settle(&[]);
    assert!(!net.group(1).leads() && net.group(2).leads());
}

fn timed(own: u64) -> Elections {
    Elections::ByTimeout { election_ticks: 10, rng: Rng::new(own) }
}

#[test]
fn a_leader_is_elected_by_time_and_keeps_its_lease() {
    let mut net = Net::of(timed);
    let mut ticks = 0;
    while !net.groups.iter().any(Group::leads) {
        net.groups.iter_mut().for_each(|group| group.tick(true));
        net.settle(&[]);
        ticks += 1;
    }
    assert!((10..20).contains(&ticks), "{ticks}");
    let leader = net.groups.iter().position(Group::leads).unwrap() as u64 + 1;
    let [other, third] = [1, 2, 3].into_iter().filter(|peer| *peer != leader).collect::<Vec<_>>()[..] else {
        unreachable!()
    };
    net.group(other).campaign();
    net.settle(&[]);
    assert!(net.group(leader).leads(), "while a leader is heard nobody gets a vote");
    net.group(leader).ping();
    net.settle(&[]);
    // Its connection breaks at both others.
    net.group(other).forget_leader();
    net.group(third).forget_leader();
    assert_eq!(net.group(other).leader(), None);
    net.settle(&[leader]);
    net.group(other).campaign();
    net.settle(&[leader]);
    assert!(net.group(other).leads());
    // Who hears of no quorum gives up by itself.
    for _ in 0..20 {
        net.group(leader).tick(true);
        net.settle(&[leader]);
    }
    assert!(!net.group(leader).leads());
}

#[test]
fn who_may_not_stand_finds_that_no_leader_is_heard_and_votes_for_others() {
    let mut net = Net::of(timed);
    net.group(1).campaign();
    net.settle(&[]);
    assert!(net.group(1).leads());
    let votes = |net: &mut Net| {
        net.group(2).forget_leader();
        net.group(2).campaign();
        net.settle(&[1]);
        net.group(2).leads()
    };
    assert!(!votes(&mut net), "it still believes in the leader");
    for _ in 0..50 {
        net.group(3).tick(false);
        assert_eq!(net.group(3).role(), Role::Follower);
    }
    assert!(votes(&mut net));
}

/// With a write in flight nobody stands: who wins has all of its log durable.
#[test]
fn no_election_before_the_log_is_durable() {
    let mut group = Group::new(start(1, &[1], timed(1)));
    assert!(group.campaign());
    let first = group.ready().unwrap();
    group.step_down();
    group.ready().unwrap();
    for _ in 0..50 {
        assert!(!group.campaign());
        group.tick(true);
        assert_eq!(group.role(), Role::Follower);
    }
    group.persisted(first.number + 1);
    settle(&mut group);
    group.tick(true);
    assert!(group.leads());
}

/// A large entry and many small ones: no message is larger than it may be, and all arrive.
#[test]
fn appends_are_cut_by_the_bytes_of_their_payloads() {
    let mut net = Net::led_by(1);
    let sizes: Vec<usize> = (0..40).map(|n| if n == 20 { 1 << 20 } else { 1 << (n % 18) }).collect();
    for size in &sizes {
        net.group(1).propose(Payload::copy_of(&vec![1; *size])).unwrap();
    }
    net.turn(1);
    for message in &net.messages {
        let MessageBody::Append { entries, .. } = &message.body else { continue };
        let bytes = entries.iter().map(|entry| entry.content.payload().unwrap().bytes().len()).sum::<usize>();
        assert!(bytes <= crate::limits::APPEND_BYTES_MAX || entries.len() == 1, "{bytes}");
    }
    assert!(net.messages.len() > 6, "{}", net.messages.len());
    net.settle(&[]);
    let last = net.group(1).last_index();
    assert_eq!(net.group(1).committed(), last);
    assert_eq!(net.groups.iter().map(|group| group.last_index()).collect::<Vec<_>>(), [last; 3]);
    let shared = |peer: usize| net.groups[peer].entry(last).unwrap().content;
    let bytes = |content: Content| content.payload().unwrap().bytes().as_ptr();
    assert_eq!(bytes(shared(0)), bytes(shared(2)), "no payload is copied");
}

/// A follower that lacks what was let go gets it from the log, and one that lacks what the log let go stays where
/// it is.
#[test]
fn who_lags_is_served_from_memory_from_the_log_or_not_at_all() {
    let mut net = Net::led_by(1);
    let mut log = vec![];
    for n in 0..40 {
        net.group(1).propose(Payload::copy_of(&vec![n; 100 << 10])).unwrap();
        net.turn(1);
        log.extend(net.writes[0].iter().flat_map(|writes| writes.entries.clone()));
        net.settle(&[3]);
    }
    let last = net.group(1).last_index();
    let own = net.group(1);
    assert_eq!(own.applied(), last);
    own.release(last);
    assert!(own.entry(last).is_some(), "a follower lacks it");
    assert!(own.entry(Index(10)).is_none(), "what is held for followers is bounded");
    own.ping();
    net.settle(&[]);
    let wanted = net.group(1).wanted_entries()[0];
    assert_eq!((wanted.peer, wanted.from), (id(3), Index(3)));
    assert!(net.group(1).entry(wanted.upto).is_none() && net.group(1).entry(wanted.upto.next()).is_some());

    let mut given = 0;
    while let Some(wanted) = net.group(1).wanted_entries().first().copied() {
        let before = Position { index: Index(wanted.from.0 - 1), term: Term(2) };
        let found = log.iter().filter(|entry| (wanted.from..=wanted.upto).contains(&entry.index));
        net.group(1).give_entries(before, found.take(4).cloned().collect());
        given += 1;
        net.settle(&[]);
    }
    assert!(given > 5, "{given}");
    assert_eq!(net.group(3).last_index(), last);
    assert_eq!(net.group(3).entry(Index(9)).unwrap(), *log.iter().find(|e| e.index == Index(9)).unwrap());
    net.group(1).release(last);
    assert!(net.group(1).entry(last).is_none(), "nobody lacks it any more");
}

/// Entries that hold next to nothing take memory all the same.
#[test]
fn of_small_entries_no_more_is_held_either() {
    let mut net = Net::led_by(1);
    net.group(1).hold_for_followers(8_000);
    for _ in 0..400 {
        net.group(1).propose(payload(1)).unwrap();
    }
    net.settle(&[3]);
    let last = net.group(1).last_index();
    net.group(1).release(last);
    assert!(net.group(1).entry(Index(last.0 - 10)).is_some(), "a follower lacks it");
    assert!(net.group(1).entry(Index(last.0 - 120)).is_none(), "what is held is bounded");
}

#[test]
fn who_lacks_what_the_log_let_go_is_passed_over() {
    let mut net = Net::led_by(1);
    for n in 0..40 {
        net.group(1).propose(Payload::copy_of(&vec![n; 100 << 10])).unwrap();
        net.settle(&[3]);
    }
    let last = net.group(1).last_index();
    net.group(1).release(last);
    net.group(1).log_begins_after(Index(20));
    net.group(1).ping();
    net.settle(&[]);
    assert_eq!(net.group(1).wanted_entries(), []);
    let at = net.group(1).propose(payload(1)).unwrap();
    net.settle(&[]);
    assert_eq!(net.group(1).committed(), at.index);
    assert_eq!(net.group(3).last_index(), Index(2));
}

/// A crash can keep entries and lose the hard state that was written behind them.
#[test]
fn a_group_starts_in_the_term_of_its_last_entry() {
    let last = GroupEntry { index: Index(2), term: Term(5), content: Content::Empty };
    let hard_state = HardState { vote: Some(id(3)), ..fresh().hard_state };
    let from = start(1, &[1, 2, 3], Elections::ByOwner);
    let mut group = Group::new(GroupStart { hard_state, entries: vec![last], ..from });
    assert_eq!((group.term(), group.hard_state().vote), (Term(5), None), "nobody was voted for in it");
    group.campaign();
    let writes = group.ready().unwrap();
    group.persisted(writes.number);
    let mut other = Group::new(start(2, &[1, 2, 3], Elections::ByOwner));
    let asks = group.take_messages().into_iter().find(|message| message.to == id(2)).unwrap();
    assert_eq!(asks.term, Term(6));
    other.step(asks).unwrap();
}
