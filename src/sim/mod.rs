//! The simulated world.

pub mod model;
