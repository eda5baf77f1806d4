//! Writing protobuf's wire format, each byte once.
//!
//! An embedded message is preceded by its length, so whoever writes it must know the length first. A
//! [`ProtoMessage`] therefore describes its fields to any [`Sink`]: [`Length`] adds up what they would take,
//! `Vec<u8>` takes them. As both are told the same, lengths cannot be wrong. proto3 leaves out zeros.

/// Takes the fields of messages.
pub(super) trait Sink: Sized {
    fn varint(&mut self, value: u64);
    fn raw(&mut self, bytes: &[u8]);
    /// An embedded message, present even where it is empty.
    fn message(&mut self, number: u32, message: &impl ProtoMessage);

    fn tag(&mut self, number: u32, kind: u32) {
        self.varint(u64::from(number << 3 | kind));
    }

    fn uint(&mut self, number: u32, value: u64) {
        if value != 0 {
            self.tag(number, 0);
            self.varint(value);
        }
    }

    fn int(&mut self, number: u32, value: i64) {
        self.uint(number, value as u64);
    }

    fn bool(&mut self, number: u32, value: bool) {
        self.uint(number, u64::from(value));
    }

    fn bytes(&mut self, number: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.element(number, bytes);
        }
    }

    /// An element of repeated bytes or strings, present even where it is empty.
    fn element(&mut self, number: u32, bytes: &[u8]) {
        self.tag(number, 2);
        self.varint(bytes.len() as u64);
        self.raw(bytes);
    }
}

/// Something with fields.
pub(super) trait ProtoMessage {
    fn fields(&self, sink: &mut impl Sink);
}

/// The bytes that fields would take.
#[derive(Default)]
pub(super) struct Length(usize);

impl Length {
    pub fn of(message: &impl ProtoMessage) -> usize {
        let mut length = Length::default();
        message.fields(&mut length);
        length.0
    }

    pub fn bytes(&self) -> usize {
        self.0
    }
}

impl Sink for Length {
    #[inline]
    fn varint(&mut self, value: u64) {
        let bits = 64 - (value | 1).leading_zeros();
        self.0 += bits.div_ceil(7) as usize;
    }
    #[inline]
    fn raw(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
    fn message(&mut self, number: u32, message: &impl ProtoMessage) {
        let before = self.0;
        message.fields(self);
        let length = self.0 - before;
        self.tag(number, 2);
        self.varint(length as u64);
    }
}

impl Sink for Vec<u8> {
    #[inline]
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.push(value as u8);
    }
    #[inline]
    fn raw(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
    fn message(&mut self, number: u32, message: &impl ProtoMessage) {
        self.tag(number, 2);
        self.varint(Length::of(message) as u64);
        message.fields(self);
    }
}
