//! Payloads of Sparkplug B: the fields of `sparkplug_b.proto` (Eclipse Tahu) that say values, read in place.
//!
//! Invariant: what has been read was read to its end, so a payload with a mistake is refused before anything of it is believed.

use crate::wire::{Malformed, Message, put_bytes, put_varint};

/// Most metrics in one payload or template, and most values in a payload with its templates.
pub(super) const METRICS_MAX: usize = 50_000;
/// The number of the field `metrics`, in a payload and in a template.
const METRICS: u32 = 2;

/// One message of an edge node.
#[derive(Debug)]
pub(super) struct Payload<'a> {
    /// Milliseconds.
    pub(super) timestamp: Option<u64>,
    seq: Option<u64>,
    pub(super) has_body: bool,
    message: Message<'a>,
}

/// One metric, without what says no value.
#[derive(Clone, Debug, Default)]
pub(super) struct Metric<'a> {
    pub(super) name: Option<&'a str>,
    pub(super) alias: Option<u64>,
    /// Milliseconds.
    pub(super) timestamp: Option<u64>,
    pub(super) datatype: Option<u32>,
    pub(super) is_null: bool,
    pub(super) content: Option<Content<'a>>,
}

#[derive(Clone, Debug)]
pub(super) enum Content<'a> {
    Int(u32),
    Long(u64),
    Float(f32),
    Double(f64),
    Boolean(bool),
    Text(&'a str),
    Template(Message<'a>),
    /// Bytes and data sets.
    Other,
}

/// The metrics of a template.
#[derive(Debug)]
pub(super) struct Template<'a> {
    pub(super) is_definition: bool,
    message: Message<'a>,
}

impl<'a> Payload<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Result<Payload<'a>, String> {
        let message = Message::new(bytes);
        let mut payload = Payload { timestamp: None, seq: None, has_body: false, message };
        let metrics = payload.fields().map_err(|error| format!("it is no payload of Sparkplug B: {error}"))?;
        check_count(metrics).map(|()| payload)
    }

    /// Reads everything; how many metrics there are.
    fn fields(&mut self) -> Result<usize, Malformed> {
        let (mut rest, mut metrics) = (self.message, 0);
        while let Some((number, field)) = rest.next()? {
            match number {
                1 => self.timestamp = Some(field.varint()?),
                METRICS => {
                    Metric::read(field.message()?)?;
                    metrics += 1;
                }
                3 => self.seq = Some(field.varint()?),
                5 => self.has_body = !field.bytes()?.is_empty(),
                _ => {}
            }
        }
        Ok(metrics)
    }

    /// The place in the order of an edge node's messages.
    pub(super) fn place(&self) -> Option<u8> {
        self.seq.and_then(|seq| u8::try_from(seq).ok())
    }

    pub(super) fn metrics(&self) -> impl Iterator<Item = Metric<'a>> + use<'a> {
        metrics(self.message)
    }

    pub(super) fn metric(&self, name: &str) -> Option<Metric<'a>> {
        self.metrics().find(|metric| metric.name == Some(name))
    }
}

impl<'a> Metric<'a> {
    fn read(mut message: Message<'a>) -> Result<Self, Malformed> {
        let mut metric = Metric::default();
        while let Some((number, field)) = message.next()? {
            match number {
                1 => metric.name = Some(field.text()?),
                2 => metric.alias = Some(field.varint()?),
                3 => metric.timestamp = Some(field.varint()?),
                4 => metric.datatype = Some(field.varint()? as u32),
                7 => metric.is_null = field.varint()? != 0,
                10 => metric.content = Some(Content::Int(field.varint()? as u32)),
                11 => metric.content = Some(Content::Long(field.varint()?)),
                12 => metric.content = Some(Content::Float(field.float()?)),
                13 => metric.content = Some(Content::Double(field.double()?)),
                14 => metric.content = Some(Content::Boolean(field.varint()? != 0)),
                15 => metric.content = Some(Content::Text(field.text()?)),
                16 | 17 => {
                    field.bytes()?;
                    metric.content = Some(Content::Other);
                }
                18 => metric.content = Some(Content::Template(field.message()?)),
                _ => {}
            }
        }
        Ok(metric)
    }

    pub(super) fn unsigned(&self) -> Option<u64> {
        match self.content {
            Some(Content::Int(number)) => Some(number.into()),
            Some(Content::Long(number)) => Some(number),
            _ => None,
        }
    }
}

impl<'a> Template<'a> {
    pub(super) fn read(message: Message<'a>) -> Result<Template<'a>, String> {
        let mut template = Template { is_definition: false, message };
        let metrics = template.fields().map_err(|error| format!("it is no template of Sparkplug B: {error}"))?;
        check_count(metrics).map(|()| template)
    }

    fn fields(&mut self) -> Result<usize, Malformed> {
        let (mut rest, mut metrics) = (self.message, 0);
        while let Some((number, field)) = rest.next()? {
            match number {
                METRICS => {
                    Metric::read(field.message()?)?;
                    metrics += 1;
                }
                5 => self.is_definition = field.varint()? != 0,
                _ => {}
            }
        }
        Ok(metrics)
    }

    pub(super) fn metrics(&self) -> impl Iterator<Item = Metric<'a>> + use<'a> {
        metrics(self.message)
    }
}

/// The metrics of what has been read to its end once, without a mistake.
fn metrics<'a>(mut message: Message<'a>) -> impl Iterator<Item = Metric<'a>> {
    std::iter::from_fn(move || {
        while let Some((number, field)) = message.next().ok()? {
            if number == METRICS {
                return Metric::read(field.message().ok()?).ok();
            }
        }
        None
    })
}

/// The payload that asks an edge node to be born again.
pub(super) fn rebirth(now_us: i64) -> Vec<u8> {
    let now_ms = u64::try_from(now_us / 1_000).unwrap_or_default();
    let (mut metric, mut payload) = (Vec::new(), Vec::new());
    put_bytes(&mut metric, 1, b"Node Control/Rebirth");
    put_varint(&mut metric, 3, now_ms);
    put_varint(&mut metric, 4, 11);
    put_varint(&mut metric, 14, 1);
    put_varint(&mut payload, 1, now_ms);
    put_bytes(&mut payload, METRICS, &metric);
    payload
}

fn check_count(metrics: usize) -> Result<(), String> {
    if metrics > METRICS_MAX {
        return Err(format!("it has {metrics} metrics; at most {METRICS_MAX} are allowed"));
    }
    Ok(())
}
