//! Statements over real tables: what is seen when, what is refused, and where the limits are.
//!
//! Each test has a server of its own: a [`Storage`] in a temporary folder and an engine over it.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod changes;
mod damage;
mod ddl;
mod decimals;
mod insert;
mod limits;
mod names;
mod newest;
mod parameters;
mod plans;
mod postgres;
mod pruning;
mod refused;
mod series;
mod slt;
mod view;

use std::sync::Arc;

use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::StreamExt;
use model::{SeriesKey, SplitMix64, SystemClock, TableBatch, TableName, Value};
use query::{Access, LeftOut, QueryConfig, QueryEngine, QueryError, QueryRequest, QueryResult, Rows};
use storage::{Storage, StorageConfig};
use tempfile::TempDir;
use wal::disk::LocalDisk;

/// 2024-05-01 00:00 UTC.
const DAY: i64 = 1_714_521_600_000_000;
const HOUR: i64 = 3_600_000_000;

/// A reading: sensor, time in µs, fields.
type Reading<'a> = (&'a str, i64, &'a [(&'a str, Value<'a>)]);

struct Server {
    folder: TempDir,
    storage: Arc<Storage>,
    engine: QueryEngine,
}

impl Server {
    fn start() -> Server {
        Server::with(|_| {})
    }

    fn with(configure: impl FnOnce(&mut QueryConfig)) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::open(
            StorageConfig::new(folder.path().join("data")),
            Arc::new(LocalDisk::new()),
            Arc::new(SystemClock::new()),
            Arc::new(SplitMix64::new(1)),
            &|_| {},
        )
        .unwrap();
        let mut config = QueryConfig::new(folder.path().join("spill"), 256 << 20);
        config.threads = 2;
        // Few as they are, rows are shared among threads like many.
        config.few_rows = 0;
        configure(&mut config);
        let engine = QueryEngine::new(config, Arc::clone(&storage)).unwrap();
        Server { folder, storage, engine }
    }

    /// Writes readings, durably.
    async fn write(&self, table: &str, readings: &[Reading<'_>]) {
        self.write_to(TableName::public(table), readings).await;
    }

    async fn write_to(&self, table: TableName, readings: &[Reading<'_>]) {
        let mut batch = TableBatch::new(table);
        for (line, (sensor, time_us, fields)) in (1..).zip(readings) {
            let series = batch.intern_series(SeriesKey::from_tags([("sensor", sensor)]));
            let fields: Vec<_> =
                fields.iter().map(|(name, value)| (batch.field_column(name, value.field_type()), *value)).collect();
            batch.push_row(series, *time_us, line, &fields);
        }
        let storage = Arc::clone(&self.storage);
        let write = tokio::task::spawn_blocking(move || {
            let pending = storage.write(vec![batch], "test").unwrap();
            assert_eq!(pending.rejected, []);
            pending.wait().unwrap();
        });
        write.await.unwrap();
    }

    async fn refresh(&self, table: &str) {
        match self.engine.execute(QueryRequest::new(format!("REFRESH TABLE {table}"))).await {
            Ok(QueryResult::Done { statement: "REFRESH", rows: Some(1) }) => {}
            other => panic!("{other:?}"),
        }
    }

    /// What a statement that changes something answers.
    async fn change(&self, sql: &str) -> Result<(&'static str, Option<u64>), QueryError> {
        let request = QueryRequest { access: Access::Change, ..QueryRequest::new(sql) };
        match self.engine.execute(request).await? {
            QueryResult::Done { statement, rows } => Ok((statement, rows)),
            other @ QueryResult::Rows(_) => panic!("{sql}: {other:?}"),
        }
    }

    async fn start_rows(&self, sql: &str) -> Result<Rows, QueryError> {
        match self.engine.execute(QueryRequest::new(sql)).await? {
            QueryResult::Rows(rows) => Ok(rows),
            other @ QueryResult::Done { .. } => panic!("{sql}: {other:?}"),
        }
    }

    /// All rows, columns parted by a space; a missing value is `-`.
    async fn query(&self, sql: &str) -> Vec<String> {
        collect(self.start_rows(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}")))
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The error that a statement ends with.
    async fn error(&self, sql: &str) -> QueryError {
        let outcome = match self.start_rows(sql).await {
            Ok(rows) => collect(rows).await,
            Err(error) => Err(error),
        };
        outcome.err().unwrap_or_else(|| panic!("{sql} gave rows"))
    }

    /// As [`Server::query`] without damaged shards, and what was left out.
    async fn query_without_damaged(&self, sql: &str) -> Result<(Vec<String>, Vec<LeftOut>), QueryError> {
        let request = QueryRequest { skip_damaged: true, ..QueryRequest::new(sql) };
        let QueryResult::Rows(rows) = self.engine.execute(request).await? else { panic!("{sql} has no rows") };
        let left_out = rows.left_out.clone();
        Ok((collect(rows).await?, left_out))
    }

    /// The text of the physical plan.
    async fn plan(&self, sql: &str) -> String {
        self.query(&format!("EXPLAIN {sql}")).await.join("\n")
    }
}

async fn collect(mut rows: Rows) -> Result<Vec<String>, QueryError> {
    let mut lines = Vec::new();
    let options = FormatOptions::new().with_null("-").with_display_error(true);
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        assert_eq!(batch.schema(), rows.schema);
        let columns: Vec<_> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
        let line = |row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join(" ");
        lines.extend((0..batch.num_rows()).map(line));
    }
    Ok(lines)
}
