//! What can go wrong, by what the caller can do about it.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An error of the storage room.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The request itself cannot be stored; the same request will fail again.
    #[error("{0}")]
    Invalid(String),
    /// Memory, log or disk is at its bound; nothing was stored. Try again after the time given.
    #[error("{reason}; try again in {} s", .retry_after.as_secs().max(1))]
    Busy {
        /// What is full.
        reason: Cow<'static, str>,
        /// When it is worth trying again.
        retry_after: Duration,
    },
    /// A sync failed earlier: nothing more is acknowledged until the server is restarted (P2).
    #[error("the log is poisoned by a failed sync; restart the server to recover")]
    Poisoned,
    /// The server is stopping.
    #[error("the server is stopping")]
    Closed,
    /// Another process goes on in the name of this node: nothing more is acknowledged or committed here.
    #[error("another process has taken over the log of this node, and goes on with it; stop this one")]
    Fenced,
    /// A file that must hold what we wrote does not (P11). An operator decides.
    #[error("{} is corrupt: {reason}", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Written by a newer version (P13); nothing was changed.
    #[error("{} was written by a newer version of eden ({found}); use that version to open it", .path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// The version or feature found there.
        found: String,
    },
    /// Another server has this data folder.
    #[error("another eden server (process {pid}) is using {}; stop it or choose another --data", .path.display())]
    Locked {
        /// The data folder.
        path: PathBuf,
        /// Its process id, if it could be read, else "unknown".
        pid: String,
    },
    /// The tables are in a place that another server writes to.
    #[error(
        "the tables at {place} belong to another eden server ({owner}); choose another place in [storage] tables, or, \
             if that server is gone for good, remove {note}"
    )]
    Owned {
        /// Where the tables are.
        place: String,
        /// Whose they are.
        owner: String,
        /// The file or object that says so.
        note: String,
    },
    /// An object store that does not do what commits need.
    #[error("the object store of {place} cannot keep tables: {reason}; choose another store in [storage] tables")]
    Unfit {
        /// Where the tables were to be.
        place: String,
        /// What it does not do.
        reason: String,
    },
    /// The disk failed at something.
    #[error("{action} {}: {source}", .path.display())]
    Io {
        /// What was being done, imperative: "create", "sync".
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the disk said.
        source: std::io::Error,
    },
    /// The log failed.
    #[error("the log: {0}")]
    Wal(#[from] wal::WalError),
}

impl StorageError {
    /// Whether the disk had no room (P9).
    pub(crate) fn is_disk_full(&self) -> bool {
        match self {
            StorageError::Io { source, .. } => wal::disk::is_full(source),
            StorageError::Wal(error) => error.is_disk_full(),
            _ => false,
        }
    }

    /// That the version of a table which was to be ours is another node's. Nothing has changed; who tries again first
    /// reads what the other has committed.
    pub(crate) fn version_taken(path: &Path) -> StorageError {
        StorageError::io("commit", path)(std::io::Error::new(std::io::ErrorKind::AlreadyExists, VersionTaken))
    }

    /// Whether it is [`StorageError::version_taken`].
    pub(crate) fn is_version_taken(&self) -> bool {
        let StorageError::Io { source, .. } = self else { return false };
        source.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<VersionTaken>)
    }

    /// An adapter for `map_err`: names what was being done to which file.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StorageError {
        let path = path.to_owned();
        move |source| StorageError::Io { action, path, source }
    }
}

/// See [`StorageError::version_taken`].
#[derive(Debug, thiserror::Error)]
#[error("other nodes commit to the table faster than this one; try again")]
struct VersionTaken;
