//! Messages of machines to readings, by rules: which topics, how the payload is read, what becomes tag, field and time.
//!
//! Owns:     the options of a rule, what they mean, and which parts of a payload are refused and why.
//! Does not: do I/O, ask the time, choose among servers' own topics, or compare with a table's schema.
//!
//! A rule is compiled once ([`Rule::compile`]) and then maps any number of messages into [`Rows`], which become one batch
//! a table. Users: `docs/mqtt.md`; why it is so: `docs/adr/0022-mapping-rules.md`.
//!
//! Invariants
//!  1. A part of a payload becomes rows or is refused with its reason; nothing is left out but what the rule leaves out.
//!  2. A row is taken whole or refused whole.
//!  3. What is allocated is at most a fixed multiple of payload and topic (P14).
//!
//! ```
//! use decode::mapping::{Message, Rows, Rule, RuleOptions};
//!
//! let rule = Rule::compile(&RuleOptions {
//!     topics: vec!["plant/+/+".into()],
//!     data_format: "json".into(),
//!     name_override: "press".into(),
//!     topic_parsing: [("tags".to_owned(), "_/line/machine".to_owned())].into(),
//!     ..RuleOptions::default()
//! })
//! .unwrap();
//! let mut rows = Rows::new("public");
//! let message = Message { topic: "plant/a/m7", payload: br#"{"force":{"x":1.5}}"#, user_properties: &[], now_us: 5 };
//! assert!(rule.map(&message, &mut rows).refused.is_empty());
//! let batches = rows.finish();
//! assert_eq!(batches[0].series[0].to_string(), "line=a,machine=m7");
//! assert_eq!(&*batches[0].fields[0].name, "force.x");
//! ```

mod compile;
mod frame;
mod iotdb;
mod json;
mod lines;
mod names;
mod options;
mod raw_json;
mod rows;
mod tasmota;
mod time_layout;
pub mod topic;
mod value;
mod zigbee2mqtt;

use std::time::Duration;

use crate::sparkplug::{Heard, Host, Sparkplug};

pub use options::{RuleOptions, WrongOption};
pub use rows::Rows;

use frame::Frame;
pub(crate) use frame::Framed;

/// Refused parts that are told one by one; of more, their number.
pub const REFUSED_MAX: usize = 4096;
/// Longest reason, in bytes.
const REASON_BYTES_MAX: usize = 400;

/// A message, as it came.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Its topic, without wildcards.
    pub topic: &'a str,
    /// What it says.
    pub payload: &'a [u8],
    /// MQTT 5: what the sender added, names and values.
    pub user_properties: &'a [(&'a str, &'a str)],
    /// The time of readings that have none, in microseconds; each further element of an array has one more.
    pub now_us: i64,
}

/// A part of a payload that is not stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedPart {
    /// The part; `None` is the whole payload.
    pub part: Option<Vec<u8>>,
    /// Why.
    pub reason: String,
}

/// What became of a message.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Mapped {
    /// The first [`REFUSED_MAX`] parts that are not stored, in order.
    pub refused: Vec<RefusedPart>,
    /// All of them.
    pub refused_total: u64,
    /// The rule says that this message holds no readings.
    pub ignored: bool,
}

impl Mapped {
    pub(crate) fn whole(reason: impl Into<String>) -> Mapped {
        let mut mapped = Mapped::default();
        mapped.refuse(None, reason);
        mapped
    }

    pub(crate) fn nothing_to_store() -> Mapped {
        Mapped { ignored: true, ..Mapped::default() }
    }

    fn refuse(&mut self, part: Option<&[u8]>, reason: impl Into<String>) {
        self.refused_total += 1;
        if self.refused.len() < REFUSED_MAX {
            let mut reason = reason.into();
            if reason.len() > REASON_BYTES_MAX {
                reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
                reason.push('…');
            }
            self.refused.push(RefusedPart { part: part.map(<[u8]>::to_vec), reason });
        }
    }
}

/// How a payload is read.
#[derive(Clone, Debug)]
enum Decoder {
    Lines(lines::Lines),
    Json(json::Json),
    Value(value::Scalar),
    Iotdb(iotdb::Iotdb),
    Tasmota(tasmota::Tasmota),
    Zigbee2mqtt(zigbee2mqtt::Zigbee2mqtt),
    Sparkplug(Sparkplug),
    Ignore,
}

/// A compiled rule.
#[derive(Clone, Debug)]
pub struct Rule {
    name: String,
    topics: Vec<String>,
    frame: Frame,
    decoder: Decoder,
}

impl Rule {
    /// Its name; may be empty.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The filter by which it takes `topic`.
    pub fn filter_of(&self, topic: &str) -> Option<&str> {
        self.topics.iter().map(String::as_str).find(|filter| topic::matches(filter, topic))
    }

    /// Whether it means line protocol in nanoseconds and nothing else.
    pub fn is_plain_lines(&self) -> bool {
        matches!(&self.decoder, Decoder::Lines(lines) if lines.is_plain()) && self.frame.is_empty()
    }

    /// Whether it looks at user properties.
    pub fn wants_user_properties(&self) -> bool {
        self.frame.wants_user_properties()
    }

    /// Whether its messages mean something only beside earlier ones: [`Rule::hear`] reads them.
    pub fn has_state(&self) -> bool {
        matches!(self.decoder, Decoder::Sparkplug(_))
    }

    /// As [`Rule::map`], with what earlier messages said. `monotonic` is a time that never goes back.
    pub fn hear(&self, host: &mut Host, message: &Message<'_>, monotonic: Duration, rows: &mut Rows) -> Heard {
        let Decoder::Sparkplug(sparkplug) = &self.decoder else {
            return Heard { mapped: self.map(message, rows), command: None };
        };
        match self.frame.of(message) {
            Ok(framed) => sparkplug.hear(host, message, monotonic, &framed, rows),
            Err(reason) => Heard { mapped: Mapped::whole(reason), command: None },
        }
    }

    /// Adds the readings of `message` to `rows`, as if no other had come before.
    pub fn map(&self, message: &Message<'_>, rows: &mut Rows) -> Mapped {
        if let Decoder::Ignore = self.decoder {
            return Mapped::nothing_to_store();
        }
        let framed = match self.frame.of(message) {
            Ok(framed) => framed,
            Err(reason) => return Mapped::whole(reason),
        };
        match &self.decoder {
            Decoder::Lines(lines) => lines.map(message, &framed, rows),
            Decoder::Json(json) => json.map(message, &framed, rows),
            Decoder::Value(value) => value.map(message, &framed, rows),
            Decoder::Iotdb(iotdb) => iotdb.map(message, &framed, rows),
            Decoder::Tasmota(tasmota) => tasmota.map(message, &framed, rows),
            Decoder::Zigbee2mqtt(zigbee) => zigbee.map(message, &framed, rows, self.filter_of(message.topic)),
            Decoder::Sparkplug(sparkplug) => {
                sparkplug.hear(&mut Host::default(), message, Duration::ZERO, &framed, rows).mapped
            }
            Decoder::Ignore => Mapped::nothing_to_store(),
        }
    }
}

/// Compiled rules, in the order in which they are asked.
#[derive(Clone, Debug, Default)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// Compiles all.
    ///
    /// # Errors
    /// The number of the first rule that is wrong, from 0, and what is.
    pub fn compile<'a>(options: impl IntoIterator<Item = &'a RuleOptions>) -> Result<Rules, (usize, WrongOption)> {
        let mut rules: Vec<Rule> = Vec::new();
        for (number, options) in options.into_iter().enumerate() {
            let rule = Rule::compile(options).map_err(|wrong| (number, wrong))?;
            if !rule.name.is_empty() && rules.iter().any(|other| other.name == rule.name) {
                let reason = format!("another rule has the name {:?}", rule.name);
                return Err((number, WrongOption { option: "name", reason }));
            }
            rules.push(rule);
        }
        Ok(Rules(rules))
    }

    /// The first rule that takes `topic`, and its number, from 0.
    pub fn find(&self, topic: &str) -> Option<(usize, &Rule)> {
        self.0.iter().enumerate().find(|(_, rule)| rule.filter_of(topic).is_some())
    }

    /// The rule of that number.
    pub fn get(&self, number: usize) -> Option<&Rule> {
        self.0.get(number)
    }

    /// The rule of that name.
    pub fn named(&self, name: &str) -> Option<&Rule> {
        self.0.iter().find(|rule| rule.name == name && !name.is_empty())
    }

    /// All of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Rule> {
        self.0.iter()
    }
}
