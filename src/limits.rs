//! Every bound of the server, with its unit in the name and its reason in a sentence.

mod bounds;
mod parts;

pub use bounds::Bounds;
pub use parts::{FrontBounds, Http2Bounds, PeerBounds, WatchBounds};

/// Blocks of the log and of checkpoints: the physical sector of current disks.
pub const BLOCK_BYTES: usize = 4096;
/// The least file of a log: the three that an idle log has are no burden even where there are many logs.
pub const SEGMENT_BYTES_MIN: usize = 1 << 20;
/// The largest file of a log, but for one long record: small enough to recycle quickly, large enough that
/// changing files is rare.
pub const SEGMENT_BYTES_MAX: usize = 64 << 20;
/// One write to the log: a request of the largest size that may be configured, with room for what goes with
/// it. A turn stays far below: see `TURN_EFFECT_BYTES_MAX`.
pub const LOG_WRITE_BYTES_MAX: usize = 40 << 20;
/// Keys deleted by one range that a log entry names one by one; more are named by their range.
pub const DELETE_LIST_MAX: usize = 128;
/// Log writes in flight: a third gains nothing on the disks measured.
pub const LOG_WRITES_IN_FLIGHT_MAX: usize = 2;
/// Payload of one Raft entry, beyond which a shard's turn proposes several.
pub const ENTRY_BYTES_MAX: usize = 1 << 20;

/// etcd's default for `--max-request-bytes`.
pub const REQUEST_BYTES_DEFAULT: usize = 1_572_864;
/// What etcd adds to it for the gRPC message around the request.
pub const REQUEST_OVERHEAD_BYTES: usize = 512 << 10;
/// etcd's default for `--max-txn-ops`.
pub const TXN_OPS_DEFAULT: usize = 128;
/// Nesting of transactions: etcd bounds it by the operations alone; a stack needs a number.
pub const TXN_DEPTH_MAX: usize = 128;
/// etcd's largest time to live of a lease.
pub const LEASE_TTL_SECS_MAX: i64 = 9_000_000_000;
/// etcd's quota where `--quota-backend-bytes` is 0.
pub const QUOTA_BYTES_DEFAULT: i64 = 2 << 30;

/// Reactors of one process: what the bits of the identifiers leave room for.
pub const REACTORS_MAX: usize = 256;
/// Members of one cluster: each is connected with every other one, and more than seven that vote make writes slower
/// without making them safer.
pub const MEMBERS_MAX: usize = 32;
/// Learners that etcd lets a cluster have where nothing else is set: each is one more that the leader sends all to.
pub const LEARNERS_DEFAULT: usize = 1;
/// Peer URLs of one member, and bytes of each: all members with theirs fit into the list that one which joins reads.
pub const MEMBER_URLS_MAX: usize = 16;
pub const MEMBER_URL_BYTES_MAX: usize = 400;
/// Shards of one cluster.
pub const SHARDS_MAX: usize = 4096;

/// Terms, indexes and the log's numbers lie below: counting on from any of them is safe.
pub const RAFT_NUMBERS: u64 = 1 << 62;
/// Revisions lie below.
pub const REVISIONS: u64 = 1 << 48;
/// Revisions taken and not yet settled, in the whole process: the ring of commit marks.
pub const UNSETTLED_REVISIONS_MAX: usize = 1 << 16;
const _: () = assert!(UNSETTLED_REVISIONS_MAX.is_power_of_two(), "the ring is indexed by a mask");
const _: () = assert!(SEGMENT_BYTES_MIN.is_multiple_of(BLOCK_BYTES) && SEGMENT_BYTES_MIN >= 3 * BLOCK_BYTES);
const _: () = assert!(SEGMENT_BYTES_MIN <= SEGMENT_BYTES_MAX && LOG_WRITE_BYTES_MAX < SEGMENT_BYTES_MAX);

// config
/// Largest value of `--max-request-bytes`: half of a large segment, so that changing files stays rare.
pub const REQUEST_BYTES_MAX: usize = 32 << 20;
/// Largest value of `--max-txn-ops`; the size of a request binds first.
pub const TXN_OPS_MAX: usize = 1 << 20;
/// Streams of one connection, whatever `--max-concurrent-streams` says: memory per connection stays finite.
pub const STREAMS_MAX: u32 = 1 << 20;
/// etcd's largest `--election-timeout`.
pub const ELECTION_TIMEOUT_MS_MAX: u64 = 50_000;
/// etcd's period of progress notifications where `--watch-progress-notify-interval` is 0, and the least one.
pub const WATCH_PROGRESS_MS_DEFAULT: u64 = 600_000;
pub const WATCH_PROGRESS_MS_MIN: u64 = 100;
/// Cuts of `--shard-map`: beside the control shard, one range per shard.
pub const SHARD_CUTS_MAX: usize = SHARDS_MAX - 2;
const _: () =
    assert!(REQUEST_BYTES_DEFAULT <= REQUEST_BYTES_MAX && REQUEST_BYTES_MAX <= SEGMENT_BYTES_MAX / 2);
const _: () = assert!(REQUEST_BYTES_MAX + (4 << 20) <= LOG_WRITE_BYTES_MAX);
const _: () = assert!(TXN_OPS_DEFAULT <= TXN_OPS_MAX && TXN_OPS_MAX <= u32::MAX as usize);

// txn
/// Keys a compare over a range looks at between two chances to stop: one that fails early reads little.
pub const COMPARE_SLICE_KEYS: usize = 256;
/// Keys of the first chunk of a RangeStream (etcd's law).
pub const STREAM_CHUNK_KEYS_FIRST: u64 = 10;
/// Keys a limited range looks at when it goes on past deleted ones: one at a time would cost a search each.
pub const RANGE_SLICE_KEYS_MIN: usize = 64;
// wire
/// Compares and operations of one transaction, all levels and branches together, before it is refused
/// unread: 128 times the default of `--max-txn-ops`, and at most 4 MiB of memory for a 32 KiB message. Where
/// that setting is large, three times it: etcd counts compares and both branches apart.
pub const TXN_OPS_DECODED_MIN: usize = 128 * TXN_OPS_DEFAULT;
/// Memory set aside for a message on its declared length alone; the rest follows the bytes that arrive.
pub const MESSAGE_RESERVE_BYTES_MAX: usize = 16 << 10;
/// Request line and headers of an HTTP/1 request. Probes and scrapers send hundreds of bytes, the proxies in
/// front of them let up to 60 KiB pass; Go's bound is 1 MiB.
pub const HTTP1_HEAD_BYTES_MAX: usize = 64 << 10;
/// Headers of an HTTP/1 request: proxies let up to a hundred pass, and add some.
pub const HTTP1_HEADERS_MAX: usize = 256;
/// Body of an HTTP/1 request, read and dropped: none of the paths served takes one.
pub const HTTP1_BODY_BYTES_MAX: usize = 64 << 10;

/// Slow requests that one turn describes in the log; of more it says the number. Where the disk stands, all
/// that is under way is slow at once, and a turn has better things to do then.
pub const SLOW_REQUESTS_LOGGED_MAX: usize = 16;
/// A request as the log describes it: beyond this it is cut.
pub const REQUEST_TEXT_BYTES_MAX: usize = 4 << 10;

/// Versions of clients that are counted apart; one row more is for all others.
pub const CLIENT_VERSIONS_MAX: usize = 16;

// log
/// Segments prepared ahead of one that is half full: while the next is being filled, the one after it is made.
/// Ahead of a segment that is not yet half full stands one.
pub const LOG_SEGMENTS_SPARE: u64 = 2;
/// The share of what the log held lately that a new segment has: the last one, which is never quite used, then
/// weighs little, and few are changed on the way from small ones to large ones.
pub const LOG_SEGMENT_SHARE: usize = 4;
/// How long the log of one resident goes on before a place to read from is noted: what a read passes over before the
/// first entry that is wanted is about half of it, and the places of a log of `CHECKPOINT_LOG_BYTES` take some KiB.
pub const LOG_STRETCH_BYTES: u64 = 512 << 10;
/// A piece of the log that is read back: two writes of the bulk lane, so that what follows of it takes a turn well
/// under a millisecond.
pub const LOG_READ_BYTES: usize = 2 * BULK_WRITE_BYTES;
/// Buffers kept for reuse: those in flight, the open one and one between.
pub const LOG_BUFFERS_SPARE_MAX: usize = 4;
/// When a segment for which the disk was full is asked for again.
pub const LOG_SEGMENT_RETRY_MS: u64 = 1_000;
/// A buffer larger than this is not kept after its write.
pub const LOG_BUFFER_SPARE_BYTES_MAX: usize = 8 << 20;
/// How long an idle log waits before it writes a block only to vouch for the last write. Ten writes per second
/// and more vouch for each other; what a shorter wait would add is to know of a disk that loses or changes a
/// confirmed write within that time of a crash.
pub const LOG_VOUCH_DELAY_MS: u64 = 100;
/// What is kept free on the disk beside the largest checkpoint: once the alarm stands that the disk is full,
/// it takes the deletes and compactions that free some.
pub const DISK_RESERVE_BYTES: u64 = 16 << 20;
/// A log record's payload has to fit into one write with everything around it.
const _: () = assert!(ENTRY_BYTES_MAX + REQUEST_BYTES_DEFAULT + REQUEST_OVERHEAD_BYTES < LOG_WRITE_BYTES_MAX);
// lease

/// How often the lead looks for expired leases (etcd's number).
pub const LEASE_CHECK_INTERVAL_MS: u64 = 500;
/// Revokes begun per second, so that a wave of expiries leaves time for other writes (etcd's number).
pub const LEASE_REVOKES_PER_SEC_MAX: usize = 1000;
/// Expired leases being revoked at a time (etcd's number).
pub const LEASE_REVOKES_OUTSTANDING_MAX: usize = 16;
/// After how long a revoke that did not go through is tried again (etcd's number).
pub const LEASE_REVOKE_RETRY_MS: u64 = 3000;

/// Renewals of one stream that are not answered yet, beyond which nothing more is read of it.
pub const KEEP_ALIVES_MAX: usize = 128;

// watch

/// Revisions in one message to a watcher that lags (etcd's number).
pub const WATCH_REPLY_REVISIONS_MAX: usize = 1000;
/// Bytes in one message to a watcher, beyond which the next revision waits for the next message: large
/// enough to spread its cost over many events, small enough for every client's receive limit.
pub const WATCH_REPLY_BYTES_MAX: usize = 1 << 20;
/// Events under way to one watch stream and not yet taken by its client, shared among its watchers.
pub const WATCH_STREAM_CREDIT_BYTES: usize = 4 << 20;
/// The most that one watcher and shard gets of it: a few turns of a busy shard.
pub const WATCH_CREDIT_BYTES_MAX: usize = 256 << 10;
/// The least that it gets, whatever the number of watchers: less would make every watcher lag.
pub const WATCH_CREDIT_BYTES_MIN: usize = 16 << 10;
/// What an event counts for beside its key and value: its place in queues and messages.
pub const WATCH_EVENT_OVERHEAD_BYTES: usize = 96;
/// Answers to a stream's own requests that wait to be sent, beyond which nothing more is read of the stream.
pub const WATCH_ANSWERS_MAX: usize = 128;
/// Watchers that share one slice of history (etcd's number).
pub const WATCH_CATCH_UP_WATCHERS: usize = 512;
/// Events that one turn puts into a message: a revision of more takes several.
pub const WATCH_MERGE_EVENTS: usize = 4000;
/// Where replies are cut for clients that ask for it, if a request may be longer.
pub const WATCH_FRAGMENT_BYTES_MAX: usize = REQUEST_BYTES_MAX;
// http2

/// Streams a client may have open on a connection: etcd's default is 2³²−1, which bounds nothing.
pub const HTTP2_STREAMS_DEFAULT: u32 = 10_000;
/// What a stream may send before it is consumed: grpc-go's window grows to about this on a fast link.
pub const HTTP2_STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// What a connection may hold of received bytes not consumed: some streams' windows.
pub const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Bytes waiting for a client's windows: what slow readers of one connection may cost, and one message more,
/// whatever its size, since etcd bounds no answer.
pub const HTTP2_PENDING_BYTES_MAX: usize = 256 << 20;
/// What a stream that pulls (a watch, a long list) may have waiting, so that its source keeps the rest.
pub const HTTP2_STREAM_PENDING_BYTES: usize = 64 << 10;
/// What may wait on a stream whatever waits on the others: a short answer, whole.
pub const HTTP2_STREAM_PENDING_BYTES_MIN: usize = 8 << 10;
/// Output of a connection beyond which streams that pull get no budget: about what a socket buffer takes.
pub const HTTP2_OUTPUT_BYTES: usize = 512 << 10;
/// Either direction's HPACK table: the initial size of RFC 9113, which clients seldom change.
pub const HTTP2_TABLE_BYTES: usize = 4096;
/// The coded header block of a request. Tokens are the longest thing etcd's clients send, a few KiB.
pub const HTTP2_BLOCK_BYTES_MAX: usize = 64 << 10;
/// Frames of one header block: one of the largest size needs five.
pub const HTTP2_BLOCK_FRAMES_MAX: u32 = 10;
/// The decoded header list, as SETTINGS_MAX_HEADER_LIST_SIZE tells clients.
pub const HTTP2_HEADER_LIST_BYTES_MAX: usize = 64 << 10;
/// Header blocks a connection remembers with what they said: a client's methods.
pub const HTTP2_REMEMBERED_BLOCKS: usize = 4;
/// Length of a block worth remembering; warm clients send about ten bytes.
pub const HTTP2_REMEMBERED_BLOCK_BYTES: usize = 64;
/// Memory of a remembered head, so that a block of few bytes cannot make it large.
pub const HTTP2_REMEMBERED_HEAD_BYTES: usize = 2048;
/// Streams reset by or because of a client before it could be answered, at once and each second: a client that
/// gives up all its calls together is honest; a rapid reset (CVE-2023-44487) is not.
pub const HTTP2_RESETS_BURST: u32 = HTTP2_STREAMS_DEFAULT;
pub const HTTP2_RESETS_PER_SEC: u32 = 1000;
/// A whole request that is taken back sooner than this was not meant: no client waits so shortly.
pub const HTTP2_RAPID_RESET_MS: u64 = 10;
/// SETTINGS of a client: each may touch every stream. Honest ones send one or two, and grpc-go one each time
/// its window estimate grows.
pub const HTTP2_SETTINGS_BURST: u32 = 100;
pub const HTTP2_SETTINGS_PER_SEC: u32 = 10;
/// Frames that say nothing (DATA without bytes or end, PRIORITY, unknown kinds), at once and per second.
pub const HTTP2_EMPTY_FRAMES_BURST: u32 = 1000;
pub const HTTP2_EMPTY_FRAMES_PER_SEC: u32 = 100;
/// Time to the client's preface and SETTINGS, as grpc-go waits.
pub const HTTP2_HANDSHAKE_SECS_MAX: u64 = 120;
/// The capacity of a buffer for a split frame up to which it is kept for the next one.
pub const HTTP2_PARTIAL_FRAME_KEEP_BYTES: usize = 4096;

// raft
/// Payload of one message with entries to a peer, but for one larger entry: a frame between members, so that no
/// group holds up the others on their connection.
pub const APPEND_BYTES_MAX: usize = 256 << 10;
/// What a group keeps of entries though only other peers may lack them: what one misses in a moment comes from memory, and
/// 64 groups hold 64 MiB. What is let go is read from the log.
pub const HELD_BYTES_MAX: usize = 1 << 20;
const _: () = assert!(APPEND_BYTES_MAX <= HELD_BYTES_MAX);
// reactor: a cluster
/// Since when other members have to be connected before a change of the members is taken for safe (etcd's law).
pub const MEMBER_HEALTHY_SECS: u64 = 5;
/// How much of what a leader has a learner needs that is to vote (etcd's law).
pub const IN_SYNC_PERCENT: u64 = 90;
/// How long a member that is to be removed remains in all groups, so that its clients are answered and go elsewhere.
pub const LEAVERS_MOMENT_MS: u64 = 100;
/// How long a member that was removed stays to answer what was asked before.
pub const REMOVED_LINGER_MS: u64 = 50;
/// Payload that a follower is given of a group from the log before another read begins. Two are on their way at most.
pub const LAGGARD_BATCH_BYTES: usize = 1 << 20;
const _: () = assert!(2 * LAGGARD_GROUPS_MAX * LAGGARD_BATCH_BYTES < PEER_QUEUED_BYTES_MAX);
/// Groups of which a follower may have a batch on its way: all go by one link.
pub const LAGGARD_GROUPS_MAX: usize = 4;
/// Files of a log that are kept for followers though checkpoints hold what is in them: as much as a log holds before
/// checkpoints are written, so that a log at most doubles. Who lacks more gets the state, which is less than that or
/// not much more.
pub const LAGGARD_LOG_BYTES_MAX: u64 = CHECKPOINT_LOG_BYTES;
/// For how long entries are kept for a follower that takes none: a machine that starts anew is back by then.
pub const LAGGARD_PATIENCE_SECS: u64 = 1_800;
/// When a read of the log is tried again that has failed.
pub const LAGGARD_RETRY_SECS: u64 = 5;
/// How often a leader looks up to where its followers have the entries: far more often than checkpoints are written.
pub const LAGGARD_LOOK_MS: u64 = 100;
/// Blocks of a state that are made before the follower has asked for them: one is on its way while another is written.
pub const STATE_BLOCKS_AHEAD: usize = 2;
/// When a follower asks again for a block that has not come.
pub const STATE_RETRY_MS: u64 = 1_000;
/// How often who is next is offered a state before all others: until it may have asked again.
pub const STATE_OFFERS: u32 = (STATE_RETRY_MS / LAGGARD_LOOK_MS) as u32;
/// For how long a state is held that nobody asks for, and asked for where nothing comes: a connection that broke is
/// back by then, and what is held costs history.
pub const STATE_PATIENCE_SECS: u64 = 10;
/// How long the log of a reactor is, with what is kept behind a state on its way, when its writes are paced by what is
/// taken of that: what a log holds at most without, and nobody is slowed for a state that comes in time.
pub const PACED_LOG_BYTES: u64 = CHECKPOINT_LOG_BYTES + LAGGARD_LOG_BYTES_MAX;
/// What a reactor writes each second all the same: some thousand small values.
pub const PACED_BYTES_PER_SEC: u64 = 4 << 20;
/// How long they wait whatever else the log takes: a tenth of what a client notices.
pub const PACED_WAIT_MS: u64 = 100;
/// What it may write at once, of what was taken while it wrote little.
pub const PACED_BYTES_MAX: usize = 1 << 20;
/// For how long a link for states stays where none is taken: a shard is offered soon after the one before, and a member
/// that was away lacks several.
pub const STATE_LINK_IDLE_SECS: u64 = 10;
const _: () = assert!(STATE_LINK_IDLE_SECS >= STATE_PATIENCE_SECS, "one that has broken is asked for again");
/// When a member stands again in a group that it has not won: some round trips and log writes, a few of which pass
/// before a busy peer has answered. Every second time the pause is doubled, up to half an election timeout: who stands
/// again throws away the votes that are on their way.
pub const CAMPAIGN_AGAIN_MS: u64 = 50;
/// Election timeouts that a leader waits for what is written to settle where most members hear of it and none has
/// acknowledged it: their disks are slow, or their connections. None is known to do better then, and to change who
/// leads takes several writes of all logs.
pub const SLOW_OTHERS_TIMEOUTS: u64 = 8;
/// How many entries of all groups' logs somebody may lack of what another member has, and still get its vote: it has
/// them in a fraction of an election timeout, and more than it lacks may be on its way.
pub const BEHIND_ENTRIES_MAX: u64 = 4096;
/// When what is settled has stood for long enough that it is worth a write: a pause between bursts of writes.
pub const REST_AFTER_MS: u64 = 100;
/// How often a member stands whose leader's connection is gone, and the first pause between, which doubles: who has not
/// heard of it yet does not answer, and may hear of it a moment later, or where it is far away.
pub const STANDS_FOR_LOST_LEADER: u32 = 6;
pub const STAND_AGAIN_MS: u64 = 5;
/// How often the time that a takeover may last is doubled, from an election timeout on, where one after the other
/// comes to nothing.
pub const TAKEOVER_PATIENCE_DOUBLED_MAX: u32 = 5;
/// Pauses between attempts to connect to a member: it may be starting, or gone for long.
pub const DIAL_AGAIN_MS: u64 = 20;
pub const DIAL_AGAIN_MS_MAX: u64 = 500;
/// How often the log says that a member cannot be connected to, where the reason is the same.
pub const DIAL_TOLD_SECS: u64 = 10;

// peer
/// One frame between members: what a message of the control shard waits behind.
pub const PEER_FRAME_BYTES_MAX: usize = 256 << 10;
/// One message between members, cut over frames: no entry is longer than what a log writes at once.
pub const PEER_MESSAGE_BYTES_MAX: usize = LOG_WRITE_BYTES_MAX;
/// What of a message is no payload: the ends of all logs, in the longest, are a third of it.
pub const PEER_HEAD_BYTES_MAX: usize = PEER_FRAME_BYTES_MAX;
/// First frames of a link: before them the other end may be anybody.
pub const PEER_GREETING_BYTES_MAX: usize = 2 << 10;
/// Why a link is refused: a line for the other member's log.
pub const PEER_REFUSAL_BYTES_MAX: usize = 1 << 10;
/// Bytes of a link handed out and not with the kernel, beyond which the next frame waits: one on its way and one
/// behind it, so that what comes first passes the rest.
pub const PEER_UNSENT_BYTES_MAX: usize = 2 * PEER_FRAME_BYTES_MAX;
/// What waits at a link, of the messages that go first, of answers and of all others each: more than a leader has in its log
/// before it waits for the disk, so that what is dropped is dropped for the peer's slowness.
pub const PEER_QUEUED_BYTES_MAX: usize = 2 * LOG_BEHIND_BYTES_MAX;
/// Their number: a few for each shard. As many calls of a reactor are with the leader, whose answers are to find a
/// place.
pub const PEER_QUEUED_MESSAGES_MAX: usize = 4 * SHARDS_MAX;
/// A payload up to this length is copied: a piece of its own costs the kernel more.
pub const PEER_COPIED_BYTES_MAX: usize = 1 << 10;
/// How often a round trip to a member is measured: as often as etcd does it.
pub const PEER_PROBE_SECS: u64 = 4;
/// Heartbeats without a word from the peer, after which it is asked for one: two of three may be late.
pub const PEER_SILENT_HEARTBEATS: u64 = 3;
const _: () = assert!(PEER_MESSAGE_BYTES_MAX < u32::MAX as usize, "lengths in frames have 32 bits");
const _: () = assert!(SHARDS_MAX * 32 < PEER_HEAD_BYTES_MAX);

// reactor
/// Committed entries that raft has not handed out, beyond which a turn follows for them though nothing comes
/// in.
pub const RAFT_LAG_MAX: u64 = 1000;
/// Requests held during a takeover, and their bytes: more are told to come again.
pub const PARKED_CALLS_MAX: usize = 16 << 10;
pub const PARKED_BYTES_MAX: usize = 64 << 20;
/// Keys and values of the requests under way for one reactor's clients: more are told to come again.
pub const CALLS_BYTES_MAX: usize = 256 << 20;
/// Evaluations that wait at one shard for a reservation, the ring or the log.
pub const WAITING_MAX: usize = 64 << 10;
/// Control requests that wait for what they have seen to settle.
pub const CONTROL_PENDING_MAX: usize = 16 << 10;
/// Control requests that wait for an entry on its way, of their lease; and as many that wait for a compaction.
pub const CONTROL_WAITING_MAX: usize = 16 << 10;
/// Effects of one shard in one turn, beyond which evaluation goes on in the next.
pub const TURN_EFFECT_BYTES_MAX: usize = 4 << 20;
/// Bytes in the log that are not yet durable, beyond which evaluation waits for the disk.
pub const LOG_BEHIND_BYTES_MAX: usize = 8 << 20;
/// Slices that a turn has for all long ranges and histories under way.
pub const SLICES_PER_TURN: usize = 4;
/// One slice of a range or of history: well under a millisecond.
pub const READ_SLICE_KEYS: usize = 2000;
pub const READ_SLICE_BYTES: usize = 1 << 20;
/// What ranges under way hold of what they have read, beyond which those that hold much go on one by one.
pub const READS_BYTES_MAX: usize = 512 << 20;
/// How many keys a range looks at in about the time that one change takes to be made, or read from history.
pub const CHANGE_KEYS: usize = 4;
/// Keys that one slice of compaction looks at.
pub const COMPACT_SLICE_KEYS: usize = 1000;
/// What a shard without keys is reckoned to hold: first and last block of its checkpoint.
pub const EMPTY_SHARD_BYTES: u64 = 2 * BLOCK_BYTES as u64;
/// What a lease is reckoned to hold, and what granting one costs against the quota (etcd's number).
pub const LEASE_BYTES: u64 = 64;
/// By how much a reactor's data may change before it tells the others, who keep the quota with it.
pub const SIZES_STEP_BYTES: u64 = 256 << 10;

/// How often `--auto-compaction-mode revision` compacts (etcd's number).
pub const AUTO_COMPACTION_REVISIONS_MS: u64 = 300_000;

// front
/// The longest message sent: where etcd's gRPC stops, which cannot say a length of more in its own terms.
pub const REPLY_BYTES_MAX: usize = i32::MAX as usize;
/// A message beyond about this many bytes is written as its stream takes it. Beside key and value an element
/// counts for the second number of bytes, for the time it takes to look at it.
pub const LONG_MESSAGE_BYTES: usize = 512 << 10;
pub const LONG_MESSAGE_ELEMENT_BYTES: usize = 256;
/// What a turn writes of all long messages, and how many of their elements it measures.
pub const LONG_MESSAGES_BYTES_PER_TURN: usize = 1 << 20;
pub const LONG_MESSAGES_ELEMENTS_PER_TURN: usize = 4000;
/// What a turn compresses of them, which takes about as long.
pub const LONG_MESSAGES_PACKED_BYTES_PER_TURN: usize = 128 << 10;
/// The buffer for encoding that is kept between messages.
pub const FRONT_SCRATCH_KEEP_BYTES: usize = 1 << 20;
/// Answers of one connection handed out and not yet with the kernel, beyond which its streams wait.
pub const CONNECTION_UNSENT_BYTES_MAX: usize = 4 << 20;
/// Answers of all connections of a reactor, in bytes, that are not yet with the kernel: four of the slowest
/// readers. Beyond it only short answers are taken, until half of it has gone.
pub const FRONT_ANSWERS_BYTES_MAX: usize = 1 << 30;
/// What a connection may have standing even then: as much as the shell lets stand before it stops reading.
pub const CONNECTION_ANSWERS_BYTES_MIN: usize = CONNECTION_BACKLOG_BYTES_MAX;
/// What answers to ranges hold that their clients have not taken: of one connection, and of all of a reactor.
/// They share the store's memory, but keep what it would let go of. One more is deferred.
pub const CONNECTION_LISTS_BYTES_MAX: usize = 256 << 20;
pub const FRONT_LISTS_BYTES_MAX: usize = 1 << 30;
/// What a connection's may hold even where others have used all that up: small clients do not wait.
pub const CONNECTION_LISTS_BYTES_MIN: usize = 8 << 20;
/// Requests for ranges that are deferred, and their bytes: more are told to come again.
pub const LISTS_WAITING_MAX: usize = 16 << 10;
pub const LISTS_WAITING_BYTES_MAX: usize = 64 << 20;
/// How often readers are looked at while others wait, and after how many looks without having taken anything
/// they lose what is held for them: after half a minute, which a reader in trouble survives and a dead one not.
pub const READER_CHECK_MS: u64 = 1_000;
pub const READER_CHECKS_MAX: u32 = 30;
/// An answer that is always taken: those to writes, which have been done. Streams bound their number.
pub const ANSWER_BYTES_MIN: usize = 4 << 10;
/// Bytes of partial requests, per connection and per reactor: what a client may make us keep that never ends
/// its messages. Messages of the largest size come four at a time, whatever they are set to.
pub const CONNECTION_PARTIAL_BYTES_MAX: usize = 64 << 20;
pub const CONNECTION_PARTIAL_MESSAGES: usize = 4;
pub const FRONT_PARTIAL_BYTES_MAX: usize = 256 << 20;
/// What a connection may keep even where the others have used the reactor's share up.
pub const CONNECTION_PARTIAL_BYTES_MIN: usize = 64 << 10;
/// From the opening of a connection to HTTP/2's preface or to the end of a first HTTP/1 request, and from the
/// first byte of a later one to its end: many round trips of a slow path, and no home for the silent.
pub const HTTP1_REQUEST_SECS_MAX: u64 = 30;
/// Between two requests of an HTTP/1 connection: longer than scrapers and probes pause.
pub const HTTP1_IDLE_SECS_MAX: u64 = 300;

// checkpoint
/// One write of a checkpoint: large enough to stream, small enough to let a log write pass.
pub const CHECKPOINT_BLOCK_BYTES_MAX: usize = 128 << 10;
const _: () = assert!(CHECKPOINT_BLOCK_BYTES_MAX.is_multiple_of(BLOCK_BYTES));
/// Blocks of a checkpoint that are filled before the bulk lane gets them: each round trip to the lane takes
/// two waits for a CPU, which on a busy machine are longer than the writes.
pub const CHECKPOINT_STEP_BLOCKS: usize = 8;
/// Files of one chain of checkpoints: each costs a start an open file and a shard's log a slot in the meta.
pub const CHECKPOINT_CHAIN_FILES_MAX: usize = 32;
/// How long a checkpoint may hold history before its writing presses: many times what it takes at the calm
/// rate.
pub const CHECKPOINT_PATIENCE_SECS: u64 = 10;

/// What etcd's log adds to a request before it is measured against `--max-request-bytes`: an id of nine bytes
/// in a header of its own, and the tag and length of the request.
pub const REQUEST_ENVELOPE_BYTES: usize = 13 + 1;
// shell
/// Requests handed to the kernel in one call: one for each completion that a turn takes; more take several.
pub const RING_SUBMISSIONS: u32 = 512;
/// Completions that the ring holds before the kernel puts them aside: what four turns take.
pub const RING_COMPLETIONS: u32 = 2048;
/// Memory that a reactor's ring keeps locked, in Linux 6.14 and newer: requests of 64 bytes each in whole
/// pages, completions of 16 with a place of 4 for each request and a header, and the list of receive buffers.
pub const RING_LOCKED_BYTES: usize = RING_SUBMISSIONS as usize * 64
    + (RING_COMPLETIONS as usize * 16 + RING_SUBMISSIONS as usize * 4 + 512).next_multiple_of(4096)
    + (RECEIVE_BUFFERS * 16).next_multiple_of(4096);
/// Memory that the bulk lane keeps locked: three rings of 128 requests, and what each registers.
pub const BULK_LOCKED_BYTES: usize = 3 * ((16 << 10) + BULK_IO_MEMORY_BYTES);
const _: () = assert!(
    64 * RING_LOCKED_BYTES + BULK_LOCKED_BYTES <= 8 << 20,
    "64 reactors fit into what a process may lock by default under systemd"
);
/// How long a start waits for locked memory that a process which has just ended still holds.
pub const RING_TIMEOUT_MS: u64 = 2_000;
/// Buffers that a thread receives into, and their size: what one turn takes; the largest HTTP/2 frame that
/// clients send by default fits into one.
pub const RECEIVE_BUFFERS: usize = 256;
pub const RECEIVE_BUFFER_BYTES: usize = 16 << 10;
/// Completions, arrivals and mail (from each sender) that one turn takes: well under a millisecond each.
pub const TURN_COMPLETIONS_MAX: usize = 512;
pub const TURN_ARRIVALS_MAX: usize = 64;
pub const TURN_MAIL_MAX: usize = 256;
/// Mail in the queue between two reactors: a few turns. With many reactors there are many queues, so that
/// all together bound it too.
pub const MAIL_QUEUED_MAX: usize = 1024;
pub const MAIL_QUEUED_MIN: usize = 16;
pub const MAIL_QUEUED_TOTAL: usize = 256 << 10;
/// How long a reactor sleeps at most that holds mail or orders which did not fit.
pub const MAIL_RETRY_US: u64 = 100;
/// Bytes of one connection handed out and not sent, beyond which nothing is received from it.
pub const CONNECTION_BACKLOG_BYTES_MAX: usize = 1 << 20;
/// One send: it comes back when all of it is with the kernel, and shows by then that the client reads.
pub const SEND_BYTES_MAX: usize = 1 << 20;
/// Pieces of one send: what a turn has for another member is a few frames, each of a head and some payloads.
pub const SEND_PIECES_MAX: usize = 64;
/// A piece up to this length is copied behind the one before it: that is cheaper than a place of its own.
pub const SEND_MERGED_BYTES_MAX: usize = 4 << 10;
/// How long connecting to another member may take, all addresses of its name together: many round trips of the
/// slowest path. A longer wait would be for the next of the kernel's attempts, which come at ever longer intervals
/// where a new one may find the path healed.
pub const DIAL_MS_MAX: u64 = 2_000;
/// How long a first start waits for the members that begin the cluster with it to say whom they know already, and how
/// long a list it reads: two or three hundred bytes a member, and names may be long.
pub const MEMBERS_PAGE_MS_MAX: u64 = 1_000;
pub const MEMBERS_PAGE_BYTES_MAX: u64 = 256 << 10;
const _: () = {
    let urls_bytes = MEMBERS_MAX * MEMBER_URLS_MAX * (MEMBER_URL_BYTES_MAX + 3);
    assert!((urls_bytes as u64) < MEMBERS_PAGE_BYTES_MAX, "with quotes and commas, and room for names");
};
/// Addresses of one name that are asked for that list, one after the other: they share the time.
pub const MEMBER_ADDRESSES_MAX: usize = 4;
/// Names that are looked up at a time, each by a thread: one for each other member.
pub const LOOKUPS_MAX: usize = MEMBERS_MAX;
/// How long what was sent to another member may stay unacknowledged before the kernel ends the connection (etcd's
/// number for its peers' reads and writes).
pub const PEER_UNACKNOWLEDGED_MS_MAX: u64 = 5_000;
/// How long a connection that is to be closed may take nothing of what it is still owed.
pub const CONNECTION_END_TIMEOUT_SECS: u64 = 20;
/// How long a closed connection is kept for the client to read its last replies.
pub const CONNECTION_LINGER_MS: u64 = 1_000;
/// How long an address may be in use when the server starts, and when it is tried again.
pub const LISTEN_TIMEOUT_MS: u64 = 2_000;
pub const LISTEN_RETRY_MS: u64 = 20;
/// A connection that was moved to the reactor of its keys moves again after a streak of requests that is longer
/// by so many bits.
pub const MOVE_STREAK_GROWTH_BITS: u32 = 3;
/// Up to so many connections gather at a reactor in any case; more only up to twice a reactor's share, so that a
/// shard that everybody asks for does not draw all clients to one thread.
pub const CONNECTIONS_GATHERED_MIN: usize = 8;
/// Connections the kernel holds for us before they are accepted (cut to net.core.somaxconn).
pub const LISTEN_BACKLOG: i32 = 4096;
/// How old the wall clock's time may be that answers are dated with.
pub const WALL_CHECK_MS: u64 = 500;
/// When to accept again after accepting failed, as for want of descriptors.
pub const ACCEPT_RETRY_MS: u64 = 100;
/// How long a client has to say that it has heard of a connection's end, until when its new calls are served: a
/// round trip of the widest network.
pub const HTTP2_FAREWELL_MS_MAX: u64 = 500;
/// How long a stop waits for clients, beyond what their requests take.
pub const STOP_TIMEOUT_SECS: u64 = 5;
/// How long the leadership is tried to be handed over, where an election timeout is not less: a stop needs the rest of
/// its time for clients.
pub const HAND_OVER_MS_MAX: u64 = 2_000;
const _: () = assert!(HAND_OVER_MS_MAX < STOP_TIMEOUT_SECS * 1_000);
/// How long a stop takes at most: a reactor that hangs in a call to the kernel, as where the disk does not
/// answer, is waited for no longer. Far below the 90 seconds after which systemd kills, and the 30 of
/// Kubernetes.
pub const STOP_SECS_MAX: u64 = 10;
const _: () = assert!(STOP_TIMEOUT_SECS < STOP_SECS_MAX);
const _: () = assert!(HTTP2_FAREWELL_MS_MAX < STOP_TIMEOUT_SECS * 1_000);
/// Lines that wait for the log's outputs, and lines written at a time.
pub const LOG_LINES_QUEUED_MAX: usize = 4096;
pub const LOG_LINES_WRITTEN_MAX: usize = 256;
/// Orders to the bulk lane that wait: two per shard are many.
pub const BULK_ORDERS_QUEUED_MAX: usize = 1024;
/// One write of the bulk lane: larger ones make the logs' writes wait longer.
pub const BULK_WRITE_BYTES: usize = 128 << 10;
/// Rate of checkpoints while nothing presses: twice what the logs' payloads are written at for long, so that it
/// shows little in a put's p99.
pub const BULK_BYTES_PER_SEC: u64 = 50 << 20;
/// Rate of checkpoints that a request, or work that is put off, waits for.
pub const BULK_BYTES_PER_SEC_PRESSING: u64 = 200 << 20;
/// Rate of segments prepared while clients are served: above what the logs of a member write for long.
pub const SEGMENT_BYTES_PER_SEC: u64 = 200 << 20;
/// One write of a segment's zeros while no client is served yet.
pub const SEGMENT_WRITE_BYTES_AT_START: usize = 1 << 20;
/// By how much files are cut before they are removed, with a pause behind each cut: measured as harmless.
pub const REMOVE_SLICE_BYTES: u64 = 8 << 20;
pub const REMOVE_PAUSE_MS: u64 = 5;
/// Memory that glommio registers with each of its three rings: eight writes' worth; its default of 10 MiB
/// is more than an unprivileged process may lock.
pub const BULK_IO_MEMORY_BYTES: usize = 1 << 20;
/// Log bytes held for a reactor's shards beyond which checkpoints are written: at most what a restart reads in
/// a fraction of a second, less where the shards hold little, and in the same proportion to it.
pub const CHECKPOINT_LOG_BYTES: u64 = 256 << 20;
pub const CHECKPOINT_LOG_BYTES_MIN: u64 = 32 << 20;
pub const CHECKPOINT_LOG_SHARE: u64 = 4;
/// What a log may hold, in files of the least length, without having filled it (each start goes on to a new
/// file) before checkpoints are written, unless what they write is more.
pub const LOG_UNUSED_FILES_MAX: u64 = 2;
/// Stack of a reactor's thread: transactions nest, and are evaluated by recursion.
pub const REACTOR_STACK_BYTES: usize = 8 << 20;
/// A turn that lasts longer, or `settled` that stands longer with revisions outstanding, is reported.
pub const STALL_MS: u64 = 1_000;
const _: () =
    assert!(BULK_WRITE_BYTES.is_multiple_of(BLOCK_BYTES) && BULK_WRITE_BYTES <= BULK_IO_MEMORY_BYTES);
const _: () = assert!(CHECKPOINT_LOG_BYTES_MIN <= CHECKPOINT_LOG_BYTES);
