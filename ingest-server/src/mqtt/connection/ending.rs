//! How a connection ends.
//!
//! Owns:     what the client is told, what becomes of what it had sent, and its will.
//! Does not: decide that a connection ends (`connection`).
//!
//! Invariant: nothing is acknowledged here but what is durable (P1); only a stop waits for that.

use std::io;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use super::{Connection, SCRATCH};
use crate::mqtt::read::{Bad, code};
use crate::mqtt::topic::Kind;
use crate::stream::Stream;

/// How long the other side may take to close after this one has.
pub(in crate::mqtt) const LINGER_TIME_MAX: Duration = Duration::from_secs(1);

/// How long the end waits for QoS 2 messages that are being stored, if their identifiers are to be kept.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(2);

/// How a connection ends.
#[derive(Debug)]
pub(super) enum Ending {
    /// The client said DISCONNECT, and perhaps for how many seconds its session is to be kept.
    Goodbye { will: bool, session_expiry: Option<u32> },
    /// It is gone.
    Gone,
    /// It did what it may not.
    Bad(Bad),
    /// It has not been heard of.
    Silent,
    /// Another connection has its id.
    TakenOver,
    /// The server stops.
    Stop,
    /// Storage can take nothing.
    Failed,
}

impl Connection {
    /// Ends the connection, and then stores what had come before.
    pub(super) async fn end(mut self: Box<Self>, ending: Ending) {
        tracing::debug!(client = &*self.client_id, ?ending, "MQTT connection ends");
        let metrics = &self.mqtt.app.metrics.mqtt;
        let (farewell, will) = match &ending {
            Ending::Goodbye { will, .. } => (None, *will),
            Ending::Gone => (None, true),
            Ending::Bad(bad) => {
                metrics.count_broken(reason(bad.code));
                (Some((bad.code, bad.what)), true)
            }
            Ending::Silent => {
                metrics.count_broken("silent");
                (Some((code::KEEP_ALIVE_TIMEOUT, "nothing was heard for too long")), true)
            }
            Ending::TakenOver => (Some((code::TAKEN_OVER, "another connection has this client id")), true),
            Ending::Stop => (Some((code::SHUTTING_DOWN, "the server stops")), false),
            Ending::Failed => (Some((code::IMPLEMENTATION, "the server cannot store")), false),
        };
        if matches!(ending, Ending::Stop) {
            // If it fails, so be it: the connection ends all the same.
            let _ = self.settle_all().await;
        }
        // Before the other side can know that the connection has ended.
        let session_expiry = if let Ending::Goodbye { session_expiry, .. } = ending { session_expiry } else { None };
        self.sessions.end(&self.client_id, &self.link, session_expiry);
        if let Some((code, reason)) = farewell {
            self.form.disconnect(&mut self.out, code, reason);
        }
        let out = std::mem::take(&mut self.out);
        let _ = timeout(LINGER_TIME_MAX, say(&mut self.stream, &out)).await;
        let keeps_ids = self.wanted_session && self.ids.values().any(|held| held.qos == 2);
        if keeps_ids && !matches!(ending, Ending::Failed | Ending::Stop) {
            // What the session says is stored must be durable; what is not in time is stored again when it comes again.
            let _ = timeout(SETTLE_TIME_MAX, self.settle_all()).await;
        }
        self.waiting.clear();
        if keeps_ids {
            let received = self.ids.iter().filter(|(_, held)| held.qos == 2 && held.received);
            let received = received.map(|(id, held)| (*id, held.crc)).collect();
            self.sessions.keep_received(&self.client_id, received);
        }
        if !matches!(ending, Ending::Failed | Ending::Stop) {
            self.store_rest(will).await;
        }
        // Whoever takes over waits for this, not for the other side.
        self.mqtt.links.leave(Some(&self.client_id), &self.link);
        linger(&mut self.stream).await;
    }

    /// Stores what came before the end, though nobody waits for it, and the will.
    async fn store_rest(&mut self, will: bool) {
        if let Some(will) = self.will.take().filter(|_| will) {
            let kind = self.mqtt.app.topics.kind(&will.topic);
            if matches!(kind, Kind::Lines | Kind::Zstd | Kind::Status | Kind::Rule(_) | Kind::Sparkplug(_)) {
                self.batch.add(kind, &will.topic, &[], &will.payload, 0, 0);
            }
        }
        loop {
            self.start_work();
            let Some(job) = self.job.take() else { return };
            if let (_, Err(error)) = job.await {
                self.failed(&error);
                return;
            }
        }
    }

    /// Waits until all that has come is acknowledged, and sends it. The caller's caller sets the time limit.
    async fn settle_all(&mut self) -> Result<(), ()> {
        self.wanted = None;
        loop {
            self.start_work();
            if let Some(job) = self.job.as_mut() {
                let (work, result) = job.await;
                self.worked(work, result).map_err(drop)?;
                continue;
            }
            let Some(group) = self.waiting.front_mut() else { return Ok(()) };
            if let Some(durable) = group.durable.as_mut() {
                durable.await.map_err(drop)?;
            }
            self.acknowledge();
        }
    }
}

/// Writes `out` and the end behind it.
pub(in crate::mqtt) async fn say(stream: &mut Stream, out: &[u8]) -> io::Result<()> {
    stream.write_all(out).await?;
    stream.shutdown().await
}

/// Waits for the other side to close: a socket that is dropped with unread bytes resets the connection, and what was
/// written may be lost.
pub(in crate::mqtt) async fn linger(stream: &mut Stream) {
    let closing = async {
        loop {
            stream.readable().await?;
            let gone = SCRATCH.with_borrow_mut(|scratch| match stream.try_read(scratch) {
                Ok(0) => true,
                Ok(_) => false,
                Err(e) => e.kind() != io::ErrorKind::WouldBlock,
            });
            if gone {
                return io::Result::Ok(());
            }
        }
    };
    // It may be gone, or in no hurry.
    let _ = timeout(LINGER_TIME_MAX, closing).await;
}

/// The label under which a reason code is counted.
pub(in crate::mqtt) fn reason(reason: u8) -> &'static str {
    match reason {
        code::MALFORMED => "malformed",
        code::PROTOCOL_ERROR => "protocol",
        code::UNSUPPORTED_VERSION => "version",
        code::SERVER_UNAVAILABLE => "unavailable",
        code::BAD_AUTHENTICATION_METHOD => "authentication",
        code::TOPIC_FILTER_INVALID | code::TOPIC_NAME_INVALID => "topic",
        code::RECEIVE_MAX_EXCEEDED => "receive_max",
        code::TOPIC_ALIAS_INVALID => "topic_alias",
        code::TOO_LARGE => "too_large",
        code::SUBSCRIPTION_IDS_NOT_SUPPORTED => "subscription_id",
        _ => "other",
    }
}
