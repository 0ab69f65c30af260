//! The rows of an as-of join.
//!
//! Owns:     walking through both sides at once, sorted by keys and time.
//! Does not: sort: the plan below does, and spills.
//!
//! Keys and times of both sides are made into bytes that compare as they do, the time descending where the next row is
//! wanted and not the last. Then the row that matches is always the last one of the right side that is not beyond.
//!
//! Invariants
//!  1. Memory is in proportion to a batch of each side.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::{SortOptions, concat_batches, interleave, take};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{JoinType, LogicalPlan, Operator, UserDefinedLogicalNode, UserDefinedLogicalNodeCore};
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

use super::node::AsOfJoin;
use crate::functions::own_row;

/// Makes the operator of an [`AsOfJoin`].
pub(in crate::functions) struct AsOfPlanner;

#[async_trait]
impl ExtensionPlanner for AsOfPlanner {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<AsOfJoin>() else { return Ok(None) };
        let [left, right] = physical_inputs else { return internal_err!("AsOfJoin has two inputs") };
        let ours = |expr| planner.create_physical_expr(expr, node.left.schema(), session, context);
        let theirs = |expr| planner.create_physical_expr(expr, node.right.schema(), session, context);
        let keys = node.keys.iter();
        let side = |keys: Result<Vec<_>>, time: Result<_>| Ok::<_, DataFusionError>(Side { keys: keys?, time: time? });
        let layout = Layout {
            schema: Arc::clone(UserDefinedLogicalNodeCore::schema(node).inner()),
            left: side(keys.clone().map(|(key, _)| ours(key)).collect(), ours(&node.left_time))?,
            right: side(keys.map(|(_, key)| theirs(key)).collect(), theirs(&node.right_time))?,
            op: node.op,
            keeps_left: node.join_type == JoinType::Left,
        };
        Ok(Some(Arc::new(AsOfJoinExec::new(Arc::clone(left), Arc::clone(right), layout))))
    }
}

/// What is compared of one side.
#[derive(Clone, Debug)]
struct Side {
    keys: Vec<Arc<dyn PhysicalExpr>>,
    time: Arc<dyn PhysicalExpr>,
}

#[derive(Clone, Debug)]
struct Layout {
    schema: SchemaRef,
    left: Side,
    right: Side,
    op: Operator,
    keeps_left: bool,
}

impl Layout {
    /// The order of times, for which the row that is wanted comes last.
    fn time_order(&self) -> SortOptions {
        SortOptions { descending: matches!(self.op, Operator::Lt | Operator::LtEq), nulls_first: true }
    }

    fn ordering(&self, side: &Side) -> Option<LexOrdering> {
        let keys = side.keys.iter().map(|key| PhysicalSortExpr::new_default(Arc::clone(key)));
        let time = PhysicalSortExpr::new(Arc::clone(&side.time), self.time_order());
        LexOrdering::new(keys.chain([time]))
    }
}

/// The operator.
#[derive(Debug)]
struct AsOfJoinExec {
    left: Arc<dyn ExecutionPlan>,
    right: Arc<dyn ExecutionPlan>,
    layout: Layout,
    properties: Arc<PlanProperties>,
}

impl AsOfJoinExec {
    fn new(left: Arc<dyn ExecutionPlan>, right: Arc<dyn ExecutionPlan>, layout: Layout) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&layout.schema)),
            Partitioning::UnknownPartitioning(left.output_partitioning().partition_count()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        AsOfJoinExec { left, right, layout, properties: Arc::new(properties) }
    }
}

impl DisplayAs for AsOfJoinExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Layout { left, right, op, keeps_left, .. } = &self.layout;
        let kind = if *keeps_left { "Left" } else { "Inner" };
        write!(f, "AsOfJoinExec: {kind}, on=[{} {op} {}", left.time, right.time)?;
        left.keys.iter().zip(&right.keys).try_for_each(|(ours, theirs)| write!(f, ", {ours} = {theirs}"))?;
        write!(f, "]")
    }
}

impl ExecutionPlan for AsOfJoinExec {
    fn name(&self) -> &'static str {
        "AsOfJoinExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        self.input_distribution_requirements().into_per_child()
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        let of = |side: &Side| match side.keys.is_empty() {
            true => Distribution::SinglePartition,
            false => Distribution::KeyPartitioned(side.keys.clone()),
        };
        InputDistributionRequirements::co_partitioned(vec![of(&self.layout.left), of(&self.layout.right)])
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        let of = |side: &Side| self.layout.ordering(side).map(OrderingRequirements::from);
        vec![of(&self.layout.left), of(&self.layout.right)]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true, false]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.left, &self.right]
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (Some(right), Some(left)) = (children.pop(), children.pop()) else {
            return internal_err!("AsOfJoinExec has two inputs");
        };
        Ok(Arc::new(AsOfJoinExec::new(left, right, self.layout.clone())))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        let sides = [&self.layout.left, &self.layout.right].into_iter();
        apply_expression_roots(sides.flat_map(|side| side.keys.iter().chain([&side.time])), f)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let left = self.left.execute(partition, Arc::clone(&context))?;
        let right = Right::try_new(self.layout.clone(), self.right.execute(partition, context)?)?;
        let rows = futures::stream::try_unfold((left, right), |(mut left, mut right)| async move {
            while let Some(batch) = left.try_next().await? {
                let joined = right.join(&batch).await?;
                if joined.num_rows() > 0 {
                    return Ok::<_, DataFusionError>(Some((joined, (left, right))));
                }
            }
            Ok(None)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows.boxed())))
    }
}

/// What is compared, as bytes.
struct Compared {
    keys: Option<Rows>,
    /// Keys and time.
    all: Rows,
}

/// The right side, as far as it is read.
struct Right {
    layout: Layout,
    input: SendableRecordBatchStream,
    by_keys: Option<RowConverter>,
    by_all: RowConverter,
    /// Rows that are looked at, the last one of those before them first.
    now: Option<(RecordBatch, Compared)>,
    /// The first row that is beyond what was looked for last.
    at: usize,
}

/// What the rows of a batch of the left side match.
#[derive(Default)]
struct Matches {
    /// Rows of the right side that matched.
    found: Vec<RecordBatch>,
    /// For each row of the left side, where its match is in `found`.
    of: Vec<Option<(usize, usize)>>,
    /// Rows of the left side whose match is in the rows that are looked at, and its place there.
    pending: Vec<(usize, usize)>,
}

impl Matches {
    fn settle(&mut self, rows: &RecordBatch) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let places: UInt32Array = self.pending.iter().map(|(_, place)| *place as u32).collect();
        let columns = rows.columns().iter().map(|column| take(column, &places, None)).collect::<Result<_, _>>()?;
        for (place, (row, _)) in self.pending.drain(..).enumerate() {
            self.of[row] = Some((self.found.len(), place));
        }
        self.found.push(RecordBatch::try_new(rows.schema(), columns)?);
        Ok(())
    }
}

fn values(side: &Side, rows: &RecordBatch) -> Result<(Vec<ArrayRef>, ArrayRef)> {
    let of = |expr: &Arc<dyn PhysicalExpr>| expr.evaluate(rows)?.into_array(rows.num_rows());
    Ok((side.keys.iter().map(of).collect::<Result<_>>()?, of(&side.time)?))
}

impl Right {
    fn try_new(layout: Layout, input: SendableRecordBatchStream) -> Result<Self> {
        let schema = input.schema();
        let types: Vec<DataType> = layout.right.keys.iter().map(|key| key.data_type(&schema)).collect::<Result<_>>()?;
        let time = SortField::new_with_options(layout.right.time.data_type(&schema)?, layout.time_order());
        let keys: Vec<_> = types.into_iter().map(SortField::new).collect();
        Ok(Right {
            by_keys: if keys.is_empty() { None } else { Some(RowConverter::new(keys.clone())?) },
            by_all: RowConverter::new(keys.into_iter().chain([time]).collect())?,
            layout,
            input,
            now: None,
            at: 0,
        })
    }

    fn compared(&self, keys: Vec<ArrayRef>, time: ArrayRef) -> Result<Compared> {
        let by_keys = self.by_keys.as_ref().map(|converter| converter.convert_columns(&keys)).transpose()?;
        Ok(Compared { keys: by_keys, all: self.by_all.convert_columns(&[keys, vec![time]].concat())? })
    }

    /// The next rows of the right side; `false` after the last ones.
    async fn advance(&mut self) -> Result<bool> {
        loop {
            let Some(batch) = self.input.try_next().await? else { return Ok(false) };
            if batch.num_rows() == 0 {
                continue;
            }
            let (rows, at) = match self.now.take() {
                Some((before, _)) => {
                    let last = own_row(&before, before.num_rows() - 1)?;
                    (concat_batches(&batch.schema(), [&last, &batch])?, 1)
                }
                None => (batch, 0),
            };
            let (keys, time) = values(&self.layout.right, &rows)?;
            let compared = self.compared(keys, time)?;
            self.now = Some((rows, compared));
            self.at = at;
            return Ok(true);
        }
    }

    /// Rows of the left side with what they match.
    async fn join(&mut self, left: &RecordBatch) -> Result<RecordBatch> {
        let (keys, time) = values(&self.layout.left, left)?;
        let nulls: Vec<_> = keys.iter().chain([&time]).filter_map(Array::logical_nulls).collect();
        let wanted = self.compared(keys, time)?;
        let is_inclusive = matches!(self.layout.op, Operator::GtEq | Operator::LtEq);
        let mut matches = Matches { of: vec![None; left.num_rows()], ..Matches::default() };
        for row in 0..left.num_rows() {
            if nulls.iter().any(|nulls| nulls.is_null(row)) {
                continue;
            }
            let sought = wanted.all.row(row);
            // The row beyond, reading on as long as there is none.
            loop {
                if let Some((rows, compared)) = &self.now {
                    let is_before = |at: usize| {
                        let theirs = compared.all.row(at);
                        theirs < sought || (is_inclusive && theirs == sought)
                    };
                    while self.at < rows.num_rows() && is_before(self.at) {
                        self.at += 1;
                    }
                    if self.at < rows.num_rows() {
                        break;
                    }
                    matches.settle(rows)?;
                }
                if !self.advance().await? {
                    break;
                }
            }
            if let Some((_, compared)) = &self.now
                && let Some(last) = self.at.checked_sub(1)
            {
                let is_same = match (&compared.keys, &wanted.keys) {
                    (Some(theirs), Some(ours)) => theirs.row(last) == ours.row(row),
                    _ => true,
                };
                if is_same {
                    matches.pending.push((row, last));
                }
            }
        }
        if let Some((rows, _)) = &self.now {
            matches.settle(rows)?;
        }
        self.joined(left, &matches)
    }

    fn joined(&self, left: &RecordBatch, matches: &Matches) -> Result<RecordBatch> {
        let is_kept = |row: &usize| self.layout.keeps_left || matches.of[*row].is_some();
        let kept: Vec<usize> = (0..left.num_rows()).filter(is_kept).collect();
        let rows: UInt32Array = kept.iter().map(|row| *row as u32).collect();
        let mut columns =
            left.columns().iter().map(|column| take(column, &rows, None)).collect::<Result<Vec<_>, _>>()?;
        // After all that was found one row of NULLs, for what was not.
        let none = (matches.found.len(), 0);
        let places: Vec<(usize, usize)> = kept.iter().map(|row| matches.of[*row].unwrap_or(none)).collect();
        for (at, field) in self.input.schema().fields().iter().enumerate() {
            let null = new_null_array(field.data_type(), 1);
            let found = matches.found.iter().map(|rows| rows.column(at).as_ref());
            let parts: Vec<&dyn Array> = found.chain([null.as_ref()]).collect();
            columns.push(interleave(&parts, &places)?);
        }
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(kept.len()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.layout.schema), columns, &options)?)
    }
}
