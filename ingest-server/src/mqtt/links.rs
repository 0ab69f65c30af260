//! Who is connected: how connections are told to end, and how commands reach agents.
//!
//! Invariants
//!  1. At most one connection has a client id: a new one tells the old one to end, and waits for it.
//!  2. What waits for a client is bounded; beyond it, a command is refused to whoever sends it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures::task::AtomicWaker;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::topic::matches;

/// Commands that may wait for one client.
const ORDERS_MAX: usize = 64;
/// Their bytes.
const ORDERS_BYTES_MAX: usize = 256 << 10;

/// Why a connection is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The server stops.
    Stop,
    /// Another connection came with its client id.
    TakenOver,
}

/// A command on its way to a client.
#[derive(Clone, Debug)]
pub struct Order {
    /// Its topic.
    pub topic: Box<str>,
    /// What it says.
    pub payload: Bytes,
    /// 0 or 1.
    pub qos: u8,
}

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// It is on its way.
    Sent,
    /// The agent is not connected, or has not subscribed.
    Nobody,
    /// Too many wait for it.
    Full,
}

/// A subscription.
#[derive(Clone, Debug)]
struct Subscription {
    filter: Box<str>,
    qos: u8,
}

/// One connection, as others see it.
#[derive(Debug, Default)]
pub struct Link {
    number: u64,
    /// Wakes its task.
    pub waker: AtomicWaker,
    /// There is something in `state` for its task.
    news: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    end: Option<End>,
    subscriptions: Vec<Subscription>,
    orders: VecDeque<Order>,
    orders_bytes: usize,
    /// Dropped with the link.
    waiting: Vec<oneshot::Sender<()>>,
}

impl Link {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    fn tell(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
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

    /// The next command for it.
    pub fn next_order(&self) -> Option<Order> {
        let mut state = self.state();
        let order = state.orders.pop_front()?;
        state.orders_bytes -= order.payload.len();
        Some(order)
    }

    /// Whether the next command has QoS above 0; `None` if there is none.
    pub fn next_is_acknowledged(&self) -> Option<bool> {
        self.state().orders.front().map(|order| order.qos > 0)
    }

    /// Adds a subscription, or replaces the one of the same filter. False if there are too many.
    pub fn subscribe(&self, filter: &str, qos: u8) -> bool {
        let mut state = self.state();
        if let Some(found) = state.subscriptions.iter_mut().find(|found| &*found.filter == filter) {
            found.qos = qos;
        } else if state.subscriptions.len() < ORDERS_MAX {
            state.subscriptions.push(Subscription { filter: filter.into(), qos });
        } else {
            return false;
        }
        true
    }

    /// Removes a subscription; false if there was none.
    pub fn unsubscribe(&self, filter: &str) -> bool {
        let mut state = self.state();
        let before = state.subscriptions.len();
        state.subscriptions.retain(|found| &*found.filter != filter);
        state.subscriptions.len() < before
    }

    fn forward(&self, topic: &str, payload: &[u8], qos: u8) -> Forwarded {
        let state = self.state();
        let taken =
            state.subscriptions.iter().filter(|found| matches(&found.filter, topic)).map(|found| found.qos).max();
        let Some(granted) = taken.filter(|_| state.end.is_none()) else { return Forwarded::Nobody };
        if state.orders.len() >= ORDERS_MAX || state.orders_bytes + payload.len() > ORDERS_BYTES_MAX {
            return Forwarded::Full;
        }
        drop(state);
        let order = Order { topic: topic.into(), payload: Bytes::copy_from_slice(payload), qos: qos.min(granted) };
        self.tell(|state| {
            state.orders_bytes += order.payload.len();
            state.orders.push_back(order);
        });
        Forwarded::Sent
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

    /// Hands a command to the agent whose client id is `agent`.
    pub fn forward(&self, agent: &str, topic: &str, payload: &[u8], qos: u8) -> Forwarded {
        let link = self.inner().by_id.get(agent).cloned();
        link.map_or(Forwarded::Nobody, |link| link.forward(topic, payload, qos))
    }
}
