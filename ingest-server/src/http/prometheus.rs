//! `POST /api/v1/prom/write` and `/api/v1/write`: Prometheus remote write, 1.0 and 2.0.
//!
//! Owns:     its headers and answers.
//! Does not: read the messages (`decode`), or store them (`intake`).
//!
//! Senders never send again what was answered 4xx, so what is not stored is in the quarantine, and the answer is 204, unless
//! `[ingest] partial_writes` says otherwise.
//!
//! The protocol: <https://prometheus.io/docs/specs/prw/remote_write_spec/> and `…/remote_write_spec_2_0/`.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use decode::prometheus::{self, Totals, Version};

use super::Peer;
use super::answer;
use super::body::{self, Packings};
use super::influx::schema;
use super::intake::rows::{self, RefusedSamples, RowWrite, Stored};
use super::intake::{REFUSED_HEADER, WriteError, taken};
use crate::app::App;
use crate::config::PartialWrites;
use crate::metrics::Metrics;
use crate::sources::Source;

const PATH: &str = "/api/v1/prom/write";

const VERSION_HEADER: &str = "x-prometheus-remote-write-version";
const SAMPLES_HEADER: &str = "x-prometheus-remote-write-samples-written";
const HISTOGRAMS_HEADER: &str = "x-prometheus-remote-write-histograms-written";
const EXEMPLARS_HEADER: &str = "x-prometheus-remote-write-exemplars-written";

/// Which message the headers promise.
fn version(headers: &HeaderMap) -> Result<Version, String> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).trim().to_ascii_lowercase();
    let content_type = headers.get(CONTENT_TYPE).map(text).unwrap_or_default();
    let mut parts = content_type.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    let proto = parts.find_map(|part| part.strip_prefix("proto=")).map(|proto| proto.trim_matches('"'));
    let version = match (media, proto) {
        ("" | "application/x-protobuf", None | Some("prometheus.writerequest")) => Version::One,
        ("application/x-protobuf", Some("io.prometheus.write.v2.request")) => Version::Two,
        _ => {
            let shown: String = content_type.chars().take(100).collect();
            return Err(format!(
                "content-type {shown:?} is not supported; use application/x-protobuf, for version 2.0 with \
                 proto=io.prometheus.write.v2.Request"
            ));
        }
    };
    let told = headers.get(VERSION_HEADER).map(text).unwrap_or_default();
    let is_it = match version {
        Version::One => told.is_empty() || told.starts_with("0.1") || told.starts_with("1."),
        Version::Two => told.is_empty() || told.starts_with("2.0"),
    };
    let shown: String = told.chars().take(40).collect();
    if is_it { Ok(version) } else { Err(format!("{VERSION_HEADER} {shown:?} is not that of the content-type")) }
}

/// The handler.
pub async fn write(
    State(app): State<Arc<App>>,
    Extension(Peer(peer)): Extension<Peer>,
    query: Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let version = match version(&headers) {
        Ok(version) => version,
        Err(reason) => return answer::error(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason),
    };
    let mut response = match schema::checked(query.get("db").map(String::as_str).unwrap_or_default()) {
        Ok(schema) => {
            let wanted =
                RowWrite { path: PATH, counted_as: Source::Prometheus, schema, source: format!("http {peer}") };
            match store(&app, wanted, version, &headers, body).await {
                Ok(stored) => return stored_as(version, &stored, app.config.ingest.partial_writes),
                Err(error) => {
                    let (status, retry_after) = error.status_for_old_clients();
                    answer::retry_after_if(answer::error(status, error.to_string()), retry_after)
                }
            }
        }
        Err(reason) => answer::error(StatusCode::BAD_REQUEST, format!("db: {reason}")),
    };
    add_written(version, &mut response, [0; 3]);
    response
}

async fn store(
    app: &Arc<App>,
    wanted: RowWrite,
    version: Version,
    headers: &HeaderMap,
    body: Body,
) -> Result<Stored<Totals>, WriteError> {
    app.for_writes()?;
    let received = body::receive_as(app, headers, body, Packings::Snappy).await?;
    let stored =
        rows::write(app, wanted, received, move |body, schema, take| prometheus::decode(body, version, schema, take));
    let stored = stored.await?;
    Metrics::add(&app.metrics.exemplars, u64::from(stored.totals.exemplars));
    Ok(stored)
}

fn stored_as(version: Version, stored: &Stored<Totals>, partial_writes: PartialWrites) -> Response {
    let Stored { totals, refused } = stored;
    let mut response = match partial_writes {
        PartialWrites::Refuse if refused.total > 0 => refusal(refused),
        PartialWrites::Refuse | PartialWrites::Quarantine => taken(refused.total),
    };
    let samples = u64::from(totals.samples).saturating_sub(refused.total - refused.histograms);
    let histograms = u64::from(totals.histograms).saturating_sub(refused.histograms);
    add_written(version, &mut response, [samples, histograms, 0]);
    response
}

/// What was refused, as senders log it: they show the first line.
fn refusal(refused: &RefusedSamples) -> Response {
    let first = refused.named.first().map(|first| format!(": {}: {}", first.line, first.reason));
    let text = format!(
        "{} samples were refused and set aside, all others are stored{}",
        refused.total,
        first.unwrap_or_default()
    );
    let mut response = (StatusCode::BAD_REQUEST, text).into_response();
    response.headers_mut().insert(REFUSED_HEADER, HeaderValue::from(refused.total));
    response
}

/// Senders of 2.0 take an answer without these for that of a server which does not know it.
fn add_written(version: Version, response: &mut Response, written: [u64; 3]) {
    if version == Version::Two {
        for (name, count) in [SAMPLES_HEADER, HISTOGRAMS_HEADER, EXEMPLARS_HEADER].into_iter().zip(written) {
            response.headers_mut().insert(name, HeaderValue::from(count));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content_type: &str, told: &str) -> Result<Version, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in [("content-type", content_type), (VERSION_HEADER, told)] {
            if !value.is_empty() {
                headers.insert(name, value.parse().unwrap());
            }
        }
        version(&headers)
    }

    #[test]
    fn the_message_is_what_the_headers_say() {
        let two = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
        for (content_type, told, expected) in [
            ("application/x-protobuf", "0.1.0", Version::One),
            ("application/x-protobuf; proto=prometheus.WriteRequest", "", Version::One),
            ("", "", Version::One),
            (two, "2.0.0", Version::Two),
            ("Application/X-Protobuf; proto=\"io.prometheus.write.v2.Request\"", "", Version::Two),
        ] {
            assert_eq!(read(content_type, told), Ok(expected), "{content_type} {told}");
        }
        for (content_type, told) in [
            ("text/plain", ""),
            ("application/json", "0.1.0"),
            ("application/x-protobuf;proto=io.prometheus.write.v3.Request", ""),
            ("application/x-protobuf", "2.0.0"),
            (two, "0.1.0"),
        ] {
            assert!(read(content_type, told).is_err(), "{content_type} {told}");
        }
    }
}
