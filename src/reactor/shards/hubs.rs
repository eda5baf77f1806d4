//! The hubs of shards: what settles is published to their readers, and behind it how far it goes.

use super::{LocalShard, Shards, Turn};
use crate::io::CallMail;
use crate::mvcc::Budget;
use crate::types::{ReactorId, Revision, ShardId};
use crate::watch::{Action, HubMessage};
use std::collections::BTreeMap;

impl Shards {
    pub fn on_watch_action(&mut self, action: Action) {
        let (Action::Subscribe { shard, .. }
        | Action::Renew { shard, .. }
        | Action::Unsubscribe { shard, .. }
        | Action::Credit { shard, .. }) = &action;
        assert!(*shard != ShardId::CONTROL, "the control shard has no keys to watch");
        let local = self.of.get_mut(shard).expect("the router knows whose shard it is");
        match action {
            Action::Subscribe { subscription, .. } | Action::Renew { subscription, .. } => {
                // Its reader may have missed watermarks while it had no subscription here: they are sent
                // anew, as an idle shard has no other reason to send any.
                local.marked = Revision::NONE;
                local.hub.subscribe(subscription);
            }
            Action::Unsubscribe { id, .. } => local.hub.unsubscribe(id),
            Action::Credit { id, bytes, .. } => local.hub.add_credit(id, bytes),
        }
    }

    pub fn on_watermark_wanted(&mut self, turn: &mut Turn, from: ReactorId, shard: ShardId) {
        // A watermark travels behind the events that it covers.
        self.send_hub_messages(turn);
        let upto = self.of[&shard].hub.settled();
        assert!(upto <= turn.shown(), "a mark covers what is settled: {upto}");
        turn.send(from, CallMail::Watermarks { watermarks: vec![(shard, upto)] });
    }

    /// Hands what has settled to the hubs. Those that had more than a slice before go on turn by turn.
    pub fn publish(&mut self, turn: &Turn) {
        let (settled, slice) = (*turn.settled, publishing_slice(turn));
        for local in self.of.values_mut().filter(|local| local.shard.id != ShardId::CONTROL) {
            if !local.hub.is_publishing() {
                local.publish(settled, slice);
            }
        }
    }

    /// Publishes one slice more per shard, and more of them where few have any left: a shard that is written as fast as it
    /// can be must not leave its watchers ever further behind. Between two epochs a store may not be where its
    /// reactor is.
    fn go_on_publishing(&mut self, turn: &mut Turn) {
        let slice = publishing_slice(turn);
        let mut taken = 0;
        while taken < turn.settings.bounds.slices_per_turn {
            let before = taken;
            for local in self.of.values_mut().filter(|local| local.hub.is_publishing()) {
                let settled = turn.settled.min(local.shard.store.settled());
                local.publish(settled, slice);
                taken += 1;
            }
            if taken == before {
                return;
            }
        }
    }

    /// The settled revision that a subscriber waits for.
    pub fn watched_revision(&self) -> Option<Revision> {
        let published = self.of.values().filter(|local| !local.hub.is_empty());
        let events =
            published.filter_map(|local| local.shard.log_view().live().next().map(|write| write.revision));
        events.min()
    }

    /// Sends what the hubs have, and behind it how far it goes.
    pub(super) fn send_hub_messages(&mut self, turn: &mut Turn) {
        let mut watermarks: BTreeMap<ReactorId, Vec<(ShardId, Revision)>> = BTreeMap::new();
        let mut messages = vec![];
        for (id, local) in self.of.iter_mut().filter(|(id, _)| **id != ShardId::CONTROL) {
            messages.extend(local.hub.take().into_iter().map(|message| (*id, message)));
            let upto = local.hub.settled();
            if upto > local.marked {
                local.marked = upto;
                for reader in local.hub.readers() {
                    assert!(upto <= turn.shown(), "a mark covers what is settled: {upto}");
                    watermarks.entry(reader).or_default().push((*id, upto));
                }
            }
        }
        for (shard, message) in messages {
            let (HubMessage::Batch(crate::watch::EventBatch { reader, .. })
            | HubMessage::Compacted { reader, .. }) = &message;
            turn.send(*reader, CallMail::Watched { shard, message });
        }
        for (reader, watermarks) in watermarks {
            turn.send(reader, CallMail::Watermarks { watermarks });
        }
    }

    /// Publishes one slice per shard of what has settled, and one of history for those that are behind.
    pub(super) fn work_at_hubs(&mut self, turn: &mut Turn) {
        self.go_on_publishing(turn);
        let (slice, watchers_max) =
            (turn.settings.slice.of_changes(), turn.settings.bounds.watch.catch_up_watchers);
        for local in self.of.values_mut() {
            local.hub.catch_up(&local.shard.store, slice, watchers_max);
        }
    }
}

/// Values are shared, not copied: their size costs nothing here.
fn publishing_slice(turn: &Turn) -> Budget {
    Budget { bytes: usize::MAX, ..turn.settings.slice.of_changes() }
}

impl LocalShard {
    pub(super) fn hub_goes_on(&self) -> bool {
        self.hub.is_publishing() || self.hub.lags()
    }
}
