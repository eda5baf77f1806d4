//! `--reactors`, `--shards`, `--shard-map`: how many threads, how many Raft groups, and where keys are cut.
//!
//! N cuts, ascending, divide the space of keys into N + 1 ranges: below the first cut, from each cut up to
//! the next, and from the last cut on. Each range is a shard, numbered from 1 in the order of keys; shard 0
//! is the control shard and holds no keys.

use crate::limits::{REACTORS_MAX, SHARD_CUTS_MAX, SHARDS_MAX};

/// Where the space of keys is cut at bootstrap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShardMap {
    /// Cuts that suit Kubernetes and spread other keys evenly.
    Default,
    /// The cuts given: not empty, strictly ascending, no more than [`SHARD_CUTS_MAX`].
    Cuts(Vec<Vec<u8>>),
}

/// Reads the cuts of `--shard-map`: text with `\xNN`, `\,` and `\\`, separated by commas.
pub(super) fn read_cuts(text: &str) -> Result<Vec<Vec<u8>>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let mut cuts = vec![Vec::new()];
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let cut = cuts.last_mut().expect("the list began with one cut and only grows");
        match byte {
            b',' => cuts.push(Vec::new()),
            b'\\' => match bytes.next() {
                Some(plain @ (b',' | b'\\')) => cut.push(plain),
                Some(b'x') => {
                    let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
                    let (high, low) = (digit(bytes.next()), digit(bytes.next()));
                    let (Some(high), Some(low)) = (high, low) else {
                        return Err("\\x is followed by two hexadecimal digits".to_string());
                    };
                    cut.push((high * 16 + low) as u8);
                }
                _ => return Err("a backslash is followed by xNN, a comma or a backslash".to_string()),
            },
            plain => cut.push(plain),
        }
    }
    if cuts.len() > SHARD_CUTS_MAX {
        return Err(format!("at most {SHARD_CUTS_MAX} cuts"));
    }
    if cuts[0].is_empty() {
        return Err("a cut is a key, and no key is empty".to_string());
    }
    match cuts.windows(2).find(|pair| pair[0] >= pair[1]) {
        Some(pair) => {
            Err(format!("cuts ascend, but {:?} is followed by {:?}", show(&pair[0]), show(&pair[1])))
        }
        None => Ok(cuts),
    }
}

fn show(key: &[u8]) -> String {
    key.escape_ascii().to_string()
}

/// Threads for `--reactors` (0: one per CPU) on a machine that lets this process run on `cpus`.
pub(super) fn reactors(asked: u64, cpus: usize) -> Result<usize, String> {
    match usize::try_from(asked) {
        Ok(0) => Ok(cpus.clamp(1, REACTORS_MAX)),
        Ok(reactors) if reactors <= REACTORS_MAX => Ok(reactors),
        _ => Err(format!("--reactors is at most {REACTORS_MAX} (set to {asked})")),
    }
}

/// Groups that hold keys, for `--shards` (0: one per range where cuts are given, else one per reactor).
pub(super) fn shards(asked: u64, map: &ShardMap, reactors: usize) -> Result<usize, String> {
    let most = SHARDS_MAX - 1;
    let ranges = match map {
        ShardMap::Default => None,
        ShardMap::Cuts(cuts) => Some(cuts.len() + 1),
    };
    match (usize::try_from(asked), ranges) {
        (Ok(0), None) => Ok(reactors),
        (Ok(0), Some(ranges)) if ranges > most => Err(format!("--shard-map makes at most {most} ranges")),
        (Ok(0), Some(ranges)) => Ok(ranges),
        (Ok(shards), _) if shards > most => Err(format!("--shards is at most {most} (set to {asked})")),
        (Ok(shards), Some(ranges)) if shards != ranges => {
            Err(format!("--shards is {shards}, but --shard-map makes {ranges} ranges"))
        }
        (Ok(shards), _) => Ok(shards),
        (Err(_), _) => Err(format!("--shards is at most {most} (set to {asked})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_are_text_with_escapes() {
        let cuts = read_cuts(r"\x00\xfF,a\,b,c\\d").unwrap();
        assert_eq!(cuts, [b"\x00\xff".to_vec(), b"a,b".to_vec(), b"c\\d".to_vec()]);
        assert_eq!(read_cuts("").unwrap(), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn cuts_that_do_not_ascend_or_cannot_be_read_are_refused() {
        for text in ["b,a", "a,a", ",a", "a,", "a,,b", r"\x0", r"\xzz", r"a\n", "\\"] {
            assert!(read_cuts(text).is_err(), "{text}");
        }
        let many = |count: usize| (0..count).map(|i| format!("{i:08}")).collect::<Vec<_>>().join(",");
        assert_eq!(read_cuts(&many(SHARD_CUTS_MAX)).unwrap().len(), SHARD_CUTS_MAX);
        assert!(read_cuts(&many(SHARD_CUTS_MAX + 1)).is_err());
    }

    #[test]
    fn reactors_follow_the_cpus_and_stay_in_bounds() {
        assert_eq!(reactors(0, 6), Ok(6));
        assert_eq!(reactors(0, 0), Ok(1));
        assert_eq!(reactors(0, 1000), Ok(REACTORS_MAX));
        assert_eq!(reactors(1, 6), Ok(1));
        assert!(reactors(REACTORS_MAX as u64 + 1, 6).is_err() && reactors(u64::MAX, 6).is_err());
    }

    #[test]
    fn shards_follow_reactors_or_ranges_and_none_is_without_a_range() {
        let cuts = ShardMap::Cuts(vec![b"a".to_vec(), b"b".to_vec()]);
        assert_eq!(shards(0, &ShardMap::Default, 6), Ok(6));
        assert_eq!(shards(0, &cuts, 6), Ok(3));
        assert_eq!(shards(3, &cuts, 6), Ok(3));
        assert!(shards(2, &cuts, 6).is_err() && shards(4, &cuts, 6).is_err());
        assert_eq!(shards(SHARDS_MAX as u64 - 1, &ShardMap::Default, 6), Ok(SHARDS_MAX - 1));
        assert!(shards(SHARDS_MAX as u64, &ShardMap::Default, 6).is_err());
    }
}
