//! Reads the file and the environment into a [`Config`], strictly.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::close_names::closest;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{
    AgentSection, BatchSection, ByteSize, Config, MqttVersion, OutboxSection, Period, Section, SensorSection,
    ServerSection, UplinkSection, check_id,
};
use crate::outbox::IN_FLIGHT_MAX;
use crate::sensor::{DRIVERS, driver};

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
    /// Each value is right by itself, and together they are not.
    #[error("configuration: {0}")]
    Whole(String),
}

/// A value before it is given a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A TOML string.
    Text(String),
    /// A TOML integer.
    Integer(i64),
    /// A value of the environment, which has no types.
    Untyped(String),
    /// A TOML table of strings.
    Texts(BTreeMap<String, String>),
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
}

fn text<'a>(value: &'a Value, wanted: &str) -> Result<&'a str, String> {
    match value {
        Value::Text(text) | Value::Untyped(text) => Ok(text),
        Value::Integer(number) => Err(format!("{number} needs quotes: this key takes {wanted}")),
        Value::Texts(_) => Err(format!("this key takes {wanted}, not a table")),
        Value::Other(kind) => Err(format!("this key takes {wanted}, not {kind}")),
    }
}

impl Setting for String {
    fn read(value: &Value) -> Result<Self, String> {
        text(value, "a text").map(str::to_owned)
    }
}

impl Setting for PathBuf {
    fn read(value: &Value) -> Result<Self, String> {
        match text(value, "a path")? {
            "" => Err("this key takes a path, not an empty text".into()),
            path => Ok(path.into()),
        }
    }
}

impl Setting for ByteSize {
    fn read(value: &Value) -> Result<Self, String> {
        ByteSize::parse(text(value, "a size such as \"256MiB\"")?)
    }
}

impl Setting for Period {
    fn read(value: &Value) -> Result<Self, String> {
        Period::parse(text(value, "a duration such as \"90s\"")?)
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
}

impl Setting for Option<u32> {
    fn read(value: &Value) -> Result<Self, String> {
        u32::read(value).map(Some)
    }
}

impl Setting for MqttVersion {
    fn read(value: &Value) -> Result<Self, String> {
        match text(value, "\"3.1.1\" or \"5\"")? {
            "3.1.1" => Ok(MqttVersion::V311),
            "5" => Ok(MqttVersion::V5),
            other => Err(format!("{other:?} is no version that is spoken; write \"3.1.1\" or \"5\"")),
        }
    }
}

impl Setting for BTreeMap<String, String> {
    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Texts(texts) => Ok(texts.clone()),
            _ => Err("this key takes texts by name: { room = \"kitchen\" }".into()),
        }
    }
}

impl Config {
    /// The defaults, overridden by `file` if there is one, overridden by `environment`. `host` names the agent if
    /// nothing else does.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        host: &str,
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
        if config.agent.id.is_empty() {
            host.clone_into(&mut config.agent.id);
        }
        if config.servers.is_empty() {
            config.servers.push(ServerSection::default());
        }
        config.check()?;
        Ok(config)
    }

    /// Checks what is right only together, and what a library's caller may have set.
    ///
    /// # Errors
    /// [`ConfigError::Whole`]: the first thing that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.find_mistake().map_or(Ok(()), |reason| Err(ConfigError::Whole(reason)))
    }

    fn find_mistake(&self) -> Option<String> {
        if let Err(reason) = check_id(&self.agent.id) {
            return Some(format!("[agent] id: {reason}"));
        }
        if self.batch.max_readings == 0 {
            return Some("[batch] max_readings: at least 1".into());
        }
        if self.outbox.max_bytes.0 < 2 * wal::RING_SEGMENT_BYTES {
            return Some(format!("[outbox] max_bytes: {} is too little; at least 2MiB", self.outbox.max_bytes));
        }
        if self.outbox.sync_interval.0 < Duration::from_millis(10) {
            return Some("[outbox] sync_interval: at least 10ms".into());
        }
        if !(1..=IN_FLIGHT_MAX as u32).contains(&self.uplink.in_flight) {
            return Some(format!("[uplink] in_flight: {} is not from 1 to {IN_FLIGHT_MAX}", self.uplink.in_flight));
        }
        if self.uplink.status_interval.0 < Duration::from_secs(1) {
            return Some("[uplink] status_interval: at least 1s".into());
        }
        if self.servers.is_empty() {
            return Some("there is no [[server]]".into());
        }
        for server in &self.servers {
            if let Err(reason) = server.address() {
                return Some(format!("[[server]] url: {reason}"));
            }
        }
        let mut names = BTreeSet::new();
        for sensor in &self.sensors {
            let Err(reason) = check_sensor(sensor) else {
                if !names.insert(&sensor.name) {
                    return Some(format!("two sensors are named {:?}", sensor.name));
                }
                continue;
            };
            return Some(format!("[[sensor]] {:?}: {reason}", sensor.name));
        }
        None
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
            let name: &str = name.get_ref();
            match name {
                ServerSection::NAME => {
                    self.servers = read_list(name, at, value).map_err(|(at, reason)| wrong(at, reason))?;
                }
                SensorSection::NAME => {
                    self.sensors = read_list(name, at, value).map_err(|(at, reason)| wrong(at, reason))?;
                }
                _ => {
                    let Some(part) = self.part(name) else {
                        return Err(wrong(at, unknown("section", name, SECTIONS)));
                    };
                    let Some(keys) = value.get_ref().as_table() else {
                        return Err(wrong(at, format!("{name} is a section: write [{name}] on a line of its own")));
                    };
                    part.read(keys).map_err(|(at, reason)| wrong(at, reason))?;
                }
            }
        }
        Ok(())
    }

    fn read_variable(&mut self, name: &str, value: String) -> Result<(), ConfigError> {
        let Some(rest) = name.strip_prefix("EDEN_AGENT_") else { return Ok(()) };
        let wrong = |reason| ConfigError::InEnvironment { name: name.into(), reason };
        let (section, key) = rest.split_once('_').unwrap_or((rest, ""));
        let section = section.to_ascii_lowercase();
        if [ServerSection::NAME, SensorSection::NAME].contains(&&*section) {
            return Err(wrong(format!("[[{section}]] is a list: write it in the file")));
        }
        let Some(part) = self.part(&section) else {
            return Err(wrong(unknown("section", &section, &SECTIONS[..4])));
        };
        part.set(&key.to_ascii_lowercase(), &Value::Untyped(value)).map_err(wrong)
    }

    fn part(&mut self, section: &str) -> Option<Part<'_>> {
        Some(match section {
            AgentSection::NAME => Part::of(&mut self.agent),
            BatchSection::NAME => Part::of(&mut self.batch),
            OutboxSection::NAME => Part::of(&mut self.outbox),
            UplinkSection::NAME => Part::of(&mut self.uplink),
            _ => return None,
        })
    }
}

const SECTIONS: &[&str] = &[
    AgentSection::NAME,
    BatchSection::NAME,
    OutboxSection::NAME,
    UplinkSection::NAME,
    ServerSection::NAME,
    SensorSection::NAME,
];

fn check_sensor(sensor: &SensorSection) -> Result<(), String> {
    let Some(driver) = driver(&sensor.driver) else {
        let names: Vec<&str> = DRIVERS.iter().map(|driver| driver.name).collect();
        return Err(if sensor.driver.is_empty() {
            format!("driver is missing; there are {}", names.join(", "))
        } else {
            unknown("driver", &sensor.driver, &names)
        });
    };
    check_tag_value("name", &sensor.name)?;
    if sensor.interval.0 < Duration::from_millis(1) {
        return Err("interval: at least 1ms".into());
    }
    if !sensor.table.is_empty() {
        model::name::check_name("table", &sensor.table).map_err(|e| e.to_string())?;
        if sensor.table.starts_with('#') || sensor.table.ends_with('\\') {
            return Err(format!("the table name {:?} cannot be written in line protocol", sensor.table));
        }
    }
    for (name, value) in &sensor.tags {
        model::name::check_column_name("tag", name).map_err(|e| e.to_string())?;
        if name.eq_ignore_ascii_case("agent") || name.eq_ignore_ascii_case("sensor") {
            return Err(format!("the tag {name:?} is set by the agent"));
        }
        if driver.fields.iter().any(|field| name.eq_ignore_ascii_case(field)) {
            return Err(format!("the tag {name:?} has the name of a field that the sensor measures; choose another"));
        }
        if name.ends_with('\\') {
            return Err(format!("the tag name {name:?} ends with a backslash"));
        }
        check_tag_value(name, value)?;
    }
    Ok(())
}

fn check_tag_value(name: &str, value: &str) -> Result<(), String> {
    if value.is_empty() {
        return Err(format!("{name} is empty"));
    }
    if value.len() > 1024 || value.chars().any(char::is_control) || value.ends_with('\\') {
        return Err(format!("{name}: at most 1024 bytes, no control characters, no backslash at the end"));
    }
    Ok(())
}

fn unknown(what: &str, name: &str, known: &[&str]) -> String {
    match closest(name, known.iter().copied()) {
        Some(close) => format!("unknown {what} {name:?}; did you mean {close:?}?"),
        None => format!("unknown {what} {name:?}; there are {}", known.join(", ")),
    }
}

/// A place in the file and what is wrong there.
type Wrong = (usize, String);

fn read_list<S: Section>(name: &str, at: usize, value: &Spanned<DeValue<'_>>) -> Result<Vec<S>, Wrong> {
    let is_a_list = || (at, format!("{name} is a list: write [[{name}]] on a line of its own for each"));
    let DeValue::Array(items) = value.get_ref() else { return Err(is_a_list()) };
    let mut list = Vec::with_capacity(items.len());
    for item in items {
        let keys = item.get_ref().as_table().ok_or_else(is_a_list)?;
        let mut section = S::default();
        Part::of(&mut section).read(keys)?;
        list.push(section);
    }
    Ok(list)
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

    fn read(mut self, keys: &DeTable<'_>) -> Result<(), Wrong> {
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
        DeValue::Table(table) => {
            let texts = table.iter().map(|(name, value)| match value.get_ref() {
                DeValue::String(text) => Some((name.get_ref().to_string(), text.to_string())),
                _ => None,
            });
            texts.collect::<Option<_>>().map_or(Value::Other("a table of other things than texts"), Value::Texts)
        }
        DeValue::Boolean(_) => Value::Other("true or false"),
        DeValue::Float(_) => Value::Other("a fraction"),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Array(_) => Value::Other("a list"),
    }
}
