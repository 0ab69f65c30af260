//! What a log has to report as missing.

use std::fmt;

/// Whether records are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Certainty {
    /// Records that had been acknowledged, or may have been, are gone.
    Certain,
    /// The bytes may have been a record that was being written and never acknowledged, or one that was.
    Possible,
    /// No record is gone: what is damaged is a header block, a start frame or an end frame.
    Nothing,
}

/// What was found in place of whole frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LossReason {
    /// Frames are damaged.
    Damaged,
    /// The log ends in bytes that are no whole frame and were cut.
    TornTail,
    /// Frames that had not been synced when power failed.
    Unsynced,
    /// The header block of a segment is damaged.
    HeaderBlock,
    /// The start frame of a segment is damaged.
    StartFrame,
    /// The end frame of a segment is damaged.
    EndFrame,
    /// Segments are missing, or hold nothing that can be read.
    MissingSegment,
    /// A segment claims offsets that an earlier one has.
    Overlap,
    /// The log ends before the offset that the caller knew of.
    ShortOfWatermark,
}

/// A stretch of the log that is missing or damaged. Offsets are the log's, as in `Position::offset`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The segment file in question; one that is missing has the name it would have.
    pub file: String,
    /// Its id.
    pub segment: u64,
    /// Where the stretch begins.
    pub from: u64,
    /// Where it ends; `None` if that cannot be known.
    pub to: Option<u64>,
    /// Whether records are gone.
    pub certainty: Certainty,
    /// What was found.
    pub reason: LossReason,
}

impl fmt::Display for Certainty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Certainty::Certain => "certain",
            Certainty::Possible => "possible",
            Certainty::Nothing => "nothing",
        })
    }
}

impl fmt::Display for LossReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LossReason::Damaged => "frames are damaged",
            LossReason::TornTail => "the log ended in bytes that are no whole frame; they were cut",
            LossReason::Unsynced => "frames not yet synced when power failed",
            LossReason::HeaderBlock => "the header block is damaged",
            LossReason::StartFrame => "the start frame is damaged",
            LossReason::EndFrame => "the end frame is damaged",
            LossReason::MissingSegment => "a segment is missing or unreadable",
            LossReason::Overlap => "the segment claims offsets of an earlier one",
            LossReason::ShortOfWatermark => "the log ends before an offset known to have been reached",
        })
    }
}

/// `00000000000000000003.wal, offsets 8192..12288: frames are damaged (loss: certain)`.
impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, offsets {}..", self.file, self.from)?;
        if let Some(to) = self.to {
            write!(f, "{to}")?;
        }
        write!(f, ": {} (loss: {})", self.reason, self.certainty)
    }
}
