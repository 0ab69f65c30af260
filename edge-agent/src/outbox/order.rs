//! Which batch is handed out next.
//!
//! Owns:     what counts as backlog, whose turn it is, how fast the backlog leaves, and which batches are next in line.
//! Does not: forget, or bound how much is in flight: the outbox does.
//!
//! Invariants
//!  1. In every order each batch has its turn: the backlog does not wait for ever for what is new, nor that for the backlog.
//!  2. A rate never fills the outbox: from three quarters on it does not count.
//!  3. What is settled lies in few ranges: with [`AHEAD_MAX`] a new one does not begin.
//!  4. Out of the order of the log only what a durable record names is handed out. So the next process knows what may have
//!     been sent, and begins with it: the server still knows the names of what it has (ADR 0043).

use std::time::Duration;

use super::ahead::SeqRange;
use super::record::Content;
use super::scan::{Entry, Stage};
use super::{Batch, Outbox, OutboxError, RESENT_MAX};

/// Ranges of batches that are forgotten out of order at most, but for those that are in flight. Each takes room in every
/// record, and a server that is Eden keeps 64 of each agent.
const AHEAD_MAX: usize = 16;
/// Batches that are next in line in a record at most.
const PLANNED_MAX: usize = 63;
/// A rate is kept over as much time: a thread that comes late makes up for it.
const PACE_TIME: Duration = Duration::from_secs(1);

/// In which order batches are sent while there is a backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// What was made since the connection came about takes turns with what was made before, the oldest of each first.
    Interleaved,
    /// The newest first.
    NewestFirst,
    /// As they were made.
    OldestFirst,
}

/// Where the choice stands. Offsets are of the log; what has left a queue does not come back to it.
#[derive(Debug)]
pub(super) struct Order {
    replay: Replay,
    /// Of the backlog; 0 without a limit.
    bytes_per_s: u64,
    /// Batches from here on were made since the connection came about; the largest number before the first one.
    fresh_from: u64,
    /// Below it nothing waits.
    oldest_from: u64,
    /// From `fresh_from` to it nothing waits.
    fresh_waits_from: u64,
    /// Those next in line, as the newest record names them.
    planned: Vec<u64>,
    /// As the newest durable record does.
    planned_durably: Vec<u64>,
    last_was_fresh: bool,
    /// When the next batch of the backlog may leave, on the monotonic clock.
    ready_at: Duration,
}

impl Order {
    pub(super) fn new(replay: Replay, bytes_per_s: u64) -> Self {
        Order {
            replay,
            bytes_per_s,
            fresh_from: u64::MAX,
            oldest_from: 0,
            fresh_waits_from: u64::MAX,
            planned: Vec::new(),
            planned_durably: Vec::new(),
            last_was_fresh: false,
            ready_at: Duration::ZERO,
        }
    }

    /// The log was opened again and ends at `end`: what comes now may lie at offsets that were seen before.
    pub(super) fn reset(&mut self, end: u64) {
        if self.fresh_from != u64::MAX {
            self.fresh_from = self.fresh_from.min(end);
        }
        self.fresh_waits_from = self.fresh_from;
        self.oldest_from = 0;
        self.planned.clear();
        self.planned_durably.clear();
    }
}

impl Outbox {
    /// A connection came about: what is made from now on is fresh, and all before it is backlog.
    pub fn connected(&mut self) {
        self.order.fresh_from = self.last_end;
        self.order.fresh_waits_from = self.last_end;
    }

    /// The next durable batch that was not handed out, if as many are in flight as may.
    ///
    /// # Errors
    /// The disk's. Later calls try again, after the log was opened again.
    pub fn next_batch(&mut self) -> Result<Option<Batch>, OutboxError> {
        if !self.has_room_in_flight() {
            return Ok(None);
        }
        let mut chosen = self.choose();
        if chosen.is_none() && self.wants_plan() {
            let saved = self.write_state(Content::Cursor);
            self.note_failure(saved)?;
            self.truncate();
            chosen = self.choose();
        }
        let Some(index) = chosen else { return Ok(None) };
        let is_fresh = self.is_fresh(&self.entries[index]);
        // In the order of making, nothing that is fresh goes before what waits.
        match self.read(index, is_fresh && self.order.replay != Replay::OldestFirst) {
            Ok(batch) => {
                self.left(index, is_fresh);
                Ok(Some(batch))
            }
            Err(e) => {
                self.reader = None;
                self.note_failure(Err(e))
            }
        }
    }

    /// When [`Outbox::next_batch`] is to be asked again although nothing happens, on the monotonic clock: the rate of the
    /// backlog holds up a batch until then.
    pub fn paced_until(&self) -> Option<Duration> {
        let waits =
            || self.waiting_from(self.order.oldest_from).is_some_and(|index| !self.is_fresh(&self.entries[index]));
        (!self.is_paced() && self.has_room_in_flight() && waits()).then_some(self.order.ready_at)
    }

    /// Whether everything in the log was handed out.
    pub(super) fn is_all_out(&self) -> bool {
        self.waiting_from(self.order.oldest_from).is_none()
    }

    fn left(&mut self, index: usize, is_fresh: bool) {
        let entry = &mut self.entries[index];
        entry.stage = Stage::Out;
        let start = entry.start;
        self.again.retain(|again| *again != start);
        self.out.push_back(start);
        let bytes = u64::from(entry.body_bytes);
        self.order.last_was_fresh = is_fresh;
        if !is_fresh && self.order.bytes_per_s > 0 {
            let from = self.order.ready_at.max(self.clock.monotonic().saturating_sub(PACE_TIME));
            let micros = bytes.saturating_mul(1_000_000) / self.order.bytes_per_s;
            self.order.ready_at = from + Duration::from_micros(micros);
        }
    }

    fn choose(&mut self) -> Option<usize> {
        let again = self.again.iter().filter_map(|start| self.index_of(*start)).filter(|&index| self.is_ready(index));
        let again = if self.order.replay == Replay::NewestFirst { again.max() } else { again.min() };
        if again.is_some() {
            return again;
        }
        if self.order.replay == Replay::OldestFirst {
            return self.oldest().filter(|&index| self.may_leave(index));
        }
        let line = self.in_line().filter(|&index| self.may_leave(index));
        if self.order.replay == Replay::NewestFirst {
            return line.max();
        }
        let (fresh, backlog): (Vec<usize>, Vec<usize>) = line.partition(|&index| self.is_fresh(&self.entries[index]));
        let (fresh, backlog) = (fresh.into_iter().min(), backlog.into_iter().min());
        if self.order.last_was_fresh { backlog.or(fresh) } else { fresh.or(backlog) }
    }

    /// What is in line and was not handed out: by the newest record, which may become durable at any time, and by the one
    /// that is.
    fn in_line(&self) -> impl Iterator<Item = usize> {
        let Order { planned, planned_durably, .. } = &self.order;
        let in_both = planned.iter().filter(|start| planned_durably.contains(start));
        let known = in_both.filter_map(|start| self.index_of(*start));
        known.filter(|&index| self.entries[index].stage == Stage::Waiting)
    }

    /// Whether all that was in line is handed out, and more could be.
    fn wants_plan(&mut self) -> bool {
        self.order.replay != Replay::OldestFirst
            && self.broken.is_none()
            && self.in_line().next().is_none()
            && self
                .next_in_line()
                .into_iter()
                .any(|start| self.index_of(start).is_some_and(|index| self.is_ready(index)))
    }

    /// Room in line: what is handed out or may be before the next record is durable stays below what may come again.
    fn room_in_line(&self) -> usize {
        (RESENT_MAX - 1).saturating_sub(self.out.len() + self.again.len())
    }

    /// Makes the line for the record that is written next, an empty one if nothing will be handed out behind it.
    pub(super) fn plan(&mut self, goes_on: bool) {
        self.order.planned = if goes_on { self.next_in_line() } else { Vec::new() };
    }

    /// The record that names the line was appended, with `batch`, which is in line too.
    pub(super) fn plan_next(&mut self, batch: Option<u64>) {
        self.order.planned.extend(batch);
    }

    /// The newest record is durable.
    pub(super) fn plan_is_durable(&mut self) {
        self.order.planned_durably.clone_from(&self.order.planned);
    }

    /// Whether the batch that is appended next is in line.
    pub(super) fn may_plan_next(&self) -> bool {
        let is_wanted = match self.order.replay {
            Replay::OldestFirst => false,
            Replay::NewestFirst => true,
            // What waits for a connection is backlog when it comes about.
            Replay::Interleaved => self.order.fresh_from != u64::MAX,
        };
        let next = self.entries.len();
        is_wanted && self.order.planned.len() < self.room_in_line() && self.beside_a_range(next) == next
    }

    /// What is handed out and not forgotten, and what may be until the next record, by seq.
    pub(super) fn planned_ranges(&self) -> Vec<SeqRange> {
        let starts = self.out.iter().chain(&self.again).chain(&self.order.planned);
        let mut indices: Vec<usize> = starts.filter_map(|start| self.index_of(*start)).collect();
        indices.sort_unstable();
        indices.dedup();
        let mut ranges: Vec<SeqRange> = Vec::new();
        let mut next = usize::MAX;
        for index in indices {
            let Entry { life, seq, .. } = &self.entries[index];
            match ranges.last_mut().filter(|range| index == next && range.life == *life) {
                Some(range) => range.last_seq = *seq,
                None => ranges.push(SeqRange { life: life.clone(), first_seq: *seq, last_seq: *seq }),
            }
            next = index + 1;
        }
        ranges
    }

    /// Those that are to be in line, by offset.
    fn next_in_line(&mut self) -> Vec<u64> {
        // One place is for the batch that the record may hold.
        let room = self.room_in_line().min(PLANNED_MAX).saturating_sub(1);
        match self.order.replay {
            // Nothing waits for a record then: all are named that may be handed out before the next is durable.
            Replay::OldestFirst => {
                let oldest = self.oldest().unwrap_or(self.entries.len());
                self.lined_up(self.entries.range(oldest..), self.room_in_line())
            }
            Replay::NewestFirst => {
                let Some(newest) = self.entries.iter().rposition(|entry| entry.stage == Stage::Waiting) else {
                    return Vec::new();
                };
                match self.beside_a_range(newest) {
                    from if from == newest => self.lined_up(self.entries.range(..=newest).rev(), room),
                    from => self.lined_up(self.entries.range(from..), room),
                }
            }
            Replay::Interleaved => {
                let fresh = self.fresh().map_or(self.entries.len(), |index| index);
                let fresh_from = self.order.fresh_from;
                let fresh = self.lined_up(self.entries.range(fresh..), room);
                let oldest = self.oldest().unwrap_or(self.entries.len());
                let backlog = self.entries.range(oldest..).take_while(|entry| entry.start < fresh_from);
                let backlog = self.lined_up(backlog, room);
                // In turns as far as both go.
                let of_fresh = fresh.len().min(room.div_ceil(2).max(room.saturating_sub(backlog.len())));
                let of_backlog = backlog.len().min(room - of_fresh);
                fresh.into_iter().take(of_fresh).chain(backlog.into_iter().take(of_backlog)).collect()
            }
        }
    }

    fn lined_up<'a>(&self, entries: impl Iterator<Item = &'a Entry>, most: usize) -> Vec<u64> {
        let waits = |entry: &&Entry| {
            entry.stage == Stage::Waiting && self.is_timed(entry) && !self.again.contains(&entry.start)
        };
        entries.filter(waits).take(most).map(|entry| entry.start).collect()
    }

    /// The first batch that waits.
    fn oldest(&mut self) -> Option<usize> {
        let index = self.waiting_from(self.order.oldest_from)?;
        self.order.oldest_from = self.entries[index].start;
        Some(index)
    }

    /// The first batch that waits of those made since the connection came about.
    fn fresh(&mut self) -> Option<usize> {
        let index = self.waiting_from(self.order.fresh_waits_from)?;
        let index = self.beside_a_range(index);
        // It may have gone back, to what then counts as fresh.
        self.order.fresh_waits_from = self.entries[index].start;
        self.order.fresh_from = self.order.fresh_from.min(self.order.fresh_waits_from);
        Some(index)
    }

    /// With many ranges of what is settled, a batch that would begin another one has to wait: the one behind the last
    /// range goes instead.
    fn beside_a_range(&self, index: usize) -> usize {
        let waits = |at: Option<usize>| {
            at.and_then(|at| self.entries.get(at)).is_none_or(|entry| entry.stage == Stage::Waiting)
        };
        if self.ahead.len() < AHEAD_MAX || !waits(index.checked_sub(1)) || !waits(Some(index + 1)) {
            return index;
        }
        let settled = self.entries.iter().take(index).rposition(|entry| entry.stage != Stage::Waiting);
        settled.map_or(index, |last| last + 1)
    }

    /// The first batch at `offset` or behind it that waits.
    fn waiting_from(&self, offset: u64) -> Option<usize> {
        let from = self.entries.partition_point(|entry| entry.start < offset);
        let place = self.entries.iter().skip(from).position(|entry| entry.stage == Stage::Waiting)?;
        Some(from + place)
    }

    fn is_fresh(&self, entry: &Entry) -> bool {
        entry.start >= self.order.fresh_from
    }

    /// Whether it can be sent, and the rate lets it.
    fn may_leave(&self, index: usize) -> bool {
        self.is_ready(index) && (self.is_paced() || self.is_fresh(&self.entries[index]))
    }

    /// Whether it is durable, and its times are known for good.
    fn is_ready(&self, index: usize) -> bool {
        let entry = &self.entries[index];
        entry.end <= self.log.durable() && self.is_timed(entry)
    }

    fn is_timed(&self, entry: &Entry) -> bool {
        entry.times.boot.is_none() || self.saved_fix(entry.times).is_some()
    }

    /// Whether the rate lets a batch of the backlog leave now.
    fn is_paced(&self) -> bool {
        self.order.bytes_per_s == 0
            || self.clock.monotonic() >= self.order.ready_at
            || self.log.bytes_on_disk() > self.config.bytes_max / 4 * 3
    }
}
