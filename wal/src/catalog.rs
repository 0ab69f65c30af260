//! Which segments the log has, and what of them can be read.
//!
//! Owns:     the list of segments in memory, the durable watermark, and the removal of segments.
//! Does not: write frames.
//!
//! Invariants
//!  1. Segments stand in order of id and of offset; the last one is the active one and is never removed.
//!  2. Segments go oldest first, each removal durable before the next, so a power cut leaves no hole.
//!  3. Nothing at or above the durable watermark is shown to a reader.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use model::NodeId;

use crate::disk::SharedDisk;
use crate::error::{Context, WalError};
use crate::scan::Run;
use crate::segment::file_name;

#[derive(Debug)]
pub(crate) struct Catalog {
    pub(crate) disk: SharedDisk,
    pub(crate) dir: PathBuf,
    pub(crate) node: NodeId,
    segments: Mutex<VecDeque<Segment>>,
    durable: AtomicU64,
    /// Held while segments are removed, so that two callers cannot remove in a different order.
    removing: Mutex<()>,
}

#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) id: u64,
    /// Log offset of the first frame.
    pub(crate) base: u64,
    /// Log offset behind the last frame.
    pub(crate) end: u64,
    /// Log offset behind the last data frame; 0 if there is none.
    pub(crate) data_end: u64,
    pub(crate) file_bytes: u64,
    pub(crate) content: Content,
}

#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// Written by an earlier life: whole frames are in these runs and nowhere else.
    Recovered(Vec<Run>),
    /// Written by this life: frames follow each other up to an end frame or the durable watermark.
    Live,
}

impl Segment {
    fn is_frameless(&self) -> bool {
        matches!(&self.content, Content::Recovered(runs) if runs.is_empty())
    }

    /// Bytes of whole frames that an earlier life left.
    pub(crate) fn recovered_bytes(&self) -> u64 {
        match &self.content {
            Content::Recovered(runs) => runs.iter().map(|run| run.to - run.from).sum(),
            Content::Live => 0,
        }
    }
}

impl Catalog {
    pub(crate) fn new(
        disk: SharedDisk,
        dir: PathBuf,
        node: NodeId,
        segments: VecDeque<Segment>,
        durable: u64,
    ) -> Catalog {
        assert!(!segments.is_empty(), "an open log has an active segment");
        let segments = Mutex::new(segments);
        Catalog { disk, dir, node, segments, durable: AtomicU64::new(durable), removing: Mutex::new(()) }
    }

    pub(crate) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    pub(crate) fn set_durable(&self, offset: u64) {
        let before = self.durable.swap(offset, Ordering::AcqRel);
        assert!(before <= offset, "the durable watermark went back from {before} to {offset}");
    }

    /// Log offset of the oldest frame.
    pub(crate) fn first(&self) -> u64 {
        self.segments().front().expect("invariant 1").base
    }

    pub(crate) fn push(&self, segment: Segment) {
        let mut segments = self.segments();
        let last = segments.back().expect("invariant 1");
        assert!(last.id < segment.id && last.end <= segment.base, "{segment:?} behind {last:?}");
        segments.push_back(segment);
    }

    /// Changes the active segment.
    pub(crate) fn with_active(&self, change: impl FnOnce(&mut Segment)) {
        change(self.segments().back_mut().expect("invariant 1"));
    }

    /// The oldest segment, unless it is the active one.
    pub(crate) fn oldest_closed(&self) -> Option<Segment> {
        let segments = self.segments();
        (segments.len() > 1).then(|| segments[0].clone())
    }

    /// The first segment with an id of at least `id` that has frames behind `offset` or is the active one.
    pub(crate) fn seek(&self, id: u64, offset: u64) -> Option<Segment> {
        let segments = self.segments();
        let active = segments.back().expect("invariant 1").id;
        segments.iter().find(|s| s.id >= id && (s.end > offset || s.id == active)).cloned()
    }

    pub(crate) fn is_active(&self, id: u64) -> bool {
        self.segments().back().expect("invariant 1").id == id
    }

    /// Segments and bytes on disk.
    pub(crate) fn size(&self) -> (u64, u64) {
        let segments = self.segments();
        (segments.len() as u64, segments.iter().map(|segment| segment.file_bytes).sum())
    }

    /// Removes the segments whose records all end at or below `offset`; says how many.
    pub(crate) fn truncate_behind(&self, offset: u64) -> Result<u64, WalError> {
        let mut removed = 0;
        while self.remove_oldest_if(|segment| segment.data_end <= offset)?.is_some() {
            removed += 1;
        }
        Ok(removed)
    }

    /// Removes the oldest segment unless it is the active one or `when` says no. Segments without frames right behind it
    /// go first: alone at the front they would look like segments that lost their frames.
    pub(crate) fn remove_oldest_if(&self, when: impl Fn(&Segment) -> bool) -> Result<Option<Segment>, WalError> {
        let _one_at_a_time = self.removing.lock().expect("no holder of this lock panics");
        let Some(oldest) = self.oldest_closed().filter(|oldest| when(oldest)) else { return Ok(None) };
        loop {
            // A statement of its own: the guard must be gone before `remove` takes the lock again.
            let behind = self.segments().get(1).filter(|next| next.is_frameless()).cloned();
            let Some(frameless) = behind else { break };
            self.remove(&frameless)?;
        }
        self.remove(&oldest)?;
        Ok(Some(oldest))
    }

    fn remove(&self, segment: &Segment) -> Result<(), WalError> {
        let name = file_name(segment.id);
        match self.disk.remove_file(&self.dir.join(&name)) {
            Ok(()) => {}
            // An attempt before this one removed the name and then failed to sync the directory.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e).context("remove segment", &name),
        }
        self.disk.sync_dir(&self.dir).context("sync directory", self.dir.display())?;
        self.segments().retain(|kept| kept.id != segment.id);
        Ok(())
    }

    fn segments(&self) -> MutexGuard<'_, VecDeque<Segment>> {
        self.segments.lock().expect("no holder of this lock panics")
    }
}
