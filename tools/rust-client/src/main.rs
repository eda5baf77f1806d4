//! Drives a server with the Rust client `etcd-client` and checks what it returns: `rust-client URL`.
//!
//! The client is made from etcd's proto files by tonic, on top of hyper and h2: it shares no line with Go's
//! gRPC nor with Google's. One line is printed a check; the first mismatch ends the program with status 1.
//! The server may hold other keys, but nobody should write beside this program.

use etcd_client::{
    AlarmAction, AlarmType, Client, CompactionOptions, Compare, CompareOp, DeleteOptions, Error, EventType,
    GetOptions, KeyValue, LeaseTimeToLiveOptions, PutOptions, SortOrder, SortTarget, Txn, TxnOp,
    TxnOpResponse, WatchFilterType, WatchOptions, WatchResponse, WatchStream,
};
use std::fmt::Debug;
use std::process::exit;
use std::time::Duration;

type Done = Result<(), Error>;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let url = match &words[..] {
        [help] if ["--help", "-h"].contains(&help.as_str()) => {
            println!(
                "rust-client URL drives an empty server with a Rust client and says what is not as it should be."
            );
            return;
        }
        [url] if !url.starts_with('-') => url.as_str(),
        _ => {
            eprintln!("rust-client: one URL is needed, and nothing else; try --help");
            exit(2);
        }
    };
    if let Err(error) = run(url).await {
        println!("FAILED with {error}");
        exit(1);
    }
}

async fn run(url: &str) -> Done {
    let mut client = Client::connect([url], None).await?;
    client.delete("rust/", Some(DeleteOptions::new().with_prefix())).await?;
    puts_and_gets(&mut client).await?;
    ranges(&mut client).await?;
    deletes(&mut client).await?;
    transactions(&mut client).await?;
    watches(&mut client).await?;
    old_watches(&mut client).await?;
    compaction(&mut client).await?;
    leases(&mut client).await?;
    maintenance(&mut client).await?;
    members(&mut client).await
}

/// The values are equal.
fn same<T: PartialEq<U> + Debug, U: Debug>(name: &str, had: T, wanted: U) {
    if had != wanted {
        println!("FAILED {name}\n  wanted: {wanted:?}\n  had:    {had:?}");
        exit(1);
    }
    println!("ok {name}");
}

/// A call fails with this code (gRPC's number) and text.
fn refused<T: Debug>(name: &str, had: Result<T, Error>, code: i32, text: &str) {
    match had {
        Err(Error::GRpcStatus(status)) => {
            same(name, (status.code() as i32, status.message()), (code, text));
        }
        other => {
            println!("FAILED {name}\n  wanted: {text}\n  had:    {other:?}");
            exit(1);
        }
    }
}

fn texts<'a>(kvs: impl IntoIterator<Item = &'a KeyValue>) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    kvs.into_iter().map(|kv| (text(kv.key()), text(kv.value()))).collect()
}

fn pairs(wanted: &[(&str, &str)]) -> Vec<(String, String)> {
    wanted.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

async fn revision(client: &mut Client) -> Result<i64, Error> {
    Ok(client.get("rust/", None).await?.header().map_or(0, |header| header.revision()))
}

async fn puts_and_gets(client: &mut Client) -> Done {
    let first = client.put("rust/a", "1", None).await?;
    let second = client.put("rust/a", "2", Some(PutOptions::new().with_prev_key())).await?;
    same("put --prev-kv", texts(second.prev_key()), pairs(&[("rust/a", "1")]));
    let revisions = [first.header(), second.header()].map(|header| header.map_or(0, |h| h.revision()));
    same("revisions follow each other", revisions[1], revisions[0] + 1);
    let got = client.get("rust/a", None).await?;
    let [kv] = got.kvs() else { return Ok(same("get", got.kvs().len(), 1)) };
    same("get", texts([kv]), pairs(&[("rust/a", "2")]));
    same("revisions of a key", [kv.create_revision(), kv.mod_revision()], revisions);
    same("version of a key", (kv.version(), kv.lease(), got.count(), got.more()), (2, 0, 1, false));
    same("get of nothing", client.get("rust/none", None).await?.count(), 0);
    let old = client.get("rust/a", Some(GetOptions::new().with_revision(revisions[0]))).await?;
    same("get of an old revision", texts(old.kvs()), pairs(&[("rust/a", "1")]));
    let future = GetOptions::new().with_revision(revisions[1] + 1_000_000);
    let text = "etcdserver: mvcc: required revision is a future revision";
    refused("get of the future", client.get("rust/a", Some(future)).await, 11, text);
    refused("put of an empty key", client.put("", "x", None).await, 3, "etcdserver: key is not provided");
    let ignoring = || Some(PutOptions::new().with_ignore_value());
    let text = "etcdserver: key not found";
    refused("put --ignore-value of a missing key", client.put("rust/none", "", ignoring()).await, 3, text);
    client.put("rust/a", "", ignoring()).await?;
    let got = client.get("rust/a", Some(GetOptions::new().with_serializable())).await?;
    same("get after --ignore-value", texts(got.kvs()), pairs(&[("rust/a", "2")]));
    let large = vec![b'x'; 1 << 20];
    client.put("rust/large", large.clone(), None).await?;
    let got = client.get("rust/large", None).await?;
    same("a value of 1 MiB", got.kvs().first().map(|kv| kv.value() == large), Some(true));
    let text = "etcdserver: request is too large";
    refused("a request too large", client.put("rust/large", vec![0; 1_600_000], None).await, 3, text);
    client.delete("rust/large", None).await?;
    Ok(())
}

async fn ranges(client: &mut Client) -> Done {
    for key in ["rust/b", "rust/c", "rust/d"] {
        client.put(key, &key[5..], None).await?;
    }
    let prefix = || GetOptions::new().with_prefix();
    let all = pairs(&[("rust/a", "2"), ("rust/b", "b"), ("rust/c", "c"), ("rust/d", "d")]);
    same("get --prefix", texts(client.get("rust/", Some(prefix())).await?.kvs()), all.clone());
    let got = client.get("rust/b", Some(GetOptions::new().with_range("rust/d"))).await?;
    same("get of a range", texts(got.kvs()), pairs(&[("rust/b", "b"), ("rust/c", "c")]));
    let got = client.get("rust/", Some(prefix().with_limit(2))).await?;
    same("get --limit", (texts(got.kvs()), got.more(), got.count()), (all[..2].to_vec(), true, 4));
    let descending = prefix().with_sort(SortTarget::Key, SortOrder::Descend).with_limit(1);
    same("get --order", texts(client.get("rust/", Some(descending)).await?.kvs()), pairs(&[("rust/d", "d")]));
    let newest = prefix().with_sort(SortTarget::Mod, SortOrder::Descend).with_limit(1).with_keys_only();
    same("get --sort-by", texts(client.get("rust/", Some(newest)).await?.kvs()), pairs(&[("rust/d", "")]));
    let got = client.get("rust/", Some(prefix().with_count_only())).await?;
    same("get --count-only", (got.kvs().len(), got.count()), (0, 4));
    let mut stream = client.kv_client().get_stream("rust/", Some(prefix())).await?;
    let (mut seen, mut count) = (vec![], 0);
    while let Some(chunk) = stream.message().await? {
        seen.extend(texts(chunk.kvs()));
        count = chunk.count();
    }
    same("a range as a stream", (seen, count), (all, 4));
    Ok(())
}

async fn deletes(client: &mut Client) -> Done {
    let gone = client.delete("rust/a", Some(DeleteOptions::new().with_prev_key())).await?;
    same("del --prev-kv", (gone.deleted(), texts(gone.prev_kvs())), (1, pairs(&[("rust/a", "2")])));
    same("del again", client.delete("rust/a", None).await?.deleted(), 0);
    let range = DeleteOptions::new().with_range("rust/d");
    same("del of a range", client.delete("rust/b", Some(range)).await?.deleted(), 2);
    let prefix = DeleteOptions::new().with_prefix();
    same("del --prefix", client.delete("rust/", Some(prefix)).await?.deleted(), 1);
    Ok(())
}

async fn transactions(client: &mut Client) -> Done {
    let txn = Txn::new()
        .when([Compare::version("rust/t", CompareOp::Equal, 0)])
        .and_then([TxnOp::put("rust/t", "1", None), TxnOp::get("rust/t", None)])
        .or_else([TxnOp::delete("rust/t", None)]);
    let reply = client.txn(txn.clone()).await?;
    let [TxnOpResponse::Put(_), TxnOpResponse::Get(got)] = &reply.op_responses()[..] else {
        return Ok(same("txn's answers", reply.op_responses().len(), 2));
    };
    same("txn that succeeds", (reply.succeeded(), texts(got.kvs())), (true, pairs(&[("rust/t", "1")])));
    let reply = client.txn(txn).await?;
    let [TxnOpResponse::Delete(gone)] = &reply.op_responses()[..] else {
        return Ok(same("txn's answers", reply.op_responses().len(), 1));
    };
    same("txn that fails", (reply.succeeded(), gone.deleted()), (false, 1));
    let inner = Txn::new()
        .when([Compare::value("rust/t", CompareOp::Equal, "1")])
        .or_else([TxnOp::put("rust/u", "inner", None)]);
    let reply = client.txn(Txn::new().and_then([TxnOp::txn(inner)])).await?;
    let inner = reply.op_responses().into_iter().next();
    let succeeded = matches!(&inner, Some(TxnOpResponse::Txn(inner)) if !inner.succeeded());
    same("txn within a txn", (reply.succeeded(), succeeded), (true, true));
    let got = client.get("rust/u", None).await?;
    same("what it wrote", texts(got.kvs()), pairs(&[("rust/u", "inner")]));
    let twice = Txn::new().and_then(["1", "2"].map(|value| TxnOp::put("rust/t", value, None)));
    let text = "etcdserver: duplicate key given in txn request";
    refused("txn with a duplicate key", client.txn(twice).await, 3, text);
    Ok(())
}

async fn next(stream: &mut WatchStream) -> Result<WatchResponse, Error> {
    match tokio::time::timeout(PATIENCE, stream.message()).await {
        Ok(Ok(Some(reply))) => Ok(reply),
        Ok(Ok(None)) => Err(Error::WatchError("the stream has ended".to_owned())),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(Error::WatchError("nothing came in time".to_owned())),
    }
}

type Seen = (bool, String, String, String);

/// The next events, however they are spread over messages: whether a put, key, value, the value before.
async fn events(stream: &mut WatchStream, id: i64, count: usize) -> Result<Vec<Seen>, Error> {
    let mut seen = vec![];
    while seen.len() < count {
        let reply = next(stream).await?;
        if reply.watch_id() != id {
            same("events are of the watcher", reply.watch_id(), id);
        }
        for event in reply.events() {
            let (key, value) = texts(event.kv()).pop().unwrap_or_default();
            let before = texts(event.prev_kv()).pop().unwrap_or_default().1;
            seen.push((event.event_type() == EventType::Put, key, value, before));
        }
    }
    Ok(seen)
}

fn seen(wanted: &[(bool, &str, &str, &str)]) -> Vec<Seen> {
    wanted
        .iter()
        .map(|(put, k, v, before)| (*put, k.to_string(), v.to_string(), before.to_string()))
        .collect()
}

async fn watches(client: &mut Client) -> Done {
    let options = WatchOptions::new().with_prefix().with_prev_key();
    let mut stream = client.watch("rust/w", Some(options)).await?;
    let reply = next(&mut stream).await?;
    let first = reply.watch_id();
    same("watch is created", (reply.created(), reply.events().len()), (true, 0));
    client.put("rust/w1", "1", None).await?;
    client.put("rust/w1", "2", None).await?;
    client.delete("rust/w1", None).await?;
    let wanted = [(true, "rust/w1", "1", ""), (true, "rust/w1", "2", "1"), (false, "rust/w1", "", "2")];
    same("watch with --prev-kv", events(&mut stream, first, 3).await?, seen(&wanted));
    stream.request_progress().await?;
    let reply = next(&mut stream).await?;
    let progress = (reply.watch_id(), reply.events().len(), reply.header().map(|h| h.revision()));
    same("progress", progress, (-1, 0, Some(revision(client).await?)));
    let options = WatchOptions::new().with_filters([WatchFilterType::NoPut]).with_watch_id(77);
    stream.watch("rust/w2", Some(options)).await?;
    let reply = next(&mut stream).await?;
    same("a second watcher with a number of its own", (reply.created(), reply.watch_id()), (true, 77));
    stream.cancel(first).await?;
    let reply = next(&mut stream).await?;
    same("watch is cancelled", (reply.canceled(), reply.watch_id()), (true, first));
    client.put("rust/w2", "unseen", None).await?;
    client.delete("rust/w2", None).await?;
    let wanted = [(false, "rust/w2", "", "")];
    same("watch --filter noput", events(&mut stream, 77, 1).await?, seen(&wanted));
    Ok(())
}

async fn old_watches(client: &mut Client) -> Done {
    let from = revision(client).await? + 1;
    let txn = ["rust/o1", "rust/o2"].map(|key| TxnOp::put(key, "together", None));
    client.txn(Txn::new().and_then(txn)).await?;
    client.put("rust/o1", "later", None).await?;
    let options = WatchOptions::new().with_prefix().with_start_revision(from);
    let mut stream = client.watch("rust/o", Some(options)).await?;
    let reply = next(&mut stream).await?;
    same("watch of an old revision is created", reply.created(), true);
    let wanted = [
        (true, "rust/o1", "together", ""),
        (true, "rust/o2", "together", ""),
        (true, "rust/o1", "later", ""),
    ];
    same("watch of an old revision", events(&mut stream, reply.watch_id(), 3).await?, seen(&wanted));
    client.put("rust/o2", "live", None).await?;
    let wanted = [(true, "rust/o2", "live", "")];
    same("and on from there", events(&mut stream, reply.watch_id(), 1).await?, seen(&wanted));
    Ok(())
}

async fn compaction(client: &mut Client) -> Done {
    let before = revision(client).await?;
    client.put("rust/o1", "last", None).await?;
    let revision = before + 1;
    client.compact(revision, Some(CompactionOptions::new().with_physical())).await?;
    let old = GetOptions::new().with_revision(before);
    let text = "etcdserver: mvcc: required revision has been compacted";
    refused("get below the compaction", client.get("rust/o1", Some(old)).await, 11, text);
    refused("compaction again", client.compact(revision, None).await, 11, text);
    let at = client.get("rust/o1", Some(GetOptions::new().with_revision(revision))).await?;
    same("get at the compaction", texts(at.kvs()), pairs(&[("rust/o1", "last")]));
    let options = WatchOptions::new().with_start_revision(before);
    let mut stream = client.watch("rust/o1", Some(options)).await?;
    let mut reply = next(&mut stream).await?;
    if !reply.canceled() {
        reply = next(&mut stream).await?;
    }
    same("watch below the compaction", (reply.canceled(), reply.compact_revision()), (true, revision));
    Ok(())
}

async fn leases(client: &mut Client) -> Done {
    let granted = client.lease_grant(60, None).await?;
    let id = granted.id();
    same("lease grant", (granted.ttl(), granted.error(), id > 0), (60, "", true));
    client.put("rust/l", "v", Some(PutOptions::new().with_lease(id))).await?;
    same("a key's lease", client.get("rust/l", None).await?.kvs().first().map(KeyValue::lease), Some(id));
    let (mut keeper, mut renewals) = client.lease_keep_alive(id).await?;
    keeper.keep_alive().await?;
    let renewed = renewals.message().await?.map(|reply| (reply.id(), reply.ttl()));
    same("lease keep-alive", renewed, Some((id, 60)));
    let with_keys = || Some(LeaseTimeToLiveOptions::new().with_keys());
    let left = client.lease_time_to_live(id, with_keys()).await?;
    let known = (left.granted_ttl(), (58..=60).contains(&left.ttl()), left.keys().to_vec());
    same("lease timetolive --keys", known, (60, true, vec![b"rust/l".to_vec()]));
    let listed = client.leases().await?;
    same("lease list", listed.leases().iter().filter(|lease| lease.id() == id).count(), 1);
    client.lease_revoke(id).await?;
    same("get after lease revoke", client.get("rust/l", None).await?.count(), 0);
    same("lease timetolive of a revoked", client.lease_time_to_live(id, with_keys()).await?.ttl(), -1);
    let text = "etcdserver: requested lease not found";
    refused("lease revoke again", client.lease_revoke(id).await, 5, text);
    let bound = PutOptions::new().with_lease(id);
    refused("put --lease of a revoked", client.put("rust/l", "v", Some(bound)).await, 5, text);
    let kept = client.lease_keep_alive(id).await.err().map(|error| error.to_string());
    same("lease keep-alive of a revoked", kept.is_some_and(|text| text.contains("lease not found")), true);
    Ok(())
}

async fn maintenance(client: &mut Client) -> Done {
    let status = client.status().await?;
    let minor = status.version().split('.').take(2).collect::<Vec<_>>().join(".");
    same("status' version", minor.as_str(), "3.7");
    let member = status.header().map_or(0, |header| header.member_id());
    same("status' leader", (status.leader(), status.is_learner()), (member, false));
    let sizes = status.db_size() >= status.raft_used_db_size() && status.raft_used_db_size() > 0;
    same("status' sizes", sizes, true);
    same("status' indexes", status.raft_index() >= status.raft_applied_index(), true);
    same("status' errors", status.errors(), &[] as &[String]);
    let at = revision(client).await?;
    let (hash, again) = (client.hash_kv(at).await?, client.hash_kv(at).await?);
    same("hash_kv", (hash.hash(), hash.compact_version()), (again.hash(), again.compact_version()));
    client.put("rust/h", "x", None).await?;
    same("hash_kv of what was", client.hash_kv(at).await?.hash(), hash.hash());
    same("hash_kv of what is", client.hash_kv(0).await?.hash() != hash.hash(), true);
    client.defragment().await?;
    same("defragment keeps what is there", client.hash_kv(at).await?.hash(), hash.hash());
    let alarms = client.alarm(AlarmAction::Get, AlarmType::None, None).await?;
    same("alarm list", alarms.alarms().len(), 0);
    Ok(())
}

async fn members(client: &mut Client) -> Done {
    let listed = client.member_list().await?;
    let member = listed.header().map_or(0, |header| header.member_id());
    let found: Vec<u64> = listed.members().iter().map(|member| member.id()).collect();
    same("member list", found, [member]);
    let member = &listed.members()[0];
    let known = (member.is_learner(), member.peer_urls().len(), member.client_urls().is_empty());
    same("the member", known, (false, 1, false));
    client.delete("rust/", Some(DeleteOptions::new().with_prefix())).await?;
    Ok(())
}
