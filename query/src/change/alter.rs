//! `ALTER TABLE`.
//!
//! Owns:     what of it there is, and parsing `RESET (…)`, which the parser of SQL does not know.
//! Does not: know the table's columns (`apply` does).

use datafusion::sql::sqlparser::ast::{
    AlterColumnOperation, AlterTable, AlterTableOperation, ColumnDef, ColumnOption, Ident,
};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;
use model::name::check_column_name;

use super::{Alteration, Change, NewField, options, types};
use crate::error::QueryError;
use crate::resolve::folded;

/// Understands the statement.
///
/// # Errors
/// [`QueryError::Unsupported`] for what tables do not do, [`QueryError::Plan`] for what contradicts itself.
pub(super) fn parse(alter: AlterTable) -> Result<Change, QueryError> {
    let AlterTable { name, if_exists, only, operations, location, on_cluster, table_type, end_token: _ } = alter;
    if only || location.is_some() || on_cluster.is_some() || table_type.is_some() {
        return Err(unsupported("this clause of ALTER TABLE"));
    }
    let are_many = operations.len() > 1;
    let mut fields = Vec::new();
    for operation in operations {
        let alteration = match operation {
            AlterTableOperation::AddColumn { column_keyword: _, if_not_exists, column_def, column_position: None } => {
                fields.push(new_field(&column_def, if_not_exists)?);
                continue;
            }
            AlterTableOperation::AlterColumn {
                column_name,
                op: AlterColumnOperation::SetDataType { data_type, using: None, had_set: _ },
            } => Alteration::ChangeType { column: column_name, to: types::of_field(&data_type)? },
            AlterTableOperation::SetOptionsParens { options } => Alteration::Options(options::set(&options)?),
            AlterTableOperation::DropColumn { .. } => {
                return Err(unsupported("DROP COLUMN (UPDATE t SET c = NULL removes the values of c)"));
            }
            AlterTableOperation::RenameTable { .. } | AlterTableOperation::RenameColumn { .. } => {
                return Err(unsupported("RENAME"));
            }
            _ => return Err(unsupported("this form of ALTER TABLE")),
        };
        // Each is a commit of its own, and of two the second may fail.
        if are_many {
            return Err(unsupported("more than one change, other than ADD COLUMN, in one ALTER TABLE"));
        }
        return Ok(Change::AlterTable { name, if_exists, alteration });
    }
    Ok(Change::AlterTable { name, if_exists, alteration: Alteration::AddFields(fields) })
}

fn unsupported(what: &str) -> QueryError {
    QueryError::Unsupported(format!(
        "{what} is not supported; ALTER TABLE has ADD COLUMN c DOUBLE, ALTER COLUMN c SET DATA TYPE DOUBLE, \
         SET (retention = '90d') and RESET (retention)"
    ))
}

fn new_field(column: &ColumnDef, if_not_exists: bool) -> Result<NewField, QueryError> {
    let name = folded(&column.name);
    check_column_name("column", &name).map_err(|e| QueryError::Plan(e.to_string()))?;
    if column.options.iter().any(|option| option.option != ColumnOption::Null) {
        return Err(unsupported("a clause behind the type of a new column"));
    }
    Ok(NewField { name: name.as_str().into(), field_type: types::of_field(&column.data_type)?, if_not_exists })
}

/// `ALTER TABLE [IF EXISTS] t RESET (retention)`; `None` if it is no RESET. What comes behind is left in `parser`.
pub(crate) fn parse_reset(parser: &mut Parser<'_>) -> Result<Option<Change>, ParserError> {
    if !parser.parse_keywords(&[Keyword::ALTER, Keyword::TABLE]) {
        return Ok(None);
    }
    let if_exists = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
    let Ok(name) = parser.parse_object_name(false) else { return Ok(None) };
    if !parser.parse_keyword(Keyword::RESET) {
        return Ok(None);
    }
    parser.expect_token(&Token::LParen)?;
    let keys: Vec<Ident> = parser.parse_comma_separated(Parser::parse_identifier)?;
    parser.expect_token(&Token::RParen)?;
    Ok(Some(Change::ResetOptions { name, if_exists, keys }))
}
