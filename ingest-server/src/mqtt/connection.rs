//! One connection, from CONNACK to its end.
//!
//! Owns:     the state of a connection: what is in flight, what is to be written, when it must be heard of.
//! Does not: accept clients (`greet`), read (`receive`), know what packets say (`packets`) or what is sent to a client
//!           unasked (`downlink`), end (`ending`), or store (`ingest`).
//!
//! The task waits for one of a few events ([`Connection::event`]) and deals with it without waiting, so nothing is
//! ever half done when it is cut off.
//!
//! Invariants
//!  1. PUBACK and PUBREC are written only after the write of their message is durable, in the order in which the
//!     messages came (P1).
//!  2. An idle connection holds no buffer and no part of the budget.
//!  3. While this side does not read, the client's keep-alive does not run.

mod aliases;
mod downlink;
mod ending;
mod packets;
mod receive;
mod storing;

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use storage::{Storage, StorageError};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep_until};

use super::Mqtt;
use super::greet::Client;
use super::ingest::{Batch, Budget, Group, Work};
use super::links::{End, Link};
use super::read::{Bad, Connect, Version, code};
use super::sessions::Sessions;
use super::write::{Form, Welcome};
use crate::app::Parts;
use crate::stream::Stream;
use aliases::Aliases;
use downlink::Answer;
use ending::Ending;

pub(super) use ending::{LINGER_TIME_MAX, linger, reason, say};

/// A packet that has begun must be there in this time: it holds a part of the budget.
const PACKET_TIME_MAX: Duration = Duration::from_secs(120);
/// Bytes of one read: small, and large while reads come back full.
const READ_BYTES: (usize, usize) = (4 << 10, 16 << 10);
/// How long a connection waits for memory for a large packet.
const LARGE_WAIT_MAX: Duration = Duration::from_secs(10);
/// Bytes to be written above which nothing more is read: the client does not take its acknowledgements.
const OUT_BYTES_MAX: usize = 64 << 10;
/// Messages, and their bytes, that are being stored for a connection above which nothing more is read.
const UNSETTLED_MAX: usize = 1024;
const UNSETTLED_BYTES_MAX: usize = 1 << 20;
/// Answers to SUBSCRIBE and UNSUBSCRIBE that wait above which nothing more is read.
const ANSWERS_MAX: usize = 16;
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
    /// It is of an earlier connection: it does not count for Receive Maximum.
    is_restored: bool,
}

type Job = Pin<Box<dyn Future<Output = (Option<Work>, Result<(), StorageError>)> + Send>>;
type Acquiring = Pin<Box<dyn Future<Output = OwnedSemaphorePermit> + Send>>;

pub(super) struct Connection {
    mqtt: Arc<Mqtt>,
    storage: Arc<Storage>,
    sessions: Arc<Sessions>,
    stream: Stream,
    link: Arc<Link>,
    client_id: Arc<str>,
    source: Arc<str>,
    form: Form,
    /// Zero is none.
    keep_alive: Duration,
    /// The client has asked for a session that outlives the connection.
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
    /// Of those, how many are of earlier connections.
    restored: usize,
    aliases: Aliases,
    alias_max: u16,
    /// Commands that may be in flight to the client.
    orders_max: u16,
    /// Commands wait until what is to be written is written.
    orders_wait: bool,
    /// Answers that wait for something to be durable.
    answers: VecDeque<Answer>,
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
    /// What the oldest answer waits for is durable, or will never be.
    Answer(Result<(), StorageError>),
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
    /// Accepts a client.
    pub(super) fn begin(
        mqtt: &Arc<Mqtt>,
        parts: Parts,
        stream: Stream,
        client: Client,
        connect: &Connect<'_>,
        rest: &[u8],
    ) -> Box<Self> {
        let Client { id: client_id, assigned_id, link, peer, began } = client;
        let config = &mqtt.app.config.mqtt;
        let form =
            Form { version: connect.version, packet_max: connect.packet_max, problem_info: connect.problem_info };
        let receive_max = config.receive_max.clamp(1, u32::from(u16::MAX)) as u16;
        let packet_max = u32::try_from(config.max_packet_bytes.0).unwrap_or(u32::MAX).clamp(4 << 10, 268_435_460);
        let alias_max = u16::try_from(config.topic_aliases_max).unwrap_or(u16::MAX);
        let mut out = BytesMut::new();
        let welcome = Welcome {
            receive_max,
            packet_max,
            assigned_id,
            session_present: began.is_present,
            session_expiry: (began.expiry != connect.session_expiry).then_some(began.expiry),
            alias_max,
        };
        form.welcome(&mut out, welcome);
        let will = connect
            .will
            .as_ref()
            .map(|will| Box::new(Will { topic: will.topic.to_owned(), payload: will.payload.to_vec() }));
        let held = |(id, crc)| (id, Held { qos: 2, crc, received: true, is_restored: true });
        let now = Instant::now();
        let keep_alive = Duration::from_millis(u64::from(connect.keep_alive) * 1500);
        Box::new(Connection {
            source: format!("mqtt {client_id} {peer}").into(),
            storage: parts.storage,
            sessions: parts.sessions,
            stream,
            link,
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
            restored: began.received.len(),
            ids: began.received.into_iter().map(held).collect(),
            aliases: Aliases::default(),
            alias_max,
            orders_wait: false,
            answers: VecDeque::new(),
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
            // What waits in the session, and what came with CONNECT.
            self.send_orders();
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
            if self.orders_wait && self.out.is_empty() {
                self.send_orders();
                continue;
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
            if let Some(answer) = self.answers.front_mut()
                && let Poll::Ready(result) = answer.durable.as_mut().poll(cx)
            {
                return Poll::Ready(Event::Answer(result));
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
            && self.answers.len() < ANSWERS_MAX
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
            Event::Answer(Ok(())) => self.give_answer(),
            Event::Answer(Err(error)) => return Err(self.failed(&error)),
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
