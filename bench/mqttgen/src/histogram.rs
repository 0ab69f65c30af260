//! Durations in buckets: 32 for each power of two, so a percentile is good to 3 %.

use std::time::Duration;

const SUB_BITS: u32 = 5;
const SUB: u64 = 1 << SUB_BITS;
const BUCKETS: usize = (64 * SUB) as usize;

/// Counts of durations in nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max_ns: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Histogram { counts: vec![0; BUCKETS], total: 0, max_ns: 0 }
    }

    pub(crate) fn add(&mut self, took: Duration) {
        let ns = took.as_nanos() as u64;
        self.counts[bucket(ns)] += 1;
        self.total += 1;
        self.max_ns = self.max_ns.max(ns);
    }

    pub(crate) fn merge(&mut self, other: &Histogram) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// The upper edge of the bucket that this share of all durations does not exceed, in ms.
    pub(crate) fn at_ms(&self, share: f64) -> f64 {
        let wanted = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted && *count > 0 {
                return upper_ns(bucket).min(self.max_ns) as f64 / 1e6;
            }
        }
        0.0
    }

    pub(crate) fn max_ms(&self) -> f64 {
        self.max_ns as f64 / 1e6
    }
}

fn bucket(ns: u64) -> usize {
    if ns < SUB {
        return ns as usize;
    }
    let shift = ns.ilog2() - SUB_BITS;
    ((u64::from(shift) + 1) * SUB + (ns >> shift) - SUB) as usize
}

fn upper_ns(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < SUB {
        return bucket;
    }
    let shift = bucket / SUB - 1;
    ((bucket % SUB + SUB + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_good_to_three_percent() {
        let mut histogram = Histogram::new();
        for us in 1..=100_000 {
            histogram.add(Duration::from_micros(us));
        }
        for (share, ms) in [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0)] {
            let seen = histogram.at_ms(share);
            assert!((seen - ms).abs() < ms * 0.035, "{share}: {seen}");
        }
        assert_eq!(histogram.max_ms(), 100.0);
    }

    #[test]
    fn every_duration_lies_in_its_bucket() {
        for ns in [0, 1, 31, 32, 33, 63, 64, 65, 1_000, 123_456_789, u64::from(u32::MAX)] {
            let bucket = bucket(ns);
            assert!(ns <= upper_ns(bucket) && (bucket == 0 || ns > upper_ns(bucket - 1)), "{ns}");
        }
    }
}
