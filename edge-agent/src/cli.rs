//! The command line of `eden-agent`.
//!
//! Owns:     commands, exit codes, logging and signals of the process.
//! Does not: measure, keep or send anything itself.
//!
//! Exit codes: 0 done, 1 something did not work, 2 a mistake in usage or configuration, 75 told to start again.

mod arguments;

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use model::time_text::iso;
use model::{Clock as _, SystemClock};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use wal::disk::{Disk as _, LocalDisk, Replace, SharedDisk, create_dir_all, write_whole};

use arguments::{Command, ConfigArgs, Format};

use crate::agent::{Agent, AgentError, Surroundings};
use crate::causes::with_causes;
use crate::config::Config;
use crate::log_lines::LogLines;
use crate::outbox::{OutboxError, Waiting, peek};
use crate::sensor::{Reading, Station};
use crate::uplink::{probe, runtime};

/// Exit code of a process that was told twice to stop: as if the second signal had ended it.
const INTERRUPTED: i32 = 130;
/// Exit code of a process that a server told to start again: *try again* of `sysexits.h`.
const RESTART: u8 = 75;
const DEFAULT_FILE: &str = "agent.toml";

/// Why a command ends with another code than 0.
#[derive(Debug)]
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn usage(message: impl Into<String>) -> Self {
        Failure { code: 2, message: message.into() }
    }

    fn work(message: impl Into<String>) -> Self {
        Failure { code: 1, message: message.into() }
    }
}

/// Runs the command that the process was started with.
pub fn run() -> ExitCode {
    let command = match arguments::parse(std::env::args_os().skip(1)) {
        Ok(command) => command,
        Err(said) => {
            eprintln!("{}", said.trim_end());
            return ExitCode::from(2);
        }
    };
    let done = match command {
        Command::Run(config) => run_agent(&config),
        Command::Read { config, format } => read(&config, format),
        Command::Scan { bus, sysfs } => print(&crate::scan::scan(&bus, &sysfs)),
        Command::Check(config) => check(&config),
        Command::Outbox { config, format } => outbox(&config, format),
        Command::Show(text) => print(&text),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, message }) => {
            if !message.is_empty() {
                eprintln!("eden-agent: {message}");
            }
            ExitCode::from(code)
        }
    }
}

fn load(args: &ConfigArgs) -> Result<Config, Failure> {
    let file = args.config.clone().unwrap_or_else(|| DEFAULT_FILE.into());
    if args.config.is_none() && !file.exists() {
        return Err(Failure::usage("there is no ./agent.toml; name a configuration with --config FILE"));
    }
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())));
    Config::load(Some(&file), environment, &host_name()).map_err(|e| Failure::usage(e.to_string()))
}

fn host_name() -> String {
    let read = |path| std::fs::read_to_string(path).ok().map(|name| name.trim().to_owned());
    let names = ["/proc/sys/kernel/hostname", "/etc/hostname"];
    names.into_iter().find_map(read).filter(|name| !name.is_empty()).unwrap_or_else(|| "agent".to_owned())
}

fn prepare_logging(log: &str, log_lines: &Arc<LogLines>) -> Result<(), Failure> {
    // The library's own lines about reconnects say less than ours.
    let filter = format!("rumqttc=error,{log}")
        .parse::<Targets>()
        .map_err(|e| Failure::usage(format!("[agent] log: {log:?}: {e}; write info or info,edge_agent=debug")))?;
    let lines = tracing_subscriber::fmt::layer();
    let lines = lines.with_writer(log_lines.writer()).with_ansi(io::stderr().is_terminal());
    let subscriber = tracing_subscriber::registry().with(filter).with(lines);
    // A test that runs two commands in one process has it already.
    let _ = subscriber.try_init();
    Ok(())
}

fn run_agent(args: &ConfigArgs) -> Result<(), Failure> {
    let config = load(args)?;
    let surroundings = Surroundings::system();
    prepare_logging(&config.agent.log, &surroundings.log_lines)?;
    if config.sensors.is_empty() {
        return Err(Failure::usage("no [[sensor]] is configured: there is nothing to measure"));
    }
    let runtime = runtime().map_err(|e| Failure::work(format!("start: {e}")))?;
    runtime.block_on(async {
        let take = |kind| signal(kind).map_err(|e| Failure::work(format!("take over signals: {e}")));
        let (mut terminate, mut interrupt) = (take(SignalKind::terminate())?, take(SignalKind::interrupt())?);
        let grace = config.agent.grace.0;
        let dir = config.outbox.dir.clone();
        let agent = Agent::start(config, surroundings).map_err(|e| match e {
            AgentError::Config(e) => Failure::usage(e.to_string()),
            AgentError::Outbox(e @ OutboxError::Locked { .. }) => Failure::usage(e.to_string()),
            e => Failure::work(with_causes(&e)),
        })?;
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            agent = %agent.life().agent,
            epoch = agent.life().epoch,
            outbox = %dir.display(),
            "running"
        );
        let restarts = tokio::select! {
            _ = terminate.recv() => false,
            _ = interrupt.recv() => false,
            () = agent.restart_asked() => true,
        };
        tracing::info!("stopping");
        let stopping = tokio::task::spawn_blocking(move || agent.stop(grace));
        let stopped = tokio::select! {
            stopped = stopping => stopped.map_err(|e| Failure::work(format!("stop: {e}")))?,
            _ = interrupt.recv() => {
                eprintln!("eden-agent: told twice to stop; what was not sent stays in the outbox");
                // The operator asked for exactly this.
                #[expect(clippy::exit, reason = "a second signal ends the process at once")]
                std::process::exit(INTERRUPTED)
            }
        };
        tracing::info!(
            readings = stopped.stats.readings,
            acked = stopped.stats.acked,
            waiting = stopped.stats.backlog_batches,
            "stopped"
        );
        if restarts {
            return Err(Failure { code: RESTART, message: "told to start again".to_owned() });
        }
        if stopped.closed { Ok(()) } else { Err(Failure::work("the outbox could not be closed in order; see the log")) }
    })
}

fn stations(config: &Config) -> Vec<Station> {
    config.sensors.iter().map(|section| Station::new(&config.agent.id, section)).collect()
}

fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        // A reader that has seen enough, such as `head`.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|e| Failure::work(format!("write the output: {e}"))),
    }
}

fn read(args: &ConfigArgs, format: Format) -> Result<(), Failure> {
    let config = load(args)?;
    let clock = SystemClock::new();
    let mut readings = Vec::new();
    let mut failed = String::new();
    for mut station in stations(&config) {
        match station.read(clock.now_us()) {
            Ok(reading) => readings.push(reading),
            Err(e) => failed = format!("sensor {:?} gave no reading: {e}", station.name),
        }
    }
    match format {
        Format::Table => print(&readings_as_table(&readings))?,
        Format::Json => print(&readings_as_json(&readings))?,
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure::work(failed)) }
}

fn readings_as_table(readings: &[Reading]) -> String {
    let mut rows = vec![["table", "sensor", "field", "value"].map(str::to_owned)];
    for reading in readings {
        let sensor = reading.tags.get("sensor").cloned().unwrap_or_default();
        for (name, value) in &reading.fields {
            rows.push([reading.table.clone(), sensor.clone(), name.to_string(), value.to_string()]);
        }
    }
    aligned(&rows)
}

/// Columns of equal width, the last one to the right.
fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (i, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = if i + 1 == N { write!(text, "{cell:>width$}") } else { write!(text, "{cell:width$}  ") };
        }
        text.push('\n');
    }
    text
}

fn readings_as_json(readings: &[Reading]) -> String {
    let mut text = String::new();
    for Reading { table, tags, fields, time_us } in readings {
        let fields: serde_json::Map<String, serde_json::Value> = fields
            .iter()
            .map(|(name, value)| {
                // Decimal digits are JSON.
                let number = serde_json::from_str(&value.to_string()).unwrap_or_default();
                (name.to_string(), number)
            })
            .collect();
        let reading = serde_json::json!({ "table": table, "tags": tags, "fields": fields, "time_us": time_us });
        let _ = writeln!(text, "{reading}");
    }
    text
}

fn check(args: &ConfigArgs) -> Result<(), Failure> {
    let config = load(args)?;
    prepare_logging("off", &Arc::default())?;
    let mut all_is_well = true;
    let mut show = |what: String, result: Result<String, String>| {
        let line = match result {
            Ok(note) if note.is_empty() => format!("ok     {what}\n"),
            Ok(note) => format!("ok     {what}: {note}\n"),
            Err(reason) => {
                all_is_well = false;
                format!("WRONG  {what}: {reason}\n")
            }
        };
        print(&line)
    };
    let count = config.sensors.len();
    show(format!("configuration of agent {}", config.agent.id), Ok(String::new()))?;
    if count == 0 {
        show("sensors".to_owned(), Err("none is configured; add a [[sensor]]".to_owned()))?;
    }
    let clock = SystemClock::new();
    for mut station in stations(&config) {
        let reading = station.read(clock.now_us());
        let shown = reading.map_err(|e| e.to_string()).map(|reading| {
            let fields = reading.fields.iter().map(|(name, value)| format!("{name} {value}"));
            fields.collect::<Vec<_>>().join(", ")
        });
        show(format!("sensor {}", station.name), shown)?;
    }
    show(format!("outbox {}", config.outbox.dir.display()), check_outbox(&config.outbox.dir))?;
    for server in &config.servers {
        let reached = probe(&config.agent.id, server);
        let advice = |e| format!("{e}; is a server running there? With eden: eden serve");
        show(format!("server {}", server.url), reached.map(|()| "it answers".to_owned()).map_err(advice))?;
    }
    if all_is_well { Ok(()) } else { Err(Failure { code: 1, message: String::new() }) }
}

fn check_outbox(dir: &Path) -> Result<String, String> {
    let disk = LocalDisk::new();
    let advice = |e: io::Error| format!("{e}; make the folder writable for the agent's user, or set [outbox] dir");
    create_dir_all(&disk, dir).map_err(advice)?;
    let probe = dir.join("writable");
    write_whole(&disk, &probe, b"eden-agent check\n", Replace::Yes).map_err(advice)?;
    disk.remove_file(&probe).map_err(advice)?;
    let disk: SharedDisk = Arc::new(disk);
    match peek(&disk, dir) {
        Ok(None) => Ok("writable, not used yet".to_owned()),
        Ok(Some(waiting)) => {
            let batches: u64 = waiting.lives.iter().map(|life| life.batches).sum();
            Ok(format!("writable, {batches} batches wait"))
        }
        Err(e) => Err(with_causes(&e)),
    }
}

fn outbox(args: &ConfigArgs, format: Format) -> Result<(), Failure> {
    let config = load(args)?;
    let disk: SharedDisk = Arc::new(LocalDisk::new());
    let dir = &config.outbox.dir;
    let waiting = peek(&disk, dir).map_err(|e| Failure::work(with_causes(&e)))?;
    match (waiting, format) {
        (None, Format::Table) => print(&format!("{}: no outbox yet\n", dir.display())),
        (None, Format::Json) => print("null\n"),
        (Some(waiting), Format::Table) => print(&waiting_as_text(dir, &waiting)),
        (Some(waiting), Format::Json) => print(&format!("{}\n", waiting_as_json(&waiting))),
    }
}

fn waiting_as_text(dir: &Path, waiting: &Waiting) -> String {
    let Waiting { life, last_seq, readings_made, lives, gaps, losses, disk_bytes, wear, closed } = waiting;
    let mut text = String::new();
    let _ = writeln!(text, "outbox     {} ({disk_bytes} bytes on disk)", dir.display());
    let _ = writeln!(
        text,
        "agent      {}, epoch {}, last seq {last_seq}, {readings_made} readings made",
        life.agent, life.epoch
    );
    let _ =
        writeln!(text, "closed     {}", if *closed { "yes" } else { "no: an agent runs, or the last one was cut off" });
    let _ = writeln!(text, "written    {} bytes in {} syncs, ever", wear.bytes_written, wear.syncs);
    if lives.is_empty() {
        let _ = writeln!(text, "waiting    nothing");
    }
    for waits in lives {
        let old = if waits.life == *life {
            String::new()
        } else {
            format!(" of agent {}, epoch {}", waits.life.agent, waits.life.epoch)
        };
        let _ = writeln!(
            text,
            "waiting    {} batches{old}: seq {} to {}, {} readings, {} bytes, the oldest from {}",
            waits.batches,
            waits.first_seq,
            waits.last_seq,
            waits.readings,
            waits.bytes,
            utc(waits.oldest_us)
        );
        if waits.untimed > 0 {
            let _ = writeln!(text, "untimed    {} of them, until the wall clock is known", waits.untimed);
        }
    }
    for gap in lives.iter().flat_map(|waits| &waits.gaps).chain(gaps) {
        let readings = gap.readings.map_or("an unknown number of".to_owned(), |readings| readings.to_string());
        let _ = writeln!(
            text,
            "gap        seq {} to {}, {readings} readings, {}, {}",
            gap.first_seq,
            gap.last_seq,
            gap.reason,
            utc(gap.time_us)
        );
    }
    for loss in losses {
        let _ = writeln!(text, "damage     {loss}");
    }
    text
}

fn waiting_as_json(waiting: &Waiting) -> serde_json::Value {
    let gap = |gap: &crate::gap::Gap| {
        serde_json::json!({
            "agent": gap.life.agent.as_ref(), "epoch": gap.life.epoch, "first_seq": gap.first_seq,
            "last_seq": gap.last_seq, "readings": gap.readings, "reason": gap.reason.word(), "time_us": gap.time_us,
        })
    };
    let lives: Vec<_> = waiting
        .lives
        .iter()
        .map(|waits| {
            serde_json::json!({
                "agent": waits.life.agent.as_ref(), "epoch": waits.life.epoch, "first_seq": waits.first_seq,
                "last_seq": waits.last_seq, "batches": waits.batches, "readings": waits.readings, "bytes": waits.bytes,
                "oldest_us": waits.oldest_us, "untimed": waits.untimed, "gaps": waits.gaps.iter().map(gap).collect::<Vec<_>>(),
            })
        })
        .collect();
    serde_json::json!({
        "agent": waiting.life.agent.as_ref(),
        "epoch": waiting.life.epoch,
        "last_seq": waiting.last_seq,
        "readings_made": waiting.readings_made,
        "closed": waiting.closed,
        "disk_bytes": waiting.disk_bytes,
        "bytes_written": waiting.wear.bytes_written,
        "syncs": waiting.wear.syncs,
        "waiting": lives,
        "gaps": waiting.gaps.iter().map(gap).collect::<Vec<_>>(),
        "losses": waiting.losses.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

/// `2026-06-01 00:00:00 UTC`: to the second.
fn utc(time_us: i64) -> String {
    format!("{} UTC", iso(time_us - time_us.rem_euclid(1_000_000)).replace('T', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_in_utc() {
        for (us, shown) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (1_780_272_000_000_000, "2026-06-01 00:00:00 UTC"),
            (951_782_399_000_000, "2000-02-28 23:59:59 UTC"),
            (951_782_400_000_000, "2000-02-29 00:00:00 UTC"),
            (-1, "1969-12-31 23:59:59 UTC"),
        ] {
            assert_eq!(utc(us), shown);
        }
    }
}
