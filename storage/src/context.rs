//! What every table of a data folder shares.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use model::{Clock, NodeEpoch, NodeId, Position, Rng};
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
    /// Where several nodes share the data folder.
    pub(crate) among_nodes: AmongNodes,
}

/// Half of what a frame may carry: no other node can use up our counter.
const COUNTER_MAX: u64 = 1 << 61;

/// What a node among others knows of them.
#[derive(Debug, Default)]
pub(crate) struct AmongNodes {
    /// The highest Lamport counter that was used or seen; the log's too.
    pub(crate) counter: Arc<AtomicU64>,
    /// A later life of this node has begun.
    pub(crate) is_fenced: AtomicBool,
}

impl AmongNodes {
    /// What is written here from now on beats what was written at `position`.
    pub(crate) fn see(&self, position: Option<Position>) {
        let counter = position.map_or(0, |position| position.counter);
        self.counter.fetch_max(counter.min(COUNTER_MAX), Ordering::AcqRel);
    }
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

    /// Delta's transaction id under which the life of this node stands that has flushed last; only among several nodes.
    pub(crate) fn epoch_app_id(&self) -> String {
        format!("eden/{}/epoch", self.node)
    }

    /// Whether other nodes commit to the tables as well.
    pub(crate) fn is_common(&self) -> bool {
        self.disk.is_common()
    }

    /// # Errors
    /// [`StorageError::Fenced`] if a later life of this node has begun.
    pub(crate) fn check_not_fenced(&self) -> Result<(), StorageError> {
        if self.among_nodes.is_fenced.load(Ordering::SeqCst) { Err(StorageError::Fenced) } else { Ok(()) }
    }

    /// # Errors
    /// [`StorageError::Fenced`] if these transactions of a table say that a later life of this node has begun.
    pub(crate) fn check_epoch(&self, txns: &BTreeMap<String, i64>) -> Result<(), StorageError> {
        let newest = txns.get(&self.epoch_app_id()).copied().unwrap_or(0);
        let is_later = self.is_common() && u64::try_from(newest).is_ok_and(|epoch| epoch > self.epoch.0);
        if is_later { Err(self.fence()) } else { Ok(()) }
    }

    /// Takes note that a later life of this node has begun.
    pub(crate) fn fence(&self) -> StorageError {
        if !self.among_nodes.is_fenced.swap(true, Ordering::SeqCst) {
            tracing::error!(node = %self.node, "another process has taken over the log of this node; nothing is acknowledged or committed here any more");
        }
        StorageError::Fenced
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
