//! The HTTP listener: connections, routes, limits.
//!
//! Owns:     accepting, bounding and ending connections; which path is whose; what a panic answers.
//! Does not: know formats: each endpoint has its module.

pub mod answer;
pub mod arrow;
pub mod body;
pub mod cells;
pub mod influx;
pub(crate) mod intake;
mod json;
pub mod left_out;
pub mod metrics_page;
pub mod otlp;
pub mod prometheus;
pub mod quarantine;
pub mod query_sql;
pub mod rows;
pub mod sql;
pub mod sql_error;
pub mod status;
pub mod table;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::header::{HOST, ORIGIN, USER_AGENT};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use futures::FutureExt as _;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use query::Origin;
use settings::close_names::closest;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service as _;

use crate::app::App;
use crate::connections::{Facts, Shown};
use crate::metrics::Metrics;
use crate::stream::Stream;

/// A request's head must be there this long after the connection or the last answer: idle connections go.
const HEAD_TIME_MAX: Duration = Duration::from_secs(75);
/// Bytes buffered for a connection.
const CONNECTION_BUFFER_BYTES: usize = 64 << 10;
/// Pause after the system refused a connection (out of file descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Characters of what a client calls itself that are kept.
const APPLICATION_CHARS_MAX: usize = 100;

/// Who sent a request.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

impl Peer {
    /// A statement that came from here over `protocol`.
    pub fn origin(self, protocol: &'static str, headers: &HeaderMap) -> Origin {
        let application = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        let application = application.chars().take(APPLICATION_CHARS_MAX).collect();
        Origin { protocol, peer: self.0.to_string(), user: String::new(), application }
    }
}

/// Every path, with the methods it takes and the name under which it is counted.
pub const PATHS: &[(&str, &str, &str)] = &[
    ("/", "GET", "root"),
    ("/ping", "GET, HEAD, POST", "ping"),
    ("/health", "GET", "health"),
    ("/ready", "GET", "ready"),
    ("/metrics", "GET", "metrics"),
    ("/api/v3/write_lp", "POST", "write_lp"),
    ("/api/v2/write", "POST", "write_v2"),
    ("/write", "POST", "write_v1"),
    ("/api/v1/prom/write", "POST", "prometheus_write"),
    ("/api/v1/write", "POST", "prometheus_write"),
    ("/v1/metrics", "POST", "otlp_metrics"),
    ("/api/v1/arrow", "POST", "arrow"),
    ("/query", "GET, POST", "query_v1"),
    ("/api/v1/json", "POST", "json"),
    ("/api/v3/query_sql", "GET, POST", "query_sql"),
    ("/api/v1/table", "GET", "table"),
    ("/api/v1/quarantine/replay", "POST", "quarantine_replay"),
    ("/_sql", "POST", "sql"),
];

/// The routes.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(status::root))
        .route("/ping", get(status::ping).post(status::ping))
        .route("/health", get(status::health))
        .route("/ready", get(status::ready))
        .route("/metrics", get(metrics_page::metrics))
        .route("/api/v3/write_lp", post(influx::v3::write_lp))
        .route("/api/v2/write", post(influx::v2::write))
        .route("/write", post(influx::v1::write))
        .route("/api/v1/prom/write", post(prometheus::write))
        .route("/api/v1/write", post(prometheus::write))
        .route("/v1/metrics", post(otlp::metrics))
        .route("/api/v1/arrow", post(arrow::write))
        .route("/query", get(influx::query::get).post(influx::query::post))
        .route("/api/v3/query_sql", get(query_sql::get).post(query_sql::post))
        .route("/api/v1/json", post(json::write))
        .route("/api/v1/table", get(table::table))
        .route("/api/v1/quarantine/replay", post(quarantine::replay))
        .route("/_sql", post(sql::sql))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        // Bodies have their own limit, before and after decompression: see `body`.
        .layer(DefaultBodyLimit::disable())
        .with_state(app)
}

async fn unknown_path(request: Request) -> Response {
    let path = request.uri().path();
    let close = closest(path, PATHS.iter().map(|(path, ..)| *path))
        .map(|close| format!("; did you mean {close}?"))
        .unwrap_or_default();
    let endpoints: Vec<String> = PATHS.iter().map(|(path, methods, _)| format!("{methods} {path}")).collect();
    let body = serde_json::json!({ "error": format!("there is nothing at {path}{close}"), "endpoints": endpoints });
    answer::json(StatusCode::NOT_FOUND, &body)
}

async fn wrong_method(method: Method, request: Request) -> Response {
    let path = request.uri().path();
    let takes = PATHS.iter().find(|(known, ..)| *known == path).map_or("", |(_, methods, _)| methods);
    answer::error(StatusCode::METHOD_NOT_ALLOWED, format!("{path} takes {takes}, not {method}"))
}

/// Accepts connections until `stop`, then lets each finish the request it is in. Returns when it no longer
/// accepts; the connections are in `tracker`.
pub async fn accept(listener: TcpListener, app: Arc<App>, tracker: TaskTracker, stop: CancellationToken) {
    let router = router(Arc::clone(&app));
    let places = Arc::new(Semaphore::new(app.config.http.connections_max.max(1) as usize));
    loop {
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place.expect("the semaphore is never closed"),
            () = stop.cancelled() => return,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = Connection { app: Arc::clone(&app), peer, stop: stop.clone(), _place: place };
                tracker.spawn(connection.serve(Stream::accepted(stream, peer), router.clone()));
            }
            Err(e) => {
                tracing::warn!(error = %e, "accept a connection");
                pause(&stop).await;
            }
        }
    }
}

/// A timer that is a feature: the system is out of something, so asking at once would only spin.
async fn pause(stop: &CancellationToken) {
    let _ = tokio::time::timeout(ACCEPT_PAUSE, stop.cancelled()).await;
}

struct Connection {
    app: Arc<App>,
    peer: SocketAddr,
    stop: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    async fn serve(self, stream: Stream, router: Router) {
        Metrics::add(&self.app.metrics.connections_total, 1);
        self.app.metrics.connections.fetch_add(1, Ordering::Relaxed);
        let shown = Arc::new(Shown::default());
        let _showing = self.app.connections.show(&shown);
        let since_us = self.app.clock.now_us();
        let facts = Facts { protocol: "http", version: "1.1", client: "".into(), peer: self.peer, since_us };
        // Nobody else sets it.
        let _ = shown.facts.set(facts);
        let service = hyper::service::service_fn(|request| {
            shown.messages.fetch_add(1, Ordering::Relaxed);
            shown.in_flight.fetch_add(1, Ordering::Relaxed);
            let answering = handle(&self.app, self.peer, router.clone(), request);
            let answered = |_: &_| {
                shown.in_flight.fetch_sub(1, Ordering::Relaxed);
            };
            answering.inspect(answered)
        });
        let mut connection = pin!(
            hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIME_MAX)
                .max_buf_size(CONNECTION_BUFFER_BYTES)
                .serve_connection(TokioIo::new(stream), service)
        );
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(e) = result {
            // A client that goes away is its own business.
            tracing::debug!(peer = %self.peer, error = %e, "connection ended early");
        }
        self.app.metrics.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether a browser sends a request that may change something for a page that came from somewhere else. Browsers send
/// `Origin` with all such requests (RFC 6454, section 7); other clients hardly ever do.
fn is_cross_site(request: &Request) -> bool {
    let Some(origin) = request.headers().get(ORIGIN) else { return false };
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return false;
    }
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    origin.is_none() || origin != host
}

async fn handle(
    app: &Arc<App>,
    peer: SocketAddr,
    mut router: Router,
    request: Request<Incoming>,
) -> Result<Response, Infallible> {
    let started = app.clock.monotonic();
    let path = request.uri().path();
    let endpoint = PATHS.iter().find(|(known, ..)| *known == path).map_or("other", |(_, _, name)| name);
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(Peer(peer));
    // The panic hook has counted and logged it; the client is told, the connection lives.
    let response = if is_cross_site(&request) {
        let reason = "a page of another site may not change anything here: the header Origin is not this server's";
        answer::error(StatusCode::FORBIDDEN, reason)
    } else {
        let answered = AssertUnwindSafe(router.call(request)).catch_unwind().await.unwrap_or_else(|_| {
            Ok(answer::error(StatusCode::INTERNAL_SERVER_ERROR, "a bug in eden; the server's log says where"))
        });
        answered.unwrap_or_else(|never| match never {})
    };
    let took = app.clock.monotonic().saturating_sub(started);
    app.metrics.count_request(endpoint, response.status().as_u16(), took);
    Ok(response)
}
