//! The last row of each series, without sorting all rows.
//!
//! Owns:     finding, in a plan, that of each group only the row with the greatest or the least time is wanted: the filter
//!           `row_number() OVER (PARTITION BY … ORDER BY time DESC) = 1`, and `DISTINCT ON (…) … ORDER BY …, time DESC`.
//! Does not: find it in other words: what is not recognised is sorted by DataFusion, and right.
//!
//! What is found becomes an aggregate of whole rows ([`Winner::row`]), which costs one comparison a row and memory by the
//! number of groups, and spills. DataFusion has two ways of its own: a window over sorted rows, and for DISTINCT ON a
//! `first_value` with its order for each column.
//!
//! Only a time that is never NULL is taken, because NULL sorts after or before all others as the statement says.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, Result, ScalarValue};
use datafusion::functions::core::expr_fn::get_field;
use datafusion::logical_expr::expr::{AggregateFunction, NullTreatment, Sort, WindowFunctionDefinition};
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{
    Aggregate, AggregateUDF, BinaryExpr, Expr, ExprSchemable, Filter, LogicalPlan, Operator, Projection, Window, lit,
};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use super::winners::{Which, Winner, is_key};

/// The column of whole rows.
const ROW: &str = "__eden_row";

/// Plans the last row of each group as an aggregate.
#[derive(Debug)]
pub(super) struct LatestRow;

impl OptimizerRule for LatestRow {
    fn name(&self) -> &'static str {
        "latest_row"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let found = match &plan {
            LogicalPlan::Filter(filter) => of_filter(filter)?,
            LogicalPlan::Aggregate(aggregate) => of_first_values(aggregate)?,
            _ => None,
        };
        Ok(found.map_or_else(|| Transformed::no(plan), Transformed::yes))
    }
}

fn unaliased(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => unaliased(&alias.expr),
        other => other,
    }
}

/// What a group is ordered by, if that is one time that is never NULL.
fn single_key<'a>(order: &'a [Sort], groups: &[Expr], schema: &DFSchema) -> Result<Option<(&'a Expr, bool)>> {
    let mut left = order.iter().filter(|sort| !groups.contains(&sort.expr));
    let (Some(sort), None) = (left.next(), left.next()) else { return Ok(None) };
    let is_time = is_key(&sort.expr.get_type(schema)?) && !sort.expr.nullable(schema)? && !sort.expr.is_volatile();
    Ok(is_time.then_some((&sort.expr, sort.asc)))
}

/// An aggregate of whole rows: `values` of the row of each group that is first or last by `key`.
fn rows_of(
    input: &Arc<LogicalPlan>,
    groups: &[Expr],
    which: Which,
    key: &Expr,
    mut values: Vec<Expr>,
) -> Result<LogicalPlan> {
    values.push(key.clone());
    let row = AggregateUDF::from(Winner::row(which)).call(values).alias(ROW);
    Ok(LogicalPlan::Aggregate(Aggregate::try_new(Arc::clone(input), groups.to_vec(), vec![row])?))
}

/// One value of such a row.
fn value_of(at: usize) -> Expr {
    get_field(Expr::Column(Column::new_unqualified(ROW)), format!("c{at}"))
}

/// `first_value(…)` and `last_value(…)` of each group, all in one order: what DISTINCT ON is planned as.
fn of_first_values(aggregate: &Aggregate) -> Result<Option<LogicalPlan>> {
    let (groups, schema) = (&aggregate.group_expr, aggregate.input.schema());
    if groups.is_empty() || aggregate.aggr_expr.is_empty() || groups.iter().any(|e| matches!(e, Expr::GroupingSet(_))) {
        return Ok(None);
    }
    let mut wanted: Option<(&Expr, Which)> = None;
    let mut values = Vec::with_capacity(aggregate.aggr_expr.len() + 1);
    for expr in &aggregate.aggr_expr {
        let Expr::AggregateFunction(AggregateFunction { func, params }) = unaliased(expr) else { return Ok(None) };
        let is_first = match func.name() {
            "first_value" => true,
            "last_value" => false,
            _ => return Ok(None),
        };
        let is_plain = !params.distinct
            && params.filter.is_none()
            && matches!(params.null_treatment, None | Some(NullTreatment::RespectNulls));
        let ([value], true) = (params.args.as_slice(), is_plain) else { return Ok(None) };
        let Some((key, is_ascending)) = single_key(&params.order_by, groups, schema)? else { return Ok(None) };
        let found = (key, if is_first == is_ascending { Which::First } else { Which::Last });
        if *wanted.get_or_insert(found) != found {
            return Ok(None);
        }
        values.push(value.clone());
    }
    let Some((key, which)) = wanted else { return Ok(None) };
    let rows = rows_of(&aggregate.input, groups, which, key, values)?;
    let columns = aggregate.schema.columns();
    let column = |(at, column): (usize, &Column)| match at.checked_sub(groups.len()) {
        None => Expr::Column(column.clone()),
        Some(at) => value_of(at).alias_qualified(column.relation.clone(), column.name.clone()),
    };
    let columns = columns.iter().enumerate().map(column).collect();
    Ok(Some(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(rows))?)))
}

/// `row_number() OVER (PARTITION BY … ORDER BY time) = 1` above its window.
fn of_filter(filter: &Filter) -> Result<Option<LogicalPlan>> {
    let conditions = split_conjunction(&filter.predicate);
    for (at, condition) in conditions.iter().enumerate() {
        let Some(number) = first_only(condition) else { continue };
        if let Some(input) = without_window(&filter.input, number)? {
            let others = conditions.iter().enumerate().filter(|(other, _)| *other != at);
            return Ok(Some(match conjunction(others.map(|(_, other)| (*other).clone())) {
                Some(others) => LogicalPlan::Filter(Filter::try_new(others, Arc::new(input))?),
                None => input,
            }));
        }
    }
    Ok(None)
}

/// The column that a condition lets be 1 and no more.
fn first_only(condition: &Expr) -> Option<&Column> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = condition else { return None };
    let (column, op, bound) = match (unaliased(left), unaliased(right)) {
        (Expr::Column(column), Expr::Literal(bound, _)) => (column, *op, bound),
        (Expr::Literal(bound, _), Expr::Column(column)) => (column, op.swap()?, bound),
        _ => return None,
    };
    let bound = match bound {
        ScalarValue::UInt64(Some(bound)) => *bound,
        ScalarValue::Int64(Some(bound)) => u64::try_from(*bound).ok()?,
        _ => return None,
    };
    matches!((op, bound), (Operator::Eq | Operator::LtEq, 1) | (Operator::Lt, 2)).then_some(column)
}

/// `plan` with rows that are the first of their group in place of the window that `number` comes from; the number is 1.
fn without_window(plan: &LogicalPlan, number: &Column) -> Result<Option<LogicalPlan>> {
    let inner = match plan {
        LogicalPlan::Window(window) => return of_window(window, number),
        LogicalPlan::SubqueryAlias(alias) => {
            let Some(at) = alias.schema.maybe_index_of_column(number) else { return Ok(None) };
            without_window(&alias.input, &Column::from(alias.input.schema().qualified_field(at)))?
        }
        LogicalPlan::Projection(projection) => {
            let Some(at) = projection.schema.maybe_index_of_column(number) else { return Ok(None) };
            let Expr::Column(inner) = unaliased(&projection.expr[at]) else { return Ok(None) };
            without_window(&projection.input, inner)?
        }
        _ => return Ok(None),
    };
    match inner {
        Some(inner) => Ok(Some(plan.with_new_exprs(plan.expressions(), vec![inner])?)),
        None => Ok(None),
    }
}

fn of_window(window: &Window, number: &Column) -> Result<Option<LogicalPlan>> {
    let [expr] = window.window_expr.as_slice() else { return Ok(None) };
    let Expr::WindowFunction(function) = unaliased(expr) else { return Ok(None) };
    let WindowFunctionDefinition::WindowUDF(function_of) = &function.fun else { return Ok(None) };
    let schema = window.input.schema();
    let count = schema.fields().len();
    let is_number = window.schema.maybe_index_of_column(number) == Some(count);
    let params = &function.params;
    if function_of.name() != "row_number" || !is_number || params.partition_by.is_empty() || params.filter.is_some() {
        return Ok(None);
    }
    let Some((key, is_ascending)) = single_key(&params.order_by, &params.partition_by, schema)? else {
        return Ok(None);
    };
    let which = if is_ascending { Which::First } else { Which::Last };
    let mut groups: Vec<Expr> = Vec::new();
    for group in &params.partition_by {
        if !groups.contains(group) {
            groups.push(group.clone());
        }
    }
    // Columns of the group are the group's; all others are the row's.
    let of_row: Vec<Expr> = schema.columns().into_iter().map(Expr::Column).filter(|c| !groups.contains(c)).collect();
    let rows = rows_of(&window.input, &groups, which, key, of_row.clone())?;
    let mut columns: Vec<Expr> = schema
        .columns()
        .into_iter()
        .map(|column| {
            match of_row.iter().position(|of_row| matches!(of_row, Expr::Column(other) if *other == column)) {
                Some(at) => value_of(at).alias_qualified(column.relation, column.name),
                None => Expr::Column(column),
            }
        })
        .collect();
    let number = &window.schema.columns()[count];
    columns.push(lit(1_u64).alias_qualified(number.relation.clone(), number.name.clone()));
    Ok(Some(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(rows))?)))
}
