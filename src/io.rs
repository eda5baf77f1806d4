//! The seam: all that goes into a reactor and all that comes out of it. Read this file first.
//!
//! A world (`shell` or `sim`) feeds every [`Input`] with the time, ends each turn with one `flush`, and
//! carries out the [`Output`]s. Reactors of one member talk in [`Mail`]: in order for each pair, never
//! refused, bounded in number by the requests admitted.

mod applies;
mod figures;
mod log_line;
mod mail;
mod paths;

pub use crate::record::Chunk;
pub use applies::{Applies, ApplyKind};
pub use figures::{Census, PeerFigures, ProcessFigures, ReactorCounters, ShardFigures, Times};
pub use log_line::{Fields, Level, LogLine, Value};
pub use mail::{
    Body, CallId, CallMail, ControlCopy, ControlRequest, EpochMail, LeaderMail, Mail, MemberMail, Own,
    PartOf, ShardMail,
};
pub use paths::Paths;

use crate::log::{Buffer, Command, LogPiece, SegmentName, WriteId};
use crate::types::{ConnId, ReactorId, Revision, ShardId};
use std::any::Any;
use std::fmt;

/// What happens to a reactor.
#[derive(Debug)]
pub enum Input<'a> {
    /// A client has connected, or at the first reactor another member.
    Opened {
        conn: ConnId,
        port: Port,
    },
    /// The connection that was asked for is made.
    Dialed {
        dial: DialId,
        conn: ConnId,
    },
    DialFailed {
        dial: DialId,
        why: String,
    },
    /// A connection has come from another reactor, or was sent back by the world.
    Moved {
        conn: ConnId,
        state: ConnectionState,
    },
    Received {
        conn: ConnId,
        bytes: &'a [u8],
    },
    /// So many bytes of what was handed out are with the kernel: the connection may be given more.
    Sent {
        conn: ConnId,
        bytes: usize,
    },
    /// The client sends nothing more; it may still read.
    Ended {
        conn: ConnId,
    },
    /// The connection is gone, in whatever way.
    Closed {
        conn: ConnId,
    },
    Mail {
        from: ReactorId,
        mail: Mail,
    },
    /// A write of the log is durable. One that fails never comes back: the world halts.
    Written {
        write: WriteId,
        buffer: Buffer,
    },
    /// A segment's file is ready.
    Prepared {
        segment: SegmentName,
    },
    /// The disk has no room for a segment's file.
    DiskFull {
        segment: SegmentName,
    },
    Bulk {
        job: JobId,
        done: BulkDone,
    },
    /// `settled` has moved; at most once per turn.
    Settled(Revision),
    /// A group lost its leadership, as by a message of a higher term.
    Deposed {
        shard: ShardId,
    },
    /// What the operating system says of the process, for metrics: now and then, to any reactor.
    Process(ProcessFigures),
    /// What the wall clock shows, in seconds since 1970: whenever it may have gone on, before what it is for.
    Wall {
        secs: u64,
    },
    /// Stop serving clients: answer what is on its way, close the rest.
    Stop,
}

/// What a reactor wants done, in order.
#[derive(Debug)]
pub enum Output {
    Send {
        conn: ConnId,
        bytes: Vec<u8>,
    },
    /// Sends pieces one behind the other.
    SendChunks {
        conn: ConnId,
        chunks: Vec<Chunk>,
    },
    /// Connect to a member that listens there: answered once, by `Dialed` or `DialFailed`.
    Dial {
        dial: DialId,
        url: String,
    },
    /// Close once everything handed out is sent.
    Close {
        conn: ConnId,
    },
    /// Hand the connection to another reactor, of which everything handed out is sent. It is nobody's from here
    /// on, and what comes meanwhile goes with it; the world may send it back at once.
    Move {
        conn: ConnId,
        to: ReactorId,
        state: ConnectionState,
    },
    Mail {
        to: ReactorId,
        mail: Mail,
    },
    /// Answered by `Written`, `Prepared` and `DiskFull`; what else fails is final, and the world halts.
    Log(Command),
    Bulk {
        job: JobId,
        step: BulkStep,
    },
    /// Whether what this reactor has asked of the bulk lane presses: then it gets its share of CPU and disk, beside
    /// whoever else wants them; else it takes what is left.
    Haste(bool),
    /// Whether writes of the log wait for a segment's file: then it is made without a pause.
    LogWaits(bool),
    LogLine(LogLine),
    /// This member, which was to go on alone, is the only one, durably: the next start need not do that again. Known
    /// before anything that is asked for later is done.
    StandsAlone,
    /// This process cannot go on, for this reason.
    Halt(String),
}

/// What a reactor knows of a connection, on its way to another: only the clients' side looks inside.
pub struct ConnectionState(pub Box<dyn Any + Send>);

impl fmt::Debug for ConnectionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnectionState")
    }
}

/// An attempt to connect, numbered by the reactor that makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DialId(pub u64);

/// Which kind of listener a connection came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    Client,
    /// `--listen-peer-urls`: other members, and HTTP/1 for operators.
    Peer,
    /// `--listen-metrics-urls`: HTTP/1 alone.
    Metrics,
}

/// A piece of work for the bulk lane; one step of it at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// Steps of writing a file that is not there before it is whole, and of reading the log back.
#[derive(Debug)]
pub enum BulkStep {
    /// Creates the file, or empties what an earlier process left under the name.
    Create { name: String },
    /// Writes whole blocks at the end.
    Append { name: String, blocks: Vec<Buffer> },
    /// Makes the file durable, gives it its name, and makes that durable.
    Publish { name: String, as_name: String },
    /// Removes a file, in slices; one that is not there is no error.
    Remove { name: String },
    /// Reads a piece of a log's segment: whole blocks, up to the file's end.
    Read(LogPiece),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BulkDone {
    Done,
    Read(Vec<u8>),
    /// The disk has no room. The file is as it was before the step, or absent.
    Full,
    /// Any other failure.
    Failed(String),
}
