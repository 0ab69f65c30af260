//! Sizes and durations as people write them: `256MiB`, `90s`.

use std::fmt;
use std::time::Duration;

/// A number of bytes: `4096`, `64KiB`, `256MiB`, `1GiB`, `2TiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const SIZES: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl ByteSize {
    /// Reads `text`.
    ///
    /// # Errors
    /// Says what a size looks like.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a size; write a whole number and B, KiB, MiB, GiB or TiB: \"256MiB\"");
        let (number, unit) = split_unit(text).ok_or_else(wrong)?;
        let factor = if unit.is_empty() {
            1
        } else {
            SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(wrong)?.1
        };
        number.checked_mul(factor).map(ByteSize).ok_or_else(wrong)
    }

    /// The bytes as a length in memory.
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) =
            SIZES.iter().find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor)).unwrap_or(&SIZES[4]);
        write!(f, "{}{unit}", self.0 / factor)
    }
}

/// A span of time: `250ms`, `90s`, `5m`, `1h`, `1d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

const PERIODS_MS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl Period {
    /// Reads `text`.
    ///
    /// # Errors
    /// Says what a duration looks like.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a duration; write a whole number and ms, s, m, h or d: \"90s\"");
        let (number, unit) = split_unit(text).ok_or_else(wrong)?;
        let factor = PERIODS_MS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?.1;
        number.checked_mul(factor).map(|ms| Period(Duration::from_millis(ms))).ok_or_else(wrong)
    }
}

impl std::str::FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Period::parse(text)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        let (unit, factor) = PERIODS_MS
            .iter()
            .find(|(_, factor)| ms != 0 && ms.is_multiple_of(u128::from(*factor)))
            .unwrap_or(&PERIODS_MS[3]);
        write!(f, "{}{unit}", ms / u128::from(*factor))
    }
}

/// `256MiB` → (256, `MiB`); `None` without a leading whole number.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_and_show_in_their_largest_whole_unit() {
        for (text, bytes, shown) in [
            ("256MiB", 256 << 20, "256MiB"),
            ("1024 KiB", 1 << 20, "1MiB"),
            ("0", 0, "0B"),
            ("1500", 1500, "1500B"),
            ("1gib", 1 << 30, "1GiB"),
        ] {
            let size = ByteSize::parse(text).unwrap();
            assert_eq!((size.0, size.to_string()), (bytes, shown.to_string()), "{text}");
        }
    }

    #[test]
    fn durations_read_and_show_in_their_largest_whole_unit() {
        for (text, ms, shown) in [
            ("90s", 90_000, "90s"),
            ("60s", 60_000, "1m"),
            ("1d", 86_400_000, "1d"),
            ("250ms", 250, "250ms"),
            ("0s", 0, "0s"),
        ] {
            let period = Period::parse(text).unwrap();
            assert_eq!((period.0.as_millis(), period.to_string()), (ms, shown.to_string()), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_or_duration_is_refused() {
        for bad in ["", "MiB", "1.5GiB", "-1", "10MB", "99999999TiB"] {
            assert!(ByteSize::parse(bad).is_err(), "{bad}");
        }
        for bad in ["", "s", "5", "1w", "1.5h", "18446744073709551615d"] {
            assert!(Period::parse(bad).is_err(), "{bad}");
        }
    }
}
