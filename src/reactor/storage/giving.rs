//! A follower that lacks what no log has any more is given the state.
//!
//! **The question.** Its log ends where all others' have begun anew. How does it get megabytes of state while the
//! shard that has them goes on, and while the connection breaks and comes back?
//!
//! **The rule.** Its leader offers the state; the follower asks for it block by block, each time it has written one.
//! What is given is a checkpoint of what is settled here at the first question, held until the last block is written
//! there: made slice by slice as for a file of this member's, but under the follower's name for it, and sent instead
//! of written. A few blocks are made ahead, and are in memory until they are asked past; so a question that is asked
//! again is answered again. Meanwhile the log keeps what comes behind the state, whatever it takes.
//!
//! **Why not otherwise.** To send the files of the last checkpoint would read from the disk what is in memory, and
//! would have to keep all the log since. To push blocks at the line's pace would pile them up where the disk is
//! slower.

use super::{Source, Storage, Turn};
use crate::checkpoint::{CheckpointName, Writer};
use crate::io::Level;
use crate::limits::{CHECKPOINT_BLOCK_BYTES_MAX, STATE_BLOCKS_AHEAD, STATE_OFFERS, STATE_PATIENCE_SECS};
use crate::log::{Buffer, Resident};
use crate::mvcc::{Budget, PinId};
use crate::peer::PeerMessage;
use crate::reactor::turn::ToPeers;
use crate::types::{At, Duration, Index, MemberId, ReactorId, ShardId, Time};
use bytes::Bytes;
use std::collections::VecDeque;

/// The reactor of a follower that takes a state, one at a time.
pub(super) type Taker = (MemberId, ReactorId);

/// A state on its way to a follower.
pub(super) struct Giving {
    to: Taker,
    /// The follower's name for it.
    name: CheckpointName,
    /// This member's shard, and the index behind which the follower will go on.
    of: Resident,
    behind: Index,
    pin: PinId,
    writer: Option<Writer>,
    after: At,
    /// What is made and not known to be written there, from this block on.
    blocks: VecDeque<Bytes>,
    first: u32,
    /// Up to here, exclusively, they were sent since they were asked for last.
    sent: u32,
    asked_at: Time,
}

impl Giving {
    fn is_of(&self, to: Taker, name: CheckpointName) -> bool {
        (self.to, self.name) == (to, name)
    }

    fn made(&self) -> u32 {
        self.first + self.blocks.len() as u32
    }

    fn goes_on(&self) -> bool {
        self.writer.is_some() && self.blocks.len() < STATE_BLOCKS_AHEAD
    }

    fn is_idle(&self, now: Time) -> bool {
        now >= self.asked_at + Duration::from_secs(STATE_PATIENCE_SECS)
    }
}

impl Storage {
    /// Tells followers of groups that are led here which have to be given the state.
    pub(super) fn offer_states(&mut self, turn: &mut Turn, source: &impl Source) {
        if self.giving.is_some() || !turn.epoch_state.may_write() {
            return;
        }
        let next = self.next_taker.map(|((member, _), _)| member);
        self.next_taker = self.next_taker.and_then(|(next, offers)| Some((next, offers.checked_sub(1)?)));
        for (shard, peer, after) in source.lacking_state() {
            if let Some(member) =
                turn.member_of(peer).filter(|member| next.is_none_or(|next| next == *member))
            {
                turn.tell(ToPeers::One(member), shard, PeerMessage::StateOffered { shard, after });
            }
        }
    }

    /// Of what the log is to keep though followers are behind all of it.
    pub(super) fn kept_for_state(&self, now: Time) -> Option<(Resident, Index)> {
        let given = self.last_given.filter(|(.., at)| now < *at + Duration::from_secs(STATE_PATIENCE_SECS));
        let giving = self.giving.as_ref().map(|giving| (giving.of, giving.behind.next()));
        giving.or(given.map(|(of, behind, _)| (of, behind.next())))
    }

    /// A follower asks for a state, as that file, from a block on.
    pub fn on_state_wanted(
        &mut self,
        turn: &mut Turn,
        source: &mut impl Source,
        to: Taker,
        name: CheckpointName,
        from: u32,
    ) {
        let is_under_way = |giving: &Giving| giving.is_of(to, name);
        if from == 0 && !self.giving.as_ref().is_some_and(is_under_way) {
            // What it has asked for before it wants no more.
            let is_over = |giving: &Giving| giving.to == to || giving.is_idle(turn.now);
            if self.giving.as_ref().is_some_and(is_over) {
                self.end_giving(source);
            }
            if self.is_its_turn(to) {
                self.begin_giving(turn, source, to, name);
            }
        }
        let Some(giving) = self.giving.as_mut().filter(|giving| giving.is_of(to, name)) else {
            let CheckpointName { shard, file, .. } = name;
            return turn.tell(ToPeers::One(to.0), shard, PeerMessage::StateGone { shard, file });
        };
        giving.asked_at = turn.now;
        if from <= giving.first {
            // It has not come.
            giving.sent = giving.first;
        }
        while giving.first < from && giving.blocks.pop_front().is_some() {
            giving.first += 1;
        }
        giving.sent = giving.sent.max(giving.first);
        if giving.writer.is_none() && giving.blocks.is_empty() {
            turn.counters.paths.state_given += 1;
            self.last_given = Some((giving.of, giving.behind, turn.now));
            self.end_giving(source);
        }
    }

    /// Who was refused while another was given to comes before that one's next.
    fn is_its_turn(&mut self, to: Taker) -> bool {
        if self.giving.is_some() {
            self.next_taker.get_or_insert((to, STATE_OFFERS));
            return false;
        }
        let offers = self.next_taker.map_or(0, |(_, offers)| offers);
        assert!(offers <= STATE_OFFERS, "who is next is waited for a while: {offers}");
        let is_next = self.next_taker.is_none_or(|(next, _)| next == to);
        if is_next {
            self.next_taker = None;
        }
        is_next
    }

    fn begin_giving(&mut self, turn: &mut Turn, source: &mut impl Source, to: Taker, name: CheckpointName) {
        assert!(self.giving.is_none(), "one state is given at a time");
        let shard = name.shard;
        if !turn.epoch_state.may_write() || source.stands(shard).is_none() {
            return;
        }
        let Some(held) = source.hold(shard, *turn.settled) else { return };
        let mut meta = self.checkpoint_meta(turn, shard, &held, vec![]);
        (meta.home, meta.file) = (name.home, name.file);
        let mut blocks = vec![];
        let writer = Some(Writer::new(&meta, &mut blocks));
        let fields = vec![("shard", shard.to_string()), ("to", format!("{:x}", to.0.0))];
        turn.log_line(Level::Info, "giving a member the state: it lacks what the log has no more", fields);
        self.giving = Some(Giving {
            to,
            name,
            of: Resident { shard, home: held.home },
            behind: held.position.index,
            pin: held.pin,
            writer,
            after: At::default(),
            blocks: blocks.iter().map(as_bytes).collect(),
            first: 0,
            sent: 0,
            asked_at: turn.now,
        });
    }

    fn end_giving(&mut self, source: &mut impl Source) {
        if let Some(giving) = self.giving.take() {
            source.let_go(giving.name.shard, giving.pin);
        }
    }

    /// The shard's store is about to be another one, or its group is.
    pub(super) fn end_giving_of(&mut self, source: &mut impl Source, shard: ShardId) {
        if self.giving.as_ref().is_some_and(|giving| giving.name.shard == shard) {
            self.end_giving(source);
        }
    }

    /// One slice more of what is given, and what is made of it leaves.
    pub(super) fn give_state(&mut self, turn: &mut Turn, source: &mut impl Source) {
        if self.giving.as_ref().is_some_and(|giving| giving.is_idle(turn.now)) {
            self.end_giving(source);
        }
        let Some(giving) = &mut self.giving else { return };
        let shard = giving.name.shard;
        if giving.goes_on()
            && let Some(mut writer) = giving.writer.take()
        {
            let budget = Budget { bytes: CHECKPOINT_BLOCK_BYTES_MAX, ..turn.settings.slice.of_changes() };
            let history = source.slice(shard, giving.pin, false, giving.after, budget);
            assert!(history.resume >= giving.after, "a state goes forward through its history");
            let mut blocks: Vec<Buffer> = vec![];
            for (at, change) in &history.changes {
                writer.version(*at, &change.event, &mut blocks);
            }
            giving.after = history.resume;
            match history.done {
                true => _ = writer.finish(&mut blocks),
                false => giving.writer = Some(writer),
            }
            giving.blocks.extend(blocks.iter().map(as_bytes));
        }
        let (file, made) = (giving.name.file, giving.made());
        let upto = made.min(giving.first + STATE_BLOCKS_AHEAD as u32);
        for number in giving.sent..upto {
            let block = giving.blocks[(number - giving.first) as usize].clone();
            let is_last = giving.writer.is_none() && number + 1 == made;
            let message = PeerMessage::StateBlock { shard, file, number, is_last, block };
            turn.tell(ToPeers::One(giving.to.0), shard, message);
            giving.sent = number + 1;
        }
    }

    /// Whether the next turn goes on with it though no input comes.
    pub(super) fn has_state_to_give(&self) -> bool {
        self.giving.as_ref().is_some_and(Giving::goes_on)
    }

    /// When what nobody asks for is let go.
    pub fn giving_wakes_at(&self) -> Time {
        let asked = self.giving.as_ref().map(|giving| giving.asked_at);
        asked.map_or(Time::NEVER, |asked| asked + Duration::from_secs(STATE_PATIENCE_SECS))
    }
}

fn as_bytes(block: &Buffer) -> Bytes {
    Bytes::copy_from_slice(block)
}
