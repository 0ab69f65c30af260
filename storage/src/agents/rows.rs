//! `system.agents` and `system.agent_gaps`: their columns, and the rows that tell what is known of agents.

use std::sync::Arc;

use chrono::{DateTime, SecondsFormat};
use model::record::{AgentCounters, AgentState};
use model::{FieldType, SeriesKey, TableBatch, TableName, Value};

use super::ranges;
use crate::admit::{TIME_MAX_US, TIME_MIN_US};
use crate::catalog::{Catalog, SYSTEM};
use crate::table::Table;
use crate::{StorageError, TableSchema};

/// One row an agent.
pub(crate) const AGENTS_TABLE: &str = "agents";
/// One row a gap.
const GAPS_TABLE: &str = "agent_gaps";

const AGENT_FIELDS: [(&str, FieldType); 13] = [
    ("last_seen", FieldType::Text),
    ("epoch", FieldType::U64),
    ("seq", FieldType::U64),
    ("missing", FieldType::U64),
    ("batches", FieldType::U64),
    ("readings", FieldType::U64),
    ("gaps", FieldType::U64),
    ("duplicates", FieldType::U64),
    ("conflicts", FieldType::U64),
    ("online", FieldType::Bool),
    ("version", FieldType::Text),
    ("backlog_batches", FieldType::U64),
    ("backlog_bytes", FieldType::U64),
];

const GAP_FIELDS: [(&str, FieldType); 4] = [
    ("last_seq", FieldType::U64),
    ("readings", FieldType::U64),
    ("reason", FieldType::Text),
    ("received", FieldType::U64),
];

/// The two tables.
#[derive(Debug)]
pub(crate) struct AgentTables {
    pub(crate) agents: Arc<Table>,
    pub(crate) gaps: Arc<Table>,
}

impl AgentTables {
    /// Makes them if they are not there; durable when it returns.
    pub(super) fn open(catalog: &Catalog) -> Result<AgentTables, StorageError> {
        let schema = |tags: &[&str], fields: &[(&str, FieldType)]| {
            let tags: Vec<Arc<str>> = tags.iter().map(|tag| (*tag).into()).collect();
            let fields: Vec<(Arc<str>, FieldType)> = fields.iter().map(|(name, t)| ((*name).into(), *t)).collect();
            TableSchema::new(&tags, &fields)
        };
        let table = |name: &str, schema: TableSchema| catalog.get_or_create(&TableName::new(SYSTEM, name), &schema);
        Ok(AgentTables {
            agents: table(AGENTS_TABLE, schema(&["agent"], &AGENT_FIELDS))?,
            gaps: table(GAPS_TABLE, schema(&["agent", "epoch", "first_seq"], &GAP_FIELDS))?,
        })
    }
}

/// What a row of `system.agents` is made of.
#[derive(Debug)]
pub(super) struct AgentRow {
    agent: Arc<str>,
    first_seen_us: i64,
    last_seen_us: i64,
    /// Epoch, highest contiguous number, numbers that are missing: of the outbox used last.
    outbox: Option<(u64, u64, u64)>,
    counters: AgentCounters,
    online: Option<bool>,
    version: Option<Arc<str>>,
    backlog_batches: Option<u64>,
    backlog_bytes: Option<u64>,
}

impl AgentRow {
    pub(super) fn of(state: &AgentState) -> AgentRow {
        let outbox = state.epochs.last().map(|epoch| {
            let accounted = ranges::count(&epoch.accounted, 1, epoch.highest);
            (epoch.epoch, ranges::contiguous(&epoch.accounted), epoch.highest - accounted)
        });
        AgentRow {
            agent: Arc::clone(&state.agent),
            first_seen_us: state.first_seen_us,
            last_seen_us: state.last_seen_us,
            outbox,
            counters: state.counters,
            online: state.online,
            version: state.version.clone(),
            backlog_batches: state.backlog_batches,
            backlog_bytes: state.backlog_bytes,
        }
    }
}

/// The batch of `rows`.
pub(super) fn agents(rows: &[AgentRow]) -> TableBatch {
    let mut batch = TableBatch::new(TableName::new(SYSTEM, AGENTS_TABLE));
    let columns = AGENT_FIELDS.map(|(name, field_type)| batch.field_column(name, field_type));
    for row in rows {
        let last_seen = rfc3339(row.last_seen_us);
        let counters = row.counters;
        let values = [
            Some(Value::Text(&last_seen)),
            row.outbox.map(|outbox| Value::U64(outbox.0)),
            row.outbox.map(|outbox| Value::U64(outbox.1)),
            row.outbox.map(|outbox| Value::U64(outbox.2)),
            Some(Value::U64(counters.batches)),
            Some(Value::U64(counters.readings)),
            Some(Value::U64(counters.gaps)),
            Some(Value::U64(counters.duplicates)),
            Some(Value::U64(counters.conflicts)),
            row.online.map(Value::Bool),
            row.version.as_deref().map(Value::Text),
            row.backlog_batches.map(Value::U64),
            row.backlog_bytes.map(Value::U64),
        ];
        let present = columns.iter().zip(values).filter_map(|(column, value)| Some((*column, value?)));
        let present: Vec<(usize, Value<'_>)> = present.collect();
        let series = batch.intern_series(SeriesKey::from_tags([("agent", &row.agent)]));
        batch.push_row(series, row.first_seen_us.clamp(TIME_MIN_US, TIME_MAX_US), 0, &present);
    }
    batch
}

/// A row of `system.agent_gaps`, or the part of one that changed.
#[derive(Debug)]
pub(super) struct GapRow {
    pub(super) agent: Arc<str>,
    pub(super) epoch: u64,
    pub(super) first_seq: u64,
    pub(super) time_us: i64,
    pub(super) last_seq: Option<u64>,
    pub(super) readings: Option<u64>,
    pub(super) reason: Option<Arc<str>>,
    pub(super) received: Option<u64>,
}

/// The batch of `rows`; `None` without rows.
pub(super) fn gaps(rows: &[GapRow]) -> Option<TableBatch> {
    let mut batch = TableBatch::new(TableName::new(SYSTEM, GAPS_TABLE));
    for row in rows {
        let values = [
            row.last_seq.map(Value::U64),
            row.readings.map(Value::U64),
            row.reason.as_deref().map(Value::Text),
            row.received.map(Value::U64),
        ];
        let columns = GAP_FIELDS.iter().zip(values).filter_map(|((name, t), value)| Some((*name, *t, value?)));
        let values: Vec<(usize, Value<'_>)> =
            columns.map(|(name, field_type, value)| (batch.field_column(name, field_type), value)).collect();
        let (epoch, first_seq) = (row.epoch.to_string(), row.first_seq.to_string());
        let tags = [("agent", &*row.agent), ("epoch", &epoch), ("first_seq", &first_seq)];
        let series = batch.intern_series(SeriesKey::from_tags(tags));
        batch.push_row(series, row.time_us.clamp(TIME_MIN_US, TIME_MAX_US), 0, &values);
    }
    (!batch.is_empty()).then_some(batch)
}

fn rfc3339(time_us: i64) -> String {
    DateTime::from_timestamp_micros(time_us).unwrap_or_default().to_rfc3339_opts(SecondsFormat::Micros, true)
}
