//! One thread's io_uring: what it asks of the kernel, and what comes back.
//!
//! A completion is told by 64 bits that were given with the request:
//!
//! ```text
//!   63      56 55               32 31                                0
//!  +----------+-------------------+----------------------------------+
//!  |   kind   |  slot or place    |            generation            |
//!  +----------+-------------------+----------------------------------+
//! ```
//!
//! The generation tells a slot's connection from the ones before it: completions of a dead one still come
//! and must not be taken for the next one's. (In fact a slot is not used again before all requests of its
//! connection have come back; the generation is what the assertion of that rests on.)
//!
//! Memory named in a request belongs to the kernel until the completion: it lives where it does not move,
//! and its owner gives it up only then.

#![allow(unsafe_code)]

use super::kernel::{self, SendPieces, SocketName};
use crate::limits::{
    BULK_LOCKED_BYTES, RING_COMPLETIONS, RING_LOCKED_BYTES, RING_SUBMISSIONS, RING_TIMEOUT_MS,
};
use crate::types::Duration;
use io_uring::{IoUring, Submitter, cqueue, opcode, squeue, types};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Instant;

/// What a completion is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// The listener's number.
    Accept(u32),
    Receive {
        slot: u32,
        generation: u32,
    },
    Send {
        slot: u32,
        generation: u32,
    },
    /// The place of an attempt to connect.
    Connect(u32),
    /// The place of a log write among those in flight.
    Write(u32),
    /// The sync linked behind it.
    Sync(u32),
    Wake,
    /// The request to give up another one; that one's completion is what counts.
    Cancel,
}

/// Slots fit into the bits that the tag has for them.
pub const SLOTS_MAX: u32 = 1 << 24;

impl Tag {
    fn encode(self) -> u64 {
        let (kind, slot, generation) = match self {
            Tag::Accept(listener) => (1, listener, 0),
            Tag::Receive { slot, generation } => (2, slot, generation),
            Tag::Send { slot, generation } => (3, slot, generation),
            Tag::Write(place) => (4, place, 0),
            Tag::Sync(place) => (5, place, 0),
            Tag::Wake => (6, 0, 0),
            Tag::Cancel => (7, 0, 0),
            Tag::Connect(place) => (8, place, 0),
        };
        debug_assert!(slot < SLOTS_MAX);
        kind << 56 | u64::from(slot) << 32 | u64::from(generation)
    }

    fn decode(bits: u64) -> Tag {
        let (slot, generation) = ((bits >> 32) as u32 & (SLOTS_MAX - 1), bits as u32);
        match bits >> 56 {
            1 => Tag::Accept(slot),
            2 => Tag::Receive { slot, generation },
            3 => Tag::Send { slot, generation },
            4 => Tag::Write(slot),
            5 => Tag::Sync(slot),
            6 => Tag::Wake,
            7 => Tag::Cancel,
            8 => Tag::Connect(slot),
            kind => panic!("a completion of unknown kind {kind}"),
        }
    }
}

/// A request that has come back, or one of several answers to a repeating one.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    pub tag: Tag,
    /// What the call would have returned: a number, or an `errno` below zero.
    pub result: i32,
    /// Whether more answers follow to the same request.
    pub more: bool,
    /// The provided buffer that holds what was received.
    pub buffer: Option<u16>,
}

pub struct Ring {
    ring: IoUring,
}

impl Ring {
    /// A ring for the calling thread alone.
    pub fn new() -> io::Result<Ring> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(RING_COMPLETIONS)
            .build(RING_SUBMISSIONS)?;
        let params = ring.params();
        if !(params.is_feature_nodrop() && params.is_feature_ext_arg()) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok(Ring { ring })
    }

    /// Makes a ring as [`Ring::new`] does, and tries again for a while: the kernel lets the locked memory of
    /// a killed process go a moment after the process, so one that is started again at once finds too little.
    pub fn new_patiently() -> io::Result<Ring> {
        let give_up = Instant::now() + std::time::Duration::from_millis(RING_TIMEOUT_MS);
        loop {
            match Ring::new() {
                Err(error) if error.raw_os_error() == Some(libc::ENOMEM) && Instant::now() < give_up => {
                    std::thread::sleep(std::time::Duration::from_millis(RING_TIMEOUT_MS / 100));
                }
                done => return done,
            }
        }
    }

    pub fn submitter(&self) -> Submitter<'_> {
        self.ring.submitter()
    }

    /// Accepts connection after connection.
    pub fn accept(&mut self, listener: u32, fd: BorrowedFd<'_>) {
        let entry = opcode::AcceptMulti::new(types::Fd(fd.as_raw_fd())).flags(libc::SOCK_CLOEXEC).build();
        // SAFETY: no memory is passed.
        unsafe { self.push(entry, Tag::Accept(listener)) };
    }

    /// Receives again and again, into buffers of the ring's group.
    pub fn receive(&mut self, slot: u32, generation: u32, fd: BorrowedFd<'_>, group: u16) {
        let entry = opcode::RecvMulti::new(types::Fd(fd.as_raw_fd()), group).build();
        // SAFETY: what is received goes to buffers that are provided to this ring and outlive it.
        unsafe { self.push(entry, Tag::Receive { slot, generation }) };
    }

    /// # Safety
    /// `bytes` neither move nor go before the completion.
    pub unsafe fn send(&mut self, slot: u32, generation: u32, fd: BorrowedFd<'_>, bytes: &[u8]) {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        let entry = opcode::Send::new(types::Fd(fd.as_raw_fd()), bytes.as_ptr(), len).flags(flags).build();
        // SAFETY: the caller's promise.
        unsafe { self.push(entry, Tag::Send { slot, generation }) };
    }

    /// As [`Ring::send`], pieces one behind the other.
    ///
    /// # Safety
    /// The pieces and what they name neither move nor go before the completion.
    pub unsafe fn send_pieces(
        &mut self,
        slot: u32,
        generation: u32,
        fd: BorrowedFd<'_>,
        pieces: &SendPieces,
    ) {
        let flags = (libc::MSG_NOSIGNAL | libc::MSG_WAITALL) as u32;
        let entry = opcode::SendMsg::new(types::Fd(fd.as_raw_fd()), pieces.header()).flags(flags).build();
        // SAFETY: the caller's promise.
        unsafe { self.push(entry, Tag::Send { slot, generation }) };
    }

    /// # Safety
    /// `name` neither moves nor goes before the completion.
    pub unsafe fn connect(&mut self, place: u32, fd: BorrowedFd<'_>, name: &SocketName) {
        let entry = opcode::Connect::new(types::Fd(fd.as_raw_fd()), name.pointer(), name.bytes()).build();
        // SAFETY: the caller's promise.
        unsafe { self.push(entry, Tag::Connect(place)) };
    }

    /// A durable write: in one request where the start's probe found that to work, else in two linked ones.
    ///
    /// # Safety
    /// `bytes` neither move nor go before all completions.
    pub unsafe fn write(&mut self, place: u32, fd: BorrowedFd<'_>, offset: u64, bytes: &[u8], one: bool) {
        let fd = types::Fd(fd.as_raw_fd());
        let len = u32::try_from(bytes.len()).expect("a log write is a few MiB");
        let write = opcode::Write::new(fd, bytes.as_ptr(), len).offset(offset);
        if one {
            // SAFETY: the caller's promise.
            unsafe { self.push(write.rw_flags(libc::RWF_DSYNC).build(), Tag::Write(place)) };
            return;
        }
        // A chain of links ends where a submission does.
        self.reserve_entries(2);
        let sync = opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build();
        // SAFETY: the caller's promise; the sync passes no memory.
        unsafe {
            self.push(write.build().flags(squeue::Flags::IO_LINK), Tag::Write(place));
            self.push(sync, Tag::Sync(place));
        }
    }

    /// # Safety
    /// `counter` neither moves nor goes before the completion.
    pub unsafe fn wait_for_wake(&mut self, fd: BorrowedFd<'_>, counter: *mut u64) {
        let entry = opcode::Read::new(types::Fd(fd.as_raw_fd()), counter.cast(), 8).build();
        // SAFETY: the caller's promise.
        unsafe { self.push(entry, Tag::Wake) };
    }

    /// Gives up a request; its own completion says so, or that it was too late.
    pub fn cancel(&mut self, tag: Tag) {
        // SAFETY: no memory is passed.
        unsafe { self.push(opcode::AsyncCancel::new(tag.encode()).build(), Tag::Cancel) };
    }

    /// # Safety
    /// All memory that the entry names neither moves nor goes before its completion.
    unsafe fn push(&mut self, entry: squeue::Entry, tag: Tag) {
        self.reserve_entries(1);
        let entry = entry.user_data(tag.encode());
        // SAFETY: the caller's promise.
        unsafe { self.ring.submission().push(&entry) }.expect("room was made");
    }

    fn reserve_entries(&mut self, entries: usize) {
        let queue = self.ring.submission();
        if queue.capacity() - queue.len() < entries {
            drop(queue);
            self.submit();
        }
    }

    /// The first requests of a ring of which the kernel has taken none, as it will find them.
    #[cfg(test)]
    pub fn first_requests<const N: usize>(&self) -> [RawSubmission; N] {
        const OFFSET_OF_REQUESTS: libc::off_t = 0x1000_0000;
        let there_are = self.ring.params().sq_entries() as usize;
        assert!(N <= there_are);
        let (bytes, fd) = (there_are * size_of::<RawSubmission>(), self.ring.as_raw_fd());
        // SAFETY: the kernel lets its queue be mapped at this offset, all of it, and a request is plain
        // numbers of the size and the layout of [`RawSubmission`]; nobody writes them meanwhile.
        unsafe {
            let (read, shared) = (libc::PROT_READ, libc::MAP_SHARED);
            let pages = libc::mmap(std::ptr::null_mut(), bytes, read, shared, fd, OFFSET_OF_REQUESTS);
            assert_ne!(pages, libc::MAP_FAILED, "{}", io::Error::last_os_error());
            let requests = pages.cast::<[RawSubmission; N]>().read();
            libc::munmap(pages, bytes);
            requests
        }
    }

    /// Hands the requests to the kernel and takes in what has come back, without waiting; no call where
    /// there is neither.
    pub fn submit(&mut self) {
        let queue = self.ring.submission();
        if queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
            return;
        }
        drop(queue);
        endured(self.ring.submitter().submit());
    }

    /// Hands the requests to the kernel and waits for a completion, at most so long.
    pub fn park(&mut self, timeout: Option<Duration>) {
        let Some(Duration(ns)) = timeout else {
            endured(self.ring.submitter().submit_and_wait(1));
            return;
        };
        let span = types::Timespec::new().sec(ns / 1_000_000_000).nsec((ns % 1_000_000_000) as u32);
        let args = types::SubmitArgs::new().timespec(&span);
        endured(self.ring.submitter().submit_with_args(1, &args));
    }

    /// Moves up to `max` completions to `into`.
    pub fn reap(&mut self, max: usize, into: &mut Vec<Completion>) {
        let completion = |entry: cqueue::Entry| Completion {
            tag: Tag::decode(entry.user_data()),
            result: entry.result(),
            more: cqueue::more(entry.flags()),
            buffer: cqueue::buffer_select(entry.flags()),
        };
        into.extend(self.ring.completion().take(max).map(completion));
    }

    /// Whether nothing has come back that is not reaped.
    pub fn is_idle(&mut self) -> bool {
        self.ring.completion().is_empty()
    }
}

/// A request as it lies in the ring.
#[cfg(test)]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawSubmission {
    pub code: u8,
    pub flags: u8,
    pub priority: u16,
    pub fd: i32,
    pub offset: u64,
    pub address: u64,
    pub bytes: u32,
    /// The flags of the call that it stands for.
    pub call_flags: u32,
    rest: [u64; 4],
}

/// Passes over the errors of entering the kernel that the next turn cures: nothing came in time, a signal,
/// completions to be reaped first.
fn endured(entered: io::Result<usize>) {
    if let Err(error) = entered {
        let cured = [libc::ETIME, libc::EINTR, libc::EBUSY, libc::EAGAIN];
        let errno = error.raw_os_error().unwrap_or_default();
        assert!(cured.contains(&errno), "io_uring_enter: {error}");
    }
}

/// Why a process with this number of reactors gets no ring: a line that says what to change.
pub fn why_no_ring(error: &io::Error, reactors: usize) -> String {
    let release = kernel::release();
    match error.raw_os_error().unwrap_or_default() {
        libc::ENOSYS => format!(
            "this kernel ({release}) has no io_uring, or a filter of system calls hides it: Braid needs Linux \
             6.1 or newer; in a container, allow io_uring_setup, io_uring_enter and io_uring_register"
        ),
        libc::EPERM | libc::EACCES => "io_uring is refused to this process: set the sysctl \
             kernel.io_uring_disabled to 0, or allow io_uring_setup in the container's seccomp profile"
            .to_string(),
        libc::EINVAL => format!("this kernel ({release}) is too old: Braid needs Linux 6.1 or newer"),
        libc::ENOMEM => format!(
            "not enough lockable memory for io_uring: {reactors} reactors and the bulk lane need {} KiB, beside \
             what other processes of this user have locked: raise the limit (ulimit -l, LimitMEMLOCK= of \
             systemd, or the container's memlock), or start with fewer --reactors",
            (reactors * RING_LOCKED_BYTES + BULK_LOCKED_BYTES) >> 10
        ),
        libc::EMFILE | libc::ENFILE => {
            "too many open files for io_uring: raise the limit (ulimit -n, LimitNOFILE=)".to_string()
        }
        _ => format!("io_uring cannot be set up: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::kernel::Waker;
    use std::os::fd::AsFd;

    #[test]
    fn tags_come_back_as_they_went() {
        let (slot, generation) = (SLOTS_MAX - 1, u32::MAX);
        for tag in [
            Tag::Accept(3),
            Tag::Receive { slot, generation },
            Tag::Send { slot, generation: 0 },
            Tag::Send { slot: 0, generation },
            Tag::Write(1),
            Tag::Sync(1),
            Tag::Wake,
            Tag::Cancel,
            Tag::Connect(SLOTS_MAX - 1),
        ] {
            assert_eq!(Tag::decode(tag.encode()), tag);
        }
    }

    #[test]
    fn a_kick_from_another_thread_ends_a_park() {
        let mut ring = Ring::new().unwrap();
        let wake = std::sync::Arc::new(Waker::new().unwrap());
        let mut counter = Box::new(0u64);
        // SAFETY: the box outlives the completion, which this test waits for.
        unsafe { ring.wait_for_wake(wake.as_fd(), &raw mut *counter) };
        let other = wake.clone();
        let thread = std::thread::spawn(move || other.wake());
        let mut came = Vec::new();
        while came.is_empty() {
            ring.park(Some(Duration::from_secs(5)));
            ring.reap(8, &mut came);
        }
        thread.join().unwrap();
        assert_eq!((came[0].tag, came[0].result, *counter), (Tag::Wake, 8, 1));
    }

    #[test]
    fn a_park_ends_with_its_patience() {
        let mut ring = Ring::new().unwrap();
        ring.park(Some(Duration::from_ms(2)));
        assert!(ring.is_idle());
    }
}
