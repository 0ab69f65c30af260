//! Attributes: names and values, values as texts.

use std::borrow::Cow;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::metrics::{LABEL_BYTES_MAX, LABELS_MAX, Label, text};
use crate::wire::{Malformed, Message};

/// How deep lists and maps in a value may be.
const DEPTH_MAX: usize = 16;

/// What a resource, a scope or a data point is told by.
#[derive(Debug, Default)]
pub(super) struct Attributes<'a> {
    pub(super) labels: Vec<Label<'a>>,
    /// Why no sample with them can be a row.
    pub(super) wrong: Option<&'static str>,
    bytes: usize,
}

impl<'a> Attributes<'a> {
    /// Adds the `KeyValue`s that are the field `wanted` of `message`.
    pub(super) fn read(&mut self, mut message: Message<'a>, wanted: u32) -> Result<(), Malformed> {
        while let Some((number, field)) = message.next()? {
            if number == wanted {
                self.key_value(field.message()?)?;
            }
        }
        Ok(())
    }

    pub(super) fn key_value(&mut self, message: Message<'a>) -> Result<(), Malformed> {
        let ((name, name_is_text), value) = key_value(message)?;
        let Some(value) = value else { return Ok(()) };
        let (value, value_is_text) = value_text(value, self)?;
        self.add(name, (value, name_is_text && value_is_text));
        Ok(())
    }

    /// Adds a label; of so many that no sample can have them the rest is left out.
    pub(super) fn add(&mut self, name: Cow<'a, str>, (value, is_text): (Cow<'a, str>, bool)) {
        if value.is_empty() {
            return;
        }
        if !is_text {
            self.wrong = self.wrong.or(Some("an attribute is not UTF-8"));
        }
        self.bytes = self.bytes.saturating_add(name.len() + value.len());
        if self.labels.len() == LABELS_MAX || self.bytes > LABEL_BYTES_MAX {
            self.wrong = self.wrong.or(Some("there are more attributes, or longer ones, than are taken"));
            return;
        }
        self.labels.push((name, value));
    }
}

type Text<'a> = (Cow<'a, str>, bool);

fn key_value(mut message: Message<'_>) -> Result<(Text<'_>, Option<Message<'_>>), Malformed> {
    let (mut name, mut value) = (&b""[..], None);
    while let Some((number, field)) = message.next()? {
        match number {
            1 => name = field.bytes()?,
            2 => value = Some(field.message()?),
            _ => {}
        }
    }
    Ok((text(name), value))
}

/// An `AnyValue` as text, and whether it is UTF-8.
fn value_text<'a>(mut message: Message<'a>, attributes: &mut Attributes<'_>) -> Result<Text<'a>, Malformed> {
    let whole = message;
    let mut found: Text<'a> = (Cow::Borrowed(""), true);
    while let Some((number, field)) = message.next()? {
        found = match number {
            1 => text(field.bytes()?),
            2 => ((field.varint()? != 0).to_string().into(), true),
            3 => (field.int64()?.to_string().into(), true),
            4 => (field.double()?.to_string().into(), true),
            5 | 6 => {
                let mut json = String::new();
                if !write_json(whole, DEPTH_MAX, &mut json)? {
                    attributes.wrong =
                        attributes.wrong.or(Some("an attribute is longer, or nested deeper, than is taken"));
                }
                (json.into(), true)
            }
            7 => (BASE64_STANDARD.encode(short(field.bytes()?)).into(), true),
            _ => continue,
        };
    }
    Ok(found)
}

/// No more of it than would be refused.
fn short(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(LABEL_BYTES_MAX)]
}

/// Appends an `AnyValue` as JSON; false if it is too deep or too long, and is cut.
fn write_json(mut message: Message<'_>, depth: usize, out: &mut String) -> Result<bool, Malformed> {
    if depth == 0 || out.len() > LABEL_BYTES_MAX {
        return Ok(false);
    }
    let mut is_whole = true;
    let before = out.len();
    while let Some((number, field)) = message.next()? {
        out.truncate(before);
        match number {
            1 => write_text(&text(short(field.bytes()?)).0, out),
            2 => out.push_str(if field.varint()? != 0 { "true" } else { "false" }),
            // Writing to a String does not fail.
            3 => drop(write!(out, "{}", field.int64()?)),
            4 => match field.double()? {
                value if value.is_finite() => drop(write!(out, "{value:?}")),
                value => drop(write!(out, "\"{value}\"")),
            },
            5 => {
                let mut list = field.message()?;
                let mut open = '[';
                while let Some((number, field)) = list.next()? {
                    if number == 1 && is_whole {
                        out.push(open);
                        open = ',';
                        is_whole = write_json(field.message()?, depth - 1, out)?;
                    }
                }
                out.push_str(if open == '[' { "[]" } else { "]" });
            }
            6 => {
                let mut map = field.message()?;
                let mut open = '{';
                while let Some((number, field)) = map.next()? {
                    if number == 1 && is_whole {
                        let ((name, _), value) = key_value(field.message()?)?;
                        out.push(open);
                        open = ',';
                        write_text(&name[..name.floor_char_boundary(LABEL_BYTES_MAX)], out);
                        out.push(':');
                        is_whole = match value {
                            Some(value) => write_json(value, depth - 1, out)?,
                            None => {
                                out.push_str("null");
                                true
                            }
                        };
                    }
                }
                out.push_str(if open == '{' { "{}" } else { "}" });
            }
            7 => write_text(&BASE64_STANDARD.encode(short(field.bytes()?)), out),
            _ => {}
        }
    }
    if out.len() == before {
        out.push_str("null");
    }
    Ok(is_whole)
}

fn write_text(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}
