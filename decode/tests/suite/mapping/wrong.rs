//! Mistakes in rules.

use decode::mapping::{Rule, RuleOptions, Rules};

use super::{named, options, texts};

fn said(topics: &[&str], data_format: &str, set: impl FnOnce(&mut RuleOptions)) -> String {
    let wrong = Rule::compile(&options(topics, data_format, set)).unwrap_err();
    format!("{}: {}", wrong.option, wrong.reason)
}

#[test]
fn a_rule_that_cannot_be_is_refused_with_what_would_be_right() {
    let value = |set: fn(&mut RuleOptions)| {
        said(&["a/+/b"], "value", |o| {
            o.name_override = "m".into();
            set(o);
        })
    };
    let json = |set: fn(&mut RuleOptions)| {
        said(&["a"], "json", |o| {
            o.name_override = "m".into();
            set(o);
        })
    };
    for (said, start) in [
        (said(&["a"], "xml", |_| {}), "data_format: \"xml\" is no format; there are influx, json"),
        (said(&["a#"], "json", |_| {}), "topics: \"a#\" is not a topic filter"),
        (said(&[], "influx", |_| {}), "topics: a rule without topics takes nothing"),
        (said(&["a"], "json", |_| {}), "name_override: nothing names the table: write name_override, json_name_key"),
        (said(&["a"], "value", |_| {}), "name_override: nothing names the table"),
        (
            value(|o| o.json_query = "/a".into()),
            "json_query: it does nothing with data_format \"value\", only with json",
        ),
        (value(|o| o.data_type = "int".into()), "data_type: \"int\" is no type; right is auto"),
        (value(|o| o.value_field_name = "time".into()), "value_field_name: the field name \"time\" is reserved"),
        (value(|o| o.name_override = "x".repeat(81)), "name_override: the table name"),
        (value(|o| o.topic_parsing = named(&[("tag", "_")])), "topic_parsing: there is no \"tag\""),
        (value(|o| o.topic_parsing = named(&[("tags", "_/_/_")])), "topic_parsing: tags: \"_/_/_\" names no level"),
        (value(|o| o.topic_parsing = named(&[("tags", "_/x")])), "topic_parsing: tags: it has 2 levels and the topic"),
        (value(|o| o.topic_parsing = named(&[("tags", "_//x")])), "topic_parsing: tags: \"_//x\" has an empty level"),
        (value(|o| o.topic_parsing = named(&[("tags", "_/time/_")])), "topic_parsing: tags: the tag name \"time\""),
        (value(|o| o.topic_parsing = named(&[("measurement", "_/m/_")])), "topic_parsing: measurement does nothing"),
        (
            value(|o| {
                o.topic_parsing = named(&[("tags", "_/x/_")]);
                o.topic_tag = "x".into();
            }),
            "tags: \"x\" is named twice",
        ),
        (value(|o| o.tags = named(&[("eden_day", "x")])), "tags: the tag name \"eden_day\" is reserved"),
        (value(|o| o.user_property_tags = texts(&[""])), "user_property_tags: a tag name is empty"),
        (json(|o| o.json_time_format = "unix".into()), "json_time_format: it does nothing without json_time_key"),
        (json(|o| o.json_name_key = "n".into()), "json_name_key: the table is named by name_override"),
        (json(|o| o.json_query = "data".into()), "json_query: \"data\" is no JSON pointer"),
        (json(|o| o.topic_parsing = named(&[("field_name", "f")])), "topic_parsing: field_name is for data_format"),
        (said(&["a"], "influx", |o| o.influx_timestamp_precision = "week".into()), "influx_timestamp_precision: "),
        (
            said(&["a"], "tasmota", |o| o.topic_parsing = named(&[("measurement", "m")])),
            "topic_parsing: measurement is for",
        ),
        (
            said(&["a"], "ignore", |o| o.tags = named(&[("a", "b")])),
            "tags: it does nothing with data_format \"ignore\"",
        ),
    ] {
        assert!(said.starts_with(start), "{said} is not {start}");
    }
    for (format, zone, start) in [
        ("2006-01-02T15:04:05", "", "json_time_format: \"2006-01-02T15:04:05\" is a layout of Go"),
        ("soon", "", "json_time_format: \"soon\" is no format of times"),
        ("%Q", "", "json_time_format: \"%Q\" is no format of times"),
        ("%Y-%m-%d", "", "json_time_format: \"%Y-%m-%d\" does not say both a day and a time of day"),
        ("unix", "Europe/Berlin", "json_timezone: \"Europe/Berlin\" is not a zone"),
    ] {
        let said = said(&["a"], "json", |o| {
            o.name_override = "m".into();
            o.json_time_key = "t".into();
            (o.json_time_format, o.json_timezone) = (format.into(), zone.into());
        });
        assert!(said.starts_with(start), "{said} is not {start}");
    }
    let same = options(&["a"], "influx", |o| o.name = "x".into());
    let (number, wrong) = Rules::compile([&same, &same]).unwrap_err();
    assert_eq!((number, wrong.option, &*wrong.reason), (1, "name", "another rule has the name \"x\""));
}
