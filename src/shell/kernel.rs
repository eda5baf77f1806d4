//! The calls to the kernel that the standard library does not have, each as a safe function.

#![allow(unsafe_code)]

use crate::limits::PEER_UNACKNOWLEDGED_MS_MAX;
use std::fs::File;
use std::io::{self, Error, IoSlice};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// -1 is the kernel's way to say that `errno` holds the reason.
fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result) }
}

/// Wakes a parked thread: a counter (eventfd) that the thread's ring reads.
#[derive(Debug)]
pub struct Waker(OwnedFd);

impl Waker {
    pub fn new() -> io::Result<Waker> {
        // SAFETY: no memory is passed.
        let fd = checked(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) })?;
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Waker(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Wakes the thread. Cannot block: the counter would have to hold 2^64 - 2 wake-ups.
    pub fn wake(&self) {
        let one = 1u64;
        // SAFETY: the eight bytes live on this stack until the call returns.
        let written = unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), 8) };
        assert!(written == 8, "a thread cannot be woken: {}", Error::last_os_error());
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Sends what the socket takes without waiting. Returns how many bytes that is.
pub fn send_now(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: pointer and length are those of `bytes`, which the call only reads.
    let sent = unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
    usize::try_from(sent).map_err(|_| Error::last_os_error())
}

/// As [`send_now`], pieces one behind the other.
pub fn send_pieces_now(socket: BorrowedFd<'_>, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: an `IoSlice` is an iovec; the call only reads what the pieces name, and they outlive it.
    let sent = unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_iov = pieces.as_ptr().cast_mut().cast();
        header.msg_iovlen = pieces.len() as _;
        libc::sendmsg(socket.as_raw_fd(), &raw const header, flags)
    };
    usize::try_from(sent).map_err(|_| Error::last_os_error())
}

/// The pieces of a send as the kernel reads them while it is under way: in one place in memory.
pub struct SendPieces {
    header: libc::msghdr,
    /// Named by the header.
    _pieces: Vec<libc::iovec>,
}

impl SendPieces {
    pub fn of(pieces: &[IoSlice<'_>]) -> Box<SendPieces> {
        let iovec = |piece: &IoSlice<'_>| libc::iovec {
            iov_base: piece.as_ptr().cast_mut().cast(),
            iov_len: piece.len(),
        };
        let mut pieces: Vec<libc::iovec> = pieces.iter().map(iovec).collect();
        // SAFETY: zero is a value of every field.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = pieces.as_mut_ptr();
        header.msg_iovlen = pieces.len() as _;
        Box::new(SendPieces { header, _pieces: pieces })
    }

    pub fn header(&self) -> *const libc::msghdr {
        &raw const self.header
    }
}

/// An address as the kernel reads it.
pub struct SocketName {
    name: libc::sockaddr_storage,
    bytes: libc::socklen_t,
}

impl SocketName {
    pub fn of(address: SocketAddr) -> SocketName {
        // SAFETY: zero is a value of every field.
        let mut name: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        let place = &raw mut name;
        let bytes = match address {
            SocketAddr::V4(address) => {
                let name = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: address.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: address.ip().to_bits().to_be() },
                    sin_zero: [0; 8],
                };
                // SAFETY: the storage has room and alignment for the name of any family.
                unsafe { place.cast::<libc::sockaddr_in>().write(name) };
                size_of_val(&name)
            }
            SocketAddr::V6(address) => {
                let name = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: address.port().to_be(),
                    sin6_flowinfo: address.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                    sin6_scope_id: address.scope_id(),
                };
                // SAFETY: as above.
                unsafe { place.cast::<libc::sockaddr_in6>().write(name) };
                size_of_val(&name)
            }
        };
        SocketName { name, bytes: bytes as libc::socklen_t }
    }

    pub fn pointer(&self) -> *const libc::sockaddr {
        (&raw const self.name).cast()
    }

    pub fn bytes(&self) -> libc::socklen_t {
        self.bytes
    }
}

/// A socket of the family of an address.
pub fn tcp_socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: no memory is passed, and nobody else has the descriptor.
    unsafe {
        let fd = checked(libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Whether a socket is connected to itself: where nobody listens on a port, an attempt from that port meets itself.
pub fn is_its_own_peer(socket: &OwnedFd) -> io::Result<bool> {
    let stream = TcpStream::from(socket.try_clone()?);
    Ok(stream.local_addr()? == stream.peer_addr()?)
}

/// Fills the bytes from the operating system's random source.
pub fn random(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        let rest = &mut bytes[filled..];
        // SAFETY: pointer and length are those of `rest`.
        let got = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match got {
            0.. => filled += got as usize,
            _ if Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            _ => return Err(Error::last_os_error()),
        }
    }
    Ok(())
}

pub fn random_u64() -> io::Result<u64> {
    let mut bytes = [0; 8];
    random(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

/// The signals that stop the process.
pub struct StopSignals(libc::sigset_t);

impl StopSignals {
    /// Takes SIGTERM and SIGINT out of the hands of this thread and of all it starts from now on: they
    /// wait for [`StopSignals::next`].
    pub fn hold() -> io::Result<StopSignals> {
        // SAFETY: an all-zero set is a valid argument to `sigemptyset`, which makes it an empty one; the
        // calls after it read and write this set alone.
        let set = unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, StopSignal::TERMINATED.0);
            libc::sigaddset(&raw mut set, StopSignal::INTERRUPT.0);
            let refused = libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            if refused != 0 {
                return Err(Error::from_raw_os_error(refused));
            }
            set
        };
        Ok(StopSignals(set))
    }

    /// The next signal, or none within the time.
    pub fn next(&self, timeout: std::time::Duration) -> Option<StopSignal> {
        let span = libc::timespec {
            tv_sec: timeout.as_secs() as libc::time_t,
            tv_nsec: libc::c_long::from(timeout.subsec_nanos()),
        };
        // SAFETY: set and span outlive the call; no information about the signal is asked for.
        let signal = unsafe { libc::sigtimedwait(&raw const self.0, std::ptr::null_mut(), &raw const span) };
        (signal > 0).then_some(StopSignal(signal))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopSignal(libc::c_int);

impl StopSignal {
    pub const TERMINATED: StopSignal = StopSignal(libc::SIGTERM);
    pub const INTERRUPT: StopSignal = StopSignal(libc::SIGINT);

    pub fn name(self) -> &'static str {
        if self == StopSignal::INTERRUPT { "interrupt" } else { "terminated" }
    }

    /// Dies of the signal, as the parent of this process expects (143 or 130 in a shell). Returns only
    /// where the kernel does not deliver it: to the first process of a container.
    pub fn die(self) {
        // SAFETY: restores what the kernel does by itself, for this signal and this thread alone.
        unsafe {
            libc::signal(self.0, libc::SIG_DFL);
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, self.0);
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
            libc::raise(self.0);
        }
    }
}

/// The CPUs this process may run on, ascending.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    // SAFETY: an all-zero set is an empty one; the kernel writes at most its size.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        checked(libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set))?;
        set
    };
    let holds = |cpu: &usize| {
        // SAFETY: `cpu` is below the size of the set.
        unsafe { libc::CPU_ISSET(*cpu, &set) }
    };
    Ok((0..libc::CPU_SETSIZE as usize).filter(holds).collect())
}

/// Binds the calling thread to these CPUs.
pub fn pin(cpus: &[usize]) -> io::Result<()> {
    // SAFETY: an all-zero set is an empty one, and every CPU set is below its size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for cpu in cpus.iter().filter(|cpu| **cpu < libc::CPU_SETSIZE as usize) {
            libc::CPU_SET(*cpu, &mut set);
        }
        checked(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set))?;
    }
    Ok(())
}

/// Gives free memory of the calling thread, and of threads that have ended, back to the operating system: the
/// allocator by itself keeps it until it is asked for more. Where another allocator serves, nothing happens.
pub fn give_memory_back() {
    // SAFETY: it may be called at any moment, and on any thread.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

/// Lets others go before the calling thread: it preempts no thread on the CPU, and is last on the disk.
/// Not `SCHED_IDLE`: a thread with that policy may never run on a busy machine, and only a privileged process
/// gets back from it.
pub fn step_back() {
    const IOPRIO_CLASS_IDLE: libc::c_int = 3 << 13;
    set_priority(libc::SCHED_BATCH, IOPRIO_CLASS_IDLE);
}

/// Gives the calling thread the place of any other again.
pub fn step_forward() {
    const IOPRIO_CLASS_NONE: libc::c_int = 0;
    set_priority(libc::SCHED_OTHER, IOPRIO_CLASS_NONE);
}

/// Sets the calling thread's priority, as best effort: the worst that comes of a refusal is a slower neighbour.
fn set_priority(policy: libc::c_int, io_class: libc::c_int) {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    // SAFETY: the parameter lives on this stack; the other arguments are numbers.
    unsafe {
        let mut param: libc::sched_param = std::mem::zeroed();
        param.sched_priority = 0;
        libc::sched_setscheduler(0, policy, &raw const param);
        libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, io_class);
    }
}

/// A thread that can be called out of a system call in which it waits.
#[derive(Debug)]
pub struct Interruptible(libc::pid_t);

impl Interruptible {
    /// The calling thread. From now on SIGURG, which nothing else here uses, ends its waits with EINTR.
    pub fn this_thread() -> io::Result<Interruptible> {
        extern "C" fn only_interrupt(_: libc::c_int) {}
        // SAFETY: the action lives on this stack; its function does nothing, so it may run at any moment.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = only_interrupt as extern "C" fn(libc::c_int) as usize;
            checked(libc::sigaction(libc::SIGURG, &raw const action, std::ptr::null_mut()))?;
            Ok(Interruptible(libc::gettid()))
        }
    }

    pub fn interrupt(&self) {
        // SAFETY: no memory is passed; a thread that is gone is no error that matters.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), self.0, libc::SIGURG) };
    }
}

/// Raises the soft limit of open files to the hard one; returns what it is then.
pub fn raise_open_files() -> io::Result<u64> {
    // SAFETY: the limit lives on this stack.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        checked(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit))?;
        if limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max;
            checked(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit))?;
        }
        Ok(limit.rlim_cur)
    }
}

/// The kernel's release, like `6.12.1-amd64`; empty where the kernel does not say.
pub fn release() -> String {
    // SAFETY: the kernel fills the structure with texts that end in a zero byte.
    unsafe {
        let mut name: libc::utsname = std::mem::zeroed();
        if libc::uname(&raw mut name) != 0 {
            return String::new();
        }
        std::ffi::CStr::from_ptr(name.release.as_ptr()).to_string_lossy().into_owned()
    }
}

/// What a socket is set to before clients come; those accepted from a listener inherit it.
pub fn set_socket(fd: BorrowedFd<'_>) -> io::Result<()> {
    let keepalive_secs = 15;
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    set_option(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, keepalive_secs)?;
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, keepalive_secs)
}

/// As [`set_socket`], for other members: one that is gone without a word is noticed.
pub fn set_peer_socket(fd: BorrowedFd<'_>) -> io::Result<()> {
    set_socket(fd)?;
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, PEER_UNACKNOWLEDGED_MS_MAX as libc::c_int)
}

fn set_option(fd: BorrowedFd<'_>, level: i32, option: i32, value: libc::c_int) -> io::Result<()> {
    let (pointer, bytes) = ((&raw const value).cast(), size_of::<libc::c_int>() as libc::socklen_t);
    // SAFETY: the option's value lives on this stack and has the size given.
    checked(unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, pointer, bytes) })?;
    Ok(())
}

/// How far the zone of this process is east of UTC at a moment, given in seconds since 1970; 0 where the system
/// does not know.
pub fn utc_offset_secs(secs: u64) -> i64 {
    let Ok(secs) = libc::time_t::try_from(secs) else { return 0 };
    // SAFETY: zero is a value of every field.
    let mut local: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both live on this stack; the zone itself is read under the C library's lock.
    let known = unsafe { libc::localtime_r(&raw const secs, &raw mut local) };
    if known.is_null() { 0 } else { local.tm_gmtoff }
}

/// Binds to an address beside others that share it in the same way (SO_REUSEPORT).
pub fn bind_beside(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpListener::from(tcp_socket(address)?);
    for option in [libc::SO_REUSEADDR, libc::SO_REUSEPORT] {
        set_option(socket.as_fd(), libc::SOL_SOCKET, option, 1)?;
    }
    let name = SocketName::of(address);
    // SAFETY: the name lives on this stack and has the size given.
    checked(unsafe { libc::bind(socket.as_raw_fd(), name.pointer(), name.bytes()) })?;
    Ok(socket)
}

/// Listens with a backlog; a second call only changes the backlog.
pub fn listen(fd: BorrowedFd<'_>, backlog: i32) -> io::Result<()> {
    // SAFETY: no memory is passed.
    checked(unsafe { libc::listen(fd.as_raw_fd(), backlog) })?;
    Ok(())
}

/// Ends one or both directions of a connection. One that is gone already is fine.
pub fn shutdown(fd: BorrowedFd<'_>, both: bool) {
    let how = if both { libc::SHUT_RDWR } else { libc::SHUT_WR };
    // SAFETY: no memory is passed.
    unsafe { libc::shutdown(fd.as_raw_fd(), how) };
}

/// Takes over a descriptor that the kernel handed out just now.
pub fn adopt(fd: i32) -> OwnedFd {
    assert!(fd >= 0, "a descriptor is not negative");
    // SAFETY: an accept made it for this process, and nobody else has seen its number.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Writes one block durably in one call, as the log's writes are; an error where kernel or file system does
/// not know how.
pub fn write_durably_at_start(file: &File, block: &[u8]) -> io::Result<()> {
    let part = libc::iovec { iov_base: block.as_ptr().cast_mut().cast(), iov_len: block.len() };
    // SAFETY: the one part is `block`, which outlives the call and is only read.
    let written = unsafe { libc::pwritev2(file.as_raw_fd(), &raw const part, 1, 0, libc::RWF_DSYNC) };
    match written {
        0.. if written as usize == block.len() => Ok(()),
        0.. => Err(Error::from_raw_os_error(libc::EIO)),
        _ => Err(Error::last_os_error()),
    }
}

/// What an unprivileged process may still write to the file system of an open file.
pub fn free_bytes(file: &File) -> io::Result<u64> {
    // SAFETY: the kernel fills the structure, which lives on this stack.
    unsafe {
        let mut about: libc::statvfs = std::mem::zeroed();
        checked(libc::fstatvfs(file.as_raw_fd(), &raw mut about))?;
        Ok(about.f_bavail.saturating_mul(about.f_frsize))
    }
}

/// Opens past the page cache: the flag for [`std::os::unix::fs::OpenOptionsExt::custom_flags`].
pub const DIRECT: i32 = libc::O_DIRECT;
/// `errno` of a full disk, as two file systems say it.
pub const DISK_FULL: [i32; 2] = [libc::ENOSPC, libc::EDQUOT];
/// `errno` of a call, flag or file system that does not know what is asked.
pub const UNKNOWN: [i32; 4] = [libc::EINVAL, libc::EOPNOTSUPP, libc::ENOSYS, libc::EPERM];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_numbers_differ() {
        assert_ne!(random_u64().unwrap(), random_u64().unwrap());
    }

    #[test]
    fn this_thread_may_run_somewhere_and_be_pinned_there() {
        let cpus = allowed_cpus().unwrap();
        let last = *cpus.last().unwrap();
        std::thread::spawn(move || {
            pin(&[last]).unwrap();
            assert_eq!(allowed_cpus().unwrap(), [last]);
        })
        .join()
        .unwrap();
    }
}
