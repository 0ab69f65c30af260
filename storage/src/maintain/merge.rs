//! Merges sorted shards into sorted rows, cut by time.
//!
//! Owns:     the order (tags in schema order with nulls first, time), and noticing when an input breaks it or when two
//!           hold one key (P4).
//! Does not: read or write files: rows come from iterators and go to a closure.
//!
//! Tags are compared once for each run of rows of one series in a batch of an input, never for each row; within a series
//! only times are. Memory: a batch of each input, and what is gathered for each output.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::buffer::ScalarBuffer;
use arrow::compute::{interleave, partition};

use crate::columns::text_at;
use crate::shard::read::time_column;
use crate::{ColumnKind, StorageError, TableSchema};

/// The tags of a series in schema order. `None` sorts before `Some`: nulls first.
type Tags = Vec<Option<Box<str>>>;

/// Rows of one input, batch by batch, in the columns of the table's schema.
pub(crate) type Batches<'a> = Box<dyn Iterator<Item = Result<RecordBatch, StorageError>> + 'a>;

/// One sorted input.
pub(crate) struct Input<'a> {
    /// Its file, for errors.
    pub(crate) path: PathBuf,
    pub(crate) batches: Batches<'a>,
}

/// Where an input has come to.
struct Cursor<'a> {
    input: Input<'a>,
    batch: RecordBatch,
    tags: Vec<ArrayRef>,
    times: ScalarBuffer<i64>,
    /// The runs of `batch` that have not begun.
    runs: std::vec::IntoIter<Range<usize>>,
    /// What is left of the present run.
    run: Range<usize>,
    last_time: i64,
    /// Counts batches.
    loaded: usize,
}

/// Rows on their way to one output.
#[derive(Default)]
struct Gathered {
    batches: Vec<RecordBatch>,
    /// By input: which batch, by its count, lies where in `batches`.
    at: Vec<Option<(usize, usize)>>,
    places: Vec<(usize, usize)>,
}

/// Merges `inputs` and hands their rows, in order, to `write`, with the number of the output: the rows before the first
/// of `cuts_us` to output 0, those from there to the second to output 1, and so on. About `rows_together` are handed on at
/// once.
///
/// # Errors
/// Those of the inputs and of `write`; [`StorageError::Corrupt`] if an input is out of order, or holds a key that
/// another one holds too.
pub(crate) fn merge(
    schema: &Arc<TableSchema>,
    inputs: Vec<Input<'_>>,
    cuts_us: &[i64],
    rows_together: usize,
    write: &mut dyn FnMut(usize, RecordBatch) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let mut outputs: Vec<Gathered> = (0..=cuts_us.len()).map(|_| Gathered::new(inputs.len())).collect();
    let mut cursors: Vec<Cursor<'_>> = Vec::with_capacity(inputs.len());
    let mut waiting: BinaryHeap<Reverse<(Tags, usize)>> = BinaryHeap::new();
    for input in inputs {
        let mut cursor = Cursor::new(input);
        if cursor.load(schema)? {
            waiting.push(Reverse((cursor.series(), cursors.len())));
        }
        cursors.push(cursor);
    }
    let mut heads: BinaryHeap<Reverse<(i64, usize)>> = BinaryHeap::new();
    while let Some(Reverse((series, first))) = waiting.pop() {
        heads.push(Reverse((cursors[first].time(), first)));
        while waiting.peek().is_some_and(|Reverse((other, _))| *other == series)
            && let Some(Reverse((_, i))) = waiting.pop()
        {
            heads.push(Reverse((cursors[i].time(), i)));
        }
        while let Some(Reverse((time_us, i))) = heads.pop() {
            let next = heads.peek().map(|Reverse(next)| *next);
            if let Some((next_us, other)) = next
                && next_us == time_us
            {
                return Err(cursors[i].holds_too(&cursors[other], &series, time_us));
            }
            let rows = cursors[i].take_before(next.map(|(next_us, _)| next_us));
            cursors[i].gather(i, rows, cuts_us, &mut outputs);
            for (output, gathered) in outputs.iter_mut().enumerate() {
                if gathered.places.len() >= rows_together {
                    write(output, gathered.take(schema))?;
                }
            }
            match cursors[i].advance(schema, &series)? {
                Next::SameSeries => heads.push(Reverse((cursors[i].time(), i))),
                Next::Series(next) => waiting.push(Reverse((next, i))),
                Next::End => {}
            }
        }
    }
    for (output, gathered) in outputs.iter_mut().enumerate() {
        if !gathered.places.is_empty() {
            write(output, gathered.take(schema))?;
        }
    }
    Ok(())
}

/// What an input has behind the rows that were taken.
enum Next {
    SameSeries,
    Series(Tags),
    End,
}

impl<'a> Cursor<'a> {
    fn new(input: Input<'a>) -> Cursor<'a> {
        Cursor {
            input,
            batch: RecordBatch::new_empty(Arc::new(arrow::datatypes::Schema::empty())),
            tags: Vec::new(),
            times: ScalarBuffer::from(Vec::new()),
            runs: Vec::new().into_iter(),
            run: 0..0,
            last_time: i64::MIN,
            loaded: 0,
        }
    }

    /// Takes the next batch with rows and begins its first run; false at the end.
    fn load(&mut self, schema: &TableSchema) -> Result<bool, StorageError> {
        let batch = loop {
            match self.input.batches.next().transpose()? {
                None => return Ok(false),
                Some(batch) if batch.num_rows() == 0 => {}
                Some(batch) => break batch,
            }
        };
        let columns = schema.columns().iter().zip(batch.columns());
        self.tags = columns.filter(|(c, _)| c.kind == ColumnKind::Tag).map(|(_, array)| Arc::clone(array)).collect();
        self.times = time_column(&batch).expect("every table has a time").values().clone();
        let runs = if self.tags.is_empty() {
            std::iter::once(0..batch.num_rows()).collect()
        } else {
            partition(&self.tags).expect("text columns of one length can be compared").ranges()
        };
        if runs.iter().any(|run| self.times[run.clone()].windows(2).any(|pair| pair[0] >= pair[1])) {
            return Err(self.corrupt("the times of a series are out of order, or one is there twice"));
        }
        self.runs = runs.into_iter();
        self.run = self.runs.next().expect("a batch with rows has a run");
        self.batch = batch;
        self.loaded += 1;
        Ok(true)
    }

    /// The tags at the present row.
    fn series(&self) -> Tags {
        let tag = |column: &ArrayRef| column.is_valid(self.run.start).then(|| text_at(column, self.run.start).into());
        self.tags.iter().map(tag).collect()
    }

    /// The time at the present row.
    fn time(&self) -> i64 {
        self.times[self.run.start]
    }

    /// The rows of the present run before a time, or all of it; there is one.
    fn take_before(&mut self, end_us: Option<i64>) -> Range<usize> {
        let rest = &self.times[self.run.clone()];
        let count = end_us.map_or(rest.len(), |end_us| rest.partition_point(|time_us| *time_us < end_us));
        let taken = self.run.start..self.run.start + count;
        self.last_time = self.times[taken.end - 1];
        self.run.start = taken.end;
        taken
    }

    /// Moves on to the next row, of `series` or of the next one.
    fn advance(&mut self, schema: &TableSchema, series: &Tags) -> Result<Next, StorageError> {
        if !self.run.is_empty() {
            return Ok(Next::SameSeries);
        }
        match self.runs.next() {
            Some(run) => self.run = run,
            None if !self.load(schema)? => return Ok(Next::End),
            None => {}
        }
        let next = self.series();
        match next.cmp(series) {
            std::cmp::Ordering::Greater => Ok(Next::Series(next)),
            std::cmp::Ordering::Equal if self.time() > self.last_time => Ok(Next::SameSeries),
            _ => Err(self.corrupt("its rows are out of order, or one is there twice")),
        }
    }

    /// Notes `rows` of the present batch for the outputs that they belong to.
    fn gather(&self, number: usize, rows: Range<usize>, cuts_us: &[i64], outputs: &mut [Gathered]) {
        let mut start = rows.start;
        let mut output = cuts_us.partition_point(|cut_us| *cut_us <= self.times[start]);
        while start < rows.end {
            let end = match cuts_us.get(output) {
                Some(cut_us) => start + self.times[start..rows.end].partition_point(|time_us| time_us < cut_us),
                None => rows.end,
            };
            if start < end {
                outputs[output].push(number, self.loaded, &self.batch, start..end);
            }
            start = end;
            output += 1;
        }
    }

    fn corrupt(&self, reason: &str) -> StorageError {
        StorageError::Corrupt { path: self.input.path.clone(), reason: reason.into() }
    }

    fn holds_too(&self, other: &Cursor<'_>, series: &Tags, time_us: i64) -> StorageError {
        let reason = format!("the reading of {series:?} at {time_us} µs is in {} too", other.input.path.display());
        self.corrupt(&reason)
    }
}

impl Gathered {
    fn new(inputs: usize) -> Gathered {
        Gathered { at: vec![None; inputs], ..Gathered::default() }
    }

    fn push(&mut self, input: usize, loaded: usize, batch: &RecordBatch, rows: Range<usize>) {
        let place = match self.at[input] {
            Some((count, place)) if count == loaded => place,
            _ => {
                self.batches.push(batch.clone());
                self.at[input] = Some((loaded, self.batches.len() - 1));
                self.batches.len() - 1
            }
        };
        self.places.extend(rows.map(|row| (place, row)));
    }

    /// The rows as one batch; begins anew.
    fn take(&mut self, schema: &TableSchema) -> RecordBatch {
        let column = |i: usize| {
            let arrays: Vec<&dyn Array> = self.batches.iter().map(|batch| &**batch.column(i)).collect();
            interleave(&arrays, &self.places).expect("places are rows of the batches, all of one schema")
        };
        let columns = (0..schema.columns().len()).map(column).collect();
        let rows = RecordBatch::try_new(Arc::clone(schema.arrow()), columns).expect("columns of that schema");
        *self = Gathered::new(self.at.len());
        rows
    }
}

#[cfg(test)]
mod tests;
