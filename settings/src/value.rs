//! Values: as they stand in a file or the environment, and the types that keys have.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::{ByteSize, Period};

/// A value before it is given a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A TOML string.
    Text(String),
    /// A TOML integer.
    Integer(i64),
    /// A TOML list of strings.
    Texts(Vec<String>),
    /// A TOML table of strings.
    Named(BTreeMap<String, String>),
    /// A value of the environment, which has no types.
    Untyped(String),
    /// A TOML value that no key takes; its type's name.
    Other(&'static str),
}

/// A type that a key may have.
pub trait Setting: Sized {
    /// Reads a value.
    ///
    /// # Errors
    /// Says what the key takes.
    fn read(value: &Value) -> Result<Self, String>;
    /// The value in TOML.
    fn show(&self) -> String;
}

/// The text of a value.
///
/// # Errors
/// If it is none: says that the key takes `wanted`.
pub fn text<'a>(value: &'a Value, wanted: &str) -> Result<&'a str, String> {
    match value {
        Value::Text(text) | Value::Untyped(text) => Ok(text),
        Value::Integer(number) => Err(format!("{number} needs quotes: this key takes {wanted}")),
        Value::Texts(_) => Err(format!("this key takes {wanted}, not a list")),
        Value::Named(_) => Err(format!("this key takes {wanted}, not a table")),
        Value::Other(kind) => Err(format!("this key takes {wanted}, not {kind}")),
    }
}

/// A text as a TOML string.
pub fn quoted(text: &str) -> String {
    toml::Value::String(text.into()).to_string()
}

impl Setting for String {
    fn read(value: &Value) -> Result<Self, String> {
        text(value, "a text").map(str::to_owned)
    }

    fn show(&self) -> String {
        quoted(self)
    }
}

/// Texts in a list; by the environment: separated by commas.
impl Setting for Vec<String> {
    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Texts(texts) => Ok(texts.clone()),
            Value::Untyped(text) => {
                Ok(text.split(',').map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned).collect())
            }
            _ => Err("this key takes a list of texts: [\"room\", \"floor\"]".into()),
        }
    }

    fn show(&self) -> String {
        let texts: Vec<String> = self.iter().map(|text| quoted(text)).collect();
        format!("[{}]", texts.join(", "))
    }
}

impl Setting for PathBuf {
    fn read(value: &Value) -> Result<Self, String> {
        match text(value, "a path")? {
            "" => Err("this key takes a path, not an empty text".into()),
            path => Ok(path.into()),
        }
    }

    fn show(&self) -> String {
        quoted(&self.to_string_lossy())
    }
}

impl Setting for ByteSize {
    fn read(value: &Value) -> Result<Self, String> {
        ByteSize::parse(text(value, "a size such as \"256MiB\"")?)
    }

    fn show(&self) -> String {
        quoted(&self.to_string())
    }
}

impl Setting for Period {
    fn read(value: &Value) -> Result<Self, String> {
        Period::parse(text(value, "a duration such as \"90s\"")?)
    }

    fn show(&self) -> String {
        quoted(&self.to_string())
    }
}

impl Setting for u32 {
    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Integer(number) => u32::try_from(*number).ok(),
            Value::Untyped(text) => text.trim().parse().ok(),
            Value::Text(_) | Value::Texts(_) | Value::Named(_) | Value::Other(_) => None,
        }
        .ok_or_else(|| "this key takes a whole number without quotes".into())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for BTreeMap<String, String> {
    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Named(texts) => Ok(texts.clone()),
            _ => Err("this key takes texts by name: { room = \"kitchen\" }".into()),
        }
    }

    fn show(&self) -> String {
        let texts: Vec<String> =
            self.iter().map(|(name, text)| format!("{} = {}", quoted(name), quoted(text))).collect();
        if texts.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", texts.join(", ")) }
    }
}
