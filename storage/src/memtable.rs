//! The rows of one table and day that are in the log but in no shard yet, each key once.
//!
//! Owns:     rows in columns, the key index, merging of writes and removals that meet in memory; what is known of the
//!           keys that an older layer (a sealed memtable, a shard) holds too (`below`); rows that wait for a shard to be
//!           rewritten (`waiting`).
//! Does not: look into other layers (`settle` does, and reports back through [`Memtable::settle_key`]), or lock.
//!
//! Invariants
//!  1. Rows are appended and their values never changed. A merge appends the merged row and marks the older one dead.
//!  2. Of the rows of one key exactly one is not dead; it holds, per field, the newest value written.
//!  3. Rows are applied in the order of their positions, so "later applied" is "newer".
//!  4. `last_time` of a series is the greatest time among its rows; `in_order` is sorted by time.
//!  5. What a row means is what it makes of the row below it ([`Standing`]). That is associative: whether two writes meet
//!     in one memtable, in two, or in memory and a shard, the outcome is the same, and applying a part of the log again
//!     over shards that hold some of it already changes nothing in the end.

mod below;
mod value;
mod waiting;

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::ArrayRef;
use hashbrown::{DefaultHashBuilder, HashTable};
use model::{FieldType, FieldValues, Position, SeriesKey, TableBatch, Validity, Value};

use crate::columns::{extend_values, pad_values, push_value, row_bytes, same, to_array, value_at};
pub(crate) use below::{Below, Held, Reach, Suspect};
pub(crate) use value::{Bits, OwnedValue};
pub(crate) use waiting::Waiting;

use below::BelowState;

/// Rows of a chunk; a full chunk is frozen and shared with queries, which copy the last one.
const CHUNK_ROWS: usize = 1 << 14;

/// In a table with more fields a chunk grows as rows come, instead of having room for all of them at once.
const ROOM_AHEAD_SLOTS_MAX: usize = 32;

/// Rows of its series that are newer than one that is only a little late: so many are moved to make room for it. Few in tests,
/// so that theirs come late in both ways.
const A_LITTLE_LATE_ROWS: usize = if cfg!(test) { 2 } else { 64 };

/// Bytes that a standing takes, roughly, with its place in the map.
const STANDING_BYTES: usize = 80;

/// A frozen run of rows.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) series: Vec<u32>,
    pub(crate) times_us: Vec<i64>,
    /// The least and the greatest of the times.
    pub(crate) oldest_us: i64,
    pub(crate) newest_us: i64,
    /// By slot; a slot that came later is missing.
    pub(crate) columns: Vec<ArrayRef>,
}

/// A field of this memtable.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) name: Arc<str>,
    pub(crate) field_type: FieldType,
}

#[derive(Clone, Debug, Default)]
struct Tail {
    series: Vec<u32>,
    times_us: Vec<i64>,
    columns: Vec<(FieldValues, Validity)>,
}

#[derive(Debug)]
struct Series {
    key: Arc<SeriesKey>,
    last_time: i64,
    in_order: Vec<u32>,
    late: BTreeMap<i64, u32>,
    /// No older layer holds a later time of this series; `None` until `settle` has looked.
    below_max: Option<i64>,
}

/// Where the row of a key is, or goes.
enum Place {
    /// It is this row.
    Row(u32),
    /// It goes into [`Series::in_order`], here.
    InOrder(usize),
    /// It goes into [`Series::late`].
    Late,
}

impl Series {
    /// The place of `time_us`; `time_of` says the time of a row.
    fn place_of(&self, time_us: i64, time_of: impl Fn(u32) -> i64) -> Place {
        let mut end = self.in_order.len();
        if time_us > self.last_time {
            return Place::InOrder(end);
        }
        // Most of what comes late is a little late, so the search begins at the end, in growing steps.
        let mut step = 1;
        let mut start = end.saturating_sub(step);
        while start > 0 && time_of(self.in_order[start]) > time_us {
            end = start;
            step *= 2;
            start = end.saturating_sub(step);
        }
        match self.in_order[start..end].binary_search_by_key(&time_us, |row| time_of(*row)) {
            Ok(at) => Place::Row(self.in_order[start + at]),
            Err(at) => match self.late.get(&time_us) {
                Some(row) => Place::Row(*row),
                None if self.in_order.len() - (start + at) <= A_LITTLE_LATE_ROWS => Place::InOrder(start + at),
                None => Place::Late,
            },
        }
    }
}

/// A field's name, type and value.
pub(crate) type FieldValue = (Arc<str>, FieldType, OwnedValue);

/// What a row makes of the row that a layer below holds of its key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is there, and takes from below the values that it lacks.
    #[default]
    Over,
    /// As `Over`, but for the values of these slots, which were removed; and without a row below it is none
    /// unless `is_row`.
    Without { slots: Vec<u32>, is_row: bool },
    /// It is there, and takes nothing from below: what was there was removed, or taken over already.
    Alone,
    /// It was removed, and with it whatever lies below.
    Gone,
}

impl Standing {
    /// Whether there is a row if no layer below has one.
    fn is_row(&self) -> bool {
        !matches!(self, Standing::Gone | Standing::Without { is_row: false, .. })
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Memtable {
    hasher: DefaultHashBuilder,
    series_ids: HashTable<u32>,
    series: Vec<Series>,
    slots: Vec<Slot>,
    chunks: Vec<Arc<Chunk>>,
    tail: Tail,
    dead: Bits,
    /// By row, where it is not [`Standing::Over`].
    standings: HashMap<u32, Standing>,
    bytes: usize,
    /// Positions of the oldest and the newest frame that was applied here.
    applied: Option<(Position, Position)>,
    below: BelowState,
    waiting: waiting::WaitingState,
}

/// What a write did to a memtable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    /// Rows that met a row of their key.
    pub(crate) merged: u64,
    /// Growth in bytes.
    pub(crate) bytes: usize,
}

impl Memtable {
    pub(crate) fn new() -> Self {
        Memtable {
            hasher: DefaultHashBuilder::default(),
            series_ids: HashTable::new(),
            series: Vec::new(),
            slots: Vec::new(),
            chunks: Vec::new(),
            tail: Tail::default(),
            dead: Bits::default(),
            standings: HashMap::new(),
            bytes: 0,
            applied: None,
            below: BelowState::default(),
            waiting: waiting::WaitingState::default(),
        }
    }

    /// Rows that are not dead.
    pub(crate) fn rows(&self) -> usize {
        self.next_row() as usize - self.dead.count
    }

    /// Latest time of the series `key`.
    pub(crate) fn last_time(&self, key: &SeriesKey) -> Option<i64> {
        self.find_series(key).map(|id| self.series[id as usize].last_time)
    }

    /// Applies rows `range` of `batch`, all of this memtable's day, written in the frame at `position`.
    pub(crate) fn apply(&mut self, batch: &TableBatch, range: Range<usize>, position: Position) -> Applied {
        let before = (self.bytes, self.dead.count);
        let mut dropped = 0;
        self.note_position(position);
        let slots: Vec<usize> =
            batch.fields.iter().map(|field| self.slot(&field.name, field.values.field_type())).collect();
        let mut ids: Vec<Option<u32>> = vec![None; batch.series.len()];
        // Rows `run..row` are new keys that are indexed but not copied yet.
        let mut run = range.start;
        for row in range.clone() {
            let of = batch.series_of[row] as usize;
            let id = *ids[of].get_or_insert_with(|| self.intern(&batch.series[of]));
            let time_us = batch.times_us[row];
            let copied = self.next_row();
            let next = copied + (row - run) as u32;
            let time_of = |row: u32| match row.checked_sub(copied) {
                Some(ahead) => batch.times_us[run + ahead as usize],
                None => self.key_of(row).1,
            };
            let old = match self.series[id as usize].place_of(time_us, time_of) {
                Place::Row(old) => old,
                place => {
                    self.index_row(id, time_us, next, place);
                    self.suspect_new_key(id, time_us);
                    continue;
                }
            };
            self.copy_rows(batch, run..row, &slots, &ids);
            run = row + 1;
            let values: Vec<(usize, Value<'_>)> = batch
                .fields
                .iter()
                .zip(&slots)
                .filter(|(field, _)| field.valid.get(row))
                .map(|(field, slot)| (*slot, field.values.get(row)))
                .collect();
            dropped += u64::from(!self.write_over(old, &values));
        }
        self.copy_rows(batch, run..range.end, &slots, &ids);
        Applied { merged: (self.dead.count - before.1) as u64 + dropped, bytes: self.bytes - before.0 }
    }

    /// Removes a row, or only the values of `fields` (name and type), in the frame at `position`.
    pub(crate) fn remove(
        &mut self,
        key: &SeriesKey,
        time_us: i64,
        fields: Option<&[(Arc<str>, FieldType)]>,
        position: Position,
    ) -> Applied {
        let before = (self.bytes, self.dead.count);
        self.note_position(position);
        let id = self.intern(key);
        let slots: Option<Vec<u32>> =
            fields.map(|fields| fields.iter().map(|(name, t)| self.slot(name, *t) as u32).collect());
        match (self.find_row(id, time_us), slots) {
            (Some(old), Some(slots)) => self.remove_cells(old, &slots),
            (Some(old), None) => {
                if self.standing(old) != &Standing::Gone {
                    self.replace_row(old, &[], Standing::Gone);
                    self.key_changed(id, time_us);
                }
            }
            (None, slots) => {
                let standing = slots.map_or(Standing::Gone, |slots| Standing::Without { slots, is_row: false });
                self.insert_row(id, time_us, &[], standing);
                self.suspect_new_key(id, time_us);
            }
        }
        Applied { merged: (self.dead.count - before.1) as u64, bytes: self.bytes - before.0 }
    }

    /// Merges `values` over row `old`; false if they change nothing.
    fn write_over(&mut self, old: u32, values: &[(usize, Value<'_>)]) -> bool {
        let mut merged = self.cells(old);
        let (standing, mut changed) = match self.standing(old).clone() {
            Standing::Gone => (Standing::Alone, true),
            Standing::Without { mut slots, is_row } => {
                let before = slots.len();
                slots.retain(|slot| values.iter().all(|(written, _)| *written != *slot as usize));
                let changed = !is_row || slots.len() < before;
                let over = if slots.is_empty() { Standing::Over } else { Standing::Without { slots, is_row: true } };
                (over, changed)
            }
            standing => (standing, false),
        };
        for (slot, value) in values {
            if !merged[*slot].as_ref().is_some_and(|old| same(old.value(), *value)) {
                merged[*slot] = Some(OwnedValue::from(*value));
                changed = true;
            }
        }
        if changed {
            let (id, time_us) = self.key_of(old);
            self.replace_row(old, &merged, standing);
            self.key_changed(id, time_us);
        }
        changed
    }

    /// Takes the values of `removed` out of row `old`.
    fn remove_cells(&mut self, old: u32, removed: &[u32]) {
        let mut values = self.cells(old);
        let mut changed = false;
        removed.iter().for_each(|slot| changed |= values[*slot as usize].take().is_some());
        let standing = match self.standing(old).clone() {
            Standing::Gone => return,
            Standing::Alone => Standing::Alone,
            over => {
                let (mut slots, is_row) = match over {
                    Standing::Without { slots, is_row } => (slots, is_row),
                    _ => (Vec::new(), true),
                };
                let before = slots.len();
                slots.extend(removed);
                slots.sort_unstable();
                slots.dedup();
                changed |= slots.len() > before;
                Standing::Without { slots, is_row }
            }
        };
        if changed {
            let (id, time_us) = self.key_of(old);
            self.replace_row(old, &values, standing);
            self.key_changed(id, time_us);
        }
    }

    fn note_position(&mut self, position: Position) {
        let oldest = self.applied.map_or(position, |(oldest, _)| oldest.min(position));
        let newest = self.applied.map_or(position, |(_, newest)| newest.max(position));
        self.applied = Some((oldest, newest));
    }

    /// What row `row` makes of what lies below.
    fn standing(&self, row: u32) -> &Standing {
        self.standings.get(&row).unwrap_or(&Standing::Over)
    }

    fn set_standing(&mut self, row: u32, standing: Standing) {
        if standing == Standing::Over {
            self.standings.remove(&row);
        } else {
            self.standings.insert(row, standing);
        }
    }

    /// Appends a row of the key of `old` with `values` by slot, and marks `old` dead.
    fn replace_row(&mut self, old: u32, values: &[Option<OwnedValue>], standing: Standing) {
        let (id, time_us) = self.key_of(old);
        let new = self.next_row();
        let series = &self.series[id as usize];
        let place = series.in_order.binary_search_by_key(&time_us, |row| self.key_of(*row).1);
        let series = &mut self.series[id as usize];
        match place {
            Ok(place) => series.in_order[place] = new,
            Err(_) => *series.late.get_mut(&time_us).expect("a live row is indexed") = new,
        }
        self.dead.set(old);
        self.standings.remove(&old);
        self.push_row(id, time_us, values, standing);
    }

    /// Appends a row of a new key with `values` by slot.
    fn insert_row(&mut self, id: u32, time_us: i64, values: &[Option<OwnedValue>], standing: Standing) {
        let (new, place) = (self.next_row(), self.find_place(id, time_us));
        self.index_row(id, time_us, new, place);
        self.push_row(id, time_us, values, standing);
    }

    /// Makes `row` the row of a key that has none, and whose place this is.
    fn index_row(&mut self, id: u32, time_us: i64, row: u32, place: Place) {
        let series = &mut self.series[id as usize];
        series.last_time = series.last_time.max(time_us);
        match place {
            Place::InOrder(at) => series.in_order.insert(at, row),
            Place::Late => drop(series.late.insert(time_us, row)),
            Place::Row(_) => unreachable!("a key is indexed once"),
        }
    }

    /// Copies `values` by slot, the last of which may be missing, into a row that is indexed already.
    fn push_row(&mut self, id: u32, time_us: i64, values: &[Option<OwnedValue>], standing: Standing) {
        if standing != Standing::Over {
            self.bytes += STANDING_BYTES;
        }
        self.set_standing(self.next_row(), standing);
        self.tail.series.push(id);
        self.tail.times_us.push(time_us);
        for (slot, (column, valid)) in self.tail.columns.iter_mut().enumerate() {
            let value = values.get(slot).and_then(Option::as_ref).map(OwnedValue::value);
            if let Some(Value::Text(text)) = value {
                self.bytes += text.len();
            }
            push_value(column, value);
            valid.push(value.is_some());
        }
        self.bytes += 16 + 8 * self.slots.len();
        self.freeze_full_tail();
    }

    /// Copies rows of a batch whose keys are indexed already.
    fn copy_rows(&mut self, batch: &TableBatch, mut range: Range<usize>, slots: &[usize], ids: &[Option<u32>]) {
        while !range.is_empty() {
            let room = CHUNK_ROWS - self.tail.times_us.len();
            let part = range.start..range.end.min(range.start + room);
            range.start = part.end;
            let ids = batch.series_of[part.clone()].iter().map(|of| ids[*of as usize].expect("indexed before"));
            self.tail.series.extend(ids);
            self.tail.times_us.extend_from_slice(&batch.times_us[part.clone()]);
            self.bytes += part.len() * 16;
            let rows = self.tail.times_us.len();
            for (field, slot) in batch.fields.iter().zip(slots) {
                let (values, valid) = &mut self.tail.columns[*slot];
                extend_values(values, &field.values, part.clone());
                valid.extend_from(&field.valid, part.clone());
                self.bytes += row_bytes(&field.values, part.clone());
            }
            for (values, valid) in &mut self.tail.columns {
                if valid.len() < rows {
                    pad_values(values, rows);
                    valid.pad_to(rows);
                }
            }
            self.freeze_full_tail();
        }
    }

    fn freeze_full_tail(&mut self) {
        if self.tail.times_us.len() == CHUNK_ROWS {
            let empty = self.empty_tail();
            let tail = std::mem::replace(&mut self.tail, empty);
            self.chunks.push(Arc::new(tail.freeze()));
        }
    }

    /// The next chunk's rows: as many as the last one's, if it is not too wide to know.
    fn empty_tail(&self) -> Tail {
        let rows = if self.slots.len() <= ROOM_AHEAD_SLOTS_MAX { CHUNK_ROWS } else { 0 };
        let column = |slot: &Slot| {
            let mut values = FieldValues::new(slot.field_type);
            values.reserve(rows);
            (values, Validity::new())
        };
        Tail {
            series: Vec::with_capacity(rows),
            times_us: Vec::with_capacity(rows),
            columns: self.slots.iter().map(column).collect(),
        }
    }

    fn next_row(&self) -> u32 {
        let rows = self.chunks.len() * CHUNK_ROWS + self.tail.times_us.len();
        u32::try_from(rows).expect("a memtable is flushed long before 2^32 rows")
    }

    fn slot(&mut self, name: &Arc<str>, field_type: FieldType) -> usize {
        let found = self.slots.iter().position(|slot| slot.name == *name);
        found.unwrap_or_else(|| {
            self.slots.push(Slot { name: Arc::clone(name), field_type });
            let rows = self.tail.times_us.len();
            let mut values = FieldValues::new(field_type);
            pad_values(&mut values, rows);
            self.tail.columns.push((values, Validity::absent(rows)));
            self.slots.len() - 1
        })
    }

    fn find_series(&self, key: &SeriesKey) -> Option<u32> {
        let hash = self.hasher.hash_one(key.as_bytes());
        self.series_ids.find(hash, |id| *self.series[*id as usize].key == *key).copied()
    }

    fn intern(&mut self, key: &SeriesKey) -> u32 {
        if let Some(id) = self.find_series(key) {
            return id;
        }
        let id = u32::try_from(self.series.len()).expect("fewer series than rows");
        self.bytes += key.as_bytes().len() + 128;
        self.series.push(Series {
            key: Arc::new(key.clone()),
            last_time: i64::MIN,
            in_order: Vec::new(),
            late: BTreeMap::new(),
            below_max: None,
        });
        self.below.note_series(id);
        let (series, hasher) = (&self.series, &self.hasher);
        self.series_ids.insert_unique(hasher.hash_one(key.as_bytes()), id, |id| {
            hasher.hash_one(series[*id as usize].key.as_bytes())
        });
        id
    }

    fn find_place(&self, id: u32, time_us: i64) -> Place {
        self.series[id as usize].place_of(time_us, |row| self.key_of(row).1)
    }

    /// The row that holds a key, dead or not being no question: the index names live rows only.
    fn find_row(&self, id: u32, time_us: i64) -> Option<u32> {
        match self.find_place(id, time_us) {
            Place::Row(row) => Some(row),
            Place::InOrder(_) | Place::Late => None,
        }
    }

    fn key_of(&self, row: u32) -> (u32, i64) {
        let (chunk, at) = (row as usize / CHUNK_ROWS, row as usize % CHUNK_ROWS);
        match self.chunks.get(chunk) {
            Some(chunk) => (chunk.series[at], chunk.times_us[at]),
            None => (self.tail.series[at], self.tail.times_us[at]),
        }
    }

    fn value(&self, row: u32, slot: usize) -> Option<Value<'_>> {
        let (chunk, at) = (row as usize / CHUNK_ROWS, row as usize % CHUNK_ROWS);
        match self.chunks.get(chunk) {
            Some(chunk) => value_at(&**chunk.columns.get(slot)?, self.slots[slot].field_type, at),
            None => {
                let (values, valid) = &self.tail.columns[slot];
                valid.get(at).then(|| values.get(at))
            }
        }
    }

    /// The values of a row by slot.
    fn cells(&self, row: u32) -> Vec<Option<OwnedValue>> {
        (0..self.slots.len()).map(|slot| self.value(row, slot).map(OwnedValue::from)).collect()
    }

    /// The values of a row by field name.
    fn values(&self, row: u32) -> Vec<FieldValue> {
        let value = |(slot, of): (usize, &Slot)| {
            Some((Arc::clone(&of.name), of.field_type, OwnedValue::from(self.value(row, slot)?)))
        };
        self.slots.iter().enumerate().filter_map(value).collect()
    }
}

/// Rows as queries and flushes read them.
impl Memtable {
    /// Every row that is there, but for hidden ones, which a layer below shows, and those of `without`.
    pub(crate) fn view(&self, without: &[u32]) -> MemtableView {
        let mut chunks = self.chunks.clone();
        if !self.tail.times_us.is_empty() {
            chunks.push(Arc::new(self.tail.clone().freeze()));
        }
        let mut left_out = self.dead.clone();
        left_out.grow(self.next_row());
        let none = self.standings.iter().filter(|(_, standing)| !standing.is_row()).map(|(row, _)| *row);
        self.hidden().chain(none).chain(without.iter().copied()).for_each(|row| left_out.set(row));
        MemtableView {
            chunks,
            slots: self.slots.clone(),
            series: self.series.iter().map(|series| Arc::clone(&series.key)).collect(),
            latest: self.series.iter().map(|series| series.in_order.last().copied()).collect(),
            left_out,
        }
    }

    /// Row ids by series id, each list in order of time.
    pub(crate) fn rows_by_series(&self) -> Vec<Vec<u32>> {
        let in_order = |series: &Series| -> Vec<u32> {
            if series.late.is_empty() {
                return series.in_order.clone();
            }
            let mut rows = Vec::with_capacity(series.in_order.len() + series.late.len());
            let mut late = series.late.iter().peekable();
            for row in &series.in_order {
                let time_us = self.key_of(*row).1;
                while let Some((_, early)) = late.next_if(|(late_us, _)| **late_us < time_us) {
                    rows.push(*early);
                }
                rows.push(*row);
            }
            rows.extend(late.map(|(_, row)| *row));
            rows
        };
        self.series.iter().map(in_order).collect()
    }
}

impl Tail {
    fn freeze(self) -> Chunk {
        let (oldest_us, newest_us) = self
            .times_us
            .iter()
            .fold((i64::MAX, i64::MIN), |(oldest, newest), time| (oldest.min(*time), newest.max(*time)));
        let columns = self.columns.into_iter().map(|(values, valid)| to_array(values, &valid)).collect();
        Chunk { series: self.series, times_us: self.times_us, oldest_us, newest_us, columns }
    }
}

/// An immutable view of a memtable.
#[derive(Debug)]
pub(crate) struct MemtableView {
    pub(crate) chunks: Vec<Arc<Chunk>>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) series: Vec<Arc<SeriesKey>>,
    /// By series, the row of its latest time, left out or not; `None` if it has no row.
    pub(crate) latest: Vec<Option<u32>>,
    pub(crate) left_out: Bits,
}

impl MemtableView {
    /// Chunk and row within it of a row id.
    pub(crate) fn locate(row: u32) -> (usize, usize) {
        (row as usize / CHUNK_ROWS, row as usize % CHUNK_ROWS)
    }

    /// The first row id of a chunk.
    pub(crate) fn first_row(chunk: usize) -> u32 {
        (chunk * CHUNK_ROWS) as u32
    }
}

#[cfg(test)]
mod tests;
