//! How PostgreSQL calls columns that have no name.
//!
//! Owns:     a name for each such column of a query's answer.
//! Does not: touch columns inside: only those that the client sees.
//!
//! Source: PostgreSQL's documentation, "Column Labels", and `FigureColname` in its `src/backend/parser/parse_target.c`.
//! It allows two columns of one name; here the second gets a number behind it.

use std::collections::HashSet;

use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{
    DataType, Expr, FunctionArguments, Ident, Query, SelectItem, SetExpr, Statement as Ast, Value,
};

use crate::resolve::folded;

/// Of what has no better name.
const NAMELESS: &str = "?column?";

/// Names the columns of a query.
pub(super) fn name_columns(statement: &mut DfStatement) {
    if let DfStatement::Statement(ast) = statement
        && let Ast::Query(query) = &mut **ast
        && let Some(items) = items(query)
    {
        let mut taken: HashSet<String> = items.iter().filter_map(given).collect();
        for item in items {
            if let SelectItem::UnnamedExpr(expr) = item
                && given_of(expr).is_none()
            {
                let name = name_of(expr).unwrap_or_else(|| NAMELESS.to_owned());
                let numbered = (1..).map(|number| format!("{name}{number}"));
                let free = std::iter::once(name.clone()).chain(numbered).find(|name| !taken.contains(name));
                let name = free.unwrap_or(name);
                taken.insert(name.clone());
                let expr = std::mem::replace(expr, Expr::value(Value::Null));
                *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', name) };
            }
        }
    }
}

/// Keeps the names of columns such as `current_user`, which run under the names of other functions.
pub(super) fn keep_names(ast: &mut Ast) {
    let Ast::Query(query) = ast else { return };
    for item in items(query).into_iter().flatten() {
        let SelectItem::UnnamedExpr(expr) = item else { continue };
        let name = match expr {
            Expr::Function(function) if function.args == FunctionArguments::None => function.name.to_string(),
            Expr::Identifier(ident) if folded(ident) == "current_schema" => folded(ident),
            _ => continue,
        };
        let alias = Ident::with_quote('"', name.to_lowercase());
        *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
    }
}

/// The columns of the first SELECT, whose names are those of the answer.
fn items(query: &mut Query) -> Option<&mut Vec<SelectItem>> {
    let mut body = &mut *query.body;
    loop {
        match body {
            SetExpr::Select(select) => return Some(&mut select.projection),
            SetExpr::SetOperation { left, .. } => body = left,
            SetExpr::Query(query) => body = &mut query.body,
            _ => return None,
        }
    }
}

/// The name that a column has.
fn given(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(folded(alias)),
        SelectItem::UnnamedExpr(expr) => given_of(expr),
        _ => None,
    }
}

fn given_of(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(name) => Some(folded(name)),
        Expr::CompoundIdentifier(names) => names.last().map(folded),
        _ => None,
    }
}

/// The name that an expression gives.
fn name_of(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => given_of(expr),
        Expr::Function(function) => function.name.0.last()?.as_ident().map(folded),
        Expr::Nested(inner) => name_of(inner),
        Expr::Cast { expr, data_type, .. } => name_of(expr).or_else(|| Some(type_name(data_type))),
        Expr::Case { else_result, .. } => else_result.as_deref().and_then(name_of).or_else(|| Some("case".to_owned())),
        Expr::Extract { .. } => Some("extract".to_owned()),
        Expr::Array(_) => Some("array".to_owned()),
        Expr::Exists { .. } => Some("exists".to_owned()),
        Expr::Trim { .. } => Some("btrim".to_owned()),
        Expr::Substring { .. } => Some("substring".to_owned()),
        _ => None,
    }
}

/// How PostgreSQL's catalog calls a type.
fn type_name(data_type: &DataType) -> String {
    let text = data_type.to_string().to_lowercase();
    let plain = text.split('(').next().unwrap_or_default().trim();
    match plain {
        "int" | "integer" => "int4",
        "bigint" => "int8",
        "smallint" => "int2",
        "real" => "float4",
        "double" | "double precision" => "float8",
        "boolean" => "bool",
        "decimal" => "numeric",
        "character varying" => "varchar",
        other if other.starts_with("timestamp") && text.ends_with("with time zone") => "timestamptz",
        other => other,
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use datafusion::sql::parser::DFParser;

    use super::*;

    #[test]
    fn columns_without_parentheses_keep_their_names() {
        for (sql, expected) in [
            ("SELECT CURRENT_USER, name FROM t", "SELECT CURRENT_USER AS \"current_user\", name FROM t"),
            ("SELECT current_schema, count(*)", "SELECT current_schema AS \"current_schema\", count(*)"),
            ("SELECT current_user AS me", "SELECT current_user AS me"),
        ] {
            let Some(DfStatement::Statement(mut ast)) = DFParser::parse_sql(sql).unwrap().pop_front() else {
                panic!("{sql}")
            };
            keep_names(&mut ast);
            assert_eq!(ast.to_string(), expected);
        }
    }

    #[test]
    fn columns_are_called_as_in_postgresql() {
        for (sql, expected) in [
            ("SELECT 1, 2, a, t.b", "SELECT 1 AS \"?column?\", 2 AS \"?column?1\", a, t.b"),
            ("SELECT count(*), max(a) AS m", "SELECT count(*) AS \"count\", max(a) AS m"),
            ("SELECT a::INT, '1'::BIGINT", "SELECT a::INT AS \"a\", '1'::BIGINT AS \"int8\""),
            ("SELECT max(a), max FROM t", "SELECT max(a) AS \"max1\", max FROM t"),
            ("SELECT 1 UNION SELECT 2", "SELECT 1 AS \"?column?\" UNION SELECT 2"),
            ("SELECT * FROM (SELECT 1)", "SELECT * FROM (SELECT 1)"),
        ] {
            let mut statement = DFParser::parse_sql(sql).unwrap().pop_front().unwrap();
            name_columns(&mut statement);
            assert_eq!(statement.to_string(), expected);
        }
    }
}
