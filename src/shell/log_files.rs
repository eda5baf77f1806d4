//! One log's writes on their way to the disk.

#![allow(unsafe_code)]

use super::files::Files;
use super::ring::Ring;
use crate::limits::LOG_WRITES_IN_FLIGHT_MAX;
use crate::log::{Buffer, SegmentName, WriteId};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

pub struct LogFiles {
    files: Arc<Files>,
    open: Vec<(SegmentName, File)>,
    in_flight: [Option<LogWrite>; LOG_WRITES_IN_FLIGHT_MAX],
}

struct LogWrite {
    id: WriteId,
    segment: SegmentName,
    /// The bytes, which belong to the kernel until no completion is awaited.
    buffer: Buffer,
    /// How many completions are still to come.
    awaited: u8,
}

/// The error of a write that has failed: final, whatever the reason.
#[derive(Debug)]
pub struct Failed {
    pub segment: SegmentName,
    pub error: io::Error,
}

impl LogFiles {
    pub fn new(files: Arc<Files>) -> LogFiles {
        LogFiles { files, open: Vec::new(), in_flight: std::array::from_fn(|_| None) }
    }

    /// Takes the open file of a segment that is ready.
    pub fn prepared(&mut self, segment: SegmentName, file: File) {
        self.open.push((segment, file));
    }

    /// Begins a durable write. The log has no more under way than there are places.
    pub fn write(
        &mut self,
        ring: &mut Ring,
        id: WriteId,
        segment: SegmentName,
        offset: u64,
        buffer: Buffer,
    ) -> Result<(), Failed> {
        let place = self.in_flight.iter().position(Option::is_none).expect("the log bounds its writes");
        if !self.open.iter().any(|(name, _)| *name == segment) {
            let file = self.files.open_segment(segment).map_err(|error| Failed { segment, error })?;
            self.open.push((segment, file));
        }
        let in_flight = &self.in_flight;
        let needed = |name: SegmentName| {
            name >= segment || in_flight.iter().flatten().any(|write| write.segment == name)
        };
        self.open.retain(|(name, _)| needed(*name));
        let file = &self.open.iter().find(|(name, _)| *name == segment).expect("opened a moment ago").1;
        let one = self.files.writes_in_one_request();
        let write =
            self.in_flight[place].insert(LogWrite { id, segment, buffer, awaited: if one { 1 } else { 2 } });
        // SAFETY: a buffer's bytes stay where they are when the buffer moves, and it stays in its place
        // until nothing is awaited.
        unsafe { ring.write(place as u32, file.as_fd(), offset, &write.buffer, one) };
        Ok(())
    }

    /// Takes a request that has come back of the write at this place. Returns the write where that was the
    /// last.
    pub fn completed(
        &mut self,
        place: u32,
        result: i32,
        sync: bool,
    ) -> Result<Option<(WriteId, Buffer)>, Failed> {
        let entry = &mut self.in_flight[place as usize];
        let write = entry.as_mut().expect("a place stays taken until all has come back");
        let expected = if sync { 0 } else { write.buffer.len() };
        if usize::try_from(result) != Ok(expected) {
            // A regular file that takes a part only has met its end or a fault of the disk.
            let errno = if result < 0 { -result } else { libc::EIO };
            return Err(Failed { segment: write.segment, error: io::Error::from_raw_os_error(errno) });
        }
        write.awaited -= 1;
        if write.awaited > 0 {
            return Ok(None);
        }
        let segment = write.segment;
        self.files.has_written().map_err(|error| Failed { segment, error })?;
        Ok(self.in_flight[place as usize].take().map(|write| (write.id, write.buffer)))
    }

    /// This member is the only one, as it was to be: durably, before what follows is written.
    pub fn stands_alone(&self) -> io::Result<()> {
        self.files.is_alone()
    }

    /// Whether no write is under way.
    pub fn is_idle(&self) -> bool {
        self.in_flight.iter().all(Option::is_none)
    }
}

#[cfg(test)]
mod tests {
    use super::super::ring::RawSubmission;
    use super::*;
    use crate::limits::BLOCK_BYTES;
    use crate::log::LogId;
    use io_uring::opcode;
    use std::fs;

    /// A write that the disk may still lose when it comes back is one that a client is told of too early.
    #[test]
    fn what_the_kernel_is_handed_is_a_durable_write() {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("store");
        let segment = SegmentName { log: LogId(0), sequence: 1 };
        // What a disk is that takes both at once, or as good as; and one that does not.
        for files in [Files::open(store.clone()).unwrap(), Files::to_read(store.clone())] {
            fs::write(files.path(&segment.to_string()), vec![0; 8 * BLOCK_BYTES]).unwrap();
            let one = files.writes_in_one_request();
            let (mut ring, mut log) = (Ring::new().unwrap(), LogFiles::new(Arc::new(files)));
            let mut buffer = Buffer::with_capacity(BLOCK_BYTES);
            buffer.fill_to(BLOCK_BYTES);
            let address = buffer.as_ptr().addr() as u64;
            let offset = 2 * BLOCK_BYTES as u64;
            log.write(&mut ring, WriteId(1), segment, offset, buffer).unwrap();
            let [write, sync]: [RawSubmission; 2] = ring.first_requests();
            assert_eq!((write.code, write.offset, write.address), (opcode::Write::CODE, offset, address));
            assert_eq!(write.bytes as usize, BLOCK_BYTES);
            if one {
                assert_eq!((write.flags, write.call_flags), (0, libc::RWF_DSYNC as u32));
                assert_eq!(sync.code, opcode::Nop::CODE, "there is no other");
                continue;
            }
            let (linked, of_data) = (1 << 2, 1);
            assert_eq!((write.flags, sync.flags), (linked, 0));
            assert_eq!((sync.code, sync.call_flags, sync.fd), (opcode::Fsync::CODE, of_data, write.fd));
        }
        assert!(!Files::to_read(store).writes_in_one_request());
    }

    /// What the kernel might say of a write that it is never handed.
    #[test]
    fn a_write_that_fails_or_takes_a_part_only_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let files = Arc::new(Files::open(directory.path().join("store")).unwrap());
        let segment = SegmentName { log: LogId(0), sequence: 1 };
        fs::write(files.path(&segment.to_string()), vec![0; 8 * BLOCK_BYTES]).unwrap();
        let mut ring = Ring::new().unwrap();
        let mut log = LogFiles::new(files.clone());
        for (result, errno) in
            [(-libc::EIO, libc::EIO), (BLOCK_BYTES as i32 - 512, libc::EIO), (0, libc::EIO)]
        {
            let mut buffer = Buffer::with_capacity(BLOCK_BYTES);
            buffer.fill_to(BLOCK_BYTES);
            log.write(&mut ring, WriteId(1), segment, 0, buffer).unwrap();
            let failed = log.completed(0, result, false).unwrap_err();
            assert_eq!((failed.segment, failed.error.raw_os_error()), (segment, Some(errno)), "{result}");
            // Where a write and its sync are two requests, a failed sync counts as much.
            let failed = log.completed(0, -libc::EIO, true).unwrap_err();
            assert_eq!(failed.error.raw_os_error(), Some(libc::EIO));
            assert!(!log.is_idle(), "a failed write is never taken for done");
            let taken = log.completed(0, BLOCK_BYTES as i32, false).unwrap();
            let taken =
                if files.writes_in_one_request() { taken } else { log.completed(0, 0, true).unwrap() };
            assert!(taken.is_some_and(|(write, _)| write == WriteId(1)) && log.is_idle());
        }
    }
}
