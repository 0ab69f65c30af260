//! A server's life: bind, open, run, stop.
//!
//! Owns:     the order of both ends. Start: stale addresses away, listen (health answers, writes get 503), lock and
//!           replay, query engine, ready, addresses. Stop: refuse writes, addresses away, stop listening, answer
//!           what waits, flush, close the log.
//! Does not: parse arguments (`cli`) or answer requests (`http`).

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use model::{Clock, Rng, SplitMix64, SystemClock};
use query::{NodeFacts, NodeSource, QueryConfig, QueryEngine};
use storage::{Disks, ReplayProgress, Storage, StorageError, Tables};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wal::disk::{LocalDisk, SharedDisk};

use crate::addresses::{Addresses, Stale};
use crate::app::{App, Parts, Phase, share};
use crate::config::Config;
use crate::connections::ConnectionsTable;
use crate::failure::Failure;
use crate::mqtt::sessions::Sessions;
use crate::sources::SourcesTable;
use crate::{brokers, flight, http, mqtt, node_facts, postgres, views};

/// How long statements that nobody waits for any more may take to end.
const QUERY_GRACE: Duration = Duration::from_secs(1);

/// Between two tries to reach the tables at start.
const REACH_PERIOD: Duration = Duration::from_secs(5);

/// What a server is given besides its settings.
#[derive(Clone)]
pub struct Surroundings {
    /// The disk under the data folder.
    pub disk: SharedDisk,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub rng: Arc<dyn Rng>,
    /// Counts the panics of the process: whoever hooks them adds.
    pub panics: Arc<AtomicU64>,
}

impl Surroundings {
    /// Those of this machine.
    pub fn system() -> Self {
        let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
        Surroundings {
            disk: Arc::new(LocalDisk::new()),
            clock: Arc::new(SystemClock::new()),
            rng: Arc::new(SplitMix64::new(high ^ low)),
            panics: Arc::default(),
        }
    }
}

/// A server that listens.
pub struct Server {
    app: Arc<App>,
    surroundings: Surroundings,
    http_addr: SocketAddr,
    mqtt_addr: Option<SocketAddr>,
    postgres_addr: Option<SocketAddr>,
    grpc_addr: Option<SocketAddr>,
    connections: TaskTracker,
    stop: CancellationToken,
    accepting: JoinHandle<()>,
    accepting_mqtt: Option<JoinHandle<()>>,
    accepting_postgres: Option<JoinHandle<()>>,
    accepting_grpc: Option<JoinHandle<()>>,
    stale: Option<Stale>,
}

/// How a server stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Requests that did not end within half of the grace period.
    pub connections_late: usize,
    /// Whether all rows reached their shards; else they are in the log, and the next start replays it.
    pub flushed: bool,
}

impl Server {
    /// Listens. Health and readiness answer from here on; writes and queries are answered 503 until
    /// [`Server::open`] has returned.
    ///
    /// # Errors
    /// If the data folder cannot be used or the port is taken.
    pub async fn bind(config: Config) -> Result<Self, Failure> {
        Server::bind_in(config, Surroundings::system()).await
    }

    /// As [`Server::bind`], in surroundings of the caller's choice.
    ///
    /// # Errors
    /// As [`Server::bind`].
    pub async fn bind_in(config: Config, surroundings: Surroundings) -> Result<Self, Failure> {
        let disk = Arc::clone(&surroundings.disk);
        let stale = Stale::take(disk, &config.storage.data).map_err(|e| unusable(&config.storage.data, &e))?;
        let (listener, http_addr) = listen(&config.http.listen, "http", "4200").await?;
        let mqtt = match &*config.mqtt.listen {
            "" => None,
            address => Some(listen(address, "mqtt", "1883").await?),
        };
        let postgres = match &*config.postgres.listen {
            "" => None,
            address => Some(listen(address, "postgres", "5432").await?),
        };
        let grpc = match &*config.grpc.listen {
            "" => None,
            address => Some(listen(address, "grpc", "4300").await?),
        };
        let app = App::new(config, Arc::clone(&surroundings.clock), Arc::clone(&surroundings.panics));
        let app = app.map_err(Failure::usage)?;
        let (connections, stop) = (TaskTracker::new(), CancellationToken::new());
        let accept = http::accept(listener, Arc::clone(&app), connections.clone(), stop.clone());
        let accepting = connections.spawn(accept);
        let mqtt_addr = mqtt.as_ref().map(|(_, addr)| *addr);
        let accepting_mqtt = mqtt.map(|(listener, _)| {
            connections.spawn(mqtt::accept(listener, Arc::clone(&app), connections.clone(), stop.clone()))
        });
        let postgres_addr = postgres.as_ref().map(|(_, addr)| *addr);
        let accepting_postgres = postgres.map(|(listener, _)| {
            connections.spawn(postgres::accept(listener, Arc::clone(&app), connections.clone(), stop.clone()))
        });
        let grpc_addr = grpc.as_ref().map(|(_, addr)| *addr);
        let accepting_grpc =
            grpc.map(|(listener, _)| connections.spawn(flight::accept(listener, Arc::clone(&app), stop.clone())));
        Ok(Server {
            app,
            surroundings,
            http_addr,
            mqtt_addr,
            postgres_addr,
            grpc_addr,
            connections,
            stop,
            accepting,
            accepting_mqtt,
            accepting_postgres,
            accepting_grpc,
            stale: Some(stale),
        })
    }

    /// Takes the folder's lock, replays the log and gets ready.
    ///
    /// # Errors
    /// If another server has the folder, or it cannot be read or written.
    pub async fn open(&mut self) -> Result<(), Failure> {
        let (app, surroundings) = (Arc::clone(&self.app), self.surroundings.clone());
        let node = self.node();
        let opening = tokio::task::spawn_blocking(move || open_parts(&app, surroundings, node));
        let opened = opening.await.unwrap_or_else(|e| Err(Failure::work(format!("open the data folder: {e}"))));
        let parts = match opened {
            Ok(parts) => parts,
            Err(failure) => {
                // Whoever has the folder gets the file back.
                self.stale = None;
                return Err(failure);
            }
        };
        if let Some(stale) = self.stale.take() {
            stale.forget();
        }
        let data = &self.app.config.storage.data;
        Addresses::new(self.http_addr, self.mqtt_addr, self.postgres_addr, self.grpc_addr)
            .write(&*self.surroundings.disk, data)
            .map_err(|e| unusable(data, &e))?;
        self.app.enter(Phase::Ready(parts));
        brokers::spawn(&self.app, &self.surroundings.rng, &self.connections, &self.stop);
        let version = env!("CARGO_PKG_VERSION");
        let shown = |addr: Option<SocketAddr>| addr.map_or_else(|| "off".to_owned(), |addr| addr.to_string());
        let (mqtt, postgres, grpc) = (shown(self.mqtt_addr), shown(self.postgres_addr), shown(self.grpc_addr));
        tracing::info!(version, http = %self.http_addr, %mqtt, %postgres, %grpc, data = %data.display(), "ready");
        Ok(())
    }

    /// Who tells the engine what the process and its machine are like.
    fn node(&self) -> NodeSource {
        let memory_max_bytes = Some(node_facts::memory_max_bytes(&self.app.config));
        let http_port = Some(self.http_addr.port());
        let postgres_port = self.postgres_addr.map(|address| address.port());
        NodeSource::new(move || NodeFacts { http_port, postgres_port, memory_max_bytes, ..node_facts::now() })
    }

    /// Where HTTP listens.
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// Where MQTT listens; `None` if it is off.
    pub fn mqtt_addr(&self) -> Option<SocketAddr> {
        self.mqtt_addr
    }

    /// Where PostgreSQL's protocol is listened for; `None` if it is off.
    pub fn postgres_addr(&self) -> Option<SocketAddr> {
        self.postgres_addr
    }

    /// Where gRPC listens; `None` if it is off.
    pub fn grpc_addr(&self) -> Option<SocketAddr> {
        self.grpc_addr
    }

    /// What the request handlers share.
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// Returns when a listener has died, which is a bug. Cancel safe.
    pub async fn listener_died(&mut self) {
        let died = async |accepting: &mut Option<JoinHandle<()>>| match accepting {
            Some(accepting) => drop(accepting.await),
            None => std::future::pending().await,
        };
        tokio::select! {
            _ = &mut self.accepting => {}
            () = died(&mut self.accepting_mqtt) => {}
            () = died(&mut self.accepting_postgres) => {}
            () = died(&mut self.accepting_grpc) => {}
        }
    }

    /// Stops within the grace period.
    ///
    /// # Errors
    /// If the log cannot be closed. What was acknowledged is in it all the same.
    pub async fn stop(mut self) -> Result<Stopped, Failure> {
        let grace = self.app.config.server.grace.0;
        let started = self.app.clock.monotonic();
        let left = |app: &App| grace.saturating_sub(app.clock.monotonic().saturating_sub(started));
        tracing::info!(grace = %self.app.config.server.grace, "stopping");

        let parts = match self.app.phase() {
            Phase::Replaying => None,
            Phase::Ready(parts) | Phase::Stopping(parts) => {
                self.app.enter(Phase::Stopping(parts.clone()));
                Some(parts)
            }
        };
        self.stale = None;
        if parts.is_some() {
            let data = &self.app.config.storage.data;
            if let Err(e) = Addresses::remove(&*self.surroundings.disk, data) {
                tracing::warn!(error = %e, data = %data.display(), "remove addresses.json");
            }
        }
        self.stop.cancel();
        self.connections.close();
        // Half of the time at most: the rest is for the flush.
        let in_time = tokio::time::timeout(grace / 2, self.connections.wait()).await.is_ok();
        let connections_late = if in_time { 0 } else { self.connections.len() };
        if connections_late > 0 {
            tracing::warn!(connections_late, "requests did not end within half of the grace period");
        }
        let Some(parts) = parts else { return Ok(Stopped { connections_late, flushed: true }) };

        // Whoever asked has an answer or is gone. A statement may be deep in a computation that does not look up,
        // and then the engine cannot end it: the process's end does.
        let stopping = parts.engine.shutdown(left(&self.app).min(QUERY_GRACE));
        let queries_late =
            tokio::time::timeout(2 * QUERY_GRACE, stopping).await.unwrap_or(parts.engine.stats().running);
        if queries_late > 0 {
            tracing::warn!(queries_late, "queries did not end in time");
        }
        let grace = left(&self.app).max(Duration::from_secs(1));
        let closing = tokio::task::spawn_blocking(move || {
            parts.sessions.close();
            let closed = parts.storage.close(grace);
            (closed, parts.storage.stats().memory_rows)
        });
        match closing.await {
            Ok((Ok(()), 0)) => Ok(Stopped { connections_late, flushed: true }),
            Ok((Ok(()), rows)) => {
                tracing::warn!(rows, "rows were not flushed within the grace period; the next start replays them");
                Ok(Stopped { connections_late, flushed: false })
            }
            Ok((Err(e), _)) => Err(Failure::work(format!("close the data folder: {e}"))),
            Err(e) => Err(Failure::work(format!("close the data folder: {e}"))),
        }
    }
}

/// The part of the start that blocks.
fn open_parts(app: &Arc<App>, surroundings: Surroundings, node: NodeSource) -> Result<Parts, Failure> {
    let config = &app.config;
    let Surroundings { disk, clock, rng, .. } = surroundings;
    let log = ReplayLog { app: Arc::clone(app), next: AtomicU64::new(1) };
    let tables = tables_elsewhere(config, &disk, &clock)?;
    let mut storage_config = config.storage_config();
    if let Some(tables) = &tables {
        reach(tables, &*rng)?;
        if tables.is_remote() {
            storage_config.scrub_bytes_per_second = config.storage.store_scrub_rate.0;
        }
    }
    let storage = Storage::open(
        storage_config,
        Disks { data: Arc::clone(&disk), tables },
        Arc::clone(&clock),
        rng,
        &|progress| log.note(progress),
    )
    .map_err(|e| cannot_open(&config.storage.data, e))?;
    let engine = QueryEngine::new(QueryConfig { node, ..query_config(config) }, Arc::clone(&storage))
        .map_err(|e| Failure::work(format!("start the query engine: {e}")))?;
    let life = (storage.node(), storage.epoch());
    let (memory, expiry) = (config.mqtt.sessions_memory.bytes(), config.mqtt.session_expiry_max.0);
    let sessions = Sessions::open(disk, &config.storage.data, life, clock, memory, expiry)
        .map_err(|e| cannot_open(&config.storage.data, e))?;
    if !config.mqtt.sparkplug_host.is_empty() {
        sessions.be_host(&config.mqtt.sparkplug_host);
    }
    let connections = ConnectionsTable::new(Arc::clone(&app.connections), Arc::clone(&sessions));
    storage.show(ConnectionsTable::NAME, Arc::new(connections));
    let sources = SourcesTable::new(Arc::clone(&app.metrics.sources), app.clock.now_us());
    storage.show(SourcesTable::NAME, Arc::new(sources));
    views::show(&storage, config, &app.clock);
    Ok(Parts { storage, engine: Arc::new(engine), sessions })
}

/// Where the tables are that the configuration puts elsewhere than into the data folder.
pub(crate) fn tables_elsewhere(
    config: &Config,
    disk: &SharedDisk,
    clock: &Arc<dyn Clock>,
) -> Result<Option<Tables>, Failure> {
    match &*config.storage.tables {
        "" => Ok(None),
        place => Tables::at(place, disk, clock).map(Some).map_err(Failure::usage),
    }
}

/// Tries the tables' place out. A store that does not answer is waited for: after a power cut it may start later than this
/// server. One that answers and refuses is a mistake of the operator.
fn reach(tables: &Tables, rng: &dyn Rng) -> Result<(), Failure> {
    loop {
        match tables.try_out(rng) {
            Err(e) if e.is_store_away() => {
                tracing::warn!(error = %e, "the tables cannot be reached; trying again until they can");
                std::thread::park_timeout(REACH_PERIOD);
            }
            Ok(()) => return Ok(()),
            Err(e @ StorageError::Unfit { .. }) => return Err(Failure::usage(e)),
            Err(e) => {
                let advice = "look at [storage] tables and at the variables AWS_… of the environment";
                return Err(Failure::usage(format!("the tables cannot be used: {e}; {advice}")));
            }
        }
    }
}

fn query_config(config: &Config) -> QueryConfig {
    let spill_dir = config.storage.data.join("spill");
    let mut query = QueryConfig::new(spill_dir, config.query.memory.bytes());
    if config.query.threads > 0 {
        query.threads = config.query.threads as usize;
    }
    query.timeout = config.query.timeout.0;
    query.concurrent_max = config.query.concurrent_max as usize;
    query
}

/// Says each second how far the replay has come.
struct ReplayLog {
    app: Arc<App>,
    /// The second at which to speak next: a short replay says nothing.
    next: AtomicU64,
}

impl ReplayLog {
    fn note(&self, progress: ReplayProgress) {
        self.app.note_replay(progress);
        let second = self.app.clock.monotonic().as_secs();
        if second >= self.next.load(Ordering::Relaxed) {
            self.next.store(second + 1, Ordering::Relaxed);
            let (done_bytes, total_bytes) = (progress.done_bytes, progress.total_bytes);
            let data = self.app.config.storage.data.display();
            tracing::info!(%data, done_bytes, total_bytes, share = share(progress), "replaying the log");
        }
    }
}

async fn listen(address: &str, section: &str, port: &str) -> Result<(TcpListener, SocketAddr), Failure> {
    let failed = |e| cannot_listen(address, section, port, &e);
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

fn cannot_listen(listen: &str, section: &str, port: &str, error: &io::Error) -> Failure {
    let variable = format!("EDEN_{}_LISTEN", section.to_uppercase());
    let off = match section {
        "mqtt" => ", an empty text switches MQTT off",
        "postgres" => ", an empty text switches PostgreSQL's protocol off",
        "grpc" => ", an empty text switches Flight SQL off",
        _ => "",
    };
    Failure::usage(match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "{listen} is taken by another program (perhaps another eden); stop it, or choose another address: \
             {variable}=127.0.0.1:0 takes a free port{off}"
        ),
        io::ErrorKind::PermissionDenied => {
            format!("{listen} may not be listened on: {error}; choose a port above 1023 in [{section}] listen")
        }
        _ => format!(
            "{listen} cannot be listened on: {error}; [{section}] listen takes host:port such as 127.0.0.1:{port}{off}"
        ),
    })
}

fn unusable(data: &Path, error: &io::Error) -> Failure {
    Failure::usage(format!(
        "the data folder {} cannot be used: {error}; choose another one with --data or make it writable",
        data.display()
    ))
}

fn cannot_open(data: &Path, error: StorageError) -> Failure {
    use io::ErrorKind as K;
    match error {
        StorageError::Locked { .. }
        | StorageError::Owned { .. }
        | StorageError::Unfit { .. }
        | StorageError::Invalid(_) => Failure::usage(error),
        // If the tables are elsewhere, the folder is not to blame for them.
        StorageError::Io { ref path, ref source, action }
            if path.starts_with(data)
                && matches!(
                    source.kind(),
                    K::PermissionDenied | K::NotADirectory | K::ReadOnlyFilesystem | K::AlreadyExists | K::NotFound
                ) =>
        {
            let detail = io::Error::new(source.kind(), format!("{action} {}: {source}", path.display()));
            unusable(data, &detail)
        }
        other => Failure::work(format!("open the data folder {}: {other}", data.display())),
    }
}
