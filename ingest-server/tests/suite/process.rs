//! Runs the real binary and talks to it.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Longer than any start, stop or statement takes, even on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(900);

/// An `eden` command line that ran to its end.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// `eden` with these arguments in the folder `dir`, without the caller's environment of `EDEN_` names.
pub(crate) fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eden"));
    command.current_dir(dir).args(args);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("EDEN_")) {
        command.env_remove(name);
    }
    // The default port is one for a machine, and tests run side by side.
    command.env("EDEN_MQTT_LISTEN", "127.0.0.1:0");
    command.env("EDEN_POSTGRES_LISTEN", "127.0.0.1:0").env("EDEN_GRPC_LISTEN", "127.0.0.1:0");
    command
}

/// Runs `eden` to its end, with `input` on standard input.
pub(crate) fn run_with(mut command: Command, input: &str) -> Ran {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start eden");
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || {
        // A command that refuses its arguments does not read.
        let _ = std::io::Write::write_all(&mut stdin, input.as_bytes());
    });
    let output = child.wait_with_output().expect("wait for eden");
    writer.join().unwrap();
    let text = |bytes| String::from_utf8(bytes).expect("eden writes UTF-8");
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// Runs `eden` to its end.
pub(crate) fn run(dir: &Path, args: &[&str]) -> Ran {
    run_with(command(dir, args), "")
}

/// A running `eden serve` on a free port.
pub(crate) struct Eden {
    pub(crate) dir: TempDir,
    child: Child,
    log: Option<JoinHandle<String>>,
    pub(crate) url: String,
}

/// An answer in full.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e} in {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

impl Eden {
    /// With defaults.
    pub(crate) fn start() -> Self {
        Eden::start_with(&[])
    }

    /// With settings by the environment.
    pub(crate) fn start_with(environment: &[(&str, &str)]) -> Self {
        Eden::start_in(TempDir::new().unwrap(), environment)
    }

    /// On the data that is in `dir`.
    pub(crate) fn start_in(dir: TempDir, environment: &[(&str, &str)]) -> Self {
        let mut command = command(dir.path(), &["serve", "--data", "data"]);
        command.env("EDEN_HTTP_LISTEN", "127.0.0.1:0").envs(environment.iter().copied());
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("start eden");
        let (ready, log) = follow(child.stderr.take().unwrap());
        if ready.recv_timeout(DEADLINE).is_err() {
            let _ = child.kill();
            panic!("eden did not get ready:\n{}", log.join().unwrap());
        }
        let addresses = std::fs::read_to_string(dir.path().join("data/addresses.json")).unwrap();
        let addresses: Value = serde_json::from_str(&addresses).unwrap();
        let url = format!("http://{}", addresses["http"].as_str().unwrap());
        Eden { dir, child, log: Some(log), url }
    }

    /// Where it listens for a protocol, by its name in `addresses.json`.
    pub(crate) fn address(&self, protocol: &str) -> SocketAddr {
        let addresses = std::fs::read_to_string(self.data().join("addresses.json")).unwrap();
        let addresses: Value = serde_json::from_str(&addresses).unwrap();
        addresses[protocol].as_str().unwrap().parse().unwrap()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The most that the process has had in memory so far; 0 where the system does not tell.
    pub(crate) fn peak_bytes(&self) -> u64 {
        let Ok(status) = std::fs::read_to_string(format!("/proc/{}/status", self.pid())) else { return 0 };
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Asks it to stop, as a service manager does; gives its exit code and its log.
    pub(crate) fn terminate(mut self) -> (Option<i32>, String, TempDir) {
        self.signal(Signal::TERM);
        let status = self.wait();
        let log = self.log.take().unwrap().join().unwrap();
        let dir = std::mem::replace(&mut self.dir, TempDir::new().unwrap());
        (status.code(), log, dir)
    }

    /// Ends it without warning.
    pub(crate) fn kill(mut self) -> TempDir {
        self.signal(Signal::KILL);
        self.wait();
        std::mem::replace(&mut self.dir, TempDir::new().unwrap())
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Writes line protocol to schema `public`.
    pub(crate) fn write(&self, lines: &str) -> Answer {
        self.post("/api/v3/write_lp?db=public", &[], lines.as_bytes())
    }

    /// The rows of a query.
    pub(crate) fn rows(&self, statement: &str) -> Value {
        let answer = self.sql(statement);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["rows"].clone()
    }

    /// The answer of `/_sql`.
    pub(crate) fn sql(&self, statement: &str) -> Answer {
        self.post("/_sql", &[], json!({ "stmt": statement }).to_string().as_bytes())
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        get(&self.url, path, &[])
    }

    pub(crate) fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        post(&self.url, path, headers, body)
    }
}

impl Drop for Eden {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads a server's log; says when it is ready.
fn follow(stderr: impl Read + Send + 'static) -> (Receiver<()>, JoinHandle<String>) {
    let (ready, wait) = channel();
    let log = std::thread::spawn(move || {
        let mut all = String::new();
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            all.push_str(&line);
            all.push('\n');
            if line.contains(" ready ") {
                // Nobody listens any more after the first time.
                let _ = ready.send(());
            }
        }
        all
    });
    (wait, log)
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(DEADLINE)).build().into()
}

/// A GET without a server process.
pub(crate) fn get(url: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = agent().get(format!("{url}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    answer(request.call().unwrap())
}

/// A POST without a server process.
pub(crate) fn post(url: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut request = agent().post(format!("{url}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    answer(request.send(body).unwrap())
}

/// As [`post`], with as much of the answer as came: at most `bytes_max`.
pub(crate) fn post_for_part(url: &str, path: &str, body: &[u8], bytes_max: u64) -> Answer {
    let mut response = agent().post(format!("{url}{path}")).send(body).unwrap();
    let mut part = Vec::new();
    // What was cut short is a part too.
    let _ = response.body_mut().as_reader().take(bytes_max).read_to_end(&mut part);
    let body = String::from_utf8_lossy(&part).into_owned();
    Answer { status: response.status().as_u16(), headers: Vec::new(), body }
}

fn answer(mut response: ureq::http::Response<ureq::Body>) -> Answer {
    Answer {
        status: response.status().as_u16(),
        headers: response
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()))
            .collect(),
        body: String::from_utf8_lossy(&response.body_mut().read_to_vec().unwrap()).into_owned(),
    }
}
