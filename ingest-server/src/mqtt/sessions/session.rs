//! What is kept for one client: its session, and what is retained on its topics.
//!
//! Owns:     the bounds of one client, which command goes out next, and what a reconnect changes.
//! Does not: know other clients, or what of it is on the disk (`sessions`).

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::mqtt::links::Link;
use crate::mqtt::read::{Publish, Wanted};
use crate::mqtt::topic::matches;

/// Commands that may wait for one client; as many of its topics may have a retained one.
pub(in crate::mqtt) const ORDERS_MAX: usize = 64;
/// Their bytes.
pub(super) const ORDERS_BYTES_MAX: usize = 256 << 10;
/// Subscriptions of a client.
pub(super) const SUBSCRIPTIONS_MAX: usize = 64;
/// Bytes of their filters.
pub(super) const FILTERS_BYTES_MAX: usize = 16 << 10;
/// Identifiers of QoS 2 messages that a session keeps of a client.
const RECEIVED_MAX: usize = 1024;
/// What a session, a subscription or a command takes beside its texts.
const FIXED_BYTES: usize = 128;

/// A command on its way to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Its topic.
    pub topic: Box<str>,
    /// MQTT 5: its properties as they came, but for a topic alias.
    pub properties: Box<[u8]>,
    /// MQTT 5: when it is of no use any more, in microseconds since 1970, and where in `properties` the seconds until then
    /// stand.
    pub expires: Option<(i64, u32)>,
    /// What it says.
    pub payload: Bytes,
    /// 0 or 1.
    pub qos: u8,
    /// The flag with which it is sent.
    pub retain: bool,
}

impl Order {
    /// A command that has just come; it is `now_us`.
    pub fn new(publish: &Publish<'_>, now_us: i64) -> Self {
        let mut properties = publish.properties.to_vec();
        let mut expiry = publish.expiry;
        if let Some((_, place)) = publish.alias {
            // It is of the connection that it came by.
            properties.drain(place..place + 3);
            if let Some((_, at)) = expiry.as_mut().filter(|(_, at)| *at > place) {
                *at -= 3;
            }
        }
        let expires = expiry.map(|(seconds, at)| (after(now_us, seconds), at as u32));
        Order {
            topic: publish.topic.into(),
            properties: properties.into(),
            expires,
            payload: Bytes::copy_from_slice(publish.payload),
            qos: publish.qos.min(1),
            retain: publish.retain,
        }
    }

    /// Seconds that it is still of use, if that is bounded, rounded up: what has not waited keeps its number.
    pub fn seconds_left(&self, now_us: i64) -> Option<u32> {
        let (at, _) = self.expires?;
        let left_us = at.saturating_sub(now_us).max(0).cast_unsigned();
        Some(u32::try_from(left_us.div_ceil(1_000_000)).unwrap_or(u32::MAX))
    }

    /// Memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        FIXED_BYTES + self.content_bytes()
    }

    fn content_bytes(&self) -> usize {
        self.topic.len() + self.properties.len() + self.payload.len()
    }
}

/// `seconds` after `now_us`.
pub(super) fn after(now_us: i64, seconds: u32) -> i64 {
    now_us.saturating_add(i64::from(seconds) * 1_000_000)
}

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subscription {
    pub(super) filter: Box<str>,
    pub(super) qos: u8,
    pub(super) no_local: bool,
    pub(super) retain_as_published: bool,
}

/// A command in a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Queued {
    /// The identifier with which it is sent, every time; 0 with QoS 0.
    pub(super) id: u16,
    /// It may have been sent before.
    pub(super) dup: bool,
    /// It was sent by the present connection.
    pub(super) is_flying: bool,
    pub(super) order: Arc<Order>,
}

/// A session.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// The present connection.
    pub(super) link: Option<Arc<Link>>,
    /// Seconds for which it outlives its connection.
    pub(super) expiry: u32,
    /// Without a connection: since when, in microseconds since 1970.
    pub(super) away_since_us: i64,
    pub(super) subscriptions: Vec<Subscription>,
    /// Subscriptions have changed, and that is not noted.
    pub(super) is_changed: bool,
    pub(super) orders: VecDeque<Queued>,
    pub(super) last_id: u16,
    /// QoS 2 messages of the client that are stored and not released.
    pub(super) received: Vec<(u16, u32)>,
}

impl Session {
    /// Whether it outlives its connection, and so is kept on the disk.
    pub(super) fn is_lasting(&self) -> bool {
        self.expiry > 0
    }

    pub(super) fn is_expired(&self, now_us: i64) -> bool {
        self.link.is_none() && after(self.away_since_us, self.expiry) <= now_us
    }

    pub(super) fn is_of(&self, link: &Arc<Link>) -> bool {
        self.link.as_ref().is_some_and(|found| Arc::ptr_eq(found, link))
    }

    pub(super) fn bytes(&self) -> usize {
        let filters: usize = self.subscriptions.iter().map(|found| FIXED_BYTES + found.filter.len()).sum();
        let orders: usize = self.orders.iter().map(|queued| queued.order.bytes()).sum();
        FIXED_BYTES + filters + orders
    }

    /// The highest QoS with which its subscriptions take a command, and whether with its flag RETAIN. `is_own` if the client
    /// has sent it itself.
    pub(super) fn takes(&self, topic: &str, is_own: bool) -> Option<(u8, bool)> {
        let taking =
            self.subscriptions.iter().filter(|found| matches(&found.filter, topic) && !(is_own && found.no_local));
        taking.map(|found| (found.qos, found.retain_as_published)).reduce(|a, b| (a.0.max(b.0), a.1 | b.1))
    }

    /// Whether `order` may wait with the others; `times` the usual bounds.
    pub(super) fn has_room(&self, order: &Order, times: usize) -> bool {
        let bytes: usize = self.orders.iter().map(|queued| queued.order.content_bytes()).sum();
        self.orders.len() < times * ORDERS_MAX && bytes + order.content_bytes() <= times * ORDERS_BYTES_MAX
    }

    /// Puts `order` behind the others.
    pub(super) fn push(&mut self, order: Arc<Order>) -> &Queued {
        let id = if order.qos > 0 { self.next_id() } else { 0 };
        self.orders.push_back(Queued { id, dup: false, is_flying: false, order });
        &self.orders[self.orders.len() - 1]
    }

    fn next_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if self.orders.iter().all(|queued| queued.id != self.last_id) {
                return self.last_id;
            }
        }
    }

    /// Puts what the log has of it back in its place.
    pub(super) fn restore(&mut self, queued: Queued) {
        self.last_id = queued.id;
        self.orders.push_back(queued);
    }

    /// The place of the next command to be sent, if one may be.
    pub(super) fn next(&self, in_flight_max: usize) -> Option<usize> {
        let flying = self.orders.iter().filter(|queued| queued.is_flying).count();
        let next = self.orders.iter().position(|queued| !queued.is_flying)?;
        (self.orders[next].id == 0 || flying < in_flight_max).then_some(next)
    }

    /// A connection begins. Says whether something was known to be unsent that may be sent from now on.
    pub(super) fn attach(&mut self, link: &Arc<Link>) -> bool {
        self.link = Some(Arc::clone(link));
        for queued in &mut self.orders {
            queued.dup |= queued.is_flying;
            queued.is_flying = false;
        }
        self.orders.iter().any(|queued| !queued.dup)
    }

    /// Its connection ends. QoS 0 does not wait for the next one.
    pub(super) fn detach(&mut self, now_us: i64, expiry: u32) {
        self.link = None;
        self.away_since_us = now_us;
        self.expiry = expiry;
        self.orders.retain(|queued| queued.id > 0);
    }

    /// Adds a subscription, or replaces the one of the same filter. Says whether it is new; `None` if there are too many.
    pub(super) fn subscribe(&mut self, wanted: &Wanted<'_>, qos: u8) -> Option<bool> {
        let subscription = Subscription {
            filter: wanted.filter.into(),
            qos,
            no_local: wanted.no_local,
            retain_as_published: wanted.retain_as_published,
        };
        if let Some(found) = self.subscriptions.iter_mut().find(|found| found.filter == subscription.filter) {
            *found = subscription;
            return Some(false);
        }
        let bytes: usize = self.subscriptions.iter().map(|found| found.filter.len()).sum();
        if self.subscriptions.len() >= SUBSCRIPTIONS_MAX || bytes + wanted.filter.len() > FILTERS_BYTES_MAX {
            return None;
        }
        self.subscriptions.push(subscription);
        Some(true)
    }

    /// Keeps identifiers of QoS 2 messages; those beyond the bound are forgotten.
    pub(super) fn keep_received(&mut self, mut received: Vec<(u16, u32)>) {
        received.truncate(RECEIVED_MAX);
        self.received = received;
    }
}

/// All that is kept for a client.
#[derive(Debug, Default)]
pub(super) struct Agent {
    pub(super) session: Option<Session>,
    /// The last command that was to be retained, of each topic.
    pub(super) retained: Vec<Arc<Order>>,
}

impl Agent {
    pub(super) fn is_empty(&self) -> bool {
        self.session.is_none() && self.retained.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        let retained: usize = self.retained.iter().map(|order| order.bytes()).sum();
        retained + self.session.as_ref().map_or(0, Session::bytes)
    }

    /// Retains `order`, or, if it says nothing, forgets what was retained of its topic. False if there is no room.
    pub(super) fn retain(&mut self, order: &Arc<Order>) -> bool {
        let others = || self.retained.iter().filter(|found| found.topic != order.topic);
        let bytes: usize = others().map(|found| found.content_bytes()).sum();
        let is_full = others().count() >= ORDERS_MAX || bytes + order.content_bytes() > ORDERS_BYTES_MAX;
        if is_full && !order.payload.is_empty() {
            return false;
        }
        self.retained.retain(|found| found.topic != order.topic);
        if !order.payload.is_empty() {
            self.retained.push(Arc::clone(order));
        }
        true
    }
}
