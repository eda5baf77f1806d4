//! What a restart leaves in memory, counted where it is allocated.

#![allow(unsafe_code)] // an allocator that counts is not to be had otherwise

use super::*;
use crate::router::default_starts;
use std::alloc::{GlobalAlloc, Layout, System};

/// The system's allocator, which counts what a thread has taken and not given back.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
}

fn count(taken: usize, given: usize) {
    HELD.set(HELD.get() + taken.cast_signed() - given.cast_signed());
}

// SAFETY: the system's allocator does it all; what is counted is a number of the thread that is never torn down.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// So many that what a shard may keep of its log, however long that was, is little beside them.
const PUTS: u64 = 34_000;

/// What the reactors hold, which end with it.
fn weigh(member: Member) -> (isize, Disk) {
    let Member { reactors, disk, .. } = member;
    let before = HELD.get();
    drop(reactors);
    (before - HELD.get(), disk)
}

/// From the bare log, and from checkpoints.
#[test]
fn a_restarted_member_takes_no_more_memory_than_before() {
    for checkpoint_log_bytes in [1 << 40, 1 << 20] {
        let settings = || Settings { shard_starts: default_starts(1), checkpoint_log_bytes, ..settings() };
        let mut member = Member::start_as(settings(), endless(), 1, Revision::NONE).unwrap();
        member.put(0, PUTS);
        member.pass(2);
        let (written, disk) = weigh(member);
        assert!(written > PUTS as isize * 800, "the values alone take more than {written} bytes");
        assert_eq!(disk.names().is_empty(), checkpoint_log_bytes == 1 << 40);
        let mut member = Member::start_as(settings(), disk, 1, Revision::NONE).unwrap();
        member.pass(2);
        assert_eq!(member.check(), PUTS);
        let (restored, _) = weigh(member);
        assert!(restored <= written + written / 20, "{restored} bytes restored, {written} written");
    }
}
