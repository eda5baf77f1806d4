//! RangeStream: one range as a sequence of chunks whose merge is the answer of the plain Range.
//!
//! In the order of keys each chunk is a range of its own. A target without an order makes Range sort what it
//! shows, so there the whole is read at once and given out piece by piece. (etcd sorts each chunk for itself and
//! goes on behind the last key of the one before, wherever that lies.)

use crate::api::{KeysOnly, RangeReply, RangeRequest};
use crate::limits::STREAM_CHUNK_KEYS_FIRST;
use crate::types::{KeyValue, Revision};
use bytes::{BufMut, Bytes, BytesMut};
use std::vec::IntoIter;

/// Where a stream stands. Each chunk is a range of its own at the stream's revision: ask [`RangeStream::next`]
/// what to read, hand the answer to [`RangeStream::chunk`].
#[derive(Debug)]
pub struct RangeStream {
    request: RangeRequest,
    header: Revision,
    /// Keys the client still wants; `None` is without limit.
    left: Option<u64>,
    chunk_keys: u64,
    sent: u64,
    done: bool,
    /// The revision that the client named.
    named: i64,
    /// What was read at once and is not given out.
    sorted: Option<Sorted>,
}

/// What comes next in a stream.
#[derive(Debug)]
pub enum Next {
    /// A range to read, and whether its count has to be the total.
    Read(RangeRequest, super::Counting),
    /// What was read has another [`RangeStream::piece`].
    Piece,
}

#[derive(Debug)]
struct Sorted {
    kvs: IntoIter<KeyValue>,
    keys_only: KeysOnly,
    more: bool,
    count: u64,
}

impl RangeStream {
    /// Begins a stream that reads at `at` (see [`super::read_revision`]) and shows `header` in its last
    /// chunk.
    pub fn open(mut request: RangeRequest, at: Revision, header: Revision) -> RangeStream {
        assert!(at <= header, "a stream reads nothing above what its header shows: {at} of {header}");
        let named = std::mem::replace(&mut request.revision, at.wire());
        let left = u64::try_from(request.limit).ok().filter(|limit| *limit > 0);
        let (chunk_keys, sent) = (STREAM_CHUNK_KEYS_FIRST, 0);
        RangeStream { request, header, left, chunk_keys, sent, done: false, named, sorted: None }
    }

    /// Whether the whole is read before the first chunk.
    pub fn is_read_at_once(&self) -> bool {
        self.request.sort_target != 0 && !self.request.count_only
    }

    /// What the client asked for.
    pub fn into_request(self) -> RangeRequest {
        RangeRequest { revision: self.named, ..self.request }
    }

    /// What to read for the next chunk; `None` after the last.
    pub fn next(&self) -> Option<Next> {
        if self.done {
            return None;
        }
        if self.is_read_at_once() {
            let read = || Next::Read(self.request.clone(), super::Counting::Total);
            return Some(self.sorted.as_ref().map_or_else(read, |_| Next::Piece));
        }
        let mut request = self.request.clone();
        request.limit = self.limit().cast_signed();
        let last = request.count_only || self.left == Some(self.limit());
        Some(Next::Read(request, if last { super::Counting::Total } else { super::Counting::Seen }))
    }

    fn limit(&self) -> u64 {
        self.left.map_or(self.chunk_keys, |left| left.min(self.chunk_keys)).min(i64::MAX as u64)
    }

    /// Turns the answer to [`RangeStream::next`] into a chunk and chooses the size of the next so that it
    /// comes near `target` bytes. `bytes` is the size of this answer. Header, `more` and `count` stand in the
    /// last chunk only.
    pub fn chunk(&mut self, mut reply: RangeReply, bytes: usize, target: usize) -> RangeReply {
        assert!(!self.done, "nothing is read behind the last chunk");
        assert!(self.sorted.is_none(), "what is read at once is read once");
        if self.is_read_at_once() {
            let RangeReply { kvs, keys_only, more, count, .. } = reply;
            self.sorted = Some(Sorted { kvs: kvs.into_iter(), keys_only, more, count });
            return self.piece(target);
        }
        let limit = self.limit();
        let kvs = reply.kvs.len() as u64;
        assert!(kvs <= limit, "a chunk has at most what was asked for: {kvs} of {limit}");
        let wanted_all = self.left == Some(kvs);
        self.done = !reply.more || wanted_all;
        if self.done {
            reply.revision = self.header;
            reply.count += self.sent;
            return reply;
        }
        self.sent += kvs;
        self.left = self.left.map(|left| left - kvs);
        let last = reply.kvs.last().expect("a range cut by its limit shows a key");
        assert!(last.key[..] >= self.request.key[..], "a stream goes forward");
        self.request.key = after(&last.key);
        self.chunk_keys = if bytes < target / 2 {
            limit.saturating_mul(2)
        } else if bytes > target.saturating_mul(2) {
            (limit / 2).max(1)
        } else {
            limit
        };
        RangeReply { revision: Revision::NONE, more: false, count: 0, ..reply }
    }
}

impl RangeStream {
    /// The next of what was read at once, of about `target` bytes.
    pub fn piece(&mut self, target: usize) -> RangeReply {
        assert!(!self.done, "nothing follows the last piece");
        let sorted = self.sorted.as_mut().expect("a piece is of what was read");
        let (mut kvs, mut bytes) = (vec![], 0);
        while bytes < target
            && let Some(kv) = sorted.kvs.next()
        {
            bytes += size_of::<KeyValue>() + kv.key.len() + kv.value.len();
            kvs.push(kv);
        }
        self.done = sorted.kvs.len() == 0;
        let mut piece = RangeReply { kvs, keys_only: sorted.keys_only, ..RangeReply::default() };
        if self.done {
            (piece.revision, piece.more, piece.count) = (self.header, sorted.more, sorted.count);
        }
        piece
    }

    /// What the stream holds of what was read at once: at first all of it, at last nothing.
    pub fn kept_bytes(&self) -> usize {
        let kept = |sorted: &Sorted| {
            let kvs = sorted.kvs.as_slice();
            let sample = kvs.iter().take(SAMPLE).map(|kv| kv.key.len() + kv.value.len()).sum::<usize>();
            size_of_val(kvs) + sample / kvs.len().clamp(1, SAMPLE) * kvs.len()
        };
        self.sorted.as_ref().map_or(0, kept)
    }
}

/// Pairs whose size tells that of the others.
const SAMPLE: usize = 64;

/// The key behind this one.
fn after(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}
