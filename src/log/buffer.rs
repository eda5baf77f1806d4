//! Memory that direct I/O takes: it begins at a block boundary and is whole blocks long when written.

use crate::limits::BLOCK_BYTES;
use rkyv::util::AlignedVec;
use std::fmt;
use std::ops::{Deref, DerefMut};

/// Bytes that begin at a 4 KiB boundary. The shell writes them and gives them back for reuse.
pub struct Buffer(AlignedVec<BLOCK_BYTES>);

impl Buffer {
    pub fn with_capacity(bytes: usize) -> Buffer {
        Buffer(AlignedVec::with_capacity(bytes))
    }

    pub fn extend(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Appends zeros up to `len` bytes.
    pub fn fill_to(&mut self, len: usize) {
        assert!(len >= self.len(), "what stands in a buffer is not cut: {} of {len}", self.len());
        self.0.resize(len, 0);
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// What it can hold without moving.
    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.len())
    }
}
