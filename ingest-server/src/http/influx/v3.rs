//! `POST /api/v3/write_lp`: line protocol in, as InfluxDB 3 takes it.
//!
//! Owns:     its parameters and the shapes of its answers.
//! Does not: store anything (`lines` does).

use std::collections::HashMap;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use decode::line_protocol::Precision;
use model::NodeId;
use storage::StorageError;
use uuid::Uuid;

use super::lines::{self, LineWrite, Written};
use super::schema;
use crate::app::App;
use crate::http::intake::{REFUSED_HEADER, Refused, RefusedLine, WriteError};
use crate::http::{Peer, answer};
use crate::sources::Source;

/// Lines named in one answer; the others are counted.
const ERRORS_MAX: usize = 100;
const PATH: &str = "/api/v3/write_lp";

fn parameters(query: &HashMap<String, String>) -> Result<LineWrite, String> {
    let db = query.get("db").map(String::as_str).filter(|db| !db.is_empty());
    let db = db.ok_or("the parameter db is missing: /api/v3/write_lp?db=public")?;
    let schema = schema::checked(db).map_err(|e| format!("db: {e}"))?;
    let precision = match query.get("precision") {
        None => Precision::Auto,
        Some(word) => word.parse().map_err(|e| format!("precision: {e}"))?,
    };
    // Every 204 follows the sync: there is nothing to skip, but the word is checked.
    read_bool(query, "no_sync", false)?;
    let all_or_none = !read_bool(query, "accept_partial", true)?;
    Ok(LineWrite { path: PATH, counted_as: Source::WriteLp, schema, precision, all_or_none })
}

fn read_bool(query: &HashMap<String, String>, name: &str, default: bool) -> Result<bool, String> {
    match query.get(name).map(String::as_str) {
        None => Ok(default),
        Some("true" | "t" | "1" | "") => Ok(true),
        Some("false" | "f" | "0") => Ok(false),
        Some(other) => Err(format!("{name}: {other:?} is neither true nor false")),
    }
}

/// The handler.
pub async fn write_lp(
    State(app): State<Arc<App>>,
    Extension(Peer(peer)): Extension<Peer>,
    query: Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let wanted = match parameters(&query) {
        Ok(wanted) => wanted,
        Err(reason) => return answer::error(StatusCode::BAD_REQUEST, reason),
    };
    match lines::write(&app, format!("http {peer}"), wanted, &headers, body).await {
        Ok(Written::Stored { refused, node, .. }) if refused.total == 0 => stored(node),
        Ok(Written::Stored { refused, .. }) => partial(&refused),
        Ok(Written::NotParsed(refused)) => not_parsed(&refused),
        Err(error) => failed(&error),
    }
}

fn stored(node: NodeId) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    // Clients want a UUID that stays: the node's 64 bits, twice.
    let uuid = Uuid::from_u64_pair(node.0, node.0);
    if let Ok(uuid) = HeaderValue::from_str(&uuid.to_string()) {
        response.headers_mut().insert("cluster-uuid", uuid);
    }
    response
}

fn describe(error: &RefusedLine) -> serde_json::Value {
    serde_json::json!({
        "original_line": error.original,
        "line_number": error.line,
        "error_message": error.message,
    })
}

fn partial(refused: &Refused) -> Response {
    listed(StatusCode::BAD_REQUEST, "partial write of line protocol occurred", refused)
}

fn listed(status: StatusCode, error: &str, refused: &Refused) -> Response {
    let data: Vec<_> = refused.lines.iter().take(ERRORS_MAX).map(describe).collect();
    let mut response = answer::json(status, &serde_json::json!({ "error": error, "data": data }));
    // The list is cut; this is not.
    response.headers_mut().insert(REFUSED_HEADER, HeaderValue::from(refused.total));
    response
}

fn not_parsed(refused: &Refused) -> Response {
    let first = refused.lines.first().map(describe);
    let body = serde_json::json!({ "error": "parsing failed for write_lp endpoint", "data": first });
    answer::json(StatusCode::BAD_REQUEST, &body)
}

fn failed(error: &WriteError) -> Response {
    if let WriteError::Storage { error: StorageError::Invalid(reason), refused } = error {
        return listed(StatusCode::UNPROCESSABLE_ENTITY, reason, refused);
    }
    error.answer()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &[(&str, &str)]) -> Result<LineWrite, String> {
        parameters(&query.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect())
    }

    #[test]
    fn parameters_have_the_defaults_of_influxdb() {
        let wanted = |schema: &str, precision, all_or_none| {
            Ok(LineWrite { path: PATH, counted_as: Source::WriteLp, schema: schema.into(), precision, all_or_none })
        };
        assert_eq!(read(&[("db", "doc")]), wanted("public", Precision::Auto, false));
        let query = [("db", "plant"), ("precision", "second"), ("accept_partial", "false")];
        assert_eq!(read(&query), wanted("plant", Precision::Second, true));
    }

    #[test]
    fn wrong_parameters_say_which_one() {
        for (query, said) in [
            (&[][..], "the parameter db is missing"),
            (&[("db", "")], "the parameter db is missing"),
            (&[("db", "System")], "db: the schema"),
            (&[("db", "a"), ("precision", "fortnight")], "precision: "),
            (&[("db", "a"), ("accept_partial", "perhaps")], "accept_partial: \"perhaps\" is neither"),
            (&[("db", "a"), ("no_sync", "x")], "no_sync: "),
        ] {
            let error = read(query).unwrap_err();
            assert!(error.starts_with(said), "{error}");
        }
    }
}
