//! Looks into an outbox without changing it, also while an agent uses it.
//!
//! Owns:     a disk that keeps changes in memory, so that the log's own recovery can be run on a look.
//! Does not: take the lock, or hold anything up.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use model::NodeEpoch;
use wal::disk::{DirEntry, Disk, DiskFile, EntryKind, FileInfo, Replace, SharedDisk, read_file};
use wal::{Loss, RingConfig, RingLog, WalError};

use super::identity::Identity;
use super::scan::scan;
use super::{NODE, OutboxError, log_dir};
use crate::gap::{Gap, Life};
use crate::wear::Wear;

/// What waits in an outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Under which id and epoch new batches are made.
    pub life: Life,
    /// The last seq given away in it.
    pub last_seq: u64,
    /// Readings in all its durable batches, those that were forgotten or lie in a gap included.
    pub readings_made: u64,
    /// What waits, by life, the oldest first.
    pub lives: Vec<WaitingLife>,
    /// Gaps that are not reported yet.
    pub gaps: Vec<Gap>,
    /// Damage of the log's files.
    pub losses: Vec<Loss>,
    /// Bytes of the log's files.
    pub disk_bytes: u64,
    /// What was written until the newest record, ever since the outbox was made.
    pub wear: Wear,
    /// Whether the last agent closed it in order; false while one runs.
    pub closed: bool,
}

/// What waits of one life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingLife {
    /// Whose.
    pub life: Life,
    /// The first batch that waits.
    pub first_seq: u64,
    /// The last one.
    pub last_seq: u64,
    /// How many.
    pub batches: u64,
    /// Readings in them.
    pub readings: u64,
    /// Bytes of their bodies, as they are kept.
    pub bytes: u64,
    /// When the oldest was closed, microseconds since 1970-01-01 UTC.
    pub oldest_us: i64,
    /// Gaps that they report.
    pub gaps: Vec<Gap>,
    /// Of the batches, those whose readings have no wall time yet.
    pub untimed: u64,
}

/// A look at a log that changes meanwhile may fail; another one finds it as it is then.
const LOOKS: usize = 5;

/// Looks into the outbox in `dir`; `None` if there is none.
///
/// # Errors
/// If its files cannot be read.
pub fn peek(disk: &SharedDisk, dir: &Path) -> Result<Option<Waiting>, OutboxError> {
    let Some(identity) = Identity::read(&**disk, dir)? else { return Ok(None) };
    let mut looks = 1;
    loop {
        match look(disk, dir, &identity) {
            Err(OutboxError::Log(WalError::Io { source, .. }))
                if source.kind() == io::ErrorKind::NotFound && looks < LOOKS =>
            {
                looks += 1;
            }
            looked => return looked.map(Some),
        }
    }
}

fn look(disk: &SharedDisk, dir: &Path, identity: &Identity) -> Result<Waiting, OutboxError> {
    let life = identity.life + 1;
    let overlay: SharedDisk = Arc::new(Overlay { below: Arc::clone(disk), above: Arc::default() });
    let bytes_max = u64::MAX >> 1;
    let config = RingConfig::outbox(log_dir(dir), NODE, NodeEpoch(life), bytes_max);
    let (log, recovery) = RingLog::open(overlay, config)?;
    let scan = scan(&log)?;
    let disk_bytes = log_bytes(&**disk, dir);
    let own = Life { agent: identity.agent.as_str().into(), epoch: identity.epoch };
    let mut waiting = Waiting {
        life: own,
        last_seq: 0,
        readings_made: 0,
        lives: Vec::new(),
        gaps: Vec::new(),
        losses: recovery.losses,
        disk_bytes,
        wear: Wear::default(),
        closed: true,
    };
    let mut fixed = Vec::new();
    if let Some((state, closed)) = scan.newest {
        fixed = state.boots.iter().map(|(boot, _)| *boot).collect();
        waiting.gaps = state.gaps;
        waiting.closed = closed;
        waiting.wear = state.wear;
        if state.life == waiting.life {
            waiting.last_seq = state.last_seq;
            waiting.readings_made = state.readings_made;
        }
    }
    let mut places = HashMap::new();
    for entry in scan.entries.into_iter().filter(|entry| !entry.is_forgotten()) {
        let place = *places.entry(entry.life.clone()).or_insert(waiting.lives.len());
        if place == waiting.lives.len() {
            waiting.lives.push(WaitingLife {
                life: entry.life.clone(),
                first_seq: entry.seq,
                last_seq: entry.seq,
                batches: 0,
                readings: 0,
                bytes: 0,
                oldest_us: entry.time_us,
                gaps: Vec::new(),
                untimed: 0,
            });
        }
        let life = &mut waiting.lives[place];
        life.last_seq = entry.seq;
        life.batches += 1;
        life.readings += u64::from(entry.readings);
        life.bytes += u64::from(entry.body_bytes);
        life.gaps.extend(entry.gaps);
        life.untimed += u64::from(entry.times.boot.is_some_and(|boot| !fixed.contains(&boot)));
    }
    Ok(waiting)
}

fn log_bytes(disk: &dyn Disk, dir: &Path) -> u64 {
    let dir = log_dir(dir);
    let names = disk.list(&dir).unwrap_or_default();
    names.iter().filter_map(|entry| disk.info(&dir.join(&entry.name)).ok()).map(|info| info.len).sum()
}

/// A disk whose changes stay in memory.
#[derive(Debug)]
struct Overlay {
    below: SharedDisk,
    above: Arc<Mutex<Above>>,
}

#[derive(Debug, Default)]
struct Above {
    files: BTreeMap<PathBuf, Bytes>,
    removed: BTreeSet<PathBuf>,
}

type Bytes = Arc<Mutex<Vec<u8>>>;

impl Overlay {
    fn above(&self) -> MutexGuard<'_, Above> {
        self.above.lock().expect("no holder of this lock panics")
    }
}

impl Disk for Overlay {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut above = self.above();
        if above.files.contains_key(path) || (!above.removed.contains(path) && self.below.info(path).is_ok()) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let bytes = Bytes::default();
        above.files.insert(path.to_owned(), Arc::clone(&bytes));
        Ok(Box::new(Copied(bytes)))
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let above = self.above();
        match above.files.get(path) {
            Some(bytes) => Ok(Box::new(Copied(Arc::clone(bytes)))),
            None if above.removed.contains(path) => Err(io::ErrorKind::NotFound.into()),
            None => self.below.open_read(path),
        }
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut above = self.above();
        if !above.files.contains_key(path) {
            if above.removed.contains(path) {
                return Err(io::ErrorKind::NotFound.into());
            }
            let bytes = read_file(&*self.below, path)?;
            above.files.insert(path.to_owned(), Arc::new(Mutex::new(bytes)));
        }
        Ok(Box::new(Copied(Arc::clone(&above.files[path]))))
    }

    fn rename(&self, from: &Path, to: &Path, _replace: Replace) -> io::Result<()> {
        let mut above = self.above();
        let bytes = match above.files.remove(from) {
            Some(bytes) => bytes,
            None => Arc::new(Mutex::new(read_file(&*self.below, from)?)),
        };
        above.removed.insert(from.to_owned());
        above.files.insert(to.to_owned(), bytes);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut above = self.above();
        above.files.remove(path);
        above.removed.insert(path.to_owned());
        Ok(())
    }

    fn remove_dir(&self, _path: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn create_dir(&self, _path: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = self.below.list(path)?;
        let above = self.above();
        entries.retain(|entry| {
            let path = path.join(&entry.name);
            !above.removed.contains(&path) && !above.files.contains_key(&path)
        });
        let ours = above.files.keys().filter(|file| file.parent() == Some(path));
        let names = ours.filter_map(|file| file.file_name()?.to_str().map(str::to_owned));
        entries.extend(names.map(|name| DirEntry { name, kind: EntryKind::File }));
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn info(&self, path: &Path) -> io::Result<FileInfo> {
        let above = self.above();
        match above.files.get(path) {
            Some(bytes) => {
                let len = bytes.lock().expect("no holder of this lock panics").len() as u64;
                Ok(FileInfo { len, modified_us: 0, kind: EntryKind::File })
            }
            None if above.removed.contains(path) => Err(io::ErrorKind::NotFound.into()),
            None => self.below.info(path),
        }
    }
}

#[derive(Debug)]
struct Copied(Bytes);

impl Copied {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

impl DiskFile for Copied {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.bytes();
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let len = buffer.len().min(bytes.len() - from);
        buffer[..len].copy_from_slice(&bytes[from..from + len]);
        Ok(len)
    }

    fn write_all_at(&self, new: &[u8], offset: u64) -> io::Result<()> {
        let mut bytes = self.bytes();
        let from = usize::try_from(offset).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let len = bytes.len().max(from + new.len());
        bytes.resize(len, 0);
        bytes[from..from + new.len()].copy_from_slice(new);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        self.bytes().resize(len, 0);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}
