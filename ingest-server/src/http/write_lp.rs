//! `POST /api/v3/write_lp`: line protocol in, as InfluxDB 3 takes it.
//!
//! Owns:     parameters, the order of parse, store and answer, the shapes of the answers, and what of a body is set
//!           aside.
//! Does not: parse lines (`decode`) or decide what a table takes (`storage`).
//!
//! Invariants
//!  1. 204 and the partial answer 400 leave only after everything they call stored is durable (P1).
//!  2. With `accept_partial=false`, a line that cannot be parsed stores nothing at all. A line that only the
//!     table's schema or a time limit refuses is found while storing: then the other lines are stored and the
//!     answer is the partial one, as the answer says.
//!  3. Lines that are refused while others are stored are set aside, durable, before the answer.
//!  4. An agent forgets its batch after 204, and after 400 and 422 with [`REFUSED_HEADER`]. So all that is not stored of
//!     it is set aside, durable, before.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use decode::line_protocol::{self, AgentHeader, LineError, ORIGINAL_BYTES_MAX, Options, Precision};
use model::name::{PUBLIC, check_name};
use model::{NodeId, TableBatch};
use storage::{PendingWrite, RejectedRow, SET_ASIDE_BYTES_MAX, Seen, SetAside, Storage, StorageError};
use uuid::Uuid;

use super::body::{BodyError, Received};
use super::{Peer, answer, body};
use crate::agent_batch;
use crate::app::{App, Unavailable};
use crate::metrics::Metrics;

/// Lines named in one answer; the others are counted.
const ERRORS_MAX: usize = 100;
/// Refused lines that are set aside one by one; of more, the whole body is.
const REFUSED_MAX: usize = 4096;
/// Tells how many lines were refused in all.
pub const REFUSED_HEADER: &str = "x-eden-refused";
/// Where set-aside lines came in.
const PATH: &str = "/api/v3/write_lp";
/// What a client is told to wait while the server starts or stops.
pub(super) const STARTING_RETRY: Duration = Duration::from_secs(2);

/// Schemas that are views of the server, not places for readings.
const RESERVED_SCHEMAS: [&str; 3] = ["system", "information_schema", "pg_catalog"];

#[derive(Clone, Debug, PartialEq, Eq)]
struct Parameters {
    schema: String,
    precision: Precision,
    accept_partial: bool,
}

impl Parameters {
    fn read(query: &HashMap<String, String>) -> Result<Self, String> {
        let db = query.get("db").map(String::as_str).filter(|db| !db.is_empty());
        let db = db.ok_or("the parameter db is missing: /api/v3/write_lp?db=public")?;
        let schema = schema_of(db);
        check_name("schema", schema).map_err(|e| format!("db: {e}"))?;
        if RESERVED_SCHEMAS.iter().any(|reserved| schema.eq_ignore_ascii_case(reserved)) {
            return Err(format!("db: the schema {schema:?} is the server's own; choose another name"));
        }
        let precision = match query.get("precision") {
            None => Precision::Auto,
            Some(word) => word.parse().map_err(|e| format!("precision: {e}"))?,
        };
        // Every 204 follows the sync: there is nothing to skip, but the word is checked.
        read_bool(query, "no_sync", false)?;
        let accept_partial = read_bool(query, "accept_partial", true)?;
        Ok(Parameters { schema: schema.into(), precision, accept_partial })
    }
}

/// The schema that a database's name means.
pub(crate) fn schema_of(db: &str) -> &str {
    if matches!(db, "doc" | "iox") { PUBLIC } else { db }
}

fn read_bool(query: &HashMap<String, String>, name: &str, default: bool) -> Result<bool, String> {
    match query.get(name).map(String::as_str) {
        None => Ok(default),
        Some("true" | "t" | "1" | "") => Ok(true),
        Some("false" | "f" | "0") => Ok(false),
        Some(other) => Err(format!("{name}: {other:?} is neither true nor false")),
    }
}

/// Lines that were not taken.
#[derive(Debug, Default)]
struct Refused {
    /// In order, at most [`REFUSED_MAX`].
    lines: Vec<LineError>,
    /// All of them.
    total: u64,
}

/// What was done with a body before waiting for the disk.
enum Written {
    /// Lines that were not taken, and those on their way to the disk.
    Pending { refused: Refused, pending: PendingWrite },
    /// A line is bad and all must be good: nothing was stored.
    NotParsed(LineError),
}

#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error("{error}")]
    Storage { error: StorageError, refused: Refused },
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    #[error("{0}")]
    Parameters(String),
    #[error("a bug in eden; the server's log says where")]
    Panicked,
}

/// The handler.
pub async fn write_lp(
    State(app): State<Arc<App>>,
    Extension(Peer(peer)): Extension<Peer>,
    query: Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    match write(&app, &format!("http {peer}"), &query, &headers, body).await {
        Ok(response) | Err(response) => response,
    }
}

async fn write(
    app: &Arc<App>,
    source: &str,
    query: &HashMap<String, String>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Response> {
    let refuse = |e: WriteError| e.into_response();
    let storage = app.for_writes().map_err(|e| refuse(e.into()))?.storage;
    let node = storage.node();
    let parameters = Parameters::read(query).map_err(|reason| refuse(WriteError::Parameters(reason)))?;
    let received = body::receive(app, headers, body).await.map_err(|e| refuse(e.into()))?;
    Metrics::add(&app.metrics.body_bytes, received.len() as u64);

    let parser = Arc::clone(&app.parsers).acquire_owned().await.expect("the semaphore is never closed");
    // The server may have begun to stop while the body came in.
    app.for_writes().map_err(|e| refuse(e.into()))?;
    let source = source.to_owned();
    let written = tokio::task::spawn_blocking({
        let app = Arc::clone(app);
        move || {
            let _parser = parser;
            parse_and_write(&app, &storage, &parameters, &source, received)
        }
    });
    let written = written.await.unwrap_or(Err(WriteError::Panicked)).map_err(refuse)?;

    match written {
        Written::NotParsed(error) => Err(not_parsed(&error)),
        Written::Pending { refused, pending } => {
            if let Err(error) = pending.durable().await {
                return Err(refuse(WriteError::Storage { error, refused }));
            }
            if refused.total == 0 { Ok(stored(node)) } else { Ok(partial(&refused)) }
        }
    }
}

/// The part that works or blocks.
fn parse_and_write(
    app: &App,
    storage: &Storage,
    parameters: &Parameters,
    source: &str,
    received: Received,
) -> Result<Written, WriteError> {
    let body = received.decompress()?;
    let options = Options {
        schema: &parameters.schema,
        precision: parameters.precision,
        now_us: app.clock.now_us(),
        errors_max: REFUSED_MAX,
    };
    let decoded = line_protocol::parse(&body, &options);
    Metrics::add(&app.metrics.lines, decoded.lines);
    Metrics::add(&app.metrics.lines_refused, decoded.errors_total);
    let mut refused = Refused { lines: decoded.errors, total: decoded.errors_total };
    let mut came = Came {
        body: &body,
        now_us: options.now_us,
        source: source.to_owned(),
        schema: &parameters.schema,
        precision: parameters.precision,
    };
    if let Some(header) = decoded.agent {
        came.source = format!("{source} {}", header.agent);
        came.precision = header.precision;
        return write_of_agent(storage, parameters, header, decoded.batches, refused, &came);
    }
    if !parameters.accept_partial && !refused.lines.is_empty() {
        return Ok(Written::NotParsed(refused.lines.swap_remove(0)));
    }
    match storage.write(decoded.batches, source) {
        Ok(mut pending) => {
            add_rejected(&mut refused, &body, std::mem::take(&mut pending.rejected));
            match storage.set_aside(&came.set_aside(&refused)) {
                Ok(()) => Ok(Written::Pending { refused, pending }),
                Err(error) => Err(WriteError::Storage { error, refused }),
            }
        }
        Err(error) => Err(WriteError::Storage { error, refused }),
    }
}

/// A body, as it is set aside.
struct Came<'a> {
    body: &'a [u8],
    now_us: i64,
    /// Who sent it, and for which agent.
    source: String,
    schema: &'a str,
    precision: Precision,
}

/// As for any body, but that a batch which is durable already is not stored again, and that what is refused is set
/// aside: the agent forgets it.
fn write_of_agent(
    storage: &Storage,
    parameters: &Parameters,
    header: AgentHeader,
    batches: Vec<TableBatch>,
    mut refused: Refused,
    came: &Came<'_>,
) -> Result<Written, WriteError> {
    let failed = |error| WriteError::Storage { error, refused: Refused::default() };
    if !parameters.accept_partial && !refused.lines.is_empty() {
        let error = refused.lines.swap_remove(0);
        storage.set_aside(&came.whole(&error.message)).map_err(failed)?;
        return Ok(Written::NotParsed(error));
    }
    let batch = agent_batch::named(header, came.body);
    let written = storage.write_of_agent_setting_aside(batches, &batch, &came.source, |rejected| {
        add_rejected(&mut refused, came.body, rejected.to_vec());
        came.set_aside(&refused)
    });
    match written {
        // What was refused of it was set aside when it came first.
        Ok((pending, Seen::Duplicate)) => Ok(Written::Pending { refused: Refused::default(), pending }),
        Ok((pending, Seen::New | Seen::Conflict)) => Ok(Written::Pending { refused, pending }),
        Err(StorageError::Invalid(reason)) => {
            storage.set_aside(&came.whole(&reason)).map_err(failed)?;
            Err(WriteError::Storage { error: StorageError::Invalid(reason), refused })
        }
        Err(error) => Err(WriteError::Storage { error, refused }),
    }
}

impl Came<'_> {
    /// Refused lines, each by itself with its reason; the whole body if not all of them are known.
    fn set_aside(&self, refused: &Refused) -> Vec<SetAside> {
        match refused.lines.first() {
            None => Vec::new(),
            Some(first) if refused.total > refused.lines.len() as u64 => {
                let reason = format!("{} lines were refused, the first of them: {}", refused.total, first.message);
                let mut pieces = self.whole(&reason);
                // The others are stored, and may have been corrected since: not to be written again.
                pieces.iter_mut().for_each(|piece| piece.is_whole = false);
                pieces
            }
            Some(_) => {
                let lines = line_protocol::lines_at(self.body, refused.lines.iter().map(|error| error.line));
                let parts = refused.lines.iter().zip(lines).flat_map(|(error, line)| self.line(&error.message, line));
                parts.collect()
            }
        }
    }

    /// A refused line; if it is longer than what is kept whole, in pieces that are no lines.
    fn line(&self, reason: &str, line: &[u8]) -> Vec<SetAside> {
        let is_whole = line.len() <= SET_ASIDE_BYTES_MAX;
        let pieces = line.chunks(SET_ASIDE_BYTES_MAX);
        pieces.map(|piece| SetAside { is_whole, ..self.part(reason, piece) }).collect()
    }

    /// The body, of which nothing is stored, in pieces that are kept whole, cut behind lines where that is possible.
    fn whole(&self, reason: &str) -> Vec<SetAside> {
        let (mut pieces, mut rest) = (Vec::new(), self.body);
        let is_one = rest.len() <= SET_ASIDE_BYTES_MAX;
        // A text may have line breaks, so a piece may begin or end in one.
        let has_texts = rest.contains(&b'"');
        while !rest.is_empty() {
            let most = &rest[..rest.len().min(SET_ASIDE_BYTES_MAX)];
            let behind_line = most.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1);
            let len = behind_line.filter(|_| most.len() < rest.len()).unwrap_or(most.len());
            let is_cut = !is_one && (has_texts || behind_line.is_none());
            pieces.push(SetAside { is_whole: !is_cut, ..self.part(reason, &rest[..len]) });
            rest = &rest[len..];
        }
        pieces
    }

    fn part(&self, reason: &str, payload: &[u8]) -> SetAside {
        SetAside {
            time_us: self.now_us,
            source: self.source.clone(),
            topic: PATH.into(),
            schema: self.schema.into(),
            precision: self.precision.to_string(),
            reason: reason.into(),
            payload: payload.to_vec(),
            is_whole: true,
        }
    }
}

/// Adds rows that storage refused to the lines that the parser refused, in order of lines.
fn add_rejected(refused: &mut Refused, body: &[u8], mut rejected: Vec<RejectedRow>) {
    if rejected.is_empty() {
        return;
    }
    rejected.sort_by_key(|row| row.line);
    // Two rows of a line cannot be: a line is one reading.
    rejected.dedup_by_key(|row| row.line);
    refused.total += rejected.len() as u64;
    rejected.truncate(REFUSED_MAX);
    let mut lines = body.split(|byte| *byte == b'\n').zip(1_u32..);
    for RejectedRow { line, reason } in rejected {
        let original = lines.find(|(_, number)| *number == line).map_or(&b""[..], |(text, _)| text);
        let original = &original[..original.len().min(ORIGINAL_BYTES_MAX)];
        let original = String::from_utf8_lossy(original).trim_end_matches('\r').to_owned();
        refused.lines.push(LineError { line, original, message: reason });
    }
    refused.lines.sort_by_key(|error| error.line);
    refused.lines.truncate(REFUSED_MAX);
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

fn describe(error: &LineError) -> serde_json::Value {
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

fn not_parsed(error: &LineError) -> Response {
    let body = serde_json::json!({ "error": "parsing failed for write_lp endpoint", "data": describe(error) });
    answer::json(StatusCode::BAD_REQUEST, &body)
}

impl WriteError {
    fn into_response(self) -> Response {
        match self {
            WriteError::Parameters(reason) => answer::error(StatusCode::BAD_REQUEST, reason),
            WriteError::Body(error) => {
                let response = answer::error(error.status(), error.to_string());
                let busy = error == BodyError::Busy;
                if busy { answer::retry_after(response, STARTING_RETRY) } else { response }
            }
            WriteError::Unavailable(reason) => unavailable(&reason.to_string(), STARTING_RETRY),
            WriteError::Panicked => answer::error(StatusCode::INTERNAL_SERVER_ERROR, self.to_string()),
            WriteError::Storage { error, refused } => storage_failed(&error, &refused),
        }
    }
}

fn storage_failed(error: &StorageError, refused: &Refused) -> Response {
    match error {
        StorageError::Invalid(reason) => listed(StatusCode::UNPROCESSABLE_ENTITY, reason, refused),
        StorageError::Busy { retry_after, .. } => unavailable(&error.to_string(), *retry_after),
        // Ours to mend, not the client's: it keeps the batch and comes back.
        other => {
            tracing::warn!(error = %other, "a write could not be stored");
            unavailable(&other.to_string(), STARTING_RETRY)
        }
    }
}

pub(super) fn unavailable(reason: &str, retry_after: Duration) -> Response {
    answer::retry_after(answer::error(StatusCode::SERVICE_UNAVAILABLE, reason), retry_after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(query: &[(&str, &str)]) -> Result<Parameters, String> {
        Parameters::read(&query.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect())
    }

    #[test]
    fn parameters_have_the_defaults_of_influxdb() {
        let read = parameters(&[("db", "doc")]).unwrap();
        assert_eq!(read, Parameters { schema: "public".into(), precision: Precision::Auto, accept_partial: true });
        let read = parameters(&[("db", "plant"), ("precision", "second"), ("accept_partial", "false")]).unwrap();
        let second = Parameters { schema: "plant".into(), precision: Precision::Second, accept_partial: false };
        assert_eq!(read, second);
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
            let error = parameters(query).unwrap_err();
            assert!(error.starts_with(said), "{error}");
        }
    }

    fn came(body: &[u8]) -> Came<'_> {
        Came { body, now_us: 5, source: "http pi".into(), schema: "plant", precision: Precision::Second }
    }

    #[test]
    fn what_is_set_aside_is_the_refused_lines_as_they_came() {
        let line = |number| LineError { line: number, original: "cut".into(), message: format!("bad {number}") };
        let check = |body: &[u8], numbers: &[u32], total: u64, expected: &[(&str, &str, bool)]| {
            let lines: Vec<LineError> = numbers.iter().map(|number| line(*number)).collect();
            let aside = came(body).set_aside(&Refused { lines, total });
            let shown: Vec<_> =
                aside.iter().map(|a| (str::from_utf8(&a.payload).unwrap(), &*a.reason, a.is_whole)).collect();
            assert_eq!(shown, expected);
            assert!(aside.iter().all(|a| (&*a.schema, &*a.precision) == ("plant", "second")));
        };
        check(b"body", &[], 0, &[]);
        let body = b"a v=1\nb v=\"x\ny\" 5\r\n# c\nc v=2";
        check(
            body,
            &[1, 2, 5],
            3,
            &[("a v=1", "bad 1", true), ("b v=\"x\ny\" 5\r", "bad 2", true), ("c v=2", "bad 5", true)],
        );
        // Not all are known: nobody knows which of them are stored, so they are only kept.
        let many = "2 lines were refused, the first of them: bad 1";
        check(b"a v=1\nb v=2", &[1], 2, &[("a v=1\nb v=2", many, false)]);
        let endless = "x".repeat(70_000);
        let (first, last) = endless.split_at(65_536);
        check(endless.as_bytes(), &[1], 1, &[(first, "bad 1", false), (last, "bad 1", false)]);
    }

    #[test]
    fn a_whole_body_is_cut_behind_lines() {
        let check = |line: &str, is_whole: bool| {
            let is_line = line.ends_with('\n');
            let first = if is_line { SET_ASIDE_BYTES_MAX / line.len() * line.len() } else { SET_ASIDE_BYTES_MAX };
            let body = line.repeat(4000).into_bytes();
            let aside = came(&body).whole("refused");
            assert_eq!((aside[0].payload.len(), aside[0].is_whole, aside[1].is_whole), (first, is_whole, is_whole));
            assert_eq!([&aside[0].payload[..], &aside[1].payload].concat(), body);
        };
        check("a long line that is refused\n", true);
        check("a line=\"with a text\" refused\n", false);
        check("bytes without any line break", false);
    }

    #[test]
    fn rows_that_storage_refuses_stand_among_the_lines_in_order() {
        let body = b"# c\na v=1\r\nbad\na v=\"x\"\n";
        let bad = LineError { line: 3, original: "bad".into(), message: "no fields".into() };
        let mut refused = Refused { lines: vec![bad], total: 1 };
        let rejected = |line| RejectedRow { line, reason: "type".into() };
        add_rejected(&mut refused, body, vec![rejected(4), rejected(2)]);
        let found: Vec<_> = refused.lines.iter().map(|e| (e.line, e.original.as_str())).collect();
        assert_eq!(found, [(2, "a v=1"), (3, "bad"), (4, "a v=\"x\"")]);
        assert_eq!(refused.total, 3);
    }
}
