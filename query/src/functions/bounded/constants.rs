//! Long constants beside many rows: an operator writes a constant once for each row of a batch.
//!
//! Owns:     the bound of what a constant may become.
//! Does not: bound what functions make of columns (they do).

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Literal;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};

use super::{BATCH_BYTES_MAX, too_large};

/// A constant of so many bytes is within [`BATCH_BYTES_MAX`] in each row of a batch.
const SHORT_BYTES_MAX: usize = 16 << 10;

/// Watches over long constants.
#[derive(Debug)]
pub(in crate::functions) struct LongConstants;

impl PhysicalOptimizerRule for LongConstants {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let watched = plan.transform_up(|node| {
            if node.downcast_ref::<AggregateExec>().is_some()
                || node.downcast_ref::<WindowAggExec>().is_some()
                || node.downcast_ref::<BoundedWindowAggExec>().is_some()
            {
                node.apply_expressions(&mut |expr| {
                    refuse_long(expr)?;
                    Ok(TreeNodeRecursion::Continue)
                })?;
            }
            let Some(projection) = node.downcast_ref::<ProjectionExec>() else { return Ok(Transformed::no(node)) };
            if !projection.expr().iter().any(|column| has_long(&column.expr)) {
                return Ok(Transformed::no(node));
            }
            let columns = projection.expr().iter().map(|column| {
                let expr = Arc::clone(&column.expr).transform_up(|expr| {
                    Ok(match is_long(&expr) {
                        true => Transformed::yes(Arc::new(Watched(expr)) as Arc<dyn PhysicalExpr>),
                        false => Transformed::no(expr),
                    })
                })?;
                Ok(ProjectionExpr { expr: expr.data, alias: column.alias.clone() })
            });
            let columns = columns.collect::<Result<Vec<_>>>()?;
            let watched = ProjectionExec::try_new(columns, Arc::clone(projection.input()))?;
            Ok(Transformed::yes(Arc::new(watched) as Arc<dyn ExecutionPlan>))
        });
        Ok(watched?.data)
    }

    fn name(&self) -> &str {
        "long_constants"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn is_long(expr: &Arc<dyn PhysicalExpr>) -> bool {
    expr.downcast_ref::<Literal>().is_some_and(|literal| literal.value().size() > SHORT_BYTES_MAX)
}

fn has_long(expr: &Arc<dyn PhysicalExpr>) -> bool {
    is_long(expr) || expr.children().into_iter().any(has_long)
}

fn refuse_long(expr: &Arc<dyn PhysicalExpr>) -> Result<()> {
    if has_long(expr) {
        return exec_err!("a constant of more than {SHORT_BYTES_MAX} bytes in an aggregate is not supported");
    }
    Ok(())
}

/// A long constant, which looks at how many rows it is for.
#[derive(Debug)]
struct Watched(Arc<dyn PhysicalExpr>);

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PartialEq for Watched {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq(&other.0)
    }
}

impl Eq for Watched {}

impl Hash for Watched {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl PhysicalExpr for Watched {
    fn data_type(&self, input_schema: &Schema) -> Result<DataType> {
        self.0.data_type(input_schema)
    }

    fn nullable(&self, input_schema: &Schema) -> Result<bool> {
        self.0.nullable(input_schema)
    }

    fn return_field(&self, input_schema: &Schema) -> Result<FieldRef> {
        self.0.return_field(input_schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let value = self.0.evaluate(batch)?;
        if let ColumnarValue::Scalar(scalar) = &value
            && scalar.size().saturating_mul(batch.num_rows()) as u64 > BATCH_BYTES_MAX
        {
            return Err(too_large("a constant in each row", BATCH_BYTES_MAX));
        }
        Ok(value)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        Vec::new()
    }

    fn with_new_children(self: Arc<Self>, _children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        Ok(self)
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_sql(f)
    }
}
