//! The limits that decide which way work takes, as settings: a process has them from its world.

use super::*;

/// Limits whose crossing leads another way through the program. The simulator draws each of them, so that
/// every way is walked by small runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// See [`LOG_WRITE_BYTES_MAX`].
    pub log_write_bytes_max: usize,
    /// See [`LOG_BEHIND_BYTES_MAX`].
    pub log_behind_bytes_max: usize,
    /// See [`DELETE_LIST_MAX`].
    pub delete_list_max: usize,
    /// See [`TURN_EFFECT_BYTES_MAX`].
    pub turn_effect_bytes_max: usize,
    /// See [`WAITING_MAX`].
    pub waiting_max: usize,
    /// See [`CONTROL_PENDING_MAX`].
    pub control_pending_max: usize,
    /// See [`CONTROL_WAITING_MAX`].
    pub control_waiting_max: usize,
    /// See [`PARKED_CALLS_MAX`].
    pub parked_calls_max: usize,
    /// See [`PARKED_BYTES_MAX`].
    pub parked_bytes_max: usize,
    /// See [`CALLS_BYTES_MAX`].
    pub calls_bytes_max: usize,
    /// See [`SLICES_PER_TURN`].
    pub slices_per_turn: usize,
    /// See [`COMPACT_SLICE_KEYS`].
    pub compact_slice_keys: usize,
    /// See [`CHECKPOINT_STEP_BLOCKS`].
    pub checkpoint_step_blocks: usize,
    /// See [`CHECKPOINT_CHAIN_FILES_MAX`].
    pub checkpoint_chain_files_max: usize,
    /// See [`HELD_BYTES_MAX`].
    pub held_bytes_max: usize,
    /// See [`LAGGARD_LOG_BYTES_MAX`].
    pub laggard_log_bytes_max: u64,
    /// See [`PACED_LOG_BYTES`].
    pub paced_log_bytes: u64,
    /// See [`PACED_BYTES_PER_SEC`].
    pub paced_bytes_per_sec: u64,
    /// See [`BEHIND_ENTRIES_MAX`].
    pub behind_entries_max: u64,
    /// See [`READS_BYTES_MAX`].
    pub reads_bytes_max: usize,
    /// See [`KEEP_ALIVES_MAX`].
    pub keep_alives_max: usize,
    /// See [`SIZES_STEP_BYTES`].
    pub sizes_step_bytes: u64,
    /// See [`AUTO_COMPACTION_REVISIONS_MS`].
    pub auto_compaction_revisions_ms: u64,
    pub watch: WatchBounds,
    pub front: FrontBounds,
    pub http2: Http2Bounds,
    pub peer: PeerBounds,
}

impl Bounds {
    pub const PRODUCTION: Bounds = Bounds {
        log_write_bytes_max: LOG_WRITE_BYTES_MAX,
        log_behind_bytes_max: LOG_BEHIND_BYTES_MAX,
        delete_list_max: DELETE_LIST_MAX,
        turn_effect_bytes_max: TURN_EFFECT_BYTES_MAX,
        waiting_max: WAITING_MAX,
        control_pending_max: CONTROL_PENDING_MAX,
        control_waiting_max: CONTROL_WAITING_MAX,
        parked_calls_max: PARKED_CALLS_MAX,
        parked_bytes_max: PARKED_BYTES_MAX,
        calls_bytes_max: CALLS_BYTES_MAX,
        slices_per_turn: SLICES_PER_TURN,
        compact_slice_keys: COMPACT_SLICE_KEYS,
        checkpoint_step_blocks: CHECKPOINT_STEP_BLOCKS,
        checkpoint_chain_files_max: CHECKPOINT_CHAIN_FILES_MAX,
        held_bytes_max: HELD_BYTES_MAX,
        laggard_log_bytes_max: LAGGARD_LOG_BYTES_MAX,
        paced_log_bytes: PACED_LOG_BYTES,
        paced_bytes_per_sec: PACED_BYTES_PER_SEC,
        behind_entries_max: BEHIND_ENTRIES_MAX,
        reads_bytes_max: READS_BYTES_MAX,
        keep_alives_max: KEEP_ALIVES_MAX,
        sizes_step_bytes: SIZES_STEP_BYTES,
        auto_compaction_revisions_ms: AUTO_COMPACTION_REVISIONS_MS,
        watch: WatchBounds::PRODUCTION,
        front: FrontBounds::PRODUCTION,
        http2: Http2Bounds::PRODUCTION,
        peer: PeerBounds::PRODUCTION,
    };

    /// The smallest that work: a few events, keys and requests reach each of them.
    pub const TINY: Bounds = Bounds {
        // The head of a segment, and one entry that is cut small.
        log_write_bytes_max: 3 * BLOCK_BYTES,
        log_behind_bytes_max: 2 * BLOCK_BYTES,
        delete_list_max: 2,
        turn_effect_bytes_max: 300,
        waiting_max: 3,
        control_pending_max: 2,
        control_waiting_max: 2,
        parked_calls_max: 4,
        parked_bytes_max: 2000,
        calls_bytes_max: 4000,
        slices_per_turn: 1,
        compact_slice_keys: 1,
        checkpoint_step_blocks: 1,
        checkpoint_chain_files_max: 3,
        held_bytes_max: 600,
        laggard_log_bytes_max: 4 * BLOCK_BYTES as u64,
        paced_log_bytes: 4 * BLOCK_BYTES as u64,
        paced_bytes_per_sec: 64 << 10,
        behind_entries_max: 8,
        reads_bytes_max: 300,
        keep_alives_max: 1,
        sizes_step_bytes: 200,
        auto_compaction_revisions_ms: 400,
        watch: WatchBounds::TINY,
        front: FrontBounds::TINY,
        http2: Http2Bounds::TINY,
        peer: PeerBounds::TINY,
    };
}
