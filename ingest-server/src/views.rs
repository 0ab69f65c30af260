//! What the server itself is, as tables of the schema `system`: its tables, their shards, the log and the disk, the
//! settings.
//!
//! Owns:     `system.tables`, `system.shards`, `system.storage`, `system.settings`.
//! Does not: count anything: what is shown is looked up when somebody asks.
//!
//! No setting holds a secret, so all are shown: passwords are in files of their own, of which this knows the paths.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use arrow::temporal_conversions::timestamp_us_to_datetime;
use model::{Clock, FieldType};
use storage::{LiveTable, Storage, TableContents, TableSchema};

use crate::config::{self, Config};

const US_PER_DAY: i64 = 86_400_000_000;

/// Shows all of them.
pub fn show(storage: &Arc<Storage>, config: &Config, clock: &Arc<dyn Clock>) {
    let weak = Arc::downgrade(storage);
    let views = [
        ("tables", tables(weak.clone(), config.storage.retention.0, Arc::clone(clock))),
        ("shards", shards(weak.clone())),
        ("storage", log_and_disk(weak, config, Arc::clone(clock))),
        ("settings", settings(config, clock.now_us())),
    ];
    for (name, view) in views {
        storage.show(name, Arc::new(view));
    }
}

/// A value of a view.
#[derive(Clone, Debug, PartialEq)]
enum Cell {
    Text(Option<String>),
    Number(Option<i64>),
    Flag(bool),
}

fn text(value: impl Into<String>) -> Cell {
    Cell::Text(Some(value.into()))
}

fn count(value: impl TryInto<i64>) -> Cell {
    Cell::Number(Some(value.try_into().unwrap_or(i64::MAX)))
}

/// Values of the columns in order, and the time.
type Row = (Vec<Cell>, i64);

/// A table that is looked up row by row.
struct View {
    schema: Arc<TableSchema>,
    rows: Box<dyn Fn() -> Vec<Row> + Send + Sync>,
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl View {
    fn new(tags: &[&str], fields: &[(&str, FieldType)], rows: impl Fn() -> Vec<Row> + Send + Sync + 'static) -> Self {
        let tags: Vec<Arc<str>> = tags.iter().map(|tag| (*tag).into()).collect();
        let fields: Vec<(Arc<str>, FieldType)> = fields.iter().map(|(name, kind)| ((*name).into(), *kind)).collect();
        View { schema: Arc::new(TableSchema::new(&tags, &fields)), rows: Box::new(rows) }
    }
}

impl LiveTable for View {
    fn schema(&self) -> Arc<TableSchema> {
        Arc::clone(&self.schema)
    }

    fn rows(&self) -> RecordBatch {
        let rows = (self.rows)();
        let values = self.schema.columns().len() - 1;
        let column = |place: usize| -> ArrayRef {
            let cells = || rows.iter().map(|(cells, _)| &cells[place]);
            match self.schema.columns()[place].kind {
                storage::ColumnKind::Field(FieldType::I64) => Arc::new(Int64Array::from_iter(cells().map(|cell| {
                    let Cell::Number(number) = cell else { return None };
                    *number
                }))),
                storage::ColumnKind::Field(FieldType::Bool) => Arc::new(BooleanArray::from_iter(cells().map(|cell| {
                    let Cell::Flag(flag) = cell else { return None };
                    Some(*flag)
                }))),
                _ => Arc::new(StringViewArray::from_iter(cells().map(|cell| {
                    let Cell::Text(text) = cell else { return None };
                    text.as_deref()
                }))),
            }
        };
        let mut columns: Vec<ArrayRef> = (0..values).map(column).collect();
        let times: Vec<i64> = rows.iter().map(|(_, time_us)| *time_us).collect();
        columns.push(Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")));
        RecordBatch::try_new(Arc::clone(self.schema.arrow()), columns).expect("columns were made for the schema")
    }
}

/// RFC 3339.
fn time(us: i64) -> Option<String> {
    timestamp_us_to_datetime(us).map(|time| format!("{time:?}Z"))
}

fn day(days: i32) -> Option<String> {
    timestamp_us_to_datetime(i64::from(days) * US_PER_DAY).map(|time| format!("{:?}", time.date()))
}

/// As `WITH (retention = '…')` takes it.
fn retention(set: Option<Duration>, default: Duration) -> String {
    let kept = set.unwrap_or(if default.is_zero() { Duration::MAX } else { default });
    let seconds = kept.as_secs();
    match () {
        () if kept == Duration::MAX || seconds == u64::MAX => "forever".into(),
        () if seconds.is_multiple_of(86_400) => format!("{}d", seconds / 86_400),
        () if seconds.is_multiple_of(3_600) => format!("{}h", seconds / 3_600),
        () if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        () => format!("{seconds}s"),
    }
}

fn contents(storage: &Weak<Storage>) -> Vec<TableContents> {
    storage.upgrade().map_or_else(Vec::new, |storage| storage.contents())
}

fn tables(storage: Weak<Storage>, default: Duration, clock: Arc<dyn Clock>) -> View {
    let fields = [
        ("rows", FieldType::I64),
        ("memory_rows", FieldType::I64),
        ("shards", FieldType::I64),
        ("bytes", FieldType::I64),
        ("columns", FieldType::I64),
        ("first_day", FieldType::Text),
        ("last_day", FieldType::Text),
        ("retention", FieldType::Text),
        ("retention_is_set", FieldType::Bool),
        ("damage", FieldType::Text),
    ];
    View::new(&["table_schema", "table_name"], &fields, move || {
        let now_us = clock.now_us();
        let row = |TableContents { info, options, shards: _, days }: TableContents| {
            let cells = vec![
                text(&*info.name.schema),
                text(&*info.name.table),
                // Those that wait are in a shard too, in their old form.
                count((info.shard_rows + info.memory_rows).saturating_sub(info.waiting_rows)),
                count(info.memory_rows),
                count(info.shards),
                count(info.shard_bytes),
                count(info.schema.columns().len()),
                Cell::Text(days.and_then(|(first, _)| day(first))),
                Cell::Text(days.and_then(|(_, last)| day(last))),
                text(retention(options.retention, default)),
                Cell::Flag(options.retention.is_some()),
                Cell::Text(None),
            ];
            (cells, now_us)
        };
        let mut rows: Vec<Row> = contents(&storage).into_iter().map(row).collect();
        let damaged = storage.upgrade().map_or_else(Vec::new, |storage| storage.damaged_tables());
        rows.extend(damaged.into_iter().map(|table| {
            let mut cells = vec![text(&*table.name.schema), text(&*table.name.table)];
            cells.extend([const { Cell::Text(None) }; 8]);
            cells.extend([Cell::Flag(false), text(format!("{}: {}", table.path.display(), table.reason))]);
            (cells, now_us)
        }));
        rows
    })
}

fn shards(storage: Weak<Storage>) -> View {
    let fields = [
        ("table_schema", FieldType::Text),
        ("table_name", FieldType::Text),
        ("day", FieldType::Text),
        ("rows", FieldType::I64),
        ("bytes", FieldType::I64),
        ("time_to", FieldType::Text),
        ("has_checksums", FieldType::Bool),
        ("damage", FieldType::Text),
    ];
    View::new(&["path"], &fields, move || {
        let damaged = storage.upgrade().map_or_else(Vec::new, |storage| storage.damaged_shards());
        let mut rows = Vec::new();
        for TableContents { info, shards, .. } in contents(&storage) {
            for shard in shards {
                let damage = damaged.iter().find(|damage| damage.location == shard.path);
                let cells = vec![
                    text(&*shard.path),
                    text(&*info.name.schema),
                    text(&*info.name.table),
                    Cell::Text(day(shard.day)),
                    count(shard.rows),
                    count(shard.bytes),
                    Cell::Text(time(shard.time_max_us)),
                    Cell::Flag(shard.checksums.is_some()),
                    Cell::Text(damage.map(|damage| damage.reason.clone())),
                ];
                rows.push((cells, shard.time_min_us));
            }
        }
        rows
    })
}

fn log_and_disk(storage: Weak<Storage>, config: &Config, clock: Arc<dyn Clock>) -> View {
    let (data, place) = (config.storage.data.display().to_string(), config.storage.tables.clone());
    let reserve = config.storage.disk_reserve.0;
    let fields = [
        ("tables_at", FieldType::Text),
        ("node", FieldType::Text),
        ("epoch", FieldType::I64),
        ("log_bytes", FieldType::I64),
        ("log_segments", FieldType::I64),
        ("log_appended", FieldType::I64),
        ("log_durable", FieldType::I64),
        ("log_waiting_bytes", FieldType::I64),
        ("log_is_poisoned", FieldType::Bool),
        ("memory_rows", FieldType::I64),
        ("memory_bytes", FieldType::I64),
        ("waiting_rows", FieldType::I64),
        ("tables", FieldType::I64),
        ("shards", FieldType::I64),
        ("shard_rows", FieldType::I64),
        ("shard_bytes", FieldType::I64),
        ("damaged_tables", FieldType::I64),
        ("damaged_shards", FieldType::I64),
        ("disk_free_bytes", FieldType::I64),
        ("disk_reserve_bytes", FieldType::I64),
        ("takes_rows", FieldType::Bool),
    ];
    View::new(&["data"], &fields, move || {
        let Some(storage) = storage.upgrade() else { return Vec::new() };
        let stats = storage.stats();
        let is_poisoned = storage.is_poisoned();
        let contents = storage.contents();
        let sum = |of: fn(&TableContents) -> u64| count(contents.iter().map(of).sum::<u64>());
        let at = if place.is_empty() { format!("{data}/tables") } else { place.clone() };
        let cells = vec![
            text(data.clone()),
            text(at),
            text(storage.node().to_string()),
            count(storage.epoch().0),
            count(stats.wal.bytes_on_disk),
            count(stats.wal.segments),
            count(stats.wal.appended),
            count(stats.wal.durable),
            count(stats.wal.queue_bytes),
            Cell::Flag(is_poisoned),
            count(stats.memory_rows),
            count(stats.memory_bytes),
            count(stats.waiting_rows),
            count(stats.tables),
            sum(|table| table.info.shards as u64),
            sum(|table| table.info.shard_rows),
            sum(|table| table.info.shard_bytes),
            count(stats.damaged_tables),
            count(stats.damaged_shards),
            count(stats.disk_free_bytes),
            count(reserve),
            Cell::Flag(!is_poisoned && stats.admission_stopped == 0),
        ];
        vec![(cells, clock.now_us())]
    })
}

fn settings(config: &Config, since_us: i64) -> View {
    let fields = [
        ("value", FieldType::Text),
        ("default_value", FieldType::Text),
        ("is_default", FieldType::Bool),
        ("about", FieldType::Text),
    ];
    let rows: Vec<Row> = config::entries(config)
        .into_iter()
        .map(|entry| {
            let is_default = entry.value == entry.default;
            let cells = vec![
                text(entry.section),
                text(entry.key),
                text(entry.value),
                text(entry.default),
                Cell::Flag(is_default),
                text(entry.about),
            ];
            (cells, since_us)
        })
        .collect();
    View::new(&["section", "key"], &fields, move || rows.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retention_is_shown_as_it_is_set() {
        let seconds = Duration::from_secs;
        for (set, default, shown) in [
            (None, Duration::ZERO, "forever"),
            (None, seconds(7_200), "2h"),
            (Some(seconds(90 * 86_400)), seconds(7_200), "90d"),
            (Some(seconds(90)), Duration::ZERO, "90s"),
            (Some(seconds(120)), Duration::ZERO, "2m"),
            (Some(Duration::MAX), seconds(1), "forever"),
            (Some(seconds(u64::MAX)), seconds(1), "forever"),
        ] {
            assert_eq!(retention(set, default), shown);
        }
    }

    #[test]
    fn times_and_days_are_those_of_rfc_3339() {
        assert_eq!(time(1_780_272_000_000_123).as_deref(), Some("2026-06-01T00:00:00.000123Z"));
        assert_eq!(time(-1_000_000).as_deref(), Some("1969-12-31T23:59:59Z"));
        assert_eq!(day(-1).as_deref(), Some("1969-12-31"));
        assert_eq!(time(i64::MAX), None);
    }
}
