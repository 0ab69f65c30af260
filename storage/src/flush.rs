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
//!     commit, and nowhere else. Until then it waits, in memory and in the log.
//!  3. A rewrite keeps the order and the number of rows, but for those that were removed.
//!
//! A change of an older shard's row rewrites that shard. One correction a shard a flush would make loading ten times
//! slower, so flushes have a budget ([`Settling`]), and rows that collide with shards that it does not reach go back under
//! the live memtable (`memtable::waiting`). Then the watermark stays at the oldest frame that such a row may have come
//! from, while shards hold rows of later frames already. Replay applies those frames again, in order, on top: a key ends
//! as its last write or removal says, whether the shards held an earlier or the last state of it, because what a row
//! takes from below is only what none of the frames from there on touched. Settling drops what the shards hold with the
//! same values, and a removal of what is not there. A flush in the middle of a replay may commit an older state of such a
//! key once more; the frames that lead on from it lie behind that flush's watermark, and nobody asks before replay ends.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use arrow::array::{Array, RecordBatch};
use arrow::compute::interleave;

use crate::catalog::commit_info;
use crate::catch_up::TRIES_MAX;
use crate::delta::{Action, Add, CommitInfo, DAY_COLUMN, Remove, Resolved, Txn, format_day, shard_from_add};
use crate::memtable::{Memtable, MemtableView, Waiting};
use crate::shard::index::ShardIndex;
use crate::shard::read::{STREAM_ROWS, ShardReader};
use crate::shard::write::ShardWriter;
use crate::table::{Table, Younger, lock};
use crate::{Shard, StorageError, TableSchema};

/// Partitions of one commit; a flush of more makes several, the last of which moves the watermark.
const PARTITIONS_MAX: usize = 100;

/// Flushes may save up credit for rewriting as many bytes as so many tables' worth of memory: a burst of corrections after
/// a long load without any must not slow down everything behind it.
const CREDIT_MEMORIES_MAX: u64 = 4;

/// Above this share of a table's memory rows do not wait any longer.
const WAITING_MEMORY_SHARE: u64 = 4;

/// How much a flush may rewrite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settling {
    /// As many bytes of older shards as credit was saved up: each flush adds half of the bytes of its new shards. The
    /// shards with the most collisions a byte come first; rows that collide with the others wait.
    WithinBudget,
    /// As many as it takes: no row waits.
    Everything,
}

/// What one day's sealed memtable becomes.
#[derive(Debug, Default)]
struct DayFlush {
    day: i32,
    /// New and rewritten shards.
    added: Vec<(Add, Arc<ShardIndex>)>,
    /// Paths, below the table, of the shards they replace, with their sizes.
    removed: Vec<(String, u64)>,
    /// Rows that go back under the live memtable.
    waiting: Vec<Waiting>,
    /// Bytes of new shards, and of rewritten ones before they were.
    new_bytes: u64,
    rewritten_bytes: u64,
}

/// What a flush wrote, and how far the table is flushed then.
#[derive(Debug)]
pub(crate) struct Unconfirmed {
    days: Vec<DayFlush>,
    watermark: Option<u64>,
}

/// A day and its sealed memtable.
type SealedDay = (i32, Arc<Mutex<Memtable>>);

/// An older shard that a flush would have to rewrite.
struct Candidate {
    day: i32,
    path: Arc<str>,
    bytes: u64,
    collisions: u64,
}

/// What a flush did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flushed {
    pub(crate) rows: u64,
    pub(crate) shards: usize,
    /// The table's Delta version after it; `None` if there was nothing to commit.
    pub(crate) version: Option<i64>,
}

impl Table {
    /// Flushes everything that was applied before this call, but for rows that wait. `applied` tells an offset below
    /// which every frame has been applied; it is asked before each seal. Returns `None` if nothing was in memory.
    ///
    /// # Errors
    /// Nothing is lost by one: the rows stay in memory and in the log, and the next flush takes them first.
    pub(crate) fn flush(&self, applied: &dyn Fn() -> u64, settling: Settling) -> Result<Option<Flushed>, StorageError> {
        let _one = self.flushing.lock().expect("no holder of this lock panics");
        self.flush_now(applied, settling)
    }

    /// As [`Table::flush`]; the caller holds `flushing`.
    pub(crate) fn flush_now(
        &self,
        applied: &dyn Fn() -> u64,
        settling: Settling,
    ) -> Result<Option<Flushed>, StorageError> {
        self.confirm()?;
        self.catch_up()?;
        let mut flushed = None;
        // What an earlier flush could not finish was sealed before this call, so it is not all there is to do.
        let left_over = self.state().sealed_to;
        if let Some(to) = left_over {
            flushed = Some(self.flush_sealed(to, settling)?);
        }
        let applied = applied();
        // A snapshot settles the live memtable against the sealed one: it must not come between the two.
        let sealed = {
            let _resolving = self.resolving.lock().expect("no holder of this lock panics");
            self.seal(applied)
        };
        if let Some(to) = sealed {
            flushed = Some(self.flush_sealed(to, settling)?);
        }
        if flushed.is_none() {
            // Rows that were said to wait have gone some other way, with their whole day.
            let now = self.context.clock.monotonic();
            self.state().count_waiting(now);
        }
        Ok(flushed)
    }

    fn flush_sealed(&self, to: u64, settling: Settling) -> Result<Flushed, StorageError> {
        let sealed: Vec<SealedDay> = {
            let state = self.state();
            let with_rows = |(day, p): (&i32, &crate::table::Partition)| Some((*day, Arc::clone(p.sealed.as_ref()?)));
            state.partitions.iter().filter_map(with_rows).collect()
        };
        let mut result = Flushed::default();
        let mut parts: Vec<&[SealedDay]> = sealed.chunks(PARTITIONS_MAX).collect();
        if parts.is_empty() {
            // The days that were sealed are gone: what is left to do is to move the watermark.
            parts.push(&[]);
        }
        let mut parts = parts.into_iter().peekable();
        while let Some(part) = parts.next() {
            let to = parts.peek().is_none().then_some(to);
            let mut tries = 0;
            while let Err(e) = self.flush_part(part, to, settling, &mut result) {
                if !e.is_version_taken() || tries == TRIES_MAX {
                    return Err(e);
                }
                // Another node was faster: its shards may hold keys of these rows.
                tries += 1;
                self.catch_up()?;
                if self.is_dropped() {
                    return Ok(result);
                }
            }
        }
        self.context.counters.flushes.add(1);
        Ok(result)
    }

    /// Flushes some days in one commit; the last ones, up to the offset `to`, move the watermark.
    fn flush_part(
        &self,
        part: &[SealedDay],
        to: Option<u64>,
        settling: Settling,
        result: &mut Flushed,
    ) -> Result<(), StorageError> {
        let base = self.log.lock().expect("no holder of this lock panics").version();
        let mut days = Vec::with_capacity(part.len());
        let rewritten = self.plan(part, settling)?;
        let written = part.iter().try_for_each(|(day, memtable)| {
            // There before it is written: what is finished of it is discarded with the others.
            days.push(DayFlush { day: *day, ..DayFlush::default() });
            let flush = days.last_mut().expect("it was just pushed");
            self.write_day(memtable, &rewritten, flush, result)
        });
        let watermark = to.map(|to| self.watermark(to, &days));
        let committed = written.and_then(|()| self.commit_days(&days, watermark, base));
        match committed {
            Ok(version) => result.version = version.or(result.version),
            Err(e) => {
                let mut log = self.log.lock().expect("no holder of this lock panics");
                // A commit that may stand names these files: then they must stay.
                if !log.is_uncertain() {
                    drop(log);
                    self.discard(&days);
                } else if log.is_remembered() {
                    self.state().unconfirmed = Some(Unconfirmed { days, watermark });
                }
                return Err(e);
            }
        }
        self.swap(days, watermark);
        Ok(())
    }

    /// Finishes a flush whose commit was in doubt, or gives its files up. What it took out of memory is there until then.
    fn confirm(&self) -> Result<(), StorageError> {
        let Some(unconfirmed) = self.state().unconfirmed.take() else { return Ok(()) };
        let info = commit_info(&self.context, "RESOLVE");
        let resolved = self.log.lock().expect("no holder of this lock panics").resolve(info);
        match resolved {
            Ok(Resolved::Stands) => self.swap(unconfirmed.days, unconfirmed.watermark),
            Ok(Resolved::Gone) => self.discard(&unconfirmed.days),
            Err(e) => {
                self.state().unconfirmed = Some(unconfirmed);
                return Err(e);
            }
        }
        Ok(())
    }

    /// Settles the sealed memtables of these days, and chooses which older shards are rewritten.
    fn plan(&self, part: &[SealedDay], settling: Settling) -> Result<HashSet<Arc<str>>, StorageError> {
        let mut candidates = Vec::new();
        let mut waiting_bytes = 0;
        for (day, sealed) in part {
            {
                let _resolving = self.resolving.lock().expect("no holder of this lock panics");
                self.settle(*day, Younger::Sealed)?;
            }
            // Nothing settles a sealed memtable again before the layers below change, which only this flush does.
            let counts = lock(sealed).collisions_by_shard();
            waiting_bytes += lock(sealed).bytes_of_rows(counts.values().sum());
            let shards = self.shards_by_path(*day);
            candidates.extend(counts.into_iter().map(|(path, collisions)| {
                let bytes = shards[&*path].bytes;
                Candidate { day: *day, path, bytes, collisions }
            }));
        }
        let memory_max = self.context.table_memory_bytes_max as u64;
        // Most collisions a byte first; then in any order that is always the same.
        candidates.sort_by(|a, b| {
            let per_byte = |x: &Candidate, y: &Candidate| u128::from(x.collisions) * u128::from(y.bytes);
            per_byte(b, a).cmp(&per_byte(a, b)).then_with(|| (a.day, &a.path).cmp(&(b.day, &b.path)))
        });
        let mut credit = self.state().credit;
        let mut affordable = HashSet::new();
        for candidate in &candidates {
            // One that can never be afforded is not saved up for.
            if candidate.bytes > memory_max.saturating_mul(CREDIT_MEMORIES_MAX) {
                continue;
            }
            let Some(left) = credit.checked_sub(candidate.bytes) else { break };
            credit = left;
            affordable.insert(Arc::clone(&candidate.path));
        }
        let collisions = |candidate: &Candidate| candidate.collisions;
        let all: u64 = candidates.iter().map(collisions).sum();
        let left: u64 = candidates.iter().filter(|c| !affordable.contains(&c.path)).map(collisions).sum();
        let left_bytes = waiting_bytes * left / all.max(1);
        if settling == Settling::Everything || left_bytes > memory_max / WAITING_MEMORY_SHARE {
            return Ok(candidates.into_iter().map(|candidate| candidate.path).collect());
        }
        Ok(affordable)
    }

    fn shards_by_path(&self, day: i32) -> HashMap<String, Arc<Shard>> {
        let state = self.state();
        state.partitions[&day].shards.iter().map(|shard| (shard.path.clone(), Arc::clone(shard))).collect()
    }

    /// Writes the shards of one day: rows of new keys into a new one, changed keys into the places they have, as far as
    /// these are in shards that are to be `rewritten`.
    fn write_day(
        &self,
        sealed: &Mutex<Memtable>,
        rewritten: &HashSet<Arc<str>>,
        flush: &mut DayFlush,
        result: &mut Flushed,
    ) -> Result<(), StorageError> {
        let day = flush.day;
        if self.first_kept_day().is_some_and(|first| day < first) {
            *flush = self.expire_day(day, sealed);
            return Ok(());
        }
        let schema = self.schema();
        let (view, by_series, colliding, replaced, waiting, positions, rows) = {
            let sealed = lock(sealed);
            let replaced = sealed.replacements(rewritten);
            let others = sealed.collisions_by_shard().into_keys().filter(|path| !rewritten.contains(path)).collect();
            let waiting = sealed.rows_to_wait(&others);
            let colliding = sealed.colliding_rows();
            let rows = (sealed.rows() - colliding.len()) as u64;
            (sealed.view(&[]), sealed.rows_by_series(), colliding, replaced, waiting, sealed.positions(), rows)
        };
        let (oldest, newest) = positions.expect("a sealed memtable has rows");
        flush.waiting = waiting;
        let mut sorted = view.sorted(&schema, &by_series, &colliding).peekable();
        if sorted.peek().is_some() {
            let (path, mut writer) = self.start_shard(day, &schema, rows)?;
            for rows in sorted {
                writer.write_runs(&rows.runs, &rows.columns)?;
            }
            let range = (oldest.to_string(), newest.to_string());
            let (add, index) = self.finish_shard(day, &path, writer, range, result)?;
            flush.new_bytes = u64::try_from(add.size).expect("a size was made from a u64");
            flush.added.push((add, index));
        }
        let shards = self.shards_by_path(day);
        for (path, rows) in replaced {
            // A sealed memtable that is settled collides with shards of its day only.
            let shard = &shards[&*path];
            let range = (shard.position_min.to_string(), shard.position_max.max(newest).to_string());
            let left = shard.rows - rows.iter().filter(|(_, row)| row.is_none()).count() as u64;
            if left > 0 {
                let (new, mut writer) = self.start_shard(day, &schema, left)?;
                self.rewrite(shard, &schema, &view, &rows.into_iter().collect(), &mut writer)?;
                flush.added.push(self.finish_shard(day, &new, writer, range, result)?);
            }
            let below_table = shard.path.strip_prefix(&format!("{}/", self.prefix)).expect("a shard of this table");
            flush.removed.push((below_table.to_owned(), shard.bytes));
            flush.rewritten_bytes += shard.bytes;
            self.context.counters.shards_rewritten.add(1);
        }
        Ok(())
    }

    /// Of a day that is older than its table's retention nothing is written, and its shards go in the same commit: without
    /// its newest rows it would be neither what it was nor gone.
    fn expire_day(&self, day: i32, sealed: &Mutex<Memtable>) -> DayFlush {
        let shards = self.state().partitions[&day].shards.clone();
        let rows = shards.iter().map(|shard| shard.rows).sum::<u64>() + lock(sealed).rows() as u64;
        self.context.counters.rows_expired.add(rows);
        let prefix = format!("{}/", self.prefix);
        let below_table = |path: &str| path.strip_prefix(&prefix).expect("a shard of this table").to_owned();
        let removed = shards.iter().map(|shard| (below_table(&shard.path), shard.bytes)).collect();
        DayFlush { day, removed, ..DayFlush::default() }
    }

    /// Copies `shard`, with the rows at `rows` (ordinal → row of `view`) replaced, or left out.
    fn rewrite(
        &self,
        shard: &Arc<Shard>,
        schema: &Arc<TableSchema>,
        view: &MemtableView,
        rows: &BTreeMap<u32, Option<u32>>,
        writer: &mut ShardWriter,
    ) -> Result<(), StorageError> {
        let reader = ShardReader { disk: &*self.context.disk, root: &self.context.tables_dir };
        let mut first = 0_u32;
        for batch in reader.stream(Arc::clone(shard), Arc::clone(schema), STREAM_ROWS)? {
            let batch = batch?;
            let end = first + batch.num_rows() as u32;
            let here: Vec<(u32, Option<u32>)> =
                rows.range(first..end).map(|(ordinal, row)| (ordinal - first, *row)).collect();
            let batch = if here.is_empty() { batch } else { replace_rows(&batch, view, schema, &here) };
            if batch.num_rows() > 0 {
                writer.write(&batch)?;
            }
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
            tags: Some(written.tags(positions)),
            stats: Some(written.stats),
        };
        Ok((add, Arc::new(written.index)))
    }

    /// Offset below which no frame is needed once `days` are committed; all of those below `to` were flushed or wait.
    fn watermark(&self, to: u64, days: &[DayFlush]) -> u64 {
        let state = self.state();
        // What waits since an earlier part of this flush, or since one that failed after it, is in live memtables.
        let live = state.partitions.values().filter_map(|partition| partition.live.as_ref()?.waiting_offset());
        let now = days.iter().flat_map(|day| &day.waiting).map(Waiting::offset);
        let watermark = live.chain(now).fold(to, u64::min);
        // An earlier life that was not quite over may have flushed what waits here.
        if self.context.is_common() { watermark.max(state.flushed) } else { watermark }
    }

    /// Returns the new version; `None` if there was nothing to commit. `base` is the version that was known before the first
    /// file was begun.
    fn commit_days(&self, days: &[DayFlush], watermark: Option<u64>, base: i64) -> Result<Option<i64>, StorageError> {
        self.context.check_not_fenced()?;
        let flushed = self.state().flushed;
        debug_assert!(
            watermark.is_none_or(|to| to >= flushed),
            "the watermark would go back: {watermark:?}, was {flushed}"
        );
        let is_empty = days.iter().all(|day| day.added.is_empty() && day.removed.is_empty());
        if is_empty && watermark.is_none_or(|to| to == flushed) {
            return Ok(None);
        }
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
        if self.context.is_common() {
            // An earlier life of this node that meets it knows that it is over.
            let epoch = i64::try_from(self.context.epoch.0).expect("a node has fewer lives than 2^63");
            let app_id = self.context.epoch_app_id();
            actions.push(Action::Txn(Txn { app_id, version: epoch, last_updated: Some(now_ms) }));
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
        let mut log = self.log.lock().expect("no holder of this lock panics");
        // Among several nodes whoever has found these files in no version may delete them one version later (`vacuum`).
        if self.context.is_common() && log.version() != base {
            return Err(StorageError::version_taken(&self.dir));
        }
        log.commit(&actions).map(Some)
    }

    /// Shows what was committed to queries, forgets the memtables it came from, and puts what waits under live ones.
    fn swap(&self, days: Vec<DayFlush>, watermark: Option<u64>) {
        let now = self.context.clock.monotonic();
        let (mut gone, mut freed) = (Vec::new(), 0);
        {
            let _resolving = self.resolving.lock().expect("no holder of this lock panics");
            let mut state = self.state();
            let state = &mut *state;
            for day in days {
                let partition = state.partitions.get_mut(&day.day).expect("a flushed day has a partition");
                let removed: HashSet<String> =
                    day.removed.iter().map(|(path, _)| format!("{}/{path}", self.prefix)).collect();
                partition.shards.retain(|shard| !removed.contains(&shard.path));
                for (add, index) in day.added {
                    let shard = shard_from_add(&self.context.shards, &self.prefix, &add)
                        .expect("an add that was just made reads back");
                    self.context.indexes.put(&shard.path, index);
                    partition.shards.push(Arc::new(shard));
                }
                removed.iter().for_each(|path| self.context.indexes.forget(path));
                partition.below_version += 1;
                let sealed = partition.sealed.take();
                if let Some(sealed) = &sealed
                    && !day.waiting.is_empty()
                {
                    let live = partition.live.get_or_insert_with(Memtable::new);
                    let bytes = live.take_under(&lock(sealed), &day.waiting);
                    state.live_bytes += bytes;
                    self.context.memory.add(bytes);
                }
                gone.extend(sealed);
                let earned = state.credit.saturating_add(day.new_bytes / 2);
                let credit_max = (self.context.table_memory_bytes_max as u64).saturating_mul(CREDIT_MEMORIES_MAX);
                state.credit = earned.saturating_sub(day.rewritten_bytes).min(credit_max);
            }
            if let Some(to) = watermark {
                state.flushed = to;
                state.sealed_to = None;
                freed = std::mem::take(&mut state.sealed_bytes);
            }
            state.count_waiting(now);
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
            self.context.shards.forget(&format!("{}/{}", self.prefix, add.path));
        }
    }
}

/// `batch` with rows of `view` in the places of others: (row of the batch, row of the view), ascending; `None` for a row
/// that is left out.
fn replace_rows(
    batch: &RecordBatch,
    view: &MemtableView,
    schema: &Arc<TableSchema>,
    here: &[(u32, Option<u32>)],
) -> RecordBatch {
    let new = view.rows(schema, &here.iter().filter_map(|(_, row)| *row).collect::<Vec<_>>());
    let mut places: Vec<Option<(usize, usize)>> = (0..batch.num_rows()).map(|row| Some((0, row))).collect();
    let mut next = 0..new.num_rows();
    for (old, row) in here {
        places[*old as usize] = row.and_then(|_| Some((1, next.next()?)));
    }
    let places: Vec<(usize, usize)> = places.into_iter().flatten().collect();
    let column = |(old, new): (&Arc<dyn Array>, &Arc<dyn Array>)| {
        interleave(&[&**old, &**new], &places).expect("two batches of one schema")
    };
    let columns = batch.columns().iter().zip(new.columns()).map(column).collect();
    RecordBatch::try_new(Arc::clone(schema.arrow()), columns).expect("columns of that schema")
}
