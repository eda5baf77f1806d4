//! For people: lines that begin with `#` are about the dump. Keys, values and names are in quotes, what is
//! not printable ASCII escaped.

use super::Identity;
use crate::checkpoint::ControlState;
use crate::control::alarm_name;
use crate::record::{ConfChange, ControlEntry, CutRecord, Intent, MemberRecord, RaftIdRecord};
use crate::recover::dump::{Contents, DumpedRevision, LogEntry, Says};
use crate::types::{Event, LeaseId};

pub fn head(identity: &Identity, contents: &Contents) -> String {
    let Contents { settled, unsettled, complete_from, checkpointed, .. } = contents;
    let (cluster, member, name) = (identity.cluster.0, identity.member.0, quoted(identity.name.as_bytes()));
    let mut text =
        format!("# cluster {cluster:x}, member {member:x} {name}\n# settled: revision {settled}\n");
    if *unsettled > 0 {
        text += &format!(
            "# {unsettled} revisions above it, incomplete or behind an incomplete one, are left out\n"
        );
    }
    text += &match complete_from.0 {
        _ if complete_from > settled && !contents.damage.is_empty() => {
            "# the directory is damaged: of each write here, parts may be missing\n".to_string()
        }
        0..=2 => "# every write is here, from revision 2, the first, on\n".to_string(),
        _ => format!(
            "# writes are complete from revision {complete_from} on; of those before, what compaction has left\n"
        ),
    };
    if checkpointed.0 > 0 {
        text += &format!(
            "# revisions up to {checkpointed} come, some or all of each, from checkpoints: the log before them \
             is reclaimed,\n# and with it epochs and the ends of leases\n"
        );
    }
    for damage in &contents.damage {
        text += &format!("# damaged: {damage}\n");
    }
    if let Some(state) = &contents.control {
        text += &control_state(state);
    }
    text
}

pub fn entry(entry: &LogEntry) -> String {
    let LogEntry { shard, index, term, .. } = entry;
    let said = match &entry.says {
        Says::Fence(epoch) => format!("fence of epoch {epoch}"),
        Says::Seal { epoch, prefix } => format!("seal of epoch {epoch}, prefix {prefix}"),
        Says::ConfChange(change) => match change {
            ConfChange::AddVoter(id) => format!("peer {id:x} votes from here on"),
            ConfChange::AddLearner(id) => format!("peer {id:x} learns from here on"),
            ConfChange::Remove(id) => format!("peer {id:x} is none from here on"),
        },
        Says::Control { epoch, settled, control, void } => {
            let void = if *void { " (void)" } else { "" };
            format!("control in epoch {epoch}, revision {settled} settled{void}: {}", what(control))
        }
    };
    format!("shard {shard} entry {index} term {term}: {said}\n")
}

pub fn write(write: &DumpedRevision) -> String {
    let epoch = write.epoch.map_or("unknown".to_string(), |epoch| epoch.to_string());
    let partial = if write.partial { ", maybe in part" } else { "" };
    let mut text = format!("revision {} epoch {epoch}{partial}\n", write.revision);
    for (sub, shard, event) in &write.events {
        let key = quoted(event.key());
        text += &match event {
            Event::Delete { .. } => format!("  {sub} DELETE {key} shard {shard}\n"),
            Event::Put(kv) if kv.lease == LeaseId::NONE => {
                format!("  {sub} PUT {key} {} shard {shard}\n", quoted(&kv.value))
            }
            Event::Put(kv) => {
                format!("  {sub} PUT {key} {} lease {} shard {shard}\n", quoted(&kv.value), kv.lease)
            }
        };
    }
    for lease in &write.leases_ended {
        text += &format!("  lease {lease} ended\n");
    }
    text
}

fn what(control: &ControlEntry) -> String {
    match control {
        ControlEntry::Bootstrap { cluster, token, members: of, cuts: at, feature_level } => {
            let (token, members, cuts) = (quoted(token.as_bytes()), members(of), cuts(at));
            format!(
                "bootstrap of cluster {cluster:x}, token {token}, feature level {feature_level}; {members}; {cuts}"
            )
        }
        ControlEntry::MemberAttributes { member, directory, name, client_urls, raft_ids: ids } => {
            let (name, urls, ids) = (quoted(name.as_bytes()), client_urls.join(","), raft_ids(ids));
            format!("member {member:x} is {name} at {urls} in directory {directory:016x}; {ids}")
        }
        ControlEntry::Intent(Intent::Adding(member)) => {
            format!("adding {}", members(std::slice::from_ref(&**member)))
        }
        ControlEntry::Intent(Intent::Promoting { member }) => format!("promoting member {member:x}"),
        ControlEntry::Intent(Intent::Removing { member }) => format!("removing member {member:x}"),
        ControlEntry::IntentDone { member, change } => format!("{} member {member:x} is done", change.name()),
        ControlEntry::FeatureLevel { level } => format!("feature level {level}"),
        ControlEntry::LeaseGrant { lease, ttl_secs } => format!("lease {lease} granted for {ttl_secs} s"),
        ControlEntry::LeaseEnd { lease } => format!("lease {lease} ended"),
        ControlEntry::Compact { revision } => format!("compaction at revision {revision}"),
        ControlEntry::AlarmOn { member, alarm } => {
            format!("alarm {} of member {member:x} is on", alarm_name(*alarm))
        }
        ControlEntry::AlarmOff { member, alarm } => {
            format!("alarm {} of member {member:x} is off", alarm_name(*alarm))
        }
        ControlEntry::MemberUrls { member, peer_urls } => {
            format!("member {member:x} is reached at {}", peer_urls.join(","))
        }
        ControlEntry::StandAlone { member } => format!("member {member:x} goes on alone"),
    }
}

pub fn control_state(state: &ControlState) -> String {
    let mut text =
        format!("# control entries up to {} are only in this state, from a checkpoint:\n", state.index);
    let (token, compacted) = (quoted(state.token.as_bytes()), state.compact_revision);
    text += &format!(
        "#   cluster {:x}, token {token}, feature level {}, compacted at revision {compacted}\n",
        state.cluster, state.feature_level
    );
    text += &format!("#   {}; {}\n", members(&state.members), cuts(&state.cuts));
    for intent in &state.intents {
        text += &format!("#   {} member {:x} is under way\n", intent.change.name(), intent.member);
    }
    for removed in &state.removed {
        text += &format!("#   member {removed:x} has been removed\n");
    }
    for lease in &state.leases {
        text += &format!("#   lease {} of {} s\n", lease.lease, lease.ttl_secs);
    }
    for alarm in &state.alarms {
        text += &format!("#   alarm {} of member {:x}\n", alarm_name(alarm.alarm), alarm.member);
    }
    text
}

fn members(members: &[MemberRecord]) -> String {
    let shown = members.iter().map(|member| {
        let (name, learner) =
            (quoted(member.name.as_bytes()), if member.is_learner { ", learner" } else { "" });
        let (peers, clients) = (member.peer_urls.join(","), member.client_urls.join(","));
        let (id, directory, ids) = (member.id, member.directory, raft_ids(&member.raft_ids));
        format!(
            "member {id:x} {name} (peers {peers}; clients {clients}; directory {directory:016x}; {ids}{learner})"
        )
    });
    shown.collect::<Vec<String>>().join(", ")
}

fn raft_ids(ids: &[RaftIdRecord]) -> String {
    let shown = ids.iter().map(|of| format!("log {}.{} is peer {:x}", of.log, of.incarnation, of.id));
    shown.collect::<Vec<String>>().join(", ")
}

fn cuts(cuts: &[CutRecord]) -> String {
    let shown = cuts.iter().map(|cut| format!("shard {} from {}", cut.shard, quoted(&cut.start)));
    shown.collect::<Vec<String>>().join(", ")
}

fn quoted(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes.escape_ascii())
}
