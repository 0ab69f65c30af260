//! What is written is what is read: in memory, after a flush, after a restart; each key once.

use std::sync::Arc;
use std::time::Duration;

use model::{Rng, SplitMix64, TableName, Value};
use storage::{Storage, StorageError};

use crate::world::{Reading, Rows, START_US, World, batch, files, in_file_order, read, write};

const F: fn(f64) -> Value<'static> = Value::F64;
const DAY: i64 = 86_400_000_000;

fn refresh(storage: &Storage, table: &str) {
    storage.refresh(&TableName::public(table)).unwrap();
}

/// Rows as `series@time: field=value …`, one a line.
fn show(rows: &Rows) -> String {
    let row = |((series, time), fields): (&(String, i64), &std::collections::BTreeMap<String, String>)| {
        let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("{series}@{time}: {}\n", fields.join(" "))
    };
    rows.iter().map(row).collect()
}

#[test]
fn a_reading_is_there_in_memory_in_a_shard_and_after_a_restart() {
    let mut world = World::local();
    let storage = world.open();
    write(&storage, "t", &[("a", 1, &[("x", F(1.5)), ("n", Value::I64(-7)), ("ok", Value::Bool(true))])]);
    write(&storage, "t", &[("b", 2, &[("u", Value::U64(u64::MAX)), ("text", Value::Text("so \"it\" is"))])]);
    let expected = "s=a@1: n=-7 ok=true x=1.5\ns=b@2: text=so \"it\" is u=18446744073709551615\n";
    assert_eq!(show(&read(&storage, "t")), expected);
    drop(storage);
    let storage = world.reopen();
    assert_eq!(show(&read(&storage, "t")), expected, "replayed from the log");
    refresh(&storage, "t");
    assert_eq!(show(&read(&storage, "t")), expected, "flushed");
    assert_eq!(storage.table(&TableName::public("t")).unwrap().memory_rows, 0);
    storage.close(Duration::from_secs(10)).unwrap();
    drop(storage);
    let storage = world.reopen();
    assert_eq!(show(&read(&storage, "t")), expected, "read from the Delta log");
    assert_eq!(storage.table(&TableName::public("t")).unwrap().memory_rows, 0);
}

#[test]
fn two_writes_to_a_key_merge_field_by_field_wherever_they_meet() {
    // (refresh after the first write, refresh after the second)
    for (first, second) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut world = World::local();
        let storage = world.open();
        write(&storage, "t", &[("a", 1, &[("x", F(1.0)), ("y", F(2.0))]), ("a", 2, &[("x", F(3.0))])]);
        if first {
            refresh(&storage, "t");
        }
        write(&storage, "t", &[("a", 1, &[("y", F(9.0)), ("z", F(4.0))]), ("a", 2, &[("x", F(3.0))])]);
        if second {
            refresh(&storage, "t");
        }
        let expected = "s=a@1: x=1 y=9 z=4\ns=a@2: x=3\n";
        assert_eq!(show(&read(&storage, "t")), expected, "{first} {second}");
        drop(storage);
        let storage = world.reopen();
        assert_eq!(show(&read(&storage, "t")), expected, "{first} {second}, reopened");
    }
}

#[test]
fn a_retry_of_flushed_readings_writes_no_shard() {
    let world = World::local();
    let storage = world.open();
    let readings: &[Reading<'_>] = &[("a", 1, &[("x", F(1.0))]), ("b", 2, &[("x", F(2.0))])];
    write(&storage, "t", readings);
    refresh(&storage, "t");
    write(&storage, "t", readings);
    refresh(&storage, "t");
    assert_eq!(files(&world.table_dir("t"), ".parquet").len(), 1);
    assert_eq!(files(&world.table_dir("t").join("_delta_log"), ".json").len(), 3, "the watermark moved");
    assert_eq!(show(&read(&storage, "t")), "s=a@1: x=1\ns=b@2: x=2\n");
}

#[test]
fn a_correction_takes_the_place_of_the_row_it_corrects() {
    let world = World::local();
    let storage = world.open();
    write(&storage, "t", &[("a", 1, &[("x", F(1.0))]), ("a", 2, &[("x", F(2.0))]), ("a", 3, &[("x", F(3.0))])]);
    refresh(&storage, "t");
    write(&storage, "t", &[("a", 2, &[("x", F(20.0))])]);
    assert_eq!(show(&read(&storage, "t")), "s=a@1: x=1\ns=a@2: x=20\ns=a@3: x=3\n");
    refresh(&storage, "t");
    let info = storage.table(&TableName::public("t")).unwrap();
    assert_eq!((info.shards, info.shard_rows), (1, 3));
    assert_eq!(show(&read(&storage, "t")), "s=a@1: x=1\ns=a@2: x=20\ns=a@3: x=3\n");
}

#[test]
fn series_with_and_without_a_tag_are_apart_and_sorted_with_nulls_first() {
    let world = World::local();
    let storage = world.open();
    let mut one = model::TableBatch::new(TableName::public("t"));
    let x = one.field_column("x", model::FieldType::F64);
    for (i, tags) in [vec![("b", "1")], vec![("a", "1"), ("b", "1")], vec![], vec![("a", "0")]].into_iter().enumerate()
    {
        let series = one.intern_series(model::SeriesKey::from_tags(tags));
        one.push_row(series, START_US, 1, &[(x, F(i as f64))]);
    }
    storage.write(vec![one], "test").unwrap().wait().unwrap();
    // Tags stand in the order of the schema, which is that of their first appearance.
    let expected = "@0: x=2\na=0@0: x=3\nb=1@0: x=0\nb=1,a=1@0: x=1\n";
    assert_eq!(show(&read(&storage, "t")), expected);
    refresh(&storage, "t");
    assert_eq!(show(&read(&storage, "t")), expected);
    let order: Vec<String> = in_file_order(&storage, "t").into_iter().map(|(series, _)| series).collect();
    assert_eq!(order, ["", "a=0", "b=1", "b=1,a=1"]);
}

#[test]
fn days_are_partitions_and_a_flush_of_more_than_a_hundred_makes_two_commits() {
    let mut world = World::local();
    let storage = world.open();
    let days: Vec<i64> = (0..130).map(|day| -day * DAY).collect();
    let fields = [("x", F(1.0))];
    let readings: Vec<Reading<'_>> = days.iter().map(|t| ("a", *t, &fields[..])).collect();
    write(&storage, "t", &readings);
    refresh(&storage, "t");
    assert_eq!(read(&storage, "t").len(), 130);
    assert_eq!(storage.table(&TableName::public("t")).unwrap().shards, 130);
    assert_eq!(files(&world.table_dir("t").join("_delta_log"), ".json").len(), 3);
    drop(storage);
    assert_eq!(read(&world.reopen(), "t").len(), 130);
}

#[test]
fn rows_that_do_not_fit_are_refused_with_line_and_reason_and_the_others_stored() {
    let mut world = World::local();
    // Else the column would become one of floats.
    world.config.widen_bytes_max = 0;
    let storage = world.open();
    write(&storage, "t", &[("a", 1, &[("x", F(1.0)), ("n", Value::I64(1))])]);
    let check = |readings: &[Reading<'_>], line: u32, reason: &str| {
        let pending = storage.write(vec![batch("t", readings)], "test").unwrap();
        let [rejected] = &pending.rejected[..] else { panic!("{:?}", pending.rejected) };
        assert_eq!(rejected.line, line);
        assert!(rejected.reason.contains(reason), "{}", rejected.reason);
        pending.wait().unwrap();
    };
    check(&[("a", 2, &[("x", F(2.0))]), ("a", 3, &[("x", Value::Text("no"))])], 2, "is float");
    check(&[("a", 4, &[("n", F(2.5))])], 1, "is integer");
    check(&[("a", 4, &[("n", F(2.5))])], 1, r#"ALTER TABLE "t" ALTER COLUMN "n" TYPE DOUBLE"#);
    check(&[("a", 5, &[("X", F(2.5))])], 1, "only by case");
    check(&[("a", 6, &[("s", F(2.5))])], 1, "is a tag");
    check(&[("a", 400 * DAY * 365, &[("x", F(2.5))])], 1, "max_future");
    check(&[("a", i64::MIN + DAY * 100_000, &[("x", F(2.5))])], 1, "years 1678 to 2261");
    check(&[("a", 7, &[("n", Value::U64(u64::MAX))])], 1, "exactly");
    write(&storage, "t", &[("a", 8, &[("x", Value::I64(5)), ("n", Value::U64(6))])]);
    assert_eq!(show(&read(&storage, "t")), "s=a@1: n=1 x=1\ns=a@2: x=2\ns=a@8: n=6 x=5\n");
    let columns: Vec<String> =
        storage.table(&TableName::public("t")).unwrap().schema.columns().iter().map(|c| c.name.to_string()).collect();
    assert_eq!(columns, ["s", "x", "n", "time"], "refused rows made no column");
    // A line that is refused anyway is not in the way of a good one, whichever comes first.
    let (bad, good) = (("a", 20, &[("Y", F(1.0)), ("s", F(1.0))][..]), ("a", 21, &[("y", F(2.0))][..]));
    for (readings, refused) in [([bad, good], 1), ([good, bad], 2)] {
        let pending = storage.write(vec![batch("t", &readings)], "test").unwrap();
        let lines: Vec<u32> = pending.rejected.iter().map(|row| row.line).collect();
        assert_eq!((lines, pending.accepted), (vec![refused], 1), "{:?}", pending.rejected);
        pending.wait().unwrap();
    }
    let beside = batch("u", &[("a", 1, &[("x", F(1.0))])]);
    let pending = storage.write(vec![batch("T", &[("a", 1, &[("x", F(1.0))])]), beside], "test").unwrap();
    assert!(pending.rejected[0].reason.contains("only by case"), "{:?}", pending.rejected);
    pending.wait().unwrap();
    assert_eq!(read(&storage, "u").len(), 1, "the other table's row is stored");
    let mut system = batch("t", &[("a", 1, &[("x", F(1.0))])]);
    system.table = TableName::new("system", "agents");
    assert!(matches!(storage.write(vec![system], "test"), Err(StorageError::Invalid(_))));
}

#[test]
fn any_order_of_writes_flushes_and_restarts_gives_the_rows_of_a_plain_map() {
    random_run(0, 60, World::local());
    for seed in faults::seeds(100) {
        random_run(seed, 120, World::on(Arc::new(faults::SimDisk::new()), "/data".into()));
    }
}

/// Series, time, fields.
type Random = (String, i64, Vec<(&'static str, f64)>);

/// P8 in small: random writes (retries, corrections, late rows, partial fields) with flushes, queries and restarts
/// between them, against a map.
pub(crate) fn random_run(seed: u64, steps: u64, mut world: World) {
    let rng = SplitMix64::new(seed);
    let mut storage = world.open();
    let mut oracle = Rows::new();
    let names = ["x", "y", "z"];
    for step in 0..steps {
        match rng.below(20) {
            0 if !oracle.is_empty() => refresh(&storage, "t"),
            1 => {
                drop(storage);
                storage = world.reopen();
            }
            2 if !oracle.is_empty() => assert_eq!(read(&storage, "t"), oracle, "seed {seed} step {step}"),
            _ => {
                let rows = 1 + rng.below(30);
                let readings: Vec<Random> = (0..rows)
                    .map(|_| {
                        // Mostly onwards in time, sometimes anywhere in two days.
                        let time = if rng.below(4) == 0 { rng.below(60) } else { step * 2 + rng.below(10) };
                        let day = if rng.below(10) == 0 { DAY } else { 0 };
                        let fields = names.iter().filter(|_| rng.below(3) > 0).map(|name| (*name, rng.below(3) as f64));
                        (format!("d{}", rng.below(5)), time as i64 + day, fields.collect::<Vec<_>>())
                    })
                    .filter(|(_, _, fields)| !fields.is_empty())
                    .collect();
                let mut one = model::TableBatch::new(TableName::public("t"));
                for (series, time, fields) in &readings {
                    let columns: Vec<(usize, Value<'_>)> =
                        fields.iter().map(|(name, v)| (one.field_column(name, model::FieldType::F64), F(*v))).collect();
                    let id = one.intern_series(model::SeriesKey::from_tags([("s", series)]));
                    one.push_row(id, START_US + time, 1, &columns);
                    let row = oracle.entry((format!("s={series}"), *time)).or_default();
                    row.extend(fields.iter().map(|(name, v)| (name.to_string(), v.to_string())));
                }
                storage.write(vec![one], "test").unwrap().wait().unwrap();
            }
        }
    }
    assert_eq!(read(&storage, "t"), oracle, "seed {seed}");
    refresh(&storage, "t");
    assert_eq!(read(&storage, "t"), oracle, "seed {seed}, flushed");
    // The newest Delta version alone, without memory: what a foreign reader sees (P4).
    let snapshot = storage.snapshot(&TableName::public("t")).unwrap().unwrap();
    assert!(snapshot.rows.count() == 0 && snapshot.shards.iter().all(|view| view.masked.is_empty()));
}

#[test]
fn a_second_storage_on_the_same_folder_is_refused() {
    let world = World::local();
    let storage = world.open();
    assert!(matches!(world.try_open(), Err(StorageError::Locked { .. })));
    drop(storage);
    world.open();
}

#[test]
fn queries_and_flushes_during_writes_see_every_acknowledged_row() {
    let world = World::local();
    let storage = world.open();
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let storage = Arc::clone(&storage);
                scope.spawn(move || {
                    for n in 0..100 {
                        write(&storage, "t", &[(&format!("w{writer}"), n, &[("x", F(n as f64))])]);
                        // P6: what was just acknowledged is seen.
                        if n % 10 == 0 {
                            let rows = read(&storage, "t");
                            assert!(rows.contains_key(&(format!("s=w{writer}"), n)), "writer {writer} row {n}");
                        }
                    }
                })
            })
            .collect();
        let done = |writers: &[std::thread::ScopedJoinHandle<'_, ()>]| {
            writers.iter().all(std::thread::ScopedJoinHandle::is_finished)
        };
        while !done(&writers) {
            if storage.table(&TableName::public("t")).is_some() {
                refresh(&storage, "t");
            }
        }
    });
    assert_eq!(read(&storage, "t").len(), 400);
}

#[test]
fn a_checkpoint_is_written_and_read_back() {
    let mut world = World::local();
    let storage = world.open();
    for n in 0..70 {
        write(&storage, "t", &[("a", n, &[("x", F(n as f64))])]);
        refresh(&storage, "t");
    }
    // The checkpoint is written by the flusher, which ends with the storage.
    storage.close(Duration::from_secs(10)).unwrap();
    drop(storage);
    let log = world.table_dir("t").join("_delta_log");
    assert_eq!(files(&log, ".checkpoint.parquet").len(), 1);
    // Without the commits below it, the checkpoint has to do.
    for commit in files(&log, ".json").into_iter().filter(|f| f.file_name().unwrap() < "00000000000000000060") {
        std::fs::remove_file(commit).unwrap();
    }
    let storage = world.reopen();
    assert_eq!(read(&storage, "t").len(), 70);
    assert_eq!(storage.table(&TableName::public("t")).unwrap().memory_rows, 0);
}

#[test]
fn a_write_longer_than_a_record_of_the_log_is_stored_in_parts() {
    // A segment of 256 KiB takes records of less than that.
    let mut world = World::local();
    let storage = world.open();
    let mut one = model::TableBatch::new(TableName::public("t"));
    let text = one.field_column("text", model::FieldType::Text);
    let series = one.intern_series(model::SeriesKey::from_tags([("s", "a")]));
    let long = "x".repeat(60_000);
    for row in 0..40 {
        one.push_row(series, START_US + row, row as u32 + 1, &[(text, Value::Text(&long))]);
    }
    let huge = "x".repeat(1 << 20);
    one.push_row(series, START_US + 40, 41, &[(text, Value::Text(&huge))]);
    let pending = storage.write(vec![one], "test").unwrap();
    let [rejected] = &pending.rejected[..] else { panic!("{} rejected", pending.rejected.len()) };
    assert_eq!((rejected.line, pending.accepted), (41, 40));
    pending.wait().unwrap();
    assert_eq!(read(&storage, "t").len(), 40);
    drop(storage);
    assert_eq!(read(&world.reopen(), "t").len(), 40);
}

#[test]
fn a_table_has_at_most_a_thousand_columns() {
    let world = World::local();
    let storage = world.open();
    let names: Vec<String> = (0..1200).map(|n| format!("f{n}")).collect();
    let fields: Vec<[(&str, Value<'_>); 1]> = names.iter().map(|name| [(name.as_str(), F(1.0))]).collect();
    let readings: Vec<Reading<'_>> = (0..).zip(&fields).map(|(time, field)| ("a", time, &field[..])).collect();
    let pending = storage.write(vec![batch("t", &readings)], "test").unwrap();
    assert_eq!((pending.accepted, pending.rejected.len()), (999, 201), "with the tag a thousand");
    assert!(pending.rejected[0].reason.contains("at most 1000"), "{:?}", pending.rejected[0]);
    pending.wait().unwrap();
    assert_eq!(read(&storage, "t").len(), 999);
}
