//! Answers that several endpoints share.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// What a client is told to wait while the server starts or stops.
pub const STARTING_RETRY: Duration = Duration::from_secs(2);

/// `body` as JSON.
pub fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let text = serde_json::to_string(body).expect("answers are made of texts, numbers and lists");
    (status, [(CONTENT_TYPE, "application/json")], Body::from(text)).into_response()
}

/// `{"error":"…"}`, the shape of the InfluxDB endpoints and of every endpoint that has none of its own.
pub fn error(status: StatusCode, message: impl Into<String>) -> Response {
    json(status, &serde_json::json!({ "error": message.into() }))
}

/// Adds `Retry-After`, in whole seconds, at least one.
pub fn retry_after(mut response: Response, after: Duration) -> Response {
    let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    response
}

/// As [`retry_after`], if it is worth trying again.
pub fn retry_after_if(response: Response, after: Option<Duration>) -> Response {
    match after {
        Some(after) => retry_after(response, after),
        None => response,
    }
}

/// 503: something that passes.
pub fn unavailable(reason: &str, after: Duration) -> Response {
    retry_after(error(StatusCode::SERVICE_UNAVAILABLE, reason), after)
}
