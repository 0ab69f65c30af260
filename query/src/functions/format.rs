//! `format(pattern, …)`: values put into a text.
//!
//! Owns:     the conversions of PostgreSQL (`%s`, `%I`, `%L`) and those of CrateDB's that are in use (`%d`, `%.2f`).
//! Does not: format times: there is `to_char` for those.
//!
//! Source: PostgreSQL's documentation, "format"; CrateDB's reference, `format`, which is Java's `Formatter`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::exec_err;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

use super::bounded::{BATCH_BYTES_MAX, VALUE_BYTES_MAX, check_arguments, too_large};
use crate::names;

/// Widest field and most digits, so that a pattern cannot ask for a text of any size.
const WIDTH_MAX: usize = 1_000;

#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Format(Signature);

impl Format {
    pub(crate) fn new() -> Self {
        Format(Signature::variadic_any(Volatility::Immutable))
    }
}

impl ScalarUDFImpl for Format {
    fn name(&self) -> &str {
        "format"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        check_arguments("format", &args)?;
        let is_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if is_scalar { 1 } else { args.number_rows };
        let as_text = |arg: &ColumnarValue| -> Result<ArrayRef> { Ok(cast(&arg.to_array(rows)?, &DataType::Utf8)?) };
        let texts = args.args.iter().map(as_text).collect::<Result<Vec<_>>>()?;
        let value = |column: usize, row: usize| {
            let texts = texts[column].as_string::<i32>();
            texts.is_valid(row).then(|| texts.value(row))
        };
        let mut values = Vec::with_capacity(texts.len());
        let mut made = 0;
        let row = |row: usize| -> Result<Option<String>> {
            let Some(pattern) = value(0, row) else { return Ok(None) };
            values.clear();
            values.extend((1..texts.len()).map(|column| value(column, row)));
            let text = formatted(pattern, &values)?;
            made += text.len() as u64;
            if made > BATCH_BYTES_MAX {
                return Err(too_large("format", BATCH_BYTES_MAX));
            }
            Ok(Some(text))
        };
        let answers: StringArray = (0..rows).map(row).collect::<Result<Vec<_>>>()?.into();
        if is_scalar {
            let first = answers.is_valid(0).then(|| answers.value(0).to_owned());
            return Ok(ColumnarValue::Scalar(datafusion::common::ScalarValue::Utf8(first)));
        }
        Ok(ColumnarValue::Array(Arc::new(answers)))
    }
}

/// One `%…` of a pattern.
#[derive(Default)]
struct Conversion {
    /// Which value, from 1; else the next one.
    position: Option<usize>,
    is_left: bool,
    width: usize,
    digits: Option<usize>,
}

fn formatted(pattern: &str, values: &[Option<&str>]) -> Result<String> {
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    let mut next = 0;
    while let Some((before, behind)) = rest.split_once('%') {
        out.push_str(before);
        if let Some(behind) = behind.strip_prefix('%') {
            out.push('%');
            rest = behind;
            continue;
        }
        let (conversion, kind, behind) = conversion(behind)?;
        rest = behind;
        let at = conversion.position.unwrap_or(next + 1);
        next = at;
        let Some(value) = at.checked_sub(1).and_then(|at| values.get(at)) else {
            return exec_err!("format: there is no value {at} for {pattern:?}");
        };
        pad(&text_of(*value, kind, &conversion)?, &conversion, &mut out);
        if out.len() as u64 > VALUE_BYTES_MAX {
            return Err(too_large("format", VALUE_BYTES_MAX));
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Reads what is behind a `%`.
fn conversion(text: &str) -> Result<(Conversion, char, &str)> {
    let mut conversion = Conversion::default();
    let mut rest = text;
    let (position, behind) = number(rest)?;
    if let (Some(position), Some(behind)) = (position, behind.strip_prefix('$')) {
        conversion.position = Some(position);
        rest = behind;
    }
    if let Some(behind) = rest.strip_prefix('-') {
        conversion.is_left = true;
        rest = behind;
    }
    let (width, behind) = number(rest)?;
    conversion.width = width.unwrap_or(0);
    rest = behind;
    if let Some(behind) = rest.strip_prefix('.') {
        let (digits, behind) = number(behind)?;
        conversion.digits = Some(digits.unwrap_or(0));
        rest = behind;
    }
    let mut chars = rest.chars();
    match chars.next() {
        Some(kind) => Ok((conversion, kind, chars.as_str())),
        None => exec_err!("format: the pattern ends in the middle of a conversion; a % is written %%"),
    }
}

/// The number that a text begins with.
fn number(text: &str) -> Result<(Option<usize>, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    if digits.is_empty() {
        return Ok((None, rest));
    }
    match digits.parse() {
        Ok(number) if number <= WIDTH_MAX => Ok((Some(number), rest)),
        _ => exec_err!("format: {digits} is too large; at most {WIDTH_MAX}"),
    }
}

fn text_of(value: Option<&str>, kind: char, conversion: &Conversion) -> Result<String> {
    Ok(match (kind, value) {
        ('s' | 'd' | 'f', None) => String::new(),
        ('s' | 'd', Some(value)) => value.to_owned(),
        ('f', Some(value)) => match value.parse::<f64>() {
            Ok(number) => format!("{number:.*}", conversion.digits.unwrap_or(6)),
            Err(_) => return exec_err!("format: {value:?} is no number for %f"),
        },
        ('L', None) => "NULL".to_owned(),
        ('L', Some(value)) => format!("'{}'", value.replace('\'', "''")),
        ('I', Some(value)) => names::quoted(value),
        ('I', None) => return exec_err!("format: null is no name for %I"),
        (other, _) => return exec_err!("format: there is no conversion %{other}; there are %s, %d, %f, %I, %L and %%"),
    })
}

fn pad(text: &str, conversion: &Conversion, out: &mut String) {
    let missing = conversion.width.saturating_sub(text.chars().count());
    let spaces = " ".repeat(missing);
    let (before, behind) = if conversion.is_left { ("", &*spaces) } else { (&*spaces, "") };
    out.extend([before, text, behind]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_put_into_the_text() {
        for (pattern, values, expected) in [
            ("%s - %s (%s)", &[Some("a"), None, Some("c")][..], "a -  (c)"),
            ("%2$s%1$s%%", &[Some("a"), Some("b")], "ba%"),
            ("%I.%I = %L", &[Some("plant"), Some("Line 1"), Some("it's")], "plant.\"Line 1\" = 'it''s'"),
            ("[%5s|%-5s|%L]", &[Some("ü"), Some("b"), None], "[    ü|b    |NULL]"),
            ("%d of %.2f", &[Some("7"), Some("3.14159")], "7 of 3.14"),
            ("plain", &[], "plain"),
        ] {
            assert_eq!(formatted(pattern, values).unwrap(), expected);
        }
    }

    #[test]
    fn a_pattern_that_cannot_be_is_refused() {
        for (pattern, said) in [
            ("%s %s", "no value 2"),
            ("100%", "in the middle"),
            ("%x", "no conversion %x"),
            ("%99999s", "too large"),
            ("%f", "no number"),
            ("%0$s", "no value 0"),
            (&"%1$s%1$1000s".repeat(70_000), "67108864 bytes"),
        ] {
            let error = formatted(pattern, &[Some("a")]).unwrap_err().to_string();
            assert!(error.contains(said), "{pattern}: {error}");
        }
    }
}
