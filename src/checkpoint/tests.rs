//! Properties of the format: what goes in comes out, and nothing else does.

use super::*;
use crate::log::Buffer;
use crate::mvcc::{Budget, Store, StoredVersion};
use crate::record::{CutRecord, EpochRecord, MemberChange, MemberRecord, RaftIdRecord};
use crate::stdx::{Rng, VersionMismatch, dump, read_dump};
use crate::types::{At, Blob, Event, KeyRange, KeyValue, LeaseId, Revision, Sub};

fn meta(revision: u64) -> Meta {
    let epoch = EpochRecord { term: 3, attempt: 1 };
    let control = ControlState {
        index: 11,
        cluster: 77,
        token: "etcd-cluster".into(),
        members: vec![MemberRecord {
            id: 5,
            directory: 0x0123_4567_89AB_CDEF,
            raft_ids: vec![RaftIdRecord { log: 0, incarnation: 0, id: 50 }],
            name: "a".into(),
            peer_urls: vec!["http://10.0.0.1:2380".into()],
            client_urls: vec![],
            is_learner: false,
        }],
        intents: vec![IntentRecord { member: 5, change: MemberChange::Promoting }],
        removed: vec![6],
        feature_level: 1,
        cuts: vec![CutRecord { start: b"/registry/".to_vec(), shard: 1 }],
        leases: vec![LeaseRecord { lease: -4, ttl_secs: 60 }],
        alarms: vec![AlarmRecord { member: 5, alarm: 1 }],
        compact_revision: 2,
    };
    Meta {
        shard: 0,
        home: 1,
        file: 9,
        chain: vec![],
        revision,
        compacted: 1,
        index: 12,
        term: 3,
        voters: vec![50, 60, 70],
        learners: vec![80],
        fence: epoch,
        seal: epoch,
        seal_prefix: 4,
        epoch,
        map_version: 1,
        control: Some(control),
    }
}

fn store(seed: u64, revisions: u64, value_bytes_max: u64) -> Store {
    let mut rng = Rng::new(seed);
    let mut store = Store::new();
    for main in 2..2 + revisions {
        for sub in 0..1 + rng.below(3) as u32 {
            let at = At { main: Revision(main), sub: Sub(sub) };
            // A key is changed once in a revision.
            let key = format!("key{:04}", rng.below(200) * 3 + u64::from(sub));
            if rng.chance(1, 5) && store.newest(key.as_bytes()).is_some() {
                store.delete(at, key.as_bytes());
            } else {
                let value = vec![rng.next_u64() as u8; rng.below(value_bytes_max) as usize];
                let lease = LeaseId(rng.below(3) as i64 - 1);
                store.put(at, key.as_bytes(), Blob::new(&value), lease);
            }
        }
    }
    store.settle(Revision(1 + revisions));
    store
}

fn history(store: &Store, upto: u64) -> Vec<(At, Event)> {
    let history = store.history(At::default(), Revision(upto), Budget::UNBOUNDED);
    history.changes.into_iter().map(|(at, change)| (at, change.event)).collect()
}

fn file(meta: &Meta, changes: &[(At, Event)]) -> Vec<u8> {
    written(meta, changes).0
}

fn written(meta: &Meta, changes: &[(At, Event)]) -> (Vec<u8>, WrittenFile) {
    let mut blocks: Vec<Buffer> = Vec::new();
    let mut writer = Writer::new(meta, &mut blocks);
    for (at, event) in changes {
        writer.version(*at, event, &mut blocks);
    }
    let written = writer.finish(&mut blocks);
    for block in &blocks {
        assert!(block.len() <= 128 << 10 && block.len().is_multiple_of(4096));
    }
    let bytes: Vec<u8> = blocks.iter().flat_map(|block| block.to_vec()).collect();
    assert_eq!(written.bytes, bytes.len() as u64);
    (bytes, written)
}

fn event(version: &StoredVersion<'_>) -> Event {
    let (key, mod_revision) = (Blob::new(version.key), version.at.main);
    let Some(value) = version.value else { return Event::Delete { key, mod_revision } };
    let StoredVersion { create_revision, version, lease, .. } = *version;
    Event::Put(KeyValue { key, value: Blob::new(value), create_revision, mod_revision, version, lease })
}

type Read = Result<(Meta, Vec<(At, Event)>, Footer), CheckpointDamage>;

fn read(bytes: &[u8], mut piece: impl FnMut() -> usize) -> Read {
    let mut reader = Reader::new();
    let (mut meta, mut changes) = (None, Vec::new());
    let mut rest = bytes;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(piece().min(rest.len()));
        reader.feed(now, &mut |item| match item {
            Item::Meta(found) => meta = Some(*found),
            Item::Version(version) => changes.push((version.at, event(&version))),
        })?;
        rest = later;
    }
    let footer = reader.finish()?;
    Ok((meta.unwrap(), changes, footer))
}

#[test]
fn what_goes_in_comes_out_however_the_bytes_are_cut() {
    for seed in 0..12 {
        let mut rng = Rng::new(seed);
        let store = store(seed, 300, if seed % 3 == 0 { 4000 } else { 300 });
        let changes = history(&store, 301);
        let (bytes, written) = written(&meta(301), &changes);
        let footer = Footer { versions: changes.len() as u64, hash: written.hash };
        let whole = read(&bytes, || usize::MAX).unwrap();
        assert_eq!(whole, (meta(301), changes, footer));
        let cuts = read(&bytes, || 1 + rng.below(9000) as usize).unwrap();
        assert_eq!(cuts, whole);
    }
}

#[test]
fn a_value_larger_than_a_block_comes_back() {
    let mut store = Store::new();
    for main in 2..6 {
        let value = Blob::new(&vec![main as u8; 300_000]);
        store.put(At { main: Revision(main), sub: Sub(0) }, b"k", value, LeaseId::NONE);
    }
    store.settle(Revision(5));
    let changes = history(&store, 5);
    let bytes = file(&meta(5), &changes);
    assert_eq!(read(&bytes, || usize::MAX).unwrap().1, changes);
    assert_eq!(read(&bytes, || 1000).unwrap().1, changes);
}

#[test]
fn a_restored_store_answers_as_the_one_written() {
    let mut before = store(4, 400, 200);
    before.compact(Revision(150));
    while !before.compact_slice(50) {}
    let upto = 350;
    let bytes = file(&Meta { compacted: 150, ..meta(upto) }, &history(&before, upto));
    let mut after = Store::restoring(Revision(150), Revision(upto));
    let mut reader = Reader::new();
    let restore = &mut |item: Item<'_>| {
        if let Item::Version(version) = item {
            after.restore(&version);
        }
    };
    reader.feed(&bytes, restore).unwrap();
    reader.finish().unwrap();
    let range = KeyRange::everything();
    for at in [150, 151, 200, 349, 350] {
        let slice = |store: &Store| store.range(&range, Revision(at), None, Budget::UNBOUNDED);
        assert!(!slice(&before).kvs.is_empty());
        assert_eq!(slice(&after), slice(&before), "at {at}");
    }
    assert_eq!(history(&after, upto), history(&before, upto));
}

#[test]
fn the_bytes_of_a_checkpoint_are_these() {
    let mut store = Store::new();
    let at = |main, sub| At { main: Revision(main), sub: Sub(sub) };
    store.put(at(2, 0), b"a", Blob::new(b"one"), LeaseId(-4));
    store.put(at(2, 1), b"b", Blob::new(b""), LeaseId::NONE);
    store.delete(at(3, 0), b"b");
    store.settle(Revision(3));
    let chain = vec![LinkRecord { home: 0, file: 4, revision: 1, bytes: 8192, hash: 0x1122_3344_5566_7788 }];
    let bytes = file(&Meta { control: None, chain, ..meta(3) }, &history(&store, 3));
    assert_eq!(dump(&bytes), include_str!("golden.hex"));
    assert_eq!(dump(&file(&meta(3), &[])), include_str!("control.hex"), "what the control shard adds");
}

/// The length of a file of one body block, with its footer.
const ONE_BODY_BLOCK: usize = 2 * 4096;

#[test]
fn checkpoints_of_these_bytes_are_read() {
    let control = read(&read_dump(include_str!("control.hex"), ONE_BODY_BLOCK), || usize::MAX).unwrap();
    assert_eq!(control.0, meta(3));
    let data = read(&read_dump(include_str!("golden.hex"), ONE_BODY_BLOCK), || usize::MAX).unwrap();
    assert_eq!((data.0.control, data.0.learners, data.1.len()), (None, vec![80], 3));
}

#[test]
fn every_changed_byte_and_every_cut_is_noticed() {
    let changes = history(&store(9, 20, 100), 21);
    let good = file(&meta(21), &changes);
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        assert!(read(&bytes, || usize::MAX).is_err(), "byte {at}");
    }
    for cut in (0..good.len()).step_by(512) {
        assert!(read(&good[..cut], || usize::MAX).is_err(), "cut at {cut}");
    }
    let long = [&good[..], &[0]].concat();
    assert_eq!(read(&long, || usize::MAX).unwrap_err(), CheckpointDamage::Long);
}

#[test]
fn damage_behind_right_checksums_is_an_error_and_no_panic() {
    let good = file(&meta(21), &history(&store(9, 20, 100), 21));
    let mut errors = 0;
    for seed in 0..4000 {
        let mut rng = Rng::new(seed);
        let mut bytes = good.clone();
        for _ in 0..1 + rng.below(3) {
            let at = if rng.chance(1, 4) { 12 + rng.below(20) } else { 32 + rng.below(1500) };
            bytes[at as usize] =
                if rng.chance(1, 2) { rng.next_u64() as u8 } else { *rng.pick(&[0, 1, 255]) };
        }
        repair(&mut bytes);
        errors += u64::from(read(&bytes, || usize::MAX).is_err());
    }
    assert!((1000..4000).contains(&errors), "{errors}");
}

/// Makes the checksums of the two blocks right again.
fn repair(bytes: &mut [u8]) {
    let footer = bytes.len() - 4096;
    let (body, foot) = bytes.split_at_mut(footer);
    let crc = crc32c::crc32c(&body[12..]);
    body[8..12].copy_from_slice(&crc.to_le_bytes());
    foot[20..24].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32c::crc32c(&foot[12..]);
    foot[8..12].copy_from_slice(&crc.to_le_bytes());
}

fn link(file: u64, revision: u64, hash: u64) -> LinkRecord {
    LinkRecord { home: 1, file, revision, bytes: 8192, hash }
}

#[test]
fn a_delta_holds_nothing_that_the_files_before_it_hold() {
    let changes = history(&store(9, 20, 100), 21);
    let delta = Meta { chain: vec![link(7, 3, 1), link(8, 11, 2)], ..meta(21) };
    let above: Vec<(At, Event)> = changes.iter().filter(|(at, _)| at.main > Revision(11)).cloned().collect();
    let bytes = file(&delta, &above);
    assert_eq!(read(&bytes, || usize::MAX).unwrap().1, above);
    let caught = std::panic::catch_unwind(|| file(&delta, &changes));
    assert!(caught.is_err(), "the writer takes none below its chain's revision");
}

#[test]
fn the_hash_is_that_of_all_that_a_file_stands_on() {
    let changes = history(&store(9, 20, 100), 21);
    let hash = |meta: &Meta, changes: &[(At, Event)]| written(meta, changes).1.hash;
    let after = |hash| Meta { chain: vec![link(8, 1, hash)], ..meta(21) };
    let all = [
        hash(&meta(21), &changes),
        hash(&meta(21), &changes[1..]),
        hash(&Meta { file: 10, ..meta(21) }, &changes),
        hash(&after(5), &changes),
        hash(&after(6), &changes),
    ];
    assert_eq!(std::collections::BTreeSet::from(all).len(), all.len());
}

#[test]
fn a_newer_or_older_format_is_named() {
    for (format, told) in [
        (
            7,
            "the checkpoint was written by a newer program: it has format 7, and this program knows formats up to 3.",
        ),
        (2, "the checkpoint has format 2, of a version before the first release,"),
    ] {
        let mut bytes = file(&meta(1), &[]);
        bytes[24] = format;
        repair(&mut bytes);
        let damage = read(&bytes, || usize::MAX).unwrap_err();
        let found = u64::from(format);
        assert_eq!(damage, CheckpointDamage::Format(VersionMismatch { what: "format", found, known: 3 }));
        assert!(damage.to_string().starts_with(told), "{damage}");
    }
}

#[test]
fn file_names_are_read_as_they_are_written() {
    let name = CheckpointName { shard: ShardId(12), home: 3, file: 255 };
    assert_eq!(name.to_string(), "0012-003-00000000000000ff.checkpoint");
    assert_eq!(CheckpointName::parse(&name.to_string()), Some(name));
    assert_eq!(CheckpointName::parse(&name.unfinished()), None);
    assert_eq!(CheckpointName::parse("12-3-ff.checkpoint"), None);
}

#[test]
fn a_deleted_key_is_no_empty_one() {
    let delete = Event::Delete { key: Blob::new(b"k"), mod_revision: Revision(2) };
    let change = (At { main: Revision(2), sub: Sub(0) }, delete);
    let bytes = file(&meta(2), std::slice::from_ref(&change));
    assert_eq!(read(&bytes, || 1).unwrap().1, [change]);
}
