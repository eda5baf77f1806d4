//! Random requests, three implementations, one answer: the model, one store, and the same keys cut over
//! several stores. A list of steps that fails is cut down before it is shown.

mod generate;
mod worlds;

use self::generate::Generator;
use self::worlds::{Cut, Single, World};
use crate::api::{Op, RangeRequest, Request, TxnRequest};
use crate::sim::model::Model;
use crate::stdx::Rng;
use crate::types::{KeyRange, Revision};
use std::panic::{AssertUnwindSafe, catch_unwind};

const OPS_MAX: usize = 8;

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Request(Request),
    /// The same request as a RangeStream, whose chunks are to merge into the plain answer.
    Stream(RangeRequest),
    /// What is at most this becomes settled; in thousandths of the way to the newest revision.
    Settle(u64),
    /// What is above is undone; counted like settling, between settled and newest.
    Undo(u64),
}

struct Trial {
    model: Model,
    single: Single,
    cut: Cut,
    settled: Revision,
}

impl Trial {
    fn new(layout: u64) -> Trial {
        Trial {
            model: Model::new(OPS_MAX),
            single: Single::new(layout),
            cut: Cut::new(layout),
            settled: Revision::FRESH,
        }
    }

    fn worlds(&mut self) -> [&mut dyn World; 2] {
        [&mut self.single, &mut self.cut]
    }

    fn on_both(&mut self, act: impl Fn(&mut dyn World)) {
        self.worlds().into_iter().for_each(act);
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Request(request) => self.request(request)?,
            Step::Stream(request) => {
                let expected = self.model.range(request);
                for world in self.worlds() {
                    same("stream", &expected, &world.stream(request))?;
                }
            }
            Step::Settle(share) => {
                self.settled = between(self.settled, self.model.revision(), *share);
                let settled = self.settled;
                self.on_both(|world| world.settle(settled));
            }
            Step::Undo(share) => {
                let to = between(self.settled, self.model.revision(), *share);
                self.model.undo_above(to);
                self.on_both(|world| world.undo_above(to));
            }
        }
        self.compare_state()
    }

    fn request(&mut self, request: &Request) -> Result<(), String> {
        let before = self.model.revision();
        let expected = self.model.answer(request);
        if let Request::Compact(compact) = request {
            if expected.is_ok() {
                let at = Revision(compact.revision as u64);
                self.settled = self.settled.max(at);
                let settled = self.settled;
                self.on_both(|world| world.settle(settled));
                self.on_both(|world| world.compact(at));
            }
            return Ok(());
        }
        let events = self.model.events(&KeyRange::everything(), before.next()).expect("not compacted");
        for world in self.worlds() {
            same("answer", &expected, &world.answer(request))?;
            same("effects", &worlds::changes_of(&events), &world.take_effects())?;
        }
        Ok(())
    }

    fn compare_state(&mut self) -> Result<(), String> {
        let (compacted, newest) = (self.model.compacted(), self.model.revision());
        let middle = between(compacted.max(Revision::FRESH), newest, 500);
        let leases = generate::LEASES.map(|lease| (lease, self.model.attached(lease)));
        let events = self.model.events(&KeyRange::everything(), compacted.next()).expect("not compacted");
        let history: Vec<_> = events.into_iter().map(|(at, event)| (at, event.event)).collect();
        let states = [middle, newest].map(|at| (at, self.model.state_at(at)));
        for world in self.worlds() {
            for (at, state) in &states {
                same("state", state, &world.state_at(*at))?;
            }
            for (lease, keys) in &leases {
                same("keys of a lease", keys, &world.attached(*lease))?;
            }
            same("history", &history, &world.history())?;
        }
        Ok(())
    }
}

fn between(low: Revision, high: Revision, share: u64) -> Revision {
    Revision(low.0 + high.0.saturating_sub(low.0) * share / 1000)
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, expected: &T, found: &T) -> Result<(), String> {
    if expected == found {
        return Ok(());
    }
    Err(format!("{what}:\n  model {expected:?}\n  found {found:?}"))
}

/// Runs the steps; the failure, with the number of steps it took.
fn failure(layout: u64, steps: &[Step]) -> Option<String> {
    let mut trial = Trial::new(layout);
    for (number, step) in steps.iter().enumerate() {
        let result = catch_unwind(AssertUnwindSafe(|| trial.step(step)));
        match result.unwrap_or_else(|_| Err("a panic".to_owned())) {
            Ok(()) => {}
            Err(error) => return Some(format!("step {number}: {error}")),
        }
    }
    None
}

/// Cuts a failing list down: steps first, then the insides of transactions.
fn shrink(mut steps: Vec<Step>, fails: &dyn Fn(&[Step]) -> bool) -> Vec<Step> {
    loop {
        let size = weight(&steps);
        let mut chunk = steps.len().max(1);
        while chunk > 0 {
            let mut at = 0;
            while at < steps.len() {
                let mut fewer = steps.clone();
                fewer.drain(at..(at + chunk).min(steps.len()));
                if fails(&fewer) {
                    steps = fewer;
                } else {
                    at += chunk;
                }
            }
            chunk /= 2;
        }
        for at in 0..steps.len() {
            while let Some(simpler) = simpler(&steps[at]).into_iter().find(|step| {
                let mut changed = steps.clone();
                changed[at] = step.clone();
                fails(&changed)
            }) {
                steps[at] = simpler;
            }
        }
        if weight(&steps) == size {
            return steps;
        }
    }
}

fn weight(steps: &[Step]) -> usize {
    steps.iter().map(|step| format!("{step:?}").len()).sum()
}

fn simpler(step: &Step) -> Vec<Step> {
    match step {
        Step::Request(Request::Txn(txn)) => {
            simpler_txns(txn).into_iter().map(|txn| Step::Request(Request::Txn(txn))).collect()
        }
        _ => Vec::new(),
    }
}

fn simpler_txns(txn: &TxnRequest) -> Vec<TxnRequest> {
    let mut all = Vec::new();
    for at in 0..txn.compare.len() {
        let mut fewer = txn.clone();
        fewer.compare.remove(at);
        all.push(fewer);
    }
    for success in [true, false] {
        fn branch(txn: &mut TxnRequest, success: bool) -> &mut Vec<Op> {
            if success { &mut txn.success } else { &mut txn.failure }
        }
        for at in 0..branch(&mut txn.clone(), success).len() {
            let mut fewer = txn.clone();
            let removed = branch(&mut fewer, success).remove(at);
            all.push(fewer);
            let Op::Txn(nested) = removed else { continue };
            for nested in simpler_txns(&nested) {
                let mut changed = txn.clone();
                branch(&mut changed, success)[at] = Op::Txn(nested);
                all.push(changed);
            }
        }
    }
    all
}

fn agree_on_seeds(seeds: std::ops::Range<u64>, steps: usize) {
    let quiet = std::panic::take_hook();
    for seed in seeds {
        let steps = Generator::new(Rng::new(seed)).steps(steps);
        if failure(seed, &steps).is_none() {
            continue;
        }
        std::panic::set_hook(Box::new(|_| {}));
        let least = shrink(steps, &|steps| failure(seed, steps).is_some());
        std::panic::set_hook(quiet);
        let error = failure(seed, &least).unwrap_or_default();
        panic!("seed {seed}: {} steps are enough:\n{least:#?}\n{error}", least.len());
    }
}

#[test]
fn one_store_and_several_answer_as_the_model() {
    agree_on_seeds(0..1_500, 60);
}

/// The same for a long run by hand.
#[test]
#[ignore = "takes about a minute"]
fn many_seeds_answer_as_the_model() {
    agree_on_seeds(1_000_000..1_040_000, 80);
}

#[test]
fn shrinking_leaves_what_fails() {
    let steps = Generator::new(Rng::new(1)).steps(40);
    let puts = |steps: &[Step]| {
        steps.iter().filter(|step| matches!(step, Step::Request(Request::Put(_)))).count() >= 2
    };
    assert!(puts(&steps), "the seed has puts");
    assert_eq!(shrink(steps, &puts).len(), 2);
}
