//! Seeded scenarios of the whole system, run short by `cargo test` and long by `cargo xtask soak`.

mod kills;
mod read_your_writes;

pub use kills::{KillReport, kills};
pub use read_your_writes::read_your_writes;
