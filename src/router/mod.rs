//! Key ranges to shards, and shards to reactors.
//!
//! The map is fixed when a cluster is bootstrapped and stands in its control shard. Each data shard owns
//! one range of keys, and shards are numbered in the order of their keys: so reserving shards in ascending
//! order, and concatenating their answers in it, is also key order. (The record of a cut leaves room for
//! shards of several ranges.)

use crate::record::CutRecord;
use crate::types::{KeyRange, ReactorId, ShardId};
use bytes::Bytes;
use sha1::{Digest, Sha1};

/// The shard map of a cluster on a member with so many reactors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Router {
    /// Where the range of shard 1, 2, 3, … starts; the first starts at the empty key.
    starts: Vec<Bytes>,
    reactors: u16,
}

/// A shard map that cannot be used, with the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadMap(pub &'static str);

impl Router {
    pub fn new(cuts: &[CutRecord], reactors: u16) -> Result<Router, BadMap> {
        assert!(reactors > 0, "a member has a reactor");
        if cuts.first().is_none_or(|cut| !cut.start.is_empty()) {
            return Err(BadMap("the first shard does not start at the empty key"));
        }
        if !cuts.windows(2).all(|pair| pair[0].start < pair[1].start) {
            return Err(BadMap("the cuts between shards do not rise"));
        }
        if !cuts.iter().zip(1..).all(|(cut, shard)| cut.shard == shard) {
            return Err(BadMap("shards are not numbered in the order of their keys"));
        }
        Ok(Router { starts: cuts.iter().map(|cut| Bytes::copy_from_slice(&cut.start)).collect(), reactors })
    }

    /// All shards, the control shard first.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> + Clone + use<> {
        (0..=self.starts.len() as u32).map(ShardId)
    }

    /// The shards that hold keys.
    pub fn data_shards(&self) -> impl Iterator<Item = ShardId> + Clone + use<> {
        self.shards().skip(1)
    }

    pub fn reactor_of(&self, shard: ShardId) -> ReactorId {
        reactor_of(shard, self.reactors)
    }

    pub fn shard_of(&self, key: &[u8]) -> ShardId {
        ShardId(self.starts.partition_point(|start| &start[..] <= key) as u32)
    }

    /// The keys of a data shard, as ranges in key order.
    pub fn ranges_of(&self, shard: ShardId) -> [KeyRange; 1] {
        let start = self.starts[shard.0 as usize - 1].clone();
        [match self.starts.get(shard.0 as usize) {
            Some(end) => KeyRange::Between(start, end.clone()),
            None => KeyRange::From(start),
        }]
    }

    /// The shards that could hold keys of the range, in key order; none where the range is empty.
    pub fn shards_of(&self, range: &KeyRange) -> impl Iterator<Item = ShardId> + Clone + use<> {
        let first = self.shard_of(range.start()).0;
        let last = match range {
            _ if range.is_empty() => first - 1,
            KeyRange::One(_) => first,
            KeyRange::From(_) => self.starts.len() as u32,
            // The last key below `end` lies in the last shard that starts below it.
            KeyRange::Between(_, end) => self.starts.partition_point(|start| start < end) as u32,
        };
        (first..=last).map(ShardId)
    }
}

/// Where a shard lives: the control shard on the first reactor, the data shards in turn, from the last
/// reactor backwards, so that few shards leave the first one to the control shard.
pub fn reactor_of(shard: ShardId, reactors: u16) -> ReactorId {
    let reactors = u32::from(reactors);
    if shard == ShardId::CONTROL {
        return ReactorId(0);
    }
    ReactorId((reactors - 1 - (shard.0 - 1) % reactors) as u16)
}

/// The cuts of a new cluster: where the operator named them, else [`default_starts`].
pub fn cuts(starts: &[Bytes]) -> Vec<CutRecord> {
    starts.iter().zip(1..).map(|(start, shard)| CutRecord { start: start.to_vec(), shard }).collect()
}

/// A number by which two maps are told apart.
pub fn map_number(starts: &[Bytes]) -> u64 {
    let mut hash = Sha1::new();
    for start in starts {
        hash.update((start.len() as u64).to_be_bytes());
        hash.update(start);
    }
    let digest = hash.finalize();
    u64::from_be_bytes(digest[..8].try_into().expect("a SHA-1 has 20 bytes"))
}

/// Where `shards` data shards start by default: Kubernetes' keys split by kind, its busiest kinds apart
/// first; what shards are left cut the rest of the byte space evenly.
pub fn default_starts(shards: usize) -> Vec<Bytes> {
    // In the order in which they are worth a cut: leases are the steady load, pods the peaks, events the
    // bulk; each of those is closed off behind as well.
    const KINDS: [&[u8]; 12] = [
        b"/registry/leases/",
        b"/registry/pods/",
        b"/registry/m",
        b"/registry/events/",
        b"/registry/f",
        b"/registry/q",
        b"/registry/configmaps/",
        b"/registry/secrets/",
        b"/registry/endpointslices/",
        b"/registry/services/",
        b"/registry/replicasets/",
        b"/registry0",
    ];
    let mut starts: Vec<Bytes> = vec![Bytes::new()];
    starts.extend(KINDS.iter().take(shards.saturating_sub(1)).map(|start| Bytes::from_static(start)));
    let rest = shards.saturating_sub(starts.len()) as u64;
    for n in 1..=rest {
        let cut = (n << 16) / (rest + 1);
        starts.push(Bytes::copy_from_slice(&(cut as u16).to_be_bytes()));
    }
    starts.sort();
    starts.dedup();
    starts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(starts: &[&'static str], reactors: u16) -> Router {
        let starts: Vec<Bytes> = starts.iter().map(|start| Bytes::from_static(start.as_bytes())).collect();
        Router::new(&cuts(&starts), reactors).unwrap()
    }

    fn shards(router: &Router, key: &'static str, end: &'static str) -> Vec<u32> {
        let range = KeyRange::of(Bytes::from_static(key.as_bytes()), Bytes::from_static(end.as_bytes()));
        router.shards_of(&range).map(|shard| shard.0).collect()
    }

    #[test]
    fn a_range_touches_the_shards_its_keys_could_be_in() {
        let router = router(&["", "g", "p"], 2);
        assert_eq!(shards(&router, "a", ""), [1]);
        assert_eq!(shards(&router, "g", ""), [2]);
        assert_eq!(shards(&router, "a", "g"), [1]);
        assert_eq!(shards(&router, "a", "g\0"), [1, 2]);
        assert_eq!(shards(&router, "h", "\0"), [2, 3]);
        assert_eq!(shards(&router, "\0", "\0"), [1, 2, 3]);
        assert_eq!(shards(&router, "z", "a"), [0u32; 0]);
        assert_eq!(shards(&router, "a", "a"), [0u32; 0]);
    }

    #[test]
    fn every_key_has_the_one_shard_that_its_range_names() {
        for shards in 1..40 {
            let starts = default_starts(shards);
            assert_eq!(starts.len(), shards);
            let router = Router::new(&cuts(&starts), 3).unwrap();
            for key in ["", "a", "/registry/pods/x/y", "/registry/leases/n", "\u{ff}", "compact_rev_key"] {
                let range = KeyRange::One(Bytes::from_static(key.as_bytes()));
                assert_eq!(router.shards_of(&range).collect::<Vec<_>>(), [router.shard_of(key.as_bytes())]);
            }
        }
    }

    #[test]
    fn shards_spread_over_all_reactors_and_the_first_has_the_fewest() {
        let router = Router::new(&cuts(&default_starts(5)), 3).unwrap();
        let homes: Vec<u16> = router.shards().map(|shard| router.reactor_of(shard).0).collect();
        assert_eq!(homes, [0, 2, 1, 0, 2, 1]);
    }

    #[test]
    fn maps_that_make_no_sense_are_refused() {
        let cut = |start: &str, shard| CutRecord { start: start.into(), shard };
        assert!(Router::new(&[], 1).is_err());
        assert!(Router::new(&[cut("a", 1)], 1).is_err());
        assert!(Router::new(&[cut("", 1), cut("", 2)], 1).is_err());
        assert!(Router::new(&[cut("", 2)], 1).is_err());
    }
}
