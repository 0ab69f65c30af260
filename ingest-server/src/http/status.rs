//! Is it alive, is it ready, what is it: `/health`, `/ready`, `/ping`, `/`.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use query::CRATEDB_VERSION;
use serde_json::json;

use super::{PATHS, answer};
use crate::app::{App, Phase, Unavailable, share};

/// Our version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// 200 while the process can do its work, 503 after a failed sync (P2). `OK`; JSON for those who ask for it, as clients
/// of InfluxDB 2 do.
pub async fn health(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let failure = app.for_writes().err().filter(|reason| *reason == Unavailable::Poisoned);
    if accepts(&headers, "application/json") {
        let (code, status, message) = match failure {
            None => (StatusCode::OK, "pass", "ready for queries and writes".to_owned()),
            Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, "fail", reason.to_string()),
        };
        let body = json!({ "name": "eden", "message": message, "status": status, "version": VERSION });
        return answer::json(code, &body);
    }
    match failure {
        Some(reason) => not_ready("poisoned", &reason),
        None => (StatusCode::OK, "OK").into_response(),
    }
}

/// Whether a client says that it takes this kind of answer.
fn accepts(headers: &HeaderMap, kind: &str) -> bool {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accept.split(',').filter_map(|part| part.split(';').next()).any(|part| part.trim().eq_ignore_ascii_case(kind))
}

/// 200 when writes are taken; else 503 with the reason, and the share done while the log is replayed.
pub async fn ready(State(app): State<Arc<App>>) -> Response {
    match app.for_writes() {
        Ok(_) => (StatusCode::OK, "OK").into_response(),
        Err(Unavailable::Replaying) => {
            let replay = app.replay();
            let body = json!({
                "status": "replaying",
                "done_bytes": replay.done_bytes,
                "total_bytes": replay.total_bytes,
                "share": share(replay),
            });
            answer::json(StatusCode::SERVICE_UNAVAILABLE, &body)
        }
        Err(reason @ Unavailable::Stopping) => not_ready("stopping", &reason),
        Err(reason @ Unavailable::Poisoned) => not_ready("poisoned", &reason),
    }
}

fn not_ready(status: &str, reason: &Unavailable) -> Response {
    answer::json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": status, "reason": reason.to_string() }))
}

/// What InfluxDB's clients ask first: name and version, in the headers and, for who takes anything or JSON, in the body.
/// Other clients are those of version 1, some of which want the answer to be empty.
pub async fn ping(
    State(app): State<Arc<App>>,
    query: Query<std::collections::HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let has_body =
        query.contains_key("verbose") || ["application/json", "*/*"].iter().any(|kind| accepts(&headers, kind));
    let mut response = if has_body {
        let body = json!({
            "product_name": "Eden",
            "version": VERSION,
            "revision": "",
            "process_id": app.process_id,
        });
        answer::json(StatusCode::OK, &body)
    } else {
        StatusCode::NO_CONTENT.into_response()
    };
    let request_id = HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()).ok();
    let headers = response.headers_mut();
    headers.insert("x-influxdb-version", HeaderValue::from_static(VERSION));
    headers.insert("x-influxdb-build", HeaderValue::from_static("Eden"));
    if let Some(id) = request_id {
        headers.insert(HeaderName::from_static("request-id"), id.clone());
        headers.insert(HeaderName::from_static("x-request-id"), id);
    }
    response
}

/// For clients of CrateDB what they ask first; for people a page that names the endpoints.
pub async fn root(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    if accepts(&headers, "text/html") {
        return Html(page()).into_response();
    }
    let ok = matches!(app.phase(), Phase::Ready(_));
    let body = json!({
        "ok": ok,
        "status": if ok { 200 } else { 503 },
        "name": "eden",
        "cluster_name": "eden",
        "version": {
            "number": CRATEDB_VERSION,
            "build_hash": "",
            "build_timestamp": "",
            "build_snapshot": false,
            "lucene_version": "",
        },
        "eden_version": VERSION,
    });
    answer::json(StatusCode::OK, &body)
}

fn page() -> String {
    let rows: String = PATHS
        .iter()
        .map(|(path, methods, _)| format!("<tr><td><code>{path}</code></td><td>{methods}</td></tr>\n"))
        .collect();
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Eden</title>\n\
         <style>body{{font:16px/1.5 sans-serif;margin:3em auto;max-width:42em;padding:0 1em}}\
         td{{padding:.1em 1em .1em 0}}pre{{background:#8881;padding:1em;overflow:auto}}</style>\n\
         <h1>Eden {VERSION}</h1>\n<p>A server for machine data. It listens here:</p>\n\
         <table>\n{rows}</table>\n<p>Write a reading and find it:</p>\n\
         <pre>curl -d 'room,site=here temperature=21.5' 'http://HOST:PORT/api/v3/write_lp?db=public'\n\
         eden sql --url http://HOST:PORT 'SELECT * FROM room'</pre>\n</html>\n"
    )
}
