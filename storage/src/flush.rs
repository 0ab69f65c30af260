//! Moves a table's sealed memtables into its shards, in one Delta commit.
//!
//! Owns:     what a flush writes, commits and swaps in, and in which order (P5).
//! Does not: decide *when* to seal (`flusher`), or delete log segments (`flusher`, after the commit).
//!
//! Order: new and rewritten shards, each synced with its names; the commit, synced with its name; then the swap in
//! memory. A crash before the commit leaves files that no version names, one after it leaves log that replay skips.
//!
//! Invariants
//!  1. Rows and the watermark (`txn`) that says they are no longer needed from the log are in one commit.
//!  2. No version holds a key twice: a row whose key an older shard holds goes into that shard's place, in the same
//!     commit, and nowhere else.
//!  3. A rewrite keeps the order and the number of rows.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use arrow::array::{Array, RecordBatch};
use arrow::compute::interleave;

use crate::delta::{Action, Add, CommitInfo, DAY_COLUMN, Remove, Txn, format_day, shard_from_add};
use crate::memtable::{Below, Memtable, MemtableView};
use crate::shard::index::ShardIndex;
use crate::shard::read::ShardReader;
use crate::shard::write::ShardWriter;
use crate::table::{Table, Younger, lock};
use crate::{Shard, StorageError, TableSchema};

/// Partitions of one commit; a flush of more makes several, the last of which moves the watermark.
const PARTITIONS_MAX: usize = 100;

/// What one day's sealed memtable becomes.
#[derive(Default)]
struct DayFlush {
    day: i32,
    /// New and rewritten shards.
    added: Vec<(Add, Arc<ShardIndex>)>,
    /// Paths, below the table, of the shards they replace, with their sizes.
    removed: Vec<(String, u64)>,
}

/// What a flush did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flushed {
    pub(crate) rows: u64,
    pub(crate) shards: usize,
    /// The table's Delta version after it.
    pub(crate) version: i64,
}

impl Table {
    /// Flushes everything that was applied before this call. `applied` tells an offset below which every frame has
    /// been applied; it is asked before each seal. Returns `None` if nothing was in memory.
    ///
    /// # Errors
    /// Nothing is lost by one: the rows stay in memory and in the log, and the next flush takes them first.
    pub(crate) fn flush(&self, applied: &dyn Fn() -> u64) -> Result<Option<Flushed>, StorageError> {
        let _one = self.flushing.lock().expect("no holder of this lock panics");
        self.flush_now(applied)
    }

    /// As [`Table::flush`]; the caller holds `flushing`.
    pub(crate) fn flush_now(&self, applied: &dyn Fn() -> u64) -> Result<Option<Flushed>, StorageError> {
        let mut flushed = None;
        // What an earlier flush could not finish was sealed before this call, so it is not all there is to do.
        let left_over = self.state().sealed_to;
        if let Some(to) = left_over {
            flushed = Some(self.flush_sealed(to)?);
        }
        let applied = applied();
        // A snapshot settles the live memtable against the sealed one: it must not come between the two.
        let sealed = {
            let _resolving = self.resolving.lock().expect("no holder of this lock panics");
            self.seal(applied)
        };
        if let Some(to) = sealed {
            flushed = Some(self.flush_sealed(to)?);
        }
        Ok(flushed)
    }

    fn flush_sealed(&self, to: u64) -> Result<Flushed, StorageError> {
        let sealed: Vec<(i32, Arc<Mutex<Memtable>>)> = {
            let state = self.state();
            let with_rows = |(day, p): (&i32, &crate::table::Partition)| Some((*day, Arc::clone(p.sealed.as_ref()?)));
            state.partitions.iter().filter_map(with_rows).collect()
        };
        let mut result = Flushed::default();
        let mut parts = sealed.chunks(PARTITIONS_MAX).peekable();
        while let Some(part) = parts.next() {
            let mut days = Vec::with_capacity(part.len());
            let written = part.iter().try_for_each(|(day, memtable)| {
                days.push(self.write_day(*day, memtable, &mut result)?);
                Ok(())
            });
            let watermark = parts.peek().is_none().then_some(to);
            let committed = written.and_then(|()| self.commit_days(&days, watermark));
            match committed {
                Ok(version) => result.version = version,
                Err(e) => {
                    // A commit that may stand names these files: then they must stay.
                    if !self.log.lock().expect("no holder of this lock panics").is_uncertain() {
                        self.discard(&days);
                    }
                    return Err(e);
                }
            }
            self.swap(days, watermark);
        }
        self.context.counters.flushes.add(1);
        Ok(result)
    }

    /// Writes the shards of one day: rows of new keys into a new one, changed keys into the places they have.
    fn write_day(&self, day: i32, sealed: &Mutex<Memtable>, result: &mut Flushed) -> Result<DayFlush, StorageError> {
        {
            let _resolving = self.resolving.lock().expect("no holder of this lock panics");
            self.settle(day, Younger::Sealed)?;
        }
        let (schema, shards) = {
            let state = self.state();
            (Arc::clone(&state.schema), state.partitions[&day].shards.clone())
        };
        // Nothing settles a sealed memtable again before the layers below change, which only this flush does.
        let (view, by_series, collisions, positions, rows) = {
            let sealed = lock(sealed);
            let collisions: Vec<(u32, Below)> = sealed.collisions().map(|(row, below)| (row, below.clone())).collect();
            (sealed.view(&[]), sealed.rows_by_series(), collisions, sealed.positions(), sealed.rows() as u64)
        };
        let (oldest, newest) = positions.expect("a sealed memtable has rows");
        let mut flush = DayFlush { day, ..DayFlush::default() };
        let mut replaced: HashMap<Arc<str>, BTreeMap<u32, u32>> = HashMap::new();
        let mut in_place = HashSet::new();
        for (row, below) in collisions {
            let Below::Shard(path, ordinal) = below else { unreachable!("only a live memtable lies on a sealed one") };
            replaced.entry(path).or_default().insert(ordinal, row);
            in_place.insert(row);
        }
        let mut sorted = view.sorted(&schema, &by_series, &in_place).peekable();
        if sorted.peek().is_some() {
            let (path, mut writer) = self.start_shard(day, &schema, rows)?;
            for batch in sorted {
                writer.write(&batch)?;
            }
            let range = (oldest.to_string(), newest.to_string());
            flush.added.push(self.finish_shard(day, &path, writer, range, result)?);
        }
        for (path, rows) in replaced {
            let shard = shards.iter().find(|shard| *shard.path == *path).expect("a collision names a shard of its day");
            let range = (shard.position_min.to_string(), shard.position_max.max(newest).to_string());
            let (new, mut writer) = self.start_shard(day, &schema, shard.rows)?;
            self.rewrite(shard, &schema, &view, &rows, &mut writer)?;
            flush.added.push(self.finish_shard(day, &new, writer, range, result)?);
            let below_table = shard.path.strip_prefix(&format!("{}/", self.prefix)).expect("a shard of this table");
            flush.removed.push((below_table.to_owned(), shard.bytes));
            self.context.counters.shards_rewritten.add(1);
        }
        Ok(flush)
    }

    /// Copies `shard`, with the rows at `rows` (ordinal → row of `view`) replaced.
    fn rewrite(
        &self,
        shard: &Shard,
        schema: &Arc<TableSchema>,
        view: &MemtableView,
        rows: &BTreeMap<u32, u32>,
        writer: &mut ShardWriter,
    ) -> Result<(), StorageError> {
        let reader = ShardReader { disk: &*self.context.disk, root: &self.context.tables_dir };
        let mut first = 0_u32;
        for batch in reader.rows(shard, schema, None)? {
            let end = first + batch.num_rows() as u32;
            let here: Vec<(u32, u32)> = rows.range(first..end).map(|(ordinal, row)| (ordinal - first, *row)).collect();
            writer.write(&if here.is_empty() { batch } else { replace_rows(&batch, view, schema, &here) })?;
            first = end;
        }
        Ok(())
    }

    pub(crate) fn start_shard(
        &self,
        day: i32,
        schema: &Arc<TableSchema>,
        rows: u64,
    ) -> Result<(String, ShardWriter), StorageError> {
        let path = format!("{DAY_COLUMN}={}/{}.parquet", format_day(day), self.context.uuid());
        let writer = ShardWriter::create(&self.context.disk, &self.dir.join(&path), schema, rows)?;
        Ok((path, writer))
    }

    pub(crate) fn finish_shard(
        &self,
        day: i32,
        path: &str,
        writer: ShardWriter,
        positions: (String, String),
        result: &mut Flushed,
    ) -> Result<(Add, Arc<ShardIndex>), StorageError> {
        let written = writer.finish()?;
        result.rows += written.rows;
        result.shards += 1;
        self.context.counters.shard_rows_written.add(written.rows);
        self.context.counters.shard_bytes_written.add(written.bytes);
        let add = Add {
            path: path.to_owned(),
            partition_values: [(DAY_COLUMN.to_owned(), Some(format_day(day)))].into(),
            size: i64::try_from(written.bytes).expect("a file is smaller than 8 EiB"),
            modification_time: self.context.now_ms(),
            data_change: true,
            stats: Some(written.stats),
            tags: Some(
                [("eden.pos_min".to_owned(), Some(positions.0)), ("eden.pos_max".to_owned(), Some(positions.1))].into(),
            ),
        };
        Ok((add, Arc::new(written.index)))
    }

    fn commit_days(&self, days: &[DayFlush], watermark: Option<u64>) -> Result<i64, StorageError> {
        let now_ms = self.context.now_ms();
        let mut actions = vec![Action::CommitInfo(CommitInfo {
            timestamp: now_ms,
            operation: "WRITE".into(),
            operation_parameters: [("mode".to_owned(), "Append".into())].into(),
            engine_info: Some(format!("eden/{}", env!("CARGO_PKG_VERSION"))),
        })];
        if let Some(to) = watermark {
            let version = i64::try_from(to).expect("a log is shorter than 8 EiB");
            actions.push(Action::Txn(Txn { app_id: self.context.app_id(), version, last_updated: Some(now_ms) }));
        }
        for day in days {
            actions.extend(day.removed.iter().map(|(path, bytes)| {
                Action::Remove(Remove {
                    path: path.clone(),
                    deletion_timestamp: Some(now_ms),
                    data_change: true,
                    extended_file_metadata: Some(true),
                    partition_values: Some([(DAY_COLUMN.to_owned(), Some(format_day(day.day)))].into()),
                    size: i64::try_from(*bytes).ok(),
                })
            }));
            actions.extend(day.added.iter().map(|(add, _)| Action::Add(add.clone())));
        }
        self.log.lock().expect("no holder of this lock panics").commit(&actions)
    }

    /// Shows what was committed to queries, and forgets the memtables it came from.
    fn swap(&self, days: Vec<DayFlush>, watermark: Option<u64>) {
        let (mut gone, mut freed) = (Vec::new(), 0);
        {
            let _resolving = self.resolving.lock().expect("no holder of this lock panics");
            let mut state = self.state();
            for day in days {
                let partition = state.partitions.get_mut(&day.day).expect("a flushed day has a partition");
                let removed: HashSet<String> =
                    day.removed.iter().map(|(path, _)| format!("{}/{path}", self.prefix)).collect();
                partition.shards.retain(|shard| !removed.contains(&shard.path));
                for (add, index) in day.added {
                    let shard = shard_from_add(&self.prefix, &add).expect("an add that was just made reads back");
                    self.context.indexes.put(&shard.path, index);
                    partition.shards.push(Arc::new(shard));
                }
                removed.iter().for_each(|path| self.context.indexes.forget(path));
                partition.below_version += 1;
                gone.extend(partition.sealed.take());
            }
            if let Some(to) = watermark {
                state.flushed = to;
                state.sealed_to = None;
                freed = std::mem::take(&mut state.sealed_bytes);
            }
        }
        // Freeing a million rows takes a while: not under the lock.
        drop(gone);
        self.context.memory.free(freed);
    }

    /// Removes files that no commit names; best effort, since nothing refers to them.
    fn discard(&self, days: &[DayFlush]) {
        for (add, _) in days.iter().flat_map(|day| &day.added) {
            let path: PathBuf = self.dir.join(&add.path);
            let _ = self.context.disk.remove_file(&path);
        }
    }
}

/// `batch` with rows of `view` in the places of others: (row of the batch, row of the view), ascending.
fn replace_rows(
    batch: &RecordBatch,
    view: &MemtableView,
    schema: &Arc<TableSchema>,
    here: &[(u32, u32)],
) -> RecordBatch {
    let new = view.rows(schema, &here.iter().map(|(_, row)| *row).collect::<Vec<_>>());
    let mut places: Vec<(usize, usize)> = (0..batch.num_rows()).map(|row| (0, row)).collect();
    for (i, (old, _)) in here.iter().enumerate() {
        places[*old as usize] = (1, i);
    }
    let column = |(old, new): (&Arc<dyn Array>, &Arc<dyn Array>)| {
        interleave(&[&**old, &**new], &places).expect("two batches of one schema")
    };
    let columns = batch.columns().iter().zip(new.columns()).map(column).collect();
    RecordBatch::try_new(Arc::clone(schema.arrow()), columns).expect("columns of that schema")
}
