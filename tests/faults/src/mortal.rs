//! The disk as one process of several sees it, until that process dies.
//!
//! Owns:     death and sleep at a chosen operation, of one process while others go on; known bugs of nodes that share a
//!           folder.
//! Does not: lose anything: what a process has given to the disk outlives it (`sim` is for power cuts).

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use model::Rng;
use wal::disk::{DirEntry, Disk, DiskFile, DiskLock, FileInfo, Replace, SharedDisk, Space};

/// A mistake that tests of several nodes must notice, planted below the code that would make it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeBug {
    /// An object of a log takes the place of one that is there.
    LogNamesAreTaken,
    /// Whoever takes over a log does not seal it.
    NoSeal,
}

/// What becomes of the operation at which a process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// It is done; the process does not hear of it.
    Done,
    /// It never comes to the disk.
    Lost,
}

impl Last {
    /// Either.
    pub fn random(rng: &dyn Rng) -> Last {
        if rng.below(2) == 0 { Last::Done } else { Last::Lost }
    }
}

/// Wraps a disk; see [`Life`].
#[derive(Debug)]
pub struct MortalDisk {
    inner: SharedDisk,
    life: Life,
}

/// The life of the process behind a [`MortalDisk`]; clones are the same life.
#[derive(Clone, Debug)]
pub struct Life(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_dead: bool,
    operations: u64,
    dies_at: Option<(u64, Last)>,
    sleeps_at: Option<u64>,
    is_asleep: bool,
    bug: Option<NodeBug>,
    /// Files that are seals in the making.
    seals: HashSet<PathBuf>,
}

impl MortalDisk {
    /// Wraps `inner` for a process that lives.
    pub fn new(inner: SharedDisk) -> (MortalDisk, Life) {
        let life = Life(Arc::default());
        (MortalDisk { inner, life: life.clone() }, life)
    }
}

impl Life {
    /// The process dies at its `n`-th changing operation from now, counted from 1.
    pub fn die_at(&self, n: u64, last: Last) {
        let mut state = self.lock();
        state.dies_at = Some((state.operations + n, last));
    }

    /// The process dies now, also in its sleep.
    pub fn die(&self) {
        let mut state = self.lock();
        state.is_dead = true;
        state.is_asleep = false;
        self.0.changed.notify_all();
    }

    /// Whether it has not died.
    pub fn is_alive(&self) -> bool {
        !self.lock().is_dead
    }

    /// Before its `n`-th changing operation from now, counted from 1, the process falls asleep.
    pub fn sleep_before(&self, n: u64) {
        let mut state = self.lock();
        state.sleeps_at = Some(state.operations + n);
    }

    /// Waits until it sleeps, or `is_over` says that it will not; false then.
    pub fn wait_for_sleep(&self, is_over: impl Fn() -> bool) -> bool {
        let mut state = self.lock();
        while !state.is_asleep {
            if is_over() {
                return false;
            }
            let waited = self.0.changed.wait_timeout(state, std::time::Duration::from_millis(5));
            state = waited.expect("no holder of this lock panics").0;
        }
        true
    }

    /// Wakes the process up, and lets it sleep no more.
    pub fn wake(&self) {
        let mut state = self.lock();
        state.sleeps_at = None;
        state.is_asleep = false;
        self.0.changed.notify_all();
    }

    /// Plants `bug`.
    pub fn plant(&self, bug: NodeBug) {
        self.lock().bug = Some(bug);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("no holder of this lock panics")
    }

    fn read<R>(&self, call: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        if self.lock().is_dead { Err(is_dead()) } else { call() }
    }

    fn change<R>(&self, call: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        let mut state = self.lock();
        if state.is_dead {
            return Err(is_dead());
        }
        state.operations += 1;
        let number = state.operations;
        if state.sleeps_at.is_some_and(|at| number >= at) {
            state.is_asleep = true;
            self.0.changed.notify_all();
            while state.is_asleep {
                state = self.0.changed.wait(state).expect("no holder of this lock panics");
            }
            if state.is_dead {
                return Err(is_dead());
            }
        }
        let Some((_, last)) = state.dies_at.filter(|(at, _)| number >= *at) else {
            drop(state);
            return call();
        };
        state.is_dead = true;
        drop(state);
        if last == Last::Done {
            let _ = call();
        }
        Err(is_dead())
    }
}

fn is_dead() -> io::Error {
    io::Error::other("the process is dead")
}

fn is_of_log(path: &Path) -> bool {
    path.iter().any(|part| part == "wal")
}

impl Disk for MortalDisk {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let inner = self.life.change(|| self.inner.create_new(path))?;
        Ok(Box::new(MortalFile { inner, life: self.life.clone(), path: path.to_owned() }))
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let inner = self.life.read(|| self.inner.open_read(path))?;
        Ok(Box::new(MortalFile { inner, life: self.life.clone(), path: path.to_owned() }))
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let inner = self.life.read(|| self.inner.open_write(path))?;
        Ok(Box::new(MortalFile { inner, life: self.life.clone(), path: path.to_owned() }))
    }

    fn rename(&self, from: &Path, to: &Path, replace: Replace) -> io::Result<()> {
        let bug = self.life.lock().bug.filter(|_| is_of_log(to));
        if bug == Some(NodeBug::NoSeal) && self.life.lock().seals.remove(from) {
            return self.life.change(|| self.inner.remove_file(from));
        }
        let replace = if bug == Some(NodeBug::LogNamesAreTaken) { Replace::Yes } else { replace };
        self.life.change(|| self.inner.rename(from, to, replace))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.life.change(|| self.inner.remove_file(path))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.life.change(|| self.inner.remove_dir(path))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.life.change(|| self.inner.create_dir(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.life.change(|| self.inner.sync_dir(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.life.read(|| self.inner.list(path))
    }

    fn info(&self, path: &Path) -> io::Result<FileInfo> {
        self.life.read(|| self.inner.info(path))
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.life.read(|| self.inner.space(path))
    }

    fn lock(&self, path: &Path, note: &str) -> io::Result<Box<dyn DiskLock>> {
        self.life.read(|| self.inner.lock(path, note))
    }

    fn is_locked(&self, path: &Path) -> io::Result<bool> {
        self.life.read(|| self.inner.is_locked(path))
    }
}

#[derive(Debug)]
struct MortalFile {
    inner: Box<dyn DiskFile>,
    life: Life,
    path: PathBuf,
}

impl DiskFile for MortalFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.life.read(|| self.inner.read_at(buffer, offset))
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        // Layout: `docs/formats/wal.md`. The sixth byte of a frame says that it is an end frame.
        if is_of_log(&self.path) && bytes.starts_with(b"EFRM") && bytes[5] == 3 {
            self.life.lock().seals.insert(self.path.clone());
        }
        self.life.change(|| self.inner.write_all_at(bytes, offset))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.life.change(|| self.inner.set_len(len))
    }

    fn len(&self) -> io::Result<u64> {
        self.life.read(|| self.inner.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.life.change(|| self.inner.sync_data())
    }
}
