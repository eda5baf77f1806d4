//! The addresses behind the names of other members, looked up off the reactors: the system's resolver blocks, for as
//! long as it likes.
//!
//! Each name that is asked for is looked up by a thread of its own, which ends with it; who asks for it meanwhile
//! gets the same answer.

use super::wakers::Wakers;
use crate::io::DialId;
use crate::limits::LOOKUPS_MAX;
use crate::types::ReactorId;
use crossbeam::queue::SegQueue;
use std::collections::BTreeMap;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;

/// What was found for an attempt to connect: addresses, or why there are none.
pub struct Found {
    pub dial: DialId,
    pub addresses: Result<Vec<IpAddr>, String>,
}

pub struct Names {
    /// Who waits for each name that is being looked up.
    waiting: Mutex<BTreeMap<String, Vec<(ReactorId, DialId)>>>,
    found: Box<[SegQueue<Found>]>,
    wakers: Arc<Wakers>,
}

impl Names {
    pub fn new(wakers: Arc<Wakers>) -> Names {
        let found = (0..wakers.reactors()).map(|_| SegQueue::new()).collect();
        Names { waiting: Mutex::default(), found, wakers }
    }

    /// Has a name looked up for an attempt of a reactor; [`Names::found`] gives the answer, in its time.
    pub fn look_up(self: &Arc<Names>, name: &str, reactor: ReactorId, dial: DialId) -> Result<(), String> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(others) = waiting.get_mut(name) {
            others.push((reactor, dial));
            return Ok(());
        }
        if waiting.len() >= LOOKUPS_MAX {
            return Err(format!("{LOOKUPS_MAX} other names are being looked up"));
        }
        let (names, wanted) = (self.clone(), name.to_owned());
        let look = move || names.answer(&wanted, look_up(&wanted));
        let started = Builder::new().name("lookup".to_owned()).spawn(look);
        started.map_err(|error| format!("cannot start a thread: {error}"))?;
        waiting.insert(name.to_owned(), vec![(reactor, dial)]);
        Ok(())
    }

    fn answer(&self, name: &str, addresses: Result<Vec<IpAddr>, String>) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        for (reactor, dial) in waiting.into_iter().flatten() {
            self.found[usize::from(reactor.0)].push(Found { dial, addresses: addresses.clone() });
            self.wakers.notify(reactor);
        }
    }

    /// The next answer for a reactor.
    pub fn found(&self, reactor: ReactorId) -> Option<Found> {
        self.found[usize::from(reactor.0)].pop()
    }

    pub fn has_nothing_for(&self, reactor: ReactorId) -> bool {
        self.found[usize::from(reactor.0)].is_empty()
    }
}

fn look_up(name: &str) -> Result<Vec<IpAddr>, String> {
    let found = (name, 0).to_socket_addrs().map_err(|error| format!("lookup {name}: {error}"))?;
    let addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
    if addresses.is_empty() { Err(format!("lookup {name}: it has no address")) } else { Ok(addresses) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn found(names: &Names, reactor: ReactorId) -> Found {
        let begun = Instant::now();
        loop {
            if let Some(found) = names.found(reactor) {
                return found;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "an answer comes");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn who_asks_is_answered_once() {
        let names = Arc::new(Names::new(Arc::new(Wakers::new(2).unwrap())));
        for dial in 0..3 {
            names.look_up("localhost", ReactorId(1), DialId(dial)).unwrap();
        }
        let mut answered: Vec<DialId> = (0..3)
            .map(|_| {
                let found = found(&names, ReactorId(1));
                assert!(found.addresses.unwrap().iter().all(IpAddr::is_loopback));
                found.dial
            })
            .collect();
        answered.sort();
        assert_eq!(answered, [DialId(0), DialId(1), DialId(2)]);
        assert!(names.has_nothing_for(ReactorId(0)) && names.has_nothing_for(ReactorId(1)));
    }

    #[test]
    fn a_name_without_an_address_is_an_answer_too() {
        let names = Arc::new(Names::new(Arc::new(Wakers::new(1).unwrap())));
        names.look_up("nobody.invalid", ReactorId(0), DialId(7)).unwrap();
        let found = found(&names, ReactorId(0));
        assert!(
            found.dial == DialId(7) && found.addresses.unwrap_err().starts_with("lookup nobody.invalid: ")
        );
    }

    #[test]
    fn many_that_wait_for_one_name_are_one_lookup() {
        let names = Arc::new(Names::new(Arc::new(Wakers::new(1).unwrap())));
        {
            let mut waiting = names.waiting.lock().unwrap();
            (0..LOOKUPS_MAX).for_each(|at| _ = waiting.insert(format!("m{at}"), vec![]));
        }
        assert!(names.look_up("other", ReactorId(0), DialId(1)).unwrap_err().contains("other names"));
        names.look_up("m3", ReactorId(0), DialId(2)).unwrap();
        names.answer("m3", Err("why".into()));
        assert_eq!(names.found(ReactorId(0)).map(|found| found.dial), Some(DialId(2)));
        names.look_up("localhost", ReactorId(0), DialId(3)).unwrap();
        assert_eq!(found(&names, ReactorId(0)).dial, DialId(3));
    }
}
