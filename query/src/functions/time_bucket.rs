//! `time_bucket(interval, time [, origin])`: the begin of the bucket that a time is in.
//!
//! Owns:     the function, and what arguments the functions of buckets take.
//! Does not: fill gaps (`gapfill` does).
//!
//! As in TimescaleDB and DuckDB: buckets are counted from Monday 2000-01-03, and those of months from 2000-01-01, unless an
//! origin is given. A third argument that is an interval moves the buckets by it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, PrimitiveArray};
use arrow::datatypes::{
    ArrowTimestampType, DataType, IntervalUnit, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use datafusion::common::cast::as_primitive_array;
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

use super::stride::{self, Stride};

pub(super) const NAME: &str = "time_bucket";

/// The function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct TimeBucket {
    signature: Signature,
}

impl TimeBucket {
    pub(super) fn new() -> Self {
        TimeBucket { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// The types of `(interval, time, …)` as the functions of buckets take them; further arguments are times, or if
/// `may_move` an interval.
///
/// # Errors
/// Names the function and the argument.
pub(super) fn coerce(function: &str, types: &[DataType], count_max: usize, may_move: bool) -> Result<Vec<DataType>> {
    if types.len() < 2 || types.len() > count_max {
        return plan_err!(
            "{function} takes 2 to {count_max} arguments: an interval, a time, …; here are {}",
            types.len()
        );
    }
    let step = match &types[0] {
        DataType::Interval(_) => DataType::Interval(IntervalUnit::MonthDayNano),
        text if is_text(text) => DataType::Utf8,
        other => return plan_err!("{function}: the first argument is an interval such as '5 minutes', not {other}"),
    };
    let time = match &types[1] {
        DataType::Timestamp(..) => types[1].clone(),
        DataType::Date32 | DataType::Date64 | DataType::Null => DataType::Timestamp(TimeUnit::Microsecond, None),
        text if is_text(text) => DataType::Timestamp(TimeUnit::Microsecond, None),
        other => return plan_err!("{function}: the second argument is a time, not {other}"),
    };
    let further = types[2..].iter().zip(3..).map(|(given, place)| match given {
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 | DataType::Null => Ok(time.clone()),
        text if is_text(text) => Ok(time.clone()),
        DataType::Interval(_) if may_move => Ok(DataType::Interval(IntervalUnit::MonthDayNano)),
        other => plan_err!("{function}: argument {place} is a time, not {other}"),
    });
    let further = further.collect::<Result<Vec<_>>>()?;
    Ok([vec![step, time.clone()], further].concat())
}

/// The value of a time.
pub(super) fn time_of(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::TimestampSecond(time, _)
        | ScalarValue::TimestampMillisecond(time, _)
        | ScalarValue::TimestampMicrosecond(time, _)
        | ScalarValue::TimestampNanosecond(time, _) => *time,
        _ => None,
    }
}

/// The origin that a third argument gives: a time, or how far to move the usual one.
fn origin(argument: Option<&ColumnarValue>, stride: Stride, unit: TimeUnit) -> Result<i64> {
    let usual = stride.origin(unit);
    let Some(argument) = argument else { return Ok(usual) };
    let ColumnarValue::Scalar(value) = argument else {
        return plan_err!("{NAME}: the third argument, the origin, must be one constant");
    };
    match value {
        ScalarValue::IntervalMonthDayNano(Some(interval)) if interval.months == 0 => {
            let moved = i128::from(interval.days) * 86_400_000_000_000 + i128::from(interval.nanoseconds);
            match i64::try_from(i128::from(usual) + moved / stride::unit_ns(unit)) {
                Ok(origin) => Ok(origin),
                Err(_) => plan_err!("{NAME}: the third argument moves buckets too far"),
            }
        }
        value => match time_of(value) {
            Some(origin) => Ok(origin),
            None => plan_err!("{NAME}: the third argument is neither a time nor an interval without months"),
        },
    }
}

impl ScalarUDFImpl for TimeBucket {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        coerce(NAME, types, 3, true)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[1].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [step, times, further @ ..] = args.args.as_slice() else {
            return plan_err!("{NAME} takes an interval and a time");
        };
        let ColumnarValue::Scalar(step) = step else {
            return plan_err!("{NAME}: the first argument, the interval, must be one constant");
        };
        let DataType::Timestamp(unit, zone) = times.data_type() else {
            return plan_err!("{NAME}: the second argument is no time");
        };
        let stride = stride::parse(NAME, step, unit)?;
        let origin = origin(further.first(), stride, unit)?;
        let is_scalar = matches!(times, ColumnarValue::Scalar(_));
        let times = times.to_array(if is_scalar { 1 } else { args.number_rows })?;
        let zone = zone.as_ref();
        let buckets: ArrayRef = match unit {
            TimeUnit::Second => of_array::<TimestampSecondType>(&times, stride, origin, zone)?,
            TimeUnit::Millisecond => of_array::<TimestampMillisecondType>(&times, stride, origin, zone)?,
            TimeUnit::Microsecond => of_array::<TimestampMicrosecondType>(&times, stride, origin, zone)?,
            TimeUnit::Nanosecond => of_array::<TimestampNanosecondType>(&times, stride, origin, zone)?,
        };
        if is_scalar {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&buckets, 0)?));
        }
        Ok(ColumnarValue::Array(buckets))
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        Ok(inputs.get(1).map_or(SortProperties::Unordered, |time| time.sort_properties))
    }

    fn preserves_lex_ordering(&self, _inputs: &[ExprProperties]) -> Result<bool> {
        Ok(true)
    }
}

fn of_array<T: ArrowTimestampType>(
    times: &ArrayRef,
    stride: Stride,
    origin: i64,
    zone: Option<&Arc<str>>,
) -> Result<ArrayRef> {
    let times = as_primitive_array::<T>(times)?;
    // Times that follow each other are mostly of one bucket.
    let mut last: Option<(i64, i64)> = None;
    let mut bucket_of = |time: i64| match last {
        Some((begin, end)) if time >= begin && time < end => Some(begin),
        _ => {
            let bucket = stride.bucket(time, origin, T::UNIT);
            last = bucket.and_then(|bucket| Some((bucket, stride.next(bucket, origin, T::UNIT)?)));
            bucket
        }
    };
    let buckets: PrimitiveArray<T> = times.iter().map(|time| time.and_then(&mut bucket_of)).collect();
    if buckets.null_count() > times.null_count() {
        return plan_err!("{NAME}: a bucket begins before the first time that can be told");
    }
    Ok(Arc::new(buckets.with_timezone_opt(zone.cloned())))
}
