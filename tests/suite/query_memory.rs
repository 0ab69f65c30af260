//! Queries that need far more memory than they may have, all at once.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use tests::{Eden, Outcome, cpu};

const QUERIES: usize = 20;
const QUERY_MEMORY: &str = "8MiB";

/// 200,000 rows of 400 bytes, ten times what all queries together may have. Their order is not the one they come in.
const SORT: &str = "SELECT count(*), max(place), min(length(pad)) FROM (SELECT pad, row_number() OVER (ORDER BY value % 1000, value) \
                    AS place FROM (SELECT value, repeat(chr(65 + value % 26), 400) AS pad FROM generate_series(1, 200000)))";

/// What the process may have had at most: 8 MiB of queries, their batches on the way, rows, threads.
const RESIDENT_BYTES_MAX: u64 = 700 << 20;

/// P10 and P1.
#[test]
fn twenty_queries_of_ten_times_the_memory_spill_or_fail_by_name_and_writers_are_unharmed() {
    let eden = Eden::options("query-memory")
        .setting("EDEN_QUERY_MEMORY", QUERY_MEMORY)
        .setting("EDEN_QUERY_CONCURRENT_MAX", "20")
        .setting("EDEN_QUERY_THREADS", "2")
        .start();
    let stop = AtomicBool::new(false);
    let (answers, written) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let (mut client, mut written) = (eden.client(), 0_i64);
            while !stop.load(Ordering::Relaxed) {
                let line = format!("air n={written}i {}", 1_780_272_000_000_000_000 + written * 1000);
                assert_eq!(client.write_lp(line.as_bytes()), Outcome::Acked, "after {written} readings");
                written += 1;
            }
            written
        });
        let queries: Vec<_> = (0..QUERIES).map(|_| scope.spawn(|| eden.client().sql(SORT))).collect();
        let answers: Vec<_> = queries.into_iter().map(|query| query.join().expect("a client lives")).collect();
        stop.store(true, Ordering::Relaxed);
        (answers, writer.join().expect("the writer was acknowledged all the while"))
    });
    let answered = answers.iter().flatten().count();
    for answer in answers {
        match answer {
            Ok(answer) => assert_eq!(answer["rows"], json!([[200_000, 200_000, 400]])),
            Err(error) => assert!(error.contains("`[query] memory`") && error.contains("8388608 bytes"), "{error}"),
        }
    }
    let spilled = "SELECT count(*) > 0 FROM system.queries WHERE spill_bytes > 0";
    assert_eq!(eden.sql(spilled).single(), true, "some have spilled");
    let held = "SELECT count(*) FROM system.queries WHERE memory_bytes > 0";
    assert_eq!(eden.sql(held).single(), 0, "what they had is free");
    assert_eq!(eden.sql("SELECT count(*) FROM air").single(), written);
    let peak = cpu::peak_memory_bytes(eden.pid());
    println!("{answered} of {QUERIES} answered, {written} readings meanwhile, {} MiB at most", peak >> 20);
    assert!(peak < RESIDENT_BYTES_MAX, "{} MiB were resident", peak >> 20);
    // One alone has what it needs.
    assert_eq!(eden.sql(SORT).len(), 1);
}
