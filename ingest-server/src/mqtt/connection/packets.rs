//! What packets say.
//!
//! Owns:     which packet may come when, and what is done about it.
//! Does not: read bytes (`receive`), or store (`ingest`).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::ending::Ending;
use super::{Connection, Held};
use crate::metrics::Metrics;
use crate::mqtt::ingest::{Batch, Durable};
use crate::mqtt::read::{self, Bad, Packet, Publish, Version, code};
use crate::mqtt::sessions::Forwarded;
use crate::mqtt::topic::{self, Kind};

impl Connection {
    pub(super) fn packet(&mut self, packet: Packet<'_>) -> Result<(), Ending> {
        match packet {
            Packet::Publish(publish) => self.publish(publish)?,
            Packet::PubRel(id) => self.release(id)?,
            Packet::PubAck(id) => {
                self.sessions.done(&self.client_id, &self.link, id);
                self.send_orders();
            }
            Packet::PubRec(_) | Packet::PubComp(_) => {
                return Err(Ending::Bad(read::protocol("an acknowledgement of QoS 2, which is never sent to clients")));
            }
            Packet::Subscribe(id, wanted) => self.subscribe(id, &wanted)?,
            Packet::Unsubscribe(id, filters) => self.unsubscribe(id, &filters),
            Packet::PingReq => self.form.pong(&mut self.out),
            Packet::Disconnect { code, session_expiry } => {
                if session_expiry.is_some_and(|seconds| seconds > 0) && !self.wanted_session {
                    let what = "a session expiry in DISCONNECT, and none in CONNECT";
                    return Err(Ending::Bad(read::protocol(what)));
                }
                return Err(Ending::Goodbye { will: code != code::SUCCESS, session_expiry });
            }
        }
        Ok(())
    }

    /// A message whose topic may be an alias.
    fn publish(&mut self, publish: Publish<'_>) -> Result<(), Ending> {
        let Some((alias, _)) = publish.alias else { return self.message(&publish) };
        // Taken out while its topic is lent. If the message is refused, so is the connection.
        let mut aliases = std::mem::take(&mut self.aliases);
        let topic = aliases.resolve(alias, publish.topic, self.alias_max).map_err(Ending::Bad)?;
        let result = self.message(&Publish { topic, ..publish });
        self.aliases = aliases;
        result
    }

    fn message(&mut self, publish: &Publish<'_>) -> Result<(), Ending> {
        let Publish { qos, topic, id, payload, .. } = *publish;
        let mqtt = Arc::clone(&self.mqtt);
        let app = &mqtt.app;
        Metrics::add(&app.metrics.mqtt.messages[usize::from(qos)], 1);
        self.link.shown.messages.fetch_add(1, Ordering::Relaxed);
        let v5 = self.form.version == Version::V5;
        if qos > 0 && !self.begin_message(publish)? {
            return Ok(());
        }
        let kind = app.topics.kind(topic);
        match kind {
            Kind::Command => {
                let agent = topic::agent(topic).map_or("", |(agent, _)| agent);
                let (forwarded, durable) = self.sessions.forward(agent, publish, &self.client_id);
                let (code, result) = match forwarded {
                    Forwarded::Sent => (code::SUCCESS, "sent"),
                    Forwarded::Kept => (code::SUCCESS, "kept"),
                    Forwarded::Nobody => (code::NO_MATCHING_SUBSCRIBERS, "nobody"),
                    Forwarded::Full => (code::QUOTA_EXCEEDED, "full"),
                };
                app.metrics.mqtt.count_command(result);
                self.settle(id, qos, code, durable);
            }
            Kind::Own if v5 => self.settle(id, qos, code::NOT_AUTHORIZED, None),
            kind => {
                self.add(|batch| batch.add(kind, topic, publish.properties, payload, id, qos));
            }
        }
        Ok(())
    }

    /// Notes a packet identifier; false if the message is there already.
    fn begin_message(&mut self, publish: &Publish<'_>) -> Result<bool, Ending> {
        let crc = crc32c::crc32c_append(crc32c::crc32c(publish.topic.as_bytes()), publish.payload);
        if let Some(held) = self.ids.get(&publish.id) {
            // A QoS 2 message after its PUBREC is known by its id alone: [MQTT-4.3.3-10] (5).
            let same = held.qos == publish.qos && (held.crc == crc || held.received);
            if !same {
                return Err(Ending::Bad(read::protocol("a packet identifier that is in use for another message")));
            }
            Metrics::add(&self.mqtt.app.metrics.mqtt.duplicates, 1);
            if held.received {
                self.settle(publish.id, publish.qos, code::SUCCESS, None);
            }
            return Ok(false);
        }
        if self.ids.len() >= self.restored + usize::from(self.receive_max) {
            let what = "more messages in flight than Receive Maximum";
            return Err(Ending::Bad(Bad { code: code::RECEIVE_MAX_EXCEEDED, what }));
        }
        self.ids.insert(publish.id, Held { qos: publish.qos, crc, received: false, is_restored: false });
        Ok(true)
    }

    /// Acknowledges in its turn, when `durable` is done.
    fn settle(&mut self, id: u16, qos: u8, code: u8, durable: Option<Durable>) {
        if qos > 0 {
            self.add(|batch| batch.add_settled(id, qos, code, durable));
        }
    }

    fn add(&mut self, add: impl FnOnce(&mut Batch)) {
        let before = self.batch.bytes();
        add(&mut self.batch);
        self.unsettled += 1;
        self.link.shown.in_flight.store(self.unsettled as u64, Ordering::Relaxed);
        self.unsettled_bytes += self.batch.bytes() - before;
    }

    /// PUBREL.
    fn release(&mut self, id: u16) -> Result<(), Ending> {
        let code = match self.ids.get(&id) {
            Some(Held { qos: 2, received: true, is_restored, .. }) => {
                self.restored -= usize::from(*is_restored);
                self.ids.remove(&id);
                code::SUCCESS
            }
            Some(_) => return Err(Ending::Bad(read::protocol("PUBREL before its PUBREC"))),
            None => code::PACKET_ID_NOT_FOUND,
        };
        self.form.complete(&mut self.out, id, code);
        Ok(())
    }
}
