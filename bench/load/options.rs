//! The command line.

use generator::arguments::{behind_alias, number, seconds};
use generator::workload::{KEY_BYTES_MIN, Workload};
use generator::{Pace, Plan, Span};
use std::net::ToSocketAddrs;
use std::time::Duration;

pub const HELP: &str = "\
Puts load on a server of etcd's protocol. A table goes to stderr, one line of JSON to stdout.

    cargo load [put|range|mixed] [options]

  --endpoints HOST:PORT[,…]  the servers                            [127.0.0.1:2379]
  --pid PID[,…]              their processes, to measure their CPU and what they write
  --connections N            [16]
  --streams N                requests in flight a connection        [64]
  --rate N                   open loop: so many requests a second, on at most
                             connections × streams; without it the loop is closed
  --seconds S                the measured window                    [5]
  --requests N               so many requests instead
  --warm-up S                load before it                         [1]
  --keys N                   size of the key space                  [100000]
  --key-bytes N              [48]
  --value-bytes N            [256]
  --sequential               keys one after the other, in order; else at random
  --puts PERCENT             puts among the requests of `mixed`     [20]
  --serializable             ranges need not be linearizable
  --limit N                  a range returns N keys from one on     [1]
  --prefill yes|no           first put every key once               [no for put, else yes]
  --seed N                   of the random keys                     [1]

Latency counts from the time a request was meant to be sent; in the open loop that is its place in the
rate, whether or not it could be sent then. `sent late` is the generator's own share of that, and waiting
for a free stream. Answers may come up to 5 s after the window. Every answer is checked; the exit code is
1 where one was an error or wrong.
CPU of a server is the sum of its threads' schedstat; `by user + system` is the coarse cross-check. Bytes
written are those to the device, from /proc/PID/io: its own user and root may see them.";

pub enum Parsed {
    Help,
    Run(Box<Options>),
}

pub struct Options {
    pub plan: Plan,
    pub prefill: bool,
}

/// Errors are sentences for the user.
pub fn parse(args: &[String]) -> Result<Parsed, String> {
    let args = behind_alias(args);
    let mut plan = Plan {
        label: "load".to_owned(),
        endpoints: vec![([127, 0, 0, 1], 2379).into()],
        pids: Vec::new(),
        connections: 16,
        streams: 64,
        workload: Workload {
            keys: 100_000,
            key_bytes: 48,
            value_bytes: 256,
            scattered: true,
            in_turn: false,
            puts_percent: 100,
            guarded: false,
            serializable: false,
            limit: 1,
        },
        pace: Pace::Closed,
        warm_up: Duration::from_secs(1),
        span: Span::For(Duration::from_secs(5)),
        patience: Duration::from_secs(5),
        seed: 1,
    };
    let (mut kind, mut puts_percent, mut prefill) = ("put", 20, None);
    let mut rest = args.iter().map(String::as_str);
    while let Some(name) = rest.next() {
        let workload = &mut plan.workload;
        match name {
            "--help" | "-h" => return Ok(Parsed::Help),
            "put" | "range" | "mixed" => kind = name,
            "--sequential" => (workload.scattered, workload.in_turn) = (false, true),
            "--serializable" => workload.serializable = true,
            _ => {
                let value = rest.next().ok_or_else(|| format!("{name} is no option, or lacks its value"))?;
                match name {
                    "--endpoints" => plan.endpoints = list(name, value, address)?,
                    "--pid" => plan.pids = list(name, value, |pid| pid.parse().ok())?,
                    "--connections" => plan.connections = number(name, value, 1)?,
                    "--streams" => plan.streams = number(name, value, 1)?,
                    "--rate" => plan.pace = Pace::Open { per_second: number(name, value, 1)? },
                    "--seconds" => plan.span = Span::For(seconds(name, value)?),
                    "--requests" => plan.span = Span::Requests(number(name, value, 1)?),
                    "--warm-up" => plan.warm_up = seconds(name, value)?,
                    "--keys" => workload.keys = number(name, value, 1)?,
                    "--key-bytes" => workload.key_bytes = number(name, value, KEY_BYTES_MIN)?,
                    "--value-bytes" => workload.value_bytes = number(name, value, 0)?,
                    "--puts" => puts_percent = number(name, value, 0)?,
                    "--limit" => workload.limit = number(name, value, 1)?,
                    "--prefill" => prefill = Some(yes_or_no(name, value)?),
                    "--seed" => plan.seed = number(name, value, 0)?,
                    _ => return Err(format!("{name} is no option")),
                }
            }
        }
    }
    plan.workload.puts_percent = match kind {
        "put" => 100,
        "range" => 0,
        _ => puts_percent,
    };
    let prefill = prefill.unwrap_or(plan.workload.puts_percent < 100);
    Ok(Parsed::Run(Box::new(Options { plan, prefill })))
}

fn yes_or_no(name: &str, text: &str) -> Result<bool, String> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(format!("{name} takes yes or no, not {text:?}")),
    }
}

fn list<T>(name: &str, text: &str, one: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, String> {
    text.split(',').map(|part| one(part).ok_or_else(|| format!("{name} cannot be {part:?}"))).collect()
}

fn address(text: &str) -> Option<std::net::SocketAddr> {
    let text = text.strip_prefix("http://").unwrap_or(text);
    text.to_socket_addrs().ok()?.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_whole_or_refused() {
        let read = |line: &str| parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<String>>());
        assert!(matches!(read("put --rate 5 --help"), Ok(Parsed::Help)));
        assert!(matches!(read("-- put --rate 5"), Ok(Parsed::Run(_))));
        let Ok(Parsed::Run(options)) = read("mixed --puts 30 --pid 1,2 --requests 7") else {
            panic!("refused")
        };
        assert!(options.prefill && options.plan.workload.puts_percent == 30);
        assert_eq!(options.plan.pids, [1, 2]);
        for wrong in
            ["get", "--rate", "--rate 0", "--pid 1,x", "--seconds -1", "--prefill perhaps", "--trace 1"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        // The one that is wrong is named, not the list.
        let why = read("--endpoints 127.0.0.1:2379,nowhere").err().unwrap_or_default();
        assert_eq!(why, "--endpoints cannot be \"nowhere\"");
    }
}
