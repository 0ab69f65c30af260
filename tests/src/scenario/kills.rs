//! P1 under SIGKILL: eight clients write, retry and correct; the server dies at random moments; every value is compared.
//!
//! Invariants
//!  1. Each key belongs to one writer, so the oracle knows the order of its writes.
//!  2. After a restart acked ⊆ stored ⊆ attempted, values equal; what was seen then, stays (see [`Oracle`]).
//!  3. Retries and late readings change nothing, corrections stand, whatever was flushed in between (P8).
//!  4. After a clean stop the Delta tables alone hold exactly the rows that SQL showed (P4, P5).

use std::collections::VecDeque;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::{compare, values};
use crate::http::{Client, Outcome};
use crate::oracle::Oracle;
use crate::reading::Reading;
use crate::rng::Rng;
use crate::{Eden, wait};

const WRITERS: u64 = 8;
/// A folder grows with each round, and comparing it takes longer.
const ROUNDS_PER_FOLDER: u64 = 10;
const ACKS_MAX: u64 = 200;
const RECENT: usize = 64;
const TABLES: [&str; 2] = ["air", "power"];
/// 2026-06-01T00:00:00Z.
const START_US: i64 = 1_780_272_000_000_000;
const DAY_US: i64 = 86_400_000_000;
/// Writers that get no answer for so long are stuck.
const ACKS_WITHIN: Duration = Duration::from_secs(120);

/// What the rounds went through.
#[derive(Clone, Debug, Default)]
pub struct KillReport {
    /// Kills while clients wrote.
    pub kills: u64,
    /// Kills of a server that was still starting.
    pub kills_while_starting: u64,
    /// Batches acknowledged.
    pub acked: u64,
    /// Batches without an answer.
    pub unknown: u64,
    /// Rows compared after restarts.
    pub rows_compared: u64,
}

impl fmt::Display for KillReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} kills while writing, {} while starting; {} batches acknowledged, {} without an answer; {} rows compared, \
             0 differences",
            self.kills, self.kills_while_starting, self.acked, self.unknown, self.rows_compared
        )
    }
}

/// Runs `rounds` kills; `progress` is told after each folder.
///
/// # Panics
/// When the store and the oracle differ; the seed is printed.
pub fn kills(first_seed: u64, rounds: u64, mut progress: impl FnMut(&KillReport)) -> KillReport {
    let mut report = KillReport::default();
    let mut seed = first_seed;
    while report.kills < rounds {
        Folder::start(seed).run(ROUNDS_PER_FOLDER.min(rounds - report.kills), &mut report);
        progress(&report);
        seed += 1;
    }
    report
}

struct Folder {
    eden: Eden,
    rng: Rng,
    writers: Vec<Writer>,
    oracle: Mutex<Oracle>,
}

impl Folder {
    fn start(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut eden = Eden::options("kills").start();
        eden.note(format!("seed {seed}: EDEN_SEED={seed} repeats its choices"));
        let writers = (0..WRITERS).map(|id| Writer::new(id, rng.fork())).collect();
        Folder { eden, rng, writers, oracle: Mutex::default() }
    }

    fn run(mut self, rounds: u64, report: &mut KillReport) {
        for round in 0..rounds {
            self.eden.note(format!("round {round}"));
            self.write_until_killed(report);
            if self.rng.one_in(3) {
                self.kill_while_starting(report);
            }
            self.eden.restart();
            self.compare(report);
        }
        self.stop_and_read_the_tables();
    }

    fn write_until_killed(&mut self, report: &mut KillReport) {
        let kill_after = 1 + self.rng.below(ACKS_MAX);
        let flushes = self.rng.one_in(2);
        let flush_every = 1 + self.rng.below(40);
        let (acked, unknown, dead) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        let (oracle, address) = (&self.oracle, self.eden.address().to_string());
        let (acked, unknown, dead, address) = (&acked, &unknown, &dead, &*address);
        std::thread::scope(|scope| {
            for writer in &mut self.writers {
                scope.spawn(move || {
                    let mut client = Client::new(address);
                    while !dead.load(Ordering::Relaxed) {
                        let batch = writer.next_batch();
                        let outcome = client.write(&batch);
                        oracle.lock().expect("a writer panicked").record(&batch, &outcome);
                        match outcome {
                            Outcome::Acked => acked.fetch_add(1, Ordering::Relaxed),
                            Outcome::Unknown => unknown.fetch_add(1, Ordering::Relaxed),
                            Outcome::NotSent => return,
                            Outcome::Refused(status, body) => panic!("a good batch was refused: {status} {body}"),
                        };
                    }
                });
            }
            if flushes {
                scope.spawn(move || {
                    let mut client = Client::new(address);
                    let mut next = flush_every;
                    while !dead.load(Ordering::Relaxed) {
                        let due =
                            || (acked.load(Ordering::Relaxed) >= next || dead.load(Ordering::Relaxed)).then_some(());
                        wait::until(ACKS_WITHIN, due);
                        next += flush_every;
                        for table in TABLES {
                            // It fails when the table is not there yet or the server is not there any more.
                            let _ = client.sql(&format!("REFRESH TABLE {table}"));
                        }
                    }
                });
            }
            let enough = wait::until(ACKS_WITHIN, || (acked.load(Ordering::Relaxed) >= kill_after).then_some(()));
            self.eden.kill();
            dead.store(true, Ordering::Relaxed);
            assert!(enough.is_some(), "{} of {kill_after} batches acknowledged", acked.load(Ordering::Relaxed));
        });
        report.kills += 1;
        report.acked += acked.load(Ordering::Relaxed);
        report.unknown += unknown.load(Ordering::Relaxed);
    }

    fn kill_while_starting(&mut self, report: &mut KillReport) {
        self.eden.restart_unready();
        // A moment at random, not a wait for something.
        let moment = Duration::from_millis(self.rng.below(400));
        let _ = wait::until(moment, || None::<()>);
        self.eden.kill();
        report.kills_while_starting += 1;
    }

    fn compare(&mut self, report: &mut KillReport) {
        let oracle = self.oracle.get_mut().expect("a writer panicked");
        report.rows_compared += compare::after_a_restart(&self.eden, oracle, &TABLES);
    }

    fn stop_and_read_the_tables(mut self) {
        let oracle = self.oracle.into_inner().expect("a writer panicked");
        compare::after_a_clean_stop(&mut self.eden, &oracle);
    }
}

/// One client's choices.
struct Writer {
    id: u64,
    rng: Rng,
    time_us: i64,
    last: Vec<Reading>,
    recent: VecDeque<Reading>,
}

impl Writer {
    fn new(id: u64, rng: Rng) -> Self {
        Writer { id, rng, time_us: START_US, last: Vec::new(), recent: VecDeque::new() }
    }

    fn next_batch(&mut self) -> Vec<Reading> {
        let retry = !self.last.is_empty() && self.rng.one_in(10);
        if !retry {
            let size = 1 + self.rng.below(20);
            self.last = (0..size).map(|_| self.next_reading()).collect();
        }
        self.last.clone()
    }

    fn next_reading(&mut self) -> Reading {
        if !self.recent.is_empty() && self.rng.one_in(6) {
            // A correction: the key of an earlier reading, other values, not always of the same fields.
            let mut reading = self.recent[self.rng.below(self.recent.len() as u64) as usize].clone();
            reading.fields.clear();
            return values::add_fields(&mut self.rng, reading);
        }
        self.time_us += 1 + self.rng.below(2_000_000) as i64;
        let late = if self.rng.one_in(20) { DAY_US * self.rng.below(4) as i64 } else { 0 };
        let mut reading = Reading::at(self.rng.pick(&TABLES), self.time_us - late)
            .tag("device", &format!("writer {}, {}", self.id, self.rng.below(3)));
        if self.rng.one_in(2) {
            reading = reading.tag("site", self.rng.pick(&["näh", "far=off"]));
        }
        let reading = values::add_fields(&mut self.rng, reading);
        self.recent.push_back(reading.clone());
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        reading
    }
}
