//! Braid: a drop-in replacement for etcd v3.
//!
//! Many Raft logs, one revision order. Everything outside `shell` is deterministic: values and the time
//! go in, values come out. The rooms stand in the order of the layers; a test holds the code to it.

pub mod limits;
pub mod stdx;
pub mod types;

pub mod api;
pub mod record;

pub mod mvcc;

pub mod log;

pub mod checkpoint;

pub mod sim;
