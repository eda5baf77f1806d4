//! The requests, and whether their answers are right.
//!
//! A key is `load/`, 16 hexadecimal digits, and dots up to its length. The digits are the key's number, or
//! with `scattered` the number mixed, so that neighbours in number are far apart in order. A value begins with the
//! number of its key, so that a range can tell that it got the right one; the rest is random bytes.
//!
//! What is checked: a revision in every header; a put's revision is above every revision that any answer
//! had shown when the put was sent, and no two puts have the same; a linearizable range is not behind those
//! revisions; a range returns the key asked for (or, with a limit, keys in order from there) with values
//! of their keys. A guarded put is a transaction, as kube-apiserver's updates are: it puts if the key's
//! revision is the last one known, else it reads the key; what it did is judged as a put or a range.

use braid::stdx::Rng;
use braid::wire::proto::{
    Compare, PutRequest, PutResponse, RangeRequest, RangeResponse, RequestOp, ResponseHeader, TxnRequest,
    TxnResponse, compare::TargetUnion, request_op::Request as Union, response_op::Response,
};
use bytes::Bytes;
use prost::Message;

const PREFIX: &[u8] = b"load/";
const PREFIX_END: &[u8] = b"load0";
const DIGITS: usize = 16;
pub const KEY_BYTES_MIN: usize = PREFIX.len() + DIGITS;
/// Bytes of a value that tell its key.
const MARK_BYTES: usize = 8;
/// Puts' revisions are remembered from so far below the first one seen.
const EARLIER_REVISIONS: i64 = 1 << 16;
const REVISIONS_MAX: i64 = 1 << 33;

/// What is asked for.
#[derive(Clone, Copy)]
pub struct Workload {
    pub keys: u64,
    pub key_bytes: usize,
    pub value_bytes: usize,
    /// Keys whose numbers are neighbours are far apart.
    pub scattered: bool,
    /// Keys are taken one after the other, not at random.
    pub in_turn: bool,
    /// Puts among a hundred requests; the others are ranges.
    pub puts_percent: u64,
    /// Puts are transactions that compare the key's revision first.
    pub guarded: bool,
    pub serializable: bool,
    /// 1 is a range of one key; more is that many from a key on.
    pub limit: u64,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Put,
    Guarded,
    Range,
}

impl Kind {
    pub fn path(self) -> &'static str {
        match self {
            Kind::Put => "/etcdserverpb.KV/Put",
            Kind::Guarded => "/etcdserverpb.KV/Txn",
            Kind::Range => "/etcdserverpb.KV/Range",
        }
    }
}

/// One request, as its answer is judged by.
#[derive(Clone, Copy)]
pub(crate) struct Request {
    pub kind: Kind,
    key: u64,
    /// The highest revision known when it was sent.
    floor: i64,
}

/// A message whose key (and value) is written anew for each request.
struct Template {
    bytes: Vec<u8>,
    digits_at: usize,
    mark_at: usize,
}

impl Template {
    fn new(bytes: Vec<u8>, mark_at: usize) -> Template {
        let key_at = bytes.windows(PREFIX.len()).position(|window| window == PREFIX);
        Template { digits_at: key_at.expect("the key is in the message") + PREFIX.len(), bytes, mark_at }
    }
}

/// Makes requests and judges answers.
pub(crate) struct Book {
    workload: Workload,
    rng: Rng,
    turn: u64,
    put: Template,
    range: Template,
    /// The message of the last guarded put.
    guarded: Vec<u8>,
    value: Bytes,
    /// The last known revision of each key, where puts are guarded.
    known: Vec<i64>,
    highest: i64,
    /// A bit for each revision of a put from `revisions_from` on.
    revisions: Vec<u64>,
    revisions_from: i64,
}

impl Book {
    pub fn new(workload: &Workload, seed: u64) -> Book {
        let mut rng = Rng::new(seed);
        let key = Bytes::from(key_of(workload, 0));
        let value: Vec<u8> = (0..workload.value_bytes).map(|_| rng.next_u64() as u8).collect();
        let value = Bytes::from(value);
        let put = PutRequest { key: key.clone(), value: value.clone(), ..PutRequest::default() };
        let put = put.encode_to_vec();
        let mark_at = put.len() - workload.value_bytes;
        let many = workload.limit > 1;
        let range = RangeRequest {
            key,
            range_end: if many { Bytes::from_static(PREFIX_END) } else { Bytes::new() },
            limit: if many { workload.limit as i64 } else { 0 },
            serializable: workload.serializable,
            ..RangeRequest::default()
        };
        Book {
            workload: *workload,
            rng,
            turn: 0,
            put: Template::new(put, mark_at),
            range: Template::new(range.encode_to_vec(), 0),
            guarded: Vec::new(),
            value,
            known: vec![0; if workload.guarded { workload.keys as usize } else { 0 }],
            highest: 0,
            revisions: Vec::new(),
            revisions_from: 0,
        }
    }

    /// The next request and its message.
    pub fn next(&mut self) -> (Request, &[u8]) {
        let Workload { keys, scattered, in_turn, puts_percent, .. } = self.workload;
        let number = if in_turn {
            self.turn += 1;
            (self.turn - 1) % keys
        } else {
            self.rng.below(keys)
        };
        let put = puts_percent == 100 || (puts_percent > 0 && self.rng.chance(puts_percent, 100));
        if put && self.workload.guarded {
            self.guard(number);
            return (Request { kind: Kind::Guarded, key: number, floor: self.highest }, &self.guarded);
        }
        let (kind, template) = if put { (Kind::Put, &mut self.put) } else { (Kind::Range, &mut self.range) };
        write_digits(&mut template.bytes[template.digits_at..][..DIGITS], scattered, number);
        if put {
            let mark = self.workload.value_bytes.min(MARK_BYTES);
            template.bytes[template.mark_at..][..mark].copy_from_slice(&number.to_le_bytes()[..mark]);
        }
        (Request { kind, key: number, floor: self.highest }, &template.bytes)
    }

    fn guard(&mut self, number: u64) {
        let key = Bytes::from(key_of(&self.workload, number));
        let mut value = self.value.to_vec();
        let mark = value.len().min(MARK_BYTES);
        value[..mark].copy_from_slice(&number.to_le_bytes()[..mark]);
        let op = |request| vec![RequestOp { request: Some(request) }];
        let put = PutRequest { key: key.clone(), value: value.into(), ..PutRequest::default() };
        let range = RangeRequest { key: key.clone(), ..RangeRequest::default() };
        let compare = Compare {
            target: 2,
            key,
            target_union: Some(TargetUnion::ModRevision(self.known[number as usize])),
            ..Compare::default()
        };
        let txn = TxnRequest {
            compare: vec![compare],
            success: op(Union::RequestPut(put)),
            failure: op(Union::RequestRange(range)),
        };
        self.guarded.clear();
        txn.encode(&mut self.guarded).expect("a Vec takes all that is written");
    }

    /// Judges the message of an answer; an error says what is wrong with it.
    pub fn judge(&mut self, request: &Request, message: &[u8]) -> Result<(), String> {
        let unreadable = |error| format!("an answer that cannot be decoded: {error}");
        match request.kind {
            Kind::Put => {
                let answer = PutResponse::decode(message).map_err(unreadable)?;
                let revision = self.revision(answer.header)?;
                if revision <= request.floor {
                    return Err(format!("a put got revision {revision} after {} was seen", request.floor));
                }
                self.enter(revision)
            }
            Kind::Guarded => {
                let answer = TxnResponse::decode(message).map_err(unreadable)?;
                let revision = self.revision(answer.header)?;
                self.judge_guarded(request, &answer, revision)
            }
            Kind::Range => {
                let answer = RangeResponse::decode(message).map_err(unreadable)?;
                let revision = self.revision(answer.header)?;
                if revision < request.floor && !self.workload.serializable {
                    return Err(format!("a range saw revision {revision} after {} was seen", request.floor));
                }
                self.judge_range(request, &answer, revision)
            }
        }
    }

    fn judge_guarded(
        &mut self,
        request: &Request,
        answer: &TxnResponse,
        revision: i64,
    ) -> Result<(), String> {
        let known = &mut self.known[request.key as usize];
        let read = match answer.responses.first().and_then(|op| op.response.as_ref()) {
            Some(Response::ResponsePut(_)) if answer.succeeded && revision > request.floor => {
                *known = (*known).max(revision);
                return self.enter(revision);
            }
            Some(Response::ResponseRange(range)) if !answer.succeeded && revision >= request.floor => range,
            _ => return Err(format!("a guarded put got {revision} after {}: {answer:?}", request.floor)),
        };
        *known = (*known).max(read.kvs.first().map_or(0, |kv| kv.mod_revision));
        self.judge_range(request, read, revision)
    }

    fn revision(&mut self, header: Option<ResponseHeader>) -> Result<i64, String> {
        let revision = header.map_or(0, |header| header.revision);
        if revision < 1 {
            return Err("an answer without a revision".to_owned());
        }
        self.highest = self.highest.max(revision);
        Ok(revision)
    }

    fn enter(&mut self, revision: i64) -> Result<(), String> {
        if self.revisions.is_empty() {
            self.revisions_from = (revision - EARLIER_REVISIONS).max(0);
        }
        let place = revision - self.revisions_from;
        if !(0..REVISIONS_MAX).contains(&place) {
            return Err(format!("a put got revision {revision}, far from all others"));
        }
        let (word, bit) = (place as usize / 64, 1 << (place % 64));
        if word >= self.revisions.len() {
            self.revisions.resize((word + 1).next_power_of_two(), 0);
        }
        let taken = self.revisions[word] & bit != 0;
        self.revisions[word] |= bit;
        if taken { Err(format!("two puts got revision {revision}")) } else { Ok(()) }
    }

    fn judge_range(&self, request: &Request, answer: &RangeResponse, revision: i64) -> Result<(), String> {
        let wanted = key_of(&self.workload, request.key);
        let first = answer.kvs.first().ok_or("a range found no key: is the key space filled?")?;
        let single = self.workload.limit == 1;
        if first.key != wanted {
            return Err("a range returned another key than the one asked for".to_owned());
        }
        if answer.kvs.len() as u64 > self.workload.limit || answer.count < answer.kvs.len() as i64 {
            return Err("a range returned more keys than asked for or counted".to_owned());
        }
        if !answer.kvs.is_sorted_by(|a, b| a.key < b.key) {
            return Err("a range returned keys out of order".to_owned());
        }
        let mark = &request.key.to_le_bytes()[..self.workload.value_bytes.min(MARK_BYTES)];
        if !first.value.starts_with(mark) || (single && first.value.len() != self.workload.value_bytes) {
            return Err("a range returned another value than the key's".to_owned());
        }
        if answer.kvs.iter().any(|kv| kv.mod_revision > revision || kv.mod_revision < kv.create_revision) {
            return Err("a range returned a key from after its revision".to_owned());
        }
        Ok(())
    }
}

fn key_of(workload: &Workload, number: u64) -> Vec<u8> {
    let mut key = PREFIX.to_vec();
    key.resize(PREFIX.len() + DIGITS, 0);
    write_digits(&mut key[PREFIX.len()..], workload.scattered, number);
    key.resize(workload.key_bytes, b'.');
    key
}

fn write_digits(into: &mut [u8], scattered: bool, number: u64) {
    let number = if scattered { mixed(number) } else { number };
    for (place, digit) in into.iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(number >> (60 - 4 * place)) as usize & 15];
    }
}

/// Another number for each number (murmur's finalizer is a permutation).
fn mixed(mut number: u64) -> u64 {
    number ^= number >> 33;
    number = number.wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    number ^= number >> 33;
    number = number.wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    number ^ number >> 33
}
