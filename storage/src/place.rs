//! Where the tables are: in the data folder, in another one, or in an object store
//! (docs/adr/0018-tables-in-an-object-store.md).
//!
//! Owns:     what `[storage] tables` means; the trial of an object store before it is trusted; the note there that says
//!           whose the tables are.
//! Does not: keep the log, the lock or the identity of a node anywhere but in its data folder.
//!
//! A data folder's lock keeps a second server out of the tables in it. Tables elsewhere have no lock, but a note of the
//! node they belong to: another node is refused, and an earlier life of this one finds out before it deletes anything.
//! Should two write all the same, commits decide: each version is one writer's, and the other fails.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use model::{Clock, NodeEpoch, NodeId, Rng};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path as Location;
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, RetryConfig};
use serde::{Deserialize, Serialize};
use url::Url;
use uuid::Uuid;
use wal::disk::{self, Disk, Replace, SharedDisk};

use crate::StorageError;
use crate::object_disk::{ObjectDisk, is_away};

/// The only format there is.
const FORMAT: u32 = 1;

/// The note of whose the tables are.
const OWNER: &str = "eden-owner.json";

/// How the objects begin that a trial leaves if it is interrupted.
const TRIAL: &str = "eden-trial-";

/// Who puts an object at the same time in a trial: stores that only pretend to know put-if-absent have let two win.
const RACERS: usize = 32;

/// When it is worth trying again what a store did not answer.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// How long a request of a store is tried again.
const PATIENCE: Duration = Duration::from_secs(15);

/// The longest pause between two tries of a commit; the first is a twentieth of it.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// The disks of one server.
#[derive(Clone, Debug)]
pub struct Disks {
    /// Under the data folder.
    pub data: SharedDisk,
    /// Where the tables are; `None` if they are in the data folder.
    pub tables: Option<Tables>,
}

impl From<SharedDisk> for Disks {
    fn from(data: SharedDisk) -> Disks {
        Disks { data, tables: None }
    }
}

impl<D: Disk> From<Arc<D>> for Disks {
    fn from(data: Arc<D>) -> Disks {
        Disks { data, tables: None }
    }
}

impl From<&SharedDisk> for Disks {
    fn from(data: &SharedDisk) -> Disks {
        Disks::from(Arc::clone(data))
    }
}

impl Disks {
    /// The disk of the tables, and the folder that they are in.
    pub(crate) fn tables(&self, data: &Path) -> Tables {
        self.tables.clone().unwrap_or_else(|| Tables { dir: data.join("tables"), disk: Arc::clone(&self.data) })
    }
}

/// Where one storage keeps what.
pub(crate) struct Place {
    /// Of what it does not share with other nodes.
    pub(crate) home: PathBuf,
    /// Under everything but the tables.
    pub(crate) disk: SharedDisk,
    pub(crate) tables_disk: SharedDisk,
    pub(crate) tables_dir: PathBuf,
    pub(crate) elsewhere: Option<Tables>,
}

/// Where tables are.
#[derive(Clone, Debug)]
pub struct Tables {
    /// What their paths begin with.
    pub(crate) dir: PathBuf,
    pub(crate) disk: SharedDisk,
}

#[derive(Debug, Serialize, Deserialize)]
struct OwnerFile {
    format: u32,
    /// Hexadecimal.
    node: String,
    epoch: u64,
}

impl Tables {
    /// The place that `location` names: `s3://BUCKET/PREFIX`, with the environment's `AWS_…`, or `file:///FOLDER` on `local`.
    /// Nothing is asked of it yet.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] if it names none.
    pub fn at(location: &str, local: &SharedDisk, clock: &Arc<dyn Clock>) -> Result<Tables, StorageError> {
        let wrong = |why: String| {
            let takes = "it takes s3://BUCKET/PREFIX, file:///FOLDER, or an empty text for the data folder";
            StorageError::Invalid(format!("[storage] tables = {location:?}: {why}; {takes}"))
        };
        let url = Url::parse(location).map_err(|e| wrong(e.to_string()))?;
        match url.scheme() {
            "file" => {
                let dir = url.to_file_path().map_err(|()| wrong("not a folder of this machine".into()))?;
                Ok(Tables { dir, disk: Arc::clone(local) })
            }
            "s3" | "s3a" => Tables::in_s3(&url, clock, &wrong),
            other => Err(wrong(format!("there is no {other}://"))),
        }
    }

    /// A bucket, `s3://BUCKET`, with the environment's `AWS_…`, for files of other kinds. Nothing is asked of it yet.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] if it names none.
    pub fn in_bucket(location: &str, clock: &Arc<dyn Clock>) -> Result<Tables, StorageError> {
        let wrong = |why: String| StorageError::Invalid(format!("{location}: {why}"));
        let url = Url::parse(location).map_err(|e| wrong(e.to_string()))?;
        Tables::in_s3(&url, clock, &wrong)
    }

    fn in_s3(
        url: &Url,
        clock: &Arc<dyn Clock>,
        wrong: &dyn Fn(String) -> StorageError,
    ) -> Result<Tables, StorageError> {
        let bucket = url.host_str().filter(|bucket| !bucket.is_empty());
        let bucket = bucket.ok_or_else(|| wrong("it names no bucket".into()))?;
        let prefix = Location::from_url_path(url.path()).map_err(|e| wrong(e.to_string()))?;
        let client = |retries| -> Result<Arc<dyn ObjectStore>, StorageError> {
            let retry =
                RetryConfig { backoff: BackoffConfig::default(), max_retries: retries, retry_timeout: PATIENCE };
            let builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(retry);
            if needs_leave_for_http(&builder) {
                return Err(wrong("the store's address is http://, which needs AWS_ALLOW_HTTP=true".into()));
            }
            Ok(Arc::new(builder.build().map_err(|e| wrong(e.to_string()))?))
        };
        let root = format!("s3://{bucket}/{prefix}");
        Tables::in_store(root.trim_end_matches('/'), prefix, [client(4)?, client(0)?], PAUSE_MAX, clock)
    }

    /// The disk that they are on.
    pub fn disk(&self) -> &SharedDisk {
        &self.disk
    }

    /// The place below `prefix` in a store, where paths begin with `root`. The first of its `clients` tries requests again
    /// that failed, the second does not; we wait up to `pause_max` between tries of our own.
    ///
    /// # Errors
    /// If the system starts no threads.
    pub fn in_store(
        root: &str,
        prefix: Location,
        clients: [Arc<dyn ObjectStore>; 2],
        pause_max: Duration,
        clock: &Arc<dyn Clock>,
    ) -> Result<Tables, StorageError> {
        let dir = PathBuf::from(root);
        let disk = ObjectDisk::new(dir.clone(), prefix, clients, pause_max, Arc::clone(clock));
        let disk = Arc::new(disk.map_err(StorageError::io("start threads for", &dir))?);
        Ok(Tables { dir, disk })
    }

    /// Whether they are behind a network.
    pub fn is_remote(&self) -> bool {
        self.disk.is_remote()
    }

    /// Tries whether the place can be written, and, if it is an object store, whether it keeps the two promises on which
    /// commits rest: of many who put one object, if it is absent, exactly one succeeds; and a list has what was put.
    /// Blocks.
    ///
    /// # Errors
    /// [`StorageError::Unfit`] if it does not. [`StorageError::is_store_away`] is true if it did not answer.
    pub fn try_out(&self, rng: &dyn Rng) -> Result<(), StorageError> {
        disk::create_dir_all(&*self.disk, &self.dir).map_err(StorageError::io("create", &self.dir))?;
        if !self.is_remote() {
            return Ok(());
        }
        // What is asked first is answered or not: then a store that does not is asked once, not by all.
        self.disk.list(&self.dir).map_err(StorageError::io("list", &self.dir))?;
        let name = format!("{TRIAL}{}", Uuid::from_u64_pair(rng.next_u64(), rng.next_u64()).simple());
        let path = self.dir.join(&name);
        let result = self.race(&path, &name);
        // Best effort: it is in nobody's way.
        let _ = self.disk.remove_file(&path);
        result
    }

    fn race(&self, path: &Path, name: &str) -> Result<(), StorageError> {
        let put = |racer: usize| self.disk.write_whole(path, format!("{name} {racer}").as_bytes(), Replace::No);
        let winners = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..RACERS).map(|racer| scope.spawn(move || (racer, put(racer)))).collect();
            let mut winners = Vec::new();
            for racer in racers {
                match racer.join() {
                    Ok((racer, Ok(()))) => winners.push(racer),
                    Ok((_, Err(e))) if e.kind() == io::ErrorKind::AlreadyExists => {}
                    Ok((_, Err(e))) => return Err(StorageError::io("try out", &self.dir)(e)),
                    Err(_) => return Err(self.unfit("a request panicked".into())),
                }
            }
            Ok(winners)
        })?;
        let [winner] = winners[..] else {
            return Err(self.unfit(format!(
                "{RACERS} writers put one object if it was absent (If-None-Match: *), and {} of them succeeded, not one",
                winners.len()
            )));
        };
        let found = disk::read_file(&*self.disk, path).map_err(StorageError::io("read", path))?;
        if found != format!("{name} {winner}").as_bytes() {
            return Err(self.unfit("it gives another object than the one that was put".into()));
        }
        let listed = self.disk.list(&self.dir).map_err(StorageError::io("list", &self.dir))?;
        if !listed.iter().any(|entry| entry.name == name) {
            return Err(self.unfit("a list does not have an object that was put before".into()));
        }
        Ok(())
    }

    fn unfit(&self, reason: String) -> StorageError {
        StorageError::Unfit { place: self.dir.display().to_string(), reason }
    }

    /// Writes down that the tables belong to this life of `node`.
    ///
    /// # Errors
    /// [`StorageError::Owned`] if they are another node's, or a later life's.
    pub(crate) fn claim(&self, node: NodeId, epoch: NodeEpoch) -> Result<(), StorageError> {
        disk::create_dir_all(&*self.disk, &self.dir).map_err(StorageError::io("create", &self.dir))?;
        let path = self.dir.join(OWNER);
        let file = OwnerFile { format: FORMAT, node: node.to_string(), epoch: epoch.0 };
        let bytes = serde_json::to_vec(&file).expect("plain data");
        if self.owner()?.is_none() {
            match self.disk.write_whole(&path, &bytes, Replace::No) {
                Ok(()) => return Ok(()),
                // Somebody else was first, by a moment.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(StorageError::io("write", &path)(e)),
            }
        }
        match self.owner()? {
            Some(owner) if owner.node != file.node || owner.epoch > epoch.0 => Err(self.owned(&owner)),
            _ => self.disk.write_whole(&path, &bytes, Replace::Yes).map_err(StorageError::io("write", &path)),
        }
    }

    /// # Errors
    /// [`StorageError::Owned`] if the tables are another node's; with `epoch`, also if they are another life's.
    pub(crate) fn check_owner(&self, node: Option<NodeId>, epoch: Option<NodeEpoch>) -> Result<(), StorageError> {
        let Some(owner) = self.owner()? else { return Ok(()) };
        let is_ours = node.is_some_and(|node| node.to_string() == owner.node);
        match is_ours && epoch.is_none_or(|epoch| epoch.0 == owner.epoch) {
            true => Ok(()),
            false => Err(self.owned(&owner)),
        }
    }

    fn owner(&self) -> Result<Option<OwnerFile>, StorageError> {
        let path = self.dir.join(OWNER);
        let bytes = match disk::read_file(&*self.disk, &path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(StorageError::io("read", &path)(e)),
        };
        let corrupt = |e: serde_json::Error| StorageError::Corrupt { path: path.clone(), reason: e.to_string() };
        let owner: OwnerFile = serde_json::from_slice(&bytes).map_err(corrupt)?;
        if owner.format > FORMAT {
            return Err(StorageError::NewerFormat { path, found: format!("format {}", owner.format) });
        }
        Ok(Some(owner))
    }

    fn owned(&self, owner: &OwnerFile) -> StorageError {
        StorageError::Owned {
            place: self.dir.display().to_string(),
            owner: format!("node {} in its life {}", owner.node, owner.epoch),
            note: self.dir.join(OWNER).display().to_string(),
        }
    }
}

/// Whether the store is to be reached without TLS, and nobody has said that it may be.
fn needs_leave_for_http(builder: &AmazonS3Builder) -> bool {
    let is_http = |key| builder.get_config_value(&key).is_some_and(|address| address.starts_with("http://"));
    let may = builder.get_config_value(&AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp));
    (is_http(AmazonS3ConfigKey::Endpoint) || is_http(AmazonS3ConfigKey::S3Endpoint))
        && may.is_none_or(|may| may != "true")
}

impl StorageError {
    /// What a request is told that needed the store: to come back, if it did not answer.
    pub(crate) fn busy_if_away(self) -> StorageError {
        if !self.is_store_away() {
            return self;
        }
        StorageError::Busy { reason: self.to_string().into(), retry_after: RETRY_AFTER }
    }

    /// Whether an object store did not answer: later it may.
    pub fn is_store_away(&self) -> bool {
        matches!(self, StorageError::Io { source, .. } if is_away(source))
    }
}
