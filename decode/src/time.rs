//! Times as files and messages write them: RFC 3339, or a number of seconds, milliseconds, microseconds or nanoseconds.
//!
//! Invariant: what is finer than a microsecond is floored, before 1970 too; nothing else is rounded.

use crate::line_protocol::quote;

/// How times are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeFormat {
    /// Numbers by their magnitude, texts as RFC 3339.
    #[default]
    Auto,
    /// Such as 2026-06-01T08:30:00.25Z; without a zone it is UTC.
    Rfc3339,
    /// Seconds since 1970.
    S,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
}

impl TimeFormat {
    /// All of them.
    pub const ALL: [TimeFormat; 6] =
        [TimeFormat::Auto, TimeFormat::Rfc3339, TimeFormat::S, TimeFormat::Ms, TimeFormat::Us, TimeFormat::Ns];

    /// The one of that word, in upper case or lower.
    pub fn of_word(word: &str) -> Option<TimeFormat> {
        TimeFormat::ALL.into_iter().find(|format| format.word().eq_ignore_ascii_case(word))
    }

    /// A short word: `auto`, `rfc3339`, `s`, `ms`, `us`, `ns`.
    pub fn word(self) -> &'static str {
        match self {
            TimeFormat::Auto => "auto",
            TimeFormat::Rfc3339 => "rfc3339",
            TimeFormat::S => "s",
            TimeFormat::Ms => "ms",
            TimeFormat::Us => "us",
            TimeFormat::Ns => "ns",
        }
    }

    /// Microseconds of a whole number.
    ///
    /// # Errors
    /// If it is none, or out of range.
    pub fn whole(self, number: i64) -> Result<i64, String> {
        self.scaled(i128::from(number), 0, &number.to_string())
    }

    /// Microseconds of a text; without a zone it is UTC.
    ///
    /// # Errors
    /// Says what would be right.
    pub fn text(self, text: &str) -> Result<i64, String> {
        self.text_or_local(text).map(Read::utc)
    }

    /// As [`TimeFormat::text`], and says whether the zone is known.
    ///
    /// # Errors
    /// Says what would be right.
    pub fn text_or_local(self, text: &str) -> Result<Read, String> {
        let text = text.trim();
        match digits(text) {
            Some((units, scale)) if self != TimeFormat::Rfc3339 => self.scaled(units, scale, text).map(Read::Utc),
            _ if matches!(self, TimeFormat::Auto | TimeFormat::Rfc3339) => rfc3339(text).ok_or_else(|| {
                let right = "such as 2026-06-01T08:30:00.25Z";
                let text = quote(text);
                match self {
                    TimeFormat::Auto => format!("{text} is not a time; right is a number, or a text {right}"),
                    _ => format!("{text} is not a time {right}"),
                }
            }),
            _ => Err(format!("{} is not a number of {}", quote(text), self.word())),
        }
    }

    /// `units` of 10^-`scale` of the format's own unit.
    fn scaled(self, units: i128, scale: u32, shown: &str) -> Result<i64, String> {
        let whole = units / 10_i128.pow(scale);
        let micros_power = match self {
            TimeFormat::S => 6,
            TimeFormat::Ms => 3,
            TimeFormat::Us => 0,
            TimeFormat::Ns => -3,
            TimeFormat::Rfc3339 => {
                return Err(format!("{shown} is a number, not a time such as 2026-06-01T08:30:00.25Z"));
            }
            TimeFormat::Auto => match whole.unsigned_abs() {
                0..5_000_000_000 => 6,
                5_000_000_000..5_000_000_000_000 => 3,
                5_000_000_000_000..5_000_000_000_000_000 => 0,
                _ => -3,
            },
        };
        let power = micros_power - scale as i32;
        let factor = 10_i128.pow(power.unsigned_abs());
        let us = if power >= 0 { units.checked_mul(factor) } else { Some(units.div_euclid(factor)) };
        us.and_then(|us| i64::try_from(us).ok()).ok_or_else(|| format!("the time {shown} is out of range"))
    }
}

/// A time as it was read, in microseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// UTC.
    Utc(i64),
    /// As if it were UTC, for its text says no zone.
    Local(i64),
}

impl Read {
    /// Microseconds, a zone that is not known taken for UTC.
    pub fn utc(self) -> i64 {
        match self {
            Read::Utc(us) | Read::Local(us) => us,
        }
    }
}

/// `-12.50` as 1250 of 10^-2: at most 19 digits before the point and 12 behind it.
fn digits(text: &str) -> Option<(i128, u32)> {
    let (sign, magnitude) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let (whole, fraction) = magnitude.split_once('.').unwrap_or((magnitude, ""));
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || whole.len() > 19 || fraction.len() > 12 || !are_digits(whole) || !are_digits(fraction) {
        return None;
    }
    if magnitude.ends_with('.') {
        return None;
    }
    Some((sign * format!("{whole}{fraction}").parse::<i128>().ok()?, fraction.len() as u32))
}

/// `2026-06-01`, `2026-06-01 08:30`, `2026-06-01T08:30:00.25+02:00`; microseconds.
fn rfc3339(text: &str) -> Option<Read> {
    let (year_sign, rest) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let date_len = rest.find(['T', 't', ' ']).unwrap_or(rest.len());
    let (date, clock) = rest.split_at(date_len);
    let mut parts = date.split('-');
    let year: i64 = number(parts.next()?, 4..=6)?;
    let (month, day): (i64, i64) = (number(parts.next()?, 2..=2)?, number(parts.next()?, 2..=2)?);
    if parts.next().is_some() {
        return None;
    }
    let days = days_of(year_sign * year, month, day)?;
    let day_us = days.checked_mul(86_400_000_000)?;
    if clock.is_empty() {
        return Some(Read::Local(day_us));
    }
    let clock = &clock[1..];
    let zone_at = clock.find(['Z', 'z', '+', '-']).unwrap_or(clock.len());
    let (clock, zone) = clock.split_at(zone_at);
    let (clock, fraction) = clock.split_once('.').map_or((clock, None), |(clock, fraction)| (clock, Some(fraction)));
    let mut parts = clock.trim_end().split(':');
    let hour = number(parts.next()?, 2..=2).filter(|hour| *hour < 24)?;
    let minute = number(parts.next()?, 2..=2).filter(|minute| *minute < 60)?;
    // A leap second is the second after it, as in POSIX time.
    let second = parts.next().map_or(Some(0), |second| number(second, 2..=2)).filter(|second| *second <= 60)?;
    if parts.next().is_some() {
        return None;
    }
    let micros = match fraction {
        None => 0,
        Some(fraction) => {
            let fraction = fraction.trim_end();
            number(fraction, 1..=18)?;
            number(&format!("{:0<6}", &fraction[..fraction.len().min(6)]), 6..=6)?
        }
    };
    let of_day = ((hour * 60 + minute) * 60 + second) * 1_000_000 + micros;
    let us = day_us.checked_add(of_day)?.checked_sub(zone_minutes(zone)? * 60_000_000)?;
    Some(if zone.is_empty() { Read::Local(us) } else { Read::Utc(us) })
}

/// Minutes east of UTC: `Z`, `+02:00`, `+0200`, `+02`, and nothing for UTC.
pub fn zone_minutes(zone: &str) -> Option<i64> {
    let (sign, rest) = match zone.as_bytes() {
        [] | [b'Z' | b'z'] => return Some(0),
        [b'+', ..] => (1, &zone[1..]),
        [b'-', ..] => (-1, &zone[1..]),
        _ => return None,
    };
    let (hours, minutes) = match rest.split_once(':') {
        Some(parts) => parts,
        None if rest.is_ascii() && rest.len() == 4 => rest.split_at(2),
        None => (rest, "00"),
    };
    let hours = number(hours, 2..=2).filter(|hours| *hours < 24)?;
    let minutes = number(minutes, 2..=2).filter(|minutes| *minutes < 60)?;
    Some(sign * (hours * 60 + minutes))
}

fn number(text: &str, digits: std::ops::RangeInclusive<usize>) -> Option<i64> {
    (digits.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

/// Days since 1970-01-01; `None` if there is no such day.
fn days_of(year: i64, month: i64, day: i64) -> Option<i64> {
    let is_leap = year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0);
    let of_month = match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=of_month).contains(&day) {
        return None;
    }
    // Years that begin in March end with the leap day.
    let year = year - i64::from(month <= 2);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

#[cfg(test)]
mod tests {
    use model::time_text::{iso, iso_day};
    use model::{Rng, SplitMix64};

    use super::*;

    #[test]
    fn texts_and_numbers_are_times() {
        let noon = 1_780_272_000_000_000; // 2026-06-01T00:00:00Z
        for (text, us) in [
            ("2026-06-01", noon),
            ("2026-06-01T00:00", noon),
            ("2026-06-01 00:00:00", noon),
            ("2026-06-01T00:00:00.250Z", noon + 250_000),
            ("2026-06-01T02:00:00+02:00", noon),
            ("2026-05-31T19:30:00-0430", noon),
            ("2026-06-01t00:00:00.1234567899z", noon + 123_456),
            ("1969-12-31T23:59:59.999999Z", -1),
            ("2016-12-31T23:59:60Z", 1_483_228_800_000_000),
            ("1780272000", noon),
            ("1780272000.5", noon + 500_000),
            ("1780272000000", noon),
            ("1780272000000000", noon),
            ("1780272000000000999", noon),
            ("-0.0000015", -2),
            ("-1", -1_000_000),
        ] {
            assert_eq!(TimeFormat::Auto.text(text), Ok(us), "{text}");
        }
        assert_eq!(TimeFormat::Ns.text("-1"), Ok(-1));
        assert_eq!(TimeFormat::Us.text("5"), Ok(5));
        assert_eq!(TimeFormat::Ms.whole(-5), Ok(-5_000));
    }

    #[test]
    fn what_is_no_time_is_refused_with_what_would_be_right() {
        for text in [
            "",
            "soon",
            "2026-13-01",
            "2026-02-29",
            "2026-06-01T24:00:00",
            "2026-06-01T00",
            "20260601x",
            "1.",
            "1e9",
            "2026-06-01T00:00:00+5",
            "2026-06-01T00:00:00.Z",
            "12345678901234567890",
        ] {
            assert!(TimeFormat::Auto.text(text).unwrap_err().contains("is not a time"), "{text}");
        }
        assert!(TimeFormat::S.text("9223372036854775807").unwrap_err().contains("out of range"));
        assert!(TimeFormat::S.text("2026-06-01").unwrap_err().contains("not a number of s"));
        assert!(TimeFormat::Rfc3339.text("1780272000").unwrap_err().contains("not a time"));
        assert!(TimeFormat::Rfc3339.whole(1).unwrap_err().contains("is a number"));
    }

    #[test]
    fn every_time_that_is_shown_is_read_back() {
        let seed = 5;
        let rng = SplitMix64::new(seed);
        for _ in 0..5_000 {
            // The years 0 to 9999.
            let us = rng.below(315_537_897_600_000_000) as i64 - 62_135_596_800_000_000;
            assert_eq!(TimeFormat::Auto.text(&format!("{}Z", iso(us))), Ok(us), "seed {seed}: {}", iso(us));
            let day = us.div_euclid(86_400_000_000);
            assert_eq!(TimeFormat::Rfc3339.text(&iso_day(day)), Ok(day * 86_400_000_000), "seed {seed}");
        }
    }
}
