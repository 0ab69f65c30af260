//! The edge: sensors, an outbox, and an uplink; `eden-agent` is these with a command line.
//!
//! Owns:     drivers and their simulated twins, the durable queue of batches, and how they reach a server.
//! Does not: know Arrow, SQL or the server's insides; set up logging, take signals or hold globals: [`Agent`] can run
//!           many times in one process.
//!
//! ```
//! use edge_agent::InventedPlace;
//!
//! let place = InventedPlace::new(7);
//! let reading = place.read(1_780_272_000_000_000);
//! assert!((300.0..=1100.0).contains(&(f64::from(reading.pressure.0) / 100.0)), "hPa");
//! ```

pub mod agent;
mod board;
mod causes;
pub mod cli;
mod collector;
mod command;
pub mod config;
#[cfg_attr(not(feature = "http"), expect(dead_code, reason = "parts of it are for HTTP alone"))]
mod exchange;
pub mod gap;
pub mod log_lines;
pub mod outbox;
pub mod scan;
pub mod sensor;
pub mod timepiece;
mod uplink;
pub mod wall;
pub mod wear;

pub use agent::{Agent, AgentError, AgentStats, Stopped, Surroundings};
pub use causes::with_causes;
pub use config::Config;
pub use sensor::place::{Bmp180Reading, DeciCelsius, InventedPlace, Pascal};
