//! A snapshot of a table as DataFusion scans it.
//!
//! Owns:     the plan of a scan: one Parquet source over the shards that may matter, beside the rows in memory (`memory`).
//! Does not: list or open files while planning: the snapshot has names, sizes and statistics.
//!
//! Invariants
//!  1. A row that is masked in its shard is never read: [`ParquetRowSelection`] leaves it out below every filter.
//!  2. Filters are only used to leave out shards, row groups and pages; DataFusion applies them again above.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::config::TableParquetOptions;
use datafusion::common::{DFSchema, DataFusionError, Result, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::DataSourceExec;
use datafusion::datasource::physical_plan::parquet::ParquetRowSelection;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::object_store::path::Path;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::union::UnionExec;
use storage::{ShardView, TableSnapshot};

use crate::memory::MemorySource;
use crate::newest::NewestRows;
use crate::reader::{Expected, ShardReaders};
use crate::session::SHARDS_URL;
use crate::{pruning, selection, statistics, wanted};

/// Shards of fewer bytes together are read by one thread: to share them takes longer.
const SHARED_BYTES_MIN: u64 = 1 << 20;

/// A table with its snapshot.
#[derive(Clone, Debug)]
pub(crate) struct ShardTable {
    pub(crate) snapshot: TableSnapshot,
    readers: ShardReaders,
    pub(crate) newest: Arc<NewestRows>,
}

impl ShardTable {
    pub(crate) fn new(snapshot: TableSnapshot, readers: ShardReaders, newest: Arc<NewestRows>) -> Self {
        ShardTable { snapshot, readers, newest }
    }

    /// The shards that a scan with these filters must read.
    pub(crate) fn wanted(&self, session: &dyn Session, filters: &[Expr]) -> Result<Vec<&ShardView>> {
        Ok(self.shards(self.predicate(session, filters)?, None))
    }

    /// The rows that a scan gives at most.
    pub(crate) fn rows_max(&self) -> usize {
        let shards = self.snapshot.shards.iter().map(statistics::visible_rows);
        shards.fold(self.snapshot.rows.count(), usize::saturating_add)
    }

    fn predicate(&self, session: &dyn Session, filters: &[Expr]) -> Result<Option<Arc<dyn PhysicalExpr>>> {
        let columns = DFSchema::try_from(Arc::clone(self.snapshot.schema.arrow()))?;
        // What cannot be planned alone, a subquery perhaps, prunes nothing.
        Ok(conjunction(filters.to_vec()).and_then(|expr| session.create_physical_expr(expr, &columns).ok()))
    }

    /// The shards that a scan must read.
    fn shards(&self, predicate: Option<Arc<dyn PhysicalExpr>>, limit: Option<usize>) -> Vec<&ShardView> {
        let seen = self.snapshot.shards.iter().filter(|view| statistics::visible_rows(view) > 0);
        let mut kept = pruning::keep(seen.collect(), &self.snapshot.schema, predicate);
        if let Some(limit) = limit {
            let mut rows = 0_usize;
            let enough = kept.iter().take_while(|view| {
                let more = rows < limit;
                rows = rows.saturating_add(statistics::visible_rows(view));
                more
            });
            kept.truncate(enough.count());
        }
        kept
    }

    pub(crate) fn shard_scan(
        &self,
        session: &dyn Session,
        shards: &[&ShardView],
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = self.snapshot.schema.arrow();
        let projected = projection.map(Vec::as_slice);
        let of_shard = |view: &&ShardView| Arc::new(statistics::of_shard(view, &self.snapshot.schema, projected));
        let shard_statistics: Vec<Arc<Statistics>> = shards.iter().map(of_shard).collect();
        let total = statistics::of_all(&shard_statistics, schema);

        let files = shards.iter().zip(shard_statistics).map(|(view, statistics)| file(view, statistics));
        let groups = groups(files.collect::<Result<_>>()?, session.config().target_partitions(), schema);

        let options =
            TableParquetOptions { global: session.config_options().execution.parquet.clone(), ..Default::default() };
        let source = ParquetSource::new(Arc::clone(schema))
            .with_table_parquet_options(options)
            .with_parquet_file_reader_factory(Arc::new(self.readers.clone()));
        let config = FileScanConfigBuilder::new(ObjectStoreUrl::parse(SHARDS_URL)?, Arc::new(source))
            .with_file_groups(groups)
            .with_statistics(total)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }

    /// What memory has, if a filter lets any of it through.
    fn memory_scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let rows = &self.snapshot.rows;
        let schema = self.snapshot.schema.arrow();
        let indices: Vec<usize> = projection.cloned().unwrap_or_else(|| (0..schema.fields().len()).collect());
        let wanted = rows.wanted(&indices, wanted::rows(session, &self.snapshot.schema, filters));
        let schema = Arc::new(schema.project(&indices)?);
        let source = MemorySource::new(wanted, schema, session.config().target_partitions(), limit);
        Ok(source.map(|source| DataSourceExec::from_data_source(source) as Arc<dyn ExecutionPlan>))
    }
}

/// A shard as a file to scan.
fn file(view: &ShardView, statistics: Arc<Statistics>) -> Result<PartitionedFile> {
    let shard = &view.shard;
    let mut file = PartitionedFile::new("", shard.bytes);
    // Parsed, not converted: the folder names are encoded already.
    file.object_meta.location = Path::parse(&shard.path).map_err(|e| DataFusionError::External(Box::new(e)))?;
    let expected = Expected { meta: file.object_meta.clone(), rows: shard.rows };
    file = file.with_extension(expected).with_statistics(statistics);
    if !view.masked.is_empty() {
        let rows = usize::try_from(shard.rows).map_err(|e| DataFusionError::External(Box::new(e)))?;
        file = file.with_extension(ParquetRowSelection::new(selection::unmasked(rows, &view.masked)));
    }
    Ok(file)
}

/// Files spread over at most `parts` groups of about the same bytes.
fn groups(files: Vec<PartitionedFile>, parts: usize, schema: &SchemaRef) -> Vec<FileGroup> {
    let bytes: u64 = files.iter().map(|file| file.object_meta.size).sum();
    let parts = if bytes < SHARED_BYTES_MIN { 1 } else { parts.clamp(1, files.len().max(1)) };
    let mut groups: Vec<(u64, Vec<PartitionedFile>)> = vec![(0, Vec::new()); parts];
    for file in files {
        if let Some(lightest) = groups.iter_mut().min_by_key(|group| group.0) {
            lightest.0 += file.object_meta.size;
            lightest.1.push(file);
        }
    }
    let group = |(_, files): (u64, Vec<PartitionedFile>)| {
        let known: Vec<_> = files.iter().filter_map(|file| file.statistics.clone()).collect();
        FileGroup::new(files).with_statistics(Arc::new(statistics::of_all(&known, schema)))
    };
    groups.into_iter().map(group).collect()
}

#[async_trait]
impl TableProvider for ShardTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.snapshot.schema.arrow())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = self.snapshot.schema.arrow();
        let predicate = self.predicate(session, filters)?;
        // A filter takes rows away above, so more than the limit may be needed here.
        let limit = limit.filter(|_| filters.is_empty());

        let mut parts = Vec::new();
        let shards = self.shards(predicate, limit);
        if !shards.is_empty() {
            parts.push(self.shard_scan(session, &shards, projection, limit)?);
        }
        parts.extend(self.memory_scan(session, projection, filters, limit)?);
        if parts.is_empty() {
            let projected = match projection {
                Some(projection) => Arc::new(schema.project(projection)?),
                None => Arc::clone(schema),
            };
            return Ok(Arc::new(EmptyExec::new(projected)));
        }
        UnionExec::try_new(parts)
    }
}
