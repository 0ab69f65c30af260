//! Objects as files: whole or not at all, and the same bytes however they are asked for.

use std::ops::Range;

use futures::StreamExt;
use model::{Rng, SplitMix64, SystemClock};
use object_store::memory::InMemory;
use wal::disk;

use super::*;

fn disk() -> (ObjectDisk, Arc<InMemory>) {
    let store = Arc::new(InMemory::new());
    let clients = [Arc::clone(&store) as Arc<dyn ObjectStore>, Arc::clone(&store) as Arc<dyn ObjectStore>];
    let pause = Duration::from_millis(1);
    let clock = Arc::new(SystemClock::new());
    (ObjectDisk::new("s3://b/p".into(), Location::from("p"), clients, pause, clock).unwrap(), store)
}

fn path(below: &str) -> PathBuf {
    Path::new("s3://b/p").join(below)
}

fn locations(store: &InMemory) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut found: Vec<String> =
        runtime.block_on(store.list(None).map(|meta| meta.unwrap().location.to_string()).collect());
    found.sort();
    found
}

fn content(len: usize) -> Vec<u8> {
    let rng = SplitMix64::new(len as u64);
    (0..len).map(|_| rng.next_u64() as u8).collect()
}

#[test]
fn a_file_is_an_object_once_it_is_synced_and_nothing_before() {
    for len in [0, 1, 1_000_000, 8 << 20, (8 << 20) + 1, 20_000_000] {
        let (disk, store) = disk();
        let content = content(len);
        let write = |name: &str| {
            let file = disk.create_new(&path(name)).unwrap();
            let mut at = 0;
            for part in content.chunks(700_001) {
                file.write_all_at(part, at).unwrap();
                at += part.len() as u64;
            }
            assert_eq!(file.len().unwrap(), len as u64);
            file
        };
        drop(write("t/dropped.parquet"));
        disk.remove_file(&path("t/dropped.parquet")).unwrap();
        let file = write("t/a.parquet");
        assert_eq!(locations(&store), [""; 0], "{len}");
        file.sync_data().unwrap();
        file.sync_data().unwrap();
        assert!(file.write_all_at(b"more", len as u64).is_err());
        drop(file);
        assert_eq!(locations(&store), ["p/t/a.parquet"]);
        assert_eq!(disk::read_file(&disk, &path("t/a.parquet")).unwrap(), content, "{len}");
        disk.known.forget(&path("t/a.parquet"));
        assert_eq!(disk.open_read(&path("t/a.parquet")).unwrap().len().unwrap(), len as u64);
        assert_eq!(disk.info(&path("t/a.parquet")).unwrap().len, len as u64);
        disk.remove_file(&path("t/a.parquet")).unwrap();
        assert_eq!(locations(&store), [""; 0]);
        assert_eq!(disk.open_read(&path("t/a.parquet")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}

#[test]
fn objects_are_written_from_the_beginning_to_the_end() {
    let (disk, _store) = disk();
    let file = disk.create_new(&path("a")).unwrap();
    file.write_all_at(b"abc", 0).unwrap();
    assert!(file.write_all_at(b"x", 1).is_err());
    assert!(file.set_len(1).is_err());
    assert!(disk.rename(&path("a"), &path("b"), Replace::No).is_err());
}

#[test]
fn any_ranges_are_the_bytes_of_the_object_whether_its_end_is_known_or_not() {
    for seed in 0..20 {
        let (disk, _store) = disk();
        let rng = SplitMix64::new(seed);
        let content = content(1 + rng.below(3_000_000) as usize);
        let len = content.len() as u64;
        disk.write_whole(&path("t/a.parquet"), &content, Replace::Yes).unwrap();
        for _ in 0..2 {
            let file = disk.open_read(&path("t/a.parquet")).unwrap();
            assert_eq!(file.len().unwrap(), len);
            for _ in 0..40 {
                let ranges: Vec<Range<u64>> = (0..rng.below(5))
                    .map(|_| {
                        let from = rng.below(len + 1);
                        from..(from + rng.below([100, 900_000][rng.below(2) as usize])).min(len)
                    })
                    .collect();
                let together = file.read_together(&ranges).unwrap().unwrap();
                for (range, bytes) in ranges.iter().zip(together) {
                    let wanted = &content[range.start as usize..range.end as usize];
                    assert!(bytes == wanted, "seed {seed}: {range:?} of {len} together");
                    let mut read = vec![0; wanted.len()];
                    disk::read_exact_at(&*file, &mut read, range.start).unwrap();
                    assert!(read == wanted, "seed {seed}: {range:?} of {len}");
                }
            }
            assert!(file.read_together(std::slice::from_ref(&(0..len + 1))).unwrap().is_err());
            assert_eq!(file.read_at(&mut [0; 4], len).unwrap(), 0);
        }
    }
}

#[test]
fn a_name_that_is_taken_is_left_alone_and_the_same_bytes_are_ours() {
    let (disk, _store) = disk();
    let commit = path("t/_delta_log/0.json");
    disk.write_whole(&commit, b"ours", Replace::No).unwrap();
    disk.write_whole(&commit, b"ours", Replace::No).unwrap();
    let error = disk.write_whole(&commit, b"theirs", Replace::No).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert!(!disk.may_stand(&commit, &error));
    assert_eq!(disk::read_file(&disk, &commit).unwrap(), b"ours");
    disk.write_whole(&commit, b"theirs", Replace::Yes).unwrap();
    assert_eq!(disk::read_file(&disk, &commit).unwrap(), b"theirs");
}

#[test]
fn folders_are_what_objects_are_in() {
    let (disk, _store) = disk();
    for name in ["s/t/_delta_log/0.json", "s/t/eden_day=2026-06-01/x.parquet", "s/u!20/_delta_log/0.json", "owner"] {
        disk.write_whole(&path(name), name.as_bytes(), Replace::No).unwrap();
    }
    let list = |below: &str| -> Vec<String> {
        let entries = disk.list_with_info(&path(below)).unwrap();
        let shown = |(entry, info): (DirEntry, FileInfo)| format!("{} {:?} {}", entry.name, info.kind, info.len);
        entries.into_iter().map(shown).collect()
    };
    assert_eq!(list(""), ["owner File 5", "s Directory 0"]);
    assert_eq!(list("s"), ["t Directory 0", "u!20 Directory 0"]);
    assert_eq!(list("s/t/_delta_log"), ["0.json File 21"]);
    assert_eq!(list("nothing"), [""; 0]);
    assert_eq!(disk.info(&path("s/t")).unwrap().kind, EntryKind::Directory);
    assert_eq!(disk.info(&path("")).unwrap().kind, EntryKind::Directory);
    assert_eq!(disk.info(&path("s/x")).unwrap_err().kind(), io::ErrorKind::NotFound);
    let read = disk.read_files(&[path("owner"), path("none"), path("s/t/_delta_log/0.json")]);
    assert_eq!(read[0].as_ref().unwrap(), b"owner");
    assert_eq!(read[1].as_ref().unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(read[2].as_ref().unwrap(), b"s/t/_delta_log/0.json");
}
