//! A decoded header block: the fields that gRPC and etcd look at by name, the others as a list.
//!
//! What RFC 9113 calls malformed is noticed while fields are pushed: pseudo-header fields twice, unknown or
//! after others, names in upper case, `connection`, `te` other than `trailers`. The other fields of HTTP/1
//! connections (`keep-alive`, `transfer-encoding`, `upgrade`, `proxy-connection`), which a proxy may have
//! passed on, say nothing here and are passed over, as grpc-go does. Octets of values follow Go's reading,
//! since etcd's servers do: no control characters but tab; blanks at the ends pass.

use crate::limits::HTTP2_HEADER_LIST_BYTES_MAX;

/// What a field's name says to this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FieldName {
    Authority,
    Method,
    Path,
    Scheme,
    Status,
    ContentType,
    ContentLength,
    Te,
    UserAgent,
    GrpcTimeout,
    GrpcEncoding,
    GrpcStatus,
    GrpcMessage,
    Authorization,
    Token,
    HasLeader,
    ClientApiVersion,
    /// A pseudo-header field that neither requests nor responses have.
    UnknownPseudo,
    /// `connection`, which speaks of HTTP/1.
    Forbidden,
    Other,
}

const NAMED: usize = FieldName::UnknownPseudo as usize;

impl FieldName {
    pub fn of(name: &[u8]) -> FieldName {
        match name {
            b":authority" => FieldName::Authority,
            b":method" => FieldName::Method,
            b":path" => FieldName::Path,
            b":scheme" => FieldName::Scheme,
            b":status" => FieldName::Status,
            b"content-type" => FieldName::ContentType,
            b"content-length" => FieldName::ContentLength,
            b"te" => FieldName::Te,
            b"user-agent" => FieldName::UserAgent,
            b"grpc-timeout" => FieldName::GrpcTimeout,
            b"grpc-encoding" => FieldName::GrpcEncoding,
            b"grpc-status" => FieldName::GrpcStatus,
            b"grpc-message" => FieldName::GrpcMessage,
            b"authorization" => FieldName::Authorization,
            b"token" => FieldName::Token,
            b"hasleader" => FieldName::HasLeader,
            b"client-api-version" => FieldName::ClientApiVersion,
            b"connection" => FieldName::Forbidden,
            [b':', ..] => FieldName::UnknownPseudo,
            _ => FieldName::Other,
        }
    }

    const fn bit(self) -> u32 {
        1 << self as u32
    }

    fn is_pseudo(self) -> bool {
        self <= FieldName::Status || self == FieldName::UnknownPseudo
    }
}

const REQUIRED: u32 = FieldName::Method.bit() | FieldName::Scheme.bit() | FieldName::Path.bit();
const REQUEST_PSEUDO: u32 = REQUIRED | FieldName::Authority.bit();
const PSEUDO: u32 = REQUEST_PSEUDO | FieldName::Status.bit();

#[derive(Clone, Copy, Default)]
struct FieldSpan {
    start: u32,
    len: u32,
}

/// The fields of one header block.
#[derive(Clone, Default)]
pub struct Head {
    text: Vec<u8>,
    spans: [FieldSpan; NAMED],
    seen: u32,
    others: Vec<(FieldSpan, FieldSpan)>,
    /// The size as SETTINGS_MAX_HEADER_LIST_SIZE counts it: names, values and 32 bytes per field.
    size: usize,
    regular: bool,
    malformed: bool,
    content_length: Option<u64>,
}

impl Head {
    /// The value of the first field of a name the enum has; `None` also for [`FieldName::Other`].
    pub fn get(&self, name: FieldName) -> Option<&[u8]> {
        let named = (name as usize) < NAMED && self.seen & name.bit() != 0;
        named.then(|| self.text_of(self.spans[name as usize]))
    }
    /// The method, which is empty only where the head is not a request's.
    pub fn method(&self) -> &[u8] {
        self.get(FieldName::Method).unwrap_or_default()
    }
    /// The path, which is empty only where the head is not a request's.
    pub fn path(&self) -> &[u8] {
        self.get(FieldName::Path).unwrap_or_default()
    }
    /// Name and value of the fields that have no place in [`FieldName`], in their order.
    pub fn others(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.others.iter().map(|&(name, value)| (self.text_of(name), self.text_of(value)))
    }
    pub fn content_length(&self) -> Option<u64> {
        self.content_length
    }
    /// Bytes that keeping a copy of the head would take, about.
    pub fn kept_bytes(&self) -> usize {
        size_of::<Head>() + self.text.len() + self.others.len() * size_of::<(FieldSpan, FieldSpan)>()
    }

    fn text_of(&self, span: FieldSpan) -> &[u8] {
        &self.text[span.start as usize..][..span.len as usize]
    }

    pub fn clear(&mut self) {
        if self.text.capacity() > KEEP_BYTES {
            self.text = Vec::new();
            self.others = Vec::new();
        }
        self.text.clear();
        self.others.clear();
        (self.seen, self.size) = (0, 0);
        (self.regular, self.malformed, self.content_length) = (false, false, None);
    }

    /// Adds a field; `valid` says that name and value consist of octets they may have. Fields beyond the
    /// limit of the list are counted, not kept.
    pub fn push(&mut self, kind: FieldName, valid: bool, name: &[u8], value: &[u8]) {
        self.size = self.size.saturating_add(name.len() + value.len() + 32);
        if self.is_too_long() {
            return;
        }
        self.malformed |= !valid;
        if kind.is_pseudo() {
            let twice = kind == FieldName::UnknownPseudo || self.seen & kind.bit() != 0;
            self.malformed |= self.regular || twice;
        } else {
            self.regular = true;
        }
        match kind {
            FieldName::Forbidden | FieldName::UnknownPseudo => self.malformed = true,
            FieldName::Te => self.malformed |= value != b"trailers",
            FieldName::ContentLength => self.push_content_length(value),
            _ => (),
        }
        if (kind as usize) < NAMED {
            if self.seen & kind.bit() == 0 {
                self.seen |= kind.bit();
                self.spans[kind as usize] = self.keep(value);
            }
        } else {
            let pair = (self.keep(name), self.keep(value));
            self.others.push(pair);
        }
    }

    fn keep(&mut self, bytes: &[u8]) -> FieldSpan {
        let start = self.text.len() as u32;
        self.text.extend_from_slice(bytes);
        FieldSpan { start, len: bytes.len() as u32 }
    }

    fn push_content_length(&mut self, value: &[u8]) {
        let digits = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
        let length = value.iter().fold(0, |sum, &digit| sum * 10 + u64::from(digit.wrapping_sub(b'0') & 15));
        self.malformed |= !digits || self.content_length.is_some_and(|other| other != length);
        self.content_length = Some(length);
    }

    /// Whether the list is larger than SETTINGS_MAX_HEADER_LIST_SIZE allows; it is then not complete.
    pub fn is_too_long(&self) -> bool {
        self.size > HTTP2_HEADER_LIST_BYTES_MAX
    }
    /// Whether this is a request as RFC 9113 8.3.1 has it. CONNECT is not among them: it has no path, and
    /// this server is no proxy.
    pub fn is_request(&self) -> bool {
        let pseudo = self.seen & PSEUDO;
        !self.malformed
            && pseudo & !FieldName::Authority.bit() == REQUIRED
            && !self.path().is_empty()
            && self.method() != b"CONNECT"
    }
    /// Whether this is a response as RFC 9113 8.3.2 has it.
    pub fn is_response(&self) -> bool {
        !self.malformed && self.seen & PSEUDO == FieldName::Status.bit() && self.status().is_some()
    }
    /// Whether these are trailers: no pseudo-header fields (RFC 9113, 8.1).
    pub fn is_trailers(&self) -> bool {
        !self.malformed && self.seen & PSEUDO == 0
    }
    /// The status of a response, `None` where it is not of three digits.
    pub fn status(&self) -> Option<u16> {
        match self.get(FieldName::Status)? {
            digits @ [_, _, _] if digits.iter().all(u8::is_ascii_digit) => {
                Some(digits.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0')))
            }
            _ => None,
        }
    }
    /// The code in `grpc-status`, `None` where it is missing or no number.
    pub fn grpc_status(&self) -> Option<u8> {
        std::str::from_utf8(self.get(FieldName::GrpcStatus)?).ok()?.parse().ok()
    }
}

impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut list = f.debug_list();
        for (place, span) in self.spans.iter().enumerate().filter(|(place, _)| self.seen & 1 << place != 0) {
            list.entry(&format_args!("#{place}: {}", self.text_of(*span).escape_ascii()));
        }
        for (name, value) in self.others() {
            list.entry(&format_args!("{}: {}", name.escape_ascii(), value.escape_ascii()));
        }
        list.finish()
    }
}

/// A head that grew beyond this gives its memory back when it is used again.
const KEEP_BYTES: usize = 4096;

/// Octets of a field's name: the tokens of HTTP, without upper case.
const NAME_OCTETS: [bool; 256] = {
    let mut table = [false; 256];
    let mut octet = 0;
    while octet < 256 {
        let byte = octet as u8;
        table[octet] = byte.is_ascii_lowercase()
            || byte.is_ascii_digit()
            || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~');
        octet += 1;
    }
    table
};

/// Whether the octets may name a field or a pseudo-header field.
pub fn is_field_name(name: &[u8]) -> bool {
    let token = name.strip_prefix(b":").unwrap_or(name);
    !token.is_empty() && token.iter().all(|&octet| NAME_OCTETS[usize::from(octet)])
}

/// Whether the octets may be a field's value.
pub fn is_field_value(value: &[u8]) -> bool {
    value.iter().all(|&octet| (octet >= b' ' && octet != 0x7F) || octet == b'\t')
}
