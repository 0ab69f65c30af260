//! Subscriptions, and the way of a command through a session.
//!
//! Owns:     to whom a command goes, what is retained, which one is sent next.
//! Does not: begin or end sessions, or write (`sessions`).

use std::sync::Arc;
use std::time::Duration;

use super::session::{Order, Session};
use super::{Forwarded, Inner, Next, Sessions};
use crate::mqtt::ingest::Durable;
use crate::mqtt::links::Link;
use crate::mqtt::read::{Publish, Retained, Wanted};
use crate::mqtt::topic;

/// Bytes of changes that may wait to be written; commands beyond them are refused.
const PENDING_BYTES_MAX: usize = 4 << 20;
/// How long commands that must be kept are refused after they could not be.
const FAILED_PAUSE: Duration = Duration::from_secs(1);

impl Sessions {
    /// Adds a subscription, with the retained commands that it is to be sent. False if there are too many.
    /// [`Sessions::note`] must follow.
    pub fn subscribe(&self, client: &Arc<str>, link: &Arc<Link>, wanted: &Wanted<'_>, qos: u8) -> bool {
        let now_us = self.clock.now_us();
        let mut guard = self.inner();
        let inner = &mut *guard;
        if inner.session(client, link).is_none() || inner.bytes + wanted.filter.len() > self.bytes_max {
            return false;
        }
        let room = self.bytes_max.saturating_sub(inner.bytes);
        let is_done = inner.change(client, |agent, _| {
            let Some(session) = agent.session.as_mut() else { return false };
            let Some(is_new) = session.subscribe(wanted, qos) else { return false };
            let are_wanted = match wanted.retained {
                Retained::Always => true,
                Retained::IfNew => is_new,
                Retained::Never => false,
            };
            let mut queued_bytes = 0;
            let retained = agent.retained.iter().chain(self.host_state.get());
            for order in retained.filter(|order| are_wanted && topic::matches(wanted.filter, &order.topic)) {
                let order = Order { qos: order.qos.min(qos), retain: true, ..Order::clone(order) };
                queued_bytes += order.bytes();
                // As much again as may wait, so that what waits is not in the way of what is retained.
                if order.seconds_left(now_us) != Some(0) && session.has_room(&order, 2) && queued_bytes <= room {
                    session.push(Arc::new(order));
                }
            }
            session.is_changed = true;
            true
        });
        link.wake();
        is_done
    }

    /// Removes a subscription; false if there was none. [`Sessions::note`] must follow.
    pub fn unsubscribe(&self, client: &Arc<str>, link: &Arc<Link>, filter: &str) -> bool {
        let mut guard = self.inner();
        let inner = &mut *guard;
        if inner.session(client, link).is_none() {
            return false;
        }
        inner.change(client, |agent, _| {
            let Some(session) = agent.session.as_mut() else { return false };
            let before = session.subscriptions.len();
            session.subscriptions.retain(|found| &*found.filter != filter);
            let is_found = session.subscriptions.len() < before;
            session.is_changed |= is_found;
            is_found
        })
    }

    /// Notes the changes of subscriptions, all together: a session is written once for a packet, however many filters there
    /// are in it. What is returned must be done before the client is told.
    pub fn note(self: &Arc<Self>, client: &Arc<str>, link: &Arc<Link>) -> Option<Durable> {
        let mut guard = self.inner();
        let inner = &mut *guard;
        inner.session(client, link)?;
        let must_be_durable = inner.change(client, |agent, pending| {
            let Some(session) = agent.session.as_mut() else { return false };
            let is_kept = std::mem::take(&mut session.is_changed) && session.is_lasting();
            if is_kept {
                pending.put(client, session);
            }
            is_kept
        });
        let durable = must_be_durable.then(|| Self::receipt(inner));
        self.write_soon(inner);
        durable
    }

    /// Hands a command to the agent whose client id is `agent`; it comes from the client `from`. What is returned
    /// beside must be done before it is acknowledged.
    pub fn forward(self: &Arc<Self>, agent: &str, publish: &Publish<'_>, from: &str) -> (Forwarded, Option<Durable>) {
        let now_us = self.clock.now_us();
        let order = Arc::new(Order::new(publish, now_us));
        let mut guard = self.inner();
        let inner = &mut *guard;
        let has_room = inner.bytes + 2 * order.bytes() <= self.bytes_max && inner.pending.bytes() < PENDING_BYTES_MAX;
        let now = self.clock.monotonic();
        let is_failing = inner.failed_at.is_some_and(|at| now.saturating_sub(at) < FAILED_PAUSE);
        let client: Arc<str> = agent.into();
        let (forwarded, must_be_durable) = inner.change(&client, |kept, pending| {
            if kept.session.as_ref().is_some_and(|session| session.is_expired(now_us)) {
                kept.session = None;
                pending.drop_session(&client);
            }
            let granted = kept.session.as_ref().and_then(|session| session.takes(&order.topic, agent == from));
            if granted.is_none() && !order.retain {
                return (Forwarded::Nobody, false);
            }
            let is_lasting = kept.session.as_ref().is_some_and(Session::is_lasting);
            let fits = kept.session.as_ref().is_none_or(|session| granted.is_none() || session.has_room(&order, 1));
            // Without a payload it frees room, and is let through.
            let must_fit = !order.retain || !order.payload.is_empty() || granted.is_some();
            if must_fit && !has_room || !fits || is_failing && (is_lasting || order.retain) {
                return (Forwarded::Full, false);
            }
            let mut is_kept = false;
            if order.retain {
                if !kept.retain(&order) {
                    return (Forwarded::Full, false);
                }
                is_kept = true;
                if order.payload.is_empty() {
                    pending.forget(&client, &order.topic);
                } else {
                    pending.retain(&client, &order);
                }
            }
            let Some(((granted, as_published), session)) = granted.zip(kept.session.as_mut()) else {
                return (Forwarded::Kept, is_kept);
            };
            let qos = order.qos.min(granted);
            let is_away = session.link.is_none();
            if is_away && qos == 0 {
                return (if is_kept { Forwarded::Kept } else { Forwarded::Nobody }, is_kept);
            }
            let retain = order.retain && as_published;
            let queued = session.push(Arc::new(Order { qos, retain, ..Order::clone(&order) }));
            if is_lasting && qos > 0 {
                pending.queue(&client, queued, !is_away);
                is_kept = true;
            }
            if let Some(link) = &session.link {
                link.wake();
            }
            (if is_away { Forwarded::Kept } else { Forwarded::Sent }, is_kept)
        });
        let durable = must_be_durable.then(|| Self::receipt(inner));
        self.write_soon(inner);
        (forwarded, durable)
    }

    /// The next command to be sent, if no more than `in_flight_max` are in flight then.
    pub fn next(self: &Arc<Self>, client: &Arc<str>, link: &Arc<Link>, in_flight_max: u16) -> Option<Next> {
        let now_us = self.clock.now_us();
        let mut guard = self.inner();
        let inner = &mut *guard;
        loop {
            let session = inner.session(client, link)?;
            let place = session.next(usize::from(in_flight_max))?;
            let queued = &mut session.orders[place];
            let seconds_left = queued.order.seconds_left(now_us);
            let next = Next { order: Arc::clone(&queued.order), id: queued.id, dup: queued.dup, seconds_left };
            queued.is_flying = true;
            let is_stale = seconds_left == Some(0);
            if is_stale || next.id == 0 {
                Self::remove(inner, client, place);
                self.write_soon(inner);
            }
            if !is_stale {
                return Some(next);
            }
        }
    }

    /// A client has acknowledged a command, or can never be sent it.
    pub fn done(self: &Arc<Self>, client: &Arc<str>, link: &Arc<Link>, id: u16) {
        let mut guard = self.inner();
        let inner = &mut *guard;
        let Some(session) = inner.session(client, link) else { return };
        // One that is not known is of an earlier session: nothing to do.
        let Some(place) = session.orders.iter().position(|queued| queued.id == id && queued.is_flying) else { return };
        Self::remove(inner, client, place);
        self.write_soon(inner);
    }

    fn remove(inner: &mut Inner, client: &Arc<str>, place: usize) {
        inner.change(client, |agent, pending| {
            let Some(session) = agent.session.as_mut() else { return };
            if let Some(queued) = session.orders.remove(place).filter(|queued| queued.id > 0 && session.is_lasting()) {
                pending.done(client, queued.id);
            }
        });
    }
}
