//! Random changes and their oracle: writes, corrections, retries, removals of rows and of fields.

use model::{FieldType, Removal, Rng, SeriesKey, SplitMix64, TableBatch, TableName, Value};
use storage::{PendingWrite, Storage, StorageError};

use crate::world::{Rows, START_US};

pub(crate) const DAY_US: i64 = 86_400_000_000;

/// Fields, the last of which is a text.
const FIELDS: [&str; 4] = ["x", "y", "z", "note"];

/// A key: number of the series, µs after START.
pub(crate) type Key = (u64, i64);

/// What is asked of table `t` in one request.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Write(Vec<(Key, Vec<(&'static str, u64)>)>),
    RemoveRows(Vec<Key>),
    RemoveFields(Vec<Key>, Vec<&'static str>),
}

fn shown(field: &str, value: u64) -> String {
    if field == "note" { format!("text {value} of some length") } else { value.to_string() }
}

impl Change {
    /// What it does to what is stored.
    pub(crate) fn apply(&self, rows: &mut Rows) {
        let name = |(series, time): &Key| (format!("s=d{series}"), *time);
        match self {
            Change::Write(readings) => {
                for (key, fields) in readings {
                    let row = rows.entry(name(key)).or_default();
                    row.extend(fields.iter().map(|(field, value)| ((*field).to_owned(), shown(field, *value))));
                }
            }
            Change::RemoveRows(keys) => keys.iter().for_each(|key| drop(rows.remove(&name(key)))),
            Change::RemoveFields(keys, fields) => {
                for key in keys {
                    if let Some(row) = rows.get_mut(&name(key)) {
                        fields.iter().for_each(|field| drop(row.remove(*field)));
                    }
                }
            }
        }
    }

    /// Asks a storage for it.
    pub(crate) fn send(&self, storage: &Storage) -> Result<PendingWrite, StorageError> {
        let (keys, fields) = match self {
            Change::Write(readings) => return storage.write(vec![table_batch(readings)], "test"),
            Change::RemoveRows(keys) => (keys, None),
            Change::RemoveFields(keys, fields) => (keys, Some(fields.iter().map(|field| (*field).into()).collect())),
        };
        let keys: Vec<(SeriesKey, i64)> = keys.iter().map(|(s, time)| (series_key(*s), START_US + time)).collect();
        let rows = keys.iter().map(|(key, time_us)| (key, *time_us));
        storage.remove(Removal { fields, ..Removal::of_rows(TableName::public("t"), rows) }, "test")
    }

    /// Asks a storage for it and waits for the acknowledgement.
    pub(crate) fn make(&self, storage: &Storage) {
        let pending = self.send(storage).unwrap();
        assert_eq!(pending.rejected, []);
        pending.wait().unwrap();
    }

    /// The (key, field) pairs it decides, and whether it is about the whole row.
    fn touches(&self) -> Vec<(Key, Option<&'static str>)> {
        match self {
            Change::Write(readings) => {
                readings.iter().flat_map(|(key, fields)| fields.iter().map(|(f, _)| (*key, Some(*f)))).collect()
            }
            Change::RemoveRows(keys) => keys.iter().map(|key| (*key, None)).collect(),
            // That the row is there matters as well: writes that make it must not pass.
            Change::RemoveFields(keys, _) => keys.iter().map(|key| (*key, None)).collect(),
        }
    }

    /// Whether the order of the two matters.
    pub(crate) fn conflicts(&self, other: &Change) -> bool {
        let others = other.touches();
        self.touches().iter().any(|(key, field)| {
            others.iter().any(|(other, its)| key == other && (field.is_none() || its.is_none() || field == its))
        })
    }
}

fn series_key(series: u64) -> SeriesKey {
    SeriesKey::from_tags([("s", format!("d{series}"))])
}

fn table_batch(readings: &[(Key, Vec<(&'static str, u64)>)]) -> TableBatch {
    let mut batch = TableBatch::new(TableName::public("t"));
    for ((series, time), fields) in readings {
        let texts: Vec<String> = fields.iter().map(|(field, value)| shown(field, *value)).collect();
        let values: Vec<(usize, Value<'_>)> = fields
            .iter()
            .zip(&texts)
            .map(|((field, value), text)| match *field {
                "note" => (batch.field_column(field, FieldType::Text), Value::Text(text)),
                _ => (batch.field_column(field, FieldType::F64), Value::F64(*value as f64)),
            })
            .collect();
        let id = batch.intern_series(series_key(*series));
        batch.push_row(id, START_US + time, 1, &values);
    }
    batch
}

/// Makes changes: mostly new readings that go on in time, often something about what was written before.
pub(crate) struct Changes {
    rng: SplitMix64,
    /// Where new readings are in time.
    now: i64,
    days: u64,
    sent: Vec<Change>,
}

impl Changes {
    pub(crate) fn new(seed: u64, days: u64) -> Changes {
        Changes { rng: SplitMix64::new(seed), now: 0, days, sent: Vec::new() }
    }

    fn key(&mut self) -> Key {
        let time = match self.rng.below(3) {
            0 => self.rng.below(self.now as u64 + 10) as i64,
            _ => self.now + self.rng.below(6) as i64,
        };
        let day = if self.rng.below(6) == 0 { self.rng.below(self.days) } else { 0 };
        (self.rng.below(4), time - day as i64 * DAY_US)
    }

    fn keys(&mut self, most: u64) -> Vec<Key> {
        (0..1 + self.rng.below(most)).map(|_| self.key()).collect()
    }

    pub(crate) fn next(&mut self) -> Change {
        let change = match self.rng.below(16) {
            0..2 => Change::RemoveRows(self.keys(5)),
            2..4 => {
                let fields: Vec<&str> = FIELDS.into_iter().filter(|_| self.rng.below(2) == 0).collect();
                let fields = if fields.is_empty() { vec!["x"] } else { fields };
                Change::RemoveFields(self.keys(5), fields)
            }
            // A retry of what was written lately, or long ago: written again, it is the newest.
            4..6 if !self.sent.is_empty() => self.sent[self.rng.below(self.sent.len() as u64) as usize].clone(),
            _ => {
                self.now += self.rng.below(8) as i64;
                let keys = self.keys(24);
                let fields = |rng: &SplitMix64| {
                    let some = FIELDS.into_iter().filter(|_| rng.below(3) > 0).map(|field| (field, rng.below(3)));
                    let some: Vec<(&str, u64)> = some.collect();
                    if some.is_empty() { vec![("y", 7)] } else { some }
                };
                Change::Write(keys.into_iter().map(|key| (key, fields(&self.rng))).collect())
            }
        };
        self.sent.push(change.clone());
        change
    }
}

/// The table with all its columns, so that fields can be removed whatever came before.
pub(crate) fn first_change() -> Change {
    Change::Write(vec![((0, 0), FIELDS.map(|field| (field, 1)).to_vec())])
}
