//! A body of lines on its way in, the same whichever endpoint it came to.
//!
//! Owns:     the order of receive, parse, store and set aside.
//! Does not: know parameters or the shapes of answers (each endpoint's module does), parse lines (`decode`), or decide
//!           what a table takes (`storage`).
//!
//! Invariants
//!  1. [`Written::Stored`] leaves only after everything that it calls stored is durable (P1).
//!  2. With `all_or_none`, a line that cannot be parsed stores nothing at all. A line that only the table's schema or a
//!     time limit refuses is found while storing: then the other lines are stored all the same.
//!  3. Lines that are refused while others are stored are set aside, durable, before the answer; if they cannot be, that
//!     is an error, and nothing is answered as stored.
//!  4. An agent forgets its batch after 204, and after 400 and 422 with `X-Eden-Refused`. So all that is not stored of
//!     it is set aside, durable, before.

use std::sync::Arc;

use axum::body::Body;
use axum::http::HeaderMap;
use decode::line_protocol::{self, AgentHeader, ORIGINAL_BYTES_MAX, Options, Precision};
use model::{NodeId, TableBatch};
use storage::{RejectedRow, Seen, Storage, StorageError};

use crate::agent_batch;
use crate::app::App;
use crate::http::body::{self, Received};
use crate::http::intake::aside::Came;
use crate::http::intake::{self, Cause, REFUSED_MAX, Refused, RefusedLine, WriteError};
use crate::metrics::Metrics;
use crate::sources::{Became, Counted, Source, Tally};

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LineWrite {
    /// The endpoint's.
    pub(super) path: &'static str,
    pub(super) counted_as: Source,
    pub(super) schema: String,
    pub(super) precision: Precision,
    /// A line that cannot be parsed refuses the body.
    pub(super) all_or_none: bool,
}

/// What became of a body.
#[derive(Debug)]
pub(super) enum Written {
    /// All but the refused lines is durable.
    Stored { refused: Refused, accepted: usize, node: NodeId },
    /// Lines cannot be parsed and all had to be good: nothing was stored.
    NotParsed(Refused),
}

/// What was done with a body before waiting for the disk.
enum Begun {
    Pending { refused: Refused, accepted: usize, pending: Counted },
    NotParsed(Refused),
}

/// Stores a body; `source` says who sent it.
pub(super) async fn write(
    app: &Arc<App>,
    source: String,
    wanted: LineWrite,
    headers: &HeaderMap,
    body: Body,
) -> Result<Written, WriteError> {
    let node = app.for_writes()?.storage.node();
    let received = body::receive(app, headers, body).await?;
    let begun = intake::in_parser(app, received, move |app, storage, received| {
        parse_and_write(app, storage, &wanted, source, received)
    });
    match begun.await? {
        Begun::NotParsed(refused) => Ok(Written::NotParsed(refused)),
        Begun::Pending { refused, accepted, pending } => match pending.await {
            Ok(()) => Ok(Written::Stored { refused, accepted, node }),
            Err(error) => Err(WriteError::Storage { error, refused }),
        },
    }
}

/// The part that works or blocks.
fn parse_and_write(
    app: &App,
    storage: &Storage,
    wanted: &LineWrite,
    source: String,
    received: Received,
) -> Result<Begun, WriteError> {
    let body = received.decompress()?;
    let options = Options {
        schema: &wanted.schema,
        precision: wanted.precision,
        now_us: app.clock.now_us(),
        errors_max: REFUSED_MAX,
    };
    let decoded = line_protocol::parse(&body, &options);
    Metrics::add(&app.metrics.lines, decoded.lines);
    Metrics::add(&app.metrics.lines_refused, decoded.errors_total);
    let mut tally = app.metrics.sources.tally(wanted.counted_as);
    tally.receive(decoded.batches.iter().map(TableBatch::len).sum::<usize>() as u64 + decoded.errors_total);
    let lines = decoded.errors.into_iter().map(RefusedLine::from).collect();
    let mut refused = Refused { lines, total: decoded.errors_total };
    let mut came = Came {
        path: wanted.path,
        body: &body,
        now_us: options.now_us,
        source,
        schema: &wanted.schema,
        precision: wanted.precision,
    };
    if let Some(header) = decoded.agent {
        came.source = format!("{} {}", came.source, header.agent);
        came.precision = header.precision;
        return write_of_agent(storage, wanted, header, decoded.batches, refused, &came, tally);
    }
    if wanted.all_or_none && !refused.lines.is_empty() {
        return Ok(Begun::NotParsed(refused));
    }
    match storage.write(decoded.batches, &came.source) {
        Ok(mut pending) => {
            add_rejected(&mut refused, &body, std::mem::take(&mut pending.rejected));
            let (accepted, pending) = (pending.accepted, tally.storing(pending));
            match storage.set_aside(&came.set_aside(&refused)) {
                Ok(()) => {
                    tally.settle_rest(Became::Quarantined);
                    Ok(Begun::Pending { refused, accepted, pending })
                }
                Err(error) => Err(WriteError::Storage { error, refused }),
            }
        }
        Err(error) => Err(WriteError::Storage { error, refused }),
    }
}

/// As for any body, but that a batch which is durable already is not stored again, and that what is refused is set
/// aside: the agent forgets it.
fn write_of_agent(
    storage: &Storage,
    wanted: &LineWrite,
    header: AgentHeader,
    batches: Vec<TableBatch>,
    mut refused: Refused,
    came: &Came<'_>,
    mut tally: Tally,
) -> Result<Begun, WriteError> {
    let failed = |error| WriteError::Storage { error, refused: Refused::default() };
    if let (true, Some(first)) = (wanted.all_or_none, refused.lines.first()) {
        storage.set_aside(&came.whole(&first.message)).map_err(failed)?;
        tally.settle_rest(Became::Quarantined);
        return Ok(Begun::NotParsed(refused));
    }
    let batch = agent_batch::named(header, came.body);
    let written = storage.write_of_agent_setting_aside(batches, &batch, &came.source, |rejected| {
        add_rejected(&mut refused, came.body, rejected.to_vec());
        came.set_aside(&refused)
    });
    match written {
        // What was refused of it was set aside when it came first.
        Ok((pending, Seen::Duplicate)) => {
            let (accepted, pending) = (pending.accepted, tally.duplicate(pending));
            Ok(Begun::Pending { refused: Refused::default(), accepted, pending })
        }
        Ok((pending, Seen::New | Seen::Conflict)) => {
            let (accepted, pending) = (pending.accepted, tally.storing(pending));
            tally.settle_rest(Became::Quarantined);
            Ok(Begun::Pending { refused, accepted, pending })
        }
        Err(StorageError::Invalid(reason)) => {
            storage.set_aside(&came.whole(&reason)).map_err(failed)?;
            tally.settle_rest(Became::Quarantined);
            Err(WriteError::Storage { error: StorageError::Invalid(reason), refused })
        }
        Err(error) => Err(WriteError::Storage { error, refused }),
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
    for RejectedRow { line, reason, unfit } in rejected {
        let original = lines.find(|(_, number)| *number == line).map_or(&b""[..], |(text, _)| text);
        let original = &original[..original.len().min(ORIGINAL_BYTES_MAX)];
        let original = String::from_utf8_lossy(original).trim_end_matches('\r').to_owned();
        refused.lines.push(RefusedLine { line, original, message: reason, cause: Cause::Unfit(unfit) });
    }
    refused.lines.sort_by_key(|refused| refused.line);
    refused.lines.truncate(REFUSED_MAX);
}

#[cfg(test)]
mod tests {
    use decode::line_protocol::LineError;
    use storage::Unfit;

    use super::*;

    #[test]
    fn rows_that_storage_refuses_stand_among_the_lines_in_order() {
        let body = b"# c\na v=1\r\nbad\na v=\"x\"\n";
        let bad = LineError { line: 3, original: "bad".into(), message: "no fields".into() };
        let mut refused = Refused { lines: vec![bad.into()], total: 1 };
        let rejected = |line| RejectedRow { line, reason: "type".into(), unfit: Unfit::Table };
        add_rejected(&mut refused, body, vec![rejected(4), rejected(2)]);
        let found: Vec<_> = refused.lines.iter().map(|e| (e.line, e.original.as_str(), e.cause)).collect();
        let unfit = Cause::Unfit(Unfit::Table);
        assert_eq!(found, [(2, "a v=1", unfit), (3, "bad", Cause::Grammar), (4, "a v=\"x\"", unfit)]);
        assert_eq!(refused.total, 3);
    }
}
