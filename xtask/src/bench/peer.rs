//! Databases that Debian packages, to take the same lines in the same minutes.
//!
//! Both are older than what their makers ship today (`bench/peers.md` has newer ones, measured once).

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use harness::{Client, cpu, wait};

use crate::interop::{free_port, install};
use crate::{Failure, Outcome};

const READY_WITHIN: Duration = Duration::from_secs(60);
/// Background work of a peer that has gone quiet for so long is over.
const QUIET: Duration = Duration::from_secs(2);
const QUIET_WITHIN: Duration = Duration::from_secs(180);

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Acknowledges from memory; syncs every few seconds.
    VictoriaMetrics,
    /// Syncs its log before each answer.
    InfluxDb,
}

/// A running one, killed when dropped.
pub(super) struct Peer {
    process: Child,
    address: String,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::VictoriaMetrics => "VictoriaMetrics 1.79 (not durable at the reply)",
            Kind::InfluxDb => "InfluxDB 1.6 (durable at the reply)",
        }
    }

    /// The name for programs.
    pub(super) fn key(self) -> &'static str {
        match self {
            Kind::VictoriaMetrics => "victoria_metrics",
            Kind::InfluxDb => "influxdb",
        }
    }
}

impl Peer {
    /// Installs and starts it with its data in `folder`.
    pub(super) fn start(kind: Kind, folder: &Path) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| format!("start {kind:?}: {error}");
        std::fs::create_dir_all(folder).map_err(failed)?;
        // None of them can choose a port itself.
        let address = format!("127.0.0.1:{}", free_port()?);
        let path = |name: &str| folder.join(name).display().to_string();
        let mut command = match kind {
            Kind::VictoriaMetrics => {
                install("victoria-metrics", "victoria-metrics")?;
                let mut command = Command::new("victoria-metrics");
                command.arg(format!("-storageDataPath={}", path("data"))).arg(format!("-httpListenAddr={address}"));
                command.args(["-retentionPeriod=100y", "-loggerLevel=ERROR"]);
                command
            }
            Kind::InfluxDb => {
                install("influxd", "influxdb")?;
                let config = folder.join("influxdb.conf");
                let rpc = free_port()?;
                let text = format!(
                    "reporting-disabled = true\nbind-address = \"127.0.0.1:{rpc}\"\n[meta]\ndir = \"{}\"\n[data]\ndir = \"{}\"\n\
                     wal-dir = \"{}\"\nindex-version = \"tsi1\"\nquery-log-enabled = false\n[http]\n\
                     bind-address = \"{address}\"\nlog-enabled = false\n[monitor]\nstore-enabled = false\n",
                    path("meta"),
                    path("data"),
                    path("wal"),
                );
                std::fs::write(&config, text).map_err(failed)?;
                let mut command = Command::new("influxd");
                command.arg("run").arg("-config").arg(&config);
                command
            }
        };
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().map_err(failed)?;
        let peer = Peer { process, address };
        let health = if kind == Kind::InfluxDb { "/ping" } else { "/health" };
        wait::until(READY_WITHIN, || Client::new(&peer.address).request("GET", health, &[], &[]).ok())
            .ok_or_else(|| format!("{kind:?} does not answer"))?;
        if kind == Kind::InfluxDb {
            peer.post("/query?q=CREATE%20DATABASE%20bench")?;
        }
        Ok(peer)
    }

    /// Where lines are written to.
    pub(super) fn write_url(&self) -> String {
        format!("http://{}/write?db=bench&precision=ns", self.address)
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Waits until its background work is done: until it takes hardly any CPU.
    pub(super) fn settle(&self) -> Outcome {
        let mut last = (cpu::time_of(self.pid()), wait::now());
        let quiet = wait::until(QUIET_WITHIN, || {
            if last.1.elapsed() < QUIET {
                return None;
            }
            let now = cpu::time_of(self.pid());
            let is_quiet = now - last.0 < QUIET / 20;
            last = (now, wait::now());
            is_quiet.then_some(())
        });
        quiet.ok_or_else(|| "the peer does not come to rest".to_owned())
    }

    fn post(&self, path: &str) -> Outcome {
        let sent = Client::new(&self.address).request("POST", path, &[], &[]);
        sent.map(drop).map_err(|error| format!("{path}: {error:?}"))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Gone already is what we want.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
