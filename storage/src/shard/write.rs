//! Writes one shard: Parquet, statistics for the Delta log, and the series index, in one pass.
//!
//! Owns:     encodings, and the order of syncs of a data file (P5): bytes, then its name, then a new folder's name.
//! Does not: sort rows or commit.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute;
use arrow::datatypes::TimestampMicrosecondType;
use model::{FieldType, SeriesKey};
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;
use wal::disk::{self, DiskFile, SharedDisk};

use super::index::{IndexBuilder, ShardIndex};
use super::read::{series_key, tag_columns};
use super::stats::{ColumnSummary, Stats};
use super::tags::TagChunk;
use super::{Checksums, PAGE_ROWS, ROW_GROUP_ROWS, Summer};
use crate::delta::{CHECKSUMS_TAG, POSITION_MAX_TAG, POSITION_MIN_TAG};
use crate::{ColumnKind, StorageError, TableSchema};

/// Bytes gathered before they are handed to the disk.
const WRITE_BYTES: usize = 1 << 20;

/// A shard of fewer rows is compressed with LZ4: what a reader saves by smaller pages it would lose again on setting up
/// zstd once for each column of each such file.
const SMALL_SHARD_ROWS: u64 = 1 << 17;

/// Rows between two looks at whether a page is full.
const WRITE_BATCH_ROWS: usize = 1 << 13;

/// Hands bytes to a disk file one after another, and sums them.
struct DiskWriter {
    file: Box<dyn DiskFile>,
    written: u64,
    summer: Summer,
}

impl Write for DiskWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all_at(bytes, self.written)?;
        self.written += bytes.len() as u64;
        self.summer.add(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A shard on its way to the disk.
pub(crate) struct ShardWriter {
    disk: SharedDisk,
    path: PathBuf,
    schema: Arc<TableSchema>,
    file: SerializedFileWriter<io::BufWriter<DiskWriter>>,
    columns: ArrowRowGroupWriterFactory,
    group: Option<RowGroup>,
    groups: usize,
    /// By column of the schema.
    summaries: Vec<ColumnSummary>,
    rows: u64,
    index: IndexBuilder,
    /// Last: the file is written to until it is dropped.
    unfinished: Unfinished,
}

/// The row group that rows are added to.
struct RowGroup {
    /// By tag of the schema.
    tags: Vec<TagChunk>,
    /// By column of the schema; those of tags stay empty and are not used.
    others: Vec<ArrowColumnWriter>,
    rows: usize,
}

/// A file that is removed when this is dropped, unless it was finished: on a full disk a half one would take the room
/// that is needed to write it whole (P9).
struct Unfinished {
    disk: SharedDisk,
    path: Option<PathBuf>,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Best effort: vacuum finds what is left.
            let _ = self.disk.remove_file(path);
        }
    }
}

/// Rows of one series that follow each other.
#[derive(Clone, Debug)]
pub(crate) struct SeriesRun {
    pub(crate) key: Arc<SeriesKey>,
    pub(crate) rows: usize,
}

/// A shard that is durable.
#[derive(Debug)]
pub(crate) struct WrittenShard {
    pub(crate) bytes: u64,
    pub(crate) rows: u64,
    /// Delta's statistics.
    pub(crate) stats: String,
    pub(crate) index: ShardIndex,
    pub(crate) checksums: Checksums,
}

impl WrittenShard {
    /// The tags of its `add`; `positions` are those of the oldest and the newest frame that it came from.
    pub(crate) fn tags(&self, positions: (String, String)) -> BTreeMap<String, Option<String>> {
        [
            (POSITION_MIN_TAG.to_owned(), Some(positions.0)),
            (POSITION_MAX_TAG.to_owned(), Some(positions.1)),
            (CHECKSUMS_TAG.to_owned(), Some(self.checksums.encode())),
        ]
        .into()
    }
}

impl ShardWriter {
    /// Starts the shard at `path`, of about `rows` rows, making its folder if need be.
    pub(crate) fn create(
        disk: &SharedDisk,
        path: &Path,
        schema: &Arc<TableSchema>,
        rows: u64,
    ) -> Result<Self, StorageError> {
        let folder = path.parent().expect("a shard has a folder");
        disk::create_dir_all(&**disk, folder).map_err(StorageError::io("create", folder))?;
        let file = disk.create_new(path).map_err(StorageError::io("create", path))?;
        let unfinished = Unfinished { disk: Arc::clone(disk), path: Some(path.to_owned()) };
        let buffered =
            io::BufWriter::with_capacity(WRITE_BYTES, DiskWriter { file, written: 0, summer: Summer::default() });
        let properties = Arc::new(properties(schema, rows));
        let parquet = ArrowSchemaConverter::new().convert(schema.arrow()).map_err(|e| failed(path, e.into()))?;
        let file = SerializedFileWriter::new(buffered, parquet.root_schema_ptr(), properties)
            .map_err(|e| failed(path, e.into()))?;
        Ok(ShardWriter {
            disk: Arc::clone(disk),
            path: path.to_owned(),
            columns: ArrowRowGroupWriterFactory::new(&file, Arc::clone(schema.arrow())),
            file,
            group: None,
            groups: 0,
            summaries: schema.columns().iter().map(|_| ColumnSummary::default()).collect(),
            schema: Arc::clone(schema),
            rows: 0,
            index: IndexBuilder::default(),
            unfinished,
        })
    }

    /// Appends rows, sorted and after all earlier ones, in the columns of the schema.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), StorageError> {
        let tags = tag_columns(batch, &self.schema);
        let ranges: Vec<Range<usize>> = if tags.is_empty() {
            std::iter::once(0..batch.num_rows()).collect()
        } else {
            let columns: Vec<_> = tags.iter().map(|(_, column)| Arc::clone(column)).collect();
            compute::partition(&columns).expect("text columns of one length can be compared").ranges()
        };
        let runs: Vec<SeriesRun> = ranges
            .into_iter()
            .filter(|range| !range.is_empty())
            .map(|range| SeriesRun { key: Arc::new(series_key(&tags, range.start)), rows: range.len() })
            .collect();
        let columns = self.schema.columns().iter().zip(batch.columns());
        let columns: Vec<ArrayRef> =
            columns.filter(|(column, _)| column.kind != ColumnKind::Tag).map(|(_, array)| Arc::clone(array)).collect();
        self.write_runs(&runs, &columns)
    }

    /// Appends rows, sorted and after all earlier ones: their series, and `columns`, the fields and the time in the
    /// order of the schema.
    pub(crate) fn write_runs(&mut self, runs: &[SeriesRun], columns: &[ArrayRef]) -> Result<(), StorageError> {
        let rows = columns.last().map_or(0, Array::len);
        debug_assert_eq!(rows, runs.iter().map(|run| run.rows).sum::<usize>());
        let others = self.schema.columns().iter().zip(&mut self.summaries);
        let others = others.filter(|(column, _)| column.kind != ColumnKind::Tag);
        for ((column, summary), array) in others.zip(columns) {
            summary.add(column.kind, array);
        }
        let times = columns.last().expect("every table has a time").as_primitive::<TimestampMicrosecondType>();
        let mut start = 0;
        for run in runs {
            let (first, last) = (times.value(start), times.value(start + run.rows - 1));
            self.index.push(&run.key, run.rows as u32, first, last);
            start += run.rows;
        }
        self.write_in_groups(runs, columns, rows).map_err(|e| failed(&self.path, e.into()))?;
        self.rows += rows as u64;
        Ok(())
    }

    fn write_in_groups(&mut self, runs: &[SeriesRun], columns: &[ArrayRef], rows: usize) -> Result<(), ParquetError> {
        let mut runs = runs.iter().map(|run| (&*run.key, run.rows));
        // What is left of the run that a full group has cut.
        let mut cut: Option<(&SeriesKey, usize)> = None;
        let mut start = 0;
        while start < rows {
            let group = match &mut self.group {
                Some(group) => group,
                None => self.group.insert(RowGroup {
                    tags: self.schema.tags().map(|_| TagChunk::default()).collect(),
                    others: self.columns.create_column_writers(self.groups)?,
                    rows: 0,
                }),
            };
            let len = (rows - start).min(ROW_GROUP_ROWS - group.rows);
            let mut left = len;
            while left > 0 {
                let (key, of_series) = cut.take().or_else(|| runs.next()).expect("runs are as long as the columns");
                let here = of_series.min(left);
                for (tag, chunk) in self.schema.tags().zip(&mut group.tags) {
                    chunk.push(key.get(tag), here);
                }
                left -= here;
                cut = (here < of_series).then_some((key, of_series - here));
            }
            let fields = self.schema.arrow().fields().iter().zip(self.schema.columns()).zip(&mut group.others);
            let fields = fields.filter(|((_, column), _)| column.kind != ColumnKind::Tag);
            for (((field, _), writer), array) in fields.zip(columns) {
                for leaf in compute_leaves(field, &array.slice(start, len))? {
                    writer.write(&leaf)?;
                }
            }
            group.rows += len;
            start += len;
            if group.rows == ROW_GROUP_ROWS {
                self.finish_group()?;
            }
        }
        Ok(())
    }

    fn finish_group(&mut self) -> Result<(), ParquetError> {
        let Some(group) = self.group.take() else { return Ok(()) };
        let mut tags = group.tags.iter();
        let descriptors = self.file.schema_descr().columns().to_vec();
        let mut written = self.file.next_row_group()?;
        let columns = self.schema.columns().iter().zip(&mut self.summaries).zip(group.others).zip(&descriptors);
        for (((column, summary), writer), descriptor) in columns {
            if column.kind == ColumnKind::Tag {
                let tag = tags.next().expect("a chunk for each tag");
                summary.add_tag(tag);
                let encoded = tag.encode(descriptor)?;
                written.append_column(&encoded.bytes, encoded.close)?;
            } else {
                writer.close()?.append_to_row_group(&mut written)?;
            }
        }
        written.close()?;
        self.groups += 1;
        Ok(())
    }

    /// Finishes the file and makes it and its name durable.
    pub(crate) fn finish(mut self) -> Result<WrittenShard, StorageError> {
        self.finish_group().map_err(|e| failed(&self.path, e.into()))?;
        let path = &self.path;
        let buffered = self.file.into_inner().map_err(|e| failed(path, e.into()))?;
        let written = buffered.into_inner().map_err(|e| failed(path, e.into_error()))?;
        written.file.sync_data().map_err(StorageError::io("sync", path))?;
        let folder = path.parent().expect("a shard has a folder");
        self.disk.sync_dir(folder).map_err(StorageError::io("sync", folder))?;
        self.unfinished.path = None;
        let mut stats = Stats::default();
        for (column, summary) in self.schema.columns().iter().zip(self.summaries) {
            stats.add(&column.name, summary);
        }
        Ok(WrittenShard {
            bytes: written.written,
            rows: self.rows,
            stats: stats.to_json(self.rows),
            index: self.index.finish(),
            checksums: written.summer.finish(),
        })
    }
}

/// Names the file. That the disk was full can still be told when the error has come through the Parquet library.
fn failed(path: &Path, source: io::Error) -> StorageError {
    let of_disk = source.get_ref().and_then(|e| match e.downcast_ref::<ParquetError>()? {
        ParquetError::External(e) => e.downcast_ref::<io::Error>().map(io::Error::kind),
        _ => None,
    });
    let source = match of_disk {
        Some(kind) => io::Error::new(kind, source),
        None => source,
    };
    StorageError::io("write", path)(source)
}

/// The level at which everything is compressed: above it the bytes saved cost more CPU each (ADR 0008).
pub(super) const ZSTD_LEVEL: i32 = 4;

/// Encodings as measured (docs/adr/0008-shard-encodings.md): delta-packed times and integers, dictionaries elsewhere.
/// Tags are not in here: `tags` writes them.
fn properties(schema: &TableSchema, rows: u64) -> WriterProperties {
    let zstd = Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL).expect("zstd has that level"));
    let mut properties = WriterProperties::builder()
        .set_created_by(format!("eden {}", env!("CARGO_PKG_VERSION")))
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(if rows < SMALL_SHARD_ROWS { Compression::LZ4_RAW } else { zstd })
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_write_batch_size(WRITE_BATCH_ROWS)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS));
    let mut sorted = Vec::new();
    for (i, column) in schema.columns().iter().enumerate() {
        let path = ColumnPath::new(vec![column.name.to_string()]);
        match column.kind {
            ColumnKind::Time | ColumnKind::Field(FieldType::I64 | FieldType::Decimal { .. }) => {
                properties = properties
                    .set_column_dictionary_enabled(path.clone(), false)
                    .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
            }
            ColumnKind::Tag | ColumnKind::Field(_) => {}
        }
        if !matches!(column.kind, ColumnKind::Field(_)) {
            sorted.push(SortingColumn { column_idx: i as i32, descending: false, nulls_first: true });
        }
    }
    properties.set_sorting_columns(Some(sorted)).build()
}
