//! `POST /api/v3/write_lp`.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use crate::process::{Answer, Eden};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_good_write_answers_204_with_an_empty_body_and_is_there() {
    let eden = Eden::start();
    let answer = eden.write("m,site=x v=1.5,n=2i,ok=t,text=\"a b\" 1780272000000000\nm,site=y v=2 1780272001000000\n");
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    let uuid = answer.header("cluster-uuid").unwrap();
    assert!(uuid.len() == 36 && uuid.matches('-').count() == 4, "{uuid}");
    assert_eq!(
        eden.rows("SELECT site, v, n, ok, text, time FROM m ORDER BY time"),
        json!([["x", 1.5, 2, true, "a b", 1_780_272_000_000_i64], ["y", 2.0, null, null, null, 1_780_272_001_000_i64]])
    );
}

#[test]
fn bad_lines_are_named_in_order_and_the_good_ones_are_stored() {
    let eden = Eden::start();
    let answer = eden.write("m v=1 1\n# comment\nm v\nm v=\"text\" 2\n\nm v=3 3");
    assert_eq!(answer.status, 400);
    assert_eq!(answer.header("x-eden-refused"), Some("2"));
    let body = answer.json();
    assert_eq!(body.as_object().unwrap().keys().collect::<Vec<_>>(), ["error", "data"]);
    assert_eq!(body["error"], "partial write of line protocol occurred");
    let data = body["data"].as_array().unwrap();
    let keys = ["original_line", "line_number", "error_message"];
    assert_eq!(data[0].as_object().unwrap().keys().collect::<Vec<_>>(), keys);
    assert_eq!((&data[0]["original_line"], &data[0]["line_number"]), (&json!("m v"), &json!(3)));
    // Refused by the table's schema, not by the parser.
    assert_eq!((&data[1]["original_line"], &data[1]["line_number"]), (&json!("m v=\"text\" 2"), &json!(4)));
    assert!(data[1]["error_message"].as_str().unwrap().contains("float"), "{body}");
    assert_eq!(eden.rows("SELECT v FROM m ORDER BY time"), json!([[1.0], [3.0]]));
}

#[test]
fn at_most_a_hundred_lines_are_named_and_all_are_counted() {
    let eden = Eden::start();
    let answer = eden.write(&("bad\n".repeat(250) + "m v=1 1"));
    assert_eq!((answer.status, answer.header("x-eden-refused")), (400, Some("250")));
    assert_eq!(answer.json()["data"].as_array().unwrap().len(), 100);
    assert_eq!(eden.rows("SELECT count(*) FROM m"), json!([[1]]));
}

#[test]
fn without_partial_writes_a_bad_line_stores_nothing() {
    let eden = Eden::start();
    let answer = eden.post("/api/v3/write_lp?db=public&accept_partial=false", &[], b"m v=1 1\nbad");
    assert_eq!(answer.status, 400);
    let body = answer.json();
    assert_eq!(body["error"], "parsing failed for write_lp endpoint");
    assert_eq!((&body["data"]["original_line"], &body["data"]["line_number"]), (&json!("bad"), &json!(2)));
    assert_eq!(eden.sql("SELECT * FROM m").status, 404);
}

#[test]
fn an_absurd_time_is_refused_with_its_reason() {
    let eden = Eden::start();
    let answer = eden.post("/api/v3/write_lp?db=public&precision=second", &[], b"m v=1 99999999999");
    assert_eq!(answer.status, 400);
    let reason = answer.json()["data"][0]["error_message"].as_str().unwrap().to_owned();
    assert!(reason.contains("max_future") || reason.contains("future") || reason.contains("later"), "{reason}");
}

#[test]
fn compressed_bodies_are_read_whole() {
    let eden = Eden::start();
    let members = [gzip(b"m v=1 1\n"), gzip(b"m v=2 2\n")].concat();
    let path = "/api/v3/write_lp?db=public";
    assert_eq!(eden.post(path, &[("content-encoding", "gzip")], &members).status, 204);
    let frames = zstd::encode_all(&b"m v=3 3\n"[..], 3).unwrap();
    assert_eq!(eden.post(path, &[("content-encoding", "zstd")], &frames).status, 204);
    assert_eq!(eden.rows("SELECT v FROM m ORDER BY time"), json!([[1.0], [2.0], [3.0]]));
}

#[test]
fn bodies_that_cannot_be_taken_say_why() {
    let eden = Eden::start_with(&[("EDEN_HTTP_MAX_BODY_BYTES", "64KiB")]);
    let path = "/api/v3/write_lp?db=public";
    let big = "m v=1 1\n".repeat(20_000);
    let check = |answer: Answer, status: u16, said: &str| {
        assert_eq!(answer.status, status, "{answer:?}");
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(said), "{error}");
    };
    check(eden.post(path, &[], big.as_bytes()), 413, "larger than 64KiB");
    check(eden.post(path, &[("content-encoding", "gzip")], &gzip(big.as_bytes())), 413, "larger than 64KiB");
    let bomb = zstd::encode_all(big.as_bytes(), 3).unwrap();
    check(eden.post(path, &[("content-encoding", "zstd")], &bomb), 413, "larger than 64KiB");
    check(eden.post(path, &[("content-encoding", "br")], b"m v=1"), 415, "\"br\" is not supported");
    check(eden.post(path, &[("content-encoding", "gzip")], b"m v=1"), 400, "not gzip");
    check(eden.post("/api/v3/write_lp", &[], b"m v=1"), 400, "db is missing");
    check(eden.post("/api/v3/write_lp?db=a&precision=x", &[], b"m v=1"), 400, "precision");
    check(eden.post("/api/v3/write_lp?db=system", &[], b"m v=1"), 400, "server's own");
    // The connection and the server have survived all that.
    assert_eq!(eden.write("m v=1 1").status, 204);
    assert_eq!(eden.rows("SELECT count(*) FROM m"), json!([[1]]));
}

#[test]
fn databases_are_schemas_and_two_names_mean_public() {
    let eden = Eden::start();
    for db in ["doc", "iox", "public", "plant"] {
        let line = format!("m,db={db} v=1 1");
        assert_eq!(eden.post(&format!("/api/v3/write_lp?db={db}"), &[], line.as_bytes()).status, 204);
    }
    assert_eq!(eden.rows("SELECT count(*) FROM m"), json!([[3]]));
    assert_eq!(eden.rows("SELECT db FROM plant.m"), json!([["plant"]]));
}

#[test]
fn a_batch_that_its_agent_sends_again_is_not_stored_again_and_what_is_refused_is_set_aside() {
    let eden = Eden::start();
    let body = "# eden agent=pi-7 epoch=5 seq=3 precision=us\n\
                # eden gap first_seq=1 last_seq=2 readings=7 reason=outbox_full time=1780272000000000\n\
                m v=1 1780272000000000\nm v\nm v=\"text\" 1780272000000001\n";
    let answer = eden.write(body);
    assert_eq!((answer.status, answer.header("x-eden-refused")), (400, Some("2")));
    // The answer was lost, and somebody corrected the reading.
    assert_eq!(eden.write("m v=9 1780272000000000000").status, 204);
    assert_eq!(eden.write(body).status, 204);
    assert_eq!(eden.rows("SELECT v FROM m"), json!([[9.0]]));
    let row = "SELECT batches, readings, duplicates, gaps, missing FROM system.agents WHERE agent = 'pi-7'";
    assert_eq!(eden.rows(row), json!([["1", "1", "1", "1", "0"]]));
    let gap = "SELECT first_seq, last_seq, readings, reason FROM system.agent_gaps";
    assert_eq!(eden.rows(gap), json!([["1", "2", "7", "outbox_full"]]));
    let aside = "SELECT payload, topic FROM system.quarantine ORDER BY payload";
    let topic = "/api/v3/write_lp";
    assert_eq!(eden.rows(aside), json!([["m v", topic], ["m v=\"text\" 1780272000000001", topic]]));
    // Without partial writes nothing of a batch with a bad line is stored; it is set aside whole.
    let path = "/api/v3/write_lp?db=public&accept_partial=false";
    assert_eq!(eden.post(path, &[], body.replace("seq=3", "seq=4").as_bytes()).status, 400);
    let whole = "SELECT count(*) FROM system.quarantine WHERE payload LIKE '# eden agent=pi-7 epoch=5 seq=4%'";
    assert_eq!(eden.rows(whole), json!([[1]]));
}
