//! A full disk stops admission, never queries, and admission resumes by itself (P9).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use faults::{FaultDisk, Faults, SimDisk};
use model::{Removal, Rng, SeriesKey, SplitMix64, TableName, Value};
use storage::{Storage, StorageError};
use wal::disk::{Disk, EntryKind, SharedDisk};

use crate::world::{START_US, World, batch, read, write};

const CAPACITY: u64 = 256 << 20;
const RESERVE: u64 = 4 << 20;

fn table() -> TableName {
    TableName::public("t")
}

fn world() -> (World, Faults, SharedDisk) {
    let (faulty, faults) = FaultDisk::new(Arc::new(SimDisk::new()));
    let disk: SharedDisk = Arc::new(faulty);
    let mut world = World::on(Arc::clone(&disk), "/data".into());
    world.config.disk_reserve_bytes = RESERVE;
    world.config.table_memory_bytes_max = 256 << 10;
    faults.set_capacity(CAPACITY);
    (world, faults, disk)
}

/// Leaves `bytes` of the disk free.
fn leave(faults: &Faults, bytes: u64) {
    faults.occupy(0);
    faults.occupy(CAPACITY - faults.used() - bytes.min(CAPACITY - faults.used()));
}

/// Until the next look at something that comes by itself.
fn pause() {
    std::thread::park_timeout(Duration::from_millis(20));
}

/// Files below `dir`.
fn all_files(disk: &dyn Disk, dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in disk.list(dir).unwrap() {
        let path = dir.join(&entry.name);
        match entry.kind {
            EntryKind::Directory => found.extend(all_files(disk, &path)),
            EntryKind::File => found.push(path),
        }
    }
    found
}

/// Writes one batch of 20 rows from time `first` on.
fn try_write(storage: &Storage, first: i64, text: &str) -> Result<(), StorageError> {
    let fields = [("x", Value::Text(text))];
    let rows: Vec<_> = (first..first + 20).map(|time| ("a", time, &fields[..])).collect();
    storage.write(vec![batch("t", &rows)], "test")?.wait()
}

fn remove(storage: &Storage, time: i64) -> Result<(), StorageError> {
    let key = SeriesKey::from_tags([("s", "a")]);
    storage.remove(Removal::of_rows(table(), [(&key, START_US + time)]), "test")?.wait()
}

fn times(storage: &Storage) -> BTreeSet<i64> {
    read(storage, "t").into_keys().map(|(_, time)| time).collect()
}

#[test]
fn a_disk_that_fills_up_again_and_again_stops_admission_and_nothing_else() {
    let seed = 20_260_601;
    println!("seed {seed}");
    let rng = SplitMix64::new(seed);
    let (mut world, faults, disk) = world();
    let mut storage = world.open();
    write(&storage, "t", &[("a", -1, &[("x", Value::Text("x"))])]);
    let mut next = 0;
    let mut acked = BTreeSet::from([-1]);
    for round in 0..10 {
        // To the brim, or so that only admission notices.
        let to_the_brim = round % 2 == 1;
        leave(&faults, if to_the_brim { rng.below(1 << 18) } else { RESERVE + rng.below(1 << 18) });
        let text: String = (0..200).map(|_| char::from(b'a' + rng.below(26) as u8)).collect();
        let durable = Mutex::new(acked.clone());
        let (done, looks) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            let queries = scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    let expected = durable.lock().unwrap().clone();
                    let seen = times(&storage);
                    assert!(seen.is_superset(&expected), "round {round}: acknowledged rows are not seen");
                    looks.fetch_add(1, Ordering::SeqCst);
                }
            });
            let mut refused = 0;
            while refused < 5 && !queries.is_finished() {
                match try_write(&storage, next, &text) {
                    Ok(()) => durable.lock().unwrap().extend(next..next + 20),
                    Err(StorageError::Busy { reason, .. }) => {
                        assert!(reason.contains("/data") && reason.contains("disk_reserve"), "{reason}");
                        refused += 1;
                        pause();
                    }
                    Err(e) => panic!("round {round}: {e}"),
                }
                next += 20;
            }
            let looked = looks.load(Ordering::SeqCst);
            while looks.load(Ordering::SeqCst) < looked + 2 && !queries.is_finished() {
                pause();
            }
            done.store(true, Ordering::SeqCst);
        });
        acked = durable.into_inner().unwrap();
        if !to_the_brim {
            // Flushes may have freed some of the log meanwhile.
            leave(&faults, RESERVE - (1 << 20));
            while storage.stats().admission_stopped == 0 {
                pause();
            }
            assert!(matches!(try_write(&storage, next, &text), Err(StorageError::Busy { .. })));
            // What frees room is not refused.
            let first = *acked.first().unwrap();
            remove(&storage, first).unwrap();
            acked.remove(&first);
            assert!(!times(&storage).contains(&first));
        }
        if round == 4 || round == 8 {
            // A start, too, has room in the reserve.
            drop(storage);
            storage = world.reopen();
        }
        assert!(times(&storage).is_superset(&acked));
        faults.occupy(0);
        // By itself: nobody starts anything again.
        for tries in 0.. {
            let result = try_write(&storage, next, &text);
            next += 20;
            match result {
                Ok(()) => break,
                Err(StorageError::Busy { .. }) if tries < 1500 => pause(),
                Err(e) => panic!("round {round}: {e}"),
            }
        }
        acked.extend(next - 20..next);
        assert!(!storage.is_poisoned());
    }
    storage.refresh(&table()).unwrap();
    assert_eq!(times(&storage), acked, "what was refused is not stored");
    assert_eq!(storage.stats().log_losses_total, 0);
    drop(storage);
    let storage = world.reopen();
    assert_eq!(times(&storage), acked);
    let half: Vec<_> = all_files(&*disk, &world.config.data.join("tables"));
    let half: Vec<_> = half.iter().filter(|path| path.to_string_lossy().ends_with(".tmp")).collect();
    assert!(half.is_empty(), "{half:?}");
}

#[test]
fn a_flush_without_room_leaves_no_file_and_goes_on_by_itself_when_there_is_room() {
    let (mut world, faults, disk) = world();
    world.config.table_memory_bytes_max = 1 << 20;
    let storage = world.open();
    let tables = world.config.data.join("tables");
    let text = "x".repeat(100);
    for first in 0..60 {
        let rows: String = (0..3).map(|n| format!("{text}{}", (first * 7919 + n * 104_729) % 65_521)).collect();
        try_write(&storage, first * 20, &rows).unwrap();
    }
    let before = all_files(&*disk, &tables);
    for room in [0, 100, 1000] {
        leave(&faults, room);
        let error = storage.refresh(&table()).unwrap_err().to_string();
        assert!(error.contains("No space left"), "{error}");
        assert_eq!(all_files(&*disk, &tables), before, "{room} bytes of room");
        assert_eq!(times(&storage).len(), 1200);
    }
    assert!(matches!(storage.write(vec![batch("t", &[])], "test"), Err(StorageError::Busy { .. })));
    faults.occupy(0);
    for tries in 0.. {
        if storage.stats().memory_rows == 0 {
            break;
        }
        assert!(tries < 1500, "not flushed again");
        pause();
    }
    assert_eq!(times(&storage).len(), 1200);
    // A merge needs clearly more room than that; dropping the table needs next to none.
    storage.refresh(&table()).unwrap();
    try_write(&storage, 2000, "y").unwrap();
    storage.refresh(&table()).unwrap();
    leave(&faults, RESERVE + 1000);
    assert!(matches!(storage.compact(&table()), Err(StorageError::Busy { .. })));
    assert_eq!(times(&storage).len(), 1220);
    leave(&faults, 20_000);
    assert!(storage.drop_table(&table()).unwrap());
}
