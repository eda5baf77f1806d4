//! Runs of the world, each by its seed.

use super::plan::Plan;
use super::run;

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [1, 2, 3] {
        let first = run(&Plan::draw(seed), false);
        let second = run(&Plan::draw(seed), false);
        assert_eq!(first.trace_hash, second.trace_hash, "seed {seed}");
    }
}
