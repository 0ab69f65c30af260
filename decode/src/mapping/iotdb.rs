//! The JSON that Apache IoTDB takes by MQTT: `{"device":"root.sg.d1","timestamp":1,"measurements":["a"],"values":[0.5]}`,
//! with `timestamps` and rows of values for several readings, or an array of those.
//!
//! The device's last node becomes the tag `device`, what stands before it the table.

use serde::Deserialize;

use super::frame::Framed;
use super::json::{Fields, add, text};
use super::names::Names;
use super::time_layout::TimeLayout;
use super::{Mapped, Message, Rows, raw_json};
use crate::json_lines::Scalar;

/// Longest path of a device, in bytes.
const DEVICE_BYTES_MAX: usize = 1024;

/// How such messages are read.
#[derive(Clone, Debug)]
pub(super) struct Iotdb {
    pub(super) time: TimeLayout,
    pub(super) fields: Fields,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Element {
    device: String,
    timestamp: Option<serde_json::Value>,
    timestamps: Option<Vec<serde_json::Value>>,
    measurements: Vec<String>,
    values: Vec<serde_json::Value>,
}

impl Iotdb {
    pub(super) fn map(&self, message: &Message<'_>, framed: &Framed<'_>, rows: &mut Rows) -> Mapped {
        let elements = match text(message.payload).and_then(raw_json::elements) {
            Ok(elements) => elements,
            Err(reason) => return Mapped::whole(reason),
        };
        if elements.is_empty() {
            return Mapped::whole("the array is empty");
        }
        let mut mapped = Mapped::default();
        for element in elements {
            self.element(element, framed, rows, &mut mapped);
        }
        mapped
    }

    fn element(&self, raw: &str, framed: &Framed<'_>, rows: &mut Rows, mapped: &mut Mapped) {
        let element: Element = match serde_json::from_str(raw) {
            Ok(element) => element,
            Err(error) => return mapped.refuse(Some(raw.as_bytes()), format!("not of the form of IoTDB: {error}")),
        };
        let readings: Vec<(&serde_json::Value, &[serde_json::Value])> = match (&element.timestamp, &element.timestamps)
        {
            (Some(time), None) => vec![(time, &element.values)],
            (None, Some(times)) if times.len() == element.values.len() => {
                let values = element.values.iter().map(|row| row.as_array().map_or(&[][..], Vec::as_slice));
                times.iter().zip(values).collect()
            }
            (None, Some(times)) => {
                let reason =
                    format!("there are {} timestamps and {} rows of values", times.len(), element.values.len());
                return mapped.refuse(Some(raw.as_bytes()), reason);
            }
            _ => return mapped.refuse(Some(raw.as_bytes()), "right is either timestamp or timestamps"),
        };
        if element.device.len() > DEVICE_BYTES_MAX {
            let reason =
                format!("the device has {} bytes; at most {DEVICE_BYTES_MAX} are allowed", element.device.len());
            return mapped.refuse(Some(raw.as_bytes()), reason);
        }
        let is_one = element.timestamp.is_some();
        if readings.is_empty() {
            return mapped.refuse(Some(raw.as_bytes()), "the list of timestamps is empty");
        }
        // A row that is set aside names device and measurements again; beyond it rows are counted, and all of the
        // payload is set aside.
        let mut bytes_left = 1024 + 2 * raw.len();
        for (number, (time, values)) in readings.into_iter().enumerate() {
            let Err(reason) = self.reading(&element, time, values, framed, rows) else { continue };
            if is_one {
                mapped.refuse(Some(raw.as_bytes()), reason);
                continue;
            }
            if bytes_left == 0 {
                mapped.refused_total += 1;
                continue;
            }
            let part = serde_json::json!({
                "device": element.device,
                "timestamp": time,
                "measurements": element.measurements,
                "values": values,
            });
            let part = part.to_string();
            bytes_left = bytes_left.saturating_sub(part.len());
            mapped.refuse(Some(part.as_bytes()), format!("row {}: {reason}", number + 1));
        }
    }

    fn reading(
        &self,
        element: &Element,
        time: &serde_json::Value,
        values: &[serde_json::Value],
        framed: &Framed<'_>,
        rows: &mut Rows,
    ) -> Result<(), String> {
        if values.len() != element.measurements.len() {
            return Err(format!("there are {} measurements and {} values", element.measurements.len(), values.len()));
        }
        let time = scalar(time).ok_or("there is no timestamp")?;
        let (table, device) = match element.device.rsplit_once('.') {
            // The rule names one table for all: then the whole path tells devices apart.
            Some(_) if framed.table.is_some() => ("", element.device.as_str()),
            Some((group, device)) => (group, device),
            None => ("iotdb", element.device.as_str()),
        };
        let present = element.measurements.iter().zip(values);
        let values: Vec<(String, Scalar)> =
            present.filter_map(|(name, value)| Some((name.clone(), scalar(value)?))).collect();
        let mut row = framed.row(table, self.time.read(&time)?);
        row.tags.push(("device", device));
        add(row, values.iter(), &Names::default(), &self.fields, framed, rows)
    }
}

/// A value that is not null.
fn scalar(value: &serde_json::Value) -> Option<Scalar> {
    use serde_json::Value;
    Some(match value {
        Value::Null => return None,
        Value::Bool(truth) => Scalar::Bool(*truth),
        Value::String(text) => Scalar::Text(text.clone()),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), ..) => Scalar::I64(number),
            (None, Some(number), _) => Scalar::U64(number),
            (None, None, Some(number)) => Scalar::F64(number),
            (None, None, None) => Scalar::Text(number.to_string()),
        },
        other @ (Value::Array(_) | Value::Object(_)) => Scalar::Text(other.to_string()),
    })
}
