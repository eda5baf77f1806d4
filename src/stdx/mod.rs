//! Small tools that know nothing of Braid.

mod as_of;
mod calendar;
mod hash;
mod histogram;
mod rng;
mod version;

pub use as_of::AsOf;
pub use calendar::civil;
pub use hash::HashMap;
pub use histogram::Histogram;
pub use rng::Rng;
pub use version::VersionMismatch;
