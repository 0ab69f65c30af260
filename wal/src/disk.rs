//! The disk under everything in the data folder: the log, shards, Delta commits, identity files.
//!
//! Owns:     the one trait through which bytes, names and syncs reach a disk, and its real form, [`LocalDisk`].
//! Does not: cache, retry or buffer: each call is the system call of that name.
//!
//! What a caller may rely on after a power cut, and nothing more:
//!  1. Bytes written before a [`DiskFile::sync_data`] that returned `Ok` are in the file.
//!  2. Names created, renamed or removed in a directory before a [`Disk::sync_dir`] of it that returned `Ok` stay so.
//!  3. Everything else may be lost, torn at 512-byte sectors, or kept, in any combination.
//!  4. After a failed sync nothing is known about the bytes written since the last good one.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod common;
mod local;

pub use common::CommonDisk;
pub use local::LocalDisk;

/// Whether a rename may take the place of an existing name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// An existing file of the new name is replaced in one step.
    Yes,
    /// An existing name is left alone: [`io::ErrorKind::AlreadyExists`].
    No,
}

/// What a directory entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name, without its directory. Names that are not UTF-8 are not listed: Eden writes none.
    pub name: String,
    /// File or directory.
    pub kind: EntryKind,
}

/// What is known of a file without opening it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Bytes.
    pub len: u64,
    /// Wall time of the last change, microseconds since 1970-01-01 UTC; for display only.
    pub modified_us: i64,
    /// File or directory.
    pub kind: EntryKind,
}

/// How much room a file system has, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// What this process may still take.
    pub free: u64,
    /// All there is.
    pub total: u64,
}

/// A disk. Paths are absolute, or relative to the process's working directory.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Creates a file that must not exist yet, for reading and writing.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens an existing file for reading only.
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens an existing file for reading and writing.
    fn open_write(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Renames a file or directory within this disk.
    fn rename(&self, from: &Path, to: &Path, replace: Replace) -> io::Result<()>;
    /// Removes a file's name.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Creates one directory; its parent must exist, it must not.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, in order.
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    /// Size, time and kind of a path; [`io::ErrorKind::NotFound`] if there is none.
    fn info(&self, path: &Path) -> io::Result<FileInfo>;
    /// The room on the file system that `path`, which exists, is on. A disk without bounds has all there can be: the
    /// default.
    fn space(&self, path: &Path) -> io::Result<Space> {
        let _ = path;
        Ok(Space { free: u64::MAX, total: u64::MAX })
    }
    /// Whether a call is a trip over a network: then callers ask for much at once, and never on a thread that others wait
    /// for. Such a disk has no folders, so none can be renamed, and what it has done is durable.
    fn is_remote(&self) -> bool {
        false
    }
    /// Whether other processes write here at the same time ([`CommonDisk`]): then a name that is taken is another's, and
    /// what was not there a moment ago may be there now.
    fn is_common(&self) -> bool {
        false
    }
    /// Creates `path` and the directories above it that are missing, each made durable in its parent.
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        match self.info(path) {
            Ok(info) if info.kind == EntryKind::Directory => return Ok(()),
            Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        if let Some(parent) = parent {
            self.create_dir_all(parent)?;
        }
        match self.create_dir(path) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
        self.sync_dir(parent.unwrap_or(Path::new(".")))
    }
    /// Puts `bytes` at `path` so that after any crash the file is either whole or as it was before:
    /// written beside it, synced, renamed, directory synced.
    fn write_whole(&self, path: &Path, bytes: &[u8], replace: Replace) -> io::Result<()> {
        let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let name = path.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
        let beside = parent.join(format!(".{name}.tmp"));
        match self.remove_file(&beside) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        let file = self.create_new(&beside)?;
        let written = file.write_all_at(bytes, 0).and_then(|()| file.sync_data());
        let renamed = written.and_then(|()| self.rename(&beside, path, replace));
        if renamed.is_err() {
            // Best effort: the next writer of this name removes it too.
            let _ = self.remove_file(&beside);
        }
        renamed?;
        self.sync_dir(parent)
    }
    /// After [`Disk::write_whole`] failed at `path`: whether the file may stand all the same.
    fn may_stand(&self, path: &Path, error: &io::Error) -> bool {
        let _ = error;
        self.info(path).is_ok()
    }
    /// The whole of each of some files.
    fn read_files(&self, paths: &[PathBuf]) -> Vec<io::Result<Vec<u8>>> {
        let read = |path: &PathBuf| -> io::Result<Vec<u8>> {
            let file = self.open_read(path)?;
            let len = usize::try_from(file.len()?).map_err(|_| io::ErrorKind::OutOfMemory)?;
            let mut bytes = vec![0; len];
            read_exact_at(&*file, &mut bytes, 0)?;
            Ok(bytes)
        };
        paths.iter().map(read).collect()
    }
    /// The names in a directory, in order, with what is known of each. Those that went meanwhile are left out.
    fn list_with_info(&self, path: &Path) -> io::Result<Vec<(DirEntry, FileInfo)>> {
        let mut found = Vec::new();
        for entry in self.list(path)? {
            match self.info(&path.join(&entry.name)) {
                Ok(info) => found.push((entry, info)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(found)
    }
    /// Takes the lock file at `path`, created if missing, for as long as the result lives;
    /// [`io::ErrorKind::WouldBlock`] if another process has it. `note` is written into it for people to read.
    /// A disk that no other process can reach has nothing to lock: the default.
    fn lock(&self, path: &Path, note: &str) -> io::Result<Box<dyn DiskLock>> {
        let _ = (path, note);
        Ok(Box::new(()))
    }
    /// Whether a process has the lock file at `path`, which is neither made nor changed; the answer may be old when it
    /// is given.
    fn is_locked(&self, path: &Path) -> io::Result<bool> {
        let _ = path;
        Ok(false)
    }
}

/// A lock that is held until it is dropped, or until its process ends in whatever way.
pub trait DiskLock: fmt::Debug + Send + Sync {}

impl DiskLock for () {}

/// An open file. Offsets and lengths in bytes.
#[expect(clippy::len_without_is_empty, reason = "`len` asks the disk and may fail; it is not a collection's")]
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// Reads up to `buffer.len()` bytes at `offset`; 0 at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// The bytes of each range, where it takes much less time to ask for them together than one after another;
    /// `None` where it does not. Bytes behind the end are [`io::ErrorKind::UnexpectedEof`].
    fn read_together(&self, ranges: &[Range<u64>]) -> Option<io::Result<Vec<Vec<u8>>>> {
        let _ = ranges;
        None
    }
    /// What was read is not what was written: nothing that is remembered of the file is to be given again.
    fn distrust(&self) {}
    /// Writes all of `bytes` at `offset`, growing the file if needed.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts or extends (with zeros) the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// The file's length.
    fn len(&self) -> io::Result<u64>;
    /// Makes the file's bytes and length durable (`fdatasync`).
    fn sync_data(&self) -> io::Result<()>;
}

/// Whether an error means that there is no room (P9): on the disk, or for this user.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Fills `buffer` from `offset`.
///
/// # Errors
/// [`io::ErrorKind::UnexpectedEof`] if the file is shorter.
pub fn read_exact_at(file: &dyn DiskFile, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match file.read_at(buffer, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                buffer = &mut buffer[n..];
                offset += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// The whole of a file.
///
/// # Errors
/// Those of opening and reading it.
pub fn read_file(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let mut read = disk.read_files(std::slice::from_ref(&path.to_owned()));
    read.pop().unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()))
}

/// As [`Disk::create_dir_all`].
///
/// # Errors
/// Those of making and syncing the directories.
pub fn create_dir_all(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    disk.create_dir_all(path)
}

/// As [`Disk::write_whole`].
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] with [`Replace::No`] if the name is taken, else those of the calls it makes.
/// After an error the file may or may not stand, but never half.
pub fn write_whole(disk: &dyn Disk, path: &Path, bytes: &[u8], replace: Replace) -> io::Result<()> {
    disk.write_whole(path, bytes, replace)
}

/// A disk as it is handed from room to room.
pub type SharedDisk = Arc<dyn Disk>;
