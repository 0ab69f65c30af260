//! Tables that are declared, changed, deleted from, merged, cut off and dropped: after each step others read what is
//! right by a map of our own, and what `/_sql` says.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::delta_log::DeltaLog;
use harness::{Eden, Reading, Rng, Rows, wait};

use super::clients::Clients;
use super::expected::{Expected, Key};
use super::{START_US, nothing_is_damaged, run_sql};
use crate::{Failure, Outcome};

const DAY_US: i64 = 86_400_000_000;
const ROWS: i64 = 600;
/// Two checkpoints and more.
const COMMITS: i64 = 140;
/// Cleaning comes every few seconds where the time of grace is as short.
const CLEANED_WITHIN: Duration = Duration::from_secs(120);
const PRESS: &str = "CREATE TABLE press (line TEXT, machine TEXT, temperature DECIMAL(18,1), strokes BIGINT, \
                     total NUMERIC(20,0), ok BOOLEAN, note TEXT, fine DECIMAL(18,9), PRIMARY KEY (line, machine, time))";

pub(super) fn readers_agree_after_each_change(clients: &Clients) -> Outcome {
    // It works while the others are looked at.
    let short = Eden::options("interop-short").setting("EDEN_QUERY_TIMEOUT", "4s");
    let mut short = short.setting("EDEN_STORAGE_VACUUM_GRACE", "8s").start();
    let kept = many_commits_and_a_retention(&short, clients)?;

    let mut eden = Eden::start("interop-changes");
    let mut press = Table::new(clients, "press");
    declared(&eden, &mut press)?;
    many_flushes(&eden, &mut press)?;
    types_change(&eden, &mut press)?;
    floats_come(&eden, clients)?;
    rows_go(&mut eden, &mut press)?;
    a_late_row(&eden, &mut press)?;
    one_tag(&eden, &mut press)?;
    press.filters_hide_nothing(&eden, "in the end")?;
    clients.no_version_has_a_key_twice(&eden.table(&press.folder), &["line", "machine", "time"])?;
    dropped(&eden, &mut press)?;
    eden.stop();
    nothing_is_damaged(&eden)?;

    cleaned(&short, kept)?;
    short.stop();
    nothing_is_damaged(&short)
}

/// A table, what must be in it, and where others find it.
struct Table<'a> {
    clients: &'a Clients,
    name: &'static str,
    folder: String,
    expected: Expected,
}

impl<'a> Table<'a> {
    fn new(clients: &'a Clients, name: &'static str) -> Self {
        Table { clients, name, folder: name.to_string(), expected: Expected::default() }
    }

    fn write(&mut self, eden: &Eden, readings: &[Reading]) {
        eden.write(readings);
        self.expected.write(readings);
    }

    /// `/_sql` and the others say what must be there, after a flush.
    fn agree(&self, eden: &Eden, step: &str) -> Result<(), Failure> {
        eden.refresh(self.name);
        let rows = self.by_sql(eden)?;
        self.seen(eden, &[("the expected", &self.expected.rows()), ("/_sql", &rows)], step)
    }

    fn by_sql(&self, eden: &Eden) -> Result<Rows, Failure> {
        run_sql(eden, &format!("SELECT * FROM {}", self.name)).map(Rows::new)
    }

    fn seen(&self, eden: &Eden, expected: &[(&str, &Rows)], step: &str) -> Outcome {
        self.clients.agree_in(&eden.table(&self.folder), expected, step)
    }

    fn filters_hide_nothing(&self, eden: &Eden, step: &str) -> Outcome {
        self.clients.filters_hide_nothing(eden, self.name, &self.folder, step)
    }

    fn has_types(&self, eden: &Eden, wanted: &[(&str, &str)]) -> Outcome {
        self.clients.read(&[eden.table(&self.folder)], None)?.iter().try_for_each(|seen| seen.has_types(wanted))
    }
}

/// Runs a statement that must say that it changed so many rows.
fn changes(eden: &Eden, statement: &str, count: usize) -> Outcome {
    let answer = run_sql(eden, statement)?;
    if answer["rowcount"].as_u64() == Some(count as u64) {
        return Ok(());
    }
    Err(format!("{statement}: {} rows, expected {count}", answer["rowcount"]))
}

fn run(eden: &Eden, statement: &str) -> Outcome {
    run_sql(eden, statement).map(drop)
}

fn reading(n: i64, rng: &mut Rng) -> Reading {
    let random = rng.next_u64();
    // Seven minutes apart: three days.
    let mut reading = Reading::at("press", START_US + n * 431_000_001).tag("line", &format!("l {}", n % 3));
    if n % 11 != 0 {
        reading = reading.tag("machine", &format!("m{}", n % 7));
    }
    // More digits than a double or the statistics have for sure.
    let large = if n % 50 == 0 { 1_234_567_890_123_000 } else { 0 };
    reading = reading.field("temperature", (large + (random % 4_000) as i64 - 2_000) as f64 / 10.0);
    if n % 4 != 0 {
        reading = reading.field("strokes", (random % 2_000_000_000) as i64 - 1_000_000_000);
    }
    if n % 5 != 0 {
        reading = reading.field("total", random).field("ok", random.is_multiple_of(2));
    }
    if n % 7 == 0 {
        reading = reading.field("fine", (random % 100) as f64 / 1e9);
    }
    // The long ones are cut in the statistics.
    let long = ["x", "ö"][(n % 2) as usize].repeat(60 + (n % 5) as usize);
    let notes = ["", "5", "söft \"x\"", &long];
    if n % 3 == 0 { reading.field("note", notes[(n / 3 % 4) as usize]) } else { reading }
}

fn declared(eden: &Eden, press: &mut Table<'_>) -> Outcome {
    changes(eden, PRESS, 1)?;
    press.agree(eden, "a declared table without a row")?;
    let mut rng = Rng::new(11);
    let readings: Vec<_> = (0..ROWS).map(|n| reading(n, &mut rng)).collect();
    press.write(eden, &readings);
    press.agree(eden, "a declared table")?;
    let text = [("line", "text"), ("machine", "text"), ("note", "text"), ("time", "timestamp(us)")];
    press.has_types(eden, &text)?;
    press.filters_hide_nothing(eden, "a declared table")?;
    let numbers = [("temperature", "decimal(18,1)"), ("strokes", "int64"), ("total", "decimal(20,0)"), ("ok", "bool")];
    press.has_types(eden, &numbers)
}

fn many_flushes(eden: &Eden, press: &mut Table<'_>) -> Outcome {
    let mut rng = Rng::new(12);
    for flush in 0..20 {
        // Between the rows that are there, some of them new and some corrections.
        let is_known = |n: i64| flush % 5 == 0 && n % 3 == 0;
        let at = |n: i64| if is_known(n) { n * 20 } else { ROWS + flush * 20 + n };
        let mut readings: Vec<_> = (0..20).map(|n| reading(at(n), &mut rng)).collect();
        for (n, reading) in (0..).zip(&mut readings).filter(|(n, _)| !is_known(*n)) {
            reading.time_us = START_US + n * 431_000_001 + (flush + 1) * 1_000_000;
        }
        press.write(eden, &readings);
        eden.refresh(press.name);
    }
    press.agree(eden, "after many small flushes")?;
    let shards = DeltaLog::read(&eden.table(&press.folder)).files.len();
    changes(eden, "OPTIMIZE TABLE press", 1)?;
    let merged = DeltaLog::read(&eden.table(&press.folder)).files.len();
    // One a day.
    if merged != 3 {
        return Err(format!("OPTIMIZE made {merged} shards of {shards}"));
    }
    press.agree(eden, &format!("after OPTIMIZE of {shards} shards to {merged}"))
}

fn types_change(eden: &Eden, press: &mut Table<'_>) -> Outcome {
    let mut rng = Rng::new(13);
    let mut next = 2 * ROWS;
    for (column, to, seen) in [
        ("strokes", "DOUBLE", "double"),
        ("temperature", "DECIMAL(18,3)", "decimal(18,3)"),
        ("strokes", "DECIMAL(18,2)", "decimal(18,2)"),
        ("total", "DOUBLE", ""),
        ("temperature", "DOUBLE", "double"),
    ] {
        // Some rows are in memory only, some of them corrections.
        let rows: Vec<_> = (next - 5..next + 25).map(|n| reading(n, &mut rng)).collect();
        next += 25;
        press.write(eden, &rows);
        let changed = run(eden, &format!("ALTER TABLE press ALTER COLUMN {column} SET DATA TYPE {to}"));
        let step = format!("{column} as {to}");
        match (changed, seen) {
            // Of 64 bits a double has 53: not one of these numbers may change.
            (Err(_), "") => press.agree(eden, &format!("{step}, which is refused"))?,
            (Ok(()), "") => return Err(format!("{step} is not exact and was done")),
            (changed, seen) => {
                changed?;
                press.agree(eden, &step)?;
                press.has_types(eden, &[(column, seen)])?;
            }
        }
    }
    run(eden, "ALTER TABLE press ADD COLUMN speed DOUBLE, ADD COLUMN shift TEXT, ADD COLUMN d DECIMAL(18,18)")?;
    press.agree(eden, "with new columns")?;
    press.has_types(eden, &[("speed", "double"), ("shift", "text"), ("d", "decimal(18,18)")])?;
    let row = |n: i64| Reading::at("press", START_US + n).tag("line", "new").field("speed", n as f64 + 0.25);
    let rows: Vec<_> = (0..20).map(|n| row(n).field("shift", "late").field("d", n as f64 / 1024.0)).collect();
    press.write(eden, &rows);
    press.agree(eden, "with values in new columns")?;
    press.filters_hide_nothing(eden, "with values in new columns")
}

/// A column of whole numbers becomes one of floats by itself.
fn floats_come(eden: &Eden, clients: &Clients) -> Outcome {
    let mut widened = Table::new(clients, "widened");
    let at = |n: i64| Reading::at("widened", START_US + n * DAY_US / 10).tag("d", "a");
    let whole: Vec<_> = (0..30).map(|n| at(n).field("v", n).field("w", n)).collect();
    widened.write(eden, &whole);
    widened.agree(eden, "whole numbers")?;
    widened.write(eden, &[at(30).field("v", 7_i64)]);
    widened.write(eden, &[at(31).field("v", 7.5), at(3).field("v", 0.1 + 0.2)]);
    widened.agree(eden, "whole numbers and then floats")?;
    widened.has_types(eden, &[("v", "double"), ("w", "int64")])?;
    widened.filters_hide_nothing(eden, "whole numbers and then floats")
}

fn rows_go(eden: &mut Eden, press: &mut Table<'_>) -> Outcome {
    let is_machine = |name: &'static str| move |key: &Key| key.0.get("machine").is_some_and(|found| found == name);
    // What others see is the last flush.
    let before = press.by_sql(eden)?;
    let gone = press.expected.delete(is_machine("m3"));
    changes(eden, "DELETE FROM press WHERE machine = 'm3'", gone)?;
    let cleared = press.expected.clear("note", is_machine("m4"));
    changes(eden, "UPDATE press SET note = NULL WHERE machine = 'm4'", cleared)?;
    press.seen(eden, &[("the last flush", &before)], "rows and values that went and are not flushed")?;
    press.agree(eden, &format!("after DELETE of {gone} rows and UPDATE of {cleared}"))?;

    // Rows in memory, of a shard, and again after they went.
    let row = |n: i64| Reading::at("press", START_US + n).tag("line", "new");
    let rows: Vec<_> = (10..30).map(|n| row(n).field("shift", "night")).collect();
    press.write(eden, &rows);
    let is_new = |key: &Key| key.0.get("line").is_some_and(|line| line == "new");
    let gone = press.expected.delete(is_new);
    changes(eden, "DELETE FROM press WHERE line = 'new'", gone)?;
    press.write(eden, &[row(12).field("speed", 1.5), row(25).field("speed", 2.5)]);
    let second_day = START_US + DAY_US..START_US + 2 * DAY_US;
    let gone = press.expected.delete(|key| second_day.contains(&key.1));
    let day = "time >= '2026-06-02T00:00:00Z' AND time < '2026-06-03T00:00:00Z'";
    changes(eden, &format!("DELETE FROM press WHERE {day}"), gone)?;
    // Unsigned numbers of all rows: what is left has to go on.
    let cleared = press.expected.clear("total", |_| true);
    changes(eden, "UPDATE press SET total = NULL", cleared)?;
    eden.kill();
    eden.restart();
    press.agree(eden, "after a day is deleted, a column is NULL, kill -9, replay and flush")?;

    press.expected.delete(|_| true);
    run(eden, "DELETE FROM press")?;
    press.agree(eden, "after all rows are deleted")?;
    let mut rng = Rng::new(14);
    let readings: Vec<_> = (0..ROWS).map(|n| reading(n, &mut rng)).collect();
    press.write(eden, &readings);
    press.agree(eden, "with rows again")
}

/// A row of long ago makes a partition, and nothing else is written again.
fn a_late_row(eden: &Eden, press: &mut Table<'_>) -> Outcome {
    changes(eden, "OPTIMIZE TABLE press", 1)?;
    let folder = eden.table(&press.folder);
    let before = data_files(&folder)?;
    let mut rng = Rng::new(15);
    let mut late = reading(1, &mut rng);
    late.time_us = START_US - 100 * DAY_US;
    press.write(eden, &[late]);
    press.agree(eden, "with a row of 100 days ago")?;
    let mut after = data_files(&folder)?;
    after.retain(|path, length| before.get(path) != Some(length));
    let paths: Vec<_> = after.keys().filter_map(|path| path.strip_prefix(&folder).ok()).collect();
    if data_files(&folder)?.len() != before.len() + 1
        || !paths.iter().all(|path| path.starts_with("eden_day=2026-02-21"))
    {
        return Err(format!("a late row made the files {paths:?}"));
    }
    Ok(())
}

/// Data files with their lengths.
fn data_files(table: &Path) -> Result<BTreeMap<PathBuf, u64>, Failure> {
    let failed = |error: std::io::Error| format!("list {}: {error}", table.display());
    let mut files = BTreeMap::new();
    for day in fs::read_dir(table).map_err(failed)? {
        let day = day.map_err(failed)?.path();
        if day.ends_with("_delta_log") {
            continue;
        }
        for file in fs::read_dir(&day).map_err(failed)? {
            let file = file.map_err(failed)?;
            files.insert(file.path(), file.metadata().map_err(failed)?.len());
        }
    }
    Ok(files)
}

/// Others look for one value of a tag themselves, by the statistics and filters of the files.
fn one_tag(eden: &Eden, press: &mut Table<'_>) -> Outcome {
    let folder = [eden.table(&press.folder)];
    for (tag, value) in [("machine", "m3"), ("machine", "m33"), ("line", "l 1"), ("line", "")] {
        let expected = press.expected.of(tag, value).rows();
        let rows = run_sql(eden, &format!("SELECT * FROM press WHERE {tag} = '{value}'")).map(Rows::new)?;
        for seen in press.clients.read(&folder, Some((tag, value)))? {
            let agreed = seen.agree(&[("the expected", &expected), ("/_sql", &rows)]);
            agreed.map_err(|error| format!("WHERE {tag} = '{value}': {error}"))?;
        }
        println!("WHERE {tag} = '{value}': all find {} rows", expected.len());
    }
    Ok(())
}

/// The dropped table is empty to others; the next one of its name has a folder of its own.
fn dropped(eden: &Eden, press: &mut Table<'_>) -> Outcome {
    changes(eden, "DROP TABLE press", 1)?;
    press.expected.delete(|_| true);
    press.seen(eden, &[("nothing", &press.expected.rows())], "a dropped table")?;
    changes(eden, "CREATE TABLE press (machine TEXT, temperature TEXT, PRIMARY KEY (machine, time))", 1)?;
    let tables = eden.table("");
    let failed = |error: std::io::Error| format!("list {}: {error}", tables.display());
    for entry in fs::read_dir(&tables).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if name.strip_prefix("press!!").is_some_and(|id| id.len() == 8) {
            press.folder = name;
        }
    }
    if press.folder == press.name {
        return Err("a table made again has no folder press!!<id>".into());
    }
    let row = |n: i64| Reading::at("press", START_US + n).tag("machine", "m1").field("temperature", "hot");
    press.write(eden, &[row(0), row(1)]);
    press.agree(eden, "a table made again, of other types")
}

/// Rows of today and of ten days ago.
fn many_commits_and_a_retention<'a>(eden: &Eden, clients: &'a Clients) -> Result<Table<'a>, Failure> {
    let mut kept = Table::new(clients, "kept");
    let now = run_sql(eden, "SELECT now() AS time")?;
    let now_us = Rows::new(now).time_us(0);
    let at = |days: i64, n: i64| Reading::at("kept", now_us - days * DAY_US - n).tag("d", "a").field("n", n);
    let old: Vec<_> = (0..20).map(|n| at(10, n)).collect();
    kept.write(eden, &old);
    let new: Vec<_> = (0..20).map(|n| at(2, n)).collect();
    kept.write(eden, &new);
    kept.agree(eden, "with a day of ten days ago")?;
    run(eden, "ALTER TABLE kept SET (retention = '5d')")?;
    for n in 0..COMMITS {
        kept.write(eden, &[at(n % 2, n % 100 * 1_000_003)]);
        eden.refresh(kept.name);
        if n == COMMITS / 2 {
            // One checkpoint is made of all that has gathered: the second half is to have its own.
            let log = eden.table(kept.name).join("_delta_log");
            let first = wait::until(CLEANED_WITHIN, || log.join("_last_checkpoint").exists().then_some(()));
            first.ok_or_else(|| format!("no checkpoint after {} commits", n + 1))?;
        }
    }
    kept.expected.delete(|key| key.1 < now_us - 7 * DAY_US);
    if !matches!(eden.client().write(&[at(9, 0)]), harness::Outcome::Refused(400, _)) {
        return Err("a row older than the retention was not refused".into());
    }
    Ok(kept)
}

/// The day and the commits of before the checkpoints go by themselves.
fn cleaned(eden: &Eden, kept: Table<'_>) -> Outcome {
    let log = eden.table(kept.name).join("_delta_log");
    let first = log.join(format!("{:020}.json", 0));
    let wanted = kept.expected.rows().len();
    let mut last = String::new();
    let done = wait::until(CLEANED_WITHIN, || {
        let answer = run_sql(eden, "SELECT count(*) FROM kept").map(Rows::new);
        let count = answer.ok().and_then(|rows| rows.single().as_u64());
        last = format!("{count:?} rows, expected {wanted}; commit 0 is there: {}", first.exists());
        (count == Some(wanted as u64) && !first.exists()).then_some(())
    });
    done.ok_or_else(|| format!("not cleaned within {CLEANED_WITHIN:?}: {last}"))?;
    let names = fs::read_dir(&log).map_err(|error| format!("list {}: {error}", log.display()))?.flatten();
    let names: Vec<_> = names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let checkpoints = names.iter().filter(|name| name.ends_with(".checkpoint.parquet")).count();
    if checkpoints != 2 {
        return Err(format!("{checkpoints} checkpoints of {COMMITS} commits"));
    }
    kept.agree(eden, "after retention, two checkpoints and the end of old commits")
}
