//! One connection, from CONNACK to its end.
//!
//! Owns:     the state of a connection: what is in flight, what is to be written, when it must be heard of.
//! Does not: accept clients (`greet`), end (`ending`), store (`ingest`), or know the form of packets (`read`, `write`).
//!
//! The task waits for one of a few events ([`Connection::event`]) and deals with it without waiting, so nothing is
//! ever half done when it is cut off.
//!
//! Invariants
//!  1. PUBACK and PUBREC are written only after the write of their message is durable, in the order in which the
//!     messages came (P1).
//!  2. An idle connection holds no buffer and no part of the budget.
//!  3. While this side does not read, the client's keep-alive does not run.

mod ending;

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use storage::{Storage, StorageError};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::Mqtt;
use super::ingest::{Batch, Budget, Group, Work};
use super::links::{End, Forwarded, Link};
use super::read::{self, Bad, Connect, Packet, Publish, Version, Wanted, code};
use super::sparkplug;
use super::topic::{self, Kind};
use super::write::{Form, Welcome};
use crate::metrics::Metrics;
use ending::Ending;

pub(super) use ending::{LINGER_TIME_MAX, linger, reason, say};

/// A packet that has begun must be there in this time: it holds a part of the budget.
const PACKET_TIME_MAX: Duration = Duration::from_secs(120);
/// How long a connection waits for the one it takes over from.
const TAKE_OVER_TIME_MAX: Duration = Duration::from_secs(5);
/// Bytes of one read: small, and large while reads come back full.
const READ_BYTES: (usize, usize) = (4 << 10, 16 << 10);
/// How long a connection waits for memory for a large packet.
const LARGE_WAIT_MAX: Duration = Duration::from_secs(10);
/// A part of a packet up to this size is held without a share of memory.
const PARTIAL_BYTES_FREE: usize = READ_BYTES.0;
/// Bytes to be written above which nothing more is read: the client does not take its acknowledgements.
const OUT_BYTES_MAX: usize = 64 << 10;
/// Messages, and their bytes, that are being stored for a connection above which nothing more is read.
const UNSETTLED_MAX: usize = 1024;
const UNSETTLED_BYTES_MAX: usize = 1 << 20;
/// Commands in flight to a client, if it does not say less.
const ORDERS_IN_FLIGHT_MAX: u16 = 16;
/// How often a connection looks at its clock at least.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; 64 << 10].into());
}

/// A will, as far as it is kept.
struct Will {
    topic: String,
    payload: Vec<u8>,
}

/// What is known of a packet identifier that the client uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    qos: u8,
    /// Of topic and payload: tells a repetition from another message.
    crc: u32,
    /// QoS 2: PUBREC was sent, PUBREL has not come.
    received: bool,
}

type Job = Pin<Box<dyn Future<Output = (Option<Work>, Result<(), StorageError>)> + Send>>;
type Acquiring = Pin<Box<dyn Future<Output = OwnedSemaphorePermit> + Send>>;

pub(super) struct Connection {
    mqtt: Arc<Mqtt>,
    storage: Arc<Storage>,
    stream: TcpStream,
    link: Arc<Link>,
    client_id: Arc<str>,
    source: Arc<str>,
    form: Form,
    /// Zero is none.
    keep_alive: Duration,
    wanted_session: bool,
    receive_max: u16,
    packet_max: usize,
    /// The beginning of a packet whose end has not come.
    partial: Vec<u8>,
    /// Its whole length, if it is known and large.
    partial_total: usize,
    /// Its share of memory, as far as it has come.
    partial_budget: Budget,
    partial_since: Option<Instant>,
    /// A share for the next read.
    spare: Option<OwnedSemaphorePermit>,
    /// A share that is waited for.
    wanted: Option<Acquiring>,
    /// Since when, if it is for a large packet.
    wanted_large_at: Option<Instant>,
    /// The last read came back full.
    hot: bool,
    out: BytesMut,
    /// What gathers.
    batch: Batch,
    /// What is worked on.
    job: Option<Job>,
    /// What is on its way to the disk.
    waiting: VecDeque<Group>,
    /// Messages in the three above, and their bytes.
    unsettled: usize,
    unsettled_bytes: usize,
    /// Packet identifiers of the client that are in use.
    ids: HashMap<u16, Held>,
    /// Commands that the client has not acknowledged.
    orders: Vec<u16>,
    order_id: u16,
    orders_max: u16,
    will: Option<Box<Will>>,
    /// Nothing is read at present.
    paused: bool,
    heard: Instant,
    timer: Pin<Box<Sleep>>,
}

/// Something that a connection deals with.
enum Event {
    /// Another task has something for it.
    News,
    /// The oldest group is durable, or will never be.
    Durable(Result<(), StorageError>),
    /// The batch is worked off.
    Worked(Option<Box<Work>>, Result<(), StorageError>),
    Writable,
    Budget(OwnedSemaphorePermit),
    Readable,
    Timer,
}

fn look_interval(keep_alive: Duration) -> Duration {
    if keep_alive.is_zero() { LOOK_INTERVAL } else { keep_alive.min(LOOK_INTERVAL) }
}

impl Connection {
    /// Accepts a client, once the connection that it takes over from is gone.
    pub(super) async fn begin(
        mqtt: &Arc<Mqtt>,
        storage: Arc<Storage>,
        stream: TcpStream,
        peer: SocketAddr,
        link: &Arc<Link>,
        connect: &Connect<'_>,
        rest: &[u8],
    ) -> Box<Self> {
        let assigned = connect.client_id.is_empty().then(|| format!("eden-{}", uuid::Uuid::new_v4().simple()));
        let client_id: Arc<str> = assigned.as_deref().unwrap_or(connect.client_id).into();
        if let Some(gone) = mqtt.links.enter(&client_id, link) {
            Metrics::add(&mqtt.app.metrics.mqtt.taken_over, 1);
            // Its will must not come after what this one says.
            let _: Result<Result<(), oneshot::error::RecvError>, _> = timeout(TAKE_OVER_TIME_MAX, gone).await;
        }
        let config = &mqtt.app.config.mqtt;
        let form =
            Form { version: connect.version, packet_max: connect.packet_max, problem_info: connect.problem_info };
        let receive_max = config.receive_max.clamp(1, u32::from(u16::MAX)) as u16;
        let packet_max = u32::try_from(config.max_packet_bytes.0).unwrap_or(u32::MAX).clamp(4 << 10, 268_435_460);
        let mut out = BytesMut::new();
        let welcome =
            Welcome { receive_max, packet_max, assigned_id: assigned, wanted_session: connect.session_expiry > 0 };
        form.welcome(&mut out, welcome);
        let will = connect
            .will
            .as_ref()
            .map(|will| Box::new(Will { topic: will.topic.to_owned(), payload: will.payload.to_vec() }));
        let now = Instant::now();
        let keep_alive = Duration::from_millis(u64::from(connect.keep_alive) * 1500);
        Box::new(Connection {
            source: format!("mqtt {client_id} {peer}").into(),
            storage,
            stream,
            link: Arc::clone(link),
            client_id,
            form,
            keep_alive,
            wanted_session: connect.session_expiry > 0,
            receive_max: if connect.version == Version::V5 { receive_max } else { u16::MAX },
            packet_max: packet_max as usize,
            orders_max: connect.receive_max.min(ORDERS_IN_FLIGHT_MAX),
            partial: rest.to_vec(),
            partial_total: 0,
            partial_budget: Budget::default(),
            partial_since: None,
            spare: None,
            wanted: None,
            wanted_large_at: None,
            hot: false,
            out,
            batch: Batch::default(),
            job: None,
            waiting: VecDeque::new(),
            unsettled: 0,
            unsettled_bytes: 0,
            ids: HashMap::new(),
            orders: Vec::new(),
            order_id: 0,
            will,
            paused: false,
            heard: now,
            timer: Box::pin(sleep_until(now + look_interval(keep_alive))),
            mqtt: Arc::clone(mqtt),
        })
    }

    pub(super) async fn serve(mut self: Box<Self>) {
        let mut ending = if self.out.is_empty() {
            // It takes no packet as large as CONNACK, so there is nothing to be said to it.
            Some(Ending::Gone)
        } else {
            // What came with CONNECT.
            self.take_partial().err()
        };
        let ending = loop {
            if let Some(ending) = ending.take() {
                break ending;
            }
            self.start_work();
            if let Err(e) = self.write_out() {
                tracing::debug!(client = &*self.client_id, error = %e, "MQTT client is gone");
                break Ending::Gone;
            }
            let event = self.event().await;
            ending = self.deal_with(event).err();
        };
        Box::pin(self.end(ending)).await;
    }

    /// The next thing to deal with. Cancel safe: nothing is taken out but what is returned.
    async fn event(&mut self) -> Event {
        let may_read = self.may_read();
        if may_read == self.paused {
            self.paused = !may_read;
            // What the client sent during a pause stands in the socket: it has not been silent.
            self.heard = Instant::now();
        }
        poll_fn(|cx| {
            self.link.waker.register(cx.waker());
            if self.link.has_news() {
                return Poll::Ready(Event::News);
            }
            if let Some(group) = self.waiting.front_mut() {
                let Some(durable) = &mut group.durable else { return Poll::Ready(Event::Durable(Ok(()))) };
                if let Poll::Ready(result) = durable.as_mut().poll(cx) {
                    return Poll::Ready(Event::Durable(result));
                }
            }
            if let Some(job) = &mut self.job
                && let Poll::Ready((work, result)) = job.as_mut().poll(cx)
            {
                return Poll::Ready(Event::Worked(work.map(Box::new), result));
            }
            // An error shows when it is written to or read from.
            if !self.out.is_empty() && self.stream.poll_write_ready(cx).is_ready() {
                return Poll::Ready(Event::Writable);
            }
            if let Some(wanted) = &mut self.wanted
                && let Poll::Ready(share) = wanted.as_mut().poll(cx)
            {
                return Poll::Ready(Event::Budget(share));
            }
            if may_read && self.stream.poll_read_ready(cx).is_ready() {
                return Poll::Ready(Event::Readable);
            }
            self.timer.as_mut().poll(cx).map(|()| Event::Timer)
        })
        .await
    }

    fn may_read(&self) -> bool {
        self.wanted.is_none()
            && self.unsettled < UNSETTLED_MAX
            && self.unsettled_bytes < UNSETTLED_BYTES_MAX
            && self.out.len() < OUT_BYTES_MAX
    }

    fn deal_with(&mut self, event: Event) -> Result<(), Ending> {
        match event {
            Event::News => match self.link.end() {
                Some(End::Stop) => return Err(Ending::Stop),
                Some(End::TakenOver) => return Err(Ending::TakenOver),
                None => self.send_orders(),
            },
            Event::Durable(Ok(())) => self.acknowledge(),
            Event::Durable(Err(error)) => return Err(self.failed(&error)),
            Event::Worked(work, result) => self.worked(work.map(|work| *work), result)?,
            // The loop writes.
            Event::Writable => {}
            Event::Budget(share) => {
                self.wanted = None;
                self.spare = Some(share);
            }
            Event::Readable => self.read()?,
            Event::Timer => self.look_at_the_clock()?,
        }
        Ok(())
    }

    fn failed(&self, error: &StorageError) -> Ending {
        tracing::debug!(client = &*self.client_id, %error, "a message could not be stored; the connection ends");
        Ending::Failed
    }

    // ---- what comes in

    fn read(&mut self) -> Result<(), Ending> {
        let missing = self.partial_total.saturating_sub(self.partial.len());
        let mut limit = if self.hot { READ_BYTES.1 } else { READ_BYTES.0 };
        if missing > 0 {
            // Nothing beyond it is read.
            limit = missing.min(READ_BYTES.1);
        }
        let Some(share) = self.spare.take().or_else(|| self.try_share(limit, missing > 0)) else { return Ok(()) };
        let limit = limit.min(share.num_permits() * 1024);
        SCRATCH.with_borrow_mut(|scratch| {
            let limit = limit.min(scratch.len());
            let len = match self.stream.try_read(&mut scratch[..limit]) {
                Ok(0) => return Err(Ending::Gone),
                Ok(len) => len,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return Err(Ending::Gone),
            };
            self.hot = len == limit;
            self.heard = Instant::now();
            Metrics::add(&self.mqtt.app.metrics.mqtt.bytes, len as u64);
            if missing > 0 {
                self.partial.extend_from_slice(&scratch[..len]);
                self.keep_large(share);
                return self.take_partial();
            }
            let before = self.batch.bytes();
            if self.partial.is_empty() {
                let used = self.take(&scratch[..len])?;
                self.partial.extend_from_slice(&scratch[used..len]);
                self.partial_since = None;
                self.look_at_partial()?;
            } else {
                self.partial.extend_from_slice(&scratch[..len]);
                self.take_partial()?;
            }
            self.keep_share(share, self.batch.bytes() - before);
            Ok(())
        })
    }

    /// A share of memory for `bytes`; else it is waited for.
    fn try_share(&mut self, bytes: usize, large: bool) -> Option<OwnedSemaphorePermit> {
        let kib = bytes.div_ceil(1024) as u32;
        let budget = if large { &self.mqtt.large } else { &self.mqtt.reads };
        if let Ok(share) = Arc::clone(budget).try_acquire_many_owned(kib) {
            return Some(share);
        }
        Metrics::add(&self.mqtt.app.metrics.mqtt.pauses, 1);
        let acquiring = Arc::clone(budget).acquire_many_owned(kib);
        self.wanted = Some(Box::pin(async { acquiring.await.expect("the semaphore is never closed") }));
        let now = Instant::now();
        self.wanted_large_at = large.then_some(now);
        if large {
            self.timer.as_mut().reset(now + LARGE_WAIT_MAX);
        }
        None
    }

    /// Keeps as much of `share` as the batch has grown, and gives back the rest.
    fn keep_share(&mut self, mut share: OwnedSemaphorePermit, grown: usize) {
        let kib = grown.div_ceil(1024).min(share.num_permits());
        if let Some(kept) = share.split(kib).filter(|_| kib > 0) {
            self.batch.budget.add_read(kept);
        }
    }

    /// Keeps as much of `share` as the large packet needs that is coming, and gives back the rest.
    fn keep_large(&mut self, mut share: OwnedSemaphorePermit) {
        let kib = self.partial.len().div_ceil(1024).saturating_sub(self.partial_budget.large_kib());
        let kib = kib.min(share.num_permits());
        if let Some(kept) = share.split(kib).filter(|_| kib > 0) {
            self.partial_budget.add_large(kept);
        }
    }

    /// Takes the packets in `partial`, as far as they are there in full.
    fn take_partial(&mut self) -> Result<(), Ending> {
        if self.partial.len() < self.partial_total {
            return Ok(());
        }
        let bytes = std::mem::take(&mut self.partial);
        let used = self.take(&bytes)?;
        if used == 0 {
            self.partial = bytes;
        } else {
            self.partial = bytes[used..].to_vec();
            self.partial_since = None;
        }
        self.batch.budget.merge(std::mem::take(&mut self.partial_budget));
        self.look_at_partial()
    }

    /// Looks whether it is a large packet that is coming: it has memory of its own.
    fn look_at_partial(&mut self) -> Result<(), Ending> {
        self.partial_total = 0;
        if self.partial.is_empty() {
            self.partial_since = None;
            return Ok(());
        }
        self.partial_since.get_or_insert(self.heard);
        let version = Some(self.form.version);
        let head = read::head(&self.partial, self.packet_max, version).map_err(Ending::Bad)?;
        if let Some(total) = head.map(|head| head.total()).filter(|total| *total > PARTIAL_BYTES_FREE) {
            self.partial_total = total;
        }
        Ok(())
    }

    /// Deals with all packets that are in `bytes` in full; says how many bytes they have.
    fn take(&mut self, bytes: &[u8]) -> Result<usize, Ending> {
        let version = self.form.version;
        let mut used = 0;
        while let Some(head) = read::head(&bytes[used..], self.packet_max, Some(version)).map_err(Ending::Bad)? {
            let Some(body) = bytes.get(used + head.len..used + head.total()) else { break };
            let packet = read::packet(&head, body, version).map_err(Ending::Bad)?;
            self.packet(packet)?;
            used += head.total();
        }
        Ok(used)
    }

    fn packet(&mut self, packet: Packet<'_>) -> Result<(), Ending> {
        match packet {
            Packet::Publish(publish) => self.publish(&publish)?,
            Packet::PubRel(id) => self.release(id)?,
            Packet::PubAck(id) => {
                // One that is not known is of an earlier connection: nothing to do.
                self.orders.retain(|order| *order != id);
                self.send_orders();
            }
            Packet::PubRec(_) | Packet::PubComp(_) => {
                return Err(Ending::Bad(read::protocol("an acknowledgement of QoS 2, which is never sent to clients")));
            }
            Packet::Subscribe(id, wanted) => {
                let codes: Vec<u8> = wanted.iter().map(|wanted| self.subscribe(wanted)).collect::<Result<_, _>>()?;
                self.form.subscribed(&mut self.out, id, &codes);
            }
            Packet::Unsubscribe(id, filters) => {
                let mut codes = Vec::with_capacity(filters.len());
                for filter in filters {
                    let found = self.link.unsubscribe(filter);
                    codes.push(if found { code::SUCCESS } else { code::NO_SUBSCRIPTION_EXISTED });
                }
                self.form.unsubscribed(&mut self.out, id, &codes);
            }
            Packet::PingReq => self.form.pong(&mut self.out),
            Packet::Disconnect { code, session_expiry } => {
                if session_expiry.is_some_and(|seconds| seconds > 0) && !self.wanted_session {
                    let what = "a session expiry in DISCONNECT, and none in CONNECT";
                    return Err(Ending::Bad(read::protocol(what)));
                }
                return Err(Ending::Goodbye { will: code != code::SUCCESS });
            }
        }
        Ok(())
    }

    fn publish(&mut self, publish: &Publish<'_>) -> Result<(), Ending> {
        let Publish { qos, topic, id, payload, .. } = *publish;
        let mqtt = Arc::clone(&self.mqtt);
        let app = &mqtt.app;
        Metrics::add(&app.metrics.mqtt.messages[usize::from(qos)], 1);
        let v5 = self.form.version == Version::V5;
        if publish.retain && v5 {
            let what = "a message to be retained, and messages are not retained";
            return Err(Ending::Bad(Bad { code: code::RETAIN_NOT_SUPPORTED, what }));
        }
        if qos > 0 && !self.begin_message(publish)? {
            return Ok(());
        }
        let kind = app.topics.kind(topic);
        match kind {
            Kind::Command => {
                let agent = topic::agent(topic).map_or("", |(agent, _)| agent);
                let forwarded = mqtt.links.forward(agent, publish, &self.client_id);
                let (code, result) = match forwarded {
                    Forwarded::Sent => (code::SUCCESS, "sent"),
                    Forwarded::Nobody => (code::NO_MATCHING_SUBSCRIBERS, "nobody"),
                    Forwarded::Full => (code::QUOTA_EXCEEDED, "full"),
                };
                app.metrics.mqtt.count_command(result);
                self.settle(id, qos, code);
            }
            Kind::Own if v5 => self.settle(id, qos, code::NOT_AUTHORIZED),
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
                self.settle(publish.id, publish.qos, code::SUCCESS);
            }
            return Ok(false);
        }
        if self.ids.len() >= usize::from(self.receive_max) {
            let what = "more messages in flight than Receive Maximum";
            return Err(Ending::Bad(Bad { code: code::RECEIVE_MAX_EXCEEDED, what }));
        }
        self.ids.insert(publish.id, Held { qos: publish.qos, crc, received: false });
        Ok(true)
    }

    /// Acknowledges in its turn, without anything to store.
    fn settle(&mut self, id: u16, qos: u8, code: u8) {
        if qos > 0 {
            self.add(|batch| batch.add_settled(id, qos, code));
        }
    }

    fn add(&mut self, add: impl FnOnce(&mut Batch)) {
        let before = self.batch.bytes();
        add(&mut self.batch);
        self.unsettled += 1;
        self.unsettled_bytes += self.batch.bytes() - before;
    }

    /// PUBREL.
    fn release(&mut self, id: u16) -> Result<(), Ending> {
        let code = match self.ids.get(&id) {
            Some(Held { qos: 2, received: true, .. }) => {
                self.ids.remove(&id);
                code::SUCCESS
            }
            Some(_) => return Err(Ending::Bad(read::protocol("PUBREL before its PUBREC"))),
            None => code::PACKET_ID_NOT_FOUND,
        };
        self.form.complete(&mut self.out, id, code);
        Ok(())
    }

    fn subscribe(&mut self, wanted: &Wanted<'_>) -> Result<u8, Ending> {
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
        Ok(if self.link.subscribe(wanted, qos) { qos } else { code::QUOTA_EXCEEDED })
    }

    // ---- what is stored

    fn start_work(&mut self) {
        if self.job.is_none() && !self.batch.is_empty() {
            let batch = std::mem::take(&mut self.batch);
            let app = Arc::clone(&self.mqtt.app);
            let work = Work::new(app, Arc::clone(&self.storage), Arc::clone(&self.source), batch);
            self.job = Some(Box::pin(work.drive()));
        }
    }

    fn worked(&mut self, work: Option<Work>, result: Result<(), StorageError>) -> Result<(), Ending> {
        self.job = None;
        if let Some(mut work) = work {
            self.waiting.extend(work.groups());
            sparkplug::send(&self.mqtt, &self.client_id, &work.commands);
            if let Some((count, last)) = work.complaint.take().filter(|_| self.mqtt.links.may_complain(&self.client_id))
            {
                let client = &*self.client_id;
                tracing::warn!(client, count, last, "MQTT messages set aside: they could not be stored");
            }
        }
        result.map_err(|error| self.failed(&error))
    }

    /// Acknowledges the oldest group, which is durable.
    fn acknowledge(&mut self) {
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

    // ---- what goes out

    /// Writes what the socket takes.
    fn write_out(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            match self.stream.try_write(&self.out) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => self.out.advance(len),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        // Invariant 2; what is to be written next is small.
        self.out = BytesMut::new();
        Ok(())
    }

    /// Sends commands, as far as the client takes them now.
    fn send_orders(&mut self) {
        while self.out.len() < OUT_BYTES_MAX {
            match self.link.next_is_acknowledged() {
                None => return,
                Some(true) if self.orders.len() >= usize::from(self.orders_max) => return,
                Some(_) => {}
            }
            let Some(mut order) = self.link.next_order() else { return };
            if !order.is_fresh() {
                continue;
            }
            let id = if order.qos > 0 { self.next_order_id() } else { 0 };
            if self.form.publish(&mut self.out, &order, id) && id > 0 {
                self.orders.push(id);
            }
        }
    }

    fn next_order_id(&mut self) -> u16 {
        loop {
            self.order_id = self.order_id.checked_add(1).unwrap_or(1);
            if !self.orders.contains(&self.order_id) {
                return self.order_id;
            }
        }
    }

    // ---- time

    fn look_at_the_clock(&mut self) -> Result<(), Ending> {
        let now = Instant::now();
        if self.paused {
            self.heard = now;
        }
        if !self.keep_alive.is_zero() && now >= self.heard + self.keep_alive {
            return Err(Ending::Silent);
        }
        if self.partial_since.is_some_and(|since| now >= since + PACKET_TIME_MAX) {
            return Err(Ending::Silent);
        }
        let mut next = now + LOOK_INTERVAL;
        if let Some(since) = self.wanted_large_at.filter(|_| self.wanted.is_some()) {
            if now >= since + LARGE_WAIT_MAX {
                // What it holds of its packet goes to others: if all waited, nobody would come to an end.
                let what = "no memory for a large packet; send it again later";
                return Err(Ending::Bad(Bad { code: code::QUOTA_EXCEEDED, what }));
            }
            next = since + LARGE_WAIT_MAX;
        }
        let next = if self.keep_alive.is_zero() { next } else { next.min(self.heard + self.keep_alive) };
        self.timer.as_mut().reset(next);
        Ok(())
    }
}
