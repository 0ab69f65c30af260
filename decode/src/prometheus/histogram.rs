//! Native histograms: spans and differences to buckets by index.

use model::Value;

use super::{us, value_field};
use crate::metrics::{
    BUCKETS, Buckets, COUNT, Count, DecodeError, Exponential, Rows, SPECIAL, SUM, Series, count_field,
};
use crate::wire::{Malformed, Message, zigzag};

/// The schema of a histogram that has bounds of its own.
const CUSTOM: i64 = -53;

/// Schemas whose buckets grow by a factor.
const EXPONENTIAL: std::ops::RangeInclusive<i64> = -4..=8;

/// Most spans, and most buckets, of one side. Prometheus itself keeps to a few hundred.
const BUCKETS_MAX: usize = 20_000;

/// One side of a histogram, as it is sent.
#[derive(Default)]
struct Side {
    /// Gap before, and how many buckets.
    spans: Vec<(i64, u64)>,
    counts: Vec<Count>,
    /// The last whole count: they are sent as differences.
    last: i64,
    is_wrong: bool,
    is_too_long: bool,
}

impl Side {
    fn span(&mut self, mut message: Message<'_>) -> Result<(), Malformed> {
        let mut span = (0, 0);
        while let Some((number, field)) = message.next()? {
            match number {
                1 => span.0 = field.sint()?,
                2 => span.1 = field.varint()?,
                _ => {}
            }
        }
        self.is_too_long |= self.spans.len() == BUCKETS_MAX;
        if !self.is_too_long {
            self.spans.push(span);
        }
        Ok(())
    }

    fn count(&mut self, count: Count) {
        self.is_too_long |= self.counts.len() == BUCKETS_MAX;
        if !self.is_too_long {
            self.counts.push(count);
        }
    }

    fn delta(&mut self, delta: u64) {
        let count = self.last.checked_add(zigzag(delta));
        let whole = count.and_then(|count| u64::try_from(count).ok());
        self.is_wrong |= whole.is_none();
        self.last = count.unwrap_or_default();
        self.count(Count::Whole(whole.unwrap_or_default()));
    }

    /// Indices and counts, from `first` on.
    fn buckets(&self, first: i64) -> Result<Vec<(i64, Count)>, &'static str> {
        if self.is_too_long {
            return Err("the histogram has more buckets than are taken");
        }
        if self.is_wrong {
            return Err("a bucket of the histogram has less than nothing");
        }
        let (mut index, mut counts, mut buckets) = (first, self.counts.iter(), Vec::with_capacity(self.counts.len()));
        for (gap, len) in &self.spans {
            index = index.checked_add(*gap).ok_or("a bucket of the histogram is out of range")?;
            // Spans say how many; never more than there are counts for.
            for _ in 0..*len {
                let count = *counts.next().ok_or("the histogram has fewer buckets than its spans say")?;
                if !count.is_zero() {
                    buckets.push((index, count));
                }
                index = index.checked_add(1).ok_or("a bucket of the histogram is out of range")?;
            }
        }
        match counts.next() {
            None => Ok(buckets),
            Some(_) => Err("the histogram has more buckets than its spans say"),
        }
    }
}

/// Adds a histogram to `rows`.
pub(super) fn push<E>(
    mut message: Message<'_>,
    series: &mut Series<'_>,
    rows: &mut Rows<'_, E>,
) -> Result<(), DecodeError<E>> {
    let (mut count, mut sum, mut schema, mut time_ms) = (Count::Whole(0), 0.0, 0, 0);
    let (mut zero_threshold, mut zero_count) = (0.0, Count::Whole(0));
    let (mut negative, mut positive, mut bounds) = (Side::default(), Side::default(), Vec::new());
    while let Some((number, field)) = message.next()? {
        match number {
            1 => count = Count::Whole(field.varint()?),
            2 => count = Count::Float(field.double()?),
            3 => sum = field.double()?,
            4 => schema = field.sint()?,
            5 => zero_threshold = field.double()?,
            6 => zero_count = Count::Whole(field.varint()?),
            7 => zero_count = Count::Float(field.double()?),
            8 => negative.span(field.message()?)?,
            9 => field.varints(|delta| negative.delta(delta))?,
            10 => field.fixed64s(|bits| negative.count(Count::Float(f64::from_bits(bits))))?,
            11 => positive.span(field.message()?)?,
            12 => field.varints(|delta| positive.delta(delta))?,
            13 => field.fixed64s(|bits| positive.count(Count::Float(f64::from_bits(bits))))?,
            15 => time_ms = field.int64()?,
            // One too many is enough to be refused.
            16 => field.fixed64s(|bits| {
                if bounds.len() <= BUCKETS_MAX {
                    bounds.push(f64::from_bits(bits));
                }
            })?,
            _ => {}
        }
    }
    let sum = value_field(SUM, sum);
    if sum == (SPECIAL, Value::Text(crate::metrics::STALE)) {
        return rows.push(series, us(time_ms), &[sum], None);
    }
    let buckets = match schema {
        CUSTOM => custom(&positive, &bounds),
        schema if EXPONENTIAL.contains(&schema) => {
            // Bucket i of Prometheus ends at base^i, that of the text at base^(i + 1).
            positive.buckets(-1).and_then(|positive| {
                let negative = negative.buckets(-1)?;
                let buckets =
                    Exponential { scale: schema, zero_threshold, zero_count, positive: &positive, negative: &negative };
                Ok(buckets.json())
            })
        }
        _ => Err("the histogram has a schema that is not known"),
    };
    let (buckets, wrong) = match buckets {
        Ok(buckets) => (buckets, None),
        Err(reason) => (String::new(), Some(reason.to_owned())),
    };
    let mut fields = vec![count_field(count), sum];
    if wrong.is_none() {
        fields.push((BUCKETS, Value::Text(&buckets)));
    }
    debug_assert!(fields[0].0 == COUNT || fields[0].0 == SPECIAL);
    rows.push(series, us(time_ms), &fields, wrong)
}

/// The buckets of a histogram with bounds: as many as it has, each with its count.
fn custom(positive: &Side, bounds: &[f64]) -> Result<String, &'static str> {
    if bounds.len() > BUCKETS_MAX {
        return Err("the histogram has more buckets than are taken");
    }
    let mut counts = vec![Count::Whole(0); bounds.len() + 1];
    for (index, count) in positive.buckets(0)? {
        let place = usize::try_from(index).ok().and_then(|index| counts.get_mut(index));
        *place.ok_or("the histogram has a bucket without bounds")? = count;
    }
    Ok(Buckets { bounds, counts: &counts }.json())
}
