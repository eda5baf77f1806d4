//! Messages that no sane peer sends: each is refused with its reason, and none ends the process.

use super::three::Net;
use super::*;

fn at(index: u64, term: u64) -> Position {
    Position { index: Index(index), term: Term(term) }
}

fn entry(index: u64, term: u64) -> GroupEntry {
    GroupEntry { index: Index(index), term: Term(term), content: Content::Data(payload(index)) }
}

fn append(after: Position, commit: u64, entries: &[GroupEntry]) -> MessageBody {
    MessageBody::Append { after, commit: Index(commit), entries: entries.to_vec() }
}

fn answer(index: u64, rejected: Option<Position>) -> MessageBody {
    MessageBody::AppendAnswer { index: Index(index), commit: Index(0), rejected }
}

fn vote(last: Position, commit: Position) -> MessageBody {
    MessageBody::Vote { kind: VoteKind::Real, last, commit }
}

fn granted(kind: VoteKind, commit: Position) -> MessageBody {
    MessageBody::VoteAnswer { kind, is_granted: true, commit }
}

fn heartbeat(commit: u64) -> MessageBody {
    MessageBody::Heartbeat { commit: Index(commit), round: None }
}

fn message(from: u64, to: u64, term: u64, body: MessageBody) -> Message {
    Message { from: id(from), to: id(to), term: Term(term), body }
}

/// Peer 1 leads in term 2 and has committed up to 4; the log ends at 5 at peers 1 and 2.
fn led() -> Net {
    let mut net = Net::led_by(1);
    for n in 0..2 {
        net.group(1).propose(payload(n)).unwrap();
    }
    net.settle(&[]);
    net.group(1).ping();
    net.settle(&[]);
    net.group(1).propose(payload(9)).unwrap();
    net.turn(1);
    net.deliver(|message| message.to == id(2));
    net.turn(2);
    net.durable(2);
    assert_eq!([1, 2].map(|peer| net.group(peer).committed()), [Index(4); 2]);
    assert_eq!([1, 2].map(|peer| net.group(peer).last_index()), [Index(5); 2]);
    net
}

const HUGE: u64 = 1 << 62;

#[test]
fn what_no_sane_peer_says_is_refused() {
    let unreadable = Content::ConfChange(payload(1));
    let conf_change = GroupEntry { content: unreadable, ..entry(6, 2) };
    let cases = [
        (message(1, 3, 2, heartbeat(4)), "for peer 3 came to peer 2"),
        (message(2, 2, 2, heartbeat(4)), "of this very peer"),
        (message(1, 2, 0, heartbeat(4)), "0 is no term"),
        (message(1, 2, HUGE, heartbeat(4)), "is no term"),
        (message(1, 2, 2, heartbeat(6)), "a heartbeat commits 6, and the log ends at 5"),
        (message(3, 2, 2, heartbeat(4)), "3 leads in term 2, in which 1 does"),
        (message(2, 1, 2, heartbeat(4)), "2 leads in term 2, in which 1 does"),
        (message(3, 2, 2, MessageBody::TimeoutNow), "3 leads in term 2, in which 1 does"),
        (message(3, 2, 2, append(at(5, 2), 4, &[])), "3 leads in term 2, in which 1 does"),
        (message(1, 2, 2, append(at(5, 2), HUGE, &[])), "commit index 4611686018427387904 is out of range"),
        (message(1, 2, 2, append(at(5, 2), 4, &[entry(7, 2)])), "does not follow"),
        (message(1, 2, 2, append(at(5, 2), 4, &[entry(6, 2), entry(6, 2)])), "does not follow"),
        (message(1, 2, 3, append(at(5, 2), 4, &[entry(6, 3), entry(7, 2)])), "does not follow"),
        (message(1, 2, 2, append(at(5, 2), 4, &[entry(6, 3)])), "is of a later term than the message"),
        (message(1, 2, 2, append(at(5, 3), 4, &[])), "is of a later term than the message"),
        (message(1, 2, 2, append(at(5, 2), 4, &[entry(6, 0)])), "does not follow"),
        (message(1, 2, 2, append(at(5, 0), 4, &[])), "is no place in a log"),
        (message(1, 2, 2, append(at(0, 1), 4, &[])), "is no place in a log"),
        (message(1, 2, 2, append(at(HUGE, 2), 4, &[])), "is out of range"),
        (message(1, 2, 2, append(at(HUGE - 1, 2), 4, &[entry(HUGE, 2)])), "is out of range"),
        (message(1, 2, 2, append(at(5, 2), 4, &[conf_change])), "cannot be read"),
        (message(1, 2, 3, append(at(3, 1), 4, &[])), "another entry than the one of term 2 committed here"),
        (message(1, 2, 3, append(at(3, 2), 4, &[entry(4, 3)])), "another entry than the one of term 2"),
        (message(1, 2, 3, append(at(5, 1), 4, &[])), "is older than what is committed here"),
        (message(2, 1, 2, answer(6, None)), "says that it has index 6, and the leader's log ends at 5"),
        (message(2, 1, 2, answer(5, Some(at(6, 2)))), "says that it has index 6"),
        (message(2, 1, 2, answer(HUGE, None)), "index 4611686018427387904 is out of range"),
        (message(2, 1, 2, answer(5, Some(at(4, 0)))), "is no place in a log"),
        (message(3, 2, 3, vote(at(0, 0), at(0, 0))), "a candidate has a log"),
        (message(3, 2, 3, vote(at(5, 4), at(0, 0))), "is of a later term than the message"),
        (message(3, 2, 3, vote(at(5, 2), at(6, 2))), "behind its last entry"),
        (message(3, 2, 3, vote(at(5, 2), at(4, 0))), "is no place in a log"),
        (message(3, 2, 3, granted(VoteKind::Transfer, at(0, 0))), "votes are answered alike"),
        (message(3, 2, 3, granted(VoteKind::Real, at(4, 5))), "is of a later term than the message"),
    ];
    let mut net = led();
    for (message, why) in cases {
        let group = net.groups.iter_mut().find(|group| group.own() == message.to);
        let group = if why.contains("came to") { &mut net.groups[1] } else { group.unwrap() };
        let before = (group.term(), group.last_index(), group.committed(), group.has_ready());
        let refused = group.step(message.clone()).expect_err(why).to_string();
        assert!(refused.contains(why), "{refused:?} in place of {why:?}: {message:?}");
        let after = (group.term(), group.last_index(), group.committed(), group.has_ready());
        assert_eq!(before, after, "{message:?} leaves no trace");
    }
}

/// What an old leader says, or what comes twice, is no fault.
#[test]
fn what_is_merely_late_is_taken() {
    let mut net = led();
    let late = [
        message(3, 2, 1, append(at(1, 1), 1, &[entry(2, 1)])),
        message(3, 2, 1, heartbeat(1)),
        message(3, 2, 1, MessageBody::TimeoutNow),
        message(1, 2, 2, append(at(1, 1), 1, &[])),
        message(1, 2, 2, append(at(2, 2), 4, &[entry(3, 2)])),
        message(3, 1, 1, answer(9, None)),
        message(2, 1, 2, answer(1, Some(at(1, 1)))),
        message(3, 2, 2, granted(VoteKind::Real, at(0, 0))),
        message(3, 2, 3, granted(VoteKind::Pre, at(0, 0))),
        message(
            2,
            1,
            2,
            MessageBody::HeartbeatAnswer { commit: Index(9), round: Some(RoundId { boot: 1, number: 1 }) },
        ),
    ];
    for message in late {
        net.group(message.to.get()).step(message.clone()).unwrap_or_else(|bad| panic!("{bad}: {message:?}"));
    }
    assert_eq!([1, 2].map(|peer| net.group(peer).last_index()), [Index(5); 2]);
}

/// A vote for a candidate that has asked nobody: it would lead with a log that is not durable.
#[test]
fn no_vote_counts_before_it_was_asked_for() {
    let mut net = led();
    let more = message(1, 2, 2, append(at(5, 2), 4, &[entry(6, 2)]));
    net.group(2).step(more).unwrap();
    net.group(2).step(message(1, 2, 2, MessageBody::TimeoutNow)).unwrap();
    assert_eq!((net.group(2).role(), net.group(2).term()), (Role::Candidate, Term(3)));
    let vote = message(3, 2, 3, granted(VoteKind::Real, at(0, 0)));
    let refused = net.group(2).step(vote.clone()).unwrap_err().to_string();
    assert!(refused.contains("before it was asked"), "{refused}");
    net.turn(2);
    assert!(net.group(2).step(vote.clone()).is_err());
    net.durable(2);
    net.group(2).step(vote).unwrap();
    assert!(net.group(2).leads());
}

/// Numbers around those that mean something here, and around the ends.
fn number(rng: &mut Rng, near: &[u64]) -> u64 {
    match rng.below(10) {
        0 => *rng.pick(&[0, 1, HUGE - 1, HUGE, u64::MAX - 1, u64::MAX]),
        1 => rng.next_u64(),
        _ => rng.pick(near).saturating_add(rng.below(5)).saturating_sub(2),
    }
}

fn garbage(rng: &mut Rng, group: &Group) -> Message {
    let indexes = [group.last_index().0, group.committed().0, group.applied().0];
    let terms = [group.term().0, group.term().0 + 1];
    let place = |rng: &mut Rng| match rng.below(4) {
        0 => at(number(rng, &indexes), number(rng, &terms)),
        1 => Position::default(),
        _ => {
            let index = Index(number(rng, &indexes));
            Position { index, term: group.term_of(index).unwrap_or(group.term()) }
        }
    };
    let kinds = [VoteKind::Pre, VoteKind::Real, VoteKind::Transfer];
    let round = rng.chance(1, 2).then(|| RoundId { boot: rng.below(3), number: rng.below(5) });
    let body = match rng.below(8) {
        0 | 1 => {
            let after = place(rng);
            let mut entries: Vec<GroupEntry> = (1..=rng.below(4))
                .map(|n| entry(after.index.0.saturating_add(n), after.term.0.saturating_add(rng.below(2))))
                .collect();
            if rng.chance(1, 8)
                && let Some(one) = entries.last_mut()
            {
                (one.index, one.term) = (Index(number(rng, &indexes)), Term(number(rng, &terms)));
            }
            append(after, number(rng, &indexes), &entries)
        }
        2 => {
            let rejected = rng.chance(1, 2).then(|| place(rng));
            MessageBody::AppendAnswer {
                index: Index(number(rng, &indexes)),
                commit: Index(number(rng, &indexes)),
                rejected,
            }
        }
        3 => MessageBody::Vote { kind: *rng.pick(&kinds), last: place(rng), commit: place(rng) },
        4 => {
            let is_granted = rng.chance(1, 2);
            MessageBody::VoteAnswer { kind: *rng.pick(&kinds), is_granted, commit: place(rng) }
        }
        5 => MessageBody::Heartbeat { commit: Index(number(rng, &indexes)), round },
        6 => MessageBody::HeartbeatAnswer { commit: Index(number(rng, &indexes)), round },
        _ => MessageBody::TimeoutNow,
    };
    // What comes in a term near the end of the numbers leaves little to see behind it.
    let term = match rng.below(100) {
        0 => number(rng, &terms),
        _ => rng.pick(&terms).saturating_sub(u64::from(rng.chance(1, 10))),
    };
    message(rng.below(4) + 1, if rng.chance(1, 30) { 3 } else { 2 }, term, body)
}

/// A vote for who stands, so that some come to lead.
fn help(group: &Group) -> Option<Message> {
    let kind = match group.role() {
        Role::PreCandidate => VoteKind::Pre,
        Role::Candidate => VoteKind::Real,
        Role::Leader | Role::Follower => return None,
    };
    let term = group.term().0 + u64::from(kind == VoteKind::Pre);
    Some(message(1, 2, term, granted(kind, Position::default())))
}

/// One group that hears nothing but garbage, between turns, writes, ticks and calls of its owner.
#[test]
fn garbage_ends_no_process() {
    let (mut taken, mut refused, mut roles) = (0u64, 0u64, [0u64; 4]);
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let elections = match rng.chance(1, 2) {
            true => Elections::ByTimeout { election_ticks: 3, rng: rng.fork() },
            false => Elections::ByOwner,
        };
        let mut group = Group::new(three::start(2, &[1, 2, 3], elections));
        let (mut writes, mut round) = (vec![], 0);
        for _ in 0..300 {
            roles[group.role() as usize] += 1;
            match rng.below(12) {
                0 | 1 => writes.extend(group.ready()),
                2 if !writes.is_empty() => {
                    let upto = rng.below(writes.len() as u64) as usize;
                    let last: Writes = writes.drain(..=upto).next_back().unwrap();
                    group.persisted(last.number);
                }
                3 if group.timer.is_some() => group.tick(true),
                4 => drop(group.campaign()),
                5 => drop(group.propose(payload(1))),
                6 if rng.chance(1, 4) => {
                    round += 1;
                    group.begin_round(RoundId { boot: 1, number: round });
                    group.transfer_leader(id(1 + rng.below(3)));
                    group.forget_leader();
                    group.release(group.applied());
                }
                _ => {
                    let vote = help(&group).filter(|_| rng.chance(1, 2));
                    let message = vote.unwrap_or_else(|| garbage(&mut rng, &group));
                    match group.step(message) {
                        Ok(()) => taken += 1,
                        Err(_) => refused += 1,
                    }
                }
            }
            group.take_messages();
            group.take_rounds();
        }
    }
    assert!(taken > 5_000 && refused > 5_000, "{taken} taken, {refused} refused");
    assert!(roles.iter().all(|count| *count > 500), "{roles:?}");
}
