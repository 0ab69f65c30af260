//! From the log an earlier life left to memtables.
//!
//! Owns:     opening the log with what the tables know, replaying it, turning losses into rows of
//!           `system.data_loss`.
//! Does not: find frames or judge damage: `wal` does.
//!
//! What is known of agents is found first, in states that may lie anywhere in the log: a state has what was logged
//! before its `as_of`, and replay adds what was logged since.
//!
//! Replay applies records in the order of the log, through the same code as live writes. A record below its table's
//! watermark is in shards already and is skipped; one that was flushed without moving the watermark is applied again,
//! which changes nothing: settling drops what a shard holds with the same values.

use std::sync::Arc;
use std::time::Duration;

use model::record::{self, Record, RecordError};
use model::{FieldType, SeriesKey, TableBatch, TableName, Value};
use wal::{Loss, Outcome, Recovery, Wal, WalConfig};

use crate::agents::{AgentEvent, Agents};
use crate::catalog::{Catalog, SYSTEM};
use crate::context::Context;
use crate::evolve::in_types_of;
use crate::identity::Identity;
use crate::write::Token;
use crate::{ReplayProgress, StorageConfig, StorageError};

/// Frames between two reports of progress.
const FRAMES_BETWEEN_REPORTS: usize = 64;

/// Opens the log behind everything that the tables have flushed.
pub(crate) fn open_log(
    config: &StorageConfig,
    life: &Identity,
    context: &Context,
    catalog: &Catalog,
    sink: impl FnMut(Outcome<Token>) + Send + 'static,
) -> Result<(Wal<Token>, Recovery), StorageError> {
    let flushed = catalog.all().iter().map(|table| table.state().flushed).max().unwrap_or(0);
    let mut wal = WalConfig::server(config.data.join("wal"), life.node, life.epoch);
    wal.segment_size_bytes = config.log_segment_bytes;
    wal.offset_min = flushed;
    wal.clock = Arc::clone(&context.clock);
    let (wal, recovery) = Wal::open(Arc::clone(&context.disk), wal, sink)?;
    // A log that was lost must not make new writes older than what the shards hold.
    let newest = catalog.all().iter().filter_map(|table| table.newest_position()).max();
    wal.observe(newest.map_or(0, |position| position.counter));
    Ok((wal, recovery))
}

/// Applies what is in the log and in no shard; flushes on the way when memory is full.
pub(crate) fn replay(
    config: &StorageConfig,
    wal: &Wal<Token>,
    recovery: &Recovery,
    catalog: &Catalog,
    agents: &Agents,
    now: Duration,
    progress: &dyn Fn(ReplayProgress),
) -> Result<(), StorageError> {
    load_agents(config, wal, recovery, catalog, agents)?;
    let total_bytes = recovery.end.saturating_sub(recovery.first);
    let mut reader = wal.reader(recovery.first);
    let mut frames = 0_usize;
    while let Some(frame) = reader.next() {
        let frame = frame?;
        if frame.position.offset >= recovery.end {
            break;
        }
        let mut events = Vec::new();
        for bytes in frame.records() {
            let (table, batch) = match record::decode(bytes).map_err(|e| unreadable(config, e))? {
                Record::Batch { table, batch, .. } => (table, batch),
                Record::AgentBatch(batch) => {
                    events.push(AgentEvent::Batch(batch, None));
                    continue;
                }
                Record::AgentStatus(status) => {
                    events.push(AgentEvent::Status(status));
                    continue;
                }
                Record::AgentState(_) => continue,
            };
            let Some(table) = catalog.by_id(table) else {
                // Tables are committed before their first row is logged, so this one's folder was taken away.
                tracing::error!(table = %batch.table, rows = batch.len(), "rows of a table that is no longer there");
                continue;
            };
            if frame.position.offset < table.state().flushed {
                continue;
            }
            let batch = in_types_of(&table.schema(), batch)
                .map_err(|reason| StorageError::Corrupt { path: table.dir.clone(), reason })?;
            table.apply(&batch, frame.position);
            if table.context.memory.is_pressing() {
                let largest = catalog.all().into_iter().max_by_key(|table| table.memory_bytes());
                if let Some(largest) = largest {
                    // This frame may be applied in part only: it stays needed.
                    largest.flush(&|| frame.position.offset)?;
                }
            }
        }
        if !events.is_empty() {
            agents.open_tables(catalog)?;
            agents.apply(events, frame.position, frame.end, now);
        }
        frames += 1;
        if frames.is_multiple_of(FRAMES_BETWEEN_REPORTS) {
            progress(ReplayProgress { done_bytes: reader.progress().saturating_sub(recovery.first), total_bytes });
        }
    }
    agents.replayed(now);
    progress(ReplayProgress { done_bytes: total_bytes, total_bytes });
    Ok(())
}

/// Reads the states of agents, wherever they are.
fn load_agents(
    config: &StorageConfig,
    wal: &Wal<Token>,
    recovery: &Recovery,
    catalog: &Catalog,
    agents: &Agents,
) -> Result<(), StorageError> {
    for frame in wal.reader(recovery.first) {
        let frame = frame?;
        if frame.position.offset >= recovery.end {
            break;
        }
        for bytes in frame.records().filter(|bytes| record::is_agent_state(bytes)) {
            if let Record::AgentState(state) = record::decode(bytes).map_err(|e| unreadable(config, e))? {
                agents.open_tables(catalog)?;
                agents.load(state, frame.position);
            }
        }
    }
    Ok(())
}

fn unreadable(config: &StorageConfig, error: RecordError) -> StorageError {
    let path = config.data.join("wal");
    match error {
        RecordError::NewerFormat { .. } => StorageError::NewerFormat { path, found: error.to_string() },
        RecordError::Malformed { .. } => StorageError::Corrupt { path, reason: error.to_string() },
    }
}

/// The rows of `system.data_loss` that name `losses`, but for those it names already: the log reports a loss at every
/// start until the segment is truncated. `None` if nothing is new.
pub(crate) fn loss_rows(losses: &[Loss], catalog: &Catalog, now_us: i64) -> Result<Option<TableBatch>, StorageError> {
    let name = TableName::new(SYSTEM, "data_loss");
    let table = catalog.get(&name);
    let mut batch = TableBatch::new(name);
    let log_to = batch.field_column("log_to", FieldType::I64);
    let certainty = batch.field_column("certainty", FieldType::Text);
    let reason = batch.field_column("reason", FieldType::Text);
    for loss in losses {
        let from = loss.from.to_string();
        let key = SeriesKey::from_tags([("file", &loss.file), ("log_from", &from)]);
        if let Some(table) = &table
            && table.has_series(&Arc::new(key.clone()))?
        {
            continue;
        }
        let (certain, why) = (loss.certainty.to_string(), loss.reason.to_string());
        let mut values = vec![(certainty, Value::Text(&certain)), (reason, Value::Text(&why))];
        values.extend(loss.to.map(|to| (log_to, Value::I64(i64::try_from(to).unwrap_or(i64::MAX)))));
        let series = batch.intern_series(key);
        batch.push_row(series, now_us, 0, &values);
    }
    Ok((!batch.is_empty()).then_some(batch))
}
