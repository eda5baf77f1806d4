//! The ways through the program that few requests take, counted: a world that looks for faults has to know
//! that it walks them.

macro_rules! paths {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// How often a reactor went each of them since its start.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Paths {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Paths {
            pub const NAMES: &[&str] = &[$(stringify!($name),)*];

            pub fn add(&mut self, more: &Paths) {
                $(self.$name += more.$name;)*
            }

            /// In the order of [`Paths::NAMES`].
            pub fn counts(&self) -> impl Iterator<Item = u64> + use<> {
                [$(self.$name,)*].into_iter()
            }
        }
    };
}

paths! {
    /// The end of an epoch took back what was not settled; a seal voided a write, wherever its log is read.
    epoch_undone,
    write_voided,
    /// A takeover lasted too long, and the control shard's group was handed on; a leader gave up that was not well;
    /// another member was asked for a group whose log is longer there.
    takeover_given_up,
    leader_gave_up,
    group_wanted,
    /// A member with the longer log of a group took it for the winner, and handed it over.
    group_taken,
    group_handed_over,
    /// A vote that belongs to an older term of the control shard's group was not asked of raft.
    vote_outdated,
    /// A member that is far behind got no vote for the control shard's group.
    vote_of_laggard,
    /// A member that leaves got no vote for it either.
    vote_of_leaver,
    /// A change of the members came to its end: one joined, one became a voter everywhere, one left; a leader handed over
    /// since it leaves; a change was asked for while another one was under way; one was carried on by a later leader; and
    /// members were heard of that the control state did not name yet.
    member_added,
    member_promoted,
    member_removed,
    leader_removed_itself,
    member_change_waited,
    intent_carried_on,
    members_heard_of,
    /// A member stood as the connection to its leader broke.
    stood_for_lost_leader,
    /// A process had slept, and counted nothing of it.
    sleep_not_counted,
    /// A leader that slept asked the members who leads before it expired a lease.
    expiry_asked_first,
    /// The leadership was to go to another member, by order; and went; and stayed.
    hand_over_begun,
    hand_over_done,
    hand_over_failed,
    /// What another member had settled was shown, or what this one had shown before its start.
    shown_by_coverage,
    shown_at_start,
    /// More was known to be committed than a log said that rested.
    rest_disturbed,
    /// An answer, or a read, waited until what it shows was covered here.
    answer_waited_for_coverage,
    read_waited_for_coverage,
    /// A round that nobody confirmed in time was asked for anew.
    round_asked_anew,
    /// A follower had fallen behind what is in memory, and got it from the log; and had all again.
    follower_fell_behind,
    follower_caught_up,
    /// A follower was given a state, put one in the place of its own, and gave up taking one.
    state_given,
    state_installed,
    state_given_up,
    /// Writes were paced, so that a member that comes back gets ahead of them.
    log_paced,
    /// A request went to the leader; came too late there; went to another one, as it certainly was not taken; and had
    /// an outcome that nobody tells.
    forwarded,
    forwarded_late,
    forwarded_anew,
    forwarded_lost,
    /// A write went over several shards, or was too long for a step.
    txn_cross_shard,
    txn_long,
    /// A write over several shards began anew at the end of a lease, found the ring full, and failed at its
    /// deadline with shards reserved.
    txn_retried,
    txn_redecided,
    txn_released_late,
    txn_compared_in_slices,
    txn_applied_in_slices,
    /// What an evaluation waited for.
    waited_for_ring,
    waited_for_log,
    waited_for_turn,
    waited_for_reservation,
    waited_for_lease,
    /// A connection came from another reactor, or was sent back.
    connection_moved,
    connection_sent_back,
    /// Calls that came to their deadline.
    call_expired,
    call_parked,
    /// Who was told to come again.
    refused_waiting,
    refused_control,
    refused_parked,
    refused_bytes,
    /// Control entries that waited for what they had seen to settle.
    control_waited,
    /// Requests that waited for an entry of their lease, and those of a compaction outdone by another.
    control_waited_for_entry,
    control_outdone,
    /// Answers that waited for other reactors to know what they show; and entries that took effect at all reactors at
    /// once, where this member does not lead.
    control_shown_later,
    control_shared,
    compacted_physically,
    compacted_by_itself,
    compacted_in_slices,
    revoke_waited_for_txn,
    revoked_with_keys,
    revoked_bare,
    lease_keys_gathered,
    lease_renewed_too_late,
    no_space_raised,
    no_space_refused,
    range_cross_shard,
    range_sliced,
    range_read_anew,
    range_unwanted,
    /// Answers that waited for a place beside those that their clients do not take.
    answer_waited,
    history_sliced,
    hash_made_anew,
    /// A delete of many keys was named by its range, and read back from a log as such.
    delete_named_by_range,
    entry_cut,
    /// Subscriptions that ran out of credit, read history, and lost it to a compaction.
    watch_fell_behind,
    watch_caught_up,
    watch_compacted,
    watch_published_in_slices,
    watch_revision_in_turns,
    watch_cut,
    watch_progress,
    /// The mark of a shard that the sequencer's ring could not tell to be idle was asked for.
    watch_mark_asked,
    watch_credit_returned,
    checkpoint_finished,
    checkpoint_is_delta,
    checkpoint_is_base_again,
    /// A delta told of keys whose ends compaction had dropped.
    checkpoint_with_graves,
    /// Shards that a start restored from a base and deltas.
    shard_of_deltas,
    checkpoint_given_up,
    /// The disk had no room for a base.
    checkpoint_is_delta_for_want_of_room,
    checkpoint_defragmented,
    /// Shards that came from another log, and those whose move took several writes.
    shard_moved,
    shard_moved_in_writes,
    stay_closed,
    dead_log_cleared,
    log_write_while_one_is_in_flight,
    log_recycled,
    log_without_room,
    /// A checkpoint on a full disk got the room of the file that stood by.
    log_gave_reserve,
}
