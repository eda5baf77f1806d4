use super::*;
use crate::types::MemberId;
use crate::wire::http1::parse;

fn page_of(line: &str) -> Page {
    let text = format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n");
    page(&parse(text.as_bytes()).unwrap().unwrap().0, Audience::Everyone)
}

fn good() -> Facts {
    Facts { alarms: vec![], has_leader: true, is_learner: false }
}

fn alarmed(alarm: AlarmType) -> Facts {
    Facts { alarms: vec![Alarm { member: MemberId(1), alarm }], ..good() }
}

const READ: Reads = Reads { serializable: Ok(()), linearizable: Ok(()) };
const UNREAD: Reads = Reads { serializable: Ok(()), linearizable: Err(Error::Timeout) };

fn show(line: &str, facts: &Facts, reads: &Reads) -> (u16, String) {
    let response = page_of(line).render(facts, reads);
    (response.status, String::from_utf8(response.body).unwrap())
}

const HEALTHY: &str = r#"{"health":"true","reason":""}"#;

fn unhealthy(reason: &str) -> (u16, String) {
    (503, format!("{{\"health\":\"false\",\"reason\":\"{reason}\"}}\n"))
}

#[test]
fn version_is_etcds() {
    let response = page_of("GET /version").render(&good(), &READ);
    let body = r#"{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}"#;
    assert_eq!((response.content_type, response.nosniff), (Some(ContentType::Json), false));
    assert_eq!(String::from_utf8(response.body).unwrap(), body);
}

#[test]
fn health_names_the_first_fault() {
    assert_eq!(show("GET /health", &good(), &READ), (200, HEALTHY.into()));
    let no_leader = Facts { has_leader: false, ..good() };
    assert_eq!(show("GET /health", &no_leader, &READ), unhealthy("RAFT NO LEADER"));
    assert_eq!(show("GET /health?serializable=true", &no_leader, &READ), (200, HEALTHY.into()));
    assert_eq!(show("GET /health", &alarmed(AlarmType::NoSpace), &READ), unhealthy("ALARM NOSPACE"));
    assert_eq!(show("GET /health", &alarmed(AlarmType::Corrupt), &READ), unhealthy("ALARM CORRUPT"));
    assert_eq!(show("GET /health", &alarmed(AlarmType::Unknown(9)), &READ), unhealthy("ALARM UNKNOWN"));
    let text = unhealthy("RANGE ERROR:etcdserver: request timed out");
    assert_eq!(show("GET /health", &good(), &UNREAD), text);
    assert_eq!(show("GET /health?serializable=true", &good(), &UNREAD), (200, HEALTHY.into()));
}

#[test]
fn health_leaves_out_what_is_excluded() {
    let full = alarmed(AlarmType::NoSpace);
    assert_eq!(show("GET /health?exclude=NOSPACE", &full, &READ).0, 200);
    assert_eq!(show("GET /health?exclude=CORRUPT&exclude=NOSPACE", &full, &READ).0, 200);
    assert_eq!(show("GET /health?exclude=CORRUPT", &full, &READ).0, 503);
    assert_eq!(show("GET /health?exclude=", &full, &READ).0, 503);
}

#[test]
fn readyz_lists_every_check_when_it_fails_or_is_asked() {
    assert_eq!(show("GET /readyz", &good(), &READ), (200, "ok\n".into()));
    let all =
        "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\nok\n";
    assert_eq!(show("GET /readyz?verbose", &good(), &READ), (200, all.into()));
    let failed = "[+]data_corruption ok\n[+]serializable_read ok\n\
                  [-]linearizable_read failed: etcdserver: request timed out\n[+]non_learner ok\n\n";
    assert_eq!(show("GET /readyz", &good(), &UNREAD), (503, failed.into()));
    assert_eq!(
        show("GET /readyz?exclude=linearizable_read&exclude=foo", &good(), &UNREAD),
        (200, "ok\n".into())
    );
    assert_eq!(show("GET /readyz", &alarmed(AlarmType::NoSpace), &READ), (200, "ok\n".into()));
    let corrupt = show("GET /readyz/data_corruption", &alarmed(AlarmType::Corrupt), &READ);
    assert_eq!(corrupt, (503, "[-]data_corruption failed: alarm activated: CORRUPT\n\n".into()));
    let learner = Facts { is_learner: true, ..good() };
    let text = "[-]non_learner failed: not supported for learner\n\n";
    assert_eq!(show("GET /readyz/non_learner", &learner, &READ), (503, text.into()));
    let response = page_of("GET /readyz").render(&good(), &READ);
    assert!(response.nosniff && response.content_type == Some(ContentType::Text));
}

#[test]
fn livez_checks_the_local_read_alone() {
    let line = "[+]serializable_read ok\nok\n".to_owned();
    assert_eq!(show("GET /livez?verbose", &alarmed(AlarmType::Corrupt), &UNREAD), (200, line.clone()));
    assert_eq!(show("GET /livez/serializable_read?verbose=", &good(), &UNREAD), (200, line));
    assert_eq!(show("GET /livez?exclude=serializable_read&verbose", &good(), &READ), (200, "ok\n".into()));
}

#[test]
fn other_paths_and_methods_are_refused() {
    for line in
        ["GET /", "GET /livez/linearizable_read", "GET /readyz/x", "GET /livezz", "GET /health/", "POST /v3"]
    {
        assert_eq!(show(line, &good(), &READ), (404, "404 page not found\n".into()), "{line}");
    }
    for line in ["POST /health", "HEAD /version", "PUT /readyz", "POST /livez/serializable_read"] {
        let response = page_of(line).render(&good(), &READ);
        assert_eq!((response.status, response.allow), (405, Some("GET")), "{line}");
    }
    assert_eq!(page_of("POST /metrics"), Page::Metrics);
}
