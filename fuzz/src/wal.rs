//! A log's segments: recovery of an outbox's, a look at a server's.

use std::path::Path;
use std::sync::Arc;

use faults::SimDisk;
use model::{NodeEpoch, NodeId};
use wal::disk::{SharedDisk, create_dir_all};
use wal::{LogKind, RingConfig, RingLog, inspect};

use crate::memory::within;
use crate::segments::{expand, plant};

/// Where logs of seeds are.
pub const DIR: &str = "/data/wal";
/// Whose.
pub const NODE: NodeId = NodeId(0xfeed_0000_0000_0001);
/// Of what size.
pub const SEGMENT_BYTES: u64 = 16 * 4096;

/// What is opened takes a record more, and opens again with all of it.
pub fn check(bytes: &[u8]) {
    let segments = expand(bytes);
    let disk = SimDisk::new();
    create_dir_all(&disk, Path::new(DIR)).expect("a simulated disk takes folders");
    let files = plant(&disk, Path::new(DIR), &segments);
    // What recovery writes stays in the simulated disk, in memory as durable and as not yet: so several times the files.
    let bound = (4 << 20) + 16 * files;

    let shared: SharedDisk = Arc::new(disk.clone());
    let mut records = 0;
    let mut count = |frame: &wal::Frame| records += frame.records().count() as u64;
    if let Ok(seen) = within(bound, || inspect(&shared, Path::new(DIR), LogKind::Server, None, 0, &mut count)) {
        assert_eq!(seen.records, records);
    }
    let frames = within(bound, || {
        let (mut ring, _) = open(&disk, 3)?;
        let frames = ring.reader(0).map(|frame| frame.map_or(0, |frame| frame.records().count())).sum::<usize>();
        let appended = ring.append(b"behind").and_then(|_| ring.close());
        appended.expect("an open log takes a record");
        Some(frames)
    });
    if let Some(frames) = frames {
        let (ring, _) = open(&disk, 4).expect("what was opened opens again");
        let again: usize = ring.reader(0).map(|frame| frame.map_or(0, |frame| frame.records().count())).sum();
        assert_eq!(again, frames + 1);
    }
}

/// The log in life `epoch`.
pub fn open(disk: &SimDisk, epoch: u64) -> Option<(RingLog, wal::Recovery)> {
    let config = RingConfig::outbox(DIR, NODE, NodeEpoch(epoch), 1 << 30);
    RingLog::open(Arc::new(disk.clone()), RingConfig { segment_size_bytes: SEGMENT_BYTES, ..config }).ok()
}
