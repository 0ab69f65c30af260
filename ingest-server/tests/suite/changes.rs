//! Statements that change tables, by `/_sql` and `eden sql`.

use serde_json::json;

use crate::process::{Eden, run};

#[test]
fn statements_that_change_something_answer_as_cratedb_does() {
    let eden = Eden::start();
    for (stmt, rowcount) in [
        ("CREATE TABLE env (sensor TEXT, v DOUBLE, w BIGINT, PRIMARY KEY (sensor, time))", 1),
        ("CREATE TABLE IF NOT EXISTS env (x DOUBLE)", 0),
        ("ALTER TABLE env SET (retention = '365d')", -1),
        ("ALTER TABLE env ADD COLUMN note TEXT", -1),
        ("OPTIMIZE TABLE env", 1),
        ("DELETE FROM env", 0),
    ] {
        let answer = eden.sql(stmt).json();
        assert_eq!(
            (&answer["cols"], &answer["rows"], &answer["rowcount"]),
            (&json!([]), &json!([[]]), &json!(rowcount))
        );
    }
    assert_eq!(eden.write("env,sensor=a v=1,w=1i 1780272000000000\nenv,sensor=b v=2 1780272000000000").status, 204);
    assert_eq!(eden.sql("UPDATE env SET w = NULL").json()["rowcount"], 1);
    assert_eq!(eden.sql("DELETE FROM env WHERE v = 2").json()["rowcount"], 1);
    assert_eq!(eden.rows("SELECT sensor, v, w FROM env"), json!([["a", 1.0, null]]));
    let again = eden.sql("CREATE TABLE env (x DOUBLE)");
    assert_eq!((again.status, &again.json()["error"]["code"]), (409, &json!(4093)));
    assert_eq!(eden.sql("DROP TABLE env").json()["rowcount"], 1);
    assert_eq!(eden.sql("DROP TABLE env").status, 404);
}

#[test]
fn the_command_says_what_was_done() {
    let eden = Eden::start();
    assert_eq!(eden.write("env,sensor=a v=1 1780272000000000\nenv,sensor=b v=2 1780272000000000").status, 204);
    let sql = |args: &[&str]| run(eden.dir.path(), &[&["sql", "--data", "data"], args].concat());
    let deleted = sql(&["DELETE FROM env WHERE v = 2; DROP TABLE IF EXISTS nowhere; drop table env"]);
    assert_eq!(deleted.code, Some(0), "{}", deleted.err);
    let lines: Vec<&str> = deleted.out.lines().map(|line| line.split(" (").next().unwrap()).collect();
    assert_eq!(lines, ["DELETE 1", "DROP TABLE, nothing to do", "DROP TABLE"]);
    // What other programs read has no such line.
    let made = sql(&["--format", "csv", "CREATE TABLE t (x DOUBLE); SELECT count(*) AS n FROM t"]);
    assert_eq!((made.out.as_str(), made.code), ("n\n0\n", Some(0)), "{}", made.err);
    assert!(made.err.starts_with("CREATE TABLE ("), "{}", made.err);
}

#[test]
fn a_page_of_another_site_changes_nothing() {
    let eden = Eden::start();
    assert_eq!(eden.write("env,sensor=a v=1 1780272000000000").status, 204);
    let drop = json!({ "stmt": "DROP TABLE env" }).to_string();
    for origin in ["https://elsewhere.example", "null", "http://127.0.0.1:1"] {
        let headers = [("Origin", origin), ("Content-Type", "text/plain")];
        assert_eq!(eden.post("/_sql", &headers, drop.as_bytes()).status, 403, "{origin}");
        assert_eq!(eden.post("/api/v3/write_lp?db=public", &headers, b"env v=2").status, 403, "{origin}");
    }
    assert_eq!(eden.rows("SELECT count(*) FROM env"), json!([[1]]));
    assert_eq!(eden.post("/_sql", &[("Origin", &eden.url)], drop.as_bytes()).status, 200);
}
