//! What cannot be said, and what cannot be reached.

use query::QueryError;

use crate::{DAY, Server};
use model::Value;

#[tokio::test]
async fn statements_that_change_something_are_refused() {
    let server = Server::start();
    server.write("env", &[("a", DAY, &[("temp", Value::F64(1.0))])]).await;
    let target = server.folder.path().join("out.csv");
    let copy = format!("COPY env TO '{}'", target.display());
    for sql in [
        &copy,
        "CREATE EXTERNAL TABLE x STORED AS PARQUET LOCATION '/etc/passwd'",
        "CREATE TABLE x AS SELECT 1",
        "CREATE VIEW x AS SELECT 1",
        "INSERT INTO env (temp) SELECT 1.5 INTO x",
        "INSERT INTO env (temp) SELECT temp FROM env FOR UPDATE",
        "SET datafusion.execution.batch_size = 1",
        "PREPARE p AS SELECT 1",
        "SELECT 1; SELECT 2",
    ] {
        let error = server.error(sql).await;
        assert!(matches!(error, QueryError::Unsupported(_)), "{sql}: {error}");
    }
    assert!(!target.exists());
}

#[tokio::test]
async fn writes_hidden_in_a_query_are_refused() {
    let server = Server::start();
    server.write("env", &[("a", DAY, &[("temp", Value::F64(1.0))])]).await;
    for sql in [
        "WITH x AS (INSERT INTO env (temp) VALUES (1) RETURNING temp) SELECT * FROM x",
        "WITH x AS (DELETE FROM env RETURNING temp) SELECT * FROM x",
        "EXPLAIN ANALYZE INSERT INTO env (temp) VALUES (1)",
        "EXPLAIN ANALYZE SELECT 1 INTO x",
    ] {
        let error = server.error(sql).await;
        assert!(!matches!(error, QueryError::Internal(_)), "{sql}: {error}");
    }
    assert_eq!(server.query("SELECT count(*) FROM env").await, ["1"]);
}

#[tokio::test]
async fn files_cannot_be_reached() {
    let server = Server::start();
    let file = server.folder.path().join("secret.csv");
    std::fs::write(&file, "a,b\n1,2\n").unwrap();
    for sql in [
        format!("SELECT * FROM '{}'", file.display()),
        format!("SELECT * FROM \"{}\"", file.display()),
        format!("SELECT * FROM 'file://{}'", file.display()),
        format!("SELECT * FROM read_csv('{}')", file.display()),
        format!("SELECT * FROM parquet_metadata('{}')", file.display()),
    ] {
        let error = server.error(&sql).await;
        assert!(matches!(error, QueryError::UnknownTable { .. } | QueryError::Plan(_)), "{sql}: {error:?}");
    }
}

#[tokio::test]
async fn errors_say_what_is_wrong_with_the_statement() {
    let server = Server::start();
    server.write("env", &[("a", DAY, &[("temp", Value::F64(1.0))])]).await;
    for (sql, expected) in [
        ("SELECT sum(sensor) FROM env", "sum"),
        ("SELECT no_such_function(1)", "no_such_function"),
        ("SELECT temp FROM env GROUP BY sensor", "GROUP BY"),
        ("SELECT 1 / 0", "ivide by zero"),
        ("SELECT CAST(sensor AS INT) FROM env", "'a'"),
    ] {
        match server.error(sql).await {
            QueryError::Plan(message) => {
                assert!(message.contains(expected), "{sql}: {message}");
                for prefix in ["Error during planning", "Schema error", "Arrow error", "Execution error"] {
                    assert!(!message.contains(prefix), "{sql}: {message}");
                }
            }
            other => panic!("{sql}: {other:?}"),
        }
    }
    match server.error("SELECT *\nFROM env WHERE").await {
        QueryError::Syntax { line: 2, .. } => {}
        other => panic!("{other:?}"),
    }
}
