//! Small tools that know nothing of Braid.

mod hash;
mod rng;

pub use hash::{HashMap, HashSet};
pub use rng::Rng;
