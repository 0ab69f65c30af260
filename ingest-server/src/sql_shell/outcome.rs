//! What a statement without rows has done, in a line such as `DELETE 12`.

use serde_json::Value;

/// Whether `statement` changes tables or their rows or ends other statements, by its first word.
pub(super) fn changes_something(statement: &str) -> bool {
    let verb = words(statement).next().unwrap_or_default();
    ["CREATE", "ALTER", "DROP", "INSERT", "DELETE", "UPDATE", "OPTIMIZE", "KILL"].contains(&verb.as_str())
}

/// The line for an answer of `/_sql` without columns.
pub(super) fn render(statement: &str, answer: &Value) -> String {
    let duration = answer["duration"].as_f64().unwrap_or_default();
    let count = answer["rowcount"].as_i64().unwrap_or_default();
    let mut words = words(statement);
    let done = match words.next().unwrap_or_default().as_str() {
        verb @ ("INSERT" | "DELETE" | "UPDATE" | "KILL") => format!("{verb} {count}"),
        verb @ ("CREATE" | "ALTER" | "DROP" | "OPTIMIZE" | "REFRESH") => {
            let object = words.next().unwrap_or_default();
            let note = if count == 0 { ", nothing to do" } else { "" };
            format!("{verb} {object}{note}")
        }
        _ => "ok".to_owned(),
    };
    format!("{done} ({duration:.1} ms)\n")
}

/// The words that a statement begins with, in capitals, without comments.
fn words(statement: &str) -> impl Iterator<Item = String> {
    let mut rest = statement;
    std::iter::from_fn(move || {
        loop {
            rest = rest.trim_start();
            let after_comment = if rest.starts_with("--") {
                rest.split_once('\n')
            } else if let Some(comment) = rest.strip_prefix("/*") {
                comment.split_once("*/")
            } else {
                break;
            };
            rest = after_comment?.1;
        }
        let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let (word, tail) = rest.split_at(end);
        rest = tail;
        (!word.is_empty()).then(|| word.to_ascii_uppercase())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_was_done_and_to_how_many_rows() {
        for (statement, count, line) in [
            ("DELETE FROM t", 12, "DELETE 12"),
            ("delete from t", 0, "DELETE 0"),
            ("/* a */ -- b\n update t SET c = NULL", 1, "UPDATE 1"),
            ("Create Table t (a INT)", 1, "CREATE TABLE"),
            ("CREATE TABLE IF NOT EXISTS t (a INT)", 0, "CREATE TABLE, nothing to do"),
            ("DROP TABLE IF EXISTS t", 0, "DROP TABLE, nothing to do"),
            ("ALTER TABLE t SET (retention = '1d')", -1, "ALTER TABLE"),
            ("OPTIMIZE TABLE t", 1, "OPTIMIZE TABLE"),
            ("REFRESH TABLE t", 1, "REFRESH TABLE"),
            ("", 1, "ok"),
        ] {
            let answer = serde_json::json!({"cols": [], "rows": [[]], "rowcount": count, "duration": 2.25});
            assert_eq!(render(statement, &answer), format!("{line} (2.2 ms)\n"), "{statement}");
        }
    }

    #[test]
    fn what_changes_something_is_known_by_its_first_word() {
        for statement in
            ["DELETE FROM t", "-- why\ndrop table t", "/**/create table t (a int)", "UPDATE\tt SET c = NULL"]
        {
            assert!(changes_something(statement), "{statement}");
        }
        for statement in
            ["SELECT 'DELETE'", "REFRESH TABLE t", "-- DELETE FROM t", "/* DELETE", "deleted", "", "(SELECT 1)"]
        {
            assert!(!changes_something(statement), "{statement}");
        }
    }
}
