//! `GET|POST /query`: the few statements that clients of InfluxDB 1 send before they write.
//!
//! Owns:     CREATE DATABASE and SHOW DATABASES, and saying where other questions go.
//! Does not: speak InfluxQL. A database is a schema, which is there with its first table: nothing is made here.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use model::name::PUBLIC;
use serde_json::{Value, json};

use super::schema;
use crate::app::App;
use crate::http::answer::{self, STARTING_RETRY, unavailable};
use crate::http::body;

/// What a client asks.
#[derive(Debug, PartialEq, Eq)]
enum Question {
    CreateDatabase(String),
    ShowDatabases,
}

/// The handler of GET.
pub async fn get(State(app): State<Arc<App>>, query: Query<HashMap<String, String>>) -> Response {
    respond(&app, query.get("q").map(String::as_str))
}

/// The handler of POST: the question may be in the body, as a form.
pub async fn post(
    State(app): State<Arc<App>>,
    query: Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if let Some(q) = query.get("q") {
        return respond(&app, Some(q));
    }
    let received = match body::receive(&app, &headers, body).await.and_then(body::Received::decompress) {
        Ok(received) => received,
        Err(error) => return answer::error(error.status(), error.to_string()),
    };
    respond(&app, in_form(&received).as_deref())
}

/// The question in a form, which is written as the query of a URI is.
fn in_form(form: &[u8]) -> Option<String> {
    let uri = [b"/?", form].concat().try_into().ok()?;
    Query::<HashMap<String, String>>::try_from_uri(&uri).ok()?.0.remove("q")
}

fn respond(app: &App, q: Option<&str>) -> Response {
    let storage = match app.for_queries() {
        Ok(parts) => parts.storage,
        Err(reason) => return unavailable(&reason.to_string(), STARTING_RETRY),
    };
    let Some(q) = q else {
        return answer::error(StatusCode::BAD_REQUEST, "missing required parameter \"q\"");
    };
    let result = match question(q) {
        Ok(Question::CreateDatabase(name)) => match schema::of_bucket(&name) {
            Ok(_) => json!({ "statement_id": 0 }),
            Err(reason) => json!({ "statement_id": 0, "error": format!("invalid name: {reason}") }),
        },
        Ok(Question::ShowDatabases) => {
            let tables = storage.tables();
            let mut schemas: BTreeSet<&str> = tables.iter().map(|table| &*table.name.schema).collect();
            schemas.insert(PUBLIC);
            let values: Vec<Value> = schemas.into_iter().map(|schema| json!([schema])).collect();
            let series = json!([{ "name": "databases", "columns": ["name"], "values": values }]);
            json!({ "statement_id": 0, "series": series })
        }
        Err(reason) => return answer::error(StatusCode::BAD_REQUEST, reason),
    };
    answer::json(StatusCode::OK, &json!({ "results": [result] }))
}

fn question(q: &str) -> Result<Question, String> {
    let other = "error parsing query: only CREATE DATABASE and SHOW DATABASES are answered here; send SQL to \
                 /api/v3/query_sql or /_sql";
    let rest = q.trim().trim_end_matches(';').trim_end();
    if let Some(rest) = after_words(rest, &["SHOW", "DATABASES"]) {
        return if rest.is_empty() { Ok(Question::ShowDatabases) } else { Err(other.to_owned()) };
    }
    let rest = after_words(rest, &["CREATE", "DATABASE"]).ok_or(other)?;
    let (name, rest) = identifier(rest).ok_or("error parsing query: CREATE DATABASE takes a name")?;
    // What follows sets how long it is kept and the like, which tables have of their own.
    if rest.is_empty() || after_words(rest, &["WITH"]).is_some() {
        return Ok(Question::CreateDatabase(name));
    }
    Err(other.to_owned())
}

/// What follows `words`, in any case, if `text` begins with them.
fn after_words<'a>(text: &'a str, words: &[&str]) -> Option<&'a str> {
    words.iter().try_fold(text.trim_start(), |text, word| {
        let (first, rest) = text.split_at_checked(word.len())?;
        let ends = rest.is_empty() || rest.starts_with(|next: char| next.is_whitespace() || next == '"');
        (first.eq_ignore_ascii_case(word) && ends).then(|| rest.trim_start())
    })
}

/// A name, in quotes or bare, and what follows it.
fn identifier(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|next: char| !next.is_alphanumeric() && next != '_').unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        return (!name.is_empty()).then(|| (name.to_owned(), rest.trim_start()));
    };
    let mut name = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, next)) = chars.next() {
        match next {
            '"' => return Some((name, quoted[at + 1..].trim_start())),
            '\\' => name.push(chars.next()?.1),
            other => name.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_has_the_question_in_it() {
        for (form, q) in [
            ("q=CREATE+DATABASE+%22telegraf%22", Some("CREATE DATABASE \"telegraf\"")),
            ("db=x&q=SHOW%20DATABASES", Some("SHOW DATABASES")),
            ("", None),
            ("db=x", None),
            ("q=%ff", Some("\u{fffd}")),
            ("\0 not a form", None),
        ] {
            assert_eq!(in_form(form.as_bytes()).as_deref(), q, "{form}");
        }
    }

    #[test]
    fn the_statements_of_clients_are_understood_and_others_are_not() {
        let create = |name: &str| Ok(Question::CreateDatabase(name.to_owned()));
        for (q, understood) in [
            ("CREATE DATABASE \"telegraf\"", create("telegraf")),
            (" create  database plant_1 ;", create("plant_1")),
            ("CREATE DATABASE\"a \\\"b\\\" c\"", create("a \"b\" c")),
            ("CREATE DATABASE x WITH DURATION 7d NAME week", create("x")),
            ("SHOW DATABASES", Ok(Question::ShowDatabases)),
            ("show databases;", Ok(Question::ShowDatabases)),
        ] {
            assert_eq!(question(q), understood, "{q}");
        }
        for q in [
            "",
            "SELECT * FROM m",
            "CREATE DATABASE",
            "CREATE DATABASE \"open",
            "CREATE DATABASE \"a\\",
            "CREATE DATABASES x",
            "CREATE DATABASE x; DROP DATABASE x",
            "DROP DATABASE x",
            "SHOW DATABASES ON x",
            "SHÖW",
        ] {
            assert!(question(q).unwrap_err().starts_with("error parsing query: "), "{q}");
        }
    }
}
