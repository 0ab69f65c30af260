//! Ten real agents in this process, each with a simulated sensor, an outbox in the data folder and a connection of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use edge_agent::config::{Config, MqttVersion, Period, SensorSection, ServerSection, Trust};
use edge_agent::{Agent, AgentStats, Surroundings, with_causes};
use model::{Clock, Rng};
use wal::disk::SharedDisk;

use crate::failure::Failure;

/// Agents, each with one sensor.
pub(super) const AGENTS: u32 = 10;
/// Time between two readings of a sensor.
const READING_EVERY: Duration = Duration::from_millis(500);
/// What waits is sent at the end for at most this long.
const GRACE: Duration = Duration::from_secs(5);

/// What all agents did, and what waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    /// Batches acknowledged.
    pub(super) acknowledged: u64,
    /// Batches sent again because no acknowledgement came.
    pub(super) resent: u64,
    /// Batches that wait in outboxes.
    pub(super) waiting: u64,
    /// Batches with lines that the server has set aside.
    pub(super) refused: u64,
    /// The longest wait for an acknowledgement.
    pub(super) slowest: Duration,
}

/// The running agents.
pub(super) struct Agents(Vec<Agent>);

impl Agents {
    /// Starts all agents; they publish to the server at `mqtt` and keep their outboxes below `data`.
    ///
    /// # Errors
    /// If an outbox cannot be opened, or the system has no threads left.
    pub(super) fn start(
        mqtt: SocketAddr,
        data: &Path,
        disk: &SharedDisk,
        clock: &Arc<dyn Clock>,
        rng: &Arc<dyn Rng>,
    ) -> Result<Self, Failure> {
        let start = |number| {
            let surroundings = Surroundings {
                disk: Arc::clone(disk),
                clock: Arc::clone(clock),
                rng: Arc::clone(rng),
                ..Surroundings::system()
            };
            let config = config(number, mqtt, data);
            let id = config.agent.id.clone();
            Agent::start(config, surroundings)
                .map_err(|e| Failure::work(format!("start the agent {id}: {}", with_causes(&e))))
        };
        (1..=AGENTS).map(start).collect::<Result<_, _>>().map(Agents)
    }

    /// Batches that wait in the outbox of the agent with the sensor `sensor`.
    pub(super) fn waiting(&self, sensor: &str) -> u64 {
        let number = (1..=AGENTS).position(|number| sensor_name(number) == sensor);
        number.and_then(|number| self.0.get(number)).map_or(0, |agent| agent.stats().backlog_batches)
    }

    /// What all of them did so far.
    pub(super) fn sent(&self) -> Sent {
        total(self.0.iter().map(Agent::stats))
    }

    /// Stops all agents at once: each sends what waits.
    pub(super) fn stop(self) -> Sent {
        let stats: Vec<AgentStats> = std::thread::scope(|scope| {
            let stopping: Vec<_> = self.0.into_iter().map(|agent| scope.spawn(|| agent.stop(GRACE).stats)).collect();
            stopping.into_iter().filter_map(|agent| agent.join().ok()).collect()
        });
        total(stats.into_iter())
    }
}

fn total(stats: impl Iterator<Item = AgentStats>) -> Sent {
    stats.fold(Sent::default(), |sent, agent| Sent {
        acknowledged: sent.acknowledged + agent.acked,
        resent: sent.resent + agent.resent,
        waiting: sent.waiting + agent.backlog_batches,
        refused: sent.refused + agent.refused,
        slowest: sent.slowest.max(agent.slowest_ack),
    })
}

fn sensor_name(number: u32) -> String {
    format!("bmp180-{number:02}")
}

fn config(number: u32, mqtt: SocketAddr, data: &Path) -> Config {
    let mut config = Config::default();
    config.agent.id = format!("demo-{number:02}");
    // The server's own clock, on the same machine.
    config.clock.trust = Trust::System;
    // Somebody watches.
    config.outbox.sync_interval = Period(Duration::from_secs(1));
    config.outbox.dir = data.join("agents").join(&config.agent.id);
    // Both versions are shown.
    let mqtt_version = if number.is_multiple_of(2) { MqttVersion::V5 } else { MqttVersion::V311 };
    config.servers = vec![ServerSection { mqtt_version, ..ServerSection::new(&format!("mqtt://{mqtt}")) }];
    config.sensors = vec![SensorSection {
        driver: "simulated-bmp180".into(),
        name: sensor_name(number),
        interval: Period(READING_EVERY),
        ..SensorSection::default()
    }];
    config
}
