//! How many connections are taken in a second.

use std::time::Duration;

/// In which an empty bucket fills.
const FULL: Duration = Duration::from_secs(1);

/// A bucket that fills by so many tokens a second, up to as many.
#[derive(Debug)]
pub(super) struct Rate {
    per_second: u32,
    /// Up to when tokens are given away, each for its part of a second; at most [`FULL`] ahead.
    given_until: Duration,
}

impl Rate {
    /// A full bucket of `per_second` tokens; 0 is without limit.
    pub(super) fn new(per_second: u32) -> Self {
        Rate { per_second, given_until: Duration::ZERO }
    }

    /// Takes a token at the time `now`; or says how long it is until there is one.
    pub(super) fn take(&mut self, now: Duration) -> Result<(), Duration> {
        if self.per_second == 0 {
            return Ok(());
        }
        let until = self.given_until.max(now) + FULL / self.per_second;
        if until > now + FULL {
            return Err(until - now - FULL);
        }
        self.given_until = until;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_allowed_at_once_and_then_in_a_second() {
        let at = Duration::from_millis;
        let taken = |rate: &mut Rate, now: Duration| (0..100).take_while(|_| rate.take(now).is_ok()).count();
        let mut rate = Rate::new(10);
        assert_eq!(taken(&mut rate, at(0)), 10);
        assert_eq!(rate.take(at(0)), Err(at(100)));
        assert_eq!(rate.take(at(30)), Err(at(70)));
        assert_eq!(taken(&mut rate, at(350)), 3);
        assert_eq!(taken(&mut rate, at(60_000)), 10);
        let mut unlimited = Rate::new(0);
        assert_eq!(taken(&mut unlimited, at(0)), 100);
    }
}
