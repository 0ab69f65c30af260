//! Memory, time, number (P10).

use std::time::Duration;

use futures::StreamExt;
use model::Value;
use query::QueryError;

use crate::{DAY, Server, collect};

/// Rows without end, for all that a test can wait.
const ENDLESS: &str = "SELECT value FROM generate_series(1, 1000000000000)";

/// No rows, and no end either.
const SILENT: &str = "SELECT count(*) FROM generate_series(1, 1000000000000) WHERE value % 7 = 9";

/// DataFusion's own tasks end a little after the statement.
async fn memory_is_returned(server: &Server) {
    let returned = async {
        while server.engine.stats().memory_bytes > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), returned).await.unwrap();
}

#[tokio::test]
async fn too_little_memory_is_an_error_that_names_the_limit_and_the_remedy() {
    let server = Server::with(|config| config.memory_bytes_max = 4 << 20);
    let error = server.error("SELECT array_agg(value) FROM generate_series(1, 10000000)").await;
    assert!(matches!(error, QueryError::MemoryLimit { limit_bytes: 4_194_304, .. }), "{error:?}");
    let shown = error.to_string();
    assert!(shown.contains("4194304 bytes") && shown.contains("`[query] memory`"), "{shown}");
    memory_is_returned(&server).await;
    assert_eq!(server.query("SELECT 1").await, ["1"]);
}

#[tokio::test]
async fn a_sort_of_more_than_the_memory_spills() {
    let server = Server::with(|config| config.memory_bytes_max = 24 << 20);
    let sql = "SELECT count(*), max(r), count(pad) FROM (SELECT pad, row_number() OVER (ORDER BY value % 1000, value) AS r FROM \
               (SELECT value, repeat(chr(65 + value % 26), 40) AS pad FROM generate_series(1, 500000)))";
    assert_eq!(server.query(sql).await, ["500000 500000 500000"]);
    memory_is_returned(&server).await;
}

#[tokio::test]
async fn a_timeout_names_the_limit_and_covers_the_whole_life() {
    let server = Server::with(|config| config.timeout = Duration::from_millis(200));
    for sql in [SILENT, ENDLESS] {
        let error = server.error(sql).await;
        assert!(matches!(error, QueryError::Timeout { .. }), "{sql}: {error:?}");
        assert!(error.to_string().contains("0.2 s") && error.to_string().contains("`[query] timeout`"), "{error}");
    }
    // A reader that does not read is no reason to go on either: it finds what was on its way, then the error.
    let mut rows = server.start_rows(ENDLESS).await.unwrap();
    assert!(rows.next().await.unwrap().is_ok());
    assert_eq!(server.engine.shutdown(Duration::from_secs(60)).await, 0);
    assert!(matches!(collect(rows).await, Err(QueryError::Timeout { .. })));
}

#[tokio::test]
async fn dropping_the_rows_cancels_the_statement() {
    let server = Server::start();
    let mut rows = server.start_rows(ENDLESS).await.unwrap();
    assert!(rows.next().await.unwrap().is_ok());
    drop(rows);
    drop(server.start_rows(SILENT).await.unwrap());
    // And so does dropping the call before there are rows.
    let mut call = Box::pin(server.start_rows(SILENT));
    assert!(futures::poll!(&mut call).is_pending());
    drop(call);
    assert_eq!(server.engine.shutdown(Duration::from_secs(60)).await, 0, "all have ended before the grace did");
    let stats = server.engine.stats();
    assert_eq!((stats.queries_total, stats.queries_cancelled_total, stats.running), (3, 3, 0));
}

#[tokio::test]
async fn statements_beyond_the_limit_wait_and_beyond_that_are_refused() {
    let server = Server::with(|config| config.concurrent_max = 1);
    let mut running = server.start_rows(ENDLESS).await.unwrap();
    assert!(running.next().await.unwrap().is_ok());
    let mut waiting: Vec<_> = (0..5).map(|_| Box::pin(server.start_rows("SELECT 1"))).collect();
    // Whichever comes last is the one too many.
    let (refused, _, others) = futures::future::select_all(waiting.drain(..)).await;
    assert!(matches!(refused, Err(QueryError::Busy { running: 1, waiting: 4, .. })), "{refused:?}");
    assert_eq!(server.engine.stats().waiting, 4);
    drop(running);
    for other in others {
        assert_eq!(collect(other.await.unwrap()).await.unwrap(), ["1"]);
    }
}

#[tokio::test]
async fn shutdown_lets_statements_end_and_cancels_the_rest() {
    let server = Server::start();
    let mut rows = server.start_rows(ENDLESS).await.unwrap();
    assert!(rows.next().await.unwrap().is_ok());
    assert_eq!(server.engine.shutdown(Duration::from_millis(50)).await, 1);
    assert!(matches!(collect(rows).await, Err(QueryError::Cancelled)));
    assert!(matches!(server.error("SELECT 1").await, QueryError::Cancelled));
}

#[tokio::test]
async fn statements_are_counted() {
    let server = Server::start();
    server.query("SELECT 1").await;
    server.error("SELEC 1").await;
    server.error("SELECT * FROM nothing").await;
    let stats = server.engine.stats();
    assert_eq!((stats.queries_total, stats.queries_failed_total, stats.queries_cancelled_total), (3, 2, 0));
    assert!(stats.duration_seconds_sum > 0.0);
}

#[tokio::test]
async fn chains_of_operators_have_a_limit_below_which_the_stack_holds() {
    let server = Server::start();
    server.write("env", &[("a", DAY, &[("n", Value::I64(1)), ("f", Value::F64(1.0))])]).await;
    server.refresh("env").await;
    let chain =
        |terms: usize, link: &str, term: &dyn Fn(usize) -> String| (0..terms).map(term).collect::<Vec<_>>().join(link);
    let statements = |terms| {
        [
            format!("SELECT count(*) FROM env WHERE {}", chain(terms, " OR ", &|i| format!("n > f + {i}"))),
            format!("SELECT {} FROM env", chain(terms, " + ", &|_| "n".to_owned())),
            chain(terms, " UNION ALL ", &|i| format!("SELECT {i}")),
        ]
    };
    for sql in statements(499) {
        server.query(&sql).await;
    }
    for sql in statements(100_000) {
        let error = server.error(&sql).await;
        assert!(matches!(&error, QueryError::Unsupported(message) if message.contains("at most 500")), "{error}");
    }
}
