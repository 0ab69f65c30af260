//! What a rule says, before it is compiled.

use std::collections::BTreeMap;

/// The options of a rule; their meaning is in the manual of `[[mqtt.rule]]` (`docs/config.md`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the manual's")]
pub struct RuleOptions {
    pub name: String,
    pub topics: Vec<String>,
    pub data_format: String,
    pub name_override: String,
    pub topic_parsing: BTreeMap<String, String>,
    pub topic_tag: String,
    pub tags: BTreeMap<String, String>,
    pub user_property_tags: Vec<String>,
    pub tag_keys: Vec<String>,
    pub json_query: String,
    pub json_name_key: String,
    pub json_time_key: String,
    pub json_time_format: String,
    pub json_timezone: String,
    pub json_string_fields: Vec<String>,
    pub json_integer_fields: Vec<String>,
    pub data_type: String,
    pub value_field_name: String,
    pub influx_timestamp_precision: String,
}

impl Default for RuleOptions {
    fn default() -> Self {
        RuleOptions {
            name: String::new(),
            topics: Vec::new(),
            data_format: "influx".into(),
            name_override: String::new(),
            topic_parsing: BTreeMap::new(),
            topic_tag: String::new(),
            tags: BTreeMap::new(),
            user_property_tags: Vec::new(),
            tag_keys: Vec::new(),
            json_query: String::new(),
            json_name_key: String::new(),
            json_time_key: String::new(),
            json_time_format: String::new(),
            json_timezone: String::new(),
            json_string_fields: vec!["*".into()],
            json_integer_fields: Vec::new(),
            data_type: "auto".into(),
            value_field_name: "value".into(),
            influx_timestamp_precision: "ns".into(),
        }
    }
}

/// What is wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongOption {
    /// The option that is to be changed.
    pub option: &'static str,
    /// What is wrong, and what would be right.
    pub reason: String,
}

/// A wrong `option`.
pub(super) fn wrong(option: &'static str, reason: impl Into<String>) -> WrongOption {
    WrongOption { option, reason: reason.into() }
}
