//! How much room the disk has, and from when on it is too little to take more in (P9).
//!
//! Owns:     looking at the disk, the reserve, and the error that writers get while it is touched.
//! Does not: free room (`flusher`, `maintain`), or refuse what frees some: removals, DROP, flushes go on.
//!
//! The reserve is no file: it is what admission leaves free for all that goes on without new rows.
//!
//! Invariant: nothing is decided for good. What the disk said is asked again a moment later.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::Clock;
use wal::disk::{SharedDisk, Space};

use crate::StorageError;

/// How old an answer of the disk may be.
const LOOK_PERIOD: Duration = Duration::from_millis(250);

/// On a small disk the reserve is no larger than this part of it.
const RESERVE_SHARE: u64 = 20;

/// When it is worth trying again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub(crate) struct DiskSpace {
    disk: SharedDisk,
    clock: Arc<dyn Clock>,
    /// The data folder.
    data: PathBuf,
    reserve_bytes: u64,
    looked: Mutex<Looked>,
}

#[derive(Clone, Copy, Debug)]
struct Looked {
    /// When; `None` if the disk has said since that it is full.
    at: Option<Duration>,
    space: Space,
    is_short: bool,
}

impl DiskSpace {
    /// Of the disk under `data`, which exists.
    pub(crate) fn new(disk: SharedDisk, clock: Arc<dyn Clock>, data: &Path, reserve_bytes: u64) -> DiskSpace {
        let space = Space { free: u64::MAX, total: u64::MAX };
        let looked = Mutex::new(Looked { at: None, space, is_short: false });
        DiskSpace { disk, clock, data: data.to_owned(), reserve_bytes, looked }
    }

    /// Bytes that may still be taken.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.look().space.free
    }

    /// Whether the reserve is touched, so that nothing new is taken in.
    pub(crate) fn is_short(&self) -> bool {
        self.look().is_short
    }

    /// # Errors
    /// [`StorageError::Busy`] while the reserve is touched.
    pub(crate) fn check(&self) -> Result<(), StorageError> {
        let looked = self.look();
        if looked.is_short { Err(self.busy(looked.space)) } else { Ok(()) }
    }

    /// Whether `bytes` can be written with as much again, and the reserve, to spare.
    pub(crate) fn has_room_for(&self, bytes: u64) -> bool {
        // Rarely asked, about much: what was true a moment ago is not enough.
        self.note_full();
        let space = self.look().space;
        space.free >= self.reserve(space).saturating_add(bytes.saturating_mul(2))
    }

    /// The disk said that it is full: whoever asks next looks again.
    pub(crate) fn note_full(&self) {
        self.looked().at = None;
    }

    /// What a request is told for `error`: to come back, if the disk was full.
    pub(crate) fn busy_if_full(&self, error: StorageError) -> StorageError {
        if !error.is_disk_full() {
            return error;
        }
        tracing::warn!(%error, "the disk is full");
        self.full()
    }

    /// What a request is told for which the disk had no room.
    pub(crate) fn full(&self) -> StorageError {
        self.note_full();
        self.busy(self.look().space)
    }

    fn busy(&self, space: Space) -> StorageError {
        let reason = format!(
            "the disk of {} is full: {} of {} bytes are free, and {} are kept for flushes and removals ([storage] \
             disk_reserve); free room on it, drop tables or give them a retention: writes go on by themselves",
            self.data.display(),
            space.free,
            space.total,
            self.reserve(space)
        );
        StorageError::Busy { reason: reason.into(), retry_after: RETRY_AFTER }
    }

    fn reserve(&self, space: Space) -> u64 {
        self.reserve_bytes.min(space.total / RESERVE_SHARE)
    }

    fn looked(&self) -> MutexGuard<'_, Looked> {
        // No more than a note.
        self.looked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self) -> Looked {
        let now = self.clock.monotonic();
        let mut looked = self.looked();
        if looked.at.is_some_and(|at| now.saturating_sub(at) < LOOK_PERIOD) {
            return *looked;
        }
        // A disk that does not tell may have room: whoever writes finds out.
        if let Ok(space) = self.disk.space(&self.data) {
            looked.space = space;
        }
        looked.at = Some(now);
        let was_short = looked.is_short;
        looked.is_short = looked.space.free < self.reserve(looked.space);
        let now = *looked;
        drop(looked);
        let (path, free) = (self.data.display(), now.space.free);
        match (was_short, now.is_short) {
            (false, true) => tracing::error!(%path, free, "the disk is full but for the reserve: writes have to wait"),
            (true, false) => tracing::info!(%path, free, "the disk has room again: writes go on"),
            _ => {}
        }
        now
    }
}

#[cfg(test)]
mod tests {
    use faults::{FaultDisk, SimDisk};
    use model::SystemClock;

    use super::*;

    #[test]
    fn the_reserve_is_what_was_asked_for_or_a_twentieth_of_a_small_disk() {
        let (disk, faults) = FaultDisk::new(Arc::new(SimDisk::new()));
        let space = DiskSpace::new(Arc::new(disk), Arc::new(SystemClock::new()), Path::new("/"), 1000);
        assert!(!space.is_short() && space.has_room_for(1 << 60), "a disk without bounds");
        for (capacity, reserve) in [(100_000, 1000), (20_000, 1000), (10_000, 500)] {
            for (free, is_short) in [(reserve, false), (reserve - 1, true)] {
                faults.set_capacity(capacity);
                space.note_full();
                assert_eq!(space.reserve(Space { free, total: capacity }), reserve);
                assert_eq!(free < space.reserve(Space { free, total: capacity }), is_short);
            }
        }
        space.note_full();
        assert!(space.has_room_for((10_000 - 500) / 2) && !space.has_room_for((10_000 - 500) / 2 + 1));
        faults.set_capacity(0);
        assert!(!space.is_short(), "the answer is not old enough");
        space.note_full();
        assert!(!space.is_short(), "no disk at all has no reserve");
    }
}
