//! The endpoints of InfluxDB's three versions to which clients write, and those that they ask before.
//!
//! Owns:     parameters, answers and their shapes, one module a version.
//! Does not: parse lines (`decode`) or store them (`storage`).

mod lines;
pub mod query;
pub(crate) mod schema;
pub mod v1;
pub mod v2;
pub mod v3;

use std::collections::HashMap;

use decode::line_protocol::Precision;
use storage::Unfit;

use super::intake::{Cause, Refused, RefusedLine};

/// Refused lines that a text names.
const NAMED_MAX: usize = 10;

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
