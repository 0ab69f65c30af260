//! Who is connected, and how connections are told to end.
//!
//! Owns:     which connection has a client id; of whom the log has complained.
//! Does not: know what clients have subscribed to (`sessions`).
//!
//! Invariant: at most one connection has a client id. A new one tells the old one to end, and waits for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::task::AtomicWaker;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::connections::Shown;

/// Why a connection is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The server stops.
    Stop,
    /// Another connection came with its client id.
    TakenOver,
}

/// One connection, as others see it.
#[derive(Debug, Default)]
pub struct Link {
    number: u64,
    /// Wakes its task.
    pub waker: AtomicWaker,
    /// There is something for its task.
    news: AtomicBool,
    /// What is shown of it.
    pub shown: Arc<Shown>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    end: Option<End>,
    /// Dropped with the link.
    waiting: Vec<oneshot::Sender<()>>,
}

impl Link {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    fn tell(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.wake();
    }

    /// Says that there is news.
    pub fn wake(&self) {
        self.news.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Whether there is news since the last call.
    pub fn has_news(&self) -> bool {
        self.news.load(Ordering::Acquire) && self.news.swap(false, Ordering::AcqRel)
    }

    /// Whether it is to end.
    pub fn end(&self) -> Option<End> {
        self.state().end
    }
}

/// Clients that were complained of lately; more are not complained of.
const COMPLAINTS_MAX: usize = 1024;
/// A client is complained of in the log at most so often.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// All connections.
#[derive(Debug, Default)]
pub struct Links(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    all: HashMap<u64, Arc<Link>>,
    by_id: HashMap<Arc<str>, Arc<Link>>,
    next: u64,
    stopping: bool,
    complaints: HashMap<Arc<str>, Instant>,
}

impl Links {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no holder of this lock panics")
    }

    /// A new connection, which has not said who it is.
    pub fn open(&self) -> Arc<Link> {
        let mut inner = self.inner();
        inner.next += 1;
        let link = Arc::new(Link { number: inner.next, ..Link::default() });
        if inner.stopping {
            link.tell(|state| state.end = Some(End::Stop));
        }
        inner.all.insert(link.number, Arc::clone(&link));
        link
    }

    /// Gives `link` the client id `id`. If another connection has it, that one is told to end, and what is returned
    /// resolves, with an error, when it has.
    pub fn enter(&self, id: &Arc<str>, link: &Arc<Link>) -> Option<oneshot::Receiver<()>> {
        let old = self.inner().by_id.insert(Arc::clone(id), Arc::clone(link))?;
        let (waiting, gone) = oneshot::channel();
        old.tell(|state| {
            state.end.get_or_insert(End::TakenOver);
            state.waiting.push(waiting);
        });
        Some(gone)
    }

    /// Forgets a connection.
    pub fn leave(&self, id: Option<&Arc<str>>, link: &Arc<Link>) {
        let mut inner = self.inner();
        inner.all.remove(&link.number);
        if let Some(id) = id
            && inner.by_id.get(id).is_some_and(|found| Arc::ptr_eq(found, link))
        {
            inner.by_id.remove(id);
        }
        drop(inner);
        link.state().waiting.clear();
    }

    /// Tells all connections, and all that come later, that the server stops.
    pub fn stop(&self) {
        let mut inner = self.inner();
        inner.stopping = true;
        for link in inner.all.values() {
            link.tell(|state| state.end = Some(End::Stop));
        }
    }

    /// Whether a client may be complained of in the log now.
    pub fn may_complain(&self, id: &Arc<str>) -> bool {
        let now = Instant::now();
        let complaints = &mut self.inner().complaints;
        if complaints.len() >= COMPLAINTS_MAX {
            complaints.retain(|_, at| now - *at < COMPLAINT_INTERVAL);
        }
        let known = complaints.get(id).is_some_and(|at| now - *at < COMPLAINT_INTERVAL);
        if known || complaints.len() >= COMPLAINTS_MAX {
            return false;
        }
        complaints.insert(Arc::clone(id), now);
        true
    }
}
