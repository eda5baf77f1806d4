use super::*;
use crate::config::{Parsed, parse};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;

fn config(path: &Path, flags: &[&str]) -> Config {
    let mut args = vec![format!("--data-dir={}", path.display())];
    args.extend(flags.iter().map(|flag| flag.to_string()));
    match parse(&args, &[], 1).unwrap() {
        Parsed::Run(config, _) => *config,
        other => panic!("{other:?}"),
    }
}

const SEGMENT: &str = "000-0000000000000001.log";

/// Makes a directory as a first start leaves it that has come as far as to write to a log.
fn begun(config: &Config) -> DataDir {
    let first = DataDir::open(config).unwrap();
    let files = first.files().unwrap();
    fs::write(files.path(SEGMENT), b"").unwrap();
    files.has_written().unwrap();
    first
}

#[test]
fn an_identity_lasts_from_the_first_write_on() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a/b");
    let first = begun(&config(&path, &[]));
    assert!(first.is_new && first.warning.is_none());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    let identity = Identity { has_begun: true, ..first.identity.clone() };
    drop(first);
    let again = DataDir::open(&config(&path, &["--name=other"])).unwrap();
    assert!(!again.is_new);
    assert_eq!(again.identity, identity);
}

#[test]
fn a_first_start_that_came_to_nothing_leaves_no_identity() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("d");
    let wrong = config(&path, &["--initial-advertise-peer-urls=http://a:1"]);
    assert!(DataDir::open(&wrong).unwrap_err().contains("missing from --initial-advertise-peer-urls"));
    assert!(!path.exists());
    let first = DataDir::open(&config(&path, &["--name=a", "--initial-cluster-token=a"])).unwrap();
    drop(first.files().unwrap());
    drop(first);
    let other = begun(&config(&path, &["--name=b", "--initial-cluster-token=b"]));
    assert!(other.is_new && other.identity.name == "b" && other.identity.token == "b");
}

#[test]
fn a_killed_first_start_goes_on_with_the_log_that_it_left() {
    let root = tempfile::tempdir().unwrap();
    let first = DataDir::open(&config(root.path(), &[])).unwrap();
    fs::write(first.files().unwrap().path(SEGMENT), b"").unwrap();
    let identity = first.identity.clone();
    drop(first);
    let again = DataDir::open(&config(root.path(), &["--name=b"])).unwrap();
    assert!(!again.is_new && again.identity == identity);
}

#[test]
fn a_store_that_has_begun_and_is_gone_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let config = config(root.path(), &[]);
    drop(begun(&config));
    let store = root.path().join(STORE);
    fs::remove_file(store.join(SEGMENT)).unwrap();
    let refused = || {
        let errors = [DataDir::open(&config).unwrap_err(), DataDir::open_to_read(root.path()).unwrap_err()];
        assert!(errors.iter().all(|error| error.contains("is gone")), "{errors:?}");
    };
    refused();
    fs::remove_dir(&store).unwrap();
    refused();
    assert!(!store.exists());
}

/// A disk may change any byte; what is no content (spaces) may change.
#[test]
fn a_changed_byte_of_the_identity_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let config = config(root.path(), &[]);
    drop(begun(&config));
    let text = fs::read(root.path().join(IDENTITY)).unwrap();
    for (at, byte) in text.iter().enumerate().filter(|(_, byte)| !byte.is_ascii_whitespace()) {
        for bit in [0, 2, 5] {
            let mut changed = text.clone();
            changed[at] = byte ^ 1 << bit;
            fs::write(root.path().join(IDENTITY), &changed).unwrap();
            let shown = String::from_utf8_lossy(&changed);
            let error = DataDir::open(&config).map(|opened| opened.identity);
            let error = error.expect_err(&shown);
            assert!(error.contains(IDENTITY), "{error}");
        }
    }
    fs::write(root.path().join(IDENTITY), [&text[..], b"\n"].concat()).unwrap();
    assert!(DataDir::open(&config).is_ok());
}

#[test]
fn the_identity_is_written_as_ever() {
    let root = tempfile::tempdir().unwrap();
    let first = DataDir::open(&config(root.path(), &[])).unwrap();
    let identity = Identity { store: StoreId(0x1234), has_begun: true, ..first.identity.clone() };
    let golden = r#"{
  "cluster_id": "cdf818194e3a8c32",
  "crc32c": "92f886c4",
  "format": 7,
  "founders": [
    {
      "id": "8e9e05c52164694d",
      "name": "default",
      "peer_urls": [
        "http://localhost:2380"
      ]
    }
  ],
  "initial_cluster_token": "etcd-cluster",
  "is_to_be_alone": false,
  "joined": false,
  "member_id": "8e9e05c52164694d",
  "name": "default",
  "store_has_begun": true,
  "store_id": "0000000000001234"
}
"#;
    assert_eq!(identity.text(), golden);
    fs::write(root.path().join(IDENTITY), golden).unwrap();
    assert_eq!(read(root.path()), Ok(Some(identity)));
}

/// An identity of the format before this one.
const LAST_FORMAT: &str = r#"{
  "cluster_id": "cdf818194e3a8c32",
  "crc32c": "e047499f",
  "format": 6,
  "founders": [
    {
      "id": "8e9e05c52164694d",
      "name": "default",
      "peer_urls": [
        "http://localhost:2380"
      ]
    }
  ],
  "initial_cluster_token": "etcd-cluster",
  "joined": false,
  "member_id": "8e9e05c52164694d",
  "name": "default",
  "store_has_begun": true,
  "store_id": "0000000000001234"
}
"#;

#[test]
fn two_processes_do_not_share_a_directory() {
    let root = tempfile::tempdir().unwrap();
    let config = config(root.path(), &[]);
    let _held = DataDir::open(&config).unwrap();
    assert!(DataDir::open(&config).unwrap_err().contains("in use by another process"));
}

#[test]
fn what_is_not_ours_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let (etcd, newer, older, lost) = (at("e"), at("n"), at("o"), at("l"));
    fs::create_dir_all(etcd.join("member/wal")).unwrap();
    fs::create_dir_all(&newer).unwrap();
    fs::write(newer.join(IDENTITY), r#"{"format": 8}"#).unwrap();
    fs::create_dir_all(&older).unwrap();
    fs::write(older.join(IDENTITY), LAST_FORMAT).unwrap();
    fs::create_dir_all(lost.join(STORE)).unwrap();
    for (path, words) in [
        (etcd, "data of etcd"),
        (newer, "braid.json was written by a newer program: it has format 8, and"),
        (
            older,
            "braid.json has format 6, of a version before the first release, and this program reads \
                     format 7: start the version that wrote it",
        ),
        (lost, "has lost its"),
    ] {
        let error = DataDir::open(&config(&path, &[])).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn damage_to_the_identity_is_refused_and_not_overwritten() {
    let root = tempfile::tempdir().unwrap();
    for text in ["", "{", "{}", r#"{"format": 7}"#, r#"{"format": 7, "cluster_id": "xyz"}"#] {
        fs::write(root.path().join(IDENTITY), text).unwrap();
        let error = DataDir::open(&config(root.path(), &[])).unwrap_err();
        assert!(error.contains("is damaged"), "{error}");
        assert_eq!(fs::read_to_string(root.path().join(IDENTITY)).unwrap(), text);
    }
}

/// A founder that was killed before it had heard of the others knows them all the same.
#[test]
fn a_restart_knows_the_founders_whatever_the_flags_say() {
    let root = tempfile::tempdir().unwrap();
    let cluster = "--initial-cluster=default=http://localhost:2380,b=http://127.0.0.1:2";
    let first = begun(&config(root.path(), &[cluster]));
    let founders = first.identity.founders.clone();
    let other = founders.iter().find(|founder| founder.name == "b").unwrap();
    assert_eq!((founders.len(), &other.peer_urls[..]), (2, &["http://127.0.0.1:2".to_owned()][..]));
    drop(first);
    let other = "--initial-cluster=default=http://localhost:2380,c=http://10.0.0.3:2380";
    assert_eq!(DataDir::open(&config(root.path(), &[other])).unwrap().identity.founders, founders);
}

/// Others answer with these lists of members, each once, in which URL0 is the first of them. Returns the flag that
/// names them all.
fn cluster_of(lists: &[&str]) -> (String, Vec<JoinHandle<()>>) {
    let listeners: Vec<TcpListener> =
        lists.iter().map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let url = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
    let urls: Vec<String> = listeners.iter().map(url).collect();
    let written = |list: &&str| {
        let numbered = urls.iter().enumerate();
        numbered.fold(list.to_string(), |list, (at, url)| list.replace(&format!("URL{at}"), url))
    };
    let lists: Vec<String> = lists.iter().map(written).collect();
    let serve = |(listener, list): (TcpListener, String)| {
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // What is not read makes the close a reset, which may overtake the answer.
            let mut asked = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
            assert_eq!(asked.next().unwrap(), "GET /members HTTP/1.1");
            assert!(asked.any(|line| line.is_empty()));
            write!(stream, "HTTP/1.1 200 OK\r\nX-Etcd-Cluster-Id: ab\r\n\r\n{list}\n").unwrap();
        })
    };
    let serving = listeners.into_iter().zip(lists).map(serve).collect();
    let others = urls.iter().enumerate().map(|(at, url)| format!(",m{at}={url}"));
    (format!("--initial-cluster=default=http://localhost:2380{}", others.collect::<String>()), serving)
}

const EXISTING: &str = "--initial-cluster-state=existing";
const ADDED: &str = r#"{"id":9,"peerURLs":["http://localhost:2380"],"name":"","isLearner":true}"#;
const FIRST: &str = r#"{"id":11,"peerURLs":["URL0"],"name":"b","clientURLs":["http://b:2379"]}"#;
const SECOND: &str = r#"{"id":8,"peerURLs":["URL1"],"name":"c","clientURLs":["http://c:2379"]}"#;

/// Who a member finds that it is, where others answer with these lists.
fn joined_by(path: &Path, lists: &[&str]) -> Result<MemberId, String> {
    let (cluster, serving) = cluster_of(lists);
    let opened = DataDir::open(&config(path, &[&cluster, EXISTING]));
    serving.into_iter().for_each(|serving| serving.join().unwrap());
    opened.map(|opened| opened.identity.member)
}

#[test]
fn a_member_that_joins_is_who_the_cluster_says_that_it_is() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("d");
    let (cluster, serving) = cluster_of(&[&format!("[{FIRST},{ADDED}]")]);
    let flags = [&cluster, EXISTING, "--initial-cluster-token=mine"];
    let first = begun(&config(&path, &flags));
    serving.into_iter().for_each(|serving| serving.join().unwrap());
    let identity = first.identity.clone();
    assert!(first.is_new && identity.joined);
    assert_eq!((identity.cluster, identity.member), (ClusterId(0xab), MemberId(9)));
    assert_eq!((identity.name.as_str(), identity.token.as_str()), ("default", "mine"));
    assert_eq!(identity.own_peer_urls(), ["http://localhost:2380"]);
    let others: Vec<(u64, &str)> = identity.founders.iter().map(|of| (of.id.0, of.name.as_str())).collect();
    assert_eq!(others, [(9, ""), (11, "b")]);
    drop(first);
    // The others are gone, and the flags count no more.
    for flags in [&flags[..], &["--initial-cluster-state=new"]] {
        let again = DataDir::open(&config(&path, flags)).unwrap();
        assert_eq!(again.identity, Identity { has_begun: true, ..identity.clone() });
    }
}

/// One that lags behind does not know of the new member yet.
#[test]
fn of_several_lists_the_one_counts_that_has_the_member() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    let (all, lagging) = (format!("[{FIRST},{SECOND},{ADDED}]"), format!("[{FIRST},{SECOND}]"));
    assert_eq!(joined_by(&path("a"), &[&all, &lagging]), Ok(MemberId(9)));
    assert_eq!(joined_by(&path("b"), &[&lagging, &all]), Ok(MemberId(9)));
    let error = joined_by(&path("c"), &[&lagging, &lagging]).unwrap_err();
    assert!(error.ends_with(": member count is unequal") && !path("c").exists(), "{error}");
}

#[test]
fn a_member_that_has_begun_does_not_join_once_more() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("d");
    let begun = ADDED.replace(r#""name":"""#, r#""name":"a","clientURLs":["http://a:2379"]"#);
    let error = joined_by(&path, &[&format!("[{FIRST},{begun}]")]).unwrap_err();
    assert!(error.starts_with("member 9 has already been bootstrapped: "), "{error}");
    assert!(error.ends_with("or remove it and add it again") && !path.exists(), "{error}");
}

/// A member whose address has changed comes back: who it is stands in the directory, and only there.
#[test]
fn a_restart_reads_nothing_of_a_bootstrap() {
    let root = tempfile::tempdir().unwrap();
    let first = begun(&config(root.path(), &["--initial-cluster-token=mine"]));
    let identity = Identity { has_begun: true, ..first.identity.clone() };
    drop(first);
    for changed in [
        &["--initial-cluster-token=other"][..],
        &["--initial-cluster=default=http://127.0.0.1:1"],
        &["--initial-cluster=default=http://127.0.0.1:1,other=http://127.0.0.1:2"],
        &["--initial-cluster=nobody=http://127.0.0.1:1"],
        &["--initial-cluster="],
        &["--initial-cluster=default"],
        &["--initial-advertise-peer-urls=http://127.0.0.1:1", "--listen-peer-urls=http://127.0.0.1:1"],
        &["--initial-cluster-state=existing"],
    ] {
        let again = DataDir::open(&config(root.path(), changed)).unwrap();
        assert_eq!(again.identity, identity, "{changed:?}");
    }
}

#[test]
fn a_directory_open_to_others_is_used_with_a_warning() {
    let root = tempfile::tempdir().unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let opened = DataDir::open(&config(root.path(), &[])).unwrap();
    assert!(opened.warning.unwrap().contains("recommended permission"));
}
