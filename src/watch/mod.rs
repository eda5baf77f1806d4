//! Watches: from the owner of a shard to one client's stream.
//!
//! ```text
//!   owner of shard 1: Hub --- messages, watermarks --->\
//!   owner of shard 2: Hub --- messages, watermarks ---> Stream --- poll: replies ---> client
//!                      ^------ subscribe, credit ---/
//! ```
//!
//! A [`Hub`] stands beside a shard's store. The owner has it publish the changes as they settle; a subscription
//! *in step* gets them at once. One without credit falls *behind*: the hub then keeps only its place, and
//! reads history for it when credit has come, until it is in step again. So a slow reader costs no memory
//! and delays nobody.
//!
//! A [`WatchStream`] stands at the connection. A watcher has one *feed* per shard that its range touches. A
//! feed's position is the revision up to which its shard has sent everything: while behind what its last
//! batch says, while in step also what the shard's watermarks say, which travel behind the batches once for
//! all watchers of a reactor ([`Watermarks`]). Events leave in the order of (main, sub) up to the lowest
//! position over the feeds. So a revision is never torn, and what a progress reply promises is true.
//!
//! Why watermarks: a shard that has nothing to say must say so, or every merge would wait for it. Said for
//! each watcher that would cost as many messages as there are watchers; a watermark is said once for each
//! pair of reactors and turn. Why no common queue of all shards' events: each owner would wait for the
//! slowest, and each reader would look at what all others watch.
//!
//! Credit: a subscription starts with some, events use it up where they are sent, and the stream gives it
//! back when the client has taken them. The feed with the lowest position can always be emptied, so it gets
//! its credit back, and a watcher never waits for itself.

mod hub;
mod index;
mod reply;
mod stream;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod transcripts;

pub use hub::{Hub, HubCounts};
pub use reply::AuthError;
pub use stream::{StreamStats, View, WatchStream};

use crate::api::{WatchCreate, WatchEvent};
use crate::limits;
use crate::types::{At, Event, KeyRange, KeyValue, ReactorId, Revision, ShardId};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The id of a watcher at the hubs of its shards, the same at each. The reader's reactor chooses it and puts
/// its own number into it; it is never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(pub u64);

/// What a stream asks of a shard's hub.
#[derive(Clone, Debug)]
pub struct Subscription {
    pub id: SubscriptionId,
    pub reader: ReactorId,
    pub range: KeyRange,
    pub no_put: bool,
    pub no_delete: bool,
    pub prev_kv: bool,
    /// The first revision of interest; it may lie in the future.
    pub from: Revision,
    pub credit_bytes: usize,
}

/// An event with its place, shared by all who get it.
pub type Delivery = (At, Arc<WatchEvent>);

/// What a hub tells a reader. A message comes before every watermark that covers more than it does.
#[derive(Clone, Debug)]
pub enum HubMessage {
    Batch(EventBatch),
    /// History from the subscription's place on is gone, and with it the subscription.
    Compacted {
        id: SubscriptionId,
        reader: ReactorId,
        revision: Revision,
    },
}

/// Events for a subscription, which then has everything up to `upto`. Events above it belong to one revision
/// of which more is to come: a stream keeps them until then.
#[derive(Clone, Debug)]
pub struct EventBatch {
    pub id: SubscriptionId,
    pub reader: ReactorId,
    pub events: Vec<Delivery>,
    pub upto: Revision,
    /// Whether the shard's watermarks hold for this subscription from here on.
    pub in_step: bool,
}

/// What a stream wants the hubs to hear, in this order.
#[derive(Clone, Debug)]
pub enum Action {
    Subscribe {
        shard: ShardId,
        subscription: Subscription,
    },
    /// Subscribes anew where a compaction came first, for a watcher that may as well begin behind it.
    Renew {
        shard: ShardId,
        subscription: Subscription,
    },
    Unsubscribe {
        shard: ShardId,
        id: SubscriptionId,
    },
    Credit {
        shard: ShardId,
        id: SubscriptionId,
        bytes: usize,
    },
}

/// How far each shard has sent its events to this reactor, for all subscriptions in step.
#[derive(Clone, Debug, Default)]
pub struct Watermarks {
    upto: BTreeMap<ShardId, Revision>,
    raised: u64,
}

impl Watermarks {
    /// Raises a shard's watermark, which has come, or which the sequencer's ring shows (nothing touched the
    /// shard).
    pub fn raise(&mut self, shard: ShardId, upto: Revision) {
        let watermark = self.upto.entry(shard).or_default();
        if upto > *watermark {
            *watermark = upto;
            self.raised += 1;
        }
    }
    pub fn of(&self, shard: ShardId) -> Revision {
        self.upto.get(&shard).copied().unwrap_or(Revision::NONE)
    }
    /// A number that changes whenever some watermark rises.
    fn stamp(&self) -> u64 {
        self.raised
    }
}

/// The keys a create request means: an empty key is the smallest one (etcd's law).
pub fn range_of(create: &WatchCreate) -> KeyRange {
    let key = if create.key.is_empty() { Bytes::from_static(b"\0") } else { create.key.clone() };
    KeyRange::of(key, create.range_end.clone())
}

/// What an event takes of a subscription's credit, counted alike at both ends.
fn cost_bytes(event: &WatchEvent) -> usize {
    let kv = match &event.event {
        Event::Put(kv) => kv_bytes(kv),
        Event::Delete { key, .. } => key.len(),
    };
    limits::WATCH_EVENT_OVERHEAD_BYTES + kv + event.prev_kv.as_ref().map_or(0, kv_bytes)
}

fn kv_bytes(kv: &KeyValue) -> usize {
    kv.key.len() + kv.value.len()
}
