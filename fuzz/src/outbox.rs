//! An agent's outbox: its records, in a log whose checksums hold.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use edge_agent::outbox::{Outbox, OutboxConfig, OutboxError, peek};
use faults::SimDisk;
use model::{Clock, SplitMix64};
use wal::disk::{SharedDisk, create_dir_all, read_file};

use crate::memory::within;
use crate::segments::{expand, plant};

const DIR: &str = "/data/outbox";
const IDENTITY: &str = "/data/outbox/identity.json";
const SEGMENT_BYTES: u64 = 64 << 10;

thread_local! {
    /// The identity of the outbox of the seeds.
    static IDENTITY_BYTES: Vec<u8> = {
        let disk = sim();
        open(&disk).and_then(Outbox::close).expect("an empty outbox opens");
        read_file(&disk, Path::new(IDENTITY)).expect("an outbox has an identity")
    };
}

/// It stands still: nothing that an outbox does depends on it but the times of batches.
#[derive(Debug)]
struct Still;

impl Clock for Still {
    fn now_us(&self) -> i64 {
        1_780_272_000_000_000
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(1)
    }
}

/// A disk with the folder of the outbox.
pub fn sim() -> SimDisk {
    let disk = SimDisk::new();
    create_dir_all(&disk, &log_dir()).expect("a simulated disk takes folders");
    disk
}

/// Where its segments are.
pub fn log_dir() -> PathBuf {
    Path::new(DIR).join("log")
}

/// The outbox, always of the same agent epoch.
///
/// # Errors
/// If it does not open.
pub fn open(disk: &SimDisk) -> Result<Outbox, OutboxError> {
    let config = OutboxConfig { segment_bytes: SEGMENT_BYTES, ..OutboxConfig::new(DIR, "a", 1 << 20) };
    Outbox::open(Arc::new(disk.clone()), Arc::new(Still), &SplitMix64::new(1), config)
}

/// A look changes nothing; what is opened hands out its batches in order, forgets them, and opens again empty.
pub fn check(bytes: &[u8]) {
    let segments = expand(bytes);
    let disk = sim();
    IDENTITY_BYTES.with(|identity| disk.plant(Path::new(IDENTITY), identity)).expect("a simulated disk takes files");
    let files = plant(&disk, &log_dir(), &segments);
    let bound = (8 << 20) + 32 * files;

    let shared: SharedDisk = Arc::new(disk.clone());
    drop(within(bound, || peek(&shared, Path::new(DIR))));
    let drained = within(bound, || {
        let mut outbox = open(&disk).ok()?;
        let mut last = None;
        while let Some(batch) = outbox.next_batch().expect("what was recovered is read") {
            let key = batch.key();
            assert!(last != Some(key), "the same batch twice: {key:?}");
            last = Some(key);
            outbox.ack(key);
        }
        outbox.close().expect("a simulated disk takes what is written");
        Some(())
    });
    if drained.is_some() {
        let mut outbox = open(&disk).expect("what was opened opens again");
        while let Some(batch) = outbox.next_batch().expect("what was recovered is read") {
            outbox.ack(batch.key());
        }
    }
}
