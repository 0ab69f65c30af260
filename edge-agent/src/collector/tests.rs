use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Mutex;

use faults::SimDisk;
use model::{Rng, SplitMix64};
use wal::disk::{SharedDisk, create_dir_all};

use super::*;
use crate::config::{ByteSize, Config, Period, Replay, SensorSection};
use crate::exchange::Outcome;
use crate::outbox::{Batch, Encoding, OutboxConfig};
use crate::sensor::Value;
use crate::wall::Told;

const S: i64 = 1_000_000;
/// 2026-06-01.
const BEGIN_US: i64 = 1_780_272_000_000_000;

/// A board in simulated time.
#[derive(Debug, Default)]
struct Board(Mutex<State>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    true_us: i64,
    booted_us: i64,
    boot: u8,
    /// What the wall clock is off by.
    wrong_us: i64,
    is_synchronised: bool,
}

impl Board {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.lock().unwrap());
    }

    fn state(&self) -> State {
        *self.0.lock().unwrap()
    }
}

impl Clock for Board {
    fn now_us(&self) -> i64 {
        let state = self.state();
        state.true_us + state.wrong_us
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.boot_us() as u64)
    }
}

impl Timepiece for Board {
    fn boot_id(&self) -> BootId {
        BootId([self.state().boot; 16])
    }

    fn boot_us(&self) -> i64 {
        let state = self.state();
        state.true_us - state.booted_us
    }

    fn is_synchronised(&self) -> bool {
        self.state().is_synchronised
    }
}

fn config(sensors: usize, sync_interval: Duration) -> Config {
    let mut config = Config::default();
    config.agent.id = "pi-7".to_owned();
    config.outbox.sync_interval = Period(sync_interval);
    config.sensors = (0..sensors)
        .map(|number| SensorSection {
            driver: "simulated-bmp180".to_owned(),
            name: format!("s{number}"),
            ..SensorSection::default()
        })
        .collect();
    config
}

fn start(config: &Config, disk: SharedDisk, board: &Arc<Board>, seed: u64) -> (Collector, Arc<Exchange>) {
    let clock: Arc<dyn Clock> = Arc::clone(board) as Arc<dyn Clock>;
    let outbox_config = OutboxConfig {
        replay: config.uplink.replay,
        replay_bytes_per_s: config.uplink.replay_rate.0,
        ..OutboxConfig::new("/data/outbox", "pi-7", config.outbox.max_bytes.0)
    };
    let outbox = Outbox::open(disk, Arc::clone(&clock), &SplitMix64::new(seed), outbox_config).unwrap();
    let exchange = Arc::new(Exchange::default());
    exchange.connected("mqtt://eden.example");
    let timepiece = Arc::clone(board) as Arc<dyn Timepiece>;
    (Collector::new(config, outbox, Arc::clone(&exchange), (clock, timepiece), Arc::default()), exchange)
}

fn disk() -> SimDisk {
    let disk = SimDisk::new();
    create_dir_all(&disk, Path::new("/data")).unwrap();
    disk
}

fn text(batch: &Batch) -> String {
    let body = match batch.encoding {
        Encoding::Plain => batch.body.clone(),
        Encoding::Zstd => zstd::bulk::decompress(&batch.body, 1 << 20).unwrap(),
    };
    String::from_utf8(body).unwrap()
}

/// What a server took: by number of the reading its time, and whether it is an estimate.
#[derive(Default)]
struct Server {
    bodies: HashMap<(u64, u64), String>,
    readings: BTreeMap<i64, (i64, bool)>,
}

impl Server {
    /// Takes what is handed out; acknowledges `share` of ten.
    fn serve(&mut self, exchange: &Exchange, rng: &dyn Rng, share: u64, seed: u64) {
        while let Some(batch) = exchange.take() {
            let body = text(&batch);
            let before = self.bodies.insert((batch.life.epoch, batch.seq), body.clone());
            // A batch is the same at every attempt.
            assert!(before.is_none_or(|before| before == body), "seed {seed}: batch {} changed", batch.seq);
            for line in body.lines().filter(|line| !line.starts_with('#')) {
                let (reading, time) = line.rsplit_once(' ').unwrap();
                let number = reading.split("value=").nth(1).unwrap().split(',').next().unwrap();
                let reading = (time.parse().unwrap(), reading.ends_with(",time_estimated=t"));
                let number = number.parse().unwrap();
                let before = self.readings.insert(number, reading);
                assert!(before.is_none_or(|before| before == reading), "seed {seed}: reading {number} changed");
            }
            if rng.below(10) < share {
                exchange.done(batch.key(), Outcome::Acked, Duration::ZERO);
            }
        }
        exchange.put_all_back();
    }
}

#[test]
fn boots_in_1970_and_clocks_that_jump_leave_order_and_times_right_in_the_end() {
    for seed in faults::seeds(200) {
        let rng = SplitMix64::new(seed);
        let board = Arc::new(Board::default());
        board.change(|state| state.true_us = BEGIN_US);
        let mut config = config(1, Duration::from_secs(10));
        // Only what is known for certain, and counting back.
        config.clock.wait = Period(Duration::from_secs(1 << 40));
        let mut disk = disk();
        let mut server = Server::default();
        let mut number = 0;
        // By number: when it was measured, and in which boot.
        let mut measured: Vec<(i64, u8)> = Vec::new();
        // By life: behind which number it ended, and whether it was cut.
        let mut ended: Vec<(i64, bool)> = Vec::new();
        let boots = 2 + rng.below(5) as u8;
        for boot in 1..=boots {
            let is_last = boot == boots;
            board.change(|state| {
                state.true_us += (3 + rng.below(100_000) as i64) * S;
                state.booted_us = state.true_us;
                state.boot = boot;
                state.is_synchronised = false;
                // In 1970, or wherever.
                state.wrong_us = match rng.below(3) {
                    0 => -state.true_us,
                    1 => -(rng.below(10 * 365 * 86_400) as i64) * S,
                    _ => rng.below(10 * 365 * 86_400) as i64 * S,
                };
                state.true_us += 5 * S;
            });
            let lives = 1 + rng.below(3);
            for life in 0..lives {
                let (mut collector, exchange) = start(&config, Arc::new(disk.clone()), &board, seed);
                let intake = Intake::idle();
                // Some end before their first reading, and have at most a gap to report.
                let is_short = rng.below(3) == 0 && !(is_last && life + 1 == lives);
                let seconds = if is_short { 0 } else { 1 + rng.below(90) };
                for second in 0..seconds {
                    board.change(|state| {
                        state.true_us += S;
                        match rng.below(40) {
                            // Somebody sets the clock: the kernel forgets that it was right.
                            0..4 => {
                                state.is_synchronised = false;
                                state.wrong_us = rng.below(20 * 365 * 86_400) as i64 * S - 10 * 365 * 86_400 * S;
                            }
                            4 => (state.is_synchronised, state.wrong_us) = (true, rng.below(2_000) as i64 - 1_000),
                            _ => {}
                        }
                    });
                    if rng.below(60) == 0 {
                        let State { true_us, .. } = board.state();
                        let wall_us = true_us / S * S;
                        exchange.lock().told = Some(Told { wall_us, boot_us: board.boot_us() });
                    }
                    if is_last && life + 1 == lives && second + 1 == seconds {
                        board.change(|state| (state.is_synchronised, state.wrong_us) = (true, 0));
                    }
                    let fields = vec![("value".into(), Value::whole(number))];
                    collector.take(Given { station: 0, boot_us: board.boot_us(), measured: Ok(fields) });
                    measured.push((board.state().true_us, boot));
                    number += 1;
                    collector.step(&intake);
                    server.serve(&exchange, &rng, 7, seed);
                    collector.take_outcomes(Duration::ZERO);
                }
                if is_last && life + 1 == lives {
                    for _ in 0..500 {
                        board.change(|state| state.true_us += S);
                        collector.step(&intake);
                        server.serve(&exchange, &rng, 8, seed);
                        collector.take_outcomes(Duration::ZERO);
                    }
                    let stats = exchange.lock().stats.clone();
                    assert_eq!((stats.backlog_batches, stats.untimed_batches), (0, 0), "seed {seed}");
                    ended.push((number, false));
                } else {
                    let end = rng.below(3);
                    ended.push((number, end < 2));
                    disk = match end {
                        0 => disk.power_cut(rng.next_u64()),
                        1 => disk.kill(),
                        _ => {
                            exchange.stop(Duration::ZERO);
                            exchange.end_uplink();
                            assert!(collector.finish(Duration::ZERO), "seed {seed}");
                            disk
                        }
                    };
                }
            }
        }
        check(&server, &measured, seed);
        let mut first = 0;
        for (end, is_cut) in ended {
            let missing = (first..end).filter(|number| !server.readings.contains_key(number)).count() as i64;
            let at_most = if is_cut { LOST_MAX } else { 0 };
            assert!(missing <= at_most, "seed {seed}: {missing} of {first} to {end} are missing");
            let is_end = (end - missing..end).all(|number| !server.readings.contains_key(&number));
            assert!(is_end, "seed {seed}: others than the last of {first} to {end} are missing");
            first = end;
        }
    }
}

/// Readings of one sync interval at one a second, and the one that came when the sync was due.
const LOST_MAX: i64 = 11;

fn check(server: &Server, measured: &[(i64, u8)], seed: u64) {
    let now_us = measured.last().unwrap().0;
    let mut before: Option<(i64, i64, u8)> = None;
    for (number, (time_us, is_estimated)) in &server.readings {
        let (true_us, boot) = measured[*number as usize];
        if !is_estimated {
            // What a server says is right to the second.
            assert!(
                time_us.abs_diff(true_us) <= 2 * S as u64,
                "seed {seed}: {number} is {} s off",
                (time_us - true_us) / S
            );
        }
        // Counted back as if the board had been off for no time, so never before it was.
        assert!((true_us - 2 * S..=now_us + 2 * S).contains(time_us), "seed {seed}: {number} is of {time_us}");
        if let Some((before_us, before_true_us, before_boot)) = before {
            assert!(*time_us > before_us - 2 * S, "seed {seed}: {number} comes before the one measured before it");
            if boot == before_boot {
                let distance = true_us - before_true_us;
                assert!((time_us - before_us).abs_diff(distance) <= 2 * S as u64, "seed {seed}: {number}");
            }
        }
        before = Some((*time_us, true_us, boot));
    }
}

#[test]
fn a_clock_that_nobody_vouches_for_is_taken_after_a_while_and_marked_and_one_that_was_never_set_is_not() {
    for (wrong_us, sent) in [(-3_600 * S, true), (-BEGIN_US, false)] {
        let board = Arc::new(Board::default());
        board.change(|state| (state.true_us, state.booted_us, state.wrong_us) = (BEGIN_US + 5 * S, BEGIN_US, wrong_us));
        let mut config = config(1, Duration::from_secs(10));
        config.clock.wait = Period(Duration::from_secs(60));
        let (mut collector, exchange) = start(&config, Arc::new(disk()), &board, 7);
        let intake = Intake::idle();
        let mut server = Server::default();
        // A second, in which one reading is made.
        let mut pass = |number, server: &mut Server| {
            board.change(|state| state.true_us += S);
            let fields = vec![("value".into(), Value::whole(number))];
            collector.take(Given { station: 0, boot_us: board.boot_us(), measured: Ok(fields) });
            collector.step(&intake);
            server.serve(&exchange, &SplitMix64::new(1), 10, 7);
            collector.take_outcomes(Duration::ZERO);
        };
        for number in 0..120 {
            pass(number, &mut server);
            if number < 58 {
                assert!(server.readings.is_empty(), "they wait");
            }
        }
        assert_eq!(!server.readings.is_empty(), sent);
        assert!(server.readings.values().all(|(_, is_estimated)| *is_estimated));
        // The clock is right at last: what is made from now on has no mark.
        board.change(|state| (state.is_synchronised, state.wrong_us) = (true, 0));
        for number in 120..150 {
            pass(number, &mut server);
        }
        let (last_us, is_estimated) = server.readings[&140];
        assert!(!is_estimated && last_us.abs_diff(BEGIN_US + (5 + 141) * S) < 1_000, "{last_us}");
        let (first_us, is_estimated) = server.readings[&0];
        assert_eq!(is_estimated, sent);
        let right_us = BEGIN_US + 6 * S + if sent { wrong_us } else { 0 };
        assert!(first_us.abs_diff(right_us) < 1_000, "{first_us}");
    }
}

#[test]
fn a_clock_that_was_taken_for_right_and_was_ahead_does_not_hold_up_later_boots() {
    let board = Arc::new(Board::default());
    board.change(|state| {
        (state.true_us, state.booted_us, state.boot) = (BEGIN_US + 5 * S, BEGIN_US, 1);
        (state.is_synchronised, state.wrong_us) = (true, 10 * 365 * 86_400 * S);
    });
    let mut config = config(1, Duration::from_secs(10));
    config.clock.wait = Period(Duration::from_secs(60));
    let disk = disk();
    let intake = Intake::idle();
    let mut number = 0;
    let mut pass = |collector: &mut Collector, seconds: i64| {
        for _ in 0..seconds {
            board.change(|state| state.true_us += S);
            let fields = vec![("value".into(), Value::whole(number))];
            collector.take(Given { station: 0, boot_us: board.boot_us(), measured: Ok(fields) });
            number += 1;
            collector.step(&intake);
        }
    };
    let (mut collector, exchange) = start(&config, Arc::new(disk.clone()), &board, 7);
    pass(&mut collector, 30);
    board.change(|state| state.wrong_us = 0);
    pass(&mut collector, 40);
    exchange.stop(Duration::ZERO);
    exchange.end_uplink();
    assert!(collector.finish(Duration::ZERO));

    board.change(|state| {
        state.true_us += 3_600 * S;
        (state.booted_us, state.boot, state.is_synchronised) = (state.true_us, 2, false);
    });
    let (mut collector, exchange) = start(&config, Arc::new(disk), &board, 8);
    pass(&mut collector, 90);
    let stats = exchange.lock().stats.clone();
    assert_eq!((stats.clock, stats.untimed_batches), (Some(crate::wall::Certainty::Estimated), 0));
}

#[test]
fn the_next_process_of_a_boot_goes_on_by_the_corrected_clock() {
    let board = Arc::new(Board::default());
    board.change(|state| (state.true_us, state.booted_us, state.boot) = (BEGIN_US + 5 * S, BEGIN_US, 1));
    let config = config(1, Duration::from_secs(10));
    let disk = disk();
    let intake = Intake::idle();
    let (mut collector, exchange) = start(&config, Arc::new(disk.clone()), &board, 7);
    let mut server = Server::default();
    let mut number = 0;
    let mut pass = |collector: &mut Collector, seconds: i64| {
        for _ in 0..seconds {
            board.change(|state| state.true_us += S);
            let fields = vec![("value".into(), Value::whole(number))];
            collector.take(Given { station: 0, boot_us: board.boot_us(), measured: Ok(fields) });
            number += 1;
            collector.step(&intake);
        }
    };
    pass(&mut collector, 20);
    board.change(|state| (state.is_synchronised, state.wrong_us) = (true, 1_000 * S));
    pass(&mut collector, 20);
    // Corrected, while what was measured before the clock was known waits for its acknowledgement.
    board.change(|state| state.wrong_us = 0);
    pass(&mut collector, 20);
    let offset_us = collector.wall.fix().unwrap().offset_us;
    assert_eq!(offset_us, BEGIN_US);
    server.serve(&exchange, &SplitMix64::new(1), 10, 7);
    collector.take_outcomes(Duration::ZERO);
    pass(&mut collector, 20);
    let (collector, _) = start(&config, Arc::new(disk.kill()), &board, 8);
    assert_eq!(collector.wall.fix().map(|fix| fix.offset_us), Some(offset_us));
}

/// Ten sensors at one reading a second, for `hours` of simulated time; syncs and bytes of the outbox.
fn wear(hours: u64, is_connected: bool) -> (u64, u64) {
    let board = Arc::new(Board::default());
    board.change(|state| {
        (state.true_us, state.booted_us, state.is_synchronised) = (BEGIN_US + 5 * S, BEGIN_US, true);
    });
    let config = config(10, Config::default().outbox.sync_interval.0);
    let (mut collector, exchange) = start(&config, Arc::new(disk()), &board, 7);
    let intake = Intake::idle();
    let mut stations: Vec<crate::sensor::Station> =
        config.sensors.iter().map(|section| crate::sensor::Station::new("pi-7", section)).collect();
    let before = collector.outbox.stats().wear;
    for _ in 0..hours * 3_600 {
        board.change(|state| state.true_us += S);
        for (station, sensor) in stations.iter_mut().enumerate() {
            let fields = sensor.read(board.now_us()).unwrap().fields;
            collector.take(Given { station, boot_us: board.boot_us(), measured: Ok(fields) });
        }
        collector.step(&intake);
        if is_connected {
            while let Some(batch) = exchange.take() {
                exchange.done(batch.key(), Outcome::Acked, Duration::ZERO);
            }
            collector.take_outcomes(Duration::ZERO);
        }
    }
    let after = collector.outbox.stats().wear;
    (after.syncs - before.syncs, after.bytes_written - before.bytes_written)
}

#[test]
fn ten_sensors_at_one_reading_a_second_stay_within_the_budget_of_a_card() {
    for is_connected in [true, false] {
        let hours = 2;
        let (syncs, bytes) = wear(hours, is_connected);
        let (syncs_per_hour, megabytes_per_day) = (syncs / hours, bytes * 24 / hours / 1_000_000);
        println!("connected {is_connected}: {syncs_per_hour} syncs an hour, {megabytes_per_day} MB a day");
        assert!(syncs_per_hour <= 400 && megabytes_per_day <= 100, "{syncs_per_hour} {megabytes_per_day}");
        assert!(syncs_per_hour >= 300, "a sync each 10 s: {syncs_per_hour}");
    }
}

/// What came over a link of so many bytes a second, from ten sensors: a reading is known by its sensor and its second.
struct Far {
    bytes_per_s: usize,
    budget: usize,
    /// How often each reading came.
    counts: Vec<u8>,
    /// The second of the newest reading that came.
    newest_s: i64,
    /// Seqs in the order in which they came.
    seqs: Vec<u64>,
    bytes: u64,
}

impl Far {
    /// Takes what the link carries in so much time.
    fn serve(&mut self, exchange: &Exchange, time_us: i64) {
        self.budget = (self.budget + self.bytes_per_s * time_us as usize / S as usize).min(self.bytes_per_s);
        while self.budget > 0
            && let Some(batch) = exchange.take()
        {
            self.budget = self.budget.saturating_sub(batch.body.len());
            self.bytes += batch.body.len() as u64;
            self.seqs.push(batch.seq);
            for line in text(&batch).lines().filter(|line| !line.starts_with('#')) {
                let sensor = line.split(",sensor=s").nth(1).unwrap().split([',', ' ']).next().unwrap();
                let time_us: i64 = line.rsplit(' ').next().unwrap().parse().unwrap();
                let second = (time_us - BEGIN_US) / S;
                let index = second as usize * 10 + sensor.parse::<usize>().unwrap();
                self.counts.resize(self.counts.len().max(index + 1), 0);
                self.counts[index] += 1;
                self.newest_s = self.newest_s.max(second);
            }
            exchange.done(batch.key(), Outcome::Acked, Duration::ZERO);
        }
    }
}

/// Ten sensors at one reading a second are without a server for `hours`, and then have one over a link of 16 KiB/s, of
/// which the backlog may take half.
fn offline(hours: u64, replay: Replay) {
    const RATE: u64 = 8 << 10;
    let board = Arc::new(Board::default());
    board.change(|state| (state.true_us, state.booted_us, state.is_synchronised) = (BEGIN_US, BEGIN_US - S, true));
    let mut config = config(10, Config::default().outbox.sync_interval.0);
    config.uplink.replay = replay;
    config.uplink.replay_rate = ByteSize(RATE);
    let (mut collector, exchange) = start(&config, Arc::new(disk()), &board, 7);
    exchange.lock().stats.connected = None;
    let intake = Intake::idle();
    let mut stations: Vec<crate::sensor::Station> =
        config.sensors.iter().map(|section| crate::sensor::Station::new("pi-7", section)).collect();
    let mut far = Far { bytes_per_s: 0, budget: 0, counts: Vec::new(), newest_s: 0, seqs: Vec::new(), bytes: 0 };
    let mut seconds = 0;
    // A second, in which each sensor gives a reading. Gives the number of seconds so far.
    let mut pass = |far: &mut Far| {
        for (station, sensor) in stations.iter_mut().enumerate() {
            let fields = sensor.read(board.now_us()).unwrap().fields;
            collector.take(Given { station, boot_us: board.boot_us(), measured: Ok(fields) });
        }
        seconds += 1;
        let next_us = board.state().true_us + S;
        while board.state().true_us < next_us {
            // As the outbox's thread does: when it asked to be called, and when there is news.
            let due = collector.step(&intake);
            let now_us = board.state().true_us;
            let due_us = now_us + due.saturating_sub(board.monotonic()).as_micros() as i64;
            board.change(|state| state.true_us = due_us.max(now_us + 1_000).min(next_us));
            if far.bytes_per_s > 0 {
                far.serve(&exchange, board.state().true_us - now_us);
                collector.take_outcomes(Duration::ZERO);
            }
        }
        seconds
    };
    for _ in 0..hours * 3_600 {
        pass(&mut far);
    }
    let waiting = exchange.lock().stats.clone();
    assert_eq!((waiting.sent, waiting.gaps), (0, 0));

    exchange.connected("mqtt://eden.example");
    far.bytes_per_s = 2 * RATE as usize;
    let (mut oldest_age, mut replay_s) = (0, 0);
    let replay_s_max = (waiting.backlog_bytes / RATE + 30) * 21 / 20;
    while exchange.lock().stats.backlog_batches > 0 || replay_s < 12 {
        let now_s: i64 = pass(&mut far);
        replay_s += 1;
        // Until then what was being measured when the connection came has not left yet.
        if replay_s > 12 {
            oldest_age = oldest_age.max(now_s - far.newest_s);
        }
        assert!(replay_s <= replay_s_max, "{replay:?}: the backlog is not sent after {replay_s} s");
    }
    // A minute later nothing comes twice, and nothing but the open batch is missing.
    for _ in 0..60 {
        pass(&mut far);
    }
    let stats = exchange.lock().stats.clone();
    assert!(far.counts.iter().all(|count| *count == 1), "{replay:?}: a reading is missing or came twice");
    let missing = stats.readings - far.counts.len() as u64;
    assert!(missing <= 10 * 12, "{replay:?}: {missing} are missing at the end");
    assert_eq!((stats.resent, stats.gaps), (0, 0));
    let is_sorted = far.seqs.windows(2).all(|pair| pair[0] < pair[1]);
    match replay {
        Replay::OldestFirst => assert!(is_sorted),
        // A sync interval, the second in which it ends, and one on the way.
        Replay::Interleaved | Replay::NewestFirst => {
            assert!(!is_sorted);
            assert!(oldest_age <= 12, "{replay:?}: the newest reading was {oldest_age} s old");
        }
    }
    let Far { seqs, bytes, counts, .. } = far;
    println!(
        "{hours} h, {replay:?}: {} readings in {} batches and {bytes} bytes, each once; {} batches waited and were sent in \
         {replay_s} s; the newest reading at the server was at most {oldest_age} s old meanwhile",
        counts.len(),
        seqs.len(),
        waiting.backlog_batches,
    );
}

/// `EDEN_HOURS` of it; `cargo xtask soak offline` takes 72.
#[test]
fn after_hours_without_a_server_each_reading_arrives_once_in_bounded_time_and_fresh_ones_first() {
    let hours = faults::hours(1);
    for replay in [Replay::Interleaved, Replay::NewestFirst, Replay::OldestFirst] {
        offline(hours, replay);
    }
}
