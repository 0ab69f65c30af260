//! A day that never rests: 200 flushes with retries and corrections in between; then every value is compared, and a
//! query's cost with that of the same rows in few shards.

use std::path::Path;
use std::time::Duration;

use harness::delta_log::DeltaLog;
use harness::{Client, Eden, Outcome as WriteOutcome, cpu, wait};

use super::Scratch;
use super::fleet_day::{DEVICES, Extras, FleetDay, ROWS, TICKS, name};
use super::report::Report;
use crate::{Failure, Outcome};

const FLUSH_EVERY: usize = ROWS / 200;
const BATCH: usize = FLUSH_EVERY / 10;
const LARGE_SHARD: usize = 1_000_000;
const LARGE_BATCH: usize = 5_000;
const DEVICES_A_QUERY: usize = 20;
const RUNS: usize = 10;
const RATIO_MAX: f64 = 1.3;
const QUERY: &str = "SELECT count(*), sum(temperature) FROM env";

pub(crate) fn run() -> Outcome {
    let scratch = Scratch::new("hot-day").map_err(|error| format!("make a folder: {error}"))?;
    let what = format!(
        "{DEVICES} devices, {ROWS} rows of one UTC day, each device's clock off by a constant −30 … +30 s, arrival by true \
         time, a flush after each {FLUSH_EVERY} rows, 0.1 % retries and 0.1 % corrections of earlier rows. All values are \
         compared with the oracle; then `{QUERY}`, warm, {RUNS} alternated runs, against the same rows in shards of \
         {LARGE_SHARD}."
    );
    let mut report = Report::new("hot-day", what);
    let mut day = FleetDay::new(42);

    let hot = start(scratch.path(), "hot");
    let start_of_load = wait::now();
    let extras = load_with_flushes(&hot, &mut day)?;
    report.figure("loading and 200 flushes s", "load_s", start_of_load.elapsed().as_secs_f64(), 1);
    report.figure(
        "server CPU µs/row of it",
        "load_cpu_us_per_row",
        cpu::time_of(hot.pid()).as_secs_f64() * 1e6 / ROWS as f64,
        3,
    );
    report.figure("retries", "retries", extras.retries as f64, 0);
    report.figure("corrections", "corrections", extras.corrections as f64, 0);
    compare(&hot, &day)?;
    report.remark(format!("All {ROWS} rows and {} values equal the oracle's (`_sql` = oracle).", ROWS * 3));

    let large = start(scratch.path(), "large");
    load_large_shards(&large, &day)?;
    compare_totals(&large, &day)?;
    report.figure("shards after 200 flushes", "shards_hot", DeltaLog::read(&hot.table("env")).files.len() as f64, 0);
    report.figure("shards of 1 M rows", "shards_large", DeltaLog::read(&large.table("env")).files.len() as f64, 0);

    let (hot_cpu, large_cpu) = measure(&hot, &large)?;
    let ratio = hot_cpu.as_secs_f64() / large_cpu.as_secs_f64();
    report.figure("query CPU ms, 200 flushes (median)", "query_cpu_ms_hot", hot_cpu.as_secs_f64() * 1e3, 2);
    report.figure("query CPU ms, shards of 1 M (median)", "query_cpu_ms_large", large_cpu.as_secs_f64() * 1e3, 2);
    report.figure("ratio", "ratio", ratio, 2);
    report.remark(format!(
        "Expected ratio: at most {RATIO_MAX}; {}.",
        if ratio <= RATIO_MAX { "held" } else { "NOT held" }
    ));
    report.write()
}

fn start(folder: &Path, name: &str) -> Eden {
    // Flushes happen only when we say so: a table's memory is large enough for the large shards.
    Eden::options(name)
        .release()
        .setting("EDEN_STORAGE_TABLE_MEMORY", "1GiB")
        .setting("EDEN_STORAGE_MEMORY", "2GiB")
        .folder(&folder.join(name))
        .start()
}

fn load_with_flushes(eden: &Eden, day: &mut FleetDay) -> Result<Extras, Failure> {
    let (mut client, mut lines, mut total) = (eden.client(), String::new(), Extras::default());
    for flush in 0..ROWS / FLUSH_EVERY {
        for _ in 0..FLUSH_EVERY / BATCH {
            let extras = day.next_batch(BATCH, &mut lines);
            total.retries += extras.retries;
            total.corrections += extras.corrections;
            write(&mut client, &lines)?;
        }
        eden.refresh("env");
        if (flush + 1) % 20 == 0 {
            println!("{} flushes", flush + 1);
        }
    }
    Ok(total)
}

fn load_large_shards(eden: &Eden, day: &FleetDay) -> Outcome {
    let (mut client, mut lines, mut from) = (eden.client(), String::new(), 0);
    while from < ROWS {
        let rows = LARGE_BATCH.min(ROWS - from);
        day.final_rows(from, rows, &mut lines);
        write(&mut client, &lines)?;
        from += rows;
        if from % LARGE_SHARD == 0 || from == ROWS {
            eden.refresh("env");
        }
    }
    Ok(())
}

fn write(client: &mut Client, lines: &str) -> Outcome {
    match client.write_lp(lines.as_bytes()) {
        WriteOutcome::Acked => Ok(()),
        other => Err(format!("a batch was not acknowledged: {other:?}")),
    }
}

/// Every row of every device, some devices at a time.
fn compare(eden: &Eden, day: &FleetDay) -> Outcome {
    compare_totals(eden, day)?;
    for first in (0..DEVICES).step_by(DEVICES_A_QUERY) {
        let devices = first..DEVICES.min(first + DEVICES_A_QUERY);
        let rows = eden.sql(&format!(
            "SELECT device, time, temperature, pressure, humidity FROM env WHERE device BETWEEN '{}' AND '{}' \
             ORDER BY device, time",
            name(devices.start),
            name(devices.end - 1)
        ));
        if rows.len() != devices.len() * TICKS {
            return Err(format!("devices {devices:?} have {} rows, expected {}", rows.len(), devices.len() * TICKS));
        }
        let expected = devices.flat_map(|device| day.expected(device).map(move |reading| (device, reading)));
        for (row, (device, (time_us, values))) in expected.enumerate() {
            let stored = rows.row(row);
            let same_key = stored[0] == name(device) && rows.time_us(row) == time_us;
            let same_values =
                stored[2..].iter().zip(values).all(|(cell, tenths)| cell.as_f64() == Some(f64::from(tenths) / 10.0));
            if !same_key || !same_values {
                return Err(format!("{stored:?}, expected {} at {time_us} µs, tenths {values:?}", name(device)));
            }
        }
    }
    Ok(())
}

fn compare_totals(eden: &Eden, day: &FleetDay) -> Outcome {
    let totals = eden.sql(QUERY);
    let (count, sum) = (totals.row(0)[0].as_u64(), totals.row(0)[1].as_f64().unwrap_or(f64::NAN));
    let expected = day.temperature_sum() as f64 / 10.0;
    // Floating sums differ in their last digits with the order of addition.
    if count != Some(ROWS as u64) || (sum - expected).abs() > expected.abs() * 1e-9 {
        return Err(format!("count and sum are {count:?} and {sum}, expected {ROWS} and {expected}"));
    }
    Ok(())
}

/// Median CPU time of the query on either server, run by run in turn after a warm-up.
fn measure(hot: &Eden, large: &Eden) -> Result<(Duration, Duration), Failure> {
    let (mut hot_client, mut large_client) = (hot.client(), large.client());
    let one = |client: &mut Client, eden: &Eden| -> Result<Duration, Failure> {
        let before = cpu::fine_time_of(eden.pid());
        client.sql(QUERY)?;
        Ok(cpu::fine_time_of(eden.pid()).saturating_sub(before))
    };
    let (mut hot_times, mut large_times) = (Vec::new(), Vec::new());
    for run in 0..RUNS + 3 {
        let times = (one(&mut hot_client, hot)?, one(&mut large_client, large)?);
        if run >= 3 {
            hot_times.push(times.0);
            large_times.push(times.1);
        }
    }
    Ok((median(hot_times), median(large_times)))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
