//! The query engine: its runtime, its limits, and the one way in.
//!
//! Owns:     the threads named `query`, the memory pool, the folder for spilled rows, stopping.
//! Does not: know how a statement runs (`run` does).

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use datafusion::common::ScalarValue;
use model::name::PUBLIC;
use storage::{Storage, StorageError, Yielding};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::crate_db::{NodeSource, Sys};
use crate::describe::{self, Description};
use crate::error::{Limits, QueryError, tidy};
use crate::plans::Plans;
use crate::postgres::{self, ClientSession};
use crate::queries::{Origin, Queries, QueriesTable};
use crate::rows::{Rows, Started};
use crate::run::{Counters, Shared, panic_message, run};
use crate::{session, threads};

/// Stack of a query thread: twice what the deepest tree needs that `nesting` lets through.
const STACK_BYTES: usize = 16 << 20;

/// Threads that wait for the disk, for each that computes, and at least.
const BLOCKING_PER_THREAD: usize = 8;
const BLOCKING_MIN: usize = 32;

/// Places of statements at most: more than any machine has threads for.
const CONCURRENT_MAX: usize = 1 << 16;

/// How long a statement whose time is over, or that was cancelled, gets to say so itself: it knows what it had done.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(3);

/// Statements that run beside those that may, if they only read tables of the server itself: whoever wants to see what
/// keeps all others waiting must not wait for it.
const RESERVE: usize = 2;

/// How long cancelled statements get to notice, after the grace of a shutdown.
const CANCEL_WAIT_MAX: Duration = Duration::from_secs(5);

/// What an operator may tune.
#[derive(Clone, Debug)]
pub struct QueryConfig {
    /// Threads that compute. Default: one per core.
    pub threads: usize,
    /// Memory of all statements together; beyond it they spill, then fail.
    pub memory_bytes_max: usize,
    /// How long a statement may take, from coming in to its last row taken. Default 300 s.
    pub timeout: Duration,
    /// Folder for spilled rows; made if missing, emptied of what a killed server left.
    pub spill_dir: PathBuf,
    /// Statements that run at once; others wait, and are refused when too many do. Default 16.
    pub concurrent_max: usize,
    /// A statement that reads no more rows, and joins none, is planned for one thread. Default 32,768.
    pub few_rows: usize,
    /// Who knows the process and its machine, for `sys.nodes`. Default: nobody.
    pub node: NodeSource,
}

impl QueryConfig {
    /// The defaults, for what has one.
    pub fn new(spill_dir: PathBuf, memory_bytes_max: usize) -> Self {
        QueryConfig {
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes_max,
            timeout: Duration::from_secs(300),
            spill_dir,
            concurrent_max: 16,
            few_rows: threads::FEW_ROWS,
            node: NodeSource::default(),
        }
    }
}

/// A statement and what it needs to be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryRequest {
    /// One statement; a `;` may end it.
    pub sql: String,
    /// Values of its parameters, which are written `$1`, `$2` …, or each `?`.
    pub parameters: Vec<ScalarValue>,
    /// Their names, if they are written `$room`; one for each value then.
    pub names: Vec<String>,
    /// In their place, for an INSERT of one row of VALUES: values for as many rows as there are, stored together.
    pub rows: Vec<Vec<ScalarValue>>,
    /// Schema of unqualified tables; `None`, "", "doc" and "iox" mean `public`.
    pub default_schema: Option<String>,
    /// What the statement may do.
    pub access: Access,
    /// Go on without shards that are damaged, and say which ([`Rows::left_out`]). Only for statements that read.
    pub skip_damaged: bool,
    /// Whom it comes from, for `system.queries`.
    pub origin: Origin,
    /// The session of a client of PostgreSQL or CrateDB, for its functions; it sees `information_schema` as there.
    pub session: Option<Arc<ClientSession>>,
}

/// What a statement may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read, and flush tables.
    Read,
    /// Change tables and their rows too.
    Change,
}

impl QueryRequest {
    /// Without parameters, in schema `public`, only to read.
    pub fn new(sql: impl Into<String>) -> Self {
        QueryRequest {
            sql: sql.into(),
            parameters: Vec::new(),
            names: Vec::new(),
            rows: Vec::new(),
            default_schema: None,
            access: Access::Read,
            skip_damaged: false,
            origin: Origin::default(),
            session: None,
        }
    }
}

/// What a statement answers.
#[derive(Debug)]
pub enum QueryResult {
    /// Rows.
    Rows(Rows),
    /// Something was done.
    Done {
        /// What: `REFRESH`, `DELETE`.
        statement: &'static str,
        /// To how many rows or tables; `None` where there is nothing to count.
        rows: Option<u64>,
    },
}

/// Counters since start and gauges of now; names as the metrics without their prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct QueryStats {
    /// Statements that ended, however.
    pub queries_total: u64,
    /// Of those, failed.
    pub queries_failed_total: u64,
    /// Of those, cancelled: the caller went away.
    pub queries_cancelled_total: u64,
    /// Those whose plan was kept from the time before.
    pub plans_reused_total: u64,
    /// Time that they took together, waiting included.
    pub duration_seconds_sum: f64,
    /// Statements running.
    pub running: u64,
    /// Statements waiting to run.
    pub waiting: u64,
    /// Memory that running statements have reserved.
    pub memory_bytes: u64,
    /// Disk that running statements have spilled to.
    pub spill_bytes: u64,
}

/// Runs SQL over a [`Storage`]. One for a server; share it in an `Arc`.
pub struct QueryEngine {
    shared: Arc<Shared>,
    stop: CancellationToken,
    /// `None` only while being dropped.
    runtime: Option<Runtime>,
}

impl fmt::Debug for QueryEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryEngine").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl QueryEngine {
    /// Starts the runtime. Blocks for the spill folder.
    ///
    /// # Errors
    /// The spill folder cannot be made or cleared, or threads cannot be started.
    pub fn new(config: QueryConfig, storage: Arc<Storage>) -> Result<QueryEngine, QueryError> {
        session::clear_spill(&config.spill_dir).map_err(|source| {
            let path = config.spill_dir.clone();
            QueryError::Storage(StorageError::Io { action: "prepare the spill folder", path, source })
        })?;
        let shards = storage.object_store();
        let threads = config.threads.max(1);
        let concurrent_max = config.concurrent_max.clamp(1, CONCURRENT_MAX);
        let internal = |error: datafusion::error::DataFusionError| QueryError::Internal(tidy(&error.to_string()));
        let environment =
            session::environment(config.memory_bytes_max, threads, &config.spill_dir, Arc::clone(&shards))
                .map_err(internal)?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            // Each statement may have one that plans it, and one that describes the next.
            .max_blocking_threads(BLOCKING_MIN.max(threads * BLOCKING_PER_THREAD).saturating_add(2 * concurrent_max))
            .thread_name("query")
            .thread_stack_size(STACK_BYTES)
            // Those that take readings in go first.
            .on_thread_start(|| Yielding::Query.apply())
            .enable_time()
            .build()
            .map_err(|error| QueryError::Internal(format!("start query threads: {error}")))?;
        let template = session::template(environment, threads, config.memory_bytes_max).map_err(internal)?;
        let postgres = postgres::catalog(&storage).map_err(internal)?;
        let queries = Arc::new(Queries::default());
        storage.show(QueriesTable::NAME, Arc::new(QueriesTable::new(Arc::clone(&queries))));
        let sys =
            Sys { storage: Arc::clone(&storage), node: config.node, queries: Arc::clone(&queries), public: PUBLIC };
        let shared = Shared {
            storage,
            template,
            postgres,
            sys,
            shards,
            newest: Arc::default(),
            plans: Plans::default(),
            limits: Limits { memory_bytes: config.memory_bytes_max, spill_bytes: session::SPILL_BYTES_MAX },
            timeout: config.timeout,
            concurrent_max,
            few_rows: config.few_rows,
            admission: Arc::new(Semaphore::new(concurrent_max)),
            describing: Arc::new(Semaphore::new(concurrent_max)),
            reserve: Arc::new(Semaphore::new(RESERVE)),
            queries,
            tasks: TaskTracker::new(),
            counters: Counters::default(),
        };
        Ok(QueryEngine { shared: Arc::new(shared), stop: CancellationToken::new(), runtime: Some(runtime) })
    }

    /// Plans and starts one statement; its rows come as they are computed. May be awaited on any runtime with a clock.
    ///
    /// # Errors
    /// All of [`QueryError`]; those that arise later come with the rows.
    ///
    /// # Cancel safety
    /// Dropping the future or the result cancels the statement.
    pub async fn execute(&self, request: QueryRequest) -> Result<QueryResult, QueryError> {
        let Some(runtime) = &self.runtime else { return Err(QueryError::Cancelled) };
        let cancel = self.stop.child_token();
        let guard = cancel.clone().drop_guard();
        let begun = self.shared.queries.begin(&request, cancel.clone(), self.shared.storage.now_us());
        let running = Arc::clone(begun.running());
        let (start, started) = oneshot::channel();
        self.shared
            .tasks
            .spawn_on(run(Arc::clone(&self.shared), request, begun, cancel.clone(), start), runtime.handle());
        let limit = self.shared.timeout;
        // With those who wait: operators that are long about one batch keep the threads of queries from looking at the clock.
        self.shared.tasks.spawn({
            let (running, cancel) = (Arc::clone(&running), cancel.clone());
            async move {
                if tokio::time::timeout(limit, running.over().cancelled()).await.is_err() {
                    running.note_late();
                    cancel.cancel();
                }
            }
        });
        // Planning, or one call of a function, may not look up for long. Its task ends when that does.
        let overdue = async {
            let _ = tokio::time::timeout(limit, cancel.cancelled()).await;
            if !running.is_being_planned() {
                let _ = tokio::time::timeout(ANSWER_WAIT_MAX, std::future::pending::<()>()).await;
            }
        };
        let answered = tokio::select! {
            answered = started => answered,
            () = overdue => {
                if !cancel.is_cancelled() {
                    running.note_late();
                }
                return Err(running.why_cancelled(limit));
            }
        };
        match answered {
            Ok(Ok(Started::Rows(incoming))) => Ok(QueryResult::Rows(incoming.into_rows(guard))),
            Ok(Ok(Started::Done { statement, rows })) => Ok(QueryResult::Done { statement, rows }),
            Ok(Err(error)) => Err(error),
            // The runtime is gone.
            Err(_) => Err(QueryError::Cancelled),
        }
    }

    /// What a statement takes and gives, without running it. Of its parameters those have the types of
    /// [`QueryRequest::parameters`], nulls too, that are not [`ScalarValue::Null`]; the others are found out.
    ///
    /// # Errors
    /// Those of planning the statement.
    ///
    /// # Cancel safety
    /// Dropping the future forgets the statement, whose planning ends by itself.
    pub async fn describe(&self, request: QueryRequest) -> Result<Description, QueryError> {
        let Some(runtime) = &self.runtime else { return Err(QueryError::Cancelled) };
        let shared = Arc::clone(&self.shared);
        let (tasks, handle) = (&self.shared.tasks, runtime.handle().clone());
        let described = async {
            let permit = Arc::clone(&shared.describing).acquire_owned().await.map_err(|_| QueryError::Cancelled)?;
            // Planning may be long about it without looking up: it has a thread of its own, and the clock is where one waits.
            let work = tasks.spawn_blocking_on(
                move || {
                    let _permit = permit;
                    handle.block_on(describe::describe(&shared, &request))
                },
                runtime.handle(),
            );
            match work.await {
                Ok(described) => described,
                Err(error) if error.is_panic() => Err(QueryError::Internal(panic_message(&*error.into_panic()))),
                // The runtime is gone.
                Err(_) => Err(QueryError::Cancelled),
            }
        };
        let limit = self.shared.timeout;
        tokio::time::timeout(limit, described).await.unwrap_or(Err(QueryError::Timeout { limit }))
    }

    /// Counters and gauges.
    pub fn stats(&self) -> QueryStats {
        let counters = &self.shared.counters;
        let environment = self.shared.template.runtime_env();
        let waiting = counters.waiting.load(Ordering::Relaxed);
        let present = counters.present.load(Ordering::Relaxed);
        QueryStats {
            queries_total: counters.ended.load(Ordering::Relaxed),
            queries_failed_total: counters.failed.load(Ordering::Relaxed),
            queries_cancelled_total: counters.cancelled.load(Ordering::Relaxed),
            plans_reused_total: counters.plans_reused.load(Ordering::Relaxed),
            duration_seconds_sum: Duration::from_micros(counters.duration_us.load(Ordering::Relaxed)).as_secs_f64(),
            running: present.saturating_sub(waiting) as u64,
            waiting: waiting as u64,
            memory_bytes: environment.memory_pool.reserved() as u64,
            spill_bytes: environment.disk_manager.used_disk_space(),
        }
    }

    /// Refuses new statements, lets those running end within `grace`, cancels the rest; gives their number.
    /// Later calls do nothing.
    pub async fn shutdown(&self, grace: Duration) -> u64 {
        let Some(runtime) = &self.runtime else { return 0 };
        let (shared, stop) = (Arc::clone(&self.shared), self.stop.clone());
        shared.admission.close();
        shared.reserve.close();
        shared.describing.close();
        shared.tasks.close();
        let stopping = runtime.spawn(async move {
            if tokio::time::timeout(grace, shared.tasks.wait()).await.is_ok() {
                return 0;
            }
            let late = shared.counters.present.load(Ordering::Relaxed) as u64;
            stop.cancel();
            let _ = tokio::time::timeout(CANCEL_WAIT_MAX, shared.tasks.wait()).await;
            late
        });
        stopping.await.unwrap_or_default()
    }
}

impl Drop for QueryEngine {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(runtime) = self.runtime.take() {
            // Not waiting: an engine may be dropped where blocking is not allowed.
            runtime.shutdown_background();
        }
    }
}
