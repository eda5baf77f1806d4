//! The simulated world: the second shell. Virtual time, faulty disks, and a model to judge by.

pub mod disk;
pub mod model;

#[cfg(test)]
mod differential;
