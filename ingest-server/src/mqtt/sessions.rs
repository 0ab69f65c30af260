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

mod commands;
mod keeper;
mod record;
mod session;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use decode::sparkplug::{HostState, state_topic};
use model::{Clock, NodeEpoch, NodeId};
use storage::StorageError;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;
use wal::WalError;
use wal::disk::SharedDisk;

use super::ingest::Durable;
use super::links::Link;
use keeper::Keeper;
use record::Records;
use session::{Agent, Session};

pub use session::Order;

/// The folder in the data folder.
const FOLDER: &str = "mqtt";

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
    /// What this server says of itself as a host of Sparkplug, to whoever subscribes to it.
    host_state: OnceLock<Arc<Order>>,
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
            host_state: OnceLock::new(),
            inner: Mutex::new(Inner { agents, bytes, ..Inner::default() }),
            keeper: Mutex::new(keeper),
            writing: TaskTracker::new(),
        });
        Ok(sessions)
    }

    /// From now on this server is the host `id` of Sparkplug, online since now. When it stops, its connections do.
    pub fn be_host(&self, id: &str) {
        let state = HostState { online: true, timestamp: self.clock.now_us() / 1_000 };
        let order = Order {
            topic: state_topic(id).into(),
            properties: Box::default(),
            expires: None,
            payload: state.payload().into(),
            qos: 1,
            retain: true,
        };
        // A second id is a bug; the first one stays.
        let _ = self.host_state.set(Arc::new(order));
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
            if is_present {
                // It is of this life of the server, and news to whoever was subscribed in an earlier one.
                self.push_state(&mut session);
            }
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

    /// Puts the state of the host behind what waits, if the session takes it.
    fn push_state(&self, session: &mut Session) {
        let Some(state) = self.host_state.get() else { return };
        if let Some((qos, _)) = session.takes(&state.topic, false)
            && session.has_room(state, 2)
        {
            session.orders.retain(|queued| queued.order.topic != state.topic);
            session.push(Arc::new(Order { qos: qos.min(1), ..Order::clone(state) }));
        }
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
