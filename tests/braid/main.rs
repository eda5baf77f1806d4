//! The one integration-test binary: a module a subject.

// A test that cannot set its stage up fails where it stands.
#![allow(clippy::unwrap_used)]

mod alone;
mod client;
mod cluster;
mod copies;
mod cpus;
mod doctored;
mod dump;
mod durable;
mod fuzz;
#[path = "../fuzz/seeds.rs"]
mod fuzz_seeds;
#[path = "../fuzz/targets.rs"]
mod fuzz_targets;
mod layers;
mod process;
#[path = "../processes/mod.rs"]
mod processes;
mod seccomp;
mod sim;
mod start_stop;
mod start_up;
mod surface;
mod trials;
