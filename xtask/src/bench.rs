//! Measured claims: what is measured, how, on which machine, written to `bench/results/`.

mod agent;
mod fleet_day;
mod hot_day;
mod ingest;
mod many_tables;
mod mqtt;
mod peer;
mod queries;
mod report;
mod storage;
mod year;

use std::path::{Path, PathBuf};

use harness::Eden;

use crate::{Failure, Outcome};

pub(crate) use hot_day::run as hot_day;

/// Runs one, or lists them.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    match arguments.first().map(String::as_str) {
        Some("ingest") => ingest::run(),
        Some("queries") => queries::run(),
        Some("hot-day") => hot_day::run(),
        Some("storage") => storage::run(),
        Some("many-tables") => many_tables::run(),
        Some("year") => year::run(),
        Some("agent") => agent::run(),
        Some("mqtt") => mqtt::run(&arguments[1..]),
        Some(name) => Err(format!("there is no bench {name:?}")),
        None => {
            for (name, about) in [
                ("ingest", "10 M rows over HTTP, 5 000 a batch, 4 connections, durable, beside two peers"),
                ("queries", "five queries on 10 M rows beside DuckDB: settled, from memory too, under ingest"),
                ("storage", "10 M rows: bytes a value, CPU of flush and compaction, writes"),
                ("hot-day", "8.64 M rows of a day in 200 flushes with retries and corrections"),
                ("many-tables", "1 000 tables, each with a row a second, for 10 min, twice"),
                ("year", "52.6 M rows of a year in random order of its days"),
                ("mqtt", "QoS 1 at 1×1, 100×1, 100×100 and 5 000 idle connections, beside Mosquitto"),
                ("agent", "size of the agent for boards, and its memory at 20 readings/s over MQTT with TLS"),
            ] {
                println!("cargo xtask bench {name:<12} {about}");
            }
            Ok(())
        }
    }
}

/// A folder for a run's data, removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> std::io::Result<Self> {
        let path = std::env::temp_dir().join(format!("eden-bench-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Scratch(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("remove {}: {error}", self.0.display());
        }
    }
}

/// A metric without labels.
fn metric(eden: &Eden, name: &str) -> Result<f64, Failure> {
    let page = eden.client().request("GET", "/metrics", &[], &[]).map_err(|error| format!("{error:?}"))?.text();
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).ok_or_else(|| format!("there is no metric {name}"))
}

/// Bytes of all files below a folder whose names end so.
fn bytes_below(folder: &Path, ending: &str) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            bytes += bytes_below(&entry.path(), ending)?;
        } else if entry.file_name().to_string_lossy().ends_with(ending) {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}
