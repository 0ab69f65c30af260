//! The rows of a table that are only in memory, as queries read them.
//!
//! Owns:     handing them out in parts, each made when it is asked for, and leaving out parts that nobody wants.
//! Does not: filter: a part has all rows that are wanted, and perhaps others.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, RecordBatch};
use arrow::buffer::BooleanBuffer;

use crate::TableSchema;
use crate::memtable::MemtableView;
use crate::rows::Selected;

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
pub type SeriesWanted = dyn Fn(&RecordBatch) -> Option<BooleanBuffer> + Send + Sync;

/// Which rows of memory a query looks for.
#[derive(Clone)]
pub struct RowsWanted {
    /// At these times, in µs since 1970.
    pub times_us: RangeInclusive<i64>,
    /// Of these series; `None` for all.
    pub series: Option<Arc<SeriesWanted>>,
}

impl Default for RowsWanted {
    /// All.
    fn default() -> Self {
        RowsWanted { times_us: i64::MIN..=i64::MAX, series: None }
    }
}

impl fmt::Debug for RowsWanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowsWanted").field("times_us", &self.times_us).finish_non_exhaustive()
    }
}

impl RowsWanted {
    fn is_all(&self) -> bool {
        self.series.is_none() && self.times_us == (i64::MIN..=i64::MAX)
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
        self.rows.iter().map(Rows::count).sum()
    }

    /// How many series they are of, at most: one counts for each day.
    pub fn series(&self) -> usize {
        let series = |rows: &Rows| match rows {
            Rows::View(view) => view.series.len(),
            Rows::Batch(batch) => batch.num_rows(),
        };
        self.rows.iter().map(series).sum()
    }

    /// Those that are wanted, in the columns of these indices in the table's schema.
    ///
    /// # Panics
    /// If there is no such column.
    pub fn wanted(&self, indices: &[usize], wanted: RowsWanted) -> WantedRows {
        let of_rows = |(of, rows): (usize, &Rows)| -> Vec<(usize, usize)> {
            let chunks = match rows {
                Rows::View(view) => view.chunks_at(&wanted.times_us),
                Rows::Batch(batch) if batch.num_rows() > 0 => vec![0],
                Rows::Batch(_) => Vec::new(),
            };
            chunks.into_iter().map(|chunk| (of, chunk)).collect()
        };
        WantedRows {
            parts: self.rows.iter().enumerate().flat_map(of_rows).collect(),
            selected: self.rows.iter().map(|_| OnceLock::new()).collect(),
            rows: self.clone(),
            indices: indices.into(),
            wanted,
        }
    }

    /// All, in all columns.
    pub fn batches(&self) -> Vec<RecordBatch> {
        let all = self.wanted(&(0..self.schema.columns().len()).collect::<Vec<_>>(), RowsWanted::default());
        (0..all.parts()).filter_map(|part| all.part(part)).collect()
    }

    /// The columns of these indices, of so few rows as have all that is the newest of its series: for each of these columns
    /// the newest row that has a value, and the newest row. Batches that are not empty.
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

impl Rows {
    fn count(&self) -> usize {
        match self {
            Rows::View(view) => view.rows_left(),
            Rows::Batch(batch) => batch.num_rows(),
        }
    }
}

/// Rows in memory that are wanted, in no order. What takes time is done when a part is asked for.
#[derive(Debug)]
pub struct WantedRows {
    rows: MemoryRows,
    indices: Box<[usize]>,
    wanted: RowsWanted,
    /// What all parts of the same rows share.
    selected: Box<[OnceLock<Selected>]>,
    /// Which rows, and which chunk of them.
    parts: Vec<(usize, usize)>,
}

impl WantedRows {
    /// How many parts there are.
    pub fn parts(&self) -> usize {
        self.parts.len()
    }

    /// The rows of a part that are wanted, and perhaps others; `None` if there are none.
    ///
    /// # Panics
    /// If there is no such part.
    pub fn part(&self, part: usize) -> Option<RecordBatch> {
        let (of, chunk) = self.parts[part];
        match &self.rows.rows[of] {
            Rows::View(view) => {
                let select = || view.select(&self.rows.schema, &self.indices, &self.wanted);
                view.batch(self.selected[of].get_or_init(select), chunk)
            }
            Rows::Batch(batch) => Some(batch.project(&self.indices).expect("a column of the schema")),
        }
    }

    /// How many rows the parts have at most.
    pub fn rows_max(&self) -> usize {
        let of_part = |(of, chunk): &(usize, usize)| match &self.rows.rows[*of] {
            Rows::View(view) => view.chunks[*chunk].times_us.len(),
            Rows::Batch(batch) => batch.num_rows(),
        };
        self.parts.iter().map(of_part).sum::<usize>().min(self.rows.count())
    }

    /// Whether the parts have [`WantedRows::rows_max`] rows, no more and no less.
    pub fn is_exact(&self) -> bool {
        self.wanted.is_all() || self.rows.rows.iter().all(|rows| matches!(rows, Rows::Batch(_)))
    }

    /// How many rows of the parts have no value in the column `at` of those that were asked for, if that is known.
    pub fn nulls(&self, at: usize) -> Option<usize> {
        let of_rows = |rows: &Rows| match rows {
            Rows::View(view) => view.nulls(&self.rows.schema.columns()[self.indices[at]]),
            Rows::Batch(batch) => Some(batch.column(self.indices[at]).null_count()),
        };
        if self.is_exact() { self.rows.rows.iter().map(of_rows).sum() } else { None }
    }
}

#[cfg(test)]
mod tests;
