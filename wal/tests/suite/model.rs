//! Both logs against a list in memory: random operations, crashes at random operations, and after each crash
//! acked ⊆ recovered ⊆ attempted, in order, with the same bytes (P1, P2).
//!
//! A seed fixes the operations, the faults and what a power cut leaves. A server's log has two threads beside the
//! test's: where in their work a cut falls is the scheduler's, so one of its seeds tells the kind of run, not the run.

use std::collections::BTreeMap;
use std::sync::Arc;

use faults::{FaultDisk, PlantedBug, SimDisk, seeds};
use model::{NodeEpoch, Rng, SplitMix64};
use wal::disk::SharedDisk;
use wal::{Certainty, FrameReader, Loss, Outcome, RingConfig, RingLog};

use crate::rig::{DIR, NODE, Rig, SEGMENT_BYTES, config, index_of, record, sim};

/// What the log must and may hold.
#[derive(Default)]
struct Oracle {
    /// Records handed over so far: the number of the next one.
    attempted: usize,
    /// Records that must be found, with the offset behind their frame.
    durable: BTreeMap<usize, u64>,
    /// Everything below may be gone because it was truncated or dropped.
    forgotten: u64,
    /// Records that were not found once and must never be found again.
    lost: Vec<bool>,
    /// Whether the last life ended in an append, which may have dropped a segment and not lived to say so.
    was_dropping: bool,
    /// Counter and offset that no later frame may go back to.
    last: (u64, u64),
}

impl Oracle {
    fn next(&mut self, bytes: usize) -> Vec<u8> {
        self.attempted += 1;
        record(self.attempted - 1, bytes)
    }

    /// Compares the log with what must and may be there; from now on what is there must stay.
    fn check(&mut self, reader: FrameReader, losses: &[Loss]) -> Result<(), String> {
        if let Some(loss) = losses.iter().find(|loss| loss.certainty == Certainty::Certain) {
            return Err(format!("no byte was damaged, yet {loss}"));
        }
        let mut found = BTreeMap::new();
        let mut last = None;
        for frame in reader {
            let frame = frame.map_err(|e| format!("what was just recovered cannot be read: {e}"))?;
            let here = (frame.position.counter, frame.position.offset);
            if last.is_some_and(|last| last >= here) {
                return Err(format!("{here:?} behind {last:?}"));
            }
            last = Some(here);
            self.last = self.last.max(here);
            for record in frame.records() {
                let index = index_of(record).filter(|index| *index < self.attempted);
                let index = index.ok_or("a record was invented")?;
                if found.last_key_value().is_some_and(|(last, _)| *last >= index) {
                    return Err(format!("record {index} out of order"));
                }
                if self.lost.get(index).is_some_and(|lost| *lost) {
                    return Err(format!("record {index} is back from the dead"));
                }
                found.insert(index, frame.end);
            }
        }
        for (index, end) in &self.durable {
            if found.get(index).is_none_or(|at| at != end) && *end > self.forgotten {
                return Err(format!("record {index} was durable up to {end} and is gone"));
            }
        }
        self.lost = (0..self.attempted).map(|index| !found.contains_key(&index)).collect();
        self.durable = found;
        Ok(())
    }
}

/// One end of a life.
fn end_life(disk: &SimDisk, rng: &SplitMix64) -> SimDisk {
    if disk.is_on() && rng.below(3) == 0 { disk.kill() } else { disk.power_cut(rng.next_u64()) }
}

fn behind(disk: &SimDisk, bug: Option<PlantedBug>) -> SharedDisk {
    let Some(bug) = bug else { return Arc::new(disk.clone()) };
    let (disk, faults) = FaultDisk::new(Arc::new(disk.clone()));
    faults.plant(bug);
    Arc::new(disk)
}

fn check_server(seed: u64, bug: Option<PlantedBug>) -> Result<(), String> {
    let rng = SplitMix64::new(seed);
    let mut disk = sim();
    let mut oracle = Oracle::default();
    for epoch in 1..=6 {
        if rng.below(2) == 0 {
            disk.cut_after(1 + rng.below(120));
        }
        if rng.below(4) == 0 {
            disk.fail_sync_at(1 + rng.below(20));
        }
        let Ok(rig) = Rig::open(behind(&disk, bug), config(epoch)) else {
            // Power went, or a sync failed, while the log was opened. That must be as safe as at any other time.
            disk = end_life(&disk, &rng);
            continue;
        };
        let checked = oracle.check(rig.wal.reader(0), &rig.recovery.losses);
        if !disk.is_on() {
            // The helper ran into the cut while the log was read: nothing to compare.
            disk = end_life(&disk, &rng);
            continue;
        }
        checked?;
        if rig.recovery.counter <= oracle.last.0 || rig.recovery.end <= oracle.last.1 {
            return Err(format!("{:?} goes back behind {:?}", rig.recovery, oracle.last));
        }
        serve(&rig, &mut oracle, &rng)?;
        if disk.is_on() && rng.below(4) == 0 {
            let Rig { wal, outcomes, .. } = rig;
            let closed = wal.close();
            take(&mut oracle, outcomes.iter(), closed.is_ok())?;
        } else {
            disk = end_life(&disk, &rng);
            let Rig { wal, outcomes, .. } = rig;
            drop(wal);
            take(&mut oracle, outcomes.iter(), false)?;
        }
    }
    let rig = Rig::open(behind(&disk.kill(), bug), config(9)).map_err(|e| e.to_string())?;
    oracle.check(rig.wal.reader(0), &rig.recovery.losses)
}

/// Appends, waits and truncates at random until an outcome is a failure or there was enough.
fn serve(rig: &Rig, oracle: &mut Oracle, rng: &SplitMix64) -> Result<(), String> {
    let mut waiting = 0;
    for _ in 0..rng.below(25) {
        for _ in 0..1 + rng.below(4) {
            let bytes = if rng.below(8) == 0 { rng.below(30_000) } else { rng.below(3000) };
            let index = oracle.attempted;
            if rig.wal.append(oracle.next(bytes as usize), index).is_err() {
                return Ok(());
            }
            waiting += 1;
        }
        while waiting > 0 && rng.below(3) > 0 {
            let outcome = rig.outcomes.recv().map_err(|_| "an outcome is missing")?;
            let Outcome::Durable(group) = &outcome else { return Ok(()) };
            waiting -= group.records.len();
            take(oracle, std::iter::once(outcome), false)?;
        }
        if rng.below(6) == 0 && rig.wal.durable() > 0 {
            // Failing is fine, for what it removed and for what it did not.
            oracle.forgotten = oracle.forgotten.max(rng.below(rig.wal.durable()));
            let _ = rig.wal.truncate_behind(oracle.forgotten);
        }
    }
    Ok(())
}

/// Every acknowledgement makes its records ones that must be found.
fn take(oracle: &mut Oracle, outcomes: impl Iterator<Item = Outcome<usize>>, all_is_well: bool) -> Result<(), String> {
    for outcome in outcomes {
        match outcome {
            Outcome::Durable(group) => {
                for (record, index) in group.records {
                    if index_of(&record) != Some(index) {
                        return Err(format!("the outcome of record {index} carries other bytes"));
                    }
                    oracle.durable.insert(index, group.end);
                }
            }
            Outcome::Failed { error, .. } | Outcome::Refused { error, .. } if all_is_well => {
                return Err(format!("closed well, and yet {error}"));
            }
            Outcome::Failed { .. } | Outcome::Refused { .. } => {}
        }
    }
    Ok(())
}

fn check_ring(seed: u64, bug: Option<PlantedBug>) -> Result<(), String> {
    let rng = SplitMix64::new(seed);
    let mut disk = sim();
    let mut oracle = Oracle::default();
    for epoch in 1..=6 {
        if rng.below(2) == 0 {
            disk.cut_after(1 + rng.below(120));
        }
        if rng.below(4) == 0 {
            disk.fail_sync_at(1 + rng.below(20));
        }
        if let Ok((ring, recovery)) = RingLog::open(behind(&disk, bug), ring_config(epoch)) {
            if std::mem::take(&mut oracle.was_dropping) {
                oracle.forgotten = oracle.forgotten.max(recovery.first);
            }
            oracle.check(ring.reader(0), &recovery.losses)?;
            if drive(ring, &mut oracle, &rng)? == End::Closed {
                continue;
            }
        }
        disk = end_life(&disk, &rng);
    }
    let (ring, recovery) = RingLog::open(behind(&disk.kill(), bug), ring_config(9)).map_err(|e| e.to_string())?;
    if oracle.was_dropping {
        oracle.forgotten = oracle.forgotten.max(recovery.first);
    }
    oracle.check(ring.reader(0), &recovery.losses)
}

fn ring_config(epoch: u64) -> RingConfig {
    let config = RingConfig::outbox(DIR, NODE, NodeEpoch(epoch), 5 * SEGMENT_BYTES);
    RingConfig { segment_size_bytes: SEGMENT_BYTES, ..config }
}

#[derive(PartialEq, Eq)]
enum End {
    Closed,
    Crashes,
}

fn drive(mut ring: RingLog, oracle: &mut Oracle, rng: &SplitMix64) -> Result<End, String> {
    let mut unsynced = BTreeMap::new();
    for _ in 0..rng.below(60) {
        match rng.below(8) {
            0..6 => {
                let bytes = if rng.below(8) == 0 { rng.below(30_000) } else { rng.below(6000) };
                let index = oracle.attempted;
                let before = ring.first();
                let Ok(appended) = ring.append(&oracle.next(bytes as usize)) else {
                    let dropped = ring.take_dropped().map_or(0, |dropped| dropped.to);
                    oracle.forgotten = oracle.forgotten.max(dropped);
                    oracle.was_dropping = true;
                    return Ok(End::Crashes);
                };
                unsynced.insert(index, appended.end);
                let counted = oracle.durable.values().filter(|end| (before + 1..=ring.first()).contains(*end)).count();
                if let Some(dropped) = appended.dropped {
                    oracle.forgotten = oracle.forgotten.max(dropped.to);
                }
                // Rotation syncs, and what was dropped must have been counted.
                settle(oracle, &mut unsynced, ring.durable());
                let dropped = appended.dropped.map_or(0, |dropped| dropped.records as usize);
                if dropped > counted {
                    return Err(format!("{dropped} records dropped where there were {counted}"));
                }
                if ring.bytes_on_disk() > 5 * SEGMENT_BYTES {
                    return Err(format!("{} bytes on disk", ring.bytes_on_disk()));
                }
            }
            6 => {
                let Ok(durable) = ring.sync() else { return Ok(End::Crashes) };
                settle(oracle, &mut unsynced, durable);
            }
            _ => {
                oracle.forgotten = oracle.forgotten.max(rng.below(ring.durable() + 1));
                let _ = ring.truncate_behind(oracle.forgotten);
            }
        }
    }
    if rng.below(3) == 0 && ring.close().is_ok() {
        settle(oracle, &mut unsynced, u64::MAX);
        return Ok(End::Closed);
    }
    Ok(End::Crashes)
}

/// What ends at or below `durable` must be found from now on.
fn settle(oracle: &mut Oracle, unsynced: &mut BTreeMap<usize, u64>, durable: u64) {
    unsynced.retain(|index, end| {
        if *end <= durable {
            oracle.durable.insert(*index, *end);
        }
        *end > durable
    });
}

#[test]
fn a_server_keeps_what_it_acknowledged_and_invents_nothing() {
    for seed in seeds(200) {
        check_server(seed, None).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
    }
}

#[test]
fn an_outbox_keeps_what_it_synced_and_invents_nothing() {
    for seed in seeds(200) {
        check_ring(seed, None).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
    }
}

#[test]
fn a_cut_at_any_operation_of_a_recovery_is_safe() {
    let crashed = |seed| {
        let disk = sim();
        let rig = Rig::on(&disk, 1);
        let mut oracle = Oracle::default();
        for _ in 0..10 {
            let record = oracle.next(7000);
            let index = oracle.attempted - 1;
            oracle.durable.insert(index, rig.append(&record));
        }
        disk.cut_after(2);
        let index = oracle.attempted;
        let _ = rig.wal.append(oracle.next(20_000), index);
        drop(rig);
        (disk.power_cut(seed), oracle)
    };
    for seed in 0..8 {
        for op in 1.. {
            let (disk, mut oracle) = crashed(seed);
            disk.cut_after(op);
            let opened = Rig::open(Arc::new(disk.clone()), config(2)).map(drop);
            let reached = !disk.is_on();
            let disk = disk.power_cut(seed * 1000 + op);
            let rig = Rig::on(&disk, 3);
            let checked = oracle.check(rig.wal.reader(0), &rig.recovery.losses);
            checked.unwrap_or_else(|wrong| panic!("seed {seed}, cut at {op}: {wrong}"));
            if !reached {
                assert!(opened.is_ok());
                break;
            }
        }
    }
}

/// Whether any of 200 seeds notices the bug.
fn is_caught(bug: PlantedBug, check: fn(u64, Option<PlantedBug>) -> Result<(), String>) -> bool {
    (0..200).any(|seed| check(seed, Some(bug)).is_err())
}

#[test]
fn an_acknowledgement_before_the_sync_is_noticed() {
    assert!(is_caught(PlantedBug::AckBeforeSync, check_server));
    assert!(is_caught(PlantedBug::AckBeforeSync, check_ring));
}

#[test]
fn a_checksum_that_is_not_looked_at_is_noticed() {
    assert!(is_caught(PlantedBug::SkipCrc, check_server));
    assert!(is_caught(PlantedBug::SkipCrc, check_ring));
}

#[test]
fn a_new_name_that_is_not_synced_is_noticed() {
    assert!(is_caught(PlantedBug::ForgetDirectorySync, check_server));
    assert!(is_caught(PlantedBug::ForgetDirectorySync, check_ring));
}
