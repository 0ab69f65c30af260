//! The log of one table: load, commit, checkpoint names.

mod news;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, NaiveDate};
use model::TableId;
use serde_json::Value;
use uuid::Uuid;
use wal::disk::{self, Disk, Replace, SharedDisk};

use super::checkpoint_read::read_checkpoint;
use super::checkpoint_sum::{self, Beside};
use super::sealed;
use super::{Action, Add, CHECKSUMS_TAG, DAY_COLUMN, POSITION_MAX_TAG, POSITION_MIN_TAG, schema_from_json};
use crate::options::Properties;
use crate::shard::{Checksums, ColumnStats, KnownShards, Shard};
use crate::{StorageError, TableSchema};

/// What a table is at one version.
#[derive(Clone, Debug)]
pub(crate) struct TableState {
    pub(crate) id: TableId,
    pub(crate) schema: TableSchema,
    /// By path.
    pub(crate) adds: BTreeMap<String, Add>,
    /// By app id.
    pub(crate) txns: BTreeMap<String, i64>,
    pub(crate) properties: Properties,
}

/// A file that a version of this table named and no later one does.
#[derive(Clone, Debug)]
pub(crate) struct Removed {
    /// Below the table's folder.
    pub(crate) path: String,
    /// When, by the wall clock of the server that removed it; `None` if it does not say.
    pub(crate) at_ms: Option<i64>,
    /// Whether this process removed it, so that its queries may still read it.
    pub(crate) in_this_life: bool,
}

/// Commits after which a checkpoint is due: a reader replays about so many.
const COMMITS_BETWEEN_CHECKPOINTS: i64 = 64;

/// Bytes of commits after which one is due all the same, if the last one was not larger.
const COMMIT_BYTES_BETWEEN_CHECKPOINTS: u64 = 4 << 20;

/// What is told when a version that was to be ours is somebody else's: nothing of his is lost, and nothing of ours.
const OTHER_WRITER: &str = "another server has committed this version of the table; stop the one that should not write here, \
                            then start the other anew";

/// When it is worth asking again whether a commit stands.
const RESOLVED_AFTER: Duration = Duration::from_secs(5);

/// Commits that are read at a time: more take memory, fewer take time behind a network.
const COMMITS_TOGETHER: usize = 32;

/// What is known of the commit that was tried last.
#[derive(Debug)]
enum LastCommit {
    /// It stands, or never will.
    Known,
    /// Nobody knows: its name stands, but may not be durable; or a store has not answered, and may get it yet.
    InDoubt(Doubt),
    /// It stands, and what it did is not in memory.
    Missed,
}

/// A commit in doubt.
#[derive(Debug)]
struct Doubt {
    bytes: Vec<u8>,
    /// What was tried to be put in its place.
    nothing: Option<Vec<u8>>,
    /// Whether somebody remembers what it did, and asks.
    is_remembered: bool,
}

/// What became of a commit that was in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resolved {
    /// It stands.
    Stands,
    /// It does not, and cannot any more: its version is another's.
    Gone,
}

/// The one writer of a table's log.
#[derive(Debug)]
pub(crate) struct TableLog {
    disk: SharedDisk,
    /// `…/_delta_log`.
    dir: PathBuf,
    /// The last version that stands; -1 before the first.
    version: i64,
    last_commit: LastCommit,
    /// The newest version that has a checkpoint, and the bytes of that.
    checkpoint: Option<(i64, u64)>,
    /// Bytes of the commits behind it.
    bytes_since_checkpoint: u64,
    /// No checkpoint is due before this version.
    checkpoint_not_before: i64,
    /// Files that were removed and that vacuum has not been told of.
    removed: Vec<Removed>,
    /// Among several nodes: one of those versions was ours of which the committer writes a checkpoint.
    is_our_turn: bool,
}

impl TableLog {
    /// The log of a table that has no commit yet; makes its folder.
    pub(crate) fn create(disk: &SharedDisk, table_dir: &Path) -> Result<TableLog, StorageError> {
        let dir = table_dir.join("_delta_log");
        disk::create_dir_all(&**disk, &dir).map_err(StorageError::io("create", &dir))?;
        Ok(TableLog::at(disk, dir, -1))
    }

    fn at(disk: &SharedDisk, dir: PathBuf, version: i64) -> TableLog {
        TableLog {
            disk: Arc::clone(disk),
            dir,
            version,
            last_commit: LastCommit::Known,
            checkpoint: None,
            bytes_since_checkpoint: 0,
            checkpoint_not_before: 0,
            removed: Vec::new(),
            is_our_turn: false,
        }
    }

    /// The last version that is known to stand.
    pub(crate) fn version(&self) -> i64 {
        self.version
    }

    /// Reads the log in `table_dir`; `None` where no commit stands.
    pub(crate) fn load(disk: &SharedDisk, table_dir: &Path) -> Result<Option<(TableLog, TableState)>, StorageError> {
        let Some(files) = LogFiles::list(&**disk, table_dir)? else { return Ok(None) };
        // An earlier life may have been killed between a rename and the sync of its directory. What is built on the names
        // found here (a truncated log, a deleted file) must not outlive them.
        for folder in [&*files.dir, table_dir] {
            disk.sync_dir(folder).map_err(StorageError::io("sync", folder))?;
        }
        let Replayed { mut replay, unread, base } = files.replay(&**disk)?;
        for (path, reason) in unread {
            tracing::error!(path = %path.display(), reason, "a Delta checkpoint is damaged; an older one and commits stand in");
        }
        let mut log = TableLog::at(disk, files.dir.clone(), files.last);
        log.checkpoint = base.map(|version| (version, files.bytes_of(&files.checkpoint_path(version))));
        let behind = base.map_or(0, |version| version + 1)..=files.last;
        log.bytes_since_checkpoint = behind.map(|version| files.bytes_of(&files.commit_path(version))).sum();
        let removed = std::mem::take(&mut replay.removed).into_iter();
        log.removed = removed.map(|(path, at_ms)| Removed { path, at_ms, in_this_life: false }).collect();
        let state = replay.finish(files.commit_path(files.last))?;
        Ok(Some((log, state)))
    }

    /// Whether so much was committed since the last checkpoint that readers should be given a new one.
    pub(crate) fn is_checkpoint_due(&self) -> bool {
        if self.disk.is_common() {
            return self.is_our_turn;
        }
        let (version, bytes) = self.checkpoint.unwrap_or((0, 0));
        let many = self.version - version >= COMMITS_BETWEEN_CHECKPOINTS;
        let long = self.bytes_since_checkpoint >= bytes.max(COMMIT_BYTES_BETWEEN_CHECKPOINTS);
        (many || long) && self.version >= self.checkpoint_not_before
    }

    /// Takes note that writing one failed: it is tried again only some commits later.
    pub(crate) fn put_checkpoint_off(&mut self) {
        self.checkpoint_not_before = self.version + COMMITS_BETWEEN_CHECKPOINTS / 8;
        self.is_our_turn = false;
    }

    /// Takes note of a checkpoint of `version`.
    pub(crate) fn checkpointed(&mut self, version: i64) {
        // A file of no known size is no reason to write the next one sooner.
        let bytes = self.disk.info(&checkpoint_path(&self.dir, version)).map_or(0, |info| info.len);
        self.checkpoint = Some((version, bytes));
        self.bytes_since_checkpoint = 0;
        self.is_our_turn = false;
    }

    /// The newest version that has a checkpoint.
    pub(crate) fn checkpoint(&self) -> Option<i64> {
        self.checkpoint.map(|(version, _)| version)
    }

    /// Files that were removed from the table since the last call.
    pub(crate) fn take_removed(&mut self) -> Vec<Removed> {
        std::mem::take(&mut self.removed)
    }

    /// Whether the last commit may or may not stand.
    pub(crate) fn is_uncertain(&self) -> bool {
        !matches!(self.last_commit, LastCommit::Known)
    }

    /// Takes note that whoever tried the last commit, which is in doubt, remembers what it did and asks for it by
    /// [`TableLog::resolve`]. Returns false if nobody can tell but a restart.
    pub(crate) fn is_remembered(&mut self) -> bool {
        match &mut self.last_commit {
            LastCommit::InDoubt(doubt) if self.disk.is_remote() => {
                doubt.is_remembered = true;
                true
            }
            _ => false,
        }
    }

    /// Finds out what became of a commit in doubt, by putting one that does nothing in its place if that is free: then the
    /// one in doubt comes too late if it comes. `info` is what that says of itself.
    ///
    /// # Errors
    /// It is still in doubt.
    pub(crate) fn resolve(&mut self, info: Action) -> Result<Resolved, StorageError> {
        let version = self.version + 1;
        let path = commit_path(&self.dir, version);
        let LastCommit::InDoubt(doubt) = &mut self.last_commit else { return Err(StorageError::Poisoned) };
        let nothing = doubt.nothing.get_or_insert_with(|| commit_bytes(&[info]));
        let stands = match disk::write_whole(&*self.disk, &path, nothing, Replace::No) {
            Ok(()) => nothing.clone(),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                disk::read_file(&*self.disk, &path).map_err(StorageError::io("read", &path))?
            }
            Err(e) => return Err(StorageError::io("commit", &path)(e)),
        };
        let resolved = match () {
            () if stands == *nothing => Resolved::Gone,
            () if stands == doubt.bytes => Resolved::Stands,
            () => {
                let e = io::Error::new(io::ErrorKind::AlreadyExists, OTHER_WRITER);
                return Err(StorageError::io("commit", &path)(e));
            }
        };
        let actions = parse_commit(&stands).map_err(|reason| StorageError::Corrupt { path, reason })?;
        self.last_commit = LastCommit::Known;
        self.committed(version, &actions, stands.len());
        Ok(resolved)
    }

    /// Before a commit: the last one must not be in doubt.
    fn check_last(&mut self, info: Option<&Action>) -> Result<(), StorageError> {
        let is_remembered = match &self.last_commit {
            LastCommit::Known => return Ok(()),
            LastCommit::InDoubt(doubt) if self.disk.is_remote() => doubt.is_remembered,
            LastCommit::InDoubt(_) | LastCommit::Missed => return Err(StorageError::Poisoned),
        };
        let Some(info) = info.filter(|_| !is_remembered) else {
            let reason = "the object store has not said yet whether it has the last commit of the table";
            return Err(StorageError::Busy { reason: reason.into(), retry_after: RESOLVED_AFTER });
        };
        match self.resolve(info.clone())? {
            Resolved::Gone => Ok(()),
            Resolved::Stands => {
                self.last_commit = LastCommit::Missed;
                Err(StorageError::Poisoned)
            }
        }
    }

    /// Writes the next version and makes it durable.
    ///
    /// # Errors
    /// [`StorageError::Poisoned`] if an earlier commit may or may not be durable: only a restart can tell.
    /// Among several nodes, one that [`StorageError::is_version_taken`] if another was faster.
    /// Any other error leaves the log as it was, unless it is uncertain then.
    pub(crate) fn commit(&mut self, actions: &[Action]) -> Result<i64, StorageError> {
        self.check_last(actions.iter().find(|action| matches!(action, Action::CommitInfo(_))))?;
        let bytes = commit_bytes(actions);
        let version = self.version + 1;
        let path = commit_path(&self.dir, version);
        if let Err(e) = disk::write_whole(&*self.disk, &path, &bytes, Replace::No) {
            // Before the rename nothing stands; after it the name may not survive, which is a failed sync (P2). An object
            // store that has not answered for long may have the commit, or get it yet.
            if self.disk.may_stand(&path, &e) {
                self.last_commit = LastCommit::InDoubt(Doubt { bytes, nothing: None, is_remembered: false });
            }
            if self.disk.is_common() && e.kind() == io::ErrorKind::AlreadyExists {
                return Err(StorageError::version_taken(&path));
            }
            let e = match e.kind() {
                io::ErrorKind::AlreadyExists if self.disk.is_remote() => io::Error::new(e.kind(), OTHER_WRITER),
                _ => e,
            };
            return Err(StorageError::io("commit", &path)(e));
        }
        self.committed(version, actions, bytes.len());
        // Each version has one committer, so two nodes do not write one checkpoint but by a rare chance, which costs nothing.
        self.is_our_turn |= version % COMMITS_BETWEEN_CHECKPOINTS == 0 && version > 0;
        Ok(version)
    }

    fn committed(&mut self, version: i64, actions: &[Action], bytes: usize) {
        self.version = version;
        self.bytes_since_checkpoint += bytes as u64;
        let removed = actions.iter().filter_map(|action| match action {
            Action::Remove(remove) => Some(remove),
            _ => None,
        });
        self.removed.extend(removed.map(|remove| Removed {
            path: remove.path.clone(),
            at_ms: remove.deletion_timestamp,
            in_this_life: true,
        }));
    }
}

/// The bytes of a commit. What it is about stands last: sealed, so that damage anywhere in it is told.
pub(crate) fn commit_bytes(actions: &[Action]) -> Vec<u8> {
    let line = |action: &Action| serde_json::to_string(action).expect("actions are plain data");
    let mut bytes = Vec::new();
    let (infos, others): (Vec<_>, Vec<_>) = actions.iter().partition(|a| matches!(a, Action::CommitInfo(_)));
    for action in others {
        bytes.extend_from_slice(line(action).as_bytes());
        bytes.push(b'\n');
    }
    let [info] = &infos[..] else { panic!("a commit says once what it is about, not {} times", infos.len()) };
    sealed::seal(&mut bytes, &line(info));
    bytes
}

/// How the commits began that had no seal.
const UNSEALED_BEGINNING: &[u8] = b"{\"commitInfo\":";

/// Whether a commit can be read, and is known to be what was written.
///
/// # Errors
/// Says why it is damaged.
pub(crate) fn verify_commit(bytes: &[u8]) -> Result<Sealing, String> {
    match sealed::is_whole(bytes) {
        Some(true) => Ok(Sealing::Sealed),
        Some(false) => Err("its bytes are not those that were written (checksum)".into()),
        None if bytes.starts_with(UNSEALED_BEGINNING) => Ok(Sealing::Unsealed),
        None => Err("its end is not the one that was written".into()),
    }
}

/// Whether something has a checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sealing {
    Sealed,
    /// Of before there were checksums: taken as it is (P13).
    Unsealed,
}

/// The files of a table's log.
#[derive(Clone, Debug)]
pub(crate) struct LogFiles {
    /// `…/_delta_log`.
    pub(crate) dir: PathBuf,
    /// Ascending.
    pub(crate) commits: Vec<i64>,
    /// Ascending.
    pub(crate) checkpoints: Vec<i64>,
    /// The last version that a name tells of.
    pub(crate) last: i64,
    /// Bytes, by name.
    bytes: HashMap<String, u64>,
}

/// What the files of a log lead to.
pub(crate) struct Replayed {
    pub(crate) replay: Replay,
    /// Checkpoints that could not be read on the way, and why.
    pub(crate) unread: Vec<(PathBuf, String)>,
    /// The version of the checkpoint that it began with; `None` if there was none.
    pub(crate) base: Option<i64>,
}

impl LogFiles {
    /// Those in `table_dir`; `None` where no commit stands.
    pub(crate) fn list(disk: &dyn Disk, table_dir: &Path) -> Result<Option<LogFiles>, StorageError> {
        let dir = table_dir.join("_delta_log");
        let entries = match disk.list_with_info(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(StorageError::io("list", &dir)(e)),
        };
        let versions = |version_of: fn(&str) -> Option<i64>| -> Vec<i64> {
            let mut found: Vec<i64> = entries.iter().filter_map(|(entry, _)| version_of(&entry.name)).collect();
            found.sort_unstable();
            found
        };
        let (commits, checkpoints) = (versions(commit_version), versions(checkpoint_version));
        let last = commits.last().copied().max(checkpoints.last().copied());
        let bytes = entries.into_iter().map(|(entry, info)| (entry.name, info.len)).collect();
        Ok(last.map(|last| LogFiles { dir, commits, checkpoints, last, bytes }))
    }

    /// 0 if it is not known: that is no reason to write a checkpoint sooner.
    fn bytes_of(&self, path: &Path) -> u64 {
        let name = path.file_name().and_then(|name| name.to_str());
        name.and_then(|name| self.bytes.get(name)).copied().unwrap_or(0)
    }

    pub(crate) fn commit_path(&self, version: i64) -> PathBuf {
        commit_path(&self.dir, version)
    }

    pub(crate) fn checkpoint_path(&self, version: i64) -> PathBuf {
        checkpoint_path(&self.dir, version)
    }

    /// Applies the newest checkpoint that can be read and all commits behind it. Of a table that was dropped the last
    /// commit is enough.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] names the damaged file that nothing stands in for.
    pub(crate) fn replay(&self, disk: &dyn Disk) -> Result<Replayed, StorageError> {
        match self.replay_all(disk) {
            // Where folders cannot be renamed, the commits of a dropped table go one by one, the last one last.
            Err(e @ StorageError::Corrupt { .. }) => {
                let mut replay = Replay::default();
                if let Ok((actions, _)) = self.read_commit(disk, self.last) {
                    replay.apply_all(actions);
                }
                let dropped = replay.is_dropped();
                if dropped { Ok(Replayed { replay, unread: Vec::new(), base: None }) } else { Err(e) }
            }
            replayed => replayed,
        }
    }

    fn replay_all(&self, disk: &dyn Disk) -> Result<Replayed, StorageError> {
        let mut unread: Vec<(PathBuf, String)> = Vec::new();
        for base in self.checkpoints.iter().rev().copied().map(Some).chain([None]) {
            let mut replay = Replay::default();
            if let Some(version) = base {
                match self.read_checkpoint(disk, version)? {
                    Ok((actions, _)) => replay.apply_all(actions),
                    Err(reason) => {
                        unread.push((self.checkpoint_path(version), reason));
                        continue;
                    }
                }
            }
            // Whatever the base: no commit behind the newest checkpoint has a stand-in.
            let behind: Vec<i64> = (base.map_or(0, |version| version + 1)..=self.last).collect();
            for versions in behind.chunks(COMMITS_TOGETHER) {
                let paths: Vec<PathBuf> = versions.iter().map(|version| self.commit_path(*version)).collect();
                for (version, read) in versions.iter().zip(disk.read_files(&paths)) {
                    let read = self.commit_of(*version, read).map_err(|e| match unread.first() {
                        // It is missed only because the newest checkpoint is damaged.
                        Some((path, reason)) if self.checkpoints.last().is_some_and(|newest| version <= newest) => {
                            StorageError::Corrupt { path: path.clone(), reason: reason.clone() }
                        }
                        _ => e,
                    });
                    replay.apply_all(read?.0);
                }
            }
            return Ok(Replayed { replay, unread, base });
        }
        unreachable!("the last base is no checkpoint, and the loop ends there")
    }

    /// The actions of a commit.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] if it is missing or damaged.
    pub(crate) fn read_commit(&self, disk: &dyn Disk, version: i64) -> Result<(Vec<Action>, Sealing), StorageError> {
        self.commit_of(version, disk::read_file(disk, &self.commit_path(version)))
    }

    fn commit_of(&self, version: i64, read: io::Result<Vec<u8>>) -> Result<(Vec<Action>, Sealing), StorageError> {
        let path = self.commit_path(version);
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let reason = format!("the commit is missing, but version {} stands", self.last);
                return Err(StorageError::Corrupt { path, reason });
            }
            Err(e) => return Err(StorageError::io("read", &path)(e)),
        };
        let read = verify_commit(&bytes).and_then(|sealing| Ok((parse_commit(&bytes)?, sealing)));
        read.map_err(|reason| StorageError::Corrupt { path, reason })
    }

    /// The actions of a checkpoint, or why it is damaged.
    ///
    /// # Errors
    /// If the disk does not give it.
    pub(crate) fn read_checkpoint(
        &self,
        disk: &dyn Disk,
        version: i64,
    ) -> Result<Result<(Vec<Action>, Beside), String>, StorageError> {
        let path = self.checkpoint_path(version);
        let bytes = disk::read_file(disk, &path).map_err(StorageError::io("read", &path))?;
        let beside = checkpoint_sum::compare(disk, &self.dir, version, &bytes)
            .map_err(StorageError::io("read", &self.dir.join(checkpoint_sum::side_name(version))))?;
        if beside == Beside::Other {
            return Ok(Err("its bytes are not those that were written (checksum)".into()));
        }
        // Without a checksum damaged bytes come as far as the decoder, which may panic.
        let read = std::panic::catch_unwind(move || read_checkpoint(bytes));
        let read = read.unwrap_or_else(|_| Err("it cannot be decoded".into()));
        Ok(read.map(|actions| (actions, beside)))
    }
}

/// Whether the checkpoint of `version` in the folder of a table reads back as a whole table.
pub(crate) fn check_checkpoint(disk: &dyn Disk, table_dir: &Path, version: i64) -> Result<(), StorageError> {
    let Some(files) = LogFiles::list(disk, table_dir)? else { return Ok(()) };
    let path = files.checkpoint_path(version);
    let mut replay = Replay::default();
    match files.read_checkpoint(disk, version)? {
        Ok((actions, _)) => replay.apply_all(actions),
        Err(reason) => return Err(StorageError::Corrupt { path, reason }),
    }
    replay.finish(path).map(drop)
}

fn commit_path(dir: &Path, version: i64) -> PathBuf {
    dir.join(format!("{version:020}.json"))
}

fn checkpoint_path(dir: &Path, version: i64) -> PathBuf {
    dir.join(format!("{version:020}.checkpoint.parquet"))
}

/// The version whose commit a file of that name is.
pub(crate) fn commit_version(name: &str) -> Option<i64> {
    version_of(name, ".json")
}

/// The version whose checkpoint a file of that name is.
pub(crate) fn checkpoint_version(name: &str) -> Option<i64> {
    version_of(name, ".checkpoint.parquet")
}

fn version_of(name: &str, suffix: &str) -> Option<i64> {
    name.strip_suffix(suffix).filter(|version| version.len() == 20).and_then(|version| version.parse().ok())
}

/// The actions of a commit, a line each.
pub(crate) fn parse_commit(bytes: &[u8]) -> Result<Vec<Action>, String> {
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).map_err(|e| e.to_string())).collect()
}

/// Actions applied one after another.
#[derive(Clone, Debug, Default)]
pub(crate) struct Replay {
    metadata: Option<super::Metadata>,
    protocol: Option<super::Protocol>,
    adds: BTreeMap<String, Add>,
    txns: BTreeMap<String, i64>,
    /// Files that were removed, and when.
    removed: BTreeMap<String, Option<i64>>,
}

impl Replay {
    pub(crate) fn apply_all(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Protocol(protocol) => self.protocol = Some(protocol),
                Action::MetaData(metadata) => self.metadata = Some(metadata),
                Action::Add(add) => {
                    self.removed.remove(&add.path);
                    self.adds.insert(add.path.clone(), add);
                }
                Action::Remove(remove) => {
                    self.adds.remove(&remove.path);
                    self.removed.insert(remove.path, remove.deletion_timestamp);
                }
                Action::Txn(txn) => {
                    self.txns.insert(txn.app_id, txn.version);
                }
                Action::CommitInfo(_) | Action::Other(_) => {}
            }
        }
    }

    /// Whether what was applied says that the table was dropped.
    fn is_dropped(&self) -> bool {
        let configuration = self.metadata.as_ref().map(|metadata| metadata.configuration.clone());
        configuration.is_some_and(|configuration| Properties { configuration, created_ms: None }.dropped_ms().is_some())
    }

    pub(crate) fn metadata(&self) -> Option<&super::Metadata> {
        self.metadata.as_ref()
    }

    /// Whether the table has the data file `path`.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.adds.contains_key(path)
    }

    /// Whether two ways through the log lead to the same table.
    pub(crate) fn is_same(&self, other: &Replay) -> bool {
        let id = |replay: &Replay| replay.metadata.as_ref().map(|m| (m.id.clone(), m.schema_string.clone()));
        id(self) == id(other)
            && self.protocol == other.protocol
            && self.txns == other.txns
            && self.adds.len() == other.adds.len()
            && self.adds.values().zip(other.adds.values()).all(|(a, b)| {
                (&a.path, a.size, &a.partition_values, &a.tags) == (&b.path, b.size, &b.partition_values, &b.tags)
            })
    }

    /// What the table is now; `path` is named if the log does not say.
    pub(crate) fn finish(self, path: PathBuf) -> Result<TableState, StorageError> {
        let corrupt = |reason: &str| StorageError::Corrupt { path: path.clone(), reason: reason.into() };
        let protocol = self.protocol.ok_or_else(|| corrupt("the log has no protocol action"))?;
        if protocol.min_reader_version > 1 || protocol.min_writer_version > 2 {
            let found = format!("Delta reader {}, writer {}", protocol.min_reader_version, protocol.min_writer_version);
            return Err(StorageError::NewerFormat { path, found });
        }
        let metadata = self.metadata.ok_or_else(|| corrupt("the log has no metaData action"))?;
        let id = Uuid::parse_str(&metadata.id).map_err(|_| corrupt("the table id is not a UUID"))?;
        let schema = schema_from_json(&metadata.schema_string)
            .map_err(|found| StorageError::NewerFormat { path: path.clone(), found })?;
        let properties = Properties { configuration: metadata.configuration, created_ms: metadata.created_time };
        Ok(TableState { id: TableId(*id.as_bytes()), schema, adds: self.adds, txns: self.txns, properties })
    }
}

/// The shard that `add` names, known from now on; `prefix` is the table's location below `DATA/tables`.
///
/// # Errors
/// As [`read_add`].
pub(crate) fn shard_from_add(known: &KnownShards, prefix: &str, add: &Add) -> Result<Shard, String> {
    let shard = read_add(prefix, add)?;
    known.add(&shard);
    Ok(shard)
}

/// What `add` says of a shard.
///
/// # Errors
/// Says what is missing: our own adds always carry statistics.
pub(crate) fn read_add(prefix: &str, add: &Add) -> Result<Shard, String> {
    let stats = add.stats.as_deref().ok_or("an add without statistics")?;
    let stats: Value = serde_json::from_str(stats).map_err(|e| format!("statistics: {e}"))?;
    let rows = stats["numRecords"].as_u64().ok_or("statistics without numRecords")?;
    let day = add.partition_values.get(DAY_COLUMN).and_then(Option::as_deref).ok_or("an add without a day")?;
    let time_us = |which: &str| -> Result<i64, String> {
        let text = stats[which]["time"].as_str().ok_or_else(|| format!("statistics without {which}.time"))?;
        let time = DateTime::parse_from_rfc3339(text).map_err(|e| format!("{which}.time {text:?}: {e}"))?;
        Ok(time.timestamp_micros())
    };
    let columns = stats["nullCount"].as_object().into_iter().flatten().map(|(name, nulls)| {
        let (min, max) = (&stats["minValues"][name], &stats["maxValues"][name]);
        let range = (!min.is_null() && !max.is_null()).then(|| (min.clone(), max.clone()));
        (Arc::from(name.as_str()), ColumnStats { null_count: nulls.as_u64().unwrap_or(rows), range })
    });
    let tag = |name: &str| add.tags.as_ref().and_then(|tags| tags.get(name)?.as_deref());
    let position = |name: &str| tag(name).and_then(|text| text.parse().ok());
    let bytes = u64::try_from(add.size).map_err(|_| "a negative size")?;
    Ok(Shard {
        path: format!("{prefix}/{}", add.path),
        bytes,
        rows,
        day: parse_day(day).ok_or_else(|| format!("day {day:?}"))?,
        time_min_us: time_us("minValues")?,
        time_max_us: time_us("maxValues")?,
        columns: columns.collect(),
        position_min: position(POSITION_MIN_TAG).ok_or("an add without eden.pos_min")?,
        position_max: position(POSITION_MAX_TAG).ok_or("an add without eden.pos_max")?,
        checksums: tag(CHECKSUMS_TAG).map(|text| Checksums::decode(text, bytes)).transpose()?,
    })
}

/// `2026-06-01` of days since 1970-01-01.
pub(crate) fn format_day(day: i32) -> String {
    let date = NaiveDate::from_num_days_from_ce_opt(day + DAYS_TO_1970).expect("times are checked on admission");
    date.format("%Y-%m-%d").to_string()
}

fn parse_day(text: &str) -> Option<i32> {
    use chrono::Datelike;
    Some(NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.num_days_from_ce() - DAYS_TO_1970)
}

/// Days from 0001-01-01 (day 1 of the common era) to 1970-01-01.
const DAYS_TO_1970: i32 = 719_163;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_read_back() {
        for (day, text) in [(0, "1970-01-01"), (-1, "1969-12-31"), (20_605, "2026-06-01"), (2_932_896, "9999-12-31")] {
            assert_eq!(format_day(day), text);
            assert_eq!(parse_day(text), Some(day));
        }
    }
}
