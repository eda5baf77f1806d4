//! The forms of a Watch stream's replies.
//!
//! Texts are part of the API: the Go client compares the two about authentication with what it expects, and
//! there the text carries gRPC's prefix, as etcd's server happens to print it.

use crate::api::{WatchEvent, WatchReply};
use crate::types::{Event, KeyValue, LeaseId, Revision};

/// The id of replies that concern no single watcher.
pub const NO_WATCHER: i64 = -1;

pub const NEGATIVE_START: &str = "etcdserver: mvcc: required revision has been compacted";
pub const EMPTY_RANGE: &str = "mvcc: watcher range is empty";
pub const DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";

/// Why a watch is not permitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthError {
    InvalidAuthToken,
    AuthOldRevision,
    UserEmpty,
    PermissionDenied,
}

impl AuthError {
    pub fn reason(self) -> &'static str {
        match self {
            AuthError::InvalidAuthToken => {
                "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token"
            }
            AuthError::AuthOldRevision => {
                "rpc error: code = InvalidArgument desc = etcdserver: revision of auth store is old"
            }
            AuthError::UserEmpty => "rpc error: code = InvalidArgument desc = etcdserver: user name is empty",
            AuthError::PermissionDenied => {
                "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
            }
        }
    }
}

pub fn created(watch_id: i64, revision: Revision) -> WatchReply {
    WatchReply { revision, watch_id, created: true, ..WatchReply::default() }
}

/// The reply for a watch that never was: created and canceled at once, under no id.
pub fn refused(cancel_reason: &'static str, revision: Revision) -> WatchReply {
    let watch_id = NO_WATCHER;
    WatchReply { revision, watch_id, created: true, canceled: true, cancel_reason, ..WatchReply::default() }
}

pub fn canceled(watch_id: i64, revision: Revision) -> WatchReply {
    WatchReply { revision, watch_id, canceled: true, ..WatchReply::default() }
}

/// The reply for a compacted watch, without a reason and with a header of revision 0 (etcd's law).
pub fn compacted(watch_id: i64, compact_revision: Revision) -> WatchReply {
    WatchReply { watch_id, canceled: true, compact_revision, ..WatchReply::default() }
}

pub fn progress(watch_id: i64, revision: Revision) -> WatchReply {
    WatchReply { revision, watch_id, ..WatchReply::default() }
}

pub fn events(watch_id: i64, revision: Revision, events: Vec<WatchEvent>) -> WatchReply {
    WatchReply { revision, watch_id, events, ..WatchReply::default() }
}

/// Cuts a reply where it reaches `bytes_max` on the wire, never inside an event; all parts but the last say
/// that more follows.
pub fn fragments(whole: WatchReply, bytes_max: usize) -> Vec<WatchReply> {
    let head = WatchReply { events: Vec::new(), ..whole.clone() };
    let base = HEADER_BYTES_MAX + 1 + varint_bytes(whole.watch_id as u64);
    let (mut parts, mut bytes) = (vec![head.clone()], base);
    for event in whole.events {
        let size = event_bytes(&event);
        let last = parts.last_mut().expect("there is a first part");
        if !last.events.is_empty() && bytes + size >= bytes_max {
            last.fragment = true;
            parts.push(head.clone());
            bytes = base;
        }
        bytes += size;
        parts.last_mut().expect("there is a first part").events.push(event);
    }
    parts
}

/// The response header at its longest, which differs from the true length by a few bytes.
const HEADER_BYTES_MAX: usize = 2 + 11 + 11 + 10 + 11;

/// The length of an event in a reply on the wire, with its tag.
pub fn event_bytes(event: &WatchEvent) -> usize {
    let (kind, kv) = match &event.event {
        Event::Put(kv) => (0, kv_bytes(kv)),
        Event::Delete { key, mod_revision } => (2, field_bytes(key.len()) + number_bytes(mod_revision.0)),
    };
    let prev = event.prev_kv.as_ref().map_or(0, |kv| delimited_bytes(kv_bytes(kv)));
    delimited_bytes(kind + delimited_bytes(kv) + prev)
}

fn kv_bytes(kv: &KeyValue) -> usize {
    let LeaseId(lease) = kv.lease;
    field_bytes(kv.key.len())
        + field_bytes(kv.value.len())
        + [kv.create_revision.0, kv.mod_revision.0, kv.version, lease as u64]
            .map(number_bytes)
            .iter()
            .sum::<usize>()
}

/// The length of a field of bytes, which is absent where empty.
fn field_bytes(len: usize) -> usize {
    if len == 0 { 0 } else { delimited_bytes(len) }
}

fn delimited_bytes(len: usize) -> usize {
    1 + varint_bytes(len as u64) + len
}

/// The length of a number, which is absent where 0.
fn number_bytes(number: u64) -> usize {
    if number == 0 { 0 } else { 1 + varint_bytes(number) }
}

fn varint_bytes(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}
