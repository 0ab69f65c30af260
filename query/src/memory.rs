//! Rows in memory as DataFusion scans them.
//!
//! Owns:     sharing their parts among threads, and making each when its turn comes: a plan holds no columns of them.
//! Does not: decide which rows are wanted (`wanted` does), or filter.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, Statistics};
use datafusion::datasource::source::DataSource;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::{EquivalenceProperties, LexOrdering, Partitioning, PhysicalExpr};
use datafusion::physical_plan::DisplayFormatType;
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::execution_plan::SchedulingType;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::stream;
use storage::WantedRows;

/// Rows beyond which more than one thread reads them.
const SHARED_ROWS_MIN: usize = 1 << 17;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct MemorySource {
    rows: Arc<WantedRows>,
    schema: SchemaRef,
    /// The parts that each thread reads.
    shares: Vec<Range<usize>>,
    /// Each share gives so many rows at most.
    limit: Option<usize>,
}

impl MemorySource {
    /// A source of rows with these columns for at most so many threads; `None` if there are no rows.
    pub(crate) fn new(rows: WantedRows, schema: SchemaRef, threads: usize, limit: Option<usize>) -> Option<Self> {
        let threads = if rows.rows_max() < SHARED_ROWS_MIN { 1 } else { threads };
        let shares = shares(rows.parts(), threads);
        (!shares.is_empty()).then(|| MemorySource { rows: Arc::new(rows), schema, shares, limit })
    }
}

/// `parts` in at most so many shares of about the same size.
fn shares(parts: usize, count: usize) -> Vec<Range<usize>> {
    let each = parts.div_ceil(count.max(1)).max(1);
    (0..parts).step_by(each).map(|first| first..parts.min(first + each)).collect()
}

impl DataSource for MemorySource {
    fn open(&self, partition: usize, _context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (rows, mut left) = (Arc::clone(&self.rows), self.limit.unwrap_or(usize::MAX));
        let batches = self.shares[partition].clone().filter_map(move |part| {
            let batch: RecordBatch = (left > 0).then(|| rows.part(part)).flatten()?;
            let batch = batch.slice(0, batch.num_rows().min(left));
            left -= batch.num_rows();
            Some(Ok(batch))
        });
        let batches = RecordBatchStreamAdapter::new(Arc::clone(&self.schema), stream::iter(batches));
        Ok(Box::pin(cooperative(batches)))
    }

    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.rows.rows_max();
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(f, "memory, partitions={}, rows={rows}", self.shares.len())?;
                self.limit.map_or(Ok(()), |limit| write!(f, ", fetch={limit}"))
            }
            DisplayFormatType::TreeRender => {
                writeln!(f, "format=memory")?;
                writeln!(f, "rows={rows}")
            }
        }
    }

    fn repartitioned(
        &self,
        target_partitions: usize,
        _repartition_file_min_size: usize,
        output_ordering: Option<LexOrdering>,
    ) -> Result<Option<Arc<dyn DataSource>>> {
        let shares = shares(self.rows.parts(), target_partitions);
        let is_more = output_ordering.is_none() && shares.len() > self.shares.len();
        Ok(is_more.then(|| Arc::new(MemorySource { shares, ..self.clone() }) as Arc<dyn DataSource>))
    }

    fn output_partitioning(&self) -> Partitioning {
        Partitioning::UnknownPartitioning(self.shares.len())
    }

    fn eq_properties(&self) -> EquivalenceProperties {
        EquivalenceProperties::new(Arc::clone(&self.schema))
    }

    fn scheduling_type(&self) -> SchedulingType {
        SchedulingType::Cooperative
    }

    fn partition_statistics(&self, partition: Option<usize>) -> Result<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.schema);
        let rows = self.rows.rows_max();
        if self.limit.is_some() || (partition.is_some() && self.shares.len() > 1) {
            return Ok(Arc::new(statistics));
        }
        statistics.num_rows = if self.rows.is_exact() { Precision::Exact(rows) } else { Precision::Inexact(rows) };
        for (at, column) in statistics.column_statistics.iter_mut().enumerate() {
            column.null_count = self.rows.nulls(at).map_or(Precision::Absent, Precision::Exact);
        }
        Ok(Arc::new(statistics))
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn DataSource>> {
        Some(Arc::new(MemorySource { limit, ..self.clone() }))
    }

    fn fetch(&self) -> Option<usize> {
        self.limit
    }

    fn try_swapping_with_projection(&self, _projection: &ProjectionExprs) -> Result<Option<Arc<dyn DataSource>>> {
        Ok(None)
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }
}
