//! Line protocol from standard input straight into a storage, with no network between.
//!
//! What a row costs in shards is asked of the storage's own threads: `flush` sorts, encodes and commits, `compact`
//! merges. One line of JSON at the end says what they used and what lies on the disk.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use decode::line_protocol::{self, Precision};
use model::{FieldType, SplitMix64, SystemClock, TableName};
use serde_json::json;
use storage::{Storage, StorageConfig, TableOptions, TableSchema};
use wal::disk::LocalDisk;

/// Line protocol from standard input straight into a storage.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// The data folder, made if it is missing.
    #[arg(long)]
    data: PathBuf,
    /// Lines of one batch.
    #[arg(long, default_value_t = 5000)]
    batch: usize,
    /// Bytes of rows in memory at which a table is flushed, in MiB.
    #[arg(long, default_value_t = 64)]
    table_memory_mib: usize,
    /// Makes the table `env` with its fields as DECIMAL(18,1), or of as many digits as this says.
    #[arg(long)]
    digits: Option<u8>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shardbench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let mut config = StorageConfig::new(options.data.clone());
    config.table_memory_bytes_max = options.table_memory_mib << 20;
    config.memory_bytes_max = config.memory_bytes_max.max(4 * config.table_memory_bytes_max);
    let storage = Storage::open(
        config,
        Arc::new(LocalDisk::new()),
        Arc::new(SystemClock::new()),
        Arc::new(SplitMix64::new(1)),
        &|_| {},
    )?;
    if let Some(digits) = options.digits {
        let tags = ["device", "firmware", "site"].map(Into::into);
        let decimal = |name: &str| (name.into(), FieldType::Decimal { digits, scale: 1 });
        let fields = ["temperature", "pressure", "humidity"].map(decimal);
        storage.create_table(&TableName::public("env"), &TableSchema::new(&tags, &fields), TableOptions::default())?;
    }
    let mut input = BufReader::with_capacity(1 << 20, io::stdin().lock());
    let mut body = Vec::new();
    let mut rows = 0_usize;
    loop {
        body.clear();
        for _ in 0..options.batch {
            if input.read_until(b'\n', &mut body)? == 0 {
                break;
            }
        }
        if body.is_empty() {
            break;
        }
        let how =
            line_protocol::Options { schema: "public", precision: Precision::Nanosecond, now_us: 0, errors_max: 1 };
        let decoded = line_protocol::parse(&body, &how);
        if let Some(error) = decoded.errors.first() {
            return Err(format!("line {}: {}", error.line, error.message).into());
        }
        let written = storage.write(decoded.batches, "shardbench")?;
        if let Some(refused) = written.rejected.first() {
            return Err(format!("line {}: {}", refused.line, refused.reason).into());
        }
        rows += written.accepted;
        written.wait()?;
    }
    let tables: Vec<TableName> = storage.tables().into_iter().map(|table| table.name).collect();
    for name in &tables {
        storage.refresh(name)?;
    }
    let loaded = cpu_by_thread()?;
    let flushed = storage.stats();
    for name in &tables {
        storage.compact(name)?;
    }
    let cpu = cpu_by_thread()?;
    let stats = storage.stats();
    let shards: usize = storage.tables().iter().map(|table| table.shards).sum();
    let shard_bytes: u64 = storage.tables().iter().map(|table| table.shard_bytes).sum();
    let log_bytes_written = stats.wal.bytes_written;
    storage.close(Duration::from_secs(60))?;
    let result = json!({
        "rows": rows,
        "shards": shards,
        "shard_bytes": shard_bytes,
        "shard_bytes_written": stats.shard_bytes_written_total,
        "shard_rows_written": stats.shard_rows_written_total,
        "shard_bytes_flushed": flushed.shard_bytes_written_total,
        "log_bytes_written": log_bytes_written,
        "compactions": stats.compactions_total,
        "compaction_rows": stats.compaction_rows_total,
        "compaction_bytes_written": stats.compaction_bytes_written_total,
        "cpu_ns_loaded": loaded,
        "cpu_ns": cpu,
    });
    println!("{result}");
    Ok(())
}

/// Nanoseconds on a CPU by thread name.
fn cpu_by_thread() -> io::Result<BTreeMap<String, u64>> {
    let mut cpu = BTreeMap::new();
    for task in std::fs::read_dir("/proc/self/task")? {
        let folder = task?.path();
        // A thread that ended meanwhile is not counted.
        let (Ok(name), Ok(used)) =
            (std::fs::read_to_string(folder.join("comm")), std::fs::read_to_string(folder.join("schedstat")))
        else {
            continue;
        };
        let used: u64 = used.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or_default();
        *cpu.entry(name.trim().to_owned()).or_default() += used;
    }
    Ok(cpu)
}
