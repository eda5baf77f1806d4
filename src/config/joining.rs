//! A member that joins a cluster: what its flags name, against what the cluster says of itself. In etcd's words.
//!
//! Members are told from each other by their peer URLs, which are compared as text (etcd would also resolve names):
//! the names of the others are in no identity.

use super::InitialMember;
use super::url::Url;
use crate::types::{ClusterId, MemberId};
use std::fmt;

/// The cluster that is joined, as the flags name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joining {
    own: InitialMember,
    /// All, with this one: in the order of their first URLs (etcd's law, which shows in its errors).
    members: Vec<InitialMember>,
}

/// A cluster as one of its members lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedCluster {
    pub id: ClusterId,
    pub members: Vec<ListedMember>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedMember {
    pub id: MemberId,
    /// Empty until the member has published it, as its client URLs are.
    pub name: String,
    pub peer_urls: Vec<String>,
    pub client_urls: Vec<String>,
    pub is_learner: bool,
}

impl Joining {
    pub(super) fn new(own: &InitialMember, members: &[InitialMember]) -> Joining {
        let mut members = members.to_vec();
        members.sort_by(|one, other| one.peer_urls.cmp(&other.peer_urls));
        assert!(members.contains(own), "who joins is a member");
        Joining { own: own.clone(), members }
    }

    /// The URLs of the other members, sorted.
    pub fn others(&self) -> Vec<&Url> {
        let others = self.members.iter().filter(|member| member.name != self.own.name);
        let mut urls: Vec<&Url> = others.flat_map(|member| &member.peer_urls).collect();
        urls.sort();
        urls
    }

    /// Finds this member in a cluster's list. The error says where the flags and the list contradict each other.
    pub fn find<'a>(&self, listed: &'a ListedCluster) -> Result<&'a ListedMember, String> {
        self.try_find(listed).map_err(|why| format!("error validating peerURLs {listed}: {why}"))
    }

    fn try_find<'a>(&self, listed: &'a ListedCluster) -> Result<&'a ListedMember, String> {
        if listed.members.len() != self.members.len() {
            return Err("member count is unequal".to_owned());
        }
        let mut own = None;
        for member in listed.in_order() {
            let urls = member.sorted_urls();
            match self.members.iter().find(|named| texts(&named.peer_urls) == urls) {
                Some(named) if named.name == self.own.name => own = Some(member),
                Some(_) => {}
                None => return Err(self.no_match(member)),
            }
        }
        own.ok_or_else(|| format!("no member has the peer URLs [{}]", texts(&self.own.peer_urls).join(" ")))
    }

    fn no_match(&self, member: &ListedMember) -> String {
        let urls = member.sorted_urls();
        let last = self.members.last().expect("who joins is a member");
        format!(
            "PeerURLs: no match found for existing member ({:x}, [{}]), last resolver error ({})",
            member.id.0,
            urls.join(" "),
            difference(&urls, &texts(&last.peer_urls))
        )
    }
}

impl ListedCluster {
    /// The members in the order of their first URLs.
    fn in_order(&self) -> Vec<&ListedMember> {
        let mut members: Vec<&ListedMember> = self.members.iter().collect();
        members.sort_by_key(|member| member.sorted_urls());
        members
    }
}

/// As Go's `%+v` prints etcd's.
impl fmt::Display for ListedCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members: Vec<String> = self.in_order().into_iter().map(ToString::to_string).collect();
        write!(f, "{{ClusterID:{:x} Members:[{}] RemovedMemberIDs:[]}}", self.id.0, members.join(" "))
    }
}

impl ListedMember {
    fn sorted_urls(&self) -> Vec<&str> {
        let mut urls: Vec<&str> = self.peer_urls.iter().map(String::as_str).collect();
        urls.sort_unstable();
        urls
    }
}

impl fmt::Display for ListedMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ListedMember { id, name, peer_urls, client_urls, is_learner } = self;
        write!(
            f,
            "&{{ID:{:x} RaftAttributes:{{PeerURLs:[{}] IsLearner:{is_learner}}} Attributes:{{Name:{name} \
             ClientURLs:[{}]}}}}",
            id.0,
            peer_urls.join(" "),
            client_urls.join(" ")
        )
    }
}

pub(super) fn texts(urls: &[Url]) -> Vec<&str> {
    urls.iter().map(Url::as_str).collect()
}

/// What etcd finds first where two lists of URLs differ, in the forms of Go's `%q`.
pub(super) fn difference(left: &[&str], right: &[&str]) -> String {
    let list = |urls: &[&str]| urls.iter().map(|url| format!("{url:?}")).collect::<Vec<_>>().join(" ");
    match left.iter().zip(right).find(|(left, right)| left != right) {
        _ if left.len() != right.len() => format!("len([{}]) != len([{}])", list(left), list(right)),
        Some((left, right)) => format!("resolved urls: {left:?} != {right:?}"),
        None => panic!("{left:?} has a URL that {right:?} has not"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::identity::read_initial_cluster;

    fn joining(name: &str, cluster: &str) -> Joining {
        let members = read_initial_cluster(cluster).unwrap();
        let own = members.iter().find(|member| member.name == name).unwrap();
        Joining::new(own, &members)
    }

    fn listed(members: &[(u64, &str, &[&str])]) -> ListedCluster {
        let member = |(id, name, urls): &(u64, &str, &[&str])| ListedMember {
            id: MemberId(*id),
            name: (*name).to_owned(),
            peer_urls: urls.iter().map(ToString::to_string).collect(),
            client_urls: if name.is_empty() { vec![] } else { vec![format!("http://{name}:2379")] },
            is_learner: name.is_empty(),
        };
        ListedCluster { id: ClusterId(0xabc), members: members.iter().map(member).collect() }
    }

    #[test]
    fn a_member_is_known_by_its_urls_in_any_order_and_the_others_by_any_name() {
        let joining = joining("c", "x=http://a:1,c=http://c:2,c=http://c:1,y=http://b:1");
        let list = listed(&[
            (7, "b", &["http://b:1"]),
            (3, "", &["http://c:2", "http://c:1"]),
            (5, "a", &["http://a:1"]),
        ]);
        assert_eq!(joining.find(&list).unwrap().id, MemberId(3));
        let others: Vec<&str> = joining.others().into_iter().map(Url::as_str).collect();
        assert_eq!(others, ["http://a:1", "http://b:1"]);
    }

    #[test]
    fn a_list_that_contradicts_the_flags_is_refused_in_etcds_words() {
        let head = "error validating peerURLs {ClusterID:abc Members:[&{ID:5 RaftAttributes:{PeerURLs:[http://a:1] \
                    IsLearner:false} Attributes:{Name:a ClientURLs:[http://a:2379]}}";
        let one = listed(&[(5, "a", &["http://a:1"])]);
        let error = joining("b", "a=http://a:1,b=http://b:1").find(&one).unwrap_err();
        assert_eq!(error, format!("{head}] RemovedMemberIDs:[]}}: member count is unequal"));
        let two = listed(&[(6, "", &["http://b:1"]), (5, "a", &["http://a:1"])]);
        let second =
            "&{ID:6 RaftAttributes:{PeerURLs:[http://b:1] IsLearner:true} Attributes:{Name: ClientURLs:[]}}";
        for (cluster, why) in [
            (
                "a=http://a:1,b=http://c:1",
                "PeerURLs: no match found for existing member (6, [http://b:1]), last resolver error \
                 (resolved urls: \"http://b:1\" != \"http://c:1\")",
            ),
            (
                "a=http://x:1,b=http://b:1",
                "PeerURLs: no match found for existing member (5, [http://a:1]), last resolver error \
                 (resolved urls: \"http://a:1\" != \"http://x:1\")",
            ),
            (
                "a=http://a:1,b=http://b:1,b=http://b:2",
                "PeerURLs: no match found for existing member (6, [http://b:1]), last resolver error \
                 (len([\"http://b:1\"]) != len([\"http://b:1\" \"http://b:2\"]))",
            ),
        ] {
            let error = joining("b", cluster).find(&two).unwrap_err();
            assert_eq!(error, format!("{head} {second}] RemovedMemberIDs:[]}}: {why}"));
        }
        // A list that is not one.
        let twice = listed(&[(5, "a", &["http://a:1"]), (6, "b", &["http://a:1"])]);
        let error = joining("b", "a=http://a:1,b=http://b:1").find(&twice).unwrap_err();
        assert!(error.ends_with(": no member has the peer URLs [http://b:1]"), "{error}");
    }
}
