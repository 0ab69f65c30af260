//! Reads shards for DataFusion, and remembers which, so that an error can name its file (P11).
//!
//! Owns:     the reader of a shard's bytes and footer, the list of shards a statement has open.
//! Does not: cache footers (the runtime's cache does) or decode pages.
//!
//! Pages are decoded far from here, by code that does not know the file. So the statement keeps a list of what
//! is or was just open, and `damage` examines those when decoding fails.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::error::DataFusionError;
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::object_store::path::Path;
use datafusion::object_store::{ObjectMeta, ObjectStore};
use datafusion::parquet::arrow::arrow_reader::ArrowReaderOptions;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::parquet::errors::ParquetError;
use datafusion::parquet::file::metadata::ParquetMetaData;
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder};
use futures::FutureExt;
use futures::future::BoxFuture;

/// Shards remembered after they were closed: more than other readers close before a failed one is looked for.
const CLOSED_MAX: usize = 64;

/// Enough for the footer of a shard with some dozen columns in one read.
const FOOTER_BYTES_HINT: usize = 64 << 10;

/// A shard could not be read.
#[derive(Debug)]
pub(crate) struct ShardError {
    pub(crate) location: Path,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl fmt::Display for ShardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {}: {}", self.location, self.source)
    }
}

impl std::error::Error for ShardError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.source)
    }
}

/// A shard and what its file must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) meta: ObjectMeta,
    pub(crate) rows: u64,
}

/// The shards that a statement has open, and those it closed last.
#[derive(Debug, Default)]
pub(crate) struct OpenShards(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    now: HashMap<Path, (usize, Expected)>,
    closed: VecDeque<Expected>,
}

impl OpenShards {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, shard: &Expected) {
        self.lock().now.entry(shard.meta.location.clone()).or_insert_with(|| (0, shard.clone())).0 += 1;
    }

    fn close(&self, shard: &Expected) {
        let mut open = self.lock();
        let Some((readers, _)) = open.now.get_mut(&shard.meta.location) else { return };
        *readers -= 1;
        if *readers > 0 {
            return;
        }
        open.now.remove(&shard.meta.location);
        open.closed.retain(|closed| closed != shard);
        open.closed.push_front(shard.clone());
        open.closed.truncate(CLOSED_MAX);
    }

    /// Those among which a shard that just failed is.
    pub(crate) fn suspects(&self) -> Vec<Expected> {
        let open = self.lock();
        open.now.values().map(|(_, shard)| shard).chain(&open.closed).cloned().collect()
    }
}

/// Makes the readers of one statement.
#[derive(Clone, Debug)]
pub(crate) struct ShardReaders {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) footers: Arc<FileMetadataCache>,
    pub(crate) open: Arc<OpenShards>,
}

impl ParquetFileReaderFactory for ShardReaders {
    fn create_reader(
        &self,
        partition_index: usize,
        file: PartitionedFile,
        _metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> datafusion::common::Result<Box<dyn AsyncFileReader + Send>> {
        let Some(shard) = file.extension::<Expected>().cloned() else {
            return datafusion::common::internal_err!("{} is not a shard of the snapshot", file.path());
        };
        let mut reader = ShardReader::new(Arc::clone(&self.store), shard);
        reader.bytes_scanned = MetricBuilder::new(metrics).counter("bytes_scanned", partition_index);
        reader.footers = Some(Arc::clone(&self.footers));
        self.open.open(&reader.shard);
        reader.open = Some(Arc::clone(&self.open));
        Ok(Box::new(reader))
    }
}

/// Reads one shard.
pub(crate) struct ShardReader {
    store: Arc<dyn ObjectStore>,
    shard: Expected,
    footers: Option<Arc<FileMetadataCache>>,
    bytes_scanned: Count,
    open: Option<Arc<OpenShards>>,
}

impl ShardReader {
    /// A reader outside of any statement, without a cache.
    pub(crate) fn new(store: Arc<dyn ObjectStore>, shard: Expected) -> Self {
        ShardReader { store, shard, footers: None, bytes_scanned: Count::new(), open: None }
    }

    async fn footer(
        &self,
        options: Option<&ArrowReaderOptions>,
    ) -> datafusion::parquet::errors::Result<Arc<ParquetMetaData>> {
        let metadata = DFParquetMetadata::new(&*self.store, &self.shard.meta)
            .with_file_metadata_cache(self.footers.clone())
            .with_metadata_size_hint(Some(FOOTER_BYTES_HINT))
            .with_page_index_policy(options.map(ArrowReaderOptions::column_index_policy))
            .fetch_metadata()
            .await
            .map_err(|error| match error {
                DataFusionError::ParquetError(error) => failed(&self.shard.meta.location, *error),
                DataFusionError::ObjectStore(error) => failed(&self.shard.meta.location, *error),
                error => failed(&self.shard.meta.location, error),
            })?;
        // Counts are answered from the log, so a file that disagrees must not pass (P11).
        let rows = metadata.file_metadata().num_rows();
        if u64::try_from(rows) != Ok(self.shard.rows) {
            let reason = format!("it has {rows} rows, not {}", self.shard.rows);
            return Err(failed(&self.shard.meta.location, reason));
        }
        Ok(metadata)
    }
}

fn failed(location: &Path, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ParquetError {
    ParquetError::External(Box::new(ShardError { location: location.clone(), source: source.into() }))
}

impl AsyncFileReader for ShardReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, datafusion::parquet::errors::Result<Bytes>> {
        self.bytes_scanned.add(usize::try_from(range.end - range.start).unwrap_or(usize::MAX));
        async move {
            let location = &self.shard.meta.location;
            let ranges = self.store.get_ranges(location, &[range]).await.map_err(|error| failed(location, error))?;
            ranges.into_iter().next().ok_or_else(|| failed(location, "the store gave no bytes"))
        }
        .boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, datafusion::parquet::errors::Result<Vec<Bytes>>> {
        let bytes: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        self.bytes_scanned.add(usize::try_from(bytes).unwrap_or(usize::MAX));
        async move {
            let location = &self.shard.meta.location;
            self.store.get_ranges(location, &ranges).await.map_err(|error| failed(location, error))
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, datafusion::parquet::errors::Result<Arc<ParquetMetaData>>> {
        self.footer(options).boxed()
    }
}

impl Drop for ShardReader {
    fn drop(&mut self) {
        if let Some(open) = &self.open {
            open.close(&self.shard);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(name: &str) -> Expected {
        let mut meta = PartitionedFile::new("", 1).object_meta;
        meta.location = Path::from(name);
        Expected { meta, rows: 1 }
    }

    fn names(open: &OpenShards) -> Vec<String> {
        open.suspects().iter().map(|shard| shard.meta.location.to_string()).collect()
    }

    #[test]
    fn suspects_are_open_shards_and_those_closed_last() {
        let open = OpenShards::default();
        let (a, b) = (shard("a"), shard("b"));
        open.open(&a);
        open.open(&a);
        open.open(&b);
        open.close(&a);
        open.close(&b);
        assert_eq!(names(&open), ["a", "b"]);
        open.close(&a);
        assert_eq!(names(&open), ["a", "b"]);
        for n in 0..CLOSED_MAX {
            let other = shard(&format!("n{n}"));
            open.open(&other);
            open.close(&other);
        }
        assert!(!names(&open).contains(&"b".to_owned()));
        assert_eq!(names(&open).len(), CLOSED_MAX);
    }
}
