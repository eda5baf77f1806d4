//! etcd's bytes and [`crate::api`]'s values: protobuf, the framing and metadata of gRPC, and HTTP/1.
//!
//! Nothing here waits or keeps a connection: pure functions, and small machines that take what has arrived
//! and say what is complete. etcd's protobuf stops here.

mod counters;
pub mod decode;
pub mod encode;
mod fields;
pub mod grpc;
pub mod gzip;
pub mod health;
pub mod http1;
pub mod metadata;
pub mod method;
pub mod peer_pages;
pub mod proto;
mod quote;
mod sink;
pub mod text;

pub use counters::{MethodCounters, RpcCounters, Timed};
pub use encode::{Header, TooLong};
pub use method::{CallKind, Method};

/// The version this server answers with, as clients decide by it what they may ask.
pub const SERVER_VERSION: &str = "3.7.1";
/// etcd's version of what all members agree on.
pub const CLUSTER_VERSION: &str = "3.7.0";
/// etcd's version of what is on disk.
pub const STORAGE_VERSION: &str = "3.7.0";
