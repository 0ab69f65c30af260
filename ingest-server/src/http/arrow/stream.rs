//! Reads a stream: messages to rows.
//!
//! Owns:     what of a row is refused, the portions in which rows are handed on, and what becomes of bytes over which the
//!           library panics.
//! Does not: decide what a column is (`plan`).
//!
//! Invariants
//!  1. A row is stored whole or refused with its number and reason; a value is stored as it is or not at all.
//!  2. The stream is read in the memory that it came in; a portion of rows is [`CHUNK_BYTES`] and one row (P14).
//!  3. Bytes over which the decoder of the library panics are a malformed stream, and no bug of ours: it checks much, not all.

use std::cell::Cell as Flag;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use decode::line_text::write_line;
use decode::metrics::{Chunk, DecodeError, RefusedSample, Take};
use model::{BatchBuilder, SeriesKey, TableName, Value, decimal};
use storage::TableInfo;

use super::plan::{Role, Wanted, roles};
use crate::arrow_values::{Values, arrays_of, leaves_of, time_of};
use crate::transfer::record::{Cell, tag_value};
use decode::time::TimeFormat;

/// Bytes of rows after which a portion is handed on.
const CHUNK_BYTES: usize = 8 << 20;
const ROW_COST: usize = 32;
const FIELD_COST: usize = 16;

/// Bytes of texts in rows for each byte of a stream, and at least: a dictionary says a long text with few bytes.
const EXPANSION_A_BYTE: usize = 64;
const EXPANSION_AT_LEAST: usize = 64 << 20;

/// What Arrow's file format begins with.
const FILE_MAGIC: &[u8] = b"ARROW1";

thread_local! {
    static IS_DECODING: Flag<bool> = const { Flag::new(false) };
}

/// Whether this thread reads foreign bytes with a library whose panics are expected and caught.
pub(crate) fn is_decoding() -> bool {
    IS_DECODING.get()
}

/// What the library makes of foreign bytes.
fn guarded<T>(read: impl FnOnce() -> Result<T, ArrowError>) -> Result<T, String> {
    IS_DECODING.set(true);
    let read = catch_unwind(AssertUnwindSafe(read));
    IS_DECODING.set(false);
    match read {
        Ok(read) => read.map_err(|e| e.to_string()),
        Err(_) => Err("its bytes contradict each other".into()),
    }
}

/// Hands the rows of a stream to `take`; `known` is the table if there is one. Returns how many there were.
///
/// # Errors
/// If the bytes are no such stream, if its columns do not fit, or what `take` says.
pub(super) fn decode<E>(
    body: &[u8],
    wanted: &Wanted,
    known: Option<&TableInfo>,
    take: &mut Take<'_, E>,
) -> Result<u32, DecodeError<E>> {
    if body.starts_with(FILE_MAGIC) {
        return Err(DecodeError::Malformed("it is of Arrow's file format; send the stream format".into()));
    }
    let texts_max = EXPANSION_AT_LEAST.saturating_add(body.len().saturating_mul(EXPANSION_A_BYTE));
    let mut buffer = Buffer::from(body);
    let mut decoder = StreamDecoder::new();
    let (mut roles_known, mut rows) = (None, None);
    while !buffer.is_empty() {
        let before = body.len() - buffer.len();
        let malformed = |what: String| DecodeError::Malformed(format!("the message at byte {}: {what}", before + 1));
        let batch = guarded(|| decoder.decode(&mut buffer)).map_err(malformed)?;
        if roles_known.is_none()
            && let Some(schema) = decoder.schema()
        {
            let (leaves, roles) = columns(&schema, wanted, known).map_err(DecodeError::Malformed)?;
            roles_known = Some((leaves, roles));
            rows = Some(Rows::new(wanted.table.clone()));
        }
        let (Some(batch), Some((_, roles)), Some(rows)) = (batch, &roles_known, &mut rows) else { continue };
        let columns = guarded(|| prepared(&batch, roles)).map_err(malformed)?;
        // Before a row of them is stored.
        let texts_bytes =
            columns.iter().flatten().map(Values::text_bytes).fold(rows.texts_bytes, usize::saturating_add);
        if texts_bytes > texts_max {
            return Err(too_long());
        }
        for row in 0..batch.num_rows() {
            rows.add(&columns, roles, row);
            if rows.texts_bytes > texts_max {
                return Err(too_long());
            }
            if rows.bytes >= CHUNK_BYTES {
                rows.hand_on(take)?;
            }
        }
    }
    let ended = guarded(|| decoder.finish());
    ended.map_err(|e| DecodeError::Malformed(format!("the stream ends in the middle of a message: {e}")))?;
    let Some(mut rows) = rows else { return Err(DecodeError::Malformed("it has no schema".into())) };
    rows.hand_on(take)?;
    Ok(rows.number)
}

fn too_long<E>() -> DecodeError<E> {
    let what = "its dictionaries would be many times as long in rows; send fewer rows at a time";
    DecodeError::Malformed(what.into())
}

type Leaves = Vec<(String, DataType)>;

fn columns(schema: &Schema, wanted: &Wanted, known: Option<&TableInfo>) -> Result<(Leaves, Vec<Role>), String> {
    let mut leaves = Vec::new();
    leaves_of(schema.fields(), "", &mut leaves);
    let roles = roles(schema.fields(), &leaves, wanted, known)?;
    Ok((leaves, roles))
}

/// The values of one batch, in the order of roles; `None` for a column that is left out.
fn prepared(batch: &RecordBatch, roles: &[Role]) -> Result<Vec<Option<Values>>, ArrowError> {
    let mut arrays: Vec<(String, ArrayRef)> = Vec::new();
    arrays_of(batch.schema().fields(), batch.columns(), "", &mut arrays)?;
    let values = arrays.iter().zip(roles).map(|((_, array), role)| match role {
        Role::LeftOut => Ok(None),
        Role::Time => Values::of_time(array).map(Some),
        Role::Tag(_) | Role::Field(_) => Values::new(array).map(Some),
    });
    values.collect()
}

/// Rows of one table in the making.
struct Rows {
    table: TableName,
    builder: BatchBuilder,
    refused: Vec<RefusedSample>,
    number: u32,
    bytes: usize,
    texts_bytes: usize,
}

/// A row's cells, until it is known to be good.
#[derive(Default)]
struct Row<'r> {
    tags: Vec<(&'r str, String)>,
    fields: Vec<(&'r str, Cell)>,
    time_us: Option<i64>,
    wrong: Option<String>,
}

impl Rows {
    fn new(table: TableName) -> Self {
        let builder = BatchBuilder::new(table.clone());
        Rows { builder, table, refused: Vec::new(), number: 0, bytes: 0, texts_bytes: 0 }
    }

    fn add(&mut self, columns: &[Option<Values>], roles: &[Role], at: usize) {
        self.number = self.number.saturating_add(1);
        let mut row = Row::default();
        for (role, values) in roles.iter().zip(columns) {
            let Some(cell) = values.as_ref().and_then(|values| values.cell(at)) else { continue };
            if let Cell::Text(text) = &cell {
                self.texts_bytes = self.texts_bytes.saturating_add(text.len());
            }
            row.add(role, cell);
        }
        let values: Vec<(&str, Result<Value<'_>, String>)> =
            row.fields.iter().map(|(name, cell)| (*name, value_of(cell))).collect();
        let wrong = values.iter().find_map(|(name, value)| Some(format!("column {name:?}: {}", value.as_ref().err()?)));
        let wrong = row.wrong.take().or(wrong).or_else(|| row.time_us.is_none().then(|| "the row has no time".into()));
        let wrong = wrong.or_else(|| values.is_empty().then(|| "the row has no values".into()));
        let good = values.iter().filter_map(|(name, value)| Some((*name, *value.as_ref().ok()?)));
        if let Some(reason) = wrong {
            let tags = row.tags.iter().map(|(name, value)| (*name, value.as_str()));
            let mut line = Vec::new();
            write_line(&self.table.table, tags, good, row.time_us.unwrap_or_default(), &mut line);
            let line = String::from_utf8_lossy(&line).into_owned();
            self.bytes += line.len() + reason.len() + ROW_COST;
            let number = self.number;
            self.refused.push(RefusedSample { number, line, is_whole: false, is_histogram: false, reason });
            return;
        }
        let known = self.builder.series().len();
        let key = SeriesKey::from_tags(row.tags.iter().map(|(name, value)| (*name, value.as_str())));
        let key_bytes = key.as_bytes().len();
        let series = self.builder.intern_series(key);
        if series as usize == known {
            self.bytes += key_bytes + ROW_COST;
        }
        self.builder.start_row(series, row.time_us.unwrap_or_default(), self.number);
        for (name, value) in good {
            let column = self.builder.field_column(name, value.field_type());
            self.builder.set(column, value);
            if let Value::Text(text) = value {
                self.bytes += text.len();
            }
        }
        self.bytes += ROW_COST + FIELD_COST * self.builder.width();
    }

    fn hand_on<E>(&mut self, take: &mut Take<'_, E>) -> Result<(), DecodeError<E>> {
        self.bytes = 0;
        let builder = std::mem::replace(&mut self.builder, BatchBuilder::new(self.table.clone()));
        let batches = if builder.is_empty() { Vec::new() } else { vec![builder.finish()] };
        let refused = std::mem::take(&mut self.refused);
        if batches.is_empty() && refused.is_empty() {
            return Ok(());
        }
        take(Chunk { batches, refused }).map_err(DecodeError::Taker)
    }
}

impl<'r> Row<'r> {
    fn add(&mut self, role: &'r Role, cell: Cell) {
        match role {
            Role::LeftOut => {}
            Role::Field(name) => self.fields.push((name, cell)),
            Role::Tag(name) => match text_of(cell) {
                Ok(text) if text.is_empty() => {}
                Ok(text) => self.tags.push((name, text)),
                Err(reason) => self.wrong = Some(format!("column {name:?}: {reason}")),
            },
            Role::Time => match time_of(cell, TimeFormat::Auto) {
                Ok(us) => self.time_us = Some(us),
                Err(reason) => self.wrong = Some(format!("the time: {reason}")),
            },
        }
    }
}

/// A tag's value; a text is one as it is, whatever is in it.
fn text_of(cell: Cell) -> Result<String, String> {
    match cell {
        Cell::Text(text) => Ok(text),
        other => Ok(tag_value(&other)?.unwrap_or_default().into_owned()),
    }
}

/// A field's value.
fn value_of(cell: &Cell) -> Result<Value<'_>, String> {
    Ok(match cell {
        Cell::Word { text, .. } | Cell::Text(text) => Value::Text(text),
        Cell::I64(number) => Value::I64(*number),
        Cell::U64(number) => Value::U64(*number),
        Cell::F64(number) if !number.is_finite() => {
            return Err(format!("{number} cannot be stored: neither can NaN nor infinities; send null"));
        }
        Cell::F64(number) => Value::F64(*number),
        Cell::Bool(truth) => Value::Bool(*truth),
        Cell::Decimal { units, scale: 0 } => match (i64::try_from(*units), u64::try_from(*units)) {
            (Ok(units), _) => Value::I64(units),
            (_, Ok(units)) => Value::U64(units),
            _ => return Err(format!("the whole number {units} has more than 64 bits")),
        },
        Cell::Decimal { units, scale } => {
            let units_short = i64::try_from(*units).ok().and_then(decimal::checked);
            let units = units_short.ok_or_else(|| {
                format!("a number of the digits {units} has more than {} of them", decimal::DIGITS_MAX)
            })?;
            Value::Decimal { units, scale: *scale }
        }
        // Only the column that is the time has these.
        Cell::Time(us) => Value::I64(*us),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{DictionaryArray, Float64Array, StringViewArray, StructArray, TimestampMillisecondArray};
    use arrow::datatypes::{Field, Fields, Int8Type};
    use arrow::ipc::writer::StreamWriter;
    use model::{Rng, SplitMix64};

    use super::*;

    fn stream() -> Vec<u8> {
        let site: DictionaryArray<Int8Type> = vec![Some("a"), None, Some("a b")].into_iter().collect();
        let fields = Fields::from(vec![Field::new("x", DataType::Utf8View, true)]);
        let texts = StringViewArray::from(vec![Some("short"), None, Some("a text that is too long to be in its view")]);
        let nested = StructArray::new(fields, vec![Arc::new(texts)], Some(vec![true, true, false].into()));
        let columns: [(&str, ArrayRef); 4] = [
            ("site", Arc::new(site)),
            ("v", Arc::new(Float64Array::from(vec![Some(1.0), None, Some(f64::NAN)]))),
            ("s", Arc::new(nested)),
            ("time", Arc::new(TimestampMillisecondArray::from(vec![1, 2, 3]))),
        ];
        let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true))).unwrap();
        let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        writer.into_inner().unwrap()
    }

    /// Rows, and those that are refused.
    fn read(body: &[u8]) -> Result<(u32, usize, usize), DecodeError<()>> {
        let wanted = Wanted { table: TableName::public("t"), tags: Some(vec!["site".into()]), time: "time".into() };
        let (mut rows, mut refused) = (0, 0);
        let number = decode::<()>(body, &wanted, None, &mut |chunk| {
            rows += chunk.batches.iter().map(model::TableBatch::len).sum::<usize>();
            refused += chunk.refused.len();
            Ok(())
        })?;
        Ok((number, rows, refused))
    }

    #[test]
    fn mutated_streams_neither_panic_nor_lose_rows() {
        // What the library panics over is caught; a test's output is not the place to tell of it.
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !is_decoding() {
                default(panic);
            }
        }));
        let good = stream();
        // Of three rows, one has no values and one has NaN.
        assert_eq!(read(&good), Ok((6, 2, 4)));
        let (mut taken, mut malformed) = (0, 0);
        for seed in 0..10_000 {
            let rng = SplitMix64::new(seed);
            let mut body = good.clone();
            for _ in 0..=rng.below(4) {
                let at = rng.below(body.len() as u64) as usize;
                match rng.below(5) {
                    0 => body[at] ^= 1 << rng.below(8),
                    1 => body[at] = [0, 1, 0x7f, 0x80, 0xff][rng.below(5) as usize],
                    2 => body[at] = rng.next_u64() as u8,
                    3 => drop(body.remove(at)),
                    _ => body.truncate(at + 1),
                }
            }
            match catch_unwind(|| read(&body)) {
                Ok(Ok((number, rows, refused))) => {
                    assert_eq!(number as usize, rows + refused, "seed {seed}: a row is stored or refused");
                    taken += 1;
                }
                Ok(Err(_)) => malformed += 1,
                Err(_) => panic!("seed {seed}"),
            }
        }
        assert!(taken > 500 && malformed > 500, "{taken} taken, {malformed} malformed");
    }
}
