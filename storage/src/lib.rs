//! From durable batches to Delta tables, and one view over both for queries.
//!
//! Owns:     the data folder: log, tables, identity, lock; memtables, flush, Delta commits, recovery.
//! Does not: speak any network protocol, plan SQL, or read configuration files.
//!
//! A write is admitted (`admit`), appended to the log, synced by it, applied to memtables by one thread in the order
//! of the log (`engine`), and acknowledged. Another thread flushes memtables into shards (`flush`) and truncates the
//! log behind them. A query takes a [`TableSnapshot`] of both.

mod admit;
mod agents;
mod catalog;
mod checkpoint;
mod columns;
mod context;
mod delta;
mod disk_store;
mod engine;
mod error;
mod flush;
mod flusher;
mod identity;
mod memtable;
mod pending;
mod recovery;
mod rows;
pub mod schema;
mod set_aside;
mod settle;
pub mod shard;
pub mod snapshot;
mod table;
mod write;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::{TableId, TableName};

pub use agents::{AgentBatch, AgentGap, AgentStatus, GAPS_PER_BATCH_MAX, Seen, SetAside};
pub use engine::Storage;
pub use error::StorageError;
pub use pending::{Removal, TableOptions};
pub use schema::{Column, ColumnKind, TableSchema};
pub use set_aside::SET_ASIDE_BYTES_MAX;
pub use shard::{ColumnStats, Shard};
pub use snapshot::{ShardView, TableSnapshot};
pub use wal::{Loss, WalStats};
pub use write::PendingWrite;

/// What an operator may tune.
#[derive(Clone, Debug)]
pub struct StorageConfig {
    /// The data folder.
    pub data: PathBuf,
    /// Rows older than this in memory are flushed. Default 1 h.
    pub flush_max_age: Duration,
    /// A table whose rows in memory take more bytes than this is flushed. Default 64 MiB.
    pub table_memory_bytes_max: usize,
    /// Rows in memory of all tables; above it writers wait. Default 256 MiB.
    pub memory_bytes_max: usize,
    /// Log on disk above which the tables that hold its oldest part are flushed. Default 1 GiB.
    pub log_bytes_max: u64,
    /// Bytes of one segment of the log. Default 64 MiB.
    pub log_segment_bytes: u64,
    /// A reading later than now by more than this is refused. Default 1 d.
    pub max_future: Duration,
}

impl StorageConfig {
    /// The defaults, for the data folder `data`.
    pub fn new(data: PathBuf) -> Self {
        StorageConfig {
            data,
            flush_max_age: Duration::from_secs(3600),
            table_memory_bytes_max: 64 << 20,
            memory_bytes_max: 256 << 20,
            log_bytes_max: 1 << 30,
            log_segment_bytes: 64 << 20,
            max_future: Duration::from_secs(86_400),
        }
    }
}

/// How far the replay of the log has come at start.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReplayProgress {
    /// Bytes of log done.
    pub done_bytes: u64,
    /// Bytes of log to do in all.
    pub total_bytes: u64,
}

/// A row that was not stored, with the line of the request it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedRow {
    /// From `TableBatch::lines`.
    pub line: u32,
    /// Why, for the writer: lower case, one sentence.
    pub reason: String,
}

/// A table as `SHOW TABLES` and metrics see it.
#[derive(Clone, Debug)]
pub struct TableInfo {
    /// Its name.
    pub name: TableName,
    /// Its identity.
    pub id: TableId,
    /// Its columns.
    pub schema: Arc<TableSchema>,
    /// Shards in the current Delta version.
    pub shards: usize,
    /// Rows in those shards.
    pub shard_rows: u64,
    /// Bytes of those shards.
    pub shard_bytes: u64,
    /// Rows that are only in the log and in memory.
    pub memory_rows: u64,
}

/// Counters since start and gauges of now; names as the metrics without their prefix.
#[derive(Clone, Debug, Default)]
pub struct StorageStats {
    /// Rows made durable.
    pub rows_stored_total: u64,
    /// Rows refused by schema or time limits.
    pub rows_rejected_total: u64,
    /// Rows that met a row of the same key in memory.
    pub rows_merged_total: u64,
    /// Flushes committed.
    pub flushes_total: u64,
    /// Flushes that failed and will be tried again.
    pub flushes_failed_total: u64,
    /// Rows written to shards, rewrites included.
    pub shard_rows_written_total: u64,
    /// Bytes written to shards, rewrites included.
    pub shard_bytes_written_total: u64,
    /// Shards replaced because a correction met them.
    pub shards_rewritten_total: u64,
    /// Stretches of the log found missing or damaged at start.
    pub log_losses_total: u64,
    /// Bytes of rows in memory.
    pub memory_bytes: u64,
    /// Rows in memory.
    pub memory_rows: u64,
    /// Tables.
    pub tables: u64,
    /// Agents that are known.
    pub agents: u64,
    /// Agents that were forgotten because there were too many.
    pub agents_forgotten_total: u64,
    /// Batches that came again and were not applied.
    pub agent_duplicates_total: u64,
    /// Batches whose number another batch of their agent had.
    pub agent_conflicts_total: u64,
    /// Payloads set aside.
    pub set_aside_total: u64,
    /// Payloads that had to go because newer ones were set aside.
    pub set_aside_dropped_total: u64,
    /// The log.
    pub wal: WalStats,
}
