//! Seeded scenarios of the whole system, run short by `cargo test` and long by `cargo xtask soak`.

mod agent_kills;
mod compare;
mod kills;
mod mqtt_kills;
mod overload;
mod read_your_writes;
mod values;

pub use agent_kills::{AgentKillReport, agent_kills};
pub use kills::{KillReport, kills};
pub use mqtt_kills::{MqttKillReport, mqtt_kills};
pub use overload::{Over, Overload, OverloadReport, overload};
pub use read_your_writes::read_your_writes;
