//! The sockets that clients and other members come in by, and which reactor gets a client.

use super::connections::Party;
use super::{kernel, process};
use crate::config::Url;
use crate::io::Port;
use crate::limits::{CONNECTIONS_GATHERED_MIN, LISTEN_BACKLOG, LISTEN_RETRY_MS, LISTEN_TIMEOUT_MS};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub struct Listener {
    pub socket: TcpListener,
    pub port: Port,
    pub address: SocketAddr,
}

/// Listens on every URL; the error names the one that fails, in etcd's words.
pub fn listen(urls: &[Url], port: Port, reuse_port: bool) -> Result<Vec<Listener>, String> {
    let mut listeners: Vec<Listener> = Vec::new();
    for url in urls {
        let mut first: Option<u16> = None;
        let mut refused = None;
        for address in addresses(url) {
            // Port 0 is any free one, and the same for both families.
            let address = SocketAddr::new(address, first.unwrap_or(url.port()));
            match bind_patiently(address, port, reuse_port) {
                Ok(listener) => {
                    first = Some(listener.address.port());
                    listeners.push(listener);
                }
                // `localhost` is what the machine has of both families.
                Err(error) if address.is_ipv6() && is_absent(&error) => refused = Some((address, error)),
                Err(error) => return Err(why_not(address, port, &error)),
            }
        }
        if let (None, Some((address, error))) = (first, refused) {
            return Err(why_not(address, port, &error));
        }
    }
    Ok(listeners)
}

/// The error in etcd's words, and what to do.
fn why_not(address: SocketAddr, port: Port, error: &io::Error) -> String {
    let flags = match port {
        Port::Client => "--listen-client-urls and --advertise-client-urls",
        Port::Metrics => "--listen-metrics-urls",
        Port::Peer => "--listen-peer-urls and --initial-advertise-peer-urls",
    };
    let otherwise = match error.kind() {
        io::ErrorKind::AddrInUse => {
            let who = process::listens_on(address);
            let who = who
                .map_or_else(|| "another process".to_string(), |(name, pid)| format!("{name} (pid {pid})"));
            format!("{who} listens there: stop it, or choose another port with {flags}")
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("this machine has no such address: choose another one with {flags}")
        }
        io::ErrorKind::PermissionDenied => {
            format!("ports below 1024 are for who has the right: choose another one with {flags}")
        }
        _ => format!("choose another address with {flags}"),
    };
    format!("listen tcp {address}: bind: {}; {otherwise}", as_go_says(error))
}

/// etcd's words are Go's, and Go's those of C without their capital.
fn as_go_says(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "address already in use".to_string(),
        io::ErrorKind::AddrNotAvailable => "cannot assign requested address".to_string(),
        io::ErrorKind::PermissionDenied => "permission denied".to_string(),
        _ => error.to_string(),
    }
}

fn addresses(url: &Url) -> Vec<IpAddr> {
    match url.host().parse() {
        Ok(address) => vec![address],
        Err(_) => {
            assert!(url.host() == "localhost", "the configuration lets only addresses and localhost pass");
            vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
        }
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
        || error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

/// Binds, and tries again for a while: the kernel lets the sockets of a killed process with io_uring go a
/// moment after the process, so one that is started again at once finds them in use.
fn bind_patiently(address: SocketAddr, port: Port, reuse_port: bool) -> io::Result<Listener> {
    let give_up = Instant::now() + Duration::from_millis(LISTEN_TIMEOUT_MS);
    loop {
        match bind(address, port, reuse_port) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < give_up => {
                std::thread::sleep(Duration::from_millis(LISTEN_RETRY_MS));
            }
            done => return done,
        }
    }
}

fn bind(address: SocketAddr, port: Port, reuse_port: bool) -> io::Result<Listener> {
    let socket = if reuse_port { kernel::bind_beside(address)? } else { TcpListener::bind(address)? };
    match Party::of(port) {
        Party::Client => kernel::set_socket(socket.as_fd())?,
        Party::Peer => kernel::set_peer_socket(socket.as_fd())?,
    }
    kernel::listen(socket.as_fd(), LISTEN_BACKLOG)?;
    let address = socket.local_addr()?;
    Ok(Listener { socket, port, address })
}

/// How many clients' connections each reactor has: a new one goes to the one with the fewest. Other members'
/// connections are where they have to be, and do not count.
pub struct Loads(Box<[AtomicUsize]>);

impl Loads {
    pub fn new(reactors: usize) -> Loads {
        Loads((0..reactors).map(|_| AtomicUsize::new(0)).collect())
    }

    /// Chooses a reactor and counts the connection to it.
    pub fn assign(&self) -> usize {
        let fewest = (0..self.0.len()).min_by_key(|reactor| self.0[*reactor].load(Ordering::Relaxed));
        let reactor = fewest.expect("there is a reactor");
        self.0[reactor].fetch_add(1, Ordering::Relaxed);
        reactor
    }

    /// Counts a connection from one reactor to another, unless that one has enough of them: twice its share, and
    /// more than a few.
    pub fn moves(&self, from: usize, to: usize, party: Party) -> bool {
        if party == Party::Peer {
            return true;
        }
        let connections: usize = self.0.iter().map(|load| load.load(Ordering::Relaxed)).sum();
        let most = (2 * connections).div_ceil(self.0.len()).max(CONNECTIONS_GATHERED_MIN);
        let fits = self.0[to].load(Ordering::Relaxed) < most;
        if fits {
            self.left(from, party);
            self.0[to].fetch_add(1, Ordering::Relaxed);
        }
        fits
    }

    /// Counts a connection of this reactor that is gone.
    pub fn left(&self, reactor: usize, party: Party) {
        if party == Party::Client {
            let before = self.0[reactor].fetch_sub(1, Ordering::Relaxed);
            assert!(before > 0, "who leaves was counted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn localhost_is_one_port_in_every_family_there_is() {
        let listeners = listen(&[url("http://localhost:0")], Port::Client, false).unwrap();
        assert!(listeners.iter().any(|listener| listener.address.is_ipv4()));
        assert!(listeners.iter().all(|listener| listener.address.port() == listeners[0].address.port()));
        assert!(listeners[0].address.port() > 0);
    }

    #[test]
    fn a_port_in_use_is_refused_by_name() {
        let held = listen(&[url("http://127.0.0.1:0")], Port::Client, false).unwrap();
        let taken = url(&format!("http://{}", held[0].address));
        let error = listen(&[taken], Port::Metrics, false).err().unwrap();
        assert!(
            error.contains(&format!("listen tcp {}: bind: address already in use; ", held[0].address)),
            "{error}"
        );
        assert!(error.contains(&format!("(pid {}) listens there", std::process::id())), "{error}");
        assert!(error.contains("--listen-metrics-urls"), "{error}");
    }

    #[test]
    fn two_that_share_a_port_both_have_it() {
        for host in ["127.0.0.1", "[::1]"] {
            let any = url(&format!("http://{host}:0"));
            let Ok(first) = listen(&[any], Port::Client, true) else { continue };
            let shared = url(&format!("http://{}", first[0].address));
            let second = listen(std::slice::from_ref(&shared), Port::Client, true).unwrap();
            assert_eq!(second[0].address, first[0].address);
            assert!(listen(&[shared], Port::Client, false).is_err(), "who does not share is refused");
        }
    }

    #[test]
    fn a_port_that_comes_free_in_a_moment_is_waited_for() {
        let held = listen(&[url("http://127.0.0.1:0")], Port::Client, false).unwrap();
        let taken = url(&format!("http://{}", held[0].address));
        let other = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(5 * LISTEN_RETRY_MS));
            drop(held);
        });
        assert!(listen(&[taken], Port::Client, false).is_ok());
        other.join().unwrap();
    }

    #[test]
    fn connections_go_where_there_are_fewest() {
        let loads = Loads::new(3);
        let mut first: Vec<usize> = (0..3).map(|_| loads.assign()).collect();
        first.sort();
        assert_eq!(first, [0, 1, 2]);
        loads.left(1, Party::Peer);
        loads.left(1, Party::Client);
        assert_eq!(loads.assign(), 1);
    }

    #[test]
    fn connections_gather_up_to_twice_a_reactors_share() {
        let counts =
            |loads: &Loads| loads.0.iter().map(|load| load.load(Ordering::Relaxed)).collect::<Vec<_>>();
        let loads = Loads::new(4);
        (0..40).for_each(|_| _ = loads.assign());
        let moved = (0..30).filter(|round| loads.moves(1 + round % 3, 0, Party::Client)).count();
        assert_eq!((moved, counts(&loads)), (10, vec![20, 6, 7, 7]));
        assert!(loads.moves(1, 0, Party::Peer), "a member's connection goes where it has to");
        assert_eq!(counts(&loads), [20, 6, 7, 7]);
        let few = Loads::new(4);
        (0..8).for_each(|_| _ = few.assign());
        assert!((1..4).all(|from| few.moves(from, 0, Party::Client) && few.moves(from, 0, Party::Client)));
        assert_eq!(counts(&few), [8, 0, 0, 0], "a few may gather in any case");
    }
}
