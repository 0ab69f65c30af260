//! Any disk, made to fail, fill up, hang or lie when a test says so.
//!
//! Owns:     the switches, shared with the test through [`Faults`].
//! Does not: change anything while no switch is on.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use wal::disk::{DirEntry, Disk, DiskFile, FileInfo, Replace, SharedDisk, Space, read_exact_at};

use crate::sim::EIO;

/// `ENOSPC` of Linux.
const ENOSPC: i32 = 28;

/// What can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// [`Disk::create_new`].
    Create,
    /// [`DiskFile::write_all_at`].
    Write,
    /// [`DiskFile::sync_data`].
    Sync,
    /// [`Disk::rename`], by the new name.
    Rename,
    /// [`Disk::remove_file`].
    Remove,
    /// [`Disk::sync_dir`].
    SyncDir,
    /// [`DiskFile::read_at`].
    Read,
}

/// A mistake that tests must notice, planted below the code that would make it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlantedBug {
    /// Records are acknowledged before they are synced: a sync of a `*.wal` file returns without syncing.
    AckBeforeSync,
    /// The checksum of frames is not looked at: reads of `*.wal` files give each frame the checksum its bytes have.
    SkipCrc,
    /// New names are not synced: [`Disk::sync_dir`] returns without syncing.
    ForgetDirectorySync,
    /// Delta commits are not synced: a sync of a file under a `_delta_log` returns without syncing.
    SkipCommitSync,
    /// The log is truncated before the commit: at the first write to a `.parquet` file all `*.wal` files but the
    /// newest two of each folder go, durably.
    TruncateBeforeCommit,
}

/// Wraps a disk; see [`Faults`].
#[derive(Debug)]
pub struct FaultDisk {
    inner: SharedDisk,
    faults: Faults,
}

/// The switches of a [`FaultDisk`]; clones share them.
#[derive(Clone, Debug)]
pub struct Faults(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    rules: Vec<Rule>,
    hold: Hold,
    holds: Option<Predicate>,
    /// Syncs that wait to be released.
    held: u64,
    /// Bytes that can still be written; `None` without a limit.
    space: Option<u64>,
    /// Bytes of files that there is room for; `None` without a limit.
    capacity: Option<u64>,
    /// Bytes of files that were made through this disk.
    used: u64,
    /// Bytes of the room that are taken by somebody else.
    occupied: u64,
    bug: Option<PlantedBug>,
    syncs: u64,
    wal_dirs: BTreeSet<PathBuf>,
    truncated: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Hold {
    #[default]
    No,
    Yes,
    /// Syncs that waited fail, later ones do not.
    Fail,
}

struct Predicate(Box<dyn Fn(&Path) -> bool + Send>);

impl fmt::Debug for Predicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Predicate")
    }
}

#[derive(Debug)]
struct Rule {
    operation: Operation,
    applies: Predicate,
    /// Calls that still succeed; `None` when the rule is used up.
    skip: Option<u64>,
}

impl State {
    /// Bytes that files may still grow by.
    fn room(&self) -> Option<u64> {
        Some(self.capacity?.saturating_sub(self.used).saturating_sub(self.occupied))
    }
}

impl FaultDisk {
    /// Wraps `inner`, all switches off.
    pub fn new(inner: SharedDisk) -> (FaultDisk, Faults) {
        let shared = Shared { state: Mutex::default(), changed: Condvar::new() };
        let faults = Faults(Arc::new(shared));
        (FaultDisk { inner, faults: faults.clone() }, faults)
    }
}

impl Faults {
    /// Fails the `n`-th sync of a file from now, counted from 1, with `EIO`, without syncing.
    pub fn fail_sync(&self, n: u64) {
        self.fail(Operation::Sync, n, |_| true);
    }

    /// Fails the `n`-th `operation` from now, counted from 1, among those on a path that `applies`, with `EIO`,
    /// without doing it.
    pub fn fail(&self, operation: Operation, n: u64, applies: impl Fn(&Path) -> bool + Send + 'static) {
        assert!(n > 0, "operations are counted from 1");
        self.lock().rules.push(Rule { operation, applies: Predicate(Box::new(applies)), skip: Some(n - 1) });
    }

    /// From now on syncs of files wait, as on a disk that hangs.
    pub fn hold_syncs(&self) {
        self.hold_syncs_of(|_| true);
    }

    /// From now on syncs of files on a path that `applies` wait.
    pub fn hold_syncs_of(&self, applies: impl Fn(&Path) -> bool + Send + 'static) {
        let mut state = self.lock();
        state.hold = Hold::Yes;
        state.holds = Some(Predicate(Box::new(applies)));
    }

    /// Waits until a sync hangs.
    pub fn wait_for_held_sync(&self) {
        let mut state = self.lock();
        while state.held == 0 {
            state = self.0.changed.wait(state).expect("no holder of this lock panics");
        }
    }

    /// Lets waiting syncs do their work.
    pub fn release_syncs(&self) {
        self.release(Hold::No);
    }

    /// Lets waiting syncs fail with `EIO`; later ones work again.
    pub fn fail_held_syncs(&self) {
        self.release(Hold::Fail);
    }

    fn release(&self, hold: Hold) {
        self.lock().hold = hold;
        self.0.changed.notify_all();
    }

    /// Writes beyond the next `bytes` fail with `ENOSPC`. A write counts in full, also over existing bytes.
    pub fn fill_after(&self, bytes: u64) {
        self.lock().space = Some(bytes);
    }

    /// From now on there is room for so many bytes of files in all, as on a disk of that size: what makes a file longer
    /// than the rest of the room is written as far as it fits and fails with `ENOSPC`; bytes in place of others take no
    /// room; removed files give theirs back.
    pub fn set_capacity(&self, bytes: u64) {
        self.lock().capacity = Some(bytes);
    }

    /// From now on `bytes` of the room of [`Faults::set_capacity`] are somebody else's.
    pub fn occupy(&self, bytes: u64) {
        self.lock().occupied = bytes;
    }

    /// Bytes of the files that were made through this disk and are still there.
    pub fn used(&self) -> u64 {
        self.lock().used
    }

    /// Takes the limits of [`Faults::fill_after`] and [`Faults::set_capacity`] away.
    pub fn free_space(&self) {
        let mut state = self.lock();
        state.space = None;
        state.capacity = None;
    }

    /// Plants `bug`, for as long as the disk lives.
    pub fn plant(&self, bug: PlantedBug) {
        self.lock().bug = Some(bug);
    }

    /// Syncs of files asked for so far.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    fn has(&self, bug: PlantedBug) -> bool {
        self.lock().bug == Some(bug)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("no holder of this lock panics")
    }

    /// Fails the call if a rule says so.
    fn call(&self, operation: Operation, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        if is_wal(path)
            && let Some(dir) = path.parent()
        {
            state.wal_dirs.insert(dir.to_path_buf());
        }
        for rule in &mut state.rules {
            if rule.operation == operation
                && (rule.applies.0)(path)
                && let Some(skip) = rule.skip
            {
                rule.skip = skip.checked_sub(1);
                if skip == 0 {
                    return Err(io::Error::from_raw_os_error(EIO));
                }
            }
        }
        Ok(())
    }

    /// Takes `bytes` of the space that is left.
    fn take_space(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.lock();
        let Some(space) = &mut state.space else { return Ok(()) };
        *space = space.checked_sub(bytes).ok_or_else(|| io::Error::from_raw_os_error(ENOSPC))?;
        Ok(())
    }

    /// Takes room for a file that was `before` bytes long and is to become `after`; how long it may become.
    fn grow(&self, before: u64, after: u64) -> u64 {
        let mut state = self.lock();
        let room = state.room().unwrap_or(u64::MAX);
        let grown = after.saturating_sub(before).min(room);
        state.used += grown;
        before + grown
    }

    fn shrink(&self, by: u64) {
        let mut state = self.lock();
        state.used = state.used.saturating_sub(by);
    }

    /// Hangs while syncs are held.
    fn pass_sync(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.syncs += 1;
        if state.hold != Hold::Yes || !state.holds.as_ref().is_some_and(|holds| (holds.0)(path)) {
            return Ok(());
        }
        state.held += 1;
        self.0.changed.notify_all();
        while state.hold == Hold::Yes {
            state = self.0.changed.wait(state).expect("no holder of this lock panics");
        }
        state.held -= 1;
        if state.hold == Hold::Fail { Err(io::Error::from_raw_os_error(EIO)) } else { Ok(()) }
    }
}

fn is_wal(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "wal")
}

fn is_under(path: &Path, dir: &str) -> bool {
    path.iter().any(|part| part == dir)
}

impl FaultDisk {
    fn wrap(&self, inner: Box<dyn DiskFile>, path: &Path) -> Box<dyn DiskFile> {
        let (disk, faults) = (Arc::clone(&self.inner), self.faults.clone());
        // A new segment is written under `.<name>.tmp`: what it is shows in its final name.
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let last = name.strip_prefix('.').and_then(|name| name.strip_suffix(".tmp")).unwrap_or(name);
        Box::new(FaultFile { inner, disk, faults, path: path.with_file_name(last) })
    }
}

impl Disk for FaultDisk {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.faults.call(Operation::Create, path)?;
        Ok(self.wrap(self.inner.create_new(path)?, path))
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.wrap(self.inner.open_read(path)?, path))
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.wrap(self.inner.open_write(path)?, path))
    }

    fn rename(&self, from: &Path, to: &Path, replace: Replace) -> io::Result<()> {
        self.faults.call(Operation::Rename, to)?;
        let replaced = self.inner.info(to).map_or(0, |info| info.len);
        self.inner.rename(from, to, replace)?;
        self.faults.shrink(replaced);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.faults.call(Operation::Remove, path)?;
        let removed = self.inner.info(path).map_or(0, |info| info.len);
        self.inner.remove_file(path)?;
        self.faults.shrink(removed);
        Ok(())
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let state = self.faults.lock();
        match state.capacity {
            Some(total) => Ok(Space { free: state.room().unwrap_or(total), total }),
            None => self.inner.space(path),
        }
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_dir(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.faults.call(Operation::SyncDir, path)?;
        if self.faults.has(PlantedBug::ForgetDirectorySync) { Ok(()) } else { self.inner.sync_dir(path) }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.inner.list(path)
    }

    fn info(&self, path: &Path) -> io::Result<FileInfo> {
        self.inner.info(path)
    }
}

#[derive(Debug)]
struct FaultFile {
    inner: Box<dyn DiskFile>,
    disk: SharedDisk,
    faults: Faults,
    path: PathBuf,
}

impl DiskFile for FaultFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.faults.call(Operation::Read, &self.path)?;
        let len = self.inner.read_at(buffer, offset)?;
        if self.faults.has(PlantedBug::SkipCrc) && is_wal(&self.path) {
            self.forge_checksums(&mut buffer[..len], offset);
        }
        Ok(len)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.faults.call(Operation::Write, &self.path)?;
        self.faults.take_space(bytes.len() as u64)?;
        if self.path.to_string_lossy().contains(".parquet") {
            self.truncate_before_commit()?;
        }
        let before = self.inner.len()?;
        let end = offset + bytes.len() as u64;
        let fits = self.faults.grow(before, end.max(before));
        if end <= fits {
            return self.inner.write_all_at(bytes, offset);
        }
        let part = usize::try_from(fits.saturating_sub(offset)).unwrap_or(0);
        self.inner.write_all_at(&bytes[..part], offset)?;
        Err(io::Error::from_raw_os_error(ENOSPC))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let before = self.inner.len()?;
        if self.faults.grow(before, len.max(before)) < len {
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        self.inner.set_len(len)?;
        self.faults.shrink(before.saturating_sub(len));
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn sync_data(&self) -> io::Result<()> {
        self.faults.call(Operation::Sync, &self.path)?;
        self.faults.pass_sync(&self.path)?;
        let lies = (self.faults.has(PlantedBug::AckBeforeSync) && is_wal(&self.path))
            || (self.faults.has(PlantedBug::SkipCommitSync) && is_under(&self.path, "_delta_log"));
        if lies { Ok(()) } else { self.inner.sync_data() }
    }
}

impl FaultFile {
    /// Layout: `docs/formats/wal.md`. A frame begins on a block with `EFRM`; its checksum covers all of it but itself.
    fn forge_checksums(&self, buffer: &mut [u8], offset: u64) {
        const BLOCK: usize = 4096;
        let first = (offset.next_multiple_of(BLOCK as u64) - offset) as usize;
        for at in (first..buffer.len()).step_by(BLOCK) {
            let Some(header) = buffer[at..].first_chunk::<80>().filter(|header| header.starts_with(b"EFRM")) else {
                continue;
            };
            let payload_bytes = u32::from_le_bytes(header[12..16].try_into().expect("four bytes"));
            let content_bytes = 80 + u64::from(payload_bytes);
            let start = offset + at as u64;
            if self.inner.len().is_ok_and(|len| start + content_bytes <= len) {
                let mut content = vec![0; content_bytes as usize];
                if read_exact_at(&*self.inner, &mut content, start).is_ok() {
                    let crc = crc32c::crc32c_append(crc32c::crc32c(&content[..8]), &content[12..]);
                    buffer[at + 8..at + 12].copy_from_slice(&crc.to_le_bytes());
                }
            }
        }
    }

    fn truncate_before_commit(&self) -> io::Result<()> {
        let mut state = self.faults.lock();
        if state.bug != Some(PlantedBug::TruncateBeforeCommit) || state.truncated {
            return Ok(());
        }
        state.truncated = true;
        for dir in &state.wal_dirs {
            let entries = self.disk.list(dir)?;
            let mut names: Vec<_> = entries.iter().map(|entry| &entry.name).filter(|n| n.ends_with(".wal")).collect();
            names.truncate(names.len().saturating_sub(2));
            for name in names {
                self.disk.remove_file(&dir.join(name))?;
            }
            self.disk.sync_dir(dir)?;
        }
        Ok(())
    }
}
