//! What is damaged is named, and the rest served (P3, P13).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use faults::SimDisk;
use model::{TableName, Value};
use storage::{AgentBatch, Storage, StorageError};
use wal::disk::{Disk, SharedDisk, read_file};

use crate::world::{World, batch, read, read_snapshot, write};

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

#[test]
fn a_table_whose_log_is_damaged_keeps_what_the_log_holds_of_it_and_is_in_nobodys_way() {
    let sim = SimDisk::new();
    let mut world = World::on(Arc::new(sim.clone()), PathBuf::from("/data"));
    let storage = world.open();
    for n in 0..5 {
        write(&storage, "t", &[("a", n, &[("x", Value::F64(n as f64))])]);
        if n == 2 {
            storage.refresh(&TableName::public("t")).unwrap();
        }
    }
    drop(storage);
    let commit = Path::new("/data/tables/public/t/_delta_log/00000000000000000001.json");
    let whole = read_file(&sim, commit).unwrap();
    sim.plant(commit, &whole[..whole.len() - 1]).unwrap();
    for life in 0..3 {
        let storage = world.reopen();
        let [damaged] = &storage.damaged_tables()[..] else { panic!("{:?}", storage.damaged_tables()) };
        assert_eq!((&*damaged.name.table, &*damaged.path), ("t", commit));
        assert_eq!(storage.stats().damaged_tables, 1);
        assert!(storage.tables().iter().any(|table| table.name == damaged.name));
        let queried = storage.snapshot(&TableName::public("t")).unwrap_err().to_string();
        assert!(queried.contains(commit.to_str().unwrap()) && queried.contains("eden repair"), "{queried}");
        assert!(storage.refresh(&TableName::public("t")).is_err());
        // A request for two tables: the rows of the one are refused, those of the other stored.
        let other = batch("other", &[("a", life, &[("x", Value::F64(1.0))])]);
        let pending = storage.write(vec![batch("t", &[("a", 9, &[("x", Value::F64(9.0))])]), other], "test").unwrap();
        let [refused] = &pending.rejected[..] else { panic!("{:?}", pending.rejected) };
        assert!(refused.reason.contains(commit.to_str().unwrap()), "{}", refused.reason);
        assert_eq!(pending.accepted, 1);
        pending.wait().unwrap();
        let [row] = &recorded(&storage)[..] else { panic!("{:?}", recorded(&storage)) };
        assert!(row.contains("_delta_log") && row.contains("possible"), "{row}");
        // Everything else is flushed, and the log truncated as far as it may be.
        storage.close(Duration::from_secs(60)).unwrap();
    }
    sim.plant(commit, &whole).unwrap();
    let storage = world.reopen();
    assert_eq!(storage.damaged_tables(), []);
    let times = |table: &str| -> Vec<i64> { read(&storage, table).into_keys().map(|(_, time)| time).collect() };
    assert_eq!(times("t"), [0, 1, 2, 3, 4], "the log still had what no shard has");
    assert_eq!(times("other"), [0, 1, 2]);
}

#[test]
fn rows_that_meet_a_damaged_shard_wait_in_memory_and_in_the_log_until_it_is_whole() {
    let sim = SimDisk::new();
    let mut world = World::on(Arc::new(sim.clone()), PathBuf::from("/data"));
    let storage = world.open();
    write(&storage, "t", &[("a", 1, &[("x", Value::F64(1.0))]), ("a", 2, &[("x", Value::F64(2.0))])]);
    let table = TableName::public("t");
    storage.refresh(&table).unwrap();
    let shard = Path::new("/data/tables").join(&storage.snapshot(&table).unwrap().unwrap().shards[0].shard.path);
    drop(storage);
    let whole = read_file(&sim, &shard).unwrap();
    let mut bytes = whole.clone();
    bytes[whole.len() / 2] ^= 1;
    sim.plant(&shard, &bytes).unwrap();
    for _ in 0..2 {
        let storage = world.reopen();
        write(&storage, "t", &[("a", 1, &[("x", Value::F64(9.0))]), ("a", 3, &[("x", Value::F64(3.0))])]);
        for error in [storage.refresh(&table).unwrap_err(), storage.snapshot(&table).unwrap_err()] {
            assert!(error.to_string().contains(shard.to_str().unwrap()), "{error}");
        }
        assert_eq!(storage.stats().damaged_shards, 1);
    }
    sim.plant(&shard, &whole).unwrap();
    let storage = world.reopen();
    storage.refresh(&table).unwrap();
    let rows = read(&storage, "t");
    let values: Vec<(i64, &str)> = rows.iter().map(|((_, time), fields)| (*time, &*fields["x"])).collect();
    assert_eq!(values, [(1, "9"), (2, "2"), (3, "3")]);
}

#[test]
fn damage_to_the_table_of_agents_refuses_their_batches_and_nothing_is_lost() {
    let sim = SimDisk::new();
    let mut world = World::on(Arc::new(sim.clone()), PathBuf::from("/data"));
    let storage = world.open();
    let of_agent = |seq: u64| AgentBatch { agent: "pi".into(), epoch: 1, seq, crc: 7, gaps: Vec::new() };
    let send = |storage: &Storage, seq: u64| {
        let rows = batch("t", &[("a", seq as i64, &[("x", Value::F64(1.0))])]);
        let (pending, _) = storage.write_of_agent(vec![rows], &of_agent(seq), "test")?;
        pending.wait()
    };
    send(&storage, 1).unwrap();
    storage.refresh(&TableName::new("system", "agents")).unwrap();
    send(&storage, 2).unwrap();
    drop(storage);
    let commit = Path::new("/data/tables/system/agents/_delta_log/00000000000000000001.json");
    let whole = read_file(&sim, commit).unwrap();
    sim.plant(commit, &whole[1..]).unwrap();
    for _ in 0..2 {
        let storage = world.reopen();
        let refused = send(&storage, 3).unwrap_err().to_string();
        assert!(refused.contains(commit.to_str().unwrap()), "{refused}");
        write(&storage, "t", &[("b", 1, &[("x", Value::F64(1.0))])]);
        storage.close(Duration::from_secs(60)).unwrap();
    }
    sim.plant(commit, &whole).unwrap();
    let storage = world.reopen();
    send(&storage, 3).unwrap();
    send(&storage, 2).unwrap();
    assert_eq!(storage.stats().agent_duplicates_total, 1, "batch 2 is known");
    let snapshot = storage.snapshot(&TableName::new("system", "agents")).unwrap().unwrap();
    let rows = read_snapshot(&storage, &snapshot);
    let row = rows.values().next().unwrap();
    assert_eq!((&*row["batches"], &*row["missing"]), ("3", "0"));
    assert_eq!(read(&storage, "t").len(), 4);
}

/// A commit's text with the checksum that it must have; any other text as it is.
pub(crate) fn resealed(text: String) -> Vec<u8> {
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
