//! The tag columns of a shard, written run by run.
//!
//! Owns:     dictionary, pages, statistics, page index and bloom filter of one tag's column chunk.
//! Does not: write other columns, or decide where a row group ends.
//!
//! Rows of a shard are sorted by their tags, so a tag's column is a few long runs. A general writer would hash,
//! compare and pack the same text again for every row; here a run costs a few bytes and one look-up.
//! Format: <https://parquet.apache.org/docs/file-format/>, "Data Pages", "Encodings" (RLE, RLE_DICTIONARY).

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{BoundaryOrder, Compression, Encoding, PageType, Type, ZstdLevel};
use parquet::bloom_filter::Sbbf;
use parquet::column::page::{CompressedPage, Page, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ColumnIndexBuilder, OffsetIndexBuilder, PageEncodingStats};
use parquet::file::statistics::{Statistics, ValueStatistics};
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;

use super::PAGE_ROWS;

/// Pages of more bytes than this together are compressed: below it zstd's setting up costs a reader more than the
/// bytes it saves.
const COMPRESSED_FROM_BYTES: usize = 4 << 10;

/// Of a longer text its first bytes stand in statistics as the lower bound.
const BOUND_BYTES_MAX: usize = 64;

/// Share of look-ups of absent values that a bloom filter lets through.
const BLOOM_FALSE_POSITIVES: f64 = 0.01;

/// One tag of one row group.
#[derive(Debug, Default)]
pub(crate) struct TagChunk {
    ids: HashMap<Arc<str>, u32>,
    values: Vec<Arc<str>>,
    /// Rows that follow each other with the same value; `None` is null.
    runs: Vec<(Option<u32>, usize)>,
    rows: usize,
}

/// A column chunk that is ready for `SerializedRowGroupWriter::append_column`.
pub(crate) struct EncodedChunk {
    pub(crate) bytes: Bytes,
    pub(crate) close: ColumnCloseResult,
}

impl TagChunk {
    /// Appends `rows` rows of `value`.
    pub(crate) fn push(&mut self, value: Option<&str>, rows: usize) {
        self.rows += rows;
        // Runs of one series in several batches, and of the leading tags, have the last value again.
        if let Some((last, count)) = self.runs.last_mut()
            && last.map(|id| &*self.values[id as usize]) == value
        {
            *count += rows;
            return;
        }
        let id = value.map(|value| match self.ids.get(value) {
            Some(id) => *id,
            None => {
                let id = u32::try_from(self.values.len()).expect("a row group has fewer than 2^32 rows");
                let value: Arc<str> = value.into();
                self.values.push(Arc::clone(&value));
                self.ids.insert(value, id);
                id
            }
        });
        self.runs.push((id, rows));
    }

    /// Rows without a value.
    pub(crate) fn nulls(&self) -> usize {
        self.runs.iter().filter(|(id, _)| id.is_none()).map(|(_, rows)| rows).sum()
    }

    /// The smallest and the largest value.
    pub(crate) fn range(&self) -> Option<(&str, &str)> {
        Some((self.values.iter().min()?, self.values.iter().max()?))
    }

    /// Encodes the chunk: the dictionary, then data pages of [`PAGE_ROWS`] rows.
    pub(crate) fn encode(&self, column: &ColumnDescPtr) -> Result<EncodedChunk, ParquetError> {
        let dictionary = self.dictionary();
        let pages = self.pages();
        let plain_bytes = dictionary.len() + pages.iter().map(|page| page.bytes.len()).sum::<usize>();
        let codec = if plain_bytes >= COMPRESSED_FROM_BYTES && !self.values.is_empty() {
            Compression::ZSTD(ZstdLevel::try_new(super::write::ZSTD_LEVEL)?)
        } else {
            Compression::UNCOMPRESSED
        };
        let mut sink = TrackedWrite::new(Vec::with_capacity(plain_bytes + 256));
        let mut writer = SerializedPageWriter::new(&mut sink);
        let mut totals = Totals::default();
        let page = Page::DictionaryPage {
            buf: compressed(codec, &dictionary)?,
            num_values: self.values.len() as u32,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        };
        let spec = writer.write_page(CompressedPage::new(page, dictionary.len()))?;
        totals.add(spec.uncompressed_size, spec.compressed_size);
        let data_start = spec.compressed_size;
        let mut columns = ColumnIndexBuilder::new(Type::BYTE_ARRAY);
        let mut offsets = OffsetIndexBuilder::new();
        let mut bounds = Vec::new();
        for page in &pages {
            let data = Page::DataPage {
                buf: compressed(codec, &page.bytes)?,
                num_values: page.rows as u32,
                encoding: Encoding::RLE_DICTIONARY,
                def_level_encoding: Encoding::RLE,
                rep_level_encoding: Encoding::RLE,
                statistics: None,
            };
            let spec = writer.write_page(CompressedPage::new(data, page.bytes.len()))?;
            totals.add(spec.uncompressed_size, spec.compressed_size);
            offsets.append_offset_and_size(spec.offset as i64, spec.compressed_size as i32);
            offsets.append_row_count(page.rows as i64);
            let (min, max) = page.range.map_or((&[][..], &[][..]), |(min, max)| (lower_bound(min), max.as_bytes()));
            columns.append(page.range.is_none(), min.to_vec(), max.to_vec(), page.nulls as i64);
            bounds.extend(page.range);
        }
        let ascending = bounds.windows(2).all(|pair| pair[0].0 <= pair[1].0 && pair[0].1 <= pair[1].1);
        columns.set_boundary_order(if ascending { BoundaryOrder::ASCENDING } else { BoundaryOrder::UNORDERED });
        let bytes = Bytes::from(sink.into_inner()?);
        let stats = |page_type, encoding, count| PageEncodingStats { page_type, encoding, count };
        let metadata = ColumnChunkMetaData::builder(Arc::clone(column))
            .set_compression(codec)
            .set_encodings(vec![Encoding::PLAIN, Encoding::RLE, Encoding::RLE_DICTIONARY])
            .set_page_encoding_stats(vec![
                stats(PageType::DICTIONARY_PAGE, Encoding::PLAIN, 1),
                stats(PageType::DATA_PAGE, Encoding::RLE_DICTIONARY, pages.len() as i32),
            ])
            .set_total_compressed_size(totals.compressed)
            .set_total_uncompressed_size(totals.uncompressed)
            .set_num_values(self.rows as i64)
            .set_dictionary_page_offset(Some(0))
            .set_data_page_offset(data_start as i64)
            .set_statistics(self.statistics())
            .build()?;
        let close = ColumnCloseResult {
            bytes_written: bytes.len() as u64,
            rows_written: self.rows as u64,
            metadata,
            bloom_filter: self.bloom_filter()?,
            column_index: Some(columns.build()?),
            offset_index: Some(offsets.build()),
        };
        Ok(EncodedChunk { bytes, close })
    }

    /// Every value once, plain: its length (u32), then its bytes.
    fn dictionary(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.values.iter().map(|value| value.len() + 4).sum());
        for value in &self.values {
            bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
            bytes.extend_from_slice(value.as_bytes());
        }
        bytes
    }

    fn statistics(&self) -> Statistics {
        let bound = |value: &str| ByteArray::from(value.as_bytes().to_vec());
        let (min, max) = self.range().unzip();
        let min_is_exact = min.is_none_or(|min| min.len() <= BOUND_BYTES_MAX);
        let min = min.map(|min| ByteArray::from(lower_bound(min).to_vec()));
        let nulls = Some(self.nulls() as u64);
        let statistics = ValueStatistics::new(min, max.map(bound), None, nulls, false);
        Statistics::ByteArray(statistics.with_min_is_exact(min_is_exact))
    }

    fn bloom_filter(&self) -> Result<Option<Sbbf>, ParquetError> {
        // Min and max say as much of one or two values.
        if self.values.len() <= 2 {
            return Ok(None);
        }
        let mut filter = Sbbf::new_with_ndv_fpp(self.values.len() as u64, BLOOM_FALSE_POSITIVES)?;
        self.values.iter().for_each(|value| filter.insert(&**value));
        Ok(Some(filter))
    }

    fn pages(&self) -> Vec<TagPage<'_>> {
        let mut pages = Vec::with_capacity(self.rows.div_ceil(PAGE_ROWS));
        let (mut runs, mut rows) = (Vec::new(), 0);
        for (id, mut left) in self.runs.iter().copied() {
            while left > 0 {
                let here = left.min(PAGE_ROWS - rows);
                runs.push((id, here));
                rows += here;
                left -= here;
                if rows == PAGE_ROWS {
                    pages.push(self.page(&runs, rows));
                    (runs, rows) = (Vec::new(), 0);
                }
            }
        }
        if rows > 0 {
            pages.push(self.page(&runs, rows));
        }
        pages
    }

    fn page(&self, runs: &[(Option<u32>, usize)], rows: usize) -> TagPage<'_> {
        let mut bytes = vec![0; 4];
        hybrid(&mut bytes, 1, runs.iter().map(|(id, rows)| (u32::from(id.is_some()), *rows)));
        let levels = u32::try_from(bytes.len() - 4).expect("a page has few levels");
        bytes[..4].copy_from_slice(&levels.to_le_bytes());
        let width = bit_width(self.values.len());
        bytes.push(width);
        hybrid(&mut bytes, width, runs.iter().filter_map(|(id, rows)| Some(((*id)?, *rows))));
        let values = || runs.iter().filter_map(|(id, _)| Some(&*self.values[(*id)? as usize]));
        let range = values().min().zip(values().max());
        let nulls = runs.iter().filter(|(id, _)| id.is_none()).map(|(_, rows)| rows).sum();
        TagPage { bytes, rows, nulls, range }
    }
}

/// A data page, not compressed yet.
struct TagPage<'a> {
    bytes: Vec<u8>,
    rows: usize,
    nulls: usize,
    range: Option<(&'a str, &'a str)>,
}

#[derive(Default)]
struct Totals {
    uncompressed: i64,
    compressed: i64,
}

impl Totals {
    fn add(&mut self, uncompressed: usize, compressed: usize) {
        self.uncompressed += uncompressed as i64;
        self.compressed += compressed as i64;
    }
}

fn compressed(codec: Compression, bytes: &[u8]) -> Result<Bytes, ParquetError> {
    match codec {
        Compression::ZSTD(level) => {
            Ok(zstd::bulk::compress(bytes, level.compression_level()).map_err(ParquetError::from)?.into())
        }
        _ => Ok(bytes.to_vec().into()),
    }
}

/// The first bytes of `value`, no more than fit a bound, cut between characters: never above `value`.
fn lower_bound(value: &str) -> &[u8] {
    &value.as_bytes()[..value.floor_char_boundary(BOUND_BYTES_MAX)]
}

/// Bits of the largest of `count` ids.
fn bit_width(count: usize) -> u8 {
    (usize::BITS - count.saturating_sub(1).leading_zeros()) as u8
}

/// Parquet's RLE/bit-packing hybrid: a run of at least eight is one value and a count, the rest is packed in eights.
fn hybrid(bytes: &mut Vec<u8>, width: u8, runs: impl Iterator<Item = (u32, usize)>) {
    let mut packed: Vec<u32> = Vec::new();
    for (value, mut rows) in runs {
        let fill = rows.min((8 - packed.len() % 8) % 8);
        packed.extend(std::iter::repeat_n(value, fill));
        rows -= fill;
        if rows >= 8 {
            pack(bytes, width, &mut packed);
            varint(bytes, (rows as u64) << 1);
            bytes.extend_from_slice(&value.to_le_bytes()[..usize::from(width).div_ceil(8)]);
        } else {
            packed.extend(std::iter::repeat_n(value, rows));
        }
    }
    pack(bytes, width, &mut packed);
}

/// Writes values packed, least significant bit first, and leaves none; the last eight are filled up with 0.
fn pack(bytes: &mut Vec<u8>, width: u8, values: &mut Vec<u32>) {
    if values.is_empty() {
        return;
    }
    let groups = values.len().div_ceil(8);
    values.resize(groups * 8, 0);
    varint(bytes, (groups as u64) << 1 | 1);
    let (mut bits, mut held) = (0_u64, 0);
    for value in values.drain(..) {
        bits |= u64::from(value) << held;
        held += u32::from(width);
        while held >= 8 {
            bytes.push(bits as u8);
            bits >>= 8;
            held -= 8;
        }
    }
}

/// An unsigned number, seven bits a byte, the least significant first (LEB128).
fn varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use arrow::array::{Array, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
    use model::{FieldType, Rng, SeriesKey, SplitMix64};
    use parquet::arrow::arrow_reader::{
        ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
    };
    use parquet::file::metadata::{PageIndexPolicy, RowGroupMetaData};
    use wal::disk::{LocalDisk, SharedDisk};

    use super::*;
    use crate::TableSchema;
    use crate::shard::ROW_GROUP_ROWS;
    use crate::shard::write::{SeriesRun, ShardWriter};

    /// Rows of one file: (tag a, tag b) by row.
    type Tags = Vec<(Option<String>, Option<String>)>;

    /// Writes runs of series as a shard, and hands out its bytes.
    fn shard(runs: &[SeriesRun]) -> Bytes {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("day/shard.parquet");
        let disk: SharedDisk = Arc::new(LocalDisk::new());
        let schema = Arc::new(TableSchema::new(&["a".into(), "b".into()], &[("n".into(), FieldType::I64)]));
        let mut writer = ShardWriter::create(&disk, &path, &schema, 1).unwrap();
        let mut first = 0;
        for part in runs.chunks(700) {
            let rows: usize = part.iter().map(|run| run.rows).sum();
            let times = first..first + rows as i64;
            first = times.end;
            let n: Int64Array = times.clone().collect();
            let times = TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC");
            writer.write_runs(part, &[Arc::new(n), Arc::new(times)]).unwrap();
        }
        assert_eq!(writer.finish().unwrap().rows, first as u64);
        std::fs::read(&path).unwrap().into()
    }

    fn run(a: Option<&str>, b: Option<&str>, rows: usize) -> SeriesRun {
        let tags = [("a", a), ("b", b)];
        let present = tags.iter().filter_map(|(name, value)| Some((*name, (*value)?)));
        SeriesRun { key: Arc::new(SeriesKey::from_tags(present)), rows }
    }

    fn expected(runs: &[SeriesRun]) -> Tags {
        let tags = |run: &SeriesRun| (run.key.get("a").map(str::to_owned), run.key.get("b").map(str::to_owned));
        runs.iter().flat_map(|run| std::iter::repeat_n(tags(run), run.rows)).collect()
    }

    fn read(bytes: &Bytes, ranges: Option<&[Range<usize>]>, rows: usize) -> Tags {
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
        let mut builder = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes.clone(), options).unwrap();
        if let Some(ranges) = ranges {
            builder = builder.with_row_selection(RowSelection::from_consecutive_ranges(ranges.iter().cloned(), rows));
        }
        let batches: Vec<RecordBatch> = builder.build().unwrap().map(Result::unwrap).collect();
        let text =
            |array: &dyn Array, row: usize| array.is_valid(row).then(|| array.as_string::<i32>().value(row).to_owned());
        let of_batch = |batch: &RecordBatch| -> Tags {
            let (a, b) = (batch.column(0), batch.column(1));
            (0..batch.num_rows()).map(|row| (text(a, row), text(b, row))).collect()
        };
        batches.iter().flat_map(of_batch).collect()
    }

    #[test]
    fn runs_of_any_length_read_back() {
        for seed in 0..15 {
            let random = SplitMix64::new(seed);
            let below = |n: u64| (random.next_u64() % n) as usize;
            let (values, longest) = ([1, 2, 3, 100, 70_000][below(5)], [1, 3, 9, 40, 200_000][below(5)]);
            let mut runs = Vec::new();
            let mut rows = 0;
            while rows < 3 * PAGE_ROWS / 2 {
                let value = |missing: u64| {
                    (!random.next_u64().is_multiple_of(missing))
                        .then(|| format!("v{}", random.next_u64() % values as u64))
                };
                let (a, b) = (value([1, 2, 50][seed as usize % 3]), value(7));
                let len = 1 + below(longest);
                runs.push(run(a.as_deref(), b.as_deref(), len));
                rows += len;
            }
            let bytes = shard(&runs);
            let expected = expected(&runs);
            assert!(read(&bytes, None, rows) == expected, "seed {seed}");
            let start = below(rows as u64);
            let ranges = [start / 2..start, start + (rows - start) / 3..rows];
            let wanted: Tags = ranges.iter().flat_map(|range| expected[range.clone()].to_vec()).collect();
            assert!(read(&bytes, Some(&ranges), rows) == wanted, "seed {seed}: pages");
        }
    }

    #[test]
    fn a_run_goes_on_in_the_next_row_group() {
        let runs = [run(Some("x"), None, ROW_GROUP_ROWS - 3), run(Some("y"), Some("z"), ROW_GROUP_ROWS / 2)];
        let bytes = shard(&runs);
        assert!(read(&bytes, None, 0) == expected(&runs));
        let metadata = ArrowReaderMetadata::load(&bytes, ArrowReaderOptions::new()).unwrap();
        let groups: Vec<i64> = metadata.metadata().row_groups().iter().map(RowGroupMetaData::num_rows).collect();
        assert_eq!(groups, [ROW_GROUP_ROWS as i64, ROW_GROUP_ROWS as i64 / 2 - 3]);
    }

    #[test]
    fn statistics_and_bloom_filter_bound_the_values() {
        let long = "ü".repeat(100);
        let names: Vec<String> = (0..200).map(|n| format!("device-{n:03}")).collect();
        let mut runs: Vec<SeriesRun> = names.iter().map(|name| run(Some(name), Some(&long), 10)).collect();
        runs.push(run(None, None, 5));
        let bytes = shard(&runs);
        let metadata = ArrowReaderMetadata::load(&bytes, ArrowReaderOptions::new()).unwrap();
        let group = metadata.metadata().row_group(0);
        let of = |column: usize| group.column(column).statistics().unwrap();
        assert_eq!(of(0).min_bytes_opt(), Some(&b"device-000"[..]));
        assert_eq!(of(0).max_bytes_opt(), Some(&b"device-199"[..]));
        assert_eq!(of(0).null_count_opt(), Some(5));
        let (min, max) = (of(1).min_bytes_opt().unwrap(), of(1).max_bytes_opt().unwrap());
        assert!(min <= long.as_bytes() && min.len() <= BOUND_BYTES_MAX && max >= long.as_bytes());
        assert!(std::str::from_utf8(min).is_ok() && !of(1).min_is_exact());
        let filter = Sbbf::read_from_column_chunk(group.column(0), &bytes).unwrap().unwrap();
        assert!(names.iter().all(|name| filter.check(&**name)));
        let wrong = (0..10_000).filter(|n| filter.check(&*format!("absent-{n}"))).count();
        assert!(wrong < 500, "{wrong} of 10,000 absent values pass");
    }

    #[test]
    fn the_hybrid_is_parquets() {
        let mut bytes = Vec::new();
        // The example of the format: 0 to 7 in three bits each are 88 C6 FA.
        hybrid(&mut bytes, 3, (0..8).map(|value| (value, 1)));
        assert_eq!(bytes, [3, 0x88, 0xC6, 0xFA]);
        bytes.clear();
        hybrid(&mut bytes, 9, [(300, 100)].into_iter());
        assert_eq!(bytes, [0xC8, 0x01, 0x2C, 0x01]);
    }
}
