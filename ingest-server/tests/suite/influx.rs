//! What clients of InfluxDB 1 and 2 send: `/write`, `/api/v2/write`, `/query`, `/ping` and `/health`.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::process::{Answer, Eden, get, post, run};

const V1: &str = "/write?db=public&precision=s";
const V2: &str = "/api/v2/write?org=any&bucket=public&precision=s";
/// The second line cannot be parsed, the third is not of its field's type.
const MIXED: &[u8] = b"m v=1 1\nm v\nm v=\"text\" 2\nm v=3 3";

fn quarantined(eden: &Eden) -> Value {
    eden.rows("SELECT payload, topic, database, precision FROM system.quarantine ORDER BY time, id")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn good_lines_are_stored_and_bad_ones_set_aside_behind_a_success() {
    for (path, topic) in [(V1, "/write"), (V2, "/api/v2/write")] {
        let eden = Eden::start();
        let clean = eden.post(path, &[("authorization", "Token anything")], b"m v=0 0\n");
        assert_eq!((clean.status, &*clean.body, clean.header("x-eden-quarantined")), (204, "", None));
        let answer = eden.post(path, &[], MIXED);
        assert_eq!((answer.status, &*answer.body), (204, ""), "{topic}");
        assert_eq!(answer.header("x-eden-quarantined"), Some("2"));
        assert_eq!(eden.rows("SELECT v, time FROM m ORDER BY time"), json!([[0.0, 0], [1.0, 1000], [3.0, 3000]]));
        let entry = |line: &str| json!([line, topic, "public", "second"]);
        assert_eq!(quarantined(&eden), json!([entry("m v"), entry("m v=\"text\" 2")]));
        // Durable before the answer.
        let eden = Eden::start_in(eden.kill(), &[]);
        assert_eq!(quarantined(&eden).as_array().unwrap().len(), 2);
        assert_eq!(eden.rows("SELECT count(*) FROM m"), json!([[3]]));
    }
}

#[test]
fn what_was_set_aside_is_listed_and_replayed_when_the_table_can_take_it() {
    let eden = Eden::start();
    let create = "CREATE TABLE air (room TEXT, t DECIMAL(18,1), PRIMARY KEY (room, time))";
    assert_eq!(eden.sql(create).status, 200);
    let answer = eden.post("/write?precision=ms", &[], b"air,room=a t=21.5 1\nair,room=b t=21.55 2\n");
    assert_eq!((answer.status, answer.header("x-eden-quarantined")), (204, Some("1")));
    let answer = eden.post("/api/v2/write?precision=m", &[], b"air,room=c t=0.25 3");
    assert_eq!((answer.status, answer.header("x-eden-quarantined")), (204, Some("1")));
    let command = |args: &[&str]| run(eden.dir.path(), &[&["quarantine"], args, &["--url", &eden.url]].concat());
    let listed = command(&["list", "--format", "csv"]);
    assert!(listed.out.contains("air,room=b t=21.55 2") && listed.out.contains("room=c"), "{}", listed.out);
    assert_eq!(eden.sql("ALTER TABLE air ALTER COLUMN t SET DATA TYPE DECIMAL(18,2)").status, 200);
    let replayed = command(&["replay"]);
    assert!(replayed.out.starts_with("2 of 2 payloads replayed"), "{}{}", replayed.out, replayed.err);
    let rows = json!([["a", 21.5, 1], ["b", 21.55, 2], ["c", 0.25, 180_000]]);
    assert_eq!(eden.rows("SELECT room, t, time FROM air ORDER BY room"), rows);
    assert_eq!(quarantined(&eden), json!([]));
}

#[test]
fn told_to_refuse_version_1_stores_the_good_lines_and_answers_as_its_server() {
    let eden = Eden::start_with(&[("EDEN_INGEST_PARTIAL_WRITES", "refuse")]);
    let check = |body: &[u8], refused: &str, said: &str| {
        let answer = eden.post(V1, &[], body);
        assert_eq!((answer.status, answer.header("x-eden-refused")), (400, Some(refused)), "{answer:?}");
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(error.starts_with(said), "{error}");
        assert!(answer.header("x-eden-quarantined").is_none());
        error
    };
    let error = check(MIXED, "2", "partial write: unable to parse 'm v': ");
    assert!(error.contains("\nfield type conflict: ") && error.ends_with(" dropped=2"), "{error}");
    assert_eq!(eden.rows("SELECT v FROM m ORDER BY time"), json!([[1.0], [3.0]]));
    let error = check(b"m v", "1", "unable to parse 'm v': ");
    assert!(!error.contains("dropped"), "{error}");
    check(b"m v=\"x\" 1", "1", "partial write: field type conflict: ");
    check(b"m v=1 99999999999", "1", "unable to parse 'm v=1 99999999999': ");
    assert_eq!(quarantined(&eden).as_array().unwrap().len(), 5);
    assert_eq!(eden.post(V1, &[], b"m v=4\n").status, 204);
}

#[test]
fn told_to_refuse_version_2_stores_nothing_of_a_body_with_a_line_that_cannot_be_parsed() {
    let eden = Eden::start_with(&[("EDEN_INGEST_PARTIAL_WRITES", "refuse")]);
    let answer = eden.post(V2, &[], MIXED);
    assert_eq!((answer.status, answer.json()["code"].as_str()), (400, Some("invalid")));
    let message = answer.json()["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("unable to parse 'm v': "), "{message}");
    assert_eq!(eden.sql("SELECT * FROM m").status, 404);
    assert_eq!(quarantined(&eden), json!([]));
    // A conflict is found while storing.
    let answer = eden.post(V2, &[], b"m v=1 1\nm v=\"text\" 2");
    assert_eq!((answer.status, answer.header("x-eden-refused")), (422, Some("1")));
    assert_eq!(answer.json()["code"], "unprocessable entity");
    let message = answer.json()["message"].as_str().unwrap().to_owned();
    let said = "failure writing points to database: partial write: field type conflict: ";
    assert!(message.starts_with(said) && message.ends_with(" dropped=1"), "{message}");
    assert_eq!(eden.rows("SELECT v FROM m"), json!([[1.0]]));
}

#[test]
fn databases_policies_and_buckets_are_schemas_and_times_have_the_unit_asked_for() {
    let eden = Eden::start();
    for (nth, (path, time)) in [
        ("/write", "1780272000000000000"),
        ("/write?db=plant&precision=n&u=me&p=secret&consistency=all", "1780272000000000000"),
        ("/write?db=plant&rp=autogen&precision=u", "1780272000000000"),
        ("/write?db=plant&rp=week&precision=ms", "1780272000000"),
        ("/write?db=%22a%20b%22&precision=h", "494520"),
        ("/api/v2/write", "1780272000000000000"),
        ("/api/v2/write?bucket=plant/autogen&precision=us&org=", "1780272000000000"),
        ("/api/v2/write?bucket=plant%2Fweek&precision=m", "29671200"),
    ]
    .into_iter()
    .enumerate()
    {
        let line = format!("m,nth={nth} v=1 {time}");
        let answer = eden.post(path, &[("content-encoding", "gzip")], &gzip(line.as_bytes()));
        assert_eq!((answer.status, &*answer.body), (204, ""), "{path}");
    }
    for (table, expected) in [
        ("m", &["0", "5"][..]),
        ("plant.m", &["1", "2", "6"]),
        ("\"plant/week\".m", &["3", "7"]),
        ("\"\"\"a b\"\"\".m", &["4"]),
    ] {
        let rows: Vec<_> = expected.iter().map(|nth| json!([nth, 1_780_272_000_000_i64])).collect();
        assert_eq!(eden.rows(&format!("SELECT nth, time FROM {table} ORDER BY nth")), json!(rows), "{table}");
    }
}

#[test]
fn what_cannot_be_taken_is_said_in_the_shape_of_the_version() {
    let eden = Eden::start_with(&[("EDEN_HTTP_MAX_BODY_BYTES", "64KiB")]);
    let long = "x".repeat(5000);
    let big = "m v=1 1\n".repeat(20_000);
    let v1 = |answer: Answer, status: u16, said: &str| {
        assert_eq!(answer.status, status, "{answer:?}");
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(said) && error.len() < 1000, "{error}");
    };
    let v2 = |answer: Answer, status: u16, code: &str, said: &str| {
        assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)), "{answer:?}");
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(said) && message.len() < 1000, "{message}");
    };
    let line = b"m v=1 1";
    v1(eden.post("/write?db=system", &[], line), 400, "server's own");
    v1(eden.post("/write?db=%00", &[], line), 400, "db: ");
    v1(eden.post(&format!("/write?db={long}"), &[], line), 400, "db: ");
    v1(eden.post(&format!("/write?precision={long}"), &[], line), 400, "invalid precision");
    v1(eden.post("/write?rp=%0a", &[], line), 400, "db: ");
    v1(eden.post(V1, &[("content-encoding", "gzip")], line), 400, "not gzip");
    v1(eden.post(V1, &[("content-encoding", "br")], line), 415, "\"br\" is not supported");
    v1(eden.post(V1, &[], big.as_bytes()), 413, "larger than 64KiB");
    v2(eden.post("/api/v2/write?bucket=pg_catalog", &[], line), 400, "invalid", "server's own");
    v2(eden.post(&format!("/api/v2/write?bucket={long}/autogen"), &[], line), 400, "invalid", "bucket: ");
    v2(eden.post("/api/v2/write?precision=fortnight", &[], line), 400, "invalid", "use ns, us, ms, s, m or h");
    v2(eden.post(V2, &[("content-encoding", "gzip")], line), 400, "invalid", "not gzip");
    v2(eden.post(V2, &[], big.as_bytes()), 413, "request too large", "larger than 64KiB");
    v2(eden.post(V2, &[("content-encoding", "gzip")], &gzip(big.as_bytes())), 413, "request too large", "64KiB");
    // A name given twice, and one that is no UTF-8: neither is a way around the checks.
    assert_eq!(eden.post("/write?db=a&db=system", &[], line).status, 400);
    assert!(eden.post("/write?db=%ff%fe", &[], line).status < 500);
    assert_eq!(eden.get("/write").status, 405);
    assert_eq!(eden.post(V1, &[("origin", "http://elsewhere")], line).status, 403);
    // The server has survived all that.
    assert_eq!(eden.post(V1, &[], b"").status, 204);
    assert_eq!(eden.post(V2, &[], line).status, 204);
    assert_eq!(eden.rows("SELECT count(*) FROM m"), json!([[1]]));
}

#[test]
fn a_write_whose_bad_lines_cannot_be_set_aside_is_not_acknowledged() {
    let eden = Eden::start();
    // A file where the folder should be: the disk takes readings, and nothing of the quarantine.
    std::fs::write(eden.data().join("quarantine"), "").unwrap();
    for path in [V1, V2] {
        let answer = eden.post(path, &[], b"m v=1 1\nbad");
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.header("retry-after").is_some() && answer.header("x-eden-quarantined").is_none());
    }
    assert_eq!(eden.post(V2, &[], b"m v=1 1\nbad").json()["code"], "unavailable");
    std::fs::remove_file(eden.data().join("quarantine")).unwrap();
    let answer = eden.post(V1, &[], b"m v=1 1\nbad");
    assert_eq!((answer.status, answer.header("x-eden-quarantined")), (204, Some("1")));
    assert_eq!(eden.rows("SELECT v FROM m"), json!([[1.0]]));
    assert_eq!(quarantined(&eden), json!([["bad", "/write", "public", "second"]]));
}

#[test]
fn more_bad_lines_than_are_kept_apart_are_set_aside_with_their_body() {
    let eden = Eden::start();
    let answer = eden.post(V1, &[], ("m v=1 1\n".to_owned() + &"bad\n".repeat(5000)).as_bytes());
    assert_eq!((answer.status, answer.header("x-eden-quarantined")), (204, Some("5000")));
    assert_eq!(eden.rows("SELECT v FROM m"), json!([[1.0]]));
    assert_eq!(eden.rows("SELECT is_whole, bytes FROM system.quarantine"), json!([[false, "20008"]]));
}

#[test]
fn what_clients_ask_before_they_write_is_answered() {
    let eden = Eden::start();
    let done = json!({"results": [{"statement_id": 0}]});
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let created = eden.post("/query", &form, b"q=CREATE+DATABASE+%22telegraf%22");
    assert_eq!((created.status, created.json()), (200, done.clone()));
    assert_eq!(eden.get("/query?q=CREATE%20DATABASE%20x").json(), done);
    assert_eq!(eden.post(V1, &[], b"m v=1 1").status, 204);
    assert_eq!(eden.post("/write?db=telegraf", &[], b"m v=1 1").status, 204);
    let databases = eden.get("/query?q=SHOW+DATABASES").json();
    let names = &databases["results"][0]["series"][0];
    assert_eq!((&names["name"], &names["columns"]), (&json!("databases"), &json!(["name"])));
    assert_eq!(names["values"], json!([["public"], ["system"], ["telegraf"]]));
    let refused = eden.get("/query?q=CREATE+DATABASE+system").json();
    assert!(refused["results"][0]["error"].as_str().unwrap().contains("server's own"), "{refused}");
    for (answer, said) in [
        (eden.get("/query"), "missing required parameter \"q\""),
        (eden.post("/query", &form, b"\0\xff"), "missing required parameter \"q\""),
        (eden.get("/query?q=SELECT+*+FROM+m"), "send SQL to /api/v3/query_sql"),
    ] {
        assert_eq!(answer.status, 400);
        assert!(answer.json()["error"].as_str().unwrap().contains(said), "{answer:?}");
    }

    // Version 1 wants nothing in it, others want to read it.
    let ping = get(&eden.url, "/ping", &[("accept", "application/x-msgpack")]);
    assert_eq!((ping.status, &*ping.body), (204, ""));
    assert!(ping.header("x-influxdb-version").is_some());
    assert_eq!(get(&eden.url, "/ping?verbose=true", &[("accept", "text/plain")]).status, 200);
    let health = get(&eden.url, "/health", &[("accept", "application/json")]);
    assert_eq!((health.status, &health.json()["status"]), (200, &json!("pass")));
    let wrong = post(&eden.url, "/api/v3/write", &[], b"");
    assert_eq!(wrong.status, 404);
}
