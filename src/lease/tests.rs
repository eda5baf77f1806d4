use super::*;
use crate::api::{Error, LeaseGrantRequest};
use crate::limits;
use crate::stdx::Rng;
use crate::types::{Blob, Duration, LeaseId, Time};
use std::collections::BTreeMap;

const ELECTION: Duration = Duration::from_ms(1000);

fn request(id: i64, ttl: i64) -> LeaseGrantRequest {
    LeaseGrantRequest { id: LeaseId(id), ttl }
}

fn table(count: i64, ttl_secs: i64) -> Leases {
    let mut leases = Leases::new(ELECTION);
    for id in 1..=count {
        leases.grant(Granted { lease: LeaseId(id), ttl_secs }).expect("fresh");
    }
    leases
}

fn due(expiry: &mut Expiry, now: Time) -> Vec<i64> {
    let mut revoke = Vec::new();
    expiry.due(now, &mut revoke);
    revoke.into_iter().map(|lease| lease.0).collect()
}

#[test]
fn grants_are_checked_as_etcd_checks_them() {
    let mut leases = Leases::new(ELECTION);
    let mut rng = Rng::new(1);
    let ttl = |leases: &Leases, ttl| leases.evaluate_grant(&request(7, ttl), &mut Rng::new(1));
    for (asked, granted) in [(-5, 2), (0, 2), (1, 2), (2, 2), (3, 3), (9_000_000_000, 9_000_000_000)] {
        assert_eq!(ttl(&leases, asked), Ok(Granted { lease: LeaseId(7), ttl_secs: granted }));
    }
    assert_eq!(ttl(&leases, 9_000_000_001), Err(Error::LeaseTtlTooLarge));
    let slow = Leases::new(Duration::from_ms(5000));
    assert_eq!(ttl(&slow, 0).map(|granted| granted.ttl_secs), Ok(8), "7.5 s rounded up");

    let negative = leases.evaluate_grant(&request(-3, 10), &mut rng).expect("accepted");
    assert_eq!(leases.grant(negative), Ok(()));
    assert_eq!(leases.evaluate_grant(&request(-3, 10), &mut rng), Err(Error::LeaseExists));
    assert_eq!(leases.grant(negative), Err(Error::LeaseExists), "both were under way");
    for _ in 0..100 {
        let chosen = leases.evaluate_grant(&request(0, 10), &mut rng).expect("accepted");
        assert!(chosen.lease.0 > 0);
        assert_eq!(leases.grant(chosen), Ok(()));
    }
    assert_eq!(leases.len(), 101);
}

#[test]
fn a_revoke_is_marked_once_and_can_be_taken_back() {
    let mut leases = table(2, 10);
    assert_eq!(leases.mark_revoking(LeaseId(9)), Err(Error::LeaseNotFound));
    assert_eq!(leases.mark_revoking(LeaseId(1)), Ok(true));
    assert_eq!(leases.mark_revoking(LeaseId(1)), Ok(false));
    assert_eq!(leases.get(LeaseId(1)), Some(Lease { ttl_secs: 10, revoking: true }));
    leases.clear_all_revoking();
    assert_eq!(leases.mark_revoking(LeaseId(1)), Ok(true));
    assert!(leases.end(LeaseId(1)) && !leases.end(LeaseId(1)));
}

#[test]
fn a_lease_ends_after_its_time_and_never_before() {
    let mut expiry = Expiry::take_over(&table(0, 0), Time(0), ELECTION);
    expiry.grant(LeaseId(1), 5, Time(0));
    expiry.grant(LeaseId(2), 7, Time(0));
    assert!(due(&mut expiry, Time::from_ms(4999)).is_empty());
    assert!(due(&mut expiry, Time::from_ms(5000)).is_empty(), "checked every 500 ms");
    assert_eq!(expiry.wake_at(), Time::from_ms(5499));
    assert_eq!(expiry.renew(LeaseId(1), Time::from_ms(5100)), Renewal::Expired);
    assert_eq!(expiry.renew(LeaseId(2), Time::from_ms(5100)), Renewal::Renewed { ttl_secs: 7 });
    assert_eq!(due(&mut expiry, Time::from_ms(5499)), [1]);
    assert_eq!(expiry.renew(LeaseId(1), Time::from_ms(6000)), Renewal::Expired, "being revoked");
    expiry.end(LeaseId(1));
    assert_eq!(expiry.renew(LeaseId(1), Time::from_ms(6000)), Renewal::Missing);
    assert!(due(&mut expiry, Time::from_ms(12_099)).is_empty());
    assert_eq!(due(&mut expiry, Time::from_ms(12_599)), [2]);
}

#[test]
fn remaining_time_is_cut_towards_zero() {
    let mut expiry = Expiry::take_over(&table(0, 0), Time(0), ELECTION);
    expiry.grant(LeaseId(1), 5, Time(0));
    let left = |ms| expiry.remaining_secs(LeaseId(1), Time::from_ms(ms)).expect("is there");
    assert_eq!([0, 1, 4000, 4001, 5900, 6000].map(left), [5, 4, 1, 0, 0, -1]);
    assert_eq!(expiry.remaining_secs(LeaseId(2), Time(0)), None);
}

#[test]
fn a_failed_revoke_is_tried_again() {
    let mut expiry = Expiry::take_over(&table(1, 2), Time(0), ELECTION);
    assert_eq!(due(&mut expiry, Time::from_ms(3000)), [1], "2 s and the election timeout");
    assert_eq!(expiry.wake_at(), Time::NEVER);
    expiry.failed(LeaseId(1), Time::from_ms(3100));
    assert_eq!(expiry.renew(LeaseId(1), Time::from_ms(3200)), Renewal::Expired);
    assert!(due(&mut expiry, Time::from_ms(6099)).is_empty());
    assert_eq!(due(&mut expiry, Time::from_ms(6600)), [1]);
}

#[test]
fn revokes_are_bounded_in_number_and_rate() {
    let mut expiry = Expiry::take_over(&table(0, 0), Time(0), ELECTION);
    (1..=3000).for_each(|id| expiry.grant(LeaseId(id), 2, Time(0)));
    let mut per_second: BTreeMap<u64, usize> = BTreeMap::new();
    for ms in (2000..6000).step_by(10) {
        // Every revoke takes no time at all: the rate is the only brake.
        loop {
            let revoke = due(&mut expiry, Time::from_ms(ms));
            assert!(revoke.len() <= limits::LEASE_REVOKES_OUTSTANDING_MAX);
            assert_eq!(due(&mut expiry, Time::from_ms(ms)).len() * revoke.len(), 0, "16 are outstanding");
            if revoke.is_empty() {
                break;
            }
            *per_second.entry(ms / 1000).or_default() += revoke.len();
            revoke.into_iter().for_each(|lease| expiry.end(LeaseId(lease)));
        }
    }
    assert_eq!(per_second.into_values().collect::<Vec<_>>(), [1000, 1000, 1000]);
}

#[test]
fn a_takeover_extends_all_and_spreads_a_pile_up() {
    let (now, mut most) = (Time::from_ms(50_000), 0);
    for (count, seconds) in [(999, 1), (1000, 2), (6000, 8)] {
        let expiry = Expiry::take_over(&table(count, 10), now, ELECTION);
        let mut by_second: BTreeMap<i64, u32> = BTreeMap::new();
        for id in 1..=count {
            let left = expiry.remaining_secs(LeaseId(id), now).expect("is there");
            assert!(left >= 11, "never early");
            *by_second.entry(left).or_default() += 1;
        }
        assert!((seconds..=seconds + 2).contains(&by_second.len()), "{count}: {by_second:?}");
        let last = by_second.into_values().skip(1).max().unwrap_or(0);
        most = most.max(last);
        assert_eq!(expiry.by_expiry().len() as i64, count);
    }
    assert!(most <= limits::LEASE_REVOKES_PER_SEC_MAX as u32, "{most} in one second");
}

#[test]
fn leases_list_by_expiry() {
    let mut expiry = Expiry::take_over(&table(0, 0), Time(0), ELECTION);
    for (id, ttl) in [(5, 30), (3, 10), (4, 20)] {
        expiry.grant(LeaseId(id), ttl, Time(0));
    }
    expiry.renew(LeaseId(3), Time::from_ms(15));
    assert_eq!(expiry.by_expiry(), [LeaseId(3), LeaseId(4), LeaseId(5)]);
    expiry.renew(LeaseId(4), Time::from_ms(15_000));
    assert_eq!(expiry.by_expiry(), [LeaseId(3), LeaseId(5), LeaseId(4)]);
}

/// Random moves against a plain map from key to lease.
#[test]
fn attached_keys_equal_a_plain_map() {
    for seed in 0..50 {
        let mut rng = Rng::new(seed);
        let mut attached = Attached::default();
        let mut model: BTreeMap<Blob, LeaseId> = BTreeMap::new();
        for _ in 0..500 {
            let key = Blob::new(&[rng.below(30) as u8]);
            let from = model.get(&key).copied().unwrap_or(LeaseId::NONE);
            let to = LeaseId(rng.below(5) as i64 - 1);
            attached.change(&key, from, to);
            model.insert(key, to);
            for lease in [-1, 1, 2, 3] {
                let lease = LeaseId(lease);
                let wanted = model.iter().filter(|(_, held)| **held == lease).map(|(key, _)| key);
                assert!(attached.keys(lease).eq(wanted.clone()), "ascending and complete");
                assert_eq!(attached.count(lease), wanted.count());
            }
        }
    }
}
