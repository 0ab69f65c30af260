//! What is counted of the rows that come in: nothing disappears between what was received and what became of it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, TimestampMillisecondArray};
use faults::Operation;
use ingest_server::config::{MqttRule, PartialWrites};
use model::{Rng, SplitMix64};
use serde_json::{Value, json};

use crate::mqtt::Setup;
use crate::process::{Answer, get, post};
use crate::{arrow as streams, prometheus};

const SOURCES: [&str; 11] = [
    "write_lp",
    "write_v2",
    "write_v1",
    "prometheus_write",
    "otlp_metrics",
    "arrow",
    "json",
    "mqtt",
    "broker",
    "quarantine_replay",
    "copy",
];
const RESULTS: [&str; 4] = ["stored", "duplicate", "quarantined", "refused"];
/// Beyond what any table takes, in milliseconds.
const LATE_MS: i64 = 4_000_000_000_000;

/// Received, then [`RESULTS`].
type Counts = [u64; 5];

/// Rows of one body.
struct Mix {
    source: &'static str,
    /// Those that can be stored, in milliseconds.
    good: Vec<i64>,
    /// How many cannot be read.
    bad: u64,
    /// How many the table does not take.
    unfit: u64,
}

impl Mix {
    fn rows(&self) -> u64 {
        self.good.len() as u64 + self.bad + self.unfit
    }

    /// As lines whose times are in nanoseconds.
    fn lines(&self) -> String {
        let Mix { source, good, bad, unfit } = self;
        let mut lines: Vec<String> = good.iter().map(|ms| format!("t_{source} v=1 {ms}000000")).collect();
        lines.extend((0..*bad).map(|i| format!("t_{source} v {i}")));
        lines.extend((0..*unfit).map(|i| format!("t_{source} v=\"text\" {i}000")));
        lines.join("\n")
    }

    fn send(&self, setup: &Setup) -> Answer {
        let send = |path: &str, headers: &[(&str, &str)], body: &[u8]| post(&setup.url, path, headers, body);
        let late = vec![LATE_MS; self.unfit as usize];
        match self.source {
            "write_lp" => send("/api/v3/write_lp?db=public&precision=nanosecond", &[], self.lines().as_bytes()),
            "write_v2" => send("/api/v2/write?bucket=public", &[], self.lines().as_bytes()),
            "write_v1" => send("/write?db=public", &[], self.lines().as_bytes()),
            "prometheus_write" => {
                let fitting: Vec<(f64, i64)> = self.good.iter().chain(&late).map(|ms| (1.0, *ms)).collect();
                let nameless: Vec<(f64, i64)> = (0..self.bad as i64).map(|ms| (1.0, ms)).collect();
                prometheus::post(&setup.url, &[("t_prometheus_write", &fitting), ("", &nameless)])
            }
            "otlp_metrics" => {
                let point = |ms: &i64| json!({"asDouble": 1.0, "timeUnixNano": format!("{ms}000000")});
                let mut points: Vec<Value> = self.good.iter().chain(&late).map(point).collect();
                points.extend((0..self.bad).map(|i| json!({ "timeUnixNano": i.to_string() })));
                let metric = json!({"name": "t_otlp_metrics", "gauge": {"dataPoints": points}});
                let body = json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]});
                send("/v1/metrics", &[("content-type", "application/json")], body.to_string().as_bytes())
            }
            "arrow" => {
                let mut times: Vec<Option<i64>> = self.good.iter().chain(&late).map(|ms| Some(*ms)).collect();
                times.extend((0..self.bad).map(|_| None));
                let values: ArrayRef = Arc::new(Float64Array::from(vec![1.0; times.len()]));
                let times: ArrayRef = Arc::new(TimestampMillisecondArray::from(times));
                let body = streams::stream(&[streams::batch(vec![("v", values), ("time", times)])]);
                send("/api/v1/arrow?table=t_arrow&tags=", &[], &body)
            }
            "json" => {
                let mut parts: Vec<Value> = self.good.iter().map(|ms| json!({"v": 1.0, "t": ms})).collect();
                parts.extend((0..self.bad).map(|i| json!({ "t": i })));
                parts.extend((0..self.unfit).map(|i| json!({"v": "text", "t": i})));
                let path = "/api/v1/json?table=t_json&json_time_key=t&json_time_format=unix_ms&json_string_fields=v";
                send(path, &[], json!(parts).to_string().as_bytes())
            }
            other => panic!("{other} takes no bodies"),
        }
    }
}

/// What the metrics say, which is what `system.sources` says.
fn counts(setup: &Setup) -> BTreeMap<String, Counts> {
    let page = get(&setup.url, "/metrics", &[]).body;
    let metric = |name: &str, labels: String| -> u64 {
        let line = page.lines().find_map(|line| line.strip_prefix(&format!("{name}{{{labels}}} ")));
        line.unwrap_or_else(|| panic!("{name} {labels} is missing")).parse().unwrap()
    };
    let of = |source: &str| {
        let mut counts = [metric("eden_ingest_rows_received_total", format!("source=\"{source}\"")), 0, 0, 0, 0];
        for (count, result) in counts[1..].iter_mut().zip(RESULTS) {
            *count = metric("eden_ingest_rows_total", format!("source=\"{source}\",result=\"{result}\""));
        }
        counts
    };
    let counts: BTreeMap<String, Counts> = SOURCES.iter().map(|source| (source.to_string(), of(source))).collect();
    let columns = "source, received, stored, duplicate, quarantined, refused";
    let shown = setup.rows(&format!("SELECT {columns} FROM system.sources ORDER BY source"));
    let expected: Vec<Value> = counts.iter().map(|(source, [a, b, c, d, e])| json!([source, a, b, c, d, e])).collect();
    assert_eq!(shown, json!(expected));
    counts
}

fn check_sums(counts: &BTreeMap<String, Counts>) {
    for (source, [received, results @ ..]) in counts {
        assert_eq!(*received, results.iter().sum::<u64>(), "{source}: {counts:?}");
    }
}

fn number(setup: &Setup, statement: &str) -> u64 {
    setup.rows(statement)[0][0].as_u64().unwrap()
}

fn start() -> Setup {
    let rule = MqttRule {
        topics: vec!["j/#".into()],
        data_format: "json".into(),
        name_override: "t_mqtt".into(),
        ..MqttRule::default()
    };
    Setup::start_with(|config| config.mqtt_rules = vec![rule])
}

/// Rows that came by one source, as the test knows it.
#[derive(Default)]
struct Sent {
    rows: u64,
    stored: u64,
    distinct: u64,
}

#[test]
fn what_became_of_rows_is_all_that_came_and_what_queries_find() {
    for seed in 1..=3 {
        println!("seed {seed}");
        send_and_count(&mut SplitMix64::new(seed));
    }
}

fn send_and_count(rng: &mut SplitMix64) {
    let setup = start();
    let mut sent: BTreeMap<&str, Sent> = BTreeMap::new();
    let mut next_ms = 1_780_000_000_000;
    let mut raw = setup.v311("c");
    let mut id = 0;
    // Tables first, so that their columns are of the type of the good rows.
    for round in 0..6 {
        for source in &SOURCES[..8] {
            let few = |rng: &mut SplitMix64| if round == 0 { 0 } else { rng.next_u64() % 4 };
            let (good, bad, unfit) = (1 + few(rng), few(rng), few(rng));
            let good: Vec<i64> = (next_ms..next_ms + good as i64).collect();
            next_ms += 10;
            let mix = Mix { source, good, bad, unfit };
            // Again, as after an answer that was lost.
            let times = 1 + u64::from(rng.next_u64().is_multiple_of(3));
            for _ in 0..times {
                if *source == "mqtt" {
                    id += 1;
                    raw.publish(1, id, &mix.lines());
                    raw.expect(&format!("40 02 {id:04x}"));
                } else {
                    let answer = mix.send(&setup);
                    let is_told = answer.status < 300 || answer.status == 400 && mix.bad + mix.unfit > 0;
                    assert!(is_told, "{source}: {answer:?}");
                }
            }
            let sent = sent.entry(source).or_default();
            sent.rows += times * mix.rows();
            sent.stored += times * mix.good.len() as u64;
            sent.distinct += mix.good.len() as u64;
        }
    }
    let found = counts(&setup);
    check_sums(&found);
    let mut merged = 0;
    for (source, sent) in sent.iter().filter(|(source, _)| **source != "broker") {
        let aside = sent.rows - sent.stored;
        assert_eq!(found[*source], [sent.rows, sent.stored, 0, aside, 0], "{source}");
        assert_eq!(number(&setup, &format!("SELECT count(*) FROM t_{source}")), sent.distinct, "{source}");
        merged += sent.stored - sent.distinct;
    }
    assert_eq!(setup.metric("eden_storage_rows_merged_total"), merged);
    // Samples of one reason are set aside together, a line each.
    let payloads = setup.rows("SELECT payload FROM system.quarantine");
    let lines = |payload: &Value| payload[0].as_str().unwrap().lines().count() as u64;
    let aside: u64 = payloads.as_array().unwrap().iter().map(lines).sum();
    assert_eq!(aside, sent.values().map(|sent| sent.rows - sent.stored).sum::<u64>());

    // What a replay reads is stored now, or stays.
    let unfit = number(&setup, "SELECT count(*) FROM system.quarantine WHERE payload LIKE 't_write_v1 v=\"text\"%'");
    assert_eq!(post(&setup.url, "/_sql", &[], br#"{"stmt":"DROP TABLE t_write_v1"}"#).status, 200);
    let replayed = post(&setup.url, "/api/v1/quarantine/replay", &[], b"{}").json();
    assert_eq!(replayed["lines"], json!(unfit), "{replayed}");
    let found = counts(&setup);
    check_sums(&found);
    let [received, stored, duplicate, quarantined, refused] = found["quarantine_replay"];
    assert_eq!((stored, duplicate, refused), (unfit, 0, 0));
    assert!(unfit > 0 && quarantined > 0, "{received} rows were replayed");
}

#[test]
fn what_is_neither_stored_nor_set_aside_is_refused() {
    let setup = start();
    let send = |path: &str, body: &str| post(&setup.url, path, &[], body.as_bytes()).status;
    assert_eq!(send("/api/v3/write_lp?db=public&accept_partial=false", "m v=1 1\nm v=2 2\nm v"), 400);
    assert_eq!(send("/api/v1/json?table=m&accept_partial=false", r#"[{"v":1},{"time":1}]"#), 400);
    assert_eq!(prometheus::post_raw(&setup.url, b"\x0a\xff").status, 400);
    // What nobody reads is no row, and no row is lost in a body without any.
    assert_eq!(send("/api/v3/write_lp?db=system", "m v=1"), 400);
    assert_eq!(send("/api/v3/write_lp?db=public", "# nothing"), 204);
    let found = counts(&setup);
    check_sums(&found);
    assert_eq!(found["write_lp"], [3, 0, 0, 0, 3]);
    assert_eq!(found["json"], [2, 0, 0, 0, 2]);
    assert_eq!(found["prometheus_write"], [1, 0, 0, 0, 1]);

    // By MQTT, whatever it is: what cannot be read counts as one.
    let mut raw = setup.v311("c");
    for (id, (topic, payload)) in [("j/x", "nonsense"), ("nobody/x", "?"), ("eden/v1/a/status", "?")].iter().enumerate()
    {
        raw.publish_to(topic, 1, id as u16 + 1, payload.as_bytes());
        raw.expect(&format!("40 02 {:04x}", id + 1));
    }
    raw.publish_to("j/x", 1, 9, br#"[{"v":1},{"v":2}]"#);
    raw.expect("40 02 0009");
    assert_eq!(counts(&setup)["mqtt"], [5, 2, 0, 3, 0]);
    assert_eq!(number(&setup, "SELECT count(*) FROM system.quarantine"), 3);
    // All of a large one is kept, in pieces.
    raw.publish_to("nobody/x", 1, 10, &[b'x'; 150_000]);
    raw.expect("40 02 000a");
    let large = "SELECT count(*), sum(bytes) FROM system.quarantine WHERE NOT is_whole";
    assert_eq!(setup.rows(large), json!([[3, "150000"]]));

    // After a failed sync nothing is acknowledged, and what is not known to be stored counts as refused.
    let lines = "m v=1 1\nm v=2 2";
    assert_eq!(send("/api/v3/write_lp?db=public", lines), 204);
    // One of these may be that of a segment which is prepared in the background.
    for n in 1..=2 {
        setup.faults.fail(Operation::Sync, n, |path| path.components().any(|part| part.as_os_str() == "wal"));
    }
    let mut stored = 2;
    while send("/api/v3/write_lp?db=public", lines) == 204 {
        stored += 2;
    }
    raw.publish(0, 0, "m v=1 1");
    raw.expect_closed();
    let found = counts(&setup);
    check_sums(&found);
    assert_eq!((found["write_lp"], found["mqtt"]), ([stored + 5, stored, 0, 0, 5], [7, 2, 0, 4, 1]));
}

#[test]
fn batches_that_are_durable_already_count_as_duplicates() {
    let setup = start();
    let body = "# eden agent=pi epoch=1 seq=1 precision=ms\nm v=1 1780272000000\nm v\nm v=2 1780272000001\n";
    let mut raw = setup.v311("pi");
    for id in [1, 2] {
        let answer = post(&setup.url, "/api/v3/write_lp?db=public", &[], body.as_bytes());
        assert_eq!(answer.status, if id == 1 { 400 } else { 204 }, "{answer:?}");
        raw.publish_to("eden/v1/pi/lp", 1, id, body.as_bytes());
        raw.expect(&format!("40 02 {id:04x}"));
    }
    let found = counts(&setup);
    check_sums(&found);
    assert_eq!((found["write_lp"], found["mqtt"]), ([6, 2, 3, 1, 0], [6, 0, 6, 0, 0]));
    assert_eq!(number(&setup, "SELECT count(*) FROM m"), 2);
}

#[test]
fn rows_of_clients_that_did_not_wait_are_counted_when_they_are_durable() {
    let setup = start();
    assert_eq!(post(&setup.url, "/api/v3/write_lp?db=public", &[], b"m v=1 1").status, 204);
    setup.faults.hold_syncs();
    let mut raw = setup.v311("c");
    raw.publish(0, 0, "m v=1 1000\nm v=2 2000");
    raw.send("e0 00");
    raw.expect_closed();
    let mut http = TcpStream::connect(setup.url.trim_start_matches("http://")).unwrap();
    http.write_all(b"POST /api/v3/write_lp?db=public HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nm v=3 300")
        .unwrap();
    let select =
        "SELECT received, stored, refused FROM system.sources WHERE source IN ('mqtt', 'write_lp') ORDER BY source";
    let wait_for = |expected: Value| while setup.rows(select) != expected {};
    wait_for(json!([[2, 0, 0], [2, 1, 0]]));
    drop(http);
    // The server has noticed when it shows only who asks.
    let others = "SELECT count(*) FROM system.connections";
    while setup.rows(others) != json!([[1]]) {}
    assert_eq!(setup.rows(select), json!([[2, 0, 0], [2, 1, 0]]), "nothing is durable");
    setup.faults.release_syncs();
    wait_for(json!([[2, 2, 0], [2, 2, 0]]));
    assert_eq!(number(&setup, "SELECT count(*) FROM m"), 4);
}

#[test]
fn samples_beyond_what_a_body_may_set_aside_are_refused() {
    let setup = Setup::start_with(|config| config.ingest.partial_writes = PartialWrites::Quarantine);
    // Each of 400 samples repeats a label of 8 KiB that the body says once.
    let label = "x".repeat(8 << 10);
    let late: Vec<(f64, i64)> = (0..400).map(|i| (1.0, LATE_MS + i)).collect();
    assert_eq!(prometheus::post_labelled(&setup.url, "m", &label, &late).status, 204);
    let found = counts(&setup);
    check_sums(&found);
    let [received, stored, _, quarantined, refused] = found["prometheus_write"];
    assert_eq!((received, stored), (400, 0));
    assert!(quarantined > 100 && refused > 100, "{found:?}");
}
