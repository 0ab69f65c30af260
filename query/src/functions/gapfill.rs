//! Buckets without readings: `time_bucket_gapfill`, `date_bin_gapfill`, `locf`, `interpolate`.
//!
//! Owns:     finding them in a plan, the bounds of time, and the plan that fills gaps (docs/adr/0028-gap-filling.md).
//! Does not: make the rows (`exec` does).
//!
//! As in TimescaleDB: the functions are marks, which a rule of the optimizer replaces. Buckets from the first to the last that WHERE
//! lets through are there for each combination of the other columns of GROUP BY that has a row. `locf` carries the last value
//! forward; `interpolate` draws a line to the next. A row that is there is shown as it is, its NULLs too.
//!
//! Invariants
//!  1. No bounds, no plan: what would be filled without end is refused, with what to add.
//!  2. WHERE and HAVING see real rows only; gaps are filled above them.

mod bounds;
mod exec;
mod node;

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DataFusionError, Result, ScalarValue, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    Aggregate, ColumnarValue, Expr, ExprSchemable, Extension, Filter, LogicalPlan, Projection, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use super::stride;
use super::time_bucket::{self, TimeBucket, time_of};
pub(super) use exec::GapFillPlanner;
use node::{Fill, GapFill, How};

/// What a mark stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Mark {
    /// `time_bucket_gapfill(interval, time [, start, finish])`, of TimescaleDB.
    TimeBucket,
    /// `date_bin_gapfill(interval, time [, origin])`, of InfluxDB 3: buckets count from 1970-01-01.
    DateBin,
    /// A value of each gap.
    Value(How),
}

/// A function that only a rule understands.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Marker {
    mark: Mark,
    signature: Signature,
}

/// All of them.
pub(super) fn markers() -> Vec<Marker> {
    [Mark::TimeBucket, Mark::DateBin, Mark::Value(How::Carry), Mark::Value(How::Line)]
        .map(|mark| Marker { mark, signature: Signature::user_defined(Volatility::Immutable) })
        .into()
}

impl ScalarUDFImpl for Marker {
    fn name(&self) -> &str {
        match self.mark {
            Mark::TimeBucket => "time_bucket_gapfill",
            Mark::DateBin => "date_bin_gapfill",
            Mark::Value(how) => how.name(),
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let name = self.name();
        match (self.mark, types) {
            (Mark::TimeBucket, types) => time_bucket::coerce(name, types, 4, false),
            (Mark::DateBin, types) => time_bucket::coerce(name, types, 3, false),
            (Mark::Value(How::Carry), [value]) => Ok(vec![value.clone()]),
            (Mark::Value(How::Line), [value]) if value.is_numeric() || value.is_null() => Ok(vec![DataType::Float64]),
            (Mark::Value(How::Line), [value]) => plan_err!("{name}: the argument is a number, not {value}"),
            (Mark::Value(_), types) => plan_err!("{name} takes 1 argument, a value; here are {}", types.len()),
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(match self.mark {
            Mark::TimeBucket | Mark::DateBin => types[1].clone(),
            Mark::Value(_) => types[0].clone(),
        })
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match self.mark {
            Mark::Value(_) => plan_err!(
                "{}: only in the SELECT list of a query that has time_bucket_gapfill or date_bin_gapfill in its GROUP BY",
                self.name()
            ),
            _ => plan_err!("{}: only in GROUP BY, once, and in the SELECT list as it is there", self.name()),
        }
    }
}

/// The mark that an expression is.
fn mark(expr: &Expr) -> Option<(Mark, &[Expr])> {
    match expr {
        Expr::Alias(alias) => mark(&alias.expr),
        Expr::ScalarFunction(ScalarFunction { func, args }) => {
            func.inner().downcast_ref::<Marker>().map(|marker| (marker.mark, args.as_slice()))
        }
        _ => None,
    }
}

fn is_bucket(expr: &Expr) -> bool {
    matches!(mark(expr), Some((Mark::TimeBucket | Mark::DateBin, _)))
}

/// Puts a plan that fills gaps where the marks are.
#[derive(Debug)]
pub(super) struct FillGaps;

impl OptimizerRule for FillGaps {
    fn name(&self) -> &'static str {
        "fill_gaps"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        match &plan {
            LogicalPlan::Projection(projection) => match grouped(&projection.input) {
                Some((aggregate, having)) => fill(Some(projection), aggregate, having, config).map(Transformed::yes),
                None => Ok(Transformed::no(plan)),
            },
            _ => match grouped(&plan) {
                Some((aggregate, having)) => fill(None, aggregate, having, config).map(Transformed::yes),
                None => Ok(Transformed::no(plan)),
            },
        }
    }
}

/// An aggregate by buckets with gaps to fill, with its HAVING.
fn grouped(plan: &LogicalPlan) -> Option<(&Aggregate, Option<&Filter>)> {
    match plan {
        LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.iter().any(has_bucket) => Some((aggregate, None)),
        LogicalPlan::Filter(filter) => match filter.input.as_ref() {
            LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.iter().any(has_bucket) => {
                Some((aggregate, Some(filter)))
            }
            _ => None,
        },
        _ => None,
    }
}

/// Whether there is a bucket anywhere in an expression: one that is not by itself must be refused.
fn has_bucket(expr: &Expr) -> bool {
    expr.exists(|expr| Ok(is_bucket(expr))).unwrap_or(false)
}

fn fill(
    projection: Option<&Projection>,
    aggregate: &Aggregate,
    having: Option<&Filter>,
    config: &dyn OptimizerConfig,
) -> Result<LogicalPlan> {
    let buckets: Vec<usize> =
        (0..aggregate.group_expr.len()).filter(|at| has_bucket(&aggregate.group_expr[*at])).collect();
    let [at] = buckets.as_slice() else {
        return plan_err!("gaps are filled by one bucket of time; GROUP BY has {}", buckets.len());
    };
    let marked = &aggregate.group_expr[*at];
    let Some((mark, args)) = mark(marked) else {
        return plan_err!(
            "time_bucket_gapfill and date_bin_gapfill stand in GROUP BY by themselves, not within {marked}"
        );
    };
    let name = if mark == Mark::DateBin { "date_bin_gapfill" } else { "time_bucket_gapfill" };
    let [step, time, further @ ..] = args else { return plan_err!("{name} takes an interval and a time") };

    let schema = aggregate.input.schema();
    let DataType::Timestamp(unit, zone) = time.get_type(schema)? else {
        return plan_err!("{name}: the second argument is no time");
    };
    let time_type = DataType::Timestamp(unit, zone);
    let fold = bounds::Fold::new(config);
    let Some(step_value) = fold.constant(step)? else {
        return plan_err!("{name}: the first argument, the interval, must be one constant");
    };
    let stride = stride::parse(name, &step_value, unit)?;
    let given = |at: usize| match further.get(at) {
        None => Ok(None),
        Some(expr) => match fold.constant(expr)?.map(|value| value.cast_to(&time_type)).transpose()? {
            None => plan_err!("{name}: argument {}, {expr}, must be one constant", at + 3),
            Some(value) => Ok(time_of(&value)),
        },
    };
    let (origin, explicit) = match mark {
        Mark::DateBin => (given(0)?.unwrap_or(0), (None, None)),
        _ => (stride.origin(unit), (given(0)?, given(1)?)),
    };
    let range = bounds::range(name, explicit, time, &aggregate.input, &time_type, &fold)?;
    let buckets = node::buckets(name, stride, origin, unit, range)?;

    // The same groups, by real buckets under the name that the rest of the plan knows.
    let real = bucket_of(&step_value, time, origin, &time_type).alias(marked.schema_name().to_string());
    let mut groups = aggregate.group_expr.clone();
    groups[*at] = real;
    let input =
        LogicalPlan::Aggregate(Aggregate::try_new(Arc::clone(&aggregate.input), groups, aggregate.aggr_expr.clone())?);
    let columns = input.schema().columns();
    let input = match having {
        Some(filter) => LogicalPlan::Filter(Filter::try_new(filter.predicate.clone(), Arc::new(input))?),
        None => input,
    };
    let keys = (0..aggregate.group_expr.len()).filter(|key| key != at).map(|key| columns[key].clone()).collect();

    let mut fills = Vec::new();
    let selected = projection.map(|projection| select(projection, &mut fills)).transpose()?;
    let filled = GapFill::try_new(input, columns[*at].clone(), keys, fills, buckets)?;
    let filled = LogicalPlan::Extension(Extension { node: Arc::new(filled) });
    match selected {
        Some(selected) => Ok(LogicalPlan::Projection(Projection::try_new(selected, Arc::new(filled))?)),
        None => Ok(filled),
    }
}

/// `time_bucket` with the origin that the gaps are counted from.
fn bucket_of(step: &ScalarValue, time: &Expr, origin: i64, time_type: &DataType) -> Expr {
    let zone = match time_type {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    let origin = match time_type {
        DataType::Timestamp(TimeUnit::Second, _) => ScalarValue::TimestampSecond(Some(origin), zone),
        DataType::Timestamp(TimeUnit::Millisecond, _) => ScalarValue::TimestampMillisecond(Some(origin), zone),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => ScalarValue::TimestampNanosecond(Some(origin), zone),
        _ => ScalarValue::TimestampMicrosecond(Some(origin), zone),
    };
    ScalarUDF::from(TimeBucket::new()).call(vec![lit(step.clone()), time.clone(), lit(origin)])
}

/// The SELECT list with columns of the filled rows where `locf` and `interpolate` were; those are added to `fills`.
fn select(projection: &Projection, fills: &mut Vec<Fill>) -> Result<Vec<Expr>> {
    let mut replace = |expr: &Expr| {
        let (relation, name) = expr.qualified_name();
        let replaced = expr.clone().transform_down(|expr| {
            let Some((Mark::Value(how), [value])) = mark(&expr) else { return Ok(Transformed::no(expr)) };
            if matches!(expr, Expr::Alias(_)) {
                return Ok(Transformed::no(expr));
            }
            let name = expr.schema_name().to_string();
            if value.exists(|inner| Ok::<_, DataFusionError>(mark(inner).is_some()))? {
                return plan_err!("{}: the argument has another of the functions that fill gaps", how.name());
            }
            if !fills.iter().any(|fill| fill.name == name) {
                fills.push(Fill { how, value: value.clone(), name: name.clone() });
            }
            Ok(Transformed::yes(Expr::Column(Column::new_unqualified(name))))
        })?;
        if !replaced.transformed {
            return Ok(replaced.data);
        }
        Ok(match replaced.data {
            alias @ Expr::Alias(_) => alias,
            other => other.alias_qualified(relation, name),
        })
    };
    projection.expr.iter().map(&mut replace).collect()
}
