use super::flags::{FLAGS, FlagKind, GATES, Status, lookup};
use super::value::FlagValue;
use super::*;
use crate::limits;
use crate::types::{ClusterId, MemberId};

fn parse_with(args: &[&str], env: &[(&str, &str)]) -> Result<Parsed, ConfigError> {
    let args: Vec<String> = args.iter().map(|arg| arg.to_string()).collect();
    let env: Vec<(String, String)> = env.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    parse(&args, &env, 6)
}

fn run_with(args: &[&str], env: &[(&str, &str)]) -> (Config, Vec<String>) {
    match parse_with(args, env) {
        Ok(Parsed::Run(config, warnings)) => {
            (*config, warnings.into_iter().map(|warning| warning.0).collect())
        }
        other => panic!("{args:?} {env:?}: {other:?}"),
    }
}

fn run(args: &[&str]) -> Config {
    run_with(args, &[]).0
}

fn refused(args: &[&str]) -> ConfigError {
    parse_with(args, &[]).expect_err("a refusal")
}

fn ms(ms: u64) -> Duration {
    Duration::from_ms(ms)
}

fn texts(urls: &[Url]) -> Vec<&str> {
    urls.iter().map(Url::as_str).collect()
}

#[test]
fn the_table_is_sound() {
    for (at, flag) in FLAGS.iter().enumerate() {
        assert!(FLAGS[..at].iter().all(|earlier| earlier.name != flag.name), "{} twice", flag.name);
        match flag.status {
            Status::Became(newer) => assert_eq!(lookup(newer).unwrap().kind, flag.kind, "{}", flag.name),
            Status::BecameGate(gate) => assert!(GATES.iter().any(|g| g.0 == gate), "{}", flag.name),
            _ => {
                let read = FlagValue::read(flag.kind, flag.default);
                assert!(read.is_ok(), "{}: {read:?}", flag.name);
                assert!(!flag.help.is_empty(), "{} has no help", flag.name);
            }
        }
    }
}

#[test]
fn without_flags_everything_has_etcds_default() {
    let (config, warnings) = run_with(&[], &[]);
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!((config.name.as_str(), config.data_dir.to_str()), ("default", Some("default.etcd")));
    assert_eq!(texts(&config.listen_client_urls), ["http://localhost:2379"]);
    assert_eq!(texts(&config.advertise_client_urls), ["http://localhost:2379"]);
    assert_eq!(texts(&config.listen_peer_urls), ["http://localhost:2380"]);
    assert!(config.listen_metrics_urls.is_empty());
    assert_eq!((config.heartbeat_interval, config.election_timeout), (ms(100), ms(1000)));
    assert_eq!(config.quota_bytes, Some(2 << 30));
    assert_eq!(config.request_bytes_max, limits::REQUEST_BYTES_DEFAULT);
    assert_eq!(config.txn_ops_max, limits::TXN_OPS_DEFAULT);
    assert_eq!(config.streams_max, limits::HTTP2_STREAMS_DEFAULT);
    assert_eq!(config.auto_compaction, AutoCompaction::Off);
    assert_eq!(config.keepalive_min_time, ms(5_000));
    assert_eq!(config.keepalive, Some(ServerKeepalive { interval: ms(7_200_000), timeout: ms(20_000) }));
    assert_eq!(config.watch_progress_interval, ms(600_000));
    assert_eq!((config.log_level, config.log_format), (LogLevel::Info, LogFormat::Json));
    assert_eq!(config.log_outputs, [LogOutput::Stderr]);
    assert_eq!((config.reactors, config.shards, config.shard_map), (6, 6, ShardMap::Default));
    assert!(config.given.is_empty());
}

#[test]
fn every_form_of_go_flags_is_read() {
    for args in [
        &["--name=a"][..],
        &["-name=a"],
        &["--name", "a"],
        &["-name", "a"],
        &["--name=b", "--name=a"],
        &["--name=a", "--"],
    ] {
        assert_eq!(run(args).name, "a", "{args:?}");
    }
    assert_eq!(run(&["--name=a=b"]).name, "a=b");
    assert_eq!(run(&["--name", "--x"]).name, "--x");
    for args in [&["--pre-vote"][..], &["--pre-vote=true"], &["--pre-vote=T"], &["-pre-vote=1"]] {
        run(args);
    }
}

#[test]
fn what_go_flags_refuse_is_refused_in_their_words() {
    for (args, code, words) in [
        (&["--name"][..], 2, "flag needs an argument: -name"),
        (&["---name=a"], 2, "bad flag syntax: ---name=a"),
        (&["--=a"], 2, "bad flag syntax: --=a"),
        (&["--pre-vote=maybe"], 2, "invalid boolean value \"maybe\" for -pre-vote: parse error"),
        (&["--pre-vote", "false"], 1, "\"false\" is not a valid flag"),
        (&["--election-timeout=1s"], 2, "invalid value \"1s\" for flag -election-timeout: parse error"),
        (
            &["--initial-cluster-state=old"],
            2,
            "invalid value \"old\" for flag -initial-cluster-state: invalid value: it is one of new, existing",
        ),
        (&["word"], 1, "\"word\" is not a valid flag"),
        (&["-"], 1, "\"-\" is not a valid flag"),
        (&["--", "--name=a"], 1, "\"--name=a\" is not a valid flag"),
        (&["gateway", "start"], 1, "the sub-command gateway is not built yet"),
    ] {
        let refusal = refused(args);
        assert!(refusal.exit_code == code && refusal.message.contains(words), "{args:?}: {refusal:?}");
    }
}

#[test]
fn all_that_is_refused_is_said_at_once() {
    let args = [
        "--nmae",
        "a",
        "--heartbeat-interval=x",
        "--election-timeout=50001",
        "--listen-client-urls=http://127.0.0.1:1",
        "--advertise-client-urls=127.0.0.1:1",
        "--max-txn-ops=1048577",
        "--discovery-token=x",
        "--log-outputs=",
        "--reactors=257",
    ];
    let refusal = parse_with(&args, &[("ETCD_MAX_REQUEST_BYTES", "many")]).unwrap_err();
    let expected = [
        "flag provided but not defined: -nmae (the nearest is --name)",
        "invalid value \"x\" for flag -heartbeat-interval",
        "for flag -advertise-client-urls: URL scheme must be",
        "invalid value \"many\" for ETCD_MAX_REQUEST_BYTES",
        "--discovery-token is not built yet",
        "--election-timeout[50001ms] is too long",
        "--reactors is at most",
        "--max-txn-ops is at most",
        "--log-outputs names an empty output",
    ];
    let lines: Vec<&str> = refusal.message.lines().collect();
    assert_eq!((refusal.exit_code, lines.len()), (2, expected.len()), "{refusal}");
    for (line, words) in lines.iter().zip(expected) {
        assert!(line.contains(words), "{line}\n{words}");
    }
}

#[test]
fn one_mistake_is_not_said_twice() {
    for args in [
        &["--listen-client-urls=http://127.0.0.1:1", "--advertise-client-urls=x"][..],
        &["--election-timeout=x", "--heartbeat-interval=300"],
        &["--nmae", "a"],
        &["gateway", "start", "--x"],
    ] {
        assert_eq!(refused(args).message.lines().count(), 1, "{args:?}: {}", refused(args));
    }
}

#[test]
fn an_unknown_flag_names_the_nearest() {
    for (wrong, nearest) in
        [("data_dir", "data-dir"), ("listen-client-url", "listen-client-urls"), ("shard", "shards")]
    {
        let refusal = refused(&[&format!("--{wrong}=x")]);
        let words = format!("flag provided but not defined: -{wrong} (the nearest is --{nearest})");
        assert_eq!((refusal.exit_code, refusal.message), (2, words));
    }
    assert_eq!(refused(&["--bogus=x"]).message, "flag provided but not defined: -bogus", "none is near");
}

#[test]
fn the_environment_speaks_where_the_arguments_are_silent() {
    let env = [("ETCD_NAME", "env"), ("ETCD_HEARTBEAT_INTERVAL", "50"), ("ETCD_DATA_DIR", ""), ("PATH", "x")];
    let (config, warnings) = run_with(&["--name=arg"], &env);
    assert_eq!((config.name.as_str(), config.heartbeat_interval), ("arg", ms(50)));
    assert_eq!(config.data_dir.to_str(), Some("arg.etcd"), "an empty variable is no value");
    assert_eq!(warnings, ["environment variable ETCD_NAME gives way to --name"]);
    assert!(config.given.contains("name") && config.given.contains("heartbeat-interval"));
}

#[test]
fn a_strange_variable_only_warns_and_a_wrong_value_is_an_error() {
    let (_, warnings) =
        run_with(&[], &[("ETCD_VERIFY", "all"), ("ETCD_VERSION", "v3"), ("ETCD_PORT", "tcp:x")]);
    assert_eq!(
        warnings,
        [
            "unrecognized environment variable ETCD_VERIFY",
            "cannot set special environment variable ETCD_VERSION",
            "unrecognized environment variable ETCD_PORT",
        ]
    );
    let refusal = parse_with(&[], &[("ETCD_MAX_TXN_OPS", "many")]).unwrap_err();
    assert_eq!(refusal.exit_code, 1);
    assert_eq!(refusal.message, "invalid value \"many\" for ETCD_MAX_TXN_OPS: parse error");
}

#[test]
fn version_has_etcds_lines_first() {
    let Ok(Parsed::PrintAndExit(text)) = parse_with(&["--name=x", "--version"], &[]) else {
        panic!("the version is printed")
    };
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "etcd Version: 3.7.1");
    for (line, start) in
        lines[1..].iter().zip(["Git SHA: ", "Go Version: ", "Go OS/Arch: ", "Braid Version: "])
    {
        assert!(line.starts_with(start) && line.len() > start.len(), "{line}");
    }
    assert!(matches!(parse_with(&["--version=false"], &[]), Ok(Parsed::Run(..))));
}

#[test]
fn help_tells_every_flag() {
    for args in [&["--help"][..], &["-h"], &["-help"], &["--name=a", "--help", "--nonsense"]] {
        let Ok(Parsed::PrintAndExit(text)) = parse_with(args, &[]) else { panic!("help is printed") };
        for flag in FLAGS {
            assert!(text.contains(&format!("--{}", flag.name)), "{}", flag.name);
        }
        assert!(text.contains("braid dump-log DIR") && text.contains("--json"));
        assert!(GATES.iter().all(|(gate, ..)| text.contains(gate)));
        assert!(text.lines().all(|line| line.chars().count() <= 120), "it fits a terminal");
    }
}

#[test]
fn completion_and_manual_are_printed() {
    for shell in ["bash", "zsh", "fish"] {
        let Ok(Parsed::PrintAndExit(script)) = parse_with(&["completion", shell], &[]) else {
            panic!("{shell}")
        };
        assert!(script.contains(&format!("braid completion {shell}")), "it says where to put it");
    }
    let Ok(Parsed::PrintAndExit(page)) = parse_with(&["man"], &[]) else { panic!("a page") };
    for flag in FLAGS {
        assert!(page.contains(&flag.name.replace('-', "\\-")), "{}", flag.name);
    }
    for args in [&["completion", "--help"][..], &["man", "-h"]] {
        assert!(matches!(parse_with(args, &[]), Ok(Parsed::PrintAndExit(_))), "{args:?}");
    }
    for (args, words) in [
        (&["completion"][..], "needs one shell of bash, zsh, fish: braid completion bash"),
        (&["completion", "csh"], "needs one shell of"),
        (&["completion", "bash", "zsh"], "needs one shell of"),
        (&["man", "x"], "takes nothing: leave \"x\" out"),
    ] {
        let refusal = refused(args);
        assert!(refusal.exit_code == 2 && refusal.message.contains(words), "{args:?}: {refusal:?}");
    }
}

#[test]
fn dump_log_takes_one_directory_and_its_own_flags() {
    for (args, json) in [
        (&["dump-log", "d"][..], false),
        (&["dump-log", "d", "--json"], true),
        (&["dump-log", "-json", "d"], true),
        (&["dump-log", "--json=false", "d"], false),
    ] {
        let wish = DumpLog { data_dir: "d".into(), json };
        assert_eq!(parse_with(args, &[("ETCD_NAME", "x")]), Ok(Parsed::DumpLog(wish)), "{args:?}");
    }
    let Ok(Parsed::PrintAndExit(_)) = parse_with(&["dump-log", "--help"], &[]) else { panic!("help") };
    for (args, code, words) in [
        (&["dump-log"][..], 2, "dump-log needs a DIR"),
        (&["dump-log", "--json"], 2, "dump-log needs a DIR"),
        (&["dump-log", ""], 2, "dump-log needs a DIR"),
        (&["dump-log", "d", "e"], 2, "takes one DIR, and \"e\" is a second"),
        (&["dump-log", "d", "--jsno"], 2, "not defined: -jsno (the nearest is --json)"),
        (&["dump-log", "d", "--name=x"], 2, "not defined: -name"),
        (&["dump-log", "d", "--json=maybe"], 2, "invalid boolean value \"maybe\" for -json"),
        (&["--name=a", "dump-log", "d"], 1, "\"dump-log\" is not a valid flag"),
    ] {
        let refusal = refused(args);
        assert!(refusal.exit_code == code && refusal.message.contains(words), "{args:?}: {refusal:?}");
    }
}

#[test]
fn every_default_of_etcd_may_be_written_out() {
    for flag in FLAGS.iter().filter(|flag| !matches!(flag.status, Status::Became(_) | Status::BecameGate(_)))
    {
        let arg = format!("--{}={}", flag.name, flag.default);
        let args = [arg.as_str(), "--advertise-client-urls=http://localhost:2379"];
        let parsed = parse_with(&args[..if flag.name == "advertise-client-urls" { 1 } else { 2 }], &[]);
        let Ok(Parsed::Run(_, warnings)) = parsed else { panic!("{arg}: {parsed:?}") };
        assert_eq!(warnings, [], "{arg}");
    }
    assert_eq!(run_with(&["--max-concurrent-streams=4294967295"], &[]).0.streams_max, limits::STREAMS_MAX);
    assert_eq!(run_with(&["--compact-hash-check-time=60s"], &[]).1, [""; 0], "equal in meaning, not in text");
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    for flag in FLAGS.iter().filter(|flag| flag.status == Status::NotBuilt) {
        let other = match flag.kind {
            FlagKind::Bool if flag.default == "true" => "false",
            FlagKind::Bool => "true",
            FlagKind::Gates => "LeaseCheckpointPersist=true",
            _ => "x",
        };
        let refusal = refused(&[&format!("--{}={other}", flag.name)]);
        let named = refusal.message.contains(flag.name) || flag.kind == FlagKind::Gates;
        assert!(refusal.exit_code == 1 && named && refusal.message.contains("not built yet"), "{refusal}");
    }
    for args in [
        &["--listen-client-urls=https://localhost:1", "--advertise-client-urls=https://localhost:1"][..],
        &["--listen-peer-urls=unix://localhost:1"],
    ] {
        assert!(refused(args).message.contains("built yet"), "{args:?}");
    }
}

#[test]
fn what_has_no_effect_is_named_once() {
    let args = ["--snapshot-count=5", "--snapshot-count=7", "--unsafe-no-fsync", "--v", "--force=3"];
    let (_, warnings) = run_with(&args, &[]);
    assert_eq!(warnings.len(), 4, "{warnings:?}");
    assert!(
        warnings.iter().any(|n| n == "--unsafe-no-fsync has no effect: Braid always makes writes durable")
    );
    let gates = "--feature-gates=InitialCorruptCheck=true,LeaseCheckpoint=false,CompactHashCheck=false";
    let (_, warnings) = run_with(&[gates], &[]);
    assert!(
        warnings.len() == 1 && warnings[0].contains("InitialCorruptCheck=true has no effect"),
        "{warnings:?}"
    );
}

/// What charts, operators and installers pass, each with another value than etcd's default.
#[test]
fn what_has_no_effect_here_is_taken_and_named() {
    for arg in [
        "--pre-vote=false",
        "--initial-election-tick-advance=false",
        "--socket-reuse-address",
        "--bcrypt-cost=4",
        "--auth-token-ttl=60",
        "--peer-skip-client-san-verification",
        "--corrupt-check-time=4h",
        "--compact-hash-check-time=5m",
        "--downgrade-check-time=1s",
        "--raft-read-timeout=9s",
        "--enable-pprof",
        "--tls-min-version=TLS1.3",
        "--cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        "--feature-gates=LeaseCheckpoint=true",
        "--feature-gates=PriorityRequest=true",
        "--feature-gates=SetMemberLocalAddr=true",
        "--feature-gates=AllBeta=true",
    ] {
        let (_, warnings) = run_with(&[arg], &[]);
        let name = arg.split('=').next().unwrap();
        let told = |warning: &String| warning.starts_with(name) && warning.contains(" has no effect: ");
        assert!(warnings.len() == 1 && told(&warnings[0]), "{arg}: {warnings:?}");
    }
    assert!(refused(&["--feature-gates=AllAlpha=true"]).message.contains("AllAlpha"));
    assert_eq!(refused(&["--tls-min-version=TLS1.1"]).exit_code, 2);
}

#[test]
fn what_is_measured_and_logged_is_as_asked() {
    let config = run(&[]);
    assert!(!config.metrics_extensive && !config.socket_reuse_port);
    assert_eq!((config.warning_apply, config.warning_unary), (ms(100), ms(300)));
    let config = run(&[
        "--metrics=extensive",
        "--warning-apply-duration=1s",
        "--warning-unary-request-duration=2s",
        "--socket-reuse-port",
    ]);
    assert!(config.metrics_extensive && config.socket_reuse_port);
    assert_eq!((config.warning_apply, config.warning_unary), (ms(1_000), ms(2_000)));
    assert_eq!(refused(&["--metrics=all"]).exit_code, 2);
}

#[test]
fn older_names_reach_the_newer_flags() {
    let (config, warnings) = run_with(&["--experimental-watch-progress-notify-interval=5s"], &[]);
    assert_eq!(config.watch_progress_interval, ms(5_000));
    assert!(warnings[0].contains("use --watch-progress-notify-interval"), "{warnings:?}");
    let (_, warnings) = run_with(&["--experimental-initial-corrupt-check=true"], &[]);
    assert!(warnings[1].contains("InitialCorruptCheck=true has no effect"), "{warnings:?}");
    let persist = refused(&["--experimental-enable-lease-checkpoint-persist"]);
    assert!(persist.message.contains("LeaseCheckpointPersist"), "{persist}");
    let both = ["--experimental-initial-corrupt-check", "--feature-gates=InitialCorruptCheck=true"];
    assert!(refused(&both).message.contains("cannot specify both"));
    let (config, warnings) = run_with(&["--experimental-max-learners=2"], &[]);
    assert!(config.max_learners == 2 && warnings[0].contains("use --max-learners"), "{warnings:?}");
    assert_eq!((run(&[]).max_learners, run(&["--max-learners=0"]).max_learners), (1, 0));
    let (config, _) = run_with(&["--experimental-warning-apply-duration=1s"], &[]);
    assert_eq!(config.warning_apply, ms(1_000));
}

#[test]
fn timers_hold_etcds_bounds_in_etcds_words() {
    for (args, words) in [
        (&["--heartbeat-interval=0"][..], "--heartbeat-interval must be >0 (set to 0ms)"),
        (&["--election-timeout=0"], "--election-timeout must be >0 (set to 0ms)"),
        (
            &["--heartbeat-interval=201"],
            "--election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[201ms]",
        ),
        (
            &["--election-timeout=50001"],
            "--election-timeout[50001ms] is too long, and should be set less than 50000ms",
        ),
    ] {
        let refusal = refused(args);
        assert_eq!((refusal.exit_code, refusal.message.as_str()), (1, words));
    }
    let config = run(&["--heartbeat-interval=200", "--election-timeout=50000"]);
    assert_eq!((config.heartbeat_interval, config.election_timeout), (ms(200), ms(50_000)));
    assert_eq!(run(&["--heartbeat-interval=200"]).election_timeout, ms(1000));
}

#[test]
fn retention_reads_as_etcds() {
    let hour = 3_600_000;
    for (mode, text, kept) in [
        ("periodic", "0", AutoCompaction::Off),
        ("periodic", "", AutoCompaction::Off),
        ("periodic", "5", AutoCompaction::Periodic(ms(5 * hour))),
        ("periodic", "5m", AutoCompaction::Periodic(ms(300_000))),
        ("periodic", "1h30m", AutoCompaction::Periodic(ms(hour + hour / 2))),
        ("revision", "1000", AutoCompaction::Revisions(1000)),
        ("revision", "5000000000", AutoCompaction::Revisions(5_000_000_000)),
        ("revision", "0", AutoCompaction::Off),
        ("revision", "1us", AutoCompaction::Revisions(1000)),
    ] {
        let args = [format!("--auto-compaction-mode={mode}"), format!("--auto-compaction-retention={text}")];
        assert_eq!(run(&[&args[0], &args[1]]).auto_compaction, kept, "{mode} {text}");
    }
    for text in ["-1", "-5m", "soon", "99999999999999999999"] {
        let refusal = refused(&[&format!("--auto-compaction-retention={text}")]);
        assert!(refusal.message.starts_with("error parsing CompactionRetention: "), "{refusal}");
    }
    assert_eq!(refused(&["--auto-compaction-mode=x"]).message, "unknown auto-compaction-mode \"x\"");
}

#[test]
fn urls_hold_etcds_rules() {
    let listen = "--listen-client-urls=http://0.0.0.0:1,http://127.0.0.1:2";
    let config = run(&[listen, "--advertise-client-urls=http://a.example:1"]);
    assert_eq!(texts(&config.listen_client_urls), ["http://0.0.0.0:1", "http://127.0.0.1:2"]);
    assert_eq!(texts(&config.advertise_client_urls), ["http://a.example:1"]);
    for (args, code, words) in [
        (&[listen][..], 1, "--advertise-client-urls is required when --listen-client-urls is set explicitly"),
        (
            &["--listen-peer-urls=http://a.example:1"],
            1,
            "expected IP in URL for binding (http://a.example:1)",
        ),
        (&["--listen-peer-urls="], 1, "--listen-peer-urls needs at least one URL"),
        (&["--advertise-client-urls=http://:1"], 1, "(unexpected empty host (http://:1))"),
        (
            &["--listen-metrics-urls=http://a"],
            2,
            "for flag -listen-metrics-urls: URL address does not have the form",
        ),
    ] {
        let refusal = refused(args);
        assert!(refusal.exit_code == code && refusal.message.contains(words), "{args:?}: {refusal:?}");
    }
    let env = [("ETCD_LISTEN_CLIENT_URLS", "http://127.0.0.1:1")];
    assert!(parse_with(&[], &env).unwrap_err().message.contains("is required when"));
}

#[test]
fn numbers_are_bounded_and_zero_has_etcds_meaning() {
    assert_eq!(run(&["--quota-backend-bytes=-1"]).quota_bytes, None);
    assert_eq!(run(&["--quota-backend-bytes=8589934592"]).quota_bytes, Some(8 << 30));
    assert_eq!(run(&["--grpc-keepalive-interval=0"]).keepalive, None);
    assert_eq!(run(&["--grpc-keepalive-timeout=0s"]).keepalive, None);
    assert_eq!(run(&["--watch-progress-notify-interval=1ms"]).watch_progress_interval, ms(100));
    assert_eq!(run(&["--max-concurrent-streams=7"]).streams_max, 7);
    assert_eq!(run(&["--max-concurrent-streams=0"]).streams_max, limits::STREAMS_MAX);
    for arg in ["--max-request-bytes=33554433", "--max-txn-ops=1048577"] {
        assert!(refused(&[arg]).message.contains("is at most"), "{arg}");
    }
    assert_eq!(run(&["--max-request-bytes=33554432"]).request_bytes_max, limits::REQUEST_BYTES_MAX);
}

#[test]
fn the_log_goes_where_it_is_told() {
    let config = run(&["--log-outputs=stdout,/a/b.log", "--log-level=debug", "--log-format=console"]);
    assert_eq!(config.log_outputs, [LogOutput::File("/a/b.log".into()), LogOutput::Stdout]);
    assert_eq!((config.log_level, config.log_format), (LogLevel::Debug, LogFormat::Console));
    assert!(refused(&["--log-outputs=default,stdout"]).message.contains("multi logoutput"));
    assert!(refused(&["--log-outputs=systemd/journal"]).message.contains("not built yet"));
    assert!(refused(&["--log-outputs="]).message.contains("empty output"));
}

#[test]
fn reactors_and_shards_are_set_together() {
    let config = run(&["--reactors=1"]);
    assert_eq!((config.reactors, config.shards), (1, 1));
    let config = run(&["--reactors=2", r"--shard-map=/registry/\x70ods,/registry/q"]);
    let cuts = vec![b"/registry/pods".to_vec(), b"/registry/q".to_vec()];
    assert_eq!((config.reactors, config.shards, config.shard_map), (2, 3, ShardMap::Cuts(cuts)));
    assert_eq!(run(&["--shards=9"]).shards, 9);
    assert_eq!(refused(&["--shards=3", "--shard-map=a"]).exit_code, 1);
    assert_eq!(refused(&["--shard-map=b,a"]).exit_code, 2);
    assert_eq!(refused(&["--reactors=257"]).exit_code, 1);
}

#[test]
fn a_default_member_bootstraps_as_every_default_etcd() {
    let bootstrap = run(&[]).bootstrap().unwrap();
    assert_eq!(bootstrap.member, MemberId(0x8e9e_05c5_2164_694d));
    assert_eq!(bootstrap.cluster, ClusterId(0xcdf8_1819_4e3a_8c32));
    assert_eq!(bootstrap.members.len(), 1);
}

#[test]
fn a_named_member_without_a_cluster_is_its_own() {
    let config = run(&["--name=m1", "--initial-advertise-peer-urls=http://10.0.0.1:2380"]);
    let members = config.bootstrap().unwrap().members;
    assert_eq!(
        (members[0].name.as_str(), texts(&members[0].peer_urls)),
        ("m1", vec!["http://10.0.0.1:2380"])
    );
}

/// As a real etcd 3.7.1 with these flags shows them.
#[test]
fn founders_know_each_other_by_the_same_ids() {
    let cluster = "--initial-cluster=a=http://127.0.0.1:12380,b=http://127.0.0.1:22380,c=http://127.0.0.1:32380,\
                   c=http://127.0.0.1:32381";
    let begun = |name: &str, urls: &str| {
        let (name, urls) = (format!("--name={name}"), format!("--initial-advertise-peer-urls={urls}"));
        run(&[cluster, &name, &urls, "--initial-cluster-token=t"]).bootstrap().unwrap()
    };
    let first = begun("a", "http://127.0.0.1:12380");
    let others =
        [begun("b", "http://127.0.0.1:22380"), begun("c", "http://127.0.0.1:32380,http://127.0.0.1:32381")];
    assert_eq!(first.cluster, ClusterId(0xda94_da6a_8a3a_6e47));
    let ids: Vec<(u64, &str)> =
        first.members.iter().map(|member| (member.id.0, member.name.as_str())).collect();
    let seen = [
        (8_028_269_193_448_852_703, "c"),
        (9_337_176_598_445_387_855, "b"),
        (15_384_607_655_018_781_953, "a"),
    ];
    assert_eq!(ids, seen);
    for (other, name) in others.iter().zip(["b", "c"]) {
        assert_eq!((other.cluster, &other.members), (first.cluster, &first.members));
        assert!(first.members.iter().any(|member| member.id == other.member && member.name == name));
    }
}

#[test]
fn a_cluster_has_not_more_members_than_can_be_kept_together() {
    let named = |count: usize| {
        let members = (1..count).map(|at| format!(",m{at}=http://10.0.0.1:{at}")).collect::<String>();
        run(&[&format!("--initial-cluster=default=http://localhost:2380{members}")]).bootstrap()
    };
    assert_eq!(named(limits::MEMBERS_MAX).unwrap().members.len(), limits::MEMBERS_MAX);
    assert!(named(limits::MEMBERS_MAX + 1).unwrap_err().message.contains("has at most 32"));
}

#[test]
fn a_bootstrap_that_contradicts_itself_is_refused_and_only_then() {
    for (args, words) in [
        (
            &["--initial-cluster=m2=http://localhost:2380"][..],
            "couldn't find local name \"default\" in the initial cluster configuration: start with --name=m2, or",
        ),
        (
            &["--initial-cluster="],
            "couldn't find local name \"default\" in the initial cluster configuration, which is",
        ),
        (
            &["--initial-advertise-peer-urls=http://a:1"],
            "--initial-cluster has default=http://localhost:2380 but missing from --initial-advertise-peer-urls=http://a:1 \
             (resolved urls: \"http://a:1\" != \"http://localhost:2380\")",
        ),
        (
            &["--initial-advertise-peer-urls=http://a:1,http://localhost:2380"],
            "--initial-advertise-peer-urls has http://a:1 but missing from \
             --initial-cluster=default=http://a:1,default=http://localhost:2380",
        ),
        (
            &["--initial-cluster=default=http://localhost:2380,default=http://b:1"],
            "--initial-cluster has default=http://b:1 but missing from \
             --initial-advertise-peer-urls=http://localhost:2380 (len([\"http://localhost:2380\"]) != \
             len([\"http://b:1\" \"http://localhost:2380\"]))",
        ),
        (
            &["--initial-cluster=default=http://localhost:2380,b=http://localhost:2380"],
            "initial cluster b=http://localhost:2380,default=http://localhost:2380 has duplicate url",
        ),
        (&["--initial-cluster=default"], "error setting up initial cluster"),
        (&["--initial-cluster=default=https://localhost:2380"], "built yet"),
    ] {
        let refusal = run(args).bootstrap().unwrap_err();
        assert!(refusal.exit_code == 1 && refusal.message.contains(words), "{args:?}: {refusal}");
    }
}

#[test]
fn what_the_harness_of_etcd_passes_is_accepted() {
    let (config, warnings) = run_with(
        &[
            "--name=TestX-test-0",
            "--listen-client-urls=http://localhost:20000",
            "--advertise-client-urls=http://localhost:20000",
            "--listen-peer-urls=http://localhost:20001",
            "--initial-advertise-peer-urls=http://localhost:20001",
            "--initial-cluster-token=new",
            "--data-dir",
            "/tmp/x",
            "--snapshot-count=10000",
            "--initial-cluster=TestX-test-0=http://localhost:20001",
            "--initial-cluster-state=new",
        ],
        &[("ETCD_VERIFY", "all")],
    );
    assert_eq!(warnings, ["unrecognized environment variable ETCD_VERIFY"]);
    assert_eq!(config.bootstrap().unwrap().members.len(), 1);
}
