//! What is said at once of a change of the members, and what where nobody leads.

use super::*;

const INVALID: &str = "etcdserver: given member URLs are invalid";

impl Cluster {
    /// Asks a member to change the members; what it is refused for.
    fn refused_change(&mut self, at: usize, method: &str, message: &impl Message) -> (u8, String) {
        let path = format!("/etcdserverpb.Cluster/Member{method}");
        self.call::<_, proto::MemberListResponse>(at, &path, message).unwrap_err()
    }

    fn refused_add(&mut self, at: usize, url: &str) -> (u8, String) {
        let add = proto::MemberAddRequest { peer_urls: vec![url.to_owned()], is_learner: true };
        self.refused_change(at, "Add", &add)
    }
}

#[test]
fn a_member_is_not_added_with_a_url_that_cannot_be() {
    let mut cluster = Cluster::new(&[1, 2, 1], 2);
    cluster.until("one serves", serving);
    for at in 0..3 {
        for url in ["", "nonsense", "http://127.0.0.1", "ftp://127.0.0.1:1", "http://127.0.0.1:1/"] {
            assert_eq!(cluster.refused_add(at, url), (3, INVALID.to_owned()), "{url}");
        }
        assert_eq!(
            cluster.refused_change(at, "Add", &proto::MemberAddRequest::default()),
            (3, INVALID.to_owned())
        );
        let (code, text) = cluster.refused_add(at, "https://127.0.0.1:1");
        assert!(code == 3 && text.starts_with(INVALID) && text.contains("TLS is not built yet"), "{text}");
    }
}

/// As with etcd, where the others wait for their client's own deadline without end.
#[test]
fn a_change_of_the_members_where_nobody_leads_is_refused_at_once_or_in_time() {
    let mut cluster = Cluster::new(&[1, 1, 1], 2);
    cluster.until("all follow", |cluster| {
        (0..3).all(|at| cluster.leaders() == [at] || cluster.follows(at).is_some())
    });
    let [leader] = cluster.leaders()[..] else { panic!("one leads: {:?}", cluster.leaders()) };
    let left = (leader + 1) % 3;
    (0..3).filter(|at| *at != left).for_each(|at| cluster.kill(at));
    cluster.until("it knows no leader", |cluster| cluster.follows(left).is_none());
    let asked = cluster.now;
    assert_eq!(cluster.refused_add(left, "http://x:1"), (14, "etcdserver: unhealthy cluster".to_owned()));
    assert_eq!(cluster.refused_add(left, "x"), (3, INVALID.to_owned()));
    assert!(cluster.now.since(asked) < Duration::from_ms(100), "at once: {:?}", cluster.now.since(asked));
    let late = (4, "context deadline exceeded".to_owned());
    assert_eq!(cluster.refused_change(left, "Remove", &proto::MemberRemoveRequest { id: 7 }), late);
    let update = proto::MemberUpdateRequest { id: 7, peer_urls: vec!["http://x:1".to_owned()] };
    assert_eq!(cluster.refused_change(left, "Update", &update), late);
    let no_leader = (14, "etcdserver: no leader".to_owned());
    assert_eq!(cluster.refused_change(left, "Promote", &proto::MemberPromoteRequest { id: 7 }), no_leader);
}
