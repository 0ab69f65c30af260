//! A payload that is one value.

use model::Value;

use super::frame::Framed;
use super::json::text;
use super::{Mapped, Message, Rows};
use crate::line_protocol::quote;

/// Up to it every whole number is a double.
const EXACT_MAX: u64 = 1 << 53;

/// The type of the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DataType {
    Auto,
    Float,
    Integer,
    Unsigned,
    Boolean,
    Text,
}

impl DataType {
    pub(super) fn of_word(word: &str) -> Option<DataType> {
        Some(match word {
            "auto" => DataType::Auto,
            "float" => DataType::Float,
            "integer" | "long" => DataType::Integer,
            "unsigned" => DataType::Unsigned,
            "boolean" => DataType::Boolean,
            "string" => DataType::Text,
            _ => return None,
        })
    }

    fn read(self, text: &str) -> Result<Value<'_>, String> {
        let wrong = |wanted: &str| format!("{} is not {wanted}", quote(text));
        Ok(match self {
            DataType::Auto => auto(text),
            DataType::Float => Value::F64(float(text).ok_or_else(|| wrong("a number"))?),
            DataType::Integer => Value::I64(text.parse().map_err(|_| wrong("a whole number of 64 bits"))?),
            DataType::Unsigned => Value::U64(text.parse().map_err(|_| wrong("a whole number from 0 to 2^64-1"))?),
            DataType::Boolean => match text.to_ascii_lowercase().as_str() {
                "true" | "t" | "on" | "1" => Value::Bool(true),
                "false" | "f" | "off" | "0" => Value::Bool(false),
                _ => return Err(wrong("true or false, on or off, 1 or 0")),
            },
            DataType::Text => Value::Text(text),
        })
    }
}

/// A finite number in digits.
fn float(text: &str) -> Option<f64> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    text.parse::<f64>().ok().filter(|number| is_number && number.is_finite())
}

fn auto(text: &str) -> Value<'_> {
    let is_large = |number: &i64| number.unsigned_abs() > EXACT_MAX;
    match text {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => match (text.parse::<i64>().ok().filter(is_large), float(text)) {
            (Some(number), _) => Value::I64(number),
            (None, Some(number)) => Value::F64(number),
            (None, None) => Value::Text(text),
        },
    }
}

/// How a value is read.
#[derive(Clone, Debug)]
pub(super) struct Scalar {
    pub(super) data_type: DataType,
    /// The field's name where the topic does not say it.
    pub(super) field_name: String,
}

impl Scalar {
    pub(super) fn map(&self, message: &Message<'_>, framed: &Framed<'_>, rows: &mut Rows) -> Mapped {
        let added = text(message.payload).and_then(|text| {
            let text = text.trim_matches([' ', '\t', '\r', '\n', '\0']);
            if text.is_empty() {
                return Err("there is no value in it".into());
            }
            let mut row = framed.row("", message.now_us);
            row.fields.push((framed.field_name.unwrap_or(&self.field_name), self.data_type.read(text)?));
            rows.push(row)
        });
        match added {
            Ok(()) => Mapped::default(),
            Err(reason) => Mapped::whole(reason),
        }
    }
}
