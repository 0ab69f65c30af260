//! Readings of one table in columns, in the order in which they were written.
//!
//! Invariants
//!  1. Every column, `series_of`, `times_us` and `lines` have one entry a row.
//!  2. `series_of[row]` is an index into `series`; each [`SeriesKey`] stands there once.
//!  3. Two columns may share a name only if their types differ (a conflict that the table's schema decides).
//!
//! While rows arrive, a column may lag behind (1): a row then costs what it brings, not what the table is wide.
//! [`BatchBuilder`] is the type of that state, and [`BatchBuilder::finish`] the only way out of it.

use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::{SeriesKey, TableName, Validity, decimal};

/// The type of a field as writers declare it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FieldType {
    /// IEEE 754 double.
    F64,
    /// Signed 64-bit integer.
    I64,
    /// Unsigned 64-bit integer.
    U64,
    /// Truth value.
    Bool,
    /// UTF-8 text.
    Text,
    /// Whole units of 10^-`scale` ([`crate::decimal`]). Declared, never guessed from values.
    Decimal {
        /// Digits that the units have at most, 1 to [`decimal::DIGITS_MAX`]; up to 9 take less room than more do.
        digits: u8,
        /// Those of them behind the point, at most [`crate::decimal::SCALE_MAX`].
        scale: u8,
    },
}

impl FieldType {
    /// The decimal with the most digits, so many of them behind the point.
    pub const fn decimal(scale: u8) -> FieldType {
        FieldType::Decimal { digits: decimal::DIGITS_MAX, scale }
    }

    /// The name used in messages: `float`, `integer`, `unsigned`, `boolean`, `string`, `decimal`.
    pub fn name(self) -> &'static str {
        match self {
            FieldType::F64 => "float",
            FieldType::I64 => "integer",
            FieldType::U64 => "unsigned",
            FieldType::Bool => "boolean",
            FieldType::Text => "string",
            FieldType::Decimal { .. } => "decimal",
        }
    }
}

/// The name, and for a decimal its resolution: `decimal of 9 digits with resolution 0.1`.
impl fmt::Display for FieldType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FieldType::Decimal { digits, scale } => {
                write!(f, "decimal of {digits} digits with resolution {}", decimal::resolution(*scale))
            }
            other => f.write_str(other.name()),
        }
    }
}

/// One value of a field.
///
/// Its tag is as wide as a register: a narrow one is copied together with the bytes behind it, and each copy waits for the
/// store of the tag (8 % of reading line protocol).
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(usize)]
pub enum Value<'a> {
    /// See [`FieldType::F64`]; NaN and infinities are refused by the decoders.
    F64(f64),
    /// See [`FieldType::I64`].
    I64(i64),
    /// See [`FieldType::U64`].
    U64(u64),
    /// See [`FieldType::Bool`].
    Bool(bool),
    /// See [`FieldType::Text`].
    Text(&'a str),
    /// See [`FieldType::Decimal`].
    Decimal {
        /// How many of 10^-`scale`.
        units: i64,
        /// Digits behind the point.
        scale: u8,
    },
}

impl Value<'_> {
    /// The type that holds this value.
    pub fn field_type(&self) -> FieldType {
        match self {
            Value::F64(_) => FieldType::F64,
            Value::I64(_) => FieldType::I64,
            Value::U64(_) => FieldType::U64,
            Value::Bool(_) => FieldType::Bool,
            Value::Text(_) => FieldType::Text,
            Value::Decimal { scale, .. } => FieldType::decimal(*scale),
        }
    }
}

/// Texts end to end in one buffer: row `i` is `bytes[ends[i - 1]..ends[i]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextColumn {
    /// All texts, UTF-8.
    pub bytes: Vec<u8>,
    /// Where each row's text ends; never decreasing.
    pub ends: Vec<u32>,
}

impl TextColumn {
    /// Appends one row.
    ///
    /// # Panics
    /// If the column grows past 4 GiB, which no batch can.
    pub fn push(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
        self.ends.push(u32::try_from(self.bytes.len()).expect("a batch is far smaller than 4 GiB"));
    }

    /// The text of `row`.
    ///
    /// # Panics
    /// If `row` is out of range.
    pub fn get(&self, row: usize) -> &str {
        let start = if row == 0 { 0 } else { self.ends[row - 1] as usize };
        let end = self.ends[row] as usize;
        std::str::from_utf8(&self.bytes[start..end]).expect("a TextColumn is filled with whole texts")
    }

    /// Checks bytes and ends that came from outside.
    ///
    /// # Errors
    /// Says what is wrong: not UTF-8, ends that decrease, split a character or leave bytes over.
    pub fn check(&self) -> Result<(), &'static str> {
        let text = std::str::from_utf8(&self.bytes).map_err(|_| "a text is not UTF-8")?;
        let mut last = 0;
        for end in &self.ends {
            let end = *end as usize;
            if end < last {
                return Err("ends of texts decrease");
            }
            if !text.is_char_boundary(end) {
                return Err("a text ends inside a character or past the last one");
            }
            last = end;
        }
        if last == text.len() { Ok(()) } else { Err("bytes after the last text") }
    }
}

/// One bit a row, in words of 64, least significant first.
pub(crate) fn bits_of_bools(values: &[bool]) -> Vec<u64> {
    let word = |chunk: &[bool]| chunk.iter().rev().fold(0, |word, bit| word << 1 | u64::from(*bit));
    values.chunks(64).map(word).collect()
}

/// The reverse of [`bits_of_bools`] for `len` rows; `None` under the conditions of [`Validity::from_words`].
pub(crate) fn bools_of_bits(words: &[u64], len: usize) -> Option<Vec<bool>> {
    let tail_is_clear = len.is_multiple_of(64) || words.last().is_none_or(|last| last >> (len % 64) == 0);
    if words.len() != len.div_ceil(64) || !tail_is_clear {
        return None;
    }
    let mut values = Vec::with_capacity(words.len() * 64);
    for word in words {
        values.extend((0..64).map(|bit| word >> bit & 1 == 1));
    }
    values.truncate(len);
    Some(values)
}

/// The values of one field; rows without a value hold a placeholder that [`FieldColumn::valid`] hides.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldValues {
    /// See [`FieldType::F64`].
    F64(Vec<f64>),
    /// See [`FieldType::I64`].
    I64(Vec<i64>),
    /// See [`FieldType::U64`].
    U64(Vec<u64>),
    /// See [`FieldType::Bool`].
    Bool(Vec<bool>),
    /// See [`FieldType::Text`].
    Text(TextColumn),
    /// See [`FieldType::Decimal`].
    Decimal {
        /// Units of 10^-`scale`.
        units: Vec<i64>,
        /// Digits that they have at most.
        digits: u8,
        /// Digits behind the point.
        scale: u8,
    },
}

impl FieldValues {
    /// An empty column of `field_type`.
    pub fn new(field_type: FieldType) -> Self {
        match field_type {
            FieldType::F64 => FieldValues::F64(Vec::new()),
            FieldType::I64 => FieldValues::I64(Vec::new()),
            FieldType::U64 => FieldValues::U64(Vec::new()),
            FieldType::Bool => FieldValues::Bool(Vec::new()),
            FieldType::Text => FieldValues::Text(TextColumn::default()),
            FieldType::Decimal { digits, scale } => FieldValues::Decimal { units: Vec::new(), digits, scale },
        }
    }

    /// Makes room for so many more rows; for texts, not for what they hold.
    pub fn reserve(&mut self, rows: usize) {
        match self {
            FieldValues::F64(values) => values.reserve(rows),
            FieldValues::I64(values) => values.reserve(rows),
            FieldValues::U64(values) => values.reserve(rows),
            FieldValues::Bool(values) => values.reserve(rows),
            FieldValues::Text(texts) => texts.ends.reserve(rows),
            FieldValues::Decimal { units, .. } => units.reserve(rows),
        }
    }

    /// The type of the values.
    pub fn field_type(&self) -> FieldType {
        match self {
            FieldValues::F64(_) => FieldType::F64,
            FieldValues::I64(_) => FieldType::I64,
            FieldValues::U64(_) => FieldType::U64,
            FieldValues::Bool(_) => FieldType::Bool,
            FieldValues::Text(_) => FieldType::Text,
            FieldValues::Decimal { digits, scale, .. } => FieldType::Decimal { digits: *digits, scale: *scale },
        }
    }

    /// Rows, placeholders included.
    pub fn len(&self) -> usize {
        match self {
            FieldValues::F64(values) => values.len(),
            FieldValues::I64(values) => values.len(),
            FieldValues::U64(values) => values.len(),
            FieldValues::Bool(values) => values.len(),
            FieldValues::Text(texts) => texts.ends.len(),
            FieldValues::Decimal { units, .. } => units.len(),
        }
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value at `row`, placeholder or not.
    ///
    /// # Panics
    /// If `row` is out of range.
    pub fn get(&self, row: usize) -> Value<'_> {
        match self {
            FieldValues::F64(values) => Value::F64(values[row]),
            FieldValues::I64(values) => Value::I64(values[row]),
            FieldValues::U64(values) => Value::U64(values[row]),
            FieldValues::Bool(values) => Value::Bool(values[row]),
            FieldValues::Text(texts) => Value::Text(texts.get(row)),
            FieldValues::Decimal { units, scale, .. } => Value::Decimal { units: units[row], scale: *scale },
        }
    }

    fn pad_to(&mut self, len: usize) {
        match self {
            FieldValues::F64(values) => values.resize(len, 0.0),
            FieldValues::I64(values) => values.resize(len, 0),
            FieldValues::U64(values) => values.resize(len, 0),
            FieldValues::Bool(values) => values.resize(len, false),
            FieldValues::Text(texts) => {
                let end = texts.bytes.len() as u32;
                texts.ends.resize(len, end);
            }
            FieldValues::Decimal { units, .. } => units.resize(len, 0),
        }
    }

    #[inline]
    fn push(&mut self, value: Value<'_>) {
        match (self, value) {
            (FieldValues::F64(values), Value::F64(value)) => values.push(value),
            (FieldValues::I64(values), Value::I64(value)) => values.push(value),
            (FieldValues::U64(values), Value::U64(value)) => values.push(value),
            (FieldValues::Bool(values), Value::Bool(value)) => values.push(value),
            (FieldValues::Text(texts), Value::Text(text)) => texts.push(text),
            (FieldValues::Decimal { units: values, scale: of, .. }, Value::Decimal { units, scale })
                if *of == scale =>
            {
                values.push(units);
            }
            (column, value) => wrong_type(value.field_type(), column.field_type()),
        }
    }

    fn pop(&mut self) {
        match self {
            FieldValues::F64(values) => drop(values.pop()),
            FieldValues::I64(values) => drop(values.pop()),
            FieldValues::U64(values) => drop(values.pop()),
            FieldValues::Bool(values) => drop(values.pop()),
            FieldValues::Decimal { units, .. } => drop(units.pop()),
            FieldValues::Text(texts) => {
                texts.ends.pop();
                texts.bytes.truncate(texts.ends.last().map_or(0, |end| *end as usize));
            }
        }
    }
}

#[cold]
fn wrong_type(value: FieldType, column: FieldType) -> ! {
    panic!("a {} in a column of {}", value.name(), column.name())
}

/// One field of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldColumn {
    /// The field's name.
    pub name: Arc<str>,
    /// One value or placeholder a row.
    pub values: FieldValues,
    /// Which rows have a value.
    pub valid: Validity,
}

impl FieldColumn {
    fn new(name: &str, field_type: FieldType) -> Self {
        FieldColumn { name: name.into(), values: FieldValues::new(field_type), valid: Validity::new() }
    }

    /// Sets the value of `row`, the newest of the batch; rows before it that are missing here have none.
    #[inline]
    fn set(&mut self, row: usize, value: Value<'_>) {
        if self.valid.len() == row {
            self.values.push(value);
            self.valid.push(true);
        } else {
            self.set_elsewhere(row, value);
        }
    }

    #[cold]
    fn set_elsewhere(&mut self, row: usize, value: Value<'_>) {
        if self.valid.len() < row {
            self.pad_to(row);
            self.values.push(value);
            self.valid.push(true);
        } else {
            debug_assert_eq!(self.valid.len(), row + 1, "only the newest row can be set");
            self.values.pop();
            self.values.push(value);
            self.valid.set(row);
        }
    }

    fn pad_to(&mut self, rows: usize) {
        if self.valid.len() < rows {
            self.values.pad_to(rows);
            self.valid.pad_to(rows);
        }
    }
}

/// Readings of one table. Build it with a [`BatchBuilder`], or with [`TableBatch::push_row`] where speed does not
/// matter; the fields are public for readers.
#[derive(Clone, Debug)]
pub struct TableBatch {
    /// The table all rows are for.
    pub table: TableName,
    /// The series that rows refer to.
    pub series: Vec<SeriesKey>,
    /// Per row: index into `series`.
    pub series_of: Vec<u32>,
    /// Per row: event time, microseconds since 1970-01-01 UTC.
    pub times_us: Vec<i64>,
    /// Per row: the line of the request it came from, counted from 1; for messages, not logged.
    pub lines: Vec<u32>,
    /// The fields.
    pub fields: Vec<FieldColumn>,
    /// Indices into `series`, found by the hash of the key.
    series_ids: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

/// Equal rows, series and fields in the same order.
impl PartialEq for TableBatch {
    fn eq(&self, other: &Self) -> bool {
        self.table == other.table
            && self.series == other.series
            && self.series_of == other.series_of
            && self.times_us == other.times_us
            && self.lines == other.lines
            && self.fields == other.fields
    }
}

impl TableBatch {
    /// An empty batch.
    pub fn new(table: TableName) -> Self {
        TableBatch {
            table,
            series: Vec::new(),
            series_of: Vec::new(),
            times_us: Vec::new(),
            lines: Vec::new(),
            fields: Vec::new(),
            series_ids: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
        }
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.times_us.len()
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.times_us.is_empty()
    }

    /// The index of `key` in `series`, added if new.
    pub fn intern_series(&mut self, key: SeriesKey) -> u32 {
        let hash = self.hasher.hash_one(key.as_bytes());
        if let Some(id) = self.series_ids.find(hash, |id| self.series[*id as usize] == key) {
            return *id;
        }
        let id = u32::try_from(self.series.len()).expect("a batch has fewer than 2^32 series");
        self.series.push(key);
        let (series, hasher) = (&self.series, &self.hasher);
        self.series_ids.insert_unique(hash, id, |id| hasher.hash_one(series[*id as usize].as_bytes()));
        id
    }

    /// The index in `fields` of the column `name` of `field_type`, added if new.
    pub fn field_column(&mut self, name: &str, field_type: FieldType) -> usize {
        let found = self.fields.iter().position(|f| &*f.name == name && f.values.field_type() == field_type);
        found.unwrap_or_else(|| {
            let mut column = FieldColumn::new(name, field_type);
            column.pad_to(self.len());
            self.fields.push(column);
            self.fields.len() - 1
        })
    }

    /// Appends a reading. `fields` pairs a column (of [`TableBatch::field_column`]) with its value; of two values
    /// for one column the later counts.
    ///
    /// # Panics
    /// If a value's type is not its column's, or `series` or a column does not exist.
    pub fn push_row(&mut self, series: u32, time_us: i64, line: u32, fields: &[(usize, Value<'_>)]) {
        self.start_row(series, time_us, line);
        let row = self.len() - 1;
        for (column, value) in fields {
            self.fields[*column].set(row, *value);
        }
        self.pad();
    }

    /// A batch of the rows for which `keep` holds, in the same order; columns left without a value are gone.
    pub fn filter(&self, keep: impl Fn(usize) -> bool) -> TableBatch {
        let mut kept = BatchBuilder::new(self.table.clone());
        let mut columns: Vec<Option<usize>> = vec![None; self.fields.len()];
        let mut series: Vec<Option<u32>> = vec![None; self.series.len()];
        for row in (0..self.len()).filter(|row| keep(*row)) {
            let old = self.series_of[row] as usize;
            let id = *series[old].get_or_insert_with(|| kept.intern_series(self.series[old].clone()));
            kept.start_row(id, self.times_us[row], self.lines[row]);
            for (i, field) in self.fields.iter().enumerate() {
                if field.valid.get(row) {
                    let new = || kept.field_column(&field.name, field.values.field_type());
                    let column = *columns[i].get_or_insert_with(new);
                    kept.set(column, field.values.get(row));
                }
            }
        }
        kept.finish()
    }

    #[inline]
    fn start_row(&mut self, series: u32, time_us: i64, line: u32) {
        assert!((series as usize) < self.series.len(), "series {series} of {}", self.series.len());
        self.series_of.push(series);
        self.times_us.push(time_us);
        self.lines.push(line);
    }

    /// Restores invariant 1 for columns that lag behind.
    fn pad(&mut self) {
        let rows = self.len();
        for column in &mut self.fields {
            column.pad_to(rows);
        }
    }

    /// Asserts what can be checked in one pass over the columns' lengths and the rows' series.
    pub(crate) fn assert_sound(&self) {
        let rows = self.len();
        assert!(self.series_of.len() == rows && self.lines.len() == rows, "columns of a batch differ in length");
        assert!(
            self.series_of.iter().max().is_none_or(|max| (*max as usize) < self.series.len()),
            "a row of a batch names a series that is not there"
        );
        for field in &self.fields {
            assert!(
                field.values.len() == rows && field.valid.len() == rows,
                "field {:?} of a batch of {rows} rows has {} values, {} bits of validity",
                field.name,
                field.values.len(),
                field.valid.len(),
            );
        }
    }

    /// Adds a series; false, and nothing added, if it is there.
    pub(crate) fn add_series(&mut self, key: SeriesKey) -> bool {
        let before = self.series.len();
        self.intern_series(key) as usize == before
    }
}

/// A [`TableBatch`] in the making, for the hot path: a row costs what it brings, however wide the table is.
///
/// ```
/// use model::{BatchBuilder, FieldType, SeriesKey, TableName, Value};
///
/// let mut builder = BatchBuilder::new(TableName::public("bmp180"));
/// let series = builder.intern_series(SeriesKey::from_tags([("sensor", "s1")]));
/// let temperature = builder.field_column("temperature", FieldType::F64);
/// builder.start_row(series, 1_780_272_000_000_000, 1);
/// builder.set(temperature, Value::F64(21.5));
/// let batch = builder.finish();
/// assert_eq!(batch.fields[temperature].values.get(0), Value::F64(21.5));
/// ```
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    /// Its columns may be shorter than its rows, and never leave this struct so.
    batch: TableBatch,
    /// Indices into `batch.fields`, found by the hash of name and type.
    column_ids: HashTable<u32>,
    /// Rows that there is room for from the start, in the columns that the first row brings.
    rows_expected: usize,
}

impl BatchBuilder {
    /// No rows yet.
    pub fn new(table: TableName) -> Self {
        BatchBuilder::with_room(table, 0, 0)
    }

    /// As [`BatchBuilder::new`], with room for so many rows like the first, of so many series.
    pub fn with_room(table: TableName, rows: usize, series: usize) -> Self {
        let mut batch = TableBatch::new(table);
        batch.series.reserve(series);
        batch.series_ids = HashTable::with_capacity(series);
        batch.series_of.reserve(rows);
        batch.times_us.reserve(rows);
        batch.lines.reserve(rows);
        BatchBuilder { batch, column_ids: HashTable::new(), rows_expected: rows }
    }

    /// Rows started.
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// True before the first row.
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.batch.fields.len()
    }

    /// The series interned so far.
    pub fn series(&self) -> &[SeriesKey] {
        &self.batch.series
    }

    /// As [`TableBatch::intern_series`].
    pub fn intern_series(&mut self, key: SeriesKey) -> u32 {
        self.batch.intern_series(key)
    }

    /// As [`TableBatch::field_column`], in constant time.
    pub fn field_column(&mut self, name: &str, field_type: FieldType) -> usize {
        let rows = if self.len() <= 1 { self.rows_expected } else { 0 };
        let BatchBuilder { batch: TableBatch { fields, hasher, .. }, column_ids, .. } = self;
        let hash = hasher.hash_one((name, field_type));
        let is_it = |field: &FieldColumn| &*field.name == name && field.values.field_type() == field_type;
        if let Some(id) = column_ids.find(hash, |id| is_it(&fields[*id as usize])) {
            return *id as usize;
        }
        let id = u32::try_from(fields.len()).expect("a batch has fewer than 2^32 columns");
        let mut column = FieldColumn::new(name, field_type);
        column.values.reserve(rows);
        fields.push(column);
        let hash_of = |field: &FieldColumn| hasher.hash_one((&*field.name, field.values.field_type()));
        column_ids.insert_unique(hash, id, |id| hash_of(&fields[*id as usize]));
        id as usize
    }

    /// Begins a reading, which has no values yet.
    ///
    /// # Panics
    /// If `series` was not interned.
    #[inline]
    pub fn start_row(&mut self, series: u32, time_us: i64, line: u32) {
        self.batch.start_row(series, time_us, line);
    }

    /// Sets a value of the reading begun last; of two values for one column the later counts.
    ///
    /// # Panics
    /// If there is no row, no such column, or the value's type is not the column's.
    #[inline]
    pub fn set(&mut self, column: usize, value: Value<'_>) {
        let row = self.batch.len().checked_sub(1).expect("a value belongs to a row");
        self.batch.fields[column].set(row, value);
    }

    /// As [`BatchBuilder::set`] of a [`Value::F64`].
    #[inline]
    pub fn set_f64(&mut self, column: usize, value: f64) {
        let row = self.batch.len().checked_sub(1).expect("a value belongs to a row");
        let column = &mut self.batch.fields[column];
        match &mut column.values {
            FieldValues::F64(values) if column.valid.len() == row => {
                values.push(value);
                column.valid.push(true);
            }
            _ => column.set(row, Value::F64(value)),
        }
    }

    /// The batch, all its columns as long as its rows.
    pub fn finish(mut self) -> TableBatch {
        self.batch.pad();
        self.batch
    }
}

#[cfg(test)]
mod tests;
