//! Leases, in three parts that live in three places.
//!
//! [`Leases`] says which leases there are. It is part of the control state, so every reactor of every member
//! holds a copy, which changes only by what the control shard's log says. [`Expiry`] says when each ends. It
//! lives on the lead alone, beside the control shard, on monotonic time, and is made anew by each takeover:
//! time spent without a lead never counts against a lease. [`Attached`] says which keys of one shard are
//! attached to a lease; it follows the shard's newest state, so undoing a change undoes it there as well.
//!
//! The end of a lease: `Expiry` finds it due (or a client revokes it), every reactor marks it as being
//! revoked, so that no evaluation that names it goes on, then one transaction deletes the keys of all
//! shards, and its settling ends the lease everywhere.

mod attached;
mod expiry;
mod leases;

#[cfg(test)]
mod tests;

pub use attached::Attached;
pub use expiry::{Expiry, Renewal};
pub use leases::{Granted, Lease, Leases};
