//! Evaluation on a single shard: all steps in one go.

use super::cross_shard::{Stamp, finish_op};
use super::execute::{Changed, OpPart, Places, check_put_state, precheck, put, run};
use super::{Branches, EpochEnded, LeaseMove, Refusal};
use crate::api::{
    DeleteRangeReply, DeleteRangeRequest, Op, OpReply, PutReply, PutRequest, TxnReply, TxnRequest,
};
use crate::mvcc::Store;
use crate::record::Effect;
use crate::types::{KeyRange, LeaseId, Revision};
use bytes::Bytes;

static EVERYTHING: [KeyRange; 1] = [KeyRange::From(Bytes::new())];

/// What an evaluation gave. Without an effect nothing changed and no revision was taken: then the reply is a
/// linearizable read at the current revision.
#[derive(Debug)]
pub struct Evaluated<T> {
    pub reply: T,
    pub effect: Option<Effect>,
    pub leases: Vec<LeaseMove>,
}

impl<T> Evaluated<T> {
    /// The same with another reply.
    pub fn map<R>(self, of: impl FnOnce(T) -> R) -> Evaluated<R> {
        Evaluated { reply: of(self.reply), effect: self.effect, leases: self.leases }
    }

    fn new(reply: T, revision: Option<Revision>, changed: Changed) -> Evaluated<T> {
        let changes = changed.changes.len();
        assert!(revision.is_some() == (changes > 0), "a revision is taken for changes, and only for those");
        let moves = changed.leases.len();
        assert!(moves == 0 || changes > 0, "a key changes its lease with a write");
        let effect =
            revision.map(|revision| Effect { revision, parts: 1, more: false, changes: changed.changes });
        Evaluated { reply, effect, leases: changed.leases }
    }
}

/// A put that passed [`super::check_put`]. `leases` says whether a lease exists.
pub fn evaluate_put(
    store: &mut Store,
    request: &PutRequest,
    leases: &dyn Fn(LeaseId) -> bool,
    take: &mut dyn FnMut() -> Result<Revision, EpochEnded>,
) -> Result<Evaluated<PutReply>, Refusal> {
    check_put_state(store, request, false, leases)?;
    let mut changed = Changed::default();
    changed.changes.reserve_exact(1);
    let mut places = Places::Taking { take, next: None };
    let prev_kv = put(store, request, &mut places, &mut changed)?;
    let revision = places.taken().expect("a put takes a revision");
    assert!(changed.changes.len() == 1, "a put is one change");
    let reply = PutReply { revision, prev_kv };
    Ok(Evaluated::new(reply, Some(revision), changed))
}

/// A delete that passed [`super::check_delete`]. `current` is the revision the reply shows where there was
/// nothing to delete.
pub fn evaluate_delete_range(
    store: &mut Store,
    request: &DeleteRangeRequest,
    current: Revision,
    delete_list_max: usize,
    take: &mut dyn FnMut() -> Result<Revision, EpochEnded>,
) -> Result<Evaluated<DeleteRangeReply>, Refusal> {
    let mut changed = Changed::new(delete_list_max);
    let mut places = Places::Taking { take, next: None };
    let OpPart::Delete { deleted, prev_kvs } =
        super::execute::delete(store, &EVERYTHING, request, &mut places, &mut changed)?
    else {
        unreachable!("a delete gives a delete's part");
    };
    let taken = places.taken();
    assert!(taken.is_some() == (deleted > 0), "a delete that deletes takes a revision, and no other");
    assert!(taken.is_none_or(|taken| taken > current), "a revision is taken after what was read: {taken:?}");
    let reply = DeleteRangeReply { revision: taken.unwrap_or(current), deleted, prev_kvs };
    Ok(Evaluated::new(reply, taken, changed))
}

/// A transaction that passed [`super::check_txn`]. `current` is the newest revision taken so far.
pub fn evaluate_txn(
    store: &mut Store,
    request: &TxnRequest,
    current: Revision,
    delete_list_max: usize,
    leases: &dyn Fn(LeaseId) -> bool,
    take: &mut dyn FnMut() -> Result<Revision, EpochEnded>,
) -> Result<Evaluated<TxnReply>, Refusal> {
    let branches = Branches::on(store, request);
    if let Some((_, error)) = precheck(store, &EVERYTHING, request, &branches, current, leases) {
        return Err(Refusal::Client(error));
    }
    let mut execution = Execution {
        store,
        places: Places::Taking { take, next: None },
        changed: Changed::new(delete_list_max),
        stamp: Stamp::new(current),
    };
    let mut decisions = branches.decisions();
    let mut reply = execution.level(request, &mut decisions)?;
    assert!(decisions.next().is_none(), "all decisions were used");
    let taken = execution.places.taken();
    execution.stamp.finish(&mut reply, taken);
    Ok(Evaluated::new(reply, taken, execution.changed))
}

struct Execution<'a> {
    store: &'a mut Store,
    places: Places<'a>,
    changed: Changed,
    stamp: Stamp,
}

impl Execution<'_> {
    fn level(
        &mut self,
        request: &TxnRequest,
        branches: &mut dyn Iterator<Item = bool>,
    ) -> Result<TxnReply, EpochEnded> {
        let succeeded = branches.next().expect("the branches have a decision for every transaction taken");
        let ops = super::branches::branch(request, succeeded);
        let mut responses = Vec::with_capacity(ops.len());
        for op in ops {
            responses.push(match op {
                Op::Txn(nested) => OpReply::Txn(self.level(nested, branches)?),
                op => {
                    let part = run(self.store, &EVERYTHING, op, &mut self.places, &mut self.changed)?;
                    self.stamp.op(!self.changed.changes.is_empty());
                    finish_op(op, std::iter::once(part))
                }
            });
        }
        Ok(TxnReply { revision: Revision::NONE, succeeded, responses })
    }
}
