//! After a failed write or sync nothing is acknowledged any more (P2).

use std::sync::Arc;

use faults::{FaultDisk, Operation};
use wal::{Outcome, RingConfig, RingLog, WalConfig, WalError};

use crate::rig::{BLOCK, DIR, NODE, Rig, SEGMENT_BYTES, config, index_of, record, segment_path, sim};

/// Fails the `n`-th `operation` on the first segment, and finds exactly the records before it acknowledged.
fn check(operation: Operation, n: u64) {
    let sim = sim();
    let (disk, faults) = FaultDisk::new(Arc::new(sim.clone()));
    let large = WalConfig { segment_size_bytes: 1 << 20, ..config(1) };
    let rig = Rig::open(Arc::new(disk), large.clone()).unwrap();
    faults.fail(operation, n, |path| path == segment_path(1));
    let mut acked = 0;
    for index in 0.. {
        rig.wal.append(record(index, 100), index).unwrap();
        match rig.outcomes.recv().unwrap() {
            Outcome::Durable(_) => acked += 1,
            Outcome::Failed { tokens, error } => {
                assert_eq!(tokens, [index]);
                assert!(matches!(error, WalError::Io { .. }), "{error}");
                break;
            }
            Outcome::Refused { error, .. } => panic!("{error} is no want of room"),
        }
    }
    assert_eq!(acked as u64, n - 1);
    let durable = rig.wal.durable();
    for index in 0..3 {
        let (token, error) = rig.wal.append(b"late".to_vec(), index).unwrap_err();
        assert!(token == index && matches!(error, WalError::Poisoned), "{error}");
    }
    assert!(rig.wal.is_poisoned());
    assert_eq!(rig.wal.durable(), durable);
    let Rig { wal, outcomes, .. } = rig;
    assert!(matches!(wal.close(), Err(WalError::Poisoned)));
    assert_eq!(outcomes.iter().count(), 0, "no outcome after the failure");

    let rig = Rig::open(Arc::new(sim.kill()), WalConfig { epoch: model::NodeEpoch(2), ..large }).unwrap();
    let found: Vec<usize> = rig.records().iter().map(|record| index_of(record).unwrap()).collect();
    assert!(found.iter().copied().eq(0..acked) || found.iter().copied().eq(0..=acked), "{found:?}");
    rig.append(b"serves again");
}

#[test]
fn the_nth_failed_sync_ends_all_acknowledgements() {
    for n in 1..=50 {
        check(Operation::Sync, n);
    }
}

#[test]
fn the_nth_failed_write_ends_all_acknowledgements() {
    for n in 1..=50 {
        check(Operation::Write, n);
    }
}

#[test]
fn records_that_a_failed_sync_left_in_the_page_cache_are_made_durable_before_they_are_served() {
    for seed in 0..20 {
        let disk = sim();
        let rig = Rig::on(&disk, 1);
        rig.append(b"a");
        disk.fail_sync_at(1);
        rig.wal.append(b"b".to_vec(), 0).unwrap();
        let failed = rig.outcomes.recv().unwrap();
        // The helper's sync may have been the one that failed; then this record was acknowledged.
        let _ = failed;
        drop(rig);
        let served = Rig::on(&disk.kill(), 2);
        let texts = served.texts();
        assert_eq!(texts, "a b");
        let after = disk.power_cut(seed);
        assert_eq!(Rig::on(&after, 3).texts(), texts, "seed {seed}");
    }
}

#[test]
fn a_sync_that_hangs_acknowledges_nothing_and_a_full_queue_says_so() {
    let (disk, faults) = FaultDisk::new(Arc::new(sim()));
    let rig = Rig::open(Arc::new(disk), WalConfig { queue_bytes_max: 10_000, ..config(1) }).unwrap();
    faults.hold_syncs_of(|path| path == segment_path(1));
    rig.wal.append(record(0, 100), 0).unwrap();
    faults.wait_for_held_sync();
    let mut waiting = 1;
    let refused = loop {
        match rig.wal.append(record(waiting, 100), waiting) {
            Ok(()) => waiting += 1,
            Err((_, error)) => break error,
        }
    };
    assert!(matches!(refused, WalError::Full { .. }), "{refused}");
    assert!(rig.outcomes.try_recv().is_err(), "nothing is known yet");
    assert!(!rig.wal.is_poisoned());
    faults.fail_held_syncs();
    let mut failed = Vec::new();
    while failed.len() < waiting {
        match rig.outcomes.recv().unwrap() {
            Outcome::Failed { tokens, .. } => failed.extend(tokens),
            Outcome::Durable(_) | Outcome::Refused { .. } => panic!("after a failed sync"),
        }
    }
    assert!(failed.into_iter().eq(0..waiting));
    assert!(matches!(rig.wal.append(vec![], 0), Err((0, WalError::Poisoned))));
}

#[test]
fn a_sync_that_hangs_and_then_succeeds_was_only_slow() {
    let (disk, faults) = FaultDisk::new(Arc::new(sim()));
    let rig = Rig::open(Arc::new(disk), config(1)).unwrap();
    faults.hold_syncs_of(|path| path == segment_path(1));
    rig.wal.append(b"a".to_vec(), 0).unwrap();
    faults.wait_for_held_sync();
    faults.release_syncs();
    assert!(matches!(rig.outcomes.recv().unwrap(), Outcome::Durable(_)));
    rig.append(b"b");
    assert_eq!(rig.texts(), "a b");
}

#[test]
fn a_sink_that_panics_poisons_the_log() {
    let (wal, _) = wal::Wal::open(Arc::new(sim()), config(1), |outcome: Outcome<std::sync::mpsc::Sender<()>>| {
        let Outcome::Durable(group) = outcome else { return };
        assert!(group.records[0].0 != b"bad", "planted");
    })
    .unwrap();
    let (sender, answered) = std::sync::mpsc::channel();
    wal.append(b"bad".to_vec(), sender).unwrap();
    assert!(answered.recv().is_err(), "the token is dropped, not kept for ever");
    let refused = loop {
        let (sender, answered) = std::sync::mpsc::channel();
        match wal.append(b"more".to_vec(), sender) {
            Ok(()) => assert!(answered.recv().is_err()),
            Err((_, error)) => break error,
        }
    };
    assert!(matches!(refused, WalError::Poisoned), "{refused}");
    assert!(matches!(wal.close(), Err(WalError::Poisoned)));
}

#[test]
fn an_outbox_syncs_nothing_after_a_failed_sync() {
    let sim = sim();
    let (disk, faults) = FaultDisk::new(Arc::new(sim.clone()));
    let config = |epoch| RingConfig {
        segment_size_bytes: SEGMENT_BYTES,
        ..RingConfig::outbox(DIR, NODE, model::NodeEpoch(epoch), 4 * SEGMENT_BYTES)
    };
    let (mut ring, _) = RingLog::open(Arc::new(disk), config(1)).unwrap();
    ring.append(b"a").unwrap();
    let durable = ring.sync().unwrap();
    ring.append(b"b").unwrap();
    faults.fail_sync(1);
    assert!(matches!(ring.sync(), Err(WalError::Io { .. })));
    assert!(matches!(ring.sync(), Err(WalError::Poisoned)));
    assert!(matches!(ring.append(b"c"), Err(WalError::Poisoned)));
    assert_eq!(ring.durable(), durable);
    assert_eq!(ring.reader(0).count(), 1);
    assert!(matches!(ring.close(), Err(WalError::Poisoned)));
    let (ring, recovery) = RingLog::open(Arc::new(sim.kill()), config(2)).unwrap();
    assert_eq!(ring.reader(0).count(), 2);
    assert_eq!((recovery.losses, recovery.first), (vec![], 0));
    assert!(recovery.end >= durable + 2 * BLOCK);
}
