//! Reads shards for the storage room itself: settling, rewriting, indexing. Queries read them through DataFusion.

use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, new_null_array};
use arrow::compute::concat_batches;
use arrow::datatypes::TimestampMicrosecondType;
use bytes::Bytes;
use model::SeriesKey;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReaderBuilder, RowSelection};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use wal::disk::{self, Disk, DiskFile};

use super::index::{IndexBuilder, ShardIndex};
use crate::columns::text_at;
use crate::{ColumnKind, Shard, StorageError, TableSchema};

/// A shard's bytes, read from the disk as Parquet asks for them.
#[derive(Clone, Debug)]
struct DiskChunks {
    file: Arc<dyn DiskFile>,
    len: u64,
}

impl Length for DiskChunks {
    fn len(&self) -> u64 {
        self.len
    }
}

struct DiskRead(DiskChunks, u64);

impl Read for DiskRead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.file.read_at(buffer, self.1)?;
        self.1 += read as u64;
        Ok(read)
    }
}

impl ChunkReader for DiskChunks {
    type T = DiskRead;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(DiskRead(self.clone(), start))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        if start.checked_add(length as u64).is_none_or(|end| end > self.len) {
            return Err(ParquetError::EOF(format!("bytes {start}+{length} of {}", self.len)));
        }
        let mut bytes = vec![0; length];
        disk::read_exact_at(&*self.file, &mut bytes, start)?;
        Ok(bytes.into())
    }
}

/// Opens shards below `DATA/tables`.
#[derive(Clone, Copy)]
pub(crate) struct ShardReader<'a> {
    pub(crate) disk: &'a dyn Disk,
    /// `DATA/tables`.
    pub(crate) root: &'a Path,
}

impl ShardReader<'_> {
    fn open(&self, shard: &Shard) -> Result<ParquetRecordBatchReaderBuilder<DiskChunks>, StorageError> {
        let path = self.root.join(&shard.path);
        let file = self.disk.open_read(&path).map_err(StorageError::io("open", &path))?;
        let len = file.len().map_err(StorageError::io("open", &path))?;
        let corrupt = |reason: String| StorageError::Corrupt { path: path.clone(), reason };
        if len != shard.bytes {
            return Err(corrupt(format!("it has {len} bytes; the Delta log says {}", shard.bytes)));
        }
        let builder = ParquetRecordBatchReaderBuilder::try_new(DiskChunks { file: file.into(), len })
            .map_err(|e| corrupt(e.to_string()))?;
        let rows = builder.metadata().file_metadata().num_rows();
        if u64::try_from(rows) != Ok(shard.rows) {
            return Err(corrupt(format!("it has {rows} rows; the Delta log says {}", shard.rows)));
        }
        Ok(builder)
    }

    fn corrupt(&self, shard: &Shard, reason: impl ToString) -> StorageError {
        StorageError::Corrupt { path: self.root.join(&shard.path), reason: reason.to_string() }
    }

    /// The rows at `ranges` (ascending, apart), or all of them, in the columns of `schema`, batch by batch.
    pub(crate) fn rows(
        &self,
        shard: &Shard,
        schema: &TableSchema,
        ranges: Option<&[Range<usize>]>,
    ) -> Result<Vec<RecordBatch>, StorageError> {
        let mut builder = self.open(shard)?.with_batch_size(1 << 16);
        if let Some(ranges) = ranges {
            let rows = usize::try_from(shard.rows).expect("a shard has fewer rows than memory has bytes");
            builder = builder.with_row_selection(RowSelection::from_consecutive_ranges(ranges.iter().cloned(), rows));
        }
        let reader = builder.build().map_err(|e| self.corrupt(shard, e))?;
        let mut batches = Vec::new();
        for batch in reader {
            batches.push(in_schema(&batch.map_err(|e| self.corrupt(shard, e))?, schema));
        }
        Ok(batches)
    }

    /// Hands all rows to `work` in the columns of `schema`, batch by batch, in order.
    pub(crate) fn for_each(
        &self,
        shard: &Shard,
        schema: &TableSchema,
        work: &mut dyn FnMut(RecordBatch) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let builder = self.open(shard)?.with_batch_size(1 << 16);
        for batch in builder.build().map_err(|e| self.corrupt(shard, e))? {
            work(in_schema(&batch.map_err(|e| self.corrupt(shard, e))?, schema))?;
        }
        Ok(())
    }

    /// As [`ShardReader::rows`], in one batch.
    pub(crate) fn rows_in_one(
        &self,
        shard: &Shard,
        schema: &TableSchema,
        ranges: &[Range<usize>],
    ) -> Result<RecordBatch, StorageError> {
        let batches = self.rows(shard, schema, Some(ranges))?;
        concat_batches(schema.arrow(), &batches).map_err(|e| self.corrupt(shard, e))
    }

    /// Builds the index of a shard from its tags and times.
    pub(crate) fn index(&self, shard: &Shard, schema: &TableSchema) -> Result<ShardIndex, StorageError> {
        let builder = self.open(shard)?.with_batch_size(1 << 14);
        let names: Vec<&str> =
            schema.columns().iter().filter(|c| !matches!(c.kind, ColumnKind::Field(_))).map(|c| &*c.name).collect();
        let mask = ProjectionMask::columns(builder.parquet_schema(), names);
        let reader = builder.with_projection(mask).build().map_err(|e| self.corrupt(shard, e))?;
        let mut index = IndexBuilder::default();
        for batch in reader {
            let batch = batch.map_err(|e| self.corrupt(shard, e))?;
            let tags = tag_columns(&batch, schema);
            let times = time_column(&batch).ok_or_else(|| self.corrupt(shard, "it has no column time"))?;
            let mut start = 0;
            for row in 1..=batch.num_rows() {
                if row == batch.num_rows() || !same_series(&tags, row - 1, row) {
                    let rows = u32::try_from(row - start).expect("a batch has few rows");
                    index.push(&series_key(&tags, start), rows, times.value(start), times.value(row - 1));
                    start = row;
                }
            }
        }
        Ok(index.finish())
    }
}

/// The columns of `schema`, taken from `batch` or all null, in the types of `schema`.
fn in_schema(batch: &RecordBatch, schema: &TableSchema) -> RecordBatch {
    let column = |field: &arrow::datatypes::FieldRef| -> ArrayRef {
        match batch.column_by_name(field.name()) {
            Some(column) if column.data_type() == field.data_type() => Arc::clone(column),
            Some(column) => {
                arrow::compute::cast(column, field.data_type()).expect("text is the only type with two forms")
            }
            None => new_null_array(field.data_type(), batch.num_rows()),
        }
    };
    let columns = schema.arrow().fields().iter().map(column).collect();
    RecordBatch::try_new(Arc::clone(schema.arrow()), columns).expect("columns were made for the schema")
}

pub(crate) type TagColumns<'a> = Vec<(&'a str, ArrayRef)>;

/// The tag columns of `batch` by name.
pub(crate) fn tag_columns<'a>(batch: &RecordBatch, schema: &'a TableSchema) -> TagColumns<'a> {
    let tags = schema.columns().iter().filter(|column| column.kind == ColumnKind::Tag);
    tags.filter_map(|tag| Some((&*tag.name, Arc::clone(batch.column_by_name(&tag.name)?)))).collect()
}

/// The times of `batch`.
pub(crate) fn time_column(batch: &RecordBatch) -> Option<&arrow::array::TimestampMicrosecondArray> {
    batch.column_by_name("time")?.as_primitive_opt::<TimestampMicrosecondType>()
}

fn same_series(tags: &TagColumns<'_>, a: usize, b: usize) -> bool {
    tags.iter().all(|(_, column)| match (column.is_null(a), column.is_null(b)) {
        (false, false) => text_at(column, a) == text_at(column, b),
        (a, b) => a == b,
    })
}

/// The series of `row`.
pub(crate) fn series_key(tags: &TagColumns<'_>, row: usize) -> SeriesKey {
    let present = tags.iter().filter(|(_, column)| !column.is_null(row));
    SeriesKey::from_tags(present.map(|(name, column)| (*name, text_at(column, row))))
}
