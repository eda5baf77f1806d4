//! The end of a lease: every reactor marks it and names the shards that have keys of it, then one transaction
//! deletes these and ends it.

use super::controls::{Asked, Asking};
use super::{Leader, Revoking, Turn};
use crate::api::{Error, Reply, Request};
use crate::io::{CallId, CallMail, ControlRequest, ShardMail};
use crate::record::ControlEntry;
use crate::types::{LeaseId, ReactorId, ShardId};

impl Leader {
    pub(super) fn revoke_lease(&mut self, turn: &mut Turn, by: Asking, lease: LeaseId) {
        if self.ending.contains(&lease) || self.granting.contains(&lease) {
            let request = ControlRequest::Client(Request::LeaseRevoke(lease));
            return self.wait_for_entry(turn, lease, Asked { by, request });
        }
        if !turn.control.is_granted(lease) {
            return self.refuse(turn, by.call, Error::LeaseNotFound);
        }
        self.ending.insert(lease);
        let waiting: Vec<ReactorId> = (0..turn.reactors).map(ReactorId).collect();
        let before = self.revoking.insert(by.call, Revoking { lease, waiting, shards: vec![] });
        assert!(before.is_none(), "a call revokes one lease");
        turn.send_to_all(|| ShardMail::Revoking { call: by.call, lease });
    }

    pub fn on_revoking_has(&mut self, turn: &mut Turn, from: ReactorId, call: CallId, having: Vec<ShardId>) {
        let Some(revoking) = self.revoking.get_mut(&call) else { return };
        assert!(revoking.waiting.contains(&from), "reactor {from} says once which shards have keys");
        revoking.shards.extend(having);
        revoking.waiting.retain(|reactor| *reactor != from);
        if !revoking.waiting.is_empty() {
            return;
        }
        let Some(Revoking { lease, mut shards, .. }) = self.revoking.remove(&call) else { return };
        if shards.is_empty() {
            return self.end_bare_lease(turn, lease, call);
        }
        shards.sort();
        assert!(shards.is_sorted_by(|a, b| a < b), "a shard has one owner: {shards:?}");
        turn.counters.paths.revoked_with_keys += 1;
        // It is a transaction of this reactor's, whoever asked for it.
        turn.send(turn.id, CallMail::CrossShardRevoke { call, lease, shards });
    }

    /// A lease without keys ends by an entry of its own.
    pub fn end_bare_lease(&mut self, turn: &mut Turn, lease: LeaseId, call: CallId) {
        assert!(self.ending.contains(&lease), "a lease ends that is being revoked: {lease}");
        turn.counters.paths.revoked_bare += 1;
        let revision = turn.sequencer.counter();
        let answer = Ok(Reply::LeaseRevoke { revision });
        self.decide_control(turn, ControlEntry::LeaseEnd { lease: lease.0 }, Some((call, answer)));
    }
}
