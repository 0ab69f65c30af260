//! A disk that several processes write to at the same time.
//!
//! Owns:     what must differ where names are others' too: the files beside those that are written whole, and folders that
//!           are there already, whose names their makers may not have made durable yet.
//! Does not: keep processes apart: whoever is first has a name ([`Replace::No`]).

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{DirEntry, Disk, DiskFile, DiskLock, EntryKind, FileInfo, Replace, SharedDisk, Space};

/// See the module.
pub struct CommonDisk {
    inner: SharedDisk,
    /// The folder that is common.
    root: PathBuf,
    /// No other process that writes here has it.
    writer: String,
    written: AtomicU64,
    /// Folders whose names this process has made durable. Where a disk is common, none is removed.
    folders: Mutex<HashSet<PathBuf>>,
}

impl CommonDisk {
    /// The folder `root` of `inner`, for a process that calls itself `writer`, in letters, digits and `-`: no other one may
    /// do so, nor an earlier life of this one.
    pub fn new(inner: SharedDisk, root: PathBuf, writer: String) -> CommonDisk {
        CommonDisk { inner, root, writer, written: AtomicU64::new(0), folders: Mutex::default() }
    }
}

impl fmt::Debug for CommonDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommonDisk").field("inner", &self.inner).field("writer", &self.writer).finish_non_exhaustive()
    }
}

impl Disk for CommonDisk {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.inner.create_new(path)
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.inner.open_read(path)
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.inner.open_write(path)
    }

    fn rename(&self, from: &Path, to: &Path, replace: Replace) -> io::Result<()> {
        self.inner.rename(from, to, replace)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_dir(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.inner.list(path)
    }

    fn info(&self, path: &Path) -> io::Result<FileInfo> {
        self.inner.info(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.inner.space(path)
    }

    fn is_common(&self) -> bool {
        true
    }

    /// As the trait says, also of folders that somebody else has just made.
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let Some(parent) = path.parent().filter(|parent| parent.starts_with(&self.root)) else {
            return self.inner.create_dir_all(path);
        };
        let is_folder = |info: FileInfo| info.kind == EntryKind::Directory;
        if self.folders.lock().unwrap_or_else(PoisonError::into_inner).contains(path)
            && self.inner.info(path).is_ok_and(is_folder)
        {
            return Ok(());
        }
        self.create_dir_all(parent)?;
        match self.inner.create_dir(path) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                if !is_folder(self.inner.info(path)?) {
                    return Err(io::ErrorKind::NotADirectory.into());
                }
            }
            Err(e) => return Err(e),
        }
        self.inner.sync_dir(parent)?;
        self.folders.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned());
        Ok(())
    }

    /// As the trait says, beside a name that nobody else uses: of two who write one file each has its own bytes there.
    fn write_whole(&self, path: &Path, bytes: &[u8], replace: Replace) -> io::Result<()> {
        let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let name = path.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
        let number = self.written.fetch_add(1, Ordering::Relaxed);
        let beside = parent.join(format!(".{name}.{}-{number}.tmp", self.writer));
        let file = self.inner.create_new(&beside)?;
        let written = file.write_all_at(bytes, 0).and_then(|()| file.sync_data());
        let renamed = written.and_then(|()| self.inner.rename(&beside, path, replace));
        if renamed.is_err() {
            // Best effort: nobody looks for it.
            let _ = self.inner.remove_file(&beside);
        }
        renamed?;
        self.inner.sync_dir(parent)
    }

    fn may_stand(&self, path: &Path, error: &io::Error) -> bool {
        // The name was another's before ours came to it.
        error.kind() != io::ErrorKind::AlreadyExists && self.inner.may_stand(path, error)
    }

    fn list_with_info(&self, path: &Path) -> io::Result<Vec<(DirEntry, FileInfo)>> {
        self.inner.list_with_info(path)
    }

    fn lock(&self, path: &Path, note: &str) -> io::Result<Box<dyn DiskLock>> {
        self.inner.lock(path, note)
    }

    fn is_locked(&self, path: &Path) -> io::Result<bool> {
        self.inner.is_locked(path)
    }
}
