//! Who the members are at bootstrap: identities that every member computes alike from the same flags.
//!
//! etcd's law, kept so that whoever compares identities finds what etcd would show:
//!
//! ```text
//! member id  = first 8 bytes, big-endian, of sha1(sorted peer URLs joined without a separator ++ token)
//!              of one added later: sha1(sorted peer URLs ++ the seconds since 1970, in decimal)
//! cluster id = first 8 bytes, big-endian, of sha1(sorted member ids, each as 8 bytes big-endian)
//! ```

use super::joining::{difference, texts};
use super::url::Url;
use super::{Config, ConfigError, InitialMember, Joining};
use crate::types::{ClusterId, MemberId};
use sha1::{Digest, Sha1};
use std::collections::BTreeMap;

/// A cluster that begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    pub cluster: ClusterId,
    /// This member.
    pub member: MemberId,
    /// All members, ascending by id.
    pub members: Vec<BootstrapMember>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootstrapMember {
    pub id: MemberId,
    pub name: String,
    pub peer_urls: Vec<Url>,
}

/// The identity of a member of the initial cluster.
pub fn member_id(peer_urls: &[Url], token: &str) -> MemberId {
    id_of(peer_urls, token)
}

/// The identity of a member that is added to a cluster at this time, in seconds since 1970.
pub fn added_member_id(peer_urls: &[Url], wall_secs: u64) -> MemberId {
    id_of(peer_urls, &wall_secs.to_string())
}

fn id_of(peer_urls: &[Url], salt: &str) -> MemberId {
    let mut urls = texts(peer_urls);
    urls.sort_unstable();
    MemberId(first_eight(&[urls.concat().as_bytes(), salt.as_bytes()].concat()))
}

/// The identity of the cluster that begins with these members, in any order.
pub fn cluster_id(members: &[MemberId]) -> ClusterId {
    let mut members = members.to_vec();
    members.sort_unstable();
    let bytes: Vec<u8> = members.iter().flat_map(|member| member.0.to_be_bytes()).collect();
    ClusterId(first_eight(&bytes))
}

fn first_eight(bytes: &[u8]) -> u64 {
    let digest = Sha1::digest(bytes);
    u64::from_be_bytes(digest[..8].try_into().expect("a SHA-1 has 20 bytes"))
}

impl Config {
    /// This member and all of them, as `--initial-cluster` names them.
    fn named(&self) -> Result<(&InitialMember, &[InitialMember]), ConfigError> {
        let initial_cluster = self.initial_cluster.as_ref().map_err(ConfigError::clone)?;
        let own = initial_cluster.iter().find(|member| member.name == self.name);
        let refusal = || ConfigError::error(not_named(&self.name, initial_cluster));
        Ok((own.ok_or_else(refusal)?, initial_cluster))
    }

    /// The cluster to join where the data directory is empty.
    ///
    /// Refuses as [`Config::bootstrap`] does, and takes no notice of the URLs that are advertised (etcd's law): the
    /// cluster has been told them.
    pub fn joining(&self) -> Result<Joining, ConfigError> {
        let (own, members) = self.named()?;
        check_distinct(members)?;
        Ok(Joining::new(own, members))
    }

    /// The cluster to begin where the data directory is empty.
    ///
    /// Refuses, in etcd's words, an initial cluster that does not agree with this member's name and peer
    /// URLs. Call it only then: on a restart etcd ignores the `initial-*` flags, whatever they say. URLs are
    /// compared as text; etcd would also resolve names.
    pub fn bootstrap(&self) -> Result<Bootstrap, ConfigError> {
        let (own, initial_cluster) = self.named()?;
        self.check_advertised(own)?;
        check_distinct(initial_cluster)?;
        let token = &self.initial_cluster_token;
        let identified = |member: &InitialMember| BootstrapMember {
            id: member_id(&member.peer_urls, token),
            name: member.name.clone(),
            peer_urls: member.peer_urls.clone(),
        };
        let mut members: Vec<BootstrapMember> = initial_cluster.iter().map(identified).collect();
        members.sort_by_key(|member| member.id);
        let ids: Vec<MemberId> = members.iter().map(|member| member.id).collect();
        Ok(Bootstrap { cluster: cluster_id(&ids), member: member_id(&own.peer_urls, token), members })
    }

    fn check_advertised(&self, own: &InitialMember) -> Result<(), ConfigError> {
        let advertised = &self.initial_advertise_peer_urls; // sorted, as those of the initial cluster are
        let named = |urls: Vec<&Url>| {
            urls.iter().map(|url| format!("{}={url}", own.name)).collect::<Vec<_>>().join(",")
        };
        let missing: Vec<&Url> = own.peer_urls.iter().filter(|url| !advertised.contains(url)).collect();
        if !missing.is_empty() {
            let list = advertised.iter().map(Url::as_str).collect::<Vec<_>>().join(",");
            return Err(ConfigError::error(format!(
                "--initial-cluster has {} but missing from --initial-advertise-peer-urls={list} ({})",
                named(missing),
                difference(&texts(advertised), &texts(&own.peer_urls))
            )));
        }
        let missing: Vec<&Url> = advertised.iter().filter(|url| !own.peer_urls.contains(url)).collect();
        if !missing.is_empty() {
            let list = missing.iter().map(|url| url.as_str()).collect::<Vec<_>>().join(",");
            return Err(ConfigError::error(format!(
                "--initial-advertise-peer-urls has {list} but missing from --initial-cluster={}",
                named(advertised.iter().collect())
            )));
        }
        Ok(())
    }
}

fn not_named(name: &str, initial_cluster: &[InitialMember]) -> String {
    let refusal = format!("couldn't find local name {name:?} in the initial cluster configuration");
    let names: Vec<&str> = initial_cluster.iter().map(|member| member.name.as_str()).collect();
    match names[..] {
        [] => format!("{refusal}, which is empty: name {name} in --initial-cluster"),
        _ => {
            let names = names.join(" or ");
            format!("{refusal}: start with --name={names}, or name {name} in --initial-cluster")
        }
    }
}

/// A URL leads to one member.
fn check_distinct(initial_cluster: &[InitialMember]) -> Result<(), ConfigError> {
    let named =
        initial_cluster.iter().flat_map(|member| member.peer_urls.iter().map(move |url| (member, url)));
    let mut urls: Vec<&Url> = named.clone().map(|(_, url)| url).collect();
    urls.sort();
    if urls.windows(2).all(|pair| pair[0] != pair[1]) {
        return Ok(());
    }
    let mut pairs: Vec<String> = named.map(|(member, url)| format!("{}={url}", member.name)).collect();
    pairs.sort();
    Err(ConfigError::error(format!("initial cluster {} has duplicate url", pairs.join(","))))
}

/// Reads `name=url,name=url`; a name may come several times with one URL each.
pub(super) fn read_initial_cluster(text: &str) -> Result<Vec<InitialMember>, String> {
    let mut members: BTreeMap<&str, Vec<Url>> = BTreeMap::new();
    for item in text.split(',').filter(|item| !item.is_empty()) {
        let (name, url) = item.split_once('=').unwrap_or((item, ""));
        members.entry(name).or_default().push(Url::parse(url)?);
    }
    let sorted = |(name, mut peer_urls): (&str, Vec<Url>)| {
        peer_urls.sort();
        InitialMember { name: name.to_string(), peer_urls }
    };
    Ok(members.into_iter().map(sorted).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(text: &str) -> Vec<Url> {
        Url::parse_list(text).unwrap()
    }

    #[test]
    fn the_default_member_and_cluster_are_those_of_every_default_etcd() {
        let member = member_id(&urls("http://localhost:2380"), "etcd-cluster");
        assert_eq!(member, MemberId(0x8e9e_05c5_2164_694d));
        assert_eq!(cluster_id(&[member]), ClusterId(0xcdf8_1819_4e3a_8c32));
    }

    /// As etcd's own tests have it, of the same second.
    #[test]
    fn a_member_that_is_added_has_the_id_that_etcd_gives_it() {
        let added = added_member_id(&urls("http://10.0.0.8:2379"), 472_662_245);
        assert_eq!(added, MemberId(2_448_790_162_483_548_276));
        let both = urls("http://10.0.0.8:2379,http://10.0.0.7:2379");
        assert_ne!(added_member_id(&both, 472_662_245), added);
        assert_ne!(added_member_id(&urls("http://10.0.0.8:2379"), 472_662_246), added);
    }

    #[test]
    fn order_does_not_matter_and_everything_else_does() {
        let (a, b) = (urls("http://a:1")[0].clone(), urls("http://b:1")[0].clone());
        let both = member_id(&[a.clone(), b.clone()], "t");
        assert_eq!(both, member_id(&[b.clone(), a.clone()], "t"));
        assert_ne!(both, member_id(&[a.clone(), b], "u"));
        assert_ne!(both, member_id(&[a], "t"));
        let (one, two) = (MemberId(1), MemberId(2));
        assert_eq!(cluster_id(&[one, two]), cluster_id(&[two, one]));
        assert_ne!(cluster_id(&[one, two]), cluster_id(&[one]));
    }

    #[test]
    fn an_initial_cluster_groups_urls_by_name() {
        let members = read_initial_cluster("b=http://b:2,a=http://a:1,b=http://b:1,").unwrap();
        assert_eq!(members.len(), 2);
        assert_eq!((members[1].name.as_str(), &members[1].peer_urls), ("b", &urls("http://b:1,http://b:2")));
        assert!(read_initial_cluster("a").is_err() && read_initial_cluster("a=https://a:1").is_err());
        assert!(read_initial_cluster("").unwrap().is_empty());
    }
}
