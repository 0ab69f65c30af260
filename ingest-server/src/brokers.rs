//! Brokers that are subscribed to: what devices publish there is taken in as if they had published it here.
//!
//! Owns:     one task for each broker, which connects, and comes back after each failure.
//! Does not: know payloads (`mqtt::ingest`), or speak MQTT itself (`rumqttc` does, see `client`).
//!
//! A broker keeps what it could not deliver for a client that it knows, so the session outlives the connection: what came
//! and was not acknowledged comes again, to this server or, with `$share/…`, to another one.
//!
//! Invariants
//!  1. A message is acknowledged only when it is durable (P1), in the order of receipt.
//!  2. It is acknowledged on the connection that brought it or not at all: on the next one its packet identifier means
//!     another message. So each connection has a client of its own.
//!  3. What has come and is not stored is bounded; beyond that nothing is read.

mod client;
mod session;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use model::{Backoff, Rng};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::App;
use crate::config::BrokerSection;
use crate::metrics::{BrokerMetrics, Metrics};

/// A connection that has lasted for as long is one to come back to at once.
const USEFUL_AFTER: Duration = Duration::from_secs(60);

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The server stops.
    Stopped,
    Failed(String),
}

/// One broker.
struct Broker {
    app: Arc<App>,
    rng: Arc<dyn Rng>,
    section: BrokerSection,
    /// Where it stands in the configuration.
    index: usize,
    stop: CancellationToken,
    /// When something of it was last said to be set aside, in seconds of the monotonic clock and one.
    complained: AtomicU64,
}

/// Starts a task in `tracker` for each broker of the configuration. They end after `stop`.
pub fn spawn(app: &Arc<App>, rng: &Arc<dyn Rng>, tracker: &TaskTracker, stop: &CancellationToken) {
    for (index, section) in app.config.brokers.iter().enumerate() {
        let broker = Broker {
            app: Arc::clone(app),
            rng: Arc::clone(rng),
            section: section.clone(),
            index,
            stop: stop.clone(),
            complained: AtomicU64::new(0),
        };
        tracker.spawn(broker.run());
    }
}

impl Broker {
    async fn run(self) {
        let mut backoff = Backoff::default();
        let mut told: Option<String> = None;
        loop {
            let started = self.app.clock.monotonic();
            let acks = self.metrics().acks.load(Ordering::Relaxed);
            let end = session::run(&self).await;
            self.metrics().connected.store(0, Ordering::Relaxed);
            let reason = match end {
                End::Stopped => return,
                End::Failed(reason) => reason,
            };
            let lasted = self.app.clock.monotonic().saturating_sub(started);
            if lasted > USEFUL_AFTER || self.metrics().acks.load(Ordering::Relaxed) > acks {
                backoff.reset();
                told = None;
            }
            let wait = backoff.next(&*self.rng);
            let url = &self.section.url;
            // The same trouble again and again is said once.
            if told.as_ref() == Some(&reason) {
                tracing::debug!(broker = url, reason, ?wait, "the broker still cannot be used");
            } else {
                tracing::warn!(
                    broker = url,
                    reason,
                    "the connection to the broker ended; it is tried again until it is back"
                );
                told = Some(reason);
            }
            // A timer that is a feature: a broker that is down is not asked all the time.
            if tokio::time::timeout(wait, self.stop.cancelled()).await.is_ok() {
                return;
            }
        }
    }

    fn metrics(&self) -> &BrokerMetrics {
        &self.app.metrics.brokers[self.index]
    }

    /// Whether people may be told again that something was set aside: once a minute.
    fn may_complain(&self) -> bool {
        let now = self.app.clock.monotonic().as_secs() + 1;
        let last = self.complained.load(Ordering::Relaxed);
        let may = last == 0 || now >= last + 60;
        if may {
            self.complained.store(now, Ordering::Relaxed);
        }
        may
    }

    fn count_message(&self, bytes: usize) {
        Metrics::add(&self.metrics().messages, 1);
        Metrics::add(&self.metrics().bytes, bytes as u64);
    }
}
