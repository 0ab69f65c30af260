use tests::delta_log::DeltaLog;
use tests::{Eden, Reading};

/// 2026-06-01T00:00:00Z.
const START_US: i64 = 1_780_272_000_000_000;

fn readings(count: i64) -> Vec<Reading> {
    let reading = |n: i64| Reading::at("air", START_US + n).tag("room", &format!("r{}", n % 7)).field("n", n);
    (0..count).map(reading).collect()
}

/// P5: after a clean stop, shards alone hold every row.
#[test]
fn a_clean_stop_flushes_everything_and_removes_the_addresses() {
    let mut eden = Eden::start("clean-stop");
    eden.write(&readings(1_000));
    assert!(eden.stop().success());
    assert_eq!(DeltaLog::read(&eden.table("air")).rows(), 1_000);
    assert!(!eden.data().join("addresses.json").exists());

    eden.restart();
    assert_eq!(eden.sql("SELECT count(*) FROM air").single(), 1_000);
}

/// P4: what is flushed twice, retried or corrected is still one row for any reader.
#[test]
fn retries_and_corrections_after_a_flush_leave_each_key_once_in_the_shards() {
    let mut eden = Eden::start("each-key-once");
    eden.write(&readings(100));
    eden.refresh("air");
    eden.write(&readings(100));
    eden.write(&[Reading::at("air", START_US + 5).tag("room", "r5").field("n", -5_i64)]);
    eden.refresh("air");
    assert_eq!(DeltaLog::read(&eden.table("air")).rows(), 100);
    let sum = (0..100).sum::<i64>() - 10;
    assert_eq!(eden.sql("SELECT sum(n) FROM air").single(), sum);

    eden.kill();
    eden.restart();
    assert_eq!(eden.sql("SELECT sum(n) FROM air").single(), sum);
    assert!(eden.stop().success());
    assert_eq!(DeltaLog::read(&eden.table("air")).rows(), 100);
}
