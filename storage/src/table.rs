//! One table: its schema, its rows in memory, its shards, and the one view over them.
//!
//! Owns:     the table's state and locks; applying writes and removals, sealing, settling, taking snapshots.
//! Does not: admit rows (`admit`), write shards (`flush`), or know other tables.
//!
//! Invariants
//!  1. Locks are taken in the order `altering`, `compacting`, `flushing`, the gate of admission, `resolving`, `log`, `state`,
//!     a sealed memtable; `state` is not held
//!     while a disk works, so applying a durable batch does not wait for one; but for a snapshot that writers outran.
//!  2. `below_version` of a partition changes exactly when its shards or its sealed memtable's fate does.
//!  3. Every frame with an offset below `flushed` is in the shards, and no row of it is needed from the log. Shards may
//!     hold rows of later frames as well, while others of those frames wait; replay applies these frames again.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use model::{FieldType, Position, Removal, SeriesKey, TableBatch, TableId, TableName, day_of};

use crate::catalog::SYSTEM;
use crate::context::Context;
use crate::delta::{TableLog, TableState, shard_from_add};
use crate::evolve::Altering;
use crate::flush::Unconfirmed;
use crate::memory_rows::MemoryRows;
use crate::memtable::{Below, Memtable};
use crate::options::Properties;
use crate::settle::Layers;
use crate::snapshot::{ShardView, TableSnapshot};
use crate::{ColumnKind, Shard, StorageError, TableInfo, TableOptions, TableSchema};

/// What a table has, beside what [`TableInfo`] counts.
#[derive(Clone, Debug)]
pub struct TableContents {
    /// The table.
    pub info: TableInfo,
    /// What is set for it.
    pub options: TableOptions,
    /// The shards of its current version.
    pub shards: Vec<Arc<Shard>>,
    /// The first and the last UTC day that it has rows of, those in memory included; days since 1970-01-01.
    pub days: Option<(i32, i32)>,
}

/// Rounds in which a snapshot follows writers before it makes them wait.
const SETTLE_ROUNDS: usize = 4;

/// See the module.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) id: TableId,
    pub(crate) name: TableName,
    /// Location below `DATA/tables`.
    pub(crate) prefix: String,
    pub(crate) dir: PathBuf,
    pub(crate) context: Arc<Context>,
    /// Held by the one compaction at a time, and while vacuum looks for files that nobody names.
    pub(crate) compacting: Mutex<()>,
    /// Held by the one flush at a time.
    pub(crate) flushing: Mutex<()>,
    /// Held by whoever settles, and while the layers change.
    pub(crate) resolving: Mutex<()>,
    pub(crate) log: Mutex<TableLog>,
    /// Changes of columns' types, one at a time.
    pub(crate) altering: Altering,
    state: Mutex<State>,
}

/// What `state` guards.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) schema: Arc<TableSchema>,
    /// A change of a column's type may or may not be durable: nothing is written until a restart tells.
    pub(crate) is_in_doubt: bool,
    pub(crate) partitions: BTreeMap<i32, Partition>,
    /// Offset below which every frame's rows are in shards.
    pub(crate) flushed: u64,
    /// What `flushed` becomes when the sealed memtables are committed; set while there are any.
    pub(crate) sealed_to: Option<u64>,
    /// What a flush wrote whose commit is in doubt: the next one asks what became of it first.
    pub(crate) unconfirmed: Option<Unconfirmed>,
    /// Bytes of rows in live memtables.
    pub(crate) live_bytes: usize,
    /// Bytes of rows in sealed memtables.
    pub(crate) sealed_bytes: usize,
    /// When the oldest live row came, by the monotonic clock; rows that wait are not counted.
    pub(crate) live_since: Option<Duration>,
    /// When something was last applied.
    pub(crate) last_write: Duration,
    /// Rows that wait for a shard to be rewritten.
    pub(crate) waiting: Waits,
    /// Bytes of older shards that flushes may rewrite within their budget.
    pub(crate) credit: u64,
    pub(crate) properties: Properties,
    pub(crate) fate: Fate,
}

/// Rows of a table that a flush could not afford to settle.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Waits {
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
    /// Since when there have been any, by the monotonic clock.
    pub(crate) since: Option<Duration>,
}

/// Whether the table is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Live,
    /// Its end is being committed; rows that come meanwhile stay in memory until that has succeeded.
    Dropping,
    /// Whether that commit stands only a restart can tell.
    Unknown,
    Dropped,
}

/// One UTC day.
#[derive(Debug, Default)]
pub(crate) struct Partition {
    pub(crate) live: Option<Memtable>,
    pub(crate) sealed: Option<Arc<Mutex<Memtable>>>,
    pub(crate) shards: Vec<Arc<Shard>>,
    pub(crate) below_version: u64,
}

/// Which memtable of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Younger {
    Live,
    Sealed,
}

/// What applying a batch changed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Growth {
    pub(crate) bytes: usize,
    pub(crate) merged: u64,
    /// Bytes in the live memtables now.
    pub(crate) live_bytes: usize,
}

impl Table {
    /// A table as its log describes it; `prefix` is its location below `DATA/tables`.
    pub(crate) fn new(
        name: TableName,
        prefix: String,
        context: &Arc<Context>,
        log: TableLog,
        state: TableState,
    ) -> Result<Table, String> {
        let shard = |add| shard_from_add(&context.shards, &prefix, add);
        let shards: Result<Vec<Shard>, String> = state.adds.values().map(shard).collect();
        let flushed = state.txns.get(&context.app_id()).copied().unwrap_or(0);
        let flushed = u64::try_from(flushed).map_err(|_| format!("a watermark of {flushed}"))?;
        let (id, schema, shards) = (state.id, state.schema, shards?);
        if *name.schema != *SYSTEM {
            let newest = shards.iter().map(|shard| shard.time_max_us).max().unwrap_or(i64::MIN);
            context.newest_us.fetch_max(newest, Ordering::Relaxed);
        }
        let mut partitions: BTreeMap<i32, Partition> = BTreeMap::new();
        for shard in shards {
            partitions.entry(shard.day).or_default().shards.push(Arc::new(shard));
        }
        let state = State {
            schema: Arc::new(schema),
            is_in_doubt: false,
            partitions,
            flushed,
            sealed_to: None,
            unconfirmed: None,
            live_bytes: 0,
            sealed_bytes: 0,
            live_since: None,
            last_write: Duration::ZERO,
            waiting: Waits::default(),
            credit: 0,
            properties: state.properties,
            fate: Fate::Live,
        };
        Ok(Table {
            id,
            name,
            dir: context.tables_dir.join(&prefix),
            prefix,
            context: Arc::clone(context),
            compacting: Mutex::new(()),
            flushing: Mutex::new(()),
            resolving: Mutex::new(()),
            log: Mutex::new(log),
            altering: Altering::default(),
            state: Mutex::new(state),
        })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a panic while a table changes leaves nothing to trust")
    }

    pub(crate) fn schema(&self) -> Arc<TableSchema> {
        Arc::clone(&self.state().schema)
    }

    pub(crate) fn properties(&self) -> Properties {
        self.state().properties.clone()
    }

    /// # Errors
    /// [`StorageError::Invalid`] if the table was dropped, [`StorageError::Poisoned`] if it may have been.
    pub(crate) fn check_live(&self) -> Result<(), StorageError> {
        match self.state().fate {
            Fate::Live => Ok(()),
            Fate::Unknown => Err(StorageError::Poisoned),
            Fate::Dropping | Fate::Dropped => {
                let message = format!("table {} was dropped while this was written; write it again", self.name);
                Err(StorageError::Invalid(message))
            }
        }
    }

    /// The columns by which rows may be judged.
    ///
    /// # Errors
    /// [`StorageError::Poisoned`] if nobody knows what they will be at the next start.
    pub(crate) fn schema_for_writes(&self) -> Result<Arc<TableSchema>, StorageError> {
        let state = self.state();
        if state.is_in_doubt { Err(StorageError::Poisoned) } else { Ok(Arc::clone(&state.schema)) }
    }

    /// Applies a durable batch, written in the frame at `position`.
    pub(crate) fn apply(&self, batch: &TableBatch, position: Position) -> Growth {
        let now = self.context.clock.monotonic();
        if *self.name.schema != *SYSTEM
            && let Some(newest) = batch.times_us.iter().max()
        {
            self.context.newest_us.fetch_max(*newest, Ordering::Relaxed);
        }
        let mut state = self.state();
        let mut growth = Growth::default();
        if position.offset < state.flushed || state.fate == Fate::Dropped {
            return growth;
        }
        let mut start = 0;
        while start < batch.len() {
            let day = day_of(batch.times_us[start]);
            let end = (start..batch.len()).find(|row| day_of(batch.times_us[*row]) != day).unwrap_or(batch.len());
            let partition = state.partitions.entry(day).or_default();
            let live = partition.live.get_or_insert_with(Memtable::new);
            let applied = live.apply(batch, start..end, position);
            growth.bytes += applied.bytes;
            growth.merged += applied.merged;
            start = end;
        }
        self.grown(&mut state, &mut growth, now);
        growth
    }

    /// Applies a durable removal, written in the frame at `position`.
    pub(crate) fn remove(&self, removal: &Removal, position: Position) -> Growth {
        let now = self.context.clock.monotonic();
        let mut state = self.state();
        let mut growth = Growth::default();
        if position.offset < state.flushed || state.fate == Fate::Dropped {
            return growth;
        }
        let fields: Option<Vec<(Arc<str>, FieldType)>> = removal.fields.as_ref().map(|names| {
            let columns = state.schema.columns().iter().filter(|column| names.contains(&column.name));
            let field = |column: &crate::Column| match column.kind {
                ColumnKind::Field(field_type) => Some((Arc::clone(&column.name), field_type)),
                ColumnKind::Tag | ColumnKind::Time => None,
            };
            columns.filter_map(field).collect()
        });
        let mut is_any = false;
        for (key, time_us) in removal.rows() {
            // Where no layer holds anything of the day, there is nothing to remove.
            let Some(partition) = state.partitions.get_mut(&day_of(time_us)).filter(|p| !p.is_empty()) else {
                continue;
            };
            let live = partition.live.get_or_insert_with(Memtable::new);
            let applied = live.remove(key, time_us, fields.as_deref(), position);
            growth.bytes += applied.bytes;
            growth.merged += applied.merged;
            is_any = true;
        }
        if is_any {
            self.grown(&mut state, &mut growth, now);
        }
        growth
    }

    fn grown(&self, state: &mut State, growth: &mut Growth, now: Duration) {
        state.live_bytes += growth.bytes;
        self.context.memory.add(growth.bytes);
        state.live_since.get_or_insert(now);
        state.last_write = now;
        growth.live_bytes = state.live_bytes;
    }

    /// The oldest frame that has rows in memory only; `None` if all are in shards.
    pub(crate) fn oldest_unflushed(&self) -> Option<u64> {
        let state = self.state();
        let mut oldest: Option<u64> = None;
        for partition in state.partitions.values() {
            let sealed = partition.sealed.as_ref().and_then(|sealed| lock(sealed).positions());
            let live = partition.live.as_ref().and_then(Memtable::positions);
            for (first, _) in sealed.into_iter().chain(live) {
                oldest = Some(oldest.map_or(first.offset, |oldest| oldest.min(first.offset)));
            }
        }
        oldest
    }

    /// Whether any layer of any day has rows of a series. Blocks: may read shards.
    pub(crate) fn has_series(&self, key: &Arc<SeriesKey>) -> Result<bool, StorageError> {
        let layers: Vec<Layers> = {
            let state = self.state();
            let in_memory = |p: &Partition| p.live.as_ref().is_some_and(|live| live.last_time(key).is_some());
            if state.partitions.values().any(in_memory) {
                return Ok(true);
            }
            let below = |p: &Partition| Layers {
                schema: Arc::clone(&state.schema),
                sealed: p.sealed.clone(),
                shards: p.shards.clone(),
            };
            state.partitions.values().map(below).collect()
        };
        let of_series = [(0, Arc::clone(key))];
        for layers in layers {
            if layers.latest(&self.context, &of_series)?.iter().any(|(_, latest)| *latest > i64::MIN) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The newest position in any shard.
    pub(crate) fn newest_position(&self) -> Option<Position> {
        let state = self.state();
        state.partitions.values().flat_map(|partition| &partition.shards).map(|shard| shard.position_max).max()
    }

    /// Seals the live memtables, if there are any and none is sealed. `applied` is an offset below which every frame
    /// has been applied, read before this call. Returns what the sealed rows will have flushed.
    pub(crate) fn seal(&self, applied: u64) -> Option<u64> {
        let mut state = self.state();
        if state.sealed_to.is_some() {
            return state.sealed_to;
        }
        let mut any = false;
        for partition in state.partitions.values_mut() {
            if let Some(live) = partition.live.take() {
                partition.sealed = Some(Arc::new(Mutex::new(live)));
                any = true;
            }
        }
        if any {
            state.sealed_to = Some(applied);
            state.sealed_bytes = std::mem::take(&mut state.live_bytes);
            state.live_since = None;
        }
        state.sealed_to
    }

    /// Settles one memtable of one day as far as it has come. The caller holds `resolving`.
    pub(crate) fn settle(&self, day: i32, younger: Younger) -> Result<(), StorageError> {
        let Some((layers, version, sealed)) = self.layers(&self.state(), day, younger) else { return Ok(()) };
        layers.settle(&self.context, version, &mut |work| match &sealed {
            Some(sealed) => work(&mut lock(sealed)),
            None => {
                let mut state = self.state();
                if let Some(live) = state.partitions.get_mut(&day).and_then(|partition| partition.live.as_mut()) {
                    work(live);
                }
            }
        })
    }

    /// The layers below a memtable, their version, and the memtable itself if it is the sealed one.
    #[expect(clippy::type_complexity, reason = "named at its two uses, both in this file")]
    fn layers(&self, state: &State, day: i32, younger: Younger) -> Option<(Layers, u64, Option<Arc<Mutex<Memtable>>>)> {
        let partition = state.partitions.get(&day)?;
        let (below, itself) = match younger {
            Younger::Live => {
                partition.live.as_ref()?;
                (partition.sealed.clone(), None)
            }
            Younger::Sealed => (None, Some(partition.sealed.clone()?)),
        };
        let layers = Layers { schema: Arc::clone(&state.schema), sealed: below, shards: partition.shards.clone() };
        Some((layers, partition.below_version, itself))
    }

    /// What a query sees now. Blocks: may read shards.
    pub(crate) fn snapshot(&self) -> Result<TableSnapshot, StorageError> {
        let _resolving = self.resolving.lock().expect("no holder of this lock panics");
        let days: Vec<i32> = self.state().partitions.keys().copied().collect();
        for day in &days {
            self.settle(*day, Younger::Sealed)?;
        }
        for _ in 0..SETTLE_ROUNDS {
            for day in &days {
                self.settle(*day, Younger::Live)?;
            }
            if self.is_settled(&self.state()) {
                break;
            }
        }
        let mut state = self.state();
        // Writers have outrun the rounds above, so they wait while the last keys are looked up.
        let late: Vec<i32> =
            state.partitions.iter().filter(|(_, p)| !p.live_is_settled()).map(|(day, _)| *day).collect();
        for day in late {
            while let Some((layers, version, _)) = self.layers(&state, day, Younger::Live)
                && !state.partitions[&day].live_is_settled()
            {
                let live = state.partitions.get_mut(&day).and_then(|partition| partition.live.as_mut());
                let live = live.expect("a day that is late has a live memtable");
                layers.settle(&self.context, version, &mut |work| work(live))?;
            }
        }
        let schema = Arc::clone(&state.schema);
        let (mut shards, mut views) = (Vec::new(), Vec::new());
        for partition in state.partitions.values() {
            partition.view(&mut shards, &mut views);
        }
        drop(state);
        let rows = MemoryRows::of_views(Arc::clone(&schema), views);
        Ok(TableSnapshot { name: self.name.clone(), schema, shards, rows })
    }

    fn is_settled(&self, state: &State) -> bool {
        state.partitions.values().all(Partition::live_is_settled)
    }

    /// The table as lists and metrics show it.
    pub(crate) fn info(&self) -> TableInfo {
        let state = self.state();
        let (mut shards, mut shard_rows, mut shard_bytes, mut memory_rows) = (0, 0, 0, 0);
        for partition in state.partitions.values() {
            shards += partition.shards.len();
            shard_rows += partition.shards.iter().map(|shard| shard.rows).sum::<u64>();
            shard_bytes += partition.shards.iter().map(|shard| shard.bytes).sum::<u64>();
            memory_rows += partition.live.as_ref().map_or(0, Memtable::rows);
            memory_rows += partition.sealed.as_ref().map_or(0, |sealed| lock(sealed).rows());
        }
        TableInfo {
            name: self.name.clone(),
            id: self.id,
            schema: Arc::clone(&state.schema),
            shards,
            shard_rows,
            shard_bytes,
            memory_rows: memory_rows as u64,
            waiting_rows: state.waiting.rows as u64,
        }
    }

    /// What the table has.
    pub(crate) fn contents(&self) -> TableContents {
        let info = self.info();
        let options = self.properties().options();
        let state = self.state();
        let shards = state.partitions.values().flat_map(|partition| &partition.shards).cloned().collect();
        let has_rows = |partition: &Partition| {
            !partition.shards.is_empty()
                || partition.live.as_ref().is_some_and(|live| live.rows() > 0)
                || partition.sealed.as_ref().is_some_and(|sealed| lock(sealed).rows() > 0)
        };
        let mut days = state.partitions.iter().filter(|(_, partition)| has_rows(partition)).map(|(day, _)| *day);
        let first = days.next();
        let days = first.map(|first| (first, days.next_back().unwrap_or(first)));
        TableContents { info, options, shards, days }
    }

    /// How the rows that wait stand, and when something was last applied.
    pub(crate) fn waiting(&self) -> (Waits, Duration) {
        let state = self.state();
        (state.waiting, state.last_write)
    }

    /// Bytes of rows in memory, live and sealed.
    pub(crate) fn memory_bytes(&self) -> usize {
        let state = self.state();
        state.live_bytes + state.sealed_bytes
    }
}

impl State {
    /// Counts the rows that wait, after some of them came or went.
    pub(crate) fn count_waiting(&mut self, now: Duration) {
        let (mut rows, mut bytes) = (0, 0);
        for partition in self.partitions.values() {
            let sealed = partition.sealed.as_ref().map(|sealed| lock(sealed));
            for memtable in partition.live.iter().chain(sealed.as_deref()) {
                rows += memtable.waiting_rows();
                bytes += memtable.waiting_bytes();
            }
        }
        let since = (rows > 0).then(|| self.waiting.since.unwrap_or(now));
        self.waiting = Waits { rows, bytes, since };
    }
}

impl Partition {
    /// Whether no layer has anything.
    fn is_empty(&self) -> bool {
        self.live.is_none() && self.sealed.is_none() && self.shards.is_empty()
    }

    fn live_is_settled(&self) -> bool {
        let version = self.below_version;
        self.live.as_ref().is_none_or(|live| live.is_settled_at(version))
    }

    /// Adds this day's shards, with their masks, and the views of its memtables.
    fn view(&self, shards: &mut Vec<ShardView>, views: &mut Vec<crate::memtable::MemtableView>) {
        let mut masked: HashMap<Arc<str>, Vec<u32>> = HashMap::new();
        let mut replaced = Vec::new();
        let sealed = self.sealed.as_ref().map(|sealed| lock(sealed));
        let collisions = self.live.iter().flat_map(Memtable::collisions);
        for (key, time_us, below) in collisions.chain(sealed.iter().flat_map(|sealed| sealed.collisions())) {
            match below {
                Below::Sealed => {
                    let sealed = sealed.as_ref().expect("the layer that a row lies on is there");
                    replaced.push(sealed.row_of(key, time_us).expect("a key that was found stays in its memtable"));
                }
                Below::Shard(path, ordinal) => masked.entry(path).or_default().push(ordinal),
            }
        }
        for shard in &self.shards {
            let mut rows = masked.remove(shard.path.as_str()).unwrap_or_default();
            rows.sort_unstable();
            rows.dedup();
            shards.push(ShardView { shard: Arc::clone(shard), masked: rows.into() });
        }
        assert!(masked.is_empty(), "a mask names a shard that the partition does not have");
        views.extend(sealed.iter().map(|sealed| sealed.view(&replaced)));
        views.extend(self.live.iter().map(|live| live.view(&[])));
    }
}

/// Locks a sealed memtable.
pub(crate) fn lock(memtable: &Mutex<Memtable>) -> MutexGuard<'_, Memtable> {
    memtable.lock().expect("a panic while a memtable changes leaves nothing to trust")
}
