//! A year that arrives in random order of its days: what a day of it costs to read, and what the load takes.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use harness::{Eden, Outcome as WriteOutcome, Rng, cpu, wait};

use super::report::Report;
use super::{Scratch, metric};
use crate::Outcome;

const DAYS: usize = 365;
const DEVICES: usize = 100;
const MINUTES: usize = 1_440;
const ROWS: usize = DAYS * DEVICES * MINUTES;
const BATCH: usize = 10_000;
/// 2025-01-01T00:00:00Z.
const START_S: i64 = 1_735_689_600;
const DAY_S: i64 = 86_400;
const SEED: u64 = 7;
/// A day of it, and the next.
const ONE_DAY: (&str, &str) = ("2025-07-02", "2025-07-03");
/// Rows in memory and in transit (256 MiB and 64 MiB by default), queries, and the program.
const MEMORY_MAX: u64 = 1 << 30;
const SETTLED_WITHIN: Duration = Duration::from_secs(600);

pub(crate) fn run() -> Outcome {
    let scratch = Scratch::new("year").map_err(|error| format!("make a folder: {error}"))?;
    let what = format!(
        "{DAYS} days × {DEVICES} devices × {MINUTES} minutes, {ROWS} rows, loaded day by day in random order (seed {SEED}), \
         {BATCH} rows a request on one connection, each durable before the next. Then a day of it, and all of it, are asked \
         for, before and after compaction."
    );
    let mut report = Report::new("year", what);
    let eden = Eden::options("year").release().folder(&scratch.path().join("eden")).start();
    let started = wait::now();
    load(&eden)?;
    let load_s = started.elapsed().as_secs_f64();
    report.figure("load, s", "load_s", load_s, 0);
    report.figure("load, rows/s", "load_rows_per_s", ROWS as f64 / load_s, 0);
    eden.refresh("env");
    let us_row = |time: Duration| time.as_secs_f64() * 1e6 / ROWS as f64;
    report.figure("server CPU up to here, µs/row", "cpu_us_row", us_row(cpu::time_of(eden.pid())), 3);
    ask(&eden, &mut report, "before compaction")?;
    let compactions = || metric(&eden, "eden_storage_compactions_total").unwrap_or_default();
    let mut last = (compactions(), wait::now());
    wait::until(SETTLED_WITHIN, || {
        let now = compactions();
        if now > last.0 {
            last = (now, wait::now());
        }
        (last.1.elapsed() > Duration::from_secs(30)).then_some(())
    })
    .ok_or("compaction does not come to an end")?;
    ask(&eden, &mut report, "after compaction")?;
    let written = metric(&eden, "eden_storage_shard_bytes_written_total")?;
    report.figure("shard bytes written, a row", "written_bytes_row", written / ROWS as f64, 2);
    let peak = cpu::peak_memory_bytes(eden.pid());
    report.figure("peak RSS, MiB", "peak_rss_mib", (peak >> 20) as f64, 0);
    let held = peak <= MEMORY_MAX;
    report.remark(format!(
        "Expected: peak RSS of at most {} MiB; {}. Each query of one day read shards of that day only, and every count was \
         right.",
        MEMORY_MAX >> 20,
        if held { "held" } else { "NOT held" }
    ));
    report.write()
}

fn load(eden: &Eden) -> Outcome {
    let mut rng = Rng::new(SEED);
    let mut days: Vec<usize> = (0..DAYS).collect();
    for place in (1..days.len()).rev() {
        days.swap(place, rng.below(place as u64 + 1) as usize);
    }
    let mut client = eden.client();
    let mut lines = String::new();
    for (loaded, day) in days.into_iter().enumerate() {
        let mut rows = 0;
        for minute in 0..MINUTES {
            let time = START_S + day as i64 * DAY_S + minute as i64 * 60;
            for device in 0..DEVICES {
                let tenths = 200 + (minute / 10 + device * 3 + day) % 97;
                let pressure = 9_900 + (minute / 7 + device * 11 + day * 5) % 301;
                writeln!(
                    lines,
                    "env,device=dev-{device:03} temperature={}.{},pressure={}.{} {time}000000000",
                    tenths / 10,
                    tenths % 10,
                    pressure / 10,
                    pressure % 10
                )
                .expect("a String takes everything");
                rows += 1;
                if rows % BATCH == 0 || rows == MINUTES * DEVICES {
                    match client.write_lp(lines.as_bytes()) {
                        WriteOutcome::Acked => lines.clear(),
                        other => return Err(format!("a batch of day {day} was not acknowledged: {other:?}")),
                    }
                }
            }
        }
        if (loaded + 1) % 50 == 0 {
            println!("{} days of {DAYS}", loaded + 1);
        }
    }
    Ok(())
}

/// Counts, and which shards a day touches.
fn ask(eden: &Eden, report: &mut Report, when: &'static str) -> Outcome {
    let count = eden.sql("SELECT count(*) FROM env").single().as_u64();
    if count != Some(ROWS as u64) {
        return Err(format!("count(*) is {count:?}, expected {ROWS}"));
    }
    let timed = |statement: &str| {
        let start = wait::now();
        let rows = eden.sql(statement);
        (rows, start.elapsed())
    };
    let (all, took) = timed("SELECT count(temperature), min(pressure), max(time) FROM env");
    if all.row(0)[0].as_u64() != Some(ROWS as u64) {
        return Err(format!("count(temperature) is {}, expected {ROWS}", all.row(0)[0]));
    }
    let (from, to) = ONE_DAY;
    let range = format!("time >= '{from}' AND time < '{to}'");
    let (count, one_took) = timed(&format!("SELECT count(temperature) FROM env WHERE {range}"));
    if count.single().as_u64() != Some((DEVICES * MINUTES) as u64) {
        return Err(format!("{from} has {} rows, expected {}", count.single(), DEVICES * MINUTES));
    }
    let plan = eden.sql(&format!("EXPLAIN ANALYZE SELECT avg(temperature) FROM env WHERE {range}"));
    let text: String = (0..plan.len()).flat_map(|row| plan.row(row)).map(|cell| format!("{cell}\n")).collect();
    let paths = text.split("eden_day=").skip(1).filter_map(|rest| rest.get(..10)).collect::<Vec<_>>();
    let days: BTreeSet<&str> = paths.iter().copied().collect();
    if days != BTreeSet::from([from]) {
        return Err(format!("a query of {from} reads shards of {days:?}:\n{text}"));
    }
    report.remark(format!(
        "{when}: a query of one day ({from}) reads {} shard(s), all of that day, in {:.1} ms; `count` and `min` over all of the \
         year's rows take {:.0} ms.",
        paths.len(),
        one_took.as_secs_f64() * 1e3,
        took.as_secs_f64() * 1e3
    ));
    Ok(())
}
