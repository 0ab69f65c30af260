//! A publisher over MQTT that says of every message what became of it; `rumqttc` speaks the protocol.
//!
//! Owns:     one connection, and which packet id stands for which message.
//! Does not: reconnect or send again: what was open when it broke is the caller's to keep ([`Publisher::open`]).
//!
//! Invariants
//!  1. A message is acknowledged once at most, by the packet id it was sent with on this connection. `rumqttc` would
//!     hand an old connection's acknowledgement to the next one's message, so each connection is a client of its own.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::{PubAckReason, PubRecReason};
use rumqttc::{Outgoing, v5};

/// The library would stop at 10 KiB; in MQTT 5 the server says what it takes.
const PACKET_BYTES_MAX: usize = 1 << 20;

/// What a client offers in CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1.
    V311,
    /// MQTT 5.
    V5,
}

/// Which acknowledgement is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    /// None: a message that was sent is open for ever.
    AtMostOnce,
    /// PUBACK.
    AtLeastOnce,
    /// PUBREC; the rest of the handshake goes on behind the scenes.
    ExactlyOnce,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The server accepted the connection.
    Connected,
    /// This message is durable (P1).
    Acked(u64),
    /// The server said no to this message, with the reason code of MQTT 5; a broker also if nobody has subscribed to it.
    Refused(u64, String),
    /// The connection is over; nothing comes after it.
    Broken(String),
}

/// One connection.
pub struct Publisher {
    link: Link,
    topic: String,
    qos: Qos,
    /// Not on the wire yet, in order.
    queued: VecDeque<u64>,
    /// On the wire, by packet id.
    sent: HashMap<u16, u64>,
    next: u64,
}

enum Link {
    V311(rumqttc::Client, Box<rumqttc::Connection>),
    V5(v5::Client, Box<v5::Connection>),
}

/// What the event loop said, in either version.
enum Heard {
    Connected,
    Sent(u16),
    Acked(u16),
    Refused(u16, String),
    Other,
}

impl Publisher {
    /// A connection that is made when [`Publisher::next_event`] is first called, for at most `window` open messages.
    ///
    /// # Panics
    /// When `address` is not `host:port`.
    pub fn new(address: &str, client_id: &str, version: Version, topic: &str, qos: Qos, window: usize) -> Self {
        let (host, port) = address.rsplit_once(':').expect("host:port");
        let port = port.parse().expect("a port");
        // A stalled link is noticed within twice that.
        let keep_alive = Duration::from_secs(5);
        let link = match version {
            Version::V311 => {
                let mut options = rumqttc::MqttOptions::new(client_id, host, port);
                options.set_keep_alive(keep_alive).set_max_packet_size(PACKET_BYTES_MAX, PACKET_BYTES_MAX);
                let (client, connection) = rumqttc::Client::new(options, window);
                Link::V311(client, Box::new(connection))
            }
            Version::V5 => {
                let mut options = v5::MqttOptions::new(client_id, host, port);
                options.set_keep_alive(keep_alive);
                let (client, connection) = v5::Client::new(options, window);
                Link::V5(client, Box::new(connection))
            }
        };
        Publisher { link, topic: topic.to_string(), qos, queued: VecDeque::new(), sent: HashMap::new(), next: 0 }
    }

    /// Queues a message; its number is what [`Event::Acked`] will name.
    ///
    /// # Panics
    /// When more than the window are open.
    pub fn publish(&mut self, payload: Vec<u8>) -> u64 {
        let topic = &*self.topic;
        let queued = match &self.link {
            Link::V311(client, _) => {
                let qos = match self.qos {
                    Qos::AtMostOnce => rumqttc::QoS::AtMostOnce,
                    Qos::AtLeastOnce => rumqttc::QoS::AtLeastOnce,
                    Qos::ExactlyOnce => rumqttc::QoS::ExactlyOnce,
                };
                client.try_publish(topic, qos, false, payload).is_ok()
            }
            Link::V5(client, _) => {
                use v5::mqttbytes::QoS;
                let qos = match self.qos {
                    Qos::AtMostOnce => QoS::AtMostOnce,
                    Qos::AtLeastOnce => QoS::AtLeastOnce,
                    Qos::ExactlyOnce => QoS::ExactlyOnce,
                };
                client.try_publish(topic, qos, false, payload).is_ok()
            }
        };
        assert!(queued, "more messages are open than the window says");
        self.next += 1;
        self.queued.push_back(self.next);
        self.next
    }

    /// The messages that were not acknowledged yet.
    pub fn open(&self) -> BTreeSet<u64> {
        self.queued.iter().chain(self.sent.values()).copied().collect()
    }

    /// Waits for the next event; `None` after `within`.
    pub fn next_event(&mut self, within: Duration) -> Option<Event> {
        let deadline = crate::wait::now() + within;
        loop {
            let rest = deadline.saturating_duration_since(crate::wait::now());
            if rest.is_zero() {
                return None;
            }
            match self.link.hear(rest)? {
                Ok(Heard::Connected) => return Some(Event::Connected),
                // Nothing is acknowledged at QoS 0.
                Ok(Heard::Sent(0)) => {
                    self.queued.pop_front();
                }
                Ok(Heard::Sent(id)) => {
                    if let Some(message) = self.queued.pop_front() {
                        self.sent.insert(id, message);
                    }
                }
                Ok(Heard::Acked(id)) => match self.sent.remove(&id) {
                    Some(message) => return Some(Event::Acked(message)),
                    None => return Some(Event::Broken(format!("packet id {id} was acknowledged and is not open"))),
                },
                Ok(Heard::Refused(id, reason)) => {
                    if let Some(message) = self.sent.remove(&id) {
                        return Some(Event::Refused(message, reason));
                    }
                }
                Ok(Heard::Other) => {}
                Err(error) => return Some(Event::Broken(error)),
            }
        }
    }
}

impl Link {
    fn hear(&mut self, within: Duration) -> Option<Result<Heard, String>> {
        match self {
            Link::V311(_, connection) => match connection.recv_timeout(within) {
                Ok(Ok(event)) => Some(Ok(heard_v311(&event))),
                Ok(Err(error)) => Some(Err(error.to_string())),
                Err(rumqttc::RecvTimeoutError::Timeout) => None,
                Err(error) => Some(Err(format!("{error:?}"))),
            },
            Link::V5(_, connection) => match connection.recv_timeout(within) {
                Ok(Ok(event)) => Some(Ok(heard_v5(&event))),
                Ok(Err(error)) => Some(Err(error.to_string())),
                Err(v5::RecvTimeoutError::Timeout) => None,
                Err(error) => Some(Err(format!("{error:?}"))),
            },
        }
    }
}

fn heard_v311(event: &rumqttc::Event) -> Heard {
    use rumqttc::{Event, Packet};
    match event {
        Event::Incoming(Packet::ConnAck(_)) => Heard::Connected,
        Event::Incoming(Packet::PubAck(ack)) => Heard::Acked(ack.pkid),
        Event::Incoming(Packet::PubRec(ack)) => Heard::Acked(ack.pkid),
        Event::Outgoing(Outgoing::Publish(id)) => Heard::Sent(*id),
        _ => Heard::Other,
    }
}

fn heard_v5(event: &v5::Event) -> Heard {
    use v5::Event;
    use v5::mqttbytes::v5::Packet;
    match event {
        Event::Incoming(Packet::ConnAck(_)) => Heard::Connected,
        Event::Incoming(Packet::PubAck(ack)) => match ack.reason {
            PubAckReason::Success => Heard::Acked(ack.pkid),
            reason => Heard::Refused(ack.pkid, format!("{reason:?}")),
        },
        Event::Incoming(Packet::PubRec(ack)) => match ack.reason {
            PubRecReason::Success => Heard::Acked(ack.pkid),
            reason => Heard::Refused(ack.pkid, format!("{reason:?}")),
        },
        Event::Outgoing(Outgoing::Publish(id)) => Heard::Sent(*id),
        _ => Heard::Other,
    }
}
