//! What `--help` and `--version` print.

use super::flags::{FLAGS, Flag, FlagKind, GATES, SUBCOMMANDS, Status};

/// The version of etcd whose surface Braid offers; harnesses and installers decide by it.
const ETCD_VERSION: &str = "3.7.1";

/// etcd's four lines under etcd's names, as true as a server that is not etcd can fill them, then its own.
pub(super) fn version() -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!(
        "etcd Version: {ETCD_VERSION}\n\
         Git SHA: none (Braid, not built from etcd's source)\n\
         Go Version: none (Rust)\n\
         Go OS/Arch: {}/{arch}\n\
         Braid Version: {}\n",
        std::env::consts::OS,
        env!("CARGO_PKG_VERSION"),
    )
}

/// Columns that a terminal surely has.
const WIDTH: usize = 100;

const USAGE: &str = "\
Usage: braid [flags]
       braid dump-log DIR [--json]
       braid completion bash|zsh|fish
       braid man

A drop-in replacement for etcd v3. Without flags it serves etcd's clients on localhost:2379 and keeps its data
in default.etcd. To serve others than this machine:

  braid --name m1 --data-dir /var/lib/braid \\
    --listen-client-urls http://0.0.0.0:2379 --advertise-client-urls http://10.0.0.1:2379

To begin a cluster, start each member so, with its own name and addresses, and add to all of them

    --listen-peer-urls http://0.0.0.0:2380 --initial-advertise-peer-urls http://10.0.0.1:2380 \\
    --initial-cluster m1=http://10.0.0.1:2380,m2=http://10.0.0.2:2380,m3=http://10.0.0.3:2380

Flags are etcd's: one dash or two, --flag=value or --flag value; a boolean takes its value only behind =.
Each may also be given as a variable of the environment, ETCD_SOME_FLAG for --some-flag; the command line wins.
Exit codes are etcd's: 2 where an argument cannot be read, 1 where it is refused or the server cannot start.
";

/// Whether a flag of this status belongs to a part.
pub(super) type Wanted = fn(&Status) -> bool;

/// The parts of the table, each with its heading.
pub(super) const PARTS: [(&str, Wanted); 3] = [
    ("Flags", |status| *status == Status::Built),
    ("Taken, but without effect", |status| matches!(status, Status::Ignored(_))),
    ("Not built yet; taken only with etcd's default as their value", |status| *status == Status::NotBuilt),
];

pub(super) fn help() -> String {
    let mut text = String::from(USAGE);
    for (heading, wanted) in PARTS {
        text.push_str(&format!("\n{heading}:\n\n"));
        for flag in FLAGS.iter().filter(|flag| wanted(&flag.status)) {
            item(&mut text, &format!("--{}{}", flag.name, form(flag)), flag.help);
        }
    }
    text.push_str("\nFeature gates:\n\n");
    for (name, default, what) in gates() {
        item(&mut text, &format!("{name}={default}"), &what);
    }
    text.push_str("\nNames of etcd 3.6 and older:\n\n");
    for (older, newer) in older_names() {
        text.push_str(&format!("  --{older} is now {newer}\n"));
    }
    text.push_str("\nBeside serving:\n\n");
    for command in SUBCOMMANDS {
        item(&mut text, format!("braid {} {}", command.name, command.operand).trim_end(), command.help);
        for flag in command.flags {
            item(&mut text, &format!("  --{}{}", flag.name, form(flag)), flag.help);
        }
    }
    text
}

/// A name, and beneath it, indented and in lines that a terminal holds, what it means.
fn item(text: &mut String, name: &str, meaning: &str) {
    text.push_str(&format!("  {name}\n"));
    let mut column = 0;
    for word in meaning.split(' ') {
        if column == 0 || column + 1 + word.chars().count() > WIDTH {
            text.push_str(if column == 0 { "      " } else { "\n      " });
            column = 6;
        } else {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += word.chars().count();
    }
    text.push('\n');
}

/// etcd's gates: name, default, and what Braid makes of another setting.
pub(super) fn gates() -> impl Iterator<Item = (&'static str, bool, String)> {
    GATES.iter().map(|(name, default, no_effect)| {
        let what = match no_effect {
            Some(why) => format!("Taken without effect: {why}."),
            None => format!("Not built yet; stays {default}."),
        };
        (*name, *default, what)
    })
}

/// A name of etcd 3.6 and older, and what to write instead.
pub(super) fn older_names() -> impl Iterator<Item = (&'static str, String)> {
    FLAGS.iter().filter_map(|flag| match flag.status {
        Status::Became(newer) => Some((flag.name, format!("--{newer}"))),
        Status::BecameGate(gate) => Some((flag.name, format!("--feature-gates={gate}=..."))),
        _ => None,
    })
}

/// What follows a flag's name where it is given its default.
pub(super) fn form(flag: &Flag) -> String {
    let default = flag.default;
    match flag.kind {
        FlagKind::Anything => String::new(),
        FlagKind::Bool => format!("[={default}]"),
        FlagKind::Choice(choices) => {
            let named: Vec<&str> = choices.iter().copied().filter(|choice| !choice.is_empty()).collect();
            let default = if default.is_empty() { "''" } else { default };
            format!("={default} (of {})", named.join(", "))
        }
        _ if default.is_empty() => "=''".to_string(),
        _ => format!("={default}"),
    }
}
