//! Rows of a Parquet file.
//!
//! Owns:     which Arrow type becomes which kind of column, and structs as columns by path.
//! Does not: decode Parquet.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StructArray};
use arrow::compute::{cast, is_null, kernels::nullif::nullif};
use arrow::datatypes::{DataType, Decimal128Type, Field, Fields, Float64Type, Int64Type, TimeUnit, UInt64Type};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::file::reader::ChunkReader;

use super::columns::{Kind, Layout, Naming};
use super::csv_rows::check_names;
use super::import::Item;
use super::record::{Cell, Record};
use super::time::TimeFormat;
use crate::failure::Failure;
use crate::http::cells::{Cells, Times};

/// Rows decoded at a time.
const BATCH_ROWS: usize = 8_192;

pub(crate) struct ParquetRows {
    name: String,
    reader: ParquetRecordBatchReader,
    time: TimeFormat,
    columns: Vec<(usize, Values)>,
    at: usize,
    len: usize,
    read: u64,
    /// Rows of the file, and its bytes: for progress.
    pub(crate) rows: u64,
}

/// A column's values of one batch, ready to be taken.
enum Values {
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
}

impl ParquetRows {
    /// Reads the footer.
    ///
    /// # Errors
    /// If it is no Parquet, or its columns do not fit the table.
    pub(crate) fn open<F: ChunkReader + 'static>(
        file: F,
        name: &str,
        time: TimeFormat,
        layout: &mut Layout,
    ) -> Result<ParquetRows, Failure> {
        let wrong = |what: String| Failure::usage(format!("{name}: {what}"));
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| wrong(e.to_string()))?;
        let mut leaves = Vec::new();
        leaves_of(builder.schema().fields(), "", &mut leaves);
        let names: Vec<String> = leaves.iter().map(|(path, _)| path.clone()).collect();
        check_names(&names, layout).map_err(wrong)?;
        for (i, (path, data_type)) in leaves.iter().enumerate() {
            if names[..i].iter().any(|other| other.to_lowercase() == path.to_lowercase()) {
                return Err(wrong(format!("the column {path:?} is there twice: names do not differ by case only")));
            }
            let naming = if path.contains('.') { Naming::Path } else { Naming::Plain };
            layout.check(path, naming).map_err(wrong)?;
            let kind = kind_of(data_type).map_err(|what| wrong(format!("column {path:?}: {what}")))?;
            layout.column(path, kind);
        }
        let rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or_default();
        let reader = builder.with_batch_size(BATCH_ROWS).build().map_err(|e| wrong(e.to_string()))?;
        let name = name.to_owned();
        Ok(ParquetRows { name, reader, time, columns: Vec::new(), at: 0, len: 0, read: 0, rows })
    }

    /// The next row.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn next(&mut self, layout: &Layout) -> Result<Option<Item>, Failure> {
        while self.at == self.len {
            let Some(batch) = self.reader.next() else { return Ok(None) };
            let batch = batch.and_then(|batch| self.prepare(&batch, layout));
            self.len = batch.map_err(|e| Failure::work(format!("{}: {e}", self.name)))?;
            self.at = 0;
        }
        self.read += 1;
        let place = self.read;
        let record = self.record(place, layout);
        self.at += 1;
        Ok(Some(match record {
            Ok(record) => Item::Row(record),
            Err(reason) => Item::Refused { place, reason },
        }))
    }

    fn prepare(&mut self, batch: &RecordBatch, layout: &Layout) -> Result<usize, arrow::error::ArrowError> {
        let mut arrays = Vec::new();
        arrays_of(batch.schema().fields(), batch.columns(), "", &mut arrays)?;
        self.columns.clear();
        for (path, array) in arrays {
            let Some(column) = layout.find(&path) else { continue };
            match layout.columns[column].kind {
                Some(Kind::LeftOut) => {}
                Some(Kind::Time) => self.columns.push((column, Values::of_time(&array)?)),
                _ => self.columns.push((column, Values::new(&array)?)),
            }
        }
        Ok(batch.num_rows())
    }

    fn record(&self, place: u64, layout: &Layout) -> Result<Record, String> {
        let mut record = Record { place, cells: Vec::with_capacity(self.columns.len()) };
        for (column, values) in &self.columns {
            let Some(cell) = values.cell(self.at) else { continue };
            let cell = if layout.columns[*column].kind == Some(Kind::Time) { self.time(cell)? } else { cell };
            record.cells.push((*column, cell));
        }
        Ok(record)
    }

    fn time(&self, cell: Cell) -> Result<Cell, String> {
        Ok(Cell::Time(match cell {
            Cell::Time(us) => us,
            Cell::I64(number) => self.time.whole(number)?,
            Cell::U64(number) => self.time.text(&number.to_string())?,
            Cell::F64(number) => self.time.text(&number.to_string())?,
            Cell::Text(text) => self.time.text(&text)?,
            other => return Err(format!("{other:?} is not a time")),
        }))
    }
}

/// The columns of a file that are no structs, by path.
fn leaves_of(fields: &Fields, path: &str, leaves: &mut Vec<(String, DataType)>) {
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
fn arrays_of(
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
fn kind_of(data_type: &DataType) -> Result<Option<Kind>, String> {
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
    fn new(array: &ArrayRef) -> Result<Values, arrow::error::ArrowError> {
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
            DataType::Dictionary(_, values) => return Values::new(&cast(array, values)?),
            _ => Values::Shown(Cells::new(array)?),
        })
    }

    /// Of the column that is the time: dates are their midnight.
    fn of_time(array: &ArrayRef) -> Result<Values, arrow::error::ArrowError> {
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
            DataType::Dictionary(_, values) => return Values::of_time(&cast(array, values)?),
            _ => return Values::new(array),
        })
    }

    fn cell(&self, row: usize) -> Option<Cell> {
        let array = match self {
            Values::Shown(cells) => return (!cells.is_null(row)).then(|| shown(cells, row)),
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
            Values::Shown(cells) => shown(cells, row),
        })
    }
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
