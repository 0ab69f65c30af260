//! Decides when tables are flushed, and frees the log behind them.
//!
//! Owns:     the flusher thread and its queue; truncation of the log.
//! Does not: write shards or commits (`flush`).
//!
//! A table is flushed when its rows in memory are many or old, when memory is pressing (the largest), when the log
//! is long (the one that holds its oldest part) or the disk short of room, after a flush that failed, and when rows that wait for a shard to be
//! rewritten need not or may not wait any longer. A table without rows in memory never holds a segment of the log.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use model::TableId;

use crate::agents::is_agents_table;
use crate::catalog::SYSTEM;
use crate::engine::Shared;
use crate::flush::{Flushed, Settling};
use crate::log::Log;
use crate::table::Table;
use crate::write::{Ack, Subject, Token};
use crate::{StorageConfig, StorageError};

/// Bytes of states of agents that are on their way to the log at once.
const STATE_BYTES_WAITING_MAX: usize = 1 << 20;

/// The log is truncated behind states of agents once that frees so many times the bytes of the new states.
const LOG_FREED_BY_STATE_BYTES: u64 = 4;

/// How often age, log and failed flushes are looked at.
const TICK: Duration = Duration::from_secs(1);

/// How long flushes wait after one that found no room on the disk (P9), or no store.
const PAUSE: Duration = Duration::from_secs(5);

/// Segments of log that are left when the disk is short of room: the active one, and the next.
const SEGMENTS_WHEN_SHORT: u64 = 2;

/// Rows do not wait any longer in a table that nobody has written to for so long: the disk is free for them.
const QUIET: Duration = Duration::from_secs(3);

#[derive(Debug)]
enum Request {
    Flush(TableId),
    Relieve,
    Stop,
}

/// How soon the log is to be truncated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// When it frees much more than it costs.
    Worthwhile,
    /// As far as it may be.
    Now,
}

/// The flusher thread.
#[derive(Debug)]
pub(crate) struct Flusher {
    requests: Sender<Request>,
    thread: JoinHandle<()>,
}

/// Asks the flusher for work. Asking twice is as good as once.
#[derive(Clone, Debug)]
pub(crate) struct Work(Sender<Request>);

impl Work {
    pub(crate) fn flush(&self, table: &Table) {
        self.send(Request::Flush(table.id));
    }

    /// Memory is pressing: flush the largest table.
    pub(crate) fn relieve(&self) {
        self.send(Request::Relieve);
    }

    fn send(&self, request: Request) {
        // A flusher that is gone means a storage that is closing, which flushes everything itself.
        let _ = self.0.send(request);
    }
}

impl Flusher {
    pub(crate) fn start(shared: Arc<Shared>, config: StorageConfig) -> Flusher {
        let (requests, received) = channel();
        let thread = std::thread::Builder::new()
            .name("flush".into())
            .spawn(move || Loop { shared, config, paused_until: Cell::default() }.run(&received))
            .expect("the operating system starts a thread");
        Flusher { requests, thread }
    }

    pub(crate) fn work(&self) -> Work {
        Work(self.requests.clone())
    }

    /// Waits for the flush under way, if any, and ends the thread.
    pub(crate) fn stop(self) {
        let _ = self.requests.send(Request::Stop);
        if self.thread.join().is_err() {
            tracing::error!("the flusher panicked");
        }
    }
}

struct Loop {
    shared: Arc<Shared>,
    config: StorageConfig,
    /// Nothing is flushed until then: the disk was full, or the store of the tables did not answer.
    paused_until: Cell<Duration>,
}

impl Loop {
    fn run(&self, requests: &Receiver<Request>) {
        loop {
            let mut batch = match requests.recv_timeout(TICK) {
                Ok(request) => vec![request],
                Err(RecvTimeoutError::Timeout) => Vec::new(),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            batch.extend(requests.try_iter());
            let mut tables: Vec<TableId> = Vec::new();
            let mut relieve = false;
            for request in batch {
                match request {
                    Request::Stop => return,
                    Request::Relieve => relieve = true,
                    Request::Flush(id) if !tables.contains(&id) => tables.push(id),
                    Request::Flush(_) => {}
                }
            }
            if self.is_paused() {
                // What was asked for is found again by its size.
                continue;
            }
            let tables: Vec<_> = tables.into_iter().filter_map(|id| self.shared.catalog.by_id(id)).collect();
            for table in tables {
                // Asked for again while it was being flushed: there may be little left.
                if table.state().live_bytes >= self.config.table_memory_bytes_max {
                    self.flush(&table);
                }
            }
            if (relieve || self.shared.context.memory.is_full()) && self.shared.context.memory.is_pressing() {
                let largest = self.shared.catalog.all().into_iter().max_by_key(|table| table.memory_bytes());
                largest.iter().for_each(|table| self.flush(table));
            }
            self.flush_old();
        }
    }

    /// Flushes what is old, what holds too long a log, and what failed before.
    fn flush_old(&self) {
        let now = self.shared.context.clock.monotonic();
        for table in self.shared.catalog.all() {
            let due = {
                let state = table.state();
                let old = state.live_since.is_some_and(|since| now.saturating_sub(since) >= self.config.flush_max_age);
                old || state.sealed_to.is_some() || state.live_bytes >= self.config.table_memory_bytes_max
            };
            if due || self.must_not_wait(&table, now) {
                self.flush(&table);
            }
        }
        let agents = &self.shared.agents;
        let waits = agents.changed_since().is_some_and(|since| now.saturating_sub(since) >= self.config.flush_max_age);
        if agents.has_departed() {
            agents.project();
        }
        if waits && let Some(tables) = agents.tables() {
            self.flush(&Arc::clone(&tables.agents));
        }
        let log_bytes = self.shared.with_wal(Log::stats).map_or(0, |stats| stats.bytes_on_disk);
        // Rows take less room in shards than in the log.
        let log_bytes_max = if self.shared.context.space.is_short() {
            self.config.log_bytes_max.min(SEGMENTS_WHEN_SHORT * self.config.log_segment_bytes)
        } else {
            self.config.log_bytes_max
        };
        if log_bytes > log_bytes_max {
            let tables = self.shared.catalog.all();
            let oldest = tables.iter().filter_map(|table| Some((table.oldest_unflushed()?, table))).min_by_key(|t| t.0);
            // What a damaged table holds cannot be freed by any flush.
            let held = self.shared.catalog.held();
            if let Some((_, table)) = oldest.filter(|(oldest, _)| held.is_none_or(|held| *oldest < held)) {
                self.flush(table);
            }
        }
    }

    /// Whether rows wait that need not or may not.
    fn must_not_wait(&self, table: &Table, now: Duration) -> bool {
        let (waits, last_write) = table.waiting();
        let Some(since) = waits.since else { return false };
        now.saturating_sub(last_write) >= QUIET
            || now.saturating_sub(since) >= self.config.flush_max_age
            || waits.bytes > self.config.table_memory_bytes_max / 4
    }

    /// How much a flush of `table` may rewrite now.
    fn settling(&self, table: &Table) -> Settling {
        let now = self.shared.context.clock.monotonic();
        let log_bytes = self.shared.with_wal(Log::stats).map_or(0, |stats| stats.bytes_on_disk);
        // Where memory is what is wanted, a flush that leaves much of it to rows that wait helps little.
        let is_pressing = self.shared.context.memory.is_pressing();
        let is_full_of_waiting = is_pressing && table.waiting().0.bytes > table.memory_bytes() / 4;
        if log_bytes > self.config.log_bytes_max / 2 || is_full_of_waiting || self.must_not_wait(table, now) {
            Settling::Everything
        } else {
            Settling::WithinBudget
        }
    }

    fn is_paused(&self) -> bool {
        self.shared.context.clock.monotonic() < self.paused_until.get()
    }

    fn flush(&self, table: &Table) {
        if self.is_paused() {
            return;
        }
        if let Err(e) = self.shared.flush(table, self.settling(table)) {
            self.shared.context.counters.flushes_failed.add(1);
            if e.is_disk_full() || e.is_store_away() {
                self.paused_until.set(self.shared.context.clock.monotonic() + PAUSE);
            }
            tracing::error!(table = %table.name, error = %e, "flush failed; it will be tried again");
        }
    }
}

impl Shared {
    /// Flushes a table and frees the log behind it.
    pub(crate) fn flush(&self, table: &Table, settling: Settling) -> Result<Option<Flushed>, StorageError> {
        let applied = || {
            // Read before the rows of agents are made: what lies below it is in them.
            let applied = self.applied.load(Ordering::SeqCst);
            if is_agents_table(&table.name) {
                self.agents.project();
            }
            applied
        };
        // The rows of the server's own tables are few, change all the time, and are not in the log as such.
        let settling = if *table.name.schema == *SYSTEM { Settling::Everything } else { settling };
        let flushed = table.flush(&applied, settling).inspect_err(|e| {
            self.context.note_damage(e);
            if e.is_disk_full() {
                self.context.space.note_full();
            }
        })?;
        if let Some(flushed) = &flushed {
            tracing::debug!(table = %table.name, rows = flushed.rows, shards = flushed.shards, "flushed");
        }
        self.truncate(Pace::Worthwhile)?;
        Ok(flushed)
    }

    /// Removes the segments of the log that no table and no agent needs.
    pub(crate) fn truncate(&self, pace: Pace) -> Result<(), StorageError> {
        let _one = self.truncating.lock().expect("no holder of this lock panics");
        // Read first: what is applied after this lies behind it, even in a table that was empty when asked.
        let applied = self.applied.load(Ordering::SeqCst);
        let oldest = self.catalog.all().iter().filter_map(|table| table.oldest_unflushed()).min();
        let needed = oldest.into_iter().chain(self.catalog.held()).min();
        let behind = needed.map_or(applied, |needed| needed.min(applied));
        let behind = self.cover_agents(behind, pace);
        self.with_wal(|wal| wal.truncate_behind(behind)).transpose()?;
        Ok(())
    }

    /// Writes what is known of agents to the log again, as far as the log is to be truncated behind `behind`.
    /// Returns how far it may be. The caller holds `truncating` and no other lock: this waits for the log.
    fn cover_agents(&self, behind: u64, pace: Pace) -> u64 {
        let Some(uncovered) = self.agents.uncovered(behind) else { return behind };
        let first = self.with_wal(Log::first).unwrap_or(0);
        let freed = behind.saturating_sub(uncovered.oldest.max(first));
        let slack = (uncovered.bytes * LOG_FREED_BY_STATE_BYTES).max(self.log_slack_bytes.min);
        if pace == Pace::Worthwhile && freed < slack.min(self.log_slack_bytes.max) {
            return uncovered.oldest;
        }
        loop {
            let applied = self.applied.load(Ordering::SeqCst);
            let mut states = self.agents.states(behind, applied, STATE_BYTES_WAITING_MAX);
            if states.records.is_empty() {
                return behind;
            }
            match self.append_states(std::mem::take(&mut states.records)) {
                Ok(()) => self.agents.covered(&states),
                Err(e) => {
                    tracing::warn!(error = %e, "what is known of agents was not written again; the log stays longer");
                    return self.agents.uncovered(behind).map_or(behind, |uncovered| uncovered.oldest);
                }
            }
        }
    }

    fn append_states(&self, records: Vec<Vec<u8>>) -> Result<(), StorageError> {
        let (ack, durable) = Ack::new(&self.in_flight);
        for bytes in records {
            self.append(bytes, Token { subject: Subject::State, ack: ack.share() })?;
        }
        ack.durable();
        durable.blocking_recv().unwrap_or(Err(StorageError::Closed))
    }
}
