//! Sessions: what a client has subscribed to, which commands wait for it, and what is retained on its topics.
//!
//! Owns:     every session, those of one connection and those that outlive it; the bounds of all; what must be durable
//!           before whoever caused it is told.
//! Does not: know connections but to wake them, packets, or files (`keeper`).
//!
//! Changes of what is kept are noted under the lock in which they are made, and written by one task at a time: all that
//! wait, with one sync. `docs/adr/0024-mqtt-sessions.md` says why.
//!
//! Invariants
//!  1. A command for a session that is kept, a retained one, and a subscription of such a session are durable before the
//!     future that is returned resolves (P1).
//!  2. What is kept of a client and of all is bounded; beyond it, a command is refused to whoever sends it.
//!  3. The wall clock decides when something is forgotten and nothing else: one that jumps forgets too early or too
//!     late, and never mixes up an order (P12).

mod keeper;
mod record;
mod session;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use model::{Clock, NodeEpoch, NodeId};
use storage::StorageError;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;
use wal::WalError;
use wal::disk::SharedDisk;

use super::ingest::Durable;
use super::links::Link;
use super::read::{Publish, Retained, Wanted};
use super::topic;
use keeper::Keeper;
use record::Records;
use session::{Agent, Session};

pub use session::Order;

/// The folder in the data folder.
const FOLDER: &str = "mqtt";
/// Bytes of changes that may wait to be written; commands beyond them are refused.
const PENDING_BYTES_MAX: usize = 4 << 20;
/// How long commands that must be kept are refused after they could not be.
const FAILED_PAUSE: Duration = Duration::from_secs(1);

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// It is on its way.
    Sent,
    /// It waits for the agent to come back, or for its next subscription.
    Kept,
    /// The agent is not connected, or has not subscribed.
    Nobody,
    /// Too much waits, for this agent or for all.
    Full,
}

/// How a client's session begins.
#[derive(Default)]
pub struct Began {
    /// It goes on with one that was there.
    pub is_present: bool,
    /// Seconds for which it will outlive its connection.
    pub expiry: u32,
    /// QoS 2 messages of the client that are stored and not released: their identifiers, and checksums.
    pub received: Vec<(u16, u32)>,
    /// Must be done before the client is told.
    pub durable: Option<Durable>,
}

/// A command to be sent now.
#[derive(Debug)]
pub struct Next {
    /// What it says.
    pub order: Arc<Order>,
    /// Its identifier; 0 with QoS 0.
    pub id: u16,
    /// It may have been sent before.
    pub dup: bool,
    /// Seconds that it is still of use.
    pub seconds_left: Option<u32>,
}

/// All sessions.
#[derive(Debug)]
pub struct Sessions {
    clock: Arc<dyn Clock>,
    bytes_max: usize,
    expiry_max: u32,
    inner: Mutex<Inner>,
    keeper: Mutex<Keeper>,
    writing: TaskTracker,
}

#[derive(Debug, Default)]
struct Inner {
    agents: HashMap<Arc<str>, Agent>,
    /// Memory of all of them.
    bytes: usize,
    pending: Records,
    /// Told when what is pending is durable, dropped if it will never be.
    waiting: Vec<oneshot::Sender<()>>,
    /// A task writes.
    is_writing: bool,
    /// When writing failed last.
    failed_at: Option<Duration>,
}

impl Inner {
    /// Changes what is kept of a client, and the count of bytes with it.
    fn change<R>(&mut self, client: &Arc<str>, change: impl FnOnce(&mut Agent, &mut Records) -> R) -> R {
        let agent = self.agents.entry(Arc::clone(client)).or_default();
        let before = agent.bytes();
        let result = change(agent, &mut self.pending);
        self.bytes = self.bytes + agent.bytes() - before;
        if agent.is_empty() {
            self.agents.remove(client);
        }
        result
    }

    /// The session that is `link`'s.
    fn session(&mut self, client: &str, link: &Arc<Link>) -> Option<&mut Session> {
        self.agents.get_mut(client)?.session.as_mut().filter(|session| session.is_of(link))
    }
}

impl Sessions {
    /// What is kept in the data folder `data` of this life of a node. Sessions take at most `bytes_max` in all, and
    /// outlive a connection by `expiry_max` at most. Blocks.
    ///
    /// # Errors
    /// If what is kept cannot be read, or a later version has written it.
    pub fn open(
        disk: SharedDisk,
        data: &Path,
        (node, epoch): (NodeId, NodeEpoch),
        clock: Arc<dyn Clock>,
        bytes_max: usize,
        expiry_max: Duration,
    ) -> Result<Arc<Self>, StorageError> {
        let (keeper, mut agents) = Keeper::open(disk, data.join(FOLDER), node, epoch, bytes_max)?;
        let now_us = clock.now_us();
        for session in agents.values_mut().filter_map(|agent| agent.session.as_mut()) {
            // Whoever was connected when the server ended is away since now.
            session.away_since_us = session.away_since_us.min(now_us);
        }
        let bytes = agents.values().map(Agent::bytes).sum();
        let sessions = Arc::new(Sessions {
            clock,
            bytes_max,
            expiry_max: u32::try_from(expiry_max.as_secs()).unwrap_or(u32::MAX),
            inner: Mutex::new(Inner { agents, bytes, ..Inner::default() }),
            keeper: Mutex::new(keeper),
            writing: TaskTracker::new(),
        });
        Ok(sessions)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of this lock panics")
    }

    /// The most seconds for which a session outlives its connection.
    pub fn expiry_max(&self) -> u32 {
        self.expiry_max
    }

    /// A connection begins: it takes over the session of its client, or a new one if there is none, or `clean` is asked
    /// for. The connection before has ended.
    pub fn begin(self: &Arc<Self>, client: &Arc<str>, link: &Arc<Link>, clean: bool, expiry: u32) -> Began {
        let now_us = self.clock.now_us();
        let mut guard = self.inner();
        let inner = &mut *guard;
        let is_full = inner.bytes + 4096 > self.bytes_max;
        let (began, must_be_durable) = inner.change(client, |agent, pending| {
            let old = agent.session.take();
            let was_lasting = old.as_ref().is_some_and(Session::is_lasting);
            let old = old.filter(|session| was_lasting && !clean && !session.is_expired(now_us));
            let (is_present, mut session) = (old.is_some(), old.unwrap_or_default());
            // Without room it is not refused: there is a session for as long as the connection.
            let expiry = if is_full && !was_lasting { 0 } else { expiry.min(self.expiry_max) };
            let is_changed = session.expiry != expiry;
            session.expiry = expiry;
            let is_unsent = session.attach(link);
            let must_be_durable = was_lasting && (!is_present || is_unsent);
            if session.is_lasting() && (is_changed || is_unsent || !is_present) {
                pending.put(client, &session);
            } else if was_lasting && !session.is_lasting() {
                pending.drop_session(client);
            }
            let received = std::mem::take(&mut session.received);
            agent.session = Some(session);
            (Began { is_present, expiry, received, durable: None }, must_be_durable)
        });
        let durable = must_be_durable.then(|| Self::receipt(inner));
        self.write_soon(inner);
        Began { durable, ..began }
    }

    /// A connection ends. `expiry` if the client has changed its mind.
    pub fn end(self: &Arc<Self>, client: &Arc<str>, link: &Arc<Link>, expiry: Option<u32>) {
        let now_us = self.clock.now_us();
        let mut guard = self.inner();
        let inner = &mut *guard;
        if inner.session(client, link).is_none() {
            return;
        }
        inner.change(client, |agent, pending| {
            let Some(mut session) = agent.session.take() else { return };
            let was_lasting = session.is_lasting();
            session.detach(now_us, expiry.map_or(session.expiry, |expiry| expiry.min(self.expiry_max)));
            if session.is_lasting() {
                pending.away(client, now_us, session.expiry);
                agent.session = Some(session);
            } else if was_lasting {
                pending.drop_session(client);
            }
        });
        self.write_soon(inner);
    }

    /// Keeps `received`, as in [`Began`], for the connection that comes next; for as long as the server runs.
    pub fn keep_received(&self, client: &str, received: Vec<(u16, u32)>) {
        let mut inner = self.inner();
        let session = inner.agents.get_mut(client).and_then(|agent| agent.session.as_mut());
        if let Some(session) = session.filter(|session| session.link.is_none()) {
            session.keep_received(received);
        }
    }

    /// Adds a subscription, with the retained commands that it is to be sent. False if there are too many; what is
    /// returned beside must be done before the client is told.
    pub fn subscribe(
        self: &Arc<Self>,
        client: &Arc<str>,
        link: &Arc<Link>,
        wanted: &Wanted<'_>,
        qos: u8,
    ) -> (bool, Option<Durable>) {
        let now_us = self.clock.now_us();
        let mut guard = self.inner();
        let inner = &mut *guard;
        if inner.session(client, link).is_none() || inner.bytes + wanted.filter.len() > self.bytes_max {
            return (false, None);
        }
        let room = self.bytes_max.saturating_sub(inner.bytes);
        let (is_done, is_lasting) = inner.change(client, |agent, pending| {
            let Some(session) = agent.session.as_mut() else { return (false, false) };
            let Some(is_new) = session.subscribe(wanted, qos) else { return (false, false) };
            let are_wanted = match wanted.retained {
                Retained::Always => true,
                Retained::IfNew => is_new,
                Retained::Never => false,
            };
            let mut queued_bytes = 0;
            for order in agent.retained.iter().filter(|order| are_wanted && topic::matches(wanted.filter, &order.topic))
            {
                let order = Order { qos: order.qos.min(qos), retain: true, ..Order::clone(order) };
                queued_bytes += order.bytes();
                // As much again as may wait, so that what waits is not in the way of what is retained.
                if order.seconds_left(now_us) != Some(0) && session.has_room(&order, 2) && queued_bytes <= room {
                    session.push(Arc::new(order));
                }
            }
            if session.is_lasting() {
                pending.put(client, session);
            }
            (true, session.is_lasting())
        });
        link.wake();
        let durable = is_lasting.then(|| Self::receipt(inner));
        self.write_soon(inner);
        (is_done, durable)
    }

    /// Removes a subscription; false if there was none. What is returned beside must be done before the client is told.
    pub fn unsubscribe(self: &Arc<Self>, client: &Arc<str>, link: &Arc<Link>, filter: &str) -> (bool, Option<Durable>) {
        let mut guard = self.inner();
        let inner = &mut *guard;
        if inner.session(client, link).is_none() {
            return (false, None);
        }
        let (is_found, is_lasting) = inner.change(client, |agent, pending| {
            let Some(session) = agent.session.as_mut() else { return (false, false) };
            let before = session.subscriptions.len();
            session.subscriptions.retain(|found| &*found.filter != filter);
            let is_found = session.subscriptions.len() < before;
            if is_found && session.is_lasting() {
                pending.put(client, session);
            }
            (is_found, is_found && session.is_lasting())
        });
        let durable = is_lasting.then(|| Self::receipt(inner));
        self.write_soon(inner);
        (is_found, durable)
    }

    /// Hands a command to the agent whose client id is `agent`; it comes from the client `from`. What is returned
    /// beside must be done before it is acknowledged.
    pub fn forward(self: &Arc<Self>, agent: &str, publish: &Publish<'_>, from: &str) -> (Forwarded, Option<Durable>) {
        let now_us = self.clock.now_us();
        let order = Arc::new(Order::new(publish, now_us));
        let mut guard = self.inner();
        let inner = &mut *guard;
        let has_room = inner.bytes + 2 * order.bytes() <= self.bytes_max && inner.pending.bytes() < PENDING_BYTES_MAX;
        let now = self.clock.monotonic();
        let is_failing = inner.failed_at.is_some_and(|at| now.saturating_sub(at) < FAILED_PAUSE);
        let client: Arc<str> = agent.into();
        let (forwarded, must_be_durable) = inner.change(&client, |kept, pending| {
            if kept.session.as_ref().is_some_and(|session| session.is_expired(now_us)) {
                kept.session = None;
                pending.drop_session(&client);
            }
            let granted = kept.session.as_ref().and_then(|session| session.takes(&order.topic, agent == from));
            if granted.is_none() && !order.retain {
                return (Forwarded::Nobody, false);
            }
            let is_lasting = kept.session.as_ref().is_some_and(Session::is_lasting);
            let fits = kept.session.as_ref().is_none_or(|session| granted.is_none() || session.has_room(&order, 1));
            // Without a payload it frees room, and is let through.
            let must_fit = !order.retain || !order.payload.is_empty() || granted.is_some();
            if must_fit && !has_room || !fits || is_failing && (is_lasting || order.retain) {
                return (Forwarded::Full, false);
            }
            let mut is_kept = false;
            if order.retain {
                if !kept.retain(&order) {
                    return (Forwarded::Full, false);
                }
                is_kept = true;
                if order.payload.is_empty() {
                    pending.forget(&client, &order.topic);
                } else {
                    pending.retain(&client, &order);
                }
            }
            let Some(((granted, as_published), session)) = granted.zip(kept.session.as_mut()) else {
                return (Forwarded::Kept, is_kept);
            };
            let qos = order.qos.min(granted);
            let is_away = session.link.is_none();
            if is_away && qos == 0 {
                return (if is_kept { Forwarded::Kept } else { Forwarded::Nobody }, is_kept);
            }
            let retain = order.retain && as_published;
            let queued = session.push(Arc::new(Order { qos, retain, ..Order::clone(&order) }));
            if is_lasting && qos > 0 {
                pending.queue(&client, queued, !is_away);
                is_kept = true;
            }
            if let Some(link) = &session.link {
                link.wake();
            }
            (if is_away { Forwarded::Kept } else { Forwarded::Sent }, is_kept)
        });
        let durable = must_be_durable.then(|| Self::receipt(inner));
        self.write_soon(inner);
        (forwarded, durable)
    }

    /// The next command to be sent, if no more than `in_flight_max` are in flight then.
    pub fn next(self: &Arc<Self>, client: &Arc<str>, link: &Arc<Link>, in_flight_max: u16) -> Option<Next> {
        let now_us = self.clock.now_us();
        let mut guard = self.inner();
        let inner = &mut *guard;
        loop {
            let session = inner.session(client, link)?;
            let place = session.next(usize::from(in_flight_max))?;
            let queued = &mut session.orders[place];
            let seconds_left = queued.order.seconds_left(now_us);
            let next = Next { order: Arc::clone(&queued.order), id: queued.id, dup: queued.dup, seconds_left };
            queued.is_flying = true;
            let is_stale = seconds_left == Some(0);
            if is_stale || next.id == 0 {
                Self::remove(inner, client, place);
                self.write_soon(inner);
            }
            if !is_stale {
                return Some(next);
            }
        }
    }

    /// A client has acknowledged a command, or can never be sent it.
    pub fn done(self: &Arc<Self>, client: &Arc<str>, link: &Arc<Link>, id: u16) {
        let mut guard = self.inner();
        let inner = &mut *guard;
        let Some(session) = inner.session(client, link) else { return };
        // One that is not known is of an earlier session: nothing to do.
        let Some(place) = session.orders.iter().position(|queued| queued.id == id && queued.is_flying) else { return };
        Self::remove(inner, client, place);
        self.write_soon(inner);
    }

    fn remove(inner: &mut Inner, client: &Arc<str>, place: usize) {
        inner.change(client, |agent, pending| {
            let Some(session) = agent.session.as_mut() else { return };
            if let Some(queued) = session.orders.remove(place).filter(|queued| queued.id > 0 && session.is_lasting()) {
                pending.done(client, queued.id);
            }
        });
    }

    /// Subscriptions of a client, and its commands in flight.
    pub fn counts(&self, client: &str) -> (usize, usize) {
        let inner = self.inner();
        let session = inner.agents.get(client).and_then(|agent| agent.session.as_ref());
        session.map_or((0, 0), |session| {
            (session.subscriptions.len(), session.orders.iter().filter(|queued| queued.is_flying).count())
        })
    }

    /// Sessions that are kept while nobody is connected to them, and bytes of all that is kept.
    pub fn sizes(&self) -> (usize, usize) {
        let inner = self.inner();
        let is_away = |agent: &&Agent| agent.session.as_ref().is_some_and(|session| session.link.is_none());
        (inner.agents.values().filter(is_away).count(), inner.bytes)
    }

    /// Forgets what is too old.
    pub fn sweep(self: &Arc<Self>) {
        let now_us = self.clock.now_us();
        let mut guard = self.inner();
        let inner = &mut *guard;
        let is_stale = |order: &Order| order.seconds_left(now_us) == Some(0);
        let is_old = |agent: &Agent| {
            let session = agent.session.as_ref();
            session.is_some_and(|session| session.is_expired(now_us))
                || agent.retained.iter().any(|order| is_stale(order))
        };
        let old: Vec<Arc<str>> =
            inner.agents.iter().filter(|(_, agent)| is_old(agent)).map(|(client, _)| Arc::clone(client)).collect();
        for client in old {
            inner.change(&client, |agent, pending| {
                if agent.session.take_if(|session| session.is_expired(now_us)).is_some() {
                    pending.drop_session(&client);
                }
                for order in agent.retained.extract_if(.., |order| is_stale(order)) {
                    pending.forget(&client, &order.topic);
                }
            });
        }
        self.write_soon(inner);
    }

    // ---- what is written

    fn receipt(inner: &mut Inner) -> Durable {
        let (done, receipt) = oneshot::channel();
        inner.waiting.push(done);
        Box::pin(async { receipt.await.map_err(|_| StorageError::Wal(WalError::Poisoned)) })
    }

    /// Has what is pending written, by a task of its own if none is at it.
    fn write_soon(self: &Arc<Self>, inner: &mut Inner) {
        if !inner.is_writing && !inner.pending.is_empty() {
            inner.is_writing = true;
            let sessions = Arc::clone(self);
            self.writing.spawn_blocking(move || sessions.write_pending());
        }
    }

    fn write_pending(&self) {
        let mut keeper = self.keeper.lock().expect("no holder of this lock panics");
        loop {
            let is_all = keeper.wants_all();
            let (records, waiting) = {
                let mut inner = self.inner();
                if inner.pending.is_empty() {
                    inner.is_writing = false;
                    return;
                }
                let pending = std::mem::take(&mut inner.pending);
                let records = if is_all { keeper::all(&inner.agents) } else { pending };
                (records, std::mem::take(&mut inner.waiting))
            };
            match keeper.write(records.into_inner(), is_all) {
                Ok(()) => {
                    for done in waiting {
                        // Whoever waited may be gone.
                        let _ = done.send(());
                    }
                }
                Err(e) => {
                    tracing::error!(error = %e, "MQTT sessions could not be kept; commands for them are refused for now");
                    self.inner().failed_at = Some(self.clock.monotonic());
                }
            }
        }
    }

    /// Ends the log, when no connection is left. Blocks.
    pub fn close(&self) {
        // A task that writes has the lock.
        let mut keeper = self.keeper.lock().expect("no holder of this lock panics");
        let is_all = keeper.wants_all();
        let mut inner = self.inner();
        let pending = std::mem::take(&mut inner.pending);
        if !pending.is_empty() {
            let records = if is_all { keeper::all(&inner.agents) } else { pending };
            if let Err(e) = keeper.write(records.into_inner(), is_all) {
                tracing::warn!(error = %e, "the last changes of MQTT sessions are not kept");
            }
        }
        drop(inner);
        keeper.close();
    }
}
