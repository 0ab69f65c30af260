//! Payloads of Sparkplug B: the fields of `sparkplug_b.proto` (Eclipse Tahu) that say values.
//!
//! Data sets and templates stay bytes until they are wanted, and the metrics of a message are counted before they are
//! read: a metric of two bytes becomes a struct of a hundred (P14).

use prost::Message as _;

/// Most metrics in one payload or template.
const METRICS_MAX: usize = 50_000;
/// The number of the field `metrics`, in a payload and in a template.
const METRICS: u32 = 2;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Payload {
    #[prost(uint64, optional, tag = "1")]
    pub(super) timestamp: Option<u64>,
    #[prost(message, repeated, tag = "2")]
    pub(super) metrics: Vec<Metric>,
    #[prost(uint64, optional, tag = "3")]
    seq: Option<u64>,
    #[prost(bytes = "vec", optional, tag = "5")]
    body: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Metric {
    #[prost(string, optional, tag = "1")]
    pub(super) name: Option<String>,
    #[prost(uint64, optional, tag = "2")]
    pub(super) alias: Option<u64>,
    /// Milliseconds.
    #[prost(uint64, optional, tag = "3")]
    pub(super) timestamp: Option<u64>,
    #[prost(uint32, optional, tag = "4")]
    pub(super) datatype: Option<u32>,
    #[prost(bool, optional, tag = "7")]
    pub(super) is_null: Option<bool>,
    #[prost(oneof = "Content", tags = "10, 11, 12, 13, 14, 15, 16, 17, 18")]
    pub(super) content: Option<Content>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Content {
    #[prost(uint32, tag = "10")]
    Int(u32),
    #[prost(uint64, tag = "11")]
    Long(u64),
    #[prost(float, tag = "12")]
    Float(f32),
    #[prost(double, tag = "13")]
    Double(f64),
    #[prost(bool, tag = "14")]
    Boolean(bool),
    #[prost(string, tag = "15")]
    Text(String),
    #[prost(bytes = "vec", tag = "16")]
    Bytes(Vec<u8>),
    #[prost(bytes = "vec", tag = "17")]
    DataSet(Vec<u8>),
    #[prost(bytes = "vec", tag = "18")]
    Template(Vec<u8>),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Template {
    #[prost(message, repeated, tag = "2")]
    pub(super) metrics: Vec<Metric>,
    #[prost(bool, optional, tag = "5")]
    pub(super) is_definition: Option<bool>,
}

impl Payload {
    pub(super) fn read(bytes: &[u8]) -> Result<Payload, String> {
        check_count(bytes)?;
        Payload::decode(bytes).map_err(|error| format!("it is no payload of Sparkplug B: {error}"))
    }

    /// The place in the order of an edge node's messages.
    pub(super) fn place(&self) -> Option<u8> {
        self.seq.and_then(|seq| u8::try_from(seq).ok())
    }

    pub(super) fn metric(&self, name: &str) -> Option<&Metric> {
        self.metrics.iter().find(|metric| metric.name.as_deref() == Some(name))
    }

    pub(super) fn has_body(&self) -> bool {
        self.body.as_ref().is_some_and(|body| !body.is_empty())
    }
}

impl Metric {
    pub(super) fn unsigned(&self) -> Option<u64> {
        match self.content {
            Some(Content::Int(number)) => Some(number.into()),
            Some(Content::Long(number)) => Some(number),
            _ => None,
        }
    }
}

impl Template {
    pub(super) fn read(bytes: &[u8]) -> Result<Template, String> {
        check_count(bytes)?;
        Template::decode(bytes).map_err(|error| format!("it is no template of Sparkplug B: {error}"))
    }
}

/// The payload that asks an edge node to be born again.
pub(super) fn rebirth(now_us: i64) -> Vec<u8> {
    let now_ms = u64::try_from(now_us / 1_000).unwrap_or_default();
    let metric = Metric {
        name: Some("Node Control/Rebirth".into()),
        timestamp: Some(now_ms),
        datatype: Some(11),
        content: Some(Content::Boolean(true)),
        ..Metric::default()
    };
    Payload { timestamp: Some(now_ms), metrics: vec![metric], ..Payload::default() }.encode_to_vec()
}

/// Refuses more metrics than [`METRICS_MAX`].
fn check_count(bytes: &[u8]) -> Result<(), String> {
    let (mut rest, mut count) = (bytes, 0);
    while !rest.is_empty() {
        // What is malformed is named when it is read in earnest.
        let Ok((field, wire_type)) = prost::encoding::decode_key(&mut rest) else { return Ok(()) };
        count += usize::from(field == METRICS);
        let context = prost::encoding::DecodeContext::default();
        if prost::encoding::skip_field(wire_type, field, &mut rest, context).is_err() {
            return Ok(());
        }
    }
    if count > METRICS_MAX { Err(format!("it has {count} metrics; at most {METRICS_MAX} are allowed")) } else { Ok(()) }
}
