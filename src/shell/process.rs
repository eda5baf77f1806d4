//! What Linux says of this process, for `/metrics`, and of others that are in its way.

use super::clock::{Clock, wall_us};
use crate::io::ProcessFigures;
use crate::types::Duration;
use std::fs;
use std::net::SocketAddr;

/// Processor time in `/proc` counts in hundredths of a second, on every machine this server runs on.
const TICK: Duration = Duration::from_ms(10);

/// `None` where `/proc` cannot be read. Takes longer the more descriptors are open: not for a reactor.
pub fn figures(clock: Clock) -> Option<ProcessFigures> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let started_secs = (wall_us() / 1_000_000).saturating_sub(clock.now().0 / Duration::from_secs(1).0);
    let (received_bytes, sent_bytes) = ip_bytes(&fs::read_to_string("/proc/self/net/netstat").ok()?);
    Some(ProcessFigures {
        resident_bytes: kibibytes(&status, "VmRSS:")? << 10,
        virtual_bytes: kibibytes(&status, "VmSize:")? << 10,
        virtual_bytes_max: limit(&limits, "Max address space")?,
        cpu: processor_time(&fs::read_to_string("/proc/self/stat").ok()?)?,
        open_fds: fs::read_dir("/proc/self/fd").ok()?.count() as u64,
        fds_max: limit(&limits, "Max open files")?,
        received_bytes,
        sent_bytes,
        started_secs,
    })
}

fn kibibytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// The 14th and 15th field. The second is the program's name, which may hold anything.
fn processor_time(stat: &str) -> Option<Duration> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(Duration((ticks()? + ticks()?) * TICK.0))
}

fn limit(limits: &str, name: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        soft => soft.parse().ok(),
    }
}

/// Received and sent: columns of the two lines `IpExt:`, names above numbers. 0 where they are not told.
fn ip_bytes(netstat: &str) -> (u64, u64) {
    let mut lines = netstat.lines().filter_map(|line| line.strip_prefix("IpExt:"));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let of = |name| {
        let mut columns = names.split_whitespace().zip(values.split_whitespace());
        columns.find(|(of, _)| *of == name).and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
    };
    (of("InOctets"), of("OutOctets"))
}

/// The name and the id of a process that listens on a port of this address, as far as this one may know.
pub fn listens_on(address: SocketAddr) -> Option<(String, u32)> {
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
    let tables: Vec<String> = tables.iter().filter_map(|table| fs::read_to_string(table).ok()).collect();
    let inode = tables.iter().find_map(|table| listening_inode(table, address.port()))?;
    let socket = format!("socket:[{inode}]");
    let processes =
        fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let pid = { processes }.filter_map(|name| name.parse::<u32>().ok()).find(|pid| holds(*pid, &socket))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some((name.trim_end().to_string(), pid))
}

/// Columns: a number, local address, remote address, state, four more, inode.
fn listening_inode(table: &str, port: u16) -> Option<&str> {
    const LISTEN: &str = "0A";
    let port = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let mut columns = line.split_whitespace().skip(1);
        let (local, state, inode) = (columns.next()?, columns.nth(1)?, columns.nth(5)?);
        (local.ends_with(&port) && state == LISTEN).then_some(inode)
    })
}

fn holds(pid: u32, socket: &str) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    { descriptors }
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .any(|link| link.as_os_str() == socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_descriptors() {
        let figures = figures(Clock::start()).expect("Linux has /proc");
        assert!(figures.resident_bytes > 1 << 20 && figures.virtual_bytes >= figures.resident_bytes);
        assert!((3..=figures.fds_max).contains(&figures.open_fds));
        assert!(figures.started_secs > 1_700_000_000);
    }

    #[test]
    fn a_listening_socket_is_found_by_its_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:094B 00000000:0000 01 00000000:00000000 00:00000000 00000000     0        0 11 1\n\
             1: 0100007F:094B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 22 1\n";
        assert_eq!((listening_inode(table, 2379), listening_inode(table, 2380)), (Some("22"), None));
    }

    #[test]
    fn fields_are_found_behind_any_name() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0";
        assert_eq!(processor_time(stat), Some(Duration::from_secs(2)));
        assert_eq!(processor_time("7 (a) S 1"), None);
        let limits =
            "Max open files            1024   4096   files \nMax address space unlimited unlimited bytes\n";
        assert_eq!(limit(limits, "Max open files"), Some(1024));
        assert_eq!(limit(limits, "Max address space"), Some(u64::MAX));
        let netstat = "TcpExt: A\nTcpExt: 9\nIpExt: InMcast InOctets OutOctets\nIpExt: 1 22 333\n";
        assert_eq!((ip_bytes(netstat), ip_bytes("")), ((22, 333), (0, 0)));
        assert_eq!(kibibytes("VmRSS:\t    12 kB\n", "VmRSS:"), Some(12));
    }
}
