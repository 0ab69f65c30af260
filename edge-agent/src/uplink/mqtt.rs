//! Batches over MQTT 3.1.1 or 5: QoS 1, a clean session, a window of batches in flight.
//!
//! Owns:     one connection: what is in flight on it, by packet id; status messages; the goodbye.
//! Does not: let the client library queue or repeat: each connection has a client of its own, and what it did not get
//!           acknowledged is sent again by the next one.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::time::Duration;

use model::Backoff;
use rumqttc::{Transport, v5};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::{CONNECT_TIME_MAX, End, Ended, Line, STALL_TIME_MAX, Server, tls};
use crate::board;
use crate::causes::with_causes;
use crate::command::Command;
use crate::config::{Address, MqttVersion};
use crate::exchange::Outcome;
use crate::outbox::{BatchKey, Encoding};

/// A ping after as much silence; one and a half times that, and the server takes us for gone.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Requests that wait in the client library: more than can be in flight, with status messages.
const QUEUE: usize = 256;
/// The library's packet ids go up to this. It is far more than are in flight, so that an id is free when its turn
/// comes again although acknowledgements came out of order.
const PACKET_IDS: u16 = 1_024;
/// Longer than any batch.
const PACKET_BYTES_MAX: usize = 1 << 20;
/// How long a goodbye may take beyond the grace.
const GOODBYE_TIME_MAX: Duration = Duration::from_secs(1);
/// A server that goes on for as long is one to come back to at once.
const USEFUL_AFTER: Duration = Duration::from_secs(60);

/// What was published and has no packet id yet, or waits for its acknowledgement.
#[derive(Clone, Copy, Debug)]
enum Flying {
    Batch { key: BatchKey, since: Duration },
    Status,
    Logs,
    Goodbye,
}

/// What the two halves of a connection share.
#[derive(Debug, Default)]
struct Flight {
    /// Given to the library, in order; it says in this order which packet ids it took.
    submitted: VecDeque<Flying>,
    by_id: HashMap<u16, Flying>,
    batches: usize,
    /// When the last acknowledgement came, or the first batch after a pause left.
    progress: Duration,
    acks: u64,
    /// No batch leaves before this: the server refused one.
    hold_until: Duration,
    refusals: Backoff,
    said_goodbye: bool,
    /// For a preferred server.
    leaves: bool,
}

/// What a connection hears.
#[derive(Debug)]
enum Heard {
    Connected,
    /// The next of what was submitted has left with this packet id.
    Sent(u16),
    Acked(u16),
    /// Acknowledged with an error: it was not taken.
    Refused(u16, String),
    Disconnected(String),
    /// A message of the server's: its topic, its payload, and whether it was kept from earlier.
    Message {
        topic: String,
        payload: Vec<u8>,
        is_retained: bool,
    },
    Nothing,
}

enum Client {
    V311(rumqttc::AsyncClient),
    V5(v5::AsyncClient),
}

enum Events {
    V311(Box<rumqttc::EventLoop>),
    V5(Box<v5::EventLoop>),
}

/// Where a server is, and how it is spoken to.
pub(super) struct Place {
    host: String,
    port: u16,
    version: MqttVersion,
    tls: Option<tls::Trusted>,
}

impl Place {
    /// Of a server whose address is one of MQTT.
    ///
    /// # Errors
    /// If the certificates to trust cannot be read.
    pub(super) fn of(server: &Server) -> Result<Place, String> {
        let Address::Mqtt { host, port, .. } = &server.address else {
            return Err("it does not speak MQTT".to_owned());
        };
        let tls = server.trusted()?;
        Ok(Place { host: host.clone(), port: *port, version: server.version, tls })
    }

    fn transport(&self) -> Transport {
        self.tls.as_ref().map_or(Transport::Tcp, tls::transport)
    }
}

fn open(client_id: &str, place: &Place, will: Option<(String, Vec<u8>)>) -> (Client, Events) {
    let (host, port) = (library_host(place), place.port);
    let connect_s = CONNECT_TIME_MAX.as_secs();
    match place.version {
        MqttVersion::V311 => {
            let mut options = rumqttc::MqttOptions::new(client_id, host, port);
            options.set_keep_alive(KEEP_ALIVE).set_clean_session(true).set_inflight(PACKET_IDS);
            options.set_max_packet_size(PACKET_BYTES_MAX, PACKET_BYTES_MAX).set_transport(place.transport());
            if let Some((topic, message)) = will {
                options.set_last_will(rumqttc::LastWill::new(topic, message, rumqttc::QoS::AtLeastOnce, false));
            }
            let (client, mut events) = rumqttc::AsyncClient::new(options, QUEUE);
            events.network_options.set_connection_timeout(connect_s).set_tcp_nodelay(true);
            (Client::V311(client), Events::V311(Box::new(events)))
        }
        MqttVersion::V5 => {
            let mut options = v5::MqttOptions::new(client_id, host, port);
            options.set_keep_alive(KEEP_ALIVE).set_clean_start(true).set_outgoing_inflight_upper_limit(PACKET_IDS);
            options.set_connection_timeout(connect_s).set_transport(place.transport());
            // The library's own limit is 10 KiB, for what the server sends; told this one, the server sends nothing larger.
            options.set_max_packet_size(Some(PACKET_BYTES_MAX as u32));
            let mut network = rumqttc::NetworkOptions::new();
            network.set_tcp_nodelay(true);
            options.set_network_options(network);
            if let Some((topic, message)) = will {
                let qos = v5::mqttbytes::QoS::AtLeastOnce;
                options.set_last_will(v5::mqttbytes::v5::LastWill::new(topic, message, qos, false, None));
            }
            let (client, events) = v5::AsyncClient::new(options, QUEUE);
            (Client::V5(client), Events::V5(Box::new(events)))
        }
    }
}

/// The host as the library wants it. A certificate names an address of IPv6 without its brackets; without TLS it keeps them.
fn library_host(place: &Place) -> &str {
    let bare = place.host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    bare.filter(|_| place.tls.is_some()).unwrap_or(&place.host)
}

impl Client {
    /// Queues a message; false if the library takes no more.
    fn publish(&self, topic: String, payload: Vec<u8>) -> bool {
        match self {
            Client::V311(client) => client.try_publish(topic, rumqttc::QoS::AtLeastOnce, false, payload).is_ok(),
            Client::V5(client) => client.try_publish(topic, v5::mqttbytes::QoS::AtLeastOnce, false, payload).is_ok(),
        }
    }

    /// Asks for commands; false if the library takes no more.
    fn subscribe(&self, filter: String) -> bool {
        match self {
            Client::V311(client) => client.try_subscribe(filter, rumqttc::QoS::AtLeastOnce).is_ok(),
            Client::V5(client) => client.try_subscribe(filter, v5::mqttbytes::QoS::AtLeastOnce).is_ok(),
        }
    }

    fn disconnect(&self) {
        // If it cannot even be queued, the connection just ends.
        let _ = match self {
            Client::V311(client) => client.try_disconnect().is_ok(),
            Client::V5(client) => client.try_disconnect().is_ok(),
        };
    }
}

impl Events {
    /// What happens next. Not cancel safe: an event may be lost, so it is dropped only with its connection.
    async fn next(&mut self) -> Result<Heard, String> {
        match self {
            Events::V311(events) => {
                use rumqttc::{Event, Incoming, Outgoing};
                let event = events.poll().await.map_err(|e| with_causes(&e))?;
                Ok(match event {
                    Event::Incoming(Incoming::ConnAck(_)) => Heard::Connected,
                    Event::Outgoing(Outgoing::Publish(id)) => Heard::Sent(id),
                    Event::Incoming(Incoming::PubAck(ack)) => Heard::Acked(ack.pkid),
                    Event::Incoming(Incoming::Publish(message)) => Heard::Message {
                        topic: message.topic,
                        payload: message.payload.to_vec(),
                        is_retained: message.retain,
                    },
                    Event::Outgoing(Outgoing::Disconnect) => Heard::Disconnected("we said goodbye".to_owned()),
                    _ => Heard::Nothing,
                })
            }
            Events::V5(events) => {
                use rumqttc::Outgoing;
                use v5::mqttbytes::v5::PubAckReason;
                use v5::{Event, Incoming};
                let event = events.poll().await.map_err(|e| with_causes(&e))?;
                Ok(match event {
                    Event::Incoming(Incoming::ConnAck(_)) => Heard::Connected,
                    Event::Outgoing(Outgoing::Publish(id)) => Heard::Sent(id),
                    Event::Incoming(Incoming::Publish(message)) => Heard::Message {
                        topic: String::from_utf8_lossy(&message.topic).into_owned(),
                        payload: message.payload.to_vec(),
                        is_retained: message.retain,
                    },
                    Event::Incoming(Incoming::PubAck(ack)) => match ack.reason {
                        PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Heard::Acked(ack.pkid),
                        reason => {
                            let said = ack.properties.and_then(|properties| properties.reason_string);
                            let said = said.map(|said| format!(": {said}")).unwrap_or_default();
                            Heard::Refused(ack.pkid, format!("{reason:?}{said}"))
                        }
                    },
                    Event::Outgoing(Outgoing::Disconnect) => Heard::Disconnected("we said goodbye".to_owned()),
                    _ => Heard::Nothing,
                })
            }
        }
    }
}

/// A connection from its beginning to its end.
pub(super) async fn run(line: &Line<'_>, place: &Place) -> Ended {
    let topic = format!("eden/v1/{}/status", line.life.agent);
    let will = format!(r#"{{"online":false,"version":"{}","epoch":{}}}"#, env!("CARGO_PKG_VERSION"), line.life.epoch);
    let (client, mut events) = open(&line.life.agent, place, Some((topic, will.into_bytes())));
    let failed = |reason: String| Ended { end: End::Failed(reason), was_useful: false };
    let connecting = async {
        loop {
            match timeout(CONNECT_TIME_MAX, events.next()).await {
                Ok(Ok(Heard::Connected)) => return None,
                Ok(Ok(_)) => {}
                Ok(Err(reason)) => return Some(failed(reason)),
                Err(_) => return Some(failed("it did not answer in time".to_owned())),
            }
        }
    };
    let given_up = tokio::select! {
        given_up = connecting => given_up,
        () = grace_is_over(line) => Some(Ended { end: End::Stopped, was_useful: false }),
    };
    if let Some(ended) = given_up {
        return ended;
    }
    line.connected();
    let started = line.clock.monotonic();
    let flight = RefCell::new(Flight { progress: started, ..Flight::default() });
    let acked = Notify::new();
    let end = tokio::select! {
        end = listen(line, &mut events, &flight, &acked) => end,
        end = speak(line, &client, &flight, &acked) => end,
    };
    let lasted = line.clock.monotonic().saturating_sub(started);
    Ended { end, was_useful: flight.borrow().acks > 0 || lasted > USEFUL_AFTER }
}

/// Waits until the agent is told to stop and its grace is over.
async fn grace_is_over(line: &Line<'_>) {
    while line.grace().is_none() {
        line.exchange.notify.notified().await;
    }
    // A timer that is the feature: a stop has an end.
    let _ = timeout(line.grace().unwrap_or_default(), std::future::pending::<()>()).await;
}

/// Hears acknowledgements until the connection ends.
async fn listen(line: &Line<'_>, events: &mut Events, flight: &RefCell<Flight>, acked: &Notify) -> End {
    loop {
        let heard = match events.next().await {
            Ok(heard) => heard,
            Err(_) if flight.borrow().said_goodbye => return End::Stopped,
            Err(reason) => return End::Failed(reason),
        };
        let now = line.clock.monotonic();
        let mut flight = flight.borrow_mut();
        match heard {
            Heard::Sent(id) => {
                if let Some(flying) = flight.submitted.pop_front() {
                    flight.by_id.insert(id, flying);
                }
            }
            Heard::Acked(id) => {
                flight.progress = now;
                match flight.by_id.remove(&id) {
                    Some(Flying::Batch { key, since }) => {
                        flight.batches -= 1;
                        flight.acks += 1;
                        flight.refusals.reset();
                        line.exchange.done(key, Outcome::Acked, now.saturating_sub(since));
                    }
                    Some(Flying::Goodbye) => flight.said_goodbye = true,
                    Some(Flying::Status | Flying::Logs) | None => {}
                }
                acked.notify_one();
            }
            Heard::Refused(id, reason) => {
                flight.progress = now;
                match flight.by_id.remove(&id) {
                    Some(Flying::Batch { key, .. }) => {
                        flight.batches -= 1;
                        let wait = flight.refusals.next(line.rng);
                        flight.hold_until = now + wait;
                        tracing::warn!(
                            server = line.url,
                            seq = key.seq,
                            reason,
                            "the server did not take a batch; it is sent again later"
                        );
                        line.exchange.put_back(key);
                    }
                    Some(Flying::Logs) => tracing::warn!(server = line.url, reason, "the server did not take the log"),
                    Some(Flying::Status | Flying::Goodbye) | None => {}
                }
                acked.notify_one();
            }
            Heard::Disconnected(reason) => {
                return match (flight.said_goodbye, flight.leaves) {
                    (true, _) => End::Stopped,
                    (false, true) => End::Preferred,
                    (false, false) => End::Failed(reason),
                };
            }
            Heard::Message { topic, payload, is_retained } => hear_command(line, &topic, &payload, is_retained),
            Heard::Connected | Heard::Nothing => {}
        }
    }
}

fn hear_command(line: &Line<'_>, topic: &str, payload: &[u8], is_retained: bool) {
    let Some(name) = topic.strip_prefix(&format!("eden/v1/{}/cmd/", line.life.agent)) else { return };
    let command = match Command::parse(name, payload) {
        // It would come again at each start.
        Ok(Command::Restart) if is_retained => Err("a restart that the server keeps is not carried out".to_owned()),
        parsed => parsed,
    };
    match command {
        Ok(command) => {
            if !line.exchange.command(command) {
                tracing::warn!(name, "too many commands wait; this one is left out");
            }
        }
        Err(reason) => {
            tracing::warn!(name, reason, "a command was not understood");
            line.exchange.lock().stats.last_command = Some(format!("{name}: {reason}"));
            line.exchange.notify.notify_one();
        }
    }
}

/// Publishes batches and status messages until the agent stops or the connection stalls.
async fn speak(line: &Line<'_>, client: &Client, flight: &RefCell<Flight>, acked: &Notify) -> End {
    let mut status_at = Duration::ZERO;
    let mut look_at = line.look_at();
    // Its queue is empty yet; a server that refuses goes without commands.
    let _ = client.subscribe(format!("eden/v1/{}/cmd/#", line.life.agent));
    let mut last_command = line.exchange.lock().stats.last_command.clone();
    loop {
        let now = line.clock.monotonic();
        let (command, log_lines) = {
            let mut shared = line.exchange.lock();
            (shared.stats.last_command.clone(), shared.log_lines.take())
        };
        if let Some(log_lines) = log_lines {
            publish_logs(line, client, flight, log_lines);
        }
        if now >= status_at || command != last_command {
            last_command = command;
            publish_status(line, client, flight, Flying::Status);
            status_at = now + line.status_interval;
        }
        if line.is_over() {
            return say_goodbye(line, client, flight, acked).await;
        }
        let leaves = look_at.is_some_and(|at| now >= at);
        if leaves && flight.borrow().batches == 0 {
            if super::is_any_there(line.preferred) {
                flight.borrow_mut().leaves = true;
                client.disconnect();
                // The other half hears that it has left, and ends.
                let _ = timeout(GOODBYE_TIME_MAX, std::future::pending::<()>()).await;
                return End::Preferred;
            }
            look_at = line.look_at();
            continue;
        }
        let holds = now < flight.borrow().hold_until;
        while !leaves
            && !holds
            && let Some(batch) = line.exchange.take()
        {
            let suffix = if batch.encoding == Encoding::Zstd { "lp.zst" } else { "lp" };
            let topic = format!("eden/v1/{}/{suffix}", batch.life.agent);
            let mut flight = flight.borrow_mut();
            if flight.batches == 0 {
                flight.progress = now;
            }
            flight.batches += 1;
            flight.submitted.push_back(Flying::Batch { key: batch.key(), since: now });
            if !client.publish(topic, batch.body.clone()) {
                return End::Failed("the client takes no more".to_owned());
            }
        }
        let mut until = status_at.saturating_sub(now);
        {
            let flight = flight.borrow();
            if flight.batches > 0 {
                let stalled_at = flight.progress + STALL_TIME_MAX;
                if now >= stalled_at {
                    return End::Failed(format!("no acknowledgement for {} s", STALL_TIME_MAX.as_secs()));
                }
                until = until.min(stalled_at.saturating_sub(now));
            }
            if holds {
                until = until.min(flight.hold_until.saturating_sub(now));
            }
        }
        if let Some(at) = look_at.filter(|_| !leaves) {
            until = until.min(at.saturating_sub(now));
        }
        if let Some(grace) = line.grace() {
            until = until.min(grace);
        }
        let until = until.max(Duration::from_millis(1));
        // A timer that is a feature: what is due is due although nothing happens.
        let _ = timeout(until, async {
            tokio::select! {
                () = line.exchange.notify.notified() => {}
                () = acked.notified() => {}
            }
        })
        .await;
    }
}

fn publish_status(line: &Line<'_>, client: &Client, flight: &RefCell<Flight>, kind: Flying) {
    let stats = line.exchange.lock().stats.clone();
    let online = !matches!(kind, Flying::Goodbye);
    let board = board::look(Path::new("/sys"));
    let message = serde_json::json!({
        "online": online,
        "version": env!("CARGO_PKG_VERSION"),
        "epoch": line.life.epoch,
        "seq": stats.last_seq,
        "backlog_batches": stats.backlog_batches,
        "backlog_bytes": stats.backlog_bytes,
        "untimed_batches": stats.untimed_batches,
        "failing_sensors": stats.failing_sensors,
        "bytes_written": stats.wear.bytes_written,
        "syncs": stats.wear.syncs,
        "last_command": stats.last_command,
        "board_temperature": board.temperature,
        "undervoltage": board.undervoltage,
    });
    flight.borrow_mut().submitted.push_back(kind);
    let topic = format!("eden/v1/{}/status", line.life.agent);
    if !client.publish(topic, message.to_string().into_bytes()) {
        // The next one makes up for it.
        flight.borrow_mut().submitted.pop_back();
    }
}

fn publish_logs(line: &Line<'_>, client: &Client, flight: &RefCell<Flight>, log_lines: String) {
    flight.borrow_mut().submitted.push_back(Flying::Logs);
    let topic = format!("eden/v1/{}/logs", line.life.agent);
    if !client.publish(topic, log_lines.into_bytes()) {
        // Whoever wants it asks again.
        flight.borrow_mut().submitted.pop_back();
    }
}

/// A last status message, acknowledged if there is time, and the end of the connection in order: no last will.
async fn say_goodbye(line: &Line<'_>, client: &Client, flight: &RefCell<Flight>, acked: &Notify) -> End {
    publish_status(line, client, flight, Flying::Goodbye);
    let _ = timeout(GOODBYE_TIME_MAX, async {
        while !flight.borrow().said_goodbye {
            acked.notified().await;
        }
    })
    .await;
    flight.borrow_mut().said_goodbye = true;
    client.disconnect();
    // The other half hears that it has left, and ends.
    let _ = timeout(GOODBYE_TIME_MAX, std::future::pending::<()>()).await;
    End::Stopped
}

/// Connects and says goodbye, to see whether a server answers.
pub(super) async fn try_out(client_id: &str, place: &Place) -> Result<(), String> {
    let (client, mut events) = open(client_id, place, None);
    let connecting = async {
        loop {
            if let Heard::Connected = events.next().await? {
                client.disconnect();
                // Whether it hears the goodbye is not the question.
                let _ = events.next().await;
                return Ok(());
            }
        }
    };
    timeout(CONNECT_TIME_MAX, connecting).await.unwrap_or_else(|_| Err("it did not answer in time".to_owned()))
}
