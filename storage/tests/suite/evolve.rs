//! Declared decimals, columns that change their type, and numbers that must come through all of it unchanged.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use faults::{FaultDisk, Operation, SimDisk};
use model::{FieldType, Rng, SeriesKey, SplitMix64, TableBatch, TableName, Value};
use storage::{Storage, StorageError, TableOptions, TableSchema};
use wal::disk::SharedDisk;

use crate::power::read_as_others;
use crate::world::{START_US, World, batch, files, read, read_snapshot, write};

const DAY: i64 = 86_400_000_000;
const TENTHS: FieldType = FieldType::decimal(1);

fn t() -> TableName {
    TableName::public("t")
}

fn create(storage: &Storage, fields: &[(&str, FieldType)]) {
    let fields: Vec<(Arc<str>, FieldType)> = fields.iter().map(|(name, t)| ((*name).into(), *t)).collect();
    let schema = TableSchema::new(&["s".into()], &fields);
    assert!(storage.create_table(&t(), &schema, TableOptions::default()).unwrap());
}

fn type_of(storage: &Storage, column: &str) -> FieldType {
    match storage.table(&t()).unwrap().schema.column(column).unwrap().kind {
        storage::ColumnKind::Field(field_type) => field_type,
        other => panic!("{column} is {other:?}"),
    }
}

/// Field `x` by time: numbers without the zeros that only tell their type.
fn numbers(storage: &Storage) -> BTreeMap<i64, String> {
    read_as_others(storage, &t());
    let rows = read(storage, "t").into_iter();
    rows.filter_map(|((_, time), fields)| Some((time, plain(fields.get("x")?)))).collect()
}

fn plain(number: &str) -> String {
    let text = if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number };
    text.to_owned()
}

fn x(value: Value<'static>) -> [(&'static str, Value<'static>); 1] {
    [("x", value)]
}

fn put(storage: &Storage, time: i64, value: Value<'static>) {
    write(storage, "t", &[("a", time, &x(value))]);
}

/// The reason for which a row is refused.
fn refused(storage: &Storage, value: Value<'static>) -> String {
    let pending = storage.write(vec![batch("t", &[("a", 999, &x(value))])], "test").unwrap();
    assert_eq!((pending.accepted, pending.rejected.len()), (0, 1));
    let reason = pending.rejected[0].reason.clone();
    pending.wait().unwrap();
    reason
}

fn invalid<R: std::fmt::Debug>(result: Result<R, StorageError>) -> String {
    match result {
        Err(StorageError::Invalid(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_decimal_takes_as_many_digits_as_were_declared_and_can_be_given_more() {
    let mut world = World::local();
    let storage = world.open();
    let of_digits = |digits| FieldType::Decimal { digits, scale: 1 };
    create(&storage, &[("x", of_digits(3))]);
    put(&storage, 1, Value::F64(99.9));
    put(&storage, 2, Value::I64(-99));
    let many = "more than 3 digits";
    for (value, said) in [(Value::F64(100.0), many), (Value::I64(-100), many), (Value::F64(0.25), "is finer")] {
        let reason = refused(&storage, value);
        assert!(reason.contains(said) && reason.contains("TYPE DECIMAL(18,"), "{reason}");
    }
    storage.refresh(&t()).unwrap();
    assert!(invalid(storage.alter_column(&t(), "x", of_digits(2))).contains("99.9"));
    assert!(storage.alter_column(&t(), "x", of_digits(4)).unwrap());
    put(&storage, 3, Value::F64(100.0));
    drop(storage);
    let storage = world.reopen();
    assert_eq!(type_of(&storage, "x"), of_digits(4));
    let expected = [(1, "99.9"), (2, "-99"), (3, "100")].map(|(time, number)| (time, number.to_owned()));
    assert_eq!(numbers(&storage), expected.into());
}

#[test]
fn a_declared_resolution_takes_its_multiples_of_any_type_and_nothing_finer() {
    let mut world = World::local();
    let storage = world.open();
    create(&storage, &[("x", TENTHS)]);
    let expected: BTreeMap<i64, String> =
        [(1, "21.5"), (2, "-3"), (3, "7"), (4, "0"), (5, "99999999999999999.9"), (DAY, "0.1")]
            .map(|(time, number)| (time, number.to_owned()))
            .into();
    put(&storage, 1, Value::F64(21.5));
    put(&storage, 2, Value::I64(-3));
    put(&storage, 3, Value::U64(7));
    put(&storage, 4, Value::F64(-0.0));
    put(&storage, 5, Value::Decimal { units: 999_999_999_999_999_999, scale: 1 });
    put(&storage, DAY, Value::F64(0.1));
    for step in ["in memory", "in shards", "after a restart"] {
        assert_eq!(numbers(&storage), expected, "{step}");
        if step == "in memory" {
            storage.refresh(&t()).unwrap();
        }
    }
    // A retry changes nothing, a correction does: both are looked up in the shard.
    put(&storage, 1, Value::F64(21.5));
    put(&storage, 2, Value::F64(-3.1));
    let reason = refused(&storage, Value::F64(21.55));
    let alter = r#"ALTER TABLE "t" ALTER COLUMN "x" TYPE DECIMAL(18,2)"#;
    assert!(reason.contains("resolution 0.1") && reason.contains("21.55") && reason.contains(alter), "{reason}");
    let reason = refused(&storage, Value::F64(1e18));
    assert!(reason.contains("more than 18 digits") && reason.contains("TYPE DOUBLE"), "{reason}");
    refused(&storage, Value::F64(0.1 + 0.2));
    refused(&storage, Value::Text("21.5"));
    let mut corrected = expected;
    corrected.insert(2, "-3.1".into());
    assert_eq!(numbers(&storage), corrected);
    drop(storage);
    let storage = world.reopen();
    assert_eq!(numbers(&storage), corrected, "replayed");
    storage.refresh(&t()).unwrap();
    assert_eq!(numbers(&storage), corrected);
    assert_eq!(type_of(&storage, "x"), TENTHS);
    let commit = files(&world.table_dir("t").join("_delta_log"), "00.json").remove(0);
    let commit = std::fs::read_to_string(commit).unwrap();
    assert!(commit.contains(r#"decimal(18,1)"#) && commit.contains(r#"\"eden.resolution\":\"0.1\""#), "{commit}");
}

#[test]
fn a_batch_of_many_rows_is_converted_but_for_those_that_are_refused() {
    let world = World::local();
    let storage = world.open();
    create(&storage, &[("x", TENTHS), ("n", FieldType::I64)]);
    let mut rows = TableBatch::new(t());
    let (float, whole) = (rows.field_column("x", FieldType::F64), rows.field_column("x", FieldType::I64));
    let series = rows.intern_series(SeriesKey::from_tags([("s", "a")]));
    for row in 0..100 {
        let value = if row == 40 { 0.25 } else { f64::from(row) / 10.0 };
        let fields = if row % 9 == 0 { [(whole, Value::I64(row.into()))] } else { [(float, Value::F64(value))] };
        rows.push_row(series, START_US + i64::from(row), row as u32, &fields);
    }
    let pending = storage.write(vec![rows], "test").unwrap();
    assert_eq!((pending.accepted, pending.rejected.len(), pending.rejected[0].line), (99, 1, 40));
    pending.wait().unwrap();
    let expected: BTreeMap<i64, String> = (0..100)
        .filter(|row| *row != 40)
        .map(|row| (row, plain(&(if row % 9 == 0 { row as f64 } else { row as f64 / 10.0 }).to_string())))
        .collect();
    assert_eq!(numbers(&storage), expected);
    storage.refresh(&t()).unwrap();
    assert_eq!(numbers(&storage), expected);
}

#[test]
fn tables_are_declared_once_and_columns_added() {
    let mut world = World::local();
    let storage = world.open();
    create(&storage, &[("x", TENTHS)]);
    let schema = TableSchema::new(&[], &[("y".into(), FieldType::F64)]);
    assert!(!storage.create_table(&t(), &schema, TableOptions::default()).unwrap(), "there is one");
    put(&storage, 1, Value::F64(1.0));
    storage.refresh(&t()).unwrap();
    assert!(storage.add_columns(&t(), &["room".into()], &[("y".into(), TENTHS)]).unwrap());
    assert!(!storage.add_columns(&t(), &["room".into()], &[("y".into(), TENTHS)]).unwrap());
    for (tags, fields, why) in [
        (&["x"][..], &[][..], "something else"),
        (&[], &[("room", TENTHS)], "something else"),
        (&[], &[("y", FieldType::F64)], "something else"),
        (&[], &[("Room", TENTHS)], "only by case"),
        (&["a", "a"], &[("A", TENTHS)], "only by case"),
        (&["time"], &[], "reserved"),
        (&[], &[("z", FieldType::decimal(19))], "1 to 18 digits"),
    ] {
        let tags: Vec<Arc<str>> = tags.iter().map(|tag| (*tag).into()).collect();
        let fields: Vec<(Arc<str>, FieldType)> = fields.iter().map(|(name, t)| ((*name).into(), *t)).collect();
        let reason = invalid(storage.add_columns(&t(), &tags, &fields));
        assert!(reason.contains(why), "{reason}");
    }
    let many: Vec<(Arc<str>, FieldType)> = (0..998).map(|n| (format!("f{n}").into(), FieldType::F64)).collect();
    assert!(invalid(storage.add_columns(&t(), &[], &many)).contains("at most 1000"));
    let name = TableName::public("T");
    assert!(invalid(storage.create_table(&name, &schema, TableOptions::default())).contains("only by case"));
    let system = TableName::new("system", "agents");
    assert!(invalid(storage.create_table(&system, &schema, TableOptions::default())).contains("server's own"));
    assert!(invalid(storage.add_columns(&TableName::public("none"), &[], &[])).contains("no table"));
    drop(storage);
    let storage = world.reopen();
    let columns: Vec<String> =
        storage.table(&t()).unwrap().schema.columns().iter().map(|c| c.name.to_string()).collect();
    assert_eq!(columns, ["s", "room", "x", "y", "time"]);
    assert_eq!(numbers(&storage), [(1, "1".to_owned())].into());
}

#[test]
fn a_table_that_changes_several_times_keeps_its_numbers_in_shards_memory_and_log() {
    use FieldType::{F64, I64};
    let mut world = World::local();
    let mut storage = world.open();
    write(&storage, "t", &[("a", 1, &[("x", Value::I64(4)), ("other", Value::Text("kept"))])]);
    put(&storage, DAY, Value::I64(-5));
    storage.refresh(&t()).unwrap();
    put(&storage, 2, Value::I64(6));
    let old = storage.snapshot(&t()).unwrap().unwrap();
    let mut expected: BTreeMap<i64, String> =
        [(1, "4"), (2, "6"), (DAY, "-5")].map(|(time, number)| (time, number.to_owned())).into();
    let narrow = |scale| FieldType::Decimal { digits: 9, scale };
    let decimal = FieldType::decimal;
    let steps = [decimal(0), narrow(1), decimal(1), decimal(3), narrow(3), F64, decimal(2), F64];
    for (n, to) in (3..).zip(steps) {
        assert!(storage.alter_column(&t(), "x", to).unwrap());
        assert!(!storage.alter_column(&t(), "x", to).unwrap());
        assert_eq!(type_of(&storage, "x"), to);
        assert_eq!(numbers(&storage), expected, "{to}");
        // Schema, files and watermark in one version.
        let commit = files(&world.table_dir("t").join("_delta_log"), ".json").pop().unwrap();
        let commit = std::fs::read_to_string(commit).unwrap();
        for action in ["CHANGE COLUMN", "metaData", "\"txn\"", "\"remove\"", "\"add\""] {
            assert!(commit.contains(action), "{to}: {commit}");
        }
        put(&storage, n, Value::F64(n as f64));
        expected.insert(n, n.to_string());
        // A correction of a row that was rewritten.
        put(&storage, 1, Value::F64(n as f64 * 10.0));
        expected.insert(1, (n * 10).to_string());
        assert_eq!(numbers(&storage), expected, "{to}, written to");
        if n % 2 == 0 {
            drop(storage);
            storage = world.reopen();
            assert_eq!(numbers(&storage), expected, "{to}, replayed");
        }
    }
    let rows = read(&storage, "t");
    assert_eq!(rows[&("s=a".to_owned(), 1)]["other"], "kept");
    // Until vacuum, whoever began before reads on, in the type of then.
    let rows = read_snapshot(&storage, &old);
    assert_eq!(rows.values().map(|fields| fields["x"].as_str()).collect::<Vec<_>>(), ["4", "6", "-5"]);
    assert_eq!(old.schema.column("x").unwrap().kind, storage::ColumnKind::Field(I64));
}

#[test]
fn a_value_that_the_new_type_does_not_hold_ends_the_change_and_is_named() {
    for (value, to) in [
        (Value::I64((1 << 53) + 1), FieldType::F64),
        (Value::I64(i64::MAX), FieldType::decimal(0)),
        (Value::F64(0.25), TENTHS),
        (Value::F64(1e300), TENTHS),
        (Value::U64(u64::MAX), FieldType::F64),
        (Value::Decimal { units: 999_999_999_999_999_999, scale: 1 }, FieldType::F64),
        (Value::Decimal { units: 999_999_999_999_999_999, scale: 1 }, FieldType::decimal(2)),
    ] {
        let world = World::local();
        let storage = world.open();
        create(&storage, &[("x", value.field_type())]);
        let small = if value.field_type() == FieldType::F64 { Value::F64(1.0) } else { Value::U64(1) };
        put(&storage, 1, small);
        storage.refresh(&t()).unwrap();
        put(&storage, 5, value);
        let before = numbers(&storage);
        let reason = invalid(storage.alter_column(&t(), "x", to));
        assert!(reason.contains(&format!("time {} µs", START_US + 5)), "{reason}");
        assert_eq!((type_of(&storage, "x"), numbers(&storage)), (value.field_type(), before));
        // Files that no commit names were not left behind.
        let shards = storage.table(&t()).unwrap().shards;
        assert_eq!(files(&world.table_dir("t"), ".parquet").len(), shards, "{to}");
        put(&storage, 5, small);
        assert!(storage.alter_column(&t(), "x", to).unwrap(), "corrected, it fits");
        assert_eq!(numbers(&storage), [(1, "1".to_owned()), (5, "1".to_owned())].into());
    }
}

#[test]
fn changes_that_make_no_sense_or_cost_too_much_are_refused() {
    let mut world = World::local();
    world.config.alter_bytes_max = 100;
    let storage = world.open();
    write(&storage, "t", &[("a", 1, &[("x", Value::I64(1)), ("text", Value::Text("1")), ("y", Value::F64(1.0))])]);
    for (column, to, why) in [
        ("none", FieldType::F64, "no column"),
        ("s", FieldType::F64, "no field"),
        ("time", FieldType::F64, "no field"),
        ("text", FieldType::F64, "cannot become"),
        ("y", FieldType::I64, "cannot become"),
        ("x", FieldType::U64, "cannot become"),
        ("x", FieldType::F64, "alter_bytes_max"),
    ] {
        let reason = invalid(storage.alter_column(&t(), column, to));
        assert!(reason.contains(why), "{reason}");
    }
    assert!(invalid(storage.alter_column(&TableName::new("system", "agents"), "seq", TENTHS)).contains("own"));
    assert_eq!(numbers(&storage), [(1, "1".to_owned())].into());
}

#[test]
fn a_float_among_whole_numbers_widens_the_column_if_all_of_them_stay() {
    let mut world = World::local();
    let storage = world.open();
    put(&storage, 1, Value::I64(4));
    storage.refresh(&t()).unwrap();
    put(&storage, 2, Value::I64(5));
    put(&storage, 3, Value::F64(2.5));
    assert_eq!(type_of(&storage, "x"), FieldType::F64);
    let numbers_of = |of: &[(i64, &str)]| of.iter().map(|(t, n)| (*t, (*n).to_owned())).collect::<BTreeMap<_, _>>();
    assert_eq!(numbers(&storage), numbers_of(&[(1, "4"), (2, "5"), (3, "2.5")]));
    put(&storage, 4, Value::I64(6));
    // Both in one batch, for a column that was not there.
    let (float, whole) = ([("new", Value::F64(0.5))], [("new", Value::I64(3))]);
    write(&storage, "t", &[("b", 1, &whole), ("b", 2, &float)]);
    assert_eq!(type_of(&storage, "new"), FieldType::F64);
    // A row that is refused for another reason widens nothing.
    let n = [("n", Value::I64(1))];
    write(&storage, "t", &[("c", 1, &n)]);
    let far = storage.write(vec![batch("t", &[("c", 400 * 365 * DAY, &[("n", Value::F64(0.5))])])], "test").unwrap();
    assert_eq!(far.rejected.len(), 1);
    assert_eq!(type_of(&storage, "n"), FieldType::I64);
    // One that a double does not hold: the float is refused, and what would help is said.
    write(&storage, "t", &[("c", 2, &[("n", Value::I64(i64::MAX))])]);
    for _ in 0..2 {
        let pending = storage.write(vec![batch("t", &[("c", 3, &[("n", Value::F64(0.5))])])], "test").unwrap();
        assert!(pending.rejected[0].reason.contains(r#"ALTER COLUMN "n" TYPE DOUBLE"#), "{:?}", pending.rejected);
    }
    drop(storage);
    let storage = world.reopen();
    assert_eq!(numbers(&storage), numbers_of(&[(1, "4"), (2, "5"), (3, "2.5"), (4, "6")]));
}

/// Somebody else changed the table's Delta log: what is in ours is put into the new type, or the start says what is not.
#[test]
fn rows_of_an_older_type_are_replayed_into_the_new_one() {
    for (value, fits) in [(Value::I64(4), true), (Value::I64((1 << 53) + 1), false)] {
        let mut world = World::local();
        let storage = world.open();
        put(&storage, 1, value);
        drop(storage);
        let log = world.table_dir("t").join("_delta_log");
        let first = std::fs::read_to_string(log.join("00000000000000000000.json")).unwrap();
        let metadata = first.lines().find(|line| line.contains("metaData")).unwrap();
        let changed = metadata.replace(r#"\"long\""#, r#"\"double\""#).replace("integer", "float");
        assert_ne!(changed, metadata);
        // As commits began when they had no checksum.
        let commit = format!("{{\"commitInfo\":{{}}}}\n{changed}\n");
        std::fs::write(log.join("00000000000000000001.json"), commit).unwrap();
        if fits {
            let storage = world.reopen();
            put(&storage, 2, Value::F64(0.5));
            assert_eq!(numbers(&storage), [(1, "4".to_owned()), (2, "0.5".to_owned())].into());
            storage.refresh(&t()).unwrap();
            assert_eq!(numbers(&storage).len(), 2);
        } else {
            match world.try_open() {
                Err(StorageError::Corrupt { reason, .. }) => assert!(reason.contains("9007199254740993"), "{reason}"),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Writers go on while the type changes; each row that was acknowledged is there, as the number it was.
#[test]
fn rows_that_are_written_while_a_type_changes_are_all_there() {
    let world = World::local();
    let storage = world.open();
    put(&storage, -1, Value::I64(-1));
    let (next, done) = (AtomicI64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    let n = next.fetch_add(1, Ordering::SeqCst);
                    let other = batch("u", &[("a", n, &x(Value::I64(n)))]);
                    let rows = batch("t", &[("a", n, &x(Value::I64(n)))]);
                    let pending = storage.write(vec![other, rows], "test").unwrap();
                    assert_eq!(pending.rejected, []);
                    pending.wait().unwrap();
                }
            });
        }
        for to in [FieldType::decimal(0), TENTHS, FieldType::F64, FieldType::decimal(3)] {
            std::thread::yield_now();
            let before = next.load(Ordering::SeqCst);
            while next.load(Ordering::SeqCst) < before + 20 {
                std::thread::yield_now();
            }
            assert!(storage.alter_column(&t(), "x", to).unwrap());
            storage.refresh(&TableName::public("u")).unwrap();
        }
        done.store(true, Ordering::SeqCst);
    });
    let expected: BTreeMap<i64, String> = (-1..next.load(Ordering::SeqCst)).map(|n| (n, n.to_string())).collect();
    assert_eq!(numbers(&storage), expected);
}

/// Random writes, corrections, flushes and changes of type; power goes at any operation of the disk. Numbers that were
/// acknowledged are there and no others, and the type is the last one that was told, or the one that was asked for.
#[test]
fn a_change_of_type_that_loses_power_anywhere_has_happened_or_has_not() {
    let (mut changed, mut cut) = (0, 0);
    for seed in faults::seeds(60) {
        let rng = SplitMix64::new(seed);
        let mut sim = SimDisk::new();
        let mut acked: BTreeMap<i64, String> = BTreeMap::new();
        let mut maybe: Option<(i64, String)> = None;
        let mut types = vec![FieldType::I64];
        for life in 0..5 {
            let disk: SharedDisk = Arc::new(sim.clone());
            if life < 4 {
                sim.cut_after(1 + rng.below(220));
            }
            let label = format!("seed {seed} life {life}");
            let mut world = World::on(disk, PathBuf::from("/data")).with_seed(rng.next_u64());
            world.config.log_segment_bytes = 64 << 10;
            world.config.table_memory_bytes_max = 6 << 10;
            'life: {
                let storage = match world.try_open() {
                    Ok(storage) => storage,
                    Err(_) if !sim.is_on() => break 'life,
                    Err(e) => panic!("{label}: {e}"),
                };
                if storage.table(&t()).is_some() {
                    let found = type_of(&storage, "x");
                    assert!(types.contains(&found), "{label}: {found} of {types:?}");
                    let stored = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| numbers(&storage)));
                    match stored {
                        Ok(stored) => {
                            let with: BTreeMap<_, _> = acked.clone().into_iter().chain(maybe.take()).collect();
                            assert!(stored == acked || stored == with, "{label}: {stored:?}\n{acked:?}\n{with:?}");
                            acked = stored;
                            types = vec![found];
                        }
                        Err(_) if !sim.is_on() => break 'life,
                        Err(panic) => std::panic::resume_unwind(panic),
                    }
                } else {
                    assert!(acked.is_empty(), "{label}: the table is gone");
                    let schema = TableSchema::new(&["s".into()], &[("x".into(), FieldType::I64)]);
                    match storage.create_table(&t(), &schema, TableOptions::default()) {
                        Ok(made) => assert!(made),
                        Err(_) if !sim.is_on() => break 'life,
                        Err(e) => panic!("{label}: {e}"),
                    }
                }
                for _ in 0..14 {
                    let outcome = match rng.below(8) {
                        0 => storage.refresh(&t()),
                        1 | 2 => {
                            let from = *types.last().unwrap();
                            let to = match (from, rng.below(2)) {
                                (FieldType::Decimal { scale, .. }, 0) if scale < 6 => FieldType::decimal(scale + 1),
                                (FieldType::Decimal { .. } | FieldType::I64, _) => FieldType::F64,
                                _ => FieldType::decimal(1 + rng.below(2) as u8),
                            };
                            types.push(to);
                            let altered = storage.alter_column(&t(), "x", to);
                            match altered {
                                Ok(_) => {
                                    changed += 1;
                                    types = vec![to];
                                    Ok(())
                                }
                                Err(e) => Err(e),
                            }
                        }
                        _ => {
                            let (time, n) = (rng.below(40) as i64 + DAY * (rng.below(5) / 4) as i64, rng.below(1000));
                            let value = if type_of(&storage, "x") == FieldType::I64 {
                                Value::I64(n as i64)
                            } else {
                                Value::F64(n as f64 / 10.0)
                            };
                            let text = match value {
                                Value::F64(v) => v.to_string(),
                                _ => n.to_string(),
                            };
                            maybe = Some((time, text.clone()));
                            let sent = storage.write(vec![batch("t", &[("a", time, &x(value))])], "test");
                            let written = sent.and_then(|pending| {
                                assert_eq!(pending.rejected, [], "{label}");
                                pending.wait()
                            });
                            if written.is_ok() {
                                acked.insert(time, text);
                                maybe = None;
                            }
                            written
                        }
                    };
                    match outcome {
                        Ok(()) => {}
                        Err(_) if !sim.is_on() => break 'life,
                        Err(e) => panic!("{label}: {e}"),
                    }
                }
            }
            cut += u32::from(!sim.is_on());
            sim = if rng.below(4) == 0 && sim.is_on() { sim.kill() } else { sim.power_cut(rng.next_u64()) };
        }
    }
    println!("{changed} changes, {cut} cuts");
}

/// Each call of the disk that a change makes fails once.
#[test]
fn a_change_of_type_that_fails_at_any_step_changes_no_number() {
    use Operation::{Create, Rename, Sync, SyncDir, Write};
    let (mut failed, mut in_doubt) = (0, 0);
    for operation in [Create, Write, Sync, Rename, SyncDir] {
        for n in 1..=12 {
            let sim = SimDisk::new();
            let (faulty, faults) = FaultDisk::new(Arc::new(sim.clone()));
            let mut world = World::on(Arc::new(faulty), PathBuf::from("/data"));
            let storage = world.open();
            let mut expected = BTreeMap::new();
            let mut write = |storage: &Storage, time: i64| {
                let sent = storage.write(vec![batch("t", &[("a", time, &x(Value::I64(time)))])], "test");
                let written = sent.and_then(storage::PendingWrite::wait);
                if written.is_ok() {
                    expected.insert(time, time.to_string());
                }
                (written, expected.clone())
            };
            for time in [1, DAY] {
                write(&storage, time).0.unwrap();
            }
            storage.refresh(&t()).unwrap();
            write(&storage, 2).0.unwrap();
            faults.fail(operation, n, |path| !path.starts_with("/data/wal"));
            let altered = storage.alter_column(&t(), "x", TENTHS);
            let label = format!("{operation:?} {n}: {altered:?}");
            failed += u32::from(altered.is_err());
            let (written, expected) = write(&storage, 3);
            assert_eq!(numbers(&storage), expected, "{label}");
            match written {
                Ok(()) => {}
                // The commit may stand: only a restart can tell of which type a row would be.
                Err(StorageError::Poisoned) if operation == SyncDir && altered.is_err() => in_doubt += 1,
                Err(e) => panic!("{label}: {e}"),
            }
            drop(storage);
            world.disk = Arc::new(sim.power_cut(n));
            let storage = world.reopen();
            assert_eq!(numbers(&storage), expected, "{label}, restarted");
            if type_of(&storage, "x") == FieldType::I64 {
                assert!(altered.is_err(), "{label}");
                assert!(storage.alter_column(&t(), "x", TENTHS).unwrap(), "{label}");
            }
            assert_eq!(numbers(&storage), expected, "{label}, restarted and changed");
        }
    }
    assert!(failed > 10 && in_doubt > 0, "{failed} failed, {in_doubt} in doubt");
}
