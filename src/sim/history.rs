//! What clients saw, and when: all that the checks may use.

use super::boot::Identity;
use super::plan::OpKind;
use crate::api::Error;
use crate::front::{DROPPED, NOT_TAKEN};
use crate::types::{ClusterId, MemberId, Time};
use crate::wire::Method;
use crate::wire::proto::{self, Message};
use bytes::Bytes;
use std::collections::BTreeMap;

/// A moment of the run: ticks order what happens at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    pub tick: u64,
    pub time: Time,
}

/// One call with one request.
#[derive(Clone, Debug)]
pub struct Op {
    pub client: usize,
    /// The place of the member that was asked.
    pub member: usize,
    pub method: Method,
    pub request: Bytes,
    pub invoked: Moment,
    /// `None`: its outcome is unknown for ever.
    pub returned: Option<Moment>,
    pub messages: Vec<Bytes>,
    pub status: (u8, String),
}

impl Op {
    /// Answered without an error.
    pub fn is_ok(&self) -> bool {
        self.returned.is_some() && self.status.0 == 0
    }

    /// Whether it may or may not have happened.
    pub fn is_unknown(&self) -> bool {
        match (&self.returned, self.status.0) {
            (None, _) => true,
            (Some(_), _) if self.is_unprocessed() || self.is_refused() => false,
            (Some(_), _) if self.is_leaderless() || self.is_unchanged() => false,
            (Some(_), _) if [DROPPED, NOT_TAKEN].contains(&&self.status.1[..]) => true,
            // Deadlines, the end of an epoch, a connection that closes.
            (Some(_), code) => matches!(code, 1 | 2 | 4 | 13 | 14),
        }
    }

    /// Behind the last call that the server takes of a connection that it ends (RFC 9113, 6.8), and so never looked at.
    pub fn is_unprocessed(&self) -> bool {
        self.returned.is_some() && self.status.1 == UNPROCESSED
    }

    /// Told to come again, and so never looked at.
    pub fn is_refused(&self) -> bool {
        self.returned.is_some() && self.status.1 == Error::TooManyRequests.to_string()
    }

    /// Told that nobody leads, and so never done.
    pub fn is_leaderless(&self) -> bool {
        self.returned.is_some() && self.status.1 == Error::NoLeader.to_string()
    }

    /// Told that members are not changed as they are, which is looked at before anything is done.
    pub fn is_unchanged(&self) -> bool {
        let texts = [Error::Unhealthy, Error::NotEnoughStarted].map(|error| error.to_string());
        self.returned.is_some() && texts.contains(&self.status.1)
    }

    /// The revision of the answer's header, where it has one.
    pub fn revision(&self) -> Option<i64> {
        // etcd shows none with these.
        if !self.is_ok()
            || matches!(self.method, Method::Defragment | Method::MoveLeader)
            || is_of_members(self.method)
        {
            return None;
        }
        let message = self.messages.first()?;
        if self.method == Method::RangeStream {
            let last = self.messages.last()?;
            let chunk = proto::RangeStreamResponse::decode(last.clone()).ok()?;
            return Some(chunk.range_response?.header?.revision);
        }
        Some(header(message)?.revision)
    }
}

/// What a client says of a call that its server has not taken before it ended the connection.
pub const UNPROCESSED: &str = "the connection ends, and the call was not processed";

pub use crate::wire::proto::ResponseHeader as Header;

/// Every reply but a chunk's begins with its header.
pub fn header(message: &Bytes) -> Option<proto::ResponseHeader> {
    proto::CompactionResponse::decode(message.clone()).ok()?.header
}

/// One Watch call.
#[derive(Clone, Debug)]
pub struct Stream {
    pub client: usize,
    /// The place of the member that it is with.
    pub member: usize,
    /// In the order in which they were sent; the server numbers watches in this order.
    pub creates: Vec<(Moment, proto::WatchCreateRequest)>,
    /// When it asked how far it has been told all.
    pub progress_asked: Vec<Moment>,
    /// The watches that it asked to cancel, and when.
    pub cancels: Vec<(Moment, i64)>,
    pub responses: Vec<(Moment, proto::WatchResponse)>,
    pub opened: Moment,
    /// When it ended, in whatever way.
    pub ended: Option<Moment>,
}

/// What the checks may know of the world beside.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub cluster: ClusterId,
    /// In the order of their places. Who has not joined yet has no id.
    pub members: Vec<Identity>,
    /// How many of them, the last ones, have not founded the cluster.
    pub newcomers: usize,
    /// Members compact history of their own accord.
    pub compacts_itself: bool,
    /// Some limit is so small that honest clients are told to come again.
    pub refuses: bool,
    pub quota_bytes: Option<u64>,
    /// When a disk was full first.
    pub full_since: Option<Moment>,
    pub reigns: Vec<Reign>,
    /// The member that goes on alone, and since when all others are lost for ever.
    pub alone: Option<(MemberId, Moment)>,
}

/// An epoch that served.
#[derive(Clone, Copy, Debug)]
pub struct Reign {
    /// The place of the member that led.
    pub member: usize,
    pub begun: Moment,
    pub term: u64,
}

#[derive(Clone, Debug, Default)]
pub struct History {
    pub known: Known,
    pub ops: Vec<Op>,
    pub streams: Vec<Stream>,
    /// By this moment every watch then open has been shown everything up to the revision.
    pub quiet: Option<(Moment, i64)>,
    /// When members first took another's state in the place of their own: the history between is gone there.
    pub took_states: BTreeMap<usize, Moment>,
    ticks: u64,
}

impl Known {
    /// How many members have founded the cluster.
    pub fn founders(&self) -> usize {
        self.members.len() - self.newcomers
    }
}

impl History {
    pub fn of(known: Known) -> History {
        History { known, ..History::default() }
    }

    pub fn moment(&mut self, time: Time) -> Moment {
        self.ticks += 1;
        Moment { tick: self.ticks, time }
    }

    /// The number that the next call gets.
    pub fn next(&self) -> usize {
        self.ops.len()
    }

    /// The members that somebody has asked to remove.
    pub fn removals(&self) -> impl Iterator<Item = MemberId> {
        let removals = self.ops.iter().filter(|op| op.method == Method::MemberRemove);
        removals
            .map(|op| MemberId(proto::MemberRemoveRequest::decode(op.request.clone()).map_or(0, |of| of.id)))
    }

    pub fn invoke(&mut self, now: Time, client: usize, member: usize, method: Method, request: Bytes) {
        let invoked = self.moment(now);
        self.ops.push(Op {
            client,
            member,
            method,
            request,
            invoked,
            returned: None,
            messages: vec![],
            status: (0, String::new()),
        });
    }
}

/// Whether it is about who the members are.
pub fn is_of_members(method: Method) -> bool {
    method == Method::MemberList || is_change(method)
}

/// Whether it changes who the members are.
pub fn is_change(method: Method) -> bool {
    use Method::{MemberAdd, MemberPromote, MemberRemove, MemberUpdate};
    matches!(method, MemberAdd | MemberRemove | MemberUpdate | MemberPromote)
}

/// Which call a kind of operation makes.
pub fn method_of(kind: OpKind) -> Method {
    match kind {
        OpKind::Put => Method::Put,
        OpKind::Delete => Method::DeleteRange,
        OpKind::Txn => Method::Txn,
        OpKind::Range => Method::Range,
        OpKind::RangeStream => Method::RangeStream,
        OpKind::Compact => Method::Compact,
        OpKind::Grant => Method::LeaseGrant,
        OpKind::KeepAlive => Method::LeaseKeepAlive,
        OpKind::Revoke => Method::LeaseRevoke,
        OpKind::TimeToLive => Method::LeaseTimeToLive,
        OpKind::Watch | OpKind::WatchMore => Method::Watch,
        OpKind::HashKv => Method::HashKv,
        OpKind::Status => Method::Status,
        OpKind::Disarm | OpKind::Alarms => Method::Alarm,
        OpKind::Leases => Method::LeaseLeases,
        OpKind::Members => Method::MemberList,
        OpKind::Hash => Method::Hash,
        OpKind::Defragment => Method::Defragment,
        OpKind::MoveLeader => Method::MoveLeader,
    }
}
