//! A running agent: sensors in threads of their own, the outbox in one, the uplink in another.
//!
//! Owns:     these threads, and how they end.
//! Does not: decide when to close a batch and when to sync (`collector`); set up logging, take signals or hold globals:
//!           many agents run in one process.

use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use model::{Clock, Rng, SplitMix64, SystemClock};
use wal::disk::{LocalDisk, SharedDisk};

use crate::collector::Collector;
use crate::config::{Config, ConfigError};
use crate::exchange::Exchange;
use crate::gap::Life;
use crate::log_lines::LogLines;
use crate::outbox::{Outbox, OutboxConfig, OutboxError};
use crate::sensor::Station;
use crate::sensor::lanes::{Around, Lanes};
use crate::timepiece::{SystemTimepiece, Timepiece};
use crate::uplink::{Uplink, ask};
use crate::wall::Certainty;
use crate::wear::Wear;

/// The outbox is closed so long after the grace at the latest, although the uplink has not ended: what it may still
/// hear is sent again by the next life.
const LATE: Duration = Duration::from_secs(3);

/// What an agent is given besides its settings.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The disk under the outbox.
    pub disk: SharedDisk,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The clock since boot, and whether the wall clock is right.
    pub timepiece: Arc<dyn Timepiece>,
    /// Chance: the agent epoch, and the jitter of retries.
    pub rng: Arc<dyn Rng>,
    /// The hardware's serial number, if it has one: it tells a cloned card.
    pub serial: Option<String>,
    /// What a server is sent that asks for the agent's log; whoever sets up logging writes to it.
    pub log_lines: Arc<LogLines>,
}

impl Surroundings {
    /// Those of this machine.
    pub fn system() -> Self {
        let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
        Surroundings {
            disk: Arc::new(LocalDisk::new()),
            clock: Arc::new(SystemClock::new()),
            timepiece: Arc::new(SystemTimepiece::new()),
            rng: Arc::new(SplitMix64::new(high ^ low)),
            serial: hardware_serial(),
            log_lines: Arc::default(),
        }
    }
}

fn hardware_serial() -> Option<String> {
    let paths = ["/proc/device-tree/serial-number", "/etc/machine-id"];
    let texts = paths.iter().filter_map(|path| std::fs::read_to_string(path).ok());
    let mut serials = texts.map(|text| text.trim_matches(|c: char| c == '\0' || c.is_whitespace()).to_owned());
    serials.find(|serial| !serial.is_empty())
}

/// Why an agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The outbox cannot be opened.
    #[error("open the outbox")]
    Outbox(#[from] OutboxError),
    /// The system has no threads left.
    #[error("start a thread")]
    Thread(#[source] std::io::Error),
}

/// Figures of an agent, since it was started unless said otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentStats {
    /// Readings measured.
    pub readings: u64,
    /// Times that a sensor gave none.
    pub sensor_failures: u64,
    /// The names of the sensors that fail or hang now.
    pub failing_sensors: Vec<String>,
    /// What was made of the last command.
    pub last_command: Option<String>,
    /// How well the wall clock is known; none while batches wait for it.
    pub clock: Option<Certainty>,
    /// Batches that wait for the wall clock.
    pub untimed_batches: u64,
    /// Batches made.
    pub made: u64,
    /// Batches handed to a connection, those sent again included.
    pub sent: u64,
    /// Of these, those sent again.
    pub resent: u64,
    /// Batches acknowledged.
    pub acked: u64,
    /// Batches that a server set aside for good.
    pub refused: u64,
    /// Batches that wait now.
    pub backlog_batches: u64,
    /// Bytes of their bodies.
    pub backlog_bytes: u64,
    /// Bytes of the outbox's files now.
    pub disk_bytes: u64,
    /// What the outbox has written to its disk, ever since it was made.
    pub wear: Wear,
    /// Gaps found.
    pub gaps: u64,
    /// Readings known to lie in them.
    pub gap_readings: u64,
    /// The agent epoch.
    pub epoch: u64,
    /// The last seq given away in it, ever.
    pub last_seq: u64,
    /// The server that is connected now, by its URL.
    pub connected: Option<String>,
    /// Connections that came about.
    pub connections: u64,
    /// The longest wait for an acknowledgement.
    pub slowest_ack: Duration,
    /// Whether the outbox's disk fails now; readings wait in memory then.
    pub disk_failing: bool,
}

/// How an agent stopped.
#[derive(Clone, Debug)]
pub struct Stopped {
    /// Its last figures; what waits is `backlog_batches`.
    pub stats: AgentStats,
    /// Whether the outbox was closed in order. If not, it is as safe as after a crash.
    pub closed: bool,
}

/// A running agent. Dropping it stops it without a grace period.
#[derive(Debug)]
pub struct Agent {
    exchange: Arc<Exchange>,
    clock: Arc<dyn Clock>,
    life: Life,
    threads: Option<(JoinHandle<bool>, JoinHandle<()>)>,
}

impl Agent {
    /// Opens the outbox and starts measuring and sending.
    ///
    /// # Errors
    /// If the configuration is wrong or the outbox cannot be opened; nothing runs then.
    pub fn start(config: Config, surroundings: Surroundings) -> Result<Agent, AgentError> {
        config.check()?;
        let Surroundings { disk, clock, timepiece, rng, serial, log_lines } = surroundings;
        let outbox_config = OutboxConfig {
            serial,
            in_flight: config.uplink.in_flight as usize,
            replay: config.uplink.replay,
            replay_bytes_per_s: config.uplink.replay_rate.0,
            ..OutboxConfig::new(config.outbox.dir.clone(), &config.agent.id, config.outbox.max_bytes.0)
        };
        let outbox = Outbox::open(disk, Arc::clone(&clock), &*rng, outbox_config)?;
        let life = outbox.life().clone();
        let exchange = Arc::new(Exchange::default());
        let clocks = (Arc::clone(&clock), Arc::clone(&timepiece));
        let collector = Collector::new(&config, outbox, Arc::clone(&exchange), clocks, log_lines);
        collector.publish_stats();
        let uplink = Uplink::new(&config, life.clone(), Arc::clone(&exchange), Arc::clone(&clock), rng)
            .map_err(AgentError::Thread)?;
        let bell = Arc::clone(&exchange);
        let asking = Arc::clone(&timepiece);
        let around = Around { clock: Arc::clone(&clock), timepiece, ring: Arc::new(move || bell.ring()) };
        let stations = config.sensors.iter().map(|section| (Station::new(&config.agent.id, section), section.stamp));
        let mut lanes = Lanes::start(stations.collect(), &around).map_err(AgentError::Thread)?;
        let sending = match Builder::new().name("eden-uplink".to_owned()).spawn(move || uplink.run()) {
            Ok(sending) => sending,
            Err(e) => {
                lanes.stop();
                return Err(AgentError::Thread(e));
            }
        };
        let time_urls = config.time_urls();
        if !time_urls.is_empty() {
            let (exchange, timepiece) = (Arc::clone(&exchange), asking);
            // It ends when the agent stops, or 2 s later; without it the time is not asked for.
            let asking = Builder::new().name("eden-time".to_owned());
            if let Err(e) = asking.spawn(move || ask(&time_urls, &exchange, &timepiece)) {
                tracing::warn!(error = %e, "nobody is asked for the time");
            }
        }
        let measuring = Builder::new().name("eden-outbox".to_owned()).spawn(move || collect(collector, lanes));
        match measuring {
            Ok(measuring) => Ok(Agent { exchange, clock, life, threads: Some((measuring, sending)) }),
            Err(e) => {
                exchange.stop(Duration::ZERO);
                // It has nothing to send and ends at once.
                let _ = sending.join();
                Err(AgentError::Thread(e))
            }
        }
    }

    /// Its id and epoch.
    pub fn life(&self) -> &Life {
        &self.life
    }

    /// Its figures now.
    pub fn stats(&self) -> AgentStats {
        self.exchange.lock().stats.clone()
    }

    /// Waits until a server tells the agent to start again; whoever started it must do that.
    pub async fn restart_asked(&self) {
        self.exchange.restart.notified().await;
    }

    /// Closes the open batch, makes it durable, tries for `grace` to send what waits, says goodbye and closes the
    /// outbox.
    pub fn stop(mut self, grace: Duration) -> Stopped {
        let closed = self.end(grace);
        Stopped { stats: self.stats(), closed }
    }

    fn end(&mut self, grace: Duration) -> bool {
        let Some((measuring, sending)) = self.threads.take() else { return false };
        self.exchange.stop(self.clock.monotonic() + grace);
        let closed = measuring.join();
        // An uplink that hangs in a request ends by itself when that times out; it has nothing to do any more.
        let is_sound = !self.exchange.lock().uplink_ended || sending.join().is_ok();
        if !is_sound || closed.is_err() {
            tracing::error!("a thread of the agent panicked: a bug");
        }
        closed.unwrap_or(false)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}

/// The thread of the outbox.
fn collect(mut collector: Collector, mut lanes: Lanes) -> bool {
    // Ends the uplink too if this thread panics: nobody would take its outcomes any more.
    let _end = EndOnDrop(Arc::clone(&collector.exchange));
    let intake = Arc::clone(lanes.intake());
    loop {
        let due = collector.step(&intake);
        if collector.exchange.lock().stop_at.is_some() {
            break;
        }
        collector.take_outcomes(due.saturating_sub(collector.clock.monotonic()));
    }
    lanes.stop();
    // What was ended by the stop itself is no failure of a sensor.
    for given in intake.take().into_iter().filter(|given| given.measured.is_ok()) {
        collector.take(given);
    }
    collector.finish(LATE)
}

struct EndOnDrop(Arc<Exchange>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop(Duration::ZERO);
        }
    }
}
