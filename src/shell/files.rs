//! The files in which the state lives: the logs' segments and the shards' checkpoints, in one directory.
//!
//! ```text
//!   <data-dir>/
//!     braid.json                        who this member is, which store it has, and the format of all the rest
//!     lock                              held by the process that uses the directory
//!     store/
//!       000-0000000000000000.log        a reserve: under a name below all that are needed
//!       000-0000000000000001.log        a segment: log 0, sequence 1
//!       000-0000000000000002.log.new    one that is not whole yet
//!       003.dead                        log 3 has no reactor any more: its files are being removed
//!       0001-000-0000000000000003.checkpoint
//!       0001-000-0000000000000004.checkpoint.new
//! ```
//!
//! A file gets its name without `.new` by a rename, after its content is durable; then the directory is
//! synced. One that is to go is first renamed to `.gone`. So whatever has a plain name is whole, and a start
//! removes what has neither.

use super::bulk_file::Durable;
use super::kernel;
use super::logger::Logger;
use crate::checkpoint::CheckpointName;
use crate::limits::BLOCK_BYTES;
use crate::log::{Buffer, LogId, SegmentName};
use crate::reactor::{AtStart, at_start};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

pub struct Files {
    directory: PathBuf,
    /// Whether files are opened past the page cache. Where the file system can't, writes are as durable and
    /// slower.
    direct: bool,
    /// Whether a durable write is one request; else it is a write and a sync, linked.
    one_request: bool,
    /// A file, and its content as it is to be from the first write to a log on.
    note: Mutex<Option<(PathBuf, String)>>,
    is_noted: AtomicBool,
    /// As it is to be once this member is the only one.
    alone: Mutex<Option<(PathBuf, String)>>,
    /// The log is told, at its lowest level, what is done to files: in which order things become durable.
    logger: Option<Logger>,
}

/// What stands in the directory.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The segments that are whole, ascending.
    pub segments: Vec<SegmentName>,
    pub checkpoints: Vec<CheckpointName>,
    /// Logs that an earlier process has marked dead.
    pub dead: Vec<LogId>,
}

impl Listing {
    pub fn by_log(&self) -> BTreeMap<LogId, Vec<SegmentName>> {
        let mut logs: BTreeMap<LogId, Vec<SegmentName>> = BTreeMap::new();
        for segment in &self.segments {
            logs.entry(segment.log).or_default().push(*segment);
        }
        logs
    }
}

const UNFINISHED: &str = ".new";
const GONE: &str = ".gone";
const PROBE: &str = "probe.new";
/// The mode of files: only this user reads what clients have stored.
const FILE_MODE: u32 = 0o600;
pub const DIRECTORY_MODE: u32 = 0o700;

impl Files {
    /// Makes the directory where it is not there, and finds out how durable writes are done in it.
    pub fn open(directory: PathBuf) -> io::Result<Files> {
        match fs::DirBuilder::new().mode(DIRECTORY_MODE).create(&directory) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        sync_name(&directory)?;
        let mut files = Files { direct: true, one_request: true, ..Files::to_read(directory) };
        // What an earlier process did not finish takes space that a full disk may not have for the probe.
        files.list()?;
        files.probe()?;
        Ok(files)
    }

    pub fn is_direct(&self) -> bool {
        self.direct
    }

    pub fn writes_in_one_request(&self) -> bool {
        self.one_request
    }

    fn probe(&mut self) -> io::Result<()> {
        let path = self.directory.join(PROBE);
        let create = |files: &Files| files.options(true).create(true).truncate(true).open(&path);
        let file = create(self).or_else(|error| {
            if !is_unknown(&error) {
                return Err(error);
            }
            self.direct = false;
            create(self)
        })?;
        let mut block = Buffer::with_capacity(BLOCK_BYTES);
        block.fill_to(BLOCK_BYTES);
        match kernel::write_durably_at_start(&file, &block) {
            Err(error) if is_unknown(&error) => self.one_request = false,
            // A full disk takes reads, and writes into files that are there: how is known with the first.
            Err(error) if is_full(&error) => {}
            written => written?,
        }
        fs::remove_file(&path)
    }

    /// Replaces this file when something is written to a log for the first time.
    pub fn note_the_first_write(&mut self, path: PathBuf, content: String) {
        (self.note, self.is_noted) = (Mutex::new(Some((path, content))), AtomicBool::new(false));
    }

    /// Replaces this file once this member is the only one, as it is to be.
    pub fn note_alone(&self, path: PathBuf, content: String) {
        *self.alone.lock().unwrap_or_else(PoisonError::into_inner) = Some((path, content));
    }

    /// Writes what was noted of that.
    pub fn is_alone(&self) -> io::Result<()> {
        let noted = self.alone.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((path, content)) = noted else { return Ok(()) };
        let written = Files::replace(&path, content.as_bytes());
        written.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    }

    /// Writes the noted file, if there is one. To be called after a write to a log is durable, and before it is
    /// acknowledged.
    pub fn has_written(&self) -> io::Result<()> {
        if self.is_noted.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut note = self.note.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((path, content)) = note.as_ref() {
            let noted = Files::replace(path, content.as_bytes());
            noted.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
            *note = None;
        }
        self.is_noted.store(true, Ordering::Release);
        Ok(())
    }

    /// How files of segments and checkpoints are opened for writing.
    pub fn options(&self, direct: bool) -> OpenOptions {
        let mut options = OpenOptions::new();
        options.write(true).mode(FILE_MODE);
        if direct && self.direct {
            options.custom_flags(kernel::DIRECT);
        }
        options
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Where a file stands until it is whole.
    pub fn unfinished(&self, segment: SegmentName) -> PathBuf {
        self.directory.join(format!("{segment}{UNFINISHED}"))
    }

    pub fn open_segment(&self, segment: SegmentName) -> io::Result<File> {
        self.options(true).open(self.path(&segment.to_string()))
    }

    /// Opens a segment that is being used: what the page cache may have of it does not count.
    pub fn open_segment_to_read(&self, segment: SegmentName) -> io::Result<File> {
        let mut options = OpenOptions::new();
        if self.direct {
            options.custom_flags(kernel::DIRECT);
        }
        options.read(true).open(self.path(&segment.to_string()))
    }

    pub fn tell_to(&mut self, logger: Logger) {
        self.logger = Some(logger);
    }

    /// Tells the log what has been done to a file.
    pub fn tell(&self, what: &str, path: &Path) {
        let Some(logger) = self.logger.as_ref().filter(|logger| logger.tells_all()) else { return };
        let name = path.file_name().unwrap_or_default();
        logger.debug(what, vec![("file", name.to_string_lossy().into_owned())]);
    }

    /// Makes the names in the directory durable.
    pub fn sync_names(&self) -> io::Result<()> {
        sync_directory(&self.directory)?;
        self.tell("names synced", &self.directory);
        Ok(())
    }

    /// Gives a file another name, durably.
    pub fn rename(&self, old: &Path, new: &Path) -> io::Result<()> {
        fs::rename(old, new)?;
        self.tell("file gives up its name", old);
        self.tell("file has its name", new);
        self.sync_names()
    }

    /// Gives a file under construction its final name, durably.
    pub fn publish(&self, file: &Durable, name: &str) -> io::Result<()> {
        self.rename(file.path(), &self.path(name))
    }

    /// Makes what has been read from a segment durable, if it was not.
    pub fn sync_segment(&self, segment: SegmentName) -> io::Result<()> {
        let path = self.path(&segment.to_string());
        File::open(&path)?.sync_all()?;
        self.tell("file synced", &path);
        Ok(())
    }

    pub fn segment_bytes(&self, segment: SegmentName) -> io::Result<u64> {
        Ok(fs::metadata(self.path(&segment.to_string()))?.len())
    }

    /// How many bytes this process may still write to the disk.
    pub fn free_bytes(&self) -> io::Result<u64> {
        kernel::free_bytes(&File::open(&self.directory)?)
    }

    /// Reads the first `len` bytes of a segment, if it has so many, in place of what the buffer holds.
    pub fn read_segment(&self, segment: SegmentName, len: u64, into: &mut Vec<u8>) -> io::Result<()> {
        let file = File::open(self.path(&segment.to_string()))?;
        let len = file.metadata()?.len().min(len);
        into.clear();
        into.reserve(usize::try_from(len).map_err(io::Error::other)?);
        file.take(len).read_to_end(into).map(drop)
    }

    /// Takes a file's name away, durably, and opens it to be cut and removed; none where it is not there.
    pub fn give_up(&self, name: &str) -> io::Result<Option<(PathBuf, File)>> {
        let gone = self.directory.join(format!("{name}{GONE}"));
        match self.rename(&self.path(name), &gone) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            renamed => renamed?,
        }
        let file = self.options(false).open(&gone)?;
        Ok(Some((gone, file)))
    }

    /// Reads a piece of a checkpoint; empty behind its end.
    pub fn read_piece(&self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.path(name))?;
        file.seek(SeekFrom::Start(offset))?;
        let mut piece = Vec::with_capacity(len);
        file.take(len as u64).read_to_end(&mut piece)?;
        Ok(piece)
    }

    /// [`Files::read_piece`] for recovery, with errors that name the file.
    pub fn reader(&self) -> impl FnMut(&str, u64, usize) -> Result<Vec<u8>, String> {
        |name, offset, len| {
            self.read_piece(name, offset, len).map_err(|error| format!("cannot read {name}: {error}"))
        }
    }

    /// Lists as [`Files::list`] does, after removing what is left of logs with a `.dead` file, and those files.
    pub fn list_without_dead_logs(&self) -> io::Result<Listing> {
        let listing = self.list()?;
        let (segments, dead) = (&listing.segments, &listing.dead);
        let names: Vec<String> =
            segments.iter().map(ToString::to_string).chain(dead.iter().map(|log| log.dead_mark())).collect();
        for step in at_start(names.iter().map(String::as_str)) {
            match step {
                AtStart::SyncNames => self.sync_names()?,
                AtStart::Remove(name) => fs::remove_file(self.path(&name))?,
            }
        }
        if dead.is_empty() { Ok(listing) } else { self.list() }
    }

    /// The files of a directory that is only read, and need not be there.
    pub fn to_read(directory: PathBuf) -> Files {
        Files {
            directory,
            direct: false,
            one_request: false,
            note: Mutex::new(None),
            alone: Mutex::new(None),
            is_noted: AtomicBool::new(true),
            logger: None,
        }
    }

    /// Lists what is whole and removes what is not. A name that is no one's is left alone.
    pub fn list(&self) -> io::Result<Listing> {
        let (listing, not_whole) = self.survey()?;
        for name in not_whole {
            fs::remove_file(self.path(&name))?;
        }
        Ok(listing)
    }

    /// Lists what a start would read, and changes nothing.
    pub fn list_to_read(&self) -> io::Result<Listing> {
        let mut listing = match self.survey() {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Listing::default()),
            surveyed => surveyed?.0,
        };
        listing.segments.retain(|segment| !listing.dead.contains(&segment.log));
        Ok(listing)
    }

    /// Lists what is whole, and gives the names of what is not.
    fn survey(&self) -> io::Result<(Listing, Vec<String>)> {
        let (mut listing, mut not_whole) = (Listing::default(), vec![]);
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            let Some(name) = name.to_str() else { continue };
            if let Some(segment) = SegmentName::parse(name) {
                listing.segments.push(segment);
            } else if let Some(checkpoint) = CheckpointName::parse(name) {
                listing.checkpoints.push(checkpoint);
            } else if let Some(log) = LogId::parse_dead_mark(name) {
                listing.dead.push(log);
            } else if name.ends_with(UNFINISHED) || name.ends_with(GONE) {
                not_whole.push(name.to_string());
            }
        }
        listing.segments.sort();
        listing.checkpoints.sort();
        Ok((listing, not_whole))
    }

    /// Makes small files durable in whole: what others see is the old one or the new one.
    pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
        let unfinished = path.with_extension("new");
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(FILE_MODE).open(&unfinished)?;
        io::Write::write_all(&mut file, content)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        sync_name(path)
    }
}

/// Makes a name durable.
pub fn sync_name(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    sync_directory(parent.unwrap_or(Path::new(".")))
}

/// Makes the names in a directory durable.
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Whether kernel or file system do not know what was asked.
fn is_unknown(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|errno| kernel::UNKNOWN.contains(&errno))
}

/// Whether the disk is full.
pub fn is_full(error: &io::Error) -> bool {
    let errno = error.raw_os_error();
    errno.is_some_and(|errno| kernel::DISK_FULL.contains(&errno))
        || matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_names_what_is_whole_and_clears_the_rest() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::open(directory.path().join("store")).unwrap();
        let at = |log, sequence| SegmentName { log: LogId(log), sequence };
        for segment in [at(1, 1), at(0, 16), at(0, 2)] {
            fs::write(files.path(&segment.to_string()), b"x").unwrap();
        }
        fs::write(files.unfinished(at(0, 17)), b"x").unwrap();
        fs::write(files.path("0001-000-0000000000000003.checkpoint"), b"abcdef").unwrap();
        fs::write(files.path("0001-000-0000000000000004.checkpoint.new"), b"x").unwrap();
        fs::write(files.path("0001-000-0000000000000002.checkpoint"), b"x").unwrap();
        drop(files.give_up("0001-000-0000000000000002.checkpoint").unwrap().unwrap());
        assert!(files.give_up("0001-000-0000000000000002.checkpoint").unwrap().is_none());
        fs::write(files.path("notes.txt"), b"x").unwrap();
        let listing = files.list().unwrap();
        assert_eq!(listing.segments, [at(0, 2), at(0, 16), at(1, 1)]);
        assert_eq!(listing.checkpoints.len(), 1);
        let left = fs::read_dir(directory.path().join("store")).unwrap().count();
        assert_eq!(left, 5, "three segments, a checkpoint, the notes");
        let name = listing.checkpoints[0].to_string();
        assert_eq!(files.read_piece(&name, 2, 3).unwrap(), b"cde");
        assert_eq!(files.read_piece(&name, 6, 3).unwrap(), b"");
    }

    #[test]
    fn a_log_marked_dead_is_gone_after_a_start_and_so_is_its_mark() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::open(directory.path().join("store")).unwrap();
        for name in ["000-0000000000000001.log", "001-0000000000000002.log", "001.dead"] {
            fs::write(files.path(name), b"x").unwrap();
        }
        let listing = files.list_without_dead_logs().unwrap();
        assert_eq!(listing.segments, [SegmentName { log: LogId(0), sequence: 1 }]);
        assert_eq!(fs::read_dir(directory.path().join("store")).unwrap().count(), 1);
    }

    /// A pipe is a file that cannot be made durable: the kernel refuses to sync it.
    #[test]
    fn what_cannot_be_made_durable_replaces_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let (path, unfinished) = (directory.path().join("braid.json"), directory.path().join("braid.new"));
        Files::replace(&path, b"one").unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&unfinished).status().unwrap().success());
        let _reader = File::options().read(true).write(true).open(&unfinished).unwrap();
        assert!(Files::replace(&path, b"two").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"one");
    }

    /// Neither a pipe nor the kernel's list of processes can be made durable.
    #[test]
    fn what_was_not_made_durable_is_not_taken_for_it() {
        assert!(sync_directory(Path::new("/proc/self")).is_err());
        assert!(Files::to_read("/proc/self".into()).sync_names().is_err());
        let directory = tempfile::tempdir().unwrap();
        let files = Files::to_read(directory.path().into());
        let segment = SegmentName { log: LogId(0), sequence: 1 };
        let path = files.path(&segment.to_string());
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let _other_end = File::options().read(true).write(true).open(&path).unwrap();
        assert!(files.sync_segment(segment).is_err());
    }

    #[test]
    fn a_replaced_file_is_whole_and_leaves_nothing_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("braid.json");
        Files::replace(&path, b"one").unwrap();
        Files::replace(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
