//! A body of readings on its way in, whatever its format.
//!
//! Owns:     what may keep a body from being stored and the status that says it, what of it was refused, and the turn of
//!           each body at the parsers.
//! Does not: know formats, or the shapes of answers (each endpoint's module does).

pub(super) mod aside;
pub(super) mod rows;

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use decode::line_protocol::LineError;
use storage::{Storage, StorageError, Unfit};

use super::answer::{self, STARTING_RETRY};
use super::body::{BodyError, Received};
use crate::app::{App, Unavailable};
use crate::metrics::Metrics;

/// Tells how many lines were refused in all.
pub(crate) const REFUSED_HEADER: &str = "x-eden-refused";
/// Tells how many lines were refused by an answer that calls the write a success: they are in the quarantine.
pub(crate) const QUARANTINED_HEADER: &str = "x-eden-quarantined";

/// Refused lines that are told apart; of more, those beyond are counted.
pub(super) const REFUSED_MAX: usize = 4096;

/// Lines that were not taken.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::http) struct Refused {
    /// In order, at most [`REFUSED_MAX`].
    pub(in crate::http) lines: Vec<RefusedLine>,
    /// All of them.
    pub(in crate::http) total: u64,
}

/// A line that was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::http) struct RefusedLine {
    /// From 1, counting every line break.
    pub(in crate::http) line: u32,
    /// Its beginning.
    pub(in crate::http) original: String,
    pub(in crate::http) message: String,
    pub(in crate::http) cause: Cause,
}

/// What kind of thing is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Cause {
    Grammar,
    Unfit(Unfit),
}

impl From<LineError> for RefusedLine {
    fn from(error: LineError) -> Self {
        RefusedLine { line: error.line, original: error.original, message: error.message, cause: Cause::Grammar }
    }
}

#[derive(Debug, thiserror::Error)]
pub(in crate::http) enum WriteError {
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error("the body is not what its type says: {0}")]
    Malformed(String),
    #[error("{error}")]
    Storage { error: StorageError, refused: Refused },
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    #[error("a bug in eden; the server's log says where")]
    Panicked,
}

impl From<StorageError> for WriteError {
    fn from(error: StorageError) -> Self {
        WriteError::Storage { error, refused: Refused::default() }
    }
}

impl WriteError {
    /// The answer that says it, of an endpoint without a shape of its own.
    pub(in crate::http) fn answer(&self) -> Response {
        let (status, retry_after) = self.status();
        answer::retry_after_if(answer::error(status, self.to_string()), retry_after)
    }

    /// The status that says it, and when it is worth trying again.
    pub(in crate::http) fn status(&self) -> (StatusCode, Option<Duration>) {
        match self {
            WriteError::Body(BodyError::Busy) => (StatusCode::SERVICE_UNAVAILABLE, Some(STARTING_RETRY)),
            WriteError::Body(error) => (error.status(), None),
            WriteError::Malformed(_) => (StatusCode::BAD_REQUEST, None),
            WriteError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, Some(STARTING_RETRY)),
            WriteError::Panicked => (StatusCode::INTERNAL_SERVER_ERROR, None),
            WriteError::Storage { error: StorageError::Invalid(_), .. } => (StatusCode::UNPROCESSABLE_ENTITY, None),
            WriteError::Storage { error: StorageError::Busy { retry_after, .. }, .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, Some(*retry_after))
            }
            // Ours to mend, not the client's: it keeps the batch and comes back.
            WriteError::Storage { error, .. } => {
                tracing::warn!(%error, "a write could not be stored");
                (StatusCode::SERVICE_UNAVAILABLE, Some(STARTING_RETRY))
            }
        }
    }

    /// As [`WriteError::status`], for clients that forget a batch at any other 4xx than 413: a body that came too
    /// slowly is as good as any.
    pub(in crate::http) fn status_for_old_clients(&self) -> (StatusCode, Option<Duration>) {
        match self.status() {
            (StatusCode::REQUEST_TIMEOUT, _) => (StatusCode::SERVICE_UNAVAILABLE, Some(STARTING_RETRY)),
            status => status,
        }
    }
}

/// Success, of which the header tells what is in the quarantine.
pub(super) fn taken(refused_total: u64) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    if refused_total > 0 {
        response.headers_mut().insert(QUARANTINED_HEADER, HeaderValue::from(refused_total));
    }
    response
}

/// Works on a body where that may take long and block: when one of the parsers is free.
pub(super) async fn in_parser<T: Send + 'static>(
    app: &Arc<App>,
    received: Received,
    work: impl FnOnce(&App, &Storage, Received) -> Result<T, WriteError> + Send + 'static,
) -> Result<T, WriteError> {
    Metrics::add(&app.metrics.body_bytes, received.len() as u64);
    let parser = Arc::clone(&app.parsers).acquire_owned().await.expect("the semaphore is never closed");
    // The server may have begun to stop while the body came in.
    let storage = app.for_writes()?.storage;
    let worked = tokio::task::spawn_blocking({
        let app = Arc::clone(app);
        move || {
            let _parser = parser;
            work(&app, &storage, received)
        }
    });
    worked.await.unwrap_or(Err(WriteError::Panicked))
}
