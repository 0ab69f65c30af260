//! Writes one shard: Parquet, statistics for the Delta log, and the series index, in one pass.
//!
//! Owns:     encodings, and the order of syncs of a data file (P5): bytes, then its name, then a new folder's name.
//! Does not: sort rows or commit.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute;
use arrow::datatypes::{Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType};
use chrono::{DateTime, SecondsFormat};
use model::{FieldType, decimal};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;
use serde_json::{Map, Value, json};
use wal::disk::{self, DiskFile, SharedDisk};

use super::ROW_GROUP_ROWS;
use super::index::{IndexBuilder, ShardIndex};
use super::read::{series_key, tag_columns, time_column};
use crate::columns::text_at;
use crate::{ColumnKind, StorageError, TableSchema};

/// Bytes gathered before they are handed to the disk.
const WRITE_BYTES: usize = 1 << 20;

/// A shard of fewer rows is compressed with LZ4: what a reader saves by smaller pages it would lose again on setting up
/// zstd once for each column of each such file.
const SMALL_SHARD_ROWS: u64 = 1 << 17;

/// A text longer than this has no place in statistics.
const STATS_TEXT_BYTES_MAX: usize = 64;

/// Units of decimals from here on have more digits than a double holds for sure, and no place in statistics.
const STATS_DECIMAL_END: i128 = 10_i128.pow(15);

/// Decimals nearer to zero than this have no place there either, but for zero.
const STATS_DECIMAL_MIN: f64 = 1e-5;

/// Hands bytes to a disk file one after another.
struct DiskWriter {
    file: Box<dyn DiskFile>,
    written: u64,
}

impl Write for DiskWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all_at(bytes, self.written)?;
        self.written += bytes.len() as u64;
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
    writer: ArrowWriter<io::BufWriter<DiskWriter>>,
    columns: Vec<ColumnSummary>,
    rows: u64,
    index: IndexBuilder,
}

/// A shard that is durable.
#[derive(Debug)]
pub(crate) struct WrittenShard {
    pub(crate) bytes: u64,
    pub(crate) rows: u64,
    /// Delta's statistics.
    pub(crate) stats: String,
    pub(crate) index: ShardIndex,
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
        let buffered = io::BufWriter::with_capacity(WRITE_BYTES, DiskWriter { file, written: 0 });
        let options =
            ArrowWriterOptions::new().with_properties(properties(schema, rows)).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(buffered, Arc::clone(schema.arrow()), options)
            .map_err(|e| failed(path, e.into()))?;
        Ok(ShardWriter {
            disk: Arc::clone(disk),
            path: path.to_owned(),
            columns: schema.columns().iter().map(|_| ColumnSummary::default()).collect(),
            schema: Arc::clone(schema),
            writer,
            rows: 0,
            index: IndexBuilder::default(),
        })
    }

    /// Appends rows, sorted and after all earlier ones, in the columns of the schema.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), StorageError> {
        self.writer.write(batch).map_err(|e| failed(&self.path, e.into()))?;
        for (summary, (column, array)) in self.columns.iter_mut().zip(self.schema.columns().iter().zip(batch.columns()))
        {
            summary.add(column.kind, array);
        }
        self.add_to_index(batch);
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    fn add_to_index(&mut self, batch: &RecordBatch) {
        let tags = tag_columns(batch, &self.schema);
        let times = time_column(batch).expect("every table has a time");
        let ends: Vec<std::ops::Range<usize>> = if tags.is_empty() {
            std::iter::once(0..batch.num_rows()).collect()
        } else {
            let columns: Vec<_> = tags.iter().map(|(_, column)| Arc::clone(column)).collect();
            compute::partition(&columns).expect("text columns of one length can be compared").ranges()
        };
        for range in ends.into_iter().filter(|range| !range.is_empty()) {
            let (first, last) = (times.value(range.start), times.value(range.end - 1));
            self.index.push(&series_key(&tags, range.start), range.len() as u32, first, last);
        }
    }

    /// Finishes the file and makes it and its name durable.
    pub(crate) fn finish(self) -> Result<WrittenShard, StorageError> {
        let path = &self.path;
        let buffered = self.writer.into_inner().map_err(|e| failed(path, e.into()))?;
        let written = buffered.into_inner().map_err(|e| failed(path, e.into_error()))?;
        written.file.sync_data().map_err(StorageError::io("sync", path))?;
        let folder = path.parent().expect("a shard has a folder");
        self.disk.sync_dir(folder).map_err(StorageError::io("sync", folder))?;
        let mut stats = Stats::default();
        for (column, summary) in self.schema.columns().iter().zip(self.columns) {
            stats.add(&column.name, summary);
        }
        let stats = json!({
            "numRecords": self.rows, "minValues": stats.min, "maxValues": stats.max, "nullCount": stats.nulls,
        });
        Ok(WrittenShard {
            bytes: written.written,
            rows: self.rows,
            stats: stats.to_string(),
            index: self.index.finish(),
        })
    }
}

fn failed(path: &Path, source: io::Error) -> StorageError {
    StorageError::io("write", path)(source)
}

/// Encodings as measured (docs/adr/0008-shard-encodings.md): delta-packed times and integers, dictionaries elsewhere.
fn properties(schema: &TableSchema, rows: u64) -> WriterProperties {
    let zstd = Compression::ZSTD(ZstdLevel::try_new(1).expect("zstd has a level 1"));
    let mut properties = WriterProperties::builder()
        .set_created_by(format!("eden {}", env!("CARGO_PKG_VERSION")))
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(if rows < SMALL_SHARD_ROWS { Compression::LZ4_RAW } else { zstd })
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

/// Running minimum, maximum and null count of a column.
#[derive(Default)]
struct ColumnSummary {
    nulls: u64,
    range: Option<(Bound, Bound)>,
    /// A value that statistics cannot bound was seen.
    unbounded: bool,
    is_time: bool,
}

#[derive(Clone, PartialEq, PartialOrd)]
enum Bound {
    Int(i64),
    Float(f64),
    Text(String),
}

impl ColumnSummary {
    fn add(&mut self, kind: ColumnKind, array: &dyn Array) {
        self.nulls += array.null_count() as u64;
        let range = match kind {
            ColumnKind::Time => {
                self.is_time = true;
                let times = array.as_primitive::<TimestampMicrosecondType>();
                compute::min(times).zip(compute::max(times)).map(|(a, b)| (Bound::Int(a), Bound::Int(b)))
            }
            ColumnKind::Field(FieldType::I64) => {
                let values = array.as_primitive::<Int64Type>();
                compute::min(values).zip(compute::max(values)).map(|(a, b)| (Bound::Int(a), Bound::Int(b)))
            }
            ColumnKind::Field(FieldType::F64) => {
                let values = array.as_primitive::<Float64Type>();
                let range = compute::min(values).zip(compute::max(values));
                self.unbounded |= range.is_some_and(|(a, b)| !a.is_finite() || !b.is_finite());
                range.map(|(a, b)| (Bound::Float(a), Bound::Float(b)))
            }
            ColumnKind::Tag | ColumnKind::Field(FieldType::Text) => self.text_range(array),
            ColumnKind::Field(FieldType::Decimal { scale }) => {
                let values = array.as_primitive::<Decimal128Type>();
                let bound = |units: i128| {
                    let units = i64::try_from(units).expect("a decimal has at most 18 digits");
                    Bound::Float(decimal::to_f64(units, scale))
                };
                let range = compute::min(values).zip(compute::max(values));
                // JSON's readers take numbers for doubles: one that a double does not hold would be another number.
                self.unbounded |= range.is_some_and(|(a, b)| a.abs().max(b.abs()) >= STATS_DECIMAL_END);
                let range = range.map(|(a, b)| (bound(a), bound(b)));
                // Below it they are written with an exponent, which deltalake does not read in a decimal.
                let is_tiny = |b: &Bound| matches!(b, Bound::Float(b) if *b != 0.0 && b.abs() < STATS_DECIMAL_MIN);
                self.unbounded |= range.as_ref().is_some_and(|(a, b)| is_tiny(a) || is_tiny(b));
                range
            }
            // Delta keeps no bounds of booleans, and readers differ in how they parse those of unsigned.
            ColumnKind::Field(FieldType::Bool | FieldType::U64) => {
                self.unbounded = true;
                None
            }
        };
        let Some((min, max)) = range else { return };
        self.range = Some(match self.range.take() {
            None => (min, max),
            Some((a, b)) => (if min < a { min } else { a }, if max > b { max } else { b }),
        });
    }

    fn text_range(&mut self, array: &dyn Array) -> Option<(Bound, Bound)> {
        let mut range: Option<(&str, &str)> = None;
        let mut last: Option<&str> = None;
        for row in (0..array.len()).filter(|row| array.is_valid(*row)) {
            let text = text_at(array, row);
            // Tags come in runs: the same text again changes nothing.
            if last == Some(text) {
                continue;
            }
            last = Some(text);
            self.unbounded |= text.len() > STATS_TEXT_BYTES_MAX;
            range = Some(range.map_or((text, text), |(min, max)| (min.min(text), max.max(text))));
        }
        range.map(|(min, max)| (Bound::Text(min.into()), Bound::Text(max.into())))
    }
}

#[derive(Default)]
struct Stats {
    min: Map<String, Value>,
    max: Map<String, Value>,
    nulls: Map<String, Value>,
}

impl Stats {
    fn add(&mut self, name: &str, summary: ColumnSummary) {
        self.nulls.insert(name.into(), summary.nulls.into());
        let value = |bound: Bound| match bound {
            Bound::Int(us) if summary.is_time => format_time(us).into(),
            Bound::Int(value) => value.into(),
            Bound::Float(value) => value.into(),
            Bound::Text(text) => text.into(),
        };
        if let (Some((min, max)), false) = (summary.range, summary.unbounded) {
            self.min.insert(name.into(), value(min));
            self.max.insert(name.into(), value(max));
        }
    }
}

/// RFC 3339 with microseconds, UTC.
fn format_time(us: i64) -> String {
    let time = DateTime::from_timestamp_micros(us).expect("times are checked on admission");
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}
