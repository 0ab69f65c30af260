//! Options, retention, DROP, vacuum and the cleaning of Delta logs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use faults::{FaultDisk, SimDisk};
use model::{FieldType, SeriesKey, TableBatch, TableName, Value};
use storage::{Storage, StorageError, TableOptions};
use wal::disk::{Disk, SharedDisk};

use crate::compact::seen_by_deltalake;
use crate::world::{Reading, START_US, World, batch, files, read, read_snapshot, write};

const DAY: i64 = 86_400_000_000;
const DAYS: fn(u64) -> Duration = |days| Duration::from_secs(days * 86_400);
const HOUR: Duration = Duration::from_secs(3600);

fn table() -> TableName {
    TableName::public("t")
}

fn keep(days: u64) -> TableOptions {
    TableOptions { retention: Some(DAYS(days)) }
}

/// Writes `x` of series `a` at noon of `day`.
fn write_day(storage: &Storage, day: i64) {
    write(storage, "t", &[("a", day * DAY + DAY / 2, &[("x", Value::F64(day as f64))])]);
}

/// The days of which there are rows.
fn days(storage: &Storage) -> Vec<i64> {
    read(storage, "t").into_keys().map(|(_, time)| time.div_euclid(DAY)).collect()
}

/// What the server says to a row at noon of `day`.
fn refused(storage: &Storage, day: i64) -> Option<String> {
    let fields = [("x", Value::F64(0.0))];
    let readings: &[Reading<'_>] = &[("a", day * DAY + DAY / 2, &fields)];
    let pending = storage.write(vec![batch("t", readings)], "test").unwrap();
    let reason = pending.rejected.first().map(|row| row.reason.clone());
    pending.wait().unwrap();
    reason
}

#[test]
fn days_older_than_the_retention_go_with_their_rows_in_memory_and_do_not_come_back() {
    let (mut world, clock) = World::local().with_test_clock(10 * DAY + DAY / 2);
    let storage = world.open();
    for day in 1..=10 {
        write_day(&storage, day);
    }
    storage.refresh(&table()).unwrap();
    // In memory and in the log only, beside a row that stays.
    write(&storage, "t", &[("b", 3 * DAY, &[("x", Value::F64(3.0))]), ("b", 9 * DAY, &[("x", Value::F64(9.0))])]);
    storage.clean();
    assert_eq!(read(&storage, "t").len(), 12, "for ever is the default");
    storage.set_options(&table(), keep(5)).unwrap();
    assert!(refused(&storage, 4).unwrap().contains("retention"));
    assert_eq!(refused(&storage, 5), None, "noon of the fifth is five days ago, and its day is not over");
    storage.clean();
    assert_eq!(days(&storage), [5, 6, 7, 8, 9, 10, 9]);
    assert_eq!(storage.stats().rows_expired_total, 5);
    let left = seen_by_deltalake(&world.table_dir("t"));
    drop(storage);
    // Neither a restart nor a clock that is set back brings a row back.
    clock.jump(-300 * DAY);
    let storage = world.reopen();
    assert_eq!(days(&storage), [5, 6, 7, 8, 9, 10, 9]);
    assert_eq!(seen_by_deltalake(&world.table_dir("t")), left);
    // Files go after the time of grace, and their folders with them.
    let folders = |name: &str| world.table_dir("t").join(name).exists();
    storage.clean();
    assert!(folders("eden_day=2026-06-03"));
    clock.pass(HOUR);
    storage.clean();
    assert!(!folders("eden_day=2026-06-03") && folders("eden_day=2026-06-06"));
    assert_eq!(days(&storage), [5, 6, 7, 8, 9, 10, 9]);
}

#[test]
fn rows_that_come_in_while_their_day_goes_are_dropped_at_the_flush() {
    let (mut world, clock) = World::local().with_test_clock(DAY);
    let storage = world.open();
    write_day(&storage, 0);
    storage.set_options(&table(), keep(5)).unwrap();
    clock.pass(DAYS(6));
    write_day(&storage, 6);
    storage.refresh(&table()).unwrap();
    assert_eq!(days(&storage), [6], "the flush has dropped the other");
    drop(storage);
    assert_eq!(days(&world.reopen()), [6]);
}

#[test]
fn a_clock_that_jumps_ahead_does_not_delete_everything() {
    let (world, clock) = World::local().with_test_clock(30 * DAY);
    let storage = world.open();
    for day in [10, 22, 23, 24, 29] {
        write_day(&storage, day);
    }
    storage.refresh(&table()).unwrap();
    storage.set_options(&table(), keep(10)).unwrap();
    clock.jump(3650 * DAY);
    storage.clean();
    // Seven days after the newest reading, noon of the 29th, the 26th is the first that is ten days old at most.
    assert_eq!(days(&storage), [29]);
    storage.set_options(&table(), keep(13)).unwrap();
    assert_eq!(refused(&storage, 22), Some(refused(&storage, 22).unwrap()));
    assert_eq!(refused(&storage, 23), None);
    clock.jump(-3650 * DAY);
    assert_eq!(refused(&storage, 22), None);
}

#[test]
fn options_are_kept_through_new_columns_and_restarts_and_stand_above_the_default() {
    let (mut world, clock) = World::local().with_test_clock(DAY);
    world.config.retention_default = Some(DAYS(3));
    let storage = world.open();
    let other = TableName::public("other");
    for name in ["t", "other"] {
        write(&storage, name, &[("a", 0, &[("x", Value::F64(0.0))])]);
    }
    storage.set_options(&table(), TableOptions { retention: Some(Duration::MAX) }).unwrap();
    write(&storage, "t", &[("a", 1, &[("new", Value::F64(0.0))])]);
    drop(storage);
    let storage = world.reopen();
    assert_eq!(storage.options(&table()).unwrap().retention, Some(Duration::MAX));
    assert_eq!(storage.options(&other), Some(TableOptions::default()));
    clock.pass(DAYS(10));
    write(&storage, "t", &[("a", 11 * DAY, &[("x", Value::F64(0.0))])]);
    write(&storage, "other", &[("a", 11 * DAY, &[("x", Value::F64(0.0))])]);
    storage.clean();
    assert_eq!(read(&storage, "t").len(), 3);
    assert_eq!(read(&storage, "other").len(), 1, "{other} has the default");
    storage.set_options(&table(), TableOptions::default()).unwrap();
    storage.clean();
    assert_eq!(read(&storage, "t").len(), 1);
    let old: &[Reading<'_>] = &[("a", 0, &[("x", Value::F64(0.0))])];
    let pending = storage.write(vec![batch("new", old)], "test").unwrap();
    assert_eq!((pending.rejected.len(), storage.table(&TableName::public("new")).is_none()), (1, true));
    pending.wait().unwrap();
    let invalid =
        |name: &TableName, options| matches!(storage.set_options(name, options), Err(StorageError::Invalid(_)));
    assert!(invalid(&table(), TableOptions { retention: Some(Duration::ZERO) }));
    assert!(invalid(&TableName::public("no"), keep(1)));
    assert!(invalid(&TableName::new("system", "agents"), keep(1)));
}

#[test]
fn a_dropped_table_is_gone_for_everybody_and_its_name_is_free() {
    let (mut world, clock) = World::local().with_test_clock(DAY);
    let storage = world.open();
    assert!(!storage.drop_table(&table()).unwrap());
    write(&storage, "t", &[("a", 1, &[("x", Value::F64(1.0))])]);
    storage.refresh(&table()).unwrap();
    // These are in the log only.
    write(&storage, "t", &[("a", 2, &[("x", Value::F64(2.0))])]);
    let snapshot = storage.snapshot(&table()).unwrap().unwrap();
    assert!(storage.drop_table(&table()).unwrap());
    assert!(!storage.drop_table(&table()).unwrap());
    assert!(storage.table(&table()).is_none() && storage.snapshot(&table()).unwrap().is_none());
    assert!(matches!(storage.refresh(&table()), Err(StorageError::Invalid(_))));
    assert_eq!(storage.stats().memory_rows, 0);
    assert_eq!(read_snapshot(&storage, &snapshot).len(), 2, "a query that began before ends well");
    let old = world.table_dir("t");
    assert_eq!(seen_by_deltalake(&old).len(), 0);
    // A column may now be what it was not.
    write(&storage, "t", &[("a", 3, &[("x", Value::Text("new"))])]);
    let new = |world: &World| {
        let schema = world.config.data.join("tables/public");
        let folders = std::fs::read_dir(schema).unwrap().map(|entry| entry.unwrap().path());
        folders.filter(|path| path.to_string_lossy().contains("/t!!")).collect::<Vec<_>>()
    };
    assert_eq!(new(&world).len(), 1);
    assert_eq!(seen_by_deltalake(&new(&world)[0]).len(), 0);
    drop(storage);
    let storage = world.reopen();
    let only_new = |storage: &Storage| {
        let rows = read(storage, "t");
        let [((_, time), fields)] = &rows.into_iter().collect::<Vec<_>>()[..] else { panic!("not one row") };
        assert_eq!((*time, &*fields["x"]), (3, "new"));
    };
    only_new(&storage);
    storage.refresh(&table()).unwrap();
    assert_eq!(seen_by_deltalake(&new(&world)[0]).len(), 1);
    // The data go after the time of grace; the log stays while rows of the table may be in ours.
    storage.clean();
    assert_eq!(files(&old, ".parquet").len(), 1);
    clock.pass(HOUR);
    storage.clean();
    assert_eq!(files(&old, ".parquet").len(), 0);
    assert!(old.join("_delta_log").exists());
    only_new(&storage);
    // Dropped again while the first folder is there, and made again.
    assert!(storage.drop_table(&table()).unwrap());
    write(&storage, "t", &[("a", 3, &[("x", Value::Text("new"))])]);
    assert_eq!(new(&world).len(), 2);
    drop(storage);
    let storage = world.reopen();
    only_new(&storage);
    // Once the log has moved on, folders go altogether.
    let long = "x".repeat(50_000);
    for n in 0..20 {
        write(&storage, "other", &[("a", n, &[("x", Value::Text(&long))])]);
    }
    for name in ["t", "other"] {
        storage.refresh(&TableName::public(name)).unwrap();
    }
    clock.pass(HOUR);
    storage.clean();
    storage.clean();
    assert!(!old.exists());
    assert_eq!(new(&world).len(), 1);
    only_new(&storage);
    drop(storage);
    only_new(&world.reopen());
    assert_eq!(files(&world.config.data.join("tables/public"), ".dropped").len(), 0);
}

#[test]
fn the_servers_own_tables_are_not_dropped() {
    let storage = World::local().open();
    for name in ["agents", "rejected", "data_loss"] {
        let dropped = storage.drop_table(&TableName::new("system", name));
        assert!(matches!(dropped, Err(StorageError::Invalid(_))), "{dropped:?}");
    }
}

#[test]
fn a_write_that_is_under_way_while_its_table_is_dropped_is_answered_and_gone() {
    let sim = SimDisk::new();
    let (faulty, faults) = FaultDisk::new(Arc::new(sim));
    let disk: SharedDisk = Arc::new(faulty);
    let mut world = World::on(disk, "/data".into());
    let storage = world.open();
    write(&storage, "t", &[("a", 1, &[("x", Value::F64(1.0))])]);
    faults.hold_syncs_of(|path| path.extension().is_some_and(|extension| extension == "wal"));
    let pending = storage.write(vec![batch("t", &[("a", 2, &[("x", Value::F64(2.0))])])], "test").unwrap();
    faults.wait_for_held_sync();
    assert!(storage.drop_table(&table()).unwrap());
    faults.release_syncs();
    pending.wait().unwrap();
    assert!(storage.table(&table()).is_none());
    assert_eq!(storage.stats().memory_bytes, 0);
    drop(storage);
    let storage = world.reopen();
    assert!(storage.table(&table()).is_none());
    write(&storage, "t", &[("a", 3, &[("x", Value::F64(3.0))])]);
    assert_eq!(read(&storage, "t").len(), 1);
}

#[test]
fn of_two_folders_that_are_one_table_neither_is_used() {
    let world = World::local();
    let storage = world.open();
    write(&storage, "t", &[("a", 1, &[("x", Value::F64(1.0))])]);
    drop(storage);
    let copy = world.config.data.join("tables/public/t!!01234567/_delta_log");
    std::fs::create_dir_all(&copy).unwrap();
    for commit in files(&world.table_dir("t").join("_delta_log"), ".json") {
        std::fs::copy(&commit, copy.join(commit.file_name().unwrap())).unwrap();
    }
    let storage = world.with_seed(9).open();
    let asked = storage.snapshot(&table());
    let Err(e @ StorageError::Corrupt { .. }) = asked else { panic!("{asked:?}") };
    assert!(e.to_string().contains("t!!01234567") && e.to_string().contains("public/t "), "{e}");
}

#[test]
fn what_no_version_names_is_deleted_after_the_time_of_grace_and_nothing_else() {
    let (mut world, clock) = World::local().with_test_clock(DAY);
    let storage = world.open();
    for n in 0..3 {
        write(&storage, "t", &[("a", n, &[("x", Value::F64(1.0))])]);
        storage.refresh(&table()).unwrap();
    }
    let day = world.table_dir("t").join("eden_day=2026-06-01");
    let log = world.table_dir("t").join("_delta_log");
    storage.compact(&table()).unwrap();
    let kept = files(&day, ".parquet").len();
    assert_eq!(kept, 4);
    storage.clean();
    clock.pass(HOUR - Duration::from_secs(1));
    storage.clean();
    assert_eq!(files(&day, ".parquet").len(), 4, "a query may still read them");
    clock.pass(Duration::from_secs(1));
    storage.clean();
    assert_eq!(files(&day, ".parquet").len(), 1);
    drop(storage);
    // Leftovers of a crash, and something that somebody has put there.
    let orphan = day.join("00000000-0000-4000-8000-000000000000.parquet");
    let theirs = day.join("README");
    let temporary = log.join(".00000000000000000009.json.tmp");
    let empty = world.table_dir("t").join("eden_day=2026-01-01");
    std::fs::create_dir(&empty).unwrap();
    for path in [&orphan, &theirs, &temporary] {
        std::fs::write(path, b"left over").unwrap();
    }
    let storage = world.reopen();
    storage.clean();
    assert!(!temporary.exists() && !empty.exists() && theirs.exists());
    // By its own time it was made in the future: it is as old as it was seen.
    assert!(orphan.exists());
    clock.pass(HOUR);
    storage.clean();
    assert!(!orphan.exists() && theirs.exists());
    assert_eq!(read(&storage, "t").len(), 3);
    assert_eq!(files(&day, ".parquet").len(), 1);
}

/// Vacuum looks for leftovers when a flush that is under way lets it: what that flush removed is none.
#[test]
fn what_a_flush_removes_while_leftovers_are_looked_for_stays_for_queries() {
    let (faulty, faults) = FaultDisk::new(Arc::new(SimDisk::new()));
    let storage = World::on(Arc::new(faulty), "/data".into()).open();
    write(&storage, "t", &[("a", 1, &[("x", Value::F64(1.0))])]);
    storage.refresh(&table()).unwrap();
    let snapshot = storage.snapshot(&table()).unwrap().unwrap();
    write(&storage, "t", &[("a", 1, &[("x", Value::F64(2.0))])]);
    faults.hold_syncs_of(|path| path.extension().is_some_and(|extension| extension == "parquet"));
    std::thread::scope(|scope| {
        let flush = scope.spawn(|| storage.refresh(&table()));
        faults.wait_for_held_sync();
        let clean = scope.spawn(|| storage.clean());
        // Nothing shows that it waits for the flush; if it does not yet, there is less to see.
        let (_never, wait) = std::sync::mpsc::channel::<()>();
        let _ = wait.recv_timeout(Duration::from_millis(200));
        faults.release_syncs();
        flush.join().unwrap().unwrap();
        clean.join().unwrap();
    });
    assert_eq!(read_snapshot(&storage, &snapshot).len(), 1);
    assert_eq!(read(&storage, "t").len(), 1);
}

#[test]
fn a_file_that_an_earlier_life_removed_is_kept_for_the_time_since_then() {
    let (mut world, clock) = World::local().with_test_clock(DAY);
    let storage = world.open();
    for n in 0..2 {
        write(&storage, "t", &[("a", n, &[("x", Value::F64(1.0))])]);
        storage.refresh(&table()).unwrap();
    }
    storage.compact(&table()).unwrap();
    drop(storage);
    let data = |world: &World| files(&world.table_dir("t"), ".parquet").len();
    clock.pass(HOUR / 2);
    let storage = world.reopen();
    storage.clean();
    assert_eq!(data(&world), 3);
    clock.jump((HOUR / 2).as_micros() as i64);
    storage.clean();
    assert_eq!(data(&world), 1, "half an hour of an earlier life counts");
    assert_eq!(read(&storage, "t").len(), 2);
}

/// A table with more than `commits` versions.
fn many_commits(storage: &Storage, commits: i64) {
    for n in 0..commits {
        write(storage, "t", &[("a", n, &[("x", Value::F64(n as f64))])]);
        storage.refresh(&table()).unwrap();
        // As the background would.
        if n % 10 == 0 {
            storage.clean();
        }
    }
    storage.clean();
}

#[test]
fn commits_before_the_last_but_one_checkpoint_go_and_a_damaged_checkpoint_is_survived() {
    let (mut world, clock) = World::local().with_test_clock(DAY);
    let storage = world.open();
    many_commits(&storage, 210);
    let log = world.table_dir("t").join("_delta_log");
    let names = |suffix: &str| -> Vec<String> {
        files(&log, suffix).iter().map(|path| path.file_name().unwrap().to_string_lossy()[17..20].to_owned()).collect()
    };
    assert!(names(".json").contains(&"000".into()), "the time of grace is not over");
    clock.pass(HOUR);
    storage.clean();
    let checkpoints = names(".checkpoint.parquet");
    let [previous, newest] = &checkpoints[..] else { panic!("{checkpoints:?}") };
    assert_eq!(names(".json").first(), Some(previous));
    let rows = read(&storage, "t");
    assert_eq!(rows.len(), 210);
    let seen = seen_by_deltalake(&world.table_dir("t"));
    drop(storage);
    let storage = world.reopen();
    assert_eq!(read(&storage, "t"), rows);
    drop(storage);
    let newest = log.join(format!("{newest:0>20}.checkpoint.parquet"));
    let good = std::fs::read(&newest).unwrap();
    for bytes in [&b""[..], &good[..good.len() / 2], &[&good[..40], &[0xA5; 400], &good[440..]].concat()] {
        std::fs::write(&newest, bytes).unwrap();
        let storage = world.reopen();
        assert_eq!(read(&storage, "t"), rows, "{} bytes are left of the checkpoint", bytes.len());
    }
    std::fs::write(&newest, &good).unwrap();
    assert_eq!(seen_by_deltalake(&world.table_dir("t")), seen);
}

#[test]
fn commits_stay_while_a_checkpoint_does_not_read_back() {
    let (world, clock) = World::local().with_test_clock(DAY);
    let storage = world.open();
    many_commits(&storage, 140);
    let log = world.table_dir("t").join("_delta_log");
    let checkpoints = files(&log, ".checkpoint.parquet");
    assert_eq!(checkpoints.len(), 2);
    std::fs::write(&checkpoints[0], b"no checkpoint").unwrap();
    clock.pass(HOUR);
    storage.clean();
    assert!(log.join("00000000000000000000.json").exists());
    assert_eq!(read(&storage, "t").len(), 140);
}

#[test]
fn a_commit_that_may_stand_keeps_all_files() {
    let sim = SimDisk::new();
    let (faulty, faults) = FaultDisk::new(Arc::new(sim.clone()));
    let disk: SharedDisk = Arc::new(faulty);
    let mut world = World::on(disk, "/data".into());
    world.config.vacuum_grace = Duration::ZERO;
    let storage = world.open();
    for n in 0..2 {
        write(&storage, "t", &[("a", n, &[("x", Value::F64(1.0))])]);
        storage.refresh(&table()).unwrap();
    }
    faults.fail(faults::Operation::SyncDir, 1, |path| path.ends_with("_delta_log"));
    assert!(storage.compact(&table()).is_err());
    storage.clean();
    let day = Path::new("/data/tables/public/t/eden_day=2026-06-01");
    assert_eq!(sim.list(day).unwrap().len(), 3);
    assert_eq!(read(&storage, "t").len(), 2);
    drop(storage);
    let storage = world.reopen();
    assert_eq!(read(&storage, "t").len(), 2);
    storage.clean();
    assert_eq!(sim.list(day).unwrap().len(), 1, "it stands");
}

#[test]
fn tables_without_tags_are_compacted_too() {
    let world = World::local();
    let storage = world.open();
    for n in 0..4 {
        let mut one = TableBatch::new(table());
        let x = one.field_column("x", FieldType::F64);
        let series = one.intern_series(SeriesKey::from_tags::<&str, &str>([]));
        one.push_row(series, START_US + (n * 7) % 4, 1, &[(x, Value::F64(n as f64))]);
        storage.write(vec![one], "test").unwrap().wait().unwrap();
        storage.refresh(&table()).unwrap();
    }
    let before = read(&storage, "t");
    storage.compact(&table()).unwrap();
    assert_eq!((read(&storage, "t"), storage.table(&table()).unwrap().shards), (before, 1));
}
