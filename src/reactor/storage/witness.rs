//! This reactor's log keeps the words of the others, each in its turn.

use super::{Storage, Turn};
use crate::log::LogId;

/// How many other logs are looked at for one frame: each may be a cache line of another CPU.
const LOOKS_MAX: u16 = 4;

/// What this reactor's log has kept.
#[derive(Default)]
pub(super) struct Heard {
    /// The log that was looked at last.
    last: u16,
    /// The highest frame of each log that was given to this one.
    frames: Vec<u64>,
    /// The segment for which all words were noted last: its header says them, or if that has left the next one's.
    segment: u64,
}

impl Heard {
    pub fn new(reactors: u16) -> Heard {
        Heard { last: 0, frames: vec![0; usize::from(reactors)], segment: 0 }
    }
}

impl Storage {
    /// Before a frame leaves, the log gets the word of another that has something new to say; a word that no
    /// frame has taken is made new.
    pub(super) fn hear_of_others(&mut self, turn: &mut Turn) {
        if self.log.queued_bytes() == 0 && self.log.wake_at() > turn.now {
            return;
        }
        let segment = self.log.open_segment();
        if segment != self.heard.segment {
            self.heard.segment = segment;
            let others = (0..turn.reactors).filter(|log| *log != turn.id.0).map(|log| LogId(u32::from(log)));
            for word in others.filter_map(|log| turn.sequencer.testimony(log)) {
                self.log.note_word(word);
            }
        }
        if let Some(LogId(log)) = self.log.heard() {
            self.hear(turn, log as u16);
            return;
        }
        for _ in 0..LOOKS_MAX.min(turn.reactors) {
            self.heard.last = (self.heard.last + 1) % turn.reactors;
            if self.heard.last != turn.id.0 && self.hear(turn, self.heard.last) {
                return;
            }
        }
    }

    fn hear(&mut self, turn: &mut Turn, log: u16) -> bool {
        let Some(word) = turn.sequencer.testimony(LogId(u32::from(log))) else { return false };
        let known = &mut self.heard.frames[usize::from(log)];
        assert!(word.frame >= *known, "a log takes nothing back of what it had acknowledged");
        let new = word.frame > *known;
        if new {
            *known = word.frame;
            self.log.hear(word);
        }
        new
    }
}
