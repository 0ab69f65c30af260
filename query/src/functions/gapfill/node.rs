//! The plan of filling gaps, as the optimizer sees it.
//!
//! Owns:     what is filled, by which buckets, and which columns come out.
//! Does not: make rows (`exec` does).

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::common::{Column, DFSchema, DFSchemaRef, Result, plan_err};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, UserDefinedLogicalNodeCore};

use super::bounds::Range;
use crate::functions::stride::Stride;

/// Buckets of one series: 11 days of seconds, 2 years of minutes.
const BUCKETS_MAX: usize = 1_000_000;

/// What a gap shows for a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd)]
pub(super) enum How {
    /// The last one before: `locf`.
    Carry,
    /// What lies on the line from the last one before to the first one after: `interpolate`. NULL where one is missing.
    Line,
}

impl How {
    pub(super) fn name(self) -> &'static str {
        match self {
            How::Carry => "locf",
            How::Line => "interpolate",
        }
    }
}

/// A column that is filled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Fill {
    pub(super) how: How,
    /// Of the rows below.
    pub(super) value: Expr,
    /// Of the column that comes out.
    pub(super) name: String,
}

/// The begins of all buckets of a range, ascending.
///
/// # Errors
/// More than [`BUCKETS_MAX`].
pub(super) fn buckets(
    function: &str,
    stride: Stride,
    origin: i64,
    unit: TimeUnit,
    (first, last): Range,
) -> Result<Arc<[i64]>> {
    let too_many = || {
        plan_err!(
            "{function}: there are more than {BUCKETS_MAX} buckets in that time; narrow the range in WHERE, or take a longer interval"
        )
    };
    if first > last {
        return Ok(Arc::new([]));
    }
    let Some(mut bucket) = stride.bucket(first, origin, unit) else { return too_many() };
    if let Stride::Fixed(step) = stride
        && (i128::from(last) - i128::from(bucket)) / i128::from(step) >= BUCKETS_MAX as i128
    {
        return too_many();
    }
    let mut buckets = Vec::new();
    while bucket <= last {
        if buckets.len() == BUCKETS_MAX {
            return too_many();
        }
        buckets.push(bucket);
        match stride.next(bucket, origin, unit) {
            Some(next) => bucket = next,
            None => break,
        }
    }
    Ok(buckets.into())
}

/// Rows of an aggregate, with those that are missing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct GapFill {
    pub(super) input: LogicalPlan,
    /// The buckets' column.
    pub(super) time: Column,
    /// The columns whose values make a series.
    pub(super) keys: Vec<Column>,
    pub(super) fills: Vec<Fill>,
    pub(super) buckets: Arc<[i64]>,
    schema: DFSchemaRef,
}

impl GapFill {
    pub(super) fn try_new(
        input: LogicalPlan,
        time: Column,
        keys: Vec<Column>,
        fills: Vec<Fill>,
        buckets: Arc<[i64]>,
    ) -> Result<Self> {
        let below = input.schema();
        // What no row has is NULL, whatever the aggregate says of itself.
        let mut fields: Vec<_> = below
            .iter()
            .map(|(relation, field)| {
                let column = Column::from((relation, field));
                let is_group = column == time || keys.contains(&column);
                let nullable = field.is_nullable() || !is_group;
                (relation.cloned(), Arc::new(field.as_ref().clone().with_nullable(nullable)))
            })
            .collect();
        for fill in &fills {
            let data_type = match fill.how {
                How::Carry => fill.value.get_type(below)?,
                How::Line => DataType::Float64,
            };
            fields.push((None, Arc::new(Field::new(&fill.name, data_type, true))));
        }
        let schema = Arc::new(DFSchema::new_with_metadata(fields, below.metadata().clone())?);
        Ok(GapFill { input, time, keys, fills, buckets, schema })
    }
}

impl PartialOrd for GapFill {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for GapFill {
    fn name(&self) -> &'static str {
        "GapFill"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        let columns = std::iter::once(&self.time).chain(&self.keys).cloned().map(Expr::Column);
        columns.chain(self.fills.iter().map(|fill| fill.value.clone())).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GapFill: {} buckets of {}", self.buckets.len(), self.time)?;
        for fill in &self.fills {
            write!(f, ", {}({})", fill.how.name(), fill.value)?;
        }
        Ok(())
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let Some(input) = inputs.pop() else { return plan_err!("GapFill has one input") };
        let mut exprs = exprs.into_iter();
        let mut column = || match exprs.next() {
            Some(Expr::Column(column)) => Ok(column),
            other => plan_err!("GapFill groups by columns, not {other:?}"),
        };
        let time = column()?;
        let keys = self.keys.iter().map(|_| column()).collect::<Result<_>>()?;
        let fills = self.fills.iter().zip(exprs).map(|(fill, value)| Fill { value, ..fill.clone() }).collect();
        GapFill::try_new(input, time, keys, fills, Arc::clone(&self.buckets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_those_of_the_range_and_not_too_many() {
        let all = |step, range| buckets("f", Stride::Fixed(step), 0, TimeUnit::Second, range);
        assert_eq!(*all(10, (-5, 20)).unwrap(), [-10, 0, 10, 20]);
        assert_eq!(*all(10, (0, 0)).unwrap(), [0]);
        assert!(all(10, (1, 0)).unwrap().is_empty());
        assert_eq!(all(1, (1, 1_000_000)).unwrap().len(), BUCKETS_MAX);
        for range in [(0, 1_000_000), (i64::MIN, i64::MAX)] {
            assert!(all(1, range).unwrap_err().to_string().contains("narrow the range"), "{range:?}");
        }
    }
}
