//! Reads all shards again and again, slowly, so that damage is found while there may still be another copy (P11).
//!
//! Owns:     the thread, its pace, and telling `system.data_loss` of every damaged shard, whoever met it.
//! Does not: repair anything (`check` does, when the server is stopped), or look at what the page cache hides: bytes that
//!           the system still holds in memory are compared there.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::engine::Shared;
use crate::object_disk::is_away;
use crate::shard::{ReadError, ShardDamage, ShardFile};
use crate::table::Table;
use crate::{Shard, StorageError, Yielding};

/// How often damage that others met is looked at.
const TICK: Duration = Duration::from_secs(1);

/// A turn through all shards takes no less, so that a small data folder is not read all day.
const TURN_MIN: Duration = Duration::from_secs(3600);

/// The thread.
#[derive(Debug)]
pub(crate) struct Scrubber {
    stop: Arc<Stop>,
    thread: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Stop {
    is_set: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    /// Waits; true if it is time to stop.
    fn wait(&self, time: Duration) -> bool {
        let is_set = self.is_set.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(is_set, time, |is_set| !*is_set);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Scrubber {
    /// Starts the thread; with a rate of 0 it only records what others find.
    pub(crate) fn start(shared: Arc<Shared>, bytes_per_second: u64) -> Result<Scrubber, StorageError> {
        let stop = Arc::new(Stop::default());
        let work = Work { shared, bytes_per_second, stop: Arc::clone(&stop) };
        let run = move || {
            Yielding::Background.apply();
            work.run();
        };
        let thread = std::thread::Builder::new().name("scrub".into()).spawn(run);
        let thread = thread.map_err(StorageError::io("start a thread for", std::path::Path::new("scrub")))?;
        Ok(Scrubber { stop, thread })
    }

    /// Ends the thread and waits for it.
    pub(crate) fn stop(self) {
        *self.stop.is_set.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.changed.notify_all();
        if self.thread.join().is_err() {
            tracing::error!("the scrubber panicked");
        }
    }
}

struct Work {
    shared: Arc<Shared>,
    bytes_per_second: u64,
    stop: Arc<Stop>,
}

impl Work {
    fn run(&self) {
        let clock = Arc::clone(&self.shared.context.clock);
        let mut next_turn = clock.monotonic();
        loop {
            self.record();
            if self.bytes_per_second > 0 && clock.monotonic() >= next_turn {
                next_turn = clock.monotonic() + TURN_MIN;
                if self.turn() {
                    return;
                }
                self.record();
            }
            if self.stop.wait(TICK) {
                return;
            }
        }
    }

    /// One turn through all shards; true if it is time to stop.
    fn turn(&self) -> bool {
        for table in self.shared.catalog.all() {
            let shards: Vec<Arc<Shard>> = {
                let state = table.state();
                state.partitions.values().flat_map(|partition| partition.shards.iter().cloned()).collect()
            };
            // A shard of before there were checksums: nothing to compare it with.
            for shard in shards.iter().filter(|shard| shard.checksums.is_some()) {
                if self.verify(&table, shard) {
                    return true;
                }
            }
        }
        false
    }

    fn verify(&self, table: &Table, shard: &Shard) -> bool {
        let context = &self.shared.context;
        let mut stopped = false;
        let mut before = 0;
        let path = context.tables_dir.join(&shard.path);
        let verified = ShardFile::open(&*context.disk, &path, &shard.path, shard.checksums.clone()).and_then(|file| {
            file.verify(&mut |done| {
                stopped = self.pause(done - std::mem::replace(&mut before, done));
                !stopped
            })
        });
        if stopped {
            return true;
        }
        if verified.is_err()
            && let Err(e) = table.follow()
        {
            tracing::warn!(table = %table.name, error = %e, "what other nodes have committed cannot be read");
        }
        // It may have been replaced, and vacuumed, meanwhile.
        let is_listed = || {
            let state = table.state();
            state.partitions.get(&shard.day).is_some_and(|p| p.shards.iter().any(|listed| listed.path == shard.path))
        };
        match verified {
            Ok(()) => context.shards.whole(&shard.path),
            Err(_) if !is_listed() => {}
            Err(ReadError::Damaged(damage)) => context.shards.note(&damage),
            // Nothing is said about the shard.
            Err(ReadError::Io(e)) if is_away(&e) => {}
            Err(ReadError::Io(e)) => {
                let reason = format!("it cannot be read: {e}");
                context.shards.note(&ShardDamage { location: shard.path.clone(), reason });
            }
        }
        self.record();
        self.pause(0)
    }

    /// Waits as long as reading `bytes` may take; true if it is time to stop.
    fn pause(&self, bytes: u64) -> bool {
        self.stop.wait(Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64))
    }

    fn record(&self) {
        if let Err(e) = self.shared.record_damaged_shards() {
            tracing::warn!(error = %e, "damaged shards are not in system.data_loss yet; it will be tried again");
        }
    }
}
