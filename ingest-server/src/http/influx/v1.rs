//! `POST /write`: line protocol in, as InfluxDB 1 takes it.
//!
//! Clients of version 1 throw a batch away when the answer is 4xx. So one of which lines are refused is answered 204, with
//! the refused lines in the quarantine, unless `[ingest] partial_writes` says otherwise.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;

use super::lines::{self, LineWrite, Written};
use super::{partial, precision, schema, unparsable};
use crate::app::App;
use crate::config::PartialWrites;
use crate::http::intake::{REFUSED_HEADER, Refused, taken};
use crate::http::{Peer, answer};
use crate::sources::Source;

const PATH: &str = "/write";
/// Its own words, and those that clients of other versions send here.
const UNITS: [&str; 8] = ["n", "ns", "u", "us", "ms", "s", "m", "h"];

fn parameters(query: &HashMap<String, String>) -> Result<LineWrite, String> {
    let text = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
    let schema = schema::of_policy(text("db"), text("rp")).map_err(|e| format!("db: {e}"))?;
    // As the server of that version: what can be parsed is stored.
    Ok(LineWrite {
        path: PATH,
        counted_as: Source::WriteV1,
        schema,
        precision: precision(query, &UNITS)?,
        all_or_none: false,
    })
}

/// The handler.
pub async fn write(
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
        Ok(Written::Stored { refused, .. }) if refused.total == 0 => taken(refused.total),
        Ok(Written::Stored { refused, accepted, .. }) => match app.config.ingest.partial_writes {
            PartialWrites::Quarantine => taken(refused.total),
            PartialWrites::Refuse => refusal(&refused, accepted),
        },
        Ok(Written::NotParsed(refused)) => refusal(&refused, 0),
        Err(error) => {
            let (status, retry_after) = error.status_for_old_clients();
            answer::retry_after_if(answer::error(status, error.to_string()), retry_after)
        }
    }
}

fn refusal(refused: &Refused, accepted: usize) -> Response {
    let all: Vec<_> = refused.lines.iter().collect();
    let is_parsed = all.iter().any(|line| !super::is_grammar(line));
    let message = if accepted == 0 && !is_parsed { unparsable(&all) } else { partial(refused) };
    let mut response = answer::error(StatusCode::BAD_REQUEST, message);
    response.headers_mut().insert(REFUSED_HEADER, HeaderValue::from(refused.total));
    response
}

#[cfg(test)]
mod tests {
    use decode::line_protocol::Precision;

    use super::*;

    fn read(query: &[(&str, &str)]) -> Result<LineWrite, String> {
        parameters(&query.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect())
    }

    #[test]
    fn parameters_are_those_of_version_1() {
        for (query, schema, precision) in [
            (&[][..], "public", Precision::Nanosecond),
            (&[("db", "telegraf"), ("u", "me"), ("p", "x"), ("consistency", "all")], "telegraf", Precision::Nanosecond),
            (&[("db", "a"), ("rp", "autogen"), ("precision", "n")], "a", Precision::Nanosecond),
            (&[("db", "a"), ("rp", "week"), ("precision", "u")], "a/week", Precision::Microsecond),
            (&[("precision", "m")], "public", Precision::Minute),
        ] {
            let read = read(query).unwrap();
            assert_eq!((&*read.schema, read.precision, read.all_or_none), (schema, precision, false), "{query:?}");
        }
        for (query, said) in [
            (&[("db", "system")][..], "db: the schema \"system\" is the server's own"),
            (&[("precision", "auto")], "invalid precision \"auto\" (use n, ns, u, us, ms, s, m or h)"),
        ] {
            assert!(read(query).unwrap_err().starts_with(said), "{query:?}");
        }
    }
}
