//! The five queries of `bench/peers.md` on 10 M rows beside DuckDB: with the last hour in memory, settled, and while rows
//! come in at half the speed that the server can take; and what queries do to acknowledgements.

use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::delta_log::DeltaLog;
use harness::{Eden, Profile, program, wait};
use serde_json::{Value, json};

use super::report::Report;
use super::{Scratch, metric};
use crate::command::{in_root, output, run as run_command};
use crate::{Failure, Outcome, interop};

const SCRIPT: &str = "bench/queries/compare.py";
const REQUIREMENTS: &str = "bench/queries/requirements.txt";
const ROWS: u64 = 10_000_000;
/// 1,000 devices, a row each 10 s.
const ROWS_OF_AN_HOUR: u64 = 360_000;
/// As `iotgen` has them: devices, the time between two rows of one, the first time.
const DEVICES: u64 = 1_000;
const INTERVAL_MS: u64 = 10_000;
const START_MS: u64 = 1_780_272_000_000;
const RUNS: &str = "7";
const BATCH: &str = "5000";
const CONNECTIONS: &str = "4";
/// Loads with and without queries, one after the other.
const PAIRS: u64 = 10;
/// Rows of each, as seconds at half speed.
const PAIR_SECONDS: u64 = 4;
/// Goals: times of Eden by DuckDB's on its own table, at most.
const GOALS: [(&str, f64); 5] = [("q1", 1.0), ("q2", 1.0), ("q3", 1.0), ("q4", 1.5), ("q5", 1.5)];
/// Background work that did nothing for so long is over.
const QUIET: Duration = Duration::from_secs(5);
const QUIET_WITHIN: Duration = Duration::from_secs(180);

struct Bench {
    iotgen: PathBuf,
    python: PathBuf,
    eden: Eden,
    /// All rows as CSV, for DuckDB.
    csv: PathBuf,
    database: PathBuf,
}

pub(super) fn run() -> Outcome {
    let scratch = Scratch::new("queries").map_err(|error| format!("make a folder: {error}"))?;
    let folder = scratch.path();
    let iotgen = program(Profile::Release, "iotgen", "iotgen");
    let python = interop::python("bench", Path::new(REQUIREMENTS))?;
    println!("generating {ROWS} lines");
    let (lines, csv) = (folder.join("env.lp"), folder.join("env.csv"));
    generate(&iotgen, &lines, ROWS, &[])?;
    generate(&iotgen, &csv, ROWS, &["--format", "csv", "--precision", "us"])?;
    let eden = Eden::options("bench-queries").release().folder(&folder.join("eden")).start();
    let bench = Bench { iotgen, python, eden, csv, database: folder.join("env.duckdb") };

    let mut report = Report::new(
        "queries",
        format!(
            "{ROWS} rows of `iotgen gen`. p50 of {RUNS} runs, Eden (over HTTP, `/_sql`) and DuckDB 2.0.0 (in process, on its \
             own table as it came, and on Eden's shards) alternated run by run; the ratio is the median of the runs' ratios. \
             All answers agree. Goals: q1, q2, q3 faster than DuckDB on its own table, q4 and q5 within 1.5, q1 below 5 ms."
        ),
    );
    let rate = bench.load_most(&lines)?;
    report.figure("rows/s that came in, durable", "rows_per_s", rate, 0);
    let in_memory = metric(&bench.eden, "eden_storage_memory_rows")?;
    if in_memory < ROWS_OF_AN_HOUR as f64 {
        return Err(format!("{in_memory} rows are in memory, expected {ROWS_OF_AN_HOUR}"));
    }
    bench.compare(&mut report, "the last hour in memory", "in_memory", &[])?;
    bench.eden.refresh("env");
    bench.settle()?;
    let shards = bench.shards();
    bench.compare(&mut report, &format!("settled, {} shards", shards.len()), "settled", &shards)?;
    bench.leave(&mut report)?;
    bench.under_ingest(&mut report, folder, rate / 2.0)?;
    report.write()
}

fn generate(iotgen: &Path, path: &Path, rows: u64, arguments: &[&str]) -> Outcome {
    let file = File::create(path).map_err(|error| format!("create {}: {error}", path.display()))?;
    let rows = rows.to_string();
    run_command(in_root(iotgen).args(["gen", "--rows", &rows]).args(arguments).stdout(Stdio::from(file)))
}

impl Bench {
    fn url(&self) -> String {
        format!("http://{}/api/v3/write_lp?db=public&precision=nanosecond", self.eden.address())
    }

    fn loader(&self, lines: &Path) -> Command {
        let mut command = in_root(&self.iotgen);
        command.args(["load", "--url", &self.url(), "--batch", BATCH, "--conns", CONNECTIONS, "--file"]).arg(lines);
        command
    }

    /// All rows; those of the last hour stay in memory. The rate of the others.
    fn load_most(&self, lines: &Path) -> Result<f64, Failure> {
        let (first, last) = (lines.with_extension("first"), lines.with_extension("last"));
        let split = |program: &str, count: String, to: &Path| {
            let file = File::create(to).map_err(|error| format!("create {}: {error}", to.display()))?;
            run_command(Command::new(program).args(["--lines", &count]).arg(lines).stdout(Stdio::from(file)))
        };
        split("head", (ROWS - ROWS_OF_AN_HOUR).to_string(), &first)?;
        split("tail", ROWS_OF_AN_HOUR.to_string(), &last)?;
        println!("loading");
        let rate = said(&output(&mut self.loader(&first))?)?.rows_per_s;
        self.eden.refresh("env");
        self.settle()?;
        said(&output(&mut self.loader(&last))?)?;
        Ok(rate)
    }

    /// Waits until no more shards are merged.
    fn settle(&self) -> Outcome {
        let mut last = (-1.0, wait::now());
        let quiet = wait::until(QUIET_WITHIN, || {
            let merges = metric(&self.eden, "eden_storage_compactions_total").unwrap_or(-1.0);
            if merges > last.0 {
                last = (merges, wait::now());
            }
            (last.1.elapsed() > QUIET).then_some(())
        });
        quiet.ok_or_else(|| "compaction does not come to an end".to_owned())
    }

    fn shards(&self) -> Vec<PathBuf> {
        let table = self.eden.table("env");
        DeltaLog::read(&table).files.keys().map(|path| table.join(path)).collect()
    }

    /// Runs all queries here and there, and tells the times.
    fn compare(&self, report: &mut Report, when: &str, key: &str, shards: &[PathBuf]) -> Outcome {
        println!("asking: {when}");
        let mut command = in_root(&self.python);
        command.args([SCRIPT, "measure", self.eden.address(), "--runs", RUNS, "--csv"]).arg(&self.csv);
        command.arg("--database").arg(&self.database);
        if !shards.is_empty() {
            command.arg("--shards").args(shards);
        }
        let times: Value = parsed(&output(&mut command)?)?;
        let mut table = format!(
            "Eden with {when}:\n\n| query | Eden ms | of that planning | DuckDB ms | ratio | DuckDB on Eden's shards ms | ratio \
             | goal |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n"
        );
        for (query, goal) in GOALS {
            let of = |way: &str| -> Option<Vec<f64>> {
                times[query][way].as_array().map(|times| times.iter().filter_map(Value::as_f64).collect())
            };
            let ours = of("eden").ok_or_else(|| format!("no times of {query}: {times}"))?;
            let cells = |theirs: Option<Vec<f64>>| match theirs {
                Some(theirs) => {
                    let ratio = median(ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect());
                    (format!("{:.1} | {ratio:.2}", median(theirs)), Some(ratio))
                }
                None => ("– | –".to_owned(), None),
            };
            let ((own, ratio), (on_shards, _)) = (cells(of("duckdb")), cells(of("duckdb_on_shards")));
            let held = if ratio.is_some_and(|ratio| ratio <= goal) { "held" } else { "**not held**" };
            let planning = median(of("planning").ok_or_else(|| format!("no times of planning {query}: {times}"))?);
            let ours = median(ours.clone());
            writeln!(table, "| {query} | {ours:.1} | {planning:.2} | {own} | {on_shards} | ≤ {goal}: {held} |")
                .map_err(|error| error.to_string())?;
        }
        report.table(table);
        report.data(key, times);
        Ok(())
    }

    /// Clients that go away in the middle of a join.
    fn leave(&self, report: &mut Report) -> Outcome {
        println!("going away");
        let said: Value =
            parsed(&output(in_root(&self.python).args([SCRIPT, "leave", self.eden.address(), "--runs", RUNS]))?)?;
        let slowest = said.as_array().into_iter().flatten().filter_map(Value::as_f64).fold(f64::NAN, f64::max);
        report.figure("ms until a join is over whose client went away, slowest (goal ≤ 1000)", "gone_ms", slowest, 0);
        report.data("gone_each_ms", said);
        Ok(())
    }

    /// The same while rows come in at `rate`, and acknowledgements with and without queries.
    fn under_ingest(&self, report: &mut Report, folder: &Path, rate: f64) -> Outcome {
        let rows = ((rate * PAIR_SECONDS as f64) as u64).max(1);
        let rate = (rate as u64).to_string();
        let lines = folder.join("load.lp");
        // Later rows each time: the same ones again would be compared with those that are there.
        let mut start_ms = START_MS;
        let mut load = || -> Result<Command, Failure> {
            start_ms += rows / DEVICES * INTERVAL_MS + INTERVAL_MS;
            let start = start_ms.to_string();
            generate(&self.iotgen, &lines, rows, &["--measurement", "load", "--start-ms", &start])?;
            let mut command = self.loader(&lines);
            command.args(["--rate-rows", &rate]);
            Ok(command)
        };

        let mut ratios = Vec::new();
        let (mut without_ms, mut with_ms, mut answered) = (Vec::new(), Vec::new(), 0);
        for pair in 0..PAIRS {
            println!("acknowledgements: pair {}", pair + 1);
            let alone = said(&output(&mut load()?)?)?;
            let mut beside = load()?;
            let mut asking = Asking::start(in_root(&self.python).args([SCRIPT, "ask", self.eden.address()]))?;
            let beside = said(&output(&mut beside)?)?;
            answered += asking.stop()?["queries"].as_u64().ok_or("no number of queries")?;
            ratios.push(beside.p99_ms / alone.p99_ms);
            without_ms.push(alone.p99_ms);
            with_ms.push(beside.p99_ms);
        }

        let when = format!("{rate} rows/s coming in to another table");
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // Loads follow each other for as long as the queries take.
            let loading = scope.spawn(|| -> Outcome {
                while !is_over.load(Ordering::Relaxed) {
                    said(&output(&mut load()?)?)?;
                }
                Ok(())
            });
            let compared = self.compare(report, &when, "under_ingest", &[]);
            is_over.store(true, Ordering::Relaxed);
            loading.join().map_err(|_| "the thread that loads panicked".to_owned())??;
            compared
        })?;

        report.data("ack_p99_ms", json!({ "without": without_ms, "with": with_ms }));
        report.figure("ack p99 without queries, ms, median", "ack_p99_without_ms", median(without_ms), 1);
        report.figure("ack p99 with queries, ms, median", "ack_p99_with_ms", median(with_ms), 1);
        report.figure("ratio of the two, median of pairs (goal ≤ 2)", "ack_p99_ratio", median(ratios), 2);
        report.figure("queries answered meanwhile", "queries", answered as f64, 0);
        Ok(())
    }
}

/// A process that asks until it is told to stop.
struct Asking(Child);

impl Asking {
    fn start(command: &mut Command) -> Result<Self, Failure> {
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        started.map(Asking).map_err(|error| format!("start {SCRIPT}: {error}"))
    }

    fn stop(&mut self) -> Result<Value, Failure> {
        drop(self.0.stdin.take());
        let mut text = String::new();
        let mut stdout = self.0.stdout.take().ok_or("it was stopped before")?;
        std::io::Read::read_to_string(&mut stdout, &mut text)
            .map_err(|error| format!("read from {SCRIPT}: {error}"))?;
        self.0.wait().map_err(|error| format!("wait for {SCRIPT}: {error}"))?;
        parsed(&text)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        // Gone already is what we want.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the loader says.
struct Said {
    rows_per_s: f64,
    p99_ms: f64,
}

fn said(text: &str) -> Result<Said, Failure> {
    let said: Value = parsed(text)?;
    let number = |key: &str| said[key].as_f64().ok_or_else(|| format!("iotgen said no {key}: {said}"));
    if number("failed")? != 0.0 {
        return Err(format!("not all rows were acknowledged: {said}"));
    }
    Ok(Said { rows_per_s: number("rows_per_s")?, p99_ms: number("p99_ms")? })
}

fn parsed(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text).map_err(|error| format!("{text}: {error}"))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
