//! Requests and replies as Braid's own types: etcd's surface without etcd's protobuf.

mod error;
mod reply;
mod request;

pub use error::{Code, Error};
pub use reply::*;
pub use request::*;
