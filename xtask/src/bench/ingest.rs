//! How fast durable rows come in over HTTP, and what a row costs in all, beside two peers in the same minutes.

use std::fmt::Write;
use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use harness::{Eden, Profile, cpu, program};
use serde_json::{Value, json};

use super::peer::{Kind, Peer};
use super::report::Report;
use super::{Scratch, bytes_below};
use crate::command::{in_root, output, run as run_command};
use crate::{Failure, Outcome};

const ROWS: u64 = 10_000_000;
const FIELDS: u64 = 3;
const BATCH: &str = "5000";
const CONNECTIONS: &str = "4";

pub(crate) fn run() -> Outcome {
    let scratch = Scratch::new("ingest").map_err(|error| format!("make a folder: {error}"))?;
    let iotgen = program(Profile::Release, "iotgen", "iotgen");
    let lines = scratch.path().join("env.lp");
    let file = File::create(&lines).map_err(|error| format!("create {}: {error}", lines.display()))?;
    let rows = ROWS.to_string();
    println!("generating {rows} lines");
    run_command(in_root(&iotgen).args(["gen", "--rows", &rows]).stdout(Stdio::from(file)))?;

    let what = format!(
        "{ROWS} rows of `iotgen gen`, line protocol over HTTP, {BATCH} rows a request, {CONNECTIONS} \
                        connections; every answer follows its sync. The client runs on the same machine."
    );
    let mut report = Report::new("ingest", what);
    let mut eden = Eden::options("bench-ingest").release().folder(&scratch.path().join("eden")).start();
    let pid = eden.pid();
    let cpu_before = cpu::time_of(pid);
    let url = format!("http://{}/api/v3/write_lp?db=public&precision=nanosecond", eden.address());
    println!("loading");
    let loaded = load(&url, &lines)?;
    let cpu_loaded = cpu::time_of(pid) - cpu_before;
    eden.refresh("env");
    let cpu_flushed = cpu::time_of(pid) - cpu_before;
    let memory = cpu::peak_memory_bytes(pid);
    let threads = cpu_by_thread(pid);
    let stored = eden.sql("SELECT count(*) FROM env").single().as_u64();
    if stored != Some(ROWS) {
        return Err(format!("{stored:?} rows are stored, expected {ROWS}"));
    }
    let status = eden.stop();
    if !status.success() {
        return Err(format!("eden ended with {status}"));
    }
    let disk = disk_bytes(&eden)?;

    report.figure("rows/s, acknowledged durable", "rows_per_s", loaded.rows_per_s, 0);
    report.figure("server CPU µs/row, at the last ack", "cpu_us_per_row_at_last_ack", micros_a_row(cpu_loaded), 3);
    report.figure("server CPU µs/row, all flushed", "cpu_us_per_row", micros_a_row(cpu_flushed), 3);
    report.figure("batch p50 ms", "batch_p50_ms", loaded.p50_ms, 1);
    report.figure("batch p99 ms", "batch_p99_ms", loaded.p99_ms, 1);
    report.figure("batch max ms", "batch_max_ms", loaded.max_ms, 1);
    report.figure("peak RSS MB", "peak_rss_mb", memory as f64 / 1e6, 0);
    report.figure("bytes a value in shards", "shard_bytes_per_value", disk.shards as f64 / (ROWS * FIELDS) as f64, 3);
    report.figure("shards", "shards", disk.shard_count as f64, 0);
    report.figure("Delta log MB", "delta_log_mb", disk.delta_log as f64 / 1e6, 2);
    report.remark(format!("Eden's CPU by its living threads, all flushed:\n\n```text\n{threads}```"));

    let mut table = "| | rows/s | ratio | server CPU µs/row | ratio | batch p50 / p99 ms |\n| --- | --- | --- | --- | --- | --- |\n\
                     "
        .to_owned();
    let (ours, our_rate) = (micros_a_row(cpu_flushed), loaded.rows_per_s);
    let mut add = |name: &str, loaded: &Loaded, cpu: f64| {
        let row = writeln!(
            table,
            "| {name} | {:.0} | {:.2} | {cpu:.2} | {:.2} | {:.1} / {:.1} |",
            loaded.rows_per_s,
            loaded.rows_per_s / our_rate,
            cpu / ours,
            loaded.p50_ms,
            loaded.p99_ms
        );
        row.map_err(|error| error.to_string())
    };
    add("Eden (durable at the reply)", &loaded, ours)?;
    for kind in [Kind::VictoriaMetrics, Kind::InfluxDb] {
        println!("loading {}", kind.name());
        let peer = Peer::start(kind, &scratch.path().join(kind.key()))?;
        let before = cpu::time_of(peer.pid());
        let loaded = load(&peer.write_url(), &lines)?;
        peer.settle()?;
        let cpu = micros_a_row(cpu::time_of(peer.pid()) - before);
        add(kind.name(), &loaded, cpu)?;
        report.data(
            kind.key(),
            json!({ "rows_per_s": loaded.rows_per_s, "cpu_us_per_row": cpu, "p99_ms": loaded.p99_ms }),
        );
    }
    report.table(table);
    report.write()
}

/// What the loader says.
struct Loaded {
    rows_per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

/// Posts all lines.
fn load(url: &str, lines: &Path) -> Result<Loaded, Failure> {
    let iotgen = program(Profile::Release, "iotgen", "iotgen");
    let arguments = ["load", "--url", url, "--batch", BATCH, "--conns", CONNECTIONS, "--file"];
    let said = output(in_root(&iotgen).args(arguments).arg(lines))?;
    let said: Value = serde_json::from_str(&said).map_err(|error| format!("{said}: {error}"))?;
    let number = |key: &str| said[key].as_f64().ok_or_else(|| format!("iotgen said no {key}: {said}"));
    if number("failed")? != 0.0 || number("rows")? != ROWS as f64 {
        return Err(format!("not all rows were acknowledged: {said}"));
    }
    Ok(Loaded {
        rows_per_s: number("rows_per_s")?,
        p50_ms: number("p50_ms")?,
        p99_ms: number("p99_ms")?,
        max_ms: number("max_ms")?,
    })
}

fn micros_a_row(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6 / ROWS as f64
}

/// µs a row of each kind of thread, the costliest first.
fn cpu_by_thread(pid: u32) -> String {
    let mut by_name: Vec<(String, Duration)> = Vec::new();
    for (name, time) in cpu::time_by_thread(pid) {
        match by_name.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += time,
            None => by_name.push((name, time)),
        }
    }
    by_name.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
    by_name.retain(|(_, time)| micros_a_row(*time) >= 0.001);
    by_name.iter().map(|(name, time)| format!("{name:16} {:.3}\n", micros_a_row(*time))).collect()
}

struct DiskUse {
    shards: u64,
    shard_count: usize,
    delta_log: u64,
}

fn disk_bytes(eden: &Eden) -> Result<DiskUse, Failure> {
    let table = eden.table("env");
    let failed = |error: std::io::Error| format!("measure {}: {error}", table.display());
    let log = harness::delta_log::DeltaLog::read(&table);
    let mut shards = 0;
    for path in log.files.keys() {
        shards += table.join(path).metadata().map_err(failed)?.len();
    }
    let delta_log = bytes_below(&table.join("_delta_log"), "").map_err(failed)?;
    Ok(DiskUse { shards, shard_count: log.files.len(), delta_log })
}
