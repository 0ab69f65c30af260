//! `POST /_sql`: SQL as clients of CrateDB send it and read it.

mod arguments;
mod session;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use axum::body::Body;
use axum::extract::{Extension, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use query::{Access, Origin, QueryRequest, QueryResult};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Peer;
use super::answer;
use super::body;
use super::cells::{Cells, Times, type_id};
use super::left_out;
use super::rows::{self, ByRow, RowFormat};
use super::sql_error::SqlError;
use crate::app::App;
use arguments::Arguments;
pub(super) use arguments::scalar;

#[derive(Debug, Deserialize)]
struct Request {
    stmt: String,
    #[serde(default)]
    args: Value,
    #[serde(default)]
    bulk_args: Value,
}

/// The handler.
pub async fn sql(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    query: Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let with_trace = flag(&query, "error_trace");
    match answer(&app, peer, flag(&query, "types"), &headers, body).await {
        Ok(response) => response,
        Err(error) => error.crate_answer(with_trace),
    }
}

/// `?types`, `?types=` and `?types=true` all mean on.
fn flag(query: &HashMap<String, String>, name: &str) -> bool {
    query.get(name).is_some_and(|value| value.is_empty() || value.eq_ignore_ascii_case("true"))
}

async fn answer(
    app: &Arc<App>,
    peer: Peer,
    types: bool,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, SqlError> {
    let started = app.clock.monotonic();
    let engine = app.for_queries()?.engine;
    let request: Request = read_json(app, headers, body).await?;
    let arguments = Arguments::read(request.args, request.bulk_args)?;
    let default_schema = headers.get("default-schema").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let skip_damaged = left_out::is_wanted(headers)?;
    let session = session::of(headers, default_schema.as_deref());
    let origin = Origin { user: session.user.clone(), ..peer.origin("sql", headers) };
    let request = QueryRequest {
        default_schema,
        access: Access::Change,
        skip_damaged,
        origin,
        session: Some(Arc::new(session)),
        ..QueryRequest::new(request.stmt)
    };
    let clock = Arc::clone(&app.clock);
    let took = move || clock.monotonic().saturating_sub(started);
    let request = match arguments {
        Arguments::Once(parameters) => arguments::with_times(&engine, QueryRequest { parameters, ..request }).await?,
        Arguments::Bulk(rows) => {
            let results = arguments::run_bulk(&engine, request, rows).await?;
            let answer = json!({ "cols": [], "duration": milliseconds(took()), "results": results });
            return Ok(answer::json(StatusCode::OK, &answer));
        }
    };
    let mut missing = Vec::new();
    let body = match engine.execute(request).await? {
        QueryResult::Rows(mut found) => {
            missing = std::mem::take(&mut found.left_out);
            rows::body(found, ByRow::new(CrateRows { types, took })).await?
        }
        QueryResult::Done { rows, .. } => {
            let col_types = if types { "\"col_types\":[]," } else { "" };
            let duration = milliseconds(took());
            // CrateDB answers one empty row, and counts -1 where nothing can be counted.
            let count = rows.map_or_else(|| "-1".to_owned(), |rows| rows.to_string());
            Body::from(format!("{{\"cols\":[],{col_types}\"rows\":[[]],\"rowcount\":{count},\"duration\":{duration}}}"))
        }
    };
    let response = (StatusCode::OK, [(CONTENT_TYPE, "application/json")], body).into_response();
    Ok(left_out::say(response, skip_damaged, &missing))
}

/// Receives a JSON body.
pub(crate) async fn read_json<T: for<'a> Deserialize<'a>>(
    app: &App,
    headers: &HeaderMap,
    body: Body,
) -> Result<T, SqlError> {
    let refuse = |e: body::BodyError| SqlError::body(e.status(), e.to_string());
    let received = body::receive(app, headers, body).await.map_err(refuse)?;
    let bytes = tokio::task::spawn_blocking(|| received.decompress());
    let bytes = bytes.await.map_err(|_| SqlError::request("the body cannot be read"))?.map_err(refuse)?;
    serde_json::from_slice(&bytes)
        .map_err(|e| SqlError::request(format!("the body must be JSON such as {{\"stmt\":\"SELECT 1\"}}: {e}")))
}

/// Milliseconds with three decimals.
fn milliseconds(took: Duration) -> f64 {
    (took.as_secs_f64() * 1e6).round() / 1e3
}

struct CrateRows<T> {
    types: bool,
    took: T,
}

impl<T: Fn() -> Duration + Send + 'static> RowFormat for CrateRows<T> {
    fn head(&mut self, schema: &SchemaRef, out: &mut Vec<u8>) {
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        out.extend_from_slice(b"{\"cols\":");
        write_json(&names, out);
        if self.types {
            let types: Vec<Value> = schema.fields().iter().map(|field| type_id(field.data_type())).collect();
            out.extend_from_slice(b",\"col_types\":");
            write_json(&types, out);
        }
        out.extend_from_slice(b",\"rows\":[");
    }

    fn row(&mut self, columns: &[Cells], row: usize, first: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(if first { b"[" } else { b",[" });
        for (i, column) in columns.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            column.write_json(row, Times::EpochMs, out);
        }
        out.push(b']');
    }

    fn tail(&mut self, rows: u64, out: &mut Vec<u8>) {
        let duration = milliseconds((self.took)());
        out.extend_from_slice(format!("],\"rowcount\":{rows},\"duration\":{duration}}}").as_bytes());
    }
}

fn write_json(value: &impl serde::Serialize, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("texts and numbers can be written to memory");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_on_with_and_without_a_value() {
        for (value, on) in [("", true), ("true", true), ("TRUE", true), ("false", false), ("0", false)] {
            assert_eq!(flag(&HashMap::from([("types".into(), value.into())]), "types"), on, "{value}");
        }
        assert!(!flag(&HashMap::new(), "types"));
    }

    #[test]
    fn durations_are_milliseconds() {
        assert_eq!(milliseconds(Duration::from_micros(810)), 0.81);
        assert_eq!(milliseconds(Duration::from_secs(2)), 2000.0);
    }
}
