//! Hash maps whose order does not depend on the process: the same inputs give the same run.

#![allow(clippy::disallowed_types)] // this is the one place that names the standard maps

use std::hash::{BuildHasherDefault, Hasher};

pub type HashMap<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<Fold>>;
#[cfg(test)]
type HashSet<K> = std::collections::HashSet<K, BuildHasherDefault<Fold>>;

/// A multiply-and-fold hasher without a random seed.
///
/// Only for keys the server chooses itself (ids, slots). Keys that clients choose live in ordered maps,
/// so that nobody can aim for collisions.
#[derive(Default, Clone, Copy)]
pub struct Fold(u64);

const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;

impl Fold {
    fn fold(&mut self, word: u64) {
        let wide = u128::from(self.0 ^ word).wrapping_mul(u128::from(FACTOR) | 1 << 64);
        self.0 = (wide as u64) ^ ((wide >> 64) as u64);
    }
}

impl Hasher for Fold {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.fold(u64::from_le_bytes(word) ^ ((chunk.len() as u64) << 56));
        }
    }
    fn write_u32(&mut self, word: u32) {
        self.fold(u64::from(word));
    }
    fn write_u64(&mut self, word: u64) {
        self.fold(word);
    }
    fn write_usize(&mut self, word: usize) {
        self.fold(word as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::BuildHasher;

    #[test]
    fn close_keys_spread_over_low_and_high_bits() {
        let build = BuildHasherDefault::<Fold>::default();
        let low: HashSet<u64> = (0..1024u64).map(|k| build.hash_one(k) & 0xFFFF).collect();
        let high: HashSet<u64> = (0..1024u64).map(|k| build.hash_one(k) >> 48).collect();
        assert!(low.len() > 900 && high.len() > 900, "{} {}", low.len(), high.len());
    }
}
