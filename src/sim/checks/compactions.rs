//! A compaction that was confirmed has taken effect: nothing below it is read any more, nor compacted again.

use super::{Evidence, request_of};
use crate::api::Request;
use crate::sim::world::Failure;
use crate::wire::Method;
use crate::wire::proto::{self, Message};

pub fn check(evidence: &Evidence<'_>) -> Result<(), Failure> {
    for (call, op) in evidence.history.ops.iter().enumerate().filter(|(_, op)| op.is_ok()) {
        let Some(returned) = op.returned else { continue };
        let surely = evidence.compacted_surely(op.invoked.tick);
        let named = match request_of(op) {
            Request::Range(range) => range.revision,
            Request::HashKv { revision } => revision,
            // Of one at the compacted revision itself etcd says that it was compacted.
            Request::Compact(compact) => compact.revision - 1,
            _ => continue,
        };
        if named > 0 && named < surely {
            let what = format!("call {call} ({:?}) was answered, {surely} is compacted", request_of(op));
            return Err(Failure::new("compaction", what));
        }
        if op.method != Method::HashKv {
            continue;
        }
        let hash = proto::HashKvResponse::decode(op.messages[0].clone()).expect("it is protobuf");
        let compacted = hash.compact_revision.max(0);
        let may_be = compacted == 0 || evidence.may_be_compacted(compacted, returned.tick);
        if compacted < surely || !may_be {
            let what =
                format!("call {call} shows {compacted}, {surely} at least is compacted, or nobody asked");
            return Err(Failure::new("compaction", what));
        }
    }
    Ok(())
}
