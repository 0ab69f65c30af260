//! Queries over a table of which a shard is damaged: by HTTP and by `eden sql`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::process::{Answer, Eden, get, post, run};

const SKIP: (&str, &str) = ("x-eden-skip-damaged", "true");

/// A server whose table `m` has a shard of two days each; of the first 3 rows, of the second 2. And the path of the first.
fn two_days() -> (Eden, PathBuf) {
    let eden = Eden::start();
    let lines = "m v=1 1780272000000000\nm v=2 1780272001000000\nm v=3 1780272002000000\n\
                 m v=10 1780358400000000\nm v=20 1780358401000000\n";
    assert_eq!(eden.write(lines).status, 204);
    assert_eq!(eden.sql("REFRESH TABLE m").status, 200);
    let day = eden.data().join("tables/public/m/eden_day=2026-06-01");
    let mut files = fs::read_dir(day).unwrap().map(|entry| entry.unwrap().path());
    let shard = files.find(|path| path.extension().is_some_and(|extension| extension == "parquet")).unwrap();
    (eden, shard)
}

/// One bit of the first page.
fn damage(shard: &Path) {
    let mut bytes = fs::read(shard).unwrap();
    bytes[6] ^= 4;
    fs::write(shard, bytes).unwrap();
}

fn check_headers(answer: &Answer, shards: &str, rows: &str, name: Option<&str>) {
    let found = ["x-eden-left-out-shards", "x-eden-left-out-rows"].map(|header| answer.header(header));
    assert_eq!(found, [Some(shards), Some(rows)], "{answer:?}");
    assert_eq!(answer.header("x-eden-left-out"), name, "{answer:?}");
}

#[test]
fn both_endpoints_go_on_without_a_damaged_shard_if_told_to_and_say_so() {
    let (eden, shard) = two_days();
    let name = shard.strip_prefix(eden.data().join("tables")).unwrap().display().to_string();
    let statement = "SELECT sum(v) AS v FROM m";
    let crate_sql = |headers: &[(&str, &str)]| {
        post(&eden.url, "/_sql", headers, json!({ "stmt": statement }).to_string().as_bytes())
    };
    let path = "/api/v3/query_sql?db=public&q=SELECT+sum(v)+AS+v+FROM+m";
    let by_post = |headers: &[(&str, &str)]| {
        let body = json!({ "db": "public", "q": statement, "format": "csv" }).to_string();
        post(&eden.url, "/api/v3/query_sql", headers, body.as_bytes())
    };
    let whole = crate_sql(&[SKIP]);
    assert_eq!(whole.json()["rows"], json!([[36.0]]));
    check_headers(&whole, "0", "0", None);

    damage(&shard);
    for _ in 0..2 {
        let error = crate_sql(&[]);
        assert_eq!((error.status, error.json()["error"]["code"].as_u64()), (500, Some(5002)));
        assert!(error.body.contains("X-Eden-Skip-Damaged: true") && error.body.contains(&name), "{error:?}");
        assert!(error.header("x-eden-left-out-shards").is_none());
        let answer = crate_sql(&[SKIP]);
        assert_eq!((answer.status, &answer.json()["rows"]), (200, &json!([[30.0]])));
        check_headers(&answer, "1", "3", Some(&name));
    }
    assert_eq!(get(&eden.url, path, &[]).status, 500);
    let answer = get(&eden.url, path, &[SKIP]);
    assert_eq!((answer.status, answer.json()), (200, json!([{ "v": 30.0 }])));
    check_headers(&answer, "1", "3", Some(&name));
    let answer = by_post(&[SKIP]);
    assert_eq!((answer.status, &*answer.body), (200, "v\n30.0\n"));
    check_headers(&answer, "1", "3", Some(&name));

    assert_eq!(by_post(&[("x-eden-skip-damaged", "false")]).status, 500);
    let wrong = by_post(&[("x-eden-skip-damaged", "perhaps")]);
    assert!(wrong.status == 400 && wrong.body.contains("perhaps"), "{wrong:?}");
    // It is no way to delete around a shard.
    let delete = json!({ "stmt": "DELETE FROM m WHERE v > 0" }).to_string();
    assert_eq!(post(&eden.url, "/_sql", &[SKIP], delete.as_bytes()).status, 500);

    fs::remove_file(&shard).unwrap();
    let eden = Eden::start_in(eden.kill(), &[]);
    let answer = post(&eden.url, "/_sql", &[SKIP], json!({ "stmt": statement }).to_string().as_bytes());
    assert_eq!((answer.status, &answer.json()["rows"]), (200, &json!([[30.0]])), "{answer:?}");
    check_headers(&answer, "1", "3", Some(&name));
}

#[test]
fn the_command_warns_of_what_it_went_on_without() {
    let (eden, shard) = two_days();
    damage(&shard);
    let sql = |args: &[&str]| run(eden.dir.path(), &[&["sql", "--url", &eden.url], args].concat());
    let failed = sql(&["SELECT sum(v) FROM m"]);
    assert!(failed.code == Some(1) && failed.err.contains("--skip-damaged"), "{}", failed.err);
    let name = shard.strip_prefix(eden.data().join("tables")).unwrap().display().to_string();
    let warning = format!("warning: 1 damaged shard with 3 rows left out: {name}\n");
    for format in ["table", "csv", "json"] {
        let shown = sql(&["--skip-damaged", "--format", format, "SELECT sum(v) FROM m"]);
        assert_eq!((shown.code, &*shown.err), (Some(0), &*warning), "{format}");
        assert!(shown.out.contains("30"), "{}", shown.out);
    }
    let whole = sql(&["--skip-damaged", "SELECT 1"]);
    assert_eq!((whole.code, &*whole.err), (Some(0), ""));
}
