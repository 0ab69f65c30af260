//! From durable batches to Delta tables, and one view over both for queries.
//!
//! Owns:     the data folder: log, tables, identity, lock; tables elsewhere; memtables, flush, Delta commits, recovery.
//! Does not: speak any network protocol, plan SQL, or read configuration files.
//!
//! A write is admitted (`admit`), appended to the log, synced by it, applied to memtables by one thread in the order
//! of the log (`engine`), and acknowledged; so is a removal (`remove`). Another thread flushes memtables into shards
//! (`flush`) and truncates the log behind them. A third merges shards, removes what is too old, and deletes what nobody
//! needs (`maintain`). A query takes a [`TableSnapshot`] of both.

mod admit;
mod agents;
mod catalog;
mod catch_up;
pub mod check;
mod checkpoint;
mod columns;
mod context;
mod convert;
mod data_loss;
mod delta;
mod disk_store;
mod engine;
mod error;
mod evolve;
mod flush;
mod flusher;
mod gate;
mod identity;
mod live;
mod log;
mod maintain;
mod memory_rows;
mod memtable;
mod nodes;
mod object_disk;
mod options;
mod place;
mod priority;
mod quarantine;
mod recovery;
mod remove;
mod rewrite;
mod rows;
pub mod schema;
mod scrub;
mod settle;
pub mod shard;
pub mod snapshot;
mod space;
mod table;
mod write;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::{NodeId, TableId, TableName};

pub use agents::{AgentBatch, AgentGap, AgentStatus, GAPS_PER_BATCH_MAX, Seen, SetAside};
pub use catalog::DamagedTable;
pub use data_loss::LostData;
pub use engine::Storage;
pub use error::StorageError;
pub use flush::Settling;
pub use live::LiveTable;
pub use memory_rows::{MemoryRows, RowsWanted, SeriesWanted, WantedRows};
pub use nodes::{Adopted, adopt};
pub use options::TableOptions;
pub use place::{Disks, Tables};
pub use priority::Yielding;
pub use quarantine::{QuarantineId, Quarantined, SET_ASIDE_BYTES_MAX};
pub use schema::{Column, ColumnKind, TableSchema};
pub use shard::{Checksums, ColumnStats, Shard, ShardDamage};
pub use snapshot::{ShardView, TableSnapshot};
pub use table::TableContents;
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
    /// How long the rows of a table are kept that has no retention of its own, by their time; a day goes when all of it
    /// is older. Default `None`: for ever.
    pub retention_default: Option<Duration>,
    /// How long a file that no version names any more stays for queries and other readers that have begun before.
    /// Longer than the longest query. Default 1 h.
    pub vacuum_grace: Duration,
    /// Bytes of shards that compaction reads in a second, so that it is not in the way. Default 64 MiB.
    pub compaction_bytes_per_second: u64,
    /// How long a day has to be without new rows before the last few of its shards are merged. Default 10 s.
    pub compaction_wait: Duration,
    /// How fast shards are read again to find damage; 0 for not at all. Default 4 MiB/s.
    pub scrub_bytes_per_second: u64,
    /// Bytes of shards that a change of a column's type may rewrite. Default 1 GiB.
    pub alter_bytes_max: u64,
    /// Bytes of shards that are rewritten without being asked, when a float comes for a column of whole numbers; beyond
    /// it the row is refused. Default 64 MiB.
    pub widen_bytes_max: u64,
    /// Bytes of the disk that are left free when rows are taken in, for flushes, removals and all else that goes on
    /// when the disk is full; a twentieth of the disk if that is less. 0 for none. Default 256 MiB.
    pub disk_reserve_bytes: u64,
    /// Which node this is, where several share the data folder (docs/adr/0018): tables are common, and each has a log of
    /// objects there, which others can take over ([`adopt`]). Default `None`: the folder is this server's alone. Only for
    /// those who build on this library, so far: there is no key for it in the configuration of `eden`.
    pub shared: Option<NodeId>,
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
            retention_default: None,
            vacuum_grace: Duration::from_secs(3600),
            compaction_bytes_per_second: 64 << 20,
            compaction_wait: Duration::from_secs(10),
            scrub_bytes_per_second: 4 << 20,
            alter_bytes_max: 1 << 30,
            widen_bytes_max: 64 << 20,
            disk_reserve_bytes: 256 << 20,
            shared: None,
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
    /// The kind of reason, for programs.
    pub unfit: Unfit,
}

/// What a row does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// Its table: types, names, or that it cannot be written at all.
    Table,
    /// The limits of times: a clock is wrong, or a unit.
    Time,
    /// How long its table keeps rows.
    Retention,
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
    /// Those of them that are to replace rows of shards and wait until the shards are rewritten. Queries see them.
    pub waiting_rows: u64,
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
    /// Merges of shards committed.
    pub compactions_total: u64,
    /// Rows that they had.
    pub compaction_rows_total: u64,
    /// Bytes of the shards that were merged.
    pub compaction_bytes_read_total: u64,
    /// Bytes of the shards that came of it; they count as written to shards, too.
    pub compaction_bytes_written_total: u64,
    /// Rows that went because they were older than their table's retention.
    pub rows_expired_total: u64,
    /// Files deleted that nobody needed any more.
    pub files_deleted_total: u64,
    /// Bytes free on the disk of the data folder.
    pub disk_free_bytes: u64,
    /// 1 while nothing is taken in because the disk is full but for its reserve, else 0.
    pub admission_stopped: u64,
    /// Stretches of the log found missing or damaged at start.
    pub log_losses_total: u64,
    /// Bytes of rows in memory.
    pub memory_bytes: u64,
    /// Rows in memory.
    pub memory_rows: u64,
    /// Those of them that wait until the shards are rewritten whose rows they replace.
    pub waiting_rows: u64,
    /// Tables.
    pub tables: u64,
    /// Tables whose Delta log was found damaged at start.
    pub damaged_tables: u64,
    /// Shards found damaged since the start.
    pub damaged_shards: u64,
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
    /// Records of payloads that had to go because newer ones were set aside.
    pub set_aside_dropped_total: u64,
    /// The log.
    pub wal: WalStats,
}
