//! Runs every fuzz target over its corpus and over seeded mutations of it.

#![allow(clippy::disallowed_methods, reason = "a test reads the corpus beside it")]

use super::fuzz_targets::{self, TARGETS, Target};
use braid::limits::PeerBounds;
use braid::peer::PeerMessage;
use braid::stdx::Rng;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

const MUTATIONS: u64 = 6_000;
/// A mutation that grows is cut here.
const BYTES_MAX: usize = 64 << 10;
/// Bytes that decoders branch on.
const INTERESTING: [u8; 8] = [0, 1, 0x7F, 0x80, 0xFF, 0xFE, b'\n', b' '];

fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.display().to_string(), std::fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

/// One to eight changes.
fn mutated(rng: &mut Rng, corpus: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = rng.pick(corpus).1.clone();
    for _ in 0..=rng.below(8) {
        let mut at = rng.below(bytes.len() as u64 + 1) as usize;
        // Files are mostly zeros that nobody reads.
        for _ in 0..6 {
            if bytes.get(at).is_none_or(|byte| *byte == 0) {
                at = rng.below(bytes.len() as u64 + 1) as usize;
            }
        }
        let end = bytes.len().min(at + rng.below(40) as usize);
        match rng.below(9) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, rng.next_u64() as u8),
            2 => bytes.extend_from_within(at..end),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let other = &rng.pick(corpus).1;
                let from = rng.below(other.len() as u64 + 1) as usize;
                let part = other[from..other.len().min(from + 200)].to_vec();
                bytes.splice(at..end, part);
            }
            5 if at + 4 <= bytes.len() => {
                let number = *rng.pick(&[0, 1, u32::MAX, 1 << 31, 0x0100_0000, 4096]);
                bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
            }
            6 if at < bytes.len() => bytes[at] = *rng.pick(&INTERESTING),
            7 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            _ if at < bytes.len() => bytes[at] = rng.next_u64() as u8,
            _ => {}
        }
        bytes.truncate(BYTES_MAX);
    }
    bytes
}

/// The first input under which the target panics, and what it is.
fn failure(
    target: impl Fn(&[u8]),
    corpus: &[(String, Vec<u8>)],
    mutations: u64,
) -> Option<(String, Vec<u8>)> {
    let fails = |bytes: &[u8]| catch_unwind(AssertUnwindSafe(|| target(bytes))).is_err();
    for (file, bytes) in corpus {
        if fails(bytes) {
            return Some((file.clone(), bytes.clone()));
        }
    }
    for seed in 0..mutations {
        let bytes = mutated(&mut Rng::new(seed), corpus);
        if fails(&bytes) {
            return Some((format!("mutation {seed}"), bytes));
        }
    }
    None
}

fn hold(name: &str) {
    let (_, target): &(&str, Target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target");
    let corpus = corpus(name);
    assert!(!corpus.is_empty());
    if let Some((which, bytes)) = failure(target, &corpus, MUTATIONS) {
        panic!("{name} fails on {which}; to keep it, write these bytes into its corpus: {bytes:02x?}");
    }
}

macro_rules! held {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                hold(stringify!($name));
            }
        )*

        #[test]
        fn every_target_is_run() {
            let run: Vec<&str> = vec![$(stringify!($name)),*];
            assert_eq!(TARGETS.iter().map(|(name, _)| *name).collect::<Vec<_>>(), run);
        }
    };
}

held! { client_port http2 hpack http1 metadata grpc gzip protobuf record log checkpoint peer }

#[test]
fn a_planted_panic_is_found() {
    // Found only if a mutation keeps the frame around the byte it changes.
    let planted = |bytes: &[u8]| {
        let mut inbound = braid::wire::grpc::Inbound::new(braid::wire::CallKind::BidiStream, 1000, false);
        let Some((_, mut rest)) = bytes.split_first() else { return };
        while let Ok(Some(message)) = inbound.next(&mut rest) {
            assert!(!message.contains(&0xFF), "planted");
        }
    };
    let found = failure(planted, &corpus("grpc"), MUTATIONS).expect("the planted panic is found");
    assert!(found.0.starts_with("mutation"), "{}", found.0);
}

#[test]
fn mutations_get_behind_the_checksums() {
    // The corpus' only vote is for peer 5.
    let planted = |bytes: &[u8]| {
        let Ok(recovered) = fuzz_targets::recovered(&fuzz_targets::with_log_mended(bytes.to_vec())) else {
            return;
        };
        let votes = || recovered.residents.values().filter_map(|resident| resident.hard.vote);
        assert!(votes().all(|vote| vote.get() == 5), "planted");
    };
    let found = failure(planted, &corpus("log"), MUTATIONS).expect("another vote is found");
    assert!(found.0.starts_with("mutation"), "{}", found.0);
}

#[test]
fn mutations_get_behind_the_checksums_of_frames() {
    // The corpus' only question of a read is numbered 17.
    let planted = |bytes: &[u8]| {
        let mut link = fuzz_targets::dialer(PeerBounds::PRODUCTION);
        let heard = fuzz_targets::heard(&mut link, &fuzz_targets::with_frames_mended(bytes.to_vec()));
        let another =
            |message: &PeerMessage| matches!(message, PeerMessage::ReadAt { number } if *number != 17);
        assert!(!heard.iter().any(another), "planted");
    };
    let found = failure(planted, &corpus("peer"), MUTATIONS).expect("another number is found");
    assert!(found.0.starts_with("mutation"), "{}", found.0);
}

/// Writes the corpora anew, after a format has changed.
#[test]
#[ignore = "it writes into the source tree"]
fn write_the_seeds() {
    for (target, name, bytes) in super::fuzz_seeds::all() {
        let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(name), bytes).unwrap();
    }
}
