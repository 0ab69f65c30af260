//! INSERT, and UPDATE with values: what is stored, what is refused, and what is left alone.

use arrow::datatypes::{DataType, TimeUnit};
use model::{TableName, Value};
use query::{Access, QueryError, QueryRequest};

use crate::{DAY, Server};

const TABLE: &str = "CREATE TABLE press (line TEXT, machine TEXT, temperature DOUBLE, strokes BIGINT, total NUMERIC(20,0), \
                     force DECIMAL(9,2), ok BOOLEAN, note TEXT, time TIMESTAMP, PRIMARY KEY (line, machine, time))";

async fn server() -> Server {
    let server = Server::start();
    server.change(TABLE).await.unwrap();
    server
}

async fn insert(server: &Server, sql: &str) -> Option<u64> {
    match server.change(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}")) {
        ("INSERT", rows) => rows,
        other => panic!("{sql}: {other:?}"),
    }
}

async fn refused(server: &Server, sql: &str) -> String {
    match server.change(sql).await {
        Err(error) => error.to_string(),
        Ok(done) => panic!("{sql}: {done:?}"),
    }
}

#[tokio::test]
async fn rows_of_values_are_stored_in_the_types_of_their_columns() {
    let server = server().await;
    let sql = "INSERT INTO press (line, machine, temperature, strokes, total, force, ok, note, time) VALUES \
               ('a', 'm1', 21.5, 7, 18446744073709551615, 1.25, true, 'it''s', '2024-05-01T00:00:00Z'), \
               ('a', NULL, 22, 8.0, '9', '1.5', 'false', NULL, TIMESTAMP '2024-05-01 00:00:01'), \
               ('b', 'm2', NULL, '-9', 1, 2, NULL, '', '2024-05-01')";
    assert_eq!(insert(&server, sql).await, Some(3));
    let expected = [
        "a m1 21.5 7 18446744073709551615 1.25 true it's 2024-05-01T00:00:00Z",
        "a - 22.0 8 9 1.50 false - 2024-05-01T00:00:01Z",
        "b m2 - -9 1 2.00 -  2024-05-01T00:00:00Z",
    ];
    let select =
        "SELECT line, machine, temperature, strokes, total, force, ok, note, time FROM press ORDER BY strokes DESC";
    let sorted = |mut rows: Vec<String>| {
        rows.sort();
        rows
    };
    assert_eq!(sorted(server.query(select).await), sorted(expected.map(str::to_owned).to_vec()));
    server.refresh("press").await;
    assert_eq!(sorted(server.query(select).await), sorted(expected.map(str::to_owned).to_vec()));
}

#[tokio::test]
async fn a_row_that_is_there_is_corrected_by_the_values_that_are_given() {
    let server = server().await;
    let row = "INSERT INTO press (line, machine, temperature, strokes, time) VALUES ('a', 'm', 1.5, 7, '2024-05-01')";
    for _ in 0..2 {
        assert_eq!(insert(&server, row).await, Some(1));
        server.refresh("press").await;
    }
    let correction =
        "INSERT INTO press (line, machine, temperature, strokes, time) VALUES ('a', 'm', 2.5, NULL, '2024-05-01')";
    assert_eq!(insert(&server, correction).await, Some(1));
    assert_eq!(server.query("SELECT temperature, strokes FROM press").await, ["2.5 7"]);
}

#[tokio::test]
async fn rows_of_a_query_and_rows_without_a_time_are_stored_each() {
    let server = server().await;
    let fields = [("temp", Value::F64(21.5)), ("n", Value::I64(7))];
    server.write_to(TableName::public("env"), &[("a", DAY, &fields), ("b", DAY + 1, &fields)]).await;
    let copied = "INSERT INTO press (machine, temperature, time) SELECT sensor, temp * 2, time FROM env";
    assert_eq!(insert(&server, copied).await, Some(2));
    let select = "SELECT machine, temperature, time FROM press ORDER BY machine";
    assert_eq!(server.query(select).await, ["a 43.0 2024-05-01T00:00:00Z", "b 43.0 2024-05-01T00:00:00.000001Z"]);

    let many = "INSERT INTO press (line, strokes) SELECT 'x', value FROM generate_series(1, 100000)";
    assert_eq!(insert(&server, many).await, Some(100_000));
    let counted = "SELECT count(*), count(DISTINCT time), sum(strokes) FROM press WHERE line = 'x' \
                   AND time > now() - INTERVAL '1 hour'";
    assert_eq!(server.query(counted).await, ["100000 100000 5000050000"]);
    // Without a list, all columns of the table in its order.
    assert_eq!(insert(&server, "INSERT INTO env SELECT * FROM env").await, Some(2));
    assert_eq!(insert(&server, "INSERT INTO env VALUES ('c', 1.5, 8, 1714521600)").await, Some(1));
    assert_eq!(server.query("SELECT * FROM env WHERE sensor = 'c'").await, ["c 1.5 8 2024-05-01T00:00:00Z"]);
}

#[tokio::test]
async fn an_insert_that_cannot_be_is_refused_with_its_place_and_nothing_is_stored() {
    let server = server().await;
    let columns = "INSERT INTO press (machine, temperature, strokes, time) VALUES ('m', 1.5, 1, '2024-05-01'), ";
    for (sql, said) in [
        (format!("{columns}('m', 1.5, 1.5, '2024-05-02')"), "row 2: column strokes: 1.5 is not a whole number"),
        (format!("{columns}('m', 1.5, 1, NULL)"), "row 2 has no time"),
        (format!("{columns}('m', 1.5, 1, '2999-01-01')"), "row 2: time 32472144000000000 µs is more than"),
        (format!("{columns}('m', 1.5, 1)"), "row 2 has 3 values for 4 columns: machine, temperature, strokes, time"),
        (format!("{columns}('m', 'warm', 1, '2024-05-02')"), "cannot cast string 'warm'"),
        ("INSERT INTO nowhere VALUES (1)".into(), "table nowhere unknown"),
        ("INSERT INTO press (speed) VALUES (1)".into(), "column speed unknown"),
        ("INSERT INTO press (ok, ok) VALUES (true, true)".into(), "column ok stands there twice"),
        ("INSERT INTO press (ok) VALUES (1)".into(), "row 1: "),
        ("INSERT INTO press (ok) SELECT true, false".into(), "each row has 2 values for 1 columns: ok"),
        ("INSERT INTO press (line, ok) VALUES (chr(10), true)".into(), "row 1: tag line has a control character"),
        ("INSERT INTO press DEFAULT VALUES".into(), "this form of INSERT is not supported"),
        ("INSERT INTO press (ok) VALUES (true) RETURNING ok".into(), "this form of INSERT is not supported"),
        ("INSERT INTO press (ok) VALUES (true) ON CONFLICT DO NOTHING".into(), "ON CONFLICT is not supported"),
        ("INSERT INTO system.quarantine VALUES (1)".into(), "tables of schema system are the server's own"),
        ("INSERT INTO press (ok) SELECT ok FROM nowhere".into(), "table nowhere unknown"),
    ] {
        let error = refused(&server, &sql).await;
        assert!(error.to_lowercase().contains(&said.to_lowercase()), "{sql}: {error}");
    }
    assert_eq!(server.query("SELECT count(*) FROM press").await, ["0"]);
    let only_reads = server.error("INSERT INTO press (ok) VALUES (true)").await;
    assert!(matches!(only_reads, QueryError::ReadOnly { statement: "INSERT" }), "{only_reads}");
}

#[tokio::test]
async fn an_update_writes_the_rows_it_finds_anew_and_leaves_the_others() {
    let server = server().await;
    let rows = "INSERT INTO press (line, machine, temperature, strokes, note, time) VALUES \
                ('a', 'm1', 1.5, 10, 'x', '2024-05-01'), ('a', 'm2', 2.5, 20, 'y', '2024-05-01'), \
                ('b', 'm1', 3.5, NULL, 'z', '2024-05-01')";
    assert_eq!(insert(&server, rows).await, Some(3));
    server.refresh("press").await;
    let update =
        "UPDATE press SET temperature = temperature + 1, strokes = strokes / 20 * 7, note = NULL WHERE line = 'a'";
    assert_eq!(server.change(update).await.unwrap(), ("UPDATE", Some(2)));
    let select = "SELECT machine, temperature, strokes, note FROM press ORDER BY line, machine";
    assert_eq!(server.query(select).await, ["m1 2.5 0 -", "m2 3.5 7 -", "m1 3.5 - z"]);
    // What an expression makes NULL goes too, and each row counts once.
    let update = "UPDATE press SET strokes = CASE WHEN machine = 'm1' THEN NULL ELSE 9 END, note = 'n'";
    assert_eq!(server.change(update).await.unwrap(), ("UPDATE", Some(3)));
    server.refresh("press").await;
    assert_eq!(server.query(select).await, ["m1 2.5 - n", "m2 3.5 9 n", "m1 3.5 - n"]);
    for (sql, said) in [
        ("UPDATE press SET machine = 'm'", "column machine is part of the rows' key"),
        ("UPDATE press SET time = now()", "column time is part of the rows' key"),
        ("UPDATE press SET strokes = 1.5", "column strokes: 1.5 is not a whole number"),
        ("UPDATE press SET strokes = 1, strokes = 2", "column strokes is set twice"),
        ("UPDATE press SET speed = 1", "column speed unknown"),
        ("UPDATE press SET strokes = nothing", "column nothing unknown"),
    ] {
        let error = refused(&server, sql).await;
        assert!(error.contains(said), "{sql}: {error}");
    }
    assert_eq!(server.query(select).await, ["m1 2.5 - n", "m2 3.5 9 n", "m1 3.5 - n"]);
}

#[tokio::test]
async fn parameters_of_an_insert_have_the_types_of_their_columns() {
    let server = server().await;
    let sql = "INSERT INTO press (machine, strokes, temperature, time) VALUES ($1, $2, $3 + 1, $4)";
    let request = QueryRequest { access: Access::Change, ..QueryRequest::new(sql) };
    let described = server.engine.describe(request).await.unwrap();
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    assert_eq!((described.parameters.len(), described.columns), (4, None));
    assert_eq!(described.parameters[..2], [DataType::Utf8View, DataType::Int64]);
    assert_eq!(described.parameters[3], time);
    let values = vec!["m".into(), 7_i64.into(), 1.5_f64.into(), "2024-05-01T00:00:00Z".into()];
    let request = QueryRequest { access: Access::Change, parameters: values, ..QueryRequest::new(sql) };
    server.engine.execute(request).await.unwrap();
    assert_eq!(
        server.query("SELECT machine, strokes, temperature, time FROM press").await,
        ["m 7 2.5 2024-05-01T00:00:00Z"]
    );
}
