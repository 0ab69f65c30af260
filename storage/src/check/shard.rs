//! One shard: its bytes, its rows, and what the Delta log says of both.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, TimeUnit};
use model::{FieldType, day_of};
use serde_json::Value;

use super::rows::{Keys, SeriesConverter};
use crate::delta::{Add, format_day};
use crate::shard::read::ShardReader;
use crate::shard::stats::{ColumnSummary, Stats};
use crate::shard::{ReadError, ShardFile};
use crate::{ColumnKind, Shard, StorageError, TableSchema};

const BATCH_ROWS: usize = 8192;

/// What is the matter with a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Sound,
    /// It is not what was written.
    Damaged(String),
    /// The disk does not give it, which says nothing of what is on it.
    Unreadable(String),
}

/// Examines a shard; `step` is called with bytes that were read.
pub(super) fn examine(
    reader: &ShardReader<'_>,
    schema: &TableSchema,
    shard: &Shard,
    add: &Add,
    step: &mut dyn FnMut(u64),
) -> Verdict {
    let path = reader.root.join(&shard.path);
    let read = ShardFile::open(reader.disk, &path, &shard.path, shard.checksums.clone()).and_then(|file| {
        let mut before = 0;
        file.verify(&mut |done| {
            step(done - std::mem::replace(&mut before, done));
            true
        })
    });
    match read {
        Ok(()) => {}
        Err(ReadError::Damaged(damage)) => return Verdict::Damaged(damage.reason),
        Err(ReadError::Io(e)) if e.kind() == std::io::ErrorKind::NotFound => {
            return Verdict::Damaged("the file is missing".into());
        }
        Err(ReadError::Io(e)) => return Verdict::Unreadable(format!("it cannot be read: {e}")),
    }
    // Without checksums damaged bytes come as far as the decoder, which may panic.
    let examined = catch_unwind(AssertUnwindSafe(|| examine_rows(reader, schema, shard, add)));
    match examined {
        Ok(Ok(())) => Verdict::Sound,
        Ok(Err(StorageError::Corrupt { reason, .. })) => Verdict::Damaged(reason),
        Ok(Err(e)) => Verdict::Unreadable(e.to_string()),
        Err(_) => Verdict::Damaged("its pages cannot be decoded".into()),
    }
}

fn examine_rows(reader: &ShardReader<'_>, schema: &TableSchema, shard: &Shard, add: &Add) -> Result<(), StorageError> {
    let corrupt = |reason: String| StorageError::Corrupt { path: reader.root.join(&shard.path), reason };
    let batches = reader.open(shard)?.batches(BATCH_ROWS)?;
    let converter = SeriesConverter::new(schema).map_err(corrupt)?;
    let mut summaries: Vec<(Arc<str>, ColumnSummary)> = Vec::new();
    let mut last: Option<(Vec<u8>, i64)> = None;
    let mut rows = 0;
    for batch in batches {
        let batch = batch?;
        let keys = converter.keys(&batch).map_err(corrupt)?;
        in_order(&keys, shard.day, rows, &mut last).map_err(corrupt)?;
        summarize(&batch, schema, &mut summaries).map_err(corrupt)?;
        rows += batch.num_rows() as u64;
    }
    if rows != shard.rows {
        return Err(corrupt(format!("it has {rows} rows; the Delta log says {}", shard.rows)));
    }
    compare_statistics(summaries, add).map_err(corrupt)
}

/// Checks that each row lies behind the one before and in the day; `first` is the ordinal of the first row.
fn in_order(keys: &Keys, day: i32, first: u64, last: &mut Option<(Vec<u8>, i64)>) -> Result<(), String> {
    let mut row = 0;
    while row < keys.len() {
        let end = keys.run_end(row);
        let (series, times) = (keys.series(row), &keys.times.values()[row..end]);
        if last.as_ref().is_some_and(|(before, time)| (&before[..], *time) >= (series, times[0])) {
            return Err(format!("row {} does not lie behind the one before it, by tags and time", first + row as u64));
        }
        if let Some(place) = times.windows(2).position(|two| two[0] >= two[1]) {
            let at = first + (row + place) as u64 + 1;
            return Err(format!("row {at} does not lie behind the one before it, by tags and time"));
        }
        if let Some(place) = times.iter().position(|time| day_of(*time) != day) {
            return Err(format!("row {} is not of {}", first + (row + place) as u64, format_day(day)));
        }
        *last = Some((series.to_vec(), times[times.len() - 1]));
        row = end;
    }
    Ok(())
}

fn summarize(
    batch: &RecordBatch,
    schema: &TableSchema,
    summaries: &mut Vec<(Arc<str>, ColumnSummary)>,
) -> Result<(), String> {
    let of_batch = batch.schema();
    for (i, (field, array)) in of_batch.fields().iter().zip(batch.columns()).enumerate() {
        let column = schema.columns().iter().find(|column| *column.name == **field.name());
        let column = column.ok_or_else(|| format!("its column {:?} is not one of the table's", field.name()))?;
        if summaries.len() == i {
            summaries.push((Arc::clone(&column.name), ColumnSummary::default()));
        }
        summaries[i].1.add(kind_of(column.kind, array), array);
    }
    Ok(())
}

/// The kind by which statistics of `array` were made: the table's column may have become another since.
fn kind_of(kind: ColumnKind, array: &dyn Array) -> ColumnKind {
    match array.data_type() {
        DataType::Int64 => ColumnKind::Field(FieldType::I64),
        DataType::Float64 => ColumnKind::Field(FieldType::F64),
        DataType::Timestamp(TimeUnit::Microsecond, _) => ColumnKind::Time,
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 if kind != ColumnKind::Tag => {
            ColumnKind::Field(FieldType::Text)
        }
        DataType::Boolean => ColumnKind::Field(FieldType::Bool),
        _ => kind,
    }
}

/// Compares what was found with what the log says, where it says something.
fn compare_statistics(summaries: Vec<(Arc<str>, ColumnSummary)>, add: &Add) -> Result<(), String> {
    let said: Value = add.stats.as_deref().map_or(Ok(Value::Null), serde_json::from_str).map_err(|e| e.to_string())?;
    let mut found = Stats::default();
    let names: Vec<Arc<str>> = summaries.iter().map(|(name, _)| Arc::clone(name)).collect();
    for (name, summary) in summaries {
        found.add(&name, summary);
    }
    for name in names {
        for (what, found) in [("minValues", &found.min), ("maxValues", &found.max), ("nullCount", &found.nulls)] {
            let found = found.iter().find(|(column, _)| **column == *name).map(|(_, value)| value);
            // Shards of earlier versions have fewer bounds.
            let (Some(found), Some(said)) = (found, said[what].get(&*name)) else { continue };
            if serde_json::from_str::<Value>(found).map_err(|e| e.to_string())? != *said {
                return Err(format!("column {name:?} has {what} {found}; the Delta log says {said}"));
            }
        }
    }
    Ok(())
}
