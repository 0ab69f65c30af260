//! `DELETE` and `UPDATE`: rows that are found by a query, and removed or written anew by key.
//!
//! Owns:     what of the two there is, and the query that finds the keys.
//! Does not: run it (`apply` does).

use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{
    AssignmentTarget, BinaryOperator, Delete, Expr, FromTable, Ident, ObjectName, ObjectNamePart, SelectItem, SetExpr,
    Statement as Ast, TableAlias, TableFactor, TableWithJoins, Update, Value,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

use super::Change;
use crate::error::QueryError;
use crate::resolve::exactly;

const DELETE_FORM: &str = "DELETE FROM t WHERE time < '2026-01-01'";
const UPDATE_FORM: &str = "UPDATE t SET c = 1.5 * c, d = NULL WHERE time < '2026-01-01'";

/// Rows of one table, by a condition.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(super) name: ObjectName,
    alias: Option<TableAlias>,
    condition: Option<Expr>,
}

/// Understands `DELETE`.
///
/// # Errors
/// [`QueryError::Unsupported`] for what of it there is not.
pub(super) fn delete(delete: Delete) -> Result<Change, QueryError> {
    let Delete {
        delete_token: _,
        optimizer_hints: _,
        tables,
        from,
        using,
        selection,
        returning,
        output,
        order_by,
        limit,
    } = delete;
    let plain = tables.is_empty()
        && using.is_none()
        && returning.is_none()
        && output.is_none()
        && order_by.is_empty()
        && limit.is_none();
    match from {
        FromTable::WithFromKeyword(from) if plain => match <[TableWithJoins; 1]>::try_from(from) {
            Ok([from]) => Ok(Change::DeleteRows(target(from, selection, DELETE_FORM)?)),
            Err(_) => Err(unsupported("DELETE", DELETE_FORM)),
        },
        FromTable::WithFromKeyword(_) | FromTable::WithoutKeyword(_) => Err(unsupported("DELETE", DELETE_FORM)),
    }
}

/// Understands `UPDATE`.
///
/// # Errors
/// [`QueryError::Unsupported`] for what of it there is not.
pub(super) fn update(update: Update) -> Result<Change, QueryError> {
    let Update {
        update_token: _,
        optimizer_hints: _,
        table,
        assignments,
        from,
        selection,
        returning,
        output,
        or,
        order_by,
        limit,
    } = update;
    let plain = from.is_none()
        && returning.is_none()
        && output.is_none()
        && or.is_none()
        && order_by.is_empty()
        && limit.is_none();
    if !plain {
        return Err(unsupported("UPDATE", UPDATE_FORM));
    }
    let mut set: Vec<(Ident, Expr)> = Vec::with_capacity(assignments.len());
    for assignment in assignments {
        let AssignmentTarget::ColumnName(name) = assignment.target else {
            return Err(unsupported("UPDATE", UPDATE_FORM));
        };
        match <[ObjectNamePart; 1]>::try_from(name.0) {
            Ok([ObjectNamePart::Identifier(column)]) => set.push((column, assignment.value)),
            _ => return Err(unsupported("UPDATE", UPDATE_FORM)),
        }
    }
    let target = target(table, selection, UPDATE_FORM)?;
    let is_null = |value: &Expr| matches!(value, Expr::Value(value) if value.value == Value::Null);
    if set.iter().all(|(_, value)| is_null(value)) {
        let columns = set.into_iter().map(|(column, _)| column).collect();
        return Ok(Change::RemoveFields { target, columns });
    }
    Ok(Change::SetFields { target, assignments: set })
}

fn unsupported(statement: &str, form: &str) -> QueryError {
    QueryError::Unsupported(format!("this form of {statement} is not supported; it is written {form}"))
}

fn target(from: TableWithJoins, condition: Option<Expr>, form: &str) -> Result<Target, QueryError> {
    let TableWithJoins { relation, joins } = from;
    let statement = form.split(' ').next().unwrap_or_default();
    match relation {
        TableFactor::Table {
            name,
            alias,
            args: None,
            with_hints,
            version: None,
            with_ordinality: false,
            partitions,
            json_path: None,
            sample: None,
            index_hints,
        } if joins.is_empty() && with_hints.is_empty() && partitions.is_empty() && index_hints.is_empty() => {
            match &alias {
                Some(TableAlias { columns, at, .. }) if !columns.is_empty() || at.is_some() => {
                    Err(unsupported(statement, form))
                }
                _ => Ok(Target { name, alias, condition }),
            }
        }
        _ => Err(unsupported(statement, form)),
    }
}

impl Target {
    /// The query for these tags and `time` of the rows that are meant; of those only that have one of `fields`, if
    /// any are named. Behind them the values of `set`.
    pub(super) fn query(self, tags: &[Arc<str>], fields: &[Arc<str>], set: Vec<(Arc<str>, Expr)>) -> Ast {
        let mut query = Parser::parse_sql(&GenericDialect {}, "SELECT 1 FROM t").unwrap_or_default();
        let Some(Ast::Query(mut query)) = query.pop() else { unreachable!("a constant is a query") };
        let SetExpr::Select(select) = &mut *query.body else { unreachable!("a constant is a SELECT") };
        let column = |name: &str| SelectItem::UnnamedExpr(Expr::Identifier(exactly(name)));
        // By a name of its own: two columns may be set to the same.
        let value = |(i, (_, expr))| SelectItem::ExprWithAlias { expr, alias: exactly(&format!("set {i}")) };
        let set = set.into_iter().enumerate().map(value);
        select.projection =
            tags.iter().map(|tag| column(tag)).chain([column(super::create::TIME)]).chain(set).collect();
        for from in &mut select.from {
            from.relation = TableFactor::Table {
                name: self.name.clone(),
                alias: self.alias.clone(),
                args: None,
                with_hints: Vec::new(),
                version: None,
                with_ordinality: false,
                partitions: Vec::new(),
                json_path: None,
                sample: None,
                index_hints: Vec::new(),
            };
        }
        let condition = self.condition.map(|condition| Expr::Nested(Box::new(condition)));
        select.selection = match (condition, has_any(fields).map(|any| Expr::Nested(Box::new(any)))) {
            (Some(condition), Some(has_any)) => Some(both(condition, BinaryOperator::And, has_any)),
            (condition, has_any) => condition.or(has_any),
        };
        Ast::Query(query)
    }
}

/// True where one of the fields has a value. Halves of halves: a chain would be as deep as a table is wide.
fn has_any(fields: &[Arc<str>]) -> Option<Expr> {
    match fields {
        [] => None,
        [field] => Some(Expr::IsNotNull(Box::new(Expr::Identifier(exactly(field))))),
        _ => {
            let (left, right) = fields.split_at(fields.len() / 2);
            has_any(left).zip(has_any(right)).map(|(left, right)| both(left, BinaryOperator::Or, right))
        }
    }
}

fn both(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}
