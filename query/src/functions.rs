//! Time series in SQL, under the names that users know (docs/functions.md).
//!
//! Owns:     the functions, joins and rules of ours, and how a session gets them.
//! Does not: know tables (`catalog` does), or what DataFusion has already.
//!
//! One file a family. A function says in its errors which argument is wrong, by the function's name.

pub(crate) mod asof;
pub(crate) mod bounded;
mod calendar;
mod format;
mod gapfill;
mod json;
mod latest;
pub(crate) mod like;
mod percentile;
mod points;
mod stride;
mod time_bucket;
mod top_k;
mod winners;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::{Result, ScalarValue};
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::{AggregateUDF, LogicalPlan, ScalarUDF};
use datafusion::optimizer::{Optimizer, OptimizerRule};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};

use crate::newest::NewestOnly;
use crate::runs::AggregateByRuns;

/// Adds the rules and the operators.
pub(crate) fn with_rules(builder: SessionStateBuilder) -> SessionStateBuilder {
    let mut rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> = Vec::new();
    // First, when WHERE is still where it was written.
    rules.push(Arc::new(gapfill::FillGaps));
    rules.push(Arc::new(asof::PushDown));
    rules.extend(Optimizer::new().rules);
    // Last, when only the columns are left that somebody wants.
    rules.push(Arc::new(latest::LatestRow));
    rules.push(Arc::new(NewestOnly));
    builder
        .with_optimizer_rules(rules)
        .with_physical_optimizer_rule(Arc::new(AggregateByRuns))
        .with_physical_optimizer_rule(Arc::new(bounded::LongConstants))
        .with_query_planner(Arc::new(Planner))
        .with_relation_planners(vec![Arc::new(asof::AsOfRelations)])
}

/// Adds the functions.
///
/// # Errors
/// None that a statement could bring about.
pub(crate) fn register(state: &mut SessionState) -> Result<()> {
    json::register(state)?;
    bounded::register(state)?;
    state.register_udf(Arc::new(ScalarUDF::from(time_bucket::TimeBucket::new())))?;
    state.register_udf(Arc::new(ScalarUDF::from(format::Format::new())))?;
    state.register_udf(Arc::new(ScalarUDF::from(like::LikeEscape::new())))?;
    for marker in gapfill::markers() {
        state.register_udf(Arc::new(ScalarUDF::from(marker)))?;
    }
    for which in [winners::Which::First, winners::Which::Last] {
        state.register_udaf(Arc::new(AggregateUDF::from(winners::Winner::value(which))))?;
    }
    for kind in [points::Kind::Rate, points::Kind::Increase, points::Kind::Delta, points::Kind::Lttb] {
        state.register_udaf(Arc::new(AggregateUDF::from(points::OfPoints::new(kind))))?;
    }
    state.register_udaf(Arc::new(AggregateUDF::from(percentile::ApproxPercentile::new())))?;
    state.register_udaf(Arc::new(AggregateUDF::from(top_k::TopK::new())))?;
    for name in calendar::NAMES {
        let plain = state.udf(name)?;
        state.register_udf(Arc::new(ScalarUDF::from(calendar::InUtc(plain))))?;
    }
    // Its name in InfluxDB 3 and in what Grafana sends.
    if let Ok(part) = state.udf("date_part") {
        state.register_udf(Arc::new(part.as_ref().clone().with_aliases(["datepart"])))?;
    }
    Ok(())
}

/// DataFusion's planner, with the operators of ours.
#[derive(Debug)]
struct Planner;

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let extensions: Vec<Arc<dyn ExtensionPlanner + Send + Sync>> =
            vec![Arc::new(gapfill::GapFillPlanner), Arc::new(asof::AsOfPlanner)];
        DefaultPhysicalPlanner::with_extension_planners(extensions).create_physical_plan(plan, session).await
    }
}

/// A column without the bytes of texts that only other rows have.
pub(crate) fn own(column: ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Utf8View => Arc::new(column.as_string_view().gc()),
        DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
        _ => column,
    }
}

/// A list of these values, as one value.
fn list(values: ArrayRef) -> Result<ScalarValue> {
    let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
    let offsets = OffsetBuffer::from_lengths([values.len()]);
    Ok(ScalarValue::List(Arc::new(ListArray::try_new(field, offsets, values, None)?)))
}

/// One row of a batch that keeps nothing of the others.
fn own_row(batch: &RecordBatch, row: usize) -> Result<RecordBatch> {
    let at = arrow::array::UInt32Array::from(vec![row as u32]);
    let take = |column: &ArrayRef| Ok(own(arrow::compute::take(column, &at, None)?));
    let columns = batch.columns().iter().map(take).collect::<Result<Vec<_>>>()?;
    Ok(RecordBatch::try_new(batch.schema(), columns)?)
}
