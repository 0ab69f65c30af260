//! Durable messages over MQTT, beside Mosquitto in the same minutes: rate, latency, CPU a message, and what an idle
//! connection costs.
//!
//! Mosquitto runs as Debian packages it, with persistence off, which is its default, and without subscribers: it
//! acknowledges and forgets. Eden acknowledges after its sync, and every acknowledged message is counted in SQL.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::{Eden, Profile, cpu, limits, program, wait};
use serde_json::{Value, json};

use super::Scratch;
use super::report::Report;
use crate::command::{exists, in_root, output};
use crate::interop::install;
use crate::mosquitto::Mosquitto;
use crate::{Failure, Outcome};

/// Messages as fast as acknowledgements allow, or each connection at a pace.
struct Load {
    connections: usize,
    in_flight: u16,
    json: bool,
    /// Seconds between two messages of a connection.
    every: Option<u64>,
}

/// As fast as acknowledgements allow.
const fn flat_out(connections: usize, in_flight: u16, json: bool) -> Load {
    Load { connections, in_flight, json, every: None }
}

const LOADS: [Load; 7] = [
    flat_out(1, 1, true),
    flat_out(100, 1, true),
    flat_out(100, 100, true),
    flat_out(1, 1, false),
    flat_out(100, 1, false),
    flat_out(100, 100, false),
    Load { connections: 5_000, in_flight: 1, json: true, every: Some(10) },
];

/// Seconds that a load at a pace runs: each connection's second message is among them.
const PACED_SECONDS: u64 = 30;

/// How the JSON of `mqttgen` becomes rows of the table that its lines go to.
const JSON_RULE: &str = r#"
[[mqtt.rule]]
topics = ["bench/json/+"]
data_format = "json"
name_override = "mqtt"
topic_parsing = { tags = "_/_/device" }
json_time_key = "t"
json_time_format = "unix_us"
"#;

impl Load {
    /// For people.
    fn name(&self) -> String {
        let payload = if self.json { "JSON" } else { "line" };
        match self.every {
            Some(every) => format!("{payload}, {} connections, a message each {every} s", self.connections),
            None => format!("{payload}, {} × {}", self.connections, self.in_flight),
        }
    }

    /// For programs.
    fn key(&self) -> String {
        let payload = if self.json { "json_" } else { "" };
        let every = self.every.map(|every| format!("_each_{every}s")).unwrap_or_default();
        format!("{payload}{}x{}{every}", self.connections, self.in_flight)
    }

    fn arguments(&self, scale: &Scale, name: &str) -> Vec<String> {
        let seconds = if self.every.is_some() { PACED_SECONDS.min(scale.seconds * 3) } else { scale.seconds };
        let mut arguments: Vec<String> = ["--qos", "1", "--name", name].map(str::to_owned).to_vec();
        let mut number = |name: &str, value: u64| arguments.extend([name.to_owned(), value.to_string()]);
        number("--connections", self.connections as u64);
        number("--in-flight", self.in_flight.into());
        number("--seconds", seconds);
        if let Some(every) = self.every {
            number("--every", every);
        }
        if self.json {
            arguments.extend(["--payload", "json", "--topic", "bench/json/{client}"].map(str::to_owned));
        }
        arguments
    }
}
/// Files a server with that many connections has open, with room.
const OPEN_FILES: u64 = 12_000;
/// Memory of fresh connections settles.
const SETTLE: Duration = Duration::from_secs(5);

/// How long and how often.
struct Scale {
    profile: Profile,
    seconds: u64,
    rounds: usize,
    idle: usize,
}

/// `--dev` runs dev builds for a short while and writes no result: to see that it works.
pub(super) fn run(arguments: &[String]) -> Outcome {
    let dev = arguments.iter().any(|argument| argument == "--dev");
    let scale = if dev {
        Scale { profile: Profile::Dev, seconds: 2, rounds: 1, idle: 500 }
    } else {
        Scale { profile: Profile::Release, seconds: 10, rounds: 3, idle: 5_000 }
    };
    install("mosquitto", "mosquitto")?;
    limits::raise_open_files(OPEN_FILES);
    let scratch = Scratch::new("mqtt").map_err(|error| format!("make a folder: {error}"))?;
    let what = format!(
        "MQTT 3.1.1 at QoS 1, one reading a message, as JSON (read by a rule) or as line protocol, `mqttgen` on the same \
         machine. Each load runs {} × {} s on either server in turn; the table has the medians. Eden's acknowledgement follows its sync, and \
         after each run `count(*)` is compared with what was acknowledged. {} from Debian, `persistence false` (its \
         default), no subscribers: it acknowledges and forgets. A load is connections × publishes in flight of each.",
        scale.rounds,
        scale.seconds,
        mosquitto_version()?
    );
    let mut report = Report::new("mqtt", what);
    loads(&scale, scratch.path(), &mut report)?;
    idle(&scale, scratch.path(), &mut report)?;
    if dev {
        println!("dev builds: nothing is written");
        return Ok(());
    }
    report.write()
}

/// One run on one server.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    messages_per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    server_cpu_us: f64,
    generator_cpu_us: f64,
}

/// For people, for programs, which one, digits.
type Figure = (&'static str, &'static str, fn(&Figures) -> f64, usize);

const FIGURES: [Figure; 6] = [
    ("messages/s", "messages_per_s", |figures| figures.messages_per_s, 0),
    ("ack p50 ms", "p50_ms", |figures| figures.p50_ms, 3),
    ("ack p99 ms", "p99_ms", |figures| figures.p99_ms, 3),
    ("ack max ms", "max_ms", |figures| figures.max_ms, 1),
    ("server CPU µs/message", "server_cpu_us", |figures| figures.server_cpu_us, 2),
    ("generator CPU µs/message", "generator_cpu_us", |figures| figures.generator_cpu_us, 2),
];

fn loads(scale: &Scale, folder: &Path, report: &mut Report) -> Outcome {
    let generator = program(scale.profile, "mqttgen", "mqttgen");
    let mut eden = eden(scale, &folder.join("eden"));
    let mosquitto = Mosquitto::start(folder)?;
    let mut table = String::from("| load | figure | Eden | Mosquitto | ratio |\n| --- | --- | --- | --- | --- |\n");
    let mut acked_by_eden = 0;
    for load in &LOADS {
        let mut runs: [Vec<Figures>; 2] = Default::default();
        for round in 0..scale.rounds {
            let name = format!("r{round}-{}", load.key());
            let arguments = load.arguments(scale, &name);
            // Each goes first as often as the other.
            for server in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
                let (address, pid) = match server {
                    0 => (eden.mqtt_address(), eden.pid()),
                    _ => (&*mosquitto.address, mosquitto.pid()),
                };
                let before = cpu::time_of(pid);
                let said = output(in_root(&generator).args(["--address", address]).args(&arguments))?;
                let cpu = cpu::time_of(pid) - before;
                let said: Value = serde_json::from_str(&said).map_err(|error| format!("{said}: {error}"))?;
                let number = |key: &str| said[key].as_f64().ok_or_else(|| format!("mqttgen said no {key}: {said}"));
                if number("failed")? > 0.0 || number("messages")? == 0.0 {
                    return Err(format!("a load of {} failed: {said}", ["Eden", "Mosquitto"][server]));
                }
                let figures = Figures {
                    messages_per_s: number("messages_per_s")?,
                    p50_ms: number("p50_ms")?,
                    p99_ms: number("p99_ms")?,
                    max_ms: number("max_ms")?,
                    server_cpu_us: cpu.as_secs_f64() * 1e6 / number("acked_in_all")?,
                    generator_cpu_us: number("generator_cpu_us")?,
                };
                println!("{name} on {}: {figures:?}", ["Eden", "Mosquitto"][server]);
                runs[server].push(figures);
                if server == 0 {
                    acked_by_eden += number("acked_in_all")? as u64;
                    let stored = eden.sql("SELECT count(*) FROM mqtt").single().as_u64();
                    if stored != Some(acked_by_eden) {
                        return Err(format!("{acked_by_eden} messages were acknowledged, {stored:?} are stored"));
                    }
                }
            }
        }
        for (name, key, figure, digits) in FIGURES {
            let [ours, theirs] = runs.each_ref().map(|runs| median(runs.iter().map(figure).collect()));
            let ratio = ours / theirs;
            writeln!(table, "| {} | {name} | {ours:.digits$} | {theirs:.digits$} | {ratio:.2} |", load.name())
                .map_err(|error| error.to_string())?;
            report.data(&format!("{}_{key}", load.key()), json!({ "eden": ours, "mosquitto": theirs, "ratio": ratio }));
        }
    }
    report.table(table);
    report.remark(format!("All {acked_by_eden} messages that Eden acknowledged were counted in SQL."));
    if scale.profile == Profile::Release {
        report.remark(profile(&generator, &eden, scale.seconds)?);
    }
    let status = eden.stop();
    if status.success() { Ok(()) } else { Err(format!("eden ended with {status}")) }
}

/// What Eden's CPU goes to under the largest load.
fn profile(generator: &Path, eden: &Eden, seconds: u64) -> Result<String, Failure> {
    if !exists("perf") {
        return Ok("No profile: `perf` (Debian: linux-perf) is not installed.".into());
    }
    let data = eden.home().join("perf.data");
    let pid = eden.pid().to_string();
    let mut perf = Command::new("perf")
        .args(["record", "--quiet", "-F", "499", "-g", "-p", &pid, "-o"])
        .arg(&data)
        .args(["--", "sleep", &seconds.to_string()])
        .spawn()
        .map_err(|error| format!("run perf: {error}"))?;
    let s = seconds.to_string();
    let load = ["--connections", "100", "--in-flight", "100", "--seconds", &s, "--name", "profiled"];
    output(in_root(generator).args(["--address", eden.mqtt_address()]).args(load))?;
    perf.wait().map_err(|error| format!("wait for perf: {error}"))?;
    let report =
        ["report", "--stdio", "--no-children", "-g", "none", "--percent-limit", "1", "-F", "overhead,sym", "-i"];
    let text = output(Command::new("perf").args(report).arg(&data))?;
    let lines: Vec<_> = text.lines().filter(|line| line.contains('%')).take(25).collect();
    Ok(format!("Eden at 100 × 100, own time by function:\n\n```text\n{}\n```", lines.join("\n")))
}

fn idle(scale: &Scale, folder: &Path, report: &mut Report) -> Outcome {
    let generator = program(scale.profile, "mqttgen", "mqttgen");
    // Fresh servers: what earlier loads left in memory is no connection's.
    let eden = eden(scale, &folder.join("eden-idle"));
    let mosquitto = Mosquitto::start(folder)?;
    let count = scale.idle;
    let mut table = format!(
        "| {count} idle connections | RSS MB before | RSS MB with them | kB a connection |\n| --- | --- | --- | --- |\n"
    );
    let servers = [("Eden", eden.mqtt_address(), eden.pid()), ("Mosquitto", &*mosquitto.address, mosquitto.pid())];
    for (name, address, pid) in servers {
        let before = cpu::memory_bytes(pid);
        let mut child = in_root(&generator)
            .args(["--address", address, "--seconds", "300", "--keep-alive", "20", "--name", "idle"])
            .args(["--idle", &count.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("run mqttgen: {error}"))?;
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut line = || lines.next().transpose().ok().flatten().unwrap_or_default();
        let ready = line();
        wait::until(SETTLE, || None::<()>);
        let with_them = cpu::memory_bytes(pid);
        harness::terminate(&child);
        let said = line();
        let status = child.wait().map_err(|error| format!("wait for mqttgen: {error}"))?;
        let said: Value = serde_json::from_str(&said).map_err(|error| format!("{ready} {said}: {error}"))?;
        if !status.success() || said["connected"] != count || said["lost"] != 0 {
            return Err(format!("{name} did not hold {count} connections: {said}"));
        }
        let each = with_them.saturating_sub(before) as f64 / count as f64;
        let mb = |bytes: u64| bytes as f64 / 1e6;
        println!("{name}: {count} idle connections: {:.1} → {:.1} MB", mb(before), mb(with_them));
        writeln!(table, "| {name} | {:.1} | {:.1} | {:.2} |", mb(before), mb(with_them), each / 1e3)
            .map_err(|error| error.to_string())?;
        let key = format!("idle_{}", name.to_lowercase());
        report.data(&key, json!({ "rss_before": before, "rss_with_them": with_them, "bytes_a_connection": each }));
    }
    report.table(table);
    Ok(())
}

fn eden(scale: &Scale, folder: &Path) -> Eden {
    let options = Eden::options("bench-mqtt").folder(folder).configuration(JSON_RULE);
    match scale.profile {
        Profile::Dev => options.start(),
        Profile::Release => options.release().start(),
    }
}

/// It says so only together with its usage, and ends with an error then.
fn mosquitto_version() -> Result<String, Failure> {
    let said = Command::new("mosquitto").arg("-h").output().map_err(|error| format!("run mosquitto: {error}"))?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    Ok(text.lines().next().unwrap_or("mosquitto").replace("mosquitto version", "Mosquitto"))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
