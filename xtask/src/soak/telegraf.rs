//! Stock Telegraf writes by each of its three outputs while the server is killed and restarted: every metric is there
//! once.
//!
//! Telegraf is built from its module with the few plugins that this takes; that needs Go 1.26 or later.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use harness::{Eden, Rng, terminate, wait};
use serde_json::Value;

use crate::command::{exists, run as run_command};
use crate::interop::{cache, free_port};
use crate::{Failure, Outcome};

const VERSION: &str = "v1.37.2";
const PLUGINS: &str = "custom,inputs.mock,inputs.internal,outputs.influxdb,outputs.influxdb_v2,outputs.http,outputs.file,\
                       serializers.influx";
const RUNS_FOR: Duration = Duration::from_secs(60);
const KILLS: u32 = 5;
/// A metric every 10 ms from each.
const SOURCES: u32 = 10;
const STOPPED_WITHIN: Duration = Duration::from_secs(60);
/// The database of each output, and what Telegraf calls the output.
const OUTPUTS: [(&str, &str); 3] = [("one", "influxdb"), ("two", "influxdb_v2"), ("three", "http")];

pub(super) fn run(seed: u64) -> Outcome {
    let telegraf = build()?;
    println!("telegraf: {VERSION}, seed {seed}");
    let mut rng = Rng::new(seed);
    let address = format!("127.0.0.1:{}", free_port()?);
    let mut eden = Eden::options("telegraf").setting("EDEN_HTTP_LISTEN", &address).start();
    eden.note(format!("seed {seed}"));
    let folder = eden.home().to_path_buf();
    let config = folder.join("telegraf.conf");
    let written = folder.join("metrics.lp");
    std::fs::write(&config, configuration(&address, &written)).map_err(|error| format!("write a file: {error}"))?;
    let log = std::fs::File::create(folder.join("telegraf.log")).map_err(|error| format!("write a file: {error}"))?;
    let mut process = Telegraf(
        Command::new(&telegraf)
            .arg("--config")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("start {}: {error}", telegraf.display()))?,
    );

    for _ in 0..KILLS {
        let each = RUNS_FOR.as_millis() as u64 / u64::from(KILLS);
        wait::pass(Duration::from_millis(each / 2 + rng.below(each / 2)));
        eden.kill();
        wait::pass(Duration::from_millis(200 + rng.below(2_000)));
        eden.restart();
    }
    wait::pass(Duration::from_secs(5));
    // It writes what it has, once.
    terminate(&process.0);
    let ended = wait::until(STOPPED_WITHIN, || process.0.try_wait().ok().flatten());
    ended.ok_or("telegraf does not stop")?;

    let lines = std::fs::read_to_string(&written).map_err(|error| format!("{}: {error}", written.display()))?;
    let made: BTreeSet<(String, i64)> = lines.lines().filter_map(key).collect();
    println!("{} metrics made in {:.0} s with {KILLS} kills of the server", made.len(), RUNS_FOR.as_secs_f64());
    for (database, name) in OUTPUTS {
        let counted = counted(&lines, name);
        let rows = eden.client().sql(&format!("SELECT source, cast(time AS bigint) FROM {database}.mock"))?;
        let rows: Vec<(String, i64)> = rows["rows"].as_array().into_iter().flatten().filter_map(stored_key).collect();
        let stored: BTreeSet<_> = rows.iter().cloned().collect();
        let lost = made.difference(&stored).count();
        println!(
            "{name}: {} metrics stored, {lost} lost, {} there twice, {} that were never made; Telegraf's own last count of what \
             it wrote, internal metrics included: {counted}",
            stored.len(),
            rows.len() - stored.len(),
            stored.difference(&made).count(),
        );
        if stored != made || rows.len() != stored.len() || counted == 0 {
            return Err(format!("seed {seed}: {name} differs; first lost: {:?}", made.difference(&stored).next()));
        }
    }
    Ok(())
}

/// Telegraf, killed when dropped.
struct Telegraf(Child);

impl Drop for Telegraf {
    fn drop(&mut self) {
        // Gone already is what we want.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The binary, built if it is not in the cache.
fn build() -> Result<PathBuf, Failure> {
    let folder = cache()?.join(format!("telegraf-{VERSION}"));
    let binary = folder.join("telegraf");
    if binary.exists() {
        return Ok(binary);
    }
    if !exists("go") {
        return Err("this builds Telegraf, which needs Go 1.26 or later".to_owned());
    }
    println!("building Telegraf {VERSION}");
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    std::fs::create_dir_all(&folder).map_err(failed)?;
    let module = format!("module telegraf\n\ngo 1.26\n\nrequire github.com/influxdata/telegraf {VERSION}\n");
    std::fs::write(folder.join("go.mod"), module).map_err(failed)?;
    let package = "github.com/influxdata/telegraf/cmd/telegraf";
    // Only what the tags leave over is fetched, so there is no list of checksums beforehand.
    let mut build = Command::new("go");
    build.args(["build", "-tags", PLUGINS, "-o", "telegraf", package]).current_dir(&folder);
    run_command(build.env("GOFLAGS", "-mod=mod").env("GONOSUMDB", "*"))?;
    Ok(binary)
}

fn configuration(address: &str, written: &Path) -> String {
    let mut text = String::from(
        "[agent]\ninterval = \"10ms\"\nround_interval = false\nprecision = \"1us\"\nflush_interval = \"500ms\"\n\
         metric_batch_size = 500\nmetric_buffer_limit = 1000000\nomit_hostname = true\nquiet = true\n",
    );
    for source in 0..SOURCES {
        text += &format!(
            "[[inputs.mock]]\nmetric_name = \"mock\"\n[inputs.mock.tags]\nsource = \"{source}\"\n\
             [[inputs.mock.random]]\nname = \"value\"\nmin = 0.0\nmax = 100.0\n"
        );
    }
    text += "[[inputs.internal]]\ninterval = \"1s\"\n";
    text += &format!("[[outputs.file]]\nfiles = [\"{}\"]\ndata_format = \"influx\"\n", written.display());
    text += &format!("[[outputs.influxdb]]\nurls = [\"http://{address}\"]\ndatabase = \"one\"\n");
    text += &format!(
        "[[outputs.influxdb_v2]]\nurls = [\"http://{address}\"]\ntoken = \"any\"\norganization = \"any\"\nbucket = \"two\"\n"
    );
    text += &format!(
        "[[outputs.http]]\nurl = \"http://{address}/api/v3/write_lp?db=three\"\ndata_format = \"influx\"\n\
         content_encoding = \"gzip\"\nuse_batch_format = true\n"
    );
    text
}

/// Source and time in µs of a line of `mock`.
fn key(line: &str) -> Option<(String, i64)> {
    let rest = line.strip_prefix("mock,source=")?;
    let (source, _) = rest.split_once([',', ' '])?;
    let time: i64 = line.rsplit(' ').next()?.parse().ok()?;
    Some((source.to_owned(), time.div_euclid(1_000)))
}

fn stored_key(row: &Value) -> Option<(String, i64)> {
    Some((row[0].as_str()?.to_owned(), row[1].as_i64()?))
}

/// What Telegraf last said it had written by an output.
fn counted(lines: &str, output: &str) -> u64 {
    let tag = format!("output={output},");
    let last = lines.lines().rfind(|line| line.starts_with("internal_write,") && line.contains(&tag));
    let count = last.and_then(|line| line.split_once("metrics_written=")?.1.split('i').next()?.parse().ok());
    count.unwrap_or_default()
}
