//! The beginning of a connection: CONNECT, and whether its client is accepted.
//!
//! Owns:     what may come before a client is known: little, and not for long; and how it is refused.
//! Does not: know what an accepted client may do (`connection`).

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::timeout;

use super::Mqtt;
use super::connection::{Connection, LINGER_TIME_MAX, linger, reason, say};
use super::links::Link;
use super::read::{self, Bad, Connect, Refusal, Version, code};
use super::sessions::Began;
use super::write;
use crate::app::Parts;
use crate::connections::Facts;
use crate::metrics::Metrics;
use crate::stream::Stream;

/// CONNECT must be there in this time.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a client that comes while the server starts waits for it, before it is refused: some never come again after that.
const START_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long a connection waits for the one it takes over from.
const TAKE_OVER_TIME_MAX: Duration = Duration::from_secs(5);
/// Bytes of one read of it.
const CONNECT_READ_BYTES: usize = 256;
/// CONNECT is not larger than this: nobody is known yet.
const CONNECT_BYTES_MAX: usize = 4 << 10;

/// Serves a connection to its end.
pub(super) async fn accepted(mqtt: Arc<Mqtt>, stream: Stream, peer: SocketAddr, place: OwnedSemaphorePermit) {
    let metrics = &mqtt.app.metrics.mqtt;
    Metrics::add(&metrics.connections_total, 1);
    metrics.connections.fetch_add(1, Ordering::Relaxed);
    let link = mqtt.links.open();
    let showing = mqtt.app.connections.show(&link.shown);
    // Boxed: the tasks of connections that are past it do not carry its state.
    let connection = Box::pin(greet(&mqtt, stream, peer, &link)).await;
    match connection {
        Some(connection) => connection.serve().await,
        None => mqtt.links.leave(None, &link),
    }
    mqtt.app.metrics.mqtt.connections.fetch_sub(1, Ordering::Relaxed);
    drop((place, showing));
}

/// Receives CONNECT and answers it; `None` if there is no connection.
async fn greet(mqtt: &Arc<Mqtt>, mut stream: Stream, peer: SocketAddr, link: &Arc<Link>) -> Option<Box<Connection>> {
    let received = tokio::select! {
        received = timeout(CONNECT_TIME_MAX, receive_connect(&mut stream)) => received,
        () = poll_fn(|cx| {
            link.waker.register(cx.waker());
            if link.end().is_some() { Poll::Ready(()) } else { Poll::Pending }
        }) => return None,
    };
    let refusal = match received {
        Err(_) => {
            mqtt.app.metrics.mqtt.count_refused("timeout");
            return None;
        }
        Ok(Err(Some(refusal))) => refusal,
        // Gone.
        Ok(Err(None)) => return None,
        Ok(Ok((bytes, head))) => match admitted(mqtt, &bytes[head.len..head.total()]).await {
            Ok((connect, parts)) => match enter(mqtt, &parts, peer, link, &connect).await {
                Ok(client) => {
                    let rest = &bytes[head.total()..];
                    return Some(Connection::begin(mqtt, parts, stream, client, &connect, rest));
                }
                Err(refusal) => refusal,
            },
            Err(refusal) => refusal,
        },
    };
    tracing::debug!(%peer, reason = refusal.what(), "MQTT connection refused");
    let mut out = BytesMut::new();
    match refusal {
        Refusal::Close(bad) => mqtt.app.metrics.mqtt.count_refused(reason(bad.code)),
        Refusal::V3(code, _) => {
            mqtt.app.metrics.mqtt.count_refused(match code {
                1 => "version",
                2 => "client_id",
                3 => "unavailable",
                _ => "other",
            });
            write::refuse_v3(&mut out, code);
        }
        Refusal::V5(bad) => {
            mqtt.app.metrics.mqtt.count_refused(reason(bad.code));
            write::refuse_v5(&mut out, bad.code, bad.what);
        }
    }
    let _ = timeout(LINGER_TIME_MAX, say(&mut stream, &out)).await;
    linger(&mut stream).await;
    None
}

/// Receives the first packet, which must be CONNECT, and perhaps more behind it.
async fn receive_connect(stream: &mut Stream) -> Result<(Vec<u8>, read::Head), Option<Refusal>> {
    let mut bytes = Vec::new();
    let mut read = [0; CONNECT_READ_BYTES];
    loop {
        let found = read::head(&bytes, CONNECT_BYTES_MAX, None).map_err(|bad| Some(Refusal::Close(bad)))?;
        if let Some(head) = found.filter(|head| bytes.len() >= head.total()) {
            return Ok((bytes, head));
        }
        stream.readable().await.map_err(|_| None)?;
        match stream.try_read(&mut read) {
            Ok(0) => return Err(None),
            Ok(len) => bytes.extend_from_slice(&read[..len]),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Err(None),
        }
    }
}

/// Reads CONNECT, and whether it can be accepted now, or soon.
async fn admitted<'a>(mqtt: &Mqtt, body: &'a [u8]) -> Result<(Connect<'a>, Parts), Refusal> {
    let mut connect = read::connect(body)?;
    // However long it takes: what comes of it is said below.
    let _ = timeout(START_WAIT_MAX, mqtt.app.replayed()).await;
    match mqtt.app.for_writes() {
        Ok(parts) => {
            if connect.version != Version::V5 && !connect.clean {
                // It has no way to say for how long.
                connect.session_expiry = parts.sessions.expiry_max();
            }
            Ok((connect, parts))
        }
        Err(_) => Err(unavailable(connect.version)),
    }
}

fn unavailable(version: Version) -> Refusal {
    let what = "the server starts, stops or cannot store; try again later";
    match version {
        Version::V5 => Refusal::V5(Bad { code: code::SERVER_UNAVAILABLE, what }),
        Version::V31 | Version::V311 => Refusal::V3(3, what),
    }
}

/// A client that has been let in.
pub(super) struct Client {
    pub(super) id: Arc<str>,
    /// The same, if it was given to it.
    pub(super) assigned_id: Option<String>,
    pub(super) link: Arc<Link>,
    pub(super) peer: SocketAddr,
    pub(super) began: Began,
}

/// Lets a client in, once the connection that it takes over from is gone.
async fn enter(
    mqtt: &Arc<Mqtt>,
    parts: &Parts,
    peer: SocketAddr,
    link: &Arc<Link>,
    connect: &Connect<'_>,
) -> Result<Client, Refusal> {
    let assigned_id = connect.client_id.is_empty().then(|| format!("eden-{}", uuid::Uuid::new_v4().simple()));
    let id: Arc<str> = assigned_id.as_deref().unwrap_or(connect.client_id).into();
    if let Some(gone) = mqtt.links.enter(&id, link) {
        Metrics::add(&mqtt.app.metrics.mqtt.taken_over, 1);
        // Its will must not come after what this one says.
        let _: Result<Result<(), oneshot::error::RecvError>, _> = timeout(TAKE_OVER_TIME_MAX, gone).await;
    }
    let mut began = parts.sessions.begin(&id, link, connect.clean, connect.session_expiry);
    if let Some(durable) = began.durable.take()
        && let Err(error) = durable.await
    {
        tracing::debug!(client = &*id, %error, "a session could not be kept");
        parts.sessions.end(&id, link, None);
        parts.sessions.keep_received(&id, began.received);
        mqtt.links.leave(Some(&id), link);
        return Err(unavailable(connect.version));
    }
    let version = match connect.version {
        Version::V31 => "3.1",
        Version::V311 => "3.1.1",
        Version::V5 => "5",
    };
    let since_us = mqtt.app.clock.now_us();
    // Nobody else sets it.
    let _ = link.shown.facts.set(Facts { protocol: "mqtt", version, client: Arc::clone(&id), peer, since_us });
    Ok(Client { id, assigned_id, link: Arc::clone(link), peer, began })
}
