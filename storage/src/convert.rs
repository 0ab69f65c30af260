//! Numbers of one type as numbers of another: the same number, or none.
//!
//! Owns:     which types may hold each other's numbers, and every such conversion: on admission, at replay, in shards.
//! Does not: decide when a column changes its type (`evolve`) or a row is refused (`admit`).
//!
//! Nothing is rounded. A double stands for its shortest decimal text, as in [`model::decimal`].

use arrow::array::{Array, ArrayRef};
use model::{FieldType, FieldValues, Validity, Value, decimal};

use crate::columns::{push_value, to_array, value_at};

/// Beyond it a double no longer holds every whole number.
const EXACT_MAX: u64 = 1 << 53;

/// Whether values of type `from` may be held by `to` without loss, each to be tried.
pub(crate) fn may_hold(from: FieldType, to: FieldType) -> bool {
    use FieldType::{Decimal, F64, I64, U64};
    matches!(
        (from, to),
        (I64 | U64 | Decimal { .. }, F64)
            | (I64 | Decimal { .. }, U64)
            | (U64 | Decimal { .. }, I64)
            | (F64 | I64 | U64 | Decimal { .. }, Decimal { .. })
    )
}

/// The value in another type, if it is the same number there.
pub(crate) fn convert(value: Value<'_>, to: FieldType) -> Option<Value<'_>> {
    let units_of = |units: Option<i64>, digits, scale| {
        units.filter(|units| units.abs() < decimal::units_end(digits)).map(|units| Value::Decimal { units, scale })
    };
    match (value, to) {
        (Value::F64(v), FieldType::Decimal { digits, scale }) => {
            units_of(decimal::units_of_f64(v, scale), digits, scale)
        }
        (Value::I64(v), FieldType::Decimal { digits, scale }) => {
            units_of(decimal::rescaled(v, 0, scale), digits, scale)
        }
        (Value::U64(v), FieldType::Decimal { digits, scale }) => {
            units_of(i64::try_from(v).ok().and_then(|v| decimal::rescaled(v, 0, scale)), digits, scale)
        }
        (Value::Decimal { units, scale: from }, FieldType::Decimal { digits, scale }) => {
            units_of(decimal::rescaled(units, from, scale), digits, scale)
        }
        (Value::Decimal { units, scale }, FieldType::F64) => {
            let double = decimal::to_f64(units, scale);
            (decimal::units_of_f64(double, scale) == Some(units)).then_some(Value::F64(double))
        }
        (Value::Decimal { units, scale }, FieldType::I64) => decimal::rescaled(units, scale, 0).map(Value::I64),
        (Value::Decimal { units, scale }, FieldType::U64) => {
            decimal::rescaled(units, scale, 0).and_then(|whole| u64::try_from(whole).ok()).map(Value::U64)
        }
        (Value::I64(v), FieldType::F64) if v.unsigned_abs() <= EXACT_MAX => Some(Value::F64(v as f64)),
        (Value::U64(v), FieldType::F64) if v <= EXACT_MAX => Some(Value::F64(v as f64)),
        (Value::I64(v), FieldType::U64) => u64::try_from(v).ok().map(Value::U64),
        (Value::U64(v), FieldType::I64) => i64::try_from(v).ok().map(Value::I64),
        (value, to) => (value.field_type() == to).then_some(value),
    }
}

/// A whole column in another type; else the first row whose value is no such number.
pub(crate) fn convert_values(values: &FieldValues, valid: &Validity, to: FieldType) -> Result<FieldValues, usize> {
    // What a column of measurements with a declared resolution comes as: worth a loop of its own.
    if let (FieldValues::F64(doubles), FieldType::Decimal { digits, scale }) = (values, to) {
        let end = decimal::units_end(digits);
        let mut units = Vec::with_capacity(doubles.len());
        for (row, double) in doubles.iter().enumerate() {
            units.push(match decimal::units_of_f64(*double, scale) {
                Some(units) if units.abs() < end => units,
                _ if valid.get(row) => return Err(row),
                _ => 0,
            });
        }
        return Ok(FieldValues::Decimal { units, digits, scale });
    }
    let mut converted = FieldValues::new(to);
    for row in 0..values.len() {
        let value = match valid.get(row) {
            true => Some(convert(values.get(row), to).ok_or(row)?),
            false => None,
        };
        push_value(&mut converted, value);
    }
    Ok(converted)
}

/// As [`convert_values`], of a column of a shard.
pub(crate) fn convert_array(array: &dyn Array, from: FieldType, to: FieldType) -> Result<ArrayRef, usize> {
    let mut converted = FieldValues::new(to);
    let mut valid = Validity::new();
    for row in 0..array.len() {
        let value = match value_at(array, from, row) {
            Some(value) => Some(convert(value, to).ok_or(row)?),
            None => None,
        };
        valid.push(value.is_some());
        push_value(&mut converted, value);
    }
    Ok(to_array(converted, &valid))
}

#[cfg(test)]
mod tests {
    use model::{Rng, SplitMix64};

    use super::*;

    const TYPES: [FieldType; 8] = [
        FieldType::F64,
        FieldType::I64,
        FieldType::U64,
        FieldType::decimal(0),
        FieldType::decimal(1),
        FieldType::decimal(3),
        FieldType::Decimal { digits: 9, scale: 1 },
        FieldType::decimal(18),
    ];

    /// A number exactly: text without trailing zeros.
    fn exact(value: Value<'_>) -> String {
        let text = match value {
            Value::F64(v) => v.to_string(),
            Value::I64(v) => v.to_string(),
            Value::U64(v) => v.to_string(),
            Value::Decimal { units, scale } => decimal::Decimal { units, scale }.to_string(),
            Value::Bool(_) | Value::Text(_) => unreachable!("numbers only"),
        };
        let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
        if text == "-0" { "0".into() } else { text.into() }
    }

    fn random(rng: &SplitMix64, field_type: FieldType) -> Value<'static> {
        let bits = rng.below(65) as u32;
        let random = if bits == 0 { 0 } else { rng.next_u64() >> (64 - bits) };
        match field_type {
            FieldType::F64 => Value::F64((random >> 1) as f64 / 10_f64.powi(rng.below(6) as i32)),
            FieldType::I64 => Value::I64(random as i64),
            FieldType::U64 => Value::U64(random),
            FieldType::Decimal { digits, scale } => {
                Value::Decimal { units: random as i64 % decimal::units_end(digits), scale }
            }
            FieldType::Bool | FieldType::Text => unreachable!("numbers only"),
        }
    }

    #[test]
    fn a_conversion_keeps_the_number_and_leads_back() {
        let rng = SplitMix64::new(11);
        let mut converted = 0;
        for case in 0..200_000 {
            let (from, to) = (TYPES[rng.below(7) as usize], TYPES[rng.below(7) as usize]);
            let value = random(&rng, from);
            let Some(other) = convert(value, to) else { continue };
            assert!(from == to || may_hold(from, to), "{from} to {to}");
            assert_eq!(exact(other), exact(value), "{value:?} to {to} (seed 11, case {case})");
            if from == to || may_hold(to, from) {
                assert_eq!(convert(other, from), Some(value), "{value:?} to {to} and back");
            }
            converted += 1;
        }
        assert!(converted > 50_000, "{converted}");
    }

    #[test]
    fn columns_are_converted_whole_or_name_their_row() {
        let (values, mut valid) = (FieldValues::F64(vec![1.5, 0.0, -2.0]), Validity::present(1));
        valid.push(false);
        valid.push(true);
        let to = FieldType::decimal(1);
        let converted = FieldValues::Decimal { units: vec![15, 0, -20], digits: decimal::DIGITS_MAX, scale: 1 };
        assert_eq!(convert_values(&values, &valid, to), Ok(converted.clone()));
        assert_eq!(convert_values(&values, &valid, FieldType::decimal(0)), Err(0));
        assert_eq!(convert_values(&FieldValues::F64(vec![0.1, 0.0, 0.1 + 0.2]), &valid, to), Err(2));
        let ints = FieldValues::I64(vec![1, 0, 1 << 60]);
        assert_eq!(convert_values(&ints, &valid, FieldType::F64), Err(2));
        let array = to_array(values, &valid);
        let whole = convert_array(&*array, FieldType::F64, to).unwrap();
        assert_eq!(&whole, &to_array(converted, &valid));
        assert_eq!(convert_array(&*array, FieldType::F64, FieldType::decimal(0)), Err(0));
    }
}
