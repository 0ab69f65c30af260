//! The log as storage uses it: in segments on a disk of this server's, or in objects that other nodes can take over.
//!
//! Owns:     which of the two it is.
//! Does not: anything of its own: both are in the room `wal`, and differ here in nothing.

use wal::{Frame, ObjectLog, Wal, WalError, WalStats};

use crate::write::Token;

/// See the module.
#[derive(Debug)]
pub(crate) enum Log {
    Segments(Wal<Token>),
    Objects(ObjectLog<Token>),
}

impl Log {
    pub(crate) fn append(&self, record: Vec<u8>, token: Token) -> Result<(), (Token, WalError)> {
        match self {
            Log::Segments(wal) => wal.append(record, token),
            Log::Objects(log) => log.append(record, token),
        }
    }

    pub(crate) fn record_bytes_max(&self) -> usize {
        match self {
            Log::Segments(wal) => wal.record_bytes_max(),
            Log::Objects(log) => log.record_bytes_max(),
        }
    }

    pub(crate) fn durable(&self) -> u64 {
        match self {
            Log::Segments(wal) => wal.durable(),
            Log::Objects(log) => log.durable(),
        }
    }

    pub(crate) fn first(&self) -> u64 {
        match self {
            Log::Segments(wal) => wal.first(),
            Log::Objects(log) => log.first(),
        }
    }

    pub(crate) fn reader(&self, from: u64) -> Box<dyn Iterator<Item = Result<Frame, WalError>>> {
        match self {
            Log::Segments(wal) => Box::new(wal.reader(from)),
            Log::Objects(log) => Box::new(log.reader(from)),
        }
    }

    pub(crate) fn truncate_behind(&self, offset: u64) -> Result<u64, WalError> {
        match self {
            Log::Segments(wal) => wal.truncate_behind(offset),
            Log::Objects(log) => log.truncate_behind(offset),
        }
    }

    pub(crate) fn stats(&self) -> WalStats {
        match self {
            Log::Segments(wal) => wal.stats(),
            Log::Objects(log) => log.stats(),
        }
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        match self {
            Log::Segments(wal) => wal.is_poisoned(),
            Log::Objects(log) => log.is_poisoned(),
        }
    }

    pub(crate) fn close(self) -> Result<(), WalError> {
        match self {
            Log::Segments(wal) => wal.close(),
            Log::Objects(log) => log.close(),
        }
    }
}
