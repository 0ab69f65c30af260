//! `eden demo`: a server with ten real agents publishing to it over MQTT, and a look at what it stores.
//!
//! Owns:     the order of the demo's parts and its summary.
//! Does not: take short cuts: readings go through outboxes and sockets. What is shown as stored comes from SQL, what is shown
//!           as waiting from the agents.

mod agents;
mod view;

use std::io::{self, IsTerminal as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::{Clock, TableName};

use crate::cli::process::StopSignals;
use crate::client::Client;
use crate::config::Config;
use crate::failure::Failure;
use crate::serve::{Server, Stopped, Surroundings};
use agents::{Agents, Sent};
use view::{Look, View};

/// The table of the sensors' readings.
const TABLE: &str = "bmp180";
/// How often the view is renewed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Runs the demo until Ctrl-C, or for `period`.
///
/// # Errors
/// If the server cannot start or stop, or nothing was stored.
pub async fn run(mut config: Config, surroundings: Surroundings, period: Option<Duration>) -> Result<(), Failure> {
    let mut signals = StopSignals::new()?;
    let Surroundings { disk, clock, rng, .. } = surroundings.clone();
    for taken in take_free_ports(&mut config) {
        view::print(&format!("{taken} is taken, so the demo listens on a free port\n"));
    }
    let data = config.storage.data.clone();
    let mut server = Server::bind_in(config, surroundings).await?;
    server.open().await?;
    let url = format!("http://{}", server.http_addr());
    let mqtt = server.mqtt_addr().ok_or_else(|| {
        Failure::usage(
            "the demo's agents publish over MQTT, and [mqtt] listen is empty: set EDEN_MQTT_LISTEN=127.0.0.1:0",
        )
    })?;
    let before = blocking({
        let (client, there) = (Client::new(&url), is_there(&server));
        move || if there { count(&client) } else { Ok(0) }
    })
    .await?;

    let mut view = View::new(io::stdout().is_terminal(), &url, &mqtt.to_string(), &data, before);
    view.introduce();
    let agents = blocking({
        let (data, disk, clock, rng) = (data.clone(), disk, Arc::clone(&clock), rng);
        move || Agents::start(mqtt, &data, &disk, &clock, &rng)
    })
    .await?;
    let started = clock.monotonic();
    let ran = watch(&server, &agents, &mut signals, &mut view, &clock, period).await;
    let sent = signals.or_exit(blocking(move || Ok(agents.stop()))).await?;
    let period = clock.monotonic().saturating_sub(started);

    let summary = signals.or_exit(finish(&server, &url, &clock)).await;
    let stopping = clock.monotonic();
    let stopped = signals.or_exit(server.stop()).await?;
    let stop_took = clock.monotonic().saturating_sub(stopping);
    ran?;

    let summary = summary?;
    view::print(&Report { period, before, summary: &summary, sent, stopped, stop_took, data: &data }.text());
    if summary.rows <= before {
        return Err(Failure::work("the demo stored nothing; the lines above and the log say why"));
    }
    Ok(())
}

struct Report<'a> {
    period: Duration,
    before: u64,
    summary: &'a Summary,
    sent: Sent,
    stopped: Stopped,
    stop_took: Duration,
    data: &'a Path,
}

impl Report<'_> {
    fn text(&self) -> String {
        let Report { before, summary, sent, .. } = self;
        let (period, new) = (self.period.as_secs_f64(), summary.rows.saturating_sub(*before));
        let (flush, slowest, stop) = (millis(summary.flush_took), millis(sent.slowest), millis(self.stop_took));
        let unflushed = if self.stopped.flushed { "" } else { ", not all flushed" };
        format!(
            "\nthe demo ran for {period:.1} s\n  \
             rows stored    {} ({before} of earlier runs, {new} new), counted by SQL\n  \
             sensors        {}\n  \
             shards         {} (flushed in {flush:.0} ms)\n  \
             batches        {} acknowledged over MQTT, slowest {slowest:.0} ms; {} sent again, {} refused, {} wait in outboxes\n  \
             stopped        in {stop:.0} ms{unflushed}\n  \
             data           {}\n",
            summary.rows,
            summary.sensors,
            summary.shards,
            sent.acknowledged,
            sent.resent,
            sent.refused,
            sent.waiting,
            self.data.display()
        )
    }
}

fn millis(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}

/// Takes port 0 where a default port is taken; returns the addresses that are taken.
fn take_free_ports(config: &mut Config) -> Vec<String> {
    let default = Config::default();
    let listens = [
        (&mut config.http.listen, default.http.listen),
        (&mut config.mqtt.listen, default.mqtt.listen),
        (&mut config.postgres.listen, default.postgres.listen),
        (&mut config.grpc.listen, default.grpc.listen),
    ];
    let take = |(listen, default): (&mut String, String)| match TcpListener::bind(listen.as_str()) {
        Err(e) if *listen == default && e.kind() == io::ErrorKind::AddrInUse => {
            Some(std::mem::replace(listen, "127.0.0.1:0".into()))
        }
        // Anything else is for the server to report.
        _ => None,
    };
    listens.into_iter().filter_map(take).collect()
}

/// Shows a look each second until a signal or the end of `period`.
async fn watch(
    server: &Server,
    agents: &Agents,
    signals: &mut StopSignals,
    view: &mut View,
    clock: &Arc<dyn Clock>,
    period: Option<Duration>,
) -> Result<(), Failure> {
    let url = format!("http://{}", server.http_addr());
    let client = Client::new(&url);
    let started = clock.monotonic();
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    // The first tick is at once, before anything is written.
    ticks.tick().await;
    let mut end = std::pin::pin!(async {
        match period {
            Some(period) => {
                // A timer that is the feature: `--for`.
                let _ = tokio::time::timeout(period, std::future::pending::<()>()).await;
            }
            None => std::future::pending().await,
        }
    });
    loop {
        tokio::select! {
            () = signals.received() => return Ok(()),
            () = &mut end => return Ok(()),
            _ = ticks.tick() => {}
        }
        if !is_there(server) {
            view.nothing_yet(clock.monotonic().saturating_sub(started));
            continue;
        }
        let client = client.clone();
        let look = blocking(move || Look::take(&client)).await;
        match look {
            Ok(look) => view.show(&look, agents, clock.monotonic().saturating_sub(started)),
            Err(failure) => view.failed(&failure),
        }
    }
}

struct Summary {
    rows: u64,
    sensors: u64,
    shards: usize,
    flush_took: Duration,
}

/// Flushes, and counts what is stored.
async fn finish(server: &Server, url: &str, clock: &Arc<dyn Clock>) -> Result<Summary, Failure> {
    if !is_there(server) {
        return Ok(Summary { rows: 0, sensors: 0, shards: 0, flush_took: Duration::ZERO });
    }
    let (client, flush_clock) = (Client::new(url), Arc::clone(clock));
    let (rows, sensors, flush_took) = blocking(move || {
        let started = flush_clock.monotonic();
        client.sql(&format!("REFRESH TABLE {TABLE}"))?;
        let flush_took = flush_clock.monotonic().saturating_sub(started);
        let found = client.sql(&format!("SELECT count(*), count(DISTINCT sensor) FROM {TABLE}"))?;
        let number = |i: usize| found["rows"][0][i].as_u64().unwrap_or_default();
        Ok((number(0), number(1), flush_took))
    })
    .await?;
    let shards = table(server).map_or(0, |info| info.shards);
    Ok(Summary { rows, sensors, shards, flush_took })
}

fn count(client: &Client) -> Result<u64, Failure> {
    let found = client.sql(&format!("SELECT count(*) FROM {TABLE}"))?;
    Ok(found["rows"][0][0].as_u64().unwrap_or_default())
}

fn table(server: &Server) -> Option<storage::TableInfo> {
    server.app().for_queries().ok()?.storage.table(&TableName::public(TABLE))
}

fn is_there(server: &Server) -> bool {
    table(server).is_some()
}

/// Runs what waits for the socket on a thread that may wait.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(Failure::work(format!("a part of the demo died: {e}"))))
}
