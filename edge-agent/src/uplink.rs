//! How batches reach a server: which one, when to try again, when to try another.
//!
//! Owns:     the uplink's thread, the order of servers, back-off.
//! Does not: forget anything: that is the outbox's, when it is told an outcome.
//!
//! Invariants
//!  1. What a connection sent and got no outcome for counts as not sent when the connection ends.
//!  2. An acknowledgement counts only on the connection on which the batch was sent.

#[cfg(feature = "http")]
mod http;
#[cfg(not(feature = "http"))]
#[path = "uplink/without_http.rs"]
mod http;
#[cfg(all(feature = "http", feature = "tls"))]
mod https;
mod mqtt;
mod probe;
#[cfg(feature = "http")]
mod time;
#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
#[path = "uplink/without_tls.rs"]
mod tls;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::{Backoff, Clock, Rng};
use tokio::runtime::Runtime;

use crate::config::{Address, Config, MqttVersion, ServerSection, Tls};
use crate::exchange::Exchange;
use crate::gap::Life;

#[cfg(not(feature = "http"))]
pub(crate) use http::ask;
pub(crate) use probe::probe;
#[cfg(feature = "http")]
pub(crate) use time::ask;

/// Connecting may take as long, and so may a request.
pub(crate) const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// A connection on which something is in flight and no acknowledgement comes for this long is given up.
pub(crate) const STALL_TIME_MAX: Duration = Duration::from_secs(60);
/// While another server is used, a preferred one is looked for in this interval.
const PREFERRED_INTERVAL: Duration = Duration::from_secs(300);

/// How a connection ended.
#[derive(Debug)]
pub(crate) enum End {
    /// It could not be made, or broke; in one line.
    Failed(String),
    /// A preferred server is there again.
    Preferred,
    /// The agent stops: all is sent, or the grace is over.
    Stopped,
}

/// A connection's result, and whether the server took anything while it lasted.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) end: End,
    pub(crate) was_useful: bool,
}

/// What a connection works with.
pub(crate) struct Line<'a> {
    pub(crate) life: &'a Life,
    pub(crate) exchange: &'a Exchange,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) rng: &'a dyn Rng,
    pub(crate) url: &'a str,
    pub(crate) status_interval: Duration,
    /// Servers that are preferred to this one.
    pub(crate) preferred: &'a [Server],
}

impl Line<'_> {
    pub(crate) fn connected(&self) {
        tracing::info!(server = self.url, "connected");
        self.exchange.connected(self.url);
    }

    /// Whether the agent stops and its grace is over or everything is sent.
    pub(crate) fn is_over(&self) -> bool {
        let shared = self.exchange.lock();
        shared.stop_at.is_some_and(|stop_at| shared.is_drained() || self.clock.monotonic() >= stop_at)
    }

    /// What is left of the grace; `None` while the agent does not stop.
    pub(crate) fn grace(&self) -> Option<Duration> {
        let stop_at = self.exchange.lock().stop_at?;
        Some(stop_at.saturating_sub(self.clock.monotonic()))
    }

    /// When a preferred server is to be looked for next.
    pub(crate) fn look_at(&self) -> Option<Duration> {
        (!self.preferred.is_empty()).then(|| self.clock.monotonic() + PREFERRED_INTERVAL)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Server {
    url: String,
    address: Address,
    version: MqttVersion,
    ca: Option<PathBuf>,
}

impl Server {
    fn new(section: &ServerSection) -> Server {
        let address = section.address().expect("the configuration was checked");
        let ca = (!section.ca.is_empty()).then(|| PathBuf::from(&section.ca));
        Server { url: section.url.clone(), address, version: section.mqtt_version, ca }
    }

    /// `host:port`.
    pub(crate) fn authority(&self) -> String {
        match &self.address {
            Address::Mqtt { host, port, .. } => format!("{host}:{port}"),
            Address::Http { base, .. } => base.split_once("://").map_or(&**base, |(_, rest)| rest).to_owned(),
        }
    }

    /// For TLS, what is trusted; none without.
    ///
    /// # Errors
    /// If the certificates to trust cannot be read.
    fn trusted(&self) -> Result<Option<tls::Trusted>, String> {
        match &self.address {
            Address::Mqtt { tls: Tls::Yes, .. } | Address::Http { tls: Tls::Yes, .. } => {
                tls::client(self.ca.as_deref()).map(Some)
            }
            Address::Mqtt { .. } | Address::Http { .. } => Ok(None),
        }
    }
}

/// The uplink; see the module.
pub(crate) struct Uplink {
    servers: Vec<Server>,
    life: Life,
    exchange: Arc<Exchange>,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    status_interval: Duration,
    runtime: Runtime,
}

impl Uplink {
    pub(crate) fn new(
        config: &Config,
        life: Life,
        exchange: Arc<Exchange>,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
    ) -> std::io::Result<Uplink> {
        let servers = config.servers.iter().map(Server::new).collect();
        let status_interval = config.uplink.status_interval.0;
        Ok(Uplink { servers, life, exchange, clock, rng, status_interval, runtime: runtime()? })
    }

    /// Sends until the agent stops.
    pub(crate) fn run(self) {
        let _end = EndUplink(&self.exchange);
        let mut backoff = Backoff::default();
        'rounds: loop {
            let mut is_useful = false;
            for index in 0..self.servers.len() {
                let Ended { end, was_useful } = self.connect(index);
                self.exchange.put_all_back();
                self.exchange.lock().stats.connected = None;
                if was_useful {
                    backoff.reset();
                    is_useful = true;
                }
                let url = &self.servers[index].url;
                match end {
                    End::Stopped => return,
                    End::Preferred => continue 'rounds,
                    End::Failed(reason) if was_useful => {
                        tracing::warn!(
                            server = url,
                            reason,
                            "the connection ended; unacknowledged batches are sent again"
                        );
                        // The servers are tried again in their order: this one may have restarted.
                        break;
                    }
                    End::Failed(reason) => tracing::warn!(server = url, reason, "the server cannot be used"),
                }
            }
            if !is_useful && self.exchange.lock().stop_at.is_some() {
                // Each was tried once more since it was asked to stop, or just before.
                return;
            }
            let wait = backoff.next(&*self.rng);
            tracing::debug!(wait_ms = wait.as_millis() as u64, "try again later");
            self.exchange.wait_for_stop(wait);
        }
    }

    fn connect(&self, index: usize) -> Ended {
        let server = &self.servers[index];
        let line = Line {
            life: &self.life,
            exchange: &self.exchange,
            clock: &*self.clock,
            rng: &*self.rng,
            url: &server.url,
            status_interval: self.status_interval,
            preferred: &self.servers[..index],
        };
        match &server.address {
            Address::Mqtt { .. } => match mqtt::Place::of(server) {
                Ok(place) => self.runtime.block_on(mqtt::run(&line, &place)),
                Err(reason) => Ended { end: End::Failed(reason), was_useful: false },
            },
            Address::Http { base, .. } => match server.trusted() {
                Ok(trusted) => http::run(&line, base, trusted),
                Err(reason) => Ended { end: End::Failed(reason), was_useful: false },
            },
        }
    }
}

struct EndUplink<'a>(&'a Exchange);

impl Drop for EndUplink<'_> {
    fn drop(&mut self) {
        self.0.end_uplink();
    }
}

pub(crate) fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Whether one of `servers` takes connections.
pub(crate) fn is_any_there(servers: &[Server]) -> bool {
    use std::net::{TcpStream, ToSocketAddrs as _};
    servers.iter().any(|server| {
        let addresses = server.authority().to_socket_addrs();
        addresses.is_ok_and(|mut all| {
            all.any(|address| TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_ok())
        })
    })
}
