//! What comes in: bytes, within their shares of memory, up to whole packets.
//!
//! Owns:     how much is read at a time, and what is kept of a packet whose end has not come.
//! Does not: know what packets say (`packets`).
//!
//! Invariants
//!  1. Nothing is read without a share of memory for it.
//!  2. A packet whose end does not come keeps nobody waiting but those with large packets of their own.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::ending::Ending;
use super::{Connection, LARGE_WAIT_MAX, READ_BYTES, SCRATCH};
use crate::metrics::Metrics;
use crate::mqtt::read;

/// A part of a packet up to this size is held without a share of memory.
const PARTIAL_BYTES_FREE: usize = READ_BYTES.0;

impl Connection {
    pub(super) fn read(&mut self) -> Result<(), Ending> {
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
            self.link.shown.bytes.fetch_add(len as u64, Ordering::Relaxed);
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
    pub(super) fn take_partial(&mut self) -> Result<(), Ending> {
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
}
