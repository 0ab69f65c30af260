//! Sparkplug B: what edge nodes say, with what their births said before
//! (Eclipse Sparkplug specification 3.0, chapters 4 to 6; `sparkplug_b.proto` of Eclipse Tahu).
//!
//! Owns:     the payloads, and for each edge node its births, aliases, devices and sequence numbers.
//! Does not: send anything (it says what is to be sent), or ask the time.
//!
//! A message of an edge node becomes one row for each time of its metrics. Why tables and tags are as they are, and what
//! happens when the state is lost: `docs/adr/0023-sparkplug.md`.
//!
//! Invariants
//!  1. A value gets a name by an alias only if no birth can be missing since that alias was declared: neither a gap in the
//!     sequence nor a start of this host lies in between. Else it is refused, and a rebirth is asked for.
//!  2. A rebirth of a node is asked for at most once in [`REBIRTH_INTERVAL`].
//!  3. What is kept is bounded: [`NODES_MAX`] edge nodes, [`NAMES_MAX`] metrics in all (P14).

mod nodes;
mod payload;
mod state;
mod values;

use std::borrow::Cow;
use std::time::Duration;

use model::Value;
use model::name::{check_column_name, check_name};

use crate::line_protocol::quote;
use crate::mapping::{Framed, Mapped, Message, Rows};
use nodes::{Node, Order};
use payload::{METRICS_MAX, Payload};
use values::value;

pub use nodes::{Host, NAMES_MAX, NODES_MAX, REBIRTH_INTERVAL};
pub use state::{HostState, state_topic};

/// What topics begin with.
const NAMESPACE: &str = "spBv1.0";
/// The metric that numbers the lives of an edge node's connection.
const BD_SEQ: &str = "bdSeq";
/// Metrics that are commands, and no values of the machine.
const CONTROL: [&str; 2] = ["Node Control/", "Device Control/"];

/// How rows are named.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sparkplug {
    /// One table for all groups; else each group has its own.
    pub(crate) table: Option<String>,
}

/// A message for an edge node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Its topic.
    pub topic: String,
    /// What it says.
    pub payload: Vec<u8>,
}

/// What became of a message.
#[derive(Debug, Default)]
pub struct Heard {
    /// Rows and refusals.
    pub mapped: Mapped,
    /// To be sent to the edge node.
    pub command: Option<Command>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Birth,
    Death,
    Data,
    Command,
}

/// A topic of the namespace.
#[derive(Clone, Copy, Debug)]
struct Topic<'a> {
    group: &'a str,
    kind: Kind,
    node: &'a str,
    device: Option<&'a str>,
}

impl<'a> Topic<'a> {
    /// Reads a topic; `None` for the state of a host.
    fn read(topic: &'a str) -> Result<Option<Self>, String> {
        let right = "right is spBv1.0/<group>/<NBIRTH, NDATA …>/<edge node>, and the device for DBIRTH, DDATA …";
        let wrong = || format!("{} is no topic of Sparkplug B; {right}", quote(topic));
        let mut levels = topic.split('/');
        if levels.next() != Some(NAMESPACE) {
            return Err(wrong());
        }
        let (Some(group), Some(word)) = (levels.next(), levels.next()) else { return Err(wrong()) };
        if group == "STATE" {
            return Ok(None);
        }
        let (node, device) = (levels.next().ok_or_else(wrong)?, levels.next());
        let (of_device, kind) = match word {
            "NBIRTH" => (false, Kind::Birth),
            "NDEATH" => (false, Kind::Death),
            "NDATA" => (false, Kind::Data),
            "NCMD" => (false, Kind::Command),
            "DBIRTH" => (true, Kind::Birth),
            "DDEATH" => (true, Kind::Death),
            "DDATA" => (true, Kind::Data),
            "DCMD" => (true, Kind::Command),
            _ => return Err(wrong()),
        };
        if device.is_some() != of_device || levels.next().is_some() {
            return Err(wrong());
        }
        for (what, name) in [("group", group), ("edge node", node), ("device", device.unwrap_or("-"))] {
            check_name(what, name).map_err(|error| error.to_string())?;
        }
        Ok(Some(Topic { group, kind, node, device }))
    }
}

impl Sparkplug {
    /// Adds what a message says to `rows`, and to what `host` knows. `monotonic` is a time that never goes back.
    pub(crate) fn hear(
        &self,
        host: &mut Host,
        message: &Message<'_>,
        monotonic: Duration,
        framed: &Framed<'_>,
        rows: &mut Rows,
    ) -> Heard {
        let topic = match Topic::read(message.topic) {
            Ok(Some(topic)) if topic.kind != Kind::Command => topic,
            Ok(_) => return Heard { mapped: Mapped::nothing_to_store(), command: None },
            Err(reason) => return Heard { mapped: Mapped::whole(reason), command: None },
        };
        let payload = match Payload::read(message.payload) {
            Ok(payload) => payload,
            Err(reason) => return Heard { mapped: Mapped::whole(reason), command: None },
        };
        let mut work = Work { rule: self, topic, message, framed, rows, refused: Vec::new(), refused_total: 0 };
        let order = match host.node(topic.group, topic.node) {
            Some(mut node) => work.message(&mut node, &payload),
            None => {
                work.refuse(format!("more than {NODES_MAX} edge nodes are known; it is not remembered"));
                work.data(None, &payload);
                Order::None
            }
        };
        let command = (order == Order::Rebirth && host.may_ask(topic.group, topic.node, monotonic)).then(|| Command {
            topic: format!("{NAMESPACE}/{}/NCMD/{}", topic.group, topic.node),
            payload: payload::rebirth(message.now_us),
        });
        Heard { mapped: work.mapped(), command }
    }
}

/// One message on its way.
struct Work<'a, 'r> {
    rule: &'a Sparkplug,
    topic: Topic<'a>,
    message: &'a Message<'a>,
    framed: &'a Framed<'a>,
    rows: &'r mut Rows,
    /// The first reasons.
    refused: Vec<String>,
    refused_total: u64,
}

/// Reasons that are told of one message.
const REASONS_MAX: usize = 3;

impl Work<'_, '_> {
    fn refuse(&mut self, reason: String) {
        self.refused_total += 1;
        if self.refused.len() < REASONS_MAX {
            self.refused.push(reason);
        }
    }

    /// What is refused is told once, for the payload is not text that could be taken apart.
    fn mapped(self) -> Mapped {
        let unnamed = self.refused_total - self.refused.len() as u64;
        let more = if unnamed > 0 { format!("; {unnamed} more") } else { String::new() };
        match self.refused.is_empty() {
            true => Mapped::default(),
            false => Mapped::whole(format!("{}{more}", self.refused.join("; "))),
        }
    }

    fn message(&mut self, node: &mut Node<'_>, payload: &Payload<'_>) -> Order {
        let bd_seq = payload.metric(BD_SEQ).and_then(|metric| metric.unsigned());
        let order = match (self.topic.kind, self.topic.device) {
            (Kind::Death, None) => {
                if !node.dies(bd_seq) {
                    // Of an earlier connection: the node is alive.
                    return Order::None;
                }
                // Its time is that at which the will was left.
                for device in node.take_devices() {
                    self.state(Some(&device), false, None, self.message.now_us);
                }
                self.state(None, false, bd_seq, self.message.now_us);
                return Order::None;
            }
            (Kind::Birth, None) => node.is_born(payload.place(), bd_seq),
            _ => node.counts(payload.place()),
        };
        let time_us = self.time_of(payload.timestamp);
        match (self.topic.kind, self.topic.device) {
            (Kind::Death, Some(device)) => {
                node.remove_device(device);
                self.state(Some(device), false, None, time_us);
                return order;
            }
            (Kind::Birth, device) => {
                if let Some(device) = device {
                    node.add_device(device);
                }
                for metric in payload.metrics() {
                    if let Err(reason) = node.declare(&metric) {
                        self.refuse(reason);
                    }
                }
                self.state(device, true, bd_seq, time_us);
            }
            _ => {}
        }
        if self.data(Some(node), payload) { order } else { Order::Rebirth }
    }

    /// Adds the metrics; false if one has an alias that nobody can name.
    fn data(&mut self, node: Option<&Node<'_>>, payload: &Payload<'_>) -> bool {
        let mut all: Vec<(i64, Cow<'_, str>, Value<'_>)> = Vec::new();
        let mut unnamed = 0_u64;
        for metric in payload.metrics() {
            let known = metric.alias.and_then(|alias| node?.named(alias));
            let Some(name) = metric.name.filter(|name| !name.is_empty()).or(known.map(|known| known.0)) else {
                unnamed += 1;
                continue;
            };
            if name == BD_SEQ || CONTROL.iter().any(|control| name.starts_with(control)) {
                continue;
            }
            let datatype = metric.datatype.filter(|of| *of != 0).or(known.map(|known| known.1)).unwrap_or_default();
            let time_us = self.time_of(metric.timestamp.or(payload.timestamp));
            let given = value(name, &metric, datatype, &mut |name, value| {
                if all.len() == METRICS_MAX {
                    return Err(format!("there are more than {METRICS_MAX} values, those in templates among them"));
                }
                match check_column_name("metric", &name) {
                    Ok(()) => all.push((time_us, name, value)),
                    Err(error) => self.refuse(error.to_string()),
                }
                Ok(())
            });
            if let Err(reason) = given {
                self.refuse(format!("metric {}: {reason}", quote(name)));
            }
        }
        if unnamed > 0 {
            self.refuse(format!("{unnamed} metrics have aliases that no birth since declares, and no names"));
        }
        if payload.has_body {
            self.refuse("it has a body, which is not metrics".into());
        }
        let (table, group) = match &self.rule.table {
            Some(table) => (table.as_str(), self.topic.group),
            None => (self.topic.group, ""),
        };
        // Of one time the order stays: the last of a name wins.
        all.sort_by_key(|(time_us, ..)| *time_us);
        for fields in all.chunk_by(|(one, ..), (other, ..)| one == other) {
            let mut row = self.framed.row(table, fields[0].0);
            row.tags.push(("group_id", group));
            row.tags.push(("edge_node_id", self.topic.node));
            row.tags.push(("device_id", self.topic.device.unwrap_or_default()));
            row.fields.extend(fields.iter().map(|(_, name, value)| (&**name, *value)));
            if let Err(reason) = self.rows.push(row) {
                self.refuse(reason);
            }
        }
        unnamed == 0
    }

    /// A row of the table of who is online.
    fn state(&mut self, device: Option<&str>, online: bool, bd_seq: Option<u64>, time_us: i64) {
        let table = format!("{}_state", self.rule.table.as_deref().unwrap_or("sparkplug"));
        let mut row = self.framed.row(&table, time_us);
        row.tags.push(("group_id", self.topic.group));
        row.tags.push(("edge_node_id", self.topic.node));
        row.tags.push(("device_id", device.unwrap_or_default()));
        row.fields.push(("online", Value::Bool(online)));
        if let Some(number) = bd_seq.and_then(|number| i64::try_from(number).ok()) {
            row.fields.push(("bd_seq", Value::I64(number)));
        }
        if let Err(reason) = self.rows.push(row) {
            self.refuse(reason);
        }
    }

    /// Microseconds of milliseconds; without them the time of receipt.
    fn time_of(&self, timestamp_ms: Option<u64>) -> i64 {
        let us = timestamp_ms.and_then(|ms| i64::try_from(ms).ok()?.checked_mul(1_000));
        us.unwrap_or(self.message.now_us)
    }
}
