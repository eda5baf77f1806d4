//! Requests as etcd's log describes them: in protobuf's text form, without values.

use super::quote::quoted;
use crate::api::{
    Compare, CompareResult, CompareTarget, DeleteRangeRequest, Op, PutRequest, RangeRequest, Request,
    TxnRequest,
};
use crate::limits::REQUEST_TEXT_BYTES_MAX;
use std::fmt::Display;

/// The request in one line; empty where etcd shows nothing of its kind.
pub fn request(request: &Request) -> String {
    let mut text = match request {
        Request::Range(range) => of_range(range),
        Request::Put(put) => of_put(put),
        Request::DeleteRange(delete) => of_delete(delete),
        Request::Txn(txn) => of_txn(txn),
        _ => String::new(),
    };
    if text.len() > REQUEST_TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(REQUEST_TEXT_BYTES_MAX));
        text.push_str("...");
    }
    text
}

/// The field of a key.
pub fn key(key: &[u8]) -> String {
    let mut text = format!("key:{}", quoted(&key[..key.len().min(REQUEST_TEXT_BYTES_MAX)]));
    if key.len() > REQUEST_TEXT_BYTES_MAX {
        text.push_str("...");
    }
    text
}

/// The text of the fields that are not at their default, with a space between them.
#[derive(Default)]
struct TextFields(String);

impl TextFields {
    fn field(&mut self, name: &str, value: impl Display) {
        if !self.0.is_empty() {
            self.0.push(' ');
        }
        self.0.push_str(&format!("{name}:{value}"));
    }

    fn bytes(&mut self, name: &str, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.field(name, quoted(bytes));
        }
    }

    fn int(&mut self, name: &str, number: i64) {
        if number != 0 {
            self.field(name, number);
        }
    }

    fn bool(&mut self, name: &str, on: bool) {
        if on {
            self.field(name, on);
        }
    }

    /// A number with a name, where etcd gives it one.
    fn choice(&mut self, name: &str, number: i32, names: &[&str]) {
        match usize::try_from(number).ok().and_then(|number| names.get(number)) {
            _ if number == 0 => {}
            Some(value) => self.field(name, value),
            None => self.field(name, number),
        }
    }
}

fn of_range(range: &RangeRequest) -> String {
    let mut fields = TextFields::default();
    fields.bytes("key", &range.key);
    fields.bytes("range_end", &range.range_end);
    fields.int("limit", range.limit);
    fields.int("revision", range.revision);
    fields.choice("sort_order", range.sort_order, &["NONE", "ASCEND", "DESCEND"]);
    fields.choice("sort_target", range.sort_target, &["KEY", "VERSION", "CREATE", "MOD", "VALUE"]);
    fields.bool("serializable", range.serializable);
    fields.bool("keys_only", range.keys_only);
    fields.bool("count_only", range.count_only);
    fields.int("min_mod_revision", range.min_mod_revision);
    fields.int("max_mod_revision", range.max_mod_revision);
    fields.int("min_create_revision", range.min_create_revision);
    fields.int("max_create_revision", range.max_create_revision);
    fields.0
}

fn of_put(put: &PutRequest) -> String {
    let mut fields = TextFields::default();
    fields.bytes("key", &put.key);
    fields.int("value_size", put.value.len() as i64);
    fields.int("lease", put.lease.0);
    fields.bool("prev_kv", put.prev_kv);
    fields.bool("ignore_value", put.ignore_value);
    fields.bool("ignore_lease", put.ignore_lease);
    fields.0
}

fn of_delete(delete: &DeleteRangeRequest) -> String {
    let mut fields = TextFields::default();
    fields.bytes("key", &delete.key);
    fields.bytes("range_end", &delete.range_end);
    fields.bool("prev_kv", delete.prev_kv);
    fields.0
}

/// Describes a transaction, no further than the line takes.
fn of_txn(txn: &TxnRequest) -> String {
    let mut text = String::from("compare:<");
    joined(&mut text, txn.compare.iter().map(of_compare));
    text.push_str("> success:<");
    joined(&mut text, txn.success.iter().map(of_op));
    text.push_str("> failure:<");
    joined(&mut text, txn.failure.iter().map(of_op));
    text.push('>');
    text
}

fn joined(text: &mut String, parts: impl Iterator<Item = String>) {
    for (place, part) in parts.enumerate() {
        if text.len() > REQUEST_TEXT_BYTES_MAX {
            return;
        }
        if place > 0 {
            text.push(' ');
        }
        text.push_str(&part);
    }
}

fn of_op(op: &Op) -> String {
    match op {
        Op::Range(range) => format!("request_range:<{}>", of_range(range)),
        Op::Put(put) => format!("request_put:<{}>", of_put(put)),
        Op::DeleteRange(delete) => format!("request_delete_range:<{}>", of_delete(delete)),
        Op::Txn(txn) => format!("request_txn:<{}>", of_txn(txn)),
        Op::Empty => String::new(),
    }
}

fn of_compare(compare: &Compare) -> String {
    let mut fields = TextFields::default();
    let result = match compare.result {
        CompareResult::Equal => 0,
        CompareResult::Greater => 1,
        CompareResult::Less => 2,
        CompareResult::NotEqual => 3,
        CompareResult::Unknown(number) => number,
    };
    fields.choice("result", result, &["EQUAL", "GREATER", "LESS", "NOT_EQUAL"]);
    let target = match compare.target {
        CompareTarget::Version(_) => 0,
        CompareTarget::Create(_) => 1,
        CompareTarget::Mod(_) => 2,
        CompareTarget::Value(_) => 3,
        CompareTarget::Lease(_) => 4,
        CompareTarget::Unknown(number) => number,
    };
    fields.choice("target", target, &["VERSION", "CREATE", "MOD", "VALUE", "LEASE"]);
    fields.bytes("key", &compare.key);
    match &compare.target {
        CompareTarget::Version(number) => fields.field("version", number),
        CompareTarget::Create(number) => fields.field("create_revision", number),
        CompareTarget::Mod(number) => fields.field("mod_revision", number),
        CompareTarget::Value(value) => fields.field("value_size", value.len()),
        CompareTarget::Lease(number) => fields.field("lease", number),
        CompareTarget::Unknown(_) => {}
    }
    fields.bytes("range_end", &compare.range_end);
    fields.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn put(key: &'static str, bytes: usize) -> PutRequest {
        PutRequest { key: Bytes::from(key), value: Bytes::from(vec![b'x'; bytes]), ..Default::default() }
    }

    /// As etcd 3.7.1 was seen to log them.
    #[test]
    fn requests_are_described_as_etcd_describes_them() {
        let range = RangeRequest {
            key: Bytes::from_static(b"a"),
            range_end: Bytes::from_static(b"b"),
            limit: 3,
            ..Default::default()
        };
        let check = |of: Request, text: &str| assert_eq!(request(&of), text);
        check(Request::Put(put("a39", 4000)), r#"key:"a39" value_size:4000"#);
        check(Request::Range(range.clone()), r#"key:"a" range_end:"b" limit:3"#);
        let key = Bytes::from_static(b"k\0\"");
        let target = CompareTarget::Mod(5);
        let compare = Compare { result: CompareResult::Greater, target, key, range_end: Bytes::new() };
        let txn = TxnRequest {
            compare: vec![compare],
            success: vec![Op::Put(put("a", 1)), Op::Range(range)],
            failure: vec![],
        };
        check(
            Request::Txn(txn),
            "compare:<result:GREATER target:MOD key:\"k\\x00\\\"\" mod_revision:5> \
             success:<request_put:<key:\"a\" value_size:1> request_range:<key:\"a\" range_end:\"b\" limit:3>> \
             failure:<>",
        );
        check(Request::Status, "");
    }

    #[test]
    fn a_description_is_bounded() {
        let long = "é".repeat(REQUEST_TEXT_BYTES_MAX);
        let key = Bytes::from(long.into_bytes());
        let text = request(&Request::Put(PutRequest { key, ..Default::default() }));
        assert!(text.len() <= REQUEST_TEXT_BYTES_MAX + 3 && text.ends_with("..."));
        let ops = vec![Op::Put(put("abcdefgh", 1)); 1_000_000];
        let text = request(&Request::Txn(TxnRequest { success: ops, ..Default::default() }));
        assert!(
            text.len() <= REQUEST_TEXT_BYTES_MAX + 3 && text.starts_with("compare:<> success:<request_put")
        );
    }
}
