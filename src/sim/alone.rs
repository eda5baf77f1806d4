//! What must hold where all members but one are lost for ever, and that one is started to go on alone: nothing is lost
//! of what had been settled, it serves, and whenever it dies on the way, it comes to the same.

use super::hits::Hit;
use super::member::Death;
use super::run::{PATIENCE, Run};
use super::workload::KEYS;
use super::world::Failure;
use crate::stdx::Rng;
use crate::types::Duration;
use crate::wire::Method;
use crate::wire::proto::{self, Message};
use bytes::Bytes;

/// How often its process dies on the way, at most, and after how many of its steps.
const DEATHS_MAX: u64 = 4;
const STEPS_MAX: u64 = 400;
const LOOK_EVERY: Duration = Duration::from_ms(10);
/// Longer than it takes until the one that is left has taken in what it was asked for.
const TAKEN_IN: Duration = Duration::from_ms(200);

impl Run<'_> {
    /// The machines of all members but one go, with their disks.
    pub(super) fn go_on_alone(&mut self) -> Result<(), Failure> {
        let mut rng = Rng::new(self.plan.seed ^ 0x0A10_4E00);
        if !self.plan.shape.changes() || rng.chance(1, 2) {
            return Ok(());
        }
        let leader = self.world.leader().filter(|leader| self.world.serving.contains(leader));
        let last = leader.filter(|_| rng.chance(1, 2)).unwrap_or_else(|| self.world.draw_member(&mut rng));
        let others: Vec<usize> = self.world.serving.iter().copied().filter(|at| *at != last).collect();
        self.world.trace.line(self.world.now, || format!("m{last} goes on alone, without {others:?}"));
        self.world.hits.count(Hit::WentAlone);
        let death = *rng.pick(&[Death::Kill, Death::PowerLoss]);
        self.write_into_the_void(last, &others)?;
        others.iter().for_each(|other| self.world.wipe(*other));
        self.world.serving = vec![last];
        let since = self.world.history.moment(self.world.now);
        self.world.history.known.alone = Some((self.world.identity(last).id, since));
        self.world.die(last, death);
        self.world.members[last].alone.is_forced = true;
        for _ in 0..rng.below(DEATHS_MAX + 1) {
            self.await_life(last)?;
            self.world.members[last].dying = Some((rng.below(STEPS_MAX), death));
            // What has begun is ended, whether its operator says so once more or not.
            self.world.members[last].alone.is_forced = rng.chance(1, 2);
            let until = self.world.now + Duration::from_secs(1);
            while self.world.is_up(last) && self.world.now < until {
                self.advance(self.world.now + LOOK_EVERY)?;
            }
        }
        self.world.calm();
        self.await_life(last)?;
        self.serve_again(&[last], "after all others were lost for ever")?;
        let list = self.list_members()?;
        if list.len() != 1 || self.world.place_of(&list[0]) != Some(last) || list[0].is_learner {
            return Err(Failure::new("members", format!("m{last} is not alone: {list:?}")));
        }
        if self.world.members[last].alone.is_to_be {
            return Err(Failure::new("members", format!("m{last} serves alone and has yet to be alone")));
        }
        self.world.die(last, death);
        self.recover("after one that goes on alone was started again")
    }

    /// What is asked of a member that reaches no other one: whether it becomes of that what it will, or was never.
    fn write_into_the_void(&mut self, last: usize, others: &[usize]) -> Result<(), Failure> {
        let until = self.world.now + PATIENCE;
        for other in others {
            self.world.links.stall(last, *other, until);
            self.world.links.stall(*other, last, until);
        }
        self.world.connect_with(0, last);
        for key in KEYS {
            let put = proto::PutRequest { key: Bytes::from(key), value: self.mark(), ..Default::default() };
            self.world.call(0, Method::Put, put.encode_to_vec().into());
        }
        self.advance(self.world.now + TAKEN_IN)
    }

    fn await_life(&mut self, member: usize) -> Result<(), Failure> {
        let until = self.world.now + PATIENCE;
        while !self.world.is_up(member) {
            if self.world.now > until {
                return Err(Failure::new("liveness", format!("m{member} does not come back")));
            }
            self.advance(self.world.now + LOOK_EVERY)?;
        }
        Ok(())
    }
}
