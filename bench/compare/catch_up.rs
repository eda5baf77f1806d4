//! An empty member comes to a cluster that holds much: how long until it has all of it, and what clients of the
//! leader see of that.

use crate::cases::Measure;
use crate::cluster::{Cluster, Place};
use crate::run::Run;
use crate::sample::Sample;
use braid::wire::proto::{RangeRequest, RangeResponse};
use bytes::Bytes;
use generator::call::call;
use generator::usage::{Usage, resident_bytes};
use generator::{Outcome, Plan, Span};
use std::io::{Error, Result};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// One window of the load: it ends with the first that is over when the member has everything.
const WINDOW: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(20);
const LOOK_WITHIN: Duration = Duration::from_secs(2);
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(600);
const COUNT_WITHIN: Duration = Duration::from_secs(60);
const MIB: f64 = 1_048_576.0;

pub fn measure(run: &Run<'_>) -> Result<Sample> {
    let members = run.options.members;
    // The last one is missing until it comes, and does not vote then: the others need each other as before.
    let mut cluster = Cluster::start(run.program, run.directory, members - 1, Place::default())?;
    cluster.await_ready()?;
    let leader = cluster.clients()[cluster.leader()?];
    let plan = run.plan(vec![leader], cluster.pids());
    let plan = Plan { warm_up: Duration::ZERO, span: Span::For(WINDOW), ..plan };
    run.say(": filling");
    run.prepare(&plan.prefill())?;
    run.settle();
    let windows = run.options.seconds.as_secs().max(1);
    let before = (1..windows).try_fold(generator::run(&plan)?, |mut sum, _| {
        sum.add(&generator::run(&plan)?);
        Ok::<_, Error>(sum)
    })?;
    run.say(": a member comes");
    let load = Load::start(plan.clone());
    let begun = cluster.join(leader)?;
    let (newcomer, pid) = (cluster.clients()[members - 1], cluster.pids()[members - 1]);
    let upto = look(leader, false, Duration::from_secs(10))?.0;
    while look(newcomer, false, LOOK_WITHIN).map_or(0, |(revision, _)| revision) < upto {
        if begun.elapsed() > CAUGHT_UP_WITHIN {
            return Err(Error::other(format!("the member has not come to revision {upto}")));
        }
        thread::sleep(LOOK_EVERY);
    }
    let took = begun.elapsed();
    let meanwhile = load.end()?;
    let (used, resident) = (Usage::of(pid)?, resident_bytes(pid)?);
    let mut sample = Sample::of(&meanwhile, &plan);
    let (_, keys) = look(newcomer, true, COUNT_WITHIN)?;
    // A key that is not there is one that was answered wrongly.
    sample.faults += before.errors + before.violations + plan.workload.keys.saturating_sub(keys);
    sample.note(Measure::CatchUpSeconds, took.as_secs_f64());
    sample.note(Measure::CatchUpCpu, used.threads_ns as f64 / 1e9);
    if let Some(written) = used.written_bytes {
        sample.note(Measure::CatchUpWritten, written as f64 / MIB);
    }
    sample.note(Measure::Memory, resident as f64 / MIB);
    sample.note(Measure::P50Before, before.latency_us(0.5));
    sample.note(Measure::P99Before, before.latency_us(0.99));
    Ok(sample)
}

/// The revision that a member shows, whoever leads; and how many keys it has, where they are to be counted.
fn look(at: SocketAddr, counts: bool, within: Duration) -> Result<(i64, u64)> {
    let request = RangeRequest {
        key: Bytes::from_static(b"load/"),
        range_end: if counts { Bytes::from_static(b"load0") } else { Bytes::new() },
        count_only: true,
        serializable: true,
        ..RangeRequest::default()
    };
    let answer: RangeResponse = call(at, "/etcdserverpb.KV/Range", &request, within)?;
    let revision = answer.header.map_or(0, |header| header.revision);
    Ok((revision, answer.count.max(0) as u64))
}

/// The load, window after window, on a thread of its own.
struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Outcome>>,
}

impl Load {
    fn start(plan: Plan) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut sum = generator::run(&plan)?;
            while !stopped.load(Ordering::Relaxed) {
                sum.add(&generator::run(&plan)?);
            }
            Ok(sum)
        });
        Load { stop, thread }
    }

    fn end(self) -> Result<Outcome> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| Error::other("the load's thread panicked"))?
    }
}
