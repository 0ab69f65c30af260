//! The bounds of the log: what it gives back, and what is dropped when it is full.
//!
//! Owns:     which batches go when there is no room, and the gaps that say so.
//! Does not: write records: what is dropped is durable in one before it goes (invariants 2 and 4 of the outbox).

use super::record::Content;
use super::scan::Stage;
use super::{BLOCK_BYTES, BatchKey, Outbox, OutboxError, SPARE_BYTES};
use crate::gap::{Gap, GapReason};

impl Outbox {
    /// Drops what is known of boots of which nothing waits, and gives back the space of what a durable record says is
    /// forgotten; the newest durable record stays.
    pub(super) fn truncate(&mut self) {
        self.forget_boots();
        let (start, forgotten_to) = self.durable;
        if let Err(e) = self.log.truncate_behind(start.min(forgotten_to)) {
            tracing::warn!(error = %e, "space of the outbox could not be given back yet");
        }
    }

    /// Drops the oldest segments until a record of `bytes` fits. Says so, durably, before it does.
    pub(super) fn make_room(&mut self, bytes: usize) -> Result<(), OutboxError> {
        // As a frame, on a rotation with two header blocks and an end frame.
        let needed = (bytes as u64 + 84).next_multiple_of(BLOCK_BYTES) + 3 * BLOCK_BYTES + SPARE_BYTES;
        while self.log.bytes_on_disk() + needed > self.config.bytes_max {
            if self.unsaved == 0 {
                let Some(run) = self.entries.front().map(|entry| entry.run).filter(|run| *run != self.run) else {
                    break;
                };
                let (gaps, first_seq) = (self.stats.gaps, self.entries.front().map_or(0, |entry| entry.seq));
                while self.entries.front().is_some_and(|entry| entry.run == run) {
                    self.drop_first();
                }
                let dropped = self.stats.gaps - gaps;
                tracing::warn!(dropped, first_seq, "the outbox is full: its oldest batches are dropped, and reported");
            }
            self.append(Content::Cursor)?;
            self.sync_log()?;
            let (start, forgotten_to) = self.durable;
            self.log.truncate_behind(start.min(forgotten_to))?;
        }
        Ok(())
    }

    /// Drops the oldest batch, to be reported unless it was acknowledged.
    pub(super) fn drop_first(&mut self) {
        let Some(entry) = self.remove_first() else { return };
        match entry.stage {
            Stage::Forgotten => return,
            Stage::Acked => {
                self.forget_acked();
                return;
            }
            Stage::Out => self.withdrawn.push(BatchKey { epoch: entry.life.epoch, seq: entry.seq }),
            Stage::Waiting => {}
        }
        let gap = Gap {
            life: entry.life,
            first_seq: entry.seq,
            last_seq: entry.seq,
            readings: Some(u64::from(entry.readings)),
            reason: GapReason::OutboxFull,
            time_us: self.clock.now_us(),
        };
        self.lost(gap, entry.gaps);
        // It may have held up others that are acknowledged.
        self.forget_acked();
    }

    /// A batch is lost, and what it would have reported is to be reported again.
    pub(super) fn lost(&mut self, gap: Gap, carried: Vec<Gap>) {
        for carried in carried {
            self.gaps.add(carried);
        }
        self.found_gap(gap);
    }

    pub(super) fn found_gap(&mut self, gap: Gap) {
        self.stats.gaps += 1;
        self.stats.gap_readings += gap.readings.unwrap_or(0);
        self.gaps.add(gap);
    }
}
