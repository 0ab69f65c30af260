//! What the log of a server does while nothing goes wrong.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use faults::{FaultDisk, SimDisk};
use wal::disk::{Disk, LocalDisk};
use wal::{Certainty, LossReason, Outcome, RECORD_BYTES_MAX, WalConfig, WalError};

use crate::rig::{BLOCK, DIR, NODE, Rig, SEGMENT_BYTES, config, record, segment_path, sim};

/// Runs `script` of the steps `append a`, `close`, `kill`, `drop`, `truncate`; says what is then there.
fn check(script: &str, expected: &str) {
    let mut disk = sim();
    let mut epoch = 1;
    let mut rig = Rig::on(&disk, epoch);
    for step in script.split("; ") {
        match step.split_once(' ').unwrap_or((step, "")) {
            ("append", text) => drop(rig.append(text.as_bytes())),
            ("truncate", _) => drop(rig.wal.truncate_behind(rig.wal.durable()).unwrap()),
            (end, _) => {
                match end {
                    "close" => rig.wal.close().unwrap(),
                    "drop" => drop(rig),
                    "kill" => disk = disk.kill(),
                    other => panic!("no step {other}"),
                }
                epoch += 1;
                rig = Rig::on(&disk, epoch);
                assert_eq!(rig.recovery.losses, [], "{script}");
                assert_eq!(rig.recovery.clean, end == "close", "{script}");
            }
        }
    }
    assert_eq!(rig.texts(), expected, "{script}");
}

/// A log is shared by many connections, whatever their tokens are.
const _: fn() = || {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<wal::Wal<std::cell::Cell<u8>>>();
};

#[test]
fn records_come_back_in_order_however_the_log_ends() {
    check("append a; append b; append c", "a b c");
    check("append a; append b; close", "a b");
    check("append a; drop; append b; drop", "a b");
    check("append a; kill; append b; kill; append c", "a b c");
    check("close; close; append a; kill; close; drop", "a");
}

#[test]
fn truncation_keeps_what_the_active_segment_holds() {
    check("append a; truncate", "a");
    check("append a; close; truncate; append b", "b");
    check("append a; close; truncate; append b; kill; append c; truncate", "c");
    check("append a; close; close; truncate; kill; truncate; close", "");
}

#[test]
fn all_that_waits_becomes_one_frame_and_one_sync() {
    let (disk, faults) = FaultDisk::new(Arc::new(sim()));
    let rig = Rig::open(Arc::new(disk), WalConfig { segment_size_bytes: 1 << 20, ..config(1) }).unwrap();
    faults.hold_syncs_of(|path| path == segment_path(1));
    rig.wal.append(record(0, 100), 0).unwrap();
    faults.wait_for_held_sync();
    for index in 1..1000 {
        rig.wal.append(record(index, 100), index).unwrap();
    }
    faults.release_syncs();
    let sizes: Vec<usize> = (0..2)
        .map(|_| match rig.outcomes.recv().unwrap() {
            Outcome::Durable(group) => group.records.len(),
            Outcome::Failed { error, .. } | Outcome::Refused { error, .. } => panic!("{error}"),
        })
        .collect();
    assert_eq!(sizes, [1, 999]);
    let stats = rig.wal.stats();
    assert_eq!((stats.syncs, stats.frames, stats.records, stats.queue_bytes), (2, 2, 1000, 0));
    assert_eq!(rig.records().len(), 1000);
}

#[test]
fn many_appenders_are_all_answered_in_the_order_of_the_log() {
    let rig = Rig::open(Arc::new(sim()), config(1)).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let wal = &rig.wal;
            scope.spawn(move || {
                for i in 0..100 {
                    let index = thread * 100 + i;
                    wal.append(record(index, 50 + index), index).unwrap();
                }
            });
        }
    });
    let Rig { wal, outcomes, .. } = rig;
    let reader = wal.reader(0);
    wal.close().unwrap();
    let mut acked = Vec::new();
    let mut end = 0;
    for outcome in outcomes {
        let Outcome::Durable(group) = outcome else { panic!("all is well") };
        assert!(group.position.offset >= end && group.end > group.position.offset);
        end = group.end;
        acked.extend(group.records.into_iter().map(|(record, _)| record));
    }
    assert_eq!(acked.len(), 800);
    let read: Vec<Vec<u8>> =
        reader.map(|f| f.unwrap()).flat_map(|f| f.records().map(<[u8]>::to_vec).collect::<Vec<_>>()).collect();
    assert!(acked == read, "what is read is what was acknowledged, in that order");
    // Of each thread, in the order in which it appended.
    for thread in 0..8 {
        let of_thread: Vec<u64> = acked
            .iter()
            .map(|record| u64::from_le_bytes(*record.first_chunk().unwrap()))
            .filter(|index| index / 100 == thread)
            .collect();
        assert!(of_thread.is_sorted());
    }
}

#[test]
fn positions_grow_over_segments_and_lives() {
    let disk = sim();
    let mut last = None;
    for epoch in 1..=5 {
        let rig = Rig::on(&disk, epoch);
        assert_eq!(rig.recovery.end, rig.wal.durable());
        for index in 0..30 {
            rig.append(&record(index, 3000 * (index % 3) + 8));
        }
        let positions: Vec<_> = rig.wal.reader(0).map(|frame| frame.unwrap().position).collect();
        assert_eq!(positions.len(), epoch as usize * 30);
        assert!(positions.is_sorted_by(|a, b| a < b && a.offset < b.offset && a.counter < b.counter));
        assert!(last.is_none_or(|last| positions.contains(&last)));
        last = positions.last().copied();
        assert!(rig.wal.stats().segments > epoch, "small segments rotate");
        rig.wal.close().unwrap();
    }
}

#[test]
fn a_reader_starts_where_it_is_told_and_goes_on_later() {
    let disk = sim();
    let rig = Rig::on(&disk, 1);
    let ends: Vec<u64> = (0..40).map(|index| rig.append(&record(index, 5000))).collect();
    for (index, end) in ends.iter().enumerate() {
        assert_eq!(rig.wal.reader(*end).count(), 39 - index);
    }
    let mut reader = rig.wal.reader(0);
    assert_eq!(reader.by_ref().count(), 40);
    assert_eq!(reader.progress(), *ends.last().unwrap());
    rig.append(b"later");
    let later = reader.next().unwrap().unwrap();
    assert_eq!((later.records().next().unwrap(), later.record_count()), (b"later".as_slice(), 1));
    assert!(reader.next().is_none());
}

#[test]
fn a_reader_passes_over_what_is_truncated_meanwhile() {
    let rig = Rig::on(&sim(), 1);
    let ends: Vec<u64> = (0..40).map(|index| rig.append(&record(index, 5000))).collect();
    let mut reader = rig.wal.reader(0);
    reader.next().unwrap().unwrap();
    assert!(rig.wal.truncate_behind(ends[35]).unwrap() > 2);
    let rest: Vec<_> = reader.map(|frame| frame.unwrap().end).collect();
    assert_eq!(rest.last(), ends.last());
    assert!(rig.wal.first() <= ends[35]);
}

#[test]
fn truncation_removes_whole_segments_and_never_what_is_needed() {
    let disk = sim();
    let rig = Rig::on(&disk, 1);
    let ends: Vec<u64> = (0..40).map(|index| rig.append(&record(index, 5000))).collect();
    for (index, end) in ends.iter().enumerate() {
        rig.wal.truncate_behind(*end).unwrap();
        assert!(rig.wal.reader(*end).count() == 39 - index);
    }
    // The active segment stays, and the one that the helper holds ready.
    let names = disk.list(Path::new(DIR)).unwrap().into_iter().filter(|entry| entry.name.ends_with(".wal")).count();
    assert!(names <= 2, "{names} files");
    assert_eq!(rig.wal.stats().segments, 1);
}

#[test]
fn every_length_up_to_the_longest_record_comes_back() {
    let rig = Rig::on(&sim(), 1);
    let max = rig.wal.record_bytes_max();
    assert_eq!(max as u64, SEGMENT_BYTES - 2 * BLOCK - 84);
    let lengths = [0, 1, 3, 4007, 4008, 4011, 4012, 4013, 4096, max - 4096, max - 1, max];
    for length in lengths {
        rig.append(&vec![7; length]);
    }
    let read: Vec<usize> = rig.records().iter().map(Vec::len).collect();
    assert_eq!(read, lengths);
    let (token, error) = rig.wal.append(vec![7; max + 1], 9).unwrap_err();
    assert!(token == 9 && matches!(error, WalError::RecordTooLarge { .. }), "{error}");
}

#[test]
fn the_longest_record_of_a_server_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let config = WalConfig { dir: dir.path().to_path_buf(), ..WalConfig::server("", NODE, model::NodeEpoch(1)) };
    let rig = Rig::open(Arc::new(LocalDisk), config.clone()).unwrap();
    assert_eq!(rig.wal.record_bytes_max(), RECORD_BYTES_MAX);
    rig.append(&vec![7; RECORD_BYTES_MAX]);
    rig.append(b"short");
    drop(rig);
    let rig = Rig::open(Arc::new(LocalDisk), config).unwrap();
    let lengths: Vec<usize> = rig.records().iter().map(Vec::len).collect();
    assert_eq!(lengths, [RECORD_BYTES_MAX, 5]);
    assert_eq!(rig.recovery.losses, []);
}

#[test]
fn a_full_queue_refuses_and_hands_the_token_back() {
    let (disk, faults) = FaultDisk::new(Arc::new(sim()));
    let rig = Rig::open(Arc::new(disk), WalConfig { queue_bytes_max: 1000, ..config(1) }).unwrap();
    faults.hold_syncs_of(|path| path == segment_path(1));
    rig.wal.append(vec![1; 100], 0).unwrap();
    faults.wait_for_held_sync();
    // More than the limit by itself, but nothing else waits: it would never fit otherwise.
    rig.wal.append(vec![1; 2000], 1).unwrap();
    let (token, error) = rig.wal.append(vec![1; 1], 2).unwrap_err();
    assert!(token == 2 && matches!(error, WalError::Full { .. }), "{error}");
    faults.release_syncs();
    for _ in 0..2 {
        assert!(matches!(rig.outcomes.recv().unwrap(), Outcome::Durable(_)));
    }
    rig.wal.append(vec![1; 1], 3).unwrap();
}

#[test]
fn closing_answers_all_that_waits() {
    let (disk, faults) = FaultDisk::new(Arc::new(sim()));
    let rig = Rig::open(Arc::new(disk), config(1)).unwrap();
    faults.hold_syncs_of(|path| path == segment_path(1));
    for index in 0..100 {
        rig.wal.append(record(index, 500), index).unwrap();
    }
    std::thread::scope(|scope| {
        let closed = scope.spawn(|| rig.wal.close());
        faults.release_syncs();
        closed.join().unwrap().unwrap();
    });
    let mut tokens = Vec::new();
    for outcome in rig.outcomes {
        let Outcome::Durable(group) = outcome else { panic!("all is well") };
        tokens.extend(group.records.into_iter().map(|(_, token)| token));
    }
    assert!(tokens.into_iter().eq(0..100));
}

#[test]
fn an_observed_counter_is_beaten_by_the_next_write() {
    let disk = sim();
    let rig = Rig::on(&disk, 1);
    rig.append(b"a");
    rig.wal.observe(1_000_000);
    rig.wal.observe(5);
    rig.append(b"b");
    let counters: Vec<u64> = rig.wal.reader(0).map(|frame| frame.unwrap().position.counter).collect();
    assert_eq!(counters, [2, 1_000_001]);
    // A hostile clock cannot use up the counter.
    rig.wal.observe(u64::MAX);
    rig.append(b"c");
    drop(rig);
    let rig = Rig::on(&disk, 2);
    rig.append(b"d");
    assert_eq!(rig.texts(), "a b c d");
}

#[test]
fn offsets_below_the_watermark_of_the_caller_are_never_used_again() {
    let disk = sim();
    let rig = Rig::open(Arc::new(disk.clone()), WalConfig { offset_min: 1_000_000, ..config(1) }).unwrap();
    assert!(rig.recovery.end >= 1_000_000);
    let loss = &rig.recovery.losses[0];
    assert_eq!((loss.certainty, loss.reason), (Certainty::Possible, LossReason::ShortOfWatermark));
    rig.append(b"a");
    drop(rig);
    let rig = Rig::open(Arc::new(disk), WalConfig { offset_min: 1_000_000, ..config(2) }).unwrap();
    assert_eq!((rig.texts().as_str(), rig.recovery.losses.len()), ("a", 0));
}

#[test]
fn a_log_that_is_not_ours_is_refused_and_left_alone() {
    let disk = sim();
    Rig::on(&disk, 5).append(b"a");
    let before = disk.ops();
    let open = |config: WalConfig| Rig::open(Arc::new(disk.clone()), config).err().unwrap();
    let other = open(WalConfig { node: model::NodeId(2), ..config(6) });
    assert!(matches!(other, WalError::WrongNode { .. }), "{other}");
    let older = open(config(4));
    assert!(matches!(older, WalError::Fenced { .. }), "{older}");
    let crooked = open(WalConfig { segment_size_bytes: 5000, ..config(6) });
    assert!(matches!(crooked, WalError::Config(_)), "{crooked}");
    assert_eq!(disk.ops(), before, "nothing was changed");
}

#[test]
fn a_full_disk_refuses_what_finds_no_room_and_the_log_goes_on_as_if_it_had_never_been() {
    let sim = sim();
    let (disk, faults) = FaultDisk::new(Arc::new(sim.clone()));
    let rig = Rig::open(Arc::new(disk), config(1)).unwrap();
    let mut acked = Vec::new();
    let mut index = 0;
    for round in 0..20 {
        // On most file systems what was filled ahead has its room and only a segment wants more; on one that copies on
        // write a frame does, too, and some of it may be there before there is no more.
        let copies_on_write = round % 2 == 1;
        if copies_on_write {
            faults.fill_after(5000 * round);
        } else {
            faults.set_capacity(faults.used());
        }
        let mut refused = 0;
        while refused < 3 {
            index += 1;
            rig.wal.append(record(index, 9000), index).unwrap();
            match rig.outcomes.recv().unwrap() {
                Outcome::Durable(_) => acked.push(index),
                Outcome::Refused { tokens, error } => {
                    assert_eq!(tokens, [index]);
                    assert!(error.is_disk_full(), "{error}");
                    refused += 1;
                }
                Outcome::Failed { error, .. } => panic!("{error}"),
            }
        }
        faults.free_space();
        assert!(!rig.wal.is_poisoned());
        index += 1;
        rig.append(&record(index, 9000));
        acked.push(index);
    }
    drop(rig);
    check_after_full_disk(&sim, &acked);
}
#[test]
fn a_helper_that_cannot_make_a_segment_tries_again_when_one_is_needed() {
    let (disk, faults) = FaultDisk::new(Arc::new(sim()));
    // Every create after that of segment 1 fails until told otherwise.
    for _ in 0..200 {
        faults.fail(faults::Operation::Create, 2, |path| !path.ends_with(".00000000000000000001.wal.tmp"));
    }
    let rig = Rig::open(Arc::new(disk), config(1)).unwrap();
    let mut outcomes = BTreeSet::new();
    for index in 0..60 {
        rig.wal.append(record(index, 9000), index).unwrap();
        outcomes.insert(match rig.outcomes.recv().unwrap() {
            Outcome::Durable(_) => "durable",
            Outcome::Refused { error: WalError::Io { action: "create segment", .. }, .. } => "failed",
            Outcome::Failed { error, .. } | Outcome::Refused { error, .. } => panic!("{error}"),
        });
    }
    assert!(!rig.wal.is_poisoned());
    assert!(outcomes.contains("failed") && outcomes.contains("durable"), "{outcomes:?}");
}

#[test]
fn the_log_on_this_machine_is_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let config = |epoch| WalConfig { dir: dir.path().join("wal"), ..config(epoch) };
    for epoch in 1..=3 {
        let rig = Rig::open(Arc::new(LocalDisk), config(epoch)).unwrap();
        assert_eq!(rig.records().len(), (epoch as usize - 1) * 20);
        for index in 0..20 {
            rig.append(&record(index, 5000));
        }
        if epoch == 2 {
            rig.wal.close().unwrap();
        }
    }
}

#[test]
fn a_file_that_is_no_segment_is_left_alone() {
    let disk: SimDisk = sim();
    disk.plant(&Path::new(DIR).join("README"), b"hands off").unwrap();
    disk.plant(&Path::new(DIR).join("1.wal"), b"not ours either").unwrap();
    disk.plant(&Path::new(DIR).join(".00000000000000000007.wal.tmp"), b"unfinished").unwrap();
    drop(Rig::on(&disk, 1));
    let names: Vec<String> = disk.list(Path::new(DIR)).unwrap().into_iter().map(|entry| entry.name).collect();
    assert!(names.contains(&"README".to_owned()) && names.contains(&"1.wal".to_owned()));
    assert!(!names.iter().any(|name| name.starts_with(".00000000000000000007")));
}

/// Nothing that was acknowledged is missing, and what was refused is not there.
fn check_after_full_disk(sim: &SimDisk, acked: &[usize]) {
    let rig = Rig::on(sim, 2);
    assert_eq!(rig.recovery.losses, []);
    let expected: Vec<Vec<u8>> = acked.iter().map(|index| record(*index, 9000)).collect();
    assert!(rig.records() == expected, "{} records, {} acknowledged", rig.records().len(), acked.len());
}
