//! Hostile payloads: no panic, and what they become is bounded by them (P14).

use decode::mapping::{Message, Rows};
use model::{Rng, SplitMix64};

use super::sound::{check, check_lines, corpus};
use super::{rule, texts};
use crate::support::{pick, seeds};

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
