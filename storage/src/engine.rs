//! The storage of one data folder: opening, writing, asking, closing.
//!
//! Owns:     the threads and the order in which they start and stop.
//! Does not: do their work: `recovery` replays, `admit` judges, `flusher` flushes, `table` answers.
//!
//! Invariants
//!  1. A record is applied only after its frame was synced, by one thread, in the order of the log; its request is
//!     answered only after that (P1, P6).
//!  2. `applied` is an offset below which every frame has been applied to its table.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use model::{Clock, NodeEpoch, NodeId, Rng, TableBatch, TableId, TableName, record};
use object_store::ObjectStore;
use wal::disk::{self, DiskLock};
use wal::{Group, Loss, Outcome, WalError};

use crate::admit::{TimeLimit, admit};
use crate::agents::{AgentEvent, Agents, is_agents_table};
use crate::catalog::{Catalog, DamagedTable, SYSTEM};
use crate::check::repair;
use crate::context::{AmongNodes, Context, Counters};
use crate::data_loss::LostData;
use crate::disk_store::DiskStore;
use crate::flush::Settling;
use crate::flusher::{Flusher, Pace, Work};
use crate::gate::{Gate, Pass};
use crate::identity::Identity;
use crate::live::LiveTables;
use crate::log::Log;
use crate::maintain::{Maintainer, Maintenance, Stop};
use crate::place::{Disks, Place, Tables};
use crate::quarantine::Quarantine;
use crate::scrub::Scrubber;
use crate::shard::index::IndexCache;
use crate::space::DiskSpace;
use crate::table::Table;
use crate::write::{Ack, InFlight, Memory, PendingWrite, Subject, Token};
use crate::{
    RejectedRow, ReplayProgress, ShardDamage, StorageConfig, StorageError, StorageStats, TableContents, TableInfo,
    TableOptions, TableSchema, TableSnapshot, Unfit, identity, nodes, recovery,
};

/// Groups that may wait to be applied; more make the log wait, which makes writers wait.
const GROUPS_WAITING_MAX: usize = 16;

/// Bytes that one request may have waiting in the log's queue; a longer one goes in parts.
const WRITE_BYTES_WAITING_MAX: usize = 16 << 20;

/// How long a writer waits for room in memory before it is told to come back.
const ROOM_WAIT: Duration = Duration::from_secs(10);

/// The storage of one data folder.
#[derive(Debug)]
pub struct Storage {
    pub(crate) shared: Arc<Shared>,
    pub(crate) quarantine: Quarantine,
    pub(crate) live: LiveTables,
    pub(crate) config: StorageConfig,
    losses: Vec<Loss>,
    threads: Mutex<Option<Threads>>,
    _lock: Box<dyn DiskLock>,
}

/// What the threads share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) context: Arc<Context>,
    pub(crate) catalog: Catalog,
    pub(crate) agents: Arc<Agents>,
    /// Taken out when the storage is closed.
    pub(crate) wal: RwLock<Option<Log>>,
    pub(crate) store: DiskStore,
    pub(crate) in_flight: Arc<InFlight>,
    /// Requests between judging rows and having them applied.
    pub(crate) gate: Arc<Gate>,
    /// See the module, invariant 2.
    pub(crate) applied: AtomicU64,
    /// Held by the one truncation of the log at a time.
    pub(crate) truncating: Mutex<()>,
    /// From the configuration: bytes of the log that need not be given back at once.
    pub(crate) log_slack_bytes: LogSlack,
    pub(crate) maintenance: Mutex<Maintenance>,
    /// Ends what goes on in the background.
    pub(crate) stop: Stop,
    closing: AtomicBool,
    poisoned: AtomicBool,
}

/// How much log may wait to be truncated rather than have the states of all agents written to it again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogSlack {
    pub(crate) min: u64,
    pub(crate) max: u64,
}

#[derive(Debug)]
struct Threads {
    applier: JoinHandle<()>,
    flusher: Flusher,
    maintainer: Maintainer,
    scrubber: Scrubber,
}

impl Storage {
    /// Takes the lock, reads the tables, recovers and replays the log. Blocks; `progress` is called now and then.
    ///
    /// # Errors
    /// [`StorageError::Locked`] if another server has the folder, [`StorageError::Owned`] the tables;
    /// [`StorageError::Corrupt`] or
    /// [`StorageError::NewerFormat`] name the file that cannot be read; nothing was lost by any of them.
    pub fn open(
        config: StorageConfig,
        disks: impl Into<Disks>,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
        progress: &dyn Fn(ReplayProgress),
    ) -> Result<Arc<Storage>, StorageError> {
        let disks = disks.into();
        if let Some(node) = config.shared {
            return nodes::open(config, node, nodes::Taking::Ours, disks, clock, rng, progress);
        }
        nodes::check_not_shared(&*disks.data, &config.data)?;
        let Tables { dir: tables_dir, disk: tables_disk } = disks.tables(&config.data);
        let Disks { data: disk, tables: elsewhere } = disks;
        disk::create_dir_all(&*disk, &config.data).map_err(StorageError::io("create", &config.data))?;
        let lock = identity::lock(&*disk, &config.data)?;
        let life = identity::next_life(&*disk, &config.data, &*rng)?;
        let place = Place { home: config.data.clone(), disk, tables_disk, tables_dir, elsewhere };
        Storage::start(config, place, life, lock, clock, rng, progress)
    }

    /// Opens what `life` has to itself, or shares, at `place`.
    pub(crate) fn start(
        config: StorageConfig,
        place: Place,
        life: Identity,
        lock: Box<dyn DiskLock>,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
        progress: &dyn Fn(ReplayProgress),
    ) -> Result<Arc<Storage>, StorageError> {
        let Place { home, disk, tables_disk, tables_dir, elsewhere } = place;
        if let Some(tables) = &elsewhere {
            tables.claim(life.node, life.epoch)?;
        }
        let context = Arc::new(Context {
            disk: Arc::clone(&tables_disk),
            data_disk: Arc::clone(&disk),
            clock: Arc::clone(&clock),
            rng,
            tables_dir: tables_dir.clone(),
            elsewhere,
            node: life.node,
            epoch: life.epoch,
            indexes: IndexCache::default(),
            shards: Arc::default(),
            memory: Memory::new(config.memory_bytes_max),
            space: DiskSpace::new(Arc::clone(&disk), Arc::clone(&clock), &config.data, config.disk_reserve_bytes),
            table_memory_bytes_max: config.table_memory_bytes_max,
            counters: Counters::default(),
            newest_us: AtomicI64::new(i64::MIN),
            retention_default: config.retention_default,
            among_nodes: AmongNodes::default(),
        });
        let (groups, applied_groups) = sync_channel(GROUPS_WAITING_MAX);
        let sink = move |outcome| send(&groups, outcome);
        let (catalog, wal, recovered) = if context.is_common() {
            // What an earlier life still logs before its log is sealed may need tables that it has only just made.
            let (log, recovered) = recovery::take_over_log(&config, &life, &context, sink)?;
            let catalog = Catalog::load(Arc::clone(&context))?;
            recovery::check_log(&context, &catalog, &recovered)?;
            (catalog, log, recovered)
        } else {
            let catalog = Catalog::load(Arc::clone(&context))?;
            let (log, recovered) = recovery::open_log(&config, &life, &context, &catalog, sink)?;
            (catalog, log, recovered)
        };
        catalog.know_log_end(recovered.end);
        let agents = Arc::new(Agents::default());
        recovery::replay(&config, &wal, &recovered, &catalog, &agents, clock.monotonic(), progress)?;
        let quarantine = Quarantine::new(Arc::clone(&disk), &home, life.node, life.epoch)?;
        let shared = Arc::new(Shared {
            store: DiskStore::new(tables_disk, tables_dir, Arc::clone(&context.shards)),
            context,
            catalog,
            agents,
            truncating: Mutex::new(()),
            log_slack_bytes: LogSlack { min: config.log_segment_bytes, max: config.log_bytes_max / 4 },
            applied: AtomicU64::new(recovered.end),
            wal: RwLock::new(Some(wal)),
            in_flight: Arc::default(),
            maintenance: Mutex::default(),
            stop: Stop::default(),
            gate: Arc::default(),
            closing: AtomicBool::new(false),
            poisoned: AtomicBool::new(false),
        });
        let flusher = Flusher::start(Arc::clone(&shared), config.clone());
        let applier = {
            let (shared, work, config) = (Arc::clone(&shared), flusher.work(), config.clone());
            std::thread::Builder::new()
                .name("apply".into())
                .spawn(move || apply_groups(&shared, &applied_groups, &work, &config))
                .map_err(StorageError::io("start a thread for", Path::new("apply")))?
        };
        let maintainer = Maintainer::start(Arc::clone(&shared), config.clone());
        let scrubber = Scrubber::start(Arc::clone(&shared), config.scrub_bytes_per_second)?;
        let storage = Arc::new(Storage {
            shared,
            quarantine,
            live: LiveTables::default(),
            config,
            losses: recovered.losses,
            threads: Mutex::new(Some(Threads { applier, flusher, maintainer, scrubber })),
            _lock: lock,
        });
        storage.record_losses()?;
        Ok(storage)
    }

    /// Checks rows against schema and limits, commits new tables and columns, hands the rest to the log.
    /// Blocks for a Delta commit when a table or column is new, and while memory is full (then `Busy`). `Busy` also while
    /// the disk is full but for its reserve (P9).
    ///
    /// # Errors
    /// Nothing was stored after [`StorageError::Invalid`], `Busy`, `Closed` and `Poisoned`.
    pub fn write(&self, batches: Vec<TableBatch>, source: &str) -> Result<PendingWrite, StorageError> {
        Storage::check_schemas(&batches)?;
        self.append(self.admit(batches, source)?, None)
    }

    /// As [`Storage::write`], all rows or none.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] too if a row is refused: it names the first and says how many are. Columns that the
    /// others bring may be there all the same.
    pub fn write_whole(&self, batch: TableBatch, source: &str) -> Result<PendingWrite, StorageError> {
        let batches = vec![batch];
        Storage::check_schemas(&batches)?;
        let admitted = self.admit(batches, source)?;
        match &admitted.rejected[..] {
            [] => self.append(admitted, None),
            [only] => Err(StorageError::Invalid(format!("row {}: {}", only.line, only.reason))),
            [first, more @ ..] => {
                let (row, reason, more) = (first.line, &first.reason, more.len());
                Err(StorageError::Invalid(format!("row {row}: {reason} (and {more} more rows)")))
            }
        }
    }

    /// The server's clock, which times are compared with; microseconds since 1970-01-01 UTC.
    pub fn now_us(&self) -> i64 {
        self.shared.context.clock.now_us()
    }

    pub(crate) fn check_schemas(batches: &[TableBatch]) -> Result<(), StorageError> {
        match batches.iter().find(|batch| &*batch.table.schema == SYSTEM) {
            None => Ok(()),
            Some(batch) => Err(StorageError::Invalid(format!(
                "schema {SYSTEM:?} is written by the server only; choose another db for {}",
                batch.table
            ))),
        }
    }

    /// The latest time that is stored now.
    pub(crate) fn time_limit(&self) -> TimeLimit {
        let max_future_us = i64::try_from(self.config.max_future.as_micros()).unwrap_or(i64::MAX);
        let max_us = self.shared.context.clock.now_us().saturating_add(max_future_us);
        TimeLimit { max_us, max_future: self.config.max_future }
    }

    /// Checks rows against schema and limits, commits new tables and columns, encodes the rest.
    pub(crate) fn admit(&self, batches: Vec<TableBatch>, source: &str) -> Result<Admitted, StorageError> {
        let space = &self.shared.context.space;
        self.shared.check_open()?;
        space.check()?;
        self.admit_rows(batches, source).map_err(|e| space.busy_if_full(e).busy_if_away())
    }

    fn admit_rows(&self, batches: Vec<TableBatch>, source: &str) -> Result<Admitted, StorageError> {
        let shared = &self.shared;
        shared.wait_for_room()?;
        let limit = self.time_limit();
        self.widen_for(&batches, limit)?;
        let tables = batches.iter().map(|batch| batch.table.clone()).collect();
        let pass = shared.enter(tables)?;
        let mut rejected = Vec::new();
        let mut admitted = Vec::with_capacity(batches.len());
        for batch in batches {
            let lines = batch.lines.clone();
            let damaged = shared.catalog.damaged(&batch.table).is_some();
            match admit(&shared.catalog, batch, limit, &mut rejected) {
                Ok(fitting) => admitted.extend(fitting),
                // The table cannot be: its rows are refused, those of the other tables are not.
                Err(StorageError::Invalid(reason)) => {
                    let row = |line| RejectedRow { line, reason: reason.clone(), unfit: Unfit::Table };
                    rejected.extend(lines.into_iter().map(row));
                }
                // Nor for a table that is damaged do the others have to wait.
                Err(e) if damaged => {
                    let reason = e.to_string();
                    let row = |line| RejectedRow { line, reason: reason.clone(), unfit: Unfit::Table };
                    rejected.extend(lines.into_iter().map(row));
                }
                Err(e) => return Err(e),
            }
        }
        let bytes_max = shared.with_wal(Log::record_bytes_max).ok_or(StorageError::Closed)?;
        let mut records = Vec::with_capacity(admitted.len());
        for (table, batch) in admitted {
            encode(&table, source, batch, bytes_max, &mut records, &mut rejected);
        }
        shared.context.counters.rows_rejected.add(rejected.len() as u64);
        rejected.sort_by_key(|row| row.line);
        Ok(Admitted { rejected, records, pass })
    }

    /// Hands what was admitted to the log, and `last` behind it: both are acknowledged together.
    pub(crate) fn append(&self, admitted: Admitted, last: Option<AgentEvent>) -> Result<PendingWrite, StorageError> {
        let shared = &self.shared;
        let accepted = admitted.accepted();
        let Admitted { rejected, records, pass } = admitted;
        let new_ack = || Ack::holding(&shared.in_flight, Some(Arc::clone(&pass)));
        let (mut ack, mut durable) = new_ack();
        let mut waiting_bytes = 0;
        for (bytes, subject) in records {
            if waiting_bytes > 0 && waiting_bytes + bytes.len() > WRITE_BYTES_WAITING_MAX {
                let (next, next_durable) = new_ack();
                std::mem::replace(&mut ack, next).durable();
                let before = std::mem::replace(&mut durable, next_durable);
                before.blocking_recv().unwrap_or(Err(StorageError::Closed))?;
                waiting_bytes = 0;
            }
            waiting_bytes += bytes.len();
            shared.append(bytes, Token { subject, ack: ack.share() })?;
        }
        if let Some(event) = last {
            self.append_event(event, &ack)?;
        }
        ack.durable();
        Ok(PendingWrite { rejected, accepted, durable })
    }

    /// All tables in order of their names, with `system.quarantine` and what else is none on disk.
    pub fn tables(&self) -> Vec<TableInfo> {
        let mut tables = self.stored_tables();
        tables.extend(self.shared.catalog.all_damaged().map(unknown_info));
        tables.push(Storage::quarantine_info());
        tables.extend(self.live.infos());
        tables.sort_by(|a, b| a.name.cmp(&b.name));
        tables
    }

    fn stored_tables(&self) -> Vec<TableInfo> {
        self.shared.catalog.all().iter().map(|table| table.info()).collect()
    }

    /// What each table on disk has, in order of their names.
    pub fn contents(&self) -> Vec<TableContents> {
        let mut all: Vec<TableContents> = self.shared.catalog.all().iter().map(|table| table.contents()).collect();
        all.sort_by(|a, b| a.info.name.cmp(&b.info.name));
        all
    }

    /// Tables that cannot be used because their Delta log is damaged, as they were found at start. They are among
    /// [`Storage::tables`], without columns and rows.
    pub fn damaged_tables(&self) -> Vec<DamagedTable> {
        self.shared.catalog.all_damaged().cloned().collect()
    }

    /// Shards that were found damaged since the start, by whoever read them. [`TableSnapshot::leave_out`] goes on
    /// without them.
    pub fn damaged_shards(&self) -> Vec<ShardDamage> {
        self.shared.context.shards.damaged()
    }

    /// One table of those on disk.
    pub fn table(&self, name: &TableName) -> Option<TableInfo> {
        self.shared.catalog.get(name).map(|table| table.info())
    }

    /// What a query sees of a table now; `None` if there is no such table. Blocks: may read shards.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] names a shard that had to be read and could not be (P11).
    pub fn snapshot(&self, name: &TableName) -> Result<Option<TableSnapshot>, StorageError> {
        if let Some(quarantine) = self.quarantine_snapshot(name)? {
            return Ok(Some(quarantine));
        }
        if let Some(live) = self.live.snapshot(name) {
            return Ok(Some(live));
        }
        self.shared.catalog.check_whole(name)?;
        let Some(table) = self.shared.catalog.find(name)? else { return Ok(None) };
        table.follow()?;
        if is_agents_table(name) {
            let growth = self.shared.agents.project();
            if growth.live_bytes >= self.config.table_memory_bytes_max {
                self.with_work(|work| work.flush(&table));
            }
        }
        table.snapshot().map(Some).inspect_err(|e| self.shared.context.note_damage(e))
    }

    /// Flushes one table: all its rows in memory go to shards. Blocks until committed.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] if there is no such table. Nothing is lost by any error.
    pub fn refresh(&self, name: &TableName) -> Result<(), StorageError> {
        self.flush(name, Settling::Everything)
    }

    /// Flushes one table, rewriting as much as `settling` allows: the flusher's own way when rows in memory are many is
    /// [`Settling::WithinBudget`]. Blocks until committed.
    ///
    /// # Errors
    /// As [`Storage::refresh`].
    pub fn flush(&self, name: &TableName, settling: Settling) -> Result<(), StorageError> {
        if self.is_none_on_disk(name) {
            return Ok(());
        }
        self.shared.catalog.check_whole(name)?;
        let table = self.shared.catalog.find(name)?;
        let table = table.ok_or_else(|| StorageError::Invalid(format!("there is no table {name}")))?;
        self.shared.flush(&table, settling)?;
        Ok(())
    }

    /// The options that are set for a table of those on disk.
    pub fn options(&self, name: &TableName) -> Option<TableOptions> {
        self.shared.catalog.get(name).map(|table| table.properties().options())
    }

    /// Sets options of a table, durably; they are in force when this returns.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] if there is no such table, or it cannot have these options.
    pub fn set_options(&self, name: &TableName, options: TableOptions) -> Result<(), StorageError> {
        options.check()?;
        self.changeable(name, "its options are fixed")?.set_options(options)
    }

    /// Drops a table with all its rows, durably; false if there is none. Its files are deleted after the time of grace.
    /// A write that is under way is refused, or is part of what is dropped.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] for a table that only the server writes. The table is as it was after any error but
    /// [`StorageError::Poisoned`], after which only a restart tells.
    pub fn drop_table(&self, name: &TableName) -> Result<bool, StorageError> {
        let table = match self.changeable(name, "it cannot be dropped") {
            Ok(table) => table,
            Err(_) if *name.schema != *SYSTEM && self.shared.catalog.get(name).is_none() => return Ok(false),
            Err(e) => return Err(e),
        };
        let dropped = self.shared.catalog.drop_table(&table).map_err(|e| self.shared.context.space.busy_if_full(e))?;
        // What is left of the log is not needed for its rows any more.
        if let Err(error) = self.shared.truncate(Pace::Worthwhile) {
            tracing::warn!(%error, "the log stays longer");
        }
        Ok(dropped)
    }

    /// A table that is not the server's own.
    fn changeable(&self, name: &TableName, why_not: &str) -> Result<Arc<Table>, StorageError> {
        self.shared.check_open()?;
        if *name.schema == *SYSTEM {
            return Err(StorageError::Invalid(format!("table {name} is the server's own: {why_not}")));
        }
        let table = self.shared.catalog.find(name)?;
        table.ok_or_else(|| StorageError::Invalid(format!("there is no table {name}")))
    }

    /// Asks the flusher for something, unless the storage is closed.
    pub(crate) fn with_work(&self, ask: impl FnOnce(&Work)) {
        if let Some(threads) = &*self.threads.lock().expect("no holder of this lock panics") {
            ask(&threads.flusher.work());
        }
    }

    /// The shards as an object store rooted at `DATA/tables`; `Shard::path` is a location in it.
    pub fn object_store(&self) -> Arc<dyn ObjectStore> {
        Arc::new(self.shared.store.clone())
    }

    /// What was found missing or damaged in the log when it was opened.
    pub fn losses(&self) -> &[Loss] {
        &self.losses
    }

    /// The node that this data folder is: drawn when the folder was made, the same at every start.
    pub fn node(&self) -> NodeId {
        self.shared.context.node
    }

    /// The present life of the node: higher at every start.
    pub fn epoch(&self) -> NodeEpoch {
        self.shared.context.epoch
    }

    /// Counters and gauges.
    pub fn stats(&self) -> StorageStats {
        let counters = &self.shared.context.counters;
        let tables = self.stored_tables();
        let agents = &self.shared.agents;
        StorageStats {
            rows_stored_total: counters.rows_stored.get(),
            rows_rejected_total: counters.rows_rejected.get(),
            rows_merged_total: counters.rows_merged.get(),
            flushes_total: counters.flushes.get(),
            flushes_failed_total: counters.flushes_failed.get(),
            shard_rows_written_total: counters.shard_rows_written.get(),
            shard_bytes_written_total: counters.shard_bytes_written.get(),
            shards_rewritten_total: counters.shards_rewritten.get(),
            compactions_total: counters.compactions.get(),
            compaction_rows_total: counters.compaction_rows.get(),
            compaction_bytes_read_total: counters.compaction_bytes_read.get(),
            compaction_bytes_written_total: counters.compaction_bytes_written.get(),
            rows_expired_total: counters.rows_expired.get(),
            files_deleted_total: counters.files_deleted.get(),
            disk_free_bytes: self.shared.context.space.free_bytes(),
            admission_stopped: u64::from(self.shared.context.space.is_short()),
            log_losses_total: self.losses.len() as u64,
            memory_bytes: self.shared.context.memory.bytes() as u64,
            memory_rows: tables.iter().map(|table| table.memory_rows).sum(),
            waiting_rows: tables.iter().map(|table| table.waiting_rows).sum(),
            tables: tables.len() as u64,
            damaged_tables: self.shared.catalog.all_damaged().len() as u64,
            damaged_shards: self.shared.context.shards.damaged_count(),
            agents: agents.count(),
            agents_forgotten_total: agents.forgotten.get(),
            agent_duplicates_total: agents.duplicates.get(),
            agent_conflicts_total: agents.conflicts.get(),
            set_aside_total: self.quarantine.kept.get(),
            set_aside_dropped_total: self.quarantine.dropped.get(),
            wal: self.shared.with_wal(Log::stats).unwrap_or_default(),
        }
    }

    /// True after a failed sync: nothing is acknowledged any more (P2).
    pub fn is_poisoned(&self) -> bool {
        self.shared.is_poisoned()
    }

    /// Stops taking writes, flushes what is in memory within `grace`, closes the log. Later calls do nothing.
    ///
    /// # Errors
    /// The first thing that failed. Whatever was acknowledged is safe in the log all the same.
    pub fn close(&self, grace: Duration) -> Result<(), StorageError> {
        let Some(threads) = self.threads.lock().expect("no holder of this lock panics").take() else { return Ok(()) };
        let clock = &self.shared.context.clock;
        let deadline = clock.monotonic() + grace;
        self.shared.closing.store(true, Ordering::SeqCst);
        self.shared.stop.stop();
        if !self.shared.in_flight.wait_for_none(grace) {
            tracing::warn!("writes were still waiting for the disk when the grace period ended");
        }
        threads.maintainer.stop();
        threads.scrubber.stop();
        threads.flusher.stop();
        let mut result = Ok(());
        for table in self.shared.catalog.all() {
            if clock.monotonic() >= deadline {
                tracing::warn!(table = %table.name, "not flushed within the grace period; its rows stay in the log");
                continue;
            }
            if let Err(e) = self.shared.flush(&table, Settling::Everything) {
                tracing::error!(table = %table.name, error = %e, "flush failed; its rows stay in the log");
                result = result.and(Err(e));
            }
        }
        result = result.and(self.shared.truncate(Pace::Now));
        if clock.monotonic() < deadline {
            self.shared.write_checkpoints();
        }
        self.quarantine.close();
        let wal = self.shared.wal.write().expect("no holder of this lock panics").take();
        if let Some(wal) = wal {
            result = result.and(wal.close().map_err(StorageError::Wal));
        }
        if threads.applier.join().is_err() {
            tracing::error!("the applier panicked; restart to replay the log");
        }
        result
    }

    /// Tells readers of `system.data_loss` what was found at start (P3).
    fn record_losses(&self) -> Result<(), StorageError> {
        for loss in &self.losses {
            tracing::error!(%loss, "the log has lost something");
        }
        let of_log = self.losses.iter().map(LostData::of_log);
        let tables_dir = &self.shared.context.tables_dir;
        let of_tables = self.shared.catalog.all_damaged().map(|table| LostData::of_table(table, tables_dir));
        self.shared.record_lost(&of_log.chain(of_tables).collect::<Vec<_>>())?;
        let disk = &self.shared.context.data_disk;
        if self.shared.context.is_common() {
            // Repairs are for folders of one server.
            return Ok(());
        }
        for (path, lost) in repair::new_notes(disk, &self.config.data) {
            self.shared.record_lost(&lost)?;
            repair::note_recorded(disk, &path)?;
        }
        Ok(())
    }
}

/// What is known of a table that cannot be read.
fn unknown_info(damaged: &DamagedTable) -> TableInfo {
    TableInfo {
        name: damaged.name.clone(),
        id: TableId([0; 16]),
        schema: Arc::new(TableSchema::new(&[], &[])),
        shards: 0,
        shard_rows: 0,
        shard_bytes: 0,
        memory_rows: 0,
        waiting_rows: 0,
    }
}

impl Drop for Storage {
    /// Ends the threads without flushing: what was acknowledged is in the log.
    fn drop(&mut self) {
        let Some(threads) = self.threads.get_mut().ok().and_then(Option::take) else { return };
        self.shared.closing.store(true, Ordering::SeqCst);
        threads.maintainer.stop();
        threads.scrubber.stop();
        threads.flusher.stop();
        if let Ok(mut wal) = self.shared.wal.write() {
            drop(wal.take());
        }
        let _ = threads.applier.join();
    }
}

impl Shared {
    pub(crate) fn check_not_closing(&self) -> Result<(), StorageError> {
        if self.closing.load(Ordering::SeqCst) { Err(StorageError::Closed) } else { Ok(()) }
    }

    pub(crate) fn check_open(&self) -> Result<(), StorageError> {
        self.check_not_closing()?;
        self.context.check_not_fenced()?;
        if self.is_poisoned() { Err(StorageError::Poisoned) } else { Ok(()) }
    }

    /// Waits until there is room in memory for more rows.
    pub(crate) fn wait_for_room(&self) -> Result<(), StorageError> {
        if self.context.memory.wait_for_room(ROOM_WAIT) {
            return Ok(());
        }
        let reason = "rows in memory are at their bound ([storage] memory) and the disk does not keep up";
        Err(StorageError::Busy { reason: reason.into(), retry_after: Duration::from_secs(5) })
    }

    /// What a request is told whose records the log refused.
    fn refused(&self, error: &WalError) -> StorageError {
        if error.is_disk_full() {
            return self.context.space.full();
        }
        let reason = format!("the log cannot be made longer just now: {error}");
        StorageError::Busy { reason: reason.into(), retry_after: Duration::from_secs(5) }
    }

    fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::SeqCst) || self.with_wal(Log::is_poisoned).unwrap_or(false)
    }

    /// Goes inside `tables`, whose columns keep their types until the last share of what is returned is gone.
    pub(crate) fn enter(&self, tables: Vec<TableName>) -> Result<Arc<Pass>, StorageError> {
        let reason = "the type of a column is being changed, which takes long";
        let busy = StorageError::Busy { reason: reason.into(), retry_after: Duration::from_secs(5) };
        self.gate.enter(tables, ROOM_WAIT).map(Arc::new).ok_or(busy)
    }

    /// Calls `f` with the log, unless it is closed.
    pub(crate) fn with_wal<R>(&self, f: impl FnOnce(&Log) -> R) -> Option<R> {
        self.wal.read().expect("no holder of this lock panics").as_ref().map(f)
    }

    pub(crate) fn append(&self, bytes: Vec<u8>, token: Token) -> Result<(), StorageError> {
        let wal = self.wal.read().expect("no holder of this lock panics");
        let appended = wal.as_ref().map(|wal| wal.append(bytes, token));
        match appended {
            None => Err(StorageError::Closed),
            Some(Ok(())) => Ok(()),
            Some(Err((token, e))) => {
                drop(token);
                Err(match e {
                    WalError::Full { .. } => StorageError::Busy {
                        reason: "the log does not keep up".into(),
                        retry_after: Duration::from_secs(1),
                    },
                    WalError::Poisoned => StorageError::Poisoned,
                    WalError::Fenced { .. } => self.context.fence(),
                    WalError::Closed => StorageError::Closed,
                    WalError::RecordTooLarge { .. } => StorageError::Invalid(format!("{e}; send smaller batches")),
                    e => StorageError::Wal(e),
                })
            }
        }
    }
}

/// A record and what it is about.
pub(crate) type Encoded = (Vec<u8>, Subject);

/// What of a request may be stored, or removed.
pub(crate) struct Admitted {
    /// Rows that may not, in order of lines.
    pub(crate) rejected: Vec<RejectedRow>,
    pub(crate) records: Vec<Encoded>,
    /// The rows are in the types that their tables have now.
    pub(crate) pass: Arc<Pass>,
}

impl Admitted {
    /// Rows that are stored once the log has them.
    pub(crate) fn accepted(&self) -> usize {
        self.records.iter().map(|(_, subject)| subject.rows()).sum()
    }
}

/// Encodes a batch as records of at most `bytes_max` bytes, halving it as often as that takes.
fn encode(
    table: &Arc<Table>,
    source: &str,
    batch: TableBatch,
    bytes_max: usize,
    records: &mut Vec<Encoded>,
    rejected: &mut Vec<RejectedRow>,
) {
    let mut bytes = Vec::new();
    record::encode_batch(table.id, source, &batch, &mut bytes);
    if bytes.len() <= bytes_max {
        records.push((bytes, Subject::Rows(Arc::clone(table), Box::new(batch))));
        return;
    }
    if let [line] = batch.lines[..] {
        let reason = format!("the reading takes {} bytes, and at most {bytes_max} can be logged", bytes.len());
        rejected.push(RejectedRow { line, reason, unfit: Unfit::Table });
        return;
    }
    drop(bytes);
    let half = batch.len() / 2;
    encode(table, source, batch.filter(|row| row < half), bytes_max, records, rejected);
    encode(table, source, batch.filter(|row| row >= half), bytes_max, records, rejected);
}

/// On the log's thread: hands an outcome on to be applied. If the applier is gone, so is the storage.
fn send(groups: &SyncSender<Outcome<Token>>, outcome: Outcome<Token>) {
    let _ = groups.send(outcome);
}

/// The applier's work: durable groups into memtables, then acknowledgements, until the log ends.
fn apply_groups(shared: &Shared, groups: &Receiver<Outcome<Token>>, work: &Work, config: &StorageConfig) {
    for outcome in groups {
        match outcome {
            Outcome::Durable(group) => apply_group(shared, group, work, config),
            Outcome::Failed { tokens, error: WalError::Fenced { .. } } => {
                tokens.into_iter().for_each(|token| token.ack.fail(shared.context.fence()));
            }
            Outcome::Failed { tokens, error } => {
                tracing::error!(%error, "the log failed; nothing is acknowledged until the server is restarted");
                shared.poisoned.store(true, Ordering::SeqCst);
                tokens.into_iter().for_each(|token| token.ack.fail(StorageError::Poisoned));
            }
            Outcome::Refused { tokens, error } => {
                tracing::warn!(%error, "the log found no room; it goes on when there is some");
                tokens.into_iter().for_each(|token| token.ack.fail(shared.refused(&error)));
            }
        }
    }
}

fn apply_group(shared: &Shared, group: Group<Token>, work: &Work, config: &StorageConfig) {
    let counters = &shared.context.counters;
    let mut acks = Vec::with_capacity(group.records.len());
    let mut events = Vec::new();
    for (bytes, Token { subject, ack }) in group.records {
        drop(bytes);
        match subject {
            Subject::Rows(table, batch) => {
                let growth = table.apply(&batch, group.position);
                counters.rows_stored.add(batch.len() as u64);
                counters.rows_merged.add(growth.merged);
                if growth.live_bytes >= config.table_memory_bytes_max {
                    work.flush(&table);
                }
            }
            Subject::Removal(table, removal) => {
                let growth = table.remove(&removal, group.position);
                if growth.live_bytes >= config.table_memory_bytes_max {
                    work.flush(&table);
                }
            }
            Subject::Agent(event) => events.push(*event),
            Subject::State => {}
        }
        acks.push(ack);
    }
    if !events.is_empty() {
        // Behind all readings of the group: a batch is known only once it is visible.
        let now = shared.context.clock.monotonic();
        acks.extend(shared.agents.apply(events, group.position, group.end, now));
    }
    shared.applied.store(group.end, Ordering::SeqCst);
    if shared.context.memory.is_pressing() {
        work.relieve();
    }
    acks.into_iter().for_each(Ack::durable);
}
