//! What Zigbee2MQTT says: `zigbee2mqtt/<friendly name>` with the state of a device as an object
//! (<https://www.zigbee2mqtt.io/guide/usage/mqtt_topics_and_messages.html>).
//!
//! The tag `device` is the friendly name, which may have slashes. `availability` becomes the field `available`. What is below
//! `bridge/`, and commands (`…/set`, `…/get`), are no readings: they are taken, and nothing is stored.

use model::Value;

use super::frame::Framed;
use super::json::{Fields, add, text};
use super::names::Names;
use super::time_layout::TimeLayout;
use super::{Mapped, Message, Rows};
use crate::json_lines::{Scalar, flatten};
use crate::line_protocol::quote;
use crate::time::Read;

/// The path of a message's time, if the bridge is told to send it.
const TIME: &str = "last_seen";

/// How such messages are read.
#[derive(Clone, Debug)]
pub(super) struct Zigbee2mqtt {
    pub(super) table: String,
    pub(super) time: TimeLayout,
    pub(super) tag_keys: Names,
    pub(super) fields: Fields,
}

/// How many levels stand before friendly names in the topics of `filter`.
pub(super) fn base_levels(filter: &str) -> usize {
    let levels: Vec<&str> = filter.split('/').collect();
    let rest = levels.iter().position(|level| *level == "#");
    // A wildcard in front stands for a site.
    let name = || levels.iter().skip(1).position(|level| *level == "+").map(|at| at + 1);
    rest.or_else(name).unwrap_or(levels.len() - 1)
}

impl Zigbee2mqtt {
    pub(super) fn map(
        &self,
        message: &Message<'_>,
        framed: &Framed<'_>,
        rows: &mut Rows,
        filter: Option<&str>,
    ) -> Mapped {
        let base = filter.map_or(1, base_levels);
        let behind = message.topic.splitn(base + 1, '/').nth(base).unwrap_or_default();
        let (device, last) = behind.rsplit_once('/').unwrap_or(("", behind));
        if device == "bridge" || device.starts_with("bridge/") || matches!(last, "set" | "get") && !device.is_empty() {
            return Mapped::nothing_to_store();
        }
        let added = match (device.is_empty(), last) {
            (_, "") => Err("the topic names no device; right is zigbee2mqtt/<friendly name>".into()),
            (false, "availability") => self.availability(device, message, framed, rows),
            _ => self.state(behind, message, framed, rows),
        };
        match added {
            Ok(()) => Mapped::default(),
            Err(reason) => Mapped::whole(reason),
        }
    }

    fn availability(
        &self,
        device: &str,
        message: &Message<'_>,
        framed: &Framed<'_>,
        rows: &mut Rows,
    ) -> Result<(), String> {
        let payload = text(message.payload)?.trim();
        // Older versions send the bare word.
        let values = if payload.starts_with('{') { flatten(payload)? } else { Vec::new() };
        let state = values.iter().find_map(|(path, value)| match value {
            Scalar::Text(state) if path == "state" => Some(state.as_str()),
            _ => None,
        });
        let is_available = match state.unwrap_or(payload) {
            "online" => true,
            "offline" => false,
            other => return Err(format!("{} is neither online nor offline", quote(other))),
        };
        let mut row = framed.row(&self.table, message.now_us);
        row.tags.push(("device", device));
        row.fields.push(("available", Value::Bool(is_available)));
        rows.push(row)
    }

    fn state(&self, device: &str, message: &Message<'_>, framed: &Framed<'_>, rows: &mut Rows) -> Result<(), String> {
        let values = flatten(text(message.payload)?)?;
        let mut time_us = message.now_us;
        if let Some((_, value)) = values.iter().find(|(path, _)| path == TIME) {
            let read = self.time.read_or_local(value).map_err(|reason| format!("{TIME}: {reason}"))?;
            // A time whose zone nobody knows is none.
            if let Read::Utc(us) = read {
                time_us = us;
            }
        }
        let mut row = framed.row(&self.table, time_us);
        row.tags.push(("device", device));
        let values = values.iter().filter(|(path, _)| path != TIME);
        add(row, values, &self.tag_keys, &self.fields, framed, rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_devices_begin_behind_what_the_filter_says() {
        for (filter, levels) in [
            ("zigbee2mqtt/#", 1),
            ("zigbee2mqtt/+", 1),
            ("zigbee2mqtt/lamp", 1),
            ("house/z2m/#", 2),
            ("+/zigbee2mqtt/+", 2),
            ("+/zigbee2mqtt/#", 2),
            ("zigbee2mqtt/+/availability", 1),
        ] {
            assert_eq!(base_levels(filter), levels, "{filter}");
        }
    }
}
