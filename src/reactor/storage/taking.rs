//! This member lacks what no log of the others has any more, and takes the state of a shard.
//!
//! **The question.** When does a state that comes from elsewhere take the place of what is here, so that a crash at
//! any point leaves one of the two, and nobody who reads sees the revision fall or a hole?
//!
//! **The rule.** What comes is checked as a file would be, written to a file, and read into a store of its own. Once
//! the file has its name, the log says in one record that it begins anew behind it: from then on it counts, and what
//! was acknowledged before is in it. The store that is here serves on until what this member shows has reached the
//! state's revision, or until this member takes over: see [`Source::install`].
//!
//! **Why not otherwise.** To write into the store that serves would show a state of no revision; to stop serving until
//! all shards have come would make a member that lags one that is down.

use super::{Source, Storage, Turn};
use crate::checkpoint::{CheckpointName, ControlState};
use crate::io::{BulkDone, BulkStep, JobId, Level, Output};
use crate::limits::{BLOCK_BYTES, STATE_BLOCKS_AHEAD, STATE_PATIENCE_SECS, STATE_RETRY_MS};
use crate::log::{Buffer, Checkpointed, Record};
use crate::peer::PeerMessage;
use crate::raft::Installing;
use crate::reactor::turn::ToPeers;
use crate::recover::{ArrivedState, Arriving};
use crate::types::{ConnId, Duration, Index, MemberId, ReactorId, ShardId, Time};
use bytes::Bytes;
use std::collections::BTreeMap;

/// The reactor of the leader that gives a state.
type Giver = (MemberId, ReactorId);

/// A state that comes.
pub(super) struct Taking {
    from: Giver,
    name: CheckpointName,
    job: JobId,
    doing: Doing,
    /// The block that is next, and those that have come before their turn.
    next: u32,
    come: BTreeMap<u32, (bool, Bytes)>,
    /// When it was asked for last, and when something came of it.
    asked_at: Time,
    heard_at: Time,
    /// The connection that brought the newest block.
    by: Option<ConnId>,
}

enum Doing {
    /// The file is being made.
    Creating(Box<Arriving>),
    /// The next block is on its way.
    Asking(Box<Arriving>),
    /// It goes to the disk; whether it is the last.
    Writing(Box<Arriving>, bool),
    /// The file gets its name.
    Naming(Box<ArrivedState>),
    /// All is there, and is to take the place of what is here.
    Done(Box<ArrivedState>),
}

impl Taking {
    fn is_of(&self, from: MemberId, shard: ShardId, file: u64) -> bool {
        (self.from.0, self.name.shard, self.name.file) == (from, shard, file)
    }
}

impl Storage {
    /// A leader's log begins behind an index that this member's peer has not reached.
    pub fn on_state_offered(
        &mut self,
        turn: &mut Turn,
        source: &impl Source,
        from: Giver,
        shard: ShardId,
        after: Index,
    ) {
        let Some((home, committed)) = source.stands(shard) else { return };
        if committed >= after {
            let upto = committed;
            return turn.tell(ToPeers::One(from.0), shard, PeerMessage::StateHeld { shard, upto });
        }
        if self.taking.is_some() || turn.now < self.retry_at {
            return;
        }
        self.last_file += 1;
        let name = CheckpointName { shard, home, file: self.last_file };
        let (job, arriving) = (self.next_job(), Box::new(Arriving::new(name)));
        let fields = vec![("shard", shard.to_string()), ("from", format!("{:x}", from.0.0))];
        turn.log_line(Level::Info, "taking the state of a shard: no log has what is missing here", fields);
        self.taking = Some(Taking {
            from,
            name,
            job,
            doing: Doing::Creating(arriving),
            next: 0,
            come: BTreeMap::new(),
            asked_at: turn.now,
            heard_at: turn.now,
            by: None,
        });
        turn.out.push(Output::Bulk { job, step: BulkStep::Create { name: name.unfinished() } });
    }

    /// Whoever gives what still has to come.
    pub fn takes_from(&self) -> Option<(MemberId, ReactorId)> {
        let comes = |taking: &&Taking| !matches!(taking.doing, Doing::Naming(_) | Doing::Done(_));
        self.taking.as_ref().filter(comes).map(|taking| taking.from)
    }

    /// A link to a giver has come up: what was asked for before is lost.
    pub fn ask_for_state(&mut self, turn: &mut Turn, giver: (MemberId, ReactorId)) {
        let waits = |taking: &&mut Taking| taking.from == giver && matches!(taking.doing, Doing::Asking(_));
        if let Some(taking) = self.taking.as_mut().filter(waits) {
            assert!(!taking.come.contains_key(&taking.next), "what has come is not asked for again");
            taking.asked_at = turn.now;
            ask(turn, taking.from, taking.name, taking.next);
        }
    }

    /// The member that gives has a block.
    pub fn on_state_block(
        &mut self,
        turn: &mut Turn,
        (from, by): (MemberId, ConnId),
        (shard, file, number): (ShardId, u64, u32),
        is_last: bool,
        block: Bytes,
    ) {
        let Some(taking) = self.taking.as_mut().filter(|taking| taking.is_of(from, shard, file)) else {
            return;
        };
        if (taking.next..taking.next + STATE_BLOCKS_AHEAD as u32).contains(&number) {
            taking.by = Some(by);
            taking.come.insert(number, (is_last, block));
        }
        self.write_block(turn);
    }

    /// The connection that brought what is no state, and what is wrong with that, if one did since this was asked last.
    pub fn take_misgiven(&mut self) -> Option<(ConnId, String)> {
        self.misgiven.take()
    }

    /// What has come is no state: that is the giver's fault, and nothing is taken for a while.
    fn refuse_state(&mut self, turn: &mut Turn, of: CheckpointName, by: Option<ConnId>, why: String) {
        self.give_taking_up(turn, of, of.unfinished(), &why);
        self.misgiven = by.map(|by| (by, why));
    }

    /// The next block goes to the disk, if it has come and the one before is there.
    fn write_block(&mut self, turn: &mut Turn) {
        let is_due = |taking: &mut Taking| {
            matches!(taking.doing, Doing::Asking(_)) && taking.come.contains_key(&taking.next)
        };
        let Some(mut taking) = self.taking.take_if(is_due) else { return };
        let (Doing::Asking(mut arriving), Some((is_last, block))) =
            (taking.doing, taking.come.remove(&taking.next))
        else {
            unreachable!("it is due")
        };
        if let Err(why) = arriving.take(&block) {
            return self.refuse_state(turn, taking.name, taking.by, why);
        }
        let mut bytes = Buffer::with_capacity(block.len().next_multiple_of(BLOCK_BYTES));
        bytes.extend(&block);
        taking.heard_at = turn.now;
        taking.doing = Doing::Writing(arriving, is_last);
        let step = BulkStep::Append { name: taking.name.unfinished(), blocks: vec![bytes] };
        turn.out.push(Output::Bulk { job: taking.job, step });
        self.taking = Some(taking);
    }

    /// The member that gave has it no more.
    pub fn on_state_gone(&mut self, turn: &mut Turn, from: MemberId, shard: ShardId, file: u64) {
        let is_it =
            |taking: &mut Taking| taking.is_of(from, shard, file) && matches!(taking.doing, Doing::Asking(_));
        if let Some(taking) = self.taking.take_if(is_it) {
            self.drop_file(turn, taking.name.unfinished());
        }
    }

    /// A step of the file is done. Whether it was this one's.
    pub(super) fn on_state_written(&mut self, turn: &mut Turn, job: JobId, done: &BulkDone) -> bool {
        let Some(mut taking) = self.taking.take_if(|taking| taking.job == job) else { return false };
        let unfinished = taking.name.unfinished();
        match done {
            BulkDone::Done => {}
            BulkDone::Full => {
                turn.raise_no_space(None);
                self.give_taking_up(turn, taking.name, unfinished, "no space left on device");
                return true;
            }
            BulkDone::Failed(why) => {
                self.give_taking_up(turn, taking.name, unfinished, why);
                return true;
            }
            BulkDone::Read(_) => unreachable!("a file that is written is not read"),
        }
        taking.doing = match taking.doing {
            Doing::Creating(arriving) => Doing::Asking(arriving),
            Doing::Writing(arriving, false) => {
                taking.next += 1;
                Doing::Asking(arriving)
            }
            Doing::Writing(arriving, true) => {
                taking.next += 1;
                // So that the other member lets go of it.
                ask(turn, taking.from, taking.name, taking.next);
                match arriving.finish() {
                    Ok(arrived) => {
                        let step = BulkStep::Publish { name: unfinished, as_name: taking.name.to_string() };
                        turn.out.push(Output::Bulk { job, step });
                        Doing::Naming(Box::new(arrived))
                    }
                    Err(why) => {
                        self.refuse_state(turn, taking.name, taking.by, why);
                        return true;
                    }
                }
            }
            Doing::Naming(arrived) => Doing::Done(arrived),
            Doing::Asking(_) | Doing::Done(_) => unreachable!("no step of the file is under way"),
        };
        if matches!(taking.doing, Doing::Asking(_)) {
            taking.asked_at = turn.now;
            ask(turn, taking.from, taking.name, taking.next);
        }
        self.taking = Some(taking);
        self.write_block(turn);
        true
    }

    /// Nothing is taken for a while; what there is of the state goes.
    fn give_taking_up(&mut self, turn: &mut Turn, of: CheckpointName, file: String, why: &str) {
        let fields = vec![("shard", of.shard.to_string()), ("error", why.to_owned())];
        turn.log_line(Level::Warn, "failed to take the state of a shard", fields);
        turn.counters.paths.state_given_up += 1;
        self.retry_at = self.retry_at.max(turn.now + Duration::from_secs(STATE_PATIENCE_SECS));
        self.drop_file(turn, file);
    }

    fn drop_file(&mut self, turn: &mut Turn, name: String) {
        let job = self.next_job();
        turn.out.push(Output::Bulk { job, step: BulkStep::Remove { name } });
    }

    /// Asks again for what has not come, and puts in its place what has come whole.
    pub(super) fn take_state(&mut self, turn: &mut Turn, source: &mut impl Source) {
        let Some(mut taking) = self.taking.take() else { return };
        match taking.doing {
            Doing::Done(arrived) => {
                match (misfit(turn, &arrived), source.installing(taking.name.shard, &arrived)) {
                    (Some(why), _) => self.give_taking_up(turn, taking.name, taking.name.to_string(), why),
                    (None, Installing::Now) if !self.is_busy_with(taking.name.shard) => {
                        self.install(turn, source, taking.name, *arrived)
                    }
                    // Where its own checkpoint has a step on its way, that is done first.
                    (None, Installing::Later | Installing::Now) => {
                        taking.doing = Doing::Done(arrived);
                        self.taking = Some(taking);
                    }
                    (None, Installing::Never) => self.drop_file(turn, taking.name.to_string()),
                }
            }
            Doing::Asking(_) if turn.now >= taking.heard_at + Duration::from_secs(STATE_PATIENCE_SECS) => {
                self.drop_file(turn, taking.name.unfinished());
            }
            Doing::Asking(_) if turn.now >= taking.asked_at + Duration::from_ms(STATE_RETRY_MS) => {
                taking.asked_at = turn.now;
                ask(turn, taking.from, taking.name, taking.next);
                self.taking = Some(taking);
            }
            _ => self.taking = Some(taking),
        }
    }

    fn install(
        &mut self,
        turn: &mut Turn,
        source: &mut impl Source,
        name: CheckpointName,
        arrived: ArrivedState,
    ) {
        let (shard, at, link) = (name.shard, arrived.at(), arrived.file);
        assert!(!self.is_busy_with(shard), "the own checkpoint's step that is on its way is waited for");
        if self.under_way_is_of(shard) {
            self.give_checkpoint_up(turn, source, "the member takes another's state");
        }
        self.end_giving_of(source, shard);
        let (revision, home) = (arrived.revision(), name.home);
        let (index, term) = (at.index, at.term);
        let record = Checkpointed { revision, index, term, file: link.file, home, hash: link.hash };
        self.append(shard, home, Record::Installed(record));
        self.checkpointed = self.appended;
        self.wakes_from_rest();
        self.installing.push_back((self.appended, shard));
        let stored = self.of.get_mut(&shard).expect("it was taken in");
        stored.base_has_no_room = false;
        for link in std::mem::replace(&mut stored.chain, vec![link]) {
            self.replaced.push_back((self.appended, link.name(shard).to_string()));
        }
        if let Some(control) = &arrived.meta.control {
            self.arrived_control = Some(control.clone());
        }
        turn.counters.paths.state_installed += 1;
        let fields = vec![("shard", shard.to_string()), ("revision", revision.to_string())];
        turn.log_line(Level::Info, "the log of a shard begins anew behind another member's state", fields);
        if let Err(strange) = source.install(shard, arrived) {
            turn.halt(strange.of_shard(shard));
        }
    }

    /// The control state that came with the control shard's, if it has come since this was asked last.
    pub fn take_arrived_control(&mut self) -> Option<ControlState> {
        self.arrived_control.take()
    }

    /// When it is asked again for a block.
    pub fn taking_wakes_at(&self) -> Time {
        let asking = self.taking.as_ref().filter(|taking| matches!(taking.doing, Doing::Asking(_)));
        asking.map_or(Time::NEVER, |taking| taking.asked_at + Duration::from_ms(STATE_RETRY_MS))
    }
}

/// Why the control state that came with a state does not go on from the one that is here.
fn misfit(turn: &Turn, arrived: &ArrivedState) -> Option<&'static str> {
    arrived.meta.control.as_ref().and_then(|control| turn.control.misfit(control))
}

/// Asks for a file's next block: all before it are written.
fn ask(turn: &mut Turn, (giver, _): Giver, name: CheckpointName, next: u32) {
    let CheckpointName { shard, home, file } = name;
    let message = PeerMessage::StateWanted { shard, home, file, from: next };
    turn.tell(ToPeers::One(giver), shard, message);
}
