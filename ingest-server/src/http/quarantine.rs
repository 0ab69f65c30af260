//! `POST /api/v1/quarantine/replay`: writes again what was set aside, and takes out of the quarantine what is stored.
//!
//! Owns:     which payloads can be written again, and what becomes of those of which a part still cannot.
//! Does not: choose payloads by what is in them: a client asks `system.quarantine` for their ids.
//!
//! A payload is read as it was when it came: its schema, the unit of its times, and for lines without a time the time
//! at which it came. A message that could not be read at all is read by the rule that takes its topic now. It is not a batch of its agent any more: that is known, and would be a duplicate.
//!
//! Invariants
//!  1. A payload leaves the quarantine only after all of its lines are durable elsewhere: in their tables, or what is
//!     refused again in the quarantine (P1). A crash in between makes it be written twice, which changes nothing that
//!     nobody corrected meanwhile.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use decode::line_protocol::{self, Options, Precision};
use decode::line_text;
use decode::mapping::{Message, Rows};
use model::TableBatch;
use serde::Deserialize;
use storage::{PendingWrite, QuarantineId, Quarantined, SetAside, Storage, StorageError};

use super::answer::{STARTING_RETRY, unavailable};
use super::{Peer, answer, body};
use crate::app::App;
use crate::mqtt::topic::Topics;
use crate::sources::{Became, Source, Sources, Tally};

/// Payloads written before the disk is waited for.
const TOGETHER_MAX: usize = 256;

/// Refused lines that are told apart in one payload, which is at most 64 KiB.
const REFUSED_MAX: usize = 64 << 10;

/// What is to be replayed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// As `system.quarantine` shows them; all without.
    ids: Option<Vec<String>>,
}

/// What a replay has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Replayed {
    /// Payloads that were looked at.
    pub payloads: u64,
    /// Of those, how many are stored whole and out of the quarantine.
    pub replayed: u64,
    /// Lines stored.
    pub lines: u64,
    /// Payloads of which some lines are refused again; what is stored of them is out of the quarantine.
    pub refused: u64,
    /// Payloads that cannot be written again: cut, no lines, or lines of which nobody knows the unit of time.
    pub not_replayable: u64,
}

/// The handler.
pub async fn replay(
    State(app): State<Arc<App>>,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let storage = match app.for_writes() {
        Ok(parts) => parts.storage,
        Err(e) => return unavailable(&e.to_string(), STARTING_RETRY),
    };
    let received = match body::receive(&app, &headers, body).await {
        Ok(received) => received,
        Err(e) => return answer::error(e.status(), e.to_string()),
    };
    let wanted = match received.decompress() {
        Ok(bytes) => wanted(&bytes),
        Err(e) => return answer::error(e.status(), e.to_string()),
    };
    let wanted = match wanted {
        Ok(wanted) => wanted,
        Err(reason) => return answer::error(StatusCode::BAD_REQUEST, reason),
    };
    let source = format!("http {peer}");
    let topics = app.topics.clone();
    let sources = Arc::clone(&app.metrics.sources);
    let work = tokio::task::spawn_blocking(move || {
        run(&Replay { storage: &storage, topics: &topics, sources: &sources, source: &source }, wanted.as_ref())
    });
    match work.await {
        Ok((done, Ok(()))) => answer::json(StatusCode::OK, &serde_json::json!(done)),
        Ok((done, Err(error))) => {
            tracing::warn!(%error, ?done, "what was set aside could not all be replayed");
            let Replayed { replayed, payloads, .. } = done;
            unavailable(&format!("{error}; {replayed} of {payloads} payloads were replayed before"), STARTING_RETRY)
        }
        Err(_) => answer::error(StatusCode::INTERNAL_SERVER_ERROR, "a bug in eden; the server's log says where"),
    }
}

/// The ids that a body asks for; `None`: all.
fn wanted(bytes: &[u8]) -> Result<Option<HashSet<QuarantineId>>, String> {
    let right = r#"right is {"ids":["4096-0"]}, or {} for all"#;
    let wanted: Wanted = serde_json::from_slice(bytes).map_err(|e| format!("{e}; {right}"))?;
    let parsed = wanted.ids.map(|ids| ids.iter().map(|id| id.parse()).collect::<Result<HashSet<_>, String>>());
    parsed.transpose().map_err(|id| format!("{id:?} is no id of system.quarantine; {right}"))
}

/// What writing again needs.
struct Replay<'a> {
    storage: &'a Storage,
    topics: &'a Topics,
    sources: &'a Arc<Sources>,
    source: &'a str,
}

impl Replay<'_> {
    fn tally(&self, rows: u64) -> Tally {
        let mut tally = self.sources.tally(Source::Replay);
        tally.receive(rows);
        tally
    }
}

/// Writes again what is wanted. Blocks. What it says is done, is done, whether it fails later or not.
fn run(replay: &Replay<'_>, wanted: Option<&HashSet<QuarantineId>>) -> (Replayed, Result<(), StorageError>) {
    let mut done = Replayed::default();
    let result = replay.storage.quarantined().and_then(|kept| {
        let kept: Vec<Quarantined> =
            kept.into_iter().filter(|kept| wanted.is_none_or(|wanted| wanted.contains(&kept.id))).collect();
        kept.chunks(TOGETHER_MAX).try_for_each(|payloads| together(replay, payloads, &mut done))
    });
    (done, result)
}

/// What writing one payload has come to.
enum Written {
    /// Nothing changes.
    NotReplayable,
    Refused,
    /// On its way to the disk, but for the lines that are set aside again.
    Pending {
        pending: PendingWrite,
        again: Vec<SetAside>,
        tally: Tally,
    },
}

fn together(replay: &Replay<'_>, payloads: &[Quarantined], done: &mut Replayed) -> Result<(), StorageError> {
    let (mut written, mut failed) = (Vec::with_capacity(payloads.len()), Ok(()));
    for kept in payloads {
        done.payloads += 1;
        match write(replay, &kept.payload) {
            Ok(Written::NotReplayable) => done.not_replayable += 1,
            Ok(Written::Refused) => done.refused += 1,
            Ok(Written::Pending { pending, again, tally }) => written.push((kept.id, pending, again, tally)),
            Err(e) => {
                failed = Err(e);
                break;
            }
        }
    }
    let mut ids = Vec::with_capacity(written.len());
    let (mut again, mut tallies, mut counted) = (Vec::new(), Vec::new(), Replayed::default());
    for (id, pending, refused, mut tally) in written {
        let accepted = pending.accepted as u64;
        counted.lines += accepted;
        match refused.is_empty() {
            true => counted.replayed += 1,
            false => counted.refused += 1,
        }
        again.extend(refused);
        pending.wait()?;
        tally.settle(Became::Stored, accepted);
        tallies.push(tally);
        ids.push(id);
    }
    replay.storage.set_aside(&again)?;
    tallies.iter_mut().for_each(|tally| tally.settle_rest(Became::Quarantined));
    replay.storage.replayed(&ids)?;
    done.lines += counted.lines;
    done.replayed += counted.replayed;
    done.refused += counted.refused;
    failed
}

fn write(replay: &Replay<'_>, payload: &SetAside) -> Result<Written, StorageError> {
    let Replay { storage, source, .. } = *replay;
    if payload.is_whole && payload.precision.is_empty() && payload.source.starts_with("mqtt ") {
        return write_by_rule(replay, payload);
    }
    let (true, Ok(precision)) = (payload.is_whole, payload.precision.parse::<Precision>()) else {
        return Ok(Written::NotReplayable);
    };
    let options = Options { schema: &payload.schema, precision, now_us: payload.time_us, errors_max: REFUSED_MAX };
    let decoded = line_protocol::parse(&payload.payload, &options);
    if decoded.lines == 0 {
        return Ok(Written::NotReplayable);
    }
    let mut tally =
        replay.tally(decoded.batches.iter().map(TableBatch::len).sum::<usize>() as u64 + decoded.errors_total);
    // The header's unit, if there is one, is that of its lines when they stand alone.
    let precision = decoded.agent.map_or(precision, |header| header.precision);
    let source = format!("replay by {source} of {}", payload.source);
    let mut pending = match storage.write(decoded.batches, &source) {
        Ok(pending) => pending,
        Err(StorageError::Invalid(_)) => {
            tally.settle_rest(Became::Quarantined);
            return Ok(Written::Refused);
        }
        Err(e) => return Err(e),
    };
    let mut refused: Vec<(u32, String)> = decoded.errors.into_iter().map(|e| (e.line, e.message)).collect();
    refused.extend(std::mem::take(&mut pending.rejected).into_iter().map(|row| (row.line, row.reason)));
    if pending.accepted == 0 {
        // As it was, with its first reason.
        tally.settle_rest(Became::Quarantined);
        return Ok(Written::Refused);
    }
    refused.sort_by_key(|(line, _)| *line);
    let lines = line_protocol::lines_at(&payload.payload, refused.iter().map(|(line, _)| *line));
    let again = refused.iter().zip(lines).map(|((_, reason), line)| SetAside {
        precision: precision.to_string(),
        reason: reason.clone(),
        payload: line.to_vec(),
        ..payload.clone()
    });
    Ok(Written::Pending { again: again.collect(), pending, tally })
}

/// Writes a message that could not be read when it came, if a rule reads it now. What the rule would take from user
/// properties is not known any more.
fn write_by_rule(replay: &Replay<'_>, payload: &SetAside) -> Result<Written, StorageError> {
    let rule = replay.topics.rules().find(&payload.topic).map(|(_, rule)| rule);
    let Some(rule) = rule.filter(|rule| !rule.wants_user_properties() && !rule.has_state()) else {
        return Ok(Written::NotReplayable);
    };
    let SetAside { topic, payload: bytes, time_us, .. } = payload;
    let mut rows = Rows::new(&payload.schema);
    let mapped = rule.map(&Message { topic, payload: bytes, user_properties: &[], now_us: *time_us }, &mut rows);
    let mut tally = replay.tally(u64::from(rows.len()) + mapped.refused_total);
    if mapped.refused_total > 0 || rows.is_empty() {
        tally.settle_rest(Became::Quarantined);
        return Ok(Written::Refused);
    }
    let batches = rows.finish();
    // The rows of one message: few, and needed if not all of them are taken.
    let lines: HashMap<u32, Option<String>> = batches
        .iter()
        .flat_map(|batch| batch.lines.iter().enumerate().map(|(row, line)| (*line, line_text::row_line(batch, row))))
        .collect();
    let source = format!("replay by {} of {}", replay.source, payload.source);
    let mut pending = match replay.storage.write(batches, &source) {
        Ok(pending) => pending,
        Err(StorageError::Invalid(_)) => {
            tally.settle_rest(Became::Quarantined);
            return Ok(Written::Refused);
        }
        Err(e) => return Err(e),
    };
    let rejected = std::mem::take(&mut pending.rejected);
    if pending.accepted == 0 {
        tally.settle_rest(Became::Quarantined);
        return Ok(Written::Refused);
    }
    let again = rejected.into_iter().map(|row| match lines.get(&row.line).cloned().flatten() {
        Some(line) => SetAside {
            precision: Precision::Microsecond.to_string(),
            reason: row.reason,
            payload: line.into_bytes(),
            ..payload.clone()
        },
        None => SetAside { reason: row.reason, is_whole: false, ..payload.clone() },
    });
    Ok(Written::Pending { again: again.collect(), pending, tally })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_and_mistakes_named() {
        assert_eq!(wanted(b"{}"), Ok(None));
        let ids = wanted(br#"{"ids":["4096-0","0-7","0-7"]}"#).unwrap().unwrap();
        assert_eq!(ids.len(), 2);
        for (body, said) in
            [("", "right is"), (r#"{"ids":["x"]}"#, "\"x\" is no id"), (r#"{"where":1}"#, "unknown field")]
        {
            assert!(wanted(body.as_bytes()).unwrap_err().contains(said), "{body}");
        }
    }
}
