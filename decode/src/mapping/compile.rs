//! From the options of a rule to the rule: every mistake is named here, once, before a message comes.

use model::name::{check_column_name, check_name};

use super::frame::Frame;
use super::iotdb::Iotdb;
use super::json::{Fields, Json};
use super::lines::Lines;
use super::names::Names;
use super::options::{RuleOptions, WrongOption, wrong};
use super::tasmota::Tasmota;
use super::time_layout::TimeLayout;
use super::topic::{Template, is_filter};
use super::value::{DataType, Scalar};
use super::zigbee2mqtt::Zigbee2mqtt;
use super::{Decoder, Rule};
use crate::line_protocol::quote;
use crate::sparkplug::Sparkplug;
use crate::time::TimeFormat;

/// The words of `data_format`.
const FORMATS: [&str; 8] = ["influx", "json", "value", "iotdb", "tasmota", "zigbee2mqtt", "sparkplug_b", "ignore"];
/// Formats whose values are of JSON.
const OF_JSON: &[&str] = &["json", "iotdb", "tasmota", "zigbee2mqtt"];
/// Formats with objects by path.
const OF_OBJECTS: &[&str] = &["json", "tasmota", "zigbee2mqtt"];
/// All formats that store something.
const STORED: &[&str] = &["influx", "json", "value", "iotdb", "tasmota", "zigbee2mqtt", "sparkplug_b"];

impl Rule {
    /// Reads `options`.
    ///
    /// # Errors
    /// The first option that is wrong.
    pub fn compile(options: &RuleOptions) -> Result<Rule, WrongOption> {
        let format = options.data_format.as_str();
        if !FORMATS.contains(&format) {
            let reason = format!("{} is no format; there are {}", quote(format), FORMATS.join(", "));
            return Err(wrong("data_format", reason));
        }
        if let Some(bad) = options.topics.iter().find(|topic| !is_filter(topic)) {
            let reason = format!("{} is not a topic filter; `+` stands for one level, `#` for the rest", quote(bad));
            return Err(wrong("topics", reason));
        }
        if options.topics.is_empty() && options.name.is_empty() {
            return Err(wrong(
                "topics",
                "a rule without topics takes nothing; right is a list such as [\"sensors/#\"]",
            ));
        }
        only_what_counts(options)?;
        let mut frame = frame(options)?;
        let decoder = decoder(options, &mut frame)?;
        Ok(Rule { name: options.name.clone(), topics: options.topics.clone(), frame, decoder })
    }
}

/// Refuses options that would do nothing with this format.
fn only_what_counts(options: &RuleOptions) -> Result<(), WrongOption> {
    let default = RuleOptions::default();
    let format = options.data_format.as_str();
    let checks: [(&'static str, bool, &[&str]); 16] = [
        ("name_override", options.name_override != default.name_override, STORED),
        ("topic_parsing", options.topic_parsing != default.topic_parsing, STORED),
        ("topic_tag", options.topic_tag != default.topic_tag, STORED),
        ("tags", options.tags != default.tags, STORED),
        ("user_property_tags", options.user_property_tags != default.user_property_tags, STORED),
        ("tag_keys", options.tag_keys != default.tag_keys, OF_OBJECTS),
        ("json_query", options.json_query != default.json_query, &["json"]),
        ("json_name_key", options.json_name_key != default.json_name_key, &["json"]),
        ("json_time_key", options.json_time_key != default.json_time_key, &["json"]),
        ("json_time_format", options.json_time_format != default.json_time_format, &["json", "iotdb"]),
        ("json_timezone", options.json_timezone != default.json_timezone, OF_JSON),
        ("json_string_fields", options.json_string_fields != default.json_string_fields, OF_JSON),
        ("json_integer_fields", options.json_integer_fields != default.json_integer_fields, OF_JSON),
        ("data_type", options.data_type != default.data_type, &["value"]),
        ("value_field_name", options.value_field_name != default.value_field_name, &["value"]),
        (
            "influx_timestamp_precision",
            options.influx_timestamp_precision != default.influx_timestamp_precision,
            &["influx"],
        ),
    ];
    match checks.into_iter().find(|(_, is_set, formats)| *is_set && !formats.contains(&format)) {
        Some((option, _, formats)) => {
            let formats = formats.join(", ");
            Err(wrong(option, format!("it does nothing with data_format {format:?}, only with {formats}")))
        }
        None => Ok(()),
    }
}

fn frame(options: &RuleOptions) -> Result<Frame, WrongOption> {
    let mut frame = Frame {
        topic_tag: options.topic_tag.clone(),
        fixed: options.tags.clone().into_iter().collect(),
        properties: options.user_property_tags.clone(),
        ..Frame::default()
    };
    if !options.name_override.is_empty() {
        check_name("table", &options.name_override).map_err(|error| wrong("name_override", error.to_string()))?;
        frame.table = Some(options.name_override.clone());
    }
    for (part, text) in &options.topic_parsing {
        let of_part = |reason: String| wrong("topic_parsing", format!("{part}: {reason}"));
        let place = match part.as_str() {
            "measurement" => &mut frame.measurement,
            "tags" => &mut frame.tags,
            "fields" => &mut frame.fields,
            "field_name" => &mut frame.field_name,
            _ => {
                let right = "there are measurement, tags, fields and field_name";
                return Err(wrong("topic_parsing", format!("there is no {}; {right}", quote(part))));
            }
        };
        let template = Template::compile(text).map_err(of_part)?;
        let is_one_name = matches!(part.as_str(), "measurement" | "field_name");
        if is_one_name && template.names.len() != 1 {
            return Err(of_part(format!("{text:?} names {} levels; one is right", template.names.len())));
        }
        for filter in &options.topics {
            template.check(filter).map_err(of_part)?;
        }
        if !is_one_name {
            let what = if part == "tags" { "tag" } else { "field" };
            for (_, name) in &template.names {
                check_column_name(what, name).map_err(|error| of_part(error.to_string()))?;
            }
        }
        *place = Some(template);
    }
    if frame.field_name.is_some() && options.data_format != "value" {
        return Err(wrong(
            "topic_parsing",
            "field_name is for data_format \"value\" only: other payloads name their fields",
        ));
    }
    if frame.measurement.is_some() && !matches!(options.data_format.as_str(), "influx" | "json" | "value") {
        let reason = "measurement is for data_format \"influx\", \"json\" and \"value\" only; write name_override";
        return Err(wrong("topic_parsing", reason));
    }
    if frame.table.is_some() && frame.measurement.is_some() {
        return Err(wrong("topic_parsing", "measurement does nothing beside name_override"));
    }
    let is_tag = |option, name: &str| check_column_name("tag", name).map_err(|error| wrong(option, error.to_string()));
    for name in options.tags.keys() {
        is_tag("tags", name)?;
    }
    for name in &options.user_property_tags {
        is_tag("user_property_tags", name)?;
    }
    if !options.topic_tag.is_empty() {
        is_tag("topic_tag", &options.topic_tag)?;
    }
    let names = |template: &Option<Template>| -> Vec<String> {
        template.iter().flat_map(|template| &template.names).map(|(_, name)| name.clone()).collect()
    };
    let mut all = names(&frame.tags);
    all.extend(names(&frame.fields));
    all.extend(options.tags.keys().chain(&options.user_property_tags).cloned());
    all.extend(Some(options.topic_tag.clone()).filter(|name| !name.is_empty()));
    all.sort();
    match all.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(wrong("tags", format!("{:?} is named twice by this rule, as tag or field", pair[0]))),
        None => Ok(frame),
    }
}

fn decoder(options: &RuleOptions, frame: &mut Frame) -> Result<Decoder, WrongOption> {
    let time = |default| TimeLayout::compile(&options.json_time_format, &options.json_timezone, default);
    let fields =
        Fields { strings: Names::new(&options.json_string_fields), integers: Names::new(&options.json_integer_fields) };
    let tag_keys = Names::new(&options.tag_keys);
    let has_table = frame.table.is_some() || frame.measurement.is_some();
    let no_table = |others: &str| {
        let reason = format!("nothing names the table: write name_override, {others}measurement in topic_parsing");
        Err(wrong("name_override", reason))
    };
    Ok(match options.data_format.as_str() {
        "influx" => Decoder::Lines(Lines {
            precision: options
                .influx_timestamp_precision
                .parse()
                .map_err(|error| wrong("influx_timestamp_precision", format!("{error}")))?,
        }),
        "json" if !has_table && options.json_name_key.is_empty() => return no_table("json_name_key, or "),
        "json" => {
            let time_key = Some(options.json_time_key.clone()).filter(|key| !key.is_empty());
            for (option, is_set) in
                [("json_time_format", &options.json_time_format), ("json_timezone", &options.json_timezone)]
            {
                if time_key.is_none() && !is_set.is_empty() {
                    return Err(wrong(option, "it does nothing without json_time_key"));
                }
            }
            if has_table && !options.json_name_key.is_empty() {
                return Err(wrong("json_name_key", "the table is named by name_override or topic_parsing already"));
            }
            Decoder::Json(Json {
                query: pointer(&options.json_query).map_err(|reason| wrong("json_query", reason))?,
                tag_keys,
                name_key: Some(options.json_name_key.clone()).filter(|key| !key.is_empty()),
                time: match time_key {
                    Some(key) => Some((key, time(TimeFormat::Auto)?)),
                    None => None,
                },
                fields,
            })
        }
        "value" if !has_table => return no_table("or "),
        "value" => {
            let data_type = DataType::of_word(&options.data_type).ok_or_else(|| {
                let right = "auto, float, integer, unsigned, boolean or string";
                wrong("data_type", format!("{} is no type; right is {right}", quote(&options.data_type)))
            })?;
            let field_name = options.value_field_name.clone();
            check_column_name("field", &field_name).map_err(|error| wrong("value_field_name", error.to_string()))?;
            Decoder::Value(Scalar { data_type, field_name })
        }
        "iotdb" => Decoder::Iotdb(Iotdb { time: time(TimeFormat::Ms)?, fields }),
        "tasmota" => {
            // The last level of the topic stands behind it.
            let table = frame.table.take().unwrap_or_else(|| "tasmota".into());
            Decoder::Tasmota(Tasmota { table, time: time(TimeFormat::Rfc3339)?, tag_keys, fields })
        }
        "zigbee2mqtt" => Decoder::Zigbee2mqtt(Zigbee2mqtt {
            table: "zigbee2mqtt".into(),
            time: time(TimeFormat::Auto)?,
            tag_keys,
            fields,
        }),
        "sparkplug_b" => Decoder::Sparkplug(Sparkplug { table: frame.table.take() }),
        _ => Decoder::Ignore,
    })
}

/// The tokens of a JSON pointer (RFC 6901).
fn pointer(text: &str) -> Result<Vec<String>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let Some(rest) = text.strip_prefix('/') else {
        return Err(format!("{} is no JSON pointer; right is a path such as \"/data/0\"", quote(text)));
    };
    Ok(rest.split('/').map(|token| token.replace("~1", "/").replace("~0", "~")).collect())
}
