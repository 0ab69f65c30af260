//! `CREATE TABLE`.
//!
//! Owns:     what of it there is: columns, a primary key of tags and `time`, options.
//! Does not: know which tables exist (`apply` does).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use datafusion::sql::sqlparser::ast::helpers::stmt_create_table::CreateTableBuilder;
use datafusion::sql::sqlparser::ast::{
    ColumnDef, ColumnOption, CreateTable, CreateTableOptions, DataType, Expr, IndexColumn, PrimaryKeyConstraint,
    TableConstraint,
};
use model::FieldType;
use model::name::check_column_name;
use storage::TableOptions;

use super::{Change, NewTable, options, types};
use crate::error::QueryError;
use crate::names;
use crate::resolve::folded;

/// The column that every table has.
pub(super) const TIME: &str = "time";

/// How it is written, for errors.
const FORM: &str = "CREATE TABLE t (device TEXT, temperature DOUBLE, time TIMESTAMP, PRIMARY KEY (device, time)) \
                    WITH (retention = '90d')";

/// Understands the statement.
///
/// # Errors
/// [`QueryError::Unsupported`] for what tables cannot have, [`QueryError::Plan`] for what contradicts itself.
pub(super) fn parse(create: CreateTable) -> Result<Change, QueryError> {
    check_form(&create)?;
    let mut columns = Columns::default();
    for column in &create.columns {
        columns.add(column)?;
    }
    for constraint in &create.constraints {
        match constraint {
            TableConstraint::PrimaryKey(key) => columns.set_key(key_columns(key)?)?,
            other => {
                let name = other.to_string();
                let name = name.split('(').next().unwrap_or_default().trim().to_owned();
                return Err(unsupported(&format!("the constraint {name}")));
            }
        }
    }
    let options = match &create.table_options {
        CreateTableOptions::None => TableOptions::default(),
        CreateTableOptions::With(given) => options::set(given)?,
        _ => return Err(unsupported("options without WITH")),
    };
    let table = columns.finish(options)?;
    Ok(Change::CreateTable { name: create.name, if_not_exists: create.if_not_exists, table })
}

/// Refuses the many clauses of other systems.
fn check_form(create: &CreateTable) -> Result<(), QueryError> {
    if create.query.is_some() {
        return Err(unsupported("AS with a query"));
    }
    if create.or_replace {
        return Err(unsupported("OR REPLACE"));
    }
    let understood = CreateTableBuilder::new(create.name.clone())
        .if_not_exists(create.if_not_exists)
        .columns(create.columns.clone())
        .constraints(create.constraints.clone())
        .table_options(create.table_options.clone())
        .build();
    if understood != *create {
        return Err(unsupported("a clause of this statement"));
    }
    Ok(())
}

fn unsupported(what: &str) -> QueryError {
    QueryError::Unsupported(format!("{what} is not supported in CREATE TABLE; it is written {FORM}"))
}

/// The columns of a primary key, folded.
fn key_columns(key: &PrimaryKeyConstraint) -> Result<Vec<String>, QueryError> {
    let plain = PrimaryKeyConstraint {
        name: key.name.clone(),
        index_name: None,
        index_type: None,
        columns: key.columns.clone(),
        index_options: Vec::new(),
        characteristics: None,
    };
    let column = |column: &IndexColumn| match &column.column.expr {
        Expr::Identifier(ident) if *column == ident.clone().into() => Ok(folded(ident)),
        _ => Err(unsupported("more than the name of a column in PRIMARY KEY")),
    };
    if plain != *key {
        return Err(unsupported("an index of PRIMARY KEY"));
    }
    key.columns.iter().map(column).collect()
}

/// What is declared so far.
#[derive(Default)]
struct Columns {
    /// By name in lower case, since Delta's readers do not tell names apart by case.
    names: HashMap<String, String>,
    /// Those but `time`, in order.
    declared: Vec<(String, DataType)>,
    key: Option<Vec<String>>,
}

impl Columns {
    fn add(&mut self, column: &ColumnDef) -> Result<(), QueryError> {
        let name = folded(&column.name);
        let is_time = name == TIME;
        if is_time {
            types::check_time(&column.data_type)?;
        } else {
            check_column_name("column", &name).map_err(|e| QueryError::Plan(e.to_string()))?;
        }
        if let Some(other) = self.names.insert(name.to_lowercase(), name.clone()) {
            return Err(QueryError::Plan(same_column(&name, &other)));
        }
        for option in &column.options {
            match &option.option {
                ColumnOption::Null if !is_time => {}
                ColumnOption::NotNull if is_time => {}
                ColumnOption::NotNull => {
                    return Err(unsupported(&format!(
                        "NOT NULL of column {}, which a reading may come without,",
                        names::quoted(&name)
                    )));
                }
                ColumnOption::PrimaryKey(key) => {
                    let alone = PrimaryKeyConstraint { columns: vec![column.name.clone().into()], ..key.clone() };
                    let columns = key_columns(&alone)?;
                    self.set_key(columns)?;
                }
                _ => return Err(unsupported(&format!("a clause of column {}", names::quoted(&name)))),
            }
        }
        if !is_time {
            self.declared.push((name, column.data_type.clone()));
        }
        Ok(())
    }

    fn set_key(&mut self, columns: Vec<String>) -> Result<(), QueryError> {
        match self.key.replace(columns) {
            None => Ok(()),
            Some(_) => Err(QueryError::Plan("a table has one primary key".into())),
        }
    }

    fn finish(self, options: TableOptions) -> Result<NewTable, QueryError> {
        if self.declared.is_empty() {
            return Err(QueryError::Plan(format!("a table needs a column beside time: {FORM}")));
        }
        let tags = self.tags()?;
        let in_key: HashSet<&str> = tags.iter().map(|tag| &**tag).collect();
        let fields = self.declared.iter().filter(|(name, _)| !in_key.contains(name.as_str()));
        let field =
            |(name, data_type): &(String, DataType)| Ok((Arc::from(name.as_str()), types::of_field(data_type)?));
        let fields = fields.map(field).collect::<Result<_, QueryError>>()?;
        Ok(NewTable { tags, fields, options })
    }

    /// In order of the primary key.
    fn tags(&self) -> Result<Vec<Arc<str>>, QueryError> {
        let Some(key) = &self.key else { return Ok(Vec::new()) };
        let Some((_, names)) = key.split_last().filter(|(last, _)| **last == TIME) else {
            let tags = key.iter().filter(|name| **name != TIME).map(|name| names::quoted(name));
            let meant: Vec<String> = tags.chain([TIME.to_owned()]).collect();
            let meant = meant.join(", ");
            return Err(QueryError::Plan(format!("a primary key is the tags and then time: PRIMARY KEY ({meant})")));
        };
        let declared: HashMap<&str, &DataType> =
            self.declared.iter().map(|(name, data_type)| (name.as_str(), data_type)).collect();
        let mut seen = HashSet::new();
        for name in names {
            let shown = names::quoted(name);
            let Some(data_type) = declared.get(name.as_str()) else {
                let near = names::close(name, self.declared.iter().map(|(declared, _)| declared.as_str()));
                let near = near.into_iter().map(names::quoted).collect();
                return Err(QueryError::UnknownColumn { name: shown, near });
            };
            if types::of_field(data_type)? != FieldType::Text {
                return Err(QueryError::Plan(format!(
                    "column {shown} is in the primary key and so a tag, and a tag is TEXT, not {data_type}"
                )));
            }
            if !seen.insert(name) {
                return Err(QueryError::Plan(format!("column {shown} is in the primary key twice")));
            }
        }
        Ok(names.iter().map(|name| Arc::from(name.as_str())).collect())
    }
}

fn same_column(name: &str, other: &str) -> String {
    if name == other {
        return format!("column {} stands there twice", names::quoted(name));
    }
    format!("column {} differs only by case from {}", names::quoted(name), names::quoted(other))
}
