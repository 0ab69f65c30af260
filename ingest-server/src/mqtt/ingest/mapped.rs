//! Messages that a rule of the configuration reads: the part of [`Work`] that maps them.
//!
//! Consecutive ones are mapped into the same rows and written as one, whatever their rules: a message that cannot be read
//! leaves no row, so none depends on its neighbours.

use std::ops::Range;

use decode::line_protocol::Precision;
use decode::line_text::row_line;
use decode::mapping::{Mapped, Message, Rows};
use decode::mqtt::user_properties;
use model::TableBatch;
use model::name::PUBLIC;
use storage::{RejectedRow, SET_ASIDE_BYTES_MAX, SetAside, StorageError};

use super::{Item, Refused, What, Work};
use crate::metrics::Metrics;
use crate::mqtt::topic::Kind;
use crate::sources::Became;

/// The rule of an item.
pub(super) fn rule_of(item: &Item) -> Option<u16> {
    match item.kind {
        What::Message(Kind::Rule(number)) => Some(number),
        _ => None,
    }
}

/// The row of that number.
pub(super) fn row_of(batches: &[TableBatch], line: u32) -> Option<(&TableBatch, usize)> {
    batches.iter().find_map(|batch| Some((batch, batch.lines.iter().position(|of| *of == line)?)))
}

/// What the items of a range became.
#[derive(Default)]
struct Joined {
    /// By item, the number of its last row.
    ends: Vec<u32>,
    refused: Refused,
    refused_parts: u64,
    ignored: u64,
}

impl Work {
    /// Stores the items `range`, each of which a rule takes.
    pub(super) fn mapped(&mut self, range: Range<usize>) -> Result<(), StorageError> {
        let now_us = self.app.receipt_us();
        let mut rows = Rows::new(PUBLIC);
        let mut joined = Joined::default();
        for index in range.clone() {
            // Messages without a time that come together are several readings, not one.
            let mapped = self.map(index, now_us.saturating_add(rows.len().into()), &mut rows);
            joined.ends.push(rows.len());
            joined.ignored += u64::from(mapped.ignored);
            joined.refused_parts += mapped.refused_total;
            self.note_parts(index, mapped, &mut joined.refused);
        }
        let mapped_rows = u64::from(rows.len());
        self.app.note_receipts(now_us.saturating_add(rows.len().into()));
        let batches = rows.finish();
        let pending = match batches.is_empty() {
            true => None,
            false => match self.storage.write(batches, &self.source) {
                Ok(pending) => Some(pending),
                Err(StorageError::Invalid(reason)) if range.len() == 1 => {
                    return self.refuse_rows(range.start, None, None, &reason, mapped_rows + joined.refused_parts);
                }
                Err(StorageError::Invalid(_)) => {
                    // The request as a whole: each of its messages stands for itself.
                    for index in range {
                        self.mapped(index..index + 1)?;
                        self.next = index + 1;
                    }
                    return Ok(());
                }
                Err(error) => return Err(error),
            },
        };
        let Joined { ends, mut refused, refused_parts, ignored } = joined;
        if let Some(pending) = &pending {
            self.note_rejected(&range, now_us, &ends, &pending.rejected, &mut refused);
        }
        self.storage.set_aside(&refused.aside)?;
        Metrics::add(&self.app.metrics.mqtt.ignored, ignored);
        refused.notes.sort_by_key(|(index, _)| *index);
        refused.notes.dedup_by_key(|(index, _)| *index);
        self.complain(refused.notes.len(), &refused.aside);
        let mut tally = self.tally(mapped_rows + refused_parts);
        let pending = pending.map(|pending| tally.storing(pending));
        tally.settle_rest(Became::Quarantined);
        self.push_group(range, pending, refused.notes);
        Ok(())
    }

    /// Adds the rows of an item to `rows`.
    fn map(&self, index: usize, now_us: i64, rows: &mut Rows) -> Mapped {
        let item = &self.batch.items[index];
        let rule = rule_of(item).and_then(|number| self.app.topics.rule(number)).expect("its kind is of these topics");
        let user_properties = match rule.wants_user_properties() {
            true => user_properties::read(self.batch.properties(item)),
            false => Vec::new(),
        };
        let (topic, payload) = (self.batch.topic(item), self.batch.payload(item));
        rule.map(&Message { topic, payload, user_properties: &user_properties, now_us }, rows)
    }

    /// Notes what the rule could not read.
    fn note_parts(&self, index: usize, mapped: Mapped, refused: &mut Refused) {
        let Mapped { refused: parts, refused_total, .. } = mapped;
        let Some(first) = parts.first() else { return };
        let unnamed = refused_total - parts.len() as u64;
        let more =
            if refused_total > 1 { format!("; {} more parts are refused", refused_total - 1) } else { String::new() };
        let first = format!("{}{more}", first.reason);
        let payload = || self.batch.payload(&self.batch.items[index]);
        if unnamed > 0 {
            // Which they are is not known, so all is kept; but not to be written again, since some of it may be stored.
            self.put_aside(index, None, &first, payload(), false, refused);
        } else {
            for part in &parts {
                self.put_aside(index, None, &part.reason, part.part.as_deref().unwrap_or_else(payload), true, refused);
            }
        }
        refused.notes.push((index, first));
    }

    /// Notes rows that storage did not take, as lines: so they can be written again when their table takes them.
    fn note_rejected(
        &self,
        range: &Range<usize>,
        now_us: i64,
        ends: &[u32],
        rejected: &[RejectedRow],
        refused: &mut Refused,
    ) {
        // By item, its rows once more: this is not the usual way.
        let mut again: Option<(usize, Vec<TableBatch>)> = None;
        for RejectedRow { line, reason, .. } in rejected {
            let at = ends.partition_point(|end| end < line);
            let index = range.start + at;
            let before = at.checked_sub(1).map_or(0, |before| ends[before]);
            if again.as_ref().is_none_or(|(of, _)| *of != index) {
                let mut rows = Rows::new(PUBLIC);
                self.map(index, now_us.saturating_add(before.into()), &mut rows);
                again = Some((index, rows.finish()));
            }
            let own_line = line - before;
            let found = again.as_ref().and_then(|(_, batches)| row_of(batches, own_line));
            self.put_row_aside(index, found, reason, refused);
        }
    }

    /// Sets aside a row that storage did not take, as a line.
    pub(super) fn put_row_aside(
        &self,
        index: usize,
        row: Option<(&TableBatch, usize)>,
        reason: &str,
        refused: &mut Refused,
    ) {
        match row.and_then(|(batch, row)| row_line(batch, row)) {
            Some(text) => {
                self.put_aside(index, Some(Precision::Microsecond), reason, text.as_bytes(), true, refused);
            }
            // No line can say it.
            None => {
                let payload = self.batch.payload(&self.batch.items[index]);
                self.put_aside(index, None, reason, payload, false, refused);
            }
        }
        refused.notes.push((index, format!("row refused: {reason}")));
    }

    pub(super) fn put_aside(
        &self,
        index: usize,
        precision: Option<Precision>,
        reason: &str,
        payload: &[u8],
        is_whole: bool,
        refused: &mut Refused,
    ) {
        let is_whole = is_whole && payload.len() <= SET_ASIDE_BYTES_MAX;
        let put =
            |piece: &[u8]| SetAside { is_whole, ..self.set_aside(index, precision, reason.to_owned(), piece.to_vec()) };
        if payload.is_empty() {
            return refused.aside.push(put(payload));
        }
        refused.aside.extend(payload.chunks(SET_ASIDE_BYTES_MAX).map(put));
    }
}
