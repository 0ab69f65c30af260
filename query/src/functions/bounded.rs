//! Functions whose result may be far larger than what they are given, with a bound: `repeat`, `lpad`, `range` and others.
//!
//! Owns:     what a call may make at once, before it makes it.
//! Does not: compute anything itself: DataFusion's function of the name does.
//!
//! Memory that a function takes for its result is in no pool (P10), and what cannot be had ends the process. So a call is told
//! from its arguments how much it could make at most. What is too much in one value is refused; what is too much in one
//! batch is computed part by part, until it has become too much.

mod concatenation;
mod constants;
pub(crate) mod windows;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute::kernels::length::length;
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType, FieldRef, Int64Type, IntervalMonthDayNanoType, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue, plan_err};
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, WindowFunctionDefinition,
};

use concatenation::Concatenation;

/// Bytes of one value, and of what is computed at once.
pub(super) const VALUE_BYTES_MAX: u64 = 64 << 20;

/// Bytes of the values of a batch.
pub(super) const BATCH_BYTES_MAX: u64 = 128 << 20;

/// Pairs of characters that `levenshtein` compares in the time in which others write a byte.
const COMPARED_PER_BYTE: u64 = 8;

const NS_PER_DAY: i64 = 86_400_000_000_000;

pub(super) use constants::LongConstants;

/// How much a function may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Growth {
    /// Its first argument as often as its second says.
    Repeat,
    /// A text of as many characters as its second says.
    Pad,
    /// A list of its first argument as often as its second says.
    RepeatElement,
    /// A list of as many elements as its second says.
    Resize,
    /// A list of all from its first to its second by its third, or from 0 to its first.
    Range,
    /// Its first, with its third in the place of all that is its second.
    Replace,
    /// The same, where the third may name parts of what was found.
    ReplacePattern,
    /// Time, in its case: each character of one with each of the other.
    Compare,
    /// A value of the type that its second names.
    Type,
    /// All its arguments in one.
    Sum,
    /// All others with its first between them.
    Join,
    /// The elements of its first with its second between them.
    JoinElements,
}

/// Refuses the name of a type that its parser would overflow the stack with, or whose values have a size of their own.
fn modest(name: &str) -> Result<()> {
    let opened = name.bytes().filter(|byte| matches!(byte, b'(' | b'<')).count();
    let digits = name.split(|c: char| !c.is_ascii_digit()).map(str::len).max().unwrap_or(0);
    if opened > TYPE_LEVELS_MAX || (digits > TYPE_SIZE_DIGITS_MAX && name.contains("Fixed")) {
        return plan_err!(
            "a type of more than {TYPE_LEVELS_MAX} levels, or of values of a million parts, is not supported"
        );
    }
    Ok(())
}

/// Types in types, in the name of one.
const TYPE_LEVELS_MAX: usize = 16;

/// Digits of the size that values of a type have.
const TYPE_SIZE_DIGITS_MAX: usize = 6;

/// The functions.
const FUNCTIONS: [(&str, Growth); 21] = [
    ("repeat", Growth::Repeat),
    ("lpad", Growth::Pad),
    ("rpad", Growth::Pad),
    ("array_repeat", Growth::RepeatElement),
    ("array_resize", Growth::Resize),
    ("range", Growth::Range),
    ("generate_series", Growth::Range),
    ("replace", Growth::Replace),
    ("regexp_replace", Growth::ReplacePattern),
    ("levenshtein", Growth::Compare),
    ("arrow_cast", Growth::Type),
    ("arrow_try_cast", Growth::Type),
    ("strpos", Growth::Compare),
    ("concat", Growth::Sum),
    ("concat_ws", Growth::Join),
    ("array_to_string", Growth::JoinElements),
    ("make_array", Growth::Sum),
    ("array_append", Growth::Sum),
    ("array_prepend", Growth::Sum),
    ("array_concat", Growth::Sum),
    ("map", Growth::Sum),
];

/// Puts the bounds around the functions that are there.
///
/// # Errors
/// None that a statement could bring about.
pub(super) fn register(state: &mut SessionState) -> Result<()> {
    for (name, growth) in FUNCTIONS {
        let inner = state.udf(name)?;
        state.register_udf(Arc::new(ScalarUDF::from(Bounded { inner, growth })))?;
    }
    state.register_function_rewrite(Arc::new(Bounds { concatenation: Concatenation::function() }))?;
    Ok(())
}

/// Puts functions with a bound in the place of what is no function that could be registered.
#[derive(Debug)]
struct Bounds {
    concatenation: Arc<ScalarUDF>,
}

impl FunctionRewrite for Bounds {
    fn name(&self) -> &str {
        "bounds"
    }

    fn rewrite(&self, expr: Expr, _schema: &DFSchema, _config: &ConfigOptions) -> Result<Transformed<Expr>> {
        Ok(match expr {
            Expr::BinaryExpr(binary) if binary.op == Operator::StringConcat => {
                Transformed::yes(concatenation::rewritten(binary, &self.concatenation))
            }
            Expr::WindowFunction(mut call) => {
                let bounded = match &call.fun {
                    WindowFunctionDefinition::AggregateUDF(aggregate) => windows::bounded(aggregate),
                    WindowFunctionDefinition::WindowUDF(_) => None,
                };
                let is_bounded = bounded.is_some();
                call.fun = bounded.map_or(call.fun, WindowFunctionDefinition::AggregateUDF);
                let expr = Expr::WindowFunction(call);
                if is_bounded { Transformed::yes(expr) } else { Transformed::no(expr) }
            }
            other => Transformed::no(other),
        })
    }
}

/// What a call is told that would make too much.
pub(super) fn too_large(name: &str, limit: u64) -> DataFusionError {
    DataFusionError::Execution(format!(
        "the result of {name} would have more than the {limit} bytes that it may have at once"
    ))
}

/// Refuses a call whose arguments have too many bytes in all rows.
///
/// # Errors
/// The bound.
pub(super) fn check_arguments(name: &str, args: &ScalarFunctionArgs) -> Result<()> {
    if all_bytes(args, Growth::Sum)? > BATCH_BYTES_MAX {
        return Err(too_large(name, BATCH_BYTES_MAX));
    }
    Ok(())
}

/// The bytes of all arguments of a call in all rows.
fn all_bytes(args: &ScalarFunctionArgs, growth: Growth) -> Result<u64> {
    Arguments { args: &args.args, rows: args.number_rows }.all_bytes(growth)
}

/// A function with a bound.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    growth: Growth,
}

impl Bounded {
    fn too_large(&self, limit: u64) -> DataFusionError {
        let name = self.inner.name();
        match self.growth {
            Growth::Compare => DataFusionError::Execution(format!("the texts that {name} would compare are too long")),
            _ => too_large(name, limit),
        }
    }

    /// The most bytes that each row may become.
    fn bounds(&self, args: &ScalarFunctionArgs) -> Result<Vec<u64>> {
        let all = Arguments { args: &args.args, rows: args.number_rows };
        let rows =
            if args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_))) { 1 } else { args.number_rows };
        let unsigned = |number: i64| u64::try_from(number).unwrap_or(0);
        let bound: Box<dyn Fn(usize) -> u64> = match self.growth {
            Growth::Repeat => {
                let (text, times) = (all.lengths(0)?, all.numbers(1)?);
                Box::new(move |row| unsigned(text.get(row)).saturating_mul(unsigned(times.get(row))))
            }
            Growth::Pad => {
                let characters = all.numbers(1)?;
                let is_wide = args.args.get(2).is_some();
                let width = if is_wide { char::MAX.len_utf8() as u64 } else { 1 };
                let text = all.lengths(0)?;
                Box::new(move |row| {
                    let padding = unsigned(characters.get(row)).saturating_mul(width);
                    padding.saturating_add(unsigned(text.get(row)))
                })
            }
            Growth::RepeatElement => {
                let (element, times) = (all.element_bytes(0)?, all.numbers(1)?);
                Box::new(move |row| element.saturating_mul(unsigned(times.get(row))))
            }
            Growth::Resize => {
                let (element, times) = (all.element_bytes(2)?, all.numbers(1)?);
                Box::new(move |row| element.saturating_mul(unsigned(times.get(row))))
            }
            Growth::Range => {
                let (from, to, by) = match args.args.len() {
                    0 | 1 => (Numbers::of(0), all.numbers(0)?, Numbers::of(1)),
                    2 => (all.numbers(0)?, all.numbers(1)?, Numbers::of(1)),
                    _ => (all.numbers(0)?, all.numbers(1)?, all.numbers(2)?),
                };
                Box::new(move |row| {
                    let by = by.get(row).unsigned_abs().max(1);
                    from.get(row).abs_diff(to.get(row)).saturating_div(by).saturating_mul(8)
                })
            }
            Growth::Replace | Growth::ReplacePattern => {
                let (text, found, put) = (all.lengths(0)?, all.lengths(1)?, all.lengths(2)?);
                let is_pattern = self.growth == Growth::ReplacePattern;
                Box::new(move |row| {
                    let (text, put) = (unsigned(text.get(row)), unsigned(put.get(row)));
                    // Patterns find what is empty, and what is put may name all of a text with each two characters.
                    let found = if is_pattern { 1 } else { unsigned(found.get(row)).max(1) };
                    let named = if is_pattern { text.saturating_mul(put / 2) } else { 0 };
                    text.saturating_add((text / found).saturating_add(1).saturating_mul(put)).saturating_add(named)
                })
            }
            Growth::Type | Growth::Sum | Growth::Join => Box::new(|_| 0),
            Growth::JoinElements => {
                let (elements, between) = (all.elements(0)?, all.lengths(1)?);
                let width = all.element_bytes(0)?;
                Box::new(move |row| {
                    unsigned(elements.get(row)).saturating_mul(unsigned(between.get(row))).saturating_add(width)
                })
            }
            Growth::Compare => {
                let (one, other) = (all.lengths(0)?, all.lengths(1)?);
                Box::new(move |row| unsigned(one.get(row)).saturating_mul(unsigned(other.get(row))) / COMPARED_PER_BYTE)
            }
        };
        Ok((0..rows).map(bound).collect())
    }

    /// Calls the function for portions of rows, each within the bound of a value.
    fn in_portions(&self, args: &ScalarFunctionArgs, bounds: &[u64]) -> Result<ColumnarValue> {
        let mut parts: Vec<ArrayRef> = Vec::new();
        let (mut first, mut made) = (0, 0_u64);
        while first < bounds.len() {
            let mut bytes = 0_u64;
            let fits = |bound: &&u64| {
                bytes = bytes.saturating_add(**bound);
                bytes <= VALUE_BYTES_MAX
            };
            let rows = bounds[first..].iter().take_while(fits).count().max(1);
            let portion = |arg: &ColumnarValue| match arg {
                ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(first, rows)),
                scalar @ ColumnarValue::Scalar(_) => scalar.clone(),
            };
            let mut portion_args = args.clone();
            portion_args.args = args.args.iter().map(portion).collect();
            portion_args.number_rows = rows;
            let part = self.inner.invoke_with_args(portion_args)?.into_array(rows)?;
            made = made.saturating_add(part.get_array_memory_size() as u64);
            if made > BATCH_BYTES_MAX {
                return Err(self.too_large(BATCH_BYTES_MAX));
            }
            parts.push(part);
            first += rows;
        }
        let parts: Vec<&dyn Array> = parts.iter().map(|part| &**part).collect();
        Ok(ColumnarValue::Array(concat(&parts)?))
    }
}

/// The arguments of a call.
struct Arguments<'a> {
    args: &'a [ColumnarValue],
    rows: usize,
}

/// Whole numbers, one for each row or one for all.
struct Numbers {
    values: Int64Array,
    is_one: bool,
}

impl Numbers {
    fn of(value: i64) -> Numbers {
        Numbers { values: Int64Array::from(vec![value]), is_one: true }
    }

    /// 0 for what is NULL.
    fn get(&self, row: usize) -> i64 {
        let row = if self.is_one { 0 } else { row };
        if self.values.is_null(row) { 0 } else { self.values.value(row) }
    }
}

impl Arguments<'_> {
    fn array(&self, place: usize) -> Result<Option<(ArrayRef, bool)>> {
        Ok(match self.args.get(place) {
            None => None,
            Some(ColumnarValue::Array(array)) => Some((Arc::clone(array), false)),
            Some(ColumnarValue::Scalar(scalar)) => Some((scalar.to_array_of_size(1)?, true)),
        })
    }

    /// An argument as numbers: times and steps in nanoseconds.
    fn numbers(&self, place: usize) -> Result<Numbers> {
        let Some((array, is_one)) = self.array(place)? else { return Ok(Numbers::of(0)) };
        let times = DataType::Timestamp(TimeUnit::Microsecond, None);
        let ns = |us: i64| us.saturating_mul(1_000);
        let values = match array.data_type() {
            DataType::Interval(_) => {
                let steps = array.as_primitive_opt::<IntervalMonthDayNanoType>();
                let length = |step: arrow::datatypes::IntervalMonthDayNano| {
                    let days = i64::from(step.months).saturating_mul(28).saturating_add(i64::from(step.days));
                    days.saturating_mul(NS_PER_DAY).saturating_add(step.nanoseconds)
                };
                match steps {
                    Some(steps) => steps.iter().map(|step| step.map(length)).collect(),
                    None => Int64Array::from(vec![1; array.len()]),
                }
            }
            DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => {
                cast(&cast(&array, &times)?, &DataType::Int64)?.as_primitive::<Int64Type>().unary(ns)
            }
            _ => cast(&array, &DataType::Int64)?.as_primitive::<Int64Type>().clone(),
        };
        Ok(Numbers { values, is_one })
    }

    /// The bytes of an argument that is text.
    fn lengths(&self, place: usize) -> Result<Numbers> {
        let Some((array, is_one)) = self.array(place)? else { return Ok(Numbers::of(0)) };
        let array = match array.data_type() {
            DataType::Null => return Ok(Numbers::of(0)),
            DataType::Dictionary(_, values) => cast(&array, values)?,
            _ => array,
        };
        let values = cast(&length(&array)?, &DataType::Int64)?.as_primitive::<Int64Type>().clone();
        Ok(Numbers { values, is_one })
    }

    /// The elements of an argument that is a list.
    fn elements(&self, place: usize) -> Result<Numbers> {
        match self.array(place)? {
            Some((array, is_one)) if matches!(array.data_type(), DataType::List(_) | DataType::LargeList(_)) => {
                Ok(Numbers { values: cast(&length(&array)?, &DataType::Int64)?.as_primitive().clone(), is_one })
            }
            Some((array, is_one)) => {
                let DataType::FixedSizeList(_, size) = array.data_type() else { return Ok(Numbers::of(0)) };
                Ok(Numbers { values: Int64Array::from(vec![i64::from(*size); array.len()]), is_one })
            }
            None => Ok(Numbers::of(0)),
        }
    }

    /// The bytes of all arguments in all rows; those of one that is the same in each are as many times there.
    fn all_bytes(&self, growth: Growth) -> Result<u64> {
        let is_scalar = self.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if is_scalar { 1 } else { self.rows as u64 };
        let mut total = 0_u64;
        for (place, arg) in self.args.iter().enumerate() {
            let bytes = match arg {
                ColumnarValue::Array(array) => bytes_of(array),
                ColumnarValue::Scalar(scalar) => bytes_of(&scalar.to_array_of_size(1)?).saturating_mul(rows),
            };
            let times = if growth == Growth::Join && place == 0 { self.args.len() as u64 } else { 1 };
            total = total.saturating_add(bytes.saturating_mul(times));
        }
        Ok(total)
    }

    /// The bytes of one value of an argument, on average.
    fn element_bytes(&self, place: usize) -> Result<u64> {
        let Some((array, is_one)) = self.array(place)? else { return Ok(size_of::<ScalarValue>() as u64) };
        let rows = if is_one { 1 } else { self.rows.max(1) };
        let width = array.data_type().primitive_width().unwrap_or_else(|| array.get_array_memory_size() / rows);
        Ok(width.max(1) as u64)
    }
}

/// The bytes that the values of an array would have if none shared them.
fn bytes_of(array: &ArrayRef) -> u64 {
    let sum = |lengths: &mut dyn Iterator<Item = u32>| lengths.map(u64::from).sum();
    match array.data_type() {
        DataType::Utf8View => sum(&mut array.as_string_view().lengths()),
        DataType::BinaryView => sum(&mut array.as_binary_view().lengths()),
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let values = dictionary.values();
            let width = bytes_of(values).div_ceil(values.len().max(1) as u64);
            width.saturating_mul(array.len() as u64)
        }
        // That of part of an array counts as that of all of it unless it matters.
        _ if (array.get_buffer_memory_size() as u64) < BATCH_BYTES_MAX => array.get_buffer_memory_size() as u64,
        _ => array.to_data().get_slice_memory_size().map_or(u64::MAX, |bytes| bytes as u64),
    }
}

impl ScalarUDFImpl for Bounded {
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if matches!(self.growth, Growth::Sum | Growth::Join) {
            if all_bytes(&args, self.growth)? > BATCH_BYTES_MAX {
                return Err(self.too_large(BATCH_BYTES_MAX));
            }
            return self.inner.invoke_with_args(args);
        }
        let bounds = self.bounds(&args)?;
        if bounds.iter().any(|bound| *bound > VALUE_BYTES_MAX) {
            return Err(self.too_large(VALUE_BYTES_MAX));
        }
        // One value for all rows is there once.
        let total = bounds.iter().fold(0_u64, |total, bound| total.saturating_add(*bound));
        if total <= VALUE_BYTES_MAX {
            return self.inner.invoke_with_args(args);
        }
        self.in_portions(&args, &bounds)
    }

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.inner.inner().schema_name(args)
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arg_types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        if self.growth == Growth::Type {
            args.scalar_arguments
                .iter()
                .flatten()
                .filter_map(|text| text.try_as_str().flatten())
                .try_for_each(modest)?;
        }
        self.inner.return_field_from_args(args)
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        if self.growth == Growth::Type {
            let texts = args.iter().filter_map(|arg| arg.as_literal()?.try_as_str().flatten());
            texts.into_iter().try_for_each(modest)?;
        }
        match self.inner.simplify(args, info)? {
            // That of the function within would be without a bound.
            ExprSimplifyResult::Simplified(Expr::ScalarFunction(mut call)) if call.func == self.inner => {
                call.func = Arc::new(ScalarUDF::from(self.clone()));
                Ok(ExprSimplifyResult::Simplified(Expr::ScalarFunction(call)))
            }
            other => Ok(other),
        }
    }

    fn short_circuits(&self) -> bool {
        self.inner.short_circuits()
    }

    fn evaluate_bounds(&self, input: &[&Interval]) -> Result<Interval> {
        self.inner.evaluate_bounds(input)
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.inner.output_ordering(inputs)
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(arg_types)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}
