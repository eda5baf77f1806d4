//! The control state: what the control shard's log says, as every reactor holds it.
//!
//! **The rule.** It changes entry by entry, in the order of that log; a reactor that has applied index i
//! knows all up to i. Requests that change it are decided at the control shard's reactor, on this same state.
//! Whoever has seen an entry's effect finds it at every reactor, so an entry is answered when all have it.
//!
//! **Why not otherwise.** A lease, an alarm or the compaction is looked at by nearly every write and read. To
//! ask the control shard each time would be a hop each time; a copy at each reactor costs one round of mail
//! for an entry, and entries are rare. They take no revision, since etcd's clients see none for them.

mod members;
#[cfg(test)]
mod tests;

pub use members::{first_raft_id, founder_raft_ids};

use crate::api::{Alarm, AlarmType, Member};
use crate::checkpoint::{AlarmRecord, ControlState, LeaseRecord};
use crate::lease::{Granted, Leases};
use crate::record::{self, FEATURE_LEVEL, MemberChange, MemberRecord};
use crate::router::{BadMap, Router};
use crate::types::{ClusterId, Duration, Index, LeaseId, MemberId, RaftId, Revision, StoreId};
use members::{Attributes, Members};
use std::collections::BTreeSet;

#[derive(Debug)]
pub struct Control {
    /// The last entry that has taken effect.
    pub index: Index,
    pub leases: Leases,
    cluster: ClusterId,
    token: String,
    members: Members,
    /// What every member's program knows: nothing beyond it is written.
    feature_level: u32,
    cuts: Vec<record::CutRecord>,
    alarms: BTreeSet<(MemberId, u8)>,
    compacted: Revision,
    election_timeout: Duration,
}

/// etcd's numbers of the alarms.
pub const NO_SPACE: u8 = 1;
const CORRUPT: u8 = 2;

/// The alarm's number at rest; none for what etcd does not name.
pub fn alarm_number(alarm: AlarmType) -> Option<u8> {
    match alarm {
        AlarmType::NoSpace => Some(NO_SPACE),
        AlarmType::Corrupt => Some(CORRUPT),
        AlarmType::None | AlarmType::Unknown(_) => None,
    }
}

/// etcd's name of an alarm.
pub fn alarm_name(number: u8) -> String {
    match number {
        NO_SPACE => "NOSPACE".to_owned(),
        CORRUPT => "CORRUPT".to_owned(),
        other => other.to_string(),
    }
}

fn alarm_type(number: u8) -> AlarmType {
    match number {
        NO_SPACE => AlarmType::NoSpace,
        CORRUPT => AlarmType::Corrupt,
        other => AlarmType::Unknown(i32::from(other)),
    }
}

impl Control {
    /// As before the first entry. The election timeout bounds the times to live of leases from below.
    pub fn new(election_timeout: Duration) -> Control {
        Control {
            index: Index(0),
            leases: Leases::new(election_timeout),
            cluster: ClusterId(0),
            token: String::new(),
            members: Members::default(),
            feature_level: 0,
            cuts: vec![],
            alarms: BTreeSet::new(),
            compacted: Revision::NONE,
            election_timeout,
        }
    }

    /// Why a state does not go on from this one, if it does not.
    pub fn misfit(&self, state: &ControlState) -> Option<&'static str> {
        let members = match Members::read(state) {
            Ok(members) => members,
            Err(fault) => return Some(fault),
        };
        let ours = !self.is_bootstrapped() || self.cluster == ClusterId(state.cluster);
        let leases: BTreeSet<i64> = state.leases.iter().map(|lease| lease.lease).collect();
        let levels = self.feature_level..=FEATURE_LEVEL;
        match () {
            () if Index(state.index) < self.index => Some("control entries are not taken back"),
            () if !ours => Some("a member stays in its cluster"),
            () if Revision(state.compact_revision) < self.compacted => Some("a compaction is not taken back"),
            () if !members.follows(&self.members) => Some("who was removed stays so"),
            () if leases.len() != state.leases.len() => Some("a lease is granted once"),
            () if state.leases.iter().any(|lease| lease.ttl_secs <= 0) => Some("a lease lives for a while"),
            () if !levels.contains(&state.feature_level) => {
                Some("the feature level does not fall, and is one that this program knows")
            }
            () => None,
        }
    }

    /// Takes a whole state over.
    pub fn adopt(&mut self, state: &ControlState) {
        let misfit = self.misfit(state);
        assert!(misfit.is_none(), "a state goes on from the one before: {misfit:?}");
        let members = Members::of(state);
        *self = Control {
            index: Index(state.index),
            leases: Leases::new(self.election_timeout),
            cluster: ClusterId(state.cluster),
            token: state.token.clone(),
            members,
            feature_level: state.feature_level,
            cuts: state.cuts.clone(),
            alarms: state.alarms.iter().map(|alarm| (MemberId(alarm.member), alarm.alarm)).collect(),
            compacted: Revision(state.compact_revision),
            election_timeout: self.election_timeout,
        };
        for lease in &state.leases {
            self.grant(lease.lease, lease.ttl_secs);
        }
    }

    /// The state as a checkpoint keeps it.
    pub fn to_state(&self) -> ControlState {
        let (members, intents, removed) = self.members.to_state();
        ControlState {
            index: self.index.0,
            cluster: self.cluster.0,
            token: self.token.clone(),
            members,
            intents,
            removed,
            feature_level: self.feature_level,
            cuts: self.cuts.clone(),
            leases: self
                .leases
                .iter()
                .map(|(id, l)| LeaseRecord { lease: id.0, ttl_secs: l.ttl_secs })
                .collect(),
            alarms: self
                .alarms
                .iter()
                .map(|&(member, alarm)| AlarmRecord { member: member.0, alarm })
                .collect(),
            compact_revision: self.compacted.0,
        }
    }

    /// An entry takes effect. What it says of something that is not there any more says nothing.
    pub fn apply(&mut self, index: Index, change: &record::ControlEntry) {
        assert!(index >= self.index, "control entries take effect in the order of their log");
        let is_first = matches!(change, record::ControlEntry::Bootstrap { .. });
        assert!(is_first != self.is_bootstrapped(), "a cluster begins once, and with nothing else");
        self.index = index;
        match change {
            record::ControlEntry::Bootstrap { cluster, token, members, cuts, feature_level } => {
                assert!(!cuts.is_empty() && !members.is_empty(), "a cluster begins with shards and a member");
                self.cluster = ClusterId(*cluster);
                self.token = token.clone();
                self.members = Members::founded(members);
                self.raise_feature_level(*feature_level);
                self.cuts = cuts.clone();
            }
            record::ControlEntry::MemberAttributes { member, directory, name, client_urls, raft_ids } => {
                let directory = StoreId(*directory);
                let attributes = Attributes { directory, name, client_urls, raft_ids };
                self.members.publish(MemberId(*member), &attributes);
            }
            record::ControlEntry::Intent(intent) => self.members.intend(intent),
            record::ControlEntry::IntentDone { member, change } => {
                self.members.done(MemberId(*member), *change)
            }
            record::ControlEntry::FeatureLevel { level } => self.raise_feature_level(*level),
            record::ControlEntry::LeaseGrant { lease, ttl_secs } => self.grant(*lease, *ttl_secs),
            record::ControlEntry::LeaseEnd { lease } => {
                self.leases.end(LeaseId(*lease));
            }
            record::ControlEntry::Compact { revision } => {
                self.compacted = self.compacted.max(Revision(*revision));
            }
            record::ControlEntry::AlarmOn { member, alarm } => {
                self.alarms.insert((MemberId(*member), *alarm));
            }
            record::ControlEntry::AlarmOff { member, alarm } => {
                self.alarms.remove(&(MemberId(*member), *alarm));
            }
            record::ControlEntry::MemberUrls { member, peer_urls } => {
                self.members.update(MemberId(*member), peer_urls);
            }
            record::ControlEntry::StandAlone { member } => self.members.stand_alone(MemberId(*member)),
        }
    }

    /// It never falls.
    fn raise_feature_level(&mut self, level: u32) {
        assert!(level <= FEATURE_LEVEL, "a level is raised to what every member's program knows");
        self.feature_level = self.feature_level.max(level);
    }

    fn grant(&mut self, lease: i64, ttl_secs: i64) {
        assert!(ttl_secs > 0, "a lease lives for a while: {ttl_secs} s");
        let granted = Granted { lease: LeaseId(lease), ttl_secs };
        self.leases.grant(granted).expect("one grant of a lease at a time is proposed");
    }

    /// Whether keys may be attached to the lease.
    pub fn is_granted(&self, lease: LeaseId) -> bool {
        self.leases.get(lease).is_some_and(|lease| !lease.revoking)
    }

    /// Whether the lease is about to end.
    pub fn is_revoking(&self, lease: LeaseId) -> bool {
        self.leases.get(lease).is_some_and(|lease| lease.revoking)
    }

    pub fn is_bootstrapped(&self) -> bool {
        !self.cuts.is_empty()
    }

    #[cfg(test)]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    #[cfg(test)]
    pub fn token(&self) -> &str {
        &self.token
    }

    pub fn router(&self, reactors: u16) -> Result<Router, BadMap> {
        Router::new(&self.cuts, reactors)
    }

    /// Whether the cluster began with these shards.
    pub fn began_with(&self, cuts: &[record::CutRecord]) -> bool {
        self.cuts == cuts
    }

    /// The revision up to which history is gone.
    pub fn compacted(&self) -> Revision {
        self.compacted
    }

    pub fn member(&self, id: MemberId) -> Option<&MemberRecord> {
        self.members.get(id)
    }

    /// The member whose peer has this id in Raft groups.
    pub fn member_of(&self, id: RaftId) -> Option<MemberId> {
        self.members.of_raft_id(id)
    }

    /// Whether there is one member.
    pub fn is_of_one(&self) -> bool {
        self.members.count() == 1
    }

    /// Whether the member is the only one, votes, and no change of it is under way.
    pub fn stands_alone(&self, id: MemberId) -> bool {
        self.members.stands_alone(id)
    }

    /// All that take part, also who joins or leaves.
    pub fn records(&self) -> impl Iterator<Item = &MemberRecord> {
        self.members.all()
    }

    /// The changes of members that are under way, of each member one.
    pub fn member_changes(&self) -> impl Iterator<Item = (MemberId, MemberChange)> + '_ {
        self.members.changes()
    }

    pub fn member_change_of(&self, id: MemberId) -> Option<MemberChange> {
        self.members.change_of(id)
    }

    /// Whether the member is to be none: it neither stands nor is voted for any more.
    pub fn leaves(&self, id: MemberId) -> bool {
        self.members.change_of(id) == Some(MemberChange::Removing)
    }

    /// Whether the id was a member's that is none any more. It is nobody's again.
    pub fn is_removed(&self, id: MemberId) -> bool {
        self.members.is_removed(id)
    }

    pub fn members(&self) -> Vec<Member> {
        let members = self.members.shown().map(|member| Member {
            id: member.id(),
            name: member.name.clone(),
            peer_urls: member.peer_urls.clone(),
            client_urls: member.client_urls.clone(),
            is_learner: member.is_learner,
        });
        members.collect()
    }

    /// The alarms of a type, or of all.
    pub fn alarms(&self, of: AlarmType) -> Vec<Alarm> {
        let alarms = self.alarms.iter().map(|&(member, alarm)| Alarm { member, alarm: alarm_type(alarm) });
        alarms.filter(|alarm| of == AlarmType::None || alarm.alarm == of).collect()
    }

    pub fn has_alarm(&self, member: MemberId, alarm: AlarmType) -> bool {
        alarm_number(alarm).is_some_and(|alarm| self.alarms.contains(&(member, alarm)))
    }

    /// Whether any member is out of space: then nobody takes what adds data.
    pub fn no_space(&self) -> bool {
        self.alarms.iter().any(|(_, alarm)| *alarm == NO_SPACE)
    }

    pub fn corrupt(&self) -> bool {
        self.alarms.iter().any(|(_, alarm)| *alarm == CORRUPT)
    }
}
