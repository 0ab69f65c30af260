//! `first(value, time)` and `last(value, time)`, and the row of a group that is first or last.
//!
//! Owns:     aggregates that keep, for each group, what came with the least or the greatest time.
//! Does not: decide when a statement is planned with them (`latest` does).
//!
//! As in TimescaleDB, `last(value, time)` is the value at the greatest time. A row without a value or without a time does not count,
//! so it is the last value that was measured. Of several values at that time it is any one.
//!
//! Invariants
//!  1. Memory is in proportion to the number of groups: what lost is let go of, at the latest when it is as much as what won.

use std::mem::size_of;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, StructArray, UInt32Array, new_null_array};
use arrow::compute::{cast, interleave, take};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Float64Type, Int64Type};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility};

use super::own;

/// Which row of a group counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Which {
    First,
    Last,
}

/// What comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Shape {
    /// One value; rows without it do not count.
    Value,
    /// All values of one row, as a struct.
    Row,
}

/// An aggregate of values and, as the last argument, their time.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Winner {
    name: &'static str,
    which: Which,
    shape: Shape,
    signature: Signature,
}

impl Winner {
    fn new(name: &'static str, which: Which, shape: Shape) -> Self {
        let signature = match shape {
            Shape::Value => Signature::user_defined(Volatility::Immutable),
            Shape::Row => Signature::variadic_any(Volatility::Immutable),
        };
        Winner { name, which, shape, signature }
    }

    /// `first(value, time)`, `last(value, time)`.
    pub(super) fn value(which: Which) -> Self {
        let name = if which == Which::First { "first" } else { "last" };
        Winner::new(name, which, Shape::Value)
    }

    /// The row with the least or greatest last argument: a struct of the arguments before it. For plans only.
    pub(super) fn row(which: Which) -> Self {
        let name = if which == Which::First { "eden_first_row" } else { "eden_last_row" };
        Winner::new(name, which, Shape::Row)
    }
}

/// Whether a time of this type can be compared as a whole number.
pub(super) fn is_key(data_type: &DataType) -> bool {
    use DataType::{Date32, Date64, Float32, Float64, Int8, Int16, Int32, Int64, Timestamp, UInt8, UInt16, UInt32};
    matches!(
        data_type,
        Timestamp(..) | Date32 | Date64 | Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | Float32 | Float64
    )
}

/// Times as whole numbers in the same order.
fn keys(times: &ArrayRef) -> Result<Int64Array> {
    Ok(match times.data_type() {
        DataType::Int64 => times.as_primitive::<Int64Type>().clone(),
        DataType::Timestamp(..) | DataType::Date64 => {
            cast(times, &DataType::Int64)?.as_primitive::<Int64Type>().clone()
        }
        DataType::Date32 => {
            cast(&cast(times, &DataType::Int32)?, &DataType::Int64)?.as_primitive::<Int64Type>().clone()
        }
        DataType::Float32 | DataType::Float64 => {
            let floats = cast(times, &DataType::Float64)?;
            // The order of `f64::total_cmp`.
            floats.as_primitive::<Float64Type>().unary(|value| {
                let bits = value.to_bits().cast_signed();
                bits ^ ((bits >> 63).cast_unsigned() >> 1).cast_signed()
            })
        }
        _ => cast(times, &DataType::Int64)?.as_primitive::<Int64Type>().clone(),
    })
}

fn struct_of(fields: &[FieldRef]) -> Fields {
    fields.iter().enumerate().map(|(at, field)| Field::new(format!("c{at}"), field.data_type().clone(), true)).collect()
}

impl AggregateUDFImpl for Winner {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let [value, time] = types else {
            return plan_err!("{} takes 2 arguments, a value and its time; here are {}", self.name, types.len());
        };
        match time {
            DataType::Null => Ok(vec![value.clone(), DataType::Int64]),
            time if is_key(time) => Ok(types.to_vec()),
            DataType::UInt64 | DataType::Decimal128(..) => {
                plan_err!("{}: the second argument is a time or a number of at most 63 bits, not {time}", self.name)
            }
            time => plan_err!("{}: the second argument is a time or a number, not {time}", self.name),
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let Some((_, values)) = types.split_last() else { return plan_err!("{} takes values and a time", self.name) };
        match (self.shape, values) {
            (Shape::Value, [value]) => Ok(value.clone()),
            (Shape::Value, _) => plan_err!("{} takes a value and its time", self.name),
            (Shape::Row, values) => {
                let fields: Vec<_> = values.iter().map(|value| Arc::new(Field::new("", value.clone(), true))).collect();
                Ok(DataType::Struct(struct_of(&fields)))
            }
        }
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let values = &args.input_fields[..args.input_fields.len().saturating_sub(1)];
        let name = |what: &str| format_state_name(args.name, what);
        let mut fields: Vec<FieldRef> = values
            .iter()
            .enumerate()
            .map(|(at, field)| Arc::new(Field::new(name(&format!("value{at}")), field.data_type().clone(), true)))
            .collect();
        fields.push(Arc::new(Field::new(name("key"), DataType::Int64, true)));
        Ok(fields)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(OneGroup(self.winners(&args))))
    }

    fn create_sliding_accumulator(&self, _args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        plan_err!(
            "{} is not supported over a window that moves; {}_value(…) OVER (…) is",
            self.name,
            if self.which == Which::First { "first" } else { "last" }
        )
    }

    fn groups_accumulator_supported(&self, _args: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(self.winners(&args)))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

impl Winner {
    fn winners(&self, args: &AccumulatorArgs<'_>) -> Winners {
        let values = &args.expr_fields[..args.expr_fields.len().saturating_sub(1)];
        Winners {
            which: self.which,
            shape: self.shape,
            fields: struct_of(values),
            keys: Vec::new(),
            places: Vec::new(),
            chunks: Vec::new(),
            stored_rows: 0,
        }
    }
}

/// Where a group's values are; none yet if `chunk` is [`NOWHERE`].
#[derive(Clone, Copy, Debug)]
struct Place {
    chunk: u32,
    row: u32,
}

const NOWHERE: Place = Place { chunk: u32::MAX, row: 0 };

impl Place {
    fn is_set(self) -> bool {
        self.chunk != u32::MAX
    }
}

/// Rows that lost and are still kept, beyond as many as there are groups.
const LOST_ROWS_MAX: usize = 16_384;

/// Chunks that are kept apart: each has its own arrays, however few rows.
const CHUNKS_MAX: usize = 256;

/// For each group what came with the least or greatest key.
#[derive(Debug)]
struct Winners {
    which: Which,
    shape: Shape,
    /// Of the values.
    fields: Fields,
    keys: Vec<i64>,
    places: Vec<Place>,
    /// Rows that were taken for winners when they came: columns of each.
    chunks: Vec<Vec<ArrayRef>>,
    stored_rows: usize,
}

impl Winners {
    /// Looks at rows; `groups` gives the group of each.
    fn look(
        &mut self,
        values: &[ArrayRef],
        keys: &Int64Array,
        group_of: impl Fn(usize) -> usize,
        filter: Option<&BooleanArray>,
        groups: usize,
    ) -> Result<()> {
        self.keys.resize(groups, 0);
        self.places.resize(groups, NOWHERE);
        let chunk = u32::try_from(self.chunks.len()).unwrap_or(u32::MAX - 1);
        let must_have = match (self.shape, values.first()) {
            (Shape::Value, Some(value)) => value.logical_nulls(),
            _ => None,
        };
        // First which rows win, then their places, so that a group takes one row of a batch at most.
        let mut improved: Vec<usize> = Vec::new();
        for row in 0..keys.len() {
            let is_counted = keys.is_valid(row)
                && must_have.as_ref().is_none_or(|nulls| nulls.is_valid(row))
                && filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
            if !is_counted {
                continue;
            }
            let (group, key) = (group_of(row), keys.value(row));
            let place = self.places[group];
            let wins = match self.which {
                Which::First => key < self.keys[group],
                Which::Last => key > self.keys[group],
            };
            if wins || !place.is_set() {
                if place.chunk != chunk {
                    improved.push(group);
                }
                self.keys[group] = key;
                self.places[group] = Place { chunk, row: row as u32 };
            }
        }
        if improved.is_empty() {
            return Ok(());
        }
        let rows: UInt32Array = improved.iter().map(|group| self.places[*group].row).collect();
        for (row, group) in (0..).zip(&improved) {
            self.places[*group].row = row;
        }
        let taken = values.iter().map(|value| Ok(own(take(value, &rows, None)?))).collect::<Result<Vec<_>>>()?;
        self.chunks.push(taken);
        self.stored_rows += improved.len();
        if self.stored_rows > 2 * groups + LOST_ROWS_MAX || self.chunks.len() > CHUNKS_MAX {
            self.compact()?;
        }
        Ok(())
    }

    /// Columns with the values of some groups.
    fn gather(&self, places: &[Place]) -> Result<Vec<ArrayRef>> {
        let nulls = self.chunks.len();
        let at: Vec<(usize, usize)> = places
            .iter()
            .map(|place| if place.is_set() { (place.chunk as usize, place.row as usize) } else { (nulls, 0) })
            .collect();
        let column = |(index, field): (usize, &FieldRef)| {
            let null = new_null_array(field.data_type(), 1);
            let mut parts: Vec<&dyn Array> = self.chunks.iter().map(|chunk| chunk[index].as_ref()).collect();
            parts.push(&*null);
            Ok(own(interleave(&parts, &at)?))
        };
        self.fields.iter().enumerate().map(column).collect()
    }

    /// Lets go of rows that lost.
    fn compact(&mut self) -> Result<()> {
        let columns = self.gather(&self.places)?;
        self.stored_rows = self.places.len();
        self.chunks = vec![columns];
        for (row, place) in (0..).zip(&mut self.places) {
            if place.is_set() {
                *place = Place { chunk: 0, row };
            }
        }
        Ok(())
    }

    /// Takes the first groups out: their values, and their keys.
    fn emit(&mut self, emit_to: EmitTo) -> Result<(Vec<ArrayRef>, Int64Array)> {
        let places = emit_to.take_needed(&mut self.places);
        let keys = emit_to.take_needed(&mut self.keys);
        let columns = self.gather(&places)?;
        let keys = places.iter().zip(keys).map(|(place, key)| place.is_set().then_some(key)).collect();
        if self.places.is_empty() {
            self.chunks.clear();
            self.stored_rows = 0;
        } else {
            self.compact()?;
        }
        Ok((columns, keys))
    }

    fn shaped(&self, mut columns: Vec<ArrayRef>) -> Result<ArrayRef> {
        match self.shape {
            Shape::Value if columns.len() == 1 => Ok(columns.remove(0)),
            Shape::Value => plan_err!("first and last take a value and its time"),
            Shape::Row => Ok(Arc::new(StructArray::try_new(self.fields.clone(), columns, None)?)),
        }
    }

    fn bytes(&self) -> usize {
        let chunks: usize = self.chunks.iter().flatten().map(Array::get_array_memory_size).sum();
        chunks + self.keys.capacity() * size_of::<i64>() + self.places.capacity() * size_of::<Place>()
    }

    fn split(columns: &[ArrayRef]) -> Result<(&[ArrayRef], &ArrayRef)> {
        match columns.split_last() {
            Some((key, values)) => Ok((values, key)),
            None => plan_err!("first and last take a value and its time"),
        }
    }
}

impl GroupsAccumulator for Winners {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        let (values, times) = Winners::split(values)?;
        self.look(values, &keys(times)?, |row| group_indices[row], opt_filter, total_num_groups)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        let (values, key) = Winners::split(values)?;
        self.look(values, key.as_primitive::<Int64Type>(), |row| group_indices[row], None, total_num_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let (columns, _) = self.emit(emit_to)?;
        self.shaped(columns)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let (mut columns, keys) = self.emit(emit_to)?;
        columns.push(Arc::new(keys));
        Ok(columns)
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let (values, times) = Winners::split(values)?;
        let keys = keys(times)?;
        // A row that does not count has no key.
        let kept: Int64Array = (0..keys.len())
            .map(|row| {
                let is_counted = opt_filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
                (keys.is_valid(row) && is_counted).then(|| keys.value(row))
            })
            .collect();
        let mut columns = values.to_vec();
        columns.push(Arc::new(kept));
        Ok(columns)
    }

    fn size(&self) -> usize {
        self.bytes()
    }
}

/// The same without groups.
#[derive(Debug)]
struct OneGroup(Winners);

impl Accumulator for OneGroup {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (values, times) = Winners::split(values)?;
        self.0.look(values, &keys(times)?, |_| 0, None, 1)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let (values, key) = Winners::split(states)?;
        self.0.look(values, key.as_primitive::<Int64Type>(), |_| 0, None, 1)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.0.places.resize(1, NOWHERE);
        let columns = self.0.gather(&self.0.places)?;
        ScalarValue::try_from_array(&self.0.shaped(columns)?, 0)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.0.places.resize(1, NOWHERE);
        self.0.keys.resize(1, 0);
        let columns = self.0.gather(&self.0.places)?;
        let mut state =
            columns.iter().map(|column| ScalarValue::try_from_array(column, 0)).collect::<Result<Vec<_>>>()?;
        state.push(ScalarValue::Int64(self.0.places[0].is_set().then(|| self.0.keys[0])));
        Ok(state)
    }

    fn size(&self) -> usize {
        self.0.bytes()
    }
}
