//! Who this node is and in which life: `DATA/node/identity.json`, and the lock that keeps a second server out.

use std::io;
use std::path::Path;

use model::{NodeEpoch, NodeId, Rng};
use serde::{Deserialize, Serialize};
use wal::disk::{self, Disk, DiskLock, Replace};

use crate::StorageError;

/// The only format there is.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct IdentityFile {
    format: u32,
    /// Hexadecimal.
    node: String,
    epoch: u64,
}

/// A node in its present life.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) node: NodeId,
    pub(crate) epoch: NodeEpoch,
}

/// Whether a server is using the data folder now. Changes nothing.
pub(crate) fn is_locked(disk: &dyn Disk, data: &Path) -> bool {
    disk.is_locked(&data.join("node").join("lock")).unwrap_or(false)
}

/// The node's id; `None` if the folder is not one of a node yet.
pub(crate) fn read(disk: &dyn Disk, data: &Path) -> Result<Option<NodeId>, StorageError> {
    let path = data.join("node").join("identity.json");
    match disk::read_file(disk, &path) {
        Ok(bytes) => parse(&path, &bytes).map(|(node, _)| Some(node)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(StorageError::io("read", &path)(e)),
    }
}

/// The node and the epoch that a file names.
fn parse(path: &Path, bytes: &[u8]) -> Result<(NodeId, u64), StorageError> {
    let corrupt = |reason: String| StorageError::Corrupt { path: path.to_owned(), reason };
    let file: IdentityFile = serde_json::from_slice(bytes).map_err(|e| corrupt(e.to_string()))?;
    if file.format > FORMAT {
        return Err(StorageError::NewerFormat { path: path.to_owned(), found: format!("format {}", file.format) });
    }
    let node: NodeId = file.node.parse().map_err(|_| corrupt(format!("node id {:?}", file.node)))?;
    Ok((node, file.epoch))
}

/// Locks the data folder.
pub(crate) fn lock(disk: &dyn Disk, data: &Path) -> Result<Box<dyn DiskLock>, StorageError> {
    lock_in(disk, &data.join("node"))
}

/// As [`lock`], of the `folder` of a node.
pub(crate) fn lock_in(disk: &dyn Disk, folder: &Path) -> Result<Box<dyn DiskLock>, StorageError> {
    disk::create_dir_all(disk, folder).map_err(StorageError::io("create", folder))?;
    let path = folder.join("lock");
    disk.lock(&path, &format!("{}\n", std::process::id())).map_err(|e| {
        if e.kind() != io::ErrorKind::WouldBlock {
            return StorageError::io("lock", &path)(e);
        }
        let note = disk::read_file(disk, &path).unwrap_or_default();
        let pid = String::from_utf8_lossy(&note).trim().to_owned();
        let data = folder.parent().unwrap_or(folder).to_owned();
        StorageError::Locked { path: data, pid: if pid.is_empty() { "unknown".into() } else { pid } }
    })
}

/// Begins the next life of the node, drawing its id in the first one. Durable before it returns, so no two lives
/// ever share an epoch.
pub(crate) fn next_life(disk: &dyn Disk, data: &Path, rng: &dyn Rng) -> Result<Identity, StorageError> {
    let path = data.join("node").join("identity.json");
    let (node, epoch) = match disk::read_file(disk, &path) {
        Ok(bytes) => {
            let (node, epoch) = parse(&path, &bytes)?;
            (node, epoch + 1)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => (NodeId(rng.next_u64()), 1),
        Err(e) => return Err(StorageError::io("read", &path)(e)),
    };
    let file = IdentityFile { format: FORMAT, node: node.to_string(), epoch };
    let bytes = serde_json::to_vec(&file).expect("plain data");
    disk::write_whole(disk, &path, &bytes, Replace::Yes).map_err(StorageError::io("write", &path))?;
    Ok(Identity { node, epoch: NodeEpoch(epoch) })
}
