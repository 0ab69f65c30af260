//! Frames of an open log, in order.
//!
//! Owns:     walking the segments; checking every frame again.
//! Does not: report what recovery reported: those stretches are passed over.
//!
//! Invariant: memory is bounded by the longest frame.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use model::Position;

use crate::catalog::{Catalog, Content};
use crate::disk::DiskFile;
use crate::error::{Context, WalError};
use crate::frame::{self, BLOCK_BYTES, FRAME_HEADER_BYTES, Header, Kind};
use crate::scan::{Run, read_frame};
use crate::segment::file_name;
use crate::window::Window;

/// One durable group of records.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// Place of the group in the order of writes.
    pub position: Position,
    /// Offset behind the frame.
    pub end: u64,
    pub(crate) payload: Vec<u8>,
    pub(crate) records: u32,
}

impl Frame {
    /// The records, in the order in which they were appended.
    pub fn records(&self) -> impl Iterator<Item = &[u8]> {
        frame::records(&self.payload)
    }

    /// How many records there are; at least one.
    pub fn record_count(&self) -> usize {
        self.records as usize
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({}, {} records)", self.position, self.records)
    }
}

/// Reads the durable frames of a log from an offset on. `None` means that there are no more *now*: the next call
/// looks again. Segments that are truncated meanwhile are passed over.
#[derive(Debug)]
pub struct FrameReader {
    catalog: Arc<Catalog>,
    from: u64,
    /// No segment below this id is of interest any more.
    next_id: u64,
    open: Option<Open>,
    window: Window,
    progress: u64,
    last_id: u64,
    /// A frame begins at `from`: those before it need not be read.
    is_at_frame: bool,
    failed: bool,
}

#[derive(Debug)]
struct Open {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    id: u64,
    base: u64,
    at: u64,
    /// The runs to come, first one last; `None` in a segment of this life.
    runs: Option<Vec<Run>>,
    limit: u64,
}

enum Step {
    Frame(Frame),
    /// Frames below `from`, an end or start frame, or a segment's end.
    Nothing,
    CaughtUp,
}

impl FrameReader {
    pub(crate) fn new(catalog: Arc<Catalog>, from: u64) -> FrameReader {
        FrameReader {
            catalog,
            from,
            next_id: 0,
            open: None,
            window: Window::default(),
            progress: from,
            last_id: u64::MAX,
            is_at_frame: false,
            failed: false,
        }
    }

    /// A frame begins where it is to read from.
    pub(crate) fn at_frame(mut self) -> FrameReader {
        self.is_at_frame = true;
        self
    }

    /// Only the frames of segment `id`.
    pub(crate) fn of_segment(mut self, id: u64) -> FrameReader {
        self.next_id = id;
        self.last_id = id;
        self
    }

    /// Offset up to which everything was read.
    pub fn progress(&self) -> u64 {
        self.progress
    }

    fn step(&mut self) -> Result<Step, WalError> {
        let Some(open) = &mut self.open else { return self.open_next() };
        if let Some(runs) = &mut open.runs {
            while runs.last().is_some_and(|run| run.to <= open.at) {
                runs.pop();
            }
            let Some(run) = runs.last() else { return Ok(self.leave()) };
            open.at = open.at.max(run.from);
        } else {
            if open.at >= open.limit {
                let durable_at = self.catalog.durable().saturating_sub(open.base) + BLOCK_BYTES;
                let file_bytes = open.file.len().context("measure segment", open.path.display())?;
                open.limit = open.limit.max(durable_at.min(file_bytes));
            }
            if open.at >= open.limit {
                // An end frame leads out of a segment before this can happen in any but the active one.
                return Ok(Step::CaughtUp);
            }
        }
        let found = read_frame(&*open.file, open.id, self.catalog.node, open.at, open.limit, &mut self.window)
            .context("read segment", open.path.display())?;
        let Some((header, _)) =
            found.filter(|(header, _)| header.position.offset == open.base + (open.at - BLOCK_BYTES))
        else {
            return Err(WalError::Corrupt { file: file_name(open.id), at: open.at });
        };
        let at = open.at;
        open.at += header.frame_bytes();
        self.progress = self.progress.max(header.end());
        match header.kind {
            Kind::End => Ok(self.leave()),
            Kind::Data if header.position.offset >= self.from => Ok(Step::Frame(self.take(header, at)?)),
            Kind::Data | Kind::Start => Ok(Step::Nothing),
        }
    }

    fn take(&mut self, header: Header, at: u64) -> Result<Frame, WalError> {
        let open = self.open.as_ref().expect("a frame was read from it");
        let content = self
            .window
            .get(&*open.file, at, header.content_bytes() as u64, open.limit)
            .context("read segment", open.path.display())?
            .expect("the frame was verified within the limit");
        let payload = content[FRAME_HEADER_BYTES..].to_vec();
        Ok(Frame { position: header.position, end: header.end(), payload, records: header.records })
    }

    fn leave(&mut self) -> Step {
        self.open = None;
        Step::Nothing
    }

    fn open_next(&mut self) -> Result<Step, WalError> {
        let next = self.catalog.seek(self.next_id, self.from).filter(|segment| segment.id <= self.last_id);
        let Some(segment) = next else { return Ok(Step::CaughtUp) };
        let path = self.catalog.dir.join(file_name(segment.id));
        let file = match self.catalog.disk.open_read(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !self.catalog.is_active(segment.id) => {
                // Truncated since it was looked up.
                self.next_id = segment.id + 1;
                return Ok(Step::Nothing);
            }
            Err(e) => return Err(e).context("open segment", path.display()),
        };
        let (runs, limit) = match segment.content {
            Content::Recovered(mut runs) => {
                runs.reverse();
                (Some(runs), file.len().context("measure segment", path.display())?)
            }
            Content::Live => (None, 0),
        };
        self.window.clear();
        self.next_id = segment.id + 1;
        let base = segment.base;
        let skipped = if std::mem::take(&mut self.is_at_frame) { self.from.saturating_sub(base) } else { 0 };
        self.open = Some(Open { file, path, id: segment.id, base, at: BLOCK_BYTES + skipped, runs, limit });
        Ok(Step::Nothing)
    }
}

impl Iterator for FrameReader {
    type Item = Result<Frame, WalError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.failed {
            match self.step() {
                Ok(Step::Frame(frame)) => return Some(Ok(frame)),
                Ok(Step::Nothing) => {}
                Ok(Step::CaughtUp) => return None,
                Err(e) => {
                    self.failed = true;
                    return Some(Err(e));
                }
            }
        }
        None
    }
}
