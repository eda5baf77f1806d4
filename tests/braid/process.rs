//! The program as its operator meets it: started, asked over a socket, stopped by a signal, killed, started
//! again.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::unwrap_used)]

use super::client::Client;
use braid::log::{LogDamage, LogId, Recovered, Recovery, SegmentBytes, SegmentName};
use braid::types::StoreId;
use braid::wire::{Method, proto};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Looks again until it is so.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < NEVER, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub struct Server {
    pub child: Child,
    pub address: SocketAddr,
    /// What it said until it served.
    pub before: String,
    lines: BufReader<std::process::ChildStderr>,
}

pub fn command(data_dir: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_braid"));
    // The default port of other members is one for each machine.
    command
        .arg("--data-dir")
        .arg(data_dir)
        .arg("--listen-peer-urls=http://127.0.0.1:0")
        .args(flags)
        .env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Has a command begin with a line of the shell's.
pub fn after_a_line<'a>(command: &'a mut Command, line: &str) -> &'a mut Command {
    behind(command, &["sh".as_ref(), "-c".as_ref(), format!("{line}; exec \"$0\" \"$@\"").as_ref()])
}

/// Makes a program with these arguments the one that is run, and the command its last arguments.
pub fn behind<'a>(command: &'a mut Command, words: &[&OsStr]) -> &'a mut Command {
    let (program, args) = (command.get_program().to_owned(), command.get_args().map(ToOwned::to_owned));
    let args: Vec<_> = args.collect();
    *command = Command::new(words[0]);
    command.args(&words[1..]).arg(program).args(args);
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped())
}

/// Any start and any end is a matter of moments; what has none within this never has.
pub const NEVER: Duration = Duration::from_secs(60);

/// Kills a process that has not come so far as to drop this.
struct Bound(Option<Sender<()>>, Option<JoinHandle<()>>);

impl Bound {
    fn on(process: u32) -> Bound {
        let (drop, dropped) = channel();
        let wait = move || {
            if dropped.recv_timeout(NEVER) == Err(RecvTimeoutError::Timeout) {
                let _ = Command::new("kill").args(["-KILL", &process.to_string()]).status();
            }
        };
        Bound(Some(drop), Some(std::thread::spawn(wait)))
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        drop(self.0.take());
        self.1.take().into_iter().for_each(|waits| waits.join().unwrap());
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The answer to a request for a page.
pub fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

impl Server {
    pub fn start(data_dir: &Path, flags: &[&str]) -> Server {
        Server::start_as(data_dir, flags, |command| command)
    }

    /// As [`Server::start`], after the command has been changed.
    pub fn start_as(
        data_dir: &Path,
        flags: &[&str],
        change: impl FnOnce(&mut Command) -> &mut Command,
    ) -> Server {
        let started = Server::try_start_as(data_dir, flags, change);
        started.unwrap_or_else(|said| panic!("the server has ended: {said}"))
    }

    /// What it says, where it does not come to serve.
    pub fn try_start(data_dir: &Path, flags: &[&str]) -> Result<Server, String> {
        Server::try_start_as(data_dir, flags, |command| command)
    }

    fn try_start_as(
        data_dir: &Path,
        flags: &[&str],
        change: impl FnOnce(&mut Command) -> &mut Command,
    ) -> Result<Server, String> {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let url = format!("http://{address}");
        let listen = ["--listen-client-urls", &url, "--advertise-client-urls", &url];
        let mut child = change(&mut command(data_dir, &[flags, &listen].concat())).spawn().unwrap();
        let _bound = Bound::on(child.id());
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let (mut line, mut all) = (String::new(), String::new());
        while !line.contains("ready to serve client requests") {
            line.clear();
            if lines.read_line(&mut line).unwrap() == 0 {
                let code = child.wait().unwrap().code();
                assert_eq!(code, Some(1), "it ends in time, and with a reason: {all}");
                return Err(all);
            }
            all.push_str(&line);
        }
        Ok(Server { child, address, before: all, lines })
    }

    pub fn get(&self, path: &str) -> String {
        get(self.address, path)
    }

    /// What it says from now on.
    pub fn lines(&mut self) -> &mut impl BufRead {
        &mut self.lines
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(name).arg(self.child.id().to_string()).status().unwrap();
        assert!(sent.success());
    }

    /// The signal it died of, and what it said last.
    pub fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().signal(), rest)
    }
}

impl Drop for Server {
    /// A test that fails leaves no process behind: it would hold ports and files, and slow all others down.
    fn drop(&mut self) {
        // One that has ended, and was waited for, needs neither.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_server_ends_where_its_test_fails() {
    let directory = tempfile::tempdir().unwrap();
    let pid = std::thread::scope(|scope| {
        let (says, said) = channel();
        let test = scope.spawn(move || {
            let server = Server::start(directory.path(), &["--reactors=1"]);
            says.send(server.child.id()).unwrap();
            // As a failed assertion does, without its words on the terminal.
            std::panic::resume_unwind(Box::new("it fails"));
        });
        assert!(test.join().is_err());
        said.recv().unwrap()
    });
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "process {pid} lives");
}

#[test]
fn it_serves_until_a_signal_and_dies_of_it() {
    let directory = tempfile::tempdir().unwrap();
    for (signal, number) in [("-TERM", 15), ("-INT", 2)] {
        let server = Server::start(directory.path(), &["--reactors=2"]);
        assert!(server.get("/health").ends_with(r#"{"health":"true","reason":""}"#));
        assert!(server.get("/version").contains("etcdserver"));
        let idle = TcpStream::connect(server.address).unwrap();
        server.signal(signal);
        let (died_of, last) = server.end();
        assert_eq!(died_of, Some(number), "{last}");
        assert!(last.contains("received signal; shutting down"), "{last}");
        drop(idle);
    }
}

/// As some scrapers and `nc` do.
#[test]
fn a_client_that_shuts_its_side_gets_its_answer_with_a_date() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &["--reactors=1"]);
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let date = answer.lines().find_map(|line| line.strip_prefix("Date: ")).expect("it is dated");
    assert!(date.ends_with(" GMT") && !date.contains(" 1970 "), "{date}");
    assert!(answer.contains("grpc_server_started_total"), "the page is whole");
    server.signal("-TERM");
    assert_eq!(server.end().0, Some(15));
}

#[test]
fn it_comes_back_from_a_kill_with_another_number_of_reactors() {
    let directory = tempfile::tempdir().unwrap();
    for reactors in ["--reactors=2", "--reactors=1", "--reactors=3", "--reactors=2"] {
        let server = Server::start(directory.path(), &[reactors]);
        assert!(server.get("/health").contains("\"true\""));
        server.signal("-KILL");
        assert_eq!(server.end().0, Some(9));
    }
}

#[test]
fn what_it_cannot_use_it_refuses_with_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &["--reactors=1"]);
    let taken = format!("http://{}", server.address);
    let free = format!("http://127.0.0.1:{}", free_port());
    let other = tempfile::tempdir().unwrap();
    let other = other.path().join("new");
    for (data_dir, url, words) in [
        (directory.path(), &free, "in use by another process"),
        (&other, &taken, "listens there: stop it, or choose another port with --listen-client-urls"),
    ] {
        let listen = ["--listen-client-urls", url, "--advertise-client-urls", url];
        let output = command(data_dir, &listen).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.lines().last().unwrap().contains(words), "{text}");
    }
    assert!(!other.exists(), "a first start that fails leaves nothing behind");
    server.signal("-TERM");
    assert_eq!(server.end().0, Some(15));
}

/// The bytes of the logs' files that a directory holds, by log and in order.
fn logs(data_dir: &Path) -> BTreeMap<LogId, Vec<(SegmentName, Vec<u8>)>> {
    let mut logs: BTreeMap<LogId, Vec<(SegmentName, Vec<u8>)>> = BTreeMap::new();
    for entry in std::fs::read_dir(data_dir.join("store")).unwrap() {
        let path = entry.unwrap().path();
        if let Some(name) = SegmentName::parse(path.file_name().unwrap().to_str().unwrap()) {
            logs.entry(name.log).or_default().push((name, std::fs::read(&path).unwrap()));
        }
    }
    logs.values_mut().for_each(|files| files.sort());
    logs
}

/// What the identity names.
pub fn store_id(data_dir: &Path) -> StoreId {
    let text = std::fs::read_to_string(data_dir.join("braid.json")).unwrap();
    let identity: serde_json::Value = serde_json::from_str(&text).unwrap();
    StoreId(u64::from_str_radix(identity["store_id"].as_str().unwrap(), 16).unwrap())
}

fn recover(store: StoreId, log: LogId, files: &[(SegmentName, Vec<u8>)]) -> Result<Recovered, LogDamage> {
    let mut recovery = Recovery::new(log, store, 1, SegmentBytes::USUAL);
    files.iter().for_each(|(name, bytes)| recovery.segment(*name, bytes));
    recovery.finish()
}

/// A signal at once after the answer: the write it was for has a witness all the same, as has every other.
#[test]
fn after_a_stop_a_bit_that_changes_in_the_log_is_damage() {
    const BLOCK: usize = 4096;
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &["--reactors=2"]);
    let mut client = Client::connect(server.address);
    for key in ["/registry/pods/x", "a", "/registry/leases/x", "/registry/events/x"] {
        let put =
            proto::PutRequest { key: key.into(), value: "to be witnessed".into(), ..Default::default() };
        client.call::<proto::PutResponse>(Method::Put, &put);
    }
    server.signal("-TERM");
    assert_eq!(server.end().0, Some(15));
    let (mut puts, mut damaged) = (0, 0);
    let store = store_id(directory.path());
    for (log, mut files) in logs(directory.path()) {
        let whole = recover(store, log, &files).unwrap();
        for at in 0..files.len() {
            for block in 0..files[at].1.len() / BLOCK {
                let bytes = &files[at].1[block * BLOCK..(block + 1) * BLOCK];
                if bytes.iter().all(|byte| *byte == 0) {
                    continue;
                }
                let is_put = bytes.windows(15).any(|window| window == b"to be witnessed");
                files[at].1[block * BLOCK + 100] ^= 4;
                match recover(store, log, &files) {
                    Ok(found) => assert!(!is_put && found.residents == whole.residents, "a silent loss"),
                    Err(_) => damaged += 1,
                }
                files[at].1[block * BLOCK + 100] ^= 4;
                puts += u32::from(is_put);
            }
        }
    }
    assert!(puts >= 4 && damaged > puts, "{puts} {damaged}");
}
