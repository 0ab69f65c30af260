//! Disks that lose power, fail, fill up or lie, for tests of everything that is written through [`wal::disk::Disk`].
//!
//! Owns:     [`SimDisk`], a disk in memory that forgets what was not synced; [`FaultDisk`], which makes any disk fail or
//!           plants a known bug; [`MortalDisk`], through which one process of several dies or sleeps; [`mutate`], damage to the bytes of a file.
//! Does not: know what a correct answer is: that is each test's oracle.
//!
//! ```
//! use std::path::Path;
//!
//! use faults::SimDisk;
//! use wal::disk::{Disk, read_file};
//!
//! let disk = SimDisk::new();
//! let file = disk.create_new(Path::new("/kept"))?;
//! file.write_all_at(b"21.5", 0)?;
//! file.sync_data()?;
//! disk.sync_dir(Path::new("/"))?;
//! disk.create_new(Path::new("/perhaps"))?;
//!
//! let after = disk.power_cut(42);
//! assert_eq!(read_file(&after, Path::new("/kept"))?, b"21.5");
//! assert!(file.write_all_at(b"x", 0).is_err(), "the power is off for whoever ran before");
//! # Ok::<(), std::io::Error>(())
//! ```

mod fault;
mod mortal;
mod mutation;
mod sim;

pub use fault::{FaultDisk, Faults, Operation, PlantedBug};
pub use mortal::{Last, Life, MortalDisk, NodeBug};
pub use mutation::{Mutation, mutate, mutate_from};
pub use sim::SimDisk;

/// How many seeds a test runs: `default`, or the number in `EDEN_SEEDS`.
///
/// # Panics
/// If `EDEN_SEEDS` is no number.
#[expect(clippy::disallowed_methods, reason = "a knob of test runs, not configuration")]
pub fn seeds(default: u64) -> std::ops::Range<u64> {
    0..std::env::var("EDEN_SEEDS").map_or(default, |text| text.parse().expect("EDEN_SEEDS is a number"))
}

/// How many hours a test simulates: `default`, or the number in `EDEN_HOURS`.
///
/// # Panics
/// If `EDEN_HOURS` is no number.
#[expect(clippy::disallowed_methods, reason = "a knob of test runs, not configuration")]
pub fn hours(default: u64) -> u64 {
    std::env::var("EDEN_HOURS").map_or(default, |text| text.parse().expect("EDEN_HOURS is a number"))
}
