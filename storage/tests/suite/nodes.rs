//! Several nodes in one folder (docs/adr/0018), case by case; `nodes_power` has the random runs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::datatypes::TimestampMicrosecondType;
use faults::{Last, MortalDisk, SimDisk};
use model::{Clock, NodeId, Rng, SplitMix64, SystemClock, TableName, Value};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use storage::{PendingWrite, Storage, StorageConfig, StorageError, TableOptions, adopt};
use wal::disk::{Disk, SharedDisk, read_file};

use crate::world::{World, batch, read, write};

pub(crate) const NODES: [NodeId; 2] = [NodeId(0xA), NodeId(0xB)];
const GRACE: Duration = Duration::from_secs(60);

pub(crate) fn table() -> TableName {
    TableName::public("t")
}

pub(crate) fn world(disk: &SharedDisk, node: NodeId, seed: u64) -> World {
    let mut world = World::on(Arc::clone(disk), PathBuf::from("/data")).with_seed(seed);
    world.config.shared = Some(node);
    world
}

pub(crate) fn adopt_as(
    disk: &SharedDisk,
    dead: NodeId,
    config: &StorageConfig,
    seed: u64,
) -> Result<storage::Adopted, StorageError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    adopt(config.clone(), disk, clock, Arc::new(SplitMix64::new(seed)), dead)
}

/// Keys of each data file, read once.
#[derive(Default)]
pub(crate) struct Files(HashMap<String, BTreeSet<(String, i64)>>);

/// Fails if any version of the table names two files that hold one key, or a file that is not there.
pub(crate) fn check_every_version(disk: &dyn Disk, files: &mut Files) -> Result<(), String> {
    let dir = Path::new("/data/tables/public/t");
    let Ok(entries) = disk.list(&dir.join("_delta_log")) else { return Ok(()) };
    let mut paths = BTreeSet::new();
    for (version, name) in entries.iter().map(|entry| &entry.name).filter(|name| name.ends_with(".json")).enumerate() {
        if name.starts_with('.') {
            continue;
        }
        let bytes = read_file(disk, &dir.join("_delta_log").join(name)).map_err(|e| format!("{name}: {e}"))?;
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let action: serde_json::Value = serde_json::from_slice(line).map_err(|e| format!("{name}: {e}"))?;
            if let Some(path) = action["add"]["path"].as_str() {
                paths.insert(path.to_owned());
            }
            if let Some(path) = action["remove"]["path"].as_str()
                && !paths.remove(path)
            {
                return Err(format!("version {version} removes {path}, which is not there"));
            }
        }
        for path in &paths {
            if !files.0.contains_key(path) {
                let bytes = read_file(disk, &dir.join(path)).map_err(|e| format!("version {version}: {path}: {e}"))?;
                files.0.insert(path.clone(), keys_of(bytes.into())?);
            }
        }
        let mut all = BTreeSet::new();
        for path in &paths {
            for key in &files.0[path] {
                if !all.insert(key) {
                    return Err(format!("version {version} holds {key:?} twice"));
                }
            }
        }
    }
    Ok(())
}

fn keys_of(bytes: bytes::Bytes) -> Result<BTreeSet<(String, i64)>, String> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(ParquetRecordBatchReaderBuilder::build);
    let mut keys = BTreeSet::new();
    for batch in reader.map_err(|e| e.to_string())? {
        let batch = batch.map_err(|e| e.to_string())?;
        let times = batch.column_by_name("time").unwrap().as_primitive::<TimestampMicrosecondType>();
        let tags = batch.column_by_name("s").unwrap();
        for row in 0..batch.num_rows() {
            let tag = arrow::util::display::array_value_to_string(tags, row).map_err(|e| e.to_string())?;
            if !keys.insert((tag.clone(), times.value(row))) {
                return Err(format!("one file holds {tag} at {} twice", times.value(row)));
            }
        }
        assert!(times.null_count() == 0);
    }
    Ok(keys)
}

#[test]
fn two_nodes_write_to_one_table_and_each_sees_what_the_other_has_flushed() {
    let disk: SharedDisk = Arc::new(SimDisk::new());
    let (a, b) = (world(&disk, NODES[0], 1).open(), world(&disk, NODES[1], 2).open());
    write(&a, "t", &[("a", 1, &[("x", Value::F64(1.0))])]);
    write(&b, "t", &[("b", 1, &[("y", Value::F64(2.0))])]);
    assert_eq!(read(&a, "t").len(), 1);
    a.refresh(&table()).unwrap();
    b.refresh(&table()).unwrap();
    assert_eq!(read(&a, "t").len(), 2, "a query looks for newer commits");
    assert_eq!(read(&a, "t"), read(&b, "t"));
    let columns = |storage: &Storage| storage.table(&table()).unwrap().schema.columns().to_vec();
    assert_eq!(columns(&a), columns(&b));
    write(&a, "t", &[("b", 1, &[("x", Value::F64(3.0))])]);
    a.refresh(&table()).unwrap();
    let row = &read(&b, "t")[&("s=b".to_owned(), 1)];
    assert_eq!(row.values().collect::<Vec<_>>(), ["3", "2"], "absent fields stay");
    a.compact(&table()).unwrap();
    assert_eq!(read(&b, "t").len(), 2);
    b.close(GRACE).unwrap();
    a.close(GRACE).unwrap();
    check_every_version(&*disk, &mut Files::default()).unwrap();
}

/// B has seen A's write, so its own is newer; what A wrote before B, and flushes later, is older.
#[test]
fn what_was_written_later_wins_whoever_flushes_first() {
    let key = |value: f64| -> [(&str, Value<'static>); 1] { [("x", Value::F64(value))] };
    for flush_late in [false, true] {
        let disk: SharedDisk = Arc::new(SimDisk::new());
        let (a, b) = (world(&disk, NODES[0], 1).open(), world(&disk, NODES[1], 2).open());
        write(&a, "t", &[("k", 1, &key(1.0))]);
        if !flush_late {
            a.refresh(&table()).unwrap();
        }
        // B's counter is beyond A's, by what it saw or by what it wrote.
        for n in 0..5 {
            write(&b, "t", &[("other", n, &key(0.0))]);
        }
        b.refresh(&table()).unwrap();
        write(&b, "t", &[("k", 1, &key(2.0))]);
        b.refresh(&table()).unwrap();
        a.refresh(&table()).unwrap();
        for storage in [&a, &b] {
            assert_eq!(read(storage, "t")[&("s=k".to_owned(), 1)]["x"], "2", "flush_late {flush_late}");
        }
        // A has seen it: what it writes now is newer.
        write(&a, "t", &[("k", 1, &key(3.0))]);
        a.refresh(&table()).unwrap();
        assert_eq!(read(&b, "t")[&("s=k".to_owned(), 1)]["x"], "3");
        check_every_version(&*disk, &mut Files::default()).unwrap();
    }
}

#[test]
fn an_older_write_fills_the_fields_that_a_newer_shard_of_another_node_lacks() {
    let disk: SharedDisk = Arc::new(SimDisk::new());
    let (a, b) = (world(&disk, NODES[0], 1).open(), world(&disk, NODES[1], 2).open());
    write(&a, "t", &[("k", 1, &[("x", Value::F64(1.0)), ("y", Value::F64(1.0))])]);
    for n in 0..5 {
        write(&b, "t", &[("other", n, &[("x", Value::F64(0.0))])]);
    }
    b.refresh(&table()).unwrap();
    write(&b, "t", &[("k", 1, &[("x", Value::F64(2.0))])]);
    b.refresh(&table()).unwrap();
    let expected = BTreeMap::from([("x".to_owned(), "2".to_owned()), ("y".to_owned(), "1".to_owned())]);
    assert_eq!(read(&a, "t")[&("s=k".to_owned(), 1)], expected, "in memory");
    a.refresh(&table()).unwrap();
    assert_eq!(read(&b, "t")[&("s=k".to_owned(), 1)], expected, "in shards");
}

#[test]
fn the_log_of_a_dead_node_is_adopted_and_its_zombie_acknowledges_nothing() {
    let disk: SharedDisk = Arc::new(SimDisk::new());
    let (a, b) = (world(&disk, NODES[0], 1).open(), world(&disk, NODES[1], 2).open());
    write(&a, "t", &[("a", 1, &[("x", Value::F64(1.0))])]);
    write(&b, "t", &[("b", 1, &[("x", Value::F64(1.0))])]);
    let config = world(&disk, NODES[1], 3).config;
    let adopted = adopt_as(&disk, NODES[0], &config, 4).unwrap();
    assert!(adopted.log_bytes > 0 && adopted.epoch.0 == 2, "{adopted:?}");
    assert_eq!(read(&b, "t").len(), 2, "what A acknowledged is in the table");
    b.refresh(&table()).unwrap();
    let late = a.write(vec![batch("t", &[("a", 2, &[("x", Value::F64(2.0))])])], "test").and_then(PendingWrite::wait);
    assert!(matches!(late, Err(StorageError::Fenced)), "{late:?}");
    let flushed = a.refresh(&table());
    assert!(matches!(flushed, Err(StorageError::Fenced)), "{flushed:?}");
    assert!(matches!(a.write(vec![], "test"), Err(StorageError::Fenced)));
    drop(a);
    let again = adopt_as(&disk, NODES[0], &config, 5).unwrap();
    assert_eq!(again.log_bytes, 0, "there is nothing left");
    // The node itself comes back, and goes on behind.
    let a = world(&disk, NODES[0], 6).open();
    write(&a, "t", &[("a", 2, &[("x", Value::F64(3.0))])]);
    assert_eq!(read(&a, "t").len(), 3);
    assert!(a.losses().is_empty());
}

#[test]
fn two_nodes_that_make_one_table_or_column_at_once_make_it_once() {
    for seed in faults::seeds(30) {
        let disk: SharedDisk = Arc::new(SimDisk::new());
        let storages = [world(&disk, NODES[0], 2 * seed + 1).open(), world(&disk, NODES[1], 2 * seed + 2).open()];
        std::thread::scope(|scope| {
            for (n, storage) in storages.iter().enumerate() {
                scope.spawn(move || {
                    for column in 0..4 {
                        let name = format!("c{}", (column + n) % 4);
                        let series = format!("node {n}");
                        write(storage, "t", &[(&series, column as i64, &[(&name, Value::F64(1.0))])]);
                    }
                });
            }
        });
        storages.iter().for_each(|storage| storage.refresh(&table()).unwrap());
        let rows = read(&storages[0], "t");
        assert_eq!((rows.len(), &rows), (8, &read(&storages[1], "t")), "seed {seed}");
        assert_eq!(storages[0].table(&table()).unwrap().schema.fields().count(), 4, "seed {seed}");
        check_every_version(&*disk, &mut Files::default()).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    }
}

#[test]
fn a_dropped_table_is_gone_for_the_other_node_too_and_its_name_is_not_used_again() {
    let disk: SharedDisk = Arc::new(SimDisk::new());
    let (a, b) = (world(&disk, NODES[0], 1).open(), world(&disk, NODES[1], 2).open());
    write(&a, "t", &[("a", 1, &[("x", Value::F64(1.0))])]);
    write(&b, "t", &[("b", 1, &[("x", Value::F64(1.0))])]);
    let options = TableOptions { retention: Some(Duration::from_secs(86_400 * 365 * 100)) };
    a.set_options(&table(), options).unwrap();
    b.refresh(&table()).unwrap();
    assert_eq!(b.options(&table()), Some(options));
    assert!(a.drop_table(&table()).unwrap());
    b.refresh(&table()).ok();
    assert!(b.snapshot(&table()).unwrap().is_none());
    for storage in [&a, &b] {
        let refused = storage.write(vec![batch("t", &[("a", 2, &[("x", Value::F64(1.0))])])], "test").unwrap();
        assert!(refused.rejected[0].reason.contains("not used again"), "{:?}", refused.rejected);
    }
    b.close(GRACE).unwrap();
    a.close(GRACE).unwrap();
}

#[test]
fn types_do_not_change_among_nodes() {
    let disk: SharedDisk = Arc::new(SimDisk::new());
    let a = world(&disk, NODES[0], 1).open();
    write(&a, "t", &[("a", 1, &[("x", Value::I64(1))])]);
    let refused = a.alter_column(&table(), "x", model::FieldType::F64).unwrap_err().to_string();
    assert!(refused.contains("several nodes"), "{refused}");
    let refused = a.write(vec![batch("t", &[("a", 2, &[("x", Value::F64(1.5))])])], "test").unwrap();
    assert_eq!((refused.accepted, refused.rejected.len()), (0, 1));
}

/// It may die between the name of a commit and its sync: whoever deletes what the commit has removed makes it durable.
#[test]
fn a_commit_that_a_dying_node_left_unsynced_is_not_lost_from_under_the_others() {
    for seed in faults::seeds(60) {
        let rng = SplitMix64::new(seed);
        let sim = SimDisk::new();
        let (mortal, life) = MortalDisk::new(Arc::new(sim.clone()));
        let (dying, disk): (SharedDisk, SharedDisk) = (Arc::new(mortal), Arc::new(sim.clone()));
        let a = world(&dying, NODES[0], 4 * seed + 1).open();
        let mut place = world(&disk, NODES[1], 4 * seed + 2);
        place.config.vacuum_grace = Duration::ZERO;
        let b = place.open();
        write(&a, "t", &[("k", 1, &[("x", Value::F64(1.0))])]);
        a.refresh(&table()).unwrap();
        read(&b, "t");
        write(&a, "t", &[("k", 1, &[("x", Value::F64(2.0))])]);
        life.die_at(4 + rng.below(12), Last::random(&rng));
        let _ = a.refresh(&table());
        drop(a);
        b.clean();
        drop((b, place, disk));
        let disk: SharedDisk = Arc::new(sim.power_cut(seed));
        let config = world(&disk, NODES[1], 0).config;
        adopt_as(&disk, NODES[0], &config, 4 * seed + 3).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        let b = world(&disk, NODES[1], 4 * seed + 4).open();
        assert_eq!(read(&b, "t")[&("s=k".to_owned(), 1)]["x"], "2", "seed {seed}");
    }
}

#[test]
fn a_folder_is_one_servers_or_shared_by_nodes_and_not_both() {
    let disk: SharedDisk = Arc::new(SimDisk::new());
    let alone = World::on(Arc::clone(&disk), PathBuf::from("/data")).open();
    let refused = world(&disk, NODES[0], 1).try_open().unwrap_err().to_string();
    assert!(refused.contains("of one server"), "{refused}");
    drop(alone);
    let disk: SharedDisk = Arc::new(SimDisk::new());
    drop(world(&disk, NODES[0], 1).open());
    let refused = World::on(Arc::clone(&disk), PathBuf::from("/data")).try_open().unwrap_err().to_string();
    assert!(refused.contains("several nodes share"), "{refused}");
}

/// A flush that sleeps has files that no version names, and may commit them when it wakes.
#[test]
fn vacuum_never_deletes_what_another_node_is_about_to_commit() {
    for seed in faults::seeds(40) {
        let rng = SplitMix64::new(seed);
        let disk: SharedDisk = Arc::new(SimDisk::new());
        let (mortal, life) = MortalDisk::new(Arc::clone(&disk));
        let sleeper: SharedDisk = Arc::new(mortal);
        let a = world(&sleeper, NODES[0], 2 * seed + 1).open();
        let mut place = world(&disk, NODES[1], 2 * seed + 2);
        place.config.vacuum_grace = Duration::ZERO;
        let b = place.open();
        write(&b, "t", &[("b", 1, &[("x", Value::F64(1.0))])]);
        b.refresh(&table()).unwrap();
        write(&a, "t", &[("a", 1, &[("x", Value::F64(1.0))]), ("b", 1, &[("x", Value::F64(2.0))])]);
        let others_commit = rng.below(2) == 0;
        life.sleep_before(1 + rng.below(16));
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let asleep = scope.spawn(|| {
                a.refresh(&table()).unwrap();
                is_over.store(true, Ordering::SeqCst);
            });
            life.wait_for_sleep(|| is_over.load(Ordering::SeqCst));
            b.clean();
            if others_commit {
                write(&b, "t", &[("b", 2, &[("x", Value::F64(1.0))])]);
                b.refresh(&table()).unwrap();
            }
            b.clean();
            life.wake();
            asleep.join().unwrap();
        });
        b.clean();
        let rows = read(&b, "t");
        assert_eq!((rows.len(), &rows), (2 + usize::from(others_commit), &read(&a, "t")), "seed {seed}");
        assert_eq!(rows[&("s=b".to_owned(), 1)]["x"], "2", "seed {seed}");
    }
}

/// A node falls asleep at any operation of a write or a flush; meanwhile it is adopted, and its keys are written anew.
#[test]
fn a_node_that_slept_while_it_was_adopted_acknowledges_and_commits_nothing_more() {
    for seed in faults::seeds(60) {
        let rng = SplitMix64::new(seed);
        let sim = SimDisk::new();
        let disk: SharedDisk = Arc::new(sim.clone());
        let (mortal, life) = MortalDisk::new(Arc::clone(&disk));
        let sleeper: SharedDisk = Arc::new(mortal);
        let a = world(&sleeper, NODES[0], 3 * seed + 1).open();
        let b = world(&disk, NODES[1], 3 * seed + 2).open();
        write(&a, "t", &[("k", 1, &[("x", Value::F64(1.0))])]);
        a.refresh(&table()).unwrap();
        write(&a, "t", &[("k", 1, &[("x", Value::F64(2.0))]), ("k", 2, &[("x", Value::F64(2.0))])]);
        let is_flush = rng.below(2) == 0;
        life.sleep_before(1 + rng.below(if is_flush { 14 } else { 4 }));
        let is_over = AtomicBool::new(false);
        let outcome = std::thread::scope(|scope| {
            let asleep = scope.spawn(|| {
                let done = match is_flush {
                    true => a.refresh(&table()),
                    false => {
                        let late = batch("t", &[("k", 3, &[("x", Value::F64(3.0))])]);
                        a.write(vec![late], "test").and_then(PendingWrite::wait)
                    }
                };
                is_over.store(true, Ordering::SeqCst);
                done
            });
            let slept = life.wait_for_sleep(|| is_over.load(Ordering::SeqCst));
            let config = world(&disk, NODES[1], 0).config;
            adopt_as(&disk, NODES[0], &config, 3 * seed + 3).unwrap();
            // Newer than all that A has.
            write(&b, "t", &[("k", 1, &[("x", Value::F64(9.0))])]);
            b.refresh(&table()).unwrap();
            life.wake();
            (slept, asleep.join().unwrap())
        });
        let _ = a.refresh(&table());
        let label = format!("seed {seed}: flush {is_flush}, {outcome:?}");
        let rows = read(&b, "t");
        assert_eq!(rows[&("s=k".to_owned(), 1)]["x"], "9", "{label}");
        assert_eq!(rows[&("s=k".to_owned(), 2)]["x"], "2", "{label}");
        let is_acked = !is_flush && outcome.1.is_ok();
        assert_eq!(rows.contains_key(&("s=k".to_owned(), 3)), is_acked, "{label}");
        let late =
            a.write(vec![batch("t", &[("k", 4, &[("x", Value::F64(4.0))])])], "test").and_then(PendingWrite::wait);
        assert!(matches!(late, Err(StorageError::Fenced)), "{label}: {late:?}");
        check_every_version(&sim, &mut Files::default()).unwrap_or_else(|e| panic!("{label}: {e}"));
    }
}
