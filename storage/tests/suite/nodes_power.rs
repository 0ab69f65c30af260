//! Several nodes in one folder (docs/adr/0018): what each acknowledged is stored once, whoever dies, sleeps or adopts.
//!
//! Of the series that only one node writes the oracle knows every value; of those that all write, what was attempted.
//! Each key is looked for in every version of the table (P4), in the files themselves.

use std::collections::{BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use faults::{Last, Life, MortalDisk, NodeBug, SimDisk};
use model::{Rng, SplitMix64, Value};
use storage::{ColumnKind, Settling, Storage, StorageError};
use wal::disk::SharedDisk;

use crate::nodes::{Files, NODES, adopt_as, check_every_version, table};
use crate::power::DAY_US;
use crate::world::{Rows, World, batch, read};

/// What one node wrote to the series that are its own.
#[derive(Default)]
struct Oracle {
    acked: Rows,
    in_flight: Vec<Vec<Reading>>,
}

#[derive(Clone, Debug)]
struct Reading {
    series: String,
    time: i64,
    field: &'static str,
    value: f64,
}

fn apply(rows: &mut Rows, write: &[Reading]) {
    for reading in write.iter().filter(|reading| !reading.series.starts_with("both")) {
        let row = rows.entry((format!("s={}", reading.series), reading.time)).or_default();
        row.insert(reading.field.into(), reading.value.to_string());
    }
}

/// The nodes of one folder, and what is known of what they wrote.
struct Cluster {
    sim: SimDisk,
    nodes: [Node; 2],
    /// Of the series that both write: every value that was attempted of a key and field, and the keys that were
    /// acknowledged.
    attempted: HashMap<(String, i64, String), BTreeSet<String>>,
    acked_keys: BTreeSet<(String, i64)>,
    next: AtomicU64,
    bug: Option<NodeBug>,
}

struct Node {
    storage: Option<Arc<Storage>>,
    life: Option<Life>,
    oracle: Oracle,
    /// Its log was adopted while it lived.
    is_zombie: bool,
}

fn random_write(node: usize, next: &AtomicU64, rng: &SplitMix64) -> Vec<Reading> {
    let reading = |_| {
        let n = next.fetch_add(1, Ordering::SeqCst) + 1;
        let time = if rng.below(3) == 0 { rng.below(n) } else { n } as i64;
        let series = if rng.below(4) == 0 { "both".to_owned() } else { format!("n{node}-{}", rng.below(2)) };
        // So that nodes meet in keys, too.
        let time = if series == "both" { time % 7 } else { time };
        let own = ["p", "q"][node];
        let field = ["x", "y", own][rng.below(3) as usize];
        let day = if rng.below(8) == 0 { DAY_US } else { 0 };
        Reading { series, time: time + day, field, value: n as f64 }
    };
    (0..1 + rng.below(5)).map(reading).collect()
}

fn send(storage: &Storage, write: &[Reading]) -> Result<(), StorageError> {
    let fields: Vec<[(&str, Value<'_>); 1]> =
        write.iter().map(|reading| [(reading.field, Value::F64(reading.value))]).collect();
    let readings: Vec<_> =
        write.iter().zip(&fields).map(|(reading, fields)| (&*reading.series, reading.time, &fields[..])).collect();
    let pending = storage.write(vec![batch("t", &readings)], "test")?;
    if !pending.rejected.is_empty() {
        return Err(StorageError::Invalid(format!("{:?}", pending.rejected)));
    }
    pending.wait()
}

/// What a node does in a burst: writes, flushes, merges. Returns the writes with what became of them.
fn work(
    storage: &Storage,
    node: usize,
    next: &AtomicU64,
    seed: u64,
) -> (Vec<(Vec<Reading>, bool)>, Option<StorageError>) {
    let rng = SplitMix64::new(seed);
    let mut writes = Vec::new();
    for _ in 0..4 + rng.below(8) {
        let done = match rng.below(8) {
            0 if storage.table(&table()).is_some() => storage.flush(&table(), Settling::WithinBudget),
            1 if storage.table(&table()).is_some() => storage.refresh(&table()),
            2 if storage.table(&table()).is_some() => match storage.compact(&table()) {
                // Another node was faster each time.
                Err(StorageError::Busy { .. }) => Ok(()),
                done => done,
            },
            _ => {
                let write = random_write(node, next, &rng);
                let done = send(storage, &write);
                writes.push((write, done.is_ok()));
                done
            }
        };
        if let Err(e) = done {
            return (writes, Some(e));
        }
    }
    (writes, None)
}

impl Cluster {
    fn new(bug: Option<NodeBug>) -> Cluster {
        let node = || Node { storage: None, life: None, oracle: Oracle::default(), is_zombie: false };
        Cluster {
            sim: SimDisk::new(),
            nodes: [node(), node()],
            attempted: HashMap::new(),
            acked_keys: BTreeSet::new(),
            next: AtomicU64::new(0),
            bug,
        }
    }

    fn disk(&self) -> (SharedDisk, Life) {
        let (disk, life) = MortalDisk::new(Arc::new(self.sim.clone()));
        self.bug.into_iter().for_each(|bug| life.plant(bug));
        (Arc::new(disk), life)
    }

    fn world(&self, disk: &SharedDisk, node: usize, rng: &SplitMix64) -> World {
        let mut world = crate::nodes::world(disk, NODES[node], rng.next_u64());
        world.config.table_memory_bytes_max = 6 << 10;
        world
    }

    /// Whether the node can go on: neither has it died, nor the power gone.
    fn is_well(&self, node: usize) -> bool {
        self.sim.is_on() && self.nodes[node].life.as_ref().is_some_and(Life::is_alive)
    }

    fn start(&mut self, node: usize, rng: &SplitMix64) -> Result<(), String> {
        let (disk, life) = self.disk();
        if rng.below(4) == 0 {
            life.die_at(1 + rng.below(60), Last::random(rng));
        }
        self.nodes[node].life = Some(life);
        self.nodes[node].is_zombie = false;
        match self.world(&disk, node, rng).try_open() {
            Ok(storage) => {
                // With a bug planted it is the oracle that must notice.
                if !storage.losses().is_empty() && self.bug.is_none() {
                    return Err(format!("node {node}: losses {:?}", storage.losses()));
                }
                self.nodes[node].storage = Some(storage);
                self.resolve(node)
            }
            Err(_) if !self.is_well(node) => Ok(()),
            Err(e) => Err(format!("node {node} does not start: {e}")),
        }
    }

    /// Of a node that has just started or been adopted, all that it ever logged is there to be seen by `seer`.
    fn resolve(&mut self, node: usize) -> Result<(), String> {
        let Some(storage) = self.nodes[node].storage.clone() else { return Ok(()) };
        let read = catch_unwind(AssertUnwindSafe(|| storage.snapshot(&table()).unwrap().map(|_| read(&storage, "t"))));
        match read {
            Ok(rows) => self.check_own(node, &rows.unwrap_or_default()),
            Err(_) if !self.is_well(node) => Ok(()),
            Err(panic) => Err(format!("node {node}: read: {:?}", panic.downcast_ref::<String>())),
        }
    }

    /// Rows of a node's own series must be those acknowledged and the first few in flight; they are the truth from then on.
    fn check_own(&mut self, node: usize, rows: &Rows) -> Result<(), String> {
        let own = format!("s=n{node}-");
        let stored: Rows =
            rows.iter().filter(|(key, _)| key.0.starts_with(&own)).map(|(k, v)| (k.clone(), v.clone())).collect();
        let oracle = &mut self.nodes[node].oracle;
        let mut allowed = oracle.acked.clone();
        for n in 0..=oracle.in_flight.len() {
            if n > 0 {
                apply(&mut allowed, &oracle.in_flight[n - 1]);
            }
            if allowed == stored {
                oracle.acked = allowed;
                oracle.in_flight.clear();
                return Ok(());
            }
        }
        let lost: Vec<_> = oracle.acked.iter().filter(|(key, row)| stored.get(*key) != Some(row)).collect();
        let other: Vec<_> = stored.iter().filter(|(key, row)| oracle.acked.get(*key) != Some(row)).collect();
        Err(format!("node {node}: acknowledged {lost:?}, stored {other:?}, in flight {:?}", oracle.in_flight))
    }

    fn note(&mut self, node: usize, writes: Vec<(Vec<Reading>, bool)>, error: &Option<StorageError>) {
        for (write, is_acked) in writes {
            for reading in write.iter().filter(|reading| reading.series == "both") {
                let key = (reading.series.clone(), reading.time, reading.field.to_owned());
                self.attempted.entry(key).or_default().insert(reading.value.to_string());
                if is_acked {
                    self.acked_keys.insert((format!("s={}", reading.series), reading.time));
                }
            }
            let oracle = &mut self.nodes[node].oracle;
            match error {
                _ if is_acked => apply(&mut oracle.acked, &write),
                // It was told that nothing of it is stored.
                Some(StorageError::Fenced) => {}
                _ => oracle.in_flight.push(write),
            }
        }
    }

    /// All nodes that can, do something at the same time.
    fn burst(&mut self, rng: &SplitMix64) -> Result<(), String> {
        let next = &self.next;
        let done: Vec<_> = std::thread::scope(|scope| {
            let mut running = Vec::new();
            for (n, node) in self.nodes.iter().enumerate() {
                let Some(storage) = &node.storage else { continue };
                let seed = rng.next_u64();
                running.push((n, scope.spawn(move || work(storage, n, next, seed))));
            }
            running.into_iter().map(|(n, running)| (n, running.join())).collect()
        });
        for (n, joined) in done {
            let (writes, error) = match joined {
                Ok(done) => done,
                Err(panic) if self.is_well(n) => {
                    return Err(format!("node {n} panicked: {:?}", panic.downcast_ref::<String>()));
                }
                Err(_) => continue,
            };
            let is_zombie = self.nodes[n].is_zombie;
            self.note(n, writes, &error);
            match error {
                None => {}
                Some(StorageError::Fenced) if is_zombie => self.nodes[n].storage = None,
                // Background work of a node that dies may fail in many ways; one that lives may not.
                Some(_) if !self.is_well(n) => {}
                Some(e) => return Err(format!("node {n}: {e}")),
            }
        }
        Ok(())
    }

    /// `by` takes over the log of the other node, which may live on.
    fn adopt(&mut self, by: usize, rng: &SplitMix64) -> Result<(), String> {
        let dead = 1 - by;
        let (disk, life) = self.disk();
        if rng.below(4) == 0 {
            life.die_at(1 + rng.below(80), Last::random(rng));
        }
        let config = self.world(&disk, by, rng).config;
        let adopted = adopt_as(&disk, NODES[dead], &config, rng.next_u64());
        if self.nodes[dead].storage.is_some() {
            self.nodes[dead].is_zombie = true;
        }
        match adopted {
            Ok(_) => self.see(by, dead),
            Err(_) if !life.is_alive() || !self.sim.is_on() => Ok(()),
            Err(e) => Err(format!("adopt {dead}: {e}")),
        }
    }

    /// After an adoption of `dead`: the other node sees all of it.
    fn see(&mut self, by: usize, dead: usize) -> Result<(), String> {
        let Some(storage) = self.nodes[by].storage.clone().filter(|_| self.is_well(by)) else { return Ok(()) };
        let rows = catch_unwind(AssertUnwindSafe(|| storage.snapshot(&table()).unwrap().map(|_| read(&storage, "t"))));
        match rows {
            Ok(rows) => self.check_own(dead, &rows.unwrap_or_default()).map_err(|e| format!("seen by {by}: {e}")),
            // One whose own log was adopted answers no more once it knows.
            Err(_) if !self.is_well(by) || self.nodes[by].is_zombie => Ok(()),
            Err(panic) => Err(format!("node {by}: read: {:?}", panic.downcast_ref::<String>())),
        }
    }

    fn end_of_power(&mut self, rng: &SplitMix64) {
        self.nodes.iter_mut().for_each(|node| node.storage = None);
        self.sim =
            if rng.below(3) == 0 && self.sim.is_on() { self.sim.kill() } else { self.sim.power_cut(rng.next_u64()) };
    }

    /// Everybody stops and is adopted; what is in the table then must be all.
    fn finish(&mut self, rng: &SplitMix64) -> Result<(), String> {
        self.nodes.iter_mut().for_each(|node| node.storage = None);
        self.sim = self.sim.kill();
        let (disk, _) = self.disk();
        let config = self.world(&disk, 0, rng).config;
        adopt_as(&disk, NODES[1], &config, rng.next_u64()).map_err(|e| format!("last adoption: {e}"))?;
        let (disk, life) = self.disk();
        self.nodes[0].life = Some(life);
        let storage = self.world(&disk, 0, rng).open();
        if storage.snapshot(&table()).map_err(|e| e.to_string())?.is_none() {
            return Ok(());
        }
        storage.refresh(&table()).map_err(|e| format!("last flush: {e}"))?;
        let rows = read(&storage, "t");
        for node in 0..2 {
            self.check_own(node, &rows)?;
        }
        for key in &self.acked_keys {
            if !rows.contains_key(key) {
                return Err(format!("{key:?} of both nodes was acknowledged and is gone"));
            }
        }
        for ((series, time), row) in rows.iter().filter(|(key, _)| key.0 == "s=both") {
            for (field, value) in row {
                let key = (series.trim_start_matches("s=").to_owned(), *time, field.clone());
                if !self.attempted.get(&key).is_some_and(|values| values.contains(value)) {
                    return Err(format!("nobody wrote {value} to {key:?}"));
                }
            }
        }
        let schema = storage.table(&table()).unwrap().schema;
        assert!(schema.columns().iter().any(|column| column.kind == ColumnKind::Tag));
        Ok(())
    }
}

fn run(seed: u64, bug: Option<NodeBug>) -> Result<(), String> {
    let rng = SplitMix64::new(seed);
    let mut cluster = Cluster::new(bug);
    let mut files = Files::default();
    for era in 0..3 {
        if era < 2 && rng.below(2) == 0 {
            cluster.sim.cut_after(1 + rng.below(600));
        }
        for step in 0..8 {
            let label = |e: String| format!("era {era}, step {step}: {e}");
            for node in 0..2 {
                let is_gone = !cluster.is_well(node) || cluster.nodes[node].storage.is_none();
                if is_gone {
                    cluster.nodes[node].storage = None;
                }
                if is_gone && cluster.sim.is_on() {
                    match rng.below(3) {
                        0 => cluster.adopt(1 - node, &rng).map_err(label)?,
                        1 => {}
                        _ => cluster.start(node, &rng).map_err(label)?,
                    }
                }
            }
            if !cluster.sim.is_on() {
                break;
            }
            // Somebody is taken for dead who is not.
            if rng.below(6) == 0 {
                cluster.adopt(rng.below(2) as usize, &rng).map_err(label)?;
            }
            cluster.burst(&rng).map_err(label)?;
        }
        cluster.end_of_power(&rng);
        check_every_version(&cluster.sim, &mut files).map_err(|e| format!("era {era}: {e}"))?;
    }
    cluster.finish(&rng)?;
    check_every_version(&cluster.sim, &mut files)
}

#[test]
fn what_any_node_acknowledged_is_stored_once_whoever_dies_sleeps_or_adopts() {
    for seed in faults::seeds(40) {
        if let Err(e) = run(seed, None) {
            panic!("seed {seed}: {e}");
        }
    }
}

#[test]
fn planted_bugs_of_nodes_are_caught() {
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let caught = [NodeBug::LogNamesAreTaken, NodeBug::NoSeal].map(|bug| {
        let caught = (0..400).find_map(|seed| {
            let outcome = catch_unwind(AssertUnwindSafe(|| run(seed, Some(bug))));
            let why = outcome.unwrap_or_else(|_| Err("a panic".into())).err()?;
            Some((seed, why))
        });
        (bug, caught)
    });
    std::panic::set_hook(quiet);
    for (bug, caught) in caught {
        let Some((seed, why)) = caught else { panic!("{bug:?} went unnoticed") };
        println!("{bug:?}: caught at seed {seed}: {}", why.chars().take(200).collect::<String>());
    }
}
