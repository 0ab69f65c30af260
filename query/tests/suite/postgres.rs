//! What clients of PostgreSQL ask the catalog, where DataFusion cannot plan it as it is written.

use std::collections::BTreeMap;
use std::sync::Arc;

use query::{ClientSession, QueryError, QueryRequest, QueryResult};

use crate::{Server, collect};

/// A sensor with a decimal, in a schema of the path and in another.
async fn server() -> Server {
    let server = Server::start();
    for table in ["public.env", "plant.\"Line 1\""] {
        let create = format!(
            "CREATE TABLE {table} (sensor TEXT, price DECIMAL(9,2), x DOUBLE, time TIMESTAMP, PRIMARY KEY (sensor, time))"
        );
        server.change(&create).await.unwrap();
    }
    server
}

fn request(sql: &str) -> QueryRequest {
    let settings = [("search_path", "\"$user\", public"), ("jit", "off"), ("max_index_keys", "32")];
    let settings: BTreeMap<_, _> = settings.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let session = ClientSession { user: "me".into(), settings, ..ClientSession::default() };
    QueryRequest { session: Some(Arc::new(session)), ..QueryRequest::new(sql) }
}

async fn rows(server: &Server, sql: &str) -> Result<Vec<String>, QueryError> {
    match server.engine.execute(request(sql)).await? {
        QueryResult::Rows(rows) => collect(rows).await,
        other @ QueryResult::Done { .. } => panic!("{sql}: {other:?}"),
    }
}

const IN_SEARCH_PATH: &str = "SELECT CASE WHEN trim(s[i]) = '\"$user\"' THEN user ELSE trim(s[i]) END FROM \
     generate_series(array_lower(string_to_array(current_setting('search_path'),','),1), \
     array_upper(string_to_array(current_setting('search_path'),','),1)) as i, \
     string_to_array(current_setting('search_path'),',') s";

#[tokio::test]
async fn grafana_finds_tables_and_columns_by_the_search_path() {
    let server = server().await;
    // It asks for no order, and its rows come from several partitions.
    let mut path = rows(&server, IN_SEARCH_PATH).await.unwrap();
    path.sort_unstable();
    assert_eq!(path, ["me", "public"]);
    let tables = format!(
        "SELECT CASE WHEN quote_ident(table_schema) IN ({IN_SEARCH_PATH}) THEN quote_ident(table_name) \
         ELSE quote_ident(table_schema) || '.' || quote_ident(table_name) END AS \"table\" FROM information_schema.tables \
         WHERE table_schema <> 'system' \
         ORDER BY CASE WHEN quote_ident(table_schema) IN ({IN_SEARCH_PATH}) THEN 0 ELSE 1 END, 1"
    );
    assert_eq!(rows(&server, &tables).await.unwrap(), ["env", "plant.\"Line 1\""]);
    for (table, expected) in [("env", 4), ("public.env", 4), ("line", 0), ("plant.\"Line 1\"", 4)] {
        let columns = format!(
            "SELECT column_name FROM information_schema.columns WHERE CASE WHEN array_length(parse_ident('{table}'),1) = 2 \
             THEN quote_ident(table_schema) = quote_ident((parse_ident('{table}'))[1]) \
             AND quote_ident(table_name) = quote_ident((parse_ident('{table}'))[2]) \
             ELSE quote_ident(table_name) = '{table}' AND quote_ident(table_schema) IN ({IN_SEARCH_PATH}) END"
        );
        assert_eq!(rows(&server, &columns).await.unwrap().len(), expected, "{table}");
    }
}

#[tokio::test]
async fn statements_about_the_catalog_are_planned_as_they_are_meant() {
    let server = server().await;
    for (sql, expected) in [
        // (9 << 16 | 2) + 4, as PostgreSQL keeps the digits of a decimal.
        (
            "SELECT a.attname, a.atttypmod FROM pg_attribute a JOIN pg_class c ON a.attrelid = c.oid \
             WHERE c.relname = 'env' ORDER BY a.attnum",
            &["sensor -1", "price 589830", "x -1", "time -1"][..],
        ),
        ("SELECT setting FROM pg_settings WHERE name = 'max_index_keys'", &["32"]),
        ("SELECT reloptions, relacl FROM pg_class WHERE relname = 'env'", &["- -"]),
        ("SELECT unnest(indkey), generate_subscripts(indkey, 1) FROM pg_index", &[]),
        ("SELECT (information_schema._pg_expandarray(indkey)).n FROM pg_index", &[]),
        (
            "SELECT c.relname FROM pg_class c WHERE c.relkind = 'r' AND (SELECT n.nspname = 'plant' FROM pg_namespace n \
             WHERE n.oid = c.relnamespace)",
            &["Line 1"],
        ),
        (
            "SELECT nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg/_%' ESCAPE '/' AND nspname LIKE 'p%' ORDER BY 1",
            &["plant", "public"],
        ),
        ("SELECT current_setting('jit'), set_config('jit', 'off', false)", &["off off"]),
        ("SELECT json_build_object('a', 1, 'b', 'x\"', 'c', NULL)", &["{\"a\" : 1, \"b\" : \"x\\\"\", \"c\" : null}"]),
        ("SELECT format('%I.%I = %L', 'plant', 'Line 1', 'it''s')", &["plant.\"Line 1\" = 'it''s'"]),
    ] {
        assert_eq!(rows(&server, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}")), expected, "{sql}");
    }
    for (sql, said) in [
        ("SELECT set_config('jit', 'on', false)", "use SET jit"),
        ("SELECT set_config('nothing', 'on', false)", "unrecognized configuration parameter"),
        ("SELECT json_build_object('a')", "even number"),
    ] {
        assert!(rows(&server, sql).await.unwrap_err().to_string().contains(said), "{sql}");
    }
}

#[tokio::test]
async fn escape_characters_of_like_are_any() {
    let server = Server::start();
    for (sql, expected) in [
        (
            "SELECT 'a_b' LIKE 'a/_b' ESCAPE '/', 'axb' LIKE 'a/_b' ESCAPE '/', 'axb' LIKE 'a_b' ESCAPE '/'",
            "true false true",
        ),
        (
            "SELECT '50%' LIKE '50!%' ESCAPE '!', 'A_' ILIKE 'a#_' ESCAPE '#', 'a\\' NOT LIKE 'a\\' ESCAPE '/'",
            "true true false",
        ),
    ] {
        assert_eq!(server.query(sql).await, [expected], "{sql}");
    }
    assert!(server.error("SELECT 'a' LIKE 'a' ESCAPE 'ab'").await.to_string().contains("one character"));
}

#[tokio::test]
async fn a_parameter_has_the_type_that_it_is_cast_to() {
    let server = server().await;
    for (sql, expected) in [
        ("SELECT oid FROM pg_type WHERE oid = any($1::oid[])", "List(UInt32)"),
        ("SELECT typname FROM pg_type WHERE oid = $1::oid", "UInt32"),
        ("SELECT x FROM env WHERE sensor = any($1::text[])", "List(Utf8View)"),
        ("SELECT $1::bigint", "Int64"),
        ("SELECT x FROM env WHERE sensor = $1", "Utf8View"),
    ] {
        let described = server.engine.describe(request(sql)).await.unwrap();
        let found: Vec<String> = described.parameters.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), 1, "{sql}");
        assert!(
            found[0].replace(", field: 'item'", "").starts_with(expected.trim_end_matches(')')),
            "{sql}: {found:?}"
        );
    }
}
