//! `addresses.json` in the data folder: where a running server listens.
//!
//! Invariants
//!  1. It stands only while a server of this folder is ready: written when all endpoints listen and the log is
//!     replayed, removed at stop.
//!  2. A server that cannot have the folder leaves the file of the one that has it.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use wal::disk::{Disk, LocalDisk, Replace, SharedDisk, read_file, write_whole};

/// The file's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// Host and port of the HTTP endpoint.
    pub http: String,
    /// Host and port of the MQTT listener; absent if it is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mqtt: Option<String>,
    /// Host and port of the listener of PostgreSQL's protocol; absent if it is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<String>,
    /// Host and port of the gRPC listener; absent if it is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<String>,
}

/// The file's path in the data folder `data`.
pub fn path(data: &Path) -> PathBuf {
    data.join("addresses.json")
}

impl Addresses {
    /// Of a server that listens there.
    pub fn new(
        http: SocketAddr,
        mqtt: Option<SocketAddr>,
        postgres: Option<SocketAddr>,
        grpc: Option<SocketAddr>,
    ) -> Self {
        let text = |address: SocketAddr| address.to_string();
        Addresses { http: http.to_string(), mqtt: mqtt.map(text), postgres: postgres.map(text), grpc: grpc.map(text) }
    }

    /// Reads the file of `data` on this machine's disk; `None` if there is none or it is not one of ours.
    pub fn read(data: &Path) -> Option<Self> {
        serde_json::from_slice(&read_file(&LocalDisk, &path(data)).ok()?).ok()
    }

    /// Writes the file of `data`, whole or not at all.
    ///
    /// # Errors
    /// Those of writing and syncing it.
    pub fn write(&self, disk: &dyn Disk, data: &Path) -> io::Result<()> {
        let mut text = serde_json::to_vec(self)?;
        text.push(b'\n');
        write_whole(disk, &path(data), &text, Replace::Yes)
    }

    /// Removes the file of `data` if there is one.
    ///
    /// # Errors
    /// Those of removing it.
    pub fn remove(disk: &dyn Disk, data: &Path) -> io::Result<()> {
        match disk.remove_file(&path(data)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}

/// A file that stood there at start. It is out of the way while the folder's lock is sought, and put back
/// if another server turns out to hold it.
#[derive(Debug)]
pub struct Stale {
    disk: SharedDisk,
    data: PathBuf,
    found: Option<Vec<u8>>,
}

impl Stale {
    /// Takes away the file of `data`.
    ///
    /// # Errors
    /// Those of removing it.
    pub fn take(disk: SharedDisk, data: &Path) -> io::Result<Self> {
        let found = read_file(&*disk, &path(data)).ok();
        Addresses::remove(&*disk, data)?;
        Ok(Stale { disk, data: data.into(), found })
    }

    /// The folder is ours: the file was stale.
    pub fn forget(mut self) {
        self.found = None;
    }
}

impl Drop for Stale {
    fn drop(&mut self) {
        if let Some(bytes) = &self.found {
            // Best effort: its owner may have stopped meanwhile, then readers find out by asking it.
            let _ = write_whole(&*self.disk, &path(&self.data), bytes, Replace::No);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_stale_file_is_gone_and_another_servers_file_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let addresses = Addresses { http: "127.0.0.1:4200".into(), mqtt: None, postgres: None, grpc: None };
        addresses.write(&LocalDisk, dir.path()).unwrap();
        assert_eq!(fs::read_to_string(path(dir.path())).unwrap(), "{\"http\":\"127.0.0.1:4200\"}\n");

        let take = || Stale::take(Arc::new(LocalDisk), dir.path()).unwrap();
        let stale = take();
        assert_eq!(Addresses::read(dir.path()), None);
        drop(stale);
        assert_eq!(Addresses::read(dir.path()), Some(addresses));

        take().forget();
        assert_eq!(Addresses::read(dir.path()), None);

        let all = Addresses {
            mqtt: Some("127.0.0.1:1883".into()),
            postgres: Some("127.0.0.1:5432".into()),
            grpc: Some("127.0.0.1:4300".into()),
            ..Addresses::read(dir.path()).unwrap_or(Addresses {
                http: "127.0.0.1:4200".into(),
                mqtt: None,
                postgres: None,
                grpc: None,
            })
        };
        all.write(&LocalDisk, dir.path()).unwrap();
        assert_eq!(Addresses::read(dir.path()), Some(all));
    }
}
