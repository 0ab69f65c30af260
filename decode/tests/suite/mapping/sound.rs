//! Rules of all formats with payloads that they take, and what holds of every payload; the room `fuzz` asks it too.

use std::collections::BTreeMap;

use decode::line_protocol::{Options, Precision, parse};
use decode::line_text::row_line;
use decode::mapping::{Message, REFUSED_MAX, Rows, Rule, RuleOptions};
use model::TableBatch;

use crate::support::{assert_sound, meaning};

pub(crate) fn texts(of: &[&str]) -> Vec<String> {
    of.iter().map(|text| (*text).to_owned()).collect()
}

pub(crate) fn named(of: &[(&str, &str)]) -> BTreeMap<String, String> {
    of.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

pub(crate) fn options(topics: &[&str], data_format: &str, set: impl FnOnce(&mut RuleOptions)) -> RuleOptions {
    let mut options = RuleOptions { topics: texts(topics), data_format: data_format.into(), ..RuleOptions::default() };
    set(&mut options);
    options
}

pub(crate) fn rule(topics: &[&str], data_format: &str, set: impl FnOnce(&mut RuleOptions)) -> Rule {
    Rule::compile(&options(topics, data_format, set)).unwrap()
}

/// Rules of all formats, each with a topic and payloads that it takes.
pub(crate) fn corpus() -> Vec<(Rule, &'static str, Vec<&'static str>)> {
    let value = rule(&["s/#"], "value", |o| {
        o.topic_parsing = named(&[("measurement", "_/m/_"), ("tags", "_/_/x")]);
        o.topic_tag = "topic".into();
    });
    let json = rule(&["j/+"], "json", |o| {
        o.json_query = "/d".into();
        o.json_name_key = "n".into();
        o.json_time_key = "t".into();
        o.tag_keys = texts(&["k*"]);
        o.json_integer_fields = texts(&["i"]);
        o.user_property_tags = texts(&["site"]);
    });
    let layout = rule(&["l"], "json", |o| {
        o.name_override = "m".into();
        o.json_time_key = "t".into();
        o.json_time_format = "%Y-%m-%d %H:%M:%S%.f %z".into();
    });
    let lines = rule(&["p"], "influx", |o| o.tags = named(&[("fleet", "f")]));
    vec![
        (value, "s/a/b", vec!["21.5", "true", "-9007199254740993", "text"]),
        (
            json,
            "j/x",
            vec![
                r#"{"d":[{"n":"a","t":1780272000,"k1":"x","i":5,"v":{"w":[1,{"z":null}],"u":-1.5e3}},{"n":"b","t":"2026-06-01"}]}"#,
                r#"{"d":{"n":"ü\n","t":1.5,"k2":true,"v":"\ud83d\ude00"}}"#,
            ],
        ),
        (layout, "l", vec![r#"{"t":"2026-06-01 08:30:00.5 +0200","v":1}"#]),
        (lines, "p", vec!["m,a=b c=1,d=\"e f\" 5\nm,fleet=x c=2i\nbad"]),
        (
            rule(&["i"], "iotdb", |_| {}),
            "i",
            vec![
                r#"{"device":"root.a.b","timestamp":1,"measurements":["s","t"],"values":[0.5,{"a":1}]}"#,
                r#"[{"device":"d","timestamps":[1,2],"measurements":["s"],"values":[[1],["x"]]}]"#,
            ],
        ),
        (
            rule(&["tele/#"], "tasmota", |o| o.json_timezone = "+02:00".into()),
            "tele/k/SENSOR",
            vec![r#"{"Time":"2026-06-01T08:30:00","A":{"T":21.5,"B":{"c":[1]}},"S":"ON","TempUnit":"C"}"#],
        ),
        (
            rule(&["z/#"], "zigbee2mqtt", |_| {}),
            "z/a/b",
            vec![r#"{"state":"ON","q":120,"last_seen":1780272000000,"u":{"s":"idle"}}"#],
        ),
        (rule(&["z/#"], "zigbee2mqtt", |_| {}), "z/a/availability", vec![r#"{"state":"online"}"#, "offline"]),
    ]
}

pub(crate) fn check(rule: &Rule, topic: &str, payload: &[u8]) -> Vec<TableBatch> {
    let mut rows = Rows::new("public");
    let properties = [("site", "x"), ("other", "y")];
    let mapped = rule.map(&Message { topic, payload, user_properties: &properties, now_us: 0 }, &mut rows);
    assert!(mapped.refused.len() as u64 <= mapped.refused_total.min(REFUSED_MAX as u64));
    let parts: usize = mapped.refused.iter().filter_map(|refused| Some(refused.part.as_ref()?.len())).sum();
    // A part of IoTDB's rows names its device and measurements again.
    assert!(parts <= 2048 + 6 * payload.len(), "{parts} bytes of parts of {}", payload.len());
    assert!(mapped.refused.iter().all(|refused| refused.reason.len() < 450));
    let len = rows.len() as usize;
    let batches = rows.finish();
    batches.iter().for_each(assert_sound);
    assert_eq!(batches.iter().map(TableBatch::len).sum::<usize>(), len);
    assert!(len > 0 || mapped.ignored || mapped.refused_total > 0 || payload.is_empty() || topic == "p");
    let cells: usize = batches.iter().map(|batch| batch.len() * (batch.fields.len() + 1)).sum();
    assert!(cells <= 2048 + 8 * payload.len(), "{cells} cells of {} bytes", payload.len());
    batches
}

/// And what is stored can be said in lines, and is read back as the same.
pub(crate) fn check_lines(batches: &[TableBatch]) {
    let lines: Vec<Option<String>> =
        batches.iter().flat_map(|batch| (0..batch.len()).map(|row| row_line(batch, row))).collect();
    let Some(lines) = lines.into_iter().collect::<Option<Vec<String>>>() else { return };
    let options = Options { schema: "public", precision: Precision::Microsecond, now_us: 0, errors_max: 5 };
    let decoded = parse(lines.join("\n").as_bytes(), &options);
    assert!(decoded.errors.is_empty(), "{:?}", decoded.errors);
    assert_eq!(meaning(&decoded.batches), meaning(batches));
}
