//! The rows of filled gaps.
//!
//! Owns:     walking through sorted rows, series by series, and adding those that are missing.
//! Does not: sort or group: the plan below does, and spills.
//!
//! Invariants
//!  1. Memory is in proportion to a batch, however many gaps there are: rows are made batch by batch.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{cast, concat_batches, take};
use arrow::datatypes::{Float64Type, Int64Type, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{
    EquivalenceProperties, LexOrdering, OrderingRequirements, PhysicalExpr, PhysicalSortExpr,
};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, ExecutionPlanProperties,
    InputDistributionRequirements, Partitioning, PlanProperties, ReplaceChildrenOptions, apply_expression_roots,
};
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};
use futures::{StreamExt, TryStreamExt};

use super::node::{GapFill, How};
use crate::functions::own_row;

/// Makes the operator of a [`GapFill`].
pub(in crate::functions) struct GapFillPlanner;

#[async_trait]
impl ExtensionPlanner for GapFillPlanner {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<GapFill>() else { return Ok(None) };
        let [input] = physical_inputs else { return internal_err!("GapFill has one input") };
        let below = node.input.schema();
        let fills = node
            .fills
            .iter()
            .map(|fill| Ok((fill.how, planner.create_physical_expr(&fill.value, below, session, context)?)));
        let exec = GapFillExec::try_new(
            Arc::clone(input),
            Layout {
                schema: Arc::clone(UserDefinedLogicalNodeCore::schema(node).inner()),
                time: below.index_of_column(&node.time)?,
                keys: node.keys.iter().map(|key| below.index_of_column(key)).collect::<Result<_>>()?,
                fills: fills.collect::<Result<_>>()?,
                buckets: Arc::clone(&node.buckets),
            },
        )?;
        Ok(Some(Arc::new(exec)))
    }
}

/// Which columns are what.
#[derive(Clone, Debug)]
struct Layout {
    /// Of the rows that come out: the input's columns, then those that are filled.
    schema: SchemaRef,
    time: usize,
    keys: Vec<usize>,
    fills: Vec<(How, Arc<dyn PhysicalExpr>)>,
    buckets: Arc<[i64]>,
}

/// The operator.
#[derive(Debug)]
struct GapFillExec {
    input: Arc<dyn ExecutionPlan>,
    layout: Layout,
    properties: Arc<PlanProperties>,
}

impl GapFillExec {
    fn try_new(input: Arc<dyn ExecutionPlan>, layout: Layout) -> Result<Self> {
        // What comes out is in the order of what comes in.
        let ordering: Vec<_> = ordering(&input, &layout).into_iter().collect();
        let properties = PlanProperties::new(
            EquivalenceProperties::new_with_orderings(Arc::clone(&layout.schema), ordering),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(GapFillExec { input, layout, properties: Arc::new(properties) })
    }
}

fn column(input: &Arc<dyn ExecutionPlan>, at: usize) -> Arc<dyn PhysicalExpr> {
    Arc::new(Column::new(input.schema().field(at).name(), at))
}

/// By series, then by time.
fn ordering(input: &Arc<dyn ExecutionPlan>, layout: &Layout) -> Option<LexOrdering> {
    let columns = layout.keys.iter().chain([&layout.time]);
    LexOrdering::new(columns.map(|at| PhysicalSortExpr::new_default(column(input, *at))))
}

impl DisplayAs for GapFillExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GapFillExec: buckets={}, fills={}", self.layout.buckets.len(), self.layout.fills.len())
    }
}

impl ExecutionPlan for GapFillExec {
    fn name(&self) -> &'static str {
        "GapFillExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        self.input_distribution_requirements().into_per_child()
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        let keys: Vec<_> = self.layout.keys.iter().map(|at| column(&self.input, *at)).collect();
        let distribution =
            if keys.is_empty() { Distribution::SinglePartition } else { Distribution::KeyPartitioned(keys) };
        InputDistributionRequirements::new(vec![distribution])
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        vec![ordering(&self.input, &self.layout).map(OrderingRequirements::from)]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(input) = children.pop() else { return internal_err!("GapFillExec has one input") };
        Ok(Arc::new(GapFillExec::try_new(input, self.layout.clone())?))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        apply_expression_roots(self.layout.fills.iter().map(|(_, expr)| expr), f)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, Arc::clone(&context))?;
        let filler = Filler::try_new(self.layout.clone(), input.schema(), context.session_config().batch_size())?;
        let rows = futures::stream::try_unfold((input, filler), |(mut input, mut filler)| async move {
            loop {
                if let Some(batch) = filler.next_batch()? {
                    return Ok::<_, DataFusionError>(Some((batch, (input, filler))));
                }
                if filler.is_last {
                    return Ok(None);
                }
                match input.try_next().await? {
                    Some(batch) => filler.take(batch)?,
                    None => filler.is_last = true,
                }
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows.boxed())))
    }
}

/// Rows of the input that are looked at, the last one of those before them first.
struct Rest {
    rows: RecordBatch,
    keys: Option<Rows>,
    times: Int64Array,
    /// What is filled, as it is in these rows.
    values: Vec<ArrayRef>,
}

/// Where rows that come out are taken from.
#[derive(Default)]
struct Taken {
    times: Vec<i64>,
    /// The row with the keys of the series.
    series: Vec<u32>,
    /// The row itself; a gap has none.
    itself: Vec<Option<u32>>,
    before: Vec<Option<u32>>,
    after: Vec<Option<u32>>,
}

struct Filler {
    layout: Layout,
    below: SchemaRef,
    converter: RowConverter,
    batch_size: usize,
    rest: Option<Rest>,
    /// The next row to show.
    row: usize,
    /// The next bucket of the series.
    bucket: usize,
    /// Whether `row` is known to be the first of its series.
    has_begun: bool,
    is_last: bool,
}

impl Filler {
    fn try_new(layout: Layout, below: SchemaRef, batch_size: usize) -> Result<Self> {
        let fields = layout.keys.iter().map(|at| SortField::new(below.field(*at).data_type().clone())).collect();
        Ok(Filler {
            layout,
            below,
            converter: RowConverter::new(fields)?,
            batch_size,
            rest: None,
            row: 0,
            bucket: 0,
            has_begun: false,
            is_last: false,
        })
    }

    /// Takes the next rows; all before were shown.
    fn take(&mut self, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let rows = match self.rest.take() {
            Some(rest) => {
                self.row = 1;
                concat_batches(&self.below, [&own_row(&rest.rows, rest.rows.num_rows() - 1)?, &batch])?
            }
            None => batch,
        };
        let key_columns: Vec<_> = self.layout.keys.iter().map(|at| Arc::clone(rows.column(*at))).collect();
        let keys = if key_columns.is_empty() { None } else { Some(self.converter.convert_columns(&key_columns)?) };
        let times = cast(rows.column(self.layout.time), &arrow::datatypes::DataType::Int64)?;
        let value = |(_, expr): &(How, Arc<dyn PhysicalExpr>)| expr.evaluate(&rows)?.into_array(rows.num_rows());
        let values = self.layout.fills.iter().map(value).collect::<Result<_>>()?;
        self.rest = Some(Rest { keys, times: times.as_primitive::<Int64Type>().clone(), values, rows });
        Ok(())
    }

    /// The next rows that come out of those taken; `None` when more must be taken.
    fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        let Some(rest) = &self.rest else { return Ok(None) };
        let (buckets, count) = (&self.layout.buckets, rest.rows.num_rows());
        let mut taken = Taken::default();
        while taken.times.len() < self.batch_size {
            let at_end = self.row == count;
            let is_same = !at_end
                && self.row > 0
                && rest.keys.as_ref().is_none_or(|keys| keys.row(self.row) == keys.row(self.row - 1));
            if !is_same && !self.has_begun && self.row > 0 && (!at_end || self.is_last) {
                // The series before ends: what is missing after its last row.
                if let Some(bucket) = buckets.get(self.bucket) {
                    taken.gap(*bucket, self.row - 1, Some(self.row - 1), None);
                    self.bucket += 1;
                    continue;
                }
                self.has_begun = !at_end;
                self.bucket = if at_end { self.bucket } else { 0 };
            }
            if at_end {
                break;
            }
            let time = rest.times.value(self.row);
            match buckets.get(self.bucket) {
                Some(bucket) if *bucket < time && rest.times.is_valid(self.row) => {
                    taken.gap(*bucket, self.row, is_same.then(|| self.row - 1), Some(self.row));
                    self.bucket += 1;
                }
                next => {
                    self.bucket += usize::from(next == Some(&time));
                    taken.row(time, self.row);
                    self.row += 1;
                    self.has_begun = false;
                }
            }
        }
        if taken.times.is_empty() {
            return Ok(None);
        }
        self.made(rest, taken).map(Some)
    }

    fn made(&self, rest: &Rest, taken: Taken) -> Result<RecordBatch> {
        let (series, itself) = (UInt32Array::from(taken.series.clone()), UInt32Array::from(taken.itself.clone()));
        let mut columns = Vec::with_capacity(self.layout.schema.fields().len());
        for (at, column) in rest.rows.columns().iter().enumerate() {
            columns.push(if at == self.layout.time {
                self.times(rest, &taken)?
            } else if self.layout.keys.contains(&at) {
                take(column, &series, None)?
            } else {
                take(column, &itself, None)?
            });
        }
        for ((how, _), values) in self.layout.fills.iter().zip(&rest.values) {
            columns.push(match how {
                How::Carry => {
                    let from = taken.itself.iter().zip(&taken.before).map(|(itself, before)| itself.or(*before));
                    take(values, &from.collect::<UInt32Array>(), None)?
                }
                How::Line => Arc::new(lines(values.as_primitive::<Float64Type>(), &rest.times, &taken)),
            });
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.layout.schema), columns)?)
    }

    /// The times of gaps and of rows; a row without a time has none.
    fn times(&self, rest: &Rest, taken: &Taken) -> Result<ArrayRef> {
        let of = |(time, itself): (&i64, &Option<u32>)| match itself {
            Some(row) if rest.times.is_null(*row as usize) => None,
            _ => Some(*time),
        };
        let times: Int64Array = taken.times.iter().zip(&taken.itself).map(of).collect();
        Ok(cast(&times, self.layout.schema.field(self.layout.time).data_type())?)
    }
}

impl Taken {
    fn gap(&mut self, time: i64, series: usize, before: Option<usize>, after: Option<usize>) {
        self.times.push(time);
        self.series.push(series as u32);
        self.itself.push(None);
        self.before.push(before.map(|row| row as u32));
        self.after.push(after.map(|row| row as u32));
    }

    fn row(&mut self, time: i64, row: usize) {
        self.times.push(time);
        self.series.push(row as u32);
        self.itself.push(Some(row as u32));
        self.before.push(None);
        self.after.push(None);
    }
}

/// Values of rows, and between two of them those on the line.
fn lines(values: &Float64Array, times: &Int64Array, taken: &Taken) -> Float64Array {
    let value = |row: u32| values.is_valid(row as usize).then(|| values.value(row as usize));
    let of = |at: usize| match (taken.itself[at], taken.before[at], taken.after[at]) {
        (Some(row), ..) => value(row),
        (None, Some(before), Some(after)) => {
            let (from, to) = (value(before)?, value(after)?);
            let since = |row: u32| (i128::from(taken.times[at]) - i128::from(times.value(row as usize))) as f64;
            let (passed, left) = (since(before), -since(after));
            Some(from + (to - from) * passed / (passed + left))
        }
        _ => None,
    };
    (0..taken.times.len()).map(of).collect()
}
