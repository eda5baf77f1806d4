//! `/debug/vars`: what etcd shows there of its process and of Raft, as far as it means something here. (Its
//! `memstats` are of Go's memory; the process' own is in the metrics.)

use super::Turn;
use crate::io::Census;
use crate::types::{ReactorId, ShardId};
use crate::wire::http1::{ContentType, Http1Response};
use serde_json::json;
use std::collections::BTreeMap;

pub fn page(turn: &Turn, rows: &BTreeMap<ReactorId, Census>) -> Http1Response {
    let process = rows.values().find_map(|row| row.process).unwrap_or_default();
    let shards = rows.values().flat_map(|row| &row.shards);
    let control = shards.clone().find(|shard| shard.shard == ShardId::CONTROL);
    let (committed, applied) = control.map_or((0, 0), |shard| (shard.committed.0, shard.applied.0));
    let id = format!("{:x}", turn.settings.member.0);
    let leads = turn.epoch_state.leads();
    let follower = json!({ "match": committed, "next": committed + 1, "state": "StateReplicate" });
    let progress = if leads { json!({ id.as_str(): follower }) } else { json!({}) };
    let vars = json!({
        "cmdline": turn.settings.observing.command_line,
        "file_descriptor_limit": process.fds_max,
        "raft.status": {
            "id": id,
            "term": turn.epoch().term.0,
            "vote": id,
            "commit": committed,
            "lead": if leads { id.as_str() } else { "0" },
            "raftState": if leads { "StateLeader" } else { "StateFollower" },
            "applied": applied,
            "progress": progress,
            "leadtransferee": "0",
        },
    });
    Http1Response::ok(ContentType::Json, format!("{vars:#}\n").into_bytes())
}
