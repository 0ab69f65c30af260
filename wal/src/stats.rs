//! What a log counts about itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::catalog::Catalog;

/// Figures of an open log. Counts begin at 0 when it is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalStats {
    /// Bytes of all segment files, the prepared part of the active one included.
    pub bytes_on_disk: u64,
    /// Segment files that hold frames or may get the next one.
    pub segments: u64,
    /// Offset up to which frames were handed to the disk.
    pub appended: u64,
    /// Offset up to which frames are durable.
    pub durable: u64,
    /// Syncs that returned, well or not.
    pub syncs: u64,
    /// Data frames written.
    pub frames: u64,
    /// Records made durable.
    pub records: u64,
    /// Bytes written in frames, padding included.
    pub bytes_written: u64,
    /// Bytes of records that wait to be written.
    pub queue_bytes: u64,
    /// Time spent in all syncs.
    pub sync_latency_sum: Duration,
    /// The longest sync.
    pub sync_latency_max: Duration,
}

#[derive(Debug, Default)]
pub(crate) struct Meters {
    syncs: AtomicU64,
    frames: AtomicU64,
    records: AtomicU64,
    bytes_written: AtomicU64,
    appended: AtomicU64,
    sync_ns_sum: AtomicU64,
    sync_ns_max: AtomicU64,
}

impl Meters {
    pub(crate) fn appended(&self, offset: u64) {
        self.appended.store(offset, Ordering::Relaxed);
    }

    pub(crate) fn frame(&self, bytes: u64) {
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.bytes_written.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn records(&self, records: usize) {
        self.records.fetch_add(records as u64, Ordering::Relaxed);
    }

    pub(crate) fn sync(&self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.sync_ns_sum.fetch_add(ns, Ordering::Relaxed);
        self.sync_ns_max.fetch_max(ns, Ordering::Relaxed);
    }

    pub(crate) fn read(&self, catalog: &Catalog, queue_bytes: usize) -> WalStats {
        let (segments, bytes_on_disk) = catalog.size();
        WalStats {
            bytes_on_disk,
            segments,
            appended: self.appended.load(Ordering::Relaxed),
            durable: catalog.durable(),
            syncs: self.syncs.load(Ordering::Relaxed),
            frames: self.frames.load(Ordering::Relaxed),
            records: self.records.load(Ordering::Relaxed),
            bytes_written: self.bytes_written.load(Ordering::Relaxed),
            queue_bytes: queue_bytes as u64,
            sync_latency_sum: Duration::from_nanos(self.sync_ns_sum.load(Ordering::Relaxed)),
            sync_latency_max: Duration::from_nanos(self.sync_ns_max.load(Ordering::Relaxed)),
        }
    }
}
