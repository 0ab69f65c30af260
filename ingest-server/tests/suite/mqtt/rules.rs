//! Messages that rules of the configuration read.

use ingest_server::config::{MqttRule, TopicFilters};
use serde_json::json;

use super::{Raw, Setup, bytes, publish};
use crate::process::Eden;

fn rule(topics: &[&str], data_format: &str, set: impl FnOnce(&mut MqttRule)) -> MqttRule {
    let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
    let mut rule = MqttRule { topics, data_format: data_format.to_owned(), ..MqttRule::default() };
    set(&mut rule);
    rule
}

fn start(rules: Vec<MqttRule>) -> Setup {
    let mut setup = Setup::bind_with(|config| config.mqtt_rules = rules);
    setup.open();
    setup
}

fn air(rule: &mut MqttRule) {
    rule.name_override = "air".into();
    rule.topic_parsing = [("tags", "_/site/_"), ("field_name", "_/_/name")]
        .map(|(part, text)| (part.to_owned(), text.to_owned()))
        .into();
}

/// PUBLISH of MQTT 5 with user properties, QoS 1.
fn with_properties(topic: &str, id: u16, properties: &[(&str, &str)], payload: &str) -> Vec<u8> {
    let properties: String = properties.iter().map(|(name, value)| format!("26 \"{name}\" \"{value}\" ")).collect();
    bytes(&format!("32 <\"{topic}\" {id:04x} {{ {properties} }} '{payload}'>"))
}

fn expect_refused(raw: &mut Raw, id: u16) -> String {
    let packet = raw.next();
    let head = if packet[1] & 0x80 == 0 { 2 } else { 3 };
    assert_eq!((packet[0], &packet[head..head + 3]), (0x40, &[0, id as u8, 0][..]), "{packet:02x?}");
    String::from_utf8_lossy(&packet[head + 3..]).into_owned()
}

#[test]
fn messages_become_rows_by_the_first_rule_that_takes_them() {
    let setup = start(vec![
        rule(&["skipped/#"], "ignore", |_| {}),
        rule(&["sensors/+/+"], "value", air),
        rule(&["tele/#"], "tasmota", |_| {}),
        rule(&["zigbee2mqtt/#"], "zigbee2mqtt", |_| {}),
        rule(&["plain/#"], "influx", |_| {}),
        rule(&["lp/tagged"], "influx", |rule| rule.tags = [("site".to_owned(), "x".to_owned())].into()),
    ]);
    let mut raw = setup.v311("c");
    let messages: [(&str, &str); 9] = [
        ("sensors/a/temperature", "21.5"),
        ("sensors/b/humidity", "55"),
        ("tele/lamp/STATE", r#"{"Time":"2026-06-01T00:00:00Z","POWER":"ON"}"#),
        ("zigbee2mqtt/plug", r#"{"power":7,"last_seen":1780272000000}"#),
        ("skipped/x", "?"),
        ("zigbee2mqtt/bridge/state", "?"),
        ("plain/x", "m v=1 1780272000000000000"),
        ("lp/tagged", "m v=2 1780272000000000000"),
        ("lp/other", "m v=3 1780272000000000000"),
    ];
    // In one write: what is read together is mapped together.
    let mut all = Vec::new();
    for ((topic, payload), id) in messages.iter().zip(1..) {
        all.extend(publish(false, topic, 1, id, payload.as_bytes()));
    }
    raw.send_bytes(&all);
    for id in 1..=messages.len() {
        raw.expect(&format!("40 02 00 0{id}"));
    }
    assert_eq!(
        setup.rows("SELECT site, temperature, humidity FROM air ORDER BY site"),
        json!([["a", 21.5, null], ["b", null, 55.0]])
    );
    let time = 1_780_272_000_000_000_i64;
    assert_eq!(
        setup.rows("SELECT device, \"POWER\", cast(time as bigint) FROM tasmota_state"),
        json!([["lamp", "ON", time]])
    );
    assert_eq!(setup.rows("SELECT device, power FROM zigbee2mqtt"), json!([["plug", 7.0]]));
    // The plain line came first, and the last one has its key.
    assert_eq!(setup.rows("SELECT site, v FROM m ORDER BY v"), json!([["x", 2.0], [null, 3.0]]));
    assert_eq!(setup.metric("eden_mqtt_messages_ignored_total"), 2);
    assert_eq!(setup.metric("eden_mqtt_messages_set_aside_total"), 0);
}

#[test]
fn what_a_rule_cannot_read_or_a_table_not_take_is_set_aside_and_the_neighbours_are_stored() {
    let setup = start(vec![rule(&["j/+"], "json", |rule| {
        rule.name_override = "j".into();
        rule.json_time_key = "t".into();
        rule.json_time_format = "unix".into();
    })]);
    let mut raw = setup.v5("c");
    let payloads = [
        r#"{"t":1,"v":1.5}"#,
        "nonsense",
        r#"[{"t":2,"v":2.5},{"t":3},{"t":4,"v":4.5}]"#,
        r#"[{"t":5,"v":"text"},{"t":6,"v":6.5}]"#,
        r#"{"t":7,"v":7.5}"#,
    ];
    let mut all = Vec::new();
    for (payload, id) in payloads.iter().zip(1..) {
        all.extend(publish(true, "j/x", 1, id, payload.as_bytes()));
    }
    all.extend(publish(true, "elsewhere", 1, 6, b"x"));
    raw.send_bytes(&all);
    raw.expect("40 02 00 01");
    assert!(expect_refused(&mut raw, 2).contains("it is not JSON"));
    assert!(expect_refused(&mut raw, 3).contains("element 2: there is no field in it"));
    assert!(expect_refused(&mut raw, 4).contains("row refused: "));
    raw.expect("40 02 00 05");
    assert!(expect_refused(&mut raw, 6).contains("no rule of this server takes this topic"));
    let values = "SELECT v FROM j ORDER BY time";
    assert_eq!(setup.rows(values), json!([[1.5], [2.5], [4.5], [6.5], [7.5]]));
    let aside = setup.rows("SELECT topic, payload, precision, is_whole FROM system.quarantine ORDER BY time, payload");
    let mut aside: Vec<String> = aside.as_array().unwrap().iter().map(ToString::to_string).collect();
    aside.sort();
    assert_eq!(
        aside,
        [
            r#"["elsewhere","x","",true]"#,
            r#"["j/x","j v=\"text\" 5000000","microsecond",true]"#,
            r#"["j/x","nonsense","",true]"#,
            r#"["j/x","{\"t\":3}","",true]"#,
        ]
    );
    assert_eq!(setup.metric("eden_mqtt_messages_set_aside_total"), 4);
}

#[test]
fn messages_without_a_time_that_come_together_are_as_many_readings() {
    let setup = start(vec![rule(&["v"], "value", |rule| rule.name_override = "v".into())]);
    let mut raw = setup.v311("c");
    let all: Vec<u8> = (1..=100_u16).flat_map(|id| publish(false, "v", 1, id, id.to_string().as_bytes())).collect();
    for _ in 0..2 {
        raw.send_bytes(&all);
        for id in 1..=100 {
            raw.expect(&format!("40 02 00 {id:02x}"));
        }
    }
    assert_eq!(setup.rows("SELECT count(*), sum(value) FROM v"), json!([[200, 10_100.0]]));
}

#[test]
fn user_properties_are_tags_where_a_rule_says_so() {
    let tags = |rule: &mut MqttRule| rule.user_property_tags = vec!["site".into(), "line".into()];
    let setup = start(vec![
        rule(&["v"], "value", |rule| {
            rule.name_override = "m".into();
            tags(rule);
        }),
        rule(&["l"], "influx", tags),
    ]);
    let mut raw = setup.v5("c");
    raw.send_bytes(&with_properties("v", 1, &[("site", "a"), ("other", "x")], "1"));
    raw.expect("40 02 00 01");
    raw.send_bytes(&with_properties("l", 2, &[("line", "7"), ("site", "b")], "m value=2"));
    raw.expect("40 02 00 02");
    raw.send_bytes(&with_properties("v", 3, &[], "3"));
    raw.expect("40 02 00 03");
    raw.send_bytes(&with_properties("v", 4, &[("site", "a"), ("site", "b")], "4"));
    assert!(expect_refused(&mut raw, 4).contains("with two values"));
    assert_eq!(
        setup.rows("SELECT site, line, value FROM m ORDER BY value"),
        json!([["a", null, 1.0], ["b", "7", 2.0], [null, null, 3.0]])
    );
}

#[test]
fn a_will_on_a_topic_of_a_rule_becomes_a_row() {
    let setup = start(vec![rule(&["tele/#"], "tasmota", |_| {})]);
    let mut raw = setup.dial();
    raw.send("10 <\"MQTT\" 04 06 0000 \"c\" \"tele/lamp/LWT\" \"Offline\">");
    raw.expect("20 02 00 00");
    drop(raw);
    let mut other = setup.v311("c");
    other.publish_to("tele/lamp/STATE", 1, 1, b"{\"a\":1}");
    other.expect("40 02 00 01");
    assert_eq!(setup.rows("SELECT device, online FROM tasmota_lwt"), json!([["lamp", false]]));
}

#[test]
fn rules_are_asked_before_the_filters_for_line_protocol() {
    let mut setup = Setup::bind_with(|config| {
        config.mqtt.line_protocol = TopicFilters(vec!["#".into()]);
        config.mqtt_rules = vec![rule(&["a"], "value", |rule| rule.name_override = "a".into())];
    });
    setup.open();
    let mut raw = setup.v311("c");
    raw.publish_to("a", 2, 1, b"5");
    raw.expect("50 02 00 01");
    raw.publish_to("b", 1, 2, b"b v=6");
    raw.expect("40 02 00 02");
    assert_eq!(setup.rows("SELECT a.value, b.v FROM a, b"), json!([[5.0, 6.0]]));
}

#[test]
fn messages_that_came_before_their_rule_are_replayed_by_it() {
    let eden = Eden::start();
    let addresses = std::fs::read_to_string(eden.data().join("addresses.json")).unwrap();
    let addresses: serde_json::Value = serde_json::from_str(&addresses).unwrap();
    let mut raw = Raw::dial(addresses["mqtt"].as_str().unwrap().parse().unwrap());
    raw.send("10 <\"MQTT\" 04 02 0000 \"c\">");
    raw.expect("20 02 00 00");
    for (id, payload) in [(1, "{\"v\":1.5}"), (2, "nonsense")] {
        raw.publish_to("late/a", 1, id, payload.as_bytes());
        raw.expect(&format!("40 02 00 0{id}"));
    }
    let came = eden.rows("SELECT cast(time as bigint) FROM system.quarantine WHERE payload LIKE '%v%'");
    let (_, _, dir) = eden.terminate();
    let rule = "[[mqtt.rule]]\ntopics = [\"late/+\"]\ndata_format = \"json\"\nname_override = \"late\"\n";
    std::fs::write(dir.path().join("eden.toml"), rule).unwrap();
    let eden = Eden::start_in(dir, &[]);
    let answer = eden.post("/api/v1/quarantine/replay", &[], b"{}").json();
    assert_eq!((&answer["replayed"], &answer["refused"]), (&json!(1), &json!(1)), "{answer}");
    // At the time at which it came.
    assert_eq!(eden.rows("SELECT cast(time as bigint) FROM late WHERE v = 1.5"), came);
    assert_eq!(eden.rows("SELECT payload FROM system.quarantine"), json!([["nonsense"]]));
}
