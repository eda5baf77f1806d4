//! stub
use crate::mvcc::Change;
use crate::record::{CutRecord, MemberRecord};
use crate::takeover::Seal;
use crate::types::*;
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LeaseRecord {
    pub id: i64,
    pub ttl_secs: i64,
}
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ControlState {
    pub cluster: u64,
    pub token: String,
    pub members: Vec<MemberRecord>,
    pub cuts: Vec<CutRecord>,
    pub leases: Vec<LeaseRecord>,
    pub alarms: Vec<(u64, u8)>,
    pub compacted: u64,
}
pub struct Meta {
    pub shard: ShardId,
    pub home: u32,
    pub file: u64,
    pub revision: Revision,
    pub index: Index,
    pub term: Term,
    pub voters: Vec<MemberId>,
    pub fence: Epoch,
    pub seal: Seal,
    pub compacted: Revision,
    pub control: Option<ControlState>,
}
pub struct Writer;
impl Writer {
    pub fn new(_: Meta) -> Writer {
        Writer
    }
    pub fn begin(&mut self, _: &mut Vec<u8>) {}
    pub fn add(&mut self, _: At, _: &Change, _: &mut Vec<u8>) {}
    pub fn finish(self, _: &mut Vec<u8>) {}
}
pub fn name(shard: ShardId, file: u64) -> String {
    format!("{shard}-{file}.ckpt")
}
pub fn unfinished_name(shard: ShardId, file: u64) -> String {
    format!("{shard}-{file}.tmp")
}
