//! Columns, and the tables before them, in any case.
//!
//! Owns:     what is in scope where in a statement.
//! Does not: know types, or refuse anything: a name that it cannot place stays as it was written.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    AccessExpr, Expr, Ident, ObjectName, ObjectNamePart, Query, Select, SelectItem, SelectItemQualifiedWildcardKind,
    SetExpr, Statement as Ast, Subscript, TableAlias, TableFactor, TableWithJoins, Value, VisitMut, VisitorMut,
};
use model::TableName;
use storage::TableInfo;

use super::{Defined, exactly, folded, reference};
use crate::catalog::{Tables, unaliased};

/// Renames columns and their qualifiers in `statement`, whose tables are renamed already.
pub(super) fn rename(
    statement: &mut Ast,
    tables: &Tables,
    default_schema: &str,
    read: &BTreeSet<TableName>,
    defined: &Defined,
) {
    let read: Vec<&TableInfo> = read.iter().filter_map(|name| tables.get(&name.schema, &name.table)).collect();
    let _ = statement.visit(&mut Columns { tables, default_schema, read, defined, scopes: Vec::new() });
}

/// What the expressions of one SELECT, or the ORDER BY after it, can name.
#[derive(Default)]
struct Scope<'a> {
    /// By qualifier in lower case: a table, or `None` for a subquery, CTE or function.
    sources: HashMap<String, Option<&'a TableInfo>>,
    /// Names that the SELECT gives to its columns, where those can be named.
    aliases: HashSet<String>,
}

/// Where a name leads.
enum Found {
    /// To a column of this spelling.
    Spelling(String),
    /// To something that needs no other spelling.
    AsWritten,
    Nowhere,
}

struct Columns<'a> {
    tables: &'a Tables,
    default_schema: &'a str,
    /// The tables of the whole statement.
    read: Vec<&'a TableInfo>,
    defined: &'a Defined,
    scopes: Vec<Scope<'a>>,
}

impl<'a> Columns<'a> {
    fn scope(&self, select: &Select) -> Scope<'a> {
        let mut scope = Scope::default();
        select.from.iter().for_each(|from| self.add_joins(from, &mut scope));
        scope
    }

    fn add_joins(&self, from: &TableWithJoins, scope: &mut Scope<'a>) {
        self.add(&from.relation, scope);
        from.joins.iter().for_each(|join| self.add(&join.relation, scope));
    }

    fn add(&self, factor: &TableFactor, scope: &mut Scope<'a>) {
        let named = |alias: &Option<TableAlias>| alias.as_ref().map(|alias| folded(&alias.name).to_lowercase());
        match factor {
            TableFactor::Table { name, alias, args: None, .. } => {
                let Some(reference) = reference(name) else { return };
                let is_cte = reference.schema().is_none() && self.defined.ctes.contains(reference.table());
                let table = self.tables.get(reference.schema().unwrap_or(self.default_schema), reference.table());
                let qualifier = named(alias).unwrap_or_else(|| reference.table().to_lowercase());
                scope.sources.insert(qualifier, table.filter(|_| !is_cte));
            }
            TableFactor::NestedJoin { table_with_joins, .. } => self.add_joins(table_with_joins, scope),
            TableFactor::Table { alias, .. }
            | TableFactor::Derived { alias, .. }
            | TableFactor::TableFunction { alias, .. }
            | TableFactor::Function { alias, .. }
            | TableFactor::UNNEST { alias, .. } => {
                scope.sources.extend(named(alias).map(|alias| (alias, None)));
            }
            _ => {}
        }
    }

    fn column(&self, ident: &mut Ident, qualifier: Option<&str>) {
        if ident.quote_style.is_some() {
            return;
        }
        let wanted = folded(ident);
        for scope in self.scopes.iter().rev() {
            if qualifier.is_none() && scope.aliases.contains(&wanted) {
                return;
            }
            let found = match qualifier.map(|qualifier| scope.sources.get(qualifier)) {
                Some(Some(Some(table))) => spelling(&wanted, [*table]),
                // A subquery: its columns are looked for in all of the statement.
                Some(Some(None)) => break,
                Some(None) => Found::Nowhere,
                None => spelling(&wanted, scope.sources.values().filter_map(|table| *table)),
            };
            match found {
                Found::Spelling(spelling) => {
                    *ident = exactly(&spelling);
                    return;
                }
                Found::AsWritten => return,
                Found::Nowhere => {}
            }
        }
        if !self.defined.aliases.contains(&wanted)
            && let Found::Spelling(spelling) = spelling(&wanted, self.read.iter().copied())
        {
            *ident = exactly(&spelling);
        }
    }

    /// Renames what is before a column; gives the table among it, in lower case.
    fn qualifier(&self, idents: &mut [&mut Ident]) -> Option<String> {
        let [before @ .., table] = idents else { return None };
        if let Some(schema) = before.last_mut() {
            let wanted = folded(schema);
            if unaliased(&wanted) != wanted {
                **schema = exactly(unaliased(&wanted));
            }
        }
        let wanted = folded(table).to_lowercase();
        if table.quote_style.is_none() && !self.defined.aliases.contains(&wanted) {
            let meant = self.scopes.iter().rev().find_map(|scope| scope.sources.get(&wanted));
            if let Some(Some(info)) = meant
                && *info.name.table != *wanted
            {
                **table = exactly(&info.name.table);
            }
        }
        Some(wanted)
    }

    /// The column that `motor['current']['l1']` means if there is none of the name `motor`: `"motor.current.l1"`, as values
    /// of nested objects are stored (docs/adr/0017-nested-objects-by-path.md).
    fn nested(&self, expr: &Expr) -> Option<Expr> {
        let Expr::CompoundFieldAccess { root, access_chain } = expr else { return None };
        let Expr::Identifier(first) = &**root else { return None };
        let (mut idents, mut path) = (vec![first.clone()], String::new());
        for access in access_chain {
            match access {
                AccessExpr::Dot(Expr::Identifier(ident)) if path.is_empty() => idents.push(ident.clone()),
                AccessExpr::Subscript(Subscript::Index { index: Expr::Value(value) }) => {
                    let Value::SingleQuotedString(name) = &value.value else { return None };
                    path.push('.');
                    path.push_str(name);
                }
                _ => return None,
            }
        }
        let root = folded(idents.last()?);
        let columns = || self.read.iter().flat_map(|info| info.schema.columns());
        let is_column = |name: &str| columns().any(|column| column.name.to_lowercase() == name.to_lowercase());
        if path.is_empty() || self.defined.aliases.contains(&root) || is_column(&root) {
            return None;
        }
        let wanted = format!("{root}{path}").to_lowercase();
        let meant = columns().find(|column| column.name.to_lowercase() == wanted)?;
        *idents.last_mut()? = exactly(&meant.name);
        match idents.as_slice() {
            [one] => Some(Expr::Identifier(one.clone())),
            _ => Some(Expr::CompoundIdentifier(idents)),
        }
    }

    fn wildcard(&self, name: &mut ObjectName) {
        let idents = name.0.iter_mut().filter_map(|part| match part {
            ObjectNamePart::Identifier(ident) => Some(ident),
            ObjectNamePart::Function(_) => None,
        });
        self.qualifier(&mut idents.collect::<Vec<_>>());
    }
}

/// How the one column that differs from `wanted` by case only is spelled.
fn spelling<'a>(wanted: &str, tables: impl IntoIterator<Item = &'a TableInfo>) -> Found {
    let mut found = Found::Nowhere;
    for column in tables.into_iter().flat_map(|info| info.schema.columns()) {
        if *column.name == *wanted {
            return Found::AsWritten;
        }
        if column.name.to_lowercase() == wanted {
            match &found {
                Found::Spelling(other) if **other != *column.name => return Found::AsWritten,
                _ => found = Found::Spelling(column.name.to_string()),
            }
        }
    }
    found
}

/// The SELECT that names the columns of a query.
fn first_select(body: &SetExpr) -> Option<&Select> {
    match body {
        SetExpr::Select(select) => Some(select),
        SetExpr::Query(query) => first_select(&query.body),
        SetExpr::SetOperation { left, .. } => first_select(left),
        _ => None,
    }
}

impl VisitorMut for Columns<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let mut scope = Scope::default();
        if let Some(select) = first_select(&query.body) {
            scope = self.scope(select);
            scope.aliases.extend(select.projection.iter().filter_map(|item| match item {
                SelectItem::ExprWithAlias { alias, .. } => Some(folded(alias)),
                _ => None,
            }));
        }
        self.scopes.push(scope);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.scopes.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        // Its own aliases are not in scope inside of a SELECT, only after it.
        self.scopes.push(self.scope(select));
        for item in &mut select.projection {
            if let SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) = item {
                self.wildcard(name);
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, _select: &mut Select) -> ControlFlow<()> {
        self.scopes.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Some(column) = self.nested(expr) {
            *expr = column;
        }
        match expr {
            Expr::Identifier(ident) => self.column(ident, None),
            Expr::CompoundIdentifier(idents) => {
                if let [qualifier @ .., column] = idents.as_mut_slice() {
                    let table = self.qualifier(&mut qualifier.iter_mut().collect::<Vec<_>>());
                    self.column(column, table.as_deref());
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}
