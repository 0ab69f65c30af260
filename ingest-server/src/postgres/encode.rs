//! Rows as PostgreSQL sends them, as text or binary.
//!
//! Owns:     the bytes of the values that readings are made of: numbers, texts, times, decimals.
//! Does not: know the bytes of the others; `arrow-pg` does.
//!
//! Sources: PostgreSQL's documentation, "Message Formats" and "Date/Time Types"; for the binary `numeric` the comment of
//! `numeric_recv` in its `src/backend/utils/adt/numeric.c`.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, GenericStringArray, PrimitiveArray, RecordBatch,
    StringViewArray,
};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, SchemaRef,
    TimeUnit, TimestampMicrosecondType, UInt64Type,
};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow_pg::datatypes::{PG_CHAR_KEY, PG_OID_ALIAS_KEY};
use arrow_pg::encoder::encode_value;
use bytes::{BufMut, BytesMut};
use model::time_text;
use pgwire::api::Type;
use pgwire::api::results::{DataRowEncoder, FieldFormat, FieldInfo};

use super::types;

/// 2000-01-01, from which PostgreSQL counts, in days since 1970.
pub const EPOCH_DAYS: i32 = 10_957;
/// The same in microseconds.
pub const EPOCH_US: i64 = EPOCH_DAYS as i64 * 86_400_000_000;

/// A value that cannot be sent.
#[derive(Debug, thiserror::Error)]
#[error("column {column} cannot be sent: {reason}")]
pub struct Unsendable {
    column: String,
    reason: String,
}

/// Writes the rows of one result.
#[derive(Debug)]
pub struct Encoder {
    columns: Vec<Column>,
}

#[derive(Debug)]
struct Column {
    field: Arc<Field>,
    sent_as: Type,
    binary: bool,
    /// For those that `arrow-pg` writes.
    info: Arc<Vec<FieldInfo>>,
}

impl Encoder {
    /// Of rows with these columns, each binary or not.
    pub fn new(schema: &SchemaRef, binary: impl Fn(usize) -> bool) -> Self {
        let column = |(index, field): (usize, &Arc<Field>)| {
            let (sent_as, binary) = (types::of_field(field), binary(index));
            let format = if binary { FieldFormat::Binary } else { FieldFormat::Text };
            let info = FieldInfo::new(field.name().clone(), None, None, sent_as.clone(), format);
            Column { field: Arc::clone(field), sent_as, binary, info: Arc::new(vec![info]) }
        };
        Encoder { columns: schema.fields().iter().enumerate().map(column).collect() }
    }

    /// The values of a batch, ready to be written row by row.
    ///
    /// # Errors
    /// If a column is not of the type that was announced and cannot become it.
    pub fn values<'a>(&'a self, batch: &RecordBatch) -> Result<Vec<Values<'a>>, Unsendable> {
        self.columns.iter().zip(batch.columns()).map(|(column, array)| Values::new(column, array)).collect()
    }

    /// How many columns there are.
    pub fn columns(&self) -> usize {
        self.columns.len()
    }
}

/// A column of a batch.
#[derive(Debug)]
pub struct Values<'a> {
    column: &'a Column,
    array: Typed,
}

#[derive(Debug)]
enum Typed {
    Truths(BooleanArray),
    I16(PrimitiveArray<Int16Type>),
    I32(PrimitiveArray<Int32Type>),
    I64(PrimitiveArray<Int64Type>),
    U64(PrimitiveArray<UInt64Type>),
    F32(PrimitiveArray<Float32Type>),
    F64(PrimitiveArray<Float64Type>),
    Decimals(Decimal128Array, i8),
    Texts(GenericStringArray<i32>),
    Views(StringViewArray),
    Times(PrimitiveArray<TimestampMicrosecondType>, bool),
    Days(PrimitiveArray<Date32Type>),
    /// As Arrow shows it.
    Shown(ArrayRef),
    /// What `arrow-pg` writes.
    Other(ArrayRef),
}

impl Typed {
    fn is_null(&self, row: usize) -> bool {
        let array: &dyn Array = match self {
            Typed::Truths(array) => array,
            Typed::I16(array) => array,
            Typed::I32(array) => array,
            Typed::I64(array) => array,
            Typed::U64(array) => array,
            Typed::F32(array) => array,
            Typed::F64(array) => array,
            Typed::Decimals(array, _) => array,
            Typed::Texts(array) => array,
            Typed::Views(array) => array,
            Typed::Times(array, _) => array,
            Typed::Days(array) => array,
            // Which has nothing that says so row by row.
            Typed::Shown(array) if *array.data_type() == DataType::Null => return true,
            Typed::Shown(array) | Typed::Other(array) => array,
        };
        array.is_null(row)
    }
}

impl<'a> Values<'a> {
    fn new(column: &'a Column, array: &ArrayRef) -> Result<Self, Unsendable> {
        let wrong = |error: ArrowError| column.wrong(&error);
        let announced = column.field.data_type();
        let array = match array.data_type() == announced || *announced == DataType::Null {
            true => Arc::clone(array),
            false => cast(array, announced).map_err(wrong)?,
        };
        let metadata = column.field.metadata();
        let is_catalogs = metadata.contains_key(PG_OID_ALIAS_KEY) || metadata.contains_key(PG_CHAR_KEY);
        let array = match announced {
            // Announced as text when its type was not known.
            DataType::Null if *array.data_type() != DataType::Null => {
                Typed::Texts(cast(&array, &DataType::Utf8).map_err(wrong)?.as_string().clone())
            }
            _ if is_catalogs => Typed::Other(array),
            DataType::Boolean => Typed::Truths(array.as_boolean().clone()),
            DataType::Int8 | DataType::UInt8 => {
                Typed::I16(cast(&array, &DataType::Int16).map_err(wrong)?.as_primitive().clone())
            }
            DataType::UInt16 => Typed::I32(cast(&array, &DataType::Int32).map_err(wrong)?.as_primitive().clone()),
            DataType::UInt32 => Typed::I64(cast(&array, &DataType::Int64).map_err(wrong)?.as_primitive().clone()),
            DataType::Int16 => Typed::I16(array.as_primitive().clone()),
            DataType::Int32 => Typed::I32(array.as_primitive().clone()),
            DataType::Int64 => Typed::I64(array.as_primitive().clone()),
            DataType::UInt64 => Typed::U64(array.as_primitive().clone()),
            DataType::Float32 => Typed::F32(array.as_primitive().clone()),
            DataType::Float64 => Typed::F64(array.as_primitive().clone()),
            DataType::Decimal128(_, scale) => Typed::Decimals(array.as_primitive::<Decimal128Type>().clone(), *scale),
            DataType::Utf8 => Typed::Texts(array.as_string().clone()),
            DataType::Utf8View => Typed::Views(array.as_string_view().clone()),
            DataType::Timestamp(unit, zone) => {
                let us = match unit {
                    TimeUnit::Microsecond => array,
                    // Floored, before 1970 too: a cast rounds towards it.
                    TimeUnit::Nanosecond => {
                        let ns = cast(&array, &DataType::Int64).map_err(wrong)?;
                        let us = ns.as_primitive::<Int64Type>().unary::<_, Int64Type>(|ns| ns.div_euclid(1_000));
                        cast(&us, &DataType::Timestamp(TimeUnit::Microsecond, None)).map_err(wrong)?
                    }
                    TimeUnit::Second | TimeUnit::Millisecond => {
                        cast(&array, &DataType::Timestamp(TimeUnit::Microsecond, zone.clone())).map_err(wrong)?
                    }
                };
                Typed::Times(us.as_primitive().clone(), zone.is_some())
            }
            DataType::Date32 => Typed::Days(array.as_primitive().clone()),
            _ if column.sent_as == Type::TEXT && !matches!(announced, DataType::LargeUtf8) => Typed::Shown(array),
            DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal256(..) => Typed::Shown(array),
            _ => Typed::Other(array),
        };
        Ok(Values { column, array })
    }

    /// Writes the value of a row, its length before it.
    ///
    /// # Errors
    /// If PostgreSQL has no such value.
    pub fn write(&self, row: usize, out: &mut BytesMut) -> Result<(), Unsendable> {
        if self.array.is_null(row) {
            out.put_i32(-1);
            return Ok(());
        }
        if let Typed::Other(array) = &self.array {
            let mut encoder = DataRowEncoder::new(Arc::clone(&self.column.info));
            encode_value(&mut encoder, array, row, &self.column.field, &self.column.info[0])
                .map_err(|error| self.column.wrong(&error))?;
            out.extend_from_slice(&encoder.take_row().data);
            return Ok(());
        }
        let start = out.len();
        out.put_i32(0);
        match self.column.binary {
            true => self.write_binary(row, out)?,
            false => self.write_text(row, out)?,
        }
        let length = (out.len() - start - 4) as u32;
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }

    /// Writes the value of a row as text, without its length; false if it is null.
    ///
    /// # Errors
    /// As [`Values::write`].
    pub fn write_plain(&self, row: usize, out: &mut BytesMut) -> Result<bool, Unsendable> {
        if self.array.is_null(row) {
            return Ok(false);
        }
        match &self.array {
            Typed::Other(_) => {
                let mut framed = BytesMut::new();
                self.write(row, &mut framed)?;
                out.extend_from_slice(&framed[4..]);
            }
            _ => self.write_text(row, out)?,
        }
        Ok(true)
    }

    fn write_text(&self, row: usize, out: &mut BytesMut) -> Result<(), Unsendable> {
        let written = match &self.array {
            Typed::Truths(array) => out.write_str(if array.value(row) { "t" } else { "f" }),
            Typed::I16(array) => write!(out, "{}", array.value(row)),
            Typed::I32(array) => write!(out, "{}", array.value(row)),
            Typed::I64(array) => write!(out, "{}", array.value(row)),
            Typed::U64(array) => write!(out, "{}", array.value(row)),
            Typed::F32(array) => {
                let value = array.value(row);
                write_float(f64::from(value), &format!("{value:e}"), 6, out)
            }
            Typed::F64(array) => {
                let value = array.value(row);
                write_float(value, &format!("{value:e}"), 15, out)
            }
            Typed::Decimals(array, _) => out.write_str(&array.value_as_string(row)),
            Typed::Texts(array) => out.write_str(sendable(array.value(row)).as_ref()),
            Typed::Views(array) => out.write_str(sendable(array.value(row)).as_ref()),
            Typed::Times(array, has_zone) => {
                let text = time_text::iso(array.value(row)).replacen('T', " ", 1);
                out.write_str(&era(&text, if *has_zone { "+00" } else { "" }))
            }
            Typed::Days(array) => out.write_str(&era(&time_text::iso_day(i64::from(array.value(row))), "")),
            Typed::Shown(array) => {
                let options = FormatOptions::default();
                let formatter =
                    ArrayFormatter::try_new(array.as_ref(), &options).map_err(|error| self.column.wrong(&error))?;
                out.write_str(sendable(&formatter.value(row).to_string()).as_ref())
            }
            Typed::Other(_) => unreachable!("written by arrow-pg"),
        };
        written.map_err(|error| self.column.wrong(&error))
    }

    fn write_binary(&self, row: usize, out: &mut BytesMut) -> Result<(), Unsendable> {
        let out_of_range = || self.column.wrong(&"a time that PostgreSQL cannot show");
        match &self.array {
            Typed::Truths(array) => out.put_u8(u8::from(array.value(row))),
            Typed::I16(array) => out.put_i16(array.value(row)),
            Typed::I32(array) => out.put_i32(array.value(row)),
            Typed::I64(array) => out.put_i64(array.value(row)),
            Typed::F32(array) => out.put_f32(array.value(row)),
            Typed::F64(array) => out.put_f64(array.value(row)),
            Typed::U64(array) => write_numeric(i128::from(array.value(row)), 0, out),
            Typed::Decimals(array, scale) => match u8::try_from(*scale) {
                Ok(scale) => write_numeric(array.value(row), scale, out),
                // A negative scale: whole tens.
                Err(_) => {
                    let ten_to = 10_i128.checked_pow(u32::from(scale.unsigned_abs()));
                    let whole = ten_to.and_then(|factor| array.value(row).checked_mul(factor));
                    write_numeric(whole.ok_or_else(|| self.column.wrong(&"a decimal too large"))?, 0, out);
                }
            },
            Typed::Times(array, _) => {
                out.put_i64(array.value(row).checked_sub(EPOCH_US).ok_or_else(out_of_range)?);
            }
            Typed::Days(array) => out.put_i32(array.value(row).checked_sub(EPOCH_DAYS).ok_or_else(out_of_range)?),
            Typed::Shown(array) if self.column.sent_as == Type::NUMERIC => {
                let options = FormatOptions::default();
                let text = ArrayFormatter::try_new(array.as_ref(), &options).map(|it| it.value(row).to_string());
                let text = text.map_err(|error| self.column.wrong(&error))?;
                let (units, scale) = digits(&text).ok_or_else(|| self.column.wrong(&"a decimal too large"))?;
                write_numeric(units, scale, out);
            }
            // The bytes of a text are the same in both.
            Typed::Texts(_) | Typed::Views(_) | Typed::Shown(_) => return self.write_text(row, out),
            Typed::Other(_) => unreachable!("written by arrow-pg"),
        }
        Ok(())
    }
}

impl Column {
    fn wrong(&self, reason: &dyn std::fmt::Display) -> Unsendable {
        Unsendable { column: self.field.name().clone(), reason: reason.to_string() }
    }
}

/// PostgreSQL's texts have no zero byte; it becomes the sign for what cannot be shown.
fn sendable(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}

/// A time with its zone, and with BC for years before 1.
fn era(text: &str, zone: &str) -> String {
    // Years 0 and below.
    let before = text.starts_with('-') || text.starts_with("0000-");
    if !before {
        return format!("{text}{zone}");
    }
    let from = usize::from(text.starts_with('-'));
    let (year, rest) = text[from..].split_once('-').unwrap_or((&text[from..], ""));
    let year = year.parse::<i64>().unwrap_or_default() + 1;
    format!("{year:04}-{rest}{zone} BC")
}

/// A float by its shortest digits; with an exponent from `digits` digits on, and below 0.0001.
fn write_float(value: f64, shortest: &str, digits: i32, out: &mut BytesMut) -> std::fmt::Result {
    if value.is_nan() {
        return out.write_str("NaN");
    }
    if value.is_infinite() {
        return out.write_str(if value > 0.0 { "Infinity" } else { "-Infinity" });
    }
    let (mantissa, exponent) = shortest.split_once('e').unwrap_or((shortest, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if exponent >= digits || exponent < -4 {
        let sign = if exponent < 0 { '-' } else { '+' };
        return write!(out, "{mantissa}e{sign}{:02}", exponent.abs());
    }
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let all: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    out.write_str(sign)?;
    if exponent < 0 {
        let zeros = exponent.unsigned_abs() as usize - 1;
        return write!(out, "0.{}{all}", "0".repeat(zeros));
    }
    let whole = exponent as usize + 1;
    match all.len() {
        length if length <= whole => write!(out, "{all}{}", "0".repeat(whole - length)),
        _ => write!(out, "{}.{}", &all[..whole], &all[whole..]),
    }
}

/// Units and scale of a decimal's text.
fn digits(text: &str) -> Option<(i128, u8)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    Some((format!("{whole}{fraction}").parse().ok()?, u8::try_from(fraction.len()).ok()?))
}

/// The binary form of `numeric`: a header, and digits to the base of 10 000.
pub fn write_numeric(units: i128, scale: u8, out: &mut BytesMut) {
    const GROUP: usize = 4;
    let text = units.unsigned_abs().to_string();
    let scale = usize::from(scale);
    let padded = format!("{text:0>width$}", width = scale + 1);
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    let whole = format!("{whole:0>width$}", width = whole.len().next_multiple_of(GROUP));
    let fraction = format!("{fraction:0<width$}", width = fraction.len().next_multiple_of(GROUP));
    let mut groups: Vec<i16> = [whole.as_bytes(), fraction.as_bytes()]
        .concat()
        .chunks(GROUP)
        .map(|group| group.iter().fold(0, |value, digit| value * 10 + i16::from(digit - b'0')))
        .collect();
    let mut weight = (whole.len() / GROUP) as i16 - 1;
    let leading = groups.iter().take_while(|group| **group == 0).count();
    groups.drain(..leading);
    weight -= leading as i16;
    while groups.last() == Some(&0) {
        groups.pop();
    }
    if groups.is_empty() {
        weight = 0;
    }
    out.put_u16(groups.len() as u16);
    out.put_i16(weight);
    out.put_u16(if units < 0 { 0x4000 } else { 0 });
    out.put_u16(scale as u16);
    groups.into_iter().for_each(|group| out.put_i16(group));
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float32Array, Float64Array, Int8Array, StringArray, TimestampMicrosecondArray};
    use arrow::datatypes::Schema;
    use pgwire::types::FromSqlText as _;

    use super::*;

    fn sent(array: ArrayRef, binary: bool) -> Vec<Option<Vec<u8>>> {
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("c", array.data_type().clone(), true)]));
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![array]).unwrap();
        let encoder = Encoder::new(&schema, |_| binary);
        let values = encoder.values(&batch).unwrap();
        (0..batch.num_rows())
            .map(|row| {
                let mut out = BytesMut::new();
                values[0].write(row, &mut out).unwrap();
                let length = i32::from_be_bytes(out[..4].try_into().unwrap());
                (length >= 0).then(|| {
                    assert_eq!(length as usize, out.len() - 4);
                    out[4..].to_vec()
                })
            })
            .collect()
    }

    fn texts(array: ArrayRef) -> Vec<String> {
        let shown = |value: Option<Vec<u8>>| value.map_or("null".to_owned(), |text| String::from_utf8(text).unwrap());
        sent(array, false).into_iter().map(shown).collect()
    }

    #[test]
    fn texts_are_as_postgresql_writes_them() {
        let floats = [0.0, -0.0, 1.5, 100.0, 1e14, 1e15, 1.25e-4, 1.25e-5, f64::NAN, f64::NEG_INFINITY, 0.1 + 0.2];
        let expected = "0 -0 1.5 100 100000000000000 1e+15 0.000125 1.25e-05 NaN -Infinity 0.30000000000000004";
        assert_eq!(texts(Arc::new(Float64Array::from(floats.to_vec()))).join(" "), expected);
        let floats = Float32Array::from(vec![0.1, 123_456.0, 1e6]);
        assert_eq!(texts(Arc::new(floats)), ["0.1", "123456", "1e+06"]);
        let times = TimestampMicrosecondArray::from(vec![
            Some(0),
            None,
            Some(1_780_272_000_123_400),
            Some(-62_135_596_800_000_001),
        ]);
        assert_eq!(
            texts(Arc::new(times.clone().with_timezone("UTC"))),
            ["1970-01-01 00:00:00+00", "null", "2026-06-01 00:00:00.1234+00", "0001-12-31 23:59:59.999999+00 BC"]
        );
        assert_eq!(texts(Arc::new(times))[0], "1970-01-01 00:00:00");
        assert_eq!(texts(Arc::new(BooleanArray::from(vec![true, false]))), ["t", "f"]);
        assert_eq!(texts(Arc::new(Int8Array::from(vec![-1]))), ["-1"]);
        assert_eq!(texts(Arc::new(StringArray::from(vec!["ü", "a\0b"]))), ["ü", "a\u{fffd}b"]);
        let decimals = Decimal128Array::from(vec![-1_050, 5, 0]).with_precision_and_scale(38, 2).unwrap();
        assert_eq!(texts(Arc::new(decimals)), ["-10.50", "0.05", "0.00"]);
    }

    #[test]
    fn binary_decimals_are_digits_to_the_base_of_ten_thousand() {
        let decimals =
            |scale| Decimal128Array::from(vec![-12_345_678, 0, 1]).with_precision_and_scale(38, scale).unwrap();
        let groups = |bytes: Vec<u8>| {
            bytes.chunks(2).map(|pair| i16::from_be_bytes(pair.try_into().unwrap())).collect::<Vec<_>>()
        };
        let sent = |scale| {
            sent(Arc::new(decimals(scale)), true).into_iter().map(|bytes| groups(bytes.unwrap())).collect::<Vec<_>>()
        };
        assert_eq!(sent(2), [vec![3, 1, 0x4000, 2, 12, 3456, 7800], vec![0, 0, 0, 2], vec![1, -1, 0, 2, 100]]);
        assert_eq!(sent(0), [vec![2, 1, 0x4000, 0, 1234, 5678], vec![0, 0, 0, 0], vec![1, 0, 0, 0, 1]]);
        assert_eq!(sent(9)[2], [1, -3, 0, 9, 1000]);
    }

    #[test]
    fn a_list_is_what_the_librarys_reader_takes_for_it() {
        let list = arrow::array::ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None])]);
        let list: ArrayRef = Arc::new(list);
        let text = sent(Arc::clone(&list), false).remove(0).unwrap();
        let options = pgwire::types::format::FormatOptions::default();
        let read = Vec::<Option<i64>>::from_sql_text(&Type::INT8_ARRAY, &text, &options).unwrap();
        assert_eq!(read, [Some(1), None]);
        assert_eq!(sent(list, true)[0].as_ref().unwrap()[..4], 1_u32.to_be_bytes());
    }
}
