//! What other members say, and what they are told: between the links and the parts of this reactor.

use super::Reactor;
use super::calls::ForwardedAnswer;
use super::epoch_state::EpochStage;
use super::peers::{PeerEvent, PeerLane};
use super::shards::Settled;
use super::turn::{ToPeers, Turn};
use crate::checkpoint::CheckpointName;
use crate::io::{LeaderMail, MemberMail};
use crate::peer::PeerMessage;
use crate::raft::{Message, MessageBody};
use crate::types::{ClockReading, ConnId, Duration, MemberId, ReactorId, ShardId, Term, Time};
use std::collections::BTreeSet;

impl Reactor {
    /// Takes what has come of links.
    pub(super) fn take_peer_events(&mut self) {
        let mut answered = BTreeSet::new();
        while let Some(event) = self.peers.next_event() {
            match event {
                PeerEvent::Up { lane, conn } => self.on_peer_up(lane, conn),
                PeerEvent::Down { lane, conn } => self.on_peer_down(lane, conn),
                PeerEvent::StatesUp { lane } => {
                    self.storage.ask_for_state(&mut self.turn, (lane.member, lane.theirs()));
                }
                PeerEvent::Said { lane, conn, message } => match message {
                    PeerMessage::Group { shard, control_term, entries, message } => {
                        if matches!(message.body, MessageBody::AppendAnswer { .. }) {
                            answered.insert(shard);
                        }
                        if let Err(why) =
                            self.on_group_message(lane.member, shard, (control_term, entries), message)
                        {
                            self.peers.fail(&mut self.turn, conn, &why);
                        }
                    }
                    message => self.on_peer_message(lane, conn, message),
                },
            }
        }
        // What a leader's answers wait for is marked at once, and they may leave with this turn.
        for shard in answered {
            if self.shards.has(shard) && self.shards.shard_mut(shard).group().leads() {
                self.follow_commits(shard);
            }
        }
    }

    fn on_peer_message(&mut self, lane: PeerLane, conn: ConnId, message: PeerMessage) {
        let Reactor { turn, calls, rounds, shards, storage, epochs, .. } = self;
        match message {
            PeerMessage::Call { number, method, clock, timeout_ms, message } => {
                let deadline = deadline_of(turn, clock, timeout_ms);
                calls.on_forwarded(turn, (lane.member, conn), number, method, deadline, message);
            }
            PeerMessage::Answer { number, revision: shows, control, outcome } => {
                calls.on_forwarded_answer(turn, ForwardedAnswer { number, shows, control, outcome });
            }
            PeerMessage::CallRefused { number } => calls.on_not_taken(turn, number),
            PeerMessage::CallsLost { number } => calls.on_calls_lost(turn, (lane.member, conn), number),
            PeerMessage::CallsOver { number } => calls.on_calls_over(turn, number),
            PeerMessage::ReadAt { number } => rounds.on_read_at(turn, conn, number),
            PeerMessage::ReadAtIs { number, revision, control } => {
                rounds.on_read_at_is(turn, number, revision, control);
            }
            PeerMessage::ReadAtRefused { number } => rounds.on_read_at_refused(number),
            PeerMessage::NoSpace => {
                if let Some(leader) = &mut self.leader {
                    leader.on_no_space_at(turn, lane.member);
                }
            }
            // Who begins to lead says so with it, and is often not known yet to do so.
            PeerMessage::Clock(clock) => {
                turn.send_to_all(|| MemberMail::LeaderClock { member: lane.member, clock });
            }
            PeerMessage::Attributes(attributes) => {
                if let Some(leader) = &mut self.leader {
                    leader.on_attributes(turn, lane.member, attributes);
                }
            }
            PeerMessage::Leaving => {
                calls.on_leaving(turn, conn);
                self.peers.on_leaving(turn, conn);
            }
            PeerMessage::Members { as_of, members } => self.on_members(as_of, members),
            PeerMessage::Removed => self.peers.on_removed(),
            PeerMessage::Group { .. } => unreachable!("it goes to its group"),
            PeerMessage::StateOffered { shard, after } => {
                storage.on_state_offered(turn, shards, (lane.member, lane.theirs()), shard, after);
            }
            PeerMessage::StateHeld { shard, upto } => {
                if let Some(local) = shards.get_mut(shard) {
                    epochs.on_state_held(turn, local, lane.member, upto);
                }
            }
            PeerMessage::StateWanted { shard, home, file, from } => {
                let name = CheckpointName { shard, home, file };
                let taker = (lane.member, lane.theirs());
                storage.on_state_wanted(turn, shards, (taker, conn), name, from);
            }
            PeerMessage::StateBlock { shard, file, number, is_last, block } => {
                let place = (shard, file, number);
                storage.on_state_block(turn, (lane.member, conn), place, is_last, block);
            }
            PeerMessage::StateGone { shard, file } => storage.on_state_gone(turn, lane.member, shard, file),
            PeerMessage::Settled { epoch, revision, commits } => {
                let (said, own) = (Settled { epoch, revision, commits }, self.turn.reactors);
                self.shards.hear_settled(&said, |shard| lane.joins(shard, own));
                self.epochs.hear_serving(epoch);
            }
            PeerMessage::WantsGroup { shard, control_term, last } => {
                if let Some(local) = self.shards.get_mut(shard) {
                    self.epochs.on_group_wanted(&mut self.turn, local, lane.member, control_term, last);
                }
            }
        }
    }

    /// What was on its way when the connection before this one broke is lost: groups ask for it again.
    fn on_peer_up(&mut self, lane: PeerLane, conn: ConnId) {
        let Reactor { turn, shards, calls, .. } = self;
        calls.ask_for_lost(turn, conn, (lane.member, lane.theirs()));
        let joined = shards.all_mut().filter(|local| lane.joins(local.shard.id, turn.reactors));
        for local in joined {
            let group = local.shard.group_mut();
            let peers = group.peers_at(group.applied());
            let ids = peers.voters.iter().chain(&peers.learners).copied();
            let peer = ids.into_iter().find(|id| turn.member_of(*id) == Some(lane.member));
            if let Some(peer) = peer.filter(|_| group.leads()) {
                group.report_unreachable(peer);
                group.ping();
            }
        }
    }

    fn on_peer_down(&mut self, lane: PeerLane, conn: ConnId) {
        self.calls.on_connection_lost(&mut self.turn, conn, lane.theirs());
        self.epochs.on_peer_down(&mut self.turn, &mut self.shards, lane.member);
    }

    pub(super) fn on_leader_is(&mut self, term: Term, leader: Option<MemberId>) {
        assert!(leader != Some(self.turn.settings.member), "who leads is told by its epoch");
        self.epochs.on_leader_is(&mut self.turn, term, leader);
        self.calls.on_leader_is(&mut self.turn, leader);
        if let Some(leader) = &mut self.leader {
            leader.on_leader_is(&self.turn);
        }
    }

    /// A peer's message goes to its group, if that is here. An error is the peer's fault.
    pub(super) fn on_group_message(
        &mut self,
        from: MemberId,
        shard: ShardId,
        (control_term, entries): (Term, u64),
        message: Message,
    ) -> Result<(), String> {
        let turn = &mut self.turn;
        if turn.member_of(message.from) != Some(from) {
            return Err(format!("it speaks for peer {:x}, which is not its own", message.from.get()));
        }
        let votes = matches!(message.body, MessageBody::Vote { .. });
        if votes && shard != ShardId::CONTROL && control_term < turn.epoch_state.term() {
            turn.counters.paths.vote_outdated += 1;
            return Ok(());
        }
        let Some(local) = self.shards.get_mut(shard) else { return Ok(()) };
        let is_vote_for_leader = votes && shard == ShardId::CONTROL;
        if is_vote_for_leader && turn.control.leaves(from) {
            turn.counters.paths.vote_of_leaver += 1;
            return Ok(());
        }
        if shard == ShardId::CONTROL && self.epochs.refuses_vote(turn, local.shard.group(), &message, entries)
        {
            turn.counters.paths.vote_of_laggard += 1;
            return Ok(());
        }
        local.shard.group_mut().step(message).map_err(|bad| format!("shard {shard}: {bad}"))?;
        self.shards.touch(shard);
        Ok(())
    }

    /// What was stepped in this turn and has come to be committed or covered.
    pub(super) fn follow_touched(&mut self) {
        for shard in self.shards.take_touched() {
            assert!(self.shards.has(shard), "messages are stepped where the shard lives");
            self.follow_commits(shard);
        }
        // Which shards are to be covered is known with the control state.
        if self.turn.router.is_some() && !self.turn.is_alone() {
            let (covered, ahead) = (self.shards.covered(), self.shards.ahead(*self.turn.settled));
            if let Some(first) = self.shards.all().next()
                && !self.rest.lets_pass(covered, &self.storage)
            {
                let hard_state = first.shard.group().hard_state();
                return self.storage.disturb(first.shard.id, first.shard.home, hard_state);
            }
            self.epochs.report_covered(&mut self.turn, covered, ahead);
        }
    }

    /// The round that this turn's replies and reads wait for begins, and those that are confirmed let them go.
    pub(super) fn drive_rounds(&mut self) {
        if let Some(round) = self.turn.gate.begin_round() {
            self.turn.send(ReactorId(0), LeaderMail::Round { round: round.0 });
            self.run_local();
        }
        if let Some(control) = self.shards.get_mut(ShardId::CONTROL) {
            let shard = &mut control.shard;
            let is_followed = shard.log_view().committed().index == shard.group().committed();
            self.rounds.drive(&mut self.turn, shard.group_mut(), is_followed);
            if self.turn.has_local() {
                self.run_local();
            }
        }
    }

    /// The messages of this turn's groups, and what the leader has settled, go to the links.
    pub(super) fn tell_peers(&mut self) {
        let Reactor { turn, shards, peers, calls, epochs, .. } = self;
        let control_term = turn.epoch_state.term();
        // A lone member's groups have nothing to say.
        let said = if turn.is_alone() { vec![] } else { shards.take_messages() };
        for (shard, message) in said {
            let Some(member) = turn.member_of(message.to) else { continue };
            let asks_for_control =
                shard == ShardId::CONTROL && matches!(message.body, MessageBody::Vote { .. });
            let entries = if asks_for_control { epochs.entries() } else { 0 };
            let message = PeerMessage::Group { shard, control_term, entries, message };
            turn.tell(ToPeers::One(member), shard, message);
        }
        for (to, shard, message) in std::mem::take(&mut turn.to_peers) {
            let call = if let PeerMessage::Call { number, .. } = message { Some(number) } else { None };
            let is_answer = message.is_answer() || matches!(message, PeerMessage::CallsOver { .. });
            match (peers.tell(to, shard, message), call, to) {
                (Some(conn), Some(number), _) => calls.on_handed_out(turn, number, conn),
                (None, Some(number), _) => calls.on_not_taken(turn, number),
                // Whoever waits for it is to know that it does not come.
                (None, None, ToPeers::Asker(conn)) if is_answer => {
                    peers.fail(turn, conn, "more answers wait for it than it takes");
                }
                _ => {}
            }
        }
        if turn.epoch_state.stage() == EpochStage::Serving && peers.has_lanes() {
            // First what is settled, then the indexes: so it is true for ever.
            let (epoch, revision) = (turn.epoch(), *turn.settled);
            assert!(revision <= turn.settled_truth(), "others are told what is settled");
            let committed = shards.committed();
            peers.tell_settled(epoch, revision, &committed, turn.reactors);
        }
        peers.flush(turn);
    }
}

/// Until when a request may be done that has waited since this member's clock has shown that; never what was meant for
/// another process.
fn deadline_of(turn: &Turn, clock: ClockReading, timeout_ms: u64) -> Option<Time> {
    // Nobody is believed to wait for longer than a client of this member does.
    let longest = turn.settings.request_timeout();
    let patience = Duration::from_ms(timeout_ms.min(longest.0 / 1_000_000));
    (clock.boot == turn.boot).then(|| (clock.time + patience).min(turn.now + longest))
}
