//! The listener of PostgreSQL's protocol: SQL for the clients that speak it.
//!
//! Owns:     accepting and ending connections, and which statement a cancel request means.
//! Does not: run SQL (`query` does), or know what a connection says (`connection`).
//!
//! A connection is one task: `startup` greets the client, `connection` serves it. Reading is ours (`read`), because the
//! library's panics on what is cut short; writing is `pgwire`'s and, for values, `arrow-pg`'s and `encode`'s. Users:
//! `docs/postgres.md`. Decisions: `docs/adr/0027-postgresql-wire.md`.

pub mod command;
mod connection;
mod copy_in;
mod copy_out;
pub mod decode;
pub mod encode;
pub mod error;
mod extended;
pub mod read;
mod running;
pub mod settings;
mod simple;
mod socket;
mod startup;
pub mod types;

use std::collections::HashMap;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::app::App;

/// Pause after the system refused a connection (out of file descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bytes of a secret, as version 3.0 of the protocol has them.
const SECRET_BYTES: usize = 4;

/// Shared by all connections.
struct Postgres {
    app: Arc<App>,
    stop: CancellationToken,
    sessions: Mutex<HashMap<i32, Arc<Slot>>>,
    processes: AtomicI32,
}

/// What a cancel request finds of a session.
struct Slot {
    process: i32,
    secret: [u8; SECRET_BYTES],
    /// Of the statement that runs, if one does.
    running: Mutex<Option<CancellationToken>>,
}

impl Slot {
    fn running(&self) -> MutexGuard<'_, Option<CancellationToken>> {
        self.running.lock().expect("no holder of this lock panics")
    }

    /// Begins a statement, which ends when the guard is dropped.
    fn begin(&self) -> Begun<'_> {
        let cancel = CancellationToken::new();
        *self.running() = Some(cancel.clone());
        Begun { slot: self, cancel }
    }
}

/// A statement that can be cancelled.
struct Begun<'a> {
    slot: &'a Slot,
    cancel: CancellationToken,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        *self.slot.running() = None;
    }
}

impl Postgres {
    fn sessions(&self) -> MutexGuard<'_, HashMap<i32, Arc<Slot>>> {
        self.sessions.lock().expect("no holder of this lock panics")
    }

    /// Gives a session its number and its secret.
    fn enter(&self) -> Arc<Slot> {
        let mut secret = [0; SECRET_BYTES];
        secret.copy_from_slice(&Uuid::new_v4().as_bytes()[..SECRET_BYTES]);
        let mut sessions = self.sessions();
        loop {
            let process = self.processes.fetch_add(1, Ordering::Relaxed).wrapping_add(1) & i32::MAX;
            if process != 0 && !sessions.contains_key(&process) {
                let slot = Arc::new(Slot { process, secret, running: Mutex::default() });
                sessions.insert(process, Arc::clone(&slot));
                return slot;
            }
        }
    }

    fn leave(&self, slot: &Slot) {
        self.sessions().remove(&slot.process);
    }

    /// Cancels what a session runs, if the secret is its own.
    fn cancel(&self, process: i32, secret: &[u8]) {
        let slot = self.sessions().get(&process).cloned();
        if let Some(slot) = slot.filter(|slot| slot.secret == secret)
            && let Some(running) = &*slot.running()
        {
            running.cancel();
        }
    }
}

/// Accepts connections until `stop`, then tells each to end. Returns when it no longer accepts; the connections are in
/// `tracker`.
pub async fn accept(listener: TcpListener, app: Arc<App>, tracker: TaskTracker, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(app.config.postgres.connections_max.max(1) as usize));
    let postgres =
        Arc::new(Postgres { app, stop: stop.clone(), sessions: Mutex::default(), processes: AtomicI32::new(0) });
    loop {
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place.expect("the semaphore is never closed"),
            () = stop.cancelled() => return,
        };
        let accepting = tokio::select! {
            accepting = listener.accept() => accepting,
            () = stop.cancelled() => return,
        };
        match accepting {
            Ok((stream, peer)) => {
                let postgres = Arc::clone(&postgres);
                tracker.spawn(async move {
                    startup::serve(postgres, stream, peer).await;
                    drop(place);
                });
            }
            Err(e) => {
                tracing::warn!(error = %e, "accept a PostgreSQL connection");
                // A timer that is a feature: asking at once would only spin.
                let _ = tokio::time::timeout(ACCEPT_PAUSE, stop.cancelled()).await;
            }
        }
    }
}
