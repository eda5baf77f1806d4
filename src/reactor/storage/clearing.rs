//! What an earlier process left behind and nothing needs goes, one step after the other.
//!
//! A log without a reactor cannot just lose its files: whichever goes first, those that are left testify that
//! it was acknowledged, and recovery calls that damage, as it must. So a mark that the log is dead is made
//! durable before the first of its files goes, and goes itself after the last. A start that finds the mark
//! removes what is left of the log, then the mark, before it reads any log: see [`at_start`].

use super::{Storage, Turn};
use crate::io::{BulkDone, BulkStep, JobId, Level, Output};
use crate::log::{LogId, SegmentName};
use std::collections::{BTreeMap, VecDeque};

/// Steps that are left, and the one under way.
#[derive(Default)]
pub(super) struct Clearing {
    steps: VecDeque<BulkStep>,
    job: Option<JobId>,
}

impl Clearing {
    /// The steps by which these files go. Segments are those of whole logs that are dead.
    pub fn of(names: Vec<String>) -> Clearing {
        let mut dead: BTreeMap<LogId, Vec<String>> = BTreeMap::new();
        let mut steps = VecDeque::new();
        for name in names {
            match SegmentName::parse(&name) {
                Some(segment) => dead.entry(segment.log).or_default().push(name),
                None => steps.push_back(BulkStep::Remove { name }),
            }
        }
        for (log, names) in dead {
            let mark = log.dead_mark();
            let unfinished = format!("{mark}.new");
            steps.push_back(BulkStep::Create { name: unfinished.clone() });
            steps.push_back(BulkStep::Publish { name: unfinished, as_name: mark.clone() });
            steps.extend(names.into_iter().map(|name| BulkStep::Remove { name }));
            steps.push_back(BulkStep::Remove { name: mark });
        }
        Clearing { steps, job: None }
    }
}

/// One step of a start that finds marks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AtStart {
    /// Makes durable which names there are.
    SyncNames,
    Remove(String),
}

/// The steps by which logs that are marked dead go, of all the names in the directory. What the start sees of
/// a mark may so far be in memory alone, as its process may have died before it was durable: so names are
/// made durable first of all, and then after each step that the next one rests on.
pub fn at_start<'a>(names: impl Iterator<Item = &'a str> + Clone) -> VecDeque<AtStart> {
    let dead: Vec<LogId> = names.clone().filter_map(LogId::parse_dead_mark).collect();
    if dead.is_empty() {
        return VecDeque::new();
    }
    let of_dead = |name: &&str| SegmentName::parse(name).is_some_and(|name| dead.contains(&name.log));
    let remove = |name: &str| AtStart::Remove(name.to_string());
    let mut steps = VecDeque::from([AtStart::SyncNames]);
    steps.extend(names.filter(of_dead).map(remove));
    steps.push_back(AtStart::SyncNames);
    steps.extend(dead.iter().map(|log| AtStart::Remove(log.dead_mark())));
    steps.push_back(AtStart::SyncNames);
    steps
}

impl Storage {
    /// An epoch serves: every shard's stay is durable where it is.
    pub(super) fn begin_clearing(&mut self, turn: &mut Turn) {
        if self.clearing.job.is_none() {
            self.clear_next(turn);
        }
    }

    fn clear_next(&mut self, turn: &mut Turn) {
        let Some(step) = self.clearing.steps.pop_front() else { return };
        // Only marks of dead logs are published.
        turn.counters.paths.dead_log_cleared += u64::from(matches!(step, BulkStep::Publish { .. }));
        assert!(self.clearing.job.is_none(), "each step of clearing rests on the one before");
        let job = self.next_job();
        self.clearing.job = Some(job);
        turn.out.push(Output::Bulk { job, step });
    }

    /// Whether the answer was to a step of this. What fails is left for the next start.
    pub(super) fn on_cleared(&mut self, turn: &mut Turn, job: JobId, done: &BulkDone) -> bool {
        if self.clearing.job != Some(job) {
            return false;
        }
        self.clearing.job = None;
        if *done == BulkDone::Done {
            self.clear_next(turn);
        } else {
            self.clearing.steps.clear();
            let fields = vec![("error", format!("{done:?}"))];
            turn.log_line(Level::Warn, "failed to remove files that nothing needs", fields);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_log_is_marked_before_its_first_file_goes_and_until_its_last_is_gone() {
        let names = ["001-0000000000000003.log", "x.checkpoint", "001-0000000000000002.log"];
        let steps = Clearing::of(names.map(String::from).to_vec()).steps;
        let shown: Vec<String> = steps
            .iter()
            .map(|step| match step {
                BulkStep::Create { name } => format!("create {name}"),
                BulkStep::Publish { as_name, .. } => format!("publish {as_name}"),
                BulkStep::Remove { name } => format!("remove {name}"),
                BulkStep::Append { .. } | BulkStep::Read(_) => unreachable!(),
            })
            .collect();
        assert_eq!(
            shown,
            [
                "remove x.checkpoint",
                "create 001.dead.new",
                "publish 001.dead",
                "remove 001-0000000000000003.log",
                "remove 001-0000000000000002.log",
                "remove 001.dead",
            ]
        );
        assert_eq!(LogId::parse_dead_mark("001.dead"), Some(LogId(1)));
        assert_eq!(LogId::parse_dead_mark("001-0000000000000003.log"), None);
    }

    #[test]
    fn a_start_syncs_names_before_it_rests_on_them() {
        let names = ["000-0000000000000001.log", "001-0000000000000002.log", "001.dead", "x.checkpoint"];
        let remove = |name: &str| AtStart::Remove(name.into());
        let steps = [
            AtStart::SyncNames,
            remove("001-0000000000000002.log"),
            AtStart::SyncNames,
            remove("001.dead"),
            AtStart::SyncNames,
        ];
        assert_eq!(at_start(names.into_iter()), steps);
        assert_eq!(at_start(names[..2].iter().copied()), []);
    }
}
