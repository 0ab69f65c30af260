//! Who an outbox belongs to.
//!
//! Owns:     `identity.json`: the agent's id, the agent epoch and the hardware that it was made on.
//! Does not: decide what a difference means (`outbox`).

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use wal::disk::{Disk, Replace, read_file, write_whole};

use super::OutboxError;
use super::scan::LIFE_END;

pub(super) const FILE: &str = "identity.json";
const FORMAT: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) format: u32,
    pub(super) agent: String,
    pub(super) epoch: u64,
    /// The present life of the log; it only grows.
    pub(super) life: u64,
    /// The hardware's serial number, if it has one.
    pub(super) serial: Option<String>,
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl Identity {
    pub(super) fn new(agent: &str, epoch: u64, life: u64, serial: Option<String>) -> Identity {
        Identity { format: FORMAT, agent: agent.to_owned(), epoch, life, serial }
    }

    /// What stands in `dir`; `None` if nothing does that can be read.
    pub(super) fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Identity>, OutboxError> {
        let path = dir.join(FILE);
        let bytes = match read_file(disk, &path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(OutboxError::Io { action: "read", path, source }),
        };
        if let Ok(Format { format }) = serde_json::from_slice(&bytes)
            && format > FORMAT
        {
            return Err(OutboxError::Newer { version: format });
        }
        let identity = serde_json::from_slice(&bytes).map_err(|e| e.to_string()).and_then(|identity: Identity| {
            if identity.life < LIFE_END { Ok(identity) } else { Err(format!("there is no life {}", identity.life)) }
        });
        if let Err(error) = &identity {
            tracing::error!(path = %path.display(), error, "the outbox's identity is damaged; a new epoch begins");
        }
        Ok(identity.ok())
    }

    pub(super) fn write(&self, disk: &dyn Disk, dir: &Path) -> Result<(), OutboxError> {
        let path = dir.join(FILE);
        let mut bytes = serde_json::to_vec_pretty(self).expect("numbers and texts are JSON");
        bytes.push(b'\n');
        write_whole(disk, &path, &bytes, Replace::Yes).map_err(|source| OutboxError::Io {
            action: "write",
            path,
            source,
        })
    }
}
