//! A corrupt shard is an error that names it (P11).

use std::fs;
use std::path::{Path, PathBuf};

use model::Value;
use query::{LeftOut, QueryError};

use crate::{DAY, HOUR, Server};

fn shards(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            shards(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "parquet")
            && !path.components().any(|part| part.as_os_str() == "_delta_log")
        {
            found.push(path);
        }
    }
}

/// A table of three shards, of which `damage` has had the second.
async fn damaged(damage: impl FnOnce(&Path)) -> (Server, String) {
    let server = Server::start();
    for day in 0..3_i64 {
        let rows: Vec<_> = (0..2000).map(|n| (DAY + day * 24 * HOUR + n, [("n", Value::I64(n * n))])).collect();
        let readings: Vec<_> = rows.iter().map(|(time, fields)| ("a", *time, &fields[..])).collect();
        server.write("env", &readings).await;
        server.refresh("env").await;
    }
    let tables = server.folder.path().join("data/tables");
    let mut found = Vec::new();
    shards(&tables, &mut found);
    found.sort();
    assert_eq!(found.len(), 3);
    damage(&found[1]);
    let name = found[1].strip_prefix(&tables).unwrap().display().to_string();
    (server, name)
}

async fn check(damage: impl FnOnce(&Path)) {
    let (server, name) = damaged(damage).await;
    // Asked to, it goes on without the shard, at once and again, and says so.
    for sql in ["SELECT count(n), sum(n) FROM env", "SELECT count(*), sum(n) FROM env WHERE n >= 0"] {
        let (rows, left_out) = server.query_without_damaged(sql).await.unwrap();
        let sum = 2 * (0..2000_i64).map(|n| n * n).sum::<i64>();
        assert_eq!(rows, [format!("4000 {sum}")], "{sql}");
        assert_eq!(left_out, [LeftOut { shard: name.clone(), rows: 2000 }], "{sql}");
    }
    let (rows, _) = server.query_without_damaged("SELECT n FROM env").await.unwrap();
    assert_eq!(rows.len(), 4000);
    let error = server.error("SELECT sum(n) FROM env").await;
    assert!(error.to_string().contains("X-Eden-Skip-Damaged: true, goes on without it"), "{error}");
    match error {
        QueryError::Corrupt { path, reason } => {
            assert_eq!(path.display().to_string(), name, "{reason}");
            assert!(!reason.is_empty());
        }
        other => panic!("{other:?}"),
    }
    let healthy = server.query("SELECT count(n) FROM env WHERE time < '2024-05-02'").await;
    assert_eq!(healthy, ["2000"], "the others are served");
}

#[tokio::test]
async fn a_shard_with_damaged_pages_is_named() {
    check(|path| {
        let mut bytes = fs::read(path).unwrap();
        let end = bytes.len() / 2;
        bytes[4..end].fill(0xa5);
        fs::write(path, bytes).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_shard_with_a_damaged_footer_is_named() {
    check(|path| {
        let mut bytes = fs::read(path).unwrap();
        let end = bytes.len() - 8;
        bytes[end - 64..end].fill(0xa5);
        fs::write(path, bytes).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_truncated_shard_is_named() {
    check(|path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_missing_shard_is_named() {
    check(|path| fs::remove_file(path).unwrap()).await;
}

#[tokio::test]
async fn a_shard_of_another_length_is_named() {
    let (server, name) = damaged(|path| {
        // Rows of another day, whole but not what the log says.
        let other = fs::read_dir(path.parent().unwrap().parent().unwrap().join("eden_day=2024-05-01")).unwrap();
        let other = other.map(|entry| entry.unwrap().path()).find(|path| path.extension().is_some()).unwrap();
        let mut bytes = fs::read(other).unwrap();
        bytes.truncate(bytes.len() - 1);
        fs::write(path, bytes).unwrap();
    })
    .await;
    match server.error("SELECT sum(n) FROM env").await {
        QueryError::Corrupt { path, .. } => assert_eq!(path.display().to_string(), name),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn nothing_is_left_out_of_a_whole_table() {
    let (server, _) = damaged(|_| {}).await;
    let (rows, left_out) = server.query_without_damaged("SELECT count(n) FROM env").await.unwrap();
    assert_eq!((rows, left_out), (vec!["6000".to_owned()], vec![]));
}

#[tokio::test]
async fn rows_in_memory_are_there_without_the_shard_unless_they_correct_it() {
    let (server, name) = damaged(|path| {
        let mut bytes = fs::read(path).unwrap();
        let end = bytes.len() / 2;
        bytes[4..end].fill(0xa5);
        fs::write(path, bytes).unwrap();
    })
    .await;
    server.write("env", &[("a", DAY + 36 * HOUR, &[("n", Value::I64(-1))])]).await;
    let (rows, left_out) = server.query_without_damaged("SELECT count(n), min(n) FROM env").await.unwrap();
    assert_eq!((rows, left_out.len()), (vec!["4001 -1".to_owned()], 1));
    // What such a row is besides the field that is written can only be read in the shard.
    server.write("env", &[("a", DAY + 24 * HOUR + 5, &[("n", Value::I64(-2))])]).await;
    let error = server.query_without_damaged("SELECT count(n) FROM env").await.unwrap_err().to_string();
    assert!(error.contains(&name) && error.contains("it cannot be left out now"), "{error}");
}
