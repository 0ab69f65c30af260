//! What exporters of OpenTelemetry send, and what they are told.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::process::{Eden, post};

// One home for the messages: those that the decoder is tested with.
#[path = "../../../decode/tests/suite/otlp/messages.rs"]
mod messages;

use messages::{Scope, Value as Number, gauge, number, request};

const PATH: &str = "/v1/metrics";
const PROTOBUF: &[(&str, &str)] = &[("content-type", "application/x-protobuf")];
const JSON: &[(&str, &str)] = &[("content-type", "application/json; charset=utf-8")];

fn body(time_us: u64) -> Vec<u8> {
    let points = vec![
        number(Number::Double(21.5), time_us, &[("room", "kitchen")]),
        number(Number::Int(3), time_us, &[("room", "attic")]),
    ];
    request(&[("service.name", "s")], Scope::default(), vec![gauge("air.temperature", points)])
}

fn json_body(points: &Value) -> Vec<u8> {
    let metric = json!({"name": "air.temperature", "gauge": {"dataPoints": points}});
    json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}).to_string().into_bytes()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn points_are_rows_when_the_answer_comes_and_stay_after_a_kill() {
    let eden = Eden::start();
    let answer = eden.post(PATH, PROTOBUF, &body(1_000));
    assert_eq!((answer.status, &*answer.body), (200, ""));
    assert_eq!(answer.header("content-type"), Some("application/x-protobuf"));
    let zipped = [PROTOBUF, &[("content-encoding", "gzip")]].concat();
    assert_eq!(eden.post(PATH, &zipped, &gzip(&body(2_000))).status, 200);
    let points = json!([{"asDouble": 5.25, "timeUnixNano": "3000000", "attributes": []}]);
    let answer = eden.post(PATH, JSON, &json_body(&points));
    assert_eq!((answer.status, answer.json()), (200, json!({})));
    // Again, as after an answer that was lost.
    assert_eq!(eden.post(PATH, PROTOBUF, &body(1_000)).status, 200);
    assert_eq!(eden.post(&format!("{PATH}?db=plant"), PROTOBUF, &body(1_000)).status, 200);
    let eden = Eden::start_in(eden.kill(), &[]);
    let rows = eden.rows(r#"SELECT "service.name", room, value, time FROM "air.temperature" ORDER BY time, room"#);
    let expected = json!([
        ["s", "attic", 3.0, 1],
        ["s", "kitchen", 21.5, 1],
        ["s", "attic", 3.0, 2],
        ["s", "kitchen", 21.5, 2],
        [null, null, 5.25, 3]
    ]);
    assert_eq!(rows, expected);
    assert_eq!(eden.rows(r#"SELECT count(*) FROM plant."air.temperature""#), json!([[2]]));
}

#[test]
fn refused_points_are_a_partial_success_and_in_the_quarantine() {
    let eden = Eden::start();
    let points = json!([
        {"asDouble": 1.0, "timeUnixNano": "1000000"},
        {"timeUnixNano": "2000000"},
        {"asDouble": 3.0, "timeUnixNano": "4000000000000000000"},
    ]);
    let answer = eden.post(PATH, JSON, &json_body(&points));
    let partial = &answer.json()["partialSuccess"];
    assert_eq!((answer.status, &partial["rejectedDataPoints"]), (200, &json!("2")), "{answer:?}");
    let message = partial["errorMessage"].as_str().unwrap();
    assert!(message.contains("system.quarantine") && message.contains("the data point has no value"), "{message}");
    let answer = eden.post(PATH, PROTOBUF, &body(4_000_000_000_000_000));
    // Field 1 of the answer; in it field 1, which is 2, and field 2, a text.
    assert_eq!((answer.status, answer.body.starts_with('\n')), (200, true), "{answer:?}");
    assert!(answer.body.contains("\u{8}\u{2}\u{12}") && answer.body.contains("system.quarantine"), "{answer:?}");
    assert_eq!(eden.rows(r#"SELECT value FROM "air.temperature""#), json!([[1.0]]));
    let kept = eden.rows("SELECT payload, topic, is_whole FROM system.quarantine ORDER BY payload");
    let late = "air.temperature,room=kitchen,service.name=s value=21.5 4000000000000000\n\
                air.temperature,room=attic,service.name=s value=3i 4000000000000000";
    assert_eq!(
        kept,
        json!([
            ["air.temperature 2000", PATH, false],
            ["air.temperature value=3.0 4000000000000000", PATH, true],
            [late, PATH, true]
        ])
    );
    let metrics = eden.get("/metrics").body;
    for line in [
        "eden_ingest_samples_total 5",
        "eden_ingest_samples_refused_total 4",
        "eden_http_requests_total{endpoint=\"otlp_metrics\",status=\"200\"} 2",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} in {metrics}");
    }
}

#[test]
fn what_is_no_request_is_told_in_the_encoding_of_the_request() {
    let eden = Eden::start_with(&[("EDEN_HTTP_MAX_BODY_BYTES", "64KiB")]);
    let large = vec![0; 70_000];
    for (path, body, status, code, said) in [
        (PATH, &b"{\"resourceMetrics\":[1]}"[..], 400, 3, "\"resourceMetrics\" cannot be a number"),
        (PATH, b"", 400, 3, "the body is not what its type says: EOF"),
        ("/v1/metrics?db=system", b"{}", 400, 3, "server's own"),
        (PATH, &large, 413, 8, "larger than 64KiB"),
    ] {
        let answer = eden.post(path, JSON, body);
        assert_eq!((answer.status, &answer.json()["code"]), (status, &json!(code)), "{answer:?}");
        assert!(answer.json()["message"].as_str().unwrap().contains(said), "{answer:?}");
    }
    let answer = eden.post(PATH, PROTOBUF, b"hello");
    assert_eq!((answer.status, answer.header("content-type")), (400, Some("application/x-protobuf")));
    assert!(answer.body.starts_with("\u{8}\u{3}\u{12}") && answer.body.contains("byte "), "{answer:?}");
    assert_eq!(post(&eden.url, PATH, &[("content-type", "text/plain")], b"x").status, 415);
    let unknown = [PROTOBUF, &[("content-encoding", "br")]].concat();
    assert_eq!(eden.post(PATH, &unknown, b"x").status, 415);
    assert_eq!(eden.post(PATH, PROTOBUF, b"").status, 200);
    assert_eq!(eden.sql(r#"SELECT * FROM "air.temperature""#).status, 404);
}

#[test]
fn points_that_cannot_be_set_aside_are_to_be_sent_again() {
    let eden = Eden::start();
    std::fs::write(eden.data().join("quarantine"), "").unwrap();
    let points = json!([{"asDouble": 1.0, "timeUnixNano": "1000000"}, {"timeUnixNano": "2000000"}]);
    let answer = eden.post(PATH, JSON, &json_body(&points));
    assert_eq!((answer.status, &answer.json()["code"]), (503, &json!(14)));
    assert!(answer.header("retry-after").is_some());
}
