//! The table of leases: a copy at every reactor.

use crate::api::{Error, LeaseGrantRequest};
use crate::limits;
use crate::stdx::Rng;
use crate::types::{Duration, LeaseId};
use std::collections::BTreeMap;

/// A lease as every reactor knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The granted time to live in seconds, after raising it to the minimum.
    pub ttl_secs: i64,
    /// Its revoke is under way: what names it waits for the outcome. Not part of the replicated state.
    pub revoking: bool,
}

/// What a grant comes to, to be proposed as a control entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    pub lease: LeaseId,
    pub ttl_secs: i64,
}

/// Which leases there are. An ordered map: clients may choose the ids.
#[derive(Clone, Debug)]
pub struct Leases {
    table: BTreeMap<LeaseId, Lease>,
    ttl_secs_min: i64,
}

impl Leases {
    /// The shortest time to live is 1.5 election timeouts, in whole seconds rounded up (etcd's law).
    pub fn new(election_timeout: Duration) -> Leases {
        let secs = (election_timeout.0 * 3).div_ceil(2 * Duration::from_secs(1).0);
        let ttl_secs_min = i64::try_from(secs).expect("an election timeout is far below 2^63 seconds");
        Leases { table: BTreeMap::new(), ttl_secs_min }
    }

    /// Evaluates a grant: chooses an id where the client leaves it to us (positive, unused), refuses one in
    /// use and a time to live above etcd's maximum, raises one below the minimum.
    pub fn evaluate_grant(&self, request: &LeaseGrantRequest, rng: &mut Rng) -> Result<Granted, Error> {
        if request.ttl > limits::LEASE_TTL_SECS_MAX {
            return Err(Error::LeaseTtlTooLarge);
        }
        let lease = match request.id {
            LeaseId::NONE => self.free_id(rng),
            chosen if self.table.contains_key(&chosen) => return Err(Error::LeaseExists),
            chosen => chosen,
        };
        Ok(Granted { lease, ttl_secs: request.ttl.max(self.ttl_secs_min) })
    }

    fn free_id(&self, rng: &mut Rng) -> LeaseId {
        loop {
            let id = LeaseId((rng.next_u64() >> 1) as i64);
            if id != LeaseId::NONE && !self.table.contains_key(&id) {
                return id;
            }
        }
    }

    /// A grant takes effect. Of two grants of one id under way the second in the log fails, everywhere alike.
    pub fn grant(&mut self, granted: Granted) -> Result<(), Error> {
        assert!(granted.lease != LeaseId::NONE, "0 is no lease");
        if self.table.contains_key(&granted.lease) {
            return Err(Error::LeaseExists);
        }
        self.table.insert(granted.lease, Lease { ttl_secs: granted.ttl_secs, revoking: false });
        Ok(())
    }

    /// The lease has ended. Whether it was there.
    pub fn end(&mut self, lease: LeaseId) -> bool {
        self.table.remove(&lease).is_some()
    }

    /// From now on evaluations that name the lease wait. An error if there is no such lease; false if it is
    /// being revoked already.
    pub fn mark_revoking(&mut self, lease: LeaseId) -> Result<bool, Error> {
        let entry = self.table.get_mut(&lease).ok_or(Error::LeaseNotFound)?;
        Ok(!std::mem::replace(&mut entry.revoking, true))
    }

    /// The epoch ended, and with it every revoke under way.
    pub fn clear_all_revoking(&mut self) {
        self.table.values_mut().for_each(|entry| entry.revoking = false);
    }

    pub fn get(&self, lease: LeaseId) -> Option<Lease> {
        self.table.get(&lease).copied()
    }

    /// All leases, ascending by id: what a member that does not lead lists, for it knows no expiry.
    pub fn iter(&self) -> impl Iterator<Item = (LeaseId, Lease)> + '_ {
        self.table.iter().map(|(id, lease)| (*id, *lease))
    }

    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }
}
