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
use super::{Action, Add, CHECKSUMS_TAG, DAY_COLUMN, POSITION_MAX_TAG, POSITION_MIN_TAG, schema_from_json};
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
}

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
}

impl TableLog {
    /// The log of a table that has no commit yet; makes its folder.
    pub(crate) fn create(disk: &SharedDisk, table_dir: &Path) -> Result<TableLog, StorageError> {
        let dir = table_dir.join("_delta_log");
        disk::create_dir_all(&**disk, &dir).map_err(StorageError::io("create", &dir))?;
        Ok(TableLog { disk: Arc::clone(disk), dir, version: -1, uncertain: false })
    }

    /// Reads the log in `table_dir`; `None` where no commit stands.
    pub(crate) fn load(disk: &SharedDisk, table_dir: &Path) -> Result<Option<(TableLog, TableState)>, StorageError> {
        let dir = table_dir.join("_delta_log");
        let entries = match disk.list(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(StorageError::io("list", &dir)(e)),
        };
        let version_of = |name: &str, suffix: &str| -> Option<i64> {
            name.strip_suffix(suffix).filter(|v| v.len() == 20).and_then(|v| v.parse().ok())
        };
        let commits: Vec<i64> = entries.iter().filter_map(|e| version_of(&e.name, ".json")).collect();
        let checkpoint = entries.iter().filter_map(|e| version_of(&e.name, ".checkpoint.parquet")).max();
        let Some(last) = commits.iter().copied().max().max(checkpoint) else {
            return Ok(None);
        };
        let mut replay = Replay::default();
        let mut next = 0;
        if let Some(version) = checkpoint {
            let path = dir.join(format!("{version:020}.checkpoint.parquet"));
            let bytes = disk::read_file(&**disk, &path).map_err(StorageError::io("read", &path))?;
            match read_checkpoint(bytes).and_then(|actions| replay.apply_all(actions)) {
                Ok(()) => next = version + 1,
                // Until log cleanup exists every commit still stands, so a bad checkpoint costs only time.
                Err(reason) if commits.contains(&0) => {
                    tracing::warn!(path = %path.display(), reason, "a Delta checkpoint is damaged; reading all commits");
                    replay = Replay::default();
                }
                Err(reason) => return Err(StorageError::Corrupt { path, reason }),
            }
        }
        for version in next..=last {
            let path = commit_path(&dir, version);
            let bytes = match disk::read_file(&**disk, &path) {
                Ok(bytes) => bytes,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    let reason = format!("the commit is missing, but version {last} stands");
                    return Err(StorageError::Corrupt { path, reason });
                }
                Err(e) => return Err(StorageError::io("read", &path)(e)),
            };
            replay.apply_commit(&bytes).map_err(|reason| StorageError::Corrupt { path, reason })?;
        }
        let path = commit_path(&dir, last);
        let state = replay.finish(path)?;
        Ok(Some((TableLog { disk: Arc::clone(disk), dir, version: last, uncertain: false }, state)))
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
        Ok(version)
    }
}

fn commit_path(dir: &Path, version: i64) -> PathBuf {
    dir.join(format!("{version:020}.json"))
}

/// Actions applied one after another.
#[derive(Default)]
struct Replay {
    metadata: Option<super::Metadata>,
    protocol: Option<super::Protocol>,
    adds: BTreeMap<String, Add>,
    txns: BTreeMap<String, i64>,
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
                    self.adds.insert(add.path.clone(), add);
                }
                Action::Remove(remove) => {
                    self.adds.remove(&remove.path);
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
        Ok(TableState { id: TableId(*id.as_bytes()), schema, adds: self.adds, txns: self.txns })
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
