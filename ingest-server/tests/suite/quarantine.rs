//! What was refused, and writing it again.

use std::sync::Arc;

use ingest_server::config::Config;
use ingest_server::serve::Server;
use model::{FieldType, TableName};
use serde_json::{Value, json};
use storage::{Storage, TableOptions, TableSchema};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::process::{Answer, post, run};

/// A server within this process, so that its tables can be changed.
struct Setup {
    runtime: Runtime,
    server: Server,
    url: String,
    dir: TempDir,
}

impl Setup {
    fn start() -> Setup {
        let dir = TempDir::new().unwrap();
        let mut config = Config::default();
        config.http.listen = "127.0.0.1:0".into();
        config.mqtt.listen = "127.0.0.1:0".into();
        config.postgres.listen = "127.0.0.1:0".into();
        config.grpc.listen = "127.0.0.1:0".into();
        config.storage.data = dir.path().join("data");
        let runtime = Runtime::new().unwrap();
        let mut server = runtime.block_on(Server::bind(config)).unwrap();
        runtime.block_on(server.open()).unwrap();
        let url = format!("http://{}", server.http_addr());
        Setup { runtime, server, url, dir }
    }

    fn storage(&self) -> Arc<Storage> {
        self.server.app().for_writes().ok().unwrap().storage
    }

    fn rows(&self, sql: &str) -> Value {
        let answer = post(&self.url, "/_sql", &[], json!({ "stmt": sql }).to_string().as_bytes());
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["rows"].clone()
    }

    fn write(&self, body: &str) -> Answer {
        post(&self.url, "/api/v3/write_lp?db=public&precision=second", &[], body.as_bytes())
    }

    fn replay(&self, wanted: &Value) -> Value {
        let answer = post(&self.url, "/api/v1/quarantine/replay", &[], wanted.to_string().as_bytes());
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }
}

fn counts(payloads: u64, replayed: u64, lines: u64, refused: u64, not_replayable: u64) -> Value {
    json!({
        "payloads": payloads, "replayed": replayed, "lines": lines, "refused": refused,
        "not_replayable": not_replayable,
    })
}

#[test]
fn after_an_alter_a_replay_stores_exactly_the_lines_that_were_refused() {
    let setup = Setup::start();
    let (storage, table) = (setup.storage(), TableName::public("air"));
    let schema = TableSchema::new(&["room".into()], &[("t".into(), FieldType::decimal(1))]);
    storage.create_table(&table, &schema, TableOptions::default()).unwrap();
    let answer = setup.write(
        "air,room=a t=21.5 1780272000\nair,room=b t=21.55 1780272001\nair,room=c t=\"x\ny\" 1780272002\n\
         air,room=d t=21.25\nbad\nair,room=e t=2i 1780272003",
    );
    assert_eq!((answer.status, answer.header("x-eden-refused")), (400, Some("4")));
    let stored = "SELECT room, t, time FROM air WHERE room <> 'd' ORDER BY room";
    let first = json!([["a", 21.5, 1_780_272_000_000_i64], ["e", 2.0, 1_780_272_003_000_i64]]);
    assert_eq!(setup.rows(stored), first);
    let kept = "SELECT payload, database, precision, topic FROM system.quarantine ORDER BY id";
    let entry = |line: &str| json!([line, "public", "second", "/api/v3/write_lp"]);
    let (b, c) = (entry("air,room=b t=21.55 1780272001"), entry("air,room=c t=\"x\ny\" 1780272002"));
    assert_eq!(setup.rows(kept), json!([b, c, entry("air,room=d t=21.25"), entry("bad")]));

    assert_eq!(setup.replay(&json!({})), counts(4, 0, 0, 4, 0), "nothing has changed");
    storage.alter_column(&table, "t", FieldType::decimal(2)).unwrap();
    assert_eq!(setup.replay(&json!({"ids": []})), counts(0, 0, 0, 0, 0));
    let ids = setup.rows("SELECT id FROM system.quarantine WHERE payload LIKE 'air,room=d%'");
    assert_eq!(setup.replay(&json!({"ids": [ids[0][0]]})), counts(1, 1, 1, 0, 0));
    assert_eq!(setup.replay(&json!({})), counts(3, 1, 1, 2, 0));
    let all = json!([
        ["a", 21.5, 1_780_272_000_000_i64],
        ["b", 21.55, 1_780_272_001_000_i64],
        ["e", 2.0, 1_780_272_003_000_i64]
    ]);
    assert_eq!(setup.rows(stored), all);
    assert_eq!(setup.rows(kept), json!([c, entry("bad")]));
    // The line without a time has that at which it came, which is when its neighbours were set aside.
    let came =
        "SELECT count(*) FROM air, system.quarantine q WHERE room = 'd' AND air.time = q.time AND q.payload = 'bad'";
    assert_eq!(setup.rows(came), json!([[1]]));

    // What was replayed is not written again over a correction.
    assert_eq!(setup.write("air,room=b t=1.25 1780272001").status, 204);
    assert_eq!(setup.replay(&json!({})), counts(2, 0, 0, 2, 0));
    assert_eq!(setup.rows("SELECT t FROM air WHERE room = 'b'"), json!([[1.25]]));

    let said = |wanted: &str| post(&setup.url, "/api/v1/quarantine/replay", &[], wanted.as_bytes());
    assert_eq!(said("{\"ids\":[\"x\"]}").status, 400);
    setup.runtime.block_on(setup.server.stop()).unwrap();
}

#[test]
fn of_a_body_that_was_refused_whole_only_what_still_does_not_fit_stays() {
    let setup = Setup::start();
    let path = "/api/v3/write_lp?db=plant&accept_partial=false";
    let body = "# eden agent=pi epoch=1 seq=1 precision=ms\nm v=1 1780272000000\nm v\nm v=\"x\" 1780272000001\n";
    assert_eq!(post(&setup.url, path, &[], body.as_bytes()).status, 400);
    assert_eq!(setup.replay(&json!({})), counts(1, 0, 1, 1, 0));
    assert_eq!(setup.rows("SELECT v, time FROM plant.m"), json!([[1.0, 1_780_272_000_000_i64]]));
    let kept = "SELECT payload, precision, database, source FROM system.quarantine ORDER BY id";
    let kept = setup.rows(kept);
    assert!(kept[0][3].as_str().unwrap().ends_with(" pi"), "{kept}");
    let entry = |row: usize| json!([kept[row][0], kept[row][1], kept[row][2]]);
    assert_eq!(entry(0), json!(["m v", "millisecond", "plant"]));
    assert_eq!(entry(1), json!(["m v=\"x\" 1780272000001", "millisecond", "plant"]));
    assert_eq!(setup.replay(&json!({})), counts(2, 0, 0, 2, 0));
    setup.runtime.block_on(setup.server.stop()).unwrap();
}

#[test]
fn the_command_lists_and_replays() {
    let setup = Setup::start();
    setup.write("m v=1i 1\nother v=1 1");
    setup.write("m v=\"x\" 1\nother v=t 1\nm,far=yes v=2i 99999999999\n");
    let eden = |args: &[&str]| run(setup.dir.path(), &[&["quarantine"], args, &["--url", &setup.url]].concat());
    let listed = eden(&["list", "--table", "m", "--format", "csv"]);
    assert_eq!(listed.code, Some(0), "{}", listed.err);
    assert!(listed.out.contains("m v=\"\"x\"\" 1") && !listed.out.contains("other"), "{}", listed.out);
    assert_eq!(eden(&["list", "--limit", "1", "--format", "jsonl"]).out.lines().count(), 1);
    let replayed = eden(&["replay", "--table", "m", "--where", "reason LIKE '%max_future%'"]);
    assert_eq!(replayed.code, Some(1), "{}", replayed.err);
    assert!(replayed.out.starts_with("0 of 1 payloads replayed"), "{}", replayed.out);
    let all = eden(&["replay"]);
    assert!(all.out.starts_with("0 of 3 payloads replayed"), "{}", all.out);
    let wrong = eden(&["replay", "--where", "nonsense = 1"]);
    assert!(wrong.code == Some(1) && wrong.err.contains("nonsense"), "{}", wrong.err);
    setup.runtime.block_on(setup.server.stop()).unwrap();
}
