//! The members of a cluster of one measurement: started on free ports of the loopback, each with an empty directory,
//! and ended.

use crate::server::{free_ports, spawn};
use braid::wire::proto::{MemberAddRequest, MemberAddResponse, PutRequest, PutResponse};
use bytes::Bytes;
use generator::call::call;
use std::io::{Error, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

const READY_WITHIN: Duration = Duration::from_secs(60);
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
const PAGE_WITHIN: Duration = Duration::from_millis(500);
const RETRY_AFTER: Duration = Duration::from_millis(20);
/// What an election and first connections stir up is over.
const PAUSE: Duration = Duration::from_millis(500);

/// Where a program and its network are.
#[derive(Clone, Default)]
pub struct Place {
    /// What the program is started by, where it is not started by itself.
    pub words: Vec<String>,
    /// For each member, behind what it needs.
    pub flags: Vec<String>,
}

struct Member {
    child: Child,
    client: SocketAddr,
    peer: SocketAddr,
}

/// Running members; dropping it kills the processes and removes their directories.
pub struct Cluster {
    program: PathBuf,
    directory: PathBuf,
    place: Place,
    members: Vec<Member>,
}

impl Cluster {
    /// Starts all members with etcd's flags.
    pub fn start(program: &Path, within: &Path, count: usize, place: Place) -> Result<Cluster> {
        let directory = within.join(format!("cluster-{}", std::process::id()));
        // A run that was killed may have left one under a process id that came again.
        if directory.exists() {
            std::fs::remove_dir_all(&directory)?;
        }
        let addresses: Vec<_> = (0..count).map(|_| free_ports()).collect::<Result<_>>()?;
        let mut cluster = Cluster { program: program.to_owned(), directory, place, members: Vec::new() };
        for at in 0..count {
            let (client, peer) = addresses[at];
            let child = cluster.spawn(at, &addresses, "new")?;
            cluster.members.push(Member { child, client, peer });
        }
        Ok(cluster)
    }

    fn spawn(&self, at: usize, addresses: &[(SocketAddr, SocketAddr)], state: &str) -> Result<Child> {
        let (client, peer) = addresses[at];
        let directory = self.directory.join(format!("m{at}"));
        std::fs::create_dir_all(&directory)?;
        let all: Vec<String> =
            addresses.iter().enumerate().map(|(at, (_, peer))| format!("m{at}=http://{peer}")).collect();
        let mut command = match self.place.words.split_first() {
            None => Command::new(&self.program),
            Some((first, others)) => {
                let mut command = Command::new(first);
                command.args(others).arg(&self.program);
                command
            }
        };
        command
            .args(["--name", &format!("m{at}")])
            .args(["--initial-cluster", &all.join(",")])
            .args(["--initial-advertise-peer-urls", &format!("http://{peer}")])
            .args(["--initial-cluster-state", state])
            .args(&self.place.flags);
        spawn(command, &directory, client, peer)
    }

    /// Waits until every member has taken a put.
    pub fn await_ready(&mut self) -> Result<()> {
        for at in 0..self.members.len() {
            self.await_put(at)?;
        }
        thread::sleep(PAUSE);
        Ok(())
    }

    pub fn await_put(&mut self, at: usize) -> Result<()> {
        let began = Instant::now();
        let request = PutRequest { key: Bytes::from_static(b"ready"), ..PutRequest::default() };
        loop {
            let to = self.members[at].client;
            let Err(problem) = call::<PutResponse>(to, "/etcdserverpb.KV/Put", &request, ANSWER_WITHIN)
            else {
                return Ok(());
            };
            let ended = self.members[at].child.try_wait()?;
            if ended.is_some() || began.elapsed() > READY_WITHIN {
                return Err(Error::other(format!("m{at} did not serve: {problem}\n{}", self.last_words(at))));
            }
            thread::sleep(RETRY_AFTER);
        }
    }

    fn last_words(&self, at: usize) -> String {
        let log = std::fs::read_to_string(self.directory.join(format!("m{at}/log"))).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }

    /// Waits until every member has said that it serves: where it is, nobody else may be heard.
    pub fn await_words(&self) -> Result<()> {
        let began = Instant::now();
        for at in 0..self.members.len() {
            let log = self.directory.join(format!("m{at}/log"));
            let says =
                || std::fs::read_to_string(&log).is_ok_and(|log| log.contains("ready to serve client"));
            while !says() {
                if began.elapsed() > READY_WITHIN {
                    return Err(Error::other(format!("m{at} did not serve:\n{}", self.last_words(at))));
                }
                thread::sleep(RETRY_AFTER);
            }
        }
        Ok(())
    }

    pub fn pids(&self) -> Vec<u32> {
        self.members.iter().map(|member| member.child.id()).collect()
    }

    pub fn clients(&self) -> Vec<SocketAddr> {
        self.members.iter().map(|member| member.client).collect()
    }

    /// Waits for one that says it leads.
    pub fn leader(&self) -> Result<usize> {
        let began = Instant::now();
        while began.elapsed() < READY_WITHIN {
            if let Some(leader) = (0..self.members.len()).find(|at| leads(self.members[*at].client)) {
                return Ok(leader);
            }
            thread::sleep(RETRY_AFTER);
        }
        Err(Error::other("nobody leads"))
    }

    /// Sends a signal by its name, as `kill` knows it.
    pub fn signal(&self, at: usize, name: &str) -> Result<()> {
        // It is this program's child and not waited for, so the number is still its own.
        let sent = Command::new("kill").args([name, &self.members[at].child.id().to_string()]).status()?;
        if sent.success() { Ok(()) } else { Err(Error::other(format!("no {name} for m{at}"))) }
    }

    /// Starts one again that was killed or asked to end.
    pub fn start_again(&mut self, at: usize) -> Result<()> {
        self.members[at].child.wait()?;
        let addresses: Vec<_> = self.members.iter().map(|member| (member.client, member.peer)).collect();
        self.members[at].child = self.spawn(at, &addresses, "new")?;
        self.await_put(at)
    }

    /// Starts an empty member more, as one that does not vote. Gives when it was started; it is not waited for.
    pub fn join(&mut self, leader: SocketAddr) -> Result<Instant> {
        let (client, peer) = free_ports()?;
        let request = MemberAddRequest { peer_urls: vec![format!("http://{peer}")], is_learner: true };
        let began = Instant::now();
        let add =
            || call::<MemberAddResponse>(leader, "/etcdserverpb.Cluster/MemberAdd", &request, ANSWER_WITHIN);
        // Members have to be connected for a while before another may come.
        while let Err(error) = add() {
            if began.elapsed() > READY_WITHIN {
                return Err(error);
            }
            thread::sleep(PAUSE);
        }
        let mut addresses: Vec<_> = self.members.iter().map(|member| (member.client, member.peer)).collect();
        addresses.push((client, peer));
        let child = self.spawn(addresses.len() - 1, &addresses, "existing")?;
        self.members.push(Member { child, client, peer });
        Ok(Instant::now())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            // One may have ended by itself, and a directory that stays does no harm.
            let _ = member.child.kill();
            let _ = member.child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn leads(address: SocketAddr) -> bool {
    let page = || {
        let mut stream = TcpStream::connect_timeout(&address, PAGE_WITHIN)?;
        stream.set_read_timeout(Some(PAGE_WITHIN))?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page).map(|_| page)
    };
    let page: Result<String> = page();
    page.is_ok_and(|page| page.contains("\netcd_server_is_leader 1\n"))
}
