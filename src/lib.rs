//! Braid: a drop-in replacement for etcd v3.
//!
//! Many Raft logs, one revision order. Everything outside `shell` is deterministic: values and the time
//! go in, values come out. The rooms stand in the order of the layers; a test holds the code to it.

pub mod limits;
pub mod stdx;
pub mod types;

pub mod api;
pub mod config;
pub mod record;

pub mod lease;
pub mod mvcc;
pub mod txn;
pub mod watch;

pub mod checkpoint;
pub mod log;
pub mod raft;
pub mod sequencer;

pub mod control;
pub mod router;
pub mod shard;
pub mod takeover;

pub mod front;
pub mod http2;
pub mod wire;

pub mod io;
pub mod reactor;
pub mod recover;

pub mod shell;
pub mod sim;
