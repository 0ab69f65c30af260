//! Arrow's values as JSON and CSV cells, and CrateDB's numbers for their types.

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float32Array, Float64Array, Int64Array, StringArray, UInt64Array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type, TimeUnit, UInt64Type};
use arrow::error::ArrowError;
use arrow::util::display::array_value_to_string;
use model::time_text::{epoch_ms, iso, iso_day};
use serde_json::{Value, json};

/// Digits of the decimals that fields are declared as.
const DIGITS_MAX: u8 = model::decimal::DIGITS_MAX;

/// Digits that a double holds, whatever the number.
const DOUBLE_DIGITS: usize = 15;

/// How times and dates are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// Milliseconds since 1970, as CrateDB does.
    EpochMs,
    /// ISO 8601, with `Z` where the column has a zone.
    Iso,
}

/// CrateDB's number for a type.
pub fn type_id(data_type: &DataType) -> Value {
    match data_type {
        DataType::Null => json!(0),
        DataType::Boolean => json!(3),
        DataType::Float64 => json!(6),
        DataType::Float32 | DataType::Float16 => json!(7),
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => json!(8),
        DataType::Int32 | DataType::UInt16 => json!(9),
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => json!(10),
        DataType::Timestamp(_, Some(_)) => json!(11),
        DataType::Timestamp(_, None) => json!(15),
        DataType::Date32 | DataType::Date64 => json!(24),
        DataType::Struct(_) | DataType::Map(..) => json!(12),
        DataType::Interval(_) | DataType::Duration(_) => json!(17),
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            json!(22)
        }
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            json!([100, type_id(field.data_type())])
        }
        DataType::Dictionary(_, values) => type_id(values),
        // Texts, and what is shown as one.
        _ => json!(4),
    }
}

/// A column whose cells can be written. Made once a batch.
pub struct Cells {
    array: ArrayRef,
    kind: Kind,
}

enum Kind {
    Null,
    Boolean(BooleanArray),
    Integer(Int64Array),
    Unsigned(UInt64Array),
    Single(Float32Array),
    Double(Float64Array),
    Text(StringArray),
    TextView(arrow::array::StringViewArray),
    /// Microseconds, and whether the column has a zone.
    Time {
        us: Int64Array,
        zoned: bool,
    },
    /// Days.
    Day(Int64Array),
    List {
        values: Box<Cells>,
        ends: Vec<(usize, usize)>,
    },
    Object {
        names: Vec<String>,
        fields: Vec<Cells>,
    },
    /// A number; as text in JSON if its readers would round it: always if it may be a whole number of more than 18
    /// digits, so that a column of counters is of one kind.
    Decimal {
        is_text: bool,
    },
    /// Shown by Arrow, as text.
    Other,
}

impl Cells {
    /// Prepares a column.
    ///
    /// # Errors
    /// If Arrow cannot convert it.
    pub fn new(array: &ArrayRef) -> Result<Self, ArrowError> {
        let as_type = |to: &DataType| cast(array, to);
        let kind = match array.data_type() {
            DataType::Null => Kind::Null,
            DataType::Boolean => Kind::Boolean(array.as_boolean().clone()),
            DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::UInt8
            | DataType::UInt16
            | DataType::UInt32 => Kind::Integer(as_type(&DataType::Int64)?.as_primitive::<Int64Type>().clone()),
            DataType::UInt64 => Kind::Unsigned(array.as_primitive::<UInt64Type>().clone()),
            DataType::Float16 | DataType::Float32 => {
                Kind::Single(as_type(&DataType::Float32)?.as_primitive::<Float32Type>().clone())
            }
            DataType::Float64 => Kind::Double(array.as_primitive::<Float64Type>().clone()),
            DataType::Utf8 => Kind::Text(array.as_string::<i32>().clone()),
            DataType::LargeUtf8 => return Cells::new(&as_type(&DataType::Utf8View)?),
            DataType::Utf8View => Kind::TextView(array.as_string_view().clone()),
            DataType::Dictionary(_, values) => return Cells::new(&as_type(values)?),
            DataType::Timestamp(unit, zone) => {
                let raw = as_type(&DataType::Int64)?;
                let raw = raw.as_primitive::<Int64Type>();
                let us = match unit {
                    TimeUnit::Second => raw.unary(|s| s.saturating_mul(1_000_000)),
                    TimeUnit::Millisecond => raw.unary(|ms| ms.saturating_mul(1_000)),
                    TimeUnit::Microsecond => raw.clone(),
                    TimeUnit::Nanosecond => raw.unary(|ns| ns.div_euclid(1_000)),
                };
                Kind::Time { us, zoned: zone.is_some() }
            }
            DataType::Date32 | DataType::Date64 => {
                let days = cast(&cast(&as_type(&DataType::Date32)?, &DataType::Int32)?, &DataType::Int64)?;
                Kind::Day(days.as_primitive::<Int64Type>().clone())
            }
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                let ends = list.offsets().windows(2).map(|pair| (pair[0] as usize, pair[1] as usize)).collect();
                Kind::List { values: Box::new(Cells::new(list.values())?), ends }
            }
            DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
                return Cells::new(&as_type(&DataType::List(std::sync::Arc::clone(field)))?);
            }
            DataType::Struct(fields) => {
                let columns = array.as_struct().columns();
                Kind::Object {
                    names: fields.iter().map(|field| field.name().clone()).collect(),
                    fields: columns.iter().map(Cells::new).collect::<Result<_, _>>()?,
                }
            }
            DataType::Decimal32(digits, scale)
            | DataType::Decimal64(digits, scale)
            | DataType::Decimal128(digits, scale)
            | DataType::Decimal256(digits, scale) => Kind::Decimal { is_text: *scale <= 0 && *digits > DIGITS_MAX },
            _ => Kind::Other,
        };
        Ok(Cells { array: std::sync::Arc::clone(array), kind })
    }

    /// Whether `row` has no value.
    pub fn is_null(&self, row: usize) -> bool {
        matches!(self.kind, Kind::Null) || self.array.is_null(row)
    }

    /// Appends the cell of `row` as JSON. NaN and infinities are null.
    pub fn write_json(&self, row: usize, times: Times, out: &mut Vec<u8>) {
        if self.is_null(row) {
            out.extend_from_slice(b"null");
            return;
        }
        match &self.kind {
            Kind::Null => out.extend_from_slice(b"null"),
            Kind::Boolean(values) => out.extend_from_slice(if values.value(row) { b"true" } else { b"false" }),
            Kind::Integer(values) => json_value(&values.value(row), out),
            Kind::Unsigned(values) => json_value(&values.value(row), out),
            // serde_json writes numbers that are not finite as null.
            Kind::Single(values) => json_value(&values.value(row), out),
            Kind::Double(values) => json_value(&values.value(row), out),
            Kind::Text(values) => json_value(values.value(row), out),
            Kind::TextView(values) => json_value(values.value(row), out),
            Kind::Time { .. } | Kind::Day(_) if times == Times::EpochMs => {
                out.extend_from_slice(self.time_ms(row).as_bytes());
            }
            Kind::List { values, ends } => {
                out.push(b'[');
                let (start, end) = ends[row];
                for (i, item) in (start..end).enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    values.write_json(item, times, out);
                }
                out.push(b']');
            }
            Kind::Object { names, fields } => {
                out.push(b'{');
                for (i, (name, field)) in names.iter().zip(fields).enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    json_value(name.as_str(), out);
                    out.push(b':');
                    field.write_json(row, times, out);
                }
                out.push(b'}');
            }
            Kind::Decimal { is_text: false } => {
                let text = self.text(row);
                if is_exact_double(&text) { out.extend_from_slice(text.as_bytes()) } else { json_value(&text, out) }
            }
            Kind::Time { .. } | Kind::Day(_) | Kind::Decimal { is_text: true } | Kind::Other => {
                json_value(&self.text(row), out);
            }
        }
    }

    /// Appends the cell of `row` as a field of CSV: times in ISO 8601, nothing for no value.
    pub fn write_csv(&self, row: usize, out: &mut Vec<u8>) {
        if self.is_null(row) {
            return;
        }
        match &self.kind {
            Kind::Text(values) => csv_field(values.value(row), out),
            Kind::TextView(values) => csv_field(values.value(row), out),
            // With a point or an exponent, so that a reader who guesses types does not take it for a whole number.
            Kind::Single(values) => out.extend_from_slice(format!("{:?}", values.value(row)).as_bytes()),
            Kind::Double(values) => out.extend_from_slice(format!("{:?}", values.value(row)).as_bytes()),
            Kind::Time { .. } | Kind::Day(_) | Kind::Decimal { .. } | Kind::Other => csv_field(&self.text(row), out),
            Kind::List { .. } | Kind::Object { .. } => {
                let mut json = Vec::new();
                self.write_json(row, Times::Iso, &mut json);
                csv_field(&String::from_utf8_lossy(&json), out);
            }
            Kind::Null | Kind::Boolean(_) | Kind::Integer(_) | Kind::Unsigned(_) => {
                self.write_json(row, Times::Iso, out);
            }
        }
    }

    fn time_ms(&self, row: usize) -> String {
        match &self.kind {
            Kind::Time { us, .. } => epoch_ms(us.value(row)),
            Kind::Day(days) => days.value(row).saturating_mul(86_400_000).to_string(),
            _ => String::new(),
        }
    }

    fn text(&self, row: usize) -> String {
        match &self.kind {
            Kind::Time { us, zoned } => iso(us.value(row)) + if *zoned { "Z" } else { "" },
            Kind::Day(days) => iso_day(days.value(row)),
            _ => array_value_to_string(&self.array, row).unwrap_or_else(|e| e.to_string()),
        }
    }
}

/// Whether a decimal's text has so few digits that every reader of JSON has the same number.
fn is_exact_double(text: &str) -> bool {
    let digits = text.trim_start_matches(['-', '0', '.']);
    digits.bytes().filter(u8::is_ascii_digit).count() <= DOUBLE_DIGITS
}

fn json_value(value: &(impl serde::Serialize + ?Sized), out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("numbers and texts can be written to memory");
}

/// Appends `text` as a field of CSV (RFC 4180), in quotes if it needs them. An empty text is quoted, so that
/// it differs from no value.
pub fn csv_field(text: &str, out: &mut Vec<u8>) {
    if text.is_empty() || text.contains(['"', ',', '\n', '\r']) {
        out.push(b'"');
        out.extend_from_slice(text.replace('"', "\"\"").as_bytes());
        out.push(b'"');
    } else {
        out.extend_from_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        Date32Array, Decimal128Array, ListArray, StringViewArray, TimestampMicrosecondArray, TimestampNanosecondArray,
    };

    use super::*;

    fn check(array: impl Array + 'static, id: Value, crate_json: &str, csv: &str) {
        let array: ArrayRef = Arc::new(array);
        assert_eq!(type_id(array.data_type()), id);
        let cells = Cells::new(&array).unwrap();
        let (mut json, mut lines) = (Vec::new(), Vec::new());
        for row in 0..array.len() {
            cells.write_json(row, Times::EpochMs, &mut json);
            json.push(b' ');
            cells.write_csv(row, &mut lines);
            lines.push(b' ');
        }
        assert_eq!(String::from_utf8(json).unwrap().trim_end(), crate_json);
        assert_eq!(String::from_utf8(lines).unwrap(), csv);
    }

    #[test]
    fn numbers_texts_and_truth_have_their_json() {
        check(
            Int64Array::from(vec![Some(i64::MIN), None]),
            json!(10),
            "-9223372036854775808 null",
            "-9223372036854775808  ",
        );
        check(Float64Array::from(vec![21.5, f64::NAN, f64::INFINITY]), json!(6), "21.5 null null", "21.5 NaN inf ");
        check(BooleanArray::from(vec![true, false]), json!(3), "true false", "true false ");
        check(StringViewArray::from(vec!["a\"b,", ""]), json!(4), r#""a\"b," """#, "\"a\"\"b,\" \"\" ");
    }

    #[test]
    fn times_are_milliseconds_with_decimals_and_decimals_are_texts() {
        let times = TimestampMicrosecondArray::from(vec![1_780_272_000_000_123, -1]).with_timezone("UTC");
        check(times, json!(11), "1780272000000.123 -0.001", "2026-06-01T00:00:00.000123Z 1969-12-31T23:59:59.999999Z ");
        let times = TimestampNanosecondArray::from(vec![-1]);
        check(times, json!(15), "-0.001", "1969-12-31T23:59:59.999999 ");
        check(Date32Array::from(vec![20_605]), json!(24), "1780272000000", "2026-06-01 ");
        let decimals = Decimal128Array::from(vec![i128::from(u64::MAX)]).with_precision_and_scale(20, 0).unwrap();
        check(decimals, json!(22), "\"18446744073709551615\"", "18446744073709551615 ");
    }

    #[test]
    fn decimals_of_a_resolution_are_numbers_unless_they_would_be_rounded() {
        let check_as = |digits, scale, units: &[i128], json: &str, csv: &str| {
            let array = Decimal128Array::from(units.to_vec()).with_precision_and_scale(digits, scale).unwrap();
            check(array, json!(22), json, csv);
        };
        check_as(18, 1, &[215, -3, 0, 10], "21.5 -0.3 0.0 1.0", "21.5 -0.3 0.0 1.0 ");
        check_as(18, 0, &[-7], "-7", "-7 ");
        check_as(18, 2, &[999_999_999_999_999], "9999999999999.99", "9999999999999.99 ");
        check_as(18, 2, &[1_234_567_890_123_456], "\"12345678901234.56\"", "12345678901234.56 ");
        check_as(18, 6, &[1], "0.000001", "0.000001 ");
        // A mean, and a sum of counters.
        check_as(22, 5, &[2_150_000], "21.50000", "21.50000 ");
        check_as(30, 0, &[5], "\"5\"", "5 ");
    }

    #[test]
    fn lists_name_the_type_of_their_items() {
        let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None]);
        check(list, json!([100, 10]), "[1,null] null", "\"[1,null]\"  ");
    }
}
