//! The rows of a result on their way from the query runtime to whoever asked.
//!
//! Owns:     the two ends of that way, and cancelling when the asking end goes away.
//! Does not: run anything.
//!
//! Rows and the outcome go separate ways, so a slow reader that runs out of time gets what was on its way and
//! then hears why there is no more; a result that ends without an outcome is an error, never a short result.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::{FutureExt, Stream};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::DropGuard;

use crate::error::QueryError;

/// Batches between the runtimes. The query pauses while they wait.
const BATCHES_MAX: usize = 2;

/// A shard that a statement went on without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Its location below `DATA/tables`.
    pub shard: String,
    /// The rows of it that the statement would have seen.
    pub rows: u64,
}

/// The rows of a result, in batches as they are computed. Dropping them cancels the statement.
pub struct Rows {
    /// The columns.
    pub schema: SchemaRef,
    /// Damaged shards whose rows are not in the result, if the request said to go on without them.
    pub left_out: Vec<LeftOut>,
    batches: mpsc::Receiver<RecordBatch>,
    outcome: Option<oneshot::Receiver<Result<(), QueryError>>>,
    _cancel: DropGuard,
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows").field("schema", &self.schema).finish_non_exhaustive()
    }
}

/// The first error ends the stream.
impl Stream for Rows {
    type Item = Result<RecordBatch, QueryError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(batch) = ready!(self.batches.poll_recv(cx)) {
            return Poll::Ready(Some(Ok(batch)));
        }
        let Some(outcome) = &mut self.outcome else { return Poll::Ready(None) };
        let outcome = ready!(outcome.poll_unpin(cx));
        self.outcome = None;
        Poll::Ready(match outcome {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(Err(error)),
            // The runtime is gone.
            Err(_) => Some(Err(QueryError::Cancelled)),
        })
    }
}

/// What the asking end is told first.
#[derive(Debug)]
pub(crate) enum Started {
    Rows(Incoming),
    Done { statement: &'static str, rows: Option<u64> },
}

/// The asking end of a result that has begun.
#[derive(Debug)]
pub(crate) struct Incoming {
    schema: SchemaRef,
    left_out: Vec<LeftOut>,
    batches: mpsc::Receiver<RecordBatch>,
    outcome: oneshot::Receiver<Result<(), QueryError>>,
}

impl Incoming {
    /// As the caller gets it; dropping it triggers `cancel`.
    pub(crate) fn into_rows(self, cancel: DropGuard) -> Rows {
        Rows {
            schema: self.schema,
            left_out: self.left_out,
            batches: self.batches,
            outcome: Some(self.outcome),
            _cancel: cancel,
        }
    }
}

/// The computing end.
#[derive(Debug)]
pub(crate) struct Reply {
    started: Option<oneshot::Sender<Result<Started, QueryError>>>,
    outcome: Option<oneshot::Sender<Result<(), QueryError>>>,
}

impl Reply {
    pub(crate) fn new(started: oneshot::Sender<Result<Started, QueryError>>) -> Self {
        Reply { started: Some(started), outcome: None }
    }

    /// Begins a result with rows, without those of `left_out`.
    pub(crate) fn rows(&mut self, schema: SchemaRef, left_out: Vec<LeftOut>) -> mpsc::Sender<RecordBatch> {
        let (send, batches) = mpsc::channel(BATCHES_MAX);
        let (finish, outcome) = oneshot::channel();
        self.outcome = Some(finish);
        self.start(Ok(Started::Rows(Incoming { schema, left_out, batches, outcome })));
        send
    }

    /// Gives a result without rows.
    pub(crate) fn done(&mut self, statement: &'static str, rows: Option<u64>) {
        self.start(Ok(Started::Done { statement, rows }));
    }

    /// Ends the result.
    pub(crate) fn finish(mut self, outcome: Result<(), QueryError>) {
        match (self.outcome.take(), outcome) {
            // Nobody may be listening any more, and then nobody needs to know.
            (Some(finish), outcome) => drop(finish.send(outcome)),
            (None, Err(error)) => self.start(Err(error)),
            (None, Ok(())) => {}
        }
    }

    fn start(&mut self, started: Result<Started, QueryError>) {
        if let Some(sender) = self.started.take() {
            drop(sender.send(started));
        }
    }
}
