//! What the tests share: a clock that they own, and outboxes on simulated disks.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use edge_agent::gap::GapReason;
use edge_agent::outbox::{Batch, Encoding, Outbox, OutboxConfig, OutboxError};
use faults::SimDisk;
use model::{Clock, SplitMix64, SystemClock};
use wal::disk::{SharedDisk, create_dir_all};

pub(crate) const DIR: &str = "/data/outbox";
pub(crate) const SEGMENT_BYTES: u64 = 64 << 10;
const START_US: i64 = 1_780_272_000_000_000;

/// Goes only when a test says so.
#[derive(Debug, Default)]
pub(crate) struct TestClock(AtomicI64);

impl TestClock {
    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_micros() as i64, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now_us(&self) -> i64 {
        START_US + self.0.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::SeqCst) as u64)
    }
}

/// The machine's clock, and what a test adds to it.
#[derive(Debug, Default)]
pub(crate) struct SkippingClock(SystemClock, TestClock);

impl SkippingClock {
    pub(crate) fn advance(&self, by: Duration) {
        self.1.advance(by);
    }
}

impl Clock for SkippingClock {
    fn now_us(&self) -> i64 {
        self.0.now_us()
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic() + self.1.monotonic()
    }
}

/// A disk with the outbox's parent, durably.
pub(crate) fn sim() -> SimDisk {
    let disk = SimDisk::new();
    create_dir_all(&disk, Path::new("/data")).unwrap();
    disk
}

pub(crate) fn config(bytes_max: u64) -> OutboxConfig {
    OutboxConfig { segment_bytes: SEGMENT_BYTES, in_flight: 64, ..OutboxConfig::new(DIR, "pi-7", bytes_max) }
}

pub(crate) fn open(
    disk: SharedDisk,
    clock: &Arc<TestClock>,
    seed: u64,
    config: OutboxConfig,
) -> Result<Outbox, OutboxError> {
    Outbox::open(disk, Arc::clone(clock) as Arc<dyn Clock>, &SplitMix64::new(seed), config)
}

/// A batch's body as a server sees it.
pub(crate) fn body(batch: &Batch) -> String {
    let bytes = match batch.encoding {
        Encoding::Plain => batch.body.clone(),
        Encoding::Zstd => zstd::bulk::decompress(&batch.body, 1 << 20).unwrap(),
    };
    String::from_utf8(bytes).unwrap()
}

/// A gap as a server reads it: first, last, readings, reason.
pub(crate) type SeenGap = (u64, u64, Option<u64>, String);

/// The gap lines of a body.
pub(crate) fn gaps(body: &str) -> Vec<SeenGap> {
    let lines = body.lines().filter_map(|line| line.strip_prefix("# eden gap "));
    lines
        .map(|line| {
            let value = |key: &str| line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
            let number = |key| value(key).map(|text| text.parse::<u64>().unwrap());
            let reason = value("reason").unwrap().to_owned();
            let words = [GapReason::OutboxFull, GapReason::UncleanStop, GapReason::Damaged].map(GapReason::word);
            assert!(words.contains(&&*reason), "{line}");
            assert!(number("time").unwrap() >= START_US as u64, "{line}");
            (number("first_seq").unwrap(), number("last_seq").unwrap(), number("readings"), reason)
        })
        .collect()
}
