//! Tables that SQL makes, alters and drops, and rows that it removes.

use model::Value;
use query::QueryError;

use crate::{DAY, HOUR, Server};

async fn changed(server: &Server, sql: &str) -> Option<u64> {
    match server.change(sql).await {
        Ok((_, rows)) => rows,
        Err(error) => panic!("{sql}: {error}"),
    }
}

/// Three sensors, an hour each from `DAY` on: the first two hours in shards, the third in memory, `b` corrected there.
async fn filled() -> Server {
    let server = Server::start();
    for hour in 0..3 {
        let value = [("v", Value::F64(hour as f64)), ("w", Value::I64(hour))];
        let at = DAY + hour * HOUR;
        server.write("env", &[("a", at, &value), ("b", at, &value), ("c", at, &value[..1])]).await;
        if hour < 2 {
            server.refresh("env").await;
        }
    }
    server.write("env", &[("b", DAY, &[("v", Value::F64(100.0))])]).await;
    server
}

const ALL: &str = "SELECT sensor, v, w, date_part('hour', time) AS hour FROM env ORDER BY sensor, time";

/// What `ALL` gives must not depend on where rows are.
async fn check(server: &Server, expected: &[&str]) {
    assert_eq!(server.query(ALL).await, expected, "in memory and shards");
    server.refresh("env").await;
    assert_eq!(server.query(ALL).await, expected, "in shards");
    assert_eq!(server.query("SELECT count(*) FROM env").await, [expected.len().to_string()]);
}

#[tokio::test]
async fn a_table_is_made_as_it_is_declared() {
    let server = Server::start();
    let sql = "CREATE TABLE plant.press (line TEXT, machine TEXT, force DOUBLE, strokes BIGINT, total NUMERIC(20,0), \
               ok BOOLEAN, note TEXT, temperature DECIMAL(18,1), time TIMESTAMP, PRIMARY KEY (machine, line, time)) \
               WITH (retention = '90d')";
    assert_eq!(changed(&server, sql).await, Some(1));
    let columns = [
        "machine Utf8View YES",
        "line Utf8View YES",
        "force Float64 YES",
        "strokes Int64 YES",
        "total Decimal128(20, 0) YES",
        "ok Boolean YES",
        "note Utf8View YES",
        "temperature Decimal128(18, 1) YES",
        "time Timestamp(µs, \"UTC\") NO",
    ];
    assert_eq!(server.query("DESCRIBE plant.press").await, columns);
    assert_eq!(server.query("SELECT count(*) FROM plant.press").await, ["0"]);
    assert!(matches!(server.change(sql).await, Err(QueryError::TableExists { name }) if name == "plant.press"));
    assert_eq!(changed(&server, &sql.replace("TABLE", "TABLE IF NOT EXISTS")).await, Some(0));
    assert!(matches!(server.change("CREATE TABLE plant.\"Press\" (x INT)").await, Err(QueryError::Plan(_))));
}

#[tokio::test]
async fn what_is_declared_is_what_writes_must_fit() {
    let server = Server::start();
    changed(&server, "CREATE TABLE env (sensor TEXT, v DECIMAL(18,1), PRIMARY KEY (sensor, time))").await;
    server.write("env", &[("a", DAY, &[("v", Value::F64(21.5))])]).await;
    assert_eq!(server.query("SELECT sensor, v FROM env").await, ["a 21.5"]);
    server.refresh("env").await;
    assert_eq!(server.query("SELECT sensor, v FROM env").await, ["a 21.5"]);
}

#[tokio::test]
async fn a_table_gets_fields_and_wider_types() {
    let server = filled().await;
    assert_eq!(changed(&server, "ALTER TABLE env ADD COLUMN x BIGINT, ADD COLUMN IF NOT EXISTS y TEXT").await, None);
    assert_eq!(changed(&server, "ALTER TABLE env ADD COLUMN IF NOT EXISTS y TEXT").await, None);
    assert_eq!(changed(&server, "ALTER TABLE env ALTER COLUMN w SET DATA TYPE DOUBLE").await, None);
    assert_eq!(changed(&server, "ALTER TABLE env SET (retention = 'forever')").await, None);
    assert_eq!(changed(&server, "ALTER TABLE env RESET (retention)").await, None);
    let types = "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'env' ORDER BY 1";
    let columns = ["sensor Utf8View", "time Timestamp(µs, \"UTC\")", "v Float64", "w Float64", "x Int64", "y Utf8View"];
    assert_eq!(server.query(types).await, columns);
    assert_eq!(server.query("SELECT sum(w) FROM env").await, ["6.0"]);
    let error = server.change("ALTER TABLE env ALTER COLUMN v TYPE BOOLEAN").await.unwrap_err();
    assert!(matches!(error, QueryError::Plan(_)), "{error:?}");
}

#[tokio::test]
async fn a_dropped_table_is_gone_and_its_name_free() {
    let server = filled().await;
    assert_eq!(changed(&server, "DROP TABLE env").await, Some(1));
    assert!(matches!(server.error("SELECT * FROM env").await, QueryError::UnknownTable { .. }));
    assert!(matches!(server.change("DROP TABLE env").await, Err(QueryError::UnknownTable { .. })));
    assert_eq!(changed(&server, "DROP TABLE IF EXISTS env").await, Some(0));
    assert_eq!(changed(&server, "CREATE TABLE env (v TEXT)").await, Some(1));
    assert_eq!(server.query("SELECT * FROM env").await, [""; 0]);
}

#[tokio::test]
async fn optimize_changes_no_row() {
    let server = filled().await;
    let before = server.query(ALL).await;
    let rows = [
        "a 0.0 0 0",
        "a 1.0 1 1",
        "a 2.0 2 2",
        "b 100.0 0 0",
        "b 1.0 1 1",
        "b 2.0 2 2",
        "c 0.0 - 0",
        "c 1.0 - 1",
        "c 2.0 - 2",
    ];
    assert_eq!(before, rows);
    assert_eq!(changed(&server, "OPTIMIZE TABLE env").await, Some(1));
    assert_eq!(server.query(ALL).await, before);
}

#[tokio::test]
async fn delete_removes_what_the_condition_finds_and_nothing_else() {
    let server = filled().await;
    // The correction counts, not what it corrected; one row of each kind of place.
    assert_eq!(changed(&server, "DELETE FROM env WHERE v = 100 OR (sensor = 'c' AND v >= 1)").await, Some(3));
    let left = ["a 0.0 0 0", "a 1.0 1 1", "a 2.0 2 2", "b 1.0 1 1", "b 2.0 2 2", "c 0.0 - 0"];
    check(&server, &left).await;
    assert_eq!(changed(&server, "DELETE FROM env WHERE v = 100").await, Some(0));
    let latest =
        "DELETE FROM env AS e WHERE time = (SELECT max(time) FROM env WHERE env.sensor = 'a') AND e.SENSOR = 'a'";
    assert_eq!(changed(&server, latest).await, Some(1));
    check(&server, &["a 0.0 0 0", "a 1.0 1 1", "b 1.0 1 1", "b 2.0 2 2", "c 0.0 - 0"]).await;
    assert_eq!(changed(&server, "DELETE FROM env").await, Some(5));
    check(&server, &[]).await;
}

#[tokio::test]
async fn a_key_that_was_deleted_can_be_written_again_and_takes_nothing_from_before() {
    let server = filled().await;
    assert_eq!(changed(&server, "DELETE FROM env WHERE sensor <> 'a' OR time > '2024-05-01'").await, Some(8));
    server.write("env", &[("b", DAY, &[("w", Value::I64(9))])]).await;
    check(&server, &["a 0.0 0 0", "b - 9 0"]).await;
}

#[tokio::test]
async fn update_to_null_removes_values_and_keeps_rows() {
    let server = filled().await;
    // `c` has no `w`, so nothing of it changes.
    assert_eq!(changed(&server, "UPDATE env SET w = NULL WHERE date_part('hour', time) = 1").await, Some(2));
    assert_eq!(changed(&server, "UPDATE env SET W = NULL WHERE date_part('hour', time) = 1").await, Some(0));
    assert_eq!(changed(&server, "UPDATE env SET v = NULL, w = NULL WHERE sensor = 'c' OR v = 100").await, Some(4));
    let left =
        ["a 0.0 0 0", "a 1.0 - 1", "a 2.0 2 2", "b - - 0", "b 1.0 - 1", "b 2.0 2 2", "c - - 0", "c - - 1", "c - - 2"];
    check(&server, &left).await;
}

#[tokio::test]
async fn more_rows_than_one_removal_holds_are_removed_whole() {
    let server = Server::start();
    let value = [("v", Value::I64(1))];
    let rows = 150_000;
    let readings: Vec<_> = (0..rows).map(|i| (["a", "b", "c"][i % 3], DAY + i as i64, &value[..])).collect();
    for part in readings.chunks(50_000) {
        server.write("env", part).await;
    }
    server.refresh("env").await;
    assert_eq!(
        changed(&server, "DELETE FROM env WHERE sensor <> 'c' OR time < '2024-05-01T00:00:00.000003'").await,
        Some(100_001)
    );
    assert_eq!(server.query("SELECT sensor, count(*) FROM env GROUP BY 1").await, ["c 49999"]);
}
