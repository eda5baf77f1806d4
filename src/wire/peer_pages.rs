//! What etcd shows over HTTP/1 on the peer port, as operators' scripts read it: `/members`, `/version` and
//! `/raft/probing`, byte for byte. etcd's own members speak HTTP there too; Braid's do not.

use super::http1::{ContentType, Http1Request, Http1Response, HttpMethod};
use super::{CLUSTER_VERSION, SERVER_VERSION, STORAGE_VERSION};
use crate::api::Member;
use crate::stdx::civil;
use crate::types::ClusterId;

/// A page for other members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerPage {
    Members,
    Version,
    Probing,
    NotFound,
    MethodNotAllowed,
}

/// What a member knows of its cluster without asking anybody.
#[derive(Clone, Debug)]
pub struct PeerFacts {
    pub cluster: ClusterId,
    /// Whether the cluster has had a leader yet.
    pub has_begun: bool,
    /// Ascending by id.
    pub members: Vec<Member>,
    /// The time, in seconds since 1970.
    pub wall_secs: u64,
}

/// Finds the page of a request.
pub fn page(request: &Http1Request) -> PeerPage {
    let page = match request.path.as_str() {
        "/members" => PeerPage::Members,
        "/version" => PeerPage::Version,
        "/raft/probing" => return PeerPage::Probing,
        _ => return PeerPage::NotFound,
    };
    if request.method == HttpMethod::Get { page } else { PeerPage::MethodNotAllowed }
}

impl PeerPage {
    pub fn render(self, facts: &PeerFacts) -> Http1Response {
        match self {
            PeerPage::Members => Http1Response {
                cluster: Some(facts.cluster),
                ..Http1Response::ok(ContentType::Json, members(&facts.members).into_bytes())
            },
            PeerPage::Version if facts.has_begun => version(CLUSTER_VERSION, STORAGE_VERSION),
            PeerPage::Version => version("not_decided", "3.5.0"),
            PeerPage::Probing => {
                let body = format!("{{\"OK\":true,\"Now\":\"{}\"}}\n", moment(facts.wall_secs));
                Http1Response::ok(ContentType::Text, body.into_bytes())
            }
            PeerPage::NotFound => Http1Response::not_found(),
            PeerPage::MethodNotAllowed => Http1Response::only_get(),
        }
    }
}

/// The page of `/version`.
pub(super) fn version(cluster: &str, storage: &str) -> Http1Response {
    let body =
        format!(r#"{{"etcdserver":"{SERVER_VERSION}","etcdcluster":"{cluster}","storage":"{storage}"}}"#);
    Http1Response::ok(ContentType::Json, body.into_bytes())
}

fn members(members: &[Member]) -> String {
    let members: Vec<String> = members.iter().map(member).collect();
    format!("[{}]\n", members.join(","))
}

/// In Go's order of fields, without those that say nothing.
fn member(member: &Member) -> String {
    let mut text = format!(r#"{{"id":{},"peerURLs":{}"#, member.id.0, list(&member.peer_urls));
    if member.is_learner {
        text += r#","isLearner":true"#;
    }
    if !member.name.is_empty() {
        text += &format!(r#","name":{}"#, quoted(&member.name));
    }
    if !member.client_urls.is_empty() {
        text += &format!(r#","clientURLs":{}"#, list(&member.client_urls));
    }
    text + "}"
}

fn list(texts: &[String]) -> String {
    format!("[{}]", texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(","))
}

/// A string of JSON as Go writes it: so that it may stand in HTML.
fn quoted(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    let escaped = [
        ('<', "\\u003c"),
        ('>', "\\u003e"),
        ('&', "\\u0026"),
        ('\u{2028}', "\\u2028"),
        ('\u{2029}', "\\u2029"),
    ];
    escaped.into_iter().fold(json, |json, (plain, escape)| json.replace(plain, escape))
}

fn moment(secs: u64) -> String {
    let (year, month, day) = civil(secs / 86_400);
    let (hour, minute, second) = (secs / 3_600 % 24, secs / 60 % 60, secs % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::MemberId;
    use crate::wire::http1::{Audience, parse};

    fn facts() -> PeerFacts {
        let member = |id, name: &str, port| Member {
            id: MemberId(id),
            name: name.into(),
            peer_urls: vec![format!("http://127.0.0.1:{port}")],
            ..Default::default()
        };
        let mut members = vec![
            member(3_990_370_604_368_066_554, "m2x<&>", 23803),
            member(13_668_033_151_171_901_709, "m1", 23801),
        ];
        members[1].client_urls = vec!["http://127.0.0.1:23791".into()];
        let cluster = ClusterId(0x18a8_5458_6ea9_b0d0);
        PeerFacts { cluster, has_begun: true, members, wall_secs: 1_796_004_432 }
    }

    fn shown(line: &str, facts: &PeerFacts) -> String {
        let request = parse(format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap().unwrap().0;
        let mut out = vec![];
        let response = page(&request).render(facts);
        response.write(&mut out, &request.method, true, Audience::Members, None);
        String::from_utf8(out).unwrap()
    }

    /// As recorded from etcd 3.7.1, where the second member had not published its name and URLs.
    #[test]
    fn members_are_listed_as_etcd_lists_them() {
        let text = shown("GET /members", &facts());
        let head =
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Etcd-Cluster-Id: 18a854586ea9b0d0\r\n";
        let body = r#"[{"id":3990370604368066554,"peerURLs":["http://127.0.0.1:23803"],"name":"m2x\u003c\u0026\u003e"},{"id":13668033151171901709,"peerURLs":["http://127.0.0.1:23801"],"name":"m1","clientURLs":["http://127.0.0.1:23791"]}]"#;
        assert!(text.starts_with(head) && text.ends_with(&format!("\r\n\r\n{body}\n")), "{text}");
        let mut unnamed = facts();
        unnamed.members.truncate(1);
        (unnamed.members[0].name, unnamed.members[0].is_learner) = (String::new(), true);
        let body = r#"[{"id":3990370604368066554,"peerURLs":["http://127.0.0.1:23803"],"isLearner":true}]"#;
        assert!(shown("GET /members?x=y", &unnamed).ends_with(&format!("\r\n\r\n{body}\n")));
    }

    #[test]
    fn the_version_is_undecided_until_there_was_a_leader() {
        for (has_begun, body) in [
            (true, r#"{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}"#),
            (false, r#"{"etcdserver":"3.7.1","etcdcluster":"not_decided","storage":"3.5.0"}"#),
        ] {
            let text = shown("GET /version", &PeerFacts { has_begun, ..facts() });
            assert!(text.ends_with(&format!("\r\n\r\n{body}")), "{text}");
        }
    }

    #[test]
    fn a_probe_is_answered_whatever_its_method() {
        for method in ["GET", "POST", "PUT"] {
            let text = shown(&format!("{method} /raft/probing"), &facts());
            let body = "{\"OK\":true,\"Now\":\"2026-11-30T02:07:12Z\"}\n";
            assert!(text.contains("text/plain") && text.ends_with(body), "{text}");
        }
    }

    #[test]
    fn other_methods_and_pages_are_refused_and_no_browser_is_told_anything() {
        for (line, status, body) in [
            ("POST /members", "405 Method Not Allowed\r\nAllow: GET", "Method Not Allowed\n"),
            ("HEAD /members", "405 Method Not Allowed\r\nAllow: GET", ""),
            ("POST /version", "405 Method Not Allowed\r\nAllow: GET", "Method Not Allowed\n"),
            ("GET /health", "404 Not Found", "404 page not found\n"),
            ("GET /livez", "404 Not Found", "404 page not found\n"),
            ("GET /metrics", "404 Not Found", "404 page not found\n"),
            ("GET /debug/vars", "404 Not Found", "404 page not found\n"),
            ("POST /v3/kv/range", "404 Not Found", "404 page not found\n"),
            ("OPTIONS /members/", "404 Not Found", "404 page not found\n"),
            ("GET /", "404 Not Found", "404 page not found\n"),
        ] {
            let text = shown(line, &facts());
            assert!(text.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{line}: {text}");
            assert!(
                text.ends_with(&format!("\r\n\r\n{body}")) && !text.contains("Access-Control"),
                "{line}: {text}"
            );
        }
    }
}
