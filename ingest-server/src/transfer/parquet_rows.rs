//! Rows of a Parquet file.
//!
//! Owns:     which columns of a file are which of the table, and the order of its rows.
//! Does not: decode Parquet, or Arrow's values (`arrow_values`).

use arrow::array::RecordBatch;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::file::reader::ChunkReader;

use super::columns::{Kind, Layout, Naming};
use super::csv_rows::check_names;
use super::import::Item;
use super::record::{Cell, Record};
use crate::arrow_values::{Values, arrays_of, kind_of, leaves_of, time_of};
use crate::failure::Failure;
use decode::time::TimeFormat;

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
        time_of(cell, self.time).map(Cell::Time)
    }
}
