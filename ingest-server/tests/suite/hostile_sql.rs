//! Statements that mean harm: files, recursion, depth, size, time. Each is refused or bounded, and the server goes on.

mod statements;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::postgres::{Client, field, message};
use crate::process::{Eden, post_for_part};

/// What a statement may take, as the server is configured here.
const TIMEOUT: &str = "2s";

/// In which each must have an answer: the limit above, and what a build without optimisation on a machine with other work
/// needs to come to it.
const ANSWER_WITHIN: Duration = Duration::from_secs(180);

/// Most that the process may ever have had in memory, with three statements at a time. Its queries may have 64 MiB; beside that
/// each call of a function may make 128 MiB, of which an expression may hold several, and protocols write rows of such values.
const RESIDENT_BYTES_MAX: u64 = 3 << 30;

/// Those that take longer, and those beside which the process grows by more, are printed.
const SLOW: Duration = Duration::from_secs(6);
const GROWN_BYTES: u64 = 200 << 20;

/// Rows without end are cut by the time limit; so much of them was seen.
const PART_BYTES: u64 = 16 << 20;

/// Lines of `/etc/passwd`, and of nothing that a statement says.
const SECRET: &str = ":/root:";

/// Every one of them is sent to `/_sql`, and each of so many over PostgreSQL's protocol too.
const OVER_POSTGRES: usize = 4;

#[expect(clippy::disallowed_methods, reason = "the server runs in real time")]
#[test]
fn hostile_statements_are_refused_or_bounded_and_the_server_goes_on() {
    let eden = Eden::start_with(&[("EDEN_QUERY_MEMORY", "64MiB"), ("EDEN_QUERY_TIMEOUT", TIMEOUT)]);
    let lines: String = (0..200).map(|i| format!("air,room=r{} t={i},n={i}i {}\n", i % 7, 1_780_272_000 + i)).collect();
    assert_eq!(eden.post("/api/v3/write_lp?db=public&precision=second", &[], lines.as_bytes()).status, 204);
    let folder = tempfile::tempdir().unwrap();
    let trap = folder.path().join("made").display().to_string();
    let all = statements::all(&trap);
    let distinct: BTreeSet<&str> = all.iter().map(|(_, sql)| &**sql).collect();
    assert!(distinct.len() == all.len() && all.len() >= 200, "{} of {} are distinct", distinct.len(), all.len());

    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let highest = AtomicU64::new(0);
    let took: Mutex<Vec<(Duration, &str)>> = Mutex::default();
    let one = |number: usize, name: &'static str, sql: &str| {
        let began = Instant::now();
        let answer = post_for_part(&eden.url, "/_sql", json!({ "stmt": sql }).to_string().as_bytes(), PART_BYTES);
        let elapsed = began.elapsed();
        let peak = eden.peak_bytes();
        let grown = peak.saturating_sub(highest.fetch_max(peak, Ordering::Relaxed));
        if elapsed > SLOW || grown > GROWN_BYTES {
            println!("{elapsed:?}, {} MiB more: {}", grown >> 20, sql.chars().take(120).collect::<String>());
        }
        took.lock().unwrap().push((elapsed, name));
        let complain = |what: String| wrong.lock().unwrap().push(format!("{name}: {what}"));
        if elapsed > ANSWER_WITHIN {
            complain(format!("answered after {elapsed:?}"));
        }
        if answer.body.contains(SECRET) {
            complain("shows a file".into());
        }
        if name.starts_with("refused") && answer.status < 400 {
            complain(format!("was not refused: {answer:?}"));
        }
        if answer.body.contains("internal error") {
            complain(format!("is a bug here or below: {}", answer.body));
        }
        if number.is_multiple_of(OVER_POSTGRES) && !sql.contains('\0') {
            let mut client = Client::connect(eden.address("postgres"), &[("user", "me")]);
            client.send(&[message(b'Q', format!("{sql}\0").as_bytes())]);
            let mut rows_bytes = 0;
            while let Some((kind, body)) = client.receive() {
                match kind {
                    b'D' if String::from_utf8_lossy(&body).contains(SECRET) => complain("shows a file".into()),
                    b'D' => rows_bytes += body.len(),
                    b'E' if field(&body, b'C').starts_with("XX") => {
                        complain(format!("is a bug here or below: {}", field(&body, b'M')));
                    }
                    b'Z' => break,
                    _ => {}
                }
                if rows_bytes > PART_BYTES as usize {
                    break;
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while let Some((name, sql)) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let number = all.iter().position(|(_, other)| std::ptr::eq(other, sql)).unwrap();
                    one(number, name, sql);
                }
            });
        }
    });

    let mut took = took.into_inner().unwrap();
    took.sort_unstable();
    println!("{} statements; the longest: {:?}", all.len(), took.iter().rev().take(8).collect::<Vec<_>>());
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), all.len(), wrong.join("\n"));
    assert_eq!(
        eden.rows("SELECT count(*), sum(n) FROM air"),
        json!([[200, 19_900]]),
        "the server is there, and so are its rows"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "a statement made a file");
    let peak = eden.peak_bytes();
    println!("resident at most {} MiB", peak >> 20);
    assert!(peak < RESIDENT_BYTES_MAX, "{} MiB were resident", peak >> 20);
}
