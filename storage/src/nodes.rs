//! Several nodes in one data folder: who is who, and taking over the log of one that is gone (docs/adr/0018).
//!
//! Owns:     the lives of the nodes, `DATA/nodes/<node>/epochs/<epoch>`; opening a storage among others; adoption.
//! Does not: find out who is dead: whoever adopts says so, and is right even if that node still runs.
//!
//! Invariants
//!  1. A life is claimed by making a file that must not exist: no two ever have one epoch.
//!  2. A life writes only after the logs of all lives of its node before it are sealed, so no earlier one can
//!     acknowledge anything from then on.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use model::{Clock, NodeEpoch, NodeId, Rng};
use wal::disk::{self, CommonDisk, Disk, DiskLock, Replace, SharedDisk};

use crate::identity::{self, Identity};
use crate::place::{Disks, Place};
use crate::{ReplayProgress, Storage, StorageConfig, StorageError};

/// Lives that may be claimed by others while this one tries.
const CLAIM_TRIES_MAX: usize = 1000;

/// How long the flushes of an adoption may take before the rest is left to another one.
const ADOPTION_GRACE: Duration = Duration::from_secs(3600);

/// In whose name a storage is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taking {
    /// This process is the node, and the only one as far as a lock can tell.
    Ours,
    /// Of a node that is gone; a lock that it may still have is not asked.
    AnothersLog,
}

/// What an adoption did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// The life of the dead node in whose name it was done.
    pub epoch: NodeEpoch,
    /// Bytes of its log that were replayed.
    pub log_bytes: u64,
}

fn home_of(data: &Path, node: NodeId) -> PathBuf {
    data.join("nodes").join(node.to_string())
}

/// # Errors
/// [`StorageError::Invalid`] if the data folder is one that several nodes share.
pub(crate) fn check_not_shared(disk: &dyn Disk, data: &Path) -> Result<(), StorageError> {
    match disk.info(&data.join("nodes")) {
        Ok(_) => Err(StorageError::Invalid(format!(
            "several nodes share {}; a server of its own, or a repair, would be in their way: choose another --data",
            data.display()
        ))),
        Err(_) => Ok(()),
    }
}

/// As [`Storage::open`], of `node` among others.
pub(crate) fn open(
    config: StorageConfig,
    node: NodeId,
    taking: Taking,
    disks: Disks,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    progress: &dyn Fn(ReplayProgress),
) -> Result<Arc<Storage>, StorageError> {
    let Disks { data: disk, tables: elsewhere } = disks;
    if elsewhere.is_some() || disk.is_remote() {
        let reason =
            "nodes share a folder of a disk so far, with the tables in it: no tables elsewhere, no object store";
        return Err(StorageError::Invalid(reason.into()));
    }
    if disk.info(&config.data.join("node")).is_ok() {
        return Err(StorageError::Invalid(format!(
            "{} is the data folder of one server, which has a log there; nodes cannot share it",
            config.data.display()
        )));
    }
    let writer = format!("{node}-{:016x}", rng.next_u64());
    let disk: SharedDisk = Arc::new(CommonDisk::new(disk, config.data.clone(), writer));
    let home = home_of(&config.data, node);
    disk::create_dir_all(&*disk, &home).map_err(StorageError::io("create", &home))?;
    let lock: Box<dyn DiskLock> = match taking {
        Taking::Ours => identity::lock_in(&*disk, &home)?,
        Taking::AnothersLog => Box::new(()),
    };
    let epoch = claim(&*disk, &home)?;
    let tables_dir = config.data.join("tables");
    let place = Place { home, tables_disk: Arc::clone(&disk), disk, tables_dir, elsewhere: None };
    Storage::start(config, place, Identity { node, epoch }, lock, clock, rng, progress)
}

/// Begins the next life of the node whose folder is `home`. Durable before it returns.
fn claim(disk: &dyn Disk, home: &Path) -> Result<NodeEpoch, StorageError> {
    let epochs = home.join("epochs");
    disk::create_dir_all(disk, &epochs).map_err(StorageError::io("create", &epochs))?;
    for _ in 0..CLAIM_TRIES_MAX {
        let listed = disk.list(&epochs).map_err(StorageError::io("list", &epochs))?;
        let last = listed.iter().filter_map(|entry| entry.name.parse::<u64>().ok()).max().unwrap_or(0);
        let path = epochs.join(format!("{:020}", last + 1));
        match disk::write_whole(disk, &path, b"", Replace::No) {
            Ok(()) => return Ok(NodeEpoch(last + 1)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(StorageError::io("claim", &path)(e)),
        }
    }
    let reason = "other processes begin lives of this node one after the other; stop them";
    Err(StorageError::Busy { reason: reason.into(), retry_after: Duration::from_secs(10) })
}

/// Takes over the log of the node `dead` in the folder that `config` names: seals it, so that a process that is not quite
/// dead acknowledges nothing any more; brings all that it acknowledged to the tables; and lets go of the log. Blocks.
///
/// What the dead node knew of agents (which of their batches it has) stays in its log, for its next life: a batch that an
/// agent sends again to another node is applied again there, as from any other client.
///
/// # Errors
/// Those of opening a storage and of its flushes. What the dead node acknowledged is safe after any of them: whoever
/// adopts again goes on.
pub fn adopt(
    config: StorageConfig,
    disks: impl Into<Disks>,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    dead: NodeId,
) -> Result<Adopted, StorageError> {
    if config.shared == Some(dead) {
        let reason = format!("node {dead} cannot take over its own log; it does so by starting");
        return Err(StorageError::Invalid(reason));
    }
    let replayed = std::cell::Cell::new(0);
    let config = StorageConfig { shared: Some(dead), ..config };
    let progress = |progress: ReplayProgress| replayed.set(progress.total_bytes);
    let storage = open(config, dead, Taking::AnothersLog, disks.into(), clock, rng, &progress)?;
    let epoch = storage.shared.context.epoch;
    storage.close(ADOPTION_GRACE)?;
    Ok(Adopted { epoch, log_bytes: replayed.get() })
}
