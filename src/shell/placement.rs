//! Which thread runs where: one CPU per reactor, one reactor per physical core as far as there are enough, and
//! the bulk lane on what is left.
//!
//! A reactor is bound to its one CPU where this process has CPUs of its own, that is, may not use all of the
//! machine's. Where it may use all, so may everybody else: a thread that is bound to a CPU on which another
//! program computes is woken only at the scheduler's next tick (measured: 4 ms for a lone client's put instead
//! of 0.15, beside one busy loop). There a reactor keeps to the CPUs of its memory's node, and the kernel finds
//! an idle one.

use super::bulk::{Lane, WorkerName};
use super::bulk_file::{Medium, run_here};
use super::kernel;
use super::logger::Logger;
use crate::limits::BULK_IO_MEMORY_BYTES;
use glommio::{
    CpuLocation, CpuSet, Latency, LocalExecutor, LocalExecutorBuilder, Placement, PoolPlacement, Shares,
};
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::thread::Builder;
use std::time::Duration;

/// The CPUs of each reactor (none: wherever the kernel likes) and those that are left.
#[derive(Debug, Default)]
pub struct CpuPlacement {
    pub reactors: Vec<Option<Vec<usize>>>,
    spare: Vec<usize>,
}

impl CpuPlacement {
    /// The bulk lane's place: what the reactors leave, or wherever the kernel likes.
    pub fn lane(&self) -> Placement {
        let spare = CpuSet::online().ok().map(|cpus| cpus.filter(|l| self.spare.contains(&l.cpu)));
        match spare {
            Some(spare) if !spare.is_empty() => Placement::Fenced(spare),
            _ => Placement::Unbound,
        }
    }
}

/// Finds a place for each reactor among the CPUs that this process may use. Where there are fewer than
/// reactors, or the machine does not tell how its CPUs lie, nothing is pinned.
pub fn place(reactors: usize) -> CpuPlacement {
    pinned(reactors).unwrap_or_else(|| CpuPlacement { reactors: vec![None; reactors], spare: vec![] })
}

fn pinned(reactors: usize) -> Option<CpuPlacement> {
    let allowed: BTreeSet<usize> = kernel::allowed_cpus().ok()?.into_iter().collect();
    let online = CpuSet::online().ok()?;
    let has_own_cpus = online.len() > allowed.len();
    let usable = online.filter(|location| allowed.contains(&location.cpu));
    if usable.len() < reactors {
        return None;
    }
    let mut firsts: BTreeSet<usize> = BTreeSet::new();
    let mut cores = BTreeSet::new();
    let mut locations: Vec<_> = usable.iter().cloned().collect();
    locations.sort_by_key(|location| location.cpu);
    for location in &locations {
        if cores.insert((location.package, location.core)) {
            firsts.insert(location.cpu);
        }
    }
    let enough_cores = firsts.len() >= reactors;
    let usable = usable.filter(|location| !enough_cores || firsts.contains(&location.cpu));
    let mut spread = PoolPlacement::MaxSpread(reactors, Some(usable)).generate_cpu_set().ok()?;
    let mut places = Vec::new();
    for _ in 0..reactors {
        places.push(spread.next().cpu_binding()?.into_iter().collect::<Vec<usize>>());
    }
    places.sort();
    let taken: BTreeSet<usize> = places.iter().flatten().copied().collect();
    let spare = allowed.difference(&taken).copied().collect();
    if !has_own_cpus {
        places.iter_mut().for_each(|place| *place = of_the_same_node(place, &locations));
    }
    Some(CpuPlacement { reactors: places.into_iter().map(Some).collect(), spare })
}

/// The CPUs whose memory is as near as that of these.
fn of_the_same_node(cpus: &[usize], locations: &[CpuLocation]) -> Vec<usize> {
    let of = |location: &&CpuLocation| cpus.contains(&location.cpu);
    let nodes: BTreeSet<usize> = locations.iter().filter(of).map(|location| location.numa_node).collect();
    let near = locations.iter().filter(|location| nodes.contains(&location.numa_node));
    near.map(|location| location.cpu).collect()
}

/// Starts the lane's two threads, and waits for neither: an executor may sleep before it has polled anything,
/// and on a busy machine one that lets others go first may not run for long. What the lane has to do it finds
/// in its queues.
pub fn start_lane(lane: &Arc<Lane>, placement: Placement, logger: &Logger) -> io::Result<()> {
    let segments = lane.clone();
    let run = move || run_here(segments.run(WorkerName::Segments, Medium::Thread));
    Builder::new().name("segments".to_string()).spawn(run)?;
    let (lane, logger) = (lane.clone(), logger.clone());
    Builder::new().name("bulk".to_string()).spawn(move || {
        // Before the executor sleeps for the first time: from here on it can be woken.
        let made = lane.runs_here().map_err(|error| error.to_string()).and_then(|()| executor(placement));
        match made {
            Ok(executor) => executor.run(run_steps(lane)),
            Err(why) => {
                let fields = vec![("error", why)];
                logger.warn("the bulk lane runs on a plain thread: glommio does not start", fields);
                kernel::step_back();
                run_here(lane.run(WorkerName::Steps, Medium::Thread));
            }
        }
    })?;
    Ok(())
}

/// An executor for the calling thread.
pub fn executor(placement: Placement) -> Result<LocalExecutor, String> {
    let builder = LocalExecutorBuilder::new(placement)
        .io_memory(BULK_IO_MEMORY_BYTES)
        .preempt_timer(Duration::from_millis(1));
    builder.make().map_err(|error| error.to_string())
}

async fn run_steps(lane: Arc<Lane>) {
    kernel::step_back();
    // Any other queue is polled a hundred times later when woken from outside.
    let latency = Latency::Matters(Duration::from_millis(1));
    let queue = glommio::executor().create_task_queue(Shares::default(), latency, "bulk");
    let steps = async move { lane.run(WorkerName::Steps, Medium::Glommio).await };
    glommio::spawn_local_into(steps, queue).expect("the queue was made a moment ago").await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reactors_use_all_the_cpus_they_may_and_no_other() {
        let allowed = kernel::allowed_cpus().unwrap();
        let placed = place(allowed.len());
        let cpus: BTreeSet<usize> = placed.reactors.iter().flatten().flatten().copied().collect();
        assert!(cpus.is_empty() || cpus == allowed.iter().copied().collect());
        assert!(placed.spare.is_empty());
    }

    #[test]
    fn a_node_is_the_cpus_with_the_same_memory() {
        let at = |cpu, numa_node| CpuLocation { cpu, core: cpu, package: 0, numa_node };
        let machine = [at(0, 0), at(1, 1), at(2, 0), at(3, 1)];
        assert_eq!(of_the_same_node(&[2], &machine), [0, 2]);
        assert_eq!(of_the_same_node(&[1], &machine), [1, 3]);
    }

    #[test]
    fn more_reactors_than_cpus_are_not_pinned() {
        let many = kernel::allowed_cpus().unwrap().len() + 1;
        assert_eq!(place(many).reactors, vec![None; many]);
    }
}
