//! What is lost or damaged, as rows of `system.data_loss` (P3).
//!
//! Owns:     the columns of that table, and that one loss makes one row, however often it is found.
//! Does not: find anything: `recovery`, `catalog`, `scrub` and `check` do.

use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat};
use model::record;
use model::{FieldType, SeriesKey, TableBatch, TableName, Value};
use serde::{Deserialize, Serialize};
use wal::Loss;

use crate::admit::{TIME_MAX_US, TimeLimit, admit};
use crate::catalog::{Catalog, DamagedTable, SYSTEM};
use crate::engine::Shared;
use crate::shard::ShardDamage;
use crate::write::{Ack, Subject, Token};
use crate::{Shard, StorageError};

const TABLE: &str = "data_loss";

/// Rows of one record of the log, which has a bound on its length.
const ROWS_AT_ONCE: usize = 500;

/// Something that is lost, or damaged and may be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostData {
    /// Where: a segment of the log by its name, any other file below the data folder.
    pub file: String,
    /// Of a stretch of the log: the offset at which it begins.
    pub log_from: Option<u64>,
    /// And at which it ends, if that is known.
    pub log_to: Option<u64>,
    /// `certain`, `possible` or `nothing`.
    pub certainty: String,
    /// What was found.
    pub reason: String,
    /// The table.
    pub table: Option<String>,
    /// Its rows in question.
    pub rows: Option<u64>,
    /// The event time of the first of them, microseconds since 1970-01-01 UTC.
    pub time_from_us: Option<i64>,
    /// And of the last.
    pub time_to_us: Option<i64>,
}

impl LostData {
    pub(crate) fn of_log(loss: &Loss) -> LostData {
        LostData {
            file: loss.file.clone(),
            log_from: Some(loss.from),
            log_to: loss.to,
            certainty: loss.certainty.to_string(),
            reason: loss.reason.to_string(),
            ..LostData::default()
        }
    }

    /// The rows of a shard; `file` is where it stands now.
    pub(crate) fn of_shard(table: &TableName, shard: &Shard, file: String, reason: String) -> LostData {
        LostData {
            file,
            certainty: "possible".into(),
            reason,
            table: Some(table.to_string()),
            rows: Some(shard.rows),
            time_from_us: Some(shard.time_min_us),
            time_to_us: Some(shard.time_max_us),
            ..LostData::default()
        }
    }

    /// Its files are named as below the data folder, wherever the tables are.
    pub(crate) fn of_table(damaged: &DamagedTable, tables_dir: &Path) -> LostData {
        let below = damaged.path.strip_prefix(tables_dir).map(|below| Path::new("tables").join(below));
        LostData {
            file: below.unwrap_or_else(|_| damaged.path.clone()).display().to_string(),
            certainty: "possible".into(),
            reason: damaged.reason.clone(),
            table: Some(damaged.name.to_string()),
            ..LostData::default()
        }
    }

    fn key(&self) -> SeriesKey {
        let from = self.log_from.map(|from| from.to_string());
        let tags = [("file", Some(&self.file)), ("log_from", from.as_ref())];
        SeriesKey::from_tags(tags.into_iter().filter_map(|(name, value)| Some((name, value?))))
    }
}

/// The rows that name `lost`, but for those that the table has already: what is damaged is found at every start.
/// `None` if nothing is new.
fn new_rows(lost: &[LostData], catalog: &Catalog, now_us: i64) -> Option<TableBatch> {
    let name = TableName::new(SYSTEM, TABLE);
    let table = catalog.get(&name);
    let mut batch = TableBatch::new(name);
    for loss in lost {
        let key = loss.key();
        let known = table.as_ref().map(|table| table.has_series(&Arc::new(key.clone())));
        match known {
            Some(Ok(true)) => continue,
            // Told twice is better than not at all.
            Some(Err(e)) => tracing::error!(error = %e, "what is in system.data_loss cannot be read"),
            Some(Ok(false)) | None => {}
        }
        let number = |value: u64| Value::I64(i64::try_from(value).unwrap_or(i64::MAX));
        let (from, to) = (loss.time_from_us.and_then(format_time), loss.time_to_us.and_then(format_time));
        let text = |text: &'_ Option<String>| text.clone();
        let texts = [
            ("certainty", Some(loss.certainty.clone())),
            ("reason", Some(loss.reason.clone())),
            ("table", text(&loss.table)),
            ("time_from", from),
            ("time_to", to),
        ];
        let mut values = Vec::new();
        for (column, value) in [("log_to", loss.log_to), ("rows", loss.rows)] {
            if let Some(value) = value {
                values.push((batch.field_column(column, FieldType::I64), number(value)));
            }
        }
        for (column, value) in &texts {
            if let Some(value) = value {
                values.push((batch.field_column(column, FieldType::Text), Value::Text(value)));
            }
        }
        let series = batch.intern_series(key);
        batch.push_row(series, now_us, 0, &values);
    }
    (!batch.is_empty()).then_some(batch)
}

fn format_time(us: i64) -> Option<String> {
    Some(DateTime::from_timestamp_micros(us)?.to_rfc3339_opts(SecondsFormat::Micros, true))
}

impl Shared {
    /// Makes rows of `system.data_loss` of what is not in it yet; durable when it returns. Blocks.
    pub(crate) fn record_lost(&self, lost: &[LostData]) -> Result<(), StorageError> {
        let name = TableName::new(SYSTEM, TABLE);
        if let Some(damaged) = self.catalog.damaged(&name).filter(|_| !lost.is_empty()) {
            // What is lost was logged where it was found.
            tracing::error!(path = %damaged.path.display(), "system.data_loss is damaged: nothing can be noted there");
            return Ok(());
        }
        for some in lost.chunks(ROWS_AT_ONCE) {
            if let Some(batch) = new_rows(some, &self.catalog, self.context.clock.now_us()) {
                self.write_own(batch)?;
            }
        }
        Ok(())
    }

    /// Makes rows of the shards that were found damaged since this was last called.
    pub(crate) fn record_damaged_shards(&self) -> Result<(), StorageError> {
        let damaged = self.context.shards.unrecorded();
        if damaged.is_empty() {
            return Ok(());
        }
        let lost: Vec<LostData> = damaged.iter().map(|damage| self.describe(damage)).collect();
        self.record_lost(&lost)?;
        self.context.shards.recorded(&damaged);
        Ok(())
    }

    fn describe(&self, damage: &ShardDamage) -> LostData {
        let file = format!("tables/{}", damage.location);
        for table in self.catalog.all() {
            let state = table.state();
            let mut shards = state.partitions.values().flat_map(|partition| &partition.shards);
            if let Some(shard) = shards.find(|shard| shard.path == damage.location) {
                return LostData::of_shard(&table.name, shard, file, damage.reason.clone());
            }
        }
        let reason = damage.reason.clone();
        LostData { file, certainty: "possible".into(), reason, ..LostData::default() }
    }

    /// Writes rows of the server's own and waits until they are durable.
    fn write_own(&self, batch: TableBatch) -> Result<(), StorageError> {
        let limit = TimeLimit { max_us: TIME_MAX_US, max_future: std::time::Duration::ZERO };
        let mut rejected = Vec::new();
        let admitted = admit(&self.catalog, batch, limit, &mut rejected)?;
        for row in rejected {
            tracing::error!(reason = row.reason, "a row of the server's own is refused");
        }
        let Some((table, batch)) = admitted else { return Ok(()) };
        let mut bytes = Vec::new();
        record::encode_batch(table.id, "eden", &batch, &mut bytes);
        let (ack, durable) = Ack::new(&self.in_flight);
        self.append(bytes, Token { subject: Subject::Rows(table, Box::new(batch)), ack: ack.share() })?;
        ack.durable();
        durable.blocking_recv().unwrap_or(Err(StorageError::Closed))
    }
}
