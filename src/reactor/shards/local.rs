//! A shard of this reactor, with all that stands around it.

use super::super::epoch::Driving;
use super::reservations::Reservation;
use super::writes::Evaluation;
use crate::api::TxnRequest;
use crate::io::{CallId, Paths};
use crate::lease::Attached;
use crate::log::LogId;
use crate::mvcc::{Budget, PinId};
use crate::recover::ArrivedState;
use crate::shard::{Coverage, Shard};
use crate::txn::LeaseMove;
use crate::types::{LeaseId, Revision};
use crate::watch::{Hub, HubCounts};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What has to wait for its evaluation: for a reservation to end, for room in the ring or in the log.
#[derive(Debug)]
pub enum Waiting {
    Evaluate(Evaluation),
    Reserve { call: CallId, txn: Arc<TxnRequest>, revokes: Option<LeaseId> },
}

pub struct LocalShard {
    pub shard: Shard,
    /// The log that it was read from.
    pub read_from: LogId,
    pub attached: Attached,
    pub hub: Hub,
    pub reserved: Option<Reservation>,
    pub waiting: VecDeque<Waiting>,
    /// What is done that the group is led here.
    pub driving: Driving,
    /// How far it may be shown while another member leads.
    pub coverage: Coverage,
    /// History held for hashes and transactions under way.
    pub pins: BTreeMap<CallId, (PinId, Revision)>,
    /// Readers know that the hub's messages are complete up to here.
    pub marked: Revision,
    /// A compaction has history left to drop.
    pub compacting: bool,
    /// Another member's state, behind which the log goes on; the store is exchanged for it once what is shown here
    /// has reached it.
    pub arrived: Option<ArrivedState>,
    /// The log does not have it durably yet.
    pub is_installing: bool,
}

impl LocalShard {
    pub fn new(shard: Shard, read_from: LogId, attached: Attached) -> LocalShard {
        let settled = shard.store.newest_revision().main;
        LocalShard {
            hub: Hub::new(settled, shard.store.compacted()),
            shard,
            read_from,
            attached,
            reserved: None,
            waiting: VecDeque::new(),
            driving: Driving::default(),
            coverage: Coverage::default(),
            pins: BTreeMap::new(),
            marked: Revision::NONE,
            compacting: false,
            arrived: None,
            is_installing: false,
        }
    }

    /// Whether the next turn has something to do for it.
    pub fn goes_on(&self) -> bool {
        self.compacting || self.hub_goes_on() || self.shard.lags()
    }

    /// Adds what shard and hub count.
    pub fn count(&self, paths: &mut Paths) {
        let HubCounts { fell_behind, caught_up, compacted, published_in_slices } = self.hub.counts();
        paths.watch_fell_behind += fell_behind;
        paths.watch_caught_up += caught_up;
        paths.watch_compacted += compacted;
        paths.watch_published_in_slices += published_in_slices;
        paths.entry_cut += self.shard.entries_cut();
        paths.write_voided += self.shard.log_view().voided();
    }

    /// Moves keys between leases as the store's changes say.
    pub(super) fn follow_leases(&mut self, moves: &mut Vec<LeaseMove>) {
        for LeaseMove { key, from, to } in moves.drain(..) {
            self.attached.change(&key, from, to);
        }
    }

    /// Lets history go, and what compaction had to leave for it.
    pub(super) fn unpin(&mut self, pin: PinId) {
        self.shard.store.unpin(pin);
        self.compacting = true;
    }

    /// Exchanges the store for the state that has arrived, if one has.
    pub(super) fn exchange(&mut self) {
        let Some(ArrivedState { meta, store, attached, .. }) = self.arrived.take() else { return };
        assert!(meta.revision >= self.shard.store.settled().0, "a state does not go back: {}", meta.revision);
        // What was begun is told from the store that it was begun of.
        while self.hub.is_publishing() {
            let settled = self.shard.store.settled();
            self.hub.publish(&mut self.shard.store, settled, Budget::UNBOUNDED);
        }
        self.hub.exchanged(store.compacted());
        // Whoever holds history of the old one finds that it has gone, and begins anew.
        self.pins.clear();
        (self.shard.store, self.attached, self.compacting) = (store, attached, true);
    }

    /// Hands what has settled, or a slice of it, to the hub.
    pub fn publish(&mut self, settled: Revision, slice: Budget) {
        assert!(settled <= self.shard.store.settled(), "nothing is published that may be undone");
        let held = self.hub.is_publishing();
        self.hub.publish(&mut self.shard.store, settled, slice);
        self.compacting |= held && !self.hub.is_publishing();
    }

    /// Holds history as it is now, for the call's reads.
    pub(super) fn hold_history(&mut self, call: CallId) {
        let store = &mut self.shard.store;
        let (pin, compacted) = (store.pin(store.settled()), store.compacted());
        assert!(self.pins.insert(call, (pin, compacted)).is_none(), "a call holds history once");
    }

    /// Lets go what the call holds, if it holds any.
    pub fn let_history_go(&mut self, call: CallId) {
        if let Some((pin, _)) = self.pins.remove(&call) {
            self.unpin(pin);
        }
    }

    /// What only this epoch wanted is forgotten.
    pub fn end_epoch(&mut self) {
        self.reserved = None;
        self.waiting.clear();
        for (pin, _) in std::mem::take(&mut self.pins).into_values() {
            self.unpin(pin);
        }
    }
}
