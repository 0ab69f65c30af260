//! Shards that a statement does not need are not opened.

use model::{FieldType, TableName, Value};
use storage::{TableOptions, TableSchema};

use crate::{DAY, HOUR, Server};

/// A table of 4 days, a shard each; `n` goes from 0 to 47 over all of them, `even` only on even days.
async fn four_days() -> Server {
    let server = Server::start();
    for day in 0..4_i64 {
        let readings: Vec<(i64, Vec<(&str, Value<'_>)>)> = (0..12)
            .map(|hour| {
                let mut fields = vec![("n", Value::I64(day * 12 + hour)), ("f", Value::F64(day as f64 / 10.0))];
                if day % 2 == 0 {
                    fields.push(("even", Value::Bool(true)));
                }
                (DAY + day * 24 * HOUR + hour * HOUR, fields)
            })
            .collect();
        let readings: Vec<_> = readings.iter().map(|(time, fields)| ("a", *time, &fields[..])).collect();
        server.write("env", &readings).await;
        server.refresh("env").await;
    }
    server
}

#[tokio::test]
async fn only_shards_that_may_match_are_planned() {
    let server = four_days().await;
    for (condition, rows, shards) in [
        ("true", 48, 4),
        ("time >= '2024-05-03T00:00:00Z'", 24, 2),
        ("time >= '2024-05-02' AND time < '2024-05-03'", 12, 1),
        ("time > timestamp '2024-05-04T11:00:00Z'", 0, 0),
        ("time >= timestamp '2024-05-04T11:00:00Z'", 1, 1),
        ("time < '2024-05-01'", 0, 0),
        ("time > now() - interval '1 hour'", 0, 0),
        ("time < now() - interval '1 hour'", 48, 4),
        // A function of time stays unseen by pruning.
        ("date_trunc('day', time) = '2024-05-02'", 12, 4),
        ("n = 13", 1, 1),
        ("n BETWEEN 11 AND 12", 2, 2),
        ("n IN (1, 40)", 2, 2),
        ("n > 100", 0, 0),
        ("f = 0.3", 12, 1),
        // The log's text of a float may be off by its last digit, so bounds reach a little further.
        ("f > 0.3", 0, 1),
        ("f > 0.31", 0, 0),
        ("even", 24, 4),
        ("even IS NULL", 24, 2),
        ("sensor = 'b'", 0, 0),
        ("sensor = 'a' AND n = 0", 1, 1),
    ] {
        let sql = format!("SELECT n, f FROM env WHERE {condition}");
        assert_eq!(server.query(&sql).await.len(), rows, "{sql}");
        let plan = server.plan(&sql).await;
        assert!(plan.matches(".parquet").count() <= shards, "{sql}: {shards} expected\n{plan}");
    }
}

#[tokio::test]
async fn a_scan_of_one_day_reads_one_day() {
    let server = four_days().await;
    let analyzed = server.query("EXPLAIN ANALYZE SELECT sum(n) FROM env WHERE time >= '2024-05-04'").await.join("\n");
    assert!(analyzed.contains("files_ranges_pruned_statistics=1 total → 1 matched"), "{analyzed}");
    assert!(analyzed.contains("bytes_scanned="), "{analyzed}");
}

#[tokio::test]
async fn a_replaced_value_neither_hides_nor_shows_its_shard() {
    let server = four_days().await;
    // The shard of the first day had n = 0..11; its greatest is replaced, and so is the row of the least.
    let (least, greatest) = ([("n", Value::I64(500))], [("n", Value::I64(-500))]);
    server.write("env", &[("a", DAY, &least), ("a", DAY + 11 * HOUR, &greatest)]).await;
    assert_eq!(FieldType::I64, least[0].1.field_type());
    for (sql, expected) in [
        ("SELECT n FROM env WHERE n > 100", "500"),
        ("SELECT n FROM env WHERE n < 0", "-500"),
        ("SELECT count(*) FROM env WHERE n = 0", "0"),
        ("SELECT count(*) FROM env WHERE n = 11", "0"),
        ("SELECT min(n) FROM env", "-500"),
        ("SELECT max(n) FROM env WHERE time < '2024-05-02'", "500"),
        ("SELECT min(n) FROM env WHERE time < '2024-05-02' AND n >= 0", "1"),
        ("SELECT count(*) FROM env WHERE even IS NULL", "24"),
    ] {
        assert_eq!(server.query(sql).await, [expected], "{sql}");
    }
}

#[tokio::test]
async fn bounds_that_were_cut_hide_nothing_and_are_not_taken_for_values() {
    let server = Server::start();
    let table = TableName::public("env");
    let fields = [
        ("note".into(), FieldType::Text),
        ("total".into(), FieldType::U64),
        ("ok".into(), FieldType::Bool),
        ("d".into(), FieldType::decimal(3)),
    ];
    let schema = TableSchema::new(&["sensor".into()], &fields);
    server.storage.create_table(&table, &schema, TableOptions::default()).unwrap();
    let long = |end: &str| "x".repeat(100) + end;
    let (low, high) = (long("a"), long("b"));
    // A shard a day. 12345678901234.567 has more digits than a double.
    for (day, note, total, ok, whole) in
        [(0, &*low, 1, false, -12_345_678_901_234.0), (1, &*high, u64::MAX, true, 12_345_678_901_234.0)]
    {
        let fields = [
            ("note", Value::Text(note)),
            ("total", Value::U64(total)),
            ("ok", Value::Bool(ok)),
            ("d", Value::F64(whole + 0.566)),
        ];
        server.write("env", &[("a", DAY + day * 24 * HOUR, &fields)]).await;
        server.refresh("env").await;
    }
    let [low_d, high_d] = [-12_345_678_901_233.434, 12_345_678_901_234.566];
    assert_eq!(server.query("SELECT min(note), max(note) FROM env").await, [format!("{low} {high}")]);
    assert_eq!(server.query("SELECT min(total), max(total) FROM env").await, [format!("1 {}", u64::MAX)]);
    assert_eq!(server.query("SELECT min(ok), max(ok) FROM env").await, ["false true"]);
    assert_eq!(server.query("SELECT min(d), max(d) FROM env").await, [format!("{low_d:.3} {high_d:.3}")]);
    for (condition, rows, shards) in [
        (format!("note = '{low}'"), 1, 2),
        (format!("note = '{high}'"), 1, 2),
        (format!("note > '{low}'"), 1, 2),
        (format!("note >= '{}'", "x".repeat(64)), 2, 2),
        (format!("note > '{}y'", "x".repeat(63)), 0, 0),
        (format!("note < '{}'", "x".repeat(64)), 0, 0),
        ("total = 18446744073709551615".to_owned(), 1, 1),
        ("total > 1".to_owned(), 1, 1),
        ("ok".to_owned(), 1, 1),
        ("NOT ok".to_owned(), 1, 1),
        (format!("d = CAST('{high_d:.3}' AS DECIMAL(18,3))"), 1, 1),
        (format!("d <= CAST('{low_d:.3}' AS DECIMAL(18,3))"), 1, 1),
        (format!("d < CAST('{low_d:.3}' AS DECIMAL(18,3))"), 0, 1),
        (format!("d > CAST('{high_d:.3}' AS DECIMAL(18,3))"), 0, 1),
        ("d > 0".to_owned(), 1, 1),
    ] {
        let sql = format!("SELECT sensor FROM env WHERE {condition}");
        assert_eq!(server.query(&sql).await.len(), rows, "{sql}");
        let plan = server.plan(&sql).await;
        assert!(plan.matches(".parquet").count() <= shards, "{sql}: {shards} expected\n{plan}");
    }
}
