//! What every table of a data folder shares.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use model::{Clock, NodeEpoch, NodeId, Rng};
use uuid::Uuid;
use wal::disk::SharedDisk;

use crate::StorageError;
use crate::place::Tables;
use crate::shard::index::IndexCache;
use crate::shard::{KnownShards, ShardDamage};
use crate::space::DiskSpace;
use crate::write::Memory;

/// Disk, time, chance, identity, caches and counters.
#[derive(Debug)]
pub(crate) struct Context {
    /// Under the tables.
    pub(crate) disk: SharedDisk,
    /// Under everything else.
    pub(crate) data_disk: SharedDisk,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rng: Arc<dyn Rng>,
    /// `DATA/tables`, or where else they are.
    pub(crate) tables_dir: PathBuf,
    /// Whether they are elsewhere, and so without a lock.
    pub(crate) elsewhere: Option<Tables>,
    pub(crate) node: NodeId,
    pub(crate) epoch: NodeEpoch,
    pub(crate) indexes: IndexCache,
    pub(crate) shards: Arc<KnownShards>,
    pub(crate) memory: Memory,
    pub(crate) space: DiskSpace,
    /// From the configuration: bytes of rows in memory above which a table is flushed.
    pub(crate) table_memory_bytes_max: usize,
    pub(crate) counters: Counters,
    /// The latest time of any reading of any table but the server's own, µs; retention does not trust the clock alone.
    pub(crate) newest_us: AtomicI64,
    /// From the configuration.
    pub(crate) retention_default: Option<Duration>,
}

impl Context {
    /// A random (version 4) UUID.
    pub(crate) fn uuid(&self) -> Uuid {
        Uuid::from_u64_pair(self.rng.next_u64(), self.rng.next_u64())
    }

    /// Delta's transaction id of this node.
    pub(crate) fn app_id(&self) -> String {
        format!("eden/{}", self.node)
    }

    /// Takes note of a damaged shard that an error names.
    pub(crate) fn note_damage(&self, error: &StorageError) {
        let StorageError::Corrupt { path, reason } = error else { return };
        let location = path.strip_prefix(&self.tables_dir).ok().and_then(|path| path.to_str());
        if let Some(location) = location.filter(|location| location.ends_with(".parquet")) {
            self.shards.note(&ShardDamage { location: location.to_owned(), reason: reason.clone() });
        }
    }

    /// Wall time in milliseconds, as Delta stamps actions.
    pub(crate) fn now_ms(&self) -> i64 {
        self.clock.now_us().div_euclid(1000)
    }
}

/// Counters since start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) rows_stored: Counter,
    pub(crate) rows_rejected: Counter,
    pub(crate) rows_merged: Counter,
    pub(crate) flushes: Counter,
    pub(crate) flushes_failed: Counter,
    pub(crate) shard_rows_written: Counter,
    pub(crate) shard_bytes_written: Counter,
    pub(crate) shards_rewritten: Counter,
    pub(crate) compactions: Counter,
    pub(crate) compaction_rows: Counter,
    pub(crate) compaction_bytes_read: Counter,
    pub(crate) compaction_bytes_written: Counter,
    pub(crate) rows_expired: Counter,
    pub(crate) files_deleted: Counter,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
