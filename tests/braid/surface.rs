//! What an operator reads: the log, the pages, the help for shells.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::unwrap_used)]

use super::client::Client;
use super::process::Server;
use braid::wire::{Method, proto};
use std::io::Write;
use std::process::{Command, Stdio};

/// The words that bash would offer behind these.
fn completed(script: &str, words: &[&str]) -> Vec<String> {
    let line = words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
    let ask = format!(
        "{script}\nCOMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _braid; \
         printf '%s\\n' \"${{COMPREPLY[@]}}\""
    );
    let mut bash = Command::new("bash");
    let mut bash = bash.arg("-s").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    bash.stdin.take().unwrap().write_all(ask.as_bytes()).unwrap();
    let output = bash.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn bash_completes_flags_values_and_subcommands() {
    let output = Command::new(env!("CARGO_BIN_EXE_braid")).args(["completion", "bash"]).output().unwrap();
    let script = String::from_utf8(output.stdout).unwrap();
    for (words, offered) in [
        (&["braid", "--data-d"][..], &["--data-dir"][..]),
        (&["braid", "--initial-cluster-state", ""], &["new", "existing"]),
        (&["braid", "--initial-cluster-state", "="], &["new", "existing"]),
        (&["braid", "--initial-cluster-state", "=", "e"], &["existing"]),
        (&["braid", "--socket-reuse-port", "=", "t"], &["true"]),
        (&["braid", "--name", "a", "--metrics", "ex"], &["extensive"]),
        (&["braid", "dump-log", "--j"], &["--json"]),
        (&["braid", "completion", "f"], &["fish"]),
        (&["braid", "comp"], &["completion"]),
        (&["braid", "--name", "x", "comp"], &[]),
        (&["braid", "--name", ""], &[]),
    ] {
        assert_eq!(completed(&script, words), offered, "{words:?}");
    }
    assert!(
        completed(&script, &["braid", "--socket-reuse-port", "--log-l"]).contains(&"--log-level".to_owned())
    );
    assert!(completed(&script, &["braid", ""]).len() > 30);
}

#[test]
fn every_line_of_the_log_is_json_with_etcds_types() {
    let directory = tempfile::tempdir().unwrap();
    let flags =
        ["--reactors=2", "--warning-unary-request-duration=1ns", "--warning-apply-duration=1ns", "--name=m1"];
    let server = Server::start(directory.path(), &flags);
    let mut client = Client::connect(server.address);
    client.call::<proto::PutResponse>(
        Method::Put,
        &proto::PutRequest { key: "a".into(), value: "secret".into(), ..Default::default() },
    );
    let local = client.local_address();
    let (before, address) = (server.before.clone(), server.address);
    server.signal("-TERM");
    let (_, after) = server.end();
    let lines: Vec<serde_json::Value> = before
        .lines()
        .chain(after.lines())
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect();
    for line in &lines {
        let ts = line["ts"].as_str().unwrap();
        let fraction = ts.split_once('.').unwrap().1.trim_end_matches('Z');
        let digits = fraction.split(['+', '-']).next().unwrap();
        assert!(digits.len() == 6 && digits.bytes().all(|byte| byte.is_ascii_digit()), "{ts}");
        assert!(line["level"].is_string() && line["caller"].is_string() && line["msg"].is_string(), "{line}");
    }
    let of = |message: &str| {
        lines.iter().find(|line| line["msg"] == message).unwrap_or_else(|| panic!("{message}: {lines:?}"))
    };
    let start = of("starting a Braid server");
    assert_eq!((start["reactors"].as_u64(), &start["name"]), (Some(2), &"m1".into()));
    assert_eq!(start["heartbeat-interval"], "100ms");
    assert_eq!(start["listen-client-urls"], serde_json::json!([format!("http://{address}")]));
    assert!(start["braid-version"].is_string() && start["flags-given"].as_array().unwrap().len() >= 5);
    let slow = of("request stats");
    assert_eq!(slow["response type"], "/etcdserverpb.KV/Put");
    assert_eq!(slow["request content"], r#"key:"a" value_size:6"#);
    assert_eq!(
        (slow["remote"].as_str(), slow["request count"].as_i64()),
        (Some(&local.to_string()[..]), Some(1))
    );
    assert!(slow["start time"].as_str().unwrap().starts_with("20"), "{slow}");
    of("apply request took too long");
    assert!(!before.contains("secret") && !after.contains("secret"));
}
