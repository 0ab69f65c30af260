//! The edge: sensors, and their simulated twins that let everything run on a laptop.
//!
//! Owns:     drivers and twins. The outbox and the agent's binary come with the agent's issue.
//! Does not: know Arrow, SQL or the server.
//!
//! ```
//! use edge_agent::Bmp180Twin;
//!
//! let twin = Bmp180Twin::new(7);
//! let reading = twin.read(1_780_272_000_000_000);
//! assert!((300.0..=1100.0).contains(&(f64::from(reading.pressure.0) / 100.0)), "hPa");
//! ```

pub mod bmp180;

pub use bmp180::{Bmp180Reading, Bmp180Twin, DeciCelsius, Pascal};
