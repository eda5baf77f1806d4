//! Members of a cluster as processes: started, killed, stopped, started again.

use super::network::Network;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// Anything that is waited for is a matter of moments; what has not come within this never will.
const NEVER: Duration = Duration::from_secs(60);
/// How long a page may take. One without a leader may say nothing.
const PAGE_WITHIN: Duration = Duration::from_millis(500);
const CLIENTS: u16 = 2379;
const PEERS: u16 = 2380;

/// Looks again until it is so. The error says what never is: a program that ends where it panics would leave
/// processes, networks and mounts behind.
pub fn until(what: impl Fn() -> String, mut holds: impl FnMut() -> bool) -> Result<(), String> {
    let began = Instant::now();
    while !holds() {
        if began.elapsed() > NEVER {
            return Err(what());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

pub struct Member {
    pub name: String,
    pub client: SocketAddr,
    pub peer_url: String,
    pub directory: PathBuf,
    log: PathBuf,
    words: Vec<String>,
    child: Option<Child>,
    is_paused: bool,
}

/// The members of one cluster, and those that may join it. Dropping it ends their processes.
pub struct Members {
    all: Vec<Member>,
    /// Who is one now, and how many have ever been.
    present: BTreeSet<usize>,
    ever: usize,
}

/// A cluster, with all that join it, has as many addresses.
pub const PLACES_MAX: usize = 8;

/// Addresses of the loopback that no other cluster of this machine has: a member keeps its ports while it is down.
fn addresses(members: usize) -> Vec<Ipv4Addr> {
    static CLUSTERS: AtomicU8 = AtomicU8::new(0);
    let cluster = CLUSTERS.fetch_add(1, Ordering::Relaxed);
    let [.., high, low] = std::process::id().to_be_bytes();
    assert!(members <= PLACES_MAX, "{members} members have no addresses");
    let first = usize::from(cluster) * PLACES_MAX % 248;
    // 127.0.0.0/24 is everybody's.
    (1..=members).map(|at| Ipv4Addr::new(127, high.max(1), low, (first + at) as u8)).collect()
}

impl Members {
    /// None is started. Each keeps its data in a directory of `root`, which need not be there. Behind the founders there
    /// are so many that may join.
    pub fn new(
        program: &Path,
        root: &Path,
        (founders, spares): (usize, usize),
        flags: &[&str],
        network: Option<&Network>,
    ) -> Members {
        let count = founders + spares;
        let addresses = network.map_or_else(|| addresses(count), Network::addresses);
        let url = |at: usize, port| format!("http://{}", SocketAddr::from((addresses[at], port)));
        let all: Vec<String> = (0..founders).map(|at| format!("m{at}={}", url(at, PEERS))).collect();
        let member = |at: usize| {
            let directory = root.join(format!("m{at}"));
            let mut words = network.map_or(vec![], |network| network.words(at));
            words.push(program.display().to_string());
            words.extend([
                format!("--name=m{at}"),
                format!("--data-dir={}", directory.display()),
                format!("--listen-client-urls={}", url(at, CLIENTS)),
                format!("--advertise-client-urls={}", url(at, CLIENTS)),
                format!("--listen-peer-urls={}", url(at, PEERS)),
                format!("--initial-advertise-peer-urls={}", url(at, PEERS)),
                format!("--initial-cluster={}", all.join(",")),
                // Members need not be alike.
                format!("--reactors={}", at % 2 + 1),
            ]);
            words.extend(flags.iter().map(ToString::to_string));
            let log = root.join(format!("m{at}.log"));
            let client = SocketAddr::from((addresses[at], CLIENTS));
            let (name, peer_url) = (format!("m{at}"), url(at, PEERS));
            Member { name, client, peer_url, directory, log, words, child: None, is_paused: false }
        };
        let present = (0..founders).collect();
        Members { all: (0..count).map(member).collect(), present, ever: founders }
    }

    /// Of those that are members now.
    pub fn places(&self) -> Vec<usize> {
        self.present.iter().copied().collect()
    }

    pub fn all_places(&self) -> std::ops::Range<usize> {
        0..self.all.len()
    }

    /// Who may join next.
    pub fn spare(&self) -> Option<usize> {
        Some(self.ever).filter(|at| *at < self.all.len())
    }

    /// The next spare one was added: it starts as one of these, by name and URL.
    pub fn join(&mut self, list: &[(String, String)]) {
        let at = self.ever;
        let all: Vec<String> = list.iter().map(|(name, url)| format!("{name}={url}")).collect();
        let words = &mut self.all[at].words;
        words.retain(|word| !word.starts_with("--initial-cluster"));
        words.push(format!("--initial-cluster={}", all.join(",")));
        words.push("--initial-cluster-state=existing".to_owned());
        self.present.insert(at);
        self.ever += 1;
        self.start(at);
    }

    /// It was removed, and ends by itself.
    pub fn retire(&mut self, at: usize) -> Result<(), String> {
        self.present.remove(&at);
        let member = &mut self.all[at];
        until(|| "a member that was removed does not end".to_owned(), || !member.is_up())
    }

    pub fn member(&self, at: usize) -> &Member {
        &self.all[at]
    }

    pub fn member_mut(&mut self, at: usize) -> &mut Member {
        &mut self.all[at]
    }

    pub fn clients(&self) -> Vec<SocketAddr> {
        self.all.iter().map(|member| member.client).collect()
    }

    pub fn start(&mut self, at: usize) {
        self.all[at].start();
    }

    pub fn start_all(&mut self) {
        self.places().into_iter().for_each(|at| self.start(at));
    }

    /// Starts whoever has ended or was never started.
    pub fn start_those_down(&mut self) {
        for at in self.places() {
            if !self.all[at].is_up() {
                self.start(at);
            }
        }
    }

    /// The one that says it leads.
    pub fn leader(&self) -> Option<usize> {
        self.places().into_iter().find(|at| self.all[*at].leads())
    }

    pub fn await_leader(&self) -> Result<usize, String> {
        let mut leader = None;
        until(
            || format!("nobody leads; {}", self.last_words()),
            || {
                leader = self.leader();
                leader.is_some()
            },
        )?;
        Ok(leader.expect("it was waited for"))
    }

    /// Waits until every member serves.
    pub fn await_all(&self) -> Result<(), String> {
        for member in self.places().into_iter().map(|at| &self.all[at]) {
            until(|| format!("{} does not serve; {}", member.name, self.last_words()), || member.serves())?;
        }
        Ok(())
    }

    pub fn last_words(&self) -> String {
        self.all.iter().map(|member| format!("{}:\n{}\n", member.name, member.last_words())).collect()
    }
}

impl Member {
    fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs", self.name);
        let child = self.spawn(&self.words).expect("the program can be started");
        self.child = Some(child);
    }

    fn spawn(&self, words: &[String]) -> io::Result<Child> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()
    }

    /// From the next start on.
    pub fn keep_data_in(&mut self, directory: PathBuf) {
        let flag = |directory: &Path| format!("--data-dir={}", directory.display());
        let before = flag(&self.directory);
        self.words.iter_mut().filter(|word| **word == before).for_each(|word| *word = flag(&directory));
        self.directory = directory;
    }

    /// Its own command, with another directory, as a process beside its own.
    pub fn start_beside(&self, directory: &Path) -> Child {
        let own = format!("--data-dir={}", self.directory.display());
        let other = format!("--data-dir={}", directory.display());
        let word = |word: &String| match word.strip_prefix("--listen-client-urls=") {
            _ if *word == own => other.clone(),
            Some(_) => "--listen-client-urls=http://127.0.0.1:0".to_owned(),
            None if word.starts_with("--listen-peer-urls=") => "--listen-peer-urls=http://127.0.0.1:0".into(),
            None => word.clone(),
        };
        self.spawn(&self.words.iter().map(word).collect::<Vec<_>>()).expect("the program can be started")
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.pid().to_string()]).status();
        assert!(sent.is_ok_and(|sent| sent.success()), "{name} to {}", self.name);
    }

    /// Whether its process is there. One that has ended by itself is not.
    pub fn is_up(&mut self) -> bool {
        if let Some(child) = &mut self.child
            && child.try_wait().expect("it is our child").is_some()
        {
            self.child = None;
        }
        self.child.is_some()
    }

    /// As a power cut ends it, as far as the process goes.
    pub fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // One that has ended by itself is as dead.
        let _ = child.kill();
        let _ = child.wait();
        self.is_paused = false;
    }

    /// Ends it as its operator does.
    pub fn terminate(&mut self) -> Result<(), String> {
        if !self.is_up() {
            return Ok(());
        }
        self.signal("-TERM");
        let mut ended = None;
        until(
            || format!("{} does not end", self.name),
            || {
                let child = self.child.as_mut().expect("it runs");
                ended = child.try_wait().expect("it is our child");
                ended.is_some()
            },
        )?;
        self.child = None;
        let died_of = ended.and_then(|status| status.signal());
        // As etcd does, of the signal that it was stopped by.
        if died_of == Some(15) { Ok(()) } else { Err(format!("{} died of {died_of:?}", self.name)) }
    }

    pub fn pause(&mut self) {
        self.signal("-STOP");
        self.is_paused = true;
    }

    pub fn go_on(&mut self) {
        self.is_paused = false;
        if self.is_up() {
            self.signal("-CONT");
        }
    }

    fn leads(&self) -> bool {
        self.page("/metrics").is_some_and(|page| page.contains("\netcd_server_is_leader 1\n"))
    }

    pub fn serves(&self) -> bool {
        self.page("/health").is_some_and(|page| page.starts_with("HTTP/1.1 200 "))
    }

    fn page(&self, path: &str) -> Option<String> {
        if self.child.is_none() || self.is_paused {
            return None;
        }
        let mut stream = TcpStream::connect_timeout(&self.client, PAGE_WITHIN).ok()?;
        stream.set_read_timeout(Some(PAGE_WITHIN)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}
