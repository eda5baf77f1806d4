//! Checkpoints, beside a log that gets no further.

use super::*;

/// The log stands, as it does when the disk has no room for its next segment. Checkpoints free nothing then,
/// and one after the other would fill what room there is.
#[test]
fn no_checkpoint_begins_before_the_last_one_counts() {
    let mut member = Member::with(1, Settings { checkpoint_log_bytes: 1, ..settings(1) });
    for n in 0..10 {
        member.put("a", &n.to_string());
    }
    let before = member.checkpoints;
    assert!(before > 1, "they are due all the time");
    member.disk_stands = true;
    let put = proto::PutRequest { key: Bytes::from_static(b"b"), ..Default::default() };
    member.ask("/etcdserverpb.KV/Put", &put);
    (0..200).for_each(|_| _ = member.turn_all());
    assert!(member.checkpoints <= before + 1, "{} more", member.checkpoints - before);
    member.write_all();
    member.put("a", "after");
    assert!(member.checkpoints > before + 1);
}
