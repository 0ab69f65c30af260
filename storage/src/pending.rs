//! Stand-ins for what storage cannot do yet; each answers with an error that says so.

use std::sync::Arc;
use std::time::Duration;

use model::{FieldType, SeriesKey, TableName};

use crate::{PendingWrite, Storage, StorageError, TableSchema};

/// What an operator may set for one table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableOptions {
    /// How long rows are kept, by their own time; `None`: as long as the default says; [`Duration::MAX`]: for ever.
    pub retention: Option<Duration>,
}

/// What is to be removed: rows by their keys, as a whole or only some of their fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// The table all rows are in.
    pub table: TableName,
    /// The series that rows refer to, each once.
    pub series: Vec<SeriesKey>,
    /// Per row: index into `series`.
    pub series_of: Vec<u32>,
    /// Per row: event time, microseconds since 1970-01-01 UTC.
    pub times_us: Vec<i64>,
    /// `None`: the rows themselves. Else the fields that lose their values.
    pub fields: Option<Vec<Arc<str>>>,
}

fn not_yet<T>(what: &str) -> Result<T, StorageError> {
    Err(StorageError::Invalid(format!("{what} is not there yet")))
}

impl Storage {
    /// Makes a table; false if there is one of that name.
    pub fn create_table(&self, _: &TableName, _: &TableSchema, _: TableOptions) -> Result<bool, StorageError> {
        not_yet("making tables")
    }

    /// Sets a table's options, all of them.
    pub fn set_options(&self, _: &TableName, _: TableOptions) -> Result<(), StorageError> {
        not_yet("setting options")
    }

    /// Drops a table; false if there is none.
    pub fn drop_table(&self, _: &TableName) -> Result<bool, StorageError> {
        not_yet("dropping tables")
    }

    /// Merges the shards of a table.
    pub fn compact(&self, _: &TableName) -> Result<(), StorageError> {
        not_yet("compaction")
    }

    /// Adds tags and fields to a table.
    pub fn add_columns(
        &self,
        _: &TableName,
        _: &[Arc<str>],
        _: &[(Arc<str>, FieldType)],
    ) -> Result<bool, StorageError> {
        not_yet("adding columns")
    }

    /// Changes the type of a field.
    pub fn alter_column(&self, _: &TableName, _: &str, _: FieldType) -> Result<bool, StorageError> {
        not_yet("changing the type of a column")
    }

    /// Removes rows or fields of rows.
    pub fn remove(&self, _: Removal, _: &str) -> Result<PendingWrite, StorageError> {
        not_yet("removing rows")
    }
}
