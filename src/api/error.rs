//! etcd's errors: code and text are API, clients match both. As etcd 3.7 answers, see `tests/recorded`.

use std::fmt;

/// gRPC status codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Code {
    Ok = 0,
    Canceled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

impl Code {
    /// In the order of their numbers.
    pub const ALL: [Code; 17] = [
        Code::Ok,
        Code::Canceled,
        Code::Unknown,
        Code::InvalidArgument,
        Code::DeadlineExceeded,
        Code::NotFound,
        Code::AlreadyExists,
        Code::PermissionDenied,
        Code::ResourceExhausted,
        Code::FailedPrecondition,
        Code::Aborted,
        Code::OutOfRange,
        Code::Unimplemented,
        Code::Internal,
        Code::Unavailable,
        Code::DataLoss,
        Code::Unauthenticated,
    ];
}

macro_rules! errors {
    ($($(#[$doc:meta])* $name:ident = $code:ident, $text:literal;)*) => {
        /// Every error a client can get, beside those that carry a text of their own.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Error {
            $($(#[$doc])* $name,)*
            /// A message above the receive limit, refused by the transport.
            MessageTooLarge { bytes: usize, bytes_max: usize },
            /// No such service or method.
            UnknownMethod { text: String },
            /// A request that cannot be read, or an answer that only its place can word.
            Other { code: Code, text: String },
        }

        impl Error {
            pub fn code(&self) -> Code {
                match self {
                    $(Error::$name => Code::$code,)*
                    Error::MessageTooLarge { .. } => Code::ResourceExhausted,
                    Error::UnknownMethod { .. } => Code::Unimplemented,
                    Error::Other { code, .. } => *code,
                }
            }
        }

        impl fmt::Display for Error {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Error::$name => f.write_str($text),)*
                    Error::MessageTooLarge { bytes, bytes_max } => {
                        write!(f, "grpc: received message larger than max ({bytes} vs. {bytes_max})")
                    }
                    Error::UnknownMethod { text } | Error::Other { text, .. } => f.write_str(text),
                }
            }
        }
    };
}

errors! {
    EmptyKey = InvalidArgument, "etcdserver: key is not provided";
    KeyNotFound = InvalidArgument, "etcdserver: key not found";
    ValueProvided = InvalidArgument, "etcdserver: value is provided";
    LeaseProvided = InvalidArgument, "etcdserver: lease is provided";
    TooManyOps = InvalidArgument, "etcdserver: too many operations in txn request";
    DuplicateKey = InvalidArgument, "etcdserver: duplicate key given in txn request";
    InvalidClientApiVersion = InvalidArgument, "etcdserver: invalid client api version";
    InvalidSortOption = InvalidArgument, "etcdserver: invalid sort option";
    RequestTooLarge = InvalidArgument, "etcdserver: request is too large";
    Compacted = OutOfRange, "etcdserver: mvcc: required revision has been compacted";
    FutureRevision = OutOfRange, "etcdserver: mvcc: required revision is a future revision";
    NoSpace = ResourceExhausted, "etcdserver: mvcc: database space exceeded";
    LeaseNotFound = NotFound, "etcdserver: requested lease not found";
    LeaseExists = FailedPrecondition, "etcdserver: lease already exists";
    LeaseTtlTooLarge = OutOfRange, "etcdserver: too large lease TTL";
    /// etcd returns this one without a status, so on the wire its code is Unknown.
    TooManyRequests = Unknown, "etcdserver: too many requests";
    NoLeader = Unavailable, "etcdserver: no leader";
    NotLeader = FailedPrecondition, "etcdserver: not leader";
    /// What etcd says of a write that it could not propose in time.
    NotProposed = DeadlineExceeded, "context deadline exceeded";
    Stopped = Unavailable, "etcdserver: server stopped";
    Timeout = Unavailable, "etcdserver: request timed out";
    Corrupt = DataLoss, "etcdserver: corrupt cluster";
    /// A text that etcd's table of errors does not know.
    TransferTooLong = Unknown, "etcdserver: request timed out, leader transfer took too long";
    BadLeaderTransferee = FailedPrecondition, "etcdserver: bad leader transferee";
    /// Too few members that vote are connected for what is asked.
    Unhealthy = Unavailable, "etcdserver: unhealthy cluster";
    /// etcd's client has FailedPrecondition for this text, its server does not.
    NotEnoughStarted = Unknown, "etcdserver: re-configuration failed due to not enough started members";
    BadMemberUrls = InvalidArgument, "etcdserver: given member URLs are invalid";
    PeerUrlExists = FailedPrecondition, "etcdserver: Peer URLs already exists";
    MemberNotFound = NotFound, "etcdserver: member not found";
    TooManyLearners = FailedPrecondition, "etcdserver: too many learner members in cluster";
    NotLearner = FailedPrecondition, "etcdserver: can only promote a learner member";
    LearnerNotReady = FailedPrecondition,
        "etcdserver: can only promote a learner member which is in sync with leader";
    NotSupportedForLearner = FailedPrecondition, "etcdserver: rpc not supported for learner";
}

impl std::error::Error for Error {}
