//! One number for all that went into and came out of the reactors: the same seed gives the same.

use crate::io::{Body, Input, Mail, Output};
use crate::log::Command;
use crate::types::Time;
use std::fmt::Write;

#[derive(Debug, Default)]
pub struct Trace {
    pub hash: u64,
    /// Whether lines are kept.
    pub keeps: bool,
    pub lines: Vec<String>,
}

impl Trace {
    fn mix(&mut self, number: u64) {
        let mixed = (self.hash ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.hash = mixed ^ (mixed >> 29);
    }

    pub fn line(&mut self, now: Time, text: impl FnOnce() -> String) {
        if self.keeps {
            self.lines.push(format!("{:>14.6} {}", now.0 as f64 / 1e6, text()));
        }
    }

    fn mail(&mut self, mail: &Mail) {
        self.mix(mail.epoch.term.0 << 32 | u64::from(mail.epoch.attempt));
        self.mix(match &mail.body {
            Body::Shard(mail) => variant(mail),
            Body::Call(mail) => variant(mail),
            Body::Leader(mail) => variant(mail),
            Body::Epoch(mail) => variant(mail),
            Body::Member(mail) => variant(mail),
        });
    }

    fn place(&mut self, (member, reactor): (usize, usize)) {
        self.mix((member << 16 | reactor) as u64);
    }

    /// A reactor of a member takes something.
    pub fn input(&mut self, now: Time, place: (usize, usize), input: &Input<'_>) {
        self.mix(now.0);
        self.place(place);
        self.mix(variant(input));
        match input {
            Input::Received { bytes, .. } => self.mix(u64::from(crc32c::crc32c(bytes))),
            Input::Sent { bytes, .. } => self.mix(*bytes as u64),
            Input::Mail { from, mail } => {
                self.mix(u64::from(from.0));
                self.mail(mail);
            }
            Input::Written { write, .. } => self.mix(write.0),
            Input::Prepared { segment } | Input::DiskFull { segment } => self.mix(segment.sequence),
            Input::Bulk { job, .. } => self.mix(job.0),
            Input::Settled(settled) => self.mix(settled.0),
            Input::Deposed { shard } => self.mix(u64::from(shard.0)),
            Input::Opened { conn, .. }
            | Input::Moved { conn, .. }
            | Input::Ended { conn }
            | Input::Closed { conn } => {
                self.mix(u64::from(conn.slot));
            }
            Input::Dialed { dial, .. } | Input::DialFailed { dial, .. } => self.mix(dial.0),
            Input::Wall { secs } => self.mix(*secs),
            Input::Stop | Input::Process(_) => {}
        }
        let (member, reactor) = place;
        self.line(now, || {
            let shown = match input {
                Input::Received { conn, bytes } => format!("Received {{ {conn:?}, {} bytes }}", bytes.len()),
                _ => short(&format!("{input:?}")),
            };
            format!("m{member} r{reactor} <- {shown}")
        });
    }

    /// A reactor of a member gives something.
    pub fn output(&mut self, now: Time, place: (usize, usize), output: &Output) {
        self.place(place);
        self.mix(variant(output));
        match output {
            Output::Send { bytes, .. } => self.mix(u64::from(crc32c::crc32c(bytes))),
            Output::SendChunks { chunks, .. } => {
                chunks.iter().for_each(|chunk| self.mix(u64::from(crc32c::crc32c(chunk.bytes()))));
            }
            Output::Dial { dial, .. } => self.mix(dial.0),
            Output::Mail { to, mail } => {
                self.mix(u64::from(to.0));
                self.mail(mail);
            }
            Output::Move { conn, to, .. } => {
                self.mix(u64::from(conn.slot));
                self.mix(u64::from(to.0));
            }
            Output::Log(Command::Write { offset, bytes, .. }) => {
                self.mix(*offset);
                self.mix(u64::from(crc32c::crc32c(bytes)));
            }
            Output::Bulk { job, .. } => self.mix(job.0),
            Output::Haste(presses) | Output::LogWaits(presses) => self.mix(u64::from(*presses)),
            Output::Log(_) | Output::Close { .. } | Output::LogLine(_) => {}
            Output::StandsAlone | Output::Halt(_) => {}
        }
        let (member, reactor) = place;
        self.line(now, || {
            let shown = match output {
                Output::Send { conn, bytes } => format!("Send {{ {conn:?}, {} bytes }}", bytes.len()),
                Output::SendChunks { conn, chunks } => {
                    let bytes: usize = chunks.iter().map(|chunk| chunk.bytes().len()).sum();
                    format!("SendChunks {{ {conn:?}, {bytes} bytes }}")
                }
                _ => short(&format!("{output:?}")),
            };
            format!("m{member} r{reactor} -> {shown}")
        });
    }
}

/// A number for the variant of an enum: the beginning of how it is shown.
fn variant(value: &impl std::fmt::Debug) -> u64 {
    struct Name(u64);
    impl Write for Name {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            for byte in text.bytes() {
                if !byte.is_ascii_alphabetic() {
                    return Err(std::fmt::Error);
                }
                self.0 = self.0.wrapping_mul(31).wrapping_add(u64::from(byte));
            }
            Ok(())
        }
    }
    let mut name = Name(7);
    // It stops by an error where the name ends.
    let _ = write!(name, "{value:?}");
    name.0
}

fn short(text: &str) -> String {
    text.chars().take(400).collect()
}
