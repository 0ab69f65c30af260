//! What is stored, and acknowledged.
//!
//! Owns:     one batch at a time being worked on, and the order of acknowledgements.
//! Does not: store (`ingest`).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use storage::StorageError;

use super::Connection;
use super::ending::Ending;
use crate::metrics::Metrics;
use crate::mqtt::ingest::Work;
use crate::mqtt::sparkplug;
use crate::sources::Source;

impl Connection {
    pub(super) fn start_work(&mut self) {
        if self.job.is_none() && !self.batch.is_empty() {
            let batch = std::mem::take(&mut self.batch);
            let app = Arc::clone(&self.mqtt.app);
            let work = Work::new(app, Arc::clone(&self.storage), Arc::clone(&self.source), Source::Mqtt, batch);
            self.job = Some(Box::pin(work.drive()));
        }
    }

    pub(super) fn worked(&mut self, work: Option<Work>, result: Result<(), StorageError>) -> Result<(), Ending> {
        self.job = None;
        if let Some(mut work) = work {
            self.waiting.extend(work.groups());
            sparkplug::send(&self.mqtt.app.metrics, &self.sessions, &self.client_id, &work.commands);
            if let Some((count, last)) = work.complaint.take().filter(|_| self.mqtt.links.may_complain(&self.client_id))
            {
                let client = &*self.client_id;
                tracing::warn!(client, count, last, "MQTT messages set aside: they could not be stored");
            }
        }
        result.map_err(|error| self.failed(&error))
    }

    /// Acknowledges the oldest group, which is durable.
    pub(super) fn acknowledge(&mut self) {
        let Some(group) = self.waiting.pop_front() else { return };
        Metrics::add(&self.mqtt.app.metrics.mqtt.acks, group.acks.len() as u64);
        for ack in group.acks {
            if ack.qos == 1 || ack.code >= 0x80 {
                self.ids.remove(&ack.id);
            } else if let Some(held) = self.ids.get_mut(&ack.id) {
                held.received = true;
            }
            self.form.received(&mut self.out, ack.qos, ack.id, ack.code, ack.reason.as_deref());
        }
        self.unsettled = self.unsettled.saturating_sub(group.messages);
        self.link.shown.in_flight.store(self.unsettled as u64, Ordering::Relaxed);
        self.unsettled_bytes = self.unsettled_bytes.saturating_sub(group.bytes);
        if self.unsettled == 0 {
            self.shrink();
        }
    }

    /// Gives back what an idle connection does not need.
    fn shrink(&mut self) {
        if self.ids.is_empty() && self.ids.capacity() > 32 {
            self.ids = HashMap::new();
        }
        if self.waiting.capacity() > 8 {
            self.waiting = VecDeque::new();
        }
    }
}
