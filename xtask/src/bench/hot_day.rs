//! A day that never rests: 200 flushes with retries and corrections in between; then every value is compared, and a
//! query's cost with that of the same rows in few shards.

use std::path::Path;
use std::time::Duration;

use harness::delta_log::DeltaLog;
use harness::{Client, Eden, Outcome as WriteOutcome, cpu, wait};

use super::fleet_day::{Clocks, DEVICES, Extras, FleetDay, ROWS, TICKS, name};
use super::report::Report;
use super::{Scratch, metric};
use crate::{Failure, Outcome};

const FLUSHES: usize = 200;
const BATCH: usize = 4_320;
/// A table that has more rows than so many bytes in memory is flushed: about 200 times a day.
const TABLE_MEMORY: &str = "2MiB";
const DEVICES_A_QUERY: usize = 20;
const RUNS: usize = 10;
const RATIO_MAX: f64 = 1.1;
const WAIT_MAX: Duration = Duration::from_secs(10);
const QUERY: &str = "SELECT count(*), sum(temperature) FROM env";

pub(crate) fn run() -> Outcome {
    let scratch = Scratch::new("hot-day").map_err(|error| format!("make a folder: {error}"))?;
    let what = format!(
        "{DEVICES} devices, {ROWS} rows of one UTC day, clocks off by −30 … +30 s, arrival by true time, flushes whenever the \
         table has {TABLE_MEMORY} in memory, 0.1 % retries and 0.1 % corrections of earlier rows; once with a constant offset \
         for each device, once with another for each reading. When no row waits any more all values are compared with the \
         oracle; then `{QUERY}`, warm, {RUNS} runs, against the same day after `OPTIMIZE TABLE`."
    );
    let mut report = Report::new("hot-day", what);
    let mut table = String::from(
        "| clocks | load s | server CPU µs/row | flushes | settled s after the last write | shards | query CPU ms | shards compacted | query CPU ms | ratio | shard bytes written ÷ final |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let mut held = true;
    for (name, clocks) in [("constant", Clocks::Off), ("jitter", Clocks::Jitter)] {
        let mut day = FleetDay::new(42, clocks);
        let hot = start(scratch.path(), name);
        let started = wait::now();
        load(&hot, &mut day)?;
        let load_s = started.elapsed().as_secs_f64();
        let last_write = wait::now();
        let none_waits = || (metric(&hot, "eden_storage_waiting_rows") == Ok(0.0)).then_some(());
        wait::until(WAIT_MAX * 6, none_waits).ok_or("rows still wait a minute after the last write")?;
        let settled = last_write.elapsed();
        held &= settled <= WAIT_MAX;
        hot.refresh("env");
        let cpu_row = cpu::time_of(hot.pid()).as_secs_f64() * 1e6 / ROWS as f64;
        let flushes = metric(&hot, "eden_storage_flushes_total")?;
        compare(&hot, &day)?;
        let shards_hot = DeltaLog::read(&hot.table("env")).files.len();
        let hot_cpu = measure(&hot)?;
        hot.sql("OPTIMIZE TABLE env");
        compare_totals(&hot, &day)?;
        let log = DeltaLog::read(&hot.table("env"));
        let compacted_cpu = measure(&hot)?;
        let final_bytes = log
            .files
            .keys()
            .try_fold(0, |sum, path| Ok::<u64, std::io::Error>(sum + hot.table("env").join(path).metadata()?.len()));
        let final_bytes = final_bytes.map_err(|error| format!("measure shards: {error}"))?;
        let written = metric(&hot, "eden_storage_shard_bytes_written_total")? / final_bytes as f64;
        let ratio = hot_cpu.as_secs_f64() / compacted_cpu.as_secs_f64();
        held &= ratio <= RATIO_MAX;
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        table += &format!(
            "| {name} | {load_s:.0} | {cpu_row:.3} | {flushes:.0} | {:.1} | {shards_hot} | {:.1} | {} | {:.1} | {ratio:.2} | {written:.2} |\n",
            settled.as_secs_f64(),
            ms(hot_cpu),
            log.files.len(),
            ms(compacted_cpu)
        );
    }
    report.table(table);
    report.remark(format!("All {ROWS} rows and {} values of each day equal the oracle's (`_sql` = oracle).", ROWS * 3));
    report.remark(format!(
        "Expected: a ratio of at most {RATIO_MAX}, and no row waiting {} s after the last write; {}. About {FLUSHES} flushes were \
         meant.",
        WAIT_MAX.as_secs(),
        if held { "held" } else { "NOT held" }
    ));
    report.write()
}

fn start(folder: &Path, name: &str) -> Eden {
    Eden::options(name).release().setting("EDEN_STORAGE_TABLE_MEMORY", TABLE_MEMORY).folder(&folder.join(name)).start()
}

fn load(eden: &Eden, day: &mut FleetDay) -> Result<Extras, Failure> {
    let (mut client, mut lines, mut total) = (eden.client(), String::new(), Extras::default());
    for batch in 0..ROWS / BATCH {
        let extras = day.next_batch(BATCH, &mut lines);
        total.retries += extras.retries;
        total.corrections += extras.corrections;
        write(&mut client, &lines)?;
        if (batch + 1) % 500 == 0 {
            println!("{} batches of {}", batch + 1, ROWS / BATCH);
        }
    }
    Ok(total)
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

/// Median CPU time of the query, after a warm-up.
fn measure(eden: &Eden) -> Result<Duration, Failure> {
    let mut client = eden.client();
    let mut times = Vec::new();
    for run in 0..RUNS + 3 {
        let before = cpu::fine_time_of(eden.pid());
        client.sql(QUERY)?;
        if run >= 3 {
            times.push(cpu::fine_time_of(eden.pid()).saturating_sub(before));
        }
    }
    Ok(median(times))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
