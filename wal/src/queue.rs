//! What waits to be written to a log: many push, one writer takes.
//!
//! Owns:     the bound of what waits; whether a log takes more, writes what it has, or fails it.
//! Does not: write, or tell anybody what became of a record.
//!
//! Invariants
//!  1. Records are taken in the order in which they were pushed, each token once.
//!  2. Once ended, a log takes no more.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

use model::NodeEpoch;

use crate::error::WalError;
use crate::frame::payload_bytes_of;

/// What a waiting record counts beside its bytes, so that empty ones have a limit too.
const BYTES_PER_RECORD: usize = 64;

/// See the module.
pub(crate) struct Queue<T> {
    inner: Mutex<Inner<T>>,
    changed: Condvar,
    bytes_max: usize,
}

struct Inner<T> {
    waiting: VecDeque<(Vec<u8>, T)>,
    bytes: usize,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Takes no more, writes what waits.
    Closing,
    /// Takes no more, fails what waits.
    Dropped,
    Ended(End),
}

/// Why a log acknowledges nothing any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// A write or sync failed (P2).
    Poisoned,
    /// A later life wrote in the name of this one.
    Fenced { file: String, found: NodeEpoch, ours: NodeEpoch },
}

impl From<End> for WalError {
    fn from(end: End) -> WalError {
        match end {
            End::Poisoned => WalError::Poisoned,
            End::Fenced { file, found, ours } => WalError::Fenced { file, found, ours },
        }
    }
}

/// What the writer does next.
pub(crate) enum Work<T> {
    Write(Vec<(Vec<u8>, T)>),
    /// The next record does not fit.
    NoRoom,
    Close,
    Drop(Vec<T>),
}

impl<T> Queue<T> {
    /// An open one, in which `bytes_max` bytes may wait.
    pub(crate) fn new(bytes_max: usize) -> Arc<Queue<T>> {
        let inner = Inner { waiting: VecDeque::new(), bytes: 0, state: State::Open };
        Arc::new(Queue { inner: Mutex::new(inner), changed: Condvar::new(), bytes_max })
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().expect("no holder of this lock panics")
    }

    /// Hands over a record; never waits.
    ///
    /// # Errors
    /// The token, with [`WalError::Full`] or why the log takes no more.
    pub(crate) fn push(&self, record: Vec<u8>, token: T) -> Result<(), (T, WalError)> {
        let mut inner = self.lock();
        match &inner.state {
            State::Open => {}
            State::Closing | State::Dropped => return Err((token, WalError::Closed)),
            State::Ended(end) => return Err((token, end.clone().into())),
        }
        let bytes = record.len() + BYTES_PER_RECORD;
        // One record always finds room, or a limit below its length would refuse it for ever.
        if !inner.waiting.is_empty() && inner.bytes + bytes > self.bytes_max {
            return Err((token, WalError::Full { bytes_waiting: inner.bytes }));
        }
        inner.bytes += bytes;
        inner.waiting.push_back((record, token));
        if inner.waiting.len() == 1 {
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Waits for work and takes what waits, as far as its payload goes into `room` bytes, but at least `at_least` records.
    pub(crate) fn next(&self, room: usize, at_least: usize) -> Work<T> {
        let mut inner = self.lock();
        loop {
            match inner.state {
                State::Dropped => return Work::Drop(inner.take_all()),
                State::Closing if inner.waiting.is_empty() => return Work::Close,
                State::Open | State::Closing | State::Ended(_) => {}
            }
            if !inner.waiting.is_empty() {
                break;
            }
            inner = self.changed.wait(inner).expect("no holder of this lock panics");
        }
        let (mut payload_bytes, mut count) = (0, 0);
        for (record, _) in &inner.waiting {
            payload_bytes += payload_bytes_of(record.len());
            if payload_bytes > room && count >= at_least {
                break;
            }
            count += 1;
        }
        if count == 0 {
            return Work::NoRoom;
        }
        let group: Vec<_> = if count == inner.waiting.len() {
            std::mem::take(&mut inner.waiting).into()
        } else {
            inner.waiting.drain(..count).collect()
        };
        inner.bytes -= group.iter().map(|(record, _)| record.len() + BYTES_PER_RECORD).sum::<usize>();
        Work::Write(group)
    }

    /// Takes out what waits; the log goes on.
    pub(crate) fn take_all(&self) -> Vec<T> {
        self.lock().take_all()
    }

    /// Lets nothing more in, and has the writer write what waits, or fail it.
    pub(crate) fn close(&self, is_written: bool) {
        let mut inner = self.lock();
        if inner.state == State::Open {
            inner.state = if is_written { State::Closing } else { State::Dropped };
        }
        drop(inner);
        self.changed.notify_all();
    }

    /// Lets nothing more in and takes out what waits.
    pub(crate) fn end(&self, end: End) -> Vec<T> {
        let mut inner = self.lock();
        inner.state = State::Ended(end);
        inner.take_all()
    }

    /// Whether nothing is acknowledged any more.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.lock().state, State::Ended(_))
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.lock().bytes
    }
}

impl<T> Inner<T> {
    fn take_all(&mut self) -> Vec<T> {
        self.bytes = 0;
        self.waiting.drain(..).map(|(_, token)| token).collect()
    }
}

impl<T> std::fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let inner = self.lock();
        f.debug_struct("Queue").field("bytes", &inner.bytes).field("state", &inner.state).finish()
    }
}

/// A panic in the writer or in the sink must not leave appenders waiting for an answer.
pub(crate) struct PoisonOnPanic<T>(pub(crate) Arc<Queue<T>>);

impl<T> Drop for PoisonOnPanic<T> {
    fn drop(&mut self) {
        if thread::panicking() {
            // Dropped, the tokens tell whoever waits on them.
            drop(self.0.end(End::Poisoned));
        }
    }
}
