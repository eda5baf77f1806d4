//! One connection to another member, from its first byte to its end.

use super::incoming::{Expected, FrameIn, Incoming};
use super::message::{Hello, Introduction, PeerMessage};
use super::outgoing::{NotSent, Outgoing};
use crate::limits::{PEER_SILENT_HEARTBEATS, PeerBounds};
use crate::record::Chunk;
use crate::types::{Duration, Time};
use std::fmt;

/// What has come.
#[derive(Clone, Debug, PartialEq)]
pub enum LinkEvent {
    /// The other end's hello, as far as a link can judge it. At the dialer the link is up; at the listener it waits
    /// for [`Link::answer`] or [`Link::refuse`].
    Hello(Hello),
    Message(PeerMessage),
    /// A ping was answered after so long.
    RoundTrip(Duration),
}

/// Why a link ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkError {
    /// What came is no frame.
    Stranger,
    /// The other end writes another version.
    Version {
        what: &'static str,
        found: u16,
        known: u16,
    },
    Kind {
        found: u8,
    },
    Lengths {
        kind: &'static str,
        why: &'static str,
    },
    /// A frame is missing, or came twice.
    Number {
        found: u64,
        expected: u64,
    },
    Checksum,
    OutOfTurn {
        kind: &'static str,
    },
    Part {
        why: &'static str,
    },
    /// A head is no value of its kind.
    Unreadable,
    Senseless {
        message: &'static str,
        why: &'static str,
    },
    /// The other end is not who was looked for.
    Misfit(String),
    /// The other end says why.
    Refused(String),
    /// Nothing was heard for too long.
    Silent,
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkError::Stranger => f.write_str("what came is no frame of a member"),
            LinkError::Version { what, found, known } => {
                write!(f, "the version of its {what} is {found}, and this program knows {known}")
            }
            LinkError::Kind { found } => write!(f, "it sent a frame of kind {found}, which there is not"),
            LinkError::Lengths { kind, why } => write!(f, "it sent {kind} with a wrong header: {why}"),
            LinkError::Number { found, expected } => {
                write!(f, "frame {found} came where frame {expected} was due")
            }
            LinkError::Checksum => f.write_str("the checksum of a frame is wrong"),
            LinkError::OutOfTurn { kind } => write!(f, "it sent {kind} where that is not due"),
            LinkError::Part { why } => write!(f, "it sent a part of a message that does not fit: {why}"),
            LinkError::Unreadable => f.write_str("the head of a frame cannot be read"),
            LinkError::Senseless { message, why } => {
                write!(f, "it sent {message} that makes no sense: {why}")
            }
            LinkError::Misfit(why) => f.write_str(why),
            LinkError::Refused(why) => write!(f, "it refused the link: {why}"),
            LinkError::Silent => f.write_str("nothing was heard of it for an election timeout"),
        }
    }
}

/// What the patience of a link is measured by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkTimes {
    pub heartbeat: Duration,
    pub election: Duration,
}

enum LinkState {
    /// The dialer has said this and waits for the answer.
    Dialed(Hello),
    /// The listener, being this one, waits for a hello.
    Accepted(Introduction),
    /// The listener has one, and somebody decides.
    Greeted(Introduction, Hello),
    Up,
    /// It ends: nothing goes in or out any more but what was said before.
    Over,
}

/// One end of a connection to another member.
pub struct Link {
    state: LinkState,
    incoming: Incoming,
    outgoing: Outgoing,
    patience: Patience,
    /// When a ping left that is not answered yet.
    pinged: Option<Time>,
    /// Whether one ever was.
    has_answered: bool,
    dropped: u64,
}

impl Link {
    /// At the end that connected: the hello goes out with the next flush.
    pub fn dial(now: Time, hello: Hello, times: LinkTimes, bounds: PeerBounds) -> Link {
        let mut link = Link::new(now, LinkState::Dialed(hello), times, bounds);
        link.outgoing.hello(&hello);
        link
    }

    /// At the end that was connected to.
    pub fn accept(now: Time, own: Introduction, times: LinkTimes, bounds: PeerBounds) -> Link {
        Link::new(now, LinkState::Accepted(own), times, bounds)
    }

    fn new(now: Time, state: LinkState, times: LinkTimes, bounds: PeerBounds) -> Link {
        Link {
            state,
            incoming: Incoming::default(),
            outgoing: Outgoing::new(bounds),
            patience: Patience::new(now, times),
            pinged: None,
            has_answered: false,
            dropped: 0,
        }
    }

    /// Whether both ends have said hello, and no error has come since.
    pub fn is_up(&self) -> bool {
        matches!(self.state, LinkState::Up)
    }

    /// Whether the other end has answered something: what is said here is heard there, and not only the reverse.
    pub fn has_answered(&self) -> bool {
        self.has_answered
    }

    /// Groups' messages that were not sent, since too much waited.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Takes bytes in. What came before an error counts; behind it nothing does. The listener may refuse in its words;
    /// else the connection is to be closed.
    pub fn receive(
        &mut self,
        now: Time,
        mut bytes: &[u8],
        events: &mut Vec<LinkEvent>,
    ) -> Result<(), LinkError> {
        if self.is_up() && !bytes.is_empty() {
            self.patience.heard(now);
        }
        while !bytes.is_empty() && !matches!(self.state, LinkState::Over) {
            if let Err(error) = self.receive_frame(now, &mut bytes, events) {
                if matches!(self.state, LinkState::Greeted(..)) {
                    // Nobody is to decide about a link that has ended.
                    events.retain(|event| !matches!(event, LinkEvent::Hello(_)));
                }
                self.state = LinkState::Over;
                return Err(error);
            }
        }
        Ok(())
    }

    fn receive_frame(
        &mut self,
        now: Time,
        bytes: &mut &[u8],
        events: &mut Vec<LinkEvent>,
    ) -> Result<(), LinkError> {
        let expected = match self.state {
            LinkState::Dialed(_) => Expected::HelloOrRefusal,
            LinkState::Accepted(_) => Expected::Hello,
            LinkState::Greeted(..) | LinkState::Over => Expected::Nothing,
            LinkState::Up => Expected::Messages,
        };
        let Some(frame) = self.incoming.next(bytes, expected)? else { return Ok(()) };
        match frame {
            FrameIn::Hello(hello) => self.hello(now, hello, events)?,
            FrameIn::Refusal(why) => return Err(LinkError::Refused(why)),
            FrameIn::Ping => self.outgoing.pong(),
            FrameIn::Pong => {
                self.has_answered = true;
                events.extend(self.pinged.take().map(|pinged| LinkEvent::RoundTrip(now.since(pinged))));
            }
            FrameIn::Word => {}
            FrameIn::Messages(messages) => events.extend(messages.into_iter().map(LinkEvent::Message)),
        }
        Ok(())
    }

    fn hello(&mut self, now: Time, hello: Hello, events: &mut Vec<LinkEvent>) -> Result<(), LinkError> {
        match self.state {
            LinkState::Dialed(own) => {
                if let Some(why) = own.misfit(&hello) {
                    return Err(LinkError::Misfit(why));
                }
                self.go_up(now);
            }
            LinkState::Accepted(own) => {
                if let Some(why) = hello.refusal(&own) {
                    return Err(LinkError::Misfit(why));
                }
                self.state = LinkState::Greeted(own, hello);
            }
            LinkState::Greeted(..) | LinkState::Up | LinkState::Over => unreachable!("a hello is not due"),
        }
        events.push(LinkEvent::Hello(hello));
        Ok(())
    }

    fn go_up(&mut self, now: Time) {
        self.state = LinkState::Up;
        self.patience.begin(now);
    }

    /// The listener takes the link: it is up. One that has ended since its hello came stays as it is.
    pub fn answer(&mut self, now: Time) {
        let LinkState::Greeted(own, hello) = self.state else { return };
        self.outgoing.hello(&hello.answer(own));
        self.go_up(now);
    }

    /// Ends the link from this side, whatever its state: with the next flush the other end hears why, and behind it
    /// the connection is to be closed.
    pub fn refuse(&mut self, why: &str) {
        self.outgoing.refusal(why);
        self.state = LinkState::Over;
    }

    /// Queues a message for the next flush.
    pub fn send(&mut self, message: PeerMessage) -> Result<(), NotSent> {
        if !self.is_up() {
            return Err(NotSent::NotUp);
        }
        let is_group = matches!(message, PeerMessage::Group { .. });
        let sent = self.outgoing.push(message);
        self.dropped += u64::from(is_group && sent.is_err());
        sent
    }

    /// So many of the bytes handed out are with the kernel.
    pub fn sent(&mut self, bytes: usize) {
        self.outgoing.sent(bytes);
    }

    /// Hands out what may go now, in order. What waits goes with a later flush, behind [`Link::sent`].
    pub fn flush(&mut self, out: &mut Vec<Chunk>) {
        let before = out.len();
        self.outgoing.flush_greeting(out);
        if self.is_up() {
            self.outgoing.flush(out);
        }
        if out.len() > before {
            self.patience.said();
        }
    }

    /// Asks for a word, so that it is known how long a round trip takes.
    pub fn probe(&mut self, now: Time) {
        if self.is_up() && self.pinged.is_none() {
            self.pinged = Some(now);
            self.outgoing.ping();
        }
    }

    /// When [`Link::wake`] is to be called.
    pub fn wake_at(&self) -> Time {
        match self.state {
            LinkState::Over => Time::NEVER,
            LinkState::Up => self.patience.question_due().min(self.patience.word_due()),
            LinkState::Dialed(_) | LinkState::Accepted(_) | LinkState::Greeted(..) => {
                self.patience.greeting_ends()
            }
        }
    }

    /// Looks whether either end is silent: the other one is asked for a word, and in the end the link is dead. A flush
    /// is to follow.
    pub fn wake(&mut self, now: Time) -> Result<(), LinkError> {
        if now < self.wake_at() {
            return Ok(());
        }
        if !self.is_up() {
            self.state = LinkState::Over;
            return Err(LinkError::Silent);
        }
        if now < self.patience.question_due() {
            self.outgoing.word();
        } else if self.patience.asked.replace(now).is_none() {
            self.pinged.get_or_insert(now);
            self.outgoing.ping();
        } else {
            self.state = LinkState::Over;
            return Err(LinkError::Silent);
        }
        self.patience.said();
        Ok(())
    }
}

/// How long silence is borne. A peer that was not asked is not dead: a process that stood still itself for a while
/// asks first, and then waits for the rest of the time. Who hears much and has nothing to say gives a word unasked,
/// since the question may stand behind a long message on a slow line.
struct Patience {
    /// From the last word to a question.
    ask: Duration,
    /// From the last word to the end of a link whose question is not answered.
    end: Duration,
    /// Since when nothing was heard.
    heard: Time,
    asked: Option<Time>,
    /// When something was heard first since the last word of this end.
    unanswered: Option<Time>,
}

impl Patience {
    fn new(now: Time, times: LinkTimes) -> Patience {
        let end = times.election;
        let ask = Duration(times.heartbeat.0.saturating_mul(PEER_SILENT_HEARTBEATS).min(end.0 / 2));
        Patience { ask, end, heard: now, asked: None, unanswered: None }
    }

    /// Both ends have greeted: the time is counted anew.
    fn begin(&mut self, now: Time) {
        (self.heard, self.asked, self.unanswered) = (now, None, None);
    }

    fn heard(&mut self, now: Time) {
        (self.heard, self.asked) = (now, None);
        self.unanswered.get_or_insert(now);
    }

    fn said(&mut self) {
        self.unanswered = None;
    }

    /// When the peer is to be asked, or has not answered.
    fn question_due(&self) -> Time {
        match self.asked {
            None => self.heard + self.ask,
            Some(asked) => asked + Duration(self.end.0 - self.ask.0),
        }
    }

    /// When this end has heard for so long without a word of its own that the peer may doubt it.
    fn word_due(&self) -> Time {
        self.unanswered.map_or(Time::NEVER, |since| since + self.ask)
    }

    fn greeting_ends(&self) -> Time {
        self.heard + self.end
    }
}
