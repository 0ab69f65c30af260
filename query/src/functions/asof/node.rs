//! The plan of an as-of join, as the optimizer sees it.
//!
//! Owns:     types of what is compared, columns that nobody wants, conditions that need not wait for the join.
//! Does not: make rows (`exec` does).

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, DFSchemaRef, Result, plan_err};
use datafusion::logical_expr::builder::build_join_schema;
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Expr, ExprSchemable, Extension, Filter, JoinType, LogicalPlan, LogicalPlanBuilder, Operator,
    UserDefinedLogicalNodeCore,
};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

/// An as-of join.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct AsOfJoin {
    pub(super) left: LogicalPlan,
    /// Without rows that can match nothing.
    pub(super) right: LogicalPlan,
    /// Inner, or left.
    pub(super) join_type: JoinType,
    /// What is equal.
    pub(super) keys: Vec<(Expr, Expr)>,
    pub(super) left_time: Expr,
    pub(super) right_time: Expr,
    /// How `left_time` is to `right_time`.
    pub(super) op: Operator,
    schema: DFSchemaRef,
}

/// Both sides in one type.
fn coerced(left: (Expr, &DFSchema), right: (Expr, &DFSchema)) -> Result<(Expr, Expr)> {
    let (left_type, right_type) = (left.0.get_type(left.1)?, right.0.get_type(right.1)?);
    let Some(common) = comparison_coercion(&left_type, &right_type) else {
        return plan_err!(
            "ASOF JOIN: {} of type {left_type} cannot be compared with {} of type {right_type}",
            left.0,
            right.0
        );
    };
    Ok((left.0.cast_to(&common, left.1)?, right.0.cast_to(&common, right.1)?))
}

impl AsOfJoin {
    pub(super) fn try_new(
        left: LogicalPlan,
        right: LogicalPlan,
        join_type: JoinType,
        keys: Vec<(Expr, Expr)>,
        (left_time, right_time, op): (Expr, Expr, Operator),
    ) -> Result<Self> {
        let pair = |ours, theirs| coerced((ours, left.schema()), (theirs, right.schema()));
        let keys = keys.into_iter().map(|(ours, theirs)| pair(ours, theirs)).collect::<Result<Vec<_>>>()?;
        let (left_time, right_time) = pair(left_time, right_time)?;
        // NULL matches nothing.
        let compared = keys.iter().map(|(_, theirs)| theirs).chain([&right_time]);
        let known = conjunction(compared.map(|theirs| theirs.clone().is_not_null()));
        let right = match known {
            Some(known) => LogicalPlanBuilder::from(right).filter(known)?.build()?,
            None => right,
        };
        AsOfJoin { schema: left.schema().clone(), left, right, join_type, keys, left_time, right_time, op }
            .with_schema()
    }

    fn with_schema(mut self) -> Result<Self> {
        self.schema = Arc::new(build_join_schema(self.left.schema(), self.right.schema(), &self.join_type)?);
        Ok(self)
    }
}

impl PartialOrd for AsOfJoin {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

/// The places of the columns of `exprs`.
fn places<'a>(exprs: impl Iterator<Item = &'a Expr>, schema: &DFSchema) -> Vec<usize> {
    exprs.flat_map(|expr| expr.column_refs()).filter_map(|column| schema.maybe_index_of_column(column)).collect()
}

impl UserDefinedLogicalNodeCore for AsOfJoin {
    fn name(&self) -> &'static str {
        "AsOfJoin"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.left, &self.right]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        let keys = self.keys.iter().flat_map(|(ours, theirs)| [ours.clone(), theirs.clone()]);
        keys.chain([self.left_time.clone(), self.right_time.clone()]).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AsOfJoin: {} {} {} {}", self.join_type, self.left_time, self.op, self.right_time)?;
        self.keys.iter().try_for_each(|(ours, theirs)| write!(f, ", {ours} = {theirs}"))
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let (Some(right), Some(left)) = (inputs.pop(), inputs.pop()) else {
            return plan_err!("AsOfJoin has two inputs");
        };
        let mut exprs = exprs.into_iter();
        let mut pair = || match (exprs.next(), exprs.next()) {
            (Some(ours), Some(theirs)) => Ok((ours, theirs)),
            _ => plan_err!("AsOfJoin compares expressions in pairs"),
        };
        let keys = self.keys.iter().map(|_| pair()).collect::<Result<_>>()?;
        let (left_time, right_time) = pair()?;
        AsOfJoin { left, right, keys, left_time, right_time, ..self.clone() }.with_schema()
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let count = self.left.schema().fields().len();
        let (ours, theirs): (Vec<usize>, Vec<usize>) = output_columns.iter().partition(|at| **at < count);
        let left = self.keys.iter().map(|(ours, _)| ours).chain([&self.left_time]);
        let right = self.keys.iter().map(|(_, theirs)| theirs).chain([&self.right_time]);
        Some(vec![
            [ours, places(left, self.left.schema())].concat(),
            [theirs.iter().map(|at| at - count).collect(), places(right, self.right.schema())].concat(),
        ])
    }
}

/// Moves conditions on the rows of the left side below the join: they leave out the same rows there.
#[derive(Debug)]
pub(in crate::functions) struct PushDown;

impl OptimizerRule for PushDown {
    fn name(&self) -> &'static str {
        "push_down_through_as_of_join"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Filter(filter) = &plan else { return Ok(Transformed::no(plan)) };
        let LogicalPlan::Extension(Extension { node }) = filter.input.as_ref() else {
            return Ok(Transformed::no(plan));
        };
        let Some(join) = node.as_any().downcast_ref::<AsOfJoin>() else { return Ok(Transformed::no(plan)) };
        let ours = |column: &&Column| join.left.schema().has_column(column);
        let (below, above): (Vec<Expr>, Vec<Expr>) =
            split_conjunction_owned(filter.predicate.clone()).into_iter().partition(|condition| {
                let columns = condition.column_refs();
                !columns.is_empty() && columns.iter().all(ours) && !condition.is_volatile()
            });
        let Some(below) = conjunction(below) else { return Ok(Transformed::no(plan)) };
        let left = LogicalPlan::Filter(Filter::try_new(below, Arc::new(join.left.clone()))?);
        let joined = AsOfJoin { left, ..join.clone() };
        let joined = LogicalPlan::Extension(Extension { node: Arc::new(joined) });
        Ok(Transformed::yes(match conjunction(above) {
            Some(above) => LogicalPlan::Filter(Filter::try_new(above, Arc::new(joined))?),
            None => joined,
        }))
    }
}
