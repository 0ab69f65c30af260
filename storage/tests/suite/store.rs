//! Tables in an object store that goes away, loses answers, is late, or is somebody else's.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use faults::SimDisk;
use model::{Clock, FieldType, Rng, SplitMix64, SystemClock, TableName, Value};
use object_store::ObjectStoreExt;
use object_store::path::Path as Location;
use storage::check::repair::{Act, RepairOptions, repair};
use storage::check::{CheckOptions, Severity, check};
use storage::{Disks, Storage, StorageError, Tables};
use wal::disk::SharedDisk;

use crate::correct::random_run;
use crate::fault_store::{Fault, FaultStore, Pretence};
use crate::power::read_as_others;
use crate::world::{World, read, try_read_snapshot, write};

const DAY: i64 = 86_400_000_000;

fn table() -> TableName {
    TableName::public("t")
}

fn is_commit(location: &Location) -> bool {
    location.as_ref().ends_with(".json") && location.as_ref().contains("/t/_delta_log/")
}

fn is_shard(location: &Location) -> bool {
    location.as_ref().ends_with(".parquet") && !location.as_ref().contains("_delta_log")
}

fn world(store: &FaultStore) -> (World, SimDisk) {
    let sim = SimDisk::new();
    let disk: SharedDisk = Arc::new(sim.clone());
    (World::on(disk, PathBuf::from("/data")).with_tables_in(store), sim)
}

fn put(storage: &Storage, time: i64, value: f64) {
    write(storage, "t", &[("a", time, &[("x", Value::F64(value))])]);
}

fn count(storage: &Storage) -> usize {
    read(storage, "t").len()
}

/// The only shard of table `t`, below the tables.
fn shard_path(store: &FaultStore) -> String {
    let locations = store.locations().into_iter().filter(|l| is_shard(&Location::from(l.as_str())));
    let shards: Vec<String> = locations.map(|l| l["tables/".len()..].to_owned()).collect();
    let [shard] = &shards[..] else { panic!("{shards:?}") };
    shard.clone()
}

/// The newest version of table `t`.
fn version(store: &FaultStore) -> usize {
    let prefix = "tables/public/t/_delta_log/";
    let commits = store.locations().into_iter().filter(|l| l.starts_with(prefix) && l.ends_with(".json"));
    commits.filter_map(|l| l[prefix.len()..].trim_end_matches(".json").parse().ok()).max().unwrap()
}

#[test]
fn random_writes_flushes_and_restarts_give_the_rows_of_a_plain_map() {
    for seed in faults::seeds(20) {
        random_run(seed, 80, world(&FaultStore::new()).0);
    }
}

#[test]
fn nothing_but_tables_is_in_the_store_and_nothing_of_them_in_the_data_folder() {
    let store = FaultStore::new();
    let (mut world, sim) = world(&store);
    let storage = world.open();
    put(&storage, 1, 1.0);
    storage.refresh(&table()).unwrap();
    let locations = store.locations();
    let is_known = |l: &String| l.starts_with("tables/public/t/") || l == "tables/eden-owner.json";
    assert!(locations.iter().all(is_known), "{locations:?}");
    assert!(locations.iter().any(|l| l.ends_with(".parquet")), "{locations:?}");
    use wal::disk::Disk;
    let names: Vec<String> = sim.list("/data".as_ref()).unwrap().into_iter().map(|entry| entry.name).collect();
    assert!(!names.contains(&"tables".to_owned()), "{names:?}");
    drop(storage);
    assert_eq!(count(&world.reopen()), 1);
}

#[test]
fn a_commit_whose_answer_is_lost_or_late_is_found_to_be_ours() {
    for fault in [Fault::AnswerLost, Fault::Late, Fault::Unreached] {
        let store = FaultStore::new();
        let (mut world, _) = world(&store);
        let storage = world.open();
        put(&storage, 1, 1.0);
        storage.refresh(&table()).unwrap();
        let before = version(&store);
        put(&storage, 2, 2.0);
        store.fail(fault, is_commit);
        storage.refresh(&table()).unwrap();
        assert!(store.has_failed());
        assert_eq!(version(&store), before + 1, "{fault:?}");
        assert_eq!(store.deliver(is_commit), 0, "{fault:?}: a late commit finds that its name is taken");
        put(&storage, 3, 3.0);
        storage.refresh(&table()).unwrap();
        assert_eq!(read_as_others(&storage, &table()).len(), 3);
        drop(storage);
        assert_eq!(count(&world.reopen()), 3, "{fault:?}");
    }
}

#[test]
fn a_commit_in_doubt_is_resolved_by_the_next_flush_whatever_became_of_it() {
    for fault in [Fault::AnswerLost, Fault::Late] {
        for delivered in [false, true] {
            let store = FaultStore::new();
            let (mut world, _) = world(&store);
            let storage = world.open();
            put(&storage, 1, 1.0);
            storage.refresh(&table()).unwrap();
            put(&storage, 2, 2.0);
            store.fail_and_leave(fault, is_commit);
            let label = format!("{fault:?}, delivered: {delivered}");
            let failed = storage.refresh(&table()).unwrap_err();
            assert!(failed.to_string().contains("may or may not have been stored"), "{label}: {failed}");
            put(&storage, 3, 3.0);
            store.come_back();
            if delivered {
                store.deliver(is_commit);
            }
            storage.refresh(&table()).unwrap_or_else(|e| panic!("{label}: {e}"));
            assert_eq!(store.deliver(is_commit), 0, "{label}: what comes now finds its name taken");
            assert_eq!(read_as_others(&storage, &table()).len(), 3, "{label}");
            put(&storage, 2, 5.0);
            storage.refresh(&table()).unwrap();
            assert_eq!(count(&storage), 3, "{label}");
            drop(storage);
            let storage = world.reopen();
            assert_eq!(read_as_others(&storage, &table()), read(&storage, "t"), "{label}");
            assert_eq!(count(&storage), 3, "{label}");
        }
    }
}

#[test]
fn another_writers_commit_is_never_overwritten_and_nothing_acknowledged_is_lost() {
    let store = FaultStore::new();
    let (mut world, _) = world(&store);
    let storage = world.open();
    put(&storage, 1, 1.0);
    storage.refresh(&table()).unwrap();
    put(&storage, 2, 2.0);
    let theirs = format!("tables/public/t/_delta_log/{:020}.json", version(&store) + 1);
    store.plant(&theirs, b"theirs".to_vec());
    let error = storage.refresh(&table()).unwrap_err().to_string();
    assert!(error.contains("another server has committed this version"), "{error}");
    assert_eq!(store.read(&theirs), b"theirs");
    assert_eq!(count(&storage), 2);
    drop(storage);
    block_on_delete(&store, &theirs);
    assert_eq!(count(&world.reopen()), 2);
}

fn block_on_delete(store: &FaultStore, location: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(store.delete(&Location::from(location))).unwrap();
}

#[test]
fn while_the_store_is_away_writes_are_acknowledged_and_queries_do_not_call_shards_damaged() {
    let store = FaultStore::new();
    let (mut world, _) = world(&store);
    let storage = world.open();
    put(&storage, 1, 1.0);
    storage.refresh(&table()).unwrap();
    drop(storage);
    // Without what was remembered of the shard.
    world.tables = Some(store.tables());
    let storage = world.reopen();
    store.go_away();
    put(&storage, 1, 2.0);
    put(&storage, 2, 2.0);
    let failed = storage.refresh(&table()).unwrap_err();
    assert!(failed.is_store_away(), "{failed}");
    assert!(failed.to_string().contains("s3://bucket/tables"), "{failed}");
    let snapshot = storage.snapshot(&table());
    let failed = snapshot.expect_err("what is to be masked is looked up in the shard, which is away");
    assert!(failed.is_store_away(), "{failed}");
    // A new table has to be committed first.
    let new = crate::world::batch("u", &[("a", 1, &[("x", Value::F64(1.0))])]);
    let refused = storage.write(vec![new.clone()], "test").unwrap_err();
    assert!(matches!(refused, StorageError::Busy { .. }), "{refused}");
    assert!(refused.to_string().contains("does not answer"), "{refused}");
    let location = Location::from(shard_path(&store));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let failed = runtime.block_on(storage.object_store().get_ranges(&location, &[0..10, 20..30])).unwrap_err();
    assert!(failed.to_string().contains("does not answer"), "{failed}");
    assert_eq!(storage.damaged_shards(), []);
    assert!(!storage.is_poisoned());
    store.come_back();
    assert_eq!(count(&storage), 2);
    storage.write(vec![new], "test").unwrap().wait().unwrap();
    storage.refresh(&table()).unwrap();
    drop(storage);
    let storage = world.reopen();
    assert_eq!(read_as_others(&storage, &table()).len(), 2);
    assert_eq!(read(&storage, "u").len(), 1);
}

#[test]
fn a_store_that_breaks_its_promises_is_refused_and_one_that_keeps_them_is_left_as_it_was() {
    let rng = SplitMix64::new(1);
    let store = FaultStore::new();
    store.tables().try_out(&rng).unwrap();
    assert_eq!(store.locations(), [""; 0]);
    store.pretend(Pretence::PutsAlways);
    let error = store.tables().try_out(&rng).unwrap_err();
    assert!(matches!(error, StorageError::Unfit { .. }), "{error}");
    assert!(error.to_string().contains("If-None-Match"), "{error}");
    store.pretend(Pretence::OldLists);
    let error = store.tables().try_out(&rng).unwrap_err();
    assert!(error.to_string().contains("a list does not have"), "{error}");
    store.go_away();
    assert!(store.tables().try_out(&rng).unwrap_err().is_store_away());
    store.come_back();
    store.fail(Fault::Refused, |_| true);
    let error = store.tables().try_out(&rng).unwrap_err();
    assert!(!error.is_store_away() && error.to_string().contains("s3://bucket/tables"), "{error}");
}

#[test]
fn tables_of_another_node_are_refused_and_an_earlier_life_deletes_nothing() {
    let store = FaultStore::new();
    let (mut first, sim) = world(&store);
    first.config.vacuum_grace = Duration::ZERO;
    let storage = first.open();
    put(&storage, 1, 1.0);
    storage.refresh(&table()).unwrap();
    let (other, _) = world(&store);
    let error = other.with_seed(99).try_open().unwrap_err();
    assert!(matches!(error, StorageError::Owned { .. }), "{error}");
    assert!(error.to_string().contains("eden-owner.json"), "{error}");
    // A copy of the data folder is the same node, in a later life.
    let copy: SharedDisk = Arc::new(sim.fork());
    let mut copy = World::on(copy, PathBuf::from("/data")).with_seed(5).with_tables_in(&store);
    let later = copy.open();
    for time in 2..5 {
        put(&later, time, 1.0);
        later.refresh(&table()).unwrap();
    }
    let before = store.locations();
    storage.clean();
    assert_eq!(store.locations(), before);
    put(&storage, 9, 1.0);
    assert!(storage.refresh(&table()).is_err());
    drop(storage);
    // The note now names a later life than the next one of the first folder.
    drop(later);
    let later = copy.reopen();
    assert_eq!(count(&later), 4);
    assert!(matches!(first.try_open(), Err(StorageError::Owned { .. })));
}

#[test]
fn a_dropped_tables_objects_go_and_its_name_is_free_from_the_first_moment() {
    let store = FaultStore::new();
    let (world, _) = world(&store);
    let (mut world, clock) = world.with_test_clock(9 * DAY);
    world.config.log_segment_bytes = 64 << 10;
    let storage = world.open();
    put(&storage, 1, 1.0);
    storage.refresh(&table()).unwrap();
    assert!(storage.drop_table(&table()).unwrap());
    // From here on it is known that no row of it comes into the log any more.
    storage.clean();
    put(&storage, 2, 2.0);
    storage.refresh(&table()).unwrap();
    assert_eq!(count(&storage), 1);
    let long = "x".repeat(20_000);
    for n in 0..8 {
        write(&storage, "other", &[("a", n, &[("x", Value::Text(&long))])]);
    }
    for other in storage.tables() {
        storage.refresh(&other.name).unwrap();
    }
    storage.clean();
    clock.pass(Duration::from_secs(7_200));
    storage.clean();
    let of_first = |l: &String| l.starts_with("tables/public/t/");
    assert!(!store.locations().iter().any(of_first), "{:?}", store.locations());
    drop(storage);
    let storage = world.reopen();
    assert_eq!(count(&storage), 1);
}

#[test]
fn compaction_retention_and_new_types_work_in_a_store() {
    let store = FaultStore::new();
    let (mut world, _) = world(&store);
    world.config.vacuum_grace = Duration::ZERO;
    let storage = world.open();
    for time in 0..70 {
        write(&storage, "t", &[("a", time, &[("x", Value::I64(time))])]);
        storage.refresh(&table()).unwrap();
    }
    storage.compact(&table()).unwrap();
    storage.alter_column(&table(), "x", FieldType::F64).unwrap();
    storage.clean();
    let shards = store.locations().into_iter().filter(|l| is_shard(&Location::from(l.as_str()))).count();
    assert_eq!((shards, count(&storage)), (1, 70));
    assert!(store.locations().iter().any(|l| l.ends_with(".checkpoint.parquet")), "{:?}", store.locations());
    drop(storage);
    let storage = world.reopen();
    assert_eq!(read_as_others(&storage, &table()).len(), 70);
}

#[test]
fn a_shard_is_read_in_few_requests() {
    let store = FaultStore::new();
    let (mut world, _) = world(&store);
    let storage = world.open();
    let fields: Vec<String> = (0..40).map(|n| format!("f{n}")).collect();
    for first in (0..60_000).step_by(2_000) {
        let rows: Vec<BTreeMap<usize, f64>> = (first..first + 2_000)
            .map(|time| (0..40).map(|n| (n, SplitMix64::new(time as u64 * 40 + n as u64).next_u64() as f64)).collect())
            .collect();
        let values: Vec<Vec<(&str, Value<'_>)>> =
            rows.iter().map(|row| row.iter().map(|(n, value)| (&*fields[*n], Value::F64(*value))).collect()).collect();
        let readings: Vec<crate::world::Reading<'_>> =
            values.iter().enumerate().map(|(at, row)| ("a", first + at as i64, &row[..])).collect();
        write(&storage, "t", &readings);
    }
    storage.refresh(&table()).unwrap();
    drop(storage);
    // Without what was remembered of it.
    world.tables = Some(store.tables());
    let storage = world.reopen();
    let snapshot = storage.snapshot(&table()).unwrap().unwrap();
    let [view] = &snapshot.shards[..] else { panic!("{} shards", snapshot.shards.len()) };
    let bytes = view.shard.bytes;
    assert!(bytes > 9 << 20, "a shard of {bytes} bytes is put in one part");
    let reads = || store.reads(&format!("tables/{}", view.shard.path));
    let before = reads();
    let location = Location::from(view.shard.path.as_str());
    let reader = storage.object_store();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    // The footer, then forty column chunks with gaps between them.
    let end = bytes - 65_536..bytes;
    let footer = runtime.block_on(reader.get_ranges(&location, std::slice::from_ref(&end))).unwrap();
    assert_eq!((footer[0].len(), reads() - before), (65_536, 1));
    let ranges: Vec<_> = (0..40).map(|n| n * (bytes / 40)..n * (bytes / 40) + 100_000).collect();
    let read = runtime.block_on(reader.get_ranges(&location, &ranges)).unwrap();
    assert!(read.iter().all(|bytes| bytes.len() == 100_000));
    assert!(reads() - before <= 6, "{} requests", reads() - before);
}

#[test]
fn damage_in_a_store_is_named_and_repaired() {
    let store = FaultStore::new();
    let (mut world, sim) = world(&store);
    let storage = world.open();
    put(&storage, 1, 1.0);
    put(&storage, DAY + 1, 1.0);
    storage.refresh(&table()).unwrap();
    drop(storage);
    let shards: Vec<_> = store.locations().into_iter().filter(|l| is_shard(&Location::from(l.as_str()))).collect();
    let [damaged, _] = &shards[..] else { panic!("{shards:?}") };
    let mut bytes = store.read(damaged);
    bytes[20] ^= 1;
    store.plant(damaged, bytes.clone());
    let disk: SharedDisk = Arc::new(sim.clone());
    let disks = || Disks { data: Arc::clone(&disk), tables: Some(store.tables()) };
    let report = check(disks(), &CheckOptions::new("/data".into()), &mut |_| {}).unwrap();
    let found: Vec<_> = report.findings.iter().filter(|finding| finding.severity == Severity::Damage).collect();
    assert_eq!(found.len(), 1, "{:?}", report.findings);
    let path = format!("s3://bucket/{damaged}");
    assert_eq!(found[0].file, PathBuf::from(&path));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let options = RepairOptions { data: "/data".into(), tables: Vec::new(), act: Act::Do };
    let repaired = repair(disks(), &clock, &options, &mut |_| {}).unwrap();
    assert_eq!(repaired.left, []);
    let aside = PathBuf::from("/data/damaged").join(damaged);
    assert_eq!(wal::disk::read_file(&*disk, &aside).unwrap(), bytes);
    assert!(!store.locations().contains(damaged));
    assert_eq!(count(&world.reopen()), 1);
    let other: SharedDisk = Arc::new(SimDisk::new());
    let theirs = Disks { data: other, tables: Some(store.tables()) };
    assert!(matches!(repair(theirs, &clock, &options, &mut |_| {}), Err(StorageError::Owned { .. })));
}

#[test]
fn tables_in_another_folder_are_one_servers_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let local: SharedDisk = Arc::new(wal::disk::LocalDisk::new());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let elsewhere = folder.path().join("with a blank/tables");
    let url = url::Url::from_directory_path(&elsewhere).unwrap();
    let tables = Tables::at(url.as_str(), &local, &clock).unwrap();
    let world = |name: &str, seed| {
        let mut world = World::on(Arc::clone(&local), folder.path().join(name)).with_seed(seed);
        world.tables = Some(tables.clone());
        world
    };
    tables.try_out(&SplitMix64::new(1)).unwrap();
    let mut first = world("first", 1);
    let storage = first.open();
    put(&storage, 1, 1.0);
    storage.refresh(&table()).unwrap();
    assert_eq!(crate::world::files(&elsewhere, ".parquet").len(), 1);
    assert!(matches!(world("second", 50).try_open(), Err(StorageError::Owned { .. })));
    drop(storage);
    assert_eq!(count(&first.reopen()), 1);
    for (wrong, why) in [("ftp://x/y", "there is no ftp://"), ("tables", "relative URL"), ("s3:///x", "no bucket")] {
        let error = Tables::at(wrong, &local, &clock).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains("[storage] tables"), "{wrong}: {error}");
    }
}

#[test]
fn a_new_table_whose_first_commit_was_in_doubt_is_there_at_the_next_try() {
    for fault in [Fault::AnswerLost, Fault::Late] {
        for delivered in [false, true] {
            let store = FaultStore::new();
            let (mut world, _) = world(&store);
            let storage = world.open();
            store.fail_and_leave(fault, is_commit);
            let one = crate::world::batch("t", &[("a", 1, &[("x", Value::F64(1.0))])]);
            let label = format!("{fault:?}, delivered: {delivered}");
            let refused = storage.write(vec![one.clone()], "test").unwrap_err();
            assert!(matches!(refused, StorageError::Busy { .. }), "{label}: {refused}");
            store.come_back();
            if delivered {
                store.deliver(is_commit);
            }
            storage.write(vec![one], "test").unwrap_or_else(|e| panic!("{label}: {e}")).wait().unwrap();
            assert_eq!(store.deliver(is_commit), 0, "{label}");
            storage.refresh(&table()).unwrap();
            drop(storage);
            assert_eq!(count(&world.reopen()), 1, "{label}");
        }
    }
}

#[test]
fn a_shard_that_came_damaged_is_asked_for_again() {
    let store = FaultStore::new();
    let (mut world, _) = world(&store);
    let storage = world.open();
    put(&storage, 1, 1.0);
    storage.refresh(&table()).unwrap();
    drop(storage);
    let location = format!("tables/{}", shard_path(&store));
    let whole = store.read(&location);
    let mut damaged = whole.clone();
    damaged[20] ^= 1;
    store.plant(&location, damaged);
    world.tables = Some(store.tables());
    let storage = world.reopen();
    let snapshot = storage.snapshot(&table()).unwrap().unwrap();
    let failed = try_read_snapshot(&storage, &snapshot).unwrap_err();
    assert!(failed.contains("checksum"), "{failed}");
    store.plant(&location, whole);
    assert_eq!(try_read_snapshot(&storage, &snapshot).unwrap().len(), 1);
}
