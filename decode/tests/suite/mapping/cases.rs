//! What each decoder makes of what machines send.

use decode::mapping::{Message, Rows, Rules};

use super::{NOW, check, map, mapped, named, options, refuse, rule, texts};

#[test]
fn a_number_by_itself_is_a_field_named_by_the_rule_or_the_topic() {
    let plain = rule(&["sensors/+/+/temperature"], "value", |o| {
        o.name_override = "air".into();
        o.topic_parsing = named(&[("tags", "_/site/device/_")]);
        o.value_field_name = "temperature".into();
    });
    check(&plain, "sensors/a/d7/temperature", "21.5", &["air[device=d7,site=a] temperature=21.5 @7"]);
    let by_topic = rule(&["sensors/#"], "value", |o| {
        o.topic_parsing = named(&[
            ("measurement", "_/_/_/measurement/_"),
            ("tags", "_/site/device/#"),
            ("field_name", "_/_/_/_/field"),
        ]);
    });
    check(&by_topic, "sensors/a/d7/air/humidity", " 55\n", &["air[device=d7,site=a] humidity=55.0 @7"]);
    refuse(&by_topic, "sensors/a/d7/air", "55", "the topic has 4 levels");
    refuse(&by_topic, "sensors/a//air/x/y", "55", "the topic has 6 levels");
    // A level without characters is no tag.
    check(&by_topic, "sensors//d7/air/humidity", "55", &["air[device=d7] humidity=55.0 @7"]);
}

#[test]
fn values_have_the_type_that_the_rule_says() {
    let typed = |data_type: &str| {
        rule(&["v"], "value", |o| {
            o.name_override = "m".into();
            o.data_type = data_type.into();
        })
    };
    for (data_type, payload, shown) in [
        ("auto", "1", "1.0"),
        ("auto", "-1e3", "-1000.0"),
        ("auto", "9007199254740993", "9007199254740993i"),
        ("auto", "true", "true"),
        ("auto", "ON", "\"ON\""),
        ("auto", "nan", "\"nan\""),
        ("float", "1", "1.0"),
        ("integer", "-1", "-1i"),
        ("long", "9007199254740993", "9007199254740993i"),
        ("unsigned", "18446744073709551615", "18446744073709551615u"),
        ("boolean", "OFF", "false"),
        ("boolean", "1", "true"),
        ("string", "21", "\"21\""),
    ] {
        check(&typed(data_type), "v", payload, &[&format!("m[] value={shown} @7")]);
    }
    for (data_type, payload, reason) in [
        ("float", "NaN", "\"NaN\" is not a number"),
        ("float", "1e999", "is not a number"),
        ("integer", "1.5", "is not a whole number"),
        ("unsigned", "-1", "is not a whole number from 0"),
        ("boolean", "yes", "is not true or false"),
        ("auto", " \r\n", "there is no value in it"),
    ] {
        refuse(&typed(data_type), "v", payload, reason);
    }
    assert!(map(&typed("auto"), "v", b"\xff", &[]).1.refused[0].reason.starts_with("byte 1: it is not UTF-8"));
}

#[test]
fn objects_become_paths_and_chosen_ones_tags_and_time() {
    let json = rule(&["plant/+"], "json", |o| {
        o.name_override = "press".into();
        o.topic_parsing = named(&[("tags", "_/line")]);
        o.tag_keys = texts(&["machine", "meta.*"]);
        o.json_time_key = "ts".into();
        o.json_time_format = "unix_ms".into();
        o.json_integer_fields = texts(&["cycles"]);
        o.json_string_fields = texts(&["state", "positions"]);
    });
    check(
        &json,
        "plant/a",
        r#"{"machine":7,"ts":1780272000000.5,"meta":{"site":"x"},"force":{"x":1,"y":-2.5},"cycles":12,"state":"on",
            "note":"left out","ok":true,"none":null,"positions":[1,2]}"#,
        &["press[line=a,machine=7,meta.site=x] force.x=1.0 force.y=-2.5 cycles=12i state=\"on\" ok=true \
           positions=\"[1,2]\" @1780272000000500"],
    );
    for (payload, reason) in [
        (r#"{"machine":7,"force":1}"#, "there is no time at \"ts\""),
        (r#"{"ts":"soon","force":1}"#, "\"ts\": \"soon\" is not a number of ms"),
        (r#"{"ts":1,"cycles":1.5}"#, "\"cycles\" is 1.5, and json_integer_fields has it"),
        (r#"{"ts":1,"line":5,"force":1}"#, "\"line\" is a tag by the rule, and a field in the payload"),
        (r#"{"ts":1,"force":1,"force":2}"#, "\"force\" is there twice"),
        (r#"{"ts":1,"time":1}"#, "the field name \"time\" is reserved"),
        (r#"{"ts":1,"machine":"a\u0007b","force":1}"#, "has a control character"),
        (r#"{"ts":1,"note":"only"}"#, "there is no field in it"),
        (r#"{"ts":1,"":1}"#, "a field name is empty"),
        ("21.5", "not a JSON object"),
        ("{\"ts\":1", "it is not JSON"),
        ("{\"ts\":1,\"force\":1} x", "it goes on behind its end: \"x\""),
        ("", "it is not JSON"),
        ("[]", "the array is empty"),
    ] {
        refuse(&json, "plant/a", payload, reason);
    }
    let long = format!(r#"{{"ts":1,"{}":{{"a":1}}}}"#, "x".repeat(5000));
    refuse(&json, "plant/a", &long, "has 5000 bytes; at most 80 are allowed");
}

#[test]
fn an_array_is_several_rows_and_its_bad_elements_are_told_apart() {
    let json = rule(&["a"], "json", |o| {
        o.json_query = "/data/0/rows".into();
        o.json_name_key = "name".into();
    });
    let payload = r#"{"data":[{"rows":[{"name":"t","v":1},{"v":2},7,{"name":"u","v":"x"}]}],"other":1}"#;
    let (rows, refused) = mapped(&json, "a", payload);
    assert_eq!(rows, ["t[] v=1.0 @7", "u[] v=\"x\" @8"]);
    assert_eq!(refused.len(), 2);
    assert_eq!(refused[0], "element 2: there is no text at \"name\", which names the table <{\"v\":2}>");
    assert!(refused[1].starts_with("element 3: not a JSON object") && refused[1].ends_with(" <7>"), "{}", refused[1]);
    refuse(&json, "a", r#"{"data":[]}"#, "there is nothing at json_query in it");
    check(&json, "a", r#"{"data":[{"rows":{"name":"t","v":1}}]}"#, &["t[] v=1.0 @7"]);
}

#[test]
fn a_payload_may_be_lines_of_json() {
    let json = rule(&["a"], "json", |o| o.name_override = "t".into());
    let (rows, refused) = mapped(&json, "a", "{\"v\":1}\n\nbad\r\n[{\"v\":2},3]\n{\"v\":4}");
    assert_eq!(rows, ["t[] v=1.0 @7", "t[] v=2.0 @8", "t[] v=4.0 @9"]);
    let reasons: Vec<&str> = refused.iter().map(|refused| refused.split(" not ").next().unwrap_or_default()).collect();
    assert_eq!(reasons, ["line 3: it is", "line 4: element 2:"], "{refused:?}");
    assert!(refused[0].ends_with(" <bad>"), "{refused:?}");
    // The first of them may be bad, and what is written over several lines is one.
    assert_eq!(mapped(&json, "a", "bad\n{\"v\":1}").0.len(), 1);
    check(&json, "a", "[\n{\"v\":1}\n,\n{\"v\":2}\n]\n", &["t[] v=1.0 @7", "t[] v=2.0 @8"]);
    refuse(&json, "a", "{\n\"v\":1,\n\"w\":\n}", "it is not JSON");
}

#[test]
fn times_are_read_in_the_formats_that_devices_write() {
    let at = |format: &str, zone: &str, time: &str| {
        let json = rule(&["a"], "json", |o| {
            o.name_override = "m".into();
            o.json_time_key = "t".into();
            o.json_time_format = format.into();
            o.json_timezone = zone.into();
        });
        let (rows, refused) = mapped(&json, "a", &format!(r#"{{"t":{time},"v":1}}"#));
        rows.into_iter().chain(refused).collect::<Vec<_>>().join(" ")
    };
    let noon = 1_780_272_000_000_000_i64; // 2026-06-01T00:00:00Z
    for (format, zone, time, us) in [
        ("", "", "1780272000", noon),
        ("", "", "1780272000000", noon),
        ("", "", "\"2026-06-01T02:00:00+02:00\"", noon),
        ("", "+02:00", "\"2026-06-01T02:00:00\"", noon),
        ("unix", "", "1780272000.25", noon + 250_000),
        ("unix", "", "\"1780272000\"", noon),
        ("unix_us", "", "1780272000000001", noon + 1),
        ("unix_ns", "", "1780272000000001999", noon + 1),
        ("RFC3339", "", "\"2026-06-01T00:00:00.5Z\"", noon + 500_000),
        ("rfc3339", "UTC", "\"2026-06-01 00:00:00\"", noon),
        ("%Y-%m-%d %H:%M:%S", "-01:00", "\"2026-05-31 23:00:00\"", noon),
        ("%d.%m.%Y %H:%M:%S%.f", "", "\"01.06.2026 00:00:00.001\"", noon + 1_000),
        ("%Y-%m-%dT%H:%M:%S%z", "", "\"2026-06-01T02:00:00+0200\"", noon),
    ] {
        assert_eq!(at(format, zone, time), format!("m[] v=1.0 @{us}"), "{format} {zone} {time}");
    }
    for (format, time, reason) in [
        ("%Y-%m-%d %H:%M:%S", "\"1.6.2026\"", "is not a time of the form"),
        ("%Y-%m-%d %H:%M:%S", "1780272000", "is not a time"),
        ("unix", "\"2026-06-01\"", "is not a number of s"),
        ("RFC3339", "1780272000", "is a number, not a time"),
        ("unix", "9223372036854775807", "out of range"),
        ("", "true", "is not a time"),
    ] {
        assert!(at(format, "", time).contains(reason), "{format} {time}: {}", at(format, "", time));
    }
}

#[test]
fn lines_get_tags_from_topic_rule_and_user_properties_and_keep_their_own() {
    let lines = rule(&["t/+"], "influx", |o| {
        o.topic_parsing = named(&[("tags", "_/site")]);
        o.tags = named(&[("fleet", "f1")]);
        o.topic_tag = "topic".into();
        o.user_property_tags = texts(&["operator", "absent"]);
        o.influx_timestamp_precision = "ms".into();
    });
    assert!(lines.wants_user_properties() && !lines.is_plain_lines());
    let payload = b"m,site=own v=1 5\nbad\nm v=2i 6";
    let properties = [("operator", "ada"), ("else", "x")];
    let (rows, mapped) = map(&lines, "t/s1", payload, &properties);
    assert_eq!(
        rows,
        [
            "m[fleet=f1,operator=ada,site=own,topic=t/s1] v=1.0 @5000",
            "m[fleet=f1,operator=ada,site=s1,topic=t/s1] v=2i @6000"
        ]
    );
    assert_eq!(mapped.refused[0].part.as_deref(), Some(&b"bad"[..]));
    assert!(mapped.refused[0].reason.starts_with("line 2: "), "{mapped:?}");
    let (rows, mapped) = map(&lines, "t/s1", b"m v=1", &[("operator", "a"), ("operator", "b")]);
    assert!(rows.is_empty() && mapped.refused[0].reason.contains("is there twice, with two values"));
    assert!(rule(&["t"], "influx", |_| {}).is_plain_lines());
}

#[test]
fn tasmota_has_a_row_for_each_sensor_and_one_for_its_state() {
    let tasmota = rule(&["tele/#"], "tasmota", |_| {});
    let sensor = r#"{"Time":"2026-06-01T08:30:00","Switch1":"ON","AM2301":{"Temperature":21.5,"Humidity":55},
        "ENERGY":{"Total":1.25,"Power":[1,2]},"TempUnit":"C"}"#;
    let rows = [
        "tasmota_sensor[device=kitchen] Switch1=\"ON\" TempUnit=\"C\" @7",
        "tasmota_sensor[device=kitchen,sensor=AM2301] Temperature=21.5 Humidity=55.0 @7",
        "tasmota_sensor[device=kitchen,sensor=ENERGY] Total=1.25 Power=\"[1,2]\" @7",
    ];
    let (found, refused) = mapped(&tasmota, "tele/kitchen/SENSOR", sensor);
    assert_eq!((found.len(), refused.len()), (3, 0));
    for row in rows {
        assert!(found.contains(&row.to_owned()), "{row} is not in {found:?}");
    }
    check(
        &tasmota,
        "tele/house/lamp/STATE",
        r#"{"Time":"2026-06-01T08:30:00+02:00","UptimeSec":9,"POWER":"OFF","Wifi":{"RSSI":80}}"#,
        &["tasmota_state[device=house/lamp] UptimeSec=9.0 POWER=\"OFF\" Wifi.RSSI=80.0 @1780295400000000"],
    );
    check(&tasmota, "tele/lamp/LWT", "Offline", &["tasmota_lwt[device=lamp] online=false @7"]);
    refuse(&tasmota, "tele/lamp/LWT", "away", "neither Online nor Offline");
    refuse(&tasmota, "tele/lamp/STATE", "{\"Time\":\"soon\",\"a\":1}", "Time: \"soon\" is not a time");
    refuse(&tasmota, "tele/lamp/SENSOR", "{}", "there is no field in it");
    refuse(&tasmota, "tele/lamp/SENSOR", "{\"Time\":\"2026-06-01T08:30:00Z\"}", "there is no field in it");
    refuse(&tasmota, "tele/SENSOR", "{\"a\":1}", "the topic names no device");
    let (rows, refused) = mapped(&tasmota, "tele/lamp/SENSOR", r#"{"A":{"v":1},"B":{"Time":2}}"#);
    assert_eq!(rows, ["tasmota_sensor[device=lamp,sensor=A] v=1.0 @7"]);
    assert_eq!(refused, ["B: the field name \"Time\" is reserved <{\"B\":{\"Time\":2}}>"]);

    let local = rule(&["+/+/tele/+"], "tasmota", |o| {
        o.json_timezone = "+02:00".into();
        o.name_override = "plug".into();
        o.topic_parsing = named(&[("tags", "site/_/_/_")]);
    });
    check(
        &local,
        "s1/lamp/tele/STATE",
        r#"{"Time":"2026-06-01T02:00:00","a":1}"#,
        &["plug_state[device=s1/lamp,site=s1] a=1.0 @1780272000000000"],
    );
}

#[test]
fn zigbee2mqtt_has_a_row_for_each_message_of_a_device() {
    let zigbee = rule(&["zigbee2mqtt/#"], "zigbee2mqtt", |_| {});
    check(
        &zigbee,
        "zigbee2mqtt/living room/plug",
        r#"{"state":"ON","linkquality":120,"update":{"state":"idle"},"last_seen":"2026-06-01T02:00:00+02:00"}"#,
        &[
            "zigbee2mqtt[device=living room/plug] state=\"ON\" linkquality=120.0 update.state=\"idle\" @1780272000000000",
        ],
    );
    check(
        &zigbee,
        "zigbee2mqtt/x",
        r#"{"a":1,"last_seen":1780272000000}"#,
        &["zigbee2mqtt[device=x] a=1.0 @1780272000000000"],
    );
    check(
        &zigbee,
        "zigbee2mqtt/x",
        r#"{"a":1,"last_seen":"2026-06-01T02:00:00"}"#,
        &["zigbee2mqtt[device=x] a=1.0 @7"],
    );
    check(&zigbee, "zigbee2mqtt/x", r#"{"a":1,"last_seen":null}"#, &["zigbee2mqtt[device=x] a=1.0 @7"]);
    for payload in ["offline", r#"{"state":"offline"}"#] {
        check(&zigbee, "zigbee2mqtt/a/b/availability", payload, &["zigbee2mqtt[device=a/b] available=false @7"]);
    }
    for topic in ["zigbee2mqtt/bridge/state", "zigbee2mqtt/bridge/log/x", "zigbee2mqtt/x/set", "zigbee2mqtt/x/get"] {
        let (rows, mapped) = map(&zigbee, topic, b"{\"a\":1}", &[]);
        assert!(rows.is_empty() && mapped.ignored && mapped.refused.is_empty(), "{topic}");
    }
    refuse(&zigbee, "zigbee2mqtt/x", "21", "not a JSON object");
    refuse(&zigbee, "zigbee2mqtt", "{\"a\":1}", "the topic names no device");
    refuse(&zigbee, "zigbee2mqtt/a/availability", "maybe", "neither online nor offline");
}

#[test]
fn the_json_of_iotdb_is_read_in_its_three_forms() {
    let iotdb = rule(&["root/#"], "iotdb", |_| {});
    check(
        &iotdb,
        "root/x",
        r#"{"device":"root.sg.d1","timestamp":1780272000000,"measurements":["s1","s2"],"values":[0.5,null]}"#,
        &["root.sg[device=d1] s1=0.5 @1780272000000000"],
    );
    let (rows, refused) = mapped(
        &iotdb,
        "root/x",
        r#"[{"device":"root.sg.d1","timestamps":[1,2],"measurements":["a","b"],"values":[[1,true],[2]]},
            {"device":"d2","timestamp":3,"measurements":["a"],"values":["x"]},{"device":"d3"},7]"#,
    );
    assert_eq!(rows, ["root.sg[device=d1] a=1.0 b=true @1000", "iotdb[device=d2] a=\"x\" @3000"]);
    assert_eq!(
        refused[0],
        "row 2: there are 2 measurements and 1 values \
         <{\"device\":\"root.sg.d1\",\"timestamp\":2,\"measurements\":[\"a\",\"b\"],\"values\":[2]}>"
    );
    assert!(refused.len() == 3 && refused[1].starts_with("not of the form of IoTDB"), "{refused:?}");
    let one_table = rule(&["root/#"], "iotdb", |o| {
        o.name_override = "m".into();
        o.json_time_format = "unix".into();
    });
    let payload = r#"{"device":"root.sg.d1","timestamp":5,"measurements":["a"],"values":[1]}"#;
    check(&one_table, "root", payload, &["m[device=root.sg.d1] a=1.0 @5000000"]);
    let empty = r#"{"device":"a.b","timestamps":[],"measurements":[],"values":[]}"#;
    refuse(&iotdb, "root", empty, "the list of timestamps is empty");
    refuse(&iotdb, "root", r#"{"device":"a.b","measurements":[],"values":[]}"#, "either timestamp or timestamps");
}

#[test]
fn the_first_rule_that_takes_a_topic_wins_and_one_may_leave_it_out() {
    let all = [
        options(&["a/skip/#"], "ignore", |_| {}),
        options(&["a/#", "b"], "value", |o| o.name_override = "first".into()),
        options(&["#"], "value", |o| {
            o.name = "rest".into();
            o.name_override = "rest".into();
        }),
    ];
    let rules = Rules::compile(&all).unwrap();
    let number = |topic: &str| rules.find(topic).map(|(number, _)| number);
    let found = ["a/skip/x", "a/x", "b", "c", "$SYS/x"].map(number);
    assert_eq!(found, [Some(0), Some(1), Some(1), Some(2), None]);
    assert!(rules.named("rest").is_some() && rules.named("").is_none());
    assert!(map(rules.get(0).unwrap(), "a/skip/x", b"?", &[]).1.ignored);
}

#[test]
fn rows_of_many_messages_are_one_batch_a_table_and_keep_their_numbers() {
    let rules =
        Rules::compile(&[options(&["+"], "json", |o| o.topic_parsing = named(&[("measurement", "table")]))]).unwrap();
    let mut rows = Rows::new("plant");
    for (topic, payload) in [("a", "{\"v\":1}"), ("b", "{\"v\":2}"), ("a", "[{\"v\":3},{\"w\":4}]"), ("b", "x")] {
        let message = Message { topic, payload: payload.as_bytes(), user_properties: &[], now_us: NOW };
        let _ = rules.get(0).unwrap().map(&message, &mut rows);
    }
    assert_eq!(rows.len(), 4);
    let batches = rows.finish();
    let shown: Vec<_> = batches.iter().map(|batch| (batch.table.to_string(), batch.lines.clone())).collect();
    assert_eq!(shown, [("plant.a".to_owned(), vec![1, 3, 4]), ("plant.b".to_owned(), vec![2])]);
}
