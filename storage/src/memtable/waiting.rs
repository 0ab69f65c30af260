//! Rows that a flush could not afford to settle: they go back under the live memtable.
//!
//! A row that collides with a shard can only be flushed by rewriting that shard. One that has to wait is complete: it has
//! taken over what the shard holds of its key. Put under a live memtable it is the layer below of that memtable's row of
//! the same key, or becomes its row. Its place moves along, so it is not looked up again while the shard stands; and the
//! position of the oldest frame it may have come from, so that the log keeps that frame.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use model::Position;

use super::{Below, Memtable, OwnedValue, Standing};

/// A row of a sealed memtable that has to wait.
#[derive(Debug)]
pub(crate) struct Waiting {
    series: u32,
    time_us: i64,
    row: u32,
    path: Arc<str>,
    ordinal: u32,
    /// The oldest frame that it may have come from.
    since: Position,
}

impl Waiting {
    /// Offset of the oldest frame that it may have come from.
    pub(crate) fn offset(&self) -> u64 {
        self.since.offset
    }
}

/// The rows of a memtable that waited before.
#[derive(Debug, Default)]
pub(super) struct WaitingState {
    /// By key: the oldest frame that its row may have come from.
    rows: HashMap<(u32, i64), Position>,
    /// Positions of the oldest and the newest frame that such rows may have come from.
    positions: Option<(Position, Position)>,
    bytes: usize,
}

impl Memtable {
    /// Positions of the oldest and newest frames that rows came from; `None` while empty.
    pub(crate) fn positions(&self) -> Option<(Position, Position)> {
        match (self.applied, self.waiting.positions) {
            (Some(applied), Some(waiting)) => Some((applied.0.min(waiting.0), applied.1.max(waiting.1))),
            (applied, waiting) => applied.or(waiting),
        }
    }

    /// Rows that waited before.
    pub(crate) fn waiting_rows(&self) -> usize {
        self.waiting.rows.len()
    }

    /// Bytes that came with them.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.waiting.bytes
    }

    /// Offset of the oldest frame that one of them may have come from.
    pub(crate) fn waiting_offset(&self) -> Option<u64> {
        self.waiting.rows.values().map(|position| position.offset).min()
    }

    /// Bytes that `rows` of the rows here take, roughly.
    pub(crate) fn bytes_of_rows(&self, rows: u64) -> u64 {
        self.bytes as u64 * rows / u64::from(self.next_row().max(1))
    }

    /// The rows that collide with the shards at `paths`, by series and time.
    pub(crate) fn rows_to_wait(&self, paths: &HashSet<Arc<str>>) -> Vec<Waiting> {
        let oldest_applied = self.applied.map(|(oldest, _)| oldest);
        let waiting = |((series, time_us), path, ordinal): ((u32, i64), &Arc<str>, u32)| {
            let before = self.waiting.rows.get(&(series, time_us)).copied();
            Waiting {
                series,
                time_us,
                row: self.find_row(series, time_us).expect("a place's key stays"),
                path: Arc::clone(path),
                ordinal,
                since: before.or(oldest_applied).expect("a row was applied here or waited before"),
            }
        };
        let collisions = self.shard_collisions().filter(|(_, path, _)| paths.contains(*path));
        let mut rows: Vec<Waiting> = collisions.map(waiting).collect();
        rows.sort_unstable_by_key(|row| (row.series, row.time_us));
        rows
    }

    /// Puts `rows` of the memtable `from`, which was the layer below, under this one. Returns the growth in bytes.
    pub(crate) fn take_under(&mut self, from: &Memtable, rows: &[Waiting]) -> usize {
        let before = self.bytes;
        let newest = from.positions().map(|(_, newest)| newest);
        let mut ids: HashMap<u32, u32> = HashMap::new();
        for row in rows {
            let id = *ids.entry(row.series).or_insert_with(|| self.intern(&from.series[row.series as usize].key));
            self.take_row_under(id, from, row);
            let since = self.waiting.rows.entry((id, row.time_us)).or_insert(row.since);
            *since = (*since).min(row.since);
            let (oldest, latest) = self.waiting.positions.unwrap_or((row.since, row.since));
            self.waiting.positions = Some((oldest.min(row.since), newest.map_or(latest, |newest| newest.max(latest))));
        }
        let grown = self.bytes - before;
        self.waiting.bytes += grown;
        grown
    }

    fn take_row_under(&mut self, id: u32, from: &Memtable, row: &Waiting) {
        let is_gone = *from.standing(row.row) == Standing::Gone;
        let older = if is_gone { Vec::new() } else { from.values(row.row) };
        // It is complete, so it must not take again what was removed from it; where nothing was, it cannot.
        let is_alone = !is_gone && *from.standing(row.row) != Standing::Over;
        match self.find_row(id, row.time_us) {
            Some(own) => {
                let mut composed = self.compose(own, &older, is_gone);
                if is_alone && composed.standing == Standing::Over {
                    composed.standing = Standing::Alone;
                }
                self.complete(own, composed);
            }
            None => {
                let slots: Vec<usize> = older.iter().map(|(name, t, _)| self.slot(name, *t)).collect();
                let mut values: Vec<Option<OwnedValue>> = vec![None; self.slots.len()];
                older.into_iter().zip(slots).for_each(|((_, _, value), slot)| values[slot] = Some(value));
                let standing = match (is_gone, is_alone) {
                    (true, _) => Standing::Gone,
                    (false, true) => Standing::Alone,
                    (false, false) => Standing::Over,
                };
                self.insert_row(id, row.time_us, &values, standing);
            }
        }
        // Whatever was known of the key, the shard is where it lies now; the row differs from what stands there.
        self.place(id, row.time_us, &Below::Shard(Arc::clone(&row.path), row.ordinal), false);
    }
}
