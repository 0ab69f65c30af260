//! From when to when gaps are filled.
//!
//! Owns:     finding the bounds of a time in the conditions below an aggregate, and constants such as `now() - INTERVAL '1 day'`.
//! Does not: filter anything: the conditions stay where they are.

use arrow::datatypes::DataType;
use datafusion::common::{Column, Result, ScalarValue, plan_err};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator};
use datafusion::optimizer::OptimizerConfig;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;

use crate::functions::time_bucket::time_of;

/// Computes what is constant while a statement runs.
pub(super) struct Fold {
    simplifier: ExprSimplifier,
}

impl Fold {
    pub(super) fn new(config: &dyn OptimizerConfig) -> Self {
        let context = SimplifyContext::builder()
            .with_query_execution_start_time(config.query_execution_start_time())
            .with_config_options(config.options())
            .build();
        Fold { simplifier: ExprSimplifier::new(context) }
    }

    /// The value of an expression, unless it depends on rows.
    pub(super) fn constant(&self, expr: &Expr) -> Result<Option<ScalarValue>> {
        if !expr.column_refs().is_empty() {
            return Ok(None);
        }
        Ok(match self.simplifier.simplify(expr.clone())? {
            Expr::Literal(value, _) => Some(value),
            _ => None,
        })
    }
}

/// The first and the last time that count, both inclusive, in units of the time column.
pub(super) type Range = (i64, i64);

/// The bounds of `time`: those that are given, from the first and before the second, else those of WHERE.
///
/// # Errors
/// A bound that is nowhere, with what to add.
pub(super) fn range(
    function: &str,
    (start, finish): (Option<i64>, Option<i64>),
    time: &Expr,
    input: &LogicalPlan,
    time_type: &DataType,
    fold: &Fold,
) -> Result<Range> {
    let mut found = Found::default();
    if let Expr::Column(column) = uncast(time) {
        search(input, column.clone(), time_type, fold, &mut found)?;
    }
    let first = start.or(found.first);
    let last = finish.map(|finish| finish.saturating_sub(1)).or(found.last);
    let (Some(first), Some(last)) = (first, last) else {
        let (missing, condition) = match first {
            None => ("from when", ">= TIMESTAMP '…'"),
            Some(_) => ("until when", "< now()"),
        };
        return plan_err!("{function}: it is not said {missing} gaps are filled; add to WHERE: {time} {condition}");
    };
    Ok((first, last))
}

#[derive(Default)]
struct Found {
    first: Option<i64>,
    last: Option<i64>,
}

impl Found {
    fn at_least(&mut self, time: i64) {
        self.first = Some(self.first.map_or(time, |first| first.max(time)));
    }

    fn at_most(&mut self, time: i64) {
        self.last = Some(self.last.map_or(time, |last| last.min(time)));
    }
}

/// Without what only changes the type.
fn uncast(expr: &Expr) -> &Expr {
    match expr {
        Expr::Cast(cast) => uncast(&cast.expr),
        Expr::TryCast(cast) => uncast(&cast.expr),
        Expr::Alias(alias) => uncast(&alias.expr),
        other => other,
    }
}

/// Conditions on `column` in `plan` and below, as far as it is the same column.
fn search(plan: &LogicalPlan, column: Column, time_type: &DataType, fold: &Fold, found: &mut Found) -> Result<()> {
    match plan {
        LogicalPlan::Filter(filter) => {
            for condition in split_conjunction(&filter.predicate) {
                look(condition, &column, time_type, fold, found)?;
            }
            search(&filter.input, column, time_type, fold, found)
        }
        LogicalPlan::TableScan(scan) => {
            scan.filters.iter().try_for_each(|condition| look(condition, &column, time_type, fold, found))
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let Some(at) = alias.schema.maybe_index_of_column(&column) else { return Ok(()) };
            let (relation, field) = alias.input.schema().qualified_field(at);
            search(&alias.input, Column::from((relation, field)), time_type, fold, found)
        }
        LogicalPlan::Projection(projection) => {
            let Some(at) = projection.schema.maybe_index_of_column(&column) else { return Ok(()) };
            match uncast(&projection.expr[at]) {
                Expr::Column(inner) => search(&projection.input, inner.clone(), time_type, fold, found),
                _ => Ok(()),
            }
        }
        LogicalPlan::Sort(sort) => search(&sort.input, column, time_type, fold, found),
        _ => Ok(()),
    }
}

fn look(condition: &Expr, column: &Column, time_type: &DataType, fold: &Fold, found: &mut Found) -> Result<()> {
    let is_time = |expr: &Expr| matches!(uncast(expr), Expr::Column(other) if other == column);
    let time = |expr: &Expr| -> Result<Option<i64>> {
        let value = fold.constant(expr)?.filter(|value| !value.is_null());
        Ok(value.map(|value| value.cast_to(time_type)).transpose()?.and_then(|value| time_of(&value)))
    };
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (op, bound) = match (is_time(left), is_time(right)) {
                (true, false) => (Some(*op), right),
                (false, true) => (op.swap(), left),
                _ => return Ok(()),
            };
            let Some(time) = time(bound)? else { return Ok(()) };
            match op {
                Some(Operator::Gt) => found.at_least(time.saturating_add(1)),
                Some(Operator::GtEq) => found.at_least(time),
                Some(Operator::Lt) => found.at_most(time.saturating_sub(1)),
                Some(Operator::LtEq) => found.at_most(time),
                Some(Operator::Eq) => {
                    found.at_least(time);
                    found.at_most(time);
                }
                _ => {}
            }
        }
        Expr::Between(between) if !between.negated && is_time(&between.expr) => {
            if let Some(low) = time(&between.low)? {
                found.at_least(low);
            }
            if let Some(high) = time(&between.high)? {
                found.at_most(high);
            }
        }
        _ => {}
    }
    Ok(())
}
