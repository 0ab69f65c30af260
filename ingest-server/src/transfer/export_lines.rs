//! Rows of a table as line protocol, times in nanoseconds as other receivers expect them.
//!
//! Invariant: a row is written whole, or left out and counted: line protocol knows no row without a field, and no time
//! beyond the years 1677 to 2262.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type};
use arrow::error::ArrowError;
use decode::line_text::{is_tag_of_lines, write_measurement, write_name};
use model::TableName;
use serde_json::Value;

use super::columns::Kind;
use super::import_lines::EXPORT_HEAD;
use super::record::{Cell, write_field};

/// Writes the rows of one table.
pub(crate) struct LineRows {
    table: TableName,
    kinds: Vec<(String, Kind)>,
    without_field: u64,
    without_time: u64,
    without_value: u64,
    odd_tags: u64,
}

impl LineRows {
    /// For a table as `/api/v1/table` describes it.
    pub(crate) fn new(table: &TableName, description: &Value) -> LineRows {
        let columns = description["columns"].as_array().cloned().unwrap_or_default();
        let kind = |column: &Value| Some((column["name"].as_str()?.to_owned(), Kind::of_description(column)?));
        let name = description["table"].as_str().unwrap_or(&table.table);
        LineRows {
            table: TableName::new(&table.schema, name),
            kinds: columns.iter().filter_map(kind).collect(),
            without_field: 0,
            without_time: 0,
            without_value: 0,
            odd_tags: 0,
        }
    }

    /// What stands before the rows: a comment, by which `eden import` knows the unit of times near 1970 too.
    pub(crate) fn head(&self) -> Vec<u8> {
        format!("{EXPORT_HEAD}precision=ns table={}\n", self.table).into_bytes()
    }

    /// What could not be written.
    pub(crate) fn left_out(&self) -> Vec<String> {
        let counts = [
            (self.without_field, "rows that have no field, which line protocol cannot say"),
            (self.without_time, "rows whose time is no 64-bit number of nanoseconds"),
            (self.without_value, "values that line protocol cannot say"),
            (
                self.odd_tags,
                "rows with tags of control characters or backslashes at the end, which it cannot say either",
            ),
        ];
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect()
    }

    pub(crate) fn write(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        let mut columns = Vec::new();
        for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
            let kind = self.kinds.iter().find(|(name, _)| name == field.name()).map(|(_, kind)| *kind);
            // A column that came after the table was described is written by the next export.
            let Some(kind) = kind else { continue };
            columns.push((field.name().clone(), kind, prepared(kind, array)?));
        }
        for row in 0..batch.num_rows() {
            self.row(&columns, row, out);
        }
        Ok(())
    }

    fn row(&mut self, columns: &[(String, Kind, ArrayRef)], row: usize, out: &mut Vec<u8>) {
        let start = out.len();
        let present = || columns.iter().filter(|(_, _, array)| array.is_valid(row));
        let tags = || present().filter(|(_, kind, _)| *kind == Kind::Tag);
        if tags().any(|(_, _, array)| !is_tag_of_lines(array.as_string_view().value(row))) {
            self.odd_tags += 1;
            return;
        }
        write_measurement(&self.table.table, out);
        for (name, _, array) in tags() {
            out.push(b',');
            write_name(name, out);
            out.push(b'=');
            write_name(array.as_string_view().value(row), out);
        }
        let mut separator = b' ';
        for (name, kind, array) in present().filter(|(_, kind, _)| !matches!(kind, Kind::Tag | Kind::Time)) {
            let before = out.len();
            out.push(separator);
            write_name(name, out);
            out.push(b'=');
            match write_field(*kind, &cell(*kind, array, row), out) {
                Ok(true) => separator = b',',
                Ok(false) | Err(_) => {
                    self.without_value += 1;
                    out.truncate(before);
                }
            }
        }
        let time = present().find(|(_, kind, _)| *kind == Kind::Time);
        let time = time.and_then(|(_, _, array)| array.as_primitive::<Int64Type>().value(row).checked_mul(1_000));
        match time {
            Some(ns) if separator == b',' => out.extend_from_slice(format!(" {ns}\n").as_bytes()),
            Some(_) => {
                self.without_field += 1;
                out.truncate(start);
            }
            None => {
                self.without_time += 1;
                out.truncate(start);
            }
        }
    }
}

fn prepared(kind: Kind, array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match kind {
        Kind::Tag | Kind::Text => cast(array, &DataType::Utf8View),
        Kind::Time => cast(array, &DataType::Int64),
        _ => Ok(std::sync::Arc::clone(array)),
    }
}

fn cell(kind: Kind, array: &ArrayRef, row: usize) -> Cell {
    match kind {
        Kind::F64 => Cell::F64(array.as_primitive::<Float64Type>().value(row)),
        Kind::I64 => Cell::I64(array.as_primitive::<Int64Type>().value(row)),
        Kind::Bool => Cell::Bool(array.as_boolean().value(row)),
        Kind::U64 => {
            let units = array.as_primitive::<Decimal128Type>().value(row);
            u64::try_from(units).map_or(Cell::Decimal { units, scale: 0 }, Cell::U64)
        }
        Kind::Decimal { scale, .. } => {
            Cell::Decimal { units: array.as_primitive::<Decimal128Type>().value(row), scale }
        }
        Kind::Tag | Kind::Time | Kind::LeftOut | Kind::Text => Cell::Text(array.as_string_view().value(row).to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Decimal128Array, Float64Array, StringArray, TimestampMicrosecondArray};

    use super::super::export::description;
    use super::*;

    #[test]
    fn rows_are_lines_and_what_no_line_can_say_is_counted() {
        let description = description(&[
            ("site", "tag", "TEXT"),
            ("v", "field", "DOUBLE"),
            ("e", "field", "DECIMAL(18,3)"),
            ("n ote", "field", "TEXT"),
            ("time", "time", "TIMESTAMP"),
        ]);
        let mut rows = LineRows::new(&TableName::new("public", "t"), &description);
        let batch = RecordBatch::try_from_iter([
            (
                "site",
                Arc::new(StringArray::from(vec![Some("a b"), None, None, Some("x"), Some("a\nb v=1")])) as ArrayRef,
            ),
            ("v", Arc::new(Float64Array::from(vec![Some(-0.0), None, Some(1.0), Some(2.0), Some(3.0)]))),
            (
                "e",
                Arc::new(
                    Decimal128Array::from(vec![Some(123_456_789_012_345_678), None, Some(1_500), None, None])
                        .with_precision_and_scale(18, 3)
                        .unwrap(),
                ),
            ),
            ("n ote", Arc::new(StringArray::from(vec![Some("l1\n\"q\"\\"), None, None, None, None]))),
            ("time", Arc::new(TimestampMicrosecondArray::from(vec![-1, 5, 7, i64::MAX, 8]))),
        ])
        .unwrap();
        let mut out = Vec::new();
        rows.write(&batch, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "t,site=a\\ b v=-0.0,e=123456789012345.678d,n\\ ote=\"l1\n\\\"q\\\"\\\\\" -1000\nt v=1.0,e=1.500 7000\n"
        );
        let left_out = rows.left_out();
        assert!(left_out[0].starts_with("1 rows that have no field") && left_out[1].starts_with("1 rows whose time"));
        assert!(left_out[2].starts_with("1 rows with tags of control characters"));
    }
}
