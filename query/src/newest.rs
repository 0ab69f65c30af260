//! The newest rows of every series, so that "the latest of everything" reads a shard once and not each time.
//!
//! Owns:     finding them in a shard, a bounded cache of them by shard, and the table that has no other rows.
//! Does not: decide which queries need no other rows (`plan` does), or find them in memory (`storage` does).
//!
//! Invariants
//!  1. What is kept of a shard has, for each series and column, the newest row with a value, and the newest row of all.
//!     A row more does no harm: it loses, as it does among all rows.
//!  2. A shard never changes, so neither does what is kept of it; but it is kept for the columns that it was read with.
//!  3. Shards of which memory replaces or removes rows are read.

mod plan;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{Array, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, partition, take};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::common::runtime::SpawnedTask;
use datafusion::datasource::memory::{DataSourceExec, MemorySourceConfig};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::union::UnionExec;
use futures::{StreamExt, TryStreamExt};
use model::TableName;
use storage::{ColumnKind, ShardView};

use crate::functions::own;
use crate::provider::ShardTable;
use crate::statistics;

pub(crate) use plan::NewestOnly;

/// Bytes of rows that are kept, of all shards.
const KEPT_BYTES_MAX: usize = 64 << 20;

/// Bytes that one statement holds of them; what is beyond is read. No more than is kept, or the next one would find none of it.
const STATEMENT_BYTES_MAX: usize = KEPT_BYTES_MAX / 2;

/// A shard with more than one newest row for so many is read like any other: its series have few rows each.
const ROWS_PER_NEWEST_MIN: usize = 4;

/// And so is one whose newest rows take more.
const SHARD_BYTES_MAX: usize = KEPT_BYTES_MAX / 8;

/// What a shard takes beside its path and rows, roughly.
const SHARD_BYTES: usize = 256;

/// Tables are spread over so many locks.
const LOCKS: usize = 16;

/// What is known of shards, for all statements.
#[derive(Debug, Default)]
pub(crate) struct NewestRows {
    kept: Mutex<Kept>,
    /// One of them is held while shards of a table are read, so that two statements do not read the same ones.
    reading: [tokio::sync::Mutex<()>; LOCKS],
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Kept {
    shards: HashMap<String, Shard>,
    bytes: usize,
    /// Counts the times at which somebody asked.
    clock: u64,
}

#[derive(Debug)]
struct Shard {
    /// The columns that it was read with.
    schema: SchemaRef,
    newest: Newest,
    asked: u64,
}

#[derive(Clone, Debug)]
enum Newest {
    Rows(RecordBatch),
    /// So many that the shard may as well be read.
    Many,
}

impl Newest {
    /// What it takes to keep this of the shard at `path`.
    fn bytes(&self, path: &str) -> usize {
        let rows = match self {
            Newest::Rows(rows) => rows.get_array_memory_size(),
            Newest::Many => 0,
        };
        SHARD_BYTES + path.len() + rows
    }
}

impl NewestRows {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, path: &str, schema: &SchemaRef) -> Option<Newest> {
        let mut kept = self.lock();
        kept.clock += 1;
        let clock = kept.clock;
        let shard = kept.shards.get_mut(path).filter(|shard| shard.schema == *schema)?;
        shard.asked = clock;
        Some(shard.newest.clone())
    }

    /// Keeps what was found, and forgets what nobody asked for the longest.
    fn put(&self, path: &str, schema: &SchemaRef, newest: Newest) {
        let mut kept = self.lock();
        kept.clock += 1;
        let shard = Shard { schema: Arc::clone(schema), asked: kept.clock, newest };
        kept.bytes += shard.newest.bytes(path);
        if let Some(before) = kept.shards.insert(path.to_owned(), shard) {
            kept.bytes -= before.newest.bytes(path);
        }
        while kept.bytes > KEPT_BYTES_MAX {
            let oldest = kept.shards.iter().min_by_key(|(_, shard)| shard.asked).map(|(path, _)| path.clone());
            let Some((path, gone)) = oldest.and_then(|path| kept.shards.remove_entry(&path)) else { break };
            kept.bytes -= gone.newest.bytes(&path);
        }
    }

    /// The lock of a table.
    fn reading(&self, table: &TableName) -> &tokio::sync::Mutex<()> {
        &self.reading[self.hasher.hash_one(table) as usize % LOCKS]
    }
}

/// A table that has only rows which may be the newest of their series; all its columns.
#[derive(Debug)]
pub(crate) struct NewestTable(ShardTable);

impl NewestTable {
    /// The newest rows of a table.
    pub(crate) fn new(of: ShardTable) -> Self {
        NewestTable(of)
    }

    /// The table whose they are.
    pub(crate) fn of(&self) -> &ShardTable {
        &self.0
    }

    /// The rows that a scan gives at most, as far as they are known; of a shard that is to be read first, all.
    pub(crate) fn rows_max(&self) -> usize {
        let (snapshot, schema) = (&self.0.snapshot, self.0.schema());
        let of_shard = |view: &ShardView| match self.0.newest.get(&view.shard.path, &schema) {
            Some(Newest::Rows(rows)) if view.masked.is_empty() => rows.num_rows(),
            _ => statistics::visible_rows(view),
        };
        let of_memory = snapshot.rows.series().saturating_mul(schema.fields().len());
        snapshot.shards.iter().map(of_shard).fold(of_memory.min(snapshot.rows.count()), usize::saturating_add)
    }
}

#[async_trait]
impl TableProvider for NewestTable {
    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        self.0.supports_filters_pushdown(filters)
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let table = &self.0;
        let (mut read, mut batches) = (Vec::new(), Vec::new());
        let (whole, changed): (Vec<_>, Vec<_>) =
            table.wanted(session, filters)?.into_iter().partition(|view| view.masked.is_empty());
        read.extend(changed);
        let newest = table.newest(session, &whole).await?;
        let schema = table.schema();
        let indices: Vec<usize> = projection.cloned().unwrap_or_else(|| (0..schema.fields().len()).collect());
        for (view, newest) in whole.into_iter().zip(newest) {
            match newest {
                Newest::Rows(rows) => batches.push(rows.project(&indices)?),
                Newest::Many => read.push(view),
            }
        }
        batches.extend(table.snapshot.rows.newest(&indices));
        let kept = MemorySourceConfig::try_new(&[batches], Arc::new(schema.project(&indices)?), None)?;
        let kept = DataSourceExec::from_data_source(kept);
        if read.is_empty() {
            return Ok(kept);
        }
        UnionExec::try_new(vec![table.shard_scan(session, &read, projection, None)?, kept])
    }
}

impl ShardTable {
    /// The newest rows of shards, in their order: those that are known, and then known too, of the others.
    async fn newest(&self, session: &dyn Session, views: &[&ShardView]) -> Result<Vec<Newest>> {
        let schema = self.schema();
        let known = |view: &&ShardView| self.newest.get(&view.shard.path, &schema);
        // All that is kept is no more than a statement may hold.
        if let Some(all) = views.iter().map(known).collect() {
            return Ok(all);
        }
        let _reading = self.newest.reading(&self.snapshot.name).lock().await;
        let taken = AtomicUsize::new(0);
        let reads: Vec<_> = views.iter().map(|view| self.newest_in(session, view, &schema, &taken)).collect();
        futures::stream::iter(reads).buffered(session.config().target_partitions()).try_collect().await
    }

    /// The newest rows of one shard, unless those of others took what a statement may hold.
    async fn newest_in(
        &self,
        session: &dyn Session,
        view: &ShardView,
        schema: &SchemaRef,
        taken: &AtomicUsize,
    ) -> Result<Newest> {
        if taken.load(Ordering::Relaxed) > STATEMENT_BYTES_MAX {
            return Ok(Newest::Many);
        }
        let path = &view.shard.path;
        // Meanwhile another statement may have read it.
        let newest = match self.newest.get(path, schema) {
            Some(found) => found,
            None => {
                let rows = self.rows_of(session, view)?;
                let rows_max = usize::try_from(view.shard.rows).unwrap_or(usize::MAX) / ROWS_PER_NEWEST_MIN;
                let newest = SpawnedTask::spawn(newest_of(rows, self.tags(), rows_max)).join().await;
                let newest = newest.map_err(|error| datafusion::common::exec_datafusion_err!("{error}"))??;
                self.newest.put(path, schema, newest.clone());
                newest
            }
        };
        taken.fetch_add(newest.bytes(path), Ordering::Relaxed);
        Ok(newest)
    }

    /// All rows of one shard, in their order.
    fn rows_of(&self, session: &dyn Session, view: &ShardView) -> Result<SendableRecordBatchStream> {
        self.shard_scan(session, &[view], None, None)?.execute(0, session.task_ctx())
    }

    /// Indices of the tags among the columns.
    fn tags(&self) -> Vec<usize> {
        let columns = self.snapshot.schema.columns().iter().enumerate();
        columns.filter(|(_, column)| column.kind == ColumnKind::Tag).map(|(index, _)| index).collect()
    }
}

/// The newest of rows that are sorted by tags and time; [`Newest::Many`] if they are more than `rows_max`, or take too much.
async fn newest_of(mut rows: SendableRecordBatchStream, tags: Vec<usize>, rows_max: usize) -> Result<Newest> {
    let schema = rows.schema();
    let (mut parts, mut count, mut bytes) = (Vec::new(), 0, 0);
    while let Some(batch) = rows.try_next().await? {
        if batch.num_rows() == 0 {
            continue;
        }
        let newest = newest_in(&batch, &tags)?;
        count += newest.num_rows();
        bytes += newest.get_array_memory_size();
        if count > rows_max || bytes > SHARD_BYTES_MAX {
            return Ok(Newest::Many);
        }
        parts.push(newest);
    }
    Ok(Newest::Rows(concat_batches(&schema, &parts)?))
}

/// The newest of each run of one series, and what lacks a value there, from earlier in the run.
fn newest_in(batch: &RecordBatch, tags: &[usize]) -> Result<RecordBatch> {
    let tags: Vec<_> = tags.iter().map(|index| Arc::clone(batch.column(*index))).collect();
    let runs: Vec<Range<usize>> = match tags.as_slice() {
        [] => std::iter::once(0..batch.num_rows()).collect(),
        tags => partition(tags)?.ranges(),
    };
    let mut rows: Vec<u32> = Vec::with_capacity(runs.len());
    for run in runs {
        let last = run.end - 1;
        rows.push(last as u32);
        let lacking = batch.columns().iter().filter(|column| column.is_null(last));
        rows.extend(lacking.filter_map(|column| valued(column, run.clone())).map(|row| row as u32));
    }
    rows.sort_unstable();
    rows.dedup();
    let rows = UInt32Array::from(rows);
    // Without the bytes of texts that only other rows have.
    let columns = batch.columns().iter().map(|column| Ok(own(take(column, &rows, None)?)));
    let columns = columns.collect::<Result<_>>()?;
    Ok(RecordBatch::try_new(batch.schema(), columns)?)
}

/// The last row of a run that has a value.
fn valued(column: &dyn Array, mut run: Range<usize>) -> Option<usize> {
    (column.null_count() < column.len()).then(|| run.rfind(|row| column.is_valid(*row))).flatten()
}
