//! One running `eden-agent` and its outbox.

use std::fmt::Write;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::binary::{Profile, agent_binary};
use crate::eden::terminate;
use crate::home::{Home, read_log};
use crate::wait;

/// Beyond [`Options::grace`].
const STOPPED_WITHIN: Duration = Duration::from_secs(60);

/// How to start an agent.
#[derive(Clone, Debug)]
pub struct Options {
    id: String,
    servers: Vec<(String, Option<&'static str>)>,
    sensors: Vec<(String, Duration)>,
    sync_interval: Duration,
    max_readings: u32,
    grace: Duration,
    profile: Profile,
    folder: Option<PathBuf>,
}

impl Options {
    /// A server to send to, after those named before: `mqtt://host:port` or `http://host:port`.
    #[must_use]
    pub fn server(mut self, url: &str) -> Self {
        self.servers.push((url.to_string(), None));
        self
    }

    /// The same with the version of MQTT: `3.1.1` or `5`.
    #[must_use]
    pub fn mqtt_server(mut self, address: &str, version: &'static str) -> Self {
        self.servers.push((format!("mqtt://{address}"), Some(version)));
        self
    }

    /// A simulated sensor that measures in this interval.
    #[must_use]
    pub fn sensor(mut self, name: &str, interval: Duration) -> Self {
        self.sensors.push((name.to_string(), interval));
        self
    }

    /// The time after which the open batch is closed and made durable.
    #[must_use]
    pub fn sync_interval(mut self, interval: Duration) -> Self {
        self.sync_interval = interval;
        self
    }

    /// Readings after which a batch is closed.
    #[must_use]
    pub fn max_readings(mut self, readings: u32) -> Self {
        self.max_readings = readings;
        self
    }

    /// How long a clean stop tries to send what waits.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Runs the release build.
    #[must_use]
    pub fn release(mut self) -> Self {
        self.profile = Profile::Release;
        self
    }

    /// Keeps outbox, configuration and log in this folder instead of a temporary one.
    #[must_use]
    pub fn folder(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_path_buf());
        self
    }

    /// Starts the agent.
    ///
    /// # Panics
    /// When its process cannot be started.
    pub fn start(self) -> Agent {
        let home = Home::new(&format!("agent-{}", self.id), self.folder.as_deref());
        let mut agent = Agent { options: self, home, process: None };
        agent.restart();
        agent
    }

    fn as_toml(&self, outbox: &Path) -> String {
        let Options { id, servers, sensors, sync_interval, max_readings, grace, .. } = self;
        let ms = |time: &Duration| format!("{}ms", time.as_millis());
        let mut text = format!(
            "[agent]\nid = {id:?}\nlog = \"info,edge_agent=debug\"\ngrace = \"{}\"\n\n[batch]\nmax_readings = \
             {max_readings}\n\n[clock]\ntrust = \"system\"\n\n[outbox]\ndir = {:?}\nsync_interval = \"{}\"\n",
            ms(grace),
            outbox.display().to_string(),
            ms(sync_interval)
        );
        for (url, version) in servers {
            writeln!(text, "\n[[server]]\nurl = {url:?}").expect("writing to a String");
            if let Some(version) = version {
                writeln!(text, "mqtt_version = {version:?}").expect("writing to a String");
            }
        }
        for (name, interval) in sensors {
            let interval = ms(interval);
            writeln!(text, "\n[[sensor]]\ndriver = \"simulated-bmp180\"\nname = {name:?}\ninterval = {interval:?}")
                .expect("writing to a String");
        }
        text
    }
}

/// What `eden-agent outbox` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbox {
    /// The agent epoch.
    pub epoch: u64,
    /// The last seq given away in it.
    pub last_seq: u64,
    /// Readings in all durable batches of this epoch, sent or not.
    pub readings_made: u64,
    /// Batches that wait.
    pub batches: u64,
    /// Readings in them.
    pub readings: u64,
    /// Gaps that no server was told of.
    pub gaps: usize,
    /// Whether the last agent closed it in order.
    pub closed: bool,
    /// Bytes that it has written to its disk, ever, in whole blocks.
    pub bytes_written: u64,
    /// Syncs, ever.
    pub syncs: u64,
}

impl Outbox {
    /// Whether nothing waits to be sent or told.
    pub fn is_empty(&self) -> bool {
        self.batches == 0 && self.gaps == 0
    }
}

/// An agent's process with an outbox of its own, killed and removed when dropped.
///
/// While a panic passes through, the folder is kept, and its path and the end of the log are printed.
#[derive(Debug)]
pub struct Agent {
    options: Options,
    home: Home,
    process: Option<Child>,
}

impl Agent {
    /// An agent without servers and sensors yet.
    pub fn options(id: &str) -> Options {
        Options {
            id: id.to_string(),
            servers: Vec::new(),
            sensors: Vec::new(),
            sync_interval: Duration::from_millis(100),
            max_readings: 1_000,
            grace: Duration::from_secs(60),
            profile: Profile::Dev,
            folder: None,
        }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.options.id
    }

    /// The folder of the outbox.
    pub fn outbox_folder(&self) -> PathBuf {
        self.home.path().join("outbox")
    }

    /// Everything it has printed so far, over all its starts.
    pub fn log(&self) -> String {
        read_log(&self.log_path())
    }

    /// Its process.
    ///
    /// # Panics
    /// While it is down.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the agent is up").id()
    }

    /// Whether its process was started and neither killed nor stopped.
    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// Ends the process with SIGKILL, wherever it is.
    ///
    /// # Panics
    /// When it had ended by itself.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let ended = process.try_wait().expect("look at the agent");
            assert!(ended.is_none(), "agent {} had ended by itself: {ended:?}", self.options.id);
            process.kill().expect("kill the agent");
            process.wait().expect("wait for the killed agent");
        }
    }

    /// Asks the process to stop and waits for its end.
    ///
    /// # Panics
    /// When it is down already or does not end.
    pub fn stop(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("the agent is down");
        // One that has only just begun would end like one that is killed.
        wait::until(STOPPED_WITHIN, || (catches_sigterm(process.id()) || has_ended(&mut process)).then_some(()));
        terminate(&process);
        let within = self.options.grace + STOPPED_WITHIN;
        let status = wait::until(within, || process.try_wait().expect("wait for the agent"));
        status.unwrap_or_else(|| {
            self.process = Some(process);
            panic!("the agent did not stop within {within:?} of SIGTERM")
        })
    }

    /// Starts the process on its outbox.
    ///
    /// # Panics
    /// When it runs already.
    pub fn restart(&mut self) {
        assert!(self.process.is_none(), "the agent runs already");
        let text = self.options.as_toml(&self.outbox_folder());
        std::fs::write(self.config_path(), text).expect("write the agent's configuration");
        let log = OpenOptions::new().create(true).append(true).open(self.log_path()).expect("open the agent's log");
        let process = self
            .command("run")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("share the agent's log"))
            .stderr(log)
            .spawn()
            .expect("start eden-agent");
        self.process = Some(process);
    }

    /// What waits in its outbox now; `None` before there is one. It may run meanwhile.
    ///
    /// # Panics
    /// When `eden-agent outbox` fails.
    pub fn outbox(&self) -> Option<Outbox> {
        let output = self.command("outbox").args(["--format", "json"]).output().expect("run eden-agent outbox");
        let said = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "eden-agent outbox: {}: {said}{errors}", output.status);
        let answer: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{said}: {error}"));
        if answer.is_null() {
            return None;
        }
        let number = |value: &Value, name: &str| {
            value[name].as_u64().unwrap_or_else(|| panic!("eden-agent outbox says no {name}: {said}"))
        };
        let list = |name: &str| answer[name].as_array().unwrap_or_else(|| panic!("no {name}: {said}"));
        assert!(list("losses").is_empty(), "damage in an outbox that was never damaged: {said}");
        let waiting = list("waiting");
        let gaps_on_their_way: usize = waiting.iter().map(|life| life["gaps"].as_array().map_or(0, Vec::len)).sum();
        Some(Outbox {
            epoch: number(&answer, "epoch"),
            last_seq: number(&answer, "last_seq"),
            readings_made: number(&answer, "readings_made"),
            batches: waiting.iter().map(|life| number(life, "batches")).sum(),
            readings: waiting.iter().map(|life| number(life, "readings")).sum(),
            gaps: list("gaps").len() + gaps_on_their_way,
            closed: answer["closed"].as_bool().expect("closed"),
            bytes_written: number(&answer, "bytes_written"),
            syncs: number(&answer, "syncs"),
        })
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(agent_binary(self.options.profile));
        // Settings of the person who runs the tests are not part of the test.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("EDEN_") {
                command.env_remove(name);
            }
        }
        command.arg(name).arg("--config").arg(self.config_path());
        command
    }

    fn config_path(&self) -> PathBuf {
        self.home.path().join("agent.toml")
    }

    fn log_path(&self) -> PathBuf {
        self.home.path().join("agent.log")
    }
}

fn has_ended(process: &mut Child) -> bool {
    process.try_wait().expect("look at the agent").is_some()
}

/// Whether the process has a handler for SIGTERM by now, as Linux says.
fn catches_sigterm(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    mask & (1 << (Signal::TERM.as_raw() - 1)) != 0
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            self.home.keep_for_a_look(&format!("agent {}", self.options.id), &[], &log);
        }
        if let Some(mut process) = self.process.take() {
            // Dropping must not panic; a process that is gone already is what we want.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
