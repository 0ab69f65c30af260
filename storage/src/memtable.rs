//! The rows of one table and day that are in the log but in no shard yet, each key once.
//!
//! Owns:     rows in columns, the key index, merging of writes that meet in memory, and what is known of the keys
//!           that an older layer (a sealed memtable, a shard) holds too.
//! Does not: look into other layers (`settle` does, and reports back through [`Memtable::settle_key`]), or lock.
//!
//! Invariants
//!  1. Rows are appended and never changed. A merge appends the merged row and marks the older one dead.
//!  2. Of the rows of one key exactly one is not dead; it holds, per field, the newest value written.
//!  3. Rows are applied in the order of their positions, so "later applied" is "newer".
//!  4. `last_time` of a series is the greatest time among its rows; `in_order` is sorted by time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::ArrayRef;
use hashbrown::{DefaultHashBuilder, HashTable};
use model::{FieldType, FieldValues, Position, SeriesKey, TableBatch, Validity, Value};
use std::hash::BuildHasher;

use crate::columns::{extend_values, pad_values, push_value, row_bytes, same, to_array, value_at};

/// Rows of a chunk; a full chunk is frozen and shared with queries instead of copied.
const CHUNK_ROWS: usize = 1 << 16;

/// Where an older layer holds a key that this memtable holds too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Below {
    /// Row id in the sealed memtable of the same day.
    Sealed(u32),
    /// Row ordinal in the shard of that path.
    Shard(Arc<str>, u32),
}

/// A frozen run of rows.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) series: Vec<u32>,
    pub(crate) times_us: Vec<i64>,
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
    /// Latest time of this series in any older layer; `None` until `settle` has looked.
    below_max: Option<i64>,
}

/// A field's name, type and value.
pub(crate) type FieldValue = (Arc<str>, FieldType, OwnedValue);

/// A key with the id of its series.
#[derive(Clone, Debug)]
pub(crate) struct Suspect {
    pub(crate) series: u32,
    pub(crate) key: Arc<SeriesKey>,
    pub(crate) time_us: i64,
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
    bytes: usize,
    /// Positions of the oldest and the newest frame that rows came from.
    positions: Option<(Position, Position)>,
    below: BelowState,
}

/// What `settle` has found so far, valid for one version of the layers below.
#[derive(Debug, Default)]
struct BelowState {
    version: u64,
    /// Series whose `below_max` is not known.
    unknown: Vec<u32>,
    /// Keys at or before their series' `below_max`, not looked up yet.
    suspects: Vec<(u32, i64)>,
    /// Keys that an older layer holds with other values: where. The row here is complete and replaces it.
    collisions: HashMap<(u32, i64), Below>,
    /// Rows that an older layer holds with the same values.
    hidden: HashSet<u32>,
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
            bytes: 0,
            positions: None,
            below: BelowState::default(),
        }
    }

    /// Rows that are not dead.
    pub(crate) fn rows(&self) -> usize {
        self.next_row() as usize - self.dead.count
    }

    /// Positions of the oldest and newest frames that rows came from; `None` while empty.
    pub(crate) fn positions(&self) -> Option<(Position, Position)> {
        self.positions
    }

    /// Latest time of the series `key`.
    pub(crate) fn last_time(&self, key: &SeriesKey) -> Option<i64> {
        self.find_series(key).map(|id| self.series[id as usize].last_time)
    }

    /// Applies rows `range` of `batch`, all of this memtable's day, written in the frame at `position`.
    pub(crate) fn apply(&mut self, batch: &TableBatch, range: Range<usize>, position: Position) -> Applied {
        let before = (self.bytes, self.dead.count);
        let mut dropped = 0;
        let oldest = self.positions.map_or(position, |(oldest, _)| oldest.min(position));
        let newest = self.positions.map_or(position, |(_, newest)| newest.max(position));
        self.positions = Some((oldest, newest));
        let slots: Vec<usize> =
            batch.fields.iter().map(|field| self.slot(&field.name, field.values.field_type())).collect();
        let mut ids: Vec<Option<u32>> = vec![None; batch.series.len()];
        // Rows `run..row` are new keys that are indexed but not copied yet.
        let mut run = range.start;
        for row in range.clone() {
            let of = batch.series_of[row] as usize;
            let id = *ids[of].get_or_insert_with(|| self.intern(&batch.series[of]));
            let time_us = batch.times_us[row];
            let next = self.next_row() + (row - run) as u32;
            let series = &mut self.series[id as usize];
            if time_us > series.last_time {
                series.last_time = time_us;
                series.in_order.push(next);
                if series.below_max.is_some_and(|max| time_us <= max) {
                    self.below.suspects.push((id, time_us));
                }
                continue;
            }
            self.copy_rows(batch, run..row, &slots, &ids);
            run = row;
            let found = self.find_row(id, time_us);
            let series = &mut self.series[id as usize];
            if series.below_max.is_some_and(|max| time_us <= max) {
                self.below.suspects.push((id, time_us));
            }
            match found {
                None => {
                    let next = self.next_row();
                    self.series[id as usize].late.insert(time_us, next);
                }
                Some(old) => {
                    run = row + 1;
                    let values: Vec<(usize, Value<'_>)> = batch
                        .fields
                        .iter()
                        .zip(&slots)
                        .filter(|(field, _)| field.valid.get(row))
                        .map(|(field, slot)| (*slot, field.values.get(row)))
                        .collect();
                    dropped += u64::from(!self.merge_over(old, &values));
                }
            }
        }
        self.copy_rows(batch, run..range.end, &slots, &ids);
        Applied { merged: (self.dead.count - before.1) as u64 + dropped, bytes: self.bytes - before.0 }
    }

    /// Merges `values` over row `old`; false if they change nothing.
    fn merge_over(&mut self, old: u32, values: &[(usize, Value<'_>)]) -> bool {
        let mut merged: Vec<Option<OwnedValue>> =
            (0..self.slots.len()).map(|slot| self.value(old, slot).map(OwnedValue::from)).collect();
        let mut changed = false;
        for (slot, value) in values {
            if !merged[*slot].as_ref().is_some_and(|old| same(old.value(), *value)) {
                merged[*slot] = Some(OwnedValue::from(*value));
                changed = true;
            }
        }
        if changed {
            self.replace_row(old, &merged);
        }
        changed
    }

    /// Appends a row of the key of `old` with `values` by slot, and marks `old` dead.
    fn replace_row(&mut self, old: u32, values: &[Option<OwnedValue>]) -> u32 {
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
        self.below.hidden.remove(&old);
        self.tail.series.push(id);
        self.tail.times_us.push(time_us);
        for ((column, valid), value) in self.tail.columns.iter_mut().zip(values) {
            push_value(column, value.as_ref().map(OwnedValue::value));
            valid.push(value.is_some());
        }
        self.bytes += 16 + 8 * values.len();
        self.freeze_full_tail();
        new
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
                part.clone().for_each(|row| valid.push(field.valid.get(row)));
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
            let empty = Tail { columns: self.empty_columns(), ..Tail::default() };
            let tail = std::mem::replace(&mut self.tail, empty);
            self.chunks.push(Arc::new(tail.freeze()));
        }
    }

    fn empty_columns(&self) -> Vec<(FieldValues, Validity)> {
        self.slots.iter().map(|slot| (FieldValues::new(slot.field_type), Validity::new())).collect()
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
        self.below.unknown.push(id);
        let (series, hasher) = (&self.series, &self.hasher);
        self.series_ids.insert_unique(hasher.hash_one(key.as_bytes()), id, |id| {
            hasher.hash_one(series[*id as usize].key.as_bytes())
        });
        id
    }

    /// The row that holds a key, dead or not being no question: the index names live rows only.
    fn find_row(&self, id: u32, time_us: i64) -> Option<u32> {
        let series = &self.series[id as usize];
        if time_us > series.last_time {
            return None;
        }
        let place = series.in_order.binary_search_by_key(&time_us, |row| self.key_of(*row).1);
        place.ok().map(|place| series.in_order[place]).or_else(|| series.late.get(&time_us).copied())
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

    /// The values of a row by field name.
    fn values(&self, row: u32) -> Vec<(Arc<str>, OwnedValue)> {
        let value = |slot: usize| Some((Arc::clone(&self.slots[slot].name), self.value(row, slot)?.into()));
        (0..self.slots.len()).filter_map(value).collect()
    }
}

/// What `settle` asks of the younger layer, and tells it.
impl Memtable {
    /// Starts over if the layers below have changed since the last call.
    pub(crate) fn below_version(&mut self, version: u64) {
        if self.below.version != version {
            self.series.iter_mut().for_each(|series| series.below_max = None);
            let unknown = (0..self.series.len() as u32).collect();
            self.below = BelowState { version, unknown, ..BelowState::default() };
        }
    }

    /// Series of which it is not known how far the layers below reach.
    pub(crate) fn unknown_series(&self) -> Vec<(u32, Arc<SeriesKey>)> {
        self.below.unknown.iter().map(|id| (*id, Arc::clone(&self.series[*id as usize].key))).collect()
    }

    /// Notes the latest time that any layer below holds of each series (`i64::MIN`: none).
    pub(crate) fn know_series(&mut self, known: &[(u32, i64)]) {
        for (id, max) in known {
            self.series[*id as usize].below_max = Some(*max);
            let series = &self.series[*id as usize];
            let in_order = series.in_order.iter().map(|row| self.key_of(*row).1).take_while(|time_us| time_us <= max);
            let late = series.late.range(..=*max).map(|(time_us, _)| *time_us);
            let suspects: Vec<(u32, i64)> = in_order.chain(late).map(|time_us| (*id, time_us)).collect();
            self.below.suspects.extend(suspects);
        }
        let series = &self.series;
        self.below.unknown.retain(|id| series[*id as usize].below_max.is_none());
    }

    /// Keys that a layer below may hold too, oldest request first.
    pub(crate) fn suspects(&self) -> Vec<Suspect> {
        let suspect = |(series, time_us): &(u32, i64)| Suspect {
            series: *series,
            key: Arc::clone(&self.series[*series as usize].key),
            time_us: *time_us,
        };
        self.below.suspects.iter().map(suspect).collect()
    }

    /// True when nothing is left to look up in that version of the layers below.
    pub(crate) fn is_settled_at(&self, version: u64) -> bool {
        self.below.version == version && self.below.unknown.is_empty() && self.below.suspects.is_empty()
    }

    /// Forgets the first `count` suspects: they have been looked up.
    pub(crate) fn suspects_done(&mut self, count: usize) {
        self.below.suspects.drain(..count);
    }

    /// Notes that a layer below holds the key with `values`: merges this memtable's row over them.
    /// Returns true if the two held the same.
    pub(crate) fn settle_key(&mut self, series: u32, time_us: i64, at: Below, values: &[FieldValue]) -> bool {
        let row = self.find_row(series, time_us).expect("a suspect's key stays in its memtable");
        let slots: Vec<usize> = values.iter().map(|(name, t, _)| self.slot(name, *t)).collect();
        let mut merged: Vec<Option<OwnedValue>> =
            (0..self.slots.len()).map(|slot| self.value(row, slot).map(OwnedValue::from)).collect();
        let (mut completed, mut changed) = (false, merged.iter().filter(|value| value.is_some()).count());
        for (slot, (_, _, older)) in slots.iter().zip(values) {
            match &merged[*slot] {
                None => {
                    merged[*slot] = Some(older.clone());
                    completed = true;
                }
                Some(newer) => changed -= usize::from(same(newer.value(), older.value())),
            }
        }
        if changed == 0 {
            self.below.collisions.remove(&(series, time_us));
            self.below.hidden.insert(row);
            return true;
        }
        if completed {
            self.replace_row(row, &merged);
        }
        self.below.collisions.insert((series, time_us), at);
        false
    }

    /// The values of a key, for the memtable above: row id and values by name. A hidden row is none: the layer below that
    /// hides it is what readers see, so that is where the key lies.
    pub(crate) fn lookup(&self, key: &SeriesKey, time_us: i64) -> Option<(u32, Vec<FieldValue>)> {
        let row = self.find_row(self.find_series(key)?, time_us)?;
        if self.below.hidden.contains(&row) {
            return None;
        }
        let type_of = |name: &Arc<str>| self.slots.iter().find(|slot| slot.name == *name).map(|slot| slot.field_type);
        let values = self.values(row).into_iter().filter_map(|(name, value)| {
            let field_type = type_of(&name)?;
            Some((name, field_type, value))
        });
        Some((row, values.collect()))
    }

    /// Keys that a layer below holds with other values: the row here, and where.
    pub(crate) fn collisions(&self) -> impl Iterator<Item = (u32, &Below)> {
        self.below.collisions.iter().map(|((series, time_us), below)| {
            (self.find_row(*series, *time_us).expect("a collision's key stays in its memtable"), below)
        })
    }
}

/// Rows as queries and flushes read them.
impl Memtable {
    /// Everything but dead and hidden rows, and those of `without`.
    pub(crate) fn view(&self, without: &[u32]) -> MemtableView {
        let mut chunks = self.chunks.clone();
        if !self.tail.times_us.is_empty() {
            chunks.push(Arc::new(self.tail.clone().freeze()));
        }
        let mut left_out = self.dead.clone();
        left_out.grow(self.next_row());
        self.below.hidden.iter().chain(without).for_each(|row| left_out.set(*row));
        MemtableView {
            chunks,
            slots: self.slots.clone(),
            series: self.series.iter().map(|series| Arc::clone(&series.key)).collect(),
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
        let columns = self.columns.into_iter().map(|(values, valid)| to_array(values, &valid)).collect();
        Chunk { series: self.series, times_us: self.times_us, columns }
    }
}

/// An immutable view of a memtable.
#[derive(Debug)]
pub(crate) struct MemtableView {
    pub(crate) chunks: Vec<Arc<Chunk>>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) series: Vec<Arc<SeriesKey>>,
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

/// A growing set of row ids.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bits {
    words: Vec<u64>,
    pub(crate) count: usize,
}

impl Bits {
    fn grow(&mut self, len: u32) {
        let words = (len as usize).div_ceil(64);
        if self.words.len() < words {
            self.words.resize(words, 0);
        }
    }

    fn set(&mut self, row: u32) {
        self.grow(row + 1);
        let (word, bit) = (row as usize / 64, 1 << (row % 64));
        self.count += usize::from(self.words[word] & bit == 0);
        self.words[word] |= bit;
    }

    /// Whether `row` is in the set.
    pub(crate) fn get(&self, row: u32) -> bool {
        self.words.get(row as usize / 64).is_some_and(|word| word >> (row % 64) & 1 == 1)
    }
}

/// A value that outlives its column.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum OwnedValue {
    F64(f64),
    I64(i64),
    U64(u64),
    Bool(bool),
    Text(Box<str>),
    Decimal { units: i64, scale: u8 },
}

impl OwnedValue {
    pub(crate) fn value(&self) -> Value<'_> {
        match self {
            OwnedValue::F64(value) => Value::F64(*value),
            OwnedValue::I64(value) => Value::I64(*value),
            OwnedValue::U64(value) => Value::U64(*value),
            OwnedValue::Bool(value) => Value::Bool(*value),
            OwnedValue::Text(value) => Value::Text(value),
            OwnedValue::Decimal { units, scale } => Value::Decimal { units: *units, scale: *scale },
        }
    }
}

impl From<Value<'_>> for OwnedValue {
    fn from(value: Value<'_>) -> Self {
        match value {
            Value::F64(value) => OwnedValue::F64(value),
            Value::I64(value) => OwnedValue::I64(value),
            Value::U64(value) => OwnedValue::U64(value),
            Value::Bool(value) => OwnedValue::Bool(value),
            Value::Text(value) => OwnedValue::Text(value.into()),
            Value::Decimal { units, scale } => OwnedValue::Decimal { units, scale },
        }
    }
}
