//! Statements that need ten times the memory that all may have, twenty at once, while readings come in.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::process::{Eden, post};

/// What queries may reserve in all.
const MEMORY: &str = "8MiB";
const STATEMENTS: usize = 20;

/// Rows of each statement. One of them has a text of 80 bytes.
const ROWS: usize = 1_000_000;

/// Most that the process may ever have had in memory: what a build without optimisation has after its start, and what operators
/// hold beside what they reserve.
const RESIDENT_BYTES_MAX: u64 = 1 << 30;

/// What only this limit's error says.
const NAMES_THE_LIMIT: &str = "raise `[query] memory`";

/// Statements, with what they answer.
fn statements() -> [(String, Value); 3] {
    let rows = format!("(SELECT lpad((value * 7919 % 1000003)::text, 80, '0') AS s FROM generate_series(1, {ROWS}))");
    let sorted = format!("SELECT count(*), max(n) FROM (SELECT row_number() OVER (ORDER BY s) AS n FROM {rows})");
    let grouped = format!("SELECT count(*), sum(n) FROM (SELECT s, count(*) AS n FROM {rows} GROUP BY s)");
    let joined = format!("SELECT count(*), count(b.s) FROM {rows} a JOIN {rows} b ON a.s = b.s");
    [sorted, grouped, joined].map(|sql| (sql, json!([[ROWS, ROWS]])))
}

/// Whether a statement was answered rightly; if not, it says which limit it came to.
fn is_answered(url: &str, (sql, expected): &(String, Value)) -> bool {
    let answer = post(url, "/_sql", &[], json!({ "stmt": sql }).to_string().as_bytes());
    if answer.status == 200 {
        assert_eq!(answer.json()["rows"], *expected, "{sql}");
        return true;
    }
    assert!(answer.body.contains(NAMES_THE_LIMIT), "{sql}: {answer:?}");
    false
}

#[test]
fn twenty_statements_of_ten_times_the_memory_are_answered_or_name_the_limit_and_readings_go_on() {
    let eden = Eden::start_with(&[
        ("EDEN_QUERY_MEMORY", MEMORY),
        ("EDEN_QUERY_CONCURRENT_MAX", "20"),
        ("EDEN_QUERY_TIMEOUT", "30m"),
    ]);
    let statements = statements();
    let alone: Vec<bool> = statements.iter().map(|one| is_answered(&eden.url, one)).collect();
    assert!(alone[1], "groups go to disk: {alone:?}");

    let (is_over, acknowledged, answered) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let readings = scope.spawn(|| {
            for batch in 0_u64.. {
                let lines: String = (0..100).map(|i| format!("air,room=r{i} t={i} {}\n", 1 + batch)).collect();
                let written = eden.post("/api/v3/write_lp?db=public&precision=second", &[], lines.as_bytes());
                assert_eq!(written.status, 204, "{written:?}");
                acknowledged.fetch_add(100, Ordering::Relaxed);
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let queries: Vec<_> = (0..STATEMENTS)
            .map(|number| {
                let one = &statements[number % statements.len()];
                let (eden, answered) = (&eden, &answered);
                scope.spawn(move || answered.fetch_add(u64::from(is_answered(&eden.url, one)), Ordering::Relaxed))
            })
            .collect();
        let outcomes: Vec<_> = queries.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        is_over.store(true, Ordering::Relaxed);
        readings.join().unwrap();
        assert!(outcomes.iter().all(Result::is_ok), "a statement was wrong");
    });
    let acknowledged = acknowledged.into_inner();
    assert_eq!(eden.rows("SELECT count(*) FROM air"), json!([[acknowledged]]));
    let peak = eden.peak_bytes();
    println!(
        "alone {alone:?}; at once {} of {STATEMENTS} answered; {acknowledged} readings beside them; resident at most {} MiB",
        answered.into_inner(),
        peak >> 20
    );
    assert!(peak < RESIDENT_BYTES_MAX, "{} MiB were resident", peak >> 20);
    assert_eq!(
        eden.rows("SELECT count(*) FROM system.queries WHERE state = 'running' AND memory_bytes > 0"),
        json!([[0]])
    );
}
