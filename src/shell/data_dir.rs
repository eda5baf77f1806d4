//! The data directory: whose it is, and that nobody else uses it.

use super::files::{DIRECTORY_MODE, Files};
use crate::config::Config;
use crate::types::{ClusterId, MemberId};
use serde_json::{Value, json};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Of everything below the data directory. Raised by whoever changes it so that an older program would
/// misread it.
const FORMAT: u64 = 1;
const IDENTITY: &str = "braid.json";
const LOCK: &str = "lock";
const STORE: &str = "store";

/// Who this member is, since its first start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub cluster: ClusterId,
    pub member: MemberId,
    pub name: String,
    /// `--initial-cluster-token`.
    pub token: String,
}

/// The directory, as long as this process has it for itself.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    pub identity: Identity,
    /// Whether this is the first start in it.
    pub is_new: bool,
    /// Something about the directory that the log should say.
    pub warning: Option<String>,
    /// The lock ends with the descriptor.
    _lock: File,
}

impl DataDir {
    /// Makes or takes over the directory. The error is a sentence that says what to do.
    pub fn open(config: &Config) -> Result<DataDir, String> {
        let path = config.data_dir.clone();
        let shown = path.display();
        let made = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(&path);
        made.map_err(|error| format!("cannot create data directory {shown}: {error}"))?;
        refuse_etcds(&path)?;
        let lock = lock(&path, "stop that one, or give this one its own --data-dir")?;
        let warning = check_mode(&path)?;
        let (identity, is_new) = match read(&path)? {
            Some(identity) => (identity, false),
            None => (begin(config, &path)?, true),
        };
        Ok(DataDir { path, identity, is_new, warning, _lock: lock })
    }

    /// Takes over a directory that a server has left, without changing it: of all in it only the lock may
    /// be made anew.
    pub fn open_to_read(path: &Path) -> Result<DataDir, String> {
        let shown = path.display();
        fs::metadata(path).map_err(|error| format!("cannot look at data directory {shown}: {error}"))?;
        refuse_etcds(path)?;
        if !path.join(IDENTITY).exists() {
            return Err(match path.join(STORE).exists() {
                true => lost_identity(path),
                false => format!("{shown} is no data directory of Braid: it holds no {IDENTITY}"),
            });
        }
        let lock = lock(path, "stop that one first")?;
        let identity = read(path)?.ok_or_else(|| lost_identity(path))?;
        Ok(DataDir { path: path.to_path_buf(), identity, is_new: false, warning: None, _lock: lock })
    }

    /// The files, of which none will be changed.
    pub fn files_to_read(&self) -> Files {
        Files::to_read(self.path.join(STORE))
    }

    pub fn files(&self) -> Result<Files, String> {
        let store = self.path.join(STORE);
        Files::open(store.clone()).map_err(|error| format!("cannot use {}: {error}", store.display()))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn refuse_etcds(path: &Path) -> Result<(), String> {
    if !path.join("member").exists() {
        return Ok(());
    }
    Err(format!(
        "data directory {} holds the data of etcd (member/), which Braid neither reads nor touches: give \
         --data-dir an empty directory, and bring the data over with a client",
        path.display()
    ))
}

fn lost_identity(path: &Path) -> String {
    format!(
        "data directory {} has lost its {IDENTITY}: put it back from a copy, or start with an empty directory",
        path.display()
    )
}

/// `otherwise` says what to do where another process holds it.
fn lock(path: &Path, otherwise: &str) -> Result<File, String> {
    let shown = path.display();
    let opened =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path.join(LOCK));
    let file = opened.map_err(|error| format!("cannot write to data directory {shown}: {error}"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(format!("data directory {shown} is in use by another process: {otherwise}"))
        }
        Err(TryLockError::Error(error)) => Err(format!("cannot lock data directory {shown}: {error}")),
    }
}

/// etcd's manners: a directory that others may look into is used, and the log says so.
fn check_mode(path: &Path) -> Result<Option<String>, String> {
    let shown = path.display();
    let about = fs::metadata(path).map_err(|error| format!("cannot look at {shown}: {error}"))?;
    let mode = about.permissions().mode() & 0o777;
    Ok((mode & !DIRECTORY_MODE != 0).then(|| {
        format!(
            "directory {shown:?} exist, but the permission is {mode:#o}. The recommended permission is \
             {DIRECTORY_MODE:#o} to prevent possible unprivileged access to the data"
        )
    }))
}

fn begin(config: &Config, path: &Path) -> Result<Identity, String> {
    let shown = path.display();
    if path.join(STORE).exists() {
        return Err(lost_identity(path));
    }
    let bootstrap = config.bootstrap().map_err(|refusal| refusal.message)?;
    let identity = Identity {
        cluster: bootstrap.cluster,
        member: bootstrap.member,
        name: config.name.clone(),
        token: config.initial_cluster_token.clone(),
    };
    let written = Files::replace(&path.join(IDENTITY), identity.text().as_bytes());
    written.map_err(|error| format!("cannot write to data directory {shown}: {error}"))?;
    Ok(identity)
}

fn read(path: &Path) -> Result<Option<Identity>, String> {
    let file = path.join(IDENTITY);
    let shown = file.display();
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("cannot read {shown}: {error}")),
    };
    let value: Value = serde_json::from_str(&text).map_err(|error| format!("{shown} is damaged: {error}"))?;
    match value["format"].as_u64() {
        Some(FORMAT) => {}
        Some(newer) if newer > FORMAT => {
            return Err(format!(
                "{shown} has format {newer}, and this version knows formats up to {FORMAT}: start the version \
                 that wrote it, or a later one"
            ));
        }
        _ => return Err(format!("{shown} is damaged: it names no format")),
    }
    Identity::of(&value).map(Some).ok_or_else(|| format!("{shown} is damaged: a part of it is missing"))
}

impl Identity {
    fn text(&self) -> String {
        let value = json!({
            "format": FORMAT,
            "cluster_id": format!("{:x}", self.cluster.0),
            "member_id": format!("{:x}", self.member.0),
            "name": self.name,
            "initial_cluster_token": self.token,
        });
        format!("{value:#}\n")
    }

    fn of(value: &Value) -> Option<Identity> {
        let number = |name: &str| u64::from_str_radix(value[name].as_str()?, 16).ok();
        let text = |name: &str| Some(value[name].as_str()?.to_string());
        Some(Identity {
            cluster: ClusterId(number("cluster_id")?),
            member: MemberId(number("member_id")?),
            name: text("name")?,
            token: text("initial_cluster_token")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Parsed, parse};

    fn config(path: &Path, flags: &[&str]) -> Config {
        let mut args = vec![format!("--data-dir={}", path.display())];
        args.extend(flags.iter().map(|flag| flag.to_string()));
        match parse(&args, &[], 1).unwrap() {
            Parsed::Run(config, _) => *config,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_identity_lasts_from_the_first_start_on() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b");
        let first = DataDir::open(&config(&path, &[])).unwrap();
        assert!(first.is_new && first.warning.is_none());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        let identity = first.identity.clone();
        drop(first);
        let again = DataDir::open(&config(&path, &["--name=other"])).unwrap();
        assert!(!again.is_new);
        assert_eq!(again.identity, identity);
    }

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
        let (etcd, newer, lost) = (root.path().join("e"), root.path().join("n"), root.path().join("l"));
        fs::create_dir_all(etcd.join("member/wal")).unwrap();
        fs::create_dir_all(&newer).unwrap();
        fs::write(newer.join(IDENTITY), r#"{"format": 2}"#).unwrap();
        fs::create_dir_all(lost.join(STORE)).unwrap();
        for (path, words) in [(etcd, "data of etcd"), (newer, "has format 2"), (lost, "has lost its")] {
            let error = DataDir::open(&config(&path, &[])).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn damage_to_the_identity_is_refused_and_not_overwritten() {
        let root = tempfile::tempdir().unwrap();
        for text in ["", "{", "{}", r#"{"format": 1}"#, r#"{"format": 1, "cluster_id": "xyz"}"#] {
            fs::write(root.path().join(IDENTITY), text).unwrap();
            let error = DataDir::open(&config(root.path(), &[])).unwrap_err();
            assert!(error.contains("is damaged"), "{error}");
            assert_eq!(fs::read_to_string(root.path().join(IDENTITY)).unwrap(), text);
        }
    }

    /// A member whose address has changed comes back: who it is stands in the directory, and only there.
    #[test]
    fn a_restart_reads_nothing_of_a_bootstrap() {
        let root = tempfile::tempdir().unwrap();
        let first = DataDir::open(&config(root.path(), &["--initial-cluster-token=mine"])).unwrap();
        let identity = first.identity.clone();
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
}
