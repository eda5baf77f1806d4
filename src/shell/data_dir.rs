//! The data directory: which member's it is, and that no other process uses it.

#[cfg(test)]
mod tests;

use super::files::{DIRECTORY_MODE, Files, sync_name};
use super::kernel;
use super::members;
use crate::config::{BootstrapMember, ClusterState, Config, ListedMember};
use crate::log::Recovered;
use crate::reactor::Founder;
use crate::stdx::VersionMismatch;
use crate::types::{ClusterId, MemberId, StoreId};
use serde_json::{Value, json};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The format of everything below the data directory. A change that an older program would misread raises it.
const FORMAT: u64 = 7;
const IDENTITY: &str = "braid.json";
const LOCK: &str = "lock";
const STORE: &str = "store";

/// Who this member is, since its first start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub cluster: ClusterId,
    pub member: MemberId,
    /// Drawn at random where the directory is begun. It stands in each file of the logs: the store of one
    /// directory is not another's. And the cluster knows the member's directory by it: one that begins anew under
    /// the member's id has lost what the member promised.
    pub store: StoreId,
    pub name: String,
    /// The value of `--initial-cluster-token`.
    pub token: String,
    /// Who began the cluster with this member: what the flags say later does not count. Of one that joined, who were
    /// members then.
    pub founders: Vec<Founder>,
    /// Whether the member was added to a cluster that there was.
    pub joined: bool,
    /// Whether something has been written to a log. An identity without a log has promised nothing, and is
    /// given up for another; from the first write on a store in which nothing stands is a loss.
    pub has_begun: bool,
    /// Whether all other members are lost for ever, and it is not done yet that this one is the only one.
    pub is_to_be_alone: bool,
}

/// The directory, as long as this process has it for itself.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    pub identity: Identity,
    /// Whether this is the first start in it.
    pub is_new: bool,
    /// A warning about the directory that the log should give.
    pub warning: Option<String>,
    /// The lock ends with the descriptor.
    _lock: File,
}

impl DataDir {
    /// Makes or takes over the directory. The error is a sentence that says what to do; where it is about what
    /// a first start asks for, nothing is made.
    pub fn open(config: &Config) -> Result<DataDir, String> {
        let path = config.data_dir.clone();
        let shown = path.display();
        refuse_etcds(&path)?;
        let beginning = match find(&path)? {
            None => Some(Beginning::of(config)?),
            Some(_) => None,
        };
        make(&path).map_err(|error| format!("cannot create data directory {shown}: {error}"))?;
        let lock = lock(&path, "stop that one, or give this one its own --data-dir")?;
        let warning = check_mode(&path)?;
        // Once more, now that nobody else can change it.
        let (identity, is_new) = match find(&path)? {
            Some(identity) => (identity, false),
            None => {
                let beginning = beginning.map_or_else(|| Beginning::of(config), Ok)?;
                (begin(config, beginning, &path)?, true)
            }
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
        identity.check_store(path)?;
        Ok(DataDir { path: path.to_path_buf(), identity, is_new: false, warning: None, _lock: lock })
    }

    /// The files, of which none will be changed.
    pub fn files_to_read(&self) -> Files {
        Files::to_read(self.path.join(STORE))
    }

    pub fn files(&self) -> Result<Files, String> {
        let store = self.path.join(STORE);
        let mut files =
            Files::open(store.clone()).map_err(|error| format!("cannot use {}: {error}", store.display()))?;
        if !self.identity.has_begun {
            let begun = Identity { has_begun: true, ..self.identity.clone() };
            files.note_the_first_write(self.path.join(IDENTITY), begun.text());
        }
        Ok(files)
    }

    /// Says durably that this member is to be the only one, before anything of that is written. What the identity is
    /// once it is done is noted with the files.
    pub fn begin_alone(&mut self, files: &Files) -> Result<(), String> {
        let path = self.path.join(IDENTITY);
        let done = Identity { has_begun: true, is_to_be_alone: false, ..self.identity.clone() };
        let begun = Identity { is_to_be_alone: true, ..done.clone() };
        // What was noted before would say nothing of it.
        let noted = files.has_written();
        let written = noted.and_then(|()| Files::replace(&path, begun.text().as_bytes()));
        written.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        files.note_alone(path, done.text());
        self.identity = begun;
        Ok(())
    }

    /// Checks that some log holds something, where the store has begun.
    pub fn check_logs(&self, logs: &[Recovered]) -> Result<(), String> {
        match self.identity.has_begun && logs.iter().all(Recovered::is_new) {
            true => Err(gone(&self.path, "holds files of logs in which nothing stands")),
            false => Ok(()),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes the directory, and those above it that are missing: durably, as what is in it will be.
fn make(path: &Path) -> io::Result<()> {
    let missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let missing: Vec<&Path> = path.ancestors().take_while(missing).collect();
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)?;
    missing.into_iter().try_for_each(sync_name)
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

/// A store that has begun and is not there was not deleted by a server: to begin it again would serve nothing
/// under the name of something.
fn gone(path: &Path, what: &str) -> String {
    format!(
        "the store of data directory {} is gone: {IDENTITY} says that it has begun, and {STORE}/ {what}. Mount its \
         disk, or put it back from a copy; to begin a new cluster without the data, give --data-dir an empty \
         directory",
        path.display()
    )
}

fn lost_identity(path: &Path) -> String {
    format!(
        "data directory {} has lost its {IDENTITY}: put it back from a copy, or start with an empty directory",
        path.display()
    )
}

/// Takes the lock. `otherwise` says what to do where another process holds it.
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

/// Checks the directory's mode. As with etcd, one that others may look into is used, and the log says so.
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

/// What a first start makes of the flags, and of what other members say.
struct Beginning {
    cluster: ClusterId,
    member: MemberId,
    founders: Vec<Founder>,
    joined: bool,
}

impl Beginning {
    fn of(config: &Config) -> Result<Beginning, String> {
        match config.initial_cluster_state {
            ClusterState::New => {
                let begun = config.bootstrap().map_err(|refusal| refusal.message)?;
                members::refuse_known(&begun)?;
                let founders = begun.members.into_iter().map(founder).collect();
                Ok(Beginning { cluster: begun.cluster, member: begun.member, founders, joined: false })
            }
            ClusterState::Existing => {
                let joining = config.joining().map_err(|refusal| refusal.message)?;
                let (member, listed) = members::join(&joining)?;
                let mut founders: Vec<Founder> = listed.members.into_iter().map(joined).collect();
                founders.sort_by_key(|founder| founder.id);
                Ok(Beginning { cluster: listed.id, member, founders, joined: true })
            }
        }
    }
}

fn founder(member: BootstrapMember) -> Founder {
    let BootstrapMember { id, name, peer_urls } = member;
    Founder { id, name, peer_urls: peer_urls.iter().map(ToString::to_string).collect() }
}

fn joined(member: ListedMember) -> Founder {
    let ListedMember { id, name, peer_urls, .. } = member;
    Founder { id, name, peer_urls }
}

fn begin(config: &Config, beginning: Beginning, path: &Path) -> Result<Identity, String> {
    let shown = path.display();
    let Beginning { cluster, member, founders, joined } = beginning;
    let store = kernel::random_u64().map_err(|error| format!("no random numbers: {error}"))?;
    let identity = Identity {
        cluster,
        member,
        store: StoreId(store),
        name: config.name.clone(),
        token: config.initial_cluster_token.clone(),
        founders,
        joined,
        has_begun: false,
        is_to_be_alone: false,
    };
    let written = Files::replace(&path.join(IDENTITY), identity.text().as_bytes());
    written.map_err(|error| format!("cannot write to data directory {shown}: {error}"))?;
    Ok(identity)
}

/// The identity that counts; none where the directory is to begin with a new one.
fn find(path: &Path) -> Result<Option<Identity>, String> {
    match read(path)? {
        Some(identity) => {
            identity.check_store(path)?;
            let counts = identity.has_begun || has_log(path)?;
            Ok(counts.then_some(identity))
        }
        None if path.join(STORE).exists() => Err(lost_identity(path)),
        None => Ok(None),
    }
}

/// Whether the store is there and holds a log's file.
fn has_log(path: &Path) -> Result<bool, String> {
    let store = path.join(STORE);
    let listing = Files::to_read(store.clone()).list_to_read();
    let listing = listing.map_err(|error| format!("cannot read {}: {error}", store.display()))?;
    Ok(!listing.segments.is_empty())
}

fn read(path: &Path) -> Result<Option<Identity>, String> {
    let file = path.join(IDENTITY);
    let shown = file.display();
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("cannot read {shown}: {error}")),
    };
    let mut value: Value = serde_json::from_str(&text).map_err(|error| damaged(&file, &error.to_string()))?;
    match value["format"].as_u64() {
        Some(FORMAT) => {}
        Some(found) => {
            return Err(format!("{shown} {}", VersionMismatch { what: "format", found, known: FORMAT }));
        }
        None => return Err(damaged(&file, "it names no format")),
    }
    let checksum = value.as_object_mut().and_then(|fields| fields.remove(CHECKSUM));
    if checksum != Some(checksum_of(&value)) {
        return Err(damaged(&file, "its content does not have the checksum that it names"));
    }
    Identity::of(&value).map(Some).ok_or_else(|| damaged(&file, "a part of it is missing"))
}

fn damaged(file: &Path, how: &str) -> String {
    format!("{} is damaged: {how}; put it back from a copy", file.display())
}

const CHECKSUM: &str = "crc32c";

/// The checksum over all the other fields, as JSON without spaces in the order of their names.
fn checksum_of(fields: &Value) -> Value {
    format!("{:08x}", crc32c::crc32c(fields.to_string().as_bytes())).into()
}

impl Identity {
    fn text(&self) -> String {
        let mut value = json!({
            "format": FORMAT,
            "cluster_id": format!("{:x}", self.cluster.0),
            "member_id": format!("{:x}", self.member.0),
            "name": self.name,
            "initial_cluster_token": self.token,
            "founders": self.founders.iter().map(founder_json).collect::<Vec<_>>(),
            "joined": self.joined,
            "store_id": format!("{:016x}", self.store.0),
            "store_has_begun": self.has_begun,
            "is_to_be_alone": self.is_to_be_alone,
        });
        value[CHECKSUM] = checksum_of(&value);
        format!("{value:#}\n")
    }

    fn of(value: &Value) -> Option<Identity> {
        let number = |name: &str| number(&value[name]);
        let text = |name: &str| text(&value[name]);
        Some(Identity {
            cluster: ClusterId(number("cluster_id")?),
            member: MemberId(number("member_id")?),
            store: StoreId(number("store_id")?),
            name: text("name")?,
            token: text("initial_cluster_token")?,
            founders: value["founders"].as_array()?.iter().map(founder_of).collect::<Option<_>>()?,
            joined: value["joined"].as_bool()?,
            has_begun: value["store_has_begun"].as_bool()?,
            is_to_be_alone: value["is_to_be_alone"].as_bool()?,
        })
    }

    /// Under which URLs this member was begun.
    pub fn own_peer_urls(&self) -> Vec<String> {
        let own = self.founders.iter().find(|founder| founder.id == self.member);
        own.map_or_else(Vec::new, |founder| founder.peer_urls.clone())
    }

    fn check_store(&self, path: &Path) -> Result<(), String> {
        if !self.has_begun || has_log(path)? {
            return Ok(());
        }
        Err(gone(path, "is empty or not there"))
    }
}

fn founder_json(founder: &Founder) -> Value {
    json!({ "id": format!("{:x}", founder.id.0), "name": founder.name, "peer_urls": founder.peer_urls })
}

fn founder_of(value: &Value) -> Option<Founder> {
    Some(Founder {
        id: MemberId(number(&value["id"])?),
        name: text(&value["name"])?,
        peer_urls: value["peer_urls"].as_array()?.iter().map(text).collect::<Option<_>>()?,
    })
}

fn number(value: &Value) -> Option<u64> {
    u64::from_str_radix(value.as_str()?, 16).ok()
}

fn text(value: &Value) -> Option<String> {
    Some(value.as_str()?.to_string())
}
