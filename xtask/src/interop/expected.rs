//! What a table must hold, kept in a map: neither our reading nor our writing of tables has a part in it.

use std::collections::BTreeMap;

use harness::{Field, Reading, Rows};
use serde_json::{Value, json};

/// Tags by name, and the time in µs.
pub(super) type Key = (BTreeMap<String, String>, i64);

#[derive(Clone, Default)]
pub(super) struct Expected {
    rows: BTreeMap<Key, BTreeMap<String, Field>>,
}

impl Expected {
    /// Per field the newest value; fields that are not written stay.
    pub(super) fn write(&mut self, readings: &[Reading]) {
        for reading in readings {
            let key = (reading.tags.iter().cloned().collect(), reading.time_us);
            self.rows.entry(key).or_default().extend(reading.fields.iter().cloned());
        }
    }

    /// Removes rows, and says how many.
    pub(super) fn delete(&mut self, which: impl Fn(&Key) -> bool) -> usize {
        let before = self.rows.len();
        self.rows.retain(|key, _| !which(key));
        before - self.rows.len()
    }

    /// Removes the values of a field, and says how many there were.
    pub(super) fn clear(&mut self, field: &str, which: impl Fn(&Key) -> bool) -> usize {
        let rows = self.rows.iter_mut().filter(|(key, _)| which(key));
        rows.filter_map(|(_, fields)| fields.remove(field)).count()
    }

    /// The rows whose tag has that value.
    pub(super) fn of(&self, tag: &str, value: &str) -> Self {
        let of = |(key, _): &(&Key, &BTreeMap<String, Field>)| key.0.get(tag).is_some_and(|found| found == value);
        Expected { rows: self.rows.iter().filter(of).map(|(key, fields)| (key.clone(), fields.clone())).collect() }
    }

    /// As `/_sql` would answer them.
    pub(super) fn rows(&self) -> Rows {
        let names = |key: &Key, fields: &BTreeMap<String, Field>| {
            key.0.keys().chain(fields.keys()).cloned().collect::<Vec<_>>()
        };
        let mut columns: Vec<_> = self.rows.iter().flat_map(|(key, fields)| names(key, fields)).collect();
        columns.sort();
        columns.dedup();
        let row = |(key, fields): (&Key, &BTreeMap<String, Field>)| {
            let tag = |name: &String| key.0.get(name).map(|text| Value::from(text.as_str()));
            let cell = |name: &String| tag(name).or_else(|| fields.get(name).map(as_json)).unwrap_or_default();
            let mut cells: Vec<Value> = columns.iter().map(cell).collect();
            cells.push(time_as_json(key.1));
            cells
        };
        let rows: Vec<_> = self.rows.iter().map(row).collect();
        columns.push("time".into());
        Rows::new(json!({ "cols": columns, "rows": rows }))
    }
}

fn as_json(field: &Field) -> Value {
    match field {
        Field::F64(value) => Value::from(*value),
        Field::I64(value) => Value::from(*value),
        Field::U64(value) => Value::from(*value),
        Field::Bool(value) => Value::from(*value),
        Field::Text(value) => Value::from(value.as_str()),
    }
}

/// Milliseconds with up to three decimals.
fn time_as_json(time_us: i64) -> Value {
    if time_us % 1_000 == 0 { Value::from(time_us / 1_000) } else { Value::from(time_us as f64 / 1_000.0) }
}
