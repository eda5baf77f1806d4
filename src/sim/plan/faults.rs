//! What may go wrong, and what a seed has go wrong.

use super::Shape;
use crate::stdx::Rng;
use crate::types::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A fault of the member at this place.
    Member(usize, MemberFault),
    /// A fault of whoever leads then.
    Leader(MemberFault),
    /// A fault of the link from one member to another.
    Link {
        from: usize,
        to: usize,
        fault: LinkFault,
    },
    /// Some members and all others are cut off from each other for so long.
    Cut {
        off: Off,
        way: Way,
        span: Duration,
    },
    /// The world's time jumps, and with it all clocks.
    Jump(Duration),
    /// A client stops reading.
    Stall {
        client: usize,
        span: Duration,
    },
    Disconnect {
        client: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Off {
    /// The members at these places, a bit for each.
    Places(u64),
    /// Whoever leads then, and so many others with it.
    Leader { with: usize },
}

/// In which direction nothing arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Both,
    /// Who is cut off hears nothing.
    In,
    /// Nobody hears who is cut off.
    Out,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkFault {
    /// One of the connections of the two members breaks, or all of them.
    BreakOne,
    BreakAll,
    /// Nothing arrives for so long.
    Stall(Duration),
    /// Nor on the way back.
    StallBothWays(Duration),
    /// What is sent takes up to so long, for so long.
    Delay(Duration, Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberFault {
    /// The process dies, after so many more of its steps.
    Kill {
        steps: u64,
    },
    PowerLoss {
        steps: u64,
    },
    /// The process is told to end.
    Stop,
    /// Every operation takes up to so long, for so long.
    SlowDisk(Duration, Duration),
    HungDisk(Duration),
    FullDisk(Duration),
    /// All operations fail; the device comes back later.
    DeadDisk(Duration),
    /// So many steps of the bulk lane fail, which the process outlives.
    FailedSteps(u64),
    /// One of its reactors stands still.
    Pause(Duration),
    /// All of them do, and its clock goes on.
    Freeze(Duration),
    Depose,
    /// Mail between one pair of reactors takes up to so long, for so long.
    SlowMail(Duration, Duration),
    /// The next start meets an error of reading.
    UnreadableStart,
}

/// Kinds of faults: of a member, of links, and of several members.
pub(super) const FAULTS: u64 = 15;
pub(super) const LINK_FAULTS: u64 = 5;
pub(super) const CLUSTER_FAULTS: u64 = 4;
const LINKS: u64 = FAULTS + LINK_FAULTS;
const FREEZE: u64 = LINKS + 1;
/// The longest way of a mail, ever.
pub const SLOW_MAIL_MAX: Duration = Duration::from_ms(400);

impl Fault {
    pub(super) fn draw(rng: &mut Rng, kind: u64, shape: &Shape) -> Fault {
        let client = |rng: &mut Rng| rng.below(shape.clients as u64) as usize;
        match kind {
            6 => Fault::Jump(up_to_ms(rng, if shape.members.len() > 1 { 2500 } else { 8000 })),
            10 => Fault::Stall { client: client(rng), span: up_to_ms(rng, 4000) },
            11 => Fault::Disconnect { client: client(rng) },
            // Where there are others, messages depose.
            8 if shape.members.len() > 1 => Fault::Leader(MemberFault::Freeze(up_to_ms(rng, 3000))),
            0..FAULTS => Fault::Member(shape.draw_member(rng), MemberFault::draw(rng, kind)),
            FAULTS..LINKS => {
                let from = shape.draw_member(rng);
                let to =
                    (from + 1 + rng.below(shape.members.len() as u64 - 1) as usize) % shape.members.len();
                Fault::Link { from, to, fault: LinkFault::draw(rng, kind - FAULTS) }
            }
            LINKS => {
                let off = Off::Places(1 + rng.below((1 << shape.members.len()) - 2));
                Fault::Cut { off, way: Way::draw(rng), span: up_to_ms(rng, 4000) }
            }
            FREEZE => {
                let longest_ms = *rng.pick(&[300, 5000]);
                let span = up_to_ms(rng, longest_ms);
                Fault::Member(shape.draw_member(rng), MemberFault::Freeze(span))
            }
            _ => Fault::draw_of_leader(rng, shape),
        }
    }

    /// What strikes whoever leads.
    pub(super) fn draw_of_leader(rng: &mut Rng, shape: &Shape) -> Fault {
        match rng.below(8) {
            0..4 => {
                let with = rng.below(shape.members.len() as u64 / 2) as usize;
                Fault::Cut { off: Off::Leader { with }, way: Way::draw(rng), span: up_to_ms(rng, 4000) }
            }
            4 => Fault::Leader(MemberFault::Freeze(up_to_ms(rng, 4000))),
            5 => Fault::Leader(MemberFault::Kill { steps: rng.below(60) }),
            6 => Fault::Leader(MemberFault::PowerLoss { steps: rng.below(60) }),
            _ => Fault::Leader(MemberFault::HungDisk(up_to_ms(rng, 4000))),
        }
    }

    /// The member whose process dies.
    pub(super) fn ends_process_of(&self) -> Option<usize> {
        match self {
            Fault::Member(member, MemberFault::Kill { .. } | MemberFault::PowerLoss { .. }) => Some(*member),
            _ => None,
        }
    }
}

impl Way {
    fn draw(rng: &mut Rng) -> Way {
        *rng.pick(&[Way::Both, Way::Both, Way::In, Way::Out])
    }
}

impl LinkFault {
    fn draw(rng: &mut Rng, kind: u64) -> LinkFault {
        match kind {
            0 => LinkFault::BreakOne,
            1 => LinkFault::BreakAll,
            2 => LinkFault::Stall(up_to_ms(rng, 3000)),
            3 => LinkFault::StallBothWays(up_to_ms(rng, 3000)),
            _ => LinkFault::Delay(up_to_ms(rng, 500), up_to_ms(rng, 2000)),
        }
    }
}

impl MemberFault {
    pub(super) fn draw(rng: &mut Rng, kind: u64) -> MemberFault {
        match kind {
            0 => MemberFault::Kill { steps: rng.below(60) },
            1 | 12 | 13 => MemberFault::PowerLoss { steps: rng.below(60) },
            2 => MemberFault::SlowDisk(up_to_ms(rng, 300), up_to_ms(rng, 2000)),
            3 => MemberFault::HungDisk(up_to_ms(rng, 12_000)),
            4 => MemberFault::FullDisk(up_to_ms(rng, 2000)),
            5 => MemberFault::DeadDisk(up_to_ms(rng, 1000)),
            7 => MemberFault::Pause(if rng.chance(1, 4) { up_to_ms(rng, 9000) } else { up_to_ms(rng, 50) }),
            8 => MemberFault::Depose,
            9 => MemberFault::SlowMail(up_to_ms(rng, SLOW_MAIL_MAX.0 / 1_000_000), up_to_ms(rng, 2000)),
            14 => MemberFault::FailedSteps(1 + rng.below(4)),
            _ => unreachable!("kind {kind} is no member's"),
        }
    }
}

pub(super) fn up_to_ms(rng: &mut Rng, most: u64) -> Duration {
    Duration::from_us(1 + rng.below(most * 1000))
}
