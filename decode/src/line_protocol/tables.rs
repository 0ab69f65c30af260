//! What the lines of a body have in common: tables, series, names and columns, each looked up by its raw bytes.
//!
//! Owns:     the batches being built, and the memory they may take.
//! Does not: know lines, values' syntax or times.
//!
//! Every column of a batch has an entry a row, so lines that each name another field of one table would make a body
//! grow with the square of its length. Absent entries are therefore paid for: by credit that a table earns with each
//! value, then by an allowance for the whole body. A table that can pay with neither goes on in a new batch.

use std::borrow::Cow;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};
use model::decimal::SCALE_MAX;
use model::name::{check_column_name, check_name};
use model::{BatchBuilder, SeriesKey, TableBatch, TableName, Value};

use smallvec::SmallVec;

use super::alike::Shape;
use super::scan::{self, Fail, quote, unescape};
use super::{NAMES_MAX, TABLES_MAX};

/// Absent entries that a new batch may hold.
const CREDIT_START: usize = 1024;
/// Absent entries that each value allows to its batch.
const CREDIT_A_VALUE: usize = 4;
/// Absent entries that each byte of a body allows to all its batches.
const ALLOWANCE_A_BYTE: usize = 2;

/// A body makes room for one series in so many lines, and for so many at most, before it has seen them.
const LINES_A_SERIES: usize = 4;
const SERIES_EXPECTED_MAX: usize = 1024;

/// No line with a field is shorter, its line break counted: `m a=1`.
const LINE_BYTES_MIN: usize = 6;

/// No column yet, no expected name yet.
const NONE: u32 = u32::MAX;

/// The series of a line, found or parsed.
pub(super) struct SeriesRef<'a> {
    /// Index of the table.
    pub(super) table: usize,
    raw: &'a str,
    known: Known,
}

/// The column of a value in its table's current batch, if there is one.
#[derive(Clone, Copy)]
pub(super) struct Column(u32);

/// A series that is in its table's current batch.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    table: u32,
    /// Index there.
    id: u32,
}

enum Known {
    /// Index in the table's current batch.
    Id(u32),
    /// Not in the table's current batch.
    Key(SeriesKey),
}

/// A raw `measurement,tag=value` that was seen in a good line.
#[derive(Clone, Copy)]
struct SeenSeries<'a> {
    raw: &'a str,
    table: u32,
    /// The batch of the table that `id` belongs to.
    generation: u32,
    id: u32,
}

/// The name of a tag or field in one table.
struct Name {
    name: Box<str>,
    /// Some series of the table has a tag of this name.
    is_tag: bool,
    /// The line that had the field last, and the field's place there.
    stamp: u64,
    slot: u32,
    /// The batch that `columns` belong to.
    generation: u32,
    /// By type, the column in the current batch, or [`NONE`].
    columns: [u32; TYPES],
}

struct Table<'a> {
    name: TableName,
    names: Vec<Name>,
    names_by_hash: HashTable<u32>,
    /// The measurement and the names of the tags as they stand in the lines of the series parsed last, if they are in
    /// order and without escapes: most series of a table look alike.
    plain: Option<(&'a str, Vec<&'a str>)>,
    /// The raw names of the fields of the lines before, by place: most lines of a table look alike.
    expected: Vec<(&'a str, u32)>,
    /// How the next line looks if it is like those before.
    shape: Shape<'a>,
    /// None before the first good line.
    batch: Option<BatchBuilder>,
    /// Where the batch goes in the result.
    place: usize,
    /// Counts the batches of this table.
    generation: u32,
    /// Absent entries that the current batch may still add.
    credit: usize,
}

pub(super) struct Tables<'a> {
    schema: Arc<str>,
    tables: Vec<Table<'a>>,
    tables_by_hash: HashTable<u32>,
    /// In order of their first lines.
    seen: Vec<SeenSeries<'a>>,
    seen_by_hash: HashTable<u32>,
    /// The series that the next line has if lines come in turns: the one that followed the last line's before.
    seen_next: usize,
    hasher: DefaultHashBuilder,
    /// The table whose series was parsed last.
    last: usize,
    /// Rows that the first batch makes room for.
    rows_expected: usize,
    names_total: usize,
    /// Numbers lines, for [`Name::stamp`].
    stamp: u64,
    /// Absent entries that all batches together may still add beyond their credit.
    allowance: usize,
    /// Finished batches, and holes for the unfinished.
    batches: Vec<Option<TableBatch>>,
}

impl Seen {
    /// Index of the table.
    #[inline]
    pub(super) fn table(self) -> usize {
        self.table as usize
    }

    /// The same with its name as it stands in the body.
    #[inline]
    pub(super) fn named(self, raw: &str) -> SeriesRef<'_> {
        SeriesRef { table: self.table(), raw, known: Known::Id(self.id) }
    }
}

impl Table<'_> {
    /// The key of the series `raw` if it looks like the one before.
    fn key_like_last(&self, raw: &str) -> Option<SeriesKey> {
        let (measurement, names) = self.plain.as_ref()?;
        let mut rest = raw.strip_prefix(measurement)?;
        let mut tags: SmallVec<[(&str, &str); 8]> = SmallVec::new();
        for name in names {
            let value = rest.strip_prefix(',')?.strip_prefix(name)?.strip_prefix('=')?;
            let (value, behind) = value.split_at(scan::plain_len(value.as_bytes()));
            if value.is_empty() {
                return None;
            }
            tags.push((name, value));
            rest = behind;
        }
        rest.is_empty().then(|| SeriesKey::from_ordered(&tags))
    }

    /// The column of `name` for values like `value` in the current batch, or [`NONE`].
    #[inline]
    fn column(&self, name: u32, value: &Value<'_>) -> u32 {
        let name = &self.names[name as usize];
        if name.generation == self.generation { name.columns[place_of(value)] } else { NONE }
    }

    /// Ends the current batch; what refers to it by number is void from here on.
    fn end_batch(&mut self) -> Option<TableBatch> {
        self.generation += 1;
        self.batch.take().map(BatchBuilder::finish)
    }
}

impl<'a> Tables<'a> {
    /// For a body of `body_len` bytes, of which the first line has `line_len`.
    pub(super) fn new(schema: &str, body_len: usize, line_len: usize) -> Self {
        Tables {
            schema: schema.into(),
            tables: Vec::new(),
            tables_by_hash: HashTable::new(),
            seen: Vec::new(),
            seen_by_hash: HashTable::new(),
            seen_next: 0,
            hasher: DefaultHashBuilder::default(),
            last: 0,
            rows_expected: body_len / line_len.max(LINE_BYTES_MIN),
            names_total: 0,
            stamp: 0,
            allowance: body_len.saturating_mul(ALLOWANCE_A_BYTE),
            batches: Vec::new(),
        }
    }

    /// The series whose turn it is and its length, if that is how `line` begins.
    #[inline]
    pub(super) fn series_in_turn(&mut self, line: &[u8]) -> Option<(Seen, usize)> {
        // Behind the last series the first one follows.
        let next = if self.seen_next < self.seen.len() { self.seen_next } else { 0 };
        let raw = self.seen.get(next)?.raw;
        // It had this end before, so nothing in it is one.
        if line.get(raw.len()) != Some(&b' ') || line[..raw.len()] != *raw.as_bytes() {
            return None;
        }
        let known = self.known(next)?;
        self.seen_next = next + 1;
        Some((known, raw.len()))
    }

    /// Finds the series that a line begins with, or parses it.
    #[inline]
    pub(super) fn series(&mut self, raw: &'a str) -> Result<SeriesRef<'a>, Fail> {
        let hash = self.hasher.hash_one(raw.as_bytes());
        if let Some(id) = self.seen_by_hash.find(hash, |id| self.seen[*id as usize].raw == raw) {
            self.seen_next = *id as usize + 1;
            if let Some(known) = self.known(*id as usize) {
                return Ok(known.named(raw));
            }
        }
        let (table, key) = match self.tables.get(self.last).and_then(|table| table.key_like_last(raw)) {
            Some(key) => (self.last, key),
            None => self.parse_series(raw)?,
        };
        Ok(SeriesRef { table, raw, known: Known::Key(key) })
    }

    /// The series `seen`, if it is in its table's current batch.
    #[inline]
    fn known(&self, seen: usize) -> Option<Seen> {
        let SeenSeries { table, generation, id, .. } = self.seen[seen];
        (generation == self.tables[table as usize].generation).then_some(Seen { table, id })
    }

    fn parse_series(&mut self, raw: &'a str) -> Result<(usize, SeriesKey), Fail> {
        let end = unescaped(raw, 0, b',').unwrap_or(raw.len());
        let measurement = unescape(&raw[..end], b"\\, ");
        check_name("measurement", &measurement).map_err(|error| Fail { at: 0, message: error.to_string() })?;
        if measurement.ends_with('\\') {
            let message = format!("the measurement name {} ends with a backslash", quote(&measurement));
            return Err(Fail { at: 0, message });
        }
        let mut tags = Vec::new();
        let mut comma = end;
        while comma < raw.len() {
            let at = comma + 1;
            comma = unescaped(raw, at, b',').unwrap_or(raw.len());
            let tag = &raw[at..comma];
            if tag.is_empty() {
                let message = "a tag is expected after the comma; right is `name=value`".to_owned();
                return Err(Fail { at, message });
            }
            let Some(equals) = unescaped(tag, 0, b'=') else {
                let message = format!("the tag {} has no value; right is `name=value`", quote(tag));
                return Err(Fail { at, message });
            };
            let name = unescape(&tag[..equals], b"\\,= ");
            let value = unescape(&tag[equals + 1..], b"\\,= ");
            check_column_name("tag", &name).map_err(|error| Fail { at, message: error.to_string() })?;
            let wrong = if value.is_empty() {
                "has an empty value; leave the tag out"
            } else if value.ends_with('\\') || name.ends_with('\\') {
                "ends with a backslash, in its name or its value"
            } else if value.chars().any(char::is_control) {
                "has a control character in its value"
            } else {
                tags.push((name, value, at));
                continue;
            };
            return Err(Fail { at, message: format!("the tag {} {wrong}", quote(&name)) });
        }
        let plain = |text: &Cow<'a, str>| match text {
            Cow::Borrowed(text) => Some(*text),
            Cow::Owned(_) => None,
        };
        let names =
            tags.is_sorted_by(|a, b| a.0 < b.0).then(|| tags.iter().map(|tag| plain(&tag.0)).collect()).flatten();
        let plain = plain(&measurement).zip(names);
        tags.sort_by(|a, b| (&a.0, a.2).cmp(&(&b.0, b.2)));
        if let Some(pair) = tags.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(Fail { at: pair[1].2, message: format!("the tag {} stands there twice", quote(&pair[1].0)) });
        }
        let table = self.table(&measurement)?;
        for (name, _, at) in &tags {
            let id = self.intern_name(table, name).map_err(|fail| fail.moved(*at))?;
            self.tables[table].names[id as usize].is_tag = true;
        }
        // A name of a tag may be one of a field too; that is for reading in full to refuse.
        self.tables[table].shape.fields.clear();
        self.tables[table].plain = plain;
        self.last = table;
        Ok((table, SeriesKey::from_tags(tags.iter().map(|(name, value, _)| (name, value)))))
    }

    /// The index of the table of `measurement`, added if new.
    fn table(&mut self, measurement: &str) -> Result<usize, Fail> {
        let Tables { tables, tables_by_hash, hasher, .. } = self;
        let hash = hasher.hash_one(measurement);
        if let Some(id) = tables_by_hash.find(hash, |id| &*tables[*id as usize].name.table == measurement) {
            return Ok(*id as usize);
        }
        if tables.len() >= TABLES_MAX {
            let message = format!("the body names more than {TABLES_MAX} tables; send it in several requests");
            return Err(Fail { at: 0, message });
        }
        let id = tables.len();
        tables.push(Table {
            name: TableName { schema: Arc::clone(&self.schema), table: measurement.into() },
            names: Vec::new(),
            names_by_hash: HashTable::new(),
            plain: None,
            expected: Vec::new(),
            shape: Shape::default(),
            batch: None,
            place: 0,
            generation: 0,
            credit: 0,
        });
        tables_by_hash.insert_unique(hash, id as u32, |id| hasher.hash_one(&*tables[*id as usize].name.table));
        Ok(id)
    }

    /// The index of `name` in `table`, added if new.
    fn intern_name(&mut self, table: usize, name: &str) -> Result<u32, Fail> {
        let Table { names, names_by_hash, .. } = &mut self.tables[table];
        let hash = self.hasher.hash_one(name);
        if let Some(id) = names_by_hash.find(hash, |id| &*names[*id as usize].name == name) {
            return Ok(*id);
        }
        if self.names_total >= NAMES_MAX {
            let message = format!("the body has more than {NAMES_MAX} different tags and fields; send less at once");
            return Err(Fail { at: 0, message });
        }
        self.names_total += 1;
        let id = names.len() as u32;
        names.push(Name { name: name.into(), is_tag: false, stamp: 0, slot: 0, generation: 0, columns: [NONE; TYPES] });
        names_by_hash.insert_unique(hash, id, |id| self.hasher.hash_one(&*names[*id as usize].name));
        Ok(id)
    }

    /// Begins a line.
    #[inline]
    pub(super) fn start_line(&mut self) {
        self.stamp += 1;
    }

    /// The name that an earlier line had in the same place, and its raw length, if `rest` begins with it and `=`.
    #[inline]
    pub(super) fn expected_name(&self, table: usize, place: usize, rest: &[u8]) -> Option<(u32, usize)> {
        let (raw, name) = self.tables[table].expected.get(place)?;
        let fits = rest.get(raw.len()) == Some(&b'=') && scan::starts_with(rest, raw.as_bytes());
        fits.then_some((*name, raw.len()))
    }

    /// The name `key`, written `raw` in this `place` of the line.
    pub(super) fn field_name(&mut self, table: usize, place: usize, raw: &'a str, key: &str) -> Result<u32, Fail> {
        let name = self.intern_name(table, key)?;
        let expected = &mut self.tables[table].expected;
        match expected.get_mut(place) {
            Some(here) => *here = (raw, name),
            // Places before this one were filled when the line came past them.
            None => expected.push((raw, name)),
        }
        Ok(name)
    }

    /// The text of a name.
    pub(super) fn name(&self, table: usize, name: u32) -> &str {
        &self.tables[table].names[name as usize].name
    }

    /// Whether the line's series has a tag of this name.
    #[inline]
    pub(super) fn is_tag_of(&self, series: &SeriesRef<'_>, name: u32) -> bool {
        let table = &self.tables[series.table];
        let name = &table.names[name as usize];
        name.is_tag
            && match &series.known {
                Known::Key(key) => key.get(&name.name).is_some(),
                Known::Id(id) => {
                    let batch = table.batch.as_ref().expect("a known series is in a batch");
                    batch.series()[*id as usize].get(&name.name).is_some()
                }
            }
    }

    /// Where the line already has the field `name`; if nowhere, notes that it is in place `next`.
    #[inline]
    pub(super) fn slot(&mut self, table: usize, name: u32, next: usize) -> Option<usize> {
        let name = &mut self.tables[table].names[name as usize];
        if name.stamp == self.stamp {
            return Some(name.slot as usize);
        }
        name.stamp = self.stamp;
        name.slot = next as u32;
        None
    }

    /// The column for values of `name` like `value`, as [`Tables::push_row`] takes it.
    #[inline]
    pub(super) fn column(&self, table: usize, name: u32, value: &Value<'_>) -> Column {
        Column(self.tables[table].column(name, value))
    }

    /// Adds a reading; `values` has each name once, with its [`Tables::column`].
    #[inline]
    pub(super) fn push_row<'v>(
        &mut self,
        series: SeriesRef<'a>,
        time_us: i64,
        line: u32,
        values: impl ExactSizeIterator<Item = (u32, Column, Value<'v>)> + Clone,
    ) {
        let SeriesRef { table: table_id, raw, mut known } = series;
        let table = &mut self.tables[table_id];
        let mut is_other_batch = false;
        if let Some(batch) = &table.batch {
            let new = values.clone().filter(|(_, column, _)| column.0 == NONE).count();
            let absent = batch.width() + new - values.len() + new * batch.len();
            if absent > table.credit + self.allowance {
                let full = table.end_batch().expect("there is a batch");
                if let Known::Id(id) = known {
                    known = Known::Key(full.series[id as usize].clone());
                }
                self.batches[table.place] = Some(full);
                is_other_batch = true;
            } else {
                self.allowance -= absent.saturating_sub(table.credit);
                table.credit = table.credit.saturating_sub(absent);
            }
        }
        if table.batch.is_none() {
            let rows = std::mem::take(&mut self.rows_expected);
            let series = (rows / LINES_A_SERIES).min(SERIES_EXPECTED_MAX);
            self.seen.reserve(series);
            let hash_of = |id: &u32| self.hasher.hash_one(self.seen[*id as usize].raw.as_bytes());
            self.seen_by_hash.reserve(series, hash_of);
            table.batch = Some(BatchBuilder::with_room(table.name.clone(), rows, series));
            table.place = self.batches.len();
            table.credit = CREDIT_START;
            self.batches.push(None);
        }
        table.credit += CREDIT_A_VALUE * values.len();

        let id = self.place(SeriesRef { table: table_id, raw, known }).id;
        let Table { batch: Some(batch), names, generation, .. } = &mut self.tables[table_id] else {
            unreachable!("it was made above")
        };
        batch.start_row(id, time_us, line);
        for (name, column, value) in values {
            if column.0 != NONE && !is_other_batch {
                batch.set(column.0 as usize, value);
                continue;
            }
            let name = &mut names[name as usize];
            if name.generation != *generation {
                name.generation = *generation;
                name.columns = [NONE; TYPES];
            }
            let column = &mut name.columns[place_of(&value)];
            if *column == NONE {
                *column = batch.field_column(&name.name, value.field_type()) as u32;
            }
            batch.set(*column as usize, value);
        }
    }

    /// Puts a series into its table's batch, which there is.
    #[inline]
    pub(super) fn place(&mut self, series: SeriesRef<'a>) -> Seen {
        let SeriesRef { table, raw, known } = series;
        let Table { batch: Some(batch), generation, .. } = &mut self.tables[table] else {
            unreachable!("it was made before")
        };
        let table = table as u32;
        let key = match known {
            Known::Id(id) => return Seen { table, id },
            Known::Key(key) => key,
        };
        let id = batch.intern_series(key);
        let seen = SeenSeries { raw, table, generation: *generation, id };
        let hash_of = |raw: &str| self.hasher.hash_one(raw.as_bytes());
        let hash = hash_of(raw);
        match self.seen_by_hash.find(hash, |id| self.seen[*id as usize].raw == raw) {
            Some(old) => self.seen[*old as usize] = seen,
            None => {
                let next = self.seen.len() as u32;
                self.seen.push(seen);
                self.seen_by_hash.insert_unique(hash, next, |id| hash_of(self.seen[*id as usize].raw));
            }
        }
        Seen { table, id }
    }

    /// Reads the fields of a line whose series ends at `at`, if they look like those of the line before; returns where
    /// they end. [`Tables::push_alike`] takes them.
    #[inline]
    pub(super) fn read_alike(&mut self, table: usize, text: &str, at: usize) -> Option<usize> {
        let Table { shape, batch: Some(batch), generation, .. } = &mut self.tables[table] else { return None };
        // No column is absent from the line, so there is nothing to pay for; and a batch has a column.
        if shape.generation != *generation || shape.fields.len() != batch.width() {
            return None;
        }
        shape.read(text, at)
    }

    /// Adds a reading of the values that [`Tables::read_alike`] has found.
    #[inline]
    pub(super) fn push_alike(&mut self, series: Seen, time_us: i64, line: u32) {
        let Table { shape, batch: Some(batch), credit, .. } = &mut self.tables[series.table()] else {
            unreachable!("the fields were read")
        };
        *credit += CREDIT_A_VALUE * shape.fields.len();
        batch.start_row(series.id, time_us, line);
        for field in &shape.fields {
            batch.set_f64(field.column as usize, field.value);
        }
    }

    /// Notes that the line read last, which is a row now, had these fields, all floats and each once.
    pub(super) fn expect_alike(&mut self, table: usize, names: impl ExactSizeIterator<Item = u32> + Clone) {
        let table = &mut self.tables[table];
        let width = table.batch.as_ref().map_or(0, BatchBuilder::width);
        if width != names.len() || names.clone().any(|name| table.names[name as usize].is_tag) {
            return;
        }
        let mut shape = std::mem::take(&mut table.shape);
        let column = |name| table.column(name, &Value::F64(0.0));
        shape.expect(table.generation, names.zip(&table.expected).map(|(name, (raw, _))| (*raw, column(name))));
        table.shape = shape;
    }

    /// All batches, in order of their first lines.
    pub(super) fn finish(mut self) -> Vec<TableBatch> {
        for table in &mut self.tables {
            if table.batch.is_some() {
                self.batches[table.place] = table.end_batch();
            }
        }
        self.batches.into_iter().flatten().collect()
    }
}

/// Types that are one each.
const PLAIN_TYPES: usize = 5;
/// Types that a field can have in one body: decimals of each scale are one.
const TYPES: usize = PLAIN_TYPES + SCALE_MAX as usize + 1;

/// Where the column of values like this one stands in [`Name::columns`].
fn place_of(value: &Value<'_>) -> usize {
    match value {
        Value::F64(_) => 0,
        Value::I64(_) => 1,
        Value::U64(_) => 2,
        Value::Bool(_) => 3,
        Value::Text(_) => 4,
        Value::Decimal { scale, .. } => PLAIN_TYPES + usize::from(*scale),
    }
}

/// The first `wanted` from `at` that no backslash escapes.
fn unescaped(text: &str, at: usize, wanted: u8) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut from = at;
    loop {
        let found = from + memchr::memchr2(wanted, b'\\', bytes.get(from..)?)?;
        if bytes[found] == wanted {
            return Some(found);
        }
        from = found + 2;
    }
}
