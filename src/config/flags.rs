//! The one table of flags, with the subcommand beside it. Parser, environment and `--help` read it and
//! nothing else.
//!
//! Names, forms and defaults are etcd's. A status says how far Braid has come with each:
//!
//! * `Built`: has its effect.
//! * `Ignored`: tunes a part of etcd that Braid does not have, or asks for less than Braid gives anyway;
//!   any value of the right kind is taken and the log names the flag once, with the reason.
//! * `NotBuilt`: would change behaviour, but Braid can't yet. Only etcd's own default is taken: harnesses
//!   and installers write defaults out, and whoever does asks for nothing that is missing. Any other value
//!   is refused by name, because starting without what was asked for would be a lie.
//! * `Became`, `BecameGate`: a name of etcd 3.6 and older; the value goes to the newer flag or gate.

/// What values a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlagKind {
    Text,
    /// A boolean, which may stand without a value and takes it only behind `=`, as Go's booleans do.
    Bool,
    /// Any value, in the form of a `Bool`: for flags that etcd itself ignores.
    Anything,
    Uint,
    Uint32,
    Int,
    /// A Go duration such as `1h30m`.
    Span,
    /// A comma-separated list of `http://host:port`.
    Urls,
    Choice(&'static [&'static str]),
    /// `A=true,B=false` over [`GATES`].
    Gates,
    /// The keys at which shards are cut, see `shards`.
    Cuts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Built,
    Ignored(&'static str),
    NotBuilt,
    Became(&'static str),
    BecameGate(&'static str),
}

#[derive(Debug)]
pub(super) struct Flag {
    pub name: &'static str,
    pub kind: FlagKind,
    pub default: &'static str,
    pub help: &'static str,
    pub status: Status,
}

/// etcd's feature gates, each with its default and, where another setting may be taken, why it has no effect.
pub(super) const GATES: &[(&str, bool, Option<&str>)] = &[
    ("AllAlpha", false, None),
    ("AllBeta", false, Some("every beta feature is on")),
    ("TxnModeWriteWithSharedBuffer", true, Some("Braid has no such buffer")),
    ("FastLeaseKeepAlive", true, Some("Braid has one way to keep leases alive")),
    ("InitialCorruptCheck", false, Some(NOT_COMPARED)),
    ("CompactHashCheck", false, Some(NOT_COMPARED)),
    (
        "LeaseCheckpoint",
        false,
        Some("a new leader gives every lease its full time again, as etcd's does without it"),
    ),
    ("LeaseCheckpointPersist", false, None),
    ("StopGRPCServiceOnDefrag", false, Some("defragmentation does not stop the server")),
    ("SetMemberLocalAddr", false, Some("the kernel chooses the address that members are dialed from")),
    ("PriorityRequest", false, Some("the ends of leases never wait behind clients' requests")),
];

/// What the program does instead of serving where its name is the first argument.
#[derive(Debug)]
pub(super) struct Subcommand {
    pub name: &'static str,
    /// What it needs beside flags: one word.
    pub operand: &'static str,
    pub help: &'static str,
    pub flags: &'static [Flag],
}

pub(super) fn lookup(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}

use FlagKind::{Anything, Bool, Choice, Cuts, Gates, Int, Span, Text, Uint, Uint32, Urls};

const fn built(name: &'static str, kind: FlagKind, default: &'static str, help: &'static str) -> Flag {
    Flag { name, kind, default, help, status: Status::Built }
}
const fn unbuilt(name: &'static str, kind: FlagKind, default: &'static str, help: &'static str) -> Flag {
    Flag { name, kind, default, help, status: Status::NotBuilt }
}
const fn ignored(name: &'static str, kind: FlagKind, default: &'static str, why: &'static str) -> Flag {
    Flag { name, kind, default, help: why, status: Status::Ignored(why) }
}
const fn removed(name: &'static str) -> Flag {
    ignored(name, Anything, "", "etcd ignores it too")
}
const fn became(name: &'static str, kind: FlagKind, newer: &'static str) -> Flag {
    Flag { name, kind, default: "", help: "", status: Status::Became(newer) }
}
const fn became_gate(name: &'static str, gate: &'static str) -> Flag {
    Flag { name, kind: Bool, default: "", help: "", status: Status::BecameGate(gate) }
}

/// The log levels that etcd's logger knows.
pub(super) const LOG_LEVELS: &[&str] = &["debug", "info", "warn", "error", "panic", "fatal"];

const TLS_VERSIONS: &[&str] = &["", "TLS1.2", "TLS1.3"];

const NO_BBOLT: &str = "Braid does not store its data in bbolt";
const OWN_PACE: &str = "Braid compacts in slices at a pace of its own";
const NOT_COMPARED: &str = "members do not compare their data with each other yet";
const SILENCE: &str = "a connection to a member that is silent for an election timeout is given up";
const NO_TLS: &str = "there is no TLS yet";
const NO_PASSWORDS: &str = "users and roles are not built yet";
const NO_DISCOVERY: &str = "discovery is not built yet, and without it this says nothing";
const NO_TRACING: &str = "tracing is not built yet, and without it this says nothing";
const OWN_LOG: &str = "Braid's log and checkpoints follow the change of the data, not a count of entries";

/// The shells that `completion` knows.
pub(super) const SHELLS: &[&str] = &["bash", "zsh", "fish"];

pub(super) const COMPLETION: Subcommand = Subcommand {
    name: "completion",
    operand: "SHELL",
    help: "Print what lets SHELL (bash, zsh or fish) complete braid's command line; its first lines say where to \
           put it.",
    flags: &[],
};

pub(super) const MAN: Subcommand =
    Subcommand { name: "man", operand: "", help: "Print the manual page: braid man | man -l -", flags: &[] };

pub(super) const SUBCOMMANDS: &[&Subcommand] = &[&DUMP_LOG, &COMPLETION, &MAN];

pub(super) const DUMP_LOG: Subcommand = Subcommand {
    name: "dump-log",
    operand: "DIR",
    help: "Print what the data directory DIR holds: control entries in their order, then the settled writes by \
           revision. No server may run on it, and nothing in it is changed.",
    flags: &[built("json", Bool, "false", "One JSON object a line; keys and values are in base64.")],
};

#[rustfmt::skip] // a table reads best as rows
pub(super) const FLAGS: &[Flag] = &[
    built("name", Text, "default", "Name of this member, for people."),
    built("data-dir", Text, "", "Directory of the data; empty means <name>.etcd."),
    built("listen-client-urls", Urls, "http://localhost:2379", "Where to listen for clients."),
    built("advertise-client-urls", Urls, "http://localhost:2379",
        "The client URLs other members and clients are told. Required when listen-client-urls is set."),
    built("listen-metrics-urls", Urls, "", "Where else to answer /metrics, /health, /livez and /readyz."),
    built("listen-peer-urls", Urls, "http://localhost:2380", "Where to listen for other members."),
    built("initial-advertise-peer-urls", Urls, "http://localhost:2380",
        "The peer URLs of this member that others are told. Read once, while the data directory is empty."),
    built("initial-cluster", Text, "default=http://localhost:2380",
        "The members that begin the cluster, or those of the one that is joined, as name=url,name=url, with the peer URLs of each: alike at all of them. \
         Read once, while the data directory is empty."),
    built("initial-cluster-state", Choice(&["new", "existing"]), "new",
        "Whether to begin a cluster (new), or to join one that has this member added already (existing). Read once, while the data directory is empty."),
    built("initial-cluster-token", Text, "etcd-cluster",
        "Tells clusters of equal URLs apart; alike at all members. Read once, while the data directory is empty."),
    built("heartbeat-interval", Uint, "100", "Milliseconds between a leader's heartbeats to the other members; alike at all of them."),
    built("election-timeout", Uint, "1000",
        "Milliseconds without a leader before an election, and up to twice as long: at least 5 heartbeats, at most \
         50000; alike at all members."),
    built("max-learners", Int, "1",
        "Most learners in the cluster: the member that leads refuses to add one more. Alike at all members."),
    built("quota-backend-bytes", Int, "0",
        "Bytes of data past which writes raise the NOSPACE alarm; 0 means 2 GiB, less than 0 no quota."),
    built("max-request-bytes", Uint, "1572864", "Largest request in bytes; at most 32 MiB."),
    built("max-txn-ops", Uint, "128", "Most operations in one transaction; at most 1048576."),
    built("max-concurrent-streams", Uint32, "10000",
        "Most open streams a connection. Finite, unlike etcd's: 0 and all above 1048576 mean 1048576."),
    built("auto-compaction-mode", Text, "periodic",
        "What auto-compaction-retention counts: periodic (time) or revision."),
    built("auto-compaction-retention", Text, "0",
        "What compaction keeps: a duration (a bare number is hours), or revisions; 0 turns it off."),
    built("grpc-keepalive-min-time", Span, "5s", "How often a client may ping."),
    built("grpc-keepalive-interval", Span, "2h", "Silence after which the server pings a client; 0 turns it off."),
    built("grpc-keepalive-timeout", Span, "20s",
        "How long the server waits for the answer to its ping before it closes; 0 turns pings off."),
    built("watch-progress-notify-interval", Span, "0s",
        "How often an idle watch is told the revision; 0 means 10m, and 100ms is the least."),
    built("log-level", Choice(LOG_LEVELS), "info", "Least severity that is logged."),
    built("log-format", Choice(&["json", "console"]), "json",
        "How a line of the log is written. Where only a terminal reads it, and this is not given, it is console."),
    built("log-outputs", Text, "default", "Where the log goes: default (stderr), stderr, stdout or files, with commas."),
    built("logger", Choice(&["zap"]), "zap", "The shape of the log; zap is the only one, as in etcd."),
    built("metrics", Choice(&["basic", "extensive"]), "basic",
        "How much /metrics tells; extensive adds grpc_server_handling_seconds."),
    built("warning-apply-duration", Span, "100ms", "From when on it is logged that a request took long to apply."),
    built("warning-unary-request-duration", Span, "300ms",
        "From when on a request that took so long until its answer is logged."),
    built("socket-reuse-port", Bool, "false",
        "Listen with SO_REUSEPORT: a process started with it may listen beside one that has it too."),
    built("version", Bool, "false", "Print the version and exit."),
    // Braid's own.
    built("reactors", Uint, "0",
        "Braid: threads that serve; 0 means as many as the CPUs that affinity and a cgroup's quota leave to this \
         process; at most 256."),
    built("shards", Uint, "0",
        "Braid: Raft groups that hold keys, beside the control group; 0 means one a reactor, of the member that leads \
         first where several begin, or one a range where shard-map is given. Read once, at bootstrap; at most 4095."),
    built("shard-map", Cuts, "",
        "Braid: the keys at which the key space is cut, ascending, with commas; N cuts make N+1 ranges, dealt \
         to the shards in turn. \\xNN is a byte, \\, a comma, \\\\ a backslash. Empty means cuts that suit \
         Kubernetes. Read once, at bootstrap."),

    built("strict-reconfig-check", Bool, "true",
        "Refuse changes of the members for which too few of them are started and connected."),
    built("force-new-cluster", Bool, "false",
        "Where all other members are lost for ever: remove them, and go on alone with the data of this one."),

    // etcd's switches for parts that Braid solves otherwise.
    ignored("snapshot-count", Uint, "10000", OWN_LOG),
    ignored("snapshot-catchup-entries", Uint, "5000", OWN_LOG),
    ignored("max-wals", Uint, "5", OWN_LOG),
    ignored("max-snapshots", Uint, "5", OWN_LOG),
    ignored("compaction-batch-limit", Int, "0", OWN_PACE),
    ignored("compaction-sleep-interval", Span, "0s", OWN_PACE),
    ignored("backend-bbolt-freelist-type", Text, "", NO_BBOLT),
    ignored("backend-batch-interval", Span, "0s", NO_BBOLT),
    ignored("backend-batch-limit", Int, "0", NO_BBOLT),
    ignored("bootstrap-defrag-threshold-megabytes", Uint, "0", NO_BBOLT),
    ignored("memory-mlock", Bool, "false", "Braid does not lock its memory"),
    ignored("unsafe-no-fsync", Bool, "false", "Braid always makes writes durable"),
    ignored("enable-grpc-gateway", Bool, "true", "the JSON gateway is not built yet"),
    ignored("discovery-fallback", Choice(&["exit"]), "exit", "there is no v2 proxy to fall back to"),
    ignored("v2-deprecation", Text, "write-only", "Braid has no v2 store"),
    ignored("pre-vote", Bool, "true", "a member always asks the others before it stands for election"),
    ignored("initial-election-tick-advance", Bool, "true", "a member that starts disturbs no leader, as it asks before it stands for election"),
    ignored("corrupt-check-time", Span, "0s", NOT_COMPARED),
    ignored("compact-hash-check-time", Span, "1m", NOT_COMPARED),
    ignored("downgrade-check-time", Span, "5s", "a cluster cannot be downgraded yet"),
    ignored("raft-read-timeout", Span, "5s", SILENCE),
    ignored("raft-write-timeout", Span, "5s", SILENCE),
    ignored("peer-skip-client-san-verification", Bool, "false", NO_TLS),
    ignored("self-signed-cert-validity", Uint, "1", NO_TLS),
    ignored("cipher-suites", Text, "", NO_TLS),
    ignored("tls-min-version", Choice(TLS_VERSIONS), "TLS1.2", NO_TLS),
    ignored("tls-max-version", Choice(TLS_VERSIONS), "", NO_TLS),
    ignored("auth-token-ttl", Uint, "300", NO_PASSWORDS),
    ignored("bcrypt-cost", Uint, "10", NO_PASSWORDS),
    ignored("enable-pprof", Bool, "false", "there is no Go runtime to take profiles of"),
    ignored("socket-reuse-address", Bool, "false", "Braid always listens with SO_REUSEADDR, as Go does"),
    ignored("discovery-dial-timeout", Span, "2s", NO_DISCOVERY),
    ignored("discovery-request-timeout", Span, "5s", NO_DISCOVERY),
    ignored("discovery-keepalive-time", Span, "2s", NO_DISCOVERY),
    ignored("discovery-keepalive-timeout", Span, "6s", NO_DISCOVERY),
    ignored("discovery-insecure-transport", Bool, "true", NO_DISCOVERY),
    ignored("discovery-insecure-skip-tls-verify", Bool, "false", NO_DISCOVERY),
    ignored("discovery-cert", Text, "", NO_DISCOVERY),
    ignored("discovery-key", Text, "", NO_DISCOVERY),
    ignored("discovery-cacert", Text, "", NO_DISCOVERY),
    ignored("discovery-user", Text, "", NO_DISCOVERY),
    ignored("discovery-password", Text, "", NO_DISCOVERY),
    ignored("discovery-srv-name", Text, "", NO_DISCOVERY),
    ignored("distributed-tracing-address", Text, "localhost:4317", NO_TRACING),
    ignored("distributed-tracing-service-name", Text, "etcd", NO_TRACING),
    ignored("distributed-tracing-instance-id", Text, "", NO_TRACING),
    ignored("distributed-tracing-sampling-rate", Int, "0", NO_TRACING),
    removed("cluster-active-size"), removed("cluster-remove-delay"), removed("cluster-sync-interval"),
    removed("config"), removed("force"), removed("max-result-buffer"), removed("max-retry-attempts"),
    removed("peer-heartbeat-interval"), removed("peer-election-timeout"), removed("retry-interval"),
    removed("snapshot"), removed("v"), removed("vv"), removed("test.coverprofile"), removed("test.outputdir"),

    unbuilt("config-file", Text, "", "Read the configuration from a YAML file."),
    unbuilt("wal-dir", Text, "", "A directory of its own for the log."),
    unbuilt("listen-client-http-urls", Text, "", "Serve HTTP/1 at URLs of its own."),
    unbuilt("cert-file", Text, "", "TLS certificate shown to clients."),
    unbuilt("key-file", Text, "", "Its key."),
    unbuilt("client-cert-file", Text, "", "TLS certificate shown when the server is a client of itself."),
    unbuilt("client-key-file", Text, "", "Its key."),
    unbuilt("client-cert-auth", Bool, "false", "Demand certificates of clients."),
    unbuilt("trusted-ca-file", Text, "", "Whom to trust to sign those of clients."),
    unbuilt("client-crl-file", Text, "", "Certificates of clients that were revoked."),
    unbuilt("client-cert-allowed-hostname", Text, "", "Names that certificates of clients may bear."),
    unbuilt("auto-tls", Bool, "false", "Make a certificate for clients."),
    unbuilt("peer-cert-file", Text, "", "TLS certificate shown to members."),
    unbuilt("peer-key-file", Text, "", "Its key."),
    unbuilt("peer-client-cert-file", Text, "", "TLS certificate shown to members when dialling them."),
    unbuilt("peer-client-key-file", Text, "", "Its key."),
    unbuilt("peer-client-cert-auth", Bool, "false", "Demand certificates of members."),
    unbuilt("peer-trusted-ca-file", Text, "", "Whom to trust to sign those of members."),
    unbuilt("peer-crl-file", Text, "", "Certificates of members that were revoked."),
    unbuilt("peer-cert-allowed-cn", Text, "", "Common names that certificates of members may bear."),
    unbuilt("peer-cert-allowed-hostname", Text, "", "Names that certificates of members may bear."),
    unbuilt("peer-auto-tls", Bool, "false", "Make a certificate for members."),
    unbuilt("auth-token", Text, "simple", "Kind of authentication tokens."),
    unbuilt("cors", Text, "*", "Origins that browsers may come from."),
    unbuilt("host-whitelist", Text, "*", "Host headers that are served."),
    unbuilt("enable-log-rotation", Bool, "false", "Rotate the log's file."),
    unbuilt("log-rotation-config-json", Text,
        r#"{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}"#, "How to rotate it."),
    unbuilt("feature-gates", Gates, "", "etcd's feature gates, as A=true,B=false: see below."),
    unbuilt("discovery-endpoints", Text, "", "Find the members through another etcd."),
    unbuilt("discovery-token", Text, "", "The cluster's name there."),
    unbuilt("discovery-srv", Text, "", "Find the members through DNS."),
    unbuilt("enable-distributed-tracing", Bool, "false", "Send traces to a collector."),

    became("experimental-compact-hash-check-time", Span, "compact-hash-check-time"),
    became("experimental-corrupt-check-time", Span, "corrupt-check-time"),
    became("experimental-compaction-batch-limit", Int, "compaction-batch-limit"),
    became("experimental-compaction-sleep-interval", Span, "compaction-sleep-interval"),
    became("experimental-watch-progress-notify-interval", Span, "watch-progress-notify-interval"),
    became("experimental-warning-apply-duration", Span, "warning-apply-duration"),
    became("experimental-bootstrap-defrag-threshold-megabytes", Uint, "bootstrap-defrag-threshold-megabytes"),
    became("experimental-memory-mlock", Bool, "memory-mlock"),
    became("experimental-snapshot-catchup-entries", Uint, "snapshot-catchup-entries"),
    became("experimental-downgrade-check-time", Span, "downgrade-check-time"),
    became("experimental-peer-skip-client-san-verification", Bool, "peer-skip-client-san-verification"),
    became("experimental-enable-distributed-tracing", Bool, "enable-distributed-tracing"),
    became("experimental-distributed-tracing-address", Text, "distributed-tracing-address"),
    became("experimental-distributed-tracing-service-name", Text, "distributed-tracing-service-name"),
    became("experimental-distributed-tracing-instance-id", Text, "distributed-tracing-instance-id"),
    became("experimental-distributed-tracing-sampling-rate", Int, "distributed-tracing-sampling-rate"),
    became("experimental-max-learners", Int, "max-learners"),
    became_gate("experimental-compact-hash-check-enabled", "CompactHashCheck"),
    became_gate("experimental-initial-corrupt-check", "InitialCorruptCheck"),
    became_gate("experimental-enable-lease-checkpoint", "LeaseCheckpoint"),
    became_gate("experimental-enable-lease-checkpoint-persist", "LeaseCheckpointPersist"),
    became_gate("experimental-stop-grpc-service-on-defrag", "StopGRPCServiceOnDefrag"),
    became_gate("experimental-txn-mode-write-with-shared-buffer", "TxnModeWriteWithSharedBuffer"),
    became_gate("experimental-set-member-localaddr", "SetMemberLocalAddr"),
];
