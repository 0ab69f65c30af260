//! What the outbox does while its disk fails, and once it works again.
//!
//! Owns:     when the log is opened again, what is kept in memory until then, and making memory and log one again.
//! Does not: hide a failure: its first one is logged, and what memory cannot keep becomes a gap.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use wal::Recovery;

use super::record::{Content, Header};
use super::scan::{Entry, Scan, Stage, open_log, scan};
use super::{MEMORY_BYTES_MAX, Made, Outbox, OutboxError};
use crate::causes::with_causes;
use crate::gap::{Gap, GapReason, Life};

const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// A disk that failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Broken {
    pub(super) retry_at: Duration,
    wait: Duration,
}

impl Outbox {
    /// While the disk fails: drops the oldest of what is in memory only, when it is too much.
    pub(super) fn bound_memory(&mut self) {
        while self.unsynced_bytes > MEMORY_BYTES_MAX && self.appended < self.unsynced.len() {
            let Some(made) = self.unsynced.remove(self.appended) else { break };
            self.lose_made(made);
        }
    }

    pub(super) fn lose_made(&mut self, made: Made) {
        self.unsynced_bytes -= made.body.len();
        self.backlog_bytes -= made.body.len() as u64;
        let Header { life, seq, readings, gaps, .. } = made.header;
        let gap = Gap {
            life,
            first_seq: seq,
            last_seq: seq,
            readings: Some(u64::from(readings)),
            reason: GapReason::OutboxFull,
            time_us: self.clock.now_us(),
        };
        self.lost(gap, gaps);
    }

    /// Passes `result` on; after a failure the log is opened again, later and later.
    pub(super) fn note_failure<T>(&mut self, result: Result<T, OutboxError>) -> Result<T, OutboxError> {
        if let Err(e) = &result {
            let wait = self.broken.map_or(RETRY_MIN, |broken| (broken.wait * 2).min(RETRY_MAX));
            if self.broken.is_none() {
                tracing::error!(error = %with_causes(e), "the outbox's disk fails; readings wait in memory");
                self.forget_appended();
            }
            self.broken = Some(Broken { retry_at: self.clock.monotonic() + wait, wait });
        }
        result
    }

    /// After a failure, what was appended and not synced is nowhere for certain: it counts as in memory only.
    fn forget_appended(&mut self) {
        let durable = self.log.durable();
        self.entries.retain(|entry| entry.end <= durable);
        // Rotation syncs too: what lies in the segment before is durable.
        let in_log = self.unsynced.iter().take(self.appended).take_while(|made| {
            let is_made = |entry: &&Entry| entry.life == made.header.life && entry.seq == made.header.seq;
            self.entries.iter().rev().find(is_made).is_some()
        });
        let count = in_log.count();
        for made in self.unsynced.drain(..count) {
            self.unsynced_bytes -= made.body.len();
        }
        self.appended = 0;
    }

    /// Opens the log again after a failure, and makes out what of it was kept.
    pub(super) fn reopen(&mut self) -> Result<(), OutboxError> {
        let (log, recovery, life) = open_log(&self.disk, &self.config, self.identity.life + 1)?;
        self.identity.life = life;
        self.identity.write(&*self.disk, &self.config.dir)?;
        let scan = scan(&log)?;
        self.reader = None;
        self.log = log;
        self.run = scan.run.max(self.run) + 1;
        self.last_end = self.log.durable();
        self.newest = (0, 0);
        self.durable = (0, 0);
        self.boots_are_unsaved();
        self.stats.reopened += 1;
        self.rejoin(scan, &recovery);
        self.write_state(Content::Cursor)?;
        self.broken = None;
        tracing::info!("the outbox's disk works again");
        Ok(())
    }

    /// Makes what the log holds and what memory knows one again.
    fn rejoin(&mut self, scan: Scan, recovery: &Recovery) {
        let known = std::mem::take(&mut self.entries);
        let mut found: HashMap<(Life, u64), Entry> =
            scan.entries.into_iter().map(|entry| ((entry.life.clone(), entry.seq), entry)).collect();
        let mut entries = Vec::new();
        for old in known {
            match found.remove(&(old.life.clone(), old.seq)) {
                Some(entry) => {
                    entries.push(Entry { stage: old.stage, ..entry });
                }
                None if old.is_forgotten() => {}
                None if old.stage == Stage::Acked => self.backlog_bytes -= u64::from(old.body_bytes),
                None => {
                    tracing::error!(seq = old.seq, losses = ?recovery.losses, "a batch in the outbox is damaged");
                    self.backlog_bytes -= u64::from(old.body_bytes);
                    let gap = Gap {
                        life: old.life,
                        first_seq: old.seq,
                        last_seq: old.seq,
                        readings: Some(u64::from(old.readings)),
                        reason: GapReason::Damaged,
                        time_us: self.clock.now_us(),
                    };
                    self.lost(gap, old.gaps);
                }
            }
        }
        // Appended, and not known to be durable until now.
        self.unsynced.retain(|made| {
            let Some(entry) = found.remove(&(made.header.life.clone(), made.header.seq)) else { return true };
            entries.push(entry);
            self.unsynced_bytes -= made.body.len();
            false
        });
        entries.sort_by_key(|entry| entry.start);
        self.entries = entries.into();
        self.settled = self.entries.iter().filter(|entry| entry.stage.is_settled()).count();
        let out: HashSet<u64> = self
            .entries
            .iter()
            .filter(|entry| matches!(entry.stage, Stage::Out | Stage::Acked))
            .map(|e| e.start)
            .collect();
        self.out.retain(|start| out.contains(start));
        let waiting: HashSet<u64> =
            self.entries.iter().filter(|entry| entry.stage == Stage::Waiting).map(|entry| entry.start).collect();
        self.again.retain(|start| waiting.contains(start));
        self.order.reset(self.last_end);
        self.forget_acked();
    }
}
