//! What one query sees of a table: shards of one Delta version and the rows that are only in memory.

use std::sync::Arc;

use model::TableName;

use crate::{MemoryRows, Shard, ShardDamage, TableSchema};

/// A table at one moment; immutable.
#[derive(Clone, Debug)]
pub struct TableSnapshot {
    /// The table.
    pub name: TableName,
    /// Its columns; [`TableSchema::arrow`] is the schema of a query.
    pub schema: Arc<TableSchema>,
    /// The shards.
    pub shards: Vec<ShardView>,
    /// Rows in memory, in no order, each key once and none that `shards` show too.
    pub rows: MemoryRows,
}

impl TableSnapshot {
    /// Leaves out the shards among `damaged`; the rest is as it was, so rows of theirs that memory holds a newer value of
    /// are still there. Returns what is left out, for the caller to say.
    pub fn leave_out(&mut self, damaged: &[ShardDamage]) -> Vec<ShardView> {
        let is_damaged = |view: &ShardView| damaged.iter().any(|damage| damage.location == view.shard.path);
        let (gone, kept) = std::mem::take(&mut self.shards).into_iter().partition(is_damaged);
        self.shards = kept;
        gone
    }
}

/// A shard as this snapshot sees it.
#[derive(Clone, Debug)]
pub struct ShardView {
    /// The file.
    pub shard: Arc<Shard>,
    /// Ordinals of its rows, ascending, that rows in memory replace: a reader must leave them out.
    pub masked: Arc<[u32]>,
}
