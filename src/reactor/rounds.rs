//! Rounds in which the members confirm who leads, at the control shard's reactor.
//!
//! **The question.** A member that leads may have been deposed and not have heard of it. What may it, and what may
//! those that follow it, answer from what they hold?
//!
//! **The rule.** Whoever wants to answer from state waits for a round that begins after its request has come. The
//! leader notes what is settled and which control entry has taken effect, and then asks a majority of the control
//! shard's group whether it still leads. That group is enough: nobody finishes a takeover without leading it. What is committed
//! and not followed here yet, since this member's disk stands still, is followed first: others may show it already. A
//! member that follows asks the leader for such a round and what it noted, waits until it has come to that itself,
//! and reads its own shards. One round serves all that wait for it. What is not confirmed in time is asked for
//! anew, of whoever leads then.
//!
//! **Why not otherwise.** A lease on a clock would save the round trip, and a clock that jumps would make it lie.

use super::turn::{ToPeers, Turn};
use crate::io::CallMail;
use crate::peer::PeerMessage;
use crate::raft::{Group, RoundId};
use crate::types::{ConnId, Index, MemberId, ReactorId, Revision, ShardId, Time};
use std::collections::{BTreeMap, VecDeque};

/// Who waits for a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    Here(ReactorId, u64),
    Member(ConnId, u64),
}

/// A round of this member's, and what was noted before it began.
struct RoundUnderWay {
    id: RoundId,
    revision: Revision,
    control: Index,
    until: Time,
    askers: Vec<Asker>,
}

/// A question to the leader.
struct AskedLeader {
    leader: MemberId,
    until: Time,
    askers: Vec<Asker>,
}

pub(super) struct Rounds {
    boot: u64,
    numbers: u64,
    waiting: Vec<Asker>,
    under_way: VecDeque<RoundUnderWay>,
    asked: BTreeMap<u64, AskedLeader>,
}

impl Rounds {
    /// `boot` is a number of the process, and of no other.
    pub fn new(boot: u64) -> Rounds {
        Rounds { boot, numbers: 0, waiting: vec![], under_way: VecDeque::new(), asked: BTreeMap::new() }
    }

    /// A reactor wants a round to begin. It serves all that the reactor wanted before.
    pub fn want(&mut self, from: ReactorId, round: u64) {
        self.waiting.retain(|asker| !matches!(asker, Asker::Here(reactor, _) if *reactor == from));
        self.waiting.push(Asker::Here(from, round));
    }

    /// Another member does.
    pub fn on_read_at(&mut self, turn: &mut Turn, conn: ConnId, number: u64) {
        if turn.epoch_state.leads() {
            self.waiting.push(Asker::Member(conn, number));
        } else {
            let refusal = PeerMessage::ReadAtRefused { number };
            turn.tell(ToPeers::Asker(conn), ShardId::CONTROL, refusal);
        }
    }

    /// The leader has answered.
    pub fn on_read_at_is(&mut self, turn: &mut Turn, number: u64, revision: Revision, control: Index) {
        for asker in self.asked.remove(&number).into_iter().flat_map(|asked| asked.askers) {
            answer(turn, asker, revision, control);
        }
    }

    /// It does not lead, and whoever does is asked next.
    pub fn on_read_at_refused(&mut self, number: u64) {
        self.waiting.extend(self.asked.remove(&number).into_iter().flat_map(|asked| asked.askers));
    }

    /// Begins what is wanted, and answers what is confirmed. Whether all that the group has committed is followed.
    pub fn drive(&mut self, turn: &mut Turn, group: &mut Group, is_followed: bool) {
        self.take_confirmed(turn, group);
        self.give_late_up(turn);
        if self.waiting.is_empty() {
            return;
        }
        if turn.epoch_state.leads() {
            if is_followed {
                self.begin(turn, group);
            }
        } else if let Some(leader) = turn.epoch_state.follows() {
            self.ask(turn, leader);
        }
    }

    fn begin(&mut self, turn: &Turn, group: &mut Group) {
        self.numbers += 1;
        let id = RoundId { boot: self.boot, number: self.numbers };
        // What is noted is noted before the round begins.
        let (revision, control) = (turn.settled_truth(), turn.control.index);
        if group.begin_round(id) {
            let (askers, until) =
                (std::mem::take(&mut self.waiting), turn.now + turn.settings.election_timeout);
            assert!(!askers.is_empty(), "a round begins for somebody");
            let last = self.under_way.back().map(|last| (last.id, last.revision, last.control));
            let follows =
                last.is_none_or(|(of, noted, entry)| of < id && noted <= revision && entry <= control);
            assert!(follows, "what rounds note rises along them: {revision} after {last:?}");
            self.under_way.push_back(RoundUnderWay { id, revision, control, until, askers });
        }
    }

    fn ask(&mut self, turn: &mut Turn, leader: MemberId) {
        assert!(leader != turn.settings.member, "who leads asks its own group");
        self.numbers += 1;
        let (number, until) = (self.numbers, turn.now + turn.settings.election_timeout);
        let askers = std::mem::take(&mut self.waiting);
        self.asked.insert(number, AskedLeader { leader, until, askers });
        turn.tell(ToPeers::One(leader), ShardId::CONTROL, PeerMessage::ReadAt { number });
    }

    fn take_confirmed(&mut self, turn: &mut Turn, group: &mut Group) {
        for confirmed in group.take_rounds() {
            let is_own = confirmed.boot == self.boot && confirmed.number <= self.numbers;
            assert!(is_own, "a round is confirmed that this process has begun: {confirmed:?}");
            // A majority that has answered a later one has answered those before it.
            while let Some(done) = self.under_way.pop_front_if(|round| round.id <= confirmed) {
                assert!(done.revision <= turn.settled_truth(), "what was settled once stays so");
                for asker in done.askers {
                    answer(turn, asker, done.revision, done.control);
                }
            }
        }
    }

    /// What a round was dropped for, or a question was lost for, is asked for anew.
    fn give_late_up(&mut self, turn: &mut Turn) {
        let (leads, follows) = (turn.epoch_state.leads(), turn.epoch_state.follows());
        while let Some(late) = self.under_way.pop_front_if(|round| !leads || round.until <= turn.now) {
            turn.counters.paths.round_asked_anew += 1;
            self.waiting.extend(late.askers);
        }
        let is_late = |asked: &AskedLeader| asked.until <= turn.now || follows != Some(asked.leader);
        let late = self.asked.extract_if(.., |_, asked| is_late(asked));
        self.waiting.extend(late.flat_map(|(_, asked)| asked.askers));
        if !leads {
            assert!(self.under_way.is_empty(), "no round is under way where nobody leads");
            // Who asks from elsewhere asks the next leader.
            self.waiting.retain(|asker| matches!(asker, Asker::Here(..)));
        }
    }

    /// When something is late.
    pub fn wake_at(&self) -> Time {
        let rounds = self.under_way.iter().map(|round| round.until);
        rounds.chain(self.asked.values().map(|asked| asked.until)).min().unwrap_or(Time::NEVER)
    }
}

fn answer(turn: &mut Turn, asker: Asker, revision: Revision, control: Index) {
    match asker {
        Asker::Here(reactor, round) => turn.send(reactor, CallMail::RoundIs { round, revision, control }),
        Asker::Member(conn, number) => {
            let message = PeerMessage::ReadAtIs { number, revision, control };
            turn.tell(ToPeers::Asker(conn), ShardId::CONTROL, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_nobody_leads_a_reactor_waits_for_one_round() {
        let mut rounds = Rounds::new(1);
        for round in 1..=1000 {
            rounds.want(ReactorId(0), round);
            rounds.want(ReactorId(1), round);
        }
        assert_eq!(rounds.waiting, [Asker::Here(ReactorId(0), 1000), Asker::Here(ReactorId(1), 1000)]);
    }
}
