//! `braid dump-log`: what a data directory holds, printed. No server runs on it meanwhile, and nothing in it
//! is changed but the lock.
//!
//! Both forms say the same in the same order: a head, the control shard's state from its checkpoint where
//! there is one, control entries, changes of peers, fences and seals as the logs have them, then all settled writes by
//! revision. `json` documents its fields, `text` is for people.

mod json;
#[cfg(test)]
mod tests;
mod text;

use super::data_dir::{DataDir, Identity};
use super::plain_failure;
use super::restart::read_to_look;
use crate::config::DumpLog;
use crate::log::{LogStart, SegmentBytes};
use crate::recover::dump::Contents;
use crate::recover::survey;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::process::ExitCode;

/// What can be read of a damaged directory is printed, then what is wrong with it, and the dump has failed.
pub fn dump_log(wish: &DumpLog) -> ExitCode {
    let read = DataDir::open_to_read(&wish.data_dir).and_then(|data_dir| {
        let contents = read(&data_dir)?;
        Ok((data_dir, contents))
    });
    let (data_dir, contents) = match read {
        Ok(read) => read,
        Err(reason) => return plain_failure(&reason),
    };
    match print(&data_dir.identity, &contents, wish.json) {
        // Whoever closes the pipe early has read enough.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            return plain_failure(&format!("cannot write what was read: {error}"));
        }
        _ => {}
    }
    contents.damage.iter().fold(ExitCode::SUCCESS, |_, damage| plain_failure(damage))
}

fn read(data_dir: &DataDir) -> Result<Contents, String> {
    let files = data_dir.files_to_read();
    let unreadable = |error: io::Error| format!("cannot read the data directory: {error}");
    let listing = files.list_to_read().map_err(unreadable)?;
    let (mut logs, mut damage) = (vec![], vec![]);
    let store = data_dir.identity.store;
    for (log, segments) in listing.by_log() {
        let (recovered, wrong) = read_to_look(&files, store, log, &segments);
        logs.push(recovered);
        damage.extend(wrong);
    }
    damage.extend(data_dir.check_logs(&logs).err().filter(|_| damage.is_empty()));
    // Keys are for logs that never were, and here nothing is written to them.
    let mut fresh = |log| LogStart::fresh(log, store, 0, SegmentBytes::USUAL);
    let (plan, more) = survey(logs, &listing.checkpoints, 1, &mut fresh, &mut files.reader());
    damage.extend(more);
    Ok(Contents::read(plan, damage, &mut files.reader()))
}

fn print(identity: &Identity, contents: &Contents, json: bool) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    let head = if json { json::head } else { text::head };
    let entry = if json { json::entry } else { text::entry };
    let write = if json { json::write } else { text::write };
    out.write_all(head(identity, contents).as_bytes())?;
    for logged in &contents.entries {
        out.write_all(entry(logged).as_bytes())?;
    }
    for settled in contents.writes() {
        out.write_all(write(&settled).as_bytes())?;
    }
    out.flush()
}
