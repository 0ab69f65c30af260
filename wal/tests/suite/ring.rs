//! What the log of an outbox does while nothing goes wrong (P7).

use std::sync::Arc;

use faults::SimDisk;
use model::NodeEpoch;
use wal::{Dropped, RingConfig, RingLog, WalError};

use crate::rig::{BLOCK, DIR, NODE, SEGMENT_BYTES, index_of, record, sim};

const BYTES_MAX: u64 = 4 * SEGMENT_BYTES;

fn open(disk: &SimDisk, epoch: u64) -> RingLog {
    let config = RingConfig::outbox(DIR, NODE, NodeEpoch(epoch), BYTES_MAX);
    let config = RingConfig { segment_size_bytes: SEGMENT_BYTES, ..config };
    let (ring, recovery) = RingLog::open(Arc::new(disk.clone()), config).unwrap();
    assert_eq!(recovery.losses, []);
    ring
}

fn indices(ring: &RingLog) -> Vec<usize> {
    let frames = ring.reader(0).map(|frame| frame.unwrap());
    frames.flat_map(|frame| frame.records().map(|record| index_of(record).unwrap()).collect::<Vec<_>>()).collect()
}

#[test]
fn only_what_is_synced_can_be_read() {
    let mut ring = open(&sim(), 1);
    ring.append(&record(0, 10)).unwrap();
    ring.append(&record(1, 10)).unwrap();
    assert_eq!(indices(&ring), []);
    assert_eq!(ring.sync().unwrap(), ring.appended());
    ring.append(&record(2, 10)).unwrap();
    assert_eq!(indices(&ring), [0, 1]);
    assert!(ring.durable() < ring.appended());
}

#[test]
fn a_kill_keeps_what_was_not_synced_and_a_close_keeps_all() {
    let disk = sim();
    let mut ring = open(&disk, 1);
    for index in 0..30 {
        ring.append(&record(index, 3000)).unwrap();
    }
    let disk = disk.kill();
    let mut ring = open(&disk, 2);
    assert!(indices(&ring).into_iter().eq(0..30));
    ring.append(&record(30, 3000)).unwrap();
    ring.close().unwrap();
    let disk = disk.power_cut(1);
    assert!(indices(&open(&disk, 3)).into_iter().eq(0..31));
}

#[test]
fn a_full_ring_drops_the_oldest_and_says_how_many() {
    let disk = sim();
    let mut ring = open(&disk, 1);
    let mut dropped: Vec<Dropped> = Vec::new();
    for index in 0..200 {
        let appended = ring.append(&record(index, 5000)).unwrap();
        dropped.extend(appended.dropped);
        assert!(ring.bytes_on_disk() <= BYTES_MAX, "{} bytes", ring.bytes_on_disk());
    }
    ring.sync().unwrap();
    let kept = indices(&ring);
    let gone: u64 = dropped.iter().map(|dropped| dropped.records).sum();
    assert!(kept.iter().copied().eq(gone as usize..200), "{gone} dropped, kept {kept:?}");
    assert!(kept.len() > 20, "the ring is used: {} kept", kept.len());
    assert!(dropped.is_sorted_by(|a, b| a.to <= b.from));
    drop(ring);
    assert_eq!(indices(&open(&disk, 2)), kept);
}

#[test]
fn what_was_truncated_is_not_counted_as_dropped() {
    let mut ring = open(&sim(), 1);
    let mut dropped = 0;
    let mut acked = 0;
    for index in 0..200 {
        let appended = ring.append(&record(index, 5000)).unwrap();
        dropped += appended.dropped.map_or(0, |dropped| dropped.records);
        if index == 15 {
            ring.sync().unwrap();
            ring.truncate_behind(appended.end).unwrap();
            acked = 16;
        }
    }
    ring.sync().unwrap();
    let kept = indices(&ring).into_iter().filter(|index| *index >= acked).count();
    assert_eq!(acked + dropped as usize + kept, 200);
}

#[test]
fn truncation_stops_at_what_is_durable() {
    let mut ring = open(&sim(), 1);
    for index in 0..20 {
        ring.append(&record(index, 5000)).unwrap();
    }
    ring.truncate_behind(u64::MAX).unwrap();
    ring.sync().unwrap();
    assert!(!indices(&ring).is_empty(), "the active segment stays");
    assert!(ring.first() > 0);
}

#[test]
fn each_length_up_to_the_longest_comes_back() {
    let disk = sim();
    let mut ring = open(&disk, 1);
    let max = ring.record_bytes_max();
    for length in [8, 4012, 4013, max - 1, max] {
        ring.append(&record(length, length)).unwrap();
    }
    ring.sync().unwrap();
    assert_eq!(indices(&ring), [8, 4012, 4013, max - 1, max]);
    let refused = ring.append(&vec![0; max + 1]).unwrap_err();
    assert!(matches!(refused, WalError::RecordTooLarge { .. }), "{refused}");
    assert_eq!(max as u64, SEGMENT_BYTES - 3 * BLOCK - 84);
}

#[test]
fn settings_that_cannot_hold_are_refused() {
    let config = RingConfig::outbox(DIR, NODE, NodeEpoch(1), 1 << 20);
    let refused = RingLog::open(Arc::new(sim()), config).unwrap_err();
    assert!(matches!(refused, WalError::Config(_)), "{refused}");
}
