//! Waiting longer after each failure, with full jitter: many clients of one server do not come back at the same moment.

use std::time::Duration;

use crate::Rng;

const FIRST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(60);

/// How long to wait after each failure in a row: a random time up to 1 s, 2 s, 4 s, … 60 s.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// After a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// How long to wait after the failure that has just been.
    pub fn next(&mut self, rng: &dyn Rng) -> Duration {
        let most = FIRST.saturating_mul(1 << self.failures.min(6)).min(MOST);
        self.failures += 1;
        Duration::from_millis(rng.below(most.as_millis() as u64 + 1))
    }
}

#[cfg(test)]
mod tests {
    use crate::SplitMix64;

    use super::*;

    #[test]
    fn waits_grow_to_a_minute_and_are_spread() {
        let rng = SplitMix64::new(1);
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..200).map(|_| backoff.next(&rng).as_millis()).collect();
        assert!(waits[0] <= 1_000 && waits[1] <= 2_000 && waits[2] <= 4_000, "{waits:?}");
        let late = &waits[10..];
        assert!(late.iter().all(|wait| *wait <= 60_000));
        assert!(late.iter().any(|wait| *wait > 50_000) && late.iter().any(|wait| *wait < 10_000), "{late:?}");
        backoff.reset();
        assert!(backoff.next(&rng) <= FIRST);
    }
}
