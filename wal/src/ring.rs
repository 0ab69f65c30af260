//! The log of an outbox: one owner, no threads, a bounded ring of small segments.
//!
//! Owns:     the bound, and dropping the oldest segments when it is reached (P7).
//! Does not: decide when to sync; forget anything without saying so.
//!
//! Invariants
//!  1. The files take no more than `bytes_max`.
//!  2. Only durable frames can be read or truncated away.
//!  3. Once a write or sync failed, nothing is durable any more until the log is opened again (P2).

use std::path::PathBuf;
use std::sync::Arc;

use model::{NodeEpoch, NodeId, Position};

use crate::appender::{Appender, observe, room};
use crate::catalog::Segment;
use crate::disk::SharedDisk;
use crate::error::WalError;
use crate::frame::{BLOCK_BYTES, RECORD_BYTES_MAX, Reason, frame_bytes, payload_bytes_of};
use crate::reader::FrameReader;
use crate::recovery::{self, Life, Policy, Recovery};
use crate::segment::{self, SEGMENT_BYTES_MAX, SegmentHeader};

/// Bytes of a segment of an outbox (1 MiB).
pub const RING_SEGMENT_BYTES: u64 = 1 << 20;

/// Settings of a [`RingLog`].
#[derive(Clone, Debug)]
pub struct RingConfig {
    /// Folder of the segments; made if missing. Nothing else belongs there.
    pub dir: PathBuf,
    /// The node that the log belongs to.
    pub node: NodeId,
    /// The present life; not lower than any that wrote to the log.
    pub epoch: NodeEpoch,
    /// Bytes of a segment at most, a multiple of 4096.
    pub segment_size_bytes: u64,
    /// Bytes of all segments at most; two segments at least.
    pub bytes_max: u64,
}

impl RingConfig {
    /// The settings of an outbox of at most `bytes_max`.
    pub fn outbox(dir: impl Into<PathBuf>, node: NodeId, epoch: NodeEpoch, bytes_max: u64) -> RingConfig {
        RingConfig { dir: dir.into(), node, epoch, segment_size_bytes: RING_SEGMENT_BYTES, bytes_max }
    }
}

/// A record's place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Place of its frame in the order of writes.
    pub position: Position,
    /// Offset behind its frame.
    pub end: u64,
    /// What had to go to make room.
    pub dropped: Option<Dropped>,
}

/// Records that were dropped because the ring was full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Offset of the first of them.
    pub from: u64,
    /// Offset behind the last of them.
    pub to: u64,
    /// How many there were, without those below an offset that was given to [`RingLog::truncate_behind`].
    pub records: u64,
}

/// A bounded log driven by its owner.
///
/// What is dropped is reported when it is; if power fails in between, [`Recovery::first`] shows it at the next start.
#[derive(Debug)]
pub struct RingLog {
    log: Appender,
    config: RingConfig,
    record_bytes_max: usize,
    truncated: u64,
    /// Dropped, and not reported yet.
    dropped: Option<Dropped>,
    /// The segment that is being dropped and what was counted in it: if syncing the directory fails, the file is
    /// gone before the segment is, and cannot be counted again.
    leaving: Option<(u64, Option<Dropped>)>,
    poisoned: bool,
}

impl RingLog {
    /// Recovers what is in the folder and starts a new segment.
    ///
    /// # Errors
    /// As for [`crate::Wal::open`].
    pub fn open(disk: SharedDisk, config: RingConfig) -> Result<(RingLog, Recovery), WalError> {
        let size = config.segment_size_bytes;
        if !size.is_multiple_of(BLOCK_BYTES) || !(4 * BLOCK_BYTES..=SEGMENT_BYTES_MAX).contains(&size) {
            return Err(WalError::Config("the segment size must be a multiple of 4096 from 16 KiB to 1 TiB"));
        }
        if config.bytes_max < 2 * size {
            return Err(WalError::Config("the outbox must hold two segments at least"));
        }
        let life = Life { node: config.node, epoch: config.epoch };
        let policy = Policy {
            segment_bytes: size,
            first_segment_bytes: size,
            filled_ahead: false,
            many_frames_a_sync: true,
            offset_min: 0,
        };
        let (log, recovery) = recovery::open(disk, &config.dir, life, policy)?;
        let record_bytes_max = RECORD_BYTES_MAX.min(room(2 * BLOCK_BYTES, size) - payload_bytes_of(0));
        Ok((
            RingLog { log, config, record_bytes_max, truncated: 0, dropped: None, leaving: None, poisoned: false },
            recovery,
        ))
    }

    /// Writes one record; it is durable after the next [`RingLog::sync`]. Whole segments at the old end are dropped
    /// if there is no room otherwise.
    ///
    /// # Errors
    /// [`WalError::RecordTooLarge`]; [`WalError::Io`] if there is no space for another segment, to be tried again
    /// later; [`WalError::Poisoned`] after a failed write or sync. Segments may have been dropped for nothing then:
    /// see [`RingLog::take_dropped`].
    pub fn append(&mut self, record: &[u8]) -> Result<Appended, WalError> {
        if record.len() > self.record_bytes_max {
            return Err(WalError::RecordTooLarge { bytes: record.len(), bytes_max: self.record_bytes_max });
        }
        self.check()?;
        let payload_bytes = payload_bytes_of(record.len());
        let rotates = payload_bytes > self.log.room();
        // With the end frame that must still find room, and on rotation the new header and the old end frame.
        let grows = frame_bytes(payload_bytes) + if rotates { 3 } else { 1 } * BLOCK_BYTES;
        self.make_room(grows)?;
        if rotates {
            self.rotate()?;
        }
        let written = self.log.append(std::iter::once(record));
        let (position, end) = self.trust(written)?;
        Ok(Appended { position, end, dropped: self.take_dropped() })
    }

    /// What was dropped for an append that then failed. If it is not asked for, the next append reports it.
    pub fn take_dropped(&mut self) -> Option<Dropped> {
        self.dropped.take()
    }

    /// Makes everything appended durable and says up to which offset that is.
    ///
    /// # Errors
    /// [`WalError::Io`] the first time it fails, then [`WalError::Poisoned`]. Open the log again.
    pub fn sync(&mut self) -> Result<u64, WalError> {
        self.check()?;
        if self.log.offset() == self.durable() {
            return Ok(self.durable());
        }
        let synced = self.log.sync();
        self.trust(synced)
    }

    /// Offset up to which everything is durable.
    pub fn durable(&self) -> u64 {
        self.log.catalog().durable()
    }

    /// Offset behind the last frame, durable or not.
    pub fn appended(&self) -> u64 {
        self.log.offset()
    }

    /// Offset of the oldest frame still there.
    pub fn first(&self) -> u64 {
        self.log.catalog().first()
    }

    /// Bytes of all segment files.
    pub fn bytes_on_disk(&self) -> u64 {
        self.log.catalog().size().1
    }

    /// The longest record that [`RingLog::append`] takes.
    pub fn record_bytes_max(&self) -> usize {
        self.record_bytes_max
    }

    /// Raises the Lamport counter: every frame from now on beats a write at `counter`.
    pub fn observe(&self, counter: u64) {
        observe(self.log.counter(), counter);
    }

    /// Reads the durable frames at `from` and behind.
    pub fn reader(&self, from: u64) -> FrameReader {
        FrameReader::new(Arc::clone(self.log.catalog()), from)
    }

    /// The same where a frame begins at `start`, which is found without reading those before it.
    pub fn reader_at(&self, start: u64) -> FrameReader {
        self.reader(start).at_frame()
    }

    /// Removes the segments whose records all end at or below `offset`, never the active one, and says how many.
    ///
    /// # Errors
    /// [`WalError::Io`]: some may be removed; call again.
    pub fn truncate_behind(&mut self, offset: u64) -> Result<u64, WalError> {
        self.truncated = self.truncated.max(offset.min(self.durable()));
        self.log.catalog().truncate_behind(self.truncated)
    }

    /// Writes a clean end frame and syncs.
    ///
    /// # Errors
    /// [`WalError::Poisoned`] or what kept the end from being written; the log is as safe as after a crash.
    pub fn close(mut self) -> Result<(), WalError> {
        self.check()?;
        self.log.append_end(Reason::Clean)?;
        self.log.sync()?;
        Ok(())
    }

    fn make_room(&mut self, bytes: u64) -> Result<(), WalError> {
        while self.bytes_on_disk() + bytes > self.config.bytes_max {
            let Some(oldest) = self.log.catalog().oldest_closed() else { break };
            let gone = match self.leaving {
                Some((id, gone)) if id == oldest.id => gone,
                _ => self.count(&oldest),
            };
            self.leaving = Some((oldest.id, gone));
            self.log.catalog().remove_oldest_if(|_| true)?;
            let Some(gone) = gone else { continue };
            match &mut self.dropped {
                Some(dropped) => {
                    dropped.to = gone.to;
                    dropped.records += gone.records;
                }
                None => self.dropped = Some(gone),
            }
        }
        Ok(())
    }

    /// The records of a segment that were not truncated; `None` if all of them were.
    fn count(&self, segment: &Segment) -> Option<Dropped> {
        let mut gone = None;
        for frame in self.reader(segment.base).of_segment(segment.id) {
            // What can no longer be read cannot be counted, and was reported or never durable; it must go all the same.
            let Ok(frame) = frame else { break };
            if frame.end > self.truncated {
                let from = frame.position.offset;
                let dropped = gone.get_or_insert(Dropped { from, to: segment.data_end, records: 0 });
                dropped.records += frame.record_count() as u64;
            }
        }
        gone
    }

    fn rotate(&mut self) -> Result<(), WalError> {
        let life = self.log.life();
        let header = SegmentHeader {
            segment: self.log.next_id(),
            node: life.node,
            epoch: life.epoch,
            bytes_max: self.config.segment_size_bytes,
            is_filled: false,
            opens_life: false,
        };
        let catalog = Arc::clone(self.log.catalog());
        let fresh = segment::create(&*catalog.disk, &catalog.dir, header, None)?;
        let ended = self.log.append_end(Reason::Rotated).and_then(|_| self.log.sync());
        self.trust(ended)?;
        self.log.switch_to(fresh);
        Ok(())
    }

    fn check(&self) -> Result<(), WalError> {
        if self.poisoned { Err(WalError::Poisoned) } else { Ok(()) }
    }

    /// Poisons the log if a write or sync failed.
    fn trust<R>(&mut self, result: Result<R, WalError>) -> Result<R, WalError> {
        self.poisoned |= result.is_err();
        result
    }
}
