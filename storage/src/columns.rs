//! Between the columns of a batch and Arrow's arrays.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, StringViewArray,
    StringViewBuilder,
};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::{Decimal128Type, Float64Type, Int64Type};
use model::{FieldType, FieldValues, Validity, Value};

/// Appends rows `range` of `from` to `to`; both of one type.
pub(crate) fn extend_values(to: &mut FieldValues, from: &FieldValues, range: Range<usize>) {
    match (to, from) {
        (FieldValues::F64(to), FieldValues::F64(from)) => to.extend_from_slice(&from[range]),
        (FieldValues::I64(to), FieldValues::I64(from)) => to.extend_from_slice(&from[range]),
        (FieldValues::U64(to), FieldValues::U64(from)) => to.extend_from_slice(&from[range]),
        (FieldValues::Bool(to), FieldValues::Bool(from)) => to.extend_from_slice(&from[range]),
        (FieldValues::Text(to), FieldValues::Text(from)) => range.for_each(|row| to.push(from.get(row))),
        (FieldValues::Decimal { units: to, scale: a, .. }, FieldValues::Decimal { units: from, scale: b, .. })
            if a == b =>
        {
            to.extend_from_slice(&from[range]);
        }
        (to, from) => panic!("a {} column takes no {}", to.field_type(), from.field_type()),
    }
}

/// Appends `value`, or a placeholder for `None`.
pub(crate) fn push_value(to: &mut FieldValues, value: Option<Value<'_>>) {
    match (to, value) {
        (FieldValues::F64(to), Some(Value::F64(value))) => to.push(value),
        (FieldValues::F64(to), None) => to.push(0.0),
        (FieldValues::I64(to), Some(Value::I64(value))) => to.push(value),
        (FieldValues::I64(to), None) => to.push(0),
        (FieldValues::U64(to), Some(Value::U64(value))) => to.push(value),
        (FieldValues::U64(to), None) => to.push(0),
        (FieldValues::Bool(to), Some(Value::Bool(value))) => to.push(value),
        (FieldValues::Bool(to), None) => to.push(false),
        (FieldValues::Text(to), Some(Value::Text(value))) => to.push(value),
        (FieldValues::Text(to), None) => to.push(""),
        (FieldValues::Decimal { units: to, scale: of, .. }, Some(Value::Decimal { units, scale })) if *of == scale => {
            to.push(units);
        }
        (FieldValues::Decimal { units: to, .. }, None) => to.push(0),
        (to, Some(value)) => panic!("a {} column takes no {}", to.field_type(), value.field_type()),
    }
}

/// Appends placeholders until there are `len` rows.
pub(crate) fn pad_values(to: &mut FieldValues, len: usize) {
    match to {
        FieldValues::F64(to) => to.resize(len, 0.0),
        FieldValues::I64(to) => to.resize(len, 0),
        FieldValues::U64(to) => to.resize(len, 0),
        FieldValues::Bool(to) => to.resize(len, false),
        FieldValues::Text(to) => to.ends.resize(len, to.bytes.len() as u32),
        FieldValues::Decimal { units, .. } => units.resize(len, 0),
    }
}

/// Bytes that one row of `values` takes, roughly.
pub(crate) fn row_bytes(values: &FieldValues, range: Range<usize>) -> usize {
    let rows = range.len();
    match values {
        FieldValues::F64(_) | FieldValues::I64(_) | FieldValues::U64(_) | FieldValues::Decimal { .. } => rows * 8,
        FieldValues::Bool(_) => rows,
        FieldValues::Text(texts) => {
            let at = |row: usize| if row == 0 { 0 } else { texts.ends[row - 1] as usize };
            rows * 16 + at(range.end) - at(range.start)
        }
    }
}

/// The column as an Arrow array of the type that [`crate::Column::data_type`] names.
pub(crate) fn to_array(values: FieldValues, valid: &Validity) -> ArrayRef {
    let nulls = (valid.absent_count() > 0).then(|| {
        let bytes: Vec<u8> = valid.words().iter().flat_map(|word| word.to_le_bytes()).collect();
        NullBuffer::new(BooleanBuffer::new(bytes.into(), 0, valid.len()))
    });
    match values {
        FieldValues::F64(values) => Arc::new(Float64Array::new(values.into(), nulls)),
        FieldValues::I64(values) => Arc::new(Int64Array::new(values.into(), nulls)),
        FieldValues::U64(values) => {
            let values: Vec<i128> = values.into_iter().map(i128::from).collect();
            let array = Decimal128Array::new(values.into(), nulls);
            Arc::new(array.with_precision_and_scale(20, 0).expect("20 digits hold any u64"))
        }
        FieldValues::Decimal { units, digits, scale } => {
            let values: Vec<i128> = units.into_iter().map(i128::from).collect();
            let array = Decimal128Array::new(values.into(), nulls);
            Arc::new(array.with_precision_and_scale(digits, scale as i8).expect("a scale is at most the digits"))
        }
        FieldValues::Bool(values) => Arc::new(BooleanArray::new(values.into(), nulls)),
        FieldValues::Text(texts) => {
            let mut array = StringViewBuilder::with_capacity(texts.ends.len());
            for row in 0..texts.ends.len() {
                array.append_option(valid.get(row).then(|| texts.get(row)));
            }
            Arc::new(array.finish())
        }
    }
}

/// The value at `row` of an array that holds a field of `field_type`; `None` for null.
pub(crate) fn value_at(array: &dyn Array, field_type: FieldType, row: usize) -> Option<Value<'_>> {
    if array.is_null(row) {
        return None;
    }
    Some(match field_type {
        FieldType::F64 => Value::F64(array.as_primitive::<Float64Type>().value(row)),
        FieldType::I64 => Value::I64(array.as_primitive::<Int64Type>().value(row)),
        FieldType::U64 => {
            let value = array.as_primitive::<Decimal128Type>().value(row);
            Value::U64(u64::try_from(value).expect("an unsigned column holds u64 values only"))
        }
        FieldType::Bool => Value::Bool(array.as_boolean().value(row)),
        FieldType::Text => Value::Text(text_at(array, row)),
        FieldType::Decimal { scale, .. } => {
            let units = array.as_primitive::<Decimal128Type>().value(row);
            Value::Decimal { units: i64::try_from(units).expect("a decimal has at most 18 digits"), scale }
        }
    })
}

/// The text at `row`, whichever of Arrow's text types the array has.
pub(crate) fn text_at(array: &dyn Array, row: usize) -> &str {
    match array.as_any().downcast_ref::<StringViewArray>() {
        Some(texts) => texts.value(row),
        None => array.as_string::<i32>().value(row),
    }
}

/// Whether two values are the same bits: a retry is one, and so is a NaN.
pub(crate) fn same(a: Value<'_>, b: Value<'_>) -> bool {
    match (a, b) {
        (Value::F64(a), Value::F64(b)) => a.to_bits() == b.to_bits(),
        (a, b) => a == b,
    }
}
