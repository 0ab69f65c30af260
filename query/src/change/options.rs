//! The options of a table: `WITH (retention = '90d')`.
//!
//! Owns:     which options there are, and how their values are written.
//! Does not: keep or follow them (`storage` does).

use std::time::Duration;

use datafusion::sql::sqlparser::ast::{Expr, Ident, SqlOption, Value};
use model::time_text;
use storage::TableOptions;

use crate::error::QueryError;
use crate::names;
use crate::resolve::folded;

const RETENTION: &str = "retention";

/// A retention without end, whatever the default is.
const FOREVER: &str = "forever";

/// The options that `given` sets; the others are not.
///
/// # Errors
/// [`QueryError::Plan`] for what is no option, stands there twice, or has no value of its kind.
pub(super) fn set(given: &[SqlOption]) -> Result<TableOptions, QueryError> {
    let mut options = TableOptions::default();
    for option in given {
        let SqlOption::KeyValue { key, value } = option else { return Err(QueryError::Plan(wrong_form())) };
        check_key(key)?;
        if options.retention.replace(retention(value)?).is_some() {
            return Err(twice());
        }
    }
    Ok(options)
}

/// The options when those of these names are as if never set.
///
/// # Errors
/// [`QueryError::Plan`] for what is no option or stands there twice.
pub(super) fn reset(keys: &[Ident]) -> Result<TableOptions, QueryError> {
    keys.iter().try_for_each(check_key)?;
    if keys.len() > 1 {
        return Err(twice());
    }
    // There is one option, so nothing of the others is lost.
    Ok(TableOptions::default())
}

fn check_key(key: &Ident) -> Result<(), QueryError> {
    let name = folded(key);
    if name == RETENTION {
        return Ok(());
    }
    Err(QueryError::Plan(format!("option {} unknown; there is {RETENTION}: {RETENTION} = '90d'", names::quoted(&name))))
}

fn twice() -> QueryError {
    QueryError::Plan(format!("{RETENTION} stands there twice"))
}

fn wrong_form() -> String {
    format!("options are written name = value: {RETENTION} = '90d'")
}

fn retention(value: &Expr) -> Result<Duration, QueryError> {
    let text = match value {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text.trim()),
            _ => None,
        },
        _ => None,
    };
    match text {
        Some(text) if text.eq_ignore_ascii_case(FOREVER) => Ok(Duration::MAX),
        text => text
            .and_then(time_text::span)
            .filter(|retention| retention.as_secs() > 0 && retention.subsec_nanos() == 0)
            .ok_or_else(|| {
                QueryError::Plan(format!(
                    "{RETENTION} is a text of a whole number and s, m, h or d, at least a second, or '{FOREVER}': \
                     {RETENTION} = '90d'"
                ))
            }),
    }
}
