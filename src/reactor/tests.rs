//! Whole reactors in memory: an instant disk, no faults. (The simulator has the faults.)

use super::*;
use crate::api::{AlarmType, Error};
use crate::config::AutoCompaction;
use crate::http2::client::Client;
use crate::http2::{self, Http2Event};
use crate::io::{BulkDone, BulkStep, LogLine, Port};
use crate::log::{Command, LogId, LogPiece, LogStart, SegmentBytes, SegmentName};
use crate::sequencer::Sequencer;
use crate::types::{ClusterId, ConnId, Duration, MemberId, StoreId};
use crate::wire::proto;
use bytes::Bytes;
use prost::Message;
use std::sync::Arc;

mod cluster;
mod controls;
mod door;
mod lists;
mod pace;
mod recover;
mod slices;
mod storage;
mod watches;

const SEGMENT_BYTES: usize = 64 << 10;
const SEGMENTS: SegmentBytes = SegmentBytes { least: SEGMENT_BYTES, most: 4 * SEGMENT_BYTES };

const STORE: StoreId = StoreId(5);

fn settings(shards: usize) -> Settings {
    Settings {
        member: MemberId(7),
        directory: STORE,
        cluster: ClusterId(9),
        name: "default".into(),
        token: "t".into(),
        peer_urls: vec!["http://localhost:2380".into()],
        strict_reconfig_check: true,
        stands_alone: false,
        founders: vec![Founder {
            id: MemberId(7),
            name: "default".into(),
            peer_urls: vec!["http://localhost:2380".into()],
        }],
        client_urls: vec!["http://localhost:2379".into()],
        shards_are_set: true,
        joins: false,
        max_learners: crate::limits::LEARNERS_DEFAULT,
        shard_starts: crate::router::default_starts(shards),
        request_bytes_max: crate::limits::REQUEST_BYTES_DEFAULT,
        entry_bytes_max: crate::limits::ENTRY_BYTES_MAX,
        slice: crate::mvcc::Budget::SLICE,
        txn_ops_max: crate::limits::TXN_OPS_DEFAULT,
        streams_max: 1000,
        quota_bytes: None,
        heartbeat: Duration::from_ms(100),
        election_timeout: Duration::from_ms(1000),
        watch_progress_interval: Duration::from_secs(600),
        auto_compaction: AutoCompaction::Off,
        keepalive_min_time: Duration::from_secs(5),
        keepalive: None,
        checkpoint_log_bytes: 8 * SEGMENT_BYTES as u64,
        disk_reserve_bytes: 0,
        bounds: {
            let watch =
                crate::limits::WatchBounds { merge_events: 3, ..crate::limits::WatchBounds::PRODUCTION };
            crate::limits::Bounds { watch, ..crate::limits::Bounds::PRODUCTION }
        },
        observing: Default::default(),
    }
}

struct Member {
    reactors: Vec<Reactor>,
    sequencer: Arc<Sequencer>,
    now: Time,
    client: Client,
    conn: ConnId,
    answers: Vec<(u32, Vec<u8>)>,
    statuses: Vec<(u32, u8, String)>,
    partial: std::collections::BTreeMap<u32, Vec<u8>>,
    halted: Option<String>,
    /// What the client's kernel has and the client has not read, where it does not read.
    unheard: Option<Vec<u8>>,
    /// Reactors below take no turns: nothing wakes them.
    asleep: usize,
    /// A reactor that hears nothing, and what waits for it.
    cut_off: Option<(ReactorId, Vec<(ReactorId, Mail)>)>,
    /// The disk does nothing, or not for this reactor's log; what it was to write waits.
    disk_stands: bool,
    log_stands: Option<usize>,
    unwritten: Vec<(usize, Output)>,
    /// The bulk lane does nothing; its steps wait.
    lane_stands: bool,
    undone: Vec<(usize, crate::io::JobId)>,
    /// Which reactors' orders press.
    haste: Vec<bool>,
    log_waits: bool,
    /// Segments are not made ready before.
    unprepared: Option<Vec<(usize, SegmentName)>>,
    /// No file has room but what the log gives up, or none for the log alone; or no checkpoint beyond a length.
    disk_is_full: bool,
    given_up_bytes: usize,
    no_new_segments: bool,
    checkpoint_bytes_max: usize,
    checkpoint_bytes: std::collections::BTreeMap<String, usize>,
    /// What the heads of logs' files say of other logs: in which segment, of which log, and the frame.
    words: Vec<(SegmentName, LogId, u64)>,
    /// Begun.
    checkpoints: usize,
    log_lines: Vec<LogLine>,
    /// It has said that it is the only member, as it was to be.
    has_stood_alone: bool,
    /// What came on connections that are not the client's.
    pages: Vec<u8>,
    /// What is for other members, by reactor.
    network: Vec<(usize, Output)>,
    /// The logs' files.
    segments: std::collections::BTreeMap<SegmentName, Vec<u8>>,
    /// Pieces of them that were read, and whether the device fails.
    pieces_read: usize,
    reads_fail: bool,
}

impl Member {
    fn new(reactors: u16, shards: usize) -> Member {
        Member::with(reactors, settings(shards))
    }

    fn with(reactors: u16, settings: Settings) -> Member {
        Member::on(false, reactors, settings)
    }

    fn boot_on_a_full_disk() -> Member {
        Member::on(true, 1, settings(1))
    }

    fn on(disk_is_full: bool, reactors: u16, settings: Settings) -> Member {
        let mut member = Member::before_its_first_turn(disk_is_full, reactors, settings);
        member.run();
        member
    }

    fn before_its_first_turn(disk_is_full: bool, reactors: u16, settings: Settings) -> Member {
        Member::booted(disk_is_full, Revision::NONE, reactors, settings)
    }

    /// An earlier process has shown what is settled up to there, though the logs do not have it.
    fn that_has_shown(settled: Revision, reactors: u16, settings: Settings) -> Member {
        Member::booted(false, settled, reactors, settings)
    }

    fn booted(disk_is_full: bool, settled: Revision, reactors: u16, settings: Settings) -> Member {
        let sequencer = Arc::new(Sequencer::new(1 << 10));
        let settings = Arc::new(settings);
        let boot = |id: u16| Boot {
            id: ReactorId(id),
            reactors,
            settings: settings.clone(),
            sequencer: sequencer.clone(),
            log: LogStart::fresh(LogId(u32::from(id)), settings.directory, 77, SEGMENTS),
            shards: vec![],
            control: None,
            stale: vec![],
            left_over: vec![],
            last_file: 0,
            settled,
            rested: None,
            process: 1,
            seed: u64::from(id),
            now: Time(0),
        };
        let list: Vec<Reactor> = (0..reactors).map(|id| Reactor::new(boot(id))).collect();
        Member::of(list, sequencer, disk_is_full)
    }

    fn of(list: Vec<Reactor>, sequencer: Arc<Sequencer>, disk_is_full: bool) -> Member {
        let reactors = list.len() as u16;
        let conn = ConnId { reactor: ReactorId(reactors - 1), slot: 0, generation: 0 };
        let mut member = Member {
            reactors: list,
            sequencer,
            now: Time(0),
            client: Client::new(&http2::Http2Config::default(), "localhost", Time(0)),
            conn,
            answers: vec![],
            statuses: vec![],
            partial: Default::default(),
            halted: None,
            unheard: None,
            asleep: 0,
            cut_off: None,
            disk_stands: false,
            log_stands: None,
            unwritten: vec![],
            lane_stands: false,
            undone: vec![],
            haste: vec![false; usize::from(reactors)],
            log_waits: false,
            unprepared: None,
            disk_is_full,
            given_up_bytes: 0,
            no_new_segments: false,
            checkpoint_bytes_max: usize::MAX,
            checkpoint_bytes: Default::default(),
            words: vec![],
            checkpoints: 0,
            log_lines: vec![],
            has_stood_alone: false,
            pages: vec![],
            network: vec![],
            segments: Default::default(),
            pieces_read: 0,
            reads_fail: false,
        };
        member.reactors[usize::from(conn.reactor.0)]
            .step(Time(0), Input::Opened { conn, port: Port::Client });
        member
    }

    /// Turns until nothing is left to do.
    fn run(&mut self) {
        for _ in 0..10_000 {
            if !self.turn_all() {
                return;
            }
        }
        panic!("the member never comes to rest");
    }

    /// What the client has to say, and one turn of each reactor.
    fn turn_all(&mut self) -> bool {
        self.now = Time(self.now.0 + 1000);
        let mut bytes = vec![];
        self.client.take_output(&mut bytes);
        let at = usize::from(self.conn.reactor.0);
        let mut busy = !bytes.is_empty();
        if busy {
            self.reactors[at].step(self.now, Input::Received { conn: self.conn, bytes: &bytes });
        }
        for id in self.asleep..self.reactors.len() {
            busy |= self.turn(id);
        }
        busy
    }

    fn turn(&mut self, id: usize) -> bool {
        let settled = self.sequencer.settled();
        let before = *self.reactors[id].turn.settled;
        self.reactors[id].step(self.now, Input::Settled(settled));
        let mut out = vec![];
        self.reactors[id].flush(self.now, &mut out);
        let mut busy = !out.is_empty() || settled > before;
        for output in out {
            self.carry_out(id, output);
        }
        busy |= self.reactors[id].wake_at() <= self.now;
        busy
    }

    fn carry_out(&mut self, id: usize, output: Output) {
        let now = self.now;
        let from = ReactorId(id as u16);
        match output {
            Output::Send { conn, bytes } => {
                self.reactors[id].step(now, Input::Sent { conn, bytes: bytes.len() });
                match &mut self.unheard {
                    _ if conn != self.conn => self.pages.extend_from_slice(&bytes),
                    Some(unheard) => unheard.extend_from_slice(&bytes),
                    None => self.receive(&bytes),
                }
            }
            Output::Move { ref state, .. } if PeerLinks::is_greeted(state) => self.network.push((id, output)),
            Output::Close { conn } if conn != self.conn => self.network.push((id, output)),
            Output::SendChunks { .. } | Output::Dial { .. } => self.network.push((id, output)),
            // This world has one client, and keeps it where it is.
            Output::Move { conn, state, .. } => self.reactors[id].step(now, Input::Moved { conn, state }),
            Output::Close { conn } => self.reactors[id].step(now, Input::Closed { conn }),
            Output::Mail { to, mail } => match &mut self.cut_off {
                Some((deaf, waiting)) if *deaf == to => waiting.push((from, mail)),
                _ => self.reactors[usize::from(to.0)].step(now, Input::Mail { from, mail }),
            },
            Output::Log(command) => self.log(id, command),
            Output::Haste(haste) => self.haste[id] = haste,
            Output::LogWaits(waits) => self.log_waits = waits,
            Output::LogLine(line) => self.log_lines.push(line),
            Output::Bulk { job, step: BulkStep::Read(piece) } => {
                let done = self.read_piece(piece);
                self.reactors[id].step(now, Input::Bulk { job, done });
            }
            Output::Bulk { job, step } => {
                self.checkpoints += usize::from(matches!(step, BulkStep::Create { .. }));
                assert!(!matches!(&step, BulkStep::Append { blocks, .. } if blocks.is_empty()));
                let has_room = match &step {
                    BulkStep::Append { name, blocks } => self.append(name, blocks),
                    _ => true,
                };
                let done = if has_room { BulkDone::Done } else { BulkDone::Full };
                match self.lane_stands {
                    true => self.undone.push((id, job)),
                    false => self.reactors[id].step(now, Input::Bulk { job, done }),
                }
            }
            Output::StandsAlone => self.has_stood_alone = true,
            Output::Halt(why) => self.halted = Some(why),
        }
    }

    /// What was cut off hears what waits for it.
    fn hears_again(&mut self) {
        let (deaf, waiting) = self.cut_off.take().expect("one hears nothing");
        for (from, mail) in waiting {
            self.reactors[usize::from(deaf.0)].step(self.now, Input::Mail { from, mail });
        }
    }

    /// The oldest step that the bulk lane has not taken, of the first so many reactors.
    fn take_a_bulk_step(&mut self, reactors: usize) -> bool {
        let Some(place) = self.undone.iter().position(|(id, _)| *id < reactors) else { return false };
        let (id, job) = self.undone.remove(place);
        self.reactors[id].step(self.now, Input::Bulk { job, done: BulkDone::Done });
        true
    }

    fn log(&mut self, id: usize, command: Command) {
        let now = self.now;
        match command {
            Command::Write { .. } if self.disk_stands || self.log_stands == Some(id) => {
                self.unwritten.push((id, Output::Log(command)));
            }
            Command::Write { id: write, segment, offset, bytes } => {
                if offset == 0 {
                    let number = |word: &[u8], at| u64::from_le_bytes(word[at..at + 8].try_into().unwrap());
                    let word = |word: &[u8]| (number(word, 0) as u32, number(word, 16));
                    let words = bytes[104..crate::limits::BLOCK_BYTES].chunks_exact(24).map(word);
                    let words = words.take_while(|(_, frame)| *frame > 0);
                    self.words.extend(words.map(|(log, frame)| (segment, LogId(log), frame)));
                }
                let end = offset as usize + bytes.len();
                let file = self.segments.entry(segment).or_default();
                file.resize(file.len().max(end), 0);
                file[offset as usize..end].copy_from_slice(&bytes);
                self.reactors[id].step(now, Input::Written { write, buffer: bytes });
            }
            Command::Prepare { segment, .. } if self.disk_is_full || self.no_new_segments => {
                self.reactors[id].step(now, Input::DiskFull { segment });
            }
            Command::Prepare { segment, .. } | Command::Recycle { new: segment, .. } => {
                if let Command::Recycle { old, .. } = command {
                    let file = self.segments.remove(&old).unwrap_or_default();
                    self.segments.insert(segment, file);
                }
                match &mut self.unprepared {
                    Some(unprepared) => unprepared.push((id, segment)),
                    None => self.reactors[id].step(now, Input::Prepared { segment }),
                }
            }
            Command::Remove { segment } => {
                self.segments.remove(&segment);
                self.given_up_bytes += SEGMENT_BYTES;
            }
        }
    }

    fn read_piece(&mut self, LogPiece { segment, offset, bytes }: LogPiece) -> BulkDone {
        self.pieces_read += 1;
        if self.reads_fail {
            return BulkDone::Failed("the device fails".into());
        }
        let file = &self.segments[&segment];
        let from = file.len().min(offset as usize);
        BulkDone::Read(file[from..file.len().min(from + bytes)].to_vec())
    }

    /// Whether a checkpoint's blocks have room.
    fn append(&mut self, name: &str, blocks: &[crate::log::Buffer]) -> bool {
        let bytes: usize = blocks.iter().map(|block| block.len()).sum();
        let file = self.checkpoint_bytes.entry(name.to_owned()).or_default();
        *file += bytes;
        let fits = *file <= self.checkpoint_bytes_max;
        match self.disk_is_full {
            true if fits && bytes <= self.given_up_bytes => self.given_up_bytes -= bytes,
            true => return false,
            false => {}
        }
        fits
    }

    fn receive(&mut self, mut bytes: &[u8]) {
        while let Some(event) = self.client.receive(self.now, &mut bytes).expect("the server speaks HTTP/2") {
            let mut status = |stream: http2::StreamId, head: &http2::Head| {
                let code = head.grpc_status().unwrap_or(99);
                let message = head.get(http2::FieldName::GrpcMessage).unwrap_or_default();
                self.statuses.push((stream.number(), code, http2::grpc::percent_decoded(message)));
            };
            match event {
                Http2Event::Headers { stream, head, end: true } => status(stream, head),
                Http2Event::Trailers { stream, head } => status(stream, head),
                Http2Event::Data { stream, bytes, .. } => {
                    let partial = self.partial.entry(stream.number()).or_default();
                    partial.extend_from_slice(bytes);
                    while let Some((prefix, rest)) = partial.split_first_chunk::<5>() {
                        let len = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
                        if rest.len() < len {
                            break;
                        }
                        self.answers.push((stream.number(), rest[..len].to_vec()));
                        partial.drain(..5 + len);
                    }
                }
                _ => {}
            }
        }
    }

    fn call<Q: Message, R: Message + Default>(&mut self, path: &str, request: &Q) -> Result<R, (u8, String)> {
        let stream = self.ask(path, request);
        self.run();
        assert_eq!(self.halted, None);
        let place = self.statuses.iter().position(|(of, ..)| *of == stream.number());
        let (_, code, text) = self.statuses.remove(place.expect("the call is answered"));
        if code != 0 {
            return Err((code, text));
        }
        let place = self.answers.iter().position(|(of, _)| *of == stream.number()).expect("with a message");
        Ok(R::decode(&self.answers.remove(place).1[..]).expect("in protobuf"))
    }

    /// A call that is not awaited.
    fn ask<Q: Message>(&mut self, path: &str, request: &Q) -> http2::StreamId {
        self.client.call(path, &[], &request.encode_to_vec()).expect("streams are free")
    }

    fn watch(&mut self, create: proto::WatchCreateRequest) -> http2::StreamId {
        let create = proto::watch_request::RequestUnion::CreateRequest(create);
        let request = proto::WatchRequest { request_union: Some(create) }.encode_to_vec();
        let stream = self.client.request("/etcdserverpb.Watch/Watch", &[]).expect("streams are free");
        self.client.send_message(stream, &request, false);
        self.run();
        stream
    }

    /// From now on another client asks. What the server sends stays with its kernel: its windows, which are
    /// small, do not open.
    fn deafen(&mut self) {
        let config = http2::Http2Config::default().with_window(16 << 10);
        self.client = Client::new(&config, "localhost", self.now);
        self.conn.slot += 1;
        let (conn, port) = (self.conn, Port::Client);
        self.reactors[usize::from(conn.reactor.0)].step(self.now, Input::Opened { conn, port });
        self.run();
        self.unheard = Some(vec![]);
    }

    /// The client reads again.
    fn hear(&mut self) {
        let unheard = self.unheard.take().expect("it was deaf");
        self.receive(&unheard);
        self.run();
    }

    fn put(&mut self, key: &str, value: &str) -> i64 {
        let request = proto::PutRequest {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: Bytes::copy_from_slice(value.as_bytes()),
            ..Default::default()
        };
        let reply: proto::PutResponse = self.call("/etcdserverpb.KV/Put", &request).unwrap();
        reply.header.unwrap().revision
    }

    fn range(&mut self, key: &str, end: &str) -> proto::RangeResponse {
        let request = proto::RangeRequest {
            key: Bytes::copy_from_slice(key.as_bytes()),
            range_end: Bytes::copy_from_slice(end.as_bytes()),
            ..Default::default()
        };
        self.call("/etcdserverpb.KV/Range", &request).unwrap()
    }
}

/// A reader may come back to a shard that went on without it; then it must not wait for that shard's owner
/// to be woken by something else.
#[test]
fn a_watch_goes_on_while_the_owner_of_an_idle_shard_sleeps() {
    let mut member = Member::new(2, 2);
    let owner = |member: &Member, key: &str| {
        let router = member.reactors[1].turn.router();
        router.reactor_of(router.shard_of(key.as_bytes())).0
    };
    let keys: Vec<String> = (0..=255u8).map(|byte| format!("{}", char::from(byte))).collect();
    let of = |member: &Member, id| keys.iter().find(|key| owner(member, key) == id).expect("it has a shard");
    let (idle, busy) = (of(&member, 0).clone(), of(&member, 1).clone());
    let watch = |member: &mut Member, start_revision: i64| {
        let everything = Bytes::from_static(b"\0");
        let create = proto::WatchCreateRequest {
            key: everything.clone(),
            range_end: everything,
            start_revision,
            ..Default::default()
        };
        member.watch(create)
    };
    let events = |member: &Member, stream: http2::StreamId| -> Vec<i64> {
        let of_stream = member.answers.iter().filter(|(of, _)| *of == stream.number());
        let replies = of_stream.map(|(_, bytes)| proto::WatchResponse::decode(&bytes[..]).unwrap());
        replies.flat_map(|reply| reply.events).map(|event| event.kv.unwrap().mod_revision).collect()
    };
    let first = watch(&mut member, 0);
    assert_eq!(member.put(&idle, "1"), 2);
    assert_eq!(events(&member, first), [2]);
    member.client.reset(first, http2::ErrorCode::Cancel);
    member.run();
    assert_eq!(member.put(&idle, "2"), 3);
    let second = watch(&mut member, 2);
    assert_eq!(events(&member, second), [2, 3]);
    member.asleep = 1;
    assert_eq!(member.put(&busy, "1"), 4);
    assert_eq!(events(&member, second), [2, 3, 4]);
}

#[test]
fn puts_and_ranges_over_reactors_and_shards() {
    for (reactors, shards) in [(1, 1), (1, 3), (2, 2), (3, 5)] {
        let mut member = Member::new(reactors, shards);
        assert_eq!(member.put("a", "1"), 2);
        assert_eq!(member.put("/registry/pods/x", "2"), 3);
        assert_eq!(member.put("/registry/leases/x", "3"), 4);
        let all = member.range("\0", "\0");
        assert_eq!(all.header.unwrap().revision, 4);
        let keys: Vec<_> = all.kvs.iter().map(|kv| kv.key.to_vec()).collect();
        assert_eq!(keys, [&b"/registry/leases/x"[..], b"/registry/pods/x", b"a"], "{reactors} {shards}");
        let request = proto::DeleteRangeRequest {
            key: Bytes::from_static(b"/"),
            range_end: Bytes::from_static(b"0"),
            ..Default::default()
        };
        let deleted: proto::DeleteRangeResponse =
            member.call("/etcdserverpb.KV/DeleteRange", &request).unwrap();
        assert_eq!((deleted.deleted, deleted.header.unwrap().revision), (2, 5));
        assert_eq!(member.range("\0", "\0").kvs.len(), 1);
    }
}

#[test]
fn leases_end_with_their_keys() {
    let mut member = Member::new(2, 3);
    let grant = proto::LeaseGrantRequest { ttl: 10, id: 5 };
    let _: proto::LeaseGrantResponse = member.call("/etcdserverpb.Lease/LeaseGrant", &grant).unwrap();
    for key in ["a", "/registry/pods/x"] {
        let put = proto::PutRequest { key: Bytes::from(key), lease: 5, ..Default::default() };
        let _: proto::PutResponse = member.call("/etcdserverpb.KV/Put", &put).unwrap();
    }
    let revoke = proto::LeaseRevokeRequest { id: 5 };
    let reply: proto::LeaseRevokeResponse = member.call("/etcdserverpb.Lease/LeaseRevoke", &revoke).unwrap();
    assert_eq!(reply.header.unwrap().revision, 4);
    assert_eq!(member.range("\0", "\0").kvs.len(), 0);
    let again: Result<proto::LeaseRevokeResponse, _> =
        member.call("/etcdserverpb.Lease/LeaseRevoke", &revoke);
    assert_eq!(again.unwrap_err(), (5, Error::LeaseNotFound.to_string()));
    let late = proto::PutRequest { key: Bytes::from_static(b"b"), lease: 5, ..Default::default() };
    let late: Result<proto::PutResponse, _> = member.call("/etcdserverpb.KV/Put", &late);
    assert_eq!(late.unwrap_err().0, 5);
}

#[test]
fn an_epoch_can_end_and_the_next_goes_on() {
    let mut member = Member::new(3, 4);
    for n in 0..20 {
        assert_eq!(member.put(&format!("/registry/k{n}"), "v"), n + 2);
    }
    for shard in [0, 1, 4] {
        let owner = member.reactors[0].turn.router().reactor_of(ShardId(shard));
        let now = member.now;
        member.reactors[usize::from(owner.0)].step(now, Input::Deposed { shard: ShardId(shard) });
        member.run();
        assert_eq!(member.halted, None);
        let before = member.range("\0", "\0").header.unwrap().revision;
        assert_eq!(member.put("a", "x"), before + 1);
    }
    assert_eq!(member.range("\0", "\0").kvs.len(), 21);
}

#[test]
fn a_member_lives_through_more_epochs_than_a_generation_has_bits() {
    let mut member = Member::new(2, 2);
    member.put("a", "1");
    for _ in 0..66_000 {
        let now = member.now;
        member.reactors[0].step(now, Input::Deposed { shard: ShardId::CONTROL });
        member.run();
    }
    assert_eq!(member.halted, None);
    assert!(member.reactors.iter().all(|reactor| reactor.turn.epoch_state.leader_changes() > 66_000));
    assert_eq!(member.put("a", "2"), 3);
    assert_eq!(member.range("a", "").kvs[0].value, "2");
}

/// A member that takes over and gets no further, because its disk stands.
fn member_without_leader() -> Member {
    member_of_without_leader(settings(3))
}

fn member_of_without_leader(settings: Settings) -> Member {
    let mut member = Member::with(2, settings);
    let grant = proto::LeaseGrantRequest { ttl: 60, id: 5 };
    let _: proto::LeaseGrantResponse = member.call("/etcdserverpb.Lease/LeaseGrant", &grant).unwrap();
    member.put("a", "1");
    member.disk_stands = true;
    let now = member.now;
    member.reactors[0].step(now, Input::Deposed { shard: ShardId::CONTROL });
    member.run();
    assert!(member.reactors.iter().all(|reactor| !reactor.turn.epoch_state.leads()));
    member
}

impl Member {
    /// The disk goes on.
    fn write_all(&mut self) {
        (self.disk_stands, self.log_stands) = (false, None);
        for (id, output) in std::mem::take(&mut self.unwritten) {
            self.carry_out(id, output);
        }
        self.run();
    }

    /// A put, a renewal, a range and a range as a stream, none of them awaited: their streams.
    fn ask_four(&mut self) -> [http2::StreamId; 4] {
        let put = proto::PutRequest { key: Bytes::from_static(b"a"), ..Default::default() };
        let range = proto::RangeRequest { key: Bytes::from_static(b"a"), ..Default::default() };
        let put = self.client.call("/etcdserverpb.KV/Put", &[], &put.encode_to_vec());
        let renewal = proto::LeaseKeepAliveRequest { id: 5 }.encode_to_vec();
        let renewal = self.client.call("/etcdserverpb.Lease/LeaseKeepAlive", &[], &renewal);
        let one = self.client.call("/etcdserverpb.KV/Range", &[], &range.encode_to_vec());
        let streamed = self.client.call("/etcdserverpb.KV/RangeStream", &[], &range.encode_to_vec());
        self.run();
        [put, renewal, one, streamed].map(|stream| stream.expect("streams are free"))
    }

    fn statuses_of(&self, streams: [http2::StreamId; 4]) -> [Option<(u8, &str)>; 4] {
        let of = |stream: http2::StreamId| self.statuses.iter().find(|(of, ..)| *of == stream.number());
        streams.map(|stream| of(stream).map(|(_, code, text)| (*code, text.as_str())))
    }
}

#[test]
fn the_status_tells_that_nobody_leads() {
    let mut member = member_without_leader();
    let path = "/etcdserverpb.Maintenance/Status";
    let status: proto::StatusResponse = member.call(path, &proto::StatusRequest::default()).unwrap();
    assert_eq!((status.leader, status.errors), (0, vec!["etcdserver: no leader".to_owned()]));
    member.write_all();
    let status: proto::StatusResponse = member.call(path, &proto::StatusRequest::default()).unwrap();
    assert_eq!((status.leader, status.errors), (7, vec![]));
}

#[test]
fn what_arrives_during_a_takeover_is_answered_after_it() {
    let mut member = member_without_leader();
    let unwanted = member.ask_four();
    for stream in unwanted {
        member.client.reset(stream, http2::ErrorCode::Cancel);
    }
    let wanted = member.ask_four();
    assert_eq!(member.statuses_of(wanted), [None; 4]);
    let revision = member.sequencer.settled();
    member.write_all();
    assert_eq!(member.statuses_of(wanted), [Some((0, "")); 4]);
    assert_eq!(member.statuses_of(unwanted), [None; 4]);
    assert_eq!(member.sequencer.settled(), revision.next(), "the put that nobody waited for is not done");
    let answer = |stream: http2::StreamId| {
        &member.answers.iter().find(|(of, _)| *of == stream.number()).expect("a message").1[..]
    };
    let renewed = proto::LeaseKeepAliveResponse::decode(answer(wanted[1])).unwrap();
    assert_eq!((renewed.id, renewed.ttl), (5, 60));
    let streamed = proto::RangeStreamResponse::decode(answer(wanted[3])).unwrap();
    assert_eq!(streamed.range_response.unwrap().kvs.len(), 1);
    assert!(member.reactors.iter().all(|reactor| reactor.calls.len() == 0));
}

#[test]
fn what_arrives_during_a_takeover_waits_no_longer_than_a_request() {
    let mut member = member_without_leader();
    let streams = member.ask_four();
    member.now = member.now + member.reactors[0].turn.settings.request_timeout() + Duration::from_ms(500);
    member.run();
    let text = Error::Timeout.to_string();
    assert_eq!(member.statuses_of(streams), [Some((14, text.as_str())); 4]);
    member.write_all();
    assert_eq!(member.range("a", "").kvs[0].version, 1, "the put that failed is not done");
}

#[test]
fn compaction_hash_and_status_answer() {
    let mut member = Member::new(2, 3);
    for n in 0..50 {
        member.put(&format!("/registry/k{}", n % 7), "v");
    }
    let compact = proto::CompactionRequest { revision: 40, physical: true };
    let _: proto::CompactionResponse = member.call("/etcdserverpb.KV/Compact", &compact).unwrap();
    let old = proto::RangeRequest { key: Bytes::from_static(b"a"), revision: 39, ..Default::default() };
    let old: Result<proto::RangeResponse, _> = member.call("/etcdserverpb.KV/Range", &old);
    assert_eq!(old.unwrap_err(), (11, Error::Compacted.to_string()));
    let hash = proto::HashKvRequest { revision: 0 };
    let hash: proto::HashKvResponse = member.call("/etcdserverpb.Maintenance/HashKV", &hash).unwrap();
    assert_eq!((hash.compact_revision, hash.hash_revision), (40, 51));
    let status: proto::StatusResponse =
        member.call("/etcdserverpb.Maintenance/Status", &proto::StatusRequest::default()).unwrap();
    assert_eq!(status.leader, 7);
    assert_eq!(member.reactors[0].turn.control.alarms(AlarmType::None), []);
    let _: proto::DefragmentResponse =
        member.call("/etcdserverpb.Maintenance/Defragment", &proto::DefragmentRequest::default()).unwrap();
}
