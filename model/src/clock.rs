//! Time and chance as arguments, so that tests own both.

use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

/// Tells the time. Order and fencing never come from it (P12): it only stamps.
pub trait Clock: std::fmt::Debug + Send + Sync + 'static {
    /// Wall time in microseconds since 1970-01-01 UTC; may jump either way.
    fn now_us(&self) -> i64;
    /// Time since some fixed moment of this process; never goes back.
    fn monotonic(&self) -> Duration;
}

/// The machine's own clocks.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// Starts the monotonic clock at zero.
    #[expect(clippy::disallowed_methods, reason = "this is the place that `Clock` wraps")]
    pub fn new() -> Self {
        SystemClock { started: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the place that `Clock` wraps")]
    fn now_us(&self) -> i64 {
        let now = SystemTime::now();
        match now.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |us| -us),
        }
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }
}

/// A source of random bits.
pub trait Rng: std::fmt::Debug + Send + Sync + 'static {
    /// The next 64 bits.
    fn next_u64(&self) -> u64;

    /// A number in `0..bound`; `bound` must not be 0.
    fn below(&self, bound: u64) -> u64 {
        // The high bits of a 128-bit product: no modulo bias worth the name for small bounds.
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }
}

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): small, fast, seedable; not for secrets.
#[derive(Debug)]
pub struct SplitMix64(Mutex<u64>);

impl SplitMix64 {
    /// The same seed always gives the same bits.
    pub fn new(seed: u64) -> Self {
        SplitMix64(Mutex::new(seed))
    }
}

impl Rng for SplitMix64 {
    fn next_u64(&self) -> u64 {
        let mut state = self.0.lock().expect("no holder of this lock panics");
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}
