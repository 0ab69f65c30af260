//! One built agent against a server: does it start, does it measure, does what it measured arrive.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::{Eden, terminate, wait};

use super::{Board, Compiler, Debian, Extent, SOURCE, TARGET, TOOLS};
use crate::command::{output, root, run as run_command};
use crate::{Failure, Outcome};

/// Where the agent's own folder is for it.
const WORK: &str = "/work";
/// qemu-user on a loaded machine.
const ARRIVES_WITHIN: Duration = Duration::from_secs(120);
const STOPS_WITHIN: Duration = Duration::from_secs(60);

/// The way to the sensor that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bus {
    /// A library that is loaded before all others plays the chip: `cross/shim`.
    Preloaded,
    /// The same chip is a part of the program.
    Linked,
    /// None: the agent invents what it measures.
    Simulated,
}

impl Bus {
    /// The sensor, in the agent's configuration.
    fn section(self) -> &'static str {
        match self {
            Bus::Preloaded | Bus::Linked => "[[sensor]]\ndriver = \"bmp180\"\nname = \"s1\"\noversampling = 1\n",
            Bus::Simulated => "[[sensor]]\ndriver = \"simulated-bmp180\"\nname = \"s1\"\n",
        }
    }

    /// °C and Pa of the chip, which are the data sheet's example; none if they are others each time.
    fn reading(self) -> Option<[f64; 2]> {
        (self != Bus::Simulated).then_some([15.0, 69_964.0])
    }
}

/// In the folder of the agent.
pub(crate) const SHIM: &str = "bmp180.so";

/// What the agent says of its version and of a server that it cannot speak to, and one reading of it in SQL at an `eden` on
/// loopback.
pub(super) fn run(toolchain: &Debian, board: Board, agent: &Path, extent: Extent, bus: Bus) -> Outcome {
    let eden = Eden::start("cross");
    let id = format!("cross-{}-{}", board.name, extent.name());
    let work = eden.home().join("agent");
    std::fs::create_dir(&work).map_err(|error| format!("make {}: {error}", work.display()))?;
    if bus == Bus::Preloaded {
        make_shim(toolchain, board, &work)?;
    }
    let configuration = format!(
        // Nobody keeps the clock of a machine for tests right.
        "[agent]\nid = \"{id}\"\n\n[clock]\ntrust = \"system\"\n\n[outbox]\ndir = \"{WORK}/outbox\"\nsync_interval = \
         \"100ms\"\n\n[[server]]\nurl = \"mqtt://{}\"\n\n{}",
        eden.mqtt_address(),
        bus.section()
    );
    std::fs::write(work.join("agent.toml"), configuration).map_err(|error| format!("write agent.toml: {error}"))?;
    let program = |arguments: &[&str]| {
        let folder = agent.parent().unwrap_or(agent);
        let mut command = toolchain.program(&[(folder, TARGET), (&work, WORK)], board.emulator[0]);
        command.args(&board.emulator[1..]);
        if bus == Bus::Preloaded {
            command.args(["-E", &format!("LD_PRELOAD={WORK}/{SHIM}")]);
        }
        command.arg(format!("{TARGET}/eden-agent")).args(arguments);
        command
    };

    let version = output(&mut program(&["--version"]))?;
    if version.trim() != format!("eden-agent {}", env!("CARGO_PKG_VERSION")) {
        return Err(format!("eden-agent --version says {version:?}"));
    }
    if extent == Extent::Small {
        refuses_http(&work, &mut program(&["check", "--config", &format!("{WORK}/http.toml")]))?;
    }
    let log = work.join("log");
    let result = measure(&eden, &id, bus, &mut program(&["run", "--config", &format!("{WORK}/agent.toml")]), &log);
    result.map_err(|error| format!("{error}\n{}", std::fs::read_to_string(&log).unwrap_or_default()))
}

/// From the agent's start to a clean stop after its first reading.
fn measure(eden: &Eden, id: &str, bus: Bus, agent: &mut Command, log: &Path) -> Outcome {
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
    is_right(&row, bus)
}

fn is_right(row: &serde_json::Value, bus: Bus) -> Result<(), Failure> {
    let (Some(temperature), Some(pressure)) = (row[0].as_f64(), row[1].as_f64()) else {
        return Err(format!("a reading is {row}"));
    };
    let is_right = match bus.reading() {
        Some(reading) => [temperature, pressure] == reading,
        // What the chip measures at all.
        None => (-40.0..=85.0).contains(&temperature) && (30_000.0..=110_000.0).contains(&pressure),
    };
    if is_right { Ok(()) } else { Err(format!("a reading is {temperature} °C and {pressure} Pa")) }
}

/// A build without HTTP says so of a server that needs it.
fn refuses_http(work: &Path, check: &mut Command) -> Outcome {
    let text = "[[server]]\nurl = \"http://127.0.0.1:4200\"\n";
    std::fs::write(work.join("http.toml"), text).map_err(|error| format!("write http.toml: {error}"))?;
    let output = check.output().map_err(|error| format!("start the agent: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let is_right = output.status.code() == Some(2) && said.contains("was made without HTTP");
    if is_right { Ok(()) } else { Err(format!("a server over HTTP: {}: {said}", output.status)) }
}

/// [`SHIM`] for the board, into the folder: a library, or for a static program an object file.
pub(crate) fn make_shim(toolchain: &Debian, board: Board, work: &Path) -> Outcome {
    let source = root();
    let tools = super::folder()?.join("tools");
    let mut places = vec![(source.as_path(), SOURCE), (work, WORK)];
    let mut command = match board.compiler {
        Compiler::Gcc(prefix) => {
            let mut command = toolchain.program(&places, &format!("{prefix}-gcc"));
            command.args(["-shared", "-fPIC"]);
            command
        }
        Compiler::Zig => {
            super::install_zig(&tools)?;
            places.push((&tools, TOOLS));
            // zig keeps what it compiled of the C library.
            let mut command = toolchain.program(&places, "env");
            command.args(["HOME=/tmp", &format!("{TOOLS}/ziglang/zig"), "cc", "-c"]);
            command.args(["-target", "arm-linux-musleabihf", "-mcpu=arm1176jzf_s"]);
            command
        }
    };
    command.args(["-Wall", "-Wextra", "-Werror", "-O1", "-o"]);
    run_command(command.arg(format!("{WORK}/{SHIM}")).arg(format!("{SOURCE}/cross/shim/bmp180.c")))
}
