//! Statements that come again: their plans are kept, what they read is not.

use model::Value;
use query::{Access, ClientSession, QueryRequest, QueryResult};
use std::sync::Arc;

use crate::{DAY, HOUR, Server, collect};

impl Server {
    /// As [`Server::query`], and whether the plan was there.
    async fn query_again(&self, sql: &str) -> (Vec<String>, bool) {
        let before = self.engine.stats().plans_reused_total;
        let rows = self.query(sql).await;
        (rows, self.engine.stats().plans_reused_total > before)
    }
}

#[tokio::test]
async fn a_statement_that_comes_again_sees_what_was_written_since() {
    let server = Server::start();
    let statements = [
        "SELECT sensor, last(t, time) AS t FROM env GROUP BY sensor ORDER BY sensor",
        "SELECT sensor, max(t) AS t FROM env WHERE t IN (SELECT t FROM env WHERE t > 0) GROUP BY 1 ORDER BY 1",
        "SELECT a.sensor, b.t FROM env a JOIN env b USING (sensor, time) ORDER BY b.time DESC, a.sensor LIMIT 2",
        "SELECT DISTINCT ON (sensor) sensor, t FROM env ORDER BY sensor, time DESC",
        "SELECT sensor, t FROM env WHERE time >= '2024-05-01' ORDER BY t DESC, sensor LIMIT 2",
        "WITH e AS (SELECT sensor, max(t) AS t FROM env GROUP BY sensor) SELECT * FROM e ORDER BY sensor",
    ];
    server.write("env", &[("a", DAY, &[("t", Value::F64(1.0))]), ("b", DAY, &[("t", Value::F64(1.0))])]).await;
    for sql in statements {
        assert_eq!(server.query_again(sql).await, (vec!["a 1.0".into(), "b 1.0".into()], false), "{sql}");
    }
    for round in 2..5 {
        let t = f64::from(round);
        let time_us = DAY + i64::from(round) * HOUR;
        let row = [("t", Value::F64(t))];
        server.write("env", &[("a", time_us, &row), ("b", time_us, &row)]).await;
        for is_settled in [false, true] {
            if is_settled {
                server.refresh("env").await;
            }
            for sql in statements {
                let expected = vec![format!("a {t:?}"), format!("b {t:?}")];
                assert_eq!(server.query_again(sql).await, (expected, true), "{sql}");
            }
        }
    }
}

#[tokio::test]
async fn a_table_with_other_columns_is_planned_anew() {
    let server = Server::start();
    server.write("env", &[("a", DAY, &[("t", Value::F64(1.0))])]).await;
    let sql = "SELECT * FROM env";
    let first = server.query(sql).await;
    assert_eq!(server.query_again(sql).await, (first.clone(), true));
    server.write("env", &[("a", DAY, &[("h", Value::I64(2))])]).await;
    let (wider, was_there) = server.query_again(sql).await;
    assert!(!was_there && wider.len() == 1 && wider[0].contains('2') && wider[0].len() > first[0].len(), "{wider:?}");
    assert_eq!(server.query_again(sql).await, (wider, true));

    server.change("DROP TABLE env").await.unwrap();
    assert!(server.error(sql).await.to_string().contains("unknown"));
    server.write("env", &[("b", DAY, &[("t", Value::I64(7))])]).await;
    let (other, _) = server.query_again(sql).await;
    assert!(other.len() == 1 && other[0].starts_with("b 7"), "{other:?}");
}

#[tokio::test]
async fn a_table_that_the_optimizer_left_out_is_looked_at_too() {
    let server = Server::start();
    server.write("env", &[("a", DAY, &[("t", Value::F64(1.0))])]).await;
    server.write("other", &[("a", DAY, &[("x", Value::F64(1.0))])]).await;
    let joined = "SELECT env.*, other.* FROM env LEFT JOIN other ON false";
    for sql in ["SELECT * FROM other LIMIT 0", "SELECT * FROM other WHERE 1 = 0", joined] {
        for _ in 0..2 {
            server.query(sql).await;
        }
        assert!(server.query_again(sql).await.1, "{sql}");
        let before = server.start_rows(sql).await.unwrap().schema.fields().len();
        let name = format!("y{before}");
        server.write("other", &[("a", DAY + before as i64, &[(name.as_str(), Value::I64(2))])]).await;
        assert_eq!(server.start_rows(sql).await.unwrap().schema.fields().len(), before + 1, "{sql}");
    }
}

#[tokio::test]
async fn what_depends_on_the_moment_or_the_client_is_planned_each_time() {
    let server = Server::start();
    server.write("env", &[("a", DAY, &[("t", Value::F64(1.0))])]).await;
    for sql in [
        "SELECT now() > time FROM env",
        "SELECT t FROM env WHERE time < now() - INTERVAL '1 day'",
        "SELECT random() < 2 FROM env",
        "SELECT t FROM env WHERE t IN (SELECT CASE WHEN now() IS NULL THEN 2.0 ELSE 1.0 END)",
        "SELECT count(*) FROM information_schema.tables WHERE table_name = 'env'",
        "EXPLAIN SELECT t FROM env",
        "SELECT current_date > '2020-01-01' FROM env",
        // What belongs to one run is part of the plan.
        "SELECT array_agg(t) OVER (ORDER BY time ROWS 5 PRECEDING) FROM env",
        "SELECT time_bucket_gapfill(INTERVAL '1 hour', time) AS b, avg(t) FROM env \
         WHERE time >= '2024-05-01' AND time < '2024-05-02' GROUP BY 1",
    ] {
        server.query(sql).await;
        assert!(!server.query_again(sql).await.1, "{sql}");
    }
    let ask = async |session: Option<ClientSession>, sql: &str| {
        let request = QueryRequest { session: session.map(Arc::new), ..QueryRequest::new(sql) };
        let Ok(QueryResult::Rows(rows)) = server.engine.execute(request).await else { panic!("{sql}") };
        collect(rows).await.unwrap()
    };
    let crate_db = ClientSession { manner: query::Manner::CrateDb { public: "doc" }, ..ClientSession::default() };
    for (session, expected) in
        [(None, "public"), (Some(crate_db), "doc"), (Some(ClientSession::default()), "public"), (None, "public")]
    {
        assert_eq!(ask(session, "SELECT current_schema() FROM env").await, [expected]);
    }
    for user in ["ann", "bob"] {
        let session = ClientSession { user: user.into(), ..ClientSession::default() };
        assert_eq!(ask(Some(session), "SELECT current_user, t FROM env").await, [format!("{user} 1.0")]);
    }
}

#[tokio::test]
async fn a_statement_of_another_schema_or_with_other_values_is_another() {
    let server = Server::start();
    for (table, t) in [("public.env", 1), ("plant.env", 2)] {
        server
            .change(&format!(
                "CREATE TABLE {table} (sensor TEXT, t BIGINT, time TIMESTAMP, PRIMARY KEY (sensor, time))"
            ))
            .await
            .unwrap();
        let insert =
            format!("INSERT INTO {table} (sensor, t, time) VALUES ('a', {t}, '2024-05-01'), ('b', {t}, '2024-05-01')");
        server.change(&insert).await.unwrap();
    }
    for _ in 0..2 {
        for (schema, expected) in [("public", "1"), ("plant", "2")] {
            for sensor in ["a", "b"] {
                let request = QueryRequest {
                    default_schema: Some(schema.into()),
                    parameters: vec![sensor.into()],
                    access: Access::Read,
                    ..QueryRequest::new("SELECT sensor, t FROM env WHERE sensor = $1")
                };
                let Ok(QueryResult::Rows(rows)) = server.engine.execute(request).await else { panic!("{schema}") };
                assert_eq!(collect(rows).await.unwrap(), [format!("{sensor} {expected}")]);
            }
        }
    }
    assert_eq!(server.engine.stats().plans_reused_total, 4);
}

#[tokio::test]
async fn a_long_statement_is_not_kept() {
    let server = Server::start();
    server.write("env", &[("a", DAY, &[("t", Value::F64(1.0))])]).await;
    let sql = format!("SELECT t FROM env WHERE sensor IN ({}'a')", "'b', ".repeat(5_000));
    server.query(&sql).await;
    assert_eq!(server.query_again(&sql).await, (vec!["1.0".into()], false));
}

#[tokio::test]
async fn few_rows_are_not_shared_among_threads() {
    let sql = "SELECT sensor, max(t) AS t, count(*) AS n FROM env GROUP BY sensor ORDER BY sensor";
    for (few_rows, is_shared) in [(0, true), (11, true), (12, false)] {
        let server = Server::with(|config| config.few_rows = few_rows);
        for hour in 0..6 {
            let row = [("t", Value::F64(hour as f64))];
            server.write("env", &[("a", DAY + hour * HOUR, &row), ("b", DAY + hour * HOUR, &row)]).await;
            if hour == 3 {
                server.refresh("env").await;
            }
        }
        let plan = server.query(&format!("EXPLAIN {sql}")).await.join("\n");
        assert_eq!(plan.contains("RepartitionExec"), is_shared, "{few_rows}: {plan}");
        assert_eq!(server.query(sql).await, ["a 5.0 6", "b 5.0 6"], "{few_rows}");
        let groups = "SELECT sensor, count(*) AS n FROM env GROUP BY sensor";
        let join = format!("SELECT a.n FROM ({groups}) a JOIN env b ON a.sensor = b.sensor");
        let joined = server.query(&format!("EXPLAIN {join}")).await.join("\n");
        assert!(joined.contains("RepartitionExec"), "what a join makes may be many: {joined}");
    }
}
