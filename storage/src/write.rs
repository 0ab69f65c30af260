//! A write on its way from a request to the log and into memory.
//!
//! Owns:     the token that travels with a record, the acknowledgement that waits for all records of a request, and
//!           the bound on what is in memory.
//! Does not: decide what a request may contain (`admit`).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use model::{Removal, TableBatch};
use tokio::sync::oneshot;

use crate::agents::AgentEvent;
use crate::gate::Pass;
use crate::table::Table;
use crate::{RejectedRow, StorageError};

/// A write that is on its way to the disk.
#[derive(Debug)]
pub struct PendingWrite {
    /// Rows refused by the table's schema or by time limits; the others are stored.
    pub rejected: Vec<RejectedRow>,
    /// Rows that are being stored, or removed.
    pub accepted: usize,
    pub(crate) durable: oneshot::Receiver<Result<(), StorageError>>,
}

impl PendingWrite {
    /// Waits until the rows, or their removal, are durable and visible to queries (P1, P6).
    ///
    /// # Errors
    /// The rows may or may not be stored, or removed, after an error; asking for it again is safe.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing about the write.
    pub async fn durable(self) -> Result<(), StorageError> {
        self.durable.await.unwrap_or(Err(StorageError::Closed))
    }

    /// As [`PendingWrite::durable`], blocking the thread.
    ///
    /// # Errors
    /// As [`PendingWrite::durable`].
    pub fn wait(self) -> Result<(), StorageError> {
        self.durable.blocking_recv().unwrap_or(Err(StorageError::Closed))
    }
}

/// What travels with a record through the log.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) subject: Subject,
    /// Kept until the record is applied or has failed.
    pub(crate) ack: Ack,
}

impl Subject {
    /// Rows of tables that it stores or removes.
    pub(crate) fn rows(&self) -> usize {
        match self {
            Subject::Rows(_, batch) => batch.len(),
            Subject::Removal(_, removal) => removal.len(),
            Subject::Agent(_) | Subject::State => 0,
        }
    }
}

/// What a record is about.
#[derive(Debug)]
pub(crate) enum Subject {
    /// Rows of a table.
    Rows(Arc<Table>, Box<TableBatch>),
    /// Rows of a table, or fields of them, that are removed.
    Removal(Arc<Table>, Box<Removal>),
    /// A named batch, or what an agent says of itself.
    Agent(Box<AgentEvent>),
    /// What is known of an agent already.
    State,
}

/// One record's share in the acknowledgement of its request. The request is answered when the last share is gone,
/// and well only if each was [`Ack::durable`]: a share that is merely dropped counts as failed (P1).
#[derive(Debug)]
pub(crate) struct Ack {
    state: Arc<AckState>,
    is_durable: bool,
}

#[derive(Debug)]
struct AckState {
    failed: Mutex<Option<StorageError>>,
    answer: Mutex<Option<oneshot::Sender<Result<(), StorageError>>>>,
    in_flight: Arc<InFlight>,
    /// The request is inside its tables for as long.
    _pass: Option<Arc<Pass>>,
}

impl Ack {
    pub(crate) fn new(in_flight: &Arc<InFlight>) -> (Ack, oneshot::Receiver<Result<(), StorageError>>) {
        Ack::holding(in_flight, None)
    }

    /// As [`Ack::new`], of a request that is inside tables until the last share is gone.
    pub(crate) fn holding(
        in_flight: &Arc<InFlight>,
        pass: Option<Arc<Pass>>,
    ) -> (Ack, oneshot::Receiver<Result<(), StorageError>>) {
        let (answer, durable) = oneshot::channel();
        in_flight.add(1);
        let state = AckState {
            failed: Mutex::new(None),
            answer: Mutex::new(Some(answer)),
            in_flight: Arc::clone(in_flight),
            _pass: pass,
        };
        (Ack { state: Arc::new(state), is_durable: false }, durable)
    }

    /// Another share.
    pub(crate) fn share(&self) -> Ack {
        Ack { state: Arc::clone(&self.state), is_durable: false }
    }

    /// Gives this share up: its record is durable and applied.
    pub(crate) fn durable(mut self) {
        self.is_durable = true;
    }

    /// Gives this share up: its record is not known to be durable.
    pub(crate) fn fail(self, error: StorageError) {
        self.state.failed.lock().expect("no holder of this lock panics").get_or_insert(error);
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        if !self.is_durable {
            let mut failed = self.state.failed.lock().expect("no holder of this lock panics");
            failed.get_or_insert(StorageError::Closed);
        }
    }
}

impl Drop for AckState {
    fn drop(&mut self) {
        let failed = self.failed.get_mut().expect("no holder of this lock panics").take();
        if let Some(answer) = self.answer.get_mut().expect("no holder of this lock panics").take() {
            // Nobody listens if the client went away: the rows are stored all the same.
            let _ = answer.send(failed.map_or(Ok(()), Err));
        }
        self.in_flight.done();
    }
}

/// Requests that wait for their acknowledgement.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    count: Mutex<usize>,
    none: Condvar,
}

impl InFlight {
    fn add(&self, n: usize) {
        *self.count.lock().expect("no holder of this lock panics") += n;
    }

    fn done(&self) {
        let mut count = self.count.lock().expect("no holder of this lock panics");
        *count -= 1;
        if *count == 0 {
            self.none.notify_all();
        }
    }

    /// Waits until no request is in flight; false after `limit`.
    pub(crate) fn wait_for_none(&self, limit: Duration) -> bool {
        let count = self.count.lock().expect("no holder of this lock panics");
        let (count, _) =
            self.none.wait_timeout_while(count, limit, |count| *count > 0).expect("no holder of this lock panics");
        *count == 0
    }
}

/// Bytes of rows in memory, and who waits for there to be fewer (P10).
#[derive(Debug)]
pub(crate) struct Memory {
    bytes: AtomicUsize,
    bytes_max: usize,
    waiting: Mutex<()>,
    freed: Condvar,
}

impl Memory {
    pub(crate) fn new(bytes_max: usize) -> Memory {
        Memory { bytes: AtomicUsize::new(0), bytes_max, waiting: Mutex::new(()), freed: Condvar::new() }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes() >= self.bytes_max
    }

    /// True above the share of the bound from which on the largest table is flushed.
    pub(crate) fn is_pressing(&self) -> bool {
        self.bytes() >= self.bytes_max / 2
    }

    pub(crate) fn free(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        let _waiting = self.waiting.lock().expect("no holder of this lock panics");
        self.freed.notify_all();
    }

    pub(crate) fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Waits until there is room; false after `limit`.
    pub(crate) fn wait_for_room(&self, limit: Duration) -> bool {
        if !self.is_full() {
            return true;
        }
        let waiting = self.waiting.lock().expect("no holder of this lock panics");
        let waited = self.freed.wait_timeout_while(waiting, limit, |()| self.is_full());
        !waited.expect("no holder of this lock panics").1.timed_out()
    }
}
