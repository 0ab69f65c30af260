//! What one query sees of a table: shards of one Delta version and the rows that are only in memory.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::BooleanBuffer;
use model::TableName;

use crate::memtable::MemtableView;
use crate::{Shard, ShardDamage, TableSchema};

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

/// Rows that are only in memory. Columns of them are made when they are asked for.
#[derive(Clone, Debug)]
pub struct MemoryRows {
    schema: Arc<TableSchema>,
    rows: Arc<[Rows]>,
}

#[derive(Debug)]
enum Rows {
    /// Of a memtable.
    View(MemtableView),
    /// Made for the occasion, in all columns of the schema.
    Batch(RecordBatch),
}

/// Told the tags of series, a row each in the columns of the table, it says which are wanted; `None` for all.
pub type SeriesWanted<'a> = dyn Fn(&RecordBatch) -> Option<BooleanBuffer> + 'a;

/// Which rows of memory a query looks for.
pub struct RowsWanted<'a> {
    /// At these times, in µs since 1970.
    pub times_us: RangeInclusive<i64>,
    /// Of these series; `None` for all.
    pub series: Option<&'a SeriesWanted<'a>>,
}

impl Default for RowsWanted<'_> {
    /// All.
    fn default() -> Self {
        RowsWanted { times_us: i64::MIN..=i64::MAX, series: None }
    }
}

impl fmt::Debug for RowsWanted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowsWanted").field("times_us", &self.times_us).finish_non_exhaustive()
    }
}

impl MemoryRows {
    pub(crate) fn of_views(schema: Arc<TableSchema>, views: Vec<MemtableView>) -> Self {
        MemoryRows { schema, rows: views.into_iter().map(Rows::View).collect() }
    }

    /// `batch` has all columns of `schema`.
    pub(crate) fn of_batch(schema: Arc<TableSchema>, batch: RecordBatch) -> Self {
        MemoryRows { schema, rows: Arc::new([Rows::Batch(batch)]) }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        let count = |rows: &Rows| match rows {
            Rows::View(view) => view.rows_left(),
            Rows::Batch(batch) => batch.num_rows(),
        };
        self.rows.iter().map(count).sum()
    }

    /// How many series they are of, at most: one counts for each day.
    pub fn series(&self) -> usize {
        let series = |rows: &Rows| match rows {
            Rows::View(view) => view.series.len(),
            Rows::Batch(batch) => batch.num_rows(),
        };
        self.rows.iter().map(series).sum()
    }

    /// Their columns of these indices in the table's schema, in batches that are not empty: all rows that are wanted, and
    /// perhaps others.
    ///
    /// # Panics
    /// If there is no such column.
    pub fn columns(&self, indices: &[usize], wanted: &RowsWanted<'_>) -> Vec<RecordBatch> {
        let batches = self.rows.iter().flat_map(|rows| match rows {
            Rows::View(view) => view.batches(&self.schema, indices, wanted),
            Rows::Batch(batch) => vec![batch.project(indices).expect("a column of the schema")],
        });
        batches.filter(|batch| batch.num_rows() > 0).collect()
    }

    /// All their columns.
    pub fn batches(&self) -> Vec<RecordBatch> {
        self.columns(&(0..self.schema.columns().len()).collect::<Vec<_>>(), &RowsWanted::default())
    }

    /// As [`MemoryRows::columns`], of so few rows as have all that is the newest of its series: for each of these columns
    /// the newest row that has a value, and the newest row.
    ///
    /// # Panics
    /// If there is no such column.
    pub fn newest(&self, indices: &[usize]) -> Vec<RecordBatch> {
        let newest = |rows: &Rows| match rows {
            Rows::View(view) => view.newest(&self.schema, indices),
            Rows::Batch(batch) => batch.project(indices).expect("a column of the schema"),
        };
        self.rows.iter().map(newest).filter(|batch| batch.num_rows() > 0).collect()
    }

    /// As a reader who sees only shards would have it.
    #[doc(hidden)]
    pub fn forget(&mut self) {
        self.rows = Arc::new([]);
    }
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
