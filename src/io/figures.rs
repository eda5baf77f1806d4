//! What a reactor counts, and the figures of it, its shards and the process: for Status and metrics.

use super::{Applies, Paths};
use crate::api::Alarm;
use crate::mvcc::Sizes;
use crate::stdx::Histogram;
use crate::types::{Duration, Index, MemberId, ShardId, Time};
use crate::wire;
use std::collections::BTreeMap;

/// Figures of one reactor, for Status and metrics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Census {
    pub sizes: Sizes,
    pub raft_index: u64,
    pub raft_applied_index: u64,
    pub counters: ReactorCounters,
    pub shards: Vec<ShardFigures>,
    /// When the last compaction was done here; 0 for none since the start.
    pub compacted_at: Time,
    /// Where the world has given them to this reactor.
    pub process: Option<ProcessFigures>,
    /// The alarms that stand, as the control state has them up to this index; none of a reactor that does not
    /// serve.
    pub alarms: Option<(Index, Vec<Alarm>)>,
    /// Of every other member.
    pub peers: BTreeMap<MemberId, PeerFigures>,
}

impl Census {
    /// Adds a reactor's figures; its shards keep rows of their own.
    pub fn add(&mut self, more: &Census) {
        self.sizes.add(more.sizes);
        self.raft_index += more.raft_index;
        self.raft_applied_index += more.raft_applied_index;
        self.counters.add(&more.counters);
        self.compacted_at = self.compacted_at.max(more.compacted_at);
        self.process = self.process.or(more.process);
        // What every reactor that serves knows: whoever is shown an alarm finds it everywhere.
        let newer = |ours: &(Index, _)| more.alarms.as_ref().is_some_and(|(index, _)| *index < ours.0);
        if self.alarms.as_ref().is_none_or(newer) {
            self.alarms.clone_from(&more.alarms);
        }
        for (member, figures) in &more.peers {
            self.peers.entry(*member).or_default().add(figures);
        }
    }
}

/// What passes between this member and another one.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerFigures {
    /// Whether the first reactor, which every member has, is connected with it.
    pub is_active: bool,
    /// How often that connection was lost.
    pub disconnects: u64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    /// Messages of groups that found no connection or no room in one, and connections that were not made.
    pub send_failures: u64,
    /// Connections that ended over what came.
    pub receive_failures: u64,
    pub round_trips: Histogram,
}

impl Default for PeerFigures {
    fn default() -> PeerFigures {
        PeerFigures {
            is_active: false,
            disconnects: 0,
            received_bytes: 0,
            sent_bytes: 0,
            send_failures: 0,
            receive_failures: 0,
            round_trips: Histogram::new(Duration::from_us(100).0, 16),
        }
    }
}

impl PeerFigures {
    fn add(&mut self, more: &PeerFigures) {
        self.is_active |= more.is_active;
        self.disconnects += more.disconnects;
        self.received_bytes += more.received_bytes;
        self.sent_bytes += more.sent_bytes;
        self.send_failures += more.send_failures;
        self.receive_failures += more.receive_failures;
        self.round_trips.add(&more.round_trips);
    }
}

/// Figures of one shard.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardFigures {
    pub shard: ShardId,
    pub sizes: Sizes,
    pub committed: Index,
    pub applied: Index,
    /// Log written since the oldest entry that the log keeps for it.
    pub log_bytes: u64,
}

/// What the operating system says of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessFigures {
    pub resident_bytes: u64,
    pub virtual_bytes: u64,
    pub virtual_bytes_max: u64,
    /// User and system time used.
    pub cpu: Duration,
    pub open_fds: u64,
    pub fds_max: u64,
    /// Bytes of IP, of all that shares the process' network.
    pub received_bytes: u64,
    pub sent_bytes: u64,
    /// Seconds since 1970.
    pub started_secs: u64,
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What a reactor counts.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct ReactorCounters {
            pub front: wire::RpcCounters,
            pub times: Times,
            pub applies: Applies,
            pub checks: wire::health::CheckCounters,
            pub paths: Paths,
            $($(#[$doc])* pub $name: u64,)*
        }

        impl ReactorCounters {
            pub fn add(&mut self, more: &ReactorCounters) {
                self.front.add(&more.front);
                self.times.add(&more.times);
                self.applies.add(&more.applies);
                self.checks.add(&more.checks);
                self.paths.add(&more.paths);
                $(self.$name += more.$name;)*
            }
        }
    };
}

counters! {
    turns,
    connections,
    watch_streams,
    watchers,
    /// Watchers that read history.
    watchers_behind,
    /// Events that wait to be sent.
    events_pending,
    events_sent,
    puts,
    put_bytes,
    deletes,
    ranges,
    /// Transactions with more than one operation (etcd's law).
    txns,
    /// Ranges that another turn goes on with.
    ranges_under_way,
    leases_granted,
    leases_revoked,
    leases_renewed,
    leases_expired,
    /// Writes that failed for want of an answer in time, or at the end of an epoch; and those under way.
    proposals_failed,
    proposals_pending,
    /// Everything under way: reads and pages too.
    calls,
    /// Requests that took longer to apply than is usual.
    slow_applies,
    log_writes,
    log_bytes,
    checkpoints,
    defragmenting,
    /// Versions dropped.
    versions_compacted,
    health_successes,
    health_failures,
    /// Ranges that a takeover kept from an answer in time.
    ranges_failed,
    /// Reads that no round of the leader's came to in time.
    rounds_late,
    /// States of other members that are being taken.
    states_on_their_way,
    /// Pages of metrics shown, and not shown in time.
    scrapes,
    scrapes_failed,
}

macro_rules! times {
    ($($(#[$doc:meta])* $name:ident = $first:expr, $len:literal;)*) => {
        /// How long things took, in nanoseconds of the reactor's time, in etcd's buckets.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Times {
            $($(#[$doc])* pub $name: Histogram,)*
        }

        impl Default for Times {
            fn default() -> Times {
                Times { $($name: Histogram::new($first, $len),)* }
            }
        }

        impl Times {
            fn add(&mut self, more: &Times) {
                $(self.$name.add(&more.$name);)*
            }
        }
    };
}

const MS: u64 = Duration::from_ms(1).0;

times! {
    /// From a durable write's output to its input.
    log_writes = MS, 14;
    /// One step of writing a checkpoint.
    checkpoint_steps = MS, 14;
    /// One checkpoint, from its first step to its name.
    checkpoints = MS, 14;
    defragmentations = 100 * MS, 13;
    hashes = 10 * MS, 15;
    hashes_at = 10 * MS, 15;
    compactions = 100 * MS, 14;
    /// Times to live of leases granted: in seconds.
    lease_ttls = 1, 24;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::AlarmType;
    use crate::types::MemberId;

    #[test]
    fn a_sum_of_all_reactors_shows_the_alarms_that_each_of_them_knows() {
        let alarm = Alarm { member: MemberId(7), alarm: AlarmType::NoSpace };
        let knows = |index, alarms| Census { alarms: Some((Index(index), alarms)), ..Census::default() };
        let (late, early) = (knows(4, vec![]), knows(5, vec![alarm]));
        for order in [[&late, &early], [&early, &late]] {
            let mut sum = Census::default();
            order.into_iter().for_each(|one| sum.add(one));
            sum.add(&Census::default());
            assert_eq!(sum.alarms, late.alarms);
        }
    }
}
