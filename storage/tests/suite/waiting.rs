//! Rows that wait for a shard to be rewritten; and what removals do, one by one.

use std::sync::Arc;
use std::time::Duration;

use faults::{FaultDisk, Operation, SimDisk};
use model::{Removal, SeriesKey, TableName, Value};
use storage::{Settling, Storage, StorageError};
use wal::disk::SharedDisk;

use crate::power::read_as_others;
use crate::world::{Reading, START_US, World, files, read, write};

const F: fn(f64) -> Value<'static> = Value::F64;
const DAY_US: i64 = 86_400_000_000;

fn table() -> TableName {
    TableName::public("t")
}

fn waiting(storage: &Storage) -> u64 {
    storage.table(&table()).unwrap().waiting_rows
}

fn within_budget(storage: &Storage) {
    storage.flush(&table(), Settling::WithinBudget).unwrap();
}

/// Rows as `series@time: field=value …`, one a line.
fn show(storage: &Storage) -> String {
    let rows = read(storage, "t");
    let row = |((series, time), fields): (&(String, i64), &std::collections::BTreeMap<String, String>)| {
        let fields: String = fields.iter().map(|(name, value)| format!(" {name}={value}")).collect();
        format!("{series}@{time}:{fields}\n")
    };
    rows.iter().map(row).collect()
}

/// Removes rows, or fields of rows, of the series `a`.
fn remove(storage: &Storage, times: &[i64], fields: &[&str]) {
    let key = SeriesKey::from_tags([("s", "a")]);
    let rows = times.iter().map(|time| (&key, START_US + time));
    let fields = (!fields.is_empty()).then(|| fields.iter().map(|field| (*field).into()).collect());
    let pending = storage.remove(Removal { fields, ..Removal::of_rows(table(), rows) }, "test").unwrap();
    assert_eq!(pending.accepted, times.len());
    pending.wait().unwrap();
}

/// Forty shards of 50 rows each.
fn forty_shards(storage: &Storage) {
    for shard in 0..40 {
        let fields = [("x", F(1.0))];
        let readings: Vec<Reading<'_>> = (0..50).map(|n| ("a", shard * 100 + n, &fields[..])).collect();
        write(storage, "t", &readings);
        storage.refresh(&table()).unwrap();
    }
}

/// A correction in each of the forty.
fn burst(storage: &Storage, value: f64) {
    let fields = [("x", F(value))];
    let readings: Vec<Reading<'_>> = (0..40).map(|shard| ("a", shard * 100 + 7, &fields[..])).collect();
    write(storage, "t", &readings);
}

fn corrected(storage: &Storage, value: f64) -> usize {
    read(storage, "t").values().filter(|fields| fields["x"] == value.to_string()).count()
}

#[test]
fn a_burst_of_corrections_waits_is_seen_survives_a_restart_and_is_settled_when_all_is_quiet() {
    let (faulty, faults) = FaultDisk::new(Arc::new(SimDisk::new()));
    let disk: SharedDisk = Arc::new(faulty);
    let (mut world, clock) = World::on(disk, "/data".into()).with_test_clock(DAY_US);
    let storage = world.open();
    forty_shards(&storage);
    let rewritten = storage.stats().shards_rewritten_total;
    burst(&storage, 2.0);
    write(&storage, "t", &[("new", 1, &[("x", F(5.0))])]);
    within_budget(&storage);
    // Forty flushes saved up for about half of the forty shards, and all of these are alike.
    let waits = waiting(&storage);
    assert!((10..40).contains(&waits), "{waits} wait");
    assert_eq!(storage.stats().shards_rewritten_total - rewritten, 40 - waits);
    assert_eq!(corrected(&storage, 2.0), 40, "all are seen");
    let foreign = read_as_others(&storage, &table());
    assert_eq!(foreign.len(), 2001, "the new row is flushed, and what waits has not left the shards");
    assert_eq!(foreign.values().filter(|fields| fields["x"] == "2").count() as u64, 40 - waits);
    assert!(storage.stats().waiting_rows == waits);
    // A row that waits is corrected again, and another one is removed.
    write(&storage, "t", &[("a", 3907, &[("x", F(3.0))]), ("a", 3807, &[("y", F(4.0))])]);
    remove(&storage, &[3707], &[]);
    let expected = read(&storage, "t");
    within_budget(&storage);
    assert!(waiting(&storage) > 0);
    assert_eq!(read(&storage, "t"), expected);
    drop(storage);
    // The log has held what waits.
    let storage = world.reopen();
    assert_eq!(read(&storage, "t"), expected);
    within_budget(&storage);
    assert!(waiting(&storage) > 0, "a new life has no credit");
    // Nobody writes any more: the flusher commits by itself.
    faults.hold_syncs_of(|path| path.to_string_lossy().contains("_delta_log"));
    clock.pass(Duration::from_secs(3));
    faults.wait_for_held_sync();
    faults.release_syncs();
    // Waits for it to be done, and finds nothing to flush.
    within_budget(&storage);
    assert_eq!(waiting(&storage), 0);
    assert_eq!(read_as_others(&storage, &table()), expected);
    drop(storage);
    let storage = world.reopen();
    assert_eq!(storage.table(&table()).unwrap().memory_rows, 0, "the watermark has moved on");
    assert_eq!(read(&storage, "t"), expected);
}

#[test]
fn rows_that_wait_do_so_in_the_log_and_nothing_else_does() {
    let (mut world, _clock) = World::local().with_test_clock(DAY_US);
    let storage = world.open();
    forty_shards(&storage);
    burst(&storage, 2.0);
    within_budget(&storage);
    let first = waiting(&storage);
    assert!(first > 0);
    for n in 0..20 {
        write(&storage, "t", &[("new", n, &[("x", F(5.0))])]);
        storage.flush(&table(), Settling::WithinBudget).unwrap();
    }
    let waits = waiting(&storage);
    assert!(0 < waits && waits < first, "new shards earn what rewrites cost: {first}, then {waits}");
    assert_eq!(storage.table(&table()).unwrap().memory_rows, waits);
    drop(storage);
    // Everything behind the oldest row that waits is applied again; what the shards hold already is dropped.
    let storage = world.reopen();
    assert!(storage.table(&table()).unwrap().memory_rows >= 40);
    assert_eq!((corrected(&storage, 2.0), read(&storage, "t").len()), (40, 2020));
    storage.refresh(&table()).unwrap();
    assert_eq!(read_as_others(&storage, &table()), read(&storage, "t"));
}

#[test]
fn too_many_rows_do_not_wait() {
    let (mut world, _clock) = World::local().with_test_clock(DAY_US);
    world.config.table_memory_bytes_max = 8 << 10;
    let storage = world.open();
    forty_shards(&storage);
    let fields = [("x", F(2.0))];
    let readings: Vec<Reading<'_>> =
        (0..40).flat_map(|shard| (0..40).map(move |n| shard * 100 + n)).map(|time| ("a", time, &fields[..])).collect();
    write(&storage, "t", &readings);
    within_budget(&storage);
    assert_eq!(waiting(&storage), 0);
    assert_eq!(corrected(&storage, 2.0), 1600);
}

/// While a flush is held, rows come that are written over those that will have to wait.
#[test]
fn rows_go_back_under_those_that_came_during_the_flush() {
    let (faulty, faults) = FaultDisk::new(Arc::new(SimDisk::new()));
    let disk: SharedDisk = Arc::new(faulty);
    let (mut world, _clock) = World::on(disk, "/data".into()).with_test_clock(DAY_US);
    let storage = world.open();
    forty_shards(&storage);
    burst(&storage, 2.0);
    write(&storage, "t", &[("new", 1, &[("x", F(5.0))])]);
    faults.hold_syncs_of(|path| path.extension().is_some_and(|extension| extension == "parquet"));
    let (a, b) = (3907, 3807);
    std::thread::scope(|scope| {
        let flush = scope.spawn(|| within_budget(&storage));
        faults.wait_for_held_sync();
        // One that is read while the two are sealed, and one that is not.
        write(&storage, "t", &[("a", a, &[("y", F(6.0))])]);
        assert_eq!(read(&storage, "t")[&("s=a".to_owned(), a)].len(), 2);
        write(&storage, "t", &[("a", b, &[("y", F(7.0))])]);
        remove(&storage, &[3707], &[]);
        // The same once more: hidden by the sealed row, until that one waits under it.
        write(&storage, "t", &[("a", 3607, &[("x", F(2.0))])]);
        remove(&storage, &[3507], &["x"]);
        read(&storage, "t");
        faults.release_syncs();
        flush.join().unwrap();
    });
    assert!(waiting(&storage) > 5, "{}", waiting(&storage));
    let check = |storage: &Storage| {
        let rows = read(storage, "t");
        let row = |time: i64| rows.get(&("s=a".to_owned(), time)).map(|row| format!("{row:?}"));
        assert_eq!(row(a).as_deref(), Some(r#"{"x": "2", "y": "6"}"#));
        assert_eq!(row(b).as_deref(), Some(r#"{"x": "2", "y": "7"}"#));
        assert_eq!(row(3707), None);
        assert_eq!(row(3607).as_deref(), Some(r#"{"x": "2"}"#));
        assert_eq!(row(3507).as_deref(), Some("{}"));
        assert_eq!(rows.len(), 2000);
        read_as_others(storage, &table());
    };
    check(&storage);
    within_budget(&storage);
    check(&storage);
    drop(storage);
    let storage = world.reopen();
    check(&storage);
    storage.refresh(&table()).unwrap();
    check(&storage);
    assert_eq!(waiting(&storage), 0);
}

#[test]
fn a_flush_of_many_days_that_fails_between_its_commits_forgets_nothing_that_waits() {
    for again in [false, true] {
        let (faulty, faults) = FaultDisk::new(Arc::new(SimDisk::new()));
        let disk: SharedDisk = Arc::new(faulty);
        let (mut world, _clock) = World::on(disk, "/data".into()).with_test_clock(DAY_US);
        let storage = world.open();
        let days: Vec<i64> = (0..130).map(|day| -day * DAY_US).collect();
        let new = [("x", F(-2.0))];
        let of = |days: &[i64], add: i64| -> Vec<Reading<'_>> {
            days.iter().map(|day| ("a", day + add, &new[..])).collect()
        };
        // Two hundred rows a day, so that a new shard of one row earns far less than what a rewrite costs.
        let values: Vec<[(&str, Value<'_>); 1]> = (0..200).map(|n| [("x", F(f64::from(n) * 1.1))]).collect();
        let of_day = |day: i64| (0..).zip(&values).map(move |(n, x)| ("a", day + 10 * n, &x[..]));
        write(&storage, "t", &days.iter().flat_map(|day| of_day(*day)).collect::<Vec<Reading<'_>>>());
        storage.refresh(&table()).unwrap();
        // A new row in each day and a correction in each of the oldest hundred, which are the first commit: it has a
        // hundred new shards and some sixty rewritten ones.
        write(&storage, "t", &of(&days[30..], 0));
        write(&storage, "t", &of(&days, 5));
        faults.fail(Operation::Create, 180, |path| path.extension().is_some_and(|e| e == "parquet"));
        let failed = storage.flush(&table(), Settling::WithinBudget).unwrap_err();
        let expected = read(&storage, "t");
        assert_eq!(expected.values().filter(|fields| fields["x"] == "-2").count(), 230, "{failed:?}");
        assert!(waiting(&storage) > 0, "{failed:?}");
        if again {
            // The other thirty days are committed, and no more.
            faults.fail(Operation::Rename, 2, |path| path.to_string_lossy().contains("_delta_log"));
            let _ = storage.flush(&table(), Settling::WithinBudget);
            assert!(waiting(&storage) > 0, "{failed:?}");
        }
        drop(storage);
        let storage = world.reopen();
        assert!(read(&storage, "t") == expected, "{failed:?}");
        let _ = storage.refresh(&table());
        storage.refresh(&table()).unwrap();
        assert!(read_as_others(&storage, &table()) == expected);
    }
}

/// Where the flushes are: before the removal, behind it, and behind what comes after.
fn at_every_flush(check: impl Fn(&mut World, &dyn Fn(&Storage, usize))) {
    for flushes in 0..27_u32 {
        let (mut world, _clock) = World::local().with_test_clock(DAY_US);
        check(&mut world, &|storage, at| match flushes / 3_u32.pow(at as u32) % 3 {
            0 => {}
            1 => within_budget(storage),
            _ => storage.refresh(&table()).unwrap(),
        });
    }
}

#[test]
fn a_removed_row_is_gone_and_what_is_written_later_takes_nothing_from_it() {
    at_every_flush(|world, flush| {
        let storage = world.open();
        write(&storage, "t", &[("a", 1, &[("x", F(1.0)), ("y", F(2.0))]), ("a", 2, &[("x", F(3.0))])]);
        flush(&storage, 0);
        // The second time of 1, and 3, of which there is no row, change nothing.
        remove(&storage, &[1, 1, 3], &[]);
        assert_eq!(show(&storage), "s=a@2: x=3\n");
        flush(&storage, 1);
        assert_eq!(show(&storage), "s=a@2: x=3\n");
        write(&storage, "t", &[("a", 1, &[("y", F(4.0))])]);
        flush(&storage, 2);
        assert_eq!(show(&storage), "s=a@1: y=4\ns=a@2: x=3\n");
        drop(storage);
        let storage = world.reopen();
        assert_eq!(show(&storage), "s=a@1: y=4\ns=a@2: x=3\n");
        remove(&storage, &[1, 2], &[]);
        assert_eq!(show(&storage), "");
        storage.refresh(&table()).unwrap();
        assert_eq!(show(&storage), "");
        assert_eq!(storage.table(&table()).unwrap().shards, 0, "a shard without rows is none");
        drop(storage);
        assert_eq!(show(&world.reopen()), "");
    });
}

#[test]
fn a_removed_field_is_gone_and_its_row_stays_if_it_was_there() {
    at_every_flush(|world, flush| {
        let storage = world.open();
        write(&storage, "t", &[("a", 1, &[("x", F(1.0)), ("y", F(2.0))]), ("a", 2, &[("x", F(3.0))])]);
        flush(&storage, 0);
        remove(&storage, &[1, 2, 3], &["x"]);
        assert_eq!(show(&storage), "s=a@1: y=2\ns=a@2:\n");
        flush(&storage, 1);
        assert_eq!(show(&storage), "s=a@1: y=2\ns=a@2:\n");
        write(&storage, "t", &[("a", 2, &[("y", F(4.0))]), ("a", 1, &[("x", F(5.0))])]);
        remove(&storage, &[1], &["y"]);
        flush(&storage, 2);
        assert_eq!(show(&storage), "s=a@1: x=5\ns=a@2: y=4\n");
        drop(storage);
        let storage = world.reopen();
        storage.refresh(&table()).unwrap();
        assert_eq!(show(&storage), "s=a@1: x=5\ns=a@2: y=4\n");
        assert_eq!(read_as_others(&storage, &table()), read(&storage, "t"));
    });
}

#[test]
fn a_removal_that_cannot_be_is_refused_and_one_longer_than_a_record_goes_in_parts() {
    let mut world = World::local();
    let storage = world.open();
    let fields = [("x", F(1.0))];
    let readings: Vec<Reading<'_>> = (0..40_000).map(|n| ("a", n, &fields[..])).collect();
    write(&storage, "t", &readings);
    let key = SeriesKey::from_tags([("s", "a")]);
    let one = Removal::of_rows(table(), [(&key, START_US)]);
    let fields =
        |names: &[&str]| Removal { fields: Some(names.iter().map(|name| (*name).into()).collect()), ..one.clone() };
    let check = |removal: Removal, expected: &str| match storage.remove(removal, "test") {
        Err(StorageError::Invalid(message)) => assert!(message.contains(expected), "{message}"),
        other => panic!("{other:?}"),
    };
    check(Removal { table: TableName::public("u"), ..one.clone() }, "there is no table u");
    check(Removal { table: TableName::new("system", "agents"), ..one.clone() }, "written by the server only");
    check(fields(&["x", "nothing"]), "\"nothing\" is no field");
    check(fields(&["s"]), "identifies rows");
    check(fields(&["time"]), "identifies rows");
    check(fields(&[]), "no fields");
    check(Removal { series_of: vec![7], ..one.clone() }, "a series that is not there");
    // 12 bytes a row and segments of 256 KiB; a time that no row can have is left out.
    let times = (0..40_000).filter(|n| n % 100 != 0).map(|n| (&key, START_US + n)).chain([(&key, i64::MIN)]);
    let pending = storage.remove(Removal::of_rows(table(), times), "test").unwrap();
    assert_eq!(pending.accepted, 39_600);
    pending.wait().unwrap();
    assert_eq!(read(&storage, "t").len(), 400);
    storage.refresh(&table()).unwrap();
    assert_eq!(storage.table(&table()).unwrap().shard_rows, 400);
    assert_eq!(files(&world.table_dir("t"), ".parquet").len(), 1);
    drop(storage);
    assert_eq!(read(&world.reopen(), "t").len(), 400);
}
