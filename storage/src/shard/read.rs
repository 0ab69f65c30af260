//! Reads shards for the storage room itself: settling, rewriting, indexing. Queries read them through DataFusion.

use std::error::Error;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, new_null_array};
use arrow::compute::concat_batches;
use arrow::datatypes::TimestampMicrosecondType;
use bytes::Bytes;
use model::SeriesKey;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use wal::disk::Disk;

use super::checksum::BLOCK_BYTES;
use super::index::{IndexBuilder, ShardIndex};
use super::{ReadError, ShardDamage, ShardFile};
use crate::columns::text_at;
use crate::{ColumnKind, Shard, StorageError, TableSchema};

/// A shard's bytes, read from the disk and verified as Parquet asks for them.
#[derive(Clone, Debug)]
pub(crate) struct ShardChunks {
    file: Arc<ShardFile>,
    /// The block that was read last: headers of pages are read a few bytes at a time.
    last: Arc<Mutex<(u64, Bytes)>>,
    refusal: Refusal,
}

/// What the disk said when it did not give a shard's bytes. The reader of batches hands on no more than the text of an
/// error, in which the disk's cannot be told from damage.
type Refusal = Arc<OnceLock<(io::ErrorKind, String)>>;

impl ShardChunks {
    fn new(file: ShardFile) -> ShardChunks {
        ShardChunks { file: Arc::new(file), last: Arc::default(), refusal: Arc::default() }
    }

    fn read(&self, range: Range<u64>) -> Result<Bytes, ReadError> {
        self.file.read(range).inspect_err(|e| {
            // That a file ends too soon is said of the file.
            if let ReadError::Io(e) = e
                && e.kind() != io::ErrorKind::UnexpectedEof
            {
                self.refusal.get_or_init(|| (e.kind(), e.to_string()));
            }
        })
    }

    /// The rest of the block from byte `at` on; empty behind the end.
    fn rest_of_block(&self, at: u64) -> Result<Bytes, ReadError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let end = last.0 + last.1.len() as u64;
        if !(last.0..end).contains(&at) {
            let from = at / BLOCK_BYTES * BLOCK_BYTES;
            let to = (from + BLOCK_BYTES).min(self.file.len());
            if at >= to {
                return Ok(Bytes::new());
            }
            *last = (from, self.read(from..to)?);
        }
        Ok(last.1.slice((at - last.0) as usize..))
    }
}

impl Length for ShardChunks {
    fn len(&self) -> u64 {
        self.file.len()
    }
}

/// Reads on from a place in the file.
pub(crate) struct ShardRead(ShardChunks, u64);

impl Read for ShardRead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.0.rest_of_block(self.1)?;
        let read = bytes.len().min(buffer.len());
        buffer[..read].copy_from_slice(&bytes[..read]);
        self.1 += read as u64;
        Ok(read)
    }
}

impl ChunkReader for ShardChunks {
    type T = ShardRead;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(ShardRead(self.clone(), start))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let end = start.checked_add(length as u64).filter(|end| *end <= self.file.len());
        let end = end.ok_or_else(|| ParquetError::EOF(format!("bytes {start}+{length} of {}", self.file.len())))?;
        Ok(self.read(start..end)?)
    }
}

/// Rows of a batch of those who read a shard through.
pub(crate) const STREAM_ROWS: usize = 1 << 16;

/// The same, of those who read only a few columns.
const SCAN_ROWS: usize = 1 << 14;

/// Opens shards below `DATA/tables`.
#[derive(Clone, Copy)]
pub(crate) struct ShardReader<'a> {
    pub(crate) disk: &'a dyn Disk,
    /// `DATA/tables`.
    pub(crate) root: &'a Path,
}

/// A shard whose footer has been read.
pub(crate) struct OpenShard {
    builder: ParquetRecordBatchReaderBuilder<ShardChunks>,
    origin: Origin,
}

/// The rows of an open shard, batch by batch.
pub(crate) struct ShardRows {
    reader: ParquetRecordBatchReader,
    origin: Origin,
}

/// Where rows come from, for errors.
struct Origin {
    path: PathBuf,
    refusal: Refusal,
}

impl Origin {
    /// An error of the Parquet reader: the disk's, or what is wrong with the file.
    fn failed(&self, error: impl Error + 'static) -> StorageError {
        if let Some((kind, said)) = self.refusal.get() {
            return StorageError::io("read", &self.path)(io::Error::new(*kind, said.clone()));
        }
        let reason = find::<ShardDamage>(&error).map_or_else(|| error.to_string(), |damage| damage.reason.clone());
        StorageError::Corrupt { path: self.path.clone(), reason }
    }
}

impl OpenShard {
    /// Only the columns of these names.
    pub(crate) fn project<'n>(mut self, names: impl IntoIterator<Item = &'n str>) -> OpenShard {
        let mask = ProjectionMask::columns(self.builder.parquet_schema(), names);
        self.builder = self.builder.with_projection(mask);
        self
    }

    /// Only the rows at `ranges`, ascending and apart.
    fn select(mut self, ranges: &[Range<usize>]) -> OpenShard {
        let rows = self.builder.metadata().file_metadata().num_rows();
        let rows = usize::try_from(rows).expect("a shard has fewer rows than memory has bytes");
        let selection = RowSelection::from_consecutive_ranges(ranges.iter().cloned(), rows);
        self.builder = self.builder.with_row_selection(selection);
        self
    }

    /// The rows, so many at a time.
    pub(crate) fn batches(self, batch_rows: usize) -> Result<ShardRows, StorageError> {
        let OpenShard { builder, origin } = self;
        let reader = builder.with_batch_size(batch_rows).build().map_err(|e| origin.failed(e))?;
        Ok(ShardRows { reader, origin })
    }
}

impl Iterator for ShardRows {
    type Item = Result<RecordBatch, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.reader.next()?.map_err(|e| self.origin.failed(e)))
    }
}

impl ShardReader<'_> {
    /// Opens a shard and reads its footer.
    pub(crate) fn open(&self, shard: &Shard) -> Result<OpenShard, StorageError> {
        let path = self.root.join(&shard.path);
        let corrupt = |reason: String| StorageError::Corrupt { path: path.clone(), reason };
        let file = ShardFile::open(self.disk, &path, &shard.path, shard.checksums.clone()).map_err(|e| match e {
            ReadError::Io(e) => StorageError::io("open", &path)(e),
            ReadError::Damaged(damage) => corrupt(damage.reason),
        })?;
        let file = file.read_through();
        let len = file.len();
        if len != shard.bytes {
            return Err(corrupt(format!("it has {len} bytes; the Delta log says {}", shard.bytes)));
        }
        let chunks = ShardChunks::new(file);
        let origin = Origin { path: path.clone(), refusal: Arc::clone(&chunks.refusal) };
        let builder = ParquetRecordBatchReaderBuilder::try_new(chunks).map_err(|e| origin.failed(e))?;
        let rows = builder.metadata().file_metadata().num_rows();
        if u64::try_from(rows) != Ok(shard.rows) {
            return Err(corrupt(format!("it has {rows} rows; the Delta log says {}", shard.rows)));
        }
        Ok(OpenShard { builder, origin })
    }

    fn corrupt(&self, shard: &Shard, reason: impl ToString) -> StorageError {
        StorageError::Corrupt { path: self.root.join(&shard.path), reason: reason.to_string() }
    }

    /// All rows in the columns of `schema`, in order, of which no more than a batch of `batch_rows` is in memory at a time.
    pub(crate) fn stream(
        self,
        shard: Arc<Shard>,
        schema: Arc<TableSchema>,
        batch_rows: usize,
    ) -> Result<impl Iterator<Item = Result<RecordBatch, StorageError>>, StorageError> {
        let batches = self.open(&shard)?.batches(batch_rows)?;
        Ok(batches.map(move |batch| Ok(in_schema(&batch?, &schema))))
    }

    /// Calls `each` with all times of a shard, in its order, batch by batch.
    pub(crate) fn all_times(&self, shard: &Shard, each: &mut dyn FnMut(&[i64])) -> Result<(), StorageError> {
        for batch in self.open(shard)?.project(["time"]).batches(SCAN_ROWS)? {
            let batch = batch?;
            each(time_column(&batch).ok_or_else(|| self.corrupt(shard, "it has no column time"))?.values());
        }
        Ok(())
    }

    /// The rows at `ranges` (ascending, apart) in the columns of `schema`, in one batch.
    pub(crate) fn rows_in_one(
        &self,
        shard: &Shard,
        schema: &TableSchema,
        ranges: &[Range<usize>],
    ) -> Result<RecordBatch, StorageError> {
        let mut batches = Vec::new();
        for batch in self.open(shard)?.select(ranges).batches(STREAM_ROWS)? {
            batches.push(in_schema(&batch?, schema));
        }
        concat_batches(schema.arrow(), &batches).map_err(|e| self.corrupt(shard, e))
    }

    /// The times at `ranges` (ascending, apart), and nothing else of the shard.
    pub(crate) fn times(&self, shard: &Shard, ranges: &[Range<usize>]) -> Result<Vec<i64>, StorageError> {
        let mut times = Vec::with_capacity(ranges.iter().map(ExactSizeIterator::len).sum());
        for batch in self.open(shard)?.project(["time"]).select(ranges).batches(STREAM_ROWS)? {
            let batch = batch?;
            let column = time_column(&batch).ok_or_else(|| self.corrupt(shard, "it has no column time"))?;
            times.extend_from_slice(column.values());
        }
        Ok(times)
    }

    /// Builds the index of a shard from its tags and times.
    pub(crate) fn index(&self, shard: &Shard, schema: &TableSchema) -> Result<ShardIndex, StorageError> {
        let keys = schema.columns().iter().filter(|c| !matches!(c.kind, ColumnKind::Field(_))).map(|c| &*c.name);
        let mut index = IndexBuilder::default();
        for batch in self.open(shard)?.project(keys).batches(SCAN_ROWS)? {
            let batch = batch?;
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

/// An error of type `E` among `error` and what it came from.
pub(crate) fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        // What an `io::Error` wraps is not its source.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let found = error.downcast_ref().or_else(|| wrapped.and_then(|wrapped| wrapped.downcast_ref()));
        if found.is_some() {
            return found;
        }
        next = error.source();
    }
    None
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
