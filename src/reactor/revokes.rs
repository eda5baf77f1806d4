//! The end of a lease: every reactor marks it and names the shards that have keys of it, then one transaction
//! deletes these and ends it.

use super::Reactor;
use super::calls::Asker;
use super::controls::Asked;
use super::leading::Revoking;
use super::txns::lease_end;
use crate::api::{Error, Reply, Request};
use crate::io::{Body, CallId, ControlRequest, PartOf};
use crate::record::Control;
use crate::types::{LeaseId, ReactorId, ShardId, Time};

impl Reactor {
    pub(super) fn revoke_lease(&mut self, call: CallId, lease: LeaseId, until: Time) {
        let Some(leading) = &mut self.leading else { return };
        if leading.ending.contains(&lease) || leading.granting.contains(&lease) {
            let request = ControlRequest::Client(Request::LeaseRevoke(lease));
            return self.wait_for_entry(lease, Asked { call, request, until });
        }
        if !self.control.is_granted(lease) {
            return self.refuse(call, Error::LeaseNotFound);
        }
        leading.ending.insert(lease);
        let waiting: Vec<ReactorId> = (0..self.reactors).map(ReactorId).collect();
        leading.revoking.insert(call, Revoking { lease, waiting: waiting.clone(), shards: vec![] });
        for reactor in waiting {
            self.send(reactor, Body::Revoking { call, lease });
        }
    }

    /// From now on nothing here attaches keys to the lease; what it has it may lose.
    pub(super) fn on_revoking(&mut self, call: CallId, lease: LeaseId) {
        // It is granted: the control shard's reactor has said so before.
        let marked = self.control.leases.mark_revoking(lease);
        assert!(marked == Ok(true), "a lease is revoked once");
        self.revokes_asked.push((call, lease));
        self.answer_revokes();
    }

    /// A transaction over several shards that found the lease before the mark may yet attach keys: its part
    /// comes first.
    pub(super) fn answer_revokes(&mut self) {
        for (call, lease) in std::mem::take(&mut self.revokes_asked) {
            if self.is_reserved_with(lease) {
                self.counters.paths.revoke_waited_for_txn += 1;
                self.revokes_asked.push((call, lease));
            } else {
                let having = self.shards.iter().filter(|(_, owned)| owned.attached.count(lease) > 0);
                let shards = having.map(|(id, _)| *id).collect();
                self.send(ReactorId(0), Body::RevokingHas { call, shards });
            }
        }
    }

    pub(super) fn on_revoking_has(&mut self, from: ReactorId, call: CallId, having: Vec<ShardId>) {
        let Some(leading) = &mut self.leading else { return };
        let Some(revoking) = leading.revoking.get_mut(&call) else { return };
        revoking.shards.extend(having);
        revoking.waiting.retain(|reactor| *reactor != from);
        if !revoking.waiting.is_empty() {
            return;
        }
        let Some(Revoking { lease, mut shards, .. }) = leading.revoking.remove(&call) else { return };
        if shards.is_empty() {
            return self.end_bare_lease(lease, call);
        }
        shards.sort();
        self.counters.paths.revoked_with_keys += 1;
        // A transaction of this reactor's, whoever asked for it.
        self.spread_revoke(Asker::Call(call), lease, shards);
    }

    /// A lease without keys ends by an entry of its own.
    pub(super) fn end_bare_lease(&mut self, lease: LeaseId, call: CallId) {
        self.counters.paths.revoked_bare += 1;
        let revision = self.sequencer.counter();
        let answer = Ok(Reply::LeaseRevoke { revision });
        self.decide_control(Control::LeaseEnd { lease: lease.0 }, Some((call, answer)));
    }

    /// The control shard's part of the revision that deletes a lease's keys.
    pub(super) fn end_lease_with(&mut self, lease: LeaseId, part: PartOf) {
        self.control_shard().push_effect(lease_end(lease, part));
    }

    // The keys of a lease, for LeaseTimeToLive.

    pub(super) fn on_lease_keys(&mut self, call: CallId, lease: LeaseId) {
        let shards = self.shards.values();
        let keys = shards.flat_map(|owned| owned.attached.keys(lease).cloned()).collect();
        let seen = self.sequencer.counter();
        self.send(call.reactor, Body::LeaseKeysAre { call, keys, seen });
    }
}
