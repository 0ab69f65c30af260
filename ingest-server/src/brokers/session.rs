//! One connection to a broker: reading, storing and acknowledging, side by side.
//!
//! Owns:     what has come on this connection and is not acknowledged.
//! Does not: outlive it.
//!
//! Three parts of one task, with queues between them: one hears the broker, one works off what has come in batches
//! as large as they have grown meanwhile, one waits for the disk and acknowledges.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use decode::sparkplug::Command;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

use super::client::{self, Client, Events, Heard, Host, Message};
use super::{Broker, End};
use crate::app::Unavailable;
use crate::metrics::Metrics;
use crate::mqtt::ingest::{Batch, Group, Work};
use crate::mqtt::topic::matches;
use crate::sources::Source;

/// How long CONNACK may take, the library's own limit included.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(15);
/// Messages that have come on a connection and are not settled, in KiB, each at least one.
const UNSETTLED_KIB_MAX: usize = 8 << 10;
/// A batch takes no further message beyond these.
const BATCH_MESSAGES_MAX: usize = 4096;
const BATCH_BYTES_MAX: usize = 1 << 20;

/// A message with its share of what may be unsettled.
type Held = (Message, OwnedSemaphorePermit);
/// Where messages go, until the server stops.
type Inlet = Mutex<Option<mpsc::UnboundedSender<Held>>>;

/// A connection from its beginning to its end.
pub(super) async fn run(broker: &Broker) -> End {
    tokio::select! {
        end = connect(broker) => match end {
            Ok(connected) => serve(broker, connected).await,
            Err(reason) => End::Failed(reason),
        },
        () = broker.stop.cancelled() => End::Stopped,
    }
}

/// What is there when a broker has let us in.
struct Connected {
    client: Client,
    events: Events,
    host: Option<Host>,
}

async fn connect(broker: &Broker) -> Result<Connected, String> {
    let storage = broker.app.for_writes().map_err(|e| e.to_string())?.storage;
    let section = &broker.section;
    let client_id =
        if section.client_id.is_empty() { format!("eden-{}", storage.node()) } else { section.client_id.clone() };
    let packet_bytes_max = usize::try_from(broker.app.config.mqtt.max_packet_bytes.0).unwrap_or(usize::MAX);
    let id = &broker.app.config.mqtt.sparkplug_host;
    let host = (!id.is_empty()).then(|| Host::new(id, broker.app.clock.now_us()));
    // Where it is not heard that it is said to be gone, it does not say that it is there.
    let host = host.filter(|host| section.topics.0.iter().any(|filter| matches(filter, host.topic())));
    let (client, mut events) = client::open(section, &client_id, packet_bytes_max, host.as_ref())?;
    let knows_us = loop {
        match timeout(CONNECT_TIME_MAX, events.next()).await {
            Ok(Ok(Heard::Connected { knows_us })) => break knows_us,
            Ok(Ok(_)) => {}
            Ok(Err(reason)) => return Err(reason),
            Err(_) => return Err("it did not answer in time".to_owned()),
        }
    };
    // Also if it knows us: the filters may be others than last time, and a broker may have forgotten them in a restart
    // (Mosquitto 2.0 keeps sessions and forgets their shared subscriptions).
    if !client.subscribe(&section.topics.0, section.qos) {
        return Err("the client takes no subscription".to_owned());
    }
    // Behind it: what edge nodes say to this is heard.
    if host.as_ref().is_some_and(|host| !client.say(host, true)) {
        return Err("the client takes no state".to_owned());
    }
    let metrics = broker.metrics();
    metrics.connected.store(1, Ordering::Relaxed);
    Metrics::add(&metrics.connections, 1);
    tracing::info!(broker = section.url, client_id, knows_us, "connected to the broker");
    Ok(Connected { client, events, host })
}

async fn serve(broker: &Broker, connected: Connected) -> End {
    let Connected { client, mut events, host } = connected;
    let (to_worker, received) = mpsc::unbounded_channel::<Held>();
    let (to_acknowledger, worked) = mpsc::unbounded_channel::<Group>();
    let to_worker = Inlet::new(Some(to_worker));
    let stores = async {
        match tokio::try_join!(work(broker, received, to_acknowledger, &client), acknowledge(broker, worked, &client)) {
            // Nothing more comes, and all that came is acknowledged: the goodbye ends the listening.
            Ok(_) => {
                client.disconnect();
                std::future::pending().await
            }
            Err(reason) => End::Failed(reason),
        }
    };
    let stops = async {
        broker.stop.cancelled().await;
        lock(&to_worker).take();
        // Edge nodes keep what they measure from here on. A will is not sent behind a goodbye.
        if let Some(host) = &host {
            let is_said = client.say(host, false);
            tracing::debug!(broker = broker.section.url, is_said, "the Sparkplug host goes");
        }
        std::future::pending().await
    };
    tokio::select! {
        end = listen(broker, &mut events, &to_worker, &client, host.as_ref()) => end,
        end = stores => end,
        never = stops => never,
    }
}

fn lock(inlet: &Inlet) -> MutexGuard<'_, Option<mpsc::UnboundedSender<Held>>> {
    inlet.lock().expect("no holder of this lock panics")
}

/// Hears the broker until the connection ends.
async fn listen(broker: &Broker, events: &mut Events, to_worker: &Inlet, client: &Client, host: Option<&Host>) -> End {
    let room = Arc::new(Semaphore::new(UNSETTLED_KIB_MAX));
    loop {
        let heard = match events.next().await {
            Ok(heard) => heard,
            Err(_) if lock(to_worker).is_none() => return End::Stopped,
            Err(reason) => return End::Failed(reason),
        };
        match heard {
            Heard::Message(message) => {
                let bytes = message.topic.len() + message.payload.len();
                broker.count_message(bytes);
                if let Some(host) = host.filter(|host| host.is_declared_gone(&message))
                    && lock(to_worker).is_some()
                {
                    let is_said = client.say(host, true);
                    tracing::info!(
                        broker = broker.section.url,
                        is_said,
                        "the Sparkplug host was said to be gone, and is not"
                    );
                }
                let kib = bytes.div_ceil(1024).clamp(1, UNSETTLED_KIB_MAX) as u32;
                let share = Arc::clone(&room).acquire_many_owned(kib).await.expect("the semaphore is never closed");
                // During a stop it is left to the broker, which brings it again.
                if let Some(to_worker) = &*lock(to_worker) {
                    // A worker that is gone has ended the connection.
                    let _ = to_worker.send((message, share));
                }
            }
            Heard::Subscribed(Err((at, reason))) => {
                let filter = broker.section.topics.0.get(at).map_or("?", String::as_str);
                return End::Failed(format!("it refuses the subscription to {filter:?}: {reason}"));
            }
            Heard::Said => return End::Stopped,
            Heard::Connected { .. } | Heard::Subscribed(Ok(())) | Heard::Nothing => {}
        }
    }
}

/// Works off what has come.
async fn work(
    broker: &Broker,
    mut received: mpsc::UnboundedReceiver<Held>,
    to_acknowledger: mpsc::UnboundedSender<Group>,
    client: &Client,
) -> Result<(), String> {
    let source: Arc<str> = format!("broker {}", broker.section.url).into();
    while let Some(first) = received.recv().await {
        let mut batch = Batch::default();
        let mut next = Some(first);
        while let Some((message, share)) = next {
            let topic = String::from_utf8_lossy(&message.topic);
            batch.add(
                broker.app.topics.kind_at_broker(&topic),
                &topic,
                &message.properties,
                &message.payload,
                message.id,
                message.qos,
            );
            batch.budget.add_read(share);
            let is_full = batch.len() >= BATCH_MESSAGES_MAX || batch.bytes() >= BATCH_BYTES_MAX;
            next = if is_full { None } else { received.try_recv().ok() };
        }
        let storage = match broker.app.for_writes() {
            Ok(parts) => parts.storage,
            // The broker brings it again.
            Err(Unavailable::Stopping) => return Ok(()),
            Err(e) => return Err(e.to_string()),
        };
        let work = Work::new(Arc::clone(&broker.app), storage, Arc::clone(&source), Source::Broker, batch);
        let (worked, result) = work.drive().await;
        if let Some(mut worked) = worked {
            let complaint = worked.complaint.take();
            if let Some((messages, last)) = complaint.filter(|_| broker.may_complain()) {
                tracing::info!(broker = broker.section.url, messages, last, "messages of the broker were set aside");
            }
            for Command { topic, payload } in &worked.commands {
                let is_sent = client.publish(topic, payload);
                tracing::info!(
                    broker = broker.section.url,
                    topic,
                    is_sent,
                    "a Sparkplug edge node is asked to be born again"
                );
            }
            for group in worked.groups() {
                if to_acknowledger.send(group).is_err() {
                    return Ok(());
                }
            }
        }
        result.map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Acknowledges what is durable, in order.
async fn acknowledge(
    broker: &Broker,
    mut worked: mpsc::UnboundedReceiver<Group>,
    client: &Client,
) -> Result<(), String> {
    while let Some(group) = worked.recv().await {
        if let Some(durable) = group.durable {
            durable.await.map_err(|e| e.to_string())?;
        }
        for ack in &group.acks {
            if !client.acknowledge(ack.id) {
                return Err("the client takes no acknowledgement".to_owned());
            }
        }
        Metrics::add(&broker.metrics().acks, group.acks.len() as u64);
    }
    Ok(())
}
