//! What failed, as PostgreSQL says it: SQLSTATE, message, hint and place.
//!
//! Owns:     the codes. Source: PostgreSQL's documentation, appendix "PostgreSQL Error Codes".
//! Does not: word what went wrong: whoever failed did.

use pgwire::messages::response::{ErrorResponse, NoticeResponse};
use query::QueryError;
use storage::StorageError;

use super::encode::Unsendable;
use super::read::Bad;
use crate::app::Unavailable;

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    severity: &'static str,
    code: &'static str,
    message: Box<str>,
    hint: Option<Box<str>>,
    detail: Option<Box<str>>,
    /// Line and column in the statement, from 1.
    place: Option<(u64, u64)>,
    /// Character of what was sent, from 1.
    position: Option<usize>,
}

impl Failed {
    /// A statement that failed.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into().into_boxed_str();
        Failed { severity: "ERROR", code, message, hint: None, detail: None, place: None, position: None }
    }

    /// With what may help.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Failed { hint: Some(hint.into().into_boxed_str()), ..self }
    }

    /// With more about it.
    #[must_use]
    pub fn detail(self, detail: impl Into<String>) -> Self {
        Failed { detail: Some(detail.into().into_boxed_str()), ..self }
    }

    /// The connection ends with it.
    #[must_use]
    pub fn fatal(self) -> Self {
        Failed { severity: "FATAL", ..self }
    }

    /// Whether the connection ends with it.
    pub fn is_fatal(&self) -> bool {
        self.severity == "FATAL"
    }

    /// Its SQLSTATE.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// What is said to people.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// In the statement that begins at byte `start` of `text`, which the client sent.
    #[must_use]
    pub fn within(mut self, text: &str, start: usize) -> Self {
        if let Some((line, column)) = self.place.take() {
            let statement = text.get(start..).unwrap_or_default();
            let before: usize =
                statement.split_inclusive('\n').take(line.saturating_sub(1) as usize).map(|l| l.chars().count()).sum();
            let ahead = text.get(..start).unwrap_or_default().chars().count();
            self.position = Some(ahead + before + column as usize);
        }
        self
    }

    /// The message to the client.
    pub fn response(&self) -> ErrorResponse {
        ErrorResponse::new(self.fields())
    }

    fn fields(&self) -> Vec<(u8, String)> {
        let clean = |text: &str| text.replace('\0', "");
        let mut fields = vec![
            (b'S', self.severity.to_owned()),
            (b'V', self.severity.to_owned()),
            (b'C', self.code.to_owned()),
            (b'M', clean(&self.message)),
        ];
        fields.extend(self.detail.as_deref().map(|detail| (b'D', clean(detail))));
        fields.extend(self.hint.as_deref().map(|hint| (b'H', clean(hint))));
        fields.extend(self.position.map(|position| (b'P', position.to_string())));
        fields
    }
}

/// A warning beside a success.
pub fn warning(code: &str, message: impl Into<String>) -> NoticeResponse {
    let severity = || "WARNING".to_owned();
    NoticeResponse::new(vec![(b'S', severity()), (b'V', severity()), (b'C', code.to_owned()), (b'M', message.into())])
}

/// What the client asked for is not to be had in this state.
pub fn protocol(message: &'static str) -> Failed {
    Failed::new("08P01", message)
}

impl From<Bad> for Failed {
    fn from(bad: Bad) -> Self {
        let code = if matches!(bad, Bad::TooLarge { .. }) { "54000" } else { "08P01" };
        Failed::new(code, bad.to_string()).fatal()
    }
}

impl From<Unavailable> for Failed {
    fn from(reason: Unavailable) -> Self {
        Failed::new("57P03", reason.to_string())
    }
}

impl From<Unsendable> for Failed {
    fn from(error: Unsendable) -> Self {
        Failed::new("22P03", error.to_string())
    }
}

impl From<StorageError> for Failed {
    fn from(error: StorageError) -> Self {
        let code = of_storage(&error);
        if code.starts_with("58") || code.starts_with("XX") {
            tracing::warn!(%error, "a statement over PostgreSQL's protocol failed");
        }
        Failed::new(code, error.to_string())
    }
}

fn of_storage(error: &StorageError) -> &'static str {
    match error {
        StorageError::Invalid(_) => "22000",
        StorageError::Busy { .. } => "53000",
        StorageError::Closed | StorageError::Poisoned => "57P03",
        StorageError::Corrupt { .. } => "XX001",
        _ => "58030",
    }
}

impl From<QueryError> for Failed {
    fn from(error: QueryError) -> Self {
        let code = match error.root() {
            QueryError::Syntax { .. } => "42601",
            QueryError::UnknownTable { .. } => "42P01",
            QueryError::UnknownColumn { .. } => "42703",
            QueryError::UnknownSchema { .. } => "3F000",
            QueryError::TableExists { .. } => "42P07",
            QueryError::ReadOnly { .. } => "25006",
            QueryError::Unsupported(_) => "0A000",
            QueryError::Plan(message) => of_plan(message),
            QueryError::Busy { .. } => "53000",
            QueryError::MemoryLimit { .. } => "53200",
            QueryError::SpillLimit { .. } => "53400",
            QueryError::Timeout { .. } | QueryError::Cancelled | QueryError::Killed { .. } => "57014",
            QueryError::Corrupt { .. } => "XX001",
            QueryError::Storage(error) => of_storage(error),
            // The last two are no roots.
            QueryError::Internal(_) | QueryError::Pending { .. } | QueryError::Unfinished { .. } => "XX000",
        };
        if code.starts_with("XX") || code.starts_with("58") {
            tracing::warn!(%error, code, "a statement over PostgreSQL's protocol failed");
        }
        match error {
            QueryError::Syntax { message, line, column } => {
                Failed { place: Some((line, column)), ..Failed::new(code, message) }
            }
            // What may have been meant is a hint there.
            QueryError::UnknownTable { name, near } => {
                meant(Failed::new(code, format!("relation {name} does not exist")), &near)
            }
            QueryError::UnknownColumn { name, near } => {
                meant(Failed::new(code, format!("column {name} does not exist")), &near)
            }
            QueryError::UnknownSchema { name, near } => {
                meant(Failed::new(code, format!("schema {name} does not exist")), &near)
            }
            QueryError::ReadOnly { statement } => {
                Failed::new(code, format!("cannot execute {statement} in a read-only transaction"))
            }
            error => Failed::new(code, error.to_string()),
        }
    }
}

fn meant(failed: Failed, near: &[String]) -> Failed {
    match near {
        [] => failed,
        near => failed.hint(format!("Perhaps you meant {}.", near.join(" or "))),
    }
}

/// Of what contradicts itself, the kinds that clients tell apart.
fn of_plan(message: &str) -> &'static str {
    let message = message.to_ascii_lowercase();
    let has = |part: &str| message.contains(part);
    if has("divide by zero") {
        "22012"
    } else if has("cannot cast string") || has("error parsing") || has("cannot parse") {
        "22P02"
    } else if has("overflow") || has("out of range") {
        "22003"
    } else if has("invalid function") || has("no function matches") {
        "42883"
    } else if has("more than one table") {
        "42702"
    } else if has("group by") || has("aggregate") {
        "42803"
    } else {
        "42000"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(failed: &Failed, name: u8) -> Option<String> {
        failed.fields().into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    #[test]
    fn errors_have_the_codes_that_drivers_tell_apart() {
        let near = || vec!["bmp180".to_owned()];
        for (error, code, message, hint) in [
            (
                QueryError::UnknownTable { name: "bmp18".into(), near: near() },
                "42P01",
                "relation bmp18 does not exist",
                Some("Perhaps you meant bmp180."),
            ),
            (QueryError::UnknownColumn { name: "x".into(), near: vec![] }, "42703", "column x does not exist", None),
            (QueryError::Cancelled, "57014", "the statement was cancelled", None),
            (QueryError::Plan("divide by zero error".into()), "22012", "divide by zero error", None),
            (
                QueryError::ReadOnly { statement: "DELETE" },
                "25006",
                "cannot execute DELETE in a read-only transaction",
                None,
            ),
        ] {
            let failed = Failed::from(error);
            assert_eq!((failed.code(), failed.message()), (code, message));
            assert_eq!(field(&failed, b'H').as_deref(), hint);
            assert_eq!(field(&failed, b'S').as_deref(), Some("ERROR"));
        }
    }

    #[test]
    fn the_place_of_an_error_counts_characters_of_all_that_was_sent() {
        let text = "SELECT 'ü';\nSELECT\n * FRM t";
        let start = text.rfind("SELECT").unwrap();
        let error = QueryError::Syntax { message: "no".into(), line: 2, column: 4 };
        let position: usize = field(&Failed::from(error).within(text, start), b'P').unwrap().parse().unwrap();
        assert_eq!(text.chars().skip(position - 1).collect::<String>(), "FRM t");
    }
}
