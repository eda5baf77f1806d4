//! What a service manager is told of this process, where there is one: systemd's `Type=notify`.
//!
//! `NOTIFY_SOCKET` in the environment names a datagram socket: a path, or behind an `@` a name that is in no
//! file system. What cannot be told is passed over: the manager finds out by itself.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The socket of the manager; none where there is none in the environment.
pub struct InitSystem(Option<UnixDatagram>);

impl InitSystem {
    pub fn of_environment() -> InitSystem {
        let name = std::env::var_os("NOTIFY_SOCKET");
        InitSystem(name.and_then(|name| connect(&name).ok()))
    }

    pub fn serving(&self) {
        self.tell("READY=1\nSTATUS=Serving clients.");
    }

    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=Stopping.");
    }

    fn tell(&self, what: &str) {
        if let Some(socket) = &self.0 {
            let _ = socket.send(what.as_bytes());
        }
    }
}

fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not hold anything up.
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}
