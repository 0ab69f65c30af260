//! The buckets of a histogram as one text of JSON.
//!
//! Bounds are those of the format that has them; an exponential histogram has none, only its scale and the numbers of
//! the buckets that are not empty: bucket *i* is from base^*i* (not included) to base^(*i* + 1), base = 2^(2^-scale).

use std::fmt::Write as _;

use super::special;

/// Buckets with bounds.
pub(crate) struct Buckets<'a> {
    /// Upper bounds, but for the last bucket, which has none.
    pub(crate) bounds: &'a [f64],
    /// One more than bounds, by index and count; those that are left out are 0.
    pub(crate) counts: &'a [Count],
}

/// Buckets of which each is by a factor larger than the one before.
pub(crate) struct Exponential<'a> {
    pub(crate) scale: i64,
    pub(crate) zero_threshold: f64,
    pub(crate) zero_count: Count,
    /// By index, those that are not empty.
    pub(crate) positive: &'a [(i64, Count)],
    pub(crate) negative: &'a [(i64, Count)],
}

/// How much is in a bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Count {
    /// Counted.
    Whole(u64),
    /// Computed, such as a rate.
    Float(f64),
}

impl Count {
    pub(crate) fn is_zero(self) -> bool {
        match self {
            Count::Whole(count) => count == 0,
            Count::Float(count) => count == 0.0,
        }
    }
}

fn write_number(value: f64, out: &mut String) {
    // Writing to a String does not fail.
    let _ = match special(value) {
        None => write!(out, "{value:?}"),
        Some(word) => write!(out, "\"{word}\""),
    };
}

fn write_count(count: Count, out: &mut String) {
    match count {
        Count::Whole(count) => {
            let _ = write!(out, "{count}");
        }
        Count::Float(count) => write_number(count, out),
    }
}

fn write_list<T: Copy>(items: &[T], out: &mut String, write: impl Fn(T, &mut String)) {
    out.push('[');
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        write(*item, out);
    }
    out.push(']');
}

impl Buckets<'_> {
    /// `{"bounds":[0.5,1.0],"counts":[1,0,2]}`
    pub(crate) fn json(&self) -> String {
        let mut out = String::from("{\"bounds\":");
        write_list(self.bounds, &mut out, write_number);
        out.push_str(",\"counts\":");
        write_list(self.counts, &mut out, write_count);
        out.push('}');
        out
    }
}

impl Exponential<'_> {
    /// `{"scale":3,"zero_threshold":0.0,"zero_count":1,"positive":[[-2,4],[0,1]],"negative":[]}`
    pub(crate) fn json(&self) -> String {
        let mut out = format!("{{\"scale\":{},\"zero_threshold\":", self.scale);
        write_number(self.zero_threshold, &mut out);
        out.push_str(",\"zero_count\":");
        write_count(self.zero_count, &mut out);
        for (name, buckets) in [("positive", self.positive), ("negative", self.negative)] {
            let _ = write!(out, ",\"{name}\":");
            write_list(buckets, &mut out, |(index, count), out| {
                let _ = write!(out, "[{index},");
                write_count(count, out);
                out.push(']');
            });
        }
        out.push('}');
        out
    }
}

/// `[[0.5,1.25],[0.99,"NaN"]]`
pub(crate) fn quantiles_json(quantiles: &[(f64, f64)]) -> String {
    let mut out = String::new();
    write_list(quantiles, &mut out, |(quantile, value), out| {
        out.push('[');
        write_number(quantile, out);
        out.push(',');
        write_number(value, out);
        out.push(']');
    });
    out
}
