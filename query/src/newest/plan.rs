//! Finds, in a plan, the tables of which only the newest row of each series matters.
//!
//! Owns:     proving that all other rows could not change the answer.
//! Does not: rewrite statements: `functions::latest` has made an aggregate of `DISTINCT ON` and `row_number() … = 1`.
//!
//! An aggregate by tags whose results are values of the newest row (`last`, `max(time)`, whole rows) sees a series as a
//! whole, so a row that is older than another one of its series and adds no value to it cannot win. Between the table and
//! the aggregate there may be conditions on tags, which are true for all rows of a series or for none, and lower bounds of
//! the time: if the newest row is too old, so are all others.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::Transformed;
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Aggregate, BinaryExpr, Expr, LogicalPlan, Operator, TableScan};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use storage::ColumnKind;

use super::NewestTable;
use crate::provider::ShardTable;

/// Gives the newest rows to the aggregates that need no others.
#[derive(Debug)]
pub(crate) struct NewestOnly;

impl OptimizerRule for NewestOnly {
    fn name(&self) -> &'static str {
        "newest_only"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Aggregate(aggregate) = &plan else { return Ok(Transformed::no(plan)) };
        match of_aggregate(aggregate)? {
            Some(newest) => Ok(Transformed::yes(LogicalPlan::Aggregate(newest))),
            None => Ok(Transformed::no(plan)),
        }
    }
}

/// What a column of a plan's output is in the table.
type Kinds = Vec<Option<ColumnKind>>;

fn of_aggregate(aggregate: &Aggregate) -> Result<Option<Aggregate>> {
    if aggregate.aggr_expr.is_empty() {
        return Ok(None);
    }
    let Some((input, kinds)) = newest_of(&aggregate.input)? else { return Ok(None) };
    let kind = |expr: &Expr| match expr {
        Expr::Column(column) => aggregate.input.schema().maybe_index_of_column(column).and_then(|at| kinds[at]),
        _ => None,
    };
    let is_by_tags = aggregate.group_expr.iter().all(|expr| matches!(kind(expr), Some(ColumnKind::Tag)));
    if !is_by_tags || !aggregate.aggr_expr.iter().all(|expr| is_of_newest(expr, kind)) {
        return Ok(None);
    }
    let schema = Arc::clone(&aggregate.schema);
    let (groups, results) = (aggregate.group_expr.clone(), aggregate.aggr_expr.clone());
    Aggregate::try_new_with_schema(Arc::new(input), groups, results, schema).map(Some)
}

/// Whether an aggregate gives values of the newest rows of its series.
fn is_of_newest(expr: &Expr, kind: impl Fn(&Expr) -> Option<ColumnKind>) -> bool {
    let expr = match expr {
        Expr::Alias(alias) => &*alias.expr,
        other => other,
    };
    let Expr::AggregateFunction(AggregateFunction { func, params }) = expr else { return false };
    if params.distinct || params.filter.is_some() || !params.order_by.is_empty() || params.null_treatment.is_some() {
        return false;
    }
    let is_time = |expr: &Expr| matches!(kind(expr), Some(ColumnKind::Time));
    match (func.name(), params.args.as_slice()) {
        // Its newest value, so an expression that makes NULL of one could look further back.
        ("last", [value, time]) => kind(value).is_some() && is_time(time),
        ("eden_last_row", [values @ .., time]) => is_time(time) && !values.iter().any(Expr::is_volatile),
        ("max", [time]) => is_time(time),
        _ => false,
    }
}

/// `plan` over the newest rows of its table, and what its columns are; `None` if it needs others too.
fn newest_of(plan: &LogicalPlan) -> Result<Option<(LogicalPlan, Kinds)>> {
    match plan {
        LogicalPlan::TableScan(scan) => of_scan(scan),
        LogicalPlan::SubqueryAlias(alias) => {
            let Some((input, kinds)) = newest_of(&alias.input)? else { return Ok(None) };
            Ok(Some((plan.with_new_exprs(plan.expressions(), vec![input])?, kinds)))
        }
        LogicalPlan::Filter(filter) => {
            let Some((input, kinds)) = newest_of(&filter.input)? else { return Ok(None) };
            if !is_of_series(&filter.predicate, &filter.input, &kinds) {
                return Ok(None);
            }
            Ok(Some((plan.with_new_exprs(plan.expressions(), vec![input])?, kinds)))
        }
        LogicalPlan::Projection(projection) => {
            let Some((input, kinds)) = newest_of(&projection.input)? else { return Ok(None) };
            if projection.expr.iter().any(Expr::is_volatile) {
                return Ok(None);
            }
            let kind = |expr: &Expr| match expr {
                Expr::Column(column) => {
                    projection.input.schema().maybe_index_of_column(column).and_then(|at| kinds[at])
                }
                _ => None,
            };
            let kinds = projection.expr.iter().map(|expr| match expr {
                Expr::Alias(alias) => kind(&alias.expr),
                other => kind(other),
            });
            let kinds = kinds.collect();
            Ok(Some((plan.with_new_exprs(plan.expressions(), vec![input])?, kinds)))
        }
        _ => Ok(None),
    }
}

fn of_scan(scan: &TableScan) -> Result<Option<(LogicalPlan, Kinds)>> {
    let Ok(provider) = source_as_provider(&scan.source) else { return Ok(None) };
    let Some(table) = provider.downcast_ref::<ShardTable>() else { return Ok(None) };
    if scan.fetch.is_some() {
        return Ok(None);
    }
    let columns = table.snapshot.schema.columns();
    let kind = |name: &str| columns.iter().find(|column| *column.name == *name).map(|column| column.kind);
    let kinds: Kinds = scan.projected_schema.fields().iter().map(|field| kind(field.name())).collect();
    // Its filters are conditions above it too: a provider leaves out what it can, and no more is promised.
    let newest = provider_as_source(Arc::new(NewestTable::new(table.clone())));
    Ok(Some((LogicalPlan::TableScan(TableScan { source: newest, ..scan.clone() }), kinds)))
}

/// Whether a condition is true for all rows of a series or none, or a lower bound of the time.
fn is_of_series(predicate: &Expr, input: &LogicalPlan, kinds: &Kinds) -> bool {
    let kind = |expr: &Expr| match expr {
        Expr::Column(column) => input.schema().maybe_index_of_column(column).and_then(|at| kinds[at]),
        _ => None,
    };
    split_conjunction(predicate).into_iter().all(|condition| {
        if condition.is_volatile() {
            return false;
        }
        let columns = condition.column_refs();
        if columns.iter().all(|column| matches!(kind(&Expr::Column((*column).clone())), Some(ColumnKind::Tag))) {
            return true;
        }
        let Expr::BinaryExpr(BinaryExpr { left, op, right }) = condition else { return false };
        let (time, op, bound) = match kind(left) {
            Some(ColumnKind::Time) => (left, Some(*op), right),
            _ => (right, op.swap(), left),
        };
        matches!(kind(time), Some(ColumnKind::Time))
            && matches!(op, Some(Operator::Gt | Operator::GtEq))
            && bound.column_refs().is_empty()
    })
}
