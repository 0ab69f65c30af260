//! One built agent against a server: does it start, does it measure, does what it measured arrive.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::{Eden, terminate, wait};

use super::{Board, Debian, TARGET, emulated};
use crate::command::output;
use crate::{Failure, Outcome};

/// qemu-user on a loaded machine.
const ARRIVES_WITHIN: Duration = Duration::from_secs(120);
const STOPS_WITHIN: Duration = Duration::from_secs(60);

/// What the agent says of its version, and one reading of it in SQL at an `eden` on loopback.
pub(super) fn run(toolchain: &Debian, board: Board, agent: &Path) -> Outcome {
    let eden = Eden::start("cross");
    let id = format!("cross-{}", board.name);
    let work = eden.home().join("agent");
    std::fs::create_dir(&work).map_err(|error| format!("make {}: {error}", work.display()))?;
    let configuration = format!(
        "[agent]\nid = \"{id}\"\n\n[outbox]\ndir = \"/work/outbox\"\nsync_interval = \"100ms\"\n\n[[server]]\nurl = \
         \"mqtt://{}\"\n\n{}",
        eden.mqtt_address(),
        SENSOR
    );
    std::fs::write(work.join("agent.toml"), configuration).map_err(|error| format!("write agent.toml: {error}"))?;
    let program = |arguments: &[&str]| {
        let mut command = emulated(toolchain, board, agent, &work);
        command.arg(format!("{TARGET}/eden-agent")).args(arguments);
        command
    };

    let version = output(&mut program(&["--version"]))?;
    if version.trim() != format!("eden-agent {}", env!("CARGO_PKG_VERSION")) {
        return Err(format!("eden-agent --version says {version:?}"));
    }
    let log = work.join("log");
    let result = measure(&eden, &id, &mut program(&["run", "--config", "/work/agent.toml"]), &log);
    result.map_err(|error| format!("{error}\n{}", std::fs::read_to_string(&log).unwrap_or_default()))
}

const SENSOR: &str = "[[sensor]]\ndriver = \"simulated-bmp180\"\nname = \"s1\"\n";

/// From the agent's start to a clean stop after its first reading.
fn measure(eden: &Eden, id: &str, agent: &mut Command, log: &Path) -> Outcome {
    let failed = |action: &'static str| move |error: std::io::Error| format!("{action}: {error}");
    let lines = File::create(log).map_err(failed("make the agent's log"))?;
    let mut process = agent.stdin(Stdio::null()).stderr(lines).spawn().map_err(failed("start the agent"))?;
    let statement = format!("SELECT temperature, pressure FROM bmp180 WHERE agent = '{id}'");
    let arrived = wait::until(ARRIVES_WITHIN, || {
        let ended = process.try_wait().ok().flatten().is_some();
        let answer = eden.client().sql(&statement).ok();
        let row = answer.and_then(|answer| answer["rows"].get(0).cloned());
        if ended { Some(row.ok_or("the agent ended by itself")) } else { row.map(Ok) }
    });
    terminate(&process);
    let stopped = wait::until(STOPS_WITHIN, || process.try_wait().ok().flatten());
    if stopped.is_none() {
        // It is told why anyway.
        let _ = process.kill();
        let _ = process.wait();
    }
    let row = arrived.ok_or_else(|| format!("no reading within {ARRIVES_WITHIN:?}"))??;
    match stopped {
        Some(status) if status.success() => {}
        Some(status) => return Err(format!("told to stop, the agent ended with {status}")),
        None => return Err(format!("the agent did not stop within {STOPS_WITHIN:?}")),
    }
    is_right(&row)
}

fn is_right(row: &serde_json::Value) -> Result<(), Failure> {
    let (Some(temperature), Some(pressure)) = (row[0].as_f64(), row[1].as_f64()) else {
        return Err(format!("a reading is {row}"));
    };
    // What the chip measures at all.
    if (-40.0..=85.0).contains(&temperature) && (30_000.0..=110_000.0).contains(&pressure) {
        return Ok(());
    }
    Err(format!("a reading is {temperature} °C and {pressure} Pa"))
}
