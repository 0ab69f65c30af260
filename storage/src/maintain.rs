//! What goes on in the background so that tables stay small, exact and readable for years.
//!
//! Owns:     the maintenance thread and its turns; checkpoints that are due; when days are quiet.
//! Does not: flush (`flusher`), choose shards (`plan`), merge them (`merge`, `compact`), or delete (`retention`, `vacuum`).
//!
//! The thread yields to ingest and to queries ([`Yielding::Background`]), merges one day at a time, and
//! holds no lock while it reads or writes shards.

mod compact;
mod merge;
mod plan;
mod retention;
mod vacuum;

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use model::{TableId, TableName};

use crate::checkpoint;
use crate::engine::Shared;
use crate::table::Table;
use crate::{Shard, Storage, StorageConfig, StorageError, Yielding};
use compact::{Compacted, Pace};
use plan::When;
pub(crate) use retention::first_kept_day;
use vacuum::Tombstone;

/// How often the thread looks for something to do.
const TICK: Duration = Duration::from_secs(1);

/// How often days are looked at for being too old, and files for being needed by nobody.
const CLEANING_PERIOD: Duration = Duration::from_secs(60);

/// How long a table is left alone after a merge of it failed.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(300);

/// How long is waited after the disk was full: it may have room again at any time (P9).
const PAUSE_WHEN_FULL: Duration = Duration::from_secs(10);

/// Merges that [`Storage::compact`] gives up to flushes that were faster.
const LOST_MAX: usize = 20;

/// Ends waits of the thread, and of whoever merges for somebody.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    pub(crate) fn stop(&self) {
        *self.stopped.lock().expect("no holder of this lock panics") = true;
        self.changed.notify_all();
    }

    fn is_stopped(&self) -> bool {
        *self.stopped.lock().expect("no holder of this lock panics")
    }

    /// Waits; true at once if it is time to stop.
    fn wait(&self, limit: Duration) -> bool {
        let stopped = self.stopped.lock().expect("no holder of this lock panics");
        let waited = self.changed.wait_timeout_while(stopped, limit, |stopped| !*stopped);
        *waited.expect("no holder of this lock panics").0
    }
}

/// What is known between two turns. Whoever cleans has it locked.
#[derive(Debug, Default)]
pub(crate) struct Maintenance {
    /// For deltalake's async checkpoints; made when first needed.
    runtime: Option<tokio::runtime::Runtime>,
    /// The disk was full.
    checkpoints_paused_until: Option<Duration>,
    tables: HashMap<TableId, Care>,
    /// Whether folders that an earlier life was deleting were looked for.
    swept: bool,
}

/// What is known of one table.
#[derive(Debug, Default)]
struct Care {
    /// Files that are in no version.
    tombstones: Vec<Tombstone>,
    /// When its folder was last searched for files that no version names.
    scanned: Option<Duration>,
    /// The newest checkpoint when its log was last cleaned.
    cleaned: Option<i64>,
    /// A newer one, and when it was first seen.
    checkpoint_seen: Option<(i64, Duration)>,
    /// By day: the version of its layers, and since when.
    days: HashMap<i32, (u64, Duration)>,
    /// Merges wait until then.
    paused_until: Option<Duration>,
}

/// The maintenance thread.
#[derive(Debug)]
pub(crate) struct Maintainer {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl Maintainer {
    pub(crate) fn start(shared: Arc<Shared>, config: StorageConfig) -> Maintainer {
        let its = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("maintain".into())
            .spawn(move || {
                Yielding::Background.apply();
                run(&its, &config);
            })
            .expect("the operating system starts a thread");
        Maintainer { shared, thread }
    }

    /// Waits for the file under way and ends the thread; a merge is given up.
    pub(crate) fn stop(self) {
        self.shared.stop.stop();
        if self.thread.join().is_err() {
            tracing::error!("the maintenance thread panicked");
        }
    }
}

fn run(shared: &Shared, config: &StorageConfig) {
    let clock = &shared.context.clock;
    let period = CLEANING_PERIOD.min(config.vacuum_grace.max(TICK));
    let mut cleaned: Option<Duration> = None;
    while !shared.stop.wait(TICK) {
        shared.write_checkpoints();
        shared.compact_in_background(config);
        let now = clock.monotonic();
        // What is too old goes sooner where its room is wanted.
        let period = if shared.context.space.is_short() { period.min(PAUSE_WHEN_FULL) } else { period };
        if cleaned.is_none_or(|at| now.saturating_sub(at) >= period) && !shared.stop.is_stopped() {
            cleaned = Some(now);
            shared.clean(config);
        }
    }
}

impl Storage {
    /// Merges the shards of a table, day by day, until none is left that is better merged. Blocks.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] if there is no such table; [`StorageError::Busy`] if its shards change faster than they
    /// are merged; [`StorageError::Corrupt`] names a shard that cannot be read. The table has the same rows after any.
    pub fn compact(&self, name: &TableName) -> Result<(), StorageError> {
        if self.is_none_on_disk(name) {
            return Ok(());
        }
        let table = self.shared.catalog.find(name)?;
        let table = table.ok_or_else(|| StorageError::Invalid(format!("there is no table {name}")))?;
        let mut lost = 0;
        loop {
            self.shared.check_open()?;
            let _one = table.compacting.lock().expect("no holder of this lock panics");
            table.follow()?;
            let days = table.days_of_several_shards();
            let Some((day, inputs)) = days.iter().find_map(|day| Some((day.day, day.plan(When::Now)?))) else {
                return Ok(());
            };
            if !self.shared.has_room_for_merge(&inputs) {
                let reason = "the disk has not clearly room for what would come of merging shards of the table";
                return Err(StorageError::Busy { reason: reason.into(), retry_after: PAUSE_WHEN_FULL });
            }
            let mut pace = Pace::new(&self.shared.context, &self.shared.stop, None);
            match table.compact(day, &inputs, &mut pace)? {
                Compacted::Done => {}
                Compacted::Lost if lost < LOST_MAX => lost += 1,
                Compacted::Lost => {
                    let reason = "shards of the table change faster than they are merged";
                    return Err(StorageError::Busy { reason: reason.into(), retry_after: Duration::from_secs(10) });
                }
            }
        }
    }

    /// Does at once what else is done about once a minute: removes days that are older than their table's retention,
    /// deletes files that no version has named for the time of grace, cleans the Delta logs. Blocks.
    pub fn clean(&self) {
        self.shared.write_checkpoints();
        self.shared.clean(&self.config);
    }
}

/// The shards of a day that has several.
struct Day {
    day: i32,
    below_version: u64,
    /// Whether it has rows in memory.
    is_busy: bool,
    shards: Vec<Arc<Shard>>,
}

impl Day {
    fn plan(&self, when: When) -> Option<Vec<Arc<Shard>>> {
        let pieces: Vec<plan::Piece> = self.shards.iter().map(|shard| plan::Piece::of(shard)).collect();
        let chosen = plan::plan(&pieces, when)?;
        Some(chosen.into_iter().map(|i| Arc::clone(&self.shards[i])).collect())
    }
}

impl Table {
    fn days_of_several_shards(&self) -> Vec<Day> {
        let state = self.state();
        let several = state.partitions.iter().filter(|(_, partition)| partition.shards.len() > 1);
        let day = |(day, partition): (&i32, &crate::table::Partition)| Day {
            day: *day,
            below_version: partition.below_version,
            is_busy: partition.live.is_some() || partition.sealed.is_some(),
            shards: partition.shards.clone(),
        };
        several.map(day).collect()
    }
}

impl Care {
    /// How urgent merging a day is.
    fn when(&mut self, day: &Day, now: Duration, wait: Duration) -> When {
        let seen = self.days.entry(day.day).or_insert((day.below_version, now));
        if day.is_busy || seen.0 != day.below_version {
            *seen = (day.below_version, now);
        }
        if day.is_busy {
            return When::Busy;
        }
        let quiet = now.saturating_sub(seen.1);
        When::Quiet(u64::try_from(quiet.as_millis() / wait.as_millis().max(1)).unwrap_or(u64::MAX))
    }

    /// The next merge of a table, if there is one.
    fn next_merge(&mut self, table: &Table, now: Duration, wait: Duration) -> Option<(i32, Vec<Arc<Shard>>)> {
        let days = table.days_of_several_shards();
        self.days.retain(|known, _| days.binary_search_by_key(known, |day| day.day).is_ok());
        if self.paused_until.is_some_and(|until| now < until) {
            return None;
        }
        // All days are looked at, also those behind the one that is chosen: each must be seen to become quiet.
        let merges: Vec<_> = days
            .iter()
            .filter_map(|day| {
                let when = self.when(day, now, wait);
                Some((day.day, day.plan(when)?))
            })
            .collect();
        merges.into_iter().next()
    }
}

impl Shared {
    fn maintenance(&self) -> MutexGuard<'_, Maintenance> {
        // It is no more than notes: whoever panicked over them must not keep the server from closing its log.
        self.maintenance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the checkpoints that are due.
    pub(crate) fn write_checkpoints(&self) {
        let mut maintenance = self.maintenance();
        let now = self.context.clock.monotonic();
        if maintenance.checkpoints_paused_until.is_some_and(|until| now < until) {
            return;
        }
        for table in self.catalog.all() {
            if !table.log.lock().expect("no holder of this lock panics").is_checkpoint_due() {
                continue;
            }
            let runtime = maintenance.runtime.get_or_insert_with(|| {
                let mut builder = tokio::runtime::Builder::new_multi_thread();
                builder.worker_threads(1).thread_name("checkpoint").enable_all();
                builder.build().expect("the operating system starts a thread")
            });
            match checkpoint::write(&self.store, &table.prefix, runtime) {
                Ok(version) => table.log.lock().expect("no holder of this lock panics").checkpointed(version),
                Err(e) => {
                    tracing::warn!(table = %table.name, error = %e, "no checkpoint; readers go through more commits until the next");
                    // What failed is not told apart: a disk that is short of room is.
                    self.context.space.note_full();
                    if self.context.space.is_short() {
                        maintenance.checkpoints_paused_until = Some(now + PAUSE_WHEN_FULL);
                        return;
                    }
                    // Not again at once: it takes as long each time.
                    table.log.lock().expect("no holder of this lock panics").put_checkpoint_off();
                }
            }
        }
    }

    /// A merge frees room only once its inputs are vacuumed.
    fn has_room_for_merge(&self, inputs: &[Arc<Shard>]) -> bool {
        self.context.disk.is_remote() || self.context.space.has_room_for(inputs.iter().map(|shard| shard.bytes).sum())
    }

    /// Merges what is due, each table in its turn, until nothing is.
    fn compact_in_background(&self, config: &StorageConfig) {
        loop {
            let mut any = false;
            for table in self.catalog.all() {
                if self.stop.is_stopped() {
                    return;
                }
                // Somebody else is at it.
                let Ok(_one) = table.compacting.try_lock() else { continue };
                let now = self.context.clock.monotonic();
                let merge = {
                    let mut maintenance = self.maintenance();
                    let care = maintenance.tables.entry(table.id).or_default();
                    care.next_merge(&table, now, config.compaction_wait)
                };
                let Some((day, inputs)) = merge else { continue };
                if !self.has_room_for_merge(&inputs) {
                    continue;
                }
                let mut pace = Pace::new(&self.context, &self.stop, Some(config.compaction_bytes_per_second));
                match table.compact(day, &inputs, &mut pace) {
                    Ok(Compacted::Done) => any = true,
                    // The day has changed, so that it is looked at again.
                    Ok(Compacted::Lost) => {}
                    Err(StorageError::Closed) => return,
                    Err(e) => {
                        tracing::error!(table = %table.name, error = %e, "compaction failed; its shards stay as they are");
                        let mut maintenance = self.maintenance();
                        let care = maintenance.tables.entry(table.id).or_default();
                        let is_full = e.is_disk_full();
                        care.paused_until = Some(now + if is_full { PAUSE_WHEN_FULL } else { PAUSE_AFTER_FAILURE });
                    }
                }
            }
            if !any {
                return;
            }
            self.write_checkpoints();
        }
    }

    /// Removes days that are too old, and files that nobody needs.
    fn clean(&self, config: &StorageConfig) {
        if let Some(tables) = &self.context.elsewhere
            && let Err(e) = tables.check_owner(Some(self.context.node), Some(self.context.epoch))
        {
            // What this server does not need any more another one may.
            tracing::error!(error = %e, "nothing is deleted");
            return;
        }
        let mut maintenance = self.maintenance();
        for table in self.catalog.all() {
            if self.stop.is_stopped() {
                return;
            }
            if let Err(e) = self.expire(&table) {
                tracing::error!(table = %table.name, error = %e, "days older than the retention stay until the next try");
            }
        }
        self.vacuum(&mut maintenance, config.vacuum_grace);
    }
}
