//! One statement from its text to its last row, on the query runtime.
//!
//! Owns:     the order of the steps, and the limits around all of them: number, time, cancelling.
//! Does not: keep the runtime (`engine` does).
//!
//! Invariants
//!  1. A snapshot of every table that the statement reads is taken once, after the statement came in (P6).
//!  2. However a statement ends, its plan is dropped and its permit returned before the next one gets it. One that ends while
//!     it is planned keeps its permit until that lets go.

use std::any::Any;
use std::collections::{BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arrow::array::RecordBatch;
use datafusion::catalog::SchemaProvider;
use datafusion::common::ScalarValue;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::object_store::ObjectStore;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::ObjectName;
use futures::{FutureExt, StreamExt};
use model::TableName;
use storage::{ShardDamage, Storage};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::catalog::{Catalog, Tables};
use crate::change::Progress;
use crate::crate_db::Sys;
use crate::damage;
use crate::engine::{Access, QueryRequest};
use crate::error::{Limits, QueryError};
use crate::interrupt;
use crate::newest::NewestRows;
use crate::plans::{self, PlanKey, Plans, Snapshots};
use crate::postgres::{self, ClientSession, Manner};
use crate::provider::ShardTable;
use crate::queries::{Begun, Queries, Running, Stage};
use crate::reader::{OpenShards, ShardReaders};
use crate::resolve;
use crate::rows::{LeftOut, Reply, Started};
use crate::statement::{self, Statement, Surplus};
use crate::usage::CountedPool;
use crate::{session, statistics, threads};

/// How long a statement waits for others to end before it is refused.
const ADMISSION_WAIT_MAX: Duration = Duration::from_secs(10);

/// Statements that may wait for each that may run.
const WAITING_PER_RUNNING: usize = 4;

/// After this a refused statement may try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What all statements share.
pub(crate) struct Shared {
    pub(crate) storage: Arc<Storage>,
    pub(crate) template: SessionState,
    /// `pg_catalog`.
    pub(crate) postgres: Arc<dyn SchemaProvider>,
    /// CrateDB's own tables.
    pub(crate) sys: Sys,
    pub(crate) shards: Arc<dyn ObjectStore>,
    pub(crate) newest: Arc<NewestRows>,
    pub(crate) plans: Plans,
    pub(crate) limits: Limits,
    pub(crate) timeout: Duration,
    pub(crate) concurrent_max: usize,
    pub(crate) few_rows: usize,
    pub(crate) admission: Arc<Semaphore>,
    /// Who may be described at once.
    pub(crate) describing: Arc<Semaphore>,
    /// For statements that look at the server itself, when there is no place among the others.
    pub(crate) reserve: Arc<Semaphore>,
    pub(crate) queries: Arc<Queries>,
    pub(crate) tasks: TaskTracker,
    pub(crate) counters: Counters,
}

/// Counted since start, and now.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) ended: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) cancelled: AtomicU64,
    pub(crate) duration_us: AtomicU64,
    pub(crate) plans_reused: AtomicU64,
    pub(crate) present: AtomicUsize,
    pub(crate) waiting: AtomicUsize,
}

/// One more, until it is dropped.
struct Gauge<'a>(&'a AtomicUsize);

impl<'a> Gauge<'a> {
    fn enter(gauge: &'a AtomicUsize) -> (Self, usize) {
        let before = gauge.fetch_add(1, Ordering::Relaxed);
        (Gauge(gauge), before)
    }
}

impl Drop for Gauge<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs one statement to its end, whatever that is.
pub(crate) async fn run(
    shared: Arc<Shared>,
    request: QueryRequest,
    begun: Begun,
    cancel: CancellationToken,
    started: oneshot::Sender<Result<Started, QueryError>>,
) {
    let since = Instant::now();
    let _present = Gauge::enter(&shared.counters.present);
    let mut reply = Reply::new(started);
    let open = Arc::new(OpenShards::default());
    let progress = Progress::default();
    let outcome = {
        let session = request.session.clone();
        let running = begun.running();
        let place = OnceLock::new();
        let statement = Run { shared: &shared, open: &open, progress: &progress, running, session, place };
        let work = async {
            match AssertUnwindSafe(statement.run(request, &mut reply)).catch_unwind().await {
                Ok(outcome) => outcome,
                Err(panic) => Err(damage::explain_panic(panic_message(&*panic), &shared.shards, &open).await),
            }
        };
        // What was spilled is only known while the plan is there.
        let cancelled = async {
            cancel.cancelled().await;
            running.note_spill();
        };
        let outcome = tokio::select! {
            biased;
            () = cancelled => Err(running.why_cancelled(shared.timeout)),
            // Some operators are the first to see it.
            outcome = work => outcome.map_err(|error| match cancel.is_cancelled() {
                true => running.why_cancelled(shared.timeout),
                false => error,
            }),
        };
        // However it ended: what goes on in other tasks ends by this.
        running.over().cancel();
        outcome
    };
    let outcome = outcome.map_err(|error| progress.explain(error));
    let counters = &shared.counters;
    match outcome.as_ref().map_err(QueryError::root) {
        Ok(()) => {}
        Err(QueryError::Cancelled | QueryError::Killed { .. }) => {
            counters.cancelled.fetch_add(1, Ordering::Relaxed);
        }
        Err(_) => {
            counters.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
    counters.ended.fetch_add(1, Ordering::Relaxed);
    let duration_us = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
    counters.duration_us.fetch_add(duration_us, Ordering::Relaxed);
    begun.end(&outcome);
    reply.finish(outcome);
}

pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("a panic: {}", text.unwrap_or("without a message"))
}

/// The rows of a query that has begun.
struct Batches {
    /// Taken from `rest` already.
    first: Option<RecordBatch>,
    rest: SendableRecordBatchStream,
    left_out: Vec<LeftOut>,
}

/// A query that is to be planned.
#[derive(Clone)]
struct Query {
    statement: DfStatement,
    /// Bytes of its text and constants, if its plan may be kept for when it comes again.
    kept_length: Option<usize>,
}

/// A statement that runs.
pub(crate) struct Run<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    open: &'a Arc<OpenShards>,
    pub(crate) progress: &'a Progress,
    running: &'a Running,
    session: Option<Arc<ClientSession>>,
    /// Its place among those that may run, once it has one.
    place: OnceLock<OwnedSemaphorePermit>,
}

impl Run<'_> {
    async fn run(&self, request: QueryRequest, reply: &mut Reply) -> Result<(), QueryError> {
        let statement = match request.rows.as_slice() {
            [] if !request.names.is_empty() => {
                statement::parse_named(&request.sql, &request.names, &request.parameters)?
            }
            [] => {
                let is_crate_db = self.session.as_ref().is_some_and(|session| session.manner != Manner::PostgreSql);
                let surplus = if is_crate_db { Surplus::Ignored } else { Surplus::Refused };
                statement::parse_bound(&request.sql, &request.parameters, surplus)?
            }
            rows => statement::parse_with_rows(&request.sql, rows)?,
        };
        if let (Statement::Change(change), Access::Read) = (&statement, request.access) {
            return Err(QueryError::ReadOnly { statement: change.tag() });
        }
        if let Statement::Kill(target) = statement {
            if request.access == Access::Read {
                return Err(QueryError::ReadOnly { statement: "KILL" });
            }
            // It waits for nobody: who waits may be why it was sent.
            reply.done("KILL", Some(self.shared.queries.kill(target, self.running)));
            return Ok(());
        }
        let permit = self.admit(&statement).await?;
        let _ = self.place.set(permit);
        let tables = Tables::new(self.shared.storage.tables());
        let schema = resolve::default_schema(request.default_schema.as_deref(), &tables);
        match statement {
            Statement::Read(statement) => {
                let constants = request.parameters.iter().map(ScalarValue::size);
                let length = constants.fold(request.sql.len(), usize::saturating_add);
                let query = Query { statement, kept_length: Some(length) };
                self.read(query, tables, &schema, request.skip_damaged, reply).await
            }
            Statement::Refresh(names) => self.refresh(&names, &tables, &schema, reply).await,
            Statement::Change(change) => self.change(*change, tables, &schema, reply).await,
            Statement::Kill(_) => Ok(()),
        }
    }

    /// Waits until one more statement may run.
    async fn admit(&self, statement: &Statement) -> Result<OwnedSemaphorePermit, QueryError> {
        let (admission, reserve) = (&self.shared.admission, &self.shared.reserve);
        if let Ok(permit) = Arc::clone(admission).try_acquire_owned() {
            return Ok(permit);
        }
        let may_use_reserve = statement.only_looks_at_the_server();
        if may_use_reserve && let Ok(permit) = Arc::clone(reserve).try_acquire_owned() {
            return Ok(permit);
        }
        self.running.enter(Stage::Waiting);
        let running = self.shared.concurrent_max;
        let (_waiting, before) = Gauge::enter(&self.shared.counters.waiting);
        let busy = QueryError::Busy { running, waiting: before, retry_after: RETRY_AFTER };
        if before >= running.saturating_mul(WAITING_PER_RUNNING) {
            return Err(busy);
        }
        let place = async {
            tokio::select! {
                permit = Arc::clone(admission).acquire_owned() => permit,
                permit = Arc::clone(reserve).acquire_owned(), if may_use_reserve => permit,
            }
        };
        match tokio::time::timeout(ADMISSION_WAIT_MAX, place).await {
            Ok(Ok(permit)) => {
                self.running.enter(Stage::Planning);
                Ok(permit)
            }
            // Closed: the server is stopping.
            Ok(Err(_)) => Err(QueryError::Cancelled),
            Err(_) => Err(busy),
        }
    }

    async fn read(
        &self,
        query: Query,
        tables: Tables,
        schema: &str,
        skip_damaged: bool,
        reply: &mut Reply,
    ) -> Result<(), QueryError> {
        let tables = Arc::new(tables);
        let mut batches = match skip_damaged {
            false => self.begin(query, &tables, schema, None).await?,
            true => self.begin_without_damaged(query, &tables, schema).await?,
        };
        let sender = reply.rows(batches.rest.schema(), std::mem::take(&mut batches.left_out));
        while let Some(batch) = self.next(&mut batches).await? {
            self.running.add_rows(batch.num_rows());
            sender.send(batch).await.map_err(|_| QueryError::Cancelled)?;
        }
        self.running.note_spill();
        Ok(())
    }

    /// Plans a query and starts it.
    pub(crate) async fn open(
        &self,
        statement: DfStatement,
        tables: Tables,
        schema: &str,
    ) -> Result<SendableRecordBatchStream, QueryError> {
        let query = Query { statement, kept_length: None };
        Ok(self.begin(query, &Arc::new(tables), schema, None).await?.rest)
    }

    /// As [`Run::open`]; if `damaged` is there, without those shards.
    async fn begin(
        &self,
        query: Query,
        tables: &Arc<Tables>,
        schema: &str,
        damaged: Option<&[ShardDamage]>,
    ) -> Result<Batches, QueryError> {
        // No step of it lets go, so other statements get another thread meanwhile. Until it ends, the statement keeps its
        // place; who waits for it looks at the clock himself.
        let planned = self.running.plan(|| {
            let planned = self.prepare(query, tables, schema, damaged);
            tokio::task::block_in_place(|| Handle::current().block_on(planned))
        });
        let (state, plan, left_out) = planned?;
        match self.start(&state, plan) {
            Ok(rest) => Ok(Batches { first: None, rest, left_out }),
            Err(error) => Err(self.explain(error).await),
        }
    }

    /// The plan of a query over the tables as they are now, and what it runs in.
    async fn prepare(
        &self,
        mut query: Query,
        tables: &Arc<Tables>,
        schema: &str,
        damaged: Option<&[ShardDamage]>,
    ) -> Result<(SessionState, Arc<dyn ExecutionPlan>, Vec<LeftOut>), QueryError> {
        if let Some(session) = &self.session {
            postgres::name_columns(session, &mut query.statement);
        }
        let names = resolve::resolve(&mut query.statement, tables, schema)?;
        let (snapshots, left_out) = self.snapshots(names, tables, damaged).await?;
        let snapshots = Arc::new(snapshots);
        let catalog = Catalog::new(self.shared, tables, Arc::clone(&snapshots), self.session.as_ref());
        let planned = async {
            let session = self.session.as_deref();
            let mut state = session::of_statement(&self.shared.template, catalog, schema, session, &query.statement)?;
            let plan = self.plan(&mut state, query, schema, &snapshots).await?;
            Ok((state, plan))
        };
        match planned.await {
            Ok((state, plan)) => Ok((state, plan, left_out)),
            Err(error) => Err(self.explain(error).await),
        }
    }

    /// As [`Run::begin`], and as far as the first rows: without the shards that are known to be damaged, and those that
    /// turn out to be on the way there.
    async fn begin_without_damaged(
        &self,
        query: Query,
        tables: &Arc<Tables>,
        schema: &str,
    ) -> Result<Batches, QueryError> {
        let mut damaged = self.shared.storage.damaged_shards();
        loop {
            let first = async {
                let mut batches = self.begin(query.clone(), tables, schema, Some(&damaged)).await?;
                batches.first = self.next(&mut batches).await?;
                Ok(batches)
            };
            match first.await {
                Err(QueryError::Corrupt { path, reason }) => {
                    let location = path.display().to_string();
                    // Not one that can be left out, then.
                    if damaged.iter().any(|known| known.location == location) {
                        return Err(QueryError::Corrupt { path, reason });
                    }
                    damaged.push(ShardDamage { location, reason });
                }
                outcome => return outcome,
            }
        }
    }

    /// The next rows.
    async fn next(&self, batches: &mut Batches) -> Result<Option<RecordBatch>, QueryError> {
        if let Some(first) = batches.first.take() {
            return Ok(Some(first));
        }
        loop {
            match batches.rest.next().await {
                Some(Ok(batch)) if batch.num_rows() == 0 => {}
                Some(Ok(batch)) => return Ok(Some(batch)),
                Some(Err(error)) => return Err(self.explain(error).await),
                None => return Ok(None),
            }
        }
    }

    fn start(
        &self,
        state: &SessionState,
        plan: Arc<dyn ExecutionPlan>,
    ) -> Result<SendableRecordBatchStream, DataFusionError> {
        let plan = interrupt::interruptible(plan, self.running.over())?;
        let mut environment = RuntimeEnv::clone(state.runtime_env());
        let (all, usage) = (Arc::clone(&environment.memory_pool), Arc::clone(&self.running.usage));
        environment.memory_pool = Arc::new(CountedPool { all, usage });
        let context = TaskContext::from(state).with_runtime(Arc::new(environment));
        let rows = execute_stream(Arc::clone(&plan), Arc::new(context))?;
        self.running.runs(&plan);
        self.running.enter(Stage::Running);
        // The plan, and with it what it counts, goes with the rows.
        let schema = rows.schema();
        let rows = rows.inspect(move |_| {
            let _ = &plan;
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }

    /// The plan of a query over `tables`.
    async fn plan(
        &self,
        state: &mut SessionState,
        Query { statement, kept_length }: Query,
        schema: &str,
        tables: &Snapshots,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let is_wanted = || match self.running.over().is_cancelled() {
            true => Err(DataFusionError::Execution("the statement was cancelled".into())),
            false => Ok(()),
        };
        let manner = self.session.as_ref().map(|session| session.manner);
        let key = kept_length.and_then(|length| PlanKey::new(&statement, length, schema, manner));
        let kept = key.as_ref().and_then(|key| self.shared.plans.get(key, tables));
        let optimised = match kept {
            Some(kept) => {
                self.shared.counters.plans_reused.fetch_add(1, Ordering::Relaxed);
                kept
            }
            None => {
                let plan = state.statement_to_plan(statement).await?;
                // What `statement` lets through by its first words must not write deeper inside.
                SQLOptions::new()
                    .with_allow_ddl(false)
                    .with_allow_dml(false)
                    .with_allow_statements(false)
                    .verify_plan(&plan)?;
                is_wanted()?;
                let key = key.filter(|_| plans::is_for_all(&plan));
                let optimised = state.optimize(&plan)?;
                if let Some(key) = key {
                    self.shared.plans.put(key, &optimised, tables);
                }
                optimised
            }
        };
        is_wanted()?;
        if threads::reads_few(&optimised, self.shared.few_rows) {
            state.config_mut().options_mut().execution.target_partitions = 1;
        }
        let plan = state.query_planner().create_physical_plan(&optimised, state).await?;
        // Who waited for it was told meanwhile that nothing comes of it.
        is_wanted()?;
        Ok(plan)
    }

    pub(crate) async fn explain(&self, error: DataFusionError) -> QueryError {
        damage::explain(error, self.shared.limits, &self.shared.shards, self.open).await
    }

    /// What this statement sees of the tables that it reads, which may block; if `damaged` is there, without those shards
    /// and without files that are missing or cut.
    async fn snapshots(
        &self,
        names: BTreeSet<TableName>,
        tables: &Tables,
        damaged: Option<&[ShardDamage]>,
    ) -> Result<(Snapshots, Vec<LeftOut>), QueryError> {
        let mut snapshots = HashMap::with_capacity(names.len());
        let mut left_out = Vec::new();
        for name in names {
            let snapshot = self.shared.storage.snapshot(&name).map_err(QueryError::storage);
            let snapshot = snapshot.map_err(|error| if damaged.is_some() { needed(error) } else { error })?;
            // Dropped since the names were looked up.
            let mut snapshot = snapshot.ok_or_else(|| resolve::unknown_table(&name, tables))?;
            if let Some(damaged) = damaged {
                let lost = damage::lost_files(&self.shared.shards, &snapshot.shards).await;
                let gone = snapshot.leave_out(&[damaged, &lost].concat());
                left_out.extend(gone.into_iter().map(|view| LeftOut {
                    rows: statistics::visible_rows(&view) as u64,
                    shard: view.shard.path.clone(),
                }));
            }
            let readers = ShardReaders {
                store: Arc::clone(&self.shared.shards),
                footers: self.shared.template.runtime_env().cache_manager.get_file_metadata_cache(),
                open: Arc::clone(self.open),
            };
            let newest = Arc::clone(&self.shared.newest);
            snapshots.insert(name, Arc::new(ShardTable::new(snapshot, readers, newest)));
        }
        Ok((snapshots, left_out))
    }

    async fn refresh(
        &self,
        names: &[ObjectName],
        tables: &Tables,
        schema: &str,
        reply: &mut Reply,
    ) -> Result<(), QueryError> {
        let names: BTreeSet<TableName> =
            names.iter().map(|name| resolve::one(name, tables, schema)).collect::<Result<_, _>>()?;
        let refreshed = names.len() as u64;
        for name in names {
            let storage = Arc::clone(&self.shared.storage);
            self.blocking(move || storage.refresh(&name)).await?;
        }
        reply.done("REFRESH", Some(refreshed));
        Ok(())
    }

    /// Calls into storage, where that may block.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, storage::StorageError> + Send + 'static,
    ) -> Result<T, QueryError> {
        match self.shared.tasks.spawn_blocking(work).await {
            Ok(result) => result.map_err(QueryError::storage),
            Err(error) if error.is_panic() => Err(QueryError::Internal(panic_message(&*error.into_panic()))),
            Err(_) => Err(QueryError::Cancelled),
        }
    }
}

/// Rows in memory are put together with those that they correct; where these cannot be read, neither can those be shown.
fn needed(error: QueryError) -> QueryError {
    match error {
        QueryError::Corrupt { path, reason } => {
            let why = "it cannot be left out now, because rows in memory correct rows of it";
            QueryError::Corrupt { path, reason: format!("{reason}; {why}") }
        }
        error => error,
    }
}
