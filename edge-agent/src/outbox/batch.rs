//! A batch as it is sent, and its name.

use super::Encoding;
use crate::gap::Life;

/// Level of zstd: bodies are small, and 3 is its default.
const ZSTD_LEVEL: i32 = 3;

/// A batch's name for its agent: no two batches of an outbox have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchKey {
    /// The agent epoch.
    pub epoch: u64,
    /// Its number in it.
    pub seq: u64,
}

/// A durable batch, ready to be sent. The same batch has the same bytes at every attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Under which id and epoch it is sent.
    pub life: Life,
    /// Its number.
    pub seq: u64,
    /// Its readings.
    pub readings: u32,
    /// Made since the connection came about; it goes before what was handed out of the backlog. Never with
    /// [`super::Replay::OldestFirst`].
    pub is_fresh: bool,
    /// How the body is packed.
    pub encoding: Encoding,
    /// The body.
    pub body: Vec<u8>,
}

impl Batch {
    /// Its name.
    pub fn key(&self) -> BatchKey {
        BatchKey { epoch: self.life.epoch, seq: self.seq }
    }
}

/// A body as it is kept and sent.
pub(super) fn pack(text: String) -> (Encoding, Vec<u8>) {
    match zstd::bulk::compress(text.as_bytes(), ZSTD_LEVEL) {
        Ok(packed) if packed.len() < text.len() => (Encoding::Zstd, packed),
        _ => (Encoding::Plain, text.into_bytes()),
    }
}
