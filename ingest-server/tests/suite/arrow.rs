//! Streams of Arrow's IPC format, and hostile ones.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, DictionaryArray, Float32Array, Float64Array, Int32Array, Int64Array,
    ListArray, RecordBatch, StringArray, StringViewArray, StructArray, TimestampMillisecondArray,
    TimestampNanosecondArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Fields, Int8Type, Int32Type, Schema};
use arrow::ipc::writer::StreamWriter;
use model::{Rng, SplitMix64};
use serde_json::json;

use crate::process::{Answer, Eden};

const MEDIA: &[(&str, &str)] = &[("content-type", "application/vnd.apache.arrow.stream")];

pub(crate) fn stream(batches: &[RecordBatch]) -> Vec<u8> {
    let mut writer = StreamWriter::try_new(Vec::new(), &batches[0].schema()).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

pub(crate) fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
}

fn times(ms: Vec<i64>) -> ArrayRef {
    Arc::new(TimestampMillisecondArray::from(ms))
}

fn texts(values: Vec<Option<&str>>) -> ArrayRef {
    Arc::new(StringArray::from(values))
}

fn floats(values: Vec<Option<f64>>) -> ArrayRef {
    Arc::new(Float64Array::from(values))
}

fn post(eden: &Eden, query: &str, batches: &[RecordBatch]) -> Answer {
    eden.post(&format!("/api/v1/arrow?{query}"), MEDIA, &stream(batches))
}

fn refused(answer: &Answer, status: u16, said: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(answer.json()["error"].as_str().unwrap().contains(said), "{said}: {answer:?}");
}

#[test]
fn columns_of_all_types_are_stored_as_they_are() {
    let eden = Eden::start();
    let dictionary: DictionaryArray<Int8Type> = vec![Some("a"), None, Some("a b")].into_iter().collect();
    let inner = Fields::from(vec![Field::new("l1", DataType::Float32, true)]);
    let motor = StructArray::new(
        inner,
        vec![Arc::new(Float32Array::from(vec![0.5, 1.5, 2.5]))],
        Some(vec![true, false, true].into()),
    );
    let one = batch(vec![
        ("site", Arc::new(dictionary)),
        ("n", Arc::new(Int32Array::from(vec![Some(-1), None, Some(3)]))),
        ("u", Arc::new(UInt64Array::from(vec![u64::MAX, 0, 1]))),
        ("d", Arc::new(Decimal128Array::from(vec![150, 25, -1]).with_precision_and_scale(10, 2).unwrap())),
        ("on", Arc::new(BooleanArray::from(vec![true, false, true]))),
        ("note", Arc::new(StringViewArray::from(vec![Some("ok, \"söft\"\n"), None, Some("")]))),
        ("at", Arc::new(TimestampNanosecondArray::from(vec![0, 1_000, -1]))),
        ("motor", Arc::new(motor)),
        ("eden_day", texts(vec![Some("x"); 3])),
        ("time", Arc::new(TimestampNanosecondArray::from(vec![-1, 1_000_000, 2_000_999]))),
    ]);
    let answer = post(&eden, "table=t", std::slice::from_ref(&one));
    assert_eq!((answer.status, &*answer.body), (204, ""), "{answer:?}");
    // Again, as after an answer that was lost, and to another schema, compressed.
    assert_eq!(post(&eden, "table=t&tags=site&db=public", std::slice::from_ref(&one)).status, 204);
    let zipped = zstd::encode_all(&*stream(&[one]), 1).unwrap();
    let headers = [MEDIA, &[("content-encoding", "zstd")]].concat();
    assert_eq!(eden.post("/api/v1/arrow?table=t&db=plant", &headers, &zipped).status, 204);
    let eden = Eden::start_in(eden.kill(), &[]);
    let select = "SELECT site, n, u, d, \"on\", note, at, \"motor.l1\", time FROM";
    let expected = json!([
        ["a", -1, "18446744073709551615", 1.5, true, "ok, \"söft\"\n", "1970-01-01T00:00:00", 0.5, -0.001],
        [null, null, "0", 0.25, false, null, "1970-01-01T00:00:00.000001", null, 1],
        ["a b", 3, "1", -0.01, true, "", "1969-12-31T23:59:59.999999", 2.5, 2]
    ]);
    for table in ["t", "plant.t"] {
        assert_eq!(eden.rows(&format!("{select} {table} ORDER BY time")), expected, "{table}");
    }
    let columns = eden.get("/api/v1/table?table=t").json();
    let kinds: HashMap<_, _> = columns["columns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| (c["name"].as_str().unwrap(), (c["kind"].as_str().unwrap(), c["type"].as_str().unwrap())))
        .collect();
    assert_eq!(
        (kinds["site"], kinds["n"], kinds["d"]),
        (("tag", "TEXT"), ("field", "BIGINT"), ("field", "DECIMAL(18,2)"))
    );
}

#[test]
fn tags_are_told_by_the_request_the_table_metadata_or_dictionaries() {
    let eden = Eden::start();
    let plain = || {
        batch(vec![
            ("site", texts(vec![Some("a"), Some("b")])),
            ("v", floats(vec![Some(1.0), Some(2.0)])),
            ("ts", times(vec![1, 1])),
        ])
    };
    refused(&post(&eden, "table=m&time=ts", &[plain()]), 400, "say with tags=a,b which columns");
    refused(&post(&eden, "table=m&time=ts&tags=room", &[plain()]), 400, "there is no column \"room\"");
    refused(&post(&eden, "table=m&tags=site", &[plain()]), 400, "there is no column \"time\"");
    refused(&post(&eden, "table=m&tags=site,v&time=ts", &[plain()]), 400, "column \"v\": a float cannot be a tag");
    assert_eq!(post(&eden, "table=m&tags=site&time=ts", &[plain()]).status, 204);
    // The table knows now.
    assert_eq!(post(&eden, "table=M&time=ts", &[plain()]).status, 204);
    refused(&post(&eden, "table=m&time=ts&tags=", &[plain()]), 400, "it is a tag of the table");
    assert_eq!(eden.rows("SELECT site, v, time FROM m ORDER BY site"), json!([["a", 1.0, 1], ["b", 2.0, 1]]));
    // Nothing but the time tells rows apart, if that is said.
    assert_eq!(post(&eden, "table=one&tags=&time=ts", &[plain()]).status, 204);
    assert_eq!(eden.rows("SELECT v FROM one"), json!([[2.0]]));
    let tag = |name: &str| {
        Field::new(name, DataType::Utf8, true)
            .with_metadata(HashMap::from([("eden.kind".to_owned(), "tag".to_owned())]))
    };
    let fields = vec![
        tag("site"),
        Field::new("v", DataType::Float64, true),
        Field::new("time", times(vec![]).data_type().clone(), true),
    ];
    let told = RecordBatch::try_new(Arc::new(Schema::new(fields)), plain().columns().to_vec()).unwrap();
    assert_eq!(post(&eden, "table=told", &[told]).status, 204);
    assert_eq!(eden.rows("SELECT count(*) FROM told"), json!([[2]]));
}

#[test]
fn types_that_do_not_fit_are_refused_with_their_column() {
    let eden = Eden::start();
    assert_eq!(eden.sql("CREATE TABLE t (site TEXT, v DOUBLE, n BIGINT, PRIMARY KEY (site, time))").status, 200);
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1)])]);
    for (column, array, said) in [
        ("v", texts(vec![Some("x")]), "column \"v\": it is text here, and float in the table"),
        (
            "n",
            Arc::new(BooleanArray::from(vec![true])) as ArrayRef,
            "column \"n\": it is boolean here, and integer in the table",
        ),
        ("new", Arc::new(list), "column \"new\": List"),
        ("V", texts(vec![None]), "column \"V\": it is text"),
        ("a\nb", floats(vec![None]), "control character"),
    ] {
        refused(&post(&eden, "table=t", &[batch(vec![(column, array), ("time", times(vec![1]))])]), 400, said);
    }
    let twice = batch(vec![("v", floats(vec![None])), ("V", floats(vec![None])), ("time", times(vec![1]))]);
    refused(&post(&eden, "table=t", &[twice]), 400, "\"v\" is there twice");
    refused(
        &post(&eden, "table=t", &[batch(vec![("site", texts(vec![None])), ("time", times(vec![1]))])]),
        400,
        "no column with values",
    );
    refused(
        &post(&eden, "table=t", &[batch(vec![("v", floats(vec![None])), ("time", floats(vec![None]))])]),
        400,
        "cannot be the time",
    );
    assert_eq!(eden.rows("SELECT count(*) FROM t"), json!([[0]]));
}

#[test]
fn bad_rows_are_named_and_set_aside_and_the_others_stored() {
    let eden = Eden::start();
    assert_eq!(eden.sql("CREATE TABLE t (site TEXT, n DECIMAL(18,1), PRIMARY KEY (site, time))").status, 200);
    let first = batch(vec![
        ("site", texts(vec![Some("a"), Some("b"), Some("c"), None])),
        ("n", floats(vec![Some(1.5), Some(f64::NAN), Some(0.25), None])),
        ("time", times(vec![1, 2, 3, 4])),
    ]);
    let second = batch(vec![
        ("site", texts(vec![Some("d"), Some("e")])),
        ("n", floats(vec![Some(2.5), Some(3.5)])),
        ("time", Arc::new(TimestampMillisecondArray::from(vec![None, Some(5)]))),
    ]);
    let answer = post(&eden, "table=t", &[first, second]);
    assert_eq!((answer.status, answer.header("x-eden-refused")), (400, Some("4")), "{answer:?}");
    let answer = answer.json();
    assert_eq!(answer["error"], "4 of 6 rows were refused and set aside, all others are stored");
    let rows: Vec<_> = answer["data"].as_array().unwrap().iter().map(|row| row["row"].as_u64().unwrap()).collect();
    assert_eq!(rows, [2, 3, 4, 5]);
    assert_eq!(eden.rows("SELECT site, n, time FROM t ORDER BY time"), json!([["a", 1.5, 1], ["e", 3.5, 5]]));
    let kept = eden.rows("SELECT payload, is_whole FROM system.quarantine ORDER BY payload");
    let expected = json!([
        ["t 4000", false],
        ["t,site=b 2000", false],
        ["t,site=c n=0.25 3000", true],
        ["t,site=d n=2.5 0", false]
    ]);
    assert_eq!(kept, expected);
    assert_eq!(eden.sql("ALTER TABLE t ALTER COLUMN n SET DATA TYPE DECIMAL(18,2)").status, 200);
    assert_eq!(eden.post("/api/v1/quarantine/replay", &[], b"{}").json()["replayed"], 1);
    assert_eq!(eden.rows("SELECT n FROM t WHERE site = 'c'"), json!([[0.25]]));
}

#[test]
fn what_is_no_stream_is_told() {
    let eden = Eden::start();
    let good = stream(&[batch(vec![("v", floats(vec![Some(1.0)])), ("time", times(vec![1]))])]);
    let send = |body: &[u8]| eden.post("/api/v1/arrow?table=t&tags=", MEDIA, body);
    refused(&send(b""), 400, "it has no schema");
    refused(&send(b"m v=1 1\n"), 400, "the body is not what its type says: ");
    refused(&send(b"ARROW1\0\0"), 400, "file format");
    refused(&send(&good[..good.len() / 2]), 400, "ends in the middle of a message");
    refused(&eden.post("/api/v1/arrow?tags=", MEDIA, &good), 400, "the parameter table is missing");
    refused(
        &eden.post("/api/v1/arrow?table=t&tags=", &[("content-type", "text/csv")], &good),
        415,
        "\"text/csv\" is not supported",
    );
    assert_eq!(eden.sql("SELECT * FROM t").status, 404);
    assert_eq!(send(&good).status, 204);
    let metrics = eden.get("/metrics").body;
    for line in [
        "eden_ingest_samples_total 1",
        "eden_http_requests_total{endpoint=\"arrow\",status=\"204\"} 1",
        "eden_panics_total 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} in {metrics}");
    }
}

#[test]
fn mutated_streams_hurt_nobody() {
    let eden = Eden::start();
    let dictionary: DictionaryArray<Int8Type> = vec![Some("a"), None, Some("a b")].into_iter().collect();
    let columns = |from: i64| {
        batch(vec![
            ("site", Arc::new(dictionary.clone()) as ArrayRef),
            ("v", floats(vec![Some(1.0), None, Some(2.0)])),
            ("s", texts(vec![Some("x"), Some("yy"), None])),
            ("n", Arc::new(Int64Array::from(vec![from; 3]))),
            ("time", times(vec![from, from + 1, from + 2])),
        ])
    };
    let good = stream(&[columns(1), columns(10)]);
    for seed in 0..300 {
        let rng = SplitMix64::new(seed);
        let mut body = good.clone();
        for _ in 0..=rng.below(4) {
            let at = rng.below(body.len() as u64) as usize;
            match rng.below(4) {
                0 => body[at] ^= 1 << rng.below(8),
                1 => body[at] = [0, 1, 0x7f, 0x80, 0xff][rng.below(5) as usize],
                2 => body[at] = rng.next_u64() as u8,
                _ => body.truncate(at + 1),
            }
        }
        let answer = eden.post("/api/v1/arrow?table=t&tags=site", MEDIA, &body);
        assert!(matches!(answer.status, 204 | 400), "seed {seed}: {answer:?}");
    }
    let metrics = eden.get("/metrics").body;
    assert!(metrics.contains("eden_panics_total 0"), "{metrics}");
    assert_eq!(eden.post("/api/v1/arrow?table=good&tags=site", MEDIA, &good).status, 204);
    assert_eq!(eden.rows("SELECT count(*) FROM good"), json!([[6]]));
}

#[test]
fn a_dictionary_that_would_fill_the_disk_is_refused() {
    let eden = Eden::start();
    // A megabyte of text, named a hundred thousand times.
    let long = "x".repeat(1 << 20);
    let keys = arrow::array::Int8Array::from(vec![0; 100_000]);
    let dictionary = DictionaryArray::new(keys, texts(vec![Some(&long)]));
    let rows = batch(vec![
        ("s", Arc::new(dictionary)),
        ("v", Arc::new(Int64Array::from(vec![1; 100_000]))),
        ("time", times((0..100_000).collect())),
    ]);
    refused(&post(&eden, "table=t&tags=", &[rows]), 400, "send fewer rows at a time");
    assert_eq!(eden.rows("SELECT count(*) FROM information_schema.tables WHERE table_name = 't'"), json!([[0]]));
}

#[test]
fn a_body_with_more_rows_than_wait_for_the_log_at_a_time_is_stored() {
    let eden = Eden::start();
    // 160 MiB of texts in a stream of 3 MiB; 64 MiB wait at most.
    let long: Vec<String> = (0..3_u8).map(|i| char::from(b'a' + i).to_string().repeat(1 << 20)).collect();
    let keys = arrow::array::Int8Array::from_iter_values((0..160_u8).map(|row| (row % 3) as i8));
    let dictionary = DictionaryArray::new(keys, texts(long.iter().map(|text| Some(text.as_str())).collect()));
    let rows = batch(vec![("s", Arc::new(dictionary)), ("time", times((0..160).collect()))]);
    let answer = post(&eden, "table=t&tags=", &[rows]);
    assert_eq!(answer.status, 204, "{answer:?}");
    let stored = eden.rows("SELECT count(*), count(DISTINCT s), sum(length(s)) FROM t");
    assert_eq!(stored, json!([[160, 3, 160 << 20]]));
}
