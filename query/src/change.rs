//! The statements that change tables: `CREATE`, `ALTER`, `DROP` and `OPTIMIZE TABLE`, `INSERT`, `UPDATE`, `DELETE`.
//!
//! Owns:     what each of them may say; carrying them out through `storage`.
//! Does not: parse SQL (`statement` does), or change a byte itself.
//!
//! Invariant: whatever a statement says that is not carried out is refused. No clause is passed over.

mod alter;
mod apply;
mod create;
mod insert;
mod keys;
mod options;
mod progress;
mod readings;
mod remove;
mod types;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast::{Expr, Ident, ObjectName, ObjectType, Statement as Ast};
use model::FieldType;
use storage::TableOptions;

use crate::catalog::Tables;
use crate::error::QueryError;
use crate::{parameters, resolve};

pub(crate) use alter::parse_reset;
use insert::NewRows;
pub(crate) use progress::Progress;
use remove::Target;

/// A statement that changes something.
#[derive(Debug)]
pub(crate) enum Change {
    CreateTable {
        name: ObjectName,
        if_not_exists: bool,
        table: NewTable,
    },
    AlterTable {
        name: ObjectName,
        if_exists: bool,
        alteration: Alteration,
    },
    ResetOptions {
        name: ObjectName,
        if_exists: bool,
        keys: Vec<Ident>,
    },
    DropTable {
        name: ObjectName,
        if_exists: bool,
    },
    Optimize(Vec<ObjectName>),
    Insert(NewRows),
    DeleteRows(Target),
    /// Fields set to NULL, and no other.
    RemoveFields {
        target: Target,
        columns: Vec<Ident>,
    },
    /// Fields set to what expressions say, NULL or not.
    SetFields {
        target: Target,
        assignments: Vec<(Ident, Expr)>,
    },
}

/// What a new table has.
#[derive(Debug)]
pub(crate) struct NewTable {
    tags: Vec<Arc<str>>,
    fields: Vec<(Arc<str>, FieldType)>,
    options: TableOptions,
}

/// What of a table is changed.
#[derive(Debug)]
pub(crate) enum Alteration {
    Options(TableOptions),
    AddFields(Vec<NewField>),
    ChangeType { column: Ident, to: FieldType },
}

/// A field that a table gets.
#[derive(Debug)]
pub(crate) struct NewField {
    name: Arc<str>,
    field_type: FieldType,
    if_not_exists: bool,
}

impl Change {
    /// The statement's name, as answers and errors say it.
    pub(crate) fn tag(&self) -> &'static str {
        match self {
            Change::CreateTable { .. } => "CREATE TABLE",
            Change::AlterTable { .. } | Change::ResetOptions { .. } => "ALTER TABLE",
            Change::DropTable { .. } => "DROP TABLE",
            Change::Optimize(_) => "OPTIMIZE TABLE",
            Change::DeleteRows(_) => "DELETE",
            Change::Insert(_) => "INSERT",
            Change::RemoveFields { .. } | Change::SetFields { .. } => "UPDATE",
        }
    }

    /// Understands a statement that has a [`Change::tag_of`].
    ///
    /// # Errors
    /// [`QueryError::Unsupported`] and [`QueryError::Plan`] say what the statement should be.
    pub(crate) fn parse(statement: Ast) -> Result<Change, QueryError> {
        match statement {
            Ast::CreateTable(create) => create::parse(create),
            Ast::AlterTable(alter) => alter::parse(alter),
            Ast::Insert(insert) => insert::parse(insert),
            Ast::Delete(delete) => remove::delete(delete),
            Ast::Update(update) => remove::update(update),
            Ast::Drop {
                object_type: ObjectType::Table,
                if_exists,
                names,
                cascade: _,
                restrict: _,
                purge,
                temporary,
                table,
            } => {
                match <[ObjectName; 1]>::try_from(names) {
                    // Nothing depends on a table, so CASCADE and RESTRICT are the same.
                    Ok([name]) if !purge && !temporary && table.is_none() => Ok(Change::DropTable { name, if_exists }),
                    _ => Err(QueryError::Unsupported(
                        "this form of DROP TABLE is not supported; it is written DROP TABLE [IF EXISTS] t, one table at \
                         a time"
                            .into(),
                    )),
                }
            }
            _ => Err(QueryError::Internal("a statement that changes nothing is taken for one that does".into())),
        }
    }

    /// The query that finds the rows which a change by condition is about.
    pub(crate) fn query(&self) -> Option<Ast> {
        match self {
            Change::DeleteRows(target) | Change::RemoveFields { target, .. } => {
                Some(target.clone().query(&[], &[], Vec::new()))
            }
            Change::SetFields { target, assignments } => {
                let set = assignments.iter().map(|(column, value)| (column.value.as_str().into(), value.clone()));
                Some(target.clone().query(&[], &[], set.collect()))
            }
            Change::Insert(rows) => Some(rows.select()),
            _ => None,
        }
    }

    /// The parameters that stand by themselves where a column's value does, by name, and those columns' types.
    ///
    /// # Errors
    /// [`QueryError::UnknownTable`], [`QueryError::UnknownColumn`].
    pub(crate) fn parameters(&self, tables: &Tables, schema: &str) -> Result<HashMap<String, DataType>, QueryError> {
        let mut found = HashMap::new();
        match self {
            Change::Insert(rows) => {
                let columns = rows.columns_of(resolve::changeable(&rows.table, tables, schema)?)?;
                for (value, column) in rows.values().flat_map(|row| row.iter().zip(&columns)) {
                    found.extend(parameters::parameter(value).map(|name| (name.to_owned(), column.data_type())));
                }
            }
            Change::SetFields { target, assignments } => {
                let table = resolve::changeable(&target.name, tables, schema)?;
                for (column, value) in assignments {
                    let column = resolve::column(column, table)?;
                    found.extend(parameters::parameter(value).map(|name| (name.to_owned(), column.data_type())));
                }
            }
            _ => {}
        }
        Ok(found)
    }

    /// The name of a statement that [`Change::parse`] understands.
    pub(crate) fn tag_of(statement: &Ast) -> Option<&'static str> {
        match statement {
            Ast::CreateTable(_) => Some("CREATE TABLE"),
            Ast::AlterTable(_) => Some("ALTER TABLE"),
            Ast::Drop { object_type: ObjectType::Table, .. } => Some("DROP TABLE"),
            Ast::Insert(_) => Some("INSERT"),
            Ast::Delete(_) => Some("DELETE"),
            Ast::Update(_) => Some("UPDATE"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
