//! Damage to shards, commits, checkpoints and what stands beside them: named, or nothing has changed (P3, P11).
//!
//! The oracle is the full map of what was stored. After each mutation the folder opens, every table is read through a
//! snapshot with all columns, and each value is the oracle's, or the error names the file.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use faults::{Mutation, SimDisk, mutate, seeds};
use model::{Clock, Rng, SplitMix64, SystemClock, TableName, Value};
use storage::check::repair::{Act, RepairOptions, Repaired, repair};
use storage::check::{CheckOptions, Report, Severity, check};
use storage::{Storage, StorageError};
use wal::disk::{Disk, EntryKind, SharedDisk, read_file};

use crate::world::{Rows, World, batch, read, read_snapshot, try_read_snapshot, write};

const DAY: i64 = 86_400_000_000;
const TABLES: [&str; 3] = ["wide", "many", "small"];

/// A data folder that was closed in order, and all that is in it.
struct Folder {
    disk: SimDisk,
    tables: BTreeMap<&'static str, Rows>,
    /// Shards of the newest versions. Others were replaced, and damage to them changes nothing.
    shards: BTreeSet<PathBuf>,
}

fn data() -> PathBuf {
    PathBuf::from("/data")
}

fn open(disk: &SimDisk, seed: u64) -> Result<Arc<Storage>, StorageError> {
    let shared: SharedDisk = Arc::new(disk.clone());
    World::on(shared, data()).with_seed(seed).try_open()
}

fn refresh(storage: &Storage, table: &str) {
    storage.refresh(&TableName::public(table)).unwrap();
}

fn build() -> Folder {
    let folder = build_with(135);
    assert_eq!(files(&folder.disk, &["/_delta_log/", ".checkpoint.parquet"]).len(), 2);
    folder
}

/// With so many commits that only move the watermark: enough of them make checkpoints.
fn build_with(commits: usize) -> Folder {
    let disk = SimDisk::new();
    let storage = open(&disk, 1).unwrap();
    let rng = SplitMix64::new(5);
    // Shards of several blocks, in two days, with all types, a correction and a younger column.
    for day in 0..2 {
        let mut rows = batch("wide", &[]);
        for n in 0..if commits == 0 { 50 } else { [5000, 300][day as usize] } {
            let text = format!("note {}", rng.below(100));
            let fields = [
                ("x", Value::F64(rng.next_u64() as f64 / 1e9)),
                ("n", Value::I64(rng.below(1 << 40) as i64)),
                ("u", Value::U64(rng.below(1000))),
                ("ok", Value::Bool(rng.below(2) == 0)),
                ("note", Value::Text(&text)),
            ];
            let columns: Vec<(usize, Value<'_>)> =
                fields.iter().map(|(name, value)| (rows.field_column(name, value.field_type()), *value)).collect();
            let series = model::SeriesKey::from_tags([("s", format!("series {}", n % 7))]);
            let series = rows.intern_series(series);
            rows.push_row(series, crate::world::START_US + day * DAY + n * 1000, 1, &columns);
        }
        storage.write(vec![rows], "test").unwrap().wait().unwrap();
        refresh(&storage, "wide");
    }
    write(&storage, "wide", &[("series 1", 1000, &[("x", Value::F64(-1.0)), ("young", Value::F64(2.0))])]);
    write(&storage, "wide", &[("other", 1, &[("young", Value::F64(3.0))])]);
    refresh(&storage, "wide");
    for n in 0..3 {
        write(&storage, "many", &[("a", n, &[("x", Value::F64(n as f64))])]);
        refresh(&storage, "many");
    }
    let mut storage = storage;
    for n in 0..commits {
        if n == 70 {
            // A checkpoint is of the newest version when it is written: the first one is to be before the second.
            storage.close(Duration::from_secs(60)).unwrap();
            drop(storage);
            storage = open(&disk, 9).unwrap();
        }
        write(&storage, "many", &[("a", 0, &[("x", Value::F64(0.0))])]);
        refresh(&storage, "many");
    }
    write(&storage, "small", &[("a", 1, &[("x", Value::I64(1))]), ("b", 1, &[("x", Value::I64(2))])]);
    storage.close(Duration::from_secs(60)).unwrap();
    let tables = TABLES.map(|table| (table, read(&storage, table))).into();
    let snapshots = TABLES.map(|table| storage.snapshot(&TableName::public(table)).unwrap().unwrap());
    let shards = snapshots.iter().flat_map(|snapshot| &snapshot.shards);
    let shards = shards.map(|view| data().join("tables").join(&view.shard.path)).collect();
    drop(storage);
    Folder { disk, tables, shards }
}

/// Files of the tables whose paths have all of `parts`.
pub(crate) fn files(disk: &SimDisk, parts: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![data().join("tables")];
    while let Some(folder) = folders.pop() {
        for entry in disk.list(&folder).unwrap() {
            let path = folder.join(&entry.name);
            match entry.kind {
                EntryKind::Directory => folders.push(path),
                EntryKind::File if parts.iter().all(|part| path.to_string_lossy().contains(part)) => found.push(path),
                EntryKind::File => {}
            }
        }
    }
    found.sort();
    found
}

/// What is hit, as parts of paths.
const TARGETS: [&[&str]; 4] = [
    &["/eden_day=", ".parquet"],
    &["/_delta_log/", ".json"],
    &["/_delta_log/", ".checkpoint.parquet"],
    &["/_delta_log/", ".checkpoint.crc32c"],
];

fn look(disk: &SimDisk) -> Report {
    let shared: SharedDisk = Arc::new(disk.clone());
    check(&shared, &CheckOptions::new(data()), &mut |_| {}).unwrap()
}

/// Whether an error names `file`.
fn names(error: &str, file: &Path) -> bool {
    error.contains(file.strip_prefix("/data/tables").unwrap().to_str().unwrap())
}

/// Reads a table; `Err` if what is read is not what was stored, and no error names `file`.
fn check_table(storage: &Storage, table: &'static str, stored: &Rows, file: &Path) -> Result<(), String> {
    let read = storage
        .snapshot(&TableName::public(table))
        .map_err(|e| e.to_string())
        .and_then(|snapshot| try_read_snapshot(storage, &snapshot.ok_or("the table is gone")?));
    match read {
        Ok(rows) if rows == *stored => Ok(()),
        Ok(_) => Err(format!("{table} has other values")),
        Err(e) if names(&e, file) => Ok(()),
        Err(e) => Err(format!("{table}: {e}")),
    }
}

fn is_of_log(file: &Path) -> bool {
    file.parent().is_some_and(|folder| folder.ends_with("_delta_log"))
}

/// Damages one file and looks at everything.
fn run(folder: &Folder, targets: &[&[&str]], seed: u64) -> Result<(), String> {
    let rng = SplitMix64::new(seed);
    let disk = folder.disk.fork();
    let of_kind = files(&disk, targets[rng.below(targets.len() as u64) as usize]);
    let file = &of_kind[rng.below(of_kind.len() as u64) as usize];
    let before = read_file(&disk, file).unwrap();
    let mut bytes = before.clone();
    let mutation: Mutation = mutate(&mut bytes, rng.next_u64());
    disk.plant(file, &bytes).unwrap();
    let fail = |what: String| Err(format!("{mutation:?} of {}: {what}", file.display()));

    let report = catch_unwind(|| look(&disk)).map_err(|_| format!("{mutation:?} of {}: check", file.display()))?;
    let named = report.findings.iter().any(|f| f.file == *file && f.severity > Severity::Note);
    let counts = is_of_log(file) || folder.shards.contains(file);
    if named != (counts && bytes != before) {
        return fail(format!("check finds {:?}", report.findings));
    }
    let storage = match open(&disk, 2) {
        Ok(storage) => storage,
        Err(e) => return fail(format!("the folder does not open: {e}")),
    };
    for (table, stored) in &folder.tables {
        let checked = catch_unwind(AssertUnwindSafe(|| check_table(&storage, table, stored, file)));
        match checked {
            Ok(Ok(())) => {}
            Ok(Err(what)) => return fail(what),
            Err(_) => return fail(format!("reading {table} panics")),
        }
    }
    let others = TABLES.iter().filter(|table| !file.to_string_lossy().contains(&format!("/{table}/")));
    for table in others {
        let snapshot = storage.snapshot(&TableName::public(table)).unwrap().unwrap();
        if try_read_snapshot(&storage, &snapshot).as_ref() != Ok(&folder.tables[table]) {
            return fail(format!("{table} is not served"));
        }
        write(&storage, table, &[("new", 7, &[("x", Value::I64(9))])]);
    }
    Ok(())
}

#[test]
fn damage_to_any_file_of_a_table_is_named_and_the_rest_served() {
    let folder = build();
    let report = look(&folder.disk);
    assert_eq!(report.findings, []);
    assert_eq!((report.counts.tables, report.counts.rows, report.counts.shards), (3, 5_306, 7));
    assert_eq!(report.counts.shards_without_checksum, 0);
    for seed in seeds(500) {
        run(&folder, &TARGETS, seed).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
    }
}

/// The folder as a version without checksums would have left it.
fn without_checksums(folder: &Folder) -> Folder {
    let disk = folder.disk.fork();
    for path in files(&disk, &["/_delta_log/", ".json"]) {
        let text = String::from_utf8(read_file(&disk, &path).unwrap()).unwrap();
        let mut lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for line in &mut lines {
            if let Some(tags) = line.pointer_mut("/add/tags").and_then(|tags| tags.as_object_mut()) {
                tags.remove("eden.crc32c").unwrap();
            }
            if let Some(info) = line.pointer_mut("/commitInfo").and_then(|info| info.as_object_mut()) {
                info.remove("crc32c").unwrap();
            }
        }
        lines.rotate_right(1);
        let bytes: String = lines.iter().map(|line| format!("{line}\n")).collect();
        disk.plant(&path, bytes.as_bytes()).unwrap();
    }
    for path in files(&disk, &["/_delta_log/", "checkpoint"]) {
        disk.remove_file(&path).unwrap();
    }
    Folder { disk, tables: folder.tables.clone(), shards: folder.shards.clone() }
}

#[test]
fn a_folder_without_checksums_is_read_and_checksums_that_are_not_looked_at_are_noticed() {
    let older = without_checksums(&build());
    let storage = open(&older.disk.fork(), 2).unwrap();
    for (table, stored) in &older.tables {
        assert_eq!(read(&storage, table), *stored);
    }
    drop(storage);
    let report = look(&older.disk);
    assert_eq!(
        report.findings.iter().filter(|f| f.severity > Severity::Note).collect::<Vec<_>>(),
        [] as [&storage::check::Finding; 0]
    );
    assert_eq!(report.counts.shards_without_checksum, report.counts.shards);
    assert_eq!(report.counts.commits_without_checksum, report.counts.commits);
    for target in [&TARGETS[0..1], &TARGETS[1..2]] {
        let noticed = (0..200).find(|seed| run(&older, target, *seed).is_err());
        assert!(noticed.is_some(), "{target:?}: nobody looks");
    }
}

/// What a repair of the folder does.
fn mend(disk: &SimDisk, act: Act) -> Result<Repaired, StorageError> {
    let (shared, clock): (SharedDisk, Arc<dyn Clock>) = (Arc::new(disk.clone()), Arc::new(SystemClock::new()));
    let options = RepairOptions { data: data(), tables: Vec::new(), act };
    repair(&shared, &clock, &options, &mut |_| {})
}

/// Damages one file, repairs, and compares what is there with what was.
fn run_repair(folder: &Folder, seed: u64) -> Result<(), String> {
    let rng = SplitMix64::new(seed);
    let disk = folder.disk.fork();
    let of_kind = files(&disk, TARGETS[rng.below(TARGETS.len() as u64) as usize]);
    let file = &of_kind[rng.below(of_kind.len() as u64) as usize];
    let before = read_file(&disk, file).unwrap();
    let mut bytes = before.clone();
    let mutation = mutate(&mut bytes, rng.next_u64());
    disk.plant(file, &bytes).unwrap();
    let damage = format!("{mutation:?} of {}", file.display());
    let fail = |what: String| Err(format!("{damage}: {what}"));

    let ops = disk.ops();
    let plan = mend(&disk, Act::Plan).map_err(|e| format!("{damage}: plan: {e}"))?;
    if disk.ops() - ops > 2 {
        return fail("a plan changes something besides the lock's folder".into());
    }
    let done = mend(&disk, Act::Do).map_err(|e| format!("{damage}: {e}"))?;
    if done != plan {
        return fail(format!("planned {plan:#?}, done {done:#?}"));
    }
    let is_first_commit = file.ends_with("_delta_log/00000000000000000000.json") && !is_of(file, "many");
    if !done.left.is_empty() {
        return if is_first_commit { Ok(()) } else { fail(format!("left: {:?}", done.left)) };
    }
    let report = look(&disk);
    // Commits that a checkpoint covers stay as they are: nobody needs them.
    if let Some(bad) = report.findings.iter().find(|finding| finding.severity == Severity::Damage) {
        return fail(format!("after the repair check finds {bad}"));
    }
    let storage = open(&disk, 2).map_err(|e| format!("{damage}: {e}"))?;
    for (table, stored) in &folder.tables {
        let Some(snapshot) = storage.snapshot(&TableName::public(table)).map_err(|e| format!("{damage}: {e}"))? else {
            return fail(format!("{table} is gone"));
        };
        let rows = try_read_snapshot(&storage, &snapshot).map_err(|e| format!("{damage}: {e}"))?;
        let missing = stored.len() - stored.keys().filter(|key| rows.contains_key(*key)).count();
        if rows.keys().any(|key| !stored.contains_key(key)) {
            return fail(format!("{table} has rows that were never written"));
        }
        let differs = rows.iter().any(|(key, fields)| stored[key] != *fields);
        if (missing > 0 || differs) && done.lost.is_empty() {
            return fail(format!("{missing} rows of {table} are missing in silence"));
        }
        if differs && !is_of_log(file) {
            return fail(format!("{table} has other values"));
        }
        let of_shard: u64 = done.lost.iter().filter_map(|lost| lost.rows).sum();
        if !is_of_log(file) && is_of(file, table) && missing as u64 != of_shard {
            return fail(format!("{missing} rows of {table} are missing, and {of_shard} are reported"));
        }
        write(
            &storage,
            table,
            &[("new", 7, &[("x", if *table == "small" { Value::I64(9) } else { Value::F64(9.0) })])],
        );
        refresh(&storage, table);
    }
    let recorded = storage.snapshot(&TableName::new("system", "data_loss")).unwrap();
    let recorded = recorded.map_or(0, |snapshot| read_snapshot(&storage, &snapshot).len());
    if recorded != done.lost.len() {
        return fail(format!("{recorded} rows in system.data_loss of {:?}", done.lost));
    }
    drop(storage);
    if !mend(&disk, Act::Plan).map_err(|e| e.to_string())?.lost.is_empty() {
        return fail("a second repair finds something".into());
    }
    Ok(())
}

/// Repairs with power going at every step, and again after that.
fn run_cuts(folder: &Folder, damaged: &SimDisk, file: &Path, missing: usize) -> u64 {
    for step in 1.. {
        let disk = damaged.fork();
        disk.cut_after(step);
        let first = mend(&disk, Act::Do);
        let is_through = disk.is_on();
        let disk = disk.power_cut(step);
        let again = mend(&disk, Act::Do).unwrap();
        assert_eq!(again.left, [], "step {step}: {first:?}");
        let report = look(&disk);
        assert!(!report.findings.iter().any(|f| f.severity == Severity::Damage), "step {step}: {:#?}", report.findings);
        let storage = open(&disk, 2).unwrap();
        let mut gone = 0;
        for (table, stored) in &folder.tables {
            let rows = read(&storage, table);
            assert!(rows.iter().all(|(key, fields)| stored.get(key) == Some(fields)), "step {step}: {table}");
            gone += stored.len() - rows.len();
        }
        assert_eq!(gone, missing, "step {step} of {}", file.display());
        let told = storage.snapshot(&TableName::new("system", "data_loss")).unwrap();
        assert!(told.is_some_and(|told| !read_snapshot(&storage, &told).is_empty()), "step {step}: nothing is told");
        if is_through {
            return step;
        }
    }
    unreachable!("a repair has an end")
}

#[test]
fn a_repair_that_loses_power_at_any_step_is_finished_by_the_next() {
    let folder = build_with(0);
    let disk = folder.disk.fork();
    let shard = folder.shards.iter().find(|shard| is_of(shard, "small")).unwrap();
    disk.plant(shard, b"short").unwrap();
    let steps = run_cuts(&folder, &disk, shard, 2);
    assert!(steps > 15, "{steps} steps");
    // A commit in which nothing can be read: what it added is set aside, and the log still has those rows.
    let disk = folder.disk.fork();
    let commit = Path::new("/data/tables/public/small/_delta_log/00000000000000000001.json");
    disk.plant(commit, &[0; 700]).unwrap();
    run_cuts(&folder, &disk, commit, 0);
}

fn is_of(file: &Path, table: &str) -> bool {
    file.to_string_lossy().contains(&format!("/{table}/"))
}

#[test]
fn a_repair_brings_back_all_but_what_it_says_is_missing() {
    let folder = build();
    let nothing = mend(&folder.disk.fork(), Act::Do).unwrap();
    assert_eq!(nothing, Repaired::default());
    for seed in seeds(100) {
        run_repair(&folder, seed).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
    }
}

#[test]
fn a_damaged_shard_is_found_by_the_scrub_and_told_once() {
    let folder = build();
    let disk = folder.disk.fork();
    let shard = folder.shards.iter().find(|shard| is_of(shard, "wide")).unwrap();
    let mut bytes = read_file(&disk, shard).unwrap();
    bytes[100] ^= 1;
    disk.plant(shard, &bytes).unwrap();
    for seed in 2..4 {
        let shared: SharedDisk = Arc::new(disk.clone());
        let mut world = World::on(shared, data()).with_seed(seed);
        world.config.scrub_bytes_per_second = u64::MAX;
        let storage = world.open();
        let told = || {
            let snapshot = storage.snapshot(&TableName::new("system", "data_loss")).unwrap();
            snapshot.map(|snapshot| read_snapshot(&storage, &snapshot)).unwrap_or_default()
        };
        let (_never, ticks) = std::sync::mpsc::channel::<()>();
        for tick in 0.. {
            if storage.stats().damaged_shards == 1 && !told().is_empty() {
                break;
            }
            assert!(tick < 6000, "nothing is found: {:?}", storage.stats());
            let _ = ticks.recv_timeout(Duration::from_millis(10));
        }
        let [damage] = &storage.damaged_shards()[..] else { panic!("{:?}", storage.damaged_shards()) };
        assert!(shard.ends_with(&damage.location), "{damage}");
        let rows = told();
        assert_eq!(rows.len(), 1, "{rows:?}");
        let ((series, _), fields) = rows.first_key_value().unwrap();
        assert!(series.contains(&damage.location) && fields["table"] == "wide" && fields["certainty"] == "possible");
        // A query may go on without it.
        let mut snapshot = storage.snapshot(&TableName::public("wide")).unwrap().unwrap();
        assert!(try_read_snapshot(&storage, &snapshot).is_err());
        let gone = snapshot.leave_out(&storage.damaged_shards());
        let rows = try_read_snapshot(&storage, &snapshot).unwrap().len() as u64;
        assert_eq!(rows + gone[0].shard.rows, folder.tables["wide"].len() as u64);
        storage.close(Duration::from_secs(60)).unwrap();
    }
}
