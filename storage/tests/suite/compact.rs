//! Compaction: the same rows in fewer shards, whatever is written meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use faults::{FaultDisk, Operation, SimDisk};
use model::{FieldType, Rng, SeriesKey, SplitMix64, TableBatch, TableName, Value};
use storage::{Storage, StorageError};
use url::Url;

use crate::power::read_as_others;
use crate::world::{Rows, START_US, World, files, in_file_order, read, write};

const DAY: i64 = 86_400_000_000;

fn table() -> TableName {
    TableName::public("t")
}

/// The files of the newest version, as deltalake sees them.
pub(crate) fn seen_by_deltalake(table_dir: &Path) -> BTreeSet<String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let url = Url::from_directory_path(table_dir).unwrap();
    let table = runtime.block_on(deltalake_core::open_table(url)).unwrap();
    let name = |uri: String| uri.rsplit('/').next().unwrap().to_owned();
    table.get_file_uris().unwrap().map(name).collect()
}

/// The files of the newest version, as we see them.
fn seen_by_us(storage: &Storage) -> BTreeSet<String> {
    let snapshot = storage.snapshot(&table()).unwrap().unwrap();
    snapshot.shards.iter().map(|view| view.shard.path.rsplit('/').next().unwrap().to_owned()).collect()
}

/// A write of a few readings: tags and fields come and go, times are all over two days.
fn random_batch(rng: &SplitMix64, step: u64, oracle: &mut Rows) -> TableBatch {
    let mut batch = TableBatch::new(table());
    for _ in 0..1 + rng.below(20) {
        let mut tags: Vec<(String, String)> = Vec::new();
        let mut fields: Vec<(String, Value<'_>)> = Vec::new();
        // The schema grows with the steps.
        for n in 0..1 + (step / 20).min(3) {
            if rng.below(3) > 0 {
                tags.push((format!("tag{n}"), format!("value {:0>9}", rng.below(3))));
            }
            if n == 0 || rng.below(2) == 0 {
                fields.push((format!("f{n}"), Value::F64(rng.below(4) as f64)));
            }
        }
        if rng.below(4) == 0 {
            fields.push(("text".into(), Value::Text(["", "a", "a text that does not fit"][rng.below(3) as usize])));
        }
        let time = (step * 3 + rng.below(50)) as i64 + if rng.below(5) == 0 { DAY } else { 0 };
        let columns: Vec<(usize, Value<'_>)> =
            fields.iter().map(|(name, value)| (batch.field_column(name, value.field_type()), *value)).collect();
        // The oracle names a series as the schema orders its tags, which is by number here.
        let series: Vec<String> = tags.iter().map(|(tag, value)| format!("{tag}={value}")).collect();
        let row = oracle.entry((series.join(","), time)).or_default();
        for (name, value) in &fields {
            let text = match value {
                Value::Text(text) => (*text).to_owned(),
                Value::F64(value) => value.to_string(),
                _ => unreachable!(),
            };
            row.insert(name.clone(), text);
        }
        let id = batch.intern_series(SeriesKey::from_tags(tags.iter().map(|(tag, value)| (&**tag, value))));
        batch.push_row(id, START_US + time, 1, &columns);
    }
    batch
}

/// All tags in their order, so that the oracle knows it.
fn prepare(storage: &Storage, oracle: &mut Rows) {
    for n in 0..4 {
        let mut batch = TableBatch::new(table());
        let field = batch.field_column("f0", FieldType::F64);
        let tags: Vec<(String, &str)> = (0..=n).map(|n| (format!("tag{n}"), "x")).collect();
        let series: Vec<String> = tags.iter().map(|(tag, value)| format!("{tag}={value}")).collect();
        oracle.entry((series.join(","), 0)).or_default().insert("f0".into(), "1".into());
        let id = batch.intern_series(SeriesKey::from_tags(tags.iter().map(|(tag, value)| (&**tag, *value))));
        batch.push_row(id, START_US, 1, &[(field, Value::F64(1.0))]);
        storage.write(vec![batch], "test").unwrap().wait().unwrap();
        storage.refresh(&table()).unwrap();
    }
}

#[test]
fn a_compacted_table_has_the_rows_it_had_each_once_and_in_order() {
    for seed in faults::seeds(40) {
        let rng = SplitMix64::new(seed);
        let mut world = World::on(Arc::new(SimDisk::new()), "/data".into());
        let mut storage = world.open();
        let mut oracle = Rows::new();
        prepare(&storage, &mut oracle);
        for step in 0..1 + rng.below(if seed % 8 == 0 { 100 } else { 30 }) {
            let batch = random_batch(&rng, step, &mut oracle);
            storage.write(vec![batch], "test").unwrap().wait().unwrap();
            match rng.below(12) {
                0 => storage.compact(&table()).unwrap(),
                1 | 2 => {}
                _ => storage.refresh(&table()).unwrap(),
            }
        }
        // Corrections in memory lie on shards that are replaced below them.
        assert_eq!(read(&storage, "t"), oracle, "seed {seed}");
        storage.compact(&table()).unwrap();
        assert_eq!(read(&storage, "t"), oracle, "seed {seed}, compacted");
        storage.refresh(&table()).unwrap();
        storage.compact(&table()).unwrap();
        assert_eq!(read_as_others(&storage, &table()), oracle, "seed {seed}, flushed and compacted");
        let snapshot = storage.snapshot(&table()).unwrap().unwrap();
        let days: BTreeMap<i32, usize> = snapshot.shards.iter().fold(BTreeMap::new(), |mut days, view| {
            *days.entry(view.shard.day).or_default() += 1;
            days
        });
        assert!(days.values().all(|shards| *shards == 1), "seed {seed}: {days:?}");
        drop(storage);
        storage = world.reopen();
        assert_eq!(read(&storage, "t"), oracle, "seed {seed}, reopened");
        let rows: u64 = snapshot.shards.iter().map(|view| view.shard.rows).sum();
        assert_eq!(rows, oracle.len() as u64, "seed {seed}");
    }
}

#[test]
fn a_hundred_shards_become_one_that_is_sorted_and_that_others_read() {
    let world = World::local();
    let storage = world.open();
    for n in 0..100 {
        // Each flush has all series, late and early.
        for series in ["b", "a"] {
            write(&storage, "t", &[(series, (n * 37) % 101, &[("x", Value::F64(n as f64))])]);
        }
        storage.refresh(&table()).unwrap();
    }
    let before = read(&storage, "t");
    let snapshot = storage.snapshot(&table()).unwrap().unwrap();
    storage.compact(&table()).unwrap();
    let mut keys: Vec<(String, i64)> = before.keys().cloned().collect();
    keys.sort();
    assert_eq!(in_file_order(&storage, "t"), keys);
    assert_eq!(read(&storage, "t"), before);
    assert_eq!(seen_by_deltalake(&world.table_dir("t")), seen_by_us(&storage));
    let info = storage.table(&table()).unwrap();
    assert_eq!((info.shards, info.shard_rows), (1, 200));
    // Positions are those of all inputs, so that a lost log gives no write an older one.
    let after = storage.snapshot(&table()).unwrap().unwrap();
    let shard = &after.shards[0].shard;
    assert_eq!(shard.position_min, snapshot.shards.iter().map(|view| view.shard.position_min).min().unwrap());
    assert_eq!(shard.position_max, snapshot.shards.iter().map(|view| view.shard.position_max).max().unwrap());
    // A query that began before reads the old shards on.
    assert_eq!(crate::world::read_snapshot(&storage, &snapshot), before);
    let stats = storage.stats();
    assert!(stats.compactions_total > 0 && stats.compaction_rows_total >= 200, "{stats:?}");
    let newest = files(&world.table_dir("t").join("_delta_log"), ".json").pop().unwrap();
    let commit = std::fs::read_to_string(newest).unwrap();
    assert!(commit.contains("\"OPTIMIZE\"") && !commit.contains("\"dataChange\":true"), "{commit}");
}

#[test]
fn flushes_with_corrections_and_compaction_are_not_in_each_others_way() {
    let world = World::on(Arc::new(SimDisk::new()), "/data".into());
    let storage = world.open();
    let rng = SplitMix64::new(7);
    let mut oracle = Rows::new();
    prepare(&storage, &mut oracle);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let compactor = scope.spawn(|| {
            let mut merges = 0;
            while !done.load(Ordering::SeqCst) {
                match storage.compact(&table()) {
                    Ok(()) => merges += 1,
                    Err(StorageError::Busy { .. }) => {}
                    Err(e) => panic!("{e}"),
                }
            }
            merges
        });
        for step in 0..150 {
            let batch = random_batch(&rng, step, &mut oracle);
            storage.write(vec![batch], "test").unwrap().wait().unwrap();
            if rng.below(2) == 0 {
                storage.refresh(&table()).unwrap();
            }
            if rng.below(5) == 0 {
                assert_eq!(read(&storage, "t"), oracle, "step {step}");
                read_as_others(&storage, &table());
            }
        }
        done.store(true, Ordering::SeqCst);
        assert!(compactor.join().unwrap() > 0);
    });
    storage.refresh(&table()).unwrap();
    storage.compact(&table()).unwrap();
    assert_eq!(read_as_others(&storage, &table()), oracle);
}

/// Files of data by name, with their bytes.
fn data_files(world: &World) -> BTreeMap<PathBuf, Vec<u8>> {
    files(&world.table_dir("t"), ".parquet")
        .into_iter()
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect()
}

#[test]
fn a_row_that_is_a_hundred_days_late_costs_its_own_day_only() {
    let mut world = World::local();
    world.config.compaction_wait = Duration::ZERO;
    let storage = world.open();
    for day in [-100, -50, -1, 0] {
        for n in 0..3 {
            write(&storage, "t", &[("a", day * DAY + n, &[("x", Value::F64(1.0))])]);
            storage.refresh(&table()).unwrap();
        }
    }
    storage.compact(&table()).unwrap();
    let before = data_files(&world);
    write(&storage, "t", &[("a", -100 * DAY + 7, &[("x", Value::F64(2.0))])]);
    storage.refresh(&table()).unwrap();
    storage.compact(&table()).unwrap();
    let after = data_files(&world);
    let late = "eden_day=2026-02-21";
    for (path, bytes) in &before {
        assert_eq!(after.get(path), Some(bytes), "{} was touched", path.display());
    }
    let new: Vec<&PathBuf> = after.keys().filter(|path| !before.contains_key(*path)).collect();
    assert!(new.len() <= 2 && !new.is_empty(), "{new:?}");
    assert!(new.iter().all(|path| path.to_string_lossy().contains(late)), "{new:?}");
    let named = seen_by_us(&storage);
    assert_eq!(named.len(), 4, "a shard a day");
}

/// Waits until something in the background has happened.
#[track_caller]
fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let (_never, wait) = std::sync::mpsc::channel::<()>();
    for _ in 0..600 {
        if is_so() {
            return;
        }
        let _ = wait.recv_timeout(Duration::from_millis(50));
    }
    panic!("{what} did not happen within 30 s");
}

#[test]
fn a_quiet_day_is_compacted_without_being_asked_and_one_with_rows_in_memory_is_not() {
    let (mut world, clock) = World::local().with_test_clock(DAY);
    world.config.compaction_wait = Duration::from_secs(10);
    let storage = world.open();
    for n in 0..5 {
        for table in ["quiet", "busy"] {
            write(&storage, table, &[("a", n, &[("x", Value::F64(1.0))])]);
            storage.refresh(&TableName::public(table)).unwrap();
        }
    }
    write(&storage, "busy", &[("a", 9, &[("x", Value::F64(1.0))])]);
    let shards = |table: &str| storage.table(&TableName::public(table)).unwrap().shards;
    // The thread sees the days first, and then that time has passed.
    eventually("compaction", || {
        clock.pass(Duration::from_secs(1));
        shards("quiet") == 1
    });
    assert_eq!(shards("busy"), 5);
    assert_eq!(storage.stats().compactions_total, 1);
    storage.close(Duration::from_secs(10)).unwrap();
}

#[test]
fn a_damaged_shard_is_named_and_nothing_changes() {
    let world = World::local();
    let storage = world.open();
    for n in 0..3 {
        write(&storage, "t", &[("a", n, &[("x", Value::F64(1.0))])]);
        storage.refresh(&table()).unwrap();
    }
    let before = data_files(&world);
    let (damaged, bytes) = before.iter().next().unwrap();
    let mut wrong = bytes.clone();
    wrong[4..20].fill(0xA5);
    std::fs::write(damaged, &wrong).unwrap();
    let named = seen_by_us(&storage);
    match storage.compact(&table()) {
        Err(e @ StorageError::Corrupt { .. }) => {
            assert!(e.to_string().contains(damaged.file_name().unwrap().to_str().unwrap()), "{e}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(seen_by_us(&storage), named);
    assert_eq!(data_files(&world).len(), 3, "nothing is left of the merge");
    std::fs::write(damaged, bytes).unwrap();
    storage.compact(&table()).unwrap();
    assert_eq!(read(&storage, "t").len(), 3);
}

#[test]
fn compacting_what_is_not_there_is_refused() {
    let storage = World::local().open();
    assert!(matches!(storage.compact(&table()), Err(StorageError::Invalid(_))));
}

/// A disk that fails a read has not damaged a shard: nothing is set down as damaged, and the next try goes through.
#[test]
fn a_read_that_fails_once_is_the_disks_error_and_no_damage() {
    let mut failures = 0;
    for nth in 1..=24 {
        let (faulty, faults) = FaultDisk::new(Arc::new(SimDisk::new()));
        let world = World::on(Arc::new(faulty), "/data".into());
        let storage = world.open();
        for n in 0..3 {
            write(&storage, "t", &[("a", n, &[("x", Value::I64(n))]), ("b", n, &[("x", Value::I64(-n))])]);
            storage.refresh(&table()).unwrap();
        }
        let expected = read(&storage, "t");
        let is_shard = |path: &Path| path.extension().is_some_and(|ending| ending == "parquet");
        faults.fail(Operation::Read, nth, is_shard);
        let done = if nth % 2 == 0 {
            storage.compact(&table())
        } else {
            storage.alter_column(&table(), "x", FieldType::F64).map(drop)
        };
        match done {
            Ok(()) => {}
            Err(StorageError::Io { .. }) => failures += 1,
            Err(e) => panic!("read {nth}: {e}"),
        }
        assert_eq!(storage.damaged_shards(), [], "read {nth}");
        // The failure may still be to come.
        storage.compact(&table()).or_else(|_| storage.compact(&table())).unwrap();
        assert!(read(&storage, "t") == expected, "read {nth}");
    }
    assert!(failures >= 10, "only {failures} reads failed");
}
