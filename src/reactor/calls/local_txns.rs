//! Transactions that only read, and need not read the newest: any member answers them from what it shows, whoever
//! leads.
//!
//! What it shows when the transaction comes is noted. Its compares and then the operations of the branch taken are
//! ranges at that revision, one after the other. Where a compaction goes beyond it meanwhile, all begins anew.

use super::{CallState, Calls, ReplyTo, Turn};
use crate::api::{Answer, Error, Op, OpReply, RangeRequest, Reply, TxnReply, TxnRequest};
use crate::io::CallId;
use crate::txn::{self, Counting};
use crate::types::{Revision, Time};

#[derive(Debug)]
pub(super) struct LocalTxn {
    txn: TxnRequest,
    /// What was shown when it came.
    at: Revision,
    /// So many compares hold.
    compared: usize,
    /// Which branch is taken, once that is known.
    succeeded: Option<bool>,
    responses: Vec<OpReply>,
}

impl LocalTxn {
    fn ops(&self, succeeded: bool) -> &[Op] {
        if succeeded { &self.txn.success } else { &self.txn.failure }
    }

    /// The range that it needs next; none where it has all.
    fn next(&self) -> Option<(RangeRequest, Counting)> {
        let Some(succeeded) = self.succeeded else {
            assert!(self.compared < self.txn.compare.len(), "a branch is chosen once all is compared");
            let compare = &self.txn.compare[self.compared];
            let (key, range_end) = (compare.key.clone(), compare.range_end.clone());
            let range = RangeRequest { key, range_end, revision: self.at.wire(), ..Default::default() };
            return Some((range, Counting::Total));
        };
        let Op::Range(range) = self.ops(succeeded).get(self.responses.len())? else {
            unreachable!("it only reads")
        };
        let revision = if range.revision <= 0 { self.at.wire() } else { range.revision };
        Some((RangeRequest { revision, ..range.clone() }, Counting::Total))
    }
}

impl Calls {
    pub(super) fn read_txn(&mut self, turn: &mut Turn, reply_to: ReplyTo, txn: TxnRequest, deadline: Time) {
        assert!(txn.is_serializable(), "what writes, or reads the newest, is the leader's");
        let bytes = txn.bytes();
        let succeeded = txn.compare.is_empty().then_some(true);
        let local = LocalTxn { txn, at: turn.shown(), compared: 0, succeeded, responses: vec![] };
        let call = self.begin_until(turn, reply_to, CallState::LocalTxn(Box::new(local)), bytes, deadline);
        self.go_on_reading(turn, call);
    }

    fn local_txn_of(&mut self, call: CallId) -> Option<&mut LocalTxn> {
        match &mut self.under_way.get_mut(call)?.state {
            CallState::LocalTxn(local) => Some(local),
            _ => unreachable!("only a transaction that reads gets ranges so"),
        }
    }

    fn go_on_reading(&mut self, turn: &mut Turn, call: CallId) {
        let Some(local) = self.local_txn_of(call) else { return };
        if let Some(succeeded) = local.succeeded.filter(|_| local.responses.is_empty()) {
            let at = local.at;
            let named = local.ops(succeeded).iter().filter_map(|op| match op {
                Op::Range(range) => Some(range.revision),
                _ => None,
            });
            let compacted = *turn.compacted;
            let refused =
                named.map(|named| txn::check_read_in_txn(named, at, compacted)).find(Result::is_err);
            if let Some(Err(error)) = refused {
                return self.finish(turn, call, Err(error));
            }
        }
        if let Some((range, counting)) = local.next() {
            return self.ready.push_back((ReplyTo::LocalTxn(call), range, counting));
        }
        let succeeded = local.succeeded.expect("what has all has chosen its branch");
        let responses = std::mem::take(&mut local.responses);
        assert!(responses.len() == local.ops(succeeded).len(), "each operation of the branch is answered");
        let reply = TxnReply { revision: local.at, succeeded, responses };
        turn.counters.txns += u64::from(reply.responses.len() > 1);
        self.finish(turn, call, Ok(Reply::Txn(reply)));
    }

    /// A range of such a transaction has come.
    pub(super) fn on_local_range(&mut self, turn: &mut Turn, call: CallId, answer: Answer) {
        // It may have failed at its deadline meanwhile.
        let Some(local) = self.local_txn_of(call) else { return };
        match answer {
            Ok(Reply::Range(mut range)) => {
                assert!(range.revision >= local.at, "what is shown does not fall: {}", range.revision);
                match local.succeeded {
                    None => {
                        turn.counters.ranges -= 1; // compares count nowhere
                        let holds = txn::holds(&local.txn.compare[local.compared], &range.kvs);
                        local.compared += 1;
                        let all = local.compared == local.txn.compare.len();
                        local.succeeded = if holds { all.then_some(true) } else { Some(false) };
                    }
                    Some(_) => {
                        range.revision = local.at;
                        local.responses.push(OpReply::Range(range));
                    }
                }
            }
            Ok(_) => unreachable!("a range is answered by a range"),
            // It was compacted beyond what was noted: what it shows now is not.
            Err(Error::Compacted) if local.at < *turn.compacted => {
                let at = turn.shown();
                let succeeded = local.txn.compare.is_empty().then_some(true);
                (local.at, local.compared, local.succeeded) = (at, 0, succeeded);
                local.responses.clear();
            }
            Err(error) => return self.finish(turn, call, Err(error)),
        }
        self.go_on_reading(turn, call);
    }
}
