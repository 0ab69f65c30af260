//! The harness: starts the real `eden`, writes, queries, kills and restarts it, and knows what must be in it.
//!
//! ```no_run
//! use tests::{Eden, Oracle, Reading};
//!
//! let mut eden = Eden::start("warm-room");
//! let mut oracle = Oracle::default();
//! let reading = Reading::at("air", 1_780_272_000_000_000).tag("room", "kitchen").field("temperature", 21.5);
//! let outcome = eden.client().write(&[reading.clone()]);
//! oracle.record(&[reading], &outcome);
//! eden.kill();
//! eden.restart();
//! oracle.check("air", &eden.sql("SELECT * FROM air")).expect("acknowledged readings survive a kill");
//! ```
//!
//! Owns:     processes, folders, the oracle, seeded load, and the scenarios that tests and soak runs share.
//! Does not: link any room of Eden: everything goes through the binary, HTTP and the files on disk.
//!
//! A scenario that fails panics with its seed; while it panics, [`Eden`] keeps the data folder and prints where it is
//! and how the server's log ends.

pub mod agent;
mod binary;
pub mod cpu;
pub mod delta_log;
pub mod eden;
mod home;
pub mod http;
pub mod limits;
pub mod mqtt;
pub mod oracle;
pub mod proxy;
pub mod reading;
pub mod rng;
pub mod scenario;
pub mod wait;

pub use agent::Agent;
pub use binary::{Profile, agent_binary, cargo, eden_binary, program, workspace};
pub use eden::{Eden, Rows, terminate};
pub use http::{Client, Outcome};
pub use oracle::Oracle;
pub use proxy::{Fault, Proxy, Way};
pub use reading::{Field, Reading};
pub use rng::Rng;

/// Settings of a test run, from the environment: `EDEN_SEEDS`, `EDEN_SEED`, `EDEN_SECONDS` and `EDEN_HOURS`.
pub mod settings {
    /// How many rounds a seeded scenario runs: `EDEN_SEEDS`, or the scenario's share of CI.
    pub fn rounds(in_ci: u64) -> u64 {
        number("EDEN_SEEDS").unwrap_or(in_ci)
    }

    /// The seed to start from: `EDEN_SEED`, or one that is the same each time.
    pub fn seed() -> u64 {
        number("EDEN_SEED").unwrap_or(1)
    }

    /// How long a soak run searches: `EDEN_SECONDS`, or the soak's own time.
    pub fn seconds(in_soak: std::time::Duration) -> std::time::Duration {
        number("EDEN_SECONDS").map_or(in_soak, std::time::Duration::from_secs)
    }

    /// How many hours a soak run simulates: `EDEN_HOURS`, or the soak's own.
    pub fn hours(in_soak: u64) -> u64 {
        number("EDEN_HOURS").unwrap_or(in_soak)
    }

    fn number(name: &str) -> Option<u64> {
        let text = std::env::var_os(name)?;
        let number = text.to_str().and_then(|text| text.parse().ok());
        Some(number.unwrap_or_else(|| panic!("{name} is not a whole number: {}", text.display())))
    }
}
