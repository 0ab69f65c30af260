//! Edge nodes of Sparkplug B, whose payloads are written here byte by byte, as the specification numbers their fields.

mod memory;

use std::time::Duration;

use decode::mapping::{Message, Rows, Rule, RuleOptions};
use decode::sparkplug::{Command, Host};
use model::{Rng, SplitMix64};

use crate::support::{assert_sound, readings, seeds};

const NOW_US: i64 = 9_000_000;

fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn number(field: u64, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    varint(field << 3, &mut out);
    varint(value, &mut out);
    out
}

fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint(field << 3 | 2, &mut out);
    varint(value.len() as u64, &mut out);
    out.extend(value);
    out
}

fn float(value: f32) -> Vec<u8> {
    let mut out = vec![12 << 3 | 5];
    out.extend(value.to_le_bytes());
    out
}

fn double(value: f64) -> Vec<u8> {
    let mut out = vec![13 << 3 | 1];
    out.extend(value.to_le_bytes());
    out
}

/// A metric: name, alias, datatype, and the field with its value.
fn metric(name: Option<&str>, alias: Option<u64>, datatype: Option<u64>, value: Vec<u8>) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(name.map(|name| bytes(1, name.as_bytes())).unwrap_or_default());
    out.extend(alias.map(|alias| number(2, alias)).unwrap_or_default());
    out.extend(datatype.map(|datatype| number(4, datatype)).unwrap_or_default());
    out.extend(value);
    out
}

/// A payload of the second `at_s`.
fn payload(at_s: u64, seq: Option<u64>, metrics: &[Vec<u8>]) -> Vec<u8> {
    let mut out = number(1, at_s * 1_000);
    for metric in metrics {
        out.extend(bytes(2, metric));
    }
    out.extend(seq.map(|seq| number(3, seq)).unwrap_or_default());
    out
}

fn rule(name_override: &str) -> Rule {
    Rule::compile(&RuleOptions {
        topics: vec!["spBv1.0/#".into()],
        data_format: "sparkplug_b".into(),
        name_override: name_override.into(),
        ..RuleOptions::default()
    })
    .unwrap()
}

struct Plant {
    rule: Rule,
    host: Host,
    now: Duration,
}

impl Plant {
    fn new() -> Self {
        Plant { rule: rule(""), host: Host::default(), now: Duration::from_secs(1000) }
    }

    /// What a message becomes: its rows, why something is refused, and what is asked of the node.
    fn hear(&mut self, topic: &str, payload: &[u8]) -> (Vec<String>, String, Option<Command>) {
        let mut rows = Rows::new("public");
        let topic = format!("spBv1.0/{topic}");
        let message = Message { topic: &topic, payload, user_properties: &[], now_us: NOW_US };
        let heard = self.rule.hear(&mut self.host, &message, self.now, &mut rows);
        let batches = rows.finish();
        batches.iter().for_each(assert_sound);
        let refused: Vec<String> = heard.mapped.refused.into_iter().map(|refused| refused.reason).collect();
        (readings(&batches), refused.join(" | "), heard.command)
    }

    /// All of it is stored, and nothing asked.
    fn stores(&mut self, topic: &str, payload: &[u8], rows: &[&str]) {
        let (found, refused, command) = self.hear(topic, payload);
        assert_eq!(
            (found.iter().map(String::as_str).collect::<Vec<_>>(), refused.as_str()),
            (rows.to_vec(), ""),
            "{topic}"
        );
        assert_eq!(command, None, "{topic}");
    }

    fn is_born(&mut self) {
        let bd_seq = metric(Some("bdSeq"), None, Some(8), number(11, 3));
        let rebirth = metric(Some("Node Control/Rebirth"), None, Some(11), number(14, 0));
        let speed = metric(Some("speed"), Some(1), Some(9), float(21.1));
        self.stores(
            "g/NBIRTH/n",
            &payload(1, Some(0), &[bd_seq, rebirth, speed]),
            &[
                "sparkplug_state[edge_node_id=n,group_id=g] online=true bd_seq=3i @1000000",
                "g[edge_node_id=n] speed=21.1 @1000000",
            ],
        );
        let force = metric(Some("force/x"), Some(2), Some(3), number(10, u64::from(-5_i32 as u32)));
        self.stores(
            "g/DBIRTH/n/d",
            &payload(2, Some(1), &[force]),
            &[
                "sparkplug_state[device_id=d,edge_node_id=n,group_id=g] online=true @2000000",
                "g[device_id=d,edge_node_id=n] force/x=-5i @2000000",
            ],
        );
    }
}

fn by_alias(alias: u64, value: Vec<u8>) -> Vec<u8> {
    metric(None, Some(alias), None, value)
}

#[test]
fn aliases_mean_what_the_birth_said_and_times_are_those_of_metrics() {
    let mut plant = Plant::new();
    plant.is_born();
    let mut late = by_alias(1, float(7.5));
    late.extend(number(3, 500));
    late.extend(number(5, 1));
    plant.stores(
        "g/NDATA/n",
        &payload(3, Some(2), &[by_alias(1, float(22.25)), late]),
        &["g[edge_node_id=n] speed=7.5 @500000", "g[edge_node_id=n] speed=22.25 @3000000"],
    );
    plant.stores(
        "g/DDATA/n/d",
        &payload(4, Some(3), &[by_alias(2, number(10, 9))]),
        &["g[device_id=d,edge_node_id=n] force/x=9i @4000000"],
    );
    // Null is no value.
    plant.stores("g/DDATA/n/d", &payload(4, Some(4), &[by_alias(2, number(7, 1))]), &[]);
    plant.stores(
        "g/DDEATH/n/d",
        &payload(5, Some(5), &[]),
        &["sparkplug_state[device_id=d,edge_node_id=n,group_id=g] online=false @5000000"],
    );
}

#[test]
fn the_sequence_wraps_and_a_gap_asks_for_a_rebirth_once_a_minute() {
    let mut plant = Plant::new();
    plant.is_born();
    for seq in (2..=255).chain(0..3) {
        plant.stores(
            "g/NDATA/n",
            &payload(3, Some(seq), &[by_alias(1, float(1.0))]),
            &["g[edge_node_id=n] speed=1.0 @3000000"],
        );
    }
    // Number 3 is lost. Its neighbour may use an alias that a lost birth declared anew; a name is a name.
    let named = metric(Some("speed"), None, Some(9), float(2.0));
    let (rows, refused, command) = plant.hear("g/NDATA/n", &payload(4, Some(4), &[by_alias(1, float(3.0)), named]));
    assert_eq!(rows, ["g[edge_node_id=n] speed=2.0 @4000000"]);
    assert_eq!(refused, "1 metrics have aliases that no birth since declares, and no names");
    let command = command.expect("a rebirth is asked for");
    assert_eq!(command.topic, "spBv1.0/g/NCMD/n");
    let mut asked = metric(Some("Node Control/Rebirth"), None, None, number(3, 9_000));
    asked.extend(number(4, 11));
    asked.extend(number(14, 1));
    let mut wanted = number(1, 9_000);
    wanted.extend(bytes(2, &asked));
    assert_eq!(command.payload, wanted);

    for (seconds, is_asked) in [(59, false), (1, true), (30, false)] {
        plant.now += Duration::from_secs(seconds);
        let (rows, _, command) = plant.hear("g/NDATA/n", &payload(5, Some(5), &[by_alias(1, float(3.0))]));
        assert_eq!((rows.len(), command.is_some()), (0, is_asked), "after {seconds} s more");
    }
    // Another node is asked for itself.
    assert!(plant.hear("g/NDATA/other", &payload(5, Some(5), &[])).2.is_some());
    plant.is_born();
    plant.stores(
        "g/NDATA/n",
        &payload(6, Some(2), &[by_alias(1, float(4.0))]),
        &["g[edge_node_id=n] speed=4.0 @6000000"],
    );
}

#[test]
fn a_host_that_starts_anew_knows_no_alias_and_asks() {
    let mut plant = Plant::new();
    plant.is_born();
    plant.host = Host::default();
    let (rows, refused, command) = plant.hear("g/DDATA/n/d", &payload(3, Some(2), &[by_alias(2, number(10, 9))]));
    assert!(rows.is_empty() && refused.contains("aliases that no birth") && command.is_some());
    // A birth of a device alone does not say what was before it.
    let force = metric(Some("force/x"), Some(2), Some(3), number(10, 5));
    let (rows, refused, command) = plant.hear("g/DBIRTH/n/d", &payload(4, Some(3), &[force]));
    assert_eq!((rows.len(), refused.as_str(), command), (2, "", None), "asked a moment ago");
    assert!(plant.hear("g/DDATA/n/d", &payload(5, Some(4), &[by_alias(2, number(10, 9))])).0.is_empty());
}

#[test]
fn a_death_is_of_its_birth_and_takes_the_devices_with_it() {
    let mut plant = Plant::new();
    plant.is_born();
    let will = |bd_seq: u64| payload(0, None, &[metric(Some("bdSeq"), None, Some(8), number(11, bd_seq))]);
    plant.stores("g/NDEATH/n", &will(2), &[]);
    plant.stores(
        "g/NDATA/n",
        &payload(3, Some(2), &[by_alias(1, float(1.0))]),
        &["g[edge_node_id=n] speed=1.0 @3000000"],
    );
    plant.stores(
        "g/NDEATH/n",
        &will(3),
        &[
            "sparkplug_state[device_id=d,edge_node_id=n,group_id=g] online=false @9000000",
            "sparkplug_state[edge_node_id=n,group_id=g] online=false bd_seq=3i @9000000",
        ],
    );
    assert!(plant.hear("g/NDATA/n", &payload(3, Some(3), &[by_alias(1, float(1.0))])).2.is_some());
}

#[test]
fn values_have_the_types_of_their_metrics() {
    let mut plant = Plant::new();
    let mut cases: Vec<(u64, Vec<u8>, Option<&str>)> = vec![
        (1, number(10, u64::from(-1_i32 as u32)), Some("-1i")),
        (1, number(10, 255), Some("-1i")),
        (2, number(10, 65_535), Some("-1i")),
        (3, number(10, 4_294_967_295), Some("-1i")),
        (4, number(11, u64::MAX), Some("-1i")),
        (5, number(10, 255), Some("255i")),
        (7, number(11, 4_294_967_295), Some("4294967295i")),
        (8, number(11, u64::MAX), Some("18446744073709551615u")),
        (9, float(0.1), Some("0.1")),
        (10, double(0.1), Some("0.1")),
        (11, number(14, 1), Some("true")),
        (12, bytes(15, "ü".as_bytes()), Some("\"ü\"")),
        (13, number(11, 1_780_272_000_000), Some("1780272000000i")),
        (10, double(f64::NAN), None),
        (9, number(14, 1), None),
        (17, bytes(16, b"x"), None),
        (22, bytes(16, b"x"), None),
        (0, number(10, 1), None),
    ];
    let inner = [
        metric(Some("current"), None, Some(10), double(3.5)),
        metric(Some("deep"), None, Some(19), bytes(18, &bytes(2, &metric(Some("on"), None, Some(11), number(14, 1))))),
    ];
    let template: Vec<u8> = inner.iter().flat_map(|metric| bytes(2, metric)).collect();
    cases.push((19, bytes(18, &template), Some("3.5 m.deep.on=true")));
    for (datatype, value, shown) in cases {
        let birth = payload(1, Some(0), &[metric(Some("m"), None, Some(datatype), value)]);
        let (rows, refused, _) = plant.hear("g/NBIRTH/n", &birth);
        match shown {
            Some(shown) => {
                let name = if datatype == 19 { "m.current" } else { "m" };
                assert_eq!(
                    (rows[1].as_str(), refused.as_str()),
                    (&*format!("g[edge_node_id=n] {name}={shown} @1000000"), "")
                );
            }
            None => assert!(rows.len() == 1 && refused.starts_with("metric \"m\": "), "{datatype}: {rows:?} {refused}"),
        }
    }
    // One that cannot be stored hurts no other.
    let metrics = ["a", "time", "b"].map(|name| metric(Some(name), None, Some(11), number(14, 1)));
    let (rows, refused, _) = plant.hear("g/NBIRTH/n", &payload(1, Some(0), &metrics));
    assert_eq!(rows[1], "g[edge_node_id=n] a=true b=true @1000000");
    assert_eq!(refused, "the metric name \"time\" is reserved");
}

#[test]
fn topics_of_hosts_and_commands_store_nothing_and_others_are_refused() {
    let mut plant = Plant::new();
    for topic in ["STATE/scada", "g/NCMD/n", "g/DCMD/n/d"] {
        plant.stores(topic, b"{\"online\":true}", &[]);
    }
    for topic in ["g", "g/NDATA", "g/NDATA/n/d", "g/DDATA/n", "g/XDATA/n", "g/DDATA/n/d/e", "/NDATA/n"] {
        let (rows, refused, command) = plant.hear(topic, &payload(1, Some(0), &[]));
        assert!(rows.is_empty() && !refused.is_empty() && command.is_none(), "{topic}");
    }
    assert!(plant.hear("g/NDATA/n", b"\xff\xff").1.contains("it is no payload of Sparkplug B"));
    let one_table = rule("plant");
    let mut rows = Rows::new("public");
    let birth = payload(1, Some(0), &[metric(Some("m"), None, Some(11), number(14, 1))]);
    let message = Message { topic: "spBv1.0/g/NBIRTH/n", payload: &birth, user_properties: &[], now_us: 0 };
    assert!(one_table.map(&message, &mut rows).refused.is_empty() && one_table.has_state());
    let shown = readings(&rows.finish());
    assert!(shown.contains(&"plant[edge_node_id=n,group_id=g] m=true @1000000".to_owned()), "{shown:?}");
    assert!(shown.iter().any(|row| row.starts_with("plant_state[")), "{shown:?}");
}

/// No panic, and rows bounded by the bytes (P14).
#[test]
fn mutated_payloads_neither_panic_nor_grow() {
    let template = bytes(2, &metric(Some("t"), None, Some(11), number(14, 1)));
    let metrics = [
        metric(Some("a"), Some(1), Some(9), float(1.5)),
        metric(Some("b"), Some(2), Some(12), bytes(15, b"text")),
        metric(Some("c"), Some(3), Some(19), bytes(18, &template)),
        metric(Some("bdSeq"), None, Some(8), number(11, 1)),
    ];
    let birth = payload(1, Some(0), &metrics);
    let data = payload(
        2,
        Some(1),
        &[by_alias(1, float(2.5)), by_alias(2, bytes(15, b"x")), by_alias(3, bytes(18, &template))],
    );
    let mut stored = 0;
    for seed in seeds(5_000) {
        let rng = SplitMix64::new(seed);
        let mut plant = Plant::new();
        for _ in 0..4 {
            let topic = ["g/NBIRTH/n", "g/NDATA/n", "g/DBIRTH/n/d", "g/DDATA/n/d", "g/NDEATH/n"][rng.below(5) as usize];
            let mut bytes = if topic.contains("BIRTH") { birth.clone() } else { data.clone() };
            for _ in 0..rng.below(4) {
                let at = rng.below(bytes.len() as u64) as usize;
                match rng.below(4) {
                    0 => bytes[at] ^= 1 << rng.below(8),
                    1 => bytes.insert(at, rng.next_u64() as u8),
                    2 => bytes.truncate(at + 1),
                    _ => {
                        let piece = bytes[at..].to_vec();
                        bytes.splice(at..at, piece);
                    }
                }
            }
            let heard = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| plant.hear(topic, &bytes)));
            let Ok((rows, refused, _)) = heard else { panic!("seed {seed}: {topic} {bytes:02x?}") };
            assert!(rows.len() <= 2 + bytes.len() && refused.len() < 1_000, "seed {seed}");
            stored += rows.len();
        }
    }
    assert!(stored > 5_000, "{stored} rows");
    let many = [2 << 3 | 2, 0].repeat(200_000);
    let (rows, refused, _) = Plant::new().hear("g/NBIRTH/n", &many);
    assert!(rows.is_empty() && refused.contains("it has 200000 metrics; at most 50000"), "{refused}");
}
