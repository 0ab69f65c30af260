//! `POST /api/v2/write`: line protocol in, as InfluxDB 2 takes it.
//!
//! Clients of version 2 throw a batch away when the answer is 400 or 422. So one of which lines are refused is answered 204,
//! with the refused lines in the quarantine, unless `[ingest] partial_writes` says otherwise.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use serde_json::json;

use super::lines::{self, LineWrite, Written};
use super::{partial, precision, schema, unparsable};
use crate::app::App;
use crate::config::PartialWrites;
use crate::http::intake::{REFUSED_HEADER, taken};
use crate::http::{Peer, answer};
use crate::sources::Source;

const PATH: &str = "/api/v2/write";
const UNITS: [&str; 6] = ["ns", "us", "ms", "s", "m", "h"];

fn parameters(query: &HashMap<String, String>, partial_writes: PartialWrites) -> Result<LineWrite, String> {
    let bucket = query.get("bucket").map(String::as_str).unwrap_or_default();
    let schema = schema::of_bucket(bucket).map_err(|e| format!("bucket: {e}"))?;
    // As the server of that version: a line that cannot be parsed refuses the body.
    let all_or_none = partial_writes == PartialWrites::Refuse;
    Ok(LineWrite { path: PATH, counted_as: Source::WriteV2, schema, precision: precision(query, &UNITS)?, all_or_none })
}

/// The handler.
pub async fn write(
    State(app): State<Arc<App>>,
    Extension(Peer(peer)): Extension<Peer>,
    query: Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let partial_writes = app.config.ingest.partial_writes;
    let wanted = match parameters(&query, partial_writes) {
        Ok(wanted) => wanted,
        Err(reason) => return error(StatusCode::BAD_REQUEST, &reason),
    };
    match lines::write(&app, format!("http {peer}"), wanted, &headers, body).await {
        Ok(Written::Stored { refused, .. }) if refused.total == 0 => taken(refused.total),
        Ok(Written::Stored { refused, .. }) => match partial_writes {
            PartialWrites::Quarantine => taken(refused.total),
            PartialWrites::Refuse => {
                let message = format!("failure writing points to database: {}", partial(&refused));
                let mut response = error(StatusCode::UNPROCESSABLE_ENTITY, &message);
                response.headers_mut().insert(REFUSED_HEADER, HeaderValue::from(refused.total));
                response
            }
        },
        Ok(Written::NotParsed(refused)) => {
            error(StatusCode::BAD_REQUEST, &unparsable(&refused.lines.iter().collect::<Vec<_>>()))
        }
        Err(failed) => {
            let (status, retry_after) = failed.status_for_old_clients();
            answer::retry_after_if(error(status, &failed.to_string()), retry_after)
        }
    }
}

/// The shape of version 2's errors.
fn error(status: StatusCode, message: &str) -> Response {
    let code = match status {
        StatusCode::PAYLOAD_TOO_LARGE => "request too large",
        StatusCode::UNPROCESSABLE_ENTITY => "unprocessable entity",
        StatusCode::SERVICE_UNAVAILABLE => "unavailable",
        status if status.is_server_error() => "internal error",
        _ => "invalid",
    };
    answer::json(status, &json!({ "code": code, "message": message }))
}

#[cfg(test)]
mod tests {
    use decode::line_protocol::Precision;

    use super::*;

    #[test]
    fn parameters_are_those_of_version_2() {
        let read = |query: &[(&str, &str)], partial_writes| {
            let query = query.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
            parameters(&query, partial_writes)
        };
        let query = [("bucket", "plant/autogen"), ("org", "any"), ("precision", "ms")];
        let wanted = |all_or_none| {
            Ok(LineWrite {
                path: PATH,
                counted_as: Source::WriteV2,
                schema: "plant".into(),
                precision: Precision::Millisecond,
                all_or_none,
            })
        };
        assert_eq!(read(&query, PartialWrites::Quarantine), wanted(false));
        assert_eq!(read(&query, PartialWrites::Refuse), wanted(true));
        assert_eq!(read(&[], PartialWrites::Refuse).unwrap().schema, "public");
        for (query, said) in [
            ([("bucket", "System")], "bucket: the schema \"System\" is the server's own"),
            ([("precision", "u")], "invalid precision \"u\" (use ns, us, ms, s, m or h)"),
        ] {
            assert!(read(&query, PartialWrites::Quarantine).unwrap_err().starts_with(said), "{query:?}");
        }
    }
}
