//! A fresh server for each transcript, in a fresh directory, on free ports of the loopback.

use crate::client::{Connection, Outgoing, Part, framed};
use crate::message::contents;
use std::collections::BTreeSet;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A server that has not answered a read by then never will.
const READY_MAX: Duration = Duration::from_secs(30);
/// etcd settles its storage version a moment after the first read; who reports none is not waited for longer.
const SETTLED_MAX: Duration = Duration::from_secs(6);
const READY_PAUSE: Duration = Duration::from_millis(50);

pub struct Server {
    child: Child,
    /// Host and port for clients.
    pub authority: String,
    _dir: tempfile::TempDir,
}

/// A port that is free, and that no server before was given: it may not have bound its own yet.
fn free_port() -> Result<u16, String> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        let port = listener.local_addr().map_err(|error| error.to_string())?.port();
        if GIVEN.lock().expect("nothing panics while it is held").insert(port) {
            return Ok(port);
        }
    }
}

impl Server {
    /// Starts `command`, with `{client}`, `{peer}` and `{dir}` filled in and `flags` after it, and waits until
    /// it answers a linearizable read.
    pub async fn spawn(command: &str, flags: &str) -> Result<Server, String> {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let authority = format!("127.0.0.1:{}", free_port()?);
        let filled = format!("{command} {flags}")
            .replace("{client}", &authority)
            .replace("{peer}", &format!("127.0.0.1:{}", free_port()?))
            .replace("{dir}", &dir.path().join("data").to_string_lossy());
        let words: Vec<&str> = filled.split_whitespace().collect();
        let log = std::fs::File::create(dir.path().join("log")).map_err(|error| error.to_string())?;
        let child = Command::new(words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("{}: {error}", words[0]))?;
        let mut server = Server { child, authority, _dir: dir };
        let begun = Instant::now();
        while !answers(&server.authority).await {
            if let Ok(Some(status)) = server.child.try_wait() {
                return Err(format!("the server ended with {status}: {}", server.last_words()));
            }
            if begun.elapsed() > READY_MAX {
                return Err(format!("the server is not ready: {}", server.last_words()));
            }
            tokio::time::sleep(READY_PAUSE).await;
        }
        let begun = Instant::now();
        while !settled(&server.authority).await && begun.elapsed() < SETTLED_MAX {
            tokio::time::sleep(READY_PAUSE).await;
        }
        Ok(server)
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self._dir.path().join("log")).unwrap_or_default();
        log.lines().last().unwrap_or("its log is empty").to_string()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A process that is already gone needs no killing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The answer to one request, if there is one within a second.
async fn answer(authority: &str, path: &str, request: &[u8]) -> Option<bytes::Bytes> {
    let answer = async {
        let connection = Connection::open(authority).await.ok()?;
        let mut call = connection.call(&Outgoing::grpc(path)).await.ok()?;
        call.send(framed(0, request), true).await;
        match call.next().await? {
            Part::Message(_, bytes) => Some(bytes),
            Part::End(_) => None,
        }
    };
    tokio::time::timeout(Duration::from_secs(1), answer).await.ok().flatten()
}

/// Whether a linearizable read of one key succeeds.
async fn answers(authority: &str) -> bool {
    answer(authority, "/etcdserverpb.KV/Range", b"\x0a\x01a").await.is_some()
}

/// Whether the storage version is that of the server, up to the patch number.
async fn settled(authority: &str) -> bool {
    let Some(status) = answer(authority, "/etcdserverpb.Maintenance/Status", b"").await else { return false };
    let minor = |field| {
        let version = contents(&status, field).concat();
        version.iter().rposition(|byte| *byte == b'.').map(|dot| version[..dot].to_vec())
    };
    minor(2).is_some() && minor(2) == minor(11)
}
