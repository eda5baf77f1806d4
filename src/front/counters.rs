//! What the front counts, as etcd's metrics name it.

use crate::api::Code;
use crate::wire::Method;
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counters {
    pub received_bytes: u64,
    pub sent_bytes: u64,
    pub messages_received: u64,
    pub messages_sent: u64,
    /// By method.
    pub started: BTreeMap<Method, u64>,
    /// By method and code.
    pub handled: BTreeMap<(Method, Code), u64>,
}

impl Counters {
    pub(super) fn started(&mut self, method: Method) {
        *self.started.entry(method).or_default() += 1;
    }

    pub(super) fn handled(&mut self, method: Method, code: Code) {
        *self.handled.entry((method, code)).or_default() += 1;
    }

    pub fn add(&mut self, more: &Counters) {
        self.received_bytes += more.received_bytes;
        self.sent_bytes += more.sent_bytes;
        self.messages_received += more.messages_received;
        self.messages_sent += more.messages_sent;
        for (method, count) in &more.started {
            *self.started.entry(*method).or_default() += count;
        }
        for (key, count) in &more.handled {
            *self.handled.entry(*key).or_default() += count;
        }
    }
}
