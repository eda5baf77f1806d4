//! Histories that could not have been are refused.

use super::*;
use crate::api::Error;
use crate::sim::boot::Identity;
use crate::sim::history::{Known, Stream};

struct Told(History);

impl Told {
    /// By three members.
    fn new() -> Told {
        Told(History::of(Known { members: (0..3).map(Identity::of).collect(), ..Known::default() }))
    }

    /// A call that is answered before the next one is made: with this, or with an error.
    fn call(
        &mut self,
        member: usize,
        method: Method,
        request: &impl Message,
        answer: Result<Vec<u8>, Error>,
    ) {
        let now = Time(0);
        self.0.invoke(now, 0, member, method, request.encode_to_vec().into());
        let returned = self.0.moment(now);
        let op = self.0.ops.last_mut().unwrap();
        op.returned = Some(returned);
        match answer {
            Ok(message) => op.messages.push(message.into()),
            Err(error) => op.status = (error.code() as u8, error.to_string()),
        }
    }

    fn header(revision: i64) -> Option<proto::ResponseHeader> {
        Some(proto::ResponseHeader { revision, ..Default::default() })
    }

    fn grant(&mut self, member: usize, id: i64) {
        let answer =
            proto::LeaseGrantResponse { header: Told::header(1), id, ttl: 1000, ..Default::default() };
        let request = proto::LeaseGrantRequest { id, ttl: 1000 };
        self.call(member, Method::LeaseGrant, &request, Ok(answer.encode_to_vec()));
    }

    fn lists(&mut self, member: usize, leases: &[i64]) {
        let leases = leases.iter().map(|id| proto::LeaseStatus { id: *id }).collect();
        let answer = proto::LeaseLeasesResponse { header: Told::header(1), leases };
        let request = proto::LeaseLeasesRequest::default();
        self.call(member, Method::LeaseLeases, &request, Ok(answer.encode_to_vec()));
    }

    fn reads(&mut self, member: usize, revision: i64, finds: bool) {
        let request =
            proto::RangeRequest { key: "k".into(), revision, serializable: true, ..Default::default() };
        let answer = proto::RangeResponse { header: Told::header(9), ..Default::default() };
        let answer = if finds { Ok(answer.encode_to_vec()) } else { Err(Error::Compacted) };
        self.call(member, Method::Range, &request, answer);
    }

    /// What the checks of leases and compactions say.
    fn fails(&self) -> bool {
        let evidence = Evidence::gather(&self.0, 1).unwrap();
        leases::check(&evidence, &[]).is_err() || compactions::check(&evidence).is_err()
    }
}

#[test]
fn a_member_lists_no_fewer_leases_than_it_has_listed() {
    for (member, fails) in [(1, true), (2, false)] {
        let mut told = Told::new();
        told.grant(0, 7);
        told.lists(1, &[]); // It has not heard of it.
        told.lists(1, &[7]);
        assert!(!told.fails());
        told.lists(member, &[]);
        assert_eq!(told.fails(), fails, "m{member}");
    }
}

#[test]
fn a_lease_that_is_listed_no_more_is_never_listed_again() {
    for (member, fails) in [(1, true), (2, false)] {
        let mut told = Told::new();
        told.grant(0, 7);
        told.lists(1, &[7]);
        told.call(0, Method::LeaseRevoke, &proto::LeaseRevokeRequest { id: 7 }, Err(Error::Timeout));
        told.lists(1, &[]);
        assert!(!told.fails());
        told.lists(member, &[7]);
        assert_eq!(told.fails(), fails, "m{member}");
    }
}

#[test]
fn what_a_member_has_called_compacted_it_reads_no_more() {
    for (member, revision, fails) in [(1, 5, true), (1, 6, false), (2, 5, false)] {
        let mut told = Told::new();
        told.reads(1, 5, true);
        told.reads(1, 5, false);
        assert!(!told.fails());
        told.reads(member, revision, true);
        assert_eq!(told.fails(), fails, "m{member} at {revision}");
    }
}

#[test]
fn history_is_lost_with_a_state_that_was_taken_and_not_before() {
    for (taken_first, fails) in [(true, false), (false, true)] {
        let mut told = Told::new();
        told.reads(2, 0, true);
        let Told(mut history) = told;
        let mut moment = || history.moment(Time(0));
        let (opened, created, early, canceled, late) = (moment(), moment(), moment(), moment(), moment());
        let create = proto::WatchCreateRequest { key: "k".into(), ..Default::default() };
        let begun = proto::WatchResponse { header: Told::header(1), created: true, ..Default::default() };
        let end = proto::WatchResponse {
            header: Told::header(9),
            canceled: true,
            compact_revision: 5,
            ..Default::default()
        };
        history.streams.push(Stream {
            client: 0,
            member: 1,
            creates: vec![(opened, create)],
            progress_asked: vec![],
            cancels: vec![],
            responses: vec![(created, begun), (canceled, end)],
            opened,
            ended: None,
        });
        history.known.compacts_itself = true;
        history.took_states.insert(1, if taken_first { early } else { late });
        let evidence = Evidence::gather(&history, 1).unwrap();
        assert_eq!(watches::check(&evidence, None).is_err(), fails, "{taken_first}");
    }
}

/// That an observer was shown a revision says nothing of the others' watches.
#[test]
fn what_observers_have_seen_other_watches_may_be_shown_later() {
    let mut history = Told::new().0;
    let event = |revision| proto::Event {
        kv: Some(proto::KeyValue {
            key: "k".into(),
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            ..Default::default()
        }),
        ..Default::default()
    };
    let shows = |revision| proto::WatchResponse {
        header: Told::header(revision),
        events: vec![event(revision)],
        ..Default::default()
    };
    for client in [0, 1] {
        let mut moment = || history.moment(Time(0));
        let (opened, created, shown) = (moment(), moment(), moment());
        let create = proto::WatchCreateRequest { key: "k".into(), ..Default::default() };
        let begun = proto::WatchResponse { header: Told::header(1), created: true, ..Default::default() };
        let mut responses = vec![(created, begun)];
        responses.extend((client == 1).then(|| (shown, shows(2))));
        let (progress_asked, cancels) = (vec![], vec![]);
        let creates = vec![(opened, create)];
        let stream =
            Stream { client, member: 1, creates, progress_asked, cancels, responses, opened, ended: None };
        history.streams.push(stream);
    }
    assert!(check_shown(&history, 1, 1).is_ok());
    let lacks = check_shown(&history, 1, 2).unwrap_err();
    assert!(lacks.what.contains("has not been shown revision 2"), "{lacks:?}");
    let shown = history.moment(Time(0));
    history.streams[0].responses.push((shown, shows(2)));
    assert!(check_shown(&history, 1, 2).is_ok());
    history.streams[0].responses.pop();
    history.streams[0].ended = Some(shown);
    assert!(check_shown(&history, 1, 2).is_ok());
}

#[test]
fn a_change_is_refused_for_what_somebody_has_done() {
    let mut told = Told::new();
    told.0.known.newcomers = 1;
    let url = told.0.known.members[2].peer_url.clone();
    let add = proto::MemberAddRequest { peer_urls: vec![url], is_learner: true };
    let promote = proto::MemberPromoteRequest { id: 9 };
    let remove = proto::MemberRemoveRequest { id: 9 };
    let range = proto::RangeRequest::default();
    let refused = |told: &mut Told, method, request: &dyn Fn() -> Vec<u8>, error: Error| {
        told.0.invoke(Time(0), 0, 2, method, request().into());
        let returned = told.0.moment(Time(0));
        let op = told.0.ops.last_mut().unwrap();
        (op.returned, op.status) = (Some(returned), (error.code() as u8, error.to_string()));
        members::may_be_refused(&told.0, told.0.ops.last().unwrap())
    };
    let asked = [
        (Method::MemberAdd, add.encode_to_vec(), Error::PeerUrlExists),
        (Method::MemberAdd, add.encode_to_vec(), Error::TooManyLearners),
        (Method::MemberPromote, promote.encode_to_vec(), Error::NotLearner),
        (Method::MemberRemove, remove.encode_to_vec(), Error::MemberNotFound),
    ];
    for (method, request, error) in asked {
        let mut told = Told(told.0.clone());
        let request = || request.clone();
        let by_whom = format!("{method:?} {error}");
        assert!(!refused(&mut told, method, &request, error.clone()), "{by_whom}: nobody did that");
        assert!(refused(&mut told, method, &request, error), "{by_whom}: the call before");
    }
    let range = || range.encode_to_vec();
    assert!(!refused(&mut told, Method::Range, &range, Error::NotSupportedForLearner), "it is none");
    told.call(0, Method::MemberAdd, &add, Err(Error::Unhealthy));
    assert!(refused(&mut told, Method::Range, &range, Error::NotSupportedForLearner));
    assert!(!refused(&mut told, Method::Range, &range, Error::MemberNotFound));
    told.0.known.newcomers = 0;
    assert!(!refused(&mut told, Method::Range, &range, Error::NotSupportedForLearner), "nobody comes");
}
