//! Power cuts and kills at each step of compaction, retention, DROP, vacuum and the cleaning of logs, with the tables on
//! the disk of the log, and in an object store.
//!
//! For each step: a prepared disk is copied, one thing is done to it, and at the n-th operation of the disk the power or
//! the process goes; for n = 1, 2, … until the thing is done before. What is there afterwards must be what was there
//! before or what should have become of it; after it was done again, cleaned, and the power was cut once more, too.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use faults::SimDisk;
use model::{Rng, SplitMix64, TableName, Value};
use storage::{Storage, StorageError, TableOptions};
use wal::disk::SharedDisk;

use crate::fault_store::FaultStore;
use crate::power::read_as_others;
use crate::world::{Rows, World, read, write};

const DAY: i64 = 86_400_000_000;

fn table() -> TableName {
    TableName::public("t")
}

/// The disk, and the store of the tables if they are in one. What is cut is the one that has the tables.
struct Site {
    sim: SimDisk,
    store: Option<FaultStore>,
}

impl Site {
    fn fork(&self) -> Site {
        Site { sim: self.sim.fork(), store: self.store.as_ref().map(FaultStore::fork) }
    }

    /// Ends the process at the `n`-th change; a store has made that change if the process was `killed`.
    fn cut_after(&self, n: u64, killed: bool) {
        match &self.store {
            Some(store) => store.cut_after(n, killed),
            None => self.sim.cut_after(n),
        }
    }

    fn is_on(&self) -> bool {
        self.sim.is_on() && self.store.as_ref().is_none_or(FaultStore::is_on)
    }

    fn kill(&self) -> Site {
        Site { sim: self.sim.kill(), store: self.store.as_ref().map(FaultStore::next_life) }
    }

    fn power_cut(&self, seed: u64) -> Site {
        Site { sim: self.sim.power_cut(seed), store: self.store.as_ref().map(FaultStore::next_life) }
    }
}

fn world(site: &Site, seed: u64) -> World {
    let disk: SharedDisk = Arc::new(site.sim.clone());
    let (mut world, _clock) = World::on(disk, PathBuf::from("/data")).with_seed(seed).with_test_clock(9 * DAY);
    if let Some(store) = &site.store {
        world = world.with_tables_in(store);
    }
    world.config.log_segment_bytes = 64 << 10;
    // What is no longer needed goes at once: then it shows if it was.
    world.config.vacuum_grace = Duration::ZERO;
    world
}

/// What is done, and what may be there afterwards.
struct Step {
    name: &'static str,
    run: fn(&Storage) -> Result<(), StorageError>,
    /// What becomes of the rows; `None`: the table is gone.
    after: fn(&Rows) -> Option<Rows>,
}

/// Several shards in two days, some of them rewritten by corrections, and rows and corrections in memory only.
fn prepare(commits: i64, store: Option<FaultStore>) -> (Site, Rows) {
    let sim = Site { sim: SimDisk::new(), store };
    let storage = world(&sim, 1).open();
    for n in 0..commits {
        write(
            &storage,
            "t",
            &[("a", n, &[("x", Value::F64(n as f64))]), ("b", DAY * (n % 2), &[("y", Value::F64(n as f64))])],
        );
        storage.refresh(&table()).unwrap();
        // As the background would, every now and then.
        if n > 10 && n % 8 == 0 {
            storage.clean();
        }
    }
    write(&storage, "t", &[("a", 1, &[("x", Value::F64(100.0))]), ("c", DAY + 5, &[("x", Value::F64(1.0))])]);
    let rows = read(&storage, "t");
    drop(storage);
    (sim.kill(), rows)
}

fn stored(storage: &Storage) -> Option<Rows> {
    storage.table(&table())?;
    read_as_others(storage, &table());
    Some(read(storage, "t"))
}

fn check(commits: i64, step: &Step) {
    check_at(commits, step, None);
    check_at(commits, step, Some(FaultStore::new()));
}

fn check_at(commits: i64, step: &Step, store: Option<FaultStore>) {
    let place = if store.is_some() { "in a store" } else { "on a disk" };
    let (base, before) = prepare(commits, store);
    let after = (step.after)(&before);
    let mut operations = 0;
    for n in 1.. {
        let mut done = false;
        for kill in [false, true] {
            let end = if kill { "killed" } else { "power cut" };
            let label = format!("{} {place} at operation {n}, {end}", step.name);
            let rng = SplitMix64::new(n);
            let sim = base.fork();
            let storage = world(&sim, 2).open();
            assert_eq!(stored(&storage).as_ref(), Some(&before), "{label}: at first");
            sim.cut_after(n, kill);
            let result = (step.run)(&storage);
            done = sim.is_on();
            assert!(result.is_ok() || !done, "{label}: {result:?}");
            drop(storage);
            let sim = if kill { sim.kill() } else { sim.power_cut(rng.next_u64()) };
            let storage = world(&sim, 3).try_open().unwrap_or_else(|e| panic!("{label}: reopen: {e}"));
            let found = stored(&storage);
            assert!(found.as_ref() == Some(&before) || found == after, "{label}: {found:?}");
            assert!(!done || found == after, "{label}: it was done");
            // What was begun must not be in the way, and what is deleted now must not be needed after another cut.
            storage.clean();
            let cleaned = stored(&storage);
            assert!(cleaned == found || cleaned == after, "{label}: cleaned: {cleaned:?}");
            let found = cleaned;
            drop(storage);
            let sim = sim.power_cut(rng.next_u64());
            let storage = world(&sim, 4).try_open().unwrap_or_else(|e| panic!("{label}: reopen again: {e}"));
            assert_eq!(stored(&storage), found, "{label}: after the second cut");
            (step.run)(&storage).unwrap_or_else(|e| panic!("{label}: again: {e}"));
            assert_eq!(stored(&storage), after, "{label}: done again");
            write(&storage, "u", &[("a", 1, &[("x", Value::F64(1.0))])]);
            drop(storage);
            let storage = world(&sim.power_cut(rng.next_u64()), 5).open();
            assert_eq!(stored(&storage), after, "{label}: in the end");
            assert_eq!(read(&storage, "u").len(), 1, "{label}");
        }
        operations = n;
        if done {
            break;
        }
    }
    println!("{} {place}: {} operations", step.name, operations - 1);
    assert!(operations > if base.store.is_some() { 1 } else { 3 }, "{} does nothing {place}", step.name);
}

#[test]
fn compaction_survives_a_cut_at_each_step() {
    let run = |storage: &Storage| storage.compact(&table());
    check(6, &Step { name: "compaction", run, after: |rows| Some(rows.clone()) });
}

#[test]
fn flush_and_compaction_and_vacuum_survive_a_cut_at_each_step() {
    let run = |storage: &Storage| {
        storage.refresh(&table())?;
        storage.compact(&table())?;
        storage.clean();
        Ok(())
    };
    check(4, &Step { name: "flush, compaction and vacuum", run, after: |rows| Some(rows.clone()) });
}

#[test]
fn retention_survives_a_cut_at_each_step() {
    let run = |storage: &Storage| {
        storage.set_options(&table(), TableOptions { retention: Some(Duration::from_secs(7 * 86_400)) })?;
        storage.clean();
        Ok(())
    };
    // Seven days after the newest reading, on the second day, the first one is over for seven days.
    let after = |rows: &Rows| Some(rows.clone().into_iter().filter(|((_, time), _)| *time >= DAY).collect());
    check(4, &Step { name: "retention", run, after });
}

#[test]
fn a_drop_survives_a_cut_at_each_step() {
    let run = |storage: &Storage| storage.drop_table(&table()).map(drop);
    check(4, &Step { name: "drop", run, after: |_| None });
    let run = |storage: &Storage| {
        storage.drop_table(&table())?;
        // From here on it is known that no row of it comes into the log any more.
        storage.clean();
        // Enough for the log to move on, so that the folder goes too.
        let long = "x".repeat(20_000);
        for n in 0..8 {
            let batch = crate::world::batch("other", &[("a", n, &[("x", Value::Text(&long))])]);
            storage.write(vec![batch], "test")?.wait()?;
        }
        for table in storage.tables() {
            // What an earlier life lost is a row that holds the log.
            storage.refresh(&table.name)?;
        }
        storage.clean();
        let (store, schema) = (storage.object_store(), "public".into());
        let folders = store.list_with_delimiter(Some(&schema));
        let folders = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(folders);
        let left = folders.map(|listed| listed.common_prefixes).unwrap_or_default();
        assert!(left.iter().all(|folder| !folder.as_ref().ends_with("/t")), "{left:?}");
        Ok(())
    };
    check(2, &Step { name: "drop and its vacuum", run, after: |_| None });
}

#[test]
fn cleaning_a_log_survives_a_cut_at_each_step() {
    let run = |storage: &Storage| {
        storage.refresh(&table())?;
        storage.clean();
        Ok(())
    };
    check(127, &Step { name: "cleaning a log", run, after: |rows| Some(rows.clone()) });
}
