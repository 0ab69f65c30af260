//! `INSERT`: which of its forms there are, and which column of the table each of its columns is.
//!
//! Owns:     what an INSERT may say.
//! Does not: make readings of rows (`readings` does), or write them (`apply` does).

use std::collections::HashSet;

use datafusion::sql::sqlparser::ast::{
    DataType as SqlType, Expr, Ident, Insert, ObjectName, ObjectNamePart, Query, SetExpr, Statement as Ast,
    TableObject, TimezoneInfo, Value,
};
use model::FieldType;
use storage::{Column, ColumnKind, TableInfo};

use super::Change;
use crate::error::QueryError;
use crate::names;
use crate::parameters;
use crate::resolve;
use crate::statement::check_query;

const FORM: &str = "INSERT INTO t (room, temperature, time) VALUES ('kitchen', 21.5, '2026-01-01T00:00:00Z')";

/// Rows for a table.
#[derive(Debug)]
pub(crate) struct NewRows {
    pub(super) table: ObjectName,
    /// None: all of the table, in its order.
    pub(super) columns: Vec<Ident>,
    query: Box<Query>,
}

/// Understands `INSERT`.
///
/// # Errors
/// [`QueryError::Unsupported`] for what of it there is not.
pub(super) fn parse(insert: Insert) -> Result<Change, QueryError> {
    let Insert {
        insert_token: _,
        optimizer_hints: _,
        or,
        ignore,
        into: _,
        table,
        table_alias,
        columns,
        overwrite,
        source,
        assignments,
        partitioned,
        after_columns,
        has_table_keyword: _,
        on,
        returning,
        output,
        replace_into,
        priority,
        insert_alias,
        settings,
        format_clause,
        multi_table_insert_type,
        multi_table_into_clauses,
        multi_table_when_clauses,
        multi_table_else_clause,
    } = insert;
    if on.is_some() {
        return Err(QueryError::Unsupported(
            "ON CONFLICT is not supported, and not needed: a row whose tags and time are there already is corrected by \
             the values that the INSERT gives"
                .into(),
        ));
    }
    let plain = or.is_none()
        && !ignore
        && table_alias.is_none()
        && !overwrite
        && assignments.is_empty()
        && partitioned.is_none()
        && after_columns.is_empty()
        && returning.is_none()
        && output.is_none()
        && !replace_into
        && priority.is_none()
        && insert_alias.is_none()
        && settings.is_none()
        && format_clause.is_none()
        && multi_table_insert_type.is_none()
        && multi_table_into_clauses.is_empty()
        && multi_table_when_clauses.is_empty()
        && multi_table_else_clause.is_none();
    let column = |name: ObjectName| match <[ObjectNamePart; 1]>::try_from(name.0) {
        Ok([ObjectNamePart::Identifier(column)]) => Some(column),
        _ => None,
    };
    let columns: Option<Vec<Ident>> = columns.into_iter().map(column).collect();
    match (table, columns, source) {
        (TableObject::TableName(table), Some(columns), Some(query)) if plain => {
            check_query(&query)?;
            Ok(Change::Insert(NewRows { table, columns, query }))
        }
        _ => Err(QueryError::Unsupported(format!("this form of INSERT is not supported; it is written {FORM}"))),
    }
}

impl NewRows {
    /// The columns that the rows are for, in their order.
    ///
    /// # Errors
    /// [`QueryError::UnknownColumn`], or [`QueryError::Plan`] for one that stands there twice.
    pub(super) fn columns_of(&self, table: &TableInfo) -> Result<Vec<Column>, QueryError> {
        if self.columns.is_empty() {
            return Ok(table.schema.columns().to_vec());
        }
        let mut seen = HashSet::new();
        let mut columns = Vec::with_capacity(self.columns.len());
        for column in &self.columns {
            let column = resolve::column(column, table)?;
            if !seen.insert(&column.name) {
                let name = names::quoted(&column.name);
                return Err(QueryError::Plan(format!("column {name} stands there twice")));
            }
            columns.push(column.clone());
        }
        Ok(columns)
    }

    /// The query that gives the rows, whatever columns they are for.
    pub(super) fn select(&self) -> Ast {
        Ast::Query(self.query.clone())
    }

    /// The rows of VALUES.
    pub(super) fn values(&self) -> impl Iterator<Item = &[Expr]> {
        let rows = match &*self.query.body {
            SetExpr::Values(values) => &values.rows[..],
            _ => &[],
        };
        rows.iter().map(|row| &row.content[..])
    }

    /// The query that gives the rows.
    ///
    /// # Errors
    /// [`QueryError::Plan`] if rows of VALUES have another number of values than there are columns.
    pub(super) fn query(mut self, columns: &[Column]) -> Result<Ast, QueryError> {
        let wrong = self.values().enumerate().find(|(_, row)| row.len() != columns.len());
        if let Some((row, values)) = wrong {
            return Err(wrong_number(&format!("row {}", row + 1), values.len(), columns));
        }
        if let SetExpr::Values(values) = &mut *self.query.body {
            // A time or a truth that is written as text, beside one that is not.
            for (value, column) in values.rows.iter_mut().flat_map(|row| row.content.iter_mut().zip(columns)) {
                let is_text =
                    matches!(value, Expr::Value(value) if matches!(value.value, Value::SingleQuotedString(_)));
                let to = match column.kind {
                    ColumnKind::Time if is_text => SqlType::Timestamp(Some(6), TimezoneInfo::WithTimeZone),
                    ColumnKind::Field(FieldType::Bool) if is_text => SqlType::Boolean,
                    _ => continue,
                };
                *value = parameters::cast(value.clone(), to);
            }
        }
        Ok(Ast::Query(self.query))
    }
}

/// That rows do not have a value for each column.
pub(super) fn wrong_number(what: &str, values: usize, columns: &[Column]) -> QueryError {
    let names: Vec<_> = columns.iter().map(|column| names::quoted(&column.name)).collect();
    let wanted = columns.len();
    let (s, names) = (if values == 1 { "" } else { "s" }, names.join(", "));
    QueryError::Plan(format!("{what} has {values} value{s} for {wanted} columns: {names}"))
}
