//! Makes the next segment before it is needed.
//!
//! Owns:     the helper thread and the one segment it holds ready.
//! Does not: write frames.
//!
//! Invariants
//!  1. At most one segment is ready or in the making.
//!  2. A failed attempt is followed by the next one only when a segment is needed, so a full disk does not spin.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

use crate::disk::SharedDisk;
use crate::error::{Context, WalError};
use crate::segment::{self, Fresh, SegmentHeader, file_name};

/// Handle of the helper; dropping it waits for the thread.
#[derive(Debug)]
pub(crate) struct Preparer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    slot: Mutex<Slot>,
    changed: Condvar,
}

#[derive(Debug)]
enum Slot {
    Wanted,
    Ready(Fresh),
    Failed(WalError),
    Stopped,
}

impl Preparer {
    /// Starts making segments as `first` describes, with ids from its own on.
    pub(crate) fn spawn(disk: SharedDisk, dir: PathBuf, first: SegmentHeader) -> Result<Preparer, WalError> {
        let shared = Arc::new(Shared { slot: Mutex::new(Slot::Wanted), changed: Condvar::new() });
        let helper = Helper { shared: Arc::clone(&shared), disk, dir, header: first };
        let thread = thread::Builder::new().name("wal-prepare".to_owned()).spawn(move || helper.run());
        Ok(Preparer { shared, thread: Some(thread.context("start thread", "wal-prepare")?) })
    }

    /// The next segment; waits if the helper is late.
    ///
    /// # Errors
    /// Why it could not be made just now. Nothing is lost: the next call tries again.
    pub(crate) fn take(&self) -> Result<Fresh, WalError> {
        let mut slot = self.shared.lock();
        if matches!(*slot, Slot::Failed(_)) {
            // What failed a while ago may succeed now.
            *slot = Slot::Wanted;
            self.shared.changed.notify_all();
        }
        loop {
            match std::mem::replace(&mut *slot, Slot::Wanted) {
                Slot::Wanted => slot = self.shared.changed.wait(slot).expect("no holder of this lock panics"),
                Slot::Ready(fresh) => {
                    self.shared.changed.notify_all();
                    return Ok(fresh);
                }
                Slot::Failed(e) => {
                    // Stays failed until the next call.
                    *slot = Slot::Failed(WalError::Closed);
                    return Err(e);
                }
                Slot::Stopped => {
                    *slot = Slot::Stopped;
                    return Err(WalError::Closed);
                }
            }
        }
    }

    /// Stops the helper and gives back the segment that was ready.
    pub(crate) fn stop(&mut self) -> Option<Fresh> {
        let slot = std::mem::replace(&mut *self.shared.lock(), Slot::Stopped);
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed; it had nothing that anyone waits for.
            let _ = thread.join();
        }
        match slot {
            Slot::Ready(fresh) => Some(fresh),
            Slot::Wanted | Slot::Failed(_) | Slot::Stopped => None,
        }
    }
}

impl Drop for Preparer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().expect("no holder of this lock panics")
    }
}

struct Helper {
    shared: Arc<Shared>,
    disk: SharedDisk,
    dir: PathBuf,
    header: SegmentHeader,
}

impl Helper {
    fn run(mut self) {
        loop {
            let mut slot = self.shared.lock();
            loop {
                match *slot {
                    Slot::Wanted => break,
                    Slot::Stopped => return,
                    Slot::Ready(_) | Slot::Failed(_) => {
                        slot = self.shared.changed.wait(slot).expect("no holder of this lock panics");
                    }
                }
            }
            drop(slot);
            let made = segment::create(&*self.disk, &self.dir, self.header, None);
            // A failed attempt may have left the name behind: each attempt takes the next.
            self.header.segment += 1;
            let mut slot = self.shared.lock();
            if matches!(*slot, Slot::Stopped) {
                drop(slot);
                if let Ok(fresh) = made {
                    // Best effort: the next start removes it too.
                    let _ = self.disk.remove_file(&self.dir.join(file_name(fresh.header.segment)));
                }
                return;
            }
            *slot = made.map_or_else(Slot::Failed, Slot::Ready);
            drop(slot);
            self.shared.changed.notify_all();
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // Also when unwinding: whoever waits for a segment must not wait for ever.
        *self.shared.lock() = Slot::Stopped;
        self.shared.changed.notify_all();
    }
}
