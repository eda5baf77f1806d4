//! `braid man`: the manual page, in the language of troff, out of the table of flags.

use super::flags::{FLAGS, SUBCOMMANDS};
use super::help::{self, PARTS};

const TITLE: &str = concat!(".TH BRAID 8 \"\" \"Braid ", env!("CARGO_PKG_VERSION"), "\"\n");

const HEAD: &str = r#".SH NAME
braid \- a drop\-in replacement for etcd v3
.SH SYNOPSIS
.B braid
.RI [ flags ]
.br
.B braid dump\-log
.I DIR
.RB [ \-\-json ]
.br
.B braid completion bash|zsh|fish
.br
.B braid man
.SH DESCRIPTION
Serves etcd's clients: keys, ranges, transactions, leases and watches in one gap\-free order of revisions, durably,
on one thread a CPU. Without flags it listens on localhost:2379 and keeps its data in default.etcd.
.PP
The members of a cluster are begun with the same \-\-initial\-cluster, which names the peer URLs of each; those that a
member is reached under are its \-\-initial\-advertise\-peer\-urls.
.PP
Flags are etcd's: one dash or two, with the value behind = or as the next argument; a boolean takes its value only
behind =. Each may also be given as a variable of the environment, ETCD_SOME_FLAG for \-\-some\-flag; the command
line wins.
"#;

const FOOT: &str = r#".SH ENVIRONMENT
.TP
.B ETCD_*
Values of flags, see above.
.TP
.B TZ
The zone of the log's timestamps.
.SH EXIT STATUS
0 for help, version, completion and manual; 1 where a value is refused or the server cannot start; 2 where an
argument cannot be read. A server that is stopped by a signal dies of it, except as the first process of a
container, where it ends with 0.
.SH SIGNALS
SIGTERM and SIGINT stop the server: calls under way are answered, then it ends. A second one ends it at once.
"#;

pub(super) fn page() -> String {
    let mut page = [TITLE, HEAD].concat();
    for (heading, wanted) in PARTS {
        section(&mut page, heading);
        for flag in FLAGS.iter().filter(|flag| wanted(&flag.status)) {
            entry(&mut page, &format!("--{}{}", flag.name, help::form(flag)), flag.help);
        }
    }
    section(&mut page, "Feature gates");
    for (name, default, what) in help::gates() {
        entry(&mut page, &format!("{name}={default}"), &what);
    }
    section(&mut page, "Names of etcd 3.6 and older");
    for (older, newer) in help::older_names() {
        entry(&mut page, &format!("--{older}"), &format!("Is now {newer}."));
    }
    section(&mut page, "Beside serving");
    for command in SUBCOMMANDS {
        let form = format!("braid {} {}", command.name, command.operand);
        entry(&mut page, form.trim_end(), command.help);
        for flag in command.flags {
            entry(&mut page, &format!("--{}{}", flag.name, help::form(flag)), flag.help);
        }
    }
    page + FOOT
}

fn section(page: &mut String, heading: &str) {
    page.push_str(&format!(".SH {}\n", escaped(&heading.to_uppercase())));
}

fn entry(page: &mut String, name: &str, meaning: &str) {
    page.push_str(&format!(".TP\n.B {}\n{}\n", escaped(name), escaped(meaning)));
}

/// Text as troff prints it: its escapes escaped, dashes that can be copied, and no line that is a request.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_never_a_request() {
        assert_eq!(escaped(r"--a \xNN"), r"\-\-a \exNN");
        assert_eq!(escaped(".SH"), r"\&.SH");
        assert_eq!(escaped("'quote"), r"\&'quote");
        for line in page().lines().filter(|line| line.starts_with(['.', '\''])) {
            let request = line.split(' ').next();
            assert!(
                [".TH", ".SH", ".TP", ".B", ".I", ".RI", ".RB", ".br", ".PP"].map(Some).contains(&request),
                "{line}"
            );
        }
    }
}
