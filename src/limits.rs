//! Every bound of the server, with its unit in the name and its reason in a sentence.

/// Blocks of the log and of checkpoints: the physical sector of current disks.
pub const BLOCK_BYTES: usize = 4096;
/// One file of the log. Small enough to recycle quickly, large enough that changing files is rare.
pub const SEGMENT_BYTES: usize = 64 << 20;
/// One write to the log. Beyond this a turn splits its work over several writes.
pub const LOG_WRITE_BYTES_MAX: usize = 4 << 20;
/// Log writes in flight: a third gains nothing on the disks measured (`stack.md` section 8).
pub const LOG_WRITES_IN_FLIGHT_MAX: usize = 2;
/// Payload of one Raft entry, beyond which a shard's turn proposes several (DESIGN 2.1).
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
/// Shards of one cluster.
pub const SHARDS_MAX: usize = 4096;

/// Revisions taken and not yet settled, in the whole process: the ring of commit marks.
pub const UNSETTLED_REVISIONS_MAX: usize = 1 << 16;
const _: () = assert!(UNSETTLED_REVISIONS_MAX.is_power_of_two(), "the ring is indexed by a mask");
const _: () = assert!(SEGMENT_BYTES % BLOCK_BYTES == 0 && LOG_WRITE_BYTES_MAX < SEGMENT_BYTES);

// http2

/// Streams a client may have open on a connection: etcd's default is 2³²−1, which bounds nothing.
pub const HTTP2_STREAMS_DEFAULT: u32 = 10_000;
/// What a stream may send before it is consumed: grpc-go's window grows to about this on a fast link.
pub const HTTP2_STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// What a connection may hold of received bytes not consumed: some streams' windows.
pub const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Bytes waiting for a client's windows: what slow readers of one connection may cost. One message is taken
/// whatever its size, since etcd bounds no answer.
pub const HTTP2_PENDING_BYTES_MAX: usize = 256 << 20;
/// What a stream that pulls (a watch, a long list) may have waiting, so that its source keeps the rest.
pub const HTTP2_STREAM_PENDING_BYTES: usize = 64 << 10;
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
/// Open streams reset by or because of a client, at once and each second: a client whose thousand requests
/// time out together, for seconds, is honest; a rapid reset (CVE-2023-44487) is not.
pub const HTTP2_RESETS_BURST: u32 = 5000;
pub const HTTP2_RESETS_PER_SEC: u32 = 1000;
/// SETTINGS of a client: each may touch every stream. Honest ones send one or two, and grpc-go one each time
/// its window estimate grows.
pub const HTTP2_SETTINGS_BURST: u32 = 100;
pub const HTTP2_SETTINGS_PER_SEC: u32 = 10;
/// Frames that say nothing (DATA without bytes or end, PRIORITY, kinds unknown).
pub const HTTP2_VOID_FRAMES_BURST: u32 = 1000;
pub const HTTP2_VOID_FRAMES_PER_SEC: u32 = 100;
/// Time to the client's preface and SETTINGS, as grpc-go waits.
pub const HTTP2_HANDSHAKE_SECS_MAX: u64 = 120;
/// A buffer for a split frame that is kept for the next one.
pub const HTTP2_CARRY_KEEP_BYTES: usize = 4096;
