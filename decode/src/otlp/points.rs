//! Data points of every kind.

use model::Value;

use super::attributes::Attributes;
use crate::metrics::{
    BUCKETS, Buckets, Count, Exponential, MAX, MIN, QUANTILES, SPECIAL, STALE, START, SUM, VALUE, count_field, number,
    quantiles_json,
};
use crate::wire::{Field, Malformed, Message};

/// Most buckets or quantiles of a point.
const BUCKETS_MAX: usize = 20_000;

/// The flag of a point that says only that there is nothing: `DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK`.
const NO_VALUE: u64 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Gauge,
    Sum,
    Histogram,
    Exponential,
    Summary,
}

/// A data point.
pub(super) struct Point<'a> {
    pub(super) attributes: Attributes<'a>,
    pub(super) time_us: Option<i64>,
    pub(super) exemplars: u32,
    /// Why it cannot be a row.
    pub(super) wrong: Option<&'static str>,
    kind: Kind,
    start_ns: u64,
    has_no_value: bool,
    value: Option<Value<'static>>,
    count: u64,
    sum: Option<f64>,
    min: Option<f64>,
    max: Option<f64>,
    /// The buckets or quantiles.
    json: String,
}

/// The parts of a point that its kind has in common with few others.
#[derive(Default)]
struct Parts {
    counts: Vec<Count>,
    bounds: Vec<f64>,
    scale: i64,
    zero_count: u64,
    zero_threshold: f64,
    positive: Vec<(i64, Count)>,
    negative: Vec<(i64, Count)>,
    quantiles: Vec<(f64, f64)>,
    is_too_long: bool,
}

fn add<T>(list: &mut Vec<T>, item: T, is_too_long: &mut bool) {
    if list.len() == BUCKETS_MAX {
        *is_too_long = true;
    } else {
        list.push(item);
    }
}

impl<'a> Point<'a> {
    pub(super) fn read(kind: Kind, mut message: Message<'a>, now_us: i64) -> Result<Self, Malformed> {
        let mut point = Point {
            attributes: Attributes::default(),
            time_us: Some(now_us),
            exemplars: 0,
            wrong: None,
            kind,
            start_ns: 0,
            has_no_value: false,
            value: None,
            count: 0,
            sum: None,
            min: None,
            max: None,
            json: String::new(),
        };
        let mut parts = Parts::default();
        while let Some((number, field)) = message.next()? {
            match (kind, number) {
                (_, 2) => point.start_ns = field.fixed64()?,
                (_, 3) => {
                    let ns = field.fixed64()?;
                    let us = i64::try_from(ns).ok().map(|ns| ns.div_euclid(1_000));
                    point.time_us = if ns == 0 { Some(now_us) } else { us };
                }
                (Kind::Gauge | Kind::Sum, _) => point.read_number(number, field)?,
                (Kind::Histogram, _) => point.read_histogram(number, field, &mut parts)?,
                (Kind::Exponential, _) => point.read_exponential(number, field, &mut parts)?,
                (Kind::Summary, _) => point.read_summary(number, field, &mut parts)?,
            }
        }
        point.finish(&parts);
        Ok(point)
    }

    fn read_number(&mut self, number: u32, field: Field<'a>) -> Result<(), Malformed> {
        match number {
            4 => self.value = Some(Value::F64(field.double()?)),
            5 => self.exemplars += 1,
            6 => self.value = Some(Value::I64(field.fixed64()?.cast_signed())),
            7 => self.attributes.key_value(field.message()?)?,
            8 => self.has_no_value = field.varint()? & NO_VALUE != 0,
            _ => {}
        }
        Ok(())
    }

    fn read_histogram(&mut self, number: u32, field: Field<'a>, parts: &mut Parts) -> Result<(), Malformed> {
        match number {
            4 => self.count = field.fixed64()?,
            5 => self.sum = Some(field.double()?),
            6 => field.fixed64s(|count| add(&mut parts.counts, Count::Whole(count), &mut parts.is_too_long))?,
            7 => field.fixed64s(|bits| add(&mut parts.bounds, f64::from_bits(bits), &mut parts.is_too_long))?,
            8 => self.exemplars += 1,
            9 => self.attributes.key_value(field.message()?)?,
            10 => self.has_no_value = field.varint()? & NO_VALUE != 0,
            11 => self.min = Some(field.double()?),
            12 => self.max = Some(field.double()?),
            _ => {}
        }
        Ok(())
    }

    fn read_exponential(&mut self, number: u32, field: Field<'a>, parts: &mut Parts) -> Result<(), Malformed> {
        match number {
            1 => self.attributes.key_value(field.message()?)?,
            4 => self.count = field.fixed64()?,
            5 => self.sum = Some(field.double()?),
            6 => parts.scale = field.sint()?,
            7 => parts.zero_count = field.fixed64()?,
            8 => read_side(field.message()?, &mut parts.positive, &mut parts.is_too_long)?,
            9 => read_side(field.message()?, &mut parts.negative, &mut parts.is_too_long)?,
            10 => self.has_no_value = field.varint()? & NO_VALUE != 0,
            11 => self.exemplars += 1,
            12 => self.min = Some(field.double()?),
            13 => self.max = Some(field.double()?),
            14 => parts.zero_threshold = field.double()?,
            _ => {}
        }
        Ok(())
    }

    fn read_summary(&mut self, number: u32, field: Field<'a>, parts: &mut Parts) -> Result<(), Malformed> {
        match number {
            4 => self.count = field.fixed64()?,
            5 => self.sum = Some(field.double()?),
            6 => {
                let mut message = field.message()?;
                let mut quantile = (0.0, 0.0);
                while let Some((number, field)) = message.next()? {
                    match number {
                        1 => quantile.0 = field.double()?,
                        2 => quantile.1 = field.double()?,
                        _ => {}
                    }
                }
                add(&mut parts.quantiles, quantile, &mut parts.is_too_long);
            }
            7 => self.attributes.key_value(field.message()?)?,
            8 => self.has_no_value = field.varint()? & NO_VALUE != 0,
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, parts: &Parts) {
        self.wrong = match self.kind {
            _ if self.has_no_value => None,
            _ if parts.is_too_long => Some("the data point has more buckets or quantiles than are taken"),
            Kind::Gauge | Kind::Sum if self.value.is_none() => Some("the data point has no value"),
            Kind::Histogram if !parts.counts.is_empty() && parts.counts.len() != parts.bounds.len() + 1 => {
                Some("the histogram has not one bucket more than bounds")
            }
            Kind::Histogram if parts.counts.is_empty() && !parts.bounds.is_empty() => {
                Some("the histogram has bounds but no buckets")
            }
            _ => None,
        };
        if self.wrong.is_some() || self.has_no_value {
            return;
        }
        self.json = match self.kind {
            Kind::Gauge | Kind::Sum => String::new(),
            Kind::Histogram if parts.counts.is_empty() => String::new(),
            Kind::Histogram => Buckets { bounds: &parts.bounds, counts: &parts.counts }.json(),
            Kind::Exponential => Exponential {
                scale: parts.scale,
                zero_threshold: parts.zero_threshold,
                zero_count: Count::Whole(parts.zero_count),
                positive: &parts.positive,
                negative: &parts.negative,
            }
            .json(),
            Kind::Summary => quantiles_json(&parts.quantiles),
        };
    }

    /// The fields of its row, also of one that cannot be.
    pub(super) fn fields(&self) -> Vec<(&'static str, Value<'_>)> {
        if self.has_no_value {
            return vec![(SPECIAL, Value::Text(STALE))];
        }
        let mut fields = Vec::with_capacity(6);
        match (self.kind, self.value) {
            (Kind::Gauge | Kind::Sum, Some(Value::F64(value))) => fields.push(number(VALUE, value)),
            (Kind::Gauge | Kind::Sum, value) => fields.extend(value.map(|value| (VALUE, value))),
            _ => {
                fields.push(count_field(Count::Whole(self.count)));
                let numbers = [(SUM, self.sum), (MIN, self.min), (MAX, self.max)];
                fields.extend(numbers.iter().filter_map(|(name, value)| Some(number(name, (*value)?))));
                let name = if self.kind == Kind::Summary { QUANTILES } else { BUCKETS };
                if !self.json.is_empty() {
                    fields.push((name, Value::Text(&self.json)));
                }
            }
        }
        // A gauge has no beginning.
        if self.kind != Kind::Gauge && self.start_ns != 0 {
            let start = i64::try_from(self.start_ns / 1_000);
            fields.extend(start.map(|us| (START, Value::I64(us))));
        }
        fields
    }
}

/// Buckets of one side that are not empty.
fn read_side(mut message: Message<'_>, side: &mut Vec<(i64, Count)>, is_too_long: &mut bool) -> Result<(), Malformed> {
    let (mut offset, mut index) = (0, 0);
    while let Some((number, field)) = message.next()? {
        match number {
            1 => offset = field.sint()?,
            2 => field.varints(|count| {
                if count > 0 {
                    add(side, (index, Count::Whole(count)), is_too_long);
                }
                index += 1;
            })?,
            _ => {}
        }
    }
    // An offset is a number of 32 bits.
    side.iter_mut().for_each(|(index, _)| *index = index.saturating_add(offset));
    Ok(())
}
