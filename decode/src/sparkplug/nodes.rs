//! What is remembered of edge nodes.
//!
//! Invariant: an alias names a metric only between the birth that declares it and the next doubt: a gap in the sequence, a
//! death, another birth of the node.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::payload::Metric;
use crate::line_protocol::quote;

/// Most edge nodes.
pub const NODES_MAX: usize = 10_000;
/// Most metrics of all of them with an alias.
pub const NAMES_MAX: usize = 1_000_000;
/// Most devices of one edge node.
const DEVICES_MAX: usize = 10_000;
/// Longest name that is remembered, in bytes: longer ones are no names of columns.
const NAME_BYTES_MAX: usize = model::name::NAME_BYTES_MAX;
/// A node is asked to be born again at most so often.
pub const REBIRTH_INTERVAL: Duration = Duration::from_secs(60);

/// What is to be sent to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    None,
    Rebirth,
}

/// All edge nodes that were heard of.
#[derive(Debug, Default)]
pub struct Host {
    nodes: HashMap<(Box<str>, Box<str>), State>,
    /// Aliases of all of them.
    names: usize,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the next message; `None` if its birth or a message is missing.
    next: Option<u8>,
    /// Of its birth.
    bd_seq: Option<u64>,
    names: HashMap<u64, (Box<str>, u32)>,
    devices: BTreeSet<Box<str>>,
    asked: Option<Duration>,
}

/// One edge node.
pub(super) struct Node<'a> {
    state: &'a mut State,
    /// Aliases of all nodes.
    names: &'a mut usize,
}

impl Host {
    /// The node of that name, new if it is not known; `None` if there are too many.
    pub(super) fn node(&mut self, group: &str, node: &str) -> Option<Node<'_>> {
        let key = (Box::from(group), Box::from(node));
        if self.nodes.len() >= NODES_MAX && !self.nodes.contains_key(&key) {
            return None;
        }
        Some(Node { state: self.nodes.entry(key).or_default(), names: &mut self.names })
    }

    /// Whether a node may be asked for a rebirth now; then it is.
    pub(super) fn may_ask(&mut self, group: &str, node: &str, now: Duration) -> bool {
        let Some(state) = self.nodes.get_mut(&(Box::from(group), Box::from(node))) else { return false };
        if state.asked.is_some_and(|asked| now.saturating_sub(asked) < REBIRTH_INTERVAL) {
            return false;
        }
        state.asked = Some(now);
        true
    }
}

impl Node<'_> {
    fn forget_names(&mut self) {
        *self.names -= self.state.names.len();
        self.state.names = HashMap::new();
    }

    /// NBIRTH.
    pub(super) fn is_born(&mut self, seq: Option<u8>, bd_seq: Option<u64>) -> Order {
        self.forget_names();
        self.state.devices.clear();
        self.state.bd_seq = bd_seq;
        self.state.next = seq.map(|seq| seq.wrapping_add(1));
        if seq.is_some() { Order::None } else { Order::Rebirth }
    }

    /// NDEATH; false if it belongs to an earlier life.
    pub(super) fn dies(&mut self, bd_seq: Option<u64>) -> bool {
        if self.state.next.is_some() && bd_seq.is_some() && self.state.bd_seq.is_some() && self.state.bd_seq != bd_seq {
            return false;
        }
        self.forget_names();
        self.state.next = None;
        true
    }

    /// Any message but NBIRTH and NDEATH.
    pub(super) fn counts(&mut self, seq: Option<u8>) -> Order {
        match (self.state.next, seq) {
            (Some(next), Some(seq)) if next == seq => {
                self.state.next = Some(next.wrapping_add(1));
                Order::None
            }
            _ => {
                // Nobody knows what is missing: it may be a birth, and aliases mean something else since.
                self.forget_names();
                self.state.next = None;
                Order::Rebirth
            }
        }
    }

    /// Remembers the alias of a metric in a birth.
    pub(super) fn declare(&mut self, metric: &Metric<'_>) -> Result<(), String> {
        let (Some(alias), Some(name), Some(_)) = (metric.alias, metric.name, self.state.next) else {
            return Ok(());
        };
        if name.len() > NAME_BYTES_MAX {
            // Named when it is made a column.
            return Ok(());
        }
        if *self.names >= NAMES_MAX && !self.state.names.contains_key(&alias) {
            return Err(format!(
                "more than {NAMES_MAX} metrics have aliases; that of {} is not remembered",
                quote(name)
            ));
        }
        let declared = (name.into(), metric.datatype.unwrap_or_default());
        if self.state.names.insert(alias, declared).is_none() {
            *self.names += 1;
        }
        Ok(())
    }

    /// The name and type that an alias stands for.
    pub(super) fn named(&self, alias: u64) -> Option<(&str, u32)> {
        self.state.names.get(&alias).map(|(name, datatype)| (&**name, *datatype))
    }

    pub(super) fn add_device(&mut self, device: &str) {
        if self.state.devices.len() < DEVICES_MAX {
            self.state.devices.insert(device.into());
        }
    }

    pub(super) fn remove_device(&mut self, device: &str) {
        self.state.devices.remove(device);
    }

    /// Its devices, which go with it.
    pub(super) fn take_devices(&mut self) -> BTreeSet<Box<str>> {
        std::mem::take(&mut self.state.devices)
    }
}
