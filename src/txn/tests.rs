use super::*;
use crate::api::*;
use crate::mvcc::Store;
use crate::types::{At, KeyRange, Sub};
use bytes::Bytes;

const LIST_MAX: usize = crate::limits::DELETE_LIST_MAX;

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn put(key: &'static str) -> Op {
    Op::Put(PutRequest { key: bytes(key), value: bytes("v"), ..PutRequest::default() })
}

fn delete(key: &'static str, range_end: &'static str) -> Op {
    Op::DeleteRange(DeleteRangeRequest { key: bytes(key), range_end: bytes(range_end), prev_kv: false })
}

fn range(key: &'static str) -> Op {
    Op::Range(RangeRequest { key: bytes(key), ..RangeRequest::default() })
}

fn txn(success: Vec<Op>) -> TxnRequest {
    TxnRequest { success, ..TxnRequest::default() }
}

fn nested(success: Vec<Op>, failure: Vec<Op>) -> Op {
    Op::Txn(TxnRequest { compare: Vec::new(), success, failure })
}

fn any_lease(_: LeaseId) -> bool {
    true
}

fn filled(keys: usize) -> Store {
    let mut store = Store::new();
    for key in 0..keys {
        let at = At { main: Revision(2 + key as u64), sub: Sub(0) };
        store.put(at, format!("key{key:05}").as_bytes(), Blob::new(b"value"), LeaseId::NONE);
    }
    store
}

#[test]
fn duplicates_are_what_etcd_takes_for_them() {
    let duplicate = Err(Error::DuplicateKey);
    for (ops, expected) in [
        (vec![put("a"), put("b")], Ok(())),
        (vec![put("a"), put("a")], duplicate.clone()),
        (vec![put("b"), delete("a", "c")], duplicate.clone()),
        (vec![delete("a", "c"), put("c")], Ok(())),
        (vec![delete("b", "c"), delete("a", "b"), put("b")], duplicate.clone()),
        (vec![delete("a", ""), put("a\0")], Ok(())),
        (vec![delete("a", "d"), delete("b", "")], Ok(())),
        (vec![delete("a", "d"), delete("b", ""), put("c")], duplicate.clone()),
        (vec![put("a"), nested(vec![put("a")], vec![])], duplicate.clone()),
        (vec![put("a"), nested(vec![], vec![delete("a", "")])], duplicate.clone()),
        (vec![nested(vec![put("a")], vec![put("a")])], Ok(())),
        (vec![nested(vec![put("a")], vec![]), nested(vec![], vec![put("a")])], duplicate.clone()),
        // Laws of etcd alone: the order of siblings counts, and "from this key on" covers nothing.
        (vec![nested(vec![put("a")], vec![]), nested(vec![delete("a", "")], vec![])], Ok(())),
        (vec![nested(vec![delete("a", "")], vec![]), nested(vec![put("a")], vec![])], duplicate),
        (vec![delete("a", "\0"), put("b")], Ok(())),
    ] {
        let request = txn(ops);
        assert_eq!(check_txn(&request, 128), expected, "{request:?}");
        let other = TxnRequest { failure: request.success, ..TxnRequest::default() };
        assert_eq!(check_txn(&other, 128), expected, "{other:?}");
    }
}

#[test]
fn nested_transactions_share_what_the_longest_list_leaves() {
    let level = |inner| txn(vec![nested(inner, vec![]), range("a"), range("b")]);
    assert_eq!(check_txn(&level(vec![range("c"), range("d")]), 5), Ok(()));
    assert_eq!(check_txn(&level(vec![range("c"), range("d")]), 4), Err(Error::TooManyOps));
    let mut deep = txn(vec![]);
    for _ in 0..128 {
        deep = txn(vec![Op::Txn(deep)]);
    }
    assert_eq!(check_txn(&deep, 128), Ok(()));
    assert_eq!(check_txn(&txn(vec![Op::Txn(deep)]), 1_000), Err(Error::TooManyOps));
}

#[test]
fn the_first_fault_in_the_request_is_the_one_named() {
    let faulty =
        PutRequest { ignore_value: true, ignore_lease: true, lease: LeaseId(1), ..PutRequest::default() };
    assert_eq!(check_put(&faulty), Err(Error::EmptyKey));
    let faulty = PutRequest { key: bytes("k"), value: bytes("v"), ..faulty };
    assert_eq!(check_put(&faulty), Err(Error::ValueProvided));
    assert_eq!(check_put(&PutRequest { value: Bytes::new(), ..faulty }), Err(Error::LeaseProvided));
    assert_eq!(check_txn(&txn(vec![put("a"), put("a"), Op::Empty]), 128), Err(Error::KeyNotFound));
    let sorted =
        RangeRequest { key: bytes("k"), sort_order: 2, min_mod_revision: 1, ..RangeRequest::default() };
    assert_eq!(check_stream(&sorted).unwrap_err().code(), Code::Unimplemented);
    let unknown = RangeRequest { sort_target: 5, ..sorted };
    assert_eq!(check_stream(&unknown), Err(Error::InvalidSortOption));
}

#[test]
fn the_dearer_branch_is_the_cost() {
    let request = TxnRequest {
        compare: Vec::new(),
        success: vec![put("a"), delete("b", ""), range("c")],
        failure: vec![nested(vec![put("aa"), put("b")], vec![put("x")])],
    };
    assert_eq!(cost_txn(&request), 2 * 256 + 5);
    assert_eq!(cost_txn(&txn(vec![delete("b", ""), range("c")])), 0);
}

#[test]
fn the_footprint_names_every_branch() {
    let compare = Compare {
        result: CompareResult::Equal,
        target: CompareTarget::Version(0),
        key: bytes("c"),
        range_end: bytes("\0"),
    };
    let request = TxnRequest {
        compare: vec![compare],
        success: vec![put("p")],
        failure: vec![nested(vec![range("r")], vec![delete("d", "e")])],
    };
    let expected = vec![
        KeyRange::From(bytes("c")),
        KeyRange::One(bytes("p")),
        KeyRange::One(bytes("r")),
        KeyRange::Between(bytes("d"), bytes("e")),
    ];
    assert_eq!(footprint(&request), expected);
}

#[test]
fn an_epoch_that_ends_leaves_the_store_as_it_was() {
    let mut store = filled(3);
    let (before, newest) = (store.sizes(), store.newest_revision());
    let request = txn(vec![range("key00001"), put("new"), delete("key00000", "")]);
    let result =
        evaluate_txn(&mut store, &request, Revision(4), LIST_MAX, &any_lease, &mut || Err(EpochEnded));
    assert_eq!(result.unwrap_err(), Refusal::Ended);
    let all = DeleteRangeRequest { key: bytes("k"), range_end: bytes("\0"), prev_kv: false };
    let result = evaluate_delete_range(&mut store, &all, Revision(4), LIST_MAX, &mut || Err(EpochEnded));
    assert_eq!(result.unwrap_err(), Refusal::Ended);
    assert_eq!((store.sizes(), store.newest_revision()), (before, newest));
}

#[test]
fn what_changes_nothing_takes_no_revision() {
    let mut store = filled(3);
    let mut never = || panic!("a revision was taken");
    let request = txn(vec![range("key00001"), delete("absent", ""), nested(vec![delete("z", "\0")], vec![])]);
    let done = evaluate_txn(&mut store, &request, Revision(9), LIST_MAX, &any_lease, &mut never).unwrap();
    assert!(done.effect.is_none() && done.leases.is_empty());
    assert_eq!(done.reply.revision, Revision(9));
}

#[test]
fn headers_before_the_first_change_show_the_revision_before_it() {
    // Between reading the current revision, 4, and taking 8, other shards took what lies between.
    let mut store = filled(3);
    let request = txn(vec![range("key00001"), nested(vec![put("new")], vec![]), delete("absent", "")]);
    let mut take = || Ok(Revision(8));
    let reply =
        evaluate_txn(&mut store, &request, Revision(4), LIST_MAX, &any_lease, &mut take).unwrap().reply;
    assert_eq!(reply.revision, Revision(8));
    let [OpReply::Range(range), OpReply::Txn(nested), OpReply::DeleteRange(delete)] = &reply.responses[..]
    else {
        panic!("{reply:?}");
    };
    let OpReply::Put(put) = &nested.responses[0] else { panic!("{nested:?}") };
    let shown = [range.revision, nested.revision, put.revision, delete.revision];
    assert_eq!(shown, [Revision(7), Revision::NONE, Revision(8), Revision(8)]);
}

#[test]
fn a_stream_aims_its_chunks_at_the_size_of_a_request() {
    let store = filled(2_000);
    let request = RangeRequest { key: bytes("k"), range_end: bytes("l"), ..RangeRequest::default() };
    let mut stream = RangeStream::open(request, Revision(2_001), Revision(2_001));
    let mut chunks = Vec::new();
    while let Some(next) = stream.next() {
        let Next::Read(request, counting) = next else { panic!("keys are read in their order") };
        let mut cursor = RangeCursor::new(request.clone(), Revision(2_001));
        assert_eq!(cursor.step(&store, crate::mvcc::Budget::UNBOUNDED, counting), Progress::Done);
        let reply = finish_range(&request, Revision(2_001), vec![cursor.into_part()]);
        let size = reply.kvs.len() * 20;
        chunks.push(stream.chunk(reply, size, 4_000).kvs.len());
    }
    // 10 keys are 200 bytes; between half the target and twice the target a size is kept.
    assert_eq!(chunks[..6], [10, 20, 40, 80, 160, 160]);
    assert_eq!(chunks.iter().sum::<usize>(), 2_000);
}

/// A target without an order sorts what Range shows; the chunks of a stream amount to the same.
#[test]
fn a_stream_with_a_target_is_sorted_as_its_range_is() {
    let mut store = Store::new();
    for n in 0..500u64 {
        let (at, key) = (At { main: Revision(n + 2), sub: Sub(0) }, format!("k{:03}", n * 7 % 500));
        store.put(at, key.as_bytes(), Blob::new(b"value"), LeaseId::NONE);
    }
    for (limit, keys) in [(0, 500), (120, 120)] {
        let request = RangeRequest {
            key: bytes("k"),
            range_end: bytes("l"),
            sort_target: 2,
            limit,
            ..RangeRequest::default()
        };
        let at = Revision(501);
        let read = |request: &RangeRequest, counting| {
            let mut cursor = RangeCursor::new(request.clone(), at);
            while cursor.step(&store, crate::mvcc::Budget::UNBOUNDED, counting) != Progress::Done {}
            finish_range(request, at, vec![cursor.into_part()])
        };
        let whole = read(&request, Counting::Total);
        let mut stream = RangeStream::open(request.clone(), at, at);
        let (mut chunks, mut merged) = (vec![], vec![]);
        while let Some(next) = stream.next() {
            let chunk = match next {
                Next::Read(request, counting) => stream.chunk(read(&request, counting), 1, 1_000),
                Next::Piece => stream.piece(1_000),
            };
            merged.extend(chunk.kvs.clone());
            chunks.push(chunk);
        }
        assert_eq!((merged.len(), &merged), (keys, &whole.kvs));
        assert!(chunks.len() > 2 && stream.kept_bytes() == 0);
        let last = chunks.pop().expect("there are several");
        assert_eq!((last.more, last.count, last.revision), (whole.more, whole.count, whole.revision));
        assert!(chunks.iter().all(|chunk| (chunk.count, chunk.revision) == (0, Revision::NONE)));
        assert_eq!(RangeStream::open(request.clone(), at, at).into_request(), request);
    }
}

/// Prints what a request costs: `cargo test --release --lib txn::tests::costs -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
#[expect(clippy::disallowed_methods, reason = "measuring needs a clock")]
fn costs() {
    const KEYS: usize = 1_000;
    const ROUNDS: usize = 200;
    let mut store = filled(KEYS);
    let mut revision = Revision(KEYS as u64 + 1);
    let keys: Vec<Bytes> = (0..KEYS).map(|key| Bytes::from(format!("key{:05}", key * 7919 % KEYS))).collect();
    let mut measure = |name: &str, run: &mut dyn FnMut(&mut Store, &Bytes, &mut Revision)| {
        let mut best = u128::MAX; // What else runs on the machine only ever adds.
        for _ in 0..ROUNDS {
            let start = std::time::Instant::now();
            for key in &keys {
                run(&mut store, key, &mut revision);
            }
            best = best.min(start.elapsed().as_nanos());
            store.settle(revision);
            store.compact(revision);
            while !store.compact_slice(1_000) {}
        }
        println!("{name}: {:.0} ns", best as f64 / KEYS as f64);
    };
    let value = bytes("value");
    measure("the store's put alone", &mut |store, key, revision| {
        *revision = revision.next();
        store.put(At { main: *revision, sub: Sub(0) }, key, Blob::new(&value), LeaseId::NONE);
    });
    measure("the store's newest_meta and put alone", &mut |store, key, revision| {
        assert!(store.newest_meta(key).is_some());
        *revision = revision.next();
        store.put(At { main: *revision, sub: Sub(0) }, key, Blob::new(&value), LeaseId::NONE);
    });
    measure("evaluate_put", &mut |store, key, revision| {
        let request = PutRequest { key: key.clone(), value: value.clone(), ..PutRequest::default() };
        check_put(&request).unwrap();
        let mut take = || {
            *revision = revision.next();
            Ok(*revision)
        };
        let done = evaluate_put(store, &request, &any_lease, &mut take).unwrap();
        assert_eq!(done.effect.unwrap().changes.len(), 1);
    });
    measure("evaluate_txn of Kubernetes", &mut |store, key, revision| {
        let current = *revision;
        let seen = store.newest_meta(key).unwrap().mod_revision.wire();
        let request = TxnRequest {
            compare: vec![Compare {
                result: CompareResult::Equal,
                target: CompareTarget::Mod(seen),
                key: key.clone(),
                range_end: Bytes::new(),
            }],
            success: vec![Op::Put(PutRequest {
                key: key.clone(),
                value: value.clone(),
                ..PutRequest::default()
            })],
            failure: vec![Op::Range(RangeRequest { key: key.clone(), ..RangeRequest::default() })],
        };
        check_txn(&request, 128).unwrap();
        let mut take = || {
            *revision = revision.next();
            Ok(*revision)
        };
        let done = evaluate_txn(store, &request, current, LIST_MAX, &any_lease, &mut take).unwrap();
        assert!(done.reply.succeeded);
    });
}
