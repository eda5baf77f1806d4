//! The simulated world.

pub mod model;

#[cfg(test)]
mod differential;
