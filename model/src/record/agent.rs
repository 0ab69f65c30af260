//! The bytes of what is logged about agents: batches by their names, what agents say of themselves, and what is
//! known of one agent as a whole.
//!
//! Owns:     the layout of the kinds 2 to 4 of `docs/formats/record.md`, both directions.
//! Does not: know what a known batch means (`storage` does).

use std::sync::Arc;

use super::{KIND_AGENT_BATCH, KIND_AGENT_STATE, KIND_AGENT_STATUS, Reader, RecordError, VERSION, put_len, put_text};

/// How a batch compares with what is known of its agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Not seen before, or too long ago to tell: it is applied.
    New,
    /// The same batch is here already: it is acknowledged once that one is durable, and not applied again.
    Duplicate,
    /// Another batch has this number: it is applied, and counted as a conflict.
    Conflict,
}

/// Batches that an agent had to give up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentGap {
    /// The first of them.
    pub first_seq: u64,
    /// The last of them.
    pub last_seq: u64,
    /// Readings in them, if the agent knows.
    pub readings: Option<u64>,
    /// Why, in one word: `outbox_full`, `unclean_stop`, `damaged`.
    pub reason: Arc<str>,
    /// When, by the agent's clock, microseconds since 1970-01-01 UTC.
    pub time_us: i64,
}

/// A batch that came with a name. Its readings are in records of their own before this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentBatchRecord {
    /// The agent's id.
    pub agent: Arc<str>,
    /// The life of the agent's outbox.
    pub epoch: u64,
    /// The batch's number in that life, from 1.
    pub seq: u64,
    /// CRC32C of the whole body, decompressed.
    pub crc: u32,
    /// What it was taken for.
    pub seen: Seen,
    /// When it came, by the server's clock, microseconds since 1970-01-01 UTC.
    pub received_us: i64,
    /// Readings that were stored.
    pub readings: u64,
    /// What the agent reports as lost.
    pub gaps: Vec<AgentGap>,
}

/// What an agent said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentStatusRecord {
    /// The agent's id.
    pub agent: Arc<str>,
    /// When it came, by the server's clock, microseconds since 1970-01-01 UTC.
    pub received_us: i64,
    /// False in its last will and when it stops.
    pub online: bool,
    /// Its version.
    pub version: Option<Arc<str>>,
    /// The life of its outbox.
    pub epoch: Option<u64>,
    /// The number of the last batch it made.
    pub seq: Option<u64>,
    /// Batches that wait in its outbox.
    pub backlog_batches: Option<u64>,
    /// Bytes that wait in its outbox.
    pub backlog_bytes: Option<u64>,
}

/// All that is known of one agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentState {
    /// Its id.
    pub agent: Arc<str>,
    /// What was logged of the agent before this offset is in here, what was logged at it or behind is not.
    pub as_of: u64,
    /// When it was first seen, microseconds since 1970-01-01 UTC.
    pub first_seen_us: i64,
    /// When it was last seen.
    pub last_seen_us: i64,
    /// What it last said of itself, if it did.
    pub online: Option<bool>,
    /// Its version.
    pub version: Option<Arc<str>>,
    /// Batches that wait in its outbox.
    pub backlog_batches: Option<u64>,
    /// Bytes that wait in its outbox.
    pub backlog_bytes: Option<u64>,
    /// Counters since it was first seen.
    pub counters: AgentCounters,
    /// Its outboxes, the one used last at the end.
    pub epochs: Vec<AgentEpoch>,
}

/// What is counted of an agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AgentCounters {
    /// Batches applied.
    pub batches: u64,
    /// Readings stored from them.
    pub readings: u64,
    /// Gaps, reported or found.
    pub gaps: u64,
    /// Batches that came again and were not applied.
    pub duplicates: u64,
    /// Batches whose number another batch had.
    pub conflicts: u64,
}

/// What is known of one outbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentEpoch {
    /// Its random number.
    pub epoch: u64,
    /// The highest number of a batch that came.
    pub highest: u64,
    /// Numbers that came or were given up, as first and last; ascending, not touching.
    pub accounted: Vec<(u64, u64)>,
    /// Those of them that were given up and did not come, in the same form.
    pub given_up: Vec<(u64, u64)>,
    /// Number and CRC32C of the batches that were applied last, the oldest first.
    pub recent: Vec<(u64, u32)>,
    /// The gaps noted last, the oldest first.
    pub gaps: Vec<EpochGap>,
}

/// A gap as an outbox's state keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochGap {
    /// The first number.
    pub first_seq: u64,
    /// The last number.
    pub last_seq: u64,
    /// How many of them came all the same.
    pub received: u64,
    /// The time of its row.
    pub time_us: i64,
    /// Whether the agent reported it; otherwise the server found it.
    pub reported: bool,
}

/// Appends the bytes of a [`super::Record::AgentBatch`] to `out`.
///
/// # Panics
/// If a number is 0 or a gap ends before it begins, before anything is appended.
pub fn encode_agent_batch(batch: &AgentBatchRecord, out: &mut Vec<u8>) {
    assert!(batch.seq > 0, "numbers of batches count from 1");
    assert!(batch.gaps.iter().all(|gap| 0 < gap.first_seq && gap.first_seq <= gap.last_seq), "a gap has a first");
    out.extend_from_slice(&[VERSION, KIND_AGENT_BATCH]);
    put_text(out, &batch.agent);
    put_u64(out, batch.epoch);
    put_u64(out, batch.seq);
    out.extend_from_slice(&batch.crc.to_le_bytes());
    out.push(match batch.seen {
        Seen::New => 1,
        Seen::Duplicate => 2,
        Seen::Conflict => 3,
    });
    put_i64(out, batch.received_us);
    put_u64(out, batch.readings);
    put_len(out, batch.gaps.len());
    for gap in &batch.gaps {
        put_u64(out, gap.first_seq);
        put_u64(out, gap.last_seq);
        put_optional(out, gap.readings);
        put_text(out, &gap.reason);
        put_i64(out, gap.time_us);
    }
}

/// Appends the bytes of a [`super::Record::AgentStatus`] to `out`.
pub fn encode_agent_status(status: &AgentStatusRecord, out: &mut Vec<u8>) {
    out.extend_from_slice(&[VERSION, KIND_AGENT_STATUS]);
    put_text(out, &status.agent);
    put_i64(out, status.received_us);
    out.push(u8::from(status.online));
    put_optional_text(out, status.version.as_deref());
    put_optional(out, status.epoch);
    put_optional(out, status.seq);
    put_optional(out, status.backlog_batches);
    put_optional(out, status.backlog_bytes);
}

/// Appends the bytes of a [`super::Record::AgentState`] to `out`.
///
/// # Panics
/// If ranges are not ascending, before anything is appended.
pub fn encode_agent_state(state: &AgentState, out: &mut Vec<u8>) {
    assert!(state.epochs.iter().all(|epoch| check_epoch(epoch).is_ok()), "the state of an agent is sound");
    out.extend_from_slice(&[VERSION, KIND_AGENT_STATE]);
    put_text(out, &state.agent);
    put_u64(out, state.as_of);
    put_i64(out, state.first_seen_us);
    put_i64(out, state.last_seen_us);
    out.push(match state.online {
        None => 0,
        Some(false) => 1,
        Some(true) => 2,
    });
    put_optional_text(out, state.version.as_deref());
    put_optional(out, state.backlog_batches);
    put_optional(out, state.backlog_bytes);
    let AgentCounters { batches, readings, gaps, duplicates, conflicts } = state.counters;
    [batches, readings, gaps, duplicates, conflicts].iter().for_each(|count| put_u64(out, *count));
    put_len(out, state.epochs.len());
    for epoch in &state.epochs {
        put_u64(out, epoch.epoch);
        put_u64(out, epoch.highest);
        for ranges in [&epoch.accounted, &epoch.given_up] {
            put_len(out, ranges.len());
            for (first, last) in ranges {
                put_u64(out, *first);
                put_u64(out, *last);
            }
        }
        put_len(out, epoch.recent.len());
        for (seq, crc) in &epoch.recent {
            put_u64(out, *seq);
            out.extend_from_slice(&crc.to_le_bytes());
        }
        put_len(out, epoch.gaps.len());
        for gap in &epoch.gaps {
            put_u64(out, gap.first_seq);
            put_u64(out, gap.last_seq);
            put_u64(out, gap.received);
            put_i64(out, gap.time_us);
            out.push(u8::from(gap.reported));
        }
    }
}

/// Whether `bytes` are, or claim to be, a [`super::Record::AgentState`] that this version reads.
pub fn is_agent_state(bytes: &[u8]) -> bool {
    bytes.starts_with(&[VERSION, KIND_AGENT_STATE])
}

pub(super) fn decode_agent_batch(reader: &mut Reader<'_>) -> Result<AgentBatchRecord, RecordError> {
    let agent = reader.text()?.into();
    let epoch = reader.u64()?;
    let seq = reader.u64()?;
    if seq == 0 {
        return Err(reader.malformed("a batch has the number 0"));
    }
    let crc = u32::from_le_bytes(reader.chunk()?);
    let [seen] = reader.chunk()?;
    let seen = match seen {
        1 => Seen::New,
        2 => Seen::Duplicate,
        3 => Seen::Conflict,
        _ => return Err(reader.malformed("unknown outcome of a batch")),
    };
    let received_us = reader.i64()?;
    let readings = reader.u64()?;
    let mut gaps = Vec::new();
    for _ in 0..reader.len()? {
        let (first_seq, last_seq) = (reader.u64()?, reader.u64()?);
        if first_seq == 0 || first_seq > last_seq {
            return Err(reader.malformed("a gap ends before it begins"));
        }
        let (readings, reason) = (reader.optional()?, reader.text()?.into());
        gaps.push(AgentGap { first_seq, last_seq, readings, reason, time_us: reader.i64()? });
    }
    Ok(AgentBatchRecord { agent, epoch, seq, crc, seen, received_us, readings, gaps })
}

pub(super) fn decode_agent_status(reader: &mut Reader<'_>) -> Result<AgentStatusRecord, RecordError> {
    Ok(AgentStatusRecord {
        agent: reader.text()?.into(),
        received_us: reader.i64()?,
        online: reader.flag()?,
        version: reader.optional_text()?,
        epoch: reader.optional()?,
        seq: reader.optional()?,
        backlog_batches: reader.optional()?,
        backlog_bytes: reader.optional()?,
    })
}

pub(super) fn decode_agent_state(reader: &mut Reader<'_>) -> Result<AgentState, RecordError> {
    let agent = reader.text()?.into();
    let as_of = reader.u64()?;
    let (first_seen_us, last_seen_us) = (reader.i64()?, reader.i64()?);
    let [online] = reader.chunk()?;
    let online = match online {
        0 => None,
        1 => Some(false),
        2 => Some(true),
        _ => return Err(reader.malformed("neither online, offline nor unknown")),
    };
    let version = reader.optional_text()?;
    let (backlog_batches, backlog_bytes) = (reader.optional()?, reader.optional()?);
    let counters = AgentCounters {
        batches: reader.u64()?,
        readings: reader.u64()?,
        gaps: reader.u64()?,
        duplicates: reader.u64()?,
        conflicts: reader.u64()?,
    };
    let mut epochs = Vec::new();
    for _ in 0..reader.len()? {
        let (epoch, highest) = (reader.u64()?, reader.u64()?);
        let (accounted, given_up) = (reader.ranges()?, reader.ranges()?);
        let known = reader.len()?;
        let recent = reader.array::<_, 12>(known, |bytes| {
            (u64_at(&bytes, 0), u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]))
        })?;
        let mut gaps = Vec::new();
        for _ in 0..reader.len()? {
            gaps.push(EpochGap {
                first_seq: reader.u64()?,
                last_seq: reader.u64()?,
                received: reader.u64()?,
                time_us: reader.i64()?,
                reported: reader.flag()?,
            });
        }
        let epoch = AgentEpoch { epoch, highest, accounted, given_up, recent, gaps };
        check_epoch(&epoch).map_err(|what| reader.malformed(what))?;
        epochs.push(epoch);
    }
    Ok(AgentState {
        agent,
        as_of,
        first_seen_us,
        last_seen_us,
        online,
        version,
        backlog_batches,
        backlog_bytes,
        counters,
        epochs,
    })
}

fn check_epoch(epoch: &AgentEpoch) -> Result<(), &'static str> {
    for ranges in [&epoch.accounted, &epoch.given_up] {
        let mut behind = 0;
        for (i, (first, last)) in ranges.iter().enumerate() {
            // Ranges that touch would be one; number 0 does not exist.
            if *first == 0 || first > last || (i > 0 && *first <= behind) {
                return Err("ranges of numbers do not ascend, or touch");
            }
            behind = last.saturating_add(1);
        }
    }
    let is_accounted = |(first, last): &(u64, u64)| {
        let at = epoch.accounted.partition_point(|range| range.1 < *last);
        epoch.accounted.get(at).is_some_and(|range| range.0 <= *first)
    };
    if !epoch.given_up.iter().all(is_accounted) {
        return Err("a number was given up and is not accounted for");
    }
    if epoch.recent.iter().any(|(seq, _)| *seq == 0) {
        return Err("a batch has the number 0");
    }
    let is_gap = |gap: &EpochGap| {
        0 < gap.first_seq && gap.first_seq <= gap.last_seq && gap.received <= gap.last_seq - gap.first_seq + 1
    };
    if epoch.gaps.iter().all(is_gap) { Ok(()) } else { Err("a gap ends before it begins, or more came than it has") }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("callers give a place within"))
}

fn put_u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_i64(out: &mut Vec<u8>, number: i64) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_optional(out: &mut Vec<u8>, number: Option<u64>) {
    out.push(u8::from(number.is_some()));
    number.into_iter().for_each(|number| put_u64(out, number));
}

fn put_optional_text(out: &mut Vec<u8>, text: Option<&str>) {
    out.push(u8::from(text.is_some()));
    text.into_iter().for_each(|text| put_text(out, text));
}

impl Reader<'_> {
    fn u64(&mut self) -> Result<u64, RecordError> {
        Ok(u64::from_le_bytes(self.chunk()?))
    }

    fn i64(&mut self) -> Result<i64, RecordError> {
        Ok(i64::from_le_bytes(self.chunk()?))
    }

    fn flag(&mut self) -> Result<bool, RecordError> {
        match self.chunk()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [_] => Err(self.malformed("neither yes nor no")),
        }
    }

    fn ranges(&mut self) -> Result<Vec<(u64, u64)>, RecordError> {
        let ranges = self.len()?;
        self.array::<_, 16>(ranges, |bytes| (u64_at(&bytes, 0), u64_at(&bytes, 8)))
    }

    fn optional(&mut self) -> Result<Option<u64>, RecordError> {
        if self.flag()? { self.u64().map(Some) } else { Ok(None) }
    }

    fn optional_text(&mut self) -> Result<Option<Arc<str>>, RecordError> {
        if self.flag()? { Ok(Some(self.text()?.into())) } else { Ok(None) }
    }
}
