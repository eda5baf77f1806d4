//! What `--help` and `--version` print.

use super::flags::{DUMP_LOG, FLAGS, Flag, Kind, Status};

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

pub(super) fn help() -> String {
    let (command, operand) = (DUMP_LOG.name, DUMP_LOG.operand);
    let mut text = format!("Usage: braid [flags]\n       braid {command} {operand} [flags]\n");
    text.push_str(
        "\nA drop-in replacement for etcd v3. Flags are etcd's: one dash or two, --flag=value or --flag value.\n\
         Each may also be given as a variable of the environment: ETCD_SOME_FLAG for --some-flag; the command\n\
         line wins.\n\nFlags:\n\n  --help\n      Print this text and exit.\n",
    );
    section(&mut text, FLAGS, |status| *status == Status::Built);
    text.push_str("\nTaken, but without effect:\n\n");
    section(&mut text, FLAGS, |status| matches!(status, Status::Ignored(_)));
    text.push_str("\nNot built yet; taken only with etcd's default as their value:\n\n");
    section(&mut text, FLAGS, |status| *status == Status::NotBuilt);
    text.push_str("\nNames of etcd 3.6 and older:\n\n");
    for flag in FLAGS {
        match flag.status {
            Status::Became(newer) => text.push_str(&format!("  --{} is now --{newer}\n", flag.name)),
            Status::BecameGate(gate) => {
                text.push_str(&format!("  --{} is now --feature-gates={gate}=...\n", flag.name));
            }
            _ => {}
        }
    }
    text.push_str(&format!("\nbraid {command} {operand}\n      {}\n\n", DUMP_LOG.help));
    section(&mut text, DUMP_LOG.flags, |_| true);
    text
}

fn section(text: &mut String, flags: &[Flag], wanted: impl Fn(&Status) -> bool) {
    for flag in flags.iter().filter(|flag| wanted(&flag.status)) {
        text.push_str(&format!("  --{}{}\n      {}\n", flag.name, form(flag), flag.help));
    }
}

fn form(flag: &Flag) -> String {
    let default = flag.default;
    match flag.kind {
        Kind::Anything => String::new(),
        Kind::Bool => format!("[={default}]"),
        Kind::Choice(choices) => format!("={default} (of {})", choices.join(", ")),
        _ if default.is_empty() => "=''".to_string(),
        _ => format!("={default}"),
    }
}
