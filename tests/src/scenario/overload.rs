//! Four times as much as the server can take, over HTTP or MQTT, and then its death (P1, P10).
//!
//! First a few clients find out how much it takes, each waiting for its acknowledgements. Then many offer four times that by
//! the clock: a request that is due while the one before waits is sent when that is answered. When they stop, a client asks how long an acknowledgement
//! takes. Then the server is killed, and each batch that it acknowledged must be there, whole and once.

use std::collections::BTreeSet;
use std::fmt::{Display, Formatter, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::mqtt::{Event, Publisher, Qos, Version};
use crate::{Client, Eden, Outcome, cpu, wait};

/// What is offered, as a multiple of what is sustained.
const TIMES: f64 = 4.0;
/// Nothing that was accepted waits longer.
const PATIENCE: Duration = Duration::from_secs(120);
/// Acknowledgements that are timed before and after.
const PROBES: u64 = 50;
/// 2026-06-01T00:00:00Z in ns.
const START_NS: u64 = 1_780_272_000_000_000_000;

/// How the load comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// `/api/v3/write_lp`, 5,000 readings a request.
    Http,
    /// QoS 1, one half of the clients MQTT 3.1.1 and one half MQTT 5, 20 readings a message.
    Mqtt,
}

/// How much.
#[derive(Clone, Copy, Debug)]
pub struct Overload {
    /// By which way.
    pub over: Over,
    /// How long it is found out what is sustained.
    pub calm: Duration,
    /// How long the overload lasts.
    pub storm: Duration,
    /// Clients that offer it.
    pub clients: usize,
    /// What the server's memory may grow by.
    pub more_bytes_max: u64,
}

/// What happened.
#[derive(Clone, Debug)]
pub struct OverloadReport {
    over: Over,
    sustained: f64,
    wanted: f64,
    acked: f64,
    refused: u64,
    idle_bytes: u64,
    most_bytes: u64,
    probe_before: Duration,
    probe_after: Duration,
    acked_readings: u64,
}

impl Display for OverloadReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let OverloadReport { over, sustained, wanted, acked, refused, idle_bytes, most_bytes, .. } = self;
        let mib = |bytes: &u64| bytes >> 20;
        write!(
            f,
            "{over:?}: {sustained:.0} readings/s sustained; {wanted:.0} wanted by the clock, {acked:.0} acknowledged, {refused} \
             requests told to come later; {} MiB idle, {} MiB at most; the slowest of {PROBES} acknowledgements {:?} \
             before, {:?} in the 10 s after; {} readings acknowledged, all there after the kill",
            mib(idle_bytes),
            mib(most_bytes),
            self.probe_before,
            self.probe_after,
            self.acked_readings
        )
    }
}

/// One client's part.
#[derive(Debug, Default)]
struct Load {
    client: String,
    /// Numbers of batches, from 1.
    acked: BTreeSet<u64>,
    sent: u64,
    refused: u64,
}

impl Over {
    fn readings(self) -> u64 {
        match self {
            Over::Http => 5_000,
            Over::Mqtt => 20,
        }
    }

    /// Batch `number` of `client`: a device of the fleet of `bench/iotgen` a client.
    fn batch(self, client: &str, number: u64) -> Vec<u8> {
        let mut lines = String::with_capacity(self.readings() as usize * 110);
        for reading in 0..self.readings() {
            let n = (number - 1) * self.readings() + reading;
            let (tenth, time) = (n % 10, START_NS + n * 1_000);
            let values = format!("temperature=21.{tenth},pressure=1003.{tenth},humidity=4{tenth}.5");
            // Writing to a text cannot fail.
            let _ = writeln!(lines, "env,device={client},firmware=1.4.2,site=site-01 {values},batch={number}i {time}");
        }
        lines.into_bytes()
    }
}

/// Runs it on `eden`, which must be up.
///
/// # Panics
/// When something acknowledged is lost or doubled, memory is beyond its bound, or acknowledgements stay slow.
pub fn overload(eden: &mut Eden, overload: &Overload) -> OverloadReport {
    let Overload { over, calm, storm, clients, more_bytes_max } = *overload;
    eden.write_lp("env,device=warm temperature=1 1780272000000000000");
    eden.sql("SELECT count(*) FROM env");
    let pid = eden.pid();
    let idle_bytes = cpu::memory_bytes(pid);
    let probe_before = probe(eden, 0);

    // As many as keep it busy.
    let begin = wait::now();
    let calm_loads = offer(eden, over, "calm", 4, calm, None).0;
    let readings = |loads: &[Load]| loads.iter().map(|load| load.acked.len() as u64).sum::<u64>() * over.readings();
    let sustained = readings(&calm_loads) as f64 / begin.elapsed().as_secs_f64();

    let (loads, most_bytes) = offer(eden, over, "storm", clients, storm, Some(TIMES * sustained));
    let probe_after = probe(eden, PROBES);
    let report = OverloadReport {
        over,
        sustained,
        wanted: TIMES * sustained,
        acked: readings(&loads) as f64 / storm.as_secs_f64(),
        refused: loads.iter().map(|load| load.refused).sum(),
        idle_bytes,
        most_bytes,
        probe_before,
        probe_after,
        acked_readings: readings(&loads) + readings(&calm_loads),
    };
    eden.kill();
    eden.restart();
    for load in calm_loads.iter().chain(&loads) {
        all_is_there(eden, over, load);
    }
    assert!(most_bytes < idle_bytes + more_bytes_max, "memory is not bounded: {report}");
    let normal = 10 * probe_before.max(Duration::from_millis(100));
    assert!(probe_after < normal, "acknowledgements stay slow: {report}");
    report
}

/// All clients for a time, at `rate` readings a second in all, or each as fast as acknowledgements come. Returns the most
/// memory that was seen beside what became of it.
fn offer(eden: &Eden, over: Over, name: &str, clients: usize, time: Duration, rate: Option<f64>) -> (Vec<Load>, u64) {
    let (is_over, most) = (AtomicBool::new(false), AtomicU64::new(0));
    let pause = rate.map(|rate| Duration::from_secs_f64(clients as f64 * over.readings() as f64 / rate));
    let begin = wait::now();
    let loads = std::thread::scope(|scope| {
        let pushing: Vec<_> = (0..clients)
            .map(|number| {
                let (client, is_over) = (format!("{name}{number}"), &is_over);
                let (http, mqtt) = (eden.address().to_owned(), eden.mqtt_address().to_owned());
                let pace = Pace { begin, pause, is_over };
                scope.spawn(move || match over {
                    Over::Http => push_http(&http, client, &pace),
                    Over::Mqtt => push_mqtt(&mqtt, client, number, &pace),
                })
            })
            .collect();
        while begin.elapsed() < time {
            most.fetch_max(cpu::memory_bytes(eden.pid()), Ordering::Relaxed);
            std::thread::park_timeout(Duration::from_millis(100));
        }
        is_over.store(true, Ordering::Relaxed);
        pushing.into_iter().map(|one| one.join().expect("a client has panicked")).collect()
    });
    (loads, most.into_inner())
}

/// When the next batch is due.
struct Pace<'a> {
    begin: Instant,
    /// Between two batches of one client; none is as fast as acknowledgements come.
    pause: Option<Duration>,
    is_over: &'a AtomicBool,
}

impl Pace<'_> {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// How long the batch after `sent` ones is not due yet.
    fn until_due(&self, sent: u64) -> Duration {
        let due = self.pause.unwrap_or_default().mul_f64(sent as f64);
        due.saturating_sub(self.begin.elapsed())
    }
}

fn push_http(address: &str, client: String, pace: &Pace<'_>) -> Load {
    let mut http = Client::new(address);
    let mut load = Load { client, ..Load::default() };
    while !pace.is_over() {
        let wait = pace.until_due(load.sent);
        if !wait.is_zero() {
            wait::pass(wait.min(Duration::from_millis(100)));
            continue;
        }
        load.sent += 1;
        match http.write_lp(&Over::Http.batch(&load.client, load.sent)) {
            Outcome::Acked => drop(load.acked.insert(load.sent)),
            // It is not sent again: what is offered is by the clock.
            Outcome::Refused(429 | 503, _) => load.refused += 1,
            other => panic!("{}: {other:?}", load.client),
        }
    }
    load
}

fn push_mqtt(address: &str, client: String, number: usize, pace: &Pace<'_>) -> Load {
    const WINDOW: usize = 100;
    let version = if number.is_multiple_of(2) { Version::V311 } else { Version::V5 };
    let mut publisher = Publisher::new(address, &client, version, "lp/x", Qos::AtLeastOnce, WINDOW);
    let mut load = Load { client, ..Load::default() };
    let open = |load: &Load| load.sent - load.acked.len() as u64 - load.refused;
    // The library makes a connection anew if waiting for it is cut short.
    assert_eq!(publisher.next_event(PATIENCE), Some(Event::Connected), "{}", load.client);
    loop {
        while !pace.is_over() && open(&load) < WINDOW as u64 && pace.until_due(load.sent).is_zero() {
            load.sent += 1;
            let number = publisher.publish(Over::Mqtt.batch(&load.client, load.sent));
            assert_eq!(number, load.sent);
        }
        if open(&load) == 0 {
            if pace.is_over() {
                return load;
            }
            wait::pass(pace.until_due(load.sent).min(Duration::from_millis(100)));
            continue;
        }
        match publisher.next_event(PATIENCE) {
            Some(Event::Acked(id)) => assert!(load.acked.insert(id), "{id} was acknowledged twice"),
            other => panic!("{}: {other:?}", load.client),
        }
    }
}

/// The slowest of [`PROBES`] acknowledgements over HTTP within 10 s; their times begin with `first`.
fn probe(eden: &Eden, first: u64) -> Duration {
    let mut http = eden.client();
    let begin = wait::now();
    let mut slowest = Duration::ZERO;
    for n in first..first + PROBES {
        let sent = wait::now();
        let outcome = http.write_lp(format!("probe v={n} {}", START_NS + n * 1_000).as_bytes());
        assert_eq!(outcome, Outcome::Acked, "a single reading is taken");
        // The first seconds are still those of the overload.
        slowest = slowest.max(sent.elapsed());
        wait::pass(Duration::from_millis(20));
    }
    assert!(begin.elapsed() < Duration::from_secs(10), "{PROBES} acknowledgements take {:?}", begin.elapsed());
    slowest
}

fn all_is_there(eden: &Eden, over: Over, load: &Load) {
    let client = &load.client;
    let rows = eden.sql(&format!("SELECT batch, count(*) AS n FROM env WHERE device = '{client}' GROUP BY batch"));
    let mut stored = BTreeSet::new();
    for row in 0..rows.len() {
        let number = |name: &str| rows.get(row, name).as_u64().unwrap_or_default();
        let batch = number("batch");
        assert_eq!(number("n"), over.readings(), "{client}: batch {batch} is there in part");
        assert!((1..=load.sent).contains(&batch), "{client}: batch {batch} was never sent");
        stored.insert(batch);
    }
    let lost: Vec<_> = load.acked.difference(&stored).collect();
    assert!(lost.is_empty(), "{client}: acknowledged and lost: {lost:?}");
}
