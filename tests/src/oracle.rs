//! What must be stored, value by value.
//!
//! Invariants
//!  1. A key is written by one client at a time, so "newest" is the order in which [`Oracle::record`] was called.
//!  2. acked ⊆ stored ⊆ attempted: a cell holds its newest acknowledged value, or one attempted after it (P1).
//!  3. What was once seen after a restart stays: seeing it settles it.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_json::Value;

use crate::eden::Rows;
use crate::http::Outcome;
use crate::reading::{Field, Reading};

/// Differences named in one report; more say no more.
const DIFFERENCES_MAX: usize = 12;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    table: String,
    /// Sorted by name.
    tags: Vec<(String, String)>,
    time_us: i64,
}

#[derive(Clone, Debug, Default)]
struct Cell {
    /// The newest value known to be stored.
    settled: Option<Field>,
    /// Attempted after it, fate unknown, oldest first.
    open: Vec<Field>,
}

impl Cell {
    fn allows(&self, stored: &Value) -> bool {
        if stored.is_null() {
            return self.settled.is_none();
        }
        self.settled.iter().chain(&self.open).any(|value| value.is(stored))
    }

    fn settle(&mut self, stored: &Value) {
        if let Some(value) = self.open.drain(..).rev().find(|value| value.is(stored)) {
            self.settled = Some(value);
        }
    }
}

/// The full map of key to field values.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    cells: BTreeMap<Key, BTreeMap<String, Cell>>,
}

impl Oracle {
    /// Takes note of one write and what became of it.
    ///
    /// Call it for each client in the order of its writes.
    pub fn record(&mut self, batch: &[Reading], outcome: &Outcome) {
        if matches!(outcome, Outcome::NotSent | Outcome::Refused(..)) {
            return;
        }
        for reading in batch {
            let mut tags = reading.tags.clone();
            tags.sort();
            let key = Key { table: reading.table.clone(), tags, time_us: reading.time_us };
            let cells = self.cells.entry(key).or_default();
            for (name, value) in &reading.fields {
                let cell = cells.entry(name.clone()).or_default();
                if *outcome == Outcome::Acked {
                    *cell = Cell { settled: Some(value.clone()), open: Vec::new() };
                } else {
                    cell.open.push(value.clone());
                }
            }
        }
    }

    /// The tables written to.
    pub fn tables(&self) -> BTreeSet<String> {
        self.cells.keys().map(|key| key.table.clone()).collect()
    }

    /// Keys of a table that must be stored.
    pub fn acked_keys(&self, table: &str) -> usize {
        let settled = |cells: &BTreeMap<String, Cell>| cells.values().any(|cell| cell.settled.is_some());
        self.cells.iter().filter(|(key, cells)| key.table == table && settled(cells)).count()
    }

    /// Compares with the rows of `SELECT * FROM table`.
    ///
    /// # Errors
    /// Names the first differences.
    pub fn check(&self, table: &str, rows: &Rows) -> Result<(), String> {
        let mut differences = Vec::new();
        let mut seen = HashSet::new();
        let tags = self.tag_names(table);
        for row in 0..rows.len() {
            let (key, stored) = split(table, &tags, rows, row);
            if !seen.insert(key.clone()) {
                differences.push(format!("key twice (P4): {key:?}"));
                continue;
            }
            let Some(cells) = self.cells.get(&key) else {
                differences.push(format!("stored but never written: {key:?}"));
                continue;
            };
            for (name, value) in &stored {
                let allowed = cells.get(*name).map_or(value.is_null(), |cell| cell.allows(value));
                if !allowed {
                    differences.push(format!("{key:?}: {name} is {value}, expected {:?}", cells.get(*name)));
                }
            }
            for (name, cell) in cells {
                if cell.settled.is_some() && !stored.contains_key(&**name) {
                    differences.push(format!("{key:?}: acknowledged field {name} has no column"));
                }
            }
        }
        for (key, cells) in &self.cells {
            let acked = cells.values().any(|cell| cell.settled.is_some());
            if key.table == table && acked && !seen.contains(key) {
                differences.push(format!("acknowledged but not stored: {key:?}"));
            }
        }
        if differences.is_empty() {
            return Ok(());
        }
        let count = differences.len();
        differences.truncate(DIFFERENCES_MAX);
        Err(format!("{table}: {count} differences, {} rows stored:\n  {}", rows.len(), differences.join("\n  ")))
    }

    /// Takes what is stored after a restart as known: it has to stay, and what is not there cannot come any more.
    pub fn settle(&mut self, table: &str, rows: &Rows) {
        let tags = self.tag_names(table);
        let mut stored_rows = BTreeMap::new();
        for row in 0..rows.len() {
            let (key, stored) = split(table, &tags, rows, row);
            stored_rows.insert(key, stored);
        }
        self.cells.retain(|key, cells| {
            if key.table != table {
                return true;
            }
            let Some(stored) = stored_rows.get(key) else { return false };
            for (name, cell) in cells.iter_mut() {
                cell.settle(stored.get(&**name).copied().unwrap_or(&Value::Null));
            }
            cells.retain(|_, cell| cell.settled.is_some());
            true
        });
    }

    /// The columns of a table that some reading had as a tag.
    fn tag_names(&self, table: &str) -> BTreeSet<String> {
        let keys = self.cells.keys().filter(|key| key.table == table);
        keys.flat_map(|key| key.tags.iter().map(|(name, _)| name.clone())).collect()
    }
}

/// A row's key, and its other columns.
fn split<'a>(table: &str, tags: &BTreeSet<String>, rows: &'a Rows, row: usize) -> (Key, BTreeMap<&'a str, &'a Value>) {
    let mut key = Key { table: table.to_string(), tags: Vec::new(), time_us: rows.time_us(row) };
    let mut stored = BTreeMap::new();
    for (column, value) in rows.columns().iter().zip(rows.row(row)) {
        if column == "time" {
            continue;
        }
        if tags.contains(column) {
            if let Some(tag) = value.as_str() {
                key.tags.push((column.clone(), tag.to_string()));
            }
        } else {
            stored.insert(&**column, value);
        }
    }
    key.tags.sort();
    (key, stored)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reading(t: i64, value: f64) -> Reading {
        Reading::at("air", t).tag("room", "a").field("temp", value)
    }

    fn stored(rows: Value) -> Rows {
        Rows::new(json!({ "cols": ["room", "temp", "time"], "rows": rows }))
    }

    #[test]
    fn acknowledged_is_stored_and_stored_was_attempted() {
        let mut oracle = Oracle::default();
        oracle.record(&[reading(1_000, 1.0)], &Outcome::Acked);
        oracle.record(&[reading(1_000, 2.0)], &Outcome::Unknown);
        oracle.record(&[reading(2_000, 3.0)], &Outcome::Unknown);
        oracle.record(&[reading(3_000, 4.0)], &Outcome::NotSent);

        oracle.check("air", &stored(json!([["a", 1.0, 1]]))).unwrap();
        oracle.check("air", &stored(json!([["a", 2.0, 1], ["a", 3.0, 2]]))).unwrap();
        for (rows, said) in [
            (json!([]), "acknowledged but not stored"),
            (json!([["a", 5.0, 1]]), "temp is 5.0"),
            (json!([["a", null, 1]]), "temp is null"),
            (json!([["a", 1.0, 1], ["a", 1.0, 1]]), "key twice"),
            (json!([["a", 1.0, 1], ["a", 4.0, 3]]), "never written"),
        ] {
            let difference = oracle.check("air", &stored(rows)).unwrap_err();
            assert!(difference.contains(said), "{difference}");
        }
    }

    #[test]
    fn what_was_seen_once_has_to_stay() {
        let mut oracle = Oracle::default();
        oracle.record(&[reading(1_000, 1.0)], &Outcome::Unknown);
        oracle.record(&[reading(2_000, 2.0)], &Outcome::Unknown);
        let seen = stored(json!([["a", 1.0, 1]]));
        oracle.settle("air", &seen);
        oracle.check("air", &seen).unwrap();
        oracle.check("air", &stored(json!([]))).unwrap_err();
        oracle.check("air", &stored(json!([["a", 1.0, 1], ["a", 2.0, 2]]))).unwrap_err();
    }
}
