//! The bytes of what is logged when rows or fields are removed.
//!
//! Owns:     the layout of the kind 5 of `docs/formats/record.md`, both directions.
//! Does not: know which rows are there (`storage` does).

use super::{KIND_REMOVAL, Reader, Record, RecordError, VERSION, put_array, put_len, put_series, put_text};
use crate::{Removal, TableId, TableName};

/// All fields: the rows themselves are removed, nothing follows.
const WHOLE_ROWS: u8 = 0;
/// Only the fields that follow.
const ONLY_FIELDS: u8 = 1;

/// Appends the bytes of a [`Record::Removal`] to `out`.
///
/// # Panics
/// If `removal` is not sound ([`Removal::check`]), before anything is appended, or if it has 2^32 rows or bytes of one
/// kind, which no request can bring.
pub fn encode_removal(table: TableId, source: &str, removal: &Removal, out: &mut Vec<u8>) {
    removal.check().expect("only a sound removal is logged");
    out.extend_from_slice(&[VERSION, KIND_REMOVAL]);
    out.extend_from_slice(&table.0);
    put_text(out, source);
    put_text(out, &removal.table.schema);
    put_text(out, &removal.table.table);
    put_series(out, &removal.series);
    put_len(out, removal.len());
    put_array(out, &removal.series_of, u32::to_le_bytes);
    put_array(out, &removal.times_us, i64::to_le_bytes);
    match &removal.fields {
        None => out.push(WHOLE_ROWS),
        Some(fields) => {
            out.push(ONLY_FIELDS);
            put_len(out, fields.len());
            fields.iter().for_each(|field| put_text(out, field));
        }
    }
}

pub(super) fn decode_removal(reader: &mut Reader<'_>) -> Result<Record, RecordError> {
    let table = TableId(reader.chunk()?);
    let source = reader.text()?.to_owned();
    let name = TableName::new(reader.text()?, reader.text()?);
    let series = reader.series()?;
    let rows = reader.len()?;
    let series_of = reader.array(rows, u32::from_le_bytes)?;
    let times_us = reader.array(rows, i64::from_le_bytes)?;
    let [form] = reader.chunk()?;
    let fields = match form {
        WHOLE_ROWS => None,
        ONLY_FIELDS => {
            let mut fields = Vec::new();
            for _ in 0..reader.len()? {
                fields.push(reader.text()?.into());
            }
            Some(fields)
        }
        _ => return Err(reader.malformed("unknown form of what is removed")),
    };
    let removal = Removal { table: name, series, series_of, times_us, fields };
    removal.check().map_err(|what| reader.malformed(what))?;
    Ok(Record::Removal { table, source, removal })
}
