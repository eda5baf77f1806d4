//! What is done with a cluster, and what is measured of it.

use crate::cases::{Asked, Course, Measure, Strike};
use crate::cluster::{Cluster, Place};
use crate::probe::{Probe, Seen, seen};
use crate::run::Run;
use crate::sample::Sample;
use crate::watches::{Watches, put};
use generator::usage::Usage;
use generator::workload::Workload;
use std::io::{Error, Result};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// Puts before a strike, and after the last that was under way at it has ended.
const STEADY: Duration = Duration::from_secs(1);
/// Nothing waits longer, in either program.
const WAIT_MAX: Duration = Duration::from_secs(16);
const IDLE_FOR: Duration = Duration::from_secs(10);
/// What a start stirs up is over by then.
const IDLE_AFTER: Duration = Duration::from_secs(5);
/// Few groups would tell nothing of what they cost at rest. etcd has one.
const IDLE_SHARDS: &str = "--shards=64";
/// Of the events, those that count for the 50th and the 99th part of a hundred.
const PARTS: [(Measure, f64); 2] = [(Measure::EventP50, 0.5), (Measure::EventP99, 0.99)];

pub fn measure(run: &Run<'_>) -> Result<Sample> {
    if run.case.course == Course::Idle {
        return idle(run);
    }
    let mut cluster = start(run, Place::default())?;
    cluster.await_ready()?;
    match run.case.course {
        Course::Members(asked) => load(run, &cluster, asked),
        Course::Watches { of_each, per_second } => watches(run, &cluster, of_each, per_second),
        Course::Failover(strike) => failover(run, &mut cluster, strike),
        _ => unreachable!("the others are courses of one server"),
    }
}

fn start(run: &Run<'_>, place: Place) -> Result<Cluster> {
    Cluster::start(run.program, run.directory, run.options.members, place)
}

fn load(run: &Run<'_>, cluster: &Cluster, asked: Asked) -> Result<Sample> {
    let (leader, all) = (cluster.leader()?, cluster.clients());
    let of = |leads: bool| {
        let members = all.iter().enumerate().filter(move |(at, _)| (*at == leader) == leads);
        members.map(|(_, client)| *client).collect::<Vec<_>>()
    };
    let endpoints = match asked {
        Asked::All => all.clone(),
        Asked::Leader => of(true),
        Asked::Followers => of(false),
    };
    let plan = run.plan(endpoints, cluster.pids());
    let Workload { puts_percent, guarded, .. } = plan.workload;
    if puts_percent < 100 || guarded {
        run.prepare(&plan.prefill())?;
    }
    Ok(Sample::of(&generator::run(&plan)?, &plan))
}

fn watches(run: &Run<'_>, cluster: &Cluster, of_each: usize, per_second: u64) -> Result<Sample> {
    let (members, begun) = (cluster.clients(), Instant::now());
    let watches: Vec<Watches> =
        members.iter().map(|member| Watches::start(*member, of_each, begun)).collect::<Result<_>>()?;
    let before = Usage::of_all(&cluster.pids())?;
    let span = run.options.seconds;
    let puts = put(&members, per_second, span, begun)?;
    // The last events are on their way.
    thread::sleep(Duration::from_millis(200));
    let used = Usage::of_all(&cluster.pids())?.since(before);
    let ended: Vec<Vec<u64>> = watches.into_iter().map(Watches::end).collect::<Result<_>>()?;
    let mut after_ns = ended.concat();
    after_ns.sort_unstable();
    let expected = puts as usize * of_each * members.len();
    let mut sample = Sample::default();
    // One that did not come is one that was answered wrongly.
    sample.faults = expected.saturating_sub(after_ns.len()) as u64;
    sample.note(Measure::EventsPerSecond, after_ns.len() as f64 / span.as_secs_f64());
    for (measure, part) in PARTS {
        let place = (after_ns.len() as f64 * part) as usize;
        sample.note(measure, after_ns.get(place).copied().unwrap_or(u64::MAX) as f64 / 1e3);
    }
    sample.note(Measure::EventCpu, used.threads_ns as f64 / 1e3 / after_ns.len().max(1) as f64);
    Ok(sample)
}

fn failover(run: &Run<'_>, cluster: &mut Cluster, strike: Strike) -> Result<Sample> {
    let strikes: Vec<Seen> = (0..run.options.strikes)
        .map(|number| {
            run.say(&format!(": strike {}", number + 1));
            strike_once(cluster, strike)
        })
        .collect::<Result<_>>()?;
    let mut sample = Sample::default();
    let ms = |span: Duration| span.as_secs_f64() * 1e3;
    let all = |of: fn(&Seen) -> Option<Duration>| {
        let mut spans: Vec<f64> = strikes.iter().map(|seen| ms(of(seen).unwrap_or(WAIT_MAX))).collect();
        spans.sort_by(f64::total_cmp);
        spans
    };
    let middle = |spans: &[f64]| spans[spans.len() / 2];
    let (first, last) = (all(|seen| seen.first), all(|seen| seen.first_at_last));
    sample.note(Measure::FirstPut, middle(&first));
    sample.note(Measure::FirstPutAtLast, middle(&last));
    let longest = strikes.iter().map(|seen| seen.longest_wait).max().unwrap_or_default();
    sample.note(Measure::LongestWait, ms(longest));
    let failed: usize = strikes.iter().map(|seen| seen.failed).sum();
    sample.note(Measure::PutsFailed, failed as f64 / strikes.len() as f64);
    sample.json["strikes"] = format!("{strikes:?}").into();
    Ok(sample)
}

/// What the others' clients see. The leader has clients with open streams as well.
fn strike_once(cluster: &mut Cluster, strike: Strike) -> Result<Seen> {
    let leader = cluster.leader()?;
    let mut probes: Vec<Probe> = cluster.clients().into_iter().map(Probe::start).collect();
    thread::sleep(STEADY);
    let struck = Instant::now();
    match strike {
        Strike::Kill => cluster.signal(leader, "-KILL")?,
        Strike::Stop => cluster.signal(leader, "-STOP")?,
        Strike::Terminate => cluster.signal(leader, "-TERM")?,
    }
    // No put of before the strike is looked at any more when all have ended, or never will.
    thread::sleep(wait_of(strike));
    let of_leader = probes.remove(leader);
    let now = Instant::now();
    let puts: Vec<_> = probes.into_iter().map(Probe::end).collect();
    of_leader.end();
    match strike {
        Strike::Stop => {
            cluster.signal(leader, "-CONT")?;
            cluster.await_put(leader)?;
        }
        Strike::Kill | Strike::Terminate => cluster.start_again(leader)?,
    }
    thread::sleep(STEADY);
    Ok(seen(&puts, struck, now))
}

/// How long after a strike puts are looked at: etcd answers what was forwarded to a lost leader after seven seconds.
fn wait_of(strike: Strike) -> Duration {
    match strike {
        Strike::Kill | Strike::Stop => Duration::from_secs(9),
        // And one with open streams leads on for as long first.
        Strike::Terminate => WAIT_MAX,
    }
}

fn idle(run: &Run<'_>) -> Result<Sample> {
    let network = Network::new();
    let words = network.as_ref().map(Network::words).unwrap_or_default();
    let flags = if run.who == "etcd" { vec![] } else { vec![IDLE_SHARDS.to_owned()] };
    let cluster = start(run, Place { words, flags })?;
    cluster.await_words()?;
    thread::sleep(IDLE_AFTER);
    let pids = cluster.pids();
    let packets = || network.as_ref().and_then(|_| packets(pids[0]));
    let (used, sent, from) = (Usage::of_all(&pids)?, packets(), Instant::now());
    thread::sleep(IDLE_FOR);
    let (used, seconds) = (Usage::of_all(&pids)?.since(used), from.elapsed().as_secs_f64());
    let mut sample = Sample::default();
    sample.note(Measure::IdleCpu, used.threads_ns as f64 / 1e9 / seconds / pids.len() as f64 * 100.0);
    if let Some((now, before)) = packets().zip(sent) {
        sample.note(Measure::IdlePackets, (now - before) as f64 / seconds);
    }
    Ok(sample)
}

/// Packets that have gone over the loopback of a process's network.
fn packets(pid: u32) -> Option<u64> {
    sent_over_loopback(&std::fs::read_to_string(format!("/proc/{pid}/net/dev")).ok()?)
}

fn sent_over_loopback(devices: &str) -> Option<u64> {
    let line = devices.lines().find_map(|line| line.trim_start().strip_prefix("lo:"))?;
    // Bytes, packets and six more of what was received, then the same of what was sent.
    line.split_ascii_whitespace().nth(9)?.parse().ok()
}

/// A network namespace in which nobody else sends anything.
struct Network(String);

impl Network {
    /// `None` where none can be made.
    fn new() -> Option<Network> {
        let name = format!("braid-compare-{}", std::process::id());
        ip(&["netns", "add", &name]).ok()?;
        let network = Network(name);
        ip(&["-n", &network.0, "link", "set", "lo", "up"]).ok()?;
        Some(network)
    }

    fn words(&self) -> Vec<String> {
        ["/usr/sbin/ip", "netns", "exec", &self.0].map(str::to_owned).to_vec()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // One that stays does no harm.
        let _ = ip(&["netns", "del", &self.0]);
    }
}

fn ip(words: &[&str]) -> Result<()> {
    let output = Command::new("/usr/sbin/ip").args(words).output()?;
    if output.status.success() {
        Ok(())
    } else {
        Err(Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_those_that_the_loopback_has_sent() {
        let devices = "Inter-|   Receive |  Transmit\n face |bytes packets errs drop fifo frame compressed\n\
                       \u{20}   lo: 100 2 0 0 0 0 0 0 700 8 0 0 0 0 0 0\n  eth0: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n";
        assert_eq!(sent_over_loopback(devices), Some(8));
        assert_eq!(sent_over_loopback("eth0: 1 2"), None);
    }
}
