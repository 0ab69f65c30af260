//! Hostile payloads: no panic, and what they become is bounded by them (P14).

use decode::line_protocol::{Options, Precision, parse};
use decode::line_text::row_line;
use decode::mapping::{Message, REFUSED_MAX, Rows, Rule};
use model::{Rng, SplitMix64, TableBatch};

use super::{named, rule, texts};
use crate::support::{assert_sound, meaning, pick, seeds};

/// Rules of all formats, each with a topic and payloads that it takes.
fn corpus() -> Vec<(Rule, &'static str, Vec<&'static str>)> {
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

fn check(rule: &Rule, topic: &str, payload: &[u8]) -> Vec<TableBatch> {
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
fn check_lines(batches: &[TableBatch]) {
    let lines: Vec<Option<String>> =
        batches.iter().flat_map(|batch| (0..batch.len()).map(|row| row_line(batch, row))).collect();
    let Some(lines) = lines.into_iter().collect::<Option<Vec<String>>>() else { return };
    let options = Options { schema: "public", precision: Precision::Microsecond, now_us: 0, errors_max: 5 };
    let decoded = parse(lines.join("\n").as_bytes(), &options);
    assert!(decoded.errors.is_empty(), "{:?}", decoded.errors);
    assert_eq!(meaning(&decoded.batches), meaning(batches));
}

#[test]
fn mutated_payloads_neither_panic_nor_grow_and_what_is_stored_can_be_written_as_lines() {
    let corpus = corpus();
    let special = b"{}[]\",:\\/ .-+e019tn\x00\n\xc3\xa9\xff";
    let mut stored = 0;
    for seed in seeds(30_000) {
        let rng = SplitMix64::new(seed);
        let place = |below: usize| rng.below(below.max(1) as u64) as usize;
        let (rule, topic, payloads) = &corpus[place(corpus.len())];
        let mut payload = pick(&rng, payloads).as_bytes().to_vec();
        for _ in 0..place(6) {
            let at = place(payload.len());
            match place(6) {
                0 => payload[at] ^= 1 << place(8),
                1 => payload[at] = special[place(special.len())],
                2 => payload.insert(at, special[place(special.len())]),
                3 => drop(payload.remove(at)),
                4 => {
                    let piece = payload[at..(at + place(60)).min(payload.len())].to_vec();
                    let to = place(payload.len());
                    payload.splice(to..to, piece);
                }
                _ => payload.truncate(at + 1),
            }
            if payload.is_empty() {
                break;
            }
        }
        let outcome = std::panic::catch_unwind(|| {
            let batches = check(rule, topic, &payload);
            check_lines(&batches);
            batches.len()
        });
        assert!(outcome.is_ok(), "seed {seed}: {topic} {:?}", String::from_utf8_lossy(&payload));
        stored += outcome.unwrap_or_default().min(1);
    }
    assert!(stored > 5_000, "{stored} of them stored something");
}

#[test]
fn payloads_made_to_be_large_inside_are_not() {
    let million = 1_000_000;
    for (rule, topic, _) in &corpus() {
        for pattern in ["[", "{\"a\":", "[1,", "[[],", "{\"d\":[", "\"", "1", "{\"\":{}},", "\\", "m f=1\n"] {
            check(rule, topic, pattern.repeat(million / pattern.len()).as_bytes());
        }
    }
    let json = rule(&["a"], "json", |o| o.json_name_key = "n".into());
    let lists = [
        // Ever other fields, ever other tables, elements that are no objects, one long name above many.
        (0..50_000).map(|i| format!("{{\"n\":\"t\",\"f{i}\":1}}")).collect::<Vec<_>>(),
        (0..50_000).map(|i| format!("{{\"n\":\"t{i}\",\"v\":1}}")).collect(),
        vec!["1".to_owned(); 400_000],
        vec![format!("{{\"{}\":{{{}}}}}", "x".repeat(500_000), vec!["\"a\":1"; 80_000].join(","))],
    ];
    for list in lists {
        check(&json, "a", format!("[{}]", list.join(",")).as_bytes());
    }
    // Rows that would each have a long topic, a long property, a long device.
    let rows: Vec<String> = (0..20_000).map(|i| format!("{{\"n\":\"t\",\"k1\":\"{i}\",\"v\":1}}")).collect();
    let (value, ..) = &corpus()[0];
    assert!(check(value, &format!("s/a/{}", "x".repeat(60_000)), b"1").is_empty());
    let tagged = rule(&["j/+"], "json", |o| {
        o.name_override = "t".into();
        o.tag_keys = texts(&["k1"]);
        o.user_property_tags = texts(&["site"]);
    });
    let long = "x".repeat(60_000);
    let (lines, properties) = (rows.join("\n"), [("site", long.as_str())]);
    let message = Message { topic: "j/x", payload: lines.as_bytes(), user_properties: &properties, now_us: 0 };
    let mut none = Rows::new("public");
    assert!(tagged.map(&message, &mut none).refused[0].reason.starts_with("the user properties") && none.is_empty());
    let iotdb = rule(&["i"], "iotdb", |_| {});
    for (device, name) in [("d".repeat(400_000), "m".to_owned()), ("d".into(), "m".repeat(400_000))] {
        let times = vec!["1"; 20_000].join(",");
        let values = vec!["[1]"; 20_000].join(",");
        let payload = format!(
            "{{\"device\":\"{device}\",\"timestamps\":[{times}],\"measurements\":[\"{name}\"],\"values\":[{values}]}}"
        );
        assert!(check(&iotdb, "i", payload.as_bytes()).is_empty());
    }
    let wide: Vec<String> = (0..60_000).map(|i| format!("\"f{i}\":1")).collect();
    assert_eq!(check(&json, "a", format!("{{\"n\":\"t\",{}}}", wide.join(",")).as_bytes())[0].fields.len(), 60_000);
}
