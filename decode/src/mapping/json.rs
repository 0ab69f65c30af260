//! JSON: an object is a reading, an array of objects several; values within have their paths as names
//! (`docs/adr/0017-nested-objects-by-path.md`).

use std::borrow::Cow;

use model::Value;

use super::frame::Framed;
use super::names::Names;
use super::rows::Row;
use super::time_layout::TimeLayout;
use super::{Mapped, Message, Rows, raw_json};
use crate::json_lines::{Scalar, flatten};
use crate::line_protocol::quote;

/// Up to it every whole number is a double.
const EXACT_MAX: u64 = 1 << 53;

/// How values become fields, whatever the shape around them.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    pub(super) strings: Names,
    pub(super) integers: Names,
}

impl Fields {
    /// The field that `value` is; `None` if the rule leaves it out.
    pub(super) fn value<'v>(&self, name: &str, value: &'v Scalar) -> Result<Option<Value<'v>>, String> {
        let is_integer = || self.integers.contains(name);
        Ok(Some(match value {
            Scalar::Text(text) if self.strings.contains(name) => Value::Text(text),
            Scalar::Text(_) => return Ok(None),
            Scalar::Bool(truth) => Value::Bool(*truth),
            Scalar::I64(number) if is_integer() => Value::I64(*number),
            Scalar::U64(number) if is_integer() => Value::U64(*number),
            Scalar::F64(number) if is_integer() => {
                if number.fract() != 0.0 || number.abs() > EXACT_MAX as f64 {
                    return Err(format!("{} is {number}, and json_integer_fields has it", quote(name)));
                }
                Value::I64(*number as i64)
            }
            // JSON does not tell whole numbers from others: 21 and 21.5 are of one kind.
            Scalar::I64(number) if number.unsigned_abs() <= EXACT_MAX => Value::F64(*number as f64),
            Scalar::I64(number) => Value::I64(*number),
            Scalar::U64(number) => Value::U64(*number),
            Scalar::F64(number) => Value::F64(*number),
        }))
    }
}

/// A value as a tag's.
pub(super) fn tag_value(value: &Scalar) -> Cow<'_, str> {
    match value {
        Scalar::Text(text) => text.into(),
        Scalar::I64(number) => number.to_string().into(),
        Scalar::U64(number) => number.to_string().into(),
        Scalar::F64(number) => number.to_string().into(),
        Scalar::Bool(truth) => truth.to_string().into(),
    }
}

/// A payload as text.
pub(super) fn text(payload: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(payload).map_err(|error| format!("byte {}: it is not UTF-8", error.valid_up_to() + 1))
}

/// Lines with their numbers, if a payload is JSON lines; else all of it. It is if one of its first two lines is an object or an
/// array by itself, and the whole is not.
fn documents(text: &str) -> Vec<(usize, &str)> {
    let lines =
        || text.lines().zip(1..).map(|(line, number)| (number, line)).filter(|(_, line)| !line.trim().is_empty());
    let is_document = |line: &str| line.trim_start().starts_with(['{', '[']) && raw_json::elements(line).is_ok();
    let is_lines =
        text.contains('\n') && lines().take(2).any(|(_, line)| is_document(line)) && raw_json::elements(text).is_err();
    if is_lines { lines().collect() } else { vec![(1, text)] }
}

/// How objects are read.
#[derive(Clone, Debug)]
pub(super) struct Json {
    /// Where in the payload they stand.
    pub(super) query: Vec<String>,
    pub(super) tag_keys: Names,
    /// The path of the table's name.
    pub(super) name_key: Option<String>,
    /// The path of the time.
    pub(super) time: Option<(String, TimeLayout)>,
    pub(super) fields: Fields,
}

impl Json {
    pub(super) fn map(&self, message: &Message<'_>, framed: &Framed<'_>, rows: &mut Rows) -> Mapped {
        let text = match text(message.payload) {
            Ok(text) => text,
            Err(reason) => return Mapped::whole(reason),
        };
        let documents = documents(text);
        let mut mapped = Mapped::default();
        let first = rows.len();
        if documents.len() == 1 {
            self.document(text, None, (message, first), framed, rows, &mut mapped);
            return mapped;
        }
        for (line, document) in documents {
            self.document(document, Some(line), (message, first), framed, rows, &mut mapped);
        }
        mapped
    }

    /// One value, which is the whole payload or stands on a `line` of its own. Beside the message, the number of rows that
    /// were there before it.
    fn document(
        &self,
        text: &str,
        line: Option<usize>,
        message: (&Message<'_>, u32),
        framed: &Framed<'_>,
        rows: &mut Rows,
        mapped: &mut Mapped,
    ) {
        let (message, first) = message;
        let place = line.map_or(String::new(), |line| format!("line {line}: "));
        // The whole payload is not copied to be set aside.
        let whole = line.map(|_| text.as_bytes());
        let found = raw_json::at(text, &self.query).and_then(|found| match found {
            // All of it must be JSON, and nothing behind it.
            Some(found) if self.query.is_empty() => raw_json::elements(text).map(|elements| (elements, found)),
            Some(found) => Ok((raw_json::elements(found)?, found)),
            None => Err("there is nothing at json_query in it".into()),
        });
        let (elements, value) = match found {
            Ok((elements, _)) if elements.is_empty() => {
                return mapped.refuse(whole, format!("{place}the array is empty"));
            }
            Ok(found) => found,
            Err(reason) => return mapped.refuse(whole, format!("{place}{reason}")),
        };
        let is_one = elements.len() == 1 && !value.starts_with('[');
        for (number, element) in elements.iter().enumerate() {
            // Elements without a time are several readings, not one.
            let now_us = message.now_us.saturating_add(i64::from(rows.len() - first));
            if let Err(reason) = self.row(element, now_us, framed, rows) {
                match is_one {
                    true if self.query.is_empty() => mapped.refuse(whole, format!("{place}{reason}")),
                    true => mapped.refuse(Some(element.as_bytes()), format!("{place}{reason}")),
                    false => {
                        mapped.refuse(Some(element.as_bytes()), format!("{place}element {}: {reason}", number + 1));
                    }
                }
            }
        }
    }

    fn row(&self, element: &str, now_us: i64, framed: &Framed<'_>, rows: &mut Rows) -> Result<(), String> {
        let values = flatten(element)?;
        let find = |path: &str| values.iter().find(|(name, _)| name == path).map(|(_, value)| value);
        let mut time_us = now_us;
        if let Some((path, layout)) = &self.time {
            let value = find(path).ok_or_else(|| format!("there is no time at {}", quote(path)))?;
            time_us = layout.read(value).map_err(|reason| format!("{}: {reason}", quote(path)))?;
        }
        let mut table = "";
        if let Some(path) = &self.name_key {
            match find(path) {
                Some(Scalar::Text(name)) => table = name,
                _ => return Err(format!("there is no text at {}, which names the table", quote(path))),
            }
        }
        let used = |name: &str| {
            self.time.as_ref().is_some_and(|(path, _)| path == name) || self.name_key.as_deref() == Some(name)
        };
        let row = framed.row(table, time_us);
        add(row, values.iter().filter(|(name, _)| !used(name)), &self.tag_keys, &self.fields, framed, rows)
    }
}

/// Adds `values` to `row`, as tags or fields, and the row to `rows`.
pub(super) fn add<'v>(
    mut row: Row<'v>,
    values: impl Iterator<Item = &'v (String, Scalar)>,
    tag_keys: &Names,
    fields: &Fields,
    framed: &Framed<'_>,
    rows: &mut Rows,
) -> Result<(), String> {
    let mut tags: Vec<(&str, Cow<'_, str>)> = Vec::new();
    for (name, value) in values {
        if tag_keys.contains(name) {
            tags.push((name, tag_value(value)));
        } else if let Some(field) = fields.value(name, value)? {
            if framed.has_tag(name) {
                return Err(format!("{} is a tag by the rule, and a field in the payload", quote(name)));
            }
            row.fields.push((name, field));
        }
    }
    let Row { table, tags: of_rule, fields, time_us } = row;
    let tags = of_rule.into_iter().chain(tags.iter().map(|(name, value)| (*name, &**value))).collect();
    rows.push(Row { table, tags, fields, time_us })
}
