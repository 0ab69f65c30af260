//! A look at a log that changes nothing: what of it can be read, and what is missing.
//!
//! Owns:     the order of the look: headers, frames, judgement, records.
//! Does not: repair, sync or cut; a log that was not closed keeps its tail.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use model::{NodeEpoch, NodeId};

use super::judge::judge;
use super::{Life, Loss, Policy, read_all};
use crate::catalog::Catalog;
use crate::disk::SharedDisk;
use crate::error::{Context, WalError};
use crate::frame::{BLOCK_BYTES, Reason};
use crate::reader::{Frame, FrameReader};
use crate::ring::RING_SEGMENT_BYTES;
use crate::segment::{HeaderBlock, file_name, id_of};
use crate::server::SERVER_SEGMENT_BYTES;
use crate::window::Window;

/// Which policy a log was written under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogKind {
    /// [`crate::Wal`].
    Server,
    /// [`crate::RingLog`].
    Ring,
}

/// What a look at a log found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Files.
    pub segments: u64,
    /// Bytes of whole frames.
    pub bytes: u64,
    /// Frames that hold records.
    pub frames: u64,
    /// Records in them.
    pub records: u64,
    /// Everything that is missing or damaged, as [`super::Recovery::losses`] would say.
    pub losses: Vec<Loss>,
    /// Whether the log ends as one that was closed in order.
    pub is_closed: bool,
}

/// Looks at the log in `dir`, calling `on_frame` with each frame that holds records. `node` is whose log it is, taken
/// from the log itself if it is not known. `offset_min` is the highest offset known to have been reached, as
/// `WalConfig::offset_min`. Nothing is found in a folder that is not there.
///
/// # Errors
/// [`WalError::Io`] with `NotFound` if a segment went away meanwhile: look again. Otherwise as for [`crate::Wal::open`].
pub fn inspect(
    disk: &SharedDisk,
    dir: &Path,
    kind: LogKind,
    node: Option<NodeId>,
    offset_min: u64,
    on_frame: &mut dyn FnMut(&Frame),
) -> Result<Inspection, WalError> {
    let entries = match disk.list(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Inspection::default()),
        Err(e) => return Err(e).context("list", dir.display()),
    };
    let ids: Vec<u64> = entries.iter().filter_map(|entry| id_of(&entry.name)).collect();
    let node = match node {
        Some(node) => node,
        // If no header block is whole, no frame can be called ours.
        None => find_node(disk, dir, &ids)?.unwrap_or(NodeId(0)),
    };
    let segment_bytes = match kind {
        LogKind::Server => SERVER_SEGMENT_BYTES,
        LogKind::Ring => RING_SEGMENT_BYTES,
    };
    let policy = Policy {
        segment_bytes,
        first_segment_bytes: segment_bytes,
        filled_ahead: kind == LogKind::Server,
        many_frames_a_sync: kind == LogKind::Ring,
        offset_min,
    };
    let life = Life { node, epoch: NodeEpoch(u64::MAX) };
    let scans = read_all(disk, dir, life, &ids)?;
    let judged = judge(&scans, &policy);
    let mut found = Inspection {
        segments: ids.len() as u64,
        losses: judged.losses,
        is_closed: matches!(judged.tail.reason, Reason::First | Reason::Clean),
        ..Inspection::default()
    };
    if judged.segments.is_empty() {
        return Ok(found);
    }
    found.bytes = judged.segments.iter().map(crate::catalog::Segment::recovered_bytes).sum();
    let segments: VecDeque<_> = judged.segments;
    let catalog = Catalog::new(Arc::clone(disk), dir.to_path_buf(), node, segments, judged.tail.next);
    for frame in FrameReader::new(Arc::new(catalog), 0) {
        let frame = frame?;
        found.frames += 1;
        found.records += frame.record_count() as u64;
        on_frame(&frame);
    }
    Ok(found)
}

/// Whose the first segment with a whole header block is.
fn find_node(disk: &SharedDisk, dir: &Path, ids: &[u64]) -> Result<Option<NodeId>, WalError> {
    for id in ids {
        let file = disk.open_read(&dir.join(file_name(*id))).context("open segment", file_name(*id))?;
        let file_bytes = file.len().context("measure segment", file_name(*id))?;
        let mut window = Window::default();
        let block = window.get(&*file, 0, BLOCK_BYTES, file_bytes).context("read segment", file_name(*id))?;
        if let HeaderBlock::Whole(header) = HeaderBlock::decode(block.unwrap_or_default()) {
            return Ok(Some(header.node));
        }
    }
    Ok(None)
}
