//! Random changes with flushes of both kinds, failures, queries and restarts between them, against a map; and the same
//! changes in another order, with some of them twice (P4, P8).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use faults::{FaultDisk, Faults, Operation, SimDisk};
use model::{Rng, SplitMix64, TableName};
use storage::{Settling, Storage, StorageError};
use wal::disk::SharedDisk;

use crate::changes::{Change, Changes, DAY_US, first_change};
use crate::fault_store::{Fault, FaultStore};
use crate::power::read_as_others;
use crate::world::{Rows, TestClock, World, read, read_snapshot};

fn table() -> TableName {
    TableName::public("t")
}

/// A storage on a disk that can be told to fail, and what must be in it.
struct Run {
    world: World,
    clock: Arc<TestClock>,
    faults: Faults,
    /// Of the tables, if they are in one.
    store: Option<FaultStore>,
    storage: Option<Arc<Storage>>,
    oracle: Rows,
    rng: SplitMix64,
    /// How often rows were seen to wait after a flush.
    waits: u64,
    label: String,
}

impl Run {
    fn new(seed: u64, label: &str, store: Option<FaultStore>) -> Run {
        let (faulty, faults) = FaultDisk::new(Arc::new(SimDisk::new()));
        let disk: SharedDisk = Arc::new(faulty);
        let (mut world, clock) = World::on(disk, "/data".into()).with_seed(seed).with_test_clock(DAY_US);
        if let Some(store) = &store {
            world = world.with_tables_in(store);
        }
        let rng = SplitMix64::new(seed);
        if rng.below(4) == 0 {
            // The flusher works by itself as well, and rows soon may not wait any longer.
            world.config.table_memory_bytes_max = 16 << 10;
        }
        let storage = Some(world.open());
        let label = format!("seed {seed}, {label}");
        Run { world, clock, faults, store, storage, oracle: Rows::new(), rng, waits: 0, label }
    }

    fn storage(&self) -> &Storage {
        self.storage.as_ref().unwrap()
    }

    fn make(&mut self, change: &Change) {
        change.make(self.storage());
        change.apply(&mut self.oracle);
    }

    /// Something that must not change what is stored.
    fn disturb(&mut self) {
        match self.rng.below(20) {
            0..2 => self.flush(Settling::Everything),
            2..8 => self.flush(Settling::WithinBudget),
            8..10 if self.store.is_some() => {
                let fault = [Fault::Unreached, Fault::AnswerLost, Fault::Late][self.rng.below(3) as usize];
                let part = ["/eden_day=", "/_delta_log/"][self.rng.below(2) as usize];
                self.store.as_ref().unwrap().fail(fault, move |path| path.as_ref().contains(part));
            }
            8..10 => {
                // The flush that meets it leaves rows sealed, under those that come next.
                let operation = [Operation::Create, Operation::Write, Operation::Sync][self.rng.below(3) as usize];
                let is_shard = |path: &Path| path.extension().is_some_and(|extension| extension == "parquet");
                self.faults.fail(operation, 1 + self.rng.below(4), is_shard);
            }
            10 => {
                if self.rng.below(3) == 0 {
                    // It flushes everything, unless that was to fail.
                    let _ = self.storage().close(Duration::from_secs(60));
                }
                self.storage = None;
                if let Some(store) = &self.store {
                    // Whatever it was, what took its place is there already.
                    assert!(self.rng.below(2) == 0 || store.deliver(|path| path.as_ref().ends_with(".json")) == 0);
                }
                self.storage = Some(self.world.reopen());
            }
            11..13 => self.check("in between"),
            // Long enough for the flusher to settle what waits, at any moment from now on.
            13 => self.clock.pass(Duration::from_secs(3)),
            _ => {}
        }
    }

    fn flush(&mut self, settling: Settling) {
        match self.storage().flush(&table(), settling) {
            Ok(()) | Err(StorageError::Io { .. }) => {}
            Err(e) => panic!("{}: flush: {e}", self.label),
        }
        self.waits += u64::from(self.storage().table(&table()).unwrap().waiting_rows > 0);
    }

    /// What a query sees is the oracle; what readers of the shards alone see has no key twice.
    fn check(&self, when: &str) {
        assert_eq!(read(self.storage(), "t"), self.oracle, "{}: {when}", self.label);
        read_as_others(self.storage(), &table());
    }

    /// Everything is flushed: the shards alone hold what is right, and nothing waits.
    fn finish(&self) {
        self.check("at the end");
        let flushed = (0..20).any(|_| self.storage().refresh(&table()).is_ok());
        assert!(flushed, "{}: a flush fails again and again", self.label);
        self.check("flushed");
        let snapshot = self.storage().snapshot(&table()).unwrap().unwrap();
        assert!(snapshot.rows.count() == 0 && snapshot.shards.iter().all(|view| view.masked.is_empty()));
        assert_eq!(read_snapshot(self.storage(), &snapshot), self.oracle, "{}: shards alone", self.label);
        let info = self.storage().table(&table()).unwrap();
        assert_eq!((info.memory_rows, info.waiting_rows), (0, 0), "{}", self.label);
        assert_eq!(info.shard_rows, self.oracle.len() as u64, "{}", self.label);
    }
}

/// Makes `changes` on a storage of their own; returns what is stored in the end, and how often rows waited.
fn run(seed: u64, label: &str, changes: &[Change], store: Option<FaultStore>) -> (Rows, u64) {
    let mut run = Run::new(seed, label, store);
    for change in changes {
        run.make(change);
        run.disturb();
    }
    run.finish();
    (run.oracle, run.waits)
}

/// The same changes, those that have nothing to do with each other in another order, and some of them again before
/// anything else is said about the same rows.
fn shuffled(changes: &[Change], rng: &SplitMix64) -> Vec<Change> {
    let mut order: Vec<Change> = Vec::new();
    for change in changes {
        // The first one makes the table.
        let earliest = order.iter().rposition(|other| other.conflicts(change)).map_or(1, |at| at + 1);
        let at = earliest.min(order.len()) + rng.below((order.len() - earliest.min(order.len())) as u64 + 1) as usize;
        order.insert(at, change.clone());
        if rng.below(4) == 0 {
            order.insert(at + 1, change.clone());
        }
    }
    order
}

#[test]
fn any_order_of_changes_that_do_not_conflict_and_any_repetition_gives_the_same_table() {
    orders(200, &|| None);
}

#[test]
fn any_order_gives_the_same_table_in_a_store_that_loses_requests_and_answers() {
    orders(40, &|| Some(FaultStore::new()));
}

fn orders(count: u64, store: &dyn Fn() -> Option<FaultStore>) {
    let mut waits = 0;
    for seed in faults::seeds(count) {
        let rng = SplitMix64::new(seed);
        let mut source = Changes::new(seed, 3);
        let changes: Vec<Change> = std::iter::once(first_change()).chain((0..24).map(|_| source.next())).collect();
        let (rows, waited) = run(seed, "in order", &changes, store());
        let (others, waited_again) = run(seed ^ 0x5eed << 40, "in another order", &shuffled(&changes, &rng), store());
        assert_eq!(rows, others, "seed {seed}");
        waits += waited + waited_again;
    }
    assert!(waits > 0, "no flush ever left rows waiting: the budget was not tested");
}
