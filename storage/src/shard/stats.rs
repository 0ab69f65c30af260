//! What the Delta log says of a shard's columns: rows without a value, the smallest and the largest value.
//!
//! Owns:     which bounds are written, and how they are spelt.
//! Does not: write files or read the log.
//!
//! Invariants
//!  1. A column with a value has both bounds. Readers that filter may take a column without them for one without values
//!     (deltalake for Python does) and find nothing. Only floats that are not finite have none, which JSON cannot say.
//!  2. Bounds are values that occur, but for texts that were cut: their bounds hold every value.
//!  3. Numbers of decimals stand there with all digits and without an exponent: that is how everyone reads them exactly.

use arrow::array::{Array, AsArray};
use arrow::compute;
use arrow::datatypes::{Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType};
use chrono::{DateTime, SecondsFormat};
use model::FieldType;
use model::decimal::Decimal;
use serde_json::{Value, json};

use super::tags::TagChunk;
use crate::ColumnKind;
use crate::columns::text_at;

/// A text longer than this is cut in statistics.
const TEXT_BYTES_MAX: usize = 64;

/// Running minimum, maximum and null count of a column.
#[derive(Default)]
pub(crate) struct ColumnSummary {
    nulls: u64,
    range: Option<(Bound, Bound)>,
    /// A value that statistics cannot bound was seen.
    unbounded: bool,
}

/// Compared only with others of its kind.
#[derive(Clone, PartialEq, PartialOrd)]
enum Bound {
    Time(i64),
    Int(i64),
    Unsigned(i128),
    Float(f64),
    Bool(bool),
    Text(String),
    Decimal { units: i64, scale: u8 },
}

impl ColumnSummary {
    pub(crate) fn add(&mut self, kind: ColumnKind, array: &dyn Array) {
        self.nulls += array.null_count() as u64;
        let range = match kind {
            ColumnKind::Time => {
                let times = array.as_primitive::<TimestampMicrosecondType>();
                pair(compute::min(times), compute::max(times), Bound::Time)
            }
            ColumnKind::Field(FieldType::I64) => {
                let values = array.as_primitive::<Int64Type>();
                pair(compute::min(values), compute::max(values), Bound::Int)
            }
            ColumnKind::Field(FieldType::F64) => {
                let values = array.as_primitive::<Float64Type>();
                let (min, max) = (compute::min(values), compute::max(values));
                self.unbounded |= [min, max].iter().flatten().any(|value| !value.is_finite());
                pair(min, max, Bound::Float)
            }
            ColumnKind::Tag | ColumnKind::Field(FieldType::Text) => text_range(array),
            ColumnKind::Field(FieldType::Decimal { scale, .. }) => {
                let values = array.as_primitive::<Decimal128Type>();
                pair(compute::min(values), compute::max(values), |units| {
                    let units = i64::try_from(units).expect("a decimal has at most 18 digits");
                    Bound::Decimal { units, scale }
                })
            }
            ColumnKind::Field(FieldType::U64) => {
                let values = array.as_primitive::<Decimal128Type>();
                pair(compute::min(values), compute::max(values), Bound::Unsigned)
            }
            ColumnKind::Field(FieldType::Bool) => {
                let values = array.as_boolean();
                pair(compute::min_boolean(values), compute::max_boolean(values), Bound::Bool)
            }
        };
        self.widen(range);
    }

    /// Adds a tag's values of a row group.
    pub(super) fn add_tag(&mut self, tag: &TagChunk) {
        self.nulls += tag.nulls() as u64;
        let range = tag.range().map(|(min, max)| (Bound::Text(min.into()), Bound::Text(max.into())));
        self.widen(range);
    }

    fn widen(&mut self, range: Option<(Bound, Bound)>) {
        let Some((min, max)) = range else { return };
        self.range = Some(match self.range.take() {
            None => (min, max),
            Some((a, b)) => (if min < a { min } else { a }, if max > b { max } else { b }),
        });
    }
}

fn pair<T>(min: Option<T>, max: Option<T>, bound: impl Fn(T) -> Bound) -> Option<(Bound, Bound)> {
    Some((bound(min?), bound(max?)))
}

fn text_range(array: &dyn Array) -> Option<(Bound, Bound)> {
    let mut range: Option<(&str, &str)> = None;
    for row in (0..array.len()).filter(|row| array.is_valid(*row)) {
        let text = text_at(array, row);
        range = Some(range.map_or((text, text), |(min, max)| (min.min(text), max.max(text))));
    }
    range.map(|(min, max)| (Bound::Text(min.into()), Bound::Text(max.into())))
}

/// Statistics as Delta spells them: by column, values as JSON.
#[derive(Default)]
pub(crate) struct Stats {
    pub(crate) min: Vec<(String, String)>,
    pub(crate) max: Vec<(String, String)>,
    pub(crate) nulls: Vec<(String, String)>,
}

impl Stats {
    pub(crate) fn add(&mut self, name: &str, summary: ColumnSummary) {
        self.nulls.push((name.into(), summary.nulls.to_string()));
        if let (Some((min, max)), false) = (summary.range, summary.unbounded) {
            let min = match min {
                Bound::Text(text) => json!(at_most(&text)).to_string(),
                other => other.to_json(),
            };
            let max = match max {
                Bound::Text(text) => json!(at_least(text)).to_string(),
                other => other.to_json(),
            };
            self.min.push((name.into(), min));
            self.max.push((name.into(), max));
        }
    }

    /// All of it, for a shard of `rows`.
    pub(super) fn to_json(&self, rows: u64) -> String {
        let object = |columns: &[(String, String)]| {
            let members: Vec<_> = columns.iter().map(|(name, value)| format!("{}:{value}", json!(name))).collect();
            format!("{{{}}}", members.join(","))
        };
        let (min, max, nulls) = (object(&self.min), object(&self.max), object(&self.nulls));
        format!(r#"{{"numRecords":{rows},"minValues":{min},"maxValues":{max},"nullCount":{nulls}}}"#)
    }
}

impl Bound {
    fn to_json(&self) -> String {
        let value: Value = match self {
            Bound::Time(us) => format_time(*us).into(),
            Bound::Int(value) => (*value).into(),
            Bound::Float(value) => (*value).into(),
            Bound::Bool(value) => (*value).into(),
            Bound::Text(text) => text.as_str().into(),
            // Not through `Value`, which has doubles only: digits would be lost, or an exponent come.
            Bound::Unsigned(value) => return value.to_string(),
            Bound::Decimal { units, scale } => return Decimal { units: *units, scale: *scale }.to_string(),
        };
        value.to_string()
    }
}

/// The beginning of `text`: of at most [`TEXT_BYTES_MAX`], and no text that begins so is smaller.
fn at_most(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

/// `text`, or if it is long, its beginning with the last character one further, so that no text which begins as `text`
/// does is larger.
fn at_least(text: String) -> String {
    let mut end = text.floor_char_boundary(TEXT_BYTES_MAX);
    if end == text.len() {
        return text;
    }
    while let Some(last) = text[..end].chars().next_back() {
        end -= last.len_utf8();
        if let Some(next) = following(last) {
            return format!("{}{next}", &text[..end]);
        }
    }
    // It begins with the largest character there is, over and over.
    text
}

/// The character behind `character`, in the order of their bytes.
fn following(character: char) -> Option<char> {
    (character..=char::MAX).nth(1)
}

/// RFC 3339 with microseconds, UTC.
fn format_time(us: i64) -> String {
    let time = DateTime::from_timestamp_micros(us).expect("times are checked on admission");
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, BooleanArray, Decimal128Array, Float64Array, StringArray};

    use super::*;

    fn bounds(kind: ColumnKind, array: ArrayRef) -> Option<(String, String)> {
        let mut summary = ColumnSummary::default();
        summary.add(kind, &array);
        let mut stats = Stats::default();
        stats.add("c", summary);
        Some((stats.min.pop()?.1, stats.max.pop()?.1))
    }

    #[test]
    fn every_kind_of_value_has_bounds_with_all_digits() {
        let decimal = |scale, units: [i64; 2]| {
            let array = Decimal128Array::from_iter_values(units.map(i128::from));
            let array: ArrayRef = Arc::new(array.with_precision_and_scale(18, scale as i8).unwrap());
            bounds(ColumnKind::Field(FieldType::decimal(scale)), array).unwrap()
        };
        let pair = |min: &str, max: &str| (min.to_owned(), max.to_owned());
        assert_eq!(decimal(1, [-999_999_999_999_999_999, 3]), pair("-99999999999999999.9", "0.3"));
        assert_eq!(decimal(9, [1, 12]), pair("0.000000001", "0.000000012"));
        assert_eq!(decimal(0, [0, 999_999_999_999_999_999]), pair("0", "999999999999999999"));
        let unsigned = Decimal128Array::from_iter_values([i128::from(u64::MAX), 1]);
        let unsigned = Arc::new(unsigned.with_precision_and_scale(20, 0).unwrap());
        let found = bounds(ColumnKind::Field(FieldType::U64), unsigned);
        assert_eq!(found, Some(pair("1", "18446744073709551615")));
        let bools = |values: Vec<Option<bool>>| {
            bounds(ColumnKind::Field(FieldType::Bool), Arc::new(BooleanArray::from(values)))
        };
        assert_eq!(bools(vec![Some(true), None, Some(false)]), Some(pair("false", "true")));
        assert_eq!(bools(vec![Some(true), None]), Some(pair("true", "true")));
        assert_eq!(bools(vec![None]), None);
        let floats = |values: Vec<f64>| {
            bounds(ColumnKind::Field(FieldType::F64), Arc::new(Float64Array::from_iter_values(values)))
        };
        assert_eq!(floats(vec![1.5, -2.0]), Some(pair("-2.0", "1.5")));
        assert_eq!(floats(vec![1.5, f64::INFINITY]), None);
    }

    #[test]
    fn bounds_of_long_texts_hold_them_and_all_that_begin_so() {
        let long = |text: &str| text.repeat(TEXT_BYTES_MAX);
        for (text, min, max) in [
            ("short".to_owned(), "short".to_owned(), "short".to_owned()),
            (long("x"), long("x"), long("x")),
            (long("x") + "y", long("x"), format!("{}y", &long("x")[1..])),
            // Never in the middle of a character.
            (format!("x{}", long("ö")), format!("x{}", "ö".repeat(31)), format!("x{}÷", "ö".repeat(30))),
            // The last before the range that holds no characters, and the last there is.
            (long("\u{d7ff}"), "\u{d7ff}".repeat(21), "\u{d7ff}".repeat(20) + "\u{e000}"),
            (format!("a{}", long("\u{10ffff}")), format!("a{}", "\u{10ffff}".repeat(15)), "b".to_owned()),
            (long("\u{10ffff}"), "\u{10ffff}".repeat(16), long("\u{10ffff}")),
        ] {
            let array = Arc::new(StringArray::from(vec![text.as_str()]));
            let (low, high) = bounds(ColumnKind::Tag, array).unwrap();
            assert_eq!((&low, &high), (&json!(min).to_string(), &json!(max).to_string()), "{text}");
            assert!(*min <= *text && *text <= *max, "{text}");
        }
    }
}
