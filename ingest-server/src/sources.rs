//! What became of the rows that came in, by how they came in.
//!
//! Owns:     the counters of rows by [`Source`], and the table `system.sources` that shows them.
//! Does not: count by client, or rows that met another one of their key: that is known in `storage`, often only at a
//!           flush, when nobody knows any more how a row came.
//!
//! Invariants
//!  1. Once a [`Tally`] and the writes that it was divided into are gone, what it received is what was stored, duplicate,
//!     quarantined and refused together: what nothing else was said of is refused.
//!  2. A row counts as stored when it is durable, whether or not its sender still waits for that, and before it is told.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use model::FieldType;
use storage::{LiveTable, PendingWrite, StorageError, TableSchema};
use tokio::runtime::Handle;

use crate::metrics::{self, Page};

/// How rows come in. In HTTP it is named as the endpoint is in `eden_http_requests_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// `/api/v3/write_lp`.
    WriteLp,
    /// `/api/v2/write`.
    WriteV2,
    /// `/write`.
    WriteV1,
    /// Prometheus remote write.
    Prometheus,
    /// Metrics of OpenTelemetry.
    Otlp,
    /// `/api/v1/arrow`.
    Arrow,
    /// `/api/v1/json`.
    Json,
    /// The MQTT listener.
    Mqtt,
    /// Brokers that are subscribed to.
    Broker,
    /// Replays of the quarantine.
    Replay,
    /// `COPY` over PostgreSQL's protocol.
    Copy,
}

impl Source {
    /// All of them, in the order of their numbers.
    const ALL: [Source; 11] = [
        Source::WriteLp,
        Source::WriteV2,
        Source::WriteV1,
        Source::Prometheus,
        Source::Otlp,
        Source::Arrow,
        Source::Json,
        Source::Mqtt,
        Source::Broker,
        Source::Replay,
        Source::Copy,
    ];

    fn name(self) -> &'static str {
        match self {
            Source::WriteLp => "write_lp",
            Source::WriteV2 => "write_v2",
            Source::WriteV1 => "write_v1",
            Source::Prometheus => "prometheus_write",
            Source::Otlp => "otlp_metrics",
            Source::Arrow => "arrow",
            Source::Json => "json",
            Source::Mqtt => "mqtt",
            Source::Broker => "broker",
            Source::Replay => "quarantine_replay",
            Source::Copy => "copy",
        }
    }
}

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Became {
    /// It is durable in its table.
    Stored,
    /// It is of a named batch that is durable already, and not applied again.
    Duplicate,
    /// It is durable in the quarantine.
    Quarantined,
    /// It is none of this: its sender was told so, or was told nothing.
    Refused,
}

impl Became {
    const ALL: [(Became, &'static str); 4] = [
        (Became::Stored, "stored"),
        (Became::Duplicate, "duplicate"),
        (Became::Quarantined, "quarantined"),
        (Became::Refused, "refused"),
    ];
}

#[derive(Debug, Default)]
struct Counts {
    received: AtomicU64,
    /// By [`Became`].
    became: [AtomicU64; Became::ALL.len()],
}

/// The counters of all sources, from 0 with the process.
#[derive(Debug, Default)]
pub struct Sources([Counts; Source::ALL.len()]);

impl Sources {
    /// Counts what comes in with one body or message of `source`.
    pub fn tally(self: &Arc<Self>, source: Source) -> Tally {
        Tally { sources: Arc::clone(self), source, open: 0 }
    }

    fn of(&self, source: Source) -> &Counts {
        &self.0[source as usize]
    }

    /// Puts the counters on `page`.
    pub fn write(&self, page: &mut Page) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        page.head(&metrics::INGEST_ROWS_RECEIVED);
        for source in Source::ALL {
            let labels = format!("{{source=\"{}\"}}", source.name());
            page.sample(metrics::INGEST_ROWS_RECEIVED.name, &labels, get(&self.of(source).received));
        }
        page.head(&metrics::INGEST_ROWS);
        for source in Source::ALL {
            for (became, result) in Became::ALL {
                let labels = format!("{{source=\"{}\",result=\"{result}\"}}", source.name());
                page.sample(metrics::INGEST_ROWS.name, &labels, get(&self.of(source).became[became as usize]));
            }
        }
    }
}

/// Rows that were received, until it is said of each what became of it.
#[derive(Debug)]
pub struct Tally {
    sources: Arc<Sources>,
    source: Source,
    /// Rows of which nothing is said yet.
    open: u64,
}

impl Tally {
    /// Counts rows that have come in.
    pub fn receive(&mut self, rows: u64) {
        self.sources.of(self.source).received.fetch_add(rows, Ordering::Relaxed);
        self.open += rows;
    }

    /// Says what became of some of them.
    pub fn settle(&mut self, became: Became, rows: u64) {
        debug_assert!(rows <= self.open, "{rows} rows became {became:?}, of {} that were received", self.open);
        let rows = rows.min(self.open);
        self.open -= rows;
        self.sources.of(self.source).became[became as usize].fetch_add(rows, Ordering::Relaxed);
    }

    /// Says what became of the rest.
    pub fn settle_rest(&mut self, became: Became) {
        self.settle(became, self.open);
    }

    /// Leaves those rows that `write` accepted to the write: they are stored when it is durable.
    pub fn storing(&mut self, write: PendingWrite) -> Counted {
        let rows = write.accepted as u64;
        self.counted(write, Became::Stored, rows)
    }

    /// Leaves the rest to `write`, which is of a batch that is durable already.
    pub fn duplicate(&mut self, write: PendingWrite) -> Counted {
        self.counted(write, Became::Duplicate, self.open)
    }

    fn counted(&mut self, write: PendingWrite, became: Became, rows: u64) -> Counted {
        debug_assert!(rows <= self.open, "{rows} rows are written, of {} that were received", self.open);
        let open = rows.min(self.open);
        self.open -= open;
        let share = Tally { sources: Arc::clone(&self.sources), source: self.source, open };
        Counted { waiting: Some((Box::pin(write.durable()), share)), became }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.settle_rest(Became::Refused);
    }
}

type Durable = Pin<Box<dyn Future<Output = Result<(), StorageError>> + Send>>;

/// A write on its way to the disk, whose rows are counted when it is there. As [`PendingWrite::durable`]; if it is
/// dropped before, they are counted all the same.
pub struct Counted {
    waiting: Option<(Durable, Tally)>,
    became: Became,
}

impl Future for Counted {
    type Output = Result<(), StorageError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (durable, _) = self.waiting.as_mut().expect("a future is not polled after its end");
        let result = ready!(durable.as_mut().poll(context));
        if let (Some((_, mut share)), Ok(())) = (self.waiting.take(), &result) {
            share.settle_rest(self.became);
        }
        Poll::Ready(result)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        // The sender is gone. The task ends with the sync, or with the runtime: then nobody asks for counters any more.
        if let Some((durable, mut share)) = self.waiting.take()
            && let Ok(runtime) = Handle::try_current()
        {
            let became = self.became;
            runtime.spawn(async move {
                if durable.await.is_ok() {
                    share.settle_rest(became);
                }
            });
        }
    }
}

/// `system.sources`.
#[derive(Debug)]
pub struct SourcesTable {
    sources: Arc<Sources>,
    since_us: i64,
    schema: Arc<TableSchema>,
}

impl SourcesTable {
    /// The table's name.
    pub const NAME: &str = "sources";

    /// Of `sources`, which count since `since_us`, in microseconds since 1970.
    pub fn new(sources: Arc<Sources>, since_us: i64) -> Self {
        let mut fields = vec![("received".into(), FieldType::I64)];
        fields.extend(Became::ALL.iter().map(|(_, name)| ((*name).into(), FieldType::I64)));
        SourcesTable { sources, since_us, schema: Arc::new(TableSchema::new(&["source".into()], &fields)) }
    }
}

impl LiveTable for SourcesTable {
    fn schema(&self) -> Arc<TableSchema> {
        Arc::clone(&self.schema)
    }

    fn rows(&self) -> RecordBatch {
        let numbers = |number: &dyn Fn(&Counts) -> &AtomicU64| -> ArrayRef {
            let get = |source| number(self.sources.of(source)).load(Ordering::Relaxed).cast_signed();
            Arc::new(Source::ALL.into_iter().map(get).collect::<Int64Array>())
        };
        let names = Source::ALL.map(|source| Some(source.name()));
        let mut columns: Vec<ArrayRef> = vec![Arc::new(names.into_iter().collect::<StringViewArray>())];
        columns.push(numbers(&|counts| &counts.received));
        columns.extend(Became::ALL.map(|(became, _)| numbers(&|counts| &counts.became[became as usize])));
        let since = vec![self.since_us; Source::ALL.len()];
        columns.push(Arc::new(TimestampMicrosecondArray::from(since).with_timezone("UTC")));
        RecordBatch::try_new(Arc::clone(self.schema.arrow()), columns).expect("columns were made for the schema")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nothing_is_said_of_is_refused_and_the_results_are_all_that_came() {
        let sources = Arc::new(Sources::default());
        let mut tally = sources.tally(Source::Json);
        tally.receive(5);
        tally.settle(Became::Quarantined, 2);
        tally.receive(1);
        drop(tally);
        let mut page = Page::default();
        sources.write(&mut page);
        let page = page.finish();
        for line in [
            "eden_ingest_rows_received_total{source=\"json\"} 6",
            "eden_ingest_rows_total{source=\"json\",result=\"stored\"} 0",
            "eden_ingest_rows_total{source=\"json\",result=\"quarantined\"} 2",
            "eden_ingest_rows_total{source=\"json\",result=\"refused\"} 4",
            "eden_ingest_rows_total{source=\"mqtt\",result=\"refused\"} 0",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is missing in\n{page}");
        }
    }

    #[test]
    fn sources_and_results_stand_in_the_order_of_their_numbers() {
        assert!(Source::ALL.into_iter().enumerate().all(|(number, source)| source as usize == number));
        assert!(Became::ALL.into_iter().enumerate().all(|(number, (became, _))| became as usize == number));
    }
}
