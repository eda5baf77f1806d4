//! The end of a lease: every reactor marks it and names its keys, then one transaction deletes them and ends it.

use super::Reactor;
use super::calls::Asker;
use super::controls::Asked;
use super::leading::Revoking;
use super::txns::lease_end;
use crate::api::{
    Compare, CompareResult, CompareTarget, DeleteRangeRequest, Error, Op, Reply, Request, TxnRequest,
};
use crate::io::{Body, CallId, ControlRequest, PartOf};
use crate::record::Control;
use crate::types::{Blob, LeaseId, ReactorId, ShardId, Time};
use bytes::Bytes;

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
        leading.revoking.insert(call, Revoking { lease, waiting: waiting.clone(), keys: vec![] });
        for reactor in waiting {
            self.send(reactor, Body::Revoking { call, lease });
        }
    }

    /// From now on nothing here attaches keys to the lease; these it has.
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
                self.revokes_asked.push((call, lease));
            } else {
                let keys = self.attached_keys(lease);
                self.send(ReactorId(0), Body::RevokingHas { call, keys });
            }
        }
    }

    fn attached_keys(&self, lease: LeaseId) -> Vec<Blob> {
        self.shards.values().flat_map(|owned| owned.attached.keys(lease).cloned()).collect()
    }

    pub(super) fn on_revoking_has(&mut self, from: ReactorId, call: CallId, keys: Vec<Blob>) {
        let Some(leading) = &mut self.leading else { return };
        let Some(revoking) = leading.revoking.get_mut(&call) else { return };
        revoking.keys.extend(keys);
        revoking.waiting.retain(|reactor| *reactor != from);
        if !revoking.waiting.is_empty() {
            return;
        }
        let Some(Revoking { lease, mut keys, .. }) = leading.revoking.remove(&call) else { return };
        keys.sort();
        let mut shards: Vec<ShardId> = keys.iter().map(|key| self.router().shard_of(key)).collect();
        shards.dedup();
        if shards.is_empty() {
            return self.end_bare_lease(lease, call);
        }
        let deletes = keys.iter().map(|key| delete_if_attached(key, lease));
        let txn = TxnRequest { success: deletes.collect(), ..TxnRequest::default() };
        // A transaction of this reactor's, whoever asked for it.
        self.spread_revoke(Asker::Call(call), lease, txn, shards);
    }

    /// A lease without keys ends by an entry of its own.
    pub(super) fn end_bare_lease(&mut self, lease: LeaseId, call: CallId) {
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
        let keys = self.attached_keys(lease);
        let seen = self.sequencer.counter();
        self.send(call.reactor, Body::LeaseKeysAre { call, keys, seen });
    }
}

/// A key may have been put without the lease, or with another, since its reactor named it.
fn delete_if_attached(key: &Blob, lease: LeaseId) -> Op {
    let key = Bytes::copy_from_slice(key);
    let attached = Compare {
        result: CompareResult::Equal,
        target: CompareTarget::Lease(lease.0),
        key: key.clone(),
        range_end: Bytes::new(),
    };
    let delete = Op::DeleteRange(DeleteRangeRequest { key, ..DeleteRangeRequest::default() });
    Op::Txn(TxnRequest { compare: vec![attached], success: vec![delete], failure: vec![] })
}
