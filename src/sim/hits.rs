//! What went wrong in a run, counted where it did something: a fault drawn that meets nothing proves nothing.

use crate::io::Paths;
use std::ops::AddAssign;

/// Something that went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hit {
    /// The process died between turns, within one, while it started.
    Kill,
    KillInTurn,
    KillInStart,
    PowerLoss,
    PowerLossInTurn,
    PowerLossInStart,
    /// The power went while the process was down already.
    PowerLossWhileDown,
    /// The power went with several durable writes of one file in flight.
    TwoInFlight,
    /// What became of a write that no completed sync covers.
    WriteLost,
    WriteKept,
    WriteTorn,
    /// A block changed, and the member refused to start.
    Rot,
    /// So did one for which a log's end, or a write, was lost, or whose files were not what they were.
    TailLost,
    DurableWriteLost,
    DurableWriteMisdirected,
    FilesExchanged,
    FileTruncated,
    OldFiles,
    FileMissing,
    /// Any of these lost nothing, or what nobody could know.
    DamageHarmless,
    DamageUnknowable,
    /// A start met an error of reading, or a full disk.
    UnreadableStart,
    FullStart,
    /// A write found no room.
    FullDisk,
    /// The disk was asked for something while it was slow, or did nothing.
    SlowDisk,
    HungDisk,
    /// A step of the bulk lane failed.
    FailedStep,
    /// The process stopped, as its disk failed.
    DeadDisk,
    /// The clock jumped under a process.
    Jump,
    /// A reactor went on while another, with work to do, was paused.
    Pause,
    /// A group was lost, and the epoch ended within the process.
    EpochEnd,
    /// Mail came after the end of its epoch.
    LateMail,
    /// A client with something to read did not; one was cut off.
    Stall,
    Disconnect,
    /// The rest befalls only several members. A link that was slow or stalled was to carry something; a connection
    /// broke; nobody was there to connect with, or nobody answered.
    SlowLink,
    StalledLink,
    BrokenConnection,
    DialRefused,
    DialTimedOut,
    /// A process stood still as a whole.
    Freeze,
    /// Members were cut off from others, whoever led among them or not.
    MembersCutOff,
    LeaderCutOff,
    /// Something else befell whoever led; a member could not reach it.
    LeaderStruck,
    LeaderOutOfReach,
    /// A process was told to end.
    Stopped,
}

impl Hit {
    pub const ALL: [Hit; 45] = [
        Hit::Kill,
        Hit::KillInTurn,
        Hit::KillInStart,
        Hit::PowerLoss,
        Hit::PowerLossInTurn,
        Hit::PowerLossInStart,
        Hit::PowerLossWhileDown,
        Hit::TwoInFlight,
        Hit::WriteLost,
        Hit::WriteKept,
        Hit::WriteTorn,
        Hit::Rot,
        Hit::TailLost,
        Hit::DurableWriteLost,
        Hit::DurableWriteMisdirected,
        Hit::FilesExchanged,
        Hit::FileTruncated,
        Hit::OldFiles,
        Hit::FileMissing,
        Hit::DamageHarmless,
        Hit::DamageUnknowable,
        Hit::UnreadableStart,
        Hit::FullStart,
        Hit::FullDisk,
        Hit::SlowDisk,
        Hit::HungDisk,
        Hit::FailedStep,
        Hit::DeadDisk,
        Hit::Jump,
        Hit::Pause,
        Hit::EpochEnd,
        Hit::LateMail,
        Hit::Stall,
        Hit::Disconnect,
        Hit::SlowLink,
        Hit::StalledLink,
        Hit::BrokenConnection,
        Hit::DialRefused,
        Hit::DialTimedOut,
        Hit::Freeze,
        Hit::MembersCutOff,
        Hit::LeaderCutOff,
        Hit::LeaderStruck,
        Hit::LeaderOutOfReach,
        Hit::Stopped,
    ];

    /// Whether it befalls only several members.
    fn needs_several(self) -> bool {
        self as usize >= Hit::SlowLink as usize
    }
}

/// Of [`Paths::NAMES`] those that only several members go.
const WAYS_OF_SEVERAL: &[&str] = &[
    "takeover_given_up",
    "leader_gave_up",
    "group_wanted",
    "hand_over_begun",
    "hand_over_failed",
    "state_given",
    "state_installed",
    "forwarded",
    "forwarded_anew",
    "forwarded_lost",
];

/// How often each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hits([u64; Hit::ALL.len()]);

impl Default for Hits {
    fn default() -> Hits {
        Hits([0; Hit::ALL.len()])
    }
}

impl Hits {
    pub fn count(&mut self, hit: Hit) {
        self.0[hit as usize] += 1;
    }

    pub fn of(&self, hit: Hit) -> u64 {
        self.0[hit as usize]
    }
}

impl AddAssign for Hits {
    fn add_assign(&mut self, more: Hits) {
        for (count, more) in self.0.iter_mut().zip(more.0) {
            *count += more;
        }
    }
}

/// What a run, or many, met: faults that hit something, and ways that the program went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub hits: Hits,
    pub paths: Paths,
    /// Runs of several members.
    pub clusters: u64,
}

impl Tally {
    pub fn faults(&self) -> Vec<(String, u64)> {
        Hit::ALL.iter().map(|hit| (format!("{hit:?}"), self.hits.of(*hit))).collect()
    }

    pub fn ways(&self) -> Vec<(String, u64)> {
        Paths::NAMES.iter().map(ToString::to_string).zip(self.paths.counts()).collect()
    }

    /// The faults that never hit anything, of those that could have.
    pub fn missing_faults(&self) -> Vec<String> {
        let possible = Hit::ALL.iter().filter(|hit| self.clusters > 0 || !hit.needs_several());
        possible.filter(|hit| self.hits.of(**hit) == 0).map(|hit| format!("{hit:?}")).collect()
    }

    /// What never came to pass.
    pub fn missing(&self) -> Vec<String> {
        let possible = |name: &String| self.clusters > 0 || !WAYS_OF_SEVERAL.contains(&name.as_str());
        let ways = self.ways().into_iter().filter(|(_, count)| *count == 0).map(|(name, _)| name);
        self.missing_faults().into_iter().chain(ways.filter(possible)).collect()
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, more: Tally) {
        self.hits += more.hits;
        self.paths.add(&more.paths);
        self.clusters += more.clusters;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_lone_member_is_asked_what_it_can_do() {
        let names = |clusters| Tally { clusters, ..Tally::default() }.missing();
        let (alone, all) = (names(0), names(1));
        assert_eq!(all.len(), Hit::ALL.len() + Paths::NAMES.len());
        let left_out: Vec<_> = all.iter().filter(|name| !alone.contains(name)).cloned().collect();
        let several = Hit::ALL.iter().filter(|hit| hit.needs_several()).map(|hit| format!("{hit:?}"));
        let expected: Vec<_> = several.chain(WAYS_OF_SEVERAL.iter().map(|way| (*way).to_owned())).collect();
        assert_eq!(left_out, expected);
    }
}
