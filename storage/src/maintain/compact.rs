//! Merges some shards of a day into fewer: reads, merges, writes, commits.
//!
//! Owns:     the order of these, memory and pace.
//! Does not: choose the shards (`plan`), or bring their rows together (`merge`).
//!
//! Invariants
//!  1. The outputs have the rows of the inputs, no more and no fewer, or nothing is committed.
//!  2. Whatever happens before the commit leaves no file behind but for a crash, after which no version names it.

use std::sync::Arc;
use std::time::Duration;

use super::Stop;
use super::merge::{Input, merge};
use super::plan::{Piece, TARGET_ROWS};
use crate::context::Context;
use crate::flush::Flushed;
use crate::rewrite::Outputs;
use crate::shard::read::ShardReader;
use crate::shard::write::ShardWriter;
use crate::table::Table;
use crate::{Shard, StorageError, TableSchema};

/// What the batches of all inputs together take in memory, about; the outputs' writers take what they have written of a
/// row group besides.
const BATCH_BYTES_IN_MEMORY: u64 = 128 << 20;

const SECOND_US: i64 = 1_000_000;
const DAY_SECONDS: i64 = 86_400;

/// Slows reading down to so many bytes a second, and ends it when the server stops.
pub(crate) struct Pace<'a> {
    context: &'a Context,
    stop: &'a Stop,
    bytes_per_second: Option<u64>,
    started: Duration,
    bytes: u64,
}

impl<'a> Pace<'a> {
    pub(crate) fn new(context: &'a Context, stop: &'a Stop, bytes_per_second: Option<u64>) -> Pace<'a> {
        Pace { context, stop, bytes_per_second, started: context.clock.monotonic(), bytes: 0 }
    }

    fn take(&mut self, bytes: u64) -> Result<(), StorageError> {
        self.bytes += bytes;
        let wait = self.bytes_per_second.map_or(Duration::ZERO, |bytes_per_second| {
            let due = Duration::from_secs_f64(self.bytes as f64 / bytes_per_second.max(1) as f64);
            (self.started + due).saturating_sub(self.context.clock.monotonic())
        });
        let stopped = if wait.is_zero() { self.stop.is_stopped() } else { self.stop.wait(wait) };
        if stopped { Err(StorageError::Closed) } else { Ok(()) }
    }
}

/// What became of a merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compacted {
    Done,
    /// A shard was replaced meanwhile; nothing has changed.
    Lost,
}

/// Files that no version names; deleted when this is dropped.
struct Unnamed<'a> {
    table: &'a Table,
    paths: Vec<String>,
}

impl Drop for Unnamed<'_> {
    fn drop(&mut self) {
        self.table.delete_unnamed(&self.paths);
    }
}

impl Piece {
    pub(crate) fn of(shard: &Shard) -> Piece {
        /// A shard of many columns is full sooner: it must be written, and read again, in bounded memory.
        const BYTES_OF_A_ROW: u64 = 85;
        let rows = shard.rows.max(shard.bytes / BYTES_OF_A_ROW);
        Piece { rows, time_min_us: shard.time_min_us, time_max_us: shard.time_max_us }
    }
}

impl Table {
    /// Merges `inputs`, shards of `day`. The caller holds `compacting`.
    ///
    /// # Errors
    /// [`StorageError::Closed`] if the server stops; [`StorageError::Corrupt`] names a shard that cannot be read, or two
    /// that hold one key. The table is as it was.
    pub(crate) fn compact(
        &self,
        day: i32,
        inputs: &[Arc<Shard>],
        pace: &mut Pace<'_>,
    ) -> Result<Compacted, StorageError> {
        let base = self.log.lock().expect("no holder of this lock panics").version();
        let schema = self.schema();
        let cuts_us = self.cuts(day, inputs, pace)?;
        let mut unnamed = Unnamed { table: self, paths: Vec::new() };
        let rows: u64 = inputs.iter().map(|shard| shard.rows).sum();
        let mut writers = Vec::with_capacity(cuts_us.len() + 1);
        for _ in 0..=cuts_us.len() {
            let (path, writer) = self.start_shard(day, &schema, rows / (cuts_us.len() as u64 + 1))?;
            unnamed.paths.push(path);
            writers.push(writer);
        }
        self.merge_into(&schema, inputs, &cuts_us, &mut writers, pace)?;
        let mut written = Flushed::default();
        let outputs = self.finish(day, inputs, &unnamed.paths, writers, &mut written)?;
        if written.rows != rows {
            let of: Vec<&str> = inputs.iter().map(|shard| &*shard.path).collect();
            let reason = format!("{} rows were merged from {rows} in {}", written.rows, of.join(", "));
            return Err(StorageError::Corrupt { path: self.dir.clone(), reason });
        }
        let bytes_written: i64 = outputs.iter().map(|(add, _)| add.size).sum();
        // From here on replacing deletes them, or a commit that may stand names them.
        unnamed.paths.clear();
        if !self.replace_shards(&schema, day, inputs, outputs, "OPTIMIZE", base)? {
            return Ok(Compacted::Lost);
        }
        let counters = &self.context.counters;
        counters.compactions.add(1);
        counters.compaction_rows.add(rows);
        counters.compaction_bytes_read.add(inputs.iter().map(|shard| shard.bytes).sum());
        counters.compaction_bytes_written.add(bytes_written.unsigned_abs());
        tracing::debug!(table = %self.name, day, inputs = inputs.len(), outputs = written.shards, rows, "compacted");
        Ok(Compacted::Done)
    }

    fn merge_into(
        &self,
        schema: &Arc<TableSchema>,
        inputs: &[Arc<Shard>],
        cuts_us: &[i64],
        writers: &mut [ShardWriter],
        pace: &mut Pace<'_>,
    ) -> Result<(), StorageError> {
        let reader = ShardReader { disk: &*self.context.disk, root: &self.context.tables_dir };
        let batch_rows = batch_rows(inputs, schema.columns().len());
        let pace = std::cell::RefCell::new(pace);
        let mut sources = Vec::with_capacity(inputs.len());
        for shard in inputs {
            let bytes_of_batch = shard.bytes * batch_rows as u64 / shard.rows.max(1);
            let rows = reader.stream(Arc::clone(shard), Arc::clone(schema), batch_rows)?;
            let pace = &pace;
            let paced = rows.map(move |batch| {
                pace.borrow_mut().take(bytes_of_batch)?;
                batch
            });
            sources.push(Input { path: self.context.tables_dir.join(&shard.path), batches: Box::new(paced) });
        }
        merge(schema, sources, cuts_us, batch_rows * 2, &mut |output, batch| writers[output].write(&batch))
    }

    /// Makes the outputs durable. Their positions are those of all inputs.
    fn finish(
        &self,
        day: i32,
        inputs: &[Arc<Shard>],
        paths: &[String],
        writers: Vec<ShardWriter>,
        written: &mut Flushed,
    ) -> Result<Outputs, StorageError> {
        let oldest = inputs.iter().map(|shard| shard.position_min).min().expect("a merge has inputs");
        let newest = inputs.iter().map(|shard| shard.position_max).max().expect("a merge has inputs");
        let mut outputs = Vec::with_capacity(writers.len());
        for (path, writer) in paths.iter().zip(writers) {
            let range = (oldest.to_string(), newest.to_string());
            let (mut add, index) = self.finish_shard(day, path, writer, range, written)?;
            add.data_change = false;
            outputs.push((add, index));
        }
        Ok(outputs)
    }

    /// Times at which the outputs of a merge are cut, so that each has about as many rows as a shard should have;
    /// none if all go into one.
    fn cuts(&self, day: i32, inputs: &[Arc<Shard>], pace: &Pace<'_>) -> Result<Vec<i64>, StorageError> {
        let weight: u64 = inputs.iter().map(|shard| Piece::of(shard).rows).sum();
        let outputs = (weight + TARGET_ROWS / 2) / TARGET_ROWS;
        if outputs < 2 {
            return Ok(Vec::new());
        }
        let start_us = i64::from(day) * DAY_SECONDS * SECOND_US;
        let mut seconds = vec![0_u64; DAY_SECONDS as usize];
        let reader = ShardReader { disk: &*self.context.disk, root: &self.context.tables_dir };
        for shard in inputs {
            reader.all_times(shard, &mut |times| {
                for time_us in times {
                    let second = (time_us - start_us).div_euclid(SECOND_US).clamp(0, DAY_SECONDS - 1);
                    seconds[second as usize] += 1;
                }
            })?;
            if pace.stop.is_stopped() {
                return Err(StorageError::Closed);
            }
        }
        Ok(cuts_of(&seconds, outputs).into_iter().map(|second| start_us + second * SECOND_US).collect())
    }
}

/// Rows of a batch of each input.
fn batch_rows(inputs: &[Arc<Shard>], columns: usize) -> usize {
    /// Bytes of a value beside what it takes in the file, and how much a file shrinks long ones.
    const VALUE_BYTES: u64 = 16;
    const SHRINKS: u64 = 8;
    let in_file = inputs.iter().map(|shard| shard.bytes / shard.rows.max(1)).max().unwrap_or(0);
    let row = columns as u64 * VALUE_BYTES + in_file * SHRINKS;
    let rows = BATCH_BYTES_IN_MEMORY / (row * inputs.len() as u64).max(1);
    usize::try_from(rows).unwrap_or(usize::MAX).clamp(16, 8192)
}

/// The seconds at which rows, counted by second, are cut into up to `outputs` parts of about equal size. No part is
/// smaller than two thirds of that: it would be merged again.
fn cuts_of(seconds: &[u64], outputs: u64) -> Vec<i64> {
    let total: u64 = seconds.iter().sum();
    let wanted = total.div_ceil(outputs);
    let (mut cuts, mut part, mut rest) = (Vec::new(), 0, total);
    for (second, rows) in (1..).zip(seconds) {
        part += rows;
        rest -= rows;
        if part >= wanted && rest * 3 >= wanted * 2 {
            cuts.push(second);
            part = 0;
        }
    }
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_about_equal_and_none_is_small() {
        assert_eq!(cuts_of(&[10; 10], 2), [5]);
        assert_eq!(cuts_of(&[10; 10], 3), [4, 8].map(|cut| cut as i64)[..1].to_vec());
        assert_eq!(cuts_of(&[0, 0, 100, 0, 0], 4), [0_i64; 0], "one second is not cut");
        assert_eq!(cuts_of(&[100, 0, 0, 100], 2), [1]);
        assert_eq!(cuts_of(&[1, 1, 1, 97], 2), [0_i64; 0]);
    }
}
