//! `POST /v1/metrics`: metrics of OpenTelemetry (OTLP/HTTP), in Protocol Buffers and in JSON.
//!
//! Owns:     its headers and answers, in the encoding of the request.
//! Does not: read the messages (`decode`), or store them (`intake`).
//!
//! Exporters never send again what was answered 4xx, nor what a success says was rejected: that is in the quarantine.
//!
//! The protocol: <https://opentelemetry.io/docs/specs/otlp/#otlphttp>.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use decode::metrics::DecodeError;
use decode::otlp::{self, Totals};
use serde_json::json;

use super::influx::schema;
use super::intake::WriteError;
use super::intake::rows::{self, RefusedSamples, RowWrite, Stored};
use super::{Peer, answer, body};
use crate::app::App;
use crate::metrics::Metrics;
use crate::sources::Source;

const PATH: &str = "/v1/metrics";

/// How request and answer are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Protobuf,
    Json,
}

impl Encoding {
    fn of(headers: &HeaderMap) -> Result<Self, String> {
        let content_type = headers.get(CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()));
        let media = content_type.as_deref().unwrap_or_default().split(';').next().unwrap_or_default().trim();
        match &*media.to_ascii_lowercase() {
            "application/x-protobuf" => Ok(Encoding::Protobuf),
            "application/json" => Ok(Encoding::Json),
            other => {
                let shown: String = other.chars().take(100).collect();
                Err(format!("content-type {shown:?} is not supported; use application/x-protobuf or application/json"))
            }
        }
    }

    fn answer(self, status: StatusCode, protobuf: Vec<u8>, json: &serde_json::Value) -> Response {
        match self {
            Encoding::Protobuf => (status, [(CONTENT_TYPE, "application/x-protobuf")], protobuf).into_response(),
            Encoding::Json => answer::json(status, json),
        }
    }

    /// A `google.rpc.Status`, which has a number of its own for what went wrong.
    fn error(self, status: StatusCode, message: &str) -> Response {
        let code = match status {
            StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS => 8,
            StatusCode::SERVICE_UNAVAILABLE => 14,
            StatusCode::INTERNAL_SERVER_ERROR => 13,
            _ => 3,
        };
        let mut protobuf = vec![0x08, code];
        put_text(2, message, &mut protobuf);
        self.answer(status, protobuf, &json!({ "code": code, "message": message }))
    }

    /// An `ExportMetricsServiceResponse`.
    fn success(self, refused: &RefusedSamples) -> Response {
        if refused.total == 0 {
            return self.answer(StatusCode::OK, Vec::new(), &json!({}));
        }
        let first = refused.named.first().map(|first| format!(", the first for: {}", first.reason));
        let message = format!("data points are in system.quarantine instead{}", first.unwrap_or_default());
        let mut partial = vec![0x08];
        put_varint(refused.total, &mut partial);
        put_text(2, &message, &mut partial);
        let mut protobuf = vec![0x0a];
        put_varint(partial.len() as u64, &mut protobuf);
        protobuf.extend_from_slice(&partial);
        let rejected = refused.total.to_string();
        let json = json!({ "partialSuccess": { "rejectedDataPoints": rejected, "errorMessage": message } });
        self.answer(StatusCode::OK, protobuf, &json)
    }
}

fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_text(number: u8, text: &str, out: &mut Vec<u8>) {
    out.push(number << 3 | 2);
    put_varint(text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

/// The handler.
pub async fn metrics(
    State(app): State<Arc<App>>,
    Extension(Peer(peer)): Extension<Peer>,
    query: Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let encoding = match Encoding::of(&headers) {
        Ok(encoding) => encoding,
        Err(reason) => return answer::error(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason),
    };
    let schema = match schema::checked(query.get("db").map(String::as_str).unwrap_or_default()) {
        Ok(schema) => schema,
        Err(reason) => return encoding.error(StatusCode::BAD_REQUEST, &format!("db: {reason}")),
    };
    let wanted = RowWrite { path: PATH, counted_as: Source::Otlp, schema, source: format!("http {peer}") };
    match store(&app, wanted, encoding, &headers, body).await {
        Ok(stored) => encoding.success(&stored.refused),
        Err(error) => {
            let (status, retry_after) = error.status_for_old_clients();
            answer::retry_after_if(encoding.error(status, &error.to_string()), retry_after)
        }
    }
}

async fn store(
    app: &Arc<App>,
    wanted: RowWrite,
    encoding: Encoding,
    headers: &HeaderMap,
    body: Body,
) -> Result<Stored<Totals>, WriteError> {
    app.for_writes()?;
    let received = body::receive(app, headers, body).await?;
    let now_us = app.clock.now_us();
    let stored = rows::write(app, wanted, received, move |body, schema, take| match encoding {
        Encoding::Protobuf => otlp::decode(body, now_us, schema, take),
        Encoding::Json => {
            let body = otlp::protobuf_of_json(body).map_err(DecodeError::Malformed)?;
            otlp::decode(&body, now_us, schema, take)
        }
    });
    let stored = stored.await?;
    Metrics::add(&app.metrics.exemplars, u64::from(stored.totals.exemplars));
    Ok(stored)
}
