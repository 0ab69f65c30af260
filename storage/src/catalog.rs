//! The tables of a data folder: finding them at start, making new ones.
//!
//! Owns:     names and folders; version 0 of a table.
//! Does not: change a table's columns (`admit`) or rows.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex, RwLock};

use model::name::check_name;
use model::{TableId, TableName};
use uuid::Uuid;
use wal::disk::{Disk, EntryKind};

use crate::context::Context;
use crate::delta::{Action, CommitInfo, DAY_COLUMN, Format, Metadata, Protocol, TableLog, TableState, schema_to_json};
use crate::table::Table;
use crate::{StorageError, TableOptions, TableSchema};

/// The schema whose tables only the server itself writes.
pub(crate) const SYSTEM: &str = "system";

/// Tables of a data folder. Each takes memory and a log of its own, so their number has a limit (P10).
pub(crate) const TABLES_MAX: usize = 10_000;

/// See the module.
#[derive(Debug)]
pub(crate) struct Catalog {
    context: Arc<Context>,
    tables: RwLock<Tables>,
    /// Held while a table is made, so that it is made once.
    creating: Mutex<()>,
}

#[derive(Debug, Default)]
struct Tables {
    by_name: BTreeMap<TableName, Arc<Table>>,
    by_id: HashMap<TableId, Arc<Table>>,
}

impl Catalog {
    /// Reads every table's log.
    pub(crate) fn load(context: Arc<Context>) -> Result<Catalog, StorageError> {
        let mut tables = Tables::default();
        let root = &context.tables_dir;
        for schema in folders(&*context.disk, root)? {
            for table in folders(&*context.disk, &root.join(&schema))? {
                let dir = root.join(&schema).join(&table);
                let Some((log, state)) = TableLog::load(&context.disk, &dir)? else { continue };
                let corrupt = |reason: String| StorageError::Corrupt { path: dir.clone(), reason };
                let (Some(schema_name), Some(table_name)) = (decode(&schema), decode(&table)) else {
                    return Err(corrupt("its folder's name is not one that a table gets".into()));
                };
                let name = TableName::new(&schema_name, &table_name);
                let prefix = format!("{schema}/{table}");
                let table = Table::new(name, prefix, &context, log, state).map_err(corrupt)?;
                tables.insert(Arc::new(table));
            }
        }
        Ok(Catalog { context, tables: RwLock::new(tables), creating: Mutex::new(()) })
    }

    pub(crate) fn get(&self, name: &TableName) -> Option<Arc<Table>> {
        self.tables.read().expect("no holder of this lock panics").by_name.get(name).cloned()
    }

    pub(crate) fn by_id(&self, id: TableId) -> Option<Arc<Table>> {
        self.tables.read().expect("no holder of this lock panics").by_id.get(&id).cloned()
    }

    /// All tables in order of their names.
    pub(crate) fn all(&self) -> Vec<Arc<Table>> {
        self.tables.read().expect("no holder of this lock panics").by_name.values().cloned().collect()
    }

    /// The table `name`, made with `schema` if there is none; durable before it returns.
    pub(crate) fn get_or_create(&self, name: &TableName, schema: &TableSchema) -> Result<Arc<Table>, StorageError> {
        match self.get(name) {
            Some(table) => Ok(table),
            None => Ok(self.create(name, schema, TableOptions::default())?.0),
        }
    }

    /// As [`Catalog::get_or_create`]; tells whether it was made.
    pub(crate) fn create(
        &self,
        name: &TableName,
        schema: &TableSchema,
        options: TableOptions,
    ) -> Result<(Arc<Table>, bool), StorageError> {
        let _creating = self.creating.lock().expect("no holder of this lock panics");
        if let Some(table) = self.get(name) {
            return Ok((table, false));
        }
        for (what, part) in [("schema", &name.schema), ("table", &name.table)] {
            check_name(what, part).map_err(|e| StorageError::Invalid(e.to_string()))?;
        }
        // The server's own tables are few, and agents must not be refused for want of one.
        if self.all().len() >= TABLES_MAX && *name.schema != *SYSTEM {
            return Err(StorageError::Invalid(format!(
                "table {name} would be one too many: there are {TABLES_MAX}; put what differs into tags"
            )));
        }
        let lower = |name: &TableName| (name.schema.to_lowercase(), name.table.to_lowercase());
        if let Some(other) = self.all().iter().find(|table| lower(&table.name) == lower(name)) {
            let message = format!("table {name} differs only by case from {}, which exists; use that name", other.name);
            return Err(StorageError::Invalid(message));
        }
        let prefix = format!("{}/{}", encode(&name.schema), encode(&name.table));
        let dir = self.context.tables_dir.join(&prefix);
        let id = self.context.uuid();
        let mut log = TableLog::create(&self.context.disk, &dir)?;
        log.commit(&[
            commit_info(&self.context, "CREATE TABLE"),
            Action::Protocol(Protocol { min_reader_version: 1, min_writer_version: 2 }),
            Action::MetaData(Metadata {
                configuration: options.configuration(),
                ..metadata(&self.context, id, name, schema)
            }),
        ])?;
        let state = TableState {
            id: TableId(*id.as_bytes()),
            schema: schema.clone(),
            adds: BTreeMap::new(),
            txns: BTreeMap::new(),
        };
        let table =
            Table::new(name.clone(), prefix, &self.context, log, state).expect("an empty table has nothing to read");
        let table = Arc::new(table);
        self.tables.write().expect("no holder of this lock panics").insert(Arc::clone(&table));
        tracing::info!(table = %name, "table created");
        Ok((table, true))
    }
}

impl Tables {
    fn insert(&mut self, table: Arc<Table>) {
        self.by_id.insert(table.id, Arc::clone(&table));
        self.by_name.insert(table.name.clone(), table);
    }
}

impl Table {
    /// Commits `schema`, which has all columns of the present one, and makes it the table's. The caller holds `log`.
    pub(crate) fn commit_schema(&self, log: &mut TableLog, schema: TableSchema) -> Result<(), StorageError> {
        let id = Uuid::from_bytes(self.id.0);
        log.commit(&[
            commit_info(&self.context, "ADD COLUMN"),
            Action::MetaData(metadata(&self.context, id, &self.name, &schema)),
        ])?;
        self.state().schema = Arc::new(schema);
        Ok(())
    }
}

pub(crate) fn commit_info(context: &Context, operation: &str) -> Action {
    Action::CommitInfo(CommitInfo {
        timestamp: context.now_ms(),
        operation: operation.into(),
        operation_parameters: BTreeMap::new(),
        engine_info: Some(format!("eden/{}", env!("CARGO_PKG_VERSION"))),
    })
}

pub(crate) fn metadata(context: &Context, id: Uuid, name: &TableName, schema: &TableSchema) -> Metadata {
    Metadata {
        id: id.to_string(),
        name: Some(name.table.to_string()),
        format: Format { provider: "parquet".into(), options: BTreeMap::new() },
        schema_string: schema_to_json(schema),
        partition_columns: vec![DAY_COLUMN.into()],
        configuration: BTreeMap::new(),
        created_time: Some(context.now_ms()),
    }
}

/// Folders in `dir`; none if it does not exist.
fn folders(disk: &dyn Disk, dir: &std::path::Path) -> Result<Vec<String>, StorageError> {
    match disk.list(dir) {
        Ok(entries) => {
            Ok(entries.into_iter().filter(|e| e.kind == EntryKind::Directory).map(|entry| entry.name).collect())
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(StorageError::io("list", dir)(e)),
    }
}

/// A name as a folder: letters, digits, `_` and `-` as they are, every other byte as `!XX`. Not percent-encoded: readers
/// that take the folder's path for a URL decode it once more and find nothing (docs/adr/0009-folder-names.md).
fn encode(name: &str) -> String {
    let mut folder = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' {
            folder.push(char::from(byte));
        } else {
            folder.push_str(&format!("!{byte:02X}"));
        }
    }
    folder
}

fn decode(folder: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(folder.len());
    let mut rest = folder.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'!' {
            let (digits, tail) = tail.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = tail;
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_is_one_plain_folder() {
        for name in ["env", "a/b", "..", "°C weather", "100%", "eden_day=1", "Ünïcode"] {
            let folder = encode(name);
            assert!(folder.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-!".contains(&b)), "{folder}");
            assert_eq!(decode(&folder).as_deref(), Some(name));
        }
        assert_eq!(decode("!4"), None);
        assert_eq!(decode("!ff"), None);
    }
}
