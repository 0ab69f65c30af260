//! The readings of a group in the order of their times, and what is told from them: `rate`, `increase`, `delta`, `lttb`.
//!
//! Owns:     collecting values with their times, counters that begin anew, choosing points for a chart.
//! Does not: know series: a group should be one of them.
//!
//! Rows come in any order and from several threads, so all points of a group are kept until its last one: 16 bytes each,
//! within the memory of queries. Groups of all that spill.

use std::mem::size_of;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Float64Type, Int64Type, TimeUnit};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};
use datafusion::physical_expr::expressions::Literal;

use super::list;
use super::stride::unit_ns;

/// Points that `lttb` may be asked for.
const LTTB_POINTS_MAX: usize = 1_000_000;

/// What is told from the points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// What a counter has grown by in a second, on average. Unit of the value per second.
    Rate,
    /// What a counter has grown by.
    Increase,
    /// The last value less the first.
    Delta,
    /// As many points as asked for, that look like all.
    Lttb,
}

/// An aggregate of values and their times.
///
/// `rate` and `increase` take a value that is less than the one before for a counter that began anew at zero, as Prometheus
/// does (documentation, "Query functions": `increase()`, `rate()`). Unlike there nothing is extrapolated to the ends of a
/// range: what is told lies between the first and the last reading of the group. Fewer than two readings tell nothing: NULL.
///
/// `lttb(time, value, n)` is the algorithm of S. Steinarsson, "Downsampling Time Series for Visual Representation" (2013).
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct OfPoints {
    kind: Kind,
    signature: Signature,
}

impl OfPoints {
    pub(super) fn new(kind: Kind) -> Self {
        OfPoints { kind, signature: Signature::user_defined(Volatility::Immutable) }
    }

    /// Places of the value and of the time among the arguments.
    fn places(&self) -> (usize, usize) {
        if self.kind == Kind::Lttb { (1, 0) } else { (0, 1) }
    }

    fn points(&self, types: &[DataType], count: usize) -> Result<Points> {
        let (_, time) = self.places();
        let DataType::Timestamp(unit, _) = &types[time] else {
            return plan_err!("{}: argument {} is no time", self.name(), time + 1);
        };
        Ok(Points {
            kind: self.kind,
            time_type: types[time].clone(),
            second: 1e9 / unit_ns(*unit) as f64,
            count,
            points: Vec::new(),
        })
    }
}

fn is_number(data_type: &DataType) -> bool {
    data_type.is_numeric() || matches!(data_type, DataType::Null)
}

fn point_fields(time_type: &DataType) -> Fields {
    Fields::from(vec![Field::new("time", time_type.clone(), false), Field::new("value", DataType::Float64, false)])
}

fn points_type(time_type: &DataType) -> DataType {
    DataType::new_list(DataType::Struct(point_fields(time_type)), true)
}

impl AggregateUDFImpl for OfPoints {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Rate => "rate",
            Kind::Increase => "increase",
            Kind::Delta => "delta",
            Kind::Lttb => "lttb",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let (name, (value, time)) = (self.name(), self.places());
        let wanted = if self.kind == Kind::Lttb { 3 } else { 2 };
        if types.len() != wanted {
            let arguments = if wanted == 3 { "a time, a value and how many points" } else { "a value and its time" };
            return plan_err!("{name} takes {wanted} arguments, {arguments}; here are {}", types.len());
        }
        let mut coerced = types.to_vec();
        coerced[value] = match &types[value] {
            number if is_number(number) => DataType::Float64,
            other => return plan_err!("{name}: argument {} is a number, not {other}", value + 1),
        };
        coerced[time] = match &types[time] {
            DataType::Timestamp(..) => types[time].clone(),
            DataType::Date32 | DataType::Date64 | DataType::Null => DataType::Timestamp(TimeUnit::Microsecond, None),
            other => return plan_err!("{name}: argument {} is a time, not {other}", time + 1),
        };
        if let Some(count) = types.get(2) {
            if !count.is_integer() {
                return plan_err!("{name}: argument 3 is how many points, a whole number, not {count}");
            }
            coerced[2] = DataType::Int64;
        }
        Ok(coerced)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(if self.kind == Kind::Lttb { points_type(&types[0]) } else { DataType::Float64 })
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let list = |what: &str, item: DataType| {
            Arc::new(Field::new(format_state_name(args.name, what), DataType::new_list(item, true), true))
        };
        Ok(vec![list("times", DataType::Int64), list("values", DataType::Float64)])
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let types: Vec<DataType> = args.expr_fields.iter().map(|field| field.data_type().clone()).collect();
        let count = match args.exprs.get(2).map(|expr| expr.downcast_ref::<Literal>().map(Literal::value)) {
            None => 0,
            Some(Some(ScalarValue::Int64(Some(count)))) => match usize::try_from(*count) {
                Ok(count @ 1..=LTTB_POINTS_MAX) => count,
                _ => return plan_err!("lttb: argument 3, how many points, is 1 to {LTTB_POINTS_MAX}, not {count}"),
            },
            Some(_) => return plan_err!("lttb: argument 3, how many points, must be one constant"),
        };
        Ok(Box::new(self.points(&types, count)?))
    }

    fn create_sliding_accumulator(&self, _args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        plan_err!("{} is not supported over a window that moves; group by time_bucket instead", self.name())
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// One reading: its time, in units of its column, and its value.
type Point = (i64, f64);

#[derive(Debug)]
struct Points {
    kind: Kind,
    time_type: DataType,
    /// Units of time in a second.
    second: f64,
    /// Points that are wanted, for `lttb`.
    count: usize,
    points: Vec<Point>,
}

impl Points {
    fn add(&mut self, times: &Int64Array, values: &Float64Array) {
        self.points.reserve(times.len());
        for (time, value) in times.iter().zip(values) {
            if let (Some(time), Some(value)) = (time, value) {
                self.points.push((time, value));
            }
        }
    }

    fn sort(&mut self) {
        let in_order = |a: &Point, b: &Point| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1));
        if !self.points.is_sorted_by(|a, b| in_order(a, b).is_le()) {
            self.points.sort_unstable_by(in_order);
        }
    }
}

/// What a counter has grown by.
fn increase(points: &[Point]) -> f64 {
    let step = |pair: &[Point]| if pair[1].1 < pair[0].1 { pair[1].1 } else { pair[1].1 - pair[0].1 };
    points.windows(2).map(step).sum()
}

/// At most `count` of the points, among them the first and the last: of each part between, the one that makes the largest
/// triangle with the one chosen before and the middle of the part after.
fn lttb(points: &[Point], count: usize) -> Vec<Point> {
    let last = points.len().saturating_sub(1);
    match (points, count) {
        (points, count) if points.len() <= count => return points.to_vec(),
        (points, 1) => return vec![points[0]],
        (points, 2) => return vec![points[0], points[last]],
        _ => {}
    }
    let parts = count - 2;
    let bound = |part: usize| 1 + part * (last - 1) / parts;
    let mut chosen = Vec::with_capacity(count);
    chosen.push(points[0]);
    for part in 0..parts {
        let from = chosen[chosen.len() - 1];
        let after = if part + 1 < parts { &points[bound(part + 1)..bound(part + 2)] } else { &points[last..] };
        let mean = |of: fn(&Point) -> f64| after.iter().map(of).sum::<f64>() / after.len() as f64;
        let (to_time, to_value) = (mean(|point| point.0 as f64), mean(|point| point.1));
        let area = |point: &Point| {
            let (time, start) = (point.0 as f64, from.0 as f64);
            ((start - to_time) * (point.1 - from.1) - (start - time) * (to_value - from.1)).abs()
        };
        let best = points[bound(part)..bound(part + 1)].iter().max_by(|a, b| area(a).total_cmp(&area(b)));
        chosen.extend(best);
    }
    chosen.push(points[last]);
    chosen
}

impl Accumulator for Points {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (value, time) = if self.kind == Kind::Lttb { (1, 0) } else { (0, 1) };
        let times = cast(&values[time], &DataType::Int64)?;
        self.add(times.as_primitive::<Int64Type>(), values[value].as_primitive::<Float64Type>());
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let (times, values) = (states[0].as_list::<i32>(), states[1].as_list::<i32>());
        for row in 0..times.len() {
            if times.is_valid(row) && values.is_valid(row) {
                self.add(times.value(row).as_primitive::<Int64Type>(), values.value(row).as_primitive::<Float64Type>());
            }
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let times: Int64Array = self.points.iter().map(|point| point.0).collect();
        let values: Float64Array = self.points.iter().map(|point| point.1).collect();
        self.points = Vec::new();
        Ok(vec![list(Arc::new(times))?, list(Arc::new(values))?])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.sort();
        if self.kind == Kind::Lttb {
            return self.chosen();
        }
        let (Some(first), Some(last)) = (self.points.first(), self.points.last()) else {
            return Ok(ScalarValue::Float64(None));
        };
        let seconds = (i128::from(last.0) - i128::from(first.0)) as f64 / self.second;
        let told = (self.points.len() > 1).then(|| match self.kind {
            Kind::Rate => Some(increase(&self.points) / seconds).filter(|_| seconds > 0.0),
            Kind::Increase => Some(increase(&self.points)),
            Kind::Delta | Kind::Lttb => Some(last.1 - first.1),
        });
        Ok(ScalarValue::Float64(told.flatten()))
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.points.capacity() * size_of::<Point>()
    }
}

impl Points {
    fn chosen(&self) -> Result<ScalarValue> {
        if self.points.is_empty() {
            return ScalarValue::try_from(&points_type(&self.time_type));
        }
        let chosen = lttb(&self.points, self.count);
        let times: Int64Array = chosen.iter().map(|point| point.0).collect();
        let values: Float64Array = chosen.iter().map(|point| point.1).collect();
        let columns: Vec<ArrayRef> = vec![cast(&times, &self.time_type)?, Arc::new(values)];
        let fields = point_fields(&self.time_type);
        list(Arc::new(StructArray::try_new(fields, columns, None)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_that_begin_anew_go_on_from_zero() {
        let points: Vec<Point> =
            [10.0, 12.0, 3.0, 3.0, 7.0].into_iter().zip(0..).map(|(value, at)| (at, value)).collect();
        assert_eq!(increase(&points), 2.0 + 3.0 + 0.0 + 4.0);
    }

    #[test]
    fn chosen_points_keep_both_ends_and_the_peak() {
        let points: Vec<Point> = (0..1000).map(|at| (at, if at == 500 { 99.0 } else { (at % 7) as f64 })).collect();
        for count in [1, 2, 3, 10, 999, 1000, 2000] {
            let chosen = lttb(&points, count);
            assert_eq!(chosen.len(), count.min(1000), "{count}");
            assert!(chosen.is_sorted_by(|a, b| a.0 < b.0), "{count}");
            assert_eq!(chosen[0], points[0], "{count}");
            if count >= 2 {
                assert_eq!(chosen[chosen.len() - 1], points[999], "{count}");
            }
            if count >= 3 {
                assert!(chosen.contains(&points[500]), "{count}");
            }
        }
        assert!(lttb(&[], 5).is_empty());
    }
}
