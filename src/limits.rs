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
const _: () = assert!(SEGMENT_BYTES.is_multiple_of(BLOCK_BYTES) && LOG_WRITE_BYTES_MAX < SEGMENT_BYTES);

// log
/// Segments prepared ahead of the one being filled: one is enough while the next is being made.
pub const LOG_SEGMENTS_SPARE: u64 = 2;
/// Segments given away that wait for a new life; more are removed.
pub const LOG_SEGMENTS_RECYCLED_MAX: usize = 8;
/// Buffers kept for reuse: those in flight, the open one and one between.
pub const LOG_BUFFERS_SPARE_MAX: usize = 4;
/// How long an idle log waits before it writes a block only to vouch for the last write: longer than the
/// gap between writes under load, so that it costs nothing then.
pub const LOG_VOUCH_DELAY_US: u64 = 2_000;
/// A log record's payload has to fit into one write with everything around it.
const _: () = assert!(ENTRY_BYTES_MAX + REQUEST_BYTES_DEFAULT + REQUEST_OVERHEAD_BYTES < LOG_WRITE_BYTES_MAX);

// checkpoint
/// One write of a checkpoint: large enough to stream, small enough to let a log write pass.
pub const CHECKPOINT_BLOCK_BYTES_MAX: usize = 128 << 10;
const _: () = assert!(CHECKPOINT_BLOCK_BYTES_MAX.is_multiple_of(BLOCK_BYTES));
