//! What an operator reads: the log, the pages, the help for shells.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::unwrap_used)]

use super::client::Client;
use super::process::Server;
use braid::wire::{Method, proto};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

fn completion(shell: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_braid")).args(["completion", shell]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// The words that bash would offer behind these, in a directory.
fn completed(script: &str, directory: &Path, words: &[&str]) -> Vec<String> {
    let line = words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
    let ask = format!(
        "{script}\nCOMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _braid; \
         printf '%s\\n' \"${{COMPREPLY[@]}}\""
    );
    let mut bash = Command::new("bash");
    bash.arg("-s").current_dir(directory).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut bash = bash.spawn().unwrap();
    bash.stdin.take().unwrap().write_all(ask.as_bytes()).unwrap();
    let output = bash.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn bash_completes_flags_values_and_subcommands() {
    let script = completion("bash");
    let (empty, full) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::create_dir(full.path().join("my data")).unwrap();
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
        // Where nothing fits, no flag of the server takes its place.
        (&["braid", "--data-dir", ""], &[]),
        (&["braid", "dump-log", "x", ""], &["--json"]),
        (&["braid", "completion", "bash", ""], &[]),
        (&["braid", "man", ""], &[]),
    ] {
        assert_eq!(completed(&script, empty.path(), words), offered, "{words:?}");
    }
    for words in
        [&["braid", "--data-dir", ""][..], &["braid", "--data-dir", "=", "m"], &["braid", "dump-log", "m"]]
    {
        assert_eq!(completed(&script, full.path(), words), ["my data"], "{words:?}");
    }
    let behind_boolean = completed(&script, empty.path(), &["braid", "--socket-reuse-port", "--log-l"]);
    assert!(behind_boolean.contains(&"--log-level".to_owned()));
    assert!(completed(&script, empty.path(), &["braid", ""]).len() > 30);
}

/// What a shell prints, and that it complains of nothing.
fn said(shell: &str, args: &[&str]) -> String {
    let output = Command::new(shell).args(args).stdin(Stdio::null()).output().unwrap();
    let (told, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && wrong.is_empty(), "{shell}: {told}{wrong}");
    told.into_owned()
}

/// Few machines have both.
#[test]
#[ignore = "needs zsh and fish"]
fn zsh_and_fish_complete_flags_values_and_subcommands() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let fish = write("braid.fish", &completion("fish"));
    for (line, offered) in [
        ("braid --data-d", &["--data-dir"][..]),
        ("braid --initial-cluster-state ", &["existing", "new"]),
        ("braid --metrics=ex", &["--metrics=extensive"]),
        ("braid completion ", &["bash", "fish", "zsh"]),
        ("braid dump-log --", &["--json"]),
        ("braid comp", &["completion"]),
    ] {
        let lines = said("fish", &["--no-config", "-c", &format!("source {fish}; complete -C '{line}'")]);
        let words: Vec<&str> = lines.lines().map(|line| line.split('\t').next().unwrap()).collect();
        assert_eq!(words, offered, "{line}");
    }
    let zsh = write("_braid", &completion("zsh"));
    let init = "autoload -U compinit; compinit -u -D";
    // Sourced into a shell, and as a function of $fpath.
    let sourced = said("zsh", &["-f", "-c", &format!("{init}; source {zsh}; print $_comps[braid]")]);
    let fpath = format!("fpath=({} $fpath); {init}; print $_comps[braid]", directory.path().display());
    assert_eq!((sourced.as_str(), said("zsh", &["-f", "-c", &fpath]).as_str()), ("_braid\n", "_braid\n"));
    // zsh completes only what is typed: at a terminal of its own, for as long as it takes.
    let typed = format!(
        "zmodload zsh/zpty; zpty z zsh -f -i; zpty -w z 'PROMPT=; {init}; source {zsh}; print READ\"\"Y'; \
         zpty -r -m z told '*READY*'; zpty -n -w z $'braid --data-d\\t'; zpty -r -m z told '*--data-dir*'; \
         zpty -d z; print completed"
    );
    assert_eq!(said("timeout", &["60", "zsh", "-f", "-c", &typed]), "completed\n");
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
