//! Opening a log: what earlier lives left, what of it is lost, and a new segment behind it.
//!
//! Owns:     telling a torn tail from damage, naming every loss, closing what was left open.
//! Does not: find frames (`scan`) or write groups (`appender`).
//!
//! Invariants
//!  1. Nothing is changed before every segment is known to be ours to read (P13).
//!  2. A crash at any step leaves a log that opens to the same records. What is cut has been declared by a durable
//!     end or start frame before the name of the new segment appears.
//!  3. What is served has been synced by this life: a process that was killed leaves frames that were only in the
//!     page cache, and a sync that failed leaves clean pages that never reached the disk. So the frames that may not
//!     have been synced are written again and synced.
//!  4. Offsets and counters of bytes that were given up are never used again.

mod inspect;
mod judge;
mod loss;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use model::{NodeEpoch, NodeId, Position};

pub use inspect::{Inspection, LogKind, inspect};
pub use loss::{Certainty, Loss, LossReason};

use crate::appender::Appender;
use crate::catalog::{Catalog, Content, Segment};
use crate::disk::{SharedDisk, create_dir_all};
use crate::error::{Context, WalError};
use crate::frame::{BLOCK_BYTES, Closing, FrameBuffer, Header, Kind, NUMBER_MAX, Reason};
use crate::scan::{Scan, read_header, scan};
use crate::segment::{self, SegmentHeader, file_name, id_of, is_unfinished};
use crate::window::Window;

use judge::{Tail, judge};

/// What was found when a log was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Offset of the next frame.
    pub end: u64,
    /// Offset of the oldest frame still there. If it lies above what the caller has flushed, segments are missing
    /// that the caller did not truncate: the log alone cannot tell.
    pub first: u64,
    /// The highest Lamport counter used so far.
    pub counter: u64,
    /// Everything that is missing or damaged in the log as it stands, in order of offset. A loss is named at every
    /// open for as long as its segment, or for what was cut the segment before it, is there.
    pub losses: Vec<Loss>,
    /// Bytes of segments to replay, for progress.
    pub bytes: u64,
    /// Whether the log was empty or ended in order, with nothing to report.
    pub clean: bool,
}

/// The life that opens a log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    pub(crate) node: NodeId,
    pub(crate) epoch: NodeEpoch,
}

/// How a log writes; what differs between the server's and an outbox.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    /// Bytes of a segment.
    pub(crate) segment_bytes: u64,
    /// Bytes of the first segment of a life.
    pub(crate) first_segment_bytes: u64,
    pub(crate) filled_ahead: bool,
    /// Whether more than one frame can be written between two syncs.
    pub(crate) many_frames_a_sync: bool,
    /// The log goes on at this offset or behind it.
    pub(crate) offset_min: u64,
}

/// What a life may use up, and more.
const NUMBER_SPARE: u64 = 1 << 58;

/// Opens the log in `dir`, made if missing.
pub(crate) fn open(disk: SharedDisk, dir: &Path, life: Life, policy: Policy) -> Result<(Appender, Recovery), WalError> {
    create_dir_all(&*disk, dir).context("make directory", dir.display())?;
    let mut ids = Vec::new();
    let mut unfinished = Vec::new();
    for entry in disk.list(dir).context("list", dir.display())? {
        if let Some(id) = id_of(&entry.name) {
            ids.push(id);
        } else if is_unfinished(&entry.name) {
            unfinished.push(entry.name);
        }
    }
    let scans = read_all(&disk, dir, life, &ids)?;
    let judged = judge(&scans, &policy);
    if judged.tail.next.max(judged.tail.counter) >= NUMBER_MAX - NUMBER_SPARE {
        return Err(WalError::Config("the log's offsets or counters are used up"));
    }

    // From here on the folder changes.
    for name in unfinished {
        disk.remove_file(&dir.join(&name)).context("remove unfinished segment", &name)?;
    }
    let mut segments = judged.segments;
    remove_unused(&disk, dir, &scans, &mut segments)?;
    if let Some(last) = judged.tail.last {
        seal(&disk, dir, life, policy, &scans[last], &judged.tail)?;
        let sealed = segments.iter_mut().find(|segment| segment.id == scans[last].id).expect("it has frames");
        sealed.file_bytes = disk.info(&dir.join(file_name(sealed.id))).context("measure segment", sealed.id)?.len;
        sealed.end = judged.tail.next;
    }
    let bytes = segments.iter().map(Segment::recovered_bytes).sum();
    let id = ids.last().map_or(1, |id| id + 1);
    let counter = judged.tail.counter + 1;
    let appender = start(disk, dir, life, policy, segments, id, judged.tail.closing(), counter)?;
    let recovery = Recovery {
        end: appender.offset(),
        first: appender.catalog().first(),
        counter,
        clean: judged.losses.is_empty() && matches!(judged.tail.reason, Reason::First | Reason::Clean),
        losses: judged.losses,
        bytes,
    };
    Ok((appender, recovery))
}

fn read_all(disk: &SharedDisk, dir: &Path, life: Life, ids: &[u64]) -> Result<Vec<Scan>, WalError> {
    let mut headers = Vec::with_capacity(ids.len());
    for id in ids {
        headers.push(read_header(&**disk, dir, *id, life.node)?);
    }
    let mut window = Window::default();
    let mut scans = Vec::with_capacity(ids.len());
    for (id, header) in ids.iter().zip(headers) {
        let scan = scan(&**disk, dir, *id, life.node, header, &mut window)?;
        let written_in = scan.found.as_ref().map(|found| found.epoch).or(header.map(|header| header.epoch));
        if let Some(found) = written_in.filter(|found| *found > life.epoch) {
            return Err(WalError::Fenced { file: file_name(*id), found, ours: life.epoch });
        }
        scans.push(scan);
    }
    Ok(scans)
}

/// Removes the segments behind the last frame that were prepared and never used, to give their space back. If power
/// fails before the directory is synced, they come back and say nothing, wherever they then stand.
fn remove_unused(
    disk: &SharedDisk,
    dir: &Path,
    scans: &[Scan],
    segments: &mut VecDeque<Segment>,
) -> Result<(), WalError> {
    let unused = scans.iter().rev().take_while(|scan| scan.found.is_none()).filter(|scan| !scan.is_spoiled());
    for scan in unused {
        disk.remove_file(&dir.join(file_name(scan.id))).context("remove unused segment", file_name(scan.id))?;
        segments.retain(|segment| segment.id != scan.id);
    }
    Ok(())
}

/// Makes what the last segment holds durable, and closes it unless it is.
fn seal(disk: &SharedDisk, dir: &Path, life: Life, policy: Policy, last: &Scan, tail: &Tail) -> Result<(), WalError> {
    let name = file_name(last.id);
    let found = last.found.as_ref().expect("the last segment is one with frames");
    let file = disk.open_write(&dir.join(&name)).context("open segment", &name)?;
    // Invariant 3. Everything older was synced before this segment got its first frame.
    let unsynced = if policy.many_frames_a_sync { BLOCK_BYTES } else { found.last_at };
    let mut window = Window::default();
    for run in &found.runs {
        let mut at = run.from.max(unsynced);
        let to = run.to.min(last.file_bytes);
        while at < to {
            let len = (to - at).min(1 << 20);
            let bytes = window.get(&*file, at, len, to).context("read segment", &name)?;
            file.write_all_at(bytes.expect("a run lies in its file"), at).context("rewrite segment", &name)?;
            at += len;
        }
    }
    file.sync_data().context("sync segment", &name)?;
    let mut end_at = found.end_at();
    if found.end.is_none() {
        // Only now: a whole end frame says that what stands before it was durable.
        let mut buffer = FrameBuffer::default();
        buffer.begin();
        buffer.push_closing(tail.closing());
        let position = Position {
            // The end frame takes the number behind the last whole frame; the new life goes on behind what was cut.
            counter: found.counter + 1,
            node: life.node,
            epoch: found.epoch,
            offset: tail.cut_at,
        };
        let (header, bytes) = buffer.finish(Header {
            kind: Kind::End,
            payload_bytes: 0,
            records: 0,
            segment: last.id,
            position,
            at: end_at,
            durable: tail.synced,
        });
        // Over the torn bytes, before the file is cut: if power fails between, they still show that something was here.
        file.write_all_at(bytes, end_at).context("write end frame", &name)?;
        file.sync_data().context("sync segment", &name)?;
        end_at += header.frame_bytes();
    }
    if file.len().context("measure segment", &name)? > end_at {
        // Only to give space back: what lies behind an end frame is not read.
        file.set_len(end_at).context("cut segment", &name)?;
    }
    Ok(())
}

/// Begins the segment of this life with its start frame, durable when this returns.
#[expect(clippy::too_many_arguments, reason = "the one call that brings the parts of an open log together")]
fn start(
    disk: SharedDisk,
    dir: &Path,
    life: Life,
    policy: Policy,
    mut segments: VecDeque<Segment>,
    id: u64,
    before: Closing,
    counter: u64,
) -> Result<Appender, WalError> {
    let mut buffer = FrameBuffer::default();
    buffer.begin();
    buffer.push_closing(before);
    let position = Position { counter, node: life.node, epoch: life.epoch, offset: before.next };
    let (frame, bytes) = buffer.finish(Header {
        kind: Kind::Start,
        payload_bytes: 0,
        records: 0,
        segment: id,
        position,
        at: BLOCK_BYTES,
        durable: before.next,
    });
    let header = SegmentHeader {
        segment: id,
        node: life.node,
        epoch: life.epoch,
        bytes_max: policy.first_segment_bytes,
        is_filled: policy.filled_ahead,
        opens_life: true,
    };
    let fresh = segment::create(&*disk, dir, header, Some(bytes))?;
    segments.push_back(Segment {
        id,
        base: before.next,
        end: frame.end(),
        data_end: 0,
        file_bytes: fresh.file_bytes,
        content: Content::Live,
    });
    let catalog = Arc::new(Catalog::new(disk, dir.to_path_buf(), life.node, segments, frame.end()));
    let counter = Arc::new(AtomicU64::new(counter));
    Ok(Appender::new(life, catalog, counter, fresh, frame.end()))
}
