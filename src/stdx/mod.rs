//! Small tools that know nothing of Braid.

mod calendar;
mod hash;
mod histogram;
mod rng;

pub use calendar::civil;
pub use hash::HashMap;
pub use histogram::Histogram;
pub use rng::Rng;
