//! Rows of a query as readings of one table.
//!
//! Owns:     which value of Arrow's becomes which value of a column, times, and the size of one portion.
//! Does not: put numbers into the types of columns where both are numbers (`storage` does, exactly or not at all), or send
//!           anything.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DataType, Decimal128Type, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType, TimestampNanosecondType,
    UInt64Type,
};
use arrow::error::ArrowError;
use model::{BatchBuilder, FieldType, SeriesKey, TableBatch, TableName, Value, us_by_magnitude};
use storage::{Column, ColumnKind};

use super::insert::wrong_number;
use crate::error::{QueryError, tidy};
use crate::names;

/// Rows of one portion; a statement waits for each to be durable.
const ROWS_MAX: usize = 65_536;

/// Bytes of texts in one portion, at about which it is full too.
const TEXT_BYTES_MAX: usize = 8 << 20;

/// Below it a double has each whole number, and none that another one was rounded to.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// Rows on their way into readings.
pub(super) struct Readings {
    table: TableName,
    columns: Vec<Column>,
    /// The time of rows that have none, the next one's: each its own, so that no two are one reading.
    now_us: i64,
    batch: Option<BatchBuilder>,
    text_bytes: usize,
    /// Rows so far, in all portions.
    rows: u32,
}

/// A column's values, in one of the types that values of readings have.
enum Values {
    None,
    Whole(ArrayRef),
    Unsigned(ArrayRef),
    Float(ArrayRef),
    Truth(ArrayRef),
    Decimal(ArrayRef, u8),
    Text(ArrayRef),
    Time(ArrayRef),
}

impl Readings {
    /// For rows with a value for each of `columns`, in their order.
    pub(super) fn new(table: TableName, columns: Vec<Column>, now_us: i64) -> Readings {
        Readings { table, columns, now_us, batch: None, text_bytes: 0, rows: 0 }
    }

    /// Adds the rows of `batch`; gives the portions that are full.
    ///
    /// # Errors
    /// [`QueryError::Plan`] for a value that its column cannot hold; names the column, and the row if it is one row's.
    pub(super) fn add(&mut self, batch: &RecordBatch) -> Result<Vec<TableBatch>, QueryError> {
        if batch.num_columns() != self.columns.len() {
            return Err(wrong_number("each row", batch.num_columns(), &self.columns));
        }
        let values: Vec<Values> = self
            .columns
            .iter()
            .zip(batch.columns())
            .map(|(column, array)| values(column, array))
            .collect::<Result<_, _>>()?;
        let mut full = Vec::new();
        for row in 0..batch.num_rows() {
            self.add_row(&values, row)?;
            let is_full = self.batch.as_ref().is_some_and(|batch| batch.len() >= ROWS_MAX);
            if is_full || self.text_bytes >= TEXT_BYTES_MAX {
                full.extend(self.take());
            }
        }
        Ok(full)
    }

    fn add_row(&mut self, values: &[Values], row: usize) -> Result<(), QueryError> {
        let number =
            self.rows.checked_add(1).ok_or_else(|| QueryError::Plan("the statement has too many rows".into()))?;
        let mut tags: Vec<(&str, &str)> = Vec::new();
        let mut time_us = None;
        for (column, values) in self.columns.iter().zip(values) {
            match (column.kind, values) {
                (ColumnKind::Tag, Values::Text(array)) if array.is_valid(row) => {
                    tags.push((&column.name, array.as_string_view().value(row)));
                }
                (ColumnKind::Time, values) => {
                    let time = values.time(row).ok_or_else(|| {
                        QueryError::Plan(format!("row {number} has no time; leave the column out for the server's"))
                    })?;
                    time_us = Some(time);
                }
                (ColumnKind::Tag | ColumnKind::Field(_), _) => {}
            }
        }
        // Empty ones are as if they were not there, as everywhere.
        let control = tags.iter().find(|(_, value)| value.chars().any(char::is_control));
        if let Some((tag, _)) = control {
            let tag = names::quoted(tag);
            return Err(QueryError::Plan(format!("row {number}: tag {tag} has a control character in its value")));
        }
        let time_us = time_us.unwrap_or(self.now_us);
        self.now_us += 1;
        let batch = self.batch.get_or_insert_with(|| BatchBuilder::new(self.table.clone()));
        let series = batch.intern_series(SeriesKey::from_tags(tags));
        batch.start_row(series, time_us, number);
        for (column, values) in self.columns.iter().zip(values) {
            let ColumnKind::Field(field_type) = column.kind else { continue };
            let value = values.value(row, field_type).map_err(|what| {
                QueryError::Plan(format!("row {number}: column {}: {what}", names::quoted(&column.name)))
            })?;
            let Some(value) = value else { continue };
            if let Value::Text(text) = value {
                self.text_bytes += text.len();
            }
            let place = batch.field_column(&column.name, value.field_type());
            batch.set(place, value);
        }
        self.rows = number;
        Ok(())
    }

    /// What is left, if anything.
    pub(super) fn take(&mut self) -> Option<TableBatch> {
        self.text_bytes = 0;
        self.batch.take().map(BatchBuilder::finish)
    }
}

fn values(column: &Column, array: &ArrayRef) -> Result<Values, QueryError> {
    let wrong = |what: &str| QueryError::Plan(format!("column {}: {what}", names::quoted(&column.name)));
    let failed = |error: ArrowError| wrong(&tidy(&error.to_string()));
    let cast = |to: &DataType| exactly(array, to).map_err(failed);
    let is_text = matches!(array.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    Ok(match (column.kind, array.data_type()) {
        (_, DataType::Null) => Values::None,
        (_, DataType::Dictionary(_, values_type)) => return values(column, &cast(values_type)?),
        (ColumnKind::Time, DataType::Timestamp(TimeUnit::Nanosecond, _)) => {
            // As everywhere: floored, before 1970 too.
            let times = array.as_primitive::<TimestampNanosecondType>();
            Values::Time(Arc::new(times.unary::<_, TimestampMicrosecondType>(|ns| ns.div_euclid(1_000))))
        }
        (ColumnKind::Time, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64) => {
            Values::Time(cast(&DataType::Timestamp(TimeUnit::Microsecond, None))?)
        }
        (ColumnKind::Time, _) if is_text => Values::Time(cast(&column.data_type())?),
        (ColumnKind::Time, other) if other.is_integer() => {
            let times = cast(&DataType::Int64)?;
            let times = times.as_primitive::<Int64Type>();
            let us = times.try_unary::<_, TimestampMicrosecondType, _>(|time| {
                us_by_magnitude(time)
                    .ok_or_else(|| ArrowError::ComputeError(format!("the time {time} is out of range")))
            });
            Values::Time(Arc::new(us.map_err(failed)?))
        }
        (ColumnKind::Time, other) => return Err(wrong(&format!("a value of type {other} is no time"))),
        (ColumnKind::Tag | ColumnKind::Field(FieldType::Text), _) => Values::Text(cast(&DataType::Utf8View)?),
        (ColumnKind::Field(_), _) if is_text => number_or_truth(&cast(&column.data_type())?)?,
        (ColumnKind::Field(_), _) => number_or_truth(array)
            .map_err(|_| wrong(&format!("a value of type {} is neither number nor boolean", array.data_type())))?,
    })
}

/// The values in another type, or an error for the first that is none there.
fn exactly(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    cast_with_options(array, to, &CastOptions { safe: false, ..CastOptions::default() })
}

fn number_or_truth(array: &ArrayRef) -> Result<Values, QueryError> {
    let failed = |error: ArrowError| QueryError::Plan(tidy(&error.to_string()));
    let cast = |to: &DataType| exactly(array, to).map_err(failed);
    Ok(match array.data_type() {
        DataType::Boolean => Values::Truth(Arc::clone(array)),
        DataType::UInt64 => Values::Unsigned(Arc::clone(array)),
        integer if integer.is_integer() => Values::Whole(cast(&DataType::Int64)?),
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale)
        | DataType::Decimal256(_, scale) => match u8::try_from(*scale) {
            Ok(places) if places <= model::decimal::SCALE_MAX => {
                Values::Decimal(cast(&DataType::Decimal128(38, *scale))?, places)
            }
            _ => Values::Float(cast(&DataType::Float64)?),
        },
        float if float.is_floating() => Values::Float(cast(&DataType::Float64)?),
        other => return Err(QueryError::Plan(other.to_string())),
    })
}

impl Values {
    /// Microseconds of a time that is there.
    fn time(&self, row: usize) -> Option<i64> {
        match self {
            Values::Time(array) if array.is_valid(row) => {
                Some(array.as_primitive::<TimestampMicrosecondType>().value(row))
            }
            _ => None,
        }
    }

    /// The value of a row, if it has one, for a column of that type.
    fn value(&self, row: usize, for_type: FieldType) -> Result<Option<Value<'_>>, String> {
        let array = match self {
            Values::None => return Ok(None),
            Values::Whole(array) | Values::Unsigned(array) | Values::Float(array) | Values::Truth(array) => array,
            Values::Decimal(array, _) | Values::Text(array) | Values::Time(array) => array,
        };
        if array.is_null(row) {
            return Ok(None);
        }
        Ok(Some(match self {
            Values::Whole(array) => Value::I64(array.as_primitive::<Int64Type>().value(row)),
            Values::Unsigned(array) => Value::U64(array.as_primitive::<UInt64Type>().value(row)),
            Values::Float(array) => float(array.as_primitive::<Float64Type>().value(row), for_type)?,
            Values::Truth(array) => Value::Bool(array.as_boolean().value(row)),
            Values::Decimal(array, scale) => decimal(array.as_primitive::<Decimal128Type>().value(row), *scale)?,
            Values::Text(array) => Value::Text(array.as_string_view().value(row)),
            Values::None | Values::Time(_) => return Err("a time is no value of a field".into()),
        }))
    }
}

fn float(value: f64, for_type: FieldType) -> Result<Value<'static>, String> {
    match for_type {
        _ if !value.is_finite() => Err(format!("{value} cannot be stored; use NULL")),
        FieldType::I64 | FieldType::U64 if value.fract() == 0.0 && value.abs() < WHOLE_MAX => {
            Ok(Value::I64(value as i64))
        }
        FieldType::I64 | FieldType::U64 => Err(format!("{value} is not a whole number")),
        _ => Ok(Value::F64(value)),
    }
}

fn decimal(units: i128, scale: u8) -> Result<Value<'static>, String> {
    let too_long = || format!("a decimal has more than {} digits", model::decimal::DIGITS_MAX);
    match (scale, i64::try_from(units), u64::try_from(units)) {
        (0, Ok(whole), _) => Ok(Value::I64(whole)),
        (0, _, Ok(whole)) => Ok(Value::U64(whole)),
        (_, Ok(units), _) => {
            let units = model::decimal::checked(units).ok_or_else(too_long)?;
            Ok(Value::Decimal { units, scale })
        }
        _ => Err(too_long()),
    }
}
