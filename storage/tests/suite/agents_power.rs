//! Power cuts while agents send batches, and send them again, between corrections, against an exact oracle.
//!
//! As `power`, with batches that have names. Batches that were sent before, acknowledged or not, are sent again at any
//! moment. One that was acknowledged, or that the storage called a duplicate of a durable one, is never applied again,
//! in whatever life and however much of the log was truncated: then the oracle takes its readings exactly once, in the
//! order of the log. One whose answer was lost may be known or not; it is applied at its retry only if it is not.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use faults::{FaultDisk, SimDisk};
use model::{Rng, SplitMix64, TableName};
use storage::{AgentBatch, PendingWrite, Seen, Storage};
use wal::disk::SharedDisk;

use crate::power::{Write, apply, random_write, read_as_others, table_batch, world};
use crate::world::{Rows, read, read_snapshot};

/// What the oracle knows of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Certainly not known to the storage: it must be taken for new.
    Unknown,
    /// Sent without an answer.
    Maybe,
    /// Acknowledged, or called a duplicate of a durable one: it must be a duplicate for ever.
    Known,
}

struct Sent {
    agent: usize,
    seq: u64,
    write: Write,
    fate: Fate,
}

/// What a call that was not answered yet will change.
struct InFlight {
    /// Index into `sent` of a named batch.
    named: Option<usize>,
    /// `None` for a duplicate.
    write: Option<Write>,
    /// The batch may have been stored before this call: what became of the call tells nothing of that.
    may_be_stored: bool,
}

#[derive(Default)]
struct Oracle {
    acked: Rows,
    in_flight: Vec<InFlight>,
    sent: Vec<Sent>,
    /// Highest number of each agent.
    seqs: [u64; 2],
    readings: u64,
    duplicates: u64,
}

impl Oracle {
    /// As in `power`: what is stored must be what was acknowledged and the first few in flight.
    fn check(&mut self, stored: Rows) -> Result<(), String> {
        let mut allowed = self.acked.clone();
        // As many as may have been stored: those that change nothing cannot be told.
        let mut most = (allowed == stored).then_some(0);
        for (count, call) in (1..).zip(&self.in_flight) {
            call.write.iter().for_each(|write| apply(&mut allowed, write));
            if allowed == stored {
                most = Some(count);
            }
        }
        let Some(most) = most else {
            return Err(format!("stored {stored:?}\nacknowledged {:?}", self.acked));
        };
        self.acked = stored;
        self.forget(most);
        Ok(())
    }

    /// The life is over in which calls were in flight, of which at most the first `most` were stored.
    fn forget(&mut self, most: usize) {
        for (i, call) in self.in_flight.drain(..).enumerate() {
            let Some(named) = call.named else { continue };
            let fate = &mut self.sent[named].fate;
            if call.write.is_some() && *fate != Fate::Known {
                *fate = if i < most || call.may_be_stored { Fate::Maybe } else { Fate::Unknown };
            }
        }
    }

    /// The rows of `system.agents` must count every batch that is known, and no other.
    fn check_agents(&self, rows: &Rows) -> Result<(), String> {
        for agent in 0..2 {
            let of_agent = || self.sent.iter().filter(move |sent| sent.agent == agent);
            let count = |fate: Fate| of_agent().filter(|sent| sent.fate == fate).count() as u64;
            let (known, maybe) = (count(Fate::Known), count(Fate::Maybe));
            let row = rows.iter().find(|((series, _), _)| *series == format!("agent=pi-{agent}")).map(|(_, row)| row);
            let field = |name: &str| row.map_or(0, |row| row[name].parse::<u64>().unwrap());
            let (batches, seq) = (field("batches"), field("seq"));
            if !(known..=known + maybe).contains(&batches) {
                return Err(format!("pi-{agent}: {batches} batches, {known} known, {maybe} perhaps"));
            }
            let up_to = (1..).take_while(|seq| of_agent().any(|s| s.seq == *seq && s.fate == Fate::Known)).count();
            if seq < up_to as u64 {
                return Err(format!("pi-{agent}: all up to {seq}, but {up_to} are known"));
            }
        }
        Ok(())
    }
}

/// Sends something: a correction, a new batch, or one of the last 40 again.
fn send(storage: &Storage, oracle: &mut Oracle, rng: &SplitMix64) -> Result<Option<PendingWrite>, String> {
    let kind = rng.below(10);
    if kind < 4 {
        let write = random_write(&mut oracle.readings, rng);
        let pending = storage.write(vec![table_batch(&write)], "test");
        oracle.in_flight.push(InFlight { named: None, write: Some(write), may_be_stored: false });
        return Ok(pending.ok());
    }
    let index = if kind < 7 || oracle.sent.is_empty() {
        let agent = rng.below(2) as usize;
        oracle.seqs[agent] += 1;
        let write = random_write(&mut oracle.readings, rng);
        oracle.sent.push(Sent { agent, seq: oracle.seqs[agent], write, fate: Fate::Unknown });
        oracle.sent.len() - 1
    } else {
        oracle.sent.len() - 1 - rng.below(oracle.sent.len().min(40) as u64) as usize
    };
    let sent = &mut oracle.sent[index];
    let batch = AgentBatch {
        agent: format!("pi-{}", sent.agent).into(),
        epoch: 7,
        seq: sent.seq,
        crc: (sent.seq * 31) as u32,
        gaps: Vec::new(),
    };
    let on_its_way = oracle.in_flight.iter().any(|call| call.named == Some(index) && call.write.is_some());
    let (pending, seen) = match storage.write_of_agent(vec![table_batch(&sent.write)], &batch, "test") {
        Ok((pending, seen)) => (Some(pending), seen),
        // It may have been logged in part, as if its answer had been lost.
        Err(_) => {
            let write = (sent.fate != Fate::Known && !on_its_way).then(|| sent.write.clone());
            let may_be_stored = sent.fate == Fate::Maybe;
            oracle.in_flight.push(InFlight { named: Some(index), write, may_be_stored });
            return Ok(None);
        }
    };
    let right = match (sent.fate, on_its_way) {
        (Fate::Known, _) | (_, true) => seen == Seen::Duplicate,
        (Fate::Unknown, false) => seen == Seen::New,
        (Fate::Maybe, false) => seen != Seen::Conflict,
    };
    if !right {
        return Err(format!("pi-{} {} is {:?}, but was taken for {seen:?}", sent.agent, sent.seq, sent.fate));
    }
    if seen == Seen::Duplicate && !on_its_way {
        sent.fate = Fate::Known;
    }
    oracle.duplicates += u64::from(seen == Seen::Duplicate);
    let write = (seen == Seen::New).then(|| sent.write.clone());
    oracle.in_flight.push(InFlight { named: Some(index), write, may_be_stored: false });
    Ok(pending)
}

fn check_stored(storage: &Storage, oracle: &mut Oracle, is_on: &dyn Fn() -> bool) -> Result<(), String> {
    let agents = TableName::new("system", "agents");
    let read_all = || {
        read_as_others(storage, &TableName::public("t"));
        let rows = storage.table(&agents).map(|_| {
            read_as_others(storage, &agents);
            read_snapshot(storage, &storage.snapshot(&agents).unwrap().unwrap())
        });
        (read(storage, "t"), rows.unwrap_or_default())
    };
    match catch_unwind(AssertUnwindSafe(read_all)) {
        Ok((rows, agents)) => {
            oracle.check(rows)?;
            oracle.check_agents(&agents)
        }
        Err(_) if !is_on() => Ok(()),
        Err(panic) => Err(format!("read: {:?}", panic.downcast_ref::<String>())),
    }
}

fn live(
    disk: &SharedDisk,
    oracle: &mut Oracle,
    rng: &SplitMix64,
    steps: u64,
    is_on: &dyn Fn() -> bool,
) -> Result<(), String> {
    let mut world = world(disk, rng.next_u64());
    // Small enough for the log to be truncated many times in a run.
    world.config.log_segment_bytes = 32 << 10;
    world.config.log_bytes_max = 64 << 10;
    let storage = match world.try_open() {
        Ok(storage) => storage,
        Err(_) if !is_on() => return Ok(()),
        Err(e) => return Err(format!("open: {e}")),
    };
    if storage.table(&TableName::public("t")).is_some() {
        check_stored(&storage, oracle, is_on)?;
    } else if !oracle.acked.is_empty() && is_on() {
        return Err("the table is gone".into());
    } else {
        oracle.forget(0);
    }
    for _ in 0..steps {
        let tables = [TableName::public("t"), TableName::new("system", "agents")];
        let table = &tables[usize::from(rng.below(4) == 0)];
        if rng.below(4) == 0 && storage.table(table).is_some() {
            match storage.refresh(table) {
                Ok(()) => {}
                Err(_) if !is_on() => return Ok(()),
                Err(e) => return Err(format!("refresh: {e}")),
            }
        }
        let mut pending = Vec::new();
        for _ in 0..1 + rng.below(3) {
            match send(&storage, oracle, rng) {
                Ok(sent) => pending.push(sent),
                Err(_) if !is_on() => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        for sent in pending {
            let Some(sent) = sent else {
                return if is_on() { Err("a write was refused".into()) } else { Ok(()) };
            };
            match sent.wait() {
                Ok(()) => {
                    let call = oracle.in_flight.remove(0);
                    call.write.iter().for_each(|write| apply(&mut oracle.acked, write));
                    call.named.into_iter().for_each(|named| oracle.sent[named].fate = Fate::Known);
                }
                Err(_) if !is_on() => return Ok(()),
                Err(e) => return Err(format!("write: {e}")),
            }
        }
        if rng.below(10) == 0 && storage.table(&TableName::public("t")).is_some() {
            check_stored(&storage, oracle, is_on)?;
        }
    }
    if rng.below(3) == 0 {
        match storage.close(Duration::from_secs(60)) {
            Err(e) if is_on() => return Err(format!("close: {e}")),
            _ => {}
        }
    }
    Ok(())
}

/// Five lives, each but the last ended by a power cut or a kill at a random operation. Says how many batches came again.
fn run(seed: u64) -> Result<u64, String> {
    let rng = SplitMix64::new(seed);
    let mut oracle = Oracle::default();
    let mut sim = SimDisk::new();
    for life in 0..5 {
        let (faulty, _faults) = FaultDisk::new(Arc::new(sim.clone()));
        let disk: SharedDisk = Arc::new(faulty);
        if life < 4 {
            sim.cut_after(1 + rng.below(260));
        }
        let alive = sim.clone();
        live(&disk, &mut oracle, &rng, 16, &|| alive.is_on()).map_err(|e| format!("life {life}: {e}"))?;
        sim = if rng.below(4) == 0 && sim.is_on() { sim.kill() } else { sim.power_cut(rng.next_u64()) };
    }
    Ok(oracle.duplicates)
}

#[test]
fn a_batch_that_was_acknowledged_is_applied_once_whatever_is_sent_again_and_wherever_power_goes() {
    let mut duplicates = 0;
    for seed in faults::seeds(200) {
        duplicates += run(seed).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    }
    assert!(duplicates > 0, "no batch came again");
}
