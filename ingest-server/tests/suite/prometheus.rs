//! What senders of Prometheus remote write send, and what they are told.

use serde_json::json;

use crate::process::{Answer, Eden};

// One home for the messages: those that the decoder is tested with.
#[path = "../../../decode/tests/suite/prometheus/messages.rs"]
mod messages;

use messages::{Histogram, TimeSeries, body, body2, series};

const PATH: &str = "/api/v1/prom/write";
const ONE: &[(&str, &str)] = &[
    ("content-type", "application/x-protobuf"),
    ("content-encoding", "snappy"),
    ("x-prometheus-remote-write-version", "0.1.0"),
];
const TWO: &[(&str, &str)] = &[
    ("content-type", "application/x-protobuf;proto=io.prometheus.write.v2.Request"),
    ("content-encoding", "snappy"),
    ("x-prometheus-remote-write-version", "2.0.0"),
];

fn packed(bytes: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(bytes).unwrap()
}

/// Sends samples of these names, which may be empty, to a server.
pub(crate) fn post(url: &str, samples: &[(&str, &[(f64, i64)])]) -> Answer {
    let labels = |name: &str| if name.is_empty() { ("job", "a".to_owned()) } else { ("__name__", name.to_owned()) };
    let all = samples.iter().map(|(name, samples)| {
        let (label, value) = labels(name);
        series(&[(label, &value)], samples)
    });
    post_raw(url, &body(all.collect()))
}

/// As [`post`], with a label.
pub(crate) fn post_labelled(url: &str, name: &str, label: &str, samples: &[(f64, i64)]) -> Answer {
    post_raw(url, &body(vec![series(&[("__name__", name), ("label", label)], samples)]))
}

/// Sends a message of version 1 to a server.
pub(crate) fn post_raw(url: &str, message: &[u8]) -> Answer {
    crate::process::post(url, PATH, ONE, &packed(message))
}

fn written(answer: &Answer) -> [Option<&str>; 3] {
    ["samples", "histograms", "exemplars"]
        .map(|what| answer.header(&format!("x-prometheus-remote-write-{what}-written")))
}

fn quarantined(eden: &Eden) -> serde_json::Value {
    eden.rows("SELECT payload, topic, database, precision, is_whole FROM system.quarantine ORDER BY payload")
}

/// A good sample, one whose metric has no name that a table may have, and a series with a good histogram and a bad one.
fn mixed() -> Vec<TimeSeries> {
    let mut histograms = series(&[("__name__", "h")], &[]);
    let good = Histogram { sum: 2.5, timestamp: 1_000, ..Histogram::default() };
    histograms.histograms = vec![good.clone(), Histogram { schema: 77, timestamp: 2_000, ..good }];
    vec![
        series(&[("__name__", "up"), ("job", "a")], &[(1.0, 1_000), (0.0, 2_000)]),
        series(&[("job", "a")], &[(3.0, 1_000)]),
        histograms,
    ]
}

#[test]
fn samples_are_rows_when_the_answer_comes_and_stay_after_a_kill() {
    let eden = Eden::start();
    let first = vec![series(&[("__name__", "up"), ("job", "a")], &[(1.0, 1_000), (0.0, 2_000)])];
    let answer = eden.post(PATH, ONE, &packed(&body(first.clone())));
    assert_eq!((answer.status, &*answer.body, written(&answer)), (204, "", [None; 3]));
    let answer = eden.post("/api/v1/write?db=plant", TWO, &packed(&body2(&first)));
    assert_eq!((answer.status, written(&answer)), (204, [Some("2"), Some("0"), Some("0")]));
    // Again, as after an answer that was lost.
    assert_eq!(eden.post(PATH, ONE, &packed(&body(first))).status, 204);
    assert_eq!(eden.post(PATH, ONE, &packed(b"")).status, 204);
    let eden = Eden::start_in(eden.kill(), &[]);
    let rows = json!([["a", 1.0, 1_000], ["a", 0.0, 2_000]]);
    for table in ["up", "plant.up"] {
        assert_eq!(eden.rows(&format!("SELECT job, value, time FROM {table} ORDER BY time")), rows, "{table}");
    }
    let metrics = eden.get("/metrics").body;
    assert!(metrics.contains("eden_ingest_samples_total 0"), "counters begin anew");
}

#[test]
fn bad_samples_are_set_aside_behind_a_success_and_counted() {
    let eden = Eden::start();
    for (headers, body, told) in
        [(ONE, body(mixed()), [None; 3]), (TWO, body2(&mixed()), [Some("2"), Some("1"), Some("0")])]
    {
        let answer = eden.post(PATH, headers, &packed(&body));
        assert_eq!((answer.status, answer.header("x-eden-quarantined")), (204, Some("2")), "{answer:?}");
        assert_eq!(written(&answer), told);
    }
    assert_eq!(eden.rows("SELECT count(*) FROM up"), json!([[2]]));
    assert_eq!(eden.rows("SELECT sum, count, time FROM h"), json!([[2.5, 0, 1_000]]));
    let refused = json!([
        ["h count=0i,sum=2.5 2000000", PATH, "public", "microsecond", false],
        ["h count=0i,sum=2.5 2000000", PATH, "public", "microsecond", false],
        ["{job=a}  value=3.0 1000000", PATH, "public", "microsecond", false],
        ["{job=a}  value=3.0 1000000", PATH, "public", "microsecond", false],
    ]);
    assert_eq!(quarantined(&eden), refused);
    let metrics = eden.get("/metrics").body;
    for line in [
        "eden_ingest_samples_total 10",
        "eden_ingest_samples_refused_total 4",
        "eden_http_requests_total{endpoint=\"prometheus_write\",status=\"204\"} 2",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} in {metrics}");
    }
}

#[test]
fn what_a_table_refuses_is_set_aside_as_lines_and_written_again_when_it_can_be() {
    let eden = Eden::start();
    assert_eq!(eden.sql("CREATE TABLE t (job TEXT, value BIGINT, PRIMARY KEY (job, time))").status, 200);
    assert_eq!(eden.sql("CREATE TABLE words (value TEXT, PRIMARY KEY (time))").status, 200);
    let late = 4_000_000_000_000_i64;
    let body = body(vec![
        series(&[("__name__", "words"), ("job", "a b")], &[(1.5, 1_000), (2.5, 2_000)]),
        series(&[("__name__", "up")], &[(1.0, late), (1.0, 1)]),
    ]);
    let answer = eden.post(PATH, ONE, &packed(&body));
    assert_eq!((answer.status, answer.header("x-eden-quarantined")), (204, Some("3")));
    assert_eq!(eden.rows("SELECT time FROM up"), json!([[1]]));
    let line = |text: &str| json!([text, PATH, "public", "microsecond", true]);
    let lines = json!([
        line("up value=1.0 4000000000000000"),
        line("words,job=a\\ b value=1.5 1000000\nwords,job=a\\ b value=2.5 2000000"),
    ]);
    assert_eq!(quarantined(&eden), lines);
    assert_eq!(eden.sql("DROP TABLE words").status, 200);
    let answer = eden.post("/api/v1/quarantine/replay", &[], b"{}").json();
    assert_eq!((&answer["replayed"], &answer["lines"]), (&json!(1), &json!(2)), "{answer}");
    assert_eq!(eden.rows("SELECT job, value FROM words ORDER BY time"), json!([["a b", 1.5], ["a b", 2.5]]));
    assert_eq!(quarantined(&eden), json!([line("up value=1.0 4000000000000000")]));
}

#[test]
fn told_to_refuse_it_answers_400_and_has_stored_the_good_ones() {
    let eden = Eden::start_with(&[("EDEN_INGEST_PARTIAL_WRITES", "refuse")]);
    let answer = eden.post(PATH, TWO, &packed(&body2(&mixed())));
    assert_eq!((answer.status, answer.header("x-eden-refused")), (400, Some("2")));
    assert_eq!(written(&answer), [Some("2"), Some("1"), Some("0")]);
    assert!(answer.body.starts_with("2 samples were refused and set aside, all others are stored: "), "{answer:?}");
    assert_eq!(eden.rows("SELECT count(*) FROM up"), json!([[2]]));
    assert_eq!(quarantined(&eden).as_array().unwrap().len(), 2);
}

#[test]
fn what_is_not_remote_write_is_told_apart() {
    let eden = Eden::start_with(&[("EDEN_HTTP_MAX_BODY_BYTES", "64KiB")]);
    let good = body(vec![series(&[("__name__", "up")], &[(1.0, 1)])]);
    let with = |name: &'static str, value: &'static str| -> Vec<(&str, &str)> {
        let kept = ONE.iter().filter(|(known, _)| *known != name).copied();
        kept.chain([(name, value)]).collect()
    };
    let check = |headers: &[(&str, &str)], body: &[u8], status: u16, said: &str| {
        let answer = eden.post(PATH, headers, body);
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(answer.json()["error"].as_str().unwrap().contains(said), "{answer:?}");
    };
    check(&with("content-type", "text/plain"), &packed(&good), 415, "content-type \"text/plain\" is not supported");
    check(
        &with("content-encoding", "gzip"),
        &packed(&good),
        415,
        "content-encoding \"gzip\" is not supported; use snappy",
    );
    check(&with("x-prometheus-remote-write-version", "2.0.0"), &packed(&good), 415, "is not that of the content-type");
    check(ONE, &good, 400, "the body is not snappy");
    check(ONE, &packed(b"hello"), 400, "the body is not what its type says: byte ");
    check(ONE, &packed(&[&good[..], &[0x0a, 0x7f]].concat()), 400, "longer than what it is in");
    check(ONE, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0], 413, "larger than 64KiB");
    check(ONE, &packed(&vec![0; 100_000]), 413, "larger than 64KiB");
    let answer = eden.post("/api/v1/prom/write?db=system", ONE, &packed(&good));
    assert!(answer.status == 400 && answer.body.contains("server's own"), "{answer:?}");
    // Nothing of all that is stored; the server has survived it.
    assert_eq!(eden.sql("SELECT * FROM up").status, 404);
    assert_eq!(eden.post(PATH, ONE, &packed(&good)).status, 204);
    assert_eq!(eden.get(PATH).status, 405);
    // What senders of 2.0 do not send again says that nothing was written.
    let answer = eden.post(PATH, TWO, &packed(b"hello"));
    assert_eq!((answer.status, written(&answer)), (400, [Some("0"); 3]));
}

#[test]
fn samples_that_cannot_be_set_aside_are_not_acknowledged() {
    let eden = Eden::start();
    std::fs::write(eden.data().join("quarantine"), "").unwrap();
    let answer = eden.post(PATH, ONE, &packed(&body(mixed())));
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.header("retry-after").is_some());
    std::fs::remove_file(eden.data().join("quarantine")).unwrap();
    assert_eq!(eden.post(PATH, ONE, &packed(&body(mixed()))).header("x-eden-quarantined"), Some("2"));
}

#[test]
fn a_body_of_several_portions_is_stored_whole() {
    let eden = Eden::start();
    // 300 series of 30 KB of labels are handed on in two portions.
    let long = "x".repeat(30_000);
    let many: Vec<_> = (0..300)
        .map(|n| series(&[("__name__", "wide"), ("long", &long), ("n", &n.to_string())], &[(f64::from(n), 1_000)]))
        .collect();
    let answer = eden.post(PATH, TWO, &packed(&body2(&many)));
    assert_eq!((answer.status, written(&answer)[0]), (204, Some("300")));
    assert_eq!(eden.rows("SELECT count(DISTINCT n), sum(value) FROM wide"), json!([[300, 44850.0]]));
}

#[test]
fn refused_samples_that_would_fill_the_quarantine_are_counted_instead() {
    let eden = Eden::start();
    let long = "x".repeat(4_000);
    let samples: Vec<_> = (0..10_000).map(|n| (1.0, n)).collect();
    let twice = series(&[("__name__", "m"), ("a", &long), ("a", "twice")], &samples);
    let body = packed(&body(vec![twice, series(&[("__name__", "up")], &[(1.0, 1)])]));
    let answer = eden.post(PATH, ONE, &body);
    assert_eq!((answer.status, answer.header("x-eden-quarantined")), (204, Some("10000")));
    assert_eq!(eden.rows("SELECT value FROM up"), json!([[1.0]]));
    let kept = eden.rows("SELECT sum(octet_length(payload)), count(*) FILTER (WHERE reason LIKE '% more samples of the body were refused, %') FROM system.quarantine");
    let bytes = kept[0][0].as_f64().unwrap();
    assert!((1e6..16e6).contains(&bytes) && kept[0][1] == json!(1), "{kept}");
}
