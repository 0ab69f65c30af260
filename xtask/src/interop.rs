//! Clients that nobody here wrote, against the real `eden`: what they read must be exactly what `/_sql` says (P4).
//!
//! Installs what it needs itself, pinned: packages of Python and of Node.js into a folder of the user's cache, programs
//! from Debian.

mod any_order;
pub(crate) mod brokers;
mod changes;
mod clients;
mod crate_db;
mod expected;
mod flash;
mod flight;
mod influx;
mod mqtt;
mod otlp;
mod postgres;
mod prometheus;
mod s3;
mod slt;
mod sparkplug;
mod strace;
mod telegraf;
mod transfer;

use std::io::Write;
use std::process::{Command, Stdio};

use harness::{Eden, Reading, Rng, settings};
use serde_json::Value;

use crate::command::{exists, run as run_command};
use crate::{Failure, Outcome};
use clients::Clients;
pub(crate) use clients::{cache, python};
pub(crate) use strace::all_threads_are_traced;

/// 2026-06-01T00:00:00Z.
const START_US: i64 = 1_780_272_000_000_000;
const TABLE: &str = "air";
/// Cases of `any_order` in CI; `cargo xtask soak readers` has more.
const CASES: u64 = 25;

/// A part of the checks, by its name.
type Part = (&'static str, fn(&Clients) -> Outcome);

const PARTS: &[Part] = &[
    ("readers", foreign_readers_agree),
    ("changes", changes::readers_agree_after_each_change),
    ("order", |clients| any_order::run(clients, settings::seed(), settings::rounds(CASES), |_| {})),
    ("transfer", transfer::files_come_back_as_they_were),
    ("curl", |_| curl_writes()),
    ("influx", influx::stock_clients_write),
    ("telegraf", |_| telegraf::what_telegraf_sends_is_stored_once()),
    ("mqtt", mqtt::stock_clients_publish),
    ("brokers", |_| brokers::messages_of_a_broker_survive()),
    ("otlp", otlp::exporters_write),
    ("crate", |_| crate_db::stock_clients_query()),
    ("postgres", |_| postgres::stock_clients_query()),
    ("flight", |_| flight::stock_clients_query()),
    ("prometheus", |_| prometheus::prometheus_writes()),
    ("sparkplug", |_| sparkplug::edge_nodes_are_understood()),
    ("s3", s3::tables_in_s3),
    ("slt", slt::answers_agree),
    ("flash", |_| flash::a_card_is_ready_to_measure()),
    ("strace", |_| strace::no_ack_leaves_before_its_sync()),
];

/// All checks, or the parts that are named.
pub(crate) fn run(names: &[String]) -> Outcome {
    if let Some(name) = names.iter().find(|name| !PARTS.iter().any(|(known, _)| known == name)) {
        let known: Vec<_> = PARTS.iter().map(|(name, _)| *name).collect();
        return Err(format!("there is no part {name:?}, but {}", known.join(", ")));
    }
    install("curl", "curl")?;
    install("strace", "strace")?;
    let clients = Clients::install()?;
    let is_wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    PARTS.iter().filter(|(name, _)| is_wanted(name)).try_for_each(|(_, part)| part(&clients))
}

/// The random cases, as many as asked for.
pub(crate) fn any_order(cases: u64, progress: impl FnMut(u64)) -> Outcome {
    any_order::run(&Clients::install()?, settings::seed(), cases, progress)
}

/// Installs the Debian package that has a program, if the program is not there.
pub(crate) fn install(program: &str, package: &str) -> Outcome {
    if exists(program) {
        return Ok(());
    }
    println!("installing {package} from Debian");
    run_command(Command::new("apt-get").args(["update", "-qq"]))?;
    run_command(Command::new("apt-get").args(["install", "-qq", "--yes", package]))
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> Result<u16, Failure> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    listener.map(|address| address.port()).map_err(|e| format!("find a free port: {e}"))
}

/// The answer to one statement.
fn run_sql(eden: &Eden, statement: &str) -> Result<Value, Failure> {
    eden.client().sql(statement)
}

/// `eden check` on the folder of a stopped server.
fn nothing_is_damaged(eden: &Eden) -> Outcome {
    let data = eden.data();
    let output = eden.cli(&["check", "--data", &data.to_string_lossy()]);
    let said = String::from_utf8_lossy(&output.stdout);
    print!("{said}");
    if output.status.success() && said.contains("nothing is damaged") {
        return Ok(());
    }
    Err(format!("eden check: {}\n{said}{}", output.status, String::from_utf8_lossy(&output.stderr)))
}

/// DuckDB, Polars and deltalake see each key once and each value exactly, at every version of the table (P4).
fn foreign_readers_agree(clients: &Clients) -> Outcome {
    let mut eden = Eden::start("interop");
    let mut rng = Rng::new(7);
    let mut readings: Vec<Reading> = (0..600).map(|n| reading(n, &mut rng)).collect();
    let flushed = |eden: &Eden, step: &str| {
        eden.refresh(TABLE);
        let rows = eden.sql(&format!("SELECT * FROM {TABLE}"));
        clients.agree(eden, TABLE, &rows, step).map(|()| rows)
    };

    eden.write(&readings);
    flushed(&eden, "after the first flush")?;

    eden.write(&readings[..200]);
    let before = flushed(&eden, "after retries")?;

    for reading in readings.iter_mut().step_by(3) {
        let device = reading.tags[0].1.clone();
        *reading = Reading::at(TABLE, reading.time_us).tag("device", &device).field("temperature", 0.1 + 0.2);
    }
    let corrections: Vec<_> = readings.iter().step_by(3).cloned().collect();
    eden.write(&corrections);
    clients.agree(&eden, TABLE, &before, "with corrections not yet flushed")?;
    flushed(&eden, "after corrections")?;

    eden.write(&[Reading::at(TABLE, START_US - 1).tag("device", "late").tag("floor", "1").field("co2", 412_i64)]);
    flushed(&eden, "after a new tag and a new field")?;
    clients.filters_hide_nothing(&eden, TABLE, TABLE, "after a new tag and a new field")?;

    // A name that no folder could have as it is (docs/adr/0009-folder-names.md).
    eden.write(&[Reading::at("a.b/c °C", START_US).tag("device", "d 1").field("temperature", 21.5)]);
    eden.sql("REFRESH TABLE \"a.b/c °C\"");
    let rows = eden.sql("SELECT * FROM \"a.b/c °C\"");
    clients.agree(&eden, "a!2Eb!2Fc!20!C2!B0C", &rows, "a table with an odd name")?;

    eden.write(&readings[300..]);
    eden.kill();
    eden.restart();
    let rows = flushed(&eden, "after kill -9, replay and flush")?;
    if rows.len() != 601 {
        return Err(format!("{} rows after retries and corrections, expected 601", rows.len()));
    }
    eden.write(&readings[..50]);
    let rows = eden.sql(&format!("SELECT * FROM {TABLE}"));
    eden.stop();
    clients.agree(&eden, TABLE, &rows, "after a clean stop")
}

fn reading(n: i64, rng: &mut Rng) -> Reading {
    // 997 s apart: the readings lie in seven days.
    let time_us = START_US + n * 997_000_000 + rng.below(1_000) as i64;
    let random = rng.next_u64();
    let reading = Reading::at(TABLE, time_us)
        .tag("device", &format!("d {}", n % 5))
        .field("temperature", (random % 1_000) as f64 / 10.0 - 20.0)
        .field("count", random as i64)
        .field("total", random)
        .field("on", random.is_multiple_of(3));
    match n % 4 {
        0 => reading.field("note", "ok, \"söft\" \\"),
        1 => reading.field("note", &*"zone ".repeat(20 + n as usize % 3)),
        _ => reading,
    }
}

/// curl with a plain and with a gzip body.
fn curl_writes() -> Outcome {
    let eden = Eden::start("curl");
    let url = format!("http://{}/api/v3/write_lp?db=public&precision=second", eden.address());
    let plain = ["--silent", "--show-error", "--write-out", "%{http_code}", "--data-binary", "@-", &url];
    let gzip = [&["--header", "Content-Encoding: gzip"], &plain[..]].concat();
    let zipped = piped("gzip", &["--stdout"], b"air,room=attic temperature=30.5 1780272001\n")?;
    for (arguments, body) in
        [(&plain[..], &b"air,room=kitchen temperature=21.5 1780272000\n"[..]), (&gzip[..], &zipped[..])]
    {
        let status = piped("curl", arguments, body)?;
        if status != b"204" {
            return Err(format!("curl wrote and got {}", String::from_utf8_lossy(&status)));
        }
    }
    let rows = eden.sql("SELECT room, temperature FROM air ORDER BY time");
    let seen: Vec<_> = (0..rows.len()).map(|row| rows.row(row).to_vec()).collect();
    let expected = [["kitchen".into(), Value::from(21.5)], ["attic".into(), Value::from(30.5)]];
    if seen != expected {
        return Err(format!("curl wrote two readings and SQL shows {seen:?}"));
    }
    println!("curl: plain and gzip bodies are stored");
    Ok(())
}

fn piped(program: &str, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, Failure> {
    let failed = |error: std::io::Error| format!("run {program}: {error}");
    let mut child =
        Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
    child.stdin.take().expect("piped").write_all(input).map_err(failed)?;
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() { Ok(output.stdout) } else { Err(format!("{program} failed: {}", output.status)) }
}
