//! The simulated world: the second shell. Virtual time, members with processes, disks and clocks of their own,
//! links between them, and a model to judge by.
//!
//! A seed draws the members, their clients, what goes wrong, and the limits that decide which way work takes
//! ([`crate::limits::Bounds`]), most of them so small that a short run comes to them. What is drawn proves
//! nothing by itself: faults count where they hit something, and the program counts the ways it goes that few
//! requests take; CI's seeds have to reach all of them, those of several members what only several do.
//!
//! In some worlds members come and go: operators ask for it as clients do, what they were told is judged as all answers
//! are, and processes join with an empty disk, are removed, and end ([`plan::Plan::draw_changing`]).
//!
//! That the judgement bites is shown by bugs planted on purpose, each in a patch of `tests/mutants` that names
//! a seed it turns red and the check that sees it, or the unit test that sees what no seed of the world can show:
//! `tools/mutants` builds and runs them, and tells the score. A bug that the simulator has found stands there as
//! well, so that it is found again.
//!
//! What clients of real processes have seen is judged by the same checks: [`client::Client`] speaks over bytes that
//! may come from a socket as well, and writes the same [`history::History`].

mod alone;
mod boot;
mod checks;
pub mod client;
mod clock;
pub mod damage;
pub mod disk;
mod faults;
mod files;
pub mod history;
pub mod hits;
pub mod links;
mod lives;
mod member;
pub mod model;
mod network;
mod newcomers;
mod operator;
mod peers;
pub mod plan;
mod probes;
mod process;
mod quorum;
mod races;
mod run;
mod trace;
pub mod workload;
mod world;

#[cfg(test)]
mod differential;
#[cfg(test)]
mod tests;

pub use boot::Identity;
pub use checks::{check, check_shown};
pub use run::{Report, Summary, run};
pub use world::Failure;
