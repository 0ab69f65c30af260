//! The one place that writes frames behind each other.
//!
//! Owns:     the active segment, the next position, the order end frame, sync, next segment.
//! Does not: decide when to sync or what a failure means (`server`, `ring`).
//!
//! Invariants
//!  1. `durable <= offset`, and both only grow.
//!  2. A segment gets its first frame only after the end frame of the one before was synced.
//!  3. Every segment keeps room for its end frame.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::Position;

use crate::catalog::{Catalog, Content, Segment};
use crate::disk::DiskFile;
use crate::error::{Context, WalError};
use crate::frame::{
    BLOCK_BYTES, Closing, FRAME_HEADER_BYTES, FrameBuffer, Header, Kind, NUMBER_MAX, PAYLOAD_BYTES_MAX, Reason,
};
use crate::recovery::Life;
use crate::segment::{Fresh, SegmentHeader, file_name};

/// The highest Lamport counter of a log, raised from outside too.
pub(crate) type Counter = Arc<AtomicU64>;

#[derive(Debug)]
pub(crate) struct Appender {
    life: Life,
    catalog: Arc<Catalog>,
    counter: Counter,
    active: Active,
    /// The id that the next segment gets. An attempt that failed may have used one up.
    next_id: u64,
    buffer: FrameBuffer,
}

#[derive(Debug)]
struct Active {
    file: Box<dyn DiskFile>,
    id: u64,
    /// Log offset of byte [`BLOCK_BYTES`] of the file.
    base: u64,
    /// Where in the file the next frame begins.
    at: u64,
    /// The file grows no longer than this.
    bytes_max: u64,
}

impl Active {
    fn offset(&self) -> u64 {
        self.base + (self.at - BLOCK_BYTES)
    }
}

/// Payload bytes of the longest data frame that leaves room for the end frame between byte `at` and `bytes_max`.
pub(crate) fn room(at: u64, bytes_max: u64) -> usize {
    let blocks = bytes_max.saturating_sub(at + BLOCK_BYTES) / BLOCK_BYTES;
    let bytes = usize::try_from(blocks * BLOCK_BYTES).unwrap_or(usize::MAX);
    bytes.saturating_sub(FRAME_HEADER_BYTES).min(PAYLOAD_BYTES_MAX)
}

impl Appender {
    /// Goes on behind the start frame in `fresh`, which ends at log offset `end`.
    pub(crate) fn new(life: Life, catalog: Arc<Catalog>, counter: Counter, fresh: Fresh, end: u64) -> Appender {
        let SegmentHeader { segment: id, bytes_max, .. } = fresh.header;
        let at = 2 * BLOCK_BYTES;
        let active = Active { file: fresh.file, id, base: end - BLOCK_BYTES, at, bytes_max };
        Appender { life, catalog, counter, active, next_id: id + 1, buffer: FrameBuffer::default() }
    }

    pub(crate) fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    pub(crate) fn counter(&self) -> &Counter {
        &self.counter
    }

    pub(crate) fn life(&self) -> Life {
        self.life
    }

    /// The id for a new segment, given out once.
    pub(crate) fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    /// Log offset of the next frame.
    pub(crate) fn offset(&self) -> u64 {
        self.active.offset()
    }

    /// Payload bytes that the active segment still takes in one data frame.
    pub(crate) fn room(&self) -> usize {
        room(self.active.at, self.active.bytes_max)
    }

    /// Writes one data frame of `records`, which fit [`Appender::room`]. Not synced.
    pub(crate) fn append<'a>(&mut self, records: impl Iterator<Item = &'a [u8]>) -> Result<(Position, u64), WalError> {
        self.buffer.begin();
        for record in records {
            self.buffer.push_record(record);
        }
        self.write(Kind::Data)
    }

    /// Writes the end frame. Not synced; nothing may follow in this segment.
    pub(crate) fn append_end(&mut self, reason: Reason) -> Result<u64, WalError> {
        let cut_at = self.offset();
        self.buffer.begin();
        self.buffer.push_closing(Closing { reason, cut_at, next: cut_at + BLOCK_BYTES });
        Ok(self.write(Kind::End)?.1)
    }

    fn write(&mut self, kind: Kind) -> Result<(Position, u64), WalError> {
        let active = &mut self.active;
        let spare = if kind == Kind::End { 0 } else { BLOCK_BYTES };
        assert!(active.at + self.buffer.frame_bytes() + spare <= active.bytes_max, "a frame leaves its segment");
        let counter = self.counter.fetch_add(1, Ordering::AcqRel) + 1;
        let position = Position { counter, node: self.life.node, epoch: self.life.epoch, offset: active.offset() };
        let (header, bytes) = self.buffer.finish(Header {
            kind,
            payload_bytes: 0,
            records: 0,
            segment: active.id,
            position,
            at: active.at,
            durable: self.catalog.durable(),
        });
        active.file.write_all_at(bytes, active.at).context("append to segment", file_name(active.id))?;
        active.at += header.frame_bytes();
        let (file_bytes, end) = (active.at, header.end());
        self.catalog.with_active(|segment| {
            segment.file_bytes = segment.file_bytes.max(file_bytes);
            segment.end = end;
            if kind == Kind::Data {
                segment.data_end = end;
            }
        });
        Ok((position, end))
    }

    /// Takes back what a write that failed may have left behind the last frame: zeros again, as if it had never been.
    /// Not synced. Only where segments are filled ahead, and before anything else is written.
    pub(crate) fn cut_off(&mut self) -> Result<(), WalError> {
        let active = &self.active;
        let end = (active.at + self.buffer.frame_bytes()).min(active.bytes_max);
        let zeros = vec![0; usize::try_from(end - active.at).expect("a frame is in memory")];
        active.file.write_all_at(&zeros, active.at).context("cut off a frame in", file_name(active.id))
    }

    /// Makes everything written so far durable and says up to which offset that is.
    pub(crate) fn sync(&mut self) -> Result<u64, WalError> {
        self.active.file.sync_data().context("sync segment", file_name(self.active.id))?;
        self.catalog.set_durable(self.offset());
        Ok(self.offset())
    }

    /// Goes on in `fresh`. The end frame of the active segment is written and synced.
    pub(crate) fn switch_to(&mut self, fresh: Fresh) {
        let base = self.offset();
        assert_eq!(self.catalog.durable(), base, "invariant 2");
        let SegmentHeader { segment: id, bytes_max, .. } = fresh.header;
        self.catalog.push(Segment {
            id,
            base,
            end: base,
            data_end: 0,
            file_bytes: fresh.file_bytes,
            content: Content::Live,
        });
        self.active = Active { file: fresh.file, id, base, at: BLOCK_BYTES, bytes_max };
    }

    /// Gives back the space behind the end frame.
    pub(crate) fn trim(&mut self) -> Result<(), WalError> {
        self.active.file.set_len(self.active.at).context("cut segment", file_name(self.active.id))
    }
}

/// Raises `counter` to `seen`.
pub(crate) fn observe(counter: &AtomicU64, seen: u64) {
    // Half of what a frame may carry: no clock of another node can use up ours.
    counter.fetch_max(seen.min(NUMBER_MAX / 2), Ordering::AcqRel);
}
