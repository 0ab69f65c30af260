//! One view over shards and memory (P4, P6).

use model::{TableName, Value};
use query::{QueryRequest, QueryResult};

use crate::{DAY, HOUR, Server, collect};

fn temp(value: f64) -> [(&'static str, Value<'static>); 1] {
    [("temp", Value::F64(value))]
}

#[tokio::test]
async fn a_reading_is_seen_once_it_is_acknowledged_and_after_a_refresh() {
    let server = Server::start();
    server.write("env", &[("a", DAY, &temp(20.5)), ("b", DAY + HOUR, &temp(-3.0))]).await;
    let sql = "SELECT sensor, temp, time FROM env ORDER BY time";
    let expected = ["a 20.5 2024-05-01T00:00:00Z", "b -3.0 2024-05-01T01:00:00Z"];
    assert_eq!(server.query(sql).await, expected);
    assert!(!server.plan(sql).await.contains("file_type=parquet"));
    server.refresh("env").await;
    assert_eq!(server.query(sql).await, expected);
    assert!(server.plan(sql).await.contains("file_type=parquet"));
    server.write("env", &[("c", DAY + 2 * HOUR, &temp(1.0))]).await;
    assert_eq!(server.query("SELECT count(*), sum(temp) FROM env").await, ["3 18.5"]);
}

#[tokio::test]
async fn retries_and_corrections_show_each_key_once_with_its_newest_value() {
    let server = Server::start();
    let first = [("a", DAY, &temp(1.0)[..]), ("a", DAY + HOUR, &temp(2.0)), ("b", DAY, &temp(3.0))];
    server.write("env", &first).await;
    server.write("env", &first).await;
    server.refresh("env").await;
    server.write("env", &first[..1]).await;
    server.write("env", &[("a", DAY + HOUR, &temp(20.0)), ("b", DAY + HOUR, &temp(4.0))]).await;
    for round in ["in memory", "in shards"] {
        let rows = server.query("SELECT sensor, temp FROM env ORDER BY sensor, time").await;
        assert_eq!(rows, ["a 1.0", "a 20.0", "b 3.0", "b 4.0"], "{round}");
        let totals = server.query("SELECT count(*), count(temp), min(temp), max(temp), min(time), max(time) FROM env");
        assert_eq!(totals.await, ["4 4 1.0 20.0 2024-05-01T00:00:00Z 2024-05-01T01:00:00Z"], "{round}");
        // The old value is masked below the filter, not filtered out above it.
        assert_eq!(server.query("SELECT count(*) FROM env WHERE temp = 2.0").await, ["0"], "{round}");
        assert_eq!(server.query("SELECT sensor FROM env WHERE temp > 10").await, ["a"], "{round}");
        server.refresh("env").await;
    }
}

#[tokio::test]
async fn a_correction_of_one_field_keeps_the_others() {
    let server = Server::start();
    server.write("env", &[("a", DAY, &[("temp", Value::F64(1.0)), ("hum", Value::I64(40))])]).await;
    server.refresh("env").await;
    server.write("env", &[("a", DAY, &[("hum", Value::I64(41))])]).await;
    assert_eq!(server.query("SELECT temp, hum FROM env").await, ["1.0 41"]);
    server.refresh("env").await;
    assert_eq!(server.query("SELECT temp, hum FROM env").await, ["1.0 41"]);
}

#[tokio::test]
async fn columns_that_came_later_are_null_in_older_shards() {
    let server = Server::start();
    server.write("env", &[("a", DAY, &temp(1.0))]).await;
    server.refresh("env").await;
    let more = [
        ("on", Value::Bool(true)),
        ("count", Value::U64(u64::MAX)),
        ("n", Value::I64(i64::MIN)),
        ("note", Value::Text("ok")),
    ];
    server.write("env", &[("a", DAY + HOUR, &more)]).await;
    for round in ["in memory", "in shards"] {
        let rows = server.query(r#"SELECT temp, "on", count, n, note FROM env ORDER BY time"#).await;
        assert_eq!(rows, ["1.0 - - - -", "- true 18446744073709551615 -9223372036854775808 ok"], "{round}");
        assert_eq!(server.query("SELECT count(*) FROM env WHERE note IS NULL").await, ["1"], "{round}");
        assert_eq!(server.query("SELECT count(*) FROM env WHERE count > 5").await, ["1"], "{round}");
        server.refresh("env").await;
    }
}

#[tokio::test]
async fn counts_of_all_rows_come_from_statistics() {
    let server = Server::start();
    server.write("env", &[("a", DAY, &temp(1.0)), ("a", DAY + HOUR, &temp(2.0))]).await;
    server.refresh("env").await;
    // One row of the shard is masked by the first of these.
    server.write("env", &[("a", DAY, &temp(9.0)), ("a", DAY + 2 * HOUR, &temp(3.0))]).await;
    assert_eq!(server.query("SELECT count(*) FROM env").await, ["3"]);
    assert!(!server.plan("SELECT count(*) FROM env").await.contains("DataSourceExec"));
    server.refresh("env").await;
    assert_eq!(server.query("SELECT count(*), min(time) FROM env").await, ["3 2024-05-01T00:00:00Z"]);
    assert!(!server.plan("SELECT count(*), min(time) FROM env").await.contains("DataSourceExec"));
}

#[tokio::test]
async fn a_limit_reads_no_more_shards_than_it_needs() {
    let server = Server::start();
    let days: Vec<_> = (0..5).map(|day| ("a", DAY + day * 24 * HOUR, temp(day as f64))).collect();
    let readings: Vec<_> = days.iter().map(|(sensor, time, fields)| (*sensor, *time, &fields[..])).collect();
    server.write("env", &readings).await;
    server.refresh("env").await;
    for (limit, shards) in [(1, 1), (3, 3), (9, 5)] {
        let sql = format!("SELECT temp FROM env LIMIT {limit}");
        assert_eq!(server.query(&sql).await.len(), shards, "{sql}");
        assert_eq!(server.plan(&sql).await.matches(".parquet").count(), shards, "{sql}");
    }
    // Not where a filter comes between.
    assert_eq!(server.query("SELECT temp FROM env WHERE temp > 3.5 LIMIT 1").await, ["4.0"]);
    assert_eq!(server.query("SELECT temp FROM env ORDER BY temp DESC LIMIT 2").await, ["4.0", "3.0"]);
    assert_eq!(server.query("SELECT temp FROM env ORDER BY time DESC LIMIT 1 OFFSET 1").await, ["3.0"]);
}

#[tokio::test]
async fn tables_of_any_name_and_schema_are_found() {
    let server = Server::start();
    let odd = TableName::new("Plant 1", "My/Table%41 ü");
    server.write_to(odd.clone(), &[("a", DAY, &temp(1.0))]).await;
    let sql = r#"SELECT temp FROM "Plant 1"."My/Table%41 ü""#;
    assert_eq!(server.query(sql).await, ["1.0"]);
    server.refresh(r#""Plant 1"."My/Table%41 ü""#).await;
    assert_eq!(server.query(sql).await, ["1.0"]);

    let request = |schema: &str| QueryRequest {
        default_schema: Some(schema.into()),
        ..QueryRequest::new(r#"SELECT temp FROM "My/Table%41 ü""#)
    };
    for schema in ["Plant 1", "plant 1"] {
        match server.engine.execute(request(schema)).await {
            Ok(QueryResult::Rows(rows)) => assert_eq!(collect(rows).await.unwrap(), ["1.0"]),
            other => panic!("{other:?}"),
        }
    }
    assert!(server.engine.execute(request("public")).await.is_err());
}

#[tokio::test]
async fn a_statement_that_reads_a_table_twice_sees_it_once() {
    let server = Server::start();
    server.write("env", &[("a", DAY, &temp(1.0)), ("b", DAY, &temp(2.0))]).await;
    server.refresh("env").await;
    server.write("env", &[("b", DAY, &temp(3.0))]).await;
    let sql = "SELECT l.sensor, r.temp FROM env l JOIN env r ON l.sensor = r.sensor AND l.temp = r.temp ORDER BY 1";
    assert_eq!(server.query(sql).await, ["a 1.0", "b 3.0"]);
    let sql = "SELECT count(*) FROM (SELECT * FROM env UNION ALL SELECT * FROM env)";
    assert_eq!(server.query(sql).await, ["4"]);
}

#[tokio::test]
async fn counts_and_limits_are_the_same_of_rows_in_memory_and_in_shards() {
    let server = Server::start();
    let temp = temp(1.0);
    let values: [&[_]; 2] = [&temp, &[]];
    let second =
        |of: i64| [("a", of), ("b", of), ("c", of)].map(|(s, of)| (s, DAY + of * 1_000_000, values[(of % 2) as usize]));
    // More than a chunk, so that there are parts to leave out and to stop before.
    for thousand in 0..10 {
        let rows: Vec<_> = (thousand * 1_000..(thousand + 1) * 1_000).flat_map(second).collect();
        server.write("env", &rows).await;
    }
    let asked = [
        ("SELECT count(*), count(temp), count(sensor), count(time) FROM env", "30000 15000 30000 30000"),
        ("SELECT count(*), count(temp) FROM (SELECT * FROM env LIMIT 17001)", "17001 -"),
        ("SELECT count(*) FROM (SELECT * FROM env LIMIT 0)", "0"),
        ("SELECT count(*), count(temp) FROM env WHERE sensor = 'b'", "10000 5000"),
        ("SELECT count(*) FROM env WHERE time >= '2024-05-01T02:46:30'", "30"),
        ("SELECT count(*) FROM env WHERE time < '2024-04-01'", "0"),
        ("SELECT max(time) FROM env WHERE sensor = 'c' AND time < '2024-05-01T00:10:00'", "2024-05-01T00:09:59Z"),
    ];
    for place in ["in memory", "in shards", "corrected in memory"] {
        for (sql, expected) in asked {
            let found = server.query(sql).await;
            let is_same = |(found, expected): (&str, &str)| expected == "-" || found == expected;
            assert!(found[0].split(' ').zip(expected.split(' ')).all(is_same), "{place}: {sql}: {found:?}");
        }
        server.refresh("env").await;
        if place == "in shards" {
            server.write("env", &second(4)).await;
            server.write("env", &[("a", DAY, &[("temp", Value::F64(2.0))])]).await;
        }
    }
}
