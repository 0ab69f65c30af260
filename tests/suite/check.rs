//! `eden check` and `eden repair` on the real binary (P3, P11).

use std::path::{Path, PathBuf};

use tests::{Eden, Reading};

/// 2026-06-01T00:00:00Z.
const START_US: i64 = 1_780_272_000_000_000;
const DAY_US: i64 = 86_400_000_000;

/// The shards of a table, by day.
fn shards(table: &Path) -> Vec<PathBuf> {
    let entries = |folder: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(folder).expect("list").map(|entry| entry.expect("list").path()).collect()
    };
    let days = entries(table).into_iter().filter(|path| path.to_string_lossy().contains("eden_day="));
    let mut found: Vec<PathBuf> = days.flat_map(|day| entries(&day)).collect();
    found.sort();
    found
}

/// P11: one bit in one shard is found, named and set aside; the rest is there, and what is missing is written down.
#[test]
fn a_damaged_shard_is_named_by_check_and_query_and_set_aside_by_repair() {
    let mut eden = Eden::start("check-and-repair");
    let reading = |n: i64| Reading::at("air", START_US + n % 3 * DAY_US + n).tag("room", "a").field("n", n);
    eden.write(&(0..300).map(reading).collect::<Vec<_>>());
    eden.refresh("air");
    let data = eden.data().display().to_string();
    let run = |eden: &Eden, arguments: &[&str]| {
        let output = eden.cli(&[arguments, &["--data", &data]].concat());
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), text)
    };
    let (code, text) = run(&eden, &["check"]);
    assert!(code == Some(0) && text.contains("a server is using the folder"), "{text}");
    let (code, text) = run(&eden, &["repair"]);
    assert!(code == Some(2) && text.contains("another eden server"), "{text}");
    assert!(eden.stop().success());

    let shards = shards(&eden.table("air"));
    assert_eq!(shards.len(), 3);
    let name = shards[1].file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
    let mut bytes = std::fs::read(&shards[1]).expect("read a shard");
    bytes[100] ^= 4;
    std::fs::write(&shards[1], bytes).expect("damage a shard");
    let (code, text) = run(&eden, &["check"]);
    assert!(code == Some(1) && text.contains(&name), "{text}");

    eden.restart();
    let error = eden.client().sql("SELECT sum(n) FROM air").expect_err("a shard is damaged");
    assert!(error.contains(&name) && error.contains("eden repair"), "{error}");
    assert_eq!(eden.sql("SELECT count(n) FROM air WHERE time < '2026-06-02'").single(), 100);
    assert!(eden.stop().success());

    let (code, text) = run(&eden, &["repair"]);
    assert!(code == Some(1) && text.contains("100 rows of table air") && text.contains("--yes"), "{text}");
    assert!(shards[1].exists(), "a plan changes nothing");
    let (code, text) = run(&eden, &["repair", "--yes"]);
    assert!(code == Some(0) && !shards[1].exists(), "{text}");
    let (code, text) = run(&eden, &["check"]);
    assert!(code == Some(0), "{text}");

    eden.restart();
    assert_eq!(eden.sql("SELECT count(*) FROM air").single(), 200);
    let lost = eden.sql("SELECT * FROM system.data_loss WHERE certainty = 'certain'");
    assert_eq!((lost.len(), lost.get(0, "rows").as_i64()), (1, Some(100)));
    assert!(eden.stop().success());
}
