//! The client library, for both versions of MQTT that it speaks.
//!
//! Owns:     what is asked of `rumqttc`: manual acknowledgements, QoS 1 at most, a session that outlives the connection.
//! Does not: reconnect: a client is for one connection.

use std::time::Duration;

use bytes::Bytes;
use decode::mqtt::user_properties;
use decode::sparkplug::{HostState, state_topic};
use rumqttc::v5;

use crate::config::{BrokerSection, BrokerVersion};

/// A ping after as much silence; one and a half times that, and the broker takes us for gone.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long a connection may take, CONNACK included.
const CONNECT_SECONDS_MAX: u64 = 10;
/// Acknowledgements that wait in the library: more than can be in flight, so that there is always room for one.
const QUEUE: usize = 1 << 17;
/// Messages that a broker may have in flight to us, where it asks.
const RECEIVE_MAX: u16 = 4096;

/// What a connection hears.
#[derive(Debug)]
pub(super) enum Heard {
    Connected {
        /// The broker knows this client, and has kept what it subscribed to.
        knows_us: bool,
    },
    /// The first of the filters that was refused, by its place, and why.
    Subscribed(Result<(), (usize, String)>),
    Message(Message),
    /// Everything that was to be said has been.
    Said,
    Nothing,
}

/// A message of a broker.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) topic: Bytes,
    /// User properties of MQTT 5, as they stand in a packet.
    pub(super) properties: Vec<u8>,
    pub(super) payload: Bytes,
    pub(super) id: u16,
    pub(super) qos: u8,
}

/// What this server is to edge nodes of Sparkplug, on one connection.
#[derive(Debug)]
pub(super) struct Host {
    topic: String,
    /// Of all that is said on the connection, its will included (specification 3.0, tck-id-host-topic-phid-birth-payload).
    timestamp: i64,
}

impl Host {
    /// The host `id`, on a connection that begins at `now_us`.
    pub(super) fn new(id: &str, now_us: i64) -> Self {
        Host { topic: state_topic(id), timestamp: now_us / 1_000 }
    }

    /// Where it says how it is.
    pub(super) fn topic(&self) -> &str {
        &self.topic
    }

    fn says(&self, online: bool) -> Vec<u8> {
        HostState { online, timestamp: self.timestamp }.payload()
    }

    /// Whether a message says of this host that it is gone: the will of its connection before, which the broker has sent late,
    /// or somebody else.
    pub(super) fn is_declared_gone(&self, message: &Message) -> bool {
        message.topic == self.topic.as_bytes() && HostState::read(&message.payload).is_some_and(|state| !state.online)
    }
}

pub(super) enum Client {
    V311(rumqttc::AsyncClient),
    V5(v5::AsyncClient),
}

pub(super) enum Events {
    V311(Box<rumqttc::EventLoop>),
    V5(Box<v5::EventLoop>),
}

/// A client and its connection, which begins with the first event that is asked for.
///
/// # Errors
/// If the password cannot be read.
pub(super) fn open(
    section: &BrokerSection,
    client_id: &str,
    packet_bytes_max: usize,
    as_host: Option<&Host>,
) -> Result<(Client, Events), String> {
    let (host, port) = section.address()?;
    let credentials = section.credentials()?;
    Ok(match section.version {
        BrokerVersion::V311 => {
            let mut options = rumqttc::MqttOptions::new(client_id, host, port);
            options.set_keep_alive(KEEP_ALIVE).set_clean_session(false).set_manual_acks(true);
            options.set_max_packet_size(packet_bytes_max, packet_bytes_max);
            if let Some((user, password)) = credentials {
                options.set_credentials(user, password);
            }
            if let Some(host) = as_host {
                let qos = rumqttc::QoS::AtLeastOnce;
                options.set_last_will(rumqttc::LastWill::new(&host.topic, host.says(false), qos, true));
            }
            let (client, mut events) = rumqttc::AsyncClient::new(options, QUEUE);
            events.network_options.set_connection_timeout(CONNECT_SECONDS_MAX).set_tcp_nodelay(true);
            (Client::V311(client), Events::V311(Box::new(events)))
        }
        BrokerVersion::V5 => {
            let mut options = v5::MqttOptions::new(client_id, host, port);
            options.set_keep_alive(KEEP_ALIVE).set_clean_start(false).set_manual_acks(true);
            let expiry = u32::try_from(section.session_expiry.0.as_secs()).unwrap_or(u32::MAX);
            options.set_session_expiry_interval(Some(expiry)).set_receive_maximum(Some(RECEIVE_MAX));
            options.set_max_packet_size(u32::try_from(packet_bytes_max).ok());
            options.set_connection_timeout(CONNECT_SECONDS_MAX);
            if let Some((user, password)) = credentials {
                options.set_credentials(user, password);
            }
            if let Some(host) = as_host {
                let qos = v5::mqttbytes::QoS::AtLeastOnce;
                options.set_last_will(v5::mqttbytes::v5::LastWill::new(&host.topic, host.says(false), qos, true, None));
            }
            let mut network = rumqttc::NetworkOptions::new();
            network.set_tcp_nodelay(true);
            options.set_network_options(network);
            let (client, events) = v5::AsyncClient::new(options, QUEUE);
            (Client::V5(client), Events::V5(Box::new(events)))
        }
    })
}

impl Client {
    /// Asks for all of `filters` in one packet. False if the library takes no more.
    pub(super) fn subscribe(&self, filters: &[String], qos: u32) -> bool {
        match self {
            Client::V311(client) => {
                let qos = if qos == 0 { rumqttc::QoS::AtMostOnce } else { rumqttc::QoS::AtLeastOnce };
                let filters = filters.iter().map(|filter| rumqttc::SubscribeFilter::new(filter.clone(), qos));
                client.try_subscribe_many(filters).is_ok()
            }
            Client::V5(client) => {
                use v5::mqttbytes::QoS;
                use v5::mqttbytes::v5::{Filter, RetainForwardRule};
                let qos = if qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
                let filters = filters.iter().map(|filter| Filter {
                    // What is retained comes once, not after each connection.
                    retain_forward_rule: RetainForwardRule::OnNewSubscribe,
                    ..Filter::new(filter.clone(), qos)
                });
                client.try_subscribe_many(filters).is_ok()
            }
        }
    }

    /// Acknowledges a message with QoS 1. False if the library takes no more.
    pub(super) fn acknowledge(&self, id: u16) -> bool {
        match self {
            Client::V311(client) => {
                let mut publish = rumqttc::Publish::new("", rumqttc::QoS::AtLeastOnce, Bytes::new());
                publish.pkid = id;
                client.try_ack(&publish).is_ok()
            }
            Client::V5(client) => {
                use v5::mqttbytes::QoS;
                let mut publish = v5::mqttbytes::v5::Publish::new("", QoS::AtLeastOnce, Bytes::new(), None);
                publish.pkid = id;
                client.try_ack(&publish).is_ok()
            }
        }
    }

    /// Publishes at QoS 0. False if the library takes no more.
    pub(super) fn publish(&self, topic: &str, payload: &[u8]) -> bool {
        match self {
            Client::V311(client) => client.try_publish(topic, rumqttc::QoS::AtMostOnce, false, payload).is_ok(),
            Client::V5(client) => {
                let payload = Bytes::copy_from_slice(payload);
                client.try_publish(topic, v5::mqttbytes::QoS::AtMostOnce, false, payload).is_ok()
            }
        }
    }

    /// Says whether the host is there, for whoever asks later too. False if the library takes no more.
    pub(super) fn say(&self, host: &Host, online: bool) -> bool {
        let payload = host.says(online);
        match self {
            Client::V311(client) => client.try_publish(&host.topic, rumqttc::QoS::AtLeastOnce, true, payload).is_ok(),
            Client::V5(client) => {
                let qos = v5::mqttbytes::QoS::AtLeastOnce;
                client.try_publish(&host.topic, qos, true, payload).is_ok()
            }
        }
    }

    /// Says goodbye behind all acknowledgements.
    pub(super) fn disconnect(&self) {
        // If it cannot even be queued, the connection just ends.
        let _ = match self {
            Client::V311(client) => client.try_disconnect().is_ok(),
            Client::V5(client) => client.try_disconnect().is_ok(),
        };
    }
}

impl Events {
    /// What happens next. Not cancel safe: an event may be lost, so it is dropped only with its connection.
    pub(super) async fn next(&mut self) -> Result<Heard, String> {
        match self {
            Events::V311(events) => {
                use rumqttc::{Event, Incoming, Outgoing, SubscribeReasonCode};
                Ok(match events.poll().await.map_err(|e| e.to_string())? {
                    Event::Incoming(Incoming::ConnAck(ack)) => Heard::Connected { knows_us: ack.session_present },
                    Event::Incoming(Incoming::Publish(publish)) => Heard::Message(Message {
                        topic: publish.topic.into(),
                        properties: Vec::new(),
                        payload: publish.payload,
                        id: publish.pkid,
                        qos: publish.qos as u8,
                    }),
                    Event::Incoming(Incoming::SubAck(ack)) => {
                        let refused = ack.return_codes.iter().position(|code| *code == SubscribeReasonCode::Failure);
                        Heard::Subscribed(refused.map_or(Ok(()), |at| Err((at, "it is not allowed".to_owned()))))
                    }
                    Event::Outgoing(Outgoing::Disconnect) => Heard::Said,
                    _ => Heard::Nothing,
                })
            }
            Events::V5(events) => {
                use rumqttc::Outgoing;
                use v5::mqttbytes::v5::SubscribeReasonCode;
                use v5::{Event, Incoming};
                Ok(match events.poll().await.map_err(|e| e.to_string())? {
                    Event::Incoming(Incoming::ConnAck(ack)) => Heard::Connected { knows_us: ack.session_present },
                    Event::Incoming(Incoming::Publish(publish)) => Heard::Message(Message {
                        topic: publish.topic,
                        properties: publish
                            .properties
                            .map_or_else(Vec::new, |properties| user_properties::write(&properties.user_properties)),
                        payload: publish.payload,
                        id: publish.pkid,
                        qos: publish.qos as u8,
                    }),
                    Event::Incoming(Incoming::SubAck(ack)) => {
                        let refused = ack
                            .return_codes
                            .iter()
                            .enumerate()
                            .find(|(_, code)| !matches!(code, SubscribeReasonCode::Success(_)));
                        Heard::Subscribed(refused.map_or(Ok(()), |(at, code)| Err((at, format!("{code:?}")))))
                    }
                    Event::Outgoing(Outgoing::Disconnect) => Heard::Said,
                    _ => Heard::Nothing,
                })
            }
        }
    }
}
