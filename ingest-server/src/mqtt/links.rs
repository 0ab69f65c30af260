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

use super::read::{Publish, Wanted};
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
    /// MQTT 5: its properties as they came.
    pub properties: Vec<u8>,
    /// MQTT 5: when it is of no use any more, and where in `properties` the seconds until then stand.
    pub expires: Option<(Instant, usize)>,
    /// What it says.
    pub payload: Bytes,
    /// 0 or 1.
    pub qos: u8,
}

impl Order {
    /// A command that has just come.
    pub fn new(publish: &Publish<'_>) -> Self {
        let expires = publish.expiry.map(|(seconds, at)| (Instant::now() + Duration::from_secs(seconds.into()), at));
        Order {
            topic: publish.topic.into(),
            properties: publish.properties.into(),
            expires,
            payload: Bytes::copy_from_slice(publish.payload),
            qos: publish.qos,
        }
    }

    /// Brings the expiry up to date; false if the command is of no use any more.
    pub fn is_fresh(&mut self) -> bool {
        let Some((at, place)) = self.expires else { return true };
        let left = at.saturating_duration_since(Instant::now());
        // Rounded up: what has not waited keeps its number.
        let seconds = u32::try_from(left.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
        if let Some(bytes) = self.properties.get_mut(place..place + 4) {
            bytes.copy_from_slice(&seconds.to_be_bytes());
        }
        seconds > 0
    }

    fn bytes(&self) -> usize {
        self.topic.len() + self.properties.len() + self.payload.len()
    }
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
    no_local: bool,
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
        state.orders_bytes -= order.bytes();
        Some(order)
    }

    /// Whether the next command has QoS above 0; `None` if there is none.
    pub fn next_is_acknowledged(&self) -> Option<bool> {
        self.state().orders.front().map(|order| order.qos > 0)
    }

    /// Adds a subscription, or replaces the one of the same filter. False if there are too many.
    pub fn subscribe(&self, wanted: &Wanted<'_>, qos: u8) -> bool {
        let Wanted { filter, no_local, .. } = *wanted;
        let mut state = self.state();
        if let Some(found) = state.subscriptions.iter_mut().find(|found| &*found.filter == filter) {
            (found.qos, found.no_local) = (qos, no_local);
        } else if state.subscriptions.len() < ORDERS_MAX {
            state.subscriptions.push(Subscription { filter: filter.into(), qos, no_local });
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

    fn forward(&self, publish: &Publish<'_>, is_own: bool) -> Forwarded {
        let mut order = Order::new(publish);
        let mut forwarded = Forwarded::Sent;
        let mut state = self.state();
        let takes = |found: &&Subscription| matches(&found.filter, publish.topic) && !(is_own && found.no_local);
        let granted = state.subscriptions.iter().filter(takes).map(|found| found.qos).max();
        match granted.filter(|_| state.end.is_none()) {
            None => forwarded = Forwarded::Nobody,
            Some(_) if state.orders.len() >= ORDERS_MAX || state.orders_bytes + order.bytes() > ORDERS_BYTES_MAX => {
                forwarded = Forwarded::Full;
            }
            Some(granted) => {
                order.qos = order.qos.min(granted);
                state.orders_bytes += order.bytes();
                state.orders.push_back(order);
            }
        }
        drop(state);
        if forwarded == Forwarded::Sent {
            self.tell(|_| {});
        }
        forwarded
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

    /// Hands a command to the agent whose client id is `agent`; it comes from the client `from`.
    pub fn forward(&self, agent: &str, publish: &Publish<'_>, from: &str) -> Forwarded {
        let link = self.inner().by_id.get(agent).cloned();
        link.map_or(Forwarded::Nobody, |link| link.forward(publish, agent == from))
    }
}
