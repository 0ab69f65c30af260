//! Arrow's columns as values of readings.
//!
//! Owns:     which Arrow type becomes which kind of column, structs as columns by path, and times.
//! Does not: decode Parquet or Arrow's streams, or know tables.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StructArray};
use arrow::compute::{cast, is_null, kernels::nullif::nullif};
use arrow::datatypes::{DataType, Decimal128Type, Field, Fields, Float64Type, Int64Type, TimeUnit, UInt64Type};

use crate::http::cells::{Cells, Times};
use crate::transfer::columns::Kind;
use crate::transfer::record::Cell;
use decode::time::TimeFormat;

/// A column's values of one batch, ready to be taken.
pub(crate) enum Values {
    Whole(ArrayRef),
    Unsigned(ArrayRef),
    Float(ArrayRef),
    Truth(ArrayRef),
    Decimal(ArrayRef, u8),
    Text(ArrayRef),
    /// Shown as in JSON or CSV.
    Shown(Cells),
    /// Nanoseconds floored to microseconds already.
    Time(ArrayRef),
    /// Numbers of values: few bytes may name a long one again and again, so they are not put in its place.
    Named {
        keys: ArrayRef,
        values: Box<Values>,
    },
}

/// The columns of a file that are no structs, by path.
pub(crate) fn leaves_of(fields: &Fields, path: &str, leaves: &mut Vec<(String, DataType)>) {
    for field in fields {
        let path = join(path, field);
        match field.data_type() {
            DataType::Struct(fields) => leaves_of(fields, &path, leaves),
            other => leaves.push((path, other.clone())),
        }
    }
}

fn join(path: &str, field: &Field) -> String {
    if path.is_empty() { field.name().clone() } else { format!("{path}.{}", field.name()) }
}

/// As [`leaves_of`], with the values; what is in a struct that is null is null.
pub(crate) fn arrays_of(
    fields: &Fields,
    arrays: &[ArrayRef],
    path: &str,
    leaves: &mut Vec<(String, ArrayRef)>,
) -> Result<(), arrow::error::ArrowError> {
    for (field, array) in fields.iter().zip(arrays) {
        let path = join(path, field);
        match field.data_type() {
            DataType::Struct(fields) => {
                let array: &StructArray = array.as_struct();
                let absent = is_null(array)?;
                let inner: Vec<ArrayRef> = match array.null_count() {
                    0 => array.columns().to_vec(),
                    _ => array.columns().iter().map(|inner| nullif(inner, &absent)).collect::<Result<_, _>>()?,
                };
                arrays_of(fields, &inner, &path, leaves)?;
            }
            _ => leaves.push((path, Arc::clone(array))),
        }
    }
    Ok(())
}

/// What a column of this type is; `None` for one that has no values.
pub(crate) fn kind_of(data_type: &DataType) -> Result<Option<Kind>, String> {
    Ok(Some(match data_type {
        DataType::Null => return Ok(None),
        DataType::Boolean => Kind::Bool,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => Kind::I64,
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => Kind::I64,
        DataType::UInt64 => Kind::U64,
        DataType::Float16 | DataType::Float32 | DataType::Float64 => Kind::F64,
        DataType::Decimal32(digits, scale)
        | DataType::Decimal64(digits, scale)
        | DataType::Decimal128(digits, scale)
        | DataType::Decimal256(digits, scale) => match u8::try_from(*scale) {
            Ok(0) if *digits > model::decimal::DIGITS_MAX => Kind::U64,
            Ok(scale) if scale <= model::decimal::SCALE_MAX => {
                Kind::Decimal { digits: (*digits).min(model::decimal::DIGITS_MAX), scale }
            }
            _ => return Err(format!("a decimal with {scale} digits behind the point cannot be stored")),
        },
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            return Err(format!("{data_type} cannot be stored; leave it out of the file, or write it as text"));
        }
        DataType::Dictionary(_, values) => return kind_of(values),
        _ => Kind::Text,
    }))
}

impl Values {
    /// Of a column.
    ///
    /// # Errors
    /// If its values cannot be converted.
    pub(crate) fn new(array: &ArrayRef) -> Result<Values, arrow::error::ArrowError> {
        Ok(match array.data_type() {
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
                Values::Whole(cast(array, &DataType::Int64)?)
            }
            DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => Values::Whole(cast(array, &DataType::Int64)?),
            DataType::UInt64 => Values::Unsigned(Arc::clone(array)),
            DataType::Float16 | DataType::Float32 | DataType::Float64 => {
                Values::Float(cast(array, &DataType::Float64)?)
            }
            DataType::Boolean => Values::Truth(Arc::clone(array)),
            DataType::Decimal32(_, scale)
            | DataType::Decimal64(_, scale)
            | DataType::Decimal128(_, scale)
            | DataType::Decimal256(_, scale) => {
                // A value that does not fit 38 digits becomes null under a safe cast: ask for the error.
                let options = arrow::compute::CastOptions { safe: false, ..Default::default() };
                let wide = arrow::compute::cast_with_options(array, &DataType::Decimal128(38, *scale), &options)?;
                Values::Decimal(wide, scale.unsigned_abs())
            }
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                Values::Text(cast(array, &DataType::Utf8View)?)
            }
            DataType::Dictionary(..) => return Values::named(array, Values::new),
            _ => Values::Shown(Cells::new(array)?),
        })
    }

    /// Of the column that is the time: dates are their midnight.
    ///
    /// # Errors
    /// If its values cannot be converted.
    pub(crate) fn of_time(array: &ArrayRef) -> Result<Values, arrow::error::ArrowError> {
        Ok(match array.data_type() {
            DataType::Timestamp(unit, _) => {
                let raw = cast(array, &DataType::Int64)?;
                let raw = raw.as_primitive::<Int64Type>();
                let us = match unit {
                    TimeUnit::Second => raw.try_unary::<_, Int64Type, _>(|s| scaled(s, 1_000_000))?,
                    TimeUnit::Millisecond => raw.try_unary::<_, Int64Type, _>(|ms| scaled(ms, 1_000))?,
                    TimeUnit::Microsecond => raw.clone(),
                    TimeUnit::Nanosecond => raw.unary(|ns| ns.div_euclid(1_000)),
                };
                Values::Time(Arc::new(us))
            }
            DataType::Date32 => {
                let days = cast(&cast(array, &DataType::Int32)?, &DataType::Int64)?;
                Values::Time(Arc::new(
                    days.as_primitive::<Int64Type>().try_unary::<_, Int64Type, _>(|d| scaled(d, 86_400_000_000))?,
                ))
            }
            DataType::Date64 => {
                let ms = cast(array, &DataType::Int64)?;
                Values::Time(Arc::new(
                    ms.as_primitive::<Int64Type>().try_unary::<_, Int64Type, _>(|ms| scaled(ms, 1_000))?,
                ))
            }
            DataType::Dictionary(..) => return Values::named(array, Values::of_time),
            _ => return Values::new(array),
        })
    }

    fn named(
        array: &ArrayRef,
        of: fn(&ArrayRef) -> Result<Values, arrow::error::ArrowError>,
    ) -> Result<Values, arrow::error::ArrowError> {
        let dictionary = array.as_any_dictionary();
        let keys = cast(dictionary.keys(), &DataType::Int64)?;
        Ok(Values::Named { keys, values: Box::new(of(dictionary.values())?) })
    }

    /// Bytes of its texts, each as often as rows have it; 0 if it has none, or only such as have to be written first.
    pub(crate) fn text_bytes(&self) -> usize {
        let sum = |lengths: &mut dyn Iterator<Item = usize>| lengths.fold(0, usize::saturating_add);
        match self {
            Values::Text(texts) => sum(&mut texts.as_string_view().iter().flatten().map(str::len)),
            Values::Named { keys, values } => {
                let Values::Text(texts) = &**values else { return 0 };
                let texts = texts.as_string_view();
                let keys = keys.as_primitive::<Int64Type>().iter().flatten();
                let valid = keys.filter_map(|key| usize::try_from(key).ok().filter(|key| *key < texts.len()));
                sum(&mut valid.filter(|key| texts.is_valid(*key)).map(|key| texts.value(key).len()))
            }
            _ => 0,
        }
    }

    /// The value of a row, if it has one.
    pub(crate) fn cell(&self, row: usize) -> Option<Cell> {
        let array = match self {
            Values::Shown(cells) => return (!cells.is_null(row)).then(|| shown(cells, row)),
            Values::Named { keys, values } => {
                let key = keys.is_valid(row).then(|| keys.as_primitive::<Int64Type>().value(row))?;
                return values.cell(usize::try_from(key).ok()?);
            }
            Values::Whole(array) | Values::Unsigned(array) | Values::Float(array) | Values::Truth(array) => array,
            Values::Decimal(array, _) | Values::Text(array) | Values::Time(array) => array,
        };
        if array.is_null(row) {
            return None;
        }
        Some(match self {
            Values::Whole(array) => Cell::I64(array.as_primitive::<Int64Type>().value(row)),
            Values::Unsigned(array) => Cell::U64(array.as_primitive::<UInt64Type>().value(row)),
            Values::Float(array) => Cell::F64(array.as_primitive::<Float64Type>().value(row)),
            Values::Truth(array) => Cell::Bool(array.as_boolean().value(row)),
            Values::Decimal(array, scale) => {
                Cell::Decimal { units: array.as_primitive::<Decimal128Type>().value(row), scale: *scale }
            }
            Values::Text(array) => Cell::Text(array.as_string_view().value(row).to_owned()),
            Values::Time(array) => Cell::Time(array.as_primitive::<Int64Type>().value(row)),
            Values::Shown(_) | Values::Named { .. } => unreachable!("answered above"),
        })
    }
}

/// Microseconds of what stands in the column that is the time.
///
/// # Errors
/// Why it is none.
pub(crate) fn time_of(cell: Cell, format: TimeFormat) -> Result<i64, String> {
    Ok(match cell {
        Cell::Time(us) => us,
        Cell::I64(number) => format.whole(number)?,
        Cell::U64(number) => format.text(&number.to_string())?,
        Cell::F64(number) => format.text(&number.to_string())?,
        Cell::Text(text) => format.text(&text)?,
        other => return Err(format!("{other:?} is not a time")),
    })
}

fn scaled(value: i64, factor: i64) -> Result<i64, arrow::error::ArrowError> {
    let wrong = || arrow::error::ArrowError::ComputeError(format!("the time {value} is out of range"));
    value.checked_mul(factor).ok_or_else(wrong)
}

/// Lists as JSON, all else as Arrow shows it.
fn shown(cells: &Cells, row: usize) -> Cell {
    let mut json = Vec::new();
    cells.write_json(row, Times::Iso, &mut json);
    let text = String::from_utf8_lossy(&json).into_owned();
    // A value that JSON has as text, without its quotes.
    Cell::Text(serde_json::from_str::<String>(&text).unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Schema;

    use super::*;

    #[test]
    fn structs_are_columns_by_path_and_types_have_their_kinds() {
        let inner = Fields::from(vec![Field::new("l1", DataType::Float32, true)]);
        let schema = Schema::new(vec![
            Field::new(
                "motor",
                DataType::Struct(Fields::from(vec![Field::new("current", DataType::Struct(inner), true)])),
                true,
            ),
            Field::new("n", DataType::Decimal128(20, 0), true),
        ]);
        let mut leaves = Vec::new();
        leaves_of(schema.fields(), "", &mut leaves);
        assert_eq!(leaves[0], ("motor.current.l1".into(), DataType::Float32));
        assert_eq!(kind_of(&leaves[1].1), Ok(Some(Kind::U64)));
        assert_eq!(kind_of(&DataType::Decimal128(18, 0)), Ok(Some(Kind::Decimal { digits: 18, scale: 0 })));
        assert_eq!(kind_of(&DataType::Decimal128(38, 3)), Ok(Some(Kind::Decimal { digits: 18, scale: 3 })));
        assert!(kind_of(&DataType::Decimal128(38, 20)).is_err());
        assert!(kind_of(&DataType::Binary).is_err());
        let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        assert_eq!(kind_of(&dictionary), Ok(Some(Kind::Text)));
    }
}
