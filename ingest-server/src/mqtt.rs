//! The MQTT listener: an ingest endpoint with a downlink, not a broker.
//!
//! Owns:     accepting and ending connections, and what they share.
//! Does not: know packets (`decode::mqtt` as `read`, `write`), topics (`topic`) or storage (`ingest`).
//!
//! A connection is one task (`greet`, `connection`). What publishes say is worked off in batches, one at a time for each
//! connection and in order (`ingest`); while a batch is worked on, the next one gathers. An acknowledgement leaves
//! when its write is durable and all earlier ones have left. Users: `docs/mqtt.md`.

mod connection;
mod greet;
pub mod ingest;
pub mod links;
mod rate;
pub mod sessions;
pub mod sparkplug;
pub mod topic;
pub mod write;

use std::sync::Arc;
use std::time::Duration;

use decode::mqtt as read;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::{App, Phase};
use crate::metrics::Metrics;
use crate::stream::Stream;
use greet::accepted;
use links::Links;
use rate::Rate;

/// Pause after the system refused a connection (out of file descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often what is too old is looked for; where it matters, it is not used before either.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// Shared by all connections.
pub struct Mqtt {
    /// The server.
    pub app: Arc<App>,
    /// KiB of reads, and of messages that came in them, that may be in memory.
    pub reads: Arc<Semaphore>,
    /// KiB of large packets that may be in memory, as far as they have come: their senders, slow or hostile, do not keep
    /// anybody else from being read.
    pub large: Arc<Semaphore>,
    /// Who is connected.
    pub links: Links,
}

impl Mqtt {
    /// By the settings of `app`.
    pub fn new(app: Arc<App>) -> Arc<Self> {
        let config = &app.config.mqtt;
        // The largest packet must fit into a half, or it could never be received.
        let half = (config.messages_memory.0 / 2).max(config.max_packet_bytes.0.saturating_add(64 << 10));
        let half_kib = u32::try_from(half.div_ceil(1024)).unwrap_or(u32::MAX).min(1 << 28) as usize;
        Arc::new(Mqtt {
            reads: Arc::new(Semaphore::new(half_kib)),
            large: Arc::new(Semaphore::new(half_kib)),
            links: Links::default(),
            app,
        })
    }
}

/// Accepts connections until `stop`, then tells each to end. Returns when it no longer accepts; the connections are
/// in `tracker`.
pub async fn accept(listener: TcpListener, app: Arc<App>, tracker: TaskTracker, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(app.config.mqtt.connections_max.max(1) as usize));
    let mut rate = Rate::new(app.config.mqtt.connects_per_second);
    let mqtt = Mqtt::new(app);
    tracker.spawn(sweep(Arc::clone(&mqtt), stop.clone()));
    loop {
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place.expect("the semaphore is never closed"),
            () = stop.cancelled() => break,
        };
        while let Err(wait) = rate.take(mqtt.app.clock.monotonic()) {
            Metrics::add(&mqtt.app.metrics.mqtt.connects_held, 1);
            // A timer that is a feature: whoever comes too fast waits in the system's queue.
            if tokio::time::timeout(wait, stop.cancelled()).await.is_ok() {
                break;
            }
        }
        let accepting = tokio::select! {
            accepting = listener.accept() => accepting,
            () = stop.cancelled() => break,
        };
        match accepting {
            Ok((stream, peer)) => {
                tracker.spawn(accepted(Arc::clone(&mqtt), Stream::accepted(stream, peer), peer, place));
            }
            Err(e) => {
                tracing::warn!(error = %e, "accept an MQTT connection");
                // A timer that is a feature: asking at once would only spin.
                let _ = tokio::time::timeout(ACCEPT_PAUSE, stop.cancelled()).await;
            }
        }
    }
    mqtt.links.stop();
}

/// Forgets sessions and commands that are too old, from time to time, until `stop`.
async fn sweep(mqtt: Arc<Mqtt>, stop: CancellationToken) {
    while tokio::time::timeout(SWEEP_INTERVAL, stop.cancelled()).await.is_err() {
        if let Phase::Ready(parts) = mqtt.app.phase() {
            parts.sessions.sweep();
        }
    }
}
