//! What exists, and what names mean.

use model::{TableName, Value};

use crate::{DAY, Server};

async fn server() -> Server {
    let server = Server::start();
    let fields = [("Temperature", Value::F64(21.5)), ("ok", Value::Bool(true)), ("n", Value::U64(7))];
    server.write("Weather", &[("a", DAY, &fields)]).await;
    server.write("bmp180", &[("a", DAY, &fields)]).await;
    server.write_to(TableName::new("plant", "bmp180"), &[("x", DAY, &[("rpm", Value::I64(1))])]).await;
    server
}

#[tokio::test]
async fn unquoted_names_in_any_case_and_aliases_of_public_work() {
    let server = server().await;
    for sql in [
        "SELECT temperature FROM weather",
        "SELECT TEMPERATURE FROM WEATHER",
        r#"SELECT "Temperature" FROM "Weather""#,
        "SELECT w.temperature FROM Weather AS w",
        "SELECT weather.temperature FROM weather",
        "SELECT temperature FROM doc.weather",
        "SELECT doc.weather.temperature FROM doc.weather",
        "SELECT weather.temperature FROM doc.weather",
        "SELECT temperature FROM iox.weather",
        "SELECT temperature FROM public.weather",
        "SELECT temperature FROM eden.public.weather",
        "SELECT temperature FROM weather WHERE temperature > 0 GROUP BY temperature ORDER BY temperature",
        "WITH w AS (SELECT temperature FROM weather) SELECT temperature FROM w",
        "SELECT max(temperature) AS temperature FROM weather",
    ] {
        assert_eq!(server.query(sql).await, ["21.5"], "{sql}");
    }
}

#[tokio::test]
async fn unknown_names_come_with_what_is_close() {
    let server = server().await;
    for (sql, expected) in [
        ("SELECT * FROM wether", r#"table wether unknown; did you mean "Weather"?"#),
        ("SELECT * FROM plant.bmp18", "table plant.bmp18 unknown; did you mean plant.bmp180?"),
        ("SELECT * FROM plent.bmp180", "schema plent unknown; did you mean plant?"),
        ("SELECT * FROM nothing_like_it", "table nothing_like_it unknown"),
        ("SELECT temperatur FROM weather", r#"column temperatur unknown; did you mean "Temperature"?"#),
        ("SELECT w.temperatur FROM weather w", r#"column w.temperatur unknown; did you mean "Temperature"?"#),
        (r#"SELECT "temperature" FROM weather"#, r#"column temperature unknown; did you mean "Temperature"?"#),
        ("SELECT eden_day FROM weather", "column eden_day unknown"),
        ("DESCRIBE wether", r#"table wether unknown; did you mean "Weather"?"#),
        ("REFRESH TABLE wether", r#"table wether unknown; did you mean "Weather"?"#),
    ] {
        assert_eq!(server.error(sql).await.to_string(), expected, "{sql}");
    }
}

#[tokio::test]
async fn tables_and_columns_can_be_listed() {
    let server = server().await;
    let tables = "SELECT table_schema, table_name FROM information_schema.tables \
                  WHERE table_schema <> 'information_schema' ORDER BY 1, 2";
    assert_eq!(
        server.query(tables).await,
        ["plant bmp180", "public Weather", "public bmp180", "system quarantine", "system queries"]
    );
    let shown = server.query("SHOW TABLES").await;
    assert!(shown.contains(&"eden public Weather BASE TABLE".to_owned()), "{shown:?}");
    let columns = [
        "sensor Utf8View YES",
        "Temperature Float64 YES",
        "ok Boolean YES",
        "n Decimal128(20, 0) YES",
        "time Timestamp(µs, \"UTC\") NO",
    ];
    for sql in ["DESCRIBE weather", "DESCRIBE doc.weather", "DESC \"Weather\""] {
        assert_eq!(server.query(sql).await, columns, "{sql}");
    }
    let shown = server.query("SHOW COLUMNS FROM bmp180").await;
    assert_eq!(shown.len(), 5, "of public alone: {shown:?}");
    assert_eq!(shown[0], "eden public bmp180 sensor Utf8View YES");
    let schemas = server.query("SELECT schema_name FROM information_schema.schemata ORDER BY 1").await;
    assert_eq!(schemas, ["plant", "public", "system"]);
    let zone = server.query("SHOW datafusion.execution.time_zone").await;
    assert_eq!(zone, ["datafusion.execution.time_zone UTC"]);
}

#[tokio::test]
async fn what_was_set_aside_is_a_table() {
    let server = server().await;
    assert_eq!(server.query("SELECT count(*) FROM system.quarantine").await, ["0"]);
    let aside = |reason: &str| storage::SetAside {
        time_us: 1_780_272_000_000_000,
        source: "mqtt pi-7".into(),
        topic: "eden/v1/pi-7/lp".into(),
        schema: "public".into(),
        precision: "nanosecond".into(),
        reason: reason.into(),
        payload: b"caf\xe9".to_vec(),
        is_whole: true,
    };
    server.storage.set_aside(&[aside("not UTF-8"), aside("again")]).unwrap();
    let rows = "SELECT source, topic, reason, payload, bytes, time FROM system.quarantine ORDER BY reason LIMIT 1";
    let row = "mqtt pi-7 eden/v1/pi-7/lp again caf\u{fffd} 4 2026-06-01T00:00:00Z";
    assert_eq!(server.query(rows).await, [row]);
    assert_eq!(server.query("SELECT count(*) FROM system.quarantine WHERE reason = 'again'").await, ["1"]);
}
