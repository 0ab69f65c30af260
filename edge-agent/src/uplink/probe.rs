//! Whether a server can be reached, for `eden-agent check`.

use super::{Server, http, mqtt, runtime};
use crate::config::{Address, ServerSection};

/// Tries to reach a server, as agent `agent` would, under an MQTT client id of its own so that a running agent keeps
/// its connection.
///
/// # Errors
/// Says in one line why it cannot be used.
pub(crate) fn probe(agent: &str, server: &ServerSection) -> Result<(), String> {
    match server.address()? {
        Address::Mqtt { .. } => {
            let runtime = runtime().map_err(|e| e.to_string())?;
            let place = mqtt::Place::of(&Server::new(server))?;
            runtime.block_on(mqtt::try_out(&format!("{agent}-check"), &place))
        }
        Address::Http { base, .. } => http::probe(&base, Server::new(server).trusted()?),
    }
}
