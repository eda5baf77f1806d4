//! What etcd shows over HTTP/1: `/version`, `/health`, `/livez`, `/readyz`, byte for byte.
//!
//! A page first says which reads it depends on, so that the server makes no more than etcd would; then it is
//! rendered from what was found. Where etcd's order of checks is that of a Go map, it is fixed here.

#[cfg(test)]
mod tests;

use super::http1::{Audience, ContentType, Http1Request, Http1Response, HttpMethod};
use super::peer_pages::{self, PeerPage, version};
use super::{CLUSTER_VERSION, STORAGE_VERSION};
use crate::api::{Alarm, AlarmType, Error};
use crate::types::Time;

/// A page, with what the request says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Page {
    Version,
    Metrics,
    /// The page of `/debug/vars`.
    Vars,
    Health {
        serializable: bool,
        exclude: Vec<String>,
    },
    Checks {
        probe: Probe,
        checks: Vec<Check>,
        verbose: bool,
    },
    NotFound,
    MethodNotAllowed,
    /// A browser asks whether it may ask.
    Preflight,
    /// On the port of other members.
    Peer(PeerPage),
}

/// Whether the server is to be restarted, and whether it is to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    Livez,
    Readyz,
}

impl Probe {
    pub const ALL: [Probe; 2] = [Probe::Livez, Probe::Readyz];

    pub fn name(self) -> &'static str {
        match self {
            Probe::Livez => "livez",
            Probe::Readyz => "readyz",
        }
    }
}

/// One line of `/livez` and `/readyz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

const LIVEZ: &[Check] = &[Check::SerializableRead];
const READYZ: &[Check] =
    &[Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead, Check::NonLearner];

impl Check {
    pub fn name(self) -> &'static str {
        match self {
            Check::DataCorruption => "data_corruption",
            Check::SerializableRead => "serializable_read",
            Check::LinearizableRead => "linearizable_read",
            Check::NonLearner => "non_learner",
        }
    }

    /// Why it fails, if it does.
    pub fn failure(self, facts: &Facts, reads: &Reads) -> Option<String> {
        match self {
            Check::DataCorruption => {
                let corrupt = facts.alarms.iter().any(|alarm| alarm.alarm == AlarmType::Corrupt);
                corrupt.then(|| "alarm activated: CORRUPT".to_owned())
            }
            Check::SerializableRead => reads.serializable.as_ref().err().map(Error::to_string),
            Check::LinearizableRead => reads.linearizable.as_ref().err().map(Error::to_string),
            Check::NonLearner => facts.is_learner.then(|| "not supported for learner".to_owned()),
        }
    }
}

/// What came of one check of one probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckCounter {
    pub passed: u64,
    pub failed: u64,
    /// When it was last made, and whether it passed then.
    at: Time,
    pub passes: bool,
}

/// The checks that were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckCounters([[CheckCounter; READYZ.len()]; Probe::ALL.len()]);

impl CheckCounters {
    pub fn count(&mut self, now: Time, probe: Probe, check: Check, passes: bool) {
        let counter = &mut self.0[probe as usize][check as usize];
        counter.passed += u64::from(passes);
        counter.failed += u64::from(!passes);
        (counter.at, counter.passes) = (now, passes);
    }

    /// The checks that have been made at least once.
    pub fn made(&self) -> impl Iterator<Item = (Probe, Check, CheckCounter)> {
        let of = |probe: Probe| READYZ.iter().map(move |check| (probe, *check));
        let all = Probe::ALL.into_iter().flat_map(of);
        all.map(|(probe, check)| (probe, check, self.0[probe as usize][check as usize]))
            .filter(|(.., counter)| counter.passed + counter.failed > 0)
    }

    pub fn add(&mut self, more: &CheckCounters) {
        for (sum, more) in self.0.as_flattened_mut().iter_mut().zip(more.0.as_flattened()) {
            sum.passed += more.passed;
            sum.failed += more.failed;
            if more.at >= sum.at {
                (sum.at, sum.passes) = (more.at, more.passes);
            }
        }
    }
}

/// What the member knows without reading.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    pub alarms: Vec<Alarm>,
    pub has_leader: bool,
    pub is_learner: bool,
}

/// What came of reads of one key, as the root user.
#[derive(Clone, Debug)]
pub struct Reads {
    pub serializable: Result<(), Error>,
    pub linearizable: Result<(), Error>,
}

/// Finds the page of a request. Browsers' questions come before all pages; of the version only clients are
/// told.
pub fn page(request: &Http1Request, audience: Audience) -> Page {
    if audience == Audience::Members {
        return Page::Peer(peer_pages::page(request));
    }
    if audience == Audience::Everyone && request.method == HttpMethod::Other("OPTIONS".to_owned()) {
        return Page::Preflight;
    }
    let path = request.path.as_str();
    let found = match path {
        "/version" if audience == Audience::Everyone => Page::Version,
        "/metrics" => return Page::Metrics,
        "/debug/vars" if audience == Audience::Everyone => return Page::Vars,
        "/health" => Page::Health {
            serializable: request.first("serializable") == Some("true"),
            exclude: request.all("exclude").map(str::to_owned).collect(),
        },
        _ => match checks(request) {
            Some((probe, checks)) => {
                Page::Checks { probe, checks, verbose: request.first("verbose").is_some() }
            }
            None => return Page::NotFound,
        },
    };
    if request.method == HttpMethod::Get { found } else { Page::MethodNotAllowed }
}

fn checks(request: &Http1Request) -> Option<(Probe, Vec<Check>)> {
    let (probe, all, rest) = match request.path.strip_prefix("/livez") {
        Some(rest) => (Probe::Livez, LIVEZ, rest),
        None => (Probe::Readyz, READYZ, request.path.strip_prefix("/readyz")?),
    };
    let Some(name) = rest.strip_prefix('/') else {
        let kept = |check: &Check| !request.all("exclude").any(|name| name == check.name());
        return rest.is_empty().then(|| (probe, all.iter().copied().filter(kept).collect()));
    };
    all.iter().find(|check| check.name() == name).map(|&check| (probe, vec![check]))
}

impl Page {
    /// Whether the page tells if the newest state can be read.
    pub fn reads_latest(&self) -> bool {
        match self {
            Page::Health { serializable, .. } => !serializable,
            Page::Checks { checks, .. } => checks.contains(&Check::LinearizableRead),
            _ => false,
        }
    }

    /// The page. Reads it did not ask for may be given as anything. Panics for `Metrics`, `Vars` and `Peer`, for
    /// which other facts are needed.
    pub fn render(&self, facts: &Facts, reads: &Reads) -> Http1Response {
        match self {
            Page::Version => version(CLUSTER_VERSION, STORAGE_VERSION),
            Page::Metrics | Page::Vars => panic!("figures are rendered where they are counted"),
            Page::Peer(_) => panic!("what members see of a cluster is rendered from other facts"),
            Page::Health { serializable, exclude } => {
                let read = if *serializable { &reads.serializable } else { &reads.linearizable };
                let range_error = || read.as_ref().err().map(|error| format!("RANGE ERROR:{error}"));
                health(local_fault(facts, *serializable, exclude).map(str::to_owned).or_else(range_error))
            }
            Page::Checks { checks, verbose, .. } => report(checks, *verbose, facts, reads),
            Page::NotFound => Http1Response::not_found(),
            Page::MethodNotAllowed => Http1Response::only_get(),
            Page::Preflight => Http1Response::empty(),
        }
    }
}

/// What makes `/health` fail before any read.
fn local_fault(facts: &Facts, serializable: bool, exclude: &[String]) -> Option<&'static str> {
    let reason = |alarm: &Alarm| {
        let (name, reason) = match alarm.alarm {
            AlarmType::NoSpace => ("NOSPACE", "ALARM NOSPACE"),
            AlarmType::Corrupt => ("CORRUPT", "ALARM CORRUPT"),
            AlarmType::None => ("NONE", "ALARM UNKNOWN"),
            AlarmType::Unknown(_) => ("", "ALARM UNKNOWN"),
        };
        let excluded = !name.is_empty() && exclude.iter().any(|excluded| excluded == name);
        (!excluded).then_some(reason)
    };
    let no_leader = || (!serializable && !facts.has_leader).then_some("RAFT NO LEADER");
    facts.alarms.iter().find_map(reason).or_else(no_leader)
}

fn health(fault: Option<String>) -> Http1Response {
    match fault {
        None => Http1Response::ok(ContentType::Text, br#"{"health":"true","reason":""}"#.to_vec()),
        Some(reason) => {
            let reason = serde_json::Value::String(reason);
            Http1Response::error(503, &format!(r#"{{"health":"false","reason":{reason}}}"#))
        }
    }
}

fn report(checks: &[Check], verbose: bool, facts: &Facts, reads: &Reads) -> Http1Response {
    let (mut lines, mut failed) = (String::new(), false);
    for check in checks {
        match check.failure(facts, reads) {
            None => lines += &format!("[+]{} ok\n", check.name()),
            Some(error) => {
                failed = true;
                lines += &format!("[-]{} failed: {error}\n", check.name());
            }
        }
    }
    if failed {
        return Http1Response::error(503, &lines);
    }
    let body = if verbose { lines + "ok\n" } else { "ok\n".to_owned() };
    Http1Response { nosniff: true, ..Http1Response::ok(ContentType::Text, body.into_bytes()) }
}
