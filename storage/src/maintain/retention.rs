//! Removes days that are older than their table wants.
//!
//! Owns:     which days those are, and taking them out of the table.
//! Does not: delete their files (`vacuum`), or refuse rows of such days (`admit`, which asks here which they are).
//!
//! A day goes when all of it is older than the retention. If it has rows in memory, it goes by a flush that writes nothing
//! of it and moves the watermark, so that replay does not bring them back; all other days in one commit.
//!
//! How old a row is the clock says, but never by more than [`AHEAD_MAX_US`] after the newest reading of any table: a
//! clock that jumps ahead must not delete everything. The server's own tables do not count, since their times are the
//! clock's, and have no retention. Readings that the server stamps are no witness against its clock either: where all
//! readings are, nothing guards against a jump.

use std::sync::atomic::Ordering;

use model::{TableName, day_of};

use crate::catalog::{SYSTEM, commit_info};
use crate::context::Context;
use crate::engine::Shared;
use crate::flush::Settling;
use crate::table::Table;
use crate::{Shard, StorageError, TableOptions};

/// How far beyond the newest reading the clock is believed.
const AHEAD_MAX_US: i64 = 7 * 86_400 * 1_000_000;

/// The first day that a table of that name with these options keeps; `None` if it keeps all.
pub(crate) fn first_kept_day(context: &Context, name: &TableName, options: TableOptions) -> Option<i32> {
    if *name.schema == *SYSTEM {
        return None;
    }
    let retention = options.retention.or(context.retention_default)?;
    let newest_us = context.newest_us.load(Ordering::Relaxed);
    if newest_us == i64::MIN {
        return None;
    }
    let now_us = context.clock.now_us().min(newest_us.saturating_add(AHEAD_MAX_US));
    let retention_us = i64::try_from(retention.as_micros()).unwrap_or(i64::MAX);
    Some(day_of(now_us.checked_sub(retention_us)?))
}

impl Table {
    /// The first day that is kept; `None` if all are.
    pub(crate) fn first_kept_day(&self) -> Option<i32> {
        let options = self.state().properties.options();
        first_kept_day(&self.context, &self.name, options)
    }

    /// Takes the shards of all days before `first` out of the table, in one commit.
    fn remove_days_before(&self, first: i32) -> Result<(), StorageError> {
        let _one = self.flushing.lock().expect("no holder of this lock panics");
        self.catch_up()?;
        let shards: Vec<std::sync::Arc<Shard>> = {
            let state = self.state();
            state.partitions.range(..first).flat_map(|(_, partition)| partition.shards.clone()).collect()
        };
        if !shards.is_empty() {
            let mut actions = vec![commit_info(&self.context, "DELETE")];
            actions.extend(shards.iter().map(|shard| self.remove_action(shard.day, &shard.path, shard.bytes, true)));
            let committed = self.log.lock().expect("no holder of this lock panics").commit(&actions);
            if committed.as_ref().is_err_and(StorageError::is_version_taken) {
                // They may be gone already; if not, the next turn comes soon.
                return self.catch_up();
            }
            committed?;
        }
        {
            let _resolving = self.resolving.lock().expect("no holder of this lock panics");
            let mut state = self.state();
            for (_, partition) in state.partitions.range_mut(..first) {
                partition.shards.clear();
                partition.below_version += 1;
            }
            // Rows that came meanwhile stay until the next flush, which drops them.
            state.partitions.retain(|day, p| *day >= first || p.live.is_some() || p.sealed.is_some());
        }
        shards.iter().for_each(|shard| self.context.indexes.forget(&shard.path));
        let rows = shards.iter().map(|shard| shard.rows).sum();
        self.context.counters.rows_expired.add(rows);
        if rows > 0 {
            tracing::info!(table = %self.name, shards = shards.len(), rows, "removed days older than the retention");
        }
        Ok(())
    }
}

impl Shared {
    /// Removes the days of a table that are too old.
    pub(super) fn expire(&self, table: &Table) -> Result<(), StorageError> {
        let Some(first) = table.first_kept_day() else { return Ok(()) };
        let (any, in_memory) = {
            let state = table.state();
            let mut old = state.partitions.range(..first).map(|(_, partition)| partition).peekable();
            (old.peek().is_some(), old.any(|partition| partition.live.is_some() || partition.sealed.is_some()))
        };
        if in_memory {
            self.flush(table, Settling::Everything)?;
        }
        if any { table.remove_days_before(first) } else { Ok(()) }
    }
}
