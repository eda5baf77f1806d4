//! What the corpora begin with: well-formed inputs, made by the encoders.

use super::fuzz_targets::{self, LOG_KEY, LOG_STORE, SEGMENT_BYTES, SEGMENTS};
use braid::checkpoint::{Meta, Writer};
use braid::http2::Http2Config;
use braid::http2::client::Client;
use braid::http2::hpack::{Encoder, Indexing};
use braid::limits::PeerBounds;
use braid::log::{Command, Log, LogId, LogStart, Opening, Record, Resident, StoredHardState};
use braid::peer::{CallFailure, PeerMessage};
use braid::raft::{Content, GroupEntry, Message as RaftMessage, MessageBody, Position, RoundId, VoteKind};
use braid::record::{
    Batch, Change, ConfChange, ControlEntry, CutRecord, Entry, EpochRecord, Intent, MemberRecord, Payload,
    RaftIdRecord, Write,
};
use braid::types::{
    At, Blob, ClockReading, Epoch, Event, Index, KeyValue, LeaseId, Peers, RaftId, Revision, ShardId, Sub,
    Term, Time,
};
use braid::wire::proto;
use braid::wire::{grpc, gzip};
use bytes::Bytes;
use prost::Message;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The corpus' name, the file's name, its bytes.
pub type Seed = (&'static str, &'static str, Vec<u8>);

pub fn all() -> Vec<Seed> {
    let mut seeds = vec![];
    seeds.extend(http2());
    seeds.extend(text());
    seeds.extend(grpc_bodies());
    seeds.extend(messages().map(|(name, bytes)| ("protobuf", name, bytes)));
    seeds.extend(entries().map(|(name, entry)| ("record", name, Payload::of(&entry).bytes().to_vec())));
    seeds.push(("log", "segments", log()));
    seeds.push(("checkpoint", "versions", checkpoint()));
    seeds.extend(links());
    seeds
}

fn http2() -> Vec<Seed> {
    const GRPC: &[(&[u8], &[u8])] = &[(b"content-type", b"application/grpc"), (b"te", b"trailers")];
    let mut client = Client::new(&Http2Config::default(), "localhost", Time(0));
    for (name, message) in messages() {
        let path = if name == "txn" { "/etcdserverpb.KV/Txn" } else { "/etcdserverpb.KV/Put" };
        client.call(path, GRPC, &message);
    }
    let watch = client.request("/etcdserverpb.Watch/Watch", GRPC).expect("there is room");
    client.send_message(watch, b"\x0a\x03\x0a\x01k", false);
    client.reset(watch, braid::http2::ErrorCode::Cancel);
    let mut calls = vec![];
    client.take_output(&mut calls);
    let mut encoder = Encoder::new(4096);
    let mut blocks = vec![];
    for _ in 0..2 {
        let mut block = vec![];
        encoder.begin(&mut block);
        encoder.field(&mut block, b":path", b"/etcdserverpb.KV/Range", Indexing::Enter);
        encoder.field(&mut block, b"x-trace", b"a value of some length", Indexing::Enter);
        encoder.field(&mut block, b"x-none", b"", Indexing::Without);
        blocks.push(block.len() as u8);
        blocks.extend(block);
    }
    vec![("http2", "calls", calls.clone()), ("client_port", "http2", calls), ("hpack", "blocks", blocks)]
}

fn text() -> Vec<Seed> {
    const GET: &str = "GET /readyz?verbose&exclude=%41 HTTP/1.1\r\nHost: a\r\n\r\n";
    const POST: &str = "POST /health HTTP/1.0\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nabc";
    const HEAD: &str = ":path: /etcdserverpb.KV/Put\n:method: POST\n:authority: a\ncontent-type: application/grpc\n\
                        grpc-timeout: 1S\ngrpc-encoding: gzip\nx-bin: YWE=\nhasleader: true\ntoken: t";
    vec![
        ("http1", "get", GET.into()),
        ("http1", "post", POST.into()),
        ("client_port", "http1", [GET, POST].concat().into()),
        ("metadata", "put", HEAD.into()),
    ]
}

fn grpc_bodies() -> Vec<Seed> {
    let framed = |first: u8, flag: u8, messages: &[&[u8]]| {
        let mut bytes = vec![first];
        for message in messages {
            let start = bytes.len();
            grpc::frame(&mut bytes, |out| out.extend_from_slice(message));
            bytes[start] = flag;
        }
        bytes
    };
    let packed = gzip::deflated(b"some message, and some message again");
    vec![
        ("grpc", "unary", framed(0, 0, &[b"message"])),
        ("grpc", "stream", framed(2, 0, &[b"one", b"", b"three"])),
        ("grpc", "gzip", framed(0x42, 1, &[&packed, &packed])),
        ("gzip", "message", packed),
    ]
}

fn messages() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    let key = Bytes::from_static(b"key");
    let put = proto::PutRequest {
        key: key.clone(),
        value: Bytes::from_static(b"value"),
        lease: -7,
        ..Default::default()
    };
    let range = proto::RangeRequest {
        key: key.clone(),
        range_end: Bytes::from_static(b"l"),
        limit: 5,
        ..Default::default()
    };
    let op = |request| proto::RequestOp { request: Some(request) };
    let inner = proto::TxnRequest {
        success: vec![op(proto::request_op::Request::RequestPut(put.clone()))],
        ..Default::default()
    };
    let txn = proto::TxnRequest {
        success: vec![
            op(proto::request_op::Request::RequestRange(range.clone())),
            op(proto::request_op::Request::RequestTxn(inner)),
        ],
        ..Default::default()
    };
    [("put", put.encode_to_vec()), ("range", range.encode_to_vec()), ("txn", txn.encode_to_vec())].into_iter()
}

fn entries() -> impl Iterator<Item = (&'static str, Entry)> {
    let epoch = EpochRecord { term: 3, attempt: 1 };
    let put = Change::Put { sub: 0, key: b"key".to_vec(), value: b"value".to_vec(), lease: 5 };
    let delete = Change::DeleteRange { sub: 1, key: b"a".to_vec(), end: b"b".to_vec(), count: 3 };
    let writes = vec![Write {
        revision: 9,
        parts: 2,
        more: false,
        changes: vec![put, delete, Change::LeaseEnd { lease: 5 }],
    }];
    let member = MemberRecord {
        id: 5,
        directory: 7,
        raft_ids: vec![RaftIdRecord { log: 0, incarnation: 0, id: 50 }],
        name: "a".into(),
        peer_urls: vec!["http://10.0.0.1:2380".into()],
        client_urls: vec![],
        is_learner: false,
    };
    let bootstrap = ControlEntry::Bootstrap {
        cluster: 1,
        token: "token".into(),
        members: vec![member.clone()],
        cuts: vec![CutRecord { start: b"m".to_vec(), shard: 1 }],
        feature_level: 1,
    };
    let intent = ControlEntry::Intent(Intent::Adding(Box::new(member)));
    [
        ("batch", Entry::Batch(Batch { epoch, settled: 8, writes })),
        ("seal", Entry::Seal { epoch, prefix: 8 }),
        ("bootstrap", Entry::Control { epoch, settled: 8, control: bootstrap }),
        ("intent", Entry::Control { epoch, settled: 8, control: intent }),
        ("conf_change", Entry::ConfChange(ConfChange::AddLearner(60))),
    ]
    .into_iter()
}

fn log() -> Vec<u8> {
    let mut log = Log::new(LogStart::fresh(LogId(0), LOG_STORE, LOG_KEY, SEGMENTS), SEGMENT_BYTES);
    let resident = Resident { shard: ShardId(1), home: 0 };
    let own = RaftId::new(5).expect("5 is not 0");
    let peers = Peers { voters: vec![own], learners: vec![] };
    let opening = Opening { index: Index(0), term: Term(0), hard: StoredHardState::default(), own, peers };
    log.append(resident, Record::Open(Cow::Owned(opening)));
    let mut files: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for number in 1..=5 {
        let payload = [number as u8; 900];
        log.append(
            resident,
            Record::Entry { index: Index(number), term: Term(1), kind: 0, payload: &payload },
        );
        let hard = StoredHardState { term: Term(1), vote: RaftId::new(5), commit: Index(number) };
        log.append(resident, Record::HardState(hard));
        loop {
            let mut commands = vec![];
            log.flush(Time(number), &mut commands);
            if commands.is_empty() {
                break;
            }
            for command in commands {
                match command {
                    Command::Write { id, segment, offset, bytes } => {
                        let file = files.get_mut(&segment.sequence).expect("prepared before");
                        file[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
                        log.written(id);
                    }
                    Command::Prepare { segment, .. } => {
                        files.insert(segment.sequence, vec![0; SEGMENT_BYTES]);
                        log.prepared(segment);
                    }
                    other => panic!("nothing is given up here: {other:?}"),
                }
            }
        }
    }
    files.retain(|_, file| file.iter().any(|byte| *byte != 0));
    files.into_values().collect::<Vec<_>>().concat()
}

fn checkpoint() -> Vec<u8> {
    let epoch = EpochRecord { term: 3, attempt: 1 };
    let meta = Meta {
        shard: 1,
        home: 0,
        file: 4,
        chain: vec![],
        revision: 20,
        compacted: 1,
        index: 12,
        term: 3,
        voters: vec![5, 6],
        learners: vec![],
        fence: epoch,
        seal: epoch,
        seal_prefix: 4,
        epoch,
        map_version: 1,
        control: None,
    };
    let mut blocks = vec![];
    let mut writer = Writer::new(&meta, &mut blocks);
    for main in 2..10 {
        let (key, mod_revision) = (Blob::new(format!("key{main}").as_bytes()), Revision(main));
        let put = KeyValue {
            key: key.clone(),
            value: Blob::new(b"value"),
            create_revision: mod_revision,
            mod_revision,
            version: 1,
            lease: LeaseId(0),
        };
        let event = if main == 9 { Event::Delete { key, mod_revision } } else { Event::Put(put) };
        writer.version(At { main: mod_revision, sub: Sub(0) }, &event, &mut blocks);
    }
    writer.finish(&mut blocks);
    blocks.iter().flat_map(|block| block.iter().copied()).collect()
}

/// A dialer's hello, and what a listener says from its own on: with messages whole, and cut small.
fn links() -> Vec<Seed> {
    let hello = fuzz_targets::handed_out(&mut fuzz_targets::dialer(PeerBounds::PRODUCTION));
    let of = |bounds| {
        let mut link = fuzz_targets::listener(bounds);
        fuzz_targets::heard(&mut link, &hello);
        let messages: Vec<PeerMessage> = [peer_messages(), short_peer_messages()].concat();
        fuzz_targets::said(&mut link, &messages)
    };
    let [whole, parts] = [PeerBounds::PRODUCTION, PeerBounds::TINY].map(of);
    vec![("peer", "hello", hello), ("peer", "messages", whole), ("peer", "parts", parts)]
}

fn peer_messages() -> Vec<PeerMessage> {
    let at = |index, term| Position { index: Index(index), term: Term(term) };
    let [from, to] = [5, 6].map(|id| RaftId::new(id).expect("it is not 0"));
    let group = |shard, body| PeerMessage::Group {
        shard: ShardId(shard),
        control_term: Term(3),
        entries: 17,
        message: RaftMessage { from, to, term: Term(3), body },
    };
    let contents = entries().filter_map(|(name, entry)| match name {
        "batch" => Some(Content::Data(Payload::of(&entry))),
        "conf_change" => Some(Content::ConfChange(Payload::of(&entry))),
        _ => None,
    });
    let append = MessageBody::Append {
        after: at(7, 2),
        commit: Index(6),
        entries: std::iter::once(Content::Empty)
            .chain(contents)
            .zip(8..)
            .map(|(content, index)| GroupEntry { index: Index(index), term: Term(3), content })
            .collect(),
    };
    let round = Some(RoundId { boot: 11, number: 4 });
    let attributes = ControlEntry::MemberAttributes {
        member: 1,
        directory: 1,
        name: "one".into(),
        client_urls: vec!["http://127.0.0.1:2379".into()],
        raft_ids: vec![RaftIdRecord { log: 0, incarnation: 0, id: 6 }],
    };
    let failure = CallFailure { code: 14, text: "etcdserver: no leader".into() };
    let call = Bytes::from_static(b"\x0a\x03key\x12\x05value");
    vec![
        group(0, MessageBody::Vote { kind: VoteKind::Pre, last: at(9, 3), commit: at(8, 2) }),
        group(0, MessageBody::VoteAnswer { kind: VoteKind::Real, is_granted: true, commit: at(8, 2) }),
        group(0, MessageBody::Heartbeat { commit: Index(6), round }),
        group(1, append),
        group(1, MessageBody::AppendAnswer { index: Index(7), commit: Index(6), rejected: Some(at(5, 2)) }),
        group(1, MessageBody::TimeoutNow),
        PeerMessage::Settled {
            epoch: Epoch { term: Term(3), attempt: 1 },
            revision: Revision(40),
            commits: vec![(ShardId(1), at(10, 3))],
        },
        PeerMessage::WantsGroup { shard: ShardId(1), control_term: Term(3), last: at(8, 2) },
        PeerMessage::ReadAt { number: 17 },
        PeerMessage::ReadAtIs { number: 17, revision: Revision(40), control: Index(6) },
        PeerMessage::ReadAtRefused { number: 18 },
        PeerMessage::Call {
            number: 3,
            method: 1,
            clock: ClockReading { boot: 7, time: Time(9) },
            timeout_ms: 5000,
            message: call.clone(),
        },
        PeerMessage::Clock(ClockReading { boot: 7, time: Time(9) }),
        PeerMessage::Answer { number: 3, revision: Revision(4), control: Index(3), outcome: Ok(call) },
        PeerMessage::Answer { number: 4, revision: Revision(4), control: Index(3), outcome: Err(failure) },
        PeerMessage::CallRefused { number: 5 },
        PeerMessage::Attributes(attributes),
    ]
}

fn short_peer_messages() -> Vec<PeerMessage> {
    vec![
        PeerMessage::StateOffered { shard: ShardId(1), after: Index(8) },
        PeerMessage::StateHeld { shard: ShardId(1), upto: Index(9) },
        PeerMessage::StateWanted { shard: ShardId(1), home: 0, file: 3, from: 2 },
        PeerMessage::StateBlock {
            shard: ShardId(1),
            file: 3,
            number: 2,
            is_last: false,
            block: Bytes::from_static(b"block"),
        },
        PeerMessage::StateGone { shard: ShardId(1), file: 3 },
        PeerMessage::CallsLost { number: 6 },
        PeerMessage::CallsOver { number: 6 },
        PeerMessage::NoSpace,
        PeerMessage::Leaving,
    ]
}
