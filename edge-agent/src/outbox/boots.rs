//! Batches whose times are by the clock since boot, and what they become once the wall clock is known.
//!
//! Owns:     which boots wait for their wall time, and the wall time that each was given.
//! Does not: know clocks (`wall`).
//!
//! Invariants
//!  1. A boot's wall time is durable before a batch of it is handed out, and never changes then: a batch has the same
//!     bytes at every attempt.
//!  2. The present boot's is kept for the next process of it, which goes on by it.
//!  3. Boots of which no time is known are counted back from the one behind them, so they keep their order.

use super::record::{Content, Times};
use super::scan::Entry;
use super::{BODY_BYTES_MAX, Encoding, Outbox, OutboxError, pack};
use crate::timepiece::BootId;
use crate::wall::{Certainty, Fix, by_wall_clock};

/// Boots that are given their time at once: each takes room in every record until its batches are sent.
const BOOTS_MAX: usize = 64;

/// A boot whose wall time is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Boot {
    pub(super) id: BootId,
    pub(super) fix: Fix,
    /// The newest record says so.
    is_appended: bool,
    /// A durable record says so.
    is_saved: bool,
}

impl Boot {
    /// As the log has it.
    pub(super) fn read(id: BootId, fix: Fix) -> Boot {
        Boot { id, fix, is_appended: true, is_saved: true }
    }
}

impl Outbox {
    /// From now on `boot` is the present one. Gives its wall time if an earlier process knew it.
    pub(crate) fn begin_boot(&mut self, boot: BootId) -> Option<Fix> {
        self.present = Some(boot);
        self.boots.iter().find(|known| known.id == boot).map(|known| known.fix)
    }

    /// Whether `fix` is what the next process of `boot` is given.
    pub(crate) fn has_fix(&self, boot: BootId, fix: Fix) -> bool {
        self.boots.iter().any(|known| known.id == boot && known.fix == fix)
    }

    /// The wall time of `boot`, which is the present one, is known: so is that of all boots before it, by counting back.
    /// Another one than before takes effect only once no batch waits that has its time by the old one.
    ///
    /// # Errors
    /// The disk's. Batches of these boots wait on; a later call tries again.
    pub(crate) fn fix_boots(&mut self, boot: BootId, fix: Fix) -> Result<(), OutboxError> {
        let mut found: Vec<(BootId, Fix)> = Vec::new();
        // What is known to be later than the boot that is looked at.
        let (mut next_us, mut current) = (fix.offset_us, None);
        // A batch of gaps alone has the time of a wall clock that may never have been set.
        let entries = self.kept().filter(|entry| entry.readings > 0).map(|entry| entry.times);
        let made = self.unsynced.iter().map(|made| &made.header).filter(|header| header.readings > 0);
        let times: Vec<Times> = entries.chain(made.map(|header| header.times)).collect();
        for times in times.iter().rev() {
            let Some(id) = times.boot else {
                next_us = times.first_us;
                current = None;
                continue;
            };
            if current == Some(id) {
                continue;
            }
            current = Some(id);
            let known = self.boots.iter().find(|known| known.id == id).map(|known| known.fix);
            let fixed = known.or((id == boot).then_some(fix)).unwrap_or_else(|| {
                // As if the board had been off for no time: nothing says how long it was.
                let offset_us = next_us.saturating_sub(1).saturating_sub(times.last_us);
                Fix { offset_us, certainty: Certainty::Estimated }
            });
            next_us = fixed.offset_us;
            if known.is_none() && !found.iter().any(|(other, _)| *other == id) {
                found.push((id, fixed));
            }
        }
        // The oldest first: they are sent first.
        let room = BOOTS_MAX.saturating_sub(self.boots.len());
        let mut found: Vec<(BootId, Fix)> = found.into_iter().rev().take(room).collect();
        match self.boots.iter_mut().find(|known| known.id == boot) {
            None if !found.iter().any(|(id, _)| *id == boot) => found.push((boot, fix)),
            // Nothing was sent by it that may be sent again.
            Some(known) if known.fix != fix && !times.iter().any(|times| times.boot == Some(boot)) => {
                *known = Boot { id: boot, fix, is_appended: false, is_saved: false };
            }
            _ => {}
        }
        for (id, fix) in found {
            tracing::info!(boot = %id, offset_us = fix.offset_us, certainty = ?fix.certainty, "a boot has its wall time");
            self.boots.push(Boot { id, fix, is_appended: false, is_saved: false });
        }
        if self.broken.is_none() && self.boots.iter().any(|boot| !boot.is_saved) {
            let saved = self.write_state(Content::Cursor);
            return self.note_failure(saved);
        }
        Ok(())
    }

    /// What of the log is not forgotten.
    fn kept(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| !entry.is_forgotten())
    }

    /// Batches that wait for the wall time of their boot.
    pub(crate) fn untimed(&self) -> u64 {
        let here = self.kept().map(|entry| entry.times);
        let made = self.unsynced.iter().skip(self.appended).map(|made| made.header.times);
        let waits = |times: &Times| times.boot.is_some() && self.saved_fix(*times).is_none();
        here.chain(made).filter(waits).count() as u64
    }

    /// The wall time of the newest reading of which it was known for certain, microseconds since 1970-01-01 UTC; 0 before
    /// the first.
    pub(crate) fn newest_us(&self) -> i64 {
        self.newest_us
    }

    /// Readings up to this wall time were kept, which was known for certain. It may be before one that was taken for
    /// certain and was wrong.
    pub(crate) fn saw_time(&mut self, wall_us: i64) {
        self.newest_us = wall_us;
    }

    /// What a durable record says of a boot's wall time; none for batches by the wall clock.
    pub(super) fn saved_fix(&self, times: Times) -> Option<Fix> {
        let id = times.boot?;
        self.boots.iter().find(|boot| boot.id == id && boot.is_saved).map(|boot| boot.fix)
    }

    pub(super) fn boots_are_appended(&mut self) {
        for boot in &mut self.boots {
            boot.is_appended = true;
        }
    }

    pub(super) fn boots_are_saved(&mut self) {
        for boot in &mut self.boots {
            boot.is_saved |= boot.is_appended;
        }
    }

    /// After the log was opened again nothing is certain but what it says from now on.
    pub(super) fn boots_are_unsaved(&mut self) {
        for boot in &mut self.boots {
            (boot.is_appended, boot.is_saved) = (false, false);
        }
    }

    pub(super) fn forget_boots(&mut self) {
        // Until somebody says which boot this is, it may be any of them.
        let Some(present) = self.present else { return };
        let mut boots = std::mem::take(&mut self.boots);
        let entries = self.kept().map(|entry| entry.times.boot);
        let made = self.unsynced.iter().map(|made| made.header.times.boot);
        let waiting: std::collections::HashSet<BootId> = entries.chain(made).flatten().collect();
        boots.retain(|boot| boot.id == present || waiting.contains(&boot.id));
        self.boots = boots;
    }
}

/// A body whose times are by the clock since boot, by the wall clock. `None` if it is none of ours.
pub(super) fn timed(encoding: Encoding, body: &[u8], fix: Fix) -> Option<(Encoding, Vec<u8>)> {
    let text = match encoding {
        Encoding::Plain => body.to_vec(),
        // Gaps come before lines, and are few.
        Encoding::Zstd => zstd::bulk::decompress(body, 2 * BODY_BYTES_MAX).ok()?,
    };
    Some(pack(by_wall_clock(std::str::from_utf8(&text).ok()?, fix)))
}
