//! The endpoints of InfluxDB's three versions to which clients write, and those that they ask before.
//!
//! Owns:     parameters, answers and their shapes, one module a version.
//! Does not: parse lines (`decode`) or store them (`storage`).

mod aside;
mod lines;
pub mod query;
pub(crate) mod schema;
pub mod v1;
pub mod v2;
pub mod v3;

use std::collections::HashMap;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use decode::line_protocol::Precision;
use storage::{StorageError, Unfit};

use super::answer::STARTING_RETRY;
use super::body::BodyError;
use lines::{Cause, Refused, RefusedLine, WriteError};

/// Tells how many lines were refused in all.
pub const REFUSED_HEADER: &str = "x-eden-refused";
/// Tells how many lines were refused by an answer that calls the write a success: they are in the quarantine.
pub const QUARANTINED_HEADER: &str = "x-eden-quarantined";

/// Refused lines that a text names.
const NAMED_MAX: usize = 10;

impl WriteError {
    /// The status that says it, and when it is worth trying again.
    fn status(&self) -> (StatusCode, Option<Duration>) {
        match self {
            WriteError::Body(BodyError::Busy) => (StatusCode::SERVICE_UNAVAILABLE, Some(STARTING_RETRY)),
            WriteError::Body(error) => (error.status(), None),
            WriteError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, Some(STARTING_RETRY)),
            WriteError::Panicked => (StatusCode::INTERNAL_SERVER_ERROR, None),
            WriteError::Storage { error: StorageError::Invalid(_), .. } => (StatusCode::UNPROCESSABLE_ENTITY, None),
            WriteError::Storage { error: StorageError::Busy { retry_after, .. }, .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, Some(*retry_after))
            }
            // Ours to mend, not the client's: it keeps the batch and comes back.
            WriteError::Storage { error, .. } => {
                tracing::warn!(%error, "a write could not be stored");
                (StatusCode::SERVICE_UNAVAILABLE, Some(STARTING_RETRY))
            }
        }
    }

    /// As [`WriteError::status`], for clients that forget a batch at any other 4xx than 413: a body that came too
    /// slowly is as good as any.
    fn status_for_old_clients(&self) -> (StatusCode, Option<Duration>) {
        match self.status() {
            (StatusCode::REQUEST_TIMEOUT, _) => (StatusCode::SERVICE_UNAVAILABLE, Some(STARTING_RETRY)),
            status => status,
        }
    }
}

/// Success, of which the header tells what is in the quarantine.
fn taken(refused: &Refused) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    if refused.total > 0 {
        response.headers_mut().insert(QUARANTINED_HEADER, HeaderValue::from(refused.total));
    }
    response
}

/// What versions 1 and 2 say of lines that cannot be parsed, one a line.
fn unparsable(lines: &[&RefusedLine]) -> String {
    let named = lines.iter().take(NAMED_MAX);
    let mut texts: Vec<_> =
        named.map(|line| format!("unable to parse '{}': {}", line.original, line.message)).collect();
    if lines.len() > NAMED_MAX {
        texts.push(format!("and {} more lines", lines.len() - NAMED_MAX));
    }
    texts.join("\n")
}

/// What versions 1 and 2 say of lines that were refused while others were stored. The words are those by which clients
/// know that sending the same again is no use.
fn partial(refused: &Refused) -> String {
    let grammar: Vec<_> = refused.lines.iter().filter(|line| is_grammar(line)).collect();
    let mut reasons = Vec::new();
    if !grammar.is_empty() {
        reasons.push(unparsable(&grammar));
    }
    let first = |unfit: Unfit| refused.lines.iter().find(|line| line.cause == Cause::Unfit(unfit));
    if let Some(line) = first(Unfit::Table) {
        reasons.push(format!("field type conflict: {}", line.message));
    }
    if let Some(line) = first(Unfit::Retention) {
        reasons.push(format!("points beyond retention policy: {}", line.message));
    }
    format!("partial write: {} dropped={}", reasons.join("\n"), refused.total)
}

/// Whether InfluxDB would call a line unparsable: it does so for times that are out of bounds, too.
fn is_grammar(line: &RefusedLine) -> bool {
    matches!(line.cause, Cause::Grammar | Cause::Unfit(Unfit::Time))
}

/// The unit that one of `words` names; nanoseconds without.
fn precision(query: &HashMap<String, String>, words: &[&str]) -> Result<Precision, String> {
    let Some(word) = query.get("precision").filter(|word| !word.is_empty()) else {
        return Ok(Precision::Nanosecond);
    };
    let known = words.contains(&&**word).then(|| word.parse().ok()).flatten();
    let cut: String = word.chars().take(40).collect();
    let (last, others) = words.split_last().expect("there are units");
    known.ok_or_else(|| format!("invalid precision {cut:?} (use {} or {last})", others.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(original: &str, message: &str, cause: Cause) -> RefusedLine {
        RefusedLine { line: 1, original: original.into(), message: message.into(), cause }
    }

    #[test]
    fn a_partial_write_says_what_clients_look_for() {
        let refused = |lines: Vec<RefusedLine>, total| Refused { lines, total };
        let bad = line("m v", "no fields", Cause::Grammar);
        let conflict = line("m v=\"x\"", "v is float", Cause::Unfit(Unfit::Table));
        let old = line("m v=1 1", "too old", Cause::Unfit(Unfit::Retention));
        let late = line("m v=1 9", "too late", Cause::Unfit(Unfit::Time));
        for (lines, total, said) in [
            (vec![bad.clone()], 1, "partial write: unable to parse 'm v': no fields dropped=1"),
            (vec![conflict.clone(); 2], 2, "partial write: field type conflict: v is float dropped=2"),
            (vec![old], 1, "partial write: points beyond retention policy: too old dropped=1"),
            (
                vec![bad.clone(), conflict, late],
                3,
                "partial write: unable to parse 'm v': no fields\nunable to parse 'm v=1 9': too late\n\
                 field type conflict: v is float dropped=3",
            ),
        ] {
            assert_eq!(partial(&refused(lines, total)), said);
        }
        let many = vec![bad; 12];
        let text = partial(&refused(many, 12));
        assert_eq!((text.lines().count(), text.ends_with("and 2 more lines dropped=12")), (11, true), "{text}");
    }

    #[test]
    fn a_unit_is_one_of_the_versions_words() {
        let read = |word: &str| {
            precision(&HashMap::from([("precision".to_owned(), word.to_owned())]), &["ns", "us", "ms", "s"])
        };
        assert_eq!(precision(&HashMap::new(), &["s"]), Ok(Precision::Nanosecond));
        assert_eq!(read(""), Ok(Precision::Nanosecond));
        assert_eq!(read("us"), Ok(Precision::Microsecond));
        for word in ["auto", "nanosecond", "NS", "h", &"x".repeat(1000)] {
            let error = read(word).unwrap_err();
            assert!(error.starts_with("invalid precision \"") && error.len() < 100, "{error}");
            assert!(error.ends_with("(use ns, us, ms or s)"), "{error}");
        }
    }
}
