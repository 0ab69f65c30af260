//! An object store as a [`Disk`], so that the same code keeps tables on `file://` and on S3
//! (docs/adr/0018-tables-in-an-object-store.md).
//!
//! Owns:     what a disk's calls are in requests: whole objects, put-if-absent for commits, ranges for reads.
//! Does not: hold the log, the lock or the identity of a node: those stay on a disk of this machine.
//!
//! Invariants
//!  1. An object appears whole or not at all: a file becomes one when it is synced, and what is dropped before leaves
//!     nothing that a reader sees.
//!  2. What `write_whole` with [`Replace::No`] puts never takes the place of another writer's object.
//!  3. Memory: of a file that is written one part; of one that is read [`file::WINDOWS_MAX`] windows and its end; of those
//!     read last their ends.
//!
//! There are no folders: all of them exist, all are empty until something is in them, and none can be renamed.

mod calls;
mod file;
#[cfg(test)]
mod tests;

use std::collections::{HashSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use model::Clock;
use object_store::path::Path as Location;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use wal::disk::{DirEntry, Disk, DiskFile, EntryKind, FileInfo, Replace};

pub(crate) use calls::{Calls, is_away};
use calls::{InDoubt, failure};
use file::{ObjectReader, ObjectWriter, TAIL_BYTES, Tail};

/// Ends of shards that are remembered: each query of a shard begins there.
const TAILS_MAX: usize = 128;

/// Objects that are asked for at a time.
const TOGETHER: usize = 32;

/// See the module.
#[derive(Debug)]
pub(crate) struct ObjectDisk {
    calls: Arc<Calls>,
    /// What every path begins with, such as `s3://bucket/prefix`.
    root: PathBuf,
    /// Where that is in the store.
    prefix: Location,
    known: Arc<Known>,
}

/// What is remembered of objects.
#[derive(Debug, Default)]
struct Known {
    /// Files that were created and that nothing was sent of: there is nothing to remove.
    unsent: Mutex<HashSet<PathBuf>>,
    /// Of shards, which never change; the one that was used last is the last.
    tails: Mutex<VecDeque<(PathBuf, Tail)>>,
}

impl Known {
    fn unsent(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.unsent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tails(&self) -> MutexGuard<'_, VecDeque<(PathBuf, Tail)>> {
        self.tails.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tail(&self, path: &Path) -> Option<Tail> {
        let mut tails = self.tails();
        let at = tails.iter().position(|(known, _)| known == path)?;
        let used = tails.remove(at)?;
        let tail = used.1.clone();
        tails.push_back(used);
        Some(tail)
    }

    fn remember(&self, path: &Path, tail: &Tail) {
        if !is_shard(path) {
            return;
        }
        let mut tails = self.tails();
        tails.retain(|(known, _)| known != path);
        tails.push_back((path.to_owned(), tail.clone()));
        if tails.len() > TAILS_MAX {
            tails.pop_front();
        }
    }

    fn forget(&self, path: &Path) {
        self.tails().retain(|(known, _)| known != path);
    }
}

/// Whether an object of that name is written once and never changed.
fn is_shard(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "parquet")
        && !path.parent().is_some_and(|folder| folder.ends_with("_delta_log"))
}

impl ObjectDisk {
    /// The objects below `prefix`, whose paths here begin with `root`. The first of the `clients` tries a request again that
    /// failed, the second does not.
    pub(crate) fn new(
        root: PathBuf,
        prefix: Location,
        clients: [Arc<dyn ObjectStore>; 2],
        pause_max: Duration,
        clock: Arc<dyn Clock>,
    ) -> io::Result<ObjectDisk> {
        let calls = Arc::new(Calls::new(root.display().to_string(), clients, pause_max, clock)?);
        Ok(ObjectDisk { calls, root, prefix, known: Arc::default() })
    }

    fn location(&self, path: &Path) -> io::Result<Location> {
        let below = path.strip_prefix(&self.root).map_err(|_| io::ErrorKind::InvalidInput)?;
        let below = below.to_str().ok_or(io::ErrorKind::InvalidInput)?;
        let all = match (self.prefix.as_ref(), below) {
            (prefix, "") => prefix.to_owned(),
            ("", below) => below.to_owned(),
            (prefix, below) => format!("{prefix}/{below}"),
        };
        Location::parse(all).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))
    }

    /// Puts an object that must not exist yet. It is there when this returns `Ok`, and is this one.
    fn put_new(&self, location: &Location, bytes: &Bytes) -> io::Result<()> {
        let mut tries = self.calls.tries();
        loop {
            let (to, payload) = (location.clone(), PutPayload::from(bytes.clone()));
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            let put = self.calls.once(move |store| async move { store.put_opts(&to, payload, options).await });
            let error = match put {
                Ok(_) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => match self.get(location) {
                    // An answer got lost, and this was ours: what is put says who puts it, and when.
                    Ok(found) if found == bytes => return Ok(()),
                    Ok(_) => return Err(e),
                    // A store that is busy with two such requests may refuse both.
                    Err(read) if read.kind() == io::ErrorKind::NotFound => tries.refused(e),
                    Err(read) => tries.in_doubt(read),
                },
                Err(e) => tries.failed(e),
            };
            if let Some(error) = error {
                return Err(error);
            }
            self.calls.pause(tries.count());
        }
    }

    fn get(&self, location: &Location) -> io::Result<Bytes> {
        let location = location.clone();
        self.calls.run(move |store| async move { store.get(&location).await?.bytes().await })
    }

    /// The end of an object, which of a small one is all of it.
    fn tail(&self, path: &Path, location: &Location) -> io::Result<Tail> {
        if let Some(tail) = self.known.tail(path) {
            return Ok(tail);
        }
        let of = location.clone();
        let tail = match self.calls.run(move |store| async move { read_tail(&*store, &of).await }) {
            // An empty object has no end that could be asked for.
            Err(e) if e.kind() != io::ErrorKind::NotFound && !is_away(&e) && self.info(path)?.len == 0 => {
                Tail { size: 0, from: 0, bytes: Bytes::new() }
            }
            tail => tail?,
        };
        self.known.remember(path, &tail);
        Ok(tail)
    }

    fn list_objects(&self, path: &Path) -> io::Result<Vec<(DirEntry, FileInfo)>> {
        let prefix = self.location(path)?;
        let listed = self.calls.run(move |store| async move { store.list_with_delimiter(Some(&prefix)).await })?;
        let name = |location: &Location| location.as_ref().rsplit('/').next().unwrap_or_default().to_owned();
        let folder = |location: &Location| {
            let entry = DirEntry { name: name(location), kind: EntryKind::Directory };
            (entry, FileInfo { len: 0, modified_us: 0, kind: EntryKind::Directory })
        };
        let object =
            |meta: &ObjectMeta| (DirEntry { name: name(&meta.location), kind: EntryKind::File }, info_of(meta));
        let mut found: Vec<_> = listed.common_prefixes.iter().map(folder).collect();
        found.extend(listed.objects.iter().map(object));
        found.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        Ok(found)
    }
}

async fn read_tail(store: &dyn ObjectStore, location: &Location) -> object_store::Result<Tail> {
    let range = Some(GetRange::Suffix(TAIL_BYTES));
    let got = store.get_opts(location, GetOptions { range, ..GetOptions::default() }).await?;
    let (size, from) = (got.meta.size, got.range.start);
    Ok(Tail { size, from, bytes: got.bytes().await? })
}

fn info_of(meta: &ObjectMeta) -> FileInfo {
    FileInfo { len: meta.size, modified_us: meta.last_modified.timestamp_micros(), kind: EntryKind::File }
}

fn unsupported(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, what)
}

impl Disk for ObjectDisk {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let location = self.location(path)?;
        self.known.unsent().insert(path.to_owned());
        Ok(Box::new(ObjectWriter::new(Arc::clone(&self.calls), Arc::clone(&self.known), path.to_owned(), location)))
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let location = self.location(path)?;
        let tail = self.tail(path, &location)?;
        let (calls, known) = (Arc::clone(&self.calls), Arc::clone(&self.known));
        Ok(Box::new(ObjectReader::new(calls, known, path.to_owned(), location, tail)))
    }

    fn open_write(&self, _path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Err(unsupported("objects are written once"))
    }

    fn rename(&self, _from: &Path, _to: &Path, _replace: Replace) -> io::Result<()> {
        Err(unsupported("objects have no other names"))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        if self.known.unsent().remove(path) {
            return Ok(());
        }
        self.known.forget(path);
        let location = self.location(path)?;
        // What cannot be deleted now is found later; a hundred files must not each wait for a store that hangs.
        self.calls.check_there()?;
        self.calls.run(move |store| async move { store.delete(&location).await })
    }

    fn remove_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn create_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        Ok(self.list_objects(path)?.into_iter().map(|(entry, _)| entry).collect())
    }

    fn info(&self, path: &Path) -> io::Result<FileInfo> {
        let folder = FileInfo { len: 0, modified_us: 0, kind: EntryKind::Directory };
        if path == self.root {
            return Ok(folder);
        }
        let location = self.location(path)?;
        match self.calls.run(move |store| async move { store.head(&location).await }) {
            Ok(meta) => Ok(info_of(&meta)),
            Err(e) if e.kind() == io::ErrorKind::NotFound && !self.list_objects(path)?.is_empty() => Ok(folder),
            Err(e) => Err(e),
        }
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn create_dir_all(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn write_whole(&self, path: &Path, bytes: &[u8], replace: Replace) -> io::Result<()> {
        let location = self.location(path)?;
        let bytes = Bytes::copy_from_slice(bytes);
        match replace {
            Replace::No => self.put_new(&location, &bytes),
            Replace::Yes => {
                self.known.forget(path);
                let put = move |store: Arc<dyn ObjectStore>| async move { store.put(&location, bytes.into()).await };
                self.calls.run(put).map(drop)
            }
        }
    }

    fn may_stand(&self, _path: &Path, error: &io::Error) -> bool {
        error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<InDoubt>)
    }

    fn read_files(&self, paths: &[PathBuf]) -> Vec<io::Result<Vec<u8>>> {
        let locations: io::Result<Vec<Location>> = paths.iter().map(|path| self.location(path)).collect();
        let locations = match locations {
            Ok(locations) => locations,
            Err(e) => return paths.iter().map(|_| Err(e.kind().into())).collect(),
        };
        let read = self.calls.run(move |store| async move {
            let read = locations.into_iter().map(|location| {
                let store = Arc::clone(&store);
                async move { store.get(&location).await?.bytes().await }
            });
            Ok(stream::iter(read).buffered(TOGETHER).collect::<Vec<_>>().await)
        });
        match read {
            Ok(read) => {
                let one = |read: object_store::Result<Bytes>| match read {
                    Ok(bytes) => Ok(bytes.to_vec()),
                    Err(e) => Err(failure(self.calls.name(), e)),
                };
                read.into_iter().map(one).collect()
            }
            Err(e) => paths.iter().map(|_| Err(io::Error::new(e.kind(), e.to_string()))).collect(),
        }
    }

    fn list_with_info(&self, path: &Path) -> io::Result<Vec<(DirEntry, FileInfo)>> {
        self.list_objects(path)
    }
}
