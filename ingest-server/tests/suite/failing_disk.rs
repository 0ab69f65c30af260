//! A server on a disk that hangs or fails, within this process.

use std::sync::Arc;

use faults::{FaultDisk, Faults, Operation};
use ingest_server::config::Config;
use ingest_server::serve::{Server, Surroundings};
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::process::{get, post};

struct Setup {
    runtime: Runtime,
    server: Server,
    faults: Faults,
    url: String,
    _dir: TempDir,
}

fn bind() -> Setup {
    let dir = TempDir::new().unwrap();
    let mut config = Config::default();
    config.http.listen = "127.0.0.1:0".into();
    config.mqtt.listen = "127.0.0.1:0".into();
    config.postgres.listen = "127.0.0.1:0".into();
    config.grpc.listen = "127.0.0.1:0".into();
    config.storage.data = dir.path().join("data");
    let mut surroundings = Surroundings::system();
    let (disk, faults) = FaultDisk::new(surroundings.disk);
    surroundings.disk = Arc::new(disk);
    let runtime = Runtime::new().unwrap();
    let server = runtime.block_on(Server::bind_in(config, surroundings)).unwrap();
    let url = format!("http://{}", server.http_addr());
    Setup { runtime, server, faults, url, _dir: dir }
}

#[test]
fn while_the_folder_is_opened_health_answers_and_work_is_put_off() {
    let Setup { runtime, mut server, faults, url, _dir } = bind();
    faults.hold_syncs();
    let opening = runtime.spawn(async move {
        let opened = server.open().await;
        (server, opened)
    });
    faults.wait_for_held_sync();

    let health = get(&url, "/health", &[]);
    assert_eq!((health.status, health.body.as_str()), (200, "OK"));
    let ready = get(&url, "/ready", &[]);
    assert_eq!(ready.status, 503);
    assert_eq!(ready.json(), json!({"status": "replaying", "done_bytes": 0, "total_bytes": 0, "share": 0.0}));
    let write = post(&url, "/api/v3/write_lp?db=public", &[], b"m v=1 1");
    assert_eq!(write.status, 503);
    assert!(write.header("retry-after").is_some());
    let sql = post(&url, "/_sql", &[], br#"{"stmt":"SELECT 1"}"#);
    assert_eq!((sql.status, sql.json()["error"]["code"].as_u64()), (503, Some(5030)));
    assert!(get(&url, "/metrics", &[]).body.contains("eden_ready 0\n"));

    faults.release_syncs();
    let (server, opened) = runtime.block_on(opening).unwrap();
    opened.unwrap();
    assert_eq!(get(&url, "/ready", &[]).status, 200);
    assert_eq!(post(&url, "/api/v3/write_lp?db=public", &[], b"m v=1 1").status, 204);
    runtime.block_on(server.stop()).unwrap();
}

/// P2.
#[test]
fn a_failed_sync_of_the_log_ends_acknowledgements_and_is_told() {
    let Setup { runtime, mut server, faults, url, _dir } = bind();
    runtime.block_on(server.open()).unwrap();
    let write = |lines: &str| post(&url, "/api/v3/write_lp?db=public", &[], lines.as_bytes());
    assert_eq!(write("m v=1 1").status, 204);
    // One of these may be that of a segment which is prepared in the background.
    for n in 1..=2 {
        faults.fail(Operation::Sync, n, |path| path.extension().is_some_and(|name| name == "wal"));
    }
    let statuses: Vec<u16> = (0..3).map(|_| write("m v=2 2").status).collect();
    assert!(statuses.contains(&503) && statuses.is_sorted(), "{statuses:?}");

    let refused = write("m v=3 3");
    assert_eq!(refused.status, 503);
    assert!(refused.json()["error"].as_str().unwrap().contains("restart the server"), "{refused:?}");
    assert!(refused.header("retry-after").is_some());
    for path in ["/health", "/ready"] {
        let answer = get(&url, path, &[]);
        assert_eq!((answer.status, answer.json()["status"].as_str()), (503, Some("poisoned")));
    }
    // What was acknowledged can still be read.
    let rows = post(&url, "/_sql", &[], br#"{"stmt":"SELECT v FROM m WHERE v = 1"}"#);
    assert_eq!(rows.json()["rows"], json!([[1.0]]));
    let _ = runtime.block_on(server.stop());
}
