//! What the front counts, as etcd's metrics name it.

use super::{CallKind, Method};
use crate::api::{Code, Request};
use crate::limits::CLIENT_VERSIONS_MAX;
use crate::stdx::Histogram;
use crate::types::{Duration, Time};

const METHODS: usize = Method::ALL.len();
const CODES: usize = Code::ALL.len();

/// The counters of one method's calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MethodCounters {
    pub started: u64,
    pub messages_received: u64,
    pub messages_sent: u64,
    /// The calls that have ended, by the number of their code.
    pub handled: [u64; CODES],
}

/// The requests whose durations etcd shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timed {
    Range,
    Put,
    DeleteRange,
    Txn,
    ReadonlyTxn,
    Compaction,
    LeaseGrant,
    LeaseRevoke,
    Alarm,
    AuthStatus,
    AuthUserList,
    AuthRoleList,
}

impl Timed {
    const ALL: [Timed; 12] = [
        Timed::Range,
        Timed::Put,
        Timed::DeleteRange,
        Timed::Txn,
        Timed::ReadonlyTxn,
        Timed::Compaction,
        Timed::LeaseGrant,
        Timed::LeaseRevoke,
        Timed::Alarm,
        Timed::AuthStatus,
        Timed::AuthUserList,
        Timed::AuthRoleList,
    ];

    /// What etcd calls a request; none where it shows no duration.
    pub fn of(request: &Request) -> Option<Timed> {
        Some(match request {
            Request::Range(_) => Timed::Range,
            Request::Put(_) => Timed::Put,
            Request::DeleteRange(_) => Timed::DeleteRange,
            Request::Txn(txn) if txn.is_read_only() => Timed::ReadonlyTxn,
            Request::Txn(_) => Timed::Txn,
            Request::Compact(_) => Timed::Compaction,
            Request::LeaseGrant(_) => Timed::LeaseGrant,
            Request::LeaseRevoke(_) => Timed::LeaseRevoke,
            Request::Alarm(_) => Timed::Alarm,
            Request::AuthStatus => Timed::AuthStatus,
            Request::UserList => Timed::AuthUserList,
            Request::RoleList => Timed::AuthRoleList,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Timed::Range => "Range",
            Timed::Put => "Put",
            Timed::DeleteRange => "DeleteRange",
            Timed::Txn => "Txn",
            Timed::ReadonlyTxn => "ReadonlyTxn",
            Timed::Compaction => "Compaction",
            Timed::LeaseGrant => "LeaseGrant",
            Timed::LeaseRevoke => "LeaseRevoke",
            Timed::Alarm => "Alarm",
            Timed::AuthStatus => "AuthStatus",
            Timed::AuthUserList => "AuthUserList",
            Timed::AuthRoleList => "AuthRoleList",
        }
    }

    /// Whether nothing of it goes through the log.
    pub fn reads(self) -> bool {
        matches!(self, Timed::Range | Timed::ReadonlyTxn)
    }

    /// A write that means nothing (a lease that is not there) has gone all its way: to etcd it has succeeded.
    pub fn succeeds(self, code: Code) -> bool {
        let unknown = matches!(code, Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded);
        code == Code::Ok || (!self.reads() && !unknown)
    }
}

/// How long requests took, in nanoseconds: by their place in [`Timed::ALL`], failures first.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RequestTimes([[Histogram; 2]; Timed::ALL.len()]);

impl Default for RequestTimes {
    fn default() -> RequestTimes {
        let empty = || Histogram::new(Duration::from_ms(1).0, 14);
        RequestTimes(std::array::from_fn(|_| [empty(), empty()]))
    }
}

/// The bounds of `grpc_server_handling_seconds`, in nanoseconds.
const HANDLING_BOUNDS: &[u64] = &[
    Duration::from_ms(5).0,
    Duration::from_ms(10).0,
    Duration::from_ms(25).0,
    Duration::from_ms(50).0,
    Duration::from_ms(100).0,
    Duration::from_ms(250).0,
    Duration::from_ms(500).0,
    Duration::from_secs(1).0,
    Duration::from_ms(2500).0,
    Duration::from_secs(5).0,
    Duration::from_secs(10).0,
];

/// Calls by what their clients say their version is: unary ones, then streams.
type ClientVersion = (String, [u64; 2]);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RpcCounters {
    pub received_bytes: u64,
    pub sent_bytes: u64,
    methods: [MethodCounters; METHODS],
    times: RequestTimes,
    /// The time of what is being counted.
    pub now: Time,
    /// How long the calls of each method took, where that is asked for.
    handling: Option<Vec<Histogram>>,
    versions: Vec<ClientVersion>,
}

impl RpcCounters {
    pub fn of(&self, method: Method) -> &MethodCounters {
        &self.methods[method as usize]
    }

    pub fn of_mut(&mut self, method: Method) -> &mut MethodCounters {
        &mut self.methods[method as usize]
    }

    /// Counts a call that has come, whose client says that it is of this version.
    pub fn begun(&mut self, method: Method, version: Option<&str>) {
        self.of_mut(method).started += 1;
        let counts = self.version_mut(version.unwrap_or("unknown"));
        counts[usize::from(method.kind() != CallKind::Unary)] += 1;
    }

    /// Clients may say anything: only some versions, of harmless text, have rows of their own.
    fn version_mut(&mut self, version: &str) -> &mut [u64; 2] {
        const LENGTH_MAX: usize = 32;
        const OTHER: &str = "other";
        let place = |versions: &[ClientVersion], name| versions.iter().position(|(of, _)| *of == name);
        let found = place(&self.versions, version).unwrap_or_else(|| {
            let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b".-+_".contains(&byte);
            let fits = version.len() <= LENGTH_MAX && self.versions.len() < CLIENT_VERSIONS_MAX;
            let name = if fits && version.bytes().all(harmless) { version } else { OTHER };
            place(&self.versions, name).unwrap_or_else(|| {
                self.versions.push((name.to_owned(), [0; 2]));
                self.versions.len() - 1
            })
        });
        &mut self.versions[found].1
    }

    /// Versions of clients, with their unary calls and their streams.
    pub fn versions(&self) -> impl Iterator<Item = (&str, [u64; 2])> {
        self.versions.iter().map(|(version, counts)| (version.as_str(), *counts))
    }

    /// Counts from now on how long calls take.
    pub fn measure_handling(&mut self) {
        self.handling = Some(vec![Histogram::listed(HANDLING_BOUNDS); METHODS]);
    }

    pub fn handled(&mut self, method: Method, code: Code) {
        self.of_mut(method).handled[code as usize] += 1;
    }

    /// Counts a call that has ended.
    pub fn ended(&mut self, method: Method, code: Code, begun: Time) {
        self.handled(method, code);
        if let Some(handling) = &mut self.handling {
            handling[method as usize].observe(self.now.since(begun).0);
        }
    }

    /// Counts a request that was answered, and how long that took.
    pub fn answered(&mut self, timed: Timed, success: bool, took: Duration) {
        self.times.0[timed as usize][usize::from(success)].observe(took.0);
    }

    /// How long the calls of each method took.
    pub fn handling(&self) -> impl Iterator<Item = (Method, &Histogram)> {
        Method::ALL.iter().copied().zip(self.handling.iter().flatten())
    }

    /// Durations of requests that have been answered: etcd's name, whether they succeeded, nanoseconds.
    pub fn durations(&self) -> impl Iterator<Item = (&'static str, bool, &Histogram)> {
        Timed::ALL.iter().zip(&self.times.0).flat_map(|(timed, [failed, succeeded])| {
            let name = timed.name();
            let both = [(name, false, failed), (name, true, succeeded)];
            both.into_iter().filter(|(.., histogram)| histogram.count() > 0)
        })
    }

    pub fn add(&mut self, more: &RpcCounters) {
        self.received_bytes += more.received_bytes;
        self.sent_bytes += more.sent_bytes;
        for (sum, more) in self.times.0.as_flattened_mut().iter_mut().zip(more.times.0.as_flattened()) {
            sum.add(more);
        }
        if let Some(more) = &more.handling {
            let none = || vec![Histogram::listed(HANDLING_BOUNDS); METHODS];
            let sums = self.handling.get_or_insert_with(none);
            sums.iter_mut().zip(more).for_each(|(sum, more)| sum.add(more));
        }
        for (version, more) in more.versions() {
            let sum = self.version_mut(version);
            *sum = [sum[0] + more[0], sum[1] + more[1]];
        }
        for (sum, more) in self.methods.iter_mut().zip(&more.methods) {
            sum.started += more.started;
            sum.messages_received += more.messages_received;
            sum.messages_sent += more.messages_sent;
            for (sum, more) in sum.handled.iter_mut().zip(more.handled) {
                *sum += more;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_clients_take_bounded_room_and_only_harmless_text() {
        let mut counters = RpcCounters::default();
        counters.begun(Method::Put, None);
        counters.begun(Method::Watch, Some("3.7.1"));
        for strange in ["a\"b", "a\\", "a\nb", "é", &"x".repeat(33)] {
            counters.begun(Method::Put, Some(strange));
        }
        for n in 0..100 {
            counters.begun(Method::Put, Some(&format!("1.{n}")));
        }
        counters.begun(Method::Put, Some("3.7.1"));
        let of = |name| counters.versions().find(|(of, _)| *of == name).expect("it has a row").1;
        assert_eq!((of("unknown"), of("3.7.1")), ([1, 0], [1, 1]));
        assert_eq!(of("other"), [5 + 100 - (CLIENT_VERSIONS_MAX as u64 - 3), 0]);
        assert_eq!(counters.versions().count(), CLIENT_VERSIONS_MAX);
        let mut sum = counters.clone();
        sum.add(&counters);
        assert_eq!(sum.versions().map(|(_, [unary, _])| unary).sum::<u64>(), 2 * (1 + 5 + 100 + 1));
        assert!(sum.versions().count() <= CLIENT_VERSIONS_MAX + 1);
    }

    #[test]
    fn durations_are_told_apart_by_request_and_success() {
        let mut counters = RpcCounters::default();
        for (timed, code, ms) in [
            (Timed::Range, Code::OutOfRange, 3),
            (Timed::LeaseRevoke, Code::NotFound, 5),
            (Timed::Put, Code::Unavailable, 7),
        ] {
            counters.answered(timed, timed.succeeds(code), Duration::from_ms(ms));
        }
        let mut sum = RpcCounters::default();
        sum.add(&counters);
        sum.add(&counters);
        let seen: Vec<_> = sum.durations().map(|(name, success, of)| (name, success, of.sum())).collect();
        let ms = |ms| 2 * Duration::from_ms(ms).0;
        assert_eq!(seen, [("Range", false, ms(3)), ("Put", false, ms(7)), ("LeaseRevoke", true, ms(5))]);
    }
}
