//! What a first start asks the members that it names: whether this one has been there before, and who the members are
//! of a cluster that it joins. A member that has lost its directory has forgotten what it promised, and may not begin
//! once more.

use crate::config::{Bootstrap, Joining, ListedCluster, ListedMember, Url};
use crate::limits::{MEMBER_ADDRESSES_MAX, MEMBERS_PAGE_BYTES_MAX, MEMBERS_PAGE_MS_MAX};
use crate::types::{ClusterId, MemberId};
use serde_json::Value;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc::channel;
use std::thread::Builder;
use std::time::{Duration, Instant};

/// Refuses, in etcd's words, a member that others know already by the clients' URLs that it has published. Who does
/// not answer in time says nothing: as a rule nobody is there yet.
pub fn refuse_known(begun: &Bootstrap) -> Result<(), String> {
    let own = begun.member;
    let others = begun.members.iter().filter(|member| member.id != own);
    let lists = ask(others.flat_map(|member| &member.peer_urls))?;
    let mut known = lists.iter().flat_map(|list| &list.members);
    match known.any(|listed| listed.id == own && has_published(listed)) {
        true => Err(format!("{}: {OWN_DIRECTORY}", bootstrapped(own))),
        false => Ok(()),
    }
}

/// The cluster that a member joins, as the others list it, and who the member is there. One that has only just been
/// added may not be known to all: the first list that agrees with the flags counts. A member that has published its
/// clients' URLs has begun, in another directory.
pub fn join(joining: &Joining) -> Result<(MemberId, ListedCluster), String> {
    let lists = ask(joining.others())?;
    let found: Vec<Result<(MemberId, bool), String>> =
        lists.iter().map(|list| joining.find(list).map(|own| (own.id, has_published(own)))).collect();
    if let Some(own) = found.iter().flatten().find(|(_, has_begun)| *has_begun) {
        return Err(format!("{}: {OWN_DIRECTORY}, or remove it and add it again", bootstrapped(own.0)));
    }
    let mut why = "cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs"
        .to_owned();
    for (list, found) in lists.into_iter().zip(found).rev() {
        match found {
            Ok((own, _)) => return Ok((own, list)),
            Err(contradiction) => why = contradiction,
        }
    }
    Err(why)
}

fn bootstrapped(member: MemberId) -> String {
    format!("member {:x} has already been bootstrapped", member.0)
}

const OWN_DIRECTORY: &str = "start it with the data directory that it had then";

fn has_published(member: &ListedMember) -> bool {
    !member.client_urls.is_empty()
}

/// Asks all of these at once for their lists. What has come in time is in the order of the URLs.
fn ask<'a>(urls: impl IntoIterator<Item = &'a Url>) -> Result<Vec<ListedCluster>, String> {
    let patience = Duration::from_millis(MEMBERS_PAGE_MS_MAX);
    let (tell, told) = channel();
    for (number, url) in urls.into_iter().cloned().enumerate() {
        let tell = tell.clone();
        let ask = move || {
            if let Ok(list) = members_page(&url, patience) {
                // Nobody listens any more where the time was up.
                let _ = tell.send((number, list));
            }
        };
        let thread = Builder::new().name("members".to_owned()).spawn(ask);
        thread.map_err(|error| format!("cannot start a thread: {error}"))?;
    }
    drop(tell);
    let give_up = Instant::now() + patience;
    let mut lists = vec![];
    while let Ok(list) = told.recv_timeout(give_up.saturating_duration_since(Instant::now())) {
        lists.push(list);
    }
    lists.sort_by_key(|(number, _)| *number);
    Ok(lists.into_iter().map(|(_, list)| list).collect())
}

/// The page `/members` of a member, from the first of its addresses that gives it.
fn members_page(url: &Url, patience: Duration) -> io::Result<ListedCluster> {
    let addresses = (url.host(), url.port()).to_socket_addrs()?;
    let addresses: Vec<SocketAddr> = addresses.take(MEMBER_ADDRESSES_MAX).collect();
    let each = patience / u32::try_from(addresses.len().max(1)).expect("they are few");
    let mut pages = addresses.into_iter().map(|address| members_page_at(address, each));
    pages.find_map(io::Result::ok).ok_or_else(|| ErrorKind::NotFound.into())
}

fn members_page_at(address: SocketAddr, patience: Duration) -> io::Result<ListedCluster> {
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    write!(stream, "GET /members HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(MEMBERS_PAGE_BYTES_MAX).read_to_string(&mut answer)?;
    listed(&answer).ok_or_else(|| ErrorKind::InvalidData.into())
}

/// What a member has answered; none where it is no list of a cluster's members.
fn listed(answer: &str) -> Option<ListedCluster> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    if !head.starts_with("HTTP/1.1 200 ") {
        return None;
    }
    let mut fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    let (_, id) = fields.find(|(name, _)| name.eq_ignore_ascii_case("X-Etcd-Cluster-Id"))?;
    let id = ClusterId(u64::from_str_radix(id.trim(), 16).ok()?);
    let page: Value = serde_json::from_str(body).ok()?;
    let members: Vec<ListedMember> = page.as_array()?.iter().map(listed_member).collect::<Option<_>>()?;
    let mut ids: Vec<MemberId> = members.iter().map(|member| member.id).collect();
    ids.sort();
    ids.dedup();
    (!ids.is_empty() && ids.len() == members.len()).then_some(ListedCluster { id, members })
}

/// What a member has not published yet is not in its entry.
fn listed_member(entry: &Value) -> Option<ListedMember> {
    let texts = |name: &str| -> Option<Vec<String>> {
        match entry.get(name) {
            Some(Value::Array(texts)) => texts.iter().map(|text| Some(text.as_str()?.to_owned())).collect(),
            None | Some(Value::Null) => Some(vec![]),
            Some(_) => None,
        }
    };
    Some(ListedMember {
        id: MemberId(entry["id"].as_u64().filter(|id| *id != 0)?),
        name: entry["name"].as_str().unwrap_or_default().to_owned(),
        peer_urls: texts("peerURLs").filter(|urls| !urls.is_empty())?,
        client_urls: texts("clientURLs")?,
        is_learner: entry["isLearner"].as_bool().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Parsed, parse};
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    /// This member and two others, of which the second gives these answers.
    fn asked(answers: &[&str]) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let other = listener.local_addr().unwrap();
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let cluster = format!("default=http://localhost:2380,b=http://{nobody},c=http://{other}");
        let Ok(Parsed::Run(config, _)) = parse(&[format!("--initial-cluster={cluster}")], &[], 1) else {
            panic!("it is a cluster")
        };
        let begun = config.bootstrap().unwrap();
        let own = begun.member.0;
        let answers: Vec<String> =
            answers.iter().map(|answer| answer.replace("OWN", &own.to_string())).collect();
        let serve = std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                // What is not read makes the close a reset, which may overtake the answer.
                let lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
                let asked: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                assert_eq!(asked[0], "GET /members HTTP/1.1");
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let refused = refuse_known(&begun);
        serve.join().unwrap();
        refused
    }

    #[test]
    fn a_member_that_others_know_does_not_begin_again() {
        let known = "HTTP/1.1 200 OK\r\nX-Etcd-Cluster-Id: 5\r\n\r\n[{\"id\":1,\"peerURLs\":[\"http://x:2\"],\"clientURLs\":[\"http://x:1\"]},{\"id\":OWN,\
                     \"peerURLs\":[\"http://localhost:2380\"],\"clientURLs\":[\"http://localhost:2379\"]}]\n";
        assert!(
            asked(&[known]).unwrap_err().starts_with("member 8e9e05c52164694d has already been bootstrapped")
        );
        for unknown in [
            "HTTP/1.1 200 OK\r\nX-Etcd-Cluster-Id: 5\r\n\r\n[{\"id\":OWN,\"peerURLs\":[\"http://localhost:2380\"],\"name\":\"default\"}]\n",
            "HTTP/1.1 200 OK\r\nX-Etcd-Cluster-Id: 5\r\n\r\n[{\"id\":1,\"peerURLs\":[\"http://x:2\"],\"clientURLs\":[\"http://x:1\"]}]\n",
            "HTTP/1.1 404 Not Found\r\n\r\n404 page not found\n",
            "HTTP/1.1 200 OK\r\n\r\n{",
            "",
        ] {
            assert_eq!(asked(&[unknown]), Ok(()), "{unknown}");
        }
    }

    #[test]
    fn only_a_list_of_members_is_one() {
        let page = |body: &str| listed(&format!("HTTP/1.1 200 OK\r\nx-etcd-cluster-id: 1f\r\n\r\n{body}"));
        let list = page(r#"[{"id":6,"peerURLs":["http://b:1"],"isLearner":true}]"#).unwrap();
        assert_eq!((list.id, list.members.len()), (ClusterId(0x1f), 1));
        let ListedMember { id, name, peer_urls, client_urls, is_learner } = &list.members[0];
        assert_eq!((*id, name.as_str(), *is_learner), (MemberId(6), "", true));
        assert_eq!((&peer_urls[..], &client_urls[..]), (&["http://b:1".to_owned()][..], &[][..]));
        for none in [
            "",
            "{}",
            "[]",
            r#"[{"id":0,"peerURLs":["http://b:1"]}]"#,
            r#"[{"id":"6","peerURLs":["http://b:1"]}]"#,
            r#"[{"id":6}]"#,
            r#"[{"id":6,"peerURLs":[]}]"#,
            r#"[{"id":6,"peerURLs":[7]}]"#,
            r#"[{"id":6,"peerURLs":["http://b:1"],"clientURLs":"http://b:2"}]"#,
            r#"[{"id":6,"peerURLs":["http://b:1"]},{"id":6,"peerURLs":["http://c:1"]}]"#,
        ] {
            assert_eq!(page(none), None, "{none}");
        }
        let body = r#"[{"id":6,"peerURLs":["http://b:1"]}]"#;
        for head in [
            "HTTP/1.1 200 OK",
            "HTTP/1.1 404 Not Found\r\nX-Etcd-Cluster-Id: 1",
            "HTTP/1.1 200 OK\r\nX-Etcd-Cluster-Id: zz",
        ] {
            assert_eq!(listed(&format!("{head}\r\n\r\n{body}")), None, "{head}");
        }
    }

    #[test]
    fn who_does_not_answer_is_not_waited_for_long() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let cluster = format!("default=http://localhost:2380,b=http://{}", silent.local_addr().unwrap());
        let Ok(Parsed::Run(config, _)) = parse(&[format!("--initial-cluster={cluster}")], &[], 1) else {
            panic!("it is a cluster")
        };
        assert_eq!(refuse_known(&config.bootstrap().unwrap()), Ok(()));
    }
}
