//! What the front counts, as etcd's metrics name it.

use super::Method;
use crate::api::Code;

const METHODS: usize = Method::ALL.len();
const CODES: usize = Code::ALL.len();

/// The calls of one method.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MethodCounters {
    pub started: u64,
    pub messages_received: u64,
    pub messages_sent: u64,
    /// By the number of the code.
    pub handled: [u64; CODES],
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub received_bytes: u64,
    pub sent_bytes: u64,
    methods: [MethodCounters; METHODS],
}

impl Counters {
    pub fn of(&self, method: Method) -> &MethodCounters {
        &self.methods[method as usize]
    }

    pub fn of_mut(&mut self, method: Method) -> &mut MethodCounters {
        &mut self.methods[method as usize]
    }

    pub fn handled(&mut self, method: Method, code: Code) {
        self.of_mut(method).handled[code as usize] += 1;
    }

    pub fn add(&mut self, more: &Counters) {
        self.received_bytes += more.received_bytes;
        self.sent_bytes += more.sent_bytes;
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
