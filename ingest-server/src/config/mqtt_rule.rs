//! `[[mqtt.rule]]`: what a topic's messages are, and what becomes of them.

use std::collections::BTreeMap;

use decode::mapping::{Rule, RuleOptions};
use settings::{Contradiction, section};

use crate::mqtt::topic::is_reserved;

section! {
    /// What the messages of some topics are, and what becomes tag, field and time of them. Rules are asked
    /// in their order, and the first that takes a topic wins; [mqtt] line_protocol is asked last. See
    /// docs/mqtt.md for examples, and `eden mqtt test` for a trial. Not settable by the environment.
    "mqtt.rule" MqttRule {
        /// A name by which other parts and messages call the rule.
        name: String = String::new(),
        /// Topic filters with the wildcards `+` and `#`. A rule with a name may have none.
        topics: Vec<String> = Vec::new(),
        /// How payloads are read: "influx" (line protocol), "json" (an object is a row, an array of them
        /// several), "value" (one value), "iotdb", "tasmota", "zigbee2mqtt", "sparkplug_b", or "ignore", which takes
        /// messages and stores nothing.
        data_format: String = "influx".into(),
        /// The table. For "tasmota" what its tables' names begin with. "sparkplug_b" has a table for each
        /// group without it.
        name_override: String = String::new(),
        /// What levels of the topic are, by templates in which `_` stands for a level without a name and `#`
        /// at the end for the rest: measurement = "_/measurement/_" (the table), tags = "_/site/device",
        /// fields = "_/_/batch" (text), field_name = "_/_/field" (the name of the field of a "value").
        topic_parsing: BTreeMap<String, String> = BTreeMap::new(),
        /// A tag of this name gets the whole topic.
        topic_tag: String = String::new(),
        /// Tags of all rows, by name: { site = "plant 7" }.
        tags: BTreeMap<String, String> = BTreeMap::new(),
        /// User properties of MQTT 5 that become tags, by their names.
        user_property_tags: Vec<String> = Vec::new(),
        /// Of JSON, the paths that become tags, such as "meta.machine"; `*` stands for any characters.
        tag_keys: Vec<String> = Vec::new(),
        /// Where in a "json" payload the rows are, as a JSON pointer: "/data/rows".
        json_query: String = String::new(),
        /// The path of the text that names the table.
        json_name_key: String = String::new(),
        /// The path of the time; without one rows get the time of receipt, and a message that is sent again is
        /// stored again.
        json_time_key: String = String::new(),
        /// How it is written: "unix", "unix_ms", "unix_us", "unix_ns", "RFC3339", a layout such as
        /// "%Y-%m-%d %H:%M:%S%.f", or empty: numbers by their magnitude, texts as RFC 3339 ("iotdb": unix_ms).
        json_time_format: String = String::new(),
        /// The zone of times that say none: "UTC", "+02:00". Empty: UTC; "tasmota" and "zigbee2mqtt" then take the
        /// time of receipt instead.
        json_timezone: String = String::new(),
        /// Texts that become fields; others are left out. `*` stands for any characters.
        json_string_fields: Vec<String> = vec!["*".into()],
        /// Numbers that become whole numbers; all others become floats.
        json_integer_fields: Vec<String> = Vec::new(),
        /// The type of a "value": "auto", "float", "integer", "unsigned", "boolean", "string".
        data_type: String = "auto".into(),
        /// The name of its field.
        value_field_name: String = "value".into(),
        /// The unit of times in line protocol: "ns", "us", "ms", "s", or "auto".
        influx_timestamp_precision: String = "ns".into(),
    }
}

impl MqttRule {
    /// What the rule says.
    pub fn options(&self) -> RuleOptions {
        RuleOptions {
            name: self.name.clone(),
            topics: self.topics.clone(),
            data_format: self.data_format.clone(),
            name_override: self.name_override.clone(),
            topic_parsing: self.topic_parsing.clone(),
            topic_tag: self.topic_tag.clone(),
            tags: self.tags.clone(),
            user_property_tags: self.user_property_tags.clone(),
            tag_keys: self.tag_keys.clone(),
            json_query: self.json_query.clone(),
            json_name_key: self.json_name_key.clone(),
            json_time_key: self.json_time_key.clone(),
            json_time_format: self.json_time_format.clone(),
            json_timezone: self.json_timezone.clone(),
            json_string_fields: self.json_string_fields.clone(),
            json_integer_fields: self.json_integer_fields.clone(),
            data_type: self.data_type.clone(),
            value_field_name: self.value_field_name.clone(),
            influx_timestamp_precision: self.influx_timestamp_precision.clone(),
        }
    }

    /// Whether it can be a rule.
    pub(super) fn check(&self) -> Result<(), Contradiction> {
        if let Some(topic) = self.topics.iter().find(|topic| is_reserved(topic)) {
            let reason = format!("{topic:?} is of this server's own topics, which no rule takes");
            return Err(Contradiction { key: "topics", reason });
        }
        Rule::compile(&self.options())
            .map(drop)
            .map_err(|wrong| Contradiction { key: wrong.option, reason: wrong.reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_the_decoder() {
        assert_eq!(MqttRule::default().options(), RuleOptions::default());
    }
}
