//! A running agent: sensors and outbox in one thread, the uplink in another.
//!
//! Owns:     both threads, when to measure, when to close a batch and when to sync.
//! Does not: set up logging, take signals or hold globals: many agents run in one process.
//!
//! Invariant: the open batch is closed when it is full or a sync is due, so a power cut loses what was measured since
//! the last sync and nothing else (P7).

use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use model::{Clock, Rng, SplitMix64, SystemClock};
use wal::disk::{LocalDisk, SharedDisk};

use crate::causes::with_causes;
use crate::config::{Config, ConfigError};
use crate::exchange::Exchange;
use crate::gap::Life;
use crate::outbox::{BODY_BYTES_MAX, Outbox, OutboxConfig, OutboxError};
use crate::sensor::Station;
use crate::uplink::Uplink;

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
    /// Chance: the agent epoch, and the jitter of retries.
    pub rng: Arc<dyn Rng>,
    /// The hardware's serial number, if it has one: it tells a cloned card.
    pub serial: Option<String>,
}

impl Surroundings {
    /// Those of this machine.
    pub fn system() -> Self {
        let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
        Surroundings {
            disk: Arc::new(LocalDisk::new()),
            clock: Arc::new(SystemClock::new()),
            rng: Arc::new(SplitMix64::new(high ^ low)),
            serial: hardware_serial(),
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
        let Surroundings { disk, clock, rng, serial } = surroundings;
        let outbox_config = OutboxConfig {
            serial,
            in_flight: config.uplink.in_flight as usize,
            ..OutboxConfig::new(config.outbox.dir.clone(), &config.agent.id, config.outbox.max_bytes.0)
        };
        let outbox = Outbox::open(disk, Arc::clone(&clock), &*rng, outbox_config)?;
        let life = outbox.life().clone();
        let exchange = Arc::new(Exchange::default());
        let collector = Collector::new(&config, outbox, Arc::clone(&exchange), Arc::clone(&clock));
        collector.publish_stats();
        let uplink = Uplink::new(&config, life.clone(), Arc::clone(&exchange), Arc::clone(&clock), rng)
            .map_err(AgentError::Thread)?;
        let sending =
            Builder::new().name("eden-uplink".to_owned()).spawn(move || uplink.run()).map_err(AgentError::Thread)?;
        let measuring = Builder::new().name("eden-sensors".to_owned()).spawn(move || collector.run());
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

/// The thread of sensors and outbox.
struct Collector {
    stations: Vec<(Station, Duration)>,
    outbox: Outbox,
    exchange: Arc<Exchange>,
    clock: Arc<dyn Clock>,
    max_readings: u32,
    in_flight: usize,
    sync_interval: Duration,
    lines: String,
    readings: u32,
    readings_made: u64,
    sensor_failures: u64,
}

impl Collector {
    fn new(config: &Config, outbox: Outbox, exchange: Arc<Exchange>, clock: Arc<dyn Clock>) -> Self {
        let now = clock.monotonic();
        let station = |section| (Station::new(&config.agent.id, section), now);
        Collector {
            stations: config.sensors.iter().map(station).collect(),
            outbox,
            exchange,
            clock,
            max_readings: config.batch.max_readings,
            in_flight: config.uplink.in_flight as usize,
            sync_interval: config.outbox.sync_interval.0,
            lines: String::new(),
            readings: 0,
            readings_made: 0,
            sensor_failures: 0,
        }
    }

    fn run(mut self) -> bool {
        // Ends the uplink too if this thread panics: nobody would take its outcomes any more.
        let _end = EndOnDrop(Arc::clone(&self.exchange));
        let mut sync_at = self.clock.monotonic() + self.sync_interval;
        loop {
            self.measure();
            let now = self.clock.monotonic();
            if now >= sync_at {
                self.close_batch();
                self.sync();
                sync_at = (sync_at + self.sync_interval).max(now);
            }
            self.hand_out();
            self.publish_stats();
            if self.exchange.lock().stop_at.is_some() {
                break;
            }
            let due = self.stations.iter().map(|(_, due)| *due).chain([sync_at]).min().unwrap_or(sync_at);
            self.take_outcomes(due.saturating_sub(self.clock.monotonic()));
        }
        self.finish()
    }

    fn measure(&mut self) {
        let now = self.clock.monotonic();
        for index in 0..self.stations.len() {
            let (station, due) = &mut self.stations[index];
            if *due > now {
                continue;
            }
            // After a long wait one reading makes up for all.
            *due = (*due + station.interval).max(now);
            if let Err(e) = station.read_line(self.clock.now_us(), &mut self.lines) {
                self.sensor_failures += 1;
                tracing::warn!(sensor = station.name, error = %e, "a sensor gave no reading");
                continue;
            }
            self.readings += 1;
            self.readings_made += 1;
            if self.readings >= self.max_readings || self.lines.len() > BODY_BYTES_MAX / 2 {
                self.close_batch();
            }
        }
    }

    fn close_batch(&mut self) {
        if self.readings > 0 {
            self.outbox.put(&self.lines, self.readings);
            self.lines.clear();
            self.readings = 0;
        }
    }

    fn sync(&mut self) {
        // A failure is logged where it is found, and shows in the figures.
        if self.outbox.needs_sync() && self.outbox.sync().is_err() {
            tracing::debug!("the outbox is opened again later");
        }
    }

    fn hand_out(&mut self) {
        let withdrawn = self.outbox.take_withdrawn();
        if !withdrawn.is_empty() {
            self.exchange.withdraw(&withdrawn);
        }
        while self.exchange.len() < self.in_flight {
            match self.outbox.next_batch() {
                Ok(Some(batch)) => self.exchange.offer(batch),
                Ok(None) => return,
                Err(e) => {
                    tracing::error!(error = %with_causes(&e), "read the outbox");
                    return;
                }
            }
        }
    }

    fn take_outcomes(&mut self, wait: Duration) {
        for (key, _) in self.exchange.wait_for_outcomes(wait) {
            self.outbox.ack(key);
        }
    }

    fn publish_stats(&self) {
        let outbox = self.outbox.stats();
        let mut shared = self.exchange.lock();
        shared.set_backlog(outbox.backlog_batches, outbox.backlog_bytes);
        let stats = &mut shared.stats;
        stats.readings = self.readings_made;
        stats.sensor_failures = self.sensor_failures;
        stats.made = outbox.made;
        stats.disk_bytes = outbox.disk_bytes;
        stats.gaps = outbox.gaps;
        stats.gap_readings = outbox.gap_readings;
        stats.epoch = self.outbox.life().epoch;
        stats.last_seq = outbox.last_seq;
        stats.disk_failing = outbox.failing;
    }

    /// Makes durable what is there, and serves the uplink until it ends.
    fn finish(mut self) -> bool {
        self.close_batch();
        self.sync();
        self.outbox.report_gaps();
        self.sync();
        loop {
            self.hand_out();
            self.publish_stats();
            if self.outbox.is_handed_out() {
                self.exchange.set_last();
            }
            let shared = self.exchange.lock();
            let late_at = shared.stop_at.unwrap_or_default() + LATE;
            if shared.uplink_ended || self.clock.monotonic() >= late_at {
                break;
            }
            drop(shared);
            self.take_outcomes(late_at.saturating_sub(self.clock.monotonic()).min(self.sync_interval));
        }
        self.take_outcomes(Duration::ZERO);
        self.publish_stats();
        let closed = self.outbox.close();
        if let Err(e) = &closed {
            tracing::error!(error = %with_causes(e), "the outbox could not be closed in order; it is as after a crash");
        }
        closed.is_ok()
    }
}

struct EndOnDrop(Arc<Exchange>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop(Duration::ZERO);
        }
    }
}
