//! Reads the file and the environment into a [`Config`], strictly.

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{ByteSize, Config, Http, Ingest, Mqtt, Period, Process, Query, Section, StorageSection};
use crate::close_names::closest;
use crate::mqtt::topic::is_filter;

/// What is wrong with the configuration; one line that says where and what to do.
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
}

/// A value before it is given a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A TOML string.
    Text(String),
    /// A TOML integer.
    Integer(i64),
    /// A TOML list of strings.
    Texts(Vec<String>),
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

fn text<'a>(value: &'a Value, wanted: &str) -> Result<&'a str, String> {
    match value {
        Value::Text(text) | Value::Untyped(text) => Ok(text),
        Value::Integer(number) => Err(format!("{number} needs quotes: this key takes {wanted}")),
        Value::Texts(_) => Err(format!("this key takes {wanted}, not a list")),
        Value::Other(kind) => Err(format!("this key takes {wanted}, not {kind}")),
    }
}

fn quoted(text: &str) -> String {
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
            Value::Text(_) | Value::Texts(_) | Value::Other(_) => None,
        }
        .ok_or_else(|| "this key takes a whole number without quotes".into())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// MQTT topic filters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicFilters(pub Vec<String>);

impl Setting for TopicFilters {
    fn read(value: &Value) -> Result<Self, String> {
        let filters = match value {
            Value::Texts(texts) => texts.clone(),
            Value::Untyped(text) => {
                text.split(',').map(str::trim).filter(|filter| !filter.is_empty()).map(str::to_owned).collect()
            }
            Value::Text(_) | Value::Integer(_) | Value::Other(_) => {
                return Err("this key takes a list of topic filters such as [\"lp/#\"]".into());
            }
        };
        match filters.iter().find(|filter| !is_filter(filter)) {
            Some(bad) => Err(format!("{bad:?} is not a topic filter; `+` stands for one level, `#` for the rest")),
            None => Ok(TopicFilters(filters)),
        }
    }

    fn show(&self) -> String {
        let filters: Vec<String> = self.0.iter().map(|filter| quoted(filter)).collect();
        format!("[{}]", filters.join(", "))
    }
}

impl Config {
    /// The defaults, overridden by `file` if there is one, overridden by `environment`.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut config = Config::default();
        if let Some(path) = file {
            let text = std::fs::read_to_string(path)
                .map_err(|e| ConfigError::Unreadable { path: path.into(), reason: e.to_string() })?;
            config.read_file(path, &text)?;
        }
        let mut environment: Vec<_> = environment.into_iter().collect();
        environment.sort();
        for (name, value) in environment {
            config.read_variable(&name, value)?;
        }
        Ok(config)
    }

    fn read_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let wrong = |at: usize, reason: String| {
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
            wrong(e.span().map_or(0, |span| span.start), reason)
        })?;
        for (name, value) in table.get_ref() {
            let at = name.span().start;
            let name = name.get_ref();
            let Some(part) = self.part(name) else {
                return Err(wrong(at, unknown("section", name, SECTIONS)));
            };
            let Some(keys) = value.get_ref().as_table() else {
                return Err(wrong(at, format!("{name} is a section: write [{name}] on a line of its own")));
            };
            part.read(keys).map_err(|(at, reason)| wrong(at, reason))?;
        }
        Ok(())
    }

    fn read_variable(&mut self, name: &str, value: String) -> Result<(), ConfigError> {
        let Some(rest) = name.strip_prefix("EDEN_") else { return Ok(()) };
        // Names that belong to no section are other programs' business.
        let Some((section, key)) = rest.split_once('_') else { return Ok(()) };
        let Some(part) = self.part(&section.to_ascii_lowercase()) else { return Ok(()) };
        part.set(&key.to_ascii_lowercase(), &Value::Untyped(value))
            .map_err(|reason| ConfigError::InEnvironment { name: name.into(), reason })
    }

    fn part(&mut self, section: &str) -> Option<Part<'_>> {
        Some(match section {
            Http::NAME => Part::of(&mut self.http),
            Mqtt::NAME => Part::of(&mut self.mqtt),
            Ingest::NAME => Part::of(&mut self.ingest),
            StorageSection::NAME => Part::of(&mut self.storage),
            Query::NAME => Part::of(&mut self.query),
            Process::NAME => Part::of(&mut self.server),
            _ => return None,
        })
    }
}

const SECTIONS: &[&str] = &[Http::NAME, Mqtt::NAME, Ingest::NAME, StorageSection::NAME, Query::NAME, Process::NAME];

fn unknown(what: &str, name: &str, known: &[&str]) -> String {
    match closest(name, known.iter().copied()) {
        Some(close) => format!("unknown {what} {name:?}; did you mean {close:?}?"),
        None => format!("unknown {what} {name:?}; there are {}", known.join(", ")),
    }
}

type Set<'a> = Box<dyn FnMut(&str, &Value) -> Result<(), String> + 'a>;

/// One section of a [`Config`] while it is filled.
struct Part<'a> {
    keys: &'static [&'static str],
    set: Set<'a>,
}

impl<'a> Part<'a> {
    fn of<S: Section>(section: &'a mut S) -> Self {
        Part { keys: S::KEYS, set: Box::new(|key, value| section.set(key, value)) }
    }

    fn set(mut self, key: &str, value: &Value) -> Result<(), String> {
        self.set_one(key, value)
    }

    fn set_one(&mut self, key: &str, value: &Value) -> Result<(), String> {
        if !self.keys.contains(&key) {
            return Err(unknown("key", key, self.keys));
        }
        (self.set)(key, value).map_err(|reason| format!("{key}: {reason}"))
    }

    fn read(mut self, keys: &DeTable<'_>) -> Result<(), (usize, String)> {
        for (key, value) in keys {
            let known = self.keys.contains(&&**key.get_ref());
            let at = if known { value.span().start } else { key.span().start };
            self.set_one(key.get_ref(), &untyped(value)).map_err(|reason| (at, reason))?;
        }
        Ok(())
    }
}

fn untyped(value: &Spanned<DeValue<'_>>) -> Value {
    match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(&number.as_str().replace('_', ""), number.radix())
            .map_or(Value::Other("so large a number"), Value::Integer),
        DeValue::Array(values) if values.iter().all(|value| value.get_ref().is_str()) => {
            Value::Texts(values.iter().filter_map(|value| value.get_ref().as_str().map(str::to_owned)).collect())
        }
        other => Value::Other(match other {
            DeValue::Boolean(_) => "true or false",
            DeValue::Float(_) => "a fraction",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            _ => "a table",
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        let mut config = Config::default();
        config.read_file(Path::new("eden.toml"), text).map_err(|e| e.to_string())?;
        Ok(config)
    }

    fn with_variable(name: &str, value: &str) -> Result<Config, String> {
        Config::load(None, [(name.to_string(), value.to_string())]).map_err(|e| e.to_string())
    }

    #[test]
    fn a_file_sets_what_it_names_and_leaves_the_rest() {
        let config =
            read("[http]\nlisten = \"127.0.0.1:0\"\nconnections_max = 7\n[query]\ntimeout = \"90s\"\n").unwrap();
        assert_eq!(config.http.listen, "127.0.0.1:0");
        assert_eq!(config.http.connections_max, 7);
        assert_eq!(config.query.timeout, Period(Duration::from_secs(90)));
        assert_eq!(config.storage, StorageSection::default());
    }

    #[test]
    fn mistakes_in_a_file_are_named_with_their_place_and_what_is_close() {
        for (text, said) in [
            ("[http]\nlistne = \"x\"", "eden.toml:2:1: unknown key \"listne\"; did you mean \"listen\"?"),
            ("[htpt]\nlisten = \"x\"", "eden.toml:1:2: unknown section \"htpt\"; did you mean \"http\"?"),
            ("http = 1", "eden.toml:1:1: http is a section: write [http] on a line of its own"),
            (
                "[query]\ntimeout = 90",
                "eden.toml:2:11: timeout: 90 needs quotes: this key takes a duration such as \"90s\"",
            ),
            (
                "[http]\nconnections_max = \"7\"",
                "eden.toml:2:19: connections_max: this key takes a whole number without quotes",
            ),
            (
                "[http]\nconnections_max = -1",
                "eden.toml:2:19: connections_max: this key takes a whole number without quotes",
            ),
            (
                "[storage]\nmemory = \"2GB\"",
                "eden.toml:2:10: memory: \"2GB\" is not a size; write a whole number and B, KiB, MiB, GiB or TiB: \"256MiB\"",
            ),
        ] {
            assert_eq!(read(text).unwrap_err(), said);
        }
        let broken = read("[http\n").unwrap_err();
        assert!(broken.starts_with("eden.toml:1:"), "{broken}");
        assert_eq!(broken.lines().count(), 1, "{broken}");
    }

    #[test]
    fn topic_filters_are_a_list_and_are_checked() {
        let filters = |texts: &[&str]| TopicFilters(texts.iter().map(|text| (*text).to_owned()).collect());
        let config = read("[mqtt]\nline_protocol = [\"a/#\", \"+/b\"]\n").unwrap();
        assert_eq!(config.mqtt.line_protocol, filters(&["a/#", "+/b"]));
        assert_eq!(read("[mqtt]\nline_protocol = []\n").unwrap().mqtt.line_protocol, filters(&[]));
        let config = with_variable("EDEN_MQTT_LINE_PROTOCOL", "a/#, +/b").unwrap();
        assert_eq!(config.mqtt.line_protocol, filters(&["a/#", "+/b"]));
        assert_eq!(with_variable("EDEN_MQTT_LISTEN", "").unwrap().mqtt.listen, "");
        for (text, said) in [
            ("[mqtt]\nline_protocol = \"lp/#\"", "this key takes a list of topic filters such as [\"lp/#\"]"),
            ("[mqtt]\nline_protocol = [1]", "this key takes a list of topic filters such as [\"lp/#\"]"),
            (
                "[mqtt]\nline_protocol = [\"lp#\"]",
                "\"lp#\" is not a topic filter; `+` stands for one level, `#` for the rest",
            ),
        ] {
            assert_eq!(read(text).unwrap_err(), format!("eden.toml:2:17: line_protocol: {said}"));
        }
        assert!(read("[mqtt]\nlisten = [\"x\"]").unwrap_err().ends_with("this key takes a text, not a list"));
    }

    #[test]
    fn the_environment_overrides_by_one_rule() {
        assert_eq!(with_variable("EDEN_HTTP_LISTEN", "[::1]:0").unwrap().http.listen, "[::1]:0");
        assert_eq!(with_variable("EDEN_HTTP_CONNECTIONS_MAX", "5").unwrap().http.connections_max, 5);
        assert_eq!(
            with_variable("EDEN_STORAGE_FLUSH_MAX_AGE", "5m").unwrap().storage.flush_max_age,
            Period(Duration::from_secs(300))
        );
        assert_eq!(with_variable("EDEN_SEEDS", "1").unwrap(), Config::default());
        assert_eq!(with_variable("EDEN_BUILD_DIR", "x").unwrap(), Config::default());
        assert_eq!(
            with_variable("EDEN_HTTP_LISTNE", "x").unwrap_err(),
            "environment variable EDEN_HTTP_LISTNE: unknown key \"listne\"; did you mean \"listen\"?"
        );
    }
}
