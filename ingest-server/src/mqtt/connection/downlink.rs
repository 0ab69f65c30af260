//! What a client is sent: its commands, and answers that wait for something to be durable.
//!
//! Owns:     what a client may subscribe to, and when it is told.
//! Does not: keep subscriptions or commands (`sessions`).

use bytes::BytesMut;

use super::ending::Ending;
use super::{Connection, OUT_BYTES_MAX};
use crate::mqtt::ingest::Durable;
use crate::mqtt::read::{Bad, Wanted, code};
use crate::mqtt::topic;
use crate::mqtt::write::Form;

/// An answer that waits.
pub(super) struct Answer {
    /// Must be done first.
    pub(super) durable: Durable,
    packet: BytesMut,
}

impl Connection {
    pub(super) fn subscribe(&mut self, id: u16, wanted: &[Wanted<'_>]) -> Result<(), Ending> {
        let codes: Vec<u8> = wanted.iter().map(|wanted| self.subscribe_one(wanted)).collect::<Result<_, _>>()?;
        let durable = self.sessions.note(&self.client_id, &self.link);
        self.answer(durable, |form, out| form.subscribed(out, id, &codes));
        Ok(())
    }

    fn subscribe_one(&mut self, wanted: &Wanted<'_>) -> Result<u8, Ending> {
        let filter = wanted.filter;
        if filter.starts_with("$share/") {
            return Ok(code::SHARED_NOT_SUPPORTED);
        }
        if !topic::is_filter(filter) {
            return Err(Ending::Bad(Bad { code: code::TOPIC_FILTER_INVALID, what: "it is not a topic filter" }));
        }
        if !topic::is_own_downlink(&self.client_id, filter) {
            return Ok(code::NOT_AUTHORIZED);
        }
        let qos = wanted.qos.min(1);
        let is_done = self.sessions.subscribe(&self.client_id, &self.link, wanted, qos);
        Ok(if is_done { qos } else { code::QUOTA_EXCEEDED })
    }

    pub(super) fn unsubscribe(&mut self, id: u16, filters: &[&str]) {
        let mut codes = Vec::with_capacity(filters.len());
        for filter in filters {
            let is_found = self.sessions.unsubscribe(&self.client_id, &self.link, filter);
            codes.push(if is_found { code::SUCCESS } else { code::NO_SUBSCRIPTION_EXISTED });
        }
        let durable = self.sessions.note(&self.client_id, &self.link);
        self.answer(durable, |form, out| form.unsubscribed(out, id, &codes));
    }

    /// Writes an answer, now or when `durable` is done.
    fn answer(&mut self, durable: Option<Durable>, write: impl FnOnce(&Form, &mut BytesMut)) {
        match durable {
            None => write(&self.form, &mut self.out),
            Some(durable) => {
                let mut packet = BytesMut::new();
                write(&self.form, &mut packet);
                self.answers.push_back(Answer { durable, packet });
            }
        }
    }

    /// Gives the oldest answer that waits.
    pub(super) fn give_answer(&mut self) {
        if let Some(answer) = self.answers.pop_front() {
            self.out.extend_from_slice(&answer.packet);
        }
        self.send_orders();
    }

    /// Sends commands, as far as the client takes them now; not before it is told what it has subscribed to.
    pub(super) fn send_orders(&mut self) {
        self.orders_wait = false;
        if !self.answers.is_empty() {
            return;
        }
        loop {
            if self.out.len() >= OUT_BYTES_MAX {
                self.orders_wait = true;
                return;
            }
            let Some(next) = self.sessions.next(&self.client_id, &self.link, self.orders_max) else { return };
            if !self.form.publish(&mut self.out, &next) && next.id > 0 {
                self.sessions.done(&self.client_id, &self.link, next.id);
            }
        }
    }
}
