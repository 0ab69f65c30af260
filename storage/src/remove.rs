//! Removing rows, or fields of rows, from a table: on its way into the log.
//!
//! Owns:     judging a removal and cutting it into records.
//! Does not: apply it (`memtable` does, and flushes bring it to the shards), or find rows by a condition: whoever asks
//!           names the keys.
//!
//! A removal takes its place in the order of writes: it is in force for what was acknowledged before, and a later write
//! of the same key is a new row. It needs no look at what is stored: rows that are not there stay so.

use std::sync::Arc;

use model::{Removal, record};

use crate::admit::{TIME_MAX_US, TIME_MIN_US};
use crate::catalog::SYSTEM;
use crate::engine::{Admitted, Encoded};
use crate::log::Log;
use crate::table::Table;
use crate::write::{PendingWrite, Subject};
use crate::{ColumnKind, Storage, StorageError, TableSchema};

impl Storage {
    /// Hands a removal to the log. Blocks while memory is full (then `Busy`): what is removed takes room there until it
    /// is flushed.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] for a table or field that is not there, for tags and times, which are no fields, and
    /// for tables of the server. Nothing was removed after that, `Busy`, `Closed` and `Poisoned`.
    pub fn remove(&self, removal: Removal, source: &str) -> Result<PendingWrite, StorageError> {
        let shared = &self.shared;
        if *removal.table.schema == *SYSTEM {
            let message =
                format!("schema {SYSTEM:?} is written by the server only; nothing was removed from {}", removal.table);
            return Err(StorageError::Invalid(message));
        }
        removal.check().map_err(|what| StorageError::Invalid(format!("the removal is malformed: {what}")))?;
        shared.check_open()?;
        let table = shared.catalog.find(&removal.table)?;
        let table = table.ok_or_else(|| StorageError::Invalid(format!("there is no table {}", removal.table)))?;
        shared.wait_for_room()?;
        let pass = shared.enter(vec![removal.table.clone()])?;
        table.check_live()?;
        check_fields(&removal, &*table.schema_for_writes()?)?;
        // No row has a time that cannot be stored.
        let can_be = |row: usize| (TIME_MIN_US..=TIME_MAX_US).contains(&removal.times_us[row]);
        let removal = if (0..removal.len()).all(can_be) { removal } else { removal.filter(can_be) };
        let bytes_max = shared.with_wal(Log::record_bytes_max).ok_or(StorageError::Closed)?;
        let mut records = Vec::new();
        encode(&table, source, removal, bytes_max, &mut records)?;
        self.append(Admitted { rejected: Vec::new(), records, pass }, None)
    }
}

fn check_fields(removal: &Removal, schema: &TableSchema) -> Result<(), StorageError> {
    for field in removal.fields.iter().flatten() {
        let reason = match schema.columns().iter().find(|column| column.name == *field).map(|column| column.kind) {
            Some(ColumnKind::Field(_)) => continue,
            Some(ColumnKind::Tag | ColumnKind::Time) => "identifies rows; remove the rows instead",
            None => "is no field of it",
        };
        return Err(StorageError::Invalid(format!("table {}: {field:?} {reason}", removal.table)));
    }
    Ok(())
}

/// Encodes a removal as records of at most `bytes_max` bytes, halving it as often as that takes.
fn encode(
    table: &Arc<Table>,
    source: &str,
    removal: Removal,
    bytes_max: usize,
    records: &mut Vec<Encoded>,
) -> Result<(), StorageError> {
    if removal.is_empty() {
        return Ok(());
    }
    let mut bytes = Vec::new();
    record::encode_removal(table.id, source, &removal, &mut bytes);
    if bytes.len() <= bytes_max {
        records.push((bytes, Subject::Removal(Arc::clone(table), Box::new(removal))));
        return Ok(());
    }
    if removal.len() == 1 {
        let message = format!("the key takes {} bytes, and at most {bytes_max} can be logged", bytes.len());
        return Err(StorageError::Invalid(message));
    }
    drop(bytes);
    let half = removal.len() / 2;
    encode(table, source, removal.filter(|row| row < half), bytes_max, records)?;
    encode(table, source, removal.filter(|row| row >= half), bytes_max, records)
}
