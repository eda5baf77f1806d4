//! Requests and replies as Braid's own types: etcd's surface without etcd's protobuf.

mod error;
mod peer_urls;
mod reply;
mod request;

pub use error::{Code, Error};
pub use peer_urls::peer_urls;
pub use reply::*;
pub use request::*;
