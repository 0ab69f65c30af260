//! Statements about the catalog, written as DataFusion can plan them.
//!
//! Owns:     what `datafusion-pg-catalog` does not rewrite: functions in FROM, fields of a row, functions that give rows,
//!           subqueries that ask about each row.
//! Does not: touch statements that read anybody's tables ([`super::parse`] sees to that).

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    AccessExpr, Expr, Function, FunctionArguments, ObjectName, ObjectNamePart, OrderByKind, Query, SelectItem, SetExpr,
    Statement as Ast, TableAliasColumnDef, TableFactor, UnaryOperator, Value, Visit, VisitMut, Visitor, VisitorMut,
    visit_relations,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;

use crate::catalog::INFORMATION_SCHEMA;
use crate::resolve::folded;

/// Functions that are tables of one column, which has the name that the table is given.
const SERIES: &str = "generate_series";

/// Another one, which no client's statement about the catalog has.
const RANGE: &str = "range";

/// Functions that are tables.
pub(super) const TABLE_FUNCTIONS: [&str; 2] = [SERIES, "pg_get_keywords"];

/// Functions of scalars that give rows, where they stand in a SELECT.
const ROWS: [&str; 2] = ["generate_subscripts", "_pg_expandarray"];

/// Functions that make one row of all.
const AGGREGATES: [&str; 11] =
    ["array_agg", "avg", "bool_and", "bool_or", "count", "first_value", "json_agg", "max", "min", "string_agg", "sum"];

/// What `datafusion-pg-catalog` makes of `'…'::regproc`.
const NUMBER_OF_FUNCTION: &str = "SELECT oid FROM pg_catalog.pg_proc WHERE proname = ";

/// The columns of its `pg_type` that name functions, by texts.
const FUNCTIONS_OF_TYPES: [&str; 7] =
    ["typanalyze", "typinput", "typmodin", "typmodout", "typoutput", "typreceive", "typsend"];

/// Rewrites a statement.
pub(super) fn rewrite(statement: &mut Ast) {
    let _ = statement.visit(&mut Rewrite);
}

struct Rewrite;

impl VisitorMut for Rewrite {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        // First, when subqueries in WHERE and in the list of columns can still be told apart.
        if let SetExpr::Select(select) = &mut *query.body {
            for item in &mut select.projection {
                if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
                    let _ = expr.visit(&mut InColumns);
                }
            }
        }
        if let Some(order_by) = &mut query.order_by
            && let OrderByKind::Expressions(exprs) = &mut order_by.kind
        {
            for order in exprs {
                let _ = VisitMut::visit(&mut order.expr, &mut InColumns);
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        let TableFactor::Table { name, args: Some(args), alias: Some(alias), .. } = factor else {
            return ControlFlow::Continue(());
        };
        if alias.columns.is_empty() {
            let function = last(name);
            if function == SERIES {
                alias.columns.push(TableAliasColumnDef { name: alias.name.clone(), data_type: None });
            } else if !TABLE_FUNCTIONS.contains(&function.as_str()) && function != RANGE {
                let args: Vec<String> = args.args.iter().map(ToString::to_string).collect();
                let one_row = format!("SELECT {name}({}) AS {}", args.join(", "), alias.name);
                if let Some(subquery) = query(&one_row) {
                    let alias = Some(alias.clone());
                    *factor = TableFactor::Derived { lateral: false, subquery, alias, sample: None };
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            // `ARRAY(SELECT …)` cannot be planned. Here it lists what there is none of: the roles that somebody is a
            // member of.
            Expr::Function(function)
                if matches!(function.args, FunctionArguments::Subquery(_)) && last(&function.name) == "array" =>
            {
                *expr = Expr::value(Value::Null);
            }
            Expr::Function(function) => without_schema(function),
            Expr::BinaryOp { left, right, .. } if names_function(left) => {
                if let Some(name) = function_asked_for(right) {
                    **right = Expr::value(Value::SingleQuotedString(name));
                }
            }
            Expr::Subquery(subquery) if is_correlated(subquery) => one_row(subquery),
            Expr::CompoundFieldAccess { root, access_chain } => {
                if let [AccessExpr::Dot(Expr::Identifier(field))] = access_chain.as_slice() {
                    let field = Expr::value(Value::SingleQuotedString(folded(field)));
                    *expr = call("get_field", vec![(**root).clone(), field]);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    // After its arguments, since it becomes an argument itself.
    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr
            && ROWS.contains(&last(&function.name).as_str())
        {
            *expr = call("unnest", vec![expr.clone()]);
        }
        ControlFlow::Continue(())
    }
}

/// What stands in a list of columns, or behind ORDER BY.
struct InColumns;

impl VisitorMut for InColumns {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            // DataFusion plans few of those that ask about each row. What clients ask `pg_catalog` like that, there is none of:
            // defaults, sequences, collations (docs/postgres.md).
            Expr::Subquery(subquery) if is_correlated(subquery) && reads_pg_catalog(subquery) => {
                *expr = Expr::value(Value::Null);
            }
            Expr::InSubquery { expr: value, subquery, negated } if !is_correlated(subquery) => {
                if let Some(list) = query(&format!("SELECT array_agg(\"q\".\"v\") FROM ({subquery}) AS \"q\"(\"v\")")) {
                    let has = call("array_has", vec![Expr::Subquery(list), (**value).clone()]);
                    // Of no rows there is no list.
                    let has = call("coalesce", vec![has, Expr::value(Value::Boolean(false))]);
                    *expr = match negated {
                        true => Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(has) },
                        false => has,
                    };
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// The last part of a name, folded.
fn last(name: &ObjectName) -> String {
    name.0.last().and_then(ObjectNamePart::as_ident).map(folded).unwrap_or_default()
}

/// `information_schema.f()` is `f()`.
fn without_schema(function: &mut Function) {
    if let [ObjectNamePart::Identifier(schema), name] = function.name.0.as_slice()
        && folded(schema) == INFORMATION_SCHEMA
    {
        function.name = ObjectName(vec![name.clone()]);
    }
}

/// Whether it is a column of `pg_type` that names a function.
fn names_function(expr: &Expr) -> bool {
    let name = match expr {
        Expr::Identifier(name) => Some(name),
        Expr::CompoundIdentifier(names) => names.last(),
        _ => None,
    };
    name.is_some_and(|name| FUNCTIONS_OF_TYPES.contains(&folded(name).as_str()))
}

/// The function, without its schema, whose number a subquery looks up by its name.
fn function_asked_for(expr: &Expr) -> Option<String> {
    let Expr::Subquery(subquery) = expr else { return None };
    let text = subquery.to_string();
    let name = text.strip_prefix(NUMBER_OF_FUNCTION)?.strip_prefix('\'')?.strip_suffix('\'')?;
    name.rsplit('.').next().map(str::to_owned)
}

fn call(name: &str, arguments: Vec<Expr>) -> Expr {
    let texts: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    let text = format!("{name}({})", texts.join(", "));
    let parsed = Parser::new(&PostgreSqlDialect {}).try_with_sql(&text).and_then(|mut parser| parser.parse_expr());
    // What was parsed once can be parsed again.
    parsed.unwrap_or_else(|_| Expr::value(Value::Null))
}

fn query(sql: &str) -> Option<Box<Query>> {
    let parser = Parser::new(&PostgreSqlDialect {}).try_with_sql(sql);
    parser.and_then(|mut parser| parser.parse_query()).ok()
}

/// Makes an aggregate of a subquery that gives one row for each that it is asked about: PostgreSQL refuses more.
fn one_row(subquery: &mut Query) {
    let SetExpr::Select(select) = &mut *subquery.body else { return };
    let [SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }] = select.projection.as_mut_slice()
    else {
        return;
    };
    if !matches!(expr, Expr::Function(function) if AGGREGATES.contains(&last(&function.name).as_str())) {
        *expr = call("first_value", vec![expr.clone()]);
    }
}

/// Whether a query reads a table of `pg_catalog`, whose names all begin like that.
fn reads_pg_catalog(query: &Query) -> bool {
    let reads = visit_relations(query, |name| match last(name).starts_with("pg_") {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    });
    reads.is_break()
}

/// Whether a query names a table that it does not read itself.
fn is_correlated(query: &Query) -> bool {
    let mut names = Names::default();
    let _ = query.visit(&mut names);
    names.used.iter().any(|used| !names.defined.contains(used))
}

#[derive(Default)]
struct Names {
    /// Tables, by the names that they have in the query.
    defined: HashSet<String>,
    /// What stands before a column.
    used: HashSet<String>,
}

impl Visitor for Names {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        let (name, alias) = match factor {
            TableFactor::Table { name, alias, .. } => (Some(last(name)), alias),
            TableFactor::Derived { alias, .. } | TableFactor::UNNEST { alias, .. } => (None, alias),
            _ => return ControlFlow::Continue(()),
        };
        self.defined.extend(alias.as_ref().map(|alias| folded(&alias.name)).or(name));
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::CompoundIdentifier(idents) = expr
            && let [.., qualifier, _] = idents.as_slice()
        {
            self.used.insert(folded(qualifier));
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(sql: &str) -> String {
        let mut statement = Parser::parse_sql(&PostgreSqlDialect {}, sql).unwrap().remove(0);
        rewrite(&mut statement);
        statement.to_string()
    }

    #[test]
    fn what_cannot_be_planned_is_written_in_another_way() {
        for (sql, expected) in [
            (
                "SELECT s[i] FROM generate_series(1, 2) AS i, f('a') s",
                "SELECT s[i] FROM generate_series(1, 2) AS i (i), (SELECT f('a') AS s) s",
            ),
            (
                "SELECT (information_schema._pg_expandarray(k)).n FROM t",
                "SELECT get_field((unnest(_pg_expandarray(k))), 'n') FROM t",
            ),
            (
                "SELECT t.typinput = (SELECT oid FROM pg_catalog.pg_proc WHERE proname = 'pg_catalog.array_in') FROM t",
                "SELECT t.typinput = 'array_in' FROM t",
            ),
            ("SELECT generate_subscripts(k, 1) FROM t", "SELECT unnest(generate_subscripts(k, 1)) FROM t"),
            (
                "SELECT CASE WHEN a THEN (SELECT x FROM s.pg_u u WHERE u.b = t.b) ELSE 1 END FROM t",
                "SELECT CASE WHEN a THEN NULL ELSE 1 END FROM t",
            ),
            (
                "SELECT (SELECT count(*) FROM s.u WHERE u.b = t.b), range.value FROM t, range(1, 4) AS range",
                "SELECT (SELECT count(*) FROM s.u WHERE u.b = t.b), range.value FROM t, range(1, 4) AS range",
            ),
            ("SELECT (SELECT max(u.x) FROM s.u) FROM t", "SELECT (SELECT max(u.x) FROM s.u) FROM t"),
            (
                "SELECT 1 FROM t WHERE (SELECT u.x = 'c' FROM u WHERE u.b = t.b)",
                "SELECT 1 FROM t WHERE (SELECT first_value(u.x = 'c') FROM u WHERE u.b = t.b)",
            ),
            (
                "SELECT a IN (SELECT b FROM u) FROM t ORDER BY CASE WHEN a NOT IN (SELECT b FROM u) THEN 0 END",
                "SELECT coalesce(array_has((SELECT array_agg(\"q\".\"v\") FROM (SELECT b FROM u) AS \"q\" (\"v\")), a), false) FROM t \
                 ORDER BY CASE WHEN NOT coalesce(array_has((SELECT array_agg(\"q\".\"v\") FROM (SELECT b FROM u) AS \"q\" (\"v\")), \
                 a), false) THEN 0 END",
            ),
            ("SELECT 1 FROM t WHERE a IN (SELECT b FROM u)", "SELECT 1 FROM t WHERE a IN (SELECT b FROM u)"),
        ] {
            assert_eq!(rewritten(sql), expected);
        }
    }
}
