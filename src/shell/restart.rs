//! From the files of the store to what each reactor begins with.
//!
//! Logs are read side by side, as many at a time as there are reactors; then [`place`] says where every
//! shard lives, and each reactor's thread loads its own.

use super::data_dir::DataDir;
use super::files::{Files, Listing};
use super::kernel;
use crate::limits::{BLOCK_BYTES, DISK_RESERVE_BYTES, SEGMENT_BYTES_MIN};
use crate::log::{LogId, LogStart, Needed, Recovered, Recovery, SegmentBytes, SegmentName};
use crate::recover::{ReactorPlan, place};
use crate::types::{Revision, StoreId};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::sync::{Mutex, PoisonError};

/// What a start begins with.
#[derive(Debug)]
pub struct Restart {
    pub reactors: Vec<ReactorPlan>,
    /// Names of files that nothing needs once an epoch has served.
    pub left_over: Vec<String>,
    /// The highest number of any checkpoint file.
    pub last_file: u64,
    /// The highest revision that any log names as settled.
    pub settled: Revision,
    /// What may be shown though nobody leads.
    pub rested: Option<Revision>,
    /// Where this member goes on alone, up to which revision it has everything.
    pub alone_at: Option<Revision>,
    /// Bytes of the log's files.
    pub log_bytes: u64,
}

/// Reads everything there is of the directory's store. The error says what cannot be read, and what to do.
///
/// `is_forced`: all other members, if there are any, are lost for ever.
pub fn restart(
    data_dir: &mut DataDir,
    files: &Files,
    reactors: usize,
    is_forced: bool,
) -> Result<Restart, String> {
    let unreadable = |error: io::Error| format!("cannot read the data directory: {error}");
    // What is seen of a name may so far be in memory alone, and what is written to the file goes with it.
    files.sync_names().map_err(|error| format!("cannot sync the data directory: {error}"))?;
    let listing = files.list_without_dead_logs().map_err(unreadable)?;
    if listing.segments.is_empty() {
        check_room(files, reactors)?;
    }
    let store = data_dir.identity.store;
    let lengths = listing.segments.iter().map(|segment| files.segment_bytes(*segment));
    let log_bytes = lengths.sum::<io::Result<u64>>().map_err(unreadable)?;
    let logs = recover_logs(files, store, &listing, reactors)?;
    data_dir.check_logs(&logs)?;
    let mut keys = Vec::new();
    for _ in 0..reactors {
        keys.push(kernel::random_u64().map_err(|error| format!("no random numbers: {error}"))?);
    }
    let mut fresh = |log: LogId| LogStart::fresh(log, store, keys[log.0 as usize], SegmentBytes::USUAL);
    let reactors = u16::try_from(reactors).expect("the configuration bounds the reactors");
    let mut plan = place(logs, &listing.checkpoints, reactors, &mut fresh, &mut files.reader())?;
    let mut alone_at = None;
    if data_dir.identity.is_to_be_alone || is_forced && !plan.is_alone() {
        alone_at = Some(plan.stand_alone()?);
        data_dir.begin_alone(files)?;
    }
    let needed: BTreeSet<_> = plan.checkpoints.iter().collect();
    let checkpoints = listing.checkpoints.iter().filter(|name| !needed.contains(name));
    let segments = listing.segments.iter().filter(|name| plan.dead_logs.contains(&name.log));
    Ok(Restart {
        left_over: checkpoints.map(ToString::to_string).chain(segments.map(ToString::to_string)).collect(),
        last_file: listing.checkpoints.iter().map(|name| name.file).max().unwrap_or(0),
        log_bytes,
        settled: plan.settled,
        rested: plan.rested,
        alone_at,
        reactors: plan.reactors,
    })
}

/// What the logs of a new store take (the file being filled, the next one, the reserve), and what is kept free
/// beside them.
fn check_room(files: &Files, reactors: usize) -> Result<(), String> {
    let needed = (reactors * 3 * SEGMENT_BYTES_MIN) as u64 + DISK_RESERVE_BYTES;
    let free = files.free_bytes().map_err(|error| format!("cannot look at the data directory: {error}"))?;
    if free >= needed {
        return Ok(());
    }
    Err(format!(
        "the disk of the data directory has {} MiB free, and a new store with {reactors} reactors needs {} MiB: \
         give it more room, or start with fewer --reactors",
        free >> 20,
        needed >> 20
    ))
}

fn recover_logs(
    files: &Files,
    store: StoreId,
    listing: &Listing,
    threads: usize,
) -> Result<Vec<Recovered>, String> {
    let waiting = Mutex::new(listing.by_log());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_first();
    let work = || {
        let mut recovered = Vec::new();
        while let Some((log, segments)) = next() {
            recovered.push(recover_log(files, store, log, &segments)?);
        }
        Ok::<_, String>(recovered)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut all = Vec::new();
        for thread in threads {
            all.extend(thread.join().expect("a panic ends the process")?);
        }
        Ok(all)
    })
}

fn recover_log(
    files: &Files,
    store: StoreId,
    log: LogId,
    segments: &[SegmentName],
) -> Result<Recovered, String> {
    let key = kernel::random_u64().map_err(|error| format!("no random numbers: {error}"))?;
    let fresh = Recovery::new(log, store, key, SegmentBytes::USUAL);
    let recovered = read_log(files, fresh, segments)?;
    // What was read may so far stand in a cache of the disk alone.
    for segment in &recovered.sync {
        let synced = files.sync_segment(*segment);
        synced.map_err(|error| format!("cannot sync log file {segment}: {error}"))?;
    }
    for segment in &recovered.remove {
        let removed = fs::remove_file(files.path(&segment.to_string()));
        removed.map_err(|error| format!("cannot remove log file {segment}: {error}"))?;
    }
    Ok(recovered)
}

/// Reads one log, as far as it has to be, and changes nothing.
fn read_log(files: &Files, mut recovery: Recovery, segments: &[SegmentName]) -> Result<Recovered, String> {
    let (mut heads, mut bytes) = (Vec::new(), Vec::new());
    for segment in segments {
        read_segment(files, *segment, BLOCK_BYTES as u64, &mut bytes)?;
        heads.push((*segment, bytes.clone()));
    }
    let needed = Needed::of(heads.iter().map(|(segment, head)| (*segment, &head[..])));
    for segment in segments {
        let len = files.segment_bytes(*segment).map_err(|error| unreadable(*segment, &error))?;
        read_segment(files, *segment, needed.bytes_of(*segment, len), &mut bytes)?;
        recovery.part(*segment, &bytes, len as usize);
    }
    recovery.finish().map_err(|damage| damage.to_string())
}

/// Reads what is there of one log, and changes nothing. Also says what is wrong with it.
pub fn read_to_look(
    files: &Files,
    store: StoreId,
    log: LogId,
    segments: &[SegmentName],
) -> (Recovered, Vec<String>) {
    let (mut recovery, mut wrong) = (Recovery::new(log, store, 0, SegmentBytes::USUAL), vec![]);
    let mut bytes = Vec::new();
    for segment in segments {
        match read_segment(files, *segment, u64::MAX, &mut bytes) {
            Ok(()) => recovery.segment(*segment, &bytes),
            Err(why) => wrong.push(why),
        }
    }
    let (recovered, damage) = recovery.read();
    wrong.extend(damage.map(|damage| damage.to_string()));
    (recovered, wrong)
}

/// Reads a segment. One buffer serves all files of a log, as the kernel clears each page of a new one.
fn read_segment(files: &Files, segment: SegmentName, len: u64, into: &mut Vec<u8>) -> Result<(), String> {
    files.read_segment(segment, len, into).map_err(|error| unreadable(segment, &error))
}

fn unreadable(segment: SegmentName, error: &io::Error) -> String {
    format!("cannot read log file {segment}: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Parsed, parse};

    fn data_dir() -> (tempfile::TempDir, DataDir) {
        let directory = tempfile::tempdir().unwrap();
        let flag = format!("--data-dir={}", directory.path().display());
        let Parsed::Run(config, _) = parse(&[flag], &[], 1).unwrap() else { panic!("it is to run") };
        (directory, DataDir::open(&config).unwrap())
    }

    #[test]
    fn an_empty_store_gives_fresh_logs() {
        let (_directory, mut data_dir) = data_dir();
        let files = data_dir.files().unwrap();
        let restart = restart(&mut data_dir, &files, 2, true).unwrap();
        assert_eq!(restart.reactors.len(), 2);
        assert_eq!((restart.last_file, restart.log_bytes, restart.left_over.len()), (0, 0, 0));
        assert!(restart.reactors.iter().all(|plan| plan.shards.is_empty()));
        assert_eq!(restart.alone_at, None, "who begins has lost nobody");
    }

    #[test]
    fn files_that_nothing_names_are_left_over() {
        let (_directory, mut data_dir) = data_dir();
        let files = data_dir.files().unwrap();
        let name = "0001-000-0000000000000003.checkpoint";
        fs::write(files.path(name), b"x").unwrap();
        let restart = restart(&mut data_dir, &files, 1, false).unwrap();
        assert_eq!((restart.last_file, restart.left_over), (3, vec![name.to_string()]));
    }
}
