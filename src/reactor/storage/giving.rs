//! A follower that lacks what no log has any more is given the state.
//!
//! **The question.** Its log ends where all others' have begun anew. How does it get megabytes of state while the
//! shard that has them goes on, and while the connection breaks and comes back?
//!
//! **The rule.** Its leader offers the state; the follower asks for it block by block, each time it has written one.
//! What is given is a checkpoint of what is settled here at the first question, held until the last block is written
//! there: made slice by slice as for a file of this member's, but under the follower's name for it, and sent instead
//! of written. A few blocks are made ahead, and are in memory until they are asked past; so a question that is asked
//! again is answered again. Meanwhile, and until the follower has taken that too, the log keeps what comes behind the
//! state: `pace.rs` has the price. Each member is given one state at a time, whatever the others are given: one whose
//! disk hangs holds up nobody but itself.
//!
//! **Why not otherwise.** To send the files of the last checkpoint would read from the disk what is in memory, and
//! would have to keep all the log since. To push blocks at the line's pace would pile them up where the disk is
//! slower.

use super::{FollowerFigures, Source, Storage, Turn};
use crate::checkpoint::{CheckpointName, Writer};
use crate::io::Level;
use crate::limits::{CHECKPOINT_BLOCK_BYTES_MAX, STATE_BLOCKS_AHEAD, STATE_OFFERS, STATE_PATIENCE_SECS};
use crate::log::{Buffer, Resident};
use crate::mvcc::{Budget, PinId};
use crate::peer::PeerMessage;
use crate::reactor::turn::ToPeers;
use crate::types::{At, ConnId, Duration, Index, MemberId, ReactorId, ShardId, Time};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};

/// The reactor of a follower that takes a state, one at a time.
pub(super) type Taker = (MemberId, ReactorId);

/// What a member is given.
#[derive(Default)]
pub(super) struct StateLane {
    giving: Option<Giving>,
    /// The reactor that was refused while another was given to, and for how many offers it is waited for.
    next_taker: Option<(ReactorId, u32)>,
    /// Those that were given whole, behind which the member takes the log now.
    given: BTreeMap<Resident, GivenState>,
}

/// A state that is there.
struct GivenState {
    /// Up to here the follower has everything, once it has put the state in its place.
    upto: Index,
    /// Whether that is to come yet, or it lacks much of what follows; and when that was last seen to get less.
    lags: bool,
    moved_at: Time,
}

/// A state on its way to a follower.
pub(super) struct Giving {
    to: Taker,
    /// The connection on which it was asked for last.
    by: ConnId,
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

    /// Whether a slice is to be made, or a block to be sent.
    fn has_more(&self) -> bool {
        self.goes_on() || self.sent < self.made().min(self.first + STATE_BLOCKS_AHEAD as u32)
    }

    fn is_idle(&self, now: Time) -> bool {
        now >= self.asked_at + Duration::from_secs(STATE_PATIENCE_SECS)
    }
}

impl StateLane {
    /// Of what the log is to keep whole.
    fn kept(&self) -> impl Iterator<Item = (Resident, Index)> {
        let giving = self.giving.as_ref().map(|giving| (giving.of, giving.behind.next()));
        // Entries are given with the term of the one before the first.
        giving.into_iter().chain(self.given.iter().map(|(of, given)| (*of, given.upto)))
    }

    /// Who was refused while another was given to comes before that one's next.
    fn is_turn_of(&mut self, reactor: ReactorId) -> bool {
        if self.giving.is_some() {
            self.next_taker.get_or_insert((reactor, STATE_OFFERS));
            return false;
        }
        let offers = self.next_taker.map_or(0, |(_, offers)| offers);
        assert!(offers <= STATE_OFFERS, "who is next is waited for a while: {offers}");
        let is_next = self.next_taker.is_none_or(|(next, _)| next == reactor);
        if is_next {
            self.next_taker = None;
        }
        is_next
    }
}

impl Storage {
    /// Tells followers of groups that are led here which have to be given the state.
    pub(super) fn offer_states(&mut self, turn: &mut Turn, source: &impl Source) {
        if !turn.epoch_state.may_write() {
            return;
        }
        for lane in self.lanes.values_mut().filter(|lane| lane.giving.is_none()) {
            lane.next_taker = lane.next_taker.and_then(|(next, offers)| Some((next, offers.checked_sub(1)?)));
        }
        for (shard, peer, after) in source.lacking_state() {
            if let Some(member) = turn.member_of(peer).filter(|member| !self.gives_to(*member)) {
                turn.tell(ToPeers::One(member), shard, PeerMessage::StateOffered { shard, after });
            }
        }
    }

    fn gives_to(&self, member: MemberId) -> bool {
        self.lanes.get(&member).is_some_and(|lane| lane.giving.is_some())
    }

    /// Of what the log is to keep whole, for followers that are given states or have been.
    pub(super) fn kept_for_states(&self) -> BTreeMap<Resident, Index> {
        let mut kept = BTreeMap::new();
        for (resident, from) in self.lanes.values().flat_map(StateLane::kept) {
            let least = kept.entry(resident).or_insert(from);
            *least = from.min(*least);
        }
        kept
    }

    /// Whether a follower takes a state, or what it needs behind one.
    pub(super) fn anybody_returns(&self) -> bool {
        let returns = |lane: &StateLane| lane.giving.is_some() || lane.given.values().any(|given| given.lags);
        self.lanes.values().any(returns)
    }

    /// Takes note of how far the followers are that states were given to, until they lack nothing, or little for a
    /// while, or take nothing.
    pub(super) fn hear_of_given(&mut self, turn: &Turn, followers: &[FollowerFigures]) {
        let little = turn.settings.bounds.behind_entries_max;
        for follower in followers {
            let lane = turn.member_of(follower.peer).and_then(|member| self.lanes.get_mut(&member));
            let Some(lane) = lane else { continue };
            let Some(given) = lane.given.get_mut(&follower.resident) else { continue };
            if follower.matched < given.upto {
                continue;
            }
            assert!(follower.matched <= follower.last, "a follower has nothing that its leader has not");
            given.lags = follower.matched.0.saturating_add(little) < follower.last.0;
            if given.lags && follower.matched > given.upto {
                given.moved_at = turn.now;
            }
            given.upto = follower.matched;
            if follower.matched == follower.last {
                lane.given.remove(&follower.resident);
            }
        }
        let patience = Duration::from_secs(STATE_PATIENCE_SECS);
        for lane in self.lanes.values_mut() {
            lane.given.retain(|_, given| turn.now < given.moved_at + patience);
        }
        // Members come and go, and each has another id.
        self.lanes
            .retain(|_, lane| lane.giving.is_some() || lane.next_taker.is_some() || !lane.given.is_empty());
    }

    /// A follower asks for a state, as that file, from a block on.
    pub fn on_state_wanted(
        &mut self,
        turn: &mut Turn,
        source: &mut impl Source,
        (to, by): (Taker, ConnId),
        name: CheckpointName,
        from: u32,
    ) {
        let lane = self.lanes.entry(to.0).or_default();
        let is_under_way = |giving: &Giving| giving.is_of(to, name);
        if from == 0 && !lane.giving.as_ref().is_some_and(is_under_way) {
            // What it has asked for before it wants no more.
            let is_over = |giving: &mut Giving| giving.to == to || giving.is_idle(turn.now);
            end(source, lane.giving.take_if(is_over));
            if lane.is_turn_of(to.1) {
                self.begin_giving(turn, source, (to, by), name);
            }
        }
        let lane = self.lanes.get_mut(&to.0).expect("it has a lane");
        let Some(giving) = lane.giving.as_mut().filter(|giving| giving.is_of(to, name)) else {
            let CheckpointName { shard, file, .. } = name;
            return turn.tell(ToPeers::Asker(by), shard, PeerMessage::StateGone { shard, file });
        };
        (giving.asked_at, giving.by) = (turn.now, by);
        if from <= giving.first {
            // It has not come.
            giving.sent = giving.first;
        }
        while giving.first < from
            && let Some(block) = giving.blocks.pop_front()
        {
            giving.first += 1;
            self.pace.taken(block.len());
        }
        giving.sent = giving.sent.max(giving.first);
        if giving.writer.is_none() && giving.blocks.is_empty() {
            turn.counters.paths.state_given += 1;
            lane.given.insert(giving.of, GivenState { upto: giving.behind, lags: true, moved_at: turn.now });
            end(source, lane.giving.take());
        }
    }

    fn begin_giving(
        &mut self,
        turn: &mut Turn,
        source: &mut impl Source,
        (to, by): (Taker, ConnId),
        name: CheckpointName,
    ) {
        assert!(!self.gives_to(to.0), "a member is given one state at a time");
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
        self.lanes.entry(to.0).or_default().giving = Some(Giving {
            to,
            by,
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

    /// The shard's store is about to be another one, or its group is.
    pub(super) fn end_giving_of(&mut self, source: &mut impl Source, shard: ShardId) {
        for lane in self.lanes.values_mut() {
            end(source, lane.giving.take_if(|giving| giving.name.shard == shard));
        }
    }

    /// One slice more of what is given, to one member after the other, and what is made of it leaves.
    pub(super) fn give_state(&mut self, turn: &mut Turn, source: &mut impl Source) {
        for lane in self.lanes.values_mut() {
            end(source, lane.giving.take_if(|giving| giving.is_idle(turn.now)));
        }
        let gives = |(of, lane): (&MemberId, &StateLane)| {
            lane.giving.as_ref().is_some_and(Giving::has_more).then_some(*of)
        };
        let mut behind = self.lanes.range((Excluded(self.served), Unbounded)).filter_map(gives);
        let Some(next) = behind.next().or_else(|| self.lanes.iter().find_map(gives)) else { return };
        drop(behind);
        self.served = next;
        let giving = self.lanes.get_mut(&next).and_then(|lane| lane.giving.as_mut()).expect("it has more");
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
            turn.tell(ToPeers::Asker(giving.by), shard, message);
            giving.sent = number + 1;
        }
    }

    /// Whether the next turn goes on with it though no input comes.
    pub(super) fn has_state_to_give(&self) -> bool {
        self.lanes.values().any(|lane| lane.giving.as_ref().is_some_and(Giving::has_more))
    }

    /// When what nobody asks for is let go.
    pub fn giving_wakes_at(&self) -> Time {
        let asked = self.lanes.values().filter_map(|lane| Some(lane.giving.as_ref()?.asked_at)).min();
        asked.map_or(Time::NEVER, |asked| asked + Duration::from_secs(STATE_PATIENCE_SECS))
    }
}

/// What was given is not given any more.
fn end(source: &mut impl Source, giving: Option<Giving>) {
    if let Some(giving) = giving {
        source.let_go(giving.name.shard, giving.pin);
    }
}

fn as_bytes(block: &Buffer) -> Bytes {
    Bytes::copy_from_slice(block)
}
