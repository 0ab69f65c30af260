//! A body of a format without lines on its way in: its rows are stored in portions, and what is refused of them is set aside
//! as lines.
//!
//! Owns:     the order of receive, decode, store and set aside.
//! Does not: know formats, parameters, or the shapes of answers.
//!
//! Invariants
//!  1. [`Stored`] leaves only after every row is durable, in its table or in the quarantine (P1).
//!  2. A row that is refused does not hurt its neighbours, whoever refuses it.
//!  3. What is refused is set aside as a line that can be written again, where a line can say it.

use std::collections::HashMap;
use std::sync::Arc;

use decode::line_protocol::{ORIGINAL_BYTES_MAX, Precision};
use decode::line_text::write_row;
use decode::metrics::{COUNT, Chunk, DecodeError, RefusedSample, Take};
use model::TableBatch;
use storage::{Storage, StorageError};
use tokio::runtime::Handle;

use super::aside::Came;
use super::{WriteError, in_parser};
use crate::app::App;
use crate::http::body::Received;
use crate::metrics::Metrics;
use crate::sources::{Became, Counted, Source, Tally};

/// Refused samples that an answer can name.
const NAMED_MAX: usize = 10;

/// Bytes of refused samples that are set aside for each byte of their body; beyond it they are counted. Samples that
/// share long labels would fill the quarantine with one body.
const ASIDE_A_BYTE: usize = 32;
const ASIDE_AT_LEAST: usize = 1 << 20;

/// Where a body came in, and for which schema.
pub(in crate::http) struct RowWrite {
    pub(in crate::http) path: &'static str,
    pub(in crate::http) counted_as: Source,
    pub(in crate::http) schema: String,
    /// Who sent it.
    pub(in crate::http) source: String,
}

/// What became of a body.
#[derive(Debug)]
pub(in crate::http) struct Stored<T> {
    /// What its format counts.
    pub(in crate::http) totals: T,
    pub(in crate::http) refused: RefusedSamples,
}

/// What was refused; all of it is in the quarantine.
#[derive(Debug, Default)]
pub(in crate::http) struct RefusedSamples {
    /// All of them.
    pub(in crate::http) total: u64,
    /// Those of them that are histograms.
    pub(in crate::http) histograms: u64,
    /// The first, in their order, at most [`NAMED_MAX`], their lines cut.
    pub(in crate::http) named: Vec<RefusedSample>,
}

/// Stores the rows that `decode` finds in a body; it is given the body, its schema and who takes the rows.
pub(in crate::http) async fn write<T: Send + 'static>(
    app: &Arc<App>,
    wanted: RowWrite,
    received: Received,
    decode: impl FnOnce(&[u8], &str, &mut Take<'_, WriteError>) -> Result<T, DecodeError<WriteError>> + Send + 'static,
) -> Result<Stored<T>, WriteError> {
    let begun = in_parser(app, received, move |app, storage, received| {
        let body = received.decompress()?;
        let mut sink = Sink::new(app, storage, &wanted, body.len());
        let decoded = decode(&body, &wanted.schema, &mut |chunk| sink.take(chunk));
        let totals = decoded.map_err(|error| match error {
            DecodeError::Malformed(what) => {
                sink.tally.receive(1);
                WriteError::Malformed(what)
            }
            DecodeError::Taker(error) => error,
        })?;
        let (refused, pending) = sink.finish()?;
        Ok((Stored { totals, refused }, pending))
    });
    let (stored, pending) = begun.await?;
    for pending in pending {
        pending.await?;
    }
    Ok(stored)
}

/// Takes the portions of one body.
struct Sink<'a> {
    app: &'a App,
    storage: &'a Storage,
    came: Came<'a>,
    pending: Vec<Counted>,
    refused: RefusedSamples,
    tally: Tally,
    /// Bytes of refused samples that may still be set aside.
    aside_left: usize,
    /// How many were not, and the first of them.
    not_set_aside: u64,
    first_not_set_aside: Option<RefusedSample>,
}

impl<'a> Sink<'a> {
    fn new(app: &'a App, storage: &'a Storage, wanted: &'a RowWrite, body_bytes: usize) -> Self {
        let came = Came {
            path: wanted.path,
            body: b"",
            now_us: app.clock.now_us(),
            source: wanted.source.clone(),
            schema: &wanted.schema,
            precision: Precision::Microsecond,
        };
        Sink {
            app,
            storage,
            came,
            pending: Vec::new(),
            refused: RefusedSamples::default(),
            tally: app.metrics.sources.tally(wanted.counted_as),
            aside_left: ASIDE_AT_LEAST.saturating_add(body_bytes.saturating_mul(ASIDE_A_BYTE)),
            not_set_aside: 0,
            first_not_set_aside: None,
        }
    }

    fn take(&mut self, chunk: Chunk) -> Result<(), WriteError> {
        let Chunk { batches, refused } = chunk;
        let samples = batches.iter().map(TableBatch::len).sum::<usize>() + refused.len();
        Metrics::add(&self.app.metrics.samples, samples as u64);
        self.tally.receive(samples as u64);
        // Behind the rows: a body that has to come again is not to be set aside twice.
        let mut aside = self.store(batches)?;
        aside.splice(..0, refused);
        self.set_aside(aside)
    }

    /// Stores rows; those that are refused come back.
    fn store(&mut self, batches: Vec<TableBatch>) -> Result<Vec<RefusedSample>, WriteError> {
        if batches.is_empty() {
            return Ok(Vec::new());
        }
        // Storage takes the rows; those that it refuses are looked up here.
        let copies = batches.clone();
        let mut written = self.storage.write(batches, &self.came.source);
        if matches!(written, Err(StorageError::Busy { .. })) && self.wait_for_pending()? {
            written = self.storage.write(copies.clone(), &self.came.source);
        }
        let reasons: HashMap<u32, String> = match written {
            Ok(mut pending) => {
                let rejected = std::mem::take(&mut pending.rejected);
                self.pending.push(self.tally.storing(pending));
                rejected.into_iter().map(|row| (row.line, row.reason)).collect()
            }
            // Nothing of the portion can be stored, ever.
            Err(StorageError::Invalid(reason)) => {
                let numbers = copies.iter().flat_map(|batch| &batch.lines);
                numbers.map(|number| (*number, reason.clone())).collect()
            }
            Err(error) => return Err(error.into()),
        };
        Ok(refused_rows(&copies, &reasons))
    }

    /// Waits until the portions before this one are durable, so that a long body is not refused for its own length.
    /// False if there are none.
    fn wait_for_pending(&mut self) -> Result<bool, WriteError> {
        let waited = !self.pending.is_empty();
        for pending in self.pending.drain(..) {
            Handle::current().block_on(pending)?;
        }
        Ok(waited)
    }

    /// Durable when this returns.
    fn set_aside(&mut self, mut samples: Vec<RefusedSample>) -> Result<(), WriteError> {
        Metrics::add(&self.app.metrics.samples_refused, samples.len() as u64);
        self.refused.total += samples.len() as u64;
        self.refused.histograms += samples.iter().filter(|sample| sample.is_histogram).count() as u64;
        let named = NAMED_MAX.saturating_sub(self.refused.named.len());
        self.refused.named.extend(samples.iter().take(named).map(|sample| {
            let line = &sample.line[..sample.line.floor_char_boundary(ORIGINAL_BYTES_MAX)];
            RefusedSample { line: line.to_owned(), ..sample.clone() }
        }));
        let mut fit = 0;
        for sample in &samples {
            let bytes = sample.line.len() + 1;
            if bytes > self.aside_left {
                break;
            }
            self.aside_left -= bytes;
            fit += 1;
        }
        let beyond = samples.split_off(fit);
        self.not_set_aside += beyond.len() as u64;
        self.first_not_set_aside = self.first_not_set_aside.take().or_else(|| beyond.into_iter().next());
        self.storage.set_aside(&self.came.samples(&samples))?;
        self.tally.settle(Became::Quarantined, samples.len() as u64);
        Ok(())
    }

    fn finish(mut self) -> Result<(RefusedSamples, Vec<Counted>), WriteError> {
        if let Some(mut first) = self.first_not_set_aside.take() {
            let others = self.not_set_aside;
            first.reason =
                format!("{others} more samples of the body were refused, the first of them: {}", first.reason);
            first.is_whole = false;
            self.storage.set_aside(&self.came.samples(&[first]))?;
            self.tally.settle(Became::Quarantined, 1);
        }
        self.refused.named.sort_by_key(|sample| sample.number);
        Ok((self.refused, self.pending))
    }
}

/// The rows of `batches` that have reasons, as lines.
fn refused_rows(batches: &[TableBatch], reasons: &HashMap<u32, String>) -> Vec<RefusedSample> {
    if reasons.is_empty() {
        return Vec::new();
    }
    let mut samples = Vec::with_capacity(reasons.len());
    for batch in batches {
        let count = batch.fields.iter().find(|field| &*field.name == COUNT);
        for (row, number) in batch.lines.iter().enumerate() {
            let Some(reason) = reasons.get(number) else { continue };
            let mut line = Vec::new();
            let is_whole = write_row(batch, row, &mut line);
            samples.push(RefusedSample {
                number: *number,
                line: String::from_utf8_lossy(&line).into_owned(),
                is_whole,
                is_histogram: count.is_some_and(|count| count.valid.get(row)),
                reason: reason.clone(),
            });
        }
    }
    samples
}
