//! What is archived comes back, in these bytes.

use super::*;

fn sample() -> Entry {
    Entry::Batch(Batch {
        epoch: EpochRecord { term: 3, attempt: 7 },
        settled: 41,
        writes: vec![Write {
            revision: 42,
            parts: 2,
            more: false,
            changes: vec![
                Change::Put { sub: 0, key: b"a".to_vec(), value: b"1".to_vec(), lease: -5 },
                Change::Delete { sub: 1, key: b"b".to_vec() },
                Change::LeaseEnd { lease: 9 },
            ],
        }],
    })
}

#[test]
fn an_entry_comes_back_as_it_went() {
    let payload = Payload::copy_of(Payload::of(&sample()).bytes());
    assert_eq!(payload.to_entry().unwrap(), sample());
    assert!(matches!(payload.entry().unwrap(), ArchivedEntry::Batch(batch) if batch.settled == 41));
}

#[test]
fn a_batch_of_effects_is_that_of_its_writes() {
    let changes = vec![
        EffectChange::Put { sub: Sub(0), key: Blob::new(b"a"), value: Blob::new(b"1"), lease: LeaseId(-5) },
        EffectChange::Delete { sub: Sub(1), key: Blob::new(b"b") },
        EffectChange::DeleteRange { sub: Sub(2), key: Blob::new(b"c"), end: Blob::new(b"dd"), count: 3 },
        EffectChange::LeaseEnd { lease: LeaseId(9) },
    ];
    let effect = Effect { revision: Revision(42), parts: 2, more: false, changes };
    let made =
        batch(Epoch { term: Term(3), attempt: 7 }, Revision(41), &effect.pieces(1 << 20).collect::<Vec<_>>());
    let Entry::Batch(mut batch) = sample() else { unreachable!("the sample is a batch") };
    let range = Change::DeleteRange { sub: 2, key: b"c".to_vec(), end: b"dd".to_vec(), count: 3 };
    batch.writes[0].changes.insert(2, range);
    assert_eq!(made, Payload::of(&Entry::Batch(batch)), "what is borrowed is archived as what owns it");
}

#[test]
fn a_large_effect_is_cut_and_nothing_of_it_is_lost() {
    let changes = (0..100).map(|n| EffectChange::Delete { sub: Sub(n), key: Blob::new(&[7; 40]) });
    let effect = Effect { revision: Revision(5), parts: 3, more: false, changes: changes.collect() };
    for bytes_max in [1, 500, 1000, 5000, 1 << 20] {
        let pieces: Vec<Piece> = effect.pieces(bytes_max).collect();
        let cut: Vec<EffectChange> = pieces.iter().flat_map(|piece| piece.changes).cloned().collect();
        assert_eq!(cut, effect.changes);
        assert!(pieces.iter().all(|piece| piece.changes.len() == 1 || piece.bytes() <= bytes_max));
        let (last, before) = pieces.split_last().unwrap();
        assert!(!last.more && before.iter().all(|piece| piece.more));
    }
}

fn member(id: u64) -> MemberRecord {
    MemberRecord {
        id,
        directory: 0x0123_4567_89AB_CDEF,
        raft_ids: vec![RaftIdRecord { log: 2, incarnation: 1, id: 0x1122_3344_5566_7788 }],
        name: "a".into(),
        peer_urls: vec!["http://p".into()],
        client_urls: vec!["http://c".into()],
        is_learner: true,
    }
}

/// One of each kind, with nothing left out.
fn all() -> Vec<(&'static str, Entry)> {
    let epoch = EpochRecord { term: 3, attempt: 7 };
    let range = Change::DeleteRange { sub: 2, key: b"c".to_vec(), end: b"d".to_vec(), count: 300 };
    let cut = Write { revision: 43, parts: 1, more: true, changes: vec![range] };
    let control = |control| Entry::Control { epoch, settled: 41, control };
    let cuts = vec![CutRecord { start: vec![], shard: 1 }, CutRecord { start: b"m".to_vec(), shard: 2 }];
    let members = vec![member(5)];
    let bootstrap =
        ControlEntry::Bootstrap { cluster: 9, token: "t".into(), members, cuts, feature_level: 1 };
    let MemberRecord { directory, raft_ids, name, client_urls, .. } = member(5);
    let attributes = ControlEntry::MemberAttributes { member: 5, directory, name, client_urls, raft_ids };
    vec![
        ("batch", sample()),
        ("batch_cut", Entry::Batch(Batch { epoch, settled: 41, writes: vec![cut] })),
        ("fence", Entry::Fence(epoch)),
        ("seal", Entry::Seal { epoch, prefix: 41 }),
        ("conf_change_voter", Entry::ConfChange(ConfChange::AddVoter(6))),
        ("conf_change_learner", Entry::ConfChange(ConfChange::AddLearner(6))),
        ("conf_change_remove", Entry::ConfChange(ConfChange::Remove(6))),
        ("bootstrap", control(bootstrap)),
        ("member_attributes", control(attributes)),
        ("intent_adding", control(ControlEntry::Intent(Intent::Adding(Box::new(member(6)))))),
        ("intent_promoting", control(ControlEntry::Intent(Intent::Promoting { member: 6 }))),
        ("intent_removing", control(ControlEntry::Intent(Intent::Removing { member: 6 }))),
        ("intent_done", control(ControlEntry::IntentDone { member: 6, change: MemberChange::Removing })),
        ("feature_level", control(ControlEntry::FeatureLevel { level: 2 })),
        ("lease_grant", control(ControlEntry::LeaseGrant { lease: -5, ttl_secs: 60 })),
        ("lease_end", control(ControlEntry::LeaseEnd { lease: -5 })),
        ("compact", control(ControlEntry::Compact { revision: 40 })),
        ("alarm_on", control(ControlEntry::AlarmOn { member: 5, alarm: 1 })),
        ("alarm_off", control(ControlEntry::AlarmOff { member: 5, alarm: 1 })),
        (
            "member_urls",
            control(ControlEntry::MemberUrls { member: 6, peer_urls: vec!["http://a:1".into()] }),
        ),
        ("stand_alone", control(ControlEntry::StandAlone { member: 6 })),
    ]
}

/// A name, then lines of 16 bytes, for each entry.
#[test]
fn the_bytes_of_entries_are_these() {
    let mut text = String::new();
    for (name, entry) in all() {
        text.push_str(&format!("{name}\n"));
        for line in Payload::of(&entry).bytes().chunks(16) {
            let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
            text.push_str(&format!(" {}\n", hex.join(" ")));
        }
    }
    assert_eq!(text, include_str!("golden.hex"));
}

#[test]
fn entries_of_these_bytes_are_read() {
    let mut found: Vec<(&str, Vec<u8>)> = vec![];
    for line in include_str!("golden.hex").lines() {
        match line.strip_prefix(' ') {
            None => found.push((line, vec![])),
            Some(hex) => {
                let bytes = hex.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap());
                found.last_mut().unwrap().1.extend(bytes);
            }
        }
    }
    let found: Vec<_> =
        found.iter().map(|(name, bytes)| (*name, Payload::copy_of(bytes).to_entry().unwrap())).collect();
    assert_eq!(found, all());
}

#[test]
fn the_level_that_an_entry_sets_is_seen_without_reading_it() {
    let levels = all().into_iter().filter_map(|(name, entry)| {
        let payload = Payload::of(&entry);
        let ArchivedEntry::Control { control, .. } = payload.entry().unwrap() else { return None };
        Some((name, control.feature_level()?))
    });
    assert_eq!(levels.collect::<Vec<_>>(), [("bootstrap", 1), ("feature_level", 2)]);
}

#[test]
fn damaged_payloads_are_refused_not_trusted() {
    let good = Payload::of(&sample());
    for cut in 0..good.bytes().len() {
        let _ = Payload::copy_of(&good.bytes()[..cut]).to_entry();
    }
    for at in 0..good.bytes().len() {
        for bit in 0..8 {
            let mut bytes = good.bytes().to_vec();
            bytes[at] ^= 1 << bit;
            let _ = Payload::copy_of(&bytes).to_entry();
        }
    }
    assert_eq!(Payload::copy_of(&[]).to_entry(), Err(InvalidPayload));
}
