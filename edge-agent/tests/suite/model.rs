//! The outbox against a server in memory: random batches, acknowledgements and losses of both, power cut or process
//! killed at any operation of the disk (P7). A seed fixes everything; the seed of a failure is printed.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use edge_agent::outbox::{BatchKey, Outbox, OutboxConfig, RESENT_MAX, Replay};
use faults::{FaultDisk, PlantedBug, SimDisk, seeds};
use model::{Clock as _, Rng, SplitMix64};
use wal::disk::SharedDisk;

use crate::rig::{SEGMENT_BYTES, SeenGap, TestClock, body, config, gaps, open, sim};

/// A mistake that the model must notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    /// The disk lies to the outbox, which then hands out what is not durable, or does not find what is.
    OfDisk(PlantedBug),
    /// Batches are forgotten when they are sent.
    ForgetWhenSent,
}

/// What a run is about.
#[derive(Clone, Copy, Debug)]
struct Plan {
    /// Bytes of the log at most.
    bytes_max: u64,
    /// Steps of a life.
    steps: u64,
    /// One batch in so many is long.
    long: u64,
    bug: Option<Bug>,
}

/// What must and may reach the server.
#[derive(Default)]
struct Oracle {
    next_id: u64,
    /// Readings of each batch made; a seq that was never handed out may be given away again.
    made: BTreeMap<u64, Vec<u64>>,
    /// Seqs given away in this life.
    fresh: BTreeSet<u64>,
    /// Readings that a sync which returned well covered.
    durable: BTreeSet<u64>,
    /// The bytes of what was handed out.
    handed: BTreeMap<u64, String>,
    /// What the server has.
    received: BTreeMap<u64, String>,
    /// What the outbox was told to be acknowledged.
    acked: HashSet<u64>,
    /// Acknowledged in an earlier life, and handed out in this one.
    again: usize,
    epoch: Option<u64>,
}

impl Oracle {
    fn lines(&mut self, rng: &SplitMix64, long: u64) -> (String, Vec<u64>) {
        let count = 1 + rng.below(3);
        let ids: Vec<u64> = (0..count).map(|i| self.next_id + i).collect();
        self.next_id += count;
        let mut lines = String::new();
        for id in &ids {
            lines.push_str(&format!("t v={id} {}\n", 1_000_000 + id));
        }
        if rng.below(long) == 0 {
            // Random, so that it stays long when it is packed.
            let noise: String = (0..rng.below(1_000)).map(|_| format!("{:016x}", rng.next_u64())).collect();
            lines.push_str(&format!("# {noise}\n"));
        }
        (lines, ids)
    }
}

/// One seed.
fn check(seed: u64, plan: Plan) -> Result<Oracle, String> {
    let rng = SplitMix64::new(seed);
    let clock = Arc::new(TestClock::default());
    let mut disk = sim();
    let replay = [Replay::Interleaved, Replay::NewestFirst, Replay::OldestFirst][rng.below(3) as usize];
    let replay_bytes_per_s = [0, 0, 2_000][rng.below(3) as usize];
    let config = || OutboxConfig { replay, replay_bytes_per_s, ..config(plan.bytes_max) };
    let mut oracle = Oracle::default();
    for _ in 0..1 + rng.below(6) {
        if rng.below(2) == 0 {
            disk.cut_after(1 + rng.below(plan.steps));
        }
        if rng.below(3) == 0 {
            disk.fail_sync_at(1 + rng.below(30));
        }
        let acked_before = oracle.acked.clone();
        oracle.again = 0;
        oracle.fresh.clear();
        if let Ok(mut outbox) = open(behind(&disk, plan.bug), &clock, seed, config()) {
            live(&mut outbox, &mut oracle, &rng, &clock, plan, &acked_before)?;
            if disk.is_on() && rng.below(4) == 0 {
                if outbox.close().is_ok() {
                    oracle.durable.extend(oracle.fresh.iter().flat_map(|seq| &oracle.made[seq]).copied());
                }
                continue;
            }
        }
        disk = if disk.is_on() && rng.below(3) == 0 { disk.kill() } else { disk.power_cut(rng.next_u64()) };
    }
    // A last life, in which nothing fails and all is sent.
    let disk = disk.kill();
    let acked_before = oracle.acked.clone();
    oracle.again = 0;
    oracle.fresh.clear();
    let mut outbox = open(behind(&disk, plan.bug), &clock, seed, config()).map_err(|e| e.to_string())?;
    // What is dropped for the first batch is reported by the second, for which there is room.
    for _ in 0..2 {
        put(&mut outbox, &mut oracle, &rng, plan);
        sync(&mut outbox, &mut oracle)?;
        loop {
            while let Some(key) = hand_out(&mut outbox, &mut oracle, &acked_before)? {
                deliver(&mut oracle, key);
                acknowledge(&mut outbox, &mut oracle, key);
            }
            let Some(until) = outbox.paced_until() else { break };
            clock.advance(until.saturating_sub(clock.monotonic()));
        }
    }
    let left = outbox.stats().backlog_batches;
    if left != 0 {
        return Err(format!("{left} batches are not handed out"));
    }
    judge(&oracle, plan)?;
    Ok(oracle)
}

fn behind(disk: &SimDisk, bug: Option<Bug>) -> SharedDisk {
    let Some(Bug::OfDisk(bug)) = bug else { return Arc::new(disk.clone()) };
    let (disk, faults) = FaultDisk::new(Arc::new(disk.clone()));
    faults.plant(bug);
    Arc::new(disk)
}

fn put(outbox: &mut Outbox, oracle: &mut Oracle, rng: &SplitMix64, plan: Plan) {
    let (lines, ids) = oracle.lines(rng, plan.long);
    outbox.put(&lines, ids.len() as u32);
    let seq = outbox.stats().last_seq;
    oracle.made.insert(seq, ids);
    oracle.fresh.insert(seq);
}

fn sync(outbox: &mut Outbox, oracle: &mut Oracle) -> Result<(), String> {
    if outbox.sync().is_ok() && !outbox.needs_sync() {
        oracle.durable.extend(oracle.fresh.iter().flat_map(|seq| &oracle.made[seq]).copied());
    }
    Ok(())
}

/// Puts, syncs, sends, and loses messages at random, until the power goes or it was enough.
fn live(
    outbox: &mut Outbox,
    oracle: &mut Oracle,
    rng: &SplitMix64,
    clock: &TestClock,
    plan: Plan,
    acked_before: &HashSet<u64>,
) -> Result<(), String> {
    let mut in_flight: Vec<BatchKey> = Vec::new();
    // Some lives have no server.
    let has_server = rng.below(3) > 0;
    for _ in 0..rng.below(plan.steps) {
        clock.advance(Duration::from_millis(100));
        if rng.below(40) == 0 {
            outbox.connected();
        }
        match rng.below(10) {
            0..4 => put(outbox, oracle, rng, plan),
            4 => sync(outbox, oracle)?,
            5..7 => {
                for _ in 0..1 + rng.below(40) {
                    let Some(key) = hand_out(outbox, oracle, acked_before)? else { break };
                    if plan.bug == Some(Bug::ForgetWhenSent) {
                        outbox.ack(key);
                    }
                    in_flight.push(key);
                }
            }
            _ if !has_server || in_flight.is_empty() => {}
            _ => {
                for _ in 0..1 + rng.below(40) {
                    if in_flight.is_empty() {
                        break;
                    }
                    // Mostly in order.
                    let at = if rng.below(4) == 0 { rng.below(in_flight.len() as u64) as usize } else { 0 };
                    let key = in_flight[at];
                    match rng.below(12) {
                        // The message is lost, or the acknowledgement, and with it the connection: all again later.
                        0 => break,
                        1 => {
                            deliver(oracle, key);
                            break;
                        }
                        _ => {
                            deliver(oracle, key);
                            acknowledge(outbox, oracle, key);
                            in_flight.remove(at);
                        }
                    }
                }
            }
        }
        if oracle.again >= RESENT_MAX {
            return Err(format!("{} acknowledged batches were sent again", oracle.again));
        }
    }
    Ok(())
}

fn hand_out(outbox: &mut Outbox, oracle: &mut Oracle, acked_before: &HashSet<u64>) -> Result<Option<BatchKey>, String> {
    let Ok(Some(batch)) = outbox.next_batch() else { return Ok(None) };
    let seq = batch.seq;
    let text = body(&batch);
    let epoch = *oracle.epoch.get_or_insert(batch.life.epoch);
    let head = format!("# eden agent=pi-7 epoch={epoch} seq={seq} precision=us\n");
    if !text.starts_with(&head) {
        return Err(format!("batch {seq} begins with {:?}", text.lines().next()));
    }
    if let Some(before) = oracle.handed.insert(seq, text.clone())
        && before != text
    {
        return Err(format!("batch {seq} has other bytes:\n{before}\n{text}"));
    }
    let ids = oracle.made.get(&seq).ok_or_else(|| format!("batch {seq} was never made"))?;
    if ids_of(&text) != *ids {
        return Err(format!("batch {seq} has other readings than were put into it"));
    }
    oracle.again += usize::from(acked_before.contains(&seq));
    Ok(Some(batch.key()))
}

fn ids_of(text: &str) -> Vec<u64> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("t v="));
    lines.map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect()
}

fn deliver(oracle: &mut Oracle, key: BatchKey) {
    let text = oracle.handed[&key.seq].clone();
    oracle.received.insert(key.seq, text);
}

fn acknowledge(outbox: &mut Outbox, oracle: &mut Oracle, key: BatchKey) {
    outbox.ack(key);
    oracle.acked.insert(key.seq);
}

/// What the server ended up with.
fn judge(oracle: &Oracle, plan: Plan) -> Result<(), String> {
    let all: Vec<(u64, SeenGap)> =
        oracle.received.iter().flat_map(|(seq, text)| gaps(text).into_iter().map(|gap| (*seq, gap))).collect();
    let is_full = |seq: u64| all.iter().any(|(_, gap)| gap.3 == "outbox_full" && (gap.0..=gap.1).contains(&seq));
    // A batch that was received and whose acknowledgement was lost may be dropped: what it reported comes again.
    let reported: Vec<SeenGap> = all.iter().filter(|(seq, _)| !is_full(*seq)).map(|(_, gap)| gap.clone()).collect();
    let last = *oracle.received.last_key_value().ok_or("nothing was received")?.0;
    for seq in 1..=last {
        let covering: Vec<&SeenGap> = reported.iter().filter(|gap| (gap.0..=gap.1).contains(&seq)).collect();
        match (oracle.received.contains_key(&seq), &covering[..]) {
            (true, []) | (false, [_]) => {}
            // It was on its way when the outbox had no more room: both are true.
            (true, [(_, _, _, reason)]) if reason == "outbox_full" => {}
            (has, gaps) => return Err(format!("batch {seq}: received {has}, in the gaps {gaps:?}")),
        }
    }
    for (first, last, readings, reason) in &reported {
        let made: u64 = oracle.made.range(first..=last).map(|(_, ids)| ids.len() as u64).sum();
        if reason == "outbox_full" && *readings != Some(made) {
            return Err(format!("the gap {first}..{last} says {readings:?} readings and had {made}"));
        }
        if reason == "damaged" {
            return Err("no byte was damaged".to_owned());
        }
    }
    let received: BTreeSet<u64> = oracle.received.values().flat_map(|text| ids_of(text)).collect();
    // Seqs of batches that were made and not durable may be given away again: that something is lost is reported.
    let lost = (0..oracle.next_id).find(|id| !received.contains(id));
    if let Some(id) = lost
        && reported.is_empty()
    {
        return Err(format!("reading {id} is lost in silence"));
    }
    let is_dropped = |seq: &u64| {
        let full = reported.iter().filter(|gap| gap.3 == "outbox_full");
        plan.bytes_max < PLENTY && full.into_iter().any(|gap| (gap.0..=gap.1).contains(seq))
    };
    for (seq, ids) in &oracle.made {
        for id in ids.iter().filter(|id| oracle.durable.contains(id)) {
            if !received.contains(id) && !is_dropped(seq) {
                return Err(format!("reading {id} of batch {seq} was durable and is lost"));
            }
        }
    }
    Ok(())
}

const PLENTY: u64 = 64 << 20;
const ROOMY: Plan = Plan { bytes_max: PLENTY, steps: 300, long: 8, bug: None };
/// Four segments, and batches that fill them.
const TIGHT: Plan = Plan { bytes_max: 4 * SEGMENT_BYTES, steps: 300, long: 2, bug: None };

#[test]
fn an_outbox_sends_what_was_durable_until_it_is_acknowledged_and_reports_each_gap_once() {
    for seed in seeds(200) {
        if let Err(wrong) = check(seed, ROOMY) {
            panic!("seed {seed}: {wrong}");
        }
    }
}

#[test]
fn a_full_outbox_drops_the_oldest_and_reports_exactly_what() {
    let mut dropped = 0;
    for seed in seeds(200) {
        let oracle = check(seed, TIGHT).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
        dropped += oracle.received.values().filter(|text| text.contains("outbox_full")).count();
    }
    assert!(dropped > 50, "the outbox was full: {dropped}");
}

/// Whether at least three of 100 seeds notice the bug.
fn is_noticed(bug: Bug) -> bool {
    let plan = Plan { bug: Some(bug), ..ROOMY };
    (0..100).filter(|seed| check(*seed, plan).is_err()).take(3).count() == 3
}

#[test]
fn a_batch_that_is_handed_out_before_it_is_durable_is_noticed() {
    assert!(is_noticed(Bug::OfDisk(PlantedBug::AckBeforeSync)));
}

#[test]
fn a_batch_that_is_forgotten_before_its_acknowledgement_is_noticed() {
    assert!(is_noticed(Bug::ForgetWhenSent));
}

#[test]
fn a_new_name_that_is_not_synced_is_noticed() {
    assert!(is_noticed(Bug::OfDisk(PlantedBug::ForgetDirectorySync)));
}
