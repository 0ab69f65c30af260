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
    /// The names of all sections and lists. A list may stand below a section: `kettle.cup` is `[[kettle.cup]]`.
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
type SetList<'a> = Box<dyn FnOnce(&[Item<'_, '_>]) -> Result<(), Wrong> + 'a>;
/// One of a list: where it stands, and its keys.
type Item<'t, 's> = (usize, &'t DeTable<'s>);

/// What is wrong with a section whose values are right one by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// The key that is to be changed.
    pub key: &'static str,
    /// What is wrong.
    pub reason: String,
}

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
        Part::checked_list(list, |_| Ok(()))
    }

    /// As [`Part::list`], and each is looked at as a whole when all its keys are read.
    pub fn checked_list<S: Section>(list: &'a mut Vec<S>, check: fn(&S) -> Result<(), Contradiction>) -> Self {
        Part(Kind::List(Box::new(move |items| {
            let mut read = Vec::with_capacity(items.len());
            for (at, table) in items {
                let mut section = S::default();
                read_keys(S::KEYS, &[], &mut |key, value| section.set(key, value), table)?;
                check(&section).map_err(|Contradiction { key, reason }| {
                    // Where the key is not written its default is wrong, and the head says which item it is.
                    let at = table.get(key).map_or(*at, |value| value.span().start);
                    (at, format!("{key}: {reason}"))
                })?;
                read.push(section);
            }
            *list = read;
            Ok(())
        })))
    }

    /// `below` are the keys of a section that are lists of their own.
    fn read(self, name: &str, below: &[&str], at: usize, value: &Spanned<DeValue<'_>>) -> Result<(), Wrong> {
        match self.0 {
            Kind::Section { keys, mut set } => match value.get_ref().as_table() {
                Some(table) => read_keys(keys, below, &mut set, table),
                None => Err((at, format!("{name} is a section: write [{name}] on a line of its own"))),
            },
            Kind::List(set) => {
                let items: Option<Vec<Item<'_, '_>>> = match value.get_ref() {
                    DeValue::Array(items) => {
                        items.iter().map(|item| Some((item.span().start, item.get_ref().as_table()?))).collect()
                    }
                    _ => None,
                };
                match items {
                    Some(items) => set(&items),
                    None => Err((at, format!("{name} is a list: write [[{name}]] on a line of its own for each"))),
                }
            }
        }
    }
}

/// The lists below a section, without its name.
fn lists_below<C: Configuration>(section: &str) -> Vec<&'static str> {
    let below = |name: &&'static str| name.strip_prefix(section)?.strip_prefix('.');
    C::SECTIONS.iter().filter_map(below).collect()
}

/// The names that stand at the top of a file.
fn top_names<C: Configuration>() -> Vec<&'static str> {
    C::SECTIONS.iter().copied().filter(|name| !name.contains('.')).collect()
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
        // A name in quotes may have a dot, and is none of ours.
        let part = config.part(name).filter(|_| !name.contains('.'));
        let part = part.ok_or_else(|| wrong((at, unknown("section", name, &top_names::<C>()))))?;
        let below = lists_below::<C>(name);
        part.read(name, &below, at, value).map_err(wrong)?;
        for (key, value) in value.get_ref().as_table().into_iter().flatten() {
            let (at, full) = (key.span().start, format!("{name}.{}", key.get_ref()));
            if let Some(part) = config.part(&full).filter(|_| below.contains(&&**key.get_ref())) {
                part.read(&full, &[], at, value).map_err(wrong)?;
            }
        }
    }
    Ok(())
}

/// Sets what a variable names, `rest` behind the prefix.
fn read_variable<C: Configuration>(config: &mut C, rest: &str, value: String, others: Others) -> Result<(), String> {
    let (section, key) = rest.split_once('_').unwrap_or((rest, ""));
    let section = section.to_ascii_lowercase();
    let key = key.to_ascii_lowercase();
    let in_file_only = |list: &str| Err(format!("[[{list}]] is a list: write it in the file"));
    match config.part(&section).map(|part| part.0) {
        Some(Kind::Section { keys, mut set }) => {
            let is_of =
                |list: &&&str| key.strip_prefix(**list).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'));
            match lists_below::<C>(&section).iter().find(is_of).filter(|_| !keys.contains(&&*key)) {
                Some(list) => in_file_only(&format!("{section}.{list}")),
                None => set_key(keys, &[], &mut set, &key, &Value::Untyped(value)),
            }
        }
        Some(Kind::List(_)) => in_file_only(&section),
        None if others == Others::Ignored => Ok(()),
        None => Err(unknown("section", &section, &top_names::<C>())),
    }
}

fn read_keys(
    keys: &[&str],
    below: &[&str],
    set: &mut dyn FnMut(&str, &Value) -> Result<(), String>,
    table: &DeTable<'_>,
) -> Result<(), Wrong> {
    for (key, value) in table {
        if below.contains(&&**key.get_ref()) {
            continue;
        }
        let known = keys.contains(&&**key.get_ref());
        let at = if known { value.span().start } else { key.span().start };
        set_key(keys, below, set, key.get_ref(), &untyped(value)).map_err(|reason| (at, reason))?;
    }
    Ok(())
}

fn set_key(
    keys: &[&str],
    below: &[&str],
    set: &mut dyn FnMut(&str, &Value) -> Result<(), String>,
    key: &str,
    value: &Value,
) -> Result<(), String> {
    if !keys.contains(&key) {
        return Err(unknown("key", key, &[keys, below].concat()));
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
