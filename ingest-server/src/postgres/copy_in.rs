//! `COPY t FROM STDIN`: lines as rows, durable before they are counted.
//!
//! Owns:     the text and CSV formats of COPY, and what a line must be for its table.
//! Does not: store (`storage`).
//!
//! Invariants
//!  1. `COPY n` leaves only after all n rows are durable (P1).
//!  2. A line that is no row ends the copy with its number and the reason. What came before it may be stored: copying all
//!     of it again changes nothing, since a row is there once under its key.

use std::sync::Arc;

use bytes::BytesMut;
use model::{FieldType, SeriesKey, TableBatch, TableName, Value};
use pgwire::messages::PgWireBackendMessage as Say;
use pgwire::messages::copy::CopyInResponse;
use storage::{ColumnKind, Storage, StorageError, TableInfo};

use super::command::{Copy, CopyFormat};
use super::connection::Connection;
use super::error::{Failed, protocol};
use super::read::Message;
use super::socket::Stop;
use crate::sources::{Counted, Source};

/// Rows that are stored together.
const PORTION_ROWS: usize = 10_000;

/// Bytes of one line at most.
const LINE_BYTES_MAX: usize = 16 << 20;

impl Connection {
    pub(super) async fn copy_in(&mut self, table: &str, copy: &Copy) -> Result<(), Stop> {
        if self.is_read_only() {
            return Err(Failed::new("25006", "cannot execute COPY FROM in a read-only transaction").into());
        }
        let app = Arc::clone(&self.postgres.app);
        let storage = app.for_writes()?.storage;
        let info = find(&storage, table, self.request("").default_schema.as_deref().unwrap_or("public"))?;
        let layout = Layout::new(&info, &copy.columns)?;
        let count = layout.columns.len();
        let bytes_max = usize::try_from(app.config.postgres.max_message_bytes.0).unwrap_or(usize::MAX);
        let source = format!("postgres {}", self.user);
        let mut lines =
            Lines { info, layout, format: copy.format.clone(), bytes: BytesMut::new(), line: 0, is_done: false };
        let mut total = 0_u64;
        let mut pending: Option<Counted> = None;
        let (slot, settings, reader, writer) = self.parts();
        let (begun, guard) = Connection::begin(slot, settings, reader);
        writer.say(Say::CopyInResponse(CopyInResponse::new(0, count as i16, vec![0; count])));
        writer.flush().await?;
        loop {
            let cancelled = guard.cancel.clone();
            let message = tokio::select! {
                message = guard.reader.message(bytes_max) => message?,
                () = cancelled.cancelled() => {
                    return Err(Failed::new("57014", "canceling statement due to user request").into());
                }
            };
            let is_last = match message {
                Message::CopyData(data) => {
                    lines.bytes.extend_from_slice(&data);
                    false
                }
                Message::CopyDone => true,
                Message::CopyFail(reason) => {
                    return Err(Failed::new("57014", format!("COPY from stdin failed: {reason}")).into());
                }
                Message::Flush | Message::Sync => continue,
                Message::Terminate => return Err(Stop::Gone),
                _ => return Err(protocol("a message other than those of COPY").into()),
            };
            while let Some(batch) = lines.portion(is_last)? {
                let rows = batch.len() as u64;
                total += rows;
                // One portion is made durable while the next comes in.
                if let Some(pending) = pending.take() {
                    pending.await?;
                }
                let mut tally = app.metrics.sources.tally(Source::Copy);
                tally.receive(rows);
                let (storage, source) = (Arc::clone(&storage), source.clone());
                let written = tokio::task::spawn_blocking(move || storage.write(vec![batch], &source)).await;
                let mut written = written.map_err(|_| StorageError::Closed)??;
                let refused = std::mem::take(&mut written.rejected);
                pending = Some(tally.storing(written));
                if let Some(row) = refused.first() {
                    return Err(lines.wrong(row.line.into(), &row.reason).into());
                }
            }
            if is_last {
                break;
            }
        }
        if let Some(pending) = pending {
            pending.await?;
        }
        drop((guard, begun));
        self.note_write();
        self.complete(format!("COPY {total}"));
        Ok(())
    }
}

/// The table that `name` means.
fn find(storage: &Storage, name: &str, schema: &str) -> Result<TableInfo, Failed> {
    let mut parts: Vec<(String, bool)> = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        rest = rest.strip_prefix('.').unwrap_or(rest);
        match rest.strip_prefix('"').and_then(|inner| inner.split_once('"')) {
            Some((quoted, after)) => {
                parts.push((quoted.to_owned(), true));
                rest = after;
            }
            None => {
                let end = rest.find('.').unwrap_or(rest.len());
                parts.push((rest[..end].to_lowercase(), false));
                rest = &rest[end..];
            }
        }
    }
    let (schema, (table, is_quoted)) = match parts.as_slice() {
        [table] => (schema.to_owned(), table.clone()),
        [(schema, _), table] => (schema.clone(), table.clone()),
        _ => return Err(Failed::new("42P01", format!("relation {name} does not exist"))),
    };
    let exact = storage.table(&TableName::new(&schema, &table));
    let any_case = || {
        let same = |info: &TableInfo| *info.name.schema == *schema && info.name.table.to_lowercase() == table;
        storage.tables().into_iter().find(|info| !is_quoted && same(info))
    };
    exact.or_else(any_case).ok_or_else(|| Failed::new("42P01", format!("relation {name} does not exist")))
}

/// The columns of the lines.
struct Layout {
    columns: Vec<(Arc<str>, ColumnKind)>,
}

impl Layout {
    fn new(info: &TableInfo, names: &[String]) -> Result<Self, Failed> {
        let all = info.schema.columns();
        let column = |name: &String| {
            let found = all.iter().find(|column| *column.name == **name);
            let found = found.or_else(|| all.iter().find(|column| column.name.to_lowercase() == name.to_lowercase()));
            found
                .map(|column| (Arc::clone(&column.name), column.kind))
                .ok_or_else(|| Failed::new("42703", format!("column {name} of relation {} does not exist", info.name)))
        };
        let columns: Vec<_> = match names {
            [] => all.iter().map(|column| (Arc::clone(&column.name), column.kind)).collect(),
            names => names.iter().map(column).collect::<Result<_, _>>()?,
        };
        let times = columns.iter().filter(|(_, kind)| *kind == ColumnKind::Time).count();
        if times != 1 {
            return Err(Failed::new("23502", "COPY FROM needs the column time, once: a row is stored under it"));
        }
        Ok(Layout { columns })
    }
}

/// What came in, and how far it is understood.
struct Lines {
    info: TableInfo,
    layout: Layout,
    format: CopyFormat,
    bytes: BytesMut,
    /// The last line that was read, from 1.
    line: u64,
    /// Whether `\.` was there.
    is_done: bool,
}

impl Lines {
    fn wrong(&self, line: u64, reason: &str) -> Failed {
        Failed::new("22P04", format!("line {line}: {reason}"))
            .detail(format!("COPY {}, line {line}", self.info.name))
            .hint("What stands before this line may be stored; copying it again changes nothing.")
    }

    /// The next rows; `None` until there are enough, or at the end.
    fn portion(&mut self, is_last: bool) -> Result<Option<TableBatch>, Failed> {
        // Not before there is about as much as a portion takes.
        if !is_last && self.bytes.len() < 1 << 20 {
            return Ok(None);
        }
        let mut batch = TableBatch::new(self.info.name.clone());
        while batch.len() < PORTION_ROWS {
            let Some((first, record)) = self.record(is_last)? else { break };
            if first == 1 && self.format.header {
                continue;
            }
            let fields = self.fields(&record).map_err(|reason| self.wrong(first, &reason))?;
            self.push(&mut batch, first, &fields).map_err(|reason| self.wrong(first, &reason))?;
        }
        Ok((!batch.is_empty()).then_some(batch))
    }

    /// The next record and the line where it begins: one line, in CSV more if a quote is open at its end.
    fn record(&mut self, is_last: bool) -> Result<Option<(u64, Vec<u8>)>, Failed> {
        if self.is_done {
            self.bytes.clear();
            return Ok(None);
        }
        let mut quoted = false;
        let mut lines = 0;
        let mut end = None;
        for (at, byte) in self.bytes.iter().enumerate() {
            match byte {
                byte if self.format.csv && *byte == self.format.quote => quoted = !quoted,
                b'\n' => {
                    lines += 1;
                    if !quoted {
                        end = Some(at);
                        break;
                    }
                }
                _ => {}
            }
        }
        let (record, taken) = match end {
            Some(end) => (self.bytes[..end].to_vec(), end + 1),
            None if is_last && !self.bytes.is_empty() => (self.bytes.to_vec(), self.bytes.len()),
            None if self.bytes.len() > LINE_BYTES_MAX => {
                return Err(self.wrong(self.line + 1, &format!("a line of more than {LINE_BYTES_MAX} bytes")));
            }
            None => return Ok(None),
        };
        let _ = self.bytes.split_to(taken);
        let first = self.line + 1;
        self.line += lines.max(1);
        let record = record.strip_suffix(b"\r").map_or(record.clone(), <[u8]>::to_vec);
        if record == b"\\." {
            self.is_done = true;
            self.bytes.clear();
            return Ok(None);
        }
        Ok(Some((first, record)))
    }

    /// The values of a record; `None` is null.
    fn fields(&self, record: &[u8]) -> Result<Vec<Option<String>>, String> {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned());
        let mut found = Vec::new();
        if self.format.csv {
            let (quote, delimiter) = (self.format.quote, self.format.delimiter);
            let mut bytes = record.iter().copied().peekable();
            loop {
                let (mut value, mut was_quoted, mut in_quotes) = (Vec::new(), false, false);
                let more = loop {
                    match bytes.next() {
                        None if in_quotes => return Err("a quote is not closed".into()),
                        None => break false,
                        Some(byte) if in_quotes && byte == quote => match bytes.next_if_eq(&quote) {
                            Some(_) => value.push(quote),
                            None => in_quotes = false,
                        },
                        Some(byte) if in_quotes => value.push(byte),
                        Some(byte) if byte == quote => (was_quoted, in_quotes) = (true, true),
                        Some(byte) if byte == delimiter => break true,
                        Some(byte) => value.push(byte),
                    }
                };
                let value = text(value)?;
                found.push((was_quoted || value != self.format.null).then_some(value));
                if !more {
                    return Ok(found);
                }
            }
        }
        let mut bytes = record.iter().copied().peekable();
        loop {
            let (mut value, mut raw) = (Vec::new(), Vec::new());
            let more = loop {
                let Some(byte) = bytes.next() else { break false };
                if byte == self.format.delimiter {
                    break true;
                }
                raw.push(byte);
                if byte != b'\\' {
                    value.push(byte);
                    continue;
                }
                let Some(escaped) = bytes.next() else { return Err("a backslash with nothing behind it".into()) };
                raw.push(escaped);
                value.push(match escaped {
                    b'b' => 8,
                    b'f' => 12,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'v' => 11,
                    other => other,
                });
            };
            found.push(if raw == self.format.null.as_bytes() { None } else { Some(text(value)?) });
            if !more {
                return Ok(found);
            }
        }
    }

    fn push(&self, batch: &mut TableBatch, line: u64, fields: &[Option<String>]) -> Result<(), String> {
        let columns = &self.layout.columns;
        if fields.len() != columns.len() {
            return Err(format!("{} values for {} columns", fields.len(), columns.len()));
        }
        let mut tags = Vec::new();
        let mut values = Vec::new();
        let mut time = None;
        for ((name, kind), field) in columns.iter().zip(fields) {
            let Some(text) = field else { continue };
            let wrong = |what: &str| format!("column {name}: \"{}\" is {what}", shortened(text));
            match kind {
                ColumnKind::Tag => tags.push((name, text)),
                ColumnKind::Time => time = Some(time_of(text).ok_or_else(|| wrong("no time"))?),
                ColumnKind::Field(field_type) => {
                    let value =
                        value_of(*field_type, text).ok_or_else(|| wrong(&format!("no {}", field_type.name())))?;
                    values.push((batch.field_column(name, *field_type), value));
                }
            }
        }
        let time = time.ok_or("column time is null, and a row is stored under it")?;
        let series = batch.intern_series(SeriesKey::from_tags(tags));
        let line = u32::try_from(line).unwrap_or(u32::MAX);
        batch.push_row(series, time, line, &values);
        Ok(())
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}

/// A time as PostgreSQL writes it, or as RFC 3339; without a zone it is UTC.
fn time_of(text: &str) -> Option<i64> {
    let mut text = text.trim().replacen(' ', "T", 1);
    let hours_only = text.len() > 13
        && text.as_bytes().get(text.len() - 3).is_some_and(|sign| b"+-".contains(sign))
        && text.find('T').is_some_and(|t| t < text.len() - 3);
    if hours_only {
        text.push_str(":00");
    }
    if text.len() == 10 {
        text.push_str("T00:00:00");
    }
    decode::time::TimeFormat::Rfc3339.text(&text).ok()
}

fn value_of(field_type: FieldType, text: &str) -> Option<Value<'_>> {
    let trimmed = text.trim();
    Some(match field_type {
        FieldType::Text => Value::Text(text),
        FieldType::F64 => Value::F64(trimmed.parse().ok().filter(|value: &f64| value.is_finite())?),
        FieldType::I64 => Value::I64(trimmed.parse().ok()?),
        FieldType::U64 => Value::U64(trimmed.parse().ok()?),
        FieldType::Bool => Value::Bool(super::decode::truth(trimmed)?),
        FieldType::Decimal { scale, .. } => {
            let (whole, fraction) = trimmed.split_once('.').unwrap_or((trimmed, ""));
            let fraction = fraction.trim_end_matches('0');
            let units = format!("{whole}{fraction}").parse().ok()?;
            let given = u8::try_from(fraction.len()).ok().filter(|given| *given <= scale)?;
            Value::Decimal { units: model::decimal::rescaled(units, given, scale)?, scale }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are_written() {
        for text in [
            "1970-01-01 00:00:01+00",
            "1970-01-01T00:00:01Z",
            "1970-01-01 00:00:01",
            "1970-01-01 02:00:01+02",
            "1970-01-01 02:00:01+02:00",
        ] {
            assert_eq!(time_of(text), Some(1_000_000), "{text}");
        }
        assert_eq!(time_of("1970-01-02"), Some(86_400_000_000));
        assert_eq!(time_of("soon"), None);
    }

    #[test]
    fn decimals_keep_their_resolution_or_are_refused() {
        let decimal = |text| value_of(FieldType::Decimal { digits: 9, scale: 2 }, text);
        assert_eq!(decimal("-1.5"), Some(Value::Decimal { units: -150, scale: 2 }));
        assert_eq!(decimal("1.500"), Some(Value::Decimal { units: 150, scale: 2 }));
        assert_eq!(decimal("1.505"), None);
        assert_eq!(value_of(FieldType::F64, "NaN"), None);
    }
}
