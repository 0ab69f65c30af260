//! What is sent to edge nodes of Sparkplug: on their own connections, as far as they have subscribed to it.
//!
//! Owns:     the way of a command from what the decoder wants to a client.
//! Does not: know what edge nodes said (`decode`), or store it (`ingest`).

use std::sync::Arc;

use decode::sparkplug::Command;

use super::read::Publish;
use super::sessions::{Forwarded, Sessions};
use crate::metrics::Metrics;

/// Sends `commands` to a client. One that is not subscribed is asked again with what it says later.
pub fn send(metrics: &Metrics, sessions: &Arc<Sessions>, client_id: &str, commands: &[Command]) {
    for Command { topic, payload } in commands {
        let publish = Publish {
            dup: false,
            qos: 0,
            retain: false,
            topic,
            id: 0,
            properties: &[],
            expiry: None,
            alias: None,
            payload,
        };
        let result = match sessions.forward(client_id, &publish, "").0 {
            Forwarded::Sent => "sent",
            Forwarded::Kept => "kept",
            Forwarded::Nobody => "nobody",
            Forwarded::Full => "full",
        };
        metrics.mqtt.count_command(result);
        tracing::info!(client = client_id, topic, result, "a Sparkplug edge node is asked to be born again");
    }
}
