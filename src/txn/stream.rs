//! RangeStream: one range as a sequence of chunks whose merge is the answer of the plain Range.

use crate::api::{RangeReply, RangeRequest};
use crate::limits::STREAM_CHUNK_KEYS_FIRST;
use crate::types::Revision;
use bytes::{BufMut, Bytes, BytesMut};

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
}

impl RangeStream {
    /// Begins a stream that reads at `at` (see [`super::read_revision`]) and shows `header` in its last
    /// chunk.
    pub fn open(mut request: RangeRequest, at: Revision, header: Revision) -> RangeStream {
        request.revision = at.wire();
        request.sort_target = 0; // Without an order etcd streams in the order of keys.
        let left = u64::try_from(request.limit).ok().filter(|limit| *limit > 0);
        RangeStream { request, header, left, chunk_keys: STREAM_CHUNK_KEYS_FIRST, sent: 0, done: false }
    }

    /// The range of the next chunk, and whether its count has to be the total; `None` after the last.
    pub fn next(&self) -> Option<(RangeRequest, super::Counting)> {
        if self.done {
            return None;
        }
        let mut request = self.request.clone();
        request.limit = self.limit().cast_signed();
        let last = request.count_only || self.left == Some(self.limit());
        Some((request, if last { super::Counting::Total } else { super::Counting::Seen }))
    }

    fn limit(&self) -> u64 {
        self.left.map_or(self.chunk_keys, |left| left.min(self.chunk_keys)).min(i64::MAX as u64)
    }

    /// Turns the answer to [`RangeStream::next`] into a chunk and chooses the size of the next so that it
    /// comes near `target` bytes. `bytes` is the size of this answer. Header, `more` and `count` stand in the
    /// last chunk only.
    pub fn chunk(&mut self, mut reply: RangeReply, bytes: usize, target: usize) -> RangeReply {
        let limit = self.limit();
        let kvs = reply.kvs.len() as u64;
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

/// The key behind this one.
fn after(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}
