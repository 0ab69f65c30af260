//! Rows of several messages on their way to batches.
//!
//! Invariants
//!  1. Rows of a table keep their order.
//!  2. A row that is refused leaves nothing behind.
//!  3. Entries of columns that a row does not have are bounded by a multiple of the values that came (P14): a table whose
//!     rows have ever other fields goes on in a new batch.

use std::collections::HashMap;
use std::sync::Arc;

use model::name::{check_column_name, check_name};
use model::{BatchBuilder, SeriesKey, TableBatch, TableName, Value};

use crate::line_protocol::{TABLES_MAX, quote};

/// Absent entries that a new batch may hold.
const CREDIT_START: usize = 1024;
/// Absent entries that each value allows to its batch.
const CREDIT_A_VALUE: usize = 4;
/// Longest value of a tag, in bytes.
const TAG_BYTES_MAX: usize = 64 << 10;

/// A row before it is checked.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    pub(crate) table: &'a str,
    /// Without a value it is no tag.
    pub(crate) tags: Vec<(&'a str, &'a str)>,
    pub(crate) fields: Vec<(&'a str, Value<'a>)>,
    pub(crate) time_us: i64,
}

struct Open {
    name: TableName,
    batch: BatchBuilder,
    credit: usize,
}

/// Rows of one schema. Each has a number, from 1, in the order in which they came: the `line` of its batch.
pub struct Rows {
    schema: Arc<str>,
    open: Vec<Open>,
    by_name: HashMap<Arc<str>, usize>,
    done: Vec<TableBatch>,
    len: u32,
}

impl Rows {
    /// No rows yet; tables are of `schema`.
    pub fn new(schema: &str) -> Rows {
        Rows { schema: schema.into(), open: Vec::new(), by_name: HashMap::new(), done: Vec::new(), len: 0 }
    }

    /// How many there are, which is the number of the last one.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// One batch a table; several where its rows have ever other fields.
    pub fn finish(self) -> Vec<TableBatch> {
        let last = self.open.into_iter().map(|open| open.batch.finish()).filter(|batch| !batch.is_empty());
        self.done.into_iter().chain(last).collect()
    }

    /// Adds a row.
    pub(crate) fn push(&mut self, mut row: Row<'_>) -> Result<(), String> {
        row.tags.retain(|(_, value)| !value.is_empty());
        check(&row)?;
        let at = self.table(row.table)?;
        let open = &mut self.open[at];
        let known = open.batch.width();
        let types = row.fields.iter().map(|(name, value)| (*name, value.field_type()));
        let columns: Vec<usize> = types.map(|(name, of)| open.batch.field_column(name, of)).collect();
        let new = open.batch.width() - known;
        // What this row lacks, and what the rows before it lack of its new columns.
        let cost = open.batch.width() - row.fields.len() + new * open.batch.len();
        if cost > open.credit && !open.batch.is_empty() {
            let mut full = std::mem::replace(&mut open.batch, BatchBuilder::new(open.name.clone())).finish();
            // The columns that were just added have no value in it.
            full.fields.truncate(known);
            open.credit = CREDIT_START;
            self.done.push(full);
            return self.push(row);
        }
        open.credit = open.credit.saturating_sub(cost) + CREDIT_A_VALUE * row.fields.len();
        let series = open.batch.intern_series(SeriesKey::from_tags(row.tags.iter().copied()));
        self.len += 1;
        open.batch.start_row(series, row.time_us, self.len);
        for (column, (_, value)) in columns.into_iter().zip(&row.fields) {
            open.batch.set(column, *value);
        }
        Ok(())
    }

    /// The place of a table in `open`.
    fn table(&mut self, name: &str) -> Result<usize, String> {
        Ok(match self.by_name.get(name) {
            Some(at) => *at,
            None if self.open.len() >= TABLES_MAX => return Err(format!("more than {TABLES_MAX} tables at a time")),
            None => {
                let name = TableName::new(&self.schema, name);
                let batch = BatchBuilder::new(name.clone());
                self.by_name.insert(Arc::clone(&name.table), self.open.len());
                self.open.push(Open { name, batch, credit: CREDIT_START });
                self.open.len() - 1
            }
        })
    }
}

fn check(row: &Row<'_>) -> Result<(), String> {
    check_name("table", row.table).map_err(|e| e.to_string())?;
    for (name, value) in &row.tags {
        check_column_name("tag", name).map_err(|e| e.to_string())?;
        if value.len() > TAG_BYTES_MAX {
            return Err(format!("the tag {name:?} has {} bytes; at most {TAG_BYTES_MAX} are allowed", value.len()));
        }
        if value.chars().any(char::is_control) {
            return Err(format!("the tag {name:?} has a control character in its value {}", quote(value)));
        }
    }
    for (name, value) in &row.fields {
        check_column_name("field", name).map_err(|e| e.to_string())?;
        if matches!(value, Value::F64(value) if !value.is_finite()) {
            return Err(format!("the field {name:?} is no finite number"));
        }
    }
    if row.fields.is_empty() {
        return Err("there is no field in it".into());
    }
    let mut names: Vec<&str> = row.tags.iter().map(|(name, _)| *name).chain(row.fields.iter().map(|f| f.0)).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(format!("{:?} is there twice, as tag or field", pair[0])),
        None => Ok(()),
    }
}
