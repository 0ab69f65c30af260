//! A disk in memory that forgets what was not synced.
//!
//! Owns:     what a power cut does to bytes and names.
//! Does not: fail while the power is on (`fault`), except for a sync, whose aftermath only a disk can show.
//!
//! Invariants
//!  1. What a sync that returned `Ok` covered survives every cut.
//!  2. Of each write not synced, any subset of its 512-byte sectors survives; of each change of a directory not synced,
//!     all or nothing; each independent of the others.
//!  3. Handles from before a cut or a kill never reach the disk again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Component, Path};
use std::sync::{Arc, Mutex, MutexGuard};

use model::{Rng, SplitMix64};
use wal::disk::{DirEntry, Disk, DiskFile, EntryKind, FileInfo, Replace};

const SECTOR_BYTES: usize = 512;
const ROOT: u64 = 0;

/// A disk in memory. Clones are handles of the same disk and the same life.
#[derive(Clone, Debug)]
pub struct SimDisk {
    machine: Arc<Mutex<Machine>>,
    /// The life of the computer, or of the process, that this handle belongs to.
    life: u64,
}

#[derive(Clone, Debug)]
struct Machine {
    life: u64,
    powered: bool,
    operations: u64,
    cut_at: Option<u64>,
    syncs: u64,
    fail_sync_at: Option<u64>,
    next_inode: u64,
    files: HashMap<u64, File>,
    dirs: HashMap<u64, Dir>,
    /// Changes of names that were not synced, oldest first.
    changes: Vec<Vec<Change>>,
}

#[derive(Clone, Debug, Default)]
struct File {
    now: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Unsynced>,
    modified: u64,
}

#[derive(Clone, Debug)]
enum Unsynced {
    Write { at: usize, bytes: Vec<u8> },
    SetLen(usize),
}

#[derive(Clone, Debug, Default)]
struct Dir {
    now: BTreeMap<String, Node>,
    durable: BTreeMap<String, Node>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    File(u64),
    Dir(u64),
}

/// `name` in directory `dir` becomes `node`, or nothing.
#[derive(Clone, Debug)]
struct Change {
    dir: u64,
    name: String,
    node: Option<Node>,
}

impl SimDisk {
    /// An empty disk with the directory `/`.
    pub fn new() -> SimDisk {
        let machine = Machine {
            life: 0,
            powered: true,
            operations: 0,
            cut_at: None,
            syncs: 0,
            fail_sync_at: None,
            next_inode: ROOT + 1,
            files: HashMap::new(),
            dirs: HashMap::from([(ROOT, Dir::default())]),
            changes: Vec::new(),
        };
        SimDisk { machine: Arc::new(Mutex::new(machine)), life: 0 }
    }

    /// Cuts the power, if it is still on, and returns the disk as it is when power is back. What was not synced is
    /// kept, lost or torn as `seed` says.
    pub fn power_cut(&self, seed: u64) -> SimDisk {
        let mut machine = self.lock();
        machine.lose_power(&SplitMix64::new(seed));
        self.next_life(&mut machine)
    }

    /// Ends the process that uses the disk: handles die, nothing is lost, nothing is synced by it. Cuts and failures that
    /// were asked for and have not come are forgotten, as by [`SimDisk::power_cut`].
    pub fn kill(&self) -> SimDisk {
        self.next_life(&mut self.lock())
    }

    /// Cuts the power at the `n`-th changing operation from now, counted from 1, which may take effect in part.
    /// [`SimDisk::power_cut`] then says what is left.
    pub fn cut_after(&self, n: u64) {
        let mut machine = self.lock();
        machine.cut_at = Some(machine.operations + n);
    }

    /// Whether the power is on for this handle.
    pub fn is_on(&self) -> bool {
        let machine = self.lock();
        machine.powered && machine.life == self.life
    }

    /// Changing operations so far: creates, writes, changes of length or name, syncs.
    pub fn ops(&self) -> u64 {
        self.lock().operations
    }

    /// Fails the `n`-th sync of a file from now, counted from 1, as Linux does: the bytes stay readable, count as
    /// written out, and never reach the disk unless they are written again.
    pub fn fail_sync_at(&self, n: u64) {
        let mut machine = self.lock();
        machine.fail_sync_at = Some(machine.syncs + n);
    }

    /// A copy of the disk in its present state, switched on.
    pub fn fork(&self) -> SimDisk {
        let mut machine = self.lock().clone();
        machine.powered = true;
        machine.cut_at = None;
        machine.fail_sync_at = None;
        SimDisk { life: machine.life, machine: Arc::new(Mutex::new(machine)) }
    }

    /// Puts a file there, durably and whatever was there before; its directory must exist.
    ///
    /// # Errors
    /// Those of the calls it makes.
    pub fn plant(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        match self.remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let file = self.create_new(path)?;
        file.write_all_at(bytes, 0)?;
        file.sync_data()?;
        self.sync_dir(path.parent().unwrap_or(Path::new("/")))
    }

    fn next_life(&self, machine: &mut Machine) -> SimDisk {
        machine.life += 1;
        machine.powered = true;
        machine.cut_at = None;
        machine.fail_sync_at = None;
        SimDisk { machine: Arc::clone(&self.machine), life: machine.life }
    }

    fn lock(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().expect("no holder of this lock panics")
    }

    fn read<R>(&self, call: impl FnOnce(&mut Machine) -> io::Result<R>) -> io::Result<R> {
        let mut machine = self.lock();
        if machine.life != self.life || !machine.powered {
            return Err(power_is_off());
        }
        call(&mut machine)
    }

    /// Counts a changing operation. The one at which power goes leaves its effect unsynced, to be kept or lost.
    fn change<R>(&self, call: impl FnOnce(&mut Machine) -> io::Result<R>) -> io::Result<R> {
        self.read(|machine| {
            machine.operations += 1;
            if machine.cut_at != Some(machine.operations) {
                return call(machine);
            }
            let _ = call(machine);
            machine.powered = false;
            Err(power_is_off())
        })
    }

    /// Counts a sync. The one at which power goes does nothing.
    fn sync<R>(&self, call: impl FnOnce(&mut Machine) -> io::Result<R>) -> io::Result<R> {
        self.read(|machine| {
            machine.operations += 1;
            if machine.cut_at == Some(machine.operations) {
                machine.powered = false;
                return Err(power_is_off());
            }
            call(machine)
        })
    }
}

impl Default for SimDisk {
    fn default() -> Self {
        Self::new()
    }
}

fn power_is_off() -> io::Error {
    io::Error::other("the power is off")
}

impl Disk for SimDisk {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let inode = self.change(|machine| {
            let (dir, name) = machine.parent(path)?;
            if machine.dirs[&dir].now.contains_key(&name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let inode = machine.new_inode();
            machine.files.insert(inode, File { modified: machine.operations, ..File::default() });
            machine.rename_all(vec![Change { dir, name, node: Some(Node::File(inode)) }]);
            Ok(inode)
        })?;
        Ok(Box::new(SimFile { disk: self.clone(), inode, writable: true }))
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let inode = self.read(|machine| machine.file(path))?;
        Ok(Box::new(SimFile { disk: self.clone(), inode, writable: false }))
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let inode = self.read(|machine| machine.file(path))?;
        Ok(Box::new(SimFile { disk: self.clone(), inode, writable: true }))
    }

    fn rename(&self, from: &Path, to: &Path, replace: Replace) -> io::Result<()> {
        self.change(|machine| {
            let node = machine.node(from)?;
            let (from_dir, from_name) = machine.parent(from)?;
            let (to_dir, to_name) = machine.parent(to)?;
            match (machine.dirs[&to_dir].now.get(&to_name), node, replace) {
                (None, _, _) | (Some(Node::File(_)), Node::File(_), Replace::Yes) => {}
                (Some(_), _, Replace::No) => return Err(io::ErrorKind::AlreadyExists.into()),
                (Some(Node::Dir(dir)), Node::Dir(_), Replace::Yes) if machine.dirs[dir].now.is_empty() => {}
                (Some(Node::Dir(_)), Node::Dir(_), Replace::Yes) => {
                    return Err(io::ErrorKind::DirectoryNotEmpty.into());
                }
                (Some(Node::Dir(_)), Node::File(_), Replace::Yes) => return Err(io::ErrorKind::IsADirectory.into()),
                (Some(Node::File(_)), Node::Dir(_), Replace::Yes) => return Err(io::ErrorKind::NotADirectory.into()),
            }
            machine.rename_all(vec![
                Change { dir: from_dir, name: from_name, node: None },
                Change { dir: to_dir, name: to_name, node: Some(node) },
            ]);
            Ok(())
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.change(|machine| {
            machine.file(path)?;
            let (dir, name) = machine.parent(path)?;
            machine.rename_all(vec![Change { dir, name, node: None }]);
            Ok(())
        })
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.change(|machine| {
            let (dir, name) = machine.parent(path)?;
            match machine.node(path)? {
                Node::Dir(removed) if machine.dirs[&removed].now.is_empty() => {}
                Node::Dir(_) => return Err(io::ErrorKind::DirectoryNotEmpty.into()),
                Node::File(_) => return Err(io::ErrorKind::NotADirectory.into()),
            }
            machine.rename_all(vec![Change { dir, name, node: None }]);
            Ok(())
        })
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.change(|machine| {
            let (dir, name) = machine.parent(path)?;
            if machine.dirs[&dir].now.contains_key(&name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let inode = machine.new_inode();
            machine.dirs.insert(inode, Dir::default());
            machine.rename_all(vec![Change { dir, name, node: Some(Node::Dir(inode)) }]);
            Ok(())
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.sync(|machine| {
            let dir = machine.dir(path)?;
            let mut rest = Vec::new();
            for changes in std::mem::take(&mut machine.changes) {
                let (here, elsewhere): (Vec<_>, Vec<_>) = changes.into_iter().partition(|change| change.dir == dir);
                for change in here {
                    machine.dirs.get_mut(&dir).expect("it was just found").durable.apply(change);
                }
                if !elsewhere.is_empty() {
                    rest.push(elsewhere);
                }
            }
            machine.changes = rest;
            Ok(())
        })
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.read(|machine| {
            let dir = machine.dir(path)?;
            let entry = |(name, node): (&String, &Node)| DirEntry {
                name: name.clone(),
                kind: match node {
                    Node::File(_) => EntryKind::File,
                    Node::Dir(_) => EntryKind::Directory,
                },
            };
            Ok(machine.dirs[&dir].now.iter().map(entry).collect())
        })
    }

    fn info(&self, path: &Path) -> io::Result<FileInfo> {
        self.read(|machine| {
            Ok(match machine.node(path)? {
                Node::File(inode) => {
                    let file = &machine.files[&inode];
                    FileInfo { len: file.now.len() as u64, modified_us: file.modified as i64, kind: EntryKind::File }
                }
                Node::Dir(_) => FileInfo { len: 0, modified_us: 0, kind: EntryKind::Directory },
            })
        })
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    inode: u64,
    writable: bool,
}

impl SimFile {
    fn change(&self, unsynced: Unsynced) -> io::Result<()> {
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.disk.change(|machine| {
            let operations = machine.operations;
            let file = machine.files.get_mut(&self.inode).expect("a file lives as long as its handles");
            file.modified = operations;
            unsynced.apply(&mut file.now, |_| true);
            file.unsynced.push(unsynced);
            Ok(())
        })
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.read(|machine| {
            let bytes = &machine.files[&self.inode].now;
            let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or_default();
            let len = rest.len().min(buffer.len());
            buffer[..len].copy_from_slice(&rest[..len]);
            Ok(len)
        })
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let at = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.change(Unsynced::Write { at, bytes: bytes.to_vec() })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Unsynced::SetLen(usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?))
    }

    fn len(&self) -> io::Result<u64> {
        self.disk.read(|machine| Ok(machine.files[&self.inode].now.len() as u64))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.sync(|machine| {
            machine.syncs += 1;
            let fails = machine.fail_sync_at == Some(machine.syncs);
            let file = machine.files.get_mut(&self.inode).expect("a file lives as long as its handles");
            for unsynced in file.unsynced.drain(..) {
                if !fails {
                    unsynced.apply(&mut file.durable, |_| true);
                }
            }
            if fails { Err(io::Error::from_raw_os_error(EIO)) } else { Ok(()) }
        })
    }
}

/// `EIO` of Linux.
pub(crate) const EIO: i32 = 5;

impl Machine {
    fn new_inode(&mut self) -> u64 {
        self.next_inode += 1;
        self.next_inode
    }

    fn rename_all(&mut self, changes: Vec<Change>) {
        for change in changes.clone() {
            self.dirs.get_mut(&change.dir).expect("changes name directories that exist").now.apply(change);
        }
        self.changes.push(changes);
    }

    fn node(&self, path: &Path) -> io::Result<Node> {
        let mut node = Node::Dir(ROOT);
        for component in path.components() {
            let Component::Normal(name) = component else { continue };
            let Node::Dir(dir) = node else { return Err(io::ErrorKind::NotADirectory.into()) };
            let name = name.to_str().ok_or(io::ErrorKind::InvalidInput)?;
            node = *self.dirs[&dir].now.get(name).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(node)
    }

    fn dir(&self, path: &Path) -> io::Result<u64> {
        match self.node(path)? {
            Node::Dir(dir) => Ok(dir),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn file(&self, path: &Path) -> io::Result<u64> {
        match self.node(path)? {
            Node::File(file) => Ok(file),
            Node::Dir(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    /// The directory that `path` is in, and its name there.
    fn parent(&self, path: &Path) -> io::Result<(u64, String)> {
        let name = path.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
        Ok((self.dir(path.parent().unwrap_or(Path::new("/")))?, name.to_owned()))
    }

    fn lose_power(&mut self, rng: &dyn Rng) {
        for changes in std::mem::take(&mut self.changes) {
            if rng.below(2) == 0 {
                continue;
            }
            for change in changes {
                self.dirs.get_mut(&change.dir).expect("changes name directories that exist").durable.apply(change);
            }
        }
        for dir in self.dirs.values_mut() {
            dir.now = dir.durable.clone();
        }
        // In order of inode, so that a seed always means the same.
        let mut inodes: Vec<u64> = self.files.keys().copied().collect();
        inodes.sort_unstable();
        for inode in inodes {
            let file = self.files.get_mut(&inode).expect("it was just listed");
            for unsynced in file.unsynced.drain(..) {
                match rng.below(3) {
                    0 => {}
                    1 => unsynced.apply(&mut file.durable, |_| true),
                    _ => unsynced.apply(&mut file.durable, |_| rng.below(2) == 0),
                }
            }
            file.now = file.durable.clone();
        }
        self.forget_unreachable();
    }

    /// No handle of the new life leads to a file or directory without a name.
    fn forget_unreachable(&mut self) {
        let (mut files, mut dirs, mut next) = (HashSet::new(), HashSet::new(), vec![ROOT]);
        while let Some(dir) = next.pop() {
            dirs.insert(dir);
            for node in self.dirs[&dir].now.values() {
                match node {
                    Node::File(file) => {
                        files.insert(*file);
                    }
                    Node::Dir(dir) => next.push(*dir),
                }
            }
        }
        self.files.retain(|inode, _| files.contains(inode));
        self.dirs.retain(|inode, _| dirs.contains(inode));
    }
}

impl Unsynced {
    /// Applies itself to `bytes`, but for the sectors that `keeps` gives up.
    fn apply(&self, bytes: &mut Vec<u8>, mut keeps: impl FnMut(usize) -> bool) {
        match self {
            Unsynced::SetLen(len) => {
                if keeps(0) {
                    bytes.truncate(*len);
                    extend_to(bytes, *len);
                }
            }
            Unsynced::Write { at, bytes: new } => {
                let end = at + new.len();
                let mut from = *at;
                while from < end {
                    let to = ((from / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
                    if keeps(from) {
                        extend_to(bytes, to);
                        bytes[from..to].copy_from_slice(&new[from - at..to - at]);
                    }
                    from = to;
                }
            }
        }
    }
}

/// `Vec::resize` takes a step for each byte where nothing is optimized, as in most runs of tests.
fn extend_to(bytes: &mut Vec<u8>, len: usize) {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    while bytes.len() < len {
        let missing = (len - bytes.len()).min(ZEROS.len());
        bytes.extend_from_slice(&ZEROS[..missing]);
    }
}

trait Apply {
    fn apply(&mut self, change: Change);
}

impl Apply for BTreeMap<String, Node> {
    fn apply(&mut self, change: Change) {
        match change.node {
            Some(node) => self.insert(change.name, node),
            None => self.remove(&change.name),
        };
    }
}
