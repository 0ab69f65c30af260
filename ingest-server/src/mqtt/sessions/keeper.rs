//! The log that sessions are kept in: `DATA/mqtt`.
//!
//! Owns:     the log, when all that is known is written anew so that what came before can go, and reading it back.
//! Does not: know what a session does (`sessions`), or when something must be durable.
//!
//! Invariants
//!  1. What [`Keeper::write`] was given is durable when it has returned `Ok` (P1).
//!  2. The first thing that is written after a start or a failure is all that is known: nothing is concluded from what
//!     was written before a failure (P2).
//!  3. The ring never drops anything by itself: it is rewritten long before it is full.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use model::{NodeEpoch, NodeId};
use storage::StorageError;
use wal::disk::SharedDisk;
use wal::{RingConfig, RingLog, WalError};

use super::record::{self, Change, Records, Stored, Unreadable};
use super::session::{Agent, Session};

/// Bytes of a segment: the largest session must fit.
const SEGMENT_BYTES: u64 = 2 << 20;
/// Bytes of the log, beside what is known, from which on it is rewritten.
const GARBAGE_BYTES_MAX: u64 = 4 << 20;

/// See the module.
#[derive(Debug)]
pub(super) struct Keeper {
    disk: SharedDisk,
    config: RingConfig,
    log: Option<RingLog>,
    /// Bytes of the log when it was last rewritten.
    rewritten_bytes: u64,
    must_rewrite: bool,
}

impl Keeper {
    /// Of a log in `dir` of no more than about `bytes_max` of what is known. What it holds is read, if there is one.
    ///
    /// # Errors
    /// If it cannot be read, or a later version has written it. Damage is told in the log.
    pub(super) fn open(
        disk: SharedDisk,
        dir: PathBuf,
        node: NodeId,
        epoch: NodeEpoch,
        bytes_max: usize,
    ) -> Result<(Keeper, HashMap<Arc<str>, Agent>), StorageError> {
        let ring_bytes = 4 * (bytes_max as u64 + GARBAGE_BYTES_MAX) + 4 * SEGMENT_BYTES;
        let config =
            RingConfig { segment_size_bytes: SEGMENT_BYTES, ..RingConfig::outbox(dir, node, epoch, ring_bytes) };
        let mut keeper = Keeper { disk, config, log: None, rewritten_bytes: 0, must_rewrite: true };
        let agents = match keeper.disk.info(&keeper.config.dir) {
            Ok(_) => keeper.read()?,
            // Nothing was ever kept: that must not make a log.
            Err(e) if e.kind() == io::ErrorKind::NotFound => HashMap::new(),
            Err(source) => {
                return Err(StorageError::Io { action: "look at", path: keeper.config.dir.clone(), source });
            }
        };
        Ok((keeper, agents))
    }

    fn read(&mut self) -> Result<HashMap<Arc<str>, Agent>, StorageError> {
        let (log, recovery) = RingLog::open(Arc::clone(&self.disk), self.config.clone())?;
        for loss in recovery.losses {
            tracing::error!(%loss, "the log of MQTT sessions has lost something: commands may be missing");
        }
        let (mut known, mut staged) = (HashMap::new(), None);
        for frame in log.reader(0) {
            for bytes in frame?.records() {
                match record::decode(bytes) {
                    Ok(changes) => changes.into_iter().for_each(|change| restore(&mut known, &mut staged, change)),
                    Err(Unreadable::Newer(version)) => {
                        let found = format!("a record of version {version}");
                        return Err(StorageError::NewerFormat { path: self.config.dir.clone(), found });
                    }
                    Err(Unreadable::Malformed) => {
                        let dir = self.config.dir.display();
                        tracing::error!(%dir, "a record of MQTT sessions is malformed: commands may be missing");
                    }
                }
            }
        }
        self.log = Some(log);
        Ok(known)
    }

    /// Whether the next thing to write is all that is known, not what has changed.
    pub(super) fn wants_all(&self) -> bool {
        let grown = |log: &RingLog| log.bytes_on_disk().saturating_sub(self.rewritten_bytes);
        self.must_rewrite || self.log.as_ref().is_none_or(|log| grown(log) > GARBAGE_BYTES_MAX + self.rewritten_bytes)
    }

    /// Writes `records`, durably; `is_all` if they are all that is known.
    ///
    /// # Errors
    /// If they could not be made durable. [`Keeper::wants_all`] then.
    pub(super) fn write(&mut self, records: Vec<Vec<u8>>, is_all: bool) -> Result<(), WalError> {
        let result = self.try_write(records, is_all);
        self.must_rewrite = result.is_err() || self.must_rewrite && !is_all;
        if result.is_err() {
            // It is opened again, and looked at, before anything else is written.
            self.log = None;
        }
        result
    }

    fn try_write(&mut self, records: Vec<Vec<u8>>, is_all: bool) -> Result<(), WalError> {
        let log = match &mut self.log {
            Some(log) => log,
            None => self.log.insert(RingLog::open(Arc::clone(&self.disk), self.config.clone())?.0),
        };
        let before = log.appended();
        for record in records {
            if let Some(dropped) = log.append(&record)?.dropped {
                tracing::error!(records = dropped.records, "the log of MQTT sessions was full: this is a bug");
            }
        }
        log.sync()?;
        if is_all {
            log.truncate_behind(before)?;
            self.rewritten_bytes = log.bytes_on_disk();
        }
        Ok(())
    }

    /// Ends the log cleanly.
    pub(super) fn close(&mut self) {
        if let Some(Err(e)) = self.log.take().map(RingLog::close) {
            tracing::warn!(error = %e, "the log of MQTT sessions has no clean end");
        }
    }
}

type Agents = HashMap<Arc<str>, Agent>;

/// Applies a change that was read to what is known, or to what is about to take its place.
fn restore(known: &mut Agents, staged: &mut Option<Agents>, change: Change) {
    match change {
        Change::Begin => *staged = Some(HashMap::new()),
        Change::End => {
            if let Some(staged) = staged.take() {
                *known = staged;
            }
        }
        change => apply(staged.as_mut().unwrap_or(known), change),
    }
}

fn apply(agents: &mut Agents, change: Change) {
    let (client, empty) = match change {
        Change::Begin | Change::End => return,
        Change::Put { client, session } => {
            let Stored { expiry, away_since_us, subscriptions, orders } = session;
            let away_since_us = away_since_us.unwrap_or(i64::MAX);
            let mut session = Session { expiry, away_since_us, subscriptions, ..Session::default() };
            orders.into_iter().for_each(|queued| session.restore(queued));
            agents.entry(client).or_default().session = Some(session);
            return;
        }
        Change::Queue { client, queued } => {
            if let Some(session) = session_of(agents, &client) {
                session.restore(queued);
            }
            return;
        }
        Change::Done { client, id } => {
            if let Some(session) = session_of(agents, &client) {
                session.orders.retain(|queued| queued.id != id);
            }
            return;
        }
        Change::Away { client, since_us, expiry } => {
            if let Some(session) = session_of(agents, &client) {
                (session.away_since_us, session.expiry) = (since_us, expiry);
            }
            return;
        }
        Change::Retain { client, order } => {
            agents.entry(client).or_default().retain(&Arc::new(order));
            return;
        }
        Change::Drop { client } => {
            let Some(agent) = agents.get_mut(&client) else { return };
            agent.session = None;
            let empty = agent.is_empty();
            (client, empty)
        }
        Change::Forget { client, topic } => {
            let Some(agent) = agents.get_mut(&client) else { return };
            agent.retained.retain(|order| order.topic != topic);
            let empty = agent.is_empty();
            (client, empty)
        }
    };
    if empty {
        agents.remove(&client);
    }
}

fn session_of<'a>(agents: &'a mut Agents, client: &str) -> Option<&'a mut Session> {
    agents.get_mut(client)?.session.as_mut()
}

/// All of `agents` that is kept.
pub(super) fn all(agents: &Agents) -> Records {
    let mut records = Records::default();
    records.begin();
    for (client, agent) in agents {
        if let Some(session) = agent.session.as_ref().filter(|session| session.is_lasting()) {
            records.put(client, session);
        }
        for order in &agent.retained {
            records.retain(client, order);
        }
    }
    records.end();
    records
}
