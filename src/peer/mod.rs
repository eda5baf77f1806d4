//! What members say to each other on the wire, and one link between two of them.
//!
//! A link joins one reactor of a member to one of another, by one connection, both ways. While a state is on its way
//! between the two there is a second one for that alone ([`LinkKind`]). The dialer says [`Hello`] first; the listener
//! answers with its own, or refuses in words and closes. Behind it go frames (`frame.rs` draws them) with the messages of
//! a turn each.
//!
//! **What a link promises.** Messages arrive as they were sent or the link ends with a reason. Those that go first
//! ([`PeerMessage::goes_first`]) pass the others, also between the parts of a long one; the others keep their order,
//! and so do those that go first among themselves, but for long ones, which shorter ones pass. What is not taken
//! because too much waits is told to the sender, and groups' messages are counted: raft sends them again.
//!
//! **What a peer can do to us.** It is not trusted more than a client: nothing is set aside for a stranger but its
//! greeting, for a peer a frame and one long message, as far as its bytes have come. All numbers are looked at
//! before anybody counts with them. What is wrong has a name and ends the link ([`LinkError`]).
//!
//! A link performs no effect: bytes, messages and the time go in, messages and bytes come out.

mod frame;
mod incoming;
mod link;
mod message;
mod outgoing;
mod records;

#[cfg(test)]
mod tests;

pub use frame::greets;
pub use link::{Link, LinkError, LinkEvent, LinkTimes};
pub use message::{CallFailure, Founding, Hello, Introduction, LinkKind, PeerMessage, REMOVED};
pub use outgoing::NotSent;
