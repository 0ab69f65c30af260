//! The bytes of one log record: decoded columns and where they came from, so that replay never parses again; what was
//! removed; and what is known of agents ([`AgentState`] and its neighbours).
//!
//! Owns:     the layout of `docs/formats/record.md`, both directions.
//! Does not: checksum (the log's frame does), know what was logged before, or judge names: rules about names may
//!           become stricter, but what was logged under the old ones must still be read.
//!
//! Invariants
//!  1. What [`decode`] returns satisfies every invariant of [`TableBatch`], whatever the bytes were.
//!  2. [`decode`] allocates at most a fixed multiple of the bytes it was given (P14).
//!  3. `decode(encode_batch(x))` is `x` but for `lines`, which are not logged; a record that decodes encodes to the
//!     same bytes again.

mod agent;
mod removal;

use std::collections::HashSet;

use crate::batch::{bits_of_bools, bools_of_bits};
use crate::{
    FieldColumn, FieldType, FieldValues, Removal, SeriesKey, TableBatch, TableId, TableName, TextColumn, Validity,
    decimal,
};

pub use agent::{
    AgentBatchRecord, AgentCounters, AgentEpoch, AgentGap, AgentState, AgentStatusRecord, EpochGap, Seen,
    encode_agent_batch, encode_agent_state, encode_agent_status, is_agent_state,
};
pub use removal::encode_removal;

/// The version that is written and the newest that [`decode`] reads.
const VERSION: u8 = 1;
/// The kind of [`Record::Batch`].
const KIND_BATCH: u8 = 1;
/// The kind of [`Record::AgentBatch`].
const KIND_AGENT_BATCH: u8 = 2;
/// The kind of [`Record::AgentStatus`].
const KIND_AGENT_STATUS: u8 = 3;
/// The kind of [`Record::AgentState`].
const KIND_AGENT_STATE: u8 = 4;
/// The kind of [`Record::Removal`].
const KIND_REMOVAL: u8 = 5;

/// Validity of a column: a bit a row follows.
const SOME_VALID: u8 = 0;
/// Validity of a column: every row has a value, nothing follows.
const ALL_VALID: u8 = 1;

/// What the log says happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// Readings written to one table.
    Batch {
        /// The table that was meant: a table dropped and made again has another id.
        table: TableId,
        /// The writer, for people: `http 127.0.0.1:50412`.
        source: String,
        /// The readings. `lines` are all 0: they are not logged.
        batch: TableBatch,
    },
    /// A batch of an agent, by its name; its readings are in the records before.
    AgentBatch(AgentBatchRecord),
    /// What an agent said of itself.
    AgentStatus(AgentStatusRecord),
    /// All that was known of one agent, so that older records of it may be truncated away.
    AgentState(AgentState),
    /// Rows, or fields of rows, taken away from one table.
    Removal {
        /// The table that was meant, as in [`Record::Batch`].
        table: TableId,
        /// Who asked for it, for people.
        source: String,
        /// What is taken away.
        removal: Removal,
    },
}

/// Why bytes are no record that this version can read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RecordError {
    /// Written by a newer version: refuse to start rather than skip it (P13).
    #[error(
        "record has version {version}, kind {kind}; this version reads version {VERSION}, kinds {KIND_BATCH} to {KIND_REMOVAL}"
    )]
    NewerFormat {
        /// The record's version.
        version: u8,
        /// The record's kind.
        kind: u8,
    },
    /// The bytes contradict the layout although the log's checksum held: a bug or tampering.
    #[error("record is malformed at byte {offset}: {what}")]
    Malformed {
        /// Where, in bytes from the record's start.
        offset: usize,
        /// What is wrong there.
        what: &'static str,
    },
}

/// Appends the bytes of a [`Record::Batch`] to `out`.
///
/// # Panics
/// If `batch` breaks an invariant of [`TableBatch`], before anything is appended, or if it has 2^32 rows, fields
/// or bytes of one kind, which no request can bring.
pub fn encode_batch(table: TableId, source: &str, batch: &TableBatch, out: &mut Vec<u8>) {
    batch.assert_sound();
    out.reserve(encoded_len(source, batch));
    out.extend_from_slice(&[VERSION, KIND_BATCH]);
    out.extend_from_slice(&table.0);
    put_text(out, source);
    put_text(out, &batch.table.schema);
    put_text(out, &batch.table.table);

    put_series(out, &batch.series);
    put_len(out, batch.len());
    put_array(out, &batch.series_of, u32::to_le_bytes);
    put_array(out, &batch.times_us, i64::to_le_bytes);

    put_len(out, batch.fields.len());
    for field in &batch.fields {
        put_text(out, &field.name);
        out.push(type_code(field.values.field_type()));
        if let FieldValues::Decimal { digits, scale, .. } = &field.values {
            out.extend_from_slice(&[*digits, *scale]);
        }
        if field.valid.absent_count() == 0 {
            out.push(ALL_VALID);
        } else {
            out.push(SOME_VALID);
            put_array(out, field.valid.words(), u64::to_le_bytes);
        }
        match &field.values {
            FieldValues::F64(values) => put_array(out, values, f64::to_le_bytes),
            FieldValues::I64(values) => put_array(out, values, i64::to_le_bytes),
            FieldValues::U64(values) => put_array(out, values, u64::to_le_bytes),
            FieldValues::Bool(values) => put_array(out, &bits_of_bools(values), u64::to_le_bytes),
            FieldValues::Text(texts) => {
                put_array(out, &texts.ends, u32::to_le_bytes);
                out.extend_from_slice(&texts.bytes);
            }
            FieldValues::Decimal { units, .. } => put_array(out, units, i64::to_le_bytes),
        }
    }
}

/// Reads one record, which must fill `bytes`.
///
/// # Errors
/// [`RecordError::NewerFormat`]: start a newer version. [`RecordError::Malformed`]: treat the log as damaged.
pub fn decode(bytes: &[u8]) -> Result<Record, RecordError> {
    let mut reader = Reader { bytes, at: 0 };
    let [version, kind] = reader.chunk()?;
    let record = match (version, kind) {
        (VERSION, KIND_BATCH) => decode_batch(&mut reader)?,
        (VERSION, KIND_AGENT_BATCH) => Record::AgentBatch(agent::decode_agent_batch(&mut reader)?),
        (VERSION, KIND_AGENT_STATUS) => Record::AgentStatus(agent::decode_agent_status(&mut reader)?),
        (VERSION, KIND_AGENT_STATE) => Record::AgentState(agent::decode_agent_state(&mut reader)?),
        (VERSION, KIND_REMOVAL) => removal::decode_removal(&mut reader)?,
        // No version 0 and no kind 0 were ever written, but a name for that would help nobody.
        _ => return Err(RecordError::NewerFormat { version, kind }),
    };
    if reader.at != bytes.len() {
        return Err(reader.malformed("bytes after the last field"));
    }
    Ok(record)
}

fn decode_batch(reader: &mut Reader<'_>) -> Result<Record, RecordError> {
    let table = TableId(reader.chunk()?);
    let source = reader.text()?.to_owned();
    let name = TableName::new(reader.text()?, reader.text()?);
    let mut batch = TableBatch::new(name);

    let keys = reader.series()?;
    let series = keys.len();
    for key in keys {
        if !batch.add_series(key) {
            return Err(reader.malformed("a series stands there twice"));
        }
    }

    let rows = reader.len()?;
    batch.series_of = reader.array(rows, u32::from_le_bytes)?;
    if batch.series_of.iter().max().is_some_and(|max| *max as usize >= series) {
        return Err(reader.malformed("a row names a series that is not there"));
    }
    batch.times_us = reader.array(rows, i64::from_le_bytes)?;
    batch.lines = vec![0; rows];

    let mut names = HashSet::new();
    for _ in 0..reader.len()? {
        let name = reader.text()?;
        let field_type = reader.field_type()?;
        let [validity] = reader.chunk()?;
        let valid = match validity {
            ALL_VALID => Validity::present(rows),
            SOME_VALID => Validity::from_words(reader.words(rows)?, rows)
                .filter(|valid| valid.absent_count() > 0)
                .ok_or_else(|| reader.malformed("validity bits past the last row, or all of them set"))?,
            _ => return Err(reader.malformed("unknown form of validity")),
        };
        let values = match field_type {
            FieldType::F64 => FieldValues::F64(reader.array(rows, f64::from_le_bytes)?),
            FieldType::I64 => FieldValues::I64(reader.array(rows, i64::from_le_bytes)?),
            FieldType::U64 => FieldValues::U64(reader.array(rows, u64::from_le_bytes)?),
            FieldType::Bool => {
                let words = reader.words(rows)?;
                FieldValues::Bool(
                    bools_of_bits(&words, rows).ok_or_else(|| reader.malformed("booleans past the last row"))?,
                )
            }
            FieldType::Text => {
                let ends: Vec<u32> = reader.array(rows, u32::from_le_bytes)?;
                let bytes = reader.take(ends.last().map_or(0, |end| *end as usize))?;
                let texts = TextColumn { bytes: bytes.to_vec(), ends };
                texts.check().map_err(|what| reader.malformed(what))?;
                FieldValues::Text(texts)
            }
            FieldType::Decimal { digits, scale } => {
                let units: Vec<i64> = reader.array(rows, i64::from_le_bytes)?;
                let end = decimal::units_end(digits);
                if units.iter().any(|units| *units <= -end || *units >= end) {
                    return Err(reader.malformed("a decimal of more digits than its type has"));
                }
                FieldValues::Decimal { units, digits, scale }
            }
        };
        if !names.insert((name, values.field_type())) {
            return Err(reader.malformed("two fields have the same name and type"));
        }
        batch.fields.push(FieldColumn { name: name.into(), values, valid });
    }
    Ok(Record::Batch { table, source, batch })
}

/// The bytes that `batch` needs, or a few more.
fn encoded_len(source: &str, batch: &TableBatch) -> usize {
    let rows = batch.len();
    let series: usize = batch.series.iter().map(|key| 4 + key.as_bytes().len()).sum();
    let fields = batch.fields.iter().map(|field| {
        let values = match &field.values {
            FieldValues::F64(_) | FieldValues::I64(_) | FieldValues::U64(_) | FieldValues::Decimal { .. } => 8 * rows,
            FieldValues::Bool(_) => rows / 8 + 8,
            FieldValues::Text(texts) => 4 * rows + texts.bytes.len(),
        };
        16 + field.name.len() + rows / 8 + 8 + values
    });
    64 + source.len() + batch.table.schema.len() + batch.table.table.len() + series + 12 * rows + fields.sum::<usize>()
}

fn put_series(out: &mut Vec<u8>, series: &[SeriesKey]) {
    put_len(out, series.len());
    let mut end = 0;
    for key in series {
        end += key.as_bytes().len();
        put_len(out, end);
    }
    for key in series {
        out.extend_from_slice(key.as_bytes());
    }
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    let len = u32::try_from(len).expect("a batch holds fewer than 2^32 of anything");
    out.extend_from_slice(&len.to_le_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_len(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

/// One resize and a loop without branches, which the compiler turns into a copy on little-endian machines.
fn put_array<T: Copy, const N: usize>(out: &mut Vec<u8>, values: &[T], to_le_bytes: impl Fn(T) -> [u8; N]) {
    let start = out.len();
    out.resize(start + values.len() * N, 0);
    let (chunks, _) = out[start..].as_chunks_mut::<N>();
    for (chunk, value) in chunks.iter_mut().zip(values) {
        *chunk = to_le_bytes(*value);
    }
}

fn type_code(field_type: FieldType) -> u8 {
    match field_type {
        FieldType::F64 => 1,
        FieldType::I64 => 2,
        FieldType::U64 => 3,
        FieldType::Bool => 4,
        FieldType::Text => 5,
        FieldType::Decimal { .. } => 6,
    }
}

/// Reads forward; never past the end, never allocating more than is there to be read.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn malformed(&self, what: &'static str) -> RecordError {
        RecordError::Malformed { offset: self.at, what }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], RecordError> {
        let taken = self.bytes[self.at..].get(..len).ok_or_else(|| self.malformed("the record ends too early"))?;
        self.at += len;
        Ok(taken)
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let taken = self.take(N)?;
        Ok(*taken.first_chunk().expect("took N bytes"))
    }

    fn len(&mut self) -> Result<usize, RecordError> {
        let len = u32::from_le_bytes(self.chunk()?);
        usize::try_from(len).map_err(|_| self.malformed("too long for this machine"))
    }

    fn text(&mut self) -> Result<&'a str, RecordError> {
        let len = self.len()?;
        let bytes = self.take(len)?;
        std::str::from_utf8(bytes).map_err(|_| self.malformed("a name is not UTF-8"))
    }

    fn array<T, const N: usize>(&mut self, count: usize, of: impl Fn([u8; N]) -> T) -> Result<Vec<T>, RecordError> {
        let len = count.checked_mul(N).ok_or_else(|| self.malformed("too long for this machine"))?;
        let (chunks, _) = self.take(len)?.as_chunks::<N>();
        Ok(chunks.iter().map(|chunk| of(*chunk)).collect())
    }

    /// Keys of series, each canonical.
    fn series(&mut self) -> Result<Vec<SeriesKey>, RecordError> {
        let count = self.len()?;
        let ends: Vec<u32> = self.array(count, u32::from_le_bytes)?;
        let keys = self.take(ends.last().map_or(0, |end| *end as usize))?;
        let mut series = Vec::with_capacity(ends.len());
        let mut start = 0;
        for end in ends {
            let end = end as usize;
            let key = keys.get(start..end).ok_or_else(|| self.malformed("ends of series keys decrease"))?;
            series.push(SeriesKey::from_bytes(key).ok_or_else(|| self.malformed("a series key is not canonical"))?);
            start = end;
        }
        Ok(series)
    }

    fn field_type(&mut self) -> Result<FieldType, RecordError> {
        let [code] = self.chunk()?;
        Ok(match code {
            1 => FieldType::F64,
            2 => FieldType::I64,
            3 => FieldType::U64,
            4 => FieldType::Bool,
            5 => FieldType::Text,
            6 => match self.chunk()? {
                [digits @ 1..=decimal::DIGITS_MAX, scale] if scale <= digits => FieldType::Decimal { digits, scale },
                _ => {
                    return Err(
                        self.malformed("a decimal of no digits, or of more than 18, or of more behind the point")
                    );
                }
            },
            _ => return Err(self.malformed("unknown field type")),
        })
    }

    /// One bit for each of `rows`, in words of 64.
    fn words(&mut self, rows: usize) -> Result<Vec<u64>, RecordError> {
        self.array(rows.div_ceil(64), u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests;
