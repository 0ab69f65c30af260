//! What `eden check` finds where every checksum is right: bugs, and files that were put there by somebody.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::UInt32Array;
use arrow::compute::take_record_batch;
use bytes::Bytes;
use faults::{FaultDisk, Operation, SimDisk};
use model::{TableName, Value};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value as Json, json};
use storage::check::{CheckOptions, Severity, check};
use wal::disk::{SharedDisk, read_file};

use crate::damage::resealed;
use crate::mutations::files;
use crate::world::{World, write};

const COMMIT: &str = "/data/tables/public/t/_delta_log/00000000000000000002.json";

/// Two shards of one day, written by commits 1 and 2.
fn build() -> SimDisk {
    let disk = SimDisk::new();
    let storage = World::on(Arc::new(disk.clone()), PathBuf::from("/data")).open();
    for first in [0, 10] {
        for n in first..first + 5 {
            let value = Value::F64(n as f64);
            write(&storage, "t", &[("a", n, &[("x", value)]), ("b", 20 - n, &[("x", value), ("n", Value::I64(n))])]);
        }
        storage.refresh(&TableName::public("t")).unwrap();
    }
    storage.close(Duration::from_secs(60)).unwrap();
    disk
}

fn findings(disk: &SimDisk) -> Vec<String> {
    findings_on(Arc::new(disk.clone()))
}

/// What is found, each with the name of the file.
fn findings_on(shared: SharedDisk) -> Vec<String> {
    let report = check(&shared, &CheckOptions::new(PathBuf::from("/data")), &mut |_| {}).unwrap();
    let found = report.findings.into_iter().filter(|finding| finding.severity > Severity::Note);
    found.map(|finding| format!("{}: {}", finding.file.display(), finding.what)).collect()
}

/// Changes the add of the newest commit, and what its statistics say.
fn change(disk: &SimDisk, change: impl FnOnce(&mut Json, &mut Json)) {
    let text = String::from_utf8(read_file(disk, Path::new(COMMIT)).unwrap()).unwrap();
    let mut lines: Vec<Json> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let add = lines.iter_mut().find_map(|line| line.get_mut("add")).unwrap();
    let mut stats: Json = serde_json::from_str(add["stats"].as_str().unwrap()).unwrap();
    change(add, &mut stats);
    add["stats"] = stats.to_string().into();
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    disk.plant(Path::new(COMMIT), &resealed(text)).unwrap();
}

/// Puts another file in the place of the newest shard, and its checksum in the log.
fn replace_file(disk: &SimDisk, bytes: &[u8]) {
    change(disk, |add, _| {
        let path = Path::new("/data/tables/public/t").join(add["path"].as_str().unwrap());
        disk.plant(&path, bytes).unwrap();
        add["size"] = bytes.len().into();
        add["tags"]["eden.crc32c"] = format!("{:08x}", crc32c::crc32c(bytes)).into();
    });
}

#[test]
fn what_no_checksum_shows_is_found() {
    assert_eq!(findings(&build()), [""; 0]);
    let check = |what: &str, act: &dyn Fn(&SimDisk)| {
        let disk = build();
        act(&disk);
        let found = findings(&disk);
        assert!(found.len() == 1 && found[0].contains(what), "{what}: {found:#?}");
    };
    check("has maxValues 14.0; the Delta log says 15.0", &|disk| {
        change(disk, |_, stats| stats["maxValues"]["x"] = json!(15.0));
    });
    check("has minValues", &|disk| change(disk, |_, stats| stats["minValues"]["s"] = json!("aa")));
    check("has nullCount 5; the Delta log says 4", &|disk| change(disk, |_, stats| stats["nullCount"]["n"] = json!(4)));
    check("it has 10 rows; the Delta log says 11", &|disk| change(disk, |_, stats| stats["numRecords"] = json!(11)));
    check("is not of 2026-06-02", &|disk| {
        change(disk, |add, _| add["partitionValues"]["eden_day"] = json!("2026-06-02"));
    });
    check("checksum", &|disk| {
        let shard = &files(disk, &["/eden_day="])[0];
        let mut bytes = read_file(disk, shard).unwrap();
        bytes[40] ^= 1;
        disk.plant(shard, &bytes).unwrap();
    });
    check("the file is missing", &|disk| {
        wal::disk::Disk::remove_file(disk, &files(disk, &["/eden_day="])[0]).unwrap();
    });
    // Rows in another order, and a row twice.
    for rows in [[1_u32, 0, 2, 3, 4, 5, 6, 7, 8, 9], [0, 1, 1, 3, 4, 5, 6, 7, 8, 9]] {
        check("does not lie behind the one before it", &|disk| {
            let newest = newest_shard(disk);
            let reader = ParquetRecordBatchReaderBuilder::try_new(newest).unwrap();
            let batch = reader.build().unwrap().next().unwrap().unwrap();
            let batch = take_record_batch(&batch, &UInt32Array::from(rows.to_vec())).unwrap();
            let mut bytes = Vec::new();
            let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
            writer.write(&batch).unwrap();
            writer.close().unwrap();
            replace_file(disk, &bytes);
        });
    }
    // The older shard once more, under the newer one's name.
    check("10 keys of 2026-06-01 are in public/t/eden_day=2026-06-01/", &|disk| {
        let text =
            String::from_utf8(read_file(disk, &Path::new(COMMIT).with_file_name("00000000000000000001.json")).unwrap());
        let text = text.unwrap();
        let older: Json = serde_json::from_str(text.lines().find(|line| line.contains("\"add\"")).unwrap()).unwrap();
        let path = |add: &Json| Path::new("/data/tables/public/t").join(add["path"].as_str().unwrap());
        let bytes = read_file(disk, &path(&older["add"])).unwrap();
        change(disk, |add, stats| {
            disk.plant(&path(add), &bytes).unwrap();
            let name = add["path"].take();
            *add = older["add"].clone();
            add["path"] = name;
            *stats = serde_json::from_str(add["stats"].as_str().unwrap()).unwrap();
        });
    });
    check("the commit is missing", &|disk| {
        wal::disk::Disk::remove_file(disk, &Path::new(COMMIT).with_file_name("00000000000000000001.json")).unwrap();
    });
}

/// Whatever a disk does not give, nothing is called damaged that may be sound.
#[test]
fn a_shard_that_cannot_be_read_is_not_called_damaged() {
    let mut failures = 0;
    for nth in 1..60 {
        let (faulty, faults) = FaultDisk::new(Arc::new(build()));
        faults.fail(Operation::Read, nth, |path| path.extension().is_some_and(|ending| ending == "parquet"));
        let found = findings_on(Arc::new(faulty));
        assert!(found.iter().all(|finding| finding.contains("Input/output error")), "read {nth}: {found:#?}");
        if found.is_empty() {
            break;
        }
        failures += 1;
    }
    assert!(failures >= 6, "only {failures} reads failed");
}

fn newest_shard(disk: &SimDisk) -> Bytes {
    let text = String::from_utf8(read_file(disk, Path::new(COMMIT)).unwrap()).unwrap();
    let add: Json = serde_json::from_str(text.lines().find(|line| line.contains("\"add\"")).unwrap()).unwrap();
    let path = Path::new("/data/tables/public/t").join(add["add"]["path"].as_str().unwrap());
    read_file(disk, &path).unwrap().into()
}

#[test]
fn keys_are_compared_between_shards_that_are_never_open_together_with_all_others() {
    let disk = SimDisk::new();
    let storage = World::on(Arc::new(disk.clone()), PathBuf::from("/data")).open();
    // Shards whose times all meet, with no key in two of them. Not so many commits that there is a checkpoint.
    for n in 0..50 {
        write(&storage, "t", &[("a", n, &[("x", Value::F64(1.0))]), ("b", 1000 - n, &[("x", Value::F64(2.0))])]);
        storage.refresh(&TableName::public("t")).unwrap();
    }
    storage.close(Duration::from_secs(60)).unwrap();
    drop(storage);
    assert_eq!(findings(&disk), [""; 0]);
    // The shard of the first commit again, in place of the one of the last.
    let shards = files(&disk, &["/eden_day="]).len();
    assert_eq!(shards, 50);
    let commit = |version: usize| PathBuf::from(format!("/data/tables/public/t/_delta_log/{version:020}.json"));
    let add = |version: usize| -> Json {
        let text = String::from_utf8(read_file(&disk, &commit(version)).unwrap()).unwrap();
        serde_json::from_str::<Json>(text.lines().find(|line| line.contains("\"add\"")).unwrap()).unwrap()["add"].take()
    };
    let path = |add: &Json| Path::new("/data/tables/public/t").join(add["path"].as_str().unwrap());
    let (first, last) = (add(1), add(50));
    disk.plant(&path(&last), &read_file(&disk, &path(&first)).unwrap()).unwrap();
    let text = String::from_utf8(read_file(&disk, &commit(50)).unwrap()).unwrap();
    let mut again = first.clone();
    again["path"] = last["path"].clone();
    let line = text.lines().find(|line| line.contains("\"add\"")).unwrap();
    disk.plant(&commit(50), &resealed(text.replace(line, &json!({"add": again}).to_string()))).unwrap();
    let found = findings(&disk);
    assert!(found.len() == 1 && found[0].contains("2 keys of 2026-06-01 are in"), "{found:#?}");
}
