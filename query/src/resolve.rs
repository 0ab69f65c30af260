//! What the names in a statement mean, before DataFusion looks at them.
//!
//! Owns:     schema aliases, names in any case, the tables a statement reads, errors for tables that are not there.
//! Does not: refuse unknown columns: DataFusion does, and `error` words it.
//!
//! SQL folds unquoted names to lower case, but measurements and fields come from devices, in any case. So an
//! unquoted name that folds to nothing that exists is taken for the one thing that differs from it by case only.
//! Names that the statement itself defines, by AS or WITH, go first. The names of a table never differ by case
//! only (`storage` refuses that), so there is little to guess.

mod columns;

use std::collections::{BTreeSet, HashSet};
use std::ops::ControlFlow;

use datafusion::common::TableReference;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::resolve::resolve_table_references;
use datafusion::sql::sqlparser::ast::{
    Ident, ObjectName, ObjectNamePart, Query, Select, SelectItem, ShowStatementIn, Statement as Ast, TableAlias,
    TableFactor, VisitMut, VisitorMut,
};
use model::TableName;
use model::name::check_name;
use storage::{Column, TableInfo};

use crate::catalog::{CATALOG, INFORMATION_SCHEMA, SYSTEM, Tables, unaliased};
use crate::crate_db::SYS;
use crate::error::{QueryError, tidy};
use crate::names;
use crate::postgres::PG_CATALOG;
use crate::statement::ast;

/// The schema of unqualified names that a request asks for.
pub(crate) fn default_schema(requested: Option<&str>, tables: &Tables) -> String {
    let requested = unaliased(requested.unwrap_or_default());
    if tables.has_schema(requested) {
        return requested.to_owned();
    }
    let lower = requested.to_lowercase();
    let any_case = tables.schemas().into_iter().find(|schema| schema.to_lowercase() == lower);
    any_case.unwrap_or(unaliased(&lower)).to_owned()
}

/// Writes the names in `statement` as they are meant, and gives the tables that it reads.
///
/// # Errors
/// [`QueryError::UnknownTable`], [`QueryError::UnknownSchema`].
pub(crate) fn resolve(
    statement: &mut DfStatement,
    tables: &Tables,
    default_schema: &str,
) -> Result<BTreeSet<TableName>, QueryError> {
    let mut defined = Defined::default();
    if let Some(ast) = ast(statement) {
        let _ = ast.visit(&mut defined);
        let _ = ast.visit(&mut Relations { tables, default_schema, defined: &defined });
        qualify_show_columns(ast, default_schema);
    }
    let read = read(statement, tables, default_schema, &defined)?;
    if let Some(ast) = ast(statement) {
        columns::rename(ast, tables, default_schema, &read, &defined);
    }
    Ok(read)
}

/// The table that `name` in `REFRESH TABLE name` means.
///
/// # Errors
/// As [`resolve`].
pub(crate) fn one(name: &ObjectName, tables: &Tables, default_schema: &str) -> Result<TableName, QueryError> {
    table_of(&meant(name, tables, default_schema)?, tables, default_schema)
}

/// The table that a statement which changes it means.
///
/// # Errors
/// As [`resolve`]; [`QueryError::Plan`] for a table that is not the users' to change.
pub(crate) fn changeable<'a>(
    name: &ObjectName,
    tables: &'a Tables,
    default_schema: &str,
) -> Result<&'a TableInfo, QueryError> {
    let reference = meant(name, tables, default_schema)?;
    check_schema(reference.schema().unwrap_or(default_schema), tables)?;
    let name = table_of(&reference, tables, default_schema)?;
    tables.get(&name.schema, &name.table).ok_or_else(|| unknown_table(&name, tables))
}

/// The name that `CREATE TABLE name` means: of the table that is there in another case of letters, else a new one.
///
/// # Errors
/// [`QueryError::Plan`] for a name that no table of users may have.
pub(crate) fn new_table(name: &ObjectName, tables: &Tables, default_schema: &str) -> Result<TableName, QueryError> {
    let reference = meant(name, tables, default_schema)?;
    if reference.catalog().is_some_and(|catalog| catalog != CATALOG) {
        return Err(QueryError::Plan(format!("there is one database, {CATALOG}; leave it away: schema.table")));
    }
    let schema = reference.schema().unwrap_or(default_schema);
    check_schema(schema, tables)?;
    for (what, part) in [("schema", schema), ("table", reference.table())] {
        check_name(what, part).map_err(|e| QueryError::Plan(e.to_string()))?;
    }
    Ok(TableName::new(schema, reference.table()))
}

/// The column of a table that `column` means.
///
/// # Errors
/// [`QueryError::UnknownColumn`].
pub(crate) fn column<'a>(column: &Ident, table: &'a TableInfo) -> Result<&'a Column, QueryError> {
    let wanted = folded(column);
    let columns = table.schema.columns();
    let exact = columns.iter().find(|known| *known.name == *wanted);
    let any_case = || columns.iter().find(|known| column.quote_style.is_none() && known.name.to_lowercase() == wanted);
    exact.or_else(any_case).ok_or_else(|| {
        let near = names::close(&wanted, columns.iter().map(|known| &*known.name));
        QueryError::UnknownColumn { name: names::quoted(&wanted), near: near.into_iter().map(names::quoted).collect() }
    })
}

/// Schemas whose tables statements only read.
fn check_schema(schema: &str, tables: &Tables) -> Result<(), QueryError> {
    if schema == SYSTEM || is_servers_own(schema, tables) {
        return Err(QueryError::Plan(format!("tables of schema {schema} are the server's own and can only be read")));
    }
    Ok(())
}

fn meant(name: &ObjectName, tables: &Tables, default_schema: &str) -> Result<TableReference, QueryError> {
    let (defined, mut name) = (Defined::default(), name.clone());
    Relations { tables, default_schema, defined: &defined }.rename(&mut name);
    reference(&name).ok_or_else(|| QueryError::UnknownTable { name: name.to_string(), near: Vec::new() })
}

/// A name of one to three parts.
fn reference(name: &ObjectName) -> Option<TableReference> {
    let parts: Vec<String> = name.0.iter().map(|part| part.as_ident().map(folded)).collect::<Option<_>>()?;
    match parts.as_slice() {
        [table] => Some(TableReference::bare(table.as_str())),
        [schema, table] => Some(TableReference::partial(schema.as_str(), table.as_str())),
        [catalog, schema, table] => Some(TableReference::full(catalog.as_str(), schema.as_str(), table.as_str())),
        _ => None,
    }
}

/// A name as SQL compares it.
pub(crate) fn folded(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

/// A name that is taken as it is.
pub(crate) fn exactly(name: &str) -> Ident {
    Ident::with_quote('"', name)
}

/// The names that a statement defines itself, folded.
#[derive(Default)]
struct Defined {
    ctes: HashSet<String>,
    /// Of columns and tables, CTEs among them.
    aliases: HashSet<String>,
    functions: HashSet<String>,
}

impl Defined {
    fn alias(&mut self, alias: &TableAlias) {
        self.aliases.insert(folded(&alias.name));
        self.aliases.extend(alias.columns.iter().map(|column| folded(&column.name)));
    }
}

impl VisitorMut for Defined {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.ctes.insert(folded(&cte.alias.name));
            self.alias(&cte.alias);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        for item in &select.projection {
            match item {
                SelectItem::ExprWithAlias { alias, .. } => drop(self.aliases.insert(folded(alias))),
                SelectItem::ExprWithAliases { aliases, .. } => self.aliases.extend(aliases.iter().map(folded)),
                SelectItem::UnnamedExpr(_) | SelectItem::QualifiedWildcard(..) | SelectItem::Wildcard(_) => {}
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Table { name, args, alias, .. } => {
                if args.is_some() {
                    self.functions
                        .insert(name.0.first().and_then(ObjectNamePart::as_ident).map_or_else(String::new, folded));
                }
                alias.iter().for_each(|alias| self.alias(alias));
            }
            TableFactor::Derived { alias, .. }
            | TableFactor::TableFunction { alias, .. }
            | TableFactor::Function { alias, .. }
            | TableFactor::UNNEST { alias, .. }
            | TableFactor::NestedJoin { alias, .. } => alias.iter().for_each(|alias| self.alias(alias)),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// Renames tables to what they are called.
struct Relations<'a> {
    tables: &'a Tables,
    default_schema: &'a str,
    defined: &'a Defined,
}

impl Relations<'_> {
    fn rename(&self, name: &mut ObjectName) {
        let mut idents: Vec<&mut Ident> = name
            .0
            .iter_mut()
            .filter_map(|part| match part {
                ObjectNamePart::Identifier(ident) => Some(ident),
                ObjectNamePart::Function(_) => None,
            })
            .collect();
        let (schema, table) = match idents.as_mut_slice() {
            [table] if self.defined.ctes.contains(&folded(table)) => return,
            [table] => (self.default_schema.to_owned(), table),
            [.., schema, table] => {
                rename_schema(schema, self.tables);
                (folded(schema), table)
            }
            [] => return,
        };
        let wanted = folded(table);
        if table.quote_style.is_none()
            && self.tables.get(&schema, &wanted).is_none()
            && let Some(info) = self.tables.ignoring_case(&schema, &wanted)
        {
            **table = exactly(&info.name.table);
        }
    }
}

fn rename_schema(schema: &mut Ident, tables: &Tables) {
    let wanted = folded(schema);
    let meant = unaliased(&wanted);
    if meant != wanted {
        *schema = exactly(meant);
    } else if schema.quote_style.is_none() && !tables.has_schema(meant) {
        let any_case = tables.schemas().into_iter().find(|known| known.to_lowercase() == wanted);
        any_case.into_iter().for_each(|known| *schema = exactly(known));
    }
}

impl VisitorMut for Relations<'_> {
    type Break = ();

    fn pre_visit_relation(&mut self, relation: &mut ObjectName) -> ControlFlow<()> {
        self.rename(relation);
        ControlFlow::Continue(())
    }
}

/// `SHOW COLUMNS FROM t` would show those of every schema's `t`.
fn qualify_show_columns(statement: &mut Ast, default_schema: &str) {
    if let Ast::ShowColumns { show_options, .. } = statement
        && let Some(ShowStatementIn { parent_name: Some(name), .. }) = &mut show_options.show_in
        && name.0.len() == 1
    {
        name.0.insert(0, ObjectNamePart::Identifier(exactly(default_schema)));
    }
}

/// The tables that a statement reads.
fn read(
    statement: &DfStatement,
    tables: &Tables,
    default_schema: &str,
    defined: &Defined,
) -> Result<BTreeSet<TableName>, QueryError> {
    let (references, _) =
        resolve_table_references(statement, true).map_err(|error| QueryError::Plan(tidy(&error.strip_backtrace())))?;
    references
        .iter()
        .filter(|reference| !is_servers_own(reference.schema().unwrap_or(default_schema), tables))
        .filter(|reference| !defined.functions.contains(reference.table()))
        .map(|reference| table_of(reference, tables, default_schema))
        .collect()
}

/// Whether a schema's tables are made for each statement that reads them.
fn is_servers_own(schema: &str, tables: &Tables) -> bool {
    [INFORMATION_SCHEMA, PG_CATALOG].contains(&schema) || (schema == SYS && tables.has_sys())
}

fn table_of(reference: &TableReference, tables: &Tables, default_schema: &str) -> Result<TableName, QueryError> {
    let schema = reference.schema().unwrap_or(default_schema);
    if reference.catalog().is_some_and(|catalog| catalog != CATALOG) {
        return Err(QueryError::UnknownTable { name: reference.to_quoted_string(), near: Vec::new() });
    }
    if !tables.has_schema(schema) {
        let near = names::close(schema, tables.schemas().into_iter().chain([INFORMATION_SCHEMA]));
        let near = near.into_iter().map(names::quoted).collect();
        return Err(QueryError::UnknownSchema { name: names::quoted(schema), near });
    }
    match tables.get(schema, reference.table()) {
        Some(info) => Ok(info.name.clone()),
        None => Err(unknown_table(&TableName::new(schema, reference.table()), tables)),
    }
}

/// The error for a table that is not there.
pub(crate) fn unknown_table(name: &TableName, tables: &Tables) -> QueryError {
    QueryError::UnknownTable { name: crate::catalog::spelled(&name.schema, &name.table), near: tables.close_to(name) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::tests::tables;
    use crate::statement::{self, Statement};

    fn resolved(sql: &str) -> Result<(String, Vec<String>), QueryError> {
        let tables = tables(&[("public", "Env"), ("public", "bmp180"), ("Plant", "line")]);
        let Ok(Statement::Read(mut statement)) = statement::parse(sql) else { panic!("{sql}") };
        let read = resolve(&mut statement, &tables, "public")?;
        Ok((statement.to_string(), read.iter().map(ToString::to_string).collect()))
    }

    #[test]
    fn unquoted_names_find_what_differs_by_case() {
        for (sql, expected, read) in [
            ("SELECT temp FROM bmp180", "SELECT temp FROM bmp180", &["bmp180"][..]),
            ("SELECT Temp FROM BMP180", "SELECT Temp FROM BMP180", &["bmp180"]),
            ("SELECT humidity FROM env", r#"SELECT "Humidity" FROM "Env""#, &["Env"]),
            ("SELECT Env.DEVICE FROM ENV", r#"SELECT "Env"."Device" FROM "Env""#, &["Env"]),
            ("SELECT e.device FROM env e", r#"SELECT e."Device" FROM "Env" e"#, &["Env"]),
            ("SELECT env.* FROM env", r#"SELECT "Env".* FROM "Env""#, &["Env"]),
            ("SELECT doc.env.temp FROM doc.env", r#"SELECT "public"."Env".temp FROM "public"."Env""#, &["Env"]),
            ("SELECT 1 FROM iox.bmp180", r#"SELECT 1 FROM "public".bmp180"#, &["bmp180"]),
            ("SELECT 1 FROM plant.LINE", r#"SELECT 1 FROM "Plant".LINE"#, &["Plant.line"]),
            (
                "SELECT temp AS humidity FROM env ORDER BY humidity",
                r#"SELECT temp AS humidity FROM "Env" ORDER BY humidity"#,
                &["Env"],
            ),
            (
                "SELECT max(humidity) AS humidity FROM env WHERE humidity > 1",
                r#"SELECT max("Humidity") AS humidity FROM "Env" WHERE "Humidity" > 1"#,
                &["Env"],
            ),
            (
                "SELECT humidity FROM (SELECT max(humidity) AS humidity FROM env)",
                r#"SELECT humidity FROM (SELECT max("Humidity") AS humidity FROM "Env")"#,
                &["Env"],
            ),
            (
                "SELECT x.humidity FROM (SELECT humidity FROM env) x ORDER BY humidity",
                r#"SELECT x."Humidity" FROM (SELECT "Humidity" FROM "Env") x ORDER BY "Humidity""#,
                &["Env"],
            ),
            (
                "SELECT m.humidity, env.humidity FROM env JOIN (SELECT 1 AS humidity) m ON env.humidity = m.humidity",
                r#"SELECT m.humidity, "Env"."Humidity" FROM "Env" JOIN (SELECT 1 AS humidity) m ON "Env"."Humidity" = m.humidity"#,
                &["Env"],
            ),
            (
                "SELECT temp FROM bmp180 b WHERE EXISTS (SELECT 1 FROM env WHERE env.humidity = b.humidity)",
                r#"SELECT temp FROM bmp180 b WHERE EXISTS (SELECT 1 FROM "Env" WHERE "Env"."Humidity" = b."Humidity")"#,
                &["Env", "bmp180"],
            ),
            (
                "SELECT humidity FROM env UNION ALL SELECT humidity FROM bmp180 ORDER BY humidity",
                r#"SELECT "Humidity" FROM "Env" UNION ALL SELECT "Humidity" FROM bmp180 ORDER BY "Humidity""#,
                &["Env", "bmp180"],
            ),
            (
                "WITH env AS (SELECT 1 AS x) SELECT env.x FROM env",
                "WITH env AS (SELECT 1 AS x) SELECT env.x FROM env",
                &[],
            ),
            (
                "SELECT * FROM bmp180 WHERE device IN (SELECT device FROM env)",
                r#"SELECT * FROM bmp180 WHERE "Device" IN (SELECT "Device" FROM "Env")"#,
                &["Env", "bmp180"],
            ),
            ("EXPLAIN SELECT humidity FROM env", r#"EXPLAIN SELECT "Humidity" FROM "Env""#, &["Env"]),
            ("SELECT * FROM information_schema.tables", "SELECT * FROM information_schema.tables", &[]),
            ("SELECT * FROM generate_series(1, 2)", "SELECT * FROM generate_series(1, 2)", &[]),
            ("SHOW COLUMNS FROM env", r#"SHOW COLUMNS FROM "public"."Env""#, &["Env"]),
        ] {
            let (shown, tables) = resolved(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
            assert_eq!(shown, expected);
            assert_eq!(tables, read, "{sql}");
        }
    }

    #[test]
    fn subscripts_of_an_unknown_name_are_the_path_of_a_column() {
        for (sql, expected) in [
            ("SELECT motor['current']['L1'] FROM env", r#"SELECT "motor.current.L1" FROM "Env""#),
            ("SELECT Motor['current']['l1'] + 1 FROM env e", r#"SELECT "motor.current.L1" + 1 FROM "Env" e"#),
            (
                "SELECT 1 FROM env e WHERE e.motor['current']['l1'] > 2",
                r#"SELECT 1 FROM "Env" e WHERE e."motor.current.L1" > 2"#,
            ),
            // What is a column, a name of the statement, or no such path stays.
            ("SELECT temp['current'] FROM env", r#"SELECT temp['current'] FROM "Env""#),
            ("SELECT motor['current'] FROM env", r#"SELECT motor['current'] FROM "Env""#),
            ("SELECT motor[1] FROM env", r#"SELECT motor[1] FROM "Env""#),
            (
                "WITH m AS (SELECT 1 AS motor) SELECT motor['current']['l1'] FROM m, env",
                r#"WITH m AS (SELECT 1 AS motor) SELECT motor['current']['l1'] FROM m, "Env""#,
            ),
        ] {
            assert_eq!(resolved(sql).unwrap().0, expected);
        }
    }

    #[test]
    fn quoted_names_are_taken_as_they_are() {
        assert!(matches!(resolved(r#"SELECT 1 FROM "env""#), Err(QueryError::UnknownTable { .. })));
        assert_eq!(resolved(r#"SELECT "humidity" FROM "Env""#).unwrap().0, r#"SELECT "humidity" FROM "Env""#);
    }

    #[test]
    fn unknown_names_come_with_what_is_close() {
        for (sql, expected) in [
            ("SELECT 1 FROM bmp18", "table bmp18 unknown; did you mean bmp180?"),
            ("SELECT 1 FROM line", r#"table line unknown; did you mean "Plant".line?"#),
            ("SELECT 1 FROM plnt.line", r#"schema plnt unknown; did you mean "Plant"?"#),
            ("SELECT 1 FROM other.public.bmp180", "table other.public.bmp180 unknown"),
            ("SELECT 1 FROM '/etc/passwd'", r#"table "/etc/passwd" unknown"#),
        ] {
            assert_eq!(resolved(sql).unwrap_err().to_string(), expected, "{sql}");
        }
    }

    #[test]
    fn the_default_schema_has_aliases_and_any_case() {
        let tables = tables(&[("Plant", "line")]);
        for (requested, expected) in [
            (None, "public"),
            (Some(""), "public"),
            (Some("doc"), "public"),
            (Some("IOX"), "public"),
            (Some("plant"), "Plant"),
            (Some("unheard"), "unheard"),
        ] {
            assert_eq!(default_schema(requested, &tables), expected, "{requested:?}");
        }
    }
}
