//! The one integration-test binary: a module a subject.

mod fuzz;
#[path = "../fuzz/seeds.rs"]
mod fuzz_seeds;
#[path = "../fuzz/targets.rs"]
mod fuzz_targets;
mod layers;
mod process;
