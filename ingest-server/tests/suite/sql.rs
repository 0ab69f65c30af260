//! `POST /_sql` and `/api/v3/query_sql`.

use std::io::Write as _;

use arrow::datatypes::{DataType, TimeUnit};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

use crate::process::{Eden, get};

fn filled() -> Eden {
    let eden = Eden::start();
    let answer = eden.write(
        "bmp180,agent=a,sensor=s1 temperature=21.5,pressure=101325i,total=18446744073709551615u,ok=t 1780272000000123\n\
         bmp180,agent=a,sensor=s2 temperature=-0.5 1780272001000000\n",
    );
    assert_eq!(answer.status, 204, "{answer:?}");
    eden
}

/// An answer of `/_sql` with the one value that nobody knows beforehand taken out.
fn without_duration(body: &str) -> String {
    let (head, duration) = body.rsplit_once("\"duration\":").unwrap_or_else(|| panic!("no duration in {body}"));
    let duration: f64 = duration.strip_suffix('}').unwrap().parse().unwrap();
    assert!((0.0..60_000.0).contains(&duration), "{body}");
    format!("{head}\"duration\":_}}")
}

#[test]
fn rows_have_the_shape_that_clients_of_cratedb_read() {
    let eden = filled();
    let stmt = json!({ "stmt": "SELECT sensor, temperature, pressure, total, ok, time FROM bmp180 ORDER BY sensor" });
    let stmt = stmt.to_string();
    let answer = eden.post("/_sql", &[], stmt.as_bytes());
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let rows = concat!(
        r#""rows":[["s1",21.5,101325,"18446744073709551615",true,1780272000000.123],"#,
        r#"["s2",-0.5,null,null,null,1780272001000]],"rowcount":2,"duration":_}"#
    );
    let cols = r#"{"cols":["sensor","temperature","pressure","total","ok","time"],"#;
    assert_eq!(without_duration(&answer.body), format!("{cols}{rows}"));
    for path in ["/_sql?types", "/_sql?types=", "/_sql?types=true"] {
        let answer = eden.post(path, &[], stmt.as_bytes());
        assert_eq!(without_duration(&answer.body), format!("{cols}\"col_types\":[4,6,10,22,3,11],{rows}"));
    }
}

#[test]
fn a_statement_without_rows_answers_one_empty_row() {
    let eden = filled();
    let stmt = br#"{"stmt":"REFRESH TABLE bmp180"}"#;
    let answer = eden.post("/_sql", &[], stmt);
    assert_eq!(without_duration(&answer.body), r#"{"cols":[],"rows":[[]],"rowcount":1,"duration":_}"#);
    let answer = eden.post("/_sql?types", &[], stmt);
    assert_eq!(without_duration(&answer.body), r#"{"cols":[],"col_types":[],"rows":[[]],"rowcount":1,"duration":_}"#);
    let shards = std::fs::read_dir(eden.data().join("tables/public/bmp180/eden_day=2026-06-01")).unwrap();
    let parquet = |name: &str| name.ends_with(".parquet");
    assert_eq!(shards.filter(|file| parquet(&file.as_ref().unwrap().file_name().to_string_lossy())).count(), 1);
    assert_eq!(eden.rows("SELECT count(*) FROM bmp180"), json!([[2]]));
}

#[test]
fn errors_have_codes_statuses_and_close_names() {
    let eden = filled();
    for (stmt, status, code, said) in [
        ("SELECT * FROM bmp18", 404, 4041, "RelationUnknown[table bmp18 unknown; did you mean bmp180?]"),
        ("SELECT temperatur FROM bmp180", 404, 4043, "did you mean temperature?"),
        ("SELECT * FROM nowhere.bmp180", 404, 4045, "SchemaUnknownException[schema nowhere unknown"),
        ("SELEC 1", 400, 4000, "SQLParseException["),
        ("DROP VIEW bmp180", 400, 4004, "UnsupportedFeatureException["),
        ("DROP TABLE bmp18", 404, 4041, "RelationUnknown[table bmp18 unknown; did you mean bmp180?]"),
        ("DELETE FROM system.rejected", 400, 4000, "can only be read"),
        ("CREATE TABLE bmp180 (x DOUBLE)", 409, 4093, "RelationAlreadyExists[table bmp180 exists"),
    ] {
        let answer = eden.sql(stmt);
        let body = answer.json();
        assert_eq!((answer.status, body["error"]["code"].as_u64()), (status, Some(code)), "{answer:?}");
        assert_eq!(body["error"].as_object().unwrap().keys().collect::<Vec<_>>(), ["message", "code"]);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert!(body["error"]["message"].as_str().unwrap().contains(said), "{answer:?}");
        assert_eq!(body.get("error_trace"), None);
    }
    let traced = eden.post("/_sql?error_trace=true", &[], br#"{"stmt":"SELEC 1"}"#).json();
    assert!(traced["error_trace"].is_string(), "{traced}");
}

#[test]
fn requests_that_are_not_understood_are_refused() {
    let eden = filled();
    for (body, code) in [
        (r#"{"stmt":"SELECT ?","args":[]}"#, 4000),
        (r#"{"stmt":"SELECT ?","args":{}}"#, 4000),
        (r#"{"stmt":"SELECT ?","args":[{}]}"#, 4004),
        (r#"{"stmt":"SELECT ?","bulk_args":[[1]]}"#, 4004),
        (r#"{"stmt":1}"#, 4000),
        ("{}", 4000),
        ("SELECT 1", 4000),
        ("", 4000),
    ] {
        let answer = eden.post("/_sql", &[], body.as_bytes());
        assert_eq!((answer.status, answer.json()["error"]["code"].as_u64()), (400, Some(code)), "{answer:?}");
    }
    let empty = eden.post("/_sql", &[], br#"{"stmt":"SELECT 1 AS one","args":[],"bulk_args":[]}"#);
    assert_eq!(empty.json()["rows"], json!([[1]]));
    assert_eq!(eden.get("/_sql").status, 405);
}

#[test]
fn the_default_schema_is_a_header_and_bodies_may_be_compressed() {
    let eden = filled();
    assert_eq!(eden.post("/api/v3/write_lp?db=plant", &[], b"bmp180 v=7 1").status, 204);
    let stmt = br#"{"stmt":"SELECT count(*) FROM bmp180"}"#;
    let count = |headers: &[(&str, &str)], body: &[u8]| eden.post("/_sql", headers, body).json()["rows"][0][0].clone();
    assert_eq!(count(&[], stmt), json!(2));
    assert_eq!(count(&[("default-schema", "doc")], stmt), json!(2));
    assert_eq!(count(&[("default-schema", "plant")], stmt), json!(1));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(stmt).unwrap();
    assert_eq!(count(&[("content-encoding", "gzip")], &gzip.finish().unwrap()), json!(2));
}

#[test]
fn a_large_result_comes_whole() {
    let eden = Eden::start();
    let lines: String = (0..20_000).map(|i| format!("m,device=d{} v={i} {}\n", i % 10, i + 1)).collect();
    assert_eq!(eden.write(&lines).status, 204);
    let body = eden.sql("SELECT device, v, time FROM m ORDER BY v").json();
    assert_eq!(body["rowcount"], 20_000);
    let rows = body["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 20_000);
    assert!(rows.iter().enumerate().all(|(i, row)| row[1].as_f64() == Some(i as f64)));
}

#[test]
fn influxdbs_endpoint_answers_json_lines_and_csv() {
    let eden = filled();
    let q = "SELECT%20sensor,ok,time%20FROM%20bmp180%20ORDER%20BY%20sensor";
    for (format, content_type, body) in [
        (
            "json",
            "application/json",
            "[{\"sensor\":\"s1\",\"ok\":true,\"time\":\"2026-06-01T00:00:00.000123Z\"},\
             {\"sensor\":\"s2\",\"time\":\"2026-06-01T00:00:01Z\"}]",
        ),
        (
            "jsonl",
            "application/jsonl",
            "{\"sensor\":\"s1\",\"ok\":true,\"time\":\"2026-06-01T00:00:00.000123Z\"}\n\
             {\"sensor\":\"s2\",\"time\":\"2026-06-01T00:00:01Z\"}\n",
        ),
        ("csv", "text/csv", "sensor,ok,time\ns1,true,2026-06-01T00:00:00.000123Z\ns2,,2026-06-01T00:00:01Z\n"),
    ] {
        let got = eden.get(&format!("/api/v3/query_sql?db=public&q={q}&format={format}"));
        assert_eq!((got.status, got.header("content-type")), (200, Some(content_type)));
        assert_eq!(got.body, body);
        let posted = json!({ "db": "public", "q": q.replace("%20", " "), "format": format, "params": {} });
        assert_eq!(eden.post("/api/v3/query_sql", &[], posted.to_string().as_bytes()).body, body);
    }
    let unknown = eden.get("/api/v3/query_sql?q=SELECT+*+FROM+bmp18");
    assert_eq!((unknown.status, unknown.json()["error"].as_str().unwrap().contains("bmp180")), (404, true));
    assert_eq!(eden.get("/api/v3/query_sql?q=SELECT+1&format=pdf").status, 400);
    assert_eq!(eden.get("/api/v3/query_sql").status, 400);
}

#[test]
fn parameters_of_influxdbs_endpoint_have_names_and_are_values_wherever_they_stand() {
    let eden = filled();
    let ask = |q: &str, params: Value| {
        let body = json!({ "db": "public", "q": q, "format": "csv", "params": params });
        eden.post("/api/v3/query_sql", &[], body.to_string().as_bytes())
    };
    for (q, params, found) in [
        (
            "SELECT sensor FROM bmp180 WHERE sensor = $s AND temperature > $t",
            json!({ "t": 0, "s": "s1" }),
            "sensor\ns1\n",
        ),
        (
            "SELECT $a AS a, $b AS b, $a + 1 AS c",
            json!({ "b": true, "a": 1.5, "unused": null }),
            "a,b,c\n1.5,true,2.5\n",
        ),
        ("SELECT sensor FROM bmp180 WHERE sensor = $s", json!({ "s": "x' OR true --" }), "sensor\n"),
        ("SELECT sensor FROM bmp180 WHERE time > $at", json!({ "at": "2026-06-01T00:00:00.5Z" }), "sensor\ns2\n"),
        ("SELECT '$s' AS s", json!({ "s": "t" }), "s\n$s\n"),
    ] {
        let answer = ask(q, params);
        assert_eq!((answer.status, &*answer.body), (200, found), "{q}");
    }
    let answer = ask("SELECT $room", json!({ "rom": 1 }));
    assert!(
        answer.status == 400 && answer.body.contains("$room has no value; those that came have $rom"),
        "{answer:?}"
    );
    for params in [json!([1]), json!({ "a": { "b": 1 } }), json!("a")] {
        assert_eq!(ask("SELECT $a", params).status, 400);
    }
    let answer = eden.get("/api/v3/query_sql?format=csv&q=SELECT%20$a%20AS%20a&params=%7B%22a%22:7%7D");
    assert_eq!((answer.status, &*answer.body), (200, "a\n7\n"));
    assert_eq!(eden.get("/api/v3/query_sql?q=SELECT+1&params=a").status, 400);
}

#[test]
fn rows_as_parquet_are_a_whole_file_with_their_types() {
    let eden = filled();
    let fetch = |q: &str| {
        let url = format!("{}/api/v3/query_sql?format=parquet&q={}", eden.url, q.replace(' ', "%20"));
        let mut answer = ureq::get(url).call().unwrap();
        assert_eq!(answer.headers()["content-type"], "application/vnd.apache.parquet");
        let bytes = bytes::Bytes::from(answer.body_mut().with_config().limit(1 << 30).read_to_vec().unwrap());
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
        let types: Vec<DataType> = reader.schema().fields().iter().map(|field| field.data_type().clone()).collect();
        let groups = reader.metadata().num_row_groups();
        let batches: Vec<_> = reader.build().unwrap().map(Result::unwrap).collect();
        (types, groups, batches)
    };
    let (types, _, batches) = fetch("SELECT sensor, temperature, time FROM bmp180 ORDER BY sensor");
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    assert_eq!(types, [DataType::Utf8View, DataType::Float64, time]);
    assert_eq!(batches.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>(), 2);
    let (_, groups, batches) = fetch("SELECT value FROM generate_series(1, 300000)");
    assert_eq!((groups, batches.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>()), (3, 300_000));
    let (types, _, batches) = fetch("SELECT sensor FROM bmp180 WHERE false");
    assert_eq!((types.len(), batches.len()), (1, 0));
}

#[test]
fn influxdbs_endpoint_changes_nothing() {
    let eden = filled();
    for statement in ["DELETE FROM bmp180 WHERE false", "DROP TABLE IF EXISTS bmp18", "OPTIMIZE TABLE bmp180"] {
        let got = eden.get(&format!("/api/v3/query_sql?db=public&q={}", statement.replace(' ', "%20")));
        let posted = json!({ "db": "public", "q": statement }).to_string();
        let posted = eden.post("/api/v3/query_sql", &[], posted.as_bytes());
        for answer in [got, posted] {
            assert_eq!(answer.status, 400, "{answer:?}");
            assert!(answer.json()["error"].as_str().unwrap().contains("POST /_sql"), "{answer:?}");
        }
    }
    assert_eq!(eden.rows("SELECT count(*) FROM bmp180"), json!([[2]]));
}

#[test]
fn a_retention_is_written_as_every_other_span_of_time() {
    for text in ["90d", "12 h", " 5m", "1s", "250ms", "0s", "", "5", "1w", "1.5h", "-1d", "1D", "18446744073709551615d"]
    {
        let period = settings::Period::parse(text).ok().map(|period| period.0);
        assert_eq!(model::time_text::span(text), period, "{text:?}");
    }
}

#[test]
fn companions_answer_what_clients_ask_first() {
    let eden = Eden::start();
    let info = get(&eden.url, "/", &[("accept", "application/json")]).json();
    assert!(info["name"].is_string() && info["version"]["number"].is_string(), "{info}");
    let page = get(&eden.url, "/", &[("accept", "text/html,*/*")]);
    assert!(page.header("content-type").unwrap().starts_with("text/html"));
    assert!(page.body.contains("/api/v3/write_lp"));
    let ping = eden.get("/ping");
    assert_eq!((ping.status, ping.json()["product_name"].as_str()), (200, Some("Eden")));
    assert!(ping.header("x-influxdb-version").is_some() && ping.header("x-request-id").is_some());
    assert_eq!(eden.post("/ping", &[], b"").status, 200);
    for path in ["/health", "/ready"] {
        let answer = eden.get(path);
        assert_eq!((answer.status, answer.body.as_str()), (200, "OK"));
    }
    let lost = eden.get("/api/v3/write_l");
    assert_eq!(lost.status, 404);
    assert!(lost.body.contains("did you mean /api/v3/write_lp?"), "{}", lost.body);
    assert_eq!(eden.get("/api/v3/write_lp").json(), json!({"error": "/api/v3/write_lp takes POST, not GET"}));
}

#[test]
fn metrics_count_what_happened() {
    let eden = filled();
    eden.write("bad");
    eden.rows("SELECT 1");
    let page = eden.get("/metrics");
    assert!(page.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    for line in [
        "eden_ready 1",
        "eden_panics_total 0",
        "eden_ingest_lines_total 3",
        "eden_ingest_lines_refused_total 1",
        "eden_storage_rows_stored_total 2",
        "eden_storage_memory_rows 2",
        "eden_storage_tables 1",
        "eden_query_statements_total 1",
        "eden_http_requests_total{endpoint=\"write_lp\",status=\"204\"} 1",
        "eden_http_requests_total{endpoint=\"write_lp\",status=\"400\"} 1",
    ] {
        assert!(page.body.lines().any(|found| found == line), "{line} is missing in\n{}", page.body);
    }
    let documented: Value = ingest_server::metrics::ALL.iter().map(|metric| metric.name).collect();
    for name in page.body.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
        assert!(documented.as_array().unwrap().contains(&json!(name)), "{name} is not documented");
    }
    for metric in ingest_server::metrics::ALL {
        assert!(page.body.contains(&format!("# HELP {} ", metric.name)), "{} is not on the page", metric.name);
    }
}

#[test]
fn a_table_tells_what_its_columns_are_for() {
    let eden = filled();
    eden.sql("ALTER TABLE bmp180 ADD COLUMN humidity DECIMAL(18,1)");
    let columns = json!([
        { "name": "agent", "kind": "tag", "type": "TEXT" },
        { "name": "sensor", "kind": "tag", "type": "TEXT" },
        { "name": "temperature", "kind": "field", "type": "DOUBLE" },
        { "name": "pressure", "kind": "field", "type": "BIGINT" },
        { "name": "total", "kind": "field", "type": "NUMERIC(20,0)" },
        { "name": "ok", "kind": "field", "type": "BOOLEAN" },
        { "name": "humidity", "kind": "field", "type": "DECIMAL(18,1)" },
        { "name": "time", "kind": "time", "type": "TIMESTAMP" },
    ]);
    for path in ["/api/v1/table?table=bmp180", "/api/v1/table?db=doc&table=BMP180"] {
        let answer = eden.get(path);
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.json(), json!({ "schema": "public", "table": "bmp180", "columns": columns }), "{path}");
    }
    assert_eq!(eden.get("/api/v1/table?db=plant&table=bmp180").status, 404);
    assert_eq!(eden.get("/api/v1/table").status, 400);
}

#[test]
fn args_and_bulk_args_are_values_of_parameters() {
    let eden = filled();
    let post = |body: Value| {
        let answer = eden.post("/_sql", &[], body.to_string().as_bytes());
        (answer.status, serde_json::from_str::<Value>(&answer.body).unwrap())
    };
    let (status, answer) = post(json!({
        "stmt": "SELECT sensor FROM bmp180 WHERE time > ? AND temperature < ?",
        "args": [1_780_272_000_500_i64, 30],
    }));
    assert_eq!((status, &answer["rows"]), (200, &json!([["s2"]])), "a number for a time is milliseconds: {answer}");
    let created =
        json!({ "stmt": "CREATE TABLE press (m TEXT, n BIGINT, v DOUBLE, time TIMESTAMP, PRIMARY KEY (m, time))" });
    assert_eq!(post(created).0, 200);
    let insert = "INSERT INTO press (m, n, v, time) VALUES (?, ?, ?, ?)";
    let (status, answer) = post(json!({ "stmt": insert, "args": ["a", 1, 1.5, 1_780_272_000_123_i64] }));
    assert_eq!((status, &answer["rowcount"], &answer["rows"]), (200, &json!(1), &json!([[]])), "{answer}");
    // Of mixed types, as JSON has them; the last row of a key counts.
    let rows = json!([
        ["b", 2, 2, 1_780_272_000_123_i64],
        ["c", 3.0, null, "2026-06-01T00:00:00Z"],
        ["b", 4, 2.5, 1_780_272_000_123_i64]
    ]);
    let (status, answer) = post(json!({ "stmt": insert, "bulk_args": rows }));
    assert_eq!((status, &answer["cols"], answer["duration"].is_number()), (200, &json!([]), true), "{answer}");
    assert_eq!(answer["results"], json!([{ "rowcount": 1 }, { "rowcount": 1 }, { "rowcount": 1 }]));
    assert_eq!(
        eden.rows("SELECT m, n, v, time FROM press ORDER BY m"),
        json!([
            ["a", 1, 1.5, 1_780_272_000_123_i64],
            ["b", 4, 2.5, 1_780_272_000_123_i64],
            ["c", 3, null, 1_780_272_000_000_i64]
        ])
    );
    // Of rows that are wrong each is told, and the others are stored.
    let rows = json!([["d", 1.5, 1, 1_780_272_000_000_i64], ["e", 5, 5, 1_780_272_000_000_i64]]);
    let (status, answer) = post(json!({ "stmt": insert, "bulk_args": rows }));
    assert_eq!(
        (status, &answer["results"][0]["rowcount"], &answer["results"][1]),
        (200, &json!(-2), &json!({ "rowcount": 1 }))
    );
    let said = answer["results"][0]["error"]["message"].as_str().unwrap();
    assert!(said.contains("column n: 1.5 is not a whole number"), "{said}");
    let (_, answer) =
        post(json!({ "stmt": "UPDATE press SET v = ? WHERE m = ?", "bulk_args": [[7, "a"], [8, "nobody"]] }));
    assert_eq!(answer["results"], json!([{ "rowcount": 1 }, { "rowcount": 0 }]));
    for (body, status, said) in [
        (json!({ "stmt": "SELECT 1", "bulk_args": [[]] }), 400, "bulk_args are for INSERT"),
        (json!({ "stmt": "SELECT ?", "args": [] }), 400, "1 parameter"),
        (json!({ "stmt": "SELECT ?", "args": [1], "bulk_args": [[1]] }), 400, "cannot both be there"),
        (json!({ "stmt": insert, "args": [1] }), 400, "4 parameters"),
    ] {
        let (found, answer) = post(body.clone());
        assert_eq!(found, status, "{body} {answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(said), "{answer}");
    }
}
