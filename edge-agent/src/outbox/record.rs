//! One record of the outbox's log.
//!
//! Owns:     the bytes of a record, as `docs/formats/outbox.md` lays them out.
//! Does not: know files or frames (`wal`), nor what a record means for what waits (`outbox`).
//!
//! Invariant: what [`encode`] writes, [`decode`] reads; anything else is an error, never a panic.

use std::sync::Arc;

use super::ahead::SeqRange;
use crate::gap::{Gap, GapReason, Life};
use crate::timepiece::BootId;
use crate::wall::{Certainty, Fix};
use crate::wear::Wear;

/// The version that this release writes, and the newest it reads. Version 1 had no boots, version 2 nothing ahead.
pub(crate) const VERSION: u8 = 3;

/// Stands for the wall clock. A boot's id is random.
const NO_BOOT: [u8; 16] = [0; 16];
const UNKNOWN: u64 = u64::MAX;
/// No seq, offset or number of readings comes near; the rest of the range keeps sums safe.
const NUMBER_MAX: u64 = 1 << 48;

/// Where the outbox stands. Every record carries it whole, so the newest record is enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// The present life.
    pub(crate) life: Life,
    /// The last seq that was given away in it.
    pub(crate) last_seq: u64,
    /// Readings of all batches made in it.
    pub(crate) readings_made: u64,
    /// Frames that begin below this offset of the log are forgotten: acknowledged, or dropped and reported.
    pub(crate) forgotten_to: u64,
    /// The newest batch of this life that was forgotten.
    pub(crate) forgotten_seq: u64,
    /// Readings of the batches up to it.
    pub(crate) forgotten_readings: u64,
    /// Gaps that are in no batch that was durable when this was written.
    pub(crate) gaps: Vec<Gap>,
    /// The wall clock of the present boot, and of those of which batches wait whose times are by the clock since boot.
    pub(crate) boots: Vec<(BootId, Fix)>,
    /// The latest known wall time of a reading, microseconds since 1970-01-01 UTC; 0 before the first.
    pub(crate) newest_us: i64,
    /// What the outbox has written until then, ever since it was made.
    pub(crate) wear: Wear,
    /// What is forgotten of the frames that begin at `forgotten_to` or behind it.
    pub(crate) ahead: Vec<SeqRange>,
    /// What is handed out, or may be until the next record, and is not forgotten.
    pub(crate) planned: Vec<SeqRange>,
}

/// By which clock the lines of a batch have their times, and the first and the last of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    /// The boot since which microseconds are counted; none for the wall clock, since 1970-01-01 UTC.
    pub(crate) boot: Option<BootId>,
    pub(crate) first_us: i64,
    pub(crate) last_us: i64,
}

/// How a batch's body is kept and sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Line protocol.
    Plain,
    /// Line protocol in one zstd frame.
    Zstd,
}

/// A batch's part of its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) life: Life,
    pub(crate) seq: u64,
    pub(crate) readings: u32,
    /// Readings of all batches of its life made before it.
    pub(crate) readings_before: u64,
    /// When it was closed, microseconds since 1970-01-01 UTC.
    pub(crate) time_us: i64,
    /// What it reports.
    pub(crate) gaps: Vec<Gap>,
    pub(crate) encoding: Encoding,
    pub(crate) times: Times,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content<'a> {
    /// The state and nothing else.
    Cursor,
    /// The outbox was closed in order; nothing follows in this life of the process.
    Closed,
    Batch(&'a Header, &'a [u8]),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decoded<'a> {
    Cursor,
    Closed,
    Batch(Header, &'a [u8]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordError {
    /// A later release wrote it.
    Newer(u8),
    /// It is not what any release writes.
    Malformed,
}

pub(crate) fn encode(state: &State, content: Content<'_>) -> Vec<u8> {
    let body_bytes = if let Content::Batch(_, body) = content { body.len() } else { 0 };
    let mut out = Writer(Vec::with_capacity(256 + body_bytes));
    out.0.push(VERSION);
    out.0.push(match content {
        Content::Cursor => 1,
        Content::Closed => 2,
        Content::Batch(..) => 3,
    });
    out.0.push(match content {
        Content::Batch(Header { encoding: Encoding::Zstd, .. }, _) => 1,
        _ => 0,
    });
    out.0.push(0);
    out.life(&state.life);
    for number in
        [state.last_seq, state.readings_made, state.forgotten_to, state.forgotten_seq, state.forgotten_readings]
    {
        out.u64(number);
    }
    out.gaps(&state.gaps);
    out.boots(&state.boots);
    out.i64(state.newest_us);
    out.u64(state.wear.bytes_written);
    out.u64(state.wear.syncs);
    out.ranges(&state.ahead);
    out.ranges(&state.planned);
    if let Content::Batch(header, body) = content {
        out.life(&header.life);
        out.u64(header.seq);
        out.u64(u64::from(header.readings));
        out.u64(header.readings_before);
        out.i64(header.time_us);
        out.gaps(&header.gaps);
        out.0.extend_from_slice(&header.times.boot.map_or(NO_BOOT, |boot| boot.0));
        out.i64(header.times.first_us);
        out.i64(header.times.last_us);
        out.0.extend_from_slice(body);
    }
    out.0
}

pub(crate) fn decode(record: &[u8]) -> Result<(State, Decoded<'_>), RecordError> {
    let (&[version, kind, encoding, reserved], rest) = record.split_first_chunk().ok_or(RecordError::Malformed)?;
    if version > VERSION {
        return Err(RecordError::Newer(version));
    }
    if version == 0 || reserved != 0 {
        return Err(RecordError::Malformed);
    }
    let mut input = Reader(rest);
    parse(&mut input, version, kind, encoding).ok_or(RecordError::Malformed)
}

fn parse<'a>(input: &mut Reader<'a>, version: u8, kind: u8, encoding: u8) -> Option<(State, Decoded<'a>)> {
    let state = State {
        life: input.life()?,
        last_seq: input.number()?,
        readings_made: input.number()?,
        forgotten_to: input.number()?,
        forgotten_seq: input.number()?,
        forgotten_readings: input.number()?,
        gaps: input.gaps()?,
        boots: if version == 1 { Vec::new() } else { input.boots()? },
        newest_us: if version == 1 { 0 } else { input.i64()? },
        wear: if version == 1 { Wear::default() } else { Wear { bytes_written: input.u64()?, syncs: input.u64()? } },
        ahead: if version < 3 { Vec::new() } else { input.ranges()? },
        planned: if version < 3 { Vec::new() } else { input.ranges()? },
    };
    let decoded = match (kind, encoding) {
        (1, 0) => Decoded::Cursor,
        (2, 0) => Decoded::Closed,
        (3, 0 | 1) => {
            let mut header = Header {
                life: input.life()?,
                seq: input.number()?,
                readings: input.u64()?.try_into().ok()?,
                readings_before: input.number()?,
                time_us: input.i64()?,
                gaps: input.gaps()?,
                encoding: if encoding == 1 { Encoding::Zstd } else { Encoding::Plain },
                times: Times { boot: None, first_us: 0, last_us: 0 },
            };
            header.times = if version == 1 {
                Times { boot: None, first_us: header.time_us, last_us: header.time_us }
            } else {
                let boot = Some(input.take()?).filter(|id| *id != NO_BOOT).map(BootId);
                Times { boot, first_us: input.i64()?, last_us: input.i64()? }
            };
            return Some((state, Decoded::Batch(header, input.0)));
        }
        _ => return None,
    };
    input.0.is_empty().then_some((state, decoded))
}

struct Writer(Vec<u8>);

impl Writer {
    fn u64(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn i64(&mut self, number: i64) {
        self.u64(number.cast_unsigned());
    }

    fn boots(&mut self, boots: &[(BootId, Fix)]) {
        let count = u16::try_from(boots.len()).expect("boots are fixed a few at a time");
        self.0.extend_from_slice(&count.to_le_bytes());
        for (boot, fix) in boots {
            self.0.extend_from_slice(&boot.0);
            self.i64(fix.offset_us);
            self.0.push(match fix.certainty {
                Certainty::Known => 0,
                Certainty::Estimated => 1,
            });
        }
    }

    fn ranges(&mut self, ranges: &[SeqRange]) {
        let count = u16::try_from(ranges.len()).expect("a range begins only while there are few");
        self.0.extend_from_slice(&count.to_le_bytes());
        for SeqRange { life, first_seq, last_seq } in ranges {
            self.life(life);
            self.u64(*first_seq);
            self.u64(*last_seq);
        }
    }

    fn life(&mut self, life: &Life) {
        let len = u8::try_from(life.agent.len()).expect("an agent's id is a name of at most 80 bytes");
        self.0.push(len);
        self.0.extend_from_slice(life.agent.as_bytes());
        self.u64(life.epoch);
    }

    fn gaps(&mut self, gaps: &[Gap]) {
        let count = u16::try_from(gaps.len()).expect("gaps are merged long before");
        self.0.extend_from_slice(&count.to_le_bytes());
        for gap in gaps {
            self.life(&gap.life);
            self.u64(gap.first_seq);
            self.u64(gap.last_seq);
            self.u64(gap.readings.unwrap_or(UNKNOWN));
            self.i64(gap.time_us);
            self.0.push(match gap.reason {
                GapReason::OutboxFull => 1,
                GapReason::UncleanStop => 2,
                GapReason::Damaged => 3,
            });
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.u64().map(u64::cast_signed)
    }

    fn boots(&mut self) -> Option<Vec<(BootId, Fix)>> {
        let count = u16::from_le_bytes(self.take()?);
        (0..count).map(|_| self.boot()).collect()
    }

    fn boot(&mut self) -> Option<(BootId, Fix)> {
        let (boot, offset_us) = (BootId(self.take()?), self.i64()?);
        let certainty = match self.take()? {
            [0] => Certainty::Known,
            [1] => Certainty::Estimated,
            _ => return None,
        };
        Some((boot, Fix { offset_us, certainty }))
    }

    fn ranges(&mut self) -> Option<Vec<SeqRange>> {
        let count = u16::from_le_bytes(self.take()?);
        let one = |_| {
            let range = SeqRange { life: self.life()?, first_seq: self.number()?, last_seq: self.number()? };
            (range.first_seq <= range.last_seq).then_some(range)
        };
        (0..count).map(one).collect()
    }

    fn number(&mut self) -> Option<u64> {
        self.u64().filter(|number| *number < NUMBER_MAX)
    }

    fn life(&mut self) -> Option<Life> {
        let [len] = self.take()?;
        let (agent, rest) = self.0.split_at_checked(usize::from(len))?;
        self.0 = rest;
        let agent: Arc<str> = std::str::from_utf8(agent).ok()?.into();
        Some(Life { agent, epoch: self.u64()? })
    }

    fn gaps(&mut self) -> Option<Vec<Gap>> {
        let count = u16::from_le_bytes(self.take()?);
        (0..count).map(|_| self.gap()).collect()
    }

    fn gap(&mut self) -> Option<Gap> {
        let life = self.life()?;
        let (first_seq, last_seq) = (self.number()?, self.number()?);
        let readings = match self.u64()? {
            UNKNOWN => None,
            readings => Some(readings).filter(|readings| *readings < NUMBER_MAX).map(Some)?,
        };
        let time_us = self.i64()?;
        let reason = match self.take()? {
            [1] => GapReason::OutboxFull,
            [2] => GapReason::UncleanStop,
            [3] => GapReason::Damaged,
            _ => return None,
        };
        (first_seq <= last_seq).then_some(Gap { life, first_seq, last_seq, readings, reason, time_us })
    }
}

#[cfg(test)]
mod tests {
    use model::{Rng, SplitMix64};

    use super::*;

    fn sample() -> (State, Header) {
        let life = Life { agent: "pi-7".into(), epoch: u64::MAX };
        let gap = |first_seq, readings| Gap {
            life: Life { agent: "pi-6".into(), epoch: 4 },
            first_seq,
            last_seq: 9,
            readings,
            reason: GapReason::Damaged,
            time_us: -1,
        };
        let state = State {
            life: life.clone(),
            last_seq: 12,
            readings_made: 1200,
            forgotten_to: 4096,
            forgotten_seq: 3,
            forgotten_readings: 300,
            gaps: vec![gap(1, None), gap(2, Some(7))],
            boots: vec![
                (BootId([7; 16]), Fix { offset_us: -1, certainty: Certainty::Known }),
                (BootId([8; 16]), Fix { offset_us: i64::MAX, certainty: Certainty::Estimated }),
            ],
            newest_us: 5,
            wear: Wear { bytes_written: 4096, syncs: 3 },
            ahead: vec![
                SeqRange { life: Life { agent: "pi-6".into(), epoch: 4 }, first_seq: 7, last_seq: 7 },
                SeqRange { life: life.clone(), first_seq: 5, last_seq: 11 },
            ],
            planned: vec![SeqRange { life: life.clone(), first_seq: 4, last_seq: 12 }],
        };
        let header = Header {
            life,
            seq: 12,
            readings: 100,
            readings_before: 1100,
            time_us: 1_780_272_000_000_000,
            gaps: vec![gap(3, Some(1))],
            encoding: Encoding::Zstd,
            times: Times { boot: Some(BootId([9; 16])), first_us: -5, last_us: i64::MAX },
        };
        (state, header)
    }

    #[test]
    fn what_is_written_is_read() {
        let (state, header) = sample();
        let record = encode(&state, Content::Batch(&header, b"body"));
        assert_eq!(decode(&record), Ok((state.clone(), Decoded::Batch(header, b"body"))));
        for (content, decoded) in [(Content::Cursor, Decoded::Cursor), (Content::Closed, Decoded::Closed)] {
            assert_eq!(decode(&encode(&state, content)), Ok((state.clone(), decoded)));
        }
    }

    #[test]
    fn version_1_is_read() {
        // Written by the release before boots: a batch of two readings, with a gap (P13).
        let record = include_bytes!("record/version_1.bin");
        let (state, decoded) = decode(record).unwrap();
        assert_eq!((state.last_seq, state.boots.len(), state.newest_us), (12, 0, 0));
        let Decoded::Batch(header, body) = decoded else { panic!("it is a batch") };
        assert_eq!((header.seq, header.gaps.len(), body), (12, 1, &b"body"[..]));
        assert_eq!(header.times, Times { boot: None, first_us: header.time_us, last_us: header.time_us });
    }

    #[test]
    fn version_2_is_read() {
        // Laid out by hand as docs/formats/outbox.md had it: a batch whose times are by a boot, and that boot's wall time.
        let record = include_bytes!("record/version_2.bin");
        let (state, decoded) = decode(record).unwrap();
        let (expected, header) = sample();
        assert_eq!(state, State { ahead: Vec::new(), planned: Vec::new(), ..expected });
        assert_eq!(decoded, Decoded::Batch(header, b"body"));
    }

    #[test]
    fn a_newer_version_is_told_apart_from_damage() {
        let mut record = encode(&sample().0, Content::Cursor);
        record[0] = VERSION + 1;
        assert_eq!(decode(&record), Err(RecordError::Newer(VERSION + 1)));
        record[0] = 0;
        assert_eq!(decode(&record), Err(RecordError::Malformed));
    }

    #[test]
    fn mutated_and_cut_records_do_not_panic() {
        let (state, header) = sample();
        let record = encode(&state, Content::Batch(&header, b"body"));
        let rng = SplitMix64::new(7);
        for len in 0..record.len() {
            let _ = decode(&record[..len]);
        }
        for _ in 0..20_000 {
            let mut record = record.clone();
            for _ in 0..1 + rng.below(4) {
                let at = rng.below(record.len() as u64) as usize;
                record[at] = rng.next_u64() as u8;
            }
            let _ = decode(&record);
        }
    }
}
