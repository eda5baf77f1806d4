//! A network of its own for each member, with a router between them that drops what it is told to: packets go in
//! one direction, or neither, and nobody is told.
//!
//! It needs `ip` (iproute2), `nsenter` and the right to make network namespaces.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

/// The router's own namespace, in which the clients are, and one for each member.
#[derive(Debug)]
pub struct Network {
    name: String,
    members: usize,
}

/// Why a command has failed.
fn ip(words: &str) -> Result<(), String> {
    let mut command = Command::new("ip");
    command.args(words.split(' ')).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let output = command.output().map_err(|error| format!("ip: {error}"))?;
    let why = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("ip {words}: {}", why.trim())) }
}

/// Addresses that are nobody's: those of documentation. The router has the one before.
fn address(at: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, 4 * at as u8 + 2)
}

impl Network {
    /// Errors say what the machine does not allow.
    pub fn new(members: usize) -> Result<Network, String> {
        static NETWORKS: AtomicU8 = AtomicU8::new(0);
        let number = NETWORKS.fetch_add(1, Ordering::Relaxed);
        let network = Network { name: format!("braid-{}-{number}", std::process::id()), members };
        network.make()?;
        Ok(network)
    }

    fn make(&self) -> Result<(), String> {
        let router = self.router();
        ip(&format!("netns add {router}"))?;
        ip(&format!("-n {router} link set lo up"))?;
        for at in 0..self.members {
            let (of, own) = (self.of(at), address(at));
            let before = Ipv4Addr::from(u32::from(own) - 1);
            ip(&format!("netns add {of}"))?;
            ip(&format!("-n {of} link set lo up"))?;
            ip(&format!("-n {router} link add m{at} type veth peer name eth0 netns {of}"))?;
            ip(&format!("-n {router} addr add {before}/30 dev m{at}"))?;
            ip(&format!("-n {router} link set m{at} up"))?;
            ip(&format!("-n {of} addr add {own}/30 dev eth0"))?;
            ip(&format!("-n {of} link set eth0 up"))?;
            ip(&format!("-n {of} route add default via {before}"))?;
        }
        Ok(())
    }

    fn router(&self) -> String {
        format!("{}-r", self.name)
    }

    fn of(&self, at: usize) -> String {
        format!("{}-{at}", self.name)
    }

    pub fn addresses(&self) -> Vec<Ipv4Addr> {
        (0..self.members).map(address).collect()
    }

    /// The words that have a member's command run where it is.
    ///
    /// `ip netns exec` would give it mounts of its own as well, and so hold what is unmounted here.
    pub fn words(&self, at: usize) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--net=/run/netns/{}", self.of(at))]
    }

    /// Drops what one sends to another from now on.
    pub fn cut(&self, from: usize, to: usize) {
        self.rule("add", from, to).expect("the router takes rules");
    }

    pub fn mend(&self, from: usize, to: usize) {
        self.rule("del", from, to).expect("the rule is there");
    }

    fn rule(&self, what: &str, from: usize, to: usize) -> Result<(), String> {
        let (router, from, to) = (self.router(), address(from), address(to));
        ip(&format!("-n {router} rule {what} from {from} to {to} blackhole"))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // What was never made need not go.
        for name in (0..self.members).map(|at| self.of(at)).chain([self.router()]) {
            let _ = ip(&format!("netns del {name}"));
        }
    }
}

/// Runs on a thread of its own that is, with all that it starts, where the router is. Errors say why there is no
/// network.
pub fn in_a_network<T: Send>(members: usize, run: impl FnOnce(&Network) -> T + Send) -> Result<T, String> {
    let network = Network::new(members)?;
    std::thread::scope(|scope| {
        let there = scope.spawn(|| {
            enter(&network.router())?;
            let forward = "/proc/sys/net/ipv4/ip_forward";
            std::fs::write(forward, "1").map_err(|error| format!("{forward}: {error}"))?;
            Ok(run(&network))
        });
        there.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Moves this thread there. Threads and processes that it starts are there as well.
#[allow(unsafe_code, reason = "std has no safe way to enter a namespace")]
fn enter(name: &str) -> Result<(), String> {
    use std::os::fd::AsRawFd;
    let path = format!("/run/netns/{name}");
    let namespace = std::fs::File::open(&path).map_err(|error| format!("{path}: {error}"))?;
    // SAFETY: the file is open, and the call touches no memory of ours.
    match unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(format!("{path}: {}", std::io::Error::last_os_error())),
    }
}
