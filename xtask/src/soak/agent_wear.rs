//! What the agent costs a card (docs/adr/0036-what-a-card-bears.md), seen from outside: ten sensors at one reading a
//! second, with a server and without one; syncs counted by strace, bytes by Linux, and both by the agent itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use harness::{Agent, Eden, wait};

use crate::{Failure, Outcome};

const SENSORS: u32 = 10;
const INTERVAL: Duration = Duration::from_secs(1);
/// What the agent has by default.
const SYNC_INTERVAL: Duration = Duration::from_secs(10);
const STARTED_WITHIN: Duration = Duration::from_secs(60);
const CALLS: &str = "trace=fsync,fdatasync,sync,syncfs,sync_file_range,msync";
/// The budget: syncs in an hour, and bytes in a day.
const SYNCS_PER_HOUR_MAX: f64 = 400.0;
const BYTES_PER_DAY_MAX: f64 = 100e6;

/// One agent that is watched.
struct Watched {
    agent: Agent,
    name: &'static str,
    strace: Child,
    transcript: PathBuf,
    before: Figures,
}

/// What was written until now.
#[derive(Clone, Copy)]
struct Figures {
    /// By Linux: pages that the process made dirty, for any file.
    bytes: u64,
    /// By the agent: what its outbox has written, in whole blocks.
    own_bytes: u64,
    own_syncs: u64,
    readings: u64,
}

pub(super) fn run(time: Duration) -> Outcome {
    let mut eden = Eden::options("agent-wear").release().start();
    let connected = start("connected", &format!("mqtt://{}", eden.mqtt_address()));
    // Nobody listens on a port that is not given away.
    let offline = start("offline", "mqtt://127.0.0.1:1");
    // The start writes more than what comes after it.
    let measures = |agent: &Agent| agent.outbox().is_some_and(|outbox| outbox.last_seq > 1);
    wait::until(STARTED_WITHIN, || (measures(&connected) && measures(&offline)).then_some(()))
        .ok_or("no batch was made")?;
    let mut watched = vec![watch(connected, "connected")?, watch(offline, "offline")?];
    println!("{SENSORS} sensors, a reading each {INTERVAL:?}, watched for {time:?}");
    let began = wait::now();
    wait::pass(time);
    let hours = began.elapsed().as_secs_f64() / 3_600.0;
    let mut failures = Vec::new();
    for one in &mut watched {
        let syncs = fs::read_to_string(&one.transcript).map_err(|error| format!("read the transcript: {error}"))?;
        let syncs = syncs.lines().filter(|line| !line.contains("<... ") && line.contains('(')).count();
        let after = figures(&one.agent, one.name)?;
        // Ends what watches, not the agent.
        harness::terminate(&one.strace);
        one.strace.wait().map_err(|error| format!("wait for strace: {error}"))?;
        let per_hour = |count: u64| count as f64 / hours;
        let (syncs, own_syncs) = (per_hour(syncs as u64), per_hour(after.own_syncs - one.before.own_syncs));
        let bytes = per_hour(after.bytes - one.before.bytes);
        let own_bytes = per_hour(after.own_bytes - one.before.own_bytes);
        let readings = after.readings - one.before.readings;
        println!(
            "{}: {readings} readings; {syncs:.0} syncs an hour (by its own count {own_syncs:.0}); {:.2} MB an hour, {:.1} MB a day \
             (by its own count {:.1} MB a day)",
            one.name,
            bytes / 1e6,
            bytes * 24.0 / 1e6,
            own_bytes * 24.0 / 1e6,
        );
        if syncs > SYNCS_PER_HOUR_MAX || bytes * 24.0 > BYTES_PER_DAY_MAX || own_bytes * 24.0 > BYTES_PER_DAY_MAX {
            failures.push(one.name);
        }
    }
    let stored = eden.sql("SELECT count(*) AS n FROM bmp180").single().as_u64().unwrap_or(0);
    println!("the server has {stored} readings");
    for mut one in watched {
        one.agent.stop();
    }
    eden.stop();
    if stored == 0 {
        return Err("the agent with a server sent nothing: nothing was measured".to_owned());
    }
    if failures.is_empty() {
        return Ok(());
    }
    Err(format!(
        "more than {SYNCS_PER_HOUR_MAX} syncs an hour or {BYTES_PER_DAY_MAX} bytes a day: {}",
        failures.join(", ")
    ))
}

fn start(id: &str, server: &str) -> Agent {
    let sensors = (0..SENSORS).map(|number| format!("s{number}"));
    let options =
        Agent::options(id).server(server).sync_interval(SYNC_INTERVAL).grace(Duration::from_secs(1)).release();
    sensors.fold(options, |options, name| options.sensor(&name, INTERVAL)).start()
}

fn watch(agent: Agent, name: &'static str) -> Result<Watched, Failure> {
    let transcript = agent.outbox_folder().with_file_name("strace.txt");
    let pid = agent.pid().to_string();
    let strace = Command::new("strace")
        .args(["--follow-forks", "--quiet=all", "-e", CALLS, "-p", &pid, "-o"])
        .arg(&transcript)
        .stdin(Stdio::null())
        .spawn()
        .map_err(|error| format!("run strace: {error}; install it"))?;
    wait::until(STARTED_WITHIN, || crate::interop::all_threads_are_traced(&pid).then_some(()))
        .ok_or("strace could not attach to all threads")?;
    let before = figures(&agent, name)?;
    Ok(Watched { agent, name, strace, transcript, before })
}

fn figures(agent: &Agent, name: &str) -> Result<Figures, Failure> {
    let path = Path::new("/proc").join(agent.pid().to_string()).join("io");
    let text = fs::read_to_string(&path).map_err(|error| format!("read {}: {error}", path.display()))?;
    let bytes = text.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok());
    let bytes = bytes.ok_or_else(|| format!("{} says no write_bytes", path.display()))?;
    let outbox = agent.outbox().ok_or_else(|| format!("{name} has no outbox"))?;
    Ok(Figures { bytes, own_bytes: outbox.bytes_written, own_syncs: outbox.syncs, readings: outbox.readings_made })
}
