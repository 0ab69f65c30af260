//! What can go wrong with a log, by what the caller should do.

use std::io;

use model::{NodeEpoch, NodeId};

/// Why the log did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The disk refused. Reported for records, it means that they may or may not be found after a restart.
    #[error("{action} {file}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file or directory it was done to.
        file: String,
        /// What the disk said.
        source: io::Error,
    },
    /// An earlier write or sync failed, so nothing about the tail of the log is known (P2). Reopen the log.
    #[error("an earlier write or sync of the log failed; reopen it")]
    Poisoned,
    /// The log is being closed.
    #[error("the log is closed")]
    Closed,
    /// As many bytes wait as may. Retry later.
    #[error("{bytes_waiting} bytes wait to be written to the log, its limit")]
    Full {
        /// Bytes that wait.
        bytes_waiting: usize,
    },
    /// The record can never be appended to this log. Split it.
    #[error("a record of {bytes} bytes is longer than the log takes ({bytes_max})")]
    RecordTooLarge {
        /// Length of the record.
        bytes: usize,
        /// The most that this log takes.
        bytes_max: usize,
    },
    /// A later release wrote this log; it was not touched (P13). Run that release.
    #[error("{file} has format version {version}, newer than this release reads; nothing was changed")]
    NewerFormat {
        /// The segment.
        file: String,
        /// Its version.
        version: u32,
    },
    /// The log belongs to another node; it was not touched. Give it its own folder back.
    #[error("{file} was written by node {found}, this is node {ours}; nothing was changed")]
    WrongNode {
        /// The segment.
        file: String,
        /// The node that wrote it.
        found: NodeId,
        /// The node that opens it.
        ours: NodeId,
    },
    /// A later life of this node has written the log; it was not touched. This life must end.
    #[error("{file} was written in node epoch {found}, later than ours ({ours}); nothing was changed")]
    Fenced {
        /// The segment.
        file: String,
        /// The epoch that wrote it.
        found: NodeEpoch,
        /// The epoch that opens it.
        ours: NodeEpoch,
    },
    /// A frame that was whole when the log was opened, or written since, is damaged. An operator decides.
    #[error("{file} is damaged at byte {at}")]
    Corrupt {
        /// The segment.
        file: String,
        /// Where in the file the frame begins.
        at: u64,
    },
    /// The settings contradict each other. Change them.
    #[error("{0}")]
    Config(&'static str),
}

impl WalError {
    /// Whether the disk had no room (P9): it may have some later.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, WalError::Io { source, .. } if crate::disk::is_full(source))
    }
}

/// Names the action and the file of an [`io::Error`].
pub(crate) trait Context<T> {
    fn context(self, action: &'static str, file: impl ToString) -> Result<T, WalError>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, action: &'static str, file: impl ToString) -> Result<T, WalError> {
        self.map_err(|source| WalError::Io { action, file: file.to_string(), source })
    }
}
