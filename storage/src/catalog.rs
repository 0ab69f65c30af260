//! The tables of a data folder: finding them at start, making new ones.
//!
//! Owns:     names and folders; version 0 of a table; which tables were dropped and still have a folder.
//! Does not: change a table's columns (`admit`) or rows, or take folders away (`maintain`).
//!
//! A dropped table's folder stays until vacuum takes it. Its id is known as long, so that replay tells rows of a dropped
//! table from rows that are lost; a new table of its name gets the folder `<name>!!<first 8 hex digits of its id>`.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use model::name::check_name;
use model::{TableId, TableName};
use uuid::Uuid;
use wal::disk::{Disk, EntryKind};

use crate::context::Context;
use crate::delta::{
    Action, CommitInfo, DAY_COLUMN, Format, LogFiles, Metadata, Protocol, TableLog, TableState, schema_to_json,
};
use crate::options::Properties;
use crate::table::{Fate, Table};
use crate::{StorageError, TableOptions, TableSchema};

/// The schema whose tables only the server itself writes.
pub(crate) const SYSTEM: &str = "system";

/// Tables of a data folder. Each takes memory and a log of its own, so their number has a limit (P10).
pub(crate) const TABLES_MAX: usize = 10_000;

/// Stands in a folder's name before the id of a table that was made while a dropped one had the plain name. No name gives
/// it (docs/adr/0009-folder-names.md).
const DROPPED_BEFORE: &str = "!!";

/// See the module.
#[derive(Debug)]
pub(crate) struct Catalog {
    context: Arc<Context>,
    tables: RwLock<Tables>,
    /// Held while a table is made, so that it is made once.
    creating: Mutex<()>,
    /// Tables whose log cannot be read, as they were found at start.
    damaged: BTreeMap<TableName, DamagedTable>,
    /// The oldest frame that a damaged table may need; `u64::MAX` if none.
    held: AtomicU64,
}

/// A table that cannot be used because its Delta log is damaged (P3). The others can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedTable {
    /// Its name.
    pub name: TableName,
    /// The file that is damaged.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

impl DamagedTable {
    fn error(&self) -> StorageError {
        let reason = format!(
            "{}; table {} cannot be used until the server is stopped and `eden repair` was run",
            self.reason, self.name
        );
        StorageError::Corrupt { path: self.path.clone(), reason }
    }
}

#[derive(Debug, Default)]
struct Tables {
    by_name: BTreeMap<TableName, Arc<Table>>,
    by_id: HashMap<TableId, Arc<Table>>,
    dropped: Vec<Dropped>,
}

/// A table that was dropped and still has a folder.
#[derive(Debug)]
pub(crate) struct Dropped {
    pub(crate) id: TableId,
    /// Location below `DATA/tables`.
    pub(crate) prefix: String,
    /// When, by the wall clock of the server that dropped it.
    pub(crate) at_ms: i64,
    /// When this process came to know, by its monotonic clock.
    pub(crate) since: Duration,
    pub(crate) in_this_life: bool,
    /// Kept until nothing else has it: until then its rows may still be on their way to the log.
    pub(crate) table: Option<Arc<Table>>,
    /// Offset below which all its rows in the log are, once that is known.
    pub(crate) log_end: Option<u64>,
    /// Whether its data files are gone.
    pub(crate) is_empty: bool,
}

impl Catalog {
    /// Reads every table's log. One that is damaged is set apart and does not keep the others from being used.
    pub(crate) fn load(context: Arc<Context>) -> Result<Catalog, StorageError> {
        let mut tables = Tables::default();
        let mut damaged = BTreeMap::new();
        sync_if_there(&*context.disk, &context.tables_dir)?;
        for folder in table_folders(&*context.disk, &context.tables_dir)? {
            let Some(name) = folder.name else {
                tracing::error!(path = %folder.dir.display(), "a folder whose name is not one that a table gets; it is left alone");
                continue;
            };
            // An earlier life may have been killed before it had synced the names of new folders: see `TableLog::load`.
            sync_if_there(&*context.disk, folder.dir.parent().expect("a table's folder is in a schema's"))?;
            let loaded = TableLog::load(&context.disk, &folder.dir).and_then(|loaded| {
                let Some((log, state)) = loaded else { return Ok(None) };
                if let Some(at_ms) = state.properties.dropped_ms() {
                    tables.dropped.push(Dropped {
                        id: state.id,
                        prefix: folder.prefix.clone(),
                        at_ms,
                        since: context.clock.monotonic(),
                        in_this_life: false,
                        table: None,
                        log_end: None,
                        is_empty: false,
                    });
                    return Ok(None);
                }
                context.check_epoch(&state.txns)?;
                let corrupt = |reason| StorageError::Corrupt { path: folder.dir.join("_delta_log"), reason };
                if let Some(other) = tables.by_name.get(&name) {
                    let other = other.dir.display();
                    return Err(corrupt(format!("{other} is table {name} too; move one of them away")));
                }
                Table::new(name.clone(), folder.prefix.clone(), &context, log, state).map(Some).map_err(corrupt)
            });
            let (path, reason) = match loaded {
                Ok(Some(table)) => {
                    tables.insert(Arc::new(table));
                    continue;
                }
                Ok(None) => continue,
                Err(StorageError::Corrupt { path, reason }) => (path, reason),
                Err(StorageError::Io { path, source, .. }) if is_bad_sector(&source) => {
                    (path, format!("it cannot be read: {source}"))
                }
                Err(e) => return Err(e),
            };
            tracing::error!(table = %name, path = %path.display(), reason,
                "a table's log is damaged: it cannot be used until the server is stopped and `eden repair` was run");
            damaged.insert(name.clone(), DamagedTable { name, path, reason });
        }
        // Of two folders of one name nobody can say which is the table: neither is used.
        for name in damaged.keys() {
            if let Some(table) = tables.by_name.remove(name) {
                tables.by_id.remove(&table.id);
            }
        }
        let (tables, creating, held) = (RwLock::new(tables), Mutex::new(()), AtomicU64::new(u64::MAX));
        Ok(Catalog { context, tables, creating, damaged, held })
    }

    /// The table `name`, if it is damaged.
    pub(crate) fn damaged(&self, name: &TableName) -> Option<&DamagedTable> {
        self.damaged.get(name)
    }

    /// # Errors
    /// If the table `name` is damaged: says which file, and what to do.
    pub(crate) fn check_whole(&self, name: &TableName) -> Result<(), StorageError> {
        self.damaged(name).map_or(Ok(()), |damaged| Err(damaged.error()))
    }

    /// All tables that are damaged, in order of their names.
    pub(crate) fn all_damaged(&self) -> impl ExactSizeIterator<Item = &DamagedTable> {
        self.damaged.values()
    }

    /// The log is needed from `offset` on by a damaged table.
    pub(crate) fn hold(&self, offset: u64) {
        self.held.fetch_min(offset, Ordering::SeqCst);
    }

    /// From where on damaged tables need the log.
    pub(crate) fn held(&self) -> Option<u64> {
        Some(self.held.load(Ordering::SeqCst)).filter(|offset| *offset < u64::MAX)
    }

    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    pub(crate) fn get(&self, name: &TableName) -> Option<Arc<Table>> {
        let table = self.tables.read().expect("no holder of this lock panics").by_name.get(name).cloned();
        // One that another node has dropped is still known, for its rows in the log.
        table.filter(|table| !self.context.is_common() || !table.is_dropped())
    }

    /// As [`Catalog::get`], also of a table that another node has made. Blocks.
    ///
    /// # Errors
    /// If its log cannot be read.
    pub(crate) fn find(&self, name: &TableName) -> Result<Option<Arc<Table>>, StorageError> {
        match self.get(name) {
            None if self.context.is_common() => {
                let _creating = self.creating.lock().expect("no holder of this lock panics");
                self.find_of_others(name)
            }
            found => Ok(found),
        }
    }

    /// The table `name`, if it is there in the folder. The caller holds `creating`.
    fn find_of_others(&self, name: &TableName) -> Result<Option<Arc<Table>>, StorageError> {
        let is_known = self.tables.read().expect("no holder of this lock panics").by_name.contains_key(name);
        let prefix = format!("{}/{}", encode(&name.schema), encode(&name.table));
        if is_known || self.dropped().iter().any(|dropped| dropped.prefix == prefix) {
            return Ok(self.get(name));
        }
        let dir = self.context.tables_dir.join(&prefix);
        let Some((log, state)) = TableLog::load(&self.context.disk, &dir)? else { return Ok(None) };
        if state.properties.dropped_ms().is_some() {
            return Ok(None);
        }
        self.context.check_epoch(&state.txns)?;
        let corrupt = |reason| StorageError::Corrupt { path: dir.join("_delta_log"), reason };
        let table = Table::new(name.clone(), prefix, &self.context, log, state).map_err(corrupt)?;
        self.context.among_nodes.see(table.newest_position());
        let table = Arc::new(table);
        self.tables.write().expect("no holder of this lock panics").insert(Arc::clone(&table));
        tracing::info!(table = %name, "found a table of another node");
        Ok(Some(table))
    }

    pub(crate) fn by_id(&self, id: TableId) -> Option<Arc<Table>> {
        self.tables.read().expect("no holder of this lock panics").by_id.get(&id).cloned()
    }

    /// All tables in order of their names.
    pub(crate) fn all(&self) -> Vec<Arc<Table>> {
        self.tables.read().expect("no holder of this lock panics").by_name.values().cloned().collect()
    }

    /// Whether a table of that id was dropped and has still a folder.
    pub(crate) fn was_dropped(&self, id: TableId) -> bool {
        self.tables.read().expect("no holder of this lock panics").dropped.iter().any(|dropped| dropped.id == id)
    }

    /// The dropped tables that have still a folder, without the tables themselves: who has those is counted.
    pub(crate) fn dropped(&self) -> Vec<Dropped> {
        let tables = self.tables.read().expect("no holder of this lock panics");
        let without_table =
            |dropped: &Dropped| Dropped { id: dropped.id, prefix: dropped.prefix.clone(), table: None, ..*dropped };
        tables.dropped.iter().map(without_table).collect()
    }

    /// Changes what is known of a dropped table; forgets it if `change` returns false.
    pub(crate) fn change_dropped(&self, id: TableId, change: impl Fn(&mut Dropped) -> bool) {
        let mut tables = self.tables.write().expect("no holder of this lock panics");
        tables.dropped.retain_mut(|dropped| dropped.id != id || change(dropped));
    }

    /// Takes note that rows of the tables that earlier lives dropped are in the log before `offset` only.
    pub(crate) fn know_log_end(&self, offset: u64) {
        let mut tables = self.tables.write().expect("no holder of this lock panics");
        tables.dropped.iter_mut().for_each(|dropped| dropped.log_end = Some(offset));
    }

    /// Drops a table: when this returns true, it is gone for every reader, in one commit. False if it was gone before.
    ///
    /// # Errors
    /// The table is as it was, unless its log is poisoned: then it takes no rows until a restart tells.
    pub(crate) fn drop_table(&self, table: &Arc<Table>) -> Result<bool, StorageError> {
        let now_ms = self.context.now_ms();
        if !table.until_first(|| table.drop_rows(now_ms))? {
            return Ok(false);
        }
        let mut tables = self.tables.write().expect("no holder of this lock panics");
        tables.by_id.remove(&table.id);
        tables.by_name.remove(&table.name);
        tables.dropped.push(Dropped {
            id: table.id,
            prefix: table.prefix.clone(),
            at_ms: now_ms,
            since: self.context.clock.monotonic(),
            in_this_life: true,
            table: Some(Arc::clone(table)),
            log_end: None,
            is_empty: false,
        });
        tracing::info!(table = %table.name, "table dropped");
        Ok(true)
    }

    /// The table `name`, made with `schema` if there is none; durable before it returns.
    pub(crate) fn get_or_create(&self, name: &TableName, schema: &TableSchema) -> Result<Arc<Table>, StorageError> {
        match self.get(name) {
            Some(table) => Ok(table),
            None => Ok(self.create(name, schema, TableOptions::default())?.0),
        }
    }

    /// Among several nodes: whether there was a table of that name. Two of them might else make it again in two folders.
    fn is_name_used_up(&self, name: &TableName) -> Result<bool, StorageError> {
        let is_known = self.tables.read().expect("no holder of this lock panics").by_name.contains_key(name);
        let plain = format!("{}/{}", encode(&name.schema), encode(&name.table));
        let was_dropped = self.dropped().iter().any(|dropped| dropped.prefix == plain);
        let dir = self.context.tables_dir.join(&plain);
        Ok(is_known || was_dropped || LogFiles::list(&*self.context.disk, &dir)?.is_some())
    }

    /// As [`Catalog::get_or_create`]; tells whether it was made.
    pub(crate) fn create(
        &self,
        name: &TableName,
        schema: &TableSchema,
        options: TableOptions,
    ) -> Result<(Arc<Table>, bool), StorageError> {
        self.check_whole(name)?;
        let _creating = self.creating.lock().expect("no holder of this lock panics");
        if let Some(table) = self.get(name) {
            return Ok((table, false));
        }
        // Asked first: what another node makes from now on is found, or met at the commit.
        let is_used_up = self.context.is_common() && self.is_name_used_up(name)?;
        if self.context.is_common()
            && let Some(table) = self.find_of_others(name)?
        {
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
        if is_used_up {
            return Err(StorageError::Invalid(format!(
                "table {name} was dropped, and among several nodes a name is not used again; use another one"
            )));
        }
        let lower = |name: &TableName| (name.schema.to_lowercase(), name.table.to_lowercase());
        let tables = self.all();
        let mut names = tables.iter().map(|table| &table.name).chain(self.damaged.keys());
        if let Some(other) = names.find(|other| lower(other) == lower(name)) {
            let message = format!("table {name} differs only by case from {other}, which exists; use that name");
            return Err(StorageError::Invalid(message));
        }
        let id = self.context.uuid();
        let mut prefix = format!("{}/{}", encode(&name.schema), encode(&name.table));
        if self.dropped().iter().any(|dropped| dropped.prefix == prefix) {
            prefix = format!("{prefix}{DROPPED_BEFORE}{}", &id.simple().to_string()[..8]);
        }
        let dir = self.context.tables_dir.join(&prefix);
        let properties = Properties::new(options, self.context.now_ms());
        let mut log = TableLog::create(&self.context.disk, &dir)?;
        let committed = log.commit(&[
            commit_info(&self.context, "CREATE TABLE"),
            protocol(),
            Action::MetaData(metadata(id, name, schema, &properties)),
        ]);
        if committed.as_ref().is_err_and(StorageError::is_version_taken) {
            let table = self.find_of_others(name)?;
            return table.map(|table| (table, false)).ok_or_else(|| {
                StorageError::Invalid(format!("table {name} was made and dropped by another node just now"))
            });
        }
        let table = match committed {
            Ok(_) => {
                let state = TableState {
                    id: TableId(*id.as_bytes()),
                    schema: schema.clone(),
                    adds: BTreeMap::new(),
                    txns: BTreeMap::new(),
                    properties,
                };
                Table::new(name.clone(), prefix, &self.context, log, state).expect("an empty table has nothing to read")
            }
            Err(e) => self.made_before(name, &prefix, e)?,
        };
        let table = Arc::new(table);
        self.tables.write().expect("no holder of this lock panics").insert(Arc::clone(&table));
        tracing::info!(table = %name, "table created");
        Ok((table, true))
    }

    /// The table that is in the way of a new one: the store had it made when it did not answer.
    fn made_before(&self, name: &TableName, prefix: &str, error: StorageError) -> Result<Table, StorageError> {
        let is_taken = |e: &io::Error| e.kind() == io::ErrorKind::AlreadyExists && self.context.disk.is_remote();
        if !matches!(&error, StorageError::Io { source, .. } if is_taken(source)) {
            return Err(error);
        }
        let dir = self.context.tables_dir.join(prefix);
        let Some((log, state)) = TableLog::load(&self.context.disk, &dir)? else { return Err(error) };
        if state.properties.dropped_ms().is_some() {
            return Err(error);
        }
        let corrupt = |reason| StorageError::Corrupt { path: dir.join("_delta_log"), reason };
        Table::new(name.clone(), prefix.to_owned(), &self.context, log, state).map_err(corrupt)
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
        self.check_live()?;
        let metadata = self.metadata(&schema, &self.properties());
        log.commit(&[commit_info(&self.context, "ADD COLUMN"), metadata])?;
        self.state().schema = Arc::new(schema);
        Ok(())
    }

    /// Commits `options` and makes them the table's.
    pub(crate) fn set_options(&self, options: TableOptions) -> Result<(), StorageError> {
        self.until_first(|| {
            let mut log = self.log.lock().expect("no holder of this lock panics");
            self.check_live()?;
            let properties = self.properties().with(options);
            let metadata = self.metadata(&self.schema(), &properties);
            log.commit(&[commit_info(&self.context, "SET TBLPROPERTIES"), metadata])?;
            self.state().properties = properties;
            Ok(())
        })
    }

    /// Takes all rows out of the table, in shards and in memory, and marks it as dropped, in one commit. Returns false
    /// if that was done before.
    fn drop_rows(&self, now_ms: i64) -> Result<bool, StorageError> {
        let _one = self.flushing.lock().expect("no holder of this lock panics");
        let _resolving = self.resolving.lock().expect("no holder of this lock panics");
        let mut log = self.log.lock().expect("no holder of this lock panics");
        let paths: Vec<(i32, String, u64)> = {
            let mut state = self.state();
            match state.fate {
                Fate::Live => state.fate = Fate::Dropping,
                // Another drop that is under way has the lock of the log.
                Fate::Dropping | Fate::Unknown => return Err(StorageError::Poisoned),
                Fate::Dropped => return Ok(false),
            }
            let shards = state.partitions.values().flat_map(|partition| &partition.shards);
            shards.map(|shard| (shard.day, shard.path.clone(), shard.bytes)).collect()
        };
        let properties = self.properties().dropped(now_ms);
        // With all that is needed to know, without the commits before it, that there was a table and is none.
        let mut actions =
            vec![commit_info(&self.context, "DROP TABLE"), protocol(), self.metadata(&self.schema(), &properties)];
        actions.extend(paths.iter().map(|(day, path, bytes)| self.remove_action(*day, path, *bytes, true)));
        if let Err(e) = log.commit(&actions) {
            // If it may stand all the same, a row that is acknowledged now could be gone after a restart.
            let may_stand = log.is_uncertain() && !matches!(e, StorageError::Busy { .. });
            self.state().fate = if may_stand { Fate::Unknown } else { Fate::Live };
            return Err(e);
        }
        let (gone, freed) = {
            let mut state = self.state();
            state.fate = Fate::Dropped;
            state.properties = properties;
            state.sealed_to = None;
            state.live_since = None;
            let freed = std::mem::take(&mut state.live_bytes) + std::mem::take(&mut state.sealed_bytes);
            (std::mem::take(&mut state.partitions), freed)
        };
        paths.iter().for_each(|(_, path, _)| self.context.indexes.forget(path));
        drop(gone);
        self.context.memory.free(freed);
        Ok(true)
    }

    fn metadata(&self, schema: &TableSchema, properties: &Properties) -> Action {
        Action::MetaData(metadata(Uuid::from_bytes(self.id.0), &self.name, schema, properties))
    }
}

fn protocol() -> Action {
    Action::Protocol(Protocol { min_reader_version: 1, min_writer_version: 2 })
}

pub(crate) fn commit_info(context: &Context, operation: &str) -> Action {
    Action::CommitInfo(CommitInfo {
        timestamp: context.now_ms(),
        operation: operation.into(),
        operation_parameters: BTreeMap::new(),
        engine_info: Some(format!("eden/{}", env!("CARGO_PKG_VERSION"))),
    })
}

pub(crate) fn metadata(id: Uuid, name: &TableName, schema: &TableSchema, properties: &Properties) -> Metadata {
    Metadata {
        id: id.to_string(),
        name: Some(name.table.to_string()),
        format: Format { provider: "parquet".into(), options: BTreeMap::new() },
        schema_string: schema_to_json(schema),
        partition_columns: vec![DAY_COLUMN.into()],
        configuration: properties.configuration.clone(),
        created_time: properties.created_ms,
    }
}

fn sync_if_there(disk: &dyn Disk, dir: &Path) -> Result<(), StorageError> {
    match disk.sync_dir(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StorageError::io("sync", dir)(e)),
        _ => Ok(()),
    }
}

/// The folder of a table.
pub(crate) struct TableFolder {
    /// `None` if it is none that a table's name makes.
    pub(crate) name: Option<TableName>,
    /// Its location below `DATA/tables`.
    pub(crate) prefix: String,
    pub(crate) dir: PathBuf,
}

/// The folders of all tables, dropped ones included, in order.
pub(crate) fn table_folders(disk: &dyn Disk, root: &Path) -> Result<Vec<TableFolder>, StorageError> {
    let mut found = Vec::new();
    for schema in folders(disk, root)? {
        for table in folders(disk, &root.join(&schema))? {
            let plain = table.split_once(DROPPED_BEFORE).map_or(&*table, |(plain, _id)| plain);
            let name = decode(&schema).zip(decode(plain)).map(|(schema, table)| TableName::new(&schema, &table));
            found.push(TableFolder { name, prefix: format!("{schema}/{table}"), dir: root.join(&schema).join(&table) });
        }
    }
    Ok(found)
}

/// Whether the disk said that it cannot give what was written there.
fn is_bad_sector(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

/// Folders in `dir`; none if it does not exist. Those that begin with a dot are on their way to be deleted.
fn folders(disk: &dyn Disk, dir: &Path) -> Result<Vec<String>, StorageError> {
    match disk.list(dir) {
        Ok(entries) => {
            let folders = entries.into_iter().filter(|e| e.kind == EntryKind::Directory && !e.name.starts_with('.'));
            Ok(folders.map(|entry| entry.name).collect())
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
