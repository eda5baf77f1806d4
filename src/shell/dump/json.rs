//! One JSON object per line. `type` says which; numbers are plain numbers, as in `etcdctl -w json`; keys and
//! values are in base64. Fields are added, never renamed.
//!
//! ```text
//! header         the first line
//!   format         1, the format of these lines
//!   cluster_id, member_id, name
//!   settled        the revision that a start would recover now; 1 where nothing was written
//!   unsettled      how many revisions above it stand in some log, incomplete or behind an incomplete one; a
//!                  start voids them, and they are not printed
//!   complete_from  from here on every event of every revision is printed
//!   checkpointed   up to here some or all of a revision comes from checkpoints, the log before them being
//!                  reclaimed: epoch and ended leases may be unknown; 0 where there are no checkpoints
//! missing what compaction has dropped, where it has: no event of `from` to `upto` that was replaced before
//!                the newest compaction is here; what is left of them is in writes that are `partial`
//!   from, upto
//! damage         one for each thing that is wrong with the directory: what is printed ends there
//!   what         in words
//! control_state  at most once: the control entries up to `index` are only in this
//!   index, cluster_id, token, compacted, feature_level
//!   members        [{id, name, peer_urls, client_urls, is_learner, directory_id, raft_ids}]; raft_ids are
//!                  [{log, incarnation, id}]; those that are joining or leaving are among them
//!   intents        [{member_id, change}]: changes of members under way; adding, promoting or removing
//!   removed        [member_id]
//!   cuts           [{start, shard}]; start in base64
//!   leases         [{lease, ttl_seconds}]
//!   alarms         [{member_id, alarm}]; the alarm as in etcd's enum
//! control, conf_change, fence, seal: an entry of a log, the control shard's first, then shard by shard
//!   shard, index, term
//!   epoch          {term, attempt}; not in conf_change
//!   change, id     conf_change only: add_voter, add_learner or remove, and whom: a raft id
//!   prefix         seal only: the writes before it above this revision are void
//!   settled        control only: the newest settled revision when it was proposed
//!   void           control only: whether it takes no effect
//!   what           control only, with the fields of each:
//!                  bootstrap {cluster_id, token, members, cuts, feature_level}; member_attributes
//!                  {member_id, directory_id, name, client_urls, raft_ids}; intent_adding {member};
//!                  intent_promoting, intent_removing {member_id}; intent_done {member_id, change};
//!                  feature_level {level}; lease_grant {lease, ttl_seconds}; lease_end {lease};
//!                  compact {revision}; alarm_on, alarm_off {member_id, alarm}
//! write          a settled revision, ascending
//!   revision
//!   epoch          {term, attempt}, or null where no log names it any more
//!   partial        true below `complete_from`: compaction may have dropped events of it
//!   leases_ended   [lease]
//!   events         [{type, sub, shard, key}] by sub; type is PUT or DELETE, and PUT has
//!                  value, lease, create_revision, version beside
//! ```

use super::Identity;
use crate::checkpoint::{ControlState, IntentRecord};
use crate::record::{ConfChange, ControlEntry, CutRecord, Intent, MemberRecord, RaftIdRecord};
use crate::recover::dump::{Contents, DumpedRevision, LogEntry, Says};
use crate::types::{Epoch, Event, Revision, ShardId, Sub};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// The format of these lines.
const FORMAT: u64 = 1;

pub fn head(identity: &Identity, contents: &Contents) -> String {
    let header = json!({
        "type": "header",
        "format": FORMAT,
        "cluster_id": identity.cluster.0,
        "member_id": identity.member.0,
        "name": identity.name,
        "settled": contents.settled.0,
        "unsettled": contents.unsettled,
        "complete_from": contents.complete_from.0,
        "checkpointed": contents.checkpointed.0,
    });
    let mut lines = line(&header);
    if contents.compacted > Revision::FRESH.next() {
        let upto = contents.compacted.0 - 1;
        lines += &line(&json!({"type": "missing", "from": 2, "upto": upto}));
    }
    for what in &contents.damage {
        lines += &line(&json!({"type": "damage", "what": what}));
    }
    let state = contents.control.as_ref().map(|state| line(&control_state(state)));
    lines + &state.unwrap_or_default()
}

pub fn entry(entry: &LogEntry) -> String {
    let mut said = match &entry.says {
        Says::Fence(of) => json!({"type": "fence", "epoch": epoch(*of)}),
        Says::Seal { epoch: of, prefix } => {
            json!({"type": "seal", "epoch": epoch(*of), "prefix": prefix.0})
        }
        Says::ConfChange(change) => {
            let (change, id) = match change {
                ConfChange::AddVoter(id) => ("add_voter", id),
                ConfChange::AddLearner(id) => ("add_learner", id),
                ConfChange::Remove(id) => ("remove", id),
            };
            json!({"type": "conf_change", "change": change, "id": id})
        }
        Says::Control { epoch: of, settled, control, void } => {
            let mut said = what(control);
            said["settled"] = settled.0.into();
            said["type"] = "control".into();
            said["epoch"] = epoch(*of);
            said["void"] = (*void).into();
            said
        }
    };
    said["shard"] = entry.shard.0.into();
    said["index"] = entry.index.0.into();
    said["term"] = entry.term.0.into();
    line(&said)
}

pub fn write(write: &DumpedRevision) -> String {
    let events: Vec<Value> = write.events.iter().map(event).collect();
    let leases_ended: Vec<i64> = write.leases_ended.iter().map(|lease| lease.0).collect();
    line(&json!({
        "type": "write",
        "revision": write.revision.0,
        "epoch": write.epoch.map(epoch),
        "partial": write.partial,
        "leases_ended": leases_ended,
        "events": events,
    }))
}

fn event((sub, shard, event): &(Sub, ShardId, Event)) -> Value {
    let (sub, shard, key) = (sub.0, shard.0, STANDARD.encode(&event.key()[..]));
    match event {
        Event::Put(kv) => json!({
            "type": "PUT",
            "sub": sub,
            "shard": shard,
            "key": key,
            "value": STANDARD.encode(&kv.value[..]),
            "lease": kv.lease.0,
            "create_revision": kv.create_revision.0,
            "version": kv.version,
        }),
        Event::Delete { .. } => json!({"type": "DELETE", "sub": sub, "shard": shard, "key": key}),
    }
}

fn what(control: &ControlEntry) -> Value {
    match control {
        ControlEntry::Bootstrap { cluster, token, members: of, cuts: at, feature_level } => json!({
            "what": "bootstrap", "cluster_id": cluster, "token": token, "members": members(of), "cuts": cuts(at),
            "feature_level": feature_level,
        }),
        ControlEntry::MemberAttributes { member, directory, name, client_urls, raft_ids: ids } => json!({
            "what": "member_attributes", "member_id": member, "directory_id": directory, "name": name,
            "client_urls": client_urls, "raft_ids": raft_ids(ids),
        }),
        ControlEntry::Intent(Intent::Adding(of)) => json!({"what": "intent_adding", "member": member(of)}),
        ControlEntry::Intent(Intent::Promoting { member }) => {
            json!({"what": "intent_promoting", "member_id": member})
        }
        ControlEntry::Intent(Intent::Removing { member }) => {
            json!({"what": "intent_removing", "member_id": member})
        }
        ControlEntry::IntentDone { member, change } => {
            json!({"what": "intent_done", "member_id": member, "change": change.name()})
        }
        ControlEntry::FeatureLevel { level } => json!({"what": "feature_level", "level": level}),
        ControlEntry::LeaseGrant { lease, ttl_secs } => {
            json!({"what": "lease_grant", "lease": lease, "ttl_seconds": ttl_secs})
        }
        ControlEntry::LeaseEnd { lease } => json!({"what": "lease_end", "lease": lease}),
        ControlEntry::Compact { revision } => json!({"what": "compact", "revision": revision}),
        ControlEntry::AlarmOn { member, alarm } => {
            json!({"what": "alarm_on", "member_id": member, "alarm": alarm})
        }
        ControlEntry::AlarmOff { member, alarm } => {
            json!({"what": "alarm_off", "member_id": member, "alarm": alarm})
        }
        ControlEntry::MemberUrls { member, peer_urls } => {
            json!({"what": "member_urls", "member_id": member, "peer_urls": peer_urls})
        }
        ControlEntry::StandAlone { member } => json!({"what": "stand_alone", "member_id": member}),
    }
}

pub fn control_state(state: &ControlState) -> Value {
    let leases = state.leases.iter().map(|l| json!({"lease": l.lease, "ttl_seconds": l.ttl_secs}));
    let alarms = state.alarms.iter().map(|a| json!({"member_id": a.member, "alarm": a.alarm}));
    json!({
        "type": "control_state",
        "index": state.index,
        "cluster_id": state.cluster,
        "token": state.token,
        "compacted": state.compact_revision,
        "feature_level": state.feature_level,
        "members": members(&state.members),
        "intents": state.intents.iter().map(intent).collect::<Vec<Value>>(),
        "removed": state.removed,
        "cuts": cuts(&state.cuts),
        "leases": leases.collect::<Vec<Value>>(),
        "alarms": alarms.collect::<Vec<Value>>(),
    })
}

fn members(members: &[MemberRecord]) -> Value {
    members.iter().map(member).collect()
}

fn member(member: &MemberRecord) -> Value {
    json!({
        "id": member.id,
        "name": member.name,
        "peer_urls": member.peer_urls,
        "client_urls": member.client_urls,
        "is_learner": member.is_learner,
        "directory_id": member.directory,
        "raft_ids": raft_ids(&member.raft_ids),
    })
}

fn raft_ids(ids: &[RaftIdRecord]) -> Value {
    ids.iter().map(|of| json!({"log": of.log, "incarnation": of.incarnation, "id": of.id})).collect()
}

fn intent(intent: &IntentRecord) -> Value {
    json!({"member_id": intent.member, "change": intent.change.name()})
}

fn cuts(cuts: &[CutRecord]) -> Value {
    cuts.iter().map(|cut| json!({"start": STANDARD.encode(&cut.start), "shard": cut.shard})).collect()
}

fn epoch(epoch: Epoch) -> Value {
    json!({"term": epoch.term.0, "attempt": epoch.attempt})
}

fn line(value: &Value) -> String {
    format!("{value}\n")
}
