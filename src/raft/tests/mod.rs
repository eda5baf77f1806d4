mod bad;
mod groups;
mod three;

use super::*;
use crate::record::{ControlEntry, Entry, EpochRecord};
use crate::stdx::Rng;
use ::raft::eraftpb;

impl Group {
    /// The entry at an index that was not released.
    fn entry(&self, index: Index) -> Option<GroupEntry> {
        self.node.store().entry(index)
    }

    /// As if so much had been let go that nothing could be held for followers.
    fn hold_nothing(&mut self) {
        if self.node.raft.msgs.is_empty() {
            let applied = self.applied();
            self.node.mut_store().release(applied, applied, usize::MAX);
        }
    }

    /// As a leader will propose a change of peers.
    pub(crate) fn propose_conf_change(&mut self, change: ConfChange) -> Index {
        let reference = self.node.mut_store().keep(Payload::of(&Entry::ConfChange(change)));
        let proposed = self.node.propose_conf_change(reference.to_vec(), content::to_raft(change));
        proposed.expect("the group leads");
        self.last_index()
    }

    /// Another member leads in a term and appends behind `after`; what stood there is replaced.
    pub(crate) fn appended_by_another(
        &mut self,
        after: Position,
        term: Term,
        payloads: Vec<Payload>,
        commit: Index,
    ) {
        let me = self.node.raft.id;
        let entries = (after.index.0 + 1..).zip(payloads).map(|(index, payload)| eraftpb::Entry {
            index,
            term: term.0,
            data: self.node.mut_store().keep(payload).to_vec(),
            ..eraftpb::Entry::default()
        });
        let mut message = eraftpb::Message {
            from: me + 1,
            to: me,
            term: term.0,
            index: after.index.0,
            log_term: after.term.0,
            entries: entries.collect(),
            commit: commit.0,
            ..eraftpb::Message::default()
        };
        message.set_msg_type(eraftpb::MessageType::MsgAppend);
        self.node.step(message).expect("a leader's message is taken");
    }
}

fn payload(n: u64) -> Payload {
    let epoch = EpochRecord { term: 1, attempt: 1 };
    Payload::of(&Entry::Control { epoch, settled: 1, control: ControlEntry::Compact { revision: n } })
}

fn fresh() -> GroupStart {
    let hard_state = HardState { term: FRESH_BASE.term, vote: None, commit: FRESH_BASE.index };
    let elections = Elections::ByOwner;
    GroupStart {
        own: id(7),
        peers: peers(&[7], &[]),
        base: FRESH_BASE,
        hard_state,
        entries: vec![],
        elections,
    }
}

fn id(id: u64) -> RaftId {
    RaftId::new(id).unwrap()
}

fn peers(voters: &[u64], learners: &[u64]) -> Peers {
    Peers::of(voters, learners).unwrap()
}

fn change(change: ConfChange) -> Payload {
    Payload::of(&Entry::ConfChange(change))
}

fn settle(group: &mut Group) {
    while let Some(writes) = group.ready() {
        group.persisted(writes.number);
    }
}

#[test]
fn a_lone_voter_wins_at_once_and_commits_what_is_persisted() {
    let mut group = Group::new(fresh());
    assert_eq!(group.propose(payload(0)), Err(Refused), "before the election there is nothing to lead");
    assert!(group.campaign());
    assert_eq!(group.term(), Term(2));
    let first = group.propose(payload(1)).unwrap().index;
    let writes = group.ready().unwrap();
    assert_eq!(writes.hard_state.map(|state| (state.term, state.vote)), Some((Term(2), Some(id(7)))));
    assert_eq!(writes.entries.len(), 2, "the leader's own entry and ours");
    let content = [Content::Empty, Content::Data(payload(1))];
    assert_eq!(writes.entries.iter().map(|entry| entry.content.clone()).collect::<Vec<_>>(), content);
    assert_eq!((writes.entries[1].index, writes.entries[1].term), (first, Term(2)));
    assert!(group.committed() < first, "nothing commits before it is durable");
    group.persisted(writes.number);
    assert_eq!(group.committed(), first);
}

#[test]
fn readies_overlap_and_commit_in_order() {
    let mut group = Group::new(fresh());
    group.campaign();
    let a = group.ready().unwrap();
    group.persisted(a.number);
    let mut waiting = vec![];
    let mut last = Index(0);
    for n in 0..5 {
        last = group.propose(payload(n)).unwrap().index;
        waiting.push(group.ready().unwrap().number);
        assert!(group.committed() < last);
    }
    group.persisted(waiting[2]);
    assert_eq!(group.committed().0, last.0 - 2);
    group.persisted(waiting[4]);
    assert_eq!(group.committed(), last);
}

#[test]
fn after_stepping_down_proposals_are_refused_until_the_next_term() {
    let mut group = Group::new(fresh());
    group.campaign();
    let writes = group.ready().unwrap();
    group.persisted(writes.number);
    settle(&mut group);
    let term = group.term();
    group.step_down();
    assert_eq!(group.propose(payload(1)), Err(Refused));
    assert!(!group.campaign(), "the change of role is a Ready of its own");
    settle(&mut group);
    assert!(group.campaign());
    assert!(group.term() > term);
}

/// Random turns with restarts from what was persisted: what committed stays, in its place.
#[test]
fn what_was_committed_survives_restarts() {
    for seed in 0..200 {
        let mut rng = Rng::new(seed);
        let mut start = fresh();
        let mut committed: Vec<GroupEntry> = vec![];
        for _ in 0..5 {
            let mut group = Group::new(start.clone());
            for old in &committed {
                assert!(group.entry(old.index).is_none_or(|entry| entry == *old), "seed {seed}");
            }
            let mut unpersisted = vec![];
            settle(&mut group);
            assert!(group.campaign());
            for _ in 0..rng.below(30) {
                for _ in 0..rng.below(4) {
                    group.propose(payload(rng.next_u64())).unwrap();
                }
                unpersisted.extend(group.ready());
                if rng.chance(1, 2) && !unpersisted.is_empty() {
                    let writes: Writes = unpersisted.remove(0);
                    start.hard_state = writes.hard_state.unwrap_or(start.hard_state);
                    start.entries.extend(writes.entries);
                    group.persisted(writes.number);
                }
                if rng.chance(1, 5) {
                    let upto = group.applied();
                    committed.retain(|entry| entry.index > upto);
                    let kept: Vec<_> = start.entries.iter().filter(|e| e.index <= upto).cloned().collect();
                    if let Some(last) = kept.last() {
                        start.base = Position { index: last.index, term: last.term };
                        start.entries.retain(|entry| entry.index > upto);
                    }
                    group.release(upto);
                }
            }
            let mut index = start.base.index.next();
            while index <= group.committed() {
                committed.extend(group.entry(index));
                index = index.next();
            }
        }
    }
}

fn voted(term: u64, vote: u64, commit: u64) -> HardState {
    HardState { term: Term(term), vote: RaftId::new(vote), commit: Index(commit) }
}

#[test]
#[should_panic = "a vote does not change in its term"]
fn nobody_votes_twice_in_a_term() {
    voted(2, 0, 5).check_next(voted(2, 7, 5));
    voted(2, 7, 5).check_next(voted(3, 8, 6));
    voted(3, 8, 6).check_next(voted(3, 7, 6));
}

#[test]
#[should_panic = "terms do not fall"]
fn no_term_falls() {
    voted(3, 7, 5).check_next(voted(2, 7, 5));
}

#[test]
#[should_panic = "what is committed is not replaced"]
fn no_leader_replaces_what_is_committed() {
    let mut group = Group::new(fresh());
    group.campaign();
    settle(&mut group);
    group.hard_state.commit = group.last_index().next();
    group.propose(payload(1)).unwrap();
    group.ready();
}

/// With one voter the only change that needs nobody else is one to what it is.
#[test]
fn a_change_of_peers_is_told_from_other_entries_wherever_it_goes() {
    let mut group = Group::new(fresh());
    group.campaign();
    let at = group.propose_conf_change(ConfChange::AddVoter(7));
    let after = group.propose(payload(1)).unwrap().index;
    let writes = group.ready().unwrap();
    let contents: Vec<Content> = writes.entries.iter().map(|entry| entry.content.clone()).collect();
    let changed = Content::ConfChange(change(ConfChange::AddVoter(7)));
    assert_eq!(contents, [Content::Empty, changed.clone(), Content::Data(payload(1))]);
    assert_eq!(contents.iter().map(Content::kind).collect::<Vec<_>>(), [0, 2, 1]);
    group.persisted(writes.number);
    settle(&mut group);
    assert_eq!((group.committed(), group.applied()), (after, after));
    assert_eq!(group.entry(at).unwrap().content, changed);
    assert_eq!(group.peers_at(after), &peers(&[7], &[]));

    // raft makes an entry of its own of a change that comes too early.
    let kept = group.propose_conf_change(ConfChange::AddVoter(7));
    let emptied = group.propose_conf_change(ConfChange::AddVoter(7));
    let writes = group.ready().unwrap();
    let kinds: Vec<(Index, u8)> = writes.entries.iter().map(|e| (e.index, e.content.kind())).collect();
    assert_eq!(kinds, [(kept, 2), (emptied, 0)]);
}

/// What a start reads back: changes after the base take effect anew, and the group is known as of each index.
#[test]
fn a_restarted_group_has_the_peers_of_each_index() {
    let entry = |(index, content)| GroupEntry { index: Index(index), term: Term(2), content };
    let changes = |of| Content::ConfChange(change(of));
    let entries = [
        (2, Content::Empty),
        (3, changes(ConfChange::AddLearner(9))),
        (4, Content::Data(payload(1))),
        (5, changes(ConfChange::AddVoter(9))),
        (6, changes(ConfChange::Remove(7))),
    ];
    let hard_state = HardState { term: Term(2), vote: None, commit: Index(5) };
    let entries = entries.into_iter().map(entry).collect();
    let mut group = Group::new(GroupStart { hard_state, entries, ..fresh() });
    settle(&mut group);
    assert_eq!(group.applied(), Index(5));
    let at = |group: &Group, from| (from..=5).map(|n| group.peers_at(Index(n)).clone()).collect::<Vec<_>>();
    let (alone, learns, votes) = (peers(&[7], &[]), peers(&[7], &[9]), peers(&[7, 9], &[]));
    assert_eq!(at(&group, 2), [alone, learns.clone(), learns.clone(), votes.clone()]);
    group.release(Index(4));
    assert_eq!(at(&group, 4), [learns, votes]);
}

#[test]
#[should_panic = "peers are known as far as changes have taken effect"]
fn nobody_knows_the_peers_of_an_index_that_is_not_applied() {
    let mut group = Group::new(fresh());
    group.campaign();
    let at = group.propose_conf_change(ConfChange::AddVoter(7));
    group.peers_at(at);
}

#[test]
#[should_panic = "a group has a voter"]
fn no_group_starts_without_a_voter() {
    Group::new(GroupStart { peers: peers(&[], &[7]), ..fresh() });
}

#[test]
fn a_payload_of_another_kind_than_the_entry_is_refused() {
    let (data, nothing) = (payload(1), Payload::copy_of(&[]));
    let kinds =
        |payload: &Payload| (0..4).filter(|kind| Content::of(*kind, payload).is_some()).collect::<Vec<_>>();
    assert_eq!(kinds(&data), [1]);
    assert_eq!(kinds(&nothing), [0, 1], "what data say, their reader sees");
    assert_eq!(kinds(&change(ConfChange::Remove(3))), [1, 2]);
    assert_eq!(kinds(&change(ConfChange::Remove(0))), [1]);
}
