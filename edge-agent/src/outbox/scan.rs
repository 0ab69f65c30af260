//! What the outbox's log holds when it is opened.
//!
//! Owns:     opening the log, and making out of its records what waits and which state is the newest.
//! Does not: decide what becomes of what is missing: the outbox does.

use std::collections::VecDeque;
use std::sync::Arc;

use model::NodeEpoch;
use wal::disk::SharedDisk;
use wal::{Recovery, RingConfig, RingLog, WalError};

use super::record::{self, Decoded, Header, RecordError, State, Times};
use super::{NODE, OutboxConfig, OutboxError};
use crate::gap::{Gap, Gaps, Life};

/// Lives are numbered below it.
pub(super) const LIFE_END: u64 = 1 << 62;

/// A batch in the log, from the first that is not forgotten on.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) life: Life,
    pub(super) seq: u64,
    pub(super) readings: u32,
    pub(super) readings_before: u64,
    pub(super) time_us: i64,
    pub(super) body_bytes: u32,
    /// Offset of its frame in the log.
    pub(super) start: u64,
    pub(super) end: u64,
    /// Frames that follow each other without a step: at most one segment.
    pub(super) run: u64,
    pub(super) gaps: Vec<Gap>,
    /// Of its lines.
    pub(super) times: Times,
    pub(super) stage: Stage,
}

/// How far a batch in the log has come. It never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Waiting,
    /// Handed out.
    Out,
    /// Acknowledged, while one that was handed out before it is not.
    Acked,
    /// Acknowledged with all that were handed out before it, while one before it in the log is not.
    Forgotten,
}

impl Stage {
    /// Whether the server has it.
    pub(super) fn is_settled(self) -> bool {
        matches!(self, Stage::Acked | Stage::Forgotten)
    }
}

impl Entry {
    pub(super) fn is_forgotten(&self) -> bool {
        self.stage == Stage::Forgotten
    }
}

/// What the log held when it was opened.
pub(super) struct Scan {
    pub(super) entries: VecDeque<Entry>,
    /// The newest record's state and whether it closed the outbox.
    pub(super) newest: Option<(State, bool)>,
    last_end: u64,
    pub(super) run: u64,
}

/// Opens the log for `life` or a later one.
pub(super) fn open_log(
    disk: &SharedDisk,
    config: &OutboxConfig,
    life: u64,
) -> Result<(RingLog, Recovery, u64), OutboxError> {
    let ring = |life| RingConfig {
        segment_size_bytes: config.segment_bytes,
        ..RingConfig::outbox(config.log_dir(), NODE, NodeEpoch(life), config.bytes_max)
    };
    match RingLog::open(Arc::clone(disk), ring(life)) {
        // The identity was lost, or a crash came between the log and it: the lock says that nobody else writes here.
        // One that no life can follow is no agent's, and is left alone.
        Err(WalError::Fenced { found: NodeEpoch(found), .. }) if found < LIFE_END => {
            let life = found + 1;
            let (log, recovery) = RingLog::open(Arc::clone(disk), ring(life))?;
            Ok((log, recovery, life))
        }
        opened => opened.map(|(log, recovery)| (log, recovery, life)).map_err(OutboxError::Log),
    }
}

/// Reads the whole log: its newest state and the batches that this says are waiting.
pub(super) fn scan(log: &RingLog) -> Result<Scan, OutboxError> {
    let mut scan = Scan { entries: VecDeque::new(), newest: None, last_end: 0, run: 0 };
    for frame in log.reader(0) {
        let frame = frame?;
        let start = frame.position.offset;
        if start != scan.last_end {
            scan.run += 1;
        }
        scan.last_end = frame.end;
        for bytes in frame.records() {
            let (state, decoded) = match record::decode(bytes) {
                Ok(decoded) => decoded,
                Err(RecordError::Newer(version)) => return Err(OutboxError::Newer { version: version.into() }),
                Err(RecordError::Malformed) => {
                    tracing::error!(offset = start, "a record of the outbox is malformed");
                    continue;
                }
            };
            scan.newest = Some((state, decoded == Decoded::Closed));
            let Decoded::Batch(header, body) = decoded else { continue };
            let Header { life, seq, readings, readings_before, time_us, gaps, times, .. } = header;
            scan.entries.push_back(Entry {
                life,
                seq,
                readings,
                readings_before,
                time_us,
                body_bytes: body.len() as u32,
                start,
                end: frame.end,
                run: scan.run,
                gaps,
                times,
                stage: Stage::Waiting,
            });
        }
    }
    if let Some((state, _)) = &mut scan.newest {
        // A gap that a batch carries stands in the states of that time too: the batch may be lost, and the gap not.
        let entries: Vec<Entry> = scan.entries.drain(..).filter(|entry| entry.start >= state.forgotten_to).collect();
        let (own, reported): (Vec<Gap>, Vec<Gap>) = std::mem::take(&mut state.gaps)
            .into_iter()
            .partition(|gap| !entries.iter().any(|entry| entry.gaps.contains(gap)));
        let own = Gaps(own);
        let (dropped, kept): (Vec<Entry>, Vec<Entry>) =
            entries.into_iter().partition(|entry| own.cover(&entry.life, entry.seq));
        let lost = reported.into_iter().filter(|gap| dropped.iter().any(|entry| entry.gaps.contains(gap)));
        let mut gaps = own.clone();
        for gap in lost {
            gaps.add(gap);
        }
        state.gaps = gaps.0;
        scan.entries = kept.into();
        for entry in &mut scan.entries {
            if state.ahead.iter().any(|ahead| ahead.covers(&entry.life, entry.seq)) {
                entry.stage = Stage::Forgotten;
            }
        }
    }
    Ok(scan)
}
