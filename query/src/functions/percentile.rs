//! `approx_percentile(value, share)`: the value below which a share of the values are.
//!
//! Owns:     the order of the arguments.
//! Does not: compute: it is planned as DataFusion's `approx_percentile_cont`, a t-digest.
//!
//! The share is 0 to 1. Both orders are taken: `approx_percentile(value, 0.95)` as in Trino, Spark and Snowflake, and
//! `approx_percentile(0.95, value)` as in TimescaleDB's toolkit. A constant is the share.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::functions_aggregate::approx_percentile_cont::approx_percentile_cont_udaf;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::function::{AccumulatorArgs, AggregateFunctionSimplification, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Expr, Signature, Volatility};

const NAME: &str = "approx_percentile";

/// The aggregate.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ApproxPercentile {
    signature: Signature,
}

impl ApproxPercentile {
    pub(super) fn new() -> Self {
        ApproxPercentile { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

fn share(expr: &Expr) -> Option<f64> {
    match expr {
        Expr::Literal(ScalarValue::Float64(share), _) => *share,
        Expr::Alias(alias) => share(&alias.expr),
        _ => None,
    }
}

/// The call by its other name.
fn planned(call: AggregateFunction) -> Result<Expr> {
    let mut params = call.params;
    let [value, at] = params.args.as_slice() else { return plan_err!("{NAME} takes a value and a share") };
    let (value, at) = match (share(value), share(at)) {
        (_, Some(_)) => (value.clone(), at.clone()),
        (Some(_), None) => (at.clone(), value.clone()),
        (None, None) => return plan_err!("{NAME}: one argument, the share, must be a constant from 0 to 1"),
    };
    if !share(&at).is_some_and(|share| (0.0..=1.0).contains(&share)) {
        return plan_err!("{NAME}: the share, {at}, is not from 0 to 1");
    }
    params.order_by = vec![value.clone().sort(true, false)];
    params.args = vec![value, at];
    Ok(Expr::AggregateFunction(AggregateFunction { func: approx_percentile_cont_udaf(), params }))
}

impl AggregateUDFImpl for ApproxPercentile {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [a, b] if a.is_numeric() && b.is_numeric() => Ok(vec![DataType::Float64, DataType::Float64]),
            [a, b] => plan_err!("{NAME}: the arguments are a number and a share from 0 to 1, not {a} and {b}"),
            _ => plan_err!("{NAME} takes 2 arguments, a value and a share from 0 to 1; here are {}", types.len()),
        }
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn simplify(&self) -> Option<AggregateFunctionSimplification> {
        Some(Box::new(|call, _| planned(call)))
    }

    fn accumulator(&self, _args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        plan_err!("{NAME} is not supported over a window")
    }

    fn state_fields(&self, _args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(arrow::datatypes::Field::new(NAME, DataType::Float64, true))])
    }
}
