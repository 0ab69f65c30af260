//! Times and spans of time as people and protocols write them: ISO 8601, milliseconds with decimals, `90d`.

use std::fmt::Write as _;
use std::time::Duration;

use crate::DAY_US;

/// Year, month (1–12) and day (1–31) of a day counted from 1970-01-01, in the Gregorian calendar.
pub fn civil(day: i64) -> (i64, u32, u32) {
    // Years that begin in March end with the leap day, so that months have a fixed place in them.
    let day = day + 719_468; // days from 0000-03-01 to 1970-01-01
    let era = day.div_euclid(146_097);
    let of_era = day.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month as u32, day_of_month as u32)
}

/// `2026-06-01`.
pub fn iso_day(day: i64) -> String {
    let (year, month, day) = civil(day);
    format!("{year:04}-{month:02}-{day:02}")
}

/// `2026-06-01T08:30:00.25`: fractions only where there are any, no zone.
pub fn iso(time_us: i64) -> String {
    let mut text = iso_day(time_us.div_euclid(DAY_US));
    let of_day = time_us.rem_euclid(DAY_US);
    let (seconds, us) = (of_day / 1_000_000, of_day % 1_000_000);
    let _ = write!(text, "T{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if us != 0 {
        let _ = write!(text, ".{us:06}");
        text.truncate(text.trim_end_matches('0').len());
    }
    text
}

/// Milliseconds with as many of three decimals as there are: `1780272000000.5`.
pub fn epoch_ms(time_us: i64) -> String {
    let (ms, us) = (time_us.unsigned_abs() / 1_000, time_us.unsigned_abs() % 1_000);
    let sign = if time_us < 0 { "-" } else { "" };
    if us == 0 {
        return format!("{sign}{ms}");
    }
    let text = format!("{sign}{ms}.{us:03}");
    text.trim_end_matches('0').to_owned()
}

/// Milliseconds of the units of a span.
const UNITS_MS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A span of time: a whole number and `ms`, `s`, `m`, `h` or `d`, as in configuration files: `90d`. `None` if it is not.
pub fn span(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = UNITS_MS.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_follow_the_calendar() {
        for (day, text) in [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (59, "1970-03-01"),
            (789, "1972-02-29"),
            (11_016, "2000-02-29"),
            (20_605, "2026-06-01"),
            (-719_528, "0000-01-01"),
            (2_932_896, "9999-12-31"),
        ] {
            assert_eq!(iso_day(day), text, "{day}");
        }
    }

    #[test]
    fn every_day_of_four_centuries_follows_the_one_before() {
        let mut last = civil(-719_468);
        for day in -719_467..-719_468 + 146_097 {
            let (year, month, of_month) = civil(day);
            let next_day = (year, month, of_month) == (last.0, last.1, last.2 + 1);
            let next_month = (year, month, of_month) == (last.0, last.1 + 1, 1) && last.2 >= 28;
            let next_year = (year, month, of_month) == (last.0 + 1, 1, 1) && (last.1, last.2) == (12, 31);
            assert!(next_day || next_month || next_year, "{last:?} then {:?}", (year, month, of_month));
            last = (year, month, of_month);
        }
    }

    #[test]
    fn times_show_what_they_have() {
        assert_eq!(iso(1_780_272_000_000_000), "2026-06-01T00:00:00");
        assert_eq!(iso(1_780_272_000_250_000), "2026-06-01T00:00:00.25");
        assert_eq!(iso(-1), "1969-12-31T23:59:59.999999");
        assert_eq!(epoch_ms(1_780_272_000_000_123), "1780272000000.123");
        assert_eq!(epoch_ms(1_780_272_000_000_500), "1780272000000.5");
        assert_eq!(epoch_ms(1_780_272_000_001_000), "1780272000001");
        assert_eq!(epoch_ms(-1), "-0.001");
        assert_eq!(epoch_ms(0), "0");
    }
    #[test]
    fn spans_are_whole_numbers_with_a_unit() {
        for (text, ms) in
            [("90d", 90 * 86_400_000), ("12 h", 43_200_000), (" 5m", 300_000), ("1s", 1_000), ("250ms", 250)]
        {
            assert_eq!(span(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "d", "90", "-1d", "1.5h", "1w", "1D", "90 days", "18446744073709551615d", "٣d"] {
            assert_eq!(span(text), None, "{text}");
        }
    }
}
