//! The disks do what their models say.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use faults::{FaultDisk, Mutation, Operation, PlantedBug, SimDisk, mutate};
use wal::disk::{Disk, DiskFile, LocalDisk, Replace, create_dir_all, read_file, write_whole};

/// What `/f` holds after each of 200 power cuts; `None` if it is not there.
#[cfg(test)]
fn outcomes(run: impl Fn(&SimDisk)) -> BTreeSet<Option<Vec<u8>>> {
    let cut = |seed| {
        let disk = SimDisk::new();
        run(&disk);
        read_file(&disk.power_cut(seed), Path::new("/f")).ok()
    };
    (0..200).map(cut).collect()
}

#[cfg(test)]
fn create(disk: &dyn Disk, path: &str, bytes: &[u8]) -> Box<dyn DiskFile> {
    let file = disk.create_new(Path::new(path)).expect("the name is free");
    file.write_all_at(bytes, 0).expect("the power is on");
    file
}

#[test]
fn what_is_synced_survives_every_cut() {
    let kept = outcomes(|disk| {
        create(disk, "/f", b"abc").sync_data().unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
    });
    assert_eq!(kept, BTreeSet::from([Some(b"abc".to_vec())]));
}

#[test]
fn a_name_without_a_directory_sync_may_be_lost_and_the_bytes_with_it() {
    let kept = outcomes(|disk| create(disk, "/f", b"abc").sync_data().unwrap());
    assert_eq!(kept, BTreeSet::from([None, Some(b"abc".to_vec())]));
}

#[test]
fn a_rename_without_a_directory_sync_may_be_lost() {
    let kept = outcomes(|disk| {
        create(disk, "/f", b"old").sync_data().unwrap();
        create(disk, "/g", b"new").sync_data().unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        disk.rename(Path::new("/g"), Path::new("/f"), Replace::Yes).unwrap();
    });
    assert_eq!(kept, BTreeSet::from([Some(b"old".to_vec()), Some(b"new".to_vec())]));
}

#[test]
fn an_unsynced_write_is_kept_lost_or_torn_at_sectors() {
    let kept = outcomes(|disk| {
        let file = create(disk, "/f", &[1; 1024]);
        file.sync_data().unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        file.write_all_at(&[2; 1024], 0).unwrap();
    });
    let sectors = |a: u8, b: u8| Some([[a; 512], [b; 512]].concat());
    assert_eq!(kept, BTreeSet::from([sectors(1, 1), sectors(1, 2), sectors(2, 1), sectors(2, 2)]));
}

#[test]
fn a_change_of_length_may_be_lost() {
    let kept = outcomes(|disk| {
        let file = create(disk, "/f", b"abc");
        file.sync_data().unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        file.set_len(1).unwrap();
    });
    assert_eq!(kept, BTreeSet::from([Some(b"abc".to_vec()), Some(b"a".to_vec())]));
}

#[test]
fn a_file_written_whole_is_never_half() {
    for op in 1..=12 {
        for seed in 0..20 {
            let disk = SimDisk::new();
            write_whole(&disk, Path::new("/f"), &[1; 2000], Replace::No).unwrap();
            disk.cut_after(op);
            let done = write_whole(&disk, Path::new("/f"), &[2; 2000], Replace::Yes).is_ok();
            let left = read_file(&disk.power_cut(seed), Path::new("/f")).unwrap();
            assert!(left == [2; 2000] || (!done && left == [1; 2000]), "op {op} seed {seed}");
        }
    }
}

#[test]
fn a_kill_loses_nothing_but_a_cut_after_it_may() {
    let kept = outcomes(|disk| {
        create(disk, "/f", b"abc").sync_data().unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let file = disk.open_write(Path::new("/f")).unwrap();
        file.write_all_at(b"x", 0).unwrap();
        let next = disk.kill();
        assert!(file.write_all_at(b"y", 0).is_err(), "the process is gone");
        assert_eq!(read_file(&next, Path::new("/f")).unwrap(), b"xbc");
    });
    assert_eq!(kept, BTreeSet::from([Some(b"abc".to_vec()), Some(b"xbc".to_vec())]));
}

#[test]
fn the_cut_comes_at_the_operation_that_was_named() {
    let disk = SimDisk::new();
    disk.cut_after(3);
    let file = create(&disk, "/f", b"abc");
    assert_eq!(disk.ops(), 2);
    assert!(file.sync_data().is_err());
    assert!(!disk.is_on());
    assert!(disk.list(Path::new("/")).is_err());
    assert!(disk.power_cut(0).list(Path::new("/")).is_ok());
}

#[test]
fn after_a_failed_sync_the_bytes_are_readable_and_never_reach_the_disk() {
    let kept = outcomes(|disk| {
        let file = create(disk, "/f", b"abc");
        file.sync_data().unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        disk.fail_sync_at(1);
        file.write_all_at(b"x", 0).unwrap();
        assert!(file.sync_data().is_err());
        file.sync_data().unwrap();
        assert_eq!(read_file(disk, Path::new("/f")).unwrap(), b"xbc");
    });
    assert_eq!(kept, BTreeSet::from([Some(b"abc".to_vec())]));
}

#[test]
fn faults_come_when_they_were_asked_for_and_once() {
    let (disk, faults) = FaultDisk::new(Arc::new(SimDisk::new()));
    faults.fail_sync(2);
    faults.fail(Operation::Rename, 1, |path| path.ends_with("g"));
    let file = create(&disk, "/f", b"abc");
    let syncs: Vec<bool> = (0..3).map(|_| file.sync_data().is_ok()).collect();
    assert_eq!(syncs, [true, false, true]);
    assert!(disk.rename(Path::new("/f"), Path::new("/g"), Replace::No).is_err());
    assert!(disk.rename(Path::new("/f"), Path::new("/g"), Replace::No).is_ok());
    faults.fill_after(4);
    assert!(file.write_all_at(b"1234", 0).is_ok());
    assert_eq!(file.write_all_at(b"5", 0).unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    faults.free_space();
    assert!(file.write_all_at(b"5", 0).is_ok());
}

#[test]
fn a_held_sync_hangs_until_it_is_released() {
    let (disk, faults) = FaultDisk::new(Arc::new(SimDisk::new()));
    let file = create(&disk, "/f", b"abc");
    faults.hold_syncs();
    std::thread::scope(|scope| {
        let sync = scope.spawn(|| file.sync_data().is_ok());
        faults.wait_for_held_sync();
        assert!(!sync.is_finished());
        faults.release_syncs();
        assert!(sync.join().unwrap());
    });
}

#[test]
fn planted_bugs_lie_about_what_they_name_and_nothing_else() {
    let survives = |bug, path: &'static str| {
        (0..50).all(|seed| {
            let sim = SimDisk::new();
            create_dir_all(&sim, Path::new("/t/_delta_log")).unwrap();
            let (disk, faults) = FaultDisk::new(Arc::new(sim.clone()));
            faults.plant(bug);
            create(&disk, path, b"abc").sync_data().unwrap();
            disk.sync_dir(Path::new(path).parent().unwrap()).unwrap();
            read_file(&sim.power_cut(seed), Path::new(path)).is_ok_and(|bytes| bytes == b"abc")
        })
    };
    assert!(!survives(PlantedBug::AckBeforeSync, "/t/00000000000000000001.wal"));
    assert!(survives(PlantedBug::AckBeforeSync, "/t/f"));
    assert!(!survives(PlantedBug::ForgetDirectorySync, "/t/f"));
    assert!(!survives(PlantedBug::SkipCommitSync, "/t/_delta_log/0.json"));
    assert!(survives(PlantedBug::SkipCommitSync, "/t/f.json"));
    assert!(survives(PlantedBug::TruncateBeforeCommit, "/t/f.parquet"));
}

#[test]
fn the_log_is_truncated_at_the_first_parquet_write() {
    let sim = SimDisk::new();
    let (disk, faults) = FaultDisk::new(Arc::new(sim.clone()));
    faults.plant(PlantedBug::TruncateBeforeCommit);
    for name in ["/1.wal", "/2.wal", "/3.wal"] {
        create(&disk, name, b"x");
    }
    create(&disk, "/.a.parquet.tmp", b"x");
    let names: Vec<String> = sim.list(Path::new("/")).unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, [".a.parquet.tmp", "2.wal", "3.wal"]);
}

#[test]
fn a_mutation_says_what_it_did() {
    let original: Vec<u8> = (0..20_000_u32).map(|i| (i / 7 + 1) as u8).collect();
    let mut kinds = BTreeSet::new();
    for seed in 0..100 {
        let mut bytes = original.clone();
        let mutation = mutate(&mut bytes, seed);
        kinds.insert(format!("{mutation:?}").split(' ').next().unwrap_or_default().to_owned());
        let differs: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != original[*at]).collect();
        let inside = |at: usize| differs.iter().all(|byte| (at..at + 4096).contains(byte));
        match mutation {
            Mutation::BitFlip { at, .. } => assert_eq!(differs, [at]),
            Mutation::ZeroPage { at } | Mutation::StaleBlock { at } => assert!(inside(at), "seed {seed}"),
            Mutation::DuplicateBlock { to, .. } => assert!(inside(to), "seed {seed}"),
            Mutation::Truncate { len } => assert!(bytes.len() == len && differs.is_empty(), "seed {seed}"),
        }
    }
    assert_eq!(kinds.len(), 5, "{kinds:?}");
}

/// What every disk does while nothing goes wrong.
#[cfg(test)]
fn check_disk(disk: &dyn Disk, root: &Path) {
    let path = |name: &str| root.join(name);
    create_dir_all(disk, &path("a/b")).unwrap();
    create_dir_all(disk, &path("a/b")).unwrap();
    let file = disk.create_new(&path("a/f")).unwrap();
    let taken = disk.create_new(&path("a/f")).unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AlreadyExists);
    file.write_all_at(b"world", 6).unwrap();
    file.write_all_at(b"hello ", 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(read_file(disk, &path("a/f")).unwrap(), b"hello world");
    let mut beyond = [0; 4];
    assert_eq!(file.read_at(&mut beyond, 9).unwrap(), 2);
    assert_eq!(file.read_at(&mut beyond, 100).unwrap(), 0);
    file.set_len(5).unwrap();
    file.set_len(7).unwrap();
    assert_eq!(read_file(disk, &path("a/f")).unwrap(), b"hello\0\0");
    assert_eq!(disk.info(&path("a/f")).unwrap().len, 7);

    write_whole(disk, &path("a/g"), b"1", Replace::No).unwrap();
    let taken = write_whole(disk, &path("a/g"), b"2", Replace::No).unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AlreadyExists);
    assert_eq!(read_file(disk, &path("a/g")).unwrap(), b"1");
    write_whole(disk, &path("a/g"), b"2", Replace::Yes).unwrap();
    assert_eq!(read_file(disk, &path("a/g")).unwrap(), b"2");

    assert!(disk.open_read(&path("a/f")).unwrap().write_all_at(b"x", 0).is_err());
    assert_eq!(disk.open_read(&path("a/none")).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    let not_empty = disk.remove_dir(&path("a")).unwrap_err();
    assert_eq!(not_empty.kind(), std::io::ErrorKind::DirectoryNotEmpty);
    disk.remove_dir(&path("a/b")).unwrap();
    disk.rename(&path("a"), &path("c"), Replace::No).unwrap();
    let names: Vec<String> = disk.list(&path("c")).unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["f", "g"]);
    disk.remove_file(&path("c/f")).unwrap();
    assert_eq!(disk.info(&path("c/f")).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    disk.sync_dir(&path("c")).unwrap();
}

#[test]
fn the_disk_of_this_machine_does_what_a_disk_does() {
    let dir = tempfile::tempdir().unwrap();
    check_disk(&LocalDisk, dir.path());
}

#[test]
fn the_simulated_disk_does_what_a_disk_does() {
    check_disk(&SimDisk::new(), Path::new("/"));
}

#[test]
fn a_disk_without_faults_does_what_a_disk_does() {
    check_disk(&FaultDisk::new(Arc::new(SimDisk::new())).0, Path::new("/"));
}
