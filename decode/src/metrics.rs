//! Metrics of monitoring systems as rows: a table a metric, a tag a label.
//!
//! Owns:     the fields that their values become, what becomes of values that are no numbers, the names of labels that
//!           would be in the way, and the portions in which a body is handed on.
//! Does not: know the formats they come in (`prometheus`, `otlp`), or compare with a table's schema (`storage`).
//!
//! What becomes of what, for people: `docs/formats/metrics.md`.
//!
//! Invariants
//!  1. A sample is a row, or refused with its reason; a refused one does not hurt others.
//!  2. What is allocated at a time is [`CHUNK_BYTES`] and one sample, whatever the body says (P14): labels that come once
//!     and are in every row of a long list make much of little.

mod histogram;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use model::name::{RESERVED_COLUMNS, check_column_name, check_name};
use model::{BatchBuilder, SeriesKey, TableBatch, TableName, Value};

pub(crate) use histogram::{Buckets, Count, Exponential, quantiles_json};

use crate::line_text::write_line;
use crate::wire::Malformed;

/// Bytes of rows and refused samples after which a portion of a body is handed on.
const CHUNK_BYTES: usize = 8 << 20;

/// Most metrics of one body: a table each.
pub const TABLES_MAX: usize = 10_000;

/// Most labels of one sample. A table has at most 1,000 columns, and no exporter known to us a tenth of these.
pub const LABELS_MAX: usize = 256;

/// Longest labels of one sample, names and values together.
pub const LABEL_BYTES_MAX: usize = 64 << 10;

/// Bytes of labels in rows for each byte of a body, and at least: labels that come once are in every row.
const EXPANSION_A_BYTE: usize = 256;
const EXPANSION_AT_LEAST: usize = 64 << 20;

/// Bytes of a refused sample that are kept.
const REFUSED_BYTES_MAX: usize = 4 << 10;

/// What a table, a row and a field cost beside their texts, about.
const TABLE_COST: usize = 2048;
const ROW_COST: usize = 32;
const FIELD_COST: usize = 16;

/// The value of a sample.
pub(crate) const VALUE: &str = "value";
/// What stands there instead of a number.
pub(crate) const SPECIAL: &str = "special";
/// How many a histogram or summary has counted.
pub const COUNT: &str = "count";
pub(crate) const SUM: &str = "sum";
pub(crate) const MIN: &str = "min";
pub(crate) const MAX: &str = "max";
pub(crate) const BUCKETS: &str = "buckets";
pub(crate) const QUANTILES: &str = "quantiles";
pub(crate) const START: &str = "start_us";

/// Names of fields: no label keeps one of them.
const FIELDS: [&str; 9] = [VALUE, SPECIAL, COUNT, SUM, MIN, MAX, BUCKETS, QUANTILES, START];

/// What goes before the name of a label that is in the way, as when Prometheus scrapes a label that it sets itself.
const PREFIX: &str = "exported_";

/// [`SPECIAL`] of a series that has ended.
pub(crate) const STALE: &str = "stale";

/// A portion of a body.
#[derive(Debug, Default)]
pub struct Chunk {
    /// Rows; the line of each is its sample's number in the body, from 1.
    pub batches: Vec<TableBatch>,
    /// What is no row.
    pub refused: Vec<RefusedSample>,
}

/// A sample that is no row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedSample {
    /// Its number in the body, from 1.
    pub number: u32,
    /// The sample as a line of line protocol with its time in microseconds.
    pub line: String,
    /// Whether the line says all of it and may be read again; else it is cut, or has what no line can say.
    pub is_whole: bool,
    /// Whether it is a histogram or a summary.
    pub is_histogram: bool,
    /// Why, for the writer: lower case, one sentence.
    pub reason: String,
}

/// Why a body is not read to its end.
#[derive(Debug, PartialEq, Eq)]
pub enum DecodeError<E> {
    /// It is not what its format says; where and what.
    Malformed(String),
    /// Who takes the rows does not.
    Taker(E),
}

impl<E: fmt::Display> fmt::Display for DecodeError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Malformed(what) => f.write_str(what),
            DecodeError::Taker(error) => error.fmt(f),
        }
    }
}

impl<E> From<Malformed> for DecodeError<E> {
    fn from(malformed: Malformed) -> Self {
        DecodeError::Malformed(malformed.to_string())
    }
}

/// Takes a portion of a body.
pub type Take<'t, E> = dyn FnMut(Chunk) -> Result<(), E> + 't;

/// A label, not yet checked.
pub(crate) type Label<'a> = (Cow<'a, str>, Cow<'a, str>);

/// What the samples of one series have in common.
pub(crate) struct Series<'a> {
    table: Cow<'a, str>,
    key: SeriesKey,
    refused: Option<Refused>,
    /// Where its rows go, as long as the portion is the same: portion, table, series.
    place: Option<(usize, usize, u32)>,
}

struct Refused {
    reason: String,
    labels: String,
}

impl<'a> Series<'a> {
    /// A series of `table`. Labels that have a field's name, or one that no column may have, get [`PREFIX`] before it; of
    /// a label that comes twice all samples are refused. Labels without a value are none.
    pub(crate) fn new(table: Cow<'a, str>, labels: &mut Vec<Label<'a>>) -> Self {
        labels.retain(|(_, value)| !value.is_empty());
        for (name, _) in labels.iter_mut().filter(|(name, _)| is_taken(name)) {
            *name = format!("{PREFIX}{name}").into();
        }
        labels.sort_unstable();
        match check(&table, labels) {
            Ok(()) => {
                let key = SeriesKey::from_tags(labels.iter().map(|(name, value)| (&**name, &**value)));
                Series { table, key, refused: None, place: None }
            }
            Err(reason) => Series::refused(table, labels, reason),
        }
    }

    /// A series of which no sample can be a row.
    pub(crate) fn refused(table: Cow<'a, str>, labels: &[Label<'_>], reason: String) -> Self {
        let mut shown = Vec::new();
        for (name, value) in labels {
            crate::line_text::write_name(name, &mut shown);
            shown.push(b'=');
            crate::line_text::write_name(value, &mut shown);
            shown.push(b',');
            if shown.len() > REFUSED_BYTES_MAX {
                break;
            }
        }
        shown.pop();
        shown.truncate(REFUSED_BYTES_MAX);
        shown.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b' ');
        let labels = String::from_utf8_lossy(&shown).into_owned();
        let key = SeriesKey::from_tags::<&str, &str>([]);
        Series { table, key, refused: Some(Refused { reason, labels }), place: None }
    }
}

fn is_taken(name: &str) -> bool {
    FIELDS.iter().chain(&RESERVED_COLUMNS).any(|taken| name.eq_ignore_ascii_case(taken))
}

fn check(table: &str, labels: &[Label<'_>]) -> Result<(), String> {
    check_name("metric", table).map_err(|e| e.to_string())?;
    if labels.len() > LABELS_MAX {
        return Err(format!("the sample has {} labels; at most {LABELS_MAX} are taken", labels.len()));
    }
    let bytes: usize = labels.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > LABEL_BYTES_MAX {
        return Err(format!("the labels of the sample have {bytes} bytes; at most {LABEL_BYTES_MAX} are taken"));
    }
    for (name, _) in labels {
        check_column_name("label", name).map_err(|e| e.to_string())?;
    }
    match labels.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => Err(format!("the label {:?} is there twice", pair[0].0)),
        None => Ok(()),
    }
}

struct Table {
    builder: BatchBuilder,
    /// The columns that were used before: few, and the same in every row.
    columns: Vec<(&'static str, model::FieldType, usize)>,
}

/// The rows of a body, handed on in portions.
pub(crate) struct Rows<'t, E> {
    schema: Arc<str>,
    by_name: HashMap<Box<str>, usize>,
    tables: Vec<Table>,
    refused: Vec<RefusedSample>,
    take: &'t mut Take<'t, E>,
    /// Of the sample before.
    number: u32,
    tables_total: usize,
    /// Bytes of labels that may still be in rows.
    labels_left: usize,
    bytes: usize,
    /// Counts the portions.
    portion: usize,
}

impl<'t, E> Rows<'t, E> {
    /// Rows of a body of so many bytes for tables of `schema`, which `take` gets.
    pub(crate) fn new(schema: &str, body_len: usize, take: &'t mut Take<'t, E>) -> Self {
        Rows {
            schema: schema.into(),
            by_name: HashMap::new(),
            tables: Vec::new(),
            refused: Vec::new(),
            take,
            number: 0,
            tables_total: 0,
            labels_left: EXPANSION_AT_LEAST.saturating_add(body_len.saturating_mul(EXPANSION_A_BYTE)),
            bytes: 0,
            portion: 0,
        }
    }

    /// Adds a sample: a field each, or why it cannot be one.
    pub(crate) fn push(
        &mut self,
        series: &mut Series<'_>,
        time_us: Option<i64>,
        fields: &[(&'static str, Value<'_>)],
        wrong: Option<String>,
    ) -> Result<(), DecodeError<E>> {
        self.number = self.number.saturating_add(1);
        let time = time_us.ok_or("the time is out of range");
        match (wrong, &series.refused, time) {
            (None, None, Ok(time_us)) => self.add(series, time_us, fields),
            // Its fields are not all that came.
            (Some(reason), ..) => {
                self.refuse(series, time_us, fields, reason);
                self.refused.last_mut().expect("it was added").is_whole = false;
            }
            (None, Some(refused), _) => {
                let reason = refused.reason.clone();
                self.refuse(series, time_us, fields, reason);
            }
            (None, None, Err(reason)) => self.refuse(series, time_us, fields, reason.to_owned()),
        }
        if self.bytes >= CHUNK_BYTES { self.hand_on() } else { Ok(()) }
    }

    fn add(&mut self, series: &mut Series<'_>, time_us: i64, fields: &[(&'static str, Value<'_>)]) {
        let (table, id) = match series.place {
            Some((portion, table, id)) if portion == self.portion => (table, id),
            _ => {
                let Some(table) = self.table(&series.table) else {
                    let reason = format!("the body has more than {TABLES_MAX} metrics; send it in several requests");
                    return self.refuse(series, Some(time_us), fields, reason);
                };
                let key_len = series.key.as_bytes().len();
                let Some(left) = self.labels_left.checked_sub(key_len) else {
                    let reason =
                        "the labels of the body would be hundreds of times as long in rows; send fewer at a time";
                    return self.refuse(series, Some(time_us), fields, reason.to_owned());
                };
                self.labels_left = left;
                let known = self.tables[table].builder.series().len();
                let id = self.tables[table].builder.intern_series(series.key.clone());
                if id as usize == known {
                    self.bytes += series.key.as_bytes().len() + 2 * ROW_COST;
                }
                series.place = Some((self.portion, table, id));
                (table, id)
            }
        };
        let Table { builder, columns } = &mut self.tables[table];
        builder.start_row(id, time_us, self.number);
        self.bytes += ROW_COST + FIELD_COST * columns.len();
        for (name, value) in fields {
            let field_type = value.field_type();
            let known = columns.iter().find(|(known, of, _)| known == name && *of == field_type);
            let column = match known {
                Some((.., column)) => *column,
                None => {
                    let column = builder.field_column(name, field_type);
                    columns.push((name, field_type, column));
                    column
                }
            };
            builder.set(column, *value);
            if let Value::Text(text) = value {
                self.bytes += text.len();
            }
        }
    }

    fn table(&mut self, name: &str) -> Option<usize> {
        if let Some(table) = self.by_name.get(name) {
            return Some(*table);
        }
        if self.tables_total == TABLES_MAX {
            return None;
        }
        self.tables_total += 1;
        let builder = BatchBuilder::new(TableName { schema: Arc::clone(&self.schema), table: name.into() });
        self.tables.push(Table { builder, columns: Vec::new() });
        self.by_name.insert(name.into(), self.tables.len() - 1);
        self.bytes += TABLE_COST;
        Some(self.tables.len() - 1)
    }

    fn refuse(
        &mut self,
        series: &Series<'_>,
        time_us: Option<i64>,
        fields: &[(&'static str, Value<'_>)],
        reason: String,
    ) {
        let mut line = Vec::new();
        let tags: &mut dyn Iterator<Item = (&str, &str)> = match &series.refused {
            None => &mut series.key.tags(),
            // Shown as they are; no line has them.
            Some(_) => &mut std::iter::empty(),
        };
        let time = time_us.unwrap_or_default();
        let mut is_whole = write_line(&series.table, tags, fields.iter().copied(), time, &mut line)
            && time_us.is_some()
            && line.len() <= REFUSED_BYTES_MAX;
        let mut line = String::from_utf8_lossy(&line).into_owned();
        if let Some(refused) = &series.refused {
            is_whole = false;
            line = format!("{{{}}} {line}", refused.labels);
        }
        line.truncate(line.floor_char_boundary(if is_whole { usize::MAX } else { 2 * REFUSED_BYTES_MAX }));
        self.bytes += line.len() + reason.len() + 2 * ROW_COST;
        let is_histogram = fields.iter().any(|(name, _)| *name == COUNT);
        self.refused.push(RefusedSample { number: self.number, line, is_whole, is_histogram, reason });
    }

    fn hand_on(&mut self) -> Result<(), DecodeError<E>> {
        self.portion += 1;
        self.bytes = 0;
        self.by_name.clear();
        let filled = self.tables.drain(..).filter(|table| !table.builder.is_empty());
        let batches = filled.map(|table| table.builder.finish()).collect();
        let chunk = Chunk { batches, refused: std::mem::take(&mut self.refused) };
        (self.take)(chunk).map_err(DecodeError::Taker)
    }

    /// Hands on what is left; returns how many samples there were.
    pub(crate) fn finish(mut self) -> Result<u32, DecodeError<E>> {
        if !self.tables.is_empty() || !self.refused.is_empty() {
            self.hand_on()?;
        }
        Ok(self.number)
    }
}

/// The field that a number of a sample becomes: itself, or what it is instead.
pub(crate) fn number(name: &'static str, value: f64) -> (&'static str, Value<'static>) {
    match special(value) {
        None => (name, Value::F64(value)),
        Some(word) => (SPECIAL, Value::Text(word)),
    }
}

/// What a double is that is no number.
pub(crate) fn special(value: f64) -> Option<&'static str> {
    match value {
        _ if value.is_finite() => None,
        _ if value.is_nan() => Some("NaN"),
        _ if value > 0.0 => Some("+Inf"),
        _ => Some("-Inf"),
    }
}

/// `text`, or for bytes that are no UTF-8 the same with replacements, and why that is no name or value.
pub(crate) fn text(bytes: &[u8]) -> (Cow<'_, str>, bool) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Cow::Borrowed(text), true),
        Err(_) => (Cow::Owned(String::from_utf8_lossy(bytes).into_owned()), false),
    }
}

/// The field that says how many there were.
pub(crate) fn count_field(count: Count) -> (&'static str, Value<'static>) {
    match count {
        Count::Whole(count) => (COUNT, i64::try_from(count).map_or(Value::U64(count), Value::I64)),
        Count::Float(count) => number(COUNT, count),
    }
}
