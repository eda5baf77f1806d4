//! What a person at a terminal sees beside the log.

use crate::config::{Config, LogFormat, LogOutput};
use std::io::{self, IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Which of the two streams a person reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminal {
    pub stdout: bool,
    pub stderr: bool,
}

impl Terminal {
    pub fn look() -> Terminal {
        Terminal { stdout: io::stdout().is_terminal(), stderr: io::stderr().is_terminal() }
    }

    pub fn is_there(self) -> bool {
        self.stdout || self.stderr
    }

    /// The form of the log: what was asked for, else the one for people where only they read it.
    pub fn log_format(self, config: &Config) -> LogFormat {
        let is_read_here = |output: &LogOutput| match output {
            LogOutput::Stderr => self.stderr,
            LogOutput::Stdout => self.stdout,
            LogOutput::File(_) => false,
        };
        if !config.given.contains("log-format") && config.log_outputs.iter().all(is_read_here) {
            return LogFormat::Console;
        }
        config.log_format
    }

    /// Says that clients are served, where a person reads.
    pub fn greet(self, config: &Config, clients: &[SocketAddr]) {
        let text = text(config, clients);
        // Whoever closed the terminal does not read it.
        let _ = match self {
            Terminal { stdout: true, .. } => {
                io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush())
            }
            Terminal { stderr: true, .. } => io::stderr().write_all(text.as_bytes()),
            _ => Ok(()),
        };
    }
}

fn text(config: &Config, clients: &[SocketAddr]) -> String {
    let listening: Vec<String> = clients.iter().map(SocketAddr::to_string).collect();
    let endpoint = clients.first().map(|address| reachable(*address).to_string()).unwrap_or_default();
    format!(
        "\nBraid serves etcd's v3 API on {}; its data is in {}.\n\
         Try:   etcdctl --endpoints={endpoint} put hello world\n\
         Stop:  Ctrl-C\n\n",
        listening.join(" and "),
        config.data_dir.display(),
    )
}

/// An address that a client on this machine can use: nobody connects to 0.0.0.0.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Parsed, parse};

    fn config(flags: &[&str]) -> Config {
        let args: Vec<String> = flags.iter().map(ToString::to_string).collect();
        match parse(&args, &[], 1).unwrap() {
            Parsed::Run(config, _) => *config,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_log_is_for_people_only_where_only_they_read_it() {
        let (person, program) =
            (Terminal { stdout: true, stderr: true }, Terminal { stdout: false, stderr: false });
        for (terminal, flags, format) in [
            (person, &[][..], LogFormat::Console),
            (program, &[], LogFormat::Json),
            (Terminal { stdout: true, stderr: false }, &[], LogFormat::Json),
            (Terminal { stdout: true, stderr: false }, &["--log-outputs=stdout"], LogFormat::Console),
            (person, &["--log-format=json"], LogFormat::Json),
            (program, &["--log-format=console"], LogFormat::Console),
            (person, &["--log-outputs=stderr,/a/file"], LogFormat::Json),
        ] {
            assert_eq!(terminal.log_format(&config(flags)), format, "{terminal:?} {flags:?}");
        }
    }

    #[test]
    fn the_greeting_has_an_address_to_paste() {
        for (listens, endpoint) in [
            ("0.0.0.0:2379", "--endpoints=127.0.0.1:2379 "),
            ("[::]:2379", "--endpoints=[::1]:2379 "),
            ("10.0.0.1:1", "--endpoints=10.0.0.1:1 "),
        ] {
            let text = text(&config(&[]), &[listens.parse().unwrap()]);
            assert!(text.contains(endpoint) && text.contains(&format!("on {listens}; ")), "{text}");
        }
    }
}
