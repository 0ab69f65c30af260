//! OTLP's JSON as the same messages in Protocol Buffers, so that there is one reader.
//!
//! Owns:     which key is which field, and how JSON writes its values: 64-bit numbers as texts too, bytes as base64, NaN and
//!           infinities as words.
//! Does not: know what the fields mean. Keys that are not known are passed over, as the protocol wants.
//!
//! What is made is no longer than a few times the text, however it is nested (P14).

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// How a field is written.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Bytes,
    Bool,
    /// Numbers of any size and sign, as their 64 bits.
    Varint,
    Zigzag,
    Fixed64,
    Double,
    Message(&'static Schema),
}

struct Entry {
    key: &'static str,
    number: u32,
    kind: Kind,
    is_list: bool,
}

struct Schema(&'static [Entry]);

const fn one(key: &'static str, number: u32, kind: Kind) -> Entry {
    Entry { key, number, kind, is_list: false }
}

const fn list(key: &'static str, number: u32, kind: Kind) -> Entry {
    Entry { key, number, kind, is_list: true }
}

static REQUEST: Schema = Schema(&[list("resourceMetrics", 1, Kind::Message(&RESOURCE_METRICS))]);
static RESOURCE_METRICS: Schema =
    Schema(&[one("resource", 1, Kind::Message(&RESOURCE)), list("scopeMetrics", 2, Kind::Message(&SCOPE_METRICS))]);
static RESOURCE: Schema = Schema(&[list("attributes", 1, Kind::Message(&KEY_VALUE))]);
static SCOPE_METRICS: Schema =
    Schema(&[one("scope", 1, Kind::Message(&SCOPE)), list("metrics", 2, Kind::Message(&METRIC))]);
static SCOPE: Schema = Schema(&[
    one("name", 1, Kind::Text),
    one("version", 2, Kind::Text),
    list("attributes", 3, Kind::Message(&KEY_VALUE)),
]);
static METRIC: Schema = Schema(&[
    one("name", 1, Kind::Text),
    one("unit", 3, Kind::Text),
    one("gauge", 5, Kind::Message(&NUMBERS)),
    one("sum", 7, Kind::Message(&NUMBERS)),
    one("histogram", 9, Kind::Message(&HISTOGRAMS)),
    one("exponentialHistogram", 10, Kind::Message(&EXPONENTIALS)),
    one("summary", 11, Kind::Message(&SUMMARIES)),
]);
static NUMBERS: Schema =
    Schema(&[list("dataPoints", 1, Kind::Message(&NUMBER)), one("aggregationTemporality", 2, Kind::Varint)]);
static HISTOGRAMS: Schema =
    Schema(&[list("dataPoints", 1, Kind::Message(&HISTOGRAM)), one("aggregationTemporality", 2, Kind::Varint)]);
static EXPONENTIALS: Schema =
    Schema(&[list("dataPoints", 1, Kind::Message(&EXPONENTIAL)), one("aggregationTemporality", 2, Kind::Varint)]);
static SUMMARIES: Schema = Schema(&[list("dataPoints", 1, Kind::Message(&SUMMARY))]);
static NUMBER: Schema = Schema(&[
    one("startTimeUnixNano", 2, Kind::Fixed64),
    one("timeUnixNano", 3, Kind::Fixed64),
    one("asDouble", 4, Kind::Double),
    list("exemplars", 5, Kind::Message(&EXEMPLAR)),
    one("asInt", 6, Kind::Fixed64),
    list("attributes", 7, Kind::Message(&KEY_VALUE)),
    one("flags", 8, Kind::Varint),
]);
static HISTOGRAM: Schema = Schema(&[
    one("startTimeUnixNano", 2, Kind::Fixed64),
    one("timeUnixNano", 3, Kind::Fixed64),
    one("count", 4, Kind::Fixed64),
    one("sum", 5, Kind::Double),
    list("bucketCounts", 6, Kind::Fixed64),
    list("explicitBounds", 7, Kind::Double),
    list("exemplars", 8, Kind::Message(&EXEMPLAR)),
    list("attributes", 9, Kind::Message(&KEY_VALUE)),
    one("flags", 10, Kind::Varint),
    one("min", 11, Kind::Double),
    one("max", 12, Kind::Double),
]);
static EXPONENTIAL: Schema = Schema(&[
    list("attributes", 1, Kind::Message(&KEY_VALUE)),
    one("startTimeUnixNano", 2, Kind::Fixed64),
    one("timeUnixNano", 3, Kind::Fixed64),
    one("count", 4, Kind::Fixed64),
    one("sum", 5, Kind::Double),
    one("scale", 6, Kind::Zigzag),
    one("zeroCount", 7, Kind::Fixed64),
    one("positive", 8, Kind::Message(&SIDE)),
    one("negative", 9, Kind::Message(&SIDE)),
    one("flags", 10, Kind::Varint),
    list("exemplars", 11, Kind::Message(&EXEMPLAR)),
    one("min", 12, Kind::Double),
    one("max", 13, Kind::Double),
    one("zeroThreshold", 14, Kind::Double),
]);
static SIDE: Schema = Schema(&[one("offset", 1, Kind::Zigzag), list("bucketCounts", 2, Kind::Varint)]);
static SUMMARY: Schema = Schema(&[
    one("startTimeUnixNano", 2, Kind::Fixed64),
    one("timeUnixNano", 3, Kind::Fixed64),
    one("count", 4, Kind::Fixed64),
    one("sum", 5, Kind::Double),
    list("quantileValues", 6, Kind::Message(&QUANTILE)),
    list("attributes", 7, Kind::Message(&KEY_VALUE)),
    one("flags", 8, Kind::Varint),
]);
static QUANTILE: Schema = Schema(&[one("quantile", 1, Kind::Double), one("value", 2, Kind::Double)]);
// Only counted.
static EXEMPLAR: Schema = Schema(&[]);
static KEY_VALUE: Schema = Schema(&[one("key", 1, Kind::Text), one("value", 2, Kind::Message(&ANY_VALUE))]);
static ANY_VALUE: Schema = Schema(&[
    one("stringValue", 1, Kind::Text),
    one("boolValue", 2, Kind::Bool),
    one("intValue", 3, Kind::Varint),
    one("doubleValue", 4, Kind::Double),
    one("arrayValue", 5, Kind::Message(&ARRAY)),
    one("kvlistValue", 6, Kind::Message(&MAP)),
    one("bytesValue", 7, Kind::Bytes),
]);
static ARRAY: Schema = Schema(&[list("values", 1, Kind::Message(&ANY_VALUE))]);
static MAP: Schema = Schema(&[list("values", 1, Kind::Message(&KEY_VALUE))]);

/// An `ExportMetricsServiceRequest` in JSON as the same in Protocol Buffers, for [`super::decode`].
///
/// # Errors
/// Where the text is not such a message, and why.
pub fn protobuf_of_json(body: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(body.len() / 2);
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = Fields { schema: &REQUEST, out: &mut out }.deserialize(&mut json).and_then(|()| json.end());
    read.map(|()| out).map_err(|e| e.to_string())
}

/// A message: its fields are appended.
struct Fields<'o> {
    schema: &'static Schema,
    out: &'o mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Fields<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match self.schema.0.iter().find(|entry| entry.key == key) {
                None => drop(map.next_value::<IgnoredAny>()?),
                Some(entry) => map.next_value_seed(One { entry, is_item: false, out: self.out })?,
            }
        }
        Ok(())
    }
}

/// A field's value: it is appended with its number.
struct One<'o> {
    entry: &'static Entry,
    /// Of a list that is already open.
    is_item: bool,
    out: &'o mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for One<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl One<'_> {
    fn tag(&mut self, wire_type: u32) {
        varint(u64::from(self.entry.number << 3 | wire_type), self.out);
    }

    /// A number without fraction: its bits, whatever its sign.
    fn whole<E: Error>(mut self, number: i128) -> Result<(), E> {
        let signed = i64::try_from(number);
        let bits = signed.map(i64::cast_unsigned).or_else(|_| u64::try_from(number));
        let bits = bits.map_err(|_| self.wrong(&format!("the number {number} has more than 64 bits")))?;
        match self.entry.kind {
            Kind::Varint => {
                self.tag(0);
                varint(bits, self.out);
            }
            Kind::Zigzag => {
                let signed = signed.map_err(|_| self.wrong("the number has more than 63 bits"))?;
                self.tag(0);
                varint((signed.cast_unsigned() << 1) ^ (signed >> 63).cast_unsigned(), self.out);
            }
            Kind::Fixed64 => {
                self.tag(1);
                self.out.extend_from_slice(&bits.to_le_bytes());
            }
            Kind::Double => return self.double(number as f64),
            Kind::Text | Kind::Bytes | Kind::Bool | Kind::Message(_) => return Err(self.wrong("a number")),
        }
        Ok(())
    }

    fn double<E: Error>(mut self, number: f64) -> Result<(), E> {
        if !matches!(self.entry.kind, Kind::Double) {
            return Err(self.wrong("a number with a fraction"));
        }
        self.tag(1);
        self.out.extend_from_slice(&number.to_le_bytes());
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.tag(2);
        varint(bytes.len() as u64, self.out);
        self.out.extend_from_slice(bytes);
    }

    fn wrong<E: Error>(&self, what: &str) -> E {
        E::custom(format!("{:?} cannot be {what}", self.entry.key))
    }
}

impl<'de> Visitor<'de> for One<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value for {:?}", self.entry.key)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(mut self, value: bool) -> Result<(), E> {
        if !matches!(self.entry.kind, Kind::Bool) {
            return Err(self.wrong("a truth value"));
        }
        self.tag(0);
        self.out.push(u8::from(value));
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.whole(i128::from(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.whole(i128::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.double(value)
    }

    fn visit_str<E: Error>(mut self, text: &str) -> Result<(), E> {
        match self.entry.kind {
            Kind::Text => self.bytes(text.as_bytes()),
            Kind::Bytes => {
                let bytes = BASE64_STANDARD.decode(text).map_err(|_| self.wrong("anything but base64"))?;
                self.bytes(&bytes);
            }
            Kind::Varint | Kind::Zigzag | Kind::Fixed64 => {
                let number = text.parse::<i128>().map_err(|_| self.wrong("a text that is no number"))?;
                return self.whole(number);
            }
            Kind::Double => {
                let number = text.parse().map_err(|_| self.wrong("a text that is no number"))?;
                return self.double(number);
            }
            Kind::Bool | Kind::Message(_) => return Err(self.wrong("a text")),
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        if !self.entry.is_list || self.is_item {
            return Err(self.wrong("a list"));
        }
        let One { entry, out, .. } = self;
        while items.next_element_seed(One { entry, is_item: true, out })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, map: A) -> Result<(), A::Error> {
        let Kind::Message(schema) = self.entry.kind else { return Err(self.wrong("an object")) };
        if self.entry.is_list && !self.is_item {
            return Err(self.wrong("an object outside of a list"));
        }
        let mut inner = Vec::new();
        Fields { schema, out: &mut inner }.visit_map(map)?;
        self.bytes(&inner);
        Ok(())
    }
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
