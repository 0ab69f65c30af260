//! Several nodes in one folder (docs/adr/0018): what each acknowledged is stored once, whoever dies, sleeps or adopts.
//!
//! Of the series that only one node writes the oracle knows every value; of those that all write, what was attempted.
//! Each key is looked for in every version of the table (P4), in the files themselves.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::datatypes::TimestampMicrosecondType;
use faults::{Life, MortalDisk, NodeBug, SimDisk};
use model::{Clock, NodeId, Rng, SplitMix64, SystemClock, TableName, Value};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use storage::{ColumnKind, PendingWrite, Settling, Storage, StorageConfig, StorageError, TableOptions, adopt};
use wal::disk::{Disk, SharedDisk, read_file};

use crate::world::{Rows, START_US, World, batch, read, write};

const DAY_US: i64 = 86_400_000_000;
const NODES: [NodeId; 2] = [NodeId(0xA), NodeId(0xB)];
const GRACE: Duration = Duration::from_secs(60);

fn table() -> TableName {
    TableName::public("t")
}

fn world(disk: &SharedDisk, node: NodeId, seed: u64) -> World {
    let mut world = World::on(Arc::clone(disk), PathBuf::from("/data")).with_seed(seed);
    world.config.shared = Some(node);
    world
}

fn adopt_as(
    disk: &SharedDisk,
    dead: NodeId,
    config: &StorageConfig,
    seed: u64,
) -> Result<storage::Adopted, StorageError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    adopt(config.clone(), disk, clock, Arc::new(SplitMix64::new(seed)), dead)
}

/// Keys of each data file, read once.
#[derive(Default)]
struct Files(HashMap<String, BTreeSet<(String, i64)>>);

/// Fails if any version of the table names two files that hold one key, or a file that is not there.
fn check_every_version(disk: &dyn Disk, files: &mut Files) -> Result<(), String> {
    let dir = Path::new("/data/tables/public/t");
    let Ok(entries) = disk.list(&dir.join("_delta_log")) else { return Ok(()) };
    let mut paths = BTreeSet::new();
    for (version, name) in entries.iter().map(|entry| &entry.name).filter(|name| name.ends_with(".json")).enumerate() {
        if name.starts_with('.') {
            continue;
        }
        let bytes = read_file(disk, &dir.join("_delta_log").join(name)).map_err(|e| format!("{name}: {e}"))?;
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let action: serde_json::Value = serde_json::from_slice(line).map_err(|e| format!("{name}: {e}"))?;
            if let Some(path) = action["add"]["path"].as_str() {
                paths.insert(path.to_owned());
            }
            if let Some(path) = action["remove"]["path"].as_str()
                && !paths.remove(path)
            {
                return Err(format!("version {version} removes {path}, which is not there"));
            }
        }
        for path in &paths {
            if !files.0.contains_key(path) {
                let bytes = read_file(disk, &dir.join(path)).map_err(|e| format!("version {version}: {path}: {e}"))?;
                files.0.insert(path.clone(), keys_of(bytes.into())?);
            }
        }
        let mut all = BTreeSet::new();
        for path in &paths {
            for key in &files.0[path] {
                if !all.insert(key) {
                    return Err(format!("version {version} holds {key:?} twice"));
                }
            }
        }
    }
    Ok(())
}

fn keys_of(bytes: bytes::Bytes) -> Result<BTreeSet<(String, i64)>, String> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(|builder| builder.build());
    let mut keys = BTreeSet::new();
    for batch in reader.map_err(|e| e.to_string())? {
        let batch = batch.map_err(|e| e.to_string())?;
        let times = batch.column_by_name("time").unwrap().as_primitive::<TimestampMicrosecondType>();
        let tags = batch.column_by_name("s").unwrap();
        for row in 0..batch.num_rows() {
            let tag = arrow::util::display::array_value_to_string(tags, row).map_err(|e| e.to_string())?;
            if !keys.insert((tag.clone(), times.value(row))) {
                return Err(format!("one file holds {tag} at {} twice", times.value(row)));
            }
        }
        assert!(times.null_count() == 0);
    }
    Ok(keys)
}

#[test]
fn two_nodes_write_to_one_table_and_each_sees_what_the_other_has_flushed() {
    let disk: SharedDisk = Arc::new(SimDisk::new());
    let (a, b) = (world(&disk, NODES[0], 1).open(), world(&disk, NODES[1], 2).open());
    write(&a, "t", &[("a", 1, &[("x", Value::F64(1.0))])]);
    write(&b, "t", &[("b", 1, &[("y", Value::F64(2.0))])]);
    assert_eq!(read(&a, "t").len(), 1);
    a.refresh(&table()).unwrap();
    b.refresh(&table()).unwrap();
    assert_eq!(read(&a, "t").len(), 2, "a query looks for newer commits");
    assert_eq!(read(&a, "t"), read(&b, "t"));
    let columns = |storage: &Storage| storage.table(&table()).unwrap().schema.columns().to_vec();
    assert_eq!(columns(&a), columns(&b));
    write(&a, "t", &[("b", 1, &[("x", Value::F64(3.0))])]);
    a.refresh(&table()).unwrap();
    let row = &read(&b, "t")[&("s=b".to_owned(), 1)];
    assert_eq!(row.values().collect::<Vec<_>>(), ["3", "2"], "absent fields stay");
    a.compact(&table()).unwrap();
    assert_eq!(read(&b, "t").len(), 2);
    b.close(GRACE).unwrap();
    a.close(GRACE).unwrap();
    check_every_version(&*disk, &mut Files::default()).unwrap();
}

/// B has seen A's write, so its own is newer; what A wrote before B, and flushes later, is older.
#[test]
fn what_was_written_later_wins_whoever_flushes_first() {
    let key = |value: f64| -> [(&str, Value<'static>); 1] { [("x", Value::F64(value))] };
    for flush_late in [false, true] {
        let disk: SharedDisk = Arc::new(SimDisk::new());
        let (a, b) = (world(&disk, NODES[0], 1).open(), world(&disk, NODES[1], 2).open());
        write(&a, "t", &[("k", 1, &key(1.0))]);
        if !flush_late {
            a.refresh(&table()).unwrap();
        }
        // B's counter is beyond A's, by what it saw or by what it wrote.
        for n in 0..5 {
            write(&b, "t", &[("other", n, &key(0.0))]);
        }
        b.refresh(&table()).unwrap();
        write(&b, "t", &[("k", 1, &key(2.0))]);
        b.refresh(&table()).unwrap();
        a.refresh(&table()).unwrap();
        for storage in [&a, &b] {
            assert_eq!(read(storage, "t")[&("s=k".to_owned(), 1)]["x"], "2", "flush_late {flush_late}");
        }
        // A has seen it: what it writes now is newer.
        write(&a, "t", &[("k", 1, &key(3.0))]);
        a.refresh(&table()).unwrap();
        assert_eq!(read(&b, "t")[&("s=k".to_owned(), 1)]["x"], "3");
        check_every_version(&*disk, &mut Files::default()).unwrap();
    }
}

#[test]
fn an_older_write_fills_the_fields_that_a_newer_shard_of_another_node_lacks() {
    let disk: SharedDisk = Arc::new(SimDisk::new());
    let (a, b) = (world(&disk, NODES[0], 1).open(), world(&disk, NODES[1], 2).open());
    write(&a, "t", &[("k", 1, &[("x", Value::F64(1.0)), ("y", Value::F64(1.0))])]);
    for n in 0..5 {
        write(&b, "t", &[("other", n, &[("x", Value::F64(0.0))])]);
    }
    b.refresh(&table()).unwrap();
    write(&b, "t", &[("k", 1, &[("x", Value::F64(2.0))])]);
    b.refresh(&table()).unwrap();
    let expected = BTreeMap::from([("x".to_owned(), "2".to_owned()), ("y".to_owned(), "1".to_owned())]);
    assert_eq!(read(&a, "t")[&("s=k".to_owned(), 1)], expected, "in memory");
    a.refresh(&table()).unwrap();
    assert_eq!(read(&b, "t")[&("s=k".to_owned(), 1)], expected, "in shards");
}

#[test]
fn the_log_of_a_dead_node_is_adopted_and_its_zombie_acknowledges_nothing() {
    let disk: SharedDisk = Arc::new(SimDisk::new());
    let (a, b) = (world(&disk, NODES[0], 1).open(), world(&disk, NODES[1], 2).open());
    write(&a, "t", &[("a", 1, &[("x", Value::F64(1.0))])]);
    write(&b, "t", &[("b", 1, &[("x", Value::F64(1.0))])]);
    let config = world(&disk, NODES[1], 3).config;
    let adopted = adopt_as(&disk, NODES[0], &config, 4).unwrap();
    assert!(adopted.log_bytes > 0 && adopted.epoch.0 == 2, "{adopted:?}");
    assert_eq!(read(&b, "t").len(), 2, "what A acknowledged is in the table");
    b.refresh(&table()).unwrap();
    let late = a.write(vec![batch("t", &[("a", 2, &[("x", Value::F64(2.0))])])], "test").and_then(PendingWrite::wait);
    assert!(matches!(late, Err(StorageError::Fenced)), "{late:?}");
    let flushed = a.refresh(&table());
    assert!(matches!(flushed, Err(StorageError::Fenced)), "{flushed:?}");
    assert!(matches!(a.write(vec![], "test"), Err(StorageError::Fenced)));
    drop(a);
    let again = adopt_as(&disk, NODES[0], &config, 5).unwrap();
    assert_eq!(again.log_bytes, 0, "there is nothing left");
    // The node itself comes back, and goes on behind.
    let a = world(&disk, NODES[0], 6).open();
    write(&a, "t", &[("a", 2, &[("x", Value::F64(3.0))])]);
    assert_eq!(read(&a, "t").len(), 3);
    assert!(a.losses().is_empty());
}

#[test]
fn two_nodes_that_make_one_table_or_column_at_once_make_it_once() {
    for seed in faults::seeds(30) {
        let disk: SharedDisk = Arc::new(SimDisk::new());
        let storages = [world(&disk, NODES[0], 2 * seed + 1).open(), world(&disk, NODES[1], 2 * seed + 2).open()];
        std::thread::scope(|scope| {
            for (n, storage) in storages.iter().enumerate() {
                scope.spawn(move || {
                    for column in 0..4 {
                        let name = format!("c{}", (column + n) % 4);
                        let series = format!("node {n}");
                        write(storage, "t", &[(&series, column as i64, &[(&name, Value::F64(1.0))])]);
                    }
                });
            }
        });
        storages.iter().for_each(|storage| storage.refresh(&table()).unwrap());
        let rows = read(&storages[0], "t");
        assert_eq!((rows.len(), &rows), (8, &read(&storages[1], "t")), "seed {seed}");
        assert_eq!(storages[0].table(&table()).unwrap().schema.fields().count(), 4, "seed {seed}");
        check_every_version(&*disk, &mut Files::default()).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    }
}

#[test]
fn a_dropped_table_is_gone_for_the_other_node_too_and_its_name_is_not_used_again() {
    let disk: SharedDisk = Arc::new(SimDisk::new());
    let (a, b) = (world(&disk, NODES[0], 1).open(), world(&disk, NODES[1], 2).open());
    write(&a, "t", &[("a", 1, &[("x", Value::F64(1.0))])]);
    write(&b, "t", &[("b", 1, &[("x", Value::F64(1.0))])]);
    let options = TableOptions { retention: Some(Duration::from_secs(86_400 * 365 * 100)) };
    a.set_options(&table(), options).unwrap();
    b.refresh(&table()).unwrap();
    assert_eq!(b.options(&table()), Some(options));
    assert!(a.drop_table(&table()).unwrap());
    b.refresh(&table()).ok();
    assert!(b.snapshot(&table()).unwrap().is_none());
    for storage in [&a, &b] {
        let refused = storage.write(vec![batch("t", &[("a", 2, &[("x", Value::F64(1.0))])])], "test").unwrap();
        assert!(refused.rejected[0].reason.contains("not used again"), "{:?}", refused.rejected);
    }
    b.close(GRACE).unwrap();
    a.close(GRACE).unwrap();
}

#[test]
fn types_do_not_change_among_nodes() {
    let disk: SharedDisk = Arc::new(SimDisk::new());
    let a = world(&disk, NODES[0], 1).open();
    write(&a, "t", &[("a", 1, &[("x", Value::I64(1))])]);
    let refused = a.alter_column(&table(), "x", model::FieldType::F64).unwrap_err().to_string();
    assert!(refused.contains("several nodes"), "{refused}");
    let refused = a.write(vec![batch("t", &[("a", 2, &[("x", Value::F64(1.5))])])], "test").unwrap();
    assert_eq!((refused.accepted, refused.rejected.len()), (0, 1));
}

#[test]
fn a_folder_is_one_servers_or_shared_by_nodes_and_not_both() {
    let disk: SharedDisk = Arc::new(SimDisk::new());
    let alone = World::on(Arc::clone(&disk), PathBuf::from("/data")).open();
    let refused = world(&disk, NODES[0], 1).try_open().unwrap_err().to_string();
    assert!(refused.contains("of one server"), "{refused}");
    drop(alone);
    let disk: SharedDisk = Arc::new(SimDisk::new());
    drop(world(&disk, NODES[0], 1).open());
    let refused = World::on(Arc::clone(&disk), PathBuf::from("/data")).try_open().unwrap_err().to_string();
    assert!(refused.contains("several nodes share"), "{refused}");
}

/// A flush that sleeps has files that no version names, and may commit them when it wakes.
#[test]
fn vacuum_never_deletes_what_another_node_is_about_to_commit() {
    for seed in faults::seeds(40) {
        let rng = SplitMix64::new(seed);
        let disk: SharedDisk = Arc::new(SimDisk::new());
        let (mortal, life) = MortalDisk::new(Arc::clone(&disk));
        let sleeper: SharedDisk = Arc::new(mortal);
        let a = world(&sleeper, NODES[0], 2 * seed + 1).open();
        let mut place = world(&disk, NODES[1], 2 * seed + 2);
        place.config.vacuum_grace = Duration::ZERO;
        let b = place.open();
        write(&b, "t", &[("b", 1, &[("x", Value::F64(1.0))])]);
        b.refresh(&table()).unwrap();
        write(&a, "t", &[("a", 1, &[("x", Value::F64(1.0))]), ("b", 1, &[("x", Value::F64(2.0))])]);
        let others_commit = rng.below(2) == 0;
        life.sleep_before(1 + rng.below(16));
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let asleep = scope.spawn(|| {
                a.refresh(&table()).unwrap();
                is_over.store(true, Ordering::SeqCst);
            });
            life.wait_for_sleep(|| is_over.load(Ordering::SeqCst));
            b.clean();
            if others_commit {
                write(&b, "t", &[("b", 2, &[("x", Value::F64(1.0))])]);
                b.refresh(&table()).unwrap();
            }
            b.clean();
            life.wake();
            asleep.join().unwrap();
        });
        b.clean();
        let rows = read(&b, "t");
        assert_eq!((rows.len(), &rows), (2 + usize::from(others_commit), &read(&a, "t")), "seed {seed}");
        assert_eq!(rows[&("s=b".to_owned(), 1)]["x"], "2", "seed {seed}");
    }
}

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
        let mut world = world(disk, NODES[node], rng.next_u64());
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
            life.die_after(1 + rng.below(60));
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
            life.die_after(1 + rng.below(80));
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

/// A node falls asleep at any operation of a write or a flush; meanwhile it is adopted, and its keys are written anew.
#[test]
fn a_node_that_slept_while_it_was_adopted_acknowledges_and_commits_nothing_more() {
    for seed in faults::seeds(60) {
        let rng = SplitMix64::new(seed);
        let sim = SimDisk::new();
        let disk: SharedDisk = Arc::new(sim.clone());
        let (mortal, life) = MortalDisk::new(Arc::clone(&disk));
        let sleeper: SharedDisk = Arc::new(mortal);
        let a = world(&sleeper, NODES[0], 3 * seed + 1).open();
        let b = world(&disk, NODES[1], 3 * seed + 2).open();
        write(&a, "t", &[("k", 1, &[("x", Value::F64(1.0))])]);
        a.refresh(&table()).unwrap();
        write(&a, "t", &[("k", 1, &[("x", Value::F64(2.0))]), ("k", 2, &[("x", Value::F64(2.0))])]);
        let is_flush = rng.below(2) == 0;
        life.sleep_before(1 + rng.below(if is_flush { 14 } else { 4 }));
        let is_over = AtomicBool::new(false);
        let outcome = std::thread::scope(|scope| {
            let asleep = scope.spawn(|| {
                let done = match is_flush {
                    true => a.refresh(&table()),
                    false => {
                        let late = batch("t", &[("k", 3, &[("x", Value::F64(3.0))])]);
                        a.write(vec![late], "test").and_then(PendingWrite::wait)
                    }
                };
                is_over.store(true, Ordering::SeqCst);
                done
            });
            let slept = life.wait_for_sleep(|| is_over.load(Ordering::SeqCst));
            let config = world(&disk, NODES[1], 0).config;
            adopt_as(&disk, NODES[0], &config, 3 * seed + 3).unwrap();
            // Newer than all that A has.
            write(&b, "t", &[("k", 1, &[("x", Value::F64(9.0))])]);
            b.refresh(&table()).unwrap();
            life.wake();
            (slept, asleep.join().unwrap())
        });
        let _ = a.refresh(&table());
        let label = format!("seed {seed}: flush {is_flush}, {outcome:?}");
        let rows = read(&b, "t");
        assert_eq!(rows[&("s=k".to_owned(), 1)]["x"], "9", "{label}");
        assert_eq!(rows[&("s=k".to_owned(), 2)]["x"], "2", "{label}");
        let is_acked = !is_flush && outcome.1.is_ok();
        assert_eq!(rows.contains_key(&("s=k".to_owned(), 3)), is_acked, "{label}");
        let late =
            a.write(vec![batch("t", &[("k", 4, &[("x", Value::F64(4.0))])])], "test").and_then(PendingWrite::wait);
        assert!(matches!(late, Err(StorageError::Fenced)), "{label}: {late:?}");
        check_every_version(&sim, &mut Files::default()).unwrap_or_else(|e| panic!("{label}: {e}"));
        let _ = START_US;
    }
}
