//! What devices with the firmware Tasmota say: `tele/<device>/SENSOR`, `STATE`, `LWT` and the like
//! (<https://tasmota.github.io/docs/MQTT/>).
//!
//! The last level of the topic says which table: `tasmota_sensor`, `tasmota_state` … The tag `device` is the topic without
//! that level and without the prefix (`tele`, `stat`), wherever in the topic that stands. Of SENSOR, each object is a reading
//! with the tag `sensor`, and what stands beside them one without it.

use model::Value;

use super::frame::Framed;
use super::json::{Fields, add, text};
use super::names::Names;
use super::time_layout::TimeLayout;
use super::{Mapped, Message, Rows};
use crate::json_lines::{Scalar, flatten};
use crate::time::Read;

/// The path of a message's time.
const TIME: &str = "Time";

/// How such messages are read.
#[derive(Clone, Debug)]
pub(super) struct Tasmota {
    /// What tables' names begin with.
    pub(super) table: String,
    pub(super) time: TimeLayout,
    pub(super) tag_keys: Names,
    pub(super) fields: Fields,
}

impl Tasmota {
    pub(super) fn map(&self, message: &Message<'_>, framed: &Framed<'_>, rows: &mut Rows) -> Mapped {
        let mut levels: Vec<&str> = message.topic.split('/').collect();
        let kind = levels.pop().unwrap_or_default().to_ascii_lowercase();
        if let Some(prefix) = levels.iter().position(|level| matches!(*level, "tele" | "stat")) {
            levels.remove(prefix);
        }
        let device = levels.join("/");
        if device.is_empty() {
            return Mapped::whole("the topic names no device; right is tele/<device>/SENSOR");
        }
        let table = format!("{}_{kind}", self.table);
        let payload = match text(message.payload) {
            Ok(payload) => payload.trim(),
            Err(reason) => return Mapped::whole(reason),
        };
        let mut mapped = Mapped::default();
        if kind == "lwt" {
            let is_online = match payload {
                "Online" => true,
                "Offline" => false,
                _ => return Mapped::whole("it is neither Online nor Offline"),
            };
            let mut row = framed.row(&table, message.now_us);
            row.tags.push(("device", &device));
            row.fields.push(("online", Value::Bool(is_online)));
            if let Err(reason) = rows.push(row) {
                mapped.refuse(None, reason);
            }
            return mapped;
        }
        let values = match flatten(payload) {
            Ok(values) => values,
            Err(reason) => return Mapped::whole(reason),
        };
        let time_us = match self.time_of(&values, message.now_us) {
            Ok(time_us) => time_us,
            Err(reason) => return Mapped::whole(reason),
        };
        let values: Vec<(String, Scalar)> = values.into_iter().filter(|(path, _)| path != TIME).collect();
        let groups = if kind == "sensor" { by_sensor(values) } else { vec![("".into(), values)] };
        if groups.is_empty() {
            return Mapped::whole("there is no field in it");
        }
        let is_one = groups.len() == 1;
        for (sensor, values) in &groups {
            let mut row = framed.row(&table, time_us);
            row.tags.push(("device", &device));
            row.tags.push(("sensor", sensor));
            if let Err(reason) = add(row, values.iter(), &self.tag_keys, &self.fields, framed, rows) {
                match is_one {
                    true => mapped.refuse(None, reason),
                    false => mapped.refuse(Some(shown(sensor, values).as_bytes()), format!("{sensor}: {reason}")),
                }
            }
        }
        mapped
    }

    /// The time of the message. Its text says no zone as a rule: then, if the rule does not know it either, it is that of
    /// receipt.
    fn time_of(&self, values: &[(String, Scalar)], now_us: i64) -> Result<i64, String> {
        match values.iter().find(|(path, _)| path == TIME) {
            None => Ok(now_us),
            Some((_, value)) => match self.time.read_or_local(value).map_err(|reason| format!("{TIME}: {reason}"))? {
                Read::Utc(us) => Ok(us),
                Read::Local(_) => Ok(now_us),
            },
        }
    }
}

/// Values by the object in which they stand, without its name; those in none under an empty one.
fn by_sensor(values: Vec<(String, Scalar)>) -> Vec<(String, Vec<(String, Scalar)>)> {
    let mut groups: Vec<(String, Vec<(String, Scalar)>)> = Vec::new();
    for (path, value) in values {
        let (sensor, name) = path.split_once('.').unwrap_or(("", &path));
        // Those of an object stand together, but what stands in none may stand between them.
        let found =
            groups.iter().rposition(|(of, _)| of == sensor).filter(|at| sensor.is_empty() || at + 2 >= groups.len());
        match found {
            Some(at) => groups[at].1.push((name.to_owned(), value)),
            None => groups.push((sensor.to_owned(), vec![(name.to_owned(), value)])),
        }
    }
    groups
}

/// A group as JSON.
fn shown(sensor: &str, values: &[(String, Scalar)]) -> String {
    let fields: serde_json::Map<String, serde_json::Value> = values
        .iter()
        .map(|(name, value)| {
            let value = match value {
                Scalar::Text(text) => text.as_str().into(),
                Scalar::I64(number) => (*number).into(),
                Scalar::U64(number) => (*number).into(),
                Scalar::F64(number) => (*number).into(),
                Scalar::Bool(truth) => (*truth).into(),
            };
            (name.clone(), value)
        })
        .collect();
    if sensor.is_empty() {
        return serde_json::Value::Object(fields).to_string();
    }
    serde_json::json!({ sensor: fields }).to_string()
}
