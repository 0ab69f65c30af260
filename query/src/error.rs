//! What can go wrong with a statement, by what the caller can do about it.
//!
//! Owns:     the kinds of errors and their wording for people.
//! Does not: find out which shard a reader failed at (`damage` does).

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use datafusion::common::{Column, SchemaError};
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;
use storage::StorageError;

use crate::names;

/// An error of one statement.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// Not SQL.
    #[error("{message} (line {line}, column {column})")]
    Syntax {
        /// What the parser expected and found.
        message: String,
        /// Line of the statement, from 1.
        line: u64,
        /// Character of that line, from 1.
        column: u64,
    },
    /// There is no such table.
    #[error("table {name} unknown{}", suggest(.near))]
    UnknownTable {
        /// As the statement means it.
        name: String,
        /// Tables with similar names, as SQL spells them.
        near: Vec<String>,
    },
    /// There is no such column.
    #[error("column {name} unknown{}", suggest(.near))]
    UnknownColumn {
        /// As the statement means it.
        name: String,
        /// Columns with similar names, as SQL spells them.
        near: Vec<String>,
    },
    /// There is no such schema.
    #[error("schema {name} unknown{}", suggest(.near))]
    UnknownSchema {
        /// As the statement means it.
        name: String,
        /// Schemas with similar names, as SQL spells them.
        near: Vec<String>,
    },
    /// There is such a table already.
    #[error("table {name} exists; CREATE TABLE IF NOT EXISTS leaves it as it is")]
    TableExists {
        /// As SQL spells it.
        name: String,
    },
    /// The statement would change something, and who sent it may only read.
    #[error("{statement} changes something, and here is only read; send it to POST /_sql or use `eden sql`")]
    ReadOnly {
        /// What would change something: `DELETE`.
        statement: &'static str,
    },
    /// SQL, but none that runs here. Says what does.
    #[error("{0}")]
    Unsupported(String),
    /// The statement contradicts itself, its tables or its data: types, arguments, a division by zero.
    #[error("{0}")]
    Plan(String),
    /// As many statements run and wait as may. Try again after the time given.
    #[error("{running} statements are running and {waiting} are waiting; try again in {} s", .retry_after.as_secs().max(1))]
    Busy {
        /// Statements running.
        running: usize,
        /// Statements waiting for one of those.
        waiting: usize,
        /// When it is worth trying again.
        retry_after: Duration,
    },
    /// The statement needs more memory than all statements together may have, and cannot spill more of it.
    #[error(
        "the statement needs more than the {limit_bytes} bytes of memory that queries may use; narrow its time \
         range, group by fewer values, or raise `[query] memory` ({detail})"
    )]
    MemoryLimit {
        /// The limit of all statements together.
        limit_bytes: usize,
        /// Who asked for how much.
        detail: String,
    },
    /// The statement spilled more than may be spilled.
    #[error(
        "the statement spilled more than the {limit_bytes} bytes of disk that queries may use; narrow its time range"
    )]
    SpillLimit {
        /// The limit of all statements together.
        limit_bytes: u64,
    },
    /// The statement took too long.
    #[error("the statement ran for more than {} s; narrow its time range or raise `[query] timeout`", .limit.as_secs_f64())]
    Timeout {
        /// The limit.
        limit: Duration,
    },
    /// The caller went away, or the server is stopping.
    #[error("the statement was cancelled")]
    Cancelled,
    /// Somebody ended it.
    #[error("the statement was ended by KILL {id} from {by}")]
    Killed {
        /// Its number in `system.queries`.
        id: u64,
        /// Whom that came from.
        by: String,
    },
    /// A file of a table does not hold what was written to it (P11). An operator decides.
    #[error(
        "{} is corrupt: {reason}; `eden check` examines all files, `eden repair` sets it aside{}",
        .path.display(), without(.path)
    )]
    Corrupt {
        /// The file; a shard below `DATA/tables`.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A statement ended while storage was carrying it out, which may still succeed.
    #[error("{cause}; {statement} goes on in the server and may still succeed")]
    Pending {
        /// Which: `CREATE TABLE`.
        statement: &'static str,
        /// What ended the waiting.
        cause: Box<QueryError>,
    },
    /// A statement ended when it had changed some of its rows. What it did stays done.
    #[error(
        "{statement} ended after {} rows: {cause}; what it did stays done, and running it again does the rest",
        range(*.done_rows, *.begun_rows)
    )]
    Unfinished {
        /// Which: `DELETE`.
        statement: &'static str,
        /// Rows that are changed for certain.
        done_rows: u64,
        /// Rows that may be changed.
        begun_rows: u64,
        /// What ended it.
        cause: Box<QueryError>,
    },
    /// Storage failed.
    #[error(transparent)]
    Storage(StorageError),
    /// A bug here or in DataFusion.
    #[error("internal error: {0}")]
    Internal(String),
}

fn suggest(near: &[String]) -> String {
    match near {
        [] => String::new(),
        [one] => format!("; did you mean {one}?"),
        [first @ .., last] => format!("; did you mean {} or {last}?", first.join(", ")),
    }
}

/// How to read on without a shard. Other files a table cannot be read without.
fn without(path: &Path) -> &'static str {
    match path.extension() {
        Some(extension) if extension == "parquet" => {
            "; `eden sql --skip-damaged`, or a request with X-Eden-Skip-Damaged: true, goes on without it and says so"
        }
        _ => "",
    }
}

/// `10`, or `10 to 20` while nobody knows.
fn range(at_least: u64, at_most: u64) -> String {
    if at_least == at_most { at_least.to_string() } else { format!("{at_least} to {at_most}") }
}

/// The limits that an error names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) memory_bytes: usize,
    pub(crate) spill_bytes: u64,
}

impl QueryError {
    /// What went wrong, without how far the statement had come.
    pub fn root(&self) -> &QueryError {
        match self {
            QueryError::Pending { cause, .. } | QueryError::Unfinished { cause, .. } => cause.root(),
            error => error,
        }
    }

    /// An error of storage; a corrupt file is one of ours, and so is a statement that asks for what cannot be.
    pub(crate) fn storage(error: StorageError) -> QueryError {
        match error {
            StorageError::Corrupt { path, reason } => QueryError::Corrupt { path, reason },
            StorageError::Invalid(reason) => QueryError::Plan(reason),
            error => QueryError::Storage(error),
        }
    }

    /// An error of the parser. `sql` is the statement.
    pub(crate) fn syntax(error: &ParserError, sql: &str) -> QueryError {
        let message = match error {
            ParserError::TokenizerError(message) | ParserError::ParserError(message) => message.as_str(),
            ParserError::RecursionLimitExceeded => "the statement is nested too deeply",
        };
        let (message, position) = split_position(message);
        // The parser names no place for what is missing at the end.
        let (line, column) = position.unwrap_or_else(|| {
            let last = sql.lines().last().unwrap_or_default();
            (sql.lines().count().max(1) as u64, last.chars().count() as u64 + 1)
        });
        QueryError::Syntax { message: decapitalized(message), line, column }
    }

    /// An error of DataFusion, unless a shard is to blame for it.
    pub(crate) fn datafusion(error: &DataFusionError, limits: Limits) -> QueryError {
        match error.find_root() {
            DataFusionError::SchemaError(error, _) => schema(error),
            DataFusionError::ResourcesExhausted(message) if message.contains("used disk space") => {
                QueryError::SpillLimit { limit_bytes: limits.spill_bytes }
            }
            DataFusionError::ResourcesExhausted(message) => {
                // The lines that follow list the consumers.

                let detail = message.lines().last().unwrap_or_default().trim_end_matches('.').to_owned();
                QueryError::MemoryLimit { limit_bytes: limits.memory_bytes, detail }
            }
            DataFusionError::NotImplemented(message) => QueryError::Unsupported(tidy(message)),
            DataFusionError::Plan(message)
            | DataFusionError::Execution(message)
            | DataFusionError::Configuration(message) => QueryError::Plan(tidy(message)),
            DataFusionError::ArrowError(error, _) => QueryError::Plan(tidy(&error.to_string())),
            DataFusionError::SQL(error, _) => QueryError::Plan(tidy(&error.to_string())),
            DataFusionError::Internal(message) => QueryError::Internal(tidy(message)),
            // That of a pattern comes as it is.
            DataFusionError::External(error) if error.to_string().starts_with("regex parse error") => {
                QueryError::Plan(tidy(&error.to_string()))
            }
            error => QueryError::Internal(tidy(&error.strip_backtrace())),
        }
    }
}

fn schema(error: &SchemaError) -> QueryError {
    let spelled = |column: &Column| match &column.relation {
        Some(table) => format!("{}.{}", names::quoted(table.table()), names::quoted(&column.name)),
        None => names::quoted(&column.name),
    };
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let near = names::close(&field.name, valid_fields.iter().map(|column| column.name.as_str()));
            QueryError::UnknownColumn { name: spelled(field), near: near.into_iter().map(names::quoted).collect() }
        }
        SchemaError::AmbiguousReference { field } => {
            QueryError::Plan(format!("column {} is in more than one table; write the table before it", spelled(field)))
        }
        SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
            QueryError::Plan(format!("two columns are named {}; give one another name with AS", names::quoted(name)))
        }
    }
}

/// Prefixes by which DataFusion and Arrow say where an error comes from, not what it is.
const PREFIXES: [&str; 13] = [
    "DataFusion error: ",
    "Error during planning: ",
    "Schema error: ",
    "SQL error: ",
    "This feature is not implemented: ",
    "Execution error: ",
    "Arrow error: ",
    "External error: ",
    "External: ",
    "Parquet error: ",
    "Compute error: ",
    "Cast error: ",
    "Invalid argument error: ",
];

/// A message without those prefixes, as a sentence of ours begins and ends.
pub(crate) fn tidy(message: &str) -> String {
    let mut message = message.split("\n\nbacktrace:").next().unwrap_or_default().trim();
    // What a function says of its arguments itself is followed by less.
    if let Some((_, said)) = message.split_once("user-defined coercion failed with: ") {
        message = said.split(" No function matches").next().unwrap_or_default().trim();
    }
    // What comes before repeats it once for each type that a function takes.
    if let Some(at) = message.find("No function matches the given name") {
        message = &message[at..];
    }
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| message.strip_prefix(prefix)) {
        message = rest;
    }
    decapitalized(message.trim_end_matches('.'))
}

/// Lower case at the start, except for what is written in capitals: `SELECT`, `X`.
fn decapitalized(message: &str) -> String {
    let mut chars = message.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), Some(second)) if first.is_uppercase() && second.is_lowercase() => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => message.to_owned(),
    }
}

/// Takes the place off a parser's message.
fn split_position(message: &str) -> (&str, Option<(u64, u64)>) {
    let found = || {
        let (text, place) = message.rsplit_once(" at Line: ")?;
        let (line, column) = place.split_once(", Column: ")?;
        Some((text, (line.trim().parse().ok()?, column.trim().parse().ok()?)))
    };
    match found() {
        Some((text, position)) => (text, Some(position)),
        None => (message, None),
    }
}

/// An error of type `E` anywhere below `error`.
pub(crate) fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { memory_bytes: 1000, spill_bytes: 2000 };

    #[test]
    fn messages_are_for_people() {
        let plan = |text: &str| DataFusionError::Plan(text.into());
        for (error, expected) in [
            (plan("Invalid function 'summ'."), "invalid function 'summ'"),
            (plan("Error during planning: SUM of text."), "SUM of text"),
            (DataFusionError::Context("type_coercion".into(), Box::new(plan("No."))), "no"),
            (DataFusionError::Collection(vec![plan("One."), plan("Two.")]), "one"),
            (plan("Internal error: Function.\nThis. No function matches the given name"), "no function matches"),
            (
                plan(
                    "Function 'f' user-defined coercion failed with: Error during planning: f takes 2 arguments. No function matches x",
                ),
                "f takes 2 arguments",
            ),
            (DataFusionError::NotImplemented("PIVOT".into()), "PIVOT"),
            (DataFusionError::Internal("oops".into()), "internal error: oops"),
        ] {
            let shown = QueryError::datafusion(&error, LIMITS).to_string();
            assert!(shown.starts_with(expected), "{shown:?} for {error}");
        }
    }

    #[test]
    fn an_unknown_column_names_what_is_close() {
        let error = SchemaError::FieldNotFound {
            field: Box::new(Column::from_name("temperatur")),
            valid_fields: ["Temperature", "time", "pressure"].into_iter().map(Column::from_name).collect(),
        };
        assert_eq!(schema(&error).to_string(), "column temperatur unknown; did you mean \"Temperature\"?");
    }

    #[test]
    fn a_memory_limit_names_the_limit_and_the_remedy() {
        let error = DataFusionError::ResourcesExhausted("Top:\n  a\nError: Failed to allocate 5 B.".into());
        let shown = QueryError::datafusion(&error, LIMITS).to_string();
        assert!(shown.contains("1000 bytes") && shown.contains("`[query] memory`"), "{shown}");
    }

    #[test]
    fn positions_come_off_the_message() {
        for (message, expected) in [
            ("Expected: x, found: y at Line: 2, Column: 7", ("Expected: x, found: y", Some((2, 7)))),
            ("no place", ("no place", None)),
            ("odd at Line: x, Column: 7", ("odd at Line: x, Column: 7", None)),
        ] {
            assert_eq!(split_position(message), expected);
        }
    }
}
