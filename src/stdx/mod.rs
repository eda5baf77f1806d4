//! Small tools that know nothing of Braid.

mod as_of;
mod calendar;
mod hash;
mod hex_dump;
mod histogram;
mod rng;
mod version;

pub use as_of::AsOf;
pub use calendar::civil;
pub use hash::HashMap;
#[cfg(test)]
pub use hex_dump::{dump, read_dump};
pub use histogram::Histogram;
pub use rng::Rng;
pub use version::VersionMismatch;
