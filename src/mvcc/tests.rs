use super::*;

fn at(main: u64) -> At {
    At { main: Revision(main), sub: Sub(0) }
}

#[test]
fn a_version_counts_from_the_put_that_created_the_key() {
    let mut store = Store::new();
    assert_eq!(store.put(at(2), b"a", Blob::new(b"1"), LeaseId::NONE), None);
    assert_eq!(store.put(at(3), b"a", Blob::new(b"2"), LeaseId(7)).map(|kv| kv.version), Some(1));
    assert_eq!(store.newest(b"a").map(|kv| (kv.version, kv.create_revision)), Some((2, Revision(2))));
    assert!(store.delete(at(4), b"a").is_some() && store.delete(at(5), b"a").is_none());
    store.put(at(5), b"a", Blob::new(b"3"), LeaseId::NONE);
    assert_eq!(store.newest(b"a").map(|kv| (kv.version, kv.create_revision)), Some((1, Revision(5))));
    assert_eq!(store.get(b"a", Revision(4)), None);
    assert_eq!(store.get(b"a", Revision(3)).map(|kv| kv.lease), Some(LeaseId(7)));
}
