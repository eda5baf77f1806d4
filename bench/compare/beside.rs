//! What runs beside the load: compactions, and programs that keep the machine busy.

use crate::server::end_with_parent;
use braid::wire::proto::{CompactionRequest, CompactionResponse, RangeRequest, RangeResponse};
use bytes::Bytes;
use generator::call::call;
use std::io::{Error, Result};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// A compaction that has not ended by then is a fault of the server.
const PATIENCE: Duration = Duration::from_secs(120);

/// The revision that the server is at.
pub fn revision(of: SocketAddr) -> Result<i64> {
    let request = RangeRequest { key: Bytes::from_static(b"compare"), ..RangeRequest::default() };
    let answer: RangeResponse = call(of, "/etcdserverpb.KV/Range", &request, PATIENCE)?;
    answer.header.map(|header| header.revision).ok_or_else(|| Error::other("an answer without a header"))
}

/// `physical` waits until what is dropped is gone.
pub fn compact(of: SocketAddr, revision: i64, physical: bool) -> Result<()> {
    let request = CompactionRequest { revision, physical };
    call::<CompactionResponse>(of, "/etcdserverpb.KV/Compact", &request, PATIENCE).map(drop)
}

/// Compacts each interval to the revision of an interval ago.
pub struct Compactor {
    stop: Sender<()>,
    thread: JoinHandle<Result<u64>>,
}

impl Compactor {
    pub fn start(of: SocketAddr, every: Duration) -> Compactor {
        let (stop, stopped) = channel();
        let thread = thread::spawn(move || {
            let (mut earlier, mut compactions) = (revision(of)?, 0);
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                let now = revision(of)?;
                compact(of, earlier, false)?;
                (earlier, compactions) = (now, compactions + 1);
            }
            Ok(compactions)
        });
        Compactor { stop, thread }
    }

    /// How many compactions there were. The first that failed ended them, and is the error.
    pub fn end(self) -> Result<u64> {
        // One that has ended by itself hears nothing.
        let _ = self.stop.send(());
        self.thread.join().map_err(|_| Error::other("the compactions' thread panicked"))?
    }
}

/// Programs that compute without end; dropping them ends them.
pub struct Busy(Vec<Child>);

impl Busy {
    pub fn start(count: usize) -> Result<Busy> {
        let mut busy = Busy(Vec::new());
        for _ in 0..count {
            let mut command = Command::new("sh");
            command.args(["-c", "while :; do :; done"]).stdin(Stdio::null());
            end_with_parent(&mut command);
            busy.0.push(command.spawn()?);
        }
        Ok(busy)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // One that is gone already needs no end.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
