//! Power cuts, kills and failing calls over all of DATA (P1, P2, P4, P5), against an exact oracle.
//!
//! A run writes and removes readings, some in flight together, flushes and asks between them, and loses power at any
//! changing operation of the disk. What is stored afterwards must be every acknowledged change, then some first few of
//! those in flight, in the order in which they were made: nothing else, and each key once for a reader of shards alone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use faults::{FaultDisk, Operation, PlantedBug, SimDisk};
use model::{FieldType, Removal, Rng, SeriesKey, SplitMix64, TableBatch, TableName, Value};
use storage::{PendingWrite, Settling, Storage, StorageError};
use wal::disk::SharedDisk;

use crate::fault_store::FaultStore;
use crate::world::{Rows, START_US, World, read, read_snapshot};

pub(crate) const DAY_US: i64 = 86_400_000_000;

/// One write: series, time, field, value.
pub(crate) type Write = Vec<(u64, i64, &'static str, f64)>;

pub(crate) fn apply(rows: &mut Rows, write: &Write) {
    for (series, time, field, value) in write {
        rows.entry((format!("s=d{series}"), *time)).or_default().insert((*field).to_owned(), value.to_string());
    }
}

pub(crate) fn table_batch(write: &Write) -> TableBatch {
    let mut batch = TableBatch::new(TableName::public("t"));
    for (series, time, field, value) in write {
        let column = batch.field_column(field, FieldType::F64);
        let series = batch.intern_series(SeriesKey::from_tags([("s", format!("d{series}"))]));
        batch.push_row(series, START_US + time, 1, &[(column, Value::F64(*value))]);
    }
    batch
}

/// What is asked of a storage in one request.
#[derive(Debug)]
enum Change {
    Write(Write),
    /// Rows by series and time, or only one of their fields.
    Remove(Vec<(u64, i64)>, Option<&'static str>),
}

impl Change {
    fn send(&self, storage: &Storage) -> Result<PendingWrite, StorageError> {
        match self {
            Change::Write(write) => storage.write(vec![table_batch(write)], "test"),
            Change::Remove(rows, field) => {
                let key = |series: &u64| SeriesKey::from_tags([("s", format!("d{series}"))]);
                let keys: Vec<(SeriesKey, i64)> = rows.iter().map(|(s, time)| (key(s), START_US + time)).collect();
                let rows = keys.iter().map(|(key, time_us)| (key, *time_us));
                let fields = field.map(|field| vec![field.into()]);
                storage.remove(Removal { fields, ..Removal::of_rows(TableName::public("t"), rows) }, "test")
            }
        }
    }

    fn apply(&self, rows: &mut Rows) {
        match self {
            Change::Write(write) => apply(rows, write),
            Change::Remove(keys, field) => {
                for (series, time) in keys {
                    let key = (format!("s=d{series}"), *time);
                    match field {
                        None => drop(rows.remove(&key)),
                        Some(field) => drop(rows.get_mut(&key).and_then(|row| row.remove(*field))),
                    }
                }
            }
        }
    }
}

/// What was acknowledged, and what was attempted after it.
#[derive(Default)]
struct Oracle {
    acked: Rows,
    in_flight: Vec<Change>,
    next: u64,
}

/// New readings, retries and corrections of old ones, readings of another day; `next` counts readings.
pub(crate) fn random_write(next: &mut u64, rng: &SplitMix64) -> Write {
    let row = |_| {
        *next += 1;
        let time = if rng.below(3) == 0 { rng.below(*next) } else { *next } as i64;
        let day = if rng.below(8) == 0 { DAY_US } else { 0 };
        let field = ["x", "y"][rng.below(2) as usize];
        (rng.below(3), time + day, field, rng.below(4) as f64)
    };
    (0..1 + rng.below(8)).map(row).collect()
}

impl Oracle {
    fn new_write(&mut self, rng: &SplitMix64) -> Write {
        random_write(&mut self.next, rng)
    }

    /// Mostly writes. Of the fields only `storage`'s can be removed: `x` comes with the table's first write or soon after.
    fn new_change(&mut self, storage: &Storage, rng: &SplitMix64) -> Change {
        let table = storage.table(&TableName::public("t"));
        let has_x = table.as_ref().is_some_and(|table| table.schema.columns().iter().any(|c| &*c.name == "x"));
        if table.is_none() || rng.below(5) > 0 {
            return Change::Write(self.new_write(rng));
        }
        let row = |_| (rng.below(3), rng.below(self.next + 1) as i64 + if rng.below(8) == 0 { DAY_US } else { 0 });
        let rows = (0..1 + rng.below(6)).map(row).collect();
        Change::Remove(rows, (has_x && rng.below(2) == 0).then_some("x"))
    }

    /// The stored rows must be those acknowledged and the first few in flight; they are the truth from then on.
    fn check(&mut self, stored: Rows) -> Result<(), String> {
        let mut allowed = self.acked.clone();
        for write in std::iter::once(None).chain(self.in_flight.iter().map(Some)) {
            write.into_iter().for_each(|change| change.apply(&mut allowed));
            if allowed == stored {
                self.acked = stored;
                self.in_flight.clear();
                return Ok(());
            }
        }
        Err(format!("stored {stored:?}\nacknowledged {:?}\nin flight {:?}", self.acked, self.in_flight))
    }
}

pub(crate) fn world(disk: &SharedDisk, seed: u64) -> World {
    let mut world = World::on(Arc::clone(disk), PathBuf::from("/data")).with_seed(seed);
    world.config.log_segment_bytes = 64 << 10;
    // Small enough for the flusher to work on its own as well.
    world.config.table_memory_bytes_max = 6 << 10;
    world
}

/// One life: opens, checks, writes until the power goes or enough is done. `Err` is a broken promise.
fn live(
    disk: &SharedDisk,
    store: Option<&FaultStore>,
    oracle: &mut Oracle,
    rng: &SplitMix64,
    steps: u64,
    is_on: &dyn Fn() -> bool,
) -> Result<(), String> {
    let place = world(disk, rng.next_u64());
    let place = match store {
        Some(store) => place.with_tables_in(store),
        None => place,
    };
    let storage = match place.try_open() {
        Ok(storage) => storage,
        Err(_) if !is_on() => return Ok(()),
        Err(e) => return Err(format!("open: {e}")),
    };
    if storage.table(&TableName::public("t")).is_some() {
        check_stored(&storage, oracle, is_on)?;
    } else if !oracle.acked.is_empty() && is_on() {
        return Err("the table is gone".into());
    } else {
        // Power went before the table was made: nothing in flight was logged.
        oracle.in_flight.clear();
    }
    for _ in 0..steps {
        if rng.below(6) == 0 && storage.table(&TableName::public("t")).is_some() {
            let settling = [Settling::WithinBudget, Settling::Everything][rng.below(2) as usize];
            match storage.flush(&TableName::public("t"), settling) {
                Ok(()) => {}
                Err(_) if !is_on() => return Ok(()),
                Err(e) => return Err(format!("flush: {e}")),
            }
        }
        let mut pending = Vec::new();
        for _ in 0..1 + rng.below(3) {
            let change = oracle.new_change(&storage, rng);
            let sent = change.send(&storage);
            oracle.in_flight.push(change);
            pending.push(sent);
        }
        for sent in pending {
            match sent.and_then(PendingWrite::wait) {
                Ok(()) => {
                    let change = oracle.in_flight.remove(0);
                    change.apply(&mut oracle.acked);
                }
                Err(_) if !is_on() => return Ok(()),
                Err(e) => return Err(format!("write: {e}")),
            }
        }
        if rng.below(10) == 0 {
            check_stored(&storage, oracle, is_on)?;
        }
    }
    if rng.below(3) == 0 {
        match storage.close(Duration::from_secs(60)) {
            Err(e) if is_on() => return Err(format!("close: {e}")),
            _ => {}
        }
    }
    Ok(())
}

/// Reads without masks and memory, as any reader of the Delta table would: panics if a key is there twice (P4).
pub(crate) fn read_as_others(storage: &Storage, table: &TableName) -> Rows {
    let mut foreign = storage.snapshot(table).unwrap().unwrap();
    foreign.rows.forget();
    foreign.shards.iter_mut().for_each(|view| view.masked = [].into());
    read_snapshot(storage, &foreign)
}

fn check_stored(storage: &Storage, oracle: &mut Oracle, is_on: &dyn Fn() -> bool) -> Result<(), String> {
    let read_all = || {
        read_as_others(storage, &TableName::public("t"));
        read(storage, "t")
    };
    match catch_unwind(AssertUnwindSafe(read_all)) {
        Ok(rows) => oracle.check(rows),
        Err(_) if !is_on() => Ok(()),
        Err(panic) => Err(format!("read: {:?}", panic.downcast_ref::<String>())),
    }
}

/// Five lives, each but the last ended by a power cut or a kill at a random operation.
fn run(seed: u64, bug: Option<PlantedBug>, mut store: Option<FaultStore>) -> Result<(), String> {
    let rng = SplitMix64::new(seed);
    let mut oracle = Oracle::default();
    let mut sim = SimDisk::new();
    for life in 0..5 {
        let (faulty, faults) = FaultDisk::new(Arc::new(sim.clone()));
        bug.into_iter().for_each(|bug| faults.plant(bug));
        let disk: SharedDisk = Arc::new(faulty);
        if life < 4 {
            sim.cut_after(1 + rng.below(180));
        }
        let alive = sim.clone();
        live(&disk, store.as_ref(), &mut oracle, &rng, 16, &|| alive.is_on())
            .map_err(|e| format!("life {life}: {e}"))?;
        // A process that dies takes nothing with it that the disk was given.
        store = store.map(|store| store.next_life());
        sim = if rng.below(4) == 0 && sim.is_on() { sim.kill() } else { sim.power_cut(rng.next_u64()) };
    }
    Ok(())
}

#[test]
fn an_acknowledged_write_survives_any_power_cut_and_no_other_is_invented() {
    for seed in faults::seeds(200) {
        if let Err(e) = run(seed, None, None) {
            panic!("seed {seed}: {e}");
        }
    }
}

#[test]
fn an_acknowledged_write_survives_any_power_cut_with_the_tables_in_a_store() {
    for seed in faults::seeds(60) {
        if let Err(e) = run(seed, None, Some(FaultStore::new())) {
            panic!("seed {seed}: {e}");
        }
    }
}

#[test]
fn planted_bugs_are_caught() {
    use PlantedBug::{AckBeforeSync, ForgetDirectorySync, SkipCommitSync, TruncateBeforeCommit};
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    // Checksums of the log that are not looked at show here only by a rare chance; `wal` has a test that looks for them.
    let caught = [AckBeforeSync, ForgetDirectorySync, SkipCommitSync, TruncateBeforeCommit].map(|bug| {
        let caught = (0..400).find_map(|seed| {
            let outcome = catch_unwind(AssertUnwindSafe(|| run(seed, Some(bug), None)));
            let why = outcome.unwrap_or_else(|_| Err("a panic".into())).err()?;
            Some((seed, why))
        });
        (bug, caught)
    });
    std::panic::set_hook(quiet);
    for (bug, caught) in caught {
        let Some((seed, why)) = caught else { panic!("{bug:?} went unnoticed") };
        println!("{bug:?}: caught at seed {seed}: {}", why.chars().take(120).collect::<String>());
    }
}

fn is_wal(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "wal")
}

#[test]
fn after_a_failed_sync_of_the_log_nothing_is_acknowledged_and_a_restart_has_all_that_was() {
    let mut poisoned = 0;
    for n in 1..=50 {
        let sim = SimDisk::new();
        let (faulty, faults) = FaultDisk::new(Arc::new(sim.clone()));
        let disk: SharedDisk = Arc::new(faulty);
        let storage = world(&disk, n).open();
        let mut oracle = Oracle::default();
        let rng = SplitMix64::new(n);
        faults.fail(Operation::Sync, n, is_wal);
        let mut failed_at = None;
        for step in 0..200 {
            let write = oracle.new_write(&rng);
            let sent = storage.write(vec![table_batch(&write)], "test").and_then(PendingWrite::wait);
            match (sent, failed_at) {
                (Ok(()), None) => {
                    // What was refused before is not in the log any more.
                    oracle.in_flight.clear();
                    apply(&mut oracle.acked, &write);
                }
                (Ok(()), Some(at)) => panic!("n {n}: write {step} was acknowledged after the sync failed at {at}"),
                (Err(StorageError::Poisoned), _) => {
                    oracle.in_flight.push(Change::Write(write));
                    failed_at.get_or_insert(step);
                }
                // The next segment could not be prepared, and is tried again.
                (Err(StorageError::Busy { .. }), None) => oracle.in_flight.push(Change::Write(write)),
                (Err(e), _) => panic!("n {n}: {e}"),
            }
            if failed_at.is_some_and(|at| step > at + 3) {
                break;
            }
        }
        // A sync of a segment that is only being prepared may fail and be done again: nobody was told anything.
        assert_eq!(storage.is_poisoned(), failed_at.is_some());
        poisoned += usize::from(failed_at.is_some());
        // Queries go on: they show what was acknowledged.
        if !oracle.acked.is_empty() {
            assert_eq!(read(&storage, "t"), oracle.acked, "n {n}");
        }
        drop(storage);
        let disk: SharedDisk = Arc::new(sim.power_cut(n));
        live(&disk, None, &mut oracle, &rng, 3, &|| true).unwrap_or_else(|e| panic!("n {n}: {e}"));
    }
    assert!(poisoned >= 40, "only {poisoned} of 50 failures met a sync that covers a write");
}

#[test]
fn a_flush_that_fails_at_any_step_loses_and_doubles_nothing() {
    use Operation::{Create, Rename, Sync, SyncDir, Write};
    for operation in [Create, Write, Sync, Rename, SyncDir] {
        for n in 1..=8 {
            for restart in [false, true] {
                let sim = SimDisk::new();
                let (faulty, faults) = FaultDisk::new(Arc::new(sim.clone()));
                let disk: SharedDisk = Arc::new(faulty);
                let mut place = world(&disk, 1);
                place.config.table_memory_bytes_max = usize::MAX;
                let mut storage = place.open();
                let mut oracle = Oracle::default();
                let rng = SplitMix64::new(n);
                for _ in 0..10 {
                    put(&storage, &mut oracle, &rng);
                }
                storage.refresh(&TableName::public("t")).unwrap();
                for _ in 0..10 {
                    put(&storage, &mut oracle, &rng);
                }
                faults.fail(operation, n, |path| !path.starts_with("/data/wal"));
                let failed = storage.refresh(&TableName::public("t"));
                let label = format!("{operation:?} {n}: {failed:?}");
                assert_eq!(read(&storage, "t"), oracle.acked, "{label}");
                put(&storage, &mut oracle, &rng);
                if restart {
                    drop(storage);
                    let disk: SharedDisk = Arc::new(sim.power_cut(n));
                    storage = world(&disk, 2).open();
                }
                // The call that fails may come only now; after that none does.
                let again = storage.refresh(&TableName::public("t"));
                let last =
                    if again.is_err() && failed.is_ok() { storage.refresh(&TableName::public("t")) } else { again };
                match last {
                    Ok(()) => {}
                    // The name of a commit stands but may not be durable: only a restart can tell.
                    Err(StorageError::Poisoned) if operation == SyncDir && !restart => {}
                    Err(e) => panic!("{label}: {e}"),
                }
                assert_eq!(read(&storage, "t"), oracle.acked, "{label}");
            }
        }
    }
}

/// While a retry is being flushed, a correction comes: it replaces the row in the shard, which hides the retry's.
#[test]
fn a_correction_on_a_retry_that_is_being_flushed_is_seen_once() {
    let sim = SimDisk::new();
    let (faulty, faults) = FaultDisk::new(Arc::new(sim));
    let disk: SharedDisk = Arc::new(faulty);
    let storage = world(&disk, 1).open();
    let mut oracle = Oracle::default();
    let table = TableName::public("t");
    let write = |oracle: &mut Oracle, value: f64| {
        let write = vec![(0, 1, "x", value)];
        storage.write(vec![table_batch(&write)], "test").unwrap().wait().unwrap();
        apply(&mut oracle.acked, &write);
    };
    write(&mut oracle, 1.0);
    storage.refresh(&table).unwrap();
    write(&mut oracle, 1.0);
    // The retry is sealed, and stays so.
    faults.fail(Operation::Create, 1, |path| !path.starts_with("/data/wal"));
    let failed = storage.refresh(&table);
    write(&mut oracle, 2.0);
    assert_eq!(read(&storage, "t"), oracle.acked, "{failed:?}");
    storage.refresh(&table).unwrap();
    assert_eq!(read(&storage, "t"), oracle.acked);
}

fn put(storage: &Storage, oracle: &mut Oracle, rng: &SplitMix64) {
    let change = oracle.new_change(storage, rng);
    change.send(storage).unwrap().wait().unwrap();
    change.apply(&mut oracle.acked);
}
