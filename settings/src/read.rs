//! From a file and the environment into a configuration, strictly.

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::close_names::closest;
use crate::{Section, Value};

/// What is wrong with a configuration; one line that says where and what to do.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("read configuration {}: {reason}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The file is not TOML, or a key or value in it is wrong.
    #[error("{}:{line}:{column}: {reason}", .path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Character in it, from 1.
        column: usize,
        /// What is wrong.
        reason: String,
    },
    /// A variable of the environment is wrong.
    #[error("environment variable {name}: {reason}")]
    InEnvironment {
        /// The variable.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// Each value is right by itself, and together they are not.
    #[error("configuration: {0}")]
    Whole(String),
}

/// A whole configuration.
pub trait Configuration {
    /// The names of all sections and lists.
    const SECTIONS: &'static [&'static str];
    /// The section or list of that name.
    fn part(&mut self, section: &str) -> Option<Part<'_>>;
}

/// What variables of the environment are that begin with the prefix and name no section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// Other programs' business.
    Ignored,
    /// Mistakes.
    Refused,
}

/// A place in the file, in bytes, and what is wrong there.
type Wrong = (usize, String);
type SetKey<'a> = Box<dyn FnMut(&str, &Value) -> Result<(), String> + 'a>;
type SetList<'a> = Box<dyn FnOnce(&[&DeTable<'_>]) -> Result<(), Wrong> + 'a>;

/// A section or list of a configuration while it is filled.
pub struct Part<'a>(Kind<'a>);

enum Kind<'a> {
    Section { keys: &'static [&'static str], set: SetKey<'a> },
    List(SetList<'a>),
}

impl<'a> Part<'a> {
    /// A section: `[name]`.
    pub fn section<S: Section>(section: &'a mut S) -> Self {
        Part(Kind::Section { keys: S::KEYS, set: Box::new(|key, value| section.set(key, value)) })
    }

    /// A list of sections: `[[name]]` for each. What the file says replaces what is there.
    pub fn list<S: Section>(list: &'a mut Vec<S>) -> Self {
        Part(Kind::List(Box::new(|tables| {
            let mut read = Vec::with_capacity(tables.len());
            for table in tables {
                let mut section = S::default();
                read_keys(S::KEYS, &mut |key, value| section.set(key, value), table)?;
                read.push(section);
            }
            *list = read;
            Ok(())
        })))
    }

    fn read(self, name: &str, at: usize, value: &Spanned<DeValue<'_>>) -> Result<(), Wrong> {
        match self.0 {
            Kind::Section { keys, mut set } => match value.get_ref().as_table() {
                Some(table) => read_keys(keys, &mut set, table),
                None => Err((at, format!("{name} is a section: write [{name}] on a line of its own"))),
            },
            Kind::List(set) => {
                let tables = match value.get_ref() {
                    DeValue::Array(items) => items.iter().map(|item| item.get_ref().as_table()).collect(),
                    _ => None,
                };
                let tables: Option<Vec<&DeTable<'_>>> = tables;
                match tables {
                    Some(tables) => set(&tables),
                    None => Err((at, format!("{name} is a list: write [[{name}]] on a line of its own for each"))),
                }
            }
        }
    }
}

/// Reads `file`, if there is one, and `environment` over it into `config`. Variables begin with `prefix`.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn read<C: Configuration>(
    config: &mut C,
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    prefix: &str,
    others: Others,
) -> Result<(), ConfigError> {
    if let Some(path) = file {
        let text = std::fs::read_to_string(path)
            .map_err(|e| ConfigError::Unreadable { path: path.into(), reason: e.to_string() })?;
        read_text(config, path, &text)?;
    }
    let mut environment: Vec<_> = environment.into_iter().collect();
    environment.sort();
    for (name, value) in environment {
        if let Some(rest) = name.strip_prefix(prefix) {
            read_variable(config, rest, value, others)
                .map_err(|reason| ConfigError::InEnvironment { name: name.clone(), reason })?;
        }
    }
    Ok(())
}

/// Reads `text`, which is what the file at `path` holds, into `config`.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn read_text<C: Configuration>(config: &mut C, path: &Path, text: &str) -> Result<(), ConfigError> {
    let wrong = |(at, reason): Wrong| {
        let before = &text[..text.floor_char_boundary(at)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        ConfigError::InFile {
            path: path.into(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            reason,
        }
    };
    let table = DeTable::parse(text).map_err(|e| {
        // One line is promised; the parser's message may have more.
        let reason = e.message().lines().collect::<Vec<_>>().join(", ");
        wrong((e.span().map_or(0, |span| span.start), reason))
    })?;
    for (name, value) in table.get_ref() {
        let (at, name): (_, &str) = (name.span().start, name.get_ref());
        let part = config.part(name).ok_or_else(|| wrong((at, unknown("section", name, C::SECTIONS))))?;
        part.read(name, at, value).map_err(wrong)?;
    }
    Ok(())
}

/// Sets what a variable names, `rest` behind the prefix.
fn read_variable<C: Configuration>(config: &mut C, rest: &str, value: String, others: Others) -> Result<(), String> {
    let (section, key) = rest.split_once('_').unwrap_or((rest, ""));
    let section = section.to_ascii_lowercase();
    match config.part(&section).map(|part| part.0) {
        Some(Kind::Section { keys, mut set }) => {
            set_key(keys, &mut set, &key.to_ascii_lowercase(), &Value::Untyped(value))
        }
        Some(Kind::List(_)) => Err(format!("[[{section}]] is a list: write it in the file")),
        None if others == Others::Ignored => Ok(()),
        None => Err(unknown("section", &section, C::SECTIONS)),
    }
}

fn read_keys(
    keys: &[&str],
    set: &mut dyn FnMut(&str, &Value) -> Result<(), String>,
    table: &DeTable<'_>,
) -> Result<(), Wrong> {
    for (key, value) in table {
        let known = keys.contains(&&**key.get_ref());
        let at = if known { value.span().start } else { key.span().start };
        set_key(keys, set, key.get_ref(), &untyped(value)).map_err(|reason| (at, reason))?;
    }
    Ok(())
}

fn set_key(
    keys: &[&str],
    set: &mut dyn FnMut(&str, &Value) -> Result<(), String>,
    key: &str,
    value: &Value,
) -> Result<(), String> {
    if !keys.contains(&key) {
        return Err(unknown("key", key, keys));
    }
    set(key, value).map_err(|reason| format!("{key}: {reason}"))
}

/// Says that there is no `name`, and what may be meant of `known`.
pub fn unknown(what: &str, name: &str, known: &[&str]) -> String {
    match closest(name, known.iter().copied()) {
        Some(close) => format!("unknown {what} {name:?}; did you mean {close:?}?"),
        None => format!("unknown {what} {name:?}; there are {}", known.join(", ")),
    }
}

fn untyped(value: &Spanned<DeValue<'_>>) -> Value {
    let text = |value: &Spanned<DeValue<'_>>| value.get_ref().as_str().map(str::to_owned);
    match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(&number.as_str().replace('_', ""), number.radix())
            .map_or(Value::Other("so large a number"), Value::Integer),
        DeValue::Array(values) => {
            values.iter().map(text).collect::<Option<_>>().map_or(Value::Other("a list"), Value::Texts)
        }
        DeValue::Table(table) => {
            let texts = table.iter().map(|(name, value)| Some((name.get_ref().to_string(), text(value)?)));
            texts.collect::<Option<_>>().map_or(Value::Other("a table of other things than texts"), Value::Named)
        }
        DeValue::Boolean(_) => Value::Other("true or false"),
        DeValue::Float(_) => Value::Other("a fraction"),
        DeValue::Datetime(_) => Value::Other("a date"),
    }
}
