//! A server of one measurement: started on free ports of the loopback with an empty directory, and ended.

use generator::workload::Workload;
use generator::{Pace, Plan, Span};
use std::fs::{self, File};
use std::io::{Error, Result};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A million keys may have to be read by then, beside whatever else runs.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// Then another connection is tried.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
const RETRY_AFTER: Duration = Duration::from_millis(5);
/// The server counts the connection that asked as open until it has seen its end, and places the next ones by
/// that: without a pause a lone connection is now on one core, now on another.
const PAUSE: Duration = Duration::from_millis(200);
/// Of the unit that the kernel counts a file's blocks in.
const BLOCK_BYTES: u64 = 512;

/// A running server; dropping it kills the process and removes its directory.
pub struct Server {
    child: Child,
    program: PathBuf,
    pub client: SocketAddr,
    peer: SocketAddr,
    directory: PathBuf,
}

impl Server {
    /// Starts `program` with etcd's flags for addresses and directory, all others by default, in a new
    /// directory inside `within`, and waits until it has taken a put.
    pub fn start(program: &Path, within: &Path, workload: &Workload) -> Result<Server> {
        let directory = within.join(format!("server-{}", std::process::id()));
        // A run that was killed may have left one under a process id that came again.
        if directory.exists() {
            fs::remove_dir_all(&directory)?;
        }
        fs::create_dir_all(&directory)?;
        let (client, peer) = free_ports()?;
        let child = spawn(Command::new(program), &directory, client, peer)?;
        let mut server = Server { child, program: program.to_owned(), client, peer, directory };
        server.await_ready(workload)?;
        thread::sleep(PAUSE);
        Ok(server)
    }

    /// Ends it as a power cut would, as far as the process goes.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Starts a killed server on what it had: the time until it has taken a put.
    pub fn start_again(&mut self, workload: &Workload) -> Result<Duration> {
        let begun = Instant::now();
        self.child = spawn(Command::new(&self.program), &self.directory, self.client, self.peer)?;
        self.await_ready(workload)?;
        Ok(begun.elapsed())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the data directory takes of the disk.
    pub fn disk_bytes(&self) -> Result<u64> {
        let (mut bytes, mut directories) = (0, vec![self.directory.join("data")]);
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory)? {
                let entry = entry?;
                // A file that goes while it is looked at takes nothing any more.
                let Ok(metadata) = entry.metadata() else { continue };
                bytes += metadata.blocks() * BLOCK_BYTES;
                if metadata.is_dir() {
                    directories.push(entry.path());
                }
            }
        }
        Ok(bytes)
    }

    fn await_ready(&mut self, workload: &Workload) -> Result<()> {
        let plan = Plan {
            label: "a server's start".to_owned(),
            endpoints: vec![self.client],
            pids: Vec::new(),
            connections: 1,
            streams: 1,
            workload: Workload { puts_percent: 100, guarded: false, ..*workload },
            pace: Pace::Closed,
            warm_up: Duration::ZERO,
            span: Span::Requests(1),
            patience: ANSWER_WITHIN,
            seed: 0,
        };
        let start = Instant::now();
        loop {
            let problem = match generator::run(&plan) {
                Ok(outcome) if outcome.errors + outcome.violations == 0 => return Ok(()),
                Ok(outcome) => outcome.fault.unwrap_or_default(),
                Err(error) => error.to_string(),
            };
            let ended = self.child.try_wait()?;
            if ended.is_some() || start.elapsed() > READY_WITHIN {
                let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(10).collect();
                let tail: Vec<&str> = tail.into_iter().rev().collect();
                let program = self.program.display();
                return Err(Error::other(format!("{program} did not serve: {problem}\n{}", tail.join("\n"))));
            }
            thread::sleep(RETRY_AFTER);
        }
    }
}

/// Starts a server by a command that has its other flags already.
pub fn spawn(mut command: Command, directory: &Path, client: SocketAddr, peer: SocketAddr) -> Result<Child> {
    let log = File::options().create(true).append(true).open(directory.join("log"))?;
    command
        .arg("--data-dir")
        .arg(directory.join("data"))
        .args(["--listen-client-urls", &format!("http://{client}")])
        .args(["--advertise-client-urls", &format!("http://{client}")])
        .args(["--listen-peer-urls", &format!("http://{peer}")])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    end_with_parent(&mut command);
    let program = command.get_program().to_owned();
    command.spawn().map_err(|error| Error::other(format!("{}: {error}", program.display())))
}

impl Drop for Server {
    fn drop(&mut self) {
        // The process may have ended by itself, and a directory that stays does no harm.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Lets the kernel kill a program that this one starts when this one is killed before it can.
#[allow(unsafe_code)] // std has no safe way to set the signal
pub fn end_with_parent(command: &mut Command) {
    let set_signal = || {
        // SAFETY: no memory is passed; prctl may be called between fork and exec.
        match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
            0 => Ok(()),
            _ => Err(Error::last_os_error()),
        }
    };
    // SAFETY: the closure makes one system call and allocates nothing.
    unsafe { command.pre_exec(set_signal) };
}

/// Two ports nobody listens on, chosen together so that they differ.
pub fn free_ports() -> Result<(SocketAddr, SocketAddr)> {
    let any = (Ipv4Addr::LOCALHOST, 0);
    let (one, other) = (TcpListener::bind(any)?, TcpListener::bind(any)?);
    Ok((one.local_addr()?, other.local_addr()?))
}

/// The type of the file system a directory lies on, as the kernel names it.
pub fn file_system(directory: &Path) -> Result<String> {
    let directory = directory.canonicalize()?;
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let of = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        let (point, kind) = (fields.next()?.to_owned(), fields.next()?.to_owned());
        directory.starts_with(&point).then_some((point.len(), kind))
    };
    // Of mounts on the same point the last one is seen.
    let nearest = mounts.lines().filter_map(of).max_by_key(|(len, _)| *len);
    nearest.map(|(_, kind)| kind).ok_or_else(|| Error::other("no mount holds the directory"))
}
