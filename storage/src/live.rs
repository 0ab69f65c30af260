//! Tables of the schema `system` that are nowhere stored: their rows are made when somebody asks.
//!
//! Owns:     which there are, and how queries see them.
//! Does not: know what they show: whoever knows adds them ([`Storage::show`]).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, RwLock};

use arrow::array::RecordBatch;
use model::{TableId, TableName};

use crate::catalog::SYSTEM;
use crate::{MemoryRows, Storage, TableInfo, TableSchema, TableSnapshot};

/// What is shown as a table.
pub trait LiveTable: fmt::Debug + Send + Sync + 'static {
    /// Its columns; the same at every call.
    fn schema(&self) -> Arc<TableSchema>;
    /// Its rows now, with the Arrow schema of [`LiveTable::schema`]; each key once.
    fn rows(&self) -> RecordBatch;
}

/// Those that there are.
#[derive(Debug, Default)]
pub(crate) struct LiveTables(RwLock<BTreeMap<TableName, Arc<dyn LiveTable>>>);

impl LiveTables {
    fn get(&self, name: &TableName) -> Option<Arc<dyn LiveTable>> {
        self.0.read().expect("no holder of this lock panics").get(name).cloned()
    }

    /// As `SHOW TABLES` sees them.
    pub(crate) fn infos(&self) -> Vec<TableInfo> {
        let tables = self.0.read().expect("no holder of this lock panics");
        let info = |(name, table): (&TableName, &Arc<dyn LiveTable>)| TableInfo {
            name: name.clone(),
            id: TableId([0; 16]),
            schema: table.schema(),
            shards: 0,
            shard_rows: 0,
            shard_bytes: 0,
            memory_rows: 0,
            waiting_rows: 0,
        };
        tables.iter().map(info).collect()
    }

    /// As a query sees one; `None` if it is another table.
    pub(crate) fn snapshot(&self, name: &TableName) -> Option<TableSnapshot> {
        let table = self.get(name)?;
        let schema = table.schema();
        let rows = MemoryRows::of_batch(Arc::clone(&schema), table.rows());
        Some(TableSnapshot { name: name.clone(), schema, shards: Vec::new(), rows })
    }
}

impl Storage {
    /// Shows `table` as `system.<name>`, for as long as this lives.
    pub fn show(&self, name: &str, table: Arc<dyn LiveTable>) {
        let name = TableName::new(SYSTEM, name);
        self.live.0.write().expect("no holder of this lock panics").insert(name, table);
    }

    /// Whether `name` is that of a table which is not stored as one: there is nothing to flush or to merge.
    pub(crate) fn is_none_on_disk(&self, name: &TableName) -> bool {
        Storage::is_quarantine(name) || self.live.get(name).is_some()
    }
}
