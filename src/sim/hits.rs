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
    /// The rest befalls only members that come and go. One was started that had been added; its process ended as it
    /// was removed, and so did one that was started nevertheless; its machine went as soon as it was known.
    Joined,
    Left,
    LeftAgain,
    Wiped,
    /// A change was asked for while another one was under way.
    ChangesTogether,
    /// All others were lost for ever, and one went on alone.
    WentAlone,
}

impl Hit {
    pub const ALL: [Hit; 51] = [
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
        Hit::Joined,
        Hit::Left,
        Hit::LeftAgain,
        Hit::Wiped,
        Hit::ChangesTogether,
        Hit::WentAlone,
    ];

    /// Whether it befalls only several members.
    fn needs_several(self) -> bool {
        self as usize >= Hit::SlowLink as usize && !self.needs_changes()
    }

    /// Whether it befalls only members that come and go.
    fn needs_changes(self) -> bool {
        self as usize >= Hit::Joined as usize
    }
}

/// Of [`Paths::NAMES`] those that only several members go.
const WAYS_OF_SEVERAL: &[&str] = &[
    "takeover_given_up",
    "leader_gave_up",
    "group_wanted",
    "group_taken",
    "group_handed_over",
    "stood_for_lost_leader",
    "vote_outdated",
    "vote_of_laggard",
    "sleep_not_counted",
    "expiry_asked_first",
    "hand_over_begun",
    "hand_over_done",
    "hand_over_failed",
    "shown_at_start",
    "rest_disturbed",
    "answer_waited_for_coverage",
    "read_waited_for_coverage",
    "round_asked_anew",
    "follower_fell_behind",
    "follower_caught_up",
    "state_given",
    "state_installed",
    "log_paced",
    "forwarded",
    "forwarded_late",
    "forwarded_anew",
    "forwarded_lost",
];

/// Those that only members go that come and go.
const WAYS_OF_CHANGES: &[&str] = &[
    "member_added",
    "member_promoted",
    "member_removed",
    "leader_removed_itself",
    "member_change_waited",
    "intent_carried_on",
    "members_heard_of",
];

/// Those that only several members go, and too rarely to ask for them: some seeds in a hundred do.
const RARE_WAYS: &[&str] = &["vote_of_leaver", "state_given_up"];

/// Those that every run goes in time, and that several members go otherwise than a lone one.
const WAYS_OF_ALL: &[&str] = &["epoch_undone", "write_voided", "shown_by_coverage"];

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
    /// Runs of several members, and those in which members come and go.
    pub clusters: u64,
    pub changing: u64,
}

impl Tally {
    pub fn faults(&self) -> Vec<(String, u64)> {
        Hit::ALL.iter().map(|hit| (format!("{hit:?}"), self.hits.of(*hit))).collect()
    }

    pub fn ways(&self) -> Vec<(String, u64)> {
        Paths::NAMES.iter().map(ToString::to_string).zip(self.paths.counts()).collect()
    }

    /// The faults that never hit anything, of those that are asked for: a lone member's are left to runs of such.
    pub fn missing_faults(&self) -> Vec<String> {
        let asked = Hit::ALL.iter().filter(|hit| match self.changing {
            0 => hit.needs_several() == (self.clusters > 0) && !hit.needs_changes(),
            _ => hit.needs_changes(),
        });
        asked.filter(|hit| self.hits.of(**hit) == 0).map(|hit| format!("{hit:?}")).collect()
    }

    /// What never came to pass, of what is asked for.
    pub fn missing(&self) -> Vec<String> {
        let asked = |name: &String| {
            if RARE_WAYS.contains(&name.as_str()) {
                return false;
            }
            if self.changing > 0 || WAYS_OF_CHANGES.contains(&name.as_str()) {
                return self.changing > 0 && WAYS_OF_CHANGES.contains(&name.as_str());
            }
            let is_ours = WAYS_OF_SEVERAL.contains(&name.as_str()) == (self.clusters > 0);
            is_ours || WAYS_OF_ALL.contains(&name.as_str())
        };
        let ways = self.ways().into_iter().filter(|(_, count)| *count == 0).map(|(name, _)| name);
        self.missing_faults().into_iter().chain(ways.filter(asked)).collect()
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, more: Tally) {
        self.hits += more.hits;
        self.paths.add(&more.paths);
        self.clusters += more.clusters;
        self.changing += more.changing;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_lone_member_is_asked_what_it_can_do_and_of_several_what_only_they_can() {
        let names = |clusters| Tally { clusters, ..Tally::default() }.missing();
        let (alone, several) = (names(0), names(1));
        let changing = Tally { clusters: 1, changing: 1, ..Tally::default() }.missing();
        let of_changes = Hit::ALL.iter().filter(|hit| hit.needs_changes()).map(|hit| format!("{hit:?}"));
        let of_changes = of_changes.chain(WAYS_OF_CHANGES.iter().map(ToString::to_string));
        assert_eq!(changing, of_changes.collect::<Vec<String>>());
        let all = Hit::ALL.map(|hit| format!("{hit:?}")).into_iter();
        let all: Vec<String> = all.chain(Paths::NAMES.iter().map(ToString::to_string)).collect();
        let others = [&alone, &several, &changing];
        let of_neither = |name: &&String| !others.iter().any(|asked| asked.contains(*name));
        assert_eq!(all.iter().filter(of_neither).collect::<Vec<_>>(), RARE_WAYS);
        let asked = alone.len() + several.len() + changing.len();
        assert_eq!(asked, all.len() + WAYS_OF_ALL.len() - RARE_WAYS.len());
        let faults = Hit::ALL.iter().filter(|hit| hit.needs_several()).map(|hit| format!("{hit:?}"));
        let ways = WAYS_OF_SEVERAL.iter().chain(WAYS_OF_ALL).map(ToString::to_string);
        let (mut expected, mut asked) = (faults.chain(ways).collect::<Vec<_>>(), several);
        expected.sort();
        asked.sort();
        assert_eq!(asked, expected);
    }
}
