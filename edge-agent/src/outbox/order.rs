//! Which batch is handed out next.
//!
//! Owns:     what counts as backlog, whose turn it is, and how fast the backlog leaves.
//! Does not: forget, or bound how much is in flight: the outbox does.
//!
//! Invariants
//!  1. In every order each batch has its turn: the backlog does not wait for ever for what is new, nor that for the backlog.
//!  2. A rate never fills the outbox: from three quarters on it does not count.
//!  3. What is settled lies in few ranges: with [`AHEAD_MAX`] a new one does not begin.

use std::time::Duration;

use super::scan::{Entry, Stage};
use super::{Batch, Outbox, OutboxError};

/// Ranges of batches that are forgotten out of order at most, but for those that are in flight. Each takes room in every
/// record, and a server that is Eden keeps 64 of each agent.
const AHEAD_MAX: usize = 16;
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
    /// From the first to the second nothing waits.
    newest_gone: (u64, u64),
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
            newest_gone: (0, 0),
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
        self.newest_gone = (0, 0);
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
        let Some(index) = self.choose() else { return Ok(None) };
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
        self.out.push_back(entry.start);
        let bytes = u64::from(entry.body_bytes);
        self.order.last_was_fresh = is_fresh;
        if !is_fresh && self.order.bytes_per_s > 0 {
            let from = self.order.ready_at.max(self.clock.monotonic().saturating_sub(PACE_TIME));
            let micros = bytes.saturating_mul(1_000_000) / self.order.bytes_per_s;
            self.order.ready_at = from + Duration::from_micros(micros);
        }
    }

    fn choose(&mut self) -> Option<usize> {
        match self.order.replay {
            Replay::OldestFirst => self.oldest().filter(|&index| self.may_leave(index)),
            Replay::NewestFirst => {
                // One that waits for the clock holds up no older boot.
                let newest = self.newest().filter(|&index| self.is_ready(index));
                newest.or_else(|| self.oldest()).filter(|&index| self.may_leave(index))
            }
            Replay::Interleaved => {
                let backlog =
                    self.oldest().filter(|&index| !self.is_fresh(&self.entries[index]) && self.may_leave(index));
                let fresh = self.fresh().filter(|&index| self.may_leave(index));
                if self.order.last_was_fresh { backlog.or(fresh) } else { fresh.or(backlog) }
            }
        }
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

    /// The last batch that waits and is durable.
    fn newest(&mut self) -> Option<usize> {
        let (low, high) = self.order.newest_gone;
        let durable = self.log.durable();
        let mut index = self.entries.partition_point(|entry| entry.end <= durable);
        let behind = self.entries.get(index).map_or(self.last_end, |entry| entry.start);
        loop {
            index = index.checked_sub(1)?;
            let Entry { start, stage, .. } = self.entries[index];
            if (low..high).contains(&start) {
                index = self.entries.partition_point(|entry| entry.start < low);
                self.order.newest_gone.1 = behind;
                continue;
            }
            if stage == Stage::Waiting {
                self.order.newest_gone = (start + 1, behind);
                return Some(self.beside_a_range(index));
            }
        }
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
        let Entry { end, times, .. } = self.entries[index];
        end <= self.log.durable() && (times.boot.is_none() || self.saved_fix(times).is_some())
    }

    /// Whether the rate lets a batch of the backlog leave now.
    fn is_paced(&self) -> bool {
        self.order.bytes_per_s == 0
            || self.clock.monotonic() >= self.order.ready_at
            || self.log.bytes_on_disk() > self.config.bytes_max / 4 * 3
    }
}
