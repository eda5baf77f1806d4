//! What is compared, and what is aimed at.

use generator::Pace;
use generator::workload::{KEY_BYTES_MIN, Workload};

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Measure {
    OpsPerSecond,
    P50,
    P99,
    P999,
    ServerCpu,
    WrittenBytes,
    GeneratorCpu,
    RestartSeconds,
    RestartCpu,
    Memory,
    MemoryAfter,
    DiskEmpty,
    Disk,
    EventsPerSecond,
    EventP50,
    EventP99,
    EventCpu,
    FirstPut,
    FirstPutAtLast,
    LongestWait,
    PutsFailed,
    IdleCpu,
    IdlePackets,
    CatchUpSeconds,
    CatchUpCpu,
    CatchUpWritten,
    P50Before,
    P99Before,
}

impl Measure {
    /// In the order of a case's rows.
    pub const ALL: [Measure; 28] = [
        Measure::CatchUpSeconds,
        Measure::CatchUpCpu,
        Measure::CatchUpWritten,
        Measure::OpsPerSecond,
        Measure::P50Before,
        Measure::P50,
        Measure::P99Before,
        Measure::P99,
        Measure::P999,
        Measure::ServerCpu,
        Measure::WrittenBytes,
        Measure::GeneratorCpu,
        Measure::RestartSeconds,
        Measure::RestartCpu,
        Measure::Memory,
        Measure::MemoryAfter,
        Measure::DiskEmpty,
        Measure::Disk,
        Measure::EventsPerSecond,
        Measure::EventP50,
        Measure::EventP99,
        Measure::EventCpu,
        Measure::FirstPut,
        Measure::FirstPutAtLast,
        Measure::LongestWait,
        Measure::PutsFailed,
        Measure::IdleCpu,
        Measure::IdlePackets,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Measure::OpsPerSecond => "requests/s",
            Measure::P50 => "p50 µs",
            Measure::P99 => "p99 µs",
            Measure::P999 => "p99.9 µs",
            Measure::ServerCpu => "server CPU µs/request",
            Measure::WrittenBytes => "bytes written/request",
            Measure::GeneratorCpu => "generator CPU µs/request",
            Measure::RestartSeconds => "restart to the first answer, s",
            Measure::RestartCpu => "CPU of the restart, s",
            Measure::Memory => "memory, MiB",
            Measure::MemoryAfter => "memory after the restart, MiB",
            Measure::DiskEmpty => "disk of a new store, MiB",
            Measure::Disk => "disk, MiB",
            Measure::EventsPerSecond => "events/s",
            Measure::EventP50 => "event after its put was sent, p50 µs",
            Measure::EventP99 => "event after its put was sent, p99 µs",
            Measure::EventCpu => "server CPU µs/event",
            Measure::FirstPut => "first put that any other answers, ms",
            Measure::FirstPutAtLast => "until each other has answered one, ms",
            Measure::LongestWait => "longest wait for an answer, ms",
            Measure::PutsFailed => "puts refused by others",
            Measure::IdleCpu => "CPU of one member, % of a core",
            Measure::IdlePackets => "packets/s of all members",
            Measure::CatchUpSeconds => "from its start to all the data, s",
            Measure::CatchUpCpu => "CPU of the new member, s",
            Measure::CatchUpWritten => "written by the new member, MiB",
            Measure::P50Before => "p50 before, µs",
            Measure::P99Before => "p99 before, µs",
        }
    }
}

impl Measure {
    /// As the JSON calls it, where the load's own does not have it.
    pub fn key(self) -> &'static str {
        match self {
            Measure::RestartSeconds => "restart_s",
            Measure::RestartCpu => "restart_cpu_s",
            Measure::Memory => "memory_mib",
            Measure::MemoryAfter => "memory_after_mib",
            Measure::DiskEmpty => "disk_empty_mib",
            Measure::Disk => "disk_mib",
            Measure::EventsPerSecond => "events_per_second",
            Measure::EventP50 => "event_p50_us",
            Measure::EventP99 => "event_p99_us",
            Measure::EventCpu => "event_cpu_us",
            Measure::FirstPut => "first_put_ms",
            Measure::FirstPutAtLast => "first_put_at_last_ms",
            Measure::LongestWait => "longest_wait_ms",
            Measure::PutsFailed => "puts_failed",
            Measure::IdleCpu => "idle_cpu_percent",
            Measure::IdlePackets => "idle_packets_per_second",
            Measure::CatchUpSeconds => "catch_up_s",
            Measure::CatchUpCpu => "catch_up_cpu_s",
            Measure::CatchUpWritten => "catch_up_written_mib",
            Measure::P50Before => "p50_before_us",
            Measure::P99Before => "p99_before_us",
            other => other.name(),
        }
    }
}

/// A bound on Braid's median.
#[derive(Clone, Copy)]
pub struct Aim {
    pub measure: Measure,
    pub over: Over,
    pub bound: Bound,
}

/// What Braid's median is divided by before it is held against the bound.
#[derive(Clone, Copy)]
pub enum Over {
    /// The other program's median.
    Other,
    /// Braid's own median of another measure.
    Own(Measure),
    One,
}

#[derive(Clone, Copy)]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    pub fn holds(self, number: f64) -> bool {
        match self {
            Bound::AtLeast(least) => number >= least,
            Bound::AtMost(most) => number <= most,
        }
    }
}

/// What a case does with a server.
#[derive(Clone, Copy, PartialEq)]
pub enum Course {
    /// The load on a new server.
    Fresh,
    /// The load on one that took `overwrites` at full rate before, and whose history is compacted now and then.
    Aged { overwrites: u64 },
    /// What is on the disk after `overwrites` at full rate and a compaction.
    Disk { overwrites: u64 },
    /// Every key is put, the server killed and started again: `at_once`, or after it has had time for what it
    /// does in the background.
    Restart { at_once: bool },
    /// The load on the members of a new cluster.
    Members(Asked),
    /// So many watches at each member, while keys are put at a rate.
    Watches { of_each: usize, per_second: u64 },
    /// The leader gets a signal, again and again, under puts at every member.
    Failover(Strike),
    /// Nobody asks for anything.
    Idle,
    /// An empty member comes, while keys are put at the leader.
    CatchUp,
}

/// Which members are asked.
#[derive(Clone, Copy, PartialEq)]
pub enum Asked {
    All,
    Leader,
    Followers,
}

/// What befalls a leader.
#[derive(Clone, Copy, PartialEq)]
pub enum Strike {
    Kill,
    Stop,
    Terminate,
}

pub struct Case {
    pub name: &'static str,
    pub course: Course,
    pub connections: usize,
    pub streams: usize,
    pub pace: Pace,
    pub workload: Workload,
    pub aims: &'static [Aim],
}

impl Case {
    /// Whether it takes minutes, so that it runs only where it is named.
    pub fn is_long(&self) -> bool {
        matches!(
            self.course,
            Course::Aged { .. } | Course::Disk { .. } | Course::Restart { .. } | Course::CatchUp
        )
    }
}

/// The long cases' words for `--case`, each with what it runs.
pub const LONG: [&str; 4] = ["aged", "disk", "restart", "catch-up"];

const PUTS: Workload = Workload {
    keys: 100_000,
    key_bytes: 48,
    value_bytes: 256,
    scattered: true,
    in_turn: false,
    puts_percent: 100,
    guarded: false,
    serializable: false,
    limit: 1,
};
const RANGES: Workload = Workload { keys: 10_000, puts_percent: 0, ..PUTS };
const MILLION: Workload = Workload { keys: 1_000_000, ..PUTS };
const _: () = assert!(PUTS.key_bytes >= KEY_BYTES_MIN);

/// Between two builds of Braid no case may get worse by more.
pub const BUILDS: &[Aim] = &[aim(Measure::ServerCpu, Bound::AtMost(1.03))];

const fn aim(measure: Measure, bound: Bound) -> Aim {
    Aim { measure, over: Over::Other, bound }
}

const fn closed(
    name: &'static str,
    connections: usize,
    streams: usize,
    workload: Workload,
    aims: &'static [Aim],
) -> Case {
    Case { name, course: Course::Fresh, connections, streams, pace: Pace::Closed, workload, aims }
}

const fn open(name: &'static str, course: Course, per_second: u64, aims: &'static [Aim]) -> Case {
    Case { name, course, connections: 16, streams: 64, pace: Pace::Open { per_second }, workload: PUTS, aims }
}

const fn course(name: &'static str, course: Course, workload: Workload, aims: &'static [Aim]) -> Case {
    Case { name, course, connections: 16, streams: 64, pace: Pace::Closed, workload, aims }
}

const RESTART_AIMS: &[Aim] = &[
    Aim { measure: Measure::Memory, over: Over::One, bound: Bound::AtMost(480.0) },
    Aim { measure: Measure::MemoryAfter, over: Over::Own(Measure::Memory), bound: Bound::AtMost(1.05) },
];

pub const CASES: [Case; 11] = [
    closed(
        "put 16×64",
        16,
        64,
        PUTS,
        &[aim(Measure::OpsPerSecond, Bound::AtLeast(6.0)), aim(Measure::ServerCpu, Bound::AtMost(1.0 / 6.0))],
    ),
    closed("put 4×16", 4, 16, PUTS, &[]),
    closed("put 1×1", 1, 1, PUTS, &[aim(Measure::P50, Bound::AtMost(1.3))]),
    open("put 5,000/s", Course::Fresh, 5_000, &[]),
    open(
        "put 20,000/s",
        Course::Fresh,
        20_000,
        &[aim(Measure::P99, Bound::AtMost(1.0 / 5.0)), aim(Measure::ServerCpu, Bound::AtMost(1.0 / 1.5))],
    ),
    closed("range 4×16", 4, 16, RANGES, &[]),
    closed("range 16×64", 16, 64, RANGES, &[]),
    open(
        "put 5,000/s, aged",
        Course::Aged { overwrites: 800_000 },
        5_000,
        &[
            aim(Measure::ServerCpu, Bound::AtMost(0.5)),
            aim(Measure::P99, Bound::AtMost(0.4)),
            aim(Measure::WrittenBytes, Bound::AtMost(1.5)),
        ],
    ),
    course(
        "disk",
        Course::Disk { overwrites: 500_000 },
        PUTS,
        &[aim(Measure::DiskEmpty, Bound::AtMost(0.5)), aim(Measure::Disk, Bound::AtMost(2.0))],
    ),
    course("restart", Course::Restart { at_once: false }, MILLION, RESTART_AIMS),
    course("restart at once", Course::Restart { at_once: true }, MILLION, RESTART_AIMS),
];

const KUBERNETES: Workload = Workload { keys: 2_000, puts_percent: 95, guarded: true, ..PUTS };

const fn members(
    name: &'static str,
    course: Course,
    (connections, streams): (usize, usize),
    workload: Workload,
    aims: &'static [Aim],
) -> Case {
    Case { name, course, connections, streams, pace: Pace::Closed, workload, aims }
}

/// Two election timeouts, as both programs have them by default.
const WAIT_AIM: Aim = Aim { measure: Measure::LongestWait, over: Over::One, bound: Bound::AtMost(2_000.0) };

/// What clusters are compared by.
pub const CLUSTER_CASES: [Case; 13] = [
    members(
        "put 12×64",
        Course::Members(Asked::All),
        (12, 64),
        PUTS,
        &[aim(Measure::OpsPerSecond, Bound::AtLeast(4.0)), aim(Measure::ServerCpu, Bound::AtMost(0.2))],
    ),
    members("put 3×16", Course::Members(Asked::All), (3, 16), PUTS, &[]),
    members(
        "put 1×1 at the leader",
        Course::Members(Asked::Leader),
        (1, 1),
        PUTS,
        &[aim(Measure::P50, Bound::AtMost(0.8))],
    ),
    members("put 1×1 at a follower", Course::Members(Asked::Followers), (1, 1), PUTS, &[]),
    Case {
        pace: Pace::Open { per_second: 2_000 },
        ..members(
            "put 2,000/s",
            Course::Members(Asked::All),
            (12, 64),
            PUTS,
            &[aim(Measure::P99, Bound::AtMost(0.25)), aim(Measure::ServerCpu, Bound::AtMost(0.2))],
        )
    },
    members("Kubernetes' transactions 12×16", Course::Members(Asked::All), (12, 16), KUBERNETES, &[]),
    members(
        "range 4×16 at followers",
        Course::Members(Asked::Followers),
        (4, 16),
        RANGES,
        &[aim(Measure::OpsPerSecond, Bound::AtLeast(4.0))],
    ),
    members("watches, 100 at each", Course::Watches { of_each: 100, per_second: 100 }, (1, 1), PUTS, &[]),
    members(
        "failover: kill -9",
        Course::Failover(Strike::Kill),
        (1, 1),
        PUTS,
        &[aim(Measure::FirstPut, Bound::AtMost(0.3)), WAIT_AIM],
    ),
    members("failover: SIGSTOP", Course::Failover(Strike::Stop), (1, 1), PUTS, &[WAIT_AIM]),
    members("failover: SIGTERM", Course::Failover(Strike::Terminate), (1, 1), PUTS, &[WAIT_AIM]),
    members(
        "idle",
        Course::Idle,
        (1, 1),
        PUTS,
        &[Aim { measure: Measure::IdleCpu, over: Over::One, bound: Bound::AtMost(1.0) }],
    ),
    Case {
        pace: Pace::Open { per_second: 1_000 },
        ..members(
            "catch-up",
            Course::CatchUp,
            (4, 64),
            MILLION,
            &[
                aim(Measure::CatchUpSeconds, Bound::AtMost(0.5)),
                Aim { measure: Measure::P99, over: Over::Own(Measure::P99Before), bound: Bound::AtMost(1.3) },
            ],
        )
    },
];
