//! Functions of the calendar, fast on times in UTC.
//!
//! Owns:     `date_trunc` and `date_part` of DataFusion, for times whose zone is UTC.
//! Does not: change what they answer.
//!
//! Every time of a table is in UTC. DataFusion looks up what a zone did at each time, row by row, also for the zone that
//! never does anything; `date_trunc('day', time)` was nine tenths of a query by device and day. Without a zone the same
//! functions calculate in UTC.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::datatypes::{
    DataType, FieldRef, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};
use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::preimage::PreimageResult;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

/// The functions that are wrapped.
pub(super) const NAMES: [&str; 2] = [TRUNC, "date_part"];

const TRUNC: &str = "date_trunc";

/// A function of the calendar.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct InUtc(pub(super) Arc<ScalarUDF>);

/// Whether a zone is UTC at all times.
fn is_utc(zone: &str) -> bool {
    matches!(zone, "UTC" | "Etc/UTC" | "+00:00" | "Z")
}

/// The same times in another zone: what they count is the same.
fn in_zone(times: &ArrayRef, unit: TimeUnit, zone: Option<Arc<str>>) -> ArrayRef {
    match unit {
        TimeUnit::Second => Arc::new(times.as_primitive::<TimestampSecondType>().clone().with_timezone_opt(zone)),
        TimeUnit::Millisecond => {
            Arc::new(times.as_primitive::<TimestampMillisecondType>().clone().with_timezone_opt(zone))
        }
        TimeUnit::Microsecond => {
            Arc::new(times.as_primitive::<TimestampMicrosecondType>().clone().with_timezone_opt(zone))
        }
        TimeUnit::Nanosecond => {
            Arc::new(times.as_primitive::<TimestampNanosecondType>().clone().with_timezone_opt(zone))
        }
    }
}

/// The µs of a unit of the clock, each of which begins at a multiple of it since 1970.
fn clock_unit_us(name: &ColumnarValue) -> Option<i64> {
    let ColumnarValue::Scalar(name) = name else { return None };
    match name.try_as_str().flatten()?.to_ascii_lowercase().as_str() {
        "millisecond" => Some(1_000),
        "second" => Some(1_000_000),
        "minute" => Some(60_000_000),
        "hour" => Some(3_600_000_000),
        "day" => Some(86_400_000_000),
        _ => None,
    }
}

/// The begin of the unit that each time is in. Times that follow each other are mostly in one, so few are divided.
fn truncated(times: &ArrayRef, unit_us: i64) -> ArrayRef {
    let times = times.as_primitive::<TimestampMicrosecondType>();
    let mut begin = 0;
    let begins = times.values().iter().map(|time| {
        if !(0..unit_us).contains(&time.wrapping_sub(begin)) {
            begin = time.saturating_sub(time.rem_euclid(unit_us));
        }
        begin
    });
    let begins: Vec<i64> = begins.collect();
    Arc::new(TimestampMicrosecondArray::new(begins.into(), times.nulls().cloned()))
}

impl ScalarUDFImpl for InUtc {
    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if self.0.name() == TRUNC
            && let [unit, ColumnarValue::Array(times)] = args.args.as_slice()
            && let DataType::Timestamp(TimeUnit::Microsecond, zone) = times.data_type()
            && zone.as_deref().is_none_or(is_utc)
            && let Some(unit_us) = clock_unit_us(unit)
        {
            return Ok(ColumnarValue::Array(in_zone(&truncated(times, unit_us), TimeUnit::Microsecond, zone.clone())));
        }
        for (value, field) in args.args.iter_mut().zip(&mut args.arg_fields) {
            // A constant is calculated once, whatever its zone.
            let ColumnarValue::Array(array) = value else { continue };
            if let DataType::Timestamp(unit, Some(zone)) = array.data_type()
                && is_utc(zone)
            {
                let unit = *unit;
                *value = ColumnarValue::Array(in_zone(array, unit, None));
                *field = Arc::new(field.as_ref().clone().with_data_type(DataType::Timestamp(unit, None)));
            }
        }
        let wanted = args.return_field.data_type().clone();
        if let DataType::Timestamp(unit, Some(zone)) = &wanted
            && is_utc(zone)
        {
            let plain = args.return_field.as_ref().clone().with_data_type(DataType::Timestamp(*unit, None));
            args.return_field = Arc::new(plain);
        }
        let result = self.0.invoke_with_args(args)?;
        Ok(match (result, wanted) {
            (ColumnarValue::Array(array), DataType::Timestamp(unit, zone)) => match array.data_type() {
                DataType::Timestamp(of, _) if *of == unit => ColumnarValue::Array(in_zone(&array, unit, zone)),
                _ => ColumnarValue::Array(array),
            },
            (result, _) => result,
        })
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn aliases(&self) -> &[String] {
        self.0.aliases()
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.0.inner().schema_name(args)
    }

    fn signature(&self) -> &Signature {
        self.0.inner().signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.0.inner().return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.0.inner().return_field_from_args(args)
    }

    fn is_strict(&self) -> bool {
        self.0.inner().is_strict()
    }

    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        let updated = self.0.inner().with_updated_config(config)?;
        Some(ScalarUDF::from(InUtc(Arc::new(updated))))
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.0.inner().simplify(args, info)
    }

    fn preimage(&self, args: &[Expr], value: &Expr, info: &SimplifyContext) -> Result<PreimageResult> {
        self.0.inner().preimage(args, value, info)
    }

    fn evaluate_bounds(&self, input: &[&Interval]) -> Result<Interval> {
        self.0.inner().evaluate_bounds(input)
    }

    fn propagate_constraints(&self, interval: &Interval, inputs: &[&Interval]) -> Result<Option<Vec<Interval>>> {
        self.0.inner().propagate_constraints(interval, inputs)
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.0.inner().output_ordering(inputs)
    }

    fn preserves_lex_ordering(&self, inputs: &[ExprProperties]) -> Result<bool> {
        self.0.inner().preserves_lex_ordering(inputs)
    }

    fn strictly_order_preserving(&self, inputs: &[ExprProperties]) -> Result<bool> {
        self.0.inner().strictly_order_preserving(inputs)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.0.inner().coerce_types(types)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.0.inner().documentation()
    }
}
