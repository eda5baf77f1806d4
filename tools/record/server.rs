//! A fresh server for each transcript, or fresh members of one, in a fresh directory, on free ports of the loopback.

use crate::client::{Connection, Outgoing, Part, framed, http1};
use crate::message::contents;
use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A server that has not answered a read by then never will.
const READY_MAX: Duration = Duration::from_secs(30);
/// etcd settles its storage version a moment after the first read; who reports none is not waited for longer.
const SETTLED_MAX: Duration = Duration::from_secs(6);
const READY_PAUSE: Duration = Duration::from_millis(50);

/// The members of one cluster, which is mostly one.
pub struct Server {
    members: Vec<Member>,
    dir: tempfile::TempDir,
}

struct Member {
    name: String,
    /// Host and port for clients.
    authority: String,
    child: Child,
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

/// The words of a member's command, filled in.
fn filled(command: &str, names: &[(&str, String)]) -> Vec<String> {
    let fill =
        |word: &str| names.iter().fold(word.to_owned(), |word, (name, value)| word.replace(name, value));
    command.split_whitespace().map(fill).collect()
}

impl Server {
    /// Starts `command` for each member, with its names filled in and `flags` after it, and waits until all of
    /// them answer a linearizable read.
    pub async fn spawn(command: &str, flags: &str, members: usize) -> Result<Server, String> {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        // Whoever is alone is called as one is by default.
        let name = |at| if members == 1 { "default".to_owned() } else { format!("m{at}") };
        let ports: Vec<(u16, u16)> =
            (0..members).map(|_| Ok((free_port()?, free_port()?))).collect::<Result<_, String>>()?;
        let cluster = ports.iter().enumerate();
        let cluster: Vec<String> =
            cluster.map(|(at, (_, peer))| format!("{}=http://127.0.0.1:{peer}", name(at))).collect();
        let mut server = Server { members: Vec::new(), dir };
        for (at, (client, peer)) in ports.into_iter().enumerate() {
            let (name, authority) = (name(at), format!("127.0.0.1:{client}"));
            let names = [
                ("{name}", name.clone()),
                ("{client}", authority.clone()),
                ("{peer}", format!("127.0.0.1:{peer}")),
                ("{cluster}", cluster.join(",")),
                ("{dir}", server.dir.path().join(&name).display().to_string()),
            ];
            let words = filled(&format!("{command} {flags}"), &names);
            let log = std::fs::File::create(server.log(&name)).map_err(|error| error.to_string())?;
            let mut command = Command::new(&words[0]);
            command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
            let child = command.spawn().map_err(|error| format!("{}: {error}", words[0]))?;
            server.members.push(Member { name, authority, child });
        }
        server.await_ready().await?;
        Ok(server)
    }

    async fn await_ready(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        for at in 0..self.members.len() {
            while !answers(&self.members[at].authority).await {
                let words = self.last_words(at);
                if let Ok(Some(status)) = self.members[at].child.try_wait() {
                    return Err(format!("the server ended with {status}: {words}"));
                }
                if begun.elapsed() > READY_MAX {
                    return Err(format!("the server is not ready: {words}"));
                }
                tokio::time::sleep(READY_PAUSE).await;
            }
        }
        let begun = Instant::now();
        for member in &self.members {
            while !settled(&member.authority).await && begun.elapsed() < SETTLED_MAX {
                tokio::time::sleep(READY_PAUSE).await;
            }
        }
        Ok(())
    }

    /// Who is asked: the one that is there, or one that does not lead.
    pub async fn asked(&self) -> Result<String, String> {
        for Member { authority, .. } in &self.members {
            let page = http1(authority, "GET", "/metrics", "").await?;
            let leads = page.iter().any(|line| line.ends_with("etcd_server_is_leader 1"));
            if self.members.len() == 1 || !leads {
                return Ok(authority.clone());
            }
        }
        Err("every member leads".to_owned())
    }

    /// Ends all but one, at once.
    pub fn kill_others(&mut self, authority: &str) {
        for member in self.members.iter_mut().filter(|member| member.authority != authority) {
            member.end();
        }
    }

    fn log(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.log"))
    }

    fn last_words(&self, at: usize) -> String {
        let log = std::fs::read_to_string(self.log(&self.members[at].name)).unwrap_or_default();
        log.lines().last().unwrap_or("its log is empty").to_string()
    }
}

impl Member {
    fn end(&mut self) {
        // A process that is already gone needs no killing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.end();
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
