//! The parts of [`Bounds`] that single layers take along.

use super::*;

/// One row per limit: its name, its constant, and the smallest value that works.
macro_rules! part {
    ($(#[$doc:meta])* $part:ident { $($name:ident: $type:ty = $production:ident, tiny $tiny:expr;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $part {
            $(#[doc = concat!("See [`", stringify!($production), "`].")] pub $name: $type,)*
        }

        impl $part {
            pub const PRODUCTION: $part = $part { $($name: $production,)* };
            pub const TINY: $part = $part { $($name: $tiny,)* };
        }
    };
}

part! {
    /// What a Watch stream and a shard's subscriptions may have under way.
    WatchBounds {
        // An event counts for about a hundred bytes and its values.
        stream_credit_bytes: usize = WATCH_STREAM_CREDIT_BYTES, tiny 1200;
        credit_bytes_min: usize = WATCH_CREDIT_BYTES_MIN, tiny 150;
        credit_bytes_max: usize = WATCH_CREDIT_BYTES_MAX, tiny 600;
        reply_revisions_max: usize = WATCH_REPLY_REVISIONS_MAX, tiny 2;
        reply_bytes_max: usize = WATCH_REPLY_BYTES_MAX, tiny 300;
        merge_events: usize = WATCH_MERGE_EVENTS, tiny 3;
        fragment_bytes_max: usize = WATCH_FRAGMENT_BYTES_MAX, tiny 300;
        answers_max: usize = WATCH_ANSWERS_MAX, tiny 1;
        catch_up_watchers: usize = WATCH_CATCH_UP_WATCHERS, tiny 1;
    }
}

part! {
    /// What the clients' side of a reactor takes, holds, writes in one turn and waits for.
    FrontBounds {
        // An element counts for a quarter of a KiB and its bytes.
        long_message_bytes: usize = LONG_MESSAGE_BYTES, tiny 600;
        long_bytes_per_turn: usize = LONG_MESSAGES_BYTES_PER_TURN, tiny 2000;
        long_packed_bytes_per_turn: usize = LONG_MESSAGES_PACKED_BYTES_PER_TURN, tiny 500;
        long_elements_per_turn: usize = LONG_MESSAGES_ELEMENTS_PER_TURN, tiny 2;
        unsent_bytes_max: usize = CONNECTION_UNSENT_BYTES_MAX, tiny 500;
        answers_bytes_max: usize = FRONT_ANSWERS_BYTES_MAX, tiny 4000;
        connection_answers_bytes_min: usize = CONNECTION_ANSWERS_BYTES_MIN, tiny 1000;
        answer_bytes_min: usize = ANSWER_BYTES_MIN, tiny 700;
        connection_lists_bytes_max: usize = CONNECTION_LISTS_BYTES_MAX, tiny 2000;
        connection_lists_bytes_min: usize = CONNECTION_LISTS_BYTES_MIN, tiny 1500;
        lists_bytes_max: usize = FRONT_LISTS_BYTES_MAX, tiny 4000;
        lists_waiting_max: usize = LISTS_WAITING_MAX, tiny 3;
        lists_waiting_bytes_max: usize = LISTS_WAITING_BYTES_MAX, tiny 2000;
        reader_check_ms: u64 = READER_CHECK_MS, tiny 100;
        reader_checks_max: u32 = READER_CHECKS_MAX, tiny 3;
        connection_partial_bytes_max: usize = CONNECTION_PARTIAL_BYTES_MAX, tiny 4000;
        connection_partial_messages: usize = CONNECTION_PARTIAL_MESSAGES, tiny 1;
        connection_partial_bytes_min: usize = CONNECTION_PARTIAL_BYTES_MIN, tiny 1000;
        partial_bytes_max: usize = FRONT_PARTIAL_BYTES_MAX, tiny 8000;
        http1_request_secs_max: u64 = HTTP1_REQUEST_SECS_MAX, tiny 2;
        http1_idle_secs_max: u64 = HTTP1_IDLE_SECS_MAX, tiny 3;
    }
}

part! {
    /// What one end of an HTTP/2 connection takes, keeps, allows and waits for.
    Http2Bounds {
        stream_window_bytes: u32 = HTTP2_STREAM_WINDOW_BYTES, tiny 1000;
        // RFC 9113 knows no way to a lower one.
        connection_window_bytes: u32 = HTTP2_CONNECTION_WINDOW_BYTES, tiny 65_535;
        pending_bytes_max: usize = HTTP2_PENDING_BYTES_MAX, tiny 6000;
        stream_pending_bytes: usize = HTTP2_STREAM_PENDING_BYTES, tiny 400;
        stream_pending_bytes_min: usize = HTTP2_STREAM_PENDING_BYTES_MIN, tiny 1000;
        output_bytes: usize = HTTP2_OUTPUT_BYTES, tiny 500;
        block_bytes_max: usize = HTTP2_BLOCK_BYTES_MAX, tiny 500;
        block_frames_max: u32 = HTTP2_BLOCK_FRAMES_MAX, tiny 2;
        remembered_blocks: usize = HTTP2_REMEMBERED_BLOCKS, tiny 1;
        remembered_block_bytes: usize = HTTP2_REMEMBERED_BLOCK_BYTES, tiny 8;
        remembered_head_bytes: usize = HTTP2_REMEMBERED_HEAD_BYTES, tiny 256;
        resets_burst: u32 = HTTP2_RESETS_BURST, tiny 2;
        resets_per_sec: u32 = HTTP2_RESETS_PER_SEC, tiny 1;
        rapid_reset_ms: u64 = HTTP2_RAPID_RESET_MS, tiny 1;
        settings_burst: u32 = HTTP2_SETTINGS_BURST, tiny 3;
        settings_per_sec: u32 = HTTP2_SETTINGS_PER_SEC, tiny 1;
        empty_frames_burst: u32 = HTTP2_EMPTY_FRAMES_BURST, tiny 2;
        empty_frames_per_sec: u32 = HTTP2_EMPTY_FRAMES_PER_SEC, tiny 1;
        handshake_secs_max: u64 = HTTP2_HANDSHAKE_SECS_MAX, tiny 10;
    }
}

part! {
    /// What one end of a link between members puts into a frame, and lets wait.
    PeerBounds {
        // A message counts for about a hundred bytes and its payloads.
        frame_bytes_max: usize = PEER_FRAME_BYTES_MAX, tiny 400;
        unsent_bytes_max: usize = PEER_UNSENT_BYTES_MAX, tiny 500;
        queued_bytes_max: usize = PEER_QUEUED_BYTES_MAX, tiny 9000;
        queued_messages_max: usize = PEER_QUEUED_MESSAGES_MAX, tiny 6;
    }
}

const _: () = {
    Bounds::PRODUCTION.assert_fit();
    Bounds::TINY.assert_fit();
};

impl Bounds {
    /// What has to hold between the limits, however they are mixed. Panics where it does not.
    pub const fn assert_fit(&self) {
        let Bounds { watch, front, http2, peer, .. } = self;
        assert!(watch.credit_bytes_min <= watch.credit_bytes_max);
        assert!(watch.credit_bytes_max <= watch.stream_credit_bytes);
        assert!(front.answer_bytes_min < front.connection_lists_bytes_min);
        assert!(front.connection_lists_bytes_min <= front.connection_lists_bytes_max);
        assert!(front.connection_lists_bytes_max <= front.lists_bytes_max);
        assert!(front.connection_partial_bytes_min <= front.connection_partial_bytes_max);
        assert!(front.answer_bytes_min <= front.connection_answers_bytes_min);
        let framed = front.answer_bytes_min + 64;
        assert!(framed < http2.stream_pending_bytes_min, "with what frames and packs it");
        assert!(http2.connection_window_bytes >= 65_535);
        assert!(peer.frame_bytes_max <= PEER_FRAME_BYTES_MAX);
        let ahead = STATE_BLOCKS_AHEAD * BLOCK_BYTES;
        assert!(peer.queued_bytes_max > ahead, "what of a state is sent ahead finds its place");
        let handed_out = peer.unsent_bytes_max + peer.frame_bytes_max;
        assert!(handed_out < CONNECTION_BACKLOG_BYTES_MAX, "what is handed out to a peer fits");
    }
}
