//! `POST /api/v1/json`: objects in, as a rule of the configuration or the parameters say.
//!
//! Owns:     its parameters, and the shapes of its answers.
//! Does not: map (`decode::mapping`), or decide what a table takes (`storage`).
//!
//! Invariants
//!  1. 204, and 400 with [`REFUSED_HEADER`], leave only after all rows but those refused are durable (P1), and what is refused
//!     is set aside, durable, unless `accept_partial=false` made nothing be stored.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use decode::line_protocol::{ORIGINAL_BYTES_MAX, Precision};
use decode::line_text::row_line;
use decode::mapping::{Mapped, Message, RefusedPart, Rows, Rule, RuleOptions};
use serde_json::json;
use settings::unknown;
use storage::{SET_ASIDE_BYTES_MAX, SetAside, Storage};

use super::Peer;
use super::answer;
use super::body::{self, Received};
use super::influx::schema;
use super::intake::{REFUSED_HEADER, WriteError, in_parser};
use crate::app::App;
use crate::sources::{Became, Counted, Source};

const PATH: &str = "/api/v1/json";
/// Refused parts named in one answer; the others are counted.
const ERRORS_MAX: usize = 100;
/// The parameters that name a mapping.
const MAPPING: [&str; 9] = [
    "table",
    "tag_keys",
    "json_query",
    "json_name_key",
    "json_time_key",
    "json_time_format",
    "json_timezone",
    "json_string_fields",
    "json_integer_fields",
];
/// The others.
const OTHERS: [&str; 4] = ["db", "rule", "topic", "accept_partial"];

/// What a request asks for.
#[derive(Debug)]
struct Wanted {
    rule: Rule,
    schema: String,
    topic: String,
    all_or_none: bool,
}

/// What cannot be stored of a body.
#[derive(Debug)]
struct Refused {
    parts: Vec<RefusedPart>,
    total: u64,
}

enum Outcome {
    Stored {
        refused: Refused,
        pending: Option<Counted>,
    },
    /// A part is refused and all had to be good.
    Nothing(Refused),
}

/// The handler.
pub(super) async fn write(
    State(app): State<Arc<App>>,
    Extension(Peer(peer)): Extension<Peer>,
    query: Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let wanted = match parameters(&app, &query) {
        Ok(wanted) => wanted,
        Err(reason) => return answer::error(StatusCode::BAD_REQUEST, reason),
    };
    let (refused, pending) = match begin(&app, wanted, format!("http {peer}"), &headers, body).await {
        Ok(Outcome::Stored { refused, pending }) => (refused, pending),
        Ok(Outcome::Nothing(refused)) => return listed("nothing is stored, for some of it is refused", &refused),
        Err(error) => return error.answer(),
    };
    if let Some(pending) = pending
        && let Err(error) = pending.await
    {
        return WriteError::from(error).answer();
    }
    if refused.total == 0 {
        StatusCode::NO_CONTENT.into_response()
    } else {
        listed("partial write of JSON occurred", &refused)
    }
}

async fn begin(
    app: &Arc<App>,
    wanted: Wanted,
    source: String,
    headers: &HeaderMap,
    body: Body,
) -> Result<Outcome, WriteError> {
    app.for_writes()?;
    let received = body::receive(app, headers, body).await?;
    in_parser(app, received, move |app, storage, received| run(app, storage, &wanted, source, received)).await
}

fn parameters(app: &App, query: &HashMap<String, String>) -> Result<Wanted, String> {
    let known = [&MAPPING[..], &OTHERS].concat();
    if let Some(name) = query.keys().find(|name| !known.contains(&name.as_str())) {
        return Err(unknown("parameter", name, &known));
    }
    let text = |name: &str| query.get(name).cloned().unwrap_or_default();
    let list = |name: &str| text(name).split(',').map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned).collect();
    let schema = schema::checked(&text("db")).map_err(|e| format!("db: {e}"))?;
    let all_or_none = match &*text("accept_partial") {
        "" | "true" => false,
        "false" => true,
        other => return Err(format!("accept_partial: {other:?} is neither true nor false")),
    };
    let rule = match query.get("rule") {
        Some(name) => {
            if let Some(other) = MAPPING.iter().find(|other| query.contains_key(**other)) {
                return Err(format!("{other} does nothing beside rule: the rule says what is what"));
            }
            let rule = app.topics.rules().named(name).filter(|rule| !rule.has_state());
            rule.cloned().ok_or_else(|| format!("there is no rule of the name {name:?}: see [[mqtt.rule]]"))?
        }
        None => {
            let mut options = RuleOptions {
                name: PATH.into(),
                data_format: "json".into(),
                name_override: text("table"),
                tag_keys: list("tag_keys"),
                json_query: text("json_query"),
                json_name_key: text("json_name_key"),
                json_time_key: text("json_time_key"),
                json_time_format: text("json_time_format"),
                json_timezone: text("json_timezone"),
                json_integer_fields: list("json_integer_fields"),
                ..RuleOptions::default()
            };
            if query.contains_key("json_string_fields") {
                options.json_string_fields = list("json_string_fields");
            }
            if options.name_override.is_empty() && options.json_name_key.is_empty() {
                return Err(format!("the parameter table is missing: {PATH}?table=press"));
            }
            Rule::compile(&options).map_err(|wrong| format!("{}: {}", wrong.option, wrong.reason))?
        }
    };
    Ok(Wanted { rule, schema, topic: text("topic"), all_or_none })
}

/// The part that works or blocks.
fn run(
    app: &App,
    storage: &Storage,
    wanted: &Wanted,
    source: String,
    received: Received,
) -> Result<Outcome, WriteError> {
    let body = received.decompress()?;
    let now_us = app.clock.now_us();
    let mut rows = Rows::new(&wanted.schema);
    let message = Message { topic: &wanted.topic, payload: &body, user_properties: &[], now_us };
    let Mapped { refused, refused_total, .. } = wanted.rule.map(&message, &mut rows);
    let mut refused = Refused { parts: refused, total: refused_total };
    let mut tally = app.metrics.sources.tally(Source::Json);
    tally.receive(u64::from(rows.len()) + refused_total);
    if wanted.all_or_none && refused.total > 0 {
        return Ok(Outcome::Nothing(refused));
    }
    let batches = rows.finish();
    let aside = |precision: &str, reason: &str, payload: &[u8], is_whole: bool| -> Vec<SetAside> {
        let is_whole = is_whole && payload.len() <= SET_ASIDE_BYTES_MAX;
        let put = |piece: &[u8]| SetAside {
            time_us: now_us,
            source: source.clone(),
            topic: PATH.into(),
            schema: wanted.schema.clone(),
            precision: precision.into(),
            reason: reason.into(),
            payload: piece.to_vec(),
            is_whole,
        };
        payload.chunks(SET_ASIDE_BYTES_MAX).map(put).collect()
    };
    let mut pieces: Vec<SetAside> = Vec::new();
    match refused.parts.first() {
        Some(first) if refused.total > refused.parts.len() as u64 => {
            // Which they are is not known, so all is kept; but not to be written again.
            pieces = aside(
                "",
                &format!("{} parts were refused, the first of them: {}", refused.total, first.reason),
                &body,
                false,
            );
        }
        _ => {
            for RefusedPart { part, reason, .. } in &refused.parts {
                pieces.extend(aside("", reason, part.as_deref().unwrap_or(&body), true));
            }
        }
    }
    let mut pending = None;
    if !batches.is_empty() {
        // Storage takes the rows; those that it refuses are looked up here.
        let copies = batches.clone();
        let mut written = storage.write(batches, &source)?;
        for row in std::mem::take(&mut written.rejected) {
            let found = copies.iter().find_map(|batch| {
                let at = batch.lines.iter().position(|line| *line == row.line)?;
                row_line(batch, at)
            });
            let precision = if found.is_some() { Precision::Microsecond.to_string() } else { String::new() };
            let line = found.unwrap_or_default().into_bytes();
            pieces.extend(aside(
                &precision,
                &row.reason,
                if line.is_empty() { &body } else { &line },
                !line.is_empty(),
            ));
            refused.total += 1;
            let reason = format!("row {}: {}", row.line, row.reason);
            refused.parts.push(RefusedPart { part: Some(line), reason });
        }
        pending = Some(tally.storing(written));
    }
    storage.set_aside(&pieces)?;
    tally.settle_rest(Became::Quarantined);
    Ok(Outcome::Stored { refused, pending })
}

fn listed(error: &str, refused: &Refused) -> Response {
    let describe = |refused: &RefusedPart| {
        let part = refused.part.as_deref().unwrap_or_default();
        let original = String::from_utf8_lossy(&part[..part.len().min(ORIGINAL_BYTES_MAX)]);
        json!({ "original": original, "error_message": refused.reason })
    };
    let data: Vec<_> = refused.parts.iter().take(ERRORS_MAX).map(describe).collect();
    let mut response = answer::json(StatusCode::BAD_REQUEST, &json!({ "error": error, "data": data }));
    // The list is cut; this is not.
    response.headers_mut().insert(REFUSED_HEADER, HeaderValue::from(refused.total));
    response
}
