//! Parameters: what they are bound to, and what a statement says of them before.

use arrow::datatypes::{DataType, TimeUnit};
use model::Value;
use query::{Access, Description, QueryError, QueryRequest, QueryResult, ScalarValue};

use crate::{DAY, HOUR, Server, collect};

async fn server() -> Server {
    let server = Server::start();
    let readings = [("a", DAY, 1.5), ("b", DAY + HOUR, 2.5), ("it's", DAY + 2 * HOUR, 3.5)];
    for (sensor, time, temp) in readings {
        server.write("env", &[(sensor, time, &[("temp", Value::F64(temp)), ("n", Value::I64(7))])]).await;
    }
    server
}

impl Server {
    async fn query_with(&self, sql: &str, parameters: Vec<ScalarValue>) -> Result<Vec<String>, QueryError> {
        let request = QueryRequest { parameters, access: Access::Change, ..QueryRequest::new(sql) };
        match self.engine.execute(request).await? {
            QueryResult::Rows(rows) => collect(rows).await,
            QueryResult::Done { statement, rows } => Ok(vec![format!("{statement} {rows:?}")]),
        }
    }

    async fn describe(&self, sql: &str, parameters: Vec<ScalarValue>) -> Result<Description, QueryError> {
        let request = QueryRequest { parameters, ..QueryRequest::new(sql) };
        self.engine.describe(request).await
    }
}

#[tokio::test]
async fn parameters_stand_for_constants_in_queries_and_changes() {
    let server = server().await;
    let time = |time| ScalarValue::TimestampMicrosecond(Some(time), Some("UTC".into()));
    for (sql, parameters, expected) in [
        ("SELECT temp FROM env WHERE sensor = $1", vec!["it's".into()], "3.5"),
        ("SELECT temp FROM env WHERE sensor = ?", vec!["b".into()], "2.5"),
        ("SELECT temp FROM env WHERE time > $1", vec![time(DAY + HOUR)], "3.5"),
        ("SELECT temp FROM env WHERE time > $1", vec!["2024-05-01T01:00:00Z".into()], "3.5"),
        ("SELECT temp FROM env ORDER BY temp LIMIT $1 OFFSET $2", vec![1_i64.into(), 1_i64.into()], "2.5"),
        ("SELECT $1 + 1", vec![1_i32.into()], "2"),
        ("SELECT n + $1 FROM env LIMIT 1", vec![ScalarValue::Float64(Some(0.5))], "7.5"),
        ("SELECT $1 || 'x'", vec!["'; DROP TABLE env; --".into()], "'; DROP TABLE env; --x"),
        ("SELECT $1 IS NULL", vec![ScalarValue::Null], "true"),
        ("SELECT arrow_typeof($1)", vec![ScalarValue::Int16(None)], "Int16"),
        ("SELECT arrow_typeof($1)", vec![ScalarValue::UInt64(Some(u64::MAX))], "UInt64"),
        ("SELECT arrow_typeof($1)", vec![ScalarValue::Float32(Some(1.5))], "Float32"),
        ("SELECT arrow_typeof($1)", vec![ScalarValue::Decimal128(Some(15), 9, 1)], "Decimal128(9, 1)"),
        ("SELECT arrow_typeof($1)", vec![time(0)], "Timestamp(µs, \"UTC\")"),
        ("SELECT $1", vec![time(-1)], "1969-12-31T23:59:59.999999Z"),
        ("SELECT $1", vec![ScalarValue::Float64(Some(f64::MIN_POSITIVE))], "2.2250738585072014e-308"),
        ("SELECT $1", vec![ScalarValue::Float64(Some(f64::NEG_INFINITY))], "-inf"),
        ("SELECT $1", vec![i64::MIN.into()], "-9223372036854775808"),
        ("SELECT 5 - $1", vec![(-2_i64).into()], "7"),
        ("DELETE FROM env WHERE sensor = $1", vec!["a".into()], "DELETE Some(1)"),
        ("SELECT count(*) FROM env", vec![], "2"),
    ] {
        assert_eq!(server.query_with(sql, parameters).await.unwrap(), [expected], "{sql}");
    }
    for (sql, parameters) in [
        ("SELECT $1", vec![]),
        ("SELECT 1", vec![1_i64.into()]),
        ("REFRESH TABLE env", vec![1_i64.into()]),
        ("SELECT $2", vec![1_i64.into()]),
    ] {
        let error = server.query_with(sql, parameters).await.unwrap_err();
        assert!(matches!(error, QueryError::Plan(_)), "{sql}: {error}");
    }
}

#[tokio::test]
async fn a_statement_is_described_without_being_run() {
    let server = server().await;
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let text = DataType::Utf8View;
    for (sql, declared, parameters, columns) in [
        ("SELECT temp, time FROM env", vec![], vec![], Some(vec![DataType::Float64, time.clone()])),
        ("SELECT n FROM env WHERE time > $1", vec![], vec![time.clone()], Some(vec![DataType::Int64])),
        (
            "SELECT n FROM env WHERE sensor = $2 AND temp < $1",
            vec![],
            vec![DataType::Float64, text],
            Some(vec![DataType::Int64]),
        ),
        (
            "SELECT n FROM env WHERE n = $1",
            vec![ScalarValue::Int32(None)],
            vec![DataType::Int32],
            Some(vec![DataType::Int64]),
        ),
        ("SELECT n FROM env LIMIT $1", vec![], vec![DataType::Int64], Some(vec![DataType::Int64])),
        ("SELECT $1", vec![], vec![DataType::Utf8], Some(vec![DataType::Utf8View])),
        ("SELECT $1", vec![ScalarValue::Int32(None)], vec![DataType::Int32], Some(vec![DataType::Int32])),
        ("SELECT 1 UNION ALL SELECT 1.5", vec![], vec![], Some(vec![DataType::Float64])),
        ("EXPLAIN SELECT n FROM env", vec![], vec![], Some(vec![DataType::Utf8, DataType::Utf8])),
        ("DELETE FROM env WHERE time < $1", vec![], vec![time], None),
        ("REFRESH TABLE env", vec![], vec![], None),
        ("DROP TABLE env", vec![], vec![], None),
    ] {
        let found = server.describe(sql, declared).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert_eq!(found.parameters, parameters, "{sql}");
        let types =
            found.columns.map(|columns| columns.fields().iter().map(|field| field.data_type().clone()).collect());
        assert_eq!(types, columns, "{sql}");
    }
    assert!(matches!(server.describe("SELECT x FROM env", vec![]).await, Err(QueryError::UnknownColumn { .. })));
    assert!(matches!(server.describe("SELECT 1 FROM nothing", vec![]).await, Err(QueryError::UnknownTable { .. })));
    assert_eq!(server.query("SELECT count(*) FROM env").await, ["3"]);
}
