//! What a first start asks the other members that begin the cluster with this one: whether this one has been there
//! before. A member that has lost its directory has forgotten what it promised, and may not begin once more.

use crate::config::{Bootstrap, Url};
use crate::limits::{MEMBER_ADDRESSES_MAX, MEMBERS_PAGE_BYTES_MAX, MEMBERS_PAGE_MS_MAX};
use crate::types::MemberId;
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
    let patience = Duration::from_millis(MEMBERS_PAGE_MS_MAX);
    let (tell, told) = channel();
    for url in others.flat_map(|member| &member.peer_urls) {
        let (tell, url) = (tell.clone(), url.clone());
        let ask = move || {
            // Nobody listens any more where the time was up.
            let _ = tell.send(members_page(&url, patience).is_ok_and(|page| has_published(&page, own)));
        };
        let thread = Builder::new().name("founders".to_owned()).spawn(ask);
        thread.map_err(|error| format!("cannot start a thread: {error}"))?;
    }
    drop(tell);
    let give_up = Instant::now() + patience;
    while let Ok(is_known) = told.recv_timeout(give_up.saturating_duration_since(Instant::now())) {
        if is_known {
            return Err(format!(
                "member {:x} has already been bootstrapped: start it with the data directory that it had then",
                own.0
            ));
        }
    }
    Ok(())
}

/// Whether a list of members has this one, with URLs for clients.
fn has_published(page: &Value, member: MemberId) -> bool {
    let is_own = |listed: &&Value| listed["id"].as_u64() == Some(member.0);
    let own = page.as_array().and_then(|members| members.iter().find(is_own));
    own.is_some_and(|own| own["clientURLs"].as_array().is_some_and(|urls| !urls.is_empty()))
}

/// The page `/members` of a member, from the first of its addresses that gives it.
fn members_page(url: &Url, patience: Duration) -> io::Result<Value> {
    let addresses = (url.host(), url.port()).to_socket_addrs()?;
    let addresses: Vec<SocketAddr> = addresses.take(MEMBER_ADDRESSES_MAX).collect();
    let each = patience / u32::try_from(addresses.len().max(1)).expect("they are few");
    let mut pages = addresses.into_iter().map(|address| members_page_at(address, each));
    pages.find_map(io::Result::ok).ok_or_else(|| ErrorKind::NotFound.into())
}

fn members_page_at(address: SocketAddr, patience: Duration) -> io::Result<Value> {
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    write!(stream, "GET /members HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(MEMBERS_PAGE_BYTES_MAX).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(ErrorKind::InvalidData)?;
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(ErrorKind::InvalidData.into());
    }
    Ok(serde_json::from_str(body)?)
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
        let known = "HTTP/1.1 200 OK\r\n\r\n[{\"id\":1,\"clientURLs\":[\"http://x:1\"]},{\"id\":OWN,\
                     \"peerURLs\":[\"http://localhost:2380\"],\"clientURLs\":[\"http://localhost:2379\"]}]\n";
        assert!(
            asked(&[known]).unwrap_err().starts_with("member 8e9e05c52164694d has already been bootstrapped")
        );
        for unknown in [
            "HTTP/1.1 200 OK\r\n\r\n[{\"id\":OWN,\"peerURLs\":[\"http://localhost:2380\"],\"name\":\"default\"}]\n",
            "HTTP/1.1 200 OK\r\n\r\n[{\"id\":1,\"clientURLs\":[\"http://x:1\"]}]\n",
            "HTTP/1.1 404 Not Found\r\n\r\n404 page not found\n",
            "HTTP/1.1 200 OK\r\n\r\n{",
            "",
        ] {
            assert_eq!(asked(&[unknown]), Ok(()), "{unknown}");
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
