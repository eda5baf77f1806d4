//! Braid: a drop-in replacement for etcd v3.
//!
//! This page is the map of the source. The words and the rules of the protocol stand at
//! [`takeover`](crate::takeover#words) (`src/protocol.md`), how to change things at [the end](#how-to)
//! (`src/howto.md`), what Braid costs in `tuning.md`. `file.rs: name` is a path below `src/` and what is
//! defined there; a test looks all of them up.
//!
//! # Bird's eye
//!
//! To its clients Braid is one etcd: one gap-free revision order, transactions over any keys, ordered
//! watches. Inside, the keys are cut into ranges, each range is a *shard* with a Raft log of its own, and
//! each shard lives on a *reactor*: one thread with its io_uring, its log file, its shards and its
//! connections. A client's connection belongs to one reactor, and what concerns a shard of another goes there
//! as mail. The one thing that threads share is the *sequencer*, which gives out revisions and knows up to
//! where all logs are complete.
//!
//! ```text
//!   client ──bytes──▶ front ─▶ calls ──mail──▶ the shard's reactor: evaluate ─▶ one entry per turn ─▶ log
//!     ▲                                                   │ takes a revision          durable │
//!     │                                                   ▼                                   ▼
//!     └────────── reply, once settled ◀────────────── sequencer ◀──────────────── marks the revision
//! ```
//!
//! All but the shell is deterministic: [`reactor::Reactor`] takes an [`io::Input`] and the time, and gives
//! [`io::Output`]s. Time, randomness and what the disk did are inputs. Two worlds drive it: [`shell`] with
//! threads, sockets and files, and [`sim`] with virtual time, a faulty disk and a seed. So a failure is a
//! number that repeats it.
//!
//! Several members are one etcd: each shard's group has a peer on every member, one member leads them all, and
//! the others send it what they cannot answer, and serve reads and watches from what it has settled. Members speak
//! over *lanes*, each from one reactor to one of another member. What of the protocol is not built is named in its
//! notes.
//!
//! # Layers
//!
//! From below to above. A module may use the lines above its own in this table, and on its line what stands
//! to its left. `tests/braid/layers` reads the sources and refuses the rest; it also compares this table with
//! its own.
//!
//! ```text
//! stdx limits types                   small tools; every bound with its reason; numbers as types
//! config api record                   flags; requests and replies; what stands in Raft entries
//! mvcc lease txn watch                a shard's keys and versions; leases; evaluation; watches
//! raft log checkpoint sequencer       one group; a reactor's log; state on disk; revisions and settled
//! takeover router control shard peer  from logs to one prefix; keys to shards; control state; one shard; links
//! http2 wire io front                 HTTP/2; protobuf and gRPC; Input and Output; connections and calls
//! recover reactor                     from a member at rest to its shards; one thread's whole database
//! shell sim                           the two worlds
//! main                                the program
//! ```
//!
//! Inside `reactor` the same holds: its parts `calls` (the clients' side), `shards` (the owner's side),
//! `storage`, `leader`, `epoch`, `peers` (the links) and `rounds` (who leads still) own their fields, are lent a
//! turn and speak by mail, and the router alone is handed the whole. A second table holds who may see whom
//! (`tests/braid/layers/parts.rs: PARTS`).
//!
//! `lease` and `mvcc` do not know each other, nor do `shell` and `sim`. Packages stop at a door as well:
//! prost in `wire`, raft-rs in `raft`, glommio, io_uring and libc in `shell`, rkyv in `record`, `raft`, `log`,
//! `checkpoint` and `peer`.
//!
//! # What is absent where
//!
//! Of the first six the same test holds what can be told by the names in the sources.
//!
//! - `raft` knows no keys and no revisions: an entry is a payload of bytes, or a change of peers.
//! - `mvcc` knows no terms, no logs and no clients. It knows that what is above `settled` may be undone.
//! - `log` knows no shard beyond its number, and of an entry only index and term.
//! - `takeover` knows no keys: parts, epochs and prefixes are enough.
//! - `sequencer` knows no epoch, only a generation, and never waits.
//! - `http2` knows no message of etcd's, `wire` no connection, `front` no shard.
//! - `peer` knows what members say and no connection, and does nothing of what it says.
//! - etcd's protobuf is known in `wire` alone: all of the server above it speaks [`api`]. (The simulator's
//!   clients speak protobuf.)
//! - There is no clock, no randomness, no file, no socket, no thread and no `async` outside `shell`.
//! - There is no lock on a request's way. Reactors share the sequencer's atomics and bounded queues of mail.
//! - There is no two-phase commit: a transaction over shards is committed when its revision is settled.
//!
//! # Beside `src`
//!
//! `tests/braid` is the one integration test; `tests/recorded` holds etcd's own answers, `tests/mutants` bugs
//! to plant, `tests/fuzz` what decoders are fed, `tests/processes` clusters of real processes under load and
//! faults, whose clients' history the simulator's checks judge. `tools` has the simulator's program, the same
//! clusters for hours (`tools/soak`), the recorder and what builds etcd; `bench` the load generator and the
//! comparison with etcd.
//!
//! # Glossary
//!
//! The words of the protocol (reactor, shard, settled, epoch, fence, seal, prefix, …) are explained
//! [there](crate::takeover#words). These are words of the code:
//!
//! | word | meaning |
//! |---|---|
//! | **call** | A request under way, numbered by the reactor of its client ([`io::CallId`]). |
//! | **rpc** | One stream of one connection that waits for an answer ([`front::Rpc`]). |
//! | **state** | A shard's, as one member gives it to another that lacks what no log has any more ([`recover::ArrivedState`]). |
//! | **effect** | What a write has changed, before it is archived into an entry ([`record::Effect`]). |
//! | **payload** | The archived bytes of one entry, shared by log, group and apply ([`record::Payload`]). |
//! | **slice** | A bounded piece of work that may be long: a range, a delete, a hash, a compaction. |
//! | **hub** | The subscriptions to one shard, at its owner ([`watch::Hub`]). |
//! | **link** | One connection between two reactors of two members ([`peer::Link`]). |
//! | **pin** | History that a reader still needs and compaction leaves ([`mvcc::Store::pin`]). |
//! | **path** | A way through the program that few requests take, counted so that seeds must reach it ([`io::Paths`]). |
//! | **mutant** | A bug planted on purpose, to see that a check finds it (`tests/mutants`). |
//!
//! # The life of a put
//!
//! 1. The ring hands the received bytes to the thread (`shell/driver.rs: complete`), which steps the reactor
//!    with them (`reactor/mod.rs: step`, `reactor/calls/streams.rs: on_received`).
//! 2. The connection makes a request of them: frames (`http2/receive.rs: receive`), messages
//!    (`front/grpc.rs: receive`), protobuf (`wire/decode.rs: unary`), an ask (`front/rpc.rs: ask`).
//! 3. At the door what needs no state is checked (`reactor/calls/door.rs: enter, rule`), and the key's shard is
//!    looked up (`reactor/calls/mod.rs: route`, `router/mod.rs: shard_of`). The request goes to its owner as
//!    mail, or by the same way to itself (`reactor/turn.rs: send`). A connection whose requests go elsewhere
//!    moves there in a moment of rest (`front/affinity.rs: asked`, `front/mod.rs: flush, moved`,
//!    `shell/driver.rs: hand`).
//! 4. There it waits for the end of the turn, and for a reservation, the log or the ring, or none of them
//!    (`reactor/shards/writes.rs: evaluate_fresh, try_waiting`). What the turn's writes will look at is fetched from
//!    memory together (`mvcc/store.rs: touch`).
//! 5. It is evaluated against the newest state, takes a revision and stands in the store
//!    (`reactor/shards/writes.rs: evaluate`, `txn/evaluate.rs: evaluate_put`, `sequencer/mod.rs: take`,
//!    `mvcc/store.rs: put_over`). Its answer is held (`reactor/turn.rs: hold`).
//! 6. The end of the turn makes one entry of all the shard's effects (`reactor/effects.rs: write_log`,
//!    `shard/mod.rs: propose_turn`, `raft/mod.rs: propose`), and one write of all entries
//!    (`reactor/shards/mod.rs: take_readies`, `reactor/storage/mod.rs: persist`,
//!    `log/writer.rs: append, flush`).
//! 7. The write goes to the disk through the same ring (`shell/log_files.rs: write`), and comes back durable
//!    (`reactor/storage/mod.rs: on_written`).
//! 8. What is durable is persisted to its group, what that commits is marked, and the last mark moves
//!    `settled` (`reactor/effects.rs: follow_durable, follow_commits`, `shard/mod.rs: committed`,
//!    `sequencer/mod.rs: mark_all, advance`).
//! 9. Each reactor hears of it in its next turn (`shell/driver.rs: take_settled, announce_settled`). It
//!    forgets how to undo, hands events to its hubs and lets answers go (`reactor/effects.rs: settle`,
//!    `reactor/turn.rs: open_gate`).
//! 10. The answer goes back by mail, is encoded, and leaves with all others of its connection in one send
//!     (`reactor/calls/mod.rs: finish`, `front/mod.rs: answer, flush`, `shell/connections.rs: send`).
//!
//! # The life of a range
//!
//! 1. It arrives as a put does, and is checked (`reactor/calls/door.rs: enter`, `txn/check.rs: check_range`).
//! 2. During a takeover it is parked (`reactor/calls/parking.rs: park`).
//! 3. It notes `settled`, which its header will show and which it reads at unless it names an older revision
//!    (`reactor/calls/reads.rs: read`, `txn/range.rs: read_revision`).
//! 4. If its keys are in one shard of this reactor it is read at once, one key without a cursor
//!    (`reactor/calls/reads.rs: read_at_once`, `txn/range.rs: read_point`).
//! 5. Otherwise each shard's owner gets a cursor at that revision (`reactor/calls/reads.rs: read`).
//! 6. A cursor takes a bounded slice in a turn, and says with each that it goes on
//!    (`reactor/shards/slices.rs: take_slice`, `txn/range.rs: step`, `mvcc/store.rs: range`).
//! 7. A client that has gone or does not read has the rest called off
//!    (`reactor/calls/reads.rs: on_range_goes_on`).
//! 8. A shard that was compacted above the revision says so, and the range is read anew or fails
//!    (`reactor/calls/reads.rs: on_ranged, reread`).
//! 9. When all parts are there they are concatenated in the order of keys, sorted if asked
//!    (`reactor/calls/reads.rs: on_ranged`, `txn/range.rs: finish_range`).
//! 10. The answer gets its place beside others that clients have not taken, or is read later
//!     (`reactor/calls/reads.rs: answer_range`, `front/lists.rs: takes, answer_taken`); a long one is encoded
//!     as its stream takes it.
//!
//! # The life of a watch
//!
//! 1. A client's create request opens a stream at the reactor of its connection, or waits for the first
//!    takeover (`reactor/calls/streams.rs: park_watch`, `reactor/calls/watches.rs: watch`,
//!    `watch/stream.rs: request`).
//! 2. The stream subscribes at the hub of every shard that the range touches
//!    (`reactor/calls/watches.rs: route_actions`, `reactor/shards/hubs.rs: on_watch_action`,
//!    `watch/hub.rs: subscribe`). The watcher has one lane for each.
//! 3. Where it begins in the past, the hub reads history for it, slice by slice, and then it is in step
//!    (`reactor/shards/hubs.rs: work_at_hubs`, `watch/hub.rs: catch_up`).
//! 4. When something settles, the owner publishes it: those in step get the events, which are made once and
//!    shared (`reactor/shards/hubs.rs: publish`, `watch/hub.rs: publish, publish_change`).
//! 5. At the end of the turn messages leave, and behind them the watermarks
//!    (`reactor/shards/hubs.rs: send_hub_messages`).
//! 6. The stream takes both in (`reactor/calls/watches.rs: on_watch_news, on_watermarks`,
//!    `watch/stream.rs: hub_message`). Shards that nothing touched are passed without their owners
//!    (`reactor/calls/watches.rs: raise_watermarks_of_idle_shards`, `sequencer/mod.rs: untouched`).
//! 7. It merges its feeds by (main, sub) up to the lowest watermark, whole revisions at a time
//!    (`watch/stream/watcher.rs: next, merge`), as far as its client takes more
//!    (`reactor/calls/watches.rs: flush_stream`, `watch/stream.rs: poll`).
//! 8. What was sent gives credit back to the hubs. A subscription without credit falls behind, and costs no
//!    memory until it has some (`watch/stream/watcher.rs: return_credit`,
//!    `watch/hub.rs: add_credit, fall_behind`).
//! 9. A compaction ends what needs older history (`watch/hub.rs: compact`), and the client is told the
//!    revision.
//! 10. The end of an epoch changes nothing for it: it saw only what is settled. It ends by its client or with
//!     its connection (`reactor/calls/watches.rs: end_watch`).
//!
//! # The life of a transaction over shards
//!
//! 1. The client's reactor finds that its keys are in several shards, and coordinates
//!    (`reactor/calls/mod.rs: call_txn`, `txn/check.rs: footprint`,
//!    `reactor/calls/txns.rs: cross_shard_txn, begin_cross_shard`). A shard that finds a request too long for
//!    one step sends it the same way (`reactor/shards/writes.rs: is_long`, `reactor/calls/txns.rs: on_long`).
//! 2. It reserves the shards in ascending order, one after the other
//!    (`reactor/calls/txns.rs: reserve_next, on_reserved`).
//! 3. A reserved shard evaluates nothing else. It looks at the compares, in slices
//!    (`reactor/shards/reservations.rs: reserve, compare_slice`, `txn/branches.rs: step`).
//! 4. The outcomes of all shards choose the branches (`txn/branches.rs: merge_outcomes, of`), and every shard
//!    gathers what these would change, and whether they may (`reactor/calls/txns.rs: gather_all`,
//!    `reactor/shards/reservations.rs: on_gather`, `txn/cross_shard.rs: gather`).
//! 5. The coordinator makes one plan of it, and takes one revision if anything changes
//!    (`reactor/calls/txns.rs: on_gathered, decide`, `txn/cross_shard.rs: of`, `reactor/turn.rs: take`).
//! 6. Each shard gets its part: the revision, the number of parts, its `sub`s
//!    (`reactor/shards/reservations.rs: on_part`).
//! 7. It applies the part in slices, the effects go into its turns' entries, and it is free again
//!    (`reactor/shards/reservations.rs: apply_slice, push_part`, `txn/apply.rs: step`).
//! 8. The coordinator merges what they did into one reply (`reactor/calls/txns.rs: on_applied`,
//!    `txn/cross_shard.rs: merge`).
//! 9. Each part is committed in its own log. The revision is settled when all are
//!    (`sequencer/mod.rs: mark_all`), and then the reply leaves. There is nothing else to commit.
//! 10. If the epoch ends before, every part is undone (`reactor/effects.rs: stop_epoch`) and the takeover
//!     finds all parts in the logs, or none counts (`takeover/run.rs: longest_run`).
//!
//! # The life of a takeover
//!
//! 1. A group is lost, a process starts, or a member is elected. The reactor that loses a group says so (`reactor/turn.rs: lose_epoch`,
//!    `reactor/epoch/mod.rs: on_lost`), and the coordinator, at the control shard's reactor, ends the epoch
//!    (`takeover/coordinator.rs: end`, `sequencer/mod.rs: end`).
//! 2. Every reactor stops: it undoes what is not settled, fails what is under way and drops reservations
//!    (`reactor/effects.rs: stop_epoch`, `shard/mod.rs: undo`, `reactor/calls/mod.rs: fail_calls`). Requests
//!    that come now are parked.
//! 3. When all have stopped and the control shard's group is led here (`reactor/epoch/groups.rs: tick`), a new epoch begins and its log gets a fence
//!    (`reactor/epoch/mod.rs: drive_coordinator`, `takeover/coordinator.rs: begin`,
//!    `shard/mod.rs: propose_fence`).
//! 4. In a new cluster the first entry follows, which says who it is and how its keys are cut
//!    (`reactor/epoch/mod.rs: on_control_fenced, bootstrap_entry`).
//! 5. Every reactor gets the control state, makes shards that are new, stands in their groups and fences them
//!    (`reactor/epoch/mod.rs: fence_all`, `reactor/epoch/groups.rs: drive, stand`, `reactor/effects.rs: adopt`).
//! 6. When its fences are committed it reports what its logs hold (`reactor/epoch/mod.rs: report_fenced`,
//!    `shard/mod.rs: holding`).
//! 7. From all reports comes the prefix, or a hole, which ends the process
//!    (`takeover/coordinator.rs: fenced`, `takeover/run.rs: longest_run`).
//! 8. Every log gets a seal. When it is committed, what stands above the prefix is void, and the store takes
//!    from the log what it lacks (`reactor/effects.rs: on_step, follow_commits`,
//!    `takeover/log_view.rs: sealed`, `shard/mod.rs: apply_prefix`).
//! 9. When all are sealed, and every reactor has what is due of the control state, the sequencer starts behind the
//!    prefix (`reactor/effects.rs: on_sealed, begin_to_serve`, `sequencer/mod.rs: start`).
//! 10. Every reactor serves: leases get their full time, parked requests are evaluated
//!     (`reactor/effects.rs: serve`, `reactor/leader/mod.rs: begin`, `reactor/calls/parking.rs: unpark_leaderless`).
//!
//! # The life of a restart
//!
//! 1. What can be refused without the data is tried first: flags, ports, a ring for each thread
//!    (`main.rs: main`, `shell/start.rs: start`, `shell/boot.rs: take_resources`).
//! 2. The directory is locked and its identity read (`shell/data_dir.rs: open`).
//! 3. All logs are read side by side: heads first, then what is needed of each file
//!    (`shell/restart.rs: restart, recover_logs, read_log`).
//! 4. For each log it is decided where it ends, by its torn tail or not at all (`log/recovery.rs: finish`),
//!    and what it holds (`log/replay.rs: frame, finish`).
//! 5. The logs are heard about each other (`log/witness.rs: cross_examine`), and each shard gets its place:
//!    where its whole stay with the highest number is, moved if its reactor has changed
//!    (`recover/mod.rs: place, survey`). Where all other members are lost for ever this one is made the only one
//!    (`recover/alone.rs: stand_alone`).
//! 6. Each thread loads its own shards: the checkpoint's files, then the log behind them
//!    (`shell/boot.rs: driver`, `recover/mod.rs: load`, `recover/chain.rs: restore`,
//!    `takeover/log_view.rs: read`).
//! 7. A reactor is made of them, and the turns begin (`reactor/settings.rs: new, take_in`,
//!    `shell/driver.rs: run`). The first reactor accepts connections from now on, and gives each to the one
//!    that has fewest (`shell/driver.rs: spread`).
//! 8. A takeover follows, as behind the end of any epoch. Requests that come before it serves are parked.
//! 9. Once every log has what was moved into it, durably, and something is shown, left-over files and stays are
//!    cleared
//!    (`reactor/storage/mod.rs: on_moved_in, drop_left_over`, `reactor/storage/clearing.rs: begin_clearing`).
//! 10. When an epoch serves, the main thread says that clients are served (`shell/supervisor.rs: supervise`,
//!     `shell/mod.rs: announce`).

#![doc = include_str!("howto.md")]

pub mod limits;
pub mod stdx;
pub mod types;

pub mod api;
pub mod config;
pub mod record;

pub mod lease;
pub mod mvcc;
pub mod txn;
pub mod watch;

pub mod checkpoint;
pub mod log;
pub mod raft;
pub mod sequencer;

pub mod control;
pub mod peer;
pub mod router;
pub mod shard;
pub mod takeover;

pub mod front;
pub mod http2;
pub mod io;
pub mod wire;

pub mod reactor;
pub mod recover;

pub mod shell;
pub mod sim;
