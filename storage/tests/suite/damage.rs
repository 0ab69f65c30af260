//! What is damaged is named, and the rest served (P3, P13).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use faults::SimDisk;
use model::{TableName, Value};
use storage::{Storage, StorageError};
use wal::disk::{Disk, SharedDisk, read_file};

use crate::world::{World, read_snapshot, write};

/// Losses as `system.data_loss` has them: one row each.
fn recorded(storage: &Storage) -> Vec<String> {
    let name = TableName::new("system", "data_loss");
    let Some(snapshot) = storage.snapshot(&name).unwrap() else { return Vec::new() };
    let rows = read_snapshot(storage, &snapshot);
    rows.into_iter().map(|((series, _), fields)| format!("{series}: {}", fields["certainty"])).collect()
}

#[test]
fn damage_to_the_log_is_a_row_of_system_data_loss_once_and_the_rest_is_served() {
    let sim = SimDisk::new();
    let disk: SharedDisk = Arc::new(sim.clone());
    let mut world = World::on(disk, PathBuf::from("/data"));
    let storage = world.open();
    for n in 0..10 {
        write(&storage, "t", &[("a", n, &[("x", Value::F64(n as f64))])]);
    }
    assert_eq!(recorded(&storage), [""; 0]);
    drop(storage);
    // The fifth data frame: a header block, a start frame, then a frame of one block for each write.
    let wal = Path::new("/data/wal");
    let segment =
        sim.list(wal).unwrap().into_iter().map(|entry| entry.name).find(|name| name.ends_with(".wal")).unwrap();
    let path = wal.join(segment);
    let mut bytes = read_file(&sim, &path).unwrap();
    bytes[6 * 4096 + 100] ^= 1;
    sim.plant(&path, &bytes).unwrap();
    for flushed in [false, false, true, true] {
        let storage = world.reopen();
        let rows = storage.snapshot(&TableName::public("t")).unwrap().unwrap();
        let times: Vec<i64> = read_snapshot(&storage, &rows).into_keys().map(|(_, time)| time).collect();
        assert_eq!(times, [0, 1, 2, 3, 5, 6, 7, 8, 9]);
        let [row] = &recorded(&storage)[..] else { panic!("{:?}", recorded(&storage)) };
        assert!(row.contains("certain") && row.contains(".wal"), "{row}");
        if flushed {
            storage.refresh(&TableName::new("system", "data_loss")).unwrap();
        }
    }
}

/// A commit's text with the checksum that it must have; any other text as it is.
fn resealed(text: String) -> Vec<u8> {
    let mut bytes = text.into_bytes();
    let end = bytes.len().saturating_sub(b"01234567\"}}\n".len());
    if bytes[..end].ends_with(b"\"crc32c\":\"") {
        let checksum = format!("{:08x}", crc32c::crc32c(&bytes[..end]));
        bytes[end..end + 8].copy_from_slice(checksum.as_bytes());
    }
    bytes
}

#[test]
fn a_folder_of_a_newer_version_is_refused_and_left_alone() {
    let sim = SimDisk::new();
    let disk: SharedDisk = Arc::new(sim.clone());
    let world = World::on(disk, PathBuf::from("/data"));
    let storage = world.open();
    write(&storage, "t", &[("a", 1, &[("x", Value::F64(1.0))])]);
    drop(storage);
    let check = |path: &str, old: &str, new: &str| {
        let newer = sim.fork();
        let path = Path::new(path);
        let bytes = String::from_utf8(read_file(&newer, path).unwrap()).unwrap();
        assert!(bytes.contains(old), "{bytes}");
        newer.plant(path, &resealed(bytes.replace(old, new))).unwrap();
        let before = read_file(&newer, path).unwrap();
        let opened = World::on(Arc::new(newer.clone()), PathBuf::from("/data")).with_seed(9).try_open();
        assert!(matches!(opened, Err(StorageError::NewerFormat { .. })), "{path:?}: {opened:?}");
        assert_eq!(read_file(&newer, path).unwrap(), before);
    };
    check("/data/node/identity.json", "\"format\":1", "\"format\":2");
    let commit = "/data/tables/public/t/_delta_log/00000000000000000000.json";
    check(commit, "\"minReaderVersion\":1", "\"minReaderVersion\":3");
    check(commit, "\\\"eden.type\\\":\\\"float\\\"", "\\\"eden.type\\\":\\\"quaternion\\\"");
}
