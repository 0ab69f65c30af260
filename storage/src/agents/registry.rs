//! What is known of each agent, from the records of the log about it.
//!
//! Owns:     telling a batch that is here already from a new one; counters, gaps and numbers of every agent; the rows
//!           of `system.agents` and `system.agent_gaps`.
//! Does not: log, decide when the log is truncated (`flusher`), or judge readings.
//!
//! Invariants
//!  1. A batch is known only once its record, which stands behind its readings in the log, was applied. So what is
//!     called a duplicate is durable and visible.
//!  2. Of each agent, everything logged before its `as_of` is in the newest state in the log, or lies behind `as_of`
//!     because the agent began there. The log is never truncated behind an `as_of`.
//!  3. A batch that is on its way is in `pending` exactly as long as its [`Pending`] lives, or until it was applied.
//!  4. Locks: `projecting` before `known`; no other lock is taken, and no acknowledgement given, while `known` is held.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use model::record::{self, AgentBatchRecord, AgentCounters, AgentEpoch, AgentState, AgentStatusRecord, EpochGap};
use model::{Position, TableBatch};

use super::ranges::{self, Ranges};
use super::rows::{self, AgentRow, AgentTables, GapRow};
use super::{AgentBatch, AgentGap, Seen};
use crate::StorageError;
use crate::catalog::Catalog;
use crate::context::Counter;
use crate::table::Growth;
use crate::write::Ack;

/// Agents that are known at once; beyond it those that were quiet the longest are forgotten (P10).
const AGENTS_MAX: usize = 100_000;

/// Bytes that all of them may take, by the measure of [`bytes_of`].
const BYTES_MAX: usize = 256 << 20;

/// Outboxes kept of one agent.
const EPOCHS_MAX: usize = 8;

/// Batches of an outbox whose checksums are kept. An agent sends fewer than 128 again after any crash of its own, and
/// two boards may share an identity.
const RECENT_MAX: usize = 256;

/// Ranges of numbers kept above the first; then the lowest hole is called a gap.
const RANGES_MAX: usize = 64;

/// Gaps of an outbox that are kept, to count what comes of them all the same.
const GAPS_MAX: usize = 64;

/// Ranges of numbers that were given up and did not come; beyond it the lowest are taken for numbers that came.
const GIVEN_UP_MAX: usize = 64;

/// The reason of a gap that the agent did not report.
const NEVER_CAME: &str = "never_came";

/// How long a writer is told to wait whose batch was on its way already, and failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Agents {
    tables: OnceLock<AgentTables>,
    known: Mutex<Known>,
    /// Held while rows of `system.agents` are made and applied, so that an older row never comes after a newer one.
    projecting: Mutex<()>,
    pub(crate) duplicates: Counter,
    pub(crate) conflicts: Counter,
    pub(crate) forgotten: Counter,
    count: AtomicU64,
}

#[derive(Debug, Default)]
struct Known {
    agents: HashMap<Arc<str>, Agent>,
    pending: HashMap<Number, Vec<OnItsWay>>,
    /// Offset below which every record has been applied here, as far as a group about agents told.
    applied: u64,
    /// The newest frame that had a record about an agent.
    position: Option<Position>,
    /// Agents whose row is older than what is known.
    changed: HashSet<Arc<str>>,
    /// What was logged before this offset is in the rows of the shards.
    rows_from: u64,
    /// Since when there are any, by the monotonic clock.
    changed_since: Option<Duration>,
    /// Rows of agents that were forgotten before they were written.
    departed: Vec<AgentRow>,
    /// Of all agents, by the measure of [`bytes_of`].
    bytes: usize,
    /// Counts changes, so that quiet agents can be told without a clock.
    tick: u64,
}

#[derive(Debug)]
struct Agent {
    /// `as_of` is that of the newest state in the log, or where the agent begins.
    state: AgentState,
    used: u64,
    bytes: usize,
}

/// The number of a batch: agent, epoch, seq.
type Number = (Arc<str>, u64, u64);

/// A batch between its request and being applied.
#[derive(Debug)]
struct OnItsWay {
    crc: u32,
    /// Requests that brought it again meanwhile.
    waiting: Vec<Ack>,
}

/// What a batch is, when it comes.
pub(crate) enum Begun {
    /// To be applied.
    First(Pending, Seen),
    /// Here already, or on its way: acknowledged with it.
    Again,
}

/// A batch on its way: until it is applied, the same batch waits for it; if it fails, so does that.
#[derive(Debug)]
pub(crate) struct Pending {
    agents: Arc<Agents>,
    number: Number,
    crc: u32,
    is_done: bool,
}

/// Something that was logged about an agent.
#[derive(Debug)]
pub(crate) enum AgentEvent {
    /// A batch, with what waits for it if this process began it.
    Batch(AgentBatchRecord, Option<Pending>),
    /// A status.
    Status(AgentStatusRecord),
}

/// What must be written to the log before it may be truncated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Uncovered {
    /// The oldest place that an agent's newest state does not reach beyond.
    pub(crate) oldest: u64,
    /// About the bytes of the states to be written.
    pub(crate) bytes: u64,
}

/// States to be logged.
#[derive(Debug, Default)]
pub(crate) struct States {
    pub(crate) records: Vec<Vec<u8>>,
    agents: Vec<Arc<str>>,
    as_of: u64,
}

impl Agents {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("no holder of this lock panics")
    }

    /// The tables about agents, made if they are not there; durable when it returns.
    pub(crate) fn open_tables(&self, catalog: &Catalog) -> Result<&AgentTables, StorageError> {
        if let Some(tables) = self.tables.get() {
            return Ok(tables);
        }
        let tables = AgentTables::open(catalog)?;
        self.lock().rows_from = tables.agents.state().flushed;
        Ok(self.tables.get_or_init(|| tables))
    }

    /// The tables about agents, if there are any.
    pub(crate) fn tables(&self) -> Option<&AgentTables> {
        self.tables.get()
    }

    /// Agents known now.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Compares a batch with what is known. `ack` waits if the same batch is on its way.
    pub(crate) fn begin(self: &Arc<Self>, batch: &AgentBatch, source: &str, ack: &Ack) -> Begun {
        let number: Number = (Arc::clone(&batch.agent), batch.epoch, batch.seq);
        let mut known = self.lock();
        let on_their_way = known.pending.get_mut(&number).map(Vec::as_mut_slice).unwrap_or_default();
        if let Some(same) = on_their_way.iter_mut().find(|other| other.crc == batch.crc) {
            same.waiting.push(ack.share());
            return Begun::Again;
        }
        let others = !on_their_way.is_empty();
        let agent = known.agents.get(&batch.agent).map(|agent| &agent.state);
        let recent = agent.and_then(|agent| agent.epochs.iter().find(|epoch| epoch.epoch == batch.epoch));
        let mut of_number = recent.iter().flat_map(|epoch| &epoch.recent).filter(|recent| recent.0 == batch.seq);
        let seen = if of_number.clone().any(|recent| recent.1 == batch.crc) {
            return Begun::Again;
        } else if others || of_number.next().is_some() {
            Seen::Conflict
        } else {
            Seen::New
        };
        let conflicts = agent.map_or(0, |agent| agent.counters.conflicts);
        known.pending.entry(number.clone()).or_default().push(OnItsWay { crc: batch.crc, waiting: Vec::new() });
        drop(known);
        // Two boards conflict with every batch: the 1st, the 2nd, the 4th … are enough to be told.
        if seen == Seen::Conflict && (conflicts + 1).is_power_of_two() {
            tracing::warn!(agent = %batch.agent, epoch = batch.epoch, seq = batch.seq, source, conflicts = conflicts + 1,
                "two devices use id {}; give one of them another id", batch.agent);
        }
        Begun::First(Pending { agents: Arc::clone(self), number, crc: batch.crc, is_done: false }, seen)
    }

    /// Applies what the group at `position` logged about agents; `end` is the offset behind it. The tables it was
    /// written to have been applied. Returns who waited for it, to be answered when the group is.
    pub(crate) fn apply(&self, events: Vec<AgentEvent>, position: Position, end: u64, now: Duration) -> Vec<Ack> {
        let mut waiting = Vec::new();
        let mut gap_rows = Vec::new();
        let mut known = self.lock();
        known.applied = known.applied.max(end);
        known.position = known.position.max(Some(position));
        for event in events {
            match event {
                AgentEvent::Batch(batch, pending) => {
                    known.note_batch(&batch, position.offset, &mut gap_rows);
                    if let Some(mut pending) = pending {
                        pending.is_done = true;
                        waiting.extend(known.take_pending(&pending.number, pending.crc));
                    }
                }
                AgentEvent::Status(status) => known.note_status(&status, position.offset),
            }
        }
        self.forgotten.add(known.forget_quiet(AGENTS_MAX, BYTES_MAX));
        if !known.changed.is_empty() {
            known.changed_since.get_or_insert(now);
        }
        self.count.store(known.agents.len() as u64, Ordering::Relaxed);
        drop(known);
        self.apply_gaps(&gap_rows, position);
        waiting
    }

    fn apply_gaps(&self, gap_rows: &[GapRow], position: Position) {
        if let (Some(batch), Some(tables)) = (rows::gaps(gap_rows), self.tables.get()) {
            tables.gaps.apply(&batch, position);
        }
    }

    /// Brings the rows of `system.agents` up to what is known (P6).
    pub(crate) fn project(&self) -> Growth {
        let Some(tables) = self.tables.get() else { return Growth::default() };
        let _projecting = self.projecting.lock().expect("no holder of this lock panics");
        let (rows, position) = {
            let mut known = self.lock();
            let changed = std::mem::take(&mut known.changed);
            let mut rows = std::mem::take(&mut known.departed);
            rows.extend(changed.iter().filter_map(|id| known.agents.get(id)).map(|agent| AgentRow::of(&agent.state)));
            known.changed_since = None;
            (rows, known.position)
        };
        let Some(position) = position.filter(|_| !rows.is_empty()) else { return Growth::default() };
        // Whatever changed a row was logged behind the watermark of the flush before: see `Shared::flush`.
        debug_assert!(position.offset >= tables.agents.state().flushed, "a row would be taken for flushed");
        let batch: TableBatch = rows::agents(&rows);
        tables.agents.apply(&batch, position)
    }

    /// Since when there are rows of `system.agents` to be written.
    pub(crate) fn changed_since(&self) -> Option<Duration> {
        self.lock().changed_since
    }

    /// Whether rows of forgotten agents wait to be written.
    pub(crate) fn has_departed(&self) -> bool {
        !self.lock().departed.is_empty()
    }

    /// What keeps the log from being truncated behind `behind`.
    pub(crate) fn uncovered(&self, behind: u64) -> Option<Uncovered> {
        let known = self.lock();
        let mut uncovered: Option<Uncovered> = None;
        for agent in known.agents.values().filter(|agent| agent.state.as_of < behind) {
            let all = uncovered.get_or_insert(Uncovered { oldest: behind, bytes: 0 });
            all.oldest = all.oldest.min(agent.state.as_of);
            all.bytes += agent.bytes as u64;
        }
        uncovered
    }

    /// Some of the states that keep the log from being truncated behind `behind`, about `bytes_max` of them. `applied`
    /// is an offset below which every frame had been applied before this call.
    pub(crate) fn states(&self, behind: u64, applied: u64, bytes_max: usize) -> States {
        let known = self.lock();
        // Groups are applied here as a whole: what lies below is in, what lies behind is not.
        let as_of = applied.max(known.applied);
        let mut states = States { as_of, ..States::default() };
        let mut bytes = 0;
        for (id, agent) in known.agents.iter().filter(|(_, agent)| agent.state.as_of < behind) {
            let mut record = Vec::new();
            record::encode_agent_state(&AgentState { as_of, ..agent.state.clone() }, &mut record);
            bytes += record.len();
            states.records.push(record);
            states.agents.push(Arc::clone(id));
            if bytes >= bytes_max {
                break;
            }
        }
        states
    }

    /// Notes that `states` are durable.
    pub(crate) fn covered(&self, states: &States) {
        let mut known = self.lock();
        for id in &states.agents {
            if let Some(agent) = known.agents.get_mut(id) {
                agent.state.as_of = agent.state.as_of.max(states.as_of);
            }
        }
    }
}

/// Replay. States are read first, wherever they lie in the log, then all other records in order.
impl Agents {
    /// Takes a state that was found in the frame at `position`; of two, the later one is given last.
    pub(crate) fn load(&self, state: AgentState, position: Position) {
        let mut known = self.lock();
        known.position = known.position.max(Some(position));
        known.tick += 1;
        let mut agent = Agent { state, used: known.tick, bytes: 0 };
        agent.bytes = bytes_of(&agent.state);
        known.bytes += agent.bytes;
        if let Some(before) = known.agents.insert(Arc::clone(&agent.state.agent), agent) {
            known.bytes -= before.bytes;
        }
    }

    /// After replay: says which rows are not in shards yet, and writes again what only states tell of gaps.
    pub(crate) fn replayed(&self, now: Duration) {
        let mut known = self.lock();
        let (Some(tables), Some(position)) = (self.tables.get(), known.position) else { return };
        let Known { agents, changed, rows_from, .. } = &mut *known;
        changed.extend(agents.iter().filter(|(_, agent)| agent.state.as_of > *rows_from).map(|(id, _)| Arc::clone(id)));
        if !known.changed.is_empty() {
            known.changed_since = Some(now);
        }
        self.count.store(known.agents.len() as u64, Ordering::Relaxed);
        let flushed = tables.gaps.state().flushed;
        let mut gap_rows = Vec::new();
        for state in known.agents.values().map(|agent| &agent.state).filter(|state| state.as_of > flushed) {
            for epoch in &state.epochs {
                // What the agent reported is in the records, but for what came all the same.
                let row = |gap: &EpochGap| {
                    let row = if gap.reported { received } else { never_came };
                    row(&state.agent, epoch.epoch, gap)
                };
                gap_rows.extend(epoch.gaps.iter().map(row));
            }
        }
        drop(known);
        self.apply_gaps(&gap_rows, position);
    }
}

impl Known {
    /// The agent, made if it is not known; `None` if its state has what was logged at `offset` already.
    fn agent(&mut self, id: &Arc<str>, offset: u64, received_us: i64) -> Option<&mut Agent> {
        self.tick += 1;
        let agent = self.agents.entry(Arc::clone(id)).or_insert_with(|| Agent {
            state: AgentState {
                agent: Arc::clone(id),
                as_of: offset,
                first_seen_us: received_us,
                last_seen_us: received_us,
                online: None,
                version: None,
                backlog_batches: None,
                backlog_bytes: None,
                counters: AgentCounters::default(),
                epochs: Vec::new(),
            },
            used: 0,
            bytes: 0,
        });
        if offset < agent.state.as_of {
            return None;
        }
        agent.used = self.tick;
        if offset >= self.rows_from && !self.changed.contains(id) {
            self.changed.insert(Arc::clone(id));
        }
        Some(agent)
    }

    fn note_batch(&mut self, batch: &AgentBatchRecord, offset: u64, gap_rows: &mut Vec<GapRow>) {
        let Some(agent) = self.agent(&batch.agent, offset, batch.received_us) else {
            // The state has the gaps, but the table may not have their rows.
            gap_rows.extend(batch.gaps.iter().map(|gap| reported(batch, gap, None)));
            return;
        };
        let state = &mut agent.state;
        state.last_seen_us = batch.received_us;
        let epoch = use_epoch(&mut state.epochs, batch.epoch);
        match batch.seen {
            Seen::Duplicate => state.counters.duplicates += 1,
            Seen::New | Seen::Conflict => {
                state.counters.conflicts += u64::from(batch.seen == Seen::Conflict);
                state.counters.batches += 1;
                state.counters.readings += batch.readings;
                note_applied(epoch, batch, gap_rows);
                for gap in &batch.gaps {
                    let AgentGap { first_seq, last_seq, time_us, .. } = *gap;
                    let is_known = epoch
                        .gaps
                        .iter()
                        .any(|known| known.reported && known.first_seq <= first_seq && last_seq <= known.last_seq);
                    let received = give_up(epoch, first_seq, last_seq);
                    keep_gap(epoch, EpochGap { first_seq, last_seq, received, time_us, reported: true });
                    gap_rows.push(reported(batch, gap, Some(received)));
                    state.counters.gaps += u64::from(!is_known);
                }
                while epoch.accounted.len() > 1 + RANGES_MAX
                    && let Some((first_seq, last_seq)) = ranges::lowest_hole(&epoch.accounted)
                {
                    let received = give_up(epoch, first_seq, last_seq);
                    let gap = EpochGap { first_seq, last_seq, received, time_us: batch.received_us, reported: false };
                    keep_gap(epoch, gap);
                    gap_rows.push(never_came(&batch.agent, batch.epoch, &gap));
                    state.counters.gaps += 1;
                }
            }
        }
        self.weigh(&batch.agent);
    }

    fn note_status(&mut self, status: &AgentStatusRecord, offset: u64) {
        let Some(agent) = self.agent(&status.agent, offset, status.received_us) else { return };
        let state = &mut agent.state;
        // A last will is published for an agent that is not there.
        if status.online {
            state.last_seen_us = status.received_us;
        }
        state.online = Some(status.online);
        let keep = |text: &Option<Arc<str>>, old: &mut Option<Arc<str>>| {
            if text.is_some() {
                old.clone_from(text);
            }
        };
        keep(&status.version, &mut state.version);
        state.backlog_batches = status.backlog_batches.or(state.backlog_batches);
        state.backlog_bytes = status.backlog_bytes.or(state.backlog_bytes);
        self.weigh(&status.agent);
    }

    /// Notes how many bytes an agent takes now.
    fn weigh(&mut self, id: &Arc<str>) {
        if let Some(agent) = self.agents.get_mut(id) {
            let bytes = bytes_of(&agent.state);
            self.bytes = self.bytes + bytes - agent.bytes;
            agent.bytes = bytes;
        }
    }

    fn take_pending(&mut self, number: &Number, crc: u32) -> Vec<Ack> {
        let Some(on_their_way) = self.pending.get_mut(number) else { return Vec::new() };
        let place = on_their_way.iter().position(|one| one.crc == crc);
        let waiting = place.map_or_else(Vec::new, |place| on_their_way.swap_remove(place).waiting);
        if on_their_way.is_empty() {
            self.pending.remove(number);
        }
        waiting
    }

    /// Forgets the agents that were quiet the longest if there are too many, and some more, so that the next new one
    /// does not cost a look at all of them again. Returns how many.
    fn forget_quiet(&mut self, agents_max: usize, bytes_max: usize) -> u64 {
        if self.agents.len() <= agents_max && self.bytes <= bytes_max {
            return 0;
        }
        let mut by_use: Vec<(u64, Arc<str>)> =
            self.agents.values().map(|a| (a.used, Arc::clone(&a.state.agent))).collect();
        by_use.sort_unstable();
        let before = self.agents.len();
        for (_, id) in by_use {
            if self.agents.len() <= agents_max - agents_max / 100 && self.bytes <= bytes_max - bytes_max / 100 {
                break;
            }
            if let Some(agent) = self.agents.remove(&id) {
                self.bytes -= agent.bytes;
                if self.changed.remove(&id) {
                    self.departed.push(AgentRow::of(&agent.state));
                }
            }
        }
        (before - self.agents.len()) as u64
    }
}

/// The state of an outbox, which becomes the one used last.
fn use_epoch(epochs: &mut Vec<AgentEpoch>, epoch: u64) -> &mut AgentEpoch {
    let used = match epochs.iter().position(|known| known.epoch == epoch) {
        Some(place) => epochs.remove(place),
        None => AgentEpoch { epoch, ..AgentEpoch::default() },
    };
    if epochs.len() == EPOCHS_MAX {
        epochs.remove(0);
    }
    epochs.push(used);
    epochs.last_mut().expect("one was just added")
}

/// Notes the number and checksum of a batch that was applied.
fn note_applied(epoch: &mut AgentEpoch, batch: &AgentBatchRecord, gap_rows: &mut Vec<GapRow>) {
    if epoch.recent.len() == RECENT_MAX {
        epoch.recent.remove(0);
    }
    epoch.recent.push((batch.seq, batch.crc));
    epoch.highest = epoch.highest.max(batch.seq);
    ranges::insert(&mut epoch.accounted, batch.seq, batch.seq);
    if !ranges::remove(&mut epoch.given_up, batch.seq) {
        return;
    }
    // It came after it was given up. That may have made two ranges of one.
    forget_lowest(&mut epoch.given_up);
    let has = |gap: &&mut EpochGap| (gap.first_seq..=gap.last_seq).contains(&batch.seq);
    for gap in epoch.gaps.iter_mut().filter(has) {
        let numbers = (gap.last_seq - gap.first_seq).saturating_add(1);
        gap.received = gap.received.saturating_add(1).min(numbers);
        gap_rows.push(received(&batch.agent, batch.epoch, gap));
    }
}

/// Notes that a gap was reported or found. Returns how many of its batches came all the same.
fn give_up(epoch: &mut AgentEpoch, first_seq: u64, last_seq: u64) -> u64 {
    let count = |ranges| ranges::count(ranges, first_seq, last_seq);
    let received = count(&epoch.accounted) - count(&epoch.given_up);
    for (first, last) in ranges::holes(&epoch.accounted, first_seq, last_seq) {
        ranges::insert(&mut epoch.given_up, first, last);
    }
    ranges::insert(&mut epoch.accounted, first_seq, last_seq);
    forget_lowest(&mut epoch.given_up);
    received
}

fn forget_lowest(given_up: &mut Ranges) {
    given_up.drain(..given_up.len().saturating_sub(GIVEN_UP_MAX));
}

/// Keeps a gap, as its row is: one that begins with the same number at the same time takes the place of the older one.
fn keep_gap(epoch: &mut AgentEpoch, gap: EpochGap) {
    epoch.gaps.retain(|known| (known.first_seq, known.time_us) != (gap.first_seq, gap.time_us));
    if epoch.gaps.len() == GAPS_MAX {
        epoch.gaps.remove(0);
    }
    epoch.gaps.push(gap);
}

fn reported(batch: &AgentBatchRecord, gap: &AgentGap, received: Option<u64>) -> GapRow {
    GapRow {
        agent: Arc::clone(&batch.agent),
        epoch: batch.epoch,
        first_seq: gap.first_seq,
        time_us: gap.time_us,
        last_seq: Some(gap.last_seq),
        readings: gap.readings,
        reason: Some(Arc::clone(&gap.reason)),
        received,
    }
}

/// The part of a gap's row that says how much of it came all the same.
fn received(agent: &Arc<str>, epoch: u64, gap: &EpochGap) -> GapRow {
    GapRow {
        agent: Arc::clone(agent),
        epoch,
        first_seq: gap.first_seq,
        time_us: gap.time_us,
        last_seq: None,
        readings: None,
        reason: None,
        received: Some(gap.received),
    }
}

fn never_came(agent: &Arc<str>, epoch: u64, gap: &EpochGap) -> GapRow {
    GapRow {
        agent: Arc::clone(agent),
        epoch,
        first_seq: gap.first_seq,
        time_us: gap.time_us,
        last_seq: Some(gap.last_seq),
        readings: None,
        reason: Some(NEVER_CAME.into()),
        received: Some(gap.received),
    }
}

/// About what an agent takes in memory, and a little more than in the log.
fn bytes_of(state: &AgentState) -> usize {
    let of_epoch = |epoch: &AgentEpoch| {
        let ranges = epoch.accounted.capacity() + epoch.given_up.capacity();
        88 + 16 * ranges + 16 * epoch.recent.capacity() + 40 * epoch.gaps.capacity()
    };
    320 + 2 * state.agent.len() + state.epochs.iter().map(of_epoch).sum::<usize>()
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        let waiting = self.agents.lock().take_pending(&self.number, self.crc);
        for ack in waiting {
            let reason = "the batch was on its way already, and that attempt failed";
            ack.fail(StorageError::Busy { reason: reason.into(), retry_after: RETRY_AFTER });
        }
    }
}

#[cfg(test)]
mod tests {
    use model::{NodeEpoch, NodeId};

    use super::*;

    fn at(offset: u64) -> Position {
        Position { counter: offset, node: NodeId(1), epoch: NodeEpoch(1), offset }
    }

    fn batch(agent: &str, seq: u64) -> AgentEvent {
        let record = AgentBatchRecord {
            agent: agent.into(),
            epoch: 1,
            seq,
            crc: 0,
            seen: Seen::New,
            received_us: 0,
            readings: 1,
            gaps: Vec::new(),
        };
        AgentEvent::Batch(record, None)
    }

    #[test]
    fn those_that_were_quiet_the_longest_are_forgotten_first() {
        let agents = Agents::default();
        for n in 0..200 {
            agents.apply(vec![batch(&format!("a{n}"), 1)], at(n), n + 1, Duration::ZERO);
        }
        // The first ten are heard again.
        (0..10).for_each(|n| drop(agents.apply(vec![batch(&format!("a{n}"), 2)], at(300), 301, Duration::ZERO)));
        let mut known = agents.lock();
        let measured: usize = known.agents.values().map(|agent| bytes_of(&agent.state)).sum();
        assert_eq!(known.bytes, measured);
        assert_eq!(known.forget_quiet(200, usize::MAX), 0);
        assert_eq!(known.forget_quiet(100, usize::MAX), 101);
        assert_eq!((known.agents.len(), known.departed.len()), (99, 101));
        let kept = |n: u64| known.agents.contains_key(&*format!("a{n}"));
        assert!((0..10).all(kept) && (10..111).all(|n| !kept(n)) && (111..200).all(kept));
        let half = known.bytes / 2;
        assert!(known.forget_quiet(100, half) >= 40 && known.bytes <= half);
    }

    #[test]
    fn a_state_has_what_was_logged_before_its_offset_and_replay_adds_the_rest() {
        let live = Agents::default();
        let mut log = Vec::new();
        for n in 0..100 {
            log.push((n, batch("pi", n + 1)));
            live.apply(vec![batch("pi", n + 1)], at(10 * n), 10 * n + 10, Duration::ZERO);
            // The log has moved on meanwhile, by groups that had nothing of agents.
            let states = live.states(u64::MAX, 10 * n + 10 * (n % 2), 1 << 20);
            assert_eq!(states.as_of, 10 * n + 10);
            let record::Record::AgentState(state) = record::decode(&states.records[0]).unwrap() else {
                panic!("a state")
            };
            // Whatever of the log is still there when the state is found, what comes out is the same.
            for from in [0, n, n + 1] {
                let again = Agents::default();
                again.load(state.clone(), at(5000));
                for (m, event) in &log[from as usize..] {
                    let AgentEvent::Batch(record, _) = event else { continue };
                    again.apply(vec![AgentEvent::Batch(record.clone(), None)], at(10 * m), 0, Duration::ZERO);
                }
                let state_of = |agents: &Agents| {
                    let mut state = agents.lock().agents["pi"].state.clone();
                    state.as_of = 0;
                    state
                };
                assert_eq!(state_of(&again), state_of(&live), "{n} from {from}");
            }
        }
        assert!(live.uncovered(500).is_some_and(|uncovered| uncovered.oldest == 0));
        let states = live.states(500, 0, 1);
        live.covered(&states);
        assert!(live.uncovered(500).is_none() && live.uncovered(1001).is_some());
    }
}
