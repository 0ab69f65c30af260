//! What the tests share: a log with its outcomes on a channel.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use faults::SimDisk;
use model::{NodeEpoch, NodeId};
use wal::disk::{SharedDisk, create_dir_all};
use wal::{Outcome, Recovery, Wal, WalConfig, WalError};

pub(crate) const DIR: &str = "/data/wal";
pub(crate) const NODE: NodeId = NodeId(0xfeed_0000_0000_0001);
pub(crate) const BLOCK: u64 = 4096;
/// 16 blocks: a header, an end frame, and up to 14 blocks of frames.
pub(crate) const SEGMENT_BYTES: u64 = 16 * BLOCK;

pub(crate) struct Rig {
    pub(crate) wal: Wal<usize>,
    pub(crate) recovery: Recovery,
    pub(crate) outcomes: Receiver<Outcome<usize>>,
}

pub(crate) fn config(epoch: u64) -> WalConfig {
    WalConfig { segment_size_bytes: SEGMENT_BYTES, ..WalConfig::server(DIR, NODE, NodeEpoch(epoch)) }
}

impl Rig {
    pub(crate) fn open(disk: SharedDisk, config: WalConfig) -> Result<Rig, WalError> {
        let (sender, outcomes) = channel();
        // A test that has seen enough drops its receiver.
        let (wal, recovery) = Wal::open(disk, config, move |outcome| drop(sender.send(outcome)))?;
        Ok(Rig { wal, recovery, outcomes })
    }

    pub(crate) fn on(disk: &SimDisk, epoch: u64) -> Rig {
        Rig::open(Arc::new(disk.clone()), config(epoch)).unwrap()
    }

    /// Appends and waits until it is durable; the offset behind its frame.
    pub(crate) fn append(&self, record: &[u8]) -> u64 {
        self.wal.append(record.to_vec(), 0).unwrap();
        match self.outcomes.recv().unwrap() {
            Outcome::Durable(group) => group.end,
            Outcome::Failed { error, .. } | Outcome::Refused { error, .. } => panic!("{error}"),
        }
    }

    pub(crate) fn records(&self) -> Vec<Vec<u8>> {
        let frames = self.wal.reader(0).map(|frame| frame.unwrap());
        frames.flat_map(|frame| frame.records().map(<[u8]>::to_vec).collect::<Vec<_>>()).collect()
    }

    /// The records, as text.
    pub(crate) fn texts(&self) -> String {
        let texts: Vec<String> =
            self.records().into_iter().map(|record| String::from_utf8_lossy(&record).into_owned()).collect();
        texts.join(" ")
    }
}

/// A disk with the log's folder, durably.
pub(crate) fn sim() -> SimDisk {
    let disk = SimDisk::new();
    create_dir_all(&disk, Path::new(DIR)).unwrap();
    disk
}

/// The record with the number `index`: no other has its bytes.
pub(crate) fn record(index: usize, bytes: usize) -> Vec<u8> {
    let mut record = vec![0; bytes.max(8)];
    for (at, chunk) in record.chunks_mut(8).enumerate() {
        let word = (index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(at as u64) | 1 << 63;
        chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
    }
    record[..8].copy_from_slice(&(index as u64).to_le_bytes());
    record
}

/// The number of a record, if it is one of [`record`]'s.
pub(crate) fn index_of(bytes: &[u8]) -> Option<usize> {
    let index = u64::from_le_bytes(*bytes.first_chunk()?) as usize;
    (bytes == record(index, bytes.len())).then_some(index)
}

pub(crate) fn segment_path(id: u64) -> std::path::PathBuf {
    Path::new(DIR).join(format!("{id:020}.wal"))
}
