//! Attempts to connect to other members: of each the reactor is told the end once, in bounded time.
//!
//! ```text
//!             addresses             connected
//!   LookingUp ────────▶ Connecting ──────────▶ told, with its socket
//!       │                 │    ▲ │
//!       │                 │    └─┘ refused, or too long: the next address
//!       └── time is up, or none is left: told why ──▶ (GivenUp, while the kernel still connects) ──▶ free
//! ```

#![allow(unsafe_code)]

use super::kernel::{self, SocketName};
use super::ring::{Ring, Tag};
use crate::config::Url;
use crate::io::DialId;
use crate::limits::DIAL_MS_MAX;
use crate::types::{Duration, Time};
use std::collections::VecDeque;
use std::io::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

/// How an attempt has ended.
#[derive(Debug)]
pub struct DialEnd {
    pub dial: DialId,
    pub connected: Result<OwnedFd, String>,
}

/// A name whose addresses are to be found for an attempt.
#[derive(Debug, PartialEq, Eq)]
pub struct Lookup {
    pub dial: DialId,
    pub name: String,
}

/// All attempts of one thread.
#[derive(Default)]
pub struct Dials {
    /// By the place that the ring knows them by.
    attempts: Vec<Option<Attempt>>,
    ended: VecDeque<DialEnd>,
}

struct Attempt {
    dial: DialId,
    port: u16,
    /// When it ends, whatever happens.
    until: Time,
    /// What has come of the addresses tried so far.
    why: String,
    phase: DialPhase,
}

enum DialPhase {
    LookingUp,
    Connecting {
        connecting: Connecting,
        /// When the next address is tried instead.
        until: Time,
        addresses: VecDeque<IpAddr>,
    },
    /// The reactor has been told, but the kernel still has what it was given.
    GivenUp {
        _connecting: Connecting,
    },
}

/// What the kernel uses until the request to connect has come back.
struct Connecting {
    socket: OwnedFd,
    address: SocketAddr,
    /// In a box of its own: it does not move.
    _name: Box<SocketName>,
}

impl Dials {
    /// Begins an attempt. Where a name is returned, [`Dials::found`] goes on with it.
    pub fn dial(&mut self, ring: &mut Ring, now: Time, dial: DialId, url: &str) -> Option<Lookup> {
        let url = match Url::parse(url) {
            Ok(url) => url,
            Err(why) => {
                self.ended.push_back(DialEnd { dial, connected: Err(why) });
                return None;
            }
        };
        let (port, until) = (url.port(), now + Duration::from_ms(DIAL_MS_MAX));
        let attempt = Attempt { dial, port, until, why: String::new(), phase: DialPhase::LookingUp };
        self.insert(attempt);
        match addresses(url.host()) {
            Some(addresses) => {
                self.found(ring, now, dial, Ok(addresses));
                None
            }
            None => Some(Lookup { dial, name: url.host().to_owned() }),
        }
    }

    fn insert(&mut self, attempt: Attempt) {
        match self.attempts.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(attempt),
            None => self.attempts.push(Some(attempt)),
        }
    }

    /// Goes on with an attempt whose name has these addresses. One that has ended meanwhile takes no notice.
    pub fn found(
        &mut self,
        ring: &mut Ring,
        now: Time,
        dial: DialId,
        addresses: Result<Vec<IpAddr>, String>,
    ) {
        let waits = |attempt: &Attempt| attempt.dial == dial && matches!(attempt.phase, DialPhase::LookingUp);
        let place = self.attempts.iter().position(|attempt| attempt.as_ref().is_some_and(waits));
        let Some(place) = place else { return };
        match addresses {
            Ok(addresses) => self.try_next(ring, now, place, addresses.into()),
            Err(why) => self.fail(place, why),
        }
    }

    /// Connects to the next address that lets itself be tried.
    fn try_next(&mut self, ring: &mut Ring, now: Time, place: usize, mut addresses: VecDeque<IpAddr>) {
        let attempt = self.attempts[place].as_mut().expect("the caller has it");
        while let Some(address) = addresses.pop_front() {
            let address = SocketAddr::new(address, attempt.port);
            let socket = match kernel::tcp_socket(address) {
                Ok(socket) => socket,
                Err(error) => {
                    attempt.failed(address, &error);
                    continue;
                }
            };
            if let Err(error) = kernel::set_peer_socket(socket.as_fd()) {
                attempt.failed(address, &error);
                continue;
            }
            let name = Box::new(SocketName::of(address));
            // SAFETY: the name lies in a box that is dropped when the request has come back.
            unsafe { ring.connect(place as u32, socket.as_fd(), &name) };
            let share = attempt.until.since(now).0 / (addresses.len() as u64 + 1);
            let until = now + Duration(share);
            let connecting = Connecting { socket, address, _name: name };
            attempt.phase = DialPhase::Connecting { connecting, until, addresses };
            return;
        }
        let why = std::mem::take(&mut attempt.why);
        self.fail(place, why);
    }

    /// Ends an attempt of which the kernel has nothing.
    fn fail(&mut self, place: usize, why: String) {
        let attempt = self.attempts[place].take().expect("the caller has it");
        self.ended.push_back(DialEnd { dial: attempt.dial, connected: Err(why) });
    }

    /// Takes a request to connect that has come back.
    pub fn connected(&mut self, ring: &mut Ring, now: Time, place: u32, result: i32) {
        let place = place as usize;
        let attempt =
            self.attempts[place].as_mut().expect("a place stays taken until its request has come back");
        let phase = std::mem::replace(&mut attempt.phase, DialPhase::LookingUp);
        let (connecting, addresses) = match phase {
            DialPhase::Connecting { connecting, addresses, .. } => (connecting, addresses),
            DialPhase::GivenUp { .. } => {
                self.attempts[place] = None;
                return;
            }
            DialPhase::LookingUp => unreachable!("nothing is asked of the kernel while a name is looked up"),
        };
        let done = match result {
            0.. => usable(&connecting.socket),
            error if error == -libc::ECANCELED => Err(Error::from_raw_os_error(libc::ETIMEDOUT)),
            error => Err(Error::from_raw_os_error(-error)),
        };
        match done {
            Ok(()) => {
                let attempt = self.attempts[place].take().expect("it was there above");
                self.ended.push_back(DialEnd { dial: attempt.dial, connected: Ok(connecting.socket) });
            }
            Err(error) => {
                attempt.failed(connecting.address, &error);
                self.try_next(ring, now, place, addresses);
            }
        }
    }

    /// When [`Dials::on_time`] has something to do.
    pub fn wake_at(&self) -> Time {
        self.attempts.iter().flatten().map(Attempt::due).min().unwrap_or(Time::NEVER)
    }

    /// Gives up addresses that have had their time, and attempts.
    pub fn on_time(&mut self, ring: &mut Ring, now: Time) {
        for place in 0..self.attempts.len() {
            let Some(attempt) = self.attempts[place].as_mut().filter(|attempt| attempt.due() <= now) else {
                continue;
            };
            match std::mem::replace(&mut attempt.phase, DialPhase::LookingUp) {
                DialPhase::LookingUp => self.fail(place, "its name is not found in time".to_owned()),
                DialPhase::Connecting { connecting, addresses, .. } if attempt.until > now => {
                    ring.cancel(Tag::Connect(place as u32));
                    // What comes of it decides, at the latest with the attempt's own end.
                    let until = attempt.until;
                    attempt.phase = DialPhase::Connecting { connecting, until, addresses };
                }
                DialPhase::Connecting { connecting, .. } => {
                    ring.cancel(Tag::Connect(place as u32));
                    attempt.failed(connecting.address, &Error::from_raw_os_error(libc::ETIMEDOUT));
                    attempt.phase = DialPhase::GivenUp { _connecting: connecting };
                    let (dial, why) = (attempt.dial, std::mem::take(&mut attempt.why));
                    self.ended.push_back(DialEnd { dial, connected: Err(why) });
                }
                DialPhase::GivenUp { .. } => unreachable!("it is due no more"),
            }
        }
    }

    /// The next attempt that has ended.
    pub fn take_ended(&mut self) -> Option<DialEnd> {
        self.ended.pop_front()
    }
}

impl Attempt {
    fn failed(&mut self, address: SocketAddr, error: &Error) {
        let link = if self.why.is_empty() { "" } else { "; " };
        self.why += &format!("{link}dial tcp {address}: {error}");
    }

    fn due(&self) -> Time {
        match &self.phase {
            DialPhase::LookingUp => self.until,
            DialPhase::Connecting { until, .. } => *until,
            DialPhase::GivenUp { .. } => Time::NEVER,
        }
    }
}

fn usable(socket: &OwnedFd) -> Result<(), Error> {
    match kernel::is_its_own_peer(socket)? {
        true => Err(Error::from_raw_os_error(libc::ECONNREFUSED)),
        false => Ok(()),
    }
}

/// The addresses of a host that need no look-up: `localhost` is what it is to listeners.
fn addresses(host: &str) -> Option<Vec<IpAddr>> {
    match host.parse() {
        Ok(address) => Some(vec![address]),
        Err(_) if host == "localhost" => Some(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    const START: Time = Time(1_000_000);
    const END: Time = Time(START.0 + DIAL_MS_MAX * 1_000_000);

    struct Scene {
        ring: Ring,
        dials: Dials,
    }

    impl Scene {
        fn new() -> Scene {
            Scene { ring: Ring::new_patiently().unwrap(), dials: Dials::default() }
        }

        fn dial(&mut self, url: &str) -> Option<Lookup> {
            self.dials.dial(&mut self.ring, START, DialId(5), url)
        }

        /// Takes a completion at this moment, if one comes in time.
        fn turn(&mut self, now: Time) {
            let mut came = vec![];
            self.ring.park(Some(Duration::from_secs(20)));
            self.ring.reap(8, &mut came);
            for completion in came {
                if let Tag::Connect(place) = completion.tag {
                    self.dials.connected(&mut self.ring, now, place, completion.result);
                }
            }
        }

        fn ended(&mut self, now: Time) -> DialEnd {
            for _ in 0..10 {
                if let Some(ended) = self.dials.take_ended() {
                    return ended;
                }
                self.turn(now);
            }
            panic!("it ends");
        }

        fn is_free(&self) -> bool {
            self.dials.attempts.iter().all(Option::is_none) && self.dials.ended.is_empty()
        }
    }

    /// A listener with a full queue: who connects to it waits.
    fn deaf() -> (TcpListener, Vec<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        kernel::listen(listener.as_fd(), 0).unwrap();
        let address = listener.local_addr().unwrap();
        let short = std::time::Duration::from_millis(100);
        let connect = |_| TcpStream::connect_timeout(&address, short);
        let held = (0..64).map_while(|at| connect(at).ok()).collect();
        (listener, held)
    }

    fn port(listener: &TcpListener) -> u16 {
        listener.local_addr().unwrap().port()
    }

    #[test]
    fn who_listens_is_connected_to() {
        for (bound, host) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "[::1]"), ("[::1]:0", "localhost")] {
            let Ok(listener) = TcpListener::bind(bound) else { continue };
            let mut scene = Scene::new();
            assert_eq!(scene.dial(&format!("http://{host}:{}", port(&listener))), None);
            let ended = scene.ended(START);
            let mut stream = TcpStream::from(ended.connected.unwrap());
            assert!(ended.dial == DialId(5) && scene.is_free() && stream.nodelay().unwrap());
            stream.write_all(b"hello").unwrap();
            drop(stream);
            let mut read = String::new();
            listener.accept().unwrap().0.read_to_string(&mut read).unwrap();
            assert_eq!(read, "hello");
        }
    }

    #[test]
    fn a_name_is_looked_up_and_its_addresses_tried_in_order() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut scene = Scene::new();
        let url = format!("http://m1.example:{}", port(&listener));
        let lookup = scene.dial(&url).unwrap();
        assert_eq!(lookup, Lookup { dial: DialId(5), name: "m1.example".into() });
        let found: Vec<IpAddr> = ["127.0.0.2", "127.0.0.1"].map(|address| address.parse().unwrap()).into();
        scene.dials.found(&mut scene.ring, START, DialId(5), Ok(found));
        let stream = TcpStream::from(scene.ended(START).connected.unwrap());
        assert_eq!(stream.peer_addr().unwrap(), listener.local_addr().unwrap());
        assert!(scene.is_free());
    }

    #[test]
    fn what_fails_says_why() {
        let closed = port(&TcpListener::bind("127.0.0.1:0").unwrap());
        let mut scene = Scene::new();
        for (url, words) in [
            (
                format!("http://127.0.0.1:{closed}"),
                format!("dial tcp 127.0.0.1:{closed}: Connection refused"),
            ),
            ("http://m1".into(), "does not have the form".into()),
            ("https://m1:1".into(), "TLS is not built yet".into()),
        ] {
            assert_eq!(scene.dial(&url), None);
            let why = scene.ended(START).connected.unwrap_err();
            assert!(why.contains(&words) && scene.is_free(), "{why}");
        }
        scene.dial("http://m1:1").unwrap();
        scene.dials.found(&mut scene.ring, START, DialId(5), Err("lookup m1: no".into()));
        assert_eq!(scene.ended(START).connected.unwrap_err(), "lookup m1: no");
        assert!(scene.is_free());
    }

    #[test]
    fn who_does_not_answer_is_given_up_in_time_and_once() {
        let (listener, _held) = deaf();
        let mut scene = Scene::new();
        scene.dial(&format!("http://{}", listener.local_addr().unwrap()));
        assert_eq!(scene.dials.wake_at(), END);
        scene.dials.on_time(&mut scene.ring, Time(END.0 - 1));
        assert!(scene.dials.take_ended().is_none());
        scene.dials.on_time(&mut scene.ring, END);
        let why = scene.dials.take_ended().unwrap().connected.unwrap_err();
        assert!(why.contains("timed out"), "{why}");
        assert!(!scene.is_free() && scene.dials.wake_at() == Time::NEVER, "the kernel still connects");
        (0..3).for_each(|_| {
            if !scene.is_free() {
                scene.turn(END)
            }
        });
        assert!(scene.is_free());
    }

    #[test]
    fn an_address_that_does_not_answer_gives_way_to_the_next() {
        let (deaf, _held) = deaf();
        let mut scene = Scene::new();
        scene.dial(&format!("http://m1:{}", port(&deaf))).unwrap();
        let listener = TcpListener::bind(("127.0.0.2", port(&deaf))).unwrap();
        let found: Vec<IpAddr> = ["127.0.0.1", "127.0.0.2"].map(|address| address.parse().unwrap()).into();
        scene.dials.found(&mut scene.ring, START, DialId(5), Ok(found));
        let half = scene.dials.wake_at();
        assert!(START < half && half < END);
        scene.dials.on_time(&mut scene.ring, half);
        let stream = TcpStream::from(scene.ended(half).connected.unwrap());
        assert_eq!(stream.peer_addr().unwrap(), listener.local_addr().unwrap());
        assert!(scene.is_free());
    }

    #[test]
    fn a_name_that_is_not_found_in_time_fails_and_its_answer_means_nothing() {
        let mut scene = Scene::new();
        scene.dial("http://m1:1").unwrap();
        scene.dials.on_time(&mut scene.ring, END);
        assert!(scene.dials.take_ended().unwrap().connected.unwrap_err().contains("not found in time"));
        scene.dials.found(&mut scene.ring, END, DialId(5), Ok(vec![Ipv4Addr::LOCALHOST.into()]));
        assert!(scene.is_free());
    }
}
