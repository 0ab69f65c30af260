//! How far a statement reaches when its names are put in: tables, columns and groupings that planning has to work through.
//!
//! Owns:     the bounds that keep the plan of a short statement from having no end.
//! Does not: bound depth (`nesting` does), nor time and memory of a plan that runs (`run` and the pool do).
//!
//! A query with a name is planned once for each time that it is named. So a row of `WITH a AS (… FROM b, b)` doubles with
//! every link, and `CUBE` with every column.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, GroupByExpr, ObjectName, Query, Select, Statement, Visit as _, Visitor};

use crate::error::QueryError;

/// Tables of a statement, each as often as it is planned.
const TABLES_MAX: u64 = 1_000;

/// Columns of a SELECT: as many as PostgreSQL takes.
const COLUMNS_MAX: usize = 1_664;

/// Sets by which a SELECT groups: as many as PostgreSQL takes.
const GROUPING_SETS_MAX: u64 = 4_096;

/// Refuses a statement that reaches too far.
///
/// # Errors
/// [`QueryError::Unsupported`] with the bound.
pub(crate) fn check(statement: &Statement) -> Result<(), QueryError> {
    let mut extent = Extent::default();
    match statement.visit(&mut extent) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(what) => Err(QueryError::Unsupported(what)),
    }
}

/// A query that is being looked at.
#[derive(Default)]
struct Scope {
    /// Tables so far.
    tables: u64,
    /// Of its named queries, in the order in which they are written: where they are, and their names.
    to_come: Vec<(*const Query, String)>,
    /// Tables of those that were seen.
    named: HashMap<String, u64>,
}

#[derive(Default)]
struct Extent {
    scopes: Vec<Scope>,
}

impl Extent {
    fn add(&mut self, tables: u64) -> ControlFlow<String> {
        let Some(scope) = self.scopes.last_mut() else { return ControlFlow::Continue(()) };
        scope.tables = scope.tables.saturating_add(tables);
        if scope.tables > TABLES_MAX {
            return ControlFlow::Break(format!(
                "a statement that reads more than {TABLES_MAX} tables, a query with a name counted each time it is named, \
                 is not supported"
            ));
        }
        ControlFlow::Continue(())
    }
}

impl Visitor for Extent {
    type Break = String;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<String> {
        let with = query.with.iter().flat_map(|with| &with.cte_tables);
        let to_come = with.map(|cte| (&raw const *cte.query, cte.alias.name.value.to_lowercase())).collect();
        self.scopes.push(Scope { to_come, ..Scope::default() });
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<String> {
        let tables = self.scopes.pop().map_or(0, |scope| scope.tables);
        let at = &raw const *query;
        if let Some(outer) = self.scopes.last_mut()
            && let Some((_, name)) = outer.to_come.iter().find(|(known, _)| std::ptr::eq(*known, at))
        {
            // Counted where it is named.
            outer.named.insert(name.clone(), tables.max(1));
            return ControlFlow::Continue(());
        }
        self.add(tables)
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<String> {
        let name = relation.to_string().to_lowercase();
        let known = self.scopes.iter().rev().find_map(|scope| scope.named.get(&name)).copied();
        self.add(known.unwrap_or(1))
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<String> {
        let columns = select.projection.len();
        if columns > COLUMNS_MAX {
            return ControlFlow::Break(format!(
                "a SELECT of {columns} columns is not supported; at most {COLUMNS_MAX} are"
            ));
        }
        let GroupByExpr::Expressions(groups, _) = &select.group_by else { return ControlFlow::Continue(()) };
        if groups.iter().map(sets).fold(1, u64::saturating_mul) > GROUPING_SETS_MAX {
            return ControlFlow::Break(format!("more than {GROUPING_SETS_MAX} grouping sets are not supported"));
        }
        ControlFlow::Continue(())
    }
}

/// Sets that an element of GROUP BY stands for.
fn sets(group: &Expr) -> u64 {
    match group {
        Expr::Cube(columns) => u32::try_from(columns.len()).ok().and_then(|n| 1_u64.checked_shl(n)).unwrap_or(u64::MAX),
        Expr::Rollup(columns) => columns.len() as u64 + 1,
        Expr::GroupingSets(sets) => sets.len() as u64,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    fn checked(sql: &str) -> Result<(), String> {
        let statements = Parser::parse_sql(&GenericDialect {}, sql).unwrap();
        statements.iter().try_for_each(check).map_err(|error| error.to_string())
    }

    fn doubling(links: usize) -> String {
        let links: Vec<String> =
            (1..=links).map(|i| format!("c{i} AS (SELECT a.n FROM C{p} a, c{p} b)", p = i - 1)).collect();
        format!("WITH c0 AS (SELECT 1 AS n), {} SELECT * FROM c{}", links.join(", "), links.len())
    }

    #[test]
    fn queries_count_each_time_they_are_named() {
        assert_eq!(checked(&doubling(9)), Ok(()));
        assert!(checked(&doubling(10)).unwrap_err().contains("more than 1000 tables"));
        assert!(checked(&doubling(60)).is_err());
        // A name of a query within is not one of the queries beside it.
        let inner = doubling(9);
        assert_eq!(checked(&format!("SELECT * FROM ({inner}), c9, c9, c9")), Ok(()));
        assert!(checked(&format!("SELECT * FROM ({inner}) a, ({inner}) b")).is_err());
        assert!(checked(&format!("SELECT 1 WHERE EXISTS ({inner}) AND EXISTS ({inner})")).is_err());
        assert_eq!(checked("WITH RECURSIVE r AS (SELECT 1 UNION ALL SELECT * FROM r) SELECT * FROM r, r"), Ok(()));
    }

    #[test]
    fn columns_and_grouping_sets_have_bounds() {
        let columns = |count| vec!["1"; count].join(",");
        assert_eq!(checked(&format!("SELECT {}", columns(1_664))), Ok(()));
        assert!(checked(&format!("SELECT 1 FROM (SELECT {})", columns(1_665))).unwrap_err().contains("1664"));
        let sets = |sql: &str| checked(&format!("SELECT 1 FROM t GROUP BY {sql}"));
        assert_eq!(sets(&format!("CUBE ({})", columns(12))), Ok(()));
        assert_eq!(sets(&format!("a, b, ROLLUP ({})", columns(400))), Ok(()));
        assert!(sets(&format!("CUBE ({})", columns(13))).is_err());
        assert!(sets(&format!("CUBE ({})", columns(300))).is_err());
        assert!(sets("CUBE (a, b, c, d, e, f), CUBE (a, b, c, d, e, f, g)").is_err());
    }
}
