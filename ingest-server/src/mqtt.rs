//! The MQTT listener: an ingest endpoint with a downlink, not a broker.
//!
//! Owns:     accepting and ending connections, and what they share.
//! Does not: know packets (`read`, `write`), topics (`topic`) or storage (`ingest`).
//!
//! A connection is one task (`greet`, `connection`). What publishes say is worked off in batches, one at a time for each
//! connection and in order (`ingest`); while a batch is worked on, the next one gathers. An acknowledgement leaves
//! when its write is durable and all earlier ones have left. Users: `docs/mqtt.md`.

mod connection;
mod greet;
pub mod ingest;
pub mod links;
pub mod read;
pub mod topic;
pub mod write;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::App;
use greet::accepted;
use links::Links;

/// Pause after the system refused a connection (out of file descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Shared by all connections.
pub struct Mqtt {
    /// The server.
    pub app: Arc<App>,
    /// KiB of packets and messages that may be in memory.
    pub budget: Arc<Semaphore>,
    /// All of that budget.
    pub budget_kib: u32,
    /// Who is connected.
    pub links: Links,
}

impl Mqtt {
    /// By the settings of `app`.
    pub fn new(app: Arc<App>) -> Arc<Self> {
        let config = &app.config.mqtt;
        // The largest packet must fit, or it could never be received.
        let bytes = config.messages_memory.0.max(config.max_packet_bytes.0.saturating_add(64 << 10));
        let budget_kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).min(1 << 28);
        Arc::new(Mqtt {
            budget: Arc::new(Semaphore::new(budget_kib as usize)),
            budget_kib,
            links: Links::default(),
            app,
        })
    }
}

/// Accepts connections until `stop`, then tells each to end. Returns when it no longer accepts; the connections are
/// in `tracker`.
pub async fn accept(listener: TcpListener, app: Arc<App>, tracker: TaskTracker, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(app.config.mqtt.connections_max.max(1) as usize));
    let mqtt = Mqtt::new(app);
    loop {
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place.expect("the semaphore is never closed"),
            () = stop.cancelled() => break,
        };
        let accepting = tokio::select! {
            accepting = listener.accept() => accepting,
            () = stop.cancelled() => break,
        };
        match accepting {
            Ok((stream, peer)) => {
                tracker.spawn(accepted(Arc::clone(&mqtt), stream, peer, place));
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
