//! epoll, which std does not offer.

#![allow(unsafe_code)] // three system calls; std has no safe name for them

use std::io::{Error, ErrorKind, Result};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

const EVENTS: usize = 256;

/// Waits for sockets that can be read or written again.
pub struct Poll {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Poll {
    pub fn new() -> Result<Poll> {
        // SAFETY: no memory is passed.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(Error::last_os_error());
        }
        // SAFETY: the call above made it, and nobody else knows it.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Poll { epoll, events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS] })
    }

    /// Edge-triggered: the owner reads and writes until the socket has no more.
    pub fn add(&self, socket: &impl AsRawFd, token: usize) -> Result<()> {
        let flags = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
        let mut event = libc::epoll_event { events: flags as u32, u64: token as u64 };
        // SAFETY: `event` lives during the call, which copies it.
        let code = unsafe {
            libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, socket.as_raw_fd(), &raw mut event)
        };
        if code < 0 { Err(Error::last_os_error()) } else { Ok(()) }
    }

    /// The tokens of the sockets that are ready, after at most `timeout`.
    pub fn wait(&mut self, timeout: Duration, ready: &mut Vec<usize>) -> Result<()> {
        let timeout = libc::timespec {
            tv_sec: timeout.as_secs() as libc::time_t,
            tv_nsec: libc::c_long::from(timeout.subsec_nanos() as i32),
        };
        let (events, len) = (self.events.as_mut_ptr(), self.events.len() as i32);
        // SAFETY: the kernel writes at most `len` events into the vector, which has as many; the timeout
        // lives during the call; no signal mask is passed.
        let count = unsafe {
            libc::epoll_pwait2(self.epoll.as_raw_fd(), events, len, &raw const timeout, std::ptr::null())
        };
        ready.clear();
        if count < 0 {
            let error = Error::last_os_error();
            return if error.kind() == ErrorKind::Interrupted { Ok(()) } else { Err(error) };
        }
        ready.extend(self.events[..count as usize].iter().map(|event| event.u64 as usize));
        Ok(())
    }
}
