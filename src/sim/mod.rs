//! The simulated world: the second shell. Virtual time, faulty disks, and a model to judge by.

mod boot;
mod checks;
mod client;
pub mod disk;
mod faults;
mod files;
mod history;
pub mod hits;
pub mod model;
pub mod plan;
mod process;
mod run;
mod trace;
mod workload;
mod world;

#[cfg(test)]
mod differential;
#[cfg(test)]
mod tests;

pub use run::{Report, Summary, run};
pub use world::Failure;
