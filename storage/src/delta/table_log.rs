//! The log of one table: load, commit, checkpoint names.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, NaiveDate};
use model::TableId;
use serde_json::Value;
use uuid::Uuid;
use wal::disk::{self, Replace, SharedDisk};

use super::checkpoint_read::read_checkpoint;
use super::{Action, Add, DAY_COLUMN, schema_from_json};
use crate::options::Properties;
use crate::shard::{ColumnStats, Shard};
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

/// The one writer of a table's log.
#[derive(Debug)]
pub(crate) struct TableLog {
    disk: SharedDisk,
    /// `…/_delta_log`.
    dir: PathBuf,
    /// The last version that stands; -1 before the first.
    version: i64,
    /// Set when a commit's outcome is unknown: its name stands, but may not be durable.
    uncertain: bool,
    /// The newest version that has a checkpoint, and the bytes of that.
    checkpoint: Option<(i64, u64)>,
    /// Bytes of the commits behind it.
    bytes_since_checkpoint: u64,
    /// No checkpoint is due before this version.
    checkpoint_not_before: i64,
    /// Files that were removed and that vacuum has not been told of.
    removed: Vec<Removed>,
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
            uncertain: false,
            checkpoint: None,
            bytes_since_checkpoint: 0,
            checkpoint_not_before: 0,
            removed: Vec::new(),
        }
    }

    /// Reads the log in `table_dir`; `None` where no commit stands.
    pub(crate) fn load(disk: &SharedDisk, table_dir: &Path) -> Result<Option<(TableLog, TableState)>, StorageError> {
        let dir = table_dir.join("_delta_log");
        let entries = match disk.list(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(StorageError::io("list", &dir)(e)),
        };
        // An earlier life may have been killed between a rename and the sync of its directory. What is built on the names
        // found here (a truncated log, a deleted file) must not outlive them.
        for folder in [&*dir, table_dir] {
            disk.sync_dir(folder).map_err(StorageError::io("sync", folder))?;
        }
        let commits: Vec<i64> = entries.iter().filter_map(|entry| commit_version(&entry.name)).collect();
        let mut checkpoints: Vec<i64> = entries.iter().filter_map(|entry| checkpoint_version(&entry.name)).collect();
        checkpoints.sort_unstable();
        let Some(last) = commits.iter().copied().max().max(checkpoints.last().copied()) else {
            return Ok(None);
        };
        let (mut replay, checkpoint) = from_checkpoints(disk, &dir, &checkpoints, commits.contains(&0))?;
        let mut log = TableLog { checkpoint, ..TableLog::at(disk, dir, last) };
        let next = checkpoint.map_or(0, |(version, _)| version + 1);
        let dir = &log.dir;
        for version in next..=last {
            let path = commit_path(dir, version);
            let bytes = match disk::read_file(&**disk, &path) {
                Ok(bytes) => bytes,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    let reason = format!("the commit is missing, but version {last} stands");
                    return Err(StorageError::Corrupt { path, reason });
                }
                Err(e) => return Err(StorageError::io("read", &path)(e)),
            };
            log.bytes_since_checkpoint += bytes.len() as u64;
            replay.apply_commit(&bytes).map_err(|reason| StorageError::Corrupt { path, reason })?;
        }
        let removed = std::mem::take(&mut replay.removed).into_iter();
        log.removed = removed.map(|(path, at_ms)| Removed { path, at_ms, in_this_life: false }).collect();
        let state = replay.finish(commit_path(&log.dir, last))?;
        Ok(Some((log, state)))
    }

    /// Whether so much was committed since the last checkpoint that readers should be given a new one.
    pub(crate) fn is_checkpoint_due(&self) -> bool {
        let (version, bytes) = self.checkpoint.unwrap_or((0, 0));
        let many = self.version - version >= COMMITS_BETWEEN_CHECKPOINTS;
        let long = self.bytes_since_checkpoint >= bytes.max(COMMIT_BYTES_BETWEEN_CHECKPOINTS);
        (many || long) && self.version >= self.checkpoint_not_before
    }

    /// Takes note that writing one failed: it is tried again only some commits later.
    pub(crate) fn put_checkpoint_off(&mut self) {
        self.checkpoint_not_before = self.version + COMMITS_BETWEEN_CHECKPOINTS / 8;
    }

    /// Takes note of a checkpoint of `version`.
    pub(crate) fn checkpointed(&mut self, version: i64) {
        // A file of no known size is no reason to write the next one sooner.
        let bytes = self.disk.info(&checkpoint_path(&self.dir, version)).map_or(0, |info| info.len);
        self.checkpoint = Some((version, bytes));
        self.bytes_since_checkpoint = 0;
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
        self.uncertain
    }

    /// Writes the next version and makes it durable.
    ///
    /// # Errors
    /// [`StorageError::Poisoned`] if an earlier commit may or may not be durable: only a restart can tell.
    /// Any other error leaves the log as it was.
    pub(crate) fn commit(&mut self, actions: &[Action]) -> Result<i64, StorageError> {
        if self.uncertain {
            return Err(StorageError::Poisoned);
        }
        let mut bytes = Vec::new();
        for action in actions {
            serde_json::to_writer(&mut bytes, action).expect("actions are plain data");
            bytes.push(b'\n');
        }
        let version = self.version + 1;
        let path = commit_path(&self.dir, version);
        if let Err(e) = disk::write_whole(&*self.disk, &path, &bytes, Replace::No) {
            // Before the rename nothing stands; after it the name may not survive, which is a failed sync (P2).
            self.uncertain = self.disk.info(&path).is_ok();
            return Err(StorageError::io("commit", &path)(e));
        }
        self.version = version;
        self.bytes_since_checkpoint += bytes.len() as u64;
        let removed = actions.iter().filter_map(|action| match action {
            Action::Remove(remove) => Some(remove),
            _ => None,
        });
        self.removed.extend(removed.map(|remove| Removed {
            path: remove.path.clone(),
            at_ms: remove.deletion_timestamp,
            in_this_life: true,
        }));
        Ok(version)
    }
}

/// The newest checkpoint that can be read, applied, and its version and bytes; nothing, if every commit is there anyway.
fn from_checkpoints(
    disk: &SharedDisk,
    dir: &Path,
    checkpoints: &[i64],
    has_first_commit: bool,
) -> Result<(Replay, Option<(i64, u64)>), StorageError> {
    let mut damaged = None;
    for version in checkpoints.iter().rev() {
        let path = checkpoint_path(dir, *version);
        let read = disk::read_file(&**disk, &path).map_err(StorageError::io("read", &path)).and_then(|bytes| {
            let (len, mut replay) = (bytes.len() as u64, Replay::default());
            let applied = read_checkpoint(bytes).and_then(|actions| replay.apply_all(actions));
            applied.map_err(|reason| StorageError::Corrupt { path, reason }).map(|()| (replay, Some((*version, len))))
        });
        match read {
            Ok(found) => return Ok(found),
            Err(error) => {
                tracing::warn!(%error, "a Delta checkpoint is damaged; reading the one before it and the commits behind");
                damaged.get_or_insert(error);
            }
        }
    }
    match damaged {
        Some(error) if !has_first_commit => Err(error),
        _ => Ok((Replay::default(), None)),
    }
}

/// Whether the checkpoint of `version` reads back as a whole table.
pub(crate) fn check_checkpoint(disk: &SharedDisk, dir: &Path, version: i64) -> Result<(), StorageError> {
    let (replay, _) = from_checkpoints(disk, dir, &[version], false)?;
    replay.finish(checkpoint_path(dir, version)).map(drop)
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

/// Actions applied one after another.
#[derive(Default)]
struct Replay {
    metadata: Option<super::Metadata>,
    protocol: Option<super::Protocol>,
    adds: BTreeMap<String, Add>,
    txns: BTreeMap<String, i64>,
    /// Files that were removed, and when.
    removed: BTreeMap<String, Option<i64>>,
}

impl Replay {
    fn apply_commit(&mut self, bytes: &[u8]) -> Result<(), String> {
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let actions: Result<Vec<Action>, String> =
            lines.map(|line| serde_json::from_slice(line).map_err(|e| e.to_string())).collect();
        self.apply_all(actions?)
    }

    fn apply_all(&mut self, actions: Vec<Action>) -> Result<(), String> {
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
        Ok(())
    }

    fn finish(self, path: PathBuf) -> Result<TableState, StorageError> {
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

/// The shard that `add` names; `prefix` is the table's location below `DATA/tables`.
///
/// # Errors
/// Says what is missing: our own adds always carry statistics.
pub(crate) fn shard_from_add(prefix: &str, add: &Add) -> Result<Shard, String> {
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
    let position = |name: &str| add.tags.as_ref().and_then(|tags| tags.get(name)?.as_deref()?.parse().ok());
    Ok(Shard {
        path: format!("{prefix}/{}", add.path),
        bytes: u64::try_from(add.size).map_err(|_| "a negative size")?,
        rows,
        day: parse_day(day).ok_or_else(|| format!("day {day:?}"))?,
        time_min_us: time_us("minValues")?,
        time_max_us: time_us("maxValues")?,
        columns: columns.collect(),
        position_min: position("eden.pos_min").ok_or("an add without eden.pos_min")?,
        position_max: position("eden.pos_max").ok_or("an add without eden.pos_max")?,
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
