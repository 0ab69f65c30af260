//! What every request handler shares: the server's phase, its parts, its limits and its counters.

use std::pin::pin;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use decode::sparkplug::Host;
use model::Clock;
use query::QueryEngine;
use storage::{ReplayProgress, Storage};
use tokio::sync::{Notify, Semaphore};
use uuid::Uuid;

use crate::config::Config;
use crate::connections::Connections;
use crate::metrics::Metrics;
use crate::mqtt::sessions::Sessions;
use crate::mqtt::topic::Topics;

/// How far times of receipt may be ahead of the clock.
const RECEIPTS_AHEAD_US_MAX: i64 = 1_000_000;

/// The parts that exist once the log is replayed.
#[derive(Clone)]
pub struct Parts {
    /// Where readings go.
    pub storage: Arc<Storage>,
    /// Who answers SQL.
    pub engine: Arc<QueryEngine>,
    /// What waits for MQTT clients.
    pub sessions: Arc<Sessions>,
}

/// Where the server is in its life.
#[derive(Clone)]
pub enum Phase {
    /// The log is being replayed.
    Replaying,
    /// Writes and queries are taken.
    Ready(Parts),
    /// No new writes; queries until the sockets close.
    Stopping(Parts),
}

/// Why a request cannot be served now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// The log is being replayed.
    #[error("the server is starting: it replays its log; see /ready")]
    Replaying,
    /// The server is about to end.
    #[error("the server is stopping")]
    Stopping,
    /// A sync failed (P2).
    #[error("the log is poisoned: a sync failed, so nothing can be acknowledged; restart the server to recover")]
    Poisoned,
}

/// Shared by all requests.
pub struct App {
    /// What is in force.
    pub config: Config,
    /// What its rules say about topics.
    pub topics: Topics,
    /// What edge nodes of Sparkplug said in their births.
    pub edge_nodes: Mutex<Host>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Tasks of this process that panicked.
    pub panics: Arc<AtomicU64>,
    /// Counters of this room.
    pub metrics: Metrics,
    /// Who is connected.
    pub connections: Arc<Connections>,
    /// KiB of bodies that may be in reception.
    pub bodies_kib: Arc<Semaphore>,
    /// Bodies that may be decompressed and parsed at a time.
    pub parsers: Arc<Semaphore>,
    /// This process, for `/ping`.
    pub process_id: Uuid,
    phase: RwLock<Phase>,
    phase_changed: Notify,
    /// Times of receipt before this one were given to messages.
    receipts_us: AtomicI64,
    replay_done: AtomicU64,
    replay_total: AtomicU64,
}

impl App {
    /// An app that replays.
    ///
    /// # Errors
    /// Which rule of the configuration is wrong.
    pub fn new(config: Config, clock: Arc<dyn Clock>, panics: Arc<AtomicU64>) -> Result<Arc<Self>, String> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // A body must fit, or it could never be received.
        let bodies = config.http.bodies_memory.0.max(config.http.max_body_bytes.0).div_ceil(1024);
        let bodies = usize::try_from(bodies).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Ok(Arc::new(App {
            topics: Topics::new(&config)?,
            edge_nodes: Mutex::default(),
            bodies_kib: Arc::new(Semaphore::new(bodies)),
            // Two a core: one parses while another waits for a schema commit.
            parsers: Arc::new(Semaphore::new(2 * cores)),
            metrics: Metrics::of(config.brokers.iter().map(|broker| &*broker.url)),
            connections: Arc::default(),
            process_id: Uuid::new_v4(),
            phase: RwLock::new(Phase::Replaying),
            phase_changed: Notify::new(),
            receipts_us: AtomicI64::new(i64::MIN),
            replay_done: AtomicU64::new(0),
            replay_total: AtomicU64::new(0),
            config,
            clock,
            panics,
        }))
    }

    /// The time of receipt for a message that says none: now, or so little later that no earlier message has it.
    pub fn receipt_us(&self) -> i64 {
        let now_us = self.clock.now_us();
        let last = self.receipts_us.load(Ordering::Relaxed);
        // A clock that was set back is believed.
        if (now_us..now_us.saturating_add(RECEIPTS_AHEAD_US_MAX)).contains(&last) { last } else { now_us }
    }

    /// Notes that times of receipt before `end_us` were given away.
    pub fn note_receipts(&self, end_us: i64) {
        self.receipts_us.store(end_us, Ordering::Relaxed);
    }

    /// The phase now.
    pub fn phase(&self) -> Phase {
        self.phase.read().expect("no holder of this lock panics").clone()
    }

    /// Enters a phase.
    pub fn enter(&self, phase: Phase) {
        *self.phase.write().expect("no holder of this lock panics") = phase;
        self.phase_changed.notify_waiters();
    }

    /// Waits until the log is replayed.
    pub async fn replayed(&self) {
        loop {
            let mut changed = pin!(self.phase_changed.notified());
            // Before the look, or a change between the two is missed.
            changed.as_mut().enable();
            if !matches!(self.phase(), Phase::Replaying) {
                return;
            }
            changed.await;
        }
    }

    /// The parts, for a write.
    ///
    /// # Errors
    /// While writes are not taken.
    pub fn for_writes(&self) -> Result<Parts, Unavailable> {
        match self.phase() {
            Phase::Replaying => Err(Unavailable::Replaying),
            Phase::Ready(parts) if parts.storage.is_poisoned() => Err(Unavailable::Poisoned),
            Phase::Ready(parts) => Ok(parts),
            Phase::Stopping(_) => Err(Unavailable::Stopping),
        }
    }

    /// The parts, for a query.
    ///
    /// # Errors
    /// While the log is replayed.
    pub fn for_queries(&self) -> Result<Parts, Unavailable> {
        match self.phase() {
            Phase::Replaying => Err(Unavailable::Replaying),
            Phase::Ready(parts) | Phase::Stopping(parts) => Ok(parts),
        }
    }

    /// Notes how far the replay has come.
    pub fn note_replay(&self, progress: ReplayProgress) {
        self.replay_total.store(progress.total_bytes, Ordering::Relaxed);
        self.replay_done.store(progress.done_bytes, Ordering::Relaxed);
    }

    /// How far the replay has come.
    pub fn replay(&self) -> ReplayProgress {
        ReplayProgress {
            done_bytes: self.replay_done.load(Ordering::Relaxed),
            total_bytes: self.replay_total.load(Ordering::Relaxed),
        }
    }
}

/// The share of a replay that is done, 0 to 1 in steps of 0.01.
pub fn share(progress: ReplayProgress) -> f64 {
    if progress.total_bytes == 0 {
        return 0.0;
    }
    let share = progress.done_bytes as f64 / progress.total_bytes as f64;
    (share.clamp(0.0, 1.0) * 100.0).floor() / 100.0
}
