//! Counts what a disk is asked to write, for a card wears by it.
//!
//! Owns:     a disk around another one, and its counters.
//! Does not: change, delay or refuse anything.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wal::disk::{DirEntry, Disk, DiskFile, DiskLock, FileInfo, Replace, SharedDisk, Space};

/// A file system writes whole blocks.
const BLOCK_BYTES: u64 = 4096;

/// What was written so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wear {
    /// Bytes of the blocks of 4 KiB that were written; what the file system writes for itself is not in it.
    pub bytes_written: u64,
    /// Syncs of files and folders.
    pub syncs: u64,
}

/// The counters of a [`counting`] disk.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    bytes_written: AtomicU64,
    syncs: AtomicU64,
}

impl Counts {
    pub(crate) fn now(&self) -> Wear {
        Wear { bytes_written: self.bytes_written.load(Ordering::Relaxed), syncs: self.syncs.load(Ordering::Relaxed) }
    }

    fn wrote(&self, len: usize, offset: u64) {
        let blocks = (offset + len as u64).div_ceil(BLOCK_BYTES) - offset / BLOCK_BYTES;
        self.bytes_written.fetch_add(blocks * BLOCK_BYTES, Ordering::Relaxed);
    }

    fn synced(&self) {
        self.syncs.fetch_add(1, Ordering::Relaxed);
    }
}

/// `disk`, and what it is asked to write.
pub(crate) fn counting(disk: SharedDisk) -> (SharedDisk, Arc<Counts>) {
    let counts = Arc::new(Counts::default());
    (Arc::new(Counting { below: disk, counts: Arc::clone(&counts) }), counts)
}

#[derive(Debug)]
struct Counting {
    below: SharedDisk,
    counts: Arc<Counts>,
}

impl Counting {
    fn file(&self, below: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(CountedFile { below, counts: Arc::clone(&self.counts) })
    }
}

impl Disk for Counting {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.below.create_new(path).map(|file| self.file(file))
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.below.open_read(path)
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.below.open_write(path).map(|file| self.file(file))
    }

    fn rename(&self, from: &Path, to: &Path, replace: Replace) -> io::Result<()> {
        self.below.rename(from, to, replace)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.below.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.below.remove_dir(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.below.create_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.counts.synced();
        self.below.sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.below.list(path)
    }

    fn lock(&self, path: &Path, note: &str) -> io::Result<Box<dyn DiskLock>> {
        self.below.lock(path, note)
    }

    fn is_locked(&self, path: &Path) -> io::Result<bool> {
        self.below.is_locked(path)
    }

    fn info(&self, path: &Path) -> io::Result<FileInfo> {
        self.below.info(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.below.space(path)
    }
}

#[derive(Debug)]
struct CountedFile {
    below: Box<dyn DiskFile>,
    counts: Arc<Counts>,
}

impl DiskFile for CountedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.below.read_at(buffer, offset)
    }

    fn distrust(&self) {
        self.below.distrust();
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.counts.wrote(bytes.len(), offset);
        self.below.write_all_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.below.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.below.len()
    }

    fn sync_data(&self) -> io::Result<()> {
        self.counts.synced();
        self.below.sync_data()
    }
}
