//! Which statements run and which ran lately: what `system.queries` shows, and what `KILL` ends.
//!
//! Owns:     the list, what is known of each statement, who ended it.
//! Does not: end anything itself: a statement listens for its token (`run`), and frees what it has.
//!
//! Invariant: what is kept of statements is bounded: those that run by their limits, those that ended by
//! [`ENDED_MAX`], the text of each by [`STATEMENT_BYTES_MAX`].

mod table;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::Duration;

use datafusion::physical_plan::ExecutionPlan;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::engine::QueryRequest;
use crate::error::QueryError;
use crate::usage::Usage;

pub(crate) use table::QueriesTable;

/// Statements that ended and are still shown.
const ENDED_MAX: usize = 200;

/// Bytes of a statement's text that are kept, and of an error's.
const STATEMENT_BYTES_MAX: usize = 4096;

/// Whom a statement comes from, as far as that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The protocol: `sql`, `query_sql`, `postgres`, `flight`; empty for the server itself.
    pub protocol: &'static str,
    /// Address and port of the client.
    pub peer: String,
    /// The name that it gave for its user.
    pub user: String,
    /// The name that it gave for itself.
    pub application: String,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.peer {
            "" => f.write_str("the server")?,
            peer => write!(f, "{peer}")?,
        }
        if !self.protocol.is_empty() {
            write!(f, " over {}", self.protocol)?;
        }
        if !self.user.is_empty() {
            write!(f, ", user {}", self.user)?;
        }
        Ok(())
    }
}

/// What `KILL` is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// All but itself.
    All,
    /// The one with this number.
    One(u64),
}

/// What a statement is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stage {
    /// It is read and planned.
    Planning,
    /// Others have to end before.
    Waiting,
    /// It computes, or its client takes rows.
    Running,
}

impl Stage {
    const NAMES: [&str; 3] = ["planning", "waiting", "running"];
}

/// A statement that runs.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) id: u64,
    pub(crate) origin: Origin,
    /// Its text, or the beginning of it.
    pub(crate) statement: Box<str>,
    /// When it came in, in µs since 1970.
    pub(crate) since_us: i64,
    since: Instant,
    /// A [`Stage`].
    stage: AtomicU8,
    /// When it came to be so, in µs after `since`.
    stage_since_us: AtomicU64,
    /// How long it was read and planned.
    planning_us: AtomicU64,
    /// A thread plans it and does not look up.
    is_being_planned: AtomicBool,
    rows: AtomicU64,
    pub(crate) usage: Arc<Usage>,
    plan: Mutex<Option<Weak<dyn ExecutionPlan>>>,
    spill_bytes: AtomicU64,
    cancel: CancellationToken,
    /// Cancelled with `cancel`, and when the statement has ended.
    over: CancellationToken,
    killed_by: OnceLock<String>,
    is_late: AtomicBool,
}

impl Running {
    /// Notes what the statement is about now.
    pub(crate) fn enter(&self, stage: Stage) {
        let now_us = self.since.elapsed().as_micros() as u64;
        let since_us = self.stage_since_us.swap(now_us, Ordering::Relaxed);
        if self.stage.swap(stage as u8, Ordering::Relaxed) == Stage::Planning as u8 {
            self.planning_us.fetch_add(now_us.saturating_sub(since_us), Ordering::Relaxed);
        }
    }

    /// How long it was read and planned, once it is: without the time in which others had to end.
    pub(crate) fn planning(&self) -> Option<Duration> {
        let is_planned = self.stage.load(Ordering::Relaxed) == Stage::Running as u8;
        is_planned.then(|| Duration::from_micros(self.planning_us.load(Ordering::Relaxed)))
    }

    /// Plans the statement by `plan`, which may take long and does not look up meanwhile.
    pub(crate) fn plan<T>(&self, plan: impl FnOnce() -> T) -> T {
        self.is_being_planned.store(true, Ordering::Relaxed);
        let planned = plan();
        self.is_being_planned.store(false, Ordering::Relaxed);
        planned
    }

    /// Whether it is being planned, and so does not see that its time is over.
    pub(crate) fn is_being_planned(&self) -> bool {
        self.is_being_planned.load(Ordering::Relaxed)
    }

    /// Notes the plan that runs, while it does.
    pub(crate) fn runs(&self, plan: &Arc<dyn ExecutionPlan>) {
        *self.plan.lock().expect("no holder of this lock panics") = Some(Arc::downgrade(plan));
    }

    /// Counts rows that were handed out.
    pub(crate) fn add_rows(&self, rows: usize) {
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// Notes that its time is over.
    pub(crate) fn note_late(&self) {
        self.is_late.store(true, Ordering::Relaxed);
    }

    /// Cancelled once nobody waits for the statement any more, however it ended.
    pub(crate) fn over(&self) -> &CancellationToken {
        &self.over
    }

    /// What ends the statement when its token is cancelled.
    pub(crate) fn why_cancelled(&self, limit: Duration) -> QueryError {
        match self.killed_by.get() {
            Some(by) => QueryError::Killed { id: self.id, by: by.clone() },
            None if self.is_late.load(Ordering::Relaxed) => QueryError::Timeout { limit },
            None => QueryError::Cancelled,
        }
    }

    /// The bytes spilled so far. What was found stays when the plan goes.
    pub(crate) fn note_spill(&self) -> u64 {
        let plan = self.plan.lock().expect("no holder of this lock panics").as_ref().and_then(Weak::upgrade);
        if let Some(plan) = plan {
            self.spill_bytes.fetch_max(spilled_bytes(&*plan), Ordering::Relaxed);
        }
        self.spill_bytes.load(Ordering::Relaxed)
    }
}

/// What a plan and those below it have spilled.
fn spilled_bytes(plan: &dyn ExecutionPlan) -> u64 {
    let own = plan.metrics().and_then(|metrics| metrics.spilled_bytes()).unwrap_or(0) as u64;
    own + plan.children().into_iter().map(|child| spilled_bytes(&**child)).sum::<u64>()
}

/// A statement that ended.
#[derive(Clone, Debug)]
struct Ended {
    of: Arc<Running>,
    state: &'static str,
    elapsed: Duration,
    error: Option<Box<str>>,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Queries(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    running: BTreeMap<u64, Arc<Running>>,
    ended: VecDeque<Ended>,
    last_id: u64,
}

impl Queries {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no holder of this lock panics")
    }

    /// Shows the statement of `request`, which `cancel` ends, since `now_us`.
    pub(crate) fn begin(self: &Arc<Self>, request: &QueryRequest, cancel: CancellationToken, now_us: i64) -> Begun {
        let mut inner = self.inner();
        inner.last_id += 1;
        let running = Arc::new(Running {
            id: inner.last_id,
            origin: request.origin.clone(),
            statement: shortened(&request.sql),
            since_us: now_us,
            since: Instant::now(),
            stage: AtomicU8::new(Stage::Planning as u8),
            stage_since_us: AtomicU64::new(0),
            planning_us: AtomicU64::new(0),
            is_being_planned: AtomicBool::new(false),
            rows: AtomicU64::new(0),
            usage: Arc::default(),
            plan: Mutex::default(),
            spill_bytes: AtomicU64::new(0),
            over: cancel.child_token(),
            cancel,
            killed_by: OnceLock::new(),
            is_late: AtomicBool::new(false),
        });
        inner.running.insert(running.id, Arc::clone(&running));
        Begun { queries: Arc::clone(self), running: Some(running) }
    }

    /// Ends statements for `killer`, who is not among them; gives their number. They answer that they were ended, and by whom.
    pub(crate) fn kill(&self, target: Target, killer: &Running) -> u64 {
        let victims: Vec<Arc<Running>> = {
            let inner = self.inner();
            let meant = |running: &&Arc<Running>| match target {
                Target::All => running.id != killer.id,
                Target::One(id) => running.id == id && id != killer.id,
            };
            inner.running.values().filter(meant).cloned().collect()
        };
        for victim in &victims {
            let _ = victim.killed_by.set(killer.origin.to_string());
            tracing::info!(id = victim.id, by = %killer.origin, "a statement is ended by KILL");
            victim.cancel.cancel();
        }
        victims.len() as u64
    }

    /// Those that run, in the order in which they came.
    pub(crate) fn running(&self) -> Vec<Arc<Running>> {
        self.inner().running.values().cloned().collect()
    }

    /// Those that run, and those that ended lately, each in the order in which they came or ended.
    fn all(&self) -> (Vec<Arc<Running>>, Vec<Ended>) {
        let inner = self.inner();
        (inner.running.values().cloned().collect(), inner.ended.iter().cloned().collect())
    }
}

/// A statement is shown as running until this is dropped.
#[derive(Debug)]
pub(crate) struct Begun {
    queries: Arc<Queries>,
    /// `None` once it has ended.
    running: Option<Arc<Running>>,
}

impl Begun {
    /// The statement.
    pub(crate) fn running(&self) -> &Arc<Running> {
        self.running.as_ref().expect("it is taken when it ends, and then nobody has this")
    }

    /// Notes how it ended.
    pub(crate) fn end(mut self, outcome: &Result<(), QueryError>) {
        self.leave(outcome.as_ref().err());
    }

    fn leave(&mut self, error: Option<&QueryError>) {
        let Some(running) = self.running.take() else { return };
        let state = match error.map(QueryError::root) {
            None => "finished",
            Some(QueryError::Killed { .. }) => "killed",
            Some(QueryError::Cancelled) => "cancelled",
            Some(_) => "failed",
        };
        let error = error.map(|error| shortened(&error.to_string()));
        let mut inner = self.queries.inner();
        inner.running.remove(&running.id);
        if inner.ended.len() >= ENDED_MAX {
            inner.ended.pop_front();
        }
        inner.ended.push_back(Ended { elapsed: running.since.elapsed(), of: running, state, error });
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        // Its task went with the runtime.
        self.leave(Some(&QueryError::Cancelled));
    }
}

fn shortened(text: &str) -> Box<str> {
    if text.len() <= STATEMENT_BYTES_MAX {
        return text.into();
    }
    let end = text.floor_char_boundary(STATEMENT_BYTES_MAX - '…'.len_utf8());
    format!("{}…", &text[..end]).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ended_is_bounded_in_number_and_in_bytes() {
        let queries = Arc::new(Queries::default());
        let long = QueryRequest::new("ä".repeat(STATEMENT_BYTES_MAX));
        for _ in 0..=ENDED_MAX {
            queries.begin(&long, CancellationToken::new(), 0).end(&Ok(()));
        }
        let (running, ended) = queries.all();
        assert_eq!((running.len(), ended.len()), (0, ENDED_MAX));
        assert_eq!(ended.first().map(|ended| ended.of.id), Some(2), "the oldest goes");
        assert!(ended.iter().all(|ended| ended.of.statement.len() <= STATEMENT_BYTES_MAX));
        assert!(ended[0].of.statement.ends_with("ä…"));
    }

    #[test]
    fn a_kill_ends_those_that_are_meant_and_never_itself() {
        let queries = Arc::new(Queries::default());
        let request = QueryRequest::new("SELECT 1");
        let begin = || {
            let cancel = CancellationToken::new();
            (queries.begin(&request, cancel.clone(), 0), cancel)
        };
        let (killer, (one, of_one), (two, of_two)) = (begin(), begin(), begin());
        assert_eq!(queries.kill(Target::One(2), killer.0.running()), 1);
        assert_eq!((of_one.is_cancelled(), of_two.is_cancelled()), (true, false));
        assert!(matches!(one.running().why_cancelled(Duration::ZERO), QueryError::Killed { id: 2, .. }));
        assert!(matches!(two.running().why_cancelled(Duration::ZERO), QueryError::Cancelled));
        drop(one);
        for (target, ended) in [(Target::One(2), 0), (Target::One(1), 0), (Target::All, 1), (Target::One(9), 0)] {
            assert_eq!(queries.kill(target, killer.0.running()), ended, "{target:?}");
        }
        assert!(of_two.is_cancelled() && !killer.1.is_cancelled());
    }
}
