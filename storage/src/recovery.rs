//! From the log an earlier life left to memtables.
//!
//! Owns:     opening the log with what the tables know, replaying it.
//! Does not: find frames or judge damage: `wal` does.
//!
//! What is known of agents is found first, in states that may lie anywhere in the log: a state has what was logged
//! before its `as_of`, and replay adds what was logged since.
//!
//! Replay applies records in the order of the log, through the same code as live writes. A record below its table's
//! watermark is in shards already and is skipped; one that was flushed without moving the watermark is applied again,
//! with all that came after it, which changes nothing in the end (`flush` says why).

use std::sync::Arc;
use std::time::Duration;

use model::record::{self, Record, RecordError};
use model::{Removal, TableBatch};
use wal::{ObjectLog, ObjectLogConfig, Outcome, Recovery, Wal, WalConfig, WalError};

use crate::agents::{AgentEvent, Agents};
use crate::catalog::Catalog;
use crate::context::Context;
use crate::evolve::in_types_of;
use crate::flush::Settling;
use crate::identity::Identity;
use crate::log::Log;
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
) -> Result<(Log, Recovery), StorageError> {
    let flushed = catalog.all().iter().map(|table| table.state().flushed).max().unwrap_or(0);
    let mut wal = WalConfig::server(config.data.join("wal"), life.node, life.epoch);
    wal.segment_size_bytes = config.log_segment_bytes;
    wal.offset_min = flushed;
    wal.clock = Arc::clone(&context.clock);
    let (wal, recovery) = Wal::open(Arc::clone(&context.data_disk), wal, sink)?;
    // A log that was lost must not make new writes older than what the shards hold.
    let newest = catalog.all().iter().filter_map(|table| table.newest_position()).max();
    wal.observe(newest.map_or(0, |position| position.counter));
    Ok((Log::Segments(wal), recovery))
}

/// Seals the logs of this node's earlier lives among the objects that they left, and opens one behind them.
pub(crate) fn take_over_log(
    config: &StorageConfig,
    life: &Identity,
    context: &Context,
    sink: impl FnMut(Outcome<Token>) + Send + 'static,
) -> Result<(Log, Recovery), StorageError> {
    let log = ObjectLogConfig {
        dir: config.data.join("wal").join(life.node.to_string()),
        node: life.node,
        epoch: life.epoch,
        counter: Arc::clone(&context.among_nodes.counter),
        clock: Arc::clone(&context.clock),
    };
    let (log, recovery) = ObjectLog::open(Arc::clone(&context.data_disk), log, sink).map_err(|e| match e {
        WalError::Fenced { .. } => context.fence(),
        e => StorageError::Wal(e),
    })?;
    Ok((Log::Objects(log), recovery))
}

/// What is written from now on beats what the tables hold, and its offsets are none that they call flushed.
///
/// # Errors
/// [`StorageError::Corrupt`] if the log of the node is gone.
pub(crate) fn check_log(context: &Context, catalog: &Catalog, recovery: &Recovery) -> Result<(), StorageError> {
    for table in catalog.all() {
        context.among_nodes.see(table.newest_position());
        let flushed = table.state().flushed;
        if flushed > recovery.end {
            let reason = format!(
                "it says that the log of node {} is flushed up to {flushed}, but that ends at {}: the log was taken away; \
                 start with another node's id",
                context.node, recovery.end
            );
            return Err(StorageError::Corrupt { path: table.dir.clone(), reason });
        }
    }
    Ok(())
}

/// What a record does to a table.
enum Change {
    Write(TableBatch),
    Remove(Removal),
}

/// Applies what is in the log and in no shard; flushes on the way when memory is full.
pub(crate) fn replay(
    config: &StorageConfig,
    log: &Log,
    recovery: &Recovery,
    catalog: &Catalog,
    agents: &Agents,
    now: Duration,
    progress: &dyn Fn(ReplayProgress),
) -> Result<(), StorageError> {
    load_agents(config, log, recovery, catalog, agents)?;
    let total_bytes = recovery.end.saturating_sub(recovery.first);
    let reader = log.reader(recovery.first);
    let mut frames = 0_usize;
    // Tables that cannot be flushed.
    let mut stuck = Vec::new();
    for frame in reader {
        let frame = frame?;
        if frame.position.offset >= recovery.end {
            break;
        }
        let mut events = Vec::new();
        for bytes in frame.records() {
            let (id, change) = match record::decode(bytes).map_err(|e| unreadable(config, e))? {
                Record::Batch { table, batch, .. } => (table, Change::Write(batch)),
                Record::Removal { table, removal, .. } => (table, Change::Remove(removal)),
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
            let Some(table) = catalog.by_id(id) else {
                if catalog.was_dropped(id) {
                    continue;
                }
                let (name, rows) = match &change {
                    Change::Write(batch) => (&batch.table, batch.len()),
                    Change::Remove(removal) => (&removal.table, removal.len()),
                };
                if catalog.damaged(name).is_some() {
                    // Its log cannot be read: what it needs of ours stays until it is repaired.
                    catalog.hold(frame.position.offset);
                    continue;
                }
                // Tables are committed before their first row is logged, so this one's folder was taken away.
                tracing::error!(table = %name, rows, "rows of a table that is no longer there");
                continue;
            };
            match change {
                Change::Write(_) if frame.position.offset < table.state().flushed => continue,
                Change::Write(batch) => {
                    let batch = in_types_of(&table.schema(), batch)
                        .map_err(|reason| StorageError::Corrupt { path: table.dir.clone(), reason })?;
                    table.apply(&batch, frame.position)
                }
                Change::Remove(removal) => table.remove(&removal, frame.position),
            };
            if table.context.memory.is_pressing() {
                let tables = catalog.all().into_iter().filter(|table| !stuck.contains(&table.id));
                if let Some(largest) = tables.max_by_key(|table| table.memory_bytes()) {
                    // This frame may be applied in part only: it stays needed.
                    match largest.flush(&|| frame.position.offset, Settling::Everything) {
                        Err(e @ StorageError::Corrupt { .. }) => {
                            // A damaged shard must not keep the server from starting: its table's rows stay in memory,
                            // which the bound of the log bounds too.
                            table.context.note_damage(&e);
                            tracing::error!(table = %largest.name, error = %e, "not flushed while the log is replayed");
                            stuck.push(largest.id);
                        }
                        flushed => {
                            flushed?;
                        }
                    }
                }
            }
        }
        if !events.is_empty() {
            open_agent_tables(agents, catalog, frame.position.offset)?;
            agents.apply(events, frame.position, frame.end, now);
        }
        frames += 1;
        if frames.is_multiple_of(FRAMES_BETWEEN_REPORTS) {
            progress(ReplayProgress { done_bytes: frame.end.saturating_sub(recovery.first), total_bytes });
        }
    }
    agents.replayed(now);
    progress(ReplayProgress { done_bytes: total_bytes, total_bytes });
    Ok(())
}

/// Reads the states of agents, wherever they are.
fn load_agents(
    config: &StorageConfig,
    log: &Log,
    recovery: &Recovery,
    catalog: &Catalog,
    agents: &Agents,
) -> Result<(), StorageError> {
    for frame in log.reader(recovery.first) {
        let frame = frame?;
        if frame.position.offset >= recovery.end {
            break;
        }
        for bytes in frame.records().filter(|bytes| record::is_agent_state(bytes)) {
            if let Record::AgentState(state) = record::decode(bytes).map_err(|e| unreadable(config, e))? {
                open_agent_tables(agents, catalog, frame.position.offset)?;
                agents.load(state, frame.position);
            }
        }
    }
    Ok(())
}

/// Makes the tables about agents, if they are not there. If they are damaged the server starts all the same: batches of
/// agents are refused, and what was logged of them since `offset` stays in the log.
fn open_agent_tables(agents: &Agents, catalog: &Catalog, offset: u64) -> Result<(), StorageError> {
    match agents.open_tables(catalog) {
        Err(StorageError::Corrupt { .. }) => catalog.hold(offset),
        opened => {
            opened?;
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
