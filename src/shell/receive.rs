//! The buffers a thread's ring receives into: a ring of descriptors that the kernel takes from its head and
//! we put back at its tail. Bytes are read where they came in, and the buffer goes back at once, so a few
//! serve any number of connections.

#![allow(unsafe_code)]

use super::ring::Ring;
use crate::limits::{RECEIVE_BUFFER_BYTES, RECEIVE_BUFFERS};
use io_uring::types::BufRingEntry;
use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

/// The one buffer group of a ring.
pub const GROUP: u16 = 0;
const PAGE_BYTES: usize = 4096;
const _: () = assert!(RECEIVE_BUFFERS.is_power_of_two() && RECEIVE_BUFFERS <= 1 << 15);

/// Lives as long as the process: the kernel may write to it as long as the ring is open.
pub struct Buffers {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    tail: u16,
}

fn pages(bytes: usize) -> NonNull<u8> {
    let layout = Layout::from_size_align(bytes, PAGE_BYTES).expect("a few MiB at a page boundary");
    // SAFETY: the layout is not empty.
    NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
}

impl Buffers {
    pub fn provide(ring: &Ring) -> io::Result<Buffers> {
        let entries = pages(RECEIVE_BUFFERS * size_of::<BufRingEntry>()).cast::<BufRingEntry>();
        let memory = pages(RECEIVE_BUFFERS * RECEIVE_BUFFER_BYTES);
        let address = entries.as_ptr() as u64;
        // SAFETY: the descriptors are page-aligned, as many as said, and are never given back.
        unsafe { ring.submitter().register_buf_ring_with_flags(address, RECEIVE_BUFFERS as u16, GROUP, 0)? };
        let mut buffers = Buffers { entries, memory, tail: 0 };
        (0..RECEIVE_BUFFERS as u16).for_each(|buffer| buffers.put(buffer));
        buffers.publish();
        Ok(buffers)
    }

    fn start(&self, buffer: u16) -> *mut u8 {
        assert!(usize::from(buffer) < RECEIVE_BUFFERS, "the kernel names a buffer that it was given");
        // SAFETY: the offset lies within the memory.
        unsafe { self.memory.as_ptr().add(usize::from(buffer) * RECEIVE_BUFFER_BYTES) }
    }

    /// What the kernel has put into a buffer that it has handed out and that has not been given back.
    pub fn bytes(&self, buffer: u16, len: usize) -> &[u8] {
        assert!(len <= RECEIVE_BUFFER_BYTES, "the kernel does not write past a buffer");
        // SAFETY: the bytes were zeroed at first and belong to us until the buffer is given back, which
        // takes `&mut self`.
        unsafe { std::slice::from_raw_parts(self.start(buffer), len) }
    }

    /// Gives a buffer back; the kernel sees it after [`Buffers::publish`].
    pub fn put(&mut self, buffer: u16) {
        let place = usize::from(self.tail) & (RECEIVE_BUFFERS - 1);
        let start = self.start(buffer) as u64;
        // SAFETY: the place lies within the descriptors, and the kernel does not read it before the tail
        // has passed it. The setters leave the bytes alone that hold the tail in the first descriptor.
        let entry = unsafe { &mut *self.entries.as_ptr().add(place) };
        entry.set_addr(start);
        entry.set_len(RECEIVE_BUFFER_BYTES as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    pub fn publish(&mut self) {
        // SAFETY: the first descriptor is that of the ring that was registered; its tail is a 16-bit number
        // that the kernel reads while we write it, so the store is atomic.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries.as_ptr()).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}
