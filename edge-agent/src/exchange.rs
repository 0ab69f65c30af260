//! What the agent's two threads share: batches on their way out, and what became of them on their way back.
//!
//! Owns:     the window of batches that the outbox handed out, and the signals between outbox and uplink.
//! Does not: read or write disk or network; its lock is held for a few lines.
//!
//! Invariants
//!  1. A batch in the window leaves it with an outcome, or because the outbox had to drop it.
//!  2. A batch that the outbox has dropped is not sent any more; one that is on its way may still have an outcome.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;

use crate::agent::AgentStats;
use crate::command::{Command, WAITING_MAX};
use crate::outbox::{Batch, BatchKey};
use crate::wall::Told;

/// What a server did with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Acked,
    /// The server has set it aside for good.
    Refused,
}

#[derive(Debug, Default)]
pub(crate) struct Exchange {
    shared: Mutex<Shared>,
    changed: Condvar,
    /// The same for the uplink's asynchronous half.
    pub(crate) notify: Notify,
    /// A server told the agent to start again.
    pub(crate) restart: Notify,
}

#[derive(Debug, Default)]
pub(crate) struct Shared {
    window: VecDeque<Slot>,
    outcomes: Vec<(BatchKey, Outcome)>,
    /// Bytes of the batches in `outcomes`.
    untold_bytes: u64,
    /// By when, on the monotonic clock, the uplink must have ended.
    pub(crate) stop_at: Option<Duration>,
    /// Whether all that the outbox has was handed out and nothing more will come.
    pub(crate) is_last: bool,
    pub(crate) uplink_ended: bool,
    pub(crate) stats: AgentStats,
    /// What a server said last about the time.
    pub(crate) told: Option<Told>,
    /// What a server told to do, not done yet.
    commands: Vec<Command>,
    /// Lines of the log that a server asked for, as line protocol.
    pub(crate) log_lines: Option<String>,
    /// Something changed that the outbox's thread has not seen.
    news: bool,
}

#[derive(Debug)]
struct Slot {
    batch: Arc<Batch>,
    is_sent: bool,
    sent_before: bool,
    /// The outbox has dropped it while it was on its way.
    is_withdrawn: bool,
}

impl Exchange {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().expect("no holder of this lock panics")
    }

    /// There is news for the outbox's thread.
    pub(crate) fn ring(&self) {
        self.lock().news = true;
        self.changed.notify_all();
    }

    /// A server told the agent to do something; false if too much waits already.
    pub(crate) fn command(&self, command: Command) -> bool {
        let mut shared = self.lock();
        if shared.commands.len() >= WAITING_MAX {
            return false;
        }
        shared.commands.push(command);
        drop(shared);
        self.ring();
        true
    }

    /// What is to be done.
    pub(crate) fn take_commands(&self) -> Vec<Command> {
        std::mem::take(&mut self.lock().commands)
    }

    fn tell(&self) {
        self.changed.notify_all();
        self.notify.notify_one();
    }

    /// The outbox hands a batch out.
    pub(crate) fn offer(&self, batch: Batch) {
        let slot = Slot { batch: Arc::new(batch), is_sent: false, sent_before: false, is_withdrawn: false };
        self.lock().window.push_back(slot);
        self.tell();
    }

    /// Batches in the window, those included that the outbox has dropped and that are on their way.
    pub(crate) fn len(&self) -> usize {
        self.lock().window.len()
    }

    /// A connection to the server at `url` came about.
    pub(crate) fn connected(&self, url: &str) {
        let mut shared = self.lock();
        shared.stats.connected = Some(url.to_owned());
        shared.stats.connections += 1;
        drop(shared);
        self.ring();
    }

    /// The outbox has dropped batches: what is not on its way is not sent any more.
    pub(crate) fn withdraw(&self, keys: &[BatchKey]) {
        let mut shared = self.lock();
        for slot in shared.window.iter_mut().filter(|slot| keys.contains(&slot.batch.key())) {
            slot.is_withdrawn = true;
        }
        shared.window.retain(|slot| slot.is_sent || !slot.is_withdrawn);
    }

    /// The outbox's thread waits until there is news for it, at most for `period`; gives what came back.
    pub(crate) fn wait_for_outcomes(&self, period: Duration) -> Vec<(BatchKey, Outcome)> {
        let shared = self.lock();
        let waited = self.changed.wait_timeout_while(shared, period, |shared| !shared.news);
        let (mut shared, _) = waited.expect("no holder of this lock panics");
        shared.news = false;
        shared.untold_bytes = 0;
        std::mem::take(&mut shared.outcomes)
    }

    /// The uplink's thread waits until there is something to do for it, at most for `period`.
    pub(crate) fn wait_for_batches(&self, period: Duration) {
        let shared = self.lock();
        let is_idle = |shared: &mut Shared| !shared.has_waiting() && shared.stop_at.is_none();
        drop(self.changed.wait_timeout_while(shared, period, is_idle).expect("no holder of this lock panics"));
    }

    /// While it stops, the uplink's thread waits until there is a batch, all is done, or the grace may be over.
    pub(crate) fn wait_for_last(&self) {
        let shared = self.lock();
        let waits = |shared: &mut Shared| !shared.has_waiting() && !shared.is_drained();
        let most = Duration::from_millis(50);
        drop(self.changed.wait_timeout_while(shared, most, waits).expect("no holder of this lock panics"));
    }

    /// The uplink's thread waits for `period`, or until it is told to stop.
    pub(crate) fn wait_for_stop(&self, period: Duration) {
        let shared = self.lock();
        let goes_on = |shared: &mut Shared| shared.stop_at.is_none();
        drop(self.changed.wait_timeout_while(shared, period, goes_on).expect("no holder of this lock panics"));
    }

    /// The next batch that is not on its way, one that is fresh before the backlog; it is on its way from now on.
    pub(crate) fn take(&self) -> Option<Arc<Batch>> {
        let mut shared = self.lock();
        let waits = |fresh: bool| move |slot: &Slot| !slot.is_sent && (slot.batch.is_fresh || !fresh);
        let next =
            shared.window.iter().position(waits(true)).or_else(|| shared.window.iter().position(waits(false)))?;
        let slot = &mut shared.window[next];
        slot.is_sent = true;
        let is_again = std::mem::replace(&mut slot.sent_before, true);
        let batch = Arc::clone(&slot.batch);
        shared.stats.sent += 1;
        shared.stats.resent += u64::from(is_again);
        Some(batch)
    }

    /// A batch has its outcome.
    pub(crate) fn done(&self, key: BatchKey, outcome: Outcome, took: Duration) {
        let mut shared = self.lock();
        let Some(at) = shared.window.iter().position(|slot| slot.batch.key() == key) else { return };
        let bytes = shared.window.remove(at).map_or(0, |slot| slot.batch.body.len() as u64);
        shared.untold_bytes += bytes;
        shared.stats.backlog_batches = shared.stats.backlog_batches.saturating_sub(1);
        shared.stats.backlog_bytes = shared.stats.backlog_bytes.saturating_sub(bytes);
        shared.outcomes.push((key, outcome));
        match outcome {
            Outcome::Acked => shared.stats.acked += 1,
            Outcome::Refused => shared.stats.refused += 1,
        }
        shared.stats.slowest_ack = shared.stats.slowest_ack.max(took);
        shared.news = true;
        drop(shared);
        self.tell();
    }

    /// A batch is to be sent again.
    pub(crate) fn put_back(&self, key: BatchKey) {
        let mut shared = self.lock();
        for slot in shared.window.iter_mut().filter(|slot| slot.batch.key() == key) {
            slot.is_sent = false;
        }
        shared.window.retain(|slot| slot.is_sent || !slot.is_withdrawn);
    }

    /// A connection ended: what had no outcome counts as not sent.
    pub(crate) fn put_all_back(&self) {
        let mut shared = self.lock();
        shared.window.retain(|slot| !slot.is_withdrawn);
        for slot in &mut shared.window {
            slot.is_sent = false;
        }
    }

    /// Tells the uplink to end by `stop_at`.
    pub(crate) fn stop(&self, stop_at: Duration) {
        let mut shared = self.lock();
        shared.stop_at = Some(stop_at);
        shared.news = true;
        drop(shared);
        self.tell();
    }

    /// Nothing more will be handed out.
    pub(crate) fn set_last(&self) {
        self.lock().is_last = true;
        self.tell();
    }

    /// The uplink has ended.
    pub(crate) fn end_uplink(&self) {
        let mut shared = self.lock();
        shared.uplink_ended = true;
        shared.news = true;
        shared.stats.connected = None;
        drop(shared);
        self.tell();
    }
}

impl Shared {
    pub(crate) fn has_waiting(&self) -> bool {
        self.window.iter().any(|slot| !slot.is_sent)
    }

    /// Takes over the outbox's figures of what waits, of which it does not know yet what has an outcome.
    pub(crate) fn set_backlog(&mut self, batches: u64, bytes: u64) {
        self.stats.backlog_batches = batches.saturating_sub(self.outcomes.len() as u64);
        self.stats.backlog_bytes = bytes.saturating_sub(self.untold_bytes);
    }

    /// Whether all has been sent and has its outcome.
    pub(crate) fn is_drained(&self) -> bool {
        self.is_last && self.window.is_empty()
    }
}
