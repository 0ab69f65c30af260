//! Prometheus remote write, 1.0 and 2.0: samples and native histograms to rows.
//!
//! Owns:     the two messages, what a sample that is no number becomes, and the buckets of native histograms.
//! Does not: unpack snappy, know headers or answers (`ingest-server`), or store exemplars and metadata: it counts them.
//!
//! The messages: `prompb/types.proto` and `prompb/io/prometheus/write/v2/types.proto` of the Prometheus repository, and
//! <https://prometheus.io/docs/specs/prw/remote_write_spec/>. What becomes of what: `docs/formats/metrics.md`.
//!
//! Invariant: a body is read in place; symbols of 2.0 are the only list of it that is kept whole.

mod histogram;

use model::Value;

use crate::metrics::{DecodeError, LABELS_MAX, Label, Rows, SPECIAL, STALE, Series, Take, VALUE, number, text};
use crate::wire::{Malformed, Message};

/// The label that is the name of the metric.
const NAME: &str = "__name__";

/// The NaN by which Prometheus says that a series has ended: `StaleNaN` in `model/value/value.go`.
const STALE_BITS: u64 = 0x7ff0_0000_0000_0002;

/// Which of the two messages a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `prometheus.WriteRequest`.
    One,
    /// `io.prometheus.write.v2.Request`.
    Two,
}

/// What a body held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Samples, refused ones included.
    pub samples: u32,
    /// Native histograms, refused ones included.
    pub histograms: u32,
    /// Exemplars; none is stored.
    pub exemplars: u32,
}

/// Hands the rows of `body` to `take`, for tables of `schema`.
///
/// # Errors
/// If the body is not such a message, or what `take` says; portions before that were handed on.
pub fn decode<E>(
    body: &[u8],
    version: Version,
    schema: &str,
    take: &mut Take<'_, E>,
) -> Result<Totals, DecodeError<E>> {
    let mut decoder = Decoder { rows: Rows::new(schema, body.len(), take), totals: Totals::default() };
    let mut symbols = Vec::new();
    if version == Version::Two {
        let mut request = Message::new(body);
        while let Some((number, field)) = request.next()? {
            if number == 4 {
                symbols.push(field.bytes()?);
            }
        }
    }
    let mut labels = Vec::new();
    let mut request = Message::new(body);
    while let Some((number, field)) = request.next()? {
        match (version, number) {
            (Version::One, 1) => decoder.series(field.message()?, &mut labels, &Labels::Written)?,
            (Version::Two, 5) => decoder.series(field.message()?, &mut labels, &Labels::Symbols(&symbols))?,
            _ => {}
        }
    }
    decoder.rows.finish()?;
    Ok(decoder.totals)
}

/// How the labels of a series are told.
enum Labels<'a, 's> {
    /// Each by its texts.
    Written,
    /// By numbers of these.
    Symbols(&'s [&'a [u8]]),
}

struct Decoder<'t, E> {
    rows: Rows<'t, E>,
    totals: Totals,
}

impl<E> Decoder<'_, E> {
    fn series<'a>(
        &mut self,
        message: Message<'a>,
        labels: &mut Vec<Label<'a>>,
        told: &Labels<'a, '_>,
    ) -> Result<(), DecodeError<E>> {
        labels.clear();
        let mut wrong = match told {
            Labels::Written => written_labels(message, labels)?,
            Labels::Symbols(symbols) => symbol_labels(message, symbols, labels)?,
        };
        let name = labels.iter().position(|(name, _)| name == NAME).map(|at| labels.swap_remove(at).1);
        if name.is_none() {
            wrong = wrong.or(Some("the series has no label \"__name__\""));
        }
        let name = name.unwrap_or_default();
        let mut series = match wrong {
            Some(reason) => Series::refused(name, labels, reason.to_owned()),
            None => Series::new(name, labels),
        };
        let (samples, histograms, exemplars) = match told {
            Labels::Written => (2, 4, 3),
            Labels::Symbols(_) => (2, 3, 4),
        };
        let mut fields = message;
        while let Some((number, field)) = fields.next()? {
            if number == samples {
                self.sample(field.message()?, &mut series)?;
            } else if number == histograms {
                self.totals.histograms += 1;
                histogram::push(field.message()?, &mut series, &mut self.rows)?;
            } else if number == exemplars {
                self.totals.exemplars += 1;
            }
        }
        Ok(())
    }

    fn sample(&mut self, mut message: Message<'_>, series: &mut Series<'_>) -> Result<(), DecodeError<E>> {
        self.totals.samples += 1;
        let (mut value, mut time_ms) = (0.0, 0);
        while let Some((number, field)) = message.next()? {
            match number {
                1 => value = field.double()?,
                2 => time_ms = field.int64()?,
                _ => {}
            }
        }
        self.rows.push(series, us(time_ms), &[value_field(VALUE, value)], None)
    }
}

/// Milliseconds in microseconds.
fn us(time_ms: i64) -> Option<i64> {
    time_ms.checked_mul(1_000)
}

/// A number of Prometheus: one of them is a sign that the series has ended.
fn value_field(name: &'static str, value: f64) -> (&'static str, Value<'static>) {
    if value.to_bits() == STALE_BITS { (SPECIAL, Value::Text(STALE)) } else { number(name, value) }
}

const NOT_UTF8: &str = "a label is not UTF-8";
const TOO_MANY: &str = "the series has more labels than are taken";

/// The labels of a series of 1.0; what is wrong with them.
fn written_labels<'a>(
    mut message: Message<'a>,
    labels: &mut Vec<Label<'a>>,
) -> Result<Option<&'static str>, Malformed> {
    let mut wrong = None;
    while let Some((number, field)) = message.next()? {
        if number != 1 {
            continue;
        }
        let mut label = field.message()?;
        let (mut name, mut value): (&[u8], &[u8]) = (b"", b"");
        while let Some((number, field)) = label.next()? {
            match number {
                1 => name = field.bytes()?,
                2 => value = field.bytes()?,
                _ => {}
            }
        }
        wrong = wrong.or(add_label(name, value, labels));
    }
    Ok(wrong)
}

/// As [`written_labels`], of 2.0: pairs of numbers.
fn symbol_labels<'a>(
    mut message: Message<'a>,
    symbols: &[&'a [u8]],
    labels: &mut Vec<Label<'a>>,
) -> Result<Option<&'static str>, Malformed> {
    let (mut wrong, mut name) = (None, None);
    while let Some((number, field)) = message.next()? {
        if number != 1 {
            continue;
        }
        field.varints(|at| {
            let symbol = usize::try_from(at).ok().and_then(|at| symbols.get(at)).copied();
            let Some(symbol) = symbol else {
                wrong = wrong.or(Some("a label is a number that no symbol has"));
                return;
            };
            match name.take() {
                None => name = Some(symbol),
                Some(name) => wrong = wrong.or(add_label(name, symbol, labels)),
            }
        })?;
    }
    Ok(wrong.or(name.map(|_| "a label has a name and no value")))
}

fn add_label<'a>(name: &'a [u8], value: &'a [u8], labels: &mut Vec<Label<'a>>) -> Option<&'static str> {
    // The name of the metric is one more.
    if labels.len() > LABELS_MAX {
        return Some(TOO_MANY);
    }
    let ((name, name_is_text), (value, value_is_text)) = (text(name), text(value));
    labels.push((name, value));
    (!name_is_text || !value_is_text).then_some(NOT_UTF8)
}
