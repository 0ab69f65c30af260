//! The agent for boards: how large its builds are, and what memory they take while they send.
//!
//! Built for this machine as for boards (`cross`), with Debian's compilers; memory is measured here, since under
//! qemu-user it would be the emulator's. A BMP180 that `cross/shim` plays is read 20 times a second, and its readings go
//! to Mosquitto over TLS.

use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use harness::{cpu, terminate, wait};
use serde_json::{Value, json};

use super::Scratch;
use super::report::Report;
use crate::command::output;
use crate::cross::{self, Debian, Extent, HERE, Purpose};
use crate::interop::install;
use crate::mosquitto::Mosquitto;
use crate::{Failure, Outcome};

const READINGS_PER_SECOND: u64 = 20;
const INTERVAL: Duration = Duration::from_millis(1_000 / READINGS_PER_SECOND);
const MEASURED: Duration = Duration::from_secs(60);
const STOPS_WITHIN: Duration = Duration::from_secs(20);
/// What a run may take, with all its libraries.
const MEMORY_MAX: u64 = 6_000_000;
/// Of the readings that its pace allows, so many are acknowledged at least: a chip that is read again while its
/// conversion runs late is skipped.
const ACKED_MIN: f64 = 0.9;

/// How often the outbox is synced, which is how often a batch leaves.
const SYNCS: [(&str, Duration); 2] =
    [("a batch each reading", INTERVAL), ("a batch each 10 s", Duration::from_secs(10))];

/// What one run showed.
struct Measured {
    peak: u64,
    end: u64,
    /// Of `peak`, what no other process shares and no file holds.
    anonymous: u64,
    cpu: Duration,
    acked: u64,
}

pub(super) fn run() -> Outcome {
    install("mosquitto", "mosquitto")?;
    install("openssl", "openssl")?;
    let toolchain = Debian::make(Purpose::Toolchain)?;
    let scratch = Scratch::new("agent").map_err(|error| format!("make a folder: {error}"))?;
    let folder = scratch.path();
    cross::make_shim(&toolchain, HERE, folder)?;
    make_certificates(folder)?;
    let mosquitto = Mosquitto::start_tls(folder, &folder.join("server.pem"), &folder.join("server.key"))?;
    let mut report = Report::new(
        "agent",
        format!(
            "`eden-agent` of the profile `agent`, built as `cargo xtask cross` builds it, for this machine's processor. *Small* has \
             MQTT over TLS, *whole* also HTTP; both have every sensor. A BMP180 (`cross/shim`) is read {READINGS_PER_SECOND} times a \
             second for {} s, and sent at QoS 1 over TLS to Mosquitto on loopback. Memory is what Linux counts as resident, the \
             program's file and the C library included; the peak is the run's highest.",
            MEASURED.as_secs()
        ),
    );
    let mut table = String::from(
        "| build | file, MB | sent | acknowledged/s | resident: peak, MB | at the end, MB | of it not of files, MB | CPU |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let mut data = Vec::new();
    let mut mistakes = Vec::new();
    for extent in [Extent::Small, Extent::Whole] {
        let agent = cross::build(&toolchain, HERE, extent)?;
        let size = agent.metadata().map_err(|error| format!("look at {}: {error}", agent.display()))?.len();
        for (sent, sync) in SYNCS {
            let Measured { peak, end, anonymous, cpu, acked } = measure(folder, &agent, &mosquitto, sync)?;
            let rate = acked as f64 / MEASURED.as_secs_f64();
            let mb = |bytes: u64| bytes as f64 / 1e6;
            let name = extent.name();
            writeln!(
                table,
                "| {name} | {:.2} | {sent} | {rate:.1} | {:.2} | {:.2} | {:.2} | {:.1} % |",
                mb(size),
                mb(peak),
                mb(end),
                mb(anonymous),
                100.0 * cpu.as_secs_f64() / MEASURED.as_secs_f64()
            )
            .map_err(|error| error.to_string())?;
            data.push(json!({
                "build": name, "file_bytes": size, "sent": sent, "acked_per_s": rate, "peak_bytes": peak, "end_bytes": end,
                "anonymous_bytes": anonymous, "cpu_s": cpu.as_secs_f64(),
            }));
            if peak > MEMORY_MAX {
                mistakes.push(format!("{name}, {sent}: {peak} bytes resident, more than {MEMORY_MAX}"));
            }
            if rate < ACKED_MIN * READINGS_PER_SECOND as f64 {
                mistakes.push(format!("{name}, {sent}: {rate:.1} readings/s acknowledged, not {READINGS_PER_SECOND}"));
            }
        }
    }
    report.table(table);
    report.data("builds", Value::Array(data));
    report.write()?;
    if mistakes.is_empty() { Ok(()) } else { Err(mistakes.join("\n")) }
}

fn failed(error: std::io::Error) -> Failure {
    format!("measure the agent: {error}")
}

/// One agent with an outbox of its own, from its start to its end.
fn measure(folder: &Path, agent: &Path, mosquitto: &Mosquitto, sync: Duration) -> Result<Measured, Failure> {
    let outbox = folder.join("outbox");
    if outbox.exists() {
        std::fs::remove_dir_all(&outbox).map_err(failed)?;
    }
    let configuration = folder.join("agent.toml");
    let text = format!(
        "[agent]\nid = \"bench\"\n\n[clock]\ntrust = \"system\"\n\n[outbox]\ndir = {:?}\nsync_interval = \"{}ms\"\n\n\
         [[server]]\nurl = \"mqtts://{}\"\nca = {:?}\n\n[[sensor]]\ndriver = \"bmp180\"\nname = \"s1\"\noversampling = 1\n\
         interval = \"{}ms\"\n",
        outbox.display().to_string(),
        sync.as_millis(),
        mosquitto.address,
        folder.join("ca.pem").display().to_string(),
        INTERVAL.as_millis()
    );
    std::fs::write(&configuration, text).map_err(failed)?;
    let log = folder.join("agent.log");
    let mut process = Command::new(agent)
        .args(["run", "--config"])
        .arg(&configuration)
        .env("LD_PRELOAD", folder.join(cross::SHIM))
        .stdin(Stdio::null())
        .stderr(File::create(&log).map_err(failed)?)
        .spawn()
        .map_err(failed)?;
    wait::pass(MEASURED);
    let with_log = |what: &str| format!("{what}\n{}", std::fs::read_to_string(&log).unwrap_or_default());
    if process.try_wait().map_err(failed)?.is_some() {
        return Err(with_log("the agent ended by itself"));
    }
    let pid = process.id();
    let (peak, end, cpu) = (cpu::peak_memory_bytes(pid), cpu::memory_bytes(pid), cpu::time_of(pid));
    let anonymous = cpu::anonymous_memory_bytes(pid);
    stop(&mut process).map_err(|reason| with_log(&reason))?;
    let acked = acked(agent, &configuration)?;
    Ok(Measured { peak, end, anonymous, cpu, acked })
}

fn stop(process: &mut Child) -> Outcome {
    terminate(process);
    match wait::until(STOPS_WITHIN, || process.try_wait().ok().flatten()) {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(format!("told to stop, the agent ended with {status}")),
        None => {
            // It is told why anyway.
            let _ = process.kill();
            let _ = process.wait();
            Err(format!("the agent did not stop within {STOPS_WITHIN:?}"))
        }
    }
}

/// Readings that were made and do not wait any more.
fn acked(agent: &Path, configuration: &PathBuf) -> Result<u64, Failure> {
    let text = output(Command::new(agent).args(["outbox", "--format", "json", "--config"]).arg(configuration))?;
    let outbox: Value = serde_json::from_str(&text).map_err(|error| format!("{text}: {error}"))?;
    let made = outbox["readings_made"].as_u64().ok_or_else(|| format!("no readings_made: {text}"))?;
    let lives = outbox["waiting"].as_array().ok_or_else(|| format!("no waiting: {text}"))?;
    let waiting: u64 = lives.iter().filter_map(|life| life["readings"].as_u64()).sum();
    Ok(made - waiting)
}

/// An authority in `ca.pem`, and of it `server.pem` and `server.key` for this machine.
fn make_certificates(folder: &Path) -> Outcome {
    let text = "[req]\ndistinguished_name = name\n[name]\n[ca]\nbasicConstraints = critical, CA:TRUE\nkeyUsage = keyCertSign\n\
                [server]\nbasicConstraints = critical, CA:FALSE\nsubjectAltName = DNS:localhost, IP:127.0.0.1\n";
    std::fs::write(folder.join("openssl.cnf"), text).map_err(failed)?;
    let request = |name: &str| {
        let mut command = Command::new("openssl");
        command.current_dir(folder).args(["req", "-x509", "-config", "openssl.cnf", "-nodes", "-days", "2"]);
        command.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-extensions", name]);
        command.args([
            "-keyout",
            &format!("{name}.key"),
            "-out",
            &format!("{name}.pem"),
            "-subj",
            &format!("/CN=bench {name}"),
        ]);
        command
    };
    for command in [&mut request("ca"), request("server").args(["-CA", "ca.pem", "-CAkey", "ca.key"])] {
        let made = command.output().map_err(|error| format!("start openssl: {error}"))?;
        if !made.status.success() {
            return Err(format!("openssl made no certificate: {}", String::from_utf8_lossy(&made.stderr)));
        }
    }
    Ok(())
}
