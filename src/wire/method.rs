//! The calls of etcd's gRPC services.

use super::quote::quoted;
use crate::api::Error;

/// How many messages a call has in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    Unary,
    ServerStream,
    BidiStream,
}

impl CallKind {
    /// The name that the metrics' label `grpc_type` has.
    pub fn name(self) -> &'static str {
        match self {
            CallKind::Unary => "unary",
            CallKind::ServerStream => "server_stream",
            CallKind::BidiStream => "bidi_stream",
        }
    }
}

macro_rules! methods {
    ($($method:ident = $service:literal, $name:literal, $kind:ident;)*) => {
        /// Every call this server answers. Members tell each other a call by its number here, so a new one comes last.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Method {
            $($method,)*
        }

        impl Method {
            pub const ALL: &[Method] = &[$(Method::$method,)*];

            /// The full name of its service: the metrics' label `grpc_service`.
            pub fn service(self) -> &'static str {
                match self { $(Method::$method => $service,)* }
            }

            /// The name inside its service, which the metrics' label `grpc_method` has.
            pub fn name(self) -> &'static str {
                match self { $(Method::$method => $name,)* }
            }

            pub fn kind(self) -> CallKind {
                match self { $(Method::$method => CallKind::$kind,)* }
            }

            /// `/service/name`, as requests carry it in `:path`.
            pub fn path(self) -> &'static str {
                match self { $(Method::$method => concat!("/", $service, "/", $name),)* }
            }

            /// Finds the method of a `:path`. Errors are `Unimplemented` in grpc-go's words.
            pub fn of_path(path: &[u8]) -> Result<Method, Error> {
                match path {
                    $(path if path == concat!("/", $service, "/", $name).as_bytes() => Ok(Method::$method),)*
                    _ => Err(unknown(path)),
                }
            }
        }
    };
}

methods! {
    Put = "etcdserverpb.KV", "Put", Unary;
    Range = "etcdserverpb.KV", "Range", Unary;
    Txn = "etcdserverpb.KV", "Txn", Unary;
    DeleteRange = "etcdserverpb.KV", "DeleteRange", Unary;
    Compact = "etcdserverpb.KV", "Compact", Unary;
    RangeStream = "etcdserverpb.KV", "RangeStream", ServerStream;
    Watch = "etcdserverpb.Watch", "Watch", BidiStream;
    LeaseGrant = "etcdserverpb.Lease", "LeaseGrant", Unary;
    LeaseRevoke = "etcdserverpb.Lease", "LeaseRevoke", Unary;
    LeaseKeepAlive = "etcdserverpb.Lease", "LeaseKeepAlive", BidiStream;
    LeaseTimeToLive = "etcdserverpb.Lease", "LeaseTimeToLive", Unary;
    LeaseLeases = "etcdserverpb.Lease", "LeaseLeases", Unary;
    AuthStatus = "etcdserverpb.Auth", "AuthStatus", Unary;
    UserList = "etcdserverpb.Auth", "UserList", Unary;
    RoleList = "etcdserverpb.Auth", "RoleList", Unary;
    MemberList = "etcdserverpb.Cluster", "MemberList", Unary;
    Alarm = "etcdserverpb.Maintenance", "Alarm", Unary;
    Status = "etcdserverpb.Maintenance", "Status", Unary;
    Defragment = "etcdserverpb.Maintenance", "Defragment", Unary;
    MoveLeader = "etcdserverpb.Maintenance", "MoveLeader", Unary;
    Hash = "etcdserverpb.Maintenance", "Hash", Unary;
    HashKv = "etcdserverpb.Maintenance", "HashKV", Unary;
    HealthCheck = "grpc.health.v1.Health", "Check", Unary;
    HealthList = "grpc.health.v1.Health", "List", Unary;
    HealthWatch = "grpc.health.v1.Health", "Watch", ServerStream;
    MemberAdd = "etcdserverpb.Cluster", "MemberAdd", Unary;
    MemberRemove = "etcdserverpb.Cluster", "MemberRemove", Unary;
    MemberUpdate = "etcdserverpb.Cluster", "MemberUpdate", Unary;
    MemberPromote = "etcdserverpb.Cluster", "MemberPromote", Unary;
}

/// etcd's services without a method here. Calls to them are told of an unknown method, not of an unknown
/// service, as a client probing for a feature expects of an etcd.
const OTHER_SERVICES: &[&str] = &["v3lockpb.Lock", "v3electionpb.Election"];

fn unknown(path: &[u8]) -> Error {
    let parts = path.strip_prefix(b"/").and_then(|path| {
        let slash = path.iter().rposition(|&byte| byte == b'/')?;
        Some((&path[..slash], &path[slash + 1..]))
    });
    let Some((service, method)) = parts else {
        return Error::UnknownMethod { text: format!("malformed method name: {}", quoted(path)) };
    };
    let known = Method::ALL.iter().map(|method| method.service()).chain(OTHER_SERVICES.iter().copied());
    let text = if known.into_iter().any(|name| name.as_bytes() == service) {
        let (method, service) = (String::from_utf8_lossy(method), String::from_utf8_lossy(service));
        format!("unknown method {method} for service {service}")
    } else {
        format!("unknown service {}", String::from_utf8_lossy(service))
    };
    Error::UnknownMethod { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Code;

    #[test]
    fn every_path_finds_its_method() {
        for &method in Method::ALL {
            assert_eq!(Method::of_path(method.path().as_bytes()), Ok(method));
            assert_eq!(method.path(), format!("/{}/{}", method.service(), method.name()));
        }
    }

    /// What is forwarded, by a program of any version.
    #[test]
    fn a_method_keeps_its_number() {
        let numbers =
            [Method::Put, Method::LeaseTimeToLive, Method::Alarm, Method::MemberAdd, Method::MemberPromote];
        assert_eq!(numbers.map(|method| method as u8), [0, 10, 16, 25, 28]);
    }

    #[test]
    fn other_paths_are_refused_in_the_words_of_grpc_go() {
        let check = |path: &str, expected: &str| {
            let error = Method::of_path(path.as_bytes()).expect_err(path);
            assert_eq!((error.code(), error.to_string().as_str()), (Code::Unimplemented, expected));
        };
        check("", r#"malformed method name: """#);
        check("/", r#"malformed method name: "/""#);
        check("etcdserverpb.KV/Range", r#"malformed method name: "etcdserverpb.KV/Range""#);
        check("/a\"b\n", r#"malformed method name: "/a\"b\n""#);
        check("//", "unknown service ");
        check("/foo.Bar/Baz", "unknown service foo.Bar");
        check("/a/b/c", "unknown service a/b");
        check("/etcdserverpb.KV/", "unknown method  for service etcdserverpb.KV");
        check("/etcdserverpb.KV/range", "unknown method range for service etcdserverpb.KV");
        check("/etcdserverpb.Auth/AuthEnable", "unknown method AuthEnable for service etcdserverpb.Auth");
        check("/v3lockpb.Lock/Lock", "unknown method Lock for service v3lockpb.Lock");
        check("/etcdserverpb.Cluster/Members", "unknown method Members for service etcdserverpb.Cluster");
    }
}
