//! Which keys of one shard hang on which lease.
//!
//! Most keys have no lease and cost nothing here. A lease often holds a single key (locks, registrations):
//! that one costs no set of its own. Keys are shared with the store.

use crate::types::{Blob, LeaseId};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug)]
enum Keys {
    One(Blob),
    Many(BTreeSet<Blob>),
}

/// A shard's keys by lease. Follows the store's newest state, settled or not.
#[derive(Debug, Default)]
pub struct Attached {
    leases: BTreeMap<LeaseId, Keys>,
}

impl Attached {
    /// The key's lease changed: 0 is "none", for a key that is not live as well. Undo swaps the two.
    pub fn change(&mut self, key: &Blob, from: LeaseId, to: LeaseId) {
        if from == to {
            return;
        }
        if from != LeaseId::NONE {
            self.detach(key, from);
        }
        if to != LeaseId::NONE {
            self.attach(key, to);
        }
    }

    fn attach(&mut self, key: &Blob, lease: LeaseId) {
        let fresh = match self.leases.get_mut(&lease) {
            None => self.leases.insert(lease, Keys::One(key.clone())).is_none(),
            Some(Keys::Many(keys)) => keys.insert(key.clone()),
            Some(entry) => {
                let Keys::One(first) = &*entry else { unreachable!("the other form is above") };
                let keys = BTreeSet::from([first.clone(), key.clone()]);
                let fresh = keys.len() == 2;
                *entry = Keys::Many(keys);
                fresh
            }
        };
        assert!(fresh, "a key is attached once");
    }

    fn detach(&mut self, key: &Blob, lease: LeaseId) {
        let entry = self.leases.get_mut(&lease).expect("a key's lease has keys");
        let (was_there, empty) = match entry {
            Keys::One(only) => (only == key, true),
            Keys::Many(keys) => (keys.remove(key), keys.is_empty()),
        };
        assert!(was_there, "a key is detached from the lease it is attached to");
        if empty {
            self.leases.remove(&lease);
        }
    }

    /// The lease's keys in this shard, ascending: the order in which a revoke deletes them.
    pub fn keys(&self, lease: LeaseId) -> impl Iterator<Item = &Blob> {
        let (one, many) = match self.leases.get(&lease) {
            None => (None, None),
            Some(Keys::One(key)) => (Some(key), None),
            Some(Keys::Many(keys)) => (None, Some(keys)),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    /// How many these are.
    pub fn count(&self, lease: LeaseId) -> usize {
        match self.leases.get(&lease) {
            None => 0,
            Some(Keys::One(_)) => 1,
            Some(Keys::Many(keys)) => keys.len(),
        }
    }
}
