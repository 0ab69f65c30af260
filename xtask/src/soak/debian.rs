//! A card with Debian for arm64, from `cross/flash` to readings in SQL: in QEMU's Raspberry Pi 3 the board installs the
//! package at its first start, and systemd runs the agent as the package's unit says.
//!
//! `cross/card` makes Debian, `cross/pi` is the machine, with the chip of `soak pi` on its I²C bus. What systemd and
//! the kernel say of the service is asked over the serial line.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::time::Duration;

use harness::{Eden, terminate, wait};
use serde_json::json;

use super::pi::{ASKED_EACH, READING, SENSOR, memory, port};
use crate::command::{in_root, root, run as run_command};
use crate::cross::{self, AARCH64, Debian, Extent, Purpose};
use crate::interop::install;
use crate::{Failure, Outcome};

/// The board's name, and so the agent's.
const NAME: &str = "kitchen";
/// Where the folder of the machine's files is for it.
const PLACE: &str = "/work";
/// An emulated processor of a loaded machine installs a package; alone it takes some minutes.
const STARTS_WITHIN: Duration = Duration::from_secs(1_800);
const ANSWERS_WITHIN: Duration = Duration::from_secs(1_800);
const ENDS_WITHIN: Duration = Duration::from_secs(600);

/// What holds of a service that runs by the package's unit.
const SERVICE: &[(&str, &str)] = &[
    ("ActiveState", "active"),
    ("SubState", "running"),
    ("Result", "success"),
    ("NRestarts", "0"),
    ("DynamicUser", "yes"),
    ("SupplementaryGroups", "i2c"),
    ("DevicePolicy", "closed"),
    ("DeviceAllow", "char-i2c rw"),
    ("ProtectSystem", "strict"),
    ("NoNewPrivileges", "yes"),
    ("UnitFileState", "enabled"),
];
/// systemd's users that are made for a service, from first to last.
const DYNAMIC_USERS: std::ops::RangeInclusive<u32> = 61_184..=65_519;

/// Makes the card, starts it twice, compares.
pub(super) fn run() -> Outcome {
    let toolchain = Debian::make(Purpose::Toolchain)?;
    let board = Debian::make(Purpose::Board)?;
    println!("building the agent and its package");
    let package = cross::package(AARCH64, &cross::build(&toolchain, AARCH64, Extent::Whole)?)?;
    for (program, package) in
        [("mcopy", "mtools"), ("mke2fs", "e2fsprogs"), ("debugfs", "e2fsprogs"), ("sfdisk", "fdisk")]
    {
        install(program, package)?;
    }
    let image = cross::card(&board)?;

    let eden = Eden::start("debian");
    let work = eden.home().join("debian");
    let failed = |error: std::io::Error| format!("prepare the board: {error}");
    std::fs::create_dir(&work).map_err(failed)?;
    std::fs::write(work.join("eeprom.bin"), memory()).map_err(failed)?;
    // The server's loopback is 10.0.2.2 for the machine. Nobody tells it the time but the server.
    let configuration = format!(
        "[clock]\ntime_url = \"http://10.0.2.2:{}/health\"\n\n[outbox]\ndir = \"/var/lib/eden-agent\"\n\n{SENSOR}",
        port(eden.address())
    );
    std::fs::write(work.join("agent.toml"), configuration).map_err(failed)?;
    let mut flash = in_root(root().join("cross/flash"));
    flash.arg("--image").arg(&image).arg("--output").arg(work.join("card.img")).arg("--package").arg(&package);
    flash.arg("--config").arg(work.join("agent.toml")).args(["--hostname", NAME]);
    flash.args(["--server", &format!("mqtt://10.0.2.2:{}", port(eden.mqtt_address()))]);
    run_command(&mut flash)?;

    let first = one_boot(&board, &eden, &work, "first", 0)?;
    let second = one_boot(&board, &eden, &work, "second", first)?;
    nothing_is_missing(&eden, second)
}

/// What the board knows of it when its readings do not arrive.
const WHY_NO_READING: &str = "cat /proc/uptime; systemctl list-jobs --no-pager; systemctl --failed --no-pager; \
                              networkctl status --all --no-pager; \
                              journalctl --unit=eden-agent --unit=systemd-networkd --lines=40 --no-pager; dmesg | tail -n 40; \
                              ps -e -o pid,stat,time,args --sort=-time | head -n 15";

/// From power on to power off. Returns the number of readings in SQL by then; there are more than `before`.
fn one_boot(board: &Debian, eden: &Eden, work: &Path, which: &str, before: u64) -> Result<u64, Failure> {
    println!("{which} start: power on");
    let mut machine = Machine::start(board, work, which)?;
    let result = look(&mut machine, eden, which, before);
    machine.end();
    result.map_err(|error| format!("{which} start: {error}; the console:\n{}", machine.said()))?;
    let found = count(eden)?;
    found.are_right()?;
    Ok(found.readings)
}

fn look(machine: &mut Machine, eden: &Eden, which: &str, before: u64) -> Outcome {
    let start = wait::now();
    let shown = |what: &str| println!("{which} start: {what} after {:.0} s", start.elapsed().as_secs_f64());
    machine.waits_for("pi: the card is there", STARTS_WITHIN)?;
    shown("kernel and card");
    machine.log_in()?;
    shown("systemd, and a shell on the serial line");
    // Until the first reading there is no table to ask.
    let arrived = machine.until(STARTS_WITHIN, |_| count(eden).ok().filter(|found| found.readings > before));
    let found = arrived.map_err(|error| {
        let why =
            machine.ask(WHY_NO_READING).unwrap_or_else(|error| format!("and the board does not say why: {error}"));
        format!("no reading arrived: {error}\n{why}")
    })?;
    found.are_right()?;
    shown("a reading in SQL");
    is_set_up(machine)?;
    is_as_the_unit_says(machine, which)?;
    machine.power_off()?;
    shown("power off");
    Ok(())
}

/// The board's first start came to its end: Debian knows the package.
fn is_set_up(machine: &mut Machine) -> Outcome {
    // The agent runs, and has sent, before the unit that installed it is over. What the board's other units came to is not asked.
    machine.ask("systemctl is-system-running --wait || true")?;
    machine.ask("ls /var/lib/eden-setup/setup.done")?;
    let known = machine.ask("dpkg-query --show --showformat '${Package} ${Status} ${Architecture}' eden-agent")?;
    if known.trim() != "eden-agent install ok installed arm64" {
        return Err(format!("dpkg knows the package as {known:?}"));
    }
    Ok(())
}

/// The service is active, is what its unit wants it to be, and nothing that the unit forbids was wanted.
fn is_as_the_unit_says(machine: &mut Machine, which: &str) -> Outcome {
    let active = machine.ask("systemctl is-active eden-agent.service")?;
    if active.trim() != "active" {
        return Err(format!("the service is {active:?}"));
    }
    let properties: Vec<_> = SERVICE.iter().map(|(name, _)| *name).collect();
    let said = machine.ask(&format!("systemctl show eden-agent.service --property={}", properties.join(",")))?;
    for (name, value) in SERVICE {
        if !said.lines().any(|line| line.trim() == format!("{name}={value}")) {
            return Err(format!("{name} of the service should be {value}:\n{said}"));
        }
    }
    let process = "/proc/$(systemctl show eden-agent.service --property=MainPID --value)";
    let status = machine.ask(&format!("cat {process}/status"))?;
    let value = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).unwrap_or_default()
    };
    let user = value("Uid").split(' ').next().and_then(|user| user.parse().ok()).unwrap_or(0);
    if !DYNAMIC_USERS.contains(&user) {
        return Err(format!("the agent runs as the user {user}, which is none that systemd made for it:\n{status}"));
    }
    for (name, wanted) in
        [("NoNewPrivs", "1"), ("Seccomp", "2"), ("CapEff", "0000000000000000"), ("CapBnd", "0000000000000000")]
    {
        if value(name) != wanted {
            return Err(format!("{name} of the agent should be {wanted}:\n{status}"));
        }
    }
    // The folder by its own name, as the agent sees it (to others it is nobody's, since systemd 257), and the bus by its group.
    let owners = machine.ask(&format!(
        "stat --format='%a %u' {process}/root/var/lib/private/eden-agent; stat --format='%a %G' /dev/i2c-1"
    ))?;
    if owners.lines().map(str::trim).ne([format!("700 {user}").as_str(), "660 i2c"]) {
        return Err(format!("the outbox is not the agent's, or the bus not the group's:\n{owners}"));
    }
    let log = machine.ask("journalctl --unit=eden-agent.service --output=cat --no-pager")?;
    if !log.contains("connected") {
        return Err(format!("the agent's log says of no connection:\n{log}"));
    }
    // It starts before the network is there, and says so; what it may not do would be told in these words.
    let is_forbidden = |line: &&str| ["ERROR", "not permitted", "denied"].iter().any(|word| line.contains(word));
    if let Some(line) = log.lines().find(is_forbidden) {
        return Err(format!("the agent complains: {line}\n{log}"));
    }
    let exposure = machine.ask("systemd-analyze security --no-pager eden-agent.service | tail -n 1")?;
    println!("{which} start: the service is active, user {user}, VmRSS {}, no capability", value("VmRSS"));
    println!(
        "{which} start: systemd-analyze security: {}",
        exposure.trim().trim_start_matches(|c: char| !c.is_ascii_alphabetic())
    );
    for line in log.lines() {
        println!("{which} start: eden-agent: {}", line.trim());
    }
    Ok(())
}

/// Readings of the board in SQL.
struct Found {
    readings: u64,
    /// Of them, those that are not what the chip says.
    wrong: u64,
}

impl Found {
    fn are_right(&self) -> Outcome {
        let Found { readings, wrong } = self;
        if *wrong == 0 { Ok(()) } else { Err(format!("{wrong} of {readings} readings are not {READING:?}")) }
    }
}

fn count(eden: &Eden) -> Result<Found, Failure> {
    let [temperature, pressure] = READING;
    let statement = format!(
        "SELECT count(*), count(*) FILTER (WHERE temperature = {temperature} AND pressure = {pressure}) FROM bmp180 \
         WHERE agent = '{NAME}'"
    );
    let answer = eden.client().sql(&statement)?;
    match (answer["rows"][0][0].as_u64(), answer["rows"][0][1].as_u64()) {
        (Some(readings), Some(right)) => Ok(Found { readings, wrong: readings - right }),
        _ => Err(format!("{statement}: {answer}")),
    }
}

/// What the server knows of the agent: no number is missing, and no start followed an end that was none.
fn nothing_is_missing(eden: &Eden, readings: u64) -> Outcome {
    let gaps = eden.client().sql(&format!("SELECT count(*) FROM system.agent_gaps WHERE agent = '{NAME}'"))?;
    // Of 64 bits without a sign, which JSON has as text.
    let agents = eden.client().sql(&format!("SELECT missing, gaps FROM system.agents WHERE agent = '{NAME}'"))?;
    if gaps["rows"] != json!([[0]]) || agents["rows"] != json!([["0", "0"]]) {
        return Err(format!("readings are missing: gaps {}, missing and gaps {}", gaps["rows"], agents["rows"]));
    }
    println!("{readings} readings in SQL, each {} °C and {} Pa; 0 gaps over two starts", READING[0], READING[1]);
    Ok(())
}

/// A board and its serial line.
struct Machine {
    process: Child,
    line: ChildStdin,
    console: PathBuf,
    questions: u32,
}

impl Machine {
    fn start(board: &Debian, work: &Path, which: &str) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| format!("start the board: {error}");
        let console = work.join(format!("console-{which}"));
        let lines = File::create(&console).map_err(failed)?;
        let source = root();
        let mut command = board.program(&[(&source, "/source"), (work, PLACE)], "/source/cross/pi");
        command.args(["card", PLACE]).arg(format!("{PLACE}/card.img"));
        let mut process = command.stdin(Stdio::piped()).stdout(lines).spawn().map_err(failed)?;
        let line = process.stdin.take().expect("piped");
        Ok(Machine { process, line, console, questions: 0 })
    }

    /// All of the console.
    fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.console).unwrap_or_default()).into_owned()
    }

    /// Waits until there is an answer; a board that is off gives none.
    fn until<T>(&mut self, within: Duration, mut answer: impl FnMut(&str) -> Option<T>) -> Result<T, Failure> {
        let answer = wait::until(within, || {
            let is_off = matches!(self.process.try_wait(), Ok(Some(_)));
            let found = answer(&self.said()).map(Ok);
            if found.is_none() && is_off {
                return Some(Err("the board is off".to_owned()));
            }
            if found.is_none() {
                wait::pass(ASKED_EACH);
            }
            found
        });
        answer.ok_or_else(|| format!("not within {within:?}"))?
    }

    fn waits_for(&mut self, text: &str, within: Duration) -> Outcome {
        let found = self.until(within, |said| said.contains(text).then_some(()));
        found.map_err(|error| format!("the console does not say {text:?}: {error}"))
    }

    fn types(&mut self, line: &str) -> Outcome {
        writeln!(self.line, "{line}").map_err(|error| format!("type {line:?}: {error}"))
    }

    /// Waits for the shell, and makes it say nothing but answers.
    fn log_in(&mut self) -> Outcome {
        self.waits_for("root@", STARTS_WITHIN)?;
        self.types("stty -echo; PS1=; PS2=; dmesg --console-off")?;
        self.ask("true").map(drop)
    }

    /// What a command prints; it has to succeed.
    fn ask(&mut self, command: &str) -> Result<String, Failure> {
        self.questions += 1;
        let (begin, end) = (format!("answer-{}:", self.questions), format!("end-{}:", self.questions));
        // The quotes keep an echo of the line from being taken for its answer.
        let number = self.questions;
        self.types(&format!("echo 'answer'-{number}:; ( {command} ) 2>&1; echo 'end'-{number}:$?."))?;
        let answer = self.until(ANSWERS_WITHIN, |said| {
            let answer = said.split_once(&begin)?.1;
            let (answer, status) = answer.split_once(&end)?;
            let (status, _) = status.split_once('.')?;
            Some((answer.trim_start_matches(['\r', '\n']).replace('\r', ""), status.to_owned()))
        });
        let (answer, status) = answer.map_err(|error| format!("no answer to {command:?}: {error}"))?;
        if status == "0" { Ok(answer) } else { Err(format!("{command:?} ended with {status}: {answer}")) }
    }

    /// As a person does it who is careful with cards.
    fn power_off(&mut self) -> Outcome {
        self.types("systemctl poweroff")?;
        let ended = wait::until(ENDS_WITHIN, || self.process.try_wait().ok().flatten());
        match ended {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(format!("the board's end: {status}")),
            None => Err(format!("the board did not switch itself off within {ENDS_WITHIN:?}")),
        }
    }

    fn end(&mut self) {
        if matches!(self.process.try_wait(), Ok(Some(_))) {
            return;
        }
        terminate(&self.process);
        if wait::until(ENDS_WITHIN, || self.process.try_wait().ok().flatten()).is_none() {
            // It has to go; how is all the same.
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}
