//! A log of objects that other lives take over: what stands is there, what is sealed stays sealed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, channel};

use faults::{FaultDisk, Faults, Last, MortalDisk, Operation, SimDisk, mutate};
use model::{NodeEpoch, Rng, SplitMix64, SystemClock};
use wal::disk::{CommonDisk, Disk, SharedDisk, create_dir_all, read_file};
use wal::{Certainty, LossReason, ObjectLog, ObjectLogConfig, Outcome, Recovery, WalError};

use crate::rig::{BLOCK, DIR, NODE};

struct Life {
    log: ObjectLog<usize>,
    recovery: Recovery,
    outcomes: Receiver<Outcome<usize>>,
}

fn sim() -> SimDisk {
    let disk = SimDisk::new();
    create_dir_all(&disk, Path::new("/data")).unwrap();
    disk
}

fn try_open(disk: &SharedDisk, epoch: u64) -> Result<Life, WalError> {
    let (sender, outcomes) = channel();
    let disk: SharedDisk = Arc::new(CommonDisk::new(Arc::clone(disk), PathBuf::from("/data"), format!("life-{epoch}")));
    let config = ObjectLogConfig {
        dir: DIR.into(),
        node: NODE,
        epoch: NodeEpoch(epoch),
        counter: Arc::new(AtomicU64::new(0)),
        clock: Arc::new(SystemClock::new()),
    };
    let (log, recovery) = ObjectLog::open(disk, config, move |outcome| drop(sender.send(outcome)))?;
    Ok(Life { log, recovery, outcomes })
}

fn open(disk: &SimDisk, epoch: u64) -> Life {
    let disk: SharedDisk = Arc::new(disk.clone());
    try_open(&disk, epoch).unwrap()
}

impl Life {
    fn append(&self, text: &str) -> Result<u64, WalError> {
        self.log.append(text.as_bytes().to_vec(), 0).map_err(|(_, error)| error)?;
        match self.outcomes.recv().unwrap() {
            Outcome::Durable(group) => Ok(group.end),
            Outcome::Failed { error, .. } | Outcome::Refused { error, .. } => Err(error),
        }
    }

    fn texts(&self) -> String {
        let frames = self.log.reader(0).map(|frame| frame.unwrap());
        let texts = frames.map(|frame| {
            let records: Vec<_> = frame.records().map(|r| String::from_utf8_lossy(r).into_owned()).collect();
            records.join("+")
        });
        texts.collect::<Vec<_>>().join(" ")
    }
}

fn object(epoch: u64, offset: u64) -> PathBuf {
    Path::new(DIR).join(format!("{epoch:020}/{offset:020}"))
}

#[test]
fn a_later_life_reads_what_all_earlier_ones_left_and_goes_on_behind_them() {
    let disk = sim();
    let first = open(&disk, 1);
    assert!(first.recovery.clean && first.recovery.end == 0);
    assert_eq!(first.append("a").unwrap(), BLOCK);
    drop(first);
    // One that writes nothing is sealed as well.
    drop(open(&disk, 2));
    let third = open(&disk, 3);
    assert_eq!((third.recovery.end, third.texts()), (3 * BLOCK, "a".into()));
    third.append("b").unwrap();
    third.log.close().unwrap();
    // And one that never came to open its log.
    let fifth = open(&disk, 5);
    assert_eq!((fifth.recovery.end, fifth.texts(), fifth.recovery.losses), (6 * BLOCK, "a b".into(), vec![]));
}

#[test]
fn an_earlier_life_acknowledges_nothing_once_a_later_one_has_begun() {
    for writes_before in [0, 1, 3] {
        let disk = sim();
        let zombie = open(&disk, 1);
        for n in 0..writes_before {
            zombie.append(&n.to_string()).unwrap();
        }
        let later = open(&disk, 2);
        assert!(matches!(zombie.append("late"), Err(WalError::Fenced { .. })), "{writes_before}");
        assert!(matches!(zombie.append("later"), Err(WalError::Fenced { .. })), "{writes_before}");
        assert!(zombie.log.is_poisoned());
        later.append("b").unwrap();
        drop(later);
        assert_eq!(open(&disk, 3).texts().split(' ').count(), writes_before + 1);
        // The seals stay when all else is gone: also one that slept for long meets one.
        let last = open(&disk, 4);
        last.log.truncate_behind(u64::MAX).unwrap();
        assert_eq!(last.texts(), "");
        let disk: SharedDisk = Arc::new(disk.clone());
        assert!(matches!(try_open(&disk, 1).err(), Some(WalError::Fenced { .. })));
    }
}

#[test]
fn what_was_truncated_is_no_loss_whichever_deletions_a_power_cut_takes_back() {
    for seed in faults::seeds(100) {
        let rng = SplitMix64::new(seed);
        let mut disk = sim();
        let mut next = 0;
        let mut first = 0;
        for epoch in 1..6 {
            let life = open(&disk, epoch);
            assert_eq!(life.recovery.losses, [], "seed {seed}, life {epoch}");
            let expected: Vec<String> = (first..next).map(|n: u64| n.to_string()).collect();
            assert!(life.texts().ends_with(&expected.join(" ")), "seed {seed}: {} of {expected:?}", life.texts());
            let mut ends = Vec::new();
            for _ in 0..rng.below(6) {
                ends.push((next, life.append(&next.to_string()).unwrap()));
                next += 1;
            }
            if let Some((n, end)) = ends.get(rng.below(6) as usize) {
                life.log.truncate_behind(*end).unwrap();
                first = n + 1;
            }
            drop(life);
            disk = disk.power_cut(rng.next_u64());
        }
    }
}

/// It has flushed what it had, and does not know yet that it is over.
#[test]
fn what_an_earlier_life_truncates_while_a_later_one_reads_is_no_loss() {
    let disk = sim();
    let zombie = open(&disk, 1);
    for text in ["a", "b", "c"] {
        zombie.append(text).unwrap();
    }
    let later = open(&disk, 2);
    zombie.log.truncate_behind(2 * BLOCK).unwrap();
    assert_eq!(later.texts(), "c");
    disk.remove_file(&object(1, 2 * BLOCK)).unwrap();
    assert!(later.log.reader(0).any(|frame| frame.is_err()), "what nobody has truncated is missed");
}

/// It may die between a name and its sync: whoever builds on the name makes it durable.
#[test]
fn what_a_dying_life_left_unsynced_is_not_lost_from_under_a_later_one() {
    for seed in faults::seeds(20) {
        for dies_after in 1..=5 {
            let sim = sim();
            let (mortal, process) = MortalDisk::new(Arc::new(sim.clone()));
            let mortal: SharedDisk = Arc::new(mortal);
            let first = try_open(&mortal, 1).unwrap();
            first.append("a").unwrap();
            process.die_at(dies_after, Last::Lost);
            assert!(first.append("b").is_err());
            open(&sim, 2).append("c").unwrap();
            let last = open(&sim.power_cut(seed), 3);
            let label = format!("seed {seed}, dies after {dies_after}");
            assert_eq!(last.recovery.losses, [], "{label}");
            assert!(["a c", "a b c"].contains(&&*last.texts()), "{label}: {}", last.texts());
        }
    }
}

#[test]
fn an_object_that_is_damaged_or_gone_is_named_and_the_others_are_served() {
    for seed in faults::seeds(100) {
        let disk = sim();
        let life = open(&disk, 1);
        for text in ["a", "b", "c"] {
            life.append(text).unwrap();
        }
        drop(life);
        drop(open(&disk, 2));
        let at = seed % 3 * BLOCK;
        let (path, is_gone) = (object(1, at), seed % 4 == 0);
        if is_gone {
            disk.remove_file(&path).unwrap();
        } else {
            let before = read_file(&disk, &path).unwrap();
            let mut bytes = before.clone();
            mutate(&mut bytes, seed);
            // The padding of a frame is nobody's.
            if bytes[..100.min(bytes.len())] == before[..100] && bytes.len() == before.len() {
                continue;
            }
            disk.plant(&path, &bytes).unwrap();
        }
        let life = open(&disk, 3);
        let [loss] = &life.recovery.losses[..] else { panic!("seed {seed}: {:?}", life.recovery.losses) };
        assert_eq!((loss.from, loss.certainty), (at, Certainty::Certain), "seed {seed}");
        let reason = if is_gone { LossReason::MissingSegment } else { LossReason::Damaged };
        assert_eq!(loss.reason, reason, "seed {seed}");
        let left: Vec<&str> =
            ["a", "b", "c"].into_iter().enumerate().filter(|(n, _)| *n as u64 != seed % 3).map(|(_, t)| t).collect();
        assert_eq!(life.texts(), left.join(" "), "seed {seed}");
    }
}

fn faulty(disk: &SimDisk) -> (SharedDisk, Faults) {
    let (disk, faults) = FaultDisk::new(Arc::new(disk.clone()));
    (Arc::new(disk), faults)
}

#[test]
fn an_object_that_may_stand_ends_the_log_and_one_that_does_not_is_only_refused() {
    for operation in [Operation::Create, Operation::Write, Operation::Sync, Operation::Rename, Operation::SyncDir] {
        let sim = sim();
        let (disk, faults) = faulty(&sim);
        let life = try_open(&disk, 1).unwrap();
        life.append("a").unwrap();
        faults.fail(operation, 1, |_| true);
        let failed = life.append("b");
        assert!(matches!(failed, Err(WalError::Io { .. })), "{operation:?}: {failed:?}");
        let may_stand = operation == Operation::SyncDir;
        assert_eq!(life.log.is_poisoned(), may_stand, "{operation:?}");
        let again = life.append("c");
        assert_eq!(again.is_ok(), !may_stand, "{operation:?}: {again:?}");
        drop(life);
        let texts = open(&sim.power_cut(7), 2).texts();
        let allowed: &[&str] = if may_stand { &["a", "a b"] } else { &["a c"] };
        assert!(allowed.contains(&&*texts), "{operation:?}: {texts}");
    }
}

#[test]
fn of_those_that_write_one_file_at_once_one_has_the_name_and_nobody_half_of_anothers() {
    for round in 0..50 {
        let sim = sim();
        let winners: Vec<usize> = std::thread::scope(|scope| {
            let write = |n: usize| {
                let inner: SharedDisk = Arc::new(sim.clone());
                let disk = CommonDisk::new(inner, PathBuf::from("/data"), format!("w-{n}"));
                let bytes = vec![n as u8; 10_000];
                disk.write_whole(Path::new("/data/f"), &bytes, wal::disk::Replace::No).is_ok().then_some(n)
            };
            let racers: Vec<_> = (0..8).map(|n| scope.spawn(move || write(n))).collect();
            racers.into_iter().filter_map(|racer| racer.join().unwrap()).collect()
        });
        let [winner] = winners[..] else { panic!("round {round}: {winners:?}") };
        let after = sim.power_cut(round);
        assert_eq!(read_file(&after, Path::new("/data/f")).unwrap(), vec![winner as u8; 10_000]);
    }
}
