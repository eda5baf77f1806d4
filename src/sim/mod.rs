//! The simulated world: the second shell. Virtual time, faulty disks, and a model to judge by.
//!
//! That the judgement bites is shown by bugs planted on purpose, each in a patch of `tests/mutants` that names
//! the seed it turns red and the check that sees it (`tools/mutants` builds and runs them all): a reply that
//! leaves before it is settled; mail of an ended epoch that is taken; a control entry proposed on unsettled
//! state; a torn tail taken for whole; a checkpoint whose index runs ahead of its state; a reactor that is not
//! woken. Bugs that the simulator found itself stand beside them.

mod boot;
mod checks;
mod client;
pub mod damage;
pub mod disk;
mod faults;
mod files;
mod history;
pub mod hits;
pub mod model;
pub mod plan;
mod probes;
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
