//! Arrow Flight SQL: queries, prepared statements and catalogs for ADBC, JDBC and InfluxDB 3's clients.
//!
//! Owns:     the gRPC listener, what each call means, and the statements that clients prepare.
//! Does not: plan or run anything (`query` does).
//!
//! Invariants
//!  1. A query runs when its rows are fetched. A statement without rows is carried out when a client asks what it will
//!     answer: clients fetch late or not at all what they expect no rows of.
//!  2. What clients may leave behind is bounded: prepared statements by number and age, requests by size.
//!
//! Sources: <https://arrow.apache.org/docs/format/FlightSql.html>; arrow-flight 59.3.

mod catalog;
mod error;
mod front;
mod plain;
mod prepared;
mod service;

use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::app::App;
use front::Front;
use service::Flight;

/// Calls of one connection that run at once.
const CALLS_MAX: usize = 64;

/// The largest message of a client.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// How often a connection is looked after, and how long the other end may take to say that it is there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Answers calls until `stop`.
pub(crate) async fn accept(listener: TcpListener, app: Arc<App>, stop: CancellationToken) {
    let service = FlightServiceServer::new(Front::new(Flight::new(app))).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let served = Server::builder()
        .concurrency_limit_per_connection(CALLS_MAX)
        .max_concurrent_streams(Some(CALLS_MAX as u32))
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .add_service(service)
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(%error, "the gRPC listener ended");
    }
}
