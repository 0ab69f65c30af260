//! Parameters as clients send them, as text or binary.
//!
//! Owns:     reading a value of each type that a parameter may have.
//! Does not: find out which type that is (`types`, `extended`).
//!
//! Sources as of `encode`; arrays: `array_recv` in PostgreSQL's `src/backend/utils/adt/arrayfuncs.c`, and "Array Input
//! and Output Syntax" in its documentation.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, IntervalMonthDayNano, TimeUnit};
use bytes::{Buf, Bytes};
use pgwire::api::Type;
use query::ScalarValue;

use super::encode::{EPOCH_DAYS, EPOCH_US};
use super::error::Failed;
use super::types::null_of;

/// Digits that a decimal may have.
const DIGITS_MAX: usize = 38;

/// Reads a parameter of type `oid`.
///
/// # Errors
/// `22P02` and `22P03` where the bytes are no such value.
pub fn value(oid: u32, binary: bool, bytes: Option<&Bytes>) -> Result<ScalarValue, Failed> {
    let Some(null) = null_of(oid) else {
        let reason = format!("parameters of type {} are not supported", type_name(oid));
        return Err(Failed::new("0A000", reason).hint("cast the parameter to another type, text for instance"));
    };
    match bytes {
        None => Ok(null),
        Some(bytes) if binary => of_binary(oid, &null, bytes),
        Some(bytes) => {
            let text = std::str::from_utf8(bytes).map_err(|_| Failed::new("22021", "a parameter is not UTF-8"))?;
            of_text(oid, &null, text)
        }
    }
}

fn type_name(oid: u32) -> String {
    Type::from_oid(oid).map_or_else(|| format!("with the OID {oid}"), |known| known.name().to_owned())
}

fn no_value(oid: u32, text: &str) -> Failed {
    let shown: String = text.chars().take(80).collect();
    Failed::new("22P02", format!("invalid input syntax for type {}: \"{shown}\"", type_name(oid)))
}

fn of_text(oid: u32, null: &ScalarValue, text: &str) -> Result<ScalarValue, Failed> {
    if text.contains('\0') {
        return Err(Failed::new("22021", "a text with a zero byte"));
    }
    let trimmed = text.trim();
    Ok(match null.data_type() {
        DataType::Null | DataType::Utf8 => ScalarValue::Utf8(Some(text.to_owned())),
        DataType::Boolean => ScalarValue::Boolean(Some(truth(trimmed).ok_or_else(|| no_value(oid, text))?)),
        DataType::Float64 => ScalarValue::Float64(Some(trimmed.parse().map_err(|_| no_value(oid, text))?)),
        DataType::Float32 => ScalarValue::Float32(Some(trimmed.parse().map_err(|_| no_value(oid, text))?)),
        DataType::Decimal128(..) => decimal(trimmed).ok_or_else(|| no_value(oid, text))?,
        DataType::Binary => {
            let hex = trimmed.strip_prefix("\\x").filter(|hex| hex.is_ascii() && hex.len().is_multiple_of(2));
            let pairs = hex.ok_or_else(|| no_value(oid, text))?.as_bytes().chunks(2);
            let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap_or_default(), 16);
            ScalarValue::Binary(Some(pairs.map(byte).collect::<Result<_, _>>().map_err(|_| no_value(oid, text))?))
        }
        DataType::List(element) => {
            let texts = elements(trimmed).ok_or_else(|| no_value(oid, text))?;
            list(element.data_type(), &texts).map_err(|()| no_value(oid, text))?
        }
        other => scalar(&cast_texts(vec![Some(trimmed.to_owned())], &other).map_err(|()| no_value(oid, text))?),
    })
}

pub(super) fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "t" | "tr" | "tru" | "true" | "y" | "ye" | "yes" | "on" | "1" => Some(true),
        "f" | "fa" | "fal" | "fals" | "false" | "n" | "no" | "of" | "off" | "0" => Some(false),
        _ => None,
    }
}

fn cast_texts(texts: Vec<Option<String>>, to: &DataType) -> Result<ArrayRef, ()> {
    let texts: ArrayRef = Arc::new(StringArray::from(texts));
    cast_with_options(&texts, to, &CastOptions { safe: false, ..CastOptions::default() }).map_err(|_| ())
}

fn scalar(array: &ArrayRef) -> ScalarValue {
    ScalarValue::try_from_array(array, 0).unwrap_or(ScalarValue::Null)
}

fn list(element: &DataType, texts: &[Option<String>]) -> Result<ScalarValue, ()> {
    let word = |text: &Option<String>| match (element, text) {
        (DataType::Boolean, Some(text)) => truth(text).map(|truth| Some(truth.to_string())).ok_or(()),
        _ => Ok(text.clone()),
    };
    let values = cast_texts(texts.iter().map(word).collect::<Result<_, _>>()?, element)?;
    let values = (0..values.len()).map(|index| ScalarValue::try_from_array(&values, index).map_err(|_| ()));
    let values: Vec<_> = values.collect::<Result<_, _>>()?;
    Ok(ScalarValue::List(ScalarValue::new_list_nullable(&values, element)))
}

/// The elements of `{a,"b c",NULL}`; only of one dimension.
fn elements(text: &str) -> Option<Vec<Option<String>>> {
    let inner = text.strip_prefix('{')?.strip_suffix('}')?;
    if inner.trim().is_empty() {
        return Some(Vec::new());
    }
    let mut found = Vec::new();
    let mut chars = inner.chars().peekable();
    loop {
        while chars.next_if(char::is_ascii_whitespace).is_some() {}
        let mut element = String::new();
        let quoted = chars.next_if_eq(&'"').is_some();
        loop {
            match chars.next() {
                None if quoted => return None,
                Some('"') if quoted => break,
                Some('\\') => element.push(chars.next()?),
                Some('{' | '}' | '"') if !quoted => return None,
                Some(',') if !quoted => {
                    found.push(plain(element));
                    element = String::new();
                    while chars.next_if(char::is_ascii_whitespace).is_some() {}
                    if chars.peek() == Some(&'"') {
                        break;
                    }
                }
                None => {
                    found.push(plain(element));
                    return Some(found);
                }
                Some(char) => element.push(char),
            }
        }
        if quoted {
            found.push(Some(element));
            while chars.next_if(char::is_ascii_whitespace).is_some() {}
            match chars.next() {
                None => return Some(found),
                Some(',') => {}
                Some(_) => return None,
            }
        }
    }
}

fn plain(text: String) -> Option<String> {
    let text = text.trim_end();
    (!text.eq_ignore_ascii_case("null")).then(|| text.to_owned())
}

/// A decimal with the digits that its text has.
fn decimal(text: &str) -> Option<ScalarValue> {
    if text.eq_ignore_ascii_case("nan") {
        return Some(ScalarValue::Float64(Some(f64::NAN)));
    }
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let exponent: i32 = exponent.parse().ok().filter(|exponent: &i32| exponent.abs() <= DIGITS_MAX as i32)?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let sign_free = whole.trim_start_matches(['+', '-']);
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() - sign_free.len() > 1 || !all_digits(sign_free) || !all_digits(fraction) {
        return None;
    }
    if sign_free.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut digits = format!("{sign_free}{fraction}").trim_start_matches('0').to_owned();
    let scale = fraction.len() as i32 - exponent;
    if scale < 0 {
        digits.push_str(&"0".repeat(scale.unsigned_abs() as usize));
    }
    let scale = u8::try_from(scale.max(0)).ok()?;
    let count = digits.len().max(usize::from(scale)).max(1);
    if count > DIGITS_MAX {
        return None;
    }
    let units: i128 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    let units = if whole.starts_with('-') { -units } else { units };
    Some(ScalarValue::Decimal128(Some(units), count as u8, scale.cast_signed()))
}

fn of_binary(oid: u32, null: &ScalarValue, bytes: &Bytes) -> Result<ScalarValue, Failed> {
    let wrong =
        || Failed::new("22P03", format!("incorrect binary data of {} bytes for type {}", bytes.len(), type_name(oid)));
    let mut rest = bytes.clone();
    let read = read_binary(oid, null, &mut rest)?.ok_or_else(wrong)?;
    if rest.is_empty() { Ok(read) } else { Err(wrong()) }
}

/// Takes a value off `bytes`; `None` if it is none.
fn read_binary(oid: u32, null: &ScalarValue, bytes: &mut Bytes) -> Result<Option<ScalarValue>, Failed> {
    let width = match null.data_type() {
        DataType::Boolean => 1,
        DataType::Int16 => 2,
        DataType::Int32 | DataType::Float32 | DataType::Date32 => 4,
        DataType::Int64 if oid == Type::OID.oid() => 4,
        DataType::Int64 | DataType::Float64 | DataType::Timestamp(..) | DataType::Time64(_) => 8,
        DataType::Interval(_) => 16,
        _ => 0,
    };
    if bytes.len() < width {
        return Ok(None);
    }
    Ok(match null.data_type() {
        DataType::Boolean => Some(ScalarValue::Boolean(Some(bytes.get_u8() != 0))),
        DataType::Int16 => Some(ScalarValue::Int16(Some(bytes.get_i16()))),
        DataType::Int32 => Some(ScalarValue::Int32(Some(bytes.get_i32()))),
        DataType::Int64 if width == 4 => Some(ScalarValue::Int64(Some(i64::from(bytes.get_u32())))),
        DataType::Int64 => Some(ScalarValue::Int64(Some(bytes.get_i64()))),
        DataType::Float32 => Some(ScalarValue::Float32(Some(bytes.get_f32()))),
        DataType::Float64 => Some(ScalarValue::Float64(Some(bytes.get_f64()))),
        DataType::Date32 => bytes.get_i32().checked_add(EPOCH_DAYS).map(|days| ScalarValue::Date32(Some(days))),
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let us = bytes.get_i64().checked_add(EPOCH_US);
            us.map(|us| ScalarValue::TimestampMicrosecond(Some(us), zone))
        }
        DataType::Time64(_) => Some(ScalarValue::Time64Microsecond(Some(bytes.get_i64()))),
        DataType::Interval(_) => {
            let (us, days, months) = (bytes.get_i64(), bytes.get_i32(), bytes.get_i32());
            us.checked_mul(1_000)
                .map(|ns| ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(months, days, ns))))
        }
        DataType::Decimal128(..) => numeric(bytes),
        DataType::Binary => Some(ScalarValue::Binary(Some(std::mem::take(bytes).into()))),
        DataType::List(element) => binary_list(element.data_type(), bytes)?,
        DataType::Utf8 if oid == Type::UUID.oid() => {
            let id = <[u8; 16]>::try_from(&*std::mem::take(bytes)).ok();
            id.map(|id| ScalarValue::Utf8(Some(uuid::Uuid::from_bytes(id).to_string())))
        }
        _ => {
            // The version stands before the text.
            if oid == Type::JSONB.oid() && bytes.first() == Some(&1) {
                bytes.advance(1);
            }
            match std::str::from_utf8(&std::mem::take(bytes)) {
                Ok(text) => Some(of_text(oid, null, text)?),
                Err(_) => return Err(Failed::new("22021", "a parameter is not UTF-8")),
            }
        }
    })
}

/// `numeric`: digits to the base of 10 000.
fn numeric(bytes: &mut Bytes) -> Option<ScalarValue> {
    if bytes.len() < 8 {
        return None;
    }
    let (groups, weight, sign, scale) =
        (usize::from(bytes.get_u16()), i32::from(bytes.get_i16()), bytes.get_u16(), usize::from(bytes.get_u16()));
    if sign == 0xC000 {
        return Some(ScalarValue::Float64(Some(f64::NAN)));
    }
    if bytes.len() < groups * 2 || groups > DIGITS_MAX || scale > DIGITS_MAX || weight.abs() > DIGITS_MAX as i32 {
        return None;
    }
    let groups: Vec<i16> = (0..groups).map(|_| bytes.get_i16()).collect();
    if !groups.iter().all(|group| (0..10_000).contains(group)) {
        return None;
    }
    // The group at `at`, where 0 is the one before the point; beyond those that are there are zeros.
    let group = |at: i32| usize::try_from(weight - at).ok().and_then(|at| groups.get(at)).copied().unwrap_or(0);
    let text = |ats: &mut dyn Iterator<Item = i32>| ats.map(|at| format!("{:04}", group(at))).collect::<String>();
    let whole = text(&mut (0..=weight.max(0)).rev());
    let mut fraction = text(&mut (0..scale.div_ceil(4) as i32).map(|at| -1 - at));
    fraction.truncate(scale);
    decimal(&format!("{}{whole}.{fraction}", if sign == 0x4000 { "-" } else { "" }))
}

/// An array: dimensions, a flag for nulls, the element's type; for each dimension its length and lower bound; elements.
fn binary_list(element: &DataType, bytes: &mut Bytes) -> Result<Option<ScalarValue>, Failed> {
    if bytes.len() < 12 {
        return Ok(None);
    }
    let (dimensions, _has_nulls, oid) = (bytes.get_u32(), bytes.get_u32(), bytes.get_u32());
    let null = match null_of(oid) {
        Some(null) if null.data_type() == *element && dimensions <= 1 => null,
        _ => return Ok(None),
    };
    let mut values = Vec::new();
    if dimensions == 1 {
        if bytes.len() < 8 {
            return Ok(None);
        }
        let (count, _lower_bound) = (bytes.get_u32() as usize, bytes.get_u32());
        if bytes.len() / 4 < count {
            return Ok(None);
        }
        for _ in 0..count {
            if bytes.len() < 4 {
                return Ok(None);
            }
            values.push(match bytes.get_i32() {
                -1 => null.clone(),
                length => match usize::try_from(length) {
                    Ok(length) if length <= bytes.len() => of_binary(oid, &null, &bytes.split_to(length))?,
                    _ => return Ok(None),
                },
            });
        }
    }
    Ok(Some(ScalarValue::List(ScalarValue::new_list_nullable(&values, element))))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use model::{Rng as _, SplitMix64};

    use super::super::encode::write_numeric;
    use super::*;

    fn text(of: Type, text: &str) -> Result<ScalarValue, Failed> {
        value(of.oid(), false, Some(&Bytes::copy_from_slice(text.as_bytes())))
    }

    fn binary(of: Type, bytes: &[u8]) -> Result<ScalarValue, Failed> {
        value(of.oid(), true, Some(&Bytes::copy_from_slice(bytes)))
    }

    fn list(values: &[Option<i64>]) -> ScalarValue {
        let values: Vec<_> = values.iter().map(|value| ScalarValue::Int64(*value)).collect();
        ScalarValue::List(ScalarValue::new_list_nullable(&values, &DataType::Int64))
    }

    #[test]
    fn texts_are_values_of_their_type() {
        let utc = || Some("UTC".into());
        for (of, given, expected) in [
            (Type::BOOL, "on", ScalarValue::Boolean(Some(true))),
            (Type::INT4, " -7 ", ScalarValue::Int32(Some(-7))),
            (Type::FLOAT8, "-Infinity", ScalarValue::Float64(Some(f64::NEG_INFINITY))),
            (Type::NUMERIC, "-10.50", ScalarValue::Decimal128(Some(-1_050), 4, 2)),
            (Type::NUMERIC, "1e3", ScalarValue::Decimal128(Some(1_000), 4, 0)),
            (Type::NUMERIC, ".05", ScalarValue::Decimal128(Some(5), 2, 2)),
            (Type::TEXT, " x ", ScalarValue::from(" x ")),
            (Type::UNKNOWN, "7", ScalarValue::from("7")),
            (Type::DATE, "2000-01-02", ScalarValue::Date32(Some(EPOCH_DAYS + 1))),
            (Type::TIMESTAMPTZ, "2000-01-01 01:00:00+01", ScalarValue::TimestampMicrosecond(Some(EPOCH_US), utc())),
            (
                Type::TIMESTAMP,
                "2000-01-01 00:00:00.5",
                ScalarValue::TimestampMicrosecond(Some(EPOCH_US + 500_000), None),
            ),
            (Type::BYTEA, "\\x00ff", ScalarValue::Binary(Some(vec![0, 255]))),
            (Type::INT8_ARRAY, "{1, NULL,3}", list(&[Some(1), None, Some(3)])),
            (Type::INT8_ARRAY, "{}", list(&[])),
        ] {
            assert_eq!(text(of.clone(), given).unwrap(), expected, "{of} {given}");
        }
        for (of, given) in [
            (Type::INT4, "x"),
            (Type::INT2, "40000"),
            (Type::BOOL, "maybe"),
            (Type::TIMESTAMPTZ, "yesterday"),
            (Type::NUMERIC, "1.2.3"),
            (Type::NUMERIC, "--1"),
            (Type::NUMERIC, "1e999999999"),
            (Type::INT8_ARRAY, "{{1},{2}}"),
            (Type::INT8_ARRAY, "{1"),
            (Type::BYTEA, "\\x0"),
        ] {
            assert_eq!(text(of.clone(), given).unwrap_err().code(), "22P02", "{of} {given}");
        }
        let quoted = elements(r#"{a,"b, \"c\"",NULL,"NULL", d }"#).unwrap();
        assert_eq!(
            quoted,
            [Some("a"), Some("b, \"c\""), None, Some("NULL"), Some("d")].map(|it| it.map(str::to_owned))
        );
    }

    #[test]
    fn binary_values_are_values_of_their_type() {
        for (of, given, expected) in [
            (Type::INT2, &[0xff, 0xfe][..], ScalarValue::Int16(Some(-2))),
            (Type::FLOAT8, &1.5_f64.to_be_bytes(), ScalarValue::Float64(Some(1.5))),
            (
                Type::TIMESTAMPTZ,
                &5_i64.to_be_bytes(),
                ScalarValue::TimestampMicrosecond(Some(EPOCH_US + 5), Some("UTC".into())),
            ),
            (Type::DATE, &1_i32.to_be_bytes(), ScalarValue::Date32(Some(EPOCH_DAYS + 1))),
            (Type::JSONB, b"\x01{}", ScalarValue::from("{}")),
            (
                Type::INT8_ARRAY,
                &[
                    &[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 20, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 8][..],
                    &9_i64.to_be_bytes(),
                    &[0xff; 4],
                ]
                .concat(),
                list(&[Some(9), None]),
            ),
        ] {
            assert_eq!(binary(of.clone(), given).unwrap(), expected, "{of}");
        }
        for (of, given) in [
            (Type::INT4, &[0][..]),
            (Type::INT4, &[0; 5]),
            (Type::INT8_ARRAY, &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 20, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1]),
        ] {
            assert_eq!(binary(of.clone(), given).unwrap_err().code(), "22P03", "{of}");
        }
        assert_eq!(value(600, true, Some(&Bytes::new())).unwrap_err().code(), "0A000");
    }

    #[test]
    fn decimals_come_back_as_they_were_written() {
        let seed = 7;
        println!("seed {seed}");
        let rng = SplitMix64::new(seed);
        for _ in 0..5_000 {
            let units = i128::from(rng.next_u64().cast_signed()) >> rng.below(64);
            let scale = rng.below(20) as u8;
            let mut out = BytesMut::new();
            write_numeric(units, scale, &mut out);
            match numeric(&mut out.freeze()).unwrap() {
                ScalarValue::Decimal128(Some(read), _, read_scale) => {
                    assert_eq!((read, read_scale), (units, scale.cast_signed()));
                }
                other => panic!("{units} {scale}: {other:?}"),
            }
        }
    }

    #[test]
    fn hostile_bytes_are_refused_or_read() {
        let seed = 9;
        println!("seed {seed}");
        let rng = SplitMix64::new(seed);
        let types = [
            Type::NUMERIC,
            Type::INT8_ARRAY,
            Type::TEXT_ARRAY,
            Type::INTERVAL,
            Type::UUID,
            Type::JSONB,
            Type::TIMESTAMPTZ_ARRAY,
        ];
        for _ in 0..20_000 {
            let bytes: Vec<u8> =
                (0..rng.below(40)).map(|_| if rng.below(2) == 0 { 0 } else { rng.next_u64() as u8 }).collect();
            for of in &types {
                let _ = binary(of.clone(), &bytes);
                let _ = text(of.clone(), &String::from_utf8_lossy(&bytes));
            }
        }
    }
}
