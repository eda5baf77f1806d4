//! What a connection is to send and the kernel has not taken: pieces, in the order in which they go.
//!
//! The pieces at the front may be in a send, which reads them where they lie: until it has come back they are
//! neither changed nor let go. A piece that several connections send is shared by them, and never copied.

use crate::io::Chunk;
use crate::limits::{SEND_BYTES_MAX, SEND_MERGED_BYTES_MAX, SEND_PIECES_MAX};
use std::collections::VecDeque;
use std::io::IoSlice;

#[derive(Default)]
pub struct Unsent {
    pieces: VecDeque<Chunk>,
    /// How much of the first piece is gone.
    gone: usize,
    bytes: usize,
    /// How many pieces at the front are in a send.
    in_flight: usize,
}

impl Unsent {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_in_flight(&self) -> bool {
        self.in_flight > 0
    }

    /// Adds a piece at the end. Short ones that nobody shares become one.
    pub fn push(&mut self, piece: Chunk) {
        let added = piece.bytes().len();
        if added == 0 {
            return;
        }
        self.bytes += added;
        let is_free = self.pieces.len() > self.in_flight;
        match (self.pieces.back_mut().filter(|_| is_free), piece) {
            (Some(Chunk::Bytes(last)), Chunk::Bytes(bytes)) if added <= SEND_MERGED_BYTES_MAX => {
                last.extend_from_slice(&bytes);
            }
            (_, piece) => self.pieces.push_back(piece),
        }
    }

    /// The bytes of one send, in pieces, which are in flight from now on.
    pub fn begin(&mut self) -> Vec<IoSlice<'_>> {
        assert!(self.in_flight == 0, "one send is in flight at a time");
        let slices = slices(&self.pieces, self.gone);
        self.in_flight = slices.len();
        slices
    }

    /// A send has come back that took so many bytes.
    pub fn ended(&mut self, taken: usize) {
        self.in_flight = 0;
        self.taken(taken);
    }

    /// So many bytes at the front are gone.
    pub fn taken(&mut self, taken: usize) {
        assert!(self.in_flight == 0, "what is in flight is not let go");
        self.bytes = self.bytes.checked_sub(taken).expect("no more is sent than there was");
        self.gone += taken;
        while let Some(first) = self.pieces.front()
            && self.gone >= first.bytes().len()
        {
            self.gone -= first.bytes().len();
            self.pieces.pop_front();
        }
        assert!(self.gone == 0 || !self.pieces.is_empty(), "nothing is gone of nothing");
    }

    /// Lets go of all that no send reads.
    pub fn give_up(&mut self) {
        self.pieces.truncate(self.in_flight);
        if self.in_flight == 0 {
            self.gone = 0;
        }
        self.bytes = self.pieces.iter().map(|piece| piece.bytes().len()).sum::<usize>() - self.gone;
    }
}

/// What one send takes of pieces of which the first is partly gone.
fn slices(pieces: &VecDeque<Chunk>, gone: usize) -> Vec<IoSlice<'_>> {
    let (mut left, mut gone) = (SEND_BYTES_MAX, gone);
    let mut slices = Vec::with_capacity(pieces.len().min(SEND_PIECES_MAX));
    for piece in pieces.iter().take(SEND_PIECES_MAX) {
        let bytes = &piece.bytes()[std::mem::take(&mut gone)..];
        let bytes = &bytes[..bytes.len().min(left)];
        left -= bytes.len();
        slices.push(IoSlice::new(bytes));
        if left == 0 {
            break;
        }
    }
    slices
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Payload;

    fn bytes(text: &str) -> Chunk {
        Chunk::Bytes(text.into())
    }

    fn all(slices: &[IoSlice<'_>]) -> Vec<u8> {
        slices.iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn pieces_go_in_order_whatever_the_kernel_takes() {
        for step in 1..12 {
            let mut unsent = Unsent::default();
            for piece in [bytes("ab"), bytes("cd"), Chunk::Payload(Payload::copy_of(b"efg")), bytes("")] {
                unsent.push(piece);
            }
            let (mut sent, mut later) = (vec![], Some(bytes("hij")));
            while unsent.bytes() > 0 {
                let sending = all(&unsent.begin());
                assert!(unsent.is_in_flight() && sending.len() <= unsent.bytes());
                later.take().into_iter().for_each(|piece| unsent.push(piece));
                let taken = step.min(sending.len());
                sent.extend_from_slice(&sending[..taken]);
                unsent.ended(taken);
            }
            assert_eq!(sent, b"abcdefghij", "{step}");
            assert!(!unsent.is_in_flight() && unsent.begin().is_empty());
        }
    }

    #[test]
    fn a_shared_piece_is_sent_where_it_lies() {
        let payload = Payload::copy_of(b"shared");
        let mut unsent = Unsent::default();
        unsent.push(bytes("head"));
        unsent.push(Chunk::Payload(payload.clone()));
        unsent.push(bytes("next"));
        let sending = unsent.begin();
        assert_eq!((sending.len(), sending[1].as_ptr()), (3, payload.bytes().as_ptr()));
    }

    #[test]
    fn what_is_in_flight_stays_where_it_is() {
        let mut unsent = Unsent::default();
        unsent.push(bytes("in flight"));
        let first = unsent.begin()[0].as_ptr();
        unsent.push(bytes("behind"));
        unsent.push(bytes(" it"));
        unsent.give_up();
        assert!(unsent.is_in_flight() && unsent.bytes() == 9);
        unsent.ended(3);
        assert_eq!(unsent.begin()[0].as_ptr(), first.wrapping_add(3));
        unsent.ended(0);
        unsent.give_up();
        assert_eq!((unsent.bytes(), unsent.begin().len()), (0, 0));
    }

    #[test]
    fn one_send_is_bounded() {
        let mut unsent = Unsent::default();
        (0..2 * SEND_PIECES_MAX).for_each(|_| unsent.push(Chunk::Payload(Payload::copy_of(b"p"))));
        assert_eq!(unsent.begin().len(), SEND_PIECES_MAX);
        let mut unsent = Unsent::default();
        (0..2).for_each(|_| unsent.push(Chunk::Bytes(vec![0; SEND_BYTES_MAX - 1])));
        assert_eq!(
            unsent.begin().iter().map(|slice| slice.len()).collect::<Vec<_>>(),
            [SEND_BYTES_MAX - 1, 1]
        );
    }
}
