//! What an outbox does in single situations.

use std::sync::Arc;
use std::time::Duration;

use edge_agent::outbox::{BatchKey, Outbox, OutboxConfig, OutboxError, RESENT_MAX, Replay, peek};
use faults::{FaultDisk, Faults, Operation, SimDisk};
use model::{NodeEpoch, NodeId};
use wal::disk::{Disk as _, SharedDisk, read_exact_at, read_file};
use wal::{RingConfig, RingLog, WalError};

use crate::rig::{DIR, SEGMENT_BYTES, TestClock, body, config, gaps, open, sim};

const ROOMY: u64 = 64 << 20;

fn start(disk: &SimDisk, clock: &Arc<TestClock>, seed: u64, config: OutboxConfig) -> Outbox {
    open(Arc::new(disk.clone()), clock, seed, config).unwrap()
}

fn put(outbox: &mut Outbox, count: u64) {
    for _ in 0..count {
        outbox.put("t v=1 1\n", 1);
    }
    outbox.sync().unwrap();
}

/// Everything that is handed out, acknowledged at once; bodies.
fn drain(outbox: &mut Outbox) -> Vec<String> {
    let mut bodies = Vec::new();
    while let Some(batch) = outbox.next_batch().unwrap() {
        bodies.push(body(&batch));
        assert!(outbox.ack(batch.key()));
    }
    bodies
}

fn head(body: &str) -> &str {
    body.lines().next().unwrap()
}

/// Found by fuzzing: the life after the last one was counted beyond all numbers.
#[test]
fn a_log_of_the_last_life_there_is_is_refused_and_left_alone() {
    let disk = sim();
    drop(start(&disk, &Arc::default(), 1, config(ROOMY)));
    let log = std::path::Path::new(DIR).join("log");
    for entry in disk.list(&log).unwrap() {
        disk.remove_file(&log.join(entry.name)).unwrap();
    }
    let ring = RingConfig::outbox(&log, NodeId(1), NodeEpoch(u64::MAX), ROOMY);
    let (ring, _) = RingLog::open(Arc::new(disk.clone()), ring).unwrap();
    ring.close().unwrap();
    let before = disk.list(&log).unwrap();
    let refused = open(Arc::new(disk.clone()), &Arc::default(), 1, config(ROOMY)).map(drop).unwrap_err();
    assert!(matches!(refused, OutboxError::Log(WalError::Fenced { .. })), "{refused}");
    assert_eq!(disk.list(&log).unwrap(), before);
    // An identity of such a life is none.
    let path = std::path::Path::new(DIR).join("identity.json");
    let text = String::from_utf8(read_file(&disk, &path).unwrap()).unwrap();
    let text = text.replacen("\"life\": 1", &format!("\"life\": {}", u64::MAX), 1);
    disk.plant(&path, text.as_bytes()).unwrap();
    assert!(peek(&(Arc::new(disk.clone()) as SharedDisk), std::path::Path::new(DIR)).unwrap().is_none(), "{text}");
}

#[test]
fn a_cloned_card_begins_a_new_epoch_and_sends_what_waited_under_the_old_one() {
    let (disk, clock) = (sim(), Arc::default());
    let on_board = |serial: &str| OutboxConfig { serial: Some(serial.to_owned()), ..config(ROOMY) };
    let mut outbox = start(&disk, &clock, 1, on_board("board-1"));
    let old = outbox.life().epoch;
    put(&mut outbox, 3);
    // The image is taken while it runs.
    drop(outbox);
    let mut outbox = start(&disk.kill(), &clock, 2, on_board("board-2"));
    let new = outbox.life().epoch;
    assert_ne!(old, new);
    put(&mut outbox, 1);
    let bodies = drain(&mut outbox);
    let heads: Vec<&str> = bodies.iter().map(|body| head(body)).collect();
    let expected: Vec<String> = [(old, 1), (old, 2), (old, 3), (new, 1)]
        .map(|(epoch, seq)| format!("# eden agent=pi-7 epoch={epoch} seq={seq} precision=us"))
        .into();
    assert_eq!(heads, expected);
    assert!(bodies.iter().all(|body| gaps(body).is_empty()), "{bodies:?}");
    outbox.close().unwrap();
    let outbox = start(&disk.kill(), &clock, 3, on_board("board-2"));
    assert_eq!((outbox.life().epoch, outbox.stats().last_seq), (new, 1));
}

#[test]
fn an_agent_with_a_new_id_sends_what_waited_under_the_old_one() {
    let (disk, clock) = (sim(), Arc::default());
    let mut outbox = start(&disk, &clock, 1, config(ROOMY));
    put(&mut outbox, 1);
    outbox.close().unwrap();
    let renamed = OutboxConfig { agent: "pi-8".into(), ..config(ROOMY) };
    let mut outbox = start(&disk.kill(), &clock, 2, renamed);
    put(&mut outbox, 1);
    let bodies = drain(&mut outbox);
    assert!(bodies[0].starts_with("# eden agent=pi-7 ") && bodies[1].starts_with("# eden agent=pi-8 "), "{bodies:?}");
}

#[test]
fn what_an_old_epoch_lost_is_reported_under_it() {
    let (disk, clock) = (sim(), Arc::default());
    let mut outbox = start(&disk, &clock, 1, config(ROOMY));
    let old = outbox.life().epoch;
    put(&mut outbox, 2);
    drop(outbox);
    // Another id, after a kill: the last sync interval of the old life may be missing.
    let renamed = OutboxConfig { agent: "pi-8".into(), ..config(ROOMY) };
    let mut outbox = start(&disk.kill(), &clock, 2, renamed);
    put(&mut outbox, 1);
    let bodies = drain(&mut outbox);
    let closing = &bodies[2];
    assert_eq!(head(closing), format!("# eden agent=pi-7 epoch={old} seq=4 precision=us"));
    assert_eq!(gaps(closing), [(3, 3, None, "unclean_stop".to_owned())]);
    assert!(head(&bodies[3]).starts_with("# eden agent=pi-8 "));
    assert_eq!(gaps(&bodies[3]), []);
}

#[test]
fn a_clean_stop_leaves_no_gap_and_an_unclean_one_skips_one_seq() {
    let (disk, clock) = (sim(), Arc::default());
    let mut outbox = start(&disk, &clock, 1, config(ROOMY));
    put(&mut outbox, 2);
    drain(&mut outbox);
    outbox.close().unwrap();
    let disk = disk.power_cut(1);
    let mut outbox = start(&disk, &clock, 1, config(ROOMY));
    put(&mut outbox, 1);
    let bodies = drain(&mut outbox);
    assert_eq!((bodies.len(), gaps(&bodies[0])), (1, vec![]));
    drop(outbox);
    let mut outbox = start(&disk.kill(), &clock, 1, config(ROOMY));
    put(&mut outbox, 1);
    let bodies = drain(&mut outbox);
    // The acknowledgement of 3 was not durable: it comes again.
    assert!(head(&bodies[0]).contains(" seq=3 "));
    assert!(head(&bodies[1]).contains(" seq=5 "));
    assert_eq!(gaps(&bodies[1]), [(4, 4, None, "unclean_stop".to_owned())]);
}

#[test]
fn a_gap_that_no_batch_reports_is_reported_before_a_clean_stop() {
    let (disk, clock) = (sim(), Arc::default());
    let bytes = 4 * SEGMENT_BYTES;
    let mut outbox = start(&disk, &clock, 1, config(bytes));
    while outbox.stats().gap_readings == 0 {
        put(&mut outbox, 1);
    }
    let (made, lost) = (outbox.stats().readings, outbox.stats().gap_readings);
    outbox.report_gaps();
    outbox.sync().unwrap();
    let bodies = drain(&mut outbox);
    let (first, last, readings, reason) = gaps(bodies.last().unwrap())[0].clone();
    assert_eq!((first, last - first + 1, readings, &*reason), (1, lost, Some(lost), "outbox_full"));
    assert_eq!(bodies.len() as u64 - 1 + lost, made);
    outbox.report_gaps();
    assert!(!outbox.needs_sync(), "nothing is left to report");
    outbox.close().unwrap();
    let mut outbox = start(&disk.kill(), &clock, 1, config(bytes));
    put(&mut outbox, 1);
    assert_eq!(gaps(drain(&mut outbox).last().unwrap()), []);
}

#[test]
fn fewer_than_128_acknowledged_batches_come_again_after_a_crash_at_any_time_of_a_long_drain() {
    for replay in [Replay::OldestFirst, Replay::NewestFirst, Replay::Interleaved] {
        let mut most = 0;
        for crash_after in (1..500).step_by(11) {
            let (disk, clock) = (sim(), Arc::default());
            let config = || OutboxConfig { replay, ..config(ROOMY) };
            let mut outbox = start(&disk, &clock, 1, config());
            put(&mut outbox, 600);
            let mut window = std::collections::VecDeque::new();
            let mut acked = std::collections::HashSet::new();
            while acked.len() < crash_after {
                while let Some(batch) = outbox.next_batch().unwrap() {
                    window.push_back(batch.key());
                }
                // The oldest one last: the worst order. Now and then it is acknowledged too.
                let at = usize::from(window.len() > 1 && acked.len() % 63 != 62);
                let key = window.remove(at).unwrap();
                assert!(outbox.ack(key));
                acked.insert(key);
                // A record that is written long before it is synced knows nothing of the acknowledgements between.
                match acked.len() % 63 {
                    50 => outbox.put("t v=1 1\n", 1),
                    40 => outbox.sync().unwrap(),
                    30 => outbox.connected(),
                    _ => {}
                }
            }
            drop(outbox);
            let mut outbox = start(&disk.power_cut(crash_after as u64), &clock, 1, config());
            let (mut again, mut all) = (0, acked);
            while let Some(batch) = outbox.next_batch().unwrap() {
                again += usize::from(!all.insert(batch.key()));
                outbox.ack(batch.key());
            }
            assert!(again < RESENT_MAX, "{again} come again after {crash_after} with {replay:?}");
            assert!((1..=600).all(|seq| all.iter().any(|key| key.seq == seq)), "{crash_after} with {replay:?}");
            assert_eq!(outbox.stats().backlog_batches, 0);
            most = most.max(again);
        }
        // Out of the order of the log fewer are in line at a time.
        let worst = if replay == Replay::OldestFirst { 100 } else { 60 };
        assert!(most > worst, "the worst is met with {replay:?}: {most}");
    }
}

/// An outbox on a disk that fails when told to.
fn faulty() -> (Faults, Arc<TestClock>, Outbox, SimDisk) {
    let sim = sim();
    let (disk, faults) = FaultDisk::new(Arc::new(sim.clone()));
    let clock = Arc::new(TestClock::default());
    let config = OutboxConfig { segment_bytes: wal::RING_SEGMENT_BYTES, ..config(ROOMY) };
    let outbox = open(Arc::new(disk), &clock, 1, config).unwrap();
    (faults, clock, outbox, sim)
}

#[test]
fn while_the_disk_is_full_readings_wait_in_memory_and_nothing_is_lost() {
    let (faults, clock, mut outbox, _disk) = faulty();
    put(&mut outbox, 3);
    faults.fill_after(0);
    for _ in 0..20 {
        outbox.put("t v=1 1\n", 1);
        let _ = outbox.sync();
        clock.advance(Duration::from_secs(10));
    }
    assert!(outbox.stats().failing && outbox.needs_sync());
    assert_eq!(outbox.stats().backlog_batches, 23);
    // What was durable before is sent all the same.
    assert_eq!(drain(&mut outbox).len(), 3);
    faults.free_space();
    clock.advance(Duration::from_secs(60));
    outbox.sync().unwrap();
    assert!(!outbox.stats().failing && !outbox.needs_sync());
    let bodies = drain(&mut outbox);
    assert_eq!(bodies.len(), 20);
    assert!(bodies.iter().all(|body| gaps(body).is_empty()));
    assert_eq!(outbox.stats().backlog_bytes, 0);
}

#[test]
fn what_memory_cannot_hold_while_the_disk_fails_is_a_gap() {
    let (faults, clock, mut outbox, _disk) = faulty();
    faults.fill_after(0);
    // Random bits do not shrink: 200 of these are more than memory holds.
    let rng = model::SplitMix64::new(5);
    let noise: String = (0..15_000).map(|_| format!("{:016x}", model::Rng::next_u64(&rng))).collect();
    let lines = format!("t v=1 1\n# {noise}\n");
    for _ in 0..200 {
        outbox.put(&lines, 2);
    }
    let lost = outbox.stats().gap_readings / 2;
    assert!((1..200).contains(&lost), "{:?}", outbox.stats());
    faults.free_space();
    clock.advance(Duration::from_secs(60));
    outbox.sync().unwrap();
    put(&mut outbox, 1);
    let bodies = drain(&mut outbox);
    assert_eq!(bodies.len() as u64, 201 - lost);
    // Each batch reports what had been lost when it was made.
    let mut reported: Vec<_> = bodies.iter().flat_map(|body| gaps(body)).collect();
    reported.sort();
    let mut next = 1;
    for (first, last, readings, reason) in reported {
        assert_eq!((first, readings, &*reason), (next, Some(2 * (last + 1 - first)), "outbox_full"));
        next = last + 1;
    }
    assert_eq!(next, lost + 1);
}

#[test]
fn a_sync_that_fails_is_made_up_for() {
    let (faults, clock, mut outbox, _disk) = faulty();
    outbox.put("t v=1 1\n", 1);
    faults.fail_sync(1);
    assert!(outbox.sync().is_err());
    assert_eq!(outbox.next_batch().unwrap(), None, "it may not be durable");
    outbox.put("t v=2 2\n", 1);
    clock.advance(Duration::from_secs(2));
    outbox.sync().unwrap();
    let bodies = drain(&mut outbox);
    assert_eq!(bodies.len(), 2);
    assert!(bodies[0].contains("v=1 1") && bodies[1].contains("v=2 2"));
}

#[test]
fn a_batch_that_cannot_be_read_any_more_is_a_gap_and_the_others_are_sent() {
    let (_, clock, mut outbox, disk) = faulty();
    put(&mut outbox, 5);
    // Block 0 is the header, 1 the start frame, 2 the first state; then the batches follow.
    let path = std::path::Path::new(DIR).join("log").join(format!("{:020}.wal", 1));
    let file = disk.open_write(&path).unwrap();
    let mut byte = [0];
    read_exact_at(&*file, &mut byte, 5 * 4096 + 200).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 5 * 4096 + 200).unwrap();
    let mut bodies = Vec::new();
    for _ in 0..3 {
        while let Ok(Some(batch)) = outbox.next_batch() {
            bodies.push(body(&batch));
            outbox.ack(batch.key());
        }
        clock.advance(Duration::from_secs(60));
        let _ = outbox.sync();
    }
    put(&mut outbox, 1);
    bodies.extend(drain(&mut outbox));
    let seqs: Vec<u64> = bodies.iter().map(|body| crate::peer::seq(body)).collect();
    assert_eq!(seqs, [1, 2, 4, 5, 6]);
    assert_eq!(gaps(&bodies[4]), [(3, 3, Some(1), "damaged".to_owned())]);
}

#[test]
fn a_look_shows_what_waits_and_changes_nothing() {
    let (disk, clock) = (sim(), Arc::default());
    let shared: SharedDisk = Arc::new(disk.clone());
    assert_eq!(peek(&shared, std::path::Path::new(DIR)).unwrap(), None);
    let mut outbox = start(&disk, &clock, 1, config(ROOMY));
    put(&mut outbox, 40);
    for _ in 0..7 {
        let batch = outbox.next_batch().unwrap().unwrap();
        outbox.ack(batch.key());
    }
    let operations = disk.ops();
    let waiting = peek(&shared, std::path::Path::new(DIR)).unwrap().unwrap();
    assert_eq!(disk.ops(), operations, "nothing was changed");
    let life = &waiting.lives[0];
    // That seven are acknowledged is not durable yet.
    assert_eq!((life.first_seq, life.last_seq, life.batches, life.readings), (1, 40, 40, 40));
    assert_eq!((waiting.life.epoch, waiting.last_seq, waiting.closed), (outbox.life().epoch, 40, false));
    put(&mut outbox, 1);
    let waiting = peek(&shared, std::path::Path::new(DIR)).unwrap().unwrap();
    assert_eq!((waiting.lives[0].first_seq, waiting.lives[0].batches), (8, 34));
    outbox.close().unwrap();
    assert!(peek(&shared, std::path::Path::new(DIR)).unwrap().unwrap().closed);
}

#[test]
fn an_outbox_takes_no_more_than_it_may_however_often_it_is_opened() {
    let bytes_max = 3 * SEGMENT_BYTES;
    let (mut disk, clock) = (sim(), Arc::default());
    let mut last = 0;
    for seed in 0..40 {
        let mut outbox = start(&disk, &clock, seed, config(bytes_max));
        for _ in 0..5 {
            outbox.put(&format!("t v=1 1\n# {}\n", "x".repeat(20_000)), 1);
            put(&mut outbox, 2);
            assert!(outbox.stats().disk_bytes <= bytes_max, "{:?}", outbox.stats());
        }
        last = outbox.stats().last_seq;
        drop(outbox);
        disk = disk.kill();
    }
    let mut outbox = start(&disk, &clock, 1, config(bytes_max));
    put(&mut outbox, 1);
    let bodies = drain(&mut outbox);
    let reported: u64 = bodies.iter().flat_map(|body| gaps(body)).map(|gap| gap.1 - gap.0 + 1).sum();
    // One seq was skipped since.
    assert_eq!(bodies.len() as u64 + reported, last + 2);
}

#[test]
fn a_lost_identity_begins_a_new_epoch_and_loses_nothing() {
    let (disk, clock) = (sim(), Arc::default());
    let mut outbox = start(&disk, &clock, 1, config(ROOMY));
    let old = outbox.life().epoch;
    put(&mut outbox, 2);
    outbox.close().unwrap();
    disk.plant(&std::path::Path::new(DIR).join("identity.json"), b"{").unwrap();
    let mut outbox = start(&disk.kill(), &clock, 2, config(ROOMY));
    assert_ne!(outbox.life().epoch, old);
    let keys: Vec<BatchKey> = std::iter::from_fn(|| outbox.next_batch().unwrap()).map(|batch| batch.key()).collect();
    assert_eq!(keys, [BatchKey { epoch: old, seq: 1 }, BatchKey { epoch: old, seq: 2 }]);
}

#[test]
fn an_outbox_of_a_later_release_is_left_alone() {
    let (disk, clock) = (sim(), Arc::default());
    start(&disk, &clock, 1, config(ROOMY)).close().unwrap();
    disk.plant(&std::path::Path::new(DIR).join("identity.json"), b"{\"format\": 2}").unwrap();
    let operations = disk.ops();
    let refused = open(Arc::new(disk.clone()), &clock, 1, config(ROOMY)).unwrap_err();
    assert!(refused.to_string().contains("format version 2"), "{refused}");
    assert_eq!(disk.ops(), operations);
}

#[test]
fn a_failed_rename_of_the_identity_is_an_error_and_the_next_start_goes_on() {
    let sim = sim();
    let clock = Arc::new(TestClock::default());
    start(&sim, &clock, 1, config(ROOMY)).close().unwrap();
    let (disk, faults) = FaultDisk::new(Arc::new(sim.clone()));
    faults.fail(Operation::Rename, 1, |path| path.ends_with("identity.json"));
    assert!(open(Arc::new(disk), &clock, 1, config(ROOMY)).is_err());
    start(&sim.kill(), &clock, 1, config(ROOMY)).close().unwrap();
}
