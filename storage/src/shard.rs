//! Shards: immutable Parquet files of one UTC day, sorted by (tags, time), each key once.

use std::sync::Arc;

use model::Position;

mod checksum;
mod file;
pub(crate) mod index;
mod known;
pub(crate) mod read;
pub(crate) mod stats;
mod tags;
pub(crate) mod write;

pub use checksum::Checksums;
pub(crate) use checksum::{Summer, parse_hex};
pub use file::ShardDamage;
pub(crate) use file::{ReadError, ShardFile};
pub(crate) use known::KnownShards;

/// Rows in a row group of every shard but for its last one.
pub const ROW_GROUP_ROWS: usize = 1 << 20;

/// Rows of a page of any column, at most: what a reader of one series decodes of a column.
pub(crate) const PAGE_ROWS: usize = 1 << 16;

/// One shard as the Delta log lists it.
#[derive(Clone, Debug, PartialEq)]
pub struct Shard {
    /// Location below `DATA/tables`, as an object store path: `public/env/eden_day=2026-06-01/….parquet`.
    pub path: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its rows.
    pub rows: u64,
    /// Its UTC day, days since 1970-01-01.
    pub day: i32,
    /// Event time of its earliest row, µs.
    pub time_min_us: i64,
    /// Event time of its latest row, µs.
    pub time_max_us: i64,
    /// Per column name what the log says of it; a column that is not there has no statistics (not: no values).
    pub columns: Vec<(Arc<str>, ColumnStats)>,
    /// The oldest frame that any of its rows came from.
    pub position_min: Position,
    /// The newest frame that any of its values came from.
    pub position_max: Position,
    /// What its bytes must be; `None` for a shard of before there were checksums.
    pub checksums: Option<Checksums>,
}

/// Statistics of one column of a shard.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnStats {
    /// Rows without a value.
    pub null_count: u64,
    /// Smallest and largest value where known, as the JSON that the Delta log holds. Texts may be bounds
    /// rather than values that occur.
    pub range: Option<(serde_json::Value, serde_json::Value)>,
}
