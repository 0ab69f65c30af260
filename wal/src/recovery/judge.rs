//! From what each segment holds to what the log holds and lacks. Pure: reads and writes nothing.
//!
//! What makes the judgement possible: a segment gets its first frame only after the end frame of the one before it
//! was synced. So a segment with frames proves that all before it were whole once, and only the last segment with
//! frames can have a torn tail. Every frame also says what had been synced when it was written.

use std::collections::VecDeque;
use std::ops::Range;

use super::{Certainty, Loss, LossReason, Policy};
use crate::catalog::{Content, Segment};
use crate::frame::{BLOCK_BYTES, Closing, NUMBER_MAX, Reason};
use crate::scan::{Found, Scan};
use crate::segment::file_name;

/// Result of [`judge`].
#[derive(Debug)]
pub(super) struct Judged {
    /// Every file, in order; those without frames too.
    pub(super) segments: VecDeque<Segment>,
    pub(super) losses: Vec<Loss>,
    pub(super) tail: Tail,
}

/// How the log ends and where it goes on.
#[derive(Debug)]
pub(super) struct Tail {
    /// Index of the last scan with frames.
    pub(super) last: Option<usize>,
    pub(super) reason: Reason,
    /// Offset of the end frame, there or to be written.
    pub(super) cut_at: u64,
    pub(super) next: u64,
    /// The highest counter used, those that cut bytes may have used included.
    pub(super) counter: u64,
    /// What the end frame, if one is to be written, says was synced before: all up to it, unless the segment has
    /// holes that were never synced, which must not look like damage ever after.
    pub(super) synced: u64,
}

impl Tail {
    pub(super) fn closing(&self) -> Closing {
        Closing { reason: self.reason, cut_at: self.cut_at, next: self.next }
    }
}

struct Judge {
    segments: VecDeque<Segment>,
    losses: Vec<Loss>,
    /// Where the next segment should begin; `None` before the first one with frames.
    expected: Option<Expected>,
    /// Bytes of the spoiled segments since the last one with frames.
    spoiled_bytes: u64,
}

struct Expected {
    offset: u64,
    /// The end frame of the segment before, if it is whole.
    end: Option<Closing>,
}

pub(super) fn judge(scans: &[Scan], policy: &Policy) -> Judged {
    let mut judge = Judge { segments: VecDeque::new(), losses: Vec::new(), expected: None, spoiled_bytes: 0 };
    let synced = synced_in_each(scans);
    let mut last = None;
    for (i, scan) in scans.iter().enumerate() {
        match &scan.found {
            Some(found) if judge.expected.as_ref().is_some_and(|expected| found.base < expected.offset) => {
                judge.overlap(scan, found);
            }
            Some(found) => {
                judge.segment(scan, found, synced[i]);
                last = Some(i);
            }
            None => judge.frameless(scan, policy),
        }
    }
    let tail = judge.tail(scans, last, last.map_or(0, |last| synced[last]), policy);
    Judged { segments: judge.segments, losses: judge.losses, tail }
}

/// For each segment the offset below which all of it had been synced, as far as a frame of the same life tells.
/// A later life says nothing: what it vouches for is what it found, holes included.
fn synced_in_each(scans: &[Scan]) -> Vec<u64> {
    let mut synced = vec![0; scans.len()];
    let mut known = 0;
    let mut epoch = None;
    for (i, scan) in scans.iter().enumerate().rev() {
        let Some(found) = &scan.found else { continue };
        if epoch.is_some_and(|epoch| epoch != found.epoch) {
            known = 0;
        }
        epoch = Some(found.epoch);
        known = found.durable.max(known);
        synced[i] = known;
        if found.start.is_some() || scan.header.is_some_and(|header| header.opens_life) {
            known = 0;
        }
    }
    synced
}

impl Judge {
    fn segment(&mut self, scan: &Scan, found: &Found, synced: u64) {
        self.gap_before(scan, found);
        if scan.header.is_none() {
            self.lose(scan.id, found.base, Some(found.base), Certainty::Nothing, LossReason::HeaderBlock);
        }
        let mut at = BLOCK_BYTES;
        for run in &found.runs {
            if at < run.from {
                self.hole(scan, found, at..run.from, synced);
            }
            at = run.to;
        }
        self.expected = Some(Expected { offset: found.end.map_or(found.end_offset(), |end| end.next), end: found.end });
        self.spoiled_bytes = 0;
        self.segments.push_back(Segment {
            id: scan.id,
            base: found.base,
            end: found.end_offset(),
            data_end: found.data_end,
            file_bytes: scan.file_bytes,
            content: Content::Recovered(found.runs.clone()),
        });
    }

    /// Bytes `at` of a segment hold no whole frame, and a whole frame follows.
    fn hole(&mut self, scan: &Scan, found: &Found, at: Range<u64>, synced: u64) {
        let (from, to) = (at.start, at.end);
        let start_frame_only = from == BLOCK_BYTES && to == 2 * BLOCK_BYTES;
        let (certainty, reason) = if start_frame_only && scan.header.is_some_and(|header| header.opens_life) {
            (Certainty::Nothing, LossReason::StartFrame)
        } else if found.offset_of(from) < synced {
            (Certainty::Certain, LossReason::Damaged)
        } else {
            (Certainty::Possible, LossReason::Unsynced)
        };
        self.lose(scan.id, found.offset_of(from), Some(found.offset_of(to)), certainty, reason);
    }

    /// Compares where the log before `scan` ended with where `scan` says it did.
    fn gap_before(&mut self, scan: &Scan, found: &Found) {
        let before = self.segments.back().map_or(scan.id, |segment| segment.id);
        let Some(Expected { offset, end }) = self.expected.take() else {
            // The oldest files hold no frame. Where they began cannot be known: not before their length says.
            let to = found.start.map_or(found.base, |start| start.cut_at);
            if self.spoiled_bytes > 0 && to > 0 {
                let from = to.saturating_sub(self.spoiled_bytes);
                self.lose(before, from, Some(to), Certainty::Certain, LossReason::MissingSegment);
            }
            if let Some(start) = found.start {
                self.declared(before, start);
            }
            return;
        };
        let missing = if before + 1 == scan.id { before } else { before + 1 };
        match (found.start, end) {
            // The end frame is whole: what lies between it and here was cut in order, or is missing.
            (Some(start), Some(_)) => {
                if offset < start.cut_at {
                    self.lose(missing, offset, Some(start.cut_at), Certainty::Certain, LossReason::MissingSegment);
                }
                self.declared(before, start);
            }
            (None, Some(end)) => {
                self.declared(before, end);
                if offset < found.base {
                    self.lose(missing, offset, Some(found.base), Certainty::Certain, LossReason::MissingSegment);
                }
            }
            // The end frame is not. It took the last block before the offset that the start frame names, or before here.
            (Some(start), None) => {
                self.unended(before, offset, start.cut_at, start.cut_at);
                self.declared(before, start);
            }
            (None, None) => self.unended(before, offset, found.base - BLOCK_BYTES, found.base),
        }
    }

    /// The frames from `from` on and the end frame of a closed segment are damaged. The frames ended at `frames_end`.
    fn unended(&mut self, id: u64, from: u64, frames_end: u64, to: u64) {
        if from >= frames_end {
            self.lose(id, from, Some(from), Certainty::Nothing, LossReason::EndFrame);
        } else {
            self.lose(id, from, Some(to), Certainty::Certain, LossReason::Damaged);
        }
    }

    /// Repeats what an earlier recovery cut, while the segment before the cut is there.
    fn declared(&mut self, before: u64, closing: Closing) {
        if closing.reason == Reason::CutWithBytes && !self.segments.is_empty() {
            self.lose(before, closing.cut_at, Some(closing.next), Certainty::Possible, LossReason::TornTail);
        }
    }

    fn overlap(&mut self, scan: &Scan, found: &Found) {
        self.lose(scan.id, found.base, Some(found.end_offset()), Certainty::Certain, LossReason::Overlap);
        self.push_frameless(scan);
    }

    fn frameless(&mut self, scan: &Scan, policy: &Policy) {
        if scan.is_spoiled() {
            let unknown = if scan.header.is_none() { policy.segment_bytes } else { 0 };
            let bytes = scan.bytes_once().max(unknown).max(2 * BLOCK_BYTES).next_multiple_of(BLOCK_BYTES);
            self.spoiled_bytes = self.spoiled_bytes.saturating_add(bytes - BLOCK_BYTES);
        }
        self.push_frameless(scan);
    }

    fn push_frameless(&mut self, scan: &Scan) {
        let offset = self.segments.back().map_or(0, |segment| segment.end);
        self.segments.push_back(Segment {
            id: scan.id,
            base: offset,
            end: offset,
            data_end: 0,
            file_bytes: scan.file_bytes,
            content: Content::Recovered(Vec::new()),
        });
    }

    fn tail(&mut self, scans: &[Scan], last: Option<usize>, synced: u64, policy: &Policy) -> Tail {
        let counter = scans.iter().filter_map(|scan| scan.found.as_ref()).map(|found| found.counter).max().unwrap_or(0);
        let found = last.map(|last| (&scans[last], scans[last].found.as_ref().expect("it is one with frames")));
        let end = found.and_then(|(_, found)| found.end);
        let cut_at = end.map_or(found.map_or(0, |(_, found)| found.end_offset()), |end| end.cut_at);
        let whole_to = found.map_or(0, |(_, found)| found.end_offset());
        let (mut next, mut reason) = match (end, found) {
            (Some(end), _) if end.reason == Reason::Rotated => (end.next, Reason::Cut),
            (Some(end), _) => (end.next, end.reason),
            (None, Some(_)) => (cut_at + BLOCK_BYTES, Reason::Cut),
            (None, None) => (0, Reason::First),
        };
        let mut given_up = self.spoiled_bytes.min(NUMBER_MAX);
        if let Some((scan, found)) = found.filter(|(_, found)| found.end.is_none())
            && (scan.bytes_behind || scan.is_short())
        {
            given_up += scan.bytes_once().next_multiple_of(BLOCK_BYTES).saturating_sub(found.end_at());
        }
        if given_up > 0 {
            next = next.max(end.map_or(whole_to, |end| end.next) + given_up);
            reason = Reason::CutWithBytes;
        }
        let id = last.map(|last| scans[last].id).or(scans.last().map(|scan| scan.id)).unwrap_or(1);
        if reason == Reason::CutWithBytes {
            self.lose(id, cut_at, Some(next), Certainty::Possible, LossReason::TornTail);
        }
        if next < policy.offset_min {
            let from = next;
            next = policy.offset_min.next_multiple_of(BLOCK_BYTES);
            reason = Reason::CutWithBytes;
            self.lose(id, from, Some(next), Certainty::Possible, LossReason::ShortOfWatermark);
        }
        // A frame takes one block at least, so what was given up used no more counters than it has blocks. The end
        // frame takes one of them.
        let counter = counter + (next - whole_to) / BLOCK_BYTES;
        let has_holes = self.losses.iter().any(|loss| loss.segment == id && loss.reason == LossReason::Unsynced);
        Tail { last, reason, cut_at, next, counter, synced: if has_holes { synced } else { cut_at } }
    }

    fn lose(&mut self, segment: u64, from: u64, to: Option<u64>, certainty: Certainty, reason: LossReason) {
        self.losses.push(Loss { file: file_name(segment), segment, from, to, certainty, reason });
    }
}
