//! What is in one segment file: which frames are whole, and what lies behind the last one.
//!
//! Owns:     finding frames, whatever the bytes are.
//! Does not: judge what is missing (`recovery`), or change the file.
//!
//! Invariants
//!  1. Frames are whole, of this segment, node and place, in one epoch and with rising counters, or they are not seen.
//!  2. Memory is bounded by the longest frame, not by what a header claims.

use std::path::Path;

use model::{NodeEpoch, NodeId};

use crate::disk::{Disk, DiskFile};
use crate::error::{Context, WalError};
use crate::frame::{BLOCK_BYTES, Closing, FRAME_HEADER_BYTES, Header, Kind, ZEROS};
use crate::segment::{HeaderBlock, SEGMENT_BYTES_MAX, SegmentHeader, file_name};
use crate::window::Window;

/// Bytes `from..to` of a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// One segment file, read through.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) id: u64,
    pub(crate) file_bytes: u64,
    /// `None` if the header block is damaged.
    pub(crate) header: Option<SegmentHeader>,
    /// `None` without a single whole frame.
    pub(crate) found: Option<Found>,
    /// Whether a byte that is not zero lies behind the last whole frame. Not looked for behind an end frame.
    pub(crate) bytes_behind: bool,
}

/// The whole frames of a segment.
#[derive(Debug)]
pub(crate) struct Found {
    /// Log offset of byte [`BLOCK_BYTES`] of the file.
    pub(crate) base: u64,
    pub(crate) epoch: NodeEpoch,
    /// Of the last frame.
    pub(crate) counter: u64,
    /// The highest durable offset that a frame knew of.
    pub(crate) durable: u64,
    /// Frames without a gap between them, in order; what lies between two runs is damaged.
    pub(crate) runs: Vec<Run>,
    /// Where in the file the last frame that is no end frame begins; the end frame if there is no other.
    pub(crate) last_at: u64,
    /// Log offset behind the last data frame.
    pub(crate) data_end: u64,
    pub(crate) start: Option<Closing>,
    pub(crate) end: Option<Closing>,
}

impl Found {
    /// Where in the file the last whole frame ends.
    pub(crate) fn end_at(&self) -> u64 {
        self.runs.last().expect("found means one frame at least").to
    }

    pub(crate) fn offset_of(&self, at: u64) -> u64 {
        self.base + (at - BLOCK_BYTES)
    }

    /// Log offset behind the last whole frame.
    pub(crate) fn end_offset(&self) -> u64 {
        self.offset_of(self.end_at())
    }
}

impl Scan {
    /// Whether the file, without frames, differs from one that was prepared and never used.
    pub(crate) fn is_spoiled(&self) -> bool {
        self.bytes_behind || self.header.is_none() || self.is_short()
    }

    /// Whether bytes that the file was made with are missing at its end.
    pub(crate) fn is_short(&self) -> bool {
        self.header.is_some_and(|header| header.is_filled && self.file_bytes < header.bytes_max)
    }

    /// The most bytes that the file may ever have had.
    pub(crate) fn bytes_once(&self) -> u64 {
        self.header.map_or(0, |header| header.bytes_max).max(self.file_bytes.min(SEGMENT_BYTES_MAX))
    }
}

/// Reads the header block of segment `id` and refuses what is not ours to read.
pub(crate) fn read_header(
    disk: &dyn Disk,
    dir: &Path,
    id: u64,
    node: NodeId,
) -> Result<Option<SegmentHeader>, WalError> {
    let file = disk.open_read(&dir.join(file_name(id))).context("open segment", file_name(id))?;
    let file_bytes = file.len().context("measure segment", file_name(id))?;
    let mut window = Window::default();
    let block =
        window.get(&*file, 0, BLOCK_BYTES.min(file_bytes), file_bytes).context("read segment", file_name(id))?;
    match HeaderBlock::decode(block.unwrap_or_default()) {
        HeaderBlock::Newer(version) => Err(WalError::NewerFormat { file: file_name(id), version }),
        HeaderBlock::Whole(header) if header.node != node => {
            Err(WalError::WrongNode { file: file_name(id), found: header.node, ours: node })
        }
        // A whole segment of ours under another's name: none of its frames belongs here.
        HeaderBlock::Whole(header) if header.segment != id => Ok(None),
        HeaderBlock::Whole(header) => Ok(Some(header)),
        HeaderBlock::Damaged => Ok(None),
    }
}

/// Finds the frames of segment `id`.
///
/// # Errors
/// [`WalError::Io`] if the disk cannot read the file: what cannot be read now is not thereby lost.
pub(crate) fn scan(
    disk: &dyn Disk,
    dir: &Path,
    id: u64,
    node: NodeId,
    header: Option<SegmentHeader>,
    window: &mut Window,
) -> Result<Scan, WalError> {
    let file = disk.open_read(&dir.join(file_name(id))).context("open segment", file_name(id))?;
    let file_bytes = file.len().context("measure segment", file_name(id))?;
    let mut scan = Scan { id, file_bytes, header, found: None, bytes_behind: false };
    window.clear();
    let mut at = BLOCK_BYTES;
    while at < file_bytes {
        let frame = read_frame(&*file, id, node, at, file_bytes, window).context("read segment", file_name(id))?;
        if let Some((header, closing)) = frame.filter(|(header, _)| scan.takes(header)) {
            scan.add(&header, closing);
            at += header.frame_bytes();
            if header.kind == Kind::End {
                break;
            }
        } else {
            let len = BLOCK_BYTES.min(file_bytes - at);
            let block = window.get(&*file, at, len, file_bytes).context("read segment", file_name(id))?;
            scan.bytes_behind |= block.expect("the block lies in the file") != &ZEROS[..len as usize];
            at += BLOCK_BYTES;
        }
    }
    Ok(scan)
}

/// The frame that stands at byte `at` of segment `id`, with what an end or start frame says; `None` if none does.
pub(crate) fn read_frame(
    file: &dyn DiskFile,
    id: u64,
    node: NodeId,
    at: u64,
    limit: u64,
    window: &mut Window,
) -> std::io::Result<Option<(Header, Option<Closing>)>> {
    let Some(bytes) = window.get(file, at, FRAME_HEADER_BYTES as u64, limit)? else { return Ok(None) };
    let Some(header) = Header::parse(bytes) else { return Ok(None) };
    if header.segment != id || header.position.node != node || header.at != at {
        return Ok(None);
    }
    let Some(content) = window.get(file, at, header.content_bytes() as u64, limit)? else { return Ok(None) };
    if !header.verify(content) {
        return Ok(None);
    }
    let closing = match header.kind {
        Kind::Data => None,
        Kind::Start | Kind::End => Closing::decode(&content[FRAME_HEADER_BYTES..]),
    };
    Ok(Some((header, closing)))
}

impl Scan {
    /// Whether a whole frame goes with those before it. That one does not is a matter of hostile bytes.
    fn takes(&self, header: &Header) -> bool {
        let first_at = header.at == BLOCK_BYTES;
        let base = header.position.offset.checked_sub(header.at - BLOCK_BYTES);
        let epoch = self.found.as_ref().map(|found| found.epoch).or(self.header.map(|header| header.epoch));
        epoch.is_none_or(|epoch| epoch == header.position.epoch)
            && base.is_some_and(|base| self.found.as_ref().is_none_or(|found| found.base == base))
            && self.found.as_ref().is_none_or(|found| found.counter < header.position.counter)
            && (header.kind != Kind::Start || first_at)
    }

    fn add(&mut self, header: &Header, closing: Option<Closing>) {
        self.bytes_behind = false;
        let offset = header.position.offset;
        let found = self.found.get_or_insert_with(|| Found {
            base: offset - (header.at - BLOCK_BYTES),
            epoch: header.position.epoch,
            counter: 0,
            durable: 0,
            runs: Vec::new(),
            last_at: header.at,
            data_end: 0,
            start: None,
            end: None,
        });
        let to = header.at + header.frame_bytes();
        match found.runs.last_mut() {
            Some(run) if run.to == header.at => run.to = to,
            _ => found.runs.push(Run { from: header.at, to }),
        }
        found.counter = header.position.counter;
        found.durable = found.durable.max(header.durable);
        match header.kind {
            Kind::Data => found.data_end = header.end(),
            // One that does not lead here or on from here says nothing that can be used.
            Kind::Start => found.start = closing.filter(|closing| closing.next == offset),
            Kind::End => found.end = closing.filter(|closing| closing.next >= header.end() && closing.cut_at == offset),
        }
        if header.kind != Kind::End {
            found.last_at = header.at;
        }
    }
}
