//! One running `eden serve` and its data folder.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::binary::{Profile, eden_binary};
use crate::home::{Home, read_log};
use crate::http::Client;
use crate::reading::Reading;
use crate::wait;

/// A dev build replays and starts sooner, also on a loaded machine.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// Beyond the server's own grace period.
const STOPPED_WITHIN: Duration = Duration::from_secs(60);

/// The configuration file, in the server's folder.
const CONFIGURATION: &str = "eden.toml";

/// How to start a server.
#[derive(Clone, Debug)]
pub struct Options {
    name: String,
    profile: Profile,
    environment: Vec<(String, String)>,
    configuration: Option<String>,
    folder: Option<PathBuf>,
}

impl Options {
    /// Sets a key of the configuration: `("EDEN_STORAGE_MEMORY", "64MiB")`.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_string(), value.to_string()));
        self
    }

    /// Gives it a configuration file with this text.
    #[must_use]
    pub fn configuration(mut self, text: &str) -> Self {
        self.configuration = Some(text.to_string());
        self
    }

    /// Runs the release build.
    #[must_use]
    pub fn release(mut self) -> Self {
        self.profile = Profile::Release;
        self
    }

    /// Keeps its data and log in this folder instead of a temporary one, which is made if missing.
    #[must_use]
    pub fn folder(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_path_buf());
        self
    }

    /// Starts the server and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready.
    pub fn start(self) -> Eden {
        let home = Home::new(&self.name, self.folder.as_deref());
        let addresses = Addresses::default();
        if let Some(text) = &self.configuration {
            std::fs::write(home.path().join(CONFIGURATION), text).expect("write the configuration");
        }
        let mut eden = Eden { options: self, home, process: None, addresses, notes: Vec::new() };
        eden.spawn();
        eden.wait_until_ready();
        eden
    }
}

/// A server process on port 0 with a data folder of its own, killed and removed when dropped.
///
/// While a panic passes through, the folder is kept, and its path and the end of the server's log are printed.
#[derive(Debug)]
pub struct Eden {
    options: Options,
    home: Home,
    process: Option<Child>,
    addresses: Addresses,
    notes: Vec<String>,
}

/// What `addresses.json` says.
#[derive(Debug, Default)]
struct Addresses {
    http: String,
    mqtt: Option<String>,
}

impl Eden {
    /// Starts a dev build with default settings and waits until it is ready. The name shows in the folder's.
    pub fn start(name: &str) -> Self {
        Self::options(name).start()
    }

    /// A dev build with default settings, to be changed and started.
    pub fn options(name: &str) -> Options {
        Options {
            name: name.to_string(),
            profile: Profile::Dev,
            environment: Vec::new(),
            configuration: None,
            folder: None,
        }
    }

    /// Adds a line to what is printed if the test fails: the seed, say.
    pub fn note(&mut self, line: impl Into<String>) {
        self.notes.push(line.into());
    }

    /// The folder that holds data and log.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.home().join("data")
    }

    /// The folder of a table in the schema `public`.
    pub fn table(&self, name: &str) -> PathBuf {
        self.data().join("tables/public").join(name)
    }

    /// Everything the server has printed so far, over all its starts.
    pub fn log(&self) -> String {
        read_log(&self.log_path())
    }

    /// `host:port` of HTTP.
    pub fn address(&self) -> &str {
        &self.addresses.http
    }

    /// `host:port` of MQTT.
    ///
    /// # Panics
    /// When the server does not listen for MQTT.
    pub fn mqtt_address(&self) -> &str {
        self.addresses.mqtt.as_deref().expect("the server listens for MQTT")
    }

    /// The process id.
    ///
    /// # Panics
    /// When the server is down.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the server is down").id()
    }

    /// A new connection.
    pub fn client(&self) -> Client {
        Client::new(self.address())
    }

    /// Writes line protocol, times in ns.
    ///
    /// # Panics
    /// When it is not acknowledged.
    pub fn write_lp(&self, lines: &str) {
        let outcome = self.client().write_lp(lines.as_bytes());
        assert_eq!(outcome, crate::Outcome::Acked, "write {lines:?}");
    }

    /// Writes readings in one request.
    ///
    /// # Panics
    /// When they are not acknowledged.
    pub fn write(&self, readings: &[Reading]) {
        let outcome = self.client().write(readings);
        assert_eq!(outcome, crate::Outcome::Acked, "write {} readings", readings.len());
    }

    /// Runs one SQL statement.
    ///
    /// # Panics
    /// When it fails.
    pub fn sql(&self, statement: &str) -> Rows {
        match self.client().sql(statement) {
            Ok(answer) => Rows::new(answer),
            Err(error) => panic!("{error}"),
        }
    }

    /// Flushes a table to its shards.
    ///
    /// # Panics
    /// When that fails.
    pub fn refresh(&self, table: &str) {
        self.sql(&format!("REFRESH TABLE {table}"));
    }

    /// Runs `eden` with these arguments to its end, with the same settings as the server.
    ///
    /// # Panics
    /// When it cannot be run.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().expect("run eden")
    }

    /// Ends the process with SIGKILL, wherever it is.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("kill the server");
            process.wait().expect("wait for the killed server");
        }
    }

    /// Asks the process to stop with SIGTERM and waits for its end.
    ///
    /// # Panics
    /// When it is down already or does not end.
    pub fn stop(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("the server is down");
        terminate(&process);
        let status = wait::until(STOPPED_WITHIN, || process.try_wait().expect("wait for the server"));
        status.unwrap_or_else(|| {
            self.process = Some(process);
            panic!("the server did not stop within {STOPPED_WITHIN:?} of SIGTERM")
        })
    }

    /// Starts the process again on the same data and waits until it is ready.
    ///
    /// # Panics
    /// When it runs already, or does not become ready.
    pub fn restart(&mut self) {
        self.spawn();
        self.wait_until_ready();
    }

    /// Starts the process again on the same data and returns at once, while it replays.
    pub fn restart_unready(&mut self) {
        self.spawn();
    }

    /// Waits until `/ready` answers 200.
    ///
    /// # Panics
    /// When it does not in time, or the process ends.
    pub fn wait_until_ready(&mut self) {
        let ready = wait::until(READY_WITHIN, || {
            let process = self.process.as_mut().expect("the server is down");
            if let Some(status) = process.try_wait().expect("look at the server") {
                return Some(Err(format!("the server ended while starting: {status}")));
            }
            let addresses = self.published_addresses()?;
            let response = Client::new(&addresses.http).request("GET", "/ready", &[], &[]).ok()?;
            (response.status == 200).then_some(Ok(addresses))
        });
        match ready {
            Some(Ok(addresses)) => self.addresses = addresses,
            Some(Err(reason)) => panic!("{reason}"),
            None => panic!("the server was not ready within {READY_WITHIN:?}"),
        }
    }

    fn published_addresses(&self) -> Option<Addresses> {
        let text = std::fs::read(self.data().join("addresses.json")).ok()?;
        let addresses: Value = serde_json::from_slice(&text).ok()?;
        let text = |name: &str| addresses[name].as_str().map(str::to_string);
        Some(Addresses { http: text("http")?, mqtt: text("mqtt") })
    }

    fn log_path(&self) -> PathBuf {
        self.home().join("server.log")
    }

    /// `eden` with the server's settings, to be given arguments and started.
    pub fn command(&self) -> Command {
        let mut command = Command::new(eden_binary(self.options.profile));
        // Settings of the person who runs the tests are not part of the test.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("EDEN_") {
                command.env_remove(name);
            }
        }
        for listen in ["EDEN_HTTP_LISTEN", "EDEN_MQTT_LISTEN", "EDEN_POSTGRES_LISTEN", "EDEN_GRPC_LISTEN"] {
            command.env(listen, "127.0.0.1:0");
        }
        command.envs(self.options.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn spawn(&mut self) {
        assert!(self.process.is_none(), "the server runs already");
        // A killed server leaves its addresses; the next one removes them only once it runs.
        match std::fs::remove_file(self.data().join("addresses.json")) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => panic!("remove addresses.json: {error}"),
        }
        let log: File =
            OpenOptions::new().create(true).append(true).open(self.log_path()).expect("open the server's log");
        let mut command = self.command();
        command.arg("serve").arg("--data").arg(self.data());
        if self.options.configuration.is_some() {
            command.arg("--config").arg(self.home().join(CONFIGURATION));
        }
        let process = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("share the server's log"))
            .stderr(log)
            .spawn()
            .expect("start eden");
        self.process = Some(process);
    }
}

impl Drop for Eden {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            self.home.keep_for_a_look(&self.options.name, &self.notes, &log);
        }
        if let Some(mut process) = self.process.take() {
            // Dropping must not panic; a process that is gone already is what we want.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Asks a process to stop.
///
/// # Panics
/// When it is not ours to ask.
pub fn terminate(process: &Child) {
    kill_process(Pid::from_child(process), Signal::TERM).expect("send SIGTERM");
}

/// The answer to a SELECT.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    columns: Vec<String>,
    rows: Vec<Vec<Value>>,
}

impl Rows {
    /// Reads the JSON of `/_sql`.
    ///
    /// # Panics
    /// When it has another shape.
    pub fn new(answer: Value) -> Self {
        let columns = answer["cols"].as_array().expect("cols").iter();
        let rows = answer["rows"].as_array().expect("rows").iter();
        Rows {
            columns: columns.map(|name| name.as_str().expect("a column's name").to_string()).collect(),
            rows: rows.map(|row| row.as_array().expect("a row").clone()).collect(),
        }
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Names of the columns.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The cells of a row.
    pub fn row(&self, row: usize) -> &[Value] {
        &self.rows[row]
    }

    /// The cell of a row by its column's name.
    ///
    /// # Panics
    /// When there is no such column.
    pub fn get(&self, row: usize, column: &str) -> &Value {
        let at = self.columns.iter().position(|name| name == column);
        &self.rows[row][at.unwrap_or_else(|| panic!("no column {column} in {:?}", self.columns))]
    }

    /// The only cell of the only row.
    ///
    /// # Panics
    /// When there are more or none.
    pub fn single(&self) -> &Value {
        assert_eq!((self.rows.len(), self.columns.len()), (1, 1), "one value: {self:?}");
        &self.rows[0][0]
    }

    /// The column `time` of a row in µs; `/_sql` sends ms with up to three decimals.
    ///
    /// # Panics
    /// When it is not a number.
    pub fn time_us(&self, row: usize) -> i64 {
        let time = self.get(row, "time");
        match time.as_i64() {
            Some(ms) => ms * 1_000,
            None => (time.as_f64().expect("time in ms") * 1_000.0).round() as i64,
        }
    }
}
