//! A row of a file on its way to a line of line protocol.
//!
//! Owns:     the values that files have, and how each is written for a column of a given kind.
//! Does not: decide a column's kind (`columns`), or what a table takes: the server does.
//!
//! Invariant: a value is written so that the server reads exactly it, or refused.

use std::borrow::Cow;

use decode::line_text::write_text;
use model::decimal;

use super::columns::Kind;

/// Digits that a double holds, whatever the number.
const DOUBLE_DIGITS: usize = 15;

/// A value of a file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    /// What stands in a CSV field, whose type its column says.
    Word {
        /// The field.
        text: String,
        /// Whether it stood in quotes.
        is_quoted: bool,
    },
    /// Text.
    Text(String),
    /// A whole number.
    I64(i64),
    /// A whole number above those.
    U64(u64),
    /// Any other number.
    F64(f64),
    /// Truth value.
    Bool(bool),
    /// Units of 10^-scale.
    Decimal {
        /// How many.
        units: i128,
        /// Digits behind the point.
        scale: u8,
    },
    /// Event time in microseconds.
    Time(i64),
}

/// A row with its place in the file: the line that it begins in, or for Parquet its number, from 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Record {
    pub(crate) place: u64,
    /// Column and value, each column at most once.
    pub(crate) cells: Vec<(usize, Cell)>,
}

/// Appends a field's value; false if it is none.
///
/// # Errors
/// Why it cannot be a value of that kind.
pub(crate) fn write_field(kind: Kind, cell: &Cell, out: &mut Vec<u8>) -> Result<bool, String> {
    match cell {
        Cell::Word { text, is_quoted } => return write_word(kind, text, *is_quoted, out),
        Cell::Text(text) => match kind {
            Kind::Text => write_text(text, out),
            // JSON has no exact decimals: an export writes the long ones as texts.
            Kind::Decimal { .. } | Kind::U64 => return write_word(kind, text, true, out),
            _ => return Err(format!("{} is a text, the column is {}", shown(text), kind.name())),
        },
        Cell::I64(number) => write_number(kind, *number, &format!("{number}i"), out)?,
        Cell::U64(number) => write_number(kind, *number, &format!("{number}u"), out)?,
        Cell::F64(number) => write_float(kind, *number, out)?,
        Cell::Decimal { units, scale } => write_decimal(kind, *units, *scale, out)?,
        Cell::Bool(truth) => match kind {
            Kind::Bool => out.extend_from_slice(if *truth { b"true" } else { b"false" }),
            _ => return Err(format!("{truth} is a truth value, the column is {}", kind.name())),
        },
        Cell::Time(us) => match kind {
            Kind::Text => write_text(&(model::time_text::iso(*us) + "Z"), out),
            _ => return Err(format!("a time, the column is {}", kind.name())),
        },
    }
    Ok(true)
}

/// A tag's value; `None` if it has none.
///
/// # Errors
/// Why it cannot be one.
pub(crate) fn tag_value(cell: &Cell) -> Result<Option<Cow<'_, str>>, String> {
    let text: Cow<'_, str> = match cell {
        Cell::Word { text, .. } | Cell::Text(text) => text.into(),
        Cell::I64(number) => number.to_string().into(),
        Cell::U64(number) => number.to_string().into(),
        Cell::Bool(truth) => truth.to_string().into(),
        Cell::Decimal { units, scale } => decimal_text(*units, *scale)?.into(),
        Cell::F64(_) => return Err("a float cannot be a tag".into()),
        Cell::Time(us) => (model::time_text::iso(*us) + "Z").into(),
    };
    if text.chars().any(char::is_control) || text.ends_with('\\') {
        return Err(format!(
            "{} cannot be a tag: no line breaks, control characters or backslash at its end",
            shown(&text)
        ));
    }
    Ok((!text.is_empty()).then_some(text))
}

fn write_word(kind: Kind, text: &str, is_quoted: bool, out: &mut Vec<u8>) -> Result<bool, String> {
    if text.is_empty() && !(is_quoted && kind == Kind::Text) {
        return Ok(false);
    }
    let number = text.trim();
    match kind {
        Kind::Text => write_text(text, out),
        Kind::Bool => match number.to_ascii_lowercase().as_str() {
            "true" | "t" => out.extend_from_slice(b"true"),
            "false" | "f" => out.extend_from_slice(b"false"),
            _ => return Err(format!("{} is neither true nor false", shown(text))),
        },
        Kind::F64 | Kind::I64 | Kind::U64 | Kind::Decimal { .. } => {
            let whole = number.parse::<i64>().ok().filter(|_| kind != Kind::F64);
            if let Some(whole) = whole {
                write_number(kind, whole, &format!("{whole}i"), out)?;
            } else if let Some(whole) = number.parse::<u64>().ok().filter(|_| kind != Kind::F64) {
                write_number(kind, whole, &format!("{whole}u"), out)?;
            } else if let (Kind::Decimal { .. }, Some((units, scale))) = (kind, plain_decimal(number)) {
                write_decimal(kind, units, scale, out)?;
            } else {
                let float = number.parse().map_err(|_| format!("{} is not a number", shown(text)))?;
                write_float(kind, float, out)?;
            }
        }
        Kind::Tag | Kind::Time | Kind::LeftOut => return Err(format!("{} is not a field", shown(text))),
    }
    Ok(true)
}

/// A whole number in its own type: the server turns it into its column's, or refuses it.
fn write_number(kind: Kind, number: impl Into<i128>, lp: &str, out: &mut Vec<u8>) -> Result<(), String> {
    match kind {
        Kind::F64 | Kind::I64 | Kind::U64 | Kind::Decimal { .. } => out.extend_from_slice(lp.as_bytes()),
        Kind::Text => return Err(format!("{} is a number, the column is text", number.into())),
        _ => return Err(format!("{} is a number, the column is {}", number.into(), kind.name())),
    }
    Ok(())
}

fn write_float(kind: Kind, number: f64, out: &mut Vec<u8>) -> Result<(), String> {
    /// Up to it a double holds every whole number.
    const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
    if !number.is_finite() {
        return Err(format!("{number} cannot be stored: neither can NaN nor infinities"));
    }
    match kind {
        // Programs that know only floats write whole numbers so.
        Kind::I64 | Kind::U64 if number.fract() == 0.0 && number.abs() < WHOLE_MAX => {
            out.extend_from_slice(format!("{}i", number as i64).as_bytes());
        }
        Kind::F64 | Kind::I64 | Kind::U64 | Kind::Decimal { .. } => {
            out.extend_from_slice(format!("{number:?}").as_bytes());
        }
        _ => return Err(format!("{number} is a number, the column is {}", kind.name())),
    }
    Ok(())
}

fn write_decimal(kind: Kind, units: i128, scale: u8, out: &mut Vec<u8>) -> Result<(), String> {
    match kind {
        Kind::F64 | Kind::I64 | Kind::U64 | Kind::Decimal { .. } => {}
        _ => return Err(format!("{} is a number, the column is {}", decimal_text(units, scale)?, kind.name())),
    }
    if scale == 0 {
        let suffix = if i64::try_from(units).is_ok() { 'i' } else { 'u' };
        u64::try_from(units.unsigned_abs())
            .ok()
            .filter(|_| suffix == 'i' || units > 0)
            .ok_or_else(|| too_long(&units))?;
        out.extend_from_slice(format!("{units}{suffix}").as_bytes());
        return Ok(());
    }
    let text = decimal_text(units, scale)?;
    out.extend_from_slice(text.as_bytes());
    let digits = text.trim_start_matches(['-', '0', '.']).bytes().filter(u8::is_ascii_digit).count();
    if digits > DOUBLE_DIGITS {
        // Beyond what a float is sure to keep. Short ones stay what other receivers know too.
        out.push(b'd');
    }
    Ok(())
}

/// The digits of a decimal of at most 18, as the server has them.
fn decimal_text(units: i128, scale: u8) -> Result<String, String> {
    let short = i64::try_from(units).ok().and_then(decimal::checked).filter(|_| scale <= decimal::SCALE_MAX);
    let units = short.ok_or_else(|| too_long(&units))?;
    Ok(decimal::Decimal { units, scale }.to_string())
}

fn too_long(units: &i128) -> String {
    format!("a number of the digits {units} has more than {} of them", decimal::DIGITS_MAX)
}

/// `-12.50` as 1250 of 10^-2, if it is written so.
fn plain_decimal(text: &str) -> Option<(i128, u8)> {
    let (whole, fraction) = text.split_once('.')?;
    let unsigned = whole.strip_prefix('-').unwrap_or(whole);
    let are_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !are_digits(unsigned) || !are_digits(fraction) || unsigned.len() + fraction.len() > 36 {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    Some((format!("{whole}{fraction}").parse().ok()?, u8::try_from(fraction.len()).ok()?))
}

/// The beginning of a text, for messages.
pub(crate) fn shown(text: &str) -> String {
    let start: String = text.chars().take(60).collect();
    if start.len() < text.len() { format!("{start:?}…") } else { format!("{start:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(kind: Kind, text: &str) -> Result<String, String> {
        let mut out = Vec::new();
        let cell = Cell::Word { text: text.into(), is_quoted: false };
        write_field(kind, &cell, &mut out).map(|_| String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_word_is_what_its_column_says() {
        for (kind, text, lp) in [
            (Kind::F64, "21.5", "21.5"),
            (Kind::F64, "7", "7.0"),
            (Kind::F64, "-0.0", "-0.0"),
            (Kind::F64, "1e300", "1e300"),
            (Kind::I64, "-7", "-7i"),
            (Kind::I64, "7.0", "7i"),
            (Kind::I64, "7.5", "7.5"),
            (Kind::U64, "18446744073709551615", "18446744073709551615u"),
            (Kind::Decimal { digits: 18, scale: 1 }, "21.5", "21.5"),
            (Kind::Decimal { digits: 18, scale: 3 }, "123456789012345.678", "123456789012345.678d"),
            (Kind::Decimal { digits: 18, scale: 3 }, "1.5000", "1.5"),
            (Kind::Bool, "True", "true"),
            (Kind::Text, "a\"\\\n", "\"a\\\"\\\\\n\""),
            (Kind::Text, "", ""),
        ] {
            assert_eq!(word(kind, text).unwrap(), lp, "{kind:?} {text:?}");
        }
        for (kind, text, said) in [
            (Kind::F64, "nan", "NaN cannot be stored"),
            (Kind::F64, "x", "\"x\" is not a number"),
            (Kind::Bool, "1", "neither true nor false"),
            (Kind::Decimal { digits: 18, scale: 1 }, "1234567890123456789.5", "more than 18"),
        ] {
            assert!(word(kind, text).unwrap_err().contains(said), "{kind:?} {text:?}: {:?}", word(kind, text));
        }
    }

    #[test]
    fn typed_values_do_not_change_their_type() {
        let mut out = Vec::new();
        assert!(
            write_field(Kind::Text, &Cell::I64(5), &mut out).unwrap_err().contains("is a number, the column is text")
        );
        assert!(write_field(Kind::I64, &Cell::Bool(true), &mut out).is_err());
        assert!(write_field(Kind::I64, &Cell::Text("5".into()), &mut out).is_err());
        assert!(
            write_field(
                Kind::Decimal { digits: 18, scale: 3 },
                &Cell::Decimal { units: 10_i128.pow(18), scale: 3 },
                &mut out
            )
            .is_err()
        );
        write_field(Kind::U64, &Cell::Decimal { units: i128::from(u64::MAX), scale: 0 }, &mut out).unwrap();
        assert_eq!(out, b"18446744073709551615u");
        assert!(tag_value(&Cell::Text("a\nb".into())).is_err());
        assert_eq!(tag_value(&Cell::I64(3)).unwrap().unwrap(), "3");
        assert_eq!(tag_value(&Cell::Text(String::new())).unwrap(), None);
    }
}
