//! Carries a change out.
//!
//! Owns:     which table and columns a statement means, the order of its steps, the rows it answers.
//! Does not: write anything: `storage` does, durably, before each step returns.
//!
//! `DELETE` and `UPDATE` see the rows of one snapshot and remove or write those by key, one portion after the other. A row that is written while they run may go with its new values, or stay; nothing is removed that the
//! condition did not find.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::{filter_record_batch, is_null};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{Expr, Ident, ObjectName};
use futures::StreamExt;
use model::{Removal, TableBatch, TableName};
use storage::{Column, ColumnKind, PendingWrite, Storage, StorageError, TableInfo, TableSchema};

use super::create::TIME;
use super::insert::NewRows;
use super::keys::Keys;
use super::readings::Readings;
use super::remove::Target;
use super::{Alteration, Change, NewField, NewTable, options};
use crate::catalog::Tables;
use crate::error::QueryError;
use crate::names;
use crate::resolve;
use crate::rows::Reply;
use crate::run::Run;

/// Whom storage is told removals come from.
const SOURCE: &str = "sql";

/// How often a portion is tried again while storage has no room, each time after the wait that storage asks for.
const BUSY_TRIES_MAX: usize = 6;

impl Run<'_> {
    /// Carries `change` out and answers.
    pub(crate) async fn change(
        &self,
        change: Change,
        tables: Tables,
        schema: &str,
        reply: &mut Reply,
    ) -> Result<(), QueryError> {
        let tag = change.tag();
        self.progress.name(tag);
        let rows = match change {
            Change::CreateTable { name, if_not_exists, table } => {
                Some(self.create(&name, if_not_exists, table, &tables, schema).await?)
            }
            Change::AlterTable { name, if_exists, alteration } => {
                self.alter(&name, if_exists, alteration, &tables, schema).await?
            }
            Change::ResetOptions { name, if_exists, keys } => {
                let alteration = Alteration::Options(options::reset(&keys)?);
                self.alter(&name, if_exists, alteration, &tables, schema).await?
            }
            Change::DropTable { name, if_exists } => Some(self.drop_table(&name, if_exists, &tables, schema).await?),
            Change::Optimize(names) => Some(self.optimize(&names, &tables, schema).await?),
            Change::Insert(rows) => Some(self.insert(rows, tables, schema).await?),
            Change::SetFields { target, assignments } => {
                Some(self.set_fields(target, assignments, tables, schema).await?)
            }
            Change::DeleteRows(target) => Some(self.remove(target, None, tables, schema).await?),
            Change::RemoveFields { target, columns } => Some(self.remove(target, Some(columns), tables, schema).await?),
        };
        reply.done(tag, rows);
        Ok(())
    }

    async fn create(
        &self,
        name: &ObjectName,
        if_not_exists: bool,
        table: NewTable,
        tables: &Tables,
        schema: &str,
    ) -> Result<u64, QueryError> {
        let name = resolve::new_table(name, tables, schema)?;
        let is_there = || match if_not_exists {
            true => Ok(0),
            false => Err(QueryError::TableExists { name: crate::catalog::spelled(&name.schema, &name.table) }),
        };
        if tables.get(&name.schema, &name.table).is_some() {
            return is_there();
        }
        let (storage, wanted) = (Arc::clone(&self.shared.storage), name.clone());
        let columns = TableSchema::new(&table.tags, &table.fields);
        // False if somebody was faster.
        match self.storing(move || storage.create_table(&wanted, &columns, table.options)).await? {
            true => Ok(1),
            false => is_there(),
        }
    }

    async fn alter(
        &self,
        name: &ObjectName,
        if_exists: bool,
        alteration: Alteration,
        tables: &Tables,
        schema: &str,
    ) -> Result<Option<u64>, QueryError> {
        let Some(info) = existing(name, if_exists, tables, schema)? else { return Ok(Some(0)) };
        let (storage, name) = (Arc::clone(&self.shared.storage), info.name.clone());
        match alteration {
            Alteration::Options(options) => self.storing(move || storage.set_options(&name, options)).await?,
            Alteration::AddFields(fields) => {
                let fields = missing(fields, info)?;
                if !fields.is_empty() {
                    let fields: Vec<_> = fields.into_iter().map(|field| (field.name, field.field_type)).collect();
                    self.storing(move || storage.add_columns(&name, &[], &fields)).await?;
                }
            }
            Alteration::ChangeType { column, to } => {
                let column = field(&column, info, "changes its type")?;
                self.storing(move || storage.alter_column(&name, &column, to)).await?;
            }
        }
        Ok(None)
    }

    async fn drop_table(
        &self,
        name: &ObjectName,
        if_exists: bool,
        tables: &Tables,
        schema: &str,
    ) -> Result<u64, QueryError> {
        let Some(info) = existing(name, if_exists, tables, schema)? else { return Ok(0) };
        let (storage, name) = (Arc::clone(&self.shared.storage), info.name.clone());
        match self.storing(move || storage.drop_table(&name)).await? {
            true => Ok(1),
            // Somebody else was faster.
            false if if_exists => Ok(0),
            false => Err(resolve::unknown_table(&info.name, tables)),
        }
    }

    async fn optimize(&self, names: &[ObjectName], tables: &Tables, schema: &str) -> Result<u64, QueryError> {
        let mut wanted: Vec<TableName> = names
            .iter()
            .map(|name| resolve::changeable(name, tables, schema).map(|info| info.name.clone()))
            .collect::<Result<_, _>>()?;
        wanted.sort();
        wanted.dedup();
        let optimized = wanted.len() as u64;
        for name in wanted {
            let storage = Arc::clone(&self.shared.storage);
            self.storing(move || storage.compact(&name)).await?;
        }
        Ok(optimized)
    }

    /// Removes the rows that `target` means, or only some columns of them; gives their number.
    async fn remove(
        &self,
        target: Target,
        columns: Option<Vec<Ident>>,
        tables: Tables,
        schema: &str,
    ) -> Result<u64, QueryError> {
        let info = resolve::changeable(&target.name, &tables, schema)?;
        let name = info.name.clone();
        let tags: Vec<Arc<str>> = columns_of(info, ColumnKind::Tag).collect();
        let fields = columns.map(|columns| changed_fields(&columns, info)).transpose()?;
        let query = target.query(&tags, fields.as_deref().unwrap_or_default(), Vec::new());
        let mut batches = self.open(DfStatement::Statement(Box::new(query)), tables, schema).await?;
        let mut keys = Keys::new(name, tags, fields);
        while let Some(batch) = self.next_rows(&mut batches).await? {
            let portions = keys.add(&batch).map_err(|e| QueryError::Internal(e.to_string()))?;
            for portion in portions {
                self.remove_portion(portion).await?;
            }
        }
        if let Some(portion) = keys.take() {
            self.remove_portion(portion).await?;
        }
        Ok(self.progress.rows_done())
    }

    async fn remove_portion(&self, portion: Removal) -> Result<(), QueryError> {
        let rows = portion.times_us.len();
        self.portion(rows, move |storage| storage.remove(portion.clone(), SOURCE)).await
    }

    /// Hands storage a portion of `rows` rows, again while it has no room, and waits until it is durable.
    async fn portion(
        &self,
        rows: usize,
        hand_over: impl Fn(&Storage) -> Result<PendingWrite, StorageError> + Send + Sync + 'static,
    ) -> Result<(), QueryError> {
        let hand_over = Arc::new(hand_over);
        let mut tries = 0;
        let pending = loop {
            let (storage, hand_over) = (Arc::clone(&self.shared.storage), Arc::clone(&hand_over));
            self.progress.begin_rows(rows);
            match self.blocking(move || hand_over(&storage)).await {
                Ok(pending) => break pending,
                Err(QueryError::Storage(StorageError::Busy { retry_after, .. })) if tries < BUSY_TRIES_MAX => {
                    tries += 1;
                    #[expect(clippy::disallowed_methods, reason = "storage says how long, and the limit is around it")]
                    tokio::time::sleep(retry_after).await;
                    // What it may have taken of the portion all the same, the next try does again.
                    self.progress.take_back(rows);
                }
                Err(error) => {
                    if matches!(error, QueryError::Plan(_)) {
                        // Refused as it is: nothing of it was taken.
                        self.progress.take_back(rows);
                    }
                    return Err(error);
                }
            }
        };
        pending.durable().await.map_err(QueryError::storage)?;
        self.progress.rows_done();
        Ok(())
    }

    /// Writes the rows that a query gives; their number.
    async fn insert(&self, rows: NewRows, tables: Tables, schema: &str) -> Result<u64, QueryError> {
        let info = resolve::changeable(&rows.table, &tables, schema)?;
        let name = info.name.clone();
        let columns = rows.columns_of(info)?;
        let query = rows.query(&columns)?;
        let mut readings = Readings::new(name, columns, self.shared.storage.now_us());
        let mut batches = self.open(DfStatement::Statement(Box::new(query)), tables, schema).await?;
        while let Some(batch) = self.next_rows(&mut batches).await? {
            for portion in readings.add(&batch)? {
                self.write_portion(portion).await?;
            }
        }
        if let Some(portion) = readings.take() {
            self.write_portion(portion).await?;
        }
        Ok(self.progress.rows_done())
    }

    /// The next rows of the query that a change is made of.
    async fn next_rows(&self, batches: &mut SendableRecordBatchStream) -> Result<Option<RecordBatch>, QueryError> {
        match batches.next().await.transpose() {
            Ok(batch) => Ok(batch),
            Err(error) => Err(self.explain(error).await),
        }
    }

    async fn write_portion(&self, portion: TableBatch) -> Result<(), QueryError> {
        let rows = portion.len();
        self.portion(rows, move |storage| storage.write_whole(portion.clone(), SOURCE)).await
    }

    /// Writes the rows that `target` means anew, with other values; where a value is NULL, the field goes. Gives the
    /// number of rows.
    async fn set_fields(
        &self,
        target: Target,
        assignments: Vec<(Ident, Expr)>,
        tables: Tables,
        schema: &str,
    ) -> Result<u64, QueryError> {
        let info = resolve::changeable(&target.name, &tables, schema)?;
        let name = info.name.clone();
        let (columns, values): (Vec<Ident>, Vec<Expr>) = assignments.into_iter().unzip();
        let fields = changed_fields(&columns, info)?;
        let tags: Vec<Arc<str>> = columns_of(info, ColumnKind::Tag).collect();
        let key: Vec<&str> = tags.iter().map(|tag| &**tag).chain([TIME]).collect();
        let columns: Vec<Column> = key
            .iter()
            .copied()
            .chain(fields.iter().map(|field| &**field))
            .filter_map(|name| info.schema.column(name))
            .cloned()
            .collect();
        let query = target.query(&tags, &[], fields.iter().cloned().zip(values).collect());
        let mut readings = Readings::new(name.clone(), columns, self.shared.storage.now_us());
        let of_key: Vec<usize> = (0..key.len()).collect();
        let mut batches = self.open(DfStatement::Statement(Box::new(query)), tables, schema).await?;
        while let Some(batch) = self.next_rows(&mut batches).await? {
            let mut portions = readings.add(&batch)?;
            portions.extend(readings.take());
            for portion in portions {
                self.write_portion(portion).await?;
            }
            // What is set to NULL is removed, and no row counts twice for it.
            for (i, field) in fields.iter().enumerate() {
                let Some(rows) = rows_without(&batch, key.len() + i, &of_key)? else { continue };
                let mut keys = Keys::new(name.clone(), tags.clone(), Some(vec![Arc::clone(field)]));
                let mut portions = keys.add(&rows).map_err(|e| QueryError::Internal(e.to_string()))?;
                portions.extend(keys.take());
                for portion in portions {
                    let rows = portion.times_us.len();
                    self.remove_portion(portion).await?;
                    self.progress.take_back(rows);
                }
            }
        }
        Ok(self.progress.rows_done())
    }

    /// Calls into storage for a change that goes on there if the statement ends before.
    async fn storing<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, QueryError> {
        self.progress.set_busy(true);
        let outcome = self.blocking(work).await;
        self.progress.set_busy(false);
        outcome
    }
}

/// The table `name`, or `None` if it need not exist and does not.
fn existing<'a>(
    name: &ObjectName,
    if_exists: bool,
    tables: &'a Tables,
    schema: &str,
) -> Result<Option<&'a TableInfo>, QueryError> {
    match resolve::changeable(name, tables, schema) {
        Ok(info) => Ok(Some(info)),
        Err(QueryError::UnknownTable { .. } | QueryError::UnknownSchema { .. }) if if_exists => Ok(None),
        Err(error) => Err(error),
    }
}

fn columns_of(info: &TableInfo, kind: ColumnKind) -> impl Iterator<Item = Arc<str>> {
    info.schema.columns().iter().filter(move |column| column.kind == kind).map(|column| Arc::clone(&column.name))
}

/// The field that `column` means; `what` is what only fields do.
fn field(column: &Ident, info: &TableInfo, what: &str) -> Result<Arc<str>, QueryError> {
    let found = resolve::column(column, info)?;
    match found.kind {
        ColumnKind::Field(_) => Ok(Arc::clone(&found.name)),
        ColumnKind::Tag | ColumnKind::Time => Err(QueryError::Plan(format!(
            "column {} is part of the rows' key, and only a field {what}; DELETE removes rows",
            names::quoted(&found.name)
        ))),
    }
}

fn changed_fields(columns: &[Ident], info: &TableInfo) -> Result<Vec<Arc<str>>, QueryError> {
    let mut fields = Vec::new();
    let mut seen = HashSet::new();
    for column in columns {
        let field = field(column, info, "can be set")?;
        if !seen.insert(Arc::clone(&field)) {
            return Err(QueryError::Plan(format!("column {} is set twice", names::quoted(&field))));
        }
        fields.push(field);
    }
    Ok(fields)
}

/// The columns `of_key` of the rows that have no value in column `place`, if there are any.
fn rows_without(batch: &RecordBatch, place: usize, of_key: &[usize]) -> Result<Option<RecordBatch>, QueryError> {
    let absent = is_null(batch.column(place)).and_then(|absent| {
        let keys = batch.project(of_key)?;
        if absent.true_count() == 0 { Ok(None) } else { filter_record_batch(&keys, &absent).map(Some) }
    });
    absent.map_err(|error| QueryError::Internal(error.to_string()))
}

/// The fields that the table does not have yet.
fn missing(fields: Vec<NewField>, info: &TableInfo) -> Result<Vec<NewField>, QueryError> {
    // Delta's readers do not tell names apart by case, so neither may a table.
    let mut known: HashSet<String> = info.schema.columns().iter().map(|column| column.name.to_lowercase()).collect();
    let mut missing = Vec::new();
    for field in fields {
        if known.insert(field.name.to_lowercase()) {
            missing.push(field);
        } else if !field.if_not_exists {
            return Err(QueryError::Plan(format!(
                "column {} exists in table {}, or stands there twice; names may not differ by case only",
                names::quoted(&field.name),
                crate::catalog::spelled(&info.name.schema, &info.name.table)
            )));
        }
    }
    Ok(missing)
}
