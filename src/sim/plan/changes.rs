//! What operators have in mind: who becomes a member, and who is one no longer.

use super::faults::up_to_ms;
use super::{Event, OpKind, Shape, What};
use crate::stdx::Rng;
use crate::types::{Duration, Time};

/// Places for members that do not found the cluster.
pub const NEWCOMERS: usize = 3;
/// How many operators change something at the same time.
pub const OPERATORS: usize = 2;

/// One thing that an operator wants. Whom it concerns is chosen when its turn comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Somebody is to be a member, as a learner or to vote at once.
    Add {
        learns: bool,
        start: Start,
    },
    /// A learner is to vote.
    Promote,
    Remove {
        who: Who,
        then: Then,
    },
    /// Somebody is to be reached at another URL.
    Update,
    /// Somebody takes another's place: is added, is waited for, and the other one is removed.
    Replace {
        who: Who,
        then: Then,
    },
}

/// When the process of a member that was added is started first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    After(Duration),
    /// It dies after so many of its steps.
    AndDies {
        steps: u64,
    },
    /// Nobody starts it while things go wrong.
    Never,
}

/// Who is to go. Where there is no such member it is any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Any,
    Leader,
    /// The very member that is asked.
    Asked,
    /// One that is down.
    Down,
    /// One that came after the cluster's beginning.
    Newcomer,
}

/// What befalls a member once it is known that it was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    Nothing,
    /// It is killed at once, and not started before all is calm.
    Kill,
    /// Its machine goes, with the disk.
    Wipe,
}

impl Start {
    fn draw(rng: &mut Rng) -> Start {
        match rng.below(8) {
            0..3 => Start::After(Duration::from_us(1 + rng.below(1000))),
            3..5 => Start::After(up_to_ms(rng, 3000)),
            5 | 6 => Start::AndDies { steps: *rng.pick(&[20, 200, 2000, 5000]) },
            _ => Start::Never,
        }
    }
}

impl Then {
    fn draw(rng: &mut Rng) -> Then {
        *rng.pick(&[Then::Nothing, Then::Nothing, Then::Kill, Then::Wipe])
    }
}

impl Change {
    fn draw(rng: &mut Rng) -> Change {
        match rng.below(11) {
            0..3 => Change::Add { learns: true, start: Start::draw(rng) },
            3..5 => Change::Add { learns: false, start: Start::draw(rng) },
            5 => Change::Promote,
            6..9 => {
                let who =
                    *rng.pick(&[Who::Any, Who::Leader, Who::Leader, Who::Asked, Who::Down, Who::Newcomer]);
                Change::Remove { who, then: Then::draw(rng) }
            }
            9 => Change::Update,
            _ => Change::Replace { who: *rng.pick(&[Who::Any, Who::Leader]), then: Then::draw(rng) },
        }
    }
}

/// What operators want over the time of a run, while clients go on asking. What begins alone grows first.
pub(super) fn changes(seed: u64, shape: &Shape, span_ms: u64) -> Vec<Event> {
    let mut rng = Rng::new(seed ^ 0x0C4A_46E5);
    let mut events = vec![];
    let mut drawn = vec![];
    if shape.founders == 1 {
        for _ in 0..1 + rng.below(2) {
            let learns = rng.chance(1, 2);
            drawn.push(Change::Add { learns, start: Start::draw(&mut rng) });
            drawn.extend(learns.then_some(Change::Promote));
        }
    }
    drawn.extend((0..1 + rng.below(4)).map(|_| Change::draw(&mut rng)));
    let mut at = Time::from_ms(rng.below(1500));
    for change in drawn {
        let operator = if rng.chance(1, 3) { rng.below(OPERATORS as u64) as usize } else { 0 };
        events.push(Event { at, salt: rng.next_u64(), what: What::Change { operator, change } });
        for n in 0..6 {
            let at = at + up_to_ms(&mut rng, 300);
            let what = What::Ask {
                client: n % shape.clients,
                op: [OpKind::Put, OpKind::Members, OpKind::Txn][n % 3],
            };
            events.push(Event { at, salt: rng.next_u64(), what });
        }
        // Some come while the one before is under way.
        let soon = rng.chance(1, 4);
        at = at + up_to_ms(&mut rng, if soon { 20 } else { span_ms / 2 });
    }
    events
}
