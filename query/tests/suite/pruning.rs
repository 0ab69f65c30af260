//! Shards that a statement does not need are not opened.

use model::{FieldType, Value};

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
