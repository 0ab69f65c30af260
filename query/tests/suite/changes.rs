//! Statements that change tables: who may send them, what they mean, and what they leave alone.

use std::time::Duration;

use model::{TableName, Value};
use query::QueryError;

use crate::{DAY, Server};

async fn server() -> Server {
    server_with(|_| {}).await
}

async fn server_with(configure: impl FnOnce(&mut query::QueryConfig)) -> Server {
    let server = Server::with(configure);
    let fields = [("Temperature", Value::F64(21.5)), ("n", Value::I64(7))];
    server.write("Weather", &[("a", DAY, &fields), ("b", DAY, &fields)]).await;
    server.write_to(TableName::new("plant", "line"), &[("x", DAY, &[("rpm", Value::I64(1))])]).await;
    server
}

async fn error(server: &Server, sql: &str) -> QueryError {
    server.change(sql).await.err().unwrap_or_else(|| panic!("{sql} was carried out"))
}

#[tokio::test]
async fn who_may_only_read_changes_nothing() {
    let server = server().await;
    for (sql, tag) in [
        ("CREATE TABLE t (x INT)", "CREATE TABLE"),
        ("ALTER TABLE weather ADD x INT", "ALTER TABLE"),
        ("ALTER TABLE weather RESET (retention)", "ALTER TABLE"),
        ("DROP TABLE IF EXISTS weather", "DROP TABLE"),
        ("OPTIMIZE TABLE weather", "OPTIMIZE TABLE"),
        ("DELETE FROM weather WHERE false", "DELETE"),
        ("UPDATE weather SET n = NULL WHERE false", "UPDATE"),
    ] {
        match server.error(sql).await {
            QueryError::ReadOnly { statement } => assert_eq!(statement, tag),
            other => panic!("{sql}: {other:?}"),
        }
    }
    assert_eq!(server.query("SELECT count(n) FROM weather").await, ["2"]);
}

#[tokio::test]
async fn the_servers_own_tables_cannot_be_changed() {
    let server = server().await;
    for table in
        ["system.rejected", "SYSTEM.rejected", "system.new", "information_schema.tables", "eden.system.rejected"]
    {
        for sql in [
            format!("CREATE TABLE {table} (x INT)"),
            format!("CREATE TABLE IF NOT EXISTS {table} (x INT)"),
            format!("ALTER TABLE {table} ADD x INT"),
            format!("ALTER TABLE IF EXISTS {table} SET (retention = '1d')"),
            format!("DROP TABLE IF EXISTS {table}"),
            format!("OPTIMIZE TABLE weather, {table}"),
            format!("DELETE FROM {table}"),
            format!("UPDATE {table} SET x = NULL"),
        ] {
            let error = error(&server, &sql).await.to_string();
            assert!(error.contains("are the server's own and can only be read"), "{sql}: {error}");
        }
    }
}

#[tokio::test]
async fn names_mean_what_they_mean_in_a_query() {
    let server = server().await;
    for (sql, expected) in [
        ("DROP TABLE wether", r#"table wether unknown; did you mean "Weather"?"#),
        ("DELETE FROM plant.lines", "table plant.lines unknown; did you mean plant.line?"),
        ("DELETE FROM plent.line", "schema plent unknown; did you mean plant?"),
        (r#"DROP TABLE "weather""#, r#"table weather unknown; did you mean "Weather"?"#),
        ("DROP TABLE a.b.c.d", "table a.b.c.d unknown"),
        ("DROP TABLE other.public.weather", r#"table other.public."Weather" unknown"#),
        ("DELETE FROM weather WHERE temperatur > 1", r#"column temperatur unknown; did you mean "Temperature"?"#),
        ("UPDATE weather SET temperatur = NULL", r#"column temperatur unknown; did you mean "Temperature"?"#),
        (r#"UPDATE weather SET "temperature" = NULL"#, r#"column temperature unknown; did you mean "Temperature"?"#),
        ("ALTER TABLE weather ALTER m TYPE DOUBLE", "column m unknown"),
        ("UPDATE weather SET sensor = NULL", "column sensor is part of the rows' key, and only a field can be set"),
        ("UPDATE weather SET time = NULL", "column time is part of the rows' key"),
        ("UPDATE weather SET n = NULL, N = NULL", "column n is set twice"),
        (
            "ALTER TABLE weather ALTER sensor TYPE DOUBLE",
            "column sensor is part of the rows' key, and only a field changes",
        ),
        ("ALTER TABLE weather ADD N INT", "column n exists in table \"Weather\""),
        ("ALTER TABLE weather ADD \"temperature\" INT", "column temperature exists in table \"Weather\""),
        ("ALTER TABLE weather ADD x INT, ADD x INT", "column x exists in table \"Weather\", or stands there twice"),
        ("CREATE TABLE weather (x INT)", r#"table "Weather" exists"#),
        ("CREATE TABLE doc.weather (x INT)", r#"table "Weather" exists"#),
        ("CREATE TABLE PLANT.line (x INT)", "table plant.line exists"),
        ("CREATE TABLE other.public.t (x INT)", "there is one database, eden"),
        ("CREATE TABLE \"a\nb\" (x INT)", "control character"),
        ("CREATE TABLE \"\" (x INT)", "a table name is empty"),
    ] {
        let error = error(&server, sql).await.to_string();
        assert!(error.contains(expected), "{sql}: {error}");
    }
}

#[tokio::test]
async fn what_need_not_be_there_may_be_missing() {
    let server = server().await;
    for (sql, expected) in [
        ("CREATE TABLE IF NOT EXISTS weather (x INT)", ("CREATE TABLE", Some(0))),
        ("CREATE TABLE IF NOT EXISTS \"Weather\" (x INT)", ("CREATE TABLE", Some(0))),
        ("DROP TABLE IF EXISTS wether", ("DROP TABLE", Some(0))),
        ("DROP TABLE IF EXISTS nowhere.weather", ("DROP TABLE", Some(0))),
        ("ALTER TABLE IF EXISTS wether SET (retention = '1d')", ("ALTER TABLE", Some(0))),
        ("ALTER TABLE weather ADD COLUMN IF NOT EXISTS n INT", ("ALTER TABLE", None)),
        ("DELETE FROM weather WHERE sensor = 'c'", ("DELETE", Some(0))),
        ("DELETE FROM weather w WHERE w.TEMPERATURE > 22", ("DELETE", Some(0))),
        ("UPDATE weather SET n = NULL WHERE time > now() AND temperature IS NULL", ("UPDATE", Some(0))),
    ] {
        match server.change(sql).await {
            Ok(done) => assert_eq!(done, expected, "{sql}"),
            Err(error) => panic!("{sql}: {error}"),
        }
    }
}

#[tokio::test]
async fn conditions_have_the_errors_and_limits_of_queries() {
    let server = server_with(|config| config.timeout = Duration::from_millis(300)).await;
    for sql in [
        "DELETE FROM weather WHERE sum(n) > 1",
        "DELETE FROM weather WHERE sensor",
        "DELETE FROM weather WHERE n = (SELECT n FROM wether)",
        "DELETE FROM weather WHERE CAST(sensor AS INT) = 1",
        "DELETE FROM weather WHERE EXISTS (WITH x AS (DELETE FROM weather RETURNING n) SELECT 1 FROM x)",
        "UPDATE weather SET n = NULL WHERE 1 / (n - 7) = 1",
    ] {
        let error = error(&server, sql).await;
        let expected = matches!(
            error,
            QueryError::Plan(_)
                | QueryError::UnknownTable { .. }
                | QueryError::Syntax { .. }
                | QueryError::Unsupported(_)
        );
        assert!(expected, "{sql}: {error:?}");
    }
    let endless = "(SELECT count(*) FROM generate_series(1, 1000000000000) WHERE value % 7 = 9)";
    let error = error(&server, &format!("DELETE FROM weather WHERE n = {endless}")).await;
    assert!(matches!(error, QueryError::Timeout { .. }), "{error:?}");
    assert_eq!(server.query("SELECT count(n) FROM weather").await, ["2"]);
}
