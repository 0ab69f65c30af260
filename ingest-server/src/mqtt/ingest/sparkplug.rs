//! Messages of Sparkplug edge nodes: the part of [`Work`] that hears them.
//!
//! They are dealt with one by one: what one means depends on those before it, of whichever connection. Each is heard once,
//! however often storage has to be asked to take it.

use decode::mapping::{Mapped, Message, Rows};
use decode::mqtt::user_properties;
use decode::sparkplug::Heard;
use model::TableBatch;
use model::name::PUBLIC;
use storage::{PendingWrite, StorageError};

use super::mapped::row_of;
use super::{Refused, What, Work};
use crate::metrics::Metrics;
use crate::mqtt::topic::Kind;
use crate::sources::Became;

/// What an item said, until it is stored.
pub(super) struct Said {
    index: usize,
    batches: Vec<TableBatch>,
    mapped: Mapped,
}

impl Work {
    /// Stores what an edge node says, and notes what is to be sent to it.
    pub(super) fn edge_node(&mut self, index: usize) -> Result<(), StorageError> {
        let said = match self.said.take() {
            Some(said) if said.index == index => said,
            _ => self.hear(index),
        };
        let stored = self.store_said(&said);
        let (pending, refused) = match stored {
            Ok(stored) => stored,
            Err(StorageError::Invalid(reason)) => return self.refuse(index, None, &reason),
            Err(error) => {
                self.said = Some(said);
                return Err(error);
            }
        };
        Metrics::add(&self.app.metrics.mqtt.ignored, u64::from(said.mapped.ignored));
        let notes = refused.notes.into_iter().take(1).collect::<Vec<_>>();
        self.complain(notes.len(), &refused.aside);
        let rows = said.batches.iter().map(TableBatch::len).sum::<usize>() as u64;
        let mut tally = self.tally(rows + said.mapped.refused_total);
        let pending = pending.map(|pending| tally.storing(pending));
        tally.settle_rest(Became::Quarantined);
        self.push_group(index..index + 1, pending, notes);
        Ok(())
    }

    fn hear(&mut self, index: usize) -> Said {
        let item = &self.batch.items[index];
        let rule = match item.kind {
            What::Message(Kind::Sparkplug(number)) => self.app.topics.rule(number),
            _ => None,
        };
        let rule = rule.expect("its kind is of these topics");
        let user_properties = user_properties::read(self.batch.properties(item));
        let message = Message {
            topic: self.batch.topic(item),
            payload: self.batch.payload(item),
            user_properties: &user_properties,
            now_us: self.app.clock.now_us(),
        };
        let mut rows = Rows::new(PUBLIC);
        let mut host = self.app.edge_nodes.lock().expect("no holder of this lock panics");
        let Heard { mapped, command } = rule.hear(&mut host, &message, self.app.clock.monotonic(), &mut rows);
        drop(host);
        self.commands.extend(command);
        Said { index, batches: rows.finish(), mapped }
    }

    fn store_said(&self, said: &Said) -> Result<(Option<PendingWrite>, Refused), StorageError> {
        let Said { index, batches, mapped } = said;
        let pending = match batches.is_empty() {
            true => None,
            false => Some(self.storage.write(batches.clone(), &self.source)?),
        };
        let mut refused = Refused::default();
        let payload = self.batch.payload(&self.batch.items[*index]);
        for part in &mapped.refused {
            // Of a payload that is no text no part can be shown.
            self.put_aside(*index, None, &part.reason, payload, batches.is_empty(), &mut refused);
            refused.notes.push((*index, part.reason.clone()));
        }
        for row in pending.iter().flat_map(|pending| &pending.rejected) {
            self.put_row_aside(*index, row_of(batches, row.line), &row.reason, &mut refused);
        }
        self.storage.set_aside(&refused.aside)?;
        Ok((pending, refused))
    }
}
