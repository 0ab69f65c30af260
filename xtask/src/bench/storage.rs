//! What a row costs in shards: bytes a value, CPU of flush and compaction, and how often a byte is written.

use std::process::{Command, Stdio};

use harness::{Profile, program};
use serde_json::Value;

use super::report::Report;
use super::{Scratch, bytes_below};
use crate::command::in_root;
use crate::{Failure, Outcome};

const ROWS: u64 = 10_000_000;
const FIELDS: u64 = 3;

/// How the workload is stored.
struct Layout {
    name: &'static str,
    key: &'static str,
    arguments: &'static [&'static str],
}

const LAYOUTS: [Layout; 4] = [
    Layout { name: "floats", key: "floats", arguments: &[] },
    Layout { name: "DECIMAL(9,1)", key: "decimals", arguments: &["--digits", "9"] },
    Layout { name: "DECIMAL(18,1)", key: "decimals_18", arguments: &["--digits", "18"] },
    Layout { name: "floats, flushed at 8 MiB", key: "small_flushes", arguments: &["--table-memory-mib", "8"] },
];

pub(crate) fn run() -> Outcome {
    let scratch = Scratch::new("storage").map_err(|error| format!("make a folder: {error}"))?;
    let iotgen = program(Profile::Release, "iotgen", "iotgen");
    let shardbench = program(Profile::Release, "shardbench", "shardbench");
    let mut report = Report::new(
        "storage",
        format!(
            "{ROWS} rows of `iotgen gen` parsed and written to a storage in one process, 5000 a batch, each batch durable \
             before the next; then flushed and compacted until nothing is left to do. Bytes a value are of all that lies \
             in the table's folder, Delta log included. CPU is that of the threads that flush and compact."
        ),
    );
    let mut table = String::from(
        "| layout | bytes a value | shards | CPU µs/row, flush | CPU µs/row, compaction | written ÷ final bytes | log, bytes a row |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for layout in &LAYOUTS {
        let data = scratch.path().join(layout.key);
        let result = load(&iotgen, &shardbench, &data, layout)?;
        let number = |key: &str| result[key].as_f64().ok_or_else(|| format!("shardbench said no {key}: {result}"));
        let cpu = |when: &str, thread: &str| result[when][thread].as_f64().unwrap_or_default() / 1e3 / ROWS as f64;
        if number("rows")? != ROWS as f64 {
            return Err(format!("not all rows were stored: {result}"));
        }
        let folder = data.join("tables");
        let live = number("shard_bytes")?;
        let log = bytes_below(&folder, ".json").map_err(|error| format!("measure {}: {error}", folder.display()))?;
        let checkpoints =
            bytes_below(&folder, ".checkpoint.parquet").map_err(|e| format!("measure {}: {e}", folder.display()))?;
        let per_value = (live + log as f64 + checkpoints as f64) / (ROWS * FIELDS) as f64;
        let flush = cpu("cpu_ns", "flush");
        // What the main thread merges after the load is compaction too.
        let compaction = cpu("cpu_ns", "maintain") + cpu("cpu_ns", "shardbench") - cpu("cpu_ns_loaded", "shardbench");
        let written = (number("shard_bytes_written")? + log as f64 + checkpoints as f64) / live;
        let log_per_row = number("log_bytes_written")? / ROWS as f64;
        let shards = number("shards")?;
        table += &format!(
            "| {} | {per_value:.3} | {shards:.0} | {flush:.3} | {compaction:.3} | {written:.2} | {log_per_row:.1} |\n",
            layout.name
        );
        report.data(layout.key, result);
    }
    report.table(table);
    report.write()
}

fn load(
    iotgen: &std::path::Path,
    shardbench: &std::path::Path,
    data: &std::path::Path,
    layout: &Layout,
) -> Result<Value, Failure> {
    println!("{}", layout.name);
    let failed = |error: std::io::Error| format!("run {}: {error}", shardbench.display());
    let mut lines = in_root(iotgen)
        .args(["gen", "--rows", &ROWS.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("run {}: {error}", iotgen.display()))?;
    let input = lines.stdout.take().expect("it was asked for");
    let output = Command::new(shardbench)
        .arg("--data")
        .arg(data)
        .args(layout.arguments)
        .stdin(input)
        .stderr(Stdio::inherit())
        .output()
        .map_err(failed)?;
    let generated = lines.wait().map_err(failed)?;
    if !output.status.success() || !generated.success() {
        return Err(format!("shardbench ended with {}, iotgen with {generated}", output.status));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("shardbench wrote no JSON: {error}"))
}
