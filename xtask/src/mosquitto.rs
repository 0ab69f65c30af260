//! Debian's broker on a free port.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use harness::{terminate, wait};

use crate::command::run as run_command;
use crate::interop::free_port;
use crate::{Failure, Outcome};

/// Who may read of one that keeps what it has.
pub(crate) const READER: &str = "reader";
/// Where the reader's password is, in the folder of the broker.
pub(crate) const PASSWORD_FILE: &str = "password";

const LISTENS_WITHIN: Duration = Duration::from_secs(20);

/// A Mosquitto that takes everybody, killed when dropped.
pub(crate) struct Mosquitto {
    config: PathBuf,
    /// `host:port`, the same after each start.
    pub(crate) address: String,
    process: Option<Child>,
}

impl Mosquitto {
    /// One that keeps nothing, in a folder of the caller's.
    pub(crate) fn start(folder: &Path) -> Result<Self, Failure> {
        Self::with(folder, "persistence false\n")
    }

    /// One that keeps nothing and speaks TLS only, with this certificate and its key.
    pub(crate) fn start_tls(folder: &Path, certificate: &Path, key: &Path) -> Result<Self, Failure> {
        let lines =
            format!("certfile {}\nkeyfile {}\npersistence false\nuser root\n", certificate.display(), key.display());
        Self::with(folder, &lines)
    }

    /// One that keeps what it has for clients that are away, also while it is stopped. Everybody may publish below `lp/`;
    /// only [`READER`] gets it, with the password that is the first line of [`PASSWORD_FILE`] in the folder.
    pub(crate) fn start_keeping(folder: &Path) -> Result<Self, Failure> {
        let kept = folder.join("kept");
        std::fs::create_dir_all(&kept).map_err(failed)?;
        let (users, rules) = (folder.join("users"), folder.join("rules"));
        std::fs::write(folder.join(PASSWORD_FILE), "not a secret\n").map_err(failed)?;
        run_command(Command::new("mosquitto_passwd").args(["-b", "-c"]).arg(&users).args([READER, "not a secret"]))?;
        std::fs::write(&rules, format!("topic write lp/#\nuser {READER}\ntopic read lp/#\n")).map_err(failed)?;
        let lines = format!(
            "persistence true\npersistence_location {}/\nmax_queued_messages 0\nmax_inflight_messages 1000\nuser root\n\
             password_file {}\nacl_file {}\n",
            kept.display(),
            users.display(),
            rules.display()
        );
        Self::with(folder, &lines)
    }

    fn with(folder: &Path, lines: &str) -> Result<Self, Failure> {
        // It cannot choose a port itself.
        let port = free_port()?;
        let config = folder.join("mosquitto.conf");
        let text = format!("listener {port} 127.0.0.1\nallow_anonymous true\n{lines}");
        std::fs::write(&config, text).map_err(failed)?;
        let mut mosquitto = Mosquitto { config, address: format!("127.0.0.1:{port}"), process: None };
        mosquitto.run()?;
        Ok(mosquitto)
    }

    /// Starts it again.
    pub(crate) fn run(&mut self) -> Outcome {
        let process = Command::new("mosquitto")
            .arg("-c")
            .arg(&self.config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        self.process = Some(process);
        let up = wait::until(LISTENS_WITHIN, || std::net::TcpStream::connect(&self.address).ok());
        up.map(drop).ok_or_else(|| format!("mosquitto does not listen on {}", self.address))
    }

    /// Tells it to stop, and waits until it has.
    pub(crate) fn stop(&mut self) -> Outcome {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        terminate(&process);
        process.wait().map_err(|error| format!("stop mosquitto: {error}"))?;
        Ok(())
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().expect("mosquitto is stopped").id()
    }
}

fn failed(error: std::io::Error) -> Failure {
    format!("start mosquitto: {error}")
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Gone already is what we want.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
