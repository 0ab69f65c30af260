//! OpenTelemetry's metrics (OTLP): data points to rows.
//!
//! Owns:     the messages, and which attributes and properties of a metric are tags.
//! Does not: know HTTP or its answers (`ingest-server`), or store exemplars: it counts them.
//!
//! The messages: `opentelemetry/proto/metrics/v1/metrics.proto` and its neighbours in the repository
//! opentelemetry-proto. What becomes of what: `docs/formats/metrics.md`.
//!
//! Fields of a message may come in any order, so each is read twice: first what stands once in it, then what is repeated.

mod attributes;
mod json;
mod points;

use std::borrow::Cow;

use crate::metrics::{DecodeError, Label, Rows, Series, Take, text};
use crate::wire::{Malformed, Message};
use attributes::Attributes;
pub use json::protobuf_of_json;
use points::{Kind, Point};

/// `AggregationTemporality` of metrics that count anew each time.
const DELTA: u64 = 1;

/// What a body held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Data points, refused ones included.
    pub points: u32,
    /// Exemplars; none is stored.
    pub exemplars: u32,
}

/// Hands the rows of `body`, an `ExportMetricsServiceRequest`, to `take`, for tables of `schema`. Points without a time
/// are of `now_us`.
///
/// # Errors
/// If the body is not such a message, or what `take` says; portions before that were handed on.
pub fn decode<E>(body: &[u8], now_us: i64, schema: &str, take: &mut Take<'_, E>) -> Result<Totals, DecodeError<E>> {
    let mut decoder = Decoder { rows: Rows::new(schema, body.len(), take), now_us, exemplars: 0 };
    let mut request = Message::new(body);
    while let Some((number, field)) = request.next()? {
        if number == 1 {
            decoder.resource_metrics(field.message()?)?;
        }
    }
    let points = decoder.rows.finish()?;
    Ok(Totals { points, exemplars: decoder.exemplars })
}

struct Decoder<'t, E> {
    rows: Rows<'t, E>,
    now_us: i64,
    exemplars: u32,
}

impl<'t, E> Decoder<'t, E> {
    fn resource_metrics(&mut self, message: Message<'_>) -> Result<(), DecodeError<E>> {
        let mut resource = Attributes::default();
        let mut fields = message;
        while let Some((number, field)) = fields.next()? {
            if number == 1 {
                resource.read(field.message()?, 1)?;
            }
        }
        let mut fields = message;
        while let Some((number, field)) = fields.next()? {
            if number == 2 {
                self.scope_metrics(field.message()?, &resource)?;
            }
        }
        Ok(())
    }

    fn scope_metrics(&mut self, message: Message<'_>, resource: &Attributes<'_>) -> Result<(), DecodeError<E>> {
        let mut scope = Attributes::default();
        let mut fields = message;
        while let Some((number, field)) = fields.next()? {
            if number == 1 {
                read_scope(field.message()?, &mut scope)?;
            }
        }
        let mut fields = message;
        while let Some((number, field)) = fields.next()? {
            if number == 2 {
                self.metric(field.message()?, resource, &scope)?;
            }
        }
        Ok(())
    }

    fn metric(
        &mut self,
        message: Message<'_>,
        resource: &Attributes<'_>,
        scope: &Attributes<'_>,
    ) -> Result<(), DecodeError<E>> {
        let (mut name, mut unit, mut data) = (&b""[..], &b""[..], None);
        let mut fields = message;
        while let Some((number, field)) = fields.next()? {
            match number {
                1 => name = field.bytes()?,
                3 => unit = field.bytes()?,
                5 => data = Some((Kind::Gauge, field.message()?)),
                7 => data = Some((Kind::Sum, field.message()?)),
                9 => data = Some((Kind::Histogram, field.message()?)),
                10 => data = Some((Kind::Exponential, field.message()?)),
                11 => data = Some((Kind::Summary, field.message()?)),
                _ => {}
            }
        }
        // Of a kind that is not known there is nothing to tell.
        let Some((kind, data)) = data else { return Ok(()) };
        let (name, name_is_text) = text(name);
        let (unit, unit_is_text) = text(unit);
        let mut metric = Metric { name, unit, is_delta: false, resource, scope, wrong: None };
        if !name_is_text || !unit_is_text {
            metric.wrong = Some("the name of the metric, or its unit, is not UTF-8");
        }
        if matches!(kind, Kind::Sum | Kind::Histogram | Kind::Exponential) {
            let mut fields = data;
            while let Some((number, field)) = fields.next()? {
                if number == 2 {
                    metric.is_delta = field.varint()? == DELTA;
                }
            }
        }
        let mut points = data;
        while let Some((number, field)) = points.next()? {
            if number == 1 {
                let point = Point::read(kind, field.message()?, self.now_us)?;
                self.exemplars = self.exemplars.saturating_add(point.exemplars);
                let mut series = metric.series(&point.attributes);
                let fields = point.fields();
                self.rows.push(&mut series, point.time_us, &fields, point.wrong.map(str::to_owned))?;
            }
        }
        Ok(())
    }
}

/// `InstrumentationScope`: names as OpenTelemetry has them where a scope is not a thing of its own.
fn read_scope<'a>(mut message: Message<'a>, scope: &mut Attributes<'a>) -> Result<(), Malformed> {
    let mut own = Attributes::default();
    own.read(message, 3)?;
    while let Some((number, field)) = message.next()? {
        match number {
            1 => scope.add("otel.scope.name".into(), text(field.bytes()?)),
            2 => scope.add("otel.scope.version".into(), text(field.bytes()?)),
            _ => {}
        }
    }
    for (name, value) in own.labels {
        scope.add(format!("otel.scope.{name}").into(), (value, true));
    }
    scope.wrong = scope.wrong.or(own.wrong);
    Ok(())
}

/// What the points of one metric have in common.
struct Metric<'a, 'm> {
    name: Cow<'a, str>,
    unit: Cow<'a, str>,
    is_delta: bool,
    resource: &'m Attributes<'m>,
    scope: &'m Attributes<'m>,
    wrong: Option<&'static str>,
}

impl Metric<'_, '_> {
    fn series<'s>(&'s self, point: &'s Attributes<'_>) -> Series<'s> {
        let wrong = self.wrong.or(self.resource.wrong).or(self.scope.wrong).or(point.wrong);
        let mut labels: Vec<Label<'_>> = Vec::with_capacity(point.labels.len() + self.resource.labels.len() + 4);
        labels.extend(point.labels.iter().map(borrowed));
        labels.extend(self.scope.labels.iter().map(borrowed));
        for label in &self.resource.labels {
            let is_taken = point.labels.iter().any(|(name, _)| *name == label.0);
            let (name, value) = borrowed(label);
            labels.push(if is_taken { (format!("resource.{name}").into(), value) } else { (name, value) });
        }
        if !self.unit.is_empty() {
            labels.push(("otel.unit".into(), Cow::Borrowed(&*self.unit)));
        }
        if self.is_delta {
            labels.push(("otel.temporality".into(), "delta".into()));
        }
        let name = Cow::Borrowed(&*self.name);
        match wrong {
            None => Series::new(name, &mut labels),
            Some(reason) => Series::refused(name, &labels, reason.to_owned()),
        }
    }
}

fn borrowed<'a>(label: &'a Label<'_>) -> Label<'a> {
    (Cow::Borrowed(&*label.0), Cow::Borrowed(&*label.1))
}
