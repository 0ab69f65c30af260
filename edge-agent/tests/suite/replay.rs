//! In which order batches leave while there is a backlog, how fast, and what is known of it after a restart.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use edge_agent::outbox::{BatchKey, Outbox, OutboxConfig, Replay, peek};
use expect_test::{Expect, expect};
use faults::{SimDisk, seeds};
use model::{Clock as _, Rng, SplitMix64};
use wal::disk::SharedDisk;

use crate::rig::{SEGMENT_BYTES, TestClock, body, config, gaps, open, sim};

const ROOMY: u64 = 64 << 20;

fn start(disk: &SimDisk, clock: &Arc<TestClock>, replay: Replay, replay_bytes_per_s: u64) -> Outbox {
    let config = OutboxConfig { replay, replay_bytes_per_s, in_flight: 4, ..config(ROOMY) };
    open(Arc::new(disk.clone()), clock, 1, config).unwrap()
}

/// A batch whose body has about `bytes` bytes also when it is packed.
fn put(outbox: &mut Outbox, rng: &SplitMix64, bytes: usize) {
    let noise: String = (0..bytes / 8).map(|_| format!("{:016x}", rng.next_u64())).collect();
    outbox.put(&format!("t v=1 1\n# {noise}\n"), 1);
}

/// Plays `script`: `put N`, `connect`, `take N` (hands out), `ack N` (those handed out first), `send N` (hands out and
/// acknowledges one after the other), `stop`, `kill`. What was handed out, by seq.
fn play(replay: Replay, script: &str) -> String {
    let (mut disk, clock) = (sim(), Arc::default());
    let mut outbox = Some(start(&disk, &clock, replay, 0));
    let mut out: Vec<BatchKey> = Vec::new();
    let mut said = String::new();
    for step in script.split("; ") {
        let (what, count) = step.split_once(' ').map_or((step, 0), |(what, count)| (what, count.parse().unwrap()));
        let it = outbox.as_mut().unwrap();
        match what {
            "put" => {
                (0..count).for_each(|_| it.put("t v=1 1\n", 1));
                it.sync().unwrap();
            }
            "connect" => it.connected(),
            "take" | "send" => {
                for _ in 0..count {
                    let Some(batch) = it.next_batch().unwrap() else {
                        said.push_str("- ");
                        break;
                    };
                    let _ = write!(said, "{} ", batch.seq);
                    match what {
                        "take" => out.push(batch.key()),
                        _ => assert!(it.ack(batch.key())),
                    }
                }
            }
            "ack" => out.drain(..count).for_each(|key| assert!(it.ack(key))),
            "stop" => {
                outbox.take().unwrap().close().unwrap();
                outbox = Some(start(&disk, &clock, replay, 0));
            }
            "kill" => {
                // What was acknowledged is durable from the next record on.
                it.put("t v=1 1\n", 1);
                it.sync().unwrap();
                disk = disk.kill();
                outbox = Some(start(&disk, &clock, replay, 0));
            }
            _ => panic!("{what} is no step"),
        }
        if matches!(what, "stop" | "kill") {
            out.clear();
        }
    }
    said.trim_end().to_owned()
}

fn check(replay: Replay, script: &str, right: &Expect) {
    right.assert_eq(&play(replay, script));
}

#[test]
fn what_is_fresh_takes_turns_with_the_backlog() {
    check(Replay::Interleaved, "put 6; connect; send 2; put 3; send 9", &expect!["1 2 7 3 8 4 9 5 6 -"]);
    // In flight are four at most; what is fresh is the next to leave.
    check(
        Replay::Interleaved,
        "put 6; connect; take 9; put 2; ack 1; take 1; ack 3; take 3",
        &expect!["1 2 3 4 - 7 5 8 6"],
    );
    // Another outage: its batches are backlog, behind those of the first.
    check(
        Replay::Interleaved,
        "put 4; connect; put 2; send 3; put 2; connect; put 2; send 9",
        &expect!["5 1 6 2 9 3 10 4 7 8 -"],
    );
    // Before there was a connection all is backlog.
    check(Replay::Interleaved, "put 3; send 1; put 1; send 9", &expect!["1 2 3 4 -"]);
}

#[test]
fn the_newest_goes_first_and_then_back_to_the_oldest() {
    check(Replay::NewestFirst, "put 4; connect; send 2; put 2; send 9", &expect!["4 3 6 5 2 1 -"]);
    check(
        Replay::NewestFirst,
        "put 5; take 9; put 1; ack 1; take 1; ack 2; put 1; take 9",
        &expect!["5 4 3 2 - 6 7 1 -"],
    );
}

#[test]
fn what_was_made_first_goes_first() {
    check(Replay::OldestFirst, "put 4; connect; send 2; put 2; send 9", &expect!["1 2 3 4 5 6 -"]);
}

#[test]
fn a_restart_knows_what_was_sent_out_of_order() {
    for replay in [Replay::Interleaved, Replay::NewestFirst] {
        let all = play(replay, "put 5; connect; put 4; send 5; stop; connect; send 9");
        let mut seqs: Vec<u64> = all.trim_end_matches(" -").split(' ').map(|seq| seq.parse().unwrap()).collect();
        seqs.sort_unstable();
        assert_eq!(seqs, (1..=9).collect::<Vec<_>>(), "{all}");
    }
    // The kill skips seq 11 and batch 12 tells of it; 10 was put to make what was acknowledged durable.
    check(
        Replay::NewestFirst,
        "put 9; connect; send 3; kill; put 1; send 3; kill; put 1; send 20",
        &expect!["9 8 7 10 6 5 13 12 4 3 2 1 15 -"],
    );
    check(
        Replay::Interleaved,
        "put 4; connect; put 2; send 3; kill; connect; put 2; send 9",
        &expect!["5 1 6 2 3 4 7 9 10 -"],
    );
}

#[test]
fn a_look_and_a_gap_know_what_was_sent_out_of_order() {
    let (disk, clock) = (sim(), Arc::default());
    let mut outbox = start(&disk, &clock, Replay::NewestFirst, 0);
    (0..9).for_each(|_| outbox.put("t v=1 1\n", 1));
    outbox.sync().unwrap();
    for _ in 0..4 {
        let batch = outbox.next_batch().unwrap().unwrap();
        outbox.ack(batch.key());
    }
    assert_eq!((outbox.stats().backlog_batches, outbox.stats().gaps), (5, 0));
    outbox.close().unwrap();
    let disk: SharedDisk = Arc::new(disk);
    let waiting = peek(&disk, std::path::Path::new(crate::rig::DIR)).unwrap().unwrap();
    let life = &waiting.lives[0];
    assert_eq!((life.batches, life.first_seq, life.last_seq, life.readings), (5, 1, 5, 5));
    let outbox = open(disk, &clock, 1, config(ROOMY)).unwrap();
    assert_eq!((outbox.stats().backlog_batches, outbox.stats().gaps, outbox.stats().last_seq), (5, 0, 9));
}

#[test]
fn a_rate_holds_back_the_backlog_and_nothing_that_is_fresh() {
    let rng = SplitMix64::new(7);
    for replay in [Replay::Interleaved, Replay::NewestFirst] {
        let (disk, clock) = (sim(), Arc::<TestClock>::default());
        let mut outbox = start(&disk, &clock, replay, 1_000);
        for _ in 0..50 {
            put(&mut outbox, &rng, 1_000);
        }
        outbox.sync().unwrap();
        outbox.connected();
        let (mut fresh, mut backlog, mut bytes) = (0, 0, 0);
        let began = clock.monotonic();
        while backlog < 50 {
            put(&mut outbox, &rng, 1_000);
            outbox.sync().unwrap();
            while let Some(batch) = outbox.next_batch().unwrap() {
                assert!(outbox.ack(batch.key()));
                if batch.seq <= 50 {
                    backlog += 1;
                    bytes += batch.body.len();
                } else {
                    fresh += 1;
                }
            }
            assert_eq!(fresh + 50, outbox.stats().last_seq, "each fresh batch is sent at once");
            let until = outbox.paced_until();
            assert_eq!(until.is_some(), backlog < 50);
            clock.advance(until.map_or(Duration::ZERO, |until| until - clock.monotonic()));
        }
        let took = (clock.monotonic() - began).as_secs_f64();
        let expected = bytes as f64 / 1_000.0;
        assert!((expected * 0.9..expected * 1.05).contains(&took), "{bytes} bytes in {took} s with {replay:?}");
    }
}

#[test]
fn a_rate_does_not_fill_the_outbox() {
    let (disk, clock) = (sim(), Arc::<TestClock>::default());
    let rng = SplitMix64::new(7);
    let bytes_max = 16 * SEGMENT_BYTES;
    let config = OutboxConfig { replay_bytes_per_s: 1_024, ..config(bytes_max) };
    let mut outbox = open(Arc::new(disk), &clock, 1, config).unwrap();
    outbox.connected();
    for number in 0..2_000 {
        put(&mut outbox, &rng, 3_000);
        outbox.sync().unwrap();
        // Each connection makes backlog of what was fresh, far more than the rate lets through.
        if number % 10 == 0 {
            outbox.connected();
        } else if number % 10 == 9 {
            while let Some(batch) = outbox.next_batch().unwrap() {
                assert_eq!(gaps(&body(&batch)), []);
                outbox.ack(batch.key());
            }
        }
        clock.advance(Duration::from_millis(100));
    }
    assert_eq!(outbox.stats().gaps, 0);
}

/// Outages without end while a backlog is sent slowly: neither what is known nor a record grows with them, and all comes.
#[test]
fn outages_during_a_replay_leave_few_ranges() {
    for seed in seeds(3) {
        let rng = SplitMix64::new(seed);
        for replay in [Replay::Interleaved, Replay::NewestFirst] {
            let (mut disk, clock) = (sim(), Arc::<TestClock>::default());
            let mut outbox = start(&disk, &clock, replay, 0);
            (0..400).for_each(|_| outbox.put("t v=1 1\n", 1));
            outbox.sync().unwrap();
            let mut seen = BTreeSet::new();
            let mut send = |outbox: &mut Outbox, most: u64| {
                let mut sent = 0;
                while sent < most
                    && let Some(batch) = outbox.next_batch().unwrap()
                {
                    seen.insert(batch.seq);
                    assert!(outbox.ack(batch.key()));
                    sent += 1;
                }
                sent
            };
            for _ in 0..200 {
                outbox.connected();
                (0..1 + rng.below(4)).for_each(|_| outbox.put("t v=1 1\n", 1));
                outbox.sync().unwrap();
                send(&mut outbox, 1 + rng.below(2));
                (0..1 + rng.below(3)).for_each(|_| outbox.put("t v=1 1\n", 1));
                outbox.sync().unwrap();
                if rng.below(4) == 0 {
                    outbox.put("t v=1 1\n", 1);
                    outbox.sync().unwrap();
                    disk = disk.kill();
                    outbox = start(&disk, &clock, replay, 0);
                }
            }
            // 200 ranges would not fit one block. One that begins a segment takes more.
            let of_one = |outbox: &mut Outbox| {
                let before = outbox.stats().wear.bytes_written;
                outbox.put("t v=1 1\n", 1);
                outbox.sync().unwrap();
                outbox.stats().wear.bytes_written - before
            };
            let bytes = (0..3).map(|_| of_one(&mut outbox)).min().unwrap();
            assert_eq!(bytes, 4_096, "seed {seed}: with {replay:?}");
            while send(&mut outbox, u64::MAX) > 0 {}
            let last = outbox.stats().last_seq;
            let missing: Vec<u64> = (1..=last).filter(|seq| !seen.contains(seq)).collect();
            assert!(
                missing.windows(2).all(|pair| pair[1] - pair[0] > 1),
                "seed {seed}: only what kills skipped: {missing:?}"
            );
            assert!(missing.len() <= 200, "seed {seed}: {missing:?}");
            assert_eq!(outbox.stats().backlog_batches, 0, "seed {seed}");
        }
    }
}

/// A server that is Eden, as far as it knows batches by their names.
#[derive(Default)]
struct Server {
    /// Names that it remembers at most.
    memory: usize,
    recent: VecDeque<u64>,
    has: BTreeSet<u64>,
    /// Applied again, because their names were forgotten.
    twice: Vec<u64>,
}

impl Server {
    fn take(&mut self, seq: u64) {
        if self.recent.contains(&seq) {
            return;
        }
        if !self.has.insert(seq) {
            self.twice.push(seq);
        }
        self.recent.push_back(seq);
        if self.recent.len() > self.memory {
            self.recent.pop_front();
        }
    }
}

/// Outages, lost acknowledgements, kills and power cuts in the middle of replays; what the server applied again.
fn twice(seed: u64, memory: usize) -> Vec<u64> {
    let rng = SplitMix64::new(seed);
    let replays = [Replay::Interleaved, Replay::NewestFirst, Replay::OldestFirst];
    let any = || replays[rng.below(3) as usize];
    let (mut disk, clock) = (sim(), Arc::<TestClock>::default());
    let mut server = Server { memory, ..Server::default() };
    let replay = any();
    for _ in 0..2 + rng.below(5) {
        // Some change their mind about the order.
        let replay = if rng.below(4) == 0 { any() } else { replay };
        let config = OutboxConfig { replay, in_flight: 1 + rng.below(64) as usize, ..config(ROOMY) };
        let mut outbox = open(Arc::new(disk.clone()), &clock, 1, config).unwrap();
        let mut in_flight: Vec<BatchKey> = Vec::new();
        for _ in 0..1 + rng.below(3) {
            for _ in 0..rng.below(500) {
                outbox.put("t v=1 1\n", 1);
                if rng.below(3) > 0 {
                    outbox.sync().unwrap();
                }
            }
            if rng.below(5) == 0 {
                break;
            }
            outbox.connected();
            // A new connection begins with what was on its way.
            in_flight.iter().for_each(|key| server.take(key.seq));
            for _ in 0..rng.below(60) {
                if rng.below(3) == 0 {
                    outbox.put("t v=1 1\n", 1);
                    outbox.sync().unwrap();
                }
                for _ in 0..rng.below(12) {
                    let Some(batch) = outbox.next_batch().unwrap() else { break };
                    server.take(batch.seq);
                    in_flight.push(batch.key());
                }
                // Acknowledgements that come, mostly in order.
                for _ in 0..rng.below(12).min(in_flight.len() as u64) {
                    let at = if rng.below(4) == 0 { rng.below(in_flight.len() as u64) as usize } else { 0 };
                    assert!(outbox.ack(in_flight.remove(at)));
                }
            }
        }
        disk = match rng.below(4) {
            0 => {
                outbox.close().unwrap();
                disk.kill()
            }
            1 => disk.power_cut(rng.next_u64()),
            _ => disk.kill(),
        };
    }
    let config = OutboxConfig { replay, ..config(ROOMY) };
    let mut outbox = open(Arc::new(disk), &clock, 1, config).unwrap();
    outbox.connected();
    outbox.put("t v=1 1\n", 1);
    outbox.sync().unwrap();
    while let Some(batch) = outbox.next_batch().unwrap() {
        server.take(batch.seq);
        assert!(outbox.ack(batch.key()));
    }
    assert_eq!(outbox.stats().backlog_batches, 0, "seed {seed}: all has its turn");
    server.twice
}

#[test]
fn what_comes_again_comes_while_the_server_knows_its_name() {
    for seed in seeds(30) {
        let twice = twice(seed, 256);
        assert_eq!(twice, Vec::<u64>::new(), "seed {seed}: applied again");
    }
    // Something does come again: a server with less of a memory notices.
    assert!((0..60).any(|seed| !twice(seed, 16).is_empty()));
}
