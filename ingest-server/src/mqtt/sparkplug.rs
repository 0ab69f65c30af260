//! What is sent to edge nodes of Sparkplug: on their own connections, as far as they have subscribed to it.
//!
//! Owns:     the way of a command from what the decoder wants to a client.
//! Does not: know what edge nodes said (`decode`), or store it (`ingest`).

use decode::sparkplug::Command;

use super::Mqtt;
use super::links::Forwarded;
use super::read::Publish;

/// Sends `commands` to a client. One that is not subscribed is asked again with what it says later.
pub fn send(mqtt: &Mqtt, client_id: &str, commands: &[Command]) {
    for Command { topic, payload } in commands {
        let publish =
            Publish { dup: false, qos: 0, retain: false, topic, id: 0, properties: &[], expiry: None, payload };
        let result = match mqtt.links.forward(client_id, &publish, "") {
            Forwarded::Sent => "sent",
            Forwarded::Nobody => "nobody",
            Forwarded::Full => "full",
        };
        mqtt.app.metrics.mqtt.count_command(result);
        tracing::info!(client = client_id, topic, result, "a Sparkplug edge node is asked to be born again");
    }
}
