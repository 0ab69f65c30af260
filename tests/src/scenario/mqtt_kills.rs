//! P1 over MQTT: publishers of both versions at QoS 1 and 2, many messages in flight, through links that fail, while the
//! server dies at random moments; every value is compared.
//!
//! Invariants
//!  1. Each key belongs to one publisher, and has one message in flight at most, so the oracle knows the order of its
//!     writes.
//!  2. What was open when a connection broke is published again on the next, as any client would; only what was
//!     acknowledged is corrected.
//!  3. After a restart acked ⊆ stored ⊆ attempted, values equal; what was seen then, stays.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::{compare, values};
use crate::http::Outcome;
use crate::mqtt::{Event, Publisher, Qos, Version};
use crate::oracle::Oracle;
use crate::proxy::{Fault, Proxy};
use crate::reading::Reading;
use crate::rng::Rng;
use crate::{Eden, wait};

/// Two publishers of each.
const KINDS: [(Version, Qos); 4] = [
    (Version::V311, Qos::AtLeastOnce),
    (Version::V5, Qos::AtLeastOnce),
    (Version::V311, Qos::ExactlyOnce),
    (Version::V5, Qos::ExactlyOnce),
];
const PUBLISHERS: usize = 2 * KINDS.len();
const ROUNDS_PER_FOLDER: u64 = 10;
const ACKS_MAX: u64 = 400;
/// A broken link takes a moment to be noticed and made anew, and the round has to see what follows.
const AFTER_A_FAULT: Duration = Duration::from_millis(120);
const WINDOW_MAX: u64 = 32;
const RECENT: usize = 64;
const TABLES: [&str; 2] = ["air", "power"];
/// 2026-06-01T00:00:00Z.
const START_US: i64 = 1_780_272_000_000_000;
const FAULT_LASTS: Duration = Duration::from_millis(300);
const ACKS_WITHIN: Duration = Duration::from_secs(120);
/// An event loop that is waited for no longer than this looks whether the round is over.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const RECONNECT_AFTER: Duration = Duration::from_millis(20);

/// What the rounds went through.
#[derive(Clone, Debug, Default)]
pub struct MqttKillReport {
    /// Kills while clients published.
    pub kills: u64,
    /// Faults of links.
    pub faults: u64,
    /// Messages acknowledged.
    pub acked: u64,
    /// Messages that were open when a connection broke or the server was killed.
    pub unknown: u64,
    /// Connections made.
    pub connections: u64,
    /// Rows compared after restarts.
    pub rows_compared: u64,
}

impl fmt::Display for MqttKillReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} kills, {} faults of links, {} connections; {} messages acknowledged, {} open at a break; {} rows \
             compared, 0 differences",
            self.kills, self.faults, self.connections, self.acked, self.unknown, self.rows_compared
        )
    }
}

/// Runs `rounds` kills; `progress` is told after each folder.
///
/// # Panics
/// When the store and the oracle differ; the seed is printed.
pub fn mqtt_kills(first_seed: u64, rounds: u64, mut progress: impl FnMut(&MqttKillReport)) -> MqttKillReport {
    let mut report = MqttKillReport::default();
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
    proxy: Proxy,
    rng: Rng,
    writers: Vec<Writer>,
    oracle: Mutex<Oracle>,
}

/// Counted by all publishers of a round.
#[derive(Default)]
struct Counts {
    acked: AtomicU64,
    unknown: AtomicU64,
    connections: AtomicU64,
    over: AtomicBool,
}

impl Folder {
    fn start(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut eden = Eden::options("mqtt-kills").start();
        eden.note(format!("seed {seed}: EDEN_SEED={seed} repeats its choices"));
        let proxy = Proxy::start(eden.mqtt_address());
        let writers = (0..PUBLISHERS).map(|id| Writer::new(id, rng.fork())).collect();
        Folder { eden, proxy, rng, writers, oracle: Mutex::default() }
    }

    fn run(mut self, rounds: u64, report: &mut MqttKillReport) {
        for round in 0..rounds {
            self.eden.note(format!("round {round}"));
            self.publish_until_killed(report);
            self.eden.restart();
            self.proxy.heal();
            self.proxy.point_at(self.eden.mqtt_address());
            let oracle = self.oracle.get_mut().expect("a publisher panicked");
            report.rows_compared += compare::after_a_restart(&self.eden, oracle, &TABLES);
        }
        let oracle = self.oracle.into_inner().expect("a publisher panicked");
        compare::after_a_clean_stop(&mut self.eden, &oracle);
    }

    fn publish_until_killed(&mut self, report: &mut MqttKillReport) {
        let faults = if self.rng.one_in(2) { 1 + self.rng.below(4) } else { 0 };
        let kill_after = 1 + self.rng.below(ACKS_MAX);
        let counts = Counts::default();
        let address = self.proxy.address();
        let (oracle, counts, address) = (&self.oracle, &counts, &*address);
        std::thread::scope(|scope| {
            for writer in &mut self.writers {
                scope.spawn(move || writer.publish(address, oracle, counts));
            }
            for fault in 1..=faults {
                let due = kill_after * fault / (faults + 1);
                wait::until(ACKS_WITHIN, || (counts.acked.load(Ordering::Relaxed) >= due).then_some(()));
                let fault = Fault::random(&mut self.rng, FAULT_LASTS);
                report.faults += u64::from(self.proxy.fault_one(&mut self.rng, fault));
                wait::until(AFTER_A_FAULT, || None::<()>);
            }
            let enough =
                wait::until(ACKS_WITHIN, || (counts.acked.load(Ordering::Relaxed) >= kill_after).then_some(()));
            self.eden.kill();
            counts.over.store(true, Ordering::Relaxed);
            let acked = counts.acked.load(Ordering::Relaxed);
            assert!(enough.is_some(), "{acked} of {kill_after} messages acknowledged");
        });
        report.kills += 1;
        report.acked += counts.acked.load(Ordering::Relaxed);
        report.unknown += counts.unknown.load(Ordering::Relaxed);
        report.connections += counts.connections.load(Ordering::Relaxed);
    }
}

/// One client's choices.
struct Writer {
    client_id: String,
    version: Version,
    qos: Qos,
    rng: Rng,
    time_us: i64,
    /// Open when a connection broke, oldest first.
    again: VecDeque<Vec<Reading>>,
    /// Acknowledged, nothing in flight for them: these may be corrected.
    correctable: VecDeque<Reading>,
}

impl Writer {
    fn new(id: usize, rng: Rng) -> Self {
        let (version, qos) = KINDS[id % KINDS.len()];
        Writer {
            client_id: format!("publisher-{id}"),
            version,
            qos,
            rng,
            time_us: START_US,
            again: VecDeque::new(),
            correctable: VecDeque::new(),
        }
    }

    fn publish(&mut self, address: &str, oracle: &Mutex<Oracle>, counts: &Counts) {
        while !counts.over.load(Ordering::Relaxed) {
            let open = self.publish_on_one_connection(address, oracle, counts);
            counts.unknown.fetch_add(open.len() as u64, Ordering::Relaxed);
            for batch in open.into_values().rev() {
                self.again.push_front(batch);
            }
            wait::until(RECONNECT_AFTER, || None::<()>);
        }
    }

    /// Returns what was open when it broke, oldest first.
    fn publish_on_one_connection(
        &mut self,
        address: &str,
        oracle: &Mutex<Oracle>,
        counts: &Counts,
    ) -> BTreeMap<u64, Vec<Reading>> {
        let window = 1 + self.rng.below(WINDOW_MAX) as usize;
        let topic = format!("eden/v1/{}/lp", self.client_id);
        let mut link = Publisher::new(address, &self.client_id, self.version, &topic, self.qos, window);
        let mut open = BTreeMap::new();
        let mut connected = false;
        while !counts.over.load(Ordering::Relaxed) {
            while connected && open.len() < window {
                let batch = self.again.pop_front().unwrap_or_else(|| self.next_message());
                // It may be stored from here on, whatever becomes of its acknowledgement.
                oracle.lock().expect("a publisher panicked").record(&batch, &Outcome::Unknown);
                open.insert(link.publish(lines(&batch)), batch);
            }
            match link.next_event(LOOK_EVERY) {
                Some(Event::Connected) => {
                    connected = true;
                    counts.connections.fetch_add(1, Ordering::Relaxed);
                }
                Some(Event::Acked(message)) => {
                    let batch: Vec<Reading> = open.remove(&message).expect("acknowledged once");
                    oracle.lock().expect("a publisher panicked").record(&batch, &Outcome::Acked);
                    counts.acked.fetch_add(1, Ordering::Relaxed);
                    self.correctable.extend(batch);
                    while self.correctable.len() > RECENT {
                        self.correctable.pop_front();
                    }
                }
                Some(Event::Refused(_, reason)) => panic!("a good message was refused: {reason}"),
                Some(Event::Broken(_)) => break,
                None => {}
            }
        }
        open
    }

    fn next_message(&mut self) -> Vec<Reading> {
        let size = 1 + self.rng.below(5);
        (0..size).map(|_| self.next_reading()).collect()
    }

    fn next_reading(&mut self) -> Reading {
        if !self.correctable.is_empty() && self.rng.one_in(6) {
            let at = self.rng.below(self.correctable.len() as u64) as usize;
            let mut reading = self.correctable.remove(at).expect("it is there");
            reading.fields.clear();
            return values::add_fields(&mut self.rng, reading);
        }
        self.time_us += 1 + self.rng.below(2_000_000) as i64;
        let reading = Reading::at(self.rng.pick(&TABLES), self.time_us).tag("device", &self.client_id);
        values::add_fields(&mut self.rng, reading)
    }
}

fn lines(batch: &[Reading]) -> Vec<u8> {
    let mut text = String::new();
    for reading in batch {
        reading.append_line(&mut text);
        text.push('\n');
    }
    text.into_bytes()
}
