//! `system.queries`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use model::FieldType;
use storage::{LiveTable, TableSchema};

use super::{Ended, Queries, Running, Stage};

/// See the module.
#[derive(Debug)]
pub(crate) struct QueriesTable {
    queries: Arc<Queries>,
    schema: Arc<TableSchema>,
}

/// One row.
struct Shown<'a> {
    of: &'a Running,
    state: &'static str,
    elapsed: Duration,
    error: Option<&'a str>,
}

impl QueriesTable {
    /// The table's name.
    pub(crate) const NAME: &str = "queries";

    pub(crate) fn new(queries: Arc<Queries>) -> Self {
        let fields = [
            ("state", FieldType::Text),
            ("statement", FieldType::Text),
            ("protocol", FieldType::Text),
            ("peer", FieldType::Text),
            ("username", FieldType::Text),
            ("application", FieldType::Text),
            ("elapsed_ms", FieldType::F64),
            ("planning_ms", FieldType::F64),
            ("rows", FieldType::I64),
            ("memory_bytes", FieldType::I64),
            ("memory_peak_bytes", FieldType::I64),
            ("spill_bytes", FieldType::I64),
            ("error", FieldType::Text),
        ];
        let schema = TableSchema::new(&["id".into()], &fields.map(|(name, kind)| (name.into(), kind)));
        QueriesTable { queries, schema: Arc::new(schema) }
    }
}

impl LiveTable for QueriesTable {
    fn schema(&self) -> Arc<TableSchema> {
        Arc::clone(&self.schema)
    }

    fn rows(&self) -> RecordBatch {
        let (running, ended) = self.queries.all();
        let now = |of: &'static [&'static str; 3], running: &Running| {
            of[usize::from(running.stage.load(Ordering::Relaxed)).min(of.len() - 1)]
        };
        let running = running.iter().map(|of| Shown {
            of,
            state: now(&Stage::NAMES, of),
            elapsed: of.since.elapsed(),
            error: None,
        });
        let ended = ended.iter().map(|Ended { of, state, elapsed, error }| Shown {
            of,
            state,
            elapsed: *elapsed,
            error: error.as_deref(),
        });
        let shown: Vec<Shown<'_>> = running.chain(ended).collect();
        let texts = |text: &dyn Fn(&Shown<'_>) -> Option<String>| -> ArrayRef {
            Arc::new(shown.iter().map(text).collect::<StringViewArray>())
        };
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let numbers = |number: &dyn Fn(&Running) -> u64| -> ArrayRef {
            Arc::new(shown.iter().map(|shown| Some(number(shown.of).cast_signed())).collect::<Int64Array>())
        };
        let times = |time: &dyn Fn(&Shown<'_>) -> Option<Duration>| -> ArrayRef {
            let ms = |shown| time(shown).map(|time| time.as_secs_f64() * 1e3);
            Arc::new(shown.iter().map(ms).collect::<Float64Array>())
        };
        let since: Vec<i64> = shown.iter().map(|shown| shown.of.since_us).collect();
        let columns: Vec<ArrayRef> = vec![
            texts(&|shown| Some(shown.of.id.to_string())),
            texts(&|shown| Some(shown.state.to_owned())),
            texts(&|shown| Some(shown.of.statement.to_string())),
            texts(&|shown| given(shown.of.origin.protocol)),
            texts(&|shown| given(&shown.of.origin.peer)),
            texts(&|shown| given(&shown.of.origin.user)),
            texts(&|shown| given(&shown.of.origin.application)),
            times(&|shown| Some(shown.elapsed)),
            times(&|shown| shown.of.planning()),
            numbers(&|running| running.rows.load(Ordering::Relaxed)),
            numbers(&|running| running.usage.now() as u64),
            numbers(&|running| running.usage.peak() as u64),
            numbers(&|running| running.note_spill()),
            texts(&|shown| shown.error.map(str::to_owned)),
            Arc::new(TimestampMicrosecondArray::from(since).with_timezone("UTC")),
        ];
        RecordBatch::try_new(Arc::clone(self.schema.arrow()), columns).expect("columns were made for the schema")
    }
}
